"""Dense networks as estimators of pixels: what logistic regression and MLP become."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels.dense import network
from lcengine.models.predictor import Files, State, array

FLOAT = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dense:
    """Layers of standardised features; an `Estimator`.

    `scaling`: (2, feature) mean and 1 / std. `sizes`: channels, features first and classes last.
    `flat`: of each layer the weights (to, from), then its biases, float32.
    """

    scaling: FLOAT
    sizes: npt.NDArray[np.int64]
    flat: FLOAT

    def __post_init__(self) -> None:
        # The kernel trusts them.
        sizes = self.sizes
        good = sizes.ndim == 1 and len(sizes) > 1 and bool((sizes > 0).all())
        if (
            not good
            or self.scaling.shape != (2, sizes[0])
            or self.flat.shape != (_weights(sizes.tolist()),)
        ):
            raise InputError(
                f"layers of {sizes.tolist()} channels do not go with {self.flat.shape} weights and "
                f"scaling {self.scaling.shape}; copy the model again"
            )

    @classmethod
    def of(
        cls, scaling: FLOAT, weights: Sequence[npt.ArrayLike], biases: Sequence[npt.ArrayLike]
    ) -> Dense:
        """Of scikit-learn's weights (from, to) and biases per layer.

        A last layer of one channel, the log odds of the second of two classes, gets 0 beside it.
        """
        layers = [
            (np.asarray(weight, np.float32).T, np.asarray(bias, np.float32))
            for weight, bias in zip(weights, biases, strict=True)
        ]
        last, bias = layers[-1]
        if len(last) == 1:
            layers[-1] = (np.concatenate([0 * last, last]), np.concatenate([0 * bias, bias]))
        sizes = [scaling.shape[1], *(len(bias) for _, bias in layers)]
        flat = np.concatenate([np.concatenate([w.ravel(), b]) for w, b in layers])
        return cls(np.ascontiguousarray(scaling), np.array(sizes, np.int64), flat)

    @classmethod
    def restore(cls, arrays: State, files: Files) -> Dense:
        """Inverse of `state`; `InputError` for what is none."""
        del files
        return cls(
            array(arrays, "scaling", np.float32, 2),
            array(arrays, "sizes", np.int64, 1),
            array(arrays, "flat", np.float32, 1),
        )

    def state(self) -> tuple[State, Files]:
        """Its arrays."""
        return {"scaling": self.scaling, "sizes": self.sizes, "flat": self.flat}, {}

    def proba(self, features: FLOAT) -> FLOAT:
        """(class, pixel) of (feature, pixel)."""
        if len(features) != self.sizes[0]:
            raise InputError(
                f"got {len(features)} features, the model was trained on {self.sizes[0]}; copy "
                "the model again"
            )
        out = np.empty((int(self.sizes[-1]), features.shape[1]), np.float32)
        network(np.ascontiguousarray(features), self.scaling, self.sizes, self.flat, out)
        return out


def _weights(sizes: list[int]) -> int:
    """How many weights and biases layers have, without overflow: the kernel trusts it."""
    return sum(to * (width + 1) for width, to in itertools.pairwise(sizes))


def scaling_of(mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> FLOAT:
    """(2, feature) mean and 1 / std; a feature that is everywhere the same becomes 0."""
    spread = np.sqrt(variance)
    gains = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return np.stack([mean, gains]).astype(np.float32)


def standardise(x: FLOAT, scaling: FLOAT) -> None:
    """(pixel, feature) in place."""
    x -= scaling[0]
    x *= scaling[1]
