"""What is learned, apart from how the loop runs: an objective turns batches into steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lightning_fabric import Fabric
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""Of `lcengine.samples.loader`: float32 (sample, channel, y, x) as "image", "label" int64 (sample,
y, x) with 255 = ignore, "index" int64 (sample,)."""


class Objective(Protocol):
    """Turns batches into optimiser steps; the loop owns data, checkpoints and logs.

    What is random in a step must come from torch's own generators, which the loop seeds before
    every step. Where several processes train, each has the objective, with its share of a batch.
    """

    @property
    def done(self) -> bool:
        """Whether training should end before its last epoch."""
        ...

    def setup(self, fabric: Fabric, model: nn.Module) -> None:
        """Take the model to the device, and make optimisers and schedules."""
        ...

    def step(self, batch: Batch) -> dict[str, float]:
        """Forward, backward and one step of the optimisers; what is logged of it."""
        ...

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        """Whatever is measured between epochs; what is logged of it."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The model's state that training has come to."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts that `load_state_dict` goes on from bit by bit."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, after `setup`."""
        ...
