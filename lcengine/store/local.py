"""Local products: `out.zarr` is a symbolic link to a version in `.out.zarr.lcengine/`.

Beside the versions lie the lock, the note of unfinished work, its plan and its markers. Publishing
swaps the link; the version just replaced stays until the next publishing, for readers that hold it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from zarr.abc.store import Store
from zarr.storage import LocalStore

from lcengine.errors import StoreError
from lcengine.store.area import Folder, sync, write_atomic
from lcengine.store.marked import MarkedStaging
from lcengine.store.staged import NOTE, NotedStaging, NotedTarget
from lcengine.store.template import PROVENANCE

PARTIAL = (".partial", ".part")
"""Ends of files that a killed writer leaves: zarr's and ours."""


@lru_cache(maxsize=2**14)
def _settle(folder: Path, top: Path) -> None:
    """Have the names of a folder and of those above it, up to `top`, on the disk.

    Once per process is enough: names of versions are never used again.
    """
    if folder != top:
        sync(folder.parent)
        _settle(folder.parent, top)


class LocalStaging(MarkedStaging):
    """An unfinished product in a folder of its own."""

    area: Folder

    @staticmethod
    def make_area(output: str) -> Folder:
        """The hidden folder beside the output."""
        return Folder(output)

    @property
    def path(self) -> Path:
        """The staged Zarr group, later published where it lies."""
        return self.area.path / self.version

    def begin(self) -> None:
        """The template makes its own folder."""

    def store(self) -> Store:
        """The staged group."""
        return LocalStore(self.path)

    def sizes(self, store: Store, keys: Sequence[str]) -> list[int]:
        """Bytes of shards, after they and the folders that name them are on the disk."""
        shards = [self.path / key for key in keys]
        for shard in shards:
            sync(shard)
        for folder in {shard.parent for shard in shards}:
            sync(folder)
            _settle(folder, self.path)
        return [shard.stat().st_size for shard in shards]

    def listing(self, variable: str) -> Iterator[tuple[str, int]]:
        """Key and size of every file below a variable's `c/`.

        The workers of a driver that was killed may still write: their `.partial` files vanish.
        """
        for folder, _, files in os.walk(self.path / variable / "c"):
            base = Path(folder).relative_to(self.path).as_posix()
            for name in files:
                with suppress(FileNotFoundError):
                    yield f"{base}/{name}", os.stat(f"{folder}/{name}").st_size

    def drop(self, keys: Iterable[str]) -> None:
        """Remove files by key."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed writers leave."""
        for folder, _, files in (*os.walk(self.path), *os.walk(self.area.path / self.work)):
            for name in files:
                if name.endswith(PARTIAL):
                    Path(folder, name).unlink(missing_ok=True)

    def settle(self, store: Store) -> None:
        """Have the template on the disk: half a `zarr.json` would make the work useless."""
        for folder, _, files in os.walk(self.path):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))

    def put_sidecar(self, store: Store, name: str, content: bytes) -> None:
        """Lay a file beside the arrays."""
        write_atomic(self.path / name, content)

    def reveal(self, store: Store) -> None:
        """Swap the link."""
        link = self.area.path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(self.area.path.name) / self.version)
        output = Path(self.output)
        if output.is_symlink() and output.resolve() != self.path.resolve():
            self.area.write("previous", output.resolve().name.encode())
        sync(self.path / "zarr.json")
        sync(self.path)
        os.replace(link, output)
        sync(output.parent)

    def sweep_versions(self) -> None:
        """Remove versions older than the one just replaced, which a reader may still hold."""
        previous = self.area.read("previous") or b""
        for folder in self.area.folders():
            if folder not in (self.version, previous.decode()):
                shutil.rmtree(self.area.path / folder, ignore_errors=True)

    def discard(self) -> None:
        """Remove this work, but not what a killed driver had already made visible."""
        self.area.remove(NOTE)
        shutil.rmtree(self.area.path / self.work, ignore_errors=True)
        if Path(self.output).resolve() != self.path.resolve():
            shutil.rmtree(self.path, ignore_errors=True)


class LocalTarget(NotedTarget):
    """A product at a local path."""

    kind: ClassVar[type[NotedStaging]] = LocalStaging

    def __init__(self, output: str | os.PathLike[str]) -> None:
        path = Path(os.path.abspath(output))
        ours = path.is_symlink() and (path / "zarr.json").is_file()
        if path.exists() and not ours:
            raise StoreError(
                f"{path} exists and is not a product published by lcengine; "
                "choose another output or remove it"
            )
        if not path.parent.is_dir():
            raise StoreError(f"folder {path.parent} does not exist; create it first")
        super().__init__(str(path))

    def published(self) -> dict[str, Any] | None:
        """Provenance of the product now visible; empty where something else was linked there."""
        try:
            root = json.loads((Path(self.output) / "zarr.json").read_bytes())
        except FileNotFoundError:
            return None
        return dict(root["attributes"].get(PROVENANCE, {}))

    def replaceable(self) -> None:
        """A link can be swapped."""
