"""The agenda alone, against a cluster in which workers die as drawn."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lcengine.engine import Policy
from lcengine.engine.agenda import Agenda, Company

KINDS = ["f", "ff", "F", "k", "kk", "K", "m", "mm", "M", "p", "P"]
FATES = st.dictionaries(st.integers(0, 29), st.sampled_from(KINDS))


def behaviour(fate, attempt):
    """What an attempt does, in a letter; "" succeeds."""
    if attempt < len(fate):
        return fate[attempt].lower()
    return fate[-1].lower() if fate.isupper() else ""


class Cluster:
    """Workers of a few threads; steps through a run in the order that `dice` says."""

    def __init__(self, agenda, fates, dice, workers, threads):
        self.agenda, self.fates, self.dice = agenda, fates, dice
        self.workers = [f"host{n // 2}:{n}" for n in range(workers)]
        self.threads = threads
        self.running = []
        self.now = 0.0
        self.done, self.failed = [], {}

    def start(self):
        flying = Counter(attempt.company for attempt, _ in self.running)
        pinned = {worker for attempt, worker in self.running if attempt.company}
        idle = [worker for worker in self.workers if worker not in pinned]
        room = len(self.workers) * self.threads - len(self.running)
        for attempt, worker in self.agenda.take(self.now, room, idle, flying, pinned):
            assert (worker is None) == (attempt.company is Company.ANY)
            self.running.append((attempt, worker or self.emptiest()))
        companies = Counter(attempt.company for attempt, _ in self.running)
        if companies[Company.OWN_WORKER]:
            assert len({worker for _, worker in self.running}) == len(self.running)
        if companies[Company.OWN_HOST]:
            hosts = {worker.partition(":")[0] for _, worker in self.running}
            assert len(hosts) == len(self.running) == companies[Company.OWN_HOST]

    def emptiest(self):
        load = Counter(worker for _, worker in self.running)
        return min(self.workers, key=lambda worker: load[worker])

    def finish(self):
        """One running attempt comes to its end."""
        attempt, worker = self.running.pop(self.dice(len(self.running)))
        match behaviour(self.fates.get(attempt.tile, " "), attempt.number).strip():
            case "":
                self.done.append(attempt.tile)
            case "k":
                victims = [(attempt, worker)] + [r for r in self.running if r[1] == worker]
                self.running = [r for r in self.running if r[1] != worker]
                for victim, _ in victims:
                    if not self.agenda.lost(victim, self.now):
                        self.failed[victim.tile] = "quarantined"
            case letter:
                permanent, memory = letter == "p", letter == "m"
                if not self.agenda.failed(
                    attempt, "", self.now, permanent=permanent, memory=memory
                ):
                    self.failed[attempt.tile] = "failed"

    def run(self):
        for step in itertools.count():
            assert step < 5000
            self.start()
            if self.running:
                self.finish()
            elif self.agenda.empty:
                return
            else:
                self.now += 0.5


@given(FATES, st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 4))
def test_the_guilty_are_found_and_the_innocent_succeed(fates, random, workers, threads):
    agenda = Agenda(range(30), Policy(retries=2))
    cluster = Cluster(agenda, fates, random.randrange, workers, threads)
    cluster.run()
    surely = {
        tile
        for tile in range(30)
        if tile not in fates or (not fates[tile].isupper() and fates[tile] != "p")
    }
    doomed = {t: "quarantined" if f == "K" else "failed" for t, f in fates.items() if f.isupper()}
    assert doomed.items() <= cluster.failed.items()
    assert surely <= set(cluster.done)
    assert len(cluster.done) == len(set(cluster.done))
    assert set(cluster.done) | set(cluster.failed) == set(range(30))
    assert not set(cluster.done) & set(cluster.failed)


def test_pauses_hold_up_nobody():
    agenda = Agenda(range(3), Policy(backoff=10))
    (first, _), *_ = agenda.take(0.0, 2, [], Counter())
    assert agenda.failed(first, "", 0.0, permanent=False, memory=False)
    assert [a.tile for a, _ in agenda.take(0.0, 5, [], Counter())] == [2]
    assert 10 <= agenda.wake() < 12.5
    assert agenda.take(9.0, 5, [], Counter()) == []
    ((again, _),) = agenda.take(agenda.wake(), 5, [], Counter())
    assert (again.tile, again.number, again.errors) == (first.tile, 1, 1)
    assert agenda.empty


def test_an_attempt_that_did_not_take_place_is_no_mark():
    agenda = Agenda([5], Policy(retries=0))
    ((attempt, _),) = agenda.take(0.0, 2, [], Counter())
    agenda.put_back(attempt, 0.0)
    ((again, _),) = agenda.take(0.0, 2, [], Counter())
    assert (again.number, again.errors, again.company) == (1, 0, Company.ANY)
