"""One worker against two: how much of a second machine's time is work.

- `io`: files behind a server in a process of its own that lets every request wait, as a far archive
  does; eight reads in flight per worker.
- `cpu`: local files and a geomedian, whose kernel takes most of the time.

A worker stands for a machine with one core: a process with one thread, held on a core of its own
(on Linux). Runs interleave; each reads under file names that no cache has seen. Efficiency is
t₁ / (2 t₂). Beside each time stands what `lcengine.price` says of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _composite_archive import BANDS, EPSG, Archive, make_archive

from lcengine import jobs
from lcengine.catalog import search
from lcengine.cluster import connect
from lcengine.composite import CompositePlan, CompositeSpec, plan_composite
from lcengine.composite.calibration import calibrate
from lcengine.composite.pricing import predicted_seconds
from lcengine.grid import Grid
from lcengine.price import Machines

READS = 8
"""Reads that a worker has in flight."""
DELAY = 0.1
"""Seconds that the server lets a request wait."""
TILE = 512
WORKERS = (1, 2)
SERVER = """
import sys, time
from lcengine.simulate import FileServer, serve
usual = serve._Handler._answer
def late(self, send_body):
    time.sleep(float(sys.argv[2]))
    usual(self, send_body)
serve._Handler._answer = late
with FileServer(sys.argv[1]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Workload:
    """`base`: where the files are, an address or a folder."""

    name: str
    base: str
    bands: tuple[str, ...]
    method: str
    latency: float


def measure(runs: int, size: int, dates: int) -> list[dict[str, Any]]:
    """Seconds of both workloads on one and on two workers, medians of `runs`."""
    os.environ["LCENGINE_READ_THREADS"] = str(READS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        archive = make_archive(Path(folder) / "archive", size, dates)
        with _served(archive) as url:
            for workload in (
                Workload("io", url, BANDS[:2], "median", DELAY),
                Workload("cpu", str(archive.root), BANDS, "geomedian", 0.0),
            ):
                spent, said = _interleaved(archive, workload, runs)
                one, two = (statistics.median(spent[count]) for count in WORKERS)
                rows.append(
                    {
                        "workload": workload.name,
                        "tiles": (size // TILE) ** 2,
                        "runs": runs,
                        "one_worker_s": round(one, 2),
                        "two_workers_s": round(two, 2),
                        "efficiency": round(one / (2 * two), 3),
                        "predicted_s": [round(said[count], 2) for count in WORKERS],
                    }
                )
    return rows


def _interleaved(
    archive: Archive, workload: Workload, runs: int
) -> tuple[dict[int, list[float]], dict[int, float]]:
    """({workers: seconds of each run}, {workers: predicted seconds})."""
    seconds: dict[int, list[float]] = {count: [] for count in WORKERS}
    names = itertools.count()
    for run in range(runs + 1):
        for workers, spent in seconds.items():
            with connect(f"local:workers={workers},threads=1") as client:
                _pin(client)
                _once(archive, workload, client, f"warm-{next(names)}")
                took = _once(archive, workload, client, f"run-{next(names)}")
            if run:  # the first round compiles kernels and warms the disk
                spent.append(took)
    with _planned(archive, workload, "predicted") as plan:
        rates = replace(calibrate(plan), latency=workload.latency)
        said = {n: predicted_seconds(plan, rates, Machines(n, 1, reads=READS)) for n in WORKERS}
    return seconds, said


def _pin(client: Any) -> None:
    """Give every worker a core of its own, so that one worker cannot use the other's."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    for worker, core in zip(workers, cores, strict=False):
        client.run(_hold, core, workers=[worker])


def _hold(core: int) -> None:
    """Hold all threads of this process, and those to come, on a core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _once(archive: Archive, workload: Workload, client: Any, name: str) -> float:
    """Seconds of a composite; a warm-up does two tiles per worker only."""
    with _planned(archive, workload, name) as plan:
        began = time.perf_counter()
        jobs.run(plan, archive.root / f"{workload.name}-{name}.zarr", client=client)
        return time.perf_counter() - began


@contextlib.contextmanager
def _planned(archive: Archive, workload: Workload, name: str) -> Iterator[CompositePlan]:
    """The workload over files under names of its own."""
    alias = f"{workload.name}-{name}"
    file = archive.place(alias, workload.base)
    left, bottom, right, top = archive.bounds
    if name.startswith("warm"):
        right, bottom = left + 4 * 10 * TILE, top - 10 * TILE
    grid = Grid.from_bounds(left, bottom, right, top, EPSG, 10.0, TILE)
    spec = CompositeSpec(workload.bands, mask="none", outliers="none", method=workload.method)
    hosts = () if workload.base.startswith("/") else ("127.0.0.1",)
    try:
        yield plan_composite(search(str(file), allow_hosts=hosts), grid, spec)
    finally:
        archive.displace(alias)


@contextlib.contextmanager
def _served(archive: Archive) -> Iterator[str]:
    """The address of the slow server."""
    command = [sys.executable, "-c", SERVER, str(archive.root), str(DELAY)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()
