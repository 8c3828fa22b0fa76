"""A window divided into segments: k-means of its pixels, the same for the same pixels.

Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii 2007, SODA) among pixels that a
hash of the seed draws. Means are whole sums divided once, and nearest centres are those of `words`,
so nothing depends on an order of summation.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel
from lcengine.kernels.words import BYTES, FLOAT, NONE, STRIP, add, assign, palette

POOL: Final = 2048
"""Pixels of a window among which its first centres are chosen."""


@kernel
def _mixed(state: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014, OOPSLA)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@kernel
def _drawn(seed: int, number: int, below: int) -> Any:
    """One of 0 … below - 1, int64 (an int() of an unsigned one stays unsigned)."""
    state = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(number + 1)
    return np.int64(_mixed(_mixed(state)) % np.uint64(below))


@kernel
def _share(seed: int, number: int) -> float:
    """One of 0 … 1, without 1."""
    return float(_drawn(seed, number, 2**53) * 2.0**-53)


@kernel
def spread(pool: npt.NDArray[Any], gains: FLOAT, count: int, seed: int) -> FLOAT:
    """At most `count` different ones of pixels (channel, pixel), far apart: (colour, channel).

    k-means++: each is drawn with the square of its distance to those drawn before.
    """
    channels, size = pool.shape
    out = np.empty((count, channels), np.float64)
    apart = np.full(size, np.inf, np.float64)
    place = _drawn(seed, 0, size)
    for k in range(count):
        total = 0.0
        for c in range(channels):
            out[k, c] = pool[c, place]
        for p in range(size):
            distance = 0.0
            for c in range(channels):
                step = (np.float64(pool[c, p]) - out[k, c]) * gains[c]
                distance += step * step
            apart[p] = min(apart[p], distance)
            total += apart[p]
        if total == 0.0:
            return out[: k + 1]
        rest = _share(seed, k + 1) * total
        place = size
        for p in range(size):
            if apart[p] > 0.0:
                place = p
                rest -= apart[p]
                if rest < 0.0:
                    break
    return out


@kernel
def start(
    pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], gains: FLOAT, count: int, seed: int
) -> FLOAT:
    """First centres (segment, channel) of a window, at most `count`; some pixel must be valid."""
    places = np.flatnonzero(valid)
    size = min(POOL, places.size)
    pool = np.empty((pixels.shape[0], size), pixels.dtype)
    for p in range(size):
        place = p if size < POOL else _drawn(seed, -p - 2, places.size)
        for c in range(pixels.shape[0]):
            pool[c, p] = pixels[c, places[place]]
    return spread(pool, gains, count, seed)


@kernel
def lloyd(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    gains: FLOAT,
    centres: FLOAT,
    rounds: int,
    segments: BYTES,
) -> None:
    """Segments of whole numbers (channel, pixel): numbers of the nearest centres, 255 not valid.

    Centres become the means of their pixels until no pixel changes, `rounds` times at most. One
    without pixels stays where it is.
    """
    count = pixels.shape[1]
    strips = -(-count // STRIP)
    before = np.empty(count, np.uint8)
    means = centres.copy()
    members = np.empty(means.shape[0], np.int64)
    sums = np.empty(means.shape, np.int64)
    for turn in range(rounds + 1):
        before[:] = segments
        assign(0, strips, pixels, valid, palette(means, gains), segments)
        if turn == rounds or (turn > 0 and np.array_equal(before, segments)):
            return
        members[:] = 0
        sums[:] = 0
        add(pixels, segments, members, sums)
        for k in range(means.shape[0]):
            if members[k]:
                for c in range(means.shape[1]):
                    means[k, c] = sums[k, c] / members[k]


@kernel
def divide(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    gains: FLOAT,
    wanted: tuple[int, int, int, int],
    segments: BYTES,
) -> int:
    """Divide a window (channel, pixel) into segments; returns how many there are.

    `wanted`: segments, valid pixels with fewer of which a window is one segment, rounds, seed.
    """
    count, least, rounds, seed = wanted
    there = np.count_nonzero(valid)
    if there < max(least, count) or count == 1:
        segments[:] = np.where(valid, 0, NONE)
        return 1 if there else 0
    centres = start(pixels, valid, gains, count, seed)
    lloyd(pixels, valid, gains, centres, rounds, segments)
    return int(centres.shape[0])
