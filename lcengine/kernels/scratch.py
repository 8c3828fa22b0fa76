"""The values that the stages of the compositing kernel hand to each other.

Masks are int16, no bit or all bits, as SIMD comparisons yield them: 0 or −1.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

MEDIAN: Final = 0  # how ranks become a value: half-way between two, exactly, in int16
LINEAR: Final = 1  # NumPy's linear interpolation in float64
NEAREST: Final = 2  # one rank
MEAN: Final = 3  # no ranks

NODATA: Final = np.int16(-32768)  # typed: a Python integer would be 64 bits wide in a kernel
NONE: Final = np.int16(0)
ALL: Final = np.int16(-1)

T = TypeVar("T", np.int16, np.uint8)


class View(NamedTuple, Generic[T]):
    """A strided array (item, band, row, column), contiguous in columns, as flat memory.

    `start` and the strides `item`, `band`, `row` count elements, not bytes.
    """

    memory: NDArray[T]
    start: int
    item: int
    band: int
    row: int


class Ranks(NamedTuple):
    """What a rank reducer needs for a fixed number of observations, per number of valid ones.

    pairs: comparators (m, 2) that place the ranks `lower` and `upper` of all observations.
    lows: how many invalid observations take the smallest value, (observations + 1,) int16.
    weight: weight of `upper` in the result, (observations + 1,) float64.
    """

    pairs: NDArray[np.uint16]
    lower: int
    upper: int
    lows: NDArray[np.int16]
    weight: NDArray[np.float64]


class Plan(NamedTuple):
    """What to do.

    cols, strips, width: pixels in a row, strips to a row, pixels in a strip (the last has fewer).
    first: first item of each observation, and the number of items, (observations + 1,) int64.
    mode: MEDIAN, LINEAR, NEAREST or MEAN. ranks: of the reducer. centre: of the screen's medians.
    screen_bands: bands whose sum the screen judges; empty = no screen.
    k, floor: the screen's k × 1000, and 4 × the smallest MAD.
    """

    cols: int
    strips: int
    width: int
    first: NDArray[np.int64]
    mode: int
    ranks: Ranks
    centre: Ranks
    screen_bands: NDArray[np.int64]
    k: int
    floor: int


class Scratch(NamedTuple):
    """One thread's working memory for a strip.

    raw: (band, item, pixel) copy of the strip, then (band, observation, pixel) network.
    take: (item, pixel) mask of the valid items, then of those that observations use.
    fill: (observation, pixel), 0 where valid, else the extreme that stands for it.
    wide, judged: (observation, pixel) int32, the screen's network and what it judges.
    twice, limit: (pixel,) int32, 2 × median of `judged`, largest deviation kept.
    tally: (pixel,) valid observations. spare: (pixel,). rows: (item × band,) rows to be read.
    """

    raw: NDArray[np.int16]
    take: NDArray[np.int16]
    fill: NDArray[np.int16]
    wide: NDArray[np.int32]
    judged: NDArray[np.int32]
    twice: NDArray[np.int32]
    limit: NDArray[np.int32]
    tally: NDArray[np.int16]
    spare: NDArray[np.int16]
    rows: NDArray[np.int64]


class Output(NamedTuple):
    """Results per pixel: values (n_out, pixels) int16, tally and outliers (pixels,) uint16."""

    values: NDArray[np.int16]
    tally: NDArray[np.uint16]
    outliers: NDArray[np.uint16]


def scratch(plan: Plan, bands: int) -> Scratch:
    """Working memory for one thread. The pixels beyond a row's end are computed, never written."""
    items, observations = int(plan.first[-1]), plan.first.size - 1
    screened = observations if plan.screen_bands.size else 0
    return Scratch(
        raw=np.empty((bands, items, plan.width), np.int16),
        take=np.zeros((items, plan.width), np.int16),
        fill=np.empty((observations, plan.width), np.int16),
        wide=np.empty((screened, plan.width), np.int32),
        judged=np.empty((screened, plan.width), np.int32),
        twice=np.empty(plan.width, np.int32),
        limit=np.empty(plan.width, np.int32),
        tally=np.empty(plan.width, np.int16),
        spare=np.empty(plan.width, np.int16),
        rows=np.empty(items * bands, np.int64),
    )
