"""Where a run stands: a plain value that a live view shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Progress:
    """Where a run stands; handed to the listener after every tile.

    The owner adds to the counters; the rest follows from them.
    """

    tiles: int
    done: int = 0
    resumed: int = 0
    """Of `done`, the tiles of an earlier run."""
    pixels: int = 0
    """Product pixels written by this run."""
    clear: int = 0
    """Clear observations of these pixels."""
    observations: int = 0
    """Observations of these pixels, clear or not; 0 where the tiles do not count them."""
    bytes_read: int = 0
    failures: int = 0
    """Lost reads: rows of the failure ledger."""
    failed: int = 0
    """Tiles given up."""
    retried: int = 0
    """Attempts that were not the last of their tile."""
    workers: int = 0
    threads: int = 0
    """Threads of these workers."""
    price: float | None = None
    """Of a core-hour, in any currency."""
    started: float = field(default_factory=time.monotonic)
    _staffed: float = field(default=0.0, repr=False)
    _thread_seconds: float = field(default=0.0, repr=False)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def pixels_per_second(self) -> float:
        """Product pixels per second so far."""
        return self.pixels / self.seconds if self.seconds > 0 else 0.0

    @property
    def clear_fraction(self) -> float | None:
        """Clear observations among all, None where nobody counts."""
        return self.clear / self.observations if self.observations else None

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far, None before the first tile."""
        worked = self.done - self.resumed
        left = self.tiles - self.done - self.failed
        return self.seconds / worked * left if worked else None

    def staff(self, workers: int, threads: int) -> None:
        """From now on there are so many workers with so many threads together."""
        self._thread_seconds = self.thread_seconds
        self._staffed = time.monotonic()
        self.workers = workers
        self.threads = threads

    @property
    def thread_seconds(self) -> float:
        """Seconds of worker threads so far, busy or idle: what a cluster is paid for."""
        if not self.threads:
            return self._thread_seconds
        return self._thread_seconds + self.threads * (time.monotonic() - self._staffed)

    @property
    def cost(self) -> float | None:
        """Price of the workers' core-hours so far, None without a price."""
        return None if self.price is None else self.price * self.thread_seconds / 3600

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: counts, seconds, fractions; None where unknown."""
        names = ("tiles", "done", "resumed", "failed", "retried", "failures", "pixels")
        return {
            **{name: getattr(self, name) for name in names},
            "bytes_read": self.bytes_read,
            "clear_fraction": self.clear_fraction,
            "workers": self.workers,
            "threads": self.threads,
            "seconds": round(self.seconds, 3),
            "pixels_per_second": round(self.pixels_per_second, 1),
            "eta": None if self.eta is None else round(self.eta, 1),
            "cost": self.cost,
        }
