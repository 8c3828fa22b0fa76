"""The patch CNN of 5×5 windows, run over whole patches."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pydantic import Field

from lcengine.models.nn.architecture import Architecture, NetworkOptions, network_kind

if TYPE_CHECKING:
    from torch import nn

    from lcengine.models.nn.reach import Reach


class PatchCNNOptions(NetworkOptions):
    """Options of the patch CNN: `channels` of both convolutions."""

    channels: int = Field(64, ge=1, le=1024)


def build(options: PatchCNNOptions, channels: int, classes: int) -> nn.Module:
    """The network, at random."""
    from lcengine.models.nn.modules import PatchCNN  # noqa: PLC0415 (loads torch)

    return PatchCNN(channels, classes, options.channels)


@cache
def _reach() -> Reach:
    from lcengine.models.nn.reach import reach  # noqa: PLC0415 (loads torch)

    return reach(lambda: build(PatchCNNOptions(channels=4), 1, 2), 1, 1)


ARCHITECTURE = Architecture(
    PatchCNNOptions,
    build,
    margin=lambda _: _reach().margin,
    output_stride=lambda _: 1,
    placed=lambda _: _reach().placed,
    head="head.",
)
KIND = network_kind("patch-cnn", ARCHITECTURE)
