"""The fused compositing kernel: load, choose, screen and reduce one strip of pixels at a time.

A strip is a short run of neighbouring pixels, for all items at once. It is copied into scratch
arrays that stay in the second cache, and every inner loop runs over its pixels in the integer type
of the data, so that the compiler turns it into SIMD code; no loop branches on a pixel.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, kernel, prefetch
from lcengine.kernels.reducers import reduce_mean, reduce_ranks
from lcengine.kernels.scratch import ALL, MEAN, NODATA, NONE, Output, Plan, Scratch, View
from lcengine.kernels.screens import screen_mad

_CLEAR: Final = np.int16(32767)
_LINE: Final = 32  # int16 values in a cache line
_ROWS_AHEAD: Final = 4


@kernel
def _load_clear(clear: NDArray[np.uint8], least: NDArray[np.int16]) -> int:
    found = np.uint8(0)
    for p in range(clear.size):
        found |= clear[p]
        least[p] = _CLEAR if clear[p] != 0 else NODATA
    return int(found)


@kernel
def _load_band(values: NDArray[np.int16], raw: NDArray[np.int16], least: NDArray[np.int16]) -> None:
    for p in range(values.size):
        value, before = values[p], least[p]
        raw[p] = value
        least[p] = value if value < before else before


@kernel
def _load(
    values: View[np.int16],
    clear: View[np.uint8],
    raw: NDArray[np.int16],
    take: NDArray[np.int16],
    rows: NDArray[np.int64],
    n: int,
) -> None:
    """Copy n pixels of every item to `raw`, and set `take` where clear and no band is nodata.

    Nodata is the least int16, so the least of the bands tells. An item that is masked in the whole
    strip is not read: `take` hides what `raw` holds for it.
    """
    bands = raw.shape[0]
    seen = 0
    for i in range(take.shape[0]):
        at = clear.start + i * clear.item
        if _load_clear(clear.memory[at : at + n], take[i, :n]):
            for band in range(bands):
                rows[seen] = i * bands + band
                seen += 1
    for row in range(seen):
        if row + _ROWS_AHEAD < seen:  # rows lie far apart: the processor does not foresee them
            i, band = divmod(rows[row + _ROWS_AHEAD], bands)
            at = values.start + i * values.item + band * values.band
            for x in range(0, n, _LINE):
                prefetch(values.memory, at + x)
        i, band = divmod(rows[row], bands)
        at = values.start + i * values.item + band * values.band
        _load_band(values.memory[at : at + n], raw[band, i, :n], take[i, :n])
    for i in range(take.shape[0]):
        mask = take[i]
        for p in range(mask.size):
            mask[p] = ALL if mask[p] > NODATA else NONE


@kernel
def _choose(
    first: NDArray[np.int64],
    take: NDArray[np.int16],
    tally: NDArray[np.int16],
    taken: NDArray[np.int16],
) -> None:
    """Leave each observation its first valid item in `take`; count the valid observations."""
    tally[:] = 0
    for observation in range(first.size - 1):
        if first[observation + 1] - first[observation] > 1:
            taken[:] = 0
            for i in range(first[observation], first[observation + 1]):
                mask = take[i]
                for p in range(mask.size):
                    chosen = mask[p] & ~taken[p]
                    taken[p] |= mask[p]
                    mask[p] = chosen
        for i in range(first[observation], first[observation + 1]):
            mask = take[i]
            for p in range(mask.size):
                tally[p] -= mask[p]


@kernel
def composite_strips(
    start: int,
    stop: int,
    values: View[np.int16],
    clear: View[np.uint8],
    plan: Plan,
    s: Scratch,
    out: Output,
) -> None:
    """Composite the strips start..stop−1 into `out`; strips are independent of each other."""
    s = Scratch(
        borrow(s.raw),
        borrow(s.take),
        borrow(s.fill),
        borrow(s.wide),
        borrow(s.judged),
        borrow(s.twice),
        borrow(s.limit),
        borrow(s.tally),
        borrow(s.spare),
        borrow(s.rows),
    )
    from_values, from_clear = borrow(values.memory), borrow(clear.memory)
    target, tally, outliers = borrow(out.values), borrow(out.tally), borrow(out.outliers)
    for strip in range(start, stop):
        row = strip // plan.strips
        x = (strip - row * plan.strips) * plan.width
        n, at = min(plan.width, plan.cols - x), row * plan.cols + x
        here = View(
            from_values, values.start + row * values.row + x, values.item, values.band, values.row
        )
        mask = View(
            from_clear, clear.start + row * clear.row + x, clear.item, clear.band, clear.row
        )
        _load(here, mask, s.raw, s.take, s.rows, n)
        _choose(plan.first, s.take, s.tally, s.spare)
        for p in range(n):
            outliers[at + p] = s.tally[p]
        if plan.screen_bands.size:
            screen_mad(plan, s)
        for p in range(n):
            outliers[at + p] -= s.tally[p]
            tally[at + p] = s.tally[p]
        if plan.mode == MEAN:
            reduce_mean(s, target, at, n)
        else:
            reduce_ranks(plan, s, target, at, n)
