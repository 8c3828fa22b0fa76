"""Labelled segments as training data: the bag of colours of each, and the class of most pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.features import Division, Vocabulary
from lcengine.hashing import mixed
from lcengine.inputs import Arrays
from lcengine.legends import IGNORE, Legend
from lcengine.models.predictor import Training
from lcengine.models.stream import Pixels, class_weights

BATCH: Final = 4096
"""Segments of a batch, for models that learn by batches."""

FLOAT = npt.NDArray[np.float32]
BYTES = npt.NDArray[np.uint8]
NUMBERS = npt.NDArray[np.int64]


class _Names(NamedTuple):
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Segments:
    """What estimators read of `PixelStream`, with segments for pixels.

    `x` (segment, colour) float32 shares; `labels` legend indices; `chosen`: classes to learn, by
    default those that there are.
    """

    x: FLOAT
    labels: BYTES
    legend: Legend
    training: Training
    chosen: tuple[int, ...] | None = None
    later: Segments | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> _Names:
        """What a segment is described by."""
        return _Names(tuple(f"color {k}" for k in range(self.x.shape[1])))

    @property
    def memory(self) -> int:
        """Bytes that a fit may take."""
        return self.training.memory

    @property
    def seed(self) -> int:
        """Decides what is drawn."""
        return self.training.seed

    @cached_property
    def counts(self) -> NUMBERS:
        """Segments per class of the legend."""
        return np.bincount(self.labels, minlength=len(self.legend.classes)).astype(np.int64)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Legend indices of the classes; `y` counts in them."""
        return self.chosen or tuple(int(index) for index in np.flatnonzero(self.counts))

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """What a segment of each present class counts."""
        return class_weights(
            self.training.class_weight,
            self.legend,
            self.present,
            self.counts[list(self.present)],
        )

    @cached_property
    def _all(self) -> Pixels:
        places = np.full(256, IGNORE, np.uint8)
        places[list(self.present)] = np.arange(len(self.present))
        y = places[self.labels]
        kept = y != IGNORE
        x, y = (self.x, y) if kept.all() else (self.x[kept], y[kept])
        return Pixels(x, y, self.weights.astype(np.float32)[y])

    def drawn(self, copies: float = 2.0, beside: float = 0.0, alike: float = 0.5) -> Pixels:
        """All segments: they were drawn when they were made."""
        return self._all

    def draw(self, row: float, alike: float = 0.5) -> Segments:
        """All segments, in batches."""
        return self

    def __iter__(self) -> Iterator[Pixels]:
        for i in range(0, len(self._all.y), BATCH):
            yield _taken(self._all, slice(i, i + BATCH))

    def windows(self, epoch: int) -> Iterator[Pixels]:
        """All segments once, shuffled."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._all.y))
        yield _taken(self._all, order)

    def other(self, split: str) -> Segments | None:
        """Those of the validation split with the same classes, where there are any."""
        if split != "val" or self.later is None or not len(self.later.labels):
            return None
        plain = Training(memory=self.memory, seed=self.seed)
        return Segments(self.later.x, self.later.labels, self.legend, plain, self.present)


class Block(NamedTuple):
    """Windows of one shape."""

    numbers: NUMBERS
    arrays: Arrays
    """Stored numbers (n, [time,] band, y, x) of the vocabulary's inputs."""
    valid: npt.NDArray[np.bool_]
    labels: BYTES
    """(n, y, x), 255 = ignore."""


def collected(
    blocks: Iterable[Block],
    vocabulary: Vocabulary,
    division: Division,
    legend: Legend,
    training: Training,
) -> Segments:
    """The labelled segments of windows; only their histograms are kept.

    Of more than fit into half of the memory those are kept that a hash of the seed, the window and
    the segment puts first, and `notes` say so.
    """
    classes = len(legend.classes)
    cap = max(classes, training.memory // (8 * len(vocabulary.colors)))
    kept = _Kept(cap, training.seed, len(vocabulary.colors))

    def one(window: Block) -> tuple[int, FLOAT, BYTES]:
        bag = next(vocabulary.bags(window.arrays, window.valid, division))
        labels = majorities(bag.segments, window.labels[0], len(bag.counts), classes)
        return int(window.numbers[0]), bag.histograms, labels

    with ThreadPoolExecutor(training.threads, thread_name_prefix="lcengine-segments") as pool:
        for block in blocks:
            for found in pool.map(one, _single(block)):
                kept.add(*found)
    kept.trim()
    out = Segments(np.concatenate(kept.x), np.concatenate(kept.labels), legend, training)
    if kept.seen > cap:
        out.notes["said"] = (
            f"{kept.seen:,} labelled segments, {cap:,} drawn, as many as fit into "
            f"{training.memory / 2**20:,.0f} MiB"
        )
    return out


def majorities(segments: BYTES, labels: BYTES, count: int, classes: int) -> BYTES:
    """The class of most labelled pixels of each segment, of a tie the first; 255 without any."""
    there = (segments < count) & (labels < classes)
    keys = segments[there].astype(np.intp) * classes + labels[there]
    votes = np.bincount(keys, minlength=count * classes).reshape(count, classes)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), IGNORE).astype(np.uint8)


def _single(block: Block) -> Iterator[Block]:
    for i in range(len(block.numbers)):
        one = slice(i, i + 1)
        arrays = {name: values[one] for name, values in block.arrays.items()}
        yield Block(block.numbers[one], arrays, block.valid[one], block.labels[one])


def _taken(pixels: Pixels, which: slice | NUMBERS) -> Pixels:
    return Pixels(pixels.x[which], pixels.y[which], pixels.weight[which])


class _Kept:
    """Segments with the smallest keys, at most `cap`, in the order of their windows."""

    def __init__(self, cap: int, seed: int, width: int) -> None:
        self.cap, self.seed, self.seen, self.held = cap, seed, 0, 0
        self.x: list[FLOAT] = [np.empty((0, width), np.float32)]
        self.labels: list[BYTES] = [np.empty(0, np.uint8)]
        self.keys: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]

    def add(self, number: int, x: FLOAT, labels: BYTES) -> None:
        there = labels != IGNORE
        keys = mixed(self.seed, number, np.arange(len(labels), dtype=np.int64))
        self.x.append(x[there])
        self.labels.append(labels[there])
        self.keys.append(keys[there])
        found = int(there.sum())
        self.seen += found
        self.held += found
        if self.held > 2 * self.cap:
            self.trim()

    def trim(self) -> None:
        if self.held <= self.cap:
            return
        keys = np.concatenate(self.keys)
        kept = keys <= np.partition(keys, self.cap - 1)[self.cap - 1]
        self.x = [np.concatenate(self.x)[kept]]
        self.labels = [np.concatenate(self.labels)[kept]]
        self.keys = [keys[kept]]
        self.held = int(kept.sum())
