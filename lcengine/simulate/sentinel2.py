"""The satellite: bands, granules, overpasses and the encoding of reflectance as digital numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely import Polygon, box
from shapely.geometry.base import BaseGeometry

from lcengine.errors import InputError
from lcengine.simulate.streams import Stream, generator

Value = TypeVar("Value", bound=np.generic)

BANDS = (
    "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22",
)  # fmt: skip
RESOLUTION = {b: 10 if b in ("blue", "green", "red", "nir") else 20 for b in BANDS}
"""Pixel size in metres."""
MSI_NAME = dict(
    zip(BANDS, ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"), strict=True)
)

COLLECTION = "sentinel-2-l2a"
EPSG = 32631
_CENTRE_X, _TOP_Y = 700_000, 5_640_000
"""Corner of four 100 km squares at 5.85° E, 50.9° N, where the UTM zones 31 and 32 both reach."""
LON, LAT = 5.85, 50.87
_ROWS = 256
"""Rows whose coordinates are held at once."""
GRANULE = 2048
"""Pixels of 10 m that a granule spans at most, without its overlap."""
_LEAST_AREA = 10_000
"""Square metres of the smallest part of a granule that is delivered."""


class Block(NamedTuple):
    """A part of the mosaic in pixels of 20 m."""

    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class Mosaic:
    """The simulated square: `size` pixels of 10 m in EPSG:32631, edges at multiples of 20 m."""

    size: int

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, bottom, right, top in metres."""
        return self.box(self.block)

    @property
    def block(self) -> Block:
        """All of it."""
        return Block(0, 0, self.size // 2, self.size // 2)

    def box(self, block: Block) -> tuple[int, int, int, int]:
        """Left, bottom, right, top of a block in metres."""
        left = _CENTRE_X - self.size // 4 * 20 + block.col * 20
        top = _TOP_Y - block.row * 20
        return left, top - block.height * 20, left + block.width * 20, top


@dataclass(frozen=True)
class Granule:
    """One tile's share of the mosaic; bounds in metres of its own CRS, multiples of 20 m."""

    mosaic: Mosaic
    tile: str
    epsg: int
    bounds: tuple[int, int, int, int]
    delay: float
    """Seconds between the start of the overpass and this granule's time."""

    @cached_property
    def block(self) -> Block:
        """The part of the mosaic that `sample` looks at."""
        left, bottom, right, top = (float(v) for v in self.bounds)
        if self.epsg != EPSG:
            to_mosaic = Transformer.from_crs(self.epsg, EPSG, always_xy=True)
            left, bottom, right, top = to_mosaic.transform_bounds(*self.bounds, densify_pts=101)
        whole, side = self.mosaic.bounds, self.mosaic.size // 2
        rows = np.clip(
            [np.floor((whole[3] - top) / 20), np.ceil((whole[3] - bottom) / 20)], 0, side
        )
        cols = np.clip(
            [np.floor((left - whole[0]) / 20), np.ceil((right - whole[0]) / 20)], 0, side
        )
        return Block(int(rows[0]), int(cols[0]), int(np.diff(rows)[0]), int(np.diff(cols)[0]))

    def shape(self, resolution: int) -> tuple[int, int]:
        """Rows and columns at a resolution in metres."""
        left, bottom, right, top = self.bounds
        return (top - bottom) // resolution, (right - left) // resolution

    def sample(self, array: NDArray[Value], resolution: int) -> NDArray[Value]:
        """The pixels of `block` under this granule's pixel centres; arbitrary outside the mosaic.

        `array` covers `block` at 10 or 20 m.
        """
        index, _ = self._lookup[resolution]
        return array.reshape(-1)[index]

    def inside(self, resolution: int) -> NDArray[np.bool_]:
        """True where the pixel centre lies in the mosaic."""
        return self._lookup[resolution][1]

    @cached_property
    def _lookup(self) -> dict[int, tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        return {r: self._index(r) for r in (10, 20)}

    def _index(self, resolution: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        shape = self.shape(resolution)
        index, inside = np.empty(shape, np.int32), np.empty(shape, np.bool_)
        for start in range(0, shape[0], _ROWS):
            rows = slice(start, min(start + _ROWS, shape[0]))
            index[rows], inside[rows] = self._index_rows(resolution, rows)
        return index, inside

    def _index_rows(
        self, resolution: int, part: slice
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        x = self.bounds[0] + (np.arange(self.shape(resolution)[1]) + 0.5) * resolution
        y = self.bounds[3] - (np.arange(part.start, part.stop) + 0.5) * resolution
        xx, yy = np.meshgrid(x, y)
        if self.epsg != EPSG:
            xx, yy = Transformer.from_crs(self.epsg, EPSG, always_xy=True).transform(xx, yy)
        left, bottom, right, top = self.mosaic.bounds
        inside = (yy <= top) & (yy > bottom) & (xx >= left) & (xx < right)
        left, _, _, top = self.mosaic.box(self.block)
        cols = np.floor((xx - left) / resolution).astype(np.int32)
        rows = np.floor((top - yy) / resolution).astype(np.int32)
        h, w = (n * 20 // resolution for n in self.block[2:])
        return np.clip(rows, 0, h - 1) * w + np.clip(cols, 0, w - 1), inside

    def footprint(self, swath: Swath | None) -> Polygon:
        """Outline of the valid pixels in longitude and latitude; empty where there are none."""
        data: BaseGeometry = box(*self.mosaic.bounds)
        if swath is not None:
            data = data.intersection(swath.polygon(self.mosaic))
        if self.epsg != EPSG:
            data = project(data, EPSG, self.epsg)
        data = data.intersection(box(*self.bounds))
        if data.area < _LEAST_AREA:
            return Polygon()
        return Polygon(shapely.get_coordinates(project(data, self.epsg, 4326)))


def project(shape: BaseGeometry, source: int, target: int) -> BaseGeometry:
    """A geometry's vertices from one EPSG code to another, x or longitude first."""
    transformer = Transformer.from_crs(source, target, always_xy=True)

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shape, moved)


def make_granules(mosaic: Mosaic, second_zone: bool) -> tuple[Granule, ...]:
    """Granules of at most some 20 km that overlap by a tenth, row by row; at least two.

    With `second_zone` the eastern half of them is in EPSG:32632. Tiles are named as neighbours in
    MGRS are, but hold only a part of a real tile.
    """
    rows, cols = (max(least, -(-mosaic.size // GRANULE)) for least in (1, 2))
    half_overlap = max(2, min(mosaic.size, GRANULE) // 40)
    granules = []
    for i, j in np.ndindex(rows, cols):
        spans = []
        for k, n in ((i, rows), (j, cols)):
            start, stop = (mosaic.size // 2 * e // n for e in (k, k + 1))
            start -= half_overlap if k > 0 else 0
            spans.append((start, stop + (half_overlap if k < n - 1 else 0)))
        (top, bottom), (left, right) = spans
        bounds = mosaic.box(Block(top, left, bottom - top, right - left))
        in_zone = j - (cols + 1) // 2
        zone_32 = second_zone and in_zone >= 0
        granules.append(
            Granule(
                mosaic,
                _tile("32U", "K", "B", in_zone, i) if zone_32 else _tile("31U", "F", "S", j, i),
                32632 if zone_32 else EPSG,
                _snapped(bounds) if zone_32 else bounds,
                delay=3.2 * j + 14.0 * i,
            )
        )
    return tuple(granules)


def _tile(zone: str, column: str, row: str, east: int, south: int) -> str:
    """The MGRS name of the 100 km square so many squares east and south of another."""
    columns, rows = "ABCDEFGHJKLMNPQRSTUVWXYZ", "ABCDEFGHJKLMNPQRSTUV"
    to_east = columns[(columns.index(column) + east) % len(columns)]
    return zone + to_east + rows[(rows.index(row) - south) % len(rows)]


def _snapped(bounds: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Bounds in EPSG:32632 around others in EPSG:32631, multiples of 20 m."""
    to_zone = Transformer.from_crs(EPSG, 32632, always_xy=True)
    left, bottom, right, top = (v / 20 for v in to_zone.transform_bounds(*bounds))
    low, high = np.floor([left, bottom]), np.ceil([right, top])
    return int(low[0]) * 20, int(low[1]) * 20, int(high[0]) * 20, int(high[1]) * 20


@dataclass(frozen=True)
class Swath:
    """A swath edge across the mosaic: a line that leans as the descending orbit does."""

    fraction: float
    """Where the line crosses the middle row, as a fraction of the width."""
    east: bool
    """True when the ground east of the line was seen."""

    LEAN = 0.25
    """Metres east per metre north (an orbit heading of about 194°)."""

    def seen(self, mosaic: Mosaic, block: Block | None = None) -> NDArray[np.bool_]:
        """True where a pixel of 20 m was seen, of a block or all of the mosaic."""
        row, col, height, width = block or mosaic.block
        x, y = ((start + np.arange(n) + 0.5) for start, n in ((col, width), (row, height)))
        line = self.fraction + self.LEAN * (0.5 - y / (mosaic.size // 2))[:, None]
        return np.asarray((x[None, :] / (mosaic.size // 2) > line) == self.east)

    def polygon(self, mosaic: Mosaic) -> Polygon:
        """The half plane that was seen, as a large polygon in EPSG:32631."""
        left, bottom, right, top = mosaic.bounds
        side = right - left
        middle = left + self.fraction * side
        lean = self.LEAN * side
        edge = right + side if self.east else left - side
        points = [(middle - lean, bottom - side / 2), (middle + lean, top + side / 2)]
        return Polygon([*points, (edge, top + side / 2), (edge, bottom - side / 2)])


@dataclass(frozen=True)
class Processing:
    """How one processing of the archive turned reflectance into digital numbers."""

    baseline: str
    added: int
    """Digital number of reflectance 0."""
    offset: float
    """What the catalogue's `raster:bands` say must be added to scale × DN."""
    offset_applied: bool = False
    """The flag `earthsearch:boa_offset_applied`, which overrules `offset`."""


PROCESSINGS = (
    Processing("03.01", 0, 0.0),
    Processing("05.09", 1000, -0.1),
    Processing("05.09", 0, -0.1, offset_applied=True),
    Processing("05.09", 1000, -0.1),
    Processing("02.12", 0, 0.0),
)


@dataclass(frozen=True)
class Overpass:
    """One acquisition of the mosaic."""

    index: int
    time: datetime
    platform: str
    processing: Processing
    swath: Swath | None
    cloud_rank: float
    """0 to 1: the overpass's place among all when ordered by cloud cover."""

    @property
    def day(self) -> float:
        """Day of the year, 1 on January 1."""
        return float(self.time.timetuple().tm_yday)

    @property
    def sun(self) -> tuple[float, float]:
        """Sun elevation and azimuth (clockwise from north) in degrees."""
        return sun(self.time)


def sun(time: datetime) -> tuple[float, float]:
    """Sun elevation and azimuth (clockwise from north) in degrees, Cooper's declination."""
    declination = np.radians(23.44) * np.sin(2 * np.pi * (284 + time.timetuple().tm_yday) / 365)
    hours = time.hour + time.minute / 60 + LON / 15 - 12
    hour_angle, latitude = np.radians(15 * hours), np.radians(LAT)
    sine = np.sin(latitude) * np.sin(declination)
    sine += np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    east = -np.cos(declination) * np.sin(hour_angle)
    north = np.sin(declination) * np.cos(latitude)
    north -= np.cos(declination) * np.cos(hour_angle) * np.sin(latitude)
    return float(np.degrees(np.arcsin(sine))), float(np.degrees(np.arctan2(east, north)) % 360)


def make_overpasses(first: date, last: date, count: int, seed: int) -> tuple[Overpass, ...]:
    """`count` overpasses on different days, about every 5 days and thinned where there is room."""
    rng = generator(seed, Stream.SCHEDULE)
    days = (last - first).days + 1
    if count > days:
        raise InputError(
            f"{count} dates do not fit into {days} days ({first} to {last}): "
            "ask for fewer dates or a longer period"
        )
    # Denser than 5 days: orbits that overlap, then days on which no real overpass would be.
    step = next(s for s in (5, 3, 2, 1) if -(-days // s) >= count)
    slots = np.sort(rng.choice(-(-days // step), size=count, replace=False))
    ranks = (rng.permutation(count) + 0.5) / count
    processings = rng.permutation(np.arange(count) % len(PROCESSINGS))
    edges = rng.permutation(np.arange(count) % 4 == 1)
    overpasses = []
    for i, slot in enumerate(slots):
        seconds = timedelta(seconds=float(rng.integers(0, 1800_000)) / 1000)
        start = datetime.combine(first + timedelta(days=int(slot) * step), datetime.min.time())
        swath = Swath(float(rng.uniform(0.2, 0.4)), east=True)
        if rng.random() < 0.5:
            swath = Swath(1 - swath.fraction, east=False)
        overpasses.append(
            Overpass(
                index=i,
                time=start.replace(tzinfo=UTC) + timedelta(hours=10, minutes=30) + seconds,
                platform="sentinel-2a" if slot % 2 == 0 else "sentinel-2b",
                processing=PROCESSINGS[int(processings[i])],
                swath=swath if edges[i] else None,
                cloud_rank=float(ranks[i]),
            )
        )
    return tuple(overpasses)


def encode(
    reflectance: NDArray[np.float32], valid: NDArray[np.bool_], processing: Processing
) -> NDArray[np.uint16]:
    """Digital numbers, uint16, of reflectance × 10000; 0 where invalid, at least 1 elsewhere."""
    shifted = np.rint(reflectance) + np.float32(processing.added)
    dn = np.clip(shifted, 1, 65535).astype(np.uint16)
    dn[~valid] = 0
    return dn
