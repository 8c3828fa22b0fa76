"""S3-compatible object stores through obstore: the client, a Zarr store, and the driver's area.

The configuration comes from the environment of every process, driver and worker alike: AWS_REGION,
AWS_ACCESS_KEY_ID and so on, AWS_ENDPOINT_URL for another service than AWS, AWS_ALLOW_HTTP. Nothing
of it is kept in notes or plans, nor pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import zarr.storage
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from lcengine.errors import StoreError
from lcengine.store.lease import Lease
from lcengine.store.protocol import bucket_of, require

if TYPE_CHECKING:
    from obstore.store import S3Store
    from zarr.abc.store import ByteRequest

THREADS = 32
"""Requests in flight when many small objects are read or removed."""

ROOT = "zarr.json"


def client(output: str, sibling: str | None = None) -> S3Store:
    """A client below an output, or below a sibling of it; settings from the environment."""
    store = require("obstore.store", "object-store")
    place = bucket_of(output)
    assert place is not None
    bucket, key = place
    if sibling is not None:
        parent, _, name = key.rpartition("/")
        key = f"{parent}/{sibling.format(name)}".lstrip("/")
    made: S3Store = store.S3Store(bucket, prefix=key)
    return made


def get(store: S3Store, key: str) -> bytes | None:
    """Content of an object, None where there is none."""
    import obstore  # noqa: PLC0415 (an extra)

    try:
        return bytes(obstore.get(store, key).bytes())
    except FileNotFoundError:
        return None


def listed(store: S3Store, prefix: str) -> Iterator[tuple[str, int]]:
    """Key and size of every object below a folder."""
    import obstore  # noqa: PLC0415 (an extra)

    for batch in obstore.list(store, prefix.rstrip("/") or None, chunk_size=1000):
        for found in batch:
            yield found["path"], found["size"]


def delete(store: S3Store, keys: Iterable[str]) -> None:
    """Remove objects, a thousand per request."""
    import obstore  # noqa: PLC0415 (an extra)

    rest = iter(keys)
    while part := list(islice(rest, 1000)):
        obstore.delete(store, part)


class Prefix:
    """The area of an output on an object store: `.out.zarr.lcengine/`, held by a lease."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.store = client(output, ".{}.lcengine")
        self.lease: Lease | None = None

    def read(self, name: str) -> bytes | None:
        """Content of an object, None where there is none."""
        return get(self.store, name)

    def write(self, name: str, content: bytes) -> None:
        """Write or replace an object."""
        import obstore  # noqa: PLC0415 (an extra)

        obstore.put(self.store, name, content, use_multipart=False)

    def remove(self, name: str) -> None:
        """Remove an object and all below it."""
        keys = [key for key, _ in listed(self.store, name)]
        delete(self.store, [*keys, name])

    def names(self, folder: str) -> Iterator[str]:
        """Names of the objects in a folder."""
        for key, _ in listed(self.store, folder):
            yield key.rpartition("/")[2]

    def read_all(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of every object in a folder, many requests in flight."""
        keys = (key for key, _ in listed(self.store, folder))
        with ThreadPoolExecutor(THREADS) as pool:
            while part := list(islice(keys, 16 * THREADS)):
                for key, content in zip(part, pool.map(self.read, part), strict=True):
                    if content is not None:
                        yield key.rpartition("/")[2], content

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        import obstore  # noqa: PLC0415 (an extra)

        return list(obstore.list_with_delimiter(self.store)["common_prefixes"])

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the output by a lease that is renewed meanwhile."""
        self.lease = Lease(self.store, self.output)
        with self.errors():
            self.lease.acquire()
        try:
            yield
        finally:
            with self.errors():
                self.lease.release()
            self.lease = None

    def guard(self, *, lenient: bool = False) -> None:
        """`StoreError` where another driver may have taken over; `lenient`: where one has."""
        if self.lease is not None:
            self.lease.check(lenient=lenient)

    def errors(self) -> AbstractContextManager[None]:
        """What the object store refuses, as `StoreError`."""
        return named_errors(self.output)


@contextmanager
def named_errors(output: str) -> Iterator[None]:
    """What the object store refuses, as `StoreError` with the remedy."""
    exceptions = require("obstore.exceptions", "object-store")
    try:
        yield
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise StoreError(
            f"{output} cannot be used: {str(error).splitlines()[0]}; check the bucket, "
            "AWS_ENDPOINT_URL and the AWS_* credentials, then run the same command again "
            "(what is finished is kept)"
        ) from error


class StagedObjects(zarr.storage.ObjectStore["S3Store"]):
    """A product being written: its root metadata lie in the area until it is published.

    So a reader finds no product before, and all the rest where it stays. `current` makes chunks
    create-only: another content is replaced only where it says that this work still counts.
    """

    def __init__(
        self,
        store: S3Store,
        area: S3Store,
        root: str,
        current: Callable[[], bool] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        super().__init__(store, read_only=read_only)
        self.area = zarr.storage.ObjectStore(area, read_only=read_only)
        self.root = root
        self.current = current
        self.written: dict[str, int] = {}

    def with_read_only(self, read_only: bool = False) -> StagedObjects:
        """The same store, read-only or not."""
        return StagedObjects(
            self.store, self.area.store, self.root, self.current, read_only=read_only
        )

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Content of a key."""
        if key == ROOT:
            return await self.area.get(self.root, prototype, byte_range)
        return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        return await (self.area.exists(self.root) if key == ROOT else super().exists(key))

    async def delete_dir(self, prefix: str) -> None:
        """Nothing: room is made before, where something may be removed."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key; a chunk only where there is none, or an equal one, or it may replace it."""
        if key == ROOT:
            await self.area.set(self.root, value)
        elif self.current is None or "/c/" not in key:
            await super().set(key, value)
        else:
            await self._create(key, value, self.current)
        self.written[key] = len(value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key unless it is there: zarr makes sure that an array has its root."""
        if not await self.exists(key):
            await self.set(key, value)

    async def _create(self, key: str, value: Buffer, current: Callable[[], bool]) -> None:
        import obstore  # noqa: PLC0415 (an extra)

        content = value.as_buffer_like()
        try:
            await obstore.put_async(self.store, key, content, mode="create")
        except obstore.exceptions.AlreadyExistsError:
            found = await super().get(key, default_buffer_prototype())
            if found is not None and found.to_bytes() == value.to_bytes():
                return
            if not current():
                raise StoreError(
                    f"{key} was written by another run, and this one was discarded or published"
                ) from None
            await obstore.put_async(self.store, key, content, use_multipart=False)


def attributes(store: S3Store) -> dict[str, Any] | None:
    """The root attributes of a published group, None where there is none."""
    content = get(store, ROOT)
    return None if content is None else dict(json.loads(content).get("attributes", {}))


def keys_of(store: S3Store, folders: Sequence[str] = ("",)) -> Iterator[str]:
    """Keys of all objects below folders."""
    for folder in folders:
        yield from (key for key, _ in listed(store, folder))
