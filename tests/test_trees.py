"""Trees of scikit-learn and XGBoost as arrays: what they say is what their libraries say."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)

from lcengine.errors import InputError
from lcengine.kernels import trees as kernels
from lcengine.models.boosting import Boosted
from lcengine.models.forest import Forest
from lcengine.models.trees import Trees
from lcengine.models.xgboost import of

FEATURES, CLASSES = 7, 4


def pixels(count, seed=0, features=FEATURES):
    """Stored-like numbers with ties, of classes that overlap."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-300, 300, (count, features)) * np.float32(0.01)).astype(np.float32)
    score = x[:, :CLASSES] + rng.normal(0, 1, (count, CLASSES))
    return x, score.argmax(axis=1).astype(np.uint8)


@functools.cache
def fitted(kind):
    x, y = pixels(1500)
    weight = 0.5 + np.random.default_rng(1).random(len(y))
    models = {
        "forest": lambda: RandomForestClassifier(20, random_state=0),
        "leaves": lambda: RandomForestClassifier(20, min_samples_leaf=9, random_state=0),
        "stumps": lambda: RandomForestClassifier(5, max_depth=1, random_state=0),
        "roots": lambda: RandomForestClassifier(3, min_samples_leaf=1500, random_state=0),
        "extra": lambda: ExtraTreesClassifier(20, random_state=0),
        "boosting": lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0),
        "two": lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0),
    }
    return models[kind]().fit(x, y > 1 if kind == "two" else y, sample_weight=weight)


def packed(kind):
    return (Boosted if kind in {"boosting", "two"} else Forest).of(fitted(kind))


@functools.cache
def booster(classes=CLASSES):
    xgboost = pytest.importorskip("xgboost")
    x, y = pixels(1500)
    data = xgboost.DMatrix(x, np.minimum(y, classes - 1))
    settings_ = {"objective": "multi:softprob", "num_class": classes, "max_depth": 5, "nthread": 1}
    return xgboost.train(settings_, data, 12)


@pytest.mark.parametrize("kind", ["forest", "leaves", "stumps", "roots", "extra"])
def test_a_forest_says_what_scikit_learn_says_bit_for_bit(kind):
    x, _ = pixels(4001, seed=2)
    expected = fitted(kind).predict_proba(x)
    found = packed(kind).proba(np.ascontiguousarray(x.T))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.T.astype(np.float32))
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-7
    same = found.argmax(axis=0) == fitted(kind).predict(x)
    assert same[clear].all()
    assert kind == "roots" or clear.mean() > 0.9


@pytest.mark.parametrize("kind", ["boosting", "two"])
def test_boosting_is_within_a_millionth_of_scikit_learn(kind):
    x, _ = pixels(4001, seed=2)
    expected = fitted(kind).predict_proba(x).T
    found = packed(kind).proba(np.ascontiguousarray(x.T))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=0), fitted(kind).predict(x))


@pytest.mark.parametrize("classes", [2, CLASSES])
def test_xgboost_is_within_a_millionth_of_its_own(classes):
    xgboost = pytest.importorskip("xgboost")
    x, _ = pixels(4001, seed=2)
    expected = booster(classes).predict(xgboost.DMatrix(x)).T
    found = of(booster(classes)).proba(np.ascontiguousarray(x.T))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    top = np.sort(expected, axis=0)
    clear = top[-1] - top[-2] > 2e-6
    np.testing.assert_array_equal(found.argmax(axis=0)[clear], expected.argmax(axis=0)[clear])
    assert clear.mean() > 0.99


def test_a_number_at_a_threshold_goes_where_scikit_learn_sends_it():
    forest = fitted("forest")
    found = packed("forest")
    tree = forest.estimators_[0].tree_
    inner = tree.children_left >= 0
    near = tree.threshold[inner].astype(np.float32)
    steps = [near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))]
    x = np.repeat(np.concatenate(steps)[:, None], FEATURES, axis=1)
    edge = np.array([np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38], np.float32)
    x = np.concatenate([x, np.repeat(edge[:, None], FEATURES, axis=1)])
    finite = np.isfinite(x).all(axis=1)
    expected = forest.predict_proba(x[finite]).astype(np.float32)
    np.testing.assert_array_equal(found.proba(x[finite].T), expected.T)
    assert np.isfinite(found.proba(x.T)).all()


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["forest", "boosting"]),
    st.lists(st.integers(0, 999), min_size=1, max_size=60),
)
def test_a_pixel_gets_the_same_bits_in_any_company(kind, chosen):
    x, _ = pixels(1000, seed=3)
    whole = packed(kind).proba(np.ascontiguousarray(x.T))
    some = packed(kind).proba(np.ascontiguousarray(x[chosen].T))
    np.testing.assert_array_equal(some, whole[:, chosen])


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_more_pixels_than_a_block_and_no_pixel_at_all(kind):
    x, _ = pixels(1, seed=4)
    found = packed(kind)
    many = np.repeat(x.T, kernels.SCRATCH // 40, axis=1)
    whole = found.proba(many)
    np.testing.assert_array_equal(whole, np.repeat(found.proba(x.T.copy()), many.shape[1], axis=1))
    assert found.proba(many[:, :0]).shape == (CLASSES, 0)


@pytest.mark.parametrize("features", [1, 2, 257])
def test_any_number_of_features_fits_into_the_nodes(features):
    x, y = pixels(300, features=max(features, CLASSES))
    x = x[:, :features]
    forest = RandomForestClassifier(5, random_state=0).fit(x, y)
    expected = forest.predict_proba(x).T.astype(np.float32)
    np.testing.assert_array_equal(Forest.of(forest).proba(x.T), expected)


def test_probabilities_of_logits_are_those_of_float64():
    logits = np.random.default_rng(0).normal(0, 30, (5, 4000))
    logits[0, 0] = 1e5
    expected = np.exp(logits - logits.max(axis=0))
    expected /= expected.sum(axis=0)
    out = np.empty(logits.shape, np.float32)
    kernels.softmax(logits.copy(), out)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_arrays_give_the_same_back(kind):
    x, _ = pixels(500, seed=5)
    arrays, files = packed(kind).state()
    restore = Boosted.restore if kind == "boosting" else lambda a, f: Forest(Trees.restore(a))
    again = restore(dict(arrays), files)
    np.testing.assert_array_equal(again.proba(x.T), packed(kind).proba(x.T))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nodes", lambda a: np.where(a == a[1], a | np.uint64(0x0FFFFFFF), a)),
        ("nodes", lambda a: np.where(a == a[1], a & ~np.uint64(0xFFFFFFF), a)),
        ("nodes", lambda a: a[:-2]),
        ("nodes", lambda a: a.astype(np.int64)),
        ("starts", lambda a: a[:-1]),
        ("starts", lambda a: a[::-1].copy()),
        ("starts", lambda a: np.append(a[:1] - 5, a[1:])),
        ("values", lambda a: a[:2]),
        ("features", lambda a: a - 3),
        ("features", lambda a: a * 0),
    ],
)
def test_trees_that_lead_out_of_their_arrays_are_refused(name, change):
    arrays = dict(packed("forest").state()[0])
    arrays[name] = change(arrays[name])
    with pytest.raises(InputError, match="copy the model again"):
        Trees.restore(arrays)


def test_groups_of_no_class_are_refused():
    arrays, files = packed("boosting").state()
    with pytest.raises(InputError, match="of no classes"):
        Boosted.restore({**arrays, "group": arrays["group"] + 1}, files)


def test_other_features_than_in_training_are_refused():
    with pytest.raises(InputError, match="have 3 features, the model was trained on 7"):
        packed("forest").proba(np.zeros((3, 5), np.float32))


def test_a_booster_of_another_objective_is_refused():
    xgboost = pytest.importorskip("xgboost")
    x, y = pixels(100)
    model = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(x, y), 1)
    with pytest.raises(InputError, match="expected multi:softprob"):
        of(model)
