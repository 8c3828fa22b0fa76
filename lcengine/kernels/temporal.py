"""Features of a strip of pixels: bands and indices as float32, gaps, statistics over time.

Arrays are (time, pixel), C order, one strip at a time; NaN is missing. Inner loops run over pixels,
sums are float64 in the order of time, so a pixel's bits do not depend on its neighbours.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

FLOAT = npt.NDArray[np.float32]
DOUBLE = npt.NDArray[np.float64]
INT = npt.NDArray[np.int64]

_NAN: Final = np.float32(np.nan)
_INF: Final = np.float32(np.inf)
_ZERO: Final = np.float32(0)
_HALF_DECADE: Final = math.log2(10) / 10
_EXPONENT: Final = 100  # of 2: 300 dB, and far from what float32 holds
_POWERS: Final = 2.0 ** np.arange(-_EXPONENT, _EXPONENT + 1)
_SERIES: Final = np.array([math.log(2) ** k / math.factorial(k) for k in range(15)][::-1])


@kernel
def load(
    values: npt.NDArray[Any], band: int, start: int, missing: Any, scale: np.float32, out: FLOAT
) -> None:
    """Stored numbers times scale, of the pixels from `start` on.

    `values`: (time, band, pixel), any number. `missing`: an array of none or one of their type.
    """
    fills = missing.size > 0
    fill = missing[0] if fills else values[0, band, start]
    for t in range(out.shape[0]):
        row = values[t, band]
        for p in range(out.shape[1]):
            stored = row[start + p]
            value = np.float32(stored) * scale
            gone = (fills & (stored == fill)) | (value - value != _ZERO)
            out[t, p] = _NAN if gone else value


@kernel
def to_power(decibels: FLOAT, out: FLOAT) -> None:
    """10 ** (dB / 10), within a unit of the last place: the same bits wherever a pixel lies.

    The exponential of the C library differs between its scalar and its vector form; here it is
    2 ** whole part by table times the Taylor series of the rest, in float64.
    """
    for t in range(out.shape[0]):
        for p in range(out.shape[1]):
            exponent = np.float64(decibels[t, p]) * _HALF_DECADE
            gone = np.isnan(exponent)
            within = 0.0 if gone else min(max(exponent, -_EXPONENT), _EXPONENT)
            whole = np.floor(within + 0.5)
            rest = within - whole
            value = 0.0
            for k in range(_SERIES.size):
                value = value * rest + _SERIES[k]
            power = np.float32(value * _POWERS[np.int64(whole) + _EXPONENT])
            out[t, p] = _NAN if gone else power


@kernel
def fraction(
    bands: FLOAT, which: INT, over: FLOAT, under: FLOAT, limits: FLOAT, out: FLOAT
) -> None:
    """Weighted sums of bands (band, time, pixel) over one another, clipped; float32 throughout.

    `over`, `under`: a constant, then the weights of the bands `which`. 0 where the denominator is,
    NaN where one of these bands is missing.
    """
    n = out.shape[1]
    bottom = np.empty(n, np.float32)
    low, high = limits[0], limits[1]
    for t in range(out.shape[0]):
        top = out[t]
        top[:] = over[0]
        bottom[:] = under[0]
        for i in range(which.size):
            row, a, b = bands[which[i], t], over[i + 1], under[i + 1]
            for p in range(n):
                top[p] += a * row[p]
                bottom[p] += b * row[p]
        for p in range(n):
            value = top[p] * _ZERO if bottom[p] == _ZERO else top[p] / bottom[p]
            value = low if value < low else value
            top[p] = high if value > high else value


@kernel
def count(series: FLOAT, out: INT) -> None:
    """How many there are, per pixel."""
    out[:] = 0
    for t in range(series.shape[0]):
        for p in range(out.size):
            out[p] += series[t, p] == series[t, p]


@kernel
def fill_gaps(series: FLOAT, days: DOUBLE, out: FLOAT) -> None:
    """Missing values from a line in time between their neighbours, at the ends the nearest one."""
    times = series.shape[0]
    for t in range(times):  # an assignment of the whole takes seconds to compile
        for p in range(series.shape[1]):
            out[t, p] = series[t, p]
    for p in range(series.shape[1]):
        last = -1
        for t in range(times):
            value = series[t, p]
            if np.isnan(value):
                continue
            for u in range(last + 1, t):
                if last < 0:
                    out[u, p] = value
                else:
                    before = np.float64(series[last, p])
                    span = days[t] - days[last]
                    share = (days[u] - days[last]) / span if span > 0 else 0.0
                    out[u, p] = np.float32(before + (np.float64(value) - before) * share)
            last = t
        if last >= 0:
            for u in range(last + 1, times):
                out[u, p] = series[last, p]


@kernel
def mean(series: FLOAT, seen: INT, out: DOUBLE) -> None:
    """Mean of what is there; NaN of nothing."""
    out[:] = 0.0
    for t in range(series.shape[0]):
        for p in range(out.size):
            value = series[t, p]
            out[p] += np.float64(_ZERO if np.isnan(value) else value)
    for p in range(out.size):
        out[p] /= seen[p]


@kernel
def deviation(series: FLOAT, seen: INT, centre: DOUBLE, out: FLOAT) -> None:
    """Standard deviation (of a population) around `centre`."""
    squares = np.zeros(out.size)
    for t in range(series.shape[0]):
        for p in range(out.size):
            away = np.float64(series[t, p]) - centre[p]
            squares[p] += 0.0 if np.isnan(away) else away * away
    for p in range(out.size):
        out[p] = np.float32(math.sqrt(squares[p] / seen[p]))


@kernel
def slope(series: FLOAT, seen: INT, years: DOUBLE, centre: DOUBLE, out: FLOAT) -> None:
    """Least-squares slope per year; 0 of fewer than two moments. `centre`: the mean."""
    n = out.size
    middle, both, own = np.zeros(n), np.zeros(n), np.zeros(n)
    for t in range(series.shape[0]):
        for p in range(n):
            value = series[t, p]
            middle[p] += 0.0 if np.isnan(value) else years[t]
    for p in range(n):
        middle[p] /= seen[p]
    for t in range(series.shape[0]):
        for p in range(n):
            away = np.float64(series[t, p]) - centre[p]
            gone = np.isnan(away)
            time = years[t] - middle[p]
            both[p] += 0.0 if gone else time * away
            own[p] += 0.0 if gone else time * time
    for p in range(n):
        out[p] = np.float32(both[p] / own[p] if own[p] > 0.0 else 0.0)


@kernel
def rank(series: FLOAT, pairs: npt.NDArray[np.uint16], out: FLOAT) -> None:
    """Ascending per pixel, infinity at the end for what is missing.

    `pairs`: comparators of a network that sorts (`lcengine.kernels.networks`).
    """
    n = out.shape[1]
    for t in range(out.shape[0]):
        for p in range(n):
            value = series[t, p]
            out[t, p] = _INF if np.isnan(value) else value
    for i in range(pairs.shape[0]):
        lower, upper = out[pairs[i, 0]], out[pairs[i, 1]]
        for p in range(n):
            a, b = lower[p], upper[p]
            lower[p] = a if a < b else b
            upper[p] = b if a < b else a


@kernel
def quantile(ranked: FLOAT, seen: INT, share: float, out: FLOAT) -> None:
    """The value at a share 0 … 1 of the ranks, linear between two (NumPy's default); else NaN."""
    for p in range(out.size):
        if seen[p] == 0:
            out[p] = _NAN
            continue
        place = share * (seen[p] - 1)
        below = np.int64(place)
        above = min(below + 1, seen[p] - 1)
        low, high = np.float64(ranked[below, p]), np.float64(ranked[above, p])
        out[p] = np.float32(low + (high - low) * (place - below))


@kernel
def first(series: FLOAT, last: bool, out: FLOAT) -> None:
    """The first value in time that is there, or the last one."""
    times = series.shape[0]
    out[:] = _NAN
    for step in range(times):
        t = step if last else times - 1 - step  # what comes later in the loop stays
        for p in range(out.size):
            value = series[t, p]
            out[p] = out[p] if np.isnan(value) else value
