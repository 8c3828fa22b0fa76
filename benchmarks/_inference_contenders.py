"""The contenders of `inference.py`, one per process: warmed once, then timed on demand.

Run as `python _inference_contenders.py JOB`, JOB being the JSON of `Job`; orders and answers are
those of `_measure`. An order `{"save": FILE or null}` runs the model over the raster once and keeps
probabilities, float32 (class, y, x). Imports, loading, compiling and the cluster's start lie before
the first order.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import _inference_small
import numpy as np
import numpy.typing as npt
from _inference_scene import normalised
from _measure import orders

FLOAT = npt.NDArray[np.float32]
Run = Callable[[], tuple[int, Callable[[], FLOAT | None]]]
"""One run: patches computed, and what reads the probabilities of it (None: it keeps none)."""


@dataclass(frozen=True)
class Job:
    """What a process is to run, and how. `folder` has the raster and the model."""

    contender: str
    folder: str
    model: str
    patch: int
    stride: int
    window: str = "hann"
    batch: int = 8
    threads: int = 2
    precision: str = "float32"
    compile: bool = False
    device: str = "cpu"
    channels_last: bool = True


class Setting:
    """What all contenders share: the model as a module of torch, and how it is called."""

    def __init__(self, job: Job) -> None:
        import torch

        self.job = job
        self.root = Path(job.folder)
        torch.set_num_threads(job.threads)
        self.dtype = getattr(torch, job.precision)
        self.layout = torch.channels_last if job.channels_last else torch.contiguous_format

    @cached_property
    def predictor(self) -> Any:
        from lcengine import models

        return models.load(self.root / self.job.model)

    @cached_property
    def call(self) -> Callable[[Any], Any]:
        """The network: a batch (n, channel, y, x) on the device -> logits."""
        import torch

        module = self.predictor.module.eval()
        module = module.to(self.job.device, self.dtype, memory_format=self.layout)
        return torch.compile(module) if self.job.compile else module

    def tensor(self, image: FLOAT) -> Any:
        """A batch as the network takes it."""
        import torch

        found = torch.from_numpy(image).to(self.job.device, self.dtype)
        return found.contiguous(memory_format=self.layout)

    def proba(self, image: FLOAT) -> FLOAT:
        """Probabilities (n, class, y, x) of normalised patches, as a plain script gets them."""
        import torch

        with torch.inference_mode():
            found: FLOAT = self.call(self.tensor(image)).float().softmax(dim=1).cpu().numpy()
        return found

    @cached_property
    def raster(self) -> npt.NDArray[np.int16]:
        found: npt.NDArray[np.int16] = np.load(self.root / "bands.npy")
        return found

    def warm(self) -> None:
        """What happens once: compiling, and torch's choice of kernels."""
        job = self.job
        bands = len(self.predictor.means)
        self.proba(np.zeros((job.batch, bands, job.patch, job.patch), np.float32))


# ------------------------------------------------------------------------------- the plain loops


@contextlib.contextmanager
def bare(setting: Setting) -> Iterator[Run]:
    """`model(batch)` over the engine's patches, normalised and in memory before the clock starts.

    Nothing is read, cut, merged, made a probability or kept: what the engine is held against.
    """
    import torch

    job, size = setting.job, setting.raster.shape[1]
    starts = [k * job.stride - (job.patch - job.stride) // 2 for k in range(-(-size // job.stride))]
    wide = np.pad(setting.raster, ((0, 0), (job.patch,) * 2, (job.patch,) * 2), mode="reflect")
    places = [(y + job.patch, x + job.patch) for y in starts for x in starts]
    batches = []
    for first in range(0, len(places), job.batch):
        part = places[first : first + job.batch]
        cut = [wide[:, y : y + job.patch, x : x + job.patch] for y, x in part]
        cut += cut[:1] * (job.batch - len(cut))
        batches.append(setting.tensor(normalised(setting.predictor, np.stack(cut))))
    del wide

    def run() -> tuple[int, Callable[[], None]]:
        with torch.inference_mode():
            for batch in batches:
                setting.call(batch)
            if job.device == "cuda":
                torch.cuda.synchronize()
        return len(places), lambda: None

    setting.warm()
    yield run


@contextlib.contextmanager
def whole(setting: Setting) -> Iterator[Run]:
    """The whole raster at once: what a map without seams is."""

    def run() -> tuple[int, Callable[[], FLOAT]]:
        proba = setting.proba(normalised(setting.predictor, setting.raster)[None])[0]
        return 1, lambda: proba

    yield run


def windows(setting: Setting) -> Iterator[Run]:
    """A loop over windows of a GeoTIFF, side by side, each judged by itself: seams at its edges.

    What the windows at the right and bottom lack is 0, and cut off again.
    """
    size, patch = setting.raster.shape[1], setting.job.patch
    places = [(y, x) for y in range(0, size, patch) for x in range(0, size, patch)]

    def run() -> tuple[int, Callable[[], FLOAT]]:
        out = np.empty((classes(setting), size, size), np.float32)
        for y, x, proba in answers(setting, places):
            out[:, y : y + patch, x : x + patch] = proba[:, : size - y, : size - x]
        return len(places), lambda: out

    setting.warm()
    yield run


def grid(setting: Setting, *, mean: bool) -> Iterator[Run]:
    """A loop over a grid of overlapping windows, as torchgeo's GridGeoSampler lays them.

    Windows start at 0, stride, … until the raster ends, which the last ones may look beyond: there
    they see 0. Their answers are averaged in memory over the whole raster, or the last one wins.
    """
    size, patch, stride = setting.raster.shape[1], setting.job.patch, setting.job.stride
    starts = [k * stride for k in range(-(-max(size - patch, 0) // stride) + 1)]
    places = [(y, x) for y in starts for x in starts]

    def run() -> tuple[int, Callable[[], FLOAT]]:
        out = np.zeros((classes(setting), size, size), np.float32)
        count = np.zeros((size, size), np.float32)
        for y, x, proba in answers(setting, places):
            place = (slice(None), slice(y, y + patch), slice(x, x + patch))
            own = proba[:, : size - y, : size - x]
            if mean:
                out[place] += own
                count[place[1:]] += 1
            else:
                out[place] = own
        if mean:
            out /= count
        return len(places), lambda: out

    setting.warm()
    yield run


def answers(
    setting: Setting, places: list[tuple[int, int]]
) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
    """Windows of the GeoTIFF at (y, x), read in their order, and what the model says of each."""
    import rasterio
    from rasterio.windows import Window

    job = setting.job
    with rasterio.open(setting.root / "bands.tif") as source:
        for first in range(0, len(places), job.batch):
            part = places[first : first + job.batch]
            image = np.zeros((len(part), source.count, job.patch, job.patch), np.float32)
            for own, (y, x) in zip(image, part, strict=True):
                height, width = min(job.patch, source.height - y), min(job.patch, source.width - x)
                found = source.read(window=Window(x, y, width, height))
                own[:, :height, :width] = normalised(setting.predictor, found)
            for (y, x), proba in zip(part, setting.proba(image), strict=True):
                yield y, x, proba


# ------------------------------------------------------------------------------------- the engine


def plan_of(setting: Setting) -> Any:
    """The engine's plan of the raster's map."""
    from lcengine.models.predictor import Execution
    from lcengine.predict.lattice import Tiling
    from lcengine.predict.plan import plan_predict

    job = setting.job
    how = Execution(job.batch, job.threads, job.precision, job.compile, job.device)
    exact = job.window == "exact"
    window = None if exact else job.window
    tiling = Tiling(job.patch, job.stride, window, exact, how)
    return plan_predict(setting.root / "bands.zarr", setting.root / job.model, tiling=tiling)


class Kept:
    """A tile's maps, and the probabilities that they are made of, put into `proba` (None: not)."""

    def __init__(self, plan: Any, part: Any, proba: FLOAT | None) -> None:
        from lcengine.predict.maps import Maps

        self.maps = Maps(plan, part)
        self.proba = proba

    def paint(self, answer: Any) -> None:
        self.maps.paint(answer)
        if self.proba is not None:
            y0, x0, height, width = answer.window
            self.proba[:, y0 : y0 + height, x0 : x0 + width] = answer.proba


def tile(setting: Setting, *, keep: bool) -> Iterator[Run]:
    """What a worker does for each tile of the product, but for writing: read, cut, run, merge.

    Probabilities are kept where seams are measured alone: a worker has no room for those of a tile.
    """
    from lcengine.predict import tiled
    from lcengine.predict.task import warm_up

    plan = plan_of(setting)
    warm_up(plan)

    def run() -> tuple[int, Callable[[], FLOAT | None]]:
        shape = len(plan.legend.classes), *plan.grid.shape
        proba = np.empty(shape, np.float32) if keep else None
        for part in plan.grid.tiles():
            tiled.paint(plan, part, Kept(plan, part, proba))
        return sum(asked(plan, part) for part in plan.grid.tiles()), lambda: proba

    yield run


@contextlib.contextmanager
def product(setting: Setting) -> Iterator[Run]:
    """From product to product on a cluster of this machine: plan, tiles, publish."""
    from lcengine import jobs
    from lcengine.cluster import connect

    output = setting.root / f"{setting.job.model}-map.zarr"
    with connect(f"local:workers=1,threads={setting.job.threads}") as client:
        client.run(_inference_small.register)

        def run() -> tuple[int, Callable[[], None]]:
            plan = plan_of(setting)
            jobs.run(plan, output, client=client, restart=True)
            return sum(asked(plan, part) for part in plan.grid.tiles()), lambda: None

        run() if setting.job.model != "two-convolutions" else None
        yield run


def asked(plan: Any, part: Any) -> int:
    """Patches that have a say on a tile."""
    rows, columns = plan.grid.shape
    down = plan.lattice.numbers(part.y0, part.y0 + part.height, rows)
    over = plan.lattice.numbers(part.x0, part.x0 + part.width, columns)
    return len(down) * len(over)


def classes(setting: Setting) -> int:
    return len(setting.predictor.spec.legend.classes)


def opened(setting: Setting) -> contextlib.AbstractContextManager[Run]:
    """The contender that a job names."""
    plain = contextlib.contextmanager
    found = {
        "bare": bare,
        "whole": whole,
        "windows": plain(windows),
        "grid, mean": plain(lambda given: grid(given, mean=True)),
        "grid, last": plain(lambda given: grid(given, mean=False)),
        "tile": plain(lambda given: tile(given, keep=False)),
        "tile, kept": plain(lambda given: tile(given, keep=True)),
        "product": product,
    }
    return found[setting.job.contender](setting)


def main() -> None:
    _inference_small.register()
    job = Job(**json.loads(sys.argv[1]))
    with orders() as (answer, given), opened(Setting(job)) as run:
        answer(ready=True)
        for order in given:
            start = time.perf_counter()
            patches, read = run()
            seconds = time.perf_counter() - start
            proba = read()
            if order.get("save") and proba is not None:
                np.save(order["save"], proba)
            answer(seconds=seconds, patches=patches)


if __name__ == "__main__":
    main()
