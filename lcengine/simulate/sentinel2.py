"""The satellite: bands, granules, overpasses and the encoding of reflectance as digital numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TypeVar

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

EPSG = 32631
_CENTRE_X, _TOP_Y = 700_000, 5_640_000
"""Corner of four 100 km squares at 5.85° E, 50.9° N, where the UTM zones 31 and 32 both reach."""
LON, LAT = 5.85, 50.87


@dataclass(frozen=True)
class Mosaic:
    """The simulated square: `size` pixels of 10 m in EPSG:32631, edges at multiples of 20 m."""

    size: int

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, bottom, right, top in metres."""
        left = _CENTRE_X - self.size // 4 * 20
        return left, _TOP_Y - self.size * 10, left + self.size * 10, _TOP_Y


@dataclass(frozen=True)
class Granule:
    """One tile's share of the mosaic; bounds in metres of its own CRS, multiples of 20 m."""

    mosaic: Mosaic
    tile: str
    epsg: int
    bounds: tuple[int, int, int, int]
    delay: float
    """Seconds between the start of the overpass and this granule's time."""

    def shape(self, resolution: int) -> tuple[int, int]:
        """Rows and columns at a resolution in metres."""
        left, bottom, right, top = self.bounds
        return (top - bottom) // resolution, (right - left) // resolution

    def sample(self, array: NDArray[Value], resolution: int) -> NDArray[Value]:
        """The mosaic's pixels under this granule's pixel centres; arbitrary outside the mosaic."""
        index, _ = self._lookup[resolution]
        return array.reshape(-1)[index]

    def inside(self, resolution: int) -> NDArray[np.bool_]:
        """True where the pixel centre lies in the mosaic."""
        return self._lookup[resolution][1]

    @cached_property
    def _lookup(self) -> dict[int, tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        return {r: self._index(r) for r in (10, 20)}

    def _index(self, resolution: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        height, width = self.shape(resolution)
        x = self.bounds[0] + (np.arange(width) + 0.5) * resolution
        y = self.bounds[3] - (np.arange(height) + 0.5) * resolution
        xx, yy = np.meshgrid(x, y)
        if self.epsg != EPSG:
            xx, yy = Transformer.from_crs(self.epsg, EPSG, always_xy=True).transform(xx, yy)
        n = self.mosaic.size * 10 // resolution
        left, _, _, top = self.mosaic.bounds
        cols = np.floor((xx - left) / resolution).astype(np.int32)
        rows = np.floor((top - yy) / resolution).astype(np.int32)
        inside = (rows >= 0) & (rows < n) & (cols >= 0) & (cols < n)
        return np.clip(rows, 0, n - 1) * n + np.clip(cols, 0, n - 1), inside

    def footprint(self, swath: Swath | None) -> Polygon:
        """Outline of the valid pixels in longitude and latitude."""
        data: BaseGeometry = box(*self.mosaic.bounds)
        if swath is not None:
            data = data.intersection(swath.polygon(self.mosaic))
        if self.epsg != EPSG:
            data = project(data, EPSG, self.epsg)
        data = data.intersection(box(*self.bounds))
        return Polygon(shapely.get_coordinates(project(data, self.epsg, 4326)))


def project(shape: BaseGeometry, source: int, target: int) -> BaseGeometry:
    """A geometry's vertices from one EPSG code to another, x or longitude first."""
    transformer = Transformer.from_crs(source, target, always_xy=True)

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shape, project)


def make_granules(mosaic: Mosaic, second_zone: bool) -> tuple[Granule, Granule]:
    """Two neighbours that overlap by a tenth of the mosaic; the second may be in EPSG:32632."""
    left, bottom, right, top = mosaic.bounds
    middle = (left + right) // 40 * 20
    half_overlap = max(2, mosaic.size // 40) * 20
    west = Granule(mosaic, "31UFS", EPSG, (left, bottom, middle + half_overlap, top), 0.0)
    east = (middle - half_overlap, bottom, right, top)
    if not second_zone:
        return west, Granule(mosaic, "31UGS", EPSG, east, 3.2)
    to_zone = Transformer.from_crs(EPSG, 32632, always_xy=True)
    l32, b32, r32, t32 = to_zone.transform_bounds(*east)
    snapped = (
        int(np.floor(l32 / 20)) * 20,
        int(np.floor(b32 / 20)) * 20,
        int(np.ceil(r32 / 20)) * 20,
        int(np.ceil(t32 / 20)) * 20,
    )
    return west, Granule(mosaic, "32UKB", 32632, snapped, 3.2)


@dataclass(frozen=True)
class Swath:
    """A swath edge across the mosaic: a line that leans as the descending orbit does."""

    fraction: float
    """Where the line crosses the middle row, as a fraction of the width."""
    east: bool
    """True when the ground east of the line was seen."""

    LEAN = 0.25
    """Metres east per metre north (an orbit heading of about 194°)."""

    def seen(self, mosaic: Mosaic) -> NDArray[np.bool_]:
        """True where the pixel was seen, (size / 2, size / 2), 20 m."""
        position = (np.arange(mosaic.size // 2) + 0.5) / (mosaic.size // 2)
        line = self.fraction + self.LEAN * (0.5 - position)[:, None]
        return np.asarray((position[None, :] > line) == self.east)

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
