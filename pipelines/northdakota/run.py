"""Crops of North Dakota from one Landsat image: networks beside a random forest.

    python pipelines/northdakota/run.py NORTHDAKOTA OUT

NORTHDAKOTA: a folder with `image.tif`, six bands of reflectance × 10000 with 0 where it is missing,
and `labels_cdl.tif`, codes of the Cropland Data Layer. Rows 0 … 1119 train, 1152 … 1399 validate.
Each model maps the image; the maps are held against all labels of the rows of `--rows`: those that
test are 1500 … 2047. Recipes were chosen with `--rows val`. `OUT/ROWS.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import warnings
from pathlib import Path

import distributed
import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning

import lcengine
from lcengine import recipes
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.evaluate.plan import plan_evaluation
from lcengine.grid import Grid
from lcengine.metrics import Accuracy
from lcengine.predict import plan_predict
from lcengine.store import sidecar

HERE = Path(__file__).parent
KINDS = ("forest", "unet", "resnet50-unet")
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
CLASSES = {1: 1, 5: 2, 23: 3, 176: 4, 195: 5, 111: 6}
"""Codes of the Cropland Data Layer: corn, soybean, spring wheat, grass, wetland, water."""
OTHER, NONE = 7, 255
ROWS = {"train": (0, 1120), "val": (1152, 1400), "test": (1500, 2048)}
EPSG, LEFT, TOP, PIXEL = 32614, 500_025.0, 5_200_035.0, 30.0
"""A place: the image has none. Pixels lie as those of Landsat do."""


def prepare(source: Path, out: Path, client: distributed.Client) -> None:
    """`landsat.zarr`, `labels.tif` and `areas.geojson`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(source / "image.tif") as file:
            image = file.read()
        with rasterio.open(source / "labels_cdl.tif") as file:
            crops = file.read(1)
    scene = out / "scene"
    scene.mkdir(exist_ok=True)
    for band, values in zip(BANDS, image, strict=True):
        write(scene / f"{band}.tif", values, nodata=0)
    codes = np.full(256, OTHER, np.uint8)
    codes[0] = NONE
    for cdl, code in CLASSES.items():
        codes[cdl] = code
    labels = codes[crops]
    write(out / "labels.tif", labels, nodata=NONE)
    height, width = labels.shape
    for rows in ("val", "test"):
        inside = np.zeros((height, 1), np.bool_)
        inside[slice(*ROWS[rows])] = True
        write(out / f"{rows}.tif", np.where(inside, labels, np.uint8(NONE)), nodata=NONE)
    (out / "items.json").write_text(json.dumps(item(scene, height, width)))
    (out / "areas.geojson").write_text(json.dumps(areas(width)))
    items = lcengine.search(str(out / "items.json"), ["landsat-c2-l2"])
    grid = Grid.from_pixels(EPSG, (PIXEL, 0, LEFT, 0, -PIXEL, TOP), (height, width), tile=512)
    spec = CompositeSpec(BANDS, mask="none", outliers="none", qa="none")
    lcengine.run(plan_composite(items, grid, spec), out / "landsat.zarr", client=client)


def write(path: Path, values: np.ndarray, nodata: int) -> None:
    """A GeoTIFF at its place."""
    height, width = values.shape
    transform = rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype,
        crs=EPSG, transform=transform, nodata=nodata, tiled=True, compress="deflate",
    ) as file:  # fmt: skip
        file.write(values, 1)


def item(scene: Path, height: int, width: int) -> dict[str, object]:
    """The image as a STAC item."""
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    bounds = (LEFT, TOP - height * PIXEL, LEFT + width * PIXEL, TOP)
    west, south, east, north = to_degrees.transform_bounds(*bounds)
    scaled = [{"scale": 1e-4, "offset": 0.0, "nodata": 0}]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "northdakota",
        "collection": "landsat-c2-l2",
        "bbox": [west, south, east, north],
        "geometry": shapely.geometry.mapping(shapely.box(west, south, east, north)),
        "properties": {
            "datetime": "2016-07-15T17:20:00Z",  # the data do not say which day it was
            "platform": "landsat-8",
            "proj:epsg": EPSG,
            "proj:shape": [height, width],
            "proj:transform": [PIXEL, 0, LEFT, 0, -PIXEL, TOP],
        },
        "links": [],
        "assets": {
            band: {"href": str(scene / f"{band}.tif"), "raster:bands": scaled} for band in BANDS
        },
    }


def areas(width: int) -> dict[str, object]:
    """Strips of whole rows to train on and to validate on; none to test on."""
    features = []
    for split in ("train", "val"):
        start, stop = ROWS[split]
        box = shapely.box(LEFT, TOP - stop * PIXEL, LEFT + width * PIXEL, TOP - start * PIXEL)
        shape = shapely.geometry.mapping(box)
        features.append({"type": "Feature", "properties": {"split": split}, "geometry": shape})
    name = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}}
    return {"type": "FeatureCollection", "crs": name, "features": features}


def measured(name: str, out: Path, rows: str, client: distributed.Client) -> dict[str, object]:
    """Train a recipe, map the image, and compare the map with all labels of some rows."""
    recipe = recipes.read(out / f"{name}.toml")
    folder = out / name
    started = time.process_time()
    made = recipes.train(recipe, folder, recipes.Running(client), say=print)
    minutes = (time.process_time() - started) / 60
    cost = folder / "cost.json"
    if not cost.exists():  # another run finds the model there
        cost.write_text(json.dumps({"minutes": minutes}))
    plan = plan_predict(str(out / "landsat.zarr"), made.model.path)
    mapped = lcengine.run(plan, folder / "map.zarr", client=client)
    compared = plan_evaluation(mapped, out / f"{rows}.tif", legend=plan.legend)
    report = lcengine.run(compared, folder / f"{rows}.zarr", client=client, restart=True)
    accuracy = json.loads(sidecar(report, "accuracy.json"))
    return {**json.loads(cost.read_text()), "accuracy": accuracy}


def table(found: dict[str, dict[str, object]]) -> str:
    """F1 of every class, their mean, mean IoU, overall accuracy in percent; minutes of CPU."""
    lines = []
    for name, facts in found.items():
        accuracy = Accuracy.from_json(facts["accuracy"])
        if not lines:
            heads = [*accuracy.legend.names, "macro F1", "mIoU", "overall", "CPU minutes"]
            lines += [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        values = [*accuracy.measures["f1"], accuracy.macro["f1"], accuracy.macro["iou"]]
        cells = [f"{100 * value:.1f}" for value in (*values, accuracy.overall)]
        lines.append(f"| {name} | {' | '.join(cells)} | {facts['minutes']:.1f} |")
    return "\n".join(lines)


def run(
    source: Path, out: Path, kinds: tuple[str, ...] = KINDS, rows: str = "test"
) -> dict[str, dict[str, object]]:
    """Everything; figures by the name of the recipe."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for file in (*HERE.glob("*.toml"), *HERE.glob("*.csv")):
        shutil.copy(file, out)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        prepare(source, out, client)
        return {name: measured(name, out, rows, client) for name in kinds}


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("northdakota", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which models")
    parser.add_argument("--rows", choices=("val", "test"), default="test", help="what is compared")
    given = parser.parse_args()
    found = run(given.northdakota, given.out, tuple(given.kinds), given.rows)
    print(table(found))
    (given.out / f"{given.rows}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
