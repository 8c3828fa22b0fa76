"""One tile in a Zarr group: check, write, read back, hash; and a survey of what lies there."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.core.sync import sync

from lcengine.errors import StoreError
from lcengine.grid import Tile

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


def write_tile(group: zarr.Group, tile: Tile, arrays: Mapping[str, npt.NDArray[Any]]) -> Written:
    """Write a tile's arrays and read them back; `StoreError` if they do not fit or differ."""
    total = hashlib.sha256()
    hashes, keys = {}, {}
    for name, pixels in arrays.items():
        # Per array: zarr's global setting would be shared by the tasks of all threads.
        target = member(group, name).with_config({"write_empty_chunks": True})
        check_fits(tile, name, pixels, target)
        where = (..., *tile.slices)
        _replace(group, target, tile, pixels)
        nan = pixels.dtype.kind == "f"
        if not np.array_equal(np.asarray(target[where]), pixels, equal_nan=nan):
            raise StoreError(
                f"tile {tile.index} of {name} does not read back as written; "
                f"check the storage under {group.store}"
            )
        content = np.ascontiguousarray(pixels).data
        total.update(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
        keys[name] = shard_keys(target, tile)
    return Written(total.hexdigest(), hashes, keys)


def _replace(group: zarr.Group, array: Array, tile: Tile, pixels: npt.NDArray[Any]) -> None:
    """Write a tile, also over what a power loss left of it."""
    where = (..., *tile.slices)
    try:
        array[where] = pixels
    except (RuntimeError, ValueError):
        # zarr merges a cropped tile into the shard that lies there, which cannot be decoded.
        for key in shard_keys(array, tile):
            sync(group.store.delete(key))
        array[where] = pixels


def member(group: zarr.Group, name: str) -> Array:
    """An array of the product."""
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def check_fits(tile: Tile, name: str, pixels: npt.NDArray[Any], array: Array) -> None:
    """`StoreError` unless the pixels are one whole shard: two tasks must never share one."""
    edge = (array.shards or array.chunks)[-1]
    *times, height, width = array.shape
    y0, x0 = tile.row * edge, tile.col * edge
    whole = (y0, x0, *times, min(edge, height - y0), min(edge, width - x0))
    if (tile.y0, tile.x0, *pixels.shape) != whole or pixels.dtype != array.dtype:
        raise StoreError(
            f"tile {tile.index} of {name} is {pixels.dtype} (y, x, *shape) "
            f"{(tile.y0, tile.x0, *pixels.shape)}, expected {array.dtype} {whole}"
        )


def shard_keys(array: Array, tile: Tile) -> list[str]:
    """Keys of a tile's shards: one, or one per period."""
    place = f"{tile.row}/{tile.col}"
    if array.ndim == 2:
        return [f"{array.path}/c/{place}"]
    return [f"{array.path}/c/{time}/{place}" for time in range(array.shape[0])]


def survey(
    markers: Iterable[Mapping[str, Any]], names: Sequence[str], cols: int, listing: Listing
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
            place = _place(key, cols)
            at = index.get(place[0]) if place else None
            if place is None or at is None or place[1] >= actual.shape[1]:
                out.foreign.append(key)
            else:
                actual[at, place[1]] = size
        wrong = (actual != expected) | (expected <= 0)
        out.damaged |= {tiles[i] for i in np.nonzero(wrong.any(axis=1))[0]}
    return out


def _place(key: str, cols: int) -> tuple[int, int] | None:
    """(tile, period) of a shard's key; None for what is no shard."""
    parts = key.split("/")[2:]
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
        return None
    time, row, col = [0, *map(int, parts)][-3:]
    return (row * cols + col, time) if col < cols else None


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
