"""Trees over a raster, beside the libraries that grew them: pixels per second and memory.

    python benchmarks/forest.py [--quick] [--only forest,boosting,xgboost] [--runs 3] [--threads 2]

A raster of 10 bands, 2048² pixels of int16, becomes a map of classes. lcengine predicts blocks
of 512² on as many threads, as workers do, and once more through the engine, from product to
product; scikit-learn and XGBoost get the flattened float32 array, which is part of their time, on
as many threads of their own. Contenders take turns, each run in a
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
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

BANDS, CLASSES, BLOCK = 10, 6, 512
TRAINED = 30_000
TREES = {"forest": 200, "boosting": 200, "xgboost": 200}
WHO = {
    "ours": "lcengine {}",
    "engine": "lcengine {}, product to product",
    "theirs": "its library ({})",
}


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


def grid_of(size):
    from lcengine.grid import Grid

    bounds = 600_000, 5_600_000 - 10 * size, 600_000 + 10 * size, 5_600_000
    return Grid.from_bounds(*bounds, 32631, 10.0, BLOCK)


def publish(path, bands):
    """The raster as a product."""
    from lcengine.store import Variable, target

    layers = [Variable(f"b{i}", "int16", -32768, f"b{i}", 1e-4, "1") for i in range(BANDS)]
    grid, place = grid_of(bands.shape[1]), target(path)
    with place.exclusive():
        staging = place.create({"made": "bands"}, "bands", {"kind": "none"}, grid, layers)
        for tile in grid.tiles():
            parts = {v.name: bands[i][tile.slices] for i, v in enumerate(layers)}
            staging.write(tile, parts)
            staging.accept(staging.mark(tile.index, {"pixels": 1}))
        staging.publish(range(grid.n_tiles), {"kind": "composite"}, {})


@contextmanager
def engine(folder, bands, threads):
    """Map of classes by the engine, as a product; workers are threads of this process."""
    from distributed import Client, LocalCluster

    from lcengine import jobs, store
    from lcengine.predict.plan import plan_predict
    from lcengine.predict.task import warm_up

    output = folder / "map.zarr"

    def run():
        plan = plan_predict(folder.parent / "bands.zarr", folder / "ours")
        return jobs.run(plan, output, client=client, restart=True)

    warm_up(plan_predict(folder.parent / "bands.zarr", folder / "ours"))
    size = bands.shape[1]
    with LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        dashboard_address="127.0.0.1:0",
    ) as cluster, Client(cluster) as client:  # fmt: skip
        yield run, lambda: store.stored(output)["label"].values.reshape(size, size)


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
    if who == "engine":
        with engine(folder, bands, threads) as (run, read):
            figures, _ = timed(run)
            found = read()
    else:
        figures, found = timed((ours if who == "ours" else theirs)(folder, bands, threads))
    print(json.dumps(figures))
    np.save(folder / f"{who}.npy", found)


def timed(run):
    """Figures of one run, and what it gives."""
    before = peak_mb(reset=True)
    start, cpu = time.perf_counter(), time.process_time()
    found = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"s": seconds, "cpu": cpu, "mb": peak_mb() - before}, found


def measured(folder, who, threads):
    command = [sys.executable, __file__, "--once", str(folder), who, "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(root, name, runs, threads):
    """Rows of the table of one kind of model."""
    figures = {who: [] for who in WHO}
    for _ in range(runs):
        for who, rows in figures.items():
            rows.append(measured(root / name, who, threads))
    maps = {who: np.load(root / name / f"{who}.npy") for who in figures}
    middle = {
        who: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for who, rows in figures.items()
    }
    for who, row in middle.items():
        pixels = maps[who].size / 1e6
        print(
            f"| {WHO[who].format(name)} | {pixels / row['s']:.3f} "
            f"| {pixels / row['cpu']:.3f} | {row['mb']:.0f} "
            f"| {middle['theirs']['s'] / row['s']:.1f} "
            f"| {np.mean(maps[who] == maps['theirs']):.6%} |"
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
        publish(root / "bands.zarr", bands)
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
