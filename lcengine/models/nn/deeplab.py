"""DeepLabV3 and V3+ on an encoder, and the head of DeepLabV3 on the bands themselves."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lcengine.models.nn.architecture import Architecture, NetworkOptions, network_kind
from lcengine.models.nn.encoders import Encoder, encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from lcengine.models.nn.reach import Reach

Rate = Annotated[int, Field(ge=1, le=256)]
RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Dilations of the pyramid by output stride of the encoder (Chen et al., 2017)."""


class DeepLabOptions(NetworkOptions):
    """Options of DeepLabV3 and V3+.

    `encoder`: as of `encoder-unet`, if it can be dilated. `stride_of_encoder`: by how much it
    halves the image. `rates`: dilations of the pyramid, by default `RATES`. `channels` of its
    branches.
    """

    encoder: Encoder = "resnet50"
    stride_of_encoder: Literal[8, 16] = 16
    rates: tuple[Rate, Rate, Rate] | None = None
    channels: int = Field(default=256, ge=1, le=1024)
    dropout: float = Field(default=0.5, ge=0, lt=1)


class DeepLabHeadOptions(NetworkOptions):
    """Options of `deeplab-head`.

    `rates`: dilations of the pyramid in pixels. `channels` of its branches. `pooling`: the mean of
    the patch is one of them; without, a pixel's answer depends on its surroundings alone.
    """

    rates: tuple[Rate, ...] = (12, 24, 36)
    channels: int = Field(default=256, ge=1, le=1024)
    pooling: bool = True
    dropout: float = Field(default=0.5, ge=0, lt=1)


def _on_encoder(plus: bool) -> Architecture:
    """Both resize by corners (the size of the image decides) and pool the image: placed."""

    def build(options: DeepLabOptions, channels: int, classes: int) -> nn.Module:
        import segmentation_models_pytorch as smp  # noqa: PLC0415 (loads torch)

        made: Callable[..., nn.Module] = smp.DeepLabV3Plus if plus else smp.DeepLabV3
        return encoded(
            options.encoder,
            lambda: made(
                options.encoder,
                encoder_weights=None,
                encoder_output_stride=options.stride_of_encoder,
                decoder_channels=options.channels,
                decoder_atrous_rates=options.rates or RATES[options.stride_of_encoder],
                decoder_aspp_dropout=options.dropout,
                in_channels=channels,
                classes=classes,
            ),
        )

    return Architecture(
        DeepLabOptions,
        build,
        margin=lambda _: None,
        output_stride=lambda options: options.stride_of_encoder,
        placed=lambda _: True,
        head="segmentation_head.",
    )


def _head(options: DeepLabHeadOptions, channels: int, classes: int) -> nn.Module:
    from lcengine.models.nn.modules import DeepLabHead  # noqa: PLC0415 (loads torch)

    return DeepLabHead(
        channels, classes, options.channels, options.rates, options.pooling, options.dropout
    )


@cache
def _reach(rates: tuple[int, ...], pooling: bool) -> Reach:
    from lcengine.models.nn.reach import reach  # noqa: PLC0415 (loads torch)

    narrow = DeepLabHeadOptions(rates=rates, pooling=pooling, channels=2)
    return reach(lambda: _head(narrow, 1, 2), 1, 1)


ARCHITECTURES = {
    "deeplabv3": _on_encoder(plus=False),
    "deeplabv3plus": _on_encoder(plus=True),
    "deeplab-head": Architecture(
        DeepLabHeadOptions,
        _head,
        margin=lambda options: _reach(options.rates, options.pooling).margin,
        output_stride=lambda _: 1,
        placed=lambda options: _reach(options.rates, options.pooling).placed,
        head="head.",
    ),
}
KINDS = {name: network_kind(name, architecture) for name, architecture in ARCHITECTURES.items()}
