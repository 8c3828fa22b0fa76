"""How many pixels of each class lie in windows of a raster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel


@kernel
def class_counts(
    labels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    edge: int,
    out: npt.NDArray[np.uint32],
) -> None:
    """Count the classes 0 … K-1 in square windows; other values count as none.

    `labels`: (y, x). `rows`, `cols`: (n) upper-left pixels of the windows. `out`: (n, K), zeros.
    """
    classes = out.shape[1]
    for i in range(rows.size):
        for y in range(rows[i], rows[i] + edge):
            for x in range(cols[i], cols[i] + edge):
                found = labels[y, x]
                if found < classes:
                    out[i, found] += np.uint32(1)
