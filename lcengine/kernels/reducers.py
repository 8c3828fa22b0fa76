"""Reducers per band: ranks (median, percentiles) and the mean.

An invalid observation takes the smallest or the largest value of its type, so many of each that a
wanted rank among the valid observations sits at the same rank among all of them, however many are
valid. One comparator network (`lcengine.kernels.networks`) then serves every pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import by_type, kernel
from lcengine.kernels.scratch import Job, Output, Scratch

MEDIAN: Final = 0  # how ranks become a value: half-way between two
LINEAR: Final = 1  # NumPy's linear interpolation
NEAREST: Final = 2  # one rank

_ZERO, _ONE = np.int16(0), np.int16(1)


@kernel
def fill_missing(
    take: NDArray[np.int16],
    lows: NDArray[np.int16],
    low: Any,
    high: Any,
    left: NDArray[np.int16],
    fill: NDArray[Any],
) -> None:
    """Set `fill` to what stands for an invalid observation: the first `lows[left]` sort low.

    `left`: (pixel,) valid observations, used up. `low`, `high`: the extremes in fill's type.
    """
    for p in range(left.size):
        left[p] = lows[left[p]]
    for o in range(take.shape[0]):
        row, mask = fill[o], take[o]
        for p in range(left.size):
            row[p] = low if left[p] > 0 else high
            left[p] += ~mask[p]


@kernel
def sort(work: NDArray[Any], pairs: NDArray[np.uint16]) -> None:
    """Run a comparator network on the rows of `work` (observation, pixel)."""
    for pair in range(pairs.shape[0]):
        low, high = work[pairs[pair, 0]], work[pairs[pair, 1]]
        for p in range(low.size):
            a, b = low[p], high[p]
            low[p] = a if a < b else b
            high[p] = b if a < b else a


@kernel
def select(
    values: NDArray[Any], mask: NDArray[np.int16], other: NDArray[Any], out: NDArray[Any]
) -> None:
    """out = values where the mask is set, else other."""
    for p in range(out.size):
        a, b = values[p], other[p]  # fetched without a branch, or the loop stays scalar
        out[p] = a if mask[p] != 0 else b


def _middle(a: Any, b: Any) -> Any:
    """Half-way between two values; of integers rounded half to even."""
    raise NotImplementedError


@by_type(_middle)
def _(a: Any, b: Any) -> Callable[..., Any]:
    if str(a) == "float32":
        return lambda a, b: (a + b) * np.float32(0.5)

    def middle(a: Any, b: Any) -> Any:  # never leaves 16 bits
        half = (a & b) + ((a ^ b) >> 1)
        return np.int16(half + (half & (a ^ b) & 1))

    return middle


def _between(a: Any, b: Any, weight: Any, origin: Any) -> Any:
    """Between stored values at a weight of b, as NumPy interpolates the true numbers."""
    raise NotImplementedError


@by_type(_between)
def _(a: Any, b: Any, weight: Any, origin: Any) -> Callable[..., Any]:
    # NumPy's formula has two branches, and float32 numbers take the weights as float32.
    if str(a) == "float32":

        def single(a: Any, b: Any, weight: Any, origin: Any) -> Any:
            up, down = (b - a) * np.float32(weight), (b - a) * np.float32(1.0 - weight)
            return a + up if weight < 0.5 else b - down

        return single

    def integer(a: Any, b: Any, weight: Any, origin: Any) -> Any:
        true_a, true_b = np.float64(a) + origin, np.float64(b) + origin
        up, down = (true_b - true_a) * weight, (true_b - true_a) * (1.0 - weight)
        value = true_a + up if weight < 0.5 else true_b - down
        return np.int16(np.rint(value) - origin)

    return integer


def rounded(value: Any, like: Any) -> Any:
    """A float as a stored value of the type of `like`; integers by rounding half to even."""
    raise NotImplementedError


@by_type(rounded)
def _(value: Any, like: Any) -> Callable[..., Any]:
    if str(like) == "float32":
        return lambda value, like: np.float32(value)
    return lambda value, like: np.int16(np.rint(value))


@kernel
def _write_median(
    low: NDArray[Any], high: NDArray[Any], tally: NDArray[np.int16], nodata: Any, out: NDArray[Any]
) -> None:
    for p in range(out.size):
        a = low[p]
        b = high[p] if tally[p] & 1 == 0 else a
        out[p] = _middle(a, b) if tally[p] > 0 else nodata


@kernel
def _write_linear(
    low: NDArray[Any],
    high: NDArray[Any],
    weight: NDArray[np.float64],
    tally: NDArray[np.int16],
    origin: np.float32,
    nodata: Any,
    out: NDArray[Any],
) -> None:
    for p in range(out.size):
        a, b, w = low[p], high[p], weight[tally[p]]
        value = _between(a, b if w > 0 else a, w, origin)
        out[p] = value if tally[p] > 0 else nodata


@kernel
def rank(job: Job, s: Scratch, band: int) -> None:
    """Leave the wanted ranks of a band in rows `lower` and `upper` of `work`; `fill` is made."""
    for o in range(s.work.shape[0]):
        select(s.raw[band, o], s.take[o], s.fill[o], s.work[o])
    sort(s.work, job.ranks.pairs)


@kernel
def reduce_ranks(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: a rank of `job.bands`, or what lies between two, in the way of `job.mode`."""
    ranks, nodata = job.ranks, s.limits[2]
    s.spare[:] = s.tally
    fill_missing(s.take, ranks.lows, s.limits[0], s.limits[1], s.spare, s.fill)
    for b in range(job.bands.size):
        rank(job, s, job.bands[b])
        target = out.values[job.layer + b, at : at + n]
        low, high = s.work[ranks.lower], s.work[ranks.upper]
        if job.mode == MEDIAN:
            _write_median(low, high, s.tally, nodata, target)
        elif job.mode == LINEAR:
            _write_linear(low, high, ranks.weight, s.tally, s.origin, nodata, target)
        else:
            for p in range(n):
                target[p] = low[p] if s.tally[p] > 0 else nodata


@kernel
def add_masked(values: NDArray[Any], mask: NDArray[np.int16], total: NDArray[Any]) -> None:
    """Add the values under the mask to sums, int32 or float64."""
    for p in range(total.size):
        value = values[p]
        total[p] += value if mask[p] != 0 else _ZERO


@kernel
def _add_four(values: NDArray[Any], take: NDArray[np.int16], o: int, total: NDArray[Any]) -> None:
    """Add four observations, so that the sums are fetched and stored once for them."""
    a, b, c, d = values[o], values[o + 1], values[o + 2], values[o + 3]
    ta, tb, tc, td = take[o], take[o + 1], take[o + 2], take[o + 3]
    for p in range(total.size):
        va, vb, vc, vd = a[p], b[p], c[p], d[p]
        added = total[p] + (va if ta[p] != 0 else _ZERO)
        added = added + (vb if tb[p] != 0 else _ZERO)
        added = added + (vc if tc[p] != 0 else _ZERO)
        total[p] = added + (vd if td[p] != 0 else _ZERO)


@kernel
def reduce_mean(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the mean of `job.bands`."""
    total, tally, nodata = s.twice, s.tally, s.limits[2]
    for b in range(job.bands.size):
        total[:] = 0
        raw, observations = s.raw[job.bands[b]], s.take.shape[0]
        for o in range(0, observations - 3, 4):
            _add_four(raw, s.take, o, total)
        for o in range(observations // 4 * 4, observations):
            add_masked(raw[o], s.take[o], total)
        target = out.values[job.layer + b, at : at + n]
        for p in range(n):
            # A quotient of such integers is a half in float64 only if it is one exactly.
            mean = np.float64(total[p]) / np.float64(max(tally[p], _ONE))
            target[p] = rounded(mean, nodata) if tally[p] > 0 else nodata
