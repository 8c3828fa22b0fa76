"""Multilayer perceptrons, trained on all labelled pixels however many: window after window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lcengine.models.calibration import log_loss
from lcengine.models.dense import Dense, scaling_of, standardise
from lcengine.models.pixels import PixelOptions, pixel_kind
from lcengine.models.predictor import Training
from lcengine.models.stream import PixelStream

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

FLOAT = npt.NDArray[np.float32]


class MlpOptions(PixelOptions):
    """Options of scikit-learn's `MLPClassifier` (ReLU, Adam).

    `hidden`: channels of the hidden layers. `epochs`: passes over the pixels, at most; training
    stops when the loss on the validation split has not fallen for `patience` of them, and the best
    epoch's weights are kept. `batch`: pixels per step. `l2`: strength of the penalty.
    """

    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((64, 64), min_length=1)
    epochs: int = Field(30, ge=1)
    patience: int = Field(5, ge=1)
    batch: int = Field(512, ge=1)
    learning_rate: float = Field(1e-3, gt=0, le=1, allow_inf_nan=False)
    l2: float = Field(1e-4, ge=0, allow_inf_nan=False)


def fit_mlp(pixels: PixelStream, options: MlpOptions, training: Training) -> Dense:
    """An MLP by `partial_fit` over shuffled windows of the pixels (Adam: Kingma & Ba 2015)."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 (comes with scikit-learn)

    held_out = pixels.other("val")
    if held_out is None:
        training.say(f"no validation pixels: all {options.epochs} epochs are trained")
    model = _classifier(options, pixels.seed)
    scaling = moments(pixels)
    losses: list[float] = []
    for epoch in range(options.epochs):
        with threadpool_limits(1):  # products this small cost threads more than they gain
            _epoch(model, pixels, epoch, scaling, options.batch)
        now = Dense.of(scaling, model.coefs_, model.intercepts_)
        if held_out is None:
            best = now
            continue
        losses.append(mean_loss(now, held_out))
        last = int(np.argmin(losses))
        if last == epoch:
            best = now
        if epoch - last >= options.patience:
            break
    pixels.notes["epochs"] = epoch + 1
    if losses:
        pixels.notes["validation_loss"] = losses
    return best


def moments(pixels: PixelStream) -> FLOAT:
    """(2, feature) mean and 1 / std of all pixels, in one pass.

    Batches are merged as Chan, Golub & LeVeque (1983, The American Statistician) merge samples.
    """
    count = 0
    mean = squares = np.zeros(len(pixels.features.names))
    for batch in pixels:
        size = len(batch.y)
        if not size:
            continue
        own = batch.x.mean(axis=0, dtype=np.float64)
        spread = batch.x.var(axis=0, dtype=np.float64) * size
        away = own - mean
        squares = squares + spread + away**2 * (count * size / (count + size))
        mean = mean + away * (size / (count + size))
        count += size
    return scaling_of(mean, squares / count)


def mean_loss(estimator: Dense, pixels: PixelStream) -> float:
    """Log loss of all pixels."""
    total, count = 0.0, 0
    for batch in pixels:
        if len(batch.y):
            proba = estimator.proba(np.ascontiguousarray(batch.x.T))
            total += len(batch.y) * log_loss(proba, batch.y)
            count += len(batch.y)
    return total / count


def _classifier(options: MlpOptions, seed: int) -> MLPClassifier:
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 (for fitting alone)

    return MLPClassifier(
        options.hidden,
        alpha=options.l2,
        learning_rate_init=options.learning_rate,
        # A generator, not a number: that would be the same order in every window.
        random_state=np.random.RandomState(seed % 2**32),
    )


def _epoch(
    model: MLPClassifier, pixels: PixelStream, epoch: int, scaling: FLOAT, batch: int
) -> None:
    """One pass over all pixels."""
    classes = np.arange(len(pixels.present))
    for window in pixels.windows(epoch):
        standardise(window.x, scaling)
        model.set_params(batch_size=min(batch, len(window.y)))
        model.partial_fit(window.x, window.y, window.weight, classes=classes)


KIND = pixel_kind("mlp", MlpOptions, fit_mlp, Dense.restore)
