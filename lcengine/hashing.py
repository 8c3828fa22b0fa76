"""Hashes of whole numbers: what is drawn by place depends on neither order nor threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def mixed(seed: int, *parts: int | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint64]:
    """A well-mixed hash of whole numbers, element by element, of at least one dimension.

    SplitMix64's finaliser (Steele, Lea & Flood 2014, OOPSLA) after each part. `seed`: 64 bits.
    """
    shape = np.broadcast_shapes(*(np.shape(part) for part in parts))
    state = np.full(shape or (1,), seed % 2**64, np.uint64)
    for part in parts:
        state += np.asarray(part, np.int64).view(np.uint64)
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
