"""What a training shows while it goes on; this module knows no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
    def left(self) -> float | None:
        """Seconds to the last step, if these go on as they did; None before the first."""
        return self.seconds * (self.steps - self.step) / self.step if self.step else None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "facts": finite(self.facts), "left": self.left}

    @property
    def line(self) -> str:
        """The state as a line of a log."""
        facts = ", ".join(f"{name} {value:.4g}" for name, value in self.facts.items())
        return f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}: {facts}"


Hear = Callable[[Progress], None]


def finite(facts: Mapping[str, float]) -> dict[str, float | None]:
    """JSON values, null for NaN: measures of a split without labels."""
    return {name: value if math.isfinite(value) else None for name, value in facts.items()}
