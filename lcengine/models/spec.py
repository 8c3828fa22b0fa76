"""What a model was made for: the pixels it takes, the classes it gives, where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.legends import Legend

Weights = Literal["hann", "pyramid", "mean", "centre"]
"""What a pixel of a patch weighs where patches overlap, by its place in the patch."""


@dataclass(frozen=True)
class ModelSpec:
    """What must be known of a model to use it, and to trust it.

    `kind`: of `lcengine.models.KINDS`. `inputs`: what it sees, by name: bands in their order,
    periods, type, missing value, scale, units and sensor. `legend`: its classes; probabilities are
    in their order. `resolution`: size of the pixels it was trained on, in units of their CRS.
    `patch`: edge in pixels of what is predicted together: 1 is each pixel by itself. `stride`:
    steps between patches, which overlap and are merged with the weights of `window`; None: patches
    lie side by side and are cut at the raster's edge. `margin`: pixels around a pixel that its
    answer depends on, beyond its patch where these lie side by side; None: unbounded.
    `output_stride`: edges of what a network takes are multiples of it, and it answers the same only
    where a patch is moved by one. `placed`: answers depend on where a patch lies even then (pooling
    over the image, convolutions without padding), so no merge gives what a whole image would.
    `options`: how it was made, as the recipe says. `training`: area, periods, samples and
    versions. `metrics`: by split.
    """

    kind: str
    inputs: tuple[Input, ...]
    legend: Legend
    resolution: float | None = None
    patch: int = 1
    stride: int | None = None
    window: Weights = "hann"
    margin: int | None = 0
    output_stride: int = 1
    placed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` gives an equal spec back."""
        return {
            "kind": self.kind,
            "inputs": [entry.to_json() for entry in self.inputs],
            "legend": self.legend.to_json(),
            "resolution": self.resolution,
            "patch": self.patch,
            "stride": self.stride,
            "window": self.window,
            "margin": self.margin,
            "output_stride": self.output_stride,
            "placed": self.placed,
            "options": dict(self.options),
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Inverse of `to_json`; `InputError` for what is no spec."""
        try:
            inputs = tuple(Input.from_json(entry) for entry in data["inputs"])
            legend = Legend.from_json(data["legend"])
            found = cls(**{**data, "inputs": inputs, "legend": legend})
            found._check()
            return found
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no description of a model ({error!r}); expected kind, inputs, legend, "
                "resolution, patch, stride, window, margin, options, training and metrics"
            ) from error

    def _check(self) -> None:
        """`ValueError` for what is not of its type, or cannot be: a file may say anything."""
        size, margin, stride = self.resolution, self.margin, self.stride
        wrong = {
            "kind": not isinstance(self.kind, str),
            "inputs": not self.inputs,
            "resolution": size is not None and not (_is(size, int, float) and 0 < size < math.inf),
            "patch": not (_is(self.patch, int) and self.patch > 0),
            "stride": stride is not None and not (_is(stride, int) and 0 < stride <= self.patch),
            "window": self.window not in get_args(Weights),
            "margin": margin is not None and not (_is(margin, int) and margin >= 0),
            "output_stride": not (_is(self.output_stride, int) and self.output_stride > 0),
            "placed": not isinstance(self.placed, bool),
        }
        tables = ("options", "training", "metrics")
        wrong |= {name: not isinstance(getattr(self, name), Mapping) for name in tables}
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{name} is {getattr(self, name)!r}")


def _is(value: Any, *types: type) -> bool:
    """Whether it is a number of these types; bool is none."""
    return isinstance(value, types) and not isinstance(value, bool)
