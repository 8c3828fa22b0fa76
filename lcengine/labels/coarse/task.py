"""What a worker does for a map on another grid: the votes of one tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from lcengine import engine, jobs
from lcengine.labels.coarse.plan import MapPlan, fraction_names
from lcengine.locate import Window


def load(data: Mapping[str, Any], _file: jobs.File) -> MapPlan:
    """A frozen plan from its JSON."""
    return MapPlan.from_json(data)


def compute(plan: MapPlan, number: int, _attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt, with the pixels of each code."""
    tile = plan.grid.tile_at(number)
    codes, votes = plan.opened
    found = votes.window(codes, Window(tile.y0, tile.x0, tile.height, tile.width))
    receipt = {"tile": number, "pixels": tile.height * tile.width, "codes": {}}
    if plan.method == "fractions":
        return dict(zip(fraction_names(plan.legend), found, strict=True)), receipt
    values, counts = np.unique(found, return_counts=True)
    pixels = zip(values.tolist(), counts.tolist(), strict=True)
    receipt["codes"] = {str(value): count for value, count in pixels}
    return {"label": found}, receipt


def finish(plan: MapPlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The map, the legend of labels, and how many pixels each class has."""
    facts: dict[str, Any] = {"map": plan.path, "method": plan.method}
    if plan.method == "fractions":
        return facts, {}
    pixels: Counter[str] = Counter()
    for receipt in receipts():
        pixels.update(receipt["codes"])
    legend = plan.legend
    labelled = {e.name: pixels[str(e.code)] for e in legend.classes if pixels[str(e.code)]}
    return {**facts, "legend": legend.to_json(), "pixels": labelled}, {}


KIND = jobs.Kind(load, compute, finish)
