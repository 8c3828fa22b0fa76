"""Features against plain NumPy: indices, gaps, statistics, harmonics; any blocking."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.errors import InputError
from lcengine.features import INDICES, Features
from lcengine.features.dates import middles
from lcengine.features.grammar import STATISTICS
from lcengine.inputs import Input, observed
from lcengine.kernels import temporal

BANDS = ("blue", "green", "red", "rededge1", "rededge2", "nir", "swir16", "swir22")
MONTHS = tuple(f"2018-{m:02}" for m in range(3, 11))
FILL = -32768
S2 = Input("s2", BANDS, "int16", FILL, MONTHS, 1e-4, "1")
S1 = Input("s1", ("vv", "vh"), "int16", FILL, MONTHS, 1e-2, "dB")
ONE = Input("planet", ("red", "nir"), "uint16", 0, (), 1e-4, "1")


def stored(entry, shape=(2, 7, 9), gaps=0.3, seed=0):
    rng = np.random.default_rng(seed)
    n, h, w = shape
    low, high = (-3000, 500) if entry.units == "dB" else (1, 9000)
    values = rng.integers(low, high, (n, *entry.lead, h, w)).astype(entry.dtype)
    missing = rng.random((n, *entry.lead[:-1], 1, h, w)) < gaps
    return np.where(missing, np.asarray(entry.fill or 0, entry.dtype), values)


def truth(entry, values):
    """float64 (time, band, n, y, x), NaN where missing."""
    scaled = (values.astype(np.float32) * np.float32(entry.scale)).astype(np.float64)
    scaled[values == entry.fill] = np.nan
    axes = (1, 2, 0, 3, 4) if entry.times else (1, 0, 2, 3)
    return scaled.transpose(axes)


def compute(texts, *entries, **how):
    arrays = {entry.name: stored(entry, seed=i, **how) for i, entry in enumerate(entries)}
    return Features.parse(texts, entries), arrays


def by_name(features, arrays):
    return dict(zip(features.names, features.compute(arrays), strict=True))


FORMULAS = {
    "ndvi": lambda b: (b["nir"] - b["red"]) / (b["nir"] + b["red"]),
    "gndvi": lambda b: (b["nir"] - b["green"]) / (b["nir"] + b["green"]),
    "ndre": lambda b: (b["nir"] - b["rededge1"]) / (b["nir"] + b["rededge1"]),
    "evi": lambda b: 2.5 * (b["nir"] - b["red"]) / (b["nir"] + 6 * b["red"] - 7.5 * b["blue"] + 1),
    "evi2": lambda b: 2.5 * (b["nir"] - b["red"]) / (b["nir"] + 2.4 * b["red"] + 1),
    "savi": lambda b: 1.5 * (b["nir"] - b["red"]) / (b["nir"] + b["red"] + 0.5),
    "osavi": lambda b: (b["nir"] - b["red"]) / (b["nir"] + b["red"] + 0.16),
    "vari": lambda b: (b["green"] - b["red"]) / (b["green"] + b["red"] - b["blue"]),
    "cire": lambda b: b["nir"] / b["rededge1"] - 1,
    "cig": lambda b: b["nir"] / b["green"] - 1,
    "psri": lambda b: (b["red"] - b["blue"]) / b["rededge2"],
    "ndyi": lambda b: (b["green"] - b["blue"]) / (b["green"] + b["blue"]),
    "ndwi": lambda b: (b["green"] - b["nir"]) / (b["green"] + b["nir"]),
    "mndwi": lambda b: (b["green"] - b["swir16"]) / (b["green"] + b["swir16"]),
    "awei": lambda b: 4 * (b["green"] - b["swir16"]) - 0.25 * b["nir"] - 2.75 * b["swir22"],
    "ndmi": lambda b: (b["nir"] - b["swir16"]) / (b["nir"] + b["swir16"]),
    "ndbi": lambda b: (b["swir16"] - b["nir"]) / (b["swir16"] + b["nir"]),
    "bsi": lambda b: (
        (b["swir16"] + b["red"] - b["nir"] - b["blue"])
        / (b["swir16"] + b["red"] + b["nir"] + b["blue"])
    ),
    "nbr": lambda b: (b["nir"] - b["swir22"]) / (b["nir"] + b["swir22"]),
    "ndti": lambda b: (b["swir16"] - b["swir22"]) / (b["swir16"] + b["swir22"]),
    "ndsi": lambda b: (b["green"] - b["swir16"]) / (b["green"] + b["swir16"]),
    "vv_vh": lambda b: b["vv"] - b["vh"],
    "rvi": lambda b: 4 * 10 ** (b["vh"] / 10) / (10 ** (b["vv"] / 10) + 10 ** (b["vh"] / 10)),
    "nrpb": lambda b: (
        (10 ** (b["vh"] / 10) - 10 ** (b["vv"] / 10))
        / (10 ** (b["vh"] / 10) + 10 ** (b["vv"] / 10))
    ),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_is_its_formula(name):
    entry = S1 if {"vv", "vh"} & set(INDICES[name].bands) else S2
    entry = Input(entry.name, entry.bands, entry.dtype, FILL, (), entry.scale, entry.units)
    features, arrays = compute([name], entry)
    found = features.compute(arrays)[0]
    values = truth(entry, arrays[entry.name])
    with np.errstate(divide="ignore"):
        expected = FORMULAS[name](dict(zip(entry.bands, values, strict=True)))
    expected = np.clip(expected, *INDICES[name].limits)
    # Where the denominator is small, so is its own rounding's share of float32.
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)
    assert np.isnan(found).any()
    assert np.isfinite(found).any()


def test_a_denominator_of_zero_gives_zero_and_slightly_negative_bands_are_clipped():
    entry = Input("s", ("red", "nir"), "int16", FILL, (), 1e-4)
    values = np.array([[0, 0], [100, -100], [-90, 100], [500, 500]], np.int16).T
    found = Features.parse(["ndvi"], [entry]).compute({"s": values.reshape(1, 2, 2, 2)})
    assert found.ravel().tolist() == [0, 0, 1, 0]


def test_bands_of_a_pixel_are_its_reflectance_bit_for_bit():
    features, arrays = compute(["bands"], ONE)
    assert features.names == ("red", "nir")
    values = arrays["planet"]
    expected = np.where(values == 0, np.nan, values.astype(np.float32) * np.float32(1e-4))
    np.testing.assert_array_equal(features.compute(arrays), expected.transpose(1, 0, 2, 3))


def series(name="red", gaps=0.3):
    arrays = {"s2": stored(S2, gaps=gaps)}
    band = truth(S2, arrays["s2"])[:, S2.bands.index(name)]
    return arrays, band


ORACLES = {
    "mean": lambda v: np.nanmean(v, 0),
    "median": lambda v: np.nanmedian(v, 0),
    "std": lambda v: np.nanstd(v, 0),
    "min": lambda v: np.nanmin(v, 0),
    "max": lambda v: np.nanmax(v, 0),
    "range": lambda v: np.nanmax(v, 0) - np.nanmin(v, 0),
    "p10": lambda v: np.nanpercentile(v, 10, 0),
    "p37.5": lambda v: np.nanpercentile(v, 37.5, 0),
    "p100": lambda v: np.nanpercentile(v, 100, 0),
}


@pytest.mark.parametrize("gaps", [0.0, 0.3, 0.9])
def test_statistics_are_numpys_over_what_is_observed(gaps):
    arrays, band = series(gaps=gaps)
    found = by_name(Features.parse([f"red:{','.join(ORACLES)}"], [S2]), arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without any
        for name, oracle in ORACLES.items():
            np.testing.assert_allclose(found[f"red:{name}"], oracle(band), rtol=1e-6, atol=1e-7)


def each(band, function):
    """A function of (times, values) of a pixel's observations, over all pixels."""
    flat = band.reshape(len(band), -1)
    out = np.full(flat.shape[1], np.nan)
    for p in range(out.size):
        there = np.isfinite(flat[:, p])
        if there.any():
            out[p] = function(DAYS[there], flat[there, p])
    return out.reshape(band.shape[1:])


DAYS = np.array(
    [
        (np.datetime64(f"2018-{m:02}") - np.datetime64("2018-01-01", "D")).astype(float)
        + (np.datetime64(f"2018-{m + 1:02}", "D") - np.datetime64(f"2018-{m:02}", "D")).astype(
            float
        )
        / 2
        for m in range(3, 11)
    ]
)


def test_first_last_and_slope():
    arrays, band = series(gaps=0.5)
    found = by_name(Features.parse(["red:first,last,slope"], [S2]), arrays)
    np.testing.assert_allclose(found["red:first"], each(band, lambda d, v: v[0]), rtol=1e-6)
    np.testing.assert_allclose(found["red:last"], each(band, lambda d, v: v[-1]), rtol=1e-6)

    def line(days, values):
        return np.polyfit(days / 365.25, values, 1)[0] if len(days) > 1 else 0.0

    np.testing.assert_allclose(found["red:slope"], each(band, line), rtol=1e-5, atol=1e-6)


def test_periods_are_filled_by_a_line_in_time_and_the_nearest_at_the_ends():
    arrays, band = series(gaps=0.6)
    features = Features.parse(["red"], [S2])
    assert features.names == tuple(f"red@{month}" for month in MONTHS)
    found = features.compute(arrays)
    for t, day in enumerate(DAYS):
        expected = each(band, lambda days, values, day=day: np.interp(day, days, values))
        np.testing.assert_allclose(found[t], expected, rtol=1e-6)
    one = Features.parse(["red@2018-05"], [S2]).compute(arrays)
    np.testing.assert_array_equal(one[0], found[2])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_harmonics_are_least_squares(order, gaps):
    arrays, band = series(gaps=gaps)
    features = Features.parse([f"red:harmonic[{order}]"], [S2])
    stem = "red:harmonic" if order == 1 else f"red:harmonic[{order}]"
    found = {name.removeprefix(stem + "."): v for name, v in by_name(features, arrays).items()}
    names = ["offset"] + [f"{n}{k}" for k in range(1, order + 1) for n in ("cos", "sin")]

    def fit(days, values):
        pairs = min(order, (len(days) - 2) // 2)
        angles = [2 * np.pi * k * days / 365.25 for k in range(1, pairs + 1)]
        columns = [np.ones_like(days), *(f(a) for a in angles for f in (np.cos, np.sin))]
        basis = np.stack(columns, 1)
        beta = np.linalg.lstsq(basis, values, rcond=None)[0]
        rmse = np.sqrt(np.mean((values - basis @ beta) ** 2))
        return np.concatenate([beta, np.zeros(2 * (order - pairs)), [rmse]])

    for i, name in enumerate(names):
        expected = each(band, lambda d, v, i=i: fit(d, v)[i])
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    expected = each(band, lambda d, v: fit(d, v)[-1])
    np.testing.assert_allclose(found["rmse"], expected, rtol=1e-4, atol=1e-6)
    for k in range(1, order + 1):
        pair = found[f"cos{k}"] + 1j * found[f"sin{k}"]
        np.testing.assert_allclose(found[f"amplitude{k}"], np.abs(pair), rtol=1e-6)
        turn = np.angle(pair) % (2 * np.pi) / (2 * np.pi) * 365.25 / k
        np.testing.assert_allclose(found[f"phase{k}"], turn, rtol=1e-5, atol=1e-5)


def test_a_pure_season_is_found_again():
    days = middles(MONTHS)
    curve = 0.4 + 0.2 * np.cos(2 * np.pi * (days - 180) / 365.25)
    entry = Input("s", ("red",), "float32", None, MONTHS)
    values = curve.astype(np.float32).reshape(1, 8, 1, 1, 1)
    found = by_name(Features.parse(["red:harmonic"], [entry]), {"s": values})
    got = [found[f"red:harmonic.{n}"].item() for n in ("offset", "amplitude1", "phase1", "rmse")]
    np.testing.assert_allclose(got, [0.4, 0.2, 180, 0], atol=1e-4)


ALL = ["s2.bands:mean,p25,harmonic[2]", "ndvi", "rvi:std,slope,last", "evi:range", "s1.vv"]


@given(
    st.integers(0, 2**16),
    st.sampled_from([0.0, 0.4, 0.95]),
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_a_pixel_has_the_same_bits_in_any_company(seed, gaps, sample, row, col):
    entries = (S2, S1)
    arrays = {e.name: stored(e, (2, 7, 9), gaps, seed + i) for i, e in enumerate(entries)}
    features = Features.parse(ALL, entries)
    whole = features.compute(arrays)
    seen = observed(entries, arrays)
    assert np.array_equal(np.isnan(whole), np.broadcast_to(~seen, whole.shape))
    part = {n: v[:sample, ..., row:, :col] for n, v in arrays.items()}
    cut = features.compute(part)
    assert cut.tobytes() == whole[:, :sample, row:, :col].tobytes()


def test_more_pixels_than_a_strip():
    features = Features.parse(["ndvi:p50", "rvi"], (S2, S1))
    arrays = {e.name: stored(e, (1, 90, 91), seed=i) for i, e in enumerate((S2, S1))}
    whole = features.compute(arrays)
    cut = features.compute({n: v[..., 31:40, 50:] for n, v in arrays.items()})
    assert cut.tobytes() == whole[..., 31:40, 50:].tobytes()


def test_bands_that_are_never_there_together_still_make_an_index():
    entry = Input("s", ("red", "nir"), "int16", FILL, ("2018-04", "2018-05"), 1e-4)
    values = np.array([[1000, FILL], [FILL, 3000]], np.int16).reshape(1, 2, 2, 1, 1)
    found = Features.parse(["ndvi:mean,std"], [entry]).compute({"s": values})
    np.testing.assert_allclose(found.ravel(), [0.5, 0], atol=1e-6)


def test_floats_with_nan_give_the_bits_of_the_integers_behind_them():
    features, arrays = compute(ALL, S2, S1)
    floats = {
        e.name: np.where(
            arrays[e.name] == FILL,
            np.float32(np.nan),
            arrays[e.name].astype(np.float32) * np.float32(e.scale),
        )
        for e in (S2, S1)
    }
    opened = [Input(e.name, e.bands, "float32", None, e.times, None, e.units) for e in (S2, S1)]
    found = Features.parse(ALL, opened).compute(floats)
    assert found.tobytes() == features.compute(arrays).tobytes()


def test_large_floats_have_finite_features():
    times = tuple(f"2018-{month:02}" for month in range(1, 9))
    entry = Input("s2", ("red", "nir"), "float32", None, times)
    numbers = np.array([0, 1e-30, -1e36, 1e36, np.nan, np.inf, 0.3], np.float32)
    values = np.random.default_rng(0).choice(numbers, (1, 8, 2, 20, 20))
    values[0, 0] = 0.1
    texts = ["bands:mean,std,min,max,range,slope,p10,harmonic", "ndvi:mean,harmonic", "red"]
    assert np.isfinite(Features.parse(texts, (entry,)).compute({"s2": values})).all()


def test_names_are_texts_of_the_same_features():
    features, arrays = compute(ALL, S2, S1)
    again = Features.parse(features.names, (S2, S1))
    assert again.names == features.names
    assert again.compute(arrays).tobytes() == features.compute(arrays).tobytes()
    assert features.names[-1] == "s1.vv@2018-10"


def test_without_texts_features_are_all_bands():
    assert Features.parse([], [ONE]).names == ("red", "nir")
    assert Features.parse(["*"], [ONE]) != Features.parse([], [S2])
    assert Features.parse(["bands"], [ONE, S1]).names[:3] == (
        "planet.red",
        "planet.nir",
        "s1.vv@2018-03",
    )


def test_indices_of_composites_by_several_methods():
    bands = ("red_median", "nir_median", "red_p90", "nir08_p90", "red_p10")
    entry = Input("s2", bands, "int16", FILL, (), 1e-4)
    features, arrays = compute(["ndvi_p90", "ndvi_median"], entry)
    assert features.names == ("ndvi_p90", "ndvi_median")
    values = dict(zip(bands, truth(entry, arrays["s2"]), strict=True))
    for name, nir in (("p90", "nir08_p90"), ("median", "nir_median")):
        expected = FORMULAS["ndvi"]({"nir": values[nir], "red": values[f"red_{name}"]})
        got = by_name(features, arrays)[f"ndvi_{name}"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"needs bands nir, red .* take ndvi_median or ndvi_p90"):
        Features.parse(["ndvi"], [entry])
    with pytest.raises(InputError, match="needs bands nir_p10, red_p10 of one source"):
        Features.parse(["ndvi_p10"], [entry])


FEW = Input("few", ("red",), "int16", FILL, ("2018-04", "2018-05", "2018-06"), 1e-4)
NAMED = Input("named", ("red",), "int16", FILL, ("wet", "dry", "cold", "hot"), 1e-4)


@pytest.mark.parametrize(
    ("texts", "inputs", "said"),
    [
        (["ndvii"], [S2], "did you mean 'ndvi'"),
        (["ndvi"], [FEW], "needs bands nir, red of one source; few has red"),
        (["red"], [S2, ONE], "say one of s2.red, planet.red"),
        (["ndvi:mean"], [S2, ONE], "say one of s2.ndvi, planet.ndvi"),
        (["s3.red"], [S2, ONE], "sources: s2, planet"),
        (["red", "bands:mean", "red@2018-04"], [S2], "red@2018-04 are asked for twice"),
        (["red:meen"], [S2], "did you mean 'mean'"),
        (["red:p101"], [S2], "expected 0 to 100"),
        (["red:mean"], [ONE], "has no periods; leave out ':mean'"),
        (["red@2019-01"], [S2], "which has 2018-03, 2018-04"),
        (["red:harmonic"], [FEW], "needs? 4 periods or more, and few has 3; take statistics"),
        (["red:harmonic[4]"], [S2], r"take harmonic\[3\] or lower"),
        (["red:harmonic[0]"], [S2], "fits no pair"),
        (["red:harmonic.cos2"], [S2], "has no part 'cos2'; it has offset, cos1"),
        (["red:slope"], [NAMED], "periods of named are called wet, dry, cold"),
        (["rvi"], [Input("s1", ("vv", "vh"), "float32", None)], "states units None"),
        (["evi2"], [Input("s", ("nir", "red"), "uint8", None)], "without a scale"),
    ],
)
def test_what_is_refused(texts, inputs, said):
    with pytest.raises(InputError, match=said):
        Features.parse(texts, inputs)


@pytest.mark.parametrize(
    ("names", "days"),
    [
        (["2018", "2019"], [182.5, 547.5]),
        (["2018-DJF"], [14]),
        (["2018-MAM", "2018-JJA"], [59 + 46, 151 + 46]),
        (["2018-04-d1", "2018-04-d3"], [95, 115]),
        (["2018-01-17", "2018-02-02"], [24, 40]),
        (["2018-12-03", "2018-12-19"], [344, 358.5]),  # the year's last one is cut
        (["2018-01-01/2018-01-10"], [5]),
        (["2018-01-01T06:00:00Z"], [0.25]),
    ],
)
def test_middles_of_periods_follow_from_their_names(names, days):
    np.testing.assert_allclose(middles(names), days)


def test_names_without_dates_have_no_middles():
    assert middles(["2018-04", "wet season"]) is None
    assert middles(["2018-13-01"]) is None


def test_the_docs_have_every_index_as_it_is():
    page = (Path(__file__).resolve().parents[1] / "docs" / "features.md").read_text()
    for index in INDICES.values():
        low, high = index.limits
        cells = (f"`{index.name}`", index.title, index.formula(), f"{low:g} … {high:g}")
        assert f"| {' | '.join(cells)} | {index.source} |" in page
    for statistic in STATISTICS:
        assert f"`{statistic}`" in page


def test_power_of_decibels_within_a_unit_of_the_last_place():
    decibels = np.linspace(-90, 60, 4001, dtype=np.float32).reshape(1, -1)
    found = np.empty_like(decibels)
    temporal.to_power(decibels, found)
    expected = 10 ** (decibels.astype(np.float64) / 10)
    np.testing.assert_array_max_ulp(found, expected.astype(np.float32), 1)
    for start in (1, 2, 3, 5):
        part = np.empty_like(decibels[:, start:])
        temporal.to_power(np.ascontiguousarray(decibels[:, start:]), part)
        np.testing.assert_array_equal(part, found[:, start:])


def test_dates_that_do_not_tell_the_pairs_apart_leave_the_mean():
    """The same two days of each year: any wave would go through them."""
    days = ("2018-04-01", "2018-10-01", "2019-04-01", "2019-10-01", "2020-04-01")
    entry = Input("s", ("red",), "float32", None, tuple(f"{day}/{day}" for day in days))
    values = np.array([0.2, 0.4, 0.21, 0.4, 0.2], np.float32).reshape(1, 5, 1, 1, 1)
    found = Features.parse(["red:harmonic"], [entry]).compute({"s": values}).ravel()
    np.testing.assert_allclose(found, [0.282, 0, 0, 0, 0, np.std(values)], atol=1e-6)
