"""The networks that are this package's own, as modules of torch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]

GROUP = 8
"""Channels that group normalisation takes together."""


def convolved(before: int, after: int, norm: Norm) -> list[nn.Module]:
    """3×3 convolution that keeps the size, normalisation, ReLU."""
    plain = norm == "none"
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=1, bias=plain)]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(after))
    elif norm == "group":
        layers.append(nn.GroupNorm(max(after // GROUP, 1), after))
    return [*layers, nn.ReLU(inplace=True)]


def _twice(before: int, after: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(*convolved(before, after, norm), *convolved(after, after, norm))


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer & Brox, 2015, MICCAI), with convolutions that keep the size.

    `width` channels at full size, twice as many after each of `depth` halvings; back by 2×2
    transposed convolutions.
    """

    def __init__(self, channels: int, classes: int, width: int, depth: int, norm: Norm) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _twice(before, after, norm)
            for before, after in zip([channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in widths[-2::-1]
        )
        self.merge = nn.ModuleList(_twice(2 * after, after, norm) for after in widths[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes, y, x) of (n, channels, y, x)."""
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            kept.append(x)
        kept.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([kept.pop(), up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits
