"""Whether probabilities mean what they say, and the temperature that makes them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels.dense import temper
from lcengine.models.predictor import Files, State

if TYPE_CHECKING:
    from lcengine.models.pixels import Estimator

FLOAT = npt.NDArray[np.float32]
BYTES = npt.NDArray[np.uint8]

BINS: Final = 15
"""As Guo et al. (2017) have it."""
COLDEST, HOTTEST = 0.05, 20.0
LEAST: Final = 1e-7
"""Probability below which the right class loses no more: forests give exact zeros."""

_NAME: Final = "temperature"


@dataclass(frozen=True)
class Reliability:
    """Reliability curve: pixels by the probability of the class that they were given.

    One entry per bin of equal width from 0 to 1. `pixels`: their weights' sum; `confidence`: mean
    probability; `accuracy`: share that is right; both None in a bin without pixels.
    """

    pixels: tuple[float, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @classmethod
    def of(
        cls, proba: FLOAT, y: BYTES, weight: npt.ArrayLike = 1.0, bins: int = BINS
    ) -> Reliability:
        """Of probabilities (class, pixel) and places of the right classes (pixel)."""
        best = proba.argmax(axis=0)
        sure = proba[best, np.arange(len(y))].astype(np.float64)
        weights = np.broadcast_to(np.asarray(weight, np.float64), y.shape)
        # A bin has its upper end, and the first one 0 too.
        place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
        total, sums, right = (
            np.bincount(place, weights * values, bins) for values in (1.0, sure, best == y)
        )
        return cls(tuple(map(float, total)), _shares(sums, total), _shares(right, total))

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of accuracy and confidence, by pixels.

        Naeini, Cooper & Hauskrecht (2015, AAAI).
        """
        gaps = (
            pixels * abs(accuracy - confidence)
            for pixels, confidence, accuracy in zip(
                self.pixels, self.confidence, self.accuracy, strict=True
            )
            if confidence is not None and accuracy is not None
        )
        return sum(gaps) / sum(self.pixels)

    def to_json(self) -> dict[str, Any]:
        """JSON values, with `ece`."""
        return {**{name: list(v) for name, v in asdict(self).items()}, "ece": self.ece}


def _shares(
    sums: npt.NDArray[np.float64], total: npt.NDArray[np.float64]
) -> tuple[float | None, ...]:
    return tuple(float(s / t) if t else None for s, t in zip(sums, total, strict=True))


@dataclass(frozen=True, eq=False)
class Tempered:
    """An estimator whose probabilities are p^(1/T), adding up to 1 again; its classes stay."""

    estimator: Estimator
    temperature: float

    def proba(self, features: FLOAT) -> FLOAT:
        """(class, pixel) of (feature, pixel)."""
        return tempered_shares(self.estimator.proba(features), self.temperature)

    def state(self) -> tuple[State, Files]:
        """The estimator's arrays, and the temperature."""
        arrays, files = self.estimator.state()
        return {**arrays, _NAME: np.array([self.temperature])}, files


def tempered(estimator: Estimator, arrays: State) -> Estimator:
    """An estimator with the temperature that `Tempered.state` left, if any."""
    if _NAME not in arrays:
        return estimator
    found = float(arrays[_NAME].reshape(-1)[0])
    if not COLDEST <= found <= HOTTEST:
        raise InputError(
            f"the model's temperature is {found}, expected {COLDEST} to {HOTTEST}; copy the model "
            "again"
        )
    return Tempered(estimator, found)


def best_temperature(proba: FLOAT, y: BYTES, weight: npt.ArrayLike = 1.0) -> float:
    """The temperature with the least log loss of probabilities (class, pixel).

    Temperature scaling: Guo, Pleiss, Sun & Weinberger (2017, ICML). The loss has one minimum in
    1/T; `HOTTEST` or `COLDEST` where it lies beyond.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 (for fitting alone)

    weights = np.broadcast_to(np.asarray(weight, np.float64), y.shape)
    ends = (math.log(COLDEST), math.log(HOTTEST))

    def loss(log_temperature: float) -> float:
        return log_loss(tempered_shares(proba, math.exp(log_temperature)), y, weights)

    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-4})
    return float(min(max(math.exp(found.x), COLDEST), HOTTEST))


def tempered_shares(proba: FLOAT, temperature: float) -> FLOAT:
    """`proba` (class, pixel) at a temperature."""
    out = np.empty(proba.shape, np.float32)
    temper(np.ascontiguousarray(proba, np.float32), temperature, out)
    return out


def log_loss(proba: FLOAT, y: BYTES, weight: npt.ArrayLike = 1.0) -> float:
    """Weighted mean of -ln of the right class's probability (class, pixel), none below `LEAST`."""
    right = proba[y, np.arange(len(y))].astype(np.float64)
    weights = np.broadcast_to(np.asarray(weight, np.float64), y.shape)
    return float(-np.average(np.log(np.maximum(right, LEAST)), weights=weights))
