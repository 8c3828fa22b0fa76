"""What the screens of whole series share: a stack of items as flat memory, and their marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcengine.errors import InputError
from lcengine.kernels import NODATA
from lcengine.kernels._jit import borrow, kernel, run_threaded

MAX_OBSERVATIONS: Final = 1024
"""Most observations of one pixel."""


class Screened(NamedTuple):
    """clear (N, H, W) uint8, 1 = clear; observations rejected and restored, (H, W) uint16."""

    clear: NDArray[np.uint8]
    rejected: NDArray[np.uint16]
    restored: NDArray[np.uint16]


class Stack(NamedTuple):
    """(item, pixel) as flat memory: the pixels of item i lie from i × step on."""

    memory: NDArray[Any]
    step: int


class Marks(NamedTuple):
    """clear (item, pixel) uint8; counts (pixel,) uint16."""

    clear: NDArray[np.uint8]
    rejected: NDArray[np.uint16]
    restored: NDArray[np.uint16]


Stacks = tuple[Stack, Stack, Stack]


def observations_of(
    values: NDArray[Any], groups: NDArray[Any] | None, days: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First item of each observation, then the number of items; the observations' days."""
    if values.dtype not in (np.int16, np.uint16, np.float32) or values.ndim != 3:
        raise InputError(
            f"got a band of {values.dtype} and shape {values.shape}, expected int16, uint16 or "
            "float32 (N, H, W)"
        )
    items = len(values)
    index = np.arange(items) if groups is None else np.asarray(groups)
    if index.shape != (items,) or index.dtype.kind not in "iu":
        raise InputError(
            f"got groups {index.dtype} of shape {index.shape}, expected integers ({items},)"
        )
    if np.any(index[1:] < index[:-1]):
        raise InputError("got groups that decrease, expected items sorted by observation")
    first = np.flatnonzero(np.r_[items > 0, index[1:] != index[:-1], True][: items + 1])
    if first.size - 1 > MAX_OBSERVATIONS:
        raise InputError(
            f"got {first.size - 1} observations, expected at most {MAX_OBSERVATIONS}; screen a "
            "shorter period"
        )
    when = np.array(days, np.float64)
    if when.shape not in ((items,), (first.size - 1,)):
        raise InputError(
            f"got days of shape {when.shape}, expected one per item, ({items},), or per "
            f"observation, ({first.size - 1},)"
        )
    when = when[first[:-1]] if when.size == items else when
    if not np.all(np.isfinite(when)) or np.any(when[1:] < when[:-1]):
        raise InputError("got days that decrease or are not finite, expected the order of time")
    return first, when


def mask_of(mask: NDArray[Any], values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """A mask as uint8; `InputError` names it where it does not fit the values."""
    if mask.dtype not in (np.uint8, np.bool_) or mask.shape != values.shape:
        raise InputError(
            f"got {name} {mask.dtype} of shape {mask.shape}, expected uint8 or bool {values.shape}"
        )
    return mask.view(np.uint8)


def missing_of(values: NDArray[Any]) -> float:
    """The code of no data; NaN equals nothing, what is not finite is missing anyway."""
    return {"int16": float(NODATA), "uint16": 0.0}.get(values.dtype.name, math.nan)


def stack_of(array: NDArray[Any]) -> Stack:
    """Flat memory, without a copy where rows and columns are contiguous."""
    flat = array.reshape(len(array), array.shape[1] * array.shape[2])
    size = flat.itemsize
    if flat.strides[1] != size or flat.strides[0] % size or flat.strides[0] < 0:
        flat = np.ascontiguousarray(flat)
    step = flat.strides[0] // size
    length = (len(flat) - 1) * step + flat.shape[1] if flat.size else 0
    memory = np.lib.stride_tricks.as_strided(flat, (length,), (size,), writeable=False)
    return Stack(memory, step)


def unchanged(mask: NDArray[np.uint8]) -> Marks:
    """A mask as it is, with nothing rejected or restored."""
    clear = np.empty(mask.shape, np.bool_)
    np.not_equal(mask, 0, out=clear)
    pixels = mask.shape[1] * mask.shape[2]
    counts = np.zeros((2, pixels), np.uint16)
    return Marks(clear.view(np.uint8).reshape(len(mask), pixels), counts[0], counts[1])


def spread(run: Callable[[int, int], None], size: int, out: Marks, parallel: bool) -> None:
    """Call `run` on the numbers of the blocks of `size` pixels."""
    blocks = -(-out.rejected.size // size)
    if parallel:
        run_threaded(run, blocks)
    else:
        run(0, blocks)


def screened(out: Marks, values: NDArray[Any]) -> Screened:
    """The marks in the shape of the values."""
    rejected, restored = (count.reshape(values.shape[1:]) for count in out[1:])
    return Screened(out.clear.reshape(values.shape), rejected, restored)


@kernel
def row_of(stack: Stack, item: int, at: int, n: int) -> NDArray[Any]:
    """Pixels at..at + n − 1 of an item; indices that cannot be negative let loops vectorise."""
    start = item * stack.step + at
    return stack.memory[start : start + n]


@kernel
def borrowed(stacks: Stacks) -> Stacks:
    """The stacks, not counted."""
    a, b, c = stacks
    return (
        Stack(borrow(a.memory), a.step),
        Stack(borrow(b.memory), b.step),
        Stack(borrow(c.memory), c.step),
    )
