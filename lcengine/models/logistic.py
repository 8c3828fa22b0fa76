"""Logistic regression of standardised features: the plain model that others are held against."""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from lcengine.models.dense import Dense, scaling_of, standardise
from lcengine.models.pixels import PixelOptions, pixel_kind
from lcengine.models.predictor import Training
from lcengine.models.stream import PixelStream


class LogisticOptions(PixelOptions):
    """Options of scikit-learn's `LogisticRegression`.

    `c`: inverse of the strength of the L2 penalty. `iterations`: of L-BFGS, at most.
    """

    c: float = Field(1.0, gt=0, allow_inf_nan=False)
    iterations: int = Field(500, ge=1)


def fit_logistic(pixels: PixelStream, options: LogisticOptions, training: Training) -> Dense:
    """Multinomial logistic regression (L-BFGS) of the pixels that fit into the memory."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 (for fitting alone)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (for fitting alone)
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 (comes with scikit-learn)

    drawn = pixels.drawn(copies=1.5, beside=24 * len(pixels.present))
    scaling = scaling_of(
        drawn.x.mean(axis=0, dtype=np.float64),
        # By feature: NumPy would hold all distances from the mean as float64.
        np.array([values.var(dtype=np.float64) for values in drawn.x.T]),
    )
    standardise(drawn.x, scaling)
    model = LogisticRegression(C=options.c, max_iter=options.iterations)
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(drawn.x, drawn.y, drawn.weight)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        training.say(
            f"logistic regression did not converge in {options.iterations} iterations; give more "
            "iterations, or a smaller c"
        )
    return Dense.of(scaling, [model.coef_.T], [model.intercept_])


KIND = pixel_kind("logistic", LogisticOptions, fit_logistic, Dense.restore)
