"""`lcengine search`: which items there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcengine.cli import options
from lcengine.cli.output import emit


def search(
    source: options.Source,
    collection: options.Collections = None,
    datetime: options.Datetime = None,
    bbox: options.Bbox = None,
    aoi: options.AoiFile = None,
    max_cloud: options.MaxCloud = None,
    where: options.Where = None,
    orbit: options.Orbit = None,
    offset: options.Offset = None,
    signer: options.Signer = None,
    allow_host: options.AllowHost = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the items: .json, or .parquet.")
    ] = None,
    json: options.AsJson = False,
) -> None:
    """Search a catalogue: items, overpasses and how their numbers become what they measure."""
    from collections import Counter
    from dataclasses import replace

    from lcengine.catalog import search_query
    from lcengine.items import observations

    query = options.query_of(source, collection, datetime, max_cloud, where, orbit)
    area = options.area(bbox, aoi)
    items = search_query(
        replace(query, bbox=area.bounds if area else None),
        offset=offset,
        signer=signer,
        allow_hosts=tuple(allow_host or ()),
    )
    _, overpass = observations(items, "overpass", items[0].crs)
    contracts = Counter(
        f"offset {asset.offset:g} ({asset.contract})"
        if asset.unit == "reflectance"
        else f"{asset.unit} ({asset.contract})"
        for item in items
        for asset in list(item.assets.values())[:1]
    )
    if output is not None:
        items.save(output)
    emit(
        {
            "items": len(items),
            "overpasses": len(set(overpass)),
            "superseded": len(items.superseded),
            "first": items[0].datetime.isoformat(),
            "last": items[-1].datetime.isoformat(),
            "crs": sorted({item.crs for item in items}),
            "bands": sorted({band for item in items for band in item.assets}),
            "contracts": dict(contracts),
            "written": None if output is None else str(output),
        },
        json,
    )
