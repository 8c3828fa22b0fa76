"""Harmonic fits of a strip of pixels: an offset and annual cosines and sines, by least squares.

Arrays are (time, pixel), C order; NaN is missing. Normal equations are summed in float64 in the
order of time, and solved pixel by pixel by Cholesky's method.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

FLOAT = npt.NDArray[np.float32]
DOUBLE = npt.NDArray[np.float64]
INT = npt.NDArray[np.int64]

SPARE: Final = 2
"""A fit of k pairs takes at least 2k + `SPARE` observations: one more than it has coefficients."""

_DEPENDENT: Final = 1e-3
"""Least mean square of a column that the columns before it leave over: with less, noise of the
observations would grow more than about thirty times over the root of their number."""
_HALVINGS: Final = 3
_TERMS: Final = 10


@kernel
def _sums(series: FLOAT, basis: DOUBLE, energy: DOUBLE, right: DOUBLE) -> None:
    """Normal equations, per pixel: the lower triangle by rows and the right-hand side."""
    size, n = basis.shape[1], series.shape[1]
    energy[:], right[:] = 0.0, 0.0
    for t in range(series.shape[0]):
        place = 0
        for i in range(size):
            weight, total = basis[t, i], right[i]
            for p in range(n):
                value = np.float64(series[t, p])
                total[p] += 0.0 if np.isnan(value) else value * weight
            for j in range(i + 1):
                product, cell = weight * basis[t, j], energy[place]
                for p in range(n):
                    value = series[t, p]
                    cell[p] += 0.0 if np.isnan(value) else product
                place += 1


@kernel
def _factor(energy: DOUBLE, p: int, size: int, lower: DOUBLE) -> int:
    """Cholesky's factor; returns how many columns from the first on are independent."""
    place = 0
    for i in range(size):
        for j in range(i + 1):
            total = energy[place, p]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i > j:
                lower[i, j] = total / lower[j, j]
            elif total > _DEPENDENT * energy[0, p]:  # the first is how many there are
                lower[i, i] = math.sqrt(total)
            else:
                return i
            place += 1
    return size


@kernel
def _solve(lower: DOUBLE, right: DOUBLE, p: int, size: int, out: DOUBLE) -> None:
    """Forwards and backwards through the factor."""
    for i in range(size):
        total = right[i, p]
        for k in range(i):
            total -= lower[i, k] * out[k]
        out[i] = total / lower[i, i]
    for back in range(size):
        i = size - 1 - back
        total = out[i]
        for k in range(i + 1, size):
            total -= lower[k, i] * out[k]
        out[i] = total / lower[i, i]


@kernel
def _residuals(series: FLOAT, basis: DOUBLE, found: DOUBLE, seen: INT, out: DOUBLE) -> None:
    """Root mean square of what the fit leaves over."""
    n = out.size
    fitted = np.empty(n)
    out[:] = 0.0
    for t in range(series.shape[0]):
        fitted[:] = 0.0
        for i in range(basis.shape[1]):
            weight, row = basis[t, i], found[i]
            for p in range(n):
                fitted[p] += weight * row[p]
        for p in range(n):
            away = np.float64(series[t, p]) - fitted[p]
            out[p] += 0.0 if np.isnan(away) else away * away
    for p in range(n):
        out[p] = math.sqrt(out[p] / seen[p])


@kernel
def fit(series: FLOAT, basis: DOUBLE, seen: INT, found: DOUBLE, rmse: DOUBLE) -> None:
    """Coefficients (coefficient, pixel) and the RMSE of the residuals.

    `basis`: (time, coefficient): 1, then cosine and sine of each harmonic. `seen`: how many are
    there. A pixel with fewer than 2k + `SPARE` of them, or at dates that do not tell the pairs
    apart, gets the most pairs that it allows, down to its mean; the other coefficients are 0.
    """
    size, n = basis.shape[1], series.shape[1]
    energy, right = np.empty((size * (size + 1) // 2, n)), np.empty((size, n))
    lower, solution = np.zeros((size, size)), np.zeros(size)
    _sums(series, basis, energy, right)
    found[:] = 0.0
    for p in range(n):
        if seen[p] == 0:
            continue
        enough = 2 * max(min(size // 2, (seen[p] - SPARE) // 2), 0) + 1
        independent = _factor(energy, p, enough, lower)
        use = 2 * ((independent - 1) // 2) + 1
        _solve(lower, right, p, use, solution)
        for i in range(use):
            found[i, p] = solution[i]
    _residuals(series, basis, found, seen, rmse)


@kernel
def _arctangent(x: float) -> float:
    """Of 0 … 1: three halvings of the angle, then Taylor's series; within 1e-15."""
    for _ in range(_HALVINGS):
        x /= 1.0 + math.sqrt(1.0 + x * x)
    square, total = x * x, 0.0
    for k in range(_TERMS):
        power = _TERMS - 1 - k
        total = 1.0 / (2 * power + 1) - square * total
    return 2.0**_HALVINGS * x * total


@kernel
def polar(cosine: DOUBLE, sine: DOUBLE, cycle: float, amplitude: FLOAT, phase: FLOAT) -> None:
    """Amplitude of a pair, and when in its `cycle` it is highest: 0 … cycle; 0 of amplitude 0.

    Own arithmetic, as the C library's arctangent may differ between machines.
    """
    for p in range(cosine.size):
        c, s = cosine[p], sine[p]
        a, b = abs(c), abs(s)
        amplitude[p] = np.float32(math.sqrt(c * c + s * s))
        if a == 0.0 and b == 0.0:
            phase[p] = 0
            continue
        angle = _arctangent(b / a) if b <= a else 0.5 * math.pi - _arctangent(a / b)
        angle = angle if c >= 0 else math.pi - angle
        angle = angle if s >= 0 else 2 * math.pi - angle
        phase[p] = np.float32(angle / (2 * math.pi) * cycle)
