"""Confusion counts beside NumPy and scikit-learn, and a whole evaluation by tiles.

Contenders get two index rasters in memory (uint8, 255 = no class) and give the counts of all pairs;
they run interleaved, each on one thread. Memory is the peak of what Python and NumPy allocate
meanwhile (tracemalloc), in a run that is not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from lcengine.evaluate import task
from lcengine.evaluate.plan import plan_evaluation
from lcengine.grid import Grid
from lcengine.kernels.confusion import count_pairs
from lcengine.legends import Entry, Legend
from lcengine.store import Variable, target

CLASSES = 11
LEFT, TOP, CRS = 500_000, 5_600_000, "EPSG:32631"


def rasters(edge, kind):
    """A reference of fields of 32 pixels, or of single ones, and a map that is 80 % right."""
    rng = np.random.default_rng(0)
    step = 32 if kind == "fields" else 1
    reference = rng.integers(0, CLASSES, (edge // step, edge // step), np.uint8)
    reference = np.kron(reference, np.ones((step, step), np.uint8))
    wrong = rng.random(reference.shape) < 0.2
    mapped = np.where(wrong, rng.integers(0, CLASSES, reference.shape, np.uint8), reference)
    reference[rng.random(reference.shape) < 0.1] = 255
    return reference, mapped


def lcengine(reference, mapped):
    counts = np.zeros((CLASSES, CLASSES + 1), np.int64)
    count_pairs(reference.ravel(), mapped.ravel(), counts)
    return counts[:, :CLASSES]


def bincount(reference, mapped):
    there = reference < CLASSES
    pairs = reference[there].astype(np.int64) * CLASSES + mapped[there]
    return np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def sklearn(reference, mapped):
    there = reference < CLASSES
    return confusion_matrix(reference[there], mapped[there], labels=np.arange(CLASSES))


CONTENDERS = {"lcengine": lcengine, "np.bincount": bincount, "scikit-learn": sklearn}


def memory(work, *arguments):
    """MiB that are held at most while it works."""
    tracemalloc.start()
    work(*arguments)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 2**20


def by_tiles(edge, tile):
    """Seconds of all tiles of an evaluation of two products, one by one, and MiB of one."""
    names = [Entry(i, f"class {i}", f"#0000{i:02x}") for i in range(CLASSES)]
    legend = Legend("eleven", "Eleven classes", tuple(names), "made up")
    grid = Grid.from_bounds(LEFT, TOP - 10 * edge, LEFT + 10 * edge, TOP, CRS, 10, tile)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, codes in zip(("truth", "map"), rasters(edge, "fields"), strict=True):
            variable = Variable("label", "uint8", 255, "class", legend=legend)
            place = target(Path(folder) / f"{name}.zarr")
            facts = {"kind": "labels", "legend": legend.to_json()}
            with place.exclusive():
                staging = place.create({}, name, {"kind": "none"}, grid, [variable])
                for part in grid.tiles():
                    staging.write(part, {"label": codes[part.slices]})
                    staging.accept(staging.mark(part.index, {"pixels": 1}))
                paths.append(staging.publish(range(grid.n_tiles), facts, {}))
        plan = plan_evaluation(paths[1], paths[0])
        task.warm_up(plan)
        more = memory(task.compute, plan, 0, 0)
        start = time.perf_counter()
        for number in plan.tiles:
            task.compute(plan, number, 0)
        return time.perf_counter() - start, more


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="edge of the rasters in pixels")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1024 pixels, one run")
    parser.add_argument("--json", help="also write the figures into this file")
    options = parser.parse_args()
    edge, runs = (1024, 1) if options.quick else (options.size, options.runs)
    rows = []
    print(f"{edge}² pixels, {CLASSES} classes\n")
    print("| raster | contender | ms | Mpx/s | × | MB |")
    print("|---|---|---|---|---|---|")
    for kind in ("fields", "single pixels"):
        pair = rasters(edge, kind)
        expected = lcengine(*pair)
        times = {name: [] for name in CONTENDERS}
        for _ in range(runs):
            for name, work in CONTENDERS.items():
                start = time.perf_counter()
                found = work(*pair)
                times[name].append(time.perf_counter() - start)
                assert (found == expected).all(), name
        own = statistics.median(times["lcengine"])
        for name, found in times.items():
            seconds = statistics.median(found)
            more = memory(CONTENDERS[name], *pair)
            rate = edge**2 / seconds / 1e6
            print(
                f"| {kind} | {name} | {1000 * seconds:.1f} | {rate:.0f} | {seconds / own:.1f} | "
                f"{more:.0f} |"
            )
            rows.append({"raster": kind, "contender": name, "seconds": seconds, "more_mb": more})
    seconds, more = by_tiles(edge, min(1024, edge))
    rate = edge**2 / seconds / 1e6
    print(f"\nTwo products by tiles of 1024, one thread: {rate:.0f} Mpx/s, {more:.0f} MB a tile.")
    rows.append({"raster": "products", "contender": "tiles", "seconds": seconds, "more_mb": more})
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
