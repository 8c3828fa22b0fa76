"""`lcengine plan` and `lcengine composite`: the main job, priced and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import takes
from lcengine.cli.output import emit, say
from lcengine.cli.pricing import Budget, budget, parse_bytes
from lcengine.kernels.methods import FORMS, SCREENS
from lcengine.price import Machines

if TYPE_CHECKING:
    from lcengine.composite import CompositeRequest

Bands = Annotated[
    str | None,
    typer.Option("--bands", help="Comma-separated canonical bands (default: the sensor's)."),
]
Mask = Annotated[
    str,
    typer.Option("--mask", help="Cloud mask, auto: the sensor's; see below."),
]
Outliers = Annotated[
    str,
    typer.Option(
        "--outliers",
        help="Screens for clouds the mask missed, joined by commas, auto: the sensor's; see below.",
    ),
]
Method = Annotated[
    str,
    typer.Option("--method", help="One or several reducers joined by commas; see below."),
]
Period = Annotated[
    str | None,
    typer.Option(
        "--period",
        help="One composite per year, season, month, dekad, P16D (any PnD), 10-01/06-30 of every "
        "year, or entry of a JSON file.",
    ),
]
MinClear = Annotated[
    int,
    typer.Option(
        "--min-clear",
        help="Pixels with fewer clear observations in a period borrow from its neighbours.",
    ),
]
Qa = Annotated[
    str,
    typer.Option(
        "--qa", help="none, basic (count, outliers, lost) or full (also item, date, score, MADs)."
    ),
]
GroupBy = Annotated[
    str, typer.Option("--groupby", help="One observation is an overpass, solar_day or none.")
]
Resampling = Annotated[str, typer.Option("--resampling", help="nearest, bilinear or average.")]
Crs = Annotated[str, typer.Option("--crs", help="auto (most frequent of the items) or EPSG code.")]
Resolution = Annotated[
    float | None,
    typer.Option("--resolution", help="Pixel size in CRS units (default: finest)."),
]
Tile = Annotated[int | None, typer.Option("--tile", help="Tile edge in pixels (default: by size).")]
Block = Annotated[int | None, typer.Option("--block", help="Sub-block edge (default: by memory).")]
MaxLost = Annotated[
    float,
    typer.Option("--max-lost", help="Share of unreadable items above which a tile fails."),
]


def _request(
    source: options.Source,
    collection: options.Collections = None,
    datetime: options.Datetime = None,
    bbox: options.Bbox = None,
    aoi: options.AoiFile = None,
    max_cloud: options.MaxCloud = None,
    where: options.Where = None,
    orbit: options.Orbit = None,
    bands: Bands = None,
    mask: Mask = "auto",
    outliers: Outliers = "auto",
    method: Method = "median",
    period: Period = None,
    min_clear: MinClear = 0,
    qa: Qa = "basic",
    groupby: GroupBy = "overpass",
    resampling: Resampling = "nearest",
    crs: Crs = "auto",
    resolution: Resolution = None,
    tile: Tile = None,
    block: Block = None,
    max_lost: MaxLost = 0.2,
    offset: options.Offset = None,
    signer: options.Signer = None,
    allow_host: options.AllowHost = None,
) -> CompositeRequest:
    """The options that describe a composite, as a request."""
    from lcengine.composite import CompositeRequest, CompositeSpec
    from lcengine.composite.spec import AUTO, check_qa
    from lcengine.items import check_groupby
    from lcengine.periods import PeriodRule

    query = options.query_of(source, collection, datetime, max_cloud, where, orbit)
    names = tuple(b.strip() for b in bands.split(",")) if bands else (AUTO,)
    return CompositeRequest(
        query=query,
        spec=CompositeSpec(
            bands=names,
            mask=mask,
            outliers=outliers,
            method=method,
            period=PeriodRule.parse(period) if period else None,
            min_clear=min_clear,
            qa=check_qa(qa),
            groupby=check_groupby(groupby),
            resampling=resampling,
            max_lost=max_lost,
        ),
        aoi=options.area(bbox, aoi),
        crs=crs,
        resolution=resolution,
        tile=tile,
        block=block,
        offset=offset,
        signer=signer,
        allow_hosts=tuple(allow_host or ()),
    )


@takes(_request, budget)
def plan(
    request: CompositeRequest,
    budget: Budget,
    *,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Machines of the cluster in mind (default: 1).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Cores of each (default: of this machine).")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", help="Bytes per second into each, e.g. 100MB.")
    ] = None,
    json: options.AsJson = False,
) -> None:
    """Say what a composite would take: tiles, items, bytes, memory; reads no pixel.

    With --workers, --threads, --bandwidth, --rates or a price also hours and cost, from a
    calibration of some seconds. Bytes and hours are upper bounds: clouds save work.
    """
    from lcengine.composite import pricing

    asked = budget.asked or any(v is not None for v in (workers, threads, bandwidth))
    priced = budget.on(_machines(workers, threads, bandwidth))
    made = request.plan()
    if asked:
        emit(pricing.explain(made, priced), json)
    else:
        priced.check(made)
        emit(pricing.explain(made), json)


def _machines(workers: int | None, threads: int | None, bandwidth: str | None = None) -> Machines:
    """The cluster in mind: one machine such as this where nothing is said."""
    from lcengine.kernels._jit import usable_cpus

    speed = None if bandwidth is None else parse_bytes(bandwidth, "--bandwidth")
    cores = usable_cpus() if threads is None else threads
    return Machines(1 if workers is None else workers, cores, speed)


@takes(_request, budget, making)
def composite(
    request: CompositeRequest,
    budget: Budget,
    making: Making,
    *,
    json: options.AsJson = False,
) -> None:
    """Make a cloud-free composite. Interrupted, the same command goes on where it stopped."""
    from lcengine.cli.product import summary

    priced = budget.on(_machines(None, None))
    price = budget.prices.core_hour
    path = making.run(request.plan, request.to_json(), json, guard=priced.check, price=price)
    facts = summary(path)
    emit(facts, json)
    periods = facts.get("periods", [])
    time = f" --time {periods[len(periods) // 2]}" if len(periods) > 1 else ""
    say(f"next: lcengine quicklook {making.output}{time} -o {Path(making.output).stem}.png")


MASKS = {
    "worldcover": "Sentinel-2 SCL with a wide buffer, passing snow masked",
    "geomad": "SCL with specks dropped and a narrow buffer",
    "pacific": "SCL for small islands, bright beaches kept",
    "s2mosaic": "SCL without buffer, also dark and unclassified pixels masked",
    "scl": "SCL as it is",
    "cldprb[:PERCENT]": "cloud probability of Sen2Cor, at most 40 %",
    "csplus[:SCORE], cs[:SCORE]": "Cloud Score+ of at least 0.60",
    "s2cloudless": "clouds of Sentinel-2 L1C from its bands, no shadows",
    "qa_pixel": "Landsat: fill, clouds, cirrus and shadows, snow kept",
    "udm2": "PlanetScope: clear and usable pixels only",
    "udm": "PlanetScope: usable pixels by the old mask, which misses many clouds",
    "none": "every pixel counts",
}
"""What `--mask` takes."""


def choices() -> str:
    """What masks, screens and methods there are, for the end of the help."""
    parts = [("--mask", MASKS), ("--outliers", SCREENS), ("--method", FORMS)]
    lines = []
    for option, forms in parts:
        lines.append(f"[bold]{option}[/bold]")
        lines += [f"  [cyan]{escape(form)}[/cyan]: {text}" for form, text in forms.items()]
    return "\n\n".join(lines)
