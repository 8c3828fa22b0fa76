"""Features burned into cells: GDAL's rules, whatever the tile.

Pixels are computed in cells of 512 that are anchored to the product's upper-left corner. A cell
sees the features near it in the product's pixel coordinates less the cell's corner, so a pixel
never depends on tile, block, order or worker. Both rules are GDAL's own of one call for the whole
product, but for ties: where an outline runs through the very centre of a pixel (all touched:
through its corner), rounding decides in GDAL, and that depends on where its raster begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize as gdal_rasterize

from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.legends import Legend

Conflict = Literal["ignore", "error", "last"]
CONFLICTS: tuple[Conflict, ...] = ("ignore", "error", "last")

CELL = 512
"""Edge in pixels of what is rasterised at once."""
_MARGIN = 2.0
"""Pixels around a cell beyond which no feature can reach into it."""
_LARGE = 256
"""Coordinates from which a geometry is thinned to what a cell sees of it."""
_NONE = -1
_PIXEL = 2.0
"""Edge of a pixel as GDAL is told: it warns of pixels of 1, and a power of two is as exact."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Shapes = npt.NDArray[Any]
"""Geometries, or GeoJSON-like objects."""


@dataclass
class Counts:
    """What came of a window: pixels by code, and those left out for features that disagree."""

    pixels: dict[int, int] = field(default_factory=dict)
    conflicts: int = 0


class Burner:
    """Features on a grid, found by place.

    `features`: in the grid's CRS, single parts, with `code`, `priority`, `order` (of burning among
    equal priorities), `touched` (the all-touched rule), and `layer` and `feature` (for messages).
    Pixels without a feature, and those whose features disagree, have the legend's nodata.
    """

    def __init__(
        self, features: gpd.GeoDataFrame, grid: Grid, legend: Legend, conflict: Conflict = "ignore"
    ) -> None:
        if conflict not in CONFLICTS:
            raise InputError(f"conflict is {conflict!r}, expected one of {', '.join(CONFLICTS)}")
        # Of equal order for every selection of the features, whatever order they come in.
        ordered = features.sort_values("order", kind="stable")
        self.grid, self.legend, self.conflict = grid, legend, conflict
        self.nodata = legend.nodata
        self.shapes = _in_pixels(ordered.geometry.to_numpy(), grid)
        self.boxes = shapely.bounds(self.shapes).reshape(-1, 4)
        self.tree = shapely.STRtree(_boxes(self.boxes))
        self.code: Ints = ordered["code"].to_numpy(np.int64)
        self.priority: Ints = ordered["priority"].to_numpy(np.int64)
        self.touched: Bools = ordered["touched"].to_numpy(np.bool_)
        self.feature, self.layer = ordered["feature"].to_numpy(), ordered["layer"].to_numpy()

    def window(self, y0: int, x0: int, height: int, width: int) -> tuple[npt.NDArray[Any], Counts]:
        """Codes of a window (height, width) in the legend's dtype, and their count.

        Pixels outside the AOI are nodata. Raises `InputError` where features of equal priority
        disagree and that is an error.
        """
        codes = np.full((height, width), self.nodata, self.legend.dtype)
        counts = Counts()
        inside = self.grid.inside(y0, x0, height, width)
        for row in range(y0 // CELL * CELL, y0 + height, CELL):
            for col in range(x0 // CELL * CELL, x0 + width, CELL):
                members = self._near(row, col)
                if not members.size:
                    continue
                cell, clash = self._cell(members, row, col)
                top, left = max(row, y0), max(col, x0)
                bottom, right = min(row + CELL, y0 + height), min(col + CELL, x0 + width)
                own = np.s_[top - row : bottom - row, left - col : right - col]
                to = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
                codes[to] = cell[own]
                seen = clash[own] if inside is None else clash[own] & inside[to]
                counts.conflicts += int(seen.sum())
                if self.conflict == "error" and seen.any():
                    y, x = np.argwhere(seen)[0] + [top - row, left - col]
                    self._complain(members, row, col, int(y), int(x))
        if inside is not None:
            codes[~inside] = self.nodata
        found, number = np.unique(codes[codes != self.nodata], return_counts=True)
        counts.pixels = dict(zip(found.tolist(), number.tolist(), strict=True))
        return codes, counts

    def _near(self, row: int, col: int) -> Ints:
        """Features whose boxes reach a cell, in the order of burning."""
        reach = CELL + _MARGIN
        box = shapely.box(col - _MARGIN, row - _MARGIN, col + reach, row + reach)
        return np.sort(self.tree.query(box))

    def _seen(self, members: Ints, row: int, col: int) -> Shapes:
        """What a cell sees of features, in its pixels, as GDAL is to take it."""
        corner = np.array([col, row], np.float64)
        return _described(_thinned(shapely.transform(self.shapes[members], lambda xy: xy - corner)))

    def _cell(self, members: Ints, row: int, col: int) -> tuple[npt.NDArray[np.int32], Bools]:
        """Codes of one cell, and where features disagree."""
        shapes = self._seen(members, row, col)
        codes = np.full((CELL, CELL), self.nodata, np.int32)
        clash = np.zeros((CELL, CELL), np.bool_)
        for level in np.unique(self.priority[members]):
            own = self.priority[members] == level
            made, differ = self._level(shapes[own], members[own])
            burned = made != _NONE
            codes[burned] = made[burned]
            clash[burned] = differ[burned]
            codes[burned & differ] = self.nodata
        return codes, clash

    def _level(self, shapes: Shapes, members: Ints) -> tuple[npt.NDArray[np.int32], Bools]:
        """Codes of features of equal priority, and where they disagree.

        The greatest code of a pixel comes of burning in the order of codes, the least of burning in
        the opposite order, for which only features are needed whose boxes meet others of another
        code.
        """
        code, touched = self.code[members], self.touched[members]
        if self.conflict == "last":
            made = _burned(shapes, code, touched)
            return made, np.zeros(made.shape, np.bool_)
        rising = np.argsort(code, kind="stable")
        most = _greatest(shapes[rising], code[rising], touched[rising])
        doubtful = self._crossing(members, code)
        if not doubtful.any():
            return most, np.zeros(most.shape, np.bool_)
        falling = rising[::-1][doubtful[rising[::-1]]]
        # Negated, the least code is the greatest; codes are not negative, so _NONE stays below.
        top = int(code.max())
        least = _greatest(shapes[falling], top - code[falling], touched[falling])
        return most, (least != _NONE) & (top - least != most)

    def _crossing(self, members: Ints, code: Ints) -> Bools:
        """Which features may share a pixel with one of another code, by their boxes."""
        crossing = np.zeros(len(members), np.bool_)
        if (code == code[0]).all():
            return crossing
        boxes = self.boxes[members] + np.array([-1.0, -1.0, 1.0, 1.0])
        grown = _boxes(boxes)
        one, other = shapely.STRtree(grown).query(grown)
        crossing[one[code[one] != code[other]]] = True
        return crossing

    def _complain(self, members: Ints, row: int, col: int, y: int, x: int) -> None:
        """`InputError` that names two features that disagree over a pixel."""
        shapes = self._seen(members, row, col)
        there = [
            member
            for i, member in enumerate(members.tolist())
            if _burned(shapes[[i]], self.code[[member]], self.touched[[member]])[y, x] != _NONE
        ]
        highest = max(self.priority[there])
        first, *others = (member for member in there if self.priority[member] == highest)
        other = next(member for member in others if self.code[member] != self.code[first])
        place = f"{self.grid.x(col + x):.10g}, {self.grid.y(row + y):.10g}"
        raise InputError(
            f"{self._called(first)} and {self._called(other)} overlap at {place} with equal "
            "priority; give one a higher priority, or take conflict=ignore or last"
        )

    def _called(self, member: int) -> str:
        entry = self.legend.entry(int(self.code[member]))
        return f"feature {self.feature[member]} of {self.layer[member]} ({entry.name})"


def _boxes(bounds: npt.NDArray[np.float64]) -> Shapes:
    """Boxes of bounds (feature, 4)."""
    return np.asarray(shapely.box(bounds[:, 0], bounds[:, 1], bounds[:, 2], bounds[:, 3]))


def _in_pixels(shapes: Shapes, grid: Grid) -> npt.NDArray[Any]:
    """Geometries in columns and rows of the product, float64."""
    left, top = grid.transform.c, grid.transform.f

    def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([xy[:, 0] - left, top - xy[:, 1]], axis=1) / grid.resolution

    return np.asarray(shapely.transform(shapes, move))


def _greatest(shapes: Shapes, values: Ints, touched: Bools) -> npt.NDArray[np.int32]:
    """The greatest value of each pixel, of shapes in rising order of their values."""
    made = [_burned(shapes[own], values[own], touched[own]) for own in (touched, ~touched)]
    return np.maximum(*made)


def _burned(shapes: Shapes, values: Ints, touched: Bools) -> npt.NDArray[np.int32]:
    """One cell of values, int32, the last shape on top; -1 where there is none."""
    made = np.full((CELL, CELL), _NONE, np.int32)
    for rule, run in _runs(touched):
        pairs = [
            (shape, value)
            for shape, value in zip(shapes[run], values[run].tolist(), strict=True)
            if shape is not None
        ]
        gdal_rasterize(pairs, out=made, transform=Affine.scale(_PIXEL), all_touched=rule)
    return made


def _runs(touched: Bools) -> Iterator[tuple[bool, slice]]:
    """Stretches of equal rule."""
    start = 0
    for stop in range(1, len(touched) + 1):
        if stop == len(touched) or touched[stop] != touched[start]:
            yield bool(touched[start]), slice(start, stop)
            start = stop


def _described(shapes: Shapes) -> Shapes:
    """Shapes as GeoJSON-like objects, None for empty ones.

    Polygons by the batch: one by one, their corners would take longer than burning them.
    """
    shapes = shapely.transform(shapes, lambda xy: xy * _PIXEL)
    out = np.full(len(shapes), None, dtype=object)
    areal = shapely.get_type_id(shapes) == 3
    for i in np.flatnonzero(~areal & ~shapely.is_empty(shapes)).tolist():
        out[i] = shapes[i].__geo_interface__
    rings, owner = shapely.get_rings(shapes[areal], return_index=True)
    corners = shapely.get_coordinates(rings).tolist()
    ends = np.cumsum(shapely.get_num_coordinates(rings)).tolist()
    place, start = np.flatnonzero(areal)[owner].tolist(), 0
    for i, end in zip(place, ends, strict=True):
        if out[i] is None:
            out[i] = {"type": "Polygon", "coordinates": []}
        out[i]["coordinates"].append(corners[start:end])
        start = end
    return out


def _thinned(shapes: Shapes) -> Shapes:
    """Shapes in a cell's pixels, the large ones without the corners that the cell cannot see.

    A stretch of an outline that lies wholly to the left of the cell (or right, above, below)
    becomes its first and last corner: every row still meets it equally often, modulo two, on that
    side, so scanlines fill the same pixels, and no edge that comes near the cell is touched.
    """
    large = (shapely.get_num_coordinates(shapes) > _LARGE) & (shapely.get_dimensions(shapes) > 0)
    for kind, rings in ((3, True), (1, False)):
        own = np.flatnonzero(large & (shapely.get_type_id(shapes) == kind))
        if own.size:
            shapes[own] = _without_far(shapes[own], rings)
    return shapes


def _without_far(shapes: Shapes, areal: bool) -> npt.NDArray[Any]:
    lines: Shapes = shapes
    owner: Ints | None = None
    if areal:
        lines, owner = shapely.get_rings(shapes, return_index=True)
    xy, line = shapely.get_coordinates(lines, return_index=True)
    side = np.select(
        [
            xy[:, 0] < -_MARGIN,
            xy[:, 0] > CELL + _MARGIN,
            xy[:, 1] < -_MARGIN,
            xy[:, 1] > CELL + _MARGIN,
        ],
        [1, 2, 3, 4],
        0,
    )
    same = (side[1:] == side[:-1]) & (line[1:] == line[:-1]) & (side[1:] > 0)
    kept = np.ones(len(xy), np.bool_)
    kept[1:-1] = ~(same[:-1] & same[1:])
    if owner is None:
        return np.asarray(shapely.linestrings(xy[kept], indices=line[kept]))
    # A ring of fewer corners lay wholly on one side.
    enough = np.bincount(line[kept], minlength=len(lines)) >= 4
    kept &= enough[line]
    made = np.full(len(shapes), shapely.Polygon(), dtype=object)
    if kept.any():
        number = np.cumsum(enough) - 1
        rings = np.asarray(shapely.linearrings(xy[kept], indices=number[line[kept]]))
        there, place = np.unique(owner[enough], return_inverse=True)
        made[there] = shapely.polygons(rings, indices=place)
    return made
