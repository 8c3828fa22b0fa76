"""Maps of classes, window by window, on the grid of the map that is evaluated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import store
from lcengine.crs import crs_name
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.imagefile import header, is_image
from lcengine.labels.coarse.maps import Votes, open_classes, read_codes
from lcengine.labels.coarse.plan import version_of
from lcengine.legends import IGNORE, Crosswalk, Legend
from lcengine.locate import Window
from lcengine.regrid import reaches, source_grid

_ALIGNED = 1e-6
"""Of a pixel: lattices this close are one."""
_UNKNOWN = 256


@dataclass(frozen=True)
class ClassRaster:
    """A product or image of classes as classes of another legend.

    `version`: what lay there when it was planned: the run of a product, or size and time of a file.
    """

    path: str
    version: str
    crosswalk: Crosswalk

    def to_json(self) -> dict[str, Any]:
        """JSON values, but for the legend that classes become."""
        return {
            "path": self.path,
            "version": self.version,
            "legend": self.crosswalk.source.to_json(),
            "pairs": [list(pair) for pair in self.crosswalk.pairs],
            "crosswalk": self.crosswalk.reference,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], legend: Legend) -> ClassRaster:
        """Inverse of `to_json`."""
        pairs = tuple((code, to) for code, to in data["pairs"])
        own = Legend.from_json(data["legend"])
        crosswalk = Crosswalk(own, legend, pairs, data["crosswalk"])
        return cls(data["path"], data["version"], crosswalk)


class ClassReader:
    """The classes of a raster on a grid; of another grid the nearest pixel is taken."""

    def __init__(self, raster: ClassRaster, grid: Grid) -> None:
        """`InputError` where it is another one since it was planned, or does not reach the grid."""
        path = raster.path
        if version_of(path) != raster.version:
            raise InputError(
                f"{path} is not what it was when this was planned ({raster.version}); bring it "
                "back, or begin again with --restart"
            )
        codes, legend = open_classes(path, raster.crosswalk.source)
        source = source_grid(codes.to_dataset(name="codes"), path)
        if not reaches(source, grid):
            raise InputError(
                f"{path} covers no part of the map, {grid.bounds} in {crs_name(grid.crs)}; give a "
                "reference of the same area"
            )
        self._votes = Votes.of(codes, legend, grid, "nearest")
        self._legend = legend
        self._table = _table(raster.crosswalk)
        self._codes = codes if is_image(path) else store.stored(path)["label"]

    def indices(self, window: Window) -> npt.NDArray[np.uint8]:
        """Training indices (y, x) of the evaluated legend in a window of the grid; 255: none."""
        offset = self._offset()
        if offset is None:
            return self._found(self._votes.window(self._codes, window))
        height, width = self._votes.source.shape
        y, x = window.y0 + offset[0], window.x0 + offset[1]
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + window.height, height), min(x + window.width, width)
        out = np.full((window.height, window.width), IGNORE, np.uint8)
        if top < bottom and left < right:
            values = read_codes(self._codes[top:bottom, left:right])
            legend, missing = self._legend, self._votes.missing
            if values.dtype != legend.dtype or missing not in (None, legend.nodata):
                values = legend.stored(values, missing)
            out[top - y : bottom - y, left - x : right - x] = self._found(values)
        return out

    def _found(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Codes in the legend's type as indices; `InputError` for those it does not have."""
        found = self._table[codes]
        if (found == _UNKNOWN).any():
            self._legend.encode(codes)  # raises, and names them
        return np.asarray(found, np.uint8)

    def _offset(self) -> tuple[int, int] | None:
        """(row, column) of the grid's first pixel in the raster; None on another lattice."""
        own, other = self._votes.product, self._votes.source.lattice
        if own.crs != other.crs or (own.dx, own.dy) != (other.dx, other.dy):
            return None
        row, col = (other.top - own.top) / own.dy, (own.left - other.left) / own.dx
        if max(abs(row - round(row)), abs(col - round(col))) > _ALIGNED:
            return None
        return round(row), round(col)


def _table(crosswalk: Crosswalk) -> npt.NDArray[np.uint16]:
    """Indices of what codes become, by code: one look-up instead of three."""
    legend = crosswalk.source
    codes = np.array([*(entry.code for entry in legend.entries), legend.nodata])
    out = np.full(legend.nodata + 1, _UNKNOWN, np.uint16)
    out[codes] = crosswalk.translate_indices(legend.encode(codes))
    return out


def grid_of(path: str | os.PathLike[str]) -> Grid:
    """The pixels of a product or of an image with a CRS."""
    if not is_image(os.fspath(path)):
        return store.grid_of(path)
    found = header(path)
    if found.crs is None:
        raise InputError(f"{path} states no CRS; georeference it, e.g. with gdal_translate -a_srs")
    return Grid.from_pixels(found.crs, found.transform, found.shape)
