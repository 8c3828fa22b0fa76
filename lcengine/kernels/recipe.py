"""From methods to stages: what each value of `lcengine.kernels.methods` means to the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, singledispatchmethod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.errors import InputError
from lcengine.kernels import choose, power, reducers, scores, scratch, screens, spectra
from lcengine.kernels.geomedian import geomedian_work
from lcengine.kernels.methods import (
    DECIMALS,
    INDICES,
    SEASON_SIDE,
    BestPixel,
    ByIndex,
    Count,
    Domain,
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
    check_domain,
)
from lcengine.kernels.networks import selection_network

Stage = Callable[[scratch.Job, scratch.Scratch, scratch.Output, int, int], None]
Bound = tuple[Stage, scratch.Job]

_NO_RANKS: Final = Percentile(0, "nearest")  # stands in for stages that need none


class Recipe:
    """The stages of one call with their jobs, collected method by method."""

    def __init__(
        self,
        dtype: np.dtype[Any],
        first: NDArray[np.int64],
        n_bands: int,
        n_out: int,
        names: tuple[str, ...],
        days: NDArray[np.float64] | None,
        domain: Domain = "linear",
    ) -> None:
        if names and len(names) != n_bands:
            raise InputError(f"got {len(names)} names of bands, expected {n_bands}")
        if domain == "power" and dtype != np.int16:
            raise InputError(f"got values {dtype} in the domain 'power', expected int16 dB × 100")
        self.domain = domain
        self.floating = dtype == np.float32
        self.stored = np.dtype(np.float32 if self.floating else np.int16)
        self.origin = 32768.0 if dtype == np.uint16 else 0.0
        self.unit = 1.0 if self.floating else 10_000.0
        ends = (-np.inf, np.inf, np.nan) if self.floating else (-32768, 32767, -32768)
        self.limits = np.array(ends, self.stored)
        self.first, self.n_bands, self.n_out = first, n_bands, n_out
        self.out_bands = range(n_out)
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
        check_domain(method, self.domain)
        if isinstance(method, Count):
            return
        stage, job = self.stage(method)
        self.methods.append(method)
        self.stages.append((stage, job))
        if isinstance(method, Geomad):
            self.stages.append((spectra.deviate, job))  # from where the geomedian has left it
        self.layers += self.n_out
        self.extras += len(method.extras)
        self.slots += method.chooses

    @singledispatchmethod
    def stage(self, method: Method) -> Bound:
        """The kernel of a method and its job."""
        raise InputError(
            f"got the method {method!r}, expected a value such as those of parse_methods('median')"
        )

    @stage.register
    def _(self, method: Mean) -> Bound:
        stage = power.reduce_mean if self.domain == "power" else reducers.reduce_mean
        return stage, self.job(self.out_bands)

    @stage.register
    def _(self, method: Median) -> Bound:
        job = self.job(self.out_bands, mode=reducers.MEDIAN, rank=method)
        return power.reduce_ranks if self.domain == "power" else reducers.reduce_ranks, job

    @stage.register
    def _(self, method: Percentile) -> Bound:
        if method.rule == "nearest":
            job = self.job(self.out_bands, mode=reducers.NEAREST, rank=method)
            return reducers.reduce_ranks, job
        job = self.job(self.out_bands, mode=reducers.LINEAR, rank=method)
        return power.reduce_ranks if self.domain == "power" else reducers.reduce_ranks, job

    @stage.register
    def _(self, method: Geomedian) -> Bound:
        return spectra.reduce_geomedian, self.geomedian(method)

    @stage.register
    def _(self, method: Medoid) -> Bound:
        if method.nearest:
            return choose.choose_nearest, self.job(self.out_bands, rank=Median())
        return choose.choose_medoid, self.job(self.out_bands)

    @stage.register
    def _(self, method: FirstClear) -> Bound:
        return choose.choose_end, self.job(self.out_bands, mode=int(method.last))

    @stage.register(ByIndex)
    @stage.register(MaxNdvi)
    def _(self, method: ByIndex | MaxNdvi) -> Bound:
        return choose.choose_by_index, self.by_index(method)

    @stage.register
    def _(self, method: BestPixel) -> Bound:
        return choose.choose_best, self.best_pixel(method)

    def geomedian(self, method: Geomedian) -> scratch.Job:
        """Job of a geomedian; DN become the cube's own units."""
        eps = method.eps * self.unit / 10_000
        return self.job(self.out_bands, rank=Median(), numbers=(eps,))

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
        return self.job(self.out_bands, mode=mode, rank=rank, numbers=numbers)

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
            # Of the season: the last days of December belong to a target in January.
            ahead = np.rint((day_of_year - method.target) / 365.25).astype(np.int64)
            yearly = scores.year_score(years.astype(np.int64) + 1970 + ahead, method.year)
        terms = scores.bap_terms(seasons, yearly)
        series = np.array([*terms.season, terms.cloud, terms.haze, terms.reach], np.float32)
        return self.job(self.out_bands, numbers=self.positions(method.needs), series=series)

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
            powers=power.powers() if self.domain == "power" else np.empty(0, np.float64),
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
        rows += [1] * (self.domain == "power")
        return max(rows, default=0) * width


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
