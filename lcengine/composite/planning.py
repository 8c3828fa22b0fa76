"""A composite's plan: items, grid and recipe frozen together, with one identity."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import lcengine
from lcengine.composite.block import Series, days_of
from lcengine.composite.spec import CompositeSpec
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.items import Item, Items, check_items, observations, parse_datetime, uncollected
from lcengine.kernels._jit import usable_cpus
from lcengine.kernels.composite import MAX_OBSERVATIONS
from lcengine.kernels.methods import FARTHEST
from lcengine.masks import MaskRecipe, check_item, check_sensor, preset
from lcengine.periods import Period, neighbours, select
from lcengine.plan import BLOCKS, ReadPlan, describe, plan_reads, product_lattice
from lcengine.sensors import Sensor, sensor
from lcengine.sensors.base import Quantity
from lcengine.store import Variable, digest

MAX_OUTPUT = 2**31
"""Bytes of results that a tile may take, all periods together."""
SCREEN_BYTES = 5
"""What screens of whole series need per pixel and item: masks before, between and after them."""

Interval = tuple[dt.datetime, dt.datetime]
"""First and last moment, both included."""


@dataclass(frozen=True)
class CompositePlan:
    """Everything a tile task needs; saved beside the product, so tasks carry a tile index only."""

    spec: CompositeSpec
    reads: ReadPlan
    sensor: Sensor
    interval: Interval

    kind: ClassVar[str] = "composite"

    @property
    def grid(self) -> Grid:
        """The product's grid."""
        return self.reads.grid

    @property
    def layout(self) -> Grid:
        """The same, as what is cut into tiles."""
        return self.grid

    @property
    def tiles(self) -> tuple[int, ...]:
        """The tiles that the area of interest touches."""
        return tuple(map(int, self.reads.tiles))

    def files(self) -> dict[str, bytes]:
        """All of the plan is in its JSON."""
        return {}

    @property
    def items(self) -> Items:
        """The items, ordered by observation."""
        return self.reads.items

    @cached_property
    def periods(self) -> tuple[Period, ...]:
        """What is composited by itself: one period of everything where the spec has none."""
        if self.spec.period is None:
            # An API may answer with items that only touch the interval; they count.
            moments = [*self.interval, *(item.datetime for item in self.items)]
            return (Period("all", min(moments), max(moments) + dt.timedelta(microseconds=1)),)
        return self.spec.period.periods(*self.interval)

    def only(self, tiles: Sequence[int]) -> CompositePlan:
        """The plan of some of its tiles, in order, for counting: it has the identity of none."""
        return replace(self, reads=self.reads.only(tiles))

    @property
    def time_axis(self) -> tuple[Period, ...]:
        """The periods along the product's time dimension; empty where it has none."""
        return self.periods if self.spec.period else ()

    @cached_property
    def series(self) -> Series:
        """The items as the kernels want to know them."""
        days = np.array([days_of(moment) for moment in self.reads.began])
        groups = np.asarray(self.reads.observation, np.int64)
        return Series(groups, days, np.arange(len(groups)))

    @cached_property
    def windows(self) -> tuple[slice, ...]:
        """Ranges of `items` that kernels may see at once: per period, or the whole series."""
        if self.spec.screens.whole_series:
            return (slice(0, len(self.items)),)
        return tuple(
            self.series.within(neighbours(self.periods, number, self.spec.widest))
            for number in range(len(self.periods))
        )

    @cached_property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """Which items have bands that are of use, not only masks."""
        wanted = np.zeros(len(self.items), np.bool_)
        for window in self.windows:
            wanted[window] = True
        return wanted

    @property
    def quantity(self) -> Quantity:
        """What the bands are."""
        return self.spec.quantity(self.sensor)

    @property
    def output_bytes(self) -> int:
        """Bytes that one product pixel takes in memory, all periods together."""
        pixel = sum(np.dtype(variable.dtype).itemsize for variable in self.variables())
        return int(len(self.periods) * pixel)

    @cached_property
    def _fitted(self) -> dict[tuple[int | None, int], CompositePlan]:
        """What `fitting` answered: every tile of a worker asks."""
        return {}

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: frozen items, grid, recipe and package version."""
        return digest(self.to_json())

    def fitting(self, memory: int | None, attempt: int = 0) -> CompositePlan:
        """This plan in blocks small enough for a task of `memory` bytes (None: any).

        Each further `attempt` takes a block smaller still: the one before may have died of it.
        Pixels do not depend on the block. Where not even the smallest fits, it is tried.
        """
        largest = min(self.reads.block, self.grid.tile, max(self.grid.shape))
        known = self._fitted.get((memory, attempt))
        if known is not None:
            return known
        edges = [self.reads.block, *(edge for edge in BLOCKS if edge < largest)]
        for edge in edges[attempt:] or edges[-1:]:
            reads = replace(self.reads, block=edge)
            if memory is None or reads.memory(self.output_bytes, read_threads()) <= memory:
                break
        fitted = self._fitted[memory, attempt] = replace(self, reads=reads)
        return fitted

    def variables(self) -> tuple[Variable, ...]:
        """The product's variables in writing order."""
        return self.spec.variables(self.sensor.title, self.quantity)

    def explain(self) -> dict[str, Any]:
        """The plan in numbers, as far as they are known without a look at the files."""
        numbers = describe(self.reads, self.output_bytes, read_threads())
        periods = [period.name for period in self.time_axis]
        return {**numbers, "periods": periods} if periods else numbers

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` rebuilds the tables from them."""
        return {
            "version": lcengine.__version__,
            "sensor": self.sensor.name,
            "spec": self.spec.to_json(),
            "grid": self.grid.to_dict(),
            "block": self.reads.block,
            "interval": [moment.isoformat() for moment in self.interval],
            "items": self.items.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompositePlan:
        """Inverse of `to_json`."""
        spec = CompositeSpec.from_json(data["spec"])
        grid = Grid.from_dict(data["grid"])
        first, last = (parse_datetime(moment) for moment in data["interval"])
        with uncollected():  # every worker waits for this
            items = Items.from_json(data["items"])
            return plan_composite(items, grid, spec, block=data["block"], interval=(first, last))


def sensor_of(items: Items) -> Sensor:
    """The one sensor of all items, or `InputError`."""
    names = sorted({item.sensor for item in items})
    if len(names) != 1:
        raise InputError(
            f"the items are of {len(names)} sensors ({', '.join(names) or 'none'}); "
            "expected one: select it with -c (collections= in Python)"
        )
    return sensor(names[0])


def plan_composite(
    items: Items,
    grid: Grid,
    spec: CompositeSpec,
    *,
    block: int | None = None,
    interval: Interval | None = None,
) -> CompositePlan:
    """Plan a composite: which items each tile reads, in which blocks, and what comes out.

    Where the recipe says `auto`, the plan names what the sensor takes. `block`: edge of the
    sub-blocks in pixels, by default the largest that fits into memory. `interval`: what the periods
    shall cover, by default from the first to the last item. Raises `InputError` for items of
    several sensors and `MissingBandError` for an item without a band.
    """
    check_items(items)
    found = sensor_of(items)
    spec = spec.resolved(found)
    if interval is None:
        interval = (min(i.datetime for i in items), max(i.datetime for i in items))
    bands = spec.read_bands(found)
    recipe = preset(spec.mask)
    check_sensor(recipe, found)
    needed = {*bands, *(recipe.bands if recipe else ())}
    crs = product_lattice(grid).crs
    slim = tuple(_only(item, needed, recipe) for item in _in_periods(items, spec, interval, crs))
    reads = plan_reads(
        Items(slim, items.access, items.superseded),
        grid,
        bands,
        mask=spec.mask,
        groupby=spec.groupby,
        resampling=spec.resampling,
        block=block,
        beyond=FARTHEST if spec.scores_distance else 0.0,
        working=SCREEN_BYTES if spec.screens.whole_series else 0,
    )
    plan = CompositePlan(spec, reads, found, interval)
    _check_series(plan)
    _check_output(plan)
    return plan


def _check_output(plan: CompositePlan) -> None:
    """`InputError` where one tile of all periods would not fit into a worker's memory."""
    edge = min(plan.grid.tile, max(plan.grid.shape))
    needed = plan.output_bytes * edge**2
    if needed > MAX_OUTPUT:
        fitting = int((MAX_OUTPUT / plan.output_bytes) ** 0.5) // 16 * 16
        raise InputError(
            f"a tile of {edge} pixels with {len(plan.periods)} periods takes "
            f"{needed / 2**30:.1f} GiB of results; take --tile {fitting} or fewer periods"
        )


def _in_periods(items: Items, spec: CompositeSpec, interval: Interval, crs: str) -> list[Item]:
    """The items that the periods look at; `InputError` where there is none.

    All of them where what is clear in one period depends on the others: on screens of the whole
    series, or on how often there is snow.
    """
    if spec.period is None:
        return list(items)
    periods = spec.period.periods(*interval)
    ordered, observation = observations(items, spec.groupby, crs)
    began: dict[int, dt.datetime] = {}
    for item, number in zip(ordered, observation, strict=True):
        began[number] = min(began.get(number, item.datetime), item.datetime)
    ranges = select(periods, list(began.values()), spec.widest)
    wanted = {number for start, stop in ranges for number in range(start, stop)}
    if not wanted:
        raise InputError(
            f"none of the {len(items)} items lies in one of the {len(periods)} periods from "
            f"{periods[0].name} to {periods[-1].name}; take other periods or another --datetime"
        )
    recipe = preset(spec.mask)
    if spec.screens.whole_series or (recipe is not None and recipe.snow_radius is not None):
        return list(items)
    return [item for item, n in zip(ordered, observation, strict=True) if n in wanted]


def _check_series(plan: CompositePlan) -> None:
    """`InputError` before anything is read where a tile has more observations than kernels take."""
    reads, groups = plan.reads, plan.series.groups
    for position, tile in enumerate(reads.tiles):
        members = reads.items_of(position)
        for window in plan.windows if len(members) > MAX_OBSERVATIONS else ():
            own = members[(members >= window.start) & (members < window.stop)]
            found = len(np.unique(groups[own]))
            if found > MAX_OBSERVATIONS:
                raise InputError(
                    f"tile {tile} has {found} observations, at most {MAX_OBSERVATIONS} fit; "
                    "take a shorter --datetime, shorter periods or a lower --max-cloud"
                )


def read_threads() -> int:
    """Reads that a process has in flight; `LCENGINE_READ_THREADS` in the environment sets it."""
    return int(os.environ.get("LCENGINE_READ_THREADS", "0")) or min(32, 4 * usable_cpus())


def _only(item: Item, bands: set[str], recipe: MaskRecipe | None) -> Item:
    """The item with the needed bands alone; raises `MissingBandError` when one is absent."""
    if recipe is not None:
        check_item(recipe, item)
    for band in sorted(bands):
        item.asset(band)
    return replace(item, assets={k: v for k, v in item.assets.items() if k in bands})
