"""Where the pixels of a product lie in a source raster: exact float64 inverse coordinates.

GDAL's warper approximates this transformation piecewise, which makes pixels depend on the tile they
are read in. Here every coordinate follows from the *global* index of its pixel alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyproj import Transformer
from pyproj.exceptions import ProjError

from lcengine.crs import is_pixel_crs
from lcengine.errors import InputError
from lcengine.items import Asset

FLOAT = npt.NDArray[np.float64]
INDEX = npt.NDArray[np.int32]


class Window(NamedTuple):
    """A rectangle of product pixels; may reach beyond the product."""

    y0: int
    x0: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Lattice:
    """The infinite pixel lattice of a north-up raster: CRS, upper-left corner, pixel size."""

    crs: str
    left: float
    top: float
    dx: float
    dy: float

    def x(self, columns: FLOAT) -> FLOAT:
        """x of continuous column coordinates (i + 0.5 is the centre of pixel i)."""
        return self.left + columns * self.dx

    def y(self, rows: FLOAT) -> FLOAT:
        """y of continuous row coordinates."""
        return self.top - rows * self.dy


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """The finite raster an asset is stored on."""

    lattice: Lattice
    shape: tuple[int, int]

    @classmethod
    def of(cls, asset: Asset) -> SourceGrid:
        """The grid that the catalogue states for an asset."""
        a, _, c, _, e, f = asset.transform
        return cls(Lattice(asset.crs, c, f, a, -e), asset.shape)

    def refined(self, factor: int) -> SourceGrid:
        """The same raster with every pixel split into factor x factor."""
        lat = self.lattice
        fine = Lattice(lat.crs, lat.left, lat.top, lat.dx / factor, lat.dy / factor)
        return SourceGrid(fine, (self.shape[0] * factor, self.shape[1] * factor))


@dataclass(frozen=True)
class Footing:
    """Continuous source coordinates of a window's sample points.

    `rows`, `cols`: 1-D (height), (width) where the grids share a CRS (`separable`), else 2-D.
    """

    rows: FLOAT
    cols: FLOAT
    shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.rows.shape[0], self.cols.shape[-1])
        object.__setattr__(self, "shape", shape)

    @property
    def separable(self) -> bool:
        """Whether row and column coordinates depend on one axis each."""
        return self.rows.ndim == 1

    @cached_property
    def row_index(self) -> INDEX:
        """Index of the source row that holds each sample point."""
        return _index(self.rows)

    @cached_property
    def col_index(self) -> INDEX:
        """Index of the source column that holds each sample point."""
        return _index(self.cols)

    @cached_property
    def dense(self) -> tuple[FLOAT, FLOAT]:
        """2-D (rows, cols), whatever the storage."""
        if not self.separable:
            return self.rows, self.cols
        return (
            np.broadcast_to(self.rows[:, None], self.shape),
            np.broadcast_to(self.cols[None, :], self.shape),
        )

    @cached_property
    def contiguous(self) -> bool:
        """Whether the source pixels are the product pixels, one to one."""
        return self.separable and bool(
            np.all(np.diff(self.row_index) == 1) and np.all(np.diff(self.col_index) == 1)
        )

    def bounds(self, shape: tuple[int, int], margin: int = 0) -> Window | None:
        """The part of a source of that shape that the sample points touch, None where none."""
        rows, cols = self.row_index, self.col_index
        y0, y1 = max(int(rows.min()) - margin, 0), min(int(rows.max()) + margin + 1, shape[0])
        x0, x1 = max(int(cols.min()) - margin, 0), min(int(cols.max()) + margin + 1, shape[1])
        return Window(y0, x0, y1 - y0, x1 - x0) if y0 < y1 and x0 < x1 else None


def _index(coordinates: FLOAT) -> INDEX:
    # Points a CRS cannot express come back as inf: put them outside of every raster.
    limited = np.nan_to_num(np.floor(coordinates), nan=-(2**30), posinf=-(2**30), neginf=-(2**30))
    index: INDEX = np.clip(limited, -(2**30), 2**30).astype(np.int32)
    return index


class Locator:
    """Footings of one window, computed once per source grid and shared by all items on it."""

    def __init__(self, product: Lattice, window: Window) -> None:
        self.product = product
        self.window = window
        self._projected: dict[tuple[str, int], tuple[FLOAT, FLOAT]] = {}
        self._footings: dict[tuple[Lattice, int], Footing] = {}

    def footing(self, source: Lattice, oversampling: int = 1) -> Footing:
        """Source coordinates of the window's pixel centres.

        With `oversampling` k each pixel is sampled at the centres of its k x k parts.
        Prepare footings before threads share them: building one is not thread-safe.
        """
        key = (source, oversampling)
        if key not in self._footings:
            x, y = self._xy(source.crs, oversampling)
            self._footings[key] = Footing(
                (source.top - y) / source.dy, (x - source.left) / source.dx
            )
        return self._footings[key]

    def _xy(self, crs: str, k: int) -> tuple[FLOAT, FLOAT]:
        if (crs, k) not in self._projected:
            w = self.window
            cols = (np.arange(w.x0 * k, (w.x0 + w.width) * k, dtype=np.float64) + 0.5) / k
            rows = (np.arange(w.y0 * k, (w.y0 + w.height) * k, dtype=np.float64) + 0.5) / k
            x, y = self.product.x(cols), self.product.y(rows)
            if crs != self.product.crs:
                xx, yy = np.broadcast_arrays(x[None, :], y[:, None])
                x, y = transformer(self.product.crs, crs).transform(xx, yy)
            self._projected[crs, k] = (x, y)
        return self._projected[crs, k]


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """Coordinate transformation in x, y order, cached: building one costs milliseconds."""
    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        if is_pixel_crs(source) or is_pixel_crs(target):
            raise InputError(
                f"there is no way from {_name(source)} to {_name(target)}: an image without a CRS "
                "lies only on its own grid (Grid.from_asset); take one at a time, or georeference "
                "it"
            ) from error
        raise InputError(
            f"there is no transformation from CRS {source[:60]} to {target[:60]}: {error}; "
            "correct proj:code of the item, or --crs"
        ) from error


def _name(crs: str) -> str:
    """`pixels of a.png` of such a CRS, any other as it is."""
    return crs.split('"')[1] if is_pixel_crs(crs) else crs[:60]


def window_bounds(
    product: Lattice, window: Window, source: SourceGrid, margin: int
) -> Window | None:
    """Bounds of the source pixels under a window, from its border pixels alone."""
    rows = np.arange(window.y0, window.y0 + window.height, dtype=np.float64) + 0.5
    cols = np.arange(window.x0, window.x0 + window.width, dtype=np.float64) + 0.5
    same = product.crs == source.lattice.crs
    if same:
        x, y = product.x(cols), product.y(rows)
    else:
        r = np.concatenate([np.full(cols.size, rows[0]), np.full(cols.size, rows[-1]), rows, rows])
        c = np.concatenate([cols, cols, np.full(rows.size, cols[0]), np.full(rows.size, cols[-1])])
        x, y = transformer(product.crs, source.lattice.crs).transform(product.x(c), product.y(r))
    lat = source.lattice
    footing = Footing((lat.top - y) / lat.dy, (x - lat.left) / lat.dx)
    return footing.bounds(source.shape, margin if same else margin + 1)
