"""The values that the stages of the compositing kernel hand to each other.

Masks are int16, no bit or all bits, as SIMD comparisons yield them: 0 or −1. T is the type of the
stored values: int16 (also for uint16 cubes, whose sign bit is flipped) or float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

NODATA: Final = np.int16(-32768)  # typed: a Python integer would be 64 bits wide in a kernel
NONE: Final = np.int16(0)
ALL: Final = np.int16(-1)

T = TypeVar("T", np.int16, np.uint16, np.float32, np.uint8)


class View(NamedTuple, Generic[T]):
    """A strided array (item, band, row, column), contiguous in columns, as flat memory.

    `start` and the strides `item`, `band`, `row` count elements, not bytes.
    """

    memory: NDArray[T]
    start: int
    item: int
    band: int
    row: int


class Cut(NamedTuple):
    """How the pixels are cut into strips, and the items into observations.

    cols, strips, width: pixels in a row, strips to a row, pixels in a strip (the last has fewer).
    first: first item of each observation, and the number of items, (observations + 1,) int64.
    """

    cols: int
    strips: int
    width: int
    first: NDArray[np.int64]


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


class Job(NamedTuple):
    """The parameters of one stage; each stage says what it uses.

    bands: (band,) bands it works on. layer, extra, slot: its first row of `Output.values`,
    `Output.extras`, `Output.chosen`. mode: a variant. ranks: a rank. numbers: (4,) parameters.
    series: (observation,) a number each.
    """

    bands: NDArray[np.int64]
    layer: int
    extra: int
    slot: int
    mode: int
    ranks: Ranks
    numbers: NDArray[np.float64]
    series: NDArray[np.float32]


class Jobs(NamedTuple):
    """The jobs of all stages as tables, so that their number is no part of a type.

    ints: (stage, 9) int64: layer, extra, slot, mode, lower, upper, ends in `pairs`, bands.
    """

    ints: NDArray[np.int64]
    bands: NDArray[np.int64]
    pairs: NDArray[np.uint16]
    lows: NDArray[np.int16]
    weight: NDArray[np.float64]
    numbers: NDArray[np.float64]
    series: NDArray[np.float32]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Jobs:
        """Pack jobs; shorter bands are padded."""
        most = max(job.bands.size for job in jobs)
        edges = np.cumsum([0, *(len(job.ranks.pairs) for job in jobs)])
        ints = [
            (
                *(job.layer, job.extra, job.slot, job.mode, job.ranks.lower, job.ranks.upper),
                *(start, stop, job.bands.size),
            )
            for job, start, stop in zip(jobs, edges[:-1], edges[1:], strict=True)
        ]
        return cls(
            np.array(ints, np.int64),
            np.array([np.pad(job.bands, (0, most - job.bands.size)) for job in jobs], np.int64),
            np.concatenate([job.ranks.pairs for job in jobs]),
            np.array([job.ranks.lows for job in jobs]),
            np.array([job.ranks.weight for job in jobs]),
            np.array([job.numbers for job in jobs], np.float64),
            np.array([job.series for job in jobs], np.float32),
        )


class Scratch(NamedTuple):
    """One thread's working memory for a strip.

    loaded, valid: the items, (band, item, pixel) T and (item, pixel) mask of the valid ones.
    raw, take: the observations alike; the same memory where each has one item.
    member: (observation, pixel) item that stands for it; no rows where each has one item.
    tally: (pixel,) valid observations. spare: (pixel,). rows: (item × band,) rows to be read.
    fill: (observation, pixel) T, the extreme that stands for an invalid observation.
    work: (observation, pixel) T, for networks. limits: lowest, highest, nodata value, (3,) T.
    judged, wide: what a screen judges, and its network, (observation, pixel) int32 or float64;
    twice, limit: per pixel, of the same type; bounds: its extremes, (2,); span: of a strip, (2,).
    narrow, sorted16, twice16, limit16: the same in uint16. drop: (observation, pixel) rejected.
    chosen: (pixel,) observation, −1 for none. floats, doubles: any use within a stage.
    powers: linear power by the bits of dB × 100, empty where values are averaged as they are.
    origin: what is to be added to a stored value. unit: the value of reflectance 1.
    """

    loaded: NDArray[Any]
    valid: NDArray[np.int16]
    raw: NDArray[Any]
    take: NDArray[np.int16]
    member: NDArray[np.int16]
    tally: NDArray[np.int16]
    spare: NDArray[np.int16]
    rows: NDArray[np.int64]
    fill: NDArray[Any]
    work: NDArray[Any]
    limits: NDArray[Any]
    judged: NDArray[Any]
    wide: NDArray[Any]
    twice: NDArray[Any]
    limit: NDArray[Any]
    bounds: NDArray[Any]
    span: NDArray[Any]
    narrow: NDArray[np.uint16]
    sorted16: NDArray[np.uint16]
    twice16: NDArray[np.uint16]
    limit16: NDArray[np.uint16]
    drop: NDArray[np.int16]
    chosen: NDArray[np.int16]
    floats: NDArray[np.float32]
    doubles: NDArray[np.float64]
    powers: NDArray[np.float64]
    origin: np.float32
    unit: np.float32


class Output(NamedTuple):
    """Results per pixel.

    values: (layer, pixel) T. extras: (extra, pixel) float32. chosen: (slot, pixel) int16 items.
    tally, outliers: (pixel,) uint16.
    """

    values: NDArray[Any]
    extras: NDArray[np.float32]
    chosen: NDArray[np.int16]
    tally: NDArray[np.uint16]
    outliers: NDArray[np.uint16]
