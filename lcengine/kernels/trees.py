"""Pixels through many decision trees: which leaf each one reaches, and what the leaves add up to.

A node is one uint64. Its upper half is the threshold as a key: float32 as an integer of the same
order. Its lower half holds the feature, in the bits from `shift` up, and the place of the left
child in the tree below; the right child comes next. A pixel goes left where `x <= threshold`. The
root is at 1, children lie behind their parents. A leaf is its own child, and its key, above that of
every number, is `LEAF` and the row of its values.

So a step is the same few instructions in every node, without a branch, and a pixel in a leaf stays
there: eight pixels walk in lockstep, and the processor has eight loads on their way instead of one.
All pixels of a block go through one tree before the next one, which then stays in the cache; the
block is as large as its scratch allows, because trees of a forest are larger than that.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel
from lcengine.kernels.scores import exp32

LEAF: Final = 0xFF800001
"""Key of a leaf with values in row 0: that of infinity, plus one."""
MOST_ROWS: Final = 2**32 - LEAF
"""Rows of values that fit into keys of leaves."""
SCRATCH: Final = 2**23
"""Bytes of features and sums of a block, which are streamed in order while a tree stays cached."""
LANES: Final = 8

NODES = npt.NDArray[np.uint64]
KEYS = npt.NDArray[np.uint32]
PLACES = npt.NDArray[np.int64]
FLOAT = npt.NDArray[np.float32]
DOUBLE = npt.NDArray[np.float64]

_LEAST: Final = np.float32(-87.0)
"""Where `exp32` ends: 1.6e-38."""


@kernel
def arrange(left: PLACES, right: PLACES, weight: DOUBLE, order: PLACES, links: PLACES) -> None:
    """Where the nodes of a tree lie: the heavier child first, so frequent ways share cache lines.

    `left`, `right`: (node,) children, -1 in leaves. `weight`: what went through in training.
    `order`, `links`: (node + 1,), by new place the old number, and the new place of the left child
    (its own in leaves); place 0 stays empty, so that siblings share a cache line.
    """
    waiting = np.empty(left.size + 1, np.int64)
    order[0] = links[0] = 0
    order[1] = 0
    waiting[0] = 1
    count, free = 1, 2
    while count > 0:
        count -= 1
        place = waiting[count]
        node = order[place]
        if left[node] < 0:
            links[place] = place
            continue
        order[free], order[free + 1] = left[node], right[node]
        links[place] = free
        heavy = 0 if weight[left[node]] >= weight[right[node]] else 1
        waiting[count], waiting[count + 1] = free + 1 - heavy, free + heavy
        count += 2
        free += 2


@kernel
def sound(nodes: NODES, starts: PLACES, shift: int, features: int, rows: int) -> bool:
    """Whether every way through the trees ends in a row of values, within their arrays."""
    mask = np.uint64((1 << shift) - 1)
    for tree in range(starts.size - 1):
        size = starts[tree + 1] - starts[tree]
        if size < 2:
            return False
        for place in range(1, size):
            node = nodes[starts[tree] + place]
            link = np.int64(node & mask)
            key = np.int64(node >> np.uint64(32))
            feature = np.int64((node & np.uint64(0xFFFFFFFF)) >> np.uint64(shift))
            if link == place:
                right = LEAF <= key < LEAF + rows
            else:
                right = place < link < size - 1 and key < LEAF
            if not right or feature >= features:
                return False
    return True


@kernel
def _step(
    tree: NODES, at: np.uint64, keys: KEYS, pixel: np.uint64, shift: np.uint64, mask: np.uint64
) -> np.uint64:
    """The next node of a pixel, whose features begin at `pixel`."""
    node = tree[at]
    feature = (node & np.uint64(0xFFFFFFFF)) >> shift
    threshold = node >> np.uint64(32)
    reached: np.uint64 = (node & mask) + np.uint64(np.uint64(keys[pixel + feature]) > threshold)
    return reached


@kernel
def _fall(tree: NODES, keys: KEYS, features: int, shift: int, rows: KEYS) -> None:
    """The row of values that each pixel of a block (a multiple of `LANES`) reaches in one tree."""
    bits = np.uint64(shift)
    mask = np.uint64((1 << shift) - 1)
    width = np.uint64(features)
    for pixel in range(0, rows.size, LANES):
        p0 = np.uint64(pixel) * width
        p1, p2, p3 = p0 + width, p0 + np.uint64(2) * width, p0 + np.uint64(3) * width
        p4 = p0 + np.uint64(4) * width
        p5, p6, p7 = p4 + width, p4 + np.uint64(2) * width, p4 + np.uint64(3) * width
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.uint64(1)
        moved = True
        while moved:
            b0 = _step(tree, a0, keys, p0, bits, mask)
            b1 = _step(tree, a1, keys, p1, bits, mask)
            b2 = _step(tree, a2, keys, p2, bits, mask)
            b3 = _step(tree, a3, keys, p3, bits, mask)
            b4 = _step(tree, a4, keys, p4, bits, mask)
            b5 = _step(tree, a5, keys, p5, bits, mask)
            b6 = _step(tree, a6, keys, p6, bits, mask)
            b7 = _step(tree, a7, keys, p7, bits, mask)
            first = (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3)
            moved = (first | (a4 ^ b4) | (a5 ^ b5) | (a6 ^ b6) | (a7 ^ b7)) != np.uint64(0)
            a0, a1, a2, a3, a4, a5, a6, a7 = b0, b1, b2, b3, b4, b5, b6, b7
        for lane, at in enumerate((a0, a1, a2, a3, a4, a5, a6, a7)):
            rows[pixel + lane] = np.uint32((tree[at] >> np.uint64(32)) - np.uint64(LEAF))


@kernel
def _load(features: FLOAT, start: int, count: int, keys: KEYS) -> None:
    """Keys (pixel * feature,) of a block of (feature, pixel); pixels beyond `count` are 0.

    NaN is treated as ±infinity.
    """
    width = features.shape[0]
    values = keys.view(np.float32)
    values[:] = 0
    for feature in range(width):
        for pixel in range(count):
            values[pixel * width + feature] = features[feature, start + pixel] + np.float32(0)
    most = np.uint32(LEAF - 1)
    for place in range(keys.size):
        bits = keys[place]
        negative = bits >> np.uint32(31) != 0
        keys[place] = min(~bits if negative else bits | np.uint32(0x80000000), most)


@kernel
def _block(pixels: int, bytes_each: int) -> int:
    """Pixels of a block, a multiple of `LANES`."""
    most = max(SCRATCH // bytes_each, LANES)
    return (min(max(pixels, 1), most) + LANES - 1) // LANES * LANES


@kernel
def votes(
    nodes: NODES, starts: PLACES, values: DOUBLE, shift: int, features: FLOAT, out: FLOAT
) -> None:
    """Mean over trees of the values (row, class) that pixels reach, (class, pixel) float32.

    Summed in float64 in the order of the trees, as scikit-learn's forests do it on one thread.
    `features`: (feature, pixel) float32, finite.
    """
    width, pixels = features.shape
    classes, trees = values.shape[1], starts.size - 1
    block = _block(pixels, 4 * width + 8 * classes + 4)
    keys = np.empty(block * width, np.uint32)
    rows = np.empty(block, np.uint32)
    sums = np.empty((block, classes), np.float64)
    for start in range(0, pixels, block):
        count = min(block, pixels - start)
        _load(features, start, count, keys)
        sums[:] = 0
        for tree in range(trees):
            _fall(nodes[starts[tree] : starts[tree + 1]], keys, width, shift, rows)
            for pixel in range(count):
                row = rows[pixel]
                for index in range(classes):
                    sums[pixel, index] += values[row, index]
        for index in range(classes):
            for pixel in range(count):
                out[index, start + pixel] = sums[pixel, index] / trees


@kernel
def margins(
    nodes: NODES,
    starts: PLACES,
    values: DOUBLE,
    shift: int,
    features: FLOAT,
    group: PLACES,
    out: DOUBLE,
) -> None:
    """Add to `out` (class, pixel) what pixels reach in each tree, in the class that it is of.

    `values`: (row, 1). `group`: (tree,) its class. Summed in float64 in the order of the trees.
    """
    width, pixels = features.shape
    block = _block(pixels, 4 * width + 8 * out.shape[0] + 4)
    keys = np.empty(block * width, np.uint32)
    rows = np.empty(block, np.uint32)
    for start in range(0, pixels, block):
        count = min(block, pixels - start)
        _load(features, start, count, keys)
        for tree in range(starts.size - 1):
            _fall(nodes[starts[tree] : starts[tree + 1]], keys, width, shift, rows)
            index = group[tree]
            for pixel in range(count):
                out[index, start + pixel] += values[rows[pixel], 0]


@kernel
def softmax(margins: DOUBLE, out: FLOAT) -> None:
    """Probabilities (class, pixel) float32 of margins (class, pixel), within 1e-6."""
    classes, pixels = margins.shape
    shares = np.empty(classes, np.float64)
    for pixel in range(pixels):
        most = margins[0, pixel]
        for index in range(1, classes):
            most = max(most, margins[index, pixel])
        total = 0.0
        for index in range(classes):
            below = np.float32(margins[index, pixel] - most)
            shares[index] = exp32(below) if below > _LEAST else 0.0
            total += shares[index]
        for index in range(classes):
            out[index, pixel] = shares[index] / total
