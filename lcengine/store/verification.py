"""Holding a product's pixels against the hashes that its run left in `tiles.parquet`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.store.product import Found, locate, read_sidecar
from lcengine.store.rows import Part, layout_of
from lcengine.store.staged import TILES
from lcengine.store.tiles import Array, member, shard_keys, tile_rows


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one object of a product; `tile` is None where it belongs to none."""

    tile: int | None
    variable: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found."""

    product: str
    tiles: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether every tile holds the pixels its run wrote, and nothing else lies there."""
        return not self.faults


def verify(path: str | os.PathLike[str]) -> Verification:
    """Read every tile of a product and compare its SHA-256 with the one taken when written.

    Finds flipped bits, missing shards, shards replaced by others, and shards of no tile. Raises
    `InputError` for what is no product, or one without `tiles.parquet`.
    """
    found = locate(path)
    table = read_sidecar(found, TILES)
    if table is None:
        raise InputError(f"{path} has no {TILES}: it was published before tiles were recorded")
    rows = {int(row["tile"]): row for row in tile_rows(table)}
    faults = tuple(_faults(found, rows))
    return Verification(found.place, len(rows), faults)


def _faults(found: Found, rows: dict[int, dict[str, Any]]) -> Iterator[Fault]:
    provenance = found.provenance()
    layout = layout_of(provenance)
    group = found.group()
    for name in provenance["variables"]:
        array = member(group, name)
        lying = set(found.shards(name))
        for number, row in rows.items():
            tile = layout.tile_at(number)
            keys = set(shard_keys(array, tile))
            reason = (
                "a shard is missing"
                if keys - lying
                else _differs(array, tile, row[f"sha256_{name}"])
            )
            lying -= keys
            if reason:
                yield Fault(number, name, reason)
        for key in sorted(lying):
            yield Fault(None, name, f"{key} belongs to no tile")


def _differs(array: Array, tile: Tile | Part, expected: str) -> str | None:
    """Why the pixels are not the ones written, None where they are."""
    try:
        pixels = np.ascontiguousarray(array[tile.selection])
    except (RuntimeError, ValueError, OSError) as error:
        return f"cannot be read: {str(error).splitlines()[0]}"
    seen = hashlib.sha256(pixels.data).hexdigest()
    return None if seen == expected else "holds other pixels than were written"
