"""Patches that overlap: where they lie on a product, and what each says of its pixels.

Everything follows from the product's pixels, whatever its tiles. Along each axis patches start at
k · stride − ⌊(patch − stride) / 2⌋, k = 0, 1, …, so that their centres lie side by side from the
product's upper-left pixel on. Beyond the raster a patch sees the raster mirrored, without its edge
pixel being repeated, over and over where the raster is small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.locate import Window
from lcengine.models.predictor import Execution
from lcengine.models.spec import ModelSpec, Weights

INDEX = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class PatchLattice:
    """Square patches of `patch` pixels in steps of `stride`, merged by the weights of `window`."""

    patch: int
    stride: int
    window: Weights

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise InputError(f"patch is {self.patch}, expected 1 or more pixels")
        if not 0 < self.stride <= self.patch:
            raise InputError(
                f"patches of {self.patch} pixels in steps of {self.stride} leave pixels out; give "
                f"a stride of 1 to {self.patch}"
            )
        if self.window not in get_args(Weights):
            raise InputError(
                f"window is {self.window!r}, expected one of {', '.join(get_args(Weights))}"
            )

    @property
    def lead(self) -> int:
        """Pixels of a patch above and left of its centre, a square of `stride`."""
        return (self.patch - self.stride) // 2

    @property
    def support(self) -> tuple[int, int]:
        """Pixels of a patch that have a say, from and to, along an axis."""
        if self.window == "centre":
            return self.lead, self.lead + self.stride
        return 0, self.patch

    def start(self, number: int) -> int:
        """First pixel of a patch along an axis; below 0 before the raster."""
        return number * self.stride - self.lead

    def numbers(self, start: int, stop: int, size: int) -> range:
        """Patches that have a say on pixels start … stop of an axis of `size`."""
        begin, end = self.support
        first = (start + self.lead - end) // self.stride + 1
        last = min(-(-size // self.stride), -(-(stop + self.lead - begin) // self.stride))
        return range(max(first, 0), last)

    def weights(self) -> npt.NDArray[np.float32]:
        """What a pixel weighs by its place along one axis; a pixel's weight is the product of two.

        float32 (patch,): `hann` sin²(π(i + ½) / patch), `pyramid` min(i + ½, patch − i − ½), `mean`
        1, `centre` 1 in the centre and 0 elsewhere.
        """
        places = np.arange(self.patch) + 0.5
        if self.window == "hann":
            found = np.sin(np.pi * places / self.patch) ** 2
        elif self.window == "pyramid":
            found = np.minimum(places, self.patch - places)
        else:
            begin, end = self.support
            found = (begin < places) & (places < end)
        return found.astype(np.float32)


@dataclass(frozen=True)
class Tiling:
    """What is asked for beside what a network's own description says; None: what that says.

    `patch`, `stride`, `window`: another lattice; a patch without a stride is laid in steps of half
    of it. `exact`: probabilities must be those of the model on the whole raster at once; the window
    is then `centre`. `how` the network is run.
    """

    patch: int | None = None
    stride: int | None = None
    window: Weights | None = None
    exact: bool = False
    how: Execution | None = None

    def of(self, spec: ModelSpec) -> tuple[PatchLattice, Execution] | tuple[None, None]:
        """Lattice and execution of a model; None for a model without patches that overlap.

        Raises:
            InputError: The lattice cannot be, the model has none, or an exact one leaves seams.
        """
        if spec.stride is None:
            how = "batch, threads, precision, compile or device"
            unasked = Tiling()
            given = [
                how if name == "how" else name
                for name, value in vars(self).items()
                if value != getattr(unasked, name)
            ]
            if given:
                what = "single pixels" if spec.patch == 1 else "patches side by side"
                raise InputError(
                    f"{', '.join(given)} is given for a model of kind {spec.kind!r}, which judges "
                    f"{what}; leave it out: it is for networks"
                )
            return None, None
        if self.exact and self.window not in (None, "centre"):
            raise InputError(
                f"window is {self.window!r}, and an exact map takes 'centre'; leave one out"
            )
        patch, stride = spec.patch, spec.stride
        if self.patch is not None:
            patch, stride = self.patch, max(self.patch // 2, 1)
        if self.stride is not None:
            stride = self.stride
        window: Weights = "centre" if self.exact else self.window or spec.window
        found = PatchLattice(patch, stride, window)
        if self.exact:
            check_exact(spec, found)
        return found, self.how or Execution()


def check_exact(spec: ModelSpec, lattice: PatchLattice) -> None:
    """`InputError` where a map may differ from the model's answer on the whole raster."""
    step, lead, margin = spec.output_stride, lattice.lead, spec.margin
    if spec.placed or margin is None:
        why = (
            "answers depend on where its patches lie"
            if spec.placed
            else "each pixel's answer depends on the whole patch"
        )
        raise InputError(
            f"an exact map was asked for, and this model's {why} ({spec.kind}), so no merge gives "
            "what a whole raster would; leave --exact out, or train a model with a bounded margin "
            "(`lcengine models list`)"
        )
    if lattice.stride % step == 0 and lead % step == 0 and lead >= margin:
        return
    border = -(-margin // step) * step
    inner = (lattice.patch - 2 * border) // step * step
    # Twice the border and a stride that is a multiple leave no other patch.
    edge = lattice.patch if inner > 0 and (lattice.patch - inner) // 2 % step == 0 else None
    if edge is None:
        inner = max(inner, 4 * step)
        edge = inner + 2 * border
    raise InputError(
        f"an exact map was asked for, and patches of {lattice.patch} in steps of {lattice.stride} "
        f"are cut by {lead} pixels, where the model looks {margin} pixels far and its steps are "
        f"{step}: the stride and the cut must be multiples of {step}, the cut at least {margin}; "
        f"--patch {edge} --stride {inner} is exact"
    )


def seams(spec: ModelSpec, lattice: PatchLattice) -> str | None:
    """What a user should know of a map's seams before it is made, if anything."""
    if spec.placed or spec.margin is None:
        return (
            "this model's answers depend on where its patches lie: the map is the same for any "
            "tiles, but it is not what the whole raster at once would give"
        )
    if lattice.patch < 2 * spec.margin:
        return (
            f"patches of {lattice.patch} pixels are smaller than twice the {spec.margin} pixels "
            "that the model looks far: every pixel's answer knows a border of its patch"
        )
    return None


def unlike(spec: ModelSpec, lattice: PatchLattice) -> str | None:
    """What a user should know where a map's patches are not those that a model learned from.

    One that saw a border around every pixel has learned to; it may answer otherwise without.
    """
    if lattice.patch == spec.patch or not (spec.margin is None or spec.patch < 2 * spec.margin):
        return None
    return (
        f"patches of {lattice.patch} pixels are asked for, and this model's accuracy is known on "
        f"those of {spec.patch}: compare the map with a reference, or train on such patches"
    )


def reflected(start: int, stop: int, size: int) -> INDEX:
    """Raster pixels that stand at start … stop of an axis of `size` mirrored at its ends."""
    if size == 1:
        return np.zeros(stop - start, np.int64)
    turn = 2 * (size - 1)
    places = np.arange(start, stop) % turn
    return np.minimum(places, turn - places)


class Read(NamedTuple):
    """What is read at once for rows of patches: a part of the mirrored raster.

    `y0`, `x0`: of its upper-left pixel, below 0 before the raster. `window` of the raster has all
    it shows; `rows`, `columns`: places in the window. `patches`: upper-left pixels, row by row.
    """

    y0: int
    x0: int
    window: Window
    rows: INDEX
    columns: INDEX
    patches: tuple[tuple[int, int], ...]


def reads(lattice: PatchLattice, shape: tuple[int, int], tile: Tile, pixels: int) -> Iterator[Read]:
    """What to read for a tile of a raster of `shape`, about `pixels` of it at once.

    Patches come in the order of rows and columns of the raster's lattice.
    """
    down = lattice.numbers(tile.y0, tile.y0 + tile.height, shape[0])
    over = lattice.numbers(tile.x0, tile.x0 + tile.width, shape[1])
    left, columns = _axis(lattice, over, shape[1])
    wide = int(columns.max() - columns.min()) + 1
    # At least a row of patches: neighbours share pixels, which are then read again.
    fits = max(math.floor((pixels / wide - lattice.patch) / lattice.stride) + 1, 1)
    for first in range(0, len(down), fits):
        part = down[first : first + fits]
        top, rows = _axis(lattice, part, shape[0])
        window = Window(int(rows.min()), int(columns.min()), int(rows.max() - rows.min()) + 1, wide)
        yield Read(
            top,
            left,
            window,
            rows - window.y0,
            columns - window.x0,
            tuple((lattice.start(k), lattice.start(m)) for k in part for m in over),
        )


def _axis(lattice: PatchLattice, numbers: range, size: int) -> tuple[int, INDEX]:
    """First pixel of some patches along an axis, and the raster's pixels that they show."""
    start = lattice.start(numbers[0])
    return start, reflected(start, lattice.start(numbers[-1]) + lattice.patch, size)


def mirrored(values: npt.NDArray[T], read: Read) -> npt.NDArray[T]:
    """(…, y, x) of a read's window as its patches see it."""
    height, width = values.shape[-2:]
    rows, columns = read.rows, read.columns
    if len(rows) == height and len(columns) == width and rows[0] == 0 and columns[0] == 0:
        plain = (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all()
        if plain:
            return values
    return values[..., rows[:, None], columns]
