"""One worker against two: how much of a second machine's time is work.

- `io`: files behind a server in a process of its own that lets every request wait, as a far archive
  does; eight reads in flight per worker.
- `cpu`: local files and a geomedian, whose kernel takes most of the time.

Every worker is a process with one thread. Runs interleave; each reads under file names that no
cache has seen. Efficiency is t₁ / (2 t₂).
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
from pathlib import Path
from typing import Any

from _composite_archive import BANDS, EPSG, Archive, make_archive

from lcengine.catalog import search
from lcengine.cluster import connect
from lcengine.composite import CompositeSpec, plan_composite, run_composite
from lcengine.grid import Grid

READS = 8
"""Reads that a worker has in flight."""
DELAY = 0.15
"""Seconds that the server lets a request wait."""
TILE = 512
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


def measure(runs: int, size: int, dates: int) -> list[dict[str, Any]]:
    """Seconds of both workloads on one and on two workers, medians of `runs`."""
    os.environ["LCENGINE_READ_THREADS"] = str(READS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        archive = make_archive(Path(folder) / "archive", size, dates)
        with _served(archive) as url:
            for kind, base, method in (("io", url, "median"), ("cpu", None, "geomedian")):
                one, two = _interleaved(archive, base or str(archive.root), method, runs)
                rows.append(
                    {
                        "workload": kind,
                        "tiles": (size // TILE) ** 2,
                        "one_worker_s": round(one, 2),
                        "two_workers_s": round(two, 2),
                        "efficiency": round(one / (2 * two), 3),
                    }
                )
    return rows


def _interleaved(archive: Archive, base: str, method: str, runs: int) -> tuple[float, float]:
    """Median seconds on one and on two workers."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    names = itertools.count()
    for run in range(runs + 1):
        for workers, spent in seconds.items():
            with connect(f"local:workers={workers},threads=1") as client:
                _once(archive, base, method, client, f"warm-{next(names)}")
                took = _once(archive, base, method, client, f"run-{next(names)}")
            if run:  # the first round compiles kernels and warms the disk
                spent.append(took)
    return statistics.median(seconds[1]), statistics.median(seconds[2])


def _once(archive: Archive, base: str, method: str, client: Any, name: str) -> float:
    """Seconds of a composite; a warm-up does two tiles per worker only."""
    alias = f"{method}-{name}"
    file = archive.place(alias, base)
    left, bottom, right, top = archive.bounds
    if name.startswith("warm"):
        right, bottom = left + 4 * 10 * TILE, top - 10 * TILE
    grid = Grid.from_bounds(left, bottom, right, top, EPSG, 10.0, TILE)
    spec = CompositeSpec(BANDS, mask="none", outliers="none", method=method)
    hosts = () if base.startswith("/") else ("127.0.0.1",)
    plan = plan_composite(search(str(file), allow_hosts=hosts), grid, spec)
    began = time.perf_counter()
    run_composite(plan, archive.root / f"{alias}.zarr", client=client)
    spent = time.perf_counter() - began
    archive.displace(alias)
    return spent


@contextlib.contextmanager
def _served(archive: Archive) -> Iterator[str]:
    command = [sys.executable, "-c", SERVER, str(archive.root), str(DELAY)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
