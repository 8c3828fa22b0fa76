"""Quicklooks: a product as a picture with a sensible stretch."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from matplotlib.patches import Rectangle

from lcengine import store
from lcengine.errors import InputError

FLOAT = npt.NDArray[np.float32]

LOW, HIGH = 2.0, 98.0
"""Percentiles that become black and white."""
NAMED = 40
"""Classes in a key, at most."""


def draw(
    product: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    bands: Sequence[str] | None = None,
    time: str | None = None,
    size: int = 1024,
) -> tuple[int, int]:
    """Write a PNG of one band (grey) or three (red, green, blue); returns (height, width).

    The product is thinned to at most `size` pixels on its longest edge. Default: red, green, blue
    where the product has them, else its first variable. `time`: which period to draw of a product
    that has several, by name. Classes are drawn in the colours of their legend, with a key of
    those that occur at the right.
    """
    dataset = store.pick(store.open(product), time)
    names = [str(name) for name, raster in dataset.items() if {"y", "x"} <= set(raster.coords)]
    if not names:
        raise InputError(
            f"{product} is no raster; a quicklook takes composites and labels, and samples are "
            "drawn by --picture of `lcengine samples`"
        )
    chosen = list(bands or natural(names) or names[:1])
    unknown = [name for name in chosen if name not in dataset.data_vars]
    if unknown or len(chosen) not in (1, 3):
        raise InputError(
            f"bands are {', '.join(chosen)}; expected one or three of "
            f"{', '.join(str(n) for n in dataset.data_vars)}"
        )
    check_picture(picture)
    if size < 1:
        raise InputError(f"size is {size}, expected at least 1 pixel")
    step = max(1, -(-max(dataset.sizes["y"], dataset.sizes["x"]) // size))
    thin = dataset.isel(y=slice(None, None, step), x=slice(None, None, step))
    first = thin[chosen[0]]
    if len(chosen) == 1 and "flag_colors" in first.attrs:
        codes = first.values
        pixels = beside(classes(codes, first.attrs), key(codes, first.attrs))
    else:
        pixels = colour(np.stack([thin[name].values.astype(np.float32) for name in chosen]))
    imsave(picture, pixels, format="png")
    return pixels.shape[0], pixels.shape[1]


def check_picture(picture: str | os.PathLike[str]) -> None:
    """`InputError` where a picture cannot be written for want of a folder: before long work."""
    folder = Path(picture).absolute().parent
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; create it")


def classes(codes: npt.NDArray[Any], attributes: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Codes (y, x) -> (y, x, 4) uint8 in the colours of `flag_colors`; all others transparent."""
    table = np.zeros((65536, 4), dtype=np.uint8)
    colours = [bytes.fromhex(text[1:]) for text in str(attributes["flag_colors"]).split()]
    table[np.atleast_1d(attributes["flag_values"]), :3] = [list(rgb) for rgb in colours]
    table[np.atleast_1d(attributes["flag_values"]), 3] = 255
    return table[codes.astype(np.uint16)]


def key(codes: npt.NDArray[Any], attributes: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Colours and names of the classes that occur, (y, x, 4) uint8; the most frequent of many."""
    values = np.atleast_1d(attributes["flag_values"])
    names, colours = (str(attributes[f"flag_{what}"]).split() for what in ("meanings", "colors"))
    pixels = np.bincount(codes.astype(np.int64).ravel(), minlength=65536)[values]
    most = np.argsort(-pixels, kind="stable")[:NAMED]
    there = sorted(i for i in most.tolist() if pixels[i])
    if not there:
        return np.zeros((0, 0, 4), np.uint8)
    longest = max(len(names[i]) for i in there)
    figure = Figure(figsize=(0.45 + 0.085 * longest, 0.17 * len(there) + 0.1), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, figure.get_figwidth()), ylim=(len(there) + 0.3, -0.3))
    axis.set_axis_off()
    for row, i in enumerate(there):
        axis.add_patch(Rectangle((0.1, row + 0.15), 0.2, 0.7, color=colours[i]))
        axis.text(0.38, row + 0.5, names[i].replace("_", " "), va="center", fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    drawn.seek(0)
    return np.asarray(np.rint(imread(drawn) * 255), np.uint8)


def beside(picture: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two pictures (y, x, 4) at one height, the space around the smaller one transparent."""
    height = max(picture.shape[0], other.shape[0])
    out = np.zeros((height, picture.shape[1] + other.shape[1], 4), np.uint8)
    out[: picture.shape[0], : picture.shape[1]] = picture
    out[: other.shape[0], picture.shape[1] :] = other
    return out


def natural(names: Sequence[str]) -> list[str]:
    """Red, green and blue, of the first method where there are several; empty without them."""
    for name in names:
        suffix = name.removeprefix("red")
        wanted = [f"{band}{suffix}" for band in ("red", "green", "blue")]
        if name.startswith("red") and set(wanted) <= set(names):
            return wanted
    return []


def shown(names: Sequence[str]) -> list[str]:
    """What is drawn of bands: natural colours, else those with near infrared, else the first."""
    false = ["nir", "red", "green"]
    return natural(names) or (false if set(false) <= set(names) else list(names[:1]))


def colour(bands: FLOAT, like: FLOAT | None = None) -> npt.NDArray[np.uint8]:
    """(band, y, x) float with NaN -> (y, x, 4) uint8: one stretch for all bands, NaN transparent.

    A common stretch keeps the colour balance of the bands. `like`: take the stretch from these
    bands instead, to compare pictures.
    """
    valid = np.isfinite(bands).all(axis=0)
    model = bands if like is None else like
    known = model[:, np.isfinite(model).all(axis=0)]
    low, high = np.percentile(known, [LOW, HIGH]) if known.size else (0.0, 1.0)
    scaled = (bands - low) / max(high - low, 1e-6)
    grey = (np.clip(np.nan_to_num(scaled), 0, 1) * 255).astype(np.uint8)
    out = np.zeros((*bands.shape[1:], 4), dtype=np.uint8)
    out[..., :3] = np.moveaxis(grey if len(bands) == 3 else np.repeat(grey[:1], 3, axis=0), 0, -1)
    out[..., 3] = np.where(valid, 255, 0)
    return out
