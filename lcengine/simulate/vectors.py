"""Sparse vector labels of the simulated ground, wrong the way labels are.

One GeoPackage, `labels/labels.gpkg`, with four layers in EPSG:32631:

- `crops`: some fields as a surveyor draws them, a little inside their borders;
- `roads`: centre lines where there is a road (not on water and snow), a seventh of them missing,
  each a few metres off, as in open maps;
- `buildings`: footprints, one in five missing;
- `points`: random points that three labellers called crop or not. They disagree: on field borders,
  on fields that were bare in their picture, and each by habits of their own (`LABELLERS`).

A world wider than 20 km is surveyed in its middle only. Fields and points say what is true too
(`code` and `name` of the legend, `truth`).

Not modelled: fields drawn together or with wrong names, ground that changed since the survey, and
labellers who copy from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy import ndimage
from shapely import LineString, Point, Polygon
from shapely.affinity import translate
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

from lcengine.simulate.covers import CODE, LEGEND
from lcengine.simulate.landscape import Landscape
from lcengine.simulate.rasters import Bounds
from lcengine.simulate.sentinel2 import EPSG
from lcengine.simulate.streams import Stream, generator
from lcengine.simulate.world import Job, world

FILE = "labels.gpkg"
LAYERS = ("crops", "roads", "buildings", "points")
SURVEYED = 20_000
"""Metres along a side of what is surveyed, in the middle of larger worlds: it bounds memory."""
FIELDS_PER_KM2, POINTS_PER_KM2 = 3.0, 12.0
_STEP = 4.0
"""Metres between the points from which a field is drawn."""
_REACH = 620.0
"""Metres around a point within which its field lies: half its diagonal and more."""
_INSIDE = 5.0
"""Metres that a surveyor stays inside a field."""
_LEAST = 2000.0
"""Square metres of the smallest field that is drawn."""
_BORDER = 15.0
"""Metres from another kind of ground within which a point is hard to label."""


@dataclass(frozen=True)
class Labeller:
    """How often one labeller is wrong about a point."""

    name: str
    misses: float
    """Share of crop points called non-crop."""
    invents: float
    """Share of non-crop points called crop."""
    border: float
    """Further share of errors close to a border."""
    bare: float
    """Further share of errors on crops with little green in the picture."""


LABELLERS = (
    Labeller("a", 0.04, 0.03, 0.12, 0.05),
    Labeller("b", 0.10, 0.03, 0.20, 0.20),
    Labeller("c", 0.04, 0.14, 0.20, 0.10),
)
"""A careful one, one who misses crops, one who sees crops in meadows.

Two of them agree on 73 to 84 % of the points. Hadi et al. 2022 (Scientific Data 9, 574, table 6)
found an observed agreement of 0.72 for cropland among many volunteers.
"""


@dataclass(frozen=True)
class VectorLabels(Job):
    """The job that writes the vector labels of a world."""

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write `FILE` into `labels/` below `root`; no STAC items."""
        folder = root / "labels"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE
        file.unlink(missing_ok=True)
        # A GeoPackage holds the time of its making; equal options must give equal files.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
        try:
            for layer in LAYERS:
                frame = getattr(self, layer)()
                frame.to_file(file, layer=layer, driver="GPKG", engine="pyogrio")
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        return []

    @property
    def landscape(self) -> Landscape:
        """The ground."""
        return world(self.options).landscape

    @property
    def area(self) -> Bounds:
        """Bounds of what is surveyed."""
        left, bottom, right, top = self.landscape.bounds
        side = min(right - left, SURVEYED)
        x, y = (left + right - side) // 2, (bottom + top - side) // 2
        return x, y, x + side, y + side

    def _random(self, layer: str) -> np.random.Generator:
        return generator(self.options.seed, Stream.VECTORS, LAYERS.index(layer))

    def _points(
        self, rng: np.random.Generator, per_km2: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings of random points."""
        left, bottom, right, top = self.area
        area = (right - left) * (top - bottom) / 1e6
        n = max(10, round(per_km2 * area))
        return rng.uniform(left, right, n), rng.uniform(bottom, top, n)

    def crops(self) -> gpd.GeoDataFrame:
        """Some fields of crops: `code`, `name`, `surveyed` (day) and the polygon."""
        rng = self._random("crops")
        x, y = self._points(rng, FIELDS_PER_KM2)
        codes = self.landscape.code[self.landscape.units(x, y)]
        crops = {c.code: c.name for c in LEGEND if c.crop}
        found: dict[str, tuple[int, BaseGeometry]] = {}
        for px, py, code in zip(x, y, codes, strict=True):
            outline = field_around(self.landscape, px, py) if code in crops else None
            if outline is not None:
                found.setdefault(outline.wkt, (int(code), outline))
        first, last = self.options.days()
        days = rng.integers((last - first).days + 1, size=len(found))
        return _frame(
            {
                "code": [code for code, _ in found.values()],
                "name": [crops[code] for code, _ in found.values()],
                "surveyed": [str(np.datetime64(first) + int(day)) for day in days],
            },
            [outline for _, outline in found.values()],
        )

    def roads(self) -> gpd.GeoDataFrame:
        """Centre lines of the roads that the map has, with their `width` in metres."""
        there = _built(self.landscape, self.landscape.roads_in(self.area))
        lines = _mapped(self._random("roads"), there, missing=0.15, off=2.5)
        return _frame({"width": [12.0] * len(lines)}, lines)

    def buildings(self) -> gpd.GeoDataFrame:
        """Footprints of the buildings that the map has, with their `area` in square metres."""
        standing = self.landscape.footprints_in(self.area)
        outlines = _mapped(self._random("buildings"), standing, missing=0.2, off=1.5)
        return _frame({"area": [round(float(o.area), 1) for o in outlines]}, outlines)

    def points(self) -> gpd.GeoDataFrame:
        """Random points: `code`, `name`, `truth` and one column per labeller, 1 crop or 0."""
        rng = self._random("points")
        x, y = self._points(rng, POINTS_PER_KM2)
        units = self.landscape.units(x, y)
        code = self.landscape.code[units]
        truth = is_crop(code)
        border = self._near_border(x, y, truth)
        first, last = self.options.days()
        columns: dict[str, Any] = {
            "code": code.astype(np.int32),
            "name": [LEGEND[c - 1].name for c in code],
            "truth": truth.astype(np.int32),
        }
        for labeller in LABELLERS:
            # Everyone looks at a picture of a day of their own.
            when = np.datetime64(first) + int(rng.integers((last - first).days + 1))
            day = float((when - when.astype("datetime64[Y]")).astype(int) + 1)
            bare = truth & (self.landscape.green(day)[units] < 0.3)
            columns[labeller.name] = called(labeller, truth, border, bare, rng).astype(np.int32)
        return _frame(columns, [Point(*xy) for xy in zip(x, y, strict=True)])

    def _near_border(
        self, x: NDArray[np.float64], y: NDArray[np.float64], truth: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Whether ground of the other kind lies close to a point."""
        angle = np.arange(8) * np.pi / 4
        around = self.landscape.units(
            x[:, None] + _BORDER * np.cos(angle), y[:, None] + _BORDER * np.sin(angle)
        )
        return np.asarray((is_crop(self.landscape.code[around]) != truth[:, None]).any(axis=1))


def is_crop(code: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether codes of the legend are crops."""
    return np.isin(code, [c.code for c in LEGEND if c.crop])


def called(
    labeller: Labeller,
    truth: NDArray[np.bool_],
    border: NDArray[np.bool_],
    bare: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """What a labeller calls crop among points, given the truth and what makes them hard."""
    chance = np.where(truth, labeller.misses, labeller.invents)
    chance = chance + labeller.border * border + labeller.bare * bare
    return np.asarray(truth ^ (rng.random(truth.shape) < chance))


def field_around(landscape: Landscape, x: float, y: float) -> Polygon | None:
    """The field under a point as a surveyor draws it; None where it is too small.

    It is drawn from points every 4 m, a little inside its border, and cut at the world's edge.
    Equal for every point of a field.
    """
    left, bottom, right, top = landscape.bounds
    west = max(left, np.floor((x - _REACH) / _STEP) * _STEP)
    north = min(top, np.ceil((y + _REACH) / _STEP) * _STEP)
    east, south = min(right, x + _REACH), max(bottom, y - _REACH)
    cols = np.arange(west + _STEP / 2, east, _STEP)
    rows = np.arange(north - _STEP / 2, south, -_STEP)
    row, col = int((north - y) // _STEP), int((x - west) // _STEP)
    units = landscape.units(cols[None, :], rows[:, None])
    parts, _ = ndimage.label(units == units[row, col])
    mask = parts == parts[row, col]
    outlines = rasterio.features.shapes(
        mask.astype(np.uint8), mask, transform=from_origin(west, north, _STEP, _STEP)
    )
    whole = shape(next(outlines)[0])
    drawn = whole.simplify(_STEP).buffer(-_INSIDE, join_style="mitre").simplify(2.0)
    parts = [part for part in shapely.get_parts(drawn) if isinstance(part, Polygon)]
    largest = max(parts, key=lambda part: part.area, default=Polygon())
    return largest if largest.area >= _LEAST else None


def _built(landscape: Landscape, lines: list[LineString]) -> list[LineString]:
    """The parts of lines between holdings along which there is a road: none is on water or snow."""
    parts: list[LineString] = []
    for line in lines:
        steps = np.linspace(0.0, line.length, max(2, int(line.length // _STEP) + 1))
        x, y = shapely.get_coordinates(shapely.line_interpolate_point(line, steps)).T
        there = landscape.code[landscape.units(x, y)] == CODE["built-up"]
        runs, count = ndimage.label(there)
        for run in range(1, count + 1):
            first, last = steps[runs == run][[0, -1]]
            part = substring(line, first, last)
            if isinstance(part, LineString):
                parts.append(part)
    return parts


def _mapped(
    rng: np.random.Generator, shapes: list[Any], *, missing: float, off: float
) -> list[LineString | Polygon]:
    """Shapes that a map has, each moved by some metres."""
    kept = rng.random(len(shapes)) >= missing
    moves = rng.normal(0.0, off, (len(shapes), 2))
    return [
        translate(outline, *by)
        for outline, by, keep in zip(shapes, moves, kept, strict=True)
        if keep
    ]


def _frame(columns: dict[str, Any], outlines: list[Any]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=outlines, crs=f"EPSG:{EPSG}")
