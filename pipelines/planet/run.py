"""Cropland on simulated PlanetScope: networks from fields, roads and buildings, 1 % of the pixels.

    python pipelines/planet/run.py OUT

Simulates a world with labels as surveyors and maps give them, makes the median of a season at 3 m,
trains every recipe on patches of 260 pixels every 100, and prints the accuracy on labelled pixels
of the test blocks (`OUT/results.json`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import distributed

import lcengine
from lcengine import recipes, simulate
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.grid import Grid
from lcengine.labels.request import read_rules
from lcengine.metrics import Accuracy
from lcengine.simulate.planet import COLLECTION

HERE = Path(__file__).parent
KINDS = ("deeplab-head", "patch-cnn")
BANDS = ("blue", "green", "red", "nir")
WORLD = simulate.SimulationOptions(
    size=1024, dates=1, seed=3, bands=("red",), sensors=("planet",), labels=True
)


def prepare(out: Path, world: simulate.SimulationOptions, client: distributed.Client) -> None:
    """`planet.zarr`, the median of all scenes at 3 m, and `labels.zarr`."""
    made = simulate.simulate(out / "world", world)
    items = lcengine.search(str(made.catalog), [COLLECTION])
    transform, (height, width) = items[0].asset("red").transform, items[0].asset("red").shape
    left, top = transform[2], transform[5]
    box = left, top - height * 3, left + width * 3, top
    grid = Grid.from_bounds(*box, "EPSG:32631", 3.0, tile=512)
    spec = CompositeSpec(BANDS, mask="udm", outliers="none", qa="none")
    lcengine.run(plan_composite(items, grid, spec), out / "planet.zarr", client=client)
    lcengine.run(read_rules(out / "labels.toml", grid).plan(), out / "labels.zarr", client=client)


def run(
    out: Path,
    kinds: Sequence[str] = KINDS,
    world: simulate.SimulationOptions = WORLD,
    settings: Sequence[str] = (),
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
            recipe = recipes.read(out / f"{kind}.toml", settings)
            made = recipes.train(recipe, running=recipes.Running(client), say=print)
            found[kind] = made.accuracy["test"]
    told = {name: accuracy.to_json() for name, accuracy in found.items()}
    (out / "results.json").write_text(json.dumps(told, indent=1))
    return found


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which models")
    parser.add_argument("--size", type=int, default=WORLD.size, help="pixels of 10 m along a side")
    parser.add_argument(
        "--set", action="append", default=[], help="of the recipes: training.epochs=5"
    )
    given = parser.parse_args()
    world = replace(WORLD, size=given.size)
    for name, accuracy in run(given.out, tuple(given.kinds), world, given.set).items():
        print(f"{name}: {accuracy.summary}")


if __name__ == "__main__":
    main()
