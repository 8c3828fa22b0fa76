"""Where the driver of an output keeps plan, note and markers: a hidden sibling of the output."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from lcengine.errors import StoreError

REMEDY = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space within the quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EIO: "check the disk",
}


class Area(Protocol):
    """Small files by name (`v.work/tiles/7.json`), each written whole or not at all."""

    def read(self, name: str) -> bytes | None:
        """Content of a file, None where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file; it survives a power loss."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files in a folder."""
        ...

    def read_all(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of every file in a folder, without holding all."""
        ...

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the output; `StoreError` if another driver does."""
        ...

    def guard(self, *, lenient: bool = False) -> None:
        """`StoreError` unless the output is still held; `lenient`: unless it may be."""
        ...

    def errors(self) -> AbstractContextManager[None]:
        """Turns what this storage raises into `StoreError` with the remedy."""
        ...


class Folder:
    """The area of a local output: `.out.zarr.lcengine/`, held by a file lock."""

    def __init__(self, output: str) -> None:
        self.output = output
        path = Path(output)
        self.path = path.parent / f".{path.name}.lcengine"

    def read(self, name: str) -> bytes | None:
        """Content of a file, None where there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file; it survives a power loss."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files in a folder."""
        try:
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        yield entry.name
        except FileNotFoundError:
            return

    def read_all(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of every file in a folder, without holding all."""
        for name in self.names(folder):
            content = self.read(f"{folder}/{name}")
            if content is not None:
                yield name, content

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        try:
            return [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the output; `StoreError` if another driver does."""
        with self.errors():
            self.path.mkdir(exist_ok=True)
            lock = (self.path / "lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"another run is writing {self.output}; wait for it or stop it first"
                ) from None
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be locked: {os.strerror(error.errno or 0)}; mount that "
                    "file system with locks (Lustre: -o flock) or choose an output on another"
                ) from error
            yield

    def guard(self, *, lenient: bool = False) -> None:
        """A file lock is held until the process ends."""

    @contextmanager
    def errors(self) -> Iterator[None]:
        """A full or read-only disk as `StoreError`; any other `OSError` as it is."""
        try:
            yield
        except OSError as error:
            if error.errno not in REMEDY:
                raise
            raise StoreError(
                f"cannot write {error.filename or self.output}: {os.strerror(error.errno)}; "
                f"{REMEDY[error.errno]}, then run the same command again (what is finished is kept)"
            ) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power loss."""
    # Not the process id: the workers of a cluster of containers share theirs.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
