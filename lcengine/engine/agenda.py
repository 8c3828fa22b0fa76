"""Which tile is tried next, and how: fresh, after a pause, or apart from the others.

When a worker dies, Dask can only say which tiles it had, not which one killed it. They become
suspects: when all others are through, each runs on a worker that it has for itself, and one whose
worker dies again has a machine for itself. If the worker dies even then, the tile is quarantined;
the innocent have succeeded on the way. A tile that did not fit into memory goes the same way.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from lcengine.engine.policy import Policy, TileFailure


class Company(IntEnum):
    """Who may run beside a tile."""

    ANY = 0
    OWN_WORKER = 1
    """No other tile of the run on its worker."""
    OWN_HOST = 2
    """No other tile of the run on its machine."""


@dataclass(slots=True)
class Attempt:
    """One try of a tile, and what the tile went through before."""

    tile: int
    number: int = 0
    company: Company = Company.ANY
    errors: int = 0
    """Attempts that failed by themselves."""

    def failure(self, error: str, quarantined: bool = False) -> TileFailure:
        """The attempt, failed."""
        return TileFailure(self.tile, error, self.number + 1, quarantined)

    def again(self, company: Company, errors: int) -> Attempt:
        """The next attempt."""
        return Attempt(self.tile, self.number + 1, company, errors)


class Agenda:
    """The tiles that are not in flight and not through.

    Knows no clock and no cluster: the loop says what time it is and who is free.
    """

    def __init__(self, tiles: Iterable[int], policy: Policy) -> None:
        self._fresh = iter(tiles)
        self._more = True
        self._policy = policy
        self._order = itertools.count()
        self._paused: dict[Company, list[tuple[float, int, Attempt]]] = {c: [] for c in Company}

    def take(
        self,
        now: float,
        room: int,
        idle: Iterable[str],
        flying: Counter[Company],
        pinned: Iterable[str] = (),
    ) -> list[tuple[Attempt, str | None]]:
        """What to start now: attempts, each with the worker it must run on, if any.

        `room`: how many may join the crowd. `idle`: addresses of workers that may take a suspect.
        `flying`: how many are in flight, by their company. `pinned`: workers that have a suspect.
        """
        crowd = [*self._due(Company.ANY, now, room)]
        crowd += self._next_fresh(room - len(crowd))
        if crowd or self._more or self._paused[Company.ANY] or flying[Company.ANY]:
            return [(attempt, None) for attempt in crowd]
        workers = list(idle)
        apart = self._due(Company.OWN_WORKER, now, len(workers))
        if apart or self._paused[Company.OWN_WORKER] or flying[Company.OWN_WORKER]:
            return list(zip(apart, workers, strict=False))
        taken = {_host(worker) for worker in pinned}
        free = {_host(worker): worker for worker in workers if _host(worker) not in taken}
        alone = self._due(Company.OWN_HOST, now, len(free))
        return list(zip(alone, free.values(), strict=False))

    def _next_fresh(self, room: int) -> list[Attempt]:
        if room <= 0 or not self._more:
            return []
        fresh = [Attempt(int(tile)) for tile in itertools.islice(self._fresh, room)]
        self._more = len(fresh) == room
        return fresh

    def _due(self, company: Company, now: float, room: int) -> list[Attempt]:
        paused = self._paused[company]
        found: list[Attempt] = []
        while len(found) < room and paused and paused[0][0] <= now:
            found.append(heapq.heappop(paused)[2])
        return found

    def _pause(self, attempt: Attempt, until: float) -> None:
        heapq.heappush(self._paused[attempt.company], (until, next(self._order), attempt))

    @property
    def fresh(self) -> bool:
        """Whether some tiles have not been tried at all."""
        return self._more

    @property
    def empty(self) -> bool:
        """Whether nothing is left to start."""
        return not self._more and not any(self._paused.values())

    def wake(self) -> float:
        """When the next pause ends; infinity where nothing pauses."""
        return min(
            (paused[0][0] for paused in self._paused.values() if paused), default=float("inf")
        )

    def failed(
        self, attempt: Attempt, error: str, now: float, *, permanent: bool, memory: bool
    ) -> bool:
        """An attempt raised; whether the tile gets another one."""
        errors = attempt.errors + 1
        if permanent or errors > self._policy.retries:
            return False
        company = attempt.company
        if memory:
            company = Company(min(company + 1, Company.OWN_HOST))
        self._pause(attempt.again(company, errors), now + self._policy.pause(attempt.tile, errors))
        return True

    def lost(self, attempt: Attempt, now: float) -> bool:
        """An attempt's worker died; whether the tile gets another one."""
        if attempt.company is Company.OWN_HOST:
            return False
        self._pause(attempt.again(Company(attempt.company + 1), attempt.errors), now)
        return True

    def put_back(self, attempt: Attempt, now: float) -> None:
        """An attempt did not take place: its worker had left before it began."""
        self._pause(attempt.again(attempt.company, attempt.errors), now)


def _host(worker: str) -> str:
    """The machine in a worker's address."""
    return worker.rpartition(":")[0]
