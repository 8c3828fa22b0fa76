"""Runs on a healthy cluster: retries, bounds, watchdogs, and a scheduler left clean."""

from __future__ import annotations

import threading
import time
from functools import partial

import archives
import distributed
import processes
import pytest
import tasks
from distributed.diagnostics.plugin import SchedulerPlugin

from lcengine import engine, jobs
from lcengine.engine import Listener, Outcome, Policy
from lcengine.errors import InputError, RunError, StoreError
from lcengine.simulate import SimulationOptions, simulate

QUICK = Policy(backoff=0.05)


class Census(SchedulerPlugin):
    """Which tasks a scheduler ever knew, and how many at once."""

    def __init__(self, client):
        self.scheduler = client.cluster.scheduler
        self.seen = set()
        self.most = 0

    def transition(self, key, start, finish, *args, **kwargs):
        self.seen.add(key)
        self.most = max(self.most, len(self.scheduler.tasks))

    def __enter__(self):
        self.scheduler.add_plugin(self, name="census")
        return self

    def __exit__(self, *_):
        self.scheduler.remove_plugin("census")


class Heard:
    """Everything a run told, in order."""

    def __init__(self):
        self.done, self.failed, self.retried, self.workers = [], [], [], []
        self.listener = Listener(
            self.done.append,
            self.failed.append,
            self.retried.append,
            lambda *numbers: self.workers.append(numbers),
        )

    @property
    def tiles(self):
        return sorted(receipt["tile"] for receipt in self.done)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture(autouse=True)
def left_clean(request):
    """After each test, however its run ended."""
    yield
    if "client" in request.fixturenames:
        assert processes.is_clean(request.getfixturevalue("client").cluster)


class TestReceipts:
    def test_of_all_tiles(self, client, heard):
        found = engine.run(range(9), tasks.plain, client, listener=heard.listener)
        assert found == Outcome(9)
        assert heard.tiles == list(range(9))
        assert {receipt["attempt"] for receipt in heard.done} == {0}
        assert heard.failed == heard.retried == []
        assert heard.workers == [(1, 2)]

    def test_nothing_to_do(self, client):
        assert engine.run([], tasks.plain, client) == Outcome(0)

    def test_come_back_as_they_were(self, client, heard):
        receipt = {"tile": 1, "list": [1, [2]], "large": 2**70, "none": None, "text": "é"}
        engine.run([1], lambda *_: receipt, client, listener=heard.listener)
        assert heard.done == [receipt]

    def test_arrays_are_refused(self, client):
        found = engine.run([1], lambda *_: {"x": {1, 2}}, client, policy=Policy(retries=0))
        assert "not JSON serializable" in found.failed[0].error

    def test_any_iterable(self, client, heard):
        engine.run((n * n for n in range(4)), tasks.plain, client, listener=heard.listener)
        assert heard.tiles == [0, 1, 4, 9]


class TestFailures:
    def test_a_tile_that_fails_is_retried(self, client, heard, tmp_path):
        task = partial(tasks.fate, tmp_path, {2: "ff"})
        found = engine.run(range(4), task, client, policy=QUICK, listener=heard.listener)
        assert found == Outcome(4)
        assert [r["attempt"] for r in heard.done if r["tile"] == 2] == [2]
        assert [(f.tile, f.error, f.attempts) for f in heard.retried] == [
            (2, "OSError: tile 2 failed", 1),
            (2, "OSError: tile 2 failed", 2),
        ]

    def test_the_others_go_on_meanwhile(self, client, heard, tmp_path):
        task = partial(tasks.fate, tmp_path, {0: "f"})
        policy = Policy(backoff=0.8)
        engine.run(range(8), task, client, policy=policy, listener=heard.listener)
        assert heard.done[-1]["tile"] == 0
        assert heard.tiles == list(range(8))

    def test_given_up_after_the_retries(self, client, heard, tmp_path):
        task = partial(tasks.fate, tmp_path, {1: "F", 5: "F"})
        found = engine.run(range(8), task, client, policy=QUICK, listener=heard.listener)
        assert found.done == 6
        assert [(f.tile, f.attempts, f.quarantined) for f in found.failed] == [
            (1, 3, False),
            (5, 3, False),
        ]
        assert sorted(heard.failed, key=lambda f: f.tile) == list(found.failed)
        assert tasks.attempts(tmp_path) == {n: 3 if n in (1, 5) else 1 for n in range(8)}

    @pytest.mark.parametrize(
        ("error", "attempts"),
        [(InputError("no such band"), 1), (StoreError("does not read back"), 3)],
    )
    def test_what_another_attempt_cannot_cure_is_not_retried(self, client, error, attempts):
        def task(tile, attempt):
            raise error

        found = engine.run([7], task, client, policy=QUICK)
        assert [(f.error, f.attempts) for f in found.failed] == [(str(error), attempts)]

    def test_where_nothing_succeeds_the_rest_is_not_tried(self, client, heard):
        def task(tile, attempt):
            raise InputError("the disk is gone")

        with pytest.raises(
            RunError, match=r"50 tiles failed one after the other.*the disk is gone"
        ):
            engine.run(range(1000), task, client, listener=heard.listener)
        assert len(heard.failed) == 50

    def test_one_success_in_between_is_hope(self, client, heard):
        def task(tile, attempt):
            if tile % 40:
                raise InputError("a bad region")
            return {"tile": tile}

        found = engine.run(range(120), task, client, listener=heard.listener)
        assert (found.done, len(found.failed)) == (3, 117)

    def test_what_does_not_fit_runs_alone_and_smaller(self, client, heard, tmp_path):
        task = partial(tasks.fate, tmp_path, {3: "mm"})
        found = engine.run(range(20), task, client, policy=QUICK, listener=heard.listener)
        assert found == Outcome(20)
        assert heard.done[-1] | {"pid": 0} == {"tile": 3, "attempt": 2, "pid": 0}

    def test_a_task_that_cannot_be_loaded(self, client):
        """Dask alone knows of it: no worker gets as far as a report."""

        class Broken:
            def __call__(self, *_):
                raise AssertionError

            def __reduce__(self):
                return (int, ("not a number",))

        found = engine.run([1], Broken(), client, policy=Policy(backoff=0.05, retries=1))
        assert [f.tile for f in found.failed] == [1]
        assert "ValueError" in found.failed[0].error or "RuntimeError" in found.failed[0].error

    def test_pauses_double_and_differ(self):
        policy = Policy(backoff=2.0)
        first = [policy.pause(tile, 1) for tile in range(50)]
        assert all(2.0 <= pause < 2.5 for pause in first)
        assert len(set(first)) == 50
        assert [policy.pause(9, n) / policy.pause(9, 1) for n in (1, 2, 3)] == [1, 2, 4]

    @pytest.mark.parametrize(
        "wrong",
        [{"window": 0}, {"retries": -1}, {"patience": float("nan")}, {"resources": {"GPU": 0}}],
    )
    def test_a_policy_that_cannot_be_meant(self, wrong):
        (name,) = wrong
        with pytest.raises(InputError, match=name[:6]):
            Policy(**wrong)


class TestWarmUp:
    def test_once_per_process(self, client, heard, tmp_path):
        def warm_up():
            import os

            time.sleep(0.3)
            with (tmp_path / "warmed").open("a") as file:
                file.write(f"{os.getpid()}\n")

        def task(tile, attempt):
            return {"tile": tile, "warm": (tmp_path / "warmed").exists()}

        engine.run(range(9), task, client, warm_up=warm_up, listener=heard.listener)
        assert len((tmp_path / "warmed").read_text().splitlines()) == 1
        assert all(receipt["warm"] for receipt in heard.done)

    def test_that_fails_is_told_once_and_no_obstacle(self, client):
        def warm_up():
            raise OSError("no cache")

        with pytest.warns(RuntimeWarning, match=r"warm-up failed on worker tcp.*no cache") as told:
            assert engine.run(range(9), tasks.plain, client, warm_up=warm_up) == Outcome(9)
        assert len(told) == 1


class TestBounds:
    """FAULTS 12: neither scheduler nor driver grows with the job."""

    @pytest.mark.parametrize(("window", "size"), [(3, 3), (None, 6)])
    def test_of_what_the_scheduler_knows(self, client, window, size):
        with Census(client) as census:
            engine.run(range(60), tasks.plain, client, policy=Policy(window=window))
        assert len(census.seen) == 60
        # Finished tiles are let go while the next ones are on their way.
        assert 1 < census.most <= 2 * size

    def test_a_worker_that_joins_is_used(self, heard):
        def task(tile, attempt):
            time.sleep(0.1)
            return {"tile": tile, "thread": threading.get_ident()}

        with in_process_cluster(1) as cluster, distributed.Client(cluster) as client:
            cluster.scale(1)

            def more(receipt):
                heard.done.append(receipt)
                if len(heard.done) == 1:
                    cluster.scale(2)

            listener = Listener(more, on_workers=lambda *n: heard.workers.append(n))
            with Census(client) as census:
                engine.run(range(30), task, client, listener=listener)
        assert heard.tiles == list(range(30))
        assert len({receipt["thread"] for receipt in heard.done}) == 2
        assert heard.workers == [(1, 1), (2, 2)]
        assert 4 < census.most <= 12

    def test_one_run_per_client(self, client):
        def again(_):
            engine.run([1], tasks.plain, client)

        with pytest.raises(InputError, match="a client of its own"):
            engine.run([1], tasks.plain, client, listener=Listener(again))
        assert engine.run([1], tasks.plain, client) == Outcome(1)

    def test_beside_other_work_on_the_scheduler(self, client):
        with distributed.Client(client.scheduler.address) as other:
            future = other.submit(lambda: 42)
            assert engine.run(range(5), tasks.plain, client) == Outcome(5)
            assert future.result() == 42
            there = client.cluster.scheduler.tasks
            assert processes.until(lambda: list(there) == [future.key], 10)


def in_process_cluster(workers):
    """A scheduler and single-threaded workers, all in this process."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
    )


class TestWatchdogs:
    def test_no_progress(self, client):
        """The tiles end by themselves later: a thread cannot be stopped."""
        task = partial(tasks.slow, 2.0)
        with pytest.raises(
            RunError, match=r"no tile finished for 0.6 s: 6 in flight on 1 workers"
        ) as e:
            engine.run(range(9), task, client, policy=Policy(patience=0.6))
        assert "with 2 threads (tile 0 for 1 s on tcp://127.0.0.1" in str(e.value)
        assert "run the same command again" in str(e.value)

    def test_no_worker_at_the_scheduler(self):
        policy = Policy(worker_timeout=0.3)
        with processes.bare() as (client, cluster):
            with pytest.raises(RunError, match=r"no worker joined .* 0.3 s; .*`dask worker`"):
                engine.run([0], tasks.plain, client, policy=policy)
            assert processes.is_clean(cluster)

    def test_no_worker_with_the_resource(self, client):
        """FAULTS 8."""
        policy = Policy(worker_timeout=0.3, resources={"GPU": 1})
        with pytest.raises(RunError, match=r"no worker offered GPU=1 for 0.3 s.*1 workers lack it"):
            engine.run([0], tasks.plain, client, policy=policy)

    def test_a_listener_that_fails(self, client):
        def full(_):
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            engine.run(range(99), tasks.plain, client, listener=Listener(full))

    def test_an_interrupt(self, client, heard):
        """What runs is accepted, what waits is dropped, and the interrupt goes on its way."""

        def strike(receipt):
            heard.done.append(receipt)
            if len(heard.done) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.run(range(99), partial(tasks.slow, 0.2), client, listener=Listener(strike))
        assert 3 < len(heard.done) <= 9
        assert len(set(heard.tiles)) == len(heard.done)


@pytest.mark.slow
class TestComposite:
    """The graph grows with the tiles, never with dates, bands or chunks."""

    def test_one_task_per_tile_and_few_at_a_time(self, tmp_path, client):
        options = SimulationOptions(size=96, dates=3, seed=8, bands=("blue", "swir16"))
        world = simulate(tmp_path / "sim", options)
        plan = archives.request(world.catalog, "blue", "swir16", tile=16).plan()
        assert len(plan.reads.tiles) == 36
        with Census(client) as census:
            jobs.run(plan, tmp_path / "out.zarr", client=client)
        assert len(census.seen) == 36
        assert 0 < census.most <= 12

        def threading_layer():
            import numba

            try:
                return numba.threading_layer()
            except ValueError:
                return None

        # FAULTS 6: two threads of a worker ran the kernels, and no layer of numba's was entered.
        assert set(client.run(threading_layer).values()) == {None}
