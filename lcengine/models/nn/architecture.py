"""What a network says of itself, before any weight is there; this module knows no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn


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
    `output_stride(options)` -> logits (n, classes, y, x). `margin(options)`: pixels around a pixel
    that its logits depend on, in evaluation mode; None: unbounded. `placed(options)`: see
    `ModelSpec`. `head`: prefix of the names of the parameters that know the classes.
    """

    options: type[NetworkOptions]
    build: Callable[[Any, int, int], nn.Module]
    margin: Callable[[Any], int | None]
    output_stride: Callable[[Any], int]
    placed: Callable[[Any], bool]
    head: str
