"""The tile task: mask first, read what is clear, one kernel pass per block.

A tile is worked in blocks, so memory is observations x bands x block², whatever the tile size.
Items without a clear pixel in a block are never read there. A read that fails for good becomes a
ledger row and a per-pixel `lost` count, never silent nodata.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import masks, reader
from lcengine.addresses import redact
from lcengine.composite.block import Block, Series, days_of, reduce_block
from lcengine.composite.planning import CompositePlan, read_threads
from lcengine.errors import AssetError, RunError
from lcengine.grid import Tile
from lcengine.items import Asset
from lcengine.kernels.methods import DISTANCE, FARTHEST
from lcengine.locate import Locator, SourceGrid, Window
from lcengine.periods import neighbours

UINT8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Failure:
    """A ledger row: an asset that could not be read in a tile, `attempts` times (0: refused)."""

    tile: int
    item: str
    band: str
    href: str
    error: str
    attempts: int


@dataclass(slots=True)
class TileResult:
    """A finished tile: arrays (y, x) by variable, and what happened on the way.

    `clear`, `observations`: observations that all pixels are made of, and those that they had to
    choose from, as if each overpass that reaches the tile covered it. `bytes_read`: decoded bytes
    of imagery and masks. What a failed read left is not counted.
    """

    arrays: dict[str, npt.NDArray[Any]]
    failures: list[Failure] = field(default_factory=list)
    clear: int = 0
    observations: int = 0
    bytes_read: int = 0


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Threads for reads, shared by the tasks of a process: GDAL releases the GIL, networks wait."""
    return ThreadPoolExecutor(read_threads(), thread_name_prefix="lcengine-read")


_held = threading.local()

HELD = 2**28
"""Largest observation memory in bytes that a worker thread keeps from block to block."""


def _cube(*shape: int) -> npt.NDArray[np.int16]:
    """Uninitialised int16 memory, kept by its worker thread for the next block unless large.

    Fresh memory would be faulted in page by page for every block: a twentieth of a run.
    """
    size = math.prod(shape)
    if 2 * size > HELD:
        return np.empty(shape, dtype=np.int16)
    whole: npt.NDArray[np.int16] | None = getattr(_held, "memory", None)
    if whole is None or whole.size < size:
        whole = _held.memory = np.empty(size, dtype=np.int16)
    return whole[:size].reshape(shape)


def compute_tile(plan: CompositePlan, number: int) -> TileResult:
    """Composite one tile; arrays are int16 bands and uint16 QA, cropped to the product.

    Raises `RunError` when more than `max_lost` of the tile's items cannot be read.
    """
    task = _TileTask(plan, plan.grid.tile_at(number))
    task.check_losses()
    for block in plan.reads.blocks(task.tile):
        task.block(block)
        task.check_losses()
    return task.result


class _TileTask:
    """State of one tile while its blocks are worked."""

    def __init__(self, plan: CompositePlan, tile: Tile) -> None:
        self.plan = plan
        self.tile = tile
        self.reads = plan.reads
        self.members = self.reads.items_of(self.reads.position(tile.index))
        self.access = plan.items.access
        self.failed: dict[int, str] = {}
        """Items of which something could not be read, and the first band that failed."""
        self.distances: dict[int, masks.Distances] = {}
        times = (len(plan.periods),) if plan.time_axis else ()
        shape = (*times, tile.height, tile.width)
        self.result = TileResult(
            {v.name: np.full(shape, v.missing, dtype=v.dtype) for v in plan.variables()}
        )
        self.classes = self._read_masks()

    def _read_masks(self) -> dict[int, masks.Classes]:
        """Mask bands of all items around the tile, many reads in flight."""
        recipe = self.reads.recipe
        if recipe is None:
            return {}
        whole = Window(self.tile.y0, self.tile.x0, self.tile.height, self.tile.width)

        def read(i: int) -> masks.Classes | None:
            assets = self.reads.mask_assets(self.plan.items[i])
            lattice, beyond = self.reads.lattice, self.reads.beyond
            return masks.read_classes(recipe, assets, self.access, lattice, whole, beyond)

        jobs = {int(i): _pool().submit(read, int(i)) for i in self.members}
        # Whatever happens below, no read may outlive the task.
        wait(jobs.values())
        found = {}
        for i, job in jobs.items():
            try:
                classes = job.result()
            except AssetError as error:
                assets = self.reads.mask_assets(self.plan.items[i])
                hrefs = [redact(asset.href) for asset in assets]
                band = recipe.bands[hrefs.index(error.href) if error.href in hrefs else 0]
                self._fail(i, band, error)
            else:
                if classes is not None:
                    found[i] = classes
                    self.result.bytes_read += classes.decoded
        return found

    def _fail(self, i: int, band: str, error: AssetError) -> None:
        self.failed.setdefault(i, band)
        item = self.plan.items[i].id
        row = Failure(self.tile.index, item, band, error.href, str(error), error.attempts)
        self.result.failures.append(row)

    def check_losses(self) -> None:
        """Too many lost items make a composite of something else: fail the tile instead."""
        limit = self.plan.spec.max_lost * len(self.members)
        if len(self.failed) > limit:
            row = min(self.result.failures, key=lambda row: (row.item, row.band))
            raise RunError(
                f"{len(self.failed)} of {len(self.members)} items could "
                f"not be read, more than --max-lost {self.plan.spec.max_lost} allows; the first: "
                f"{row.item} {row.band}: {row.error}"
            )

    def block(self, window: Window) -> None:
        """Composite one block into the tile's arrays."""
        locator = Locator(self.reads.lattice, window)
        clear = self._clear(locator)
        kept = self._kept(clear)
        lost = self._lost_masks(locator)
        values = self._read_bands(locator, kept, clear, lost)
        spec, series = self.plan.spec, self.plan.series
        members = self.members[kept]
        own = Series(series.groups[members], series.days[members], series.numbers[members])
        names = self.reads.bands
        if self.reads.beyond:
            names = (*names, DISTANCE)
        block = Block(values, clear[kept], own, names, self.plan.quantity.domain)
        inside = self._inside(locator)
        area = window.y0 - self.tile.y0, window.x0 - self.tile.x0, window.height, window.width
        for number, found in enumerate(reduce_block(spec, self.plan.periods, block, inside)):
            self._put(number, area, found)
            self.result.clear += int(found["count"].sum(dtype=np.int64))
            self.result.observations += self._looked_at(number, window, inside, found)
        for number, count in enumerate(self._count_lost(lost, kept, clear, values)):
            self._put(number, area, {"lost": count})

    def _looked_at(
        self,
        number: int,
        window: Window,
        inside: UINT8 | None,
        found: Mapping[str, npt.NDArray[Any]],
    ) -> int:
        """Observations that a block's pixels had to choose from in a period, neighbours included.

        Those that borrow from the neighbouring periods look at more, and at some of them again.
        """
        widened = found.get("widened", np.zeros((window.height, window.width), np.uint8))
        levels = np.bincount((widened if inside is None else widened[inside != 0]).ravel())
        return sum(int(n) * self.passes[number, level] for level, n in enumerate(levels) if n)

    @cached_property
    def passes(self) -> dict[tuple[int, int], int]:
        """Overpasses that reach the tile in each period (number, how far it is widened)."""
        series, members = self.plan.series, self.members
        passes = {}
        for number in range(len(self.plan.periods)):
            for level in range(self.plan.spec.widest + 1):
                window = series.within(neighbours(self.plan.periods, number, level))
                own = members[(members >= window.start) & (members < window.stop)]
                passes[number, level] = len(np.unique(series.groups[own]))
        return passes

    def _put(
        self,
        number: int,
        area: tuple[int, int, int, int],
        found: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Put the pixels of a period (y0, x0, height, width) into the tile's arrays."""
        y, x, height, width = area
        for name in found.keys() & self.result.arrays.keys():
            whole = self.result.arrays[name]
            one = whole[number] if self.plan.time_axis else whole
            one[y : y + height, x : x + width] = found[name]

    def _kept(self, clear: UINT8) -> list[int]:
        """Items to read: those that are clear somewhere, or all where masked ones may return."""
        if self.plan.spec.screens.despike:
            return list(range(len(self.members)))
        wanted = self.plan.wanted[self.members]
        return [k for k in range(len(self.members)) if wanted[k] and clear[k].any()]

    def _inside(self, locator: Locator) -> UINT8 | None:
        """The AOI in the block (0/1), None where it is all of it."""
        inside = self.plan.grid.inside(*locator.window)
        return None if inside is None else inside.astype(np.uint8)

    def _clear(self, locator: Locator) -> UINT8:
        """Clear masks (item, y, x) of the block, the AOI's outside not clear."""
        window = locator.window
        shape = (len(self.members), window.height, window.width)
        recipe = self.reads.recipe
        if recipe is None:
            clear = np.ones(shape, dtype=np.uint8)
        else:
            flags = np.zeros(shape, dtype=np.uint8)
            for k, i in enumerate(self.members):
                if int(i) in self.classes:
                    masks.place_flags(recipe, self.classes[int(i)], locator, flags[k])
            series = [self.reads.observation[int(i)] for i in self.members]
            clear = masks.resolve(recipe, flags, series)
        inside = self._inside(locator)
        return clear if inside is None else clear & inside

    def _read_bands(
        self, locator: Locator, kept: list[int], clear: UINT8, lost: dict[int, UINT8]
    ) -> npt.NDArray[np.int16]:
        """Bands of the kept items (item, band, y, x).

        Items that fail are not clear any more, and lost where they were: `clear` and `lost` are
        changed in place.
        """
        window, bands = locator.window, self.reads.bands
        layers = len(bands) + bool(self.reads.beyond)
        values = _cube(len(kept), layers, window.height, window.width)
        # What failed in one block of the tile is not waited for again in the next.
        for k in kept:
            if int(self.members[k]) in self.failed:
                self._lose(locator, k, self.failed[int(self.members[k])], clear, lost)
        tried = [n for n, k in enumerate(kept) if int(self.members[k]) not in self.failed]
        reads: list[tuple[int, int]] = [(n, b) for n in tried for b in range(len(bands))]
        assets = []
        for n, b in reads:
            asset = self.plan.items[int(self.members[kept[n]])].asset(bands[b])
            self._prepare(locator, asset)
            assets.append(asset)

        def read(job: int) -> int:
            n, b = reads[job]
            return reader.read_band(
                assets[job], self.access, locator, values[n, b], self.reads.resampling
            )

        jobs = [_pool().submit(read, job) for job in range(len(reads))]
        # Whatever happens below, no read may outlive the block whose memory it writes to.
        wait(jobs)
        for (n, b), job in zip(reads, jobs, strict=True):
            try:
                self.result.bytes_read += job.result()
            except AssetError as error:
                self._fail(int(self.members[kept[n]]), bands[b], error)
                self._lose(locator, kept[n], bands[b], clear, lost)
        for n, k in enumerate(kept):
            if k in lost:
                clear[k] = 0
                values[n] = reader.NODATA
            if self.reads.beyond:
                self._place_distances(locator, int(self.members[k]), values[n, -1])
        return values

    def _lose(
        self, locator: Locator, k: int, band: str, clear: UINT8, lost: dict[int, UINT8]
    ) -> None:
        """Note in `lost` where an item was clear and reached, for want of one of its bands."""
        reach = self._reach(locator, int(self.members[k]), band)
        lost[k] = lost.get(k, np.zeros_like(reach)) | (clear[k] & reach)

    def _place_distances(self, locator: Locator, i: int, out: npt.NDArray[np.int16]) -> None:
        """Metres to the next cloud of an item."""
        away = np.full(out.shape, FARTHEST, np.uint16)
        if i in self.classes:
            masks.place_distances(self._distances(i), locator, away)
        out[...] = away

    def _distances(self, i: int) -> masks.Distances:
        """Distances to clouds in and around the tile, worked out once per item."""
        if i not in self.distances:
            recipe = self.reads.recipe
            assert recipe is not None
            self.distances[i] = masks.distance_to_cloud(recipe, self.classes[i], FARTHEST)
        return self.distances[i]

    def _prepare(self, locator: Locator, asset: Asset) -> None:
        """Build the footing of an asset here: threads may only look it up."""
        source = SourceGrid.of(asset)
        k = 1
        if self.reads.resampling == "average":
            k = reader.oversampling(locator.product, source)
        footing = locator.footing(source.lattice, k)
        _ = footing.row_index, footing.col_index

    def _lost_masks(self, locator: Locator) -> dict[int, UINT8]:
        """Items whose mask could not be read: they may have been clear wherever they reach."""
        if self.reads.recipe is None:
            return {}
        inside = self._inside(locator)
        lost = {}
        for k, i in enumerate(self.members):
            if int(i) in self.failed and int(i) not in self.classes:
                reach = self._reach(locator, int(i), self.reads.mask_bands[0])
                lost[k] = reach if inside is None else reach & inside
        return lost

    def _count_lost(
        self,
        lost: dict[int, UINT8],
        kept: list[int],
        clear: UINT8,
        values: npt.NDArray[np.int16],
    ) -> npt.NDArray[np.uint16]:
        """Lost observations (period, y, x): a member could not be read, no other one was clear."""
        series, periods = self.plan.series, self.plan.periods
        number = series.groups[self.members]
        windows = [tuple(days_of(m) for m in (p.start, p.stop)) for p in periods]
        count = np.zeros((len(periods), *clear.shape[1:]), dtype=np.uint16)
        for observation in sorted({int(number[k]) for k in lost}):
            missing = np.zeros(clear.shape[1:], dtype=np.uint8)
            for k in (k for k in lost if number[k] == observation):
                missing |= lost[k]
                day = series.days[self.members[k]]
            for n, k in enumerate(kept):
                if number[k] == observation:
                    missing &= ~(clear[k] & (values[n] != reader.NODATA).all(axis=0))
            for i, (start, stop) in enumerate(windows):
                if start <= day < stop:
                    count[i] += missing
        return count

    def _reach(self, locator: Locator, i: int, band: str) -> UINT8:
        """Pixels of the block that lie in the raster of an item's band (0/1)."""
        source = SourceGrid.of(self.plan.items[i].asset(band))
        rows, cols = locator.footing(source.lattice).dense
        height, width = source.shape
        reached = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        return np.asarray(reached, dtype=np.uint8)
