"""Samples from products: several stacks of bands under one raster of labels, on its grid."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox

from lcengine import store
from lcengine.classmap import read_classes, read_legend
from lcengine.crs import resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid, auto_tile
from lcengine.imagefile import header, is_image
from lcengine.inputs import Arrays, Input, Inputs, Layer, address, interval, layers, pinned
from lcengine.legends import Legend
from lcengine.locate import Window
from lcengine.plan import product_lattice
from lcengine.samples.source import LABEL, Scene

KIND = "stack"
SCENE = "stack"
"""Name of the one scene."""
CELL = 512
"""Edge of the squares whose patches are read at once, in pixels: a chunk of a product."""


class _Labels(Protocol):
    """A raster of classes."""

    grid: Grid
    legend: Legend

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Codes (y, x)."""
        ...


class StackSource:
    """Bands of products, by name, under a raster of labels, on the labels' grid.

    Pixels are those of `lcengine.Inputs` on that grid. The labels are a product of
    `lcengine labels`, or a class map as GeoTIFF.
    """

    kind = KIND

    def __init__(self, sources: Mapping[str, Layer], labels: Layer, legend: Legend | None) -> None:
        """See `open_stack`."""
        self._layers = dict(sources)
        self._labels_layer = labels
        self._given = legend

    @cached_property
    def _labels(self) -> _Labels:
        layer = self._labels_layer
        if _is_image(layer.path):
            return _Raster(layer.path, self._given)
        if self._given is not None:
            raise InputError(f"{layer.path} is a product with a legend of its own; give none")
        return _Product(layer)

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self._layers, self.grid)

    @property
    def grid(self) -> Grid:
        """The labels' pixels."""
        return self._labels.grid

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The products' bands."""
        return self._inputs.inputs

    @property
    def legend(self) -> Legend:
        """The labels' classes."""
        return self._labels.legend

    @property
    def scenes(self) -> Sequence[Scene]:
        """One: the whole grid."""
        lattice, transform = product_lattice(self.grid), tuple(self.grid.transform)[:6]
        return (Scene(SCENE, self.grid.shape, lattice.crs, transform),)

    @property
    def interval(self) -> tuple[str, str] | None:
        """That of the products."""
        return interval(self._layers.values())

    def labels(self, scene: int, window: Window) -> npt.NDArray[np.uint8]:
        """Training indices (y, x) of a window inside the grid; 255 = ignore."""
        assert scene == 0
        self._check(window)
        return self.legend.encode(self._labels.read(window))

    def cut(self, scene: int, windows: Sequence[Window]) -> Arrays:
        """Patches of equal size; those of neighbours are read at once."""
        for window in windows:
            self._check(window)
        height, width = windows[0][2:]
        number = len(windows)
        out: Arrays = {
            entry.name: np.empty((number, *entry.lead, height, width), entry.dtype)
            for entry in self.inputs
        }
        out[LABEL] = np.empty((number, height, width), np.uint8)
        for members in _neighbours(windows):
            box = _around([windows[i] for i in members])
            read = {**self._inputs.read(box), LABEL: self.labels(scene, box)[None]}
            for i in members:
                rows, cols = _within(windows[i], box)
                for name, values in read.items():
                    out[name][i] = values[0, ..., rows, cols]
        return out

    def _check(self, window: Window) -> None:
        height, width = self.grid.shape
        y0, x0, rows, cols = window
        if min(y0, x0) < 0 or y0 + rows > height or x0 + cols > width:
            raise InputError(
                f"window {tuple(window)} (row, column, height, width) reaches beyond the labels' "
                f"{height} x {width} pixels; give one inside"
            )

    def to_json(self) -> dict[str, Any]:
        """Paths, and the versions of the products that lie there."""
        return {
            "kind": self.kind,
            "layers": {name: layer.to_json() for name, layer in self._layers.items()},
            "labels": self._labels_layer.to_json(),
            "legend": None if self._given is None else self._given.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StackSource:
        """Inverse of `to_json`; `InputError`, when read, where a product was made anew since."""
        legend = data["legend"]
        return cls(
            {name: Layer.from_json(layer) for name, layer in data["layers"].items()},
            Layer.from_json(data["labels"]),
            None if legend is None else Legend.from_json(legend),
        )


def open_stack(
    sources: Mapping[str, str | os.PathLike[str]],
    labels: str | os.PathLike[str],
    *,
    legend: Legend | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    resampling: str | Mapping[str, str] = "nearest",
) -> StackSource:
    """What samples of products are cut from.

    Args:
        sources: Paths or addresses of products by the name that models know them by.
        labels: A label product, or a GeoTIFF of classes; its grid is that of the samples.
        legend: Classes of a GeoTIFF, by default its own colour table.
        bands: Variables of a source, in order, by default all with a scale (no counts or dates).
        resampling: `nearest`, `bilinear` or `average`, for all or by name.

    Raises:
        InputError: A path is no such product, a name or band is unknown, bands of one source
            differ in type, or a source does not reach the labels.
    """
    found = layers(sources, bands=bands, resampling=resampling)
    image = _is_image(os.fspath(labels))
    made = StackSource(found, Layer(address(labels)) if image else pinned(labels), legend)
    if not made.inputs:  # opens everything, so that what is wrong is said now
        raise InputError("there are no bands")
    return made


def _is_image(path: str) -> bool:
    return is_image(path) or Path(path).is_file()


class _Product:
    """A label product."""

    def __init__(self, layer: Layer) -> None:
        layer.check()
        self.grid = store.grid_of(layer.path)
        self.legend = store.legend_of(layer.path)
        data = store.stored(layer.path)
        if LABEL not in data or data[LABEL].dims != ("y", "x"):
            raise InputError(
                f"{layer.path} has no variable {LABEL!r} (y, x); make one with `lcengine labels`"
            )
        self._codes = data[LABEL]

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Codes (y, x)."""
        y0, x0, height, width = window
        return np.asarray(self._codes[y0 : y0 + height, x0 : x0 + width].values)


class _Raster:
    """A class map as an image file."""

    def __init__(self, path: str, legend: Legend | None) -> None:
        found = header(path)
        if found.crs is None:
            raise InputError(
                f"{path} has no CRS, so no product lies under it; georeference it, or take a "
                "folder of images with --folder"
            )
        self._path = path
        geobox = GeoBox(found.shape, Affine(*found.transform), resolve_crs(found.crs))
        self.grid = Grid(geobox, auto_tile(found.shape))
        self.legend = read_legend(path) if legend is None else legend

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Codes (y, x)."""
        return read_classes(self._path, self.legend, window=window)


def _neighbours(windows: Sequence[Window]) -> list[list[int]]:
    """Windows by the square that they begin in: reading their box decodes what they need."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, window in enumerate(windows):
        cells[window.y0 // CELL, window.x0 // CELL].append(i)
    return list(cells.values())


def _around(windows: Sequence[Window]) -> Window:
    y0, x0 = min(w.y0 for w in windows), min(w.x0 for w in windows)
    bottom, right = (max(w.y0 + w.height for w in windows), max(w.x0 + w.width for w in windows))
    return Window(y0, x0, bottom - y0, right - x0)


def _within(window: Window, box: Window) -> tuple[slice, slice]:
    y, x = window.y0 - box.y0, window.x0 - box.x0
    return slice(y, y + window.height), slice(x, x + window.width)
