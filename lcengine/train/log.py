"""What a training writes down: a table by epochs, and TensorBoard's events where asked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lcengine.train.pictures import curves

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

TABLE = "log.csv"
PICTURE = "curves.png"
EVENTS = "tensorboard"


class Log:
    """Of one training, in its folder; None writes nothing.

    The table and the picture are made anew of all rows, so they never miss or repeat an epoch.
    """

    def __init__(self, folder: Path | None, tensorboard: bool, step: int) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None
        if folder and tensorboard:
            from tensorboardX import SummaryWriter  # noqa: PLC0415 (only where it is asked for)

            # What a killed run wrote beyond its checkpoint is told again, in a file of its own:
            # their names know seconds alone.
            events = str(folder / EVENTS)
            self.writer = SummaryWriter(events, purge_step=step, filename_suffix=f".{step}")

    def step(self, facts: Mapping[str, float], step: int) -> None:
        """One step."""
        self._events("step", facts, step)

    def epoch(self, rows: list[dict[str, float]]) -> None:
        """The last row is of the epoch that ended."""
        self._events("epoch", rows[-1], int(rows[-1]["step"]))
        if self.folder:
            _write(self.folder / TABLE, table(rows).encode())
            _write(self.folder / PICTURE, curves(rows))

    def close(self) -> None:
        """Nothing more comes."""
        if self.writer:
            self.writer.close()

    def _events(self, head: str, facts: Mapping[str, float], step: int) -> None:
        if self.writer:
            for name, value in facts.items():
                self.writer.add_scalar(f"{head}/{name}", value, step)


def table(rows: list[dict[str, float]]) -> str:
    """CSV of rows, with a head."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    os.replace(beside, path)
