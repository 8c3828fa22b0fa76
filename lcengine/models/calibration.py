"""The temperature that makes probabilities mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels.dense import temper
from lcengine.models.predictor import Files, State, array

if TYPE_CHECKING:
    from lcengine.models.pixels import Estimator

FLOAT = npt.NDArray[np.float32]
BYTES = npt.NDArray[np.uint8]

COLDEST, HOTTEST = 0.05, 20.0
LEAST: Final = 1e-7
"""Probability below which the right class loses no more: forests give exact zeros."""

TEMPERATURE: Final = "temperature"
"""Name of its array in a model."""


@dataclass(frozen=True, eq=False)
class Tempered:
    """An estimator whose probabilities are p^(1/T), adding up to 1 again; its classes stay."""

    estimator: Estimator
    temperature: float

    def proba(self, features: FLOAT) -> FLOAT:
        """(class, pixel) of (feature, pixel)."""
        return tempered(self.estimator.proba(features), self.temperature)

    def state(self) -> tuple[State, Files]:
        """The estimator's arrays, and the temperature."""
        arrays, files = self.estimator.state()
        return {**arrays, TEMPERATURE: np.array([self.temperature])}, files


def restored(estimator: Estimator, arrays: State) -> Estimator:
    """An estimator with the temperature that `Tempered.state` left, if any."""
    return Tempered(estimator, temperature_of(arrays)) if TEMPERATURE in arrays else estimator


def temperature_of(arrays: State) -> float:
    """The temperature among a model's arrays; `InputError` for what cannot be one."""
    found = array(arrays, TEMPERATURE, np.float64, 1).tolist()
    if len(found) != 1 or not COLDEST <= found[0] <= HOTTEST:
        raise InputError(
            f"the model's temperature is {found}, expected one of {COLDEST} to {HOTTEST}; copy the "
            "model again"
        )
    return float(found[0])


def tempered(proba: FLOAT, temperature: float) -> FLOAT:
    """Probabilities (class, pixel) at a temperature."""
    out = np.empty(proba.shape, np.float32)
    temper(np.ascontiguousarray(proba, np.float32), temperature, out)
    return out


def best_temperature(proba: FLOAT, y: BYTES) -> float:
    """The temperature with the least log loss of probabilities (class, pixel).

    Temperature scaling: Guo, Pleiss, Sun & Weinberger (2017, ICML). The loss has one minimum in
    1/T; `HOTTEST` or `COLDEST` where it lies beyond.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 (for fitting alone)

    ends = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(
        lambda logarithm: log_loss(tempered(proba, math.exp(logarithm)), y),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-4},
    )
    return min(max(math.exp(found.x), COLDEST), HOTTEST)


def log_loss(proba: FLOAT, y: BYTES) -> float:
    """Mean of -ln of the right class's probability (class, pixel), none below `LEAST`."""
    right = proba[y, np.arange(len(y))].astype(np.float64)
    return float(-np.log(np.maximum(right, LEAST)).mean())
