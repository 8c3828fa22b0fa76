"""Forests, boosting and XGBoost fitted to pixels: the libraries' own models, in bounded memory."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from pixel_samples import S2, coloured, flat, store, task
from predictor_contract import PredictorContract
from pydantic import ValidationError
from sample_stores import sample_table, write_samples
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from lcengine import models, samples
from lcengine.errors import InputError
from lcengine.features import Features
from lcengine.models import Training, forest, xgboost
from lcengine.models.stream import Pixels, PixelStream

ONE = Training(threads=1)  # threads of OpenMP that wait for each other are slow on a busy machine
BATCHES = 2**20
"""Bytes of memory that lead to several batches."""
SMALL = {"forest": {"trees": 12}, "boosting": {"rounds": 12}, "xgboost": {"rounds": 12}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return store(tmp_path_factory.mktemp("samples") / "s.zarr")


@pytest.fixture(scope="module")
def all_train(tmp_path_factory):
    """Samples without a validation split."""
    arrays = coloured(12)
    table = sample_table(arrays, splits=("train",))
    path = tmp_path_factory.mktemp("samples") / "t.zarr"
    return samples.open(write_samples(path, arrays, (S2,), table=table))


def fitted(opened, kind, training=None, **options):
    if kind == "xgboost":
        pytest.importorskip("xgboost")
    found = models.kind(kind)
    chosen = found.options(**(SMALL[kind] | options))
    return found.fit(opened, chosen, training or ONE)


class TestForest(PredictorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, opened):
        return task(fitted(opened, "forest"))


class TestBoosting(PredictorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, opened):
        return task(fitted(opened, "boosting"))


class TestXGBoost(PredictorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, opened):
        return task(fitted(opened, "xgboost"))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_forest_is_scikit_learns_of_that_seed(opened, threads):
    x, y = flat(opened)
    plain = RandomForestClassifier(12, random_state=5).fit(x, y)
    found = fitted(opened, "forest", Training(seed=5, threads=threads))
    expected = plain.predict_proba(x).T.astype(np.float32)
    np.testing.assert_array_equal(found.estimator.proba(x.T), expected)


def test_weights_and_options_reach_the_trees(opened):
    x, y = flat(opened)
    weight = {0: 1.0, 1: 3.0, 3: 1.0}
    plain = RandomForestClassifier(
        12, random_state=0, max_depth=3, min_samples_leaf=4, max_features=2
    ).fit(x, y, sample_weight=np.array([weight[int(i)] for i in y]))
    training = Training(class_weight={"class 2": 3.0})
    found = fitted(opened, "forest", training, max_depth=3, min_leaf=4, max_features=2)
    expected = plain.predict_proba(x).T.astype(np.float32)
    np.testing.assert_array_equal(found.estimator.proba(x.T), expected)


def test_extra_trees_are_others(opened):
    one, two = (fitted(opened, "forest", splits=name).estimator for name in ("best", "random"))
    assert one.trees.nodes.size != two.trees.nodes.size


def test_boosting_is_scikit_learns(all_train):
    x, y = flat(all_train)
    plain = HistGradientBoostingClassifier(
        max_iter=12, early_stopping=False, random_state=0, max_leaf_nodes=9, l2_regularization=1
    ).fit(x, y)
    found = fitted(all_train, "boosting", max_leaves=9, l2=1)
    np.testing.assert_allclose(found.estimator.proba(x.T), plain.predict_proba(x).T, atol=1e-6)


@pytest.mark.parametrize("kind", ["boosting", "xgboost"])
def test_validation_pixels_end_boosting(opened, all_train, kind):
    classes = 3
    many = fitted(all_train, kind, rounds=60, learning_rate=0.5, patience=2)
    few = fitted(opened, kind, rounds=60, learning_rate=0.5, patience=2)
    assert len(many.estimator.group) == 60 * classes
    assert len(few.estimator.group) < 30 * classes


def test_xgboost_of_batches_is_as_good_as_of_all_at_once(opened):
    one = fitted(opened, "xgboost", replace(ONE, memory=2**30))
    many = fitted(opened, "xgboost", replace(ONE, memory=BATCHES))
    x, y = flat(opened)
    stream = PixelStream(opened, "train", Features.parse((), opened.inputs), memory=BATCHES)
    assert len(stream.parts) > 1
    places = np.searchsorted([0, 1, 3], y)
    for found in (one, many):
        assert (found.estimator.proba(x.T).argmax(axis=0) == places).mean() > 0.9
    again = fitted(opened, "xgboost", replace(ONE, memory=BATCHES))
    np.testing.assert_array_equal(again.estimator.proba(x.T), many.estimator.proba(x.T))


def test_xgboost_takes_as_many_pixels_as_the_memory_has_room_for(opened):
    said = []
    fitted(opened, "xgboost", replace(ONE, memory=BATCHES, say=said.append), rounds=1)
    assert not any("drawn" in text for text in said)
    memory = 200_000
    found = fitted(opened, "xgboost", replace(ONE, memory=memory, say=said.append))
    assert any("drawn" in text for text in said)
    drawn, pixels = (sum(found.spec.training[name].values()) for name in ("drawn", "pixels"))
    row = xgboost.BESIDE + 3 * xgboost.PER_CLASS
    assert drawn * row <= memory < pixels * row
    x, y = flat(opened)
    places = np.searchsorted([0, 1, 3], y)
    assert (found.estimator.proba(x.T).argmax(axis=0) == places).mean() > 0.9


def test_its_file_is_the_same_model_for_xgboost_itself(opened, tmp_path):
    library = pytest.importorskip("xgboost")
    found = fitted(opened, "xgboost")
    models.save(found, tmp_path / "model")
    booster = library.Booster(model_file=tmp_path / "model" / xgboost.FILE)
    x, _ = flat(opened)
    expected = booster.predict(library.DMatrix(x)).T
    np.testing.assert_allclose(found.estimator.proba(x.T), expected, atol=1e-6)


def test_a_batch_without_pixels_is_passed_over():
    pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.uint8)
    ones = np.ones(30, np.float32)
    whole = [Pixels(x[:30], y[:30], ones), Pixels(x[30:], y[30:], ones)]
    gap = [Pixels(x[:0], y[:0], ones[:0]), whole[0], Pixels(x[:0], y[:0], ones[:0]), whole[1]]
    options = xgboost.XGBoostOptions(rounds=3)
    one, two = (xgboost.fit(given, None, 2, options, ONE) for given in (whole, gap))
    np.testing.assert_array_equal(one.proba(x.T), two.proba(x.T))


def test_an_error_among_the_batches_comes_through():
    pytest.importorskip("xgboost")

    class Broken:
        def __iter__(self):
            raise InputError("the samples are gone")

    with pytest.raises(InputError, match="the samples are gone"):
        xgboost.fit(Broken(), None, 2, xgboost.XGBoostOptions(), ONE)


def test_without_xgboost_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(InputError, match=r"pip install 'lcengine\[xgboost\]'"):
        xgboost.fit([], None, 2, xgboost.XGBoostOptions(), ONE)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_unknown_and_impossible_options_are_refused(kind):
    options = models.kind(kind).options
    for wrong in ({"tree": 5}, {"max_depth": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            options(**wrong)


@pytest.mark.parametrize("share", [0, -1, 2.5, 0.0, True, float("nan"), "half"])
def test_a_share_of_features_that_is_none_is_refused(share):
    with pytest.raises(ValidationError, match="max_features"):
        forest.ForestOptions(max_features=share)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("boosting", "learning_rate"),
        ("boosting", "l2"),
        ("xgboost", "learning_rate"),
        ("xgboost", "min_weight"),
        ("mlp", "learning_rate"),
    ],
)
def test_numbers_without_end_are_refused(kind, name):
    with pytest.raises(ValidationError, match=name):
        models.kind(kind).options(**{name: float("inf")})


def test_a_forest_that_does_not_fit_into_the_memory_is_of_fewer_pixels(opened):
    said = []
    found = fitted(opened, "forest", Training(memory=400_000, say=said.append))
    assert any("drawn" in text for text in said)
    drawn = sum(found.spec.training["drawn"].values())
    assert drawn < sum(found.spec.training["pixels"].values())
    assert found.estimator.trees.nodes.nbytes < 400_000


def test_larger_leaves_leave_room_for_more_pixels():
    small, large = (forest.ForestOptions(min_leaf=leaf) for leaf in (1, 10))
    assert forest.beside(small, 2) > 5 * forest.beside(large, 2)
