"""From probabilities of classes to what a map stores: the class, and how sure it is.

`proba`: (class, y, x) float32. `valid`: (y, x) where there is a statement; elsewhere outputs are
255. All are of one pixel alone, in plain float64 arithmetic in the order of the classes, so they
are the same bits for any block.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

FLOAT = npt.NDArray[np.float32]
UINT8 = npt.NDArray[np.uint8]
BOOL = npt.NDArray[np.bool_]

MISSING: Final = 255
STEPS: Final = 250.0
"""Stored steps from 0 to 1."""
TOLERANCE: Final = 1e-3
"""By how much probabilities may miss a sum of 1."""


@kernel
def classes(proba: FLOAT, valid: BOOL, out: UINT8) -> int:
    """The first class of greatest probability; returns how many pixels' do not add up to 1."""
    count, height, width = proba.shape
    broken = 0
    for y in range(height):
        for x in range(width):
            out[y, x] = MISSING
            if not valid[y, x]:
                continue
            best, most, total = 0, proba[0, y, x], 0.0
            for k in range(count):
                value = proba[k, y, x]
                total += np.float64(value)
                if value > most:
                    best, most = k, value
            out[y, x] = best
            if not abs(total - 1.0) <= TOLERANCE:
                broken += 1
    return broken


@kernel
def shares(values: FLOAT, valid: BOOL, out: UINT8) -> None:
    """One class's probability (y, x) in steps of 1/250, half to even."""
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            step = np.rint(STEPS * np.float64(values[y, x]))
            out[y, x] = np.uint8(step) if valid[y, x] else MISSING


@kernel
def margin(proba: FLOAT, valid: BOOL, out: UINT8) -> None:
    """Greatest probability minus the second greatest, in steps of 1/250."""
    count, height, width = proba.shape
    for y in range(height):
        for x in range(width):
            out[y, x] = MISSING
            if not valid[y, x]:
                continue
            first, second = 0.0, 0.0
            for k in range(count):
                value = np.float64(proba[k, y, x])
                if value > first:
                    first, second = value, first
                elif value > second:
                    second = value
            out[y, x] = np.uint8(np.rint(STEPS * (first - second)))


@kernel
def entropy(proba: FLOAT, valid: BOOL, out: UINT8) -> None:
    """−Σ p ln p / ln K, 0 sure to 1 undecided, in steps of 1/250; 0 of a single class."""
    count, height, width = proba.shape
    most = log2(np.float64(count)) if count > 1 else 1.0
    for y in range(height):
        for x in range(width):
            out[y, x] = MISSING
            if not valid[y, x]:
                continue
            total = 0.0
            for k in range(count):
                value = np.float64(proba[k, y, x])
                if value > 0:
                    total -= value * log2(value)
            out[y, x] = np.uint8(np.rint(STEPS * min(max(total / most, 0.0), 1.0)))


@kernel
def log2(value: float) -> float:
    """Binary logarithm of a positive number, within 3e-16; exact of powers of two.

    By arithmetic alone: what a library makes of the last bit differs between machines, and shares
    such as 1/4 put entropies right between two steps. ln m = 2 artanh((m − 1)/(m + 1)), m within
    sqrt(1/2) and sqrt(2), where the series ends with (m − 1)/(m + 1) to the 21st.
    """
    mantissa, exponent = math.frexp(value)
    if mantissa < 0.7071067811865476:
        mantissa *= 2.0
        exponent -= 1
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = 0.0
    for n in range(21, 0, -2):
        series = series * square + 1.0 / n
    return exponent + 2.0 * ratio * series * 1.4426950408889634
