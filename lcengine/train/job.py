"""What the loop is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from lcengine.train.data import Batches
from lcengine.train.objective import Objective
from lcengine.train.options import Schedule
from lcengine.train.progress import Hear


@dataclass(frozen=True)
class Job:
    """A training: `steps` in `epochs` at most, from `seed`, with `threads` of one operation.

    `folder` keeps checkpoints and logs. `identity`: a text of all that decides the result, which a
    checkpoint must share.
    """

    model: nn.Module
    objective: Objective
    batches: Batches
    schedule: Schedule
    epochs: int
    steps: int
    seed: int = 0
    threads: int = 2
    folder: Path | None = None
    identity: str = ""
    hear: Hear = field(default=lambda _: None)


@dataclass(frozen=True)
class Outcome:
    """What training came to: the model's state on the CPU, and the log by epochs."""

    weights: dict[str, Tensor]
    rows: list[dict[str, float]]
