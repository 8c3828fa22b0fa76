"""s2cloudless: the cloud detector of Sentinel Hub for Sentinel-2 L1C, without its dependencies.

A gradient-boosted tree per pixel on ten TOA reflectances (Zupanc 2017; Skakun et al. 2022, CMIX),
then the published post-processing: mean over a disk of 4 pixels, > 0.4, dilation by a disk of 2.
These radii are its authors' for 60 m pixels, and 60 m is also the grid of three of the ten bands:
the others are averaged to it. The model itself comes with the package `s2cloudless`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels import morphology
from lcengine.masks.decode import CLOUD, LAND, MASK, NO_DATA, RawBand

FLOAT = npt.NDArray[np.float32]

BANDS = (
    "coastal",
    "blue",
    "red",
    "rededge1",
    "nir",
    "nir08",
    "nir09",
    "cirrus",
    "swir16",
    "swir22",
)
PIXEL = 60.0
AVERAGE = 4
DILATION = 2
LIMIT = np.float32(0.4)
MODEL = "pixel_s2_cloud_detector_lightGBM_v0.1.txt"


def s2cloudless_probability(bands: FLOAT) -> FLOAT:
    """Cloud probability 0…1, float32 (y, x).

    `bands`: float32 (10, y, x) TOA reflectance of B01, B02, B04, B05, B08, B8A, B09, B10, B11, B12.
    Raises `InputError` where the extra is not installed.
    """
    count, height, width = bands.shape
    if count != len(BANDS):
        raise InputError(f"s2cloudless got {count} bands, expected the {len(BANDS)} of {BANDS}")
    pixels = np.ascontiguousarray(bands.reshape(count, -1).T, dtype=np.float32)
    # One thread: tile tasks are already as many as there are processors.
    probability = _model().predict(pixels, num_threads=1)
    return np.asarray(probability, dtype=np.float32).reshape(height, width)


def s2cloudless_mask(probability: FLOAT) -> MASK:
    """Cloud mask 0/1, uint8 (y, x), of a whole scene's probability (float32, 60 m pixels)."""
    found = smoothed(probability) > LIMIT
    return morphology.dilate(found.astype(np.uint8), morphology.disk(DILATION))


def smoothed(probability: FLOAT) -> FLOAT:
    """Mean over a disk of 4 pixels, the scene mirrored at its border (edge pixel repeated).

    Summed in row order with one float32 rounding per term (a fused multiply-add), so that values
    at the very threshold fall as they do in the published masks, on any machine.
    """
    height, width = probability.shape
    widths = morphology.disk(AVERAGE)
    weight = np.float64(np.float32(1.0 / (2 * widths.astype(int) + 1).sum()))
    padded = np.pad(probability.astype(np.float64), AVERAGE, mode="symmetric")
    total: FLOAT = np.zeros((height, width), dtype=np.float32)
    for y, half in enumerate(widths):
        for x in range(AVERAGE - int(half), AVERAGE + int(half) + 1):
            term = padded[y : y + height, x : x + width] * weight
            total = (term + total).astype(np.float32)
    return total


def decode(bands: Sequence[RawBand]) -> MASK:
    """Classes of the ten bands before the dilation; exact 4 pixels away from a cut.

    Pixels that miss a band are no data, and clear to their neighbours (the model gives 0.0001).
    """
    valid = np.logical_and.reduce([band.valid for band in bands])
    reflectance = np.stack([np.where(valid, band.quantity, np.float32(0)) for band in bands])
    probability: FLOAT = np.zeros(valid.shape, dtype=np.float32)
    if valid.any():
        pixels = reflectance[:, valid][:, None, :]
        probability[valid] = s2cloudless_probability(pixels)[0]
    classes = np.where(smoothed(probability) > LIMIT, CLOUD, LAND)
    return np.where(valid, classes, NO_DATA).astype(np.uint8)


@cache
def _model() -> Any:
    """The package's model; importing the package itself would load its download client."""
    found = importlib.util.find_spec("s2cloudless")
    if found is None or found.origin is None:
        raise InputError(
            "the mask s2cloudless needs the package of that name, which is not installed; "
            "install it with pip install 'lcengine[s2cloudless]'"
        )
    import lightgbm  # noqa: PLC0415 - optional

    return lightgbm.Booster(model_file=str(Path(found.origin).parent / "models" / MODEL))
