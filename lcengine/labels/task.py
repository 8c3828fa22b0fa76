"""What a worker does for labels: the features of one tile, burned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lcengine import engine, jobs
from lcengine.labels.burn import Counts
from lcengine.labels.layers import described
from lcengine.labels.plan import FEATURES, LabelPlan


def load(data: Mapping[str, Any], file: jobs.File) -> LabelPlan:
    """A frozen plan from its JSON and its table of features."""
    return LabelPlan.from_json(data, file(FEATURES))


def compute(plan: LabelPlan, number: int, _attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt, with the pixels of each code."""
    tile = plan.grid.tile_at(number)
    codes, counts = plan.burner(tile).window(tile.y0, tile.x0, tile.height, tile.width)
    receipt = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "codes": {str(code): count for code, count in counts.pixels.items()},
        "conflicts": counts.conflicts,
    }
    return {"label": codes}, receipt


def finish(plan: LabelPlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Legend, pixels by class, conflicts, and what became of each layer."""
    pixels: Counter[int] = Counter()
    conflicts = 0
    for receipt in receipts():
        pixels.update({int(code): count for code, count in receipt["codes"].items()})
        conflicts += receipt["conflicts"]
    counts = described(Counts(dict(pixels), conflicts), plan.legend)
    facts = {"legend": plan.legend.to_json(), "conflict": plan.conflict, **plan.report, **counts}
    return facts, {}


KIND = jobs.Kind(load, compute, finish)
