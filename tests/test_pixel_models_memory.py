"""Training with a memory limit below the size of the samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sample_stores import write_samples

from lcengine.inputs import Input

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA holds on Linux alone"),
]

PERIODS = tuple(f"2018-{month:02}" for month in range(1, 13))
S2 = Input("s2", tuple("abcdefghijklmnop"), "int16", -32768, PERIODS, scale=1e-4)
PATCH = 64
MEMORY = 16 * 2**20
OPTIONS = {
    "logistic": {"iterations": 20},
    "mlp": {"hidden": [8], "epochs": 1},
    "forest": {"trees": 4, "max_depth": 6},
    # Sketches of 256 bins, which do not grow with the pixels, would be larger than the memory.
    "xgboost": {"rounds": 2, "max_depth": 4, "bins": 16},
}

# What is compiled and loaded once is not what is limited: a small fit goes before.
FIT = """
import json, resource, sys, threading
from pathlib import Path
from lcengine import models, samples
threading.stack_size(2**19)
small, big, name, options, memory, limit = sys.argv[1:]
kind = models.kind(name)
said = []
training = lambda m: models.Training(memory=int(m), calibrate=True, threads=1, say=said.append)
kind.fit(samples.open(small), kind.options(**json.loads(options)), training(2**24))
opened = samples.open(big)
said.clear()
lines = Path("/proc/self/status").read_text().splitlines()
now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (now + int(limit),) * 2)
try:
    found = kind.fit(opened, kind.options(**json.loads(options)), training(memory))
except Exception as error:
    print(json.dumps({"failed": repr(error)}))
else:
    print(json.dumps({"training": dict(found.spec.training), "said": said}))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path, int]:
    """A small store, a big one, and the bytes of the features of its labelled training pixels."""
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    paths, size = [], 0
    for name, count in (("small", 8), ("big", 60)):
        label = np.kron(rng.integers(0, 3, (count, 4, 4)), np.ones((1, 16, 16), int))
        noise = rng.integers(-600, 600, (count, *S2.lead, PATCH, PATCH), np.int16)
        image = noise + (1500 + 300 * label[:, None, None]).astype(np.int16)
        arrays = {"s2": image, "label": label.astype(np.uint8)}
        paths.append(write_samples(folder / f"{name}.zarr", arrays, (S2,)))
        size = label.size * 3 // 4 * len(PERIODS) * len(S2.bands) * 4
    return (*paths, size)


def fit(stores, kind, memory, limit):
    if kind == "xgboost":
        pytest.importorskip("xgboost")
    small, big, _ = map(str, stores)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FIT,
            small,
            big,
            kind,
            json.dumps(OPTIONS[kind]),
            str(memory),
            str(limit),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_model_is_trained_with_less_memory_than_its_samples(stores, kind):
    limit = 4 * MEMORY
    assert stores[2] > 2 * limit
    found = fit(stores, kind, MEMORY, limit)
    assert "failed" not in found, found
    pixels = found["training"]["pixels"]
    capped = [text for text in found["said"] if "labelled train pixels" in text]
    if kind in ("mlp", "xgboost"):  # they train on all that there is
        assert not capped
    else:
        assert len(capped) == 1
        assert sum(found["training"]["drawn"].values()) < sum(pixels.values()) / 4


def test_the_limit_is_one(stores):
    found = fit(stores, "logistic", 2**31, 3 * MEMORY)
    assert "MemoryError" in found["failed"]
