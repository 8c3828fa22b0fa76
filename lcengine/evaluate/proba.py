"""What the probabilities that a map stores are worth, from whole numbers of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine import store
from lcengine.errors import InputError
from lcengine.imagefile import is_image
from lcengine.legends import IGNORE, Crosswalk
from lcengine.locate import Window
from lcengine.metrics import BINS, COUNTS, Reliability
from lcengine.predict.plan import SCALE, probability_names

STEPS: Final = round(1 / SCALE)
"""Stored number of a probability of 1."""


def stored_names(path: str, crosswalk: Crosswalk) -> tuple[str, ...]:
    """Variables of a map with the probability of each class of its legend; none without all.

    Nor where classes of the map become one, because then theirs add up.
    """
    targets = [to for _, to in crosswalk.pairs if to is not None]
    if is_image(path) or len(set(targets)) < len(crosswalk.pairs):
        return ()
    names = tuple(probability_names(crosswalk.source))
    known = store.provenance(path)["variables"]
    return names if all(name in known for name in names) else ()


class Confidence:
    """The greatest probability of each pixel of a map, as stored."""

    def __init__(self, path: str, names: Sequence[str]) -> None:
        data = store.stored(path)
        self._layers = [data[name] for name in names]
        wrong = [v.name for v in self._layers if v.dtype != np.uint8 or v.dims != ("y", "x")]
        if wrong:
            raise InputError(f"{path} has other probabilities than a map: {wrong}; predict it anew")

    def best(self, window: Window) -> npt.NDArray[np.uint8]:
        """(y, x) in steps of 1/250; 255: nodata."""
        rows = slice(window.y0, window.y0 + window.height)
        columns = slice(window.x0, window.x0 + window.width)
        out = np.zeros((window.height, window.width), np.uint8)
        for layer in self._layers:
            np.maximum(out, layer[rows, columns].values, out=out)
        return out


def tally(
    best: npt.NDArray[np.uint8],
    mapped: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
) -> COUNTS:
    """Pixels by stored probability (251), and those of them whose class is right: (2, 251)."""
    known = (mapped != IGNORE) & (reference != IGNORE) & (best <= STEPS)
    right = known & (mapped == reference)
    return np.stack([np.bincount(best[where], minlength=STEPS + 1) for where in (known, right)])


def reliability(counts: COUNTS, bins: int = BINS) -> Reliability:
    """The curve of `tally`, of all tiles together."""
    values = np.arange(STEPS + 1)
    place = np.minimum(values * bins // STEPS, bins - 1)
    pixels, right = (np.bincount(place, row, bins) for row in counts)
    sums = np.bincount(place, counts[0] * values, bins) / STEPS
    with np.errstate(invalid="ignore"):
        return Reliability(pixels.astype(np.int64), sums / pixels, right / pixels)
