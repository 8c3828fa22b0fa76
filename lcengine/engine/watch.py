"""What a run knows of its cluster, and when it has waited long enough."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

from lcengine.engine import link as links
from lcengine.engine import versions
from lcengine.engine.link import Key, Link
from lcengine.engine.policy import Listener, Policy
from lcengine.errors import RunError

POLL = 0.25
"""Seconds between looks at what nobody tells: futures, the connection, the clock."""
ROSTER_SECONDS = 30.0
"""How often the roster is fetched when no worker came or went."""
VERSION_SECONDS = 30.0
"""To wait for the versions of the first workers."""
KEPT = "what is finished is kept, run the same command again"


class Watch:
    """Workers, their versions, and the watchdogs; raises `RunError` when a run cannot go on."""

    def __init__(self, link: Link, policy: Policy, listener: Listener) -> None:
        self.link = link
        self.policy = policy
        self.listener = listener
        self.ready = False
        """Whether tiles may start: the versions have been looked at."""
        self.roster: links.Roster | None = None
        self.asked: set[str] = set()
        """Workers whose versions have been asked for."""
        self.warned: set[str] = set()
        self.over_memory: set[str] = set()
        self.began = self.last_progress = self.staffed = time.monotonic()
        self.had_workers = False
        self.stale = True
        """Whether the roster needs fetching."""
        self.fetched = 0.0

    @property
    def suitable(self) -> list[str]:
        """Workers that offer the resources."""
        slots = self.roster.slots if self.roster else {}
        return [worker for worker, count in slots.items() if count]

    @property
    def slots(self) -> int:
        """Tiles that can run at a time."""
        return sum(self.roster.slots.values()) if self.roster else 0

    def progress(self) -> None:
        """A tile is through."""
        self.last_progress = time.monotonic()

    def heard(self, message: links.Message) -> None:
        """Any message but those about tiles."""
        if isinstance(message, links.Roster):
            self._call_roll(message)
        elif isinstance(message, links.Found):
            self._compare(message)
        elif isinstance(message, links.Warned):
            self._warn(message.text)
        elif isinstance(message, links.OverMemory):
            self.over_memory.add(message.worker)
        elif isinstance(message, links.Joined):
            self.stale = True

    def left(self, worker: str) -> str:
        """A worker is gone; how, in words."""
        self.stale = True
        self.asked.discard(worker)
        if worker not in self.over_memory:
            return f"its worker {worker} died"
        self.over_memory.discard(worker)
        return f"its worker {worker} exceeded its memory limit"

    def _call_roll(self, roster: links.Roster) -> None:
        new = [worker for worker in roster.slots if worker not in self.asked]
        first = self.roster is None
        self.asked.update(new)
        if first or new:
            self.link.ask_versions(new, scheduler=first)
        before = (len(self.roster.slots), self.roster.threads) if self.roster else None
        self.roster = roster
        if self.suitable and not self.had_workers:
            self.progress()
        self.had_workers = self.had_workers or bool(self.suitable)
        if (len(roster.slots), roster.threads) != before:
            self.listener.on_workers(len(roster.slots), roster.threads)

    def _compare(self, message: links.Found) -> None:
        refused, differing = versions.compare(versions.own(), message.versions)
        if refused:
            raise RunError(f"{'; '.join(refused)}; give all the same version, then {KEPT}")
        for phrase in differing:
            self._warn(f"{phrase}; results may differ")
        self.ready = True

    def _warn(self, text: str) -> None:
        if text not in self.warned:
            self.warned.add(text)
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    # --------------------------------------------------------------------------------------- clock

    def look(self, now: float, flights: Sequence[tuple[Key, int, float]]) -> None:
        """Whether to go on at `now`; `flights`: (key, tile, since when) of what is in flight."""
        if not self.link.alive:
            raise RunError(f"the Dask scheduler stopped or its connection was lost; {KEPT}")
        age = now - self.fetched
        if age > ROSTER_SECONDS or (self.stale and age > POLL):
            self.stale = False
            self.fetched = now
            self.link.ask_roster()
        if not self.ready and self.roster and now - self.began > VERSION_SECONDS:
            self._warn("not all workers told their versions; going on without")
            self.ready = True
        if self.suitable:
            self.staffed = now
        elif self.roster and now - self.staffed > self.policy.worker_timeout:
            raise RunError(self._nobody())
        if now - self.last_progress > self.policy.patience:
            raise RunError(self._standstill(now, flights))

    def _nobody(self) -> str:
        waited = f"{self.policy.worker_timeout:.0f} s"
        there = len(self.roster.slots) if self.roster else 0
        if there:
            need = " ".join(f"{name}={count:g}" for name, count in self.policy.resources.items())
            return (
                f"no worker offered {need} for {waited}, what every tile asks for ({there} workers "
                f"lack it); start one with `dask worker --resources {need!r}`; {KEPT}"
            )
        if self.had_workers:
            return f"the last worker left the Dask scheduler {waited} ago; {KEPT}"
        return f"no worker joined the Dask scheduler within {waited}; start one with `dask worker`"

    def _standstill(self, now: float, flights: Sequence[tuple[Key, int, float]]) -> str:
        where = self.link.processing(timeout=5.0)
        oldest = sorted(flights, key=lambda flight: flight[2])[:3]
        named = ", ".join(
            f"tile {tile} for {now - since:.0f} s "
            + (f"on {where[key]}" if key in where else "waiting for a worker")
            for key, tile, since in oldest
        )
        threads = self.roster.threads if self.roster else 0
        workers = len(self.roster.slots) if self.roster else 0
        return (
            f"no tile finished for {self.policy.patience:.0f} s: {len(flights)} in flight on "
            f"{workers} workers with {threads} threads ({named or 'none'}); {KEPT}"
        )
