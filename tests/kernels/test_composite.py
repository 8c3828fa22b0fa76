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
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lcengine.errors import InputError
from lcengine.kernels import NODATA, _jit, reducers
from lcengine.kernels.composite import MadScreen, Reducer, composite
from lcengine.kernels.networks import selection_network

SIZES = [1, 2, 3, 4, 5, 7, 8, 23, 24, 25, 31, 32, 33, 64, 65]
REDUCERS = ["median", "mean", "percentile:25", "percentile:90:nearest"]
SCREEN = {"screen": MadScreen(), "screen_bands": (0, 1, 2)}


def make(seed, observations, shape=(5, 7), bands=4, masked=0.4, members=1, extreme=False):
    """Items, clear masks and groups; some bands nodata; a few bright outliers."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, members + 1, observations)
    groups = np.repeat(np.arange(observations) * 3 - 5, sizes)
    size = (groups.size, bands, *shape)
    if extreme:
        values = rng.choice(np.array([-32767, -32766, -1, 0, 1, 32766, 32767], np.int16), size)
    else:
        values = rng.integers(-200, 1500, size).astype(np.int16)
        values[rng.random((groups.size, *shape)).repeat(bands, 0).reshape(size) < 0.08] += 9000
    values[rng.random(size) < 0.02] = NODATA
    clear = rng.random((groups.size, *shape)) >= masked
    clear[:, 0, 0] = False
    if shape[1] > 1:
        clear[:, 0, 1] = True
    return values, clear, groups


def same(got, expected):
    for name, a, b in zip(("values", "count", "outliers"), got, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


def oracle(values, clear, groups=None, *, reducer, screen=None, screen_bands=(), n_out=None):
    return oracles.composite(
        values,
        clear,
        groups,
        (reducer.name, reducer.percent, reducer.rule),
        None if screen is None else (screen.k, screen.floor),
        screen_bands,
        values.shape[1] if n_out is None else n_out,
    )


# ------------------------------------------------------------------------- against the oracle


@given(
    seed=st.integers(0, 2**32 - 1),
    observations=st.sampled_from(SIZES),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    masked=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    members=st.sampled_from([1, 1, 3]),
    extreme=st.booleans(),
    reducer=st.one_of(
        st.sampled_from(REDUCERS),
        st.integers(0, 100_000).map(lambda p: f"percentile:{p / 1000:.3f}"),
        st.integers(0, 100_000).map(lambda p: f"percentile:{p / 1000:.3f}:nearest"),
    ),
    screen=st.sampled_from(
        [None, MadScreen(), MadScreen(0.0), MadScreen(2.5, 0), MadScreen(1.349)]
    ),
    n_out=st.sampled_from([1, 3, 4]),
)
def test_equals_the_oracle(  # noqa: PLR0917
    seed, observations, shape, masked, members, extreme, reducer, screen, n_out
):
    values, clear, groups = make(
        seed, observations, shape, masked=masked, members=members, extreme=extreme
    )
    options = {"reducer": Reducer.parse(reducer), "screen": screen, "n_out": n_out}
    if screen is not None:
        options["screen_bands"] = (0, 1, 2)
    same(composite(values, clear, groups, **options), oracle(values, clear, groups, **options))


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("observations", [100, 256, 257, 1000, 1024])
def test_equals_the_oracle_for_long_series(observations, reducer):
    values, clear, groups = make(observations, observations, (1, 5), bands=3)
    options = {"reducer": Reducer.parse(reducer), **SCREEN}
    same(composite(values, clear, groups, **options), oracle(values, clear, groups, **options))


@pytest.mark.parametrize("width", [63, 64, 65, 255, 256, 257, 511, 513, 1025])
def test_strip_edges(width):
    values, clear, groups = make(width, 6, (2, width), bands=3, members=2)
    options = {"reducer": Reducer("mean"), **SCREEN}
    expected = oracle(values, clear, groups, **options)
    same(composite(values, clear, groups, **options), expected)
    # A view that is not whole planes is cut row by row.
    wide = np.pad(values, ((0, 0), (0, 0), (0, 0), (3, 2)))[..., 3:-2]
    same(composite(wide, clear, groups, **options), expected)


@pytest.mark.parametrize("name", ["median", "mean"])
def test_halves_go_to_the_even_neighbour(name):
    pairs = [(0, 1), (1, 2), (-1, 0), (-2, -1), (-32767, 32766), (32766, 32767), (-32767, -32766)]
    values = np.ascontiguousarray(np.array(pairs, np.int16).T).reshape(2, 1, 1, -1)
    got = composite(values, np.ones((2, 1, 7), np.uint8), reducer=Reducer(name)).values
    assert got.ravel().tolist() == [0, 2, 0, -2, 0, 32766, -32766]


def test_mad_threshold_is_strict():
    # m = 0, MAD = 13490/1349·… chosen so that 0.6745·d/MAD is exactly k for one observation.
    series = np.array([-1349, -1349, 0, 1349, 1349, 2000 * 2], np.int16).reshape(-1, 1, 1, 1)
    clear = np.ones((6, 1, 1), np.uint8)
    options = {"reducer": Reducer("mean"), "screen_bands": (0,)}
    middle, mad = 1349 / 2, (1349 * 1.5 + 1349 / 2) / 2
    assert mad == 1349
    at = 0.6745 * (4000 - middle) / mad
    for k, rejected in ((1.662, 1), (1.663, 0)):
        assert (at > k) == bool(rejected)
        screen = MadScreen(k)
        got = composite(series, clear, screen=screen, **options)
        assert got.outliers[0, 0] == rejected
        assert got.count[0, 0] == 6 - rejected
    # Equality: deviations 0 0 1 1 20 with a floor of 4: 0.6745·20/4 = 3.3725 against k·1000.
    series = np.array([0, 0, 0, 0, 0, 2000], np.int16).reshape(-1, 1, 1, 1)
    for k, rejected in ((13.489, 1), (13.49, 0), (13.491, 0)):
        got = composite(series, clear, screen=MadScreen(k, 100), **options)
        assert got.outliers[0, 0] == rejected


def test_fewer_than_five_reject_nothing():
    values = np.array([0, 0, 0, 30000], np.int16).reshape(-1, 1, 1, 1)
    got = composite(values, np.ones((4, 1, 1), bool), screen=MadScreen(), screen_bands=(0,))
    assert got.count[0, 0] == 4
    assert got.outliers[0, 0] == 0


def test_no_items_is_all_nodata():
    got = composite(np.empty((0, 2, 3, 4), np.int16), np.empty((0, 3, 4), np.uint8))
    assert (got.values == NODATA).all()
    assert got.values.shape == (2, 3, 4)
    assert not got.count.any()
    assert not got.outliers.any()
    assert composite(np.empty((3, 2, 0, 4), np.int16), np.empty((3, 0, 4), bool)).count.size == 0


# -------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("options", [{}, SCREEN], ids=["plain", "screened"])
@given(seed=st.integers(0, 1000), row=st.integers(0, 9), column=st.integers(0, 300))
@example(seed=0, row=9, column=256)
def test_splitting_in_space_changes_nothing(reducer, options, seed, row, column):
    values, clear, groups = make(seed, 9, (10, 301), members=2)
    options = {"reducer": Reducer.parse(reducer), **options}
    whole = composite(values, clear, groups, **options)
    for part in itertools.product(
        (slice(0, row), slice(row, None)), (slice(0, column), slice(column, None))
    ):
        got = composite(values[..., *part], clear[:, *part], groups, **options)
        same(got, [array[..., *part] for array in whole])


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("options", [{}, SCREEN], ids=["plain", "screened"])
@given(seed=st.integers(0, 1000), order=st.permutations(range(13)))
def test_order_of_observations_changes_nothing(reducer, options, seed, order):
    values, clear, groups = make(seed, 13, members=3)
    options = {"reducer": Reducer.parse(reducer), **options}
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    items = np.concatenate([members[i] for i in order])
    relabelled = np.repeat(np.arange(13), [members[i].size for i in order])
    same(
        composite(values[items], clear[items], relabelled, **options),
        composite(values, clear, groups, **options),
    )


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("options", [{}, SCREEN], ids=["plain", "screened"])
def test_threads_change_nothing(reducer, options):
    values, clear, groups = make(3, 24, (61, 67), members=2)
    options = {"reducer": Reducer.parse(reducer), **options}
    expected = composite(values, clear, groups, **options)
    same(composite(values, clear, groups, parallel=True, **options), expected)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(
            lambda parallel: composite(values, clear, groups, parallel=parallel, **options),
            [False, True] * 4,
        ):
            same(got, expected)


def test_views_equal_copies_and_inputs_stay():
    values, clear, groups = make(5, 12, (33, 40), members=2)
    big = np.zeros((values.shape[1], values.shape[0], 66, 50), np.int16)
    strided = big.transpose(1, 0, 2, 3)[:, :, ::2, 5:45]
    strided[:] = values
    strided.setflags(write=False)
    expected = composite(values, clear, groups, **SCREEN)
    same(composite(strided, clear[..., ::-1][..., ::-1], groups, **SCREEN), expected)
    np.testing.assert_array_equal(strided, values)
    backwards = (values[::-1, :, ::-1], clear[::-1, ::-1], -groups[::-1])
    copies = [np.ascontiguousarray(array) for array in backwards]
    same(composite(*backwards, **SCREEN), composite(*copies, **SCREEN))
    same(composite(values, np.asfortranarray(clear), groups, **SCREEN), expected)
    same(composite(values, clear.astype(np.uint8) * 200, groups, **SCREEN), expected)
    one = np.broadcast_to(clear[:1], clear.shape)
    same(composite(values, one, groups), composite(values, one.copy(), groups))


def test_bands_beyond_n_out_still_decide_validity():
    values = np.full((1, 2, 1, 2), 7, np.int16)
    values[0, 1, 0, 1] = NODATA
    got = composite(values, np.ones((1, 1, 2), bool), n_out=1)
    assert got.values.tolist() == [[[7, NODATA]]]
    assert got.count.tolist() == [[1, 0]]


# --------------------------------------------------------------------------- words and errors


@pytest.mark.parametrize(
    ("text", "reducer"),
    [
        ("median", Reducer("median")),
        ("mean", Reducer("mean")),
        ("percentile:25", Reducer("percentile", 25.0)),
        ("percentile:2.5", Reducer("percentile", 2.5)),
        ("percentile:100:nearest", Reducer("percentile", 100.0, "nearest")),
    ],
)
def test_reducer_text(text, reducer):
    assert Reducer.parse(text) == reducer
    assert str(reducer) == text
    assert hash(Reducer.parse(str(reducer))) == hash(reducer)


@pytest.mark.parametrize(
    "text",
    [
        *("", "mode", "median:3", "percentile", "percentile:101", "percentile:-1"),
        *("percentile:nan", "percentile:1e1", "percentile:0.0001"),
        *("percentile:25:mean", "percentile:25:nearest:x"),
    ],
)
def test_bad_reducer_text(text):
    with pytest.raises(InputError, match=r"(method is|got) .* expected .*percentile:P"):
        Reducer.parse(text)


def test_screen_text():
    assert MadScreen.parse("none") is None
    assert MadScreen.parse("mad") == MadScreen(3.0, 50)
    assert MadScreen.parse("mad:2.5") == MadScreen(2.5)
    assert str(MadScreen(2.5)) == "mad:2.5"
    for text in ("", "mad:", "mad:-1", "mad:2.5001", "mad:3:4", "zscore", "mad:inf", "mad:1001"):
        with pytest.raises(InputError, match=r"got .* expected"):
            MadScreen.parse(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((3, 2, 4, 4), np.uint16)}, "got values uint16"),
        ({"values": np.zeros((3, 4, 4), np.int16)}, "expected int16"),
        ({"values": np.zeros((3, 2, 4, 8), np.int16)[..., ::2]}, "ascontiguousarray"),
        ({"clear": np.zeros((3, 4, 4), np.int16)}, "got clear int16"),
        ({"clear": np.zeros((3, 4, 5), bool)}, r"got clear of shape \(3, 4, 5\)"),
        ({"groups": np.array([0, 2, 1])}, "decrease"),
        ({"groups": np.array([0, 1])}, "got groups"),
        ({"groups": np.array([0.0, 1.0, 2.0])}, "got groups float64"),
        ({"n_out": 3}, "got n_out 3"),
        ({"n_out": 0}, "got n_out 0"),
        ({"screen": MadScreen(), "screen_bands": (0, 2)}, "got screen_bands"),
        ({"screen": MadScreen(), "screen_bands": (-1,)}, "got screen_bands"),
        ({"screen": MadScreen()}, "got screen_bands"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"values": np.zeros((3, 2, 4, 4), np.int16), "clear": np.zeros((3, 4, 4), bool)}
    with pytest.raises(InputError, match=message):
        composite(**{**good, **change})


def test_too_many_observations_are_refused():
    with pytest.raises(InputError, match="got 1025 observations"):
        composite(np.zeros((1025, 1, 1, 1), np.int16), np.ones((1025, 1, 1), bool))
    # Items do not count, observations do.
    got = composite(
        np.ones((1025, 1, 1, 1), np.int16), np.ones((1025, 1, 1), bool), np.zeros(1025, int)
    )
    assert got.count[0, 0] == 1


def test_screen_and_reducer_values_are_checked():
    for bad in ({"k": -1.0}, {"k": float("nan")}, {"k": 1e9}, {"floor": -1}, {"floor": 10**6}):
        with pytest.raises(InputError, match="got MAD"):
            MadScreen(**bad)
    for bad in (
        {"name": "mode"},
        {"name": "percentile", "percent": 100.5},
        {"rule": "lower"},
        {"name": "mean", "percent": 3.0},
    ):
        with pytest.raises(InputError, match="got "):
            Reducer(**{"name": "percentile", **bad})


# ----------------------------------------------------------------------------------- networks


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


def test_comparators_are_simd_in_16_bits():
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names x86 instructions")
    sort = numba.njit(nogil=True, error_model="numpy")(reducers.sort.py_func)
    sort(np.zeros((2, 64), np.int16), selection_network(2, (0, 1)))
    (assembly,) = sort.inspect_asm().values()
    assert "pminsw" in assembly
    assert "pmaxsw" in assembly
    assert not re.search("pmin(sd|sq)", assembly)


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
