"""What a PlanetScope satellite measures: its bands, its own sky, the usable data mask (UDM2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcengine.simulate.streams import Stream, generator, smooth_field

Field = NDArray[np.float32]
Metres = NDArray[np.float64]

BANDS8 = (
    "coastal", "blue", "green1", "green", "yellow", "red", "rededge1", "nir",
)  # fmt: skip
BANDS4 = ("blue", "green", "red", "nir")
WAVELENGTH = dict(zip(BANDS8, (443, 490, 531, 565, 610, 665, 705, 865), strict=True))
"""Centre wavelengths in nanometres of SuperDove (PSB.SD)."""
MIXTURE: Mapping[str, Mapping[str, float]] = {
    "coastal": {"blue": 0.92},
    "blue": {"blue": 1.0},
    "green1": {"blue": 0.41, "green": 0.59},
    "green": {"green": 1.0},
    "yellow": {"green": 0.52, "red": 0.48},
    "red": {"red": 1.0},
    "rededge1": {"rededge1": 1.0},
    "nir": {"nir08": 1.0},
}
"""Each band from the landscape's Sentinel-2 bands, linear in wavelength between the two around."""

UDM2 = ("clear", "snow", "shadow", "light_haze", "heavy_haze", "cloud", "confidence", "unusable")
"""The eight bands of `ortho_udm2`, in order."""
BLACKFILL, SUSPECT = 1 << 0, 1 << 3
"""Bits of `unusable`: 0 for no data, 3 for the second band (of four: green) missing or suspect."""

_PERIOD, _STEP = 768, 30.0
"""Pixels and metres per pixel of the periodic fields that the sky is cut from (23 km)."""
_CLOUD = dict(zip(BANDS8, (0.74, 0.72, 0.71, 0.70, 0.70, 0.70, 0.71, 0.74), strict=True))
_HAZE = dict(zip(BANDS8, (0.48, 0.46, 0.44, 0.43, 0.42, 0.42, 0.42, 0.42), strict=True))
_HAZE_STRENGTH = dict(zip(BANDS8, (1.1, 1.0, 0.95, 0.92, 0.88, 0.84, 0.80, 0.69), strict=True))
_SHADOW_STRENGTH = dict(zip(BANDS8, (0.42, 0.45, 0.5, 0.52, 0.55, 0.58, 0.6, 0.65), strict=True))
NOISE = 0.0025
"""Standard deviation of the sensor noise in reflectance; more than Sentinel-2's (Frazier &
Hemingway 2021, Remote Sensing 13, 3930, review what small satellites give up)."""


@dataclass(frozen=True)
class DoveSky:
    """Opacities 0 to 1, float32, on the pixels of one scene."""

    cloud: Field
    haze: Field
    shadow: Field

    def seen_through(self, band: str, ground: Field) -> Field:
        """Reflectance as the satellite sees it, float32."""
        haze = np.minimum(self.haze * np.float32(_HAZE_STRENGTH[band]), 1.0)
        lit = ground * (1.0 - self.shadow * np.float32(_SHADOW_STRENGTH[band]))
        veiled = lit * (1.0 - haze) + haze * np.float32(_HAZE[band])
        return np.asarray(
            veiled * (1.0 - self.cloud) + self.cloud * np.float32(_CLOUD[band]), dtype=np.float32
        )


@dataclass(frozen=True)
class Weather:
    """The sky of one pass: how much cloud and haze, where, and how far shadows fall.

    `cloudy` and `hazy` are shares of the sky; `shift` moves the fields (metres); `fall` is the
    displacement of shadows (metres east, north).
    """

    cloudy: float
    hazy: float
    shift: tuple[float, float]
    fall: tuple[float, float]


@dataclass(frozen=True)
class SkyFields:
    """Periodic fields of a seed, from which every pass cuts its sky; any world size, one memory."""

    cloud: Field
    haze: Field
    patches: Field

    def sky(self, weather: Weather, x: Metres, y: Metres) -> DoveSky:
        """The sky over pixel centres `x` (columns) and `y` (rows), in metres."""
        east, north = weather.shift
        cloud = self._cloud(weather, x + east, y + north)
        over = self._cloud(weather, x + east - weather.fall[0], y + north - weather.fall[1])
        haze = np.zeros_like(cloud)
        if weather.hazy > 0:
            veil = periodic(self.haze, x + north, y + east)
            haze = 0.45 * (1.0 - np.exp(-1.6 * _above(self.haze, veil, weather.hazy)))
        return DoveSky(cloud, np.asarray(haze, dtype=np.float32), over)

    def _cloud(self, weather: Weather, x: Metres, y: Metres) -> Field:
        if weather.cloudy <= 0:
            return np.zeros((y.size, x.size), np.float32)
        field = periodic(self.cloud, x, y)
        opacity = 1.0 - np.exp(-6.0 * _above(self.cloud, field, weather.cloudy))
        return np.asarray(opacity, dtype=np.float32)


def _above(whole: Field, field: Field, share: float) -> Field:
    """How far a field lies above the value that `share` of the whole exceeds."""
    limit = np.float32(np.quantile(whole, 1.0 - share))
    return np.asarray(np.maximum(field - limit, 0.0), dtype=np.float32)


def periodic(field: Field, x: Metres, y: Metres) -> Field:
    """A periodic field (n, n) with pixels of 30 m, bilinear at columns `x` and rows `y` (metres).

    Separable: rows and columns are interpolated one after the other.
    """
    n = field.shape[0]
    i, u = _places(x, n)
    j, v = _places(y, n)
    rows = field[j] * (1 - v)[:, None] + field[(j + 1) % n] * v[:, None]
    return np.asarray(rows[:, i] * (1 - u) + rows[:, (i + 1) % n] * u, dtype=np.float32)


def _places(metres: Metres, n: int) -> tuple[NDArray[np.intp], Field]:
    position = metres / _STEP
    lower = np.floor(position)
    return (lower % n).astype(np.intp), (position - lower).astype(np.float32)


def make_sky_fields(seed: int) -> SkyFields:
    """The fields of a seed."""
    rng = generator(seed, Stream.PLANET_SKY)
    return SkyFields(
        cloud=smooth_field(rng, _PERIOD, scale=30.0, decay=2.6, whole=True),
        haze=smooth_field(rng, _PERIOD, scale=60.0, decay=3.0, whole=True),
        patches=smooth_field(rng, _PERIOD, scale=14.0, decay=2.4, whole=True),
    )


def usable_data_mask(
    sky: DoveSky, snow: NDArray[np.bool_], seen: NDArray[np.bool_], error: Field
) -> NDArray[np.uint8]:
    """UDM2, uint8 (8, y, x), in the order of `UDM2`.

    Every pixel that was seen is exactly one of clear, snow, shadow, haze and cloud. The classes
    follow opacities that `error` (standard normal patches) blurs, so thin cloud and shadow are
    missed in patches and bright pixels are never spared: the mask errs as a fallible one does.
    `confidence` falls where the opacity is close to a class limit. Limits: cloud from 0.5, heavy
    haze from 0.25, light haze from 0.08, shadow from 0.3.
    """
    blur = error * np.float32(0.06)
    opacity = 1.0 - (1.0 - sky.cloud) * (1.0 - sky.haze) + blur
    dark = sky.shadow + blur
    out = np.zeros((len(UDM2), *snow.shape), np.uint8)
    cloud = opacity >= 0.5
    heavy = (opacity >= 0.25) & ~cloud
    light = (opacity >= 0.08) & ~cloud & ~heavy & (sky.haze + sky.cloud > 0)
    shadow = (dark >= 0.3) & ~cloud & ~heavy & ~light
    white = snow & ~cloud & ~heavy & ~light & ~shadow
    clear = ~(cloud | heavy | light | shadow | white)
    for band, found in zip(
        ("clear", "snow", "shadow", "light_haze", "heavy_haze", "cloud"),
        (clear, white, shadow, light, heavy, cloud),
        strict=True,
    ):
        out[UDM2.index(band)] = found
    margin = np.full(snow.shape, 1.0, np.float32)
    for limit in (0.08, 0.25, 0.5):
        np.minimum(margin, np.abs(opacity - np.float32(limit)), out=margin)
    out[UDM2.index("confidence")] = np.clip(50 + 400 * margin, 50, 98)
    out[:, ~seen] = 0
    out[UDM2.index("unusable")] = np.where(seen, 0, BLACKFILL)
    return out


def encode(reflectance: Field, seen: NDArray[np.bool_], scale: float) -> NDArray[np.uint16]:
    """Digital numbers, uint16: reflectance / scale, at least 1; 0 where nothing was seen."""
    dn: NDArray[np.uint16] = np.clip(np.rint(reflectance / np.float32(scale)), 1, 65535).astype(
        np.uint16
    )
    dn[~seen] = 0
    return dn
