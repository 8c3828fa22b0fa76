"""Land cover of the simulated world: bag of colours beside pixel classifiers, split by blocks.

    python pipelines/landcover/run.py OUT

Simulates a world, makes the median of its season and the truth in classes of DFC2020, trains every
recipe on the same patches, and prints the accuracy on the test blocks (`OUT/results.json`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import rasterio

import lcengine
from lcengine import recipes, simulate
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.grid import Grid
from lcengine.metrics import Accuracy

HERE = Path(__file__).parent
KINDS = ("bag-of-colors", "forest", "xgboost", "mlp")
WORLD = simulate.SimulationOptions(size=2048, dates=12, seed=3)
BANDS = ("blue", "green", "red", "nir")


def prepare(out: Path, world: simulate.SimulationOptions, client: distributed.Client) -> None:
    """`season.zarr`, the median of all dates, and `landcover.tif`, the truth."""
    made = simulate.simulate(out / "world", world)
    truth_in_classes(made.truth / "landcover.tif", out / "landcover.tif")
    with rasterio.open(out / "landcover.tif") as file:
        grid = Grid.from_bounds(*file.bounds, file.crs.to_epsg(), 10, tile=512)
    items = lcengine.search(str(made.catalog), ["sentinel-2-l2a"])
    lcengine.run(
        plan_composite(items, grid, CompositeSpec(BANDS)), out / "season.zarr", client=client
    )


def truth_in_classes(source: Path, target: Path) -> None:
    """The covers of the world as classes of DFC2020."""
    codes = np.zeros(256, np.uint8)
    for cover in simulate.LEGEND:
        codes[cover.code] = cover.dfc2020
    with rasterio.open(source) as file:
        profile = {**file.profile, "driver": "GTiff", "nodata": 255}
        with rasterio.open(target, "w", **profile) as out:
            out.write(codes[file.read(1)], 1)


def run(
    out: Path, kinds: tuple[str, ...] = KINDS, world: simulate.SimulationOptions = WORLD
) -> dict[str, Accuracy]:
    """Everything; accuracies on the test blocks by kind of model."""
    out.mkdir(parents=True, exist_ok=True)
    for file in HERE.glob("*.toml"):
        shutil.copy(file, out)
    found = {}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        prepare(out, world, client)
        for kind in kinds:
            recipe = recipes.read(out / f"{kind}.toml")
            made = recipes.train(recipe, running=recipes.Running(client), say=print)
            found[kind] = made.accuracy["test"]
    return found


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which models")
    parser.add_argument("--size", type=int, default=WORLD.size, help="pixels of 10 m along a side")
    given = parser.parse_args()
    found = run(given.out, tuple(given.kinds), replace(WORLD, size=given.size))
    legend = next(iter(found.values())).legend
    print("| | macro F1 | macro IoU | weighted F1 | weighted IoU | overall |")
    print("|---|---|---|---|---|---|")
    for name, accuracy in found.items():
        values = [accuracy.macro["f1"], accuracy.macro["iou"]]
        values += [accuracy.weighted["f1"], accuracy.weighted["iou"], accuracy.overall]
        print(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    print(f"\n| F1 / IoU | {' | '.join(found)} |")
    print("|---" * (len(found) + 1) + "|")
    for i, name in enumerate(legend.names):
        cells = [
            f"{100 * a.measures['f1'][i]:.1f} / {100 * a.measures['iou'][i]:.1f}"
            for a in found.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    told = {name: accuracy.to_json() for name, accuracy in found.items()}
    (given.out / "results.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
