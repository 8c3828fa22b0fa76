"""Losses over the labelled pixels of a batch, as sums that add up over batches and processes.

Every loss is a ratio of sums over pixels, so the loss of a split, or of a batch that several
processes share, is made of added sums: never a mean of means. Pixels of label 255 count nowhere,
and without any labelled pixel a loss is 0.

With g = 1 where a pixel is of the class, p its probability, w the weight of its class:

- cross-entropy: −Σ w ln p / Σ w, with label smoothing as Szegedy et al. (2016, CVPR) and torch.
- bce: binary cross-entropy of each class against all others by sigmoids, mean over the classes.
- focal: −Σ w (1 − p)² ln p / Σ w on the softmax (Lin et al. 2017, ICCV; γ = 2).
- dice: 1 − 2 Σpg / (Σp + Σg) of each class over batch and labelled pixels (Milletari et al. 2016,
  3DV, without squares), mean over the classes present, weighted by w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcengine.legends import IGNORE
from lcengine.train.options import SupervisedOptions

GAMMA: Final = 2.0

Sums = dict[str, Tensor]
"""Float32: "weight" is Σ w of labelled pixels; of each loss a sum, of dice three by class."""


class Loss(nn.Module):
    """The weighted sum of losses that options name; `weights` (class) of the classes."""

    weights: Tensor

    def __init__(self, options: SupervisedOptions, weights: Tensor) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("weights", weights.to(torch.float32), persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of a batch, (): logits (n, class, y, x), label int64 (n, y, x)."""
        return self.value(self.sums(logits, label))

    def sums(self, logits: Tensor, label: Tensor) -> Sums:
        """What `value` makes the loss of; tensors of batches may be added first."""
        # (class, pixel): reductions over few classes are fast along the first axis. float32: what
        # bfloat16 would lose in sums of millions.
        rows = logits.float().movedim(1, 0).reshape(logits.shape[1], -1)
        truth = label.reshape(-1)
        known = truth != IGNORE
        safe = torch.where(known, truth, 0)
        pixels = _Pixels(rows, safe, known, self.weights[safe] * known)
        out = {"weight": pixels.weight.sum()}
        for name in self.options.loss:
            out |= _SUMS[name](self, pixels)
        return out

    def value(self, sums: Mapping[str, Tensor]) -> Tensor:
        """The loss of added sums."""
        parts = [share * self.part(name, sums) for name, share in self.options.loss.items()]
        return torch.stack(parts).sum()

    def part(self, name: str, sums: Mapping[str, Tensor]) -> Tensor:
        """One of the losses."""
        if name != "dice":
            # Without labelled pixels both are 0.
            return sums[name] / torch.where(sums["weight"] > 0, sums["weight"], 1.0)
        both, reference = sums["predicted"] + sums["reference"], sums["reference"]
        present = reference > 0
        lost = 1 - 2 * sums["shared"] / torch.where(present, both, 1.0)
        shares = self.weights * present
        return (lost * shares).sum() / torch.where(present.any(), shares.sum(), 1.0)

    def _cross_entropy(self, pixels: _Pixels) -> dict[str, Tensor]:
        logarithms = functional.log_softmax(pixels.rows, dim=0)
        total = (pixels.weight * -pixels.right(logarithms)).sum()
        if smooth := self.options.label_smoothing:
            every = -(self.weights @ (logarithms * pixels.known)).sum() / len(self.weights)
            total = (1 - smooth) * total + smooth * every
        return {"cross-entropy": total}

    def _focal(self, pixels: _Pixels) -> dict[str, Tensor]:
        right = pixels.right(functional.log_softmax(pixels.rows, dim=0))
        return {"focal": (pixels.weight * (1 - torch.exp(right)) ** GAMMA * -right).sum()}

    def _bce(self, pixels: _Pixels) -> dict[str, Tensor]:
        smooth = self.options.label_smoothing
        target = pixels.hot() * (1 - smooth) + smooth / 2
        each = functional.binary_cross_entropy_with_logits(pixels.rows, target, reduction="none")
        return {"bce": (each.mean(dim=0) * pixels.weight).sum()}

    def _dice(self, pixels: _Pixels) -> dict[str, Tensor]:
        sigmoid = self.options.activation == "sigmoid"
        proba = torch.sigmoid(pixels.rows) if sigmoid else torch.softmax(pixels.rows, dim=0)
        proba = proba * pixels.known
        truth = pixels.hot() * pixels.known
        return {
            "shared": (proba * truth).sum(dim=1),
            "predicted": proba.sum(dim=1),
            "reference": truth.sum(dim=1),
        }


@dataclass(frozen=True)
class _Pixels:
    """Logits (class, pixel); of each pixel its class (0 if unknown), whether known, its weight."""

    rows: Tensor
    safe: Tensor
    known: Tensor
    weight: Tensor

    def right(self, values: Tensor) -> Tensor:
        """Of each pixel the value (class, pixel) of its class."""
        return values.gather(0, self.safe[None])[0]

    def hot(self) -> Tensor:
        """(class, pixel) 1 where a pixel is of the class."""
        classes = torch.arange(len(self.rows), device=self.rows.device)
        return (self.safe == classes[:, None]).to(self.rows.dtype)


_SUMS: Final[dict[str, Callable[[Loss, _Pixels], dict[str, Tensor]]]] = {
    "cross-entropy": Loss._cross_entropy,
    "bce": Loss._bce,
    "dice": Loss._dice,
    "focal": Loss._focal,
}
