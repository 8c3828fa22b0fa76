"""Scores of observations, float32, from which `lcengine.kernels.select` chooses.

Stored values are taken as float32 plus `origin`, and every step is one float32 operation in the
order written, so that NumPy's float32 gives the same bits.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcengine.errors import InputError
from lcengine.kernels._jit import kernel
from lcengine.kernels.methods import YEAR, season_sides

BLUE: Final = 0
HOT: Final = 1
NDVI: Final = 2
NDWI: Final = 3
RATIO: Final = 4

EDGE_SCORE: Final = 0.01  # of a day at either end of the season

_ONE: Final = np.float32(1.0)
_HALF: Final = np.float32(0.5)
_HAZE: Final = np.float32(0.08)  # reflectance, the offset of HOT
_DN: Final = np.float32(10_000.0)  # of reflectance 1, in which the haze score is defined
_HAZE_DN: Final = np.float32(800.0)
_HAZE_SHIFT: Final = np.float32(150.0)
_HAZE_SLOPE: Final = np.float32(0.05)
_CLOUD_SLOPE: Final = np.float32(10.0)

_LARGEST: Final = np.float32(87.0)  # e**87 and e**-87 are normal numbers
_LOG2_E: Final = np.float32(1.4426950408889634)
_LN2_HIGH: Final = np.float32(355 / 512)  # few bits, so that its multiples are exact
_LN2_LOW: Final = np.float32(math.log(2) - 355 / 512)
_BIAS: Final = np.int32(127)
_FRACTION_BITS: Final = np.int32(23)
_E2, _E3, _E4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
_E5, _E6, _E7 = np.float32(1 / 120), np.float32(1 / 720), np.float32(1 / 5040)


# --------------------------------------------------------------------------------------- indices


@kernel
def _blue(blue: NDArray[Any], origin: np.float32, out: NDArray[np.float32]) -> None:
    for p in range(out.size):
        out[p] = np.float32(blue[p]) + origin


@kernel
def _hot(
    blue: NDArray[Any],
    red: NDArray[Any],
    origin: np.float32,
    haze: np.float32,
    out: NDArray[np.float32],
) -> None:
    for p in range(out.size):
        b, r = np.float32(blue[p]) + origin, np.float32(red[p]) + origin
        out[p] = b - _HALF * r - haze


@kernel
def _normalised_difference(
    first: NDArray[Any], second: NDArray[Any], origin: np.float32, out: NDArray[np.float32]
) -> None:
    for p in range(out.size):
        a, b = np.float32(first[p]) + origin, np.float32(second[p]) + origin
        out[p] = (a - b) / (a + b)


@kernel
def _ratio(
    nir: NDArray[Any],
    swir: NDArray[Any],
    blue: NDArray[Any],
    origin: np.float32,
    out: NDArray[np.float32],
) -> None:
    for p in range(out.size):
        a, b = np.float32(nir[p]) + origin, np.float32(swir[p]) + origin
        out[p] = (a if a > b else b) / (np.float32(blue[p]) + origin)


@kernel
def index_score(  # noqa: PLR0913, PLR0917 - an index and its bands
    kind: int,
    raw: NDArray[Any],
    origin: np.float32,
    unit: np.float32,
    b0: int,
    b1: int,
    b2: int,
    out: NDArray[np.float32],
) -> None:
    """Write an index of every observation, (observation, pixel) float32.

    kind    b0, b1, b2 in `raw`     index
    BLUE    blue                    b0
    HOT     blue, red               b0 − 0.5·b1 − 0.08·unit (Zhu & Woodcock 2012)
    NDVI    nir, red                (b0 − b1)/(b0 + b1)
    NDWI    nir, swir16             (b0 − b1)/(b0 + b1)
    RATIO   nir, swir16, blue       max(b0, b1)/b2

    Bands that an index lacks are not looked at. Division by zero gives NaN or infinity.

    unit: value of reflectance 1.
    """
    haze = _HAZE * unit
    for o in range(out.shape[0]):
        if kind == BLUE:
            _blue(raw[b0, o], origin, out[o])
        elif kind == HOT:
            _hot(raw[b0, o], raw[b1, o], origin, haze, out[o])
        elif kind == RATIO:
            _ratio(raw[b0, o], raw[b1, o], raw[b2, o], origin, out[o])
        else:
            _normalised_difference(raw[b0, o], raw[b1, o], origin, out[o])


# -------------------------------------------------------------------------- best available pixel


class BapTerms(NamedTuple):
    """Weights of the best-available-pixel score over their sum, see `bap_terms`.

    season: (observation,) float32, the day's and the year's part of the score.
    cloud, haze: shares of the scores by pixel. reach: metres D beyond which a cloud is far.
    """

    season: NDArray[np.float32]
    cloud: np.float32
    haze: np.float32
    reach: np.float32


def bap_terms(
    day: NDArray[np.float64],
    year: NDArray[np.float64],
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 0.4, 0.3),
    reach: float = 3000.0,
) -> BapTerms:
    """Weigh the scores of best-available-pixel compositing.

    Args:
        day: (observation,) scores 0..1 of `season_score`.
        year: (observation,) scores 0..1 of `year_score`.
        weights: of the day of year, the year, the distance to clouds and haze; defaults of FORCE.
        reach: distance in metres at which a cloud no longer matters.

    Raises:
        InputError: a negative weight, all weights zero, or reach not positive.
    """
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise InputError(
            f"got weights {weights}, expected four numbers not below 0, one of them above"
        )
    if not 0 < reach < math.inf:
        raise InputError(f"got a cloud distance of {reach!r} m, expected more than 0")
    shares = np.array(weights) / sum(weights)
    return BapTerms(
        (shares[0] * day + shares[1] * year).astype(np.float32),
        np.float32(shares[2]),
        np.float32(shares[3]),
        np.float32(reach),
    )


def season_score(days: ArrayLike, target: float, low: float, high: float) -> NDArray[np.float64]:
    """Score days of the year by a split Gaussian: 1 at the target, 0.01 at low and at high.

    Griffiths et al. 2013, JSTARS 6(5), 2088-2101. The season runs from low over target to high and
    may cross the year's end, as 300, 350, 30. A day outside counts from its nearer side.

    Args:
        days: (observation,) days of the year, 1..366.
        target: best day of the year.
        low: day of the year at the season's start.
        high: day of the year at its end.

    Raises:
        InputError: low, target and high do not follow each other within a year.
    """
    before, after = season_sides(target, low, high)
    day = np.asarray(days, np.float64)
    early, late = (target - day) % YEAR / before, (day - target) % YEAR / after
    score: NDArray[np.float64] = EDGE_SCORE ** np.minimum(early, late) ** 2
    return score


def year_score(
    years: ArrayLike, target: int, *, span: int = 2, trade_off: float = 0.75
) -> NDArray[np.float64]:
    """Score years: 1 in the target year, 0.01 at (span + 1)·trade_off years from it, a Gaussian.

    The year score of FORCE (Frantz et al. 2017, Remote Sensing of Environment), whose Gaussian is
    that of the days with a year as long as the season's side over (span + 1)·trade_off.

    Args:
        years: (observation,) calendar years.
        target: the year of the product.
        span: years to either side that are composited.
        trade_off: below 1 favours the target year, above it the target day.

    Raises:
        InputError: span negative or trade_off not positive.
    """
    if span < 0 or not 0 < trade_off < math.inf:
        raise InputError(
            f"got span {span} and trade-off {trade_off!r}, expected 0 or more and more than 0"
        )
    away = (np.asarray(years, np.float64) - target) / ((span + 1) * trade_off)
    score: NDArray[np.float64] = EDGE_SCORE**away**2
    return score


@kernel
def exp32(x: np.float32) -> np.float32:
    """e**x within 1e-7 of its value, from −87 to 87.

    float32 operations alone: the same bits on every machine, and SIMD, unlike a library's function.
    """
    n = np.rint(x * _LOG2_E)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    series = ((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2
    power = np.int32((np.int32(n) + _BIAS) << _FRACTION_BITS).view(np.float32)
    return np.float32((series * (r * r) + r + _ONE) * power)


@kernel
def _falling(x: np.float32) -> np.float32:
    """1/(1 + e**x)."""
    bounded = x if x < _LARGEST else _LARGEST  # also NaN, which has no integer in `exp32`
    bounded = bounded if bounded > -_LARGEST else -_LARGEST
    return np.float32(_ONE / (_ONE + exp32(bounded)))


@kernel
def _add_haze(
    blue: NDArray[Any],
    red: NDArray[Any],
    origin: np.float32,
    unit: np.float32,
    share: np.float32,
    out: NDArray[np.float32],
) -> None:
    scale = _DN / unit
    for p in range(out.size):
        b, r = np.float32(blue[p]) + origin, np.float32(red[p]) + origin
        hot = (b - _HALF * r) * scale - _HAZE_DN
        out[p] += share * _falling(_HAZE_SLOPE * (hot + _HAZE_SHIFT))


@kernel
def _add_cloud(
    distance: NDArray[Any], reach: np.float32, share: np.float32, out: NDArray[np.float32]
) -> None:
    slope, middle = -_CLOUD_SLOPE / reach, reach * _HALF
    for p in range(out.size):
        out[p] += share * _falling(slope * (np.float32(distance[p]) - middle))


@kernel
def bap_score(  # noqa: PLR0913, PLR0917 - a score and its inputs
    raw: NDArray[Any],
    origin: np.float32,
    unit: np.float32,
    blue: int,
    red: int,
    terms: BapTerms,
    distance: NDArray[Any],
    out: NDArray[np.float32],
) -> None:
    """Write the best-available-pixel score, 0..1, (observation, pixel) float32.

    The weighted mean of scores of the day, the year, the distance d to the nearest cloud,
    1/(1 + exp(−10/D·(d − D/2))), and haze, 1/(1 + exp(0.05·(HOT + 150))) with
    HOT = blue − 0.5·red − 800 in reflectance × 10000. Griffiths et al. 2013, JSTARS 6(5),
    2088-2101; Frantz et al. 2017 (FORCE). Within 1e-6 of the exact value.

    distance: (observation, pixel) uint16 or float32 metres; not read where its share is zero.
    """
    for o in range(out.shape[0]):
        row = out[o]
        row[:] = terms.season[o]
        if terms.haze > 0:
            _add_haze(raw[blue, o], raw[red, o], origin, unit, terms.haze, row)
        if terms.cloud > 0:
            _add_cloud(distance[o], terms.reach, terms.cloud, row)
