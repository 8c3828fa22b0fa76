"""The truth: the ground without clouds or noise, and its land cover.

Blocks of the mosaic are worked out by `Truth` jobs and put together, one file each, by `Assembly`
jobs, so no process ever holds a whole layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcengine.simulate.covers import CLASSES
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.rasters import assemble_cog
from lcengine.simulate.sentinel2 import EPSG, RESOLUTION, Block, Mosaic
from lcengine.simulate.world import Job, world

TRUTH_NODATA = -32768
LANDCOVER = "landcover"
PARTS = "parts"
"""Folder below the truth where blocks wait to be put together."""
_SIDE = 256
"""Pixels of 20 m along a side of a block."""
_ROWS = 64
"""Rows of 20 m that are held for all dates at once."""


@dataclass(frozen=True)
class Truth(Job):
    """All layers of one block."""

    block: Block

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write each layer as a part; no items."""
        row, col, height, width = self.block
        shape = (2 * height, 2 * width)
        layers: dict[str, NDArray[Any]] = {b: np.empty(shape, np.int16) for b in self.options.bands}
        layers[LANDCOVER] = np.empty(shape, np.uint8)
        for start in range(0, height, _ROWS):
            strip = Block(row + start, col, min(_ROWS, height - start), width)
            rows = slice(2 * start, 2 * (start + strip.height))
            for name, values in _strip(self.options, strip).items():
                layers[name][rows] = values
        for name, values in layers.items():
            np.save(_part(root, name, self.block), values)
        return []


@dataclass(frozen=True)
class Assembly(Job):
    """One layer of the mosaic, from its parts."""

    layer: str

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write the layer's file and delete its parts; no items."""
        mosaic = Mosaic(self.options.size)
        parts = [(2 * b.row, 2 * b.col, _part(root, self.layer, b)) for b in _blocks(mosaic)]
        classes = CLASSES if self.layer == LANDCOVER else None
        nodata = TRUTH_NODATA if classes is None else classes.nodata
        target = root / "truth" / f"{self.layer}.tif"
        assemble_cog(target, mosaic.bounds, EPSG, nodata, parts, classes)
        for *_, file in parts:
            file.unlink()
        return []


def _strip(options: SimulationOptions, block: Block) -> dict[str, NDArray[Any]]:
    """The layers of a block at 10 m."""
    seen = world(options)
    patch = seen.landscape.patch(seen.mosaic.box(block))
    covers = [patch.cover(overpass.day) for overpass in seen.overpasses]
    layers: dict[str, NDArray[Any]] = {LANDCOVER: patch.landcover}
    for band in options.bands:
        surfaces = (patch.surface(band, cover) for cover in covers)
        layers[band] = _median(surfaces, RESOLUTION[band] // 10)
    return layers


def _median(surfaces: Iterable[NDArray[np.int16]], replicate: int) -> NDArray[np.int16]:
    """Median over the dates, rounded half to even, int16, each pixel repeated `replicate` times."""
    median = np.rint(np.median(np.stack(list(surfaces)), axis=0)).astype(np.int16)
    return np.repeat(np.repeat(median, replicate, axis=0), replicate, axis=1)


def _blocks(mosaic: Mosaic) -> list[Block]:
    side = mosaic.size // 2
    starts = range(0, side, _SIDE)
    return [Block(r, c, min(_SIDE, side - r), min(_SIDE, side - c)) for r in starts for c in starts]


def _part(root: Path, layer: str, block: Block) -> Path:
    return root / "truth" / PARTS / f"{layer}_{block.row}_{block.col}.npy"


def jobs(options: SimulationOptions) -> tuple[list[Job], list[Job]]:
    """What writes the truth, and what must wait for it."""
    blocks: list[Job] = [Truth(options, block) for block in _blocks(Mosaic(options.size))]
    return blocks, [Assembly(options, layer) for layer in (*options.bands, LANDCOVER)]
