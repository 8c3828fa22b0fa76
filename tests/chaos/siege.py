"""A cluster of real processes, a driver from the command line, and SIGKILL for any of them.

`besiege` runs one composite to its end while workers, scheduler and driver die at random moments;
whoever looks after a cluster in practice (systemd, SLURM, Kubernetes, a person) is `Cluster.heal`,
which starts again what is gone. `benchmarks/chaos.py` does the same for hours.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fault_server import FaultServer

from lcengine.grid import Grid
from lcengine.simulate import SimulationOptions, items_collection, simulate

OK, STOPPED = 0, {-signal.SIGKILL, 7, 8}
"""Exit codes of a driver under siege: its own death, and named errors that tell to run again."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


DELAY = 0.05
"""Seconds that the archive lets a request wait, so that deaths meet tiles in the making."""


@contextmanager
def far_archive(folder):
    """A simulated archive behind a slow server: what to give `lcengine composite` to read it."""
    bands = ("blue", "swir16")
    world = simulate(folder / "sim", SimulationOptions(size=384, dates=6, seed=4, bands=bands))
    with FaultServer(world.path) as server:
        server.fault("", late)
        items = folder / "items.json"
        items.write_text(json.dumps(items_collection(world.path, server.url)))
        recipe = ["--bands", ",".join(bands), "--mask", "scl", "--outliers", "none"]
        yield [str(items), *recipe, "--tile", "64", "--allow-host", "127.0.0.1"]


def late(handler, send_body):
    """The usual answer after a while."""
    time.sleep(DELAY)
    handler.usual(send_body)


class Cluster:
    """A scheduler and workers under nannies, each a process of its own."""

    def __init__(self, folder, workers=2, threads=2, memory="1GiB"):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.worker_options = ["--nthreads", str(threads), "--memory-limit", memory]
        self.scheduler = None
        self.nannies = [None] * workers

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def _start(self, name, *options):
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "distributed.cli.dask_" + name.split("-")[0]]
            return subprocess.Popen([*command, *options], stdout=log, stderr=log)

    def heal(self):
        """Start what is not running."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            place = ["--host", "127.0.0.1", "--port", str(self.port)]
            self.scheduler = self._start("scheduler", *place, "--no-dashboard")
            self._await_scheduler()
        for number, nanny in enumerate(self.nannies):
            if nanny is None or nanny.poll() is not None:
                space = ["--local-directory", str(self.folder), "--no-dashboard"]
                self.nannies[number] = self._start(
                    f"worker-{number}", self.address, "--host", "127.0.0.1",
                    *self.worker_options, *space, "--death-timeout", "60",
                )  # fmt: skip

    def _await_scheduler(self):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"no scheduler at {self.address} within 30 s")

    def worker_processes(self):
        """The processes that compute, below the nannies."""
        found = []
        for nanny in self.nannies:
            if nanny is not None and nanny.poll() is None:
                for child in children(nanny.pid):
                    if "spawn_main" in " ".join(command_of(child)):
                        found.append(child)
        return found

    def kill(self, kind, rng):
        """SIGKILL one process of a kind; False where none was there."""
        if kind == "scheduler":
            victims = [self.scheduler] if self.scheduler.poll() is None else []
        else:
            victims = self.worker_processes()
        return bool(victims) and slay(rng.choice(victims).pid)

    def __enter__(self):
        self.heal()
        return self

    def __exit__(self, *_):
        for process in (*self.nannies, self.scheduler):
            if process is not None:
                for child in children(process.pid):
                    slay(child.pid)
                slay(process.pid)
                process.wait()


def children(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def slay(pid):
    """SIGKILL; False where the process was gone already."""
    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        return False
    return True


@dataclass
class Siege:
    """What happened until a product was published."""

    kills: Counter = field(default_factory=Counter)
    drivers: int = 0
    messages: list = field(default_factory=list)
    redone: list = field(default_factory=list)


def besiege(command, output, cluster, rng, kills, patience=240.0, pause=(0.2, 3.0)):
    """Run `command` again and again until it ends well, with up to `kills` random deaths."""
    siege = Siege()
    kept = {}
    deadline = time.monotonic() + patience
    while True:
        with (cluster.folder / "driver.log").open("w+") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log)
            siege.drivers += 1
            _attack(driver, cluster, rng, siege, kills, (deadline, pause))
            log.seek(0)
            said = log.read()
        siege.redone += [tile for tile, files in kept.items() if files != now(files)]
        if driver.returncode == OK:
            return siege
        assert driver.returncode in STOPPED, (driver.returncode, said)
        assert time.monotonic() < deadline, (siege, said)
        if driver.returncode != -signal.SIGKILL:
            siege.messages.append(said.strip().splitlines()[-1])
        kept = shards_of_done_tiles(output)


def _attack(driver, cluster, rng, siege, kills, timing):
    deadline, pause = timing
    while driver.poll() is None:
        left = kills - siege.kills.total()
        try:
            driver.wait(rng.uniform(*pause) if left > 0 else 1.0)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                slay(driver.pid)
                driver.wait()
                raise
            if left > 0:
                _kill_one(driver, cluster, rng, siege)
            cluster.heal()


def _kill_one(driver, cluster, rng, siege):
    kind = rng.choices(("worker", "driver", "scheduler"), (5, 3, 2))[0]
    killed = slay(driver.pid) if kind == "driver" else cluster.kill(kind, rng)
    siege.kills[kind] += killed


def now(files):
    return {file: _state(Path(file)) for file in files}


def shards_of_done_tiles(output):
    """{tile: {file: (inode, modification time)}} of the tiles that have a marker."""
    home = Path(output).parent / f".{Path(output).name}.lcengine"
    found = {}
    for marker in home.glob("*.work/tiles/*.json"):
        version = home / marker.parent.parent.name.removesuffix(".work")
        tile = int(marker.stem)
        found[tile] = {str(file): _state(file) for file in _shards(version, tile)}
    return found


def _shards(version, tile):
    grid = Grid.from_dict(
        json.loads((version / "zarr.json").read_bytes())["attributes"]["lcengine"]["grid"]
    )
    place = grid.tile_at(tile)
    return sorted(version.glob(f"*/c/{place.row}/{place.col}"))


def _state(file):
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
