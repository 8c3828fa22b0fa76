"""Samples whose classes have colours of their own, for models to learn."""

from __future__ import annotations

import numpy as np
from sample_stores import CLASSES, write_samples

from lcengine import samples
from lcengine.inputs import Input, observed

S2 = Input("s2", ("red", "nir", "swir16"), "int16", -32768, scale=1e-4)
COLOURS = np.array([[400, 3500, 1500], [900, 2500, 2500], [0, 0, 0], [1500, 1800, 2600]])
"""Of each class of `sample_stores.LEGEND`; the third has no pixel."""
PATCH = 16


def coloured(count, seed=0, noise=250, patch=PATCH):
    """Stored numbers and labels of patches, in pieces of one class each, a tenth missing."""
    rng = np.random.default_rng(seed)
    classes = np.flatnonzero(COLOURS.any(axis=1))
    pieces = classes[rng.choice(3, (count, 4, 4), p=[0.5, 0.35, 0.15])]
    label = np.kron(pieces, np.ones((1, patch // 4, patch // 4), int)).astype(np.uint8)
    values = COLOURS[label] + rng.normal(0, noise, (*label.shape, 3))
    image = np.moveaxis(values, -1, 1).astype(np.int16)
    image[rng.random(image.shape) < 0.03] = S2.fill
    assert label.max() < CLASSES
    return {"s2": image, "label": label}


def store(path, count=32, *, labelled=0.6, seed=0, patch=PATCH, noise=250):
    """A store of them, partly labelled, three of four in the training split."""
    arrays = coloured(count, seed, noise, patch)
    rng = np.random.default_rng(seed + 1)
    arrays["label"] = np.where(rng.random(arrays["label"].shape) < labelled, arrays["label"], 255)
    arrays["label"] = arrays["label"].astype(np.uint8)
    return samples.open(write_samples(path, arrays, (S2,)))


def task(predictor, seed=7):
    """What `PredictorContract` needs of a model trained on them."""
    arrays = coloured(3, seed)
    label = arrays.pop("label")
    valid = observed((S2,), arrays)
    return predictor, arrays, valid, np.where(valid, label, 255)


def flat(samples_, split="train"):
    """All labelled, observed pixels by plain NumPy: features (bands, scaled), legend indices."""
    arrays = samples_.read(samples_.split(split))
    kept = (arrays["label"] != 255) & (arrays["s2"] != S2.fill).all(axis=1)
    values = np.moveaxis(arrays["s2"], 1, -1)[kept]
    return values.astype(np.float32) * np.float32(S2.scale), arrays["label"][kept]
