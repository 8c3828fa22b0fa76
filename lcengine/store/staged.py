"""What the back ends share: notes, plan, markers, and the order of steps that makes them safe."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy.typing as npt
import zarr
from zarr.abc.store import Store

import lcengine
from lcengine.errors import StoreError
from lcengine.grid import Tile
from lcengine.periods import Period
from lcengine.store.area import Area
from lcengine.store.protocol import Receipt, differences
from lcengine.store.rows import Layout, Part
from lcengine.store.template import PROVENANCE, Variable, consolidate, create_template
from lcengine.store.tiles import tile_table

NOTE = "staging.json"
"""Names the request being worked on; its presence means unfinished work."""

PLAN = "plan.json"
"""The frozen plan, in the folder of its work."""

TILES = "tiles.parquet"
"""Sidecar with the receipts, which `verify` holds the pixels against."""


class NotedStaging(ABC):
    """A staging whose plan and failures lie in the area."""

    def __init__(self, output: str, version: str, area: Area | None = None) -> None:
        self.output = output
        self.version = version
        self.area = area or self.make_area(output)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.output, self.version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NotedStaging) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.output, self.version))

    # ------------------------------------------------------------------- what a back end provides

    @staticmethod
    @abstractmethod
    def make_area(output: str) -> Area:
        """The area of an output."""

    @abstractmethod
    def begin(self) -> None:
        """Make room for the template; nothing of this work is there yet."""

    @abstractmethod
    def store(self) -> Store:
        """The staged group, writable."""

    @abstractmethod
    def write(self, tile: Tile | Part, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Write a tile's arrays, read them back, and return their content hash."""

    @abstractmethod
    def mark(self, tile: int, receipt: Mapping[str, Any]) -> Receipt:
        """Declare the tile that this thread has just written done; returns what the driver gets."""

    @abstractmethod
    def accept(self, receipt: Receipt) -> None:
        """Driver: take over a receipt that `mark` returned."""

    @abstractmethod
    def flush(self) -> None:
        """Driver: make all accepted receipts durable; `StoreError` if its lease is lost."""

    @abstractmethod
    def done(self) -> Iterator[Receipt]:
        """Markers of the finished tiles one by one, in no order."""

    @abstractmethod
    def finished(self) -> set[int]:
        """Indices of the finished tiles."""

    @abstractmethod
    def repair(self) -> None:
        """Unmark tiles that are not whole; remove leftovers of killed writers."""

    @abstractmethod
    def check_complete(self, tiles: set[int]) -> None:
        """`StoreError` unless every tile is finished and whole."""

    @abstractmethod
    def settle(self, store: Store) -> None:
        """The template just written to `store` survives a power loss."""

    @abstractmethod
    def put_sidecar(self, store: Store, name: str, content: bytes) -> None:
        """Lay a file beside the arrays."""

    @abstractmethod
    def reveal(self, store: Store) -> None:
        """Make the product visible in one step, or leave it so."""

    @abstractmethod
    def sweep_versions(self) -> None:
        """After publishing: remove work and versions that nobody needs."""

    @abstractmethod
    def discard(self) -> None:
        """Remove this work, but not what a killed driver had already made visible."""

    # ----------------------------------------------------------------------- what they have alike

    @property
    def work(self) -> str:
        """Folder of plan and markers in the area."""
        return f"{self.version}.work"

    def errors(self) -> AbstractContextManager[None]:
        """Turns what the storage raises into `StoreError`."""
        return self.area.errors()

    def current(self) -> bool:
        """Whether this work still is the one that counts."""
        note = self.area.read(NOTE)
        return note is not None and json.loads(note)["version"] == self.version

    def refuse_zombie(self, tile: int) -> None:
        """`StoreError` in a late task of a run that was discarded or published."""
        if not self.current():
            raise StoreError(
                f"tile {tile}: there is no work {self.version} of {self.output}; it was "
                "discarded or published, or this worker does not see that folder"
            )

    def plan(self) -> dict[str, Any]:
        """The frozen plan."""
        plan: dict[str, Any] = json.loads(self.file(PLAN))
        return plan

    def file(self, name: str) -> bytes:
        """A large part of the frozen plan."""
        with self.errors():
            content = self.area.read(f"{self.work}/{name}")
        if content is None:
            raise StoreError(f"the work {self.version} at {self.output} was discarded or published")
        return content

    def fail(self, tile: int, failure: Mapping[str, Any]) -> None:
        """Note a tile that was given up."""
        with self.errors():
            content = json.dumps({**failure, "tile": tile}).encode()
            self.area.write(f"{self.work}/failed/{tile}.json", content)

    def failed(self) -> dict[int, dict[str, Any]]:
        """The tiles given up and not finished since."""
        with self.errors():
            found = {
                int(name.removesuffix(".json")): json.loads(content)
                for name, content in self.area.read_all(f"{self.work}/failed")
            }
            finished = self.finished() if found else set()
        return {tile: found[tile] for tile in sorted(found) if tile not in finished}

    def provenance(self, store: Store) -> dict[str, Any]:
        """The provenance attribute of the staged group."""
        attributes = zarr.open_group(store, mode="r").attrs.asdict()
        found: Any = attributes[PROVENANCE]
        return dict(found)

    def publish(
        self, tiles: Iterable[int], facts: Mapping[str, Any], sidecars: Mapping[str, bytes]
    ) -> str:
        """Check that every tile is marked and whole, and make the product visible at once."""
        self.flush()
        with self.errors():
            self.check_complete(set(tiles))
            store = self.store()
            for name, content in {**sidecars, TILES: tile_table(self.done())}.items():
                self.put_sidecar(store, name, content)
            group = zarr.open_group(store, mode="r+")
            group.attrs[PROVENANCE] = {**self.provenance(store), **facts}
            if store.supports_consolidated_metadata:
                consolidate(store)
            self.area.guard()
            self.reveal(store)
            self.area.remove(NOTE)
            self.area.remove(self.work)
            self.sweep_versions()
        return self.output


def refuse_missing(tiles: set[int], finished: set[int]) -> None:
    """`StoreError` where a tile is not finished."""
    missing = sorted(tiles - finished)
    if missing:
        raise StoreError(
            f"{len(missing)} of {len(tiles)} tiles are not finished (the first: {missing[0]}); "
            "run the same command again"
        )


class NotedTarget(ABC):
    """A target whose unfinished work is named by a note in the area."""

    kind: ClassVar[type[NotedStaging]]

    def __init__(self, output: str) -> None:
        self.output = output
        self.area = self.kind.make_area(output)

    @abstractmethod
    def published(self) -> dict[str, Any] | None:
        """Provenance of the product now visible, None where there is none."""

    @abstractmethod
    def replaceable(self) -> None:
        """`StoreError` where a published product cannot be replaced."""

    def errors(self) -> AbstractContextManager[None]:
        """Turns what the storage raises into `StoreError`."""
        return self.area.errors()

    def exclusive(self) -> AbstractContextManager[None]:
        """Only one driver works on an output; `StoreError` for the second."""
        return self.area.exclusive()

    def unfinished(self) -> dict[str, Any] | None:
        """The note of unfinished work."""
        with self.errors():
            content = self.area.read(NOTE)
        return None if content is None else dict(json.loads(content))

    def staging(self) -> NotedStaging | None:
        """The unfinished work as it is, whoever asked for it."""
        note = self.unfinished()
        return self.kind(self.output, str(note["version"]), self.area) if note else None

    def find(self, request: Mapping[str, Any]) -> NotedStaging | None:
        """Unfinished work to go on with; `StoreError` with the difference if it is another's."""
        note = self.unfinished()
        if note is None:
            return None
        wanted = {"package": lcengine.__version__, "request": dict(request)}
        changed = differences(wanted, {key: note[key] for key in wanted})
        if changed:
            raise StoreError(
                f"{self.output} has unfinished work of a different request "
                f"({'; '.join(changed)}); repeat that request, or discard it with --restart"
            )
        staging = self.kind(self.output, str(note["version"]), self.area)
        self.area.guard()
        with self.errors():
            staging.repair()
        return staging

    def create(
        self,
        request: Mapping[str, Any],
        run_id: str,
        plan: Mapping[str, Any],
        layout: Layout,
        variables: Sequence[Variable],
        periods: Sequence[Period] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> NotedStaging:
        """Lay out fresh work, discarding older; the note that makes it count is written last.

        Its version is a name that no work ever had: the visible version is never touched, half a
        staging area that a kill left behind is in nobody's way, and a task of a discarded run
        cannot write into the next one.
        """
        self.area.guard()
        self.replaceable()
        old = self.staging()
        with self.errors():
            if old is not None:
                old.discard()
            staging = self.kind(self.output, f"{run_id}-{uuid.uuid4().hex[:8]}", self.area)
            staging.begin()
            for name, content in {**(files or {}), PLAN: json.dumps(plan).encode()}.items():
                self.area.write(f"{staging.work}/{name}", content)
            provenance = {
                "package": lcengine.__version__,
                "run_id": run_id,
                "request": dict(request),
                "grid": layout.to_dict(),
                "variables": [variable.name for variable in variables],
            }
            store = staging.store()
            create_template(store, layout, variables, periods, provenance)
            staging.settle(store)
            note = {
                "version": staging.version,
                "package": lcengine.__version__,
                "request": dict(request),
            }
            self.area.guard()
            self.area.write(NOTE, json.dumps(note, indent=1).encode())
        return staging
