"""What a plan moves: bytes decoded and transferred, by host, and numbers through the kernels.

All of it is an upper bound: no item is taken to be cloudy, and every source block that a window
meets is counted whole, once per window; nothing is assumed of GDAL's cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine import masks
from lcengine.addresses import host_of
from lcengine.items import Asset
from lcengine.locate import Lattice, SourceGrid, Window, transformer
from lcengine.plan import ReadPlan
from lcengine.reader import oversampling
from lcengine.sensors import FileLayout

SPACING = 128
"""Product pixels between the border points of a window that are projected into another CRS."""

FLOAT = npt.NDArray[np.float64]
Layouts = Callable[[str, Asset], FileLayout]
"""Header look-up by band and asset."""


@dataclass(slots=True)
class Traffic:
    """Totals of a run. `decoded`, `stored` (bytes) and `requests` are by host.

    `stored`: bytes as they lie in the files, which is what a network carries. `requests`: range
    requests, one per file and tile for the header and one per row of source blocks of a window.
    `values`: observations x bands x pixels that the kernels look at.
    """

    decoded: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    stored: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    values: int = 0


class _Read(NamedTuple):
    """Reads that cost the same: one band on one grid from one host."""

    host: str
    collection: str
    band: str
    is_mask: bool
    source: SourceGrid


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one such read takes in a tile."""

    decoded: int
    ranges: int
    pixels: int


def traffic(plan: ReadPlan, layouts: Layouts) -> Traffic:
    """Add up a run. `layouts` is asked once per collection, band and raster shape."""
    kinds, reads = _reads(plan)
    found: dict[tuple[str, str, tuple[int, int]], FileLayout] = {}
    layout = []
    for kind, asset in kinds.items():
        key = (kind.collection, kind.band, kind.source.shape)
        if key not in found:
            found[key] = layouts(kind.band, asset)
        layout.append(found[key])
    total = Traffic()
    for position, number in enumerate(plan.tiles):
        members = plan.items_of(position)
        if len(members):
            times = np.bincount(reads[members].ravel(), minlength=len(kinds))
            _add_tile(total, plan, int(number), list(kinds), layout, times)
    return total


def _reads(plan: ReadPlan) -> tuple[dict[_Read, Asset], npt.NDArray[np.int32]]:
    """Every kind of read with an example, and the kinds of each item's reads (item, read)."""
    bands = [(band, False) for band in plan.bands] + [(band, True) for band in plan.mask_bands]
    kinds: dict[_Read, Asset] = {}
    numbers: dict[object, int] = {}
    table = np.empty((len(plan.items), len(bands)), np.int32)
    for i, item in enumerate(plan.items):
        for j, (band, is_mask) in enumerate(bands):
            asset = item.asset(band)
            host = host_of(asset.href)
            key = (host, item.collection, j, asset.crs, asset.transform, asset.shape)
            if key not in numbers:
                numbers[key] = len(kinds)
                source = SourceGrid.of(asset)
                kinds[_Read(host, item.collection, band, is_mask, source)] = asset
            table[i, j] = numbers[key]
    return kinds, table


def _add_tile(
    total: Traffic,
    plan: ReadPlan,
    number: int,
    kinds: list[_Read],
    layouts: list[FileLayout],
    times: npt.NDArray[np.int64],
) -> None:
    """Add the reads of a tile, `times` of each kind."""
    tile = plan.grid.tile_at(number)
    whole = _Windows(plan.lattice, [Window(tile.y0, tile.x0, tile.height, tile.width)])
    blocks = _Windows(plan.lattice, plan.blocks(tile))
    costs: dict[tuple[bool, SourceGrid, FileLayout], _Cost] = {}
    for n in np.flatnonzero(times):
        kind, layout, often = kinds[n], layouts[n], int(times[n])
        key = (kind.is_mask, kind.source, layout)
        if key not in costs:
            windows = whole if kind.is_mask else blocks
            costs[key] = windows.cost(kind.source, _margin(plan, kind), layout)
        cost = costs[key]
        total.decoded[kind.host] += often * cost.decoded
        # What no header tells is as if it were not compressed.
        stored = 1.0 if layout.stored is None else layout.stored
        total.stored[kind.host] += round(often * cost.decoded * stored)
        total.requests[kind.host] += often * (cost.ranges + bool(cost.ranges))
        total.values += 0 if kind.is_mask else often * cost.pixels


def _margin(plan: ReadPlan, kind: _Read) -> int:
    """Source pixels that are read beyond those under the pixel centres."""
    if kind.is_mask:
        return masks.margin(plan.recipe, kind.source, plan.beyond)
    if plan.resampling == "average":
        return -(-oversampling(plan.lattice, kind.source) // 2)
    return 1 if plan.resampling == "bilinear" else 0


class _Windows:
    """Windows of a product, all at once, and where their pixel centres lie in other CRSs."""

    def __init__(self, product: Lattice, windows: Iterable[Window]) -> None:
        self.product = product
        self.windows = np.array(list(windows), dtype=np.int64)
        self._extremes: dict[str, tuple[FLOAT, FLOAT, FLOAT, FLOAT]] = {}

    def cost(self, source: SourceGrid, margin: int, layout: FileLayout) -> _Cost:
        """Decoded bytes, rows of source blocks and reached pixels of one read of every window."""
        own, (height, width) = source.lattice, source.shape
        if own.crs != self.product.crs:
            margin += 1  # the outermost pixel need not be among the points
        left, right, bottom, top = self._in(own.crs)
        y0 = np.maximum(_floor((own.top - top) / own.dy) - margin, 0)
        y1 = np.minimum(_floor((own.top - bottom) / own.dy) + margin + 1, height)
        x0 = np.maximum(_floor((left - own.left) / own.dx) - margin, 0)
        x1 = np.minimum(_floor((right - own.left) / own.dx) + margin + 1, width)
        met = (y0 < y1) & (x0 < x1)
        rows = np.where(met, (y1 - 1) // layout.block[0] - y0 // layout.block[0] + 1, 0)
        cols = np.where(met, (x1 - 1) // layout.block[1] - x0 // layout.block[1] + 1, 0)
        size = layout.block[0] * layout.block[1] * layout.itemsize
        pixels = (self.windows[:, 2] * self.windows[:, 3])[met]
        return _Cost(int((rows * cols).sum()) * size, int(rows.sum()), int(pixels.sum()))

    def _in(self, crs: str) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
        """Least x, greatest x, least y, greatest y of every window's pixel centres in a CRS."""
        if crs not in self._extremes:
            y0, x0, height, width = self.windows.T
            if crs == self.product.crs:
                x, last_x = self.product.x(x0 + 0.5), self.product.x(x0 + width - 0.5)
                y, last_y = self.product.y(y0 + 0.5), self.product.y(y0 + height - 0.5)
                self._extremes[crs] = x, last_x, last_y, y
            else:
                self._extremes[crs] = self._projected(crs)
        return self._extremes[crs]

    def _projected(self, crs: str) -> tuple[FLOAT, FLOAT, FLOAT, FLOAT]:
        """`_in` another CRS, from points along the windows' borders."""
        y0, x0, height, width = self.windows.T[:, :, None]
        steps = 2 + int(max(height.max(), width.max())) // SPACING
        along, zero = np.linspace(0.0, 1.0, steps), np.zeros(steps)
        down = np.concatenate([zero, zero + 1, along, along])
        across = np.concatenate([along, along, zero, zero + 1])
        x, y = transformer(self.product.crs, crs).transform(
            self.product.x(x0 + 0.5 + across * (width - 1)),
            self.product.y(y0 + 0.5 + down * (height - 1)),
        )
        # Points that a CRS cannot express lie before the first row and column, as for the reader.
        good = np.isfinite(x) & np.isfinite(y)
        return (
            np.where(good, x, -np.inf).min(axis=1),
            np.where(good, x, -np.inf).max(axis=1),
            np.where(good, y, np.inf).min(axis=1),
            np.where(good, y, np.inf).max(axis=1),
        )


def _floor(coordinates: FLOAT) -> npt.NDArray[np.int64]:
    return np.clip(np.floor(coordinates), -(2**30), 2**30).astype(np.int64)
