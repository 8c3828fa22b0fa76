from __future__ import annotations

import platform
from fractions import Fraction
from math import floor
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.errors import InputError
from lcengine.kernels import scores, select
from lcengine.kernels.networks import selection_network
from lcengine.kernels.scratch import Ranks

LENGTHS = [*range(1, 34), 200]
SINGLE = np.float32


class Strip(NamedTuple):
    raw: np.ndarray  # (band, observation, pixel)
    take: np.ndarray  # (observation, pixel)

    @property
    def shape(self):
        return self.take.shape

    @property
    def valid(self):
        return self.take != 0

    def pixels(self):
        """(valid observations, their spectra) of every pixel."""
        for p in range(self.shape[1]):
            at = np.flatnonzero(self.take[:, p])
            yield at, self.raw[:, at, p].T


def make(seed, observations, bands=6, pixels=37, *, kind="int16", masked=0.4, levels="plain"):
    """A strip; `levels`: plain values, few distinct ones (ties), or the extremes of int16."""
    rng = np.random.default_rng(seed)
    size = (bands, observations, pixels)
    if levels == "few":
        values = rng.integers(0, 2, size) * 1000
    elif levels == "extreme":
        values = rng.choice([-32767, -32766, 0, 32766, 32767], size)
    else:
        values = rng.integers(-200, 12000, size)
    valid = rng.random((observations, pixels)) >= masked
    valid[:, 0] = False
    raw = values.astype(np.int16)
    if kind == "float32":
        raw = (values / 10000).astype(SINGLE)
        garbage = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e38, 0.0], SINGLE), size)
        raw = np.where(valid, raw, garbage)
    return Strip(raw, -valid.astype(np.int16))


def make_scores(seed, strip, *, few=False):
    """Scores, some NaN or infinite, some equal, zeros of both signs."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=strip.shape).astype(SINGLE)
    if few:
        score = np.round(score).astype(SINGLE)
    strange = rng.random(strip.shape) < 0.1
    score[strange] = rng.choice(np.array([np.nan, np.inf, -np.inf], SINGLE), strip.shape)[strange]
    return score


def ranks_of(observations, thousandths):
    """The nearest rule as `rank_by_score` wants it."""
    ranks = [
        floor(Fraction(max(n - 1, 0) * thousandths, 100_000) + Fraction(1, 2))
        for n in range(observations + 1)
    ]
    return table(observations, ranks, (ranks[-1],))


def middles_of(observations):
    ranks = [max(n - 1, 0) // 2 for n in range(observations + 1)]
    return table(observations, ranks, (ranks[-1], min(ranks[-1] + 1, observations - 1)))


def table(observations, ranks, wanted):
    pairs = selection_network(observations, wanted)
    lows = np.array([ranks[-1] - rank for rank in ranks], np.int16)
    return Ranks(pairs, wanted[0], wanted[-1], lows, np.zeros(len(ranks)))


class Chooser:
    """The choosers with memory that holds anything."""

    def __init__(self, strip):
        observations, pixels = strip.shape
        self.strip = strip
        self.doubles = np.full((observations + 1, pixels), np.nan)
        self.floats = np.full((observations, pixels), np.nan, SINGLE)
        self.best = np.full(pixels, np.nan, SINGLE)
        self.left = np.full(pixels, 77, np.int16)
        self.chosen = np.full(pixels, 77, np.int16)

    def medoid(self):
        select.medoid(self.strip.raw, self.strip.take, self.doubles, self.chosen)
        return self.chosen

    def nearest_to_median(self, centre):
        doubles = np.full((2, self.chosen.size), np.nan)
        select.nearest_to_median(self.strip.raw, self.strip.take, centre, doubles, self.chosen)
        return self.chosen

    def rank(self, score, thousandths):
        ranks = ranks_of(self.strip.shape[0], thousandths)
        select.rank_by_score(score, self.strip.take, ranks, self.left, self.floats, self.chosen)
        return self.chosen

    def end(self, score, low):
        select.end_of_scores(score, self.strip.take, low, self.best, self.chosen)
        return self.chosen

    def ndvi_rule(self, score):
        centre = middles_of(self.strip.shape[0])
        select.ndvi_rule(score, self.strip.take, centre, self.left, self.floats, self.chosen)
        return self.chosen

    def argmax(self, score):
        select.argmax_score(score, self.strip.take, self.best, self.chosen)
        return self.chosen

    def first(self):
        select.first_valid(self.strip.take, self.chosen)
        return self.chosen

    def last(self):
        select.last_valid(self.strip.take, self.chosen)
        return self.chosen


def centre_of(strip):
    """Per band: twice the median of int16 as int32, the median of float32; 0 without any."""
    whole = strip.raw.dtype == np.int16
    centre = np.zeros((strip.raw.shape[0], strip.shape[1]), np.int32 if whole else SINGLE)
    for p, (at, spectra) in enumerate(strip.pixels()):
        if at.size:
            centre[:, p] = np.median(spectra.astype(float), axis=0) * (2 if whole else 1)
    return centre


def gather(strip, chosen, nodata):
    out = np.full((strip.raw.shape[0], chosen.size), 77, strip.raw.dtype)
    for band in range(out.shape[0]):
        select.take_chosen(strip.raw[band], chosen, strip.raw.dtype.type(nodata), out[band])
    return out


# ----------------------------------------------------------------------------------------- oracles


def medoid_oracle(strip):
    chosen = []
    for at, spectra in strip.pixels():
        x = spectra.astype(np.int64 if spectra.dtype == np.int16 else np.float64)
        squares = np.zeros((at.size, at.size), x.dtype)
        for band in range(x.shape[1]):
            squares += (x[:, None, band] - x[None, :, band]) ** 2
        distances = np.sqrt(squares.astype(np.float64))
        totals = np.zeros(at.size)
        for other in range(at.size):
            totals += distances[:, other]
        chosen.append(at[np.argmin(totals)] if at.size else -1)
    return chosen


def nearest_oracle(strip, centre):
    chosen = []
    whole = strip.raw.dtype == np.int16
    for p, (at, spectra) in enumerate(strip.pixels()):
        x = 2 * spectra.astype(np.int64) if whole else spectra.astype(np.float64)
        squares = sum((x[:, band] - centre[band, p]) ** 2 for band in range(x.shape[1]))
        chosen.append(at[np.argmin(squares)] if at.size else -1)
    return chosen


def sorted_scores(strip, score):
    """Per pixel the usable observations in the order of a stable sort by score."""
    for p in range(strip.shape[1]):
        at = np.flatnonzero(strip.valid[:, p] & np.isfinite(score[:, p]))
        yield at[np.argsort(score[at, p], kind="stable")]


def rank_oracle(strip, score, percent):
    share = Fraction(percent) / 100
    return [
        order[floor((order.size - 1) * share + Fraction(1, 2))] if order.size else -1
        for order in sorted_scores(strip, score)
    ]


strips = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    st.sampled_from(LENGTHS[:-1]),
    st.sampled_from([1, 2, 3, 5, 6, 7, 10, 13]),
    st.sampled_from([1, 15, 16, 33, 37]),
    kind=st.sampled_from(["int16", "float32"]),
    masked=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
    levels=st.sampled_from(["plain", "few", "extreme"]),
)
seeds = st.integers(0, 2**32 - 1)


# ------------------------------------------------------------------------------------ by distances


@given(strips)
def test_medoid_equals_the_oracle(strip):
    assert Chooser(strip).medoid().tolist() == medoid_oracle(strip)


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("levels", ["plain", "few", "extreme"])
def test_medoid_of_long_series(kind, levels):
    strip = make(1, 200, 4, 9, kind=kind, levels=levels)
    assert Chooser(strip).medoid().tolist() == medoid_oracle(strip)


def test_medoid_by_hand():
    def chosen(*spectra):
        raw = np.array(spectra, np.int16).T[:, :, None]
        return Chooser(Strip(raw, np.full((len(spectra), 1), -1, np.int16))).medoid().item()

    assert chosen((5,)) == 0
    assert chosen((9,), (1,)) == 0  # two are equally far from each other: the earlier
    assert chosen((9,), (1,), (2,)) == 2
    assert chosen((0, 0), (4, 4), (0, 0), (4, 4)) == 0
    # Squares of 65534 in 300 bands: no integer of 32 bits holds them, none of 53 is rounded.
    far, near = [32767] * 300, [-32767] * 300
    assert chosen(far, near, [*near[1:], -32766], near) == 1
    assert chosen(far, [*near[1:], -32766], near, near) == 2


@given(strips)
def test_nearest_to_median_equals_the_oracle(strip):
    centre = centre_of(strip)
    assert Chooser(strip).nearest_to_median(centre).tolist() == nearest_oracle(strip, centre)


def test_half_values_of_the_median_count():
    # Median 1.5: 1 and 2 are equally near, the earlier is chosen; 1 would be nearer to 1.
    strip = Strip(np.array([[[2], [1]]], np.int16), np.full((2, 1), -1, np.int16))
    assert Chooser(strip).nearest_to_median(np.array([[3]], np.int32)).item() == 0
    assert Chooser(strip).nearest_to_median(np.array([[2]], np.int32)).item() == 1


def test_infinite_values_still_have_a_choice():
    raw = np.full((2, 3, 1), np.inf, SINGLE)
    strip = Strip(raw, np.array([[0], [-1], [-1]], np.int16))
    assert Chooser(strip).medoid().item() == 1
    assert Chooser(strip).nearest_to_median(np.full((2, 1), np.inf, SINGLE)).item() == 1


def test_distances_are_simd_with_one_narrow_conversion():
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names x86 instructions")
    add = numba.njit(nogil=True, error_model="numpy")(select._add_distance.py_func)
    strip, memory = make(0, 2, pixels=64), np.zeros((3, 64))
    add(strip.raw, 0, 0, 1, strip.take, memory[2], memory)
    (assembly,) = add.inspect_asm().values()
    assert "sqrtpd" in assembly
    assert "cvtdq2pd" in assembly
    assert "cvtqq2pd" not in assembly


# --------------------------------------------------------------------------------------- by scores


@given(
    strips,
    seeds,
    st.booleans(),
    st.one_of(st.sampled_from([0, 25_000, 50_000, 100_000]), st.integers(0, 100_000)),
)
def test_rank_by_score_equals_the_oracle(strip, seed, few, thousandths):
    score = make_scores(seed, strip, few=few)
    expected = rank_oracle(strip, score, Fraction(thousandths, 1000))
    assert Chooser(strip).rank(score, thousandths).tolist() == expected


@pytest.mark.parametrize("thousandths", [0, 12_500, 25_000, 99_999, 100_000])
def test_rank_by_score_of_long_series(thousandths):
    strip = make(2, 200, 1, masked=0.1)
    score = make_scores(3, strip, few=True)
    expected = rank_oracle(strip, score, Fraction(thousandths, 1000))
    assert Chooser(strip).rank(score, thousandths).tolist() == expected


@given(strips, seeds, st.booleans())
def test_ends_are_those_of_the_stable_sort(strip, seed, few):
    score = make_scores(seed, strip, few=few)
    low = -np.random.default_rng(seed).integers(0, 2, strip.shape[1]).astype(np.int16)
    expected = [
        (order[0] if least else order[-1]) if order.size else -1
        for order, least in zip(sorted_scores(strip, score), low, strict=True)
    ]
    assert Chooser(strip).end(score, low).tolist() == expected
    assert Chooser(strip).rank(score, 0).tolist() == rank_oracle(strip, score, 0)


@given(strips, seeds, st.booleans())
def test_greatest_score_is_the_earliest(strip, seed, few):
    score = make_scores(seed, strip, few=few)
    usable = np.where(strip.valid & np.isfinite(score), score, -np.inf)
    expected = np.where(np.isfinite(usable).any(0), np.argmax(usable, 0), -1)
    chooser = Chooser(strip)
    assert chooser.argmax(score).tolist() == expected.tolist()
    np.testing.assert_array_equal(chooser.best, usable.max(0))


@given(strips, seeds, st.sampled_from([0.01, 0.3]))
def test_ndvi_rule_equals_the_oracle(strip, seed, spread):
    rng = np.random.default_rng(seed)
    score = rng.normal(-0.05, spread, strip.shape).astype(SINGLE)
    score[rng.random(strip.shape) < 0.1] = np.nan
    score[rng.random(strip.shape) < 0.1] = SINGLE(-0.05)
    expected = []
    for p, order in enumerate(sorted_scores(strip, score)):
        median = np.nanmedian(score[order, p]) if order.size else SINGLE(0)
        assert median.dtype == SINGLE
        at = 0 if median < SINGLE(-0.05) else -1
        expected.append(order[at] if order.size else -1)
    assert Chooser(strip).ndvi_rule(score).tolist() == expected


@given(strips)
def test_first_and_last_valid(strip):
    some = strip.valid.any(0)
    last = strip.shape[0] - 1 - np.argmax(strip.valid[::-1], 0)
    expected = np.where(some, np.argmax(strip.valid, 0), -1)
    assert Chooser(strip).first().tolist() == expected.tolist()
    assert Chooser(strip).last().tolist() == np.where(some, last, -1).tolist()


@given(strips, seeds)
def test_gather_takes_the_whole_spectrum(strip, seed):
    chosen = np.random.default_rng(seed).integers(-1, strip.shape[0], strip.shape[1])
    got = gather(strip, chosen.astype(np.int16), -32768)
    for p, observation in enumerate(chosen):
        expected = strip.raw[:, observation, p] if observation >= 0 else -32768
        np.testing.assert_array_equal(got[:, p], expected)


def test_gather_of_scores_into_a_shorter_row():
    score, chosen = np.arange(12, dtype=SINGLE).reshape(3, 4), np.array([2, -1, 0, 1], np.int16)
    out = np.zeros(3, SINGLE)
    select.take_chosen(score, chosen, SINGLE(np.nan), out)
    np.testing.assert_array_equal(out, np.array([8, np.nan, 2], SINGLE))


# -------------------------------------------------------------------------------------- invariance


def everything(strip, seed):
    """Choices of every chooser, with scores that depend on the values of a pixel alone."""
    score = np.empty(strip.shape, SINGLE)
    bands = [band % strip.raw.shape[0] for band in range(3)]
    unit = SINGLE(10000 if strip.raw.dtype == np.int16 else 1)
    scores.index_score(scores.HOT, strip.raw, SINGLE(0), unit, *bands, score)
    return np.array(
        [
            Chooser(strip).medoid(),
            Chooser(strip).nearest_to_median(centre_of(strip)),
            Chooser(strip).rank(score, seed % 100_001),
            Chooser(strip).ndvi_rule(score / 1000),
            Chooser(strip).argmax(score),
            Chooser(strip).first(),
            Chooser(strip).last(),
        ]
    )


@given(strips, seeds)
def test_a_pixel_does_not_depend_on_its_neighbours(strip, seed):
    expected = everything(strip, seed)
    order = np.random.default_rng(seed).permutation(strip.shape[1])
    shuffled = Strip(*(np.ascontiguousarray(array[..., order]) for array in strip))
    np.testing.assert_array_equal(everything(shuffled, seed), expected[:, order])
    alone = Strip(*(np.ascontiguousarray(array[..., -1:]) for array in strip))
    np.testing.assert_array_equal(everything(alone, seed), expected[:, -1:])


@given(strips, seeds)
def test_masked_values_do_not_matter(strip, seed):
    noise = np.random.default_rng(seed).integers(-32767, 32768, strip.raw.shape)
    other = Strip(np.where(strip.valid, strip.raw, noise.astype(strip.raw.dtype)), strip.take)
    np.testing.assert_array_equal(everything(other, seed), everything(strip, seed))


@given(strips, seeds)
def test_only_valid_observations_are_chosen(strip, seed):
    for chosen in everything(strip, seed):
        assert chosen.dtype == np.int16
        some = strip.valid.any(0)
        np.testing.assert_array_equal(chosen >= 0, some)
        assert strip.valid[chosen[some], np.flatnonzero(some)].all()


# ------------------------------------------------------------------------------------------ scores


def index_oracle(kind, values, unit):
    """NumPy, in float32 throughout. values: (band, ...) float32."""
    a, b, c = values
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == scores.BLUE:
            return a
        if kind == scores.HOT:
            return a - SINGLE(0.5) * b - SINGLE(0.08) * unit
        if kind == scores.RATIO:
            return np.maximum(a, b) / c
        return (a - b) / (a + b)


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("data", ["int16", "uint16", "float32"])
def test_index_scores_are_those_of_numpy(kind, data):
    rng = np.random.default_rng(kind)
    true = rng.integers(0, 65536, (4, 5, 67))
    true[:, 1:3] = rng.integers(0, 3, (4, 2, 67))  # zero over zero
    origin, unit = SINGLE(0), SINGLE(10000)
    if data == "uint16":
        origin, raw = SINGLE(32768), (true - 32768).astype(np.int16)
    elif data == "int16":
        true = true - 32768 + (true == 0)
        raw = true.astype(np.int16)
    else:
        unit, true = SINGLE(1), (true / 40000).astype(SINGLE)
        raw = true
    got = np.full((5, 67), 77, SINGLE)
    scores.index_score(kind, raw, origin, unit, 3, 1, 0, got)
    expected = index_oracle(kind, true.astype(SINGLE)[[3, 1, 0]], unit)
    np.testing.assert_array_equal(got, expected)


def bap_oracle(strip, terms_of, distance, unit):
    day, year, (w_day, w_year, w_cloud, w_haze), reach = terms_of
    blue, red = strip.raw[:2].astype(np.float64) * 10000 / unit
    hot = blue - 0.5 * red - 800
    haze = 1 / (1 + np.exp(np.minimum(0.05 * (hot + 150), 700)))
    cloud = 1 / (1 + np.exp(-10 / reach * (distance.astype(np.float64) - reach / 2)))
    total = w_day * day[:, None] + w_year * year[:, None] + w_cloud * cloud + w_haze * haze
    return total / (w_day + w_year + w_cloud + w_haze)


@given(
    seeds,
    st.sampled_from(["int16", "float32"]),
    st.sampled_from(["uint16", "float32"]),
    st.sampled_from([(1.0, 1.0, 0.4, 0.3), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 3.0, 1.0)]),
)
def test_best_available_pixel(seed, kind, metres, weights):
    strip = make(seed, 12, 3, 50, kind=kind)
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 3001, strip.shape).astype(metres)
    day, year = rng.random(12), rng.random(12)
    terms = scores.bap_terms(day, year, weights=weights)
    unit = SINGLE(10000 if kind == "int16" else 1)
    score = np.full(strip.shape, 77, SINGLE)
    scores.bap_score(strip.raw, SINGLE(0), unit, 0, 1, terms, distance, score)
    with np.errstate(invalid="ignore"):
        expected = bap_oracle(strip, (day, year, weights, 3000.0), distance, unit)
    valid = strip.valid
    np.testing.assert_allclose(score[valid], expected[valid], rtol=0, atol=1e-6)
    assert score[valid].min() >= 0
    assert score[valid].max() <= 1
    # The exponential of a library may differ in the last bit, so near ties may go either way.
    chosen = Chooser(strip).argmax(score)
    some = np.flatnonzero(valid.any(0))
    best = np.where(valid, expected, -1).max(0)[some]
    assert np.all(best - expected[chosen[some], some] < 2e-6)


def test_no_distances_are_needed_without_their_weight():
    strip = make(0, 3, 2, 5)
    terms = scores.bap_terms(np.ones(3), np.zeros(3), weights=(3.0, 1.0, 0.0, 0.0))
    score = np.empty(strip.shape, SINGLE)
    none = np.empty((0, 0), np.uint16)
    scores.bap_score(strip.raw, SINGLE(0), SINGLE(10000), 0, 1, terms, none, score)
    np.testing.assert_array_equal(score, np.full(strip.shape, 0.75, SINGLE))


def test_exponential_is_accurate():
    x = np.linspace(-87, 87, 20001).astype(SINGLE)
    got = np.array([scores.exp32(value) for value in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=1.2e-7)
    assert scores._falling(SINGLE(1e30)) < 1e-37
    assert scores._falling(SINGLE(-1e30)) == 1


def test_season_score_is_a_split_gaussian():
    got = scores.season_score([120, 180, 240, 150, 210, 366, 1], 180, 120, 280)
    np.testing.assert_allclose(got[:2], [0.01, 1])
    # Sigma of a side whose end scores 0.01: its length over sqrt(−2·ln 0.01).
    for day, score, side in [(150, got[3], 60), (210, got[4], 100), (240, got[2], 100)]:
        sigma = side / np.sqrt(-2 * np.log(0.01))
        assert score == pytest.approx(np.exp(-((day - 180) ** 2) / (2 * sigma**2)))
    assert got[5] == got[6] < 0.01


def test_season_crosses_the_year():
    got = scores.season_score([300, 325, 350, 365, 1, 7, 30, 170], 350, 300, 30)
    np.testing.assert_allclose(got[[0, 2, 6]], [0.01, 1, 0.01])
    assert got[1] == pytest.approx(0.01**0.25)
    assert got[3] == pytest.approx(0.01 ** ((15 / 45) ** 2))
    assert got[4] == pytest.approx(0.01 ** ((16 / 45) ** 2))
    assert got[7] < 1e-6
    # The whole year around a target at its end.
    wide = scores.season_score(np.arange(1, 366), 360, 1, 365)
    assert wide.argmax() == 359
    assert wide.min() >= 0.01


def test_year_score_falls_to_either_side():
    got = scores.year_score([2019, 2020, 2021, 2022], 2020, span=1, trade_off=1.0)
    np.testing.assert_allclose(got, [0.01**0.25, 1, 0.01**0.25, 0.01])
    usual = scores.year_score([2018, 2019, 2020], 2020)
    np.testing.assert_allclose(usual, 0.01 ** (np.array([2, 1, 0]) / 2.25) ** 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.season_score([1], 180, 240, 120), "got season low 240"),
        (lambda: scores.season_score([1], 180, 180, 240), "got season low 180"),
        (lambda: scores.season_score([1], 180, 120, float("nan")), "got season"),
        (lambda: scores.year_score([1], 2020, span=-1), "got span -1"),
        (lambda: scores.year_score([1], 2020, trade_off=0), "trade-off 0"),
        (lambda: scores.bap_terms(np.ones(1), np.ones(1), weights=(0, 0, 0, 0)), "got weights"),
        (lambda: scores.bap_terms(np.ones(1), np.ones(1), weights=(1, 0, -1, 0)), "got weights"),
        (lambda: scores.bap_terms(np.ones(1), np.ones(1), reach=0.0), "got a cloud distance"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


# ---------------------------------------------------------------------------- published composites


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("BLUE", (0, 0, 0)),
        ("HOT", (0, 2, 0)),
        ("NDVI", (7, 2, 0)),
        ("NDWI", (6, 8, 0)),
        ("RATIO", (6, 8, 0)),
    ],
)
def test_published_composites(shared_data, name, bands):
    folder = shared_data / "eolearn-composites"
    if not folder.is_dir():
        pytest.skip(f"published composites absent: no folder {folder}")
    scenes = np.load(folder / "scenes.npy")  # (observation, row, column, band), NaN = cloud
    flat = scenes.reshape(scenes.shape[0], -1, scenes.shape[3])
    valid = ~np.isnan(flat).any(2)
    strip = Strip(np.ascontiguousarray(flat.transpose(2, 0, 1)), -valid.astype(np.int16))
    score = np.empty(strip.shape, SINGLE)
    kind = getattr(scores, name)
    scores.index_score(kind, strip.raw, SINGLE(0), SINGLE(1), *bands, score)
    chooser = Chooser(strip)
    if name in ("BLUE", "HOT"):
        chosen = chooser.rank(score, 25_000)
    elif name == "NDVI":
        chosen = chooser.ndvi_rule(score)
    else:
        chosen = chooser.end(score, np.zeros(strip.shape[1], np.int16))
        np.testing.assert_array_equal(Chooser(strip).rank(score, 100_000), chosen)
    got = gather(strip, chosen, np.nan).T.reshape(scenes.shape[1:])
    np.testing.assert_array_equal(got, np.load(folder / f"expected_{name}.npy"))
