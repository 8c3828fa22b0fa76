"""What a worker does for a composite: warm up once, then one tile at a time."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

import numpy as np

from lcengine import engine
from lcengine.composite.block import Block, Series, reduce_block
from lcengine.composite.planning import CompositePlan
from lcengine.composite.tile import compute_tile
from lcengine.items import uncollected
from lcengine.kernels.methods import DISTANCE
from lcengine.store import Staging

WARM_ITEMS, WARM_EDGE = 3, 16
"""Observations and pixels of the block that a worker warms up on."""


@lru_cache(maxsize=2)
def load_plan(staging: Staging) -> CompositePlan:
    """A frozen plan, read once per process."""
    with uncollected():
        return CompositePlan.from_json(staging.plan())


@lru_cache(maxsize=16)
def _fitting(staging: Staging, memory: int | None, attempt: int) -> CompositePlan:
    return load_plan(staging).fitting(memory, attempt)


def run_tile(staging: Staging, number: int, attempt: int = 0) -> engine.Receipt:
    """The tile task: compute, write, verify, mark; a late or repeated run is harmless.

    Blocks are as large as this worker's memory allows, and smaller with every further `attempt`.
    """
    plan = _fitting(staging, engine.task_memory(), attempt)
    result = compute_tile(plan, number)
    tile = plan.grid.tile_at(number)
    staging.write(tile, result.arrays)
    receipt = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "clear": result.clear,
        "observations": result.observations,
        "failures": [asdict(row) for row in result.failures],
        # Smaller blocks meet fewer clear pixels of an item, and read less.
        "spent": {"bytes_read": result.bytes_read},
    }
    return staging.mark(number, receipt)


def warm_up(staging: Staging) -> None:
    """Load the plan and compile its kernels on a few made-up pixels."""
    plan = load_plan(staging)
    bands = (*plan.reads.bands, *([DISTANCE] if plan.reads.beyond else []))
    shape = (WARM_ITEMS, len(bands), WARM_EDGE, WARM_EDGE)
    numbers = np.arange(WARM_ITEMS)
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    clear = np.ones((WARM_ITEMS, WARM_EDGE, WARM_EDGE), np.uint8)
    days = plan.series.days[:1].repeat(WARM_ITEMS) + numbers / 24
    block = Block(values, clear, Series(numbers, days, numbers), bands, plan.quantity)
    for _ in reduce_block(plan.spec, plan.periods, block, None):
        pass
