"""Words, sums and divisions beside plain NumPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from lcengine.kernels.division import divide, lloyd, spread, start
from lcengine.kernels.words import STRIP, add, assign, histogram, palette


def spectra(count, channels, seed=0, dtype=np.int16):
    """Pixels (channel, pixel) whose channels go together, as those of images do."""
    rng = np.random.default_rng(seed)
    bright = rng.normal(0, 700, count)
    values = 1500 + bright + rng.normal(0, 250, (channels, count))
    return np.ascontiguousarray(np.rint(values).astype(dtype))


def distances(pixels, colors, gains):
    """Squared, (pixel, colour), float64."""
    apart = (pixels.T[:, None, :].astype(np.float64) - colors) * gains
    return np.square(apart).sum(axis=2)


def words(pixels, valid, colors, gains):
    out = np.full(valid.size, 77, np.uint8)
    assign(0, -(-valid.size // STRIP), pixels, valid, palette(colors, gains), out)
    return out


@pytest.mark.parametrize(
    ("channels", "colors", "dtype"),
    [(4, 80, "int16"), (1, 2, "int16"), (6, 33, "int16"), (4, 255, "int32")],
)
def test_words_are_the_nearest_colours_in_float64(channels, colors, dtype):
    pixels = spectra(5000, channels, dtype=np.dtype(dtype))
    gains = np.linspace(1, 3, channels) / 700
    centres = pixels[:, ::17].T[:colors] + np.random.default_rng(1).normal(0, 9, (colors, channels))
    apart = distances(pixels, centres, gains)
    near = np.sort(apart, axis=1)
    clear = near[:, 1] - near[:, 0] > 1e-9 * near[:, 0]
    found = words(pixels, np.ones(5000, bool), centres, gains)
    assert clear.mean() > 0.999
    assert np.array_equal(found[clear], apart.argmin(axis=1)[clear])


def test_of_colours_equally_near_the_first_is_taken():
    """Also where float32 cannot tell them from others that are a little farther."""
    pixels = np.array([[10_000, 0, 20_000, 10_000]], np.int16)
    centres = np.array([[9_999.0], [10_001.0], [10_000.999], [-50.0], [20_000.0], [20_000.0]])
    found = words(pixels, np.ones(4, bool), centres, np.array([0.001]))
    assert found.tolist() == [2, 3, 4, 2]
    found = words(pixels, np.ones(4, bool), centres[[1, 0]], np.array([0.001]))
    assert found[0] == 0


def test_pixels_that_are_not_there_have_no_word():
    pixels = spectra(3000, 4)
    valid = np.random.default_rng(0).random(3000) < 0.5
    found = words(pixels, valid, pixels[:, :9].T.astype(float), np.ones(4))
    assert np.array_equal(found == 255, ~valid)


@given(st.data())
def test_a_word_does_not_depend_on_the_pixels_beside(data):
    seed = data.draw(st.integers(0, 99))
    pixels = spectra(2600, 4, seed)
    centres = pixels[:, :40].T.astype(float)
    gains = np.full(4, 1 / 700)
    valid = np.ones(2600, bool)
    whole = words(pixels, valid, centres, gains)
    first = data.draw(st.integers(0, 2599))
    part = np.ascontiguousarray(pixels[:, first : first + data.draw(st.integers(1, 1500))])
    alone = words(part, np.ones(part.shape[1], bool), centres, gains)
    assert np.array_equal(alone, whole[first : first + part.shape[1]])


def test_sums_and_histograms_are_those_of_numpy():
    pixels = spectra(4000, 3)
    rng = np.random.default_rng(0)
    found = rng.integers(0, 12, 4000).astype(np.uint8)
    segments = rng.integers(0, 5, 4000).astype(np.uint8)
    found[::7], segments[::11] = 255, 255
    counts, sums = np.zeros(12, np.int64), np.zeros((12, 3), np.int64)
    add(pixels, found, counts, sums)
    for word in range(12):
        assert counts[word] == (found == word).sum()
        assert np.array_equal(sums[word], pixels[:, found == word].sum(axis=1, dtype=np.int64))
    table = np.zeros((5, 12), np.int32)
    histogram(found, segments, table)
    kept = (found < 255) & (segments < 255)
    expected = np.bincount(segments[kept].astype(int) * 12 + found[kept], minlength=60)
    assert np.array_equal(table, expected.reshape(5, 12))


@pytest.mark.parametrize("rounds", [1, 6, 300])
def test_a_division_is_that_of_scikit_learn(rounds):
    pixels = spectra(3000, 4)
    valid = np.random.default_rng(0).random(3000) < 0.9
    gains = np.array([1.0, 2.0, 1.5, 1.0]) / 700
    first = start(pixels, valid, gains, 20, 5)
    segments = np.empty(3000, np.uint8)
    lloyd(pixels, valid, gains, first, rounds, segments)
    data = (pixels.T * gains)[valid]
    peer = KMeans(20, init=first * gains, n_init=1, max_iter=rounds, tol=0, algorithm="lloyd")
    expected = peer.fit(data).labels_
    assert np.array_equal(segments[valid], expected)
    assert (segments[~valid] == 255).all()


def test_the_first_centres_are_different_pixels_far_apart():
    pixels = spectra(2000, 4)
    first = spread(pixels, np.ones(4), 20, 3)
    assert len(np.unique(first, axis=0)) == 20
    assert all((centre == pixels.T).all(axis=1).any() for centre in first)
    drawn = pixels[:, :20].T.astype(float)
    spans = [distances(pixels, c, np.ones(4)).min(axis=1).mean() for c in (first, drawn)]
    assert spans[0] < spans[1]


@pytest.mark.parametrize(("there", "segments"), [(0, 0), (19, 1), (20, 20)])
def test_few_pixels_are_one_segment(there, segments):
    pixels = spectra(400, 4)
    valid = np.arange(400) < there
    found = np.empty(400, np.uint8)
    assert divide(pixels, valid, np.ones(4), (20, 20, 10, 0), found) == segments
    assert (found[~valid] == 255).all()
    assert len(np.unique(found[valid])) == segments


def test_pixels_of_few_colours_give_as_many_segments():
    pixels = np.repeat(np.array([[1, 5, 900]], np.int16), 4, axis=0)[:, np.arange(3000) % 3]
    found = np.empty(3000, np.uint8)
    valid = np.ones(3000, bool)
    assert divide(np.ascontiguousarray(pixels), valid, np.ones(4), (20, 20, 10, 0), found) == 3
    assert len({tuple(found[i::3]) for i in range(3)}) == 3


def test_the_seed_decides():
    pixels, valid = spectra(3000, 4), np.ones(3000, bool)
    found = [np.empty(3000, np.uint8) for _ in range(3)]
    for seed, out in zip((1, 1, 2), found, strict=True):
        divide(pixels, valid, np.ones(4), (20, 20, 5, seed), out)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
