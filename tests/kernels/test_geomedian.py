from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from lcengine.kernels.geomedian import geomedian, geomedian_work

# ------------------------------------------------------------------------------------- harness


def solve(spectra, clear, eps=0.1, maxiter=1000, width=64, work=None):
    """Geomedians (pixel, band) of spectra (pixel, observation, band) in strips of `width`."""
    pixels, observations, bands = spectra.shape
    strips = -(-pixels // width)
    raw = np.zeros((strips * width, observations, bands), spectra.dtype)
    take = np.zeros((strips * width, observations), np.int16)
    raw[:pixels], take[:pixels] = spectra, -clear.astype(np.int16)
    raw = raw.reshape(strips, width, observations, bands).transpose(0, 3, 2, 1)
    take = take.reshape(strips, width, observations).transpose(0, 2, 1)
    tally = -take.sum(1, dtype=np.int16)
    centre = np.empty((strips, bands, width), np.float32)
    if work is None:
        work = np.full(geomedian_work(bands, observations, width), np.nan, np.float32)
    raw, take, eps = np.ascontiguousarray(raw), np.ascontiguousarray(take), np.float32(eps)
    for strip in range(strips):
        geomedian(raw[strip], take[strip], tally[strip], eps, maxiter, work, centre[strip])
    return centre.transpose(0, 2, 1).reshape(-1, bands)[:pixels]


def alone(spectra, **options):
    """Geomedian of one pixel's spectra, all valid."""
    spectra = np.asarray(spectra)
    return solve(spectra[np.newaxis], np.ones((1, len(spectra)), bool), **options)[0]


# -------------------------------------------------------------------------------------- oracle


def objective(points, centre):
    return np.sqrt(((points.astype(float) - centre) ** 2).sum(1)).sum()


def pull(points, centre):
    """Sum of the unit vectors to the points elsewhere, its divisor, and the points met."""
    away = points - centre
    distance = np.sqrt((away**2).sum(1))
    weight = 1 / distance[distance > 0]
    return (away[distance > 0] * weight[:, None]).sum(0), weight.sum(), (distance == 0).sum()


def solving_point(points, margin=0.0):
    """The point that satisfies Vardi and Zhang's condition by a margin, or None."""
    for point in points:
        force, _, met = pull(points, point)
        if np.sqrt((force**2).sum()) <= met - margin:
            return point
    return None


def oracle(points):
    """Weiszfeld's steps with the correction of Vardi and Zhang, in float64, to 1e-10."""
    points = points.astype(float)
    if len(points) < 3:
        return points.mean(0) if len(points) else np.full(points.shape[1], np.nan)
    point = solving_point(points)
    if point is not None:
        return point
    y = points.mean(0)
    for _ in range(100_000):
        force, divisor, met = pull(points, y)
        step = force / divisor * (1 - met / np.sqrt((force**2).sum()) if met else 1)
        y = y + step
        if np.sqrt((step**2).sum()) < 1e-10:
            break
    return y


def oracles(spectra, clear):
    return np.array([oracle(s[c]) for s, c in zip(spectra, clear, strict=True)])


def distances(a, b):
    return np.sqrt(((a.astype(float) - b) ** 2).sum(1))


# ---------------------------------------------------------------------------------------- data


def uniform(pixels, observations, bands=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-2000, 12000, (pixels, observations, bands)).astype(np.int16)


def walk(pixels, observations, bands=6, seed=0):
    """Spectra whose brightness and shape walk through the year, with noise and missed clouds."""
    rng = np.random.default_rng(seed)
    spectrum = 400 + rng.normal(250, 180, (pixels, 1, bands)).cumsum(2)
    steps = rng.normal(0, 1, (2, pixels, observations, 1)).cumsum(2)
    values = spectrum * (1 + 0.03 * steps[0]) + 60 * steps[1] * rng.normal(0, 1, (1, 1, bands))
    values += rng.normal(0, 40, values.shape)
    values += rng.uniform(500, 5000, steps[0].shape) * (rng.random(steps[0].shape) < 0.05)
    return np.rint(values).clip(-500, 16000).astype(np.int16)


def masks(spectra, share=0.4, seed=1):
    return np.random.default_rng(seed).random(spectra.shape[:2]) >= share


# ----------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("observations", [1, 2, 3, 5, 24, 25, 200])
@pytest.mark.parametrize("bands", [1, 3, 6, 10])
def test_converges_to_the_oracle(observations, bands):
    spectra = uniform(70, observations, bands, seed=observations)
    clear = masks(spectra, 0.4 if observations > 3 else 0.1)
    got, wanted = solve(spectra, clear, eps=1e-5), oracles(spectra, clear)
    assert_array_equal(np.isnan(got), np.isnan(wanted))
    for pixel in np.flatnonzero(clear.any(1)):
        points = spectra[pixel, clear[pixel]]
        least = objective(points, wanted[pixel])
        assert objective(points, got[pixel]) <= least * (1 + 1e-7) + 1e-3
        if bands > 1:  # in one band, any value between the middle ones is a solution
            assert distances(got[[pixel]], wanted[pixel]) < 0.05


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_is_near_the_oracle_at_the_default_eps(dtype):
    unit = 1 if dtype == np.int16 else 1e-4
    spectra = walk(150, 24)
    clear = masks(spectra)
    stored = spectra if dtype == np.int16 else (spectra * unit).astype(dtype)
    away = distances(solve(stored, clear, eps=0.1 * unit), oracles(stored, clear)) / unit
    assert away.mean() < 0.02
    assert away.max() < 0.5


def test_many_observations():
    spectra = walk(3, 1024)
    clear = masks(spectra)
    away = distances(solve(spectra, clear, width=32), oracles(spectra, clear))
    assert away.max() < 0.05


@given(
    points=st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=3, max_size=12),
    scale=st.sampled_from([1, 7, 300, 4000]),
)
def test_clusters_and_lines(points, scale):
    """Few places: spectra that coincide, lie in a line, or are as far to all sides."""
    points = np.array(points, np.int16) * np.int16(scale)
    got, point = alone(points, eps=0.01), solving_point(points.astype(float), margin=0.01)
    if point is not None:
        assert_array_equal(got, point)
    least = objective(points, oracle(points))
    assert objective(points, got) <= least + max(1e-5 * least, 0.01)


# ----------------------------------------------------------------------------------- exact cases


def test_no_one_and_two_observations():
    spectra = uniform(3, 4)
    clear = np.zeros((3, 4), bool)
    clear[1, 2] = clear[2, 0] = clear[2, 3] = True
    got = solve(spectra, clear)
    assert np.isnan(got[0]).all()
    assert_array_equal(got[1], spectra[1, 2])
    assert_array_equal(got[2], (spectra[2, 0].astype(float) + spectra[2, 3]) / 2)


@pytest.mark.parametrize("observations", [3, 7, 24])
def test_equal_spectra(observations):
    for dtype, one in ((np.int16, [1, -2, 32767]), (np.float32, [0.1, 0.7, 1 / 3])):
        spectrum = np.array(one, dtype)
        assert_array_equal(alone(np.tile(spectrum, (observations, 1))), spectrum)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_a_majority_at_one_place_wins(dtype, seed):
    spectra = uniform(40, 15, seed=seed) * dtype(1)
    if dtype == np.float32:
        spectra = spectra / np.float32(9999)
    spectra[:, ::2] = spectra[:, :1]
    got = solve(spectra, np.ones((40, 15), bool), eps=0.1 if dtype == np.int16 else 1e-5)
    assert_array_equal(got, spectra[:, 0])


@pytest.mark.parametrize("eps", [1, 0.1, 0.01])
def test_a_spectrum_that_is_the_solution_is_returned_exactly(eps):
    spectra = walk(1000, 4, seed=3)
    spectra[:, 3] = (spectra[:, :3].astype(float).mean(1) // 1).astype(np.int16)
    clear = np.ones((1000, 4), bool)
    clear[::3, 3] = False
    got, found = solve(spectra, clear, eps=eps), 0
    for pixel in range(1000):
        point = solving_point(spectra[pixel, clear[pixel]].astype(float), margin=0.05)
        if point is not None:
            assert_array_equal(got[pixel], point)
            found += 1
    assert found > 200


@pytest.mark.parametrize("observations", [3, 4, 9, 10, 41])
def test_spectra_in_a_line(observations):
    """The minimum is the middle spectrum, or anywhere between the two in the middle."""
    rng = np.random.default_rng(observations)
    at = rng.integers(-100, 100, (30, observations, 1))
    spectra = (1000 + at * [3, -7, 20, 11]).astype(np.int16)
    got = solve(spectra, np.ones((30, observations), bool), eps=0.01)
    at.sort(1)
    middle = 1000 + at[:, observations // 2] * [3, -7, 20, 11]
    for pixel in range(30):
        least = objective(spectra[pixel], middle[pixel])
        assert objective(spectra[pixel], got[pixel]) <= least * (1 + 1e-5)
    if observations % 2:
        assert_array_equal(got, middle)


# ---------------------------------------------------------------------------------- invariances


def test_masked_values_are_ignored():
    spectra = walk(100, 12)
    clear = masks(spectra)
    wanted = solve(spectra, clear)
    garbage = np.where(clear[:, :, None], spectra, np.int16(-32768))
    assert_array_equal(solve(garbage, clear), wanted)
    wanted = solve(spectra.astype(np.float32), clear)
    for value in (np.nan, np.inf, 3e38):
        garbage = np.where(clear[:, :, None], spectra, np.float32(value))
        assert_array_equal(solve(garbage, clear), wanted)


@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([1, 7, 32, 96, 128, 160, 257, 1024]))
def test_neighbours_and_place_do_not_matter(seed, width):
    rng = np.random.default_rng(seed)
    spectra = np.concatenate([walk(90, 6, 3, seed), uniform(90, 6, 3, seed)])
    spectra[::5, 1:4] = spectra[::5, :1] + 1
    clear = masks(spectra, rng.choice([0.1, 0.5]), seed)
    wanted = solve(spectra, clear, width=192)
    order = rng.permutation(180)
    assert_array_equal(solve(spectra[order], clear[order], width=width), wanted[order])
    few = order[: rng.integers(1, 60)]
    assert_array_equal(solve(spectra[few], clear[few], width=width), wanted[few])


def test_masked_observations_between_do_not_matter():
    spectra = walk(100, 10)
    clear = masks(spectra)
    wider = np.zeros((100, 23, 6), np.int16)
    seen = np.zeros((100, 23), bool)
    at = np.r_[1:4, 8:15]
    wider[:, at], seen[:, at] = spectra, clear
    assert_array_equal(solve(wider, seen), solve(spectra, clear))


def test_order_of_observations_does_not_matter():
    spectra = walk(200, 24)
    clear = masks(spectra)
    order = np.random.default_rng(0).permutation(24)
    first = solve(spectra, clear, eps=1e-5)
    other = solve(spectra[:, order], clear[:, order], eps=1e-5)
    assert distances(first, other).max() < 0.01


def test_stored_origin_shifts_the_result():
    """uint16 values are stored with the sign bit flipped, 32768 lower."""
    spectra = walk(200, 12)
    clear = masks(spectra)
    high = solve(spectra + np.int16(15000), clear, eps=1e-5)
    assert distances(high - 15000, solve(spectra, clear, eps=1e-5)).max() < 0.01


def test_scratch_needs_no_alignment_and_no_start_value():
    spectra = walk(100, 9)
    clear = masks(spectra)
    wanted, size = solve(spectra, clear), geomedian_work(6, 9, 64)
    for offset in (0, 1, 5):
        for value in (np.nan, 0, 1e30):
            work = np.full(size + offset, value, np.float32)[offset:]
            assert_array_equal(solve(spectra, clear, work=work), wanted)


# -------------------------------------------------------------------------------------- course


def test_an_eps_beyond_float32_ends():
    spectra = walk(200, 24)
    clear = masks(spectra)
    wanted = oracles(spectra, clear)
    for eps in (1e-9, 0.0):
        assert distances(solve(spectra, clear, eps=eps), wanted).max() < 0.01


@pytest.mark.parametrize("observations", [3, 4, 9])
def test_the_objective_falls(observations):
    spectra = np.concatenate([walk(100, observations), uniform(100, observations)])
    clear = masks(spectra, 0.1)
    clear[:, :3] = True

    def objectives(found):
        return np.array([objective(s[c], y) for s, c, y in zip(spectra, clear, found, strict=True)])

    before = objectives(np.array([s[c].mean(0) for s, c in zip(spectra, clear, strict=True)]))
    assert (objectives(solve(spectra, clear, maxiter=1)) < before).all()
    for maxiter in (8, 16, 24, 40, 80):
        after = objectives(solve(spectra, clear, eps=0, maxiter=maxiter))
        assert (after <= before * (1 + 1e-6)).all()
        before = after


# ---------------------------------------------------------------------------------------- peer


@pytest.mark.parametrize("make", [walk, uniform])
def test_no_farther_from_the_solution_than_geomad(make):
    geomad = pytest.importorskip("geomad")
    spectra = make(2048, 24)
    clear = masks(spectra)
    known = np.where(clear[:, :, None], spectra, np.float32(np.nan)).transpose(0, 2, 1)
    cube = np.ascontiguousarray(known.reshape(32, 64, 6, 24))

    def peer(eps):
        found = geomad.nangeomedian_pcm(cube, eps=eps, maxiters=1000, nocheck=True, num_threads=1)
        return found.reshape(-1, 6)

    converged = peer(1e-5)
    ours, theirs = (distances(y, converged) for y in (solve(spectra, clear), peer(0.1)))
    for figure in (np.mean, np.max, lambda away: np.quantile(away, 0.99)):
        assert figure(ours) <= figure(theirs)
    assert distances(solve(spectra, clear, eps=1e-5), converged).max() < 0.05
