"""Class maps as files: codes with the colour table of their legend, read and written by GDAL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import rasterio.windows
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from lcengine.addresses import DRIVERS
from lcengine.errors import InputError
from lcengine.imagefile import driver_of, gdal, unplaced
from lcengine.legends import (
    STYLES,
    TABLES,
    Entry,
    Legend,
    legends,
    load_style,
    load_table,
)
from lcengine.legends.base import Codes
from lcengine.locate import Window


def save_classes(
    path: str | os.PathLike[str],
    codes: npt.ArrayLike,
    legend: Legend,
    *,
    crs: str | None = None,
    transform: Sequence[float] = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
) -> None:
    """Write codes (y, x) as a Cloud Optimized GeoTIFF in the legend's type, with its nodata.

    It carries the colour table where the legend's codes fit uint8 (TIFF has none above), and the
    classes' names as tags. `transform`: (a, b, c, d, e, f). Overviews take the most frequent class.
    Raises `InputError` for codes the legend does not have and a path that cannot be written.
    """
    if driver_of(os.fspath(path)) != "GTiff":
        raise InputError(f"{path} is no GeoTIFF by its name; expected one such as map.tif")
    pixels = legend.stored(codes)
    if pixels.ndim != 2:
        raise InputError(f"codes have shape {pixels.shape}, expected (y, x)")
    profile = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype,
        "nodata": legend.nodata,
        "crs": crs,
        "transform": rasterio.Affine(*transform),
    }
    with _named(path), unplaced(), gdal(), MemoryFile() as memory:
        with memory.open(**profile) as plain:
            plain.write(pixels, 1)
            describe(plain, legend)
        options = {"compress": "DEFLATE", "overview_resampling": "MODE"}
        with MemoryFile(ext=".tif") as made:
            rasterio.shutil.copy(memory.name, made.name, driver="COG", **options)
            content = made.read()
    _write(path, content)


def describe(file: Any, legend: Legend) -> None:
    """Say what the codes of a raster (rasterio, being written) are: colour table of uint8, tags."""
    if file.dtypes[0] == "uint8":
        file.write_colormap(1, legend.colormap())
    attributes = legend.attributes()
    file.update_tags(
        1,
        legend=legend.name,
        flag_values=" ".join(map(str, attributes["flag_values"])),
        flag_meanings=attributes["flag_meanings"],
    )


def save_png(
    path: str | os.PathLike[str], codes: npt.ArrayLike, legend: Legend, *, colours: bool = False
) -> None:
    """Write codes (y, x) as a PNG of codes, or of the legend's colours, without a place on Earth.

    A PNG of codes carries the colour table where they fit uint8. One of colours is RGB, with an
    alpha band that is 0 where there is nodata, so that `read_classes` gives the same codes back.
    Raises `InputError` for codes the legend does not have and a path that cannot be written.
    """
    if driver_of(os.fspath(path)) != "PNG":
        raise InputError(f"{path} is no PNG by its name; expected one such as mask.png")
    pixels = legend.stored(codes)
    if pixels.ndim != 2:
        raise InputError(f"codes have shape {pixels.shape}, expected (y, x)")
    bands = pixels[None]
    if colours:
        clear = pixels == legend.nodata
        alpha = np.where(clear, 0, 255).astype(np.uint8)[None]
        rgb = np.moveaxis(legend.to_rgb(pixels), -1, 0)
        bands = np.concatenate([rgb, alpha]) if clear.any() else rgb
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with _named(path), unplaced(), gdal(), MemoryFile(ext=".png") as memory:
        with memory.open(driver="PNG", **shape) as file:
            file.write(bands)
            if not colours and bands.dtype == np.uint8:
                file.write_colormap(1, {**legend.colormap(), legend.nodata: (0, 0, 0, 0)})
        content = memory.read()
    _write(path, content)


def read_classes(
    path: str | os.PathLike[str],
    legend: Legend,
    *,
    tolerance: int = 0,
    unknown: Literal["error", "ignore"] = "error",
    window: Window | None = None,
    palette: Literal["codes", "colours"] = "codes",
) -> Codes:
    """The codes (y, x) of a class map, or of a window inside it, in the legend's type and nodata.

    A GeoTIFF, PNG or JPEG with one band of codes, or three (or four) of uint8 that are colours of
    the legend; `tolerance` and `unknown` as in `Legend.from_rgb`. The file's own nodata becomes the
    legend's, and so do colours of alpha 0. `palette`: what a band with a colour table holds; with
    "colours" its numbers are codes only where it gives them the legend's own colours. Raises
    `InputError` for what is neither, and for codes or colours the legend does not have.
    """
    part = None
    if window is not None:
        part = rasterio.windows.Window(window.x0, window.y0, window.width, window.height)
    with _opened(path) as file:
        if file.count == 1:
            values = file.read(1, window=part)
            bands = _through(file, values, legend) if palette == "colours" else None
            if bands is None:
                return legend.stored(values, _whole(file.nodata))
            return coloured(bands, legend, tolerance, unknown)
        if file.count in (3, 4) and set(file.dtypes) == {"uint8"}:
            return coloured(file.read(window=part), legend, tolerance, unknown)
        raise InputError(
            f"{path} has {file.count} bands of {', '.join(sorted(set(file.dtypes)))}; expected one "
            "band of codes or three of uint8 colours"
        )


def coloured(
    bands: npt.NDArray[np.uint8],
    legend: Legend,
    tolerance: int = 0,
    unknown: Literal["error", "ignore"] = "error",
) -> Codes:
    """Codes (…) of red, green, blue and perhaps alpha, uint8 (band, …): nodata where alpha is 0.

    `tolerance`, `unknown` and errors as in `Legend.from_rgb`.
    """
    seen = bands[3:].all(axis=0)  # of no alpha band at all: everywhere
    if seen.all():
        return legend.from_rgb(np.moveaxis(bands[:3], 0, -1), tolerance, unknown)
    codes = np.full(seen.shape, legend.nodata, legend.dtype)
    codes[seen] = legend.from_rgb(bands[:3, seen].T, tolerance, unknown)
    return codes


def _through(file: Any, values: npt.NDArray[Any], legend: Legend) -> npt.NDArray[np.uint8] | None:
    """Red, green, blue and alpha of a band by its colour table, None where that is the legend's."""
    try:
        table = dict(file.colormap(1)) if values.dtype == np.uint8 else {}
    except ValueError:  # there is none
        return None
    own = {**legend.colormap(), legend.nodata: (0, 0, 0, 0)}
    used = (value for value in np.unique(values).tolist() if value in table)
    if all(own.get(value, ())[:3] == table[value][:3] for value in used):
        return None
    colours = np.array([table.get(value, (0, 0, 0, 0)) for value in range(256)], np.uint8)
    return np.ascontiguousarray(np.moveaxis(colours[values], -1, 0))


def find_legend(text: str | os.PathLike[str]) -> Legend:
    """The legend of that name, or of that file; `InputError` where there is neither.

    A file is a style (.qml, .txt, .clr), a table (.csv, .json, .toml) or a raster with colours.
    """
    known = legends().get(os.fspath(text))
    if known is not None:
        return known
    suffix = Path(text).suffix.lower()
    for suffixes, load in ((STYLES, load_style), (TABLES, load_table), (DRIVERS, read_legend)):
        if suffix in suffixes:
            return load(text)
    raise InputError(
        f"no legend is called {os.fspath(text)!r}; expected {', '.join(legends())}, a style "
        f"({', '.join(STYLES)}), a table ({', '.join(TABLES)}) or a raster with a colour table"
    )


def read_legend(path: str | os.PathLike[str], name: str | None = None) -> Legend:
    """The colour table of a raster's first band as a legend.

    Classes and their names are those of the band's tags `flag_values` and `flag_meanings`, and its
    other colours are ignored codes; without tags every colour is a class, called `class n`. The
    black that GDAL fills tables up with is none, nor is the file's nodata. `InputError` where
    there is no colour table.
    """
    with _opened(path) as file:
        try:
            table: dict[int, tuple[int, int, int, int]] = file.colormap(1)
        except ValueError as error:
            raise InputError(
                f"{path} has no colour table; give its legend: a name, a style or a table"
            ) from error
        skipped, tags = _whole(file.nodata), file.tags(1)
    names = _names(path, tags)
    kept = {
        code: rgb
        for code, (*rgb, _) in table.items()
        if code in names or (any(rgb) and code != skipped)
    }
    entries = tuple(
        Entry(code, names.get(code, f"class {code}").replace("_", " "), "#" + bytes(rgb).hex())
        for code, rgb in kept.items()
    )
    title = name or Path(path).stem
    ignored = tuple(code for code in kept if code not in names) if names else ()
    return Legend(title, title, entries, Path(path).name, ignored)


def _names(path: str | os.PathLike[str], tags: Mapping[str, str]) -> dict[int, str]:
    """Name of each code by the tags `flag_values` and `flag_meanings`, nothing without them."""
    values = re.findall(r"-?\d+", tags.get("flag_values", ""))  # others write "1b, 2b"
    meanings = tags.get("flag_meanings", "").split()
    if not values or not meanings:
        return {}
    if len(values) != len(meanings):
        raise InputError(
            f"{path} has {len(values)} flag_values and {len(meanings)} flag_meanings, expected a "
            "word for each value; give a legend"
        )
    return dict(zip(map(int, values), meanings, strict=True))


def _write(path: str | os.PathLike[str], content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; check the path") from error


def _whole(nodata: float | None) -> int | None:
    return int(nodata) if nodata is not None and float(nodata).is_integer() else None


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not Path(path).is_file():
        raise InputError(f"{path} is no file; give a GeoTIFF, PNG or JPEG on this machine")
    driver = driver_of(os.fspath(path))
    with _named(path), unplaced(), gdal(), rasterio.open(path, driver=driver) as file:
        yield file


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise InputError(
            f"{path} cannot be read or written as a class map ({error}); expected a GeoTIFF"
        ) from error
