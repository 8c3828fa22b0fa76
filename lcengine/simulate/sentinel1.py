"""Sentinel-1 over the simulated ground: passes, images of γ0 and their STAC items.

Items are laid out as the Planetary Computer lays out `sentinel-1-rtc`: VV and VH as float32 linear
power on a UTM grid of 10 m, nodata -32768. A pass is cut into images of at most `TILE` pixels a
side, so that memory does not grow with the world. The physics is that of `backscatter`.

Not modelled: topography, layover and radar shadow (the world is flat), borders of the swath, noise
floor and its stripes, rows and buildings that face the sensor other than by chance, rain on leaves,
frozen ground, and wheat that stands dry: green cover alone drives the canopy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box, mapping

from lcengine.simulate import backscatter
from lcengine.simulate.backscatter import POLARISATIONS, REFERENCE_ANGLE
from lcengine.simulate.landscape import LEGEND
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.rasters import Bounds, pieces, write_cog
from lcengine.simulate.sentinel2 import EPSG, project
from lcengine.simulate.streams import Stream, generator
from lcengine.simulate.world import Job, world

COLLECTION = "sentinel-1-rtc"
NODATA = -32768.0
TILE = 1024
RESOLUTION = 10
_CYCLE = 12
"""Days after which a satellite repeats its orbit. One satellite: there was only 1A in 2023."""
_PER_METRE = (46.0 - 29.1) / 250_000
"""Degrees of incidence per metre across the swath of the IW mode, 29.1° to 46.0° over 250 km."""
_EXTENSIONS = [
    "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]


@dataclass(frozen=True)
class Orbit:
    """A relative orbit over the world: side it looks to, local time and incidence at the centre."""

    relative: int
    state: str
    hour: float
    """Hours UTC."""
    incidence: float

    @property
    def looks_east(self) -> bool:
        """The antenna looks to the right: east when the satellite flies north."""
        return self.state == "ascending"

    def angle(self, x: NDArray[np.float64], middle: float) -> NDArray[np.float32]:
        """Incidence in degrees at eastings, growing away from the satellite, within the mode's."""
        away = (x - middle) * (1 if self.looks_east else -1)
        return np.clip(self.incidence + away * _PER_METRE, 29.1, 46.0).astype(np.float32)


ORBITS = (Orbit(37, "descending", 5.84, 36.2), Orbit(88, "ascending", 17.41, 41.3))


@dataclass(frozen=True)
class Pass:
    """One acquisition of the world."""

    orbit: Orbit
    time: datetime
    cycle: int


def make_passes(first: date, last: date, seed: int) -> tuple[Pass, ...]:
    """Every orbit once in twelve days, in order of time; each at least once."""
    days = (last - first).days + 1
    passes = []
    for orbit in ORBITS:
        rng = generator(seed, Stream.RADAR, orbit.relative)
        start = int(rng.integers(min(_CYCLE, days)))
        for cycle, day in enumerate(range(start, days, _CYCLE)):
            midnight = datetime.combine(first, datetime.min.time(), UTC) + timedelta(days=day)
            passes.append(Pass(orbit, midnight + timedelta(hours=orbit.hour), cycle))
    return tuple(sorted(passes, key=lambda p: p.time))


_LOCK = Lock()
"""Threads wait for the first to draw a piece of ground instead of all drawing it."""


@lru_cache(maxsize=2)
def _units(options: SimulationOptions, bounds: Bounds) -> NDArray[np.int32]:
    """Units of an image; the same for every pass, which is why jobs go place by place."""
    return world(options).landscape.raster(bounds, RESOLUTION)


@dataclass(frozen=True)
class Image(Job):
    """The job that writes one image: a tile of a pass, in metres of EPSG:32631."""

    acquisition: Pass
    number: int
    bounds: Bounds

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write VV and VH below `root`; the image's STAC item."""
        item = self.item()
        folder = root / COLLECTION / item["id"]
        folder.mkdir(parents=True, exist_ok=True)
        for polarisation, power in self.draw():
            write_cog(folder / f"{polarisation}.tif", power, EPSG, self.bounds, NODATA)
        return [item]

    def draw(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Polarisation and γ0 in linear power, float32 (y, x), with speckle."""
        expected = self.expected()
        orbit = self.acquisition.orbit
        for p, polarisation in enumerate(POLARISATIONS):
            key = (orbit.relative, self.acquisition.cycle, self.number, p)
            rng = generator(self.options.seed, Stream.SPECKLE, *key)
            power = expected[polarisation]
            power *= backscatter.speckle(power.shape, rng)
            yield polarisation, power

    def expected(self) -> dict[str, NDArray[np.float32]]:
        """γ0 in linear power without speckle, float32 (y, x) by polarisation."""
        landscape = world(self.options).landscape
        with _LOCK:
            units = _units(self.options, self.bounds)
        means = unit_backscatter(self.options, self.acquisition)
        left, _, right, _ = self.bounds
        middle = (landscape.bounds[0] + landscape.bounds[2]) / 2
        x = np.arange(left, right, RESOLUTION, dtype=np.float64) + RESOLUTION / 2
        angle = self.acquisition.orbit.angle(x, middle)
        slope = backscatter.per_class([c.name for c in LEGEND], "slope")[_index(landscape.code)]
        # Linear in dB around the reference angle; γ0 = σ0 / cos(incidence).
        decibel = slope[units] * (angle - np.float32(REFERENCE_ANGLE))[None, :]
        factor = np.asarray(np.power(10, decibel / np.float32(10)), dtype=np.float32)
        factor /= np.cos(np.radians(angle))[None, :]
        return {p: mean[units] * factor for p, mean in means.items()}

    def item(self) -> dict[str, Any]:
        """The STAC item, hrefs relative to its own folder."""
        orbit = self.acquisition.orbit
        start = self.acquisition.time + timedelta(seconds=self.number)
        stop = start + timedelta(seconds=25)
        absolute = 47_000 + self.acquisition.cycle * 175 + orbit.relative
        times = f"{start:%Y%m%dT%H%M%S}_{stop:%Y%m%dT%H%M%S}"
        left, bottom, right, top = self.bounds
        outline = project(box(left, bottom, right, top), EPSG, 4326)
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": _EXTENSIONS,
            "id": f"S1A_IW_GRDH_1SDV_{times}_{absolute:06}_{self.number:06X}_rtc",
            "geometry": mapping(outline),
            "bbox": [round(v, 7) for v in outline.bounds],
            "properties": {
                "datetime": _timestamp(start + (stop - start) / 2),
                "start_datetime": _timestamp(start),
                "end_datetime": _timestamp(stop),
                "platform": "SENTINEL-1A",
                "constellation": "Sentinel-1",
                "proj:epsg": EPSG,
                "proj:bbox": list(self.bounds),
                "proj:shape": [(top - bottom) // RESOLUTION, (right - left) // RESOLUTION],
                "proj:transform": [RESOLUTION, 0, left, 0, -RESOLUTION, top],
                "sar:instrument_mode": "IW",
                "sar:product_type": "GRD",
                "sar:frequency_band": "C",
                "sar:center_frequency": 5.405,
                "sar:polarizations": ["VV", "VH"],
                "sar:looks_equivalent_number": backscatter.LOOKS,
                "sar:observation_direction": "right",
                "sat:orbit_state": orbit.state,
                "sat:relative_orbit": orbit.relative,
                "sat:absolute_orbit": absolute,
            },
            "links": [],
            "assets": {p: _asset(p) for p in POLARISATIONS},
            "collection": COLLECTION,
        }


def _index(code: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Position in LEGEND of every unit."""
    place = np.zeros(256, np.intp)
    place[[c.code for c in LEGEND]] = np.arange(len(LEGEND))
    return place[code]


def unit_backscatter(
    options: SimulationOptions, acquisition: Pass
) -> dict[str, NDArray[np.float32]]:
    """σ0 of every unit in linear power, float32 (unit,), at the reference angle.

    The class mean by green cover and soil moisture, and what the unit departs from it: always, by
    the side it is seen from, and (water) by the wind of the day.
    """
    landscape = world(options).landscape
    when = acquisition.time
    names, index = [c.name for c in LEGEND], _index(landscape.code)
    moisture = backscatter.soil_moisture(when.date(), options.seed)
    green = landscape.green(float(when.timetuple().tm_yday))
    means = backscatter.sigma_nought(names, index, green, moisture)
    orbit = acquisition.orbit
    side = 1 + int(orbit.looks_east)
    weather = generator(options.seed, Stream.RADAR, orbit.relative, acquisition.cycle)
    wind = weather.standard_normal() * backscatter.per_class(names, "wind")
    for p, polarisation in enumerate(POLARISATIONS):
        own = (
            _departure(options.seed, index.size, 0, p)
            * backscatter.per_class(names, "spread")[index]
        )
        own += (
            _departure(options.seed, index.size, side, p)
            * backscatter.per_class(names, "facing")[index]
        )
        own += wind.astype(np.float32)[index]
        means[polarisation] *= np.float32(10) ** (own / np.float32(10))
    return means


def _departure(seed: int, units: int, *key: int) -> NDArray[np.float32]:
    """Standard normal number of every unit, within three deviations."""
    rng = generator(seed, Stream.RADAR, 0, *key)
    return np.clip(rng.standard_normal(units, dtype=np.float32), -3, 3)


def jobs(options: SimulationOptions) -> list[Job]:
    """The images of all passes over the world of `options`, place by place."""
    cut = pieces(world(options).landscape.bounds, TILE * RESOLUTION)
    passes = make_passes(*options.days(), options.seed)
    return [Image(options, p, number, bounds) for number, bounds in enumerate(cut) for p in passes]


def _timestamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _asset(polarisation: str) -> dict[str, Any]:
    second = {"vv": "vertical", "vh": "horizontal"}[polarisation]
    return {
        "href": f"./{polarisation}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": f"{polarisation.upper()}: vertical transmit, {second} receive",
        "roles": ["data"],
        "raster:bands": [
            {"nodata": NODATA, "data_type": "float32", "spatial_resolution": RESOLUTION}
        ],
    }
