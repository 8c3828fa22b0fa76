"""Maps of rasters in memory or on disk, lazily: the arrays that a run would store."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.inputs import Arrays, Input
from lcengine.locate import Window
from lcengine.models import ModelRef, ModelSpec, Predictor
from lcengine.models.predictor import Execution
from lcengine.predict import lattice as patches
from lcengine.predict import windows
from lcengine.predict.check import check_model, check_size, check_times
from lcengine.predict.lattice import PatchLattice, Tiling
from lcengine.predict.plan import check_scores, variables

Raster = xr.Dataset | xr.DataArray

_LOADING = Lock()

BYTES = 2**62
"""Read at once: everything that a tile needs is there already."""


@dataclass(frozen=True)
class Part:
    """A part of a raster in memory."""

    window: Window
    arrays: Arrays

    def read(self, window: Window) -> Arrays:
        """Inputs of a window inside the part, (1, [time,] band, y, x)."""
        place = (..., *windows.inside(window, self.window))
        return {name: np.ascontiguousarray(values[place]) for name, values in self.arrays.items()}


@dataclass(frozen=True)
class ArrayPlan:
    """`maps.MapPlan` of a raster; `inputs` are there when a tile is computed."""

    model: ModelRef
    spec: ModelSpec
    proba: bool
    uncertainty: tuple[str, ...]
    lattice: PatchLattice | None
    how: Execution | None
    shape: tuple[int, int]
    inputs: Part = Part(Window(0, 0, 0, 0), {})

    @property
    def predictor(self) -> Predictor:
        """The model, loaded once per process."""
        return _loaded(self.model)

    def window(self, tile: Tile) -> Window:
        """The part of the raster that a tile needs."""
        if self.lattice is None:
            found = list(windows.reads(self.spec, self.shape, tile))
        else:
            found = [r.window for r in patches.reads(self.lattice, self.shape, tile, BYTES)]
        top, left = min(w.y0 for w in found), min(w.x0 for w in found)
        bottom, right = max(w.y0 + w.height for w in found), max(w.x0 + w.width for w in found)
        return Window(top, left, bottom - top, right - left)

    def tiles(self, edge: int) -> list[list[Tile]]:
        """Rows of tiles of the raster."""
        height, width = self.shape
        return [
            [
                Tile(0, y // edge, x // edge, y, x, min(edge, height - y), min(edge, width - x))
                for x in range(0, width, edge)
            ]
            for y in range(0, height, edge)
        ]


def predict(
    raster: Raster | Mapping[str, Raster],
    model: str | os.PathLike[str],
    *,
    proba: bool = False,
    uncertainty: Sequence[str] = (),
    tiling: Tiling | None = None,
    tile: int = 1024,
) -> xr.Dataset:
    """The map of a raster, lazily: the arrays that `plan_predict` and `run` would store.

    Patches lie on a lattice from the raster's upper-left pixel, so pixels are the same whatever its
    chunks and `tile`.

    Args:
        raster: Bands as variables, or along a dimension `band`; dims ([time], y, x), as stored, or
            float32 with NaN as `lcengine.open` gives them. By the names of the model's inputs where
            it has several.
        model: Folder of a model, which every worker process loads once.
        proba: Also the probability of every class.
        uncertainty: Also `entropy` and/or `margin`.
        tiling: Of a network: another lattice or way to run it than its own.
        tile: Edge of the result's chunks; a chunk is one task.

    Raises:
        InputError: The raster is not what the model was made for.
    """
    ref = ModelRef.of(model)
    spec = ref.check()
    check_model(spec)
    scores = check_scores(uncertainty)
    lattice, how = (tiling or Tiling()).of(spec)
    if tile < 1:
        raise InputError(f"tile is {tile}, expected 1 or more")
    rasters = _named(raster, spec)
    layers = {entry.name: _layers(rasters[entry.name], entry) for entry in spec.inputs}
    like = next(iter(layers.values()))
    _check_pixels(spec, layers)
    shape = like.sizes["y"], like.sizes["x"]
    plan = ArrayPlan(ref, spec, proba, scores, lattice, how, shape)
    return _assembled(plan, layers, tile)


def _assembled(plan: ArrayPlan, layers: Mapping[str, xr.DataArray], edge: int) -> xr.Dataset:
    """The lazy result: one task for each tile, one chunk for each of its variables."""
    wanted = variables(plan.spec.legend, plan.proba, plan.uncertainty)
    token = dask.base.tokenize(plan, {name: values.data for name, values in layers.items()})
    compute = dask.delayed(_computed, pure=True)
    rows: dict[str, list[list[Any]]] = {variable.name: [] for variable in wanted}
    for line in plan.tiles(edge):
        for own in rows.values():
            own.append([])
        for tile in line:
            window = plan.window(tile)
            cut = (..., *windows.inside(window, Window(0, 0, *plan.shape)))
            parts = {name: values.data[cut] for name, values in layers.items()}
            key = f"predict-{token}-{tile.row}-{tile.col}"
            made = compute(plan, tile, window, parts, dask_key_name=key)
            for variable in wanted:
                part = da.from_delayed(
                    made[variable.name], (tile.height, tile.width), variable.dtype
                )
                rows[variable.name][-1].append(part)
    like = next(iter(layers.values()))
    kept: dict[Hashable, Any] = {
        name: values
        for name, values in like.coords.items()
        if set(values.dims) <= {"y", "x"} and name not in ("band", "time", "period")
    }
    return xr.Dataset(
        {v.name: (("y", "x"), da.block(rows[v.name]), v.attributes()) for v in wanted}, kept
    )


def _computed(
    plan: ArrayPlan, tile: Tile, window: Window, parts: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """The variables of a tile."""
    from lcengine.predict.task import painted  # noqa: PLC0415 (a planner runs nothing)

    arrays = {
        entry.name: _stored(np.asarray(parts[entry.name]), entry)[None]
        for entry in plan.spec.inputs
    }
    return painted(replace(plan, inputs=Part(window, arrays)), tile)[0].arrays


def _loaded(ref: ModelRef) -> Predictor:
    """A model, once for all threads of a process."""
    with _LOADING:
        return _load(ref)


@lru_cache(maxsize=2)
def _load(ref: ModelRef) -> Predictor:
    return ref.load()


# ------------------------------------------------------------------------------ what is in a raster


def _named(raster: Raster | Mapping[str, Raster], spec: ModelSpec) -> Mapping[str, Raster]:
    """Rasters by the names of the model's inputs."""
    names = [entry.name for entry in spec.inputs]
    if isinstance(raster, xr.Dataset | xr.DataArray):
        given: Mapping[str, Raster] = {names[0]: raster} if len(names) == 1 else {"": raster}
    else:
        given = raster
    if set(given) != set(names):
        got = ", ".join(given) if any(given) else "one raster without a name"
        raise InputError(f"rasters are {got}; the model expects {', '.join(names)}")
    return given


def _layers(raster: Raster, entry: Input) -> xr.DataArray:
    """([time,] band, y, x) in the model's order."""
    if isinstance(raster, xr.Dataset):
        lacking = [band for band in entry.bands if band not in raster]
        if lacking:
            raise InputError(
                f"the raster of {entry.name!r} lacks {', '.join(lacking)}: it has "
                f"{', '.join(map(str, raster.data_vars))}, and the model expects "
                f"{', '.join(entry.bands)}"
            )
        raster = xr.concat(
            [raster[band] for band in entry.bands], "band", coords="minimal", compat="override"
        )
    elif "band" in raster.coords and set(entry.bands) <= set(raster["band"].values.tolist()):
        raster = raster.sel(band=list(entry.bands))
    dims = (*(("time",) if entry.times else ()), "band", "y", "x")
    if set(raster.dims) != set(dims):
        raise InputError(
            f"the raster of {entry.name!r} has dimensions {tuple(raster.dims)}, expected {dims}"
        )
    found = raster.transpose(*dims)
    if found.shape[:-2] != entry.lead:
        raise InputError(
            f"the raster of {entry.name!r} has {found.shape[:-2]} {dims[:-2]}, and the model "
            f"expects {entry.lead}: {', '.join(entry.bands)}"
        )
    floats = found.dtype.kind == "f" and np.dtype(entry.dtype).kind in "iu"
    if found.dtype != entry.dtype and not floats:
        raise InputError(
            f"the raster of {entry.name!r} is {found.dtype}, and the model was trained on "
            f"{entry.dtype}; give stored numbers, or floats as lcengine.open does"
        )
    if "period" in found.coords and entry.times:
        times = tuple(map(str, np.atleast_1d(found["period"].values)))
        check_times(entry, Input(**{**vars(entry), "times": times}), f"raster {entry.name!r}")
    return found


def _check_pixels(spec: ModelSpec, layers: Mapping[str, xr.DataArray]) -> None:
    """`InputError` unless all inputs have the same pixels, of the model's size."""
    first, like = next(iter(layers.items()))
    for name, values in layers.items():
        for axis in ("y", "x"):
            same = values.sizes[axis] == like.sizes[axis] and (
                axis not in values.coords
                or axis not in like.coords
                or np.array_equal(values[axis].values, like[axis].values)
            )
            if not same:
                raise InputError(
                    f"rasters {first!r} and {name!r} differ in {axis}: expected the same pixels; "
                    "load them on one grid"
                )
    if "x" in like.coords and like.sizes["x"] > 1:
        ends = like["x"].values[[0, -1]].astype(np.float64)
        check_size(spec, abs(float(ends[1] - ends[0])) / (like.sizes["x"] - 1), "of the raster")


def _stored(values: npt.NDArray[Any], entry: Input) -> npt.NDArray[Any]:
    """Stored numbers of what `lcengine.open` made of them, or of themselves."""
    dtype = np.dtype(entry.dtype)
    if values.dtype == dtype:
        return values
    there = np.isfinite(values)
    if entry.fill is None and not there.all():
        raise InputError(
            f"the raster of {entry.name!r} has missing numbers, and the model knows none of them"
        )
    steps = np.rint(np.where(there, values, 0).astype(np.float64) / (entry.scale or 1.0))
    info = np.iinfo(dtype)
    out = np.clip(steps, info.min, info.max).astype(dtype)
    if entry.fill is not None:
        out[~there] = entry.fill
    return out
