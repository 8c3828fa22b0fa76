"""Comparator networks, and the machine code of the kernels."""

from __future__ import annotations

import itertools
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.kernels import _jit, reducers
from lcengine.kernels.networks import selection_network


def run(network, column):
    values = list(column)
    for low, high in network.tolist():
        if values[low] > values[high]:
            values[low], values[high] = values[high], values[low]
    return values


@pytest.mark.parametrize("n", range(1, 10))
def test_networks_by_the_zero_one_principle(n):
    for ranks in [tuple(range(n)), *((r,) for r in range(n)), *itertools.pairwise(range(n))]:
        network = selection_network(n, ranks)
        for column in itertools.product((0, 1), repeat=n):
            placed = run(network, column)
            assert [placed[r] for r in ranks] == [sorted(column)[r] for r in ranks]


@given(
    n=st.integers(10, 300), rank=st.floats(0, 1), seed=st.integers(0, 10**6), share=st.floats(0, 1)
)
def test_long_networks(n, rank, seed, share):
    lower = min(int(rank * n), n - 2)
    network = selection_network(n, (lower, lower + 1))
    column = np.random.default_rng(seed).random(n) < share
    assert run(network, column)[lower : lower + 2] == sorted(column)[lower : lower + 2]


def test_pruning_drops_comparators():
    assert len(selection_network(24, (11, 12))) < len(selection_network(24, tuple(range(24))))
    assert len(selection_network(24, (0,))) == 23


# --------------------------------------------------------------------------- compiled machine


def test_cached_kernels_survive_a_damaged_file(tmp_path):
    program = (
        "import numpy as np\n"
        "from lcengine.kernels.reducers import add_masked\n"
        "a, total = np.arange(9, dtype=np.int16), np.zeros(9, np.int32)\n"
        "add_masked(a, a | -1, total)\n"
        "print(total.sum())\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "LCENGINE_KERNEL_CACHE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-W", "error", "-c", program]

    def sums(processes):
        """Start several at once."""
        with ThreadPoolExecutor(processes) as pool:
            runs = [
                pool.submit(subprocess.check_output, command, env=environment, text=True)
                for _ in range(processes)
            ]
            return {run.result() for run in runs}

    assert sums(3) == {"36\n"}
    (file,) = tmp_path.rglob("*add_masked*")
    file.write_bytes(file.read_bytes()[:100])
    assert sums(1) == {"36\n"}
    assert file.stat().st_size > 100


@pytest.mark.parametrize(
    ("kind", "least", "greatest"), [("int16", "pminsw", "pmaxsw"), ("uint16", "pminuw", "pmaxuw")]
)
def test_comparators_are_simd_in_16_bits(kind, least, greatest):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names x86 instructions")
    sort = numba.njit(nogil=True, error_model="numpy")(reducers.sort.py_func)
    sort(np.zeros((2, 64), kind), selection_network(2, (0, 1)))
    (assembly,) = sort.inspect_asm().values()
    assert least in assembly
    assert greatest in assembly
    assert not re.search(r"pmin[su][dq]", assembly)


def test_cache_can_be_off(monkeypatch, tmp_path):
    _jit._cache_folder.cache_clear()
    monkeypatch.setenv("LCENGINE_KERNEL_CACHE", "0")
    try:
        assert _jit._cache_folder() is None
        _jit._cache_folder.cache_clear()
        monkeypatch.delenv("LCENGINE_KERNEL_CACHE")
        blocked = tmp_path / "file"
        blocked.touch()
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
        assert _jit._cache_folder() is None
    finally:
        _jit._cache_folder.cache_clear()
