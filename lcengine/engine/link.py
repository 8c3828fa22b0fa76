"""The driver's ear at the cluster: everything that happens, as messages in one queue.

Nothing here waits for an answer, so no worker or scheduler that hangs can hold the driver.
"""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from lcengine.engine import versions
from lcengine.engine.worker import Report, heard

CLUSTER_TOPIC = "all"
"""Where a scheduler tells of workers that come and go."""
MEMORY_TOPIC = "worker-restart-memory"
"""Where a nanny tells that it ended a worker over its memory limit."""
ANSWER_SECONDS = 30.0
SCHEDULER = "the scheduler"
ALIVE = ("running", "paused")
"""States of a worker that takes tiles, or will again."""
CLOSED = (ClosedClientError, CommClosedError)
"""What a client raises that has no scheduler any more."""
OVER = ("cancelled", "error", "finished")
"""States of a future that will not change by itself."""

Key = tuple[str, int, int]
"""(run, tile, attempt): a key of its own for every attempt, so a late copy is never mistaken."""


@dataclass(frozen=True, slots=True)
class Told:
    """A worker reports on an attempt."""

    key: Key
    report: Report


@dataclass(frozen=True, slots=True)
class Warned:
    """A worker warns."""

    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """A worker is gone, with the keys it had; `expected` when it was asked to go."""

    worker: str
    keys: frozenset[Any]
    expected: bool


@dataclass(frozen=True, slots=True)
class OverMemory:
    """A nanny ended a worker over its memory limit."""

    worker: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is new."""

    worker: str


@dataclass(frozen=True, slots=True)
class Roster:
    """All workers: the tiles each can run at a time (0 without the resources), and threads."""

    slots: Mapping[str, int]
    threads: int


@dataclass(frozen=True, slots=True)
class Found:
    """Versions of a worker or, under its name, the scheduler."""

    holder: str
    versions: versions.Versions


Message = Told | Warned | Left | OverMemory | Joined | Roster | Found


class Link:
    """Messages from a cluster, for one run of one client."""

    def __init__(self, client: Client, run: str, resources: Mapping[str, float]) -> None:
        self.client = client
        self.run = run
        self.resources = resources
        self._loop: Any = client.loop
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        # The topic that a scheduler forgets with its client, whatever becomes of the driver.
        self.topic: str = client.id
        client.subscribe_topic(self.topic, self._hear_worker)
        client.subscribe_topic(CLUSTER_TOPIC, self._hear_cluster)
        client.subscribe_topic(MEMORY_TOPIC, self._hear_nanny)

    @property
    def alive(self) -> bool:
        """Whether the scheduler is connected."""
        return str(self.client.status) == "running"

    @property
    def _scheduler(self) -> Any:
        return self.client.scheduler

    def close(self) -> None:
        """Hear no more."""
        if self.alive:
            for topic in (self.topic, CLUSTER_TOPIC, MEMORY_TOPIC):
                self.client.unsubscribe_topic(topic)

    def _hear_worker(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if not isinstance(message, dict):
            return
        if "key" in message and message["key"][0] == self.run:
            self.messages.put(Told(*heard(message)))
        elif message.get("run") == self.run:
            self.messages.put(Warned(message["warning"]))

    def _hear_cluster(self, event: tuple[float, Any]) -> None:
        message = event[1]
        action = message.get("action") if isinstance(message, dict) else None
        if action == "add-worker":
            self.messages.put(Joined(message["worker"]))
        elif action == "remove-worker":
            keys = frozenset(message["processing-tasks"])
            self.messages.put(Left(message["worker"], keys, bool(message["expected"])))

    def _hear_nanny(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if isinstance(message, dict) and message.get("worker"):
            self.messages.put(OverMemory(message["worker"]))

    def ask_roster(self) -> None:
        """A `Roster` will come, or nothing if the scheduler does not answer."""

        async def roster() -> Roster:
            identity = await self._scheduler.identity(n_workers=-1)
            workers = {
                address: facts
                for address, facts in identity["workers"].items()
                if facts["status"] in ALIVE
            }
            slots = {address: self._slots(facts) for address, facts in workers.items()}
            return Roster(slots, sum(facts["nthreads"] for facts in workers.values()))

        self._ask(roster)

    def _slots(self, facts: Mapping[str, Any]) -> int:
        offered = facts["resources"]
        fits = (math.floor(offered.get(name, 0) / need) for name, need in self.resources.items())
        return min((int(facts["nthreads"]), *(int(count) for count in fits)))

    def ask_versions(self, holder: str) -> None:
        """`Found` will come, or nothing if the worker or scheduler does not answer."""

        async def found() -> Found:
            if holder == SCHEDULER:
                return Found(holder, await versions.ask_scheduler(self.client))
            return Found(holder, await versions.ask_worker(self.client, holder))

        self._ask(found)

    def _ask(self, question: Callable[[], Awaitable[Message]]) -> None:
        async def ask() -> None:
            try:
                self.messages.put(await asyncio.wait_for(question(), ANSWER_SECONDS))
            except (OSError, TimeoutError):
                return  # who needs the answer has a deadline of its own

        self._loop.add_callback(ask)

    def processing(self, timeout: float) -> dict[Key, str]:
        """Which worker has which key of this run, or {} if the scheduler does not say in time."""
        try:
            answer = self.client.sync(
                self._scheduler.processing, workers=None, callback_timeout=timeout
            )
        except (OSError, TimeoutError):
            return {}
        return {
            tuple(key): worker
            for worker, keys in answer.items()
            for key in keys
            if isinstance(key, tuple) and key[0] == self.run
        }


def error_of(future: Future[Any]) -> BaseException | None:
    """The error of a failed future."""
    try:
        error: BaseException | None = future.exception(timeout=ANSWER_SECONDS)
    except TimeoutError as late:
        return late
    return error
