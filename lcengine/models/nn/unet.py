"""U-Nets of any depth and width, for any number of bands."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lcengine.models.nn.architecture import Architecture, NetworkOptions, network_kind

if TYPE_CHECKING:
    from torch import nn

    from lcengine.models.nn.reach import Reach


class UNetOptions(NetworkOptions):
    """Options of the U-Net.

    `depth`: how often it halves the image. `channels` at full size, doubled at every halving.
    `norm`: "batch", "none", or "group", whose statistics are of the whole patch, so that no pixel
    is independent of any other.
    """

    depth: int = Field(4, ge=1, le=6)
    channels: int = Field(32, ge=1, le=256)
    norm: Literal["batch", "group", "none"] = "batch"


def build(options: UNetOptions, channels: int, classes: int) -> nn.Module:
    """The network, at random."""
    from lcengine.models.nn.modules import UNet  # noqa: PLC0415 (loads torch)

    return UNet(channels, classes, options.channels, options.depth, options.norm)


@cache
def _reach(depth: int, norm: Literal["batch", "group", "none"]) -> Reach:
    from lcengine.models.nn.modules import UNet  # noqa: PLC0415 (loads torch)
    from lcengine.models.nn.reach import reach  # noqa: PLC0415 (loads torch)

    return reach(lambda: UNet(1, 2, 4, depth, norm), 1, 2**depth)


ARCHITECTURE = Architecture(
    UNetOptions,
    build,
    margin=lambda options: _reach(options.depth, options.norm).margin,
    output_stride=lambda options: 2**options.depth,
    placed=lambda options: _reach(options.depth, options.norm).placed,
    head="head.",
)
KIND = network_kind("unet", ARCHITECTURE)
