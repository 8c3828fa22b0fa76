"""What a worker does for a predicted map: read a tile's bands, ask the model, store its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from lcengine import engine, jobs
from lcengine.grid import Tile
from lcengine.inputs import Arrays, observed
from lcengine.locate import Window
from lcengine.models.predictor import Network
from lcengine.predict import tiled
from lcengine.predict.maps import Answer, MapPlan, Maps
from lcengine.predict.plan import PredictPlan
from lcengine.predict.windows import common, inside, reads, windows


def load(data: Mapping[str, Any], file: jobs.File) -> PredictPlan:
    """A frozen plan; its model lies beside it."""
    return PredictPlan.from_json(data, file)


def compute(plan: PredictPlan, number: int, attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt, with the pixels of each code and how many were predicted."""
    tile = plan.grid.tile_at(number)
    maps, bytes_read = painted(plan, tile, attempt)
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


def painted(plan: MapPlan, tile: Tile, attempt: int = 0) -> tuple[Maps, int]:
    """A tile of a map, and the bytes read for it."""
    maps = Maps(plan, tile)
    if plan.lattice is not None:
        return maps, tiled.paint(plan, tile, maps, attempt)
    bytes_read = 0
    for read in reads(plan.spec, plan.shape, tile):
        arrays = plan.inputs.read(read)
        bytes_read += sum(values.nbytes for values in arrays.values())
        for answer in answers(plan, read, arrays, tile):
            maps.paint(answer)
    return maps, bytes_read


def answers(plan: MapPlan, read: Window, arrays: Arrays, tile: Tile) -> Iterator[Answer]:
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


def warm_up(plan: PredictPlan) -> None:
    """Load the model and compile its kernels, by made-up pixels, once per process."""
    size = 4 if plan.lattice is None else plan.lattice.patch
    rng = np.random.default_rng(0)
    arrays = {
        entry.name: rng.integers(1, 100, (1, *entry.lead, size, size)).astype(entry.dtype)
        for entry in plan.spec.inputs
    }
    valid = np.ones((1, size, size), np.bool_)
    if plan.lattice is not None and plan.how is not None:
        network = cast("Network", plan.predictor)
        (proba,) = network.run([(arrays, valid)], plan.how)
    else:
        proba = plan.predictor.predict(arrays, valid)
    corner = plan.grid.tile_at(0)._replace(height=size, width=size)
    answer = Answer(Window(0, 0, size, size), np.ascontiguousarray(proba[0], np.float32), valid[0])
    Maps(plan, corner).paint(answer)


def finish(plan: PredictPlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Sources, model and legend, and how many pixels each class has."""
    pixels: Counter[str] = Counter()
    for receipt in receipts():
        pixels.update(receipt["codes"])
    facts = {
        "sources": {name: layer.to_json() for name, layer in plan.layers.items()},
        "model": {"kind": plan.spec.kind, "path": plan.model.path, "sha256": plan.model.sha256},
        "model_spec": plan.spec.to_json(),
        **plan.running(),
        "legend": plan.legend.to_json(),
        "pixels": {entry.name: pixels[str(entry.code)] for entry in plan.legend.classes},
    }
    return facts, {}


def resources(plan: PredictPlan) -> Mapping[str, float]:
    """A GPU, where one is asked for by name."""
    return {"GPU": 1} if plan.how is not None and plan.how.device == "cuda" else {}


KIND = jobs.Kind(load, compute, finish, warm_up, resources)
