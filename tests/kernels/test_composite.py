from __future__ import annotations

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import oracles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from table import BANDS, REJECTING, SCREENS, TABLE, make

from lcengine.errors import InputError
from lcengine.kernels import NODATA
from lcengine.kernels.composite import composite
from lcengine.kernels.methods import (
    BestPixel,
    ByIndex,
    Count,
    FirstClear,
    MadScreen,
    MaxNdvi,
    Mean,
    Median,
    Medoid,
    Percentile,
)

KINDS = ["int16", "uint16", "float32"]
SIZES = [1, 2, 3, 4, 5, 7, 8, 23, 24, 25, 31, 32, 33, 64, 65]
METHODS = [method for row in TABLE.values() for method in row.methods]
LAYERS = ("values", "count", "outliers", "extras", "chosen")

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
some_screen = st.sampled_from([*SCREENS.values(), *REJECTING])
few = settings(max_examples=8)


def same(got, expected, at=...):
    """Two composites are alike to the last bit; `at` of the expected one."""
    for name in LAYERS:
        a, b = getattr(got, name), getattr(expected, name)[at]
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


def agrees(cube, row, screen):
    if row.oracle is oracles.geomedian and cube.n_out is None:
        cube = replace(cube, n_out=5)  # metres and reflectance have no distance in common
    got = cube.composite(row.methods, screen)
    oracles.assert_agrees(got, cube, [(method, row.oracle) for method in row.methods], screen)
    return got


def cubes(**fixed):
    """Hypothesis's cubes of all kinds."""
    options = {
        "seed": st.integers(0, 2**32 - 1),
        "observations": st.sampled_from(SIZES),
        "shape": st.tuples(st.integers(1, 3), st.integers(1, 5)),
        "kind": st.sampled_from(KINDS),
        "masked": st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        "members": st.sampled_from([1, 1, 3]),
        "extreme": st.booleans(),
        "n_out": st.sampled_from([1, 3, 5, None]),
    }
    options |= {name: st.just(value) for name, value in fixed.items()}
    return st.builds(make, **options)


def column(values, kind="int16"):
    """One band of one pixel."""
    return np.array(values, kind).reshape(-1, 1, 1, 1), np.ones((len(values), 1, 1), np.uint8)


# ------------------------------------------------------------------------- against the oracle


@rows
@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
@few
@given(data=st.data())
def test_every_method_with_every_screen(row, screen, data):
    agrees(data.draw(cubes()), row, screen)


@rows
@few
@given(cube=cubes(), screen=st.sampled_from(REJECTING))
def test_screens_that_reject_much(row, cube, screen):
    agrees(cube, row, screen)


@rows
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("observations", [100, 256, 257, 1000, 1024])
def test_long_series(row, kind, observations):
    screen = list(SCREENS.values())[observations % len(SCREENS)]
    agrees(make(observations, observations, (1, 3), kind=kind), row, screen)


@settings(max_examples=60)
@given(
    cube=cubes(n_out=2),
    thousandths=st.integers(0, 100_000),
    rule=st.sampled_from(["linear", "nearest"]),
)
def test_any_percentile(cube, thousandths, rule):
    method = Percentile(thousandths / 1000, rule)
    got = cube.composite([method])
    oracles.assert_agrees(got, cube, [(method, oracles.percentile)], None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percent", [0, 10, 25, 33.3, 50, 90, 97.5, 100])
def test_percentiles_and_median_are_those_of_numpy(kind, percent):
    """To the last bit, of the input's float type; integers rounded half to even."""
    cube = make(3, 33, (6, 30), kind=kind, n_out=2)
    floats = cube.floats[:, :2].astype(np.float32 if kind == "float32" else np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # All-NaN slice
        expected = [np.nanpercentile(floats, percent, axis=0), np.nanmedian(floats, axis=0)]
    expected = np.concatenate(expected)
    if kind != "float32":
        expected = np.where(np.isnan(expected), oracles.NODATA[kind], np.rint(expected))
    got = cube.composite([Percentile(percent), Median()]).values
    np.testing.assert_array_equal(got, expected.astype(kind))


@pytest.mark.parametrize("method", [Median(), Mean()])
def test_halves_go_to_the_even_neighbour(method):
    pairs = [(0, 1), (1, 2), (-1, 0), (-2, -1), (-32767, 32766), (32766, 32767), (-32767, -32766)]
    values = np.ascontiguousarray(np.array(pairs).T).reshape(2, 1, 1, -1)
    clear, expected = np.ones((2, 1, 7), np.uint8), np.array([0, 2, 0, -2, 0, 32766, -32766])
    got = composite(values.astype(np.int16), clear, methods=[method]).values
    assert got.ravel().tolist() == expected.tolist()
    got = composite((values + 32768).astype(np.uint16), clear, methods=[method]).values
    assert got.ravel().tolist() == (expected + 32768).tolist()


def test_uint16_percentiles_interpolate_the_true_numbers():
    # 0.1·6 = 0.6000000000000001 of the way: above a half in NumPy, not if 32768 were taken off.
    values, clear = column([1, 6, 9, 9, 9, 9, 9], "uint16")
    for percent in np.arange(0, 100, 0.1).round(1):
        got = composite(values, clear, methods=[Percentile(percent)]).values.item()
        assert got == np.rint(np.percentile(values.ravel().astype(float), percent))


# ------------------------------------------------------------------------------------- screens


@pytest.mark.parametrize("width", [63, 64, 65, 255, 256, 257, 511, 513, 1025])
def test_strip_edges(width):
    cube, row = make(width, 6, (2, width), members=2, n_out=3), TABLE["screened mean"]
    expected = agrees(cube, row, row.screen)
    # A view that is not whole planes is cut row by row.
    wide = np.pad(cube.values, ((0, 0), (0, 0), (0, 0), (3, 2)))[..., 3:-2]
    same(replace(cube, values=wide).composite(row.methods, row.screen), expected)


def test_mad_threshold_is_strict():
    def counts(series, screen):
        got = composite(*column(series), screen=screen, bands=("blue",))
        return got.outliers.item(), got.count.item()

    # The median is 674.5, the MAD (1349·1.5 + 1349/2)/2 = 1349: 0.6745·3325.5/1349 = 1.66275.
    series = [-1349, -1349, 0, 1349, 1349, 4000]
    for k, rejected in ((1.662, 1), (1.663, 0)):
        screen = MadScreen(k, per_band=True)
        assert counts(series, screen) == (rejected, 6 - rejected)
    # Equality: 0.6745·2000/100 = 13.49.
    series = [0, 0, 0, 0, 0, 2000]
    for k, rejected in ((13.489, 1), (13.49, 0), (13.491, 0)):
        screen = MadScreen(k, 100, per_band=True)
        assert counts(series, screen) == (rejected, 6 - rejected)


def test_sides_of_the_screen():
    series = [0, 1, 2, 3, 4, 9000, -9000]
    for side, items in (("both", range(5)), ("bright", [*range(5), 6]), ("dark", range(6))):
        screen = MadScreen(side=side, per_band=True)
        got = composite(*column(series), screen=screen, methods=[Mean()])
        assert got.values.item() == round(np.mean([series[item] for item in items]))
        assert got.outliers.item() == 7 - len(items)


def test_an_outlier_in_one_band_is_rejected_by_itself():
    values = np.zeros((7, 3, 1, 1), np.int16)
    values[2, 1] = values[5, 2] = 9000
    clear = np.ones((7, 1, 1), bool)
    assert composite(values, clear, screen=MadScreen(per_band=True)).outliers.item() == 2
    assert composite(values, clear, screen=MadScreen(per_band=True), n_out=2).outliers.item() == 1
    values[:, 2] -= values[:, 1] * 2  # the sum is as far from its median
    got = composite(values, clear, screen=MadScreen(), bands=("blue", "green", "red"))
    assert got.outliers.item() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_than_five_reject_nothing(kind):
    got = composite(*column([1, 1, 1, 30000], kind), screen=MadScreen(per_band=True))
    assert (got.count.item(), got.outliers.item()) == (4, 0)
    got = composite(*column([1, 1, 1, 1, 30000], kind), screen=MadScreen(per_band=True))
    assert (got.count.item(), got.outliers.item()) == (4, 1)


@pytest.mark.parametrize("per_band", [False, True])
@pytest.mark.parametrize("kind", ["int16", "uint16"])
@pytest.mark.parametrize("spread", [32766, 32767, 32768, 65534])
def test_spread_within_16_bits_or_not(kind, spread, per_band):
    """A strip whose values differ by more than 32767 takes another path to the same result."""
    rng = np.random.default_rng(spread)
    cube, screen = make(2, 12, (1, 6), kind=kind, masked=0.1), MadScreen(1.0, per_band=per_band)
    before = agrees(cube, TABLE["mean"], screen)
    low = 1 if kind == "uint16" else -32767
    values, clear = cube.values.copy(), cube.clear.copy()
    values[..., -1] = low  # one pixel, and only one of its bands
    values[:, 0, 0, -1] += rng.integers(0, spread, 12).astype(kind)
    values[:2, 0, 0, -1] = low, low + spread
    clear[..., -1] = True
    got = agrees(replace(cube, values=values, clear=clear), TABLE["mean"], screen)
    np.testing.assert_array_equal(got.outliers[..., :-1], before.outliers[..., :-1])


# -------------------------------------------------------------------------------- invariances


@rows
@few
@given(
    seed=st.integers(0, 1000),
    row_at=st.integers(0, 9),
    column_at=st.integers(0, 300),
    kind=st.sampled_from(KINDS),
    screen=some_screen,
)
@example(seed=0, row_at=9, column_at=256, kind="int16", screen=MadScreen())
def test_splitting_in_space_changes_nothing(row, seed, row_at, column_at, kind, screen):
    cube = make(seed, 9, (10, 301), kind=kind, members=2)
    whole = cube.composite(row.methods, screen)
    down, across = (
        (slice(0, row_at), slice(row_at, None)),
        (slice(column_at), slice(column_at, None)),
    )
    for part in itertools.product(down, across):
        same(cube.part(*part).composite(row.methods, screen), whole, (..., *part))


@rows
@few
@given(cube=cubes(shape=(2, 37)), screen=some_screen, seed=st.integers(0, 1000))
def test_a_pixel_does_not_depend_on_its_neighbours(row, cube, screen, seed):
    order = np.random.default_rng(seed).permutation(37)
    shuffled = replace(cube, values=cube.values[..., order].copy(), clear=cube.clear[..., order])
    expected = cube.composite(row.methods, screen)
    same(shuffled.composite(row.methods, screen), expected, (..., order))


@rows
@few
@given(cube=cubes(), screen=some_screen, seed=st.integers(0, 1000))
def test_masked_values_do_not_matter(row, cube, screen, seed):
    rng = np.random.default_rng(seed)
    strange = [np.nan, np.inf, -np.inf, 1e38] if cube.values.dtype == np.float32 else [0, 1, 32767]
    noise = rng.choice(np.array(strange).astype(cube.values.dtype), cube.values.shape)
    other = np.where(cube.clear[:, np.newaxis], cube.values, noise)
    expected = cube.composite(row.methods, screen)
    same(replace(cube, values=other).composite(row.methods, screen), expected)


@rows
@few
@given(
    seed=st.integers(0, 1000),
    order=st.permutations(range(13)),
    kind=st.sampled_from(KINDS),
    screen=some_screen,
)
def test_order_of_observations_changes_nothing(row, seed, order, kind, screen):
    """But for what is earliest among equals: values of choosing methods are no two alike."""
    if isinstance(row.methods[0], FirstClear):
        return
    cube = make(seed, 13, kind="float32" if row.chooses else kind, members=3)
    if row.chooses:
        noise = np.random.default_rng(seed).random(cube.values.shape, np.float32)
        cube = replace(cube, values=cube.values + noise)
    members = [np.flatnonzero(cube.groups == group) for group in np.unique(cube.groups)]
    items = np.concatenate([members[i] for i in order])
    other = replace(
        cube,
        values=cube.values[items],
        clear=cube.clear[items],
        groups=np.repeat(np.arange(13), [members[i].size for i in order]),
        days=cube.days[items],
    )
    got, expected = (c.composite(row.methods, screen) for c in (other, cube))
    got = replace(got, chosen=np.where(got.chosen < 0, -1, items[got.chosen]).astype(np.int16))
    if row.oracle is oracles.geomedian:  # sums of float32 in another order
        for name in ("values", "extras"):
            np.testing.assert_allclose(getattr(got, name), getattr(expected, name), 1e-3, 1)
    else:
        # Two spectra are as far from each other as the other way round.
        at = (..., expected.count > 2 * (row.oracle is oracles.medoid))
        same(replace(got, **{name: getattr(got, name)[at] for name in LAYERS}), expected, at)


@rows
@pytest.mark.parametrize("screen", [None, MadScreen()], ids=str)
def test_threads_change_nothing(row, screen):
    cube = make(3, 24, (61, 67), members=2)
    expected = cube.composite(row.methods, screen)
    same(cube.composite(row.methods, screen, parallel=True), expected)
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(
            lambda parallel: cube.composite(row.methods, screen, parallel=parallel),
            [False, True] * 3,
        )
        for got in runs:
            same(got, expected)


@few
@given(cube=cubes(), screen=some_screen, shift=st.integers(0, 99))
def test_several_methods_are_each_alone(cube, screen, shift):
    methods = [*METHODS[shift % len(METHODS) :], *METHODS[: shift % len(METHODS)]]
    alone = [cube.composite([method], screen) for method in methods]
    got = cube.composite(methods, screen)
    for name in ("values", "extras", "chosen"):
        parts = np.concatenate([getattr(each, name) for each in alone])
        np.testing.assert_array_equal(getattr(got, name), parts)
    for each in alone:
        np.testing.assert_array_equal(got.count, each.count)
        np.testing.assert_array_equal(got.outliers, each.outliers)


@pytest.mark.parametrize("kind", KINDS)
def test_views_equal_copies_and_inputs_stay(kind):
    cube = make(5, 12, (33, 40), kind=kind, members=2)
    values, clear, groups, names = cube.values, cube.clear, cube.groups, cube.names

    def run(values, clear, groups=groups):
        options = {"methods": [Mean(), Medoid(nearest=True)], "screen": MadScreen()}
        return composite(values, clear, groups, bands=names, **options)

    big = np.zeros((values.shape[1], values.shape[0], 66, 50), kind)
    strided = big.transpose(1, 0, 2, 3)[:, :, ::2, 5:45]
    strided[:] = values
    strided.setflags(write=False)
    expected = run(values, clear)
    same(run(strided, clear[..., ::-1][..., ::-1]), expected)
    np.testing.assert_array_equal(strided, values)
    backwards = (values[::-1, :, ::-1], clear[::-1, ::-1], -groups[::-1])
    same(run(*backwards), run(*(np.ascontiguousarray(array) for array in backwards)))
    same(run(values, np.asfortranarray(clear)), expected)
    same(run(values, clear.astype(np.uint8) * 200), expected)
    one = np.broadcast_to(clear[:1], clear.shape)
    same(run(values, one), run(values, one.copy()))
    same(
        run(np.broadcast_to(values[:1], values.shape), clear),
        run(values[:1].repeat(len(values), 0), clear),
    )


def test_bands_beyond_n_out_still_decide_validity():
    values = np.full((1, 2, 1, 2), 7, np.int16)
    values[0, 1, 0, 1] = NODATA
    got = composite(values, np.ones((1, 1, 2), bool), n_out=1)
    assert got.values.tolist() == [[[7, NODATA]]]
    assert got.count.tolist() == [[1, 0]]


# --------------------------------------------------------------------------------- provenance


@rows
@few
@given(cube=cubes(), screen=some_screen)
def test_chosen_is_the_item_that_was_put_out(row, cube, screen):
    got = cube.composite(row.methods, screen)
    assert got.chosen.shape[0] == row.chooses
    assert (np.isnan(got.extras) | (got.count > 0)).all()
    if not row.chooses:
        return
    nothing = got.chosen[0] < 0
    assert not nothing[got.count > 0].any() or row.oracle in (oracles.by_index, oracles.max_ndvi)
    assert nothing[got.count == 0].all()
    for y, x in np.argwhere(~nothing):
        item = got.chosen[0, y, x]
        assert item in oracles.pixel(cube, y, x).items
        np.testing.assert_array_equal(
            got.values[:, y, x], cube.values[item, : len(got.values), y, x]
        )
    missing = oracles.NODATA[cube.values.dtype.name]
    np.testing.assert_array_equal(got.values[:, nothing], missing)
    assert np.isnan(got.extras[:, nothing]).all()


def test_the_best_pixel_by_hand():
    days = np.array(["2020-05-01", "2020-06-30", "2021-07-01", "2020-07-10"], "M8[D]").astype(float)
    values = np.array([[300, 300, 3000]] * 4, np.int16)[:, :, None, None]
    names, clear = ("blue", "red", "cloud_distance"), np.ones((4, 1, 1), bool)

    def best(method, **options):
        got = composite(values, clear, methods=[method], bands=names, days=days, **options)
        return got.chosen.item(), got.extras.item()

    cloud, haze = 1 / (1 + np.exp(-5)), 1 / (1 + np.exp(-25))
    assert best(BestPixel(182)) == (1, pytest.approx((2 + 0.4 * cloud + 0.3 * haze) / 2.7))
    assert best(BestPixel(182, year=2021))[0] == 2
    assert best(BestPixel(122))[0] == 0
    assert best(BestPixel(192, 190, 250))[0] == 3
    values[1, 2] = 0  # beside a cloud
    assert best(BestPixel(182))[0] == 2
    values[2, 0] = 2000  # hazy
    assert best(BestPixel(182))[0] == 3
    # Members of one group are of its first one's day.
    assert best(BestPixel(122), groups=np.array([0, 0, 1, 2]))[0] == 0
    clear[0] = False
    assert best(BestPixel(122), groups=np.array([0, 0, 1, 2]))[0] == 1


def test_count_alone_and_no_items():
    cube = make(0, 9)
    got = cube.composite([Count()], MadScreen())
    expected = cube.composite([Median()], MadScreen())
    assert got.values.shape == got.extras.shape == got.chosen.shape == (0, 5, 7)
    np.testing.assert_array_equal(got.count, expected.count)
    np.testing.assert_array_equal(got.outliers, expected.outliers)
    options = {"methods": METHODS, "screen": MadScreen(), "bands": (*BANDS, "cloud_distance")}
    for kind, shape in itertools.product(KINDS, [(0, 3, 4), (3, 0, 4), (3, 4, 0)]):
        empty = np.empty((shape[0], 7, *shape[1:]), kind)
        clear, days = np.empty(shape, np.uint8), np.zeros(shape[0])
        got = composite(empty, clear, days=days, **options)
        np.testing.assert_array_equal(got.values, np.full_like(got.values, oracles.NODATA[kind]))
        assert got.values.shape[1:] == got.count.shape == shape[1:]
        assert not got.count.any()
        assert not got.outliers.any()
        assert np.isnan(got.extras).all()
        assert (got.chosen == -1).all()
    same(composite(empty, clear, parallel=True), composite(empty, clear))


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((3, 2, 4, 4), np.int32)}, "got values int32"),
        ({"values": np.zeros((3, 2, 4, 4))}, "got values float64"),
        ({"values": np.zeros((3, 4, 4), np.int16)}, "expected int16"),
        ({"values": np.zeros((3, 0, 4, 4), np.int16)}, r"shape \(3, 0, 4, 4\)"),
        ({"values": np.zeros((3, 2, 4, 8), np.int16)[..., ::2]}, "ascontiguousarray"),
        ({"clear": np.zeros((3, 4, 4), np.int16)}, "got clear int16"),
        ({"clear": np.zeros((3, 4, 5), bool)}, r"got clear of shape \(3, 4, 5\)"),
        ({"groups": np.array([0, 2, 1])}, "decrease"),
        ({"groups": np.array([0, 1])}, "got groups"),
        ({"groups": np.array([0.0, 1.0, 2.0])}, "got groups float64"),
        ({"n_out": 3}, "got n_out 3"),
        ({"n_out": 0}, "got n_out 0"),
        ({"bands": ("red",)}, "got 1 names of bands, expected 2"),
        ({"screen": MadScreen()}, "band 'blue', .* not named"),
        ({"screen": MadScreen(), "bands": ("blue", "red")}, "band 'green', .* blue, red"),
        ({"methods": [MaxNdvi()], "bands": ("nir", "green")}, "band 'red', .* nir, green"),
        ({"methods": [ByIndex("blue")]}, "band 'blue'"),
        ({"methods": [BestPixel(182)]}, "needs .* `days`"),
        ({"methods": [BestPixel()], "days": np.zeros(3)}, "target day"),
        ({"methods": [BestPixel(182)], "days": np.zeros(2)}, "got days"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"values": np.zeros((3, 2, 4, 4), np.int16), "clear": np.zeros((3, 4, 4), bool)}
    with pytest.raises(InputError, match=message):
        composite(**{**good, **change})


def test_too_many_observations_are_refused():
    ones, clear = np.ones((1025, 1, 1, 1), np.int16), np.ones((1025, 1, 1), bool)
    with pytest.raises(InputError, match="got 1025 observations"):
        composite(ones, clear)
    # Items do not count, observations do.
    assert composite(ones, clear, np.zeros(1025, int)).count.item() == 1
