"""Decision trees of any library as one kind of arrays, which `lcengine.kernels.trees` walks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels import trees as kernels
from lcengine.models.predictor import State, array

FLOAT = npt.NDArray[np.float32]
DOUBLE = npt.NDArray[np.float64]
PLACES = npt.NDArray[np.int64]

MOST_FEATURES: Final = 2**20
"""More leave too few bits for the places of children."""


class Tree(NamedTuple):
    """A tree as libraries know it: node 0 is the root, and `x <= threshold` goes left.

    `left`, `right`: (node,) children, -1 in leaves. `feature`: (node,). `threshold`: (node,)
    float64. `weight`: (node,) of training data. `values`: (node, class), or (node, 1), of leaves.
    """

    left: PLACES
    right: PLACES
    feature: PLACES
    threshold: DOUBLE
    weight: DOUBLE
    values: DOUBLE


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees behind each other, see `lcengine.kernels.trees`.

    `nodes`: (node,) uint64. `starts`: (tree + 1,) int64. `values`: (row, class) float64 that leaves
    refer to. `features`: how many a pixel has.
    """

    nodes: npt.NDArray[np.uint64]
    starts: PLACES
    values: DOUBLE
    features: int

    def votes(self, features: FLOAT) -> FLOAT:
        """Mean of the leaves (class, pixel) float32, of (feature, pixel) float32."""
        out = np.empty((self.values.shape[1], features.shape[1]), np.float32)
        kernels.votes(*self._arrays, self._taken(features), out)
        return out

    def softmax(self, features: FLOAT, group: PLACES, base: DOUBLE) -> FLOAT:
        """Softmax (class, pixel) float32 of `base` (class,) plus trees, each of class `group`."""
        margins = np.repeat(base[:, None], features.shape[1], axis=1)
        kernels.margins(*self._arrays, self._taken(features), group, margins)
        out = np.empty(margins.shape, np.float32)
        kernels.softmax(margins, out)
        return out

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that `restore` makes them of again."""
        return {
            "nodes": self.nodes,
            "starts": self.starts,
            "values": self.values,
            "features": np.array([self.features], np.int64),
        }

    @classmethod
    def restore(cls, arrays: State) -> Trees:
        """Inverse of `state`; `InputError` for arrays that lead out of themselves."""
        nodes = array(arrays, "nodes", np.uint64, 1)
        starts = array(arrays, "starts", np.int64, 1)
        values = array(arrays, "values", np.float64, 2)
        features = int(array(arrays, "features", np.int64, 1).sum())
        found = cls(nodes, starts, values, features)
        ends = starts.size > 1 and starts[0] == 0 and starts[-1] == nodes.size
        ends = ends and bool((np.diff(starts) > 0).all())
        if not (ends and 0 < features <= MOST_FEATURES and found._sound()):
            raise InputError("the model's trees lead out of their arrays; copy the model again")
        return found

    @property
    def _shift(self) -> int:
        return _shift(self.features)

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.uint64], PLACES, DOUBLE, int]:
        return self.nodes, self.starts, self.values, self._shift

    def _sound(self) -> bool:
        return kernels.sound(self.nodes, self.starts, self._shift, self.features, len(self.values))

    def _taken(self, features: FLOAT) -> FLOAT:
        if len(features) != self.features:
            raise InputError(
                f"pixels have {len(features)} features, the model was trained on {self.features}"
            )
        return np.ascontiguousarray(features, np.float32)


@dataclass
class Packing:
    """Trees that are being packed, so that those of a library need not be kept."""

    features: int
    _nodes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _values: list[DOUBLE] = field(default_factory=list)
    _rows: int = 0

    def add(self, tree: Tree) -> None:
        """Append a tree; `InputError` where its nodes, or all leaves, cannot be numbered."""
        size, shift = len(tree.left) + 1, _shift(self.features)
        order, links = np.empty(size, np.int64), np.empty(size, np.int64)
        kernels.arrange(tree.left, tree.right, tree.weight, order, links)
        leaf = tree.left[order] < 0
        rows, values = _distinct(tree.values[order[leaf]])
        keys = _keys(_below(tree.threshold[order])).astype(np.uint64)
        keys[leaf] = rows + (kernels.LEAF + self._rows)
        self._rows += len(values)
        if size > 2**shift or self._rows > kernels.MOST_ROWS:
            raise InputError(
                f"a tree has {size:,} nodes (of {2**shift:,}), or all leaves {self._rows:,} values "
                f"(of {kernels.MOST_ROWS:,}); ask for larger leaves (min_leaf) or shallower trees"
            )
        feature = np.where(leaf, 0, tree.feature[order]).astype(np.uint64)
        links_ = links.astype(np.uint64)
        self._nodes.append(keys << np.uint64(32) | feature << np.uint64(shift) | links_)
        self._values.append(values)

    def done(self) -> Trees:
        """The trees so far."""
        starts = np.cumsum([0, *map(len, self._nodes)], dtype=np.int64)
        nodes, values = np.concatenate(self._nodes), np.concatenate(self._values)
        return Trees(nodes, starts, values, self.features)


def _shift(features: int) -> int:
    """Bits for the place of a child; the rest of 32 is for the feature."""
    return 32 - max(1, (features - 1).bit_length())


def _below(thresholds: DOUBLE) -> FLOAT:
    """The largest float32 that are not above: they part float32 numbers alike."""
    near = thresholds.astype(np.float32)
    lower = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > thresholds, lower, near)


def _keys(values: FLOAT) -> npt.NDArray[np.uint32]:
    """Integers in the order of the numbers; −0 is 0."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31 != 0, ~bits, bits | np.uint32(2**31))


def _distinct(values: DOUBLE) -> tuple[npt.NDArray[np.uint64], DOUBLE]:
    """The row of each leaf in a table, and the table of rows that differ.

    Most leaves of a fully grown forest are of one class: these need no sorting.
    """
    classes = values.shape[1]
    if classes == 1:
        return np.arange(len(values), dtype=np.uint64), values
    rows = values.argmax(axis=1)
    mixed = values.max(axis=1) != 1
    table, places = np.unique(values[mixed], axis=0, return_inverse=True)
    rows[mixed] = classes + places.reshape(-1)
    return rows.astype(np.uint64), np.concatenate([np.eye(classes), table])
