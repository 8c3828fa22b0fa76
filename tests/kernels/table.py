"""The one table of what the compositing kernels are held against: our call, its oracle, its peers.

The tests take the oracles from here and `benchmarks/kernels.py` the peers. Peers are given float32
with NaN where an observation is not valid, in the layout that suits them; what they need is
prepared before their call is made, so outside any clock, and imported when asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import oracles

from lcengine.kernels import NODATA
from lcengine.kernels._jit import usable_cpus
from lcengine.kernels.composite import Composite, composite
from lcengine.kernels.methods import (
    DISTANCE,
    INDICES,
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

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
ONE, ALL = 1, usable_cpus()  # threads


@dataclass(frozen=True)
class Cube:
    """The arguments of `composite`, and the same for peers."""

    values: np.ndarray
    clear: np.ndarray
    groups: np.ndarray | None = None
    names: tuple[str, ...] = BANDS
    days: np.ndarray | None = None
    n_out: int | None = None
    domain: str = "linear"

    def composite(self, methods, screen=None, **options) -> Composite:
        own = {"bands": self.names, "days": self.days, "n_out": self.n_out, "domain": self.domain}
        given = {**own, **options}
        return composite(
            self.values, self.clear, self.groups, methods=methods, screen=screen, **given
        )

    def part(self, rows: slice, columns: slice = slice(None)) -> Cube:
        at = (..., rows, columns)
        return replace(self, values=self.values[at], clear=self.clear[at])

    @cached_property
    def floats(self) -> np.ndarray:
        """(item, band, y, x) float32, NaN where not valid."""
        floats = self.values.astype(np.float32)
        missing = np.isnan(floats) | (floats == oracles.NODATA[self.values.dtype.name])
        bad = missing.any(1) | (self.clear == 0)
        floats[np.broadcast_to(bad[:, np.newaxis], floats.shape)] = np.nan
        return floats

    @cached_property
    def time_last(self) -> np.ndarray:
        """(band, y, x, item)."""
        return np.ascontiguousarray(np.moveaxis(self.floats, 0, -1))

    @cached_property
    def spectra(self) -> np.ndarray:
        """(y, x, band, item)."""
        return np.ascontiguousarray(self.floats.transpose(2, 3, 1, 0))


@dataclass(frozen=True)
class Peer:
    """Another implementation; share: part of a benchmark's pixels it gets, if it is slow.

    prepare: from a Cube to a call without arguments, whose result is like `Composite.values`,
    followed by the extras if there are any.
    """

    name: str
    threads: int
    prepare: Callable[[Cube], Callable[[], np.ndarray]]
    share: float = 1.0


@dataclass(frozen=True)
class Row:
    """methods and screen: our call. oracle: (method, Pixel) -> Answer, for each of the methods."""

    methods: tuple[Method, ...]
    oracle: Callable
    screen: MadScreen | None = None
    peers: tuple[Peer, ...] = ()

    @property
    def needs(self) -> set[str]:
        screens = self.screen.needs if self.screen else ()
        return {*screens, *itertools.chain.from_iterable(m.needs for m in self.methods)}

    @property
    def chooses(self) -> bool:
        return any(method.chooses for method in self.methods)


# ------------------------------------------------------------------------------------------ peers


def _reduction(module: str, function: str, layout: str) -> Callable:
    """`module.function` along the items."""

    def prepare(cube):
        call = getattr(__import__(module), function)
        array = getattr(cube, layout)
        return lambda: call(array, axis=0 if layout == "floats" else -1)

    return prepare


def _both_layouts(module: str, function: str, threads: int) -> tuple[Peer, ...]:
    return (
        Peer(f"{module}, axis 0", threads, _reduction(module, function, "floats")),
        Peer(f"{module}, last axis", threads, _reduction(module, function, "time_last")),
    )


def _screened_mean(cube):
    import numbagg

    floats, screen = cube.floats, MadScreen()

    def call():
        index = floats[:, :3].sum(axis=1)
        distance = np.abs(index - numbagg.nanmedian(index, axis=0))
        mad = np.maximum(numbagg.nanmedian(distance, axis=0), screen.floor)
        rejected = (0.6745 * distance > screen.k * mad) & (np.isfinite(index).sum(axis=0) >= 5)
        kept = np.where(rejected[:, np.newaxis], np.float32(np.nan), floats)
        return numbagg.nanmean(kept, axis=0)

    return call


PERCENTS = (10, 25, 75, 90)


def _numpy_percentiles(cube):
    time_last = cube.time_last
    return lambda: np.concatenate(np.nanpercentile(time_last, PERCENTS, axis=-1))


def _numbagg_percentiles(cube):
    import numbagg

    time_last, shares = cube.time_last, [percent / 100 for percent in PERCENTS]
    return lambda: np.concatenate(numbagg.nanquantile(time_last, shares, axis=-1))


def _geomad(extras: bool) -> Callable:
    def prepare(cube):
        import geomad

        spectra, options = cube.spectra, {"num_threads": ALL}

        def call():
            centre = geomad.nangeomedian_pcm(spectra, eps=0.1, maxiters=1000, **options)
            if not extras:
                return centre.transpose(2, 0, 1)
            functions = (geomad.smad_pcm, geomad.emad_pcm, geomad.bcmad_pcm)
            mads = [function(spectra, centre, **options) for function in functions]
            return np.concatenate([centre.transpose(2, 0, 1), mads])

        return call

    return prepare


def _take(floats, at, some):
    taken = np.take_along_axis(floats, at[np.newaxis, np.newaxis], axis=0)[0]
    return np.where(some, taken, np.nan)


def _numpy_medoid(cube):
    """Every pair once; blocks of rows, so that what is worked on stays in the cache."""
    floats, some = cube.floats, (~np.isnan(cube.floats[:, 0])).any(0)

    def choose(block):
        totals = np.where(np.isnan(block[:, 0]), np.float32(np.inf), np.float32(0))
        for one in range(len(block) - 1):
            squares = ((block[one + 1 :] - block[one]) ** 2).sum(axis=1)
            distances = np.nan_to_num(np.sqrt(squares), copy=False, nan=0.0)
            totals[one] += distances.sum(axis=0)
            totals[one + 1 :] += distances
        return totals.argmin(axis=0)

    def call():
        rows = range(0, floats.shape[2], 8)
        return _take(floats, np.concatenate([choose(floats[:, :, y : y + 8]) for y in rows]), some)

    return call


def _numbagg_nearest(cube):
    import numbagg

    floats, some = cube.floats, (~np.isnan(cube.floats[:, 0])).any(0)

    def call():
        squares = ((floats - numbagg.nanmedian(floats, axis=0)) ** 2).sum(axis=1)
        return _take(floats, np.where(np.isnan(squares), np.inf, squares).argmin(axis=0), some)

    return call


def _numpy_max_ndvi(cube):
    floats, some = cube.floats, (~np.isnan(cube.floats[:, 0])).any(0)
    nir, red = (cube.names.index(name) for name in ("nir", "red"))

    def call():
        score = (floats[:, nir] - floats[:, red]) / (floats[:, nir] + floats[:, red])
        return _take(floats, np.where(np.isnan(score), -np.inf, score).argmax(axis=0), some)

    return call


def _numpy_blue_quarter(cube):
    floats, some = cube.floats, (~np.isnan(cube.floats[:, 0])).any(0)

    def call():
        blue = floats[:, cube.names.index("blue")]
        n = np.isfinite(blue).sum(axis=0)
        rank = np.floor(np.maximum(n - 1, 0) * 0.25 + 0.5).astype(int)
        order = np.argsort(blue, axis=0, kind="stable")  # NaN last
        return _take(floats, np.take_along_axis(order, rank[np.newaxis], axis=0)[0], some)

    return call


def _numpy_first(cube):
    floats, valid = cube.floats, ~np.isnan(cube.floats[:, 0])
    return lambda: _take(floats, valid.argmax(axis=0), valid.any(axis=0))


# ------------------------------------------------------------------------------------------ table


def _alone(method: Method, oracle: Callable, *peers: Peer) -> tuple[str, Row]:
    return str(method), Row((method,), oracle, None, peers)


TABLE: dict[str, Row] = dict([
    _alone(
        Median(),
        oracles.median,
        *_both_layouts("bottleneck", "nanmedian", ONE),
        *_both_layouts("numbagg", "nanmedian", ALL),
    ),
    _alone(
        Mean(),
        oracles.mean,
        *_both_layouts("bottleneck", "nanmean", ONE),
        *_both_layouts("numbagg", "nanmean", ALL),
    ),
    ("screened mean", Row((Mean(),), oracles.mean, MadScreen(), (
        Peer("numbagg expression", ALL, _screened_mean),
    ))),
    _alone(Percentile(25), oracles.percentile),
    _alone(Percentile(90, "nearest"), oracles.percentile),
    ("percentiles", Row(tuple(Percentile(p) for p in PERCENTS), oracles.percentile, None, (
        Peer("numpy.nanpercentile", ONE, _numpy_percentiles, 1 / 256),
        Peer("numbagg.nanquantile", ALL, _numbagg_percentiles, 1 / 4),
    ))),
    _alone(Geomedian(), oracles.geomedian, Peer("geomad", ALL, _geomad(extras=False))),
    _alone(
        Geomad(), oracles.geomedian, Peer("geomad, four functions", ALL, _geomad(extras=True))
    ),
    _alone(Medoid(), oracles.medoid, Peer("NumPy", ONE, _numpy_medoid, 1 / 8)),
    _alone(
        Medoid(nearest=True), oracles.medoid, Peer("numbagg and NumPy", ALL, _numbagg_nearest)
    ),
    _alone(MaxNdvi(), oracles.max_ndvi, Peer("NumPy", ONE, _numpy_max_ndvi)),
    *(
        _alone(
            ByIndex(index),
            oracles.by_index,
            *([Peer("NumPy", ONE, _numpy_blue_quarter, 1 / 4)] if index == "blue" else []),
        )
        for index in INDICES
    ),
    _alone(BestPixel(182), oracles.best_pixel),
    _alone(FirstClear(), oracles.first_clear, Peer("NumPy", ONE, _numpy_first)),
    _alone(FirstClear(last=True), oracles.first_clear),
    _alone(Count(), oracles.nothing),
])  # fmt: skip

POWER: dict[str, Row] = dict([
    _alone(Median(), oracles.median_power),
    _alone(Mean(), oracles.mean_power),
    *(_alone(Percentile(p), oracles.percentile_power) for p in (0, 10, 25, 50, 75, 97.5, 100)),
    _alone(Percentile(90, "nearest"), oracles.percentile),
    _alone(FirstClear(), oracles.first_clear),
    _alone(FirstClear(last=True), oracles.first_clear),
    _alone(Count(), oracles.nothing),
])  # fmt: skip
"""What works on backscatter, int16 dB × 100."""

SCREENS: dict[str, MadScreen | None] = {
    "none": None,
    **{text: MadScreen.parse(text) for text in ("mad", "mad:bright", "mad:dark", "mad:bands")},
}
REJECTING = [MadScreen(0.0), MadScreen(2.5, 0, "dark"), MadScreen(1.349, per_band=True)]


# ------------------------------------------------------------------------------------------ cubes


def make_decibels(
    seed: int,
    observations: int,
    shape: tuple[int, int] = (5, 7),
    *,
    masked: float = 0.4,
    members: int = 1,
    extreme: bool = False,
    n_out: int | None = None,
) -> Cube:
    """A cube of backscatter, dB × 100: speckle around a level per pixel and polarisation.

    extreme: ends of the type, a factor of 10^65 apart.
    """
    cube = make(seed, observations, shape, masked=masked, members=members, extreme=extreme)
    values = cube.values[:, :2].copy()
    if not extreme:
        rng = np.random.default_rng(seed)
        level = rng.integers(-2500, 500, (1, 2, *shape))
        speckle = np.rint(1000 * np.log10(rng.gamma(4.4, 1 / 4.4, values.shape))) + level
        values = np.where(values == NODATA, NODATA, speckle).astype(np.int16)
    return Cube(values, cube.clear, cube.groups, ("vv", "vh"), cube.days, n_out, "power")


def make(
    seed: int,
    observations: int,
    shape: tuple[int, int] = (5, 7),
    *,
    kind: str = "int16",
    masked: float = 0.4,
    members: int = 1,
    extreme: bool = False,
    n_out: int | None = 5,
) -> Cube:
    """A small cube with the distance to clouds as its sixth band; item groups, if members > 1.

    Some values are nodata, some observations bright or dark outliers; extreme: ends of the type.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, members + 1, observations)
    size = (sizes.sum(), 6, *shape)
    if extreme:
        true = rng.choice([-32767, -32766, -1, 0, 1, 32766, 32767], size)
    else:
        true = rng.integers(-200, 1500, size)
        true += np.where(rng.random((size[0], 1, *shape)) < 0.08, 9000, 0)
        true -= np.where(rng.random((size[0], 1, *shape)) < 0.04, 3000, 0)
        true[:, 5] = rng.integers(1, 3001, true[:, 5].shape)
    if kind == "uint16":
        true = true + 32768 if extreme else np.maximum(true, 1)
    elif kind == "float32" and extreme:
        true = true / 8192  # sums stay exact in float64
    elif kind == "float32":
        true = true / np.array([10_000] * 5 + [1])[:, None, None]
    values = true.astype(kind)
    values[rng.random(size) < 0.02] = oracles.NODATA[kind]
    clear = rng.random((size[0], *shape)) >= masked
    clear[:, 0, 0] = False
    clear[:, -1, -1] = True
    groups = np.repeat(np.arange(observations) * 3 - 5, sizes) if members > 1 else None
    days = np.repeat(np.arange(observations) * 37.3 + 18_200, sizes)
    names = (*BANDS[:5], DISTANCE)
    return Cube(values, clear, groups, names, days, n_out)
