"""Radar backscatter: decibels and the linear power behind them, and the stages that average power.

Backscatter travels as int16 dB × 100, v = 1000·log10(p). Means, interpolations and medians of two
middle values are those of the power p, in float64, and become decibels once, at the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import kernel
from lcengine.kernels.reducers import fill_missing, rank
from lcengine.kernels.scratch import NODATA, Job, Output, Scratch

_PER_DECADE: Final = 1000.0
"""Stored integers per factor of ten in power."""
_LIMIT: Final = 32767.0
_TIE: Final = 1e-9
"""Distance from a half within which a value is one: files state decibels as decimals, and float64
powers know a value to some 1e-11."""


@lru_cache(maxsize=1)
def powers() -> NDArray[np.float64]:
    """The power of every int16 dB × 100, at the place of its unsigned bits."""
    table: NDArray[np.float64] = 10.0 ** (np.arange(2**16).astype(np.int16) / _PER_DECADE)
    return table


@kernel
def decibels(power: float) -> np.int16:
    """rint(1000·log10(power)) of a positive power, half to even, clipped to ±32767."""
    value = min(max(_PER_DECADE * np.log10(power), -_LIMIT), _LIMIT)
    nearest = np.rint(value)
    if abs(abs(value - nearest) - 0.5) < _TIE:
        nearest = 2.0 * np.rint(0.5 * value)
    return np.int16(nearest)


@kernel
def power_of_power(
    dn: NDArray[np.generic], scale: float, offset: float, missing: float, out: NDArray[np.float64]
) -> None:
    """Linear power DN·scale + offset (y, x); 0 for `missing` and what is no positive number."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            raw = np.float64(dn[y, x])
            value = raw * scale + offset
            out[y, x] = value if raw != missing and 0.0 < value < np.inf else 0.0


@kernel
def power_of_decibels(
    dn: NDArray[np.generic], scale: float, offset: float, missing: float, out: NDArray[np.float64]
) -> None:
    """Linear power of DN·scale + offset dB (y, x); 0 for `missing` and what is not finite."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            raw = np.float64(dn[y, x])
            value = raw * scale + offset
            known = raw != missing and np.isfinite(value)
            # Beyond ±1000 dB a power would be zero or infinite; what is stored ends at 327 dB.
            bounded = min(max(value, -1000.0), 1000.0)
            out[y, x] = 10.0 ** (bounded / 10.0) if known else 0.0


@kernel
def to_decibels(power: NDArray[np.float64], out: NDArray[np.int16]) -> None:
    """Power (y, x), 0 where there is none, as int16 dB × 100, nodata −32768."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = decibels(power[y, x]) if power[y, x] > 0.0 else NODATA


# ------------------------------------------------------------------------------------------ stages


@kernel
def _add(
    values: NDArray[np.int16],
    mask: NDArray[np.int16],
    table: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    for p in range(total.size):
        value = table[np.uint16(values[p])]
        total[p] += value if mask[p] != 0 else 0.0


@kernel
def reduce_mean(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the mean power of `job.bands`, in dB; powers are added in the order of time."""
    total = s.doubles[: s.tally.size]
    for b in range(job.bands.size):
        total[:] = 0.0
        for o in range(s.take.shape[0]):
            _add(s.raw[job.bands[b], o], s.take[o], s.powers, total)
        target = out.values[job.layer + b, at : at + n]
        for p in range(n):
            target[p] = decibels(total[p] / s.tally[p]) if s.tally[p] > 0 else NODATA


@kernel
def _write(
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    weight: NDArray[np.float64],
    tally: NDArray[np.int16],
    table: NDArray[np.float64],
    out: NDArray[np.int16],
) -> None:
    for p in range(out.size):
        a, w = low[p], weight[tally[p]]
        if tally[p] == 0:
            out[p] = NODATA
        elif w == 0.0 or high[p] == a:
            out[p] = a
        else:
            below, above = table[np.uint16(a)], table[np.uint16(high[p])]
            step = above - below
            # NumPy's formula, as it interpolates the powers.
            out[p] = decibels(below + step * w if w < 0.5 else above - step * (1.0 - w))


@kernel
def reduce_ranks(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: a rank of `job.bands`, or the power between two ranks by their weight, in dB.

    Decibels and powers have one order, so the ranks are those of the stored integers.
    """
    ranks = job.ranks
    s.spare[:] = s.tally
    fill_missing(s.take, ranks.lows, s.limits[0], s.limits[1], s.spare, s.fill)
    for b in range(job.bands.size):
        rank(job, s, job.bands[b])
        target = out.values[job.layer + b, at : at + n]
        _write(s.work[ranks.lower], s.work[ranks.upper], ranks.weight, s.tally, s.powers, target)
