"""Temperatures: those that made probabilities wrong are found, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_samples import store, task
from scipy.special import softmax
from sklearn.metrics import log_loss as sklearn_log_loss

from lcengine import models
from lcengine.errors import InputError
from lcengine.models import Training
from lcengine.models.calibration import Tempered, best_temperature, log_loss, tempered


def drawn(count=20_000, seed=0):
    """Logits, and classes drawn with the probabilities that they state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (4, count))
    sums = softmax(logits, axis=0).cumsum(axis=0)
    return logits, (rng.random(count) > sums).sum(axis=0).clip(0, 3).astype(np.uint8)


@pytest.mark.parametrize("wrong", [0.4, 1.0, 3.0])
def test_the_temperature_that_is_wrong_is_found(wrong):
    logits, y = drawn()
    proba = softmax(logits / wrong, axis=0).astype(np.float32)
    found = best_temperature(proba, y)
    assert found == pytest.approx(1 / wrong, rel=0.05)
    least = log_loss(tempered(proba, found), y)
    for other in (0.9, 0.97, 1.03, 1.1):
        assert log_loss(tempered(proba, found * other), y) > least


def test_log_loss_is_scikit_learns():
    logits, y = drawn(500)
    proba = softmax(logits, axis=0)
    assert log_loss(proba.astype(np.float32), y) == pytest.approx(
        sklearn_log_loss(y, proba.T, labels=range(4)), rel=1e-5
    )
    assert np.isfinite(log_loss(np.eye(4, dtype=np.float32)[:, [0, 1]], np.array([1, 1])))


def test_calibration_comes_from_validation_and_keeps_classes(tmp_path):
    opened = store(tmp_path / "s.zarr", noise=900)
    kind, said = models.kind("logistic"), []
    one = kind.fit(opened, kind.options(), Training())
    two = kind.fit(opened, kind.options(), Training(calibrate=True, say=said.append))
    facts = two.spec.training["calibration"]
    assert isinstance(two.estimator, Tempered)
    assert two.estimator.temperature == facts["temperature"] != 1
    assert facts["log_loss"][1] <= facts["log_loss"][0]
    assert sum(facts["reliability"][0]["counts"]) < opened.table["labelled"].sum() / 2
    assert any("temperature" in text for text in said)
    _, inputs, valid, _ = task(one)
    plain, calibrated = one.predict(inputs, valid), two.predict(inputs, valid)
    np.testing.assert_array_equal(plain.argmax(axis=1), calibrated.argmax(axis=1))
    assert not np.array_equal(plain, calibrated)


def test_without_validation_there_is_nothing_to_calibrate_with(tmp_path):
    opened = store(tmp_path / "s.zarr", 3)
    kind = models.kind("logistic")
    with pytest.raises(InputError, match="no validation pixels"):
        kind.fit(opened, kind.options(), Training(calibrate=True))
    said = []
    mlp = models.kind("mlp")
    found = mlp.fit(opened, mlp.options(hidden=(4,), epochs=2), Training(say=said.append))
    assert "no validation pixels: all 2 epochs are trained" in said
    assert found.spec.training["epochs"] == 2
