"""Patches of a batch turned, cropped, scaled and normalised, in one pass over what was stored.

A view of a square source says which part of it a patch shows, and how it lies. A turn is three
bits, applied in this order: 2 = upside down, 1 = left to right, 4 = transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import by_type, kernel

FLIPS = (0, 1, 2, 3)
"""Turns that are flips (both together are a half turn)."""
ROTATIONS = (0, 3, 5, 6)
"""Turns that are rotations by 0°, 180°, 90°, 270°."""
BLOCK = 16
"""Rows that a transposed patch is written in at once: as many lines stay in the first cache."""

BYTES = npt.NDArray[np.uint8]
FLOAT = npt.NDArray[np.float64]
FLOAT32 = npt.NDArray[np.float32]


class Views(NamedTuple):
    """One view per sample."""

    turns: BYTES
    tops: FLOAT
    """Row of the upper-left corner in the source."""
    lefts: FLOAT
    steps: FLOAT
    """Pixels of the source per pixel of the patch."""

    def of(self, part: slice) -> Views:
        """The views of some of the samples."""
        return Views(self.turns[part], self.tops[part], self.lefts[part], self.steps[part])


class Scaling(NamedTuple):
    """`(value - means) * gains` per layer of a source."""

    means: FLOAT32
    gains: FLOAT32


def _value(raw: Any, mean: Any, gain: Any, missing: Any) -> Any:
    """A stored number as it is (missing None), or normalised, missing ones as 0."""
    raise NotImplementedError


@by_type(_value)
def _(raw: Any, mean: Any, gain: Any, missing: Any) -> Callable[..., Any]:
    if str(missing) == "none":
        return lambda raw, mean, gain, missing: raw
    if str(raw).startswith("float"):
        return lambda raw, mean, gain, missing: (
            (np.float32(raw) - mean) * gain if np.isfinite(raw) else np.float32(0)
        )
    if str(missing) == "bool":
        return lambda raw, mean, gain, missing: (np.float32(raw) - mean) * gain
    return lambda raw, mean, gain, missing: (
        (np.float32(raw) - mean) * gain if raw != missing else np.float32(0)
    )


@kernel
def turn(
    source: npt.NDArray[Any], views: Views, scaling: Scaling, missing: Any, out: npt.NDArray[Any]
) -> None:
    """Views of whole pixels: (sample, layer, h, w) → `out` (sample, layer, size, size).

    `missing` None copies. Otherwise `out` is float32 `(value - means[layer]) * gains[layer]`, and
    0 where the value is `missing` (False: no value of an integer is) or a float is not finite.
    """
    size = out.shape[-1]
    for i in range(source.shape[0]):
        top, left, bits = int(views.tops[i]), int(views.lefts[i]), views.turns[i]
        for layer in range(source.shape[1]):
            mean, gain = scaling.means[layer], scaling.gains[layer]
            part = source[i, layer, top : top + size, left : left + size]
            to = out[i, layer]
            if bits & 4:
                for start in range(0, size, BLOCK):
                    stop = min(start + BLOCK, size)
                    for x in range(size):
                        row = part[size - 1 - x if bits & 2 else x]
                        for y in range(start, stop):
                            col = size - 1 - y if bits & 1 else y
                            to[y, x] = _value(row[col], mean, gain, missing)
                continue
            for y in range(size):
                row, line = part[size - 1 - y if bits & 2 else y], to[y]
                if bits & 1:
                    for x in range(size):
                        line[x] = _value(row[size - 1 - x], mean, gain, missing)
                else:
                    for x in range(size):
                        line[x] = _value(row[x], mean, gain, missing)


@kernel
def normalise(source: npt.NDArray[Any], scaling: Scaling, missing: Any, out: FLOAT32) -> None:
    """Whole images (sample, layer, h, w), as `turn` normalises them."""
    for i in range(source.shape[0]):
        for layer in range(source.shape[1]):
            mean, gain = scaling.means[layer], scaling.gains[layer]
            for y in range(source.shape[2]):
                row, line = source[i, layer, y], out[i, layer, y]
                for x in range(source.shape[3]):
                    line[x] = _value(row[x], mean, gain, missing)


def _valid(raw: Any, missing: Any) -> bool:
    """Whether a stored number says something."""
    raise NotImplementedError


@by_type(_valid)
def _(raw: Any, missing: Any) -> Callable[..., bool]:
    if str(raw).startswith("float"):
        return lambda raw, missing: np.isfinite(raw)
    if str(missing) == "bool":
        return lambda raw, missing: True
    return lambda raw, missing: raw != missing


def _held(value: Any, like: Any) -> Any:
    """A float64 as the type of `like`, integers rounded half to even."""
    raise NotImplementedError


@by_type(_held)
def _(value: Any, like: Any) -> Callable[..., Any]:
    kind = getattr(np, str(like))
    if str(like).startswith("float"):
        return lambda value, like: kind(value)
    return lambda value, like: kind(np.rint(value))


@kernel
def _place(index: int, other: int, size: int, bits: int) -> tuple[int, int]:
    """Row and column of the unturned view that pixel (index, other) of the patch shows."""
    row, col = (other, index) if bits & 4 else (index, other)
    return size - 1 - row if bits & 2 else row, size - 1 - col if bits & 1 else col


@kernel
def _centre(views: Views, i: int, row: int, col: int) -> tuple[float, float]:
    """Where the centre of a pixel of an unturned view lies in the source."""
    step = views.steps[i]
    return views.tops[i] + (row + 0.5) * step, views.lefts[i] + (col + 0.5) * step


@kernel
def zoom_nearest(source: npt.NDArray[Any], views: Views, out: npt.NDArray[Any]) -> None:
    """Views of any scale: each pixel is the one of the source that holds its centre."""
    size = out.shape[-1]
    for i in range(source.shape[0]):
        for y in range(size):
            for x in range(size):
                v, u = _place(y, x, size, views.turns[i])
                r, c = _centre(views, i, v, u)
                row, col = min(int(r), source.shape[2] - 1), min(int(c), source.shape[3] - 1)
                for layer in range(source.shape[1]):
                    out[i, layer, y, x] = source[i, layer, row, col]


@kernel
def zoom_bilinear(
    source: npt.NDArray[Any],
    views: Views,
    scaling: Scaling,
    missing: Any,
    gone: Any,
    out: npt.NDArray[Any],
) -> None:
    """Views of any scale, bilinear over the valid ones of the four neighbours, then normalised.

    `gone` (of `out`'s dtype) where the pixel of the source that holds the centre is missing, so
    that images are missing where nearest neighbours are. The source ends at its border.
    """
    size = out.shape[-1]
    height, width = source.shape[2:]
    for i in range(source.shape[0]):
        for y in range(size):
            for x in range(size):
                v, u = _place(y, x, size, views.turns[i])
                r, c = _centre(views, i, v, u)
                row, col = min(int(r), height - 1), min(int(c), width - 1)
                top, left = int(np.floor(r - 0.5)), int(np.floor(c - 0.5))
                down, right = r - 0.5 - top, c - 0.5 - left
                rows = (max(top, 0), min(top + 1, height - 1))
                cols = (max(left, 0), min(left + 1, width - 1))
                for layer in range(source.shape[1]):
                    plane = source[i, layer]
                    if not _valid(plane[row, col], missing):
                        out[i, layer, y, x] = gone
                        continue
                    total = weights = 0.0
                    for j in range(2):
                        for k in range(2):
                            value = plane[rows[j], cols[k]]
                            if _valid(value, missing):
                                weight = (down if j else 1.0 - down) * (right if k else 1.0 - right)
                                total += weight * value
                                weights += weight
                    value = (total / weights - scaling.means[layer]) * scaling.gains[layer]
                    out[i, layer, y, x] = _held(value, gone)
