"""Slow and plain oracles of the compositing kernels, one pixel at a time, in true numbers.

Integers are computed with exactly, and rounded half to even at the end; scores as their definition
says in float32, in which they are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor, fsum
from typing import NamedTuple

import numpy as np

SINGLE = np.float32
NODATA = {"int16": -32768, "uint16": 0, "float32": np.nan}
VISIBLE = ("blue", "green", "red")
DISTANCE = "cloud_distance"


class Pixel(NamedTuple):
    """The observations of a pixel, in the order of time.

    items: the item that stands for each. spectra: (observation, band) int64, or float32 as it is.
    days: of each, since 1970. names: of the bands. n_out: bands that are put out.
    """

    items: list
    spectra: np.ndarray
    days: np.ndarray
    names: tuple
    n_out: int

    @property
    def whole(self):
        return self.spectra.dtype != SINGLE

    @property
    def unit(self):
        """Value of reflectance 1."""
        return 10_000 if self.whole else 1

    def band(self, name):
        return self.spectra[:, self.names.index(name)]

    def keep(self, at):
        at = np.asarray(at, int)
        items = [self.items[i] for i in at]
        return self._replace(items=items, spectra=self.spectra[at], days=self.days[at])


class Answer(NamedTuple):
    """What a method yields at a pixel.

    slack, extra_slack: how far the numbers may be from it. also: says of other values that they
    are as good; their extras are then theirs.
    """

    values: list
    extras: tuple = ()
    item: int = -1
    slack: float = 0.0
    extra_slack: float | tuple = 0.0
    also: Callable = lambda _: False


def pixel(cube, y, x):
    """First valid item of each observation."""
    values, spectra, items = cube.values[:, :, y, x], [], []
    nodata = NODATA[values.dtype.name]
    groups = range(len(values)) if cube.groups is None else cube.groups.tolist()
    days = cube.days if cube.days is not None else np.zeros(len(values))
    first, seen = {}, set()
    for item, group in enumerate(groups):
        first.setdefault(group, item)
        missing = (np.isnan(values[item]) | (values[item] == nodata)).any()
        if cube.clear[item, y, x] and not missing and group not in seen:
            seen.add(group)
            items.append(item)
            spectra.append(values[item])
    own = [days[first[groups[item]]] for item in items]
    kind = SINGLE if values.dtype == SINGLE else np.int64
    n_out = values.shape[1] if cube.n_out is None else cube.n_out
    table = np.array(spectra, kind).reshape(len(items), values.shape[1])
    return Pixel(items, table, np.array(own, float), tuple(cube.names), n_out)


# --------------------------------------------------------------------------------------- screens


def exact_median(values):
    ordered = sorted(values)
    n = len(ordered)
    return Fraction(ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def outliers(series, k, least, side):
    """Where 0.6745·|x − m| / MAD > k, on the judged side."""
    middle = exact_median(series)
    distance = [abs(x - middle) for x in series]
    limit = Fraction(str(k)) * max(exact_median(distance), least) / Fraction("0.6745")
    return [
        d > limit and (side == "both" or (x > middle) == (side == "bright"))
        for x, d in zip(series, distance, strict=True)
    ]


def rejected(screen, seen):
    """Which observations of a pixel the screen rejects; of fewer than five none."""
    if screen is None or len(seen.items) < 5:
        return np.zeros(len(seen.items), bool)
    exact = [[Fraction(float(value)) for value in spectrum] for spectrum in seen.spectra]
    if screen.per_band:
        judged = [[spectrum[band] for spectrum in exact] for band in range(seen.n_out)]
    else:
        at = [seen.names.index(name) for name in VISIBLE]
        judged = [[sum(spectrum[band] for band in at) for spectrum in exact]]
    least = Fraction(screen.floor * seen.unit, 10_000)
    return np.any([outliers(series, screen.k, least, screen.side) for series in judged], 0)


# -------------------------------------------------------------------------------------- reducers


def per_band(seen, reduce):
    return Answer([reduce(seen.spectra[:, band]) for band in range(seen.n_out)])


def median(_method, seen):
    if seen.whole:
        return per_band(seen, lambda x: np.rint(np.median(x.astype(float))))
    return per_band(seen, np.median)


def mean(_method, seen):
    if seen.whole:
        return per_band(seen, lambda x: round(Fraction(int(x.sum()), x.size)))
    return per_band(seen, lambda x: SINGLE(fsum(x.tolist()) / x.size))


def nearest_rank(n, percent):
    return floor((n - 1) * Fraction(str(percent)) / 100 + Fraction(1, 2))


def percentile(method, seen):
    if method.rule == "nearest":
        return per_band(seen, lambda x: np.sort(x)[nearest_rank(x.size, method.percent)])
    if seen.whole:
        return per_band(seen, lambda x: np.rint(np.percentile(x.astype(float), method.percent)))
    return per_band(seen, lambda x: np.percentile(x, method.percent))


def in_power(seen, reduce):
    """dB × 100 of what `reduce` makes of the float64 powers, rounded half to even."""

    def decibels(band):
        return int(np.rint(1000 * np.log10(reduce(10 ** (band.astype(float) / 1000)))))

    return per_band(seen, decibels)


def median_power(_method, seen):
    return in_power(seen, np.median)


def mean_power(_method, seen):
    return in_power(seen, np.mean)


def percentile_power(method, seen):
    return in_power(seen, lambda x: np.percentile(x, method.percent))


def nothing(_method, _seen):
    return Answer([])


def real(seen, at, extras=()):
    """A real observation."""
    return Answer(seen.spectra[at, : seen.n_out].tolist(), extras, seen.items[at])


def first_clear(method, seen):
    return real(seen, -1 if method.last else 0)


def medoid(method, seen):
    """Distances in float64, summed in the order of time; exact squares of integers."""
    x = seen.spectra[:, : seen.n_out]
    x = x.astype(np.int64 if seen.whole else float)
    if method.nearest:
        centre = np.median(x if seen.whole else seen.spectra[:, : seen.n_out], axis=0)
        # Twice all of it, so that halves are integers.
        offsets = 2 * x - (2 * centre).astype(np.int64) if seen.whole else x - centre
        return real(seen, np.argmin(sum(offsets[:, b] ** 2 for b in range(seen.n_out))))
    totals = np.zeros(len(x))
    for other in x:
        totals += np.sqrt(sum((x[:, b] - other[b]) ** 2 for b in range(seen.n_out)).astype(float))
    return real(seen, np.argmin(totals))


def index_of(name, seen):
    """An index, in float32 step by step."""

    def band(name):
        return seen.band(name).astype(SINGLE)

    with np.errstate(all="ignore"):
        if name == "blue":
            return band("blue")
        if name == "hot":
            return band("blue") - SINGLE(0.5) * band("red") - SINGLE(0.08) * SINGLE(seen.unit)
        if name == "ndvi":
            return (band("nir") - band("red")) / (band("nir") + band("red"))
        if name == "ndwi":
            return (band("nir") - band("swir16")) / (band("nir") + band("swir16"))
        return np.maximum(band("nir"), band("swir16")) / band("blue")


DEFAULTS = {"blue": 25, "hot": 25, "ndwi": 100, "ratio": 100}


def by_index(method, seen):
    score = index_of(method.index, seen)
    order = [i for i in np.argsort(score, kind="stable") if np.isfinite(score[i])]
    if not order:
        return None
    percent = method.percent
    if percent is None and method.index == "ndvi":
        percent = 0 if np.median(score[order]) < SINGLE(-0.05) else 100
    elif percent is None:
        percent = DEFAULTS[method.index]
    return real(seen, order[nearest_rank(len(order), percent)])


def max_ndvi(_method, seen):
    score = index_of("ndvi", seen)
    usable = np.where(np.isfinite(score), score, -np.inf)
    return real(seen, np.argmax(usable)) if np.isfinite(score).any() else None


def bap_scores(method, seen):
    """Griffiths et al. 2013, with FORCE's weights: day 1, year 1, clouds 0.4, haze 0.3."""
    dates = np.floor(seen.days).astype("M8[D]")
    years = dates.astype("M8[Y]")
    day = (dates - years.astype("M8[D]")).astype(int) + 1
    low = method.target - 90 if method.low is None else method.low
    high = method.target + 90 if method.high is None else method.high
    seasonal = np.zeros(day.size)
    for turn in (-730, -365, 0, 365, 730):
        away = day + turn - method.target
        before, after = (method.target - low) % 365, (high - method.target) % 365
        side = np.where(away < 0, before, after)
        seasonal = np.maximum(seasonal, 0.01 ** ((away / side) ** 2))
    yearly = np.ones(day.size)
    if method.year is not None:
        yearly = 0.01 ** (((years.astype(int) + 1970 - method.year) / 2.25) ** 2)
    scale = 10_000 / seen.unit
    blue, red = seen.band("blue") * np.float64(scale), seen.band("red") * np.float64(scale)
    hot = blue - 0.5 * red - 800
    haze = 1 / (1 + np.exp(np.clip(0.05 * (hot + 150), -700, 700)))
    metres = seen.band(DISTANCE).astype(float)
    cloud = 1 / (1 + np.exp(np.clip(-10 / 3000 * (metres - 1500), -700, 700)))
    return (seasonal + yearly + 0.4 * cloud + 0.3 * haze) / 2.7


def best_pixel(method, seen):
    """The best observations: those whose scores no float32 tells from the best."""
    score = bap_scores(method, seen)
    near = np.flatnonzero(score > score.max() - 2e-6)
    return [real(seen, at, (score[at],))._replace(extra_slack=1e-6) for at in near]


# ------------------------------------------------------------------------------------- geomedian


def sum_of_distances(spectra, centre):
    return np.sqrt(((spectra - centre) ** 2).sum(1)).sum()


def geometric_median(spectra):
    """The minimum of the sum of distances, by Newton's method with a line search, in float64."""
    for candidate in spectra:  # Vardi & Zhang: a spectrum that is the solution
        away = spectra - candidate
        length = np.sqrt((away**2).sum(1))
        others = length > 0
        pull = (away[others] / length[others, None]).sum(0)
        if np.sqrt((pull**2).sum()) <= (~others).sum():
            return candidate
    centre = spectra.mean(0) + 1e-3
    for _ in range(500):
        away = centre - spectra
        length = np.maximum(np.sqrt((away**2).sum(1)), 1e-12)
        slope = (away / length[:, None]).sum(0)
        bend = (1 / length).sum() * np.eye(centre.size)
        bend -= (away.T / length**3) @ away
        step = -np.linalg.lstsq(bend, slope, rcond=1e-12)[0]
        plain = -slope / (1 / length).sum()
        here = sum_of_distances(spectra, centre)
        tries = [centre + share * step for share in 0.5 ** np.arange(12)] + [centre + plain]
        best = min(tries, key=lambda y: sum_of_distances(spectra, y))
        if sum_of_distances(spectra, best) >= here:
            break
        centre = best
    return centre


def deviations(spectra, centre):
    """SMAD, EMAD and BCMAD of Roberts et al. 2018; zeros are 1 from others and 0 from zeros."""
    zero, norm = ~spectra.any(1), np.sqrt((centre**2).sum())
    length = np.where(zero, 1, np.sqrt((spectra**2).sum(1))) * (norm or 1)
    cosine = np.where(zero == (norm == 0), 1 - (spectra * centre).sum(1) / length, 1)
    cosine[zero & (norm == 0)] = 0
    below = np.abs(spectra + centre).sum(1)
    bray = np.abs(spectra - centre).sum(1) / np.where(below == 0, 1, below)
    euclidean = np.sqrt(((spectra - centre) ** 2).sum(1))
    return tuple(np.median(kind) for kind in (cosine, euclidean, np.where(below == 0, 0, bray)))


def geomedian(method, seen):
    """Of two spectra the mean; of others in a line any that is as near to all."""
    spectra = seen.spectra[:, : seen.n_out].astype(float)
    centre = spectra.mean(0) if len(spectra) == 2 else geometric_median(spectra)
    least = sum_of_distances(spectra, centre)
    wrong = (2 * method.eps + 0.02) * seen.unit / 10_000 + 5e-5 * least / len(spectra)
    slack, far = wrong + 0.5 * seen.whole, wrong * seen.n_out**0.5
    relative, spare = 1e-5 + 2 * far / max(np.sqrt((centre**2).sum()), 1e-9), least * 1e-8
    if len(spectra) > 2 and np.linalg.matrix_rank(spectra - centre) < 2:
        far, relative, spare = np.inf, np.inf, len(spectra) * slack * seen.n_out**0.5
    return Answer(
        centre.tolist(),
        deviations(spectra, centre) if method.extras else (),
        slack=slack,
        extra_slack=(relative, far, relative) if method.extras else 0.0,
        also=lambda values: sum_of_distances(spectra, values) <= least + spare,
    )


# ------------------------------------------------------------------------------------- composites


def _agrees(answer, values, extras, item):
    if not np.allclose(values, answer.values, rtol=0, atol=answer.slack, equal_nan=True):
        return answer.also(values)
    known = np.where(np.isnan(answer.extras), np.isnan(extras), np.isfinite(extras))
    away = np.abs(np.subtract(extras, answer.extras))
    alike = known.all() and not (away > answer.extra_slack).any()
    return alike and (item is None or item == answer.item)


def assert_agrees(got, cube, rows, screen):
    """Fail unless a Composite is what the oracles of `rows`, [(method, oracle)], say."""
    nodata = NODATA[cube.values.dtype.name]
    assert got.values.dtype == cube.values.dtype
    assert got.count.dtype == got.outliers.dtype == np.uint16
    assert got.extras.dtype == SINGLE
    assert got.chosen.dtype == np.int16
    for y, x in np.ndindex(cube.values.shape[2:]):
        seen = pixel(cube, y, x)
        bad = rejected(screen, seen)
        assert got.outliers[y, x] == bad.sum(), f"outliers at {y}, {x}"
        seen = seen.keep(np.flatnonzero(~bad))
        assert got.count[y, x] == len(seen.items), f"count at {y}, {x}"
        layer = extra = slot = 0
        for method, oracle in rows:
            layers = 0 if oracle is nothing else seen.n_out
            answers = oracle(method, seen) if seen.items else None
            missing = Answer([nodata] * layers, (np.nan,) * len(method.extras))
            if answers is None:
                answers = missing
            values = got.values[layer : layer + layers, y, x].tolist()
            extras = got.extras[extra : extra + len(method.extras), y, x].tolist()
            item = got.chosen[slot, y, x] if method.chooses else None
            several = answers if isinstance(answers, list) else [answers]
            assert any(_agrees(answer, values, extras, item) for answer in several), (
                f"{method} at {y}, {x}: got {values} {extras} {item}, expected {several}"
            )
            layer, extra = layer + layers, extra + len(method.extras)
            slot += method.chooses
    assert (layer, extra, slot) == (len(got.values), len(got.extras), len(got.chosen))
