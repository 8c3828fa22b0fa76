"""The loop of a run: start what there is room for, hear what became of it, watch the cluster."""

from __future__ import annotations

import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from distributed import Client, Future
from distributed.scheduler import KilledWorker

import lcengine
from lcengine.engine import link as links
from lcengine.engine.agenda import Agenda, Attempt
from lcengine.engine.link import Key, Link
from lcengine.engine.policy import Listener, Outcome, Policy, TileFailure, TileFunction
from lcengine.engine.watch import KEPT, LOST, POLL, Watch
from lcengine.engine.worker import Job, Report, execute
from lcengine.errors import InputError, RunError

TILES_PER_THREAD = 3
"""Tiles in flight per worker thread: enough that none waits for the driver."""
BATCH = 1000
"""Tiles submitted at once, at most."""
LINGER = 0.005
"""Seconds in which more reports may arrive: batches cost the scheduler half as much as singles."""
MOVES = 3
"""Times a tile may lose its worker to an orderly shutdown before it is a suspect too."""
ARRIVED = 1.0
"""Seconds after which an attempt must be where it was sent."""

STREAK = 50
"""Tiles given up one after the other, none in between done, at which a run is hopeless; on more
worker threads as many as there are."""

_BUSY: WeakSet[Client] = WeakSet()


def run(
    tiles: Iterable[int],
    function: TileFunction,
    client: Client,
    *,
    name: str = "tile",
    policy: Policy | None = None,
    warm_up: Callable[[], None] | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Run `function(tile, attempt)` for every tile, each number once, on the workers of `client`.

    A bounded window of tiles is known to the scheduler at a time, and receipts are dropped once
    heard: neither it nor the driver grows with the job. A tile that fails is tried again while the
    others go on. `warm_up` runs once per worker process. The function, the warm-up and their
    arguments must pickle.

    Raises `RunError` when the run cannot go on: scheduler lost, no worker, none with the resources,
    no progress, no tile that succeeds, another lcengine. `KeyboardInterrupt` is raised again after
    `policy.grace` seconds at most. Whatever happens, no task of the run stays on the scheduler.
    """
    if client in _BUSY:
        raise InputError("this client runs tiles already; give each run a client of its own")
    _BUSY.add(client)
    try:
        return _Run(tiles, function, client, name, policy or Policy(), warm_up, listener).drive()
    finally:
        _BUSY.discard(client)


@dataclass(slots=True)
class _Flight:
    """An attempt that the scheduler knows."""

    attempt: Attempt
    future: Future[None]
    since: float
    worker: str | None
    """Where it must run, if it runs apart from the others."""
    moves: int = 0


class _Run:
    def __init__(
        self,
        tiles: Iterable[int],
        function: TileFunction,
        client: Client,
        name: str,
        policy: Policy,
        warm_up: Callable[[], None] | None,
        listener: Listener | None,
    ) -> None:
        # A scheduler remembers keys for a while: a second run must not meet the first one's.
        self.name = f"{name}-{uuid.uuid4().hex[:8]}"
        self.client = client
        self.policy = policy
        self.listener = listener or Listener()
        self.agenda = Agenda(tiles, policy)
        self.link = Link(client, self.name, policy.resources)
        job = Job(self.name, self.link.topic, lcengine.__version__, function, warm_up)
        self.task = partial(execute, job)
        self.flights: dict[Key, _Flight] = {}
        self.done = 0
        self.failed: list[TileFailure] = []
        self.streak = 0
        self.watch = Watch(self.link, policy, self.listener)
        self.unreported: set[Key] = set()
        """Futures that were over at the last look though no worker had told why."""
        self.next_look = 0.0

    def drive(self) -> Outcome:
        """Until all tiles are through."""
        try:
            while not (self.agenda.empty and not self.flights):
                if self.watch.ready:
                    self.submit()
                self.receive(self.pause())
                self.look()
        except KeyboardInterrupt:
            self.drain()
            raise
        except links.CLOSED as error:
            # Before the watch saw it.
            raise RunError(LOST) from error
        finally:
            with suppress(*links.CLOSED):
                self.close()
        return Outcome(self.done, tuple(sorted(self.failed, key=lambda failure: failure.tile)))

    def pause(self) -> float:
        """Seconds to wait for messages: less where a tile's own pause ends before."""
        left = self.agenda.wake() - time.monotonic()
        return min(POLL, left) if left > 0 else POLL

    # ------------------------------------------------------------------------------ to the cluster

    def submit(self) -> None:
        """Start what may start now."""
        window = self.policy.window or TILES_PER_THREAD * max(1, self.watch.slots)
        room = window - len(self.flights)
        if self.flights and room < max(1, window // TILES_PER_THREAD):
            return
        flying = Counter(flight.attempt.company for flight in self.flights.values())
        pinned = {flight.worker for flight in self.flights.values() if flight.worker}
        idle = [worker for worker in self.watch.settled if worker not in pinned]
        crowd: list[Attempt] = []
        for attempt, worker in self.agenda.take(time.monotonic(), room, idle, flying, pinned):
            if worker is None:
                crowd.append(attempt)
            else:
                self.start([attempt], worker)
        for begin in range(0, len(crowd), BATCH):
            self.start(crowd[begin : begin + BATCH], None)

    def start(self, attempts: list[Attempt], worker: str | None) -> None:
        """Submit attempts as one graph: the scheduler's work per graph outweighs that per task."""
        keys: list[Key] = [(self.name, attempt.tile, attempt.number) for attempt in attempts]
        futures = self.client.map(
            self.task,
            [attempt.tile for attempt in attempts],
            [attempt.number for attempt in attempts],
            key=keys,
            workers=None if worker is None else [worker],
            resources=dict(self.policy.resources) or None,
            pure=False,
        )
        now = time.monotonic()
        for key, attempt, future in zip(keys, attempts, futures, strict=True):
            self.flights[key] = _Flight(attempt, future, now, worker)

    def land(self, key: Key) -> _Flight | None:
        """The scheduler need not know this attempt any more; None where it was let go before."""
        flight = self.flights.pop(key, None)
        if flight is not None:
            flight.future.release()
        return flight

    def close(self) -> None:
        """Leave nothing on the scheduler."""
        for key in list(self.flights):
            self.land(key)
        self.link.close()

    def drain(self) -> None:
        """Let what runs finish, for `grace` seconds; what has not begun is dropped."""
        deadline = time.monotonic() + self.policy.grace
        begun = self.link.processing(timeout=min(2.0, self.policy.grace))
        for key in self.flights.keys() - begun.keys():
            self.land(key)
        while self.flights and self.link.alive and time.monotonic() < deadline:
            self.receive(min(POLL, max(0.0, deadline - time.monotonic())))

    # ---------------------------------------------------------------------------- from the cluster

    def receive(self, timeout: float) -> None:
        """Handle the messages there are; wait for the first."""
        messages = self.link.messages
        try:
            message = messages.get(timeout=timeout)
        except queue.Empty:
            return
        if len(self.flights) > 1:
            time.sleep(LINGER)
        while True:
            self.handle(message)
            try:
                message = messages.get_nowait()
            except queue.Empty:
                return

    def handle(self, message: links.Message) -> None:
        """One message."""
        if isinstance(message, links.Told):
            self.told(message.key, message.report)
        elif isinstance(message, links.Left):
            self.left(message)
        else:
            self.watch.heard(message)

    def left(self, message: links.Left) -> None:
        """A worker is gone: what it had is lost, or moves by Dask's own hand."""
        why = self.watch.left(message.worker)
        for key in message.keys & self.flights.keys():
            flight = self.flights[key]
            flight.moves += 1
            if not message.expected or flight.moves > MOVES:
                self.land(key)
                self.lost(flight.attempt, why)

    def told(self, key: Key, report: Report) -> None:
        """A worker's report; one of an attempt that was let go is nothing new."""
        flight = self.land(key)
        if flight is None:
            return
        if report.version:
            raise RunError(f"{report.error}; {KEPT}")
        if report.receipt is None:
            self.erred(flight.attempt, report.error, report.permanent, report.memory)
            return
        self.done += 1
        self.streak = 0
        self.watch.progress()
        self.listener.on_done(report.receipt)

    def erred(self, attempt: Attempt, error: str, permanent: bool, memory: bool) -> None:
        """An attempt raised."""
        now = time.monotonic()
        again = self.agenda.failed(attempt, error, now, permanent=permanent, memory=memory)
        self.settle(attempt.failure(error), again)

    def lost(self, attempt: Attempt, error: str) -> None:
        """An attempt's worker died."""
        again = self.agenda.lost(attempt, time.monotonic())
        self.settle(attempt.failure(error, quarantined=not again), again)

    def settle(self, failure: TileFailure, again: bool) -> None:
        """Tell of a failed attempt."""
        if again:
            self.listener.on_retry(failure)
            return
        self.failed.append(failure)
        self.streak += not failure.quarantined
        self.watch.progress()
        self.listener.on_failed(failure)
        if self.agenda.fresh and self.streak >= max(STREAK, self.watch.slots):
            raise RunError(
                f"{self.streak} tiles failed one after the other, the last: tile {failure.tile}: "
                f"{failure.error}; the others were not tried; {KEPT}"
            )

    # --------------------------------------------------------------------------- what nobody tells

    def look(self) -> None:
        """Compare with what the cluster should be like, now and then."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + POLL
        flights = [(key, flight.attempt.tile, flight.since) for key, flight in self.flights.items()]
        self.watch.look(now, flights)
        self.look_at_futures()
        for key, flight in list(self.flights.items()):
            gone = flight.worker is not None and flight.worker not in self.watch.suitable
            if gone and now - flight.since > ARRIVED:
                self.land(key)
                self.agenda.put_back(flight.attempt, now)

    def look_at_futures(self) -> None:
        """Attempts that were over at two looks though no report of them came."""
        over = {key for key, flight in self.flights.items() if flight.future.status in links.OVER}
        for key in self.unreported & over:
            self.unexplained(key, self.flights[key])
        self.unreported = over

    def unexplained(self, key: Key, flight: _Flight) -> None:
        """An attempt is over and its worker did not say so: Dask knows more."""
        if flight.future.status != "error":
            raise RunError(
                f"the Dask scheduler dropped tile {flight.attempt.tile}: it was restarted or lost "
                f"its connection; {KEPT}"
            )
        error = links.error_of(flight.future)
        self.land(key)
        if isinstance(error, KilledWorker):
            self.lost(flight.attempt, f"its worker {error.last_worker.address} died")
        else:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.erred(flight.attempt, text, permanent=False, memory=False)
