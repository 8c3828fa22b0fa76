from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.errors import InputError
from lcengine.kernels import NODATA, _jit
from lcengine.kernels.series import Despike, Tmask, despike, tmask

YEAR = 365.25
DTYPES = [np.int16, np.uint16, np.float32]
SIZES = [1, 2, 3, 4, 5, 11, 12, 13, 24, 25, 40]

# ------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("text", "options", "canonical"),
    [
        ("despike", Despike(3.0, 1.0), "despike:3:1"),
        (" despike:2.5:0.125 ", Despike(2.5, 0.125), "despike:2.5:0.125"),
        ("despike:999.999:0", Despike(999.999, 0.0), "despike:999.999:0"),
        ("tmask", Tmask(4.89), "tmask:4.89"),
        ("tmask:6", Tmask(6.0), "tmask:6"),
    ],
)
def test_options_are_read_and_written(text, options, canonical):
    assert type(options).parse(text) == options
    assert str(options) == canonical
    assert type(options).parse(canonical) == options


@pytest.mark.parametrize(
    "text",
    ["", "none", "despike:", "despike:3", "despike:3:1:1", "despike:x:1", "despike:3:-1"]
    + ["despike:0.5:0", "despike:1001:1", "despike:2:3", "despike:3.0001:1", "despike:nan:1"]
    + ["despike:1e1:1", "tmask:4.89", "DESPIKE"],
)
def test_despike_text_is_rejected(text):
    with pytest.raises(InputError, match="despike"):
        Despike.parse(text)


@pytest.mark.parametrize("text", ["", "tmask:", "tmask:4:4", "tmask:-1", "tmask:1001", "despike"])
def test_tmask_text_is_rejected(text):
    with pytest.raises(InputError, match="tmask"):
        Tmask.parse(text)


# ------------------------------------------------------------------------------------- oracles


def chosen(pixel, clear, groups):
    """Per group: (members, the member that stands for it or None, whether that one is clear).

    pixel: per item a value, or None where there is no data.
    """
    found = {}
    for item, group in enumerate(groups):
        found.setdefault(group, []).append(item)
    result = []
    for members in found.values():
        having = [i for i in members if pixel[i] is not None]
        bright = [i for i in having if clear[i]]
        stands = (bright or having or [None])[0]
        result.append((members, stands, bool(bright)))
    return result


def between(left, right, at):
    """Height at a day of the line through two (day, value) points; the mean where days agree."""
    if left[0] == right[0]:
        return (left[1] + right[1]) / 2
    return left[1] + (right[1] - left[1]) * (at - left[0]) / (right[0] - left[0])


def spikes(points, above):
    """Rejected indices of (day, value) fractions, those that remain, and the squared noise."""
    kept, noise = list(range(len(points))), None
    while len(kept) >= 4:
        residual = [
            abs(points[kept[j]][1] - between(points[kept[j - 1]], points[kept[j + 1]], at))
            for j in range(1, len(kept) - 1)
            for at in [points[kept[j]][0]]
        ]
        noise = sum(r * r for r in residual) / len(residual)
        if not max(residual) ** 2 > above**2 * noise:
            break
        j = residual.index(max(residual)) + 1
        left, middle, right = (points[kept[k]][1] for k in (j - 1, j, j + 1))
        if j == 1 and abs(left - right) > abs(middle - right):
            j = 0
        elif j == len(kept) - 2 and abs(left - right) > abs(middle - left):
            j = len(kept) - 1
        del kept[j]
    return [i for i in range(len(points)) if i not in kept], kept, noise


def despike_oracle(pixel, clear, groups, days, above, below):
    """New flags of one pixel, rejected and restored, in exact arithmetic."""
    flags = [int(bool(flag)) for flag in clear]
    observations = chosen(pixel, clear, groups)
    seen = [i for i, (_, _, is_clear) in enumerate(observations) if is_clear]
    point = {
        i: (Fraction(days[i]), Fraction(pixel[stands]))
        for i, (_, stands, _) in enumerate(observations)
        if stands is not None
    }
    rejected, kept, noise = spikes([point[i] for i in seen], Fraction(above))
    for i in rejected:
        for member in observations[seen[i]][0]:
            flags[member] = 0
    kept = [seen[i] for i in kept]
    restored = 0
    for i in point if noise is not None else ():
        left = [k for k in kept if k < i]
        right = [k for k in kept if k > i]
        if observations[i][2] or not left or not right:
            continue
        off = point[i][1] - between(point[left[-1]], point[right[0]], point[i][0])
        if off**2 < Fraction(below) ** 2 * noise:
            flags[observations[i][1]] = 1
            restored += 1
    return flags, len(rejected), restored


def robust_residuals(y, days):
    """Absolute residuals of the robust harmonic model."""
    years = ceil((days[-1] - days[0]) / YEAR)
    angle = 2 * np.pi * (days - days[0]) / YEAR
    columns = [np.ones(y.size), np.cos(angle), np.sin(angle)]
    if years > 1:
        columns += [np.cos(angle / years), np.sin(angle / years)]
    x = np.stack(columns, axis=1)
    floor = 1e-6 * np.median(np.abs(np.diff(y)))
    q, _ = np.linalg.qr(x)
    leverage = np.minimum((q**2).sum(axis=1), 0.9999)
    weight = np.ones(y.size)
    for fit in range(5):
        if fit:
            adjusted = residual / np.sqrt(1 - leverage)
            sigma = max(np.median(np.sort(np.abs(adjusted))[x.shape[1] - 1 :]) / 0.6745, floor)
            u = adjusted / (4.685 * sigma)
            weight = np.where(np.abs(u) < 1, (1 - u**2) ** 2, 0)
        root = np.sqrt(weight)
        beta = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
        residual = y - x @ beta
    return np.abs(residual)


def tmask_oracle(bands, clear, groups, days, multiple):
    """New flags of one pixel, and the items about which rounding may decide."""
    flags, close = [int(bool(flag)) for flag in clear], []
    pixel = [None if None in pair else pair for pair in zip(*bands, strict=True)]
    observations = chosen(pixel, clear, groups)
    seen = [i for i, (_, _, is_clear) in enumerate(observations) if is_clear]
    if len(seen) < 12:
        return flags, close
    series = np.array([pixel[observations[i][1]] for i in seen], float).T
    variograms = [np.median(np.abs(np.diff(y))) for y in series]
    if min(variograms) == 0:
        return flags, close
    when = np.array([days[i] for i in seen])
    ratios = [
        robust_residuals(y, when) / (multiple * v) for y, v in zip(series, variograms, strict=True)
    ]
    for i, ratio in zip(seen, np.max(ratios, axis=0), strict=True):
        members = observations[i][0]
        if abs(ratio - 1) < 1e-4:
            close += members
        if ratio > 1:
            for member in members:
                flags[member] = 0
    return flags, close


def make(seed, observations, shape=(3, 4), masked=0.4, members=1, dtype=np.int16, years=1.5):
    """Two bands of a noisy seasonal series with spikes, masks, groups and days; some no data."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, members + 1, observations)
    groups = np.repeat(np.arange(observations) * 2 - 3, sizes)
    size = (groups.size, *shape)
    days = np.sort(rng.integers(0, max(int(years * 365), 1) + 1, observations)) + 15_000.0
    season = 200 * np.cos(2 * np.pi * days / YEAR)[np.repeat(np.arange(observations), sizes)]
    bands = []
    for level in (800, 2000):
        band = level + season[:, None, None] + rng.normal(0, rng.choice([3, 40]), size)
        band += np.where(rng.random(size) < 0.06, rng.uniform(-500, 4000, size), 0)
        bands.append(np.maximum(band, 1).round().astype(dtype))
    lost = rng.random(size) < 0.05
    clear = (rng.random(size) >= masked).astype(np.uint8) * rng.integers(1, 256, size, np.uint8)
    clear[:, 0, 0] = 0
    clear[:, -1, -1] = 255
    return bands, clear, ~lost, groups, days


def listed(band, valid):
    """Values of an (item,) column as Python numbers, None where there are none."""
    missing = {"int16": NODATA, "uint16": 0}.get(band.dtype.name)
    return [
        float(v) if ok and np.isfinite(v) and v != missing else None
        for v, ok in zip(band.tolist(), valid, strict=True)
    ]


# -------------------------------------------------------------------------- against the oracles


@given(
    seed=st.integers(0, 2**32 - 1),
    observations=st.sampled_from(SIZES),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    masked=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    members=st.sampled_from([1, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    ratios=st.sampled_from([(3, 1), (2, 2), (1.5, 0.5), (1, 1), (4, 0)]),
)
def test_despike_equals_the_oracle(seed, observations, shape, masked, members, dtype, ratios):
    (values, _), clear, valid, groups, days = make(
        seed, observations, shape, masked, members, dtype
    )
    if dtype == np.float32:
        values.ravel()[::13] = np.nan
        values.ravel()[5::29] = np.inf
    elif dtype == np.int16:
        values.ravel()[::13] = NODATA
    else:
        values.ravel()[::13] = 0
    got = despike(values, clear, valid, groups, days, above=ratios[0], below=ratios[1])
    for y, x in np.ndindex(shape):
        pixel = listed(values[:, y, x], valid[:, y, x])
        flags, rejected, restored = despike_oracle(pixel, clear[:, y, x], groups, days, *ratios)
        assert got.clear[:, y, x].tolist() == flags
        assert (got.rejected[y, x], got.restored[y, x]) == (rejected, restored)
    assert [part.dtype for part in got] == [np.uint8, np.uint16, np.uint16]


@given(
    seed=st.integers(0, 2**32 - 1),
    observations=st.sampled_from([11, 12, 13, 20, 24, 41, 64]),
    masked=st.sampled_from([0.0, 0.3]),
    members=st.sampled_from([1, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    years=st.sampled_from([0.3, 1.0, 1.5, 3.2, 7.0]),
    multiple=st.sampled_from([4.89, 2.0, 0.5]),
)
def test_tmask_equals_the_oracle(seed, observations, masked, members, dtype, years, multiple):
    bands, clear, valid, groups, days = make(
        seed, observations, (2, 3), masked, members, dtype, years
    )
    for band in bands:
        band[~valid] = np.nan if dtype == np.float32 else {np.int16: NODATA, np.uint16: 0}[dtype]
    got = tmask(*bands, clear, groups, days, multiple=multiple)
    for y, x in np.ndindex(2, 3):
        columns = [listed(band[:, y, x], valid[:, y, x]) for band in bands]
        flags, close = tmask_oracle(columns, clear[:, y, x], groups, days, multiple)
        sure = [i for i in range(groups.size) if i not in close]
        assert got.clear[sure, y, x].tolist() == [flags[i] for i in sure]
    assert not got.restored.any()


@pytest.mark.parametrize("observations", [200, 1023, 1024])
def test_long_series_equal_the_oracles(observations):
    bands, clear, valid, groups, days = make(7, observations, (1, 2), years=9.0)
    got = despike(bands[0], clear, valid, groups, days)
    pixel = listed(bands[0][:, 0, 1], valid[:, 0, 1])
    flags, *counts = despike_oracle(pixel, clear[:, 0, 1], groups, days, 3, 1)
    assert got.clear[:, 0, 1].tolist() == flags
    assert [got.rejected[0, 1], got.restored[0, 1]] == counts
    got = tmask(*bands, clear, groups, days)
    columns = [listed(band[:, 0, 1], np.ones(observations, bool)) for band in bands]
    flags, close = tmask_oracle(columns, clear[:, 0, 1], groups, days, 4.89)
    assert not close
    assert got.clear[:, 0, 1].tolist() == flags
    assert got.rejected[0, 1] == observations - sum(flags) > 10
