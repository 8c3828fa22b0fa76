"""Counts of pairs of classes: what a reference says against what a map says."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

UINT8 = npt.NDArray[np.uint8]
INT64 = npt.NDArray[np.int64]

LANES: Final = 4
"""Tables that neighbours count in by turns: maps are of one class for many pixels, and an addition
would wait for the one before it in the same place."""


@kernel
def count_pairs(reference: UINT8, mapped: UINT8, counts: INT64) -> None:
    """Add to `counts` the pixels of every pair of classes, in one pass.

    `reference`, `mapped`: training indices, equally long and one-dimensional; what is no class has
    any value from K on, such as 255. `counts`: (K, K + 1), rows of the reference, columns of the
    map, the last one where the map has no class. Pixels without a class in the reference do not
    count.
    """
    classes = counts.shape[0]
    width = classes + 1
    table = np.zeros((LANES, width * width), np.int64)
    size = reference.size
    whole = size - size % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            row = min(np.int64(reference[start + lane]), classes)
            col = min(np.int64(mapped[start + lane]), classes)
            table[lane, row * width + col] += 1
    for i in range(whole, size):
        row = min(np.int64(reference[i]), classes)
        col = min(np.int64(mapped[i]), classes)
        table[0, row * width + col] += 1
    for lane in range(LANES):
        for row in range(classes):
            for col in range(width):
                counts[row, col] += table[lane, row * width + col]
