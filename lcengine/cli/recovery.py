"""`lcengine status`, `retry` and `verify`: how far a run is, going on, and is a product whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.output import emit, say
from lcengine.cli.progress import progress
from lcengine.errors import StoreError

Output = Annotated[str, typer.Argument(help="A product or what is to become one, e.g. out.zarr.")]

SHOWN = 20
"""Tiles listed one by one for people."""


def status(output: Output, json: options.AsJson = False) -> None:
    """Say how far a run has come: tiles done, failed and remaining, and why they failed."""
    from lcengine import jobs

    facts = dict(jobs.status(output))
    failed = facts.pop("failed_tiles")
    if json:
        emit({**facts, "failed_tiles": failed}, json)
        return
    emit(facts, json)
    _list(f"tile {row['tile']} ({_fate(row)}): {row['error']}" for row in failed)
    if facts["state"] == "unfinished":
        say(f"next: lcengine retry {output}")


def _fate(row: Mapping[str, Any]) -> str:
    attempts = f"{row['attempts']} attempt{'s' if row['attempts'] > 1 else ''}"
    return f"{attempts}, quarantined" if row["quarantined"] else attempts


def retry(
    output: Output,
    cluster: options.Cluster = "local",
    retries: options.Retries = 2,
    patience: options.Patience = 3600.0,
    worker_timeout: options.WorkerTimeout = 120.0,
    json: options.AsJson = False,
) -> None:
    """Go on with an unfinished run, the failed tiles included, on its frozen plan."""
    from lcengine import jobs
    from lcengine.cli.product import summary
    from lcengine.engine import Policy

    client = options.connector(cluster)
    with options.terminable(), progress(json) as listener:
        path = jobs.resume(
            output,
            client=client,
            policy=Policy(retries=retries, patience=patience, worker_timeout=worker_timeout),
            listener=listener,
        )
    facts = summary(path)
    emit(facts, json)
    say(f"next: lcengine verify {output}")


def verify(output: Output, json: options.AsJson = False) -> None:
    """Read a product again, tile by tile, and compare it with the hashes taken when it was made."""
    from dataclasses import asdict

    from lcengine.store import verify as check

    found = check(output)
    faults = [asdict(fault) for fault in found.faults]
    damaged = {fault.tile for fault in found.faults}
    facts = {"product": found.product, "tiles": found.tiles}
    if json:
        emit({**facts, "faults": faults}, json)
    else:
        emit({**facts, "damaged": len(damaged)}, json)
        _list(f"tile {f.tile}, {f.variable}: {f.reason}" for f in found.faults)
    if faults:
        raise StoreError(
            f"{len(damaged)} of {found.tiles} tiles of {output} are not as they were written; "
            "restore the product from a copy or make it again with --restart"
        )


def _list(lines: Iterable[str]) -> None:
    """The first lines for people, and how many more there are."""
    every = list(lines)
    for text in every[:SHOWN]:
        typer.echo(f"  {text}")
    if len(every) > SHOWN:
        typer.echo(f"  and {len(every) - SHOWN} more; all of them with --json")
