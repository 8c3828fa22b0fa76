"""Tiles that are files or objects, each declared done by a marker in the area, written last."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from lcengine.grid import Tile
from lcengine.store.area import Area
from lcengine.store.protocol import Receipt
from lcengine.store.rows import Part, layout_of
from lcengine.store.staged import NotedStaging, refuse_missing
from lcengine.store.tiles import Survey, Written, survey, write_tile


class MarkedStaging(NotedStaging):
    """A staging with one object per shard and one marker per tile."""

    def __init__(self, output: str, version: str, area: Area | None = None) -> None:
        super().__init__(output, version, area)
        self._written: dict[tuple[int, int], tuple[Written, dict[str, list[int]]]] = {}

    @abstractmethod
    def sizes(self, store: Store, keys: Sequence[str]) -> list[int]:
        """Bytes of shards just written to `store`, once they would survive a power loss."""

    @abstractmethod
    def listing(self, variable: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object below a variable's `c/`."""

    @abstractmethod
    def drop(self, keys: Iterable[str]) -> None:
        """Remove objects by key."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what killed writers leave: half-written files."""

    # --------------------------------------------------------------------------------- the worker

    def write(self, tile: Tile | Part, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Write a tile's arrays, read them back, and return their content hash.

        A late task of a run that was discarded or published writes nothing.
        """
        with self.errors():
            self.refuse_zombie(tile.index)
            store = self.store()
            written = write_tile(zarr.open_group(store, mode="r+"), tile, arrays)
            sizes = {name: self.sizes(store, keys) for name, keys in written.keys.items()}
        self._written[threading.get_ident(), tile.index] = written, sizes
        return written.sha256

    def mark(self, tile: int, receipt: Mapping[str, Any]) -> Receipt:
        """Declare the tile that this thread has just written done."""
        written, sizes = self._written.pop((threading.get_ident(), tile))
        seen = {**receipt, "tile": tile, "sha256": written.sha256}
        marker = {**seen, "hashes": written.hashes, "sizes": sizes}
        with self.errors():
            self.area.write(f"{self.work}/tiles/{tile}.json", json.dumps(marker).encode())
        return seen

    # --------------------------------------------------------------------------------- the driver

    def accept(self, receipt: Receipt) -> None:
        """The marker says it already; `StoreError` if another driver has taken over.

        A lease that only was not renewed for a while may still be: no reason to end a long run.
        """
        self.area.guard(lenient=True)

    def flush(self) -> None:
        """`StoreError` if another driver has taken over."""
        self.area.guard()

    def finished(self) -> set[int]:
        """Indices of the marked tiles."""
        return {int(n.removesuffix(".json")) for n in self.area.names(f"{self.work}/tiles")}

    def done(self) -> Iterator[Receipt]:
        """Markers of the finished tiles one by one, in no order; broken ones are passed over."""
        with self.errors():
            for _, content in self.area.read_all(f"{self.work}/tiles"):
                marker = _marker(content)
                if marker:
                    yield marker

    def repair(self) -> None:
        """Unmark tiles whose marker or pixels are not whole; remove leftovers of killed writers."""
        self.sweep()
        for name, content in self.area.read_all(f"{self.work}/tiles"):
            if not _marker(content):
                self.area.remove(f"{self.work}/tiles/{name}")
        self._unmark(self.survey().damaged)

    def survey(self) -> Survey:
        """Markers against what lies in the store."""
        found = self.provenance(self.store())
        return survey(self.done(), found["variables"], layout_of(found), self.listing)

    def check_complete(self, tiles: set[int]) -> None:
        """`StoreError` unless every tile is marked and whole; foreign shards are removed.

        One look at the markers decides both: a marker that appears later, or cannot be read, must
        not count here while its shards pass for foreign.
        """
        self.sweep()
        found = self.survey()
        self._unmark(found.damaged)
        refuse_missing(tiles, found.marked - found.damaged)
        self.drop(found.foreign)

    def _unmark(self, tiles: Iterable[int]) -> None:
        for tile in tiles:
            self.area.remove(f"{self.work}/tiles/{tile}.json")


def _marker(content: bytes) -> Receipt | None:
    """A marker, None where a power loss left half of it."""
    try:
        marker: Receipt = json.loads(content)
    except ValueError:
        return None
    return marker if marker.keys() >= {"tile", "sizes", "hashes"} else None
