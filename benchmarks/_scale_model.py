"""Hours, price and the first bottleneck of a country and a continent, and the page about them."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from lcengine.price import GB, Estimate, Machines, Prices, Rates, Work, estimate

WORKERS = (10, 30, 100, 300, 1000)
THREADS = 8
AFRICA_KM2 = 30_000_000
KENYA_ZONES, AFRICA_ZONES = 2, 12
SECTIONS = ("overhead", "workers", "country")
BUSY = 0.5
"""Load of the machine before a measurement, above which its figures are provisional."""


@dataclass(frozen=True)
class Place:
    """Where the cluster is, seen from the archive; assumed, not measured.

    `bandwidth`: bytes per second into one worker. `latency`: seconds of a range request. `gb`,
    `core_hour`: USD. `zone_rate`: requests per second that the archive answers per UTM zone.
    """

    name: str
    bandwidth: float
    latency: float
    gb: float
    core_hour: float = 0.05
    zone_rate: float = 5500.0


FAR = Place("far from the archive", 100e6, 0.1, 0.02)
NEAR = Place("beside the archive", 300e6, 0.03, 0.0)


def places(far: Place) -> tuple[Place, Place]:
    """The far place as stated, and the one beside the same archive, at the same price per core."""
    return far, replace(NEAR, core_hour=far.core_hour, zone_rate=far.zone_rate)


@dataclass(frozen=True)
class Area:
    """A country or a continent and its work; `zones`: UTM zones that it lies in."""

    name: str
    km2: int
    zones: int
    work: Work


@dataclass(frozen=True)
class Results:
    """What was measured: the sections of a JSON file."""

    sections: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Results:
        """The file's sections; `SystemExit` where one is missing."""
        found = json.loads(path.read_text()) if path.exists() else {}
        missing = [name for name in SECTIONS if name not in found]
        if missing:
            raise SystemExit(
                f"{path} lacks {', '.join(missing)}; run python benchmarks/scale.py "
                f"{missing[0]} --json {path}"
            )
        return cls(found)

    def rows(self, section: str) -> list[dict[str, Any]]:
        return self.sections[section]["rows"]

    @property
    def areas(self) -> tuple[Area, Area]:
        country = self.rows("country")[0]
        work = Work(**country["work"])
        factor = AFRICA_KM2 / country["km2"]
        return (
            Area("Kenya", country["km2"], KENYA_ZONES, work),
            Area("Africa", AFRICA_KM2, AFRICA_ZONES, work.scaled(factor)),
        )

    @property
    def engine(self) -> list[dict[str, Any]]:
        """The overhead of lcengine's loop, by number of tiles."""
        rows = [row for row in self.rows("overhead") if row["loop"] == "engine"]
        return sorted(rows, key=lambda row: row["tiles"])

    def efficiency(self, workload: str) -> float:
        """Of two workers, at most 1: a better figure is noise."""
        (row,) = (row for row in self.rows("workers") if row["workload"] == workload)
        return min(1.0, row["efficiency"])

    def rates(self, place: Place) -> Rates:
        """The calibration, with the measured driver, and every core as slow as one of two."""
        rates = Rates(**self.rows("country")[0]["rates"])
        cpu = self.efficiency("cpu")
        return replace(
            rates,
            decode=rates.decode / cpu,
            kernel=rates.kernel / cpu,
            write=rates.write / cpu,
            driver=self.engine[-1]["sum_ms"] / 1000,
            latency=place.latency / self.efficiency("io"),
        )

    def estimate(self, area: Area, place: Place, workers: int, threads: int = THREADS) -> Estimate:
        """What the area takes there."""
        bandwidth = place.bandwidth * self.efficiency("io")
        machines = Machines(workers, threads, bandwidth, archive=area.zones * place.zone_rate)
        return estimate(
            area.work, self.rates(place), machines, Prices(place.core_hour, place.gb or None)
        )

    def core_seconds(self, area: Area) -> float:
        """Seconds of one core."""
        alone = Machines(1, 1)
        return estimate(area.work, self.rates(NEAR), alone).seconds["cpu"]


def bottleneck(area: Area, found: Estimate, workers: int, threads: int = THREADS) -> str:
    """The first bottleneck; more cores than tiles is a shortage of tiles."""
    short = found.bottleneck == "cpu" and area.work.tiles < workers * threads
    return "tiles" if short else found.bottleneck


def tables(results: Results, where: Sequence[Place]) -> str:
    """Every area in every place."""
    return "\n\n".join(
        f"### {area.name}, {place.name}\n\n{_table(results, area, place)}"
        for area in results.areas
        for place in where
    )


def _table(results: Results, area: Area, place: Place) -> str:
    lines = [
        "| workers | hours | bottleneck | cpu h | network h | archive h | driver h "
        "| core-hours | USD | from the archive: GB/s | requests/s |",
        f"|---:|---:|---|{'---:|' * 8}",
    ]
    for workers in WORKERS:
        found = results.estimate(area, place, workers)
        seconds = found.hours * 3600
        own = [found.seconds[name] / 3600 for name in ("cpu", "network", "archive", "driver")]
        cells = [
            f"{workers:,}",
            f"**{_short(found.hours)}**",
            bottleneck(area, found, workers),
            *map(_short, own),
            _short(found.core_hours),
            _short(found.cost or 0.0),
            _short(area.work.transferred / GB / seconds),
            _short(area.work.requests / seconds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(results: Results, where: tuple[Place, Place]) -> str:
    """docs/scale.md: the template with the numbers in it."""
    template = (Path(__file__).parent / "_scale_page.md").read_text(encoding="utf-8")
    country, continent = results.areas
    far, near = where
    rates = results.rates(near)
    facts = {
        "measured": _measured(results),
        "threads": THREADS,
        "spans": "\n".join(
            f"- {area.name}, {place.name}: {_spans(results, area, place)}."
            for area in results.areas
            for place in where
        ),
        "sizes": f"{_size(country)}\n\n{_size(continent)}",
        "tables": tables(results, where),
        "overhead": _overhead(results),
        "flat": _flat(results.engine),
        "workers": _efficiency(results),
        "assumed": _assumed(far, near),
        "decode": f"{1 / rates.decode:.2f}",
        "kernel": f"{rates.kernel:.1f}",
        "write": f"{1000 / rates.write:.0f}",
    }
    text = template.format(**facts, **_limits(results, country, where))
    return "\n\n".join(map(_wrapped, text.strip().split("\n\n"))) + "\n"


def _wrapped(paragraph: str) -> str:
    """Prose in lines of 115, anything else as it is."""
    if paragraph.startswith(("|", "#", "-", "!", " ")):
        return paragraph
    return textwrap.fill(paragraph, 115, break_long_words=False, break_on_hyphens=False)


def _limits(results: Results, country: Area, where: tuple[Place, Place]) -> dict[str, str]:
    """Where network, cores and driver meet."""
    far, near = where
    core = results.core_seconds(country)
    appetite = country.work.transferred / core
    lean = max(1, math.ceil(near.bandwidth * results.efficiency("io") / appetite))
    away, beside = (results.estimate(country, place, 100) for place in where)
    thin = results.estimate(country, near, 100, lean)
    driver = results.rates(far).driver
    return {
        "appetite": _mega(appetite),
        "appetites": _mega(THREADS * appetite),
        "archive_hours": _short(beside.seconds["archive"] / 3600),
        "far_hours": _short(away.hours),
        "near_hours": _short(beside.hours),
        "near_cost": _short(beside.cost or 0.0),
        "near_bandwidth": _mega(near.bandwidth),
        "lean": str(lean),
        "lean_hours": _short(thin.hours),
        "lean_cost": _short(thin.cost or 0.0),
        "tile_seconds": _short(core / country.work.tiles),
        "driver_ms": f"{1000 * driver:.1f}",
        "driver_rate": f"{1 / driver:,.0f}",
        "driver_cores": _short(core / country.work.tiles / driver),
    }


def _measured(results: Results) -> str:
    found = [results.sections[name] for name in SECTIONS]
    when = f"Measured on {max(s['measured'] for s in found)} ({found[0]['machine']})."
    busy = [name for name, s in zip(SECTIONS, found, strict=True) if (s["load_before"] or 0) > BUSY]
    if not busy:
        return when
    return f"{when} **Provisional: the machine had other work to do during {', '.join(busy)}.**"


def _size(area: Area) -> str:
    work = area.work
    return (
        f"**{area.name}**: {area.km2:,} km², a year of Sentinel-2 in four bands of 10 m;\n"
        f"{work.tiles:,} tiles of {work.items:,} items, {_tera(work.transferred)} read, "
        f"{_tera(work.decoded)} decoded, {_tera(work.output)} of pixels written."
    )


def _spans(results: Results, area: Area, place: Place) -> str:
    """`network on 10 to 300 workers, tiles on 1,000 workers`."""
    names = [
        (bottleneck(area, results.estimate(area, place, workers), workers), workers)
        for workers in WORKERS
    ]
    spans = []
    for name, group in groupby(names, key=lambda pair: pair[0]):
        counts = [workers for _, workers in group]
        ends = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
        spans.append(f"{name} on {ends}")
    return f"{', '.join(spans)} workers"


def _overhead(results: Results) -> str:
    lines = [
        "| tiles | scheduler, ms per tile | driver | sum | tiles/s | scheduler, MB | driver, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results.engine:
        cells = [
            f"{row['tiles']:,}",
            *(f"{row[name]:.2f}" for name in ("scheduler_ms", "driver_ms", "sum_ms")),
            f"{row['tiles_per_second']:,}",
            *(" / ".join(map(str, row[f"{name}_mb"])) for name in ("scheduler", "driver")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _efficiency(results: Results) -> str:
    lines = [
        "| workload | tiles | one worker, s | model | two workers, s | model | efficiency |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results.rows("workers"):
        one, two = row["predicted_s"]
        lines.append(
            f"| {row['workload']} | {row['tiles']} | {row['one_worker_s']:.1f} | {one:.1f} "
            f"| {row['two_workers_s']:.1f} | {two:.1f} | {row['efficiency']:.2f} |"
        )
    return "\n".join(lines)


def _flat(rows: Sequence[dict[str, Any]]) -> str:
    """How much memory differs between the smallest and the largest job, and within that."""
    few, many = rows[0], rows[-1]
    grown = [
        f"the {name}'s memory differs by {many[f'{name}_mb'][1] - few[f'{name}_mb'][1]:+d} MB "
        f"({many[f'{name}_mb'][1] - many[f'{name}_mb'][0]:+d} MB since a tenth of the latter)"
        for name in ("scheduler", "driver")
    ]
    return (
        f"Between the ends of {few['tiles']:,} and of {many['tiles']:,} tiles {', '.join(grown)}."
    )


def _assumed(far: Place, near: Place) -> str:
    rows = [
        ("bandwidth into a worker", _mega(far.bandwidth), _mega(near.bandwidth)),
        ("latency of a request", f"{far.latency:g} s", f"{near.latency:g} s"),
        ("requests per second and UTM zone", f"{far.zone_rate:,.0f}", f"{near.zone_rate:,.0f}"),
        ("USD per GB read", f"{far.gb:g}", f"{near.gb:g}"),
        ("USD per core-hour", f"{far.core_hour:g}", f"{near.core_hour:g}"),
    ]
    head = f"| | {far.name} | {near.name} |\n|---|---:|---:|"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def _short(value: float) -> str:
    """Two digits at least, thousands with commas."""
    if value >= 100:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def _mega(rate: float) -> str:
    return f"{_short(rate / 1e6)} MB/s"


def _tera(count: float) -> str:
    return f"{_short(count / 1e12)} TB"
