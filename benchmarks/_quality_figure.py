"""The figure of the quality benchmark: residual cloud against RMSE, one panel per table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _quality import Interval


@dataclass(frozen=True)
class Point:
    """A contender: `MASK, SCREENS` or the name of a peer."""

    name: str
    cloud: Interval
    rmse: Interval


def draw(panels: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write a PNG."""
    raise NotImplementedError
