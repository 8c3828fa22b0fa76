"""Colours of pixels beside scikit-learn, histograms of segments beside NumPy.

    python benchmarks/colors.py [--size 4096] [--runs 5] [--json FILE]

A mosaic of spectra with noise, int16, 4 bands; 80 colours; windows of 256² in 20 segments. Every
contender has two threads and takes turns; times are medians. scikit-learn gets float32 rows, made
outside of the clock; lcengine the planar integers. Before the clock starts, words are held against
float64 distances wherever the two nearest differ by more than 1e-5, and against scikit-learn's.
Peak memory is that of a process that does nothing else, over what its data take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from lcengine.features import Division, Vocabulary
from lcengine.inputs import Input
from lcengine.kernels.division import divide
from lcengine.kernels.words import STRIP, assign, histogram

BANDS, COLORS, SEGMENTS, WINDOW, THREADS = 4, 80, 20, 256, 2
CLEAR = 1e-5
"""Relative difference of the two nearest squared distances beyond which words must be equal."""
SEEN = 2**21


def mosaic(size: int) -> np.ndarray:
    """Planar int16 (band, size²): spectra in patches of 16 pixels, noise on every pixel."""
    rng = np.random.default_rng(0)
    cells = -(-size // 16)
    spectra = rng.normal((700, 900, 1100, 2600), (300, 320, 400, 900), (cells, cells, BANDS))
    out = np.empty((BANDS, size, size), np.int16)
    for band, values in enumerate(out):
        wide = spectra[..., band].repeat(16, 0).repeat(16, 1)[:size, :size]
        values[...] = np.rint(wide + rng.normal(0, 120, (size, size)))
    return out.reshape(BANDS, -1)


def vocabulary(pixels: np.ndarray) -> Vocabulary:
    """Colours from a part of the pixels, by scikit-learn."""
    sample = pixels[:, :: max(1, pixels.shape[1] // 40_000)].astype(np.float64)
    gains = 1 / sample.std(axis=1)
    found = KMeans(COLORS, n_init=1, max_iter=10, random_state=0).fit(sample.T * gains)
    entry = Input("image", ("red", "green", "blue", "nir"), "int16", -32768)
    return Vocabulary((entry,), found.cluster_centers_ / gains, gains, np.ones(BANDS))


def shared(function: Callable[[int, int], None], count: int) -> None:
    """`function(start, stop)` over halves of range(count), on two threads."""
    edges = [count * i // THREADS for i in range(THREADS + 1)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(function, edges[:-1], edges[1:]))


def words(pixels: np.ndarray, known: Vocabulary) -> np.ndarray:
    """lcengine's kernel."""
    out = np.empty(pixels.shape[1], np.uint8)
    valid = np.ones(out.size, np.bool_)
    palette = known.palette
    strips = -(-out.size // STRIP)
    shared(lambda start, stop: assign(start, stop, pixels, valid, palette, out), strips)
    return out


def rows(pixels: np.ndarray, known: Vocabulary) -> tuple[KMeans, np.ndarray]:
    """A fitted KMeans of the same colours, and float32 rows."""
    centres = (known.colors * known.gains).astype(np.float32)
    data = np.empty((pixels.shape[1], BANDS), np.float32)
    for band in range(BANDS):
        data[:, band] = pixels[band] * np.float32(known.gains[band])
    peer = KMeans(COLORS, init=centres, n_init=1, max_iter=1).fit(data[: 4 * COLORS])
    peer.cluster_centers_ = centres
    return peer, data


def segments(pixels: np.ndarray, size: int, known: Vocabulary) -> tuple[np.ndarray, float]:
    """Segments of every window (window, pixel), and the seconds they took."""
    windows = np.ascontiguousarray(tiled(pixels.reshape(BANDS, size, size)))
    out = np.empty((len(windows), WINDOW**2), np.uint8)
    valid = np.ones(WINDOW**2, np.bool_)
    how = Division()
    wanted = (SEGMENTS, 20, how.rounds, how.seed)

    def some(start: int, stop: int) -> None:
        for i in range(start, stop):
            divide(windows[i], valid, known.gains, wanted, out[i])

    some(0, 1)
    begin = time.perf_counter()
    shared(some, len(windows))
    return out, time.perf_counter() - begin


def tiled(values: np.ndarray) -> np.ndarray:
    """(…, size, size) → (window, …, pixel)."""
    *lead, size, _ = values.shape
    count = size // WINDOW
    cut = values.reshape(*lead, count, WINDOW, count, WINDOW)
    cut = np.moveaxis(cut, (-4, -2), (0, 1))
    return cut.reshape(count * count, *lead, WINDOW * WINDOW)


def ours(found: np.ndarray, divided: np.ndarray) -> np.ndarray:
    """Histograms (window, segment, colour) by lcengine's kernel."""
    out = np.zeros((len(found), SEGMENTS, COLORS), np.int32)

    def some(start: int, stop: int) -> None:
        for i in range(start, stop):
            histogram(found[i], divided[i], out[i])

    shared(some, len(found))
    return out


def counted(found: np.ndarray, divided: np.ndarray) -> np.ndarray:
    """The same by `np.bincount` of both numbers in one."""
    out = np.empty((len(found), SEGMENTS, COLORS), np.int64)

    def some(start: int, stop: int) -> None:
        for i in range(start, stop):
            both = divided[i].astype(np.intp) * COLORS + found[i]
            out[i] = np.bincount(both, minlength=SEGMENTS * COLORS).reshape(SEGMENTS, COLORS)

    shared(some, len(found))
    return out


def checked(pixels: np.ndarray, known: Vocabulary, found: np.ndarray, peer: np.ndarray) -> Any:
    """Shares of equal words; exits where a clear one differs from float64's.

    Of many pixels float64 sees `SEEN`, in parts from all over.
    """
    clear = wrong = seen = 0
    for start in range(0, pixels.shape[1], max(1, pixels.shape[1] // SEEN) * 2**18):
        part = slice(start, start + 2**18)
        x = pixels[:, part].T.astype(np.float64)
        seen += len(x)
        apart = np.zeros((len(x), COLORS))
        for band in range(BANDS):
            apart += np.square((x[:, band, None] - known.colors[:, band]) * known.gains[band])
        two = np.partition(apart, 1, axis=1)[:, :2]
        sure = two[:, 1] - two[:, 0] > CLEAR * two[:, 0]
        clear += int(sure.sum())
        wrong += int((apart.argmin(axis=1) != found[part])[sure].sum())
    if wrong:
        raise SystemExit(f"{wrong} words differ from float64's")
    return {"clear": clear / seen, "seen": seen, "as scikit-learn": float((found == peer).mean())}


def turns(contenders: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median seconds of each, one after the other in every run."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, call in contenders.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def peak(name: str, size: int, answer: Any) -> None:
    """Bytes that a contender takes beside its data, told to `answer`; in a process of its own."""
    pixels = mosaic(size)
    known = vocabulary(pixels)
    if name == "scikit-learn":
        peer, data = rows(pixels, known)
        call: Callable[[], Any] = lambda: peer.predict(data)  # noqa: E731
        peer.predict(data[:1000])
    elif name == "lcengine":
        words(pixels[:, : 4 * STRIP].copy(), known)
        call = lambda: words(pixels, known)  # noqa: E731
    else:
        found = np.random.default_rng(0).integers(0, COLORS, (size // WINDOW) ** 2 * WINDOW**2)
        found = found.astype(np.uint8).reshape(-1, WINDOW**2)
        divided = found % np.uint8(SEGMENTS)
        kernel = ours if name == "histogram" else counted
        kernel(found[:2], divided[:2])
        call = lambda: kernel(found, divided)  # noqa: E731
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = held("VmRSS")
    call()
    answer.put(held("VmHWM") - before)


def held(what: str) -> int:
    """Bytes of this process, from Linux's own count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory(name: str, size: int) -> int:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=peak, args=(name, size, answer))
    process.start()
    found: int = answer.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = 1024 if options.quick else options.size
    pixels = mosaic(size)
    known = vocabulary(pixels)
    with threadpool_limits(THREADS):
        peer, data = rows(pixels, known)
        found = words(pixels, known)
        equal = checked(pixels, known, found, peer.predict(data))
        divided, seconds = segments(pixels, size, known)
        by_window = np.ascontiguousarray(tiled(found.reshape(size, size)))
        assert np.array_equal(ours(by_window, divided), counted(by_window, divided))
        times = turns(
            {
                "lcengine": lambda: words(pixels, known),
                "scikit-learn": lambda: peer.predict(data),
                "histogram": lambda: ours(by_window, divided),
                "bincount": lambda: counted(by_window, divided),
            },
            options.runs,
        )
    report(size, times, equal, seconds, options.json)


def report(size: int, times: dict[str, float], equal: Any, seconds: float, to: Any) -> None:
    peaks = {name: memory(name, size) for name in times}
    print(f"\n{size}² × {BANDS} bands × {COLORS} colours, {THREADS} threads\n")
    print("| | s | Mpx/s | × | peak beside data, MB |\n|---|---|---|---|---|")
    peers = {"lcengine": "scikit-learn", "histogram": "bincount"}
    for name, value in times.items():
        ratio = f"{times[peers[name]] / value:.1f}" if name in peers else ""
        rate, space = size**2 / value / 1e6, peaks[name] / 1e6
        print(f"| {name} | {value:.3f} | {rate:.0f} | {ratio} | {space:.0f} |")
    print(
        f"\nclear of float64's ties {equal['clear']:.4%} of {equal['seen']:,}, all equal;", end=" "
    )
    print(f"equal to scikit-learn {equal['as scikit-learn']:.5%}")
    print(f"division of windows: {size**2 / seconds / 1e6:.1f} Mpx/s")
    if to:
        told = {"size": size, "seconds": times, "peak": peaks, "equal": equal, "division": seconds}
        to.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
