"""The temperature of a network, from labelled pixels of the validation split."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lcengine.inputs import observed
from lcengine.legends import IGNORE
from lcengine.metrics import Reliability
from lcengine.models.calibration import best_temperature, log_loss, tempered
from lcengine.models.nn.predictor import NetworkPredictor
from lcengine.models.predictor import Execution, Training
from lcengine.samples.sampleset import SampleSet
from lcengine.samples.source import LABEL

STEP: Final = 8
"""Patches that are predicted at once."""
MOST: Final = 2_000_000
"""Pixels that one number is fitted to, at most, drawn at random: more change it no more."""


def calibrate(
    predictor: NetworkPredictor, samples: SampleSet, split: str, training: Training
) -> dict[str, Any]:
    """Set the predictor's temperature by the pixels of a split; what is told of it."""
    before, y = _drawn(predictor, samples, split, training)
    temperature = best_temperature(before, y)
    after = tempered(before, temperature)
    curves = [Reliability.of(shares, y) for shares in (before, after)]
    training.say(
        f"temperature {temperature:.3f}: expected calibration error {curves[0].error:.4f} before, "
        f"{curves[1].error:.4f} after, on validation pixels"
    )
    predictor.temperature = temperature
    return {
        "temperature": temperature,
        "log_loss": [log_loss(shares, y) for shares in (before, after)],
        "reliability": [curve.to_json() for curve in curves],
    }


def _drawn(
    predictor: NetworkPredictor, samples: SampleSet, split: str, training: Training
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Probabilities (class, pixel) of labelled pixels, and their legend indices."""
    members = samples.split(split)
    classes = len(samples.legend.classes)
    # Before and after, and float64 of the loss.
    most = min(MOST, max(1, training.memory // (32 * classes)))
    labelled = int(samples.table["labelled"].to_numpy()[members].sum())
    rng = np.random.default_rng(training.seed)
    how = Execution(batch=STEP, threads=training.threads)
    proba, y = [], []
    for start in range(0, len(members), STEP):
        arrays = samples.read(members[start : start + STEP])
        label = arrays.pop(LABEL)
        valid = observed(samples.inputs, arrays)
        shares = next(iter(predictor.run([(arrays, valid)], how)))
        kept = valid & (label != IGNORE)
        if labelled > most:
            kept &= rng.random(kept.shape) < most / labelled
        proba.append(np.moveaxis(shares, 1, 0)[:, kept])
        y.append(label[kept])
    return np.concatenate(proba, axis=1), np.concatenate(y)
