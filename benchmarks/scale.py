"""How the engine scales: measured on one machine, and what a model makes of it.

    python benchmarks/scale.py overhead --tiles 1000 10000 100000 --json docs/scale.json
    python benchmarks/scale.py workers --json docs/scale.json
    python benchmarks/scale.py country --json docs/scale.json
    python benchmarks/scale.py model [--write-docs]

`overhead`: CPU of the driver and of the scheduler per tile, and their memory during the run, for a
tile function that does nothing. Scheduler, worker and driver are processes of their own. The loop
`plain` is the bounded one that anyone would write first (`client.submit` and `as_completed`).
`workers`: one worker against two, waiting for a slow server and computing.
`country`: what a year over Kenya takes, and how fast this machine is at it.
`model`: hours, bytes, price and the first bottleneck of a country and a continent on 10 to 1000
workers, from the results of the other three; `--write-docs` writes docs/scale.md and its figure.

Each measurement prints a table; `--json FILE` puts it into its section of a file.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import _scale_country
import _scale_figure
import _scale_model
import _scale_workers
import distributed
import psutil

from lcengine import engine
from lcengine.kernels._jit import usable_cpus

DOCS = Path(__file__).resolve().parents[1] / "docs"

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


def measure_overhead(options):
    """A row per loop and number of tiles."""
    return [
        overhead(tiles, options.threads, loop) for loop in options.loop for tiles in options.tiles
    ]


def measure_workers(options):
    """A row per workload."""
    return _scale_workers.measure(options.runs, options.size, options.dates)


def measure_country(_options):
    """One row: the work, and the rates of this machine."""
    return [_scale_country.measure()]


def run_measurement(options):
    """Measure, print the rows, keep them."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rows = options.measure(options)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if options.json is None:
        return
    section = {
        "measured": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{usable_cpus()} cores, Python {platform.python_version()}, "
        f"distributed {distributed.__version__}",
        "load_before": None if load is None else round(load, 2),
        "rows": rows,
    }
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    options.json.write_text(json.dumps({**results, options.section: section}, indent=1) + "\n")


def run_model(options):
    """The table of hours and prices, or the page in the docs with its figure."""
    results = _scale_model.Results.load(options.results)
    far = _scale_model.Place(
        _scale_model.FAR.name,
        options.bandwidth * 1e6,
        options.latency,
        options.price_gb,
        options.price_core_hour,
        options.zone_rate,
    )
    places = _scale_model.places(far)
    if not options.write_docs:
        print(_scale_model.tables(results, places))
        return
    (DOCS / "scale.md").write_text(_scale_model.page(results, places))
    _scale_figure.draw(results, places, DOCS / "scale.png")


def main():
    options = arguments().parse_args(sys.argv[1:] or ["overhead"])
    options.run(options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)

    def measurement(name, measure, text):
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", type=Path, metavar="FILE", help="put the rows there, too")
        command.set_defaults(run=run_measurement, measure=measure, section=name)
        return command

    command = measurement("overhead", measure_overhead, "cost and memory of driver and scheduler")
    command.add_argument("--tiles", type=int, nargs="+", default=[1000, 10_000])
    command.add_argument("--threads", type=int, default=2, help="of the one worker")
    command.add_argument("--loop", choices=sorted(LOOPS), nargs="+", default=["engine"])
    command = measurement("workers", measure_workers, "one worker against two")
    command.add_argument("--runs", type=int, default=3)
    command.add_argument("--size", type=int, default=3072, help="pixels along an edge")
    command.add_argument("--dates", type=int, default=12)
    measurement("country", measure_country, "work of a year over Kenya, rates of this machine")
    command = commands.add_parser("model", help="hours, price and bottleneck on many workers")
    command.add_argument("--results", type=Path, default=DOCS / "scale.json")
    command.add_argument("--write-docs", action="store_true", help="docs/scale.md and .png")
    far = _scale_model.FAR
    for name, value, text in (
        ("--bandwidth", far.bandwidth / 1e6, "MB/s into a worker far from the archive"),
        ("--latency", far.latency, "seconds of a request there"),
        ("--price-gb", far.gb, "USD per GB read there"),
        ("--price-core-hour", far.core_hour, "USD"),
        ("--zone-rate", far.zone_rate, "requests per second that the archive answers per UTM zone"),
    ):
        command.add_argument(name, type=float, default=value, help=f"{text} ({value:g})")
    command.set_defaults(run=run_model)
    return parser


if __name__ == "__main__":
    main()
