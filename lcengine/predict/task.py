"""What a worker does for a predicted map: read a tile's bands, ask the model, store its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine import engine, jobs
from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.inputs import Arrays, observed
from lcengine.kernels import decide
from lcengine.locate import Window
from lcengine.predict.plan import ENTROPY, LABEL, MARGIN, PredictPlan, probability_names
from lcengine.predict.windows import common, inside, reads, windows


class Answer(NamedTuple):
    """What a model says of a window: probabilities (class, y, x), and (y, x) where it may."""

    window: Window
    proba: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


def load(data: Mapping[str, Any], file: jobs.File) -> PredictPlan:
    """A frozen plan; its model lies beside it."""
    return PredictPlan.from_json(data, file)


def compute(plan: PredictPlan, number: int, _attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt, with the pixels of each code and how many were predicted."""
    tile = plan.grid.tile_at(number)
    maps = _Maps(plan, tile)
    bytes_read = 0
    for read in reads(plan.spec, plan.grid.shape, tile):
        arrays = plan.inputs.read(read)
        bytes_read += sum(values.nbytes for values in arrays.values())
        for answer in answers(plan, read, arrays, tile):
            maps.paint(answer)
    receipt = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "predicted": int(maps.pixels.sum()),
        "codes": {
            str(code): count
            for code, count in zip(plan.legend.codes, maps.pixels.tolist(), strict=True)
            if count
        },
        "spent": {"bytes_read": bytes_read},
    }
    return maps.arrays, receipt


def answers(plan: PredictPlan, read: Window, arrays: Arrays, tile: Tile) -> Iterator[Answer]:
    """The model's answers for the windows of what was read.

    Windows without any observed pixel inside the tile are left out.
    """
    seen = observed(plan.spec.inputs, arrays)
    for window in windows(plan.spec, read):
        part = common(window, tile)
        if part is None or not seen[(0, *inside(part, read))].any():
            continue
        place = (..., *inside(window, read))
        given = {name: np.ascontiguousarray(values[place]) for name, values in arrays.items()}
        valid = np.ascontiguousarray(seen[place])
        proba = np.ascontiguousarray(plan.predictor.predict(given, valid)[0], np.float32)
        yield Answer(window, proba, valid[0])


class _Maps:
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


def warm_up(plan: PredictPlan) -> None:
    """Load the model and compile its kernels, by a few made-up pixels, once per process."""
    rng = np.random.default_rng(0)
    arrays = {
        entry.name: rng.integers(1, 100, (1, *entry.lead, 4, 4)).astype(entry.dtype)
        for entry in plan.spec.inputs
    }
    valid = np.ones((1, 4, 4), np.bool_)
    proba = np.ascontiguousarray(plan.predictor.predict(arrays, valid)[0], np.float32)
    corner = plan.grid.tile_at(0)._replace(height=4, width=4)
    _Maps(plan, corner).paint(Answer(Window(0, 0, 4, 4), proba, valid[0]))


def finish(plan: PredictPlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Sources, model and legend, and how many pixels each class has."""
    pixels: Counter[str] = Counter()
    for receipt in receipts():
        pixels.update(receipt["codes"])
    facts = {
        "sources": {name: layer.to_json() for name, layer in plan.layers.items()},
        "model": {"kind": plan.spec.kind, "path": plan.model.path, "sha256": plan.model.sha256},
        "model_spec": plan.spec.to_json(),
        "legend": plan.legend.to_json(),
        "pixels": {entry.name: pixels[str(entry.code)] for entry in plan.legend.classes},
    }
    return facts, {}


KIND = jobs.Kind(load, compute, finish, warm_up)
