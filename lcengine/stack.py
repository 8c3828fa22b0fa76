"""Aligned stacks: composites of several sensors on one grid as one lazy dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
import xarray as xr

from lcengine.crs import crs_name, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.locate import SourceGrid
from lcengine.plan import product_lattice
from lcengine.reader import Resampling, check_resampling
from lcengine.regrid import Pixels, reaches, regrid, source_grid
from lcengine.sensors import sensor

CHUNK = 1024
"""Largest edge of a chunk of a stack, unless told otherwise."""

_NAME = re.compile(r"[A-Za-z]\w*")
_SHAPES = (("y", "x"), ("time", "y", "x"))

Source = xr.Dataset | xr.DataArray
Label = tuple[Any, Any, str]
"""Start and end of a period, and its name."""


@dataclass(frozen=True)
class _Part:
    """One source and how it goes into the stack."""

    name: str
    data: xr.Dataset
    source: SourceGrid
    grid: Grid
    resampling: Resampling
    native: bool

    @property
    def axes(self) -> tuple[str, str]:
        """Names of its axes down and across."""
        return (f"y_{self.name}", f"x_{self.name}") if self.native else ("y", "x")

    @property
    def periods(self) -> list[Label] | None:
        """Its periods, None where it has none."""
        if "period" not in self.data.coords or "time" not in self.data.dims:
            return None
        bounds = self.data["time_bnds"].values
        names = map(str, self.data["period"].values)
        return [(start, stop, name) for (start, stop), name in zip(bounds, names, strict=True)]


def stack(
    sources: Mapping[str, Source] | Sequence[Source],
    grid: Grid,
    *,
    native: Sequence[str] = (),
    resampling: str | Mapping[str, str] = "nearest",
    chunks: int | None = None,
) -> xr.Dataset:
    """Several rasters as one lazy dataset on exactly `grid`.

    Args:
        sources: What `lcengine.open`, `composite(cube)` or `load` give, by name; of a sequence the
            names are those of the products' sensors, else s0, s1, …
        grid: The pixels of the stack; those outside its polygon are missing.
        native: Names of the sources that keep their resolution, on axes `y_<name>` and `x_<name>`
            over the smallest extent of whole pixels that holds the grid's. In the grid's CRS their
            pixels are copied; else they are resampled onto multiples of their pixel size.
        resampling: `nearest`, `bilinear` or `average`, for all or by name (others: nearest).
            Backscatter (units dB) is averaged and interpolated as linear power; integers without
            a scale (counts, dates, classes) always take the nearest pixel.
        chunks: Edge of the chunks in pixels, by default the grid's tile, at most `CHUNK`.

    Returns:
        Variables `<name>_<variable>`, (y, x) or (time, y, x), of their own dtypes and attributes.
        Periods are aligned by their labels: `time` has those of all sources, by start, with
        `period` and `time_bnds`; where a source lacks one its pixels are missing (NaN, or
        `_FillValue`). A series without periods, such as a cube, keeps an axis `time_<name>`. No
        pixel depends on the chunks.

    Raises:
        InputError: A source has no CRS, pixels that are no lattice, or no part of the grid; a name
            is unknown or ambiguous; two sources mean different spans by one period.
    """
    named = _named(sources)
    methods = _methods(resampling, named)
    unknown = sorted(set(native) - set(named))
    if isinstance(native, str) or unknown:
        raise InputError(
            f"native is {native!r}, expected a list of some of the sources: {', '.join(named)}"
        )
    size = min(grid.tile, CHUNK) if chunks is None else chunks
    if size < 1:
        raise InputError(f"chunks is {chunks}, expected a positive number of pixels")
    parts = [_part(name, data, grid, methods[name], name in native) for name, data in named.items()]
    labels = _union(parts)
    out = xr.Dataset(coords=_coordinates(grid, ("y", "x")))
    for part in parts:
        layers = _layers(part, labels, size)
        twice = sorted(set(layers) & {*out.data_vars, *out.coords})
        if twice:
            raise InputError(f"two sources give {twice}; choose other names for the sources")
        out = out.assign_coords(_coordinates(part.grid, part.axes)).assign(layers)
        out = out.assign_coords(_series(part))
    if labels:
        out = out.assign_coords(
            time=("time", np.array([start for start, _, _ in labels])),
            time_bnds=(("time", "bnds"), np.array([label[:2] for label in labels])),
            period=("time", np.array([name for _, _, name in labels], dtype=object)),
        )
    return out.rio.write_crs(grid.crs_wkt)  # type: ignore[no-any-return]


def _named(sources: Mapping[str, Source] | Sequence[Source]) -> dict[str, xr.Dataset]:
    """Sources by name, as datasets."""
    if isinstance(sources, xr.Dataset | xr.DataArray):
        raise InputError("sources are one dataset, expected several by name: {'s2': …, 's1': …}")
    if not isinstance(sources, Mapping):
        known = [_sensor_name(source) for source in sources]
        sources = {
            name if name and known.count(name) == 1 else f"s{i}": source
            for i, (name, source) in enumerate(zip(known, sources, strict=True))
        }
    if not sources:
        raise InputError("there are no sources to stack; give at least one")
    wrong = [name for name in sources if not _NAME.fullmatch(str(name))]
    if wrong:
        raise InputError(f"sources are called {wrong}, expected letters, digits and _ such as 's2'")
    return {name: _dataset(name, source) for name, source in sources.items()}


def _sensor_name(source: Source) -> str | None:
    """`sentinel_2_l2a` of such a product, or a cube of it, else None."""
    attributes = getattr(source, "attrs", {})  # what is no source is named where it is read
    text = attributes.get("lcengine")
    facts = json.loads(text) if text else {}
    collections: Sequence[str] = facts.get("request", {}).get("collections", ())
    # Cubes of `load`, products, and products of before, which said only what was asked for.
    stated = (attributes.get("sensor"), facts.get("sensor"), *collections[: len(collections) == 1])
    for name in filter(None, stated):
        with suppress(InputError):  # something else, or a collection that only items tell of
            return re.sub(r"\W", "_", sensor(str(name)).name)
    return None


def _dataset(name: str, source: Source) -> xr.Dataset:
    """Rasters of a source; the bands of a cube are variables."""
    if isinstance(source, xr.DataArray):
        if "band" not in source.dims:
            raise InputError(
                f"source {name!r} is an array {source.dims}, expected a dataset, or a cube of "
                "load() with a dimension band"
            )
        scaled = {"scale_factor", "add_offset", "units"}
        unscaled = {k: v for k, v in source.attrs.items() if k not in scaled}
        bands = {str(b): source.sel(band=b, drop=True) for b in source["band"].values}
        source = xr.Dataset(
            {
                band: values.assign_attrs(source.attrs)
                if band not in ("clear", "cloud_distance")
                else values.drop_attrs().assign_attrs(unscaled)
                for band, values in bands.items()
            }
        )
    elif not isinstance(source, xr.Dataset):
        raise InputError(
            f"source {name!r} is a {type(source).__name__}, expected what lcengine.open(), "
            "composite() or load() give"
        )
    rasters = [str(n) for n, v in source.data_vars.items() if v.dims in _SHAPES]
    if not rasters or not {"y", "x"} <= set(source.coords):
        raise InputError(
            f"source {name!r} has no raster with dimensions (y, x) or (time, y, x) and both "
            "coordinates; expected what lcengine.open(), composite() or load() give"
        )
    return source.drop_vars([name for name in source.data_vars if name not in rasters])


def _methods(
    resampling: str | Mapping[str, str], named: Mapping[str, xr.Dataset]
) -> dict[str, Resampling]:
    if isinstance(resampling, str):
        return dict.fromkeys(named, check_resampling(resampling))
    unknown = sorted(set(resampling) - set(named))
    if unknown:
        raise InputError(f"resampling names {unknown}; the sources are {', '.join(named)}")
    return {name: check_resampling(resampling.get(name, "nearest")) for name in named}


def _part(name: str, data: xr.Dataset, grid: Grid, resampling: Resampling, native: bool) -> _Part:
    source = source_grid(data, name)
    if "period" in data.coords and "time" in data.dims and "time_bnds" not in data.coords:
        raise InputError(f"source {name!r} has periods without time_bnds; keep that coordinate")
    own = _native_grid(name, source, grid) if native else grid
    if not reaches(source, own):
        lattice, (height, width) = source.lattice, source.shape
        right, bottom = lattice.left + width * lattice.dx, lattice.top - height * lattice.dy
        raise InputError(
            f"source {name!r} covers {lattice.left:.10g},{bottom:.10g},{right:.10g},"
            f"{lattice.top:.10g} in {crs_name(resolve_crs(lattice.crs))}, no part of the grid "
            f"{grid.bounds} in {crs_name(grid.crs)}; choose a grid that it covers"
        )
    return _Part(name, data, source, own, resampling, native)


def _native_grid(name: str, source: SourceGrid, grid: Grid) -> Grid:
    """Whole pixels of the source's size that hold the grid, in the grid's CRS."""
    lattice, product = source.lattice, product_lattice(grid)
    if abs(lattice.dx - lattice.dy) > 1e-9 * lattice.dx:
        raise InputError(
            f"source {name!r} has pixels of {lattice.dx:g} by {lattice.dy:g}, which are not "
            "square, so it cannot stay native; leave it out of native="
        )
    if lattice.crs == product.crs:
        anchor = lattice.left, lattice.top
    elif resolve_crs(lattice.crs).geographic == grid.crs.geographic:
        anchor = 0.0, 0.0
    else:
        raise InputError(
            f"source {name!r} has pixels in other units ({lattice.crs[:40]}) than the grid "
            f"({crs_name(grid.crs)}), so it cannot stay native; leave it out of native="
        )
    return _covering(grid, lattice.dx, anchor)


def _covering(grid: Grid, size: float, anchor: tuple[float, float]) -> Grid:
    """The grid's extent and polygon in pixels of another size, on the lattice through a corner."""
    left, bottom, right, top = grid.bounds
    near = 1e-6  # of a pixel: an edge this close to the lattice lies on it
    x0 = int(np.floor((left - anchor[0]) / size + near))
    x1 = int(np.ceil((right - anchor[0]) / size - near))
    y0 = int(np.floor((anchor[1] - top) / size + near))
    y1 = int(np.ceil((anchor[1] - bottom) / size - near))
    described = grid.to_dict() | {
        "transform": [size, 0.0, anchor[0] + x0 * size, 0.0, -size, anchor[1] - y0 * size],
        "shape": [y1 - y0, x1 - x0],
    }
    return Grid.from_dict(described)


def _union(parts: Iterable[_Part]) -> list[Label]:
    """The periods of all sources, by start; `InputError` where one name has two spans."""
    spans: dict[str, tuple[Label, str]] = {}
    for part in parts:
        labels = part.periods or []
        if len({name for *_, name in labels}) < len(labels):
            raise InputError(f"source {part.name!r} has a period twice; select each once")
        for label in labels:
            known, owner = spans.setdefault(label[2], (label, part.name))
            if known != label:
                raise InputError(
                    f"period {label[2]!r} is {label[0]} to {label[1]} in {part.name!r} and "
                    f"{known[0]} to {known[1]} in {owner!r}; composite both by one rule"
                )
    return sorted(label for label, _ in spans.values())


def _layers(part: _Part, labels: Sequence[Label], chunks: int) -> dict[str, xr.DataArray]:
    """The variables of a source on its grid and the common time axis."""
    own = part.periods
    out = {}
    for name, variable in part.data.data_vars.items():
        data = regrid(variable, part.source, part.grid, part.resampling, chunks)
        pixels = Pixels.of(variable)
        dims: tuple[str, ...] = part.axes
        if variable.ndim == 3 and own is not None:
            data, dims = _aligned(data, own, labels, pixels.fill), ("time", *dims)
        elif variable.ndim == 3:
            dims = (f"time_{part.name}", *dims)
        attributes = {k: v for k, v in variable.attrs.items() if k != "grid_mapping"}
        if pixels.dtype.kind != "f":
            attributes["_FillValue"] = pixels.fill
        title = f"{part.name}_{name}"
        out[title] = xr.DataArray(data, dims=dims, name=title, attrs=attributes)
    return out


def _aligned(
    data: da.Array, own: Sequence[Label], labels: Sequence[Label], fill: float
) -> da.Array:
    """Periods of a source at their places on the common axis, the others missing."""
    if list(own) == list(labels):
        return data
    place = {label: i for i, label in enumerate(own)}
    empty = da.full((1, *data.shape[1:]), fill, data.dtype, chunks=(1, *data.chunks[1:]))
    slices = [data[place[at] : place[at] + 1] if at in place else empty for at in labels]
    whole: da.Array = da.concatenate(slices, axis=0)
    return whole


def _series(part: _Part) -> dict[str, Any]:
    """The time axis of a series without periods, and what lies along it."""
    if part.periods is not None or "time" not in part.data.dims:
        return {}
    axis = f"time_{part.name}"
    return {
        axis if name == "time" else f"{part.name}_{name}": (axis, coordinate.values)
        for name, coordinate in part.data.coords.items()
        if coordinate.dims == ("time",)
    }


def _coordinates(grid: Grid, axes: tuple[str, str]) -> dict[str, Any]:
    down, across = axes
    height, width = grid.shape
    values: dict[str, npt.NDArray[np.float64]] = {
        down: grid.y(np.arange(height)),
        across: grid.x(np.arange(width)),
    }
    return {
        name: (name, pixels, {"standard_name": f"projection_{name[0]}_coordinate"})
        for name, pixels in values.items()
    }
