"""Trees over a raster, beside the libraries that grew them: pixels per second and memory.

    python benchmarks/forest.py [--quick] [--only forest,boosting,xgboost] [--runs 3] [--threads 2]

A raster of 10 bands, 2048² pixels of int16, becomes a map of classes. lcengine predicts blocks
of 512² on as many threads, as workers do; scikit-learn and XGBoost get the flattened float32 array,
which is part of their time, on as many threads of their own. Contenders take turns, each run in a
process of its own. Its memory is what its peak rose by from when model and raster were there, the
map included.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

BANDS, CLASSES, BLOCK = 10, 6, 512
TRAINED = 30_000
TREES = {"forest": 200, "boosting": 200, "xgboost": 200}


def raster(size, seed=0):
    """Bands (band, y, x) int16 of a smooth landscape, and its classes (y, x)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.normal(size=(size, size)), s) * s for s in (4, 6, 9, 14, 20, 30)]
    truth = np.argmax([f + 0.1 * rng.normal(size=f.shape) for f in fields], axis=0)
    mixing = rng.normal(size=(BANDS, CLASSES))
    out = np.empty((BANDS, size, size), np.int16)
    for band, gains in zip(out, mixing, strict=True):
        shown = sum(gain * field for gain, field in zip(gains, fields, strict=True))
        band[:] = (2000 + 900 * shown + rng.normal(0, 120, shown.shape)).clip(1, 9999)
    return out, truth.astype(np.uint8)


def train(name, x, y, threads):
    """A model of that library, of its defaults but for the number of trees."""
    if name == "xgboost":
        import xgboost

        given = {"objective": "multi:softprob", "num_class": CLASSES, "nthread": threads}
        return xgboost.train(given, xgboost.QuantileDMatrix(x, y), TREES[name])
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    if name == "forest":
        return RandomForestClassifier(TREES[name], n_jobs=threads, random_state=0).fit(x, y)
    return HistGradientBoostingClassifier(
        max_iter=TREES[name], early_stopping=False, random_state=0
    ).fit(x, y)


def save_ours(name, model, folder):
    from lcengine import models
    from lcengine.features import Features
    from lcengine.inputs import Input
    from lcengine.legends import Entry, Legend
    from lcengine.models.boosting import Boosted
    from lcengine.models.forest import Forest
    from lcengine.models.pixels import PixelPredictor
    from lcengine.models.xgboost import of

    made = {"forest": Forest.of, "boosting": Boosted.of, "xgboost": of}[name]
    inputs = (Input("s2", tuple(f"b{i}" for i in range(BANDS)), "int16", -32768, scale=1e-4),)
    classes = tuple(Entry(i, f"class {i}", f"#{i:02x}0000") for i in range(CLASSES))
    spec = models.ModelSpec(name, inputs, Legend("made", "Made up", classes, "made up"))
    features = Features.parse((), inputs)
    models.save(PixelPredictor(spec, features, made(model), tuple(range(CLASSES))), folder)


def peak_mb(*, reset=False):
    """Largest resident memory of this process since it was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def ours(folder, bands, threads):
    """Map of classes, block by block."""
    from lcengine import models

    predictor = models.load(folder / "ours")
    size = bands.shape[1]
    out = np.empty((size, size), np.uint8)

    def block(place):
        y, x = place
        part = bands[None, :, y : y + BLOCK, x : x + BLOCK]
        valid = np.ones((1, *part.shape[2:]), np.bool_)
        out[y : y + BLOCK, x : x + BLOCK] = predictor.predict({"s2": part}, valid)[0].argmax(axis=0)

    def run():
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(block, product(range(0, size, BLOCK), repeat=2)))
        return out

    predictor.predict({"s2": bands[None, :, :8, :8]}, np.ones((1, 8, 8), np.bool_))  # compiles
    return run


def theirs(folder, bands, threads):
    """Map of classes by the library's own predict."""
    from threadpoolctl import threadpool_limits

    model = pickle.loads((folder / "theirs").read_bytes())

    def run():
        x = np.moveaxis(bands, 0, -1).reshape(-1, BANDS).astype(np.float32) * np.float32(1e-4)
        if hasattr(model, "inplace_predict"):
            model.set_param({"nthread": threads})
            found = model.inplace_predict(x).argmax(axis=1)
        else:
            if hasattr(model, "n_jobs"):
                model.n_jobs = threads
            with threadpool_limits(threads):
                found = model.predict(x)
        return found.astype(np.uint8).reshape(bands.shape[1:])

    return run


def once(folder, who, threads):
    """One run in this process, as JSON on stdout; the map beside the model."""
    bands = np.load(folder.parent / "bands.npy")
    run = (ours if who == "ours" else theirs)(folder, bands, threads)
    before = peak_mb(reset=True)
    start, cpu = time.perf_counter(), time.process_time()
    found = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"s": seconds, "cpu": cpu, "mb": peak_mb() - before}))
    np.save(folder / f"{who}.npy", found)


def measured(folder, who, threads):
    command = [sys.executable, __file__, "--once", str(folder), who, "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(root, name, runs, threads):
    """Rows of the table of one kind of model."""
    figures = {"ours": [], "theirs": []}
    for _ in range(runs):
        for who, rows in figures.items():
            rows.append(measured(root / name, who, threads))
    maps = [np.load(root / name / f"{who}.npy") for who in figures]
    middle = {
        who: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for who, rows in figures.items()
    }
    for who, row in middle.items():
        label = f"lcengine {name}" if who == "ours" else f"its library ({name})"
        print(
            f"| {label} | {maps[0].size / row['s'] / 1e6:.3f} "
            f"| {maps[0].size / row['cpu'] / 1e6:.3f} | {row['mb']:.0f} "
            f"| {middle['theirs']['s'] / row['s']:.1f} "
            f"| {np.mean(maps[0] == maps[1]):.6%} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="512² pixels, 1 run")
    parser.add_argument("--only", default=",".join(TREES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--once", nargs=2, metavar=("FOLDER", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(Path(options.once[0]), options.once[1], options.threads)
        return
    size, runs = (512, 1) if options.quick else (2048, options.runs)
    bands, truth = raster(size)
    rng = np.random.default_rng(1)
    places = rng.choice(truth.size, TRAINED, replace=False)
    x = bands.reshape(BANDS, -1)[:, places].T.astype(np.float32) * np.float32(1e-4)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        np.save(root / "bands.npy", bands)
        print(f"\n{size}² pixels, {BANDS} bands, {CLASSES} classes, {options.threads} threads\n")
        print("| contender | Mpx/s | Mpx per CPU second | more MB | × | pixels equal |")
        print("|---|---|---|---|---|---|")
        for name in options.only.split(","):
            model = train(name, x, truth.reshape(-1)[places], options.threads)
            (root / name).mkdir()
            (root / name / "theirs").write_bytes(pickle.dumps(model))
            save_ours(name, model, root / name / "ours")
            compare(root, name, runs, options.threads)


if __name__ == "__main__":
    main()
