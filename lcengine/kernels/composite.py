"""Compositing of an array in memory: choose observations, screen outliers, reduce, in one pass.

Any number of methods share one load of the cube. What they are called and mean is in
`lcengine.kernels.methods`; the passes themselves are in the modules named after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import local
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.errors import InputError
from lcengine.kernels import choose, reducers, scores, scratch, screens, spectra, strips
from lcengine.kernels._jit import address_of, run_threaded
from lcengine.kernels.geomedian import geomedian_work
from lcengine.kernels.methods import (
    DECIMALS,
    INDICES,
    SEASON_SIDE,
    BestPixel,
    ByIndex,
    Count,
    FirstClear,
    Geomad,
    Geomedian,
    MadScreen,
    MaxNdvi,
    Mean,
    Median,
    Medoid,
    Method,
    Percentile,
)
from lcengine.kernels.networks import selection_network

MAX_OBSERVATIONS: Final = 1024
"""Most observations of one pixel: sums stay in 32 bits and the scratch in the second cache."""
NO_ITEM: Final = -1
"""Code of `Composite.chosen` where nothing was chosen."""

_STRIP_BYTES: Final = 1_250_000  # of the cube in one strip: about the second cache
_NARROW, _WIDE, _LINE = 256, 1024, 32  # pixels of a strip; of a cache line
_NO_RANKS: Final = Percentile(0, "nearest")  # stands in for stages that need none

Stage = Callable[[scratch.Job, scratch.Scratch, scratch.Output, int, int], None]


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
    parallel: bool = False,
) -> Composite:
    """Composite a stack of items pixel by pixel.

    An item is valid at a pixel where it is clear and none of its bands is nodata. Items of one
    group are one observation, which uses its first valid item at each pixel.

    Args:
        values: (N, band, H, W), contiguous along W; any view otherwise. int16 with nodata −32768
            and uint16 with nodata 0 are reflectance × 10000, float32 with NaN is reflectance.
        clear: (N, H, W) uint8 or bool, nonzero = clear.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        methods: reducers; each yields n_out layers (`Count` none), its extras, its choice.
        screen: rejects outlying observations before the reducers; fewer than five valid
            observations reject nothing.
        bands: common names of the bands, for methods and screens that look at certain ones.
        days: (N,) days since 1970-01-01 UTC, for the best available pixel.
        n_out: return only the first n_out bands; None = all.
        parallel: use every CPU. The result is the same.

    Returns:
        What the methods yield, the number of observations that entered them (valid, and not
        rejected by the screen) and the number that the screen rejected. No observation: nodata.

    Raises:
        InputError: dtype, shape, groups, days, n_out or bands do not fit, a named band is missing,
            or there are more than 1024 observations.
    """
    _check_arrays(values, clear)
    items, n_bands, height, width = values.shape
    first = _first_members(items, groups)
    n_out = n_bands if n_out is None else n_out
    if not 1 <= n_out <= n_bands:
        raise InputError(f"got n_out {n_out}, expected 1 to {n_bands}, the bands of `values`")
    recipe = _Recipe(values.dtype, first, n_bands, n_out, tuple(bands), days)
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


class _Recipe:
    """The stages of one call with their jobs, collected method by method."""

    def __init__(
        self,
        dtype: np.dtype[Any],
        first: NDArray[np.int64],
        n_bands: int,
        n_out: int,
        names: tuple[str, ...],
        days: NDArray[np.float64] | None,
    ) -> None:
        if names and len(names) != n_bands:
            raise InputError(f"got {len(names)} names of bands, expected {n_bands}")
        self.floating = dtype == np.float32
        self.stored = np.dtype(np.float32 if self.floating else np.int16)
        self.origin = 32768.0 if dtype == np.uint16 else 0.0
        self.unit = 1.0 if self.floating else 10_000.0
        ends = (-np.inf, np.inf, np.nan) if self.floating else (-32768, 32767, -32768)
        self.limits = np.array(ends, self.stored)
        self.first, self.n_bands, self.n_out = first, n_bands, n_out
        self.names, self.days = names, days
        self.observations = first.size - 1
        self.screens: list[tuple[Stage, scratch.Job]] = []
        self.stages: list[tuple[Stage, scratch.Job]] = []
        self.methods: list[Method] = []
        self.layers = self.extras = self.slots = 0

    def screen(self, screen: MadScreen) -> None:
        """Add a screen."""
        needs = screen.needs or self.names[: self.n_out]
        bands = self.positions(needs) if needs else range(self.n_out)
        sides = {"both": screens.BOTH, "bright": screens.BRIGHT, "dark": screens.DARK}
        joint = 1.0 if screen.per_band else float(screens.JOINT)
        job = self.job(
            bands,
            mode=sides[screen.side],
            rank=Median(),
            numbers=(
                round(screen.k * 10**DECIMALS),
                4 * screen.floor * self.unit / 10_000,
                joint,
            ),
        )
        self.screens.append((screens.screen_mad, job))

    def reduce(self, method: Method) -> None:
        """Add a method; its outputs follow those of the methods before."""
        if isinstance(method, Count):
            return
        stage, job = self.stage(method)
        self.methods.append(method)
        self.stages.append((stage, job))
        self.layers += self.n_out
        self.extras += len(method.extras)
        self.slots += method.chooses

    def stage(self, method: Method) -> tuple[Stage, scratch.Job]:
        """The kernel of a method and its job."""
        bands = range(self.n_out)
        if isinstance(method, Mean):
            return reducers.reduce_mean, self.job(bands)
        if isinstance(method, Median):
            return reducers.reduce_ranks, self.job(bands, mode=reducers.MEDIAN, rank=method)
        if isinstance(method, Percentile):
            mode = reducers.LINEAR if method.rule == "linear" else reducers.NEAREST
            return reducers.reduce_ranks, self.job(bands, mode=mode, rank=method)
        if isinstance(method, Medoid):
            if method.nearest:
                return choose.choose_nearest, self.job(bands, rank=Median())
            return choose.choose_medoid, self.job(bands)
        if isinstance(method, Geomedian):
            eps = method.eps * self.unit / 10_000
            stage = spectra.reduce_geomedian
            if isinstance(method, Geomad):
                stage = spectra.reduce_geomad
            return stage, self.job(bands, rank=Median(), numbers=(eps,))
        if isinstance(method, FirstClear):
            return choose.choose_end, self.job(bands, mode=int(method.last))
        if isinstance(method, ByIndex | MaxNdvi):
            return choose.choose_by_index, self.by_index(method)
        if isinstance(method, BestPixel):
            return choose.choose_best, self.best_pixel(method)
        raise InputError(f"no kernel is known for the method {method}")

    def by_index(self, method: ByIndex | MaxNdvi) -> scratch.Job:
        """Job of a choice by an index."""
        name, percent = "ndvi", None
        if isinstance(method, ByIndex):
            name = method.index
            percent = INDICES[name][1] if method.percent is None else method.percent
        at = self.positions(INDICES[name][0])
        numbers = [float(list(INDICES).index(name)), *at, *(0 for _ in range(3 - len(at)))]
        rank: Method = Median()
        if isinstance(method, MaxNdvi):
            mode = choose.GREATEST
        elif percent is None:
            mode = choose.NDVI_RULE
        elif percent in (0.0, 100.0):
            mode = choose.LOW_END if percent == 0 else choose.HIGH_END
        else:
            mode, rank = choose.RANK, Percentile(percent, "nearest")
        return self.job(range(self.n_out), mode=mode, rank=rank, numbers=numbers)

    def best_pixel(self, method: BestPixel) -> scratch.Job:
        """Job of the best available pixel."""
        if self.days is None or method.target is None:
            raise InputError(
                "the best available pixel needs the observations' `days` and a target day; "
                "pass days= and a method such as 'bap:182'"
            )
        days, items = np.asarray(self.days, np.float64), int(self.first[-1])
        if days.shape != (items,):
            raise InputError(f"got days of shape {days.shape}, expected one for each of {items}")
        dates = np.floor(days[self.first[:-1]]).astype("M8[D]")
        years = dates.astype("M8[Y]")
        day_of_year = (dates - years.astype("M8[D]")).astype(np.int64) + 1
        low = method.target - SEASON_SIDE if method.low is None else method.low
        high = method.target + SEASON_SIDE if method.high is None else method.high
        seasons = scores.season_score(day_of_year, method.target, low, high)
        yearly = np.ones(len(seasons))
        if method.year is not None:
            yearly = scores.year_score(years.astype(np.int64) + 1970, method.year)
        terms = scores.bap_terms(seasons, yearly)
        series = np.array([*terms.season, terms.cloud, terms.haze, terms.reach], np.float32)
        return self.job(range(self.n_out), numbers=self.positions(method.needs), series=series)

    def positions(self, names: Sequence[str]) -> list[int]:
        """Where the named bands are; InputError for one that is missing."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(
                f"the method or screen looks at the band {missing[0]!r}, and the bands are "
                f"{', '.join(self.names) or 'not named'}; name them in `bands`"
            )
        return [self.names.index(name) for name in names]

    def job(
        self,
        bands: Sequence[int],
        *,
        mode: int = 0,
        rank: Method = _NO_RANKS,
        numbers: Sequence[float] = (),
        series: NDArray[np.float32] | None = None,
    ) -> scratch.Job:
        """A job that puts out the next layers."""
        if series is None:
            series = np.zeros(self.observations + 3, np.float32)
        return scratch.Job(
            np.asarray(bands, np.int64),
            self.layers,
            self.extras,
            self.slots,
            mode,
            _ranks(self.observations, rank),
            np.pad(np.asarray(numbers, np.float64), (0, 4 - len(numbers))),
            series,
        )

    def output(self, pixels: int) -> scratch.Output:
        """Memory for the results."""
        return scratch.Output(
            np.empty((self.layers, pixels), self.stored),
            np.empty((self.extras, pixels), np.float32),
            np.empty((self.slots, pixels), np.int16),
            np.empty(pixels, np.uint16),
            np.empty(pixels, np.uint16),
        )

    def scratch(self, width: int) -> scratch.Scratch:
        """Working memory for one thread and strips of `width` pixels."""
        items, n = int(self.first[-1]), self.observations
        wide = np.float64 if self.floating else np.int32
        ends = (-np.inf, np.inf) if self.floating else (-(2**31), 2**31 - 1)
        screened = n if self.screens else 0
        narrow = 0 if self.floating else screened
        loaded = np.empty((self.n_bands, items, width), self.stored)
        valid = np.zeros((items, width), np.int16)
        grouped = items > n
        return scratch.Scratch(
            loaded=loaded,
            valid=valid,
            raw=np.empty((self.n_bands, n, width), self.stored) if grouped else loaded,
            take=np.zeros((n, width), np.int16) if grouped else valid,
            member=np.empty((n if grouped else 0, width), np.int16),
            tally=np.empty(width, np.int16),
            spare=np.empty(width, np.int16),
            rows=np.empty(items * self.n_bands, np.int64),
            fill=np.empty((n, width), self.stored),
            work=np.empty((n, width), self.stored),
            limits=self.limits,
            judged=np.empty((screened, width), wide),
            wide=np.empty((screened, width), wide),
            twice=np.empty(width, wide),
            limit=np.empty(width, wide),
            bounds=np.array(ends, wide),
            span=np.empty(2, wide),
            narrow=np.empty((narrow, width), np.uint16),
            sorted16=np.empty((narrow, width), np.uint16),
            twice16=np.empty(width, np.uint16),
            limit16=np.empty(width, np.uint16),
            drop=np.empty((screened, width), np.int16),
            chosen=np.empty(width, np.int16),
            floats=np.empty(self.floats(width), np.float32),
            doubles=np.empty(self.doubles(width), np.float64),
            origin=np.float32(self.origin),
            unit=np.float32(self.unit),
        )

    def floats(self, width: int) -> int:
        """float32 numbers that the greediest stage wants."""
        wanted = [0]
        for method in self.methods:
            if isinstance(method, ByIndex | MaxNdvi | BestPixel):
                wanted.append(2 * self.observations * width)
            if isinstance(method, Medoid) and method.nearest:
                wanted.append(self.n_out * width)
            if isinstance(method, Geomedian):
                work = geomedian_work(self.n_out, self.observations, width)
                if isinstance(method, Geomad):
                    work = max(work, spectra.geomad_work(self.observations, width))
                wanted.append(self.n_out * width + work)
        return max(wanted)

    def doubles(self, width: int) -> int:
        """float64 numbers that the greediest stage wants."""
        medoids = [method for method in self.methods if isinstance(method, Medoid)]
        rows = [2 if method.nearest else self.observations + 1 for method in medoids]
        return max(rows, default=0) * width


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
    if first.size - 1 > MAX_OBSERVATIONS:
        raise InputError(
            f"got {first.size - 1} observations, expected at most {MAX_OBSERVATIONS}; composite a "
            "shorter period"
        )
    return first


@lru_cache(maxsize=64)
def _ranks(observations: int, method: Method) -> scratch.Ranks:
    """Ranks, fills and weights of a rank method, per number n of valid observations.

    With r(n) the lower rank wanted of n values, r(observations) − r(n) of the invalid observations
    sort low. That is never more than there are: r grows by at most one from n to n + 1.
    """
    percent, rule = 50.0, "linear"
    if isinstance(method, Percentile):
        percent, rule = method.percent, method.rule
    n = np.arange(observations + 1)
    below = np.maximum(n - 1, 0)
    if rule == "nearest":
        scale = 100 * 10**DECIMALS  # in integers: halves must not depend on float rounding
        rank = (below * round(percent * 10**DECIMALS) + scale // 2) // scale
        weight = np.zeros(n.size)
    else:
        position = below * (percent / 100)  # in NumPy's order, to round alike
        rank = np.floor(position).astype(np.int64)
        weight = position - rank
    lower = int(rank[-1])
    upper = min(lower + 1, observations - 1) if weight.any() else lower
    pairs = selection_network(observations, (lower, upper))
    return scratch.Ranks(pairs, lower, upper, (lower - rank).astype(np.int16), weight)


def _run(
    values: NDArray[Any],
    clear: NDArray[Any],
    recipe: _Recipe,
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
