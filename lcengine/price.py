"""What a run takes: hours, core-hours, money and the first bottleneck, from counts and rates.

The model is arithmetic on five values and reads nothing. GB are 10⁹ bytes, times are seconds.

    cpu     = decoded GB × decode + values × kernel + written GB × write     (seconds of one core)
    compute = cpu / tiles × ceil(tiles / (workers × threads))
    network = max(bytes / bandwidth, requests × latency / reads) / min(workers, tiles)
    archive = requests / requests that it answers per second
    driver  = tiles × driver
    elapsed = max(compute, network, archive, driver)
    cost    = elapsed × workers × threads × price per core-hour + transferred GB × price per GB

Reading ahead hides the network behind the kernels and the other way round, so the slowest of the
four sets the pace: the bottleneck. Tiles are not divided, hence the rounding up. Work that clouds
save, and workers that join or leave, are not in it: `elapsed` is what a run takes at most on
machines as fast as the one that was calibrated.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcengine.addresses import LOCAL
from lcengine.errors import InputError

Bottleneck = Literal["cpu", "network", "archive", "driver"]

DRIVER_SECONDS = 0.002
"""Driver and scheduler CPU time per tile (benchmarks/scale.py measures 1.8 ms)."""
LATENCY = 0.1
"""Time of one range request to an archive in another place."""
GB = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do.

    `decoded`: bytes out of source blocks. `stored`: bytes in the files, by host; those of
    `addresses.LOCAL` cross no network. `values`: observations x bands x pixels through the kernels.
    `output`: bytes of results, not compressed. `requests`: range requests to hosts.
    """

    tiles: int
    items: int
    decoded: int
    stored: Mapping[str, int]
    values: int
    output: int
    requests: int

    @property
    def transferred(self) -> int:
        """Bytes that cross the network."""
        return sum(count for host, count in self.stored.items() if host != LOCAL)

    def scaled(self, factor: float) -> Work:
        """The work of `factor` times the area, rounded up."""
        counts = {name: value for name, value in asdict(self).items() if name != "stored"}
        stored = {host: math.ceil(count * factor) for host, count in self.stored.items()}
        return Work(stored=stored, **{n: math.ceil(value * factor) for n, value in counts.items()})


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast one core of a machine is, and what does not depend on cores.

    `decode`: seconds per decoded GB. `kernel`: nanoseconds per value, masks included. `write`:
    seconds per written GB. `driver`: seconds per tile. `latency`: seconds per request. `measured`
    and `cores`: day (ISO) and machine of the calibration.
    """

    decode: float
    kernel: float
    write: float
    driver: float = DRIVER_SECONDS
    latency: float = LATENCY
    measured: str = ""
    cores: int = 0

    def __post_init__(self) -> None:
        for name in ("decode", "kernel", "write", "driver", "latency"):
            _check_number(f"rate {name}", getattr(self, name), zero=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rates as JSON, which may be edited."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Rates:
        """Read what `save` wrote; `InputError` for anything else."""
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} holds no rates ({type(error).__name__}: {error}); expected JSON with "
                "decode, kernel and write, as --rates writes it to a file that does not exist"
            ) from error


@dataclass(frozen=True, slots=True)
class Machines:
    """A cluster: `threads` (one core each) in each of `workers`.

    `bandwidth`: bytes per second into one worker, None where it is no limit. `reads`: requests
    that a worker has in flight, by default four per thread, at most 32. `archive`: requests per
    second that the hosts answer to all workers together, None where that is no limit.
    """

    workers: int
    threads: int
    bandwidth: float | None = None
    reads: int = 0
    archive: float | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("bandwidth", "archive"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))

    @property
    def cores(self) -> int:
        """Threads of all workers."""
        return self.workers * self.threads

    @property
    def in_flight(self) -> int:
        """Requests that a worker has in flight."""
        return self.reads or min(32, 4 * self.threads)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in any currency, None where there is none: per core and hour, per transferred GB."""

    core_hour: float | None = None
    gb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("core-hour", self.core_hour), ("GB", self.gb)):
            if value is not None:
                _check_number(f"price per {name}", value, zero=True)

    @property
    def known(self) -> bool:
        """Whether anything has a price."""
        return self.core_hour is not None or self.gb is not None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes at most. `cost` is None without prices; `seconds` by possible bottleneck."""

    hours: float
    core_hours: float
    cost: float | None
    transferred: int
    bottleneck: Bottleneck
    seconds: Mapping[Bottleneck, float] = field(default_factory=dict)


def estimate(
    work: Work, rates: Rates, machines: Machines, prices: Prices | None = None
) -> Estimate:
    """Apply the model of this module's docstring."""
    prices = prices or Prices()
    tiles = max(work.tiles, 1)
    core = (
        work.decoded / GB * rates.decode
        + work.values * rates.kernel * 1e-9
        + work.output / GB * rates.write
    )
    network = work.requests * rates.latency / machines.in_flight
    if machines.bandwidth is not None:
        network = max(network, work.transferred / machines.bandwidth)
    seconds: dict[Bottleneck, float] = {
        "cpu": core / tiles * math.ceil(tiles / machines.cores),
        "network": network / min(machines.workers, tiles),
        "driver": work.tiles * rates.driver,
    }
    if machines.archive is not None:
        seconds["archive"] = work.requests / machines.archive
    bottleneck = max(seconds, key=lambda name: seconds[name])
    hours = seconds[bottleneck] / 3600
    core_hours = hours * machines.cores
    cost = None
    if prices.known:
        cost = core_hours * (prices.core_hour or 0.0) + work.transferred / GB * (prices.gb or 0.0)
    return Estimate(hours, core_hours, cost, work.transferred, bottleneck, seconds)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take: money, and bytes read from files, local ones included."""

    cost: float | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--max-cost", self.cost), ("--max-bytes", self.bytes)):
            if value is not None:
                _check_number(name, value, zero=True)

    def check_bytes(self, work: Work) -> None:
        """`InputError` where the run would read more than it may."""
        total = sum(work.stored.values())
        if self.bytes is not None and total > self.bytes:
            raise InputError(
                f"the run would read up to {_bytes(total)}, more than --max-bytes "
                f"{_bytes(self.bytes)}; {_REMEDY} --max-bytes"
            )

    def check_cost(self, found: Estimate) -> None:
        """`InputError` where the run would cost more than it may."""
        if self.cost is None:
            return
        if found.cost is None:
            raise InputError(
                f"--max-cost {self.cost:g} needs a price; state --price-core-hour or --price-gb"
            )
        if found.cost > self.cost:
            raise InputError(
                f"the run would cost up to {found.cost:,.4g}, more than --max-cost "
                f"{self.cost:,.4g}; {_REMEDY} --max-cost"
            )


_REMEDY = "take a smaller area, a shorter --datetime or a coarser --resolution, or raise"


def _bytes(count: float) -> str:
    """Bytes in decimal units, as `--max-bytes` takes them."""
    power = min(max(math.floor(math.log10(max(count, 1)) / 3), 0), 5)
    return f"{count / 1000**power:.4g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _check_number(name: str, value: Any, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise InputError(f"{name} is {value!r}, expected a number {'>= 0' if zero else '> 0'}")
