"""Overlapping patches merged: sums of weighted probabilities, and their means.

All arithmetic is float32 in the order that patches are added in, so a pixel's mean has the same
bits whatever else is merged beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

FLOAT = npt.NDArray[np.float32]


class Overlap(NamedTuple):
    """A rectangle of a patch, and where it lies in the sums."""

    top: int
    """First row and column in the patch."""
    left: int
    y: int
    """First row and column in the sums."""
    x: int
    height: int
    width: int


@kernel
def add(proba: FLOAT, weights: FLOAT, part: Overlap, sums: FLOAT, total: FLOAT) -> None:
    """Add w·p and w of a patch, each probability read once.

    `proba` (class, patch, patch); a pixel weighs weights[row]·weights[column]. `sums`: (class, y,
    x). `total`: (y, x).
    """
    for i in range(part.height):
        row = weights[part.top + i]
        for j in range(part.width):
            total[part.y + i, part.x + j] += row * weights[part.left + j]
    for k in range(proba.shape[0]):
        for i in range(part.height):
            row = weights[part.top + i]
            values, line = proba[k, part.top + i], sums[k, part.y + i]
            for j in range(part.width):
                weight = row * weights[part.left + j]
                line[part.x + j] += weight * values[part.left + j]


@kernel
def means(sums: FLOAT, total: FLOAT, out: FLOAT) -> None:
    """Σw·p / Σw of the first rows of the sums, as many as `out` (class, y, x) has; 0 without w."""
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                weight = total[i, j]
                out[k, i, j] = sums[k, i, j] / weight if weight > 0 else np.float32(0)


@kernel
def scroll(sums: FLOAT, total: FLOAT, rows: int) -> None:
    """Move sums up by `rows`, and begin anew below."""
    height = total.shape[0]
    kept = max(height - rows, 0)
    for i in range(kept):
        total[i] = total[i + rows]
    total[kept:] = 0
    for k in range(sums.shape[0]):
        for i in range(kept):
            sums[k, i] = sums[k, i + rows]
        sums[k, kept:] = 0
