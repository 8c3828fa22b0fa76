"""The pixel kernels of reading: digital numbers to reflectance, gathers, binary morphology."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import morphology as sk

from lcengine.errors import InputError
from lcengine.kernels import convert, gather, morphology

NODATA = np.int16(-32768)

# ------------------------------------------------------------------------------------ conversion

CONTRACTS = (
    (1e-4, 0.0),  # Sentinel-2
    (1e-4, -0.1),  # Sentinel-2 from baseline 04.00
    (2.75e-5, -0.2),  # Landsat C2: a fortieth of its values are ties
    (1.0, 0.0),
    (2e-4, 0.05),
    (3e-5, 1 / 3),
)
DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


def reflectance_of(value, scale, offset, nodata, dtype):
    """One value by exact arithmetic on the decimals that the catalogue states."""
    if not np.isfinite(value) or value == nodata or (dtype == "uint16" and value == 65535):
        return -32768
    exact = Fraction(str(value)) * Fraction(str(scale)) + Fraction(str(offset))
    return min(max(round(exact * 10000), -32767), 32767)


def converted(dn, scale, offset, nodata):
    out = np.full(dn.shape, 7, np.int16)
    convert.to_pixels(dn, convert.Scaling(scale, offset, nodata), out)
    return out


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize(("scale", "offset"), CONTRACTS)
def test_every_small_integer_converts_exactly(dtype, scale, offset):
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1).astype(dtype)
    for nodata in (0.0, None, -9999.0, 0.5):
        expected = [reflectance_of(v, scale, offset, nodata, dtype) for v in values[::7].tolist()]
        assert converted(values[None], scale, offset, nodata)[0, ::7].tolist() == expected
    saturated = converted(values[None], scale, offset, None)[0, -1] == NODATA
    assert saturated == (dtype == "uint16")


@given(
    dtype=st.sampled_from(DTYPES),
    contract=st.sampled_from(CONTRACTS[:4]),
    nodata=st.sampled_from([None, 0.0, 3.0, -9999.0, float("nan")]),
    seed=st.integers(0, 2**32),
)
def test_any_dtype_converts_as_exact_arithmetic(dtype, contract, nodata, seed):
    rng = np.random.default_rng(seed)
    dn = rng.integers(0, 40_000, (3, 5)).astype(dtype)
    dn[0, :2] = 0, 3
    if dtype in ("int16", "int32", "float32", "float64"):
        dn[1, :2] = -9999, -5
    expected = [
        [reflectance_of(value, *contract, nodata, dtype) for value in row] for row in dn.tolist()
    ]
    assert converted(dn, *contract, nodata).tolist() == expected


def test_negative_reflectance_is_kept_and_large_is_clipped():
    dn = np.array([[1, 999, 1000, 33766, 33767, 33768, 65534, 65535, 0]], np.uint16)
    got = converted(dn, 1e-4, -0.1, 0.0)
    assert got.tolist() == [[-999, -1, 0, 32766, 32767, 32767, 32767, -32768, -32768]]
    assert converted(np.array([[-40000]], np.int32), 1e-4, 0.0, None) == -32767


def test_floats_that_are_no_number_are_nodata():
    dn = np.array([[np.nan, np.inf, -np.inf, 0.25, -0.00005, 0.00015, -9999.9]], np.float32)
    assert converted(dn, 1.0, 0.0, -9999.9).tolist() == [[-32768] * 3 + [2500, 0, 2, -32768]]


def test_converts_in_place():
    values = np.arange(0, 65536, 5, dtype=np.uint16)[None]
    for contract in CONTRACTS:
        expected = converted(values, *contract, 0.0)
        out = values.copy().view(np.int16)
        convert.to_pixels(out.view(np.uint16), convert.Scaling(*contract, 0.0), out)
        assert np.array_equal(out, expected)


# --------------------------------------------------------------------------------------- gathers


@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(["int16", "uint8"]))
def test_nearest_takes_the_pixel_or_the_fill(seed, dtype):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 200, (5, 7)).astype(dtype)
    fill = np.dtype(dtype).type(201)
    rows = rng.integers(-2, 8, (4, 6)).astype(np.int32)
    cols = rng.integers(-2, 10, (4, 6)).astype(np.int32)
    rows[0, 0], cols[0, 1] = -(2**30), 2**30
    out = np.zeros(rows.shape, dtype)
    gather.nearest(source, rows, cols, fill, out)
    for (y, x), value in np.ndenumerate(out):
        row, col = rows[y, x], cols[y, x]
        assert value == (source[row, col] if 0 <= row < 5 and 0 <= col < 7 else fill)
    separable = np.zeros(rows.shape, dtype)
    gather.nearest_separable(source, rows[:, 0].copy(), cols[0].copy(), fill, separable)
    gather.nearest(
        source,
        np.ascontiguousarray(np.broadcast_to(rows[:, :1], rows.shape)),
        np.ascontiguousarray(np.broadcast_to(cols[:1], cols.shape)),
        fill,
        out,
    )
    assert np.array_equal(separable, out)


def bilinear_at(source, row, col):
    """Exact value at a coordinate that is a Fraction, by the rule in the kernel's docstring."""

    def pixel(i, j):
        inside = 0 <= i < source.shape[0] and 0 <= j < source.shape[1]
        return int(source[i, j]) if inside else -32768

    if pixel(floor(row), floor(col)) == -32768:
        return -32768
    total = weights = Fraction(0)
    for i in (floor(row - Fraction(1, 2)), floor(row - Fraction(1, 2)) + 1):
        for j in (floor(col - Fraction(1, 2)), floor(col - Fraction(1, 2)) + 1):
            if pixel(i, j) != -32768:
                near = 1 - abs(row - Fraction(1, 2) - i), 1 - abs(col - Fraction(1, 2) - j)
                total += near[0] * near[1] * pixel(i, j)
                weights += near[0] * near[1]
    return round(total / weights)


@given(seed=st.integers(0, 2**32))
def test_bilinear_is_the_weighted_mean_of_what_is_valid(seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(-32767, 32768, (5, 6)).astype(np.int16)
    source[rng.random(source.shape) < 0.3] = NODATA
    rows, cols = rng.integers(-6, 48, (2, 8, 9)) / 8  # eighths are exact in binary
    out = np.zeros(rows.shape, np.int16)
    gather.bilinear(source, rows, cols, NODATA, out)
    for (y, x), value in np.ndenumerate(out):
        assert value == bilinear_at(source, Fraction(rows[y, x]), Fraction(cols[y, x]))


def test_bilinear_leaves_pixel_centres_as_they_are():
    source = np.random.default_rng(1).integers(-999, 999, (6, 7)).astype(np.int16)
    source[2, 3] = NODATA
    rows, cols = np.meshgrid(np.arange(6) + 0.5, np.arange(7) + 0.5, indexing="ij")
    out = np.zeros(source.shape, np.int16)
    gather.bilinear(source, rows, cols, NODATA, out)
    assert np.array_equal(out, source)


@given(seed=st.integers(0, 2**32), factor=st.integers(1, 4))
def test_block_mean_is_rounded_half_to_even(seed, factor):
    rng = np.random.default_rng(seed)
    source = rng.integers(-20, 20, (3 * factor, 4 * factor)).astype(np.int16)
    source[rng.random(source.shape) < 0.4] = NODATA
    out = np.zeros((3, 4), np.int16)
    gather.block_mean(source, factor, NODATA, out)
    for (y, x), value in np.ndenumerate(out):
        block = source[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        valid = [int(v) for v in block.ravel() if v != NODATA]
        expected = round(Fraction(sum(valid), len(valid))) if valid else NODATA
        assert value == expected


# ------------------------------------------------------------------------------------ morphology


@pytest.mark.parametrize("radius", range(15))
def test_elements_are_those_of_scikit_image(radius):
    for rows, footprint in (
        (morphology.disk(radius), sk.disk(radius)),
        (morphology.diamond(radius), sk.diamond(radius)),
    ):
        columns = np.abs(np.arange(-radius, radius + 1))
        assert np.array_equal(columns[None, :] <= rows[:, None], footprint.astype(bool))


def test_a_diamond_is_a_cross_repeated():
    mask = np.random.default_rng(0).random((40, 50)) < 0.02
    expected = ndimage.binary_dilation(mask, oracle.CROSS, iterations=4)
    got = morphology.dilate(mask.astype(np.uint8), morphology.diamond(4))
    assert np.array_equal(got, expected)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    radius=st.integers(0, 16),
    density=st.sampled_from([0.01, 0.2, 0.8, 0.99]),
    element=st.sampled_from(["disk", "diamond"]),
    seed=st.integers(0, 2**32),
)
def test_morphology_equals_scipy_with_neutral_borders(shape, radius, density, element, seed):
    mask = np.random.default_rng(seed).random(shape) < density
    footprint = (sk.disk if element == "disk" else sk.diamond)(radius).astype(bool)
    rows = getattr(morphology, element)(radius)
    grown = ndimage.binary_dilation(mask, footprint, border_value=0)
    shrunk = ndimage.binary_erosion(mask, footprint, border_value=1)
    assert np.array_equal(morphology.dilate(mask.astype(np.uint8), rows), grown)
    assert np.array_equal(morphology.erode(mask.astype(np.uint8), rows), shrunk)


def test_morphology_far_from_everything():
    """Rows longer than the widest distance that a byte holds."""
    mask = np.zeros((3, 900), np.uint8)
    mask[1, 5] = 1
    got = morphology.dilate(mask, morphology.disk(254))
    assert np.array_equal(np.flatnonzero(got[1]), np.arange(0, 5 + 254 + 1))
    assert not morphology.dilate(np.zeros((4, 4), np.uint8), morphology.disk(200)).any()


@pytest.mark.parametrize("radius", [-1, 255, 1e9])
def test_an_absurd_radius_is_refused(radius):
    with pytest.raises(InputError, match="radius"):
        morphology.disk(radius)
