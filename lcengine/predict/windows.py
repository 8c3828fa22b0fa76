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
"""Of the pixels read at once."""
PIXELS = 2**16
"""Given to a model of pixels at once: its features take more than what they are made of."""


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
    height = width = spec.patch
    if spec.patch == 1:
        height, width = max(PIXELS // read.width, 1), read.width
    bottom, right = read.y0 + read.height, read.x0 + read.width
    for y in range(read.y0, bottom, height):
        for x in range(read.x0, right, width):
            yield Window(y, x, min(height, bottom - y), min(width, right - x))


def edge(spec: ModelSpec) -> int:
    """Edge in pixels of a read: within `BLOCK` and `BYTES`, and whole windows of the model.

    A power of two for models of pixels, so that few chunks of a product are read twice.
    """
    each = sum(math.prod(e.lead) * np.dtype(e.dtype).itemsize for e in spec.inputs)
    fits = min(BLOCK, math.isqrt(BYTES // each))
    if spec.patch > 1:
        return max(fits // spec.patch, 1) * spec.patch
    return 1 << max(fits.bit_length() - 1, 4)


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
