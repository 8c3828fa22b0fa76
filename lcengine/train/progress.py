"""What a training shows while it goes on; this module knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CHECKPOINT = "checkpoint.pt"
"""Name of the file from which a training goes on."""


@dataclass(frozen=True)
class Progress:
    """Where a training is: `step` of `steps`, in `epoch` of `epochs`, counted from 1.

    `facts`: what was measured, of the step, or of the epoch where `measured`. `seconds` of the
    training, with those before it was resumed.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    measured: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The state as a line of a log."""
        facts = ", ".join(f"{name} {value:.4g}" for name, value in self.facts.items())
        return f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}: {facts}"


Hear = Callable[[Progress], None]
