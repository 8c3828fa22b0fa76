"""Models that judge every pixel by itself: features of its bands, then an estimator."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lcengine.models.predictor import Files, State

FLOAT = npt.NDArray[np.float32]


class Estimator(Protocol):
    """Probabilities from features, on one thread, the same bits for a pixel in any company."""

    def proba(self, features: FLOAT) -> FLOAT:
        """(feature, pixel) float32, all finite -> (class, pixel) float32, adding up to 1."""
        ...

    def state(self) -> tuple[State, Files]:
        """What `Kind.restore` makes it of again."""
        ...
