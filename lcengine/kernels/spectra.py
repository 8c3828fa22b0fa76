"""Stages of the geomedian: its rounded bands, and the deviations of the spectra from it.

The three median absolute deviations (Roberts, Dunn & Mueller 2018, Proc. IGARSS, 2719-2722) are
medians over the observations x of their distances from the unrounded geomedian m: Euclidean
‖x − m‖, spectral 1 − cos(x, m), and Bray-Curtis Σ|x − m| / Σ|x + m|.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import kernel
from lcengine.kernels.geomedian import geomedian
from lcengine.kernels.reducers import rounded, sort
from lcengine.kernels.scratch import Job, Output, Scratch

MAX_STEPS: Final = 1000

SMAD, EMAD, BCMAD = 0, 1, 2  # in the order of `Geomad.extras`

Floats = NDArray[np.float32]

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_INF: Final = np.float32(np.inf)
_NAN: Final = np.float32(np.nan)


def geomad_work(observations: int, width: int) -> int:
    """Number of float32 values that the deviations need besides the geomedian of a strip."""
    return (observations + 2) * width


@kernel
def _centre(job: Job, s: Scratch) -> Floats:
    """Where a strip's geomedian lies, (band, pixel), not rounded and without the origin."""
    bands, width = job.bands.size, s.tally.size
    return s.floats[: bands * width].reshape((bands, width))


@kernel
def reduce_geomedian(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the geomedian of `job.bands`, which come first in the cube.

    job.numbers: eps in stored units. Leaves the unrounded one at the head of `s.floats`.
    """
    bands, width, nodata = job.bands.size, s.tally.size, s.limits[2]
    centre = _centre(job, s)
    work, eps = s.floats[bands * width :], np.float32(job.numbers[0])
    geomedian(s.raw[:bands], s.take, s.tally, eps, MAX_STEPS, work, centre)
    for band in range(bands):
        row, target = centre[band], out.values[job.layer + band, at : at + n]
        for p in range(n):
            value = row[p] if s.tally[p] > 0 else _ZERO
            target[p] = rounded(value, nodata) if s.tally[p] > 0 else nodata


@kernel
def _add_euclidean(raw: NDArray[np.int16], centre: Floats, first: Floats) -> None:
    for p in range(first.size):
        d = np.float32(raw[p]) - centre[p]
        first[p] += d * d


@kernel
def _add_bray_curtis(
    raw: NDArray[np.int16], centre: Floats, origin: np.float32, first: Floats, second: Floats
) -> None:
    twice = origin + origin
    for p in range(first.size):
        x = np.float32(raw[p])
        first[p] += abs(x - centre[p])
        second[p] += abs(x + centre[p] + twice)


@kernel
def _add_square(raw: NDArray[np.int16], origin: np.float32, total: Floats) -> None:
    for p in range(total.size):
        x = np.float32(raw[p]) + origin
        total[p] += x * x


@kernel
def _invert(total: Floats) -> None:
    """Turn squared lengths into reciprocal lengths, 0 of zero."""
    for p in range(total.size):
        square = total[p]
        inverse = _ONE / np.sqrt(square if square > _ZERO else _ONE)
        total[p] = inverse if square > _ZERO else _ZERO


@kernel
def _add_chord(
    raw: NDArray[np.int16],
    inverse: Floats,
    centre: Floats,
    to_unit: Floats,
    origin: np.float32,
    first: Floats,
) -> None:
    """Half the squared distance of the unit vectors is 1 − cos, without cancellation."""
    for p in range(first.size):
        d = (np.float32(raw[p]) + origin) * inverse[p] - (centre[p] + origin) * to_unit[p]
        first[p] += d * d


@kernel
def _distances(kind: int, s: Scratch, centre: Floats, o: int, work: Floats, row: Floats) -> None:
    """Distances of one observation from the centre. work: (2, pixel), its second row is kept."""
    helper, to_unit, bands = work[0], work[1], centre.shape[0]
    row[:] = _ZERO
    helper[:] = _ZERO
    if kind == EMAD:
        for b in range(bands):
            _add_euclidean(s.raw[b, o], centre[b], row)
        for p in range(row.size):
            row[p] = np.sqrt(row[p])
    elif kind == BCMAD:
        for b in range(bands):
            _add_bray_curtis(s.raw[b, o], centre[b], s.origin, row, helper)
        for p in range(row.size):
            below = helper[p]
            ratio = row[p] / (below if below > _ZERO else _ONE)
            row[p] = ratio if below > _ZERO else _ZERO
    else:
        for b in range(bands):
            _add_square(s.raw[b, o], s.origin, helper)
        _invert(helper)
        for b in range(bands):
            _add_chord(s.raw[b, o], helper, centre[b], to_unit, s.origin, row)
        for p in range(row.size):
            alone = (helper[p] == _ZERO) != (to_unit[p] == _ZERO)
            half = row[p] * _HALF
            row[p] = _ONE if alone else half


@kernel
def _hide(row: Floats, mask: NDArray[np.int16], left: NDArray[np.int16]) -> None:
    """What stands for the invalid: the first `left` of them sort low."""
    for p in range(row.size):
        distance = row[p]
        extreme = -_INF if left[p] > 0 else _INF
        row[p] = distance if mask[p] != 0 else extreme
        left[p] += ~mask[p]


@kernel
def _write_middle(low: Floats, high: Floats, tally: NDArray[np.int16], out: Floats) -> None:
    for p in range(out.size):
        a, b = low[p], high[p]
        middle = (a + b) * _HALF if tally[p] & 1 == 0 else a
        out[p] = middle if tally[p] > 0 else _NAN


@kernel
def _zero_where_none(centre: Floats, tally: NDArray[np.int16]) -> None:
    for p in range(centre.size):
        value = centre[p]
        centre[p] = value if tally[p] > 0 else _ZERO


@kernel
def deviate(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage, right after `reduce_geomedian`: smad, emad, bcmad. job.ranks: of the median.

    A spectrum of zeros is at cosine distance 1 from any other, and zeros are at Bray-Curtis
    distance 0 from zeros.
    """
    centre = _centre(job, s)
    bands, width = centre.shape
    rows = s.take.shape[0]
    free = s.floats[bands * width :]
    matrix = free[: rows * width].reshape((rows, width))
    work = free[rows * width : (rows + 2) * width].reshape((2, width))
    to_unit = work[1]
    to_unit[:] = _ZERO
    for b in range(bands):
        _zero_where_none(centre[b], s.tally)
        for p in range(width):
            m = centre[b, p] + s.origin
            to_unit[p] += m * m
    _invert(to_unit)
    for kind in range(3):
        for p in range(width):
            s.spare[p] = job.ranks.lows[s.tally[p]]
        for o in range(rows):
            _distances(kind, s, centre, o, work, matrix[o])
            _hide(matrix[o], s.take[o], s.spare)
        sort(matrix, job.ranks.pairs)
        target = out.extras[job.extra + kind, at : at + n]
        _write_middle(matrix[job.ranks.lower], matrix[job.ranks.upper], s.tally, target)
