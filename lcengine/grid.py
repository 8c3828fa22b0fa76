"""The pixel grid of a product: snapped to the sensor's lattice, cut into tiles.

Everything here is a small immutable value computed before any pixel is read. Longitudes and
latitudes are WGS 84 degrees (EPSG:4326, x = longitude); windows are (row, column) in pixels from
the product's upper-left corner; projected coordinates are in the units of the product CRS.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

from lcengine.aoi import LONLAT, Aoi, Bounds, bounds_of, bounds_text, polygonal, repair
from lcengine.crs import (
    check_utm_latitude,
    crs_name,
    densify,
    exact_epsg,
    lonlat_box,
    project,
    resolve_crs,
)
from lcengine.errors import AoiError, InputError
from lcengine.items import Asset

MAX_PIXELS = 10**12
"""Pixels of one product; all land at 10 m is about 1.5e12 and belongs in several products."""

# Reprojection noise is some 1e-9 m; a bound this close (in pixels) to a pixel edge lies on it.
_SNAP_PIXELS = 1e-6
# Lattice indices above this leave less than `_SNAP_PIXELS` of float64 precision.
_MAX_INDEX = 2.0**32
_BLOCK = 64
_METRES_PER_DEGREE = 110_540.0  # just under the shortest degree of latitude of WGS 84


class Tile(NamedTuple):
    """A window of the product: pixel offsets and size; tiles at the far edges are cropped."""

    index: int  # type: ignore[assignment]  # the field's name matters more than tuple.index
    row: int
    col: int
    y0: int
    x0: int
    height: int
    width: int

    def pad(self, n: int) -> Tile:
        """The window grown by `n` pixels on every side; it may hang over the product's edge."""
        return self._replace(
            y0=self.y0 - n, x0=self.x0 - n, height=self.height + 2 * n, width=self.width + 2 * n
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) in an array of the product's shape; for windows inside the product."""
        return slice(self.y0, self.y0 + self.height), slice(self.x0, self.x0 + self.width)

    @property
    def selection(self) -> tuple[Any, ...]:
        """Its place in an array ([time,] y, x) of the product."""
        return (..., *self.slices)


@dataclass(frozen=True)
class Grid:
    """Pixel grid of a product and its cut into tiles from the upper-left corner.

    `geobox`: north-up, square pixels. `tile`: tile edge in pixels, a multiple of 16. `aoi`:
    polygon in the product CRS; pixels whose centre lies outside it are nodata (None: none is).
    """

    geobox: GeoBox
    tile: int
    aoi: Geometry | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        _check_tile(self.tile)
        a = self.geobox.affine
        if a.b or a.d or a.a <= 0 or a.e != -a.a:
            raise InputError(
                f"grid transform {tuple(a)[:6]} is not north-up with square pixels; resample onto "
                "(res, 0, left, 0, -res, top)"
            )
        if self.geobox.crs is None or (self.aoi is not None and self.aoi.crs != self.geobox.crs):
            raise InputError(
                f"grid CRS {self.geobox.crs} and AOI CRS {self.aoi and self.aoi.crs} must be the "
                "same stated CRS; reproject the AOI"
            )

    @classmethod
    def from_aoi(
        cls,
        aoi: Aoi,
        *,
        crs: int | str,
        resolution: float,
        tile: int | None = None,
        anchor: float = 0.0,
    ) -> Grid:
        """Smallest lattice-aligned grid that holds `aoi`, projected with densified edges.

        `resolution`: pixel edge in CRS units. `anchor`: offset in pixels of the sensor's pixel
        edges from the multiples of the resolution (Sentinel-2 0, Landsat 0.5), so neighbouring
        products share one lattice. Raises `InputError` for a CRS, resolution, tile or anchor that
        cannot be, `AoiError` where the AOI does not fit the CRS or needs over `MAX_PIXELS`.
        """
        target = resolve_crs(crs)
        _check_lattice(target, resolution, anchor)
        check_utm_latitude(aoi.bounds, target)
        projected = project(densify(aoi.geometry.geom), LONLAT, target)
        if not np.isfinite(shapely.get_coordinates(projected)).all():
            raise AoiError(
                f"AOI {bounds_text(aoi.bounds)} has no finite coordinates in {crs_name(target)}; "
                "choose a --crs whose projection covers the AOI"
            )
        geobox = _snapped_geobox(bounds_of(projected), target, resolution, anchor)
        size = auto_tile(_shape(geobox)) if tile is None else tile
        if aoi.is_box:
            return cls(geobox, size)
        polygon = polygonal(repair(projected))
        if polygon is None:
            raise AoiError(
                f"AOI {bounds_text(aoi.bounds)} has zero area in {crs_name(target)}; choose a "
                "--crs whose projection covers the AOI"
            )
        return cls(geobox, size, Geometry(polygon, target))

    @classmethod
    def from_bounds(  # noqa: PLR0913, PLR0917 (four of them are one box)
        cls,
        left: float,
        bottom: float,
        right: float,
        top: float,
        crs: int | str,
        resolution: float,
        tile: int | None = None,
        anchor: float = 0.0,
    ) -> Grid:
        """Grid of bounds in CRS units, snapped outwards; arguments and errors as `from_aoi`."""
        target = resolve_crs(crs)
        _check_lattice(target, resolution, anchor)
        bounds = (float(left), float(bottom), float(right), float(top))
        if not all(map(math.isfinite, bounds)) or left >= right or bottom >= top:
            raise AoiError(
                f"bounds {bounds_text(bounds)} in {crs_name(target)} are not finite with left < "
                "right and bottom < top; give left,bottom,right,top"
            )
        geobox = _snapped_geobox(bounds, target, resolution, anchor)
        return cls(geobox, auto_tile(_shape(geobox)) if tile is None else tile)

    @classmethod
    def from_asset(cls, asset: Asset, tile: int | None = None) -> Grid:
        """The pixels of an asset themselves; `InputError` where they are not square.

        The way to images without a place on Earth, whose CRS is their own pixels.
        """
        return cls.from_pixels(asset.crs, asset.transform, asset.shape, tile)

    @classmethod
    def from_pixels(
        cls,
        crs: int | str,
        transform: Sequence[float],
        shape: tuple[int, int],
        tile: int | None = None,
    ) -> Grid:
        """The pixels of a raster: its (a, b, c, d, e, f) and (height, width).

        `InputError` where they are not square or not north up.
        """
        geobox = GeoBox(shape, Affine(*transform), resolve_crs(crs))
        return cls(geobox, auto_tile(shape) if tile is None else tile)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return _shape(self.geobox)

    @property
    def crs(self) -> CRS:
        """Coordinate reference system of the product."""
        crs = self.geobox.crs
        assert crs is not None  # __post_init__ refuses a geobox without one
        return crs

    @property
    def epsg(self) -> int | None:
        """EPSG code that means exactly this CRS, or None."""
        return exact_epsg(self.crs)

    @property
    def crs_wkt(self) -> str:
        """CRS as WKT 2."""
        return str(self.crs.to_wkt())

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) edges to CRS coordinates."""
        return self.geobox.affine

    @property
    def resolution(self) -> float:
        """Pixel edge in CRS units, positive."""
        return float(self.transform.a)

    @property
    def bounds(self) -> Bounds:
        """(left, bottom, right, top) of the extent, outer pixel edges, CRS units."""
        (height, width), a = self.shape, self.transform
        return (a.c, a.f - height * self.resolution, a.c + width * self.resolution, a.f)

    @property
    def tile_rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.shape[0] // self.tile)

    @property
    def tile_cols(self) -> int:
        """Tiles from left to right."""
        return -(-self.shape[1] // self.tile)

    @property
    def n_tiles(self) -> int:
        """Tiles of the extent, also those the AOI polygon does not touch."""
        return self.tile_rows * self.tile_cols

    def tile_at(self, index: int) -> Tile:
        """Tile by row-major index; `IndexError` outside [0, n_tiles)."""
        if not 0 <= index < self.n_tiles:
            raise IndexError(f"tile {index} of a grid of {self.n_tiles} tiles")
        row, col = divmod(index, self.tile_cols)
        y0, x0 = row * self.tile, col * self.tile
        height, width = self.shape
        size = min(self.tile, height - y0), min(self.tile, width - x0)
        return Tile(index, row, col, y0, x0, *size)

    def tiles(self) -> Iterator[Tile]:
        """All tiles in row-major order."""
        return map(self.tile_at, range(self.n_tiles))

    def x(self, cols: ArrayLike) -> NDArray[np.float64]:
        """Pixel-centre x (float64, CRS units) of product columns, inside the product or not.

        Always from the product's own origin: a window's origin would round differently.
        """
        return np.asarray(self.transform.c + (np.asarray(cols) + 0.5) * self.resolution)

    def y(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Pixel-centre y (float64, CRS units) of product rows; see `x`."""
        return np.asarray(self.transform.f - (np.asarray(rows) + 0.5) * self.resolution)

    def inside(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Which pixel centres of a window lie in the AOI (its boundary counts as inside).

        Returns bool (height, width), or None where all are inside. Blocks of 64 pixels anchored
        to the product are settled as a whole where the AOI's boundary passes them by; only the
        others test their pixels. So the answer does not depend on the window.
        """
        if self.aoi is None:
            return None
        polygon = _prepared(self.aoi.geom)
        if shapely.covers(polygon, self._boxes(y0, x0, height, width)):
            return None
        rows = np.arange(y0 // _BLOCK, -(-(y0 + height) // _BLOCK)) * _BLOCK
        cols = np.arange(x0 // _BLOCK, -(-(x0 + width) // _BLOCK)) * _BLOCK
        boxes = self._boxes(rows[:, None], cols[None, :], _BLOCK, _BLOCK)
        covered = shapely.covers(polygon, boxes)
        mask = np.repeat(np.repeat(covered, _BLOCK, axis=0), _BLOCK, axis=1)
        for i, j in np.argwhere(shapely.intersects(polygon, boxes) & ~covered):
            x = self.x(cols[j] + np.arange(_BLOCK))
            y = self.y(rows[i] + np.arange(_BLOCK))
            block = np.s_[i * _BLOCK : (i + 1) * _BLOCK, j * _BLOCK : (j + 1) * _BLOCK]
            mask[block] = shapely.intersects_xy(polygon, x[None, :], y[:, None])
        top, left = y0 % _BLOCK, x0 % _BLOCK
        mask = mask[top : top + height, left : left + width]
        return None if mask.all() else mask

    def touches(self, tile: Tile) -> bool:
        """Whether the AOI meets the tile at all; where it does not, every pixel is nodata."""
        if self.aoi is None:
            return True
        box = self._boxes(tile.y0, tile.x0, tile.height, tile.width)
        return bool(shapely.intersects(_prepared(self.aoi.geom), box))

    def lonlat_bounds(self, halo_m: float = 0.0) -> Bounds:
        """West, south, east, north (degrees) of the extent grown by `halo_m` metres of the CRS.

        A box that holds the extent: all longitudes where it meets the antimeridian or a pole.
        """
        left, bottom, right, top = self.bounds
        halo = halo_m / float(self.crs.proj.axis_info[0].unit_conversion_factor)
        halo_x = halo_y = halo
        if self.crs.geographic:
            halo_y = halo_m / _METRES_PER_DEGREE
            polewards = min(max(abs(bottom), abs(top)) + halo_y, 89.9)
            halo_x = halo_y / math.cos(math.radians(polewards))
        box = (left - halo_x, bottom - halo_y, right + halo_x, top + halo_y)
        return lonlat_box(box, self.crs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description; `from_dict` gives an equal grid back, to the last bit."""
        return {
            "crs": self.crs_wkt if self.epsg is None else f"EPSG:{self.epsg}",
            "transform": [float(value) for value in tuple(self.transform)[:6]],
            "shape": list(self.shape),
            "tile": self.tile,
            "aoi": None if self.aoi is None else shapely.to_wkt(self.aoi.geom, -1),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Grid:
        """Inverse of `to_dict`."""
        crs = resolve_crs(data["crs"])
        height, width = data["shape"]
        geobox = GeoBox((height, width), Affine(*data["transform"]), crs)
        aoi = data["aoi"]
        polygon = None if aoi is None else Geometry(shapely.from_wkt(aoi), crs)
        return cls(geobox, data["tile"], polygon)

    def _boxes(self, y0: ArrayLike, x0: ArrayLike, height: int, width: int) -> Any:
        """Box (or array of boxes) along the outer pixel edges of windows.

        Half a pixel beyond any centre, so float noise cannot contradict a test per pixel.
        """
        xmin, ymax = self.x(x0) - self.resolution / 2, self.y(y0) + self.resolution / 2
        return shapely.box(
            xmin, ymax - height * self.resolution, xmin + width * self.resolution, ymax
        )


def auto_tile(shape: tuple[int, int]) -> int:
    """Tile edge in pixels for a product of `shape` (height, width).

    A power of two from 1024 to 2048 that gives about 16 tiles or more, so that a few workers all
    have something to do; smaller tiles would decode the source blocks at their edges too often.
    One tile, in multiples of 16, for a product smaller than that.
    """
    height, width = shape
    wanted = math.sqrt(max(height * width / 16, 1.0))
    tile = min(max(2 ** math.floor(math.log2(wanted)), 1024), 2048)
    larger = max(height, width)
    return tile if larger >= tile else -(-larger // 16) * 16


def _check_lattice(crs: CRS, resolution: float, anchor: float) -> None:
    if not (math.isfinite(resolution) and resolution > 0):
        raise InputError(f"resolution {resolution} must be a positive number in units of the CRS")
    if crs.geographic and resolution > 1:
        raise InputError(
            f"resolution {resolution:g} is in degrees for {crs_name(crs)}; give degrees "
            "(about 0.0001 for 10 m) or a projected --crs"
        )
    if not 0 <= anchor < 1:
        raise InputError(f"anchor {anchor} must be a pixel fraction in [0, 1)")


def _check_tile(tile: int) -> None:
    if tile <= 0 or tile % 16:
        raise InputError(
            f"tile {tile} must be a positive multiple of 16 pixels; try 512, 1024 or 2048"
        )


def _snapped_geobox(bounds: Bounds, crs: CRS, resolution: float, anchor: float) -> GeoBox:
    left, bottom, right, top = bounds
    resolution = float(resolution)
    pixels = (right - left) / resolution * ((top - bottom) / resolution)
    if not pixels <= MAX_PIXELS:
        raise AoiError(
            f"extent {bounds_text(bounds)} in {crs_name(crs)} at resolution {resolution:g} needs "
            f"{pixels:.3g} pixels, more than {MAX_PIXELS:.0e}; give a smaller AOI or a coarser "
            "--resolution (in units of the CRS)"
        )
    if max(map(abs, bounds)) / resolution >= _MAX_INDEX:
        raise InputError(
            f"resolution {resolution:g} is too fine for coordinates {bounds_text(bounds)} in "
            f"{crs_name(crs)} (float64); give a coarser --resolution (in units of the CRS)"
        )
    col0, width = _snap(left, right, resolution, anchor)
    row0, height = _snap(-top, -bottom, resolution, -anchor)
    origin = (col0 + anchor) * resolution, -(row0 - anchor) * resolution
    transform = Affine(resolution, 0.0, origin[0], 0.0, -resolution, origin[1])
    return GeoBox((height, width), transform, crs)


def _snap(low: float, high: float, resolution: float, anchor: float) -> tuple[int, int]:
    """First lattice index and number of pixels that hold [low, high]."""
    first = math.floor(low / resolution - anchor + _SNAP_PIXELS)
    last = math.ceil(high / resolution - anchor - _SNAP_PIXELS)
    return first, max(last - first, 1)


_thread = threading.local()


def _prepared(geometry: BaseGeometry) -> BaseGeometry:
    """This thread's prepared copy of the last geometry asked for.

    GEOS builds the index of a prepared geometry lazily, which is not safe across threads.
    """
    source, copy = getattr(_thread, "polygon", (None, None))
    if copy is None or source is not geometry:
        copy = shapely.from_wkb(shapely.to_wkb(geometry))
        shapely.prepare(copy)
        _thread.polygon = (geometry, copy)
    return copy


def _shape(geobox: GeoBox) -> tuple[int, int]:
    return int(geobox.shape[0]), int(geobox.shape[1])
