"""The fused compositing kernel: select, screen and reduce one strip of pixels at a time.

A strip is a short run of neighbouring pixels, for all items at once. It is copied into scratch
arrays that stay in the first cache levels, and every inner loop runs over its pixels in the integer
type of the data, so that the compiler turns it into SIMD code; no loop branches on a pixel.

An invalid observation takes the smallest or the largest int16 value, so many of each that a wanted
rank among the valid observations sits at the same rank among all of them whatever the number of
valid ones. One comparator network (`lcengine.kernels.networks`) then serves every pixel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, kernel, prefetch

MEDIAN: Final = 0  # how the ranks become a value: half-way between two, exactly, in int16
LINEAR: Final = 1  # NumPy's linear interpolation in float64
NEAREST: Final = 2  # one rank
MEAN: Final = 3  # no ranks

_NODATA: Final = np.int16(-32768)
_LOWEST: Final = np.int16(-32768)  # fills sort with, or beyond, every valid value
_HIGHEST: Final = np.int16(32767)
_LOWEST32: Final = np.int32(-(2**31))
_HIGHEST32: Final = np.int32(2**31 - 1)
_NONE: Final = np.int16(0)
_ALL: Final = np.int16(-1)
_LINE: Final = 32  # int16 values in a cache line
_ROWS_AHEAD: Final = 8  # about 8 KiB: what memory delivers during one row's work, several times
_MIN_SCREENED: Final = 5  # fewer valid observations reject nothing


class View(NamedTuple):
    """A strided array (item, band, row, column), contiguous in columns, as flat memory.

    `start` and the strides `item`, `band`, `row` count elements, not bytes.
    """

    memory: NDArray[np.int16] | NDArray[np.uint8]
    start: int
    item: int
    band: int
    row: int


class Layout(NamedTuple):
    """How pixels are cut: rows of `cols` pixels into `strips`, strips of `width` into `blocks`.

    A strip is as wide as its items fit into the second cache, so that memory is read in long runs;
    a block, `block` pixels, is what the first cache holds of one band.
    """

    cols: int
    strips: int
    width: int
    block: int


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
    """What to do with a strip.

    first: first member of each observation, and the number of items, (observations + 1,) int64.
    bands, n_out: bands read for validity, and how many of them are reduced.
    mode: MEDIAN, LINEAR, NEAREST or MEAN. ranks: of the reducer. centre: of the screen's medians.
    index: bands whose sum the screen judges; empty = no screen.
    k, floor: the screen's k × 1000, and 4 × the smallest MAD.
    """

    first: NDArray[np.int64]
    bands: int
    n_out: int
    mode: int
    ranks: Ranks
    centre: Ranks
    index: NDArray[np.int64]
    k: int
    floor: int


class Output(NamedTuple):
    """Results per pixel: values (n_out, pixels) int16, count and outliers (pixels,) uint16."""

    values: NDArray[np.int16]
    count: NDArray[np.uint16]
    outliers: NDArray[np.uint16]


class Scratch(NamedTuple):
    """One thread's working memory; masks are int16, 0 or −1 (all bits), as SIMD compares yield.

    raw: (block, band, item, pixel) copy of the strip. take: (block, item, pixel), −1 where the item
    is valid, and after `_choose` only where it is the one its observation uses.
    For one block at a time: fill (observation, pixel), 0 where valid, else the extreme that stands
    for it; wide, index (observation, pixel) int32 network input and screen index; twice (pixel,)
    2 × median; limit (pixel,) largest deviation kept; count (pixel,) valid observations; spare.
    """

    raw: NDArray[np.int16]
    take: NDArray[np.int16]
    fill: NDArray[np.int16]
    wide: NDArray[np.int32]
    index: NDArray[np.int32]
    twice: NDArray[np.int32]
    limit: NDArray[np.int32]
    count: NDArray[np.int16]
    spare: NDArray[np.int16]
    seen: NDArray[np.int64]
    rows: NDArray[np.int64]


@kernel
def _scratch(plan: Plan, layout: Layout) -> Scratch:
    items = plan.first[-1]
    observations = plan.first.size - 1
    screened = observations if plan.index.size else 0
    blocks, block = layout.width // layout.block, layout.block
    return Scratch(
        np.empty((blocks, plan.bands, items, block), np.int16),
        np.empty((blocks, items, block), np.int16),
        np.empty((observations, block), np.int16),
        np.empty((screened, block), np.int32),
        np.empty((screened, block), np.int32),
        np.empty(block, np.int32),
        np.empty(block, np.int32),
        np.empty(block, np.int16),
        np.empty(block, np.int16),
        np.empty(items, np.int64),
        np.empty(items * plan.bands, np.int64),
    )


@kernel
def _load_clear(clear: NDArray[np.uint8], take: NDArray[np.int16]) -> np.uint8:
    found = np.uint8(0)
    for p in range(clear.size):
        found |= clear[p]
        take[p] = _HIGHEST if clear[p] != 0 else _NODATA
    return found


@kernel
def _load_band(values: NDArray[np.int16], raw: NDArray[np.int16], least: NDArray[np.int16]) -> None:
    for p in range(values.size):
        value, before = values[p], least[p]
        raw[p] = value
        least[p] = value if value < before else before


@kernel
def _load(values: View, clear: View, block: int, s: Scratch, n: int) -> None:
    """Copy a strip of n pixels to `raw`; set `take` to nodata where not valid, else to more.

    Valid = clear and no band nodata; nodata is the least int16, so the least band tells. An item
    that is masked in the whole strip is not read, and `take` hides what `raw` holds for it.
    """
    items, bands, blocks = s.take.shape[1], s.raw.shape[1], (n + block - 1) // block
    seen = 0
    for i in range(items):
        found = np.uint8(0)
        at = clear.start + i * clear.item
        for k in range(blocks):
            x, end = k * block, min(k * block + block, n)
            found |= _load_clear(clear.memory[at + x : at + end], s.take[k, i])
        if found:
            s.seen[seen] = i
            for band in range(bands):
                s.rows[seen * bands + band] = values.start + i * values.item + band * values.band
            seen += 1
    for m in range(seen):
        i = s.seen[m]
        for band in range(bands):
            row = m * bands + band
            if row + _ROWS_AHEAD < seen * bands:
                for x in range(0, n, _LINE):
                    prefetch(values.memory, s.rows[row + _ROWS_AHEAD] + x)
            at = s.rows[row]
            for k in range(blocks):
                x, end = k * block, min(k * block + block, n)
                _load_band(values.memory[at + x : at + end], s.raw[k, band, i], s.take[k, i])


@kernel
def _choose(first: NDArray[np.int64], take: NDArray[np.int16], s: Scratch) -> None:
    """Make `take` a mask; leave each observation its first valid item in `take`; count the valid observations."""
    count, taken = s.count, s.spare
    count[:] = 0
    for i in range(take.shape[0]):
        valid = take[i]
        for p in range(valid.size):
            valid[p] = _ALL if valid[p] > _NODATA else _NONE
    for observation in range(first.size - 1):
        if first[observation + 1] - first[observation] > 1:
            taken[:] = 0
            for i in range(first[observation], first[observation + 1]):
                valid = take[i]
                for p in range(valid.size):
                    chosen = valid[p] & ~taken[p]
                    taken[p] |= valid[p]
                    valid[p] = chosen
        for i in range(first[observation], first[observation + 1]):
            valid = take[i]
            for p in range(valid.size):
                count[p] -= valid[p]


@kernel
def _fill(
    first: NDArray[np.int64], take: NDArray[np.int16], lows: NDArray[np.int16], s: Scratch
) -> None:
    """Set `fill`: of a pixel's invalid observations the first `lows[count]` sort low."""
    left = s.spare
    for p in range(left.size):
        left[p] = lows[s.count[p]]
    for observation in range(first.size - 1):
        fill, valid = s.fill[observation], take[first[observation]]
        for p in range(fill.size):
            fill[p] = ~valid[p]
        for i in range(first[observation] + 1, first[observation + 1]):
            valid = take[i]
            for p in range(fill.size):
                fill[p] &= ~valid[p]
        for p in range(fill.size):
            extreme = _LOWEST if left[p] > 0 else _HIGHEST
            left[p] += fill[p]
            fill[p] &= extreme


@kernel
def _sort(work: NDArray[np.int16], pairs: NDArray[np.uint16]) -> None:
    for pair in range(pairs.shape[0]):
        low, high = work[pairs[pair, 0]], work[pairs[pair, 1]]
        for p in range(low.size):
            a, b = low[p], high[p]
            low[p] = a if a < b else b
            high[p] = b if a < b else a


@kernel
def _merge(
    first: NDArray[np.int64], raw: NDArray[np.int16], take: NDArray[np.int16], s: Scratch
) -> None:
    """Turn a band's items into its observations, in place; invalid ones become their extreme."""
    for observation in range(first.size - 1):
        i = first[observation]
        work, fill, valid = raw[observation], s.fill[observation], take[i]
        if i > observation:
            work[:] = raw[i]
        for p in range(work.size):
            work[p] = (work[p] & valid[p]) | fill[p]
        for j in range(i + 1, first[observation + 1]):
            value, valid = raw[j], take[j]
            for p in range(work.size):
                work[p] |= value[p] & valid[p]


@kernel
def _write_median(
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    count: NDArray[np.int16],
    out: NDArray[np.int16],
) -> None:
    for p in range(out.size):
        a = low[p]
        b = high[p] if count[p] & 1 == 0 else a
        # (a + b) / 2 rounded half to even, never leaving 16 bits.
        half = (a & b) + ((a ^ b) >> 1)
        middle = np.int16(half + (half & (a ^ b) & 1))
        out[p] = middle if count[p] > 0 else _NODATA


@kernel
def _write_linear(
    low: NDArray[np.int16],
    high: NDArray[np.int16],
    weight: NDArray[np.float64],
    count: NDArray[np.int16],
    out: NDArray[np.int16],
) -> None:
    for p in range(out.size):
        a, w = np.float64(low[p]), weight[count[p]]
        b = np.float64(high[p]) if w > 0 else a
        # The two branches of NumPy's interpolation, for equality to the last bit.
        value = a + (b - a) * w if w < 0.5 else b - (b - a) * (1.0 - w)
        out[p] = np.int16(np.rint(value)) if count[p] > 0 else _NODATA


@kernel
def _reduce_ranks(plan: Plan, k: int, s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the wanted ranks of block k, or what lies between them, to out[:, at : at + n]."""
    raw, take, ranks = s.raw[k], s.take[k], plan.ranks
    _fill(plan.first, take, ranks.lows, s)
    for band in range(plan.n_out):
        work = raw[band]
        _merge(plan.first, work, take, s)
        _sort(work, ranks.pairs)
        low, high = work[ranks.lower], work[ranks.upper]
        target = out[band, at : at + n]
        if plan.mode == MEDIAN:
            _write_median(low, high, s.count, target)
        elif plan.mode == LINEAR:
            _write_linear(low, high, ranks.weight, s.count, target)
        else:
            for p in range(n):
                target[p] = low[p] if s.count[p] > 0 else _NODATA


@kernel
def _add(
    values: NDArray[np.int16], valid: NDArray[np.int16], total: NDArray[np.int32]
) -> None:
    for p in range(total.size):
        total[p] += np.int32(values[p] & valid[p])


@kernel
def _reduce_mean(plan: Plan, k: int, s: Scratch, out: NDArray[np.int16], at: int, n: int) -> None:
    """Write the mean of block k to out[:, at : at + n]."""
    raw, take = s.raw[k], s.take[k]
    for band in range(plan.n_out):
        s.twice[:] = 0
        for i in range(take.shape[0]):
            _add(raw[band, i], take[i], s.twice)
        target = out[band, at : at + n]
        for p in range(n):
            # A quotient of such integers is a half in float64 only if it is one exactly.
            mean = np.rint(np.float64(s.twice[p]) / np.float64(max(s.count[p], 1)))
            target[p] = np.int16(mean) if s.count[p] > 0 else _NODATA


@kernel
def _middles(centre: Ranks, s: Scratch, out: NDArray[np.int32]) -> None:
    """Sum of the two middle values of `wide` per pixel: twice the median."""
    _sort(s.wide, centre.pairs)
    low, high = s.wide[centre.lower], s.wide[centre.upper]
    for p in range(out.size):
        out[p] = low[p] + (high[p] if s.count[p] & 1 == 0 else low[p])


@kernel
def _widen(
    index: NDArray[np.int32], fill: NDArray[np.int16], out: NDArray[np.int32]
) -> None:
    for p in range(out.size):
        extreme = _LOWEST32 if fill[p] < 0 else _HIGHEST32
        out[p] = index[p] if fill[p] == 0 else extreme


@kernel
def _deviation(
    index: NDArray[np.int32], twice: NDArray[np.int32], out: NDArray[np.int32]
) -> None:
    """Twice the distance from the median."""
    for p in range(out.size):
        out[p] = abs(index[p] + index[p] - twice[p])


@kernel
def _screen(plan: Plan, k: int, s: Scratch) -> None:
    """Drop the outliers of block k from `take` and from `count`."""
    raw, take, first = s.raw[k], s.take[k], plan.first
    _fill(first, take, plan.centre.lows, s)
    for observation in range(first.size - 1):
        total = s.index[observation]
        total[:] = 0
        for i in range(first[observation], first[observation + 1]):
            for band in plan.index:
                _add(raw[band, i], take[i], total)
        _widen(total, s.fill[observation], s.wide[observation])
    _middles(plan.centre, s, s.twice)
    for observation in range(first.size - 1):
        total = s.index[observation]
        _deviation(total, s.twice, total)
        _widen(total, s.fill[observation], s.wide[observation])
    _middles(plan.centre, s, s.limit)
    for p in range(s.limit.size):
        # 0.6745·d/MAD > k with 2d = deviation and 4·MAD = s.limit: 1349·2d > 1000k·4·MAD.
        bound = np.floor(np.float64(plan.k * max(s.limit[p], plan.floor)) / 1349.0)
        kept = np.int32(min(bound, np.float64(_HIGHEST32)))
        s.limit[p] = kept if s.count[p] >= _MIN_SCREENED else _HIGHEST32
    for observation in range(first.size - 1):
        deviation = s.index[observation]
        for i in range(first[observation], first[observation + 1]):
            valid = take[i]
            for p in range(valid.size):
                rejected = valid[p] if deviation[p] > s.limit[p] else _NONE
                s.count[p] += rejected
                valid[p] ^= rejected


@kernel
def _reduce_block(plan: Plan, k: int, s: Scratch, out: Output, at: int, n: int) -> None:
    """Screen and reduce block k of the strip into the n pixels of `out` from `at`."""
    _choose(plan.first, s.take[k], s)
    outliers, count = out.outliers[at : at + n], out.count[at : at + n]
    for p in range(n):
        outliers[p] = s.count[p]
    if plan.index.size:
        _screen(plan, k, s)
    for p in range(n):
        outliers[p] -= s.count[p]
        count[p] = s.count[p]
    if plan.mode == MEAN:
        _reduce_mean(plan, k, s, out.values, at, n)
    else:
        _reduce_ranks(plan, k, s, out.values, at, n)


@kernel
def _borrowed(s: Scratch) -> Scratch:
    return Scratch(
        borrow(s.raw),
        borrow(s.take),
        borrow(s.fill),
        borrow(s.wide),
        borrow(s.index),
        borrow(s.twice),
        borrow(s.limit),
        borrow(s.count),
        borrow(s.spare),
        borrow(s.seen),
        borrow(s.rows),
    )


@kernel
def _composite_strip(
    strip: int, values: View, clear: View, layout: Layout, plan: Plan, s: Scratch, out: Output
) -> None:
    s = _borrowed(s)
    target = Output(borrow(out.values), borrow(out.count), borrow(out.outliers))
    row = strip // layout.strips
    x = (strip - row * layout.strips) * layout.width
    n = min(layout.width, layout.cols - x)
    from_values, from_clear = values.start + row * values.row + x, clear.start + row * clear.row + x
    here = View(borrow(values.memory), from_values, values.item, values.band, values.row)
    mask = View(borrow(clear.memory), from_clear, clear.item, clear.band, clear.row)
    _load(here, mask, layout.block, s, n)
    for k in range((n + layout.block - 1) // layout.block):
        done = k * layout.block
        at = row * layout.cols + x + done
        _reduce_block(plan, k, s, target, at, min(layout.block, n - done))


@kernel
def composite_strips(
    start: int, stop: int, values: View, clear: View, layout: Layout, plan: Plan, out: Output
) -> None:
    """Composite the strips start..stop−1 into `out`; strips are independent of each other."""
    s = _scratch(plan, layout)
    s.take[:] = 0  # the pixels of a block beyond the row's end are computed, and not written
    for strip in range(start, stop):
        _composite_strip(strip, values, clear, layout, plan, s, out)
