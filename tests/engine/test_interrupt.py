"""An interrupted driver: what is finished is kept, the same command ends in the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import archives
import processes
import psutil
import pytest

from lcengine.simulate import SimulationOptions, simulate
from lcengine.store import target


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=8, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


COLUMNS = 6
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
                "error: interrupted; what is finished is kept, run the same command again to resume"
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


DRIVER = """
import sys
from functools import partial
import distributed, tasks
from lcengine import engine

address, grace = sys.argv[1], float(sys.argv[2])
listener = engine.Listener(lambda receipt: print(receipt["tile"], flush=True))
with distributed.Client(address) as client:
    engine.run(range(999), partial(tasks.slow, 1.0), client,
               policy=engine.Policy(grace=grace), listener=listener)
"""


@pytest.fixture(scope="module")
def cluster():
    with (
        processes.bare() as (client, cluster),
        processes.workers(cluster.scheduler_address, 1, 2),
    ):
        client.wait_for_workers(1, timeout=30)
        yield cluster


@pytest.fixture
def driver(cluster, tmp_path, request):
    """A driver process and the file to which it writes its tiles; two of them run at a time."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ("-c", DRIVER, cluster.scheduler_address, request.param)
    with (
        (tmp_path / "out").open("w") as out,
        processes.process(*command, stdout=out, stderr=subprocess.PIPE) as child,
    ):
        signal.signal(signal.SIGINT, before)
        assert processes.until(lambda: len((tmp_path / "out").read_text().split()) >= 2)
        time.sleep(0.3)
        yield child, tmp_path / "out"


class TestGrace:
    """FAULTS 13: what runs when the signal arrives may finish; a second signal ends that."""

    @pytest.mark.parametrize("driver", [10.0], indirect=True)
    def test_what_runs_is_accepted(self, driver, cluster):
        child, out = driver
        before = len(out.read_text().split())
        child.send_signal(signal.SIGINT)
        child.wait(timeout=20)
        assert child.returncode != 0
        assert 1 <= len(out.read_text().split()) - before <= 3
        assert processes.is_clean(cluster)

    @pytest.mark.parametrize("driver", [0.0], indirect=True)
    def test_without_grace_nothing_is_waited_for(self, driver, cluster):
        child, out = driver
        before = out.read_text()
        child.send_signal(signal.SIGINT)
        child.wait(timeout=20)
        assert out.read_text() == before
        assert processes.is_clean(cluster)

    @pytest.mark.parametrize("driver", [600.0], indirect=True)
    def test_a_second_signal_ends_at_once(self, driver, cluster):
        child, out = driver
        before = out.read_text()
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        child.wait(timeout=20)
        assert out.read_text() == before
        assert processes.is_clean(cluster)

    @pytest.mark.parametrize("driver", [600.0], indirect=True)
    def test_a_killed_driver_leaves_nothing_on_the_scheduler(self, driver, cluster):
        child, _ = driver
        child.kill()
        child.wait(timeout=20)
        assert processes.is_clean(cluster)
