"""Products on S3-compatible object stores: create-only, published by their root metadata.

Arrays and sidecars lie at their final keys from the start; `out.zarr/zarr.json`, with the metadata
of all arrays, is written last, so a reader finds nothing or the whole product. There is no swap:
a published product is not overwritten. Beside it lies `.out.zarr.lcengine/` with lease, note, plan
and markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from zarr.abc.store import Store

from lcengine.errors import StoreError
from lcengine.store import objects
from lcengine.store.marked import MarkedStaging
from lcengine.store.objects import Prefix, StagedObjects
from lcengine.store.staged import NOTE, PLAN, NotedStaging, NotedTarget
from lcengine.store.template import PROVENANCE

if TYPE_CHECKING:
    from obstore.store import S3Store


class BucketStaging(MarkedStaging):
    """An unfinished product, lying where it will be published."""

    area: Prefix

    @staticmethod
    def make_area(output: str) -> Prefix:
        """The hidden prefix beside the output."""
        return Prefix(output)

    @property
    def product(self) -> S3Store:
        """Client below the output."""
        return objects.client(self.output)

    def begin(self) -> None:
        """Remove what killed runs left at the output; `StoreError` where it is of others.

        A plan says that the output was found empty once, or ours. A folder of work alone does not:
        a late worker's marker makes one.
        """
        ours = any(self.area.read(f"{folder}/{PLAN}") for folder in self.area.folders())
        found = list(objects.keys_of(self.product))
        if found and not ours:
            raise StoreError(
                f"{self.output} holds other objects (the first: {found[0]}); "
                "choose another output or remove them"
            )
        objects.delete(self.product, found)
        for folder in self.area.folders():
            self.area.remove(folder)

    def store(self) -> Store:
        """The staged group, chunks create-only once the note is there."""
        return StagedObjects(
            self.product, self.area.store, f"{self.work}/{objects.ROOT}", self.current
        )

    def sizes(self, store: Store, keys: Sequence[str]) -> list[int]:
        """Bytes of objects just written."""
        assert isinstance(store, StagedObjects)
        return [store.written[key] for key in keys]

    def listing(self, variable: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object below a variable's `c/`."""
        return objects.listed(self.product, f"{variable}/c")

    def drop(self, keys: Iterable[str]) -> None:
        """Remove objects by key."""
        objects.delete(self.product, keys)

    def sweep(self) -> None:
        """An object is written whole or not at all."""

    def settle(self, store: Store) -> None:
        """What was put is there."""

    def put_sidecar(self, store: Store, name: str, content: bytes) -> None:
        """Lay an object beside the arrays."""
        import obstore  # noqa: PLC0415 (an extra)

        obstore.put(self.product, name, content, use_multipart=False)

    def reveal(self, store: Store) -> None:
        """Put the root metadata in place; where they are, a killed driver came that far."""
        import obstore  # noqa: PLC0415 (an extra)

        root = self.area.read(f"{self.work}/{objects.ROOT}")
        assert root is not None
        try:
            obstore.put(self.product, objects.ROOT, root, mode="create")
        except obstore.exceptions.AlreadyExistsError:
            return

    def sweep_versions(self) -> None:
        """Remove what killed runs left in the area."""
        for folder in self.area.folders():
            self.area.remove(folder)

    def discard(self) -> None:
        """Remove this work, but not what a killed driver had already made visible."""
        self.area.remove(NOTE)
        if objects.attributes(self.product) is None:
            objects.delete(self.product, objects.keys_of(self.product))
        self.area.remove(self.work)


class BucketTarget(NotedTarget):
    """A product on an object store."""

    kind: ClassVar[type[NotedStaging]] = BucketStaging

    def published(self) -> dict[str, Any] | None:
        """Provenance of the product now visible; empty where it is another's."""
        with self.errors():
            found = objects.attributes(objects.client(self.output))
        return None if found is None else dict(found.get(PROVENANCE, {}))

    def replaceable(self) -> None:
        """`StoreError` where something is published: objects cannot be swapped in one step."""
        if self.published() is not None:
            raise StoreError(
                f"{self.output} is published, and a product on an object store is not overwritten; "
                "choose another output, with --store icechunk for one that keeps versions"
            )
