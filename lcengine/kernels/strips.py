"""The fused compositing kernel: load a strip of pixels, choose members, run the stages on it.

A strip is a short run of neighbouring pixels, for all items at once. It is copied into scratch
arrays that stay in the second cache, and every inner loop runs over its pixels in the type of the
data, so that the compiler turns it into SIMD code; no loop branches on a pixel. Screens and
reducers are stages: kernels of one signature, called by address, so any sequence of them shares
one load and none is compiled twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, by_type, call, kernel, prefetch
from lcengine.kernels.scratch import ALL, NONE, Cut, Job, Jobs, Output, Ranks, Scratch, View

_LINE: Final = 64  # bytes of a cache line
_ROWS_AHEAD: Final = 4
_SIGN: Final = np.uint16(0x8000)


def _stored(value: Any) -> Any:
    """A value as the stages see it: uint16 with the sign bit flipped, which keeps the order."""
    raise NotImplementedError


@by_type(_stored)
def _(value: Any) -> Callable[..., Any]:
    if str(value) == "uint16":
        return lambda value: np.int16(value ^ _SIGN)
    return lambda value: value


@kernel
def _load_clear(clear: NDArray[np.uint8], take: NDArray[np.int16]) -> int:
    found = np.uint8(0)
    for p in range(clear.size):
        found |= clear[p]
        take[p] = ALL if clear[p] != 0 else NONE
    return int(found)


@kernel
def _load_band(
    values: NDArray[Any], nodata: Any, raw: NDArray[Any], take: NDArray[np.int16]
) -> None:
    for p in range(values.size):
        value = _stored(values[p])
        raw[p] = value
        # The second comparison finds NaN and infinity, and is folded away for integers.
        missing = (value == nodata) | (value - value != 0)
        before = take[p]
        take[p] = NONE if missing else before


@kernel
def _load(values: View[Any], clear: View[np.uint8], s: Scratch, n: int) -> None:
    """Copy n pixels of every item to `loaded`, set `valid` where clear and no band is nodata.

    An item that is masked in the whole strip is not read: `valid` hides what `loaded` holds for it.
    """
    raw, take, rows, nodata = s.loaded, s.valid, s.rows, s.limits[2]
    bands, step = raw.shape[0], _LINE // raw.itemsize
    seen = 0
    for i in range(take.shape[0]):
        at = clear.start + i * clear.item
        take[i, n:] = NONE
        if _load_clear(clear.memory[at : at + n], take[i, :n]):
            for band in range(bands):
                rows[seen] = i * bands + band
                seen += 1
    for row in range(seen):
        if row + _ROWS_AHEAD < seen:  # rows lie far apart: the processor does not foresee them
            i, band = divmod(rows[row + _ROWS_AHEAD], bands)
            at = values.start + i * values.item + band * values.band
            for x in range(0, n, step):
                prefetch(values.memory, at + x)
        i, band = divmod(rows[row], bands)
        at = values.start + i * values.item + band * values.band
        _load_band(values.memory[at : at + n], nodata, raw[band, i, :n], take[i, :n])


@kernel
def _fill_in(own: NDArray[Any], mask: NDArray[np.int16], row: NDArray[Any]) -> None:
    for p in range(row.size):
        a, b = own[p], row[p]
        row[p] = a if mask[p] != 0 else b


@kernel
def _first_takes(take: NDArray[np.int16], taken: NDArray[np.int16]) -> None:
    """Leave in `take` what is not `taken` yet, and add it there."""
    for p in range(take.size):
        chosen = take[p] & ~taken[p]
        taken[p] |= take[p]
        take[p] = chosen


@kernel
def _note_member(member: NDArray[np.int16], mask: NDArray[np.int16], item: np.int16) -> None:
    for p in range(member.size):
        before = member[p]
        member[p] = item if mask[p] != 0 else before


@kernel
def _merge(first: NDArray[np.int64], s: Scratch) -> None:
    """Turn items into observations: each takes its first valid item at every pixel."""
    for o in range(first.size - 1):
        start, stop = first[o], first[o + 1]
        taken, member = s.take[o], s.member[o]
        taken[:] = s.valid[start]
        member[:] = np.int16(start)
        for i in range(start + 1, stop):
            _first_takes(s.valid[i], taken)
            _note_member(member, s.valid[i], np.int16(i))
        for band in range(s.raw.shape[0]):
            row = s.raw[band, o]
            row[:] = s.loaded[band, start]
            for i in range(start + 1, stop):
                _fill_in(s.loaded[band, i], s.valid[i], row)


@kernel
def _count(take: NDArray[np.int16], tally: NDArray[np.int16]) -> None:
    tally[:] = NONE
    for o in range(take.shape[0]):
        mask = take[o]
        for p in range(tally.size):
            tally[p] -= mask[p]


@kernel
def _job(jobs: Jobs, j: int) -> Job:
    """One row of the tables."""
    ints = jobs.ints[j]
    return Job(
        jobs.bands[j, : ints[8]],
        ints[0],
        ints[1],
        ints[2],
        ints[3],
        Ranks(jobs.pairs[ints[6] : ints[7]], ints[4], ints[5], jobs.lows[j], jobs.weight[j]),
        jobs.numbers[j],
        jobs.series[j],
    )


@kernel
def _borrowed(s: Scratch) -> Scratch:
    return Scratch(
        borrow(s.loaded),
        borrow(s.valid),
        borrow(s.raw),
        borrow(s.take),
        borrow(s.member),
        borrow(s.tally),
        borrow(s.spare),
        borrow(s.rows),
        borrow(s.fill),
        borrow(s.work),
        borrow(s.limits),
        borrow(s.judged),
        borrow(s.wide),
        borrow(s.twice),
        borrow(s.limit),
        borrow(s.bounds),
        borrow(s.span),
        borrow(s.narrow),
        borrow(s.sorted16),
        borrow(s.twice16),
        borrow(s.limit16),
        borrow(s.drop),
        borrow(s.chosen),
        borrow(s.floats),
        borrow(s.doubles),
        borrow(s.powers),
        s.origin,
        s.unit,
    )


@kernel
def run_strips(  # noqa: PLR0913, PLR0917 - what, how, on what and whereto
    start: int,
    stop: int,
    values: View[Any],
    clear: View[np.uint8],
    cut: Cut,
    stages: NDArray[np.int64],
    screens: int,
    jobs: Jobs,
    scratch: Scratch,
    output: Output,
) -> None:
    """Run the stages on the strips start..stop−1, which are independent of each other.

    stages: addresses of kernels (job, scratch, output, at, n) that work on n pixels, at the flat
    position `at` of the output; the first `screens` of them may change `take` and `tally`.
    """
    s = _borrowed(scratch)
    out = Output(
        borrow(output.values),
        borrow(output.extras),
        borrow(output.chosen),
        borrow(output.tally),
        borrow(output.outliers),
    )
    from_values, from_clear = borrow(values.memory), borrow(clear.memory)
    for strip in range(start, stop):
        row = strip // cut.strips
        x = (strip - row * cut.strips) * cut.width
        n, at = min(cut.width, cut.cols - x), row * cut.cols + x
        here = View(
            from_values, values.start + row * values.row + x, values.item, values.band, values.row
        )
        mask = View(
            from_clear, clear.start + row * clear.row + x, clear.item, clear.band, clear.row
        )
        _load(here, mask, s, n)
        if s.member.size:
            _merge(cut.first, s)
        _count(s.take, s.tally)
        for p in range(n):
            out.outliers[at + p] = s.tally[p]
        for j in range(screens):
            call(stages[j], (_job(jobs, j), s, out, at, n))
        for p in range(n):
            out.outliers[at + p] -= s.tally[p]
            out.tally[at + p] = s.tally[p]
        for j in range(screens, stages.size):
            call(stages[j], (_job(jobs, j), s, out, at, n))
