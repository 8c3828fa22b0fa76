"""Compositing of an array in memory: choose observations, screen outliers, reduce, in one pass.

Any number of methods share one load of the cube. What they are called and mean is in
`lcengine.kernels.methods`; the passes themselves are in the modules named after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import local
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.errors import InputError
from lcengine.kernels import scratch, strips
from lcengine.kernels._jit import address_of, run_threaded
from lcengine.kernels.methods import Domain, MadScreen, Median, Method
from lcengine.kernels.recipe import Recipe

MAX_OBSERVATIONS: Final = 1024
"""Most observations of one pixel: sums stay in 32 bits and the scratch in the second cache."""
MAX_ITEMS: Final = 32767
"""Most items, so that the chosen one fits into int16."""
NO_ITEM: Final = -1
"""Code of `Composite.chosen` where nothing was chosen."""

_STRIP_BYTES: Final = 1_250_000  # of the cube in one strip: about the second cache
_NARROW, _WIDE, _LINE = 256, 1024, 32  # pixels of a strip; of a cache line


@dataclass(frozen=True)
class Composite:
    """values (layer, H, W) in the cube's dtype, with its nodata: the bands of each method.

    count and outliers (H, W) uint16; extras (extra, H, W) float32, NaN where there is nothing;
    chosen (k, H, W) int16, the item of each method that chooses one, −1 where there is none.
    """

    values: NDArray[Any]
    count: NDArray[np.uint16]
    outliers: NDArray[np.uint16]
    extras: NDArray[np.float32]
    chosen: NDArray[np.int16]


def composite(  # noqa: PLR0913 - the options are the recipe
    values: NDArray[Any],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None = None,
    *,
    methods: Sequence[Method] = (Median(),),
    screen: MadScreen | None = None,
    bands: Sequence[str] = (),
    days: NDArray[np.float64] | None = None,
    n_out: int | None = None,
    domain: Domain = "linear",
    parallel: bool = False,
) -> Composite:
    """Composite a stack of items pixel by pixel.

    An item is valid at a pixel where it is clear and none of its bands is nodata. Items of one
    group are one observation, which uses its first valid item at each pixel.

    Args:
        values: (N, band, H, W), contiguous along W; any view otherwise. int16 with nodata −32768
            and uint16 with nodata 0 are reflectance × 10000, float32 with NaN is reflectance.
            In the domain `power` int16 is backscatter in dB × 100.
        clear: (N, H, W) uint8 or bool, nonzero = clear.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        methods: reducers; each yields n_out layers (`Count` none), its extras, its choice.
        screen: rejects outlying observations before the reducers; fewer than five valid
            observations reject nothing.
        bands: common names of the bands, for methods and screens that look at certain ones.
        days: (N,) days since 1970-01-01 UTC, for the best available pixel.
        n_out: return only the first n_out bands; None = all.
        domain: `power`: medians, percentiles and means are those of the linear power, rounded to
            int16 dB × 100 once; the screen judges dB.
        parallel: use every CPU. The result is the same.

    Returns:
        What the methods yield, the number of observations that entered them (valid, and not
        rejected by the screen) and the number that the screen rejected. No observation: nodata.

    Raises:
        InputError: dtype, shape, groups, days, n_out or bands do not fit, a named band is missing,
            there are more than 1024 observations, or a method has no meaning in the domain.
    """
    _check_arrays(values, clear)
    items, n_bands, height, width = values.shape
    first = _first_members(items, groups)
    n_out = n_bands if n_out is None else n_out
    if not 1 <= n_out <= n_bands:
        raise InputError(f"got n_out {n_out}, expected 1 to {n_bands}, the bands of `values`")
    recipe = Recipe(values.dtype, first, n_bands, n_out, tuple(bands), days, domain)
    for method in methods:
        recipe.reduce(method)
    if screen is not None:
        recipe.screen(screen)
    out = recipe.output(height * width)
    if values.size:
        _run(values, clear, recipe, out, parallel)
    else:
        out.values[:] = recipe.limits[2]
        out.extras[:], out.chosen[:], out.tally[:], out.outliers[:] = np.nan, NO_ITEM, 0, 0
    pixels = out.values
    if values.dtype == np.uint16:
        pixels = pixels.view(np.uint16)
        pixels ^= np.uint16(0x8000)
    return Composite(
        pixels.reshape(len(pixels), height, width),
        out.tally.reshape(height, width),
        out.outliers.reshape(height, width),
        out.extras.reshape(len(out.extras), height, width),
        out.chosen.reshape(len(out.chosen), height, width),
    )


def _check_arrays(values: NDArray[Any], clear: NDArray[Any]) -> None:
    known = values.dtype in (np.int16, np.uint16, np.float32)
    if not known or values.ndim != 4 or values.shape[1] < 1:
        raise InputError(
            f"got values {values.dtype} of shape {values.shape}, expected int16, uint16 or float32 "
            "(N, band, H, W)"
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
    if items > MAX_ITEMS:
        raise InputError(f"got {items} items, expected at most {MAX_ITEMS}; take a shorter period")
    if first.size - 1 > MAX_OBSERVATIONS:
        raise InputError(
            f"got {first.size - 1} observations, expected at most {MAX_OBSERVATIONS}; composite a "
            "shorter period"
        )
    return first


def _run(
    values: NDArray[Any],
    clear: NDArray[Any],
    recipe: Recipe,
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
    cut = scratch.Cut(cols, n_strips, width, recipe.first)
    stages = [*recipe.screens, *recipe.stages]
    addresses = np.array(
        [address_of(stage, job, recipe.scratch(_LINE), out, 0, 0) for stage, job in stages],
        np.int64,
    )
    jobs = scratch.Jobs.of([job for _, job in stages] or [recipe.job(())])
    thread = local()  # a thread takes several shares of the strips with one scratch

    def run(start: int, stop: int) -> None:
        if not hasattr(thread, "scratch"):
            thread.scratch = recipe.scratch(width)
        strips.run_strips(
            start,
            stop,
            flat,
            flat_mask,
            cut,
            addresses,
            len(recipe.screens),
            jobs,
            thread.scratch,
            out,
        )

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
