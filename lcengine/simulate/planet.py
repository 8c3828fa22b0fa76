"""PlanetScope over the simulated ground: passes, scenes of 3 m with UDM2, and their STAC items.

Items are laid out as Planet's PSScene: one multi-band GeoTIFF of surface reflectance (scale 0.0001)
with 4 or 8 bands and one `ortho_udm2` of eight bands; scenes of four bands carry top-of-atmosphere
reflectance too, with a scale of its own for every band. A pass is a strip of scenes of at most
`TILE` pixels a side, so memory does not grow with the world. Sky, dates and satellites differ from
Sentinel-2's. Every satellite has a radiometry a little of its own.

Not modelled: geolocation errors, band-to-band shifts, blur, saturation, viewing angles and scenes
that overlap within a strip; clouds have one height per pass. The mask errs in patches near the
limits between its classes and never takes bright ground for cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, box
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from lcengine.simulate import dove
from lcengine.simulate.covers import CODE
from lcengine.simulate.dove import BANDS4, BANDS8, UDM2, DoveSky, SkyFields, Weather
from lcengine.simulate.landscape import Patch
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.rasters import Bounds, pieces, write_cog
from lcengine.simulate.sentinel2 import EPSG, project, sun
from lcengine.simulate.streams import Stream, generator
from lcengine.simulate.world import Job, world

COLLECTION = "PSScene"
RESOLUTION = 3
TILE = 2048
SR_SCALE = 1e-4
TOA_SCALE = {"blue": 2.0e-5, "green": 2.17e-5, "red": 2.61e-5, "nir": 4.13e-5}
"""Reflectance per digital number of the top-of-atmosphere files; every scene has its own."""
PATH_RADIANCE = {"blue": 0.065, "green": 0.040, "red": 0.022, "nir": 0.007}
"""Reflectance that a clear atmosphere adds (Rayleigh and a little aerosol)."""
TRANSMITTANCE = {"blue": 0.84, "green": 0.88, "red": 0.92, "nir": 0.95}
_INTERVAL = 12
"""Mean days between passes; the real constellation comes almost daily."""
_WIDTH = 24_500
"""Metres across a strip."""
_LEAN = 0.2
"""Metres east per metre north of a strip's edges."""
_COMMON = {"rededge1": "rededge", "green1": "green"}
_EXTENSIONS = [
    "https://planetlabs.github.io/stac-extension/v1.0.0-beta.3/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
_UDM2_HELP = (
    "Clear map (0: not clear, 1: clear)",
    "Snow map (0: no snow or ice, 1: snow or ice)",
    "Shadow map (0: no shadow, 1: shadow)",
    "Light haze map (0: no light haze, 1: light haze)",
    "Heavy haze map (0: no heavy haze, 1: heavy haze)",
    "Cloud map (0: no cloud, 1: cloud)",
    "Confidence map (percentage)",
    "Unusable pixels",
)


@dataclass(frozen=True)
class Strip:
    """What one pass saw: between two leaning lines; `west` is the western one's easting at `y`."""

    west: float
    y: float

    def seen(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True (rows, columns) at pixel centres inside the strip."""
        edge = (self.west + _LEAN * (y - self.y))[:, None]
        return np.asarray((x[None, :] >= edge) & (x[None, :] <= edge + _WIDTH))

    def outline(self, bounds: Bounds) -> BaseGeometry:
        """The part of a rectangle that was seen."""
        low, high = bounds[1] - 1, bounds[3] + 1
        west = [self.west + _LEAN * (y - self.y) for y in (low, high)]
        corners = [(west[0], low), (west[1], high), (west[1] + _WIDTH, high)]
        return box(*bounds).intersection(Polygon([*corners, (west[0] + _WIDTH, low)]))


@dataclass(frozen=True)
class Pass:
    """One pass of one satellite."""

    index: int
    time: datetime
    satellite: str
    bands: tuple[str, ...]
    gain: tuple[float, ...]
    """Factor on the reflectance of each band: the satellite's calibration error."""
    strip: Strip
    weather: Weather
    stripes: bool
    """True when the downlink lost lines of the green band."""


def make_passes(options: SimulationOptions, bounds: Bounds) -> tuple[Pass, ...]:
    """One pass in every `_INTERVAL` days of the period, on a day of its own; at least one.

    A third are nearly clear; of the others half are hazy. One in four comes from an older
    satellite of four bands. What a strip cannot see at once is seen by turns.
    """
    first, last = options.days()
    days = (last - first).days + 1
    count = max(1, days // _INTERVAL)
    rng = generator(options.seed, Stream.PLANET, 0)
    ranks = (rng.permutation(count) + 0.5) / count
    old = rng.permutation(np.arange(count) % 4 == 3)
    turns = generator(options.seed, Stream.PLANET, 2).permutation(count)
    passes = []
    for i in range(count):
        low, high = i * days // count, (i + 1) * days // count
        day = first + timedelta(days=int(rng.integers(low, high)))
        time = datetime.combine(day, datetime.min.time(), UTC)
        time += timedelta(hours=9.4, milliseconds=int(rng.integers(5_400_000)))
        bands = BANDS4 if old[i] else BANDS8
        gain = 1.0 + 0.02 * rng.standard_normal() + 0.008 * rng.standard_normal(len(bands))
        passes.append(
            Pass(
                index=i,
                time=time,
                satellite=f"{'1' if old[i] else '24'}{rng.integers(16, 256):02x}",
                bands=bands,
                gain=tuple(float(g) for g in gain),
                strip=_strip(rng, bounds, (turns[i] + 0.5) / count),
                weather=_weather(rng, float(ranks[i]), time),
                stripes=bool(rng.random() < 0.2),
            )
        )
    return tuple(passes)


def _strip(rng: np.random.Generator, bounds: Bounds, turn: float) -> Strip:
    """A strip that sees the whole of a small world as often as it cuts it on one side.

    Over a world that no strip sees whole, strips lie from west to east by their `turn`, 0 to 1.
    """
    left, bottom, right, top = bounds
    side = right - left
    choice, place = rng.random(), rng.random()
    # A lean of a fifth needs room on both sides to see everything.
    room = 0.5 * _LEAN * (top - bottom)
    spare = _WIDTH - side - 2 * room
    if spare < 0:
        west = left - room + turn * (side + 2 * room) - _WIDTH / 2
    elif choice < 0.25:
        west = left + (0.1 + 0.4 * place) * side
    elif choice < 0.5:
        west = right - (0.1 + 0.4 * place) * side - _WIDTH
    else:
        west = left - room - place * spare
    return Strip(float(west), (bottom + top) / 2)


def _weather(rng: np.random.Generator, rank: float, time: datetime) -> Weather:
    """Cloud by rank among the passes: a third nearly clear, the others up to 70 % covered."""
    shift = (float(rng.uniform(0, 1e5)), float(rng.uniform(0, 1e5)))
    hazy = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 and rank > 0.33 else 0.0
    height = float(rng.uniform(600, 3000))
    elevation, azimuth = np.radians(sun(time))
    distance = height / np.tan(elevation)
    fall = (-distance * np.sin(azimuth), -distance * np.cos(azimuth))
    cloudy = 0.02 * rank if rank < 0.33 else 0.04 + 0.66 * (rank - 0.33) / 0.67
    return Weather(cloudy, hazy, shift, (float(fall[0]), float(fall[1])))


@lru_cache(maxsize=2)
def _fields(seed: int) -> SkyFields:
    return dove.make_sky_fields(seed)


_LOCK = Lock()
"""Threads wait for the first to draw a piece of ground instead of all drawing it."""


def _patch(options: SimulationOptions, bounds: Bounds) -> Patch:
    """The ground of a scene."""
    with _LOCK:
        return _drawn(options, bounds)


@lru_cache(maxsize=2)
def _drawn(options: SimulationOptions, bounds: Bounds) -> Patch:
    """It is the same for every pass, which is why jobs go place by place."""
    return world(options).landscape.patch(bounds, RESOLUTION)


@dataclass(frozen=True)
class Scene(Job):
    """The job that writes one scene: a tile of a pass, in metres of EPSG:32631."""

    acquisition: Pass
    number: int
    bounds: Bounds

    @property
    def id(self) -> str:
        """The id as Planet makes it: time, fraction of a second, satellite."""
        time = self.time
        return f"{time:%Y%m%d_%H%M%S}_{time.microsecond // 10_000:02}_{self.acquisition.satellite}"

    @property
    def time(self) -> datetime:
        """Scenes follow each other in half a second."""
        return self.acquisition.time + timedelta(milliseconds=490 * self.number)

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write the images below `root`; the scene's STAC item."""
        folder = root / COLLECTION / self.id
        folder.mkdir(parents=True, exist_ok=True)
        sky, seen = self.sky(), self.seen()
        mask = self.mask(sky, seen)
        write_cog(folder / "ortho_udm2.tif", mask, EPSG, self.bounds, None)
        surface = np.empty((len(self.acquisition.bands), *seen.shape), np.uint16)
        above = np.empty_like(surface) if self.acquisition.bands == BANDS4 else None
        for b, band in enumerate(self.acquisition.bands):
            image = sky.seen_through(band, self.ground(band))
            image = self._measured(b, image)
            surface[b] = dove.encode(image, seen, SR_SCALE)
            if above is not None:
                toa = image * np.float32(TRANSMITTANCE[band]) + np.float32(PATH_RADIANCE[band])
                above[b] = dove.encode(toa, seen, self.toa_scale[band])
        name = f"ortho_analytic_{len(self.acquisition.bands)}b"
        write_cog(folder / f"{name}_sr.tif", surface, EPSG, self.bounds, 0)
        if above is not None:
            write_cog(folder / f"{name}.tif", above, EPSG, self.bounds, 0)
        return [self.item(mask, seen)]

    @property
    def toa_scale(self) -> dict[str, float]:
        """Reflectance per digital number of the top-of-atmosphere file, by band."""
        # It follows the sun's height and the distance of the earth, so every scene has another.
        elevation, _ = sun(self.time)
        factor = float(np.sin(np.radians(55)) / np.sin(np.radians(elevation)))
        return {band: scale * factor for band, scale in TOA_SCALE.items()}

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings of the columns and northings of the rows."""
        left, bottom, right, top = self.bounds
        half = RESOLUTION / 2
        return (
            np.arange(left, right, RESOLUTION, dtype=np.float64) + half,
            np.arange(top, bottom, -RESOLUTION, dtype=np.float64) - half,
        )

    def sky(self) -> DoveSky:
        """Clouds, haze and shadows over the scene."""
        return _fields(self.options.seed).sky(self.acquisition.weather, *self.centres())

    def seen(self) -> NDArray[np.bool_]:
        """True where the pass saw the ground."""
        return self.acquisition.strip.seen(*self.centres())

    def mask(self, sky: DoveSky, seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """UDM2, uint8 (8, y, x)."""
        snow = _patch(self.options, self.bounds).landcover == CODE["snow and ice"]
        x, y = self.centres()
        move = 7919.0 * (1 + self.acquisition.index)
        error = dove.periodic(_fields(self.options.seed).patches, x + move, y - move)
        mask = dove.usable_data_mask(sky, snow, seen, error)
        mask[UDM2.index("unusable"), self._lost()] |= dove.SUSPECT
        mask[UDM2.index("unusable"), ~seen] = dove.BLACKFILL
        return mask

    def ground(self, band: str) -> NDArray[np.float32]:
        """Noise-free reflectance of the ground in a band, float32 (y, x)."""
        patch = _patch(self.options, self.bounds)
        day = float(self.time.timetuple().tm_yday)
        parts = (
            np.float32(weight) * patch.landscape.reflectance(source, patch.units, day, patch.grain)
            for source, weight in dove.MIXTURE[band].items()
        )
        return np.asarray(sum(parts), dtype=np.float32)

    def _measured(self, b: int, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the satellite makes of a band: its calibration, noise, lost lines."""
        key = (1, self.acquisition.index, self.number, b)
        rng = generator(self.options.seed, Stream.PLANET, *key)
        image = image * np.float32(self.acquisition.gain[b])
        image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(dove.NOISE)
        if self.acquisition.bands[b] == "green":
            image[self._lost()] = 0.0
        return image

    def _lost(self) -> slice:
        """Rows whose green band was lost in the downlink; empty for most passes."""
        if not self.acquisition.stripes:
            return slice(0, 0)
        rows = (self.bounds[3] - self.bounds[1]) // RESOLUTION
        return slice(rows // 3, rows // 3 + 12)

    def item(self, mask: NDArray[np.uint8], seen: NDArray[np.bool_]) -> dict[str, Any]:
        """The STAC item, hrefs relative to its own folder; percentages of what was seen."""
        outline = project(self.acquisition.strip.outline(self.bounds), EPSG, 4326)
        left, _, _, top = self.bounds
        elevation, azimuth = sun(self.time)
        share = {name: round(float(mask[b][seen].mean()) * 100) for b, name in enumerate(UDM2[:6])}
        properties = {
            "datetime": self.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "constellation": "planetscope",
            "platform": self.acquisition.satellite,
            "instruments": ["PSB.SD" if self.acquisition.bands == BANDS8 else "PS2"],
            "gsd": 3.7,
            "eo:cloud_cover": share["cloud"],
            "eo:snow_cover": share["snow"],
            "view:sun_azimuth": round(azimuth, 1),
            "view:sun_elevation": round(elevation, 1),
            "proj:epsg": EPSG,
            "proj:bbox": list(self.bounds),
            "proj:shape": list(seen.shape),
            "proj:transform": [RESOLUTION, 0, left, 0, -RESOLUTION, top, 0, 0, 1],
            "pl:item_type": "PSScene",
            "pl:strip_id": f"{6_000_000 + self.acquisition.index}",
            "pl:clear_percent": share["clear"],
            "pl:pixel_resolution": RESOLUTION,
            "pl:quality_category": "standard",
            "pl:publishing_stage": "finalized",
        }
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": _EXTENSIONS,
            "id": self.id,
            "geometry": mapping(outline),
            "bbox": [round(v, 7) for v in outline.bounds],
            "properties": properties,
            "links": [],
            "assets": self._assets(),
            "collection": COLLECTION,
        }

    def _assets(self) -> dict[str, Any]:
        bands = self.acquisition.bands
        name = f"ortho_analytic_{len(bands)}b"
        assets = {f"{name}_sr": _image(f"{name}_sr", dict.fromkeys(bands, SR_SCALE))}
        if bands == BANDS4:
            assets[name] = _image(name, self.toa_scale)
        return {**assets, "ortho_udm2": _udm2()}


def jobs(options: SimulationOptions) -> list[Job]:
    """The scenes of all passes over the world of `options`, place by place."""
    bounds = world(options).landscape.bounds
    passes = make_passes(options, bounds)
    # Pixels lie at multiples of 3 m, inside the world.
    left, bottom, right, top = bounds
    whole = (
        -(-left // RESOLUTION) * RESOLUTION,
        -(-bottom // RESOLUTION) * RESOLUTION,
        right // RESOLUTION * RESOLUTION,
        top // RESOLUTION * RESOLUTION,
    )
    scenes = [
        Scene(options, acquisition, number, tile)
        for number, tile in enumerate(pieces(whole, TILE * RESOLUTION))
        for acquisition in passes
    ]
    # A sliver at the edge of a strip is not delivered as a scene.
    return [s for s in scenes if s.acquisition.strip.outline(s.bounds).area > 10_000]


def _image(name: str, scales: dict[str, float]) -> dict[str, Any]:
    raster = {"nodata": 0, "data_type": "uint16", "spatial_resolution": RESOLUTION}
    return {
        "href": f"./{name}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "pl:asset_type": name,
        "pl:bundle_type": "analytic_sr" if name.endswith("_sr") else "analytic",
        "roles": ["data", "reflectance"],
        "raster:bands": [{**raster, "scale": scale} for scale in scales.values()],
        "eo:bands": [
            {
                "name": band,
                "common_name": _COMMON.get(band, band),
                "center_wavelength": dove.WAVELENGTH[band] / 1000,
            }
            for band in scales
        ],
    }


def _udm2() -> dict[str, Any]:
    return {
        "href": "./ortho_udm2.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "pl:asset_type": "ortho_udm2",
        "roles": ["data", "snow-ice", "cloud", "cloud-shadow"],
        "raster:bands": [{"data_type": "uint8", "spatial_resolution": RESOLUTION}] * len(UDM2),
        "eo:bands": [
            {"name": f"B{b}", "description": text} for b, text in enumerate(_UDM2_HELP, start=1)
        ],
    }
