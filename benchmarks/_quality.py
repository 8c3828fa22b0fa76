"""Errors of a composite: RMSE, bias, 95th percentile, residual cloud and shadow, with intervals.

A composite and its truth are int16 (case, band, y, x) or (band, y, x), reflectance × 10000, NODATA
where there is no value. Errors are counted once, per block of pixels (`tally`); statistics and
their block bootstrap (`intervals`, `paired`) are sums over blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

NODATA = -32768
Pixels = NDArray[np.int16]
Mask = NDArray[np.bool_]

CLOUD_RISE = 300
"""Residual cloud: blue brighter than the truth by more (0.03)."""
SHADOW_FALL, SHADOW_SHARE = 200, 0.2
"""Residual shadow: near infrared darker by more (0.02), and by more than a fifth of the truth,
red not brighter (it rises where vegetation goes)."""
_FINE, _COARSE, _LARGEST = 1000, 20, 20000
_BINS = _FINE + (_LARGEST - _FINE) // _COARSE + 1


@dataclass(frozen=True)
class Tally:
    """Sums over the errors of a composite, per block of pixels: all a bootstrap needs."""

    bands: tuple[str, ...]
    case: NDArray[np.int64]
    """(unit,) which case (date) the block belongs to."""
    pixels: NDArray[np.float64]
    """(unit,) pixels that count; the shares refer to them."""
    covered: NDArray[np.float64]
    """(unit,) of these, pixels for which the composite has a value in all bands."""
    cloud: NDArray[np.float64]
    shadow: NDArray[np.float64]
    total: NDArray[np.float64]
    """(unit, band) sum of the errors, reflectance."""
    squares: NDArray[np.float64]
    histogram: NDArray[np.float32]
    """(unit, bin) absolute errors of all bands: bins of 0.0001 to 0.1, of 0.002 beyond."""


def merge(tallies: Sequence[Tally]) -> Tally:
    """Several tallies as one, their cases being different ones."""
    cases, start = [], 0
    for one in tallies:
        cases.append(one.case + start)
        start += int(one.case.max(initial=-1)) + 1
    rest = {
        field.name: np.concatenate([getattr(one, field.name) for one in tallies])
        for field in fields(Tally)
        if field.name not in ("bands", "case")
    }
    return Tally(bands=tallies[0].bands, case=np.concatenate(cases), **rest)


def common(where: Mask | None, *composites: Pixels) -> Mask:
    """Pixels, (case, y, x) or (y, x), for which all composites have a value in all bands."""
    both = np.logical_and.reduce([(c != NODATA).all(axis=-3) for c in composites])
    return both if where is None else np.logical_and(both, where)


def tally(
    composite: Pixels,
    truth: Pixels,
    bands: Sequence[str],
    *,
    where: Mask | None = None,
    block: int = 64,
) -> Tally:
    """Count the errors of `composite`, both (case, band, y, x) or (band, y, x), block by block.

    `where` (case, y, x) or (y, x) restricts the pixels. Where either has NODATA in a band the
    pixel is not covered and gives no error.
    """
    if composite.ndim == 3:
        composite, truth = composite[None], truth[None]
    cases, _, height, width = composite.shape
    counts = np.ones((cases, height, width), np.bool_)
    if where is not None:
        counts &= where
    good = counts & ((composite != NODATA) & (truth != NODATA)).all(axis=1)
    error = composite.astype(np.int32) - truth
    cloud, shadow = residuals(composite, truth, bands)
    unit = _units(cases, height, width, block)
    n = int(unit.max()) + 1

    def per_unit(mask: Mask) -> NDArray[np.float64]:
        return np.bincount(unit[mask], minlength=n).astype(np.float64)

    total, squares = np.empty((n, len(bands))), np.empty((n, len(bands)))
    histogram = np.zeros((n, _BINS), np.float32)
    at = unit[good]
    for b in range(len(bands)):
        values = error[:, b][good]
        total[:, b] = np.bincount(at, values * 1e-4, minlength=n)
        squares[:, b] = np.bincount(at, (values * 1e-4) ** 2, minlength=n)
        flat = np.bincount(at * _BINS + _bin(np.abs(values)), minlength=n * _BINS)
        histogram += flat.reshape(n, _BINS)
    used = per_unit(counts) > 0
    case = np.arange(n) // (n // cases)
    return Tally(
        bands=tuple(bands),
        case=case[used],
        pixels=per_unit(counts)[used],
        covered=per_unit(good)[used],
        cloud=per_unit(cloud & good)[used],
        shadow=per_unit(shadow & good)[used],
        total=total[used],
        squares=squares[used],
        histogram=histogram[used],
    )


def residuals(composite: Pixels, truth: Pixels, bands: Sequence[str]) -> tuple[Mask, Mask]:
    """Residual cloud and residual shadow, each (case, y, x); needs blue, red and nir."""
    blue, red, nir = (list(bands).index(name) for name in ("blue", "red", "nir"))
    error = composite.astype(np.int32) - truth
    cloud = error[:, blue] > CLOUD_RISE
    fall = np.maximum(SHADOW_FALL, SHADOW_SHARE * truth[:, nir])
    shadow = (error[:, nir] < -fall) & (error[:, red] <= 0)
    return cloud, shadow


def _units(cases: int, height: int, width: int, block: int) -> NDArray[np.int64]:
    """Number of the block a pixel belongs to, (case, y, x); the blocks of a case are adjacent."""
    rows, columns = np.arange(height) // block, np.arange(width) // block
    per_row = int(columns[-1]) + 1
    one = rows[:, None] * per_row + columns
    return np.arange(cases)[:, None, None] * (int(one.max()) + 1) + one


def _bin(size: NDArray[np.integer]) -> NDArray[np.int64]:
    fine = size < _FINE
    coarse = _FINE + (np.minimum(size, _LARGEST) - _FINE) // _COARSE
    return np.asarray(np.where(fine, size, coarse), dtype=np.int64)


_UPPER = np.concatenate(
    [np.arange(_FINE), _FINE + _COARSE * np.arange(_BINS - _FINE) + _COARSE / 2]
)


def summarise(
    tally: Tally, weights: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Statistics per replicate of the weights (replicate, unit), or once without.

    `rmse`, `bias` over all bands and, with `_<band>` appended, per band; `p95` (95th percentile of
    the absolute error of all bands; errors above 2 count as 2); `residual_cloud`,
    `residual_shadow` as shares of the covered pixels; `covered` as share of the pixels that count.
    Values (replicate,), NaN without pixels.
    """
    if weights is None:
        weights = np.ones((1, tally.case.size))
    covered = weights @ tally.covered
    result = {
        "residual_cloud": _ratio(weights @ tally.cloud, covered),
        "residual_shadow": _ratio(weights @ tally.shadow, covered),
        "covered": _ratio(covered, weights @ tally.pixels),
    }
    total, squares = weights @ tally.total, weights @ tally.squares
    result["p95"] = _percentile(weights.astype(np.float32) @ tally.histogram, 0.95)
    parts = [("", slice(None)), *((f"_{b}", slice(i, i + 1)) for i, b in enumerate(tally.bands))]
    for suffix, part in parts:
        values = covered * total[:, part].shape[1]
        result[f"rmse{suffix}"] = np.sqrt(_ratio(squares[:, part].sum(axis=1), values))
        result[f"bias{suffix}"] = _ratio(total[:, part].sum(axis=1), values)
    return result


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0))


def _percentile(counts: NDArray[np.float32], share: float) -> NDArray[np.float64]:
    """Reflectance of the bin in which the share of the counts (replicate, bin) is reached."""
    reached = counts.cumsum(axis=1, dtype=np.float64)
    at = (reached >= share * reached[:, -1:]).argmax(axis=1)
    return np.asarray(np.where(reached[:, -1] > 0, _UPPER[at] * 1e-4, np.nan))


def resample(case: NDArray[np.int64], repeats: int, seed: int) -> NDArray[np.float64]:
    """Weights (repeats, unit) of a block bootstrap: cases with replacement, then their blocks.

    With one case (a single scene) only the blocks are drawn. Neighbouring errors are correlated
    (clouds, fields), so blocks, not pixels, are what is exchangeable (Künsch 1989).
    """
    rng = np.random.default_rng(seed)
    names, size = np.unique(case, return_counts=True)
    drawn = rng.multinomial(names.size, np.full(names.size, 1 / names.size), size=repeats)
    weights = np.empty((repeats, case.size))
    for i, name in enumerate(names):
        even = np.full(size[i], 1 / size[i])
        weights[:, case == name] = rng.multinomial(drawn[:, i] * size[i], even)
    return weights


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def intervals(tally: Tally, *, repeats: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Every statistic of `summarise` with its percentile interval."""
    return _intervals(summarise(tally), summarise(tally, resample(tally.case, repeats, seed)))


def paired(
    a: Tally, b: Tally, *, relative: bool = False, repeats: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every statistic of `a` minus that of `b`, both resampled alike: same cases, same blocks.

    relative: the difference as share of the statistic of `b`. Both must have been tallied over the
    same pixels (`common`).
    """
    if not (np.array_equal(a.case, b.case) and np.array_equal(a.pixels, b.pixels)):
        raise ValueError("paired tallies of different pixels: give both the same `where`")
    weights = resample(a.case, repeats, seed)
    point, spread = (
        {k: _ratio(x[k] - y[k], y[k]) if relative else x[k] - y[k] for k in x}
        for x, y in ((summarise(a), summarise(b)), (summarise(a, weights), summarise(b, weights)))
    )
    return _intervals(point, spread)


def _intervals(
    point: dict[str, NDArray[np.float64]],
    spread: dict[str, NDArray[np.float64]],
) -> dict[str, Interval]:
    found = {}
    for name, value in point.items():
        known = spread[name][~np.isnan(spread[name])]
        ends = np.percentile(known, [2.5, 97.5]) if known.size else np.full(2, np.nan)
        found[name] = Interval(float(value[0]), *ends.tolist())
    return found
