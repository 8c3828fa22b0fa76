"""Tmask (Zhu & Woodcock 2014, RSE 152): robust seasonal curves; see `series.tmask`."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import call, kernel
from lcengine.kernels.stack import Marks, Stacks, borrowed, row_of

MIN_TMASK: Final = 12
"""Fewer clear observations are not judged: the shortest window that pyccd fits."""

_YEAR: Final = 365.25  # days
_TUNE: Final = 4.685 / 0.6745  # bisquare's constant over the MAD of the normal distribution
_DEPENDENT: Final = 1e-10  # share of a column's energy that the columns before it leave over
P: Final = 64  # pixels of a block of Tmask: constant, and with it the offsets of rows of sums
_INF32: Final = np.float32(np.inf)
_INFINITE: Final = np.int32(_INF32.view(np.int32))  # its bits
_ZERO, _ONE, _TOP = np.int32(0), np.int32(1), np.int32(1 << 30)


class Model(NamedTuple):
    """What does not depend on the pixel; angles are counted from day 0.

    days (observation,); annual cos and sin (observation, 2), with zeros to an even number of rows;
    cos and sin of the cycle of y years (observation, y), 0 up to one.
    """

    days: NDArray[np.float64]
    annual: NDArray[np.float64]
    cosines: NDArray[np.float64]
    sines: NDArray[np.float64]
    multiple: float

    @classmethod
    def of(cls, days: NDArray[np.float64], multiple: float) -> Model:
        """The model of a series on these days."""
        most = math.ceil((days[-1] - days[0]) / _YEAR)
        # Number by number: the bits must not depend on the other observations.
        angles = [2 * math.pi / _YEAR * day for day in days.tolist()]
        slow = np.zeros((2, days.size, most + 1))
        for years in range(2, most + 1):
            slow[0, :, years] = [math.cos(angle / years) for angle in angles]
            slow[1, :, years] = [math.sin(angle / years) for angle in angles]
        annual = np.zeros((days.size + days.size % 2, 2))
        annual[: days.size] = [(math.cos(angle), math.sin(angle)) for angle in angles]
        return cls(days, annual, slow[0], slow[1], multiple)


class Fit(NamedTuple):
    """A block's series and sums; float64 where nothing is said.

    (observation, pixel), with zeros to an even number of rows: y of both bands, 0 where not taken;
    take, 1 or 0; cos and sin of the slow cycle; weight, also |residual|; adjust, 1/√(1 − h); bad,
    1 = rejected. sums: (20 × pixel) normal equations, the lower triangle by rows, the right-hand
    side as sixth row; inverse of the pivots and beta, the coefficients, (5 × pixel). work:
    (observation, pixel) float32 whose median is wanted, inf where there is none; bits, picked:
    work and pick in the other type. The rest: (pixel,).
    """

    y: NDArray[np.float64]
    take: NDArray[np.float64]
    cos: NDArray[np.float64]
    sin: NDArray[np.float64]
    weight: NDArray[np.float64]
    adjust: NDArray[np.float64]
    bad: NDArray[np.float64]
    sums: NDArray[np.float64]
    inverse: NDArray[np.float64]
    beta: NDArray[np.float64]
    work: NDArray[np.float32]
    bits: NDArray[np.int32]
    picked: NDArray[np.float32]
    pick: NDArray[np.int32]
    place: NDArray[np.int32]
    seen: NDArray[np.float64]
    rank: NDArray[np.float64]
    variogram: NDArray[np.float64]
    median: NDArray[np.float64]
    before: NDArray[np.float64]
    years: NDArray[np.float64]
    judged: NDArray[np.float64]

    @classmethod
    def empty(cls, observations: int) -> Fit:
        """Working memory of one thread."""
        block = np.zeros((8, observations + observations % 2, P))
        work = np.full((-(-observations // 8) * 8, P), np.inf, np.float32)
        picked = np.zeros((4, P), np.float32)
        fields: list[Any] = [block[:2], *block[2:]]
        fields += [np.zeros(20 * P), np.zeros(5 * P), np.zeros(5 * P)]
        fields += [work, work.view(np.int32), picked, picked.view(np.int32)]
        fields += [np.zeros(P, np.int32), *np.zeros((7, P))]
        return cls(*fields)


@kernel
def _load_fit(
    stacks: Stacks, first: NDArray[np.int64], missing: float, at: int, n: int, s: Fit
) -> None:
    """The clear observations of the n pixels from `at` on; the block's other pixels have none."""
    green, swir, clear = stacks
    for t in range(first.size - 1):
        s.take[t, :], s.y[0, t, :], s.y[1, t, :], s.bad[t, :] = 0.0, 0.0, 0.0, 0.0
        for item in range(first[t], first[t + 1]):
            a, b, c = (
                row_of(green, item, at, n),
                row_of(swir, item, at, n),
                row_of(clear, item, at, n),
            )
            for p in range(n):
                u, v = np.float64(a[p]), np.float64(b[p])
                has = (u != missing) & (v != missing) & (u - u == 0.0) & (v - v == 0.0)
                use = has & (c[p] != 0) & (s.take[t, p] == 0.0)
                s.take[t, p] = 1.0 if use else s.take[t, p]
                s.y[0, t, p] = u if use else s.y[0, t, p]
                s.y[1, t, p] = v if use else s.y[1, t, p]


@kernel
def _span(model: Model, s: Fit, band: int) -> None:
    """Stage before the bands: count the observations, and fill in the slow cycle."""
    s.seen[:], s.years[:] = 0.0, 0.0
    for t in range(model.days.size):
        day = model.days[t]
        for p in range(P):
            new = (s.take[t, p] != 0.0) & (s.seen[p] == 0.0)
            s.before[p] = day if new else s.before[p]
            s.years[p] = (day - s.before[p]) / _YEAR if s.take[t, p] != 0.0 else s.years[p]
            s.seen[p] += s.take[t, p]
    for p in range(P):
        s.years[p] = np.ceil(s.years[p])
        s.judged[p] = 1.0 if s.seen[p] >= MIN_TMASK else 0.0
    for t in range(model.days.size):
        for p in range(P):
            years = np.int64(s.years[p])
            s.cos[t, p], s.sin[t, p] = model.cosines[t, years], model.sines[t, years]


@kernel
def _add(model: Model, s: Fit, band: int, t: int) -> None:
    """Add two observations to the normal equations: columns 1, c, d, slow cos e, slow sin f."""
    sums, u = s.sums, t + 1
    c, d, g, h = model.annual[t, 0], model.annual[t, 1], model.annual[u, 0], model.annual[u, 1]
    for p in range(P):
        w, e, f, y = s.weight[t, p], s.cos[t, p], s.sin[t, p], s.y[band, t, p]
        v, i, j, z = s.weight[u, p], s.cos[u, p], s.sin[u, p], s.y[band, u, p]
        wc, wd, we, wf, wy = w * c, w * d, w * e, w * f, w * y
        vg, vh, vi, vj, vz = v * g, v * h, v * i, v * j, v * z
        sums[p] = sums[p] + w + v
        sums[P + p] = sums[P + p] + wc + vg
        sums[2 * P + p] = sums[2 * P + p] + wc * c + vg * g
        sums[3 * P + p] = sums[3 * P + p] + wd + vh
        sums[4 * P + p] = sums[4 * P + p] + wd * c + vh * g
        sums[5 * P + p] = sums[5 * P + p] + wd * d + vh * h
        sums[6 * P + p] = sums[6 * P + p] + we + vi
        sums[7 * P + p] = sums[7 * P + p] + we * c + vi * g
        sums[8 * P + p] = sums[8 * P + p] + we * d + vi * h
        sums[9 * P + p] = sums[9 * P + p] + we * e + vi * i
        sums[10 * P + p] = sums[10 * P + p] + wf + vj
        sums[11 * P + p] = sums[11 * P + p] + wf * c + vj * g
        sums[12 * P + p] = sums[12 * P + p] + wf * d + vj * h
        sums[13 * P + p] = sums[13 * P + p] + wf * e + vj * i
        sums[14 * P + p] = sums[14 * P + p] + wf * f + vj * j
        sums[15 * P + p] = sums[15 * P + p] + wy + vz
        sums[16 * P + p] = sums[16 * P + p] + wy * c + vz * g
        sums[17 * P + p] = sums[17 * P + p] + wy * d + vz * h
        sums[18 * P + p] = sums[18 * P + p] + wy * e + vz * i
        sums[19 * P + p] = sums[19 * P + p] + wy * f + vz * j


@kernel
def _at(i: int, j: int) -> int:
    """Where row i, column j of the lower triangle lies in `sums`."""
    return (i * (i + 1) // 2 + j) * P


@kernel
def _solve(s: Fit) -> None:
    """LDLᵀ in place, its rank, and the coefficients; those of dependent columns are 0."""
    sums, inverse, beta = s.sums, s.inverse, s.beta
    for k in range(5):
        for p in range(P):
            beta[k * P + p] = sums[_at(k, k) + p] * _DEPENDENT
    s.rank[:] = 0.0
    for p in range(P):
        for k in range(5):
            pivot = sums[_at(k, k) + p]
            real = pivot > beta[k * P + p]
            scale = 1.0 / pivot if real else 0.0
            inverse[k * P + p] = scale
            s.rank[p] += 1.0 if real else 0.0
            for i in range(k + 1, 6):
                factor = sums[_at(i, k) + p] * scale
                for j in range(k + 1, min(i, 4) + 1):
                    sums[_at(i, j) + p] -= factor * sums[_at(j, k) + p]
    for p in range(P):
        for k in range(4, -1, -1):
            rest = sums[_at(5, k) + p]
            for i in range(k + 1, 5):
                rest -= sums[_at(i, k) + p] * beta[i * P + p]
            beta[k * P + p] = rest * inverse[k * P + p]


@kernel
def _fit(model: Model, s: Fit, band: int) -> None:
    """Stage: weighted least squares; then `weight` is |y − model|, 0 where not taken."""
    s.sums[:] = 0.0
    for t in range(0, s.take.shape[0], 2):
        _add(model, s, band, t)
    _solve(s)
    beta = s.beta
    for t in range(s.take.shape[0]):
        c, d = model.annual[t, 0], model.annual[t, 1]
        for p in range(P):
            fit = beta[p] + beta[P + p] * c + beta[2 * P + p] * d
            fit += beta[3 * P + p] * s.cos[t, p] + beta[4 * P + p] * s.sin[t, p]
            s.weight[t, p] = abs(s.y[band, t, p] - fit) * s.take[t, p]


@kernel
def _leverages(model: Model, s: Fit, band: int) -> None:
    """Stage: 1/√(1 − h) of the observations, h = xᵀ(XᵀX)⁻¹x by forward substitution."""
    sums, inverse = s.sums, s.inverse
    for t in range(s.take.shape[0]):
        c, d = model.annual[t, 0], model.annual[t, 1]
        for p in range(P):
            q0 = inverse[p]
            z1 = c - sums[P + p] * q0
            q1 = z1 * inverse[P + p]
            z2 = d - sums[3 * P + p] * q0 - sums[4 * P + p] * q1
            q2 = z2 * inverse[2 * P + p]
            z3 = s.cos[t, p] - sums[6 * P + p] * q0 - sums[7 * P + p] * q1 - sums[8 * P + p] * q2
            q3 = z3 * inverse[3 * P + p]
            z4 = s.sin[t, p] - sums[10 * P + p] * q0 - sums[11 * P + p] * q1
            z4 -= sums[12 * P + p] * q2 + sums[13 * P + p] * q3
            h = q0 + z1 * q1 + z2 * q2 + z3 * q3 + z4 * z4 * inverse[4 * P + p]
            s.adjust[t, p] = 1.0 / np.sqrt(1.0 - min(h, 0.9999))


@kernel
def _count(bits: NDArray[np.int32], bound: NDArray[np.int32], count: NDArray[np.int32]) -> None:
    """How many of each column are smaller than its bound; eight rows at a time."""
    count[:] = 0
    for t in range(0, bits.shape[0], 8):
        for p in range(P):
            least, n = bound[p], count[p]
            for row in range(8):
                n += np.int32(bits[t + row, p] < least)
            count[p] = n


@kernel
def _median(s: Fit, fewer: float) -> None:
    """Median of `work` without the rank − 1 smallest; there are seen − fewer values.

    The bits of floats that are not negative sort as integers: bit by bit from the highest, the
    wanted value has it if no more values lie below than its rank.
    """
    low, high, bound, count = s.pick[0], s.pick[1], s.pick[2], s.pick[3]
    place, bits = s.place, s.bits
    for p in range(P):
        place[p] = np.int32(np.floor(0.5 * (s.seen[p] - fewer - s.rank[p])) + s.rank[p] - 1.0)
        low[p], high[p], bound[p] = _ZERO, _INFINITE, _TOP
    bit = _TOP
    while bit > 0:
        _count(bits, bound, count)
        half = bit >> 1
        for p in range(P):
            low[p] = bound[p] if count[p] <= place[p] else low[p]
            bound[p] = low[p] | half
        bit = half
    for p in range(P):
        bound[p] = low[p] + _ONE
    _count(bits, bound, count)
    for t in range(bits.shape[0]):
        for p in range(P):
            value = bits[t, p] if bits[t, p] > low[p] else _INFINITE
            high[p] = value if value < high[p] else high[p]
    for p in range(P):
        even = 0.5 * (s.seen[p] - fewer - s.rank[p])
        a = np.float64(s.picked[0, p])
        same = (even == np.floor(even)) | (count[p] > place[p] + _ONE)
        s.median[p] = 0.5 * (a + (a if same else np.float64(s.picked[1, p])))


@kernel
def _variogram(model: Model, s: Fit, band: int) -> None:
    """Stage: the median difference of successive observations, and equal weights."""
    s.rank[:], s.before[:] = 1.0, np.inf
    for t in range(s.take.shape[0]):
        for p in range(P):
            step = np.float32(abs(s.y[band, t, p] - s.before[p]))
            s.work[t, p] = step if s.take[t, p] != 0.0 else _INF32
            s.before[p] = s.y[band, t, p] if s.take[t, p] != 0.0 else s.before[p]
            s.weight[t, p] = s.take[t, p]  # copying whole arrays takes seconds to compile
    _median(s, 1.0)
    for p in range(P):
        s.variogram[p] = s.median[p]
        s.judged[p] = s.judged[p] if s.median[p] > 0.0 else 0.0


@kernel
def _bisquare(model: Model, s: Fit, band: int) -> None:
    """Stage: weights in the place of the residuals that they are made of."""
    for t in range(s.take.shape[0]):
        for p in range(P):
            s.weight[t, p] *= s.adjust[t, p]
            s.work[t, p] = np.float32(s.weight[t, p]) if s.take[t, p] != 0.0 else _INF32
    _median(s, 0.0)
    for p in range(P):
        s.median[p] = 1.0 / (_TUNE * max(s.median[p], 0.6745e-6 * s.variogram[p]))
    for t in range(s.take.shape[0]):
        for p in range(P):
            ratio = s.weight[t, p] * s.median[p]
            rest = 1.0 - ratio * ratio
            s.weight[t, p] = s.take[t, p] * (rest * rest) if ratio < 1.0 else 0.0


@kernel
def _judge(model: Model, s: Fit, band: int) -> None:
    """Stage: note the outliers of the band."""
    for t in range(s.take.shape[0]):
        for p in range(P):
            far = s.weight[t, p] > model.multiple * s.variogram[p]
            s.bad[t, p] = 1.0 if far else s.bad[t, p]


@kernel
def _write_outliers(s: Fit, first: NDArray[np.int64], at: int, n: int, out: Marks) -> None:
    for t in range(first.size - 1):
        for p in range(n):
            if s.bad[t, p] * s.judged[p] != 0.0:
                out.clear[first[t] : first[t + 1], at + p] = 0
                out.rejected[at + p] += 1


@kernel
def tmask_blocks(  # noqa: PLR0913, PLR0917 - a kernel's arguments
    start: int,
    stop: int,
    stacks: Stacks,
    first: NDArray[np.int64],
    missing: float,
    stages: NDArray[np.int64],
    model: Model,
    s: Fit,
    out: Marks,
) -> None:
    """Blocks start..stop − 1. stages: addresses of `_span` and of what is done to each band."""
    rows = borrowed(stacks)
    for block in range(start, stop):
        at = block * P
        n = min(P, out.rejected.size - at)
        _load_fit(rows, first, missing, at, n, s)
        call(stages[0], (model, s, 0))
        if s.judged.max() == 0.0:
            continue
        for band in range(2):
            for stage in stages[1:]:
                call(stage, (model, s, band))
        _write_outliers(s, first, at, n, out)


STAGES: Final = (_span, _variogram, _fit, _leverages, *(4 * (_bisquare, _fit)), _judge)
"""The fits and the judgement, in their order."""
