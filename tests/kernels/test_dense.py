"""Dense networks and temperatures beside float64 NumPy and SciPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from lcengine.kernels.dense import BLOCK, network, temper


def made(sizes, count, seed=0):
    """Features, scaling, weights (from, to) and biases."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (sizes[0], count)).astype(np.float32)
    scaling = np.stack([np.full(sizes[0], 3), np.full(sizes[0], 0.5)]).astype(np.float32)
    weights = [rng.normal(0, 1 / np.sqrt(a), (b, a)).astype(np.float32) for a, b in pairwise(sizes)]
    biases = [rng.normal(0, 0.3, b).astype(np.float32) for b in sizes[1:]]
    return x, scaling, weights, biases


def run(x, scaling, weights, biases):
    sizes = np.array([len(x), *(len(b) for b in biases)])
    flat = np.concatenate(
        [np.concatenate([w.ravel(), b]) for w, b in zip(weights, biases, strict=True)]
    )
    out = np.full((sizes[-1], x.shape[1]), np.nan, np.float32)
    network(x, scaling, sizes, flat, out)
    return out


@given(
    st.lists(st.integers(1, 19), min_size=2, max_size=4),
    st.integers(0, 2 * BLOCK + 3),
    st.integers(0, 99),
)
def test_a_network_is_products_of_matrices(sizes, count, seed):
    x, scaling, weights, biases = made(sizes, count, seed)
    values = (x.astype(np.float64) - scaling[0][:, None]) * scaling[1][:, None]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        values = np.maximum(weight @ values + bias[:, None], 0)
    expected = softmax(weights[-1] @ values + biases[-1][:, None], axis=0)
    np.testing.assert_allclose(run(x, scaling, weights, biases), expected, atol=2e-6)


@given(st.integers(0, 500), st.integers(1, 300))
def test_a_pixel_has_the_same_bits_in_any_company(start, count):
    x, *model = made((11, 20, 5), 500)
    whole = run(x, *model)
    part = run(np.ascontiguousarray(x[:, start : start + count]), *model)
    np.testing.assert_array_equal(part, whole[:, start : start + count])


def test_logits_far_apart_stay_probabilities():
    x, scaling, weights, biases = made((4, 3), 300)
    found = run(x, scaling, [w * 1000 for w in weights], biases)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    assert (found == 0).any()


def shares(classes, count, seed):
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.full(classes, 0.3), count).T.astype(np.float32)
    values[values < 1e-3] = 0  # as forests have them
    return np.ascontiguousarray(values / values.sum(axis=0))


@given(st.integers(1, 9), st.floats(0.05, 20), st.integers(0, 99))
def test_a_temperature_divides_the_logits_and_keeps_the_class(classes, temperature, seed):
    before = shares(classes, 2 * BLOCK + 7, seed)
    # Near ties, which rounding could turn around.
    before[:, :50] = np.nextafter(before[:, :50].max(axis=0), np.float32(0), dtype=np.float32)
    before[-1, :50] = np.nextafter(before[-1, :50], np.float32(2))
    after = np.empty_like(before)
    temper(before, temperature, after)
    with np.errstate(divide="ignore"):
        expected = softmax(np.log(before.astype(np.float64)) / temperature, axis=0)
    np.testing.assert_allclose(after, expected, atol=3e-6)
    np.testing.assert_array_equal(after.argmax(axis=0), before.argmax(axis=0))
    np.testing.assert_array_equal(after[before == 0], 0)


@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_tiny_probabilities_survive(temperature):
    before = np.array([[1.0, 1e-38], [1e-38, 1.0]], np.float32)
    after = np.empty_like(before)
    temper(before, temperature, after)
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after.sum(axis=0), 1, atol=1e-6)
