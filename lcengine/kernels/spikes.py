"""Despike (Frantz 2019, Remote Sensing 11(9), 1124), pixel by pixel; see `series.despike`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, call, kernel
from lcengine.kernels.stack import Marks, Stacks, borrowed, row_of

WIDE: Final = 256  # pixels of a block of despike
NONE, MASKED, CLEAR, REJECTED, RESTORED = (np.uint8(state) for state in range(5))
_ON, _ZERO32 = np.uint8(1), np.float32(0)  # typed: Python's numbers have 64 bits in a kernel


class Spikes(NamedTuple):
    """A block's observations, and the rows of one of its pixels.

    values, state: (observation, pixel). v, day, at: value, day and observation of the clear ones,
    from row 1 on; before, after: their neighbours; square: of their residuals. masked: the masked
    ones; right: the row that follows each.
    """

    values: NDArray[np.float32]
    state: NDArray[np.uint8]
    v: NDArray[np.float64]
    day: NDArray[np.float64]
    square: NDArray[np.float64]
    at: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    masked: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def empty(cls, observations: int) -> Spikes:
        """Working memory of one thread."""
        block, row = (observations, WIDE), observations + 8
        floats, places = np.zeros((3, row)), np.zeros((5, row), np.int64)
        return cls(np.zeros(block, np.float32), np.zeros(block, np.uint8), *floats, *places)


@kernel
def _offer(
    values: NDArray[Any],
    clear: NDArray[np.uint8],
    valid: NDArray[np.uint8],
    missing: np.float32,
    value: NDArray[np.float32],
    state: NDArray[np.uint8],
) -> None:
    """Take an item where it says more than those before it: clear, or masked but with data."""
    for p in range(state.size):
        new = np.float32(values[p])
        has = (valid[p] != 0) & (new != missing) & (new - new == _ZERO32)
        rank = CLEAR if clear[p] != 0 else MASKED
        use = has & (rank > state[p])
        value[p] = new if use else value[p]
        state[p] = rank if use else state[p]


@kernel
def _load_spikes(
    stacks: Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    at: int,
    n: int,
    s: Spikes,
) -> None:
    """What stands for each observation of the n pixels from `at` on."""
    values, clear, valid = stacks
    for t in range(s.values.shape[0]):
        value, state = s.values[t, :n], s.state[t, :n]
        state[:] = NONE
        for item in range(first[t], first[t + 1]):
            a, b = row_of(values, item, at, n), row_of(clear, item, at, n)
            _offer(a, b, row_of(valid, item, at, n), missing, value, state)


@kernel
def _gather(days: NDArray[np.float64], p: int, s: Spikes) -> tuple[int, int]:
    """A pixel's clear observations, as rows from 1 on, and its masked ones; their numbers."""
    n, m = 0, 0
    for t in range(days.size):
        state = s.state[t, p]
        s.v[n + 1], s.day[n + 1], s.at[n + 1] = s.values[t, p], days[t], t
        s.masked[m], s.right[m] = t, n + 1
        n += state == CLEAR
        m += state == MASKED
    for j in range(n + 2):
        s.before[j], s.after[j] = j - 1, j + 1
    s.before[0], s.after[n + 1] = 0, n + 1
    return n, m


@kernel
def _off(s: Spikes, a: int, b: int, day: float, value: float) -> Any:
    """How far a value lies above the line through rows a and b; exact where days are whole."""
    width, part = s.day[b] - s.day[a], day - s.day[a]
    if not width > 0.0:
        width, part = 2.0, 1.0  # the mean
    return ((value - s.v[a]) * width - (s.v[b] - s.v[a]) * part) / width


@kernel
def _square(s: Spikes, j: int, end: int) -> None:
    """The squared residual of a row; 0 of what has not two neighbours."""
    a, b = s.before[j], s.after[j]
    residual = _off(s, a, b, s.day[j], s.v[j]) if (a > 0) & (b < end) else 0.0
    s.square[j] = residual * residual


@kernel
def _scan(square: NDArray[np.float64], end: int) -> tuple[float, float]:
    """Sum and maximum of the squares; zeros follow. In four shares, for speed."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    e, f, g, h = 0.0, 0.0, 0.0, 0.0
    for j in range(1, end, 4):
        w, x, y, z = square[j], square[j + 1], square[j + 2], square[j + 3]
        a, b, c, d = a + w, b + x, c + y, d + z
        e, f = w if w > e else e, x if x > f else f
        g, h = y if y > g else g, z if z > h else h
    return (a + b) + (c + d), max(e, f, g, h)


@kernel
def _blamed(s: Spikes, j: int, end: int) -> Any:
    """The row to reject for the residual of row j: an end of the series, or j itself."""
    a, b = s.before[j], s.after[j]
    span = abs(s.v[a] - s.v[b])
    if s.before[a] == 0 and span > abs(s.v[j] - s.v[b]):
        return a
    if s.after[b] == end and span > abs(s.v[j] - s.v[a]):
        return b
    return j


@kernel
def _reject(s: Spikes, n: int, p: int, above: float) -> tuple[int, float]:
    """Reject spikes; the number of observations that remain and the noise, 0 if unknown."""
    end, noise = n + 1, 0.0
    for j in range(1, end):
        _square(s, j, end)
    s.square[end : end + 4] = 0.0
    while n >= 4:
        total, largest = _scan(s.square, end)
        noise = np.sqrt(total / (n - 2))
        if not np.sqrt(largest) > above * noise:
            break
        worst = 1
        while s.square[worst] < largest:
            worst += 1
        worst = _blamed(s, worst, end)
        s.state[s.at[worst], p] = REJECTED
        a, b = s.before[worst], s.after[worst]
        s.after[a], s.before[b], s.square[worst] = b, a, 0.0
        _square(s, a, end)
        _square(s, b, end)
        n -= 1
    return n, noise


@kernel
def _restore(days: NDArray[np.float64], s: Spikes, m: int, end: int, p: int, bound: float) -> int:
    """Mark those of m masked observations that are nearer to the line than `bound`; how many."""
    restored = 0
    if not bound > 0.0:
        return restored
    for i in range(m):
        t, right = s.masked[i], s.right[i]
        while right < end and s.state[s.at[right], p] == REJECTED:
            right = s.after[right]
        left = s.before[right]
        if left > 0 and right < end:
            near = abs(_off(s, left, right, days[t], np.float64(s.values[t, p]))) < bound
            s.state[t, p] = RESTORED if near else MASKED
            restored += near
    return restored


@kernel
def screen_spikes(
    days: NDArray[np.float64], limits: tuple[float, float], s: Spikes, out: Marks, at: int
) -> None:
    """Judge the observations of a block."""
    above, below = limits
    for p in range(min(WIDE, out.rejected.size - at)):
        n, masked = _gather(days, p, s)
        left, noise = _reject(s, n, p, above)
        out.rejected[at + p] = n - left
        out.restored[at + p] = _restore(days, s, masked, n + 1, p, below * noise)


@kernel
def _find(
    values: NDArray[Any],
    valid: NDArray[np.uint8],
    missing: np.float32,
    state: NDArray[np.uint8],
    clear: NDArray[np.uint8],
) -> None:
    """Restore an item that has data, where the observation is still to be restored."""
    for p in range(state.size):
        value = np.float32(values[p])
        has = (valid[p] != 0) & (value != missing) & (value - value == _ZERO32)
        use = has & (state[p] == RESTORED)
        clear[p] = _ON if use else clear[p]
        state[p] = MASKED if use else state[p]


@kernel
def _set(state: NDArray[np.uint8], which: np.uint8, flag: np.uint8, clear: NDArray[Any]) -> None:
    for p in range(state.size):
        clear[p] = flag if state[p] == which else clear[p]


@kernel
def _write_spikes(
    stacks: Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    at: int,
    s: Spikes,
    clear: NDArray[np.uint8],
) -> None:
    """Mask all items of what is rejected; clear the first with data of what is restored."""
    for t in range(s.values.shape[0]):
        for item in range(first[t], first[t + 1]):
            out = clear[item, at : at + WIDE]
            state = s.state[t, : out.size]
            _set(state, REJECTED, NONE, out)
            if first[t + 1] - first[t] == 1:
                _set(state, RESTORED, _ON, out)
            else:
                a, c = row_of(stacks[0], item, at, out.size), row_of(stacks[2], item, at, out.size)
                _find(a, c, missing, state, out)


@kernel
def despike_blocks(  # noqa: PLR0913, PLR0917 - a kernel's arguments
    start: int,
    stop: int,
    stacks: Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    screen: int,
    days: NDArray[np.float64],
    limits: tuple[float, float],
    r: Spikes,
    out: Marks,
) -> None:
    """Blocks start..stop − 1. screen: address of `screen_spikes`, the same for all dtypes."""
    rows, clear = borrowed(stacks), borrow(out.clear)
    values, state = borrow(r.values), borrow(r.state)
    s = Spikes(values, state, r.v, r.day, r.square, r.at, r.before, r.after, r.masked, r.right)
    for block in range(start, stop):
        at = block * WIDE
        _load_spikes(rows, first, missing, at, min(WIDE, out.rejected.size - at), s)
        call(screen, (days, limits, s, out, at))
        _write_spikes(rows, first, missing, at, s, clear)
