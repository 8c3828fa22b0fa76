"""Fused per-pixel compositing: choose observations, screen outliers, reduce, in one pass.

References: the robust z-score screen is that of Leys et al. 2013, J. Exp. Soc. Psychol. 49(4); the
percentile rules are NumPy's `linear` and the `nearest` of eo-learn, which selects a real value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import local
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.errors import InputError
from lcengine.kernels import NODATA, scratch, strips
from lcengine.kernels._jit import run_threaded
from lcengine.kernels.networks import selection_network

MAX_OBSERVATIONS: Final = 1024
"""Most observations of one pixel: sums stay in 32 bits and the scratch in the second cache."""

_DECIMALS: Final = 3  # of a percentile and of the screen's k
_MAX_K: Final = 1000.0
_MAX_FLOOR: Final = 32767
_MAX_SCREEN_BANDS: Final = 64
_STRIP_BYTES: Final = 1_250_000  # of the cube in one strip: about the second cache
_NARROW, _WIDE, _LINE = 256, 1024, 32  # pixels of a strip; of a cache line
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


def _number(text: str, whole: str, expected: str) -> float:
    """Parse a plain decimal with at most three decimals."""
    if _NUMBER.fullmatch(text) is None or len(text.partition(".")[2]) > _DECIMALS:
        raise InputError(f"got {whole!r}, expected {expected}")
    return float(text)


@dataclass(frozen=True, slots=True)
class Reducer:
    """How the valid observations of a pixel become one value, per band.

    name: `median`, `mean` or `percentile`. percent: 0..100, at most three decimals. rule: `linear`
    interpolates as `numpy.percentile`; `nearest` takes index floor((n − 1)·percent/100 + 0.5) of
    the ascending sort. Every result is `np.rint` of the exact value.

    Raises:
        InputError: unknown name or rule, or percent out of range.
    """

    name: Literal["median", "mean", "percentile"] = "median"
    percent: float = 50.0
    rule: Literal["linear", "nearest"] = "linear"

    def __post_init__(self) -> None:
        if self.name not in ("median", "mean", "percentile"):
            raise InputError(
                f"got reducer {self.name!r}, expected 'median', 'mean' or 'percentile'"
            )
        if self.rule not in ("linear", "nearest"):
            raise InputError(f"got percentile rule {self.rule!r}, expected 'linear' or 'nearest'")
        if self.name != "percentile" and (self.percent, self.rule) != (50.0, "linear"):
            raise InputError(
                f"got {self.name} with percent {self.percent} and rule {self.rule!r}, expected "
                "neither; only percentiles have them"
            )
        if not 0 <= self.percent <= 100 or round(self.percent, _DECIMALS) != self.percent:
            raise InputError(
                f"got percentile {self.percent!r}, expected 0 to 100 with at most "
                f"{_DECIMALS} decimals"
            )

    @classmethod
    def parse(cls, text: str) -> Reducer:
        """Read `median`, `mean`, `percentile:25` or `percentile:25:nearest`.

        Raises:
            InputError: anything else.
        """
        expected = "'median', 'mean', 'percentile:P' or 'percentile:P:nearest' with P from 0 to 100"
        name, *rest = text.strip().split(":")
        if name in ("median", "mean") and not rest:
            return cls("median") if name == "median" else cls("mean")
        if name != "percentile" or len(rest) not in (1, 2):
            raise InputError(f"method is {text!r}, expected {expected}")
        percent = _number(rest[0], text, expected)
        if percent > 100 or rest[1:] not in ([], ["linear"], ["nearest"]):
            raise InputError(f"method is {text!r}, expected {expected}")
        return cls("percentile", percent, "nearest" if rest[1:] == ["nearest"] else "linear")

    def __str__(self) -> str:
        if self.name != "percentile":
            return self.name
        rule = "" if self.rule == "linear" else f":{self.rule}"
        return f"percentile:{self.percent:g}{rule}"


@dataclass(frozen=True, slots=True)
class MadScreen:
    """Reject observations far from the pixel's median: 0.6745·|x − m| / MAD > k.

    x is the sum of the screen's bands (visible brightness by default), m its median and MAD the
    median of |x − m|, not less than `floor` (DN of x). k: 0..1000, at most three decimals.

    Raises:
        InputError: k or floor out of range.
    """

    k: float = 3.0
    floor: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.k <= _MAX_K or round(self.k, _DECIMALS) != self.k:
            raise InputError(
                f"got MAD screen k {self.k!r}, expected 0 to {_MAX_K:g} with at most "
                f"{_DECIMALS} decimals"
            )
        if not 0 <= self.floor <= _MAX_FLOOR:
            raise InputError(f"got MAD floor {self.floor!r}, expected 0 to {_MAX_FLOOR}")

    @classmethod
    def parse(cls, text: str) -> MadScreen | None:
        """Read `none` (None), `mad` (k = 3) or `mad:2.5`.

        Raises:
            InputError: anything else.
        """
        expected = f"'none', 'mad' or 'mad:K' with K from 0 to {_MAX_K:g}"
        name, *rest = text.strip().split(":")
        if name == "none" and not rest:
            return None
        if name != "mad" or len(rest) > 1:
            raise InputError(f"got outlier screen {text!r}, expected {expected}")
        return cls(_number(rest[0], text, expected)) if rest else cls()

    def __str__(self) -> str:
        return f"mad:{self.k:g}"


class Composite(NamedTuple):
    """values (n_out, H, W) int16, nodata −32768; count and outliers (H, W) uint16."""

    values: NDArray[np.int16]
    count: NDArray[np.uint16]  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    outliers: NDArray[np.uint16]


MEDIAN: Final = Reducer("median")


def composite(  # noqa: PLR0913 - the options are the recipe
    values: NDArray[np.int16],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None = None,
    *,
    reducer: Reducer = MEDIAN,
    screen: MadScreen | None = None,
    screen_bands: Sequence[int] = (),
    n_out: int | None = None,
    parallel: bool = False,
) -> Composite:
    """Composite a stack of items pixel by pixel.

    An item is valid at a pixel where it is clear and none of its bands is nodata. Items of one
    group are one observation, which uses its first valid item at each pixel.

    Args:
        values: (N, band, H, W) int16, nodata −32768, contiguous along W; any view otherwise.
        clear: (N, H, W) uint8 or bool, nonzero = clear.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        reducer: median, mean or percentile, per band.
        screen: rejects outlying observations before the reducer; fewer than five valid
            observations reject nothing.
        screen_bands: bands whose sum the screen judges.
        n_out: reduce and return only the first n_out bands; None = all.
        parallel: use every CPU. The result is the same.

    Returns:
        The reduced bands, the number of observations that entered the reducer (valid, and not
        rejected by the screen) and the number that the screen rejected. No observation: nodata.

    Raises:
        InputError: dtype, shape, groups, n_out or screen_bands do not fit, or more than 1024
            observations.
    """
    _check_arrays(values, clear)
    items, bands, height, width = values.shape
    first = _first_members(items, groups)
    n_out = bands if n_out is None else n_out
    if not 1 <= n_out <= bands:
        raise InputError(f"got n_out {n_out}, expected 1 to {bands}, the bands of `values`")
    index = _screen_index(screen, screen_bands, bands)
    out = scratch.Output(
        np.empty((n_out, height * width), np.int16),
        np.empty(height * width, np.uint16),
        np.empty(height * width, np.uint16),
    )
    if values.size:
        _run(values, clear, _plan(first, reducer, screen, index), out, parallel)
    else:
        out.values[:] = NODATA
        out.tally[:] = 0
        out.outliers[:] = 0
    shape = (height, width)
    return Composite(
        out.values.reshape(n_out, *shape), out.tally.reshape(shape), out.outliers.reshape(shape)
    )


def _check_arrays(values: NDArray[Any], clear: NDArray[Any]) -> None:
    if values.dtype != np.int16 or values.ndim != 4 or values.shape[1] < 1:
        raise InputError(
            f"got values {values.dtype} of shape {values.shape}, expected int16 (N, band, H, W)"
        )
    if clear.dtype not in (np.uint8, np.bool_):
        raise InputError(f"got clear {clear.dtype}, expected uint8 or bool, nonzero = clear")
    expected = (values.shape[0], *values.shape[2:])
    if clear.shape != expected:
        raise InputError(f"got clear of shape {clear.shape}, expected (N, H, W) = {expected}")
    contiguous = values.shape[3] < 2 or values.strides[3] == values.itemsize
    if values.size and not (contiguous and all(s % values.itemsize == 0 for s in values.strides)):
        raise InputError(
            f"got values with strides {values.strides}, expected W contiguous; pass "
            "np.ascontiguousarray(values)"
        )


def _first_members(items: int, groups: NDArray[Any] | None) -> NDArray[np.int64]:
    """First item of each observation, then the number of items."""
    if groups is None:
        first = np.arange(items + 1, dtype=np.int64)
    else:
        index = np.asarray(groups)
        if index.shape != (items,) or index.dtype.kind not in "iu":
            raise InputError(
                f"got groups {index.dtype} of shape {index.shape}, expected integers ({items},)"
            )
        if np.any(index[1:] < index[:-1]):
            raise InputError("got groups that decrease, expected items sorted by observation")
        starts = np.flatnonzero(index[1:] != index[:-1]) + 1
        first = np.r_[0, starts, items].astype(np.int64) if items else np.zeros(1, np.int64)
    if first.size - 1 > MAX_OBSERVATIONS:
        raise InputError(
            f"got {first.size - 1} observations, expected at most {MAX_OBSERVATIONS}; composite a "
            "shorter period"
        )
    return first


def _screen_index(
    screen: MadScreen | None, screen_bands: Sequence[int], bands: int
) -> NDArray[np.int64]:
    if screen is None:
        return np.empty(0, np.int64)
    index = np.asarray(screen_bands, dtype=np.int64)
    if not 1 <= index.size <= _MAX_SCREEN_BANDS or index.min() < 0 or index.max() >= bands:
        raise InputError(
            f"got screen_bands {tuple(screen_bands)}, expected 1 to {_MAX_SCREEN_BANDS} indices "
            f"from 0 to {bands - 1}"
        )
    return index


@lru_cache(maxsize=64)
def _ranks(observations: int, reducer: Reducer) -> scratch.Ranks:
    """Ranks, fills and weights of a rank reducer, per number n of valid observations.

    With r(n) the lower rank wanted of n values, r(observations) − r(n) of the invalid observations
    sort low. That is never more than there are: r grows by at most one from n to n + 1.
    """
    n = np.arange(observations + 1)
    below = np.maximum(n - 1, 0)
    if reducer.rule == "nearest":
        scale = 100 * 10**_DECIMALS  # in integers: halves must not depend on float rounding
        rank = (below * round(reducer.percent * 10**_DECIMALS) + scale // 2) // scale
        weight = np.zeros(n.size)
    else:
        position = below * (reducer.percent / 100)  # as NumPy computes it, to round alike
        rank = np.floor(position).astype(np.int64)
        weight = position - rank
    lower = int(rank[-1])
    upper = min(lower + 1, observations - 1) if weight.any() else lower
    pairs = selection_network(observations, (lower, upper))
    return scratch.Ranks(pairs, lower, upper, (lower - rank).astype(np.int16), weight)


def _plan(
    first: NDArray[np.int64],
    reducer: Reducer,
    screen: MadScreen | None,
    screen_bands: NDArray[np.int64],
) -> scratch.Plan:
    """The recipe; `_run` cuts the pixels into strips."""
    modes = {"median": scratch.MEDIAN, "mean": scratch.MEAN}
    rules = {"linear": scratch.LINEAR, "nearest": scratch.NEAREST}
    screen = screen or MadScreen()
    return scratch.Plan(
        cols=0,
        strips=0,
        width=0,
        first=first,
        mode=modes.get(reducer.name, rules[reducer.rule]),
        ranks=_ranks(first.size - 1, reducer),
        centre=_ranks(first.size - 1, MEDIAN),
        screen_bands=screen_bands,
        k=round(screen.k * 10**_DECIMALS),
        floor=4 * screen.floor,
    )


def _run(
    values: NDArray[np.int16],
    clear: NDArray[Any],
    plan: scratch.Plan,
    out: scratch.Output,
    parallel: bool,
) -> None:
    """Cut the pixels into strips and composite them."""
    items, bands, height, width = values.shape
    mask = clear.view(np.uint8)
    if width > 1 and mask.strides[2] != 1:
        mask = np.ascontiguousarray(mask)
    flat, flat_mask = _view(values), _view(mask[:, np.newaxis])
    rows, cols = height, width
    if height > 1 and flat.row == width and flat_mask.row == width:
        rows, cols = 1, height * width  # whole planes: strips need not end with a row
    widest = min(max(_STRIP_BYTES // (values.itemsize * items * bands), _NARROW), _WIDE)
    n_strips = -(-cols // widest)
    width = -(-cols // (n_strips * _LINE)) * _LINE  # strips of about equal width
    n_strips = -(-cols // width)
    plan = plan._replace(cols=cols, strips=n_strips, width=width)

    thread = local()  # a thread takes several shares of the strips with one scratch

    def run(start: int, stop: int) -> None:
        if not hasattr(thread, "scratch"):
            thread.scratch = scratch.scratch(plan, bands)
        strips.composite_strips(start, stop, flat, flat_mask, plan, thread.scratch, out)

    if parallel:
        run_threaded(run, rows * n_strips)
    else:
        run(0, rows * n_strips)


def _view(array: NDArray[Any]) -> scratch.View[Any]:
    """Flat memory of a 4-d view, from its lowest to its highest address, without a copy."""
    upward = array[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
    steps = [abs(step) // array.itemsize for step in array.strides]
    last = [(size - 1) * step for size, step in zip(array.shape, steps, strict=True)]
    memory = np.lib.stride_tricks.as_strided(
        upward, (sum(last) + 1,), (array.itemsize,), writeable=False
    )
    signs = [-1 if step < 0 else 1 for step in array.strides]
    start = sum(end for end, sign in zip(last, signs, strict=True) if sign < 0)
    item, band, row, _ = (step * sign for step, sign in zip(steps, signs, strict=True))
    return scratch.View(memory, start, item, band, row)
