"""Maps of classes on another grid: the majority, the nearest pixel, or the share of each class."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import rioxarray
import xarray as xr

from lcengine import store
from lcengine.addresses import DRIVERS
from lcengine.classmap import read_legend
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.imagefile import driver_of, header
from lcengine.kernels import votes
from lcengine.legends import IGNORE, Legend
from lcengine.locate import (
    FLOAT,
    Footing,
    Lattice,
    Locator,
    SourceGrid,
    Window,
    transformer,
    window_bounds,
)
from lcengine.plan import product_lattice
from lcengine.regrid import POINTS, check_inside, reaches, source_grid

Method = Literal["majority", "nearest", "fractions"]
METHODS: tuple[Method, ...] = ("majority", "nearest", "fractions")

AREA = 1 << 24
"""Pixels of the map in memory at a time, some 10 bytes each while they are encoded."""
Read = Callable[[Window], npt.NDArray[Any]]

_LEAST = 4
"""Samples per axis where pixels of the map and of the grid do not lie in each other."""
_ALIGNED = 1e-6
_PROBES = 9


def open_classes(
    path: str | os.PathLike[str], legend: Legend | None = None
) -> tuple[xr.DataArray, Legend]:
    """A map of classes (y, x), lazily, with its legend: a label product or a raster of codes.

    The legend of a raster is its colour table, unless `legend` is given. Raises `InputError` for
    what is no map, a raster of several bands, and one without CRS or colour table.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in DRIVERS:
        codes = store.open(path).get("label")
        if codes is None or codes.dims != ("y", "x"):
            raise InputError(f"{path} is no label product; give one, or a GeoTIFF of codes")
        return codes, legend or store.legend_of(path)
    if header(path).crs is None:
        raise InputError(f"{path} states no CRS; georeference it, e.g. with gdal_translate -a_srs")
    chunks = {"x": 2048, "y": 2048}
    raster = rioxarray.open_rasterio(path, chunks=chunks, driver=driver_of(os.fspath(path)))
    assert isinstance(raster, xr.DataArray)  # a list is of files with subdatasets
    if raster.sizes["band"] != 1:
        raise InputError(
            f"{path} has {raster.sizes['band']} bands, expected one of codes; colours become codes "
            "with `lcengine labels colors`"
        )
    return raster.isel(band=0, drop=True), legend or read_legend(path)


def resample(
    codes: xr.DataArray,
    legend: Legend,
    grid: Grid,
    method: Method = "majority",
    *,
    chunks: int = 512,
) -> xr.Dataset:
    """A map of classes (y, x) on exactly `grid`, lazily in chunks of that edge.

    `codes`: integers with coordinates y and x, a CRS, and their nodata in `_FillValue`. Gives
    `label` (y, x) in the legend's dtype and nodata, or for "fractions" `fraction` float32
    (class, y, x), NaN where there is nothing, along the coordinates `class` (code) and `name`.

    Every pixel is looked at in k x k points at the centres of its equal parts: one for each pixel
    of the map where these lie in it exactly, else at least 4 x 4, and twice as many per axis as
    there are pixels of the map. "majority" takes the class of most points, of a tie the one that
    comes first in the legend; "nearest" looks at the centre alone. Points on nodata, on ignored
    codes and beyond the map are left out. Coordinates follow from global pixel indices, so the
    result does not depend on the chunks.

    Raises `InputError` for a map that does not reach the grid or is no raster of integers, and at
    computing for codes that the legend does not have.
    """
    if chunks < 1:
        raise InputError(f"chunks is {chunks}, expected pixels along an edge, such as 512")
    job = Votes.of(codes, legend, grid, method)
    data = codes.data if isinstance(codes.data, da.Array) else da.from_array(codes.data)
    return _dataset(_lazily(data, job, chunks), job)


def read_codes(part: xr.DataArray) -> npt.NDArray[Any]:
    """The numbers of a part of a map.

    On this thread: a task that asks a cluster for them would be many tasks of it.
    """
    return np.asarray(part.compute(scheduler="synchronous").values)


@dataclass(frozen=True)
class Votes:
    """How pixels of a grid are made of a map.

    `missing`: nodata of the map. `samples`: points per axis of a pixel.
    """

    legend: Legend
    grid: Grid
    product: Lattice
    source: SourceGrid
    missing: int | None
    method: Method
    samples: int

    @classmethod
    def of(cls, codes: xr.DataArray, legend: Legend, grid: Grid, method: Method) -> Votes:
        """Arguments and errors as `resample`."""
        if method not in METHODS:
            raise InputError(f"method {method!r} is unknown; expected {', '.join(METHODS)}")
        if codes.dims != ("y", "x") or codes.dtype.kind not in "iu":
            raise InputError(
                f"the map is {codes.dtype} with dimensions {codes.dims}, expected integers (y, x)"
            )
        source = source_grid(codes.to_dataset(name="codes"), "the map")
        if not reaches(source, grid):
            raise InputError("the map does not reach the grid; check the CRS of both, and the area")
        product = product_lattice(grid)
        samples = 1 if method == "nearest" else _samples(product, source, grid.shape)
        missing = codes.attrs.get("_FillValue", codes.encoding.get("_FillValue"))
        return cls(legend, grid, product, source, _whole(missing), method, samples)

    def window(self, codes: xr.DataArray, window: Window) -> npt.NDArray[Any]:
        """The pixels ([class,] y, x) of a window inside the grid, at once, on this thread."""
        return _vote(lambda area: read_codes(codes[_slices(area)]), self, window)

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape before (y, x)."""
        return (len(self.legend.classes),) if self.method == "fractions" else ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the result."""
        return np.dtype(np.float32) if self.method == "fractions" else self.legend.dtype

    @property
    def fill(self) -> float:
        """Of pixels that no sample voted about."""
        return math.nan if self.method == "fractions" else self.legend.nodata


def _samples(product: Lattice, source: SourceGrid, shape: tuple[int, int]) -> int:
    """Points per axis of a pixel; the same for the whole grid, whatever its chunks."""
    lattice = source.lattice
    if product.crs == lattice.crs:
        across, down = product.dx / lattice.dx, product.dy / lattice.dy
        if _nested(product.left, lattice.left, product.dx, lattice.dx) and _nested(
            product.top, lattice.top, product.dy, lattice.dy
        ):
            return max(1, round(across), round(down))
        return max(_LEAST, 2 * math.ceil(max(across, down) - _ALIGNED))
    # Pixels of the map across one of the grid, at places all over it.
    rows = np.linspace(0.5, shape[0] - 0.5, _PROBES)[:, None, None]
    cols = np.linspace(0.5, shape[1] - 0.5, _PROBES)[None, :, None]
    steps = np.array([(0, 0), (0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0)])
    x, y = np.broadcast_arrays(product.x(cols + steps[:, 1]), product.y(rows + steps[:, 0]))
    x, y = transformer(product.crs, lattice.crs).transform(x, y)
    where = np.stack([x / lattice.dx, y / lattice.dy])
    spread = np.abs(where[..., 1::2] - where[..., 2::2]).sum(axis=-1)
    spread = spread[np.isfinite(spread)]
    return max(_LEAST, 2 * math.ceil(float(spread.max(initial=1.0)) - _ALIGNED))


def _nested(own: float, other: float, step: float, size: float) -> bool:
    """Whether the pixels of one axis lie in those of the other exactly."""
    ratio = max(step, size) / min(step, size)
    offset = (own - other) / min(step, size)
    return all(abs(value - round(value)) < _ALIGNED for value in (ratio, offset))


def _lazily(data: da.Array, job: Votes, chunks: int) -> da.Array:
    height, width = job.grid.shape
    rows = [
        da.concatenate(
            [
                _piece(data, job, Window(y, x, min(chunks, height - y), min(chunks, width - x)))
                for x in range(0, width, chunks)
            ],
            axis=-1,
        )
        for y in range(0, height, chunks)
    ]
    whole: da.Array = da.concatenate(rows, axis=-2)
    return whole


def _piece(data: da.Array, job: Votes, window: Window) -> da.Array:
    """One chunk: of the map only the pixels under it are touched."""
    area = _area(job, window)
    height, width = window.height, window.width
    if area is None:
        empty: da.Array = da.full((*job.lead, height, width), job.fill, job.dtype, chunks=-1)
        return empty
    under = data[_slices(area)].rechunk(-1)
    axis = [0] if job.lead else None
    piece: da.Array = under.map_blocks(
        _piece_of,
        job=job,
        window=window,
        area=area,
        dtype=job.dtype,
        chunks=(*job.lead, height, width),
        new_axis=axis,
        meta=np.empty((0,) * (2 + len(job.lead)), job.dtype),
    )
    return piece


def _area(job: Votes, window: Window) -> Window | None:
    """The part of the map under a window, None where there is none."""
    # A pixel more on every side: samples lie beyond the centres of border pixels.
    y0, x0, height, width = window
    grown = Window(y0 - 1, x0 - 1, height + 2, width + 2)
    return window_bounds(job.product, grown, job.source, 2)


def _slices(area: Window) -> tuple[slice, slice]:
    return slice(area.y0, area.y0 + area.height), slice(area.x0, area.x0 + area.width)


def _piece_of(
    codes: npt.NDArray[Any], job: Votes, window: Window, area: Window
) -> npt.NDArray[Any]:
    """`_vote` about the map's part `area`, which is all that lies under the window."""

    def read(part: Window) -> npt.NDArray[Any]:
        y, x = part.y0 - area.y0, part.x0 - area.x0
        return codes[y : y + part.height, x : x + part.width]

    return _vote(read, job, window)


def _vote(read: Read, job: Votes, window: Window) -> npt.NDArray[Any]:
    """([class,] y, x) of `window`. `read` gives a part of the map, of at most `AREA` pixels."""
    dtype = np.dtype(np.float32) if job.lead else np.dtype(np.uint8)
    out = np.full((*job.lead, window.height, window.width), np.nan if job.lead else IGNORE, dtype)
    for part, area in _parts(job, window):
        indices = np.ascontiguousarray(
            job.legend.encode(job.legend.stored(read(area), job.missing))
        )
        y, x = part.y0 - window.y0, part.x0 - window.x0
        here = out[..., y : y + part.height, x : x + part.width]
        _in_blocks(indices, area, job, part, here)
    inside = job.grid.inside(*window)
    if inside is not None:
        out[..., ~inside] = np.nan if job.lead else IGNORE
    return out if job.lead else job.legend.decode(out)


def _parts(job: Votes, window: Window) -> Iterator[tuple[Window, Window]]:
    """Parts of a window with the part of the map under each, halved until these are small."""
    area = _area(job, window)
    if area is None:
        return
    y0, x0, height, width = window
    if area.height * area.width <= AREA or height * width == 1:
        yield window, area
    elif height >= width:
        half = height // 2
        yield from _parts(job, Window(y0, x0, half, width))
        yield from _parts(job, Window(y0 + half, x0, height - half, width))
    else:
        half = width // 2
        yield from _parts(job, Window(y0, x0, height, half))
        yield from _parts(job, Window(y0, x0 + half, height, width - half))


def _in_blocks(
    indices: npt.NDArray[np.uint8], area: Window, job: Votes, window: Window, out: npt.NDArray[Any]
) -> None:
    """Fill `out` from the map's part `area`, in blocks that bound the points at a time."""
    k = job.samples
    width = min(window.width, max(1, POINTS // k**2))
    height = min(window.height, max(1, POINTS // (width * k**2)))
    for y in range(0, window.height, height):
        for x in range(0, window.width, width):
            size = min(height, window.height - y), min(width, window.width - x)
            footing = _footing(job, Window(window.y0 + y, window.x0 + x, *size))
            check_inside(footing, area, job.source)
            part = np.empty((*job.lead, *size), out.dtype)
            _count(indices, footing, area, job, part)
            out[..., y : y + size[0], x : x + size[1]] = part


def _footing(job: Votes, window: Window) -> Footing:
    """Where the k x k points of every pixel lie in the map.

    Between CRSs the corners of pixels are projected and the points interpolated between them: a
    millionth of a pixel at 10 m, and k * k times faster. The centres of "nearest" are projected.
    """
    k, lattice = job.samples, job.source.lattice
    if job.method == "nearest" or job.product.crs == lattice.crs:
        return Locator(job.product, window).footing(lattice, k)
    x, y = np.broadcast_arrays(
        job.product.x(np.arange(window.x0, window.x0 + window.width + 1, dtype=np.float64)),
        job.product.y(np.arange(window.y0, window.y0 + window.height + 1, dtype=np.float64))[
            :, None
        ],
    )
    x, y = transformer(job.product.crs, lattice.crs).transform(x, y)
    return Footing(
        _between((lattice.top - y) / lattice.dy, k), _between((x - lattice.left) / lattice.dx, k)
    )


def _between(corners: FLOAT, k: int) -> FLOAT:
    """Values at the k x k points of pixels from those at their corners (y + 1, x + 1)."""
    t = (np.arange(k) + 0.5) / k
    with np.errstate(invalid="ignore"):  # corners where the CRS is not defined are infinite
        down = corners[:-1, None] * (1 - t)[:, None] + corners[1:, None] * t[:, None]
        down = down.reshape(-1, corners.shape[1])
        both = down[:, :-1, None] * (1 - t) + down[:, 1:, None] * t
    return np.asarray(both.reshape(len(down), -1))


def _count(
    indices: npt.NDArray[np.uint8],
    footing: Footing,
    area: Window,
    job: Votes,
    out: npt.NDArray[Any],
) -> None:
    rows, cols = footing.row_index - np.int32(area.y0), footing.col_index - np.int32(area.x0)
    if footing.separable:
        rows, cols = np.broadcast_arrays(rows[:, None], cols[None, :])
    rows, cols = np.ascontiguousarray(rows), np.ascontiguousarray(cols)
    if job.lead:
        votes.fractions(indices, rows, cols, job.samples, out)
    else:
        votes.majority(indices, rows, cols, job.samples, len(job.legend.classes), out)


def _dataset(data: da.Array, job: Votes) -> xr.Dataset:
    height, width = job.grid.shape
    coords: dict[str, Any] = {
        "y": job.grid.y(np.arange(height)),
        "x": job.grid.x(np.arange(width)),
    }
    if job.lead:
        coords = {
            "class": list(job.legend.codes),
            "name": ("class", list(job.legend.names)),
            **coords,
        }
        fraction = xr.DataArray(data, dims=("class", "y", "x"), coords=coords)
        out = fraction.to_dataset(name="fraction")
    else:
        attributes = job.legend.attributes()
        label = xr.DataArray(data, dims=("y", "x"), coords=coords, attrs=attributes)
        out = label.to_dataset(name="label")
    return out.rio.write_crs(job.grid.crs_wkt).rio.write_transform(job.grid.transform)  # type: ignore[no-any-return]


def _whole(missing: Any) -> int | None:
    return int(missing) if missing is not None and float(missing).is_integer() else None
