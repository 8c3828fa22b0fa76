"""The fused compositing kernel: load, choose, screen and reduce one strip of pixels at a time.

A strip is a short run of neighbouring pixels, for all items at once. It is copied into scratch
arrays that stay in the second cache, and every inner loop runs over its pixels in the integer type
of the data, so that the compiler turns it into SIMD code; no loop branches on a pixel.

An invalid observation takes the smallest or the largest int16 value, so many of each that a wanted
rank among the valid observations sits at the same rank among all of them, however many are valid.
One comparator network (`lcengine.kernels.networks`) then serves every pixel.
"""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, kernel, prefetch

MEDIAN: Final = 0  # how ranks become a value: half-way between two, exactly, in int16
LINEAR: Final = 1  # NumPy's linear interpolation in float64
NEAREST: Final = 2  # one rank
MEAN: Final = 3  # no ranks

_NODATA: Final = np.int16(-32768)
_LOWEST: Final = np.int16(-32768)  # fills sort with, or beyond, every valid value
_HIGHEST: Final = np.int16(32767)
_LOWEST32: Final = np.int32(-(2**31))
_HIGHEST32: Final = np.int32(2**31 - 1)
_NONE: Final = np.int16(0)  # masks are int16, as SIMD comparisons yield them: no bit or all bits
_ALL: Final = np.int16(-1)
_ONE: Final = np.int16(1)

_LINE: Final = 32  # int16 values in a cache line
_ROWS_AHEAD: Final = 4
_MIN_SCREENED: Final = 5  # fewer valid observations reject nothing

T = TypeVar("T", np.int16, np.uint8)


class View(NamedTuple, Generic[T]):
    """A strided array (item, band, row, column), contiguous in columns, as flat memory.

    `start` and the strides `item`, `band`, `row` count elements, not bytes.
    """

    memory: NDArray[T]
    start: int
    item: int
    band: int
    row: int


class Ranks(NamedTuple):
    """What a rank reducer needs for a fixed number of observations, per number of valid ones.

    pairs: comparators (m, 2) that place the ranks `lower` and `upper` of all observations.
    lows: how many invalid observations take the smallest value, (observations + 1,) int16.
    weight: weight of `upper` in the result, (observations + 1,) float64.
    """

    pairs: NDArray[np.uint16]
    lower: int
    upper: int
    lows: NDArray[np.int16]
    weight: NDArray[np.float64]


class Plan(NamedTuple):
    """What to do.

    cols, strips, width: pixels in a row, strips to a row, pixels in a strip (the last has fewer).
    first: first item of each observation, and the number of items, (observations + 1,) int64.
    mode: MEDIAN, LINEAR, NEAREST or MEAN. ranks: of the reducer. centre: of the screen's medians.
    screen_bands: bands whose sum the screen judges; empty = no screen.
    k, floor: the screen's k × 1000, and 4 × the smallest MAD.
    """

    cols: int
    strips: int
    width: int
    first: NDArray[np.int64]
    mode: int
    ranks: Ranks
    centre: Ranks
    screen_bands: NDArray[np.int64]
    k: int
    floor: int


class Scratch(NamedTuple):
    """One thread's working memory for a strip.

    raw: (band, item, pixel) copy of the strip, then (band, observation, pixel) network.
    take: (item, pixel) mask of the valid items, then of those that observations use.
    fill: (observation, pixel), 0 where valid, else the extreme that stands for it.
    wide, judged: (observation, pixel) int32, the screen's network and what it judges.
    twice, limit: (pixel,) int32, 2 × median of `judged`, largest deviation kept.
    tally: (pixel,) valid observations. spare: (pixel,). rows: (item × band,) where rows start.
    """

    raw: NDArray[np.int16]
    take: NDArray[np.int16]
    fill: NDArray[np.int16]
    wide: NDArray[np.int32]
    judged: NDArray[np.int32]
    twice: NDArray[np.int32]
    limit: NDArray[np.int32]
    tally: NDArray[np.int16]
    spare: NDArray[np.int16]
    rows: NDArray[np.int64]


class Output(NamedTuple):
    """Results per pixel: values (n_out, pixels) int16, tally and outliers (pixels,) uint16."""

    values: NDArray[np.int16]
    tally: NDArray[np.uint16]
    outliers: NDArray[np.uint16]


def scratch(plan: Plan, bands: int) -> Scratch:
    """Working memory for one thread. The pixels beyond a row's end are computed, never written."""
    items, observations = int(plan.first[-1]), plan.first.size - 1
    screened = observations if plan.screen_bands.size else 0
    return Scratch(
        raw=np.empty((bands, items, plan.width), np.int16),
        take=np.zeros((items, plan.width), np.int16),
        fill=np.empty((observations, plan.width), np.int16),
        wide=np.empty((screened, plan.width), np.int32),
        judged=np.empty((screened, plan.width), np.int32),
        twice=np.empty(plan.width, np.int32),
        limit=np.empty(plan.width, np.int32),
        tally=np.empty(plan.width, np.int16),
        spare=np.empty(plan.width, np.int16),
        rows=np.empty(items * bands, np.int64),
    )


@kernel
def _load_clear(clear: NDArray[np.uint8], least: NDArray[np.int16]) -> int:
    found = np.uint8(0)
    for p in range(clear.size):
        found |= clear[p]
        least[p] = _HIGHEST if clear[p] != 0 else _NODATA
    return int(found)


@kernel
def _load_band(values: NDArray[np.int16], raw: NDArray[np.int16], least: NDArray[np.int16]) -> None:
    for p in range(values.size):
        value, before = values[p], least[p]
        raw[p] = value
        least[p] = value if value < before else before


@kernel
def _load(
    values: View[np.int16], clear: View[np.uint8], raw: NDArray[np.int16], take: NDArray[np.int16],
    rows: NDArray[np.int64], n: int,
) -> None:  # fmt: skip
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
            mask[p] = _ALL if mask[p] > _NODATA else _NONE


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
def _fill(
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
def _sort(work: NDArray[Any], pairs: NDArray[np.uint16]) -> None:
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
        out[p] = middle if tally[p] > 0 else _NODATA


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
        out[p] = np.int16(np.rint(value)) if tally[p] > 0 else _NODATA


@kernel
def _reduce_ranks(plan: Plan, s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the wanted ranks, or what lies between them, to out[:, at : at + n]."""
    ranks = plan.ranks
    s.spare[:] = s.tally
    _fill(plan.first, s.take, ranks.lows, s.spare, s.fill)
    for band in range(out.shape[0]):
        work, target = s.raw[band], out[band, at : at + n]
        _merge(plan.first, work, s.take, s.fill)
        _sort(work, ranks.pairs)
        low, high = work[ranks.lower], work[ranks.upper]
        if plan.mode == MEDIAN:
            _write_median(low, high, s.tally, target)
        elif plan.mode == LINEAR:
            _write_linear(low, high, ranks.weight, s.tally, target)
        else:
            for p in range(n):
                target[p] = low[p] if s.tally[p] > 0 else _NODATA


@kernel
def _add(values: NDArray[np.int16], mask: NDArray[np.int16], total: NDArray[np.int32]) -> None:
    for p in range(total.size):
        total[p] += np.int32(values[p] & mask[p])


@kernel
def _reduce_mean(s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the mean to out[:, at : at + n]."""
    total, tally = s.twice, s.tally
    for band in range(out.shape[0]):
        total[:] = 0
        for i in range(s.take.shape[0]):
            _add(s.raw[band, i], s.take[i], total)
        target = out[band, at : at + n]
        for p in range(n):
            # A quotient of such integers is a half in float64 only if it is one exactly.
            mean = np.rint(np.float64(total[p]) / np.float64(max(tally[p], _ONE)))
            target[p] = np.int16(mean) if tally[p] > 0 else _NODATA


@kernel
def _widen(judged: NDArray[np.int32], fill: NDArray[np.int16], out: NDArray[np.int32]) -> None:
    for p in range(out.size):
        extreme = _LOWEST32 if fill[p] < 0 else _HIGHEST32
        out[p] = judged[p] if fill[p] == 0 else extreme


@kernel
def _middles(centre: Ranks, s: Scratch, out: NDArray[np.int32]) -> None:
    """Twice the median of `judged` per pixel."""
    for observation in range(s.wide.shape[0]):
        _widen(s.judged[observation], s.fill[observation], s.wide[observation])
    _sort(s.wide, centre.pairs)
    low, high = s.wide[centre.lower], s.wide[centre.upper]
    for p in range(out.size):
        out[p] = low[p] + (high[p] if s.tally[p] & 1 == 0 else low[p])


@kernel
def _screen(plan: Plan, s: Scratch) -> None:
    """Drop outliers from `take` and from `tally`."""
    first, twice, limit, tally = plan.first, s.twice, s.limit, s.tally
    s.spare[:] = tally
    _fill(first, s.take, plan.centre.lows, s.spare, s.fill)
    for observation in range(first.size - 1):
        judged = s.judged[observation]
        judged[:] = 0
        for i in range(first[observation], first[observation + 1]):
            for band in plan.screen_bands:
                _add(s.raw[band, i], s.take[i], judged)
    _middles(plan.centre, s, twice)
    for observation in range(first.size - 1):
        judged = s.judged[observation]
        for p in range(judged.size):  # becomes twice its distance from the median
            judged[p] = abs(judged[p] + judged[p] - twice[p])
    _middles(plan.centre, s, limit)
    for p in range(limit.size):
        # 0.6745·d/MAD > k with judged = 2·d and limit = 4·MAD: 1349·judged > 1000·k·limit.
        bound = np.floor(np.float64(plan.k * max(limit[p], plan.floor)) / 1349.0)
        kept = np.int32(min(bound, np.float64(_HIGHEST32)))
        limit[p] = kept if tally[p] >= _MIN_SCREENED else _HIGHEST32
    for observation in range(first.size - 1):
        judged = s.judged[observation]
        for i in range(first[observation], first[observation + 1]):
            mask = s.take[i]
            for p in range(mask.size):
                rejected = mask[p] if judged[p] > limit[p] else _NONE
                tally[p] += rejected
                mask[p] ^= rejected


@kernel
def composite_strips(  # noqa: PLR0917 - a work range and its arrays
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
            _screen(plan, s)
        for p in range(n):
            outliers[at + p] -= s.tally[p]
            tally[at + p] = s.tally[p]
        if plan.mode == MEAN:
            _reduce_mean(s, target, at, n)
        else:
            _reduce_ranks(plan, s, target, at, n)
