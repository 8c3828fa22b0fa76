"""Resampling as a gather at exact source coordinates: nodata-aware and independent of tiling.

A coordinate is continuous and counted in source pixels from the outer corner of the array, so the
pixel that holds it is its floor and pixel centres lie at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import by_type, kernel

FLOAT = npt.NDArray[np.float64]
INDEX = npt.NDArray[np.int32]


@kernel
def nearest_separable(
    source: npt.NDArray[Any], rows: INDEX, cols: INDEX, fill: Any, out: npt.NDArray[Any]
) -> None:
    """`out[y, x] = source[rows[y], cols[x]]`; `fill` where an index lies outside the source."""
    height, width = source.shape
    for y in range(rows.size):
        row = rows[y]
        if row < 0 or row >= height:
            out[y, :] = fill
            continue
        for x in range(cols.size):
            col = cols[x]
            out[y, x] = source[row, col] if 0 <= col < width else fill


@kernel
def nearest(
    source: npt.NDArray[Any], rows: INDEX, cols: INDEX, fill: Any, out: npt.NDArray[Any]
) -> None:
    """`out[y, x] = source[rows[y, x], cols[y, x]]`; `fill` where outside the source."""
    height, width = source.shape
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            row, col = rows[y, x], cols[y, x]
            inside = 0 <= row < height and 0 <= col < width
            out[y, x] = source[row, col] if inside else fill


def _rounded(value: Any, like: Any) -> Any:
    """A float64 mean as it is, or as int16 by rounding half to even."""
    raise NotImplementedError


@by_type(_rounded)
def _(value: Any, like: Any) -> Callable[..., Any]:
    if str(like) == "float64":
        return lambda value, like: value
    return lambda value, like: np.int16(np.rint(value))


@kernel
def bilinear(
    source: npt.NDArray[Any], rows: FLOAT, cols: FLOAT, nodata: Any, out: npt.NDArray[Any]
) -> None:
    """Bilinear interpolation over the valid ones of the four neighbours, weights renormalised.

    Nodata where the pixel that holds the coordinate is nodata or outside, so that every
    resampling has the same footprint. Of int16 the result is the float64 mean rounded half to
    even, of float64 the mean.
    """
    height, width = source.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            r, c = rows[y, x], cols[y, x]
            row, col = int(np.floor(r)), int(np.floor(c))
            if not (0 <= row < height and 0 <= col < width) or source[row, col] == nodata:
                out[y, x] = nodata
                continue
            top, left = int(np.floor(r - 0.5)), int(np.floor(c - 0.5))
            down, right = r - 0.5 - top, c - 0.5 - left
            total = 0.0
            weights = 0.0
            for i in range(2):
                for j in range(2):
                    if 0 <= top + i < height and 0 <= left + j < width:
                        value = source[top + i, left + j]
                        if value != nodata:
                            weight = (down if i else 1.0 - down) * (right if j else 1.0 - right)
                            total += weight * value
                            weights += weight
            out[y, x] = _rounded(total / weights, nodata)


@kernel
def block_mean(source: npt.NDArray[Any], factor: int, nodata: Any, out: npt.NDArray[Any]) -> None:
    """Mean of the valid pixels of each factor x factor block; of int16 rounded half to even.

    Nodata where a block has no valid pixel.
    """
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            total = nodata * 0  # an int64 or a float64
            count = 0
            for i in range(factor):
                for j in range(factor):
                    value = source[y * factor + i, x * factor + j]
                    if value != nodata:
                        total += value
                        count += 1
            out[y, x] = _rounded(total / count, nodata) if count else nodata
