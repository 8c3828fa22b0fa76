"""Compositing kernels against bottleneck and numbagg, on one cube held in memory.

    python benchmarks/kernels.py [--quick]

Writes Markdown tables to stdout. The contenders take turns, so that a busy machine is as busy for
all of them, and each figure is the median of its runs. Peers get float32 with NaN, prepared outside
the clock, in the layout that suits them best; our kernels get int16 and the mask. CPU is the
processor time of all threads: on a shared machine it tells more than the wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import bottleneck
import numba
import numbagg
import numpy as np

from lcengine.kernels import NODATA
from lcengine.kernels._jit import kernel, run_threaded, usable_cpus
from lcengine.kernels.composite import MadScreen, Reducer, composite

if TYPE_CHECKING:
    from collections.abc import Callable

MASKED = 0.4
BANDS = 6
MEAN, SCREEN, SCREEN_BANDS = Reducer("mean"), MadScreen(), (0, 1, 2)


@dataclass
class Contender:
    name: str
    threads: int
    call: Callable[[], object]
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


def interleave(contenders: list[Contender], runs: int) -> None:
    for contender in contenders:
        contender.call()  # compile, fault pages in
    for _ in range(runs):
        for contender in contenders:
            wall, cpu = time.perf_counter(), time.process_time()
            contender.call()
            contender.walls.append(time.perf_counter() - wall)
            contender.cpus.append(time.process_time() - cpu)


def cube(dates: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(dates)
    values = rng.integers(0, 10_000, (dates, BANDS, side, side), dtype=np.int16)
    return values, (rng.random((dates, side, side), dtype=np.float32) >= MASKED).view(np.uint8)


def as_float(values: np.ndarray, clear: np.ndarray) -> np.ndarray:
    floats = values.astype(np.float32)
    floats[np.broadcast_to(clear[:, np.newaxis] == 0, floats.shape)] = np.nan
    return floats


def screened_mean(floats: np.ndarray) -> np.ndarray:
    """The MAD screen and mean with numbagg's reductions."""
    index = floats[:, list(SCREEN_BANDS)].sum(axis=1)
    distance = np.abs(index - numbagg.nanmedian(index, axis=0))
    mad = np.maximum(numbagg.nanmedian(distance, axis=0), SCREEN.floor)
    rejected = (0.6745 * distance > SCREEN.k * mad) & (np.isfinite(index).sum(axis=0) >= 5)
    kept = np.where(rejected[:, np.newaxis], np.float32(np.nan), floats)
    return numbagg.nanmean(kept, axis=0)


@kernel
def _read(start: int, stop: int, cube: np.ndarray, sums: np.ndarray) -> None:
    for block in range(start, stop):
        total = 0
        for word in cube[block]:
            total += word
        sums[block] = total


def ours(name: str, values: np.ndarray, clear: np.ndarray, **options: object) -> list[Contender]:
    """Threaded, serial, and two serial calls side by side as Dask's worker threads make them."""
    threads = usable_cpus()
    halves = np.array_split(np.arange(values.shape[2]), threads)

    def side_by_side() -> None:
        with ThreadPoolExecutor(threads) as pool:
            parts = [slice(rows[0], rows[-1] + 1) for rows in halves]
            list(pool.map(lambda p: composite(values[:, :, p], clear[:, p], **options), parts))

    return [
        Contender(
            f"lcengine {name}, parallel",
            threads,
            lambda: composite(values, clear, parallel=True, **options),
        ),
        Contender(f"lcengine {name}, serial", 1, lambda: composite(values, clear, **options)),
        Contender(f"lcengine {name}, {threads} serial calls at once", threads, side_by_side),
    ]


def table(contenders: list[Contender], base: Contender) -> None:
    print(
        "| contender | threads | wall ms | CPU ms | wall: × slower | CPU: × more |\n"
        "|---|---|---|---|---|---|"
    )
    for c in contenders:
        print(
            f"| {c.name} | {c.threads} | {c.wall * 1e3:.1f} | {c.cpu * 1e3:.1f} "
            f"| {c.wall / base.wall:.1f} | {c.cpu / base.cpu:.1f} |"
        )
    print()


def check(values: np.ndarray, clear: np.ndarray, floats: np.ndarray) -> None:
    expected = np.rint(np.nanmedian(floats[:, :, :64, :64].astype(np.float64), axis=0))
    expected = np.where(np.isnan(expected), NODATA, expected)
    got = composite(values[:, :, :64, :64], clear[:, :64, :64])
    if not np.array_equal(got.values, expected):
        raise SystemExit("the median differs from numpy.nanmedian")


def compare(dates: int, side: int, runs: int) -> None:
    values, clear = cube(dates, side)
    floats = as_float(values, clear)
    moved = np.ascontiguousarray(np.moveaxis(floats, 0, -1))
    check(values, clear, floats)
    words = values.reshape(-1, side * side).view(np.int64)
    sums = np.zeros(len(words), np.int64)
    threads = numba.get_num_threads()
    read = Contender("read the int16 cube once", usable_cpus(), lambda: run_threaded(
        _read, len(words), words, sums))  # fmt: skip
    medians = [
        *ours("median", values, clear),
        Contender("bottleneck, axis 0", 1, lambda: bottleneck.nanmedian(floats, axis=0)),
        Contender("bottleneck, last axis", 1, lambda: bottleneck.nanmedian(moved, axis=-1)),
        Contender("numbagg, axis 0", threads, lambda: numbagg.nanmedian(floats, axis=0)),
        Contender("numbagg, last axis", threads, lambda: numbagg.nanmedian(moved, axis=-1)),
    ]
    options = {"reducer": MEAN, "screen": SCREEN, "screen_bands": SCREEN_BANDS}
    means = [
        *ours("MAD-screened mean", values, clear, **options),
        Contender("numbagg expression", threads, lambda: screened_mean(floats)),
    ]
    interleave([read, *medians, *means], runs)
    print(f"## {dates} dates × {BANDS} bands × {side}², {MASKED:.0%} masked, {runs} runs\n")
    table(medians, medians[0])
    table(means, means[0])
    for layouts in (medians[3:5], medians[5:7]):
        best = min(layouts, key=lambda c: c.wall)
        print(
            f"- {best.name}: {best.wall / medians[0].wall:.1f}× the wall time of our median in "
            f"parallel, {best.wall / medians[1].wall:.1f}× of ours serial"
        )
    for c in (medians[0], means[0]):
        print(
            f"- {c.name}: takes the cube in at {values.nbytes / c.wall / 1e9:.1f} GB/s, "
            f"{read.wall / c.wall:.0%} of reading only ({values.nbytes / read.wall / 1e9:.1f} GB/s)"
        )
    print()


def curve(side: int, runs: int) -> None:
    print(f"## Median by number of dates, {BANDS} bands × {side}², {runs} runs\n")
    print(
        "| dates | lcengine parallel ms | serial ms | serial ns per value | bottleneck ms "
        "| × of parallel | × of serial |\n|---|---|---|---|---|---|---|"
    )
    for dates in (6, 12, 24, 48, 96, 200):
        values, clear = cube(dates, side)
        floats = np.ascontiguousarray(np.moveaxis(as_float(values, clear), 0, -1))
        both = ours("median", values, clear)[:2]
        peer = Contender("bottleneck", 1, lambda f=floats: bottleneck.nanmedian(f, axis=-1))
        interleave([*both, peer], runs)
        threaded, serial = both
        print(
            f"| {dates} | {threaded.wall * 1e3:.1f} | {serial.wall * 1e3:.1f} "
            f"| {serial.wall / values.size * 1e9:.2f} | {peer.wall * 1e3:.0f} "
            f"| {peer.wall / threaded.wall:.1f} | {peer.wall / serial.wall:.1f} |"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description="compositing kernels against their peers")
    parser.add_argument("--quick", action="store_true", help="512² instead of 1024²")
    quick = parser.parse_args().quick
    print(
        f"numba {numba.__version__}, bottleneck {bottleneck.__version__}, "
        f"numbagg {numbagg.__version__}, {usable_cpus()} CPUs\n"
    )
    compare(24, 512 if quick else 1024, 5)
    curve(256 if quick else 512, 5)


if __name__ == "__main__":
    main()
