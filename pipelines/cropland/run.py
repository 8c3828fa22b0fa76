"""Crops and grassland of Flanders: every classifier, trained on one half and tested on the other.

    python pipelines/cropland/run.py FLANDERS OUT

FLANDERS: a folder with `catalog.json` (Sentinel-2) and `labels_lc.tif` (11 temporary crops, 13
grassland, 60 built-up, 99 other). Both folds' pixels are counted together. `OUT/results.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import distributed
import numpy as np
import rasterio

import lcengine
from lcengine import recipes
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.grid import Grid
from lcengine.metrics import Accuracy
from lcengine.periods import PeriodRule

HERE = Path(__file__).parent
KINDS = ("logistic", "forest", "boosting", "xgboost", "mlp")
FOLDS = ("north", "south")
SEASON = "2018-04-01/2018-09-30"
DATE = "2018-06-28/2018-06-28"
"""The one date without any cloud (SCL) that is nearest to the middle of the season."""
BANDS = ("blue", "green", "red", "nir")


def composites(flanders: Path, out: Path, client: distributed.Client) -> None:
    """`s2.zarr`: monthly medians of the season; `date.zarr`: one date."""
    with rasterio.open(flanders / "labels_lc.tif") as file:
        grid = Grid.from_bounds(*file.bounds, file.crs.to_epsg(), 10, tile=64)
    for name, days, spec in (
        ("s2.zarr", SEASON, CompositeSpec(BANDS, period=PeriodRule.parse("month"))),
        ("date.zarr", DATE, CompositeSpec(BANDS, outliers="none")),
    ):
        catalog = str(flanders / "catalog.json")
        items = lcengine.search(catalog, ["sentinel-2-l2a"], datetime=days)
        lcengine.run(plan_composite(items, grid, spec), out / name, client=client)


def pooled(kind: str, out: Path, client: distributed.Client, source: str = "s2") -> Accuracy:
    """Accuracy of a recipe over both halves, each mapped by the model of the other."""
    found = []
    for fold in FOLDS:
        settings = [f"samples.areas=train-{fold}.geojson", f"data.sources.s2={source}.zarr"]
        recipe = recipes.read(out / f"{kind}.toml", settings)
        running = recipes.Running(client)
        made = recipes.train(recipe, out / f"{kind}-{source}-{fold}", running, say=print)
        found.append(made.accuracy["test"])
    return found[0] + found[1]


def majority(accuracy: Accuracy) -> Accuracy:
    """What a map of the most frequent class alone would have right."""
    counts = np.zeros_like(accuracy.counts)
    counts[:, accuracy.reference.argmax()] = accuracy.reference
    return Accuracy.of(counts, accuracy.legend)


def line(name: str, accuracy: Accuracy) -> str:
    """A row of the table: F1 by class, its mean, overall accuracy, in percent."""
    values = [*accuracy.measures["f1"], accuracy.macro["f1"], accuracy.overall]
    return f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |"


def run(flanders: Path, out: Path, kinds: tuple[str, ...] = KINDS) -> dict[str, Accuracy]:
    """Everything; accuracies by the name of what was tried."""
    out.mkdir(parents=True, exist_ok=True)
    for file in (*HERE.glob("*.toml"), *HERE.glob("*.csv"), *HERE.glob("*.geojson")):
        shutil.copy(file, out)
    shutil.copy(flanders / "labels_lc.tif", out)
    found = {}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        composites(flanders, out, client)
        for kind in kinds:
            found[kind] = pooled(kind, out, client)
            found[f"{kind}, one date"] = pooled(kind, out, client, "date")
    return {"majority class": majority(found[kinds[0]]), **found}


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flanders", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which models")
    given = parser.parse_args()
    found = run(given.flanders, given.out, tuple(given.kinds))
    first = next(iter(found.values()))
    print(f"| | {' | '.join(first.legend.names)} | mean | overall |")
    print("|---" * (len(first.legend.names) + 3) + "|")
    for name, accuracy in found.items():
        print(line(name, accuracy))
    told = {name: accuracy.to_json() for name, accuracy in found.items()}
    (given.out / "results.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
