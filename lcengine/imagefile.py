"""Image files: which driver reads them, and what their headers say."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession

from lcengine.addresses import DRIVERS
from lcengine.crs import exact_epsg, resolve_crs
from lcengine.errors import ContractError, InputError

IDENTITY = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""Transform of an image in its own pixels: the upper-left corner is 0, 0, and y points up."""

_filters = threading.RLock()


def driver_of(path: str) -> str:
    """The driver that opens a file, told by its suffix alone; GeoTIFF for any other."""
    return DRIVERS.get(PurePosixPath(path).suffix.lower(), "GTiff")


def is_image(path: str) -> bool:
    """Whether a path is of an image by its name, and not of a product."""
    return PurePosixPath(path).suffix.lower() in DRIVERS


def gdal(**options: Any) -> Any:
    """A GDAL environment that leaves credentials to GDAL.

    GDAL finds those of S3 itself (environment, profile, instance). Rasterio would have boto3 find
    them, for every read, whatever it reads, wherever boto3 and keys are: 30 ms each.
    """
    return rasterio.Env(session=DummySession(), **options)


@contextmanager
def unplaced() -> Iterator[None]:
    """No warning about an image without a place on Earth, where that is no surprise."""
    with _filters, warnings.catch_warnings():  # the filters are the process's
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself.

    `crs`: None where it has no place on Earth; `transform` is then `IDENTITY`. One entry per band
    of `dtypes`, `scales`, `offsets` and `colours` (red, green, blue, alpha, …). `time`: of the
    TIFF tag, as it is written, or empty. `turned`: a photograph whose camera says that it is to be
    turned for showing (EXIF), which its pixels are not.
    """

    crs: str | None
    transform: tuple[float, ...]
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: float | None
    colours: tuple[str, ...]
    time: str
    turned: bool = False


def header(path: str | os.PathLike[str]) -> Header:
    """The header of a local image.

    Raises `InputError` for what is no image and `ContractError` for ground control points without
    a grid, which would have to be rectified first.
    """
    name = os.fspath(path)
    try:
        with (
            gdal(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            unplaced(),
            rasterio.open(name, driver=driver_of(name)) as file,
        ):
            return _header(name, file)
    except RasterioError as error:
        raise InputError(
            f"{name} cannot be read as an image ({error}); expected GeoTIFF, PNG or JPEG"
        ) from error


def _header(name: str, file: Any) -> Header:
    if file.gcps[0]:
        raise ContractError(
            f"{name} has ground control points and no grid; rectify it, e.g. with gdalwarp"
        )
    crs = None if file.crs is None else resolve_crs(file.crs.to_wkt())
    placed = crs is not None and not crs.proj.is_engineering
    code = None
    if crs is not None and placed:
        epsg = exact_epsg(crs)
        code = f"EPSG:{epsg}" if epsg else str(crs.to_wkt())
    tags = file.tags()
    return Header(
        crs=code,
        transform=tuple(file.transform)[:6] if placed else IDENTITY,
        shape=(file.height, file.width),
        dtypes=tuple(file.dtypes),
        scales=tuple(file.scales),
        offsets=tuple(file.offsets),
        nodata=file.nodata,
        colours=tuple(colour.name for colour in file.colorinterp),
        time=str(tags.get("TIFFTAG_DATETIME", "")),
        turned=str(tags.get("EXIF_Orientation", "1")).strip() not in ("0", "1"),
    )
