"""What a run is told and what it answers: small values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lcengine.errors import InputError

Receipt = dict[str, Any]
"""What a tile task returns: small JSON values, never pixels."""

TileFunction = Callable[[int, int], Receipt]
"""(tile, attempt) → receipt; attempt 0, 1, …: a later attempt uses less memory."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a run deals with trouble; times in seconds."""

    window: int | None = None
    """Tiles in flight; by default three per worker thread, following the cluster's size."""
    retries: int = 2
    """Further attempts of a tile that failed. A tile that lost its worker does not spend them."""
    backoff: float = 1.0
    """Before the first retry, doubled for each further one."""
    patience: float = 3600.0
    """Without any finished tile before the run gives up."""
    worker_timeout: float = 120.0
    """To wait for a worker that offers the resources."""
    grace: float = 10.0
    """That running tiles get to finish after an interrupt."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Worker resources that every tile needs, for example {"GPU": 1}."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise InputError(f"a window of {self.window} tiles cannot hold one; give 1 or more")
        for name in ("retries", "backoff", "patience", "worker_timeout", "grace"):
            value = getattr(self, name)
            if not value >= 0:
                raise InputError(f"{name} is {value}; expected 0 or more")
        for name, need in self.resources.items():
            if not (need > 0 and math.isfinite(need)):
                raise InputError(f"resource {name} is {need}; expected an amount above 0")

    def pause(self, tile: int, errors: int) -> float:
        """Seconds before a tile's next attempt after `errors` failed ones.

        Up to a quarter is added, fixed per tile: tiles that failed together do not return together.
        """
        spread = (tile * 2654435761 % 2**32) / 2**34
        return self.backoff * 2.0 ** (errors - 1) * (1.0 + spread)


@dataclass(frozen=True, slots=True)
class TileFailure:
    """A tile that failed: for this time, or for good."""

    tile: int
    error: str
    attempts: int
    quarantined: bool = False
    """Its worker died, also while it ran alone: it is not tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tiles."""

    done: int
    failed: tuple[TileFailure, ...] = ()
    """In the order of tiles."""


def _silent(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears what during a run; called in the driver's thread, one at a time."""

    on_done: Callable[[Receipt], None] = _silent
    on_failed: Callable[[TileFailure], None] = _silent
    """A tile is given up."""
    on_retry: Callable[[TileFailure], None] = _silent
    """A tile failed or lost its worker and will be tried again."""
    on_workers: Callable[[int, int], None] = _silent
    """The number of workers, and of their threads, changed."""
