"""What C band radar sees of the ground: VV and VH of every class through the seasons, and speckle.

Backscatter σ0 of a unit is that of a water cloud (Attema & Ulaby 1978, Radio Science 13, 357): the
ground shines through a canopy whose depth grows with the green cover,
`canopy·(1 - exp(-depth·green)) + ground·exp(-depth·green)` in linear power. The ground follows the
moisture of the soil. `PLAUSIBLE` holds the ranges that the simulated world is tested against, each
with its source; `SCATTERERS` was chosen to lie inside them.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gammaincinv, ndtr

from lcengine.simulate.streams import Stream, generator

Pair = tuple[float, float]
Field = NDArray[np.float32]

POLARISATIONS = ("vv", "vh")
REFERENCE_ANGLE = 38.0
"""Incidence in degrees at which the tables hold."""
REFERENCE_MOISTURE = 20.0
"""Volumetric soil moisture in percent at which they hold."""
LOOKS = 4.4
"""Equivalent number of looks of a GRD high-resolution IW image (Sentinel-1 product definition)."""


@dataclass(frozen=True)
class Scatterer:
    """σ0 in dB of one class as (VV, VH) pairs, at the reference angle and moisture."""

    ground: Pair
    canopy: Pair
    depth: Pair = (1.5, 1.5)
    """Two-way optical depth of a closed green canopy."""
    moisture: Pair = (0.25, 0.17)
    """dB per percent of soil moisture; over bare soil of the size that retrievals at C band find
    (El Hajj et al. 2017, Remote Sensing 9, 1292)."""
    slope: float = -0.13
    """dB per degree of incidence; linear as in Bauer-Marschallinger et al. 2019 (TGRS 57, 520)."""
    spread: float = 0.6
    """Standard deviation in dB between units of the class."""
    facing: float = 0.0
    """Standard deviation in dB of what depends on the side a unit is seen from."""
    wind: float = 0.0
    """Standard deviation in dB of what changes from pass to pass."""


_SOIL: Pair = (-10.2, -18.6)
_WINTER_SOIL: Pair = (-12.0, -20.0)
"""A fine seedbed that a winter has settled."""

SCATTERERS: Mapping[str, Scatterer] = {
    "winter wheat": Scatterer(_WINTER_SOIL, (-19.5, -23.5), (3.2, 2.6)),
    "winter barley": Scatterer(_WINTER_SOIL, (-18.0, -22.5), (2.8, 2.2)),
    "winter rapeseed": Scatterer(_SOIL, (-9.6, -13.2), (1.4, 3.0)),
    "maize": Scatterer(_SOIL, (-9.5, -14.9), (1.2, 2.6)),
    "sugar beet": Scatterer(_SOIL, (-9.1, -14.9), (1.3, 2.4)),
    "potato": Scatterer(_SOIL, (-9.0, -14.6), (1.3, 2.6)),
    "sunflower": Scatterer(_SOIL, (-8.9, -14.3), (1.3, 2.6)),
    "soya": Scatterer(_SOIL, (-10.2, -15.6), (1.2, 2.2)),
    "grassland": Scatterer((-11.0, -18.6), (-10.6, -17.0), (0.9, 1.4), (0.15, 0.10)),
    "shrubland": Scatterer((-11.5, -18.0), (-10.4, -15.8), (1.4, 1.6), (0.08, 0.05)),
    "savanna": Scatterer((-11.6, -18.8), (-10.6, -16.4), (1.0, 1.4), (0.14, 0.10)),
    "wetland": Scatterer((-9.2, -18.0), (-9.8, -16.6), (0.8, 1.2), (0.05, 0.03), spread=1.0),
    "deciduous forest": Scatterer(
        (-9.0, -13.3), (-9.8, -14.6), (1.6, 1.6), (0.03, 0.02), slope=-0.08, spread=0.4
    ),
    "evergreen forest": Scatterer(
        (-9.4, -14.2), (-9.4, -14.2), (1.6, 1.6), (0.03, 0.02), slope=-0.08, spread=0.4
    ),
    "barren": Scatterer((-13.0, -21.5), (-12.0, -19.0), (0.5, 0.5), (0.12, 0.08)),
    "fallow": Scatterer((-10.8, -19.4), (-10.8, -18.0), (0.5, 0.5)),
    "snow and ice": Scatterer((-14.5, -21.5), (-14.5, -21.5), (0.0, 0.0), (0.0, 0.0), spread=1.0),
    "built-up": Scatterer(
        (-4.2, -13.4), (-6.0, -14.0), (0.5, 0.5), (0.02, 0.02), -0.05, spread=1.6, facing=1.4
    ),
    "water": Scatterer(
        (-19.5, -27.0), (-19.5, -27.0), (0.0, 0.0), (0.0, 0.0), -0.25, spread=0.3, wind=1.5
    ),
}
"""By class name of `LEGEND`."""


@dataclass(frozen=True)
class Range:
    """Where class means of σ0 in dB, for VV and for VH, lie between two days of a year."""

    name: str
    days: tuple[int, int]
    vv: Pair
    vh: Pair
    source: str


_VELOSO = "Veloso et al. 2017, Remote Sensing of Environment 199, 415 (south-west France)"
_VREUGDENHIL = "Vreugdenhil et al. 2018, Remote Sensing 10, 1396 (Austria)"
_KHABBAZAN = "Khabbazan et al. 2019, Remote Sensing 11, 1887 (the Netherlands)"
_HARFENMEISTER = "Harfenmeister et al. 2019, Remote Sensing 11, 1569 (north-east Germany)"
_RUETSCHI = "Ruetschi et al. 2018, Remote Sensing 10, 55 (mixed forest, Switzerland)"
_TWELE = "Twele et al. 2016, International Journal of Remote Sensing 37, 2990 (open water)"
_LIKE = "in keeping with "
_FLANDERS = "monthly means of 159 Sentinel-1 dates over labelled fields in Flanders, 2017-2018"

PLAUSIBLE: tuple[Range, ...] = (
    Range("winter wheat", (60, 75), (-15.0, -11.0), (-24.0, -19.0), _HARFENMEISTER),
    Range("winter wheat", (140, 155), (-20.0, -18.0), (-24.0, -22.0), _HARFENMEISTER),
    Range("winter barley", (120, 150), (-19.5, -13.5), (-24.5, -18.5), _LIKE + _HARFENMEISTER),
    Range("winter rapeseed", (125, 160), (-12.0, -8.0), (-15.5, -11.5), _LIKE + _VREUGDENHIL),
    Range("maize", (95, 135), (-13.0, -8.0), (-21.5, -16.0), _FLANDERS),
    Range("maize", (200, 240), (-12.0, -7.5), (-17.5, -13.0), _FLANDERS),
    Range("sugar beet", (200, 270), (-12.0, -7.0), (-17.5, -13.0), _LIKE + _KHABBAZAN),
    Range("sunflower", (190, 215), (-12.0, -7.0), (-17.5, -12.5), _LIKE + _VELOSO),
    Range("soya", (205, 235), (-13.0, -8.0), (-18.5, -13.5), _LIKE + _VELOSO),
    Range("potato", (185, 215), (-12.0, -7.0), (-17.5, -13.0), _LIKE + _KHABBAZAN),
    Range("grassland", (100, 300), (-13.0, -8.5), (-19.5, -15.5), _FLANDERS),
    Range("deciduous forest", (150, 260), (-12.0, -8.0), (-17.0, -13.5), _LIKE + _RUETSCHI),
    Range("deciduous forest", (1, 90), (-11.0, -7.5), (-15.0, -12.5), _LIKE + _RUETSCHI),
    Range("evergreen forest", (1, 365), (-12.0, -7.5), (-16.5, -12.5), _LIKE + _RUETSCHI),
    Range("built-up", (1, 365), (-8.0, -1.0), (-16.0, -10.5), _FLANDERS),
    Range("water", (1, 365), (-26.0, -15.5), (-32.0, -22.5), _LIKE + _TWELE),
    Range("fallow", (100, 300), (-15.0, -7.0), (-23.0, -15.5), _LIKE + _VELOSO),
)
"""Ranges of class means; what single units and single pixels scatter around them is not included.

Those of wheat are figures that the paper states, those of Flanders were measured (a test does it
again). Those "in keeping with" a paper are generous round ranges of our own that respect the
courses it shows; they are not figures of that paper.
"""


def sigma_nought(
    names: list[str], index: NDArray[np.integer], green: Field, moisture: float
) -> dict[str, Field]:
    """Mean σ0 in linear power, float32 (unit,), of VV and VH at the reference angle.

    `index` (unit,) points into `names`, the class names; `green` is the green cover 0 to 1;
    `moisture` of the soil in percent. Raises KeyError for a class without a scatterer.
    """
    table = [SCATTERERS[name] for name in names]
    wetter = moisture - REFERENCE_MOISTURE
    out = {}
    for p, polarisation in enumerate(POLARISATIONS):
        ground = np.array([s.ground[p] + s.moisture[p] * wetter for s in table])
        canopy = np.array([s.canopy[p] for s in table])
        depth = np.array([s.depth[p] for s in table])
        through = np.exp(-depth[index] * green)
        power = _power(canopy)[index] * (1.0 - through) + _power(ground)[index] * through
        out[polarisation] = power.astype(np.float32)
    return out


def _power(decibel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10.0 ** (decibel / 10.0))


def per_class(names: list[str], attribute: str) -> Field:
    """One number of every class's scatterer, float32, such as its `slope`."""
    return np.array([getattr(SCATTERERS[name], attribute) for name in names], dtype=np.float32)


@lru_cache(maxsize=16)
def _year_of_moisture(seed: int, year: int) -> NDArray[np.float32]:
    """Daily soil moisture in percent of a year: rain fills, drying empties, faster in summer.

    Worked out from a year before, whose start is forgotten after a few months, so that one year
    goes on where the last one ended.
    """
    rain = np.concatenate([_rain(seed, y) for y in (year - 1, year)])
    day_of_year = np.concatenate([np.arange(_days(y)) for y in (year - 1, year)])
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (day_of_year - 15) / 365)
    kept = np.exp(-1.0 / (26.0 - 14.0 * summer))
    level, out = 24.0, np.empty(rain.size, np.float32)
    for day in range(rain.size):
        level = min(7.0 + (level - 7.0) * kept[day] + 0.30 * rain[day], 38.0)
        out[day] = level
    return out[-_days(year) :]


def _rain(seed: int, year: int) -> NDArray[np.float64]:
    """Millimetres of rain on every day of a year."""
    rng = generator(seed, Stream.SOIL, year)
    wet, amount = rng.random(366) < 0.36, rng.exponential(6.0, 366)
    return np.where(wet, amount, 0.0)[: _days(year)]


def _days(year: int) -> int:
    return 366 if isleap(year) else 365


def soil_moisture(when: date, seed: int) -> float:
    """Volumetric soil moisture of the top soil in percent on a day, the same for every field."""
    return float(_year_of_moisture(seed, when.year)[when.timetuple().tm_yday - 1])


@lru_cache(maxsize=1)
def _speckle_quantiles() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Standard normal values and the unit-mean gamma values of the same probability."""
    normal = np.linspace(-5.5, 5.5, 4097)
    return normal.astype(np.float32), (gammaincinv(LOOKS, ndtr(normal)) / LOOKS).astype(np.float32)


def speckle(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Multiplicative speckle in power, float32: gamma of mean 1 and `LOOKS` looks.

    Neighbours correlate because pixels of 10 m sample a resolution of about 20 m: a Gaussian field
    of that correlation is mapped to the gamma distribution (Goodman 1976, JOSA 66, 1145).
    """
    sigma = 0.75
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    field /= _smoothed_deviation(sigma)
    normal, gamma = _speckle_quantiles()
    return np.asarray(np.interp(field, normal, gamma), dtype=np.float32)


@lru_cache(maxsize=4)
def _smoothed_deviation(sigma: float) -> np.float32:
    """Standard deviation of white noise after the filter of `speckle`."""
    impulse = np.zeros((33, 33))
    impulse[16, 16] = 1.0
    return np.float32(np.sqrt(np.square(gaussian_filter(impulse, sigma)).sum()))
