"""A picture of what a model sees, should find and finds, on patches it was not fitted to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lcengine.inputs import Input, observed
from lcengine.legends import IGNORE, Legend
from lcengine.quicklook import classes, colour, natural
from lcengine.samples.source import LABEL

if TYPE_CHECKING:
    from lcengine.models import Predictor
    from lcengine.samples.sampleset import SampleSet

PATCHES: Final = 6
KEYS: Final = 24
"""Classes in the key, at most: those with most pixels in the picture."""
NOTHING: Final = "#e8d8f0"
"""Colour of nodata and of pixels without a label."""
ROWS: Final = ("image", "reference", "prediction")


def examples(predictor: Predictor, samples: SampleSet, split: str) -> bytes:
    """PNG of some patches of a split, evenly along the store: image, reference and prediction.

    The first input is drawn, at the time with the most pixels: red, green and blue where it has
    them, else its first band.
    """
    members = samples.split(split)
    count = min(PATCHES, len(members))
    chosen = members[np.arange(count) * len(members) // count]
    arrays = samples.read(chosen)
    label = arrays.pop(LABEL)
    valid = observed(samples.inputs, arrays)
    found = predictor.predict(arrays, valid).argmax(axis=1)
    mapped = np.where(valid, found, IGNORE).astype(np.uint8)
    drawn = {
        "image": _images(samples.inputs[0], arrays[samples.inputs[0].name]),
        "reference": [_coloured(part, samples.legend) for part in label],
        "prediction": [_coloured(part, samples.legend) for part in mapped],
    }
    figure = Figure(figsize=(1.0 + 1.8 * count, 7.2), dpi=120, layout="constrained")
    for row, axes in zip(ROWS, figure.subplots(len(ROWS), count, squeeze=False), strict=True):
        for axis, image in zip(axes, drawn[row], strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[], facecolor=NOTHING)
        axes[0].set_ylabel(row)
    keys = [
        Patch(color=samples.legend.colours[i], label=samples.legend.names[i])
        for i in _shown(np.concatenate([label.reshape(-1), mapped.reshape(-1)]), samples.legend)
    ]
    if keys:
        figure.legend(handles=keys, loc="outside lower center", ncols=6, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _images(entry: Input, values: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """(y, x, 4) pictures of one stretch."""
    valid = entry.valid(values)
    if entry.times:
        best = int(valid.sum(axis=(0, 2, 3, 4)).argmax())
        values, valid = values[:, best], valid[:, best]
    bands = [entry.bands.index(name) for name in natural(entry.bands) or entry.bands[:1]]
    pixels = np.where(valid, values, np.nan)[:, bands].astype(np.float32)
    height = pixels.shape[2]
    long = colour(np.concatenate(list(pixels), axis=1))  # under one another: one stretch for all
    return [long[i * height : (i + 1) * height] for i in range(len(pixels))]


def _coloured(indices: npt.NDArray[np.uint8], legend: Legend) -> npt.NDArray[np.uint8]:
    attributes = {
        "flag_values": np.arange(len(legend.classes)),
        "flag_colors": " ".join(legend.colours),
    }
    return classes(indices, attributes)


def _shown(indices: npt.NDArray[np.uint8], legend: Legend) -> list[int]:
    """Classes that there are, in the order of the legend."""
    counts = np.bincount(indices, minlength=IGNORE + 1)[: len(legend.classes)]
    most = np.argsort(-counts, kind="stable")[:KEYS]
    return sorted(int(i) for i in most if counts[i])
