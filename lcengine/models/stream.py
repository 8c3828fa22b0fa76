"""Labelled pixels of samples with their features, in batches that fit into memory.

Parts of some patches are read, their features made, and the pixels with a class that are observed
kept. What is drawn follows from the seed, a sample's number and a pixel's place in it alone, never
from the size of the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.features import Features
from lcengine.hashing import mixed
from lcengine.inputs import Arrays, observed
from lcengine.legends import IGNORE, Legend
from lcengine.samples.source import LABEL

if TYPE_CHECKING:
    from lcengine.samples.sampleset import SampleSet

FLOAT = npt.NDArray[np.float32]
NUMBERS = npt.NDArray[np.int64]
BYTES = npt.NDArray[np.uint8]

ClassWeight = Mapping[str, float] | Literal["balanced"] | None

KEYS: Final = 16
"""Bits of a pixel's key that decide whether it is drawn."""
PART: Final = 2**26
"""Most bytes of a part, whatever the memory: more is no faster."""


class Pixels(NamedTuple):
    """Labelled pixels.

    `x`: features (pixel, feature), C-contiguous, finite. `y`: places of their classes among
    `PixelStream.present`. `weight`: what a pixel counts in the loss.
    """

    x: FLOAT
    y: BYTES
    weight: FLOAT


@dataclass(frozen=True, eq=False)
class PixelStream:
    """The labelled pixels of a split; iterating gives all of them in batches, again and again.

    `present`: legend indices of the classes that are learned, by default those that there are;
    pixels of others are left out. `memory`: bytes that a batch, or a draw, may take while it is
    made. `say` hears of draws. `notes`: what a fit tells of itself, for `ModelSpec.training`.
    """

    samples: SampleSet
    split: str
    features: Features
    memory: int = 2**31
    seed: int = 0
    class_weight: ClassWeight = None
    chosen: tuple[int, ...] | None = None
    say: Callable[[str], None] = lambda _: None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self._members  # a split that is not there

    @property
    def legend(self) -> Legend:
        """All classes, learned or not."""
        return self.samples.legend

    @cached_property
    def counts(self) -> NUMBERS:
        """Pixels with a class that are observed, per class of the legend, int64."""
        return np.asarray(self._keys.sum(axis=1))

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Legend indices of the classes; `y` counts in them."""
        if self.chosen is not None:
            return self.chosen
        return tuple(int(index) for index in np.flatnonzero(self.counts))

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """What a pixel of each present class counts."""
        return class_weights(
            self.class_weight, self.legend, self.present, self.counts[list(self.present)]
        )

    def __iter__(self) -> Iterator[Pixels]:
        for part in self.parts:
            yield self._batch(part)

    @property
    def parts(self) -> list[NUMBERS]:
        """Numbers of the samples that are read together."""
        size = self.samples.patch**2
        stored = sum(
            math.prod(entry.lead) * np.dtype(entry.dtype).itemsize for entry in self.samples.inputs
        )
        # Stored numbers, once more as pixels, what of them is there; features twice; keys.
        patch = size * (3 * stored + 8 * len(self.features.names) + 64)
        step = max(1, min(self.memory // 8, PART) // patch)
        return [self._members[i : i + step] for i in range(0, len(self._members), step)]

    def windows(self, epoch: int) -> Iterator[Pixels]:
        """All pixels once, shuffled: parts in random order, pixels among those of some parts.

        A window, while it is shuffled and learned from, takes at most half of the memory.
        """
        rng = np.random.default_rng([self.seed, epoch])
        # Twice a pixel, and its class as scikit-learn has it: a number for each class.
        row = 8 * len(self.features.names) + 10 * len(self.present) + 20
        most = max(1, self.memory // 2 // row)
        waiting: list[Pixels] = []
        for place in rng.permutation(len(self.parts)):
            batch = self._batch(self.parts[int(place)])
            if waiting and sum(len(w.y) for w in waiting) + len(batch.y) > most:
                yield _shuffled(waiting, rng)
            waiting.append(batch)
        if sum(len(w.y) for w in waiting):
            yield _shuffled(waiting, rng)

    def drawn(self, copies: float = 2.0, beside: float = 0.0, alike: float = 0.5) -> Pixels:
        """All pixels, or as many as fit into the memory, drawn by class; see `draw`.

        A fit that takes `copies` times the features, and `beside` bytes per pixel more, stays
        within the memory.
        """
        return self.draw(copies * 4 * len(self.features.names) + beside + 24, alike).together()

    def draw(self, row: float, alike: float = 0.5) -> Draw:
        """As many pixels as fit into the memory with `row` bytes each; says so if not all do.

        The part `alike` of a draw is shared out among the classes alike, as far as they have
        pixels, and the rest by their pixels; weights make up for it, so that the loss expected is
        that of all pixels.
        """
        counts = self.counts[list(self.present)]
        cap = max(len(self.present), int(self.memory / row))
        limits = self._limits(quotas(counts, cap, alike))
        took = np.array(
            [self._keys[i, :limit].sum() for i, limit in zip(self.present, limits, strict=True)]
        )
        self._note(counts, took)
        factors = self.weights * (counts / np.maximum(took, 1)) * (took.sum() / counts.sum())
        return Draw(self, int(took.sum()), limits, factors)

    def other(self, split: str) -> PixelStream | None:
        """Another split with the same classes; None where the samples have none, or no pixel."""
        if split not in self.samples.splits:
            return None
        found = replace(self, split=split, chosen=self.present, class_weight=None, notes={})
        return found if found.counts[list(self.present)].sum() else None

    # ------------------------------------------------------------------------------- how it works

    @cached_property
    def _members(self) -> NUMBERS:
        return self.samples.split(self.split)

    @cached_property
    def _places(self) -> BYTES:
        """Of each label 0 … 255 its place in `present`, or IGNORE."""
        out = np.full(256, IGNORE, np.uint8)
        out[list(self.present)] = np.arange(len(self.present))
        return out

    @cached_property
    def _keys(self) -> NUMBERS:
        """Pixels (class of the legend, first bits of the key): one pass over labels and inputs."""
        classes = len(self.legend.classes)
        out = np.zeros((classes, 2**KEYS), np.int64)
        for part in self.parts:
            arrays = self.samples.read(part)
            label = self._labels(arrays)
            bins = label.astype(np.int64) << KEYS | self._bins(part)
            kept = bins[label != IGNORE]
            out += np.bincount(kept, minlength=out.size).reshape(out.shape)
        return out

    def _labels(self, arrays: Arrays) -> BYTES:
        """Labels (sample, y, x); IGNORE where a pixel is not observed."""
        seen = observed(self.samples.inputs, arrays)
        return np.where(seen, arrays[LABEL], np.uint8(IGNORE))

    def _bins(self, part: NUMBERS) -> NUMBERS:
        """First bits of the pixels' keys (sample, y, x)."""
        size = self.samples.patch
        places = np.arange(size * size, dtype=np.int64).reshape(1, size, size)
        keys = mixed(self.seed, part[:, None, None], places)
        return (keys >> np.uint64(64 - KEYS)).astype(np.int64)

    def _batch(self, part: NUMBERS, limits: NUMBERS | None = None) -> Pixels:
        """Labelled pixels of some samples; with `limits` those whose key is below its class's."""
        arrays = self.samples.read(part)
        place = self._places[self._labels(arrays)]
        kept = place != IGNORE
        if limits is not None:
            kept &= self._bins(part) < np.append(limits, np.zeros(256, np.int64))[place]
        y = place[kept]
        # Features of these pixels alone: labels may be few, and a pixel's bits know no company.
        at: Any = (..., *np.nonzero(kept))
        rows = self.features.compute(
            {
                entry.name: np.moveaxis(arrays[entry.name], 0, -3)[at][None, ..., None, :]
                for entry in self.samples.inputs
            }
        )
        x = np.ascontiguousarray(rows.reshape(len(rows), len(y)).T)
        return Pixels(x, y, self.weights.astype(np.float32)[y])

    def _limits(self, wanted: NUMBERS) -> NUMBERS:
        """Of each present class the end of the keys that have at most `wanted` pixels."""
        out = []
        for index, most in zip(self.present, wanted, strict=True):
            sums = np.cumsum(self._keys[index])
            some = np.searchsorted(sums, 0, "right") + 1  # one pixel at least
            out.append(max(int(np.searchsorted(sums, most, "right")), int(some)))
        return np.array(out, np.int64)

    def _note(self, counts: NUMBERS, took: NUMBERS) -> None:
        names = [self.legend.names[index] for index in self.present]
        self.notes["drawn"] = {name: int(n) for name, n in zip(names, took, strict=True)}
        if took.sum() < counts.sum():
            shares = ", ".join(
                f"{name} {n:,} of {all_:,}"
                for name, n, all_ in zip(names, took, counts, strict=True)
            )
            self.say(
                f"{counts.sum():,} labelled {self.split} pixels, {took.sum():,} drawn, as many as "
                f"fit into {self.memory / 2**20:,.0f} MiB: {shares}"
            )


@dataclass(frozen=True, eq=False)
class Draw:
    """The `size` pixels of a stream below `limits`; iterating gives them in batches, again."""

    stream: PixelStream
    size: int
    limits: NUMBERS
    factors: npt.NDArray[np.float64]

    def __iter__(self) -> Iterator[Pixels]:
        factors = self.factors.astype(np.float32)
        for part in self.stream.parts:
            x, y, _ = self.stream._batch(part, self.limits)
            yield Pixels(x, y, factors[y])

    def together(self) -> Pixels:
        """All of them, in the order of samples and places."""
        x = np.empty((self.size, len(self.stream.features.names)), np.float32)
        y, weight = np.empty(self.size, np.uint8), np.empty(self.size, np.float32)
        start = 0
        for batch in self:
            stop = start + len(batch.y)
            x[start:stop], y[start:stop], weight[start:stop] = batch
            start = stop
        return Pixels(x, y, weight)


def quotas(counts: NUMBERS, cap: int, alike: float = 0.5) -> NUMBERS:
    """How many pixels of each class are drawn: `cap` in all, and one of a class that had none.

    The part `alike` is shared out alike, the rest by the counts; what a class cannot take goes to
    the others.
    """
    if counts.sum() <= cap:
        return counts.copy()
    wanted = np.zeros(len(counts), np.float64)
    for _ in range(len(counts)):
        room = wanted < counts
        left = cap - wanted.sum()
        by_count = np.where(room, counts, 0) / counts[room].sum()
        wanted += left * ((1 - alike) * by_count + alike * room / room.sum())
        if (wanted <= counts).all():
            break
        wanted = np.minimum(wanted, counts)
    return np.minimum(np.maximum(np.floor(wanted + 1e-9).astype(np.int64), 1), counts)


def class_weights(
    given: ClassWeight, legend: Legend, present: Sequence[int], counts: NUMBERS
) -> npt.NDArray[np.float64]:
    """What a pixel of each present class counts in the loss.

    "balanced": n / (classes · n of the class), as scikit-learn has it. By name: others weigh 1.
    `InputError` for names of no class, and weights that are not finite or not above 0.
    """
    if given is None:
        return np.ones(len(present))
    if isinstance(given, str):
        if given != "balanced":
            raise InputError(
                f"class_weight is {given!r}, expected 'balanced', or a weight by name of class"
            )
        return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)))
    codes = {legend.find(name).code: weight for name, weight in given.items()}
    wrong = [weight for weight in codes.values() if not 0 < weight < math.inf]
    if wrong:
        raise InputError(f"class_weight has {wrong}, expected finite numbers above 0")
    return np.array([codes.get(legend.codes[index], 1.0) for index in present])


def _shuffled(batches: list[Pixels], rng: np.random.Generator) -> Pixels:
    """All pixels of batches in random order; the batches are used up."""
    total = sum(len(batch.y) for batch in batches)
    places = rng.permutation(total)
    x = np.empty((total, batches[0].x.shape[1]), np.float32)
    y, weight = np.empty(total, np.uint8), np.empty(total, np.float32)
    start = 0
    while batches:
        batch = batches.pop(0)
        to = places[start : start + len(batch.y)]
        x[to], y[to], weight[to] = batch
        start += len(batch.y)
    return Pixels(x, y, weight)
