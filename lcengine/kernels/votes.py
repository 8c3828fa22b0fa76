"""Votes of samples about a pixel's class: the majority, and the share of each class.

`indices`: training indices of a source, 255 where there is no class. `rows`, `cols`: where each
sample lies in it, (y * factor, x * factor); samples beyond the source do not vote.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

INDEX = npt.NDArray[np.int32]
UINT8 = npt.NDArray[np.uint8]


@kernel
def _count(
    indices: UINT8, rows: INDEX, cols: INDEX, factor: int, place: tuple[int, int], votes: INDEX
) -> int:
    """Fill `votes` with those of one pixel; returns how many there are."""
    height, width = indices.shape
    votes[:] = 0
    total = 0
    for i in range(place[0] * factor, (place[0] + 1) * factor):
        for j in range(place[1] * factor, (place[1] + 1) * factor):
            row, col = rows[i, j], cols[i, j]
            if 0 <= row < height and 0 <= col < width:
                index = indices[row, col]
                if index != 255:
                    votes[index] += 1
                    total += 1
    return total


@kernel
def majority(
    indices: UINT8, rows: INDEX, cols: INDEX, factor: int, classes: int, out: UINT8
) -> None:
    """The class (y, x) with most votes, of a tie the first one; 255 without any vote."""
    votes = np.zeros(classes, np.int32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            best, most = 255, 0
            if _count(indices, rows, cols, factor, (y, x), votes):
                for index in range(classes):
                    if votes[index] > most:
                        best, most = index, votes[index]
            out[y, x] = best


@kernel
def fractions(
    indices: UINT8, rows: INDEX, cols: INDEX, factor: int, out: npt.NDArray[np.float32]
) -> None:
    """The share of the votes of each class (class, y, x); NaN without any vote."""
    votes = np.zeros(out.shape[0], np.int32)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            total = _count(indices, rows, cols, factor, (y, x), votes)
            for index in range(out.shape[0]):
                out[index, y, x] = votes[index] / total if total else np.nan
