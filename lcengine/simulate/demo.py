"""The demo: a simulated archive behind a real STAC API and HTTP, composited and compared.

Two satellites look at one ground: Sentinel-2 through clouds, Sentinel-1 through speckle. Each
becomes a composite on the same grid, which is held against the truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.warp
import xarray as xr
from matplotlib.figure import Figure

from lcengine import jobs, reader, store
from lcengine.aoi import Aoi
from lcengine.catalog import Query
from lcengine.cluster import connect
from lcengine.composite import CompositeRequest, CompositeSpec
from lcengine.grid import Grid
from lcengine.items import Item, Items
from lcengine.locate import Lattice, Locator, Window
from lcengine.quicklook import colour
from lcengine.simulate import sentinel1
from lcengine.simulate.archive import Simulation, simulate
from lcengine.simulate.backscatter import POLARISATIONS
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.sentinel2 import Mosaic
from lcengine.simulate.serve import FileServer, StacServer
from lcengine.simulate.stac import items_collection

BANDS = ("blue", "green", "red", "nir", "swir16")
RGB = ("red", "green", "blue")
PRODUCTS = {
    "composite": ("sentinel-2-l2a", CompositeSpec(bands=BANDS)),
    "radar": (sentinel1.COLLECTION, CompositeSpec(bands=POLARISATIONS)),
}
"""What is made, by name: collection and recipe."""
UNSEEN = (128, 128, 140, 255)
"""Colour of nodata, unlike the white of clouds."""
FALSE_COLOUR = ("vv", "vh", "ratio")
"""Radar as red, green and blue."""

FLOAT = npt.NDArray[np.float32]
Bands = dict[str, FLOAT]


@dataclass(frozen=True)
class Comparison:
    """One sensor: an acquisition, the composite and the truth as bands of the same pixels."""

    title: str
    acquisition: Bands
    composite: Bands
    truth: Bands
    figures: Mapping[str, Any]

    def panels(self, bands: tuple[str, ...]) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        """Titles and pictures of the three, all with the truth's stretch."""
        like = np.stack([self.truth[b] for b in bands])
        made = []
        titles = (self.title, "lcengine composite", "truth")
        for title, source in zip(
            titles, (self.acquisition, self.composite, self.truth), strict=True
        ):
            pixels = colour(np.stack([source[b] for b in bands]), like=like)
            pixels[pixels[..., 3] == 0] = UNSEEN
            made.append((title, pixels))
        return made


@dataclass(frozen=True)
class Product:
    """A composite of the demo, and the part of it that lies over the simulated square."""

    path: Path
    items: Items
    world: Simulation

    @cached_property
    def _opened(self) -> xr.Dataset:
        return store.open(self.path)

    @cached_property
    def _lattice(self) -> Lattice:
        grid = Grid.from_dict(json.loads(self._opened.attrs["lcengine"])["grid"])
        t = grid.transform
        return Lattice(f"EPSG:{grid.epsg}", t.c, t.f, t.a, -t.e)

    @cached_property
    def _window(self) -> Window:
        size, (left, _, _, top) = self.world.options.size, Mosaic(self.world.options.size).bounds
        lattice = self._lattice
        return Window(
            round((lattice.top - top) / 10), round((left - lattice.left) / 10), size, size
        )

    def band(self, name: str) -> FLOAT:
        """A variable of the product over the square, float32, NaN where there is nothing."""
        w = self._window
        part = self._opened[name][w.y0 : w.y0 + w.height, w.x0 : w.x0 + w.width]
        return np.asarray(part.values, dtype=np.float32)

    def acquisition(self, item: Item, band: str, unit: float) -> FLOAT:
        """A band as it was seen: all items of the item's pass, the first where they overlap."""
        locator = Locator(self._lattice, self._window)
        shape = (self._window.height, self._window.width)
        whole = np.full(shape, reader.NODATA, dtype=np.int16)
        for member in self.items:
            if abs((member.datetime - item.datetime).total_seconds()) < 1200:
                part = np.empty_like(whole)
                reader.read_band(member.asset(band), self.items.access, locator, part)
                whole = np.where(whole == reader.NODATA, part, whole)
        return _floats(whole, unit)


def run(
    folder: Path, *, size: int = 1024, dates: int = 24, say: Callable[[str], None]
) -> Mapping[str, Any]:
    """Run the demo into `folder`; returns the figures. `say` gets one line per step."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    say(
        f"1/4 simulating labels, Sentinel-1 and {dates} overpasses of Sentinel-2 into "
        f"{folder}/archive ..."
    )
    options = SimulationOptions(
        size=size, dates=dates, bands=BANDS, sensors=("s2", "s1"), labels=True
    )
    world = simulate(folder / "archive", options, restart=True)
    with (
        FileServer(world.path) as files,
        StacServer(items_collection(world.path, files.url)) as api,
        connect("local") as client,
    ):
        say(f"2/4 serving it: STAC API {api.url}, files {files.url}")
        say("3/4 lcengine composite of both on a local Dask cluster ...")
        clock = time.monotonic()
        made = []
        for name, (collection, spec) in PRODUCTS.items():
            request = _request(world, api.url, collection, spec)
            path, asked = folder / f"{name}.zarr", request.to_json()
            jobs.run(request.plan, path, client=client, request=asked, restart=True)
            made.append(Product(path, request.items_and_grid()[0], world))
        seconds = time.monotonic() - clock
        say("4/4 comparing with the truth ...")
        optical, radar = _optical(made[0]), _radar(made[1])
        fetched = files.bytes_sent
    _picture(folder / "comparison.png", [*optical.panels(RGB), *radar.panels(FALSE_COLOUR)])
    return {
        "items": sum(len(product.items) for product in made),
        **optical.figures,
        **radar.figures,
        "composite_seconds": round(seconds, 1),
        "downloaded_bytes": fetched,
        "total_seconds": round(time.monotonic() - started, 1),
        "products": ", ".join(str(product.path) for product in made),
        "picture": str(folder / "comparison.png"),
    }


def _request(world: Simulation, api: str, collection: str, spec: CompositeSpec) -> CompositeRequest:
    box = rasterio.warp.transform_bounds(
        "EPSG:32631", "EPSG:4326", *Mosaic(world.options.size).bounds
    )
    return CompositeRequest(
        query=Query(source=api, collections=(collection,), datetime=world.options.period),
        spec=spec,
        aoi=Aoi.from_bbox(box),
        crs="EPSG:32631",
        resolution=10.0,
    )


def _optical(product: Product) -> Comparison:
    """Sentinel-2 in reflectance, beside an overpass of median cloud."""
    items = product.items
    cloudy = sorted(items, key=lambda item: item.cloud_cover or 0.0)[len(items) // 2]
    composite = {band: product.band(band) for band in BANDS}
    truth = {}
    for band in BANDS:
        with rasterio.open(product.world.truth / f"{band}.tif") as file:
            truth[band] = _floats(file.read(1), 1e-4)
    errors = np.concatenate([(composite[b] - truth[b]).ravel() for b in BANDS])
    errors = errors[np.isfinite(errors)]
    return Comparison(
        title=f"one overpass of Sentinel-2, {cloudy.datetime:%Y-%m-%d}",
        acquisition={band: product.acquisition(cloudy, band, 1e-4) for band in RGB},
        composite=composite,
        truth=truth,
        figures={
            "clear_observations_per_pixel": round(float(product.band("count").mean()), 1),
            "covered_percent": round(100 * float(np.isfinite(composite["red"]).mean()), 2),
            "rmse_reflectance": round(float(np.sqrt(np.mean(errors**2))), 5),
            "bias_reflectance": round(float(np.mean(errors)), 5),
            "p95_abs_error": round(float(np.percentile(np.abs(errors), 95)), 5),
        },
    )


def _radar(product: Product) -> Comparison:
    """Sentinel-1 in dB, beside the pass in the middle; every other pixel of every other row."""
    item = product.items[len(product.items) // 2]
    thin = (slice(None, None, 2),) * 2
    composite = {p: product.band(p)[thin] for p in POLARISATIONS}
    acquisition = {p: product.acquisition(item, p, 0.01)[thin] for p in POLARISATIONS}
    truth = _radar_truth(product.world.options)
    one, many = (
        np.concatenate([(seen[p] - truth[p]).ravel() for p in POLARISATIONS])
        for seen in (acquisition, composite)
    )
    for bands in (acquisition, composite, truth):
        # Shifted so that all three lie around -10 dB and one stretch shows them.
        bands |= {"ratio": bands["vv"] - bands["vh"] - 17, "vh": bands["vh"] + 7}
    return Comparison(
        title=f"one pass of Sentinel-1, {item.datetime:%Y-%m-%d}",
        acquisition=acquisition,
        composite=composite,
        truth=truth,
        figures={
            "radar_rmse_db_of_one_pass": round(float(np.sqrt(np.nanmean(one**2))), 2),
            "radar_rmse_db": round(float(np.sqrt(np.nanmean(many**2))), 2),
            "radar_bias_db": round(float(np.nanmean(many)), 2),
        },
    )


def _radar_truth(options: SimulationOptions) -> Bands:
    """Median of all passes without speckle, in dB, every other pixel of every other row."""
    side = options.size // 2
    left, _, _, top = Mosaic(options.size).bounds
    truth = {p: np.empty((side, side), np.float32) for p in POLARISATIONS}
    images = [job for job in sentinel1.jobs(options) if isinstance(job, sentinel1.Image)]
    for bounds, passes in groupby(images, key=lambda image: image.bounds):
        expected = [
            {p: power[::2, ::2] for p, power in image.expected().items()} for image in passes
        ]
        row, col = (top - bounds[3]) // 20, (bounds[0] - left) // 20
        for p in POLARISATIONS:
            median = 10 * np.log10(np.median([power[p] for power in expected], axis=0))
            height, width = median.shape
            truth[p][row : row + height, col : col + width] = median
    return truth


def _floats(values: npt.NDArray[np.integer[Any]], unit: float) -> FLOAT:
    """Stored numbers in their unit, float32, NaN where nodata."""
    out = values.astype(np.float32) * np.float32(unit)
    out[values == reader.NODATA] = np.nan
    return out


def _picture(path: Path, panels: list[tuple[str, npt.NDArray[np.uint8]]]) -> None:
    """Three panels to a row."""
    with mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(13.5, 4.75 * len(panels) / 3), layout="constrained")
        axes = figure.subplots(len(panels) // 3, 3)
        for ax, (title, pixels) in zip(axes.flat, panels, strict=True):
            ax.imshow(pixels)
            ax.set_title(title)
            ax.axis("off")
        figure.savefig(path, dpi=110)
