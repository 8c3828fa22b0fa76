"""Random streams and random fields that depend on the seed and a key only, never on call order."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)

MOST_NODES = 1024
"""Nodes along a side of the largest random field; beyond them fields repeat themselves."""


class Stream(IntEnum):
    """First part of the key of every random stream, so that no two uses share one."""

    LANDSCAPE = 0
    SCHEDULE = 1
    SKY = 2
    CLASSIFICATION = 3
    NOISE = 4
    SOIL = 5
    RADAR = 6
    SPECKLE = 7
    PLANET = 8
    PLANET_SKY = 9
    COARSE = 10
    VECTORS = 11


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Generator for one purpose: the same `seed`, `stream` and `key` give the same numbers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(stream), *key)))


def smooth_field(
    rng: np.random.Generator,
    size: int,
    scale: float,
    decay: float = 1.6,
    smallest: int = 128,
    *,
    whole: bool = False,
) -> NDArray[np.float32]:
    """Gaussian random field (size, size), float32, mean 0 and standard deviation 1.

    White noise is filtered in the Fourier domain with amplitude (k² + 1/scale²)^(-decay/2), so
    structure larger than `scale` pixels is absent and smaller structure fades with `decay`. The
    field is periodic over max(size, smallest) pixels or a little more; `whole` returns the period.
    """
    n = scipy.fft.next_fast_len(max(size, smallest), real=True)
    spectrum = scipy.fft.rfft2(rng.standard_normal((n, n), dtype=np.float32))
    k2 = np.square(scipy.fft.fftfreq(n))[:, None] + np.square(scipy.fft.rfftfreq(n))[None, :]
    amplitude = (k2 + 1.0 / scale**2) ** (-decay / 2)
    amplitude[0, 0] = 0.0
    field = scipy.fft.irfft2(spectrum * amplitude.astype(np.float32), s=(n, n))
    part = field[:size, :size]
    field = (field if whole else part) - part.mean()
    return np.ascontiguousarray(field / part.std(), dtype=np.float32)


def window(field: NDArray[Value], row: int, col: int, height: int, width: int) -> NDArray[Value]:
    """A part of a field that repeats itself on all sides."""
    rows, cols = np.arange(row, row + height), np.arange(col, col + width)
    return field.take(rows, axis=0, mode="wrap").take(cols, axis=1, mode="wrap")
