"""The sample loader beside xbatcher and torchgeo, and what a U-Net waits for it.

    python benchmarks/samples.py [--quick] [--sections rates,unet] [--runs 3]

Needs torch, torchgeo and xbatcher. One scene of 10 bands (int16) with labels is written three times
with one codec, zstd 1: as a sample store, as a Zarr cube and as tiled GeoTIFFs. Every contender
delivers batches of torch tensors: float32 images normalised by band with missing pixels 0, and
labels. Contenders take turns; figures are medians of the runs, from the first batch to the last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from _samples_data import S2, array, opened, write

try:
    import torch
    import xbatcher
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler, RandomGeoSampler
    from xbatcher.loaders.torch import MapDataset
except ImportError as absent:
    print(f"Left out: {absent}; pip install torch torchgeo xbatcher")
    sys.exit()

from lcengine.samples import sampleset
from lcengine.samples.augment import Augment

PATCH, BATCH = 64, 32
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
Contender = Callable[[], Batches]


class Norm:
    """What every peer does with a stored image, as PyTorch does it."""

    def __init__(self, facts: dict[str, dict[str, float]]) -> None:
        self.mean = torch.tensor([facts[b]["mean"] for b in S2.bands]).float()[:, None, None]
        self.std = torch.tensor([facts[b]["std"] for b in S2.bands]).float()[:, None, None]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        missing = image == S2.fill
        return (image.float() - self.mean).div_(self.std).masked_fill_(missing, 0.0)


# ------------------------------------------------------------------------------------ contenders


def ours(folder: Path, **options: object) -> Contender:
    found = sampleset.open(folder / "samples.zarr")
    loader = found.loader("train", BATCH, drop_last=True, **options)

    def batches() -> Batches:
        for batch in loader:
            yield torch.from_numpy(batch["s2"]), torch.from_numpy(batch["label"])

    return batches


def by_zarr(folder: Path, norm: Norm) -> Contender:
    """The same store through zarr's own interface, patch by patch in random order."""
    s2, label = (array(folder, name) for name in ("s2", "label"))

    rng = np.random.default_rng(0)

    def batches() -> Batches:
        order = rng.permutation(s2.shape[0])
        for start in range(0, len(order) - BATCH + 1, BATCH):
            part = np.sort(order[start : start + BATCH])
            image = torch.from_numpy(s2.oindex[part])
            yield norm(image), torch.from_numpy(label.oindex[part])

    return batches


def tensor(values: xr.DataArray) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


def xbatched(cube: xr.Dataset, norm: Norm, workers: int) -> Contender:
    """xbatcher over a cube, with its own PyTorch data set, shuffled by PyTorch's loader."""
    size = {"y": PATCH, "x": PATCH}
    images = xbatcher.BatchGenerator(cube["s2"], {"band": 10, **size})
    labels = xbatcher.BatchGenerator(cube["label"], size)
    data = MapDataset(images, labels, lambda a: norm(tensor(a)), tensor)
    return torch_loader(data, workers)


def torch_loader(data: MapDataset, workers: int) -> Contender:
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return lambda: iter(loader)


def neighbours(store: xr.Dataset, norm: Norm) -> Contender:
    """xbatcher over the patches of the sample store, one slice per batch: nothing is shuffled."""
    whole = {"y": PATCH, "x": PATCH, "sample": BATCH}
    images = xbatcher.BatchGenerator(store["s2"], {"band": 10, **whole})
    labels = xbatcher.BatchGenerator(store["label"], whole)

    def batches() -> Batches:
        for image, label in zip(images, labels, strict=True):
            yield norm(tensor(image)), tensor(label)

    return batches


class Mask(RasterDataset):
    is_image = False


def torchgeo(folder: Path, norm: Norm, sampler: type, workers: int) -> Contender:
    """torchgeo's data sets of images and masks, its sampler, PyTorch's loader."""

    def normalise(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**sample, "image": norm(sample["image"])}

    images = RasterDataset(str(folder / "image"), transforms=normalise)
    data = images & Mask(str(folder / "mask"))
    options = {"stride": PATCH} if sampler is GridGeoSampler else {}
    loader = DataLoader(
        data,
        BATCH,
        sampler=sampler(data, size=PATCH, **options),
        collate_fn=stack_samples,
        num_workers=workers,
        drop_last=True,
    )

    def batches() -> Batches:
        for batch in loader:
            yield batch["image"], batch["mask"]

    return batches


def contenders(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Contender]:
    found = sampleset.open(folder / "samples.zarr")
    norm = Norm(found.statistics["s2"])
    lazy = opened(folder)
    memory = opened(folder).load()
    dims = {"s2": ("sample", "band", "y", "x"), "label": ("sample", "y", "x")}
    patches = xr.Dataset({name: (dims[name], values) for name, values in arrays.items()})
    stored = xr.open_zarr(folder / "samples.zarr", chunks=None, mask_and_scale=False)
    return {
        "lcengine": ours(folder),
        "lcengine, one thread": ours(folder, threads=1),
        "lcengine, augmented": ours(folder, augment=Augment()),
        "lcengine, augmented and scaled": ours(folder, augment=Augment(scale=(1.0, 1.5))),
        "zarr, same store": by_zarr(folder, norm),
        "xbatcher, Zarr cube": xbatched(lazy, norm, 0),
        "xbatcher, Zarr cube, 2 workers": xbatched(lazy, norm, 2),
        "xbatcher, cube in memory": xbatched(memory, norm, 0),
        "xbatcher, cube in memory, 2 workers": xbatched(memory, norm, 2),
        "xbatcher, sample store, in order": neighbours(stored, norm),
        "xbatcher, patches in memory, in order": neighbours(patches, norm),
        "torchgeo, random": torchgeo(folder, norm, RandomGeoSampler, 0),
        "torchgeo, random, 2 workers": torchgeo(folder, norm, RandomGeoSampler, 2),
        "torchgeo, grid": torchgeo(folder, norm, GridGeoSampler, 0),
        "torchgeo, grid, 2 workers": torchgeo(folder, norm, GridGeoSampler, 2),
    }


def check(folder: Path, all_of_them: dict[str, Contender], arrays: dict[str, np.ndarray]) -> None:
    """Every patch that is delivered is one of the scene's, with its own labels."""
    norm = Norm(sampleset.open(folder / "samples.zarr").statistics["s2"])
    wanted = norm(torch.from_numpy(arrays["s2"]))
    labels = torch.from_numpy(arrays["label"])
    for name, contender in all_of_them.items():
        image, label = next(iter(contender()))
        shapes = ((BATCH, 10, PATCH, PATCH), (BATCH, PATCH, PATCH))
        assert (tuple(image.shape), tuple(label.shape)) == shapes, name
        assert image.dtype == torch.float32, name
        if "random" in name or "augmented" in name:
            continue  # not the patches of the lattice
        for i in range(0, BATCH, 8):
            # At least one number of a patch occurs in no other: the means are as good as a name.
            near = (wanted.mean((1, 2, 3)) - image[i].mean()).abs() < 1e-4
            fits = [
                torch.allclose(image[i], wanted[k], atol=1e-4)
                and torch.equal(label[i].long(), labels[k].long())
                for k in torch.nonzero(near).flatten().tolist()
            ]
            assert any(fits), name


# -------------------------------------------------------------------------------------- sections


def rate(contender: Contender, seconds: float) -> tuple[float, float]:
    """Samples per second after the first batch; processor ms per sample, workers' too."""
    cpu = cpu_time()
    batches = contender()
    count = len(next(batches)[0])
    first, start = count, time.perf_counter()
    for image, _ in batches:
        count += len(image)
        if time.perf_counter() - start > seconds:
            break
    wall = time.perf_counter() - start
    del batches  # joins the workers, whose time counts then
    return (count - first) / wall, (cpu_time() - cpu) / count * 1e3


def cpu_time() -> float:
    return sum(os.times()[:4])


def rates(all_of_them: dict[str, Contender], runs: int, seconds: float) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in all_of_them}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on small tensors a second one only waits
    for _ in range(runs):
        for name, contender in all_of_them.items():
            found[name].append(rate(contender, seconds))
    torch.set_num_threads(threads)
    middle = {
        name: [statistics.median(v) for v in zip(*values, strict=True)]
        for name, values in found.items()
    }
    print("| contender | samples/s | lcengine is | CPU ms/sample |\n|---|---:|---:|---:|")
    for name, (speed, cpu) in middle.items():
        print(f"| {name} | {speed:,.0f} | {middle['lcengine'][0] / speed:.1f}× | {cpu:.2f} |")


def unet(bands: int, classes: int, width: int) -> torch.nn.Module:
    """Ronneberger et al. 2015 with padding, three poolings."""

    def double(n: int, m: int) -> torch.nn.Sequential:
        parts = [torch.nn.Conv2d(n, m, 3, padding=1), torch.nn.ReLU()]
        return torch.nn.Sequential(*parts, torch.nn.Conv2d(m, m, 3, padding=1), torch.nn.ReLU())

    class UNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [width * 2**i for i in range(4)]
            self.down = torch.nn.ModuleList(map(double, [bands, *sizes[:-1]], sizes))
            pairs = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
            self.rise = torch.nn.ModuleList(torch.nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
            self.up = torch.nn.ModuleList(double(2 * b, b) for _, b in pairs)
            self.last = torch.nn.Conv2d(width, classes, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = []
            for i, block in enumerate(self.down):
                x = block(torch.nn.functional.max_pool2d(x, 2) if i else x)
                kept.append(x)
            for rise, block, side in zip(self.rise, self.up, kept[-2::-1], strict=True):
                x = block(torch.cat([rise(x), side], dim=1))
            return self.last(x)

    return UNet()


def training(all_of_them: dict[str, Contender], runs: int, steps: int, device: str) -> None:
    """Share of a U-Net's training time that passes in `next(batches)`."""
    torch.manual_seed(0)
    model = unet(10, 11, 32).to(device)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    loss = torch.nn.CrossEntropyLoss(ignore_index=255)

    def step(image: torch.Tensor, label: torch.Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(model(image.to(device)), label.to(device).long()).backward()
        optimiser.step()
        if device != "cpu":
            torch.cuda.synchronize()

    names = ["one batch again and again", *all_of_them]
    image, label = next(iter(all_of_them["lcengine"]()))
    step(image, label)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            batches = all_of_them[name]() if name in all_of_them else iter([(image, label)] * 999)
            next(batches)
            waited, start = 0.0, time.perf_counter()
            for _ in range(steps):
                before = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before
                step(*batch)
            wall = time.perf_counter() - start
            found[name].append((waited / wall, wall / steps))
            del batches
    print(f"\nU-Net ({device}, batch {BATCH}, {PATCH} px, 32 … 256 channels)\n")
    print("| contender | waits | a step takes |\n|---|---:|---:|")
    for name, values in found.items():
        share, wall = (statistics.median(v) for v in zip(*values, strict=True))
        print(f"| {name} | {share:.2%} | {wall * 1e3:,.0f} ms |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the data, one run")
    parser.add_argument("--sections", default="rates,unet")
    parser.add_argument("--runs", type=int, help="of each contender (3, quick 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="per contender and run")
    parser.add_argument("--steps", type=int, default=6, help="of the U-Net per contender and run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    edge, runs = (2048, options.runs or 1) if options.quick else (4096, options.runs or 3)
    with tempfile.TemporaryDirectory(prefix="lcengine-samples-") as folder:
        arrays = write(Path(folder), edge, PATCH)
        all_of_them = contenders(Path(folder), arrays)
        check(Path(folder), all_of_them, arrays)
        if "rates" in options.sections:
            rates(all_of_them, runs, options.seconds)
        if "unet" in options.sections:
            some = ("lcengine", "lcengine, augmented", "xbatcher, Zarr cube", "torchgeo, random")
            some = {name: c for name, c in all_of_them.items() if name.startswith(some)}
            training(some, runs, options.steps, options.device)


if __name__ == "__main__":
    main()
