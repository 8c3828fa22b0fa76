"""From a plan to a published product: resume or stage, run the tiles, publish."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcengine import engine
from lcengine.addresses import redact
from lcengine.composite.planning import CompositePlan
from lcengine.composite.tile import compute_tile
from lcengine.errors import RunError, StoreError
from lcengine.store import Layout, Staging, differences, exclusive

Planner = Callable[[], CompositePlan]
ClientSource = engine.Client | Callable[[], AbstractContextManager[engine.Client]]


LEDGER = ("tile", "item", "band", "error")
"""Columns of the failure ledger."""


def run_composite(
    plan: CompositePlan | Planner,
    output: str | os.PathLike[str],
    *,
    client: ClientSource | None = None,
    request: Mapping[str, Any] | None = None,
    restart: bool = False,
    listener: Callable[[engine.Progress], None] | None = None,
) -> Path:
    """Compute a composite into `output` (Zarr v3), resuming what an earlier run left unfinished.

    `plan`: a plan, or a function that makes one, which is called only when there is nothing to
    resume. `request`: what the user asked for; an equal request resumes or, if its product is
    already published, does nothing; a different one is refused unless `restart`. `client`: any
    `distributed.Client`, or a function that opens one when there is work (default: a LocalCluster).
    Returns the output path.
    """
    layout = Layout.at(output)
    if request is None:
        if not isinstance(plan, CompositePlan):
            raise StoreError("a plan that is made on demand needs `request`, its identity")
        request = {"run_id": plan.run_id}
    with exclusive(layout):
        if not restart and _is_published(layout, request):
            return layout.output
        staging = None if restart else Staging.find(layout, request)
        if staging is None:
            made = plan if isinstance(plan, CompositePlan) else plan()
            staging = Staging.create(
                layout,
                request,
                made.run_id,
                made.to_json(),
                made.grid,
                made.variables(),
                made.time_axis,
            )
        frozen = load_plan(str(staging.plan_file))
        _run_tiles(frozen, staging, client, listener)
        ledger = _ledger(staging)
        return staging.publish(
            _tiles(frozen),
            {"items": len(frozen.items), "failed_reads": len(ledger)},
            {"items.parquet": _items(frozen), "failures.parquet": _parquet(ledger, LEDGER)},
        )


def run_tile(output: str, version: str, number: int, _attempt: int = 0) -> engine.Receipt:
    """The tile task: compute, write, verify, mark; a late or repeated run is harmless."""
    staging = Staging(Layout(Path(output)), version)
    plan = load_plan(str(staging.plan_file))
    result = compute_tile(plan, number)
    tile = plan.grid.tile_at(number)
    content = staging.write(tile, result.arrays)
    receipt = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "clear": result.clear,
        "failures": [asdict(row) for row in result.failures],
        "sha256": content,
    }
    staging.mark(number, receipt)
    return receipt


@lru_cache(maxsize=2)
def load_plan(path: str) -> CompositePlan:
    """A frozen plan, read once per process."""
    return CompositePlan.from_json(json.loads(Path(path).read_text()))


def _is_published(layout: Layout, request: Mapping[str, Any]) -> bool:
    """Whether the visible product answers this request; `StoreError` if it answers another."""
    published = layout.published_request()
    if published is None or layout.staging_note.exists():
        return False
    changed = differences(dict(request), published)
    if changed:
        raise StoreError(
            f"{layout.output} holds the product of a different request ({'; '.join(changed)}); "
            "choose another output, or replace it with --restart"
        )
    return True


def _tiles(plan: CompositePlan) -> list[int]:
    return [int(number) for number in plan.reads.tiles]


def _run_tiles(
    plan: CompositePlan,
    staging: Staging,
    client: ClientSource | None,
    listener: Callable[[engine.Progress], None] | None,
) -> None:
    done = staging.done()
    todo = [number for number in _tiles(plan) if number not in done]
    progress = engine.Progress(tiles=len(plan.reads.tiles), done=len(done), resumed=len(done))

    def heard(receipt: engine.Receipt) -> None:
        progress.done += 1
        progress.pixels += receipt["pixels"]
        progress.failures += len(receipt["failures"])
        if listener:
            listener(progress)

    if listener:
        listener(progress)
    if not todo:
        return
    function = functools.partial(run_tile, str(staging.layout.output), staging.version)
    name = f"composite-{staging.version}"
    if client is None:
        opened: AbstractContextManager[engine.Client] = engine.local_client()
    elif isinstance(client, engine.Client):
        opened = nullcontext(client)
    else:
        opened = client()

    def retried(_failure: engine.TileFailure) -> None:
        progress.retried += 1

    def given_up(_failure: engine.TileFailure) -> None:
        progress.failed += 1

    hears = engine.Listener(heard, given_up, retried, progress.staff)
    with opened as cluster:
        outcome = engine.run(todo, function, cluster, name=name, listener=hears)
    if outcome.failed:
        first = outcome.failed[0]
        raise RunError(
            f"{len(outcome.failed)} of {len(todo)} tiles failed, the first: tile {first.tile}: "
            f"{first.error}; what is finished is kept, run the same command again"
        )


def _items(plan: CompositePlan) -> bytes:
    """Provenance: every asset with its reflectance contract, as Parquet."""
    rows = [
        {
            "number": number,
            "item": item.id,
            "datetime": item.datetime,
            "platform": item.platform,
            "observation": group,
            "baseline": item.baseline,
            "band": band,
            "href": redact(asset.href),
            "scale": asset.scale,
            "offset": asset.offset,
            "contract": asset.contract,
        }
        for number, (item, group) in enumerate(zip(plan.items, plan.reads.observation, strict=True))
        for band, asset in item.assets.items()
    ]
    return _parquet(rows, tuple(rows[0]))


def _ledger(staging: Staging) -> list[dict[str, Any]]:
    """The failed reads of all tiles, sorted."""
    rows = [row for receipt in staging.done().values() for row in receipt["failures"]]
    return sorted(rows, key=lambda row: tuple(row[name] for name in LEDGER))


def _parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    table = pa.table({name: [row[name] for row in rows] for name in names})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
