"""Samples from arrays in memory, by slicing: what the sources of the package are held against."""

from __future__ import annotations

import numpy as np

from lcengine.inputs import Input
from lcengine.legends import Entry, Legend
from lcengine.samples.source import LABEL, Scene

LEGEND = Legend(
    "three",
    "Three classes",
    (Entry(10, "tree", "#006400"), Entry(40, "crop", "#f096ff"), Entry(80, "water", "#0064c8")),
    "made up",
)


def scene(height, width, *, top=0, left=0, size=10.0, name="a", crs="EPSG:32631", group=""):
    """A raster whose corner is `top` pixels south and `left` east of the origin of the CRS."""
    transform = (size, 0.0, left * size, 0.0, -size, -top * size)
    return Scene(name, (height, width), crs, transform, group)


class Plain:
    """Scenes of random pixels; labels as given or random, a tenth of them ignored."""

    kind = "plain"
    legend = LEGEND
    interval = None

    def __init__(self, *scenes, labels=None, bands=2, dtype="int16", seed=0):
        rng = np.random.default_rng(seed)
        self.scenes = scenes
        self.inputs = (Input("s2", tuple(f"b{i}" for i in range(bands)), dtype, -32768),)
        self.given = labels or [
            rng.choice(np.array([0, 1, 2, 255], np.uint8), s.shape, p=[0.5, 0.3, 0.1, 0.1])
            for s in scenes
        ]
        self.pixels = [rng.integers(-100, 4000, (bands, *s.shape)).astype(dtype) for s in scenes]

    def labels(self, scene, window):
        y, x, height, width = window
        found = self.given[scene]
        assert min(y, x) >= 0
        assert y + height <= found.shape[0]
        assert x + width <= found.shape[1]
        return found[y : y + height, x : x + width]

    def cut(self, scene, windows):
        out = {"s2": [], LABEL: []}
        for y, x, height, width in windows:
            out["s2"].append(self.pixels[scene][:, y : y + height, x : x + width])
            out[LABEL].append(self.labels(scene, (y, x, height, width)))
        return {name: np.stack(values) for name, values in out.items()}

    def to_json(self):
        return {"kind": self.kind}
