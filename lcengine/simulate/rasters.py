"""Writing the simulated rasters, and cutting a world into pieces of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

Bounds = tuple[int, int, int, int]
"""Left, bottom, right, top in metres."""


def tiles(bounds: Bounds, side: int) -> list[Bounds]:
    """Pieces of at most `side` metres, from the upper left corner, row by row."""
    left, bottom, right, top = bounds
    return [
        (x, max(bottom, y - side), min(right, x + side), y)
        for y in range(top, bottom, -side)
        for x in range(left, right, side)
    ]


def write_cog(
    file: Path, array: NDArray[Any], epsg: int, bounds: Bounds, nodata: float | None
) -> None:
    """Write a cloud-optimised GeoTIFF of (y, x) or (band, y, x).

    Overviews only where a reader would use them.
    """
    stack = array if array.ndim == 3 else array[np.newaxis]
    count, height, width = stack.shape
    left, bottom, right, top = bounds
    with rasterio.open(
        file,
        "w",
        driver="COG",
        height=height,
        width=width,
        count=count,
        dtype=array.dtype,
        nodata=nodata,
        crs=f"EPSG:{epsg}",
        transform=from_origin(left, top, (right - left) / width, (top - bottom) / height),
        compress="DEFLATE",
        level=1,
        num_threads=2,
        predictor="YES" if array.dtype.itemsize > 1 else "NO",
        blocksize=512,
        overviews="NONE" if max(height, width) <= 2048 else "AUTO",
    ) as dataset:
        dataset.write(stack)
