"""What goes beside a product's arrays: which asset was read how, and what could not be read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcengine.addresses import redact
from lcengine.composite.planning import CompositePlan

LEDGER = pa.schema(
    {
        "tile": pa.int64(),
        "item": pa.string(),
        "band": pa.string(),
        "href": pa.string(),
        "error": pa.string(),
        "attempts": pa.int64(),
    }
)
"""Columns of the failure ledger; `attempts` depends on luck, all others on the files."""


ITEMS = pa.schema(
    {
        "number": pa.int64(),
        "item": pa.string(),
        "datetime": pa.timestamp("us", "UTC"),
        "platform": pa.string(),
        "observation": pa.int64(),
        "orbit_state": pa.string(),
        "relative_orbit": pa.int64(),
        "baseline": pa.string(),
        "band": pa.string(),
        "href": pa.string(),
        "scale": pa.float64(),
        "offset": pa.float64(),
        "contract": pa.string(),
        "unit": pa.string(),
    }
)
"""Columns of the table of assets; `DN * scale + offset` is a quantity in `unit`."""


def items_table(plan: CompositePlan) -> bytes:
    """Every asset and how its numbers become what they measure, as Parquet."""
    rows = [
        {
            "number": number,
            "item": item.id,
            "datetime": item.datetime,
            "platform": item.platform,
            "observation": group,
            "orbit_state": item.orbit_state,
            "relative_orbit": item.relative_orbit,
            "baseline": item.baseline,
            "band": band,
            "href": redact(asset.href),
            "scale": asset.scale,
            "offset": asset.offset,
            "contract": asset.contract,
            "unit": asset.unit,
        }
        for number, (item, group) in enumerate(zip(plan.items, plan.reads.observation, strict=True))
        for band, asset in item.assets.items()
    ]
    return _parquet(pa.Table.from_pylist(rows, schema=ITEMS))


def ledger_table(receipts: Iterable[Mapping[str, Any]]) -> tuple[int, bytes]:
    """Number of failed reads of all tiles, and they as Parquet, sorted."""
    rows = [row for receipt in receipts for row in receipt["failures"]]
    rows.sort(key=lambda row: tuple(row[name] for name in LEDGER.names))
    return len(rows), _parquet(pa.Table.from_pylist(rows, schema=LEDGER))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
