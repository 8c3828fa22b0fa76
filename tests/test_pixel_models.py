"""Pixel models through the contract, and held against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_samples import S2, coloured, flat, store, task
from predictor_contract import PredictorContract
from pydantic import ValidationError
from sample_stores import write_samples

from lcengine import models, samples
from lcengine.errors import InputError
from lcengine.inputs import observed
from lcengine.models import Training

SMALL = {"logistic": {}, "mlp": {"hidden": (16, 8), "epochs": 6, "batch": 64}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return store(tmp_path_factory.mktemp("samples") / "s.zarr")


def fitted(opened, kind, training=None, **options):
    found = models.kind(kind)
    chosen = found.options(**(options or SMALL[kind]))
    return found.fit(opened, chosen, training or Training())


class TestLogistic(PredictorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, opened):
        return task(fitted(opened, "logistic"))


class TestCalibratedMlp(PredictorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, opened):
        return task(fitted(opened, "mlp", Training(calibrate=True)))


def near(predictor, expected):
    """Probabilities of a model beside scikit-learn's of the same pixels, within 1e-5."""
    arrays = coloured(4, seed=9)
    del arrays["label"]
    valid = observed((S2,), arrays)
    found = np.moveaxis(predictor.predict(arrays, valid), 1, -1)[valid][:, [0, 1, 3]]
    x = np.moveaxis(arrays["s2"], 1, -1)[valid].astype(np.float32) * np.float32(S2.scale)
    wanted = expected(x)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    first, second = np.sort(wanted, axis=1)[:, :-3:-1].T
    clear = first - second > 1e-5
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], wanted.argmax(axis=1)[clear])


def test_logistic_is_scikit_learns(opened):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = flat(opened)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y)
    found = fitted(opened, "logistic")
    assert found.spec.training["pixels"]["class 1"] == (y == 0).sum()
    estimator = found.estimator
    weights = estimator.flat[: 3 * 3].reshape(3, 3)
    np.testing.assert_allclose(weights, plain[-1].coef_, atol=0.05)  # both stop near the minimum

    def of_ours(values):
        plain[-1].coef_, plain[-1].intercept_ = weights, estimator.flat[9:]
        return plain.predict_proba(values)

    near(found, of_ours)


def test_an_mlp_predicts_as_scikit_learns(opened, monkeypatch):
    from lcengine.models import mlp

    made = []

    def kept(options, seed, original=mlp._classifier):
        made.append(original(options, seed))
        return made[-1]

    monkeypatch.setattr(mlp, "_classifier", kept)
    found = fitted(opened, "mlp", hidden=(16, 8), epochs=3, patience=3, batch=64)
    assert found.spec.training["epochs"] == 3
    losses = found.spec.training["validation_loss"]
    assert losses[-1] == min(losses)  # the last weights are those that were kept
    mean, gain = found.estimator.scaling
    near(found, lambda x: made[0].predict_proba((x - mean) * gain))


def test_two_classes_are_the_log_odds_of_the_second(tmp_path):
    arrays = coloured(16)
    arrays["label"][arrays["label"] == 3] = 255
    opened = samples.open(write_samples(tmp_path / "two.zarr", arrays, (S2,)))
    for kind in SMALL:
        predictor, inputs, valid, truth = task(fitted(opened, kind))
        found = predictor.predict(inputs, valid)
        known = truth < 2
        assert (found.argmax(axis=1) == truth)[known].mean() > 0.9
        assert not found[:, 2:].any()


def test_the_seed_decides_everything(opened):
    arrays = task(None)[1:3]
    one, two, other = (
        fitted(opened, "mlp", Training(seed=seed, threads=1)).predict(*arrays) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_early_stopping_keeps_the_best_epoch(opened):
    from lcengine.models.mlp import mean_loss
    from lcengine.models.stream import PixelStream

    found = fitted(opened, "mlp", hidden=(32,), epochs=40, patience=2, learning_rate=0.1, batch=64)
    losses = found.spec.training["validation_loss"]
    assert len(losses) == found.spec.training["epochs"] < 40
    assert np.argmin(losses) == len(losses) - 3
    held_out = PixelStream(opened, "val", found.features, chosen=found.present)
    assert mean_loss(found.estimator, held_out) == pytest.approx(min(losses), abs=1e-9)


def test_class_weights_help_the_rare_class(tmp_path):
    opened = store(tmp_path / "noisy.zarr", noise=900)
    predictor, inputs, valid, _ = task(fitted(opened, "logistic"))
    plain = predictor.predict(inputs, valid)[:, 3].sum()
    for weight in ("balanced", {"class 4": 5.0}):
        heavy = fitted(opened, "logistic", Training(class_weight=weight))
        assert heavy.predict(inputs, valid)[:, 3].sum() > 1.2 * plain
        assert heavy.spec.training["class_weight"] == weight


def test_it_says_which_classes_it_cannot_know(opened, tmp_path):
    said = []
    fitted(opened, "logistic", Training(say=said.append))
    assert said == ["no training pixels of class 3: their probability is 0"]
    arrays = coloured(8)
    arrays["label"] = np.where(arrays["label"] == 0, 0, 255).astype(np.uint8)
    one = samples.open(write_samples(tmp_path / "one.zarr", arrays, (S2,)))
    with pytest.raises(InputError, match=r"all of \[.class 1.\], expected two classes"):
        fitted(one, "logistic")


def test_a_draw_is_said_and_kept_in_the_description(opened):
    said = []
    found = fitted(opened, "logistic", Training(memory=100_000, say=said.append))
    assert any("labelled train pixels" in text and "drawn" in text for text in said)
    assert sum(found.spec.training["drawn"].values()) < sum(found.spec.training["pixels"].values())


def test_options_that_are_none_are_refused():
    for kind, wrong in (("logistic", {"C": 1}), ("mlp", {"hidden": ()}), ("mlp", {"epochs": 0})):
        with pytest.raises(ValidationError):
            models.kind(kind).options(**wrong)


def test_a_network_of_other_sizes_than_its_weights_is_refused(opened):
    found = fitted(opened, "logistic")
    arrays, files = found.state()
    restore = models.kind("logistic").restore
    for name, value in (
        ("sizes", np.array([3, 400])),
        ("sizes", np.array([3, -3])),
        ("flat", arrays["flat"][1:]),
        ("scaling", arrays["scaling"][:, 1:]),
        ("classes", np.array([0, 1, 9])),
        ("classes", np.array([0, 0, 1])),
        ("temperature", np.array([0.0])),
    ):
        with pytest.raises(InputError, match="copy the model again"):
            restore(found.spec, {**arrays, name: value}, files)
    with pytest.raises(InputError, match="'flat'"):
        restore(found.spec, {n: a for n, a in arrays.items() if n != "flat"}, files)
