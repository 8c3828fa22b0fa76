"""The read plan: which items every tile needs, before any pixel is read.

Everything here is a value: it can be printed, saved, priced and resumed. Tiles get their items by
the raster extent of the assets (`proj:shape`, `proj:transform`), never by the footprint polygon.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import masks
from lcengine.errors import ContractError, InputError
from lcengine.grid import Grid, Tile
from lcengine.items import Asset, GroupBy, Item, Items, check_items, observations
from lcengine.kernels.convert import LOGARITHMIC
from lcengine.locate import Lattice, SourceGrid, Window, transformer
from lcengine.reader import GDAL_OPTIONS, Resampling, check_resampling, oversampling
from lcengine.sensors import sensor
from lcengine.sensors.base import UNITS, Kind

MEMORY_TARGET = 2**30
"""Bytes of observations that a sub-block may hold; larger blocks decode fewer pixels twice."""

BLOCKS = (4096, 2048, 1024, 512, 256, 128)


@dataclass(frozen=True)
class ReadPlan:
    """Items by tile. `items` are ordered by observation, `observation` has one index per item.

    `block`: edge of the sub-blocks the busiest tile is processed in (see `edge`), cut along `phase`
    (row, column), where the sources' own blocks begin, so that few are decoded twice in a tile.
    `beyond`: metres around a tile in which masks are read too, for the distance to clouds; 0
    without it. `working`: bytes per pixel and item that screens need beside the observations.
    """

    grid: Grid
    items: Items
    observation: tuple[int, ...]
    bands: tuple[str, ...]
    mask: str
    resampling: Resampling
    block: int
    phase: tuple[int, int]
    tiles: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    beyond: float = 0.0
    working: int = 0

    @cached_property
    def lattice(self) -> Lattice:
        """The product's pixel lattice."""
        return product_lattice(self.grid)

    @cached_property
    def began(self) -> tuple[dt.datetime, ...]:
        """When the observation of each item began: the time of its first item."""
        first: dict[int, dt.datetime] = {}
        for number, item in zip(self.observation, self.items, strict=True):
            first[number] = min(first.get(number, item.datetime), item.datetime)
        return tuple(first[number] for number in self.observation)

    @property
    def recipe(self) -> masks.MaskRecipe | None:
        """The cloud mask, None when pixels are not masked."""
        return masks.preset(self.mask)

    @property
    def mask_bands(self) -> tuple[str, ...]:
        """The bands that the cloud mask decodes, on the grid of the first."""
        return self.recipe.bands if self.recipe else ()

    def mask_assets(self, item: Item) -> tuple[Asset, ...]:
        """The assets of an item that the cloud mask decodes."""
        return tuple(item.asset(band) for band in self.mask_bands)

    def items_of(self, position: int) -> npt.NDArray[np.int32]:
        """Indices into `items` of the tile at `position` in `tiles`, ascending."""
        return self.index[self.starts[position] : self.starts[position + 1]]

    def reaching(self) -> ReadPlan:
        """The plan without the items that no tile needs."""
        used = np.unique(self.index)
        items = Items(
            tuple(self.items[int(i)] for i in used), self.items.access, self.items.superseded
        )
        return replace(
            self,
            items=items,
            observation=tuple(self.observation[int(i)] for i in used),
            index=np.searchsorted(used, self.index).astype(np.int32),
        )

    def only(self, tiles: Sequence[int]) -> ReadPlan:
        """The plan of some of its tiles, in order."""
        members = [self.items_of(self.position(tile)) for tile in tiles]
        starts = np.cumsum([0, *map(len, members)])
        index = np.concatenate([np.zeros(0, np.int32), *members])
        return replace(self, tiles=np.array(tiles, np.int32), starts=starts, index=index)

    def position(self, tile: int) -> int:
        """Position of a tile index in `tiles`."""
        return int(np.searchsorted(self.tiles, tile))

    @cached_property
    def most(self) -> int:
        """Items of the busiest tile."""
        return int(np.diff(self.starts).max(initial=0))

    def edge(self, items: int) -> int:
        """Edge of the blocks of a tile with so many items.

        Doubled as often as its observations take no more memory than those of the busiest tile:
        larger blocks decode fewer source blocks twice.
        """
        edge = self.block
        while edge < self.grid.tile and 0 < items * (2 * edge) ** 2 <= self.most * self.block**2:
            edge *= 2
        return edge

    def blocks(self, tile: Tile) -> Iterator[Window]:
        """The sub-blocks of a tile in row-major order."""
        edge = self.edge(len(self.items_of(self.position(tile.index))))
        rows = _cuts(tile.y0, tile.height, edge, self.phase[0])
        cols = _cuts(tile.x0, tile.width, edge, self.phase[1])
        for y0, height in rows:
            for x0, width in cols:
                yield Window(y0, x0, height, width)

    @property
    def observation_bytes(self) -> int:
        """Bytes of one pixel of one item while a block is processed: bands, flags, clear mask."""
        return _observation_bytes(len(self.bands), self.beyond, self.working)

    def memory(self, outputs: int, threads: int) -> int:
        """Peak bytes of a tile task that writes `outputs` bytes per pixel by `threads` readers.

        Bands and masks of the busiest block, the raw masks of the tile, the output, coordinates
        and values on their way through resampling, and GDAL's block cache.
        """
        most = self.most
        if not most:
            return outputs * self.grid.tile**2
        height, width = (min(self.grid.tile, n) for n in self.grid.shape)
        tile = height * width
        block = min(self.block, height) * min(self.block, width)
        first = self.items[int(self.index[0])]
        raw_masks = 0
        if self.recipe is not None:
            own = [_finer(self.lattice, SourceGrid.of(a).lattice) for a in self.mask_assets(first)]
            halo = 2 * self.beyond / masks.metres(self.lattice)
            # Distances to clouds are uint16 beside the uint8 classes, halo and all.
            area = (height + halo) * (width + halo) * (3 if self.beyond else 1)
            raw_masks = int(most * area * own[0] ** 2)
            if len(own) > 1:  # while they are decoded: all on the mask's grid, one as it is stored
                each = 12 if max(own) > own[0] else 3
                decoding = each * len(own) * own[0] ** 2 + 4 * max(own) ** 2
                raw_masks += int(min(threads, most) * tile * decoding)
        finer = [_finer(self.lattice, SourceGrid.of(first.asset(b)).lattice) for b in self.bands]
        decoded = int(2 * most * tile * sum(n**2 for n in finer)) + raw_masks
        cache = min(int(GDAL_OPTIONS["GDAL_CACHEMAX"]), decoded)
        cube = most * self.observation_bytes * block
        fewest = int(np.diff(self.starts)[np.diff(self.starts) > 0].min())
        largest = min(self.edge(fewest), height) * min(self.edge(fewest), width)
        return cube + raw_masks + outputs * tile + int(self._gathering(threads) * largest) + cache

    def _most_foreign(self, of_item: Sequence[frozenset[Lattice]]) -> set[Lattice]:
        """Of all tiles' lattices in other CRSs than the product's, the most numerous."""
        numbers = {own: n for n, own in enumerate(dict.fromkeys(of_item))}
        kinds, table = list(numbers), np.array([numbers[own] for own in of_item])
        met = {tuple(np.unique(table[self.items_of(n)])) for n in range(len(self.tiles))}
        every = (set().union(*(kinds[k] for k in tile)) for tile in met)
        foreign = ({own for own in tile if own.crs != self.lattice.crs} for tile in every)
        return max(foreign, key=len, default=set())

    def _gathering(self, threads: int) -> float:
        """Bytes per block pixel that resampling holds: coordinates, and values of reads in flight.

        Nothing where the product's pixels are the source's, but for backscatter: its reads pass
        through float64. Coordinates in another CRS are float64
        x and y, then float64 row and column and their int32 index per source grid, each made from
        temporaries; a read in flight holds its source pixels and its own copy of the coordinates.
        """
        bands = (*self.bands, *self.mask_bands[:1])
        of_item = [frozenset(SourceGrid.of(i.asset(b)).lattice for b in bands) for i in self.items]
        lattices = frozenset[Lattice]().union(*of_item)
        foreign = self._most_foreign(of_item)
        smooth = self.resampling == "bilinear"
        reads = min(threads, len(self.items) * len(bands))
        wide = any(i.asset(b).unit in LOGARITHMIC for i in self.items for b in self.bands)
        stored, value = (12, 8) if wide else (2, 2)
        if not smooth and not foreign and all(own.dx == self.lattice.dx for own in lattices):
            return float(reads * stored * wide)
        finer = max(_finer(self.lattice, own) for own in lattices)
        samples = max(1, int(np.ceil(finer))) ** 2 if self.resampling == "average" else 1
        shared = 16 * len({own.crs for own in foreign}) + 24 * len(foreign) + 24 * bool(foreign)
        index = 16 if smooth else 8 if foreign else 0
        own = stored * finer**2 + (index + value * (samples > 1)) * samples + value * wide
        return shared * samples + reads * own


def plan_reads(  # noqa: PLR0913 - what to read, onto what, and how
    items: Items,
    grid: Grid,
    bands: Sequence[str],
    *,
    mask: str = "none",
    groupby: GroupBy = "overpass",
    resampling: str = "nearest",
    block: int | None = None,
    beyond: float = 0.0,
    working: int = 0,
) -> ReadPlan:
    """Freeze what to read for a product on `grid`.

    Raises `MissingBandError` naming the first item without a band, `ContractError` for one whose
    pixels are not what the sensor's are, and `InputError` for an unknown mask, resampling or block.
    """
    check_items(items)
    if isinstance(bands, str):
        raise InputError(f"bands are {bands!r}, expected a list of names such as ['red', 'nir']")
    if not isinstance(grid, Grid):
        raise InputError(f"grid is a {type(grid).__name__}, expected lcengine.Grid")
    recipe = masks.preset(mask)
    method = check_resampling(resampling)
    lattice = product_lattice(grid)
    ordered, observation = observations(items, groupby, lattice.crs)
    needed = tuple(dict.fromkeys((*bands, *(recipe.bands if recipe else ()))))
    if not needed:
        raise InputError("no band is named and no mask; expected at least one")
    for name in sorted({item.sensor for item in ordered}):
        masks.check_sensor(recipe, sensor(name))
    for item in ordered:
        if recipe is not None:
            masks.check_item(recipe, item)
        assets = [item.asset(band) for band in needed]
        if recipe is not None:
            masks.factors(recipe, [item.asset(band) for band in recipe.bands])
        for asset in assets if method == "average" else ():
            oversampling(lattice, SourceGrid.of(asset))
    _check_units(ordered, bands)
    tiles, starts, index = _assign(ordered, grid, lattice, needed)
    most = int(np.diff(starts).max(initial=0))
    return ReadPlan(
        grid=grid,
        items=Items(ordered, items.access, items.superseded),
        observation=observation,
        bands=tuple(bands),
        mask=mask,
        resampling=method,
        block=_block_size(block, grid.tile, most * _observation_bytes(len(bands), beyond, working)),
        phase=_phase(ordered, needed[0], lattice),
        tiles=tiles,
        starts=starts,
        index=index,
        beyond=beyond,
        working=working,
    )


def _check_units(items: Sequence[Item], bands: Sequence[str]) -> None:
    """`ContractError` for pixels that would be taken for something else, or mixed with such."""
    kinds: dict[tuple[str, str], Kind] = {}
    levels: dict[str, str] = {}
    for item in items:
        for band in bands:
            key = item.sensor, band
            if key not in kinds:
                kinds[key] = sensor(item.sensor).band(band).kind
            kind = kinds[key]
            unit = item.asset(band).unit
            level, comma, _ = item.asset(band).contract.partition(", ")
            if comma and unit == "reflectance":
                levels.setdefault(level, item.id)
            if unit not in UNITS.get(kind, (unit,)):
                raise ContractError(
                    f"item {item.id} band {band!r} is in {unit!r}, and its sensor's band is "
                    f"{kind}; expected {' or '.join(UNITS[kind])}: correct the asset's `unit`"
                )
    if len(levels) > 1:
        listed = ", ".join(f"{level} as {name}" for level, name in levels.items())
        raise ContractError(
            f"the items are reflectance of {len(levels)} levels ({listed}), which differ by the "
            "atmosphere; take one of them: items.filter(lambda item: "
            f"item.asset({bands[0]!r}).contract.startswith({max(levels, key=len)!r}))"
        )


def _observation_bytes(bands: int, beyond: float, working: int) -> int:
    """Bands, the distance to clouds, flags and clear mask, and what screens need."""
    return 2 * (bands + bool(beyond)) + 3 + working


def product_lattice(grid: Grid) -> Lattice:
    """The lattice of a product grid."""
    a = grid.transform
    crs = f"EPSG:{grid.epsg}" if grid.epsg else grid.crs_wkt
    return Lattice(crs, a.c, a.f, a.a, -a.e)


def extent(source: SourceGrid, lattice: Lattice) -> tuple[int, int, int, int]:
    """Product pixels (y0, x0, y1, x1) that a source raster may reach, generously rounded."""
    own = source.lattice
    height, width = source.shape
    left, top = own.left, own.top
    right, bottom = left + width * own.dx, top - height * own.dy
    pad = 0
    if own.crs != lattice.crs:
        left, bottom, right, top = transformer(own.crs, lattice.crs).transform_bounds(
            left, bottom, right, top, densify_pts=101
        )
        if not np.all(np.isfinite([left, bottom, right, top])):
            return 0, 0, 0, 0  # so far away that the product's CRS cannot express it
        if left > right:  # across the antimeridian of a geographic product: on both its ends
            left, right = -180.0, 180.0
        pad = 2 + int(np.ceil(own.dx / lattice.dx))
    y0 = int(np.floor((lattice.top - top) / lattice.dy)) - pad
    y1 = int(np.ceil((lattice.top - bottom) / lattice.dy)) + pad
    x0 = int(np.floor((left - lattice.left) / lattice.dx)) - pad
    x1 = int(np.ceil((right - lattice.left) / lattice.dx)) + pad
    return y0, x0, y1, x1


def _assign(
    items: Sequence[Item], grid: Grid, lattice: Lattice, bands: Sequence[str]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """CSR table tile -> items. A tile that the AOI does not touch has none, but is written.

    Its pixels are nodata with a count of 0, as they would be in a larger tile that the AOI touches.
    """
    touched = np.array([grid.touches(tile) for tile in grid.tiles()], np.bool_)
    reached: dict[Any, npt.NDArray[np.int64]] = {}
    found = []
    for item in items:
        # Items of one square share their grids; making and hashing `SourceGrid`s takes longer.
        grids = tuple((a.crs, a.transform, a.shape) for a in map(item.asset, bands))
        if grids not in reached:
            sources = {SourceGrid.of(item.asset(band)) for band in bands}
            reached[grids] = _reached(grid, [extent(s, lattice) for s in sources], touched)
        found.append(reached[grids])
    numbers = np.concatenate(found) if found else np.zeros(0, np.int64)
    members = np.repeat(np.arange(len(found), dtype=np.int32), [len(own) for own in found])
    counts = np.bincount(numbers, minlength=grid.n_tiles)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tiles = np.arange(grid.n_tiles, dtype=np.int32)
    return tiles, starts, members[np.argsort(numbers, kind="stable")]


def _reached(
    grid: Grid, boxes: Sequence[tuple[int, int, int, int]], touched: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Indices of the touched tiles that pixel boxes (y0, x0, y1, x1) reach, ascending."""
    rows, cols = grid.tile_rows, grid.tile_cols
    reached = np.zeros((rows, cols), np.bool_)
    height, width = grid.shape
    for y0, x0, y1, x1 in boxes:
        if y0 < min(y1, height) and x0 < min(x1, width):  # the last tiles end before their edge
            top, left = max(0, y0 // grid.tile), max(0, x0 // grid.tile)
            bottom, right = max(0, -(-y1 // grid.tile)), max(0, -(-x1 // grid.tile))
            reached[top:bottom, left:right] = True
    return np.flatnonzero(reached.ravel() & touched)


def _block_size(block: int | None, tile: int, bytes_per_pixel: int) -> int:
    """The largest block whose observations fit into the memory target."""
    if block is not None:
        if block < 16:
            raise InputError(f"block is {block} pixels, expected at least 16")
        return block
    for size in BLOCKS:
        edge = min(size, tile)
        if bytes_per_pixel * edge * edge <= MEMORY_TARGET:
            return size
    return BLOCKS[-1]


def _phase(items: Sequence[Item], band: str, lattice: Lattice) -> tuple[int, int]:
    """Product pixel (row, column) at which the most common source raster begins."""
    own = Counter(
        SourceGrid.of(item.asset(band)).lattice for item in items if item.crs == lattice.crs
    )
    if not own:
        return 0, 0
    source = own.most_common(1)[0][0]
    return (
        round((lattice.top - source.top) / lattice.dy),
        round((source.left - lattice.left) / lattice.dx),
    )


def _finer(product: Lattice, source: Lattice) -> float:
    """Source pixels per product pixel along an axis; 1 between degrees and metres."""
    alike = (product.dx < 0.1) == (source.dx < 0.1)
    return product.dx / source.dx if alike else 1.0


def _cuts(start: int, size: int, block: int, phase: int) -> list[tuple[int, int]]:
    """(offset, length) pieces of [start, start + size) cut where (i - phase) % block == 0."""
    first = start + (phase - start) % block
    inner = [i for i in range(first, start + size, block) if i > start]
    edges = [start, *inner, start + size]
    return [(a, b - a) for a, b in pairwise(edges)]


def describe(plan: ReadPlan, outputs: int, threads: int) -> dict[str, Any]:
    """The plan in numbers, for people and machines."""
    per_tile = [int(n) for n in np.diff(plan.starts)] or [0]
    height, width = plan.grid.shape
    return {
        "crs": plan.lattice.crs,
        "resolution": plan.grid.resolution,
        "shape": [height, width],
        "tile": plan.grid.tile,
        "block": min(plan.block, plan.grid.tile),
        "tiles": len(plan.tiles),
        "tasks": len(plan.tiles),
        "items": len(plan.items),
        "observations": len(set(plan.observation)),
        "items_per_tile": {
            "min": min(per_tile),
            "median": statistics.median(per_tile),
            "max": max(per_tile),
        },
        "bands_read": list(plan.bands),
        "output_bytes": outputs * height * width,
        "memory_per_task": plan.memory(outputs, threads),
    }
