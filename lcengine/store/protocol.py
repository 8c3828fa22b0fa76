"""What every back end promises: a target that drivers work on, a staging that workers write to."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.periods import Period
from lcengine.store.rows import Layout, Part
from lcengine.store.template import Variable

_SHOWN = 80
"""Characters of a value in a message."""

Receipt = dict[str, Any]
"""What is known of a finished tile: `tile`, `sha256`, and small JSON values of its task.

Scalars at the top level become columns of `tiles.parquet`, lists their length: they must follow
from the request alone. What differs from run to run (seconds, hosts) belongs into a nested object.
"""


@runtime_checkable
class Staging(Protocol):
    """An unfinished product. Small and picklable, without credentials: it travels to the workers.

    Every method raises `StoreError` where the storage fails, with the remedy; whatever was marked
    or accepted and flushed before that is kept, and the same request resumes it.
    """

    output: str
    version: str

    def __hash__(self) -> int: ...

    def plan(self) -> dict[str, Any]:
        """The frozen plan."""
        ...

    def file(self, name: str) -> bytes:
        """A large part of the frozen plan, kept as a file beside it."""
        ...

    def write(self, tile: Tile | Part, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Write a tile's arrays, read them back, and return the SHA-256 of their pixels.

        Raises `StoreError` when an array is not one whole tile or does not read back equal.
        """
        ...

    def mark(self, tile: int, receipt: Mapping[str, Any]) -> Receipt:
        """Declare the tile that this thread has just written done; returns what the driver gets."""
        ...

    def accept(self, receipt: Receipt) -> None:
        """Driver: take over a receipt that `mark` returned."""
        ...

    def flush(self) -> None:
        """Driver: make all accepted receipts durable; `StoreError` if its lease is lost."""
        ...

    def fail(self, tile: int, failure: Mapping[str, Any]) -> None:
        """Driver: note a tile that was given up (error, attempts, quarantined)."""
        ...

    def done(self) -> Iterator[Receipt]:
        """Markers of the finished tiles one by one, in no order."""
        ...

    def failed(self) -> dict[int, dict[str, Any]]:
        """The tiles given up and not finished since, by tile index."""
        ...

    def publish(
        self, tiles: Iterable[int], facts: Mapping[str, Any], sidecars: Mapping[str, bytes]
    ) -> str:
        """Check that every tile is marked and in place, and make the product visible at once.

        `facts` join the provenance attribute, `sidecars` are files beside the arrays, to which
        `tiles.parquet` is added. Returns the output.
        """
        ...

    def discard(self) -> None:
        """Remove this work, but not what a killed driver had already made visible."""
        ...


@runtime_checkable
class Target(Protocol):
    """A place for a product."""

    output: str

    def exclusive(self) -> AbstractContextManager[None]:
        """Only one driver works on an output; `StoreError` for the second."""
        ...

    def published(self) -> dict[str, Any] | None:
        """Provenance of the product now visible, None where there is none."""
        ...

    def unfinished(self) -> dict[str, Any] | None:
        """The note of unfinished work: `version`, `package` and `request`."""
        ...

    def staging(self) -> Staging | None:
        """The unfinished work as it is, whoever asked for it."""
        ...

    def find(self, request: Mapping[str, Any]) -> Staging | None:
        """Unfinished work to go on with; `StoreError` with the difference if it is another's.

        Tiles whose marker is there but whose pixels are not whole lose their marker, and files
        that killed writers left are swept.
        """
        ...

    def replaceable(self) -> None:
        """`StoreError` where a published product cannot be replaced."""
        ...

    def create(
        self,
        request: Mapping[str, Any],
        run_id: str,
        plan: Mapping[str, Any],
        layout: Layout,
        variables: Sequence[Variable],
        periods: Sequence[Period] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> Staging:
        """Lay out fresh work, discarding older; the note that makes it count is written last.

        Variables on a grid are (y, x), or (time, y, x) where `periods` are given; of samples
        (sample, *their shape). `files` are large parts of the plan.
        """
        ...


def bucket_of(output: str | os.PathLike[str]) -> tuple[str, str] | None:
    """(bucket, key) of an `s3://` address, None for a local path.

    `Path("s3://bucket/key")` loses a slash; it is understood all the same.
    """
    found = re.fullmatch(r"s3:/+([^/]+)/*(.*)", os.fspath(output))
    if found is None:
        if re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(output)):
            raise InputError(
                f"output {output} is of an unknown kind; expected a local path or s3://bucket/key"
            )
        return None
    bucket, key = found[1], found[2].strip("/")
    if not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InputError(f"output {output} names no object; expected s3://bucket/folder/out.zarr")
    return bucket, key


def differences(new: Any, old: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as `key: old -> new`."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        found: list[str] = []
        for key in sorted({*new, *old}):
            name = key if path in ("", "request") else f"{path}.{key}"
            found += differences(new.get(key), old.get(key), name)
        return found
    return [] if new == old else [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    """A value in a message of one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]} …"


def digest(data: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> str:
    """A short SHA-256 of JSON values and files: the identity of a plan."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode())
    for name, content in sorted((files or {}).items()):
        found.update(name.encode() + hashlib.sha256(content).digest())
    return found.hexdigest()[:16]


def require(module: str, extra: str) -> ModuleType:
    """An optional library; `InputError` with the remedy where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"this output needs {module} ({error}); pip install 'lcengine[{extra}]'"
        ) from error
