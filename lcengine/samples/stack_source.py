"""Samples from products: several stacks of bands under one raster of labels, on its grid."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from lcengine import store
from lcengine.addresses import DRIVERS
from lcengine.classmap import read_classes, read_legend
from lcengine.crs import crs_name, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid, auto_tile
from lcengine.imagefile import header
from lcengine.legends import Legend
from lcengine.locate import SourceGrid, Window
from lcengine.plan import product_lattice
from lcengine.reader import Resampling, check_resampling
from lcengine.regrid import Pixels, reaches, regrid_window
from lcengine.samples.source import LABEL, Arrays, Input, Scene

KIND = "stack"
SCENE = "stack"
"""Name of the one scene."""
CELL = 512
"""Edge of the squares whose patches are read at once, in pixels: a chunk of a product."""

_NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True)
class Layer:
    """One product of a stack: what is asked of it, and which version was planned with.

    `bands`: names of its variables, empty for all bands. `run_id`: of a product; images have none.
    """

    path: str
    bands: tuple[str, ...] = ()
    resampling: Resampling = "nearest"
    run_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """Inverse of `to_json`."""
        return cls(**{**data, "bands": tuple(data["bands"])})


@dataclass(frozen=True)
class _Opened:
    """A product ready to be read."""

    layer: Layer
    data: xr.Dataset
    grid: SourceGrid
    input: Input


class _Labels(Protocol):
    """A raster of classes."""

    grid: Grid
    legend: Legend

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Codes (y, x)."""
        ...


class StackSource:
    """Bands of products, by name, under a raster of labels, on the labels' grid.

    Pixels are those of `lcengine.stack` on that grid, as stored numbers; every product keeps its
    own periods. The labels are a product of `lcengine labels`, or a class map as GeoTIFF.
    """

    kind = KIND

    def __init__(self, layers: Mapping[str, Layer], labels: Layer, legend: Legend | None) -> None:
        """See `open_stack`."""
        self._layers = dict(layers)
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
    def _opened(self) -> tuple[_Opened, ...]:
        return tuple(_open(name, layer, self.grid) for name, layer in self._layers.items())

    @property
    def grid(self) -> Grid:
        """The labels' pixels."""
        return self._labels.grid

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The products' bands."""
        return tuple(opened.input for opened in self._opened)

    @property
    def legend(self) -> Legend:
        """The labels' classes."""
        return self._labels.legend

    @property
    def scenes(self) -> Sequence[Scene]:
        """One: the whole grid."""
        lattice, transform = product_lattice(self.grid), tuple(self.grid.transform)[:6]
        return (Scene(SCENE, self.grid.shape, lattice.crs, transform),)

    def labels(self, scene: int, window: Window) -> npt.NDArray[np.uint8]:
        """Training indices (y, x) of a window inside the grid; 255 = ignore."""
        assert scene == 0
        return self.legend.encode(self._labels.read(window))

    def cut(self, scene: int, windows: Sequence[Window]) -> Arrays:
        """Patches of equal size; those of neighbours are read at once."""
        height, width = windows[0][2:]
        number = len(windows)
        out: Arrays = {
            entry.name: np.empty((number, *entry.lead, height, width), entry.dtype)
            for entry in self.inputs
        }
        out[LABEL] = np.empty((number, height, width), np.uint8)
        for members in _neighbours(windows):
            box = _around([windows[i] for i in members])
            places = [(i, *_within(windows[i], box)) for i in members]
            labels = self.labels(scene, box)
            for i, rows, cols in places:
                out[LABEL][i] = labels[rows, cols]
            for opened in self._opened:
                layer, target = opened.layer, out[opened.input.name]
                for band, name in enumerate(opened.input.bands):
                    values = regrid_window(
                        opened.data[name], opened.grid, self.grid, layer.resampling, box
                    )
                    for i, rows, cols in places:
                        target[i, ..., band, :, :] = values[..., rows, cols]
        return out

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
    if not sources:
        raise InputError("there are no sources; give at least one, such as s2=months.zarr")
    wrong = [name for name in sources if not _NAME.fullmatch(name) or name == LABEL]
    if wrong:
        raise InputError(
            f"sources are called {wrong}, expected letters, digits and _ such as 's2', not 'label'"
        )
    chosen = dict(bands or {})
    how = resampling if isinstance(resampling, Mapping) else dict.fromkeys(sources, resampling)
    unknown = sorted({*chosen, *how} - set(sources))
    if unknown:
        raise InputError(f"bands or resampling name {unknown}; sources are {', '.join(sources)}")
    layers = {
        name: _pinned(path, tuple(chosen.get(name, ())), how.get(name, "nearest"))
        for name, path in sources.items()
    }
    image = _is_image(os.fspath(labels))
    made = StackSource(layers, Layer(_address(labels)) if image else _pinned(labels), legend)
    if not made.inputs:  # opens everything, so that what is wrong is said now
        raise InputError("there are no bands")
    return made


def _address(path: str | os.PathLike[str]) -> str:
    """A path that holds on any worker that shares the disk; addresses as they are."""
    text = os.fspath(path)
    return text if "://" in text else os.path.abspath(text)


def _pinned(
    path: str | os.PathLike[str], bands: tuple[str, ...] = (), resampling: str = "nearest"
) -> Layer:
    """The version of a product that lies there now."""
    found = store.provenance(path)["run_id"]
    return Layer(_address(path), bands, check_resampling(resampling), found)


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in DRIVERS or Path(path).is_file()


def _check_version(layer: Layer) -> None:
    found = store.provenance(layer.path)["run_id"]
    if found != layer.run_id:
        raise InputError(
            f"{layer.path} was made anew since the samples were planned ({layer.run_id}, now "
            f"{found}); begin again with --restart"
        )


def _open(name: str, layer: Layer, grid: Grid) -> _Opened:
    _check_version(layer)
    data = store.stored(layer.path)
    own = store.grid_of(layer.path)
    source = SourceGrid(product_lattice(own), own.shape)
    if not reaches(source, grid):
        raise InputError(
            f"source {name!r} ({layer.path}) covers {own.bounds} in {crs_name(own.crs)}, no part "
            f"of the labels' {grid.bounds} in {crs_name(grid.crs)}; give what overlaps"
        )
    return _Opened(layer, data, source, _input(name, layer, data))


def _input(name: str, layer: Layer, data: xr.Dataset) -> Input:
    """What a model is told of a source; its bands must be of one kind."""
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
        bands=bands,
        dtype=str(first.dtype),
        fill=None if first.dtype.kind == "f" else int(fill),
        times=times,
        scale=_common(variables[band].attrs.get("scale_factor") for band in bands),
        units=_common(variables[band].attrs.get("units") for band in bands),
    )


def _kind(variable: xr.DataArray) -> tuple[str, str, float | None]:
    pixels = Pixels.of(variable)
    fill = None if variable.dtype.kind == "f" else pixels.fill
    return str(variable.dtype), " ".join(map(str, variable.dims)), fill


def _common(values: Any) -> Any:
    """The one value that all share, else None."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else None


class _Product:
    """A label product."""

    def __init__(self, layer: Layer) -> None:
        _check_version(layer)
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
