"""Compositing kernels against their peers, on one cube held in memory.

    python benchmarks/kernels.py [--quick] [--only median,geomedian] [--sections peers,curve]

Writes Markdown tables to stdout. What is called, and which peers there are, is the table of the
tests, `tests/kernels/table.py`. The contenders of a method take turns, so that a busy machine is as
busy for all of them, and each figure is the median of its runs. Peers get float32 with NaN,
prepared outside the clock, in the layout that suits them; our kernels get int16 and the mask. CPU
is the processor time of all threads: on a shared machine it tells more than the wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lcengine.kernels import NODATA
from lcengine.kernels._jit import kernel, run_threaded, usable_cpus
from lcengine.kernels.methods import DISTANCE, FARTHEST

TESTS = Path(__file__).resolve().parents[1] / "tests" / "kernels"
sys.path.insert(0, str(TESTS))

from table import BANDS, TABLE, Cube, Peer, Row  # noqa: E402 - its folder is no package

if TYPE_CHECKING:
    from collections.abc import Callable

MASKED = 0.4
CLOUDY = 0.08  # of the observations, missed by the mask
DATES = 24
CURVE = (2, 6, 12, 24, 48, 96, 200, 256)
KERNELS = (  # a row for each stage, and for the screen
    *("median", "mean", "screened mean", "geomedian", "geomad", "medoid", "medoid:nearest"),
    *("index:blue", "bap:182", "first-clear"),
)
AGREED = 0.99  # of the pixels: peers compute in float32 and end iterations where they do


@dataclass
class Contender:
    """part: of the pixels that `call` works on; the figures are those of all pixels."""

    name: str
    threads: int
    call: Callable[[], object]
    part: float = 1.0
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls) / self.part

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus) / self.part


def interleave(contenders: list[Contender], runs: int) -> None:
    for contender in contenders:
        contender.call()  # compile, fault pages in
    for _ in range(runs):
        for contender in contenders:
            wall, cpu = time.perf_counter(), time.process_time()
            contender.call()
            contender.walls.append(time.perf_counter() - wall)
            contender.cpus.append(time.process_time() - cpu)


def land(dates: int, side: int) -> Cube:
    """A spectrum per pixel that grows brighter and darker, with noise, and clouds in some."""
    rng = np.random.default_rng(dates)
    base = rng.integers(200, 4000, (len(BANDS), side, side)).astype(np.float32)
    values = np.empty((dates, *base.shape), np.int16)
    for date in range(dates):
        bright = 1 + 0.12 * rng.standard_normal((side, side), np.float32)
        noise = 60 * rng.standard_normal(base.shape, np.float32)
        cloud = rng.uniform(2000, 7000, (side, side)) * (rng.random((side, side)) < CLOUDY)
        values[date] = np.clip(base * bright + noise + cloud, 1, 20_000)
    clear = (rng.random((dates, side, side), np.float32) >= MASKED).view(np.uint8)
    days = 18_262 + np.arange(dates) * 365.0 / dates
    return Cube(values, clear, None, BANDS, days, len(BANDS))


def fitting(cube: Cube, row: Row) -> Cube:
    """The cube with the bands that the row's call needs."""
    if DISTANCE not in row.needs:
        return cube
    metres = np.random.default_rng(0).integers(1, FARTHEST, cube.values[:, :1].shape, np.int16)
    values = np.concatenate([cube.values, metres], axis=1)
    return replace(cube, values=values, names=(*BANDS, DISTANCE))


def ours(row: Row, cube: Cube) -> list[Contender]:
    """Threaded, serial, and serial calls side by side as Dask's worker threads make them."""
    threads = usable_cpus()
    ends = np.linspace(0, cube.values.shape[2], threads + 1).astype(int)
    parts = [cube.part(slice(*end)) for end in pairwise(ends)]

    def side_by_side() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: part.composite(row.methods, row.screen), parts))

    def whole(parallel: bool) -> Callable[[], object]:
        return lambda: cube.composite(row.methods, row.screen, parallel=parallel)

    return [
        Contender("lcengine, parallel", threads, whole(True)),
        Contender("lcengine, serial", 1, whole(False)),
        Contender(f"lcengine, {threads} serial calls at once", threads, side_by_side),
    ]


def contender(peer: Peer, cube: Cube) -> Contender:
    rows = max(round(cube.values.shape[2] * peer.share), 1)
    part = cube if rows == cube.values.shape[2] else cube.part(slice(rows))
    call = peer.prepare(part)
    return Contender(peer.name, peer.threads, call, rows / cube.values.shape[2])


def check(name: str, row: Row, cube: Cube) -> None:
    """Stop where a peer computes something else than we do."""
    small = cube.part(slice(32), slice(32))
    got = small.composite(row.methods, row.screen)
    values = np.where(got.values == NODATA, np.nan, got.values.astype(float))
    for peer in row.peers:
        found = peer.prepare(small)()
        layers = len(found) - len(got.extras)
        near = np.isclose(found[:layers], values[:layers], rtol=0, atol=1, equal_nan=True)
        alike = np.isclose(found[layers:], got.extras, rtol=0.02, atol=0, equal_nan=True)
        share = np.concatenate([near, alike]).mean()
        if share < AGREED:
            raise SystemExit(f"{name}: {peer.name} agrees with lcengine on {share:.1%} only")


# --------------------------------------------------------------------------------------- sections


@kernel
def _read(start: int, stop: int, cube: np.ndarray, sums: np.ndarray) -> None:
    for block in range(start, stop):
        total = 0
        for word in cube[block]:
            total += word
        sums[block] = total


def reading(cube: Cube) -> Contender:
    words = cube.values.reshape(-1, cube.values[0, 0].size).view(np.int64)
    sums = np.zeros(len(words), np.int64)
    call: Callable[[], object] = lambda: run_threaded(_read, len(words), words, sums)  # noqa: E731
    return Contender("read the int16 cube once", usable_cpus(), call)


def heading(text: str, cube: Cube, runs: int) -> None:
    dates, bands, side, _ = cube.values.shape
    print(f"## {text}: {dates} dates × {bands} bands × {side}², {MASKED:.0%} masked, {runs} runs\n")


def line(c: Contender, base: Contender) -> str:
    pixels = "all" if c.part == 1 else f"1/{1 / c.part:.0f}"
    return (
        f"| {c.name} | {c.threads} | {pixels} | {c.wall * 1e3:.1f} | {c.cpu * 1e3:.1f} "
        f"| {c.wall / base.wall:.1f} | {c.cpu / base.cpu:.1f} |"
    )


def against_peers(names: list[str], side: int, runs: int) -> None:
    cube = land(DATES, side)
    heading("Against peers", cube, runs)
    print(
        "`pixels`: part of them that a slow contender got; its times are scaled to all of them. "
        "`×`: of lcengine in parallel.\n"
    )
    for name in names:
        row = TABLE[name]
        if not row.peers:
            continue
        check(name, row, cube)
        us, read = ours(row, cube), reading(cube)
        peers = [contender(peer, cube) for peer in row.peers]
        interleave([read, *us, *peers], runs)
        print(f"### {name}\n")
        print("| contender | threads | pixels | wall ms | CPU ms | wall × | CPU × |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(line(c, us[0]) for c in [*us, *peers]), "\n")
        speed, most = (cube.values.nbytes / c.wall / 1e9 for c in (us[0], read))
        print(f"Takes the cube in at {speed:.1f} GB/s, {speed / most:.0%} of reading only.\n")


def costs(names: list[str], side: int, runs: int) -> None:
    """What every row costs, all of them taking turns."""
    cube = land(DATES, side)
    heading("What each costs", cube, runs)
    rows = {name: ours(TABLE[name], fitting(cube, TABLE[name]))[:2] for name in names}
    interleave([c for pair in rows.values() for c in pair], runs)
    print("| method | parallel ms | serial ms | serial CPU ns per value |\n|---|---|---|---|")
    for name, (parallel, serial) in rows.items():
        each = serial.cpu / cube.values.size * 1e9
        print(f"| {name} | {parallel.wall * 1e3:.1f} | {serial.wall * 1e3:.1f} | {each:.2f} |")
    print()


def curve(names: list[str], values: int, runs: int) -> None:
    """Costs per value, and how many times longer the best peer takes, by number of dates."""
    names = [name for name in names if TABLE[name].peers]
    each: dict[str, list[str]] = {name: [] for name in names}
    slower: dict[str, list[str]] = {name: [] for name in names}
    for dates in CURVE:
        cube = land(dates, round((values / dates) ** 0.5))
        for name in names:
            row = TABLE[name]
            parallel, serial = us = ours(row, cube)[:2]
            peers = [contender(replace(p, share=p.share / 4), cube) for p in row.peers]
            interleave([*us, *peers], runs)
            best = min(peers, key=lambda c: c.wall)
            each[name].append(f"{serial.cpu / cube.values.size * 1e9:.2f}")
            slower[name].append(f"{best.wall / parallel.wall:.0f}")
    columns = " | ".join(map(str, CURVE))
    where = f"{len(BANDS)} bands, about {values:,} pixels × dates, {runs} runs"
    for title, cells in (
        ("Serial CPU ns per value by number of dates", each),
        ("Wall time of the fastest peer, × of lcengine in parallel, by number of dates", slower),
    ):
        print(f"## {title}: {where}\n\n| method | {columns} |\n|---|{'---|' * len(CURVE)}")
        for name, texts in cells.items():
            print(f"| {name} | {' | '.join(texts)} |")
        print()
    print(
        "Peers got a quarter of the pixels, or less. The medoid's work per value grows with the "
        "number of dates, here and in NumPy.\n"
    )


PROGRAM = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from table import TABLE, make
cube, seconds = make(0, 8, (2, 64), kind=sys.argv[3]), []
for row in (TABLE["count"], TABLE[sys.argv[2]]):
    wall, cpu = time.perf_counter(), time.process_time()
    cube.composite(row.methods, row.screen)
    seconds += [time.perf_counter() - wall, time.process_time() - cpu]
print(json.dumps(seconds))
"""


def compiling(names: list[str], kinds: tuple[str, ...]) -> None:
    """First calls in a process whose cache is empty: the driver alone, then the stages on it."""
    print("## Seconds to compile: first call with an empty cache\n")
    print("| kernel | data | wall s | CPU s |\n|---|---|---|---|")
    for kind in kinds:
        drivers = []
        for name in [name for name in KERNELS if name in names]:
            with tempfile.TemporaryDirectory() as folder:
                environment = {
                    **os.environ, "XDG_CACHE_HOME": folder, "LCENGINE_KERNEL_CACHE": "1"
                }  # fmt: skip
                environment.pop("NUMBA_CACHE_DIR", None)
                command = [sys.executable, "-c", PROGRAM, str(TESTS), name, kind]
                text = subprocess.check_output(command, env=environment, text=True)
            *driver, wall, cpu = json.loads(text)
            drivers.append(driver)
            print(f"| {name} | {kind} | {wall:.1f} | {cpu:.1f} |", flush=True)
        wall, cpu = (statistics.median(column) for column in zip(*drivers, strict=True))
        print(f"| load and count, before any | {kind} | {wall:.1f} | {cpu:.1f} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description="compositing kernels against their peers")
    parser.add_argument("--quick", action="store_true", help="a quarter of the pixels, int16 only")
    parser.add_argument("--only", help="rows of tests/kernels/table.py, comma-separated")
    parser.add_argument("--sections", default="peers,costs,curve,compile")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # as peers see no data
    quick, names = options.quick, options.only.split(",") if options.only else list(TABLE)
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("numba", "numpy", "bottleneck", "numbagg", "geomad")
    )
    print(f"{versions}, {usable_cpus()} CPUs\n")
    sections: dict[str, Callable[[], None]] = {
        "peers": lambda: against_peers(names, 512 if quick else 1024, 5),
        "costs": lambda: costs(names, 512 if quick else 1024, 5),
        "curve": lambda: curve(names, DATES * (256 if quick else 512) ** 2, 5),
        "compile": lambda: compiling(names, ("int16",) if quick else ("int16", "float32")),
    }
    for section in options.sections.split(","):
        sections[section]()


if __name__ == "__main__":
    main()
