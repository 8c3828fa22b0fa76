"""Writing cloud-optimised GeoTIFFs, and cutting a world into pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window

from lcengine.classmap import describe
from lcengine.legends import Legend

Bounds = tuple[int, int, int, int]
"""Left, bottom, right, top in metres."""
_BLOCK = 512
_MOST_PIXELS = 2048
"""Along a side of a raster without overviews."""


def pieces(bounds: Bounds, side: int) -> list[Bounds]:
    """Parts of at most `side` metres, from the upper left corner, row by row."""
    left, bottom, right, top = bounds
    return [
        (x, max(bottom, y - side), min(right, x + side), y)
        for y in range(top, bottom, -side)
        for x in range(left, right, side)
    ]


def write_cog(
    file: Path, array: NDArray[Any], epsg: int, bounds: Bounds, nodata: float | None
) -> None:
    """Write (row, column) or (band, row, column) as one cloud-optimised GeoTIFF."""
    bands = array if array.ndim == 3 else array[None]
    profile = _profile(bands.shape, array.dtype, epsg, bounds, nodata)
    with rasterio.open(file, "w", **profile, **_cog(bands.shape, array.dtype)) as dataset:
        dataset.write(bands)


def assemble_cog(
    file: Path,
    bounds: Bounds,
    epsg: int,
    nodata: float,
    parts: Iterable[tuple[int, int, Path]],
    legend: Legend | None = None,
) -> None:
    """Write a 10 m cloud-optimised GeoTIFF from `.npy` files (row, column) at row and column.

    Memory is that of the largest part, whatever the bounds. `legend`: of a raster of classes.
    """
    left, bottom, right, top = bounds
    shape = (1, (top - bottom) // 10, (right - left) // 10)
    parts = list(parts)
    dtype = np.load(parts[0][2], mmap_mode="r").dtype
    profile = _profile(shape, dtype, epsg, bounds, nodata)
    tiles = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "bigtiff": "IF_SAFER"}
    plain = file.with_suffix(".part.tif")
    with rasterio.open(plain, "w", driver="GTiff", **tiles, **profile) as dataset:
        for row, col, part in parts:
            values = np.load(part)
            dataset.write(values, 1, window=Window(col, row, *values.shape[::-1]))
        if legend is not None:
            describe(dataset, legend)
    rasterio.shutil.copy(plain, file, **_cog(shape, dtype))
    plain.unlink()


def _profile(
    shape: tuple[int, ...], dtype: np.dtype[Any], epsg: int, bounds: Bounds, nodata: float | None
) -> dict[str, Any]:
    count, height, width = shape
    left, bottom, right, top = bounds
    return {
        "count": count,
        "height": height,
        "width": width,
        "dtype": dtype,
        "nodata": nodata,
        "crs": f"EPSG:{epsg}",
        "transform": from_origin(left, top, (right - left) / width, (top - bottom) / height),
    }


def _cog(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Creation options; overviews only where a reader would use them."""
    return {
        "driver": "COG",
        "compress": "DEFLATE",
        "level": 1,
        "num_threads": 2,
        "predictor": "YES" if dtype.itemsize > 1 else "NO",
        "blocksize": _BLOCK,
        "overviews": "NONE" if max(shape[1:]) <= _MOST_PIXELS else "AUTO",
        "bigtiff": "IF_SAFER",
    }
