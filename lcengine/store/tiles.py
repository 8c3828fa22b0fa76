"""One tile in a Zarr group: check, write, read back, hash; and a survey of what lies there."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.core.sync import sync

from lcengine.errors import StoreError
from lcengine.grid import Tile
from lcengine.store.rows import Layout, Part, tile_of

Array = zarr.Array[Any]
Listing = Callable[[str], Iterable[tuple[str, int]]]
"""A variable's name -> key and size in bytes of every object below `name/c/`."""

ROWS = 2000
"""Markers turned into Arrow at a time."""

COLUMNS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


@dataclass(frozen=True, slots=True)
class Written:
    """What a tile became: the hash of all pixels, of each variable's, and the shards' keys."""

    sha256: str
    hashes: dict[str, str]
    keys: dict[str, list[str]]


@dataclass(slots=True)
class Survey:
    """What the markers say against what lies in the store."""

    marked: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    """Marked tiles with a shard that is absent, empty or of another size."""
    foreign: list[str] = field(default_factory=list)
    """Keys of shards that no marker speaks of."""


def write_tile(
    group: zarr.Group, tile: Tile | Part, arrays: Mapping[str, npt.NDArray[Any]]
) -> Written:
    """Write a tile's arrays and read them back; `StoreError` if they do not fit or differ."""
    total = hashlib.sha256()
    hashes, keys = {}, {}
    for name, pixels in arrays.items():
        # Per array: zarr's global setting would be shared by the tasks of all threads.
        target = member(group, name).with_config({"write_empty_chunks": True})
        check_fits(tile, name, pixels, target)
        _replace(group, target, tile, pixels)
        nan = pixels.dtype.kind == "f"
        if not np.array_equal(np.asarray(target[tile.selection]), pixels, equal_nan=nan):
            raise StoreError(
                f"tile {tile.index} of {name} does not read back as written; "
                f"check the storage under {group.store}"
            )
        content = np.ascontiguousarray(pixels).data
        total.update(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
        keys[name] = shard_keys(target, tile)
    return Written(total.hexdigest(), hashes, keys)


def _replace(group: zarr.Group, array: Array, tile: Tile | Part, pixels: npt.NDArray[Any]) -> None:
    """Write a tile, also over what a power loss left of it."""
    try:
        array[tile.selection] = pixels
    except (RuntimeError, ValueError):
        # zarr merges a cropped tile into the shard that lies there, which cannot be decoded.
        for key in shard_keys(array, tile):
            sync(group.store.delete(key))
        array[tile.selection] = pixels


def member(group: zarr.Group, name: str) -> Array:
    """An array of the product."""
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def check_fits(tile: Tile | Part, name: str, pixels: npt.NDArray[Any], array: Array) -> None:
    """`StoreError` unless the pixels are one whole shard: two tasks must never share one."""
    edges = array.shards or array.chunks
    shape, whole = [], True
    for own, edge, size in zip(_ranges(array, tile), edges, array.shape, strict=True):
        start, stop = (0, size) if own is None else (own.start, own.stop)
        shape.append(stop - start)
        whole &= own is None or (start % edge == 0 and stop == min(start + edge, size))
    if not whole or pixels.shape != tuple(shape) or pixels.dtype != array.dtype:
        raise StoreError(
            f"tile {tile.index} of {name} is {pixels.dtype} {pixels.shape} at {tile.selection}, "
            f"expected {array.dtype} and one whole shard of {edges}"
        )


def shard_keys(array: Array, tile: Tile | Part) -> list[str]:
    """Keys of a tile's shards: one, or one per period."""
    edges = array.shards or array.chunks
    places = (
        range(-(-size // edge)) if own is None else [own.start // edge]
        for own, edge, size in zip(_ranges(array, tile), edges, array.shape, strict=True)
    )
    return [f"{array.path}/c/{'/'.join(map(str, place))}" for place in product(*places)]


def _ranges(array: Array, tile: Tile | Part) -> list[slice | None]:
    """What a tile takes of each axis; None is all of it."""
    given: list[slice | None] = [part for part in tile.selection if part is not Ellipsis]
    others: list[slice | None] = [None] * (array.ndim - len(given))
    return [*others, *given] if tile.selection[0] is Ellipsis else [*given, *others]


def survey(
    markers: Iterable[Mapping[str, Any]], names: Sequence[str], layout: Layout, listing: Listing
) -> Survey:
    """Hold the sizes in the markers against a listing of each variable.

    A marker and an object take a few bytes here, so that 100,000 tiles do.
    """
    tiles = array("q")
    sizes = {name: array("q") for name in names}
    for marker in markers:
        tiles.append(marker["tile"])
        for name in names:
            sizes[name].extend(marker["sizes"][name])
    out = Survey(set(tiles))
    index = {tile: i for i, tile in enumerate(tiles)}
    for name in names:
        expected = np.array(sizes[name]).reshape(len(tiles), -1) if tiles else np.zeros((0, 0))
        actual = np.zeros_like(expected)
        for key, size in listing(name):
            place = _place(key, layout)
            at = index.get(place[0]) if place else None
            if place is None or at is None or place[1] >= actual.shape[1]:
                out.foreign.append(key)
            else:
                actual[at, place[1]] = size
        wrong = (actual != expected) | (expected <= 0)
        out.damaged |= {tiles[i] for i in np.nonzero(wrong.any(axis=1))[0]}
    return out


def _place(key: str, layout: Layout) -> tuple[int, int] | None:
    """(tile, period) of a shard's key; None for what is no shard."""
    parts = key.split("/")[2:]
    if not parts or not all(part.isdecimal() for part in parts):
        return None
    return tile_of(layout, [int(part) for part in parts])


def tile_table(markers: Iterable[Mapping[str, Any]]) -> bytes:
    """The markers as Parquet, by tile: scalars, the length of lists, `sha256_*` per variable."""
    rows = iter(markers)
    batches: list[pa.RecordBatch] = []
    schema = None
    while part := [_row(marker) for marker in islice(rows, ROWS)]:
        if schema is None:
            fields = [(name, COLUMNS[type(value)]) for name, value in part[0].items()]
            schema = pa.schema(fields)
        batches.append(pa.RecordBatch.from_pylist(part, schema=schema))
    table = pa.Table.from_batches(batches, schema or pa.schema([("tile", pa.int64())]))
    buffer = io.BytesIO()
    pq.write_table(table.sort_by("tile"), buffer)
    return buffer.getvalue()


def _row(marker: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for name, value in marker.items():
        if isinstance(value, list):
            row[name] = len(value)
        elif type(value) in COLUMNS:
            row[name] = value
    return row | {f"sha256_{name}": digest for name, digest in marker["hashes"].items()}


def tile_rows(table: bytes) -> Iterator[dict[str, Any]]:
    """The rows of a `tiles.parquet`."""
    for batch in pq.ParquetFile(io.BytesIO(table)).iter_batches(ROWS):
        yield from batch.to_pylist()
