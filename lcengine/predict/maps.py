"""A tile of a map, painted with what a model says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.kernels import decide
from lcengine.locate import Window
from lcengine.predict.plan import ENTROPY, LABEL, MARGIN, PredictPlan, probability_names
from lcengine.predict.windows import common, inside


class Answer(NamedTuple):
    """What a model says of a window: probabilities (class, y, x), and (y, x) where it may."""

    window: Window
    proba: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


class Maps:
    """The arrays of a tile, painted window by window; `pixels` of each class."""

    def __init__(self, plan: PredictPlan, tile: Tile) -> None:
        self.plan = plan
        self.tile = tile
        shape = tile.height, tile.width
        self.arrays = {v.name: np.full(shape, v.missing, v.dtype) for v in plan.variables()}
        legend = plan.legend
        self.pixels = np.zeros(len(legend.classes), np.int64)
        self.codes = np.full(256, legend.nodata, legend.dtype)
        self.codes[: len(legend.classes)] = legend.codes

    def paint(self, answer: Answer) -> None:
        """Store what a window says of the tile."""
        window, proba, valid = answer
        expected = (len(self.pixels), window.height, window.width)
        if proba.shape != expected:
            raise InputError(
                f"the model gave probabilities {proba.shape}, expected {expected} for its legend "
                f"{self.plan.legend.name}; train it anew"
            )
        index = np.empty(valid.shape, np.uint8)
        broken = decide.classes(proba, valid, index)
        if broken:
            raise InputError(
                f"the model gave {broken} pixels probabilities that do not add up to 1; expected "
                "that of any pixel, so the model is broken: train it anew"
            )
        part = common(window, self.tile)
        assert part is not None
        here, there = inside(part, window), inside(part, self.tile)
        self.arrays[LABEL][there] = self.codes[index[here]]
        self.pixels += np.bincount(index[here].ravel(), minlength=256)[: len(self.pixels)]
        for name, values in self._scores(proba, valid):
            self.arrays[name][there] = values[here]

    def _scores(
        self, proba: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """What is asked for beside the classes, in steps of 1/250."""
        plan = self.plan
        if plan.proba:
            for name, values in zip(probability_names(plan.legend), proba, strict=True):
                yield name, _made(decide.shares, values, valid)
        for name, score in ((ENTROPY, decide.entropy), (MARGIN, decide.margin)):
            if name in plan.uncertainty:
                yield name, _made(score, proba, valid)


def _made(
    score: Any, values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    out = np.empty(valid.shape, np.uint8)
    score(values, valid, out)
    return out
