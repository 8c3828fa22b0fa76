"""What a network says of itself, before any weight is there; this module knows no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.models.predictor import Files, Kind, Predictor, State, Training
from lcengine.models.spec import ModelSpec
from lcengine.train.options import Schedule

if TYPE_CHECKING:
    from torch import nn

    from lcengine.samples.sampleset import SampleSet

Activation = Literal["softmax", "sigmoid"]
"""From logits to probabilities; those of `sigmoid`, one class against the rest, are normalised."""


class NetworkOptions(BaseModel):
    """What every network takes, below `[model]` of a recipe.

    `patch`, `stride` and `window` of its maps: by default the patches it was trained on, in steps
    of half of them, weighted by `hann`. `weights`: where its first weights come from: None at
    random; "imagenet": of the encoder, by segmentation-models-pytorch; or a path: a model's folder
    (all that fits, but the head where classes differ), or a state dict of torchvision, timm or
    segmentation-models-pytorch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    window: Literal["hann", "pyramid", "mean", "centre"] = "hann"
    weights: str | None = None


@dataclass(frozen=True)
class Architecture:
    """How networks of a kind are built, and what holds of them whatever their weights.

    `build(options, channels, classes)`: (n, channels, y, x) float32, y and x multiples of
    `output_stride(options)` -> logits (n, classes, y, x); at random, whatever `options.weights`.
    `margin(options)`: pixels around a pixel that its logits depend on, in evaluation mode; None:
    unbounded. `placed(options)`: see `ModelSpec`. `head`: prefix of the names of the parameters
    that know the classes.
    """

    options: type[NetworkOptions]
    build: Callable[[Any, int, int], nn.Module]
    margin: Callable[[Any], int | None]
    output_stride: Callable[[Any], int]
    placed: Callable[[Any], bool]
    head: str


def network_kind(name: str, architecture: Architecture) -> Kind:
    """The `KIND` of networks of an architecture."""

    def fitted(samples: SampleSet, options: Any, training: Training) -> Predictor:
        check_torch(name)
        from lcengine.models.nn.fit import fit  # noqa: PLC0415 (loads torch)

        return fit(samples, options, training, name, architecture)

    def read(spec: ModelSpec, arrays: State, files: Files) -> Predictor:
        del files
        check_torch(name)
        from lcengine.models.nn.predictor import restore  # noqa: PLC0415 (loads torch)

        return restore(architecture, spec, arrays)

    return Kind(architecture.options, fitted, read, schedule=Schedule)


def check_torch(kind: str) -> None:
    """`InputError` without the libraries that networks are made of."""
    if find_spec("torch") is None:
        raise InputError(
            f"models of kind {kind!r} need PyTorch, and it is not installed; "
            'pip install "lcengine[torch]"'
        )


def channels(inputs: Sequence[Input]) -> int:
    """Channels that a network sees: all inputs, times and bands, in the order of the spec."""
    return sum(math.prod(entry.lead) for entry in inputs)


def described(
    kind: str,
    architecture: Architecture,
    options: NetworkOptions,
    samples: SampleSet,
    activation: Activation = "softmax",
) -> ModelSpec:
    """The spec of a network for samples, without `training` and `metrics`.

    Raises `InputError` where the stride is longer than the patch.
    """
    patch = options.patch or samples.patch
    stride = options.stride or max(patch // 2, 1)
    if stride > patch:
        raise InputError(
            f"stride {stride} is longer than the patch {patch}, which leaves gaps; give {patch} "
            "at most"
        )
    return ModelSpec(
        kind=kind,
        inputs=samples.inputs,
        legend=samples.legend,
        resolution=samples.facts.get("place", {}).get("resolution"),
        patch=patch,
        stride=stride,
        window=options.window,
        margin=architecture.margin(options),
        output_stride=architecture.output_stride(options),
        placed=architecture.placed(options),
        options={**options.model_dump(mode="json"), "activation": activation},
    )
