"""Runs on a cluster: bounded for the scheduler, and nothing lost when they are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker

import archives
import distributed
import psutil
import pytest
from distributed.diagnostics.plugin import SchedulerPlugin

from lcengine import engine
from lcengine.composite import run_composite
from lcengine.errors import RunError
from lcengine.simulate import SimulationOptions, simulate
from lcengine.store import target


@pytest.fixture(scope="module")
def client():
    with engine.local_client(1, 2) as found:
        yield found


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


class TestRun:
    def test_receipts_of_all_tiles(self, client):
        heard = []
        found = engine.run(
            range(9), lambda n: {"tile": n}, client, name="all", listener=heard.append
        )
        assert sorted(r["tile"] for r in found) == list(range(9))
        assert heard == found

    def test_nothing_to_do(self, client):
        assert engine.run([], lambda n: {"tile": n}, client) == []

    def test_a_tile_that_fails_is_retried(self, client, tmp_path):
        def once(number):
            mark = tmp_path / str(number)
            if number == 2 and not mark.exists():
                mark.touch()
                raise OSError("the first time")
            return {"tile": number}

        assert len(engine.run(range(4), once, client, name="retried")) == 4

    def test_the_others_go_on_when_tiles_fail(self, client, tmp_path):
        def task(number):
            if number in (1, 5):
                raise ValueError(f"tile {number} is bad")
            (tmp_path / str(number)).touch()
            return {"tile": number}

        with pytest.raises(RunError) as caught:
            engine.run(range(8), task, client, name="failing", window=2)
        message = str(caught.value)
        assert message.startswith("2 of 8 tiles failed, the first: tile 1: tile 1 is bad")
        assert "run the same command again" in message
        assert sorted(int(p.name) for p in tmp_path.iterdir()) == [0, 2, 3, 4, 6, 7]

    def test_no_scheduler_at_the_address(self, monkeypatch):
        monkeypatch.setattr(engine, "CONNECT_TIMEOUT", "0.3s")
        address = "tcp://127.0.0.1:1"
        with pytest.raises(RunError, match="no Dask scheduler answers"), engine.connect(address):
            pass

    def test_no_worker_at_the_scheduler(self, monkeypatch):
        monkeypatch.setattr(engine, "WORKER_TIMEOUT", 0.2)
        with (
            in_process_cluster(0) as cluster,
            distributed.Client(cluster) as client,
            pytest.raises(RunError, match=r"no worker joined the Dask scheduler .*`dask worker`"),
        ):
            engine.run([0], lambda n: {"tile": n}, client)

    def test_workers_ignore_ctrl_c(self, client):
        """A terminal sends it to the whole group: the driver alone decides what happens."""
        pids = client.run(os.getpid)
        for pid in pids.values():
            os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        assert client.run(os.getpid) == pids


def in_process_cluster(workers):
    """A scheduler and single-threaded workers, all in this process."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
    )


class TestRoom:
    """Without a window of its own, a run keeps as many tiles in flight as the workers need."""

    class Workers:
        """What a client knows of threads."""

        def __init__(self):
            self.threads = {}
            self.asked = 0

        def nthreads(self):
            self.asked += 1
            return self.threads

    def test_follows_the_workers(self, monkeypatch):
        monkeypatch.setattr(engine, "ROOM_SECONDS", 0.0)
        workers = self.Workers()
        room = engine._Room(workers, None)
        assert room.size() == 3
        workers.threads = {"a": 4}
        assert room.size() == 12
        workers.threads = {"a": 4, "b": 4}
        assert room.size() == 24
        workers.threads = {"b": 4}
        assert room.size() == 12

    def test_asks_the_scheduler_now_and_then_only(self):
        workers = self.Workers()
        workers.threads = {"a": 2}
        room = engine._Room(workers, None)
        assert {room.size() for _ in range(100)} == {6}
        assert workers.asked == 1

    def test_a_given_window_stays(self):
        workers = self.Workers()
        assert engine._Room(workers, 5).size() == 5
        assert workers.asked == 0

    def test_a_worker_that_joins_is_used(self, monkeypatch):
        monkeypatch.setattr(engine, "ROOM_SECONDS", 0.0)

        def task(number):
            time.sleep(0.05)
            return {"tile": number, "thread": threading.get_ident()}

        with in_process_cluster(1) as cluster, distributed.Client(cluster) as client:
            heard = []

            def listen(receipt):
                if not heard:
                    cluster.scale(2)
                    client.wait_for_workers(2, timeout=30)
                heard.append(receipt)

            with Census(client) as census:
                found = engine.run(range(12), task, client, name="grown", listener=listen)
        assert sorted(r["tile"] for r in found) == list(range(12))
        assert len({r["thread"] for r in found}) == 2
        assert census.most >= 6


class TestProgress:
    def test_pace_and_time_left(self):
        progress = engine.Progress(tiles=10, done=4, resumed=2, pixels=600)
        progress.started = time.monotonic() - 6
        assert progress.pixels_per_second == pytest.approx(100, rel=0.1)
        assert progress.eta == pytest.approx(18, rel=0.1)

    def test_before_the_first_tile(self):
        assert engine.Progress(tiles=10, done=2, resumed=2).eta is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=8, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


class TestScheduler:
    """The graph grows with the tiles, never with dates, bands or chunks."""

    def test_sees_one_task_per_tile_and_few_at_a_time(self, world, tmp_path, client):
        plan = archives.request(world.catalog, "blue", "swir16", tile=16).plan()
        tiles = len(plan.reads.tiles)
        assert tiles == 36
        with Census(client) as census:
            run_composite(plan, tmp_path / "out.zarr", client=client)
        assert tiles <= len(census.seen) <= tiles + 2
        window = 3 * sum(client.nthreads().values())
        assert 0 < census.most <= window + 2
        assert window < tiles

    def test_the_window_bounds_what_is_known(self, client):
        with Census(client) as census:
            engine.run(range(40), lambda n: {"tile": n}, client, name="window", window=3)
        assert len(census.seen) == 40
        assert census.most <= 4  # one may be on its way out while the next comes in


COLUMNS = 12
"""Tiles along an axis of the world that is interrupted."""


class Driver:
    """`lcengine composite` as a process group of its own, as a shell would start it."""

    def __init__(self, catalog, output, *options):
        command = [sys.executable, "-m", "lcengine", "composite", str(catalog)]
        command += ["--outliers", "none"]
        command += ["-o", str(output), "--bands", "blue,swir16", "--tile", "16", *options]
        self.home = output.parent / f".{output.name}.lcengine"
        # A background job ignores Ctrl-C, and so would its children: start as a shell would.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, before)
        self.family = []

    @property
    def markers(self):
        return list(self.home.glob("*.work/tiles/*.json"))

    def wait_for_tiles(self, count):
        assert archives.until(lambda: len(self.markers) >= count or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        assert self.family

    def finish(self):
        """(exit code, stdout, stderr) once no process of it is left."""
        out, err = self.process.communicate(timeout=120)
        _, alive = psutil.wait_procs(self.family, timeout=30)
        assert alive == []
        return self.process.returncode, out, err

    def shards(self):
        """Identity of the written files of every finished tile."""
        written = {}
        for marker in self.markers:
            row, col = divmod(int(marker.stem), COLUMNS)
            for path in self.home.glob(f"*/*/c/{row}/{col}"):
                status = path.stat()
                written[path] = (status.st_ino, status.st_mtime_ns)
        return written


@pytest.fixture(scope="module")
def long_world(tmp_path_factory):
    """So many tiles that a run is still far from its end when the signal arrives."""
    options = SimulationOptions(size=16 * COLUMNS, dates=3, seed=8, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("long") / "sim", options)


@pytest.fixture(scope="module")
def undisturbed(long_world, tmp_path_factory, client):
    """The files of a product whose run nobody interrupted."""
    output = tmp_path_factory.mktemp("undisturbed") / "out.zarr"
    driver = Driver(long_world.catalog, output)
    code, _, err = driver.finish()
    assert code == 0, err
    return archives.tree(output)


@pytest.mark.slow
class TestInterruption:
    """FAULTS 2 and 13: the same command goes on where it stopped and ends in the same bytes."""

    @pytest.mark.parametrize(
        ("strike", "code"),
        [
            (lambda process: os.killpg(process.pid, signal.SIGINT), 130),
            (lambda process: process.terminate(), 130),
            (lambda process: process.kill(), -signal.SIGKILL),
        ],
        ids=["ctrl-c", "sigterm", "kill-9"],
    )
    def test_is_resumed(self, long_world, tmp_path, undisturbed, strike, code):
        output = tmp_path / "out.zarr"
        first = Driver(long_world.catalog, output)
        first.wait_for_tiles(5)
        strike(first.process)
        returned, out, err = first.finish()
        assert returned == code
        assert out == ""
        if code == 130:
            last = [line for line in err.splitlines() if not line.startswith("tiles ")]
            assert last == [
                "error: interrupted; finished tiles are kept, run the same command again to resume"
            ]
        finished = len(first.markers)
        assert 5 <= finished < COLUMNS**2
        assert not output.exists()
        written = first.shards()
        assert len(written) == 5 * finished

        second = Driver(long_world.catalog, output)
        returned, _, err = second.finish()
        assert returned == 0, err
        assert f"tiles {finished}/{COLUMNS**2} ({finished} from an earlier run)" in err
        for path, identity in written.items():
            status = path.stat()
            assert (status.st_ino, status.st_mtime_ns) == identity
        assert archives.tree(output) == undisturbed

    def test_a_second_driver_is_refused_meanwhile(self, world, tmp_path):
        """FAULTS 14."""
        output = tmp_path / "out.zarr"
        with target(output).exclusive():
            code, _, err = Driver(world.catalog, output).finish()
        assert code == 7
        assert err.startswith(f"error: another run is writing {output}; ")
        assert len(err.splitlines()) == 1


def children():
    """Processes below this one."""
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_cluster_starts_is_not_lost(monkeypatch, number):
    """Held back until the workers are there, then raised; no process is left."""
    resource_tracker.ensure_running()  # multiprocessing's own process, which outlives clusters
    before = children()
    struck = []
    start = distributed.LocalCluster

    def strike():
        assert archives.until(lambda: children() - before)
        struck.append(children() - before)
        os.kill(os.getpid(), number)

    def starting(**options):
        thread = threading.Thread(target=strike)
        thread.start()
        try:
            return start(**options)
        finally:
            thread.join()  # the signal has been sent before the start is over

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed, "LocalCluster", starting)
    restored = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    entered = []
    try:
        with pytest.raises(KeyboardInterrupt), engine.local_client(1, 1):
            entered.append(True)
        assert signal.getsignal(number) is interrupt
    finally:
        for held, handler in restored.items():
            signal.signal(held, handler)
    assert len(struck) == 1
    assert struck[0]
    assert entered == []
    _, alive = psutil.wait_procs(struck[0] | (children() - before), timeout=10)
    assert alive == []
