"""Rasters of xarray on another grid, lazily: exact coordinates, the same pixels for any chunks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine.crs import exact_epsg, pixel_crs, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.kernels import gather
from lcengine.locate import Footing, Lattice, Locator, SourceGrid, Window, window_bounds
from lcengine.plan import product_lattice
from lcengine.reader import Resampling, oversampling

POINTS = 2**20
"""Sample points whose coordinates are held at once: 16 MiB where CRSs differ."""

_GONE = float(np.finfo(np.float64).min)
"""Stands for missing values among float64, where NaN equals nothing."""

# Coordinates are written as decimals: centres this close (in pixels) to a lattice lie on it.
_REGULAR = 1e-3


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a variable's numbers are resampled.

    `fill`: its missing value. `decibels`: dB per stored unit of backscatter, which is averaged and
    interpolated as linear power; None for all else. `smooth`: a mean of pixels has a meaning.
    """

    dtype: np.dtype[Any]
    fill: float
    smooth: bool
    decibels: float | None = None

    @classmethod
    def of(cls, variable: xr.DataArray) -> Pixels:
        """What a variable's type and attributes say; `InputError` for what is no number."""
        dtype, attributes = variable.dtype, variable.attrs
        if dtype.kind not in "iuf":
            raise InputError(f"variable {variable.name} is {dtype}, expected integers or floats")
        own = np.nan
        if dtype.kind != "f":
            info = np.iinfo(dtype)
            own = info.min if dtype.kind == "i" else info.max
        fill = attributes.get("_FillValue", own)
        scale = attributes.get("scale_factor")
        smooth = dtype.kind == "f" or scale is not None
        power = float(1.0 if scale is None else scale)
        return cls(dtype, fill, smooth, power if attributes.get("units") == "dB" else None)

    def to_float(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """What can be averaged; missing values are `_GONE`."""
        missing = np.isnan(values) if np.isnan(self.fill) else values == self.fill
        out = values.astype(np.float64)
        if self.decibels is not None:
            out = 10 ** (out * (self.decibels / 10))
        out[missing] = _GONE
        return out

    def from_float(self, values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """Inverse of `to_float`; integers are rounded half to even."""
        missing = values == _GONE
        out = np.where(missing, 1.0, values)
        if self.decibels is not None:
            out = np.log10(out) * (10 / self.decibels)
        if self.dtype.kind != "f":
            out = np.rint(out)
        stored = np.where(missing, 0.0, out).astype(self.dtype)
        stored[missing] = self.fill
        return stored


def source_grid(source: xr.Dataset, name: str) -> SourceGrid:
    """The raster that a dataset's coordinates y and x describe; `InputError` where they do not."""
    crs = _crs(source, name)
    x, y = (np.asarray(source[axis].values, dtype=np.float64) for axis in ("x", "y"))
    dx, dy = _step(x, "x", name), -_step(y, "y", name)
    dx, dy = dx or dy, dy or dx
    if not (dx > 0 and dy > 0):
        raise InputError(
            f"source {name!r} has pixels of {dx:g} by {dy:g}; expected x ascending, y descending "
            "and more than one pixel"
        )
    left, top = x[0] - dx / 2, y[0] + dy / 2
    stated = source["spatial_ref"].attrs.get("GeoTransform")
    if stated is not None:
        c, a, _, f, _, e = map(float, str(stated).split())
        # The same lattice, but without the rounding of centres and steps.
        if max(abs(c - left), abs(f - top)) < 1e-6 * dx and abs(a - dx) < 1e-9 * dx:
            left, top, dx, dy = c, f, a, -e
    return SourceGrid(Lattice(crs, left, top, dx, dy), (y.size, x.size))


def _crs(source: xr.Dataset, name: str) -> str:
    wkt = None
    if "spatial_ref" in source.coords:
        attributes = source["spatial_ref"].attrs
        wkt = attributes.get("crs_wkt") or attributes.get("spatial_ref")
    if not wkt:
        raise InputError(
            f"source {name!r} states no CRS; give it one with source.rio.write_crs('EPSG:…')"
        )
    crs = resolve_crs(str(wkt))
    if crs.proj.is_engineering:  # rioxarray writes it in another dialect
        return pixel_crs(str(crs.proj.name).removeprefix("pixels of "))
    epsg = exact_epsg(crs)
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt())


def _step(centres: npt.NDArray[np.float64], axis: str, name: str) -> float:
    """Distance of pixel centres, 0 of a single one; `InputError` where it varies."""
    if centres.size < 2:
        return 0.0
    step = float((centres[-1] - centres[0]) / (centres.size - 1))
    regular = centres[0] + np.arange(centres.size) * step
    if not np.abs(centres - regular).max() <= _REGULAR * abs(step):
        raise InputError(
            f"source {name!r} has irregular coordinates {axis}; expected equal steps, as every "
            "raster of lcengine has"
        )
    return step


def regrid(
    variable: xr.DataArray,
    source: SourceGrid,
    grid: Grid,
    resampling: Resampling,
    chunks: int,
) -> da.Array:
    """A variable (…, y, x) on exactly `grid`, of the same dtype, in chunks of that edge.

    Its last two dimensions are those of `source`. Missing is the fill of `Pixels.of`: outside of
    the source, outside of the grid's polygon, and where all pixels that a mean looks at are
    missing. Variables that a mean has no meaning for are resampled to the nearest pixel.
    """
    job = _job(variable, source, grid, resampling)
    data = variable.data if isinstance(variable.data, da.Array) else variable.chunk().data
    height, width = grid.shape
    rows = [
        [
            _piece(data, job, Window(y, x, min(chunks, height - y), min(chunks, width - x)))
            for x in range(0, width, chunks)
        ]
        for y in range(0, height, chunks)
    ]
    whole: da.Array = da.concatenate([da.concatenate(row, axis=-1) for row in rows], axis=-2)
    return whole


def regrid_window(
    variable: xr.DataArray,
    source: SourceGrid,
    grid: Grid,
    resampling: Resampling,
    window: Window,
) -> npt.NDArray[Any]:
    """The pixels (…, y, x) of a window inside the grid, as `regrid` has them, at once."""
    job = _job(variable, source, grid, resampling)
    area = _area(job, window)
    if area is None:
        shape = (*variable.shape[:-2], window.height, window.width)
        return np.full(shape, job.pixels.fill, variable.dtype)
    rows, cols = _slices(area)
    return _resample(variable[..., rows, cols].values, job, window, area)


def reaches(source: SourceGrid, grid: Grid) -> bool:
    """Whether any pixel of the source lies under the grid, by the outline of the grid."""
    window = Window(0, 0, *grid.shape)
    return window_bounds(product_lattice(grid), window, source, 0) is not None


@dataclass(frozen=True)
class _Job:
    """What every chunk of a variable knows.

    `cut`: the grid where it has a polygon. `samples`: points per axis of a pixel for a mean.
    """

    cut: Grid | None
    product: Lattice
    source: SourceGrid
    pixels: Pixels
    resampling: Resampling
    samples: int


def _job(variable: xr.DataArray, source: SourceGrid, grid: Grid, resampling: Resampling) -> _Job:
    pixels = Pixels.of(variable)
    how = resampling if pixels.smooth else "nearest"
    product = product_lattice(grid)
    samples = oversampling(product, source) if how == "average" else 1
    return _Job(grid if grid.aoi else None, product, source, pixels, how, samples)


def _area(job: _Job, window: Window) -> Window | None:
    """The source pixels under a window."""
    # A pixel more on every side: samples of an average lie beyond the centres of border pixels.
    y0, x0, height, width = window
    return window_bounds(job.product, Window(y0 - 1, x0 - 1, height + 2, width + 2), job.source, 2)


def _slices(area: Window) -> tuple[slice, slice]:
    return slice(area.y0, area.y0 + area.height), slice(area.x0, area.x0 + area.width)


def _piece(data: da.Array, job: _Job, window: Window) -> da.Array:
    """One chunk: of the source only the pixels under it are touched."""
    height, width = window.height, window.width
    area = _area(job, window)
    lead = data.chunks[:-2]
    if area is None:
        shape = (*data.shape[:-2], height, width)
        empty: da.Array = da.full(shape, job.pixels.fill, data.dtype, chunks=(*lead, height, width))
        return empty
    rows, cols = _slices(area)
    under = data[..., rows, cols].rechunk({data.ndim - 2: -1, data.ndim - 1: -1})
    piece: da.Array = under.map_blocks(
        _resample,
        job=job,
        window=window,
        area=area,
        dtype=data.dtype,
        chunks=(*lead, (height,), (width,)),
        meta=np.empty((0,) * data.ndim, data.dtype),
    )
    return piece


def _resample(
    values: npt.NDArray[Any], job: _Job, window: Window, area: Window
) -> npt.NDArray[Any]:
    """(…, source rows, source columns) of `area` -> (…, y, x) of `window`."""
    layers = values.reshape(-1, *values.shape[-2:])
    out = np.empty((len(layers), window.height, window.width), values.dtype)
    k = job.samples
    step = max(1, POINTS // (window.width * k * k))
    for y in range(0, window.height, step):
        strip = Window(window.y0 + y, window.x0, min(step, window.height - y), window.width)
        footing = _footing(job.product, strip, job.source.lattice, k)
        check_inside(footing, area, job.source, 1 if job.resampling == "bilinear" else 0)
        for layer, target in zip(layers, out[:, y : y + strip.height], strict=True):
            _gather(np.ascontiguousarray(layer), footing, area, job, target)
    inside = None if job.cut is None else job.cut.inside(*window)
    if inside is not None:
        out[:, ~inside] = job.pixels.fill
    return out.reshape(*values.shape[:-2], window.height, window.width)


def check_inside(footing: Footing, area: Window, source: SourceGrid, reach: int = 0) -> None:
    """`InputError` where the outline of a chunk did not tell which source pixels lie under it.

    `reach`: pixels around each that are looked at too.
    """
    found = footing.bounds(source.shape, reach)
    if found is None:
        return
    (y0, x0, height, width), (top, left, rows, cols) = found, area
    if y0 < top or x0 < left or y0 + height > top + rows or x0 + width > left + cols:
        raise InputError(
            f"the grid folds in the CRS {source.lattice.crs[:40]} of a source, as at a pole or "
            "the antimeridian; take a grid that lies on one side"
        )


@lru_cache(maxsize=8)
def _footing(product: Lattice, window: Window, source: Lattice, k: int) -> Footing:
    """Shared by the variables and times of a chunk."""
    return Locator(product, window).footing(source, k)


def _gather(
    layer: npt.NDArray[Any], footing: Footing, area: Window, job: _Job, out: npt.NDArray[Any]
) -> None:
    k = job.samples
    if job.resampling == "bilinear":
        rows, cols = footing.dense
        mean = np.empty(out.shape, np.float64)
        values = job.pixels.to_float(layer)
        gather.bilinear(values, rows - area.y0, cols - area.x0, _GONE, mean)
        out[...] = job.pixels.from_float(mean)
    elif k > 1:
        fine = np.empty(footing.shape, np.float64)
        _nearest(job.pixels.to_float(layer), footing, area, _GONE, fine)
        mean = np.empty(out.shape, np.float64)
        gather.block_mean(fine, k, _GONE, mean)
        out[...] = job.pixels.from_float(mean)
    else:
        _nearest(layer, footing, area, layer.dtype.type(job.pixels.fill), out)


def _nearest(
    values: npt.NDArray[Any], footing: Footing, area: Window, fill: Any, out: npt.NDArray[Any]
) -> None:
    rows = footing.row_index - np.int32(area.y0)
    cols = footing.col_index - np.int32(area.x0)
    if footing.separable:
        gather.nearest_separable(values, rows, cols, fill, out)
    else:
        gather.nearest(values, rows, cols, fill, out)
