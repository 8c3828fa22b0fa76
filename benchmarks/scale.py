"""How the engine scales.

    python benchmarks/scale.py overhead --tiles 1000 10000 100000

`overhead`: CPU of the driver and of the scheduler per tile, and their memory during the run, for a
tile function that does nothing. Scheduler, worker and driver are processes of their own. `--engine`
runs lcengine's loop; `--plain` the bounded loop that anyone would write first (`client.submit` and
`as_completed`), for comparison.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import distributed
import psutil

from lcengine import engine

RECEIPT = {"pixels": 4_194_304, "clear": 0.7, "failures": [], "sha256": "0" * 64}
SAMPLE_SECONDS = 0.25


def nothing(tile, _attempt=0):
    """A tile that costs nothing, with a receipt like that of a composite."""
    return {"tile": tile, **RECEIPT}


def run_engine(client, tiles):
    heard = itertools.count()
    listener = engine.Listener(lambda _: next(heard))
    assert engine.run(range(tiles), nothing, client, listener=listener) == engine.Outcome(tiles)
    assert next(heard) == tiles


def run_plain(client, tiles):
    window = 3 * sum(client.nthreads().values())
    waiting = iter(range(tiles))
    futures = distributed.as_completed()

    def submit(room):
        for tile in itertools.islice(waiting, room):
            futures.add(client.submit(nothing, tile, key=f"plain-{tile}", pure=False))

    submit(window)
    for future in futures:
        future.result()
        future.release()
        submit(1)


LOOPS = {"engine": run_engine, "plain": run_plain}


@contextmanager
def cluster(threads):
    """(scheduler process, address), with one worker process of so many threads."""
    processes = []

    def start(module, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen([*command, "--no-dashboard"], **quiet))
        return processes[-1]

    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "scheduler.json")
        local = ("--host", "127.0.0.1")
        try:
            scheduler = start("dask_scheduler", *local, "--port", 0, "--scheduler-file", note)
            start("dask_worker", "--scheduler-file", note, "--nthreads", threads, "--no-nanny")
            while not (note.exists() and note.read_text().endswith("}")):
                time.sleep(0.05)
            yield scheduler, json.loads(note.read_text())["address"]
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


class Meter(threading.Thread):
    """CPU seconds and memory of some processes while the `with` block runs."""

    def __init__(self, **pids):
        super().__init__(daemon=True)
        self.processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.memory = {name: [] for name in pids}
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(SAMPLE_SECONDS):
            for name, process in self.processes.items():
                self.memory[name].append(process.memory_info().rss)

    def _cpu(self):
        times = {name: process.cpu_times() for name, process in self.processes.items()}
        return {name: found.user + found.system for name, found in times.items()}

    def __enter__(self):
        self.before, self.began = self._cpu(), time.perf_counter()
        self.start()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.began
        self.cpu = {name: after - self.before[name] for name, after in self._cpu().items()}
        self.over.set()
        self.join()

    def megabytes(self, name):
        """(after a tenth of the run, at its end, at most), in MB."""
        samples = [rss / 1e6 for rss in self.memory[name]] or [0.0]
        return tuple(round(v) for v in (samples[len(samples) // 10], samples[-1], max(samples)))


def overhead(tiles, threads, loop):
    """One run on a fresh cluster: a row of the table."""
    with cluster(threads) as (scheduler, address), distributed.Client(address) as client:
        client.wait_for_workers(1)
        LOOPS[loop](client, 100)
        with Meter(scheduler=scheduler.pid, driver=psutil.Process().pid) as meter:
            LOOPS[loop](client, tiles)
    row = {"loop": loop, "tiles": tiles, "threads": threads}
    for name in ("scheduler", "driver"):
        row[f"{name}_ms"] = round(1000 * meter.cpu[name] / tiles, 3)
    row["sum_ms"] = round(row["scheduler_ms"] + row["driver_ms"], 3)
    row["tiles_per_second"] = round(tiles / meter.seconds)
    for name in ("scheduler", "driver"):
        row[f"{name}_mb"] = meter.megabytes(name)
    return row


def show(row):
    memory = " ".join(
        f"{name} {'/'.join(str(mb) for mb in row[f'{name}_mb'])}"
        for name in ("scheduler", "driver")
    )
    print(
        f"{row['loop']:<7} {row['tiles']:>7} tiles, {row['threads']:>3} threads: CPU per tile "
        f"scheduler {row['scheduler_ms']:.2f} + driver {row['driver_ms']:.2f} = "
        f"{row['sum_ms']:.2f} ms; {row['tiles_per_second']} tiles/s; MB early/end/most {memory}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("overhead", help="cost and memory of driver and scheduler")
    command.add_argument("--tiles", type=int, nargs="+", default=[1000, 10_000])
    command.add_argument("--threads", type=int, default=2, help="of the one worker")
    command.add_argument("--loop", choices=sorted(LOOPS), nargs="+", default=["engine"])
    command.add_argument("--json", action="store_true", help="one JSON line per run")
    command.set_defaults(run=run_overhead)
    options = parser.parse_args()
    options.run(options)


def run_overhead(options):
    for loop in options.loop:
        for tiles in options.tiles:
            row = overhead(tiles, options.threads, loop)
            print(json.dumps(row), flush=True) if options.json else show(row)


if __name__ == "__main__":
    main()
