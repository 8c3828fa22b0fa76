"""What models see: bands of products, by name, as stored numbers on one grid."""

from __future__ import annotations

import datetime as dt
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xarray as xr

from lcengine import store
from lcengine.crs import crs_name
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.locate import SourceGrid, Window
from lcengine.plan import product_lattice
from lcengine.reader import Resampling, check_resampling
from lcengine.regrid import Pixels, reaches, regrid_window

Arrays = dict[str, npt.NDArray[Any]]
"""Stored numbers by input, (sample, [time,] band, y, x)."""

_NAME = re.compile(r"[A-Za-z]\w*")
_TAKEN = ("label", "index")
"""What arrays of a training batch are called beside the inputs."""


@dataclass(frozen=True)
class Input:
    """One image that a model sees, e.g. the bands of Sentinel-2.

    `fill`: its missing value, None for NaN or where none is known. `times`: names of its periods,
    empty where it has no time axis. `scale`, `units`, `sensor`: what a stored number is, where
    known.
    """

    name: str
    bands: tuple[str, ...]
    dtype: str
    fill: int | None
    times: tuple[str, ...] = ()
    scale: float | None = None
    units: str | None = None
    sensor: str | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape before (y, x): ([time,] band)."""
        return (*((len(self.times),) if self.times else ()), len(self.bands))

    def valid(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where stored numbers are not missing."""
        if values.dtype.kind == "f":
            return np.asarray(np.isfinite(values))
        return np.ones(values.shape, np.bool_) if self.fill is None else values != self.fill

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "bands": list(self.bands), "times": list(self.times)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Input:
        """Inverse of `to_json`; `ValueError` or `TypeError` for what is none."""
        found = cls(**{**data, "bands": tuple(data["bands"]), "times": tuple(data["times"])})
        known = (
            np.dtype(found.dtype).kind in "iuf"
            and all(isinstance(text, str) for text in (found.name, *found.bands, *found.times))
            and isinstance(data["fill"], int | None)
            and isinstance(data.get("scale"), int | float | None)
        )
        if not known:
            raise ValueError(f"input {found.name!r} is {found}")
        return found


def observed(
    inputs: Sequence[Input], arrays: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.bool_]:
    """(sample, y, x) where every band of every input is there, at some time at least.

    Elsewhere a model has no ground to say anything: its maps have nodata there.
    """
    layers = []
    for entry in inputs:
        seen = entry.valid(arrays[entry.name])
        if entry.times:
            seen = np.asarray(seen.any(axis=1))
        layers.append(np.asarray(seen.all(axis=1)))
    return np.asarray(np.logical_and.reduce(layers))


@dataclass(frozen=True)
class Layer:
    """One product: what is asked of it, and which version was planned with.

    `bands`: names of its variables, empty for all bands. `run_id`: of a product; images have none.
    """

    path: str
    bands: tuple[str, ...] = ()
    resampling: Resampling = "nearest"
    run_id: str = ""

    def check(self) -> None:
        """`InputError` where another version lies there since."""
        found = store.provenance(self.path)["run_id"]
        if found != self.run_id:
            raise InputError(
                f"{self.path} was made anew since this was planned ({self.run_id}, now {found}); "
                "begin again with --restart"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """Inverse of `to_json`."""
        return cls(**{**data, "bands": tuple(data["bands"])})


def pinned(
    path: str | os.PathLike[str], bands: Sequence[str] = (), resampling: str = "nearest"
) -> Layer:
    """The version of a product that lies there now."""
    found = store.provenance(path)["run_id"]
    return Layer(address(path), tuple(bands), check_resampling(resampling), found)


def address(path: str | os.PathLike[str]) -> str:
    """A path that holds on any worker that shares the disk; addresses as they are."""
    text = os.fspath(path)
    return text if "://" in text else os.path.abspath(text)


def layers(
    sources: Mapping[str, str | os.PathLike[str]],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    resampling: str | Mapping[str, str] = "nearest",
) -> dict[str, Layer]:
    """Products by the name that models know them by, in the version that lies there now.

    Args:
        sources: Paths or addresses of products by name.
        bands: Variables of a source, in order, by default all with a scale (no counts or dates).
        resampling: `nearest`, `bilinear` or `average`, for all or by name.

    Raises:
        InputError: There is no source, a path is no product, or a name is unknown.
    """
    if not sources:
        raise InputError("there are no sources; give at least one, such as s2=months.zarr")
    wrong = [name for name in sources if not _NAME.fullmatch(name) or name in _TAKEN]
    if wrong:
        raise InputError(
            f"sources are called {wrong}, expected letters, digits and _ such as 's2', not "
            f"{' or '.join(map(repr, _TAKEN))}"
        )
    chosen = dict(bands or {})
    how = resampling if isinstance(resampling, Mapping) else dict.fromkeys(sources, resampling)
    unknown = sorted({*chosen, *how} - set(sources))
    if unknown:
        raise InputError(f"bands or resampling name {unknown}; sources are {', '.join(sources)}")
    return {
        name: pinned(path, tuple(chosen.get(name, ())), how.get(name, "nearest"))
        for name, path in sources.items()
    }


@dataclass(frozen=True)
class _Opened:
    """A product ready to be read."""

    layer: Layer
    data: xr.Dataset
    grid: SourceGrid
    input: Input


class Inputs:
    """Bands of products on one grid: the pixels of `lcengine.stack`, as stored numbers.

    Every product keeps its own periods. `InputError`, when first used, where a band is unknown,
    bands of one source differ in type, a source does not reach the grid, or was made anew.
    """

    def __init__(self, sources: Mapping[str, Layer], grid: Grid) -> None:
        self.layers = dict(sources)
        self.grid = grid

    @cached_property
    def _opened(self) -> tuple[_Opened, ...]:
        return tuple(_open(name, layer, self.grid) for name, layer in self.layers.items())

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The products' bands."""
        return tuple(opened.input for opened in self._opened)

    def read(self, window: Window) -> Arrays:
        """A window of all inputs inside the grid, (1, [time,] band, y, x)."""
        out: Arrays = {}
        for opened in self._opened:
            entry = opened.input
            values = np.empty((1, *entry.lead, window.height, window.width), entry.dtype)
            for band, name in enumerate(entry.bands):
                values[0, ..., band, :, :] = regrid_window(
                    opened.data[name], opened.grid, self.grid, opened.layer.resampling, window
                )
            out[entry.name] = values
        return out


def _open(name: str, layer: Layer, grid: Grid) -> _Opened:
    layer.check()
    data = store.stored(layer.path)
    own = store.grid_of(layer.path)
    source = SourceGrid(product_lattice(own), own.shape)
    if not reaches(source, grid):
        raise InputError(
            f"source {name!r} ({layer.path}) covers {own.bounds} in {crs_name(own.crs)}, no part "
            f"of the pixels asked for, {grid.bounds} in {crs_name(grid.crs)}; give what overlaps"
        )
    return _Opened(layer, data, source, input_of(name, layer, data))


def interval(products: Iterable[Layer]) -> tuple[str, str] | None:
    """First and last moment of products' imagery, in UTC as RFC 3339; None where none says.

    Those of their periods, without periods those of the scenes that they were made of.
    """
    ends: list[dt.datetime] = []
    for layer in products:
        data = store.open(layer.path)
        if "time_bnds" in data.coords:
            bounds = data["time_bnds"].values.astype("M8[s]")
            ends += [bounds.min().item(), bounds.max().item()]
            continue
        with suppress(InputError):  # no composite: it has no table of scenes
            table = io.BytesIO(store.sidecar(layer.path, "items.parquet"))
            times = pq.read_table(table, columns=["datetime"])["datetime"].to_pylist()
            ends += [time.replace(tzinfo=None) for time in times if time is not None]
    if not ends:
        return None
    return _rfc3339(min(ends)), _rfc3339(max(ends))


def _rfc3339(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="seconds") + "Z"


def input_of(name: str, layer: Layer, data: xr.Dataset) -> Input:
    """What a model is told of a product; `InputError` where its bands are not of one kind."""
    variables = {str(n): v for n, v in data.data_vars.items()}
    bands = layer.bands or tuple(n for n, v in variables.items() if "scale_factor" in v.attrs)
    unknown = [band for band in bands if band not in variables]
    if unknown or not bands or len(set(bands)) < len(bands):
        raise InputError(
            f"source {name!r} gives bands {', '.join(bands) or 'none'}; expected some of "
            f"{', '.join(variables)}, each once"
        )
    kinds = {_kind(variables[band]) for band in bands}
    if len(kinds) > 1:
        found = "; ".join(sorted(f"{kind[0]} {kind[1]}" for kind in kinds))
        raise InputError(
            f"bands of source {name!r} are of several kinds (type and axes: {found}); make a "
            "source of each"
        )
    first = variables[bands[0]]
    fill = Pixels.of(first).fill
    times: tuple[str, ...] = ()
    if "time" in first.dims:
        times = tuple(map(str, data["time"].attrs["period_names"]))
    return Input(
        name=name,
        bands=tuple(bands),
        dtype=str(first.dtype),
        fill=None if first.dtype.kind == "f" else int(fill),
        times=times,
        scale=_common(variables[band].attrs.get("scale_factor") for band in bands),
        units=_common(variables[band].attrs.get("units") for band in bands),
        sensor=store.provenance(layer.path).get("sensor"),
    )


def _kind(variable: xr.DataArray) -> tuple[str, str, float | None]:
    pixels = Pixels.of(variable)
    fill = None if variable.dtype.kind == "f" else pixels.fill
    return str(variable.dtype), " ".join(map(str, variable.dims)), fill


def _common(values: Any) -> Any:
    """The one value that all share, else None."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else None
