"""How fast this machine makes a certain composite: a few seconds of the real thing.

Small rasters with a plausible content are written into a temporary folder. Reading them, a whole
tile of the plan's own recipe and the writing of that tile are timed, as processor time of all
threads, so that neither the number of readers nor a busy machine matters much.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import reader
from lcengine.composite.planning import CompositePlan, plan_composite
from lcengine.composite.tile import TileResult, compute_tile
from lcengine.grid import Grid
from lcengine.items import Access, Asset, Item, Items
from lcengine.kernels._jit import usable_cpus
from lcengine.locate import SourceGrid, Window, transformer
from lcengine.price import GB, Rates
from lcengine.store import target
from lcengine.traffic import traffic

MOST = 48
"""Items of the calibrated tile: costs per value hardly change beyond."""
READ = 8
"""Items of which all is decoded."""
VALUES = 3e7
"""Observations x bands x pixels of the calibrated tile, about."""
EPSG, ZONE, NEXT_ZONE = 32631, "EPSG:32631", "EPSG:32632"
LEFT, TOP, FINEST = 600_000.0, 5_600_000.0, 10.0
BLOCK = 128
VARIANTS = 4
"""Scenes that differ in where their clouds are."""


def calibrate(plan: CompositePlan) -> Rates:
    """Rates of this machine for a plan's bands, mask, screens and methods.

    The model tile has the dates of a tile with a middling number of items, and lies in the next
    UTM zone where most of the plan's items are in another CRS than the product.
    """
    with tempfile.TemporaryDirectory(prefix="lcengine-calibration-") as folder:
        model = _Model(plan, Path(folder))
        compute_tile(model.plan("warm"), 0)
        decoding, decoded = model.read("read")
        own = model.plan("tile")
        working, result = _timed(lambda: compute_tile(own, 0))
        writing = _write(own, result, Path(folder))
        moved = traffic(own.reads, lambda _, asset: reader.header(asset, own.items.access))
    decode = decoding / decoded
    kernels = working - decode * sum(moved.decoded.values())
    return Rates(
        decode=decode * GB,
        kernel=max(kernels, 0.0) / moved.values * 1e9,
        write=writing / sum(pixels.nbytes for pixels in result.arrays.values()) * GB,
        measured=dt.datetime.now(dt.UTC).date().isoformat(),
        cores=usable_cpus(),
    )


class _Model:
    """A tile with files of its own for every name it is made under, so that no cache helps."""

    def __init__(self, plan: CompositePlan, folder: Path) -> None:
        self.source = plan
        self.folder = folder
        self.items = _middling(plan)
        values = max(1, len(self.items) * len(plan.reads.bands))
        self.edge = 512 if VALUES / values > 384**2 else 256
        self.grid = self._grid()
        self.assets = self._rasters()

    def _grid(self) -> Grid:
        """One tile, of the product's pixels relative to the source's."""
        plan = self.source
        sources = [SourceGrid.of(a).lattice for item in self.items for a in item.assets.values()]
        lattice = plan.reads.lattice
        finest = min(own.dx for own in sources)
        alike = (lattice.dx < 0.1) == (finest < 0.1)
        resolution = FINEST * lattice.dx / finest if alike else FINEST
        foreign = sum(own.crs != lattice.crs for own in sources) > len(sources) / 2
        size = self.edge * resolution
        crs, left, top = ZONE, LEFT, TOP
        if foreign:  # about the middle of the rasters, in the coordinates of the next zone
            crs = NEXT_ZONE
            x, y = transformer(ZONE, crs).transform(LEFT + size, TOP - size)
            left, top = (round(v / resolution) * resolution for v in (x - size / 2, y + size / 2))
        tile = -(-self.edge // 16) * 16
        return Grid.from_bounds(left, top - size, left + size, top, crs, resolution, tile)

    def _rasters(self) -> dict[str, list[Asset]]:
        """The variants of every band: an example of its kind, larger than the tile."""
        plan = self.source
        example = self.items[0]
        bands = dict.fromkeys((*plan.reads.bands, *plan.reads.mask_bands))
        sizes = {band: abs(example.asset(band).transform[0]) for band in bands}
        finest, coarsest = min(sizes.values()), max(sizes.values())
        unit = 6 * FINEST * coarsest / finest
        # In another zone the tile is turned by some degrees: it lies within twice its size.
        span = math.ceil(2 * self.edge * self.grid.resolution / unit) * unit
        return {
            band: [
                self._raster(example.asset(band), band, FINEST * sizes[band] / finest, span, number)
                for number in range(VARIANTS)
            ]
            for band in bands
        }

    def _raster(self, like: Asset, band: str, resolution: float, span: float, number: int) -> Asset:
        """One variant of a band over `span` metres; bands of one kind and grid share a file."""
        kind, n = self.source.sensor.band(band).kind, round(span / resolution)
        path = self.folder / f"{kind}-{n}-{number}.tif"
        if not path.exists():
            _write_tiff(path, _scene(kind, n, number), resolution)
        transform = (resolution, 0.0, LEFT, 0.0, -resolution, TOP)
        return replace(like, href=str(path), crs=ZONE, transform=transform, shape=(n, n), band=1)

    def plan(self, name: str) -> CompositePlan:
        """The plan of the tile, its files linked under `name`."""
        items = tuple(self._item(number, item, name) for number, item in enumerate(self.items))
        plan, access = self.source, Access(local=True)
        return plan_composite(
            Items(items, access), self.grid, plan.spec, interval=plan.interval, block=self.edge
        )

    def _item(self, number: int, item: Item, name: str) -> Item:
        assets = {}
        for band, variants in self.assets.items():
            model = variants[number % VARIANTS]
            path = self.folder / f"{name}-{number}-{band}.tif"
            os.link(model.href, path)
            assets[band] = replace(model, href=str(path))
        return replace(item, id=f"{item.id}-{number}", assets=assets)

    def read(self, name: str) -> tuple[float, int]:
        """(processor seconds, bytes) of decoding some items whole."""
        items, count = self.plan(name).items, 0
        start = time.process_time()
        for item in items[:READ]:
            for asset in item.assets.values():
                count += reader.read_raw(asset, items.access, Window(0, 0, *asset.shape)).nbytes
        return time.process_time() - start, count


def _middling(plan: CompositePlan) -> list[Item]:
    """The items of a tile with a middling number of them, at most `MOST`, evenly spaced."""
    counts = np.diff(plan.reads.starts)
    busy = np.flatnonzero(counts)
    position = int(busy[np.argsort(counts[busy], kind="stable")[len(busy) // 2]])
    members = plan.reads.items_of(position)
    chosen = np.unique(np.linspace(0, len(members) - 1, min(MOST, len(members))).astype(int))
    return [plan.items[int(members[k])] for k in chosen]


def _write(plan: CompositePlan, result: TileResult, folder: Path) -> float:
    """Processor seconds of writing a tile into a product."""
    staging = target(folder / "product.zarr").create(
        {}, "calibration", {}, plan.grid, plan.variables(), plan.time_axis
    )
    return _timed(lambda: staging.write(plan.grid.tile_at(0), result.arrays))[0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(processor seconds of all threads, result)."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _scene(kind: str, size: int, variant: int) -> npt.NDArray[Any]:
    """Pixels (size, size) that compress as imagery does: fields with noise, clouds in classes."""
    rng = np.random.default_rng(variant)
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    if kind == "reflectance":
        fields: npt.NDArray[np.float64] = 900 + 500 * np.sin(x / 61 + variant)
        fields += 300 * np.sin(y / 37) + 40 * (x // 23 % 7)
        fields += rng.normal(0, 40, (size, size))
        return np.maximum(fields, 1).astype(np.uint16)
    if kind == "backscatter":  # speckle of five looks, as float32 powers
        power: npt.NDArray[np.float64] = 0.05 + 0.03 * np.sin(x / 61 + variant)
        return (power * rng.gamma(5, 1 / 5, (size, size))).astype(np.float32)
    cloud = np.sin(x / 45 + 2 * variant) + np.sin(y / 58 - variant) > 0.9
    clear, cloudy = (4, 9) if kind == "classes" else (2, 95)
    out = np.where(cloud, cloudy, clear)
    if kind == "classes":
        out[(x // 29 + y // 31) % 5 == 0] = 5
    return out.astype(np.uint8)


def _write_tiff(path: Path, pixels: npt.NDArray[Any], resolution: float) -> None:
    """A tiled, deflated GeoTIFF (TIFF 6.0; GeoTIFF 1.1): one band, corner at (LEFT, TOP).

    By hand, because rasterio writes in other layers only.
    """
    height, width = pixels.shape
    blocks = []
    for y in range(0, height, BLOCK):
        for x in range(0, width, BLOCK):
            block = np.zeros((BLOCK, BLOCK), pixels.dtype)
            part = pixels[y : y + BLOCK, x : x + BLOCK]
            block[: part.shape[0], : part.shape[1]] = part
            if pixels.itemsize == 2:  # horizontal differencing, modulo 2**16
                block[:, 1:] -= block[:, :-1].copy()
            blocks.append(zlib.compress(block.tobytes(), 6))
    offsets = np.cumsum([8, *map(len, blocks)])
    tags: list[tuple[int, str, tuple[Any, ...]]] = [
        (256, "I", (width,)),
        (257, "I", (height,)),
        (258, "H", (8 * pixels.itemsize,)),
        (259, "H", (8,)),  # deflate
        (262, "H", (1,)),
        (277, "H", (1,)),
        (317, "H", (2 if pixels.itemsize == 2 else 1,)),
        (322, "I", (BLOCK,)),
        (323, "I", (BLOCK,)),
        (324, "I", tuple(int(n) for n in offsets[:-1])),
        (325, "I", tuple(map(len, blocks))),
        (339, "H", (1,)),
        (33550, "d", (resolution, resolution, 0.0)),
        (33922, "d", (0.0, 0.0, 0.0, LEFT, TOP, 0.0)),
        # version 1.1.0, three keys: a projected CRS, pixels are areas, the CRS
        (34735, "H", (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, EPSG)),
    ]
    start = int(offsets[-1])
    extra = start + 2 + 12 * len(tags) + 4
    entries, tail = [], b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        head = struct.pack("<HHI", tag, {"H": 3, "I": 4, "d": 12}[kind], len(values))
        if len(packed) <= 4:
            entries.append(head + packed.ljust(4, b"\0"))
        else:
            entries.append(head + struct.pack("<I", extra + len(tail)))
            tail += packed
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + b"".join(blocks) + directory + tail)
