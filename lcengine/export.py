"""Export: a product as one Cloud Optimized GeoTIFF, which GDAL and QGIS read.

Pixels are the stored numbers, bit for bit; scale, offset and nodata are the raster's own tags.
They stream window by window into a plain tiled GeoTIFF beside the output, which GDAL's COG driver
copies; the result is renamed into place, so that a killed export leaves no half raster.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window

from lcengine import store
from lcengine.crs import is_pixel_crs
from lcengine.errors import InputError, StoreError
from lcengine.imagefile import gdal, unplaced
from lcengine.quicklook import natural

Pixels = npt.NDArray[Any]

Compression = Literal["deflate", "zstd"]

BLOCK = 512
"""Edge of a block of the raster, and the size above which it has overviews."""

WINDOW = 2048
"""Largest edge of what is read at once, unless a chunk of the product is larger."""

CACHE = 64 * 2**20
"""Bytes of GDAL's block cache; more where one block of all bands would not fit."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One band of the raster: a variable of the product, at a position on its time axis."""

    name: str
    variable: xr.DataArray
    time: int | None = None
    period: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored pixels."""
        return self.variable.dtype

    @property
    def fill(self) -> float | None:
        """The stored value of nodata pixels: as stated, else NaN of floats; None where none is."""
        nan = math.nan if self.dtype.kind == "f" else None
        return self.variable.attrs.get("_FillValue", nan)

    @property
    def is_quantity(self) -> bool:
        """Whether a mean of pixels has a meaning: reflectance, but no class, count or date.

        Decibels have none: their mean is not that of the power.
        """
        if self.variable.attrs.get("units") == "dB":
            return False
        return "scale_factor" in self.variable.attrs or self.dtype.kind == "f"

    @property
    def units(self) -> str:
        """Units of the scaled pixels; empty of bare numbers."""
        units = str(self.variable.attrs.get("units", ""))
        return "" if units == "1" else units

    @property
    def is_classes(self) -> bool:
        """Whether pixels are classes, by CF's `flag_values`."""
        return "flag_values" in self.variable.attrs

    def tags(self) -> dict[str, str]:
        """What the raster says of the band: its period, the names of its classes."""
        attributes = self.variable.attrs
        found = {
            key: attributes[key] for key in ("long_name", "flag_meanings") if key in attributes
        }
        if self.is_classes:
            found["flag_values"] = " ".join(map(str, np.atleast_1d(attributes["flag_values"])))
        return found if self.period is None else {**found, "period": self.period}

    def read(self, window: Window) -> Pixels:
        """Stored pixels (y, x) of a window."""
        rows, cols = window.toslices()
        whole = self.variable if self.time is None else self.variable.isel(time=self.time)
        return whole.isel(y=rows, x=cols).values


def export(
    product: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    bands: Sequence[str] | None = None,
    time: str | int | None = None,
    compress: Compression = "deflate",
) -> tuple[str, ...]:
    """Write a Cloud Optimized GeoTIFF and return the names of its bands.

    Args:
        product: A product of lcengine.
        output: The `.tif` to write; it is replaced at once when the new one is whole.
        bands: Variables, in this order; all must have one dtype and nodata. Default: the first
            one of classes, else the scaled bands, else all.
        time: For products with periods: the name or the position (from 0) of one. Default: all;
            their bands are then called `red_2018-04`, period by period.
        compress: `deflate` is read by everybody, `zstd` is faster and needs GDAL 2.3 with zstd.

    Overviews are averages of scaled and float bands, the most frequent of classes, and the nearest
    of anything else, decibels among them. A single uint8 class band with `flag_colors` has a colour
    table; TIFF allows none for several bands. Peak memory is GDAL's cache, some windows of `WINDOW`
    pixels of one band and some blocks of all bands, whatever the extent. All pixels are read back
    and compared.

    Raises:
        InputError: For what is no product, band, period, compression or output name.
        StoreError: Where the raster cannot be written, or is being written by another export.
    """
    check_compression(compress)
    target = _check_output(output)
    raw = store.stored(product)
    layers = _layers(raw, _choose(raw, bands), time)
    placed = not is_pixel_crs(raw.attrs["proj:wkt2"])
    block_bytes = len(layers) * BLOCK**2 * layers[0].dtype.itemsize
    with (
        _scratch(target) as folder,
        gdal(GDAL_CACHEMAX=max(CACHE, 2 * block_bytes), GDAL_TIFF_OVR_BLOCKSIZE=BLOCK),
        nullcontext() if placed else unplaced(),
        _named_errors(target),
    ):
        plain, cloud = folder / "plain.tif", folder / "cloud.tif"
        _write_plain(plain, raw, layers)
        _check_pixels(plain, layers)
        rasterio.shutil.copy(plain, cloud, driver="COG", **_cog_options(layers, compress))
        _check_copy(plain, cloud)
        with cloud.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(cloud, target)
    return tuple(layer.name for layer in layers)


def check_compression(name: str) -> Compression:
    """`name` if it is a compression, else `InputError`."""
    for known in get_args(Compression):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"compress is {name!r}, expected one of {', '.join(get_args(Compression))}")


def _check_output(output: str | os.PathLike[str]) -> Path:
    target = Path(os.path.abspath(output))
    if target.suffix.lower() not in (".tif", ".tiff") or target.is_dir():
        raise InputError(f"output is {output}, expected the name of a file such as out.tif")
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist; create it first")
    return target


def _choose(raw: xr.Dataset, bands: Sequence[str] | None) -> list[xr.DataArray]:
    """The variables to write; `InputError` unless they are there and fit into one raster."""
    rasters = {
        str(name): variable
        for name, variable in raw.data_vars.items()
        if variable.dims in (("y", "x"), ("time", "y", "x"))
    }
    unknown = [name for name in bands or () if name not in rasters]
    if unknown or (bands is not None and not bands):
        raise InputError(
            f"bands are {', '.join(bands or ()) or 'none'}; expected some of {', '.join(rasters)}"
        )
    chosen = [rasters[name] for name in bands] if bands else _default(list(rasters.values()))
    _check_alike("dtypes", {str(v.name): str(v.dtype) for v in chosen})
    _check_alike("nodata values", {str(v.name): str(v.attrs.get("_FillValue")) for v in chosen})
    return chosen


def _default(variables: Sequence[xr.DataArray]) -> list[xr.DataArray]:
    """The first one of classes, else the scaled bands of the first one's dtype, else everything.

    A file has one colour table, so it has the colours of one variable of classes.
    """
    classes = [v for v in variables if "flag_values" in v.attrs]
    if classes:
        return classes[:1]
    scaled = [v for v in variables if "scale_factor" in v.attrs]
    return [v for v in scaled if v.dtype == scaled[0].dtype] or list(variables)


def _check_alike(what: str, values: Mapping[str, str]) -> None:
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name} {value}" for name, value in values.items())
        raise InputError(f"bands have different {what} ({listed}); export them to separate files")


def _layers(
    raw: xr.Dataset, variables: Sequence[xr.DataArray], time: str | int | None
) -> list[Layer]:
    """The bands of the raster, period by period; variables without time come first."""
    flat = [Layer(str(v.name), v) for v in variables if v.ndim == 2]
    deep = [v for v in variables if v.ndim == 3]
    if not deep:
        if time is not None:
            raise InputError(f"time is {time!r}, but none of the bands has periods; leave it out")
        return flat
    names: list[str] = raw["time"].attrs["period_names"]
    positions = range(len(names)) if time is None else [_position(names, time)]
    return flat + [
        Layer(str(v.name) if len(positions) == 1 else f"{v.name}_{names[i]}", v, i, names[i])
        for i in positions
        for v in deep
    ]


def _position(names: Sequence[str], time: str | int) -> int:
    """Position of a period given by name, or else by position."""
    if time in names:
        return names.index(str(time))
    number = str(time)
    if number.isdecimal() and int(number) < len(names):
        return int(number)
    raise InputError(
        f"time is {time!r}, expected 0 to {len(names) - 1} or a period: {', '.join(names)}"
    )


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """An empty hidden folder beside the output, removed at the end; one export at a time has it.

    What a killed export left there is removed by the next one to the same output.
    """
    folder = target.with_name(f".{target.name}.part")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if not _locked(lock, folder / "lock"):
            raise StoreError(f"another export is writing {target}; wait for it or stop it first")
        try:
            for leftover in set(folder.iterdir()) - {folder / "lock"}:
                leftover.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locked(lock: IO[str], path: Path) -> bool:
    """Whether the lock could be had and is still the file at `path`, not one just removed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def _named_errors(target: Path) -> Iterator[None]:
    try:
        yield
    # SystemError is what rasterio makes of a failure that GDAL does not explain.
    except (RasterioError, CPLE_BaseError, SystemError) as error:
        raise StoreError(
            f"{target} could not be written ({error}); check the space and rights in its folder"
        ) from error


def _write_plain(path: Path, raw: xr.Dataset, layers: Sequence[Layer]) -> None:
    """The pixels and everything that describes them, tiled and uncompressed."""
    palette = _palette(layers)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=raw.sizes["y"],
        width=raw.sizes["x"],
        count=len(layers),
        dtype=layers[0].dtype,
        nodata=layers[0].fill,
        crs=raw.attrs.get("proj:code", raw.attrs["proj:wkt2"]),
        transform=rasterio.Affine(*raw.attrs["spatial:transform"]),
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        interleave="band",  # a window of one band is whole blocks
        bigtiff="YES",
        **({"photometric": "palette"} if palette else {}),
    ) as file:
        provenance = raw.attrs["lcengine"]
        file.update_tags(
            TIFFTAG_SOFTWARE=f"lcengine {provenance['package']}", run_id=provenance["run_id"]
        )
        if palette:
            file.write_colormap(1, palette)
        else:
            file.colorinterp = _colours(layers)
        file.descriptions = [layer.name for layer in layers]
        file.scales = [layer.variable.attrs.get("scale_factor", 1.0) for layer in layers]
        file.offsets = [layer.variable.attrs.get("add_offset", 0.0) for layer in layers]
        file.units = [layer.units for layer in layers]
        for band, layer in enumerate(layers, start=1):
            file.update_tags(band, **layer.tags())
            for window in _windows(layer.variable):
                file.write(layer.read(window), band, window=window)
        # Here, where bands lie apart, it takes a quarter of the memory of the COG driver.
        if levels := _overviews(*file.shape):
            file.build_overviews(levels, _resampling(layers))


def _check_pixels(path: Path, layers: Sequence[Layer]) -> None:
    """`RasterioIOError` unless the raster reads back as the product.

    GDAL writes the last blocks as it closes a file, and a failure then is reported to nobody.
    """
    with rasterio.open(path) as file:
        for band, layer in enumerate(layers, start=1):
            for window in _windows(layer.variable):
                _check_equal(file.read(band, window=window), layer.read(window))


def _check_copy(plain: Path, cloud: Path) -> None:
    """`RasterioIOError` unless both rasters, with all their overviews, hold the same pixels."""
    with rasterio.open(plain) as file:
        levels = range(len(file.overviews(1)))
    for level in ({}, *({"overview_level": i} for i in levels)):
        with rasterio.open(plain, **level) as one, rasterio.open(cloud, **level) as other:
            for _, window in other.block_windows():  # a block holds all bands
                _check_equal(other.read(window=window), one.read(window=window))


def _check_equal(found: Pixels, written: Pixels) -> None:
    if not np.array_equal(found, written, equal_nan=written.dtype.kind == "f"):
        raise RasterioIOError("it does not read back as written")


def _windows(variable: xr.DataArray) -> Iterator[Window]:
    """Windows of whole chunks in row-major order, so that each chunk is decoded once."""
    height, width = variable.shape[-2:]
    rows, cols = (max(c, WINDOW // c * c) for c in variable.encoding["chunks"][-2:])
    for y in range(0, height, rows):
        for x in range(0, width, cols):
            yield Window(x, y, min(cols, width - x), min(rows, height - y))


def _overviews(height: int, width: int) -> list[int]:
    """Reductions 2, 4, 8, … down to one block."""
    halvings = math.ceil(math.log2(max(height, width, BLOCK) / BLOCK))
    return [2**n for n in range(1, halvings + 1)]


def _resampling(layers: Sequence[Layer]) -> Resampling:
    if all(layer.is_quantity for layer in layers):
        return Resampling.average
    return Resampling.mode if all(layer.is_classes for layer in layers) else Resampling.nearest


def _cog_options(layers: Sequence[Layer], compress: Compression) -> dict[str, Any]:
    predictor = "STANDARD" if layers[0].dtype.kind in "iu" else "FLOATING_POINT"
    if layers[0].is_classes:
        predictor = "NO"  # the difference of two codes means nothing
    return {
        "compress": compress.upper(),
        "predictor": predictor,
        "overview_predictor": predictor,
        "blocksize": BLOCK,
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }


def _colours(layers: Sequence[Layer]) -> list[ColorInterp]:
    """Which bands a viewer shows as red, green and blue: the first of each name."""
    out = [ColorInterp.gray if len(layers) == 1 else ColorInterp.undefined] * len(layers)
    names = [str(layer.variable.name) for layer in layers]
    for name, colour in zip(natural(names), ("red", "green", "blue"), strict=False):
        out[names.index(name)] = ColorInterp[colour]
    return out


def _palette(layers: Sequence[Layer]) -> dict[int, tuple[int, int, int, int]]:
    """Class code -> (red, green, blue, alpha), from `flag_values` and `flag_colors` (#rrggbb)."""
    layer = layers[0]
    attributes = layer.variable.attrs
    if len(layers) > 1 or layer.dtype != np.uint8 or "flag_colors" not in attributes:
        return {}
    codes = np.atleast_1d(attributes.get("flag_values", ())).tolist()
    colours = str(attributes["flag_colors"]).split()
    if len(codes) != len(colours) or not all(map(_COLOUR.fullmatch, colours)):
        raise InputError(
            f"{layer.name} has flag_colors {' '.join(colours)!r}, expected one #rrggbb for each of "
            f"its {len(codes)} flag_values"
        )
    return {
        code: (*bytes.fromhex(colour[1:]), 255) for code, colour in zip(codes, colours, strict=True)
    }
