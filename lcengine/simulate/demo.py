"""The demo: a simulated archive behind a real STAC API and HTTP, composited and compared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.warp
from matplotlib.figure import Figure

from lcengine import reader, store
from lcengine.aoi import Aoi
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec, run_composite
from lcengine.grid import Grid
from lcengine.items import Item, Items
from lcengine.locate import Lattice, Locator, Window
from lcengine.quicklook import colour
from lcengine.simulate.archive import Simulation, simulate
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.serve import FileServer, StacServer
from lcengine.simulate.stac import items_collection

BANDS = ("blue", "green", "red", "nir", "swir16")
RGB = ("red", "green", "blue")
UNSEEN = (128, 128, 140, 255)
"""Colour of nodata, unlike the white of clouds."""

INT16 = npt.NDArray[np.int16]


def run(
    folder: Path, *, size: int = 1024, dates: int = 24, say: Callable[[str], None]
) -> Mapping[str, Any]:
    """Run the demo into `folder`; returns the figures. `say` gets one line per step."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    say(f"1/4 simulating {dates} Sentinel-2 overpasses with clouds into {folder}/archive ...")
    world = simulate(folder / "archive", SimulationOptions(size=size, dates=dates, bands=BANDS))
    with (
        FileServer(world.path) as files,
        StacServer(items_collection(world.path, files.url)) as api,
    ):
        say(f"2/4 serving it: STAC API {api.url}, files {files.url}")
        request = _request(world, api.url)
        say("3/4 lcengine composite on a local Dask cluster ...")
        clock = time.monotonic()
        run_composite(
            request.plan, folder / "composite.zarr", request=request.to_json(), restart=True
        )
        seconds = time.monotonic() - clock
        say("4/4 comparing with the truth ...")
        items, _ = request.items_and_grid()
        figures = _compare(world, items, folder)
        fetched = files.bytes_sent
    return {
        **figures,
        "composite_seconds": round(seconds, 1),
        "downloaded_bytes": fetched,
        "total_seconds": round(time.monotonic() - started, 1),
        "product": str(folder / "composite.zarr"),
        "picture": str(folder / "comparison.png"),
    }


def _request(world: Simulation, api: str) -> CompositeRequest:
    with rasterio.open(world.truth / "red.tif") as truth:
        box = rasterio.warp.transform_bounds(truth.crs, "EPSG:4326", *truth.bounds)
    return CompositeRequest(
        query=Query(source=api, collections=("sentinel-2-l2a",), datetime=world.options.period),
        spec=CompositeSpec(bands=BANDS),
        aoi=Aoi.from_bbox(box),
        crs="EPSG:32631",
    )


def _compare(world: Simulation, items: Items, folder: Path) -> dict[str, Any]:
    """Errors against the truth, of the composite and of the median scene, and the picture."""
    product = store.open(folder / "composite.zarr")
    grid = Grid.from_dict(json.loads(product.attrs["lcengine"])["grid"])
    with rasterio.open(world.truth / "red.tif") as file:
        t = file.transform
        window = Window(
            round((grid.transform.f - t.f) / 10),
            round((t.c - grid.transform.c) / 10),
            file.height,
            file.width,
        )
    rows = slice(window.y0, window.y0 + window.height)
    cols = slice(window.x0, window.x0 + window.width)
    seen = product.isel(y=rows, x=cols)
    cloudy = sorted(items, key=lambda item: item.cloud_cover or 0.0)[len(items) // 2]
    scene = _scene(cloudy, items, grid, window)
    truth = {band: _truth(world, band) for band in BANDS}
    composite = {band: seen[band].values.astype(np.float32) for band in BANDS}
    stats = _errors(composite, truth)
    _picture(folder / "comparison.png", scene, composite, truth, cloudy)
    return {
        "items": len(items),
        "clear_observations_per_pixel": round(float(seen["count"].values.mean()), 1),
        "covered_percent": round(100 * float(np.isfinite(composite["red"]).mean()), 2),
        **stats,
    }


def _errors(
    composite: Mapping[str, npt.NDArray[np.float32]], truth: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float]:
    difference = np.stack([composite[band] - truth[band] for band in BANDS])
    difference = difference[np.isfinite(difference)]
    return {
        "rmse_reflectance": round(float(np.sqrt(np.mean(difference**2))), 5),
        "bias_reflectance": round(float(np.mean(difference)), 5),
        "p95_abs_error": round(float(np.percentile(np.abs(difference), 95)), 5),
    }


def _truth(world: Simulation, band: str) -> npt.NDArray[np.float32]:
    with rasterio.open(world.truth / f"{band}.tif") as file:
        values = file.read(1)
    return _reflectance(values)


def _reflectance(values: INT16) -> npt.NDArray[np.float32]:
    out = values.astype(np.float32) / np.float32(10000)
    out[values == reader.NODATA] = np.nan
    return out


def _scene(
    item: Item, items: Items, grid: Grid, window: Window
) -> dict[str, npt.NDArray[np.float32]]:
    """One overpass as it was seen, clouds and all: both granules where they overlap."""
    t = grid.transform
    locator = Locator(Lattice(f"EPSG:{grid.epsg}", t.c, t.f, t.a, -t.e), window)
    overpass = [i for i in items if abs((i.datetime - item.datetime).total_seconds()) < 1200]
    out = {}
    for band in RGB:
        whole = np.full((window.height, window.width), reader.NODATA, dtype=np.int16)
        for member in overpass:
            part = np.empty_like(whole)
            reader.read_band(member.asset(band), items.access, locator, part)
            whole = np.where(whole == reader.NODATA, part, whole)
        out[band] = _reflectance(whole)
    return out


def _picture(
    path: Path,
    scene: Mapping[str, npt.NDArray[np.float32]],
    composite: Mapping[str, npt.NDArray[np.float32]],
    truth: Mapping[str, npt.NDArray[np.float32]],
    item: Item,
) -> None:
    """Scene, composite and truth side by side, all with the truth's stretch."""
    with mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(13.5, 4.9), layout="constrained")
        titles = (f"one overpass, {item.datetime:%Y-%m-%d}", "lcengine composite", "truth")
        reference = np.stack([truth[band] for band in RGB])
        axes = figure.subplots(1, 3)
        for ax, title, source in zip(axes, titles, (scene, composite, truth), strict=True):
            pixels = colour(np.stack([source[band] for band in RGB]), like=reference)
            pixels[pixels[..., 3] == 0] = UNSEEN
            ax.imshow(pixels)
            ax.set_title(title)
            ax.axis("off")
        figure.savefig(path, dpi=110)
