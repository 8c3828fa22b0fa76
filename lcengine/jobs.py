"""From a plan to a published product: resume or stage, run the tiles, publish.

Whatever is made by tiles is made here. A kind of product is a module `lcengine.<kind>.task` with a
`KIND`: how its frozen plan is read back, what a tile of it is, and what is said of the whole.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol, Self

import numpy.typing as npt

from lcengine import cluster, engine
from lcengine.errors import InputError, RunError, StoreError
from lcengine.periods import Period
from lcengine.store import (
    Layout,
    Staging,
    Target,
    Variable,
    differences,
    layout_of,
    provenance,
    target,
)

KINDS = ("composite", "evaluate", "labels", "labels.coarse", "predict", "samples")

File = Callable[[str], bytes]
"""A large part of a frozen plan, by name."""
Arrays = Mapping[str, npt.NDArray[Any]]
Receipts = Callable[[], Iterator[engine.Receipt]]
"""Receipts of all tiles, in no order; asked again, they come again."""


class Plan(Protocol):
    """Everything that the tasks of a product need, frozen and saved beside it."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        ...

    @property
    def layout(self) -> Layout:
        """How the product is cut into tiles."""
        ...

    @property
    def tiles(self) -> Sequence[int]:
        """The tiles to make."""
        ...

    @property
    def run_id(self) -> str:
        """Identity of the result."""
        ...

    @property
    def time_axis(self) -> Sequence[Period]:
        """The periods along the product's time dimension; empty where it has none."""
        ...

    def variables(self) -> Sequence[Variable]:
        """The product's variables in writing order."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON values that `Kind.load` makes the plan of again."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Parts of the plan that are too large for JSON."""
        ...

    def only(self, tiles: Sequence[int]) -> Self:
        """The plan of some of its tiles, for counting what is left."""
        ...


@dataclass(frozen=True)
class Kind:
    """How the plans of a kind are carried out; all functions run on workers and in the driver.

    `compute(plan, tile, attempt)`: arrays by variable and a receipt of JSON values, of which
    `pixels`, `clear`, `observations`, `failures` (a list) and `spent` (what differs from run to
    run, with `bytes_read`) are shown. `finish`: facts for the provenance, files beside the arrays.
    `resources`: of workers, that every tile of a plan needs.
    """

    load: Callable[[Mapping[str, Any], File], Any]
    compute: Callable[[Any, int, int], tuple[Arrays, dict[str, Any]]]
    finish: Callable[[Any, Receipts], tuple[dict[str, Any], dict[str, bytes]]]
    warm_up: Callable[[Any], None] | None = None
    resources: Callable[[Any], Mapping[str, float]] = lambda _: {}


Planner = Callable[[], Plan]
ClientSource = engine.Client | Callable[[], AbstractContextManager[engine.Client]]
Watcher = Callable[[engine.Progress], None]
Guard = Callable[[Any], None]


def run(  # noqa: PLR0913 - what, whereto, and how it is carried out
    plan: Plan | Planner,
    output: str | os.PathLike[str],
    *,
    client: ClientSource | None = None,
    request: Mapping[str, Any] | None = None,
    restart: bool = False,
    store: str | None = None,
    guard: Guard | None = None,
    policy: engine.Policy | None = None,
    listener: Watcher | None = None,
) -> str:
    """Make a product at `output` (Zarr v3), resuming what an earlier run left unfinished.

    `plan`: a plan, or a function that makes one, which is called only when there is nothing to
    resume. `output`: a local path or `s3://bucket/key`. `client`: any `distributed.Client`, or a
    function that opens one when there is work (default: a LocalCluster). `request`: what the user
    asked for; an equal request resumes or, if its product is already published, does nothing; a
    different one is refused unless `restart`. What is no part of a plan's identity (a network's
    device) is then as `plan` says, not as it was frozen. `store`: `icechunk` for a versioned
    repository (a repository that is there already is recognised). `guard` is shown what there is to
    do before it begins, the tiles that are left where a run is resumed, and may raise. `policy`:
    retries, patience, window. `listener` hears of every tile. Returns the output.

    Raises `RunError` where tiles failed or the cluster did, and `StoreError` where the output is
    another's or cannot be written; what is finished is kept for the same command.
    """
    place = target(output, store)
    if request is None:
        if callable(plan):
            raise StoreError("a plan that is made on demand needs `request`, its identity")
        request = {"run_id": plan.run_id}
    request = json.loads(json.dumps(dict(request)))  # as its note will read
    with place.exclusive():
        if restart:
            place.replaceable()
        elif _is_published(place, request):
            return place.output
        staging = None if restart else place.find(request)
        if staging is None:
            made = plan() if callable(plan) else plan
            if guard is not None:
                guard(made)
            staging, guard = stage(place, request, made), None
        otherwise = _otherwise(staging, plan)
        return _finish(staging, client, policy, listener, guard, otherwise)


def resume(
    output: str | os.PathLike[str],
    *,
    client: ClientSource | None = None,
    policy: engine.Policy | None = None,
    listener: Watcher | None = None,
) -> str:
    """Go on with unfinished work on its frozen plan: the failed tiles and those not begun.

    `StoreError` where there is nothing unfinished. Otherwise as `run`.
    """
    place = target(output)
    _asked(place)  # before a lock leaves its traces where there is nothing
    with place.exclusive():
        staging = place.find(_asked(place))
        assert staging is not None
        return _finish(staging, client, policy, listener)


def _asked(place: Target) -> dict[str, Any]:
    """The request of unfinished work; `StoreError` where there is none."""
    note = place.unfinished()
    if note is None:
        state = "there is no product either" if place.published() is None else "it is complete"
        raise StoreError(f"{place.output} has no unfinished work; {state}")
    return dict(note["request"])


def status(output: str | os.PathLike[str]) -> dict[str, Any]:
    """How far the work on an output has come, as JSON values.

    `state` is `unfinished` or `published`; `failed_tiles` says of each tile given up its error, how
    often it was tried and whether it is quarantined. `StoreError` where there is nothing at all.
    """
    try:
        place = target(output)
    except StoreError:  # no place for a run: all it can be is a copy of a product
        return {"output": os.path.abspath(output), **_published_facts(_copied(output))}
    published = place.published()
    staging = place.staging()
    if staging is None:
        return {"output": place.output, **_published_facts(published or _copied(output))}
    facts: dict[str, Any] = {"output": place.output, "published": (published or {}).get("run_id")}
    lost = done = 0
    for receipt in staging.done():
        done += 1
        lost += len(receipt.get("failures", ()))
    _, plan = load(staging)
    tiles = len(plan.tiles)
    failed = staging.failed()
    return {
        **facts,
        "state": "unfinished",
        "tiles": tiles,
        "done": done,
        "failed": len(failed),
        "remaining": tiles - done - len(failed),
        "failed_reads": lost,
        "failed_tiles": [{"tile": number, **failed[number]} for number in sorted(failed)],
    }


def _copied(output: str | os.PathLike[str]) -> dict[str, Any]:
    """Provenance of whatever lies there; `StoreError` where that is no product."""
    try:
        return provenance(output)
    except InputError:
        raise StoreError(f"{output} is neither a product nor work on one; check the path") from None


def _published_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    tiles = layout_of(found).n_tiles
    return {
        "published": found["run_id"],
        "state": "published",
        "tiles": tiles,
        "done": tiles,
        "failed": 0,
        "remaining": 0,
        "failed_reads": found.get("failed_reads", 0),
        "failed_tiles": [],
    }


def _is_published(place: Target, request: Mapping[str, Any]) -> bool:
    """Whether the visible product answers this request; `StoreError` if it answers another."""
    published = place.published()
    if published is None or place.unfinished() is not None:
        return False
    changed = differences(dict(request), published.get("request", {}))
    if changed:
        raise StoreError(
            f"{place.output} holds the product of a different request ({'; '.join(changed)}); "
            "choose another output, or replace it with --restart"
        )
    return True


def stage(place: Target, request: Mapping[str, Any], plan: Plan) -> Staging:
    """Lay out fresh work on a plan; the output must be held by this driver."""
    frozen = {"kind": plan.kind, "plan": plan.to_json()}
    variables = plan.variables()
    return place.create(
        request, plan.run_id, frozen, plan.layout, variables, plan.time_axis, plan.files()
    )


def _otherwise(staging: Staging, plan: Plan | Planner) -> str:
    """What a plan of the same identity says otherwise than the frozen one, as JSON."""
    if callable(plan) or load(staging)[1].run_id != plan.run_id:
        return "{}"
    frozen, now = staging.plan()["plan"], json.loads(json.dumps(plan.to_json()))
    return json.dumps({key: value for key, value in now.items() if frozen[key] != value})


def _finish(
    staging: Staging,
    client: ClientSource | None,
    policy: engine.Policy | None,
    listener: Watcher | None,
    guard: Guard | None = None,
    otherwise: str = "{}",
) -> str:
    """Run the tiles that are missing, unless `guard` objects, and publish."""
    kind, plan = load(staging, otherwise)
    tiles = [int(number) for number in plan.tiles]
    done = {receipt["tile"] for receipt in staging.done()}
    todo = [number for number in tiles if number not in done]
    if guard is not None:
        guard(plan.only(todo))
    # Whatever failed before goes last: a run that many failures ended must get past them.
    failed = staging.failed()
    todo.sort(key=lambda number: number in failed)
    progress = engine.Progress(tiles=len(tiles), done=len(done), resumed=len(done))
    watcher = listener or (lambda _: None)
    watcher(progress)
    if todo:
        policy = policy or engine.Policy()
        policy = replace(policy, resources={**policy.resources, **kind.resources(plan)})
        hearing = _Hearing(staging, progress, watcher)
        _run_tiles(todo, _opened(client, policy), policy, hearing, otherwise)
    facts, sidecars = kind.finish(plan, staging.done)
    return staging.publish(tiles, {"kind": plan.kind, **facts}, sidecars)


def _opened(
    client: ClientSource | None, policy: engine.Policy
) -> AbstractContextManager[engine.Client]:
    if client is None:
        return cluster.connect("local:gpus=1" if "GPU" in policy.resources else "local")
    return nullcontext(client) if isinstance(client, engine.Client) else client()


def _run_tiles(
    todo: list[int],
    opened: AbstractContextManager[engine.Client],
    policy: engine.Policy,
    hearing: _Hearing,
    otherwise: str,
) -> None:
    staging = hearing.staging
    with opened as client, _flushed(staging):
        outcome = engine.run(
            todo,
            functools.partial(run_tile, staging, otherwise=otherwise),
            client,
            name=f"tile-{staging.version}",
            policy=policy,
            warm_up=functools.partial(warm_up, staging, otherwise),
            listener=hearing.listener(),
        )
    if outcome.failed:
        first = outcome.failed[0]
        raise RunError(
            f"{len(outcome.failed)} of {len(todo)} tiles failed, the first: tile {first.tile}: "
            f"{first.error}; what is finished is kept: `lcengine status` lists them all, "
            "`lcengine retry` goes on, or run the same command again"
        )


@contextmanager
def _flushed(staging: Staging) -> Iterator[None]:
    """Makes what was accepted durable, also after an error, which stays the one that is raised."""
    try:
        yield
    except BaseException:
        with suppress(StoreError):
            staging.flush()
        raise
    staging.flush()


class _Hearing:
    """Takes receipts to the store, and keeps account for whoever watches."""

    def __init__(self, staging: Staging, progress: engine.Progress, watcher: Watcher) -> None:
        self.staging = staging
        self.progress = progress
        self.watcher = watcher

    def listener(self) -> engine.Listener:
        return engine.Listener(self.done, self.failed, self.retried, self.staffed)

    def done(self, receipt: engine.Receipt) -> None:
        self.staging.accept(receipt)
        state = self.progress
        state.done += 1
        state.pixels += receipt.get("pixels", 0)
        state.clear += receipt.get("clear", 0)
        state.observations += receipt.get("observations", 0)
        state.bytes_read += receipt.get("spent", {}).get("bytes_read", 0)
        state.failures += len(receipt.get("failures", ()))
        self.watcher(state)

    def failed(self, failure: engine.TileFailure) -> None:
        facts = asdict(failure)
        self.staging.fail(facts.pop("tile"), facts)
        self.progress.failed += 1
        self.watcher(self.progress)

    def retried(self, _failure: engine.TileFailure) -> None:
        self.progress.retried += 1

    def staffed(self, workers: int, threads: int) -> None:
        self.progress.staff(workers, threads)


# ------------------------------------------------------------------------------------- on a worker


@lru_cache(maxsize=2)
def load(staging: Staging, otherwise: str = "{}") -> tuple[Kind, Any]:
    """A frozen plan, and what is otherwise by now, and its kind, read once per process."""
    frozen = staging.plan()
    kind: Kind = import_module(f"lcengine.{frozen['kind']}.task").KIND
    return kind, kind.load({**frozen["plan"], **json.loads(otherwise)}, staging.file)


def run_tile(
    staging: Staging, number: int, attempt: int = 0, *, otherwise: str = "{}"
) -> engine.Receipt:
    """The tile task: compute, write, verify, mark; a late or repeated run is harmless."""
    kind, plan = load(staging, otherwise)
    arrays, receipt = kind.compute(plan, number, attempt)
    staging.write(plan.layout.tile_at(number), arrays)
    return staging.mark(number, receipt)


def warm_up(staging: Staging, otherwise: str = "{}") -> None:
    """Load the plan and compile what it needs."""
    kind, plan = load(staging, otherwise)
    if kind.warm_up is not None:
        kind.warm_up(plan)
