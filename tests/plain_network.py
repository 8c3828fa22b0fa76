"""A network in plain NumPy: weighted sums of a pixel's surroundings, bit-equal in any company.

Beyond a patch it sees zeros, so answers near a patch's edge are others than those of the raster:
what merges patches wrongly shows.
"""

from __future__ import annotations

import numpy as np
from plain_model import LEGEND
from pydantic import BaseModel

from lcengine.models import Kind, ModelSpec


class PlainNetwork:
    """Probabilities from sums over (2·margin + 1)² pixels of all bands, missing values as 0."""

    def __init__(self, spec, weights):
        self.spec = spec
        self.weights = weights
        self.batches = []

    def predict(self, inputs, valid):
        count, height, width = valid.shape
        layers = []
        for entry in self.spec.inputs:
            values = inputs[entry.name]
            assert values.dtype == entry.dtype
            assert values.flags.c_contiguous
            there = np.where(entry.valid(values), values, 0)
            layers.append(there.reshape(count, -1, height, width))
        image = np.concatenate(layers, axis=1).astype(np.float32)
        reach = self.spec.margin
        padded = np.pad(image, [(0, 0), (0, 0), (reach, reach), (reach, reach)])
        scores = np.full((count, len(self.weights), height, width), 0.5, np.float32)
        for k, kernel in enumerate(self.weights):
            for layer in range(image.shape[1]):
                for i in range(2 * reach + 1):
                    for j in range(2 * reach + 1):
                        part = padded[:, layer, i : i + height, j : j + width]
                        scores[:, k] += kernel[layer, i, j] * part
        scores = np.maximum(scores, np.float32(0)) + np.float32(100)
        total = np.zeros_like(scores[:, 0])
        for k in range(scores.shape[1]):
            total += scores[:, k]
        return np.where(valid[:, None], scores / total[:, None], np.float32(0))

    def run(self, batches, how):
        for inputs, valid in batches:
            assert 0 < len(valid) <= how.batch
            self.batches.append(len(valid))
            yield self.predict(inputs, valid)

    def state(self):
        return {"weights": self.weights}, {}


def network(inputs, patch=32, stride=20, margin=3, window="hann", seed=0, **more):
    """A network with random weights."""
    layers = sum(int(np.prod(entry.lead)) for entry in inputs)
    edge = 2 * margin + 1
    weights = np.random.default_rng(seed).normal(0, 1, (len(LEGEND.classes), layers, edge, edge))
    spec = ModelSpec(
        "plain-network", tuple(inputs), LEGEND, 10.0, patch, stride, window, margin, **more
    )
    return PlainNetwork(spec, weights.astype(np.float32))


class Options(BaseModel):
    """None."""


def _fit(samples, options, training):
    raise NotImplementedError


KIND = Kind(Options, _fit, lambda spec, arrays, _files: PlainNetwork(spec, arrays["weights"]))
