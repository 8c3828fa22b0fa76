"""A picture of samples: patches with their labels below, framed by their split."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xarray as xr
from matplotlib.image import imsave

from lcengine import store
from lcengine.errors import InputError
from lcengine.quicklook import check_picture, classes, colour, natural
from lcengine.samples.source import LABEL, TABLE
from lcengine.samples.spec import SPLITS

PATCHES = 32
"""Patches in a picture, at most."""
FRAMES = ((31, 119, 180), (255, 127, 14), (214, 39, 40))
"""Colours of the splits: train blue, val orange, test red."""
LEAST = 64
"""Edge to which smaller patches are enlarged, in whole times."""
GAP = 2
"""Pixels between patches, and the width of their frames."""

RGBA = npt.NDArray[np.uint8]


def draw(
    product: str | os.PathLike[str], picture: str | os.PathLike[str], *, patches: int = PATCHES
) -> tuple[int, int]:
    """Write a PNG of samples, evenly from those of each split; returns (height, width).

    The first input of the store is drawn, at the time with the most pixels: red, green and blue
    where it has them, else its first band. Below each patch are its labels in the colours of the
    legend.
    """
    check_picture(picture)
    provenance = store.provenance(product)
    if provenance.get("kind") != "samples":
        raise InputError(f"{product} holds no samples; draw rasters with `lcengine quicklook`")
    splits = _splits(product)
    chosen = _chosen(splits, patches)
    data = store.open(product)
    images = _images(data, provenance["inputs"][0], chosen)
    labels = classes(data[LABEL].isel(sample=chosen).values, data[LABEL].attrs)
    frames = [FRAMES[SPLITS.index(splits[number])] for number in chosen]
    sheet = _sheet([_framed(*patch) for patch in zip(images, labels, frames, strict=True)])
    imsave(picture, sheet, format="png")
    return sheet.shape[0], sheet.shape[1]


def _splits(product: str | os.PathLike[str]) -> list[str]:

    content = io.BytesIO(store.sidecar(product, TABLE))
    found: list[str] = pq.read_table(content, columns=["split"])["split"].to_pylist()
    return found


def _chosen(splits: list[str], patches: int) -> list[int]:
    """Numbers of samples, as many of each split, evenly along the store."""
    present = [name for name in SPLITS if name in splits]
    out: list[int] = []
    for name in present:
        members = [number for number, split in enumerate(splits) if split == name]
        wanted = min(len(members), max(1, patches // len(present)))
        out += [members[i * len(members) // wanted] for i in range(wanted)]
    return out


def _images(data: xr.Dataset, entry: dict[str, Any], chosen: list[int]) -> list[RGBA]:
    """(y, x, 4) pictures of one stretch."""
    name, bands = entry["name"], list(entry["bands"])
    values = data[name].isel(sample=chosen)
    if entry["times"]:
        first = values.isel({f"band_{name}": 0})
        valid = first.notnull().sum([dim for dim in first.dims if dim != f"time_{name}"])
        values = values.isel({f"time_{name}": int(valid.values.argmax())})
    drawn = [bands.index(band) for band in natural(bands) or bands[:1]]
    pixels = values.isel({f"band_{name}": drawn}).values.astype(np.float32)
    number, height = pixels.shape[0], pixels.shape[2]
    long = np.concatenate(list(pixels), axis=1)  # under one another: one stretch for all
    coloured = colour(long)
    return [coloured[i * height : (i + 1) * height] for i in range(number)]


def _framed(image: RGBA, label: RGBA, frame: tuple[int, int, int]) -> RGBA:
    """An image above its labels, in a frame."""
    image, label = (_enlarged(part) for part in (image, label))
    height, width = image.shape[:2]
    out = np.empty((2 * height + 3 * GAP, width + 2 * GAP, 4), np.uint8)
    out[...] = (*frame, 255)
    out[GAP : GAP + height, GAP : GAP + width] = image
    out[2 * GAP + height : 2 * GAP + 2 * height, GAP : GAP + width] = label
    return out


def _enlarged(image: RGBA) -> RGBA:
    times = max(1, LEAST // image.shape[0])
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _sheet(tiles: list[RGBA]) -> RGBA:
    """Tiles in rows, as wide as a picture should be."""
    height, width = tiles[0].shape[:2]
    columns = max(1, min(len(tiles), math.ceil(math.sqrt(len(tiles) * height / width))))
    rows = -(-len(tiles) // columns)
    out = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        y, x = row * (height + GAP), column * (width + GAP)
        out[y : y + height, x : x + width] = tile
    return out
