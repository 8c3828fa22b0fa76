"""A small model of pixels, or of pixels beside the mean of their window, in plain NumPy."""

from __future__ import annotations

import time

import numpy as np
from pydantic import BaseModel

from lcengine.legends import Entry, Legend
from lcengine.models import Kind, ModelSpec

LEGEND = Legend(
    "three",
    "Three classes",
    (Entry(10, "tree", "#006400"), Entry(40, "crop", "#f096ff"), Entry(300, "wet land", "#0064c8")),
    "made up",
)


class Plain:
    """Probabilities from weighted sums of what is there, missing values as 0.

    All arithmetic is of one pixel, in the order of the bands: the same bits in any company.
    """

    def __init__(self, spec, weights):
        self.spec = spec
        self.weights = weights

    def predict(self, inputs, valid):
        time.sleep(self.spec.options.get("delay", 0))
        count, height, width = valid.shape
        scores = np.full((count, len(self.weights), height, width), 0.5, np.float32)
        for entry in self.spec.inputs:
            values = inputs[entry.name]
            assert values.dtype == entry.dtype
            assert values.flags.c_contiguous
            assert valid.any()
            there = np.where(entry.valid(values), values, 0).astype(np.int64)
            layers = there.reshape(count, -1, height, width)
            if self.spec.patch > 1:
                assert max(height, width) <= self.spec.patch
                layers = layers + layers.sum(axis=(2, 3), keepdims=True) // (height * width)
            for k, row in enumerate(self.weights):
                for layer in range(layers.shape[1]):
                    scores[:, k] += np.float32(row[layer]) * layers[:, layer].astype(np.float32)
        scores = np.maximum(scores, np.float32(0)) + np.float32(1)
        total = np.zeros_like(scores[:, 0])
        for k in range(scores.shape[1]):
            total += scores[:, k]
        return np.where(valid[:, None], scores / total[:, None], np.float32(0))

    def state(self):
        return {"weights": self.weights}, {}


def plain(inputs, patch=1, seed=0, resolution=10.0, **options):
    """A model with random weights; `delay`: seconds that every answer takes."""
    layers = max(int(np.prod(entry.lead)) for entry in inputs)
    weights = np.random.default_rng(seed).normal(0, 1, (len(LEGEND.classes), layers))
    spec = ModelSpec("plain", tuple(inputs), LEGEND, resolution, patch, options=options)
    return Plain(spec, weights.astype(np.float32))


class Options(BaseModel):
    """None."""


def _fit(samples, options, training):
    raise NotImplementedError


KIND = Kind(Options, _fit, lambda spec, arrays, _files: Plain(spec, arrays["weights"]))


def register(folder):
    """A folder for PYTHONPATH: processes that have it know the kind `plain` from their start."""
    text = "from lcengine.models import KINDS\n\nKINDS['plain'] = 'plain_model'\n"
    (folder / "sitecustomize.py").write_text(text)
    return folder
