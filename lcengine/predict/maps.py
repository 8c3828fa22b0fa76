"""A tile of a map, painted with what a model says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.inputs import Arrays
from lcengine.kernels import decide
from lcengine.locate import Window
from lcengine.models import ModelSpec, Predictor
from lcengine.models.predictor import Execution
from lcengine.predict.lattice import PatchLattice
from lcengine.predict.plan import ENTROPY, LABEL, MARGIN, probability_names, variables
from lcengine.predict.windows import common, inside


class Reader(Protocol):
    """What gives the stored numbers of a window of the raster."""

    def read(self, window: Window) -> Arrays:
        """All inputs, (1, [time,] band, y, x)."""
        ...


class MapPlan(Protocol):
    """What must be known to make a tile of a map, whatever the pixels come from."""

    @property
    def spec(self) -> ModelSpec:
        """Of the model."""
        ...

    @property
    def proba(self) -> bool:
        """Whether probabilities are asked for."""
        ...

    @property
    def uncertainty(self) -> tuple[str, ...]:
        """Scores that are asked for."""
        ...

    @property
    def lattice(self) -> PatchLattice | None:
        """Of patches that overlap."""
        ...

    @property
    def how(self) -> Execution | None:
        """A network is run."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the raster."""
        ...

    @property
    def inputs(self) -> Reader:
        """Its pixels."""
        ...

    @property
    def predictor(self) -> Predictor:
        """The model."""
        ...


class Answer(NamedTuple):
    """What a model says of a window: probabilities (class, y, x), and (y, x) where it may."""

    window: Window
    proba: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


class Maps:
    """The arrays of a tile, painted window by window; `pixels` of each class."""

    def __init__(self, plan: MapPlan, tile: Tile) -> None:
        self.plan = plan
        self.tile = tile
        shape = tile.height, tile.width
        self.arrays = {
            v.name: np.full(shape, v.missing, v.dtype)
            for v in variables(plan.spec.legend, plan.proba, plan.uncertainty)
        }
        legend = plan.spec.legend
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
                f"{self.plan.spec.legend.name}; train it anew"
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
            for name, values in zip(probability_names(plan.spec.legend), proba, strict=True):
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
