"""Mini-batch k-means over windows that no machine holds at once: tasks reduce, the driver merges.

A task gets a source of windows, their numbers and the colours of before, and gives whole sums.
Which windows and pixels a round sees is a hash of the seed, the round and their place.
"""

from __future__ import annotations

import math
from typing import Any, Final

import dask
import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.features.vocabulary import (
    FLOAT,
    PLANES,
    Vocabulary,
    raw_planes,
    step_of,
    whole,
)
from lcengine.features.windows import Windows
from lcengine.hashing import mixed
from lcengine.inputs import observed
from lcengine.kernels.division import spread
from lcengine.kernels.words import add

PER_ROUND: Final = 64
"""Windows that a round reads, where there are so many."""
PER_TASK: Final = 8
"""Windows of a task."""
ENOUGH: Final = 0.25
"""Share of the pixels wanted that the first windows must have; else others are read too."""
_START: Final = -1
"""The round that the first colours come from."""

NUMBERS = npt.NDArray[np.int64]
Batch = tuple[int, int, int]
"""Seed, round, pixels wanted."""


def fit(windows: Windows, colors: int, how: tuple[int, int, int]) -> Vocabulary:
    """A vocabulary; `how`: rounds, pixels of a batch, seed. See `Vocabulary.fit`."""
    rounds, batch, seed = how
    if rounds < 1 or batch < 1:
        raise InputError(f"rounds is {rounds} and batch {batch}, expected 1 or more of both")
    first, places = _begun(windows, colors, (seed, _START, max(batch, 20 * colors)))
    centres, seen = first.colors.copy(), np.zeros(len(first.colors), np.int64)
    for number in range(rounds):
        counts, sums = _reduced(windows, places, (first, centres), (seed, number, batch))
        seen += counts
        there = counts > 0
        # The mean of all pixels that a colour ever had (the rate of Sculley 2010).
        old = centres[there] * (seen - counts)[there, None]
        centres[there] = (old + sums[there]) / seen[there, None]
    return Vocabulary(first.inputs, centres, first.gains, first.steps)


def _begun(windows: Windows, colors: int, batch: Batch) -> tuple[Vocabulary, NUMBERS]:
    """Scales, and colours to begin with: pixels far from each other, by k-means++.

    And the windows that rounds draw from.
    """
    pool, places = _pool(windows, batch)
    if not pool.shape[1]:
        raise InputError(
            "no valid pixel was found to begin with; expected pixels where every band is there"
        )
    dtypes = [entry.dtype for entry in windows.inputs for _ in range(math.prod(entry.lead))]
    steps = np.array(
        [step_of(v.astype(np.float64), np.dtype(d)) for v, d in zip(pool, dtypes, strict=True)]
    )
    pixels = whole(pool, steps)
    spreads = np.array([_deviation(values) for values in pixels])
    gains = np.divide(1.0, spreads, out=np.ones_like(spreads), where=spreads > 0)
    found = spread(np.ascontiguousarray(pixels), gains, colors, batch[0])
    return Vocabulary(windows.inputs, found, gains, steps), places


def _deviation(values: PLANES) -> float:
    """Standard deviation of whole numbers, from exact sums."""
    numbers = [int(v) for v in values]
    count, total = len(numbers), sum(numbers)
    return math.sqrt(count * sum(v * v for v in numbers) - total * total) / count


def _drawn(windows: Windows, places: NUMBERS, batch: Batch) -> tuple[list[NUMBERS], float]:
    """Windows of a round and those after them, each ascending, and the share of pixels it takes."""
    seed, number, wanted = batch
    most = min(places.size, max(PER_ROUND, -(-4 * wanted // windows.pixels)))
    order = places[np.argsort(mixed(seed, number, places), kind="stable")]
    parts = [np.sort(order[i : i + most]) for i in range(0, order.size, most)]
    return parts, min(1.0, wanted / (most * windows.pixels))


def _pixels(windows: Windows, window: int, share: float, batch: Batch) -> PLANES:
    """Stored numbers (channel, pixel) of the pixels of a window that a round takes."""
    seed, number, _ = batch
    arrays = windows.read(window)
    valid = observed(windows.inputs, arrays)[0]
    keys = mixed(seed, number, window, np.arange(valid.size, dtype=np.int64))
    taken = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    kept = valid & taken.reshape(valid.shape)
    return np.ascontiguousarray(raw_planes(windows.inputs, arrays)[:, 0][:, kept])


def _run(function: Any, windows: Windows, chosen: NUMBERS, *arguments: Any) -> list[Any]:
    """The results of tasks, in the order of their windows."""
    task = dask.delayed(function, pure=False)
    parts = [chosen[i : i + PER_TASK] for i in range(0, len(chosen), PER_TASK)]
    source = dask.delayed(windows, pure=False, traverse=False)
    return list(dask.compute(*[task(source, part, *arguments) for part in parts]))


def _pool(windows: Windows, batch: Batch) -> tuple[PLANES, NUMBERS]:
    """Pixels, and the windows for the rounds: all, or of a mostly empty raster those with pixels.

    `InputError` where there are no windows.
    """
    everywhere = np.arange(len(windows), dtype=np.int64)
    if not everywhere.size:
        raise InputError("there are no windows to find colours in; expected one at least")
    parts, share = _drawn(windows, everywhere, batch)
    found: list[PLANES] = []
    for part in parts:
        found += [p for pixels in _run(_gathered, windows, part, share, batch) for p in pixels]
        if sum(pixels.shape[1] for pixels in found) >= ENOUGH * batch[2]:
            break
    places = everywhere
    if len(found) > parts[0].size:
        full = np.flatnonzero([pixels.shape[1] for pixels in found])
        places = np.sort(np.concatenate(parts)[full])
    return np.concatenate(found, axis=1), places


def _gathered(windows: Windows, part: NUMBERS, share: float, batch: Batch) -> list[PLANES]:
    return [_pixels(windows, int(n), share, batch) for n in part]


def _reduced(
    windows: Windows, places: NUMBERS, known: tuple[Vocabulary, FLOAT], batch: Batch
) -> tuple[NUMBERS, NUMBERS]:
    """Pixels (colour) and sums of their whole numbers (colour, channel) of a round.

    `known`: the first vocabulary, and the colours of before.
    """
    (part, *_), share = _drawn(windows, places, batch)
    first, centres = known
    found = _run(_summed, windows, part, share, batch, centres, first.gains, first.steps)
    return (
        np.sum([counts for counts, _ in found], axis=0),
        np.sum([sums for _, sums in found], axis=0),
    )


def _summed(
    windows: Windows,
    part: NUMBERS,
    share: float,
    batch: Batch,
    centres: FLOAT,
    *scale: FLOAT,
) -> tuple[NUMBERS, NUMBERS]:
    gains, steps = scale
    counts = np.zeros(len(centres), np.int64)
    sums = np.zeros(centres.shape, np.int64)
    known = Vocabulary(windows.inputs, centres, gains, steps)
    for number in part:
        pixels = whole(_pixels(windows, int(number), share, batch), steps)
        words = known.words(pixels, np.ones(pixels.shape[1], np.bool_))
        add(pixels, words, counts, sums)
    return counts, sums
