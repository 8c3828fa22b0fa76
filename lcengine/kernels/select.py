"""Reducers that choose a real observation per pixel, and the gather of its values.

A chooser works on a strip like the other stages: `raw` (band, observation, pixel) int16 or float32,
`take` (observation, pixel) int16, −1 where valid in all bands, else 0, observations in the order of
time. It sets `chosen` (pixel,) int16 to an observation, or to −1 where there is none to choose.
What `raw` and a score hold where `take` is 0 has no influence. `take_chosen` then gathers the
chosen observation's values, band by band.

Scores (`lcengine.kernels.scores`) are (observation, pixel) float32. An observation whose score is
not finite, such as 0/0, is not chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import by_type, kernel
from lcengine.kernels.reducers import sort
from lcengine.kernels.scratch import ALL, NONE, Ranks

_ONE: Final = np.int16(1)
_ZERO: Final = np.float64(0.0)
_FAR: Final = np.float64(np.inf)
_HALF: Final = np.float32(0.5)
_INFINITE: Final = np.float32(np.inf)
_BARREN: Final = np.float32(-0.05)  # a median NDVI below: water, snow
_GROUP: Final = 6  # bands in one pass over two observations


def _difference(a: Any, b: Any) -> Any:
    """a − b in float64, exact for int16."""
    raise NotImplementedError


@by_type(_difference)
def _(a: Any, b: Any) -> Callable[[Any, Any], Any]:
    if str(a) == "float32":
        return lambda a, b: np.float64(a) - np.float64(b)
    return lambda a, b: np.float64(np.int32(np.int32(a) - np.int32(b)))


def _offset(value: Any, centre: Any) -> Any:
    """float64: a float32 value less its centre, or twice an int16 value less twice its centre."""
    raise NotImplementedError


@by_type(_offset)
def _(value: Any, centre: Any) -> Callable[[Any, Any], Any]:
    if str(value) == "float32":
        return lambda value, centre: np.float64(value) - np.float64(centre)
    return lambda value, centre: np.float64(np.int32(value + value - centre))


# --------------------------------------------------------------------------------- by distances


@kernel
def _any(mask: NDArray[np.int16]) -> bool:
    found = NONE
    for p in range(mask.size):
        found |= mask[p]
    return bool(found != NONE)


@kernel
def _add_square(a: NDArray[Any], b: NDArray[Any], square: NDArray[np.float64]) -> None:
    for p in range(square.size):
        d = _difference(a[p], b[p])
        square[p] += d * d


@kernel
def _pair(raw: NDArray[Any], band: int, a: int, b: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A band of two observations; for a band too many, two rows that do not differ."""
    if band < raw.shape[0]:
        return raw[band, a], raw[band, b]
    return raw[0, a], raw[0, a]


@kernel
def _add_distance(
    raw: NDArray[Any],
    band: int,
    a: int,
    b: int,
    take: NDArray[np.int16],
    square: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Complete the squared distance with the bands from `band`, add its root to both totals."""
    a0, b0 = _pair(raw, band, a, b)
    a1, b1 = _pair(raw, band + 1, a, b)
    a2, b2 = _pair(raw, band + 2, a, b)
    a3, b3 = _pair(raw, band + 3, a, b)
    a4, b4 = _pair(raw, band + 4, a, b)
    a5, b5 = _pair(raw, band + 5, a, b)
    take_a, take_b, total_a, total_b = take[a], take[b], total[a], total[b]
    for p in range(square.size):
        d0, d1 = _difference(a0[p], b0[p]), _difference(a1[p], b1[p])
        d2, d3 = _difference(a2[p], b2[p]), _difference(a3[p], b3[p])
        d4, d5 = _difference(a4[p], b4[p]), _difference(a5[p], b5[p])
        # From left to right: the order of the bands, which float32 data can tell.
        whole = square[p] + d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4 + d5 * d5
        root = math.sqrt(whole)  # on its own line: of a condition's arm, all would be masked loads
        distance = root if take_a[p] & take_b[p] != 0 else _ZERO
        total_a[p] += distance
        total_b[p] += distance


@kernel
def _keep_least(
    values: NDArray[np.float64],
    mask: NDArray[np.int16],
    observation: np.int16,
    least: NDArray[np.float64],
    chosen: NDArray[np.int16],
) -> None:
    for p in range(chosen.size):
        # Whatever the first valid one has is better than none, be it infinite.
        better = (mask[p] != 0) & ((values[p] < least[p]) | (chosen[p] < 0))
        least[p] = values[p] if better else least[p]
        chosen[p] = observation if better else chosen[p]


@kernel
def medoid(
    raw: NDArray[Any],
    take: NDArray[np.int16],
    work: NDArray[np.float64],
    chosen: NDArray[np.int16],
) -> None:
    """Choose the observation with the least sum of distances to all others. Ties: the earliest.

    Flood 2013, Remote Sensing 5(12), 6481-6500. Euclidean distances over all bands, in float64; the
    squares of int16 data are exact. Every sum is taken over the others in the order of time, so its
    last bit is the same anywhere.

    work: (observation + 1, pixel) float64.
    """
    observations, early = take.shape[0], max(raw.shape[0] - _GROUP, 0)
    work[:] = _ZERO
    square = work[observations]
    # The sum of b takes in the earlier ones as their turn comes, then as `a` the later ones.
    for a in range(observations):
        if not _any(take[a]):
            continue
        for b in range(a + 1, observations):
            if not _any(take[b]):
                continue
            if early > 0:
                square[:] = _ZERO
            for band in range(early):
                _add_square(raw[band, a], raw[band, b], square)
            _add_distance(raw, early, a, b, take, square, work)
    square[:] = _FAR
    chosen[:] = ALL
    for o in range(observations):
        _keep_least(work[o], take[o], np.int16(o), square, chosen)


@kernel
def _add_offset(values: NDArray[Any], centre: NDArray[Any], square: NDArray[np.float64]) -> None:
    for p in range(square.size):
        d = _offset(values[p], centre[p])
        square[p] += d * d


@kernel
def nearest_to_median(
    raw: NDArray[Any],
    take: NDArray[np.int16],
    centre: NDArray[Any],
    work: NDArray[np.float64],
    chosen: NDArray[np.int16],
) -> None:
    """Choose the observation nearest to the median of each band, in space. Ties: the earliest.

    The cheap medoid of S2Mosaic. Euclidean distance over all bands; exact for int16 data.

    centre: (band, pixel), int32 twice the median of int16 data, so that halves are exact; float32
        the median of float32 data. work: (2, pixel) float64.
    """
    square, least = work[0], work[1]
    least[:] = _FAR
    chosen[:] = ALL
    for o in range(take.shape[0]):
        square[:] = _ZERO
        for band in range(raw.shape[0]):
            _add_offset(raw[band, o], centre[band], square)
        _keep_least(square, take[o], np.int16(o), least, chosen)


# ------------------------------------------------------------------------------------- by scores


@kernel
def _usable(score: np.float32, mask: np.int16) -> bool:
    return bool((mask != 0) & (abs(score) < _INFINITE))


@kernel
def _count(score: NDArray[np.float32], take: NDArray[np.int16], tally: NDArray[np.int16]) -> None:
    """Count the observations that may be chosen."""
    tally[:] = NONE
    for o in range(take.shape[0]):
        values, mask = score[o], take[o]
        for p in range(tally.size):
            tally[p] += _ONE if _usable(values[p], mask[p]) else NONE


@kernel
def _sort_scores(
    score: NDArray[np.float32],
    take: NDArray[np.int16],
    ranks: Ranks,
    left: NDArray[np.int16],
    work: NDArray[np.float32],
) -> None:
    """Put the wanted ranks of the scores into their rows of `work`."""
    _count(score, take, left)
    for p in range(left.size):
        left[p] = ranks.lows[left[p]]
    for o in range(take.shape[0]):
        values, mask, row = score[o], take[o], work[o]
        for p in range(left.size):
            usable = _usable(values[p], mask[p])
            extreme = -_INFINITE if left[p] > 0 else _INFINITE
            row[p] = values[p] if usable else extreme
            left[p] -= NONE if usable else _ONE
    sort(work, ranks.pairs)


@kernel
def _drop_lower(
    values: NDArray[np.float32],
    mask: NDArray[np.int16],
    wanted: NDArray[np.float32],
    left: NDArray[np.int16],
) -> None:
    for p in range(left.size):
        lower = _usable(values[p], mask[p]) & (values[p] < wanted[p])
        left[p] -= _ONE if lower else NONE


@kernel
def _keep_equal(
    values: NDArray[np.float32],
    mask: NDArray[np.int16],
    observation: np.int16,
    wanted: NDArray[np.float32],
    left: NDArray[np.int16],
    chosen: NDArray[np.int16],
) -> None:
    for p in range(chosen.size):
        equal = _usable(values[p], mask[p]) & (values[p] == wanted[p])
        chosen[p] = observation if equal & (left[p] == 0) else chosen[p]
        left[p] -= _ONE if equal else NONE


@kernel
def rank_by_score(
    score: NDArray[np.float32],
    take: NDArray[np.int16],
    ranks: Ranks,
    left: NDArray[np.int16],
    work: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    """Choose the observation at a percentile of the score: percentile by index, as eo-learn does.

    The ascending sort is stable: of equal scores the earlier comes first. `ranks` are those of the
    `nearest` rule, index floor((n − 1)·percent/100 + 0.5) of n observations with a finite score.
    `end_of_scores` is the faster way for percents 0 and 100.

    left: (pixel,) int16. work: (observation, pixel) float32.
    """
    _sort_scores(score, take, ranks, left, work)
    wanted = work[ranks.lower]
    # Of the equal scores, the one that as many precede as the rank says less the lower ones.
    _count(score, take, left)
    for p in range(left.size):
        left[p] = np.int16(ranks.lower) - ranks.lows[left[p]]
    for o in range(take.shape[0]):
        _drop_lower(score[o], take[o], wanted, left)
    chosen[:] = ALL
    for o in range(take.shape[0]):
        _keep_equal(score[o], take[o], np.int16(o), wanted, left, chosen)


@kernel
def _keep_greater(
    values: NDArray[np.float32],
    mask: NDArray[np.int16],
    observation: np.int16,
    best: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    for p in range(chosen.size):
        better = _usable(values[p], mask[p]) & (values[p] > best[p])
        best[p] = values[p] if better else best[p]
        chosen[p] = observation if better else chosen[p]


@kernel
def argmax_score(
    score: NDArray[np.float32],
    take: NDArray[np.int16],
    best: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    """Choose the greatest score. Ties: the earliest. best: (pixel,) float32, becomes that score."""
    best[:] = -_INFINITE
    chosen[:] = ALL
    for o in range(take.shape[0]):
        _keep_greater(score[o], take[o], np.int16(o), best, chosen)


@kernel
def _keep_end(
    values: NDArray[np.float32],
    mask: NDArray[np.int16],
    observation: np.int16,
    low: NDArray[np.int16],
    best: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    for p in range(chosen.size):
        least = low[p] != 0
        value = -values[p] if least else values[p]
        # The ends of a stable sort: the first of the least, the last of the greatest.
        better = (value > best[p]) | ((value == best[p]) & (not least))
        better &= _usable(value, mask[p])
        best[p] = value if better else best[p]
        chosen[p] = observation if better else chosen[p]


@kernel
def end_of_scores(
    score: NDArray[np.float32],
    take: NDArray[np.int16],
    low: NDArray[np.int16],
    best: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    """Choose as `rank_by_score` at percent 0 where `low` (pixel,) int16 is set, else at 100.

    That is the earliest of the least and the latest of the greatest. best: (pixel,) float32.
    """
    best[:] = -_INFINITE
    chosen[:] = ALL
    for o in range(take.shape[0]):
        _keep_end(score[o], take[o], np.int16(o), low, best, chosen)


@kernel
def ndvi_rule(
    score: NDArray[np.float32],
    take: NDArray[np.int16],
    centre: Ranks,
    left: NDArray[np.int16],
    work: NDArray[np.float32],
    chosen: NDArray[np.int16],
) -> None:
    """Choose by NDVI as eo-learn: percent 100, or 0 where the median of the NDVI is below −0.05.

    centre: ranks of the median. left: (pixel,) int16. work: (observation, pixel) float32.
    """
    _sort_scores(score, take, centre, left, work)
    _count(score, take, left)
    lower, upper = work[centre.lower], work[centre.upper]
    for p in range(left.size):
        middle = (lower[p] + upper[p]) * _HALF if left[p] & _ONE == NONE else lower[p]
        left[p] = ALL if middle < _BARREN else NONE
    end_of_scores(score, take, left, work[0], chosen)


# ---------------------------------------------------------------------------- by time, and gather


@kernel
def _note(mask: NDArray[np.int16], observation: np.int16, chosen: NDArray[np.int16]) -> None:
    for p in range(chosen.size):
        chosen[p] = observation if mask[p] != 0 else chosen[p]


@kernel
def first_valid(take: NDArray[np.int16], chosen: NDArray[np.int16]) -> None:
    """Choose the earliest valid observation."""
    chosen[:] = ALL
    for o in range(take.shape[0] - 1, -1, -1):
        _note(take[o], np.int16(o), chosen)


@kernel
def last_valid(take: NDArray[np.int16], chosen: NDArray[np.int16]) -> None:
    """Choose the latest valid observation."""
    chosen[:] = ALL
    for o in range(take.shape[0]):
        _note(take[o], np.int16(o), chosen)


@kernel
def _copy_where(
    values: NDArray[Any], chosen: NDArray[np.int16], observation: np.int16, out: NDArray[Any]
) -> None:
    for p in range(out.size):
        value, before = values[p], out[p]
        out[p] = value if chosen[p] == observation else before


@kernel
def take_chosen(
    values: NDArray[Any], chosen: NDArray[np.int16], nodata: Any, out: NDArray[Any]
) -> None:
    """Gather from one band, or from a score, (observation, pixel) what was chosen.

    nodata: what `out` (up to pixel,) takes where nothing was; both of the type of `values`.
    """
    out[:] = nodata
    for o in range(values.shape[0]):
        _copy_where(values[o], chosen, np.int16(o), out)
