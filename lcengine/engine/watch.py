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
VERSION_SECONDS = 15.0
"""To wait for the versions of the first workers."""
SETTLED = 2.0
"""Seconds after which a worker has surely started."""
KEPT = "what is finished is kept, run the same command again"
LOST = f"the Dask scheduler stopped or its connection was lost; {KEPT}"


class Watch:
    """Workers, their versions, and the watchdogs; raises `RunError` when a run cannot go on."""

    def __init__(self, link: Link, policy: Policy, listener: Listener) -> None:
        self.link = link
        self.policy = policy
        self.listener = listener
        self._ready = False
        self.roster: links.Roster | None = None
        self.asked: set[str] = set()
        """Whose versions have been asked for,"""
        self.unanswered: set[str] = set()
        """and who has not told them yet."""
        self.mine = versions.own()
        self.warned: set[object] = set()
        self.since: dict[str, float] = {}
        """When each worker was seen first."""
        self.over_memory: set[str] = set()
        self.began = self.last_progress = self.staffed = time.monotonic()
        self.had_workers = False
        self.stale = True
        """Whether the roster needs fetching."""
        self.fetched = 0.0

    @property
    def ready(self) -> bool:
        """Whether tiles may start: whoever was there at the beginning told its versions.

        One that hangs is not waited for: a tile looks at its worker's lcengine itself.
        """
        if not self._ready and self.roster:
            late = time.monotonic() - self.began > VERSION_SECONDS
            self._ready = late or not self.unanswered
        return self._ready

    @property
    def suitable(self) -> list[str]:
        """Workers that offer the resources."""
        slots = self.roster.slots if self.roster else {}
        return [worker for worker, count in slots.items() if count]

    @property
    def settled(self) -> list[str]:
        """Those that may be given a tile which is likely to kill them.

        A nanny gives its worker up for good when it dies while it still starts.
        """
        latest = time.monotonic() - SETTLED
        return [worker for worker in self.suitable if self.since[worker] <= latest]

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
        self.unanswered.discard(worker)
        if worker not in self.over_memory:
            return f"its worker {worker} died"
        self.over_memory.discard(worker)
        return f"its worker {worker} exceeded its memory limit"

    def _call_roll(self, roster: links.Roster) -> None:
        there = {*roster.slots, links.SCHEDULER}
        self.unanswered &= there
        for holder in there - self.asked:
            self.asked.add(holder)
            self.unanswered.add(holder)
            self.link.ask_versions(holder)
        now = time.monotonic()
        # Whoever is there at the beginning is no newcomer.
        joined = now if self.roster else now - SETTLED
        self.since = {worker: self.since.get(worker, joined) for worker in roster.slots}
        before = (len(self.roster.slots), self.roster.threads) if self.roster else None
        self.roster = roster
        if self.suitable and not self.had_workers:
            self.progress()
        self.had_workers = self.had_workers or bool(self.suitable)
        if (len(roster.slots), roster.threads) != before:
            self.listener.on_workers(len(roster.slots), roster.threads)

    def _compare(self, message: links.Found) -> None:
        self.unanswered.discard(message.holder)
        holder = message.holder
        if holder != links.SCHEDULER:
            holder = f"worker {holder}"
        differences = versions.compare(self.mine, message.versions)
        refused = [found.told(holder) for found in differences if not found.works]
        if refused:
            raise RunError(f"{'; '.join(refused)}; give both the same version, then {KEPT}")
        for found in differences:
            self._warn(f"{found.told(holder)}; results may differ", found)

    def _warn(self, text: str, once: object = None) -> None:
        """Warn, but once of what is equal to `once`."""
        if (once or text) not in self.warned:
            self.warned.add(once or text)
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    # --------------------------------------------------------------------------------------- clock

    def look(self, now: float, flights: Sequence[tuple[Key, int, float]]) -> None:
        """Whether to go on at `now`; `flights`: (key, tile, since when) of what is in flight."""
        if not self.link.alive:
            raise RunError(LOST)
        age = now - self.fetched
        if age > ROSTER_SECONDS or (self.stale and age > POLL):
            self.stale = False
            self.fetched = now
            self.link.ask_roster()
        if self.suitable:
            self.staffed = now
        elif now - self.staffed > self.policy.worker_timeout:
            raise RunError(self._nobody())
        if now - self.last_progress > self.policy.patience:
            raise RunError(self._standstill(now, flights))

    def _nobody(self) -> str:
        waited = f"{self.policy.worker_timeout:g} s"
        if self.roster is None:
            return f"the Dask scheduler did not answer for {waited}; {KEPT}"
        there = len(self.roster.slots)
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
            f"no tile finished for {self.policy.patience:g} s: {len(flights)} in flight on "
            f"{workers} workers with {threads} threads ({named or 'none'}); {KEPT}"
        )
