"""Clusters that can really be hurt: schedulers and workers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import distributed
import psutil
from archives import until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@contextmanager
def process(*command, shim=None, **options):
    """A Python process that can import what the tests can, ended with all its children."""
    path = [str(shim)] * bool(shim) + [str(ROOT), str(HERE.parent), str(HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    child = subprocess.Popen([sys.executable, *map(str, command)], env=environment, **options)
    try:
        yield child
    finally:
        family = [child]
        if child.poll() is None:
            family += psutil.Process(child.pid).children(recursive=True)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        child.communicate()


@contextmanager
def scheduler(folder, **options):
    """(process, address) of a scheduler of its own."""
    note = Path(folder, f"scheduler-{time.monotonic_ns()}.json")
    command = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    command += ["--no-dashboard", "--scheduler-file", note]
    with process(*command, **options) as child:
        assert until(lambda: note.exists() and note.read_text().endswith("}"))
        yield child, json.loads(note.read_text())["address"]


@contextmanager
def workers(address, count=1, threads=2, *more, nanny=False, **options):
    """Worker processes of a scheduler, in the order of their start."""
    command = ["-m", "distributed.cli.dask_worker", address, "--nthreads", threads]
    command += ["--nanny" if nanny else "--no-nanny", "--no-dashboard", *more]
    with ExitStack() as stack:
        yield [stack.enter_context(process(*command, **options)) for _ in range(count)]


@contextmanager
def bare():
    """A scheduler in this process, without workers; (client, cluster)."""
    with (
        distributed.LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client, cluster


def is_clean(cluster):
    """Whether a scheduler in this process soon knows no task any more."""
    return until(lambda: not cluster.scheduler.tasks, 10)
