"""What a worker does for a composite: warm up once, then one tile at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from lcengine import engine, jobs
from lcengine.composite.block import Block, Series, reduce_block
from lcengine.composite.planning import CompositePlan
from lcengine.composite.provenance import items_table, ledger_table
from lcengine.composite.tile import compute_tile
from lcengine.items import uncollected
from lcengine.kernels.methods import DISTANCE

WARM_ITEMS, WARM_EDGE = 3, 16
"""Observations and pixels of the block that a worker warms up on."""


def load(data: Mapping[str, Any], _file: jobs.File) -> CompositePlan:
    """A frozen plan from its JSON."""
    with uncollected():
        return CompositePlan.from_json(data)


def compute(plan: CompositePlan, number: int, attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt.

    Blocks are as large as this worker's memory allows, and smaller with every further `attempt`.
    """
    result = compute_tile(plan.fitting(engine.task_memory(), attempt), number)
    tile = plan.grid.tile_at(number)
    receipt = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "clear": result.clear,
        "observations": result.observations,
        "failures": [asdict(row) for row in result.failures],
        # Smaller blocks meet fewer clear pixels of an item, and read less.
        "spent": {"bytes_read": result.bytes_read},
    }
    return result.arrays, receipt


def finish(plan: CompositePlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is said of the product, and the tables of its assets and of its failed reads."""
    count, ledger = ledger_table(receipts())
    facts = {
        "sensor": plan.sensor.name,
        "recipe": plan.spec.to_json(),
        "items": len(plan.items),
        "failed_reads": count,
    }
    return facts, {"items.parquet": items_table(plan), "failures.parquet": ledger}


def warm_up(plan: CompositePlan) -> None:
    """Compile a plan's kernels on a few made-up pixels."""
    bands = (*plan.reads.bands, *([DISTANCE] if plan.reads.beyond else []))
    shape = (WARM_ITEMS, len(bands), WARM_EDGE, WARM_EDGE)
    numbers = np.arange(WARM_ITEMS)
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    clear = np.ones((WARM_ITEMS, WARM_EDGE, WARM_EDGE), np.uint8)
    days = plan.series.days[:1].repeat(WARM_ITEMS) + numbers / 24
    block = Block(values, clear, Series(numbers, days, numbers), bands, plan.quantity)
    for _ in reduce_block(plan.spec, plan.periods, block, None):
        pass


KIND = jobs.Kind(load, compute, finish, warm_up)
