"""Outlier screens of the compositing kernel.

The MAD screen is the robust z-score of Leys et al. 2013, J. Exp. Soc. Psychol. 49(4), 764-766, in
integers: with X = 2x, twice the median and four times the MAD are whole numbers. They fit into 16
bits, twice as many to a register, unless the valid values of a strip differ by more than 32767.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import by_type, kernel
from lcengine.kernels.reducers import add_masked, sort
from lcengine.kernels.scratch import NONE, Job, Output, Scratch

BOTH, BRIGHT, DARK = 0, 1, 2  # sides of the median that are judged
JOINT: Final = 0  # numbers[2]: the sum of the bands is judged; else each band by itself
MIN_SCREENED: Final = 5  # fewer valid observations reject nothing

_WIDEST: Final = 32767
_LOW16, _HIGH16 = np.uint16(0), np.uint16(65535)


@kernel
def _arrange(
    judged: NDArray[Any],
    take: NDArray[np.int16],
    low: Any,
    high: Any,
    left: NDArray[np.int16],
    out: NDArray[Any],
) -> None:
    """The judged values for a network; of the invalid ones the first `left` sort low."""
    for p in range(out.size):
        x = judged[p]
        extreme = low if left[p] > 0 else high
        out[p] = x if take[p] != 0 else extreme
        left[p] += ~take[p]


@kernel
def _arrange_distances(
    judged: NDArray[Any],
    take: NDArray[np.int16],
    low: Any,
    high: Any,
    left: NDArray[np.int16],
    centre: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """The same of the distances from `centre`."""
    for p in range(out.size):
        x, m = judged[p], centre[p]
        far = (x if x > m else m) - (m if x > m else x)
        extreme = low if left[p] > 0 else high
        out[p] = far if take[p] != 0 else extreme
        left[p] += ~take[p]


def _half_way(a: Any, b: Any) -> Any:
    """Half-way between two even integers, or two float64."""
    raise NotImplementedError


@by_type(_half_way)
def _(a: Any, b: Any) -> Callable[..., Any]:
    if str(a) == "float64":
        return lambda a, b: (a + b) * 0.5
    return lambda a, b: a // 2 + b // 2  # never leaves the type


@kernel
def _centres(
    low: NDArray[Any], high: NDArray[Any], tally: NDArray[np.int16], out: NDArray[Any]
) -> None:
    """Medians of even numbers, in their type."""
    for p in range(out.size):
        half = _half_way(low[p], high[p])
        out[p] = half if tally[p] & 1 == 0 else low[p]


def _kept(bound: Any, end: Any) -> Any:
    """The largest value of the type of `end` that does not exceed a float64 bound."""
    raise NotImplementedError


@by_type(_kept)
def _(bound: Any, end: Any) -> Callable[..., Any]:
    if str(end) == "float64":
        return lambda bound, end: bound
    cast = {"uint16": np.uint16, "int32": np.int32}[str(end)]
    return lambda bound, end: cast(min(np.floor(bound), np.float64(end)))


@kernel
def _limits(
    low: NDArray[Any],
    high: NDArray[Any],
    tally: NDArray[np.int16],
    numbers: NDArray[np.float64],
    end: Any,
    out: NDArray[Any],
) -> None:
    """Largest distance from the centre that is kept; all of them where too few can be judged."""
    k, floor = numbers[0], numbers[1]
    for p in range(out.size):
        a = np.float64(low[p])
        spread = a + (np.float64(high[p]) if tally[p] & 1 == 0 else a)
        # 0.6745·|x − m| / MAD > k is 1349·(2·|x − m|) > (1000·k)·(4·MAD). Exact: below 2**53.
        bound = k * max(spread, floor) / 1349.0
        out[p] = _kept(bound, end) if tally[p] >= MIN_SCREENED else end


@kernel
def _drop(
    judged: NDArray[Any],
    centre: NDArray[Any],
    limit: NDArray[Any],
    side: int,
    take: NDArray[np.int16],
    drop: NDArray[np.int16],
) -> None:
    """Note the valid observations that lie beyond the limit, on the sides that are judged."""
    bright, dark = np.int16(-(side != DARK)), np.int16(-(side != BRIGHT))
    for p in range(drop.size):
        x, m = judged[p], centre[p]
        far = (x if x > m else m) - (m if x > m else x)
        judged_side = bright if x > m else dark
        rejected = take[p] & judged_side
        drop[p] |= rejected if far > limit[p] else NONE


@kernel
def _judge(  # noqa: PLR0913, PLR0917 - one type of memory
    job: Job,
    s: Scratch,
    judged: NDArray[Any],
    work: NDArray[Any],
    centre: NDArray[Any],
    limit: NDArray[Any],
    low: Any,
    high: Any,
) -> None:
    """Screen the even numbers `judged` (observation, pixel) into `drop`."""
    ranks, left = job.ranks, s.spare
    _lows(ranks.lows, s.tally, left)
    for o in range(judged.shape[0]):
        _arrange(judged[o], s.take[o], low, high, left, work[o])
    sort(work, ranks.pairs)
    _centres(work[ranks.lower], work[ranks.upper], s.tally, centre)
    _lows(ranks.lows, s.tally, left)
    for o in range(judged.shape[0]):
        _arrange_distances(judged[o], s.take[o], low, high, left, centre, work[o])
    sort(work, ranks.pairs)
    _limits(work[ranks.lower], work[ranks.upper], s.tally, job.numbers, high, limit)
    side = job.mode
    for o in range(judged.shape[0]):
        _drop(judged[o], centre, limit, side, s.take[o], s.drop[o])


@kernel
def _lows(lows: NDArray[np.int16], tally: NDArray[np.int16], left: NDArray[np.int16]) -> None:
    for p in range(left.size):
        left[p] = lows[tally[p]]


@kernel
def _sum(bands: NDArray[np.int64], s: Scratch) -> None:
    """The sum of the bands into `judged`, 0 where invalid."""
    for o in range(s.take.shape[0]):
        judged = s.judged[o]
        judged[:] = 0
        for band in bands:
            add_masked(s.raw[band, o], s.take[o], judged)


@kernel
def _span(
    judged: NDArray[Any], take: NDArray[np.int16], bounds: NDArray[Any], span: NDArray[Any]
) -> None:
    """Widen `span` (least, greatest) to the valid values."""
    lowest, highest = bounds[0], bounds[1]
    least, greatest = highest, lowest
    for p in range(judged.size):
        x = judged[p]
        low = x if take[p] != 0 else highest
        high = x if take[p] != 0 else lowest
        least = low if low < least else least
        greatest = high if high > greatest else greatest
    span[0], span[1] = min(span[0], least), max(span[1], greatest)


@kernel
def _double(judged: NDArray[Any]) -> None:
    for p in range(judged.size):
        judged[p] += judged[p]


@kernel
def _narrow(judged: NDArray[Any], least: Any, out: NDArray[np.uint16]) -> None:
    for p in range(out.size):
        shifted = judged[p] - least
        out[p] = np.uint16(shifted + shifted)


@kernel
def _screen(job: Job, s: Scratch, bands: NDArray[np.int64]) -> None:
    """Note in `drop` what the sum of the bands rejects."""
    _sum(bands, s)
    span = s.span
    span[0], span[1] = s.bounds[1], s.bounds[0]
    for o in range(s.take.shape[0]):
        _span(s.judged[o], s.take[o], s.bounds, span)
    if span[0] > span[1]:
        return  # nothing is valid
    if s.narrow.size and span[1] - span[0] <= _WIDEST:
        for o in range(s.take.shape[0]):
            _narrow(s.judged[o], span[0], s.narrow[o])
        _judge(job, s, s.narrow, s.sorted16, s.twice16, s.limit16, _LOW16, _HIGH16)
    else:
        for o in range(s.take.shape[0]):
            _double(s.judged[o])
        _judge(job, s, s.judged, s.wide, s.twice, s.limit, s.bounds[0], s.bounds[1])


@kernel
def _apply(drop: NDArray[np.int16], take: NDArray[np.int16], tally: NDArray[np.int16]) -> None:
    for p in range(take.size):
        tally[p] += drop[p]
        take[p] ^= drop[p]


@kernel
def screen_mad(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: drop outliers from `take` and `tally`.

    job.bands: judged by their sum, or each by itself, an outlier in one of them being rejected.
    job.mode: BOTH, BRIGHT or DARK. job.numbers: 1000·k, 4·least MAD, each band by itself.
    """
    s.drop[:] = NONE
    if job.numbers[2] == JOINT:
        _screen(job, s, job.bands)
    else:
        for b in range(job.bands.size):
            _screen(job, s, job.bands[b : b + 1])
    for o in range(s.take.shape[0]):
        _apply(s.drop[o], s.take[o], s.tally)
