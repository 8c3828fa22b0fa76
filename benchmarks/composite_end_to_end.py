"""The main job end to end, against its peers and against the floor.

24 dates × 4 bands × 2048² uint16 cloud-optimised GeoTIFFs → median composite, from local files and
over HTTP, on two threads and on two worker processes:

- `lcengine`: search, plan, run, and publish a Zarr product with its quality bands, read back and
  hashed;
- `odc`: `odc.stac.load` + xarray median, `stackstac`: `stackstac.stack` + xarray median; both into
  memory, nothing is written;
- `floor`: every block of every file decoded once with rasterio on two threads, nothing computed.

`odc` and `stackstac` turn nodata into NaN, as real archives need (and as lcengine does inside its
kernel). `odc-uint16` and `stackstac-uint16` take the median of the files' numbers as they are, the
fastest that the two can do, right only because this archive has no nodata.

Every contender runs in a process of its own, warmed by two runs (two workers may not both get work
in the first); then the runs interleave (A B C A B C …), each under file names that no cache has
seen. `--variant masked` adds the scene classification and a cloud mask. Results must be equal
pixel for pixel. CPU seconds are those of the contender's processes: on a busy machine they are
steadier than wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _composite_archive import BANDS, EPSG, Archive, make_archive
from _composite_contenders import Job
from _measure import Contender, Measured, progress

HERE = Path(__file__).parent
PLAIN = ("lcengine", "odc", "odc-uint16", "stackstac", "stackstac-uint16", "floor")
MASKED = ("lcengine", "odc", "floor")
SERVER = """
import sys
from lcengine.simulate import FileServer
with FileServer(sys.argv[1]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@dataclass
class Cell:
    """Measurements of one contender per run: seconds, CPU seconds and peak memory in bytes."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        self.seconds.append(measured.seconds)
        self.cpu.append(measured.cpu)
        self.memory.append(measured.memory)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@contextlib.contextmanager
def base_address(archive: Archive, source: str) -> Iterator[str]:
    """Where the archive is reached: its folder, or a file server in a process of its own."""
    if source == "local":
        yield str(archive.root)
        return
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(archive.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait()


class Bench:
    """Runs contenders side by side on one archive."""

    def __init__(self, archive: Archive, scratch: Path, options: argparse.Namespace) -> None:
        self.archive = archive
        self.scratch = scratch
        self.options = options
        self._serial = 0

    def cells(self, source: str, schedule: str) -> dict[str, Cell]:
        """Warm up, check that the results agree, then measure in turns."""
        names = self.options.contenders
        cells = {name: Cell() for name in names}
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(base_address(self.archive, source))
            running = {}
            for name in names:
                job = asdict(self._job(name, schedule))
                running[name] = Contender(name, HERE / "_composite_contenders.py", job)
                stack.callback(running[name].close)
            results = {}
            for name, contender in running.items():
                saved = self.scratch / f"{name}.npy"
                seconds = self._run(contender, base).seconds
                self._run(contender, base, saved)
                results[name] = np.load(saved)
                progress(f"{source} {schedule}: {name} warm-up {seconds:.2f} s")
            check_equal(results)
            for turn in range(self.options.runs):
                for name, contender in running.items():
                    cells[name].add(self._run(contender, base))
                latest = ", ".join(f"{n} {c.seconds[-1]:.2f}" for n, c in cells.items())
                progress(f"{source} {schedule}: run {turn + 1}: {latest}")
        return cells

    def _job(self, name: str, schedule: str) -> Job:
        mask = self.options.mask if self.options.variant == "masked" else "none"
        chunk = self.options.chunk
        return Job(name, schedule, mask, BANDS, self.archive.bounds, EPSG, chunk)

    def _run(self, contender: Contender, base: str, save: Path | None = None) -> Measured:
        self._serial += 1
        name = f"run-{os.getpid()}-{self._serial}"
        items = self.archive.place(name, base)
        try:
            order = {"items": items, "out": self.scratch / name, "save": save}
            return contender.run({k: v and str(v) for k, v in order.items()})[0]
        finally:
            self.archive.displace(name)


def check_equal(results: dict[str, np.ndarray]) -> None:
    """Stop unless all results are the same pixels; the floor has none."""
    found = {name: pixels for name, pixels in results.items() if pixels.size}
    first, *others = found
    for name in others:
        wrong = int(np.count_nonzero(found[name] != found[first]))
        if wrong:
            raise SystemExit(f"{name} and {first} differ in {wrong} of {found[first].size} values")


def table(title: str, cells: dict[str, Cell]) -> str:
    """A Markdown table; ratios are of medians."""
    ours = cells["lcengine"].median if "lcengine" in cells else None
    lines = [
        f"### {title}",
        "",
        "| contender | median s | min–max s | ÷ lcengine | CPU s | peak memory MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, cell in cells.items():
        ratio = f"{cell.median / ours:.2f}" if ours else ""
        spread = f"{min(cell.seconds):.2f}–{max(cell.seconds):.2f}"
        memory = f"{statistics.median(cell.memory) / 2**20:.0f}"
        cpu = f"{statistics.median(cell.cpu):.2f}"
        lines.append(f"| {name} | {cell.median:.2f} | {spread} | {ratio} | {cpu} | {memory} |")
    if ours and "floor" in cells:
        lines += ["", f"lcengine ÷ floor: **{ours / cells['floor'].median:.2f}**"]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=("plain", "masked"), default="plain")
    parser.add_argument("--mask", choices=("scl", "geomad"), default="geomad")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--size", type=int, default=2048, help="edge in pixels")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--chunk", type=int, default=1024, help="edge of the peers' chunks")
    parser.add_argument("--sources", type=listed, default=("local", "http"))
    parser.add_argument("--schedules", type=listed, default=("threads", "workers"))
    parser.add_argument("--contenders", type=listed, help=f"some of {', '.join(PLAIN)}")
    parser.add_argument("--quick", action="store_true", help="512 px, 6 dates, 2 runs")
    parser.add_argument("--archive", type=Path, help="keep the archive here for the next time")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    options = parser.parse_args()
    if options.quick:
        options.size, options.dates, options.runs, options.chunk = 512, 6, 2, 256
    if options.contenders is None:
        options.contenders = PLAIN if options.variant == "plain" else MASKED
    return options


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="lcengine-bench-") as folder:
        scratch = Path(folder)
        progress("writing the archive")
        archive = make_archive(options.archive or scratch / "archive", options.size, options.dates)
        ratio = archive.bytes_decoded() / archive.bytes_on_disk()
        head = (
            f"{archive.dates} dates × {len(BANDS)} bands × {archive.size}² uint16, "
            f"{archive.bytes_decoded() / 2**20:.0f} MiB decoded, compressed {ratio:.2f}×; "
            f"{os.cpu_count()} CPUs ({platform.machine()}), variant {options.variant}"
            + (f" ({options.mask})" if options.variant == "masked" else "")
        )
        print(head)
        bench = Bench(archive, scratch, options)
        record: dict[str, Any] = {"what": head, "cells": {}}
        for source in options.sources:
            for schedule in options.schedules:
                cells = bench.cells(source, schedule)
                unit = "2 threads" if schedule == "threads" else "2 worker processes"
                print(f"\n{table(f'{source}, {unit}', cells)}", flush=True)
                record["cells"][f"{source}/{schedule}"] = {n: asdict(c) for n, c in cells.items()}
        if options.json:
            options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
