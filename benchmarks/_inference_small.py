"""A network of two convolutions: nearly all of its time and memory is the engine's own."""

from __future__ import annotations

from typing import Any

from lcengine.models import predictor
from lcengine.models.nn.architecture import Architecture, NetworkOptions, network_kind


def _build(_options: NetworkOptions, channels: int, classes: int) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1)
    )


ARCHITECTURE = Architecture(
    NetworkOptions,
    _build,
    margin=lambda _: 2,
    output_stride=lambda _: 1,
    placed=lambda _: False,
    head="2.",
)
KIND = network_kind("two-convolutions", ARCHITECTURE)


def register() -> None:
    """Make the kind known to this process."""
    predictor.KINDS["two-convolutions"] = __name__
