"""Batches for training: drawn, read, turned and normalised by threads while the model works.

What a batch holds follows from the seed, the epoch and the batch's number alone, whatever the
threads. A batch is decoded into memory of its own, and turned and normalised in the same pass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.inputs import Arrays, Input, observed
from lcengine.kernels.patches import Scaling, Views, turn, zoom_bilinear, zoom_nearest
from lcengine.legends import IGNORE
from lcengine.samples.augment import PLAIN, Augment
from lcengine.samples.sampleset import SampleSet
from lcengine.samples.source import LABEL

INDEX: Final = "index"
"""Name of the samples' numbers in a batch, int64 (sample,)."""
TRAIN: Final = "train"
SCRATCH: Final = 2**20
"""Bytes of stored samples that are decoded before they are turned and normalised."""

NUMBERS = npt.NDArray[np.int64]
Seen = npt.NDArray[np.bool_] | None
"""(sample, y, x) of stored patches where all inputs before have something; None: not asked for."""


@dataclass(eq=False)
class Loader:
    """Batches of a split, each a dict of arrays that nothing else holds.

    Per input float32 (sample, [time,] band, y, x), "label" uint8 (sample, y, x) with 255 = ignore,
    "index" int64 (sample,): the samples' numbers.

    `normalize`: inputs are (value - mean) / std of the training patches, missing values 0; without,
    they are as stored. `augment`: of the training split only, unless it says `anywhere`.
    `shuffle`: by default the training split only. Where chunks hold many small patches, chunks are
    shuffled, and samples among those of some 64 MiB of chunks, so that each is decoded once.
    `weights`: samples are drawn with replacement, by a weight for each sample of the split, or
    "balanced" by class (`SampleSet.balance`). `drop_last`: without the last batch where it is
    smaller. `threads` make batches, of which at most `prefetch` lie ready or are being made.
    `observed`: labels are 255 where an input has nothing (`lcengine.inputs.observed`): maps say
    nothing there.
    `share`: (rank, world) of a process that trains with others; it gets its part of every batch,
    and all parts together are the batch that one process alone would get.

    Iterating goes through one epoch after the other: 0, 1, …; `epoch(n)` is one of them, from any
    batch on. No thread is left when an iteration ends, is closed or fails.
    """

    samples: SampleSet
    split: str
    batch: int
    augment: Augment | None = None
    normalize: bool = True
    shuffle: bool | None = None
    weights: npt.ArrayLike | Literal["balanced"] | None = None
    seed: int = 0
    drop_last: bool = False
    threads: int = 2
    prefetch: int = 4
    observed: bool = False
    share: tuple[int, int] = (0, 1)
    passed: int = field(default=0, init=False)
    """The epoch that iterating begins next."""

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        rank, world = self.share
        if not 0 <= rank < world:
            raise InputError(f"share is {self.share}, expected (rank, world), rank below world")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected a whole number, 0 or more")
        if self.augment and self.split != TRAIN and not self.augment.anywhere:
            raise InputError(
                f"split {self.split!r} would be augmented, and only {TRAIN!r} is by default; "
                "leave augment out, or say Augment(anywhere=True)"
            )
        self._views.size(self.samples.patch)
        if self.normalize:
            for entry in self.samples.inputs:
                self._scaling(entry)
        _ = self._members, self._shares  # a split that is not there, weights that do not fit

    def __len__(self) -> int:
        """Batches in an epoch."""
        draws = len(self._members) * self._views.times
        return draws // self.batch if self.drop_last else -(-draws // self.batch)

    def __iter__(self) -> Iterator[Arrays]:
        self.passed += 1
        return self.epoch(self.passed - 1)

    def epoch(self, number: int, start: int = 0) -> Iterator[Arrays]:
        """The batches of an epoch, in order, from batch `start` on."""
        draws = self.order(number)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lcengine-loader")
        waiting: deque[Future[Arrays]] = deque()
        try:
            for place in range(start, len(self) + self.prefetch):
                if place < len(self):
                    part = draws[place * self.batch : (place + 1) * self.batch]
                    waiting.append(pool.submit(self._make, part, number, place))
                if place >= start + self.prefetch:
                    yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def order(self, epoch: int) -> NUMBERS:
        """Numbers of the samples drawn in an epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        times = self._views.times
        if self._shares is None:
            draws = np.repeat(self._members, times)
        else:
            places = np.searchsorted(self._shares, rng.random(len(self._members) * times), "right")
            draws = self._members[places]
        if not (self.split == TRAIN if self.shuffle is None else self.shuffle):
            return draws
        # What is dearest to decode twice decides.
        dearest = max(
            self.samples.rows.values(), key=lambda r: math.prod(r.shape[1:]) * r.dtype.itemsize
        )
        if dearest.chunk == 1:
            return rng.permutation(draws)
        return mixed(draws, dearest.chunk, dearest.window, rng)

    # ------------------------------------------------------------------------------ what it draws

    @cached_property
    def _members(self) -> NUMBERS:
        return self.samples.split(self.split)

    @cached_property
    def _views(self) -> Augment:
        return self.augment or PLAIN

    @cached_property
    def _shares(self) -> npt.NDArray[np.float64] | None:
        """Upper ends of the samples' shares of 0 … 1."""
        if self.weights is None:
            return None
        if isinstance(self.weights, str):
            if self.weights != "balanced":
                raise InputError(
                    f"weights is {self.weights!r}, expected 'balanced', or a number for each sample"
                )
            weights = self.samples.balance(self._members)
        else:
            weights = np.asarray(self.weights, np.float64)
        good = weights.shape == self._members.shape and np.isfinite(weights).all()
        if not good or (weights < 0).any() or not weights.sum() > 0:
            raise InputError(
                f"weights have shape {weights.shape}, expected {self._members.shape}, a finite "
                f"number from 0 for each sample of split {self.split!r}, and not all 0"
            )
        ends = np.cumsum(weights)
        return np.asarray(ends / ends[-1])

    # ----------------------------------------------------------------------------- what it makes

    def _make(self, draws: NUMBERS, epoch: int, place: int) -> Arrays:
        """One batch."""
        rng = np.random.default_rng([self.seed, epoch, place])
        views = self._views.views(self.samples.patch, len(draws), rng)
        rank, world = self.share
        own = slice(len(draws) * rank // world, len(draws) * (rank + 1) // world)
        draws, views = draws[own], views.of(own)
        patch = self.samples.patch
        seen = np.ones((len(draws), patch, patch), np.bool_) if self.observed else None
        out = {entry.name: self._image(entry, draws, views, seen) for entry in self.samples.inputs}
        out[LABEL] = self._label(draws, views, seen)
        out[INDEX] = draws
        return out

    def _label(self, draws: NUMBERS, views: Views, seen: Seen) -> npt.NDArray[Any]:
        out = self._empty(LABEL, len(draws))

        def show(values: npt.NDArray[Any], part: slice) -> None:
            if seen is not None:
                values[~seen[part]] = IGNORE
            if self._views.scales:
                zoom_nearest(values[:, None], views.of(part), out[part][:, None])
            else:
                turn(values[:, None], views.of(part), _SAME, None, out[part][:, None])

        plain = self._views == PLAIN and seen is None
        return self._shown(LABEL, draws, out, None if plain else show)

    def _image(self, entry: Input, draws: NUMBERS, views: Views, seen: Seen) -> npt.NDArray[Any]:
        out = self._empty(entry.name, len(draws), np.float32 if self.normalize else entry.dtype)
        scaling = self._scaling(entry)
        missing = False if entry.fill is None else np.dtype(entry.dtype).type(entry.fill)
        gone = (
            missing if out.dtype.kind in "iu" else out.dtype.type(0 if self.normalize else np.nan)
        )

        def show(values: npt.NDArray[Any], part: slice) -> None:
            if seen is not None:
                seen[part] &= observed((entry,), {entry.name: values})
            own = views.of(part)
            layers, shown = (a.reshape(len(a), -1, *a.shape[-2:]) for a in (values, out[part]))
            if self._views.scales:
                zoom_bilinear(layers, own, scaling, missing, out.dtype.type(gone), shown)
            else:
                turn(layers, own, scaling, missing if self.normalize else None, shown)

        plain = self._views == PLAIN and not self.normalize and seen is None
        return self._shown(entry.name, draws, out, None if plain else show)

    def _empty(self, name: str, count: int, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        rows = self.samples.rows[name]
        size = self._views.size(self.samples.patch)
        return np.empty((count, *rows.shape[1:-2], size, size), dtype or rows.dtype)

    def _shown(
        self,
        name: str,
        draws: NUMBERS,
        out: npt.NDArray[Any],
        show: Callable[[npt.NDArray[Any], slice], None] | None,
    ) -> npt.NDArray[Any]:
        """Samples read into `out`, by way of scratch that stays in the cache if they change."""
        rows = self.samples.rows[name]
        if show is None:
            rows.read(draws, out)
            return out
        step = max(1, SCRATCH // (math.prod(rows.shape[1:]) * rows.dtype.itemsize))
        scratch = np.empty((min(step, len(draws)), *rows.shape[1:]), rows.dtype)
        for start in range(0, len(draws), step):
            part = slice(start, start + step)
            values = scratch[: len(draws[part])]
            rows.read(draws[part], values)
            show(values, part)
        return out

    def _scaling(self, entry: Input) -> Scaling:
        if self.normalize:
            return scaling(self.samples, entry)
        layers = math.prod(entry.lead)
        return Scaling(np.zeros(layers, np.float32), np.ones(layers, np.float32))


def scaling(samples: SampleSet, entry: Input) -> Scaling:
    """Mean and 1 / std of an input's layers; a band that is everywhere the same becomes 0."""
    found = samples.statistics[entry.name]
    empty = [band for band in entry.bands if found[band]["mean"] is None]
    if empty:
        raise InputError(
            f"band {empty[0]} of {entry.name} has no valid pixel in training patches, so it "
            "cannot be normalised; give normalize=False or leave the band out of the samples"
        )
    means = np.array([found[band]["mean"] for band in entry.bands])
    spread = np.array([found[band]["std"] for band in entry.bands])
    gains = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    times = max(len(entry.times), 1)
    return Scaling(*(np.tile(v, times).astype(np.float32) for v in (means, gains)))


_SAME: Final = Scaling(np.zeros(1, np.float32), np.ones(1, np.float32))


def mixed(draws: NUMBERS, chunk: int, window: int, rng: np.random.Generator) -> NUMBERS:
    """Draws shuffled so that those of a chunk stay near each other.

    Chunks of `chunk` consecutive samples come in random order, and the draws of each `window` of
    them among each other.
    """
    distinct, place = np.unique(draws // chunk, return_inverse=True)
    turns = rng.permutation(len(distinct))[place] // window
    # By window, and at random within.
    return np.asarray(draws[np.lexsort((rng.random(len(draws)), turns))])
