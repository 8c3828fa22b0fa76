"""U-Nets on the encoders of segmentation-models-pytorch, which has those of timm as `tu-<name>`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field, model_validator

from lcengine.errors import InputError
from lcengine.models.nn.architecture import Architecture, NetworkOptions, network_kind

if TYPE_CHECKING:
    from torch import nn

    from lcengine.models.nn.reach import Reach

T = TypeVar("T")

DECODER = (256, 128, 64, 32, 16)
"""Channels of the decoder's blocks, deepest first."""
Encoder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,100}$")]
"""A name alone: timm takes addresses of a hub and folders too, and a model's file says which."""


class EncoderUNetOptions(NetworkOptions):
    """Options of a U-Net with an encoder.

    `encoder`: a name of segmentation-models-pytorch, or `tu-` and one of timm. `depth`: how often
    it halves the image. `decoder`: channels of as many blocks, by default the first of `DECODER`.
    """

    encoder: Encoder = "resnet50"
    depth: int = Field(5, ge=3, le=5)
    decoder: tuple[Annotated[int, Field(ge=1, le=1024)], ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> EncoderUNetOptions:
        if self.decoder is not None and len(self.decoder) != self.depth:
            raise ValueError(f"decoder has {len(self.decoder)} blocks, expected {self.depth}")
        return self


def build(options: EncoderUNetOptions, channels: int, classes: int) -> nn.Module:
    """The network, at random."""
    from segmentation_models_pytorch import Unet  # noqa: PLC0415 (loads torch)

    def made() -> nn.Module:
        module: nn.Module = Unet(
            options.encoder,
            encoder_depth=options.depth,
            encoder_weights=None,
            decoder_channels=options.decoder or DECODER[: options.depth],
            in_channels=channels,
            classes=classes,
        )
        if options.depth < 5:
            _freeze_unused(module, channels, 4 * 2**options.depth)
        return module

    return encoded(options.encoder, made)


def _freeze_unused(module: nn.Module, channels: int, edge: int) -> None:
    """Nothing is learned by layers below the depth asked for, which some encoders keep."""
    import torch  # noqa: PLC0415 (loads torch)

    with torch.enable_grad():
        module.eval()(torch.zeros(1, channels, edge, edge)).sum().backward()
    module.train()
    for values in module.parameters():
        values.requires_grad_(values.grad is not None)
        values.grad = None


def encoded(encoder: str, build: Callable[[], T]) -> T:
    """What is built, or found by running it; `InputError` where the encoder cannot be used.

    There may be none of the name, or it cannot be dilated, or takes images of one size alone.
    """
    try:
        return build()
    except (
        AssertionError,
        AttributeError,
        KeyError,
        RuntimeError,  # NotImplementedError, too
        TypeError,
        ValueError,
    ) as error:
        said = str(error).partition("\n")[0].partition(", supported")[0][:120]
        raise InputError(
            f"encoder {encoder!r} cannot be used ({said}); {_meant(encoder)}"
        ) from error


def _meant(encoder: str) -> str:
    """The name that was meant, or which there are."""
    from segmentation_models_pytorch.encoders import encoders  # noqa: PLC0415 (loads torch)

    close = difflib.get_close_matches(encoder, [name for name in encoders if name != encoder], 1)
    names = "a name of segmentation-models-pytorch such as resnet50, or tu- and one of timm"
    return f"did you mean {close[0]}? Expected {names}" if close else f"expected {names}"


@cache
def _reach(encoder: str, depth: int) -> Reach:
    from lcengine.models.nn.reach import reach  # noqa: PLC0415 (loads torch)

    narrow = EncoderUNetOptions(encoder=encoder, depth=depth, decoder=(4,) * depth)
    return encoded(encoder, lambda: reach(lambda: build(narrow, 3, 2), 3, 2**depth))


ARCHITECTURE = Architecture(
    EncoderUNetOptions,
    build,
    margin=lambda options: _reach(options.encoder, options.depth).margin,
    output_stride=lambda options: 2**options.depth,
    placed=lambda options: _reach(options.encoder, options.depth).placed,
    head="segmentation_head.",
)
KIND = network_kind("encoder-unet", ARCHITECTURE)
