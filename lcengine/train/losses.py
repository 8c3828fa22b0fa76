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
        # float32 and one row per pixel: what bfloat16 would lose in sums of millions.
        flat = logits.float().movedim(1, -1).reshape(-1, logits.shape[1])
        truth = label.reshape(-1)
        known = truth != IGNORE
        safe = torch.where(known, truth, 0)
        weight = self.weights[safe] * known
        out = {"weight": weight.sum()}
        for name in self.options.loss:
            out |= _SUMS[name](self, flat, safe, known, weight)
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

    def _cross_entropy(
        self, flat: Tensor, safe: Tensor, known: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        each = functional.cross_entropy(
            flat,
            safe,
            self.weights,
            reduction="none",
            label_smoothing=self.options.label_smoothing,
        )
        return {"cross-entropy": (each * known).sum()}

    def _focal(
        self, flat: Tensor, safe: Tensor, known: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        lost = functional.cross_entropy(flat, safe, reduction="none")  # −ln p
        return {"focal": (weight * (1 - torch.exp(-lost)) ** GAMMA * lost).sum()}

    def _bce(self, flat: Tensor, safe: Tensor, known: Tensor, weight: Tensor) -> dict[str, Tensor]:
        smooth = self.options.label_smoothing
        target = _hot(flat, safe) * (1 - smooth) + smooth / 2
        each = functional.binary_cross_entropy_with_logits(flat, target, reduction="none")
        return {"bce": (each.mean(dim=1) * weight).sum()}

    def _dice(self, flat: Tensor, safe: Tensor, known: Tensor, weight: Tensor) -> dict[str, Tensor]:
        sigmoid = self.options.activation == "sigmoid"
        proba = torch.sigmoid(flat) if sigmoid else torch.softmax(flat, dim=1)
        proba = proba * known[:, None]
        truth = _hot(flat, safe) * known[:, None]
        return {
            "shared": (proba * truth).sum(dim=0),
            "predicted": proba.sum(dim=0),
            "reference": truth.sum(dim=0),
        }


_SUMS: Final[dict[str, Callable[[Loss, Tensor, Tensor, Tensor, Tensor], dict[str, Tensor]]]] = {
    "cross-entropy": Loss._cross_entropy,
    "bce": Loss._bce,
    "dice": Loss._dice,
    "focal": Loss._focal,
}


def _hot(flat: Tensor, safe: Tensor) -> Tensor:
    """1 where a pixel (row) is of the class (column)."""
    return functional.one_hot(safe, flat.shape[1]).to(flat.dtype)
