"""Outlier screens over a whole time series: despike and Tmask.

Both run before compositing and change the clear mask only. Despike is the noise screen of FORCE
(Frantz 2019, Remote Sensing 11(9), 1124), whose noise is that of Vermote et al. 2009 (TGRS 47(6)).
Tmask is that of Zhu & Woodcock 2014 (RSE 152) in the form that CCDC and pyccd have given it.
`despike` and `tmask` say what differs from those programs, and why.

Every pixel is computed from its own series alone: items that are clear nowhere in it change no bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcengine.errors import InputError
from lcengine.kernels import NODATA
from lcengine.kernels._jit import address_of, borrow, call, kernel, run_threaded

MAX_OBSERVATIONS: Final = 1024
"""Most observations of one pixel."""
MIN_TMASK: Final = 12
"""Tmask does not judge fewer clear observations: the shortest window that pyccd fits."""

_YEAR: Final = 365.25  # days
_TUNE: Final = 4.685 / 0.6745  # bisquare's constant over the MAD of the normal distribution
_DEPENDENT: Final = 1e-10  # share of a column's energy that the columns before it leave over
_DECIMALS: Final = 3
_MAX_RATIO: Final = 1000.0
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")

_WIDE: Final = 256  # pixels of a block of despike
_NONE, _MASKED, _CLEAR, _REJECTED, _RESTORED = (np.uint8(state) for state in range(5))
_ON, _ZERO32 = np.uint8(1), np.float32(0)  # typed: Python's numbers have 64 bits in a kernel

_P: Final = 64  # pixels of a block of Tmask: constant, and with it the offsets of rows of sums
_INF32: Final = np.float32(np.inf)
_INFINITE: Final = np.int32(_INF32.view(np.int32))  # its bits
_ZERO, _ONE, _TOP = np.int32(0), np.int32(1), np.int32(1 << 30)


def _check(name: str, ratio: float, least: float, most: float) -> None:
    if not least <= ratio <= most or round(ratio, _DECIMALS) != ratio:
        raise InputError(
            f"got {name} {ratio!r}, expected {least:g} to {most:g} with at most "
            f"{_DECIMALS} decimals"
        )


def _ratios(text: str, name: str, count: int, expected: str) -> list[float]:
    """The numbers of `name` or `name:number:…`: none or `count` of them."""
    head, *rest = text.strip().split(":")
    plain = all(_NUMBER.fullmatch(part) for part in rest)
    if head != name or len(rest) not in (0, count) or not plain:
        raise InputError(f"got outlier screen {text!r}, expected {expected}")
    return [float(part) for part in rest]


@dataclass(frozen=True, slots=True)
class Despike:
    """Options of `despike`, in multiples of the series' noise; at most three decimals.

    above: 1..1000, larger residuals are rejected (the largest is never below the noise itself).
    below: 0..above, masked observations with smaller residuals are restored; 0 restores none.

    Raises:
        InputError: a number out of range.
    """

    above: float = 3.0
    below: float = 1.0

    def __post_init__(self) -> None:
        _check("despike above", self.above, 1, _MAX_RATIO)
        _check("despike below", self.below, 0, self.above)

    @classmethod
    def parse(cls, text: str) -> Despike:
        """Read `despike` or `despike:ABOVE:BELOW`.

        Raises:
            InputError: anything else.
        """
        return cls(*_ratios(text, "despike", 2, "'despike' or 'despike:ABOVE:BELOW'"))

    def __str__(self) -> str:
        return f"despike:{self.above:g}:{self.below:g}"


@dataclass(frozen=True, slots=True)
class Tmask:
    """Options of `tmask`: residuals of more than `multiple` × the variogram are rejected.

    multiple: 0..1000, at most three decimals.

    Raises:
        InputError: multiple out of range.
    """

    multiple: float = 4.89

    def __post_init__(self) -> None:
        _check("tmask multiple", self.multiple, 0, _MAX_RATIO)

    @classmethod
    def parse(cls, text: str) -> Tmask:
        """Read `tmask` or `tmask:MULTIPLE`.

        Raises:
            InputError: anything else.
        """
        return cls(*_ratios(text, "tmask", 1, "'tmask' or 'tmask:MULTIPLE'"))

    def __str__(self) -> str:
        return f"tmask:{self.multiple:g}"


class Screened(NamedTuple):
    """clear (N, H, W) uint8, 1 = clear; observations rejected and restored, (H, W) uint16."""

    clear: NDArray[np.uint8]
    rejected: NDArray[np.uint16]
    restored: NDArray[np.uint16]


def despike(  # noqa: PLR0913 - the options are the recipe
    values: NDArray[Any],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    valid: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None,
    days: ArrayLike,
    *,
    above: float = 3.0,
    below: float = 1.0,
    parallel: bool = False,
) -> Screened:
    """Reject spikes of a series and restore masked observations that lie on its course.

    Items of one group are one observation: at each pixel the first clear one, or where none is
    clear the first that has data. A clear observation's residual is its distance, to either side
    (clouds are bright, shadows dark), from the line through the clear observations next to it in
    time. Noise is the root of the mean squared residual. While the largest residual (the earliest
    of equal ones) exceeds above × noise, that observation is rejected and all is computed anew.
    Then every masked observation whose residual against the line between the remaining neighbours
    is below `below` × noise is restored; rejected ones never are.

    The first and last clear observations have no residual. As in FORCE, such an end is rejected in
    place of its neighbour, where this has the largest residual but agrees better than the end with
    the observation on its other side. Nothing is restored beyond the ends. Fewer than four clear
    observations (two residuals) change nothing; and as none of n residuals exceeds √n × noise,
    rejection at 3 needs at least twelve.

    Other than FORCE: slopes are not rounded to whole units per day; between neighbours of one time
    lies their mean (FORCE: half their difference); what is restored is no neighbour to what comes
    later, so the direction of time does not matter.

    Args:
        values: (N, H, W) int16, uint16 or float32: the band of the shortest wavelength. No data:
            −32768, 0, and what is not finite.
        clear: (N, H, W) uint8 or bool, nonzero = clear.
        valid: (N, H, W) uint8 or bool, nonzero = has data, clear or not. Where there is none
            `clear` is ignored and kept.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        days: (N,) or one per observation, non-decreasing; a group has that of its first item.
        above: reject above this multiple of the noise, 1..1000.
        below: restore below this multiple of the noise, 0..above.
        parallel: use every CPU. The result is the same.

    Returns:
        The new mask and the numbers of rejected and restored observations. All items of a rejected
        observation are masked; the item that stands for a restored one becomes clear.

    Raises:
        InputError: dtypes, shapes, groups, days or options do not fit, or more than 1024
            observations.
    """
    options = Despike(above, below)
    first, when = _observations(values, groups, days)
    masks = _mask(clear, values, "clear"), _mask(valid, values, "valid")
    out = _unchanged(masks[0])
    stacks = (_stack(values), _stack(masks[0]), _stack(masks[1]))
    missing, limits = np.float32(_missing(values)), (float(options.above), float(options.below))
    screen = address_of(_screen_spikes, when, limits, _Spikes.empty(1), out, 0)

    def run(start: int, stop: int) -> None:
        rows = _Spikes.empty(when.size)
        _despike_blocks(start, stop, stacks, first, missing, screen, when, limits, rows, out)

    _spread(run, _WIDE, out, parallel)
    return _screened(out, values)


def tmask(
    green: NDArray[Any],
    swir16: NDArray[Any],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None,
    days: ArrayLike,
    *,
    multiple: float = 4.89,
    parallel: bool = False,
) -> Screened:
    """Reject observations far from a robust harmonic model of the pixel's series.

    Items of one group are one observation: at each pixel the first clear one with data in both
    bands. A band's model is 1, cos and sin of the annual cycle (365.25 days), cos and sin of one
    cycle over all ⌈years⌉ of the pixel's clear series; up to one year the two cycles are the same
    and the model has one. It is fitted by iteratively reweighted least squares in float64: an
    ordinary and four weighted fits with bisquare weights, c = 4.685, of the residuals divided by
    σ·√(1 − min(h, 0.9999)); h is the leverage, and σ the median of the absolute values of such
    residuals but the rank − 1 smallest, over 0.6745. An observation is rejected if in either band
    |residual| exceeds multiple × variogram, the median of the absolute differences between
    successive clear observations.

    Fewer than 12 clear observations, or a variogram of 0 in either band, reject nothing.

    As in pyccd residuals count to both sides; CCDC's own Tmask rejects bright green and dark SWIR
    only. Other than pyccd: the model has a constant, as CCDC's, without which cycles cannot fit a
    series of several years; σ leaves out rank − 1 residuals, as CCDC's, not always four; columns
    that depend on others are left out (pyccd: least norm, the same curve); σ is at least 1e-6 ×
    variogram, so that exact fits have weights; no test of convergence (pyccd's looks at one sign).
    The medians are of float32.

    Args:
        green: (N, H, W) int16, uint16 or float32. No data: −32768, 0, and what is not finite.
        swir16: as `green`, of the same dtype: the band at 1.6 µm.
        clear: (N, H, W) uint8 or bool, nonzero = clear. Ignored and kept where a band has no data.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        days: (N,) or one per observation, non-decreasing; a group has that of its first item.
        multiple: reject above this multiple of the variogram, 0..1000.
        parallel: use every CPU. The result is the same.

    Returns:
        The new mask, in which all items of a rejected observation are masked, the number of
        rejected observations, and zeros.

    Raises:
        InputError: dtypes, shapes, groups, days or multiple do not fit, or more than 1024
            observations.
    """
    options = Tmask(multiple)
    first, when = _observations(green, groups, days)
    if swir16.dtype != green.dtype or swir16.shape != green.shape:
        raise InputError(
            f"got swir16 {swir16.dtype} of shape {swir16.shape}, expected that of green, "
            f"{green.dtype} of shape {green.shape}"
        )
    mask = _mask(clear, green, "clear")
    out = _unchanged(mask)
    if when.size >= MIN_TMASK:
        stacks = (_stack(green), _stack(swir16), _stack(mask))
        model = _Model.of(when, float(options.multiple))
        fits = [_span, _variogram, _fit, _leverages] + 4 * [_bisquare, _fit] + [_judge]
        stages = np.array([address_of(fit, model, _Fit.empty(2), 0) for fit in fits], np.int64)

        def run(start: int, stop: int) -> None:
            s = _Fit.empty(when.size)
            _tmask_blocks(start, stop, stacks, first, _missing(green), stages, model, s, out)

        _spread(run, _P, out, parallel)
    return _screened(out, green)


class _Stack(NamedTuple):
    """(item, pixel) as flat memory: the pixels of item i lie from i × step on."""

    memory: NDArray[Any]
    step: int


class _Output(NamedTuple):
    """clear (item, pixel) uint8; counts (pixel,) uint16."""

    clear: NDArray[np.uint8]
    rejected: NDArray[np.uint16]
    restored: NDArray[np.uint16]


_Stacks = tuple[_Stack, _Stack, _Stack]


def _observations(
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


def _mask(mask: NDArray[Any], values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if mask.dtype not in (np.uint8, np.bool_) or mask.shape != values.shape:
        raise InputError(
            f"got {name} {mask.dtype} of shape {mask.shape}, expected uint8 or bool {values.shape}"
        )
    return mask.view(np.uint8)


def _missing(values: NDArray[Any]) -> float:
    """The code of no data; NaN equals nothing, what is not finite is missing anyway."""
    return {"int16": float(NODATA), "uint16": 0.0}.get(values.dtype.name, math.nan)


def _stack(array: NDArray[Any]) -> _Stack:
    """Flat memory, without a copy where rows and columns are contiguous."""
    flat = array.reshape(len(array), array.shape[1] * array.shape[2])
    size = flat.itemsize
    if flat.strides[1] != size or flat.strides[0] % size or flat.strides[0] < 0:
        flat = np.ascontiguousarray(flat)
    step = flat.strides[0] // size
    length = (len(flat) - 1) * step + flat.shape[1] if flat.size else 0
    memory = np.lib.stride_tricks.as_strided(flat, (length,), (size,), writeable=False)
    return _Stack(memory, step)


def _unchanged(mask: NDArray[np.uint8]) -> _Output:
    clear = np.empty(mask.shape, np.bool_)
    np.not_equal(mask, 0, out=clear)
    pixels = mask.shape[1] * mask.shape[2]
    counts = np.zeros((2, pixels), np.uint16)
    return _Output(clear.view(np.uint8).reshape(len(mask), pixels), counts[0], counts[1])


def _spread(run: Callable[[int, int], None], size: int, out: _Output, parallel: bool) -> None:
    """Call `run` on the numbers of the blocks of `size` pixels."""
    blocks = -(-out.rejected.size // size)
    if parallel:
        run_threaded(run, blocks)
    else:
        run(0, blocks)


def _screened(out: _Output, values: NDArray[Any]) -> Screened:
    rejected, restored = (count.reshape(values.shape[1:]) for count in out[1:])
    return Screened(out.clear.reshape(values.shape), rejected, restored)


@kernel
def _row(stack: _Stack, item: int, at: int, n: int) -> NDArray[Any]:
    """Pixels at..at + n − 1 of an item; indices that cannot be negative let loops vectorise."""
    start = item * stack.step + at
    return stack.memory[start : start + n]


@kernel
def _borrowed(stacks: _Stacks) -> _Stacks:
    a, b, c = stacks
    return (
        _Stack(borrow(a.memory), a.step),
        _Stack(borrow(b.memory), b.step),
        _Stack(borrow(c.memory), c.step),
    )


# ---------------------------------------------------------------------------------------- despike


class _Spikes(NamedTuple):
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
    def empty(cls, observations: int) -> _Spikes:
        block, row = (observations, _WIDE), observations + 8
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
        rank = _CLEAR if clear[p] != 0 else _MASKED
        use = has & (rank > state[p])
        value[p] = new if use else value[p]
        state[p] = rank if use else state[p]


@kernel
def _load_spikes(
    stacks: _Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    at: int,
    n: int,
    s: _Spikes,
) -> None:
    """What stands for each observation of the n pixels from `at` on."""
    values, clear, valid = stacks
    for t in range(s.values.shape[0]):
        value, state = s.values[t, :n], s.state[t, :n]
        state[:] = _NONE
        for item in range(first[t], first[t + 1]):
            a, b = _row(values, item, at, n), _row(clear, item, at, n)
            _offer(a, b, _row(valid, item, at, n), missing, value, state)


@kernel
def _gather(days: NDArray[np.float64], p: int, s: _Spikes) -> tuple[int, int]:
    """A pixel's clear observations, as rows from 1 on, and its masked ones; their numbers."""
    n, m = 0, 0
    for t in range(days.size):
        state = s.state[t, p]
        s.v[n + 1], s.day[n + 1], s.at[n + 1] = s.values[t, p], days[t], t
        s.masked[m], s.right[m] = t, n + 1
        n += state == _CLEAR
        m += state == _MASKED
    for j in range(n + 2):
        s.before[j], s.after[j] = j - 1, j + 1
    s.before[0], s.after[n + 1] = 0, n + 1
    return n, m


@kernel
def _off(s: _Spikes, a: int, b: int, day: float, value: float) -> Any:
    """How far a value lies above the line through rows a and b; exact where days are whole."""
    width, part = s.day[b] - s.day[a], day - s.day[a]
    if not width > 0.0:
        width, part = 2.0, 1.0  # the mean
    return ((value - s.v[a]) * width - (s.v[b] - s.v[a]) * part) / width


@kernel
def _square(s: _Spikes, j: int, end: int) -> None:
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
def _blamed(s: _Spikes, j: int, end: int) -> Any:
    """The row to reject for the residual of row j: an end of the series, or j itself."""
    a, b = s.before[j], s.after[j]
    span = abs(s.v[a] - s.v[b])
    if s.before[a] == 0 and span > abs(s.v[j] - s.v[b]):
        return a
    if s.after[b] == end and span > abs(s.v[j] - s.v[a]):
        return b
    return j


@kernel
def _reject(s: _Spikes, n: int, p: int, above: float) -> tuple[int, float]:
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
        s.state[s.at[worst], p] = _REJECTED
        a, b = s.before[worst], s.after[worst]
        s.after[a], s.before[b], s.square[worst] = b, a, 0.0
        _square(s, a, end)
        _square(s, b, end)
        n -= 1
    return n, noise


@kernel
def _restore(days: NDArray[np.float64], s: _Spikes, m: int, end: int, p: int, bound: float) -> int:
    """Mark those of m masked observations that are nearer to the line than `bound`; how many."""
    restored = 0
    if not bound > 0.0:
        return restored
    for i in range(m):
        t, right = s.masked[i], s.right[i]
        while right < end and s.state[s.at[right], p] == _REJECTED:
            right = s.after[right]
        left = s.before[right]
        if left > 0 and right < end:
            near = abs(_off(s, left, right, days[t], np.float64(s.values[t, p]))) < bound
            s.state[t, p] = _RESTORED if near else _MASKED
            restored += near
    return restored


@kernel
def _screen_spikes(
    days: NDArray[np.float64], limits: tuple[float, float], s: _Spikes, out: _Output, at: int
) -> None:
    """Judge the observations of a block."""
    above, below = limits
    for p in range(min(_WIDE, out.rejected.size - at)):
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
        use = has & (state[p] == _RESTORED)
        clear[p] = _ON if use else clear[p]
        state[p] = _MASKED if use else state[p]


@kernel
def _set(state: NDArray[np.uint8], which: np.uint8, flag: np.uint8, clear: NDArray[Any]) -> None:
    for p in range(state.size):
        clear[p] = flag if state[p] == which else clear[p]


@kernel
def _write_spikes(
    stacks: _Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    at: int,
    s: _Spikes,
    clear: NDArray[np.uint8],
) -> None:
    """Mask all items of what is rejected; clear the first with data of what is restored."""
    for t in range(s.values.shape[0]):
        for item in range(first[t], first[t + 1]):
            out = clear[item, at : at + _WIDE]
            state = s.state[t, : out.size]
            _set(state, _REJECTED, _NONE, out)
            if first[t + 1] - first[t] == 1:
                _set(state, _RESTORED, _ON, out)
            else:
                a, c = _row(stacks[0], item, at, out.size), _row(stacks[2], item, at, out.size)
                _find(a, c, missing, state, out)


@kernel
def _despike_blocks(  # noqa: PLR0913, PLR0917 - a kernel's arguments
    start: int,
    stop: int,
    stacks: _Stacks,
    first: NDArray[np.int64],
    missing: np.float32,
    screen: int,
    days: NDArray[np.float64],
    limits: tuple[float, float],
    r: _Spikes,
    out: _Output,
) -> None:
    """Blocks start..stop − 1. screen: address of `_screen_spikes`, the same for all dtypes."""
    rows, clear = _borrowed(stacks), borrow(out.clear)
    values, state = borrow(r.values), borrow(r.state)
    s = _Spikes(values, state, r.v, r.day, r.square, r.at, r.before, r.after, r.masked, r.right)
    for block in range(start, stop):
        at = block * _WIDE
        _load_spikes(rows, first, missing, at, min(_WIDE, out.rejected.size - at), s)
        call(screen, (days, limits, s, out, at))
        _write_spikes(rows, first, missing, at, s, clear)


# ------------------------------------------------------------------------------------------ Tmask


class _Model(NamedTuple):
    """What does not depend on the pixel; angles are counted from day 0.

    days (observation,); annual cos and sin (observation, 2), with zeros to an even number of rows;
    cos and sin of the cycle of y years (observation, y), 0 up to one.
    """

    days: NDArray[np.float64]
    annual: NDArray[np.float64]
    cosines: NDArray[np.float64]
    sines: NDArray[np.float64]
    multiple: float

    @classmethod
    def of(cls, days: NDArray[np.float64], multiple: float) -> _Model:
        most = math.ceil((days[-1] - days[0]) / _YEAR)
        # Number by number: the bits must not depend on the other observations.
        angles = [2 * math.pi / _YEAR * day for day in days.tolist()]
        slow = np.zeros((2, days.size, most + 1))
        for years in range(2, most + 1):
            slow[0, :, years] = [math.cos(angle / years) for angle in angles]
            slow[1, :, years] = [math.sin(angle / years) for angle in angles]
        annual = np.zeros((days.size + days.size % 2, 2))
        annual[: days.size] = [(math.cos(angle), math.sin(angle)) for angle in angles]
        return cls(days, annual, slow[0], slow[1], multiple)


class _Fit(NamedTuple):
    """A block's series and sums; float64 where nothing is said.

    (observation, pixel), with zeros to an even number of rows: y of both bands, 0 where not taken;
    take, 1 or 0; cos and sin of the slow cycle; weight, also |residual|; adjust, 1/√(1 − h); bad,
    1 = rejected. sums: (20 × pixel) normal equations, the lower triangle by rows, the right-hand
    side as sixth row; inverse of the pivots and beta, the coefficients, (5 × pixel). work:
    (observation, pixel) float32 whose median is wanted, inf where there is none; bits, picked:
    work and pick in the other type. The rest: (pixel,).
    """

    y: NDArray[np.float64]
    take: NDArray[np.float64]
    cos: NDArray[np.float64]
    sin: NDArray[np.float64]
    weight: NDArray[np.float64]
    adjust: NDArray[np.float64]
    bad: NDArray[np.float64]
    sums: NDArray[np.float64]
    inverse: NDArray[np.float64]
    beta: NDArray[np.float64]
    work: NDArray[np.float32]
    bits: NDArray[np.int32]
    picked: NDArray[np.float32]
    pick: NDArray[np.int32]
    place: NDArray[np.int32]
    seen: NDArray[np.float64]
    rank: NDArray[np.float64]
    variogram: NDArray[np.float64]
    median: NDArray[np.float64]
    before: NDArray[np.float64]
    years: NDArray[np.float64]
    judged: NDArray[np.float64]

    @classmethod
    def empty(cls, observations: int) -> _Fit:
        block = np.zeros((8, observations + observations % 2, _P))
        work = np.full((-(-observations // 8) * 8, _P), np.inf, np.float32)
        picked = np.zeros((4, _P), np.float32)
        fields: list[Any] = [block[:2], *block[2:]]
        fields += [np.zeros(20 * _P), np.zeros(5 * _P), np.zeros(5 * _P)]
        fields += [work, work.view(np.int32), picked, picked.view(np.int32)]
        fields += [np.zeros(_P, np.int32), *np.zeros((7, _P))]
        return cls(*fields)


@kernel
def _load_fit(
    stacks: _Stacks, first: NDArray[np.int64], missing: float, at: int, n: int, s: _Fit
) -> None:
    """The clear observations of the n pixels from `at` on; the block's other pixels have none."""
    green, swir, clear = stacks
    for t in range(first.size - 1):
        s.take[t, :], s.y[0, t, :], s.y[1, t, :], s.bad[t, :] = 0.0, 0.0, 0.0, 0.0
        for item in range(first[t], first[t + 1]):
            a, b, c = _row(green, item, at, n), _row(swir, item, at, n), _row(clear, item, at, n)
            for p in range(n):
                u, v = np.float64(a[p]), np.float64(b[p])
                has = (u != missing) & (v != missing) & (u - u == 0.0) & (v - v == 0.0)
                use = has & (c[p] != 0) & (s.take[t, p] == 0.0)
                s.take[t, p] = 1.0 if use else s.take[t, p]
                s.y[0, t, p] = u if use else s.y[0, t, p]
                s.y[1, t, p] = v if use else s.y[1, t, p]


@kernel
def _span(model: _Model, s: _Fit, band: int) -> None:
    """Stage before the bands: count the observations, and fill in the slow cycle."""
    s.seen[:], s.years[:] = 0.0, 0.0
    for t in range(model.days.size):
        day = model.days[t]
        for p in range(_P):
            new = (s.take[t, p] != 0.0) & (s.seen[p] == 0.0)
            s.before[p] = day if new else s.before[p]
            s.years[p] = (day - s.before[p]) / _YEAR if s.take[t, p] != 0.0 else s.years[p]
            s.seen[p] += s.take[t, p]
    for p in range(_P):
        s.years[p] = np.ceil(s.years[p])
        s.judged[p] = 1.0 if s.seen[p] >= MIN_TMASK else 0.0
    for t in range(model.days.size):
        for p in range(_P):
            years = np.int64(s.years[p])
            s.cos[t, p], s.sin[t, p] = model.cosines[t, years], model.sines[t, years]


@kernel
def _add(model: _Model, s: _Fit, band: int, t: int) -> None:
    """Add two observations to the normal equations: columns 1, c, d, slow cos e, slow sin f."""
    sums, u = s.sums, t + 1
    c, d, g, h = model.annual[t, 0], model.annual[t, 1], model.annual[u, 0], model.annual[u, 1]
    for p in range(_P):
        w, e, f, y = s.weight[t, p], s.cos[t, p], s.sin[t, p], s.y[band, t, p]
        v, i, j, z = s.weight[u, p], s.cos[u, p], s.sin[u, p], s.y[band, u, p]
        wc, wd, we, wf, wy = w * c, w * d, w * e, w * f, w * y
        vg, vh, vi, vj, vz = v * g, v * h, v * i, v * j, v * z
        sums[p] = sums[p] + w + v
        sums[_P + p] = sums[_P + p] + wc + vg
        sums[2 * _P + p] = sums[2 * _P + p] + wc * c + vg * g
        sums[3 * _P + p] = sums[3 * _P + p] + wd + vh
        sums[4 * _P + p] = sums[4 * _P + p] + wd * c + vh * g
        sums[5 * _P + p] = sums[5 * _P + p] + wd * d + vh * h
        sums[6 * _P + p] = sums[6 * _P + p] + we + vi
        sums[7 * _P + p] = sums[7 * _P + p] + we * c + vi * g
        sums[8 * _P + p] = sums[8 * _P + p] + we * d + vi * h
        sums[9 * _P + p] = sums[9 * _P + p] + we * e + vi * i
        sums[10 * _P + p] = sums[10 * _P + p] + wf + vj
        sums[11 * _P + p] = sums[11 * _P + p] + wf * c + vj * g
        sums[12 * _P + p] = sums[12 * _P + p] + wf * d + vj * h
        sums[13 * _P + p] = sums[13 * _P + p] + wf * e + vj * i
        sums[14 * _P + p] = sums[14 * _P + p] + wf * f + vj * j
        sums[15 * _P + p] = sums[15 * _P + p] + wy + vz
        sums[16 * _P + p] = sums[16 * _P + p] + wy * c + vz * g
        sums[17 * _P + p] = sums[17 * _P + p] + wy * d + vz * h
        sums[18 * _P + p] = sums[18 * _P + p] + wy * e + vz * i
        sums[19 * _P + p] = sums[19 * _P + p] + wy * f + vz * j


@kernel
def _at(i: int, j: int) -> int:
    """Where row i, column j of the lower triangle lies in `sums`."""
    return (i * (i + 1) // 2 + j) * _P


@kernel
def _solve(s: _Fit) -> None:
    """LDLᵀ in place, its rank, and the coefficients; those of dependent columns are 0."""
    sums, inverse, beta = s.sums, s.inverse, s.beta
    for k in range(5):
        for p in range(_P):
            beta[k * _P + p] = sums[_at(k, k) + p] * _DEPENDENT
    s.rank[:] = 0.0
    for p in range(_P):
        for k in range(5):
            pivot = sums[_at(k, k) + p]
            real = pivot > beta[k * _P + p]
            scale = 1.0 / pivot if real else 0.0
            inverse[k * _P + p] = scale
            s.rank[p] += 1.0 if real else 0.0
            for i in range(k + 1, 6):
                factor = sums[_at(i, k) + p] * scale
                for j in range(k + 1, min(i, 4) + 1):
                    sums[_at(i, j) + p] -= factor * sums[_at(j, k) + p]
    for p in range(_P):
        for k in range(4, -1, -1):
            rest = sums[_at(5, k) + p]
            for i in range(k + 1, 5):
                rest -= sums[_at(i, k) + p] * beta[i * _P + p]
            beta[k * _P + p] = rest * inverse[k * _P + p]


@kernel
def _fit(model: _Model, s: _Fit, band: int) -> None:
    """Stage: weighted least squares; then `weight` is |y − model|, 0 where not taken."""
    s.sums[:] = 0.0
    for t in range(0, s.take.shape[0], 2):
        _add(model, s, band, t)
    _solve(s)
    beta = s.beta
    for t in range(s.take.shape[0]):
        c, d = model.annual[t, 0], model.annual[t, 1]
        for p in range(_P):
            fit = beta[p] + beta[_P + p] * c + beta[2 * _P + p] * d
            fit += beta[3 * _P + p] * s.cos[t, p] + beta[4 * _P + p] * s.sin[t, p]
            s.weight[t, p] = abs(s.y[band, t, p] - fit) * s.take[t, p]


@kernel
def _leverages(model: _Model, s: _Fit, band: int) -> None:
    """Stage: 1/√(1 − h) of the observations, h = xᵀ(XᵀX)⁻¹x by forward substitution."""
    sums, inverse = s.sums, s.inverse
    for t in range(s.take.shape[0]):
        c, d = model.annual[t, 0], model.annual[t, 1]
        for p in range(_P):
            q0 = inverse[p]
            z1 = c - sums[_P + p] * q0
            q1 = z1 * inverse[_P + p]
            z2 = d - sums[3 * _P + p] * q0 - sums[4 * _P + p] * q1
            q2 = z2 * inverse[2 * _P + p]
            z3 = s.cos[t, p] - sums[6 * _P + p] * q0 - sums[7 * _P + p] * q1 - sums[8 * _P + p] * q2
            q3 = z3 * inverse[3 * _P + p]
            z4 = s.sin[t, p] - sums[10 * _P + p] * q0 - sums[11 * _P + p] * q1
            z4 -= sums[12 * _P + p] * q2 + sums[13 * _P + p] * q3
            h = q0 + z1 * q1 + z2 * q2 + z3 * q3 + z4 * z4 * inverse[4 * _P + p]
            s.adjust[t, p] = 1.0 / np.sqrt(1.0 - min(h, 0.9999))


@kernel
def _count(bits: NDArray[np.int32], bound: NDArray[np.int32], count: NDArray[np.int32]) -> None:
    """How many of each column are smaller than its bound; eight rows at a time."""
    count[:] = 0
    for t in range(0, bits.shape[0], 8):
        for p in range(_P):
            least, n = bound[p], count[p]
            for row in range(8):
                n += np.int32(bits[t + row, p] < least)
            count[p] = n


@kernel
def _median(s: _Fit, fewer: float) -> None:
    """Median of `work` without the rank − 1 smallest; there are seen − fewer values.

    The bits of floats that are not negative sort as integers: bit by bit from the highest, the
    wanted value has it if no more values lie below than its rank.
    """
    low, high, bound, count = s.pick[0], s.pick[1], s.pick[2], s.pick[3]
    place, bits = s.place, s.bits
    for p in range(_P):
        place[p] = np.int32(np.floor(0.5 * (s.seen[p] - fewer - s.rank[p])) + s.rank[p] - 1.0)
        low[p], high[p], bound[p] = _ZERO, _INFINITE, _TOP
    bit = _TOP
    while bit > 0:
        _count(bits, bound, count)
        half = bit >> 1
        for p in range(_P):
            low[p] = bound[p] if count[p] <= place[p] else low[p]
            bound[p] = low[p] | half
        bit = half
    for p in range(_P):
        bound[p] = low[p] + _ONE
    _count(bits, bound, count)
    for t in range(bits.shape[0]):
        for p in range(_P):
            value = bits[t, p] if bits[t, p] > low[p] else _INFINITE
            high[p] = value if value < high[p] else high[p]
    for p in range(_P):
        even = 0.5 * (s.seen[p] - fewer - s.rank[p])
        a = np.float64(s.picked[0, p])
        same = (even == np.floor(even)) | (count[p] > place[p] + _ONE)
        s.median[p] = 0.5 * (a + (a if same else np.float64(s.picked[1, p])))


@kernel
def _variogram(model: _Model, s: _Fit, band: int) -> None:
    """Stage: the median difference of successive observations, and equal weights."""
    s.rank[:], s.before[:] = 1.0, np.inf
    for t in range(s.take.shape[0]):
        for p in range(_P):
            step = np.float32(abs(s.y[band, t, p] - s.before[p]))
            s.work[t, p] = step if s.take[t, p] != 0.0 else _INF32
            s.before[p] = s.y[band, t, p] if s.take[t, p] != 0.0 else s.before[p]
            s.weight[t, p] = s.take[t, p]  # copying whole arrays takes seconds to compile
    _median(s, 1.0)
    for p in range(_P):
        s.variogram[p] = s.median[p]
        s.judged[p] = s.judged[p] if s.median[p] > 0.0 else 0.0


@kernel
def _bisquare(model: _Model, s: _Fit, band: int) -> None:
    """Stage: weights in the place of the residuals that they are made of."""
    for t in range(s.take.shape[0]):
        for p in range(_P):
            s.weight[t, p] *= s.adjust[t, p]
            s.work[t, p] = np.float32(s.weight[t, p]) if s.take[t, p] != 0.0 else _INF32
    _median(s, 0.0)
    for p in range(_P):
        s.median[p] = 1.0 / (_TUNE * max(s.median[p], 0.6745e-6 * s.variogram[p]))
    for t in range(s.take.shape[0]):
        for p in range(_P):
            ratio = s.weight[t, p] * s.median[p]
            rest = 1.0 - ratio * ratio
            s.weight[t, p] = s.take[t, p] * (rest * rest) if ratio < 1.0 else 0.0


@kernel
def _judge(model: _Model, s: _Fit, band: int) -> None:
    """Stage: note the outliers of the band."""
    for t in range(s.take.shape[0]):
        for p in range(_P):
            far = s.weight[t, p] > model.multiple * s.variogram[p]
            s.bad[t, p] = 1.0 if far else s.bad[t, p]


@kernel
def _write_outliers(s: _Fit, first: NDArray[np.int64], at: int, n: int, out: _Output) -> None:
    for t in range(first.size - 1):
        for p in range(n):
            if s.bad[t, p] * s.judged[p] != 0.0:
                out.clear[first[t] : first[t + 1], at + p] = 0
                out.rejected[at + p] += 1


@kernel
def _tmask_blocks(  # noqa: PLR0913, PLR0917 - a kernel's arguments
    start: int,
    stop: int,
    stacks: _Stacks,
    first: NDArray[np.int64],
    missing: float,
    stages: NDArray[np.int64],
    model: _Model,
    s: _Fit,
    out: _Output,
) -> None:
    """Blocks start..stop − 1. stages: addresses of `_span` and of what is done to each band."""
    rows = _borrowed(stacks)
    for block in range(start, stop):
        at = block * _P
        n = min(_P, out.rejected.size - at)
        _load_fit(rows, first, missing, at, n, s)
        call(stages[0], (model, s, 0))
        if s.judged.max() == 0.0:
            continue
        for band in range(2):
            for stage in stages[1:]:
                call(stage, (model, s, band))
        _write_outliers(s, first, at, n, out)
