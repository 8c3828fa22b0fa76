"""The networks that are this package's own, as modules of torch."""

from __future__ import annotations

from collections.abc import Sequence
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


def _projected(before: int, after: int, kernel: int, rate: int = 1) -> nn.Sequential:
    """Dilated convolution that keeps the size, batch normalisation, ReLU."""
    padding = kernel // 2 * rate
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class DeepLabHead(nn.Module):
    """The head of DeepLabV3 (Chen et al., 2017, arXiv:1706.05587) on the bands themselves.

    Atrous pyramid of `width` channels each: 1×1, dilated 3×3 at `rates`, and with `pooling` the
    mean of the image; then 1×1, dropout, 3×3 and the classes. The branch of the image has a bias in
    place of a normalisation: in a batch of one patch a single value would be normalised.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,
        rates: Sequence[int],
        pooling: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(
            [
                _projected(channels, width, 1),
                *(_projected(channels, width, 3, rate) for rate in rates),
            ]
        )
        self.image = nn.Conv2d(channels, width, 1) if pooling else None
        branches = 1 + len(rates) + pooling
        self.project = _projected(branches * width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.merge = _projected(width, width, 3)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes, y, x) of (n, channels, y, x)."""
        found = [branch(x) for branch in self.pyramid]
        if self.image is not None:
            mean = torch.relu(self.image(x.mean(dim=(2, 3), keepdim=True)))
            found.append(mean.expand(-1, -1, *x.shape[2:]))
        logits: Tensor = self.head(self.merge(self.dropout(self.project(torch.cat(found, dim=1)))))
        return logits


class PatchCNN(nn.Module):
    """A network of the 5×5 window of every pixel of an image, beyond whose edges is 0.

    Of each window, by itself: Conv 3×3 (pad 1) + ReLU, Conv 3×3 (pad 1) + ReLU, MaxPool 2, fully
    connected. The padding belongs to the window, so that windows share no layer, and are what is
    computed.
    """

    EDGE = 5
    TOGETHER = 4096
    """Windows computed at a time where no gradient is asked for."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes, y, x) of (n, channels, y, x)."""
        logits = torch.stack([self._judged(image) for image in x])
        return logits.mT.reshape(len(x), -1, *x.shape[2:])

    def _judged(self, image: Tensor) -> Tensor:
        """Logits (pixel, classes) of (channels, y, x)."""
        columns = nn.functional.unfold(image[None], self.EDGE, padding=self.EDGE // 2)[0]
        windows = columns.mT.reshape(-1, len(image), self.EDGE, self.EDGE)
        if torch.is_grad_enabled():
            logits: Tensor = self.head(self.layers(windows))
            return logits
        parts = torch.split(windows, self.TOGETHER)
        return torch.cat([self.head(self.layers(part)) for part in parts])
