"""What a composite takes: the bytes and values of its plan, and what the model says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lcengine import reader
from lcengine.addresses import LOCAL, host_of
from lcengine.composite.planning import CompositePlan
from lcengine.errors import ReadError
from lcengine.items import Asset
from lcengine.price import Estimate, Limits, Machines, Prices, Rates, Work, estimate
from lcengine.sensors import FileLayout
from lcengine.traffic import Traffic, traffic

PATIENCE = 2
"""Unreadable headers after which a host is asked for no more."""

RateSource = Callable[[CompositePlan], Rates]


@dataclass(frozen=True, slots=True)
class Survey:
    """A plan's work, and what had to be assumed where file headers could not be read."""

    work: Work
    traffic: Traffic
    assumed: str | None

    def to_json(self) -> dict[str, Any]:
        """Bytes, hosts, values and the assumption, as JSON values."""
        found = self.traffic
        hosts = {
            host: {
                "decoded_bytes": found.decoded[host],
                "stored_bytes": found.stored[host],
                "requests": found.requests[host],
            }
            for host in sorted(found.decoded)
        }
        facts = {
            "decoded_bytes": sum(found.decoded.values()),
            "stored_bytes": sum(found.stored.values()),
            "hosts": hosts,
            "kernel_values": found.values,
        }
        return facts if self.assumed is None else {**facts, "assumed": self.assumed}


@dataclass(frozen=True, slots=True)
class Pricing:
    """What somebody wants to know, or not to exceed, before a run."""

    rates: RateSource
    machines: Machines
    prices: Prices
    limits: Limits

    def check(self, plan: CompositePlan) -> None:
        """`InputError` where the plan exceeds the limits; looks no further than these need."""
        if self.limits.bytes is None and self.limits.cost is None:
            return
        work = survey(plan).work
        self.limits.check_bytes(work)
        if self.limits.cost is not None:
            self.estimate(plan, work)

    def estimate(self, plan: CompositePlan, work: Work) -> tuple[Estimate, Rates]:
        """What the work takes; `InputError` where that is more than the limits."""
        self.limits.check_bytes(work)
        rates = self.rates(plan)
        found = estimate(work, rates, self.machines, self.prices)
        self.limits.check_cost(found)
        return found, rates


def survey(plan: CompositePlan) -> Survey:
    """Count bytes and values; opens one file header per collection, band and raster shape."""
    headers = _Headers(plan)
    found = traffic(plan.reads, headers)
    height, width = plan.grid.shape
    work = Work(
        tiles=len(plan.reads.tiles),
        items=len(plan.items),
        decoded=sum(found.decoded.values()),
        stored=dict(found.stored),
        values=found.values,
        output=plan.output_bytes * height * width,
        requests=sum(count for host, count in found.requests.items() if host != LOCAL),
    )
    return Survey(work, found, headers.assumed())


def predicted_seconds(plan: CompositePlan, rates: Rates, machines: Machines) -> float:
    """Wall-clock seconds that the tiles of a plan take at most."""
    return estimate(survey(plan).work, rates, machines).hours * 3600


def explain(plan: CompositePlan, pricing: Pricing | None = None) -> dict[str, Any]:
    """The plan in numbers, with hours and price where `pricing` is given; JSON values."""
    found = survey(plan)
    facts = {**plan.explain(), **found.to_json()}
    if pricing is None:
        return facts
    result, rates = pricing.estimate(plan, found.work)
    facts |= {
        "machines": {key: value for key, value in asdict(pricing.machines).items() if value},
        "rates": asdict(rates),
        "seconds": dict(result.seconds),
        "bottleneck": result.bottleneck,
        "hours": result.hours,
        "core_hours": result.core_hours,
    }
    return facts if result.cost is None else {**facts, "cost": result.cost}


class _Headers:
    """Layouts of files from their headers, else the sensor's typical ones."""

    def __init__(self, plan: CompositePlan) -> None:
        self.plan = plan
        self.failures: Counter[str] = Counter()
        self.typical: dict[str, FileLayout] = {}
        self.reason = ""

    def __call__(self, band: str, asset: Asset) -> FileLayout:
        typical = self.plan.sensor.layout(band)
        host = host_of(asset.href)
        found = None
        if self.failures[host] < PATIENCE:
            try:
                found = reader.header(asset, self.plan.items.access)
            except ReadError as error:
                self.failures[host] += 1
                self.reason = self.reason or str(error)
        if found is None:
            self.typical[band] = typical
            return typical
        if found.stored is None:
            self.typical[band] = typical
            self.reason = self.reason or "its header does not tell what is stored"
            return FileLayout(found.block, found.itemsize, typical.stored)
        return found

    def assumed(self) -> str | None:
        """What is assumed, and why; None where all headers were read."""
        if not self.typical:
            return None
        bands: dict[FileLayout, list[str]] = {}
        for band, file in self.typical.items():
            bands.setdefault(file, []).append(band)
        parts = [
            f"{', '.join(names)}: blocks of {file.block[0]} x {file.block[1]} x {file.itemsize} "
            f"bytes, {file.stored or 1:.0%} stored"
            for file, names in bands.items()
        ]
        return f"typical files ({'; '.join(parts)}), as {self.reason}"
