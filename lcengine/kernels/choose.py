"""Stages of the reducers that take the whole spectrum of one real observation.

What is chosen is decided in `lcengine.kernels.select`, on the scores of `lcengine.kernels.scores`;
these stages bind them to a strip's scratch and write what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels import scores, select
from lcengine.kernels._jit import by_type, kernel
from lcengine.kernels.reducers import fill_missing, rank
from lcengine.kernels.scratch import ALL, NONE, Job, Output, Scratch

NDVI_RULE: Final = 0  # how a score becomes a choice: eo-learn's rule for the NDVI
RANK: Final = 1  # a percentile
LOW_END: Final = 2  # percentile 0
HIGH_END: Final = 3  # percentile 100
GREATEST: Final = 4  # the greatest, the earliest of equals

_MISSING: Final = np.float32(np.nan)


@kernel
def _write_items(s: Scratch, out: NDArray[np.int16]) -> None:
    """The items behind the chosen observations."""
    chosen = s.chosen
    for p in range(out.size):
        o = chosen[p]
        out[p] = s.member[o, p] if s.member.size and o >= 0 else o


@kernel
def _write(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Put out the spectra and the items that were chosen."""
    for b in range(job.bands.size):
        target = out.values[job.layer + b, at : at + n]
        select.take_chosen(s.raw[job.bands[b]], s.chosen, s.limits[2], target)
    _write_items(s, out.chosen[job.slot, at : at + n])


@kernel
def choose_end(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the earliest valid observation, or, with a mode, the latest."""
    if job.mode:
        select.last_valid(s.take, s.chosen)
    else:
        select.first_valid(s.take, s.chosen)
    _write(job, s, out, at, n)


@kernel
def choose_medoid(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the medoid of `job.bands`, which come first in the cube."""
    rows, width = s.take.shape[0] + 1, s.chosen.size
    work = s.doubles[: rows * width].reshape((rows, width))
    select.medoid(s.raw[: job.bands.size], s.take, work, s.chosen)
    _write(job, s, out, at, n)


def _centre(floats: NDArray[np.float32], like: Any) -> Any:
    """Memory of medians: int32, in which they are doubled, or float32."""
    raise NotImplementedError


@by_type(_centre)
def _(floats: NDArray[np.float32], like: Any) -> Callable[..., Any]:
    if str(like) == "float32":
        return lambda floats, like: floats
    return lambda floats, like: floats.view(np.int32)


def _median(a: Any, b: Any) -> Any:
    """Twice the middle of two integers, as int32, or the middle of two float32."""
    raise NotImplementedError


@by_type(_median)
def _(a: Any, b: Any) -> Callable[..., Any]:
    if str(a) == "float32":
        return lambda a, b: (a + b) * np.float32(0.5)
    return lambda a, b: np.int32(a) + np.int32(b)


@kernel
def choose_nearest(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the observation nearest to the median of `job.bands`, which come first in the cube."""
    bands, width, ranks = job.bands.size, s.chosen.size, job.ranks
    centre = _centre(s.floats[: bands * width], s.limits[0]).reshape((bands, width))
    s.spare[:] = s.tally
    fill_missing(s.take, ranks.lows, s.limits[0], s.limits[1], s.spare, s.fill)
    for band in range(bands):
        rank(job, s, band)
        low, high, row = s.work[ranks.lower], s.work[ranks.upper], centre[band]
        for p in range(width):
            a, b = low[p], high[p]
            row[p] = _median(a, b if s.tally[p] & 1 == 0 else a)
    work = s.doubles[: 2 * width].reshape((2, width))
    select.nearest_to_median(s.raw[:bands], s.take, centre, work, s.chosen)
    _write(job, s, out, at, n)


@kernel
def _score_rows(s: Scratch, start: int) -> NDArray[np.float32]:
    """One of the (observation, pixel) float32 arrays in the scratch."""
    rows, width = s.take.shape[0], s.chosen.size
    size = rows * width
    return s.floats[start * size : (start + 1) * size].reshape((rows, width))


@kernel
def choose_by_index(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the observation that an index singles out.

    job.numbers: the index, then its bands. job.mode: how. job.ranks: the percentile, or the median
    for eo-learn's rule.
    """
    score, work = _score_rows(s, 0), _score_rows(s, 1)
    kind, a, b, c = job.numbers
    scores.index_score(int(kind), s.raw, s.origin, s.unit, int(a), int(b), int(c), score)
    if job.mode == NDVI_RULE:
        select.ndvi_rule(score, s.take, job.ranks, s.spare, work, s.chosen)
    elif job.mode == RANK:
        select.rank_by_score(score, s.take, job.ranks, s.spare, work, s.chosen)
    elif job.mode == GREATEST:
        select.argmax_score(score, s.take, work[0], s.chosen)
    else:
        s.spare[:] = ALL if job.mode == LOW_END else NONE
        select.end_of_scores(score, s.take, s.spare, work[0], s.chosen)
    _write(job, s, out, at, n)


@kernel
def choose_best(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the best available pixel, and its score.

    job.numbers: the bands blue, red and distance. job.series: the season's part of the score, and
    then, behind the observations, the shares of clouds and haze and the reach of clouds.
    """
    score, work = _score_rows(s, 0), _score_rows(s, 1)
    observations = s.take.shape[0]
    shares: Any = job.series[observations:]
    terms = scores.BapTerms(job.series, shares[0], shares[1], shares[2])
    blue, red, distance, _ = job.numbers
    metres = s.raw[int(distance)]
    for o in range(observations):
        for p in range(work.shape[1]):
            work[o, p] = np.float32(metres[o, p]) + s.origin
    scores.bap_score(s.raw, s.origin, s.unit, int(blue), int(red), terms, work, score)
    select.argmax_score(score, s.take, work[0], s.chosen)
    _write(job, s, out, at, n)
    best = work[0]
    for p in range(n):
        out.extras[job.extra, at + p] = best[p] if s.chosen[p] >= 0 else _MISSING
