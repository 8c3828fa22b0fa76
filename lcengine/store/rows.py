"""Products that are no raster: equal arrays along a first axis `sample`, cut into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lcengine.errors import InputError
from lcengine.grid import Grid

AXIS = "sample"
"""Name of the first axis."""


class Part(NamedTuple):
    """Samples `start` … `stop` - 1: what one task writes, as a tile is of a raster."""

    index: int  # type: ignore[assignment]  # the field's name matters more than tuple.index
    start: int
    stop: int

    @property
    def selection(self) -> tuple[Any, ...]:
        """Its place in an array of the product."""
        return (slice(self.start, self.stop), ...)


@dataclass(frozen=True, slots=True)
class Rows:
    """`count` samples, `part` of them per shard and task."""

    count: int
    part: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.part < 1:
            raise InputError(
                f"{self.count} samples in parts of {self.part}; expected one or more of both"
            )

    @property
    def n_tiles(self) -> int:
        """Number of parts."""
        return -(-self.count // self.part)

    def tile_at(self, index: int) -> Part:
        """A part by number; `IndexError` outside [0, n_tiles)."""
        if not 0 <= index < self.n_tiles:
            raise IndexError(f"part {index} of {self.n_tiles}")
        return Part(index, index * self.part, min(self.count, (index + 1) * self.part))

    def to_dict(self) -> dict[str, int]:
        """JSON values; `layout_of` reads them."""
        return {"samples": self.count, "part": self.part}


Layout = Grid | Rows
"""How a product is cut into what tasks write."""


def layout_of(provenance: Mapping[str, Any]) -> Layout:
    """The layout of a product, from its provenance."""
    found = provenance["grid"]
    if "samples" in found:
        return Rows(found["samples"], found["part"])
    return Grid.from_dict(found)


def tile_of(layout: Layout, numbers: Sequence[int]) -> tuple[int, int] | None:
    """(tile, period) of a shard by its position along each axis; None for what is no shard."""
    if isinstance(layout, Rows):
        first, *others = numbers
        return None if any(others) or first >= layout.n_tiles else (first, 0)
    if len(numbers) not in (2, 3):
        return None
    time, row, col = [0, *numbers][-3:]
    return (row * layout.tile_cols + col, time) if col < layout.tile_cols else None
