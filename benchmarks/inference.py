"""Maps by networks: the engine beside the loops that people write.

    python benchmarks/inference.py [--quick] [--sections speed,seams,card,big] [--device cuda]

- `speed`: pixels per second and peak memory on the same raster with the same weights: the engine by
  tile and from product to product, the bare `model(batch)` loop over the same patches, a loop over
  windows of a GeoTIFF, and a grid of overlapping windows averaged in memory (as torchgeo's
  GridGeoSampler lays them).
- `seams`: how far each is from the model on the whole raster at once, and what bfloat16 changes.
- `card`: the engine beside the bare loop on data that lie on the device, and both beside what the
  device can compute.
- `big`: a product of 20,000² pixels by two convolutions, with the peak memory of the whole run.

Every contender is a process of its own, started and warmed once; then they take turns, and medians
count. Without a GPU `card` runs on the CPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _inference_small
import numpy as np
from _inference_card import flops, peak
from _inference_contenders import Job
from _inference_scene import BANDS, prepared, publish, raster, scene, untrained
from _measure import Contender, Measured, progress

HERE = Path(__file__).parent
SECTIONS = ("speed", "seams", "card", "big")
NAMES = {
    "bare": "`model(batch)` alone",
    "tile": "lcengine, tiles",
    "tile, kept": "lcengine",
    "product": "lcengine, product to product",
    "windows": "windows side by side",
    "grid, mean": "grid of windows, mean",
    "grid, last": "grid of windows, last wins",
    "whole": "whole raster at once",
}


@dataclass
class Row:
    """Runs of one contender."""

    job: Job
    runs: list[Measured] = field(default_factory=list)
    patches: int = 0

    def median(self, name: str) -> float:
        return statistics.median(getattr(run, name) for run in self.runs)


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `tile` of products; `steps` of training."""

    speed: int
    tile: int
    seams: int
    card: int
    big: int
    steps: Mapping[str, int]
    rounds: int


FULL = Sizes(2048, 2048, 1024, 8192, 20_000, {"resnet50-unet": 120, "unet": 200}, 3)
QUICK = Sizes(512, 512, 512, 4096, 4096, {"resnet50-unet": 10, "unet": 60}, 1)


def measured(jobs: Iterable[Job], rounds: int, save: Path | None = None) -> list[Row]:
    """Contenders that take turns; `save` keeps the probabilities of the first round by number."""
    rows = [Row(job) for job in jobs]
    with ExitStack() as stack:
        running = []
        for row in rows:
            name = NAMES[row.job.contender]
            running.append(Contender(name, HERE / "_inference_contenders.py", asdict(row.job)))
            stack.callback(running[-1].close)
        for turn in range(rounds):
            for number, (row, contender) in enumerate(zip(rows, running, strict=True)):
                keep = str(save / f"{number}.npy") if save and not turn else None
                figures, answer = contender.run({"save": keep})
                row.runs.append(figures)
                row.patches = answer["patches"]
                progress(f"{contender.name} ({row.job.precision}): {figures.seconds:.2f} s")
    return rows


# ----------------------------------------------------------------------------------------- speed


def speed(root: Path, options: argparse.Namespace) -> None:
    """Pixels per second and peak memory of all contenders."""
    size, model = options.sizes.speed, options.model
    folder = root / "speed"
    prepared(folder, model, *scene(folder, size, options.sizes.tile), options)
    common = {"batch": options.batch, "threads": options.threads, "device": options.device}
    plain = Job("bare", str(folder), model, options.patch, options.stride, **common)
    jobs = [Job(**{**asdict(plain), "contender": name}) for name in ("bare", "tile", "product")]
    jobs += [Job(**{**asdict(job), "precision": "bfloat16"}) for job in jobs[:2]]
    jobs.append(Job(**{**asdict(plain), "channels_last": False}))
    jobs += [Job(**{**asdict(plain), "contender": name}) for name in ("windows", "grid, mean")]
    rows = measured(jobs, options.sizes.rounds)
    print(f"\n### Speed: {model}, {size}² pixels, patches of {options.patch} in steps of ", end="")
    print(f"{options.stride}, {options.threads} threads, {options.device}\n")
    print("| contender | precision | layout | patches | Mpx/s | ms per patch | × bare | peak MiB |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    bare = {row.job.precision: row for row in rows[3::-1] if row.job.contender == "bare"}
    for row in rows:
        each = row.median("seconds") / row.patches
        base = bare[row.job.precision]
        share = base.median("seconds") / base.patches / each
        layout = "channels last" if row.job.channels_last else "channels first"
        print(
            f"| {NAMES[row.job.contender]} | {row.job.precision} | {layout} | {row.patches} | "
            f"{size**2 / row.median('seconds') / 1e6:.4f} | {each * 1e3:.1f} | {share:.3f} | "
            f"{row.median('memory') / 2**20:.0f} |"
        )
    steps = -(-options.sizes.tile // options.stride)
    lattice = (options.sizes.tile + options.patch - options.stride) / options.stride
    print(
        f"\nBorder factor: a tile of {options.sizes.tile} inside a larger raster computes "
        f"{int(np.ceil(lattice))}² patches, {(int(np.ceil(lattice)) / steps) ** 2:.3f} × its share."
    )
    sped = bare["float32"].median("seconds") / bare["bfloat16"].median("seconds")
    first = next(row for row in rows if not row.job.channels_last)
    both = first.median("seconds") / bare["bfloat16"].median("seconds")
    print(f"bfloat16 × float32: {sped:.2f}, × float32 with channels first: {both:.2f}.")


# ----------------------------------------------------------------------------------------- seams


def seams(root: Path, options: argparse.Namespace) -> None:
    """Distance of each contender's probabilities from those of the whole raster at once."""
    size = options.sizes.seams
    folder = root / "seams"
    bands, truth = scene(folder, size, size)
    print(f"\n### Seams: {size}² pixels, against the model on the whole raster at once\n")
    print("| model | contender | precision | patch / step | max abs Δp | classes that differ |")
    print("|---|---|---|---|---:|---:|")
    for model in dict.fromkeys(("unet", options.model)):
        spec = prepared(folder, model, bands, truth, options)
        kept = folder / f"{model}-kept"
        kept.mkdir()
        jobs = list(seam_jobs(folder, model, spec, options))
        rows = measured(jobs, 1, kept)
        maps = [np.load(kept / f"{number}.npy") for number in range(len(rows))]
        # At the raster's own edge everybody makes up something else: that is no seam.
        edge = min(spec.margin if spec.margin is not None else size, size // 3)
        inner = np.s_[:, edge : size - edge, edge : size - edge]
        wanted = maps[0][inner]
        for row, found in zip(rows[1:], maps[1:], strict=True):
            job, proba = row.job, found[inner]
            differ = np.mean(proba.argmax(axis=0) != wanted.argmax(axis=0))
            window = f" ({job.window})" if job.contender.startswith("tile") else ""
            print(
                f"| {model} (sees {spec.margin} px) | {NAMES[job.contender]}{window} | "
                f"{job.precision} | {job.patch} / {job.stride} | "
                f"{np.abs(proba - wanted).max():.2g} | {differ:.4%} |"
            )


def seam_jobs(folder: Path, model: str, spec: Any, options: argparse.Namespace) -> Iterable[Job]:
    """The whole raster first, then everybody else; exact maps where the model can."""
    common = {
        "folder": str(folder),
        "model": model,
        "batch": options.batch,
        "threads": options.threads,
    }
    patch, stride = options.patch, options.stride
    for name in ("whole", "windows", "grid, last", "grid, mean", "tile, kept"):
        yield Job(name, patch=patch, stride=stride, **common)
    yield Job("tile, kept", patch=patch, stride=stride, precision="bfloat16", **common)
    step = spec.output_stride
    border = -(-spec.margin // step) * step if spec.margin is not None else patch
    if not spec.placed and 2 * border < patch:
        inner = (patch - 2 * border) // (2 * step) * 2 * step
        exact = {"patch": inner + 2 * border, "stride": inner, "window": "exact"}
        yield Job("tile, kept", **exact, **common)


# ------------------------------------------------------------------------------------------ card


def card(root: Path, options: argparse.Namespace) -> None:
    """The engine beside the bare loop on resident data, and both beside what the device can do."""
    from lcengine import models

    model, gpu = options.model, options.device == "cuda"
    size = options.sizes.card if gpu else options.sizes.seams
    folder = root / "card"
    prepared(folder, model, *scene(folder, size, min(size, 2048)), options)
    common = {
        "folder": str(folder),
        "model": model,
        "patch": options.patch,
        "stride": options.stride,
    }
    how = {
        "precision": "bfloat16",
        "compile": gpu,
        "device": options.device,
        "threads": options.threads,
    }
    batch = 64 if gpu else options.batch
    jobs = [Job(name, batch=batch, **common, **how) for name in ("bare", "tile")]
    rows = measured(jobs, options.sizes.rounds)
    each = flops(models.load(folder / model), options.patch)
    most, source = peak(options.device, "bfloat16", options.threads)
    if options.peak:
        most, source = options.peak, "--peak"
    print(f"\n### Device: {model}, {len(BANDS)} bands, {options.patch}², bfloat16, ", end="")
    print(f"{'compiled, ' if gpu else ''}batches of {batch}, {size}² pixels, {options.device}\n")
    print(f"{each / 1e9:.1f} GFLOP a patch; {most:.3g} TFLOP/s ({source})\n")
    print("| contender | patches/s | Mpx of patches/s | Mpx of map/s | × bare | of the peak |")
    print("|---|---:|---:|---:|---:|---:|")
    bare = rows[0].patches / rows[0].median("seconds")
    for row in rows:
        rate = row.patches / row.median("seconds")
        print(
            f"| {NAMES[row.job.contender]} | {rate:.1f} | {rate * options.patch**2 / 1e6:.2f} | "
            f"{size**2 / row.median('seconds') / 1e6:.3f} | {rate / bare:.3f} | "
            f"{rate * each / 1e12 / most:.1%} |"
        )


# ------------------------------------------------------------------------------------------- big


def big(root: Path, options: argparse.Namespace) -> None:
    """A product much larger than memory's share, by next to no network."""
    size, model = options.sizes.big, "two-convolutions"
    folder = root / "big"
    folder.mkdir()
    bands, _ = raster(2048)
    publish(folder / "bands.zarr", bands, size, 2048)
    from lcengine import models

    models.save(untrained(model, bands, 512, 504, "centre"), folder / model)
    job = Job("product", str(folder), model, 512, 504, "centre", options.batch, options.threads)
    (row,) = measured([job], 1)
    seconds, peak = row.median("seconds"), row.median("memory")
    print(f"\n### Memory: {size}² × {len(bands)} int16, two convolutions, product to product\n")
    print("| pixels | seconds | Mpx/s | peak of driver and worker, GiB |")
    print("|---:|---:|---:|---:|")
    print(f"| {size}² | {seconds:.0f} | {size**2 / seconds / 1e6:.2f} | {peak / 2**30:.2f} |")
    if peak > 4 * 2**30:
        raise SystemExit("the run took more than 4 GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small rasters, one round")
    parser.add_argument("--sections", default=None, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where models run")
    parser.add_argument("--model", default="resnet50-unet", choices=("resnet50-unet", "unet"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, where it is not known")
    parser.add_argument("--rounds", type=int, help="how often everybody runs")
    options = parser.parse_args()
    options.sizes = QUICK if options.quick else FULL
    if options.rounds:
        options.sizes = Sizes(**{**vars(options.sizes), "rounds": options.rounds})
    _inference_small.register()
    sections = options.sections.split(",") if options.sections else SECTIONS
    load = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in sections:
            {"speed": speed, "seams": seams, "card": card, "big": big}[name](Path(scratch), options)


if __name__ == "__main__":
    main()
