"""Reducers of the compositing kernel: ranks (median, percentiles) and the mean.

An invalid observation takes the smallest or the largest int16 value, so many of each that a wanted
rank among the valid observations sits at the same rank among all of them, however many are valid.
One comparator network (`lcengine.kernels.networks`) then serves every pixel.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import kernel
from lcengine.kernels.scratch import LINEAR, MEDIAN, NODATA, Plan, Scratch

_LOWEST: Final = np.int16(-32768)  # fills sort with, or beyond, every valid value
_HIGHEST: Final = np.int16(32767)
_ONE: Final = np.int16(1)


@kernel
def fill_missing(
    first: NDArray[np.int64],
    take: NDArray[np.int16],
    lows: NDArray[np.int16],
    left: NDArray[np.int16],
    fill: NDArray[np.int16],
) -> None:
    """Set `fill`: of each pixel's invalid observations the first `left` = lows[left] sort low."""
    for p in range(left.size):
        left[p] = lows[left[p]]
    for observation in range(first.size - 1):
        row, mask = fill[observation], take[first[observation]]
        for p in range(row.size):
            row[p] = ~mask[p]
        for i in range(first[observation] + 1, first[observation + 1]):
            mask = take[i]
            for p in range(row.size):
                row[p] &= ~mask[p]
        for p in range(row.size):
            extreme = _LOWEST if left[p] > 0 else _HIGHEST
            left[p] += row[p]
            row[p] &= extreme


@kernel
def sort(work: NDArray[Any], pairs: NDArray[np.uint16]) -> None:
    """Run a comparator network on the rows of `work` (observation, pixel), int16 or int32."""
    for pair in range(pairs.shape[0]):
        low, high = work[pairs[pair, 0]], work[pairs[pair, 1]]
        for p in range(low.size):
            a, b = low[p], high[p]
            low[p] = a if a < b else b
            high[p] = b if a < b else a


@kernel
def _merge(
    first: NDArray[np.int64],
    work: NDArray[np.int16],
    take: NDArray[np.int16],
    fill: NDArray[np.int16],
) -> None:
    """Turn a band's items into its observations, in place; invalid ones become their extreme."""
    for observation in range(first.size - 1):
        row, extreme, mask = work[observation], fill[observation], take[first[observation]]
        if first[observation] > observation:
            row[:] = work[first[observation]]
        for p in range(row.size):
            row[p] = (row[p] & mask[p]) | extreme[p]
        for i in range(first[observation] + 1, first[observation + 1]):
            item, mask = work[i], take[i]
            for p in range(row.size):
                row[p] |= item[p] & mask[p]


@kernel
def _write_median(
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    tally: NDArray[np.int16],
    out: NDArray[np.int16],
) -> None:
    for p in range(out.size):
        a = low[p]
        b = high[p] if tally[p] & 1 == 0 else a
        # (a + b) / 2 rounded half to even, never leaving 16 bits.
        half = (a & b) + ((a ^ b) >> 1)
        middle = np.int16(half + (half & (a ^ b) & 1))
        out[p] = middle if tally[p] > 0 else NODATA


@kernel
def _write_linear(
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    weight: NDArray[np.float64],
    tally: NDArray[np.int16],
    out: NDArray[np.int16],
) -> None:
    for p in range(out.size):
        a, w = np.float64(low[p]), weight[tally[p]]
        b = np.float64(high[p]) if w > 0 else a
        # The two branches of NumPy's interpolation, for equality to the last bit.
        value = a + (b - a) * w if w < 0.5 else b - (b - a) * (1.0 - w)
        out[p] = np.int16(np.rint(value)) if tally[p] > 0 else NODATA


@kernel
def reduce_ranks(plan: Plan, s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the wanted ranks, or what lies between them, to out[:, at : at + n]."""
    ranks = plan.ranks
    s.spare[:] = s.tally
    fill_missing(plan.first, s.take, ranks.lows, s.spare, s.fill)
    for band in range(out.shape[0]):
        work, target = s.raw[band], out[band, at : at + n]
        _merge(plan.first, work, s.take, s.fill)
        sort(work, ranks.pairs)
        low, high = work[ranks.lower], work[ranks.upper]
        if plan.mode == MEDIAN:
            _write_median(low, high, s.tally, target)
        elif plan.mode == LINEAR:
            _write_linear(low, high, ranks.weight, s.tally, target)
        else:
            for p in range(n):
                target[p] = low[p] if s.tally[p] > 0 else NODATA


@kernel
def add_masked(
    values: NDArray[np.int16], mask: NDArray[np.int16], total: NDArray[np.int32]
) -> None:
    """Add the values under the mask to int32 sums."""
    for p in range(total.size):
        total[p] += np.int32(values[p] & mask[p])


@kernel
def reduce_mean(s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the mean to out[:, at : at + n]."""
    total, tally = s.twice, s.tally
    for band in range(out.shape[0]):
        total[:] = 0
        for i in range(s.take.shape[0]):
            add_masked(s.raw[band, i], s.take[i], total)
        target = out[band, at : at + n]
        for p in range(n):
            # A quotient of such integers is a half in float64 only if it is one exactly.
            mean = np.rint(np.float64(total[p]) / np.float64(max(tally[p], _ONE)))
            target[p] = np.int16(mean) if tally[p] > 0 else NODATA
