"""One picture of a simulated world: every layer it has, over the same ground."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from scipy.ndimage import uniform_filter

from lcengine.errors import InputError
from lcengine.quicklook import colour
from lcengine.simulate import coarse, vectors
from lcengine.simulate.archive import Simulation
from lcengine.simulate.covers import LEGEND
from lcengine.simulate.dove import UDM2
from lcengine.simulate.sentinel2 import EPSG
from lcengine.simulate.world import world

Image = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Bounds = tuple[float, float, float, float]

_PIXELS = 420
_MOST_METRES, _CLOSE_METRES = 5000.0, 1500.0
"""Width of what is shown, and of a closer look at 3 m."""
_SCL_COLOURS = {
    2: "#2f2f2f", 3: "#643200", 4: "#00a000", 5: "#ffe65a", 6: "#0000ff",
    7: "#808080", 8: "#c0c0c0", 9: "#ffffff", 10: "#64c8ff", 11: "#ff96ff",
}  # fmt: skip
_UDM2_COLOURS = dict(
    zip(UDM2[:6], ("#6fb96f", "#ff96ff", "#643200", "#a8d8f0", "#64a0d8", "#ffffff"), strict=True)
)
_MIXTURE_COLOURS = {5: "#1f6b41", 8: "#a9b86a", 14: "#e3cf8a"}
"""IGBP classes that no single cover of the legend has."""
_STRETCH = {"blue": (0.0, 0.17), "green": (0.0, 0.17), "red": (0.0, 0.17), "nir": (0.0, 0.5)}
"""Reflectance from black to white."""
_LABEL_COLOURS = {"crops": "#ffd92f", "roads": "#ffffff", "buildings": "#e31a1c"}


@dataclass(frozen=True)
class View:
    """A square of the world, in metres of EPSG:32631, and the archive that shows it."""

    archive: Simulation
    bounds: Bounds

    def read(self, files: Iterable[Path], band: int = 1) -> Image:
        """A band of the first file that has data at each pixel, float32 with NaN, north up."""
        left, _, right, top = self.bounds
        step = (right - left) / _PIXELS
        out = np.full((_PIXELS, _PIXELS), np.nan, np.float32)
        for file in files:
            with (
                rasterio.open(file) as source,
                WarpedVRT(
                    source,
                    crs=f"EPSG:{EPSG}",
                    transform=from_origin(left, top, step, step),
                    width=_PIXELS,
                    height=_PIXELS,
                    resampling=Resampling.nearest,
                ) as view,
            ):
                values = view.read(band, masked=True).astype(np.float32).filled(np.nan)
            out = np.where(np.isnan(out), values, out)
        return out

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """All STAC items of the archive, in order of time."""
        files = self.archive.path.glob("*/*/*.json")
        found = [json.loads(file.read_text()) for file in files]
        found = [item for item in found if item.get("type") == "Feature"]
        return sorted(found, key=lambda item: (item["properties"]["datetime"], item["id"]))

    def acquisitions(self, collection: str) -> list[list[dict[str, Any]]]:
        """Items of a collection, those of one day and satellite together."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in self.items:
            if item["collection"] == collection:
                properties = item["properties"]
                key = (properties["datetime"][:10], properties["platform"])
                groups.setdefault(key, []).append(item)
        return list(groups.values())

    def asset(self, items: list[dict[str, Any]], name: str, band: int = 1) -> Image:
        """A band of an asset of the items of one acquisition."""
        return self.read(
            [self.archive.path / i["collection"] / i["id"] / f"{name}.tif" for i in items], band
        )

    def grid(self, ax: Axes, image: Any) -> None:
        """Draw an image on its place."""
        left, bottom, right, top = self.bounds
        ax.imshow(image, extent=(left, right, bottom, top), interpolation="nearest")
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)


Panel = tuple[str, Callable[[Axes], None]]


def draw(archive: Simulation, file: Path) -> None:
    """Write a picture of every layer of a simulated archive; PNG or JPEG by the file's name.

    A square of at most 5 km in the middle of the world is shown. The file's folder is made where it
    is missing. Raises InputError for another kind of file.
    """
    check_name(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    view = View(archive, _middle(world(archive.options).landscape.bounds, _MOST_METRES))
    panels = [*_sentinel2(view), *_sentinel1(view), *_planet(view), *_labels(view)]
    columns = 4
    rows = -(-len(panels) // columns)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(2.35 * columns, 2.55 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for ax in axes:
            ax.axis("off")
        for ax, (title, paint) in zip(figure.axes, panels, strict=False):
            paint(ax)
            ax.set_title(title, fontsize=7)
        handles = [Patch(color=c.color, label=c.name) for c in LEGEND]
        figure.legend(handles=handles, loc="outside lower center", ncols=10, fontsize=6)
        figure.savefig(file, dpi=110, facecolor="white")


def check_name(file: Path) -> None:
    """InputError for a picture that is neither PNG nor JPEG by its name."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"picture {file} ends in {file.suffix!r}, expected .png or .jpg")


def _middle(bounds: tuple[int, int, int, int], most: float) -> Bounds:
    left, bottom, right, top = bounds
    half = min(right - left, top - bottom, most) / 2
    x, y = (left + right) / 2, (bottom + top) / 2
    return x - half, y - half, x + half, y + half


def _coded(values: Image, colours: dict[int, str]) -> Pixels:
    """Codes as colours, (y, x, 4) uint8; transparent where a code has none."""
    table = np.zeros((257, 4), np.uint8)
    for code, name in colours.items():
        table[code] = np.round(np.array(to_rgba(name)) * 255)
    return np.asarray(table[np.where(np.isnan(values), 256, values).astype(np.intp)])


def _day(items: list[dict[str, Any]]) -> str:
    return str(items[0]["properties"]["datetime"][:10])


def _cloudiness(items: list[dict[str, Any]]) -> float:
    return float(np.mean([item["properties"]["eo:cloud_cover"] for item in items]))


def _sentinel2(view: View) -> list[Panel]:
    """Truth, a clear and a cloudy overpass in colour, and what the classification makes of it."""
    truth = view.archive.truth
    landcover = view.read([truth / "landcover.tif"])
    colours = {c.code: c.color for c in LEGEND}
    panels: list[Panel] = [
        ("truth: land cover, 10 m", lambda ax: view.grid(ax, _coded(landcover, colours)))
    ]
    overpasses = sorted(view.acquisitions("sentinel-2-l2a"), key=_cloudiness)
    if not overpasses:
        return panels
    whole = [p for p in overpasses if (view.asset(p, "scl") > 0).mean() > 0.98]
    clear, cloudy = (whole or overpasses)[0], (whole or overpasses)[len(whole or overpasses) // 2]

    def image(items: list[dict[str, Any]], bands: tuple[str, ...]) -> Callable[[Axes], None]:
        # A fixed stretch: snow and cloud would leave nothing of the fields.
        stack = [_scaled(_reflectance(view, items, b), *_STRETCH[b]) for b in bands]
        return lambda ax: view.grid(ax, np.stack(stack, axis=-1))

    has = set(view.archive.options.bands)
    if has >= {"red", "green", "blue"}:
        rgb = ("red", "green", "blue")
        panels.append((f"Sentinel-2 {_day(clear)}", image(clear, rgb)))
        panels.append((f"Sentinel-2 {_day(cloudy)}", image(cloudy, rgb)))
    if has >= {"nir", "red", "green"}:
        panels.append((f"infrared {_day(clear)}", image(clear, ("nir", "red", "green"))))
    classes = view.asset(cloudy, "scl")
    panels.append(
        (f"scene classes {_day(cloudy)}", lambda ax: view.grid(ax, _coded(classes, _SCL_COLOURS)))
    )
    return panels


def _reflectance(view: View, items: list[dict[str, Any]], band: str) -> Image:
    """Reflectance of a Sentinel-2 band of an overpass."""
    contract = items[0]["assets"][band]["raster:bands"][0]
    applied = items[0]["properties"].get("earthsearch:boa_offset_applied", False)
    dn = view.asset(items, band)
    return np.asarray(dn * contract["scale"] + (0.0 if applied else contract["offset"]))


def _sentinel1(view: View) -> list[Panel]:
    """One pass in VV, VH and their ratio, and VH of three passes of one orbit."""
    passes = view.acquisitions("sentinel-1-rtc")
    if not passes:
        return []
    middle = passes[len(passes) // 2]
    vv, vh = (_decibel(view, middle, p) for p in ("vv", "vh"))
    ratio = np.stack([_scaled(vv, -18, -3), _scaled(vh, -25, -10), _scaled(vv - vh, 2, 14)])
    state = middle[0]["properties"]["sat:orbit_state"]
    same = [p for p in passes if p[0]["properties"]["sat:orbit_state"] == state]
    chosen = [same[0], same[len(same) // 2], same[-1]]
    season = np.stack([_scaled(_decibel(view, p, "vh"), -23, -10) for p in chosen])
    return [
        (f"Sentinel-1 {_day(middle)} {state}", lambda ax: view.grid(ax, np.moveaxis(ratio, 0, -1))),
        ("VH, first, middle, last", lambda ax: view.grid(ax, np.moveaxis(season, 0, -1))),
    ]


def _decibel(view: View, items: list[dict[str, Any]], polarisation: str) -> Image:
    """Backscatter in dB, averaged in power over 3 × 3 pixels of the picture against speckle."""
    power = uniform_filter(view.asset(items, polarisation), 3)
    return np.asarray(10 * np.log10(power), dtype=np.float32)


def _scaled(values: Image, low: float, high: float) -> Image:
    return np.asarray(np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1))


def _planet(view: View) -> list[Panel]:
    """A clear scene close by, and the usable data mask of a cloudy one."""
    passes = sorted(view.acquisitions("PSScene"), key=_cloudiness)
    if not passes:
        return []
    full = [p for p in passes if np.isfinite(_planet_band(view, p, "red")).mean() > 0.9]
    clear, cloudy = (full or passes)[0], passes[len(passes) // 2]
    close = View(view.archive, _middle(world(view.archive.options).mosaic.bounds, _CLOSE_METRES))
    stack = np.stack([_planet_band(close, clear, band) for band in ("red", "green", "blue")])
    classes = np.full((_PIXELS, _PIXELS), np.nan, np.float32)
    for number, name in enumerate(UDM2[:6], start=1):
        classes[view.asset(cloudy, "ortho_udm2", number) == 1] = UDM2.index(name)
    colours = {UDM2.index(name): value for name, value in _UDM2_COLOURS.items()}
    return [
        (f"PlanetScope {_day(clear)}, close", lambda ax: close.grid(ax, colour(stack))),
        (f"UDM2 {_day(cloudy)}", lambda ax: view.grid(ax, _coded(classes, colours))),
    ]


def _planet_band(view: View, items: list[dict[str, Any]], name: str) -> Image:
    """A band of the surface reflectance of a pass."""
    asset = next(key for key in items[0]["assets"] if key.endswith("_sr"))
    names = [band["name"] for band in items[0]["assets"][asset]["eo:bands"]]
    return view.asset(items, asset, names.index(name) + 1)


def _labels(view: View) -> list[Panel]:
    """Coarse labels, vector labels, and the points on which labellers disagree."""
    folder = view.archive.labels
    if not folder.is_dir():
        return []
    igbp = view.read([folder / coarse.FILES[0]])
    colours = {c.igbp: c.color for c in reversed(LEGEND)} | _MIXTURE_COLOURS

    def sketched(ax: Axes) -> None:
        view.grid(ax, np.full((1, 1, 3), 60, np.uint8))
        for layer, paint in _LABEL_COLOURS.items():
            frame = gpd.read_file(folder / vectors.FILE, layer=layer)
            frame.plot(ax=ax, color=paint, linewidth=0.6, aspect=None)

    def disputed(ax: Axes) -> None:
        view.grid(ax, np.full((1, 1, 3), 60, np.uint8))
        points = gpd.read_file(folder / vectors.FILE, layer="points")
        votes = points[[labeller.name for labeller in vectors.LABELLERS]].sum(axis=1)
        shades = np.array(["#f7f7f7", "#f4a582", "#92c5de", "#0571b0"])[votes]
        ax.scatter(points.geometry.x, points.geometry.y, s=3, c=list(shades))

    return [
        ("IGBP labels, 500 m", lambda ax: view.grid(ax, _coded(igbp, colours))),
        ("fields, roads, buildings", sketched),
        ("crop votes of three labellers", disputed),
    ]
