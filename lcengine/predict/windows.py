"""Which pixels a model sees together: a function of the product's pixels, whatever the tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lcengine.grid import Tile
from lcengine.locate import Window
from lcengine.models import ModelSpec

BLOCK = 512
"""Edge in pixels of what is read at once, where a model does not ask for more."""
BYTES = 2**26
"""Of the pixels read at once and their probabilities."""


def reads(spec: ModelSpec, shape: tuple[int, int], tile: Tile) -> Iterator[Window]:
    """What to read, one after another, to predict a tile of a raster of `shape`.

    Pixel models get the tile itself in blocks, others whole windows of their lattice, which begins
    at the raster's upper-left pixel and is cut at its other edges.
    """
    step = edge(spec)
    bottom, right = tile.y0 + tile.height, tile.x0 + tile.width
    top, left = (start - start % spec.patch for start in (tile.y0, tile.x0))
    if spec.patch > 1:
        bottom = min(-(-bottom // spec.patch) * spec.patch, shape[0])
        right = min(-(-right // spec.patch) * spec.patch, shape[1])
    for y in range(top, bottom, step):
        for x in range(left, right, step):
            yield Window(y, x, min(step, bottom - y), min(step, right - x))


def windows(spec: ModelSpec, read: Window) -> Iterator[Window]:
    """What goes into the model together, of what was read."""
    if spec.patch == 1:
        yield read
        return
    for y in range(read.y0, read.y0 + read.height, spec.patch):
        for x in range(read.x0, read.x0 + read.width, spec.patch):
            height = min(spec.patch, read.y0 + read.height - y)
            yield Window(y, x, height, min(spec.patch, read.x0 + read.width - x))


def edge(spec: ModelSpec) -> int:
    """Edge in pixels of a read: within `BLOCK` and `BYTES`, and whole windows of the model."""
    stored = sum(math.prod(e.lead) * np.dtype(e.dtype).itemsize for e in spec.inputs)
    each = stored + 4 * len(spec.legend.classes)
    fits = min(BLOCK, max(math.isqrt(BYTES // each), 16))
    return max(fits // spec.patch, 1) * spec.patch


def common(window: Window, tile: Tile) -> Window | None:
    """Pixels that a window shares with a tile."""
    top, left = max(window.y0, tile.y0), max(window.x0, tile.x0)
    bottom = min(window.y0 + window.height, tile.y0 + tile.height)
    right = min(window.x0 + window.width, tile.x0 + tile.width)
    return Window(top, left, bottom - top, right - left) if top < bottom and left < right else None


def inside(window: Window, origin: Window | Tile) -> tuple[slice, slice]:
    """(rows, columns) of a window in an array whose upper-left pixel is that of `origin`."""
    top, left = window.y0 - origin.y0, window.x0 - origin.x0
    return slice(top, top + window.height), slice(left, left + window.width)
