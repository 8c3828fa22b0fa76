"""Where a vocabulary's pixels come from: windows of samples, products, datasets or arrays.

A source of windows is small, or holds what is in memory anyway, and is not a dataclass: dask looks
for work inside of those.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine import inputs, store
from lcengine.errors import InputError
from lcengine.features.vocabulary import WINDOW, chosen, picked
from lcengine.grid import Grid
from lcengine.inputs import Arrays, Input, Inputs, Layer
from lcengine.locate import Window
from lcengine.samples import sampleset
from lcengine.samples.sampleset import SampleSet

SHAPES = (("y", "x"), ("time", "y", "x"))


class Windows(Protocol):
    """Windows by number; pixels of one do not depend on the others."""

    inputs: tuple[Input, ...]
    """What the arrays hold: bands that were chosen."""
    pixels: int
    """Of a window, at most."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> Arrays:
        """Stored numbers of one window, (1, [time,] band, y, x)."""
        ...


class Patches:
    """Patches of a split of samples; on workers they are opened by their path."""

    def __init__(self, samples: SampleSet, bands: Sequence[str], split: str = "train") -> None:
        self.path = samples.path
        self.inputs = chosen(samples.inputs, bands)
        self.pixels = samples.patch**2
        self.members = samples.split(split)

    def __len__(self) -> int:
        return len(self.members)

    def read(self, number: int) -> Arrays:
        """One patch."""
        found = _samples(self.path)
        arrays = found.read([self.members[number]], threads=1)
        return picked(found.inputs, self.inputs, arrays)


@lru_cache(maxsize=4)
def _samples(path: str) -> SampleSet:
    return sampleset.open(path)


class Products:
    """Windows of products on the grid of the first, from its upper-left pixel."""

    def __init__(self, sources: Mapping[str, str | os.PathLike[str]], bands: Sequence[str]) -> None:
        layers = inputs.layers(sources)
        grid = store.grid_of(next(iter(layers.values())).path)
        self.inputs = chosen(Inputs(layers, grid).inputs, bands)
        self.pixels = WINDOW**2
        self.shape = grid.shape
        self.source = (
            tuple((e.name, replace(layers[e.name], bands=e.bands)) for e in self.inputs),
            grid,
        )

    def __len__(self) -> int:
        return len(_lattice(self.shape))

    def read(self, number: int) -> Arrays:
        """One window."""
        return _opened(*self.source).read(_lattice(self.shape)[number])


@lru_cache(maxsize=4)
def _opened(layers: tuple[tuple[str, Layer], ...], grid: Grid) -> Inputs:
    return Inputs(dict(layers), grid)


class Images:
    """Arrays in memory: stored numbers (n, [time,] band, y, x) by name, a window each."""

    def __init__(
        self, given: Sequence[Input], arrays: Mapping[str, npt.NDArray[Any]], bands: Sequence[str]
    ) -> None:
        self.inputs = chosen(given, bands)
        self.arrays = picked(given, self.inputs, arrays)
        first = self.arrays[self.inputs[0].name]
        self.pixels = first.shape[-1] * first.shape[-2]
        self.count = len(first)

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> Arrays:
        """One image."""
        return {name: values[number : number + 1] for name, values in self.arrays.items()}


class Cube:
    """Windows of a dataset of variables (y, x) or (time, y, x), from its upper-left pixel."""

    def __init__(self, data: xr.Dataset | xr.DataArray, bands: Sequence[str]) -> None:
        self.data, self.inputs = described(data, bands)
        self.pixels = WINDOW**2
        self.shape = (self.data.sizes["y"], self.data.sizes["x"])

    def __len__(self) -> int:
        return len(_lattice(self.shape))

    def read(self, number: int) -> Arrays:
        """One window."""
        y, x, height, width = _lattice(self.shape)[number]
        part = self.data.isel(y=slice(y, y + height), x=slice(x, x + width))
        # A task of a scheduler must not wait for others of it.
        values = part.compute(scheduler="synchronous")
        return {
            entry.name: np.stack([values[band].values for band in entry.bands], axis=-3)[None]
            for entry in self.inputs
        }


def described(
    data: xr.Dataset | xr.DataArray, bands: Sequence[str]
) -> tuple[xr.Dataset, tuple[Input, ...]]:
    """A dataset as one input, named `cube`, and its variables of the bands asked for.

    Whole numbers are missing where they are `_FillValue`, floats where they are NaN.
    """
    if isinstance(data, xr.DataArray):
        if "band" not in data.dims:
            raise InputError(
                f"the array has dimensions {data.dims}, expected a dataset, or a dimension band"
            )
        bands_of = {str(b): data.sel(band=b, drop=True) for b in data["band"].values}
        data = xr.Dataset(bands_of)
    rasters = {str(n): v for n, v in data.data_vars.items() if v.dims in SHAPES}
    found = chosen((Input("cube", tuple(rasters), "float32", None),), bands)[0]
    kinds = {
        (str(v.dtype), v.dims, v.attrs.get("_FillValue"))
        for v in (rasters[band] for band in found.bands)
    }
    if len(kinds) > 1:
        raise InputError(
            f"bands {', '.join(found.bands)} differ in type, axes or fill: "
            f"{sorted(map(str, kinds))}; give bands of one kind"
        )
    dtype, dims, fill = kinds.pop()
    scales = {v.attrs.get("scale_factor") for v in (rasters[band] for band in found.bands)}
    return data[list(found.bands)], (
        Input(
            "cube",
            found.bands,
            dtype,
            None if fill is None or dtype.startswith("float") else int(fill),
            _times(data) if "time" in dims else (),
            scales.pop() if len(scales) == 1 else None,
        ),
    )


def _times(data: xr.Dataset) -> tuple[str, ...]:
    names = data["period"] if "period" in data.coords else data["time"]
    return tuple(str(name) for name in names.values)


def windows_of(source: Any, bands: Sequence[str]) -> Windows:
    """The windows of anything that `Vocabulary.fit` takes."""
    if isinstance(source, Patches | Products | Images | Cube):
        return source
    if isinstance(source, SampleSet):
        return Patches(source, bands)
    if isinstance(source, xr.Dataset | xr.DataArray):
        return Cube(source, bands)
    if isinstance(source, Mapping):
        return Products(source, bands)
    if isinstance(source, str | os.PathLike):
        if "inputs" in store.provenance(source):
            return Patches(sampleset.open(source), bands)
        return Products({"image": source}, bands)
    raise InputError(
        f"a vocabulary is fitted to a {type(source).__name__}, expected samples, products by name, "
        "a path of either, or a dataset"
    )


@lru_cache(maxsize=16)
def _lattice(shape: tuple[int, int]) -> tuple[Window, ...]:
    """Windows of a raster, row by row; those at its edge are cut."""
    height, width = shape
    return tuple(
        Window(y, x, min(WINDOW, height - y), min(WINDOW, width - x))
        for y in range(0, height, WINDOW)
        for x in range(0, width, WINDOW)
    )
