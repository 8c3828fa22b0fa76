"""A composite's plan: items, grid and recipe frozen together, with one identity."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import lcengine
from lcengine import reader
from lcengine.composite.spec import QA_FILL, CompositeSpec
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.items import Item, Items, check_items
from lcengine.kernels._jit import usable_cpus
from lcengine.kernels.composite import MAX_OBSERVATIONS
from lcengine.plan import ReadPlan, describe, plan_reads
from lcengine.sensors import Sensor, sensor
from lcengine.store import Variable

QA_BYTES = 6


@dataclass(frozen=True)
class CompositePlan:
    """Everything a tile task needs; saved beside the product, so tasks carry a tile index only."""

    spec: CompositeSpec
    reads: ReadPlan
    sensor: Sensor

    @property
    def grid(self) -> Grid:
        """The product's grid."""
        return self.reads.grid

    @property
    def items(self) -> Items:
        """The items, ordered by observation."""
        return self.reads.items

    @property
    def output_bytes(self) -> int:
        """Bytes that one product pixel takes in memory."""
        return 2 * len(self.spec.bands) + QA_BYTES

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: frozen items, grid, recipe and package version."""
        return digest(self.to_json())

    def variables(self) -> tuple[Variable, ...]:
        """The product's variables in writing order."""
        title = self.sensor.title
        bands = [
            Variable(band, "int16", int(reader.NODATA), f"{band} {title}", scale=1e-4, units="1")
            for band in self.spec.bands
        ]
        qa = [
            Variable("count", "uint16", QA_FILL, "observations that entered the composite"),
            Variable("outliers", "uint16", QA_FILL, "clear observations rejected as outliers"),
            Variable("lost", "uint16", QA_FILL, "observations that could not be read"),
        ]
        return (*bands, *qa)

    def explain(self, decoded_bytes: bool = True) -> Mapping[str, Any]:
        """The plan in numbers. `decoded_bytes` opens one header per collection, band and shape."""

        def header(asset: Any) -> tuple[tuple[int, int], int]:
            return reader.block_shape(asset, self.items.access)

        return describe(
            self.reads, self.output_bytes, read_threads(), header if decoded_bytes else None
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` rebuilds the tables from them."""
        return {
            "version": lcengine.__version__,
            "sensor": self.sensor.name,
            "spec": self.spec.to_json(),
            "grid": self.grid.to_dict(),
            "block": self.reads.block,
            "items": self.items.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompositePlan:
        """Inverse of `to_json`."""
        spec = CompositeSpec.from_json(data["spec"])
        grid = Grid.from_dict(data["grid"])
        return plan_composite(Items.from_json(data["items"]), grid, spec, block=data["block"])


def plan_composite(
    items: Items, grid: Grid, spec: CompositeSpec, *, block: int | None = None
) -> CompositePlan:
    """Plan a composite: which items each tile reads, in which blocks, and what comes out.

    `block`: edge of the sub-blocks in pixels, by default the largest that fits into memory. Raises
    `InputError` for items of several sensors and `MissingBandError` for an item without a band.
    """
    check_items(items)
    names = sorted({item.sensor for item in items})
    if len(names) != 1:
        raise InputError(
            f"the items are of {len(names)} sensors ({', '.join(names) or 'none'}); "
            "expected one: select it with -c (collections= in Python)"
        )
    found = sensor(names[0])
    bands = spec.read_bands(found)
    needed = {*bands, found.mask_band} if spec.mask != "none" else set(bands)
    slim = tuple(_only(item, needed) for item in items)
    reads = plan_reads(
        Items(slim, items.access, items.superseded),
        grid,
        bands,
        mask=spec.mask,
        mask_band=found.mask_band,
        groupby=spec.groupby,
        resampling=spec.resampling,
        block=block,
    )
    _check_series(reads)
    return CompositePlan(spec, reads, found)


def _check_series(reads: ReadPlan) -> None:
    """`InputError` before anything is read where a tile has more observations than kernels take."""
    for position, tile in enumerate(reads.tiles):
        members = reads.items_of(position)
        if len(members) > MAX_OBSERVATIONS:
            found = len({reads.observation[int(i)] for i in members})
            if found > MAX_OBSERVATIONS:
                raise InputError(
                    f"tile {tile} has {found} observations, at most {MAX_OBSERVATIONS} fit; "
                    "take a shorter --datetime or a lower --max-cloud"
                )


def read_threads() -> int:
    """Reads that a process has in flight; `LCENGINE_READ_THREADS` in the environment sets it."""
    return int(os.environ.get("LCENGINE_READ_THREADS", "0")) or min(32, 4 * usable_cpus())


def digest(data: Mapping[str, Any]) -> str:
    """A short SHA-256 of canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _only(item: Item, bands: set[str]) -> Item:
    """The item with the needed bands alone; raises `MissingBandError` when one is absent."""
    for band in sorted(bands):
        item.asset(band)
    return replace(item, assets={k: v for k, v in item.assets.items() if k in bands})
