"""Permutation importance beside scikit-learn's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pixel_samples import flat, store
from sample_stores import S1
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance
from sklearn.metrics import f1_score

from lcengine import models
from lcengine.errors import InputError
from lcengine.legends import Entry, Legend
from lcengine.metrics import Accuracy
from lcengine.models import Training
from lcengine.models.importance import importance


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return store(tmp_path_factory.mktemp("importance") / "s.zarr", noise=600)


@pytest.fixture(scope="module")
def predictor(opened):
    kind = models.kind("logistic")
    return kind.fit(opened, kind.options(), Training())


class AsScikitLearn(ClassifierMixin, BaseEstimator):
    """Our model behind scikit-learn's interface."""

    def __init__(self, predictor=None):
        self.predictor = predictor

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        proba = self.predictor.estimator.proba(np.ascontiguousarray(x.T))
        return np.array(self.predictor.present)[proba.argmax(axis=0)]


def test_it_is_scikit_learns_permutation_importance(opened, predictor):
    x, y = flat(opened, "val")
    ours = importance(predictor, opened, repeats=20)
    wrapped = AsScikitLearn(predictor).fit(x, y)
    theirs = permutation_importance(wrapped, x, y, scoring="f1_macro", n_repeats=20, random_state=1)
    assert ours.pixels == len(y)
    assert ours.f1 == pytest.approx(f1_score(y, wrapped.predict(x), average="macro"))
    found = dict(zip(ours.names, ours.mean, strict=True))
    bands = ("red", "nir", "swir16")
    for band, mean, std in zip(bands, theirs.importances_mean, theirs.importances_std, strict=True):
        assert abs(found[band] - mean) < 4 * std / np.sqrt(20) + 1e-3
    assert list(ours.mean) == sorted(ours.mean, reverse=True)
    again = importance(predictor, opened, repeats=20)
    np.testing.assert_array_equal(again.drops, ours.drops)


def test_features_of_a_name_are_shuffled_together(opened, predictor):
    class Named:
        names = ("nir:p10", "nir:p90", "red@2018-04")
        compute = predictor.features.compute

    named = replace(predictor, features=Named())
    assert set(importance(named, opened).names) == {"nir", "red"}
    assert set(importance(named, opened, grouped=False).names) == set(Named.names)
    # Both together are worth at least the better one.
    one = importance(named, opened, grouped=False)
    both = importance(named, opened)
    single = max(d for n, d in zip(one.names, one.mean, strict=True) if n.startswith("nir"))
    assert both.mean[both.names.index("nir")] > single - 0.01


def test_macro_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    y, found = rng.integers(0, 3, (2, 400))
    classes = tuple(Entry(k, f"class {k}", "#000000") for k in range(4))
    counts = np.zeros((4, 4), np.int64)
    np.add.at(counts, (y, found), 1)
    macro = Accuracy.of(counts, Legend("made", "Made up", classes, "made up")).macro
    assert macro["f1"] == pytest.approx(f1_score(y, found, average="macro"))


def test_table_json_and_picture(opened, predictor, tmp_path):
    found = importance(predictor, opened, repeats=2)
    told = json.loads(json.dumps(found.to_json()))
    assert [entry["name"] for entry in told["features"]] == list(found.names)
    assert found.table().row_count == 3
    found.picture(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_other_samples_and_empty_splits_are_refused(opened, predictor):
    with pytest.raises(InputError, match="no split 'test'"):
        importance(predictor, opened, split="test")
    with pytest.raises(InputError, match="repeats is 0"):
        importance(predictor, opened, repeats=0)
    with pytest.raises(InputError, match="the model s2: red, nir, swir16"):
        importance(predictor, replace(opened, inputs=(S1,)))
