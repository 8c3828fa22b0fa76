"""Backscatter: conversions between decibels and power, and reducers in the domain of power."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal, getcontext

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table import POWER, TABLE, make_decibels

from lcengine.errors import InputError
from lcengine.kernels import NODATA, convert, power
from lcengine.kernels.composite import composite
from lcengine.kernels.convert import Scaling
from lcengine.kernels.methods import MadScreen, Mean, Median, Percentile

LAYERS = ("values", "count", "outliers", "extras", "chosen")
SCREENS = (None, MadScreen(per_band=True), MadScreen(1.0, 100, "bright", per_band=True))

rows = pytest.mark.parametrize("row", POWER.values(), ids=POWER)
few = settings(max_examples=8)


def cubes(**fixed):
    options = {
        "seed": st.integers(0, 2**32 - 1),
        "observations": st.sampled_from([1, 2, 3, 4, 5, 8, 23, 24, 33, 64]),
        "shape": st.tuples(st.integers(1, 3), st.integers(1, 5)),
        "masked": st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        "members": st.sampled_from([1, 1, 3]),
        "extreme": st.booleans(),
        "n_out": st.sampled_from([1, 2, None]),
    }
    options |= {name: st.just(value) for name, value in fixed.items()}
    return st.builds(make_decibels, **options)


def same(got, expected, at=...):
    for name in LAYERS:
        a, b = getattr(got, name), getattr(expected, name)[at]
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


def column(values):
    """One band of one pixel."""
    return np.array(values, np.int16).reshape(-1, 1, 1, 1), np.ones((len(values), 1, 1), np.uint8)


def reduced(values, method):
    pixels, clear = column(values)
    return composite(pixels, clear, methods=[method], domain="power").values.item()


# ------------------------------------------------------------------------- against the oracle


@rows
@pytest.mark.parametrize("screen", SCREENS, ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_every_method_in_power(row, screen, data):
    cube = data.draw(cubes())
    got = cube.composite(row.methods, screen)
    oracles.assert_agrees(got, cube, [(method, row.oracle) for method in row.methods], screen)


@rows
@pytest.mark.parametrize("observations", [256, 257, 1024])
def test_long_series(row, observations):
    cube = make_decibels(observations, observations, (1, 3))
    got = cube.composite(row.methods)
    oracles.assert_agrees(got, cube, [(method, row.oracle) for method in row.methods], None)


def test_many_pixels_equal_numpy_in_power():
    rng = np.random.default_rng(7)
    cube = make_decibels(7, 18, (128, 128))
    values = cube.values.copy()
    values[rng.random(values.shape) < 0.05] = NODATA
    valid = (cube.clear != 0) & (values != NODATA).all(1)
    found = replace(cube, values=values).composite([Median(), Mean()]).values
    ordered = np.sort(np.where(valid[:, None], 10.0 ** (values / 1000), np.inf), axis=0)
    n = np.broadcast_to(valid.sum(0), ordered.shape[1:])
    last = np.maximum(n - 1, 0)
    low, high = (np.take_along_axis(ordered, i[None], 0)[0] for i in (last // 2, n // 2))
    summed = np.where(np.isfinite(ordered), ordered, 0).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = np.concatenate([(low + high) / 2, summed / n])
        want = np.where(np.concatenate([n, n]) > 0, np.rint(1000 * np.log10(want)), NODATA)
    np.testing.assert_array_equal(found, want)


def test_the_middle_of_two_is_not_that_of_their_decibels():
    assert reduced([-2000, -1000], Median()) == -1260  # 10·log10((0.01 + 0.1) / 2) = −12.596 dB
    assert reduced([-2000, -1000], Mean()) == -1260
    assert reduced([-2000, -1000], Percentile(50)) == -1260
    assert reduced([-2000, -1000, -500], Median()) == -1000
    assert reduced([0, 0, 0, 3000], Mean()) == 2399  # 10·log10(1003 / 4)
    assert reduced([-32767, 32767], Median()) == 32767 - 301
    assert reduced([7], Mean()) == 7


def test_every_difference_of_two_is_exact():
    """a + rint(1000·log10((1 + 10^(d/1000)) / 2)), in decimals of forty digits."""
    getcontext().prec = 40
    gaps = np.arange(0, 65_535, 97)
    low = np.full(gaps.size, -32767)
    values = np.stack([low, low + gaps]).astype(np.int16).reshape(2, 1, 1, -1)
    clear = np.ones((2, 1, gaps.size), np.uint8)
    got = composite(values, clear, domain="power").values.ravel()
    ten = Decimal(10)
    offsets = [
        (1000 * ((1 + ten ** (Decimal(int(gap)) / 1000)) / 2).log10()).to_integral_value()
        for gap in gaps
    ]
    assert got.tolist() == [-32767 + int(offset) for offset in offsets]


# -------------------------------------------------------------------------------- invariances


@rows
@few
@given(
    seed=st.integers(0, 1000),
    row_at=st.integers(0, 9),
    column_at=st.integers(0, 300),
    screen=st.sampled_from(SCREENS),
)
def test_splitting_in_space_changes_nothing(row, seed, row_at, column_at, screen):
    cube = make_decibels(seed, 9, (10, 301), members=2)
    whole = cube.composite(row.methods, screen)
    down = (slice(0, row_at), slice(row_at, None))
    across = (slice(column_at), slice(column_at, None))
    for part in itertools.product(down, across):
        same(cube.part(*part).composite(row.methods, screen), whole, (..., *part))


@rows
@few
@given(cube=cubes(shape=(2, 37)), seed=st.integers(0, 1000))
def test_a_pixel_does_not_depend_on_its_neighbours(row, cube, seed):
    order = np.random.default_rng(seed).permutation(37)
    shuffled = replace(cube, values=cube.values[..., order].copy(), clear=cube.clear[..., order])
    same(shuffled.composite(row.methods), cube.composite(row.methods), (..., order))


@rows
@few
@given(cube=cubes(), seed=st.integers(0, 1000))
def test_masked_values_do_not_matter(row, cube, seed):
    noise = np.random.default_rng(seed).choice([-32768, -32767, 0, 32767], cube.values.shape)
    other = np.where(cube.clear[:, np.newaxis], cube.values, noise.astype(np.int16))
    same(replace(cube, values=other).composite(row.methods), cube.composite(row.methods))


@pytest.mark.parametrize("name", [n for n in POWER if not n.endswith("-clear")])
@few
@given(seed=st.integers(0, 1000), order=st.permutations(range(13)))
def test_order_of_observations_changes_nothing(name, seed, order):
    row = POWER[name]
    cube = make_decibels(seed, 13)
    other = replace(cube, values=cube.values[order], clear=cube.clear[order])
    same(other.composite(row.methods), cube.composite(row.methods))


@rows
def test_threads_change_nothing(row):
    cube = make_decibels(3, 24, (61, 67), members=2)
    same(cube.composite(row.methods, parallel=True), cube.composite(row.methods))


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "method",
    [
        row.methods[0]
        for name, row in TABLE.items()
        if name not in POWER
        and len(row.methods) == 1
        and not isinstance(row.methods[0], Mean | Percentile)
    ],
    ids=str,
)
def test_what_has_no_meaning_in_power_is_refused(method):
    pixels, clear = column([1, 2, 3])
    with pytest.raises(InputError, match=f"method '{method}' looks at spectra of reflectance"):
        composite(pixels, clear, methods=[method], domain="power")


def test_an_unknown_domain_is_refused():
    """Not averaged as reflectance in silence."""
    pixels, clear = column([1, 2, 3])
    with pytest.raises(InputError, match="got domain 'decibel', expected 'linear' or 'power'"):
        composite(pixels, clear, domain="decibel")


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_power_wants_decibels_as_int16(kind):
    pixels, clear = column([1, 2, 3])
    with pytest.raises(InputError, match=f"got values {kind} in the domain 'power'"):
        composite(pixels.astype(kind), clear, domain="power")


# -------------------------------------------------------------------------------- conversions


def test_the_table_and_the_logarithm_are_inverse():
    values = np.arange(-32767, 32768, dtype=np.int16)
    table = power.powers()[values.view(np.uint16)]
    assert [power.decibels(p) for p in table.tolist()] == values.tolist()
    assert table[32767] == 1
    assert (np.diff(table) > 0).all()


def converted(dn, scaling):
    out = np.full(dn.shape, 7, np.int16)
    convert.to_pixels(dn, scaling, out)
    return out


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_power_becomes_decibels(kind):
    dn = np.array([[0, 1, 2, 10, 99, 100]]).astype(kind)
    expected = [NODATA, -2000, -1699, -1000, -4, 0]
    assert converted(dn, Scaling(0.01, 0.0, None, "power")).tolist() == [expected]
    expected[2] = NODATA
    assert converted(dn, Scaling(0.01, 0.0, 2.0, "power")).tolist() == [expected]


def test_power_that_is_none_is_nodata():
    dn = np.array([[np.nan, np.inf, -np.inf, -0.1, 0, -9999.9, 1e-45, 3e38, 0.1]], np.float32)
    got = converted(dn, Scaling(1.0, 0.0, -9999.9, "power"))
    assert got.tolist() == [[NODATA] * 6 + [-32767, 32767, -1000]]


def test_decibels_are_rounded_half_to_even():
    dn = np.arange(-300_000, 100_001, 50, dtype=np.int32).reshape(3, -1)
    got = converted(dn, Scaling(1e-4, 0.0, 0.0, "decibel"))
    quotient, rest = np.divmod(dn, 100)
    expected = np.where((rest == 50) & (quotient % 2 == 1), quotient + 1, quotient)
    expected[dn == 0] = NODATA
    assert np.array_equal(got, expected)
    floats = np.array([[-12.345, -12.355, 0.005, 0.015, np.nan, 400, -400]])
    got = converted(floats, Scaling(1.0, 0.0, None, "decibel"))
    assert got.tolist() == [[-1234, -1236, 0, 2, NODATA, 32767, -32767]]


def test_there_and_back_the_ties_are_the_same():
    """Decibels by way of power, as resampling goes, equal those that were never power."""
    dn = np.arange(-3_276_650, 3_276_651, 50, dtype=np.int32)[None]
    scaling = Scaling(1e-4, 0.0, None, "decibel")
    out = np.empty(dn.shape, np.int16)
    convert.to_decibels(convert.to_power(dn, scaling), out)
    assert np.array_equal(out, converted(dn, scaling))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32"])
def test_numbers_stay_what_they_are(kind):
    dn = np.array([[0, 1, 2, 127]]).astype(kind)
    assert converted(dn, Scaling(1.0, 0.0, 1.0, "number")).tolist() == [[0, NODATA, 2, 127]]
    assert converted(dn, Scaling(0.5, 3.0, None, "number")).tolist() == [[3, 4, 4, 66]]


def test_a_number_of_65535_is_not_saturated():
    dn = np.array([[65535, 32766]], np.uint16)
    assert converted(dn, Scaling(1.0, 0.0, None, "number")).tolist() == [[32767, 32766]]
    assert converted(dn, Scaling(0.1, 0.0, None, "number")).tolist() == [[6554, 3277]]
    assert converted(dn, Scaling(0.1, 0.0, None)).tolist() == [[NODATA, 32767]]
