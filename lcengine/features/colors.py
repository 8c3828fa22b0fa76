"""Bags of colours as a raster: of every pixel how often each colour occurs in its segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine.errors import InputError
from lcengine.features.vocabulary import WINDOW, Division, Vocabulary
from lcengine.features.windows import described
from lcengine.inputs import Arrays, Input, observed

CHUNK = 512
"""Edge that chunks have about, of data that has none."""


def bag_of_colors(
    data: xr.Dataset | xr.DataArray,
    vocabulary: Vocabulary,
    *,
    window: int = WINDOW,
    division: Division | None = None,
) -> xr.DataArray:
    """Histograms (color, y, x) float32, lazily: shares of the colours in a pixel's segment.

    Windows of `window` pixels begin at the dataset's upper-left pixel, so give a whole product and
    cut out of the result; they are cut at its edge. NaN where a band is missing. Values do not
    depend on chunks, which become whole windows.

    Args:
        data: What `lcengine.open`, `composite(cube)` or `stack` give, or their stored numbers:
            variables (y, x) or (time, y, x) with the names of the vocabulary's bands.
        vocabulary: Fitted to one input; its bands are looked up by name.
        window: Edge of a window in pixels.
        division: How windows are divided, by default into 20 segments.

    Raises:
        InputError: Bands, periods or kind of numbers are not the vocabulary's.
    """
    if len(vocabulary.inputs) != 1:
        names = ", ".join(entry.name for entry in vocabulary.inputs)
        raise InputError(
            f"the vocabulary has colours of {names}, and a dataset is one input; fit one to it"
        )
    if window < 1:
        raise InputError(f"window is {window} pixels, expected 1 or more")
    dataset, (found,) = described(data, vocabulary.inputs[0].bands)
    _check(found, vocabulary.inputs[0])
    edge = max(window, CHUNK // window * window)
    layers = [_layer(dataset[band], edge) for band in found.bands]
    block = _Block(vocabulary, found, window, division or Division())
    pixels = da.stack(layers, axis=-3).rechunk({0: -1, -3: -1})
    histograms = da.map_blocks(
        block,
        pixels,
        dtype=np.float32,
        chunks=((len(vocabulary.colors),), *pixels.chunks[-2:]),
        drop_axis=[0] if pixels.ndim == 4 else [],
        meta=np.empty((0, 0, 0), np.float32),
    )
    coordinates = {n: c for n, c in dataset.coords.items() if set(c.dims) <= {"y", "x"}}
    return xr.DataArray(
        histograms,
        dims=("color", "y", "x"),
        coords={"color": np.arange(len(vocabulary.colors)), **coordinates},
        name="bag_of_colors",
        attrs={"long_name": "share of a colour in the pixel's segment", "units": "1"},
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """Whole windows of pixels ([time,] band, y, x) → histograms (color, y, x)."""

    vocabulary: Vocabulary
    found: Input
    window: int
    division: Division

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        out = np.full((len(self.vocabulary.colors), *pixels.shape[-2:]), np.nan, np.float32)
        for y in range(0, pixels.shape[-2], self.window):
            for x in range(0, pixels.shape[-1], self.window):
                part = (..., slice(y, y + self.window), slice(x, x + self.window))
                self._fill(pixels[part], out[part])
        return out

    def _fill(self, pixels: npt.NDArray[Any], out: npt.NDArray[np.float32]) -> None:
        valid = observed((self.found,), {self.found.name: pixels[None]})
        arrays = self._stored(pixels)
        for bag in self.vocabulary.bags(arrays, valid, self.division):
            there = bag.segments < len(bag.counts)
            out[:, there] = bag.histograms.T[:, bag.segments[there]]

    def _stored(self, pixels: npt.NDArray[Any]) -> Arrays:
        """The numbers that the vocabulary knows."""
        entry = self.vocabulary.inputs[0]
        if pixels.dtype.kind == "f" and np.dtype(entry.dtype).kind in "iu":
            gone = 0 if entry.fill is None else entry.fill
            numbers = np.rint(pixels.astype(np.float64) / (entry.scale or 1.0))
            pixels = np.where(np.isfinite(numbers), numbers, gone).astype(entry.dtype)
        return {entry.name: pixels[None]}


def _layer(variable: xr.DataArray, edge: int) -> Any:
    """A variable as a dask array ([time,] y, x) in chunks of whole windows."""
    plain = variable.transpose(..., "y", "x").chunk({"y": edge, "x": edge})
    return plain.data


def _check(found: Input, wanted: Input) -> None:
    if len(found.times) != len(wanted.times):
        raise InputError(
            f"the dataset has {len(found.times)} periods, the vocabulary was fitted to "
            f"{len(wanted.times)}: {', '.join(wanted.times) or 'none'}; choose the same ones"
        )
    decoded = found.dtype.startswith("float") and not wanted.dtype.startswith("float")
    if decoded and wanted.scale is None:
        raise InputError(
            f"the dataset has {found.dtype} values, the vocabulary was fitted to {wanted.dtype} "
            "without a known scale; give the same stored numbers"
        )
    if found.dtype != wanted.dtype and not found.dtype.startswith("float"):
        raise InputError(
            f"the dataset has {found.dtype} values, the vocabulary was fitted to {wanted.dtype}; "
            "give the same stored numbers, or decoded floats"
        )
