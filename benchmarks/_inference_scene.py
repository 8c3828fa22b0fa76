"""The raster, the models and the products that contenders of `inference.py` run on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _measure import progress

BANDS = ("blue", "green", "red", "nir")
CLASSES = 6
LEFT, TOP, EPSG = 600_000, 5_600_000, 32631
NODATA = -32768
MODELS = {
    "resnet50-unet": ("encoder-unet", {"encoder": "resnet50"}),
    "unet": ("unet", {"depth": 3, "channels": 16}),
    "two-convolutions": ("two-convolutions", {}),
}
"""By name: kind of model and its options."""


# ------------------------------------------------------------------------------------ the raster


def raster(size: int, seed: int = 0) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Bands (band, y, x) of a patchy landscape under noise, and its classes (y, x)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    scales = (4, 6, 9, 14, 20, 30)
    fields = [gaussian_filter(rng.normal(size=(size, size)), s, mode="wrap") * s for s in scales]
    truth = np.argmax(fields, axis=0).astype(np.uint8)
    spectra = rng.uniform(600, 3600, (len(BANDS), CLASSES))
    out = np.empty((len(BANDS), size, size), np.int16)
    for band, levels in zip(out, spectra, strict=True):
        # As strong as the classes differ: only a pixel's surroundings tell what it is.
        band[:] = (levels[truth] + rng.normal(0, 900, truth.shape)).clip(1, 9999)
    return out, truth


def grid_of(size: int, tile: int) -> Any:
    from lcengine.grid import Grid

    bounds = LEFT, TOP - 10 * size, LEFT + 10 * size, TOP
    return Grid.from_bounds(*bounds, EPSG, 10.0, tile)


def publish(path: Path, bands: npt.NDArray[np.int16], size: int, tile: int) -> None:
    """A product of `size`² pixels, the raster repeated where it is smaller."""
    from lcengine.store import Variable, target

    layers = [Variable(name, "int16", NODATA, name, scale=1e-4, units="1") for name in BANDS]
    grid, place, edge = grid_of(size, tile), target(path), bands.shape[1]
    with place.exclusive():
        staging = place.create({"made": "bands"}, "bands", {"kind": "none"}, grid, layers)
        for part in grid.tiles():
            rows = np.arange(part.y0, part.y0 + part.height) % edge
            columns = np.arange(part.x0, part.x0 + part.width) % edge
            own = bands[:, rows[:, None], columns]
            staging.write(part, {v.name: own[i] for i, v in enumerate(layers)})
            staging.accept(staging.mark(part.index, {"pixels": 1}))
        staging.publish(range(grid.n_tiles), {"kind": "composite"}, {})


def scene(folder: Path, size: int, tile: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The raster as array, GeoTIFF and product below a new folder; bands and classes."""
    folder.mkdir()
    bands, truth = raster(size)
    np.save(folder / "bands.npy", bands)
    write_tiff(folder / "bands.tif", bands)
    publish(folder / "bands.zarr", bands, size, tile)
    return bands, truth


def write_tiff(path: Path, bands: npt.NDArray[np.int16]) -> None:
    """The raster as a GeoTIFF as archives have them: tiled, deflate."""
    import rasterio
    from rasterio.transform import from_origin

    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": "int16", "count": count, "nodata": NODATA}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"}
    with rasterio.open(
        path, "w", height=height, width=width, crs=f"EPSG:{EPSG}",
        transform=from_origin(LEFT, TOP, 10, 10), compress="deflate", predictor=2,
        **profile, **blocks,
    ) as dataset:  # fmt: skip
        dataset.write(bands)


# ------------------------------------------------------------------------------------ the models


def prepared(
    folder: Path, model: str, bands: npt.NDArray[Any], truth: npt.NDArray[Any], options: Namespace
) -> Any:
    """A model of the raster in a folder, trained for a moment; its spec."""
    from lcengine import models

    predictor = untrained(model, bands, options.patch, options.stride, "hann")
    steps = options.sizes.steps[model]
    loss = train(predictor, bands, truth, steps, options.threads)
    models.save(predictor, folder / model)
    progress(f"{model}: trained for {steps} steps, loss {loss:.3f}")
    return predictor.spec


def untrained(name: str, bands: npt.NDArray[np.int16], patch: int, stride: int, window: str) -> Any:
    """A predictor with weights at random, for the raster's bands."""
    import torch

    from lcengine import models
    from lcengine.inputs import Input
    from lcengine.legends import Entry, Legend
    from lcengine.models.nn.predictor import NetworkPredictor

    kind, options = MODELS[name]
    architecture = architecture_of(kind)
    chosen = architecture.options(**options)
    inputs = (Input("image", BANDS, "int16", NODATA, scale=1e-4, units="1"),)
    legend = Legend(
        "made", "Made up", tuple(Entry(i, f"class {i}", f"#{i:02x}0000") for i in range(CLASSES)),
        "made up",
    )  # fmt: skip
    spec = models.ModelSpec(
        kind, inputs, legend, resolution=10.0, patch=patch, stride=stride, window=window,
        margin=architecture.margin(chosen), output_stride=architecture.output_stride(chosen),
        placed=architecture.placed(chosen),
        options={**chosen.model_dump(mode="json"), "activation": "softmax"},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = architecture.build(chosen, len(BANDS), CLASSES)
    pixels = bands.reshape(len(BANDS), -1)
    gains = (1 / pixels.std(axis=1)).astype(np.float32)
    return NetworkPredictor(spec, module, pixels.mean(axis=1, dtype=np.float32), gains)


def architecture_of(kind: str) -> Any:
    """The `Architecture` of a kind of networks."""
    from importlib import import_module

    from lcengine.models.predictor import KINDS

    if kind == "two-convolutions":
        import _inference_small as module
    else:
        module = import_module(KINDS[kind])
    found = getattr(module, "ARCHITECTURES", None)
    return found[kind] if found else module.ARCHITECTURE


def train(
    predictor: Any,
    bands: npt.NDArray[np.int16],
    truth: npt.NDArray[np.uint8],
    steps: int,
    threads: int,
) -> float:
    """Some steps on crops of 128 pixels of the raster; the loss of the last ones.

    Not how to train: enough for probabilities that mean something, and statistics of batches.
    """
    import torch
    from torch.nn.functional import cross_entropy

    module = predictor.module.train().to(memory_format=torch.channels_last)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(module.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=max(steps, 2))
    losses = []
    for image, label in crops(predictor, bands, truth, rng, steps):
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(torch.from_numpy(image).to(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), torch.from_numpy(label))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    module.eval()
    return float(np.mean(losses[-10:])) if losses else float("nan")


def crops(
    predictor: Any,
    bands: npt.NDArray[np.int16],
    truth: npt.NDArray[np.uint8],
    rng: np.random.Generator,
    steps: int,
    edge: int = 128,
    count: int = 4,
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Batches of normalised crops and their classes."""
    for _ in range(steps):
        corners = rng.integers(0, truth.shape[0] - edge, (count, 2))
        parts = [np.s_[y : y + edge, x : x + edge] for y, x in corners]
        image = np.stack([bands[(slice(None), *part)] for part in parts])
        yield normalised(predictor, image), np.stack([truth[part] for part in parts]).astype(int)


def normalised(predictor: Any, image: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """What a network sees of stored numbers (…, band, y, x) without gaps, by plain NumPy."""
    means, gains = predictor.means[:, None, None], predictor.gains[:, None, None]
    return (image.astype(np.float32) - means) * gains
