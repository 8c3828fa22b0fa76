"""Label rasters from many polygons: by tiles, beside GDAL's one call.

python benchmarks/labels.py            1,000 km² at 10 m from 100,000 polygons
python benchmarks/labels.py --quick    a hundredth of it

Each contender burns in a process of its own. Its memory is what its peak rose by from when the
features were ready (as objects for the one call, as the plan's table for tiles).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from rasterio.transform import from_origin

from lcengine import Grid
from lcengine.labels import task
from lcengine.labels.layers import Layer
from lcengine.labels.plan import plan_labels
from lcengine.labels.rules import Rule

LEFT, TOP = 500_000.0, 5_600_000.0
NODATA = 255


def parcels(side, count):
    """`count`² parcels of eight classes over `side` metres; neighbours overlap a little."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: count + 1, : count + 1].astype(float)
    corner = np.stack([x, y], axis=-1) + rng.uniform(-0.3, 0.3, (count + 1, count + 1, 2))
    ring = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], axis=2)
    ring = ring.reshape(-1, 4, 2)
    middle = (ring + np.roll(ring, -1, axis=1)) / 2 + rng.normal(0, 0.03, ring.shape)
    outline = np.stack([ring, middle], axis=2).reshape(-1, 8, 2) * (side / count)
    shapes = shapely.polygons(outline * [1, -1] + [LEFT, TOP])
    codes = rng.integers(1, 9, len(shapes))
    return gpd.GeoDataFrame({"code": codes}, geometry=shapes, crs="EPSG:32631")


def peak():
    """Most memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def planned(side, count, touched, conflict):
    """The frozen plan, as the driver makes it."""
    tile = 1024 if side > 20_480 else 256
    grid = Grid.from_bounds(LEFT, TOP - side, LEFT + side, TOP, "EPSG:32631", 10.0, tile)
    layer = Layer(parcels(side, count), Rule("code", all_touched=touched))
    start = time.perf_counter()
    plan = plan_labels(layer, grid, conflict=conflict)
    return plan, time.perf_counter() - start


def burned(plan):
    """Tile after tile, as a worker does them."""
    whole = np.full(plan.grid.shape, NODATA, np.uint8)
    before, start = peak(), time.perf_counter()
    for number in plan.tiles:
        arrays, _ = task.compute(plan, number, 0)
        whole[plan.grid.tile_at(number).slices] = arrays["label"]
    return {"burn_s": time.perf_counter() - start, "more_mb": peak() - before}, whole


def tiles(context, *arguments):
    """Planned in one process, burned in another."""
    with context.Pool(1) as pool:
        plan, seconds = pool.apply(planned, arguments)
    with context.Pool(1) as pool:
        figures, raster = pool.apply(burned, (plan,))
    return {"plan_s": seconds, **figures}, raster


def one_call(side, count, touched):
    """GDAL's one call: the last polygon wins."""
    frame = parcels(side, count)
    before, start = peak(), time.perf_counter()
    made = rasterio.features.rasterize(
        zip(frame.geometry, frame["code"], strict=True),
        out_shape=(side // 10, side // 10),
        fill=NODATA,
        transform=from_origin(LEFT, TOP, 10, 10),
        all_touched=touched,
        dtype="uint8",
    )
    return {"burn_s": time.perf_counter() - start, "more_mb": peak() - before}, made


def once(context, side, count, touched, _conflict):
    """`one_call` in a process of its own."""
    with context.Pool(1) as pool:
        figures, raster = pool.apply(one_call, (side, count, touched))
    return {"plan_s": 0.0, **figures}, raster


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", help="also write the figures into this file")
    options = parser.parse_args()
    side, count = (3_160, 32) if options.quick else (31_630, 317)
    rows = []
    print(f"{count**2:,} polygons, {side**2 / 1e6:,.0f} km² at 10 m\n")
    print("| rule | conflict | contender | plan s | burn s | burning, MB | equal |")
    print("|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for touched in (False, True):
        made = {}
        for name, work, conflict in (
            ("one call", once, "last"), ("tiles", tiles, "last"), ("tiles", tiles, "ignore"),
        ):  # fmt: skip
            figures, raster = work(context, side, count, touched, conflict)
            made[name, conflict] = raster
            same = "" if conflict == "ignore" else str((raster == made["one call", "last"]).all())
            rule = "all touched" if touched else "centre"
            print(
                f"| {rule} | {conflict} | {name} | {figures['plan_s']:.1f} | "
                f"{figures['burn_s']:.1f} | {figures['more_mb']:.0f} | {same} |"
            )
            rows.append({"rule": rule, "conflict": conflict, "contender": name, **figures})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
