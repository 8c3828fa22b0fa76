"""Coarse labels: a 500 m IGBP map of the simulated ground that is wrong the way MODIS's is.

Three things stand between the truth and the map, as in MCD12Q1 (Sulla-Menashe & Friedl 2018, User
Guide to Collection 6; Sulla-Menashe et al. 2019, Remote Sensing of Environment 222, 183):

1. A cell holds a mixture, and the legend says what a mixture is called: the IGBP rules of the user
   guide's table 3 (`igbp_of`), so villages vanish and fields beside woods become mosaics.
2. The signal of a cell comes from a larger area than the cell, and not from quite where it lies:
   fractions are blurred over about a kilometre and shifted by some 50 m (Tan et al. 2006, Remote
   Sensing of Environment 105, 98; Wolfe et al. 2002, Remote Sensing of Environment 83, 31).
3. The classifier confuses classes that look alike (`CONFUSED`), in patches: with what it takes from
   the others, close to the 26 % that the product's own cross-validation finds wrong.

Not modelled: MODIS's sinusoidal grid (cells lie at multiples of 500 m in UTM) and changes by year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from lcengine.simulate.covers import LEGEND
from lcengine.simulate.rasters import Bounds, pieces, write_cog
from lcengine.simulate.sentinel2 import EPSG
from lcengine.simulate.streams import Stream, generator, smooth_field
from lcengine.simulate.world import Job, world

CELL = 500
NODATA = 255
CLASSES = 17
FILES = ("igbp_500m.tif", "igbp_500m_ideal.tif")
"""The map, and what step 1 alone would give."""
_SAMPLE = 20
"""Metres between the points that a cell's fractions are counted from."""
_BLOCK = 20
"""Cells a side that are counted at a time."""
_BLUR = 0.41
"""Standard deviation of the blur in cells."""
_SHIFT = 50.0
"""Standard deviation of the geolocation error in metres."""

CONFUSED: Mapping[int, tuple[tuple[int, float], ...]] = {
    1: ((5, 0.065), (8, 0.02)),
    4: ((5, 0.055), (8, 0.025), (14, 0.01)),
    5: ((4, 0.035), (1, 0.02), (8, 0.02)),
    7: ((10, 0.075), (9, 0.035), (16, 0.02)),
    8: ((9, 0.05), (5, 0.025), (10, 0.02)),
    9: ((10, 0.065), (8, 0.035), (14, 0.02)),
    10: ((12, 0.05), (9, 0.035), (14, 0.02)),
    11: ((10, 0.065), (8, 0.035), (17, 0.03)),
    12: ((14, 0.03), (10, 0.025)),
    13: ((12, 0.03), (14, 0.02)),
    14: ((12, 0.09), (10, 0.035), (9, 0.02)),
    15: ((16, 0.01),),
    16: ((10, 0.02), (7, 0.02)),
    17: ((11, 0.01),),
}
"""For an IGBP class: (class it is taken for, how often). Our choice among classes that look alike
to MODIS: grassland, savanna and shrubs with each other and with cropland, mosaics with cropland,
mixed with pure forests, wetland with its neighbours. Only their sum is held against a figure."""


def igbp_of(fractions: NDArray[np.float32]) -> NDArray[np.uint8]:
    """IGBP class, uint8 (…,), of mixtures: fractions (…, 18) by IGBP class of the pure covers.

    Built-up from 30 %, water, snow and barren ground from 60 % (barren: less than 10 % vegetation),
    tree cover of 60 % forest (mixed where neither kind has 60 % of the trees), 30 % woody savanna,
    10 % savanna; wetland from 30 %; cropland from 60 %, mosaic from 40 % (User Guide, table 3).
    Trees count among what is not cropland. What is left is the most frequent open cover.
    """
    f = np.moveaxis(fractions, -1, 0)
    needles, leaves = f[1], f[4]
    trees = needles + leaves + 0.2 * f[9]
    pure = np.maximum(trees, 1e-6)
    forest = np.where(needles >= 0.6 * pure, 1, np.where(leaves >= 0.6 * pure, 4, 5))
    open_covers = np.stack([f[7], f[10], f[12], f[16], f[9]])
    rest = np.array([7, 10, 12, 16, 9])[open_covers.argmax(axis=0)]
    rules = [
        (f[13] >= 0.3, 13),
        (f[17] >= 0.6, 17),
        (f[15] >= 0.6, 15),
        (f[11] >= 0.3, 11),
        (f[12] >= 0.6, 12),
        (trees >= 0.6, forest),
        ((f[12] >= 0.4) & (f[12] < 0.6), 14),
        (f[16] >= 0.6, 16),
        (f[7] >= 0.6, 7),
        (trees >= 0.3, 8),
        (trees >= 0.1, 9),
    ]
    conditions, classes = zip(*rules, strict=True)
    return np.asarray(np.select(conditions, classes, rest), dtype=np.uint8)


def confuse(classes: NDArray[np.uint8], rank: NDArray[np.float32], seed: int) -> NDArray[np.uint8]:
    """Classes with the classifier's errors; `rank` (same shape) is uniform and smooth in space.

    Where the rank is below a class's total error it is taken for another; which one is drawn.
    """
    out = classes.copy()
    draw = generator(seed, Stream.COARSE, 1).random(classes.shape)
    for code, mistakes in CONFUSED.items():
        total = sum(share for _, share in mistakes)
        wrong = (classes == code) & (rank < total)
        steps = np.cumsum([share for _, share in mistakes]) / total
        other = np.array([taken for taken, _ in mistakes], np.uint8)
        index = np.minimum(np.searchsorted(steps, draw[wrong], side="right"), len(mistakes) - 1)
        out[wrong] = other[index]
    return out


@dataclass(frozen=True)
class CoarseLabels(Job):
    """The job that writes the coarse labels of a world."""

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write `FILES` into `labels/` below `root`; no STAC items."""
        folder = root / "labels"
        folder.mkdir(parents=True, exist_ok=True)
        cells, bounds = self.fractions()
        inside = cells.sum(axis=-1) >= 0.5
        ideal = igbp_of(cells / np.maximum(cells.sum(axis=-1, keepdims=True), 1e-6))
        shift = generator(self.options.seed, Stream.COARSE, 0).normal(0.0, _SHIFT, 2)
        moved, _ = self.fractions((float(shift[0]), float(shift[1])))
        seen = gaussian_filter(moved, (_BLUR, _BLUR, 0), mode="constant")
        seen /= np.maximum(seen.sum(axis=-1, keepdims=True), 1e-6)
        labels = confuse(igbp_of(seen), self.rank(inside.shape), self.options.seed)
        for name, classes in zip(FILES, (labels, ideal), strict=True):
            known = np.where(inside, classes, NODATA).astype(np.uint8)
            write_cog(folder / name, known, EPSG, bounds, NODATA)
        return []

    def fractions(
        self, shift: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[NDArray[np.float32], Bounds]:
        """Share of every cell's area (row, column, 18) per IGBP class, and the cells' bounds.

        `shift`: metres east and north from a cell to the ground that is taken for it. What lies
        outside the world belongs to no class: the sum tells how much of a cell is inside. Counted
        block by block, so that memory holds only the cells.
        """
        landscape = world(self.options).landscape
        left, bottom, right, top = landscape.bounds
        bounds = (
            left // CELL * CELL, bottom // CELL * CELL,
            -(-right // CELL) * CELL, -(-top // CELL) * CELL,
        )  # fmt: skip
        igbp = np.zeros(256, np.uint8)
        igbp[[c.code for c in LEGEND]] = [c.igbp for c in LEGEND]
        shape = ((bounds[3] - bounds[1]) // CELL, (bounds[2] - bounds[0]) // CELL)
        out = np.zeros((*shape, CLASSES + 1), np.float32)
        for block in pieces(bounds, _BLOCK * CELL):
            x = np.arange(block[0], block[2], _SAMPLE) + _SAMPLE / 2
            y = np.arange(block[3], block[1], -_SAMPLE) - _SAMPLE / 2
            seen = landscape.units(
                np.clip(x + shift[0], left, right)[None, :],
                np.clip(y + shift[1], bottom, top)[:, None],
            )
            classes = igbp[landscape.code[seen]]
            outside = (x < left) | (x > right), (y < bottom) | (y > top)
            classes[:, outside[0]] = 0
            classes[outside[1]] = 0
            rows = slice((bounds[3] - block[3]) // CELL, (bounds[3] - block[1]) // CELL)
            cols = slice((block[0] - bounds[0]) // CELL, (block[2] - bounds[0]) // CELL)
            out[rows, cols] = _shares(classes)
        out[..., 0] = 0
        return out, bounds

    def rank(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Uniform numbers, float32, that neighbours partly share."""
        rng = generator(self.options.seed, Stream.COARSE, 2)
        field = smooth_field(rng, max(shape), scale=3.0, decay=2.5)[: shape[0], : shape[1]]
        return np.asarray(ndtr(field), dtype=np.float32)


def _shares(classes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of every class 0 to 17 in cells of CELL metres: (row, column, 18)."""
    n = CELL // _SAMPLE
    rows, cols = classes.shape[0] // n, classes.shape[1] // n
    cells = classes.reshape(rows, n, cols, n)
    counts = [(cells == c).mean(axis=(1, 3), dtype=np.float32) for c in range(CLASSES + 1)]
    return np.stack(counts, axis=-1)
