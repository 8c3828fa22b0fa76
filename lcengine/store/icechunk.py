"""Products in an Icechunk repository: versions, tiles and done-list in one commit.

The repository lies at the output itself, lock or lease, note and plan in the hidden sibling as for
the other back ends. A run works on a branch of its own. A worker writes its tile's chunks through
a fork of that branch; the receipt carries the small change set to the driver, which merges and
commits many at a time, their receipts in the commit's metadata. (Commits by the workers themselves
cost a rebase each, the more the more workers there are, and fail on local disks.) Publishing moves
`main` to the finished snapshot in one step.

A published version is also a tag, named like the version: the one just replaced stays readable
(`repository.readonly_session(tag=…)`); older ones, and what discarded runs left, are expired and
garbage-collected at the next publishing. A reader that has opened `main` keeps its snapshot.
Local repositories are Icechunk's to make durable: it does not sync files, so after a power loss use
`lcengine verify`.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import icechunk
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from lcengine.errors import StoreError
from lcengine.grid import Tile
from lcengine.store.area import Area, Folder
from lcengine.store.objects import Prefix
from lcengine.store.protocol import Receipt, bucket_of
from lcengine.store.rows import Part
from lcengine.store.staged import NOTE, NotedStaging, NotedTarget, refuse_missing
from lcengine.store.template import CODEC, PROVENANCE
from lcengine.store.tiles import Written, write_tile

if "ICECHUNK_LOG" not in os.environ:
    # A file lock sees to that: one driver commits. The warning would come at every opening.
    icechunk.set_logs_filter("warn,icechunk::storage::object_store=error")

BATCH = 500
"""Tiles per commit at most. A commit costs about as much as a tile."""
SECONDS = 30.0
"""Time between commits at most: what a killed driver loses."""

CHANGES = "changes"
"""Key of a receipt under which the change set travels, as text: receipts are JSON."""

SIDECARS = "sidecars"
"""Group of the product that holds files as arrays of bytes."""

RECEIPTS = "receipts"
"""Key of a commit's metadata: the markers of its tiles, as JSON."""

SPLIT = 64
"""Chunks per dimension of a manifest at most, or every commit would write all of them again."""


def storage(output: str) -> Any:
    """Where a repository lies; S3 settings from the environment, as for `objects`."""
    place = bucket_of(output)
    if place is None:
        return icechunk.local_filesystem_storage(os.path.abspath(output))
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return icechunk.s3_storage(
        bucket=place[0],
        prefix=place[1],
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=endpoint,
        allow_http=os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"),
        force_path_style=endpoint is not None,
        from_env=True,
    )


def config() -> Any:
    """Manifests in pieces."""
    made = icechunk.RepositoryConfig.default()
    every = icechunk.ManifestSplitCondition.AnyArray()
    anywhere = icechunk.ManifestSplitDimCondition.Any()
    splitting = icechunk.ManifestSplittingConfig.from_dict({every: {anywhere: SPLIT}})
    made.manifest = icechunk.ManifestConfig(splitting=splitting)
    return made


def repository(output: str) -> Any:
    """The repository at an output; `StoreError` where there is none."""
    with named_errors(output):
        return icechunk.Repository.open(storage(output), config=config())


@contextmanager
def named_errors(output: str) -> Iterator[None]:
    """What Icechunk refuses, as `StoreError`."""
    try:
        yield
    except (icechunk.IcechunkError, icechunk.ConflictError) as error:
        raise StoreError(
            f"the Icechunk repository {output} cannot be used: {str(error).split('|')[0].strip()}; "
            "check that there is space and that it may be written, then run the same command again"
        ) from error


@lru_cache(maxsize=4)
def base_session(output: str, version: str) -> Any:
    """A process's session on a branch: what the forks of its tiles start from."""
    return repository(output).writable_session(version)


class IcechunkStaging(NotedStaging):
    """An unfinished product on a branch."""

    def __init__(self, output: str, version: str, area: Area | None = None) -> None:
        super().__init__(output, version, area)
        self._written: dict[tuple[int, int], tuple[Written, Any]] = {}
        self._pending: list[Receipt] = []
        self._committed = time.monotonic()

    @staticmethod
    def make_area(output: str) -> Area:
        """The hidden sibling of the output."""
        return Prefix(output) if bucket_of(output) else Folder(output)

    @contextmanager
    def _both(self) -> Iterator[None]:
        with self.area.errors(), named_errors(self.output):
            yield

    def errors(self) -> AbstractContextManager[None]:
        """What area and repository refuse, as `StoreError`."""
        return self._both()

    def begin(self) -> None:
        """A branch from the empty repository; branches that killed runs left are removed."""
        repo = repository(self.output)
        for branch in repo.list_branches() - {"main"}:
            repo.delete_branch(branch)
        *_, first = repo.ancestry(branch="main")
        repo.create_branch(self.version, first.id)
        for folder in self.area.folders():
            self.area.remove(folder)

    def store(self) -> Store:
        """The branch, writable; `settle` or `reveal` commits it."""
        session = repository(self.output).writable_session(self.version)
        found: Store = session.store
        return found

    def settle(self, store: Store) -> None:
        """Commit the template."""
        store.session.commit("template")  # type: ignore[attr-defined]

    # --------------------------------------------------------------------------------- the worker

    def write(self, tile: Tile | Part, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Write a tile's arrays into a fork, read them back, and return their content hash."""
        with self.errors():
            self.refuse_zombie(tile.index)
            fork = base_session(self.output, self.version).fork()
            written = write_tile(zarr.open_group(fork.store, mode="r+"), tile, arrays)
        self._written[threading.get_ident(), tile.index] = written, fork
        return written.sha256

    def mark(self, tile: int, receipt: Mapping[str, Any]) -> Receipt:
        """The receipt with the tile's change set: it counts once the driver has committed it."""
        written, fork = self._written.pop((threading.get_ident(), tile))
        seen = {**receipt, "tile": tile, "sha256": written.sha256, "hashes": written.hashes}
        return {**seen, CHANGES: base64.b64encode(pickle.dumps(fork)).decode()}

    # --------------------------------------------------------------------------------- the driver

    def accept(self, receipt: Receipt) -> None:
        """Take over a tile; commit where enough have come together."""
        self._pending.append(receipt)
        if len(self._pending) >= BATCH or time.monotonic() - self._committed > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit the accepted tiles together with their receipts."""
        self.area.guard()
        self._committed = time.monotonic()
        if not self._pending:
            return
        with self.errors():
            session = repository(self.output).writable_session(self.version)
            session.merge(
                *(pickle.loads(base64.b64decode(receipt[CHANGES])) for receipt in self._pending)
            )
            markers = [{k: v for k, v in r.items() if k != CHANGES} for r in self._pending]
            session.commit(f"{len(markers)} tiles", metadata={RECEIPTS: json.dumps(markers)})
        self._pending.clear()

    def done(self) -> Iterator[Receipt]:
        """The receipts of all commits, each tile once."""
        seen: set[int] = set()
        with self.errors():
            for commit in repository(self.output).ancestry(branch=self.version):
                for marker in json.loads(commit.metadata.get(RECEIPTS, "[]")):
                    if marker["tile"] not in seen:
                        seen.add(marker["tile"])
                        yield marker

    def finished(self) -> set[int]:
        """Indices of the committed tiles."""
        return {marker["tile"] for marker in self.done()}

    def repair(self) -> None:
        """A commit is whole or not there."""

    def check_complete(self, tiles: set[int]) -> None:
        """`StoreError` unless every tile is committed."""
        refuse_missing(tiles, self.finished())

    def put_sidecar(self, store: Store, name: str, content: bytes) -> None:
        """Files are arrays of bytes: a repository holds nothing but Zarr."""
        group = zarr.open_group(store, mode="r+").require_group(SIDECARS)
        data = np.frombuffer(content, np.uint8)
        group.create_array(name, data=data, chunks=data.shape, compressors=[CODEC], overwrite=True)

    def reveal(self, store: Store) -> None:
        """Commit, and move `main`, unless it was moved meanwhile."""
        repo = repository(self.output)
        main = repo.lookup_branch("main")
        snapshot = store.session.commit(f"product {self.version}")  # type: ignore[attr-defined]
        if self.version not in repo.list_tags():
            repo.create_tag(self.version, snapshot)
        repo.reset_branch("main", repo.lookup_tag(self.version), from_snapshot_id=main)

    def sweep_versions(self) -> None:
        """Keep this version and the one it replaced; collect what nothing refers to."""
        repo = repository(self.output)
        repo.delete_branch(self.version)
        for folder in self.area.folders():
            self.area.remove(folder)
        dates = {tag: next(repo.ancestry(tag=tag)).written_at for tag in repo.list_tags()}
        for tag in sorted(dates, key=lambda name: dates[name])[:-2]:
            repo.delete_tag(tag)
        now = dt.datetime.now(dt.UTC)
        repo.expire_snapshots(now)
        repo.garbage_collect(now)

    def discard(self) -> None:
        """Remove this work, but not what a killed driver had already made visible."""
        self.area.remove(NOTE)
        repo = repository(self.output)
        if self.version in repo.list_branches():
            repo.delete_branch(self.version)
        self.area.remove(self.work)


class IcechunkTarget(NotedTarget):
    """A product in an Icechunk repository, made on first use."""

    kind: ClassVar[type[NotedStaging]] = IcechunkStaging

    def __init__(self, output: str | os.PathLike[str]) -> None:
        place = bucket_of(output)
        if place is None:
            path = Path(os.path.abspath(output))
            if path.is_symlink() or (path.exists() and not is_local(path)):
                raise StoreError(
                    f"{path} exists and is not an Icechunk repository; choose another output"
                )
            if not path.parent.is_dir():
                raise StoreError(f"folder {path.parent} does not exist; create it first")
            super().__init__(str(path))
        else:
            super().__init__(f"s3://{place[0]}/{place[1]}")

    def published(self) -> dict[str, Any] | None:
        """Provenance of the version that `main` shows, None before the first."""
        with self.errors(), named_errors(self.output):
            if not icechunk.Repository.exists(storage(self.output)):
                return None
            found = read_store(self.output)
            if found is None:
                return None
            attributes = zarr.open_group(found, mode="r").attrs.asdict()
            provenance: Any = attributes.get(PROVENANCE, {})
            return dict(provenance)

    def replaceable(self) -> None:
        """Make the repository where there is none."""
        with self.errors(), named_errors(self.output):
            if not icechunk.Repository.exists(storage(self.output)):
                icechunk.Repository.create(storage(self.output), config=config())


def is_local(path: Path) -> bool:
    """Whether a folder looks like a repository."""
    return (path / "refs").is_dir() and (path / "snapshots").is_dir()


def read_store(output: str) -> Store | None:
    """The snapshot that `main` shows, read-only and pinned; None before the first version."""
    repo = repository(output)
    snapshot = repo.lookup_branch("main")
    if next(repo.ancestry(snapshot_id=snapshot)).parent_id is None:
        return None
    found: Store = repo.readonly_session(snapshot_id=snapshot).store
    return found
