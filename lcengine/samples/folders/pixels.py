"""Headers and windows of the local image files in a folder of samples.

Sidecar files are not read, as everywhere in lcengine: what an image is stands in the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from lcengine.crs import exact_epsg, resolve_crs
from lcengine.errors import InputError
from lcengine.imagefile import IDENTITY, driver_of, gdal, unplaced
from lcengine.locate import Window

THREADS = 4
"""Files whose headers are read at a time; a header costs about a millisecond."""
NO_PLACE = ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), IDENTITY)
"""Transforms that say nothing: GDAL's own where a file has none, whatever CRS stands beside it."""
SQUARE = 1e-6
"""Relative difference of a pixel's width and height that is rounding."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself: `bands` that measure something, `stored` ones with alpha.

    `crs`: None without a place on Earth, `transform` is then `IDENTITY`. `names`: the bands'
    descriptions, empty unless every band has one of its own.
    """

    shape: tuple[int, int]
    bands: int
    stored: int
    dtype: str
    nodata: float | None
    crs: str | None
    transform: tuple[float, ...]
    names: tuple[str, ...]


def headers(paths: Sequence[Path]) -> list[Header]:
    """Headers of images in order; `InputError` for what is no image, tilted or without a grid."""
    with unplaced(), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_quiet_header, paths))


def header(path: Path) -> Header:
    """The header of one image, see `headers`."""
    with unplaced():
        return _quiet_header(path)


def read(
    path: Path,
    windows: Sequence[Window],
    bands: Sequence[int] | None = None,
) -> tuple[npt.NDArray[Any], float | None]:
    """Windows of equal size as (window, band, y, x) in the file's dtype, and the file's nodata.

    `bands`: numbers from 1, by default all that measure something and then an alpha band. A GeoTIFF
    is read window by window; GDAL keeps the blocks that they share. PNG and JPEG are decoded once,
    from their top to the last row wanted. Raises `InputError` for windows beyond the image and
    unreadable files.
    """
    with _opened(path, unplaced()) as file:
        numbers = list(bands or sorted(range(1, file.count + 1), key=_alpha(file).__contains__))
        if max(numbers) > file.count:
            raise InputError(
                f"{path} has {file.count} bands, expected {max(numbers)} or more; check the layout"
            )
        size = windows[0][2:] if windows else (0, 0)
        out = np.empty((len(windows), len(numbers), *size), file.dtypes[0])
        for window in windows:
            _check_inside(path, file.shape, window)
        if driver_of(path.name) == "GTiff":
            for patch, window in zip(out, windows, strict=True):
                file.read(numbers, window=_rasterio(window), out=patch)
        elif windows:
            top = min(w.y0 for w in windows)
            bottom = max(w.y0 + w.height for w in windows)
            rows = file.read(numbers, window=_rasterio(Window(top, 0, bottom - top, file.shape[1])))
            for patch, (y0, x0, height, width) in zip(out, windows, strict=True):
                patch[...] = rows[:, y0 - top : y0 - top + height, x0 : x0 + width]
        return out, file.nodata


def _quiet_header(path: Path) -> Header:
    with _opened(path, nullcontext()) as file:
        if file.gcps[0]:
            raise InputError(
                f"{path} has ground control points and no grid; rectify it, e.g. with gdalwarp"
            )
        bands = _measuring(file)
        names = tuple(file.descriptions[number - 1] or "" for number in bands)
        crs, transform = _place(path, file)
        return Header(
            shape=(file.height, file.width),
            bands=len(bands),
            stored=file.count,
            dtype=file.dtypes[0],
            nodata=file.nodata,
            crs=crs,
            transform=transform,
            names=names if all(names) and len(set(names)) == len(names) else (),
        )


def _place(path: Path, file: Any) -> tuple[str | None, tuple[float, ...]]:
    """CRS and transform, None and `IDENTITY` for an image without a place on Earth."""
    transform = tuple(float(v) for v in file.transform)[:6]
    code = None if file.crs is None else _code(file.crs.to_wkt())
    if code is None or transform in NO_PLACE:
        return None, IDENTITY
    a, b, _, d, e, _ = transform
    if b or d or a <= 0 or e >= 0 or abs(a + e) > SQUARE * a:
        raise InputError(
            f"{path} has transform {transform}, expected north up and square pixels; warp it, "
            f"e.g. with gdalwarp -tr {abs(a):g} {abs(a):g}"
        )
    return code, transform


@lru_cache(maxsize=1024)
def _code(wkt: str) -> str | None:
    """`EPSG:n` where that is exact, else WKT; None for the CRS of an image's own pixels."""
    crs = resolve_crs(wkt)
    if crs.proj.is_engineering:
        return None
    epsg = exact_epsg(crs)
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())


def _measuring(file: Any) -> list[int]:
    """Numbers of the bands, but for an alpha band."""
    return [n for n in range(1, file.count + 1) if n not in _alpha(file)]


def _alpha(file: Any) -> list[int]:
    return [n for n, kind in enumerate(file.colorinterp, 1) if kind == ColorInterp.alpha]


def _rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.x0, window.y0, window.width, window.height)


def _check_inside(path: Path, shape: tuple[int, int], window: Window) -> None:
    y0, x0, height, width = window
    if y0 < 0 or x0 < 0 or y0 + height > shape[0] or x0 + width > shape[1]:
        raise InputError(
            f"{path} has {shape[0]} x {shape[1]} pixels, so it lacks the window of {height} x "
            f"{width} at row {y0}, column {x0}; image and mask must have one size"
        )


@contextmanager
def _opened(path: Path, quiet: AbstractContextManager[None]) -> Iterator[Any]:
    """An open file. `quiet` is entered for opening alone, because it keeps other threads out."""
    try:
        with gdal(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            with quiet:
                opened = rasterio.open(path, driver=driver_of(path.name))
            with opened as file:
                yield file
    except RasterioError as error:
        raise InputError(
            f"{path} cannot be read as an image ({error}); expected GeoTIFF, PNG or JPEG"
        ) from error
