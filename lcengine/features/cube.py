"""Features of rasters in a notebook, lazily, with the kernels and the bits of the predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine.errors import InputError
from lcengine.features.recipe import Features
from lcengine.inputs import Input
from lcengine.kernels.methods import DISTANCE
from lcengine.regrid import Pixels

Rasters = xr.Dataset | xr.DataArray

_IMAGE = "image"
_CLEAR = "clear"
_AXES = ("y", "x")


def features(
    data: Rasters | Mapping[str, Rasters],
    texts: Sequence[str] = (),
    *,
    sources: Sequence[str] = (),
) -> xr.Dataset:
    """Features of rasters, chunk by chunk.

    Args:
        data: What `lcengine.open`, `composite(cube)` or `load` give: (y, x) or (time, y, x),
            float32 with NaN or stored integers; several by name, on the same y and x. Bands are
            the float variables and those with a scale. Where a cube has a band `clear`, what is
            not clear is missing.
        texts: Features such as `bands`, `ndvi:p10,p50,p90` (docs/features.md); empty: all bands.
        sources: Names of the sources of a `lcengine.stack`, whose variables `s2_red` are then
            the band `red` of source `s2`.

    Returns:
        A float32 variable (y, x) per feature, by its name, NaN where a band is never there. Of a
        product they have the bits that a model trained on it sees. To ask for one of them computes
        all of its chunk.

    Raises:
        InputError: A text is refused, rasters differ in y and x, or have no bands.
    """
    entries = _entries(data, sources)
    recipe = Features.parse(texts, [entry.input for entry in entries])
    _check_place(entries)
    # Sources have times of their own, which must not be joined by their labels.
    axes = [[f"time_{e.input.name}"] if e.input.times else [] for e in entries for _ in e.bands]
    arrays = [
        band.rename(time=axis[0]) if axis else band
        for band, axis in zip((b for e in entries for b in e.bands), axes, strict=True)
    ]
    found = xr.apply_ufunc(
        _Block(recipe),
        *(_whole(array, axis) for array, axis in zip(arrays, axes, strict=True)),
        input_core_dims=axes,
        output_core_dims=[["feature"]],
        join="override",
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"feature": len(recipe.names)}},
        keep_attrs=False,
    )
    first = entries[0].bands[0]
    kept = {n: first[n] for n in ("y", "x", "spatial_ref") if n in first.coords}
    layers = {name: found.isel(feature=i) for i, name in enumerate(recipe.names)}
    return xr.Dataset(layers).assign_coords(kept)


@dataclass(frozen=True)
class _Entry:
    """One source: what is known of it, and its bands (y, x[, time]) without other coordinates."""

    input: Input
    bands: tuple[xr.DataArray, ...]


@dataclass(frozen=True)
class _Block:
    """The features of one chunk; a value, so that a cluster can be sent it."""

    recipe: Features

    def __call__(self, *blocks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(y, x[, time]) of every band, as xarray hands them, -> (y, x, feature)."""
        rest = iter(blocks)
        arrays = {}
        for entry in self.recipe.inputs:
            bands = [next(rest) for _ in entry.bands]
            if entry.times:
                layers = [np.moveaxis(band, -1, 0) for band in bands]
                arrays[entry.name] = np.stack(layers, axis=1)[np.newaxis]
            else:
                arrays[entry.name] = np.stack(bands)[np.newaxis]
        return np.moveaxis(self.recipe.compute(arrays)[:, 0], 0, -1)


def _check_place(entries: Sequence[_Entry]) -> None:
    first = entries[0].bands[0]
    for entry in entries:
        for axis in _AXES:
            if not np.array_equal(entry.bands[0][axis].values, first[axis].values):
                raise InputError(
                    f"source {entry.input.name!r} has other {axis} than {entries[0].input.name!r}; "
                    "put them on one grid with lcengine.stack"
                )


def _whole(array: xr.DataArray, axis: Sequence[str]) -> xr.DataArray:
    """An array with its time in one chunk, without coordinates to join by."""
    bare = array.drop_vars(list(array.coords))
    return bare.chunk({axis[0]: -1}) if axis and bare.chunks else bare


def _entries(data: Rasters | Mapping[str, Rasters], sources: Sequence[str]) -> list[_Entry]:
    if isinstance(data, Mapping) and not isinstance(data, xr.Dataset):
        if sources or not data:
            raise InputError("give rasters by name, or one stack with the names of its sources")
        return [_entry(str(name), raster) for name, raster in data.items()]
    if isinstance(data, xr.Dataset) and sources:
        return [_entry(name, _of_stack(data, name)) for name in sources]
    if sources:
        raise InputError(f"sources {list(sources)} are named of one cube; leave them out")
    return [_entry(_IMAGE, data)]


def _of_stack(stack: xr.Dataset, name: str) -> xr.Dataset:
    """The variables of one source under their own names."""
    prefix, axis = f"{name}_", f"time_{name}"
    own = [str(n) for n in stack.data_vars if str(n).startswith(prefix)]
    if not own:
        have = sorted({str(n).partition("_")[0] for n in stack.data_vars})
        raise InputError(f"the stack has no source {name!r}; it has {', '.join(have)}")
    part = stack[own].rename({n: n.removeprefix(prefix) for n in own})
    return part.rename({axis: "time"}) if axis in part.dims else part


def _entry(name: str, raster: Rasters) -> _Entry:
    data = _split(name, raster) if isinstance(raster, xr.DataArray) else raster
    bands = {
        str(n): variable
        for n, variable in data.data_vars.items()
        if (variable.dtype.kind == "f" or "scale_factor" in variable.attrs)
        and set(variable.dims) in ({*_AXES}, {*_AXES, "time"})
    }
    if not bands:
        raise InputError(
            f"source {name!r} has no bands: floats or scaled integers (y, x) or (time, y, x); it "
            f"has {', '.join(map(str, data.data_vars)) or 'nothing'}"
        )
    kinds = {(str(v.dtype), "time" in v.dims, _fill(v)) for v in bands.values()}
    if len(kinds) > 1:
        found = "; ".join(sorted(map(str, kinds)))
        raise InputError(
            f"bands of source {name!r} are of several kinds (type, time, fill: {found}); give a "
            "source of each"
        )
    (dtype, timed, fill), first = kinds.pop(), next(iter(bands.values()))
    described = Input(
        name,
        tuple(bands),
        dtype,
        fill,
        _times(data) if timed else (),
        _common(bands, "scale_factor"),
        _common(bands, "units"),
    )
    order = (*_AXES, "time") if "time" in first.dims else _AXES
    return _Entry(described, tuple(v.transpose(*order) for v in bands.values()))


def _split(name: str, cube: xr.DataArray) -> xr.Dataset:
    """The bands of a cube as variables; what is not clear is missing."""
    if "band" not in cube.dims:
        raise InputError(
            f"source {name!r} is an array {cube.dims}, expected a dataset, or a cube with bands"
        )
    names = [str(band) for band in cube["band"].values]
    bands = {n: cube.sel(band=n, drop=True) for n in names if n not in (_CLEAR, DISTANCE)}
    if _CLEAR in names:
        clear = cube.sel(band=_CLEAR, drop=True) == 1
        bands = {
            n: band.where(clear, cube.dtype.type(Pixels.of(band).fill)).assign_attrs(cube.attrs)
            for n, band in bands.items()
        }
    return xr.Dataset({n: band.assign_attrs(cube.attrs) for n, band in bands.items()})


def _fill(variable: xr.DataArray) -> int | None:
    return None if variable.dtype.kind == "f" else int(Pixels.of(variable).fill)


def _common(bands: Mapping[str, xr.DataArray], attribute: str) -> Any:
    """The attribute that all bands share, else None."""
    found = {variable.attrs.get(attribute) for variable in bands.values()}
    return found.pop() if len(found) == 1 else None


def _times(data: xr.Dataset) -> tuple[str, ...]:
    """Names of the periods; of a series without, its moments."""
    if "period" in data.coords:
        return tuple(map(str, np.atleast_1d(data["period"].values)))
    if "time" in data.coords and data["time"].dtype.kind == "M":
        return tuple(f"{moment}Z" for moment in data["time"].values.astype("M8[s]"))
    return tuple(map(str, range(data.sizes["time"])))
