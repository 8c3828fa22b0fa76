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


@pytest.mark.parametrize("numbers", ["", "3", "3:1:1", "x:1", "3:-1", "nan:1", "1e1:1"])
def test_despike_numbers_are_rejected(numbers):
    with pytest.raises(InputError, match="expected 'despike' or 'despike:ABOVE:BELOW'"):
        Despike.parse(f"despike:{numbers}")


@pytest.mark.parametrize(
    "text",
    ["", "none", "despike:0.5:0", "despike:1001:1", "despike:2:3", "despike:3.0001:1", "tmask:4"],
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
    weight, residual = np.ones(y.size), y
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
    years=st.sampled_from([0.02, 1.5]),  # several observations a day, or not
    ratios=st.sampled_from([(3, 1), (2, 2), (1.5, 0.5), (1, 1), (4, 0)]),
)
def test_despike_equals_the_oracle(  # noqa: PLR0917
    seed, observations, shape, masked, members, dtype, years, ratios
):
    (values, _), clear, valid, groups, days = make(
        seed, observations, shape, masked, members, dtype, years
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


# ------------------------------------------------------------------------------ plain examples


def column(series, dtype=np.int16):
    return np.array(series, dtype).reshape(-1, 1, 1)


def ones(series):
    return np.ones((len(series), 1, 1), np.uint8)


def seasonal(observations, years=1.0, noise=10.0, level=600, seed=0):
    rng = np.random.default_rng(seed)
    days = np.linspace(0, years * 365, observations).round() + 16_000
    series = level + 250 * np.sin(2 * np.pi * days / YEAR) + rng.normal(0, noise, observations)
    return series.round().astype(np.int16), days


def flags(result):
    return result.clear[:, 0, 0].tolist()


def test_despike_finds_clouds_and_shadows_and_nothing_else():
    series, days = seasonal(36)
    clean = despike(column(series), ones(series), ones(series), None, days)
    assert flags(clean) == [1] * 36
    assert clean.rejected[0, 0] == clean.restored[0, 0] == 0
    series[[9, 20]] += np.array([2500, -450], np.int16)
    got = despike(column(series), ones(series), ones(series), None, days)
    assert [i for i, flag in enumerate(flags(got)) if not flag] == [9, 20]
    assert got.rejected[0, 0] == 2


def test_despike_restores_what_lies_on_the_course():
    series, days = seasonal(30, noise=20.0)
    clear = ones(series)
    clear[[0, 6, 12, 18, 29]] = 0
    series[12] += 900  # a cloud that the mask knew
    exact = between((days[5], float(series[5])), (days[7], float(series[7])), days[6])
    series[6] = round(exact)
    exact = between((days[17], float(series[17])), (days[19], float(series[19])), days[18])
    series[18] = round(exact)
    got = despike(column(series), clear, ones(series), None, days)
    assert [i for i, flag in enumerate(flags(got)) if not flag] == [0, 12, 29]  # ends never
    assert got.restored[0, 0] == 2
    lost = ones(series)
    lost[6] = 0
    assert despike(column(series), clear, lost, None, days).restored[0, 0] == 1
    assert despike(column(series), clear, lost, None, days, below=0).restored[0, 0] == 0


@pytest.mark.parametrize("end", [0, 19])
def test_despike_rejects_an_end_instead_of_its_neighbour(end):
    series, days = seasonal(20, noise=5.0)
    series[end] += 3000  # no residual of its own: the neighbour's is the largest
    got = despike(column(series), ones(series), ones(series), None, days)
    assert [i for i, flag in enumerate(flags(got)) if not flag] == [end]


def test_despike_never_restores_what_it_rejected():
    series, days = seasonal(24, noise=15.0)
    series[11] += 1500
    got = despike(column(series), ones(series), ones(series), None, days, above=2, below=2)
    assert flags(got)[11] == 0


@pytest.mark.parametrize("observations", range(12))
def test_despike_needs_twelve_observations_to_reject(observations):
    series = np.full(observations, 500)
    series[observations // 2 :: 7] = 9000
    got = despike(column(series), ones(series), ones(series), None, np.arange(observations))
    assert flags(got) == [1] * observations


def test_despike_restores_with_four_clear_observations_only():
    series = np.array([100, 140, 120, 120, 110])
    for size, restored in ((4, 0), (5, 1)):
        clear = ones(series[:size])
        clear[2] = 0
        args = column(series[:size]), clear, ones(series[:size]), None, np.arange(size)
        got = despike(*args, above=5, below=5)
        assert got.restored[0, 0] == restored


def test_despike_of_exactly_straight_series_changes_nothing():
    days = np.cumsum(np.random.default_rng(1).integers(1, 30, 50)) + 0.0
    for series in (np.full(50, 700), 7 * days - 3000):
        clear = ones(series)
        clear[::5] = 0
        got = despike(column(series), clear, ones(series), None, days)
        np.testing.assert_array_equal(got.clear, clear)


def test_despike_does_not_depend_on_the_direction_of_time():
    for seed in range(20):
        (values, _), clear, valid, _, days = make(seed, 40, (2, 3))
        days += np.random.default_rng(seed).random(40).cumsum()
        there = despike(values, clear, valid, None, days)
        back = despike(values[::-1], clear[::-1], valid[::-1], None, -days[::-1])
        np.testing.assert_array_equal(there.clear, back.clear[::-1])


def test_tmask_finds_clouds_and_shadows_and_nothing_else():
    for years, observations in ((0.9, 24), (1.0, 24), (2.4, 40), (6.0, 90)):
        green, days = seasonal(observations, years, noise=30.0)
        swir, _ = seasonal(observations, years, noise=40.0, level=2000, seed=1)
        clean = tmask(column(green), column(swir), ones(green), None, days)
        assert flags(clean) == [1] * observations
        green[5] += 2000
        swir[[5, 14]] += np.array([1500, -1200], np.int16)
        got = tmask(column(green), column(swir), ones(green), None, days)
        assert [i for i, flag in enumerate(flags(got)) if not flag] == [5, 14]
        assert got.rejected[0, 0] == 2


def test_tmask_needs_twelve_clear_observations_and_a_variogram():
    green, days = seasonal(13, noise=30.0)
    green[4] += 3000
    swir = green * 2
    clear = ones(green)
    clear[0] = 0
    assert flags(tmask(column(green), column(swir), clear, None, days))[4] == 0
    clear[1] = 0
    assert flags(tmask(column(green), column(swir), clear, None, days)) == [0, 0] + [1] * 11
    constant = np.full(13, 700)
    constant[4] = 9000
    for bands in ((constant, swir), (swir, constant), (constant, constant)):
        got = tmask(*(column(band) for band in bands), ones(green), None, days)
        assert flags(got) == [1] * 13


def test_tmask_of_one_day_is_about_the_mean():
    green = np.random.default_rng(2).normal(600, 30, 20).round()
    green[8] += 900
    got = tmask(column(green), column(green), ones(green), None, np.full(20, 16_000.0))
    assert [i for i, flag in enumerate(flags(got)) if not flag] == [8]


@pytest.mark.parametrize(
    "days",
    [np.r_[np.arange(19) * 7, 900], np.r_[np.arange(19), 900], np.r_[:10, 400:410] * 2],
    ids=["isolated", "isolated from few weeks", "few weeks of two years"],
)
def test_tmask_of_nearly_dependent_columns(days):
    for seed in range(30):
        series = np.random.default_rng(seed).normal(600, 30, (2, 20)).round()
        series[:, seed % 20] += 120
        expected, close = tmask_oracle(series.tolist(), np.ones(20), range(20), days, 3)
        got = tmask(*(column(y) for y in series), ones(days), None, days, multiple=3)
        sure = [i for i in range(20) if i not in close]
        assert [flags(got)[i] for i in sure] == [expected[i] for i in sure]


def test_sentinel_values_are_no_data():
    series, days = seasonal(30)
    for dtype, sentinel in ((np.int16, NODATA), (np.uint16, 0), (np.float32, np.nan)):
        values = column(series, dtype)
        values[7] = sentinel
        clear = ones(series)
        got = despike(values, clear, clear, None, days)
        assert (flags(got), got.rejected[0, 0]) == ([1] * 30, 0)
        assert tmask(values, column(series, dtype), clear, None, days).rejected[0, 0] == 0


# ---------------------------------------------------------------------------------- groups


def test_rejecting_an_observation_masks_all_its_items():
    series, days = seasonal(24, noise=20.0)
    groups = np.repeat(np.arange(24), 2)
    values = np.repeat(series, 2)
    values[20] += 3000  # first item of observation 10; the second one would step in
    first = despike(column(values), ones(values), ones(values), groups, days)
    assert [i for i, flag in enumerate(flags(first)) if not flag] == [20, 21]
    assert first.rejected[0, 0] == 1
    second = tmask(column(values), column(values), ones(values), groups, np.repeat(days, 2))
    assert [i for i, flag in enumerate(flags(second)) if not flag] == [20, 21]
    assert second.rejected[0, 0] == 1
    clear = ones(values)
    clear[20] = 0  # now the second item stands for the observation
    got = despike(column(values), clear, ones(values), groups, days)
    assert [i for i, flag in enumerate(flags(got)) if not flag] == [20]


def test_restoring_an_observation_clears_its_first_item_with_data():
    series, days = seasonal(24, noise=20.0)
    series[10] = (int(series[9]) + int(series[11])) // 2
    groups = np.repeat(np.arange(24), 3)
    values = np.repeat(series, 3)
    clear, valid = ones(values), ones(values)
    clear[30:33] = 0
    valid[30] = 0
    got = despike(column(values), clear, valid, groups, days)
    assert flags(got)[30:33] == [0, 1, 0]
    assert got.restored[0, 0] == 1


@given(seed=st.integers(0, 2**32 - 1))
def test_groups_of_one_filled_item_are_that_item(seed):
    (green, swir), clear, valid, _, days = make(seed, 30, (2, 3), members=1)
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 3, 30) + 3 * np.arange(30)  # which of three items has the data
    size = (90, 2, 3)
    wide = {name: np.zeros(size, np.int16) for name in ("green", "swir")}
    masks = {name: np.zeros(size, np.uint8) for name in ("clear", "valid")}
    wide["green"][place], wide["swir"][place] = green, swir
    masks["clear"][place], masks["valid"][place] = clear, valid
    groups = np.repeat(np.arange(30), 3)
    got = despike(wide["green"], masks["clear"], masks["valid"], groups, days)
    expected = despike(green, clear, valid, None, days)
    np.testing.assert_array_equal(got.clear[place], expected.clear)
    np.testing.assert_array_equal(got.restored, expected.restored)
    got = tmask(wide["green"], wide["swir"], masks["clear"], groups, np.repeat(days, 3))
    np.testing.assert_array_equal(got.clear[place], tmask(green, swir, clear, None, days).clear)


# ------------------------------------------------------------------------------ invariances


def both(bands, clear, valid, groups, days, **options):
    """The results of both screens, as one list of arrays."""
    first = despike(bands[0], clear, valid, groups, days, **options)
    return [*first, *tmask(*bands, clear, groups, days, **options)]


def same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@given(seed=st.integers(0, 2**32 - 1), years=st.sampled_from([0.8, 2.5]))
def test_a_pixel_does_not_depend_on_its_neighbours(seed, years):
    bands, clear, valid, groups, days = make(seed, 30, (5, 61), members=2, years=years)
    whole = both(bands, clear, valid, groups, days)
    rng = np.random.default_rng(seed)
    rows, cols = np.sort(rng.integers(0, 6, 2)), np.sort(rng.integers(0, 62, 2))
    part = (..., slice(*rows), slice(*cols))
    cut = both([band[part] for band in bands], clear[part], valid[part], groups, days)
    same(cut, [array[part] for array in whole])
    order = rng.permutation(61)
    mixed = both([b[..., order] for b in bands], clear[..., order], valid[..., order], groups, days)
    same(mixed, [array[..., order] for array in whole])


@given(seed=st.integers(0, 2**32 - 1), extra=st.integers(1, 5))
def test_items_without_clear_pixels_change_nothing(seed, extra):
    bands, clear, _, _, days = make(seed, 30, (3, 4), years=1.9)
    valid = clear != 0
    at = np.sort(np.random.default_rng(seed).integers(0, 31, extra))

    def padded(array, value):
        return np.insert(array, at, value, axis=0)

    more = padded(days, 0)
    more[0] = min(more[0], 14_000) or 14_000
    more = np.where(more == 0, np.maximum.accumulate(more), more)
    kept = np.delete(np.arange(30 + extra), at + np.arange(extra))
    got = both([padded(b, 5000) for b in bands], padded(clear, 0), padded(valid, 0), None, more)
    expected = both(bands, clear, valid, None, more[kept])
    same([got[0][kept], got[1], got[2], got[3][kept], *got[4:]], expected)


def test_threads_do_not_matter(monkeypatch):
    bands, clear, valid, groups, days = make(3, 30, (37, 41), members=2, years=2.5)
    expected = both(bands, clear, valid, groups, days)
    for cpus in (1, 3):
        monkeypatch.setattr(_jit, "usable_cpus", lambda cpus=cpus: cpus)
        same(both(bands, clear, valid, groups, days, parallel=True), expected)


def test_any_view_will_do():
    bands, clear, valid, groups, days = make(11, 25, (6, 7))
    expected = both(bands, clear, valid, groups, days)
    cube = np.stack(bands, axis=1)
    cube.setflags(write=False)
    same(both([cube[:, 0], cube[:, 1]], clear, valid, groups, days), expected)
    wide = [np.pad(band, ((0, 0), (1, 2), (3, 1)))[:, 1:-2, 3:-1] for band in bands]
    same(both(wide, clear.astype(bool), valid.astype(np.uint8), groups, days), expected)
    last = [np.asfortranarray(band) for band in bands]
    same(both(last, np.asfortranarray(clear), valid, groups, list(days)), expected)
    upside = [band[::-1].copy()[::-1] for band in bands]
    before = clear.copy()
    same(both(upside, clear, valid, groups, days), expected)
    np.testing.assert_array_equal(clear, before)


def test_types_of_values_do_not_matter():
    bands, clear, valid, groups, days = make(5, 40, (4, 4))
    expected = both(bands, clear, valid, groups, days)
    for dtype in (np.uint16, np.float32):
        same(both([band.astype(dtype) for band in bands], clear, valid, groups, days), expected)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0)])
def test_nothing_in_nothing_out(shape):
    values, clear = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    for parallel in (False, True):
        for array in both([values] * 2, clear, clear, None, np.arange(shape[0]), parallel=parallel):
            assert array.shape in (shape, shape[1:])


# ------------------------------------------------------------------------------------- errors


def test_what_does_not_fit_is_named():
    values, clear, days = np.ones((4, 2, 3), np.int16), np.ones((4, 2, 3), np.uint8), np.arange(4)

    def screen(values=values, clear=clear, valid=clear, groups=None, days=days, **options):
        return despike(values, clear, valid, groups, days, **options)

    for options, message in [
        ({"values": values.astype(np.int32)}, "int32"),
        ({"values": values[0]}, r"shape \(2, 3\)"),
        ({"clear": clear[:, :1]}, "got clear"),
        ({"valid": clear.astype(np.int16)}, "got valid int16"),
        ({"groups": np.array([0, 1, 0, 2])}, "groups that decrease"),
        ({"groups": np.zeros(4)}, "groups float64"),
        ({"groups": np.zeros(3, int)}, r"groups int64 of shape \(3,\)"),
        ({"days": days[:3]}, r"days of shape \(3,\)"),
        ({"days": -days}, "days that decrease"),
        ({"days": [0, 1, 2, np.nan]}, "not finite"),
        ({"above": 0.5}, "despike above 0.5"),
        ({"below": 4}, "despike below 4"),
    ]:
        with pytest.raises(InputError, match=message):
            screen(**options)
    with pytest.raises(InputError, match="got swir16 float32"):
        tmask(values, values.astype(np.float32), clear, None, days)
    with pytest.raises(InputError, match="tmask multiple -1"):
        tmask(values, values, clear, None, days, multiple=-1)
    many = np.ones((1025, 1, 1), np.int16)
    with pytest.raises(InputError, match="1025 observations"):
        tmask(many, many, many.astype(np.uint8), None, np.arange(1025))
    groups = np.arange(1025) // 2
    assert flags(despike(many, many > 0, many > 0, groups, np.arange(1025))) == [1] * 1025
