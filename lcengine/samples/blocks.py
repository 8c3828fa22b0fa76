"""Splits by space: blocks of the CRS grid, and the patches that lie wholly inside them.

A block is a cell of a lattice through the origin of the CRS, so overlapping products agree on it.
A seeded hash gives it to train, val or test. Patches lie in their block shrunk by half the buffer
on every side, so two patches of different splits are a buffer apart or more.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from lcengine.crs import lonlat_box, resolve_crs
from lcengine.errors import AoiError, InputError
from lcengine.hashing import mixed
from lcengine.samples.source import Scene
from lcengine.samples.spec import SampleSpec

INDEX = npt.NDArray[np.int64]
_SNAP = 1e-6  # of a pixel: a corner this close to a pixel edge of the CRS grid lies on it
_SPLIT, _KEY = 1, 2  # what a hash is for


@dataclass(frozen=True)
class Axis:
    """Where patches may begin along one axis of a scene, ascending.

    `starts`: (n) first pixels. `blocks`: (n) the block that each lies in. `whole`: number of the
    scene's first pixel, counted from the origin of the CRS.
    """

    starts: INDEX
    blocks: INDEX
    whole: int


@dataclass(frozen=True)
class Lattice:
    """All patches that a scene may give: every start of `rows` with every one of `cols`.

    `placed`: blocks are those of the CRS grid. `space`: what the hashes of blocks begin with, and
    `place`: those of patches.
    """

    rows: Axis
    cols: Axis
    placed: bool
    space: int
    place: int

    def splits(self, spec: SampleSpec, rows: INDEX, cols: INDEX) -> npt.NDArray[np.uint8]:
        """(n) split of the patches that begin at positions of the two axes."""
        if spec.split == "random":
            parts = [self.rows.starts[rows] + self.rows.whole]
            parts += [self.cols.starts[cols] + self.cols.whole]
            return choose(spec, mixed(0, spec.seed, _SPLIT, self.place, *parts))
        blocks = self.rows.blocks[rows], self.cols.blocks[cols]
        return choose(spec, mixed(0, spec.seed, _SPLIT, self.space, *blocks))

    def keys(self, spec: SampleSpec, rows: INDEX, cols: INDEX) -> npt.NDArray[np.uint64]:
        """(n) hashes of patches, which say who is drawn, and in what order they are stored."""
        whole = self.rows.starts[rows] + self.rows.whole, self.cols.starts[cols] + self.cols.whole
        return mixed(0, spec.seed, _KEY, self.place, *whole)


def lattice(scene: Scene, spec: SampleSpec) -> Lattice:
    """The patches that a scene may give."""
    placed = spec.split == "block" and scene.crs is not None and not scene.group
    origin = _origin(scene) if scene.crs is not None else (0.0, 0.0)
    along = _in_blocks if placed else _everywhere
    rows, cols = (along(n, o, spec) for n, o in zip(scene.shape, origin, strict=True))
    space = f"crs {scene.crs}" if placed else f"group {scene.group or scene.name}"
    return Lattice(rows, cols, placed, number(space), number(f"scene {scene.name}"))


def _origin(scene: Scene) -> tuple[float, float]:
    """(row, column) of the scene's corner, in its pixels from the origin of the CRS."""
    a, b, c, d, e, f = scene.transform[:6]
    if b or d or a <= 0 or abs(a + e) > _SNAP * a:
        raise InputError(
            f"scene {scene.name} has transform {tuple(scene.transform)}, expected north up with "
            "square pixels; resample it"
        )
    return -f / a, c / a


def _in_blocks(size: int, origin: float, spec: SampleSpec) -> Axis:
    whole = math.floor(origin + _SNAP)
    fraction = origin - whole if origin - whole > _SNAP else 0.0
    first = math.ceil(spec.gap / 2 - fraction)
    last = math.floor(spec.edge - spec.gap / 2 - fraction) - spec.patch
    offsets = np.arange(first, last + 1, spec.step, dtype=np.int64)
    numbers = np.arange(whole // spec.edge, (whole + size) // spec.edge + 1, dtype=np.int64)
    starts = (numbers[:, None] * spec.edge + offsets[None, :] - whole).ravel()
    blocks = np.repeat(numbers, offsets.size)
    inside = (starts >= 0) & (starts <= size - spec.patch)
    return Axis(starts[inside], blocks[inside], whole)


def _everywhere(size: int, origin: float, spec: SampleSpec) -> Axis:
    """Patches from the scene's corner on: in one block, with areas in the cell they begin in."""
    starts = np.arange(0, size - spec.patch + 1, spec.step, dtype=np.int64)
    whole = math.floor(origin + _SNAP)
    blocks = np.zeros_like(starts) if spec.areas is None else (starts + whole) // spec.edge
    return Axis(starts, blocks, whole)


def choose(spec: SampleSpec, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """The split that a hash falls into."""
    train, val, test = spec.fractions
    cuts = np.array([train if val or test else 1.0, train + val if test else 1.0])
    return np.searchsorted(cuts, uniform(keys), side="right").astype(np.uint8)


@dataclass(frozen=True)
class Intervals:
    """Pixels of any raster along one axis, against the blocks of a spec.

    `blocks`: (n) the block that each has its middle in. `inside`: (n) whether each lies wholly in
    its block shrunk by half the buffer.
    """

    blocks: INDEX
    inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, spec: SampleSpec, low: npt.NDArray[np.float64], size: float) -> Intervals:
        """From where pixels begin and how long they are, in pixels of the samples.

        Counted as blocks are: from the origin of the CRS to the east, or to the south.
        """
        blocks = np.floor((low + size / 2) / spec.edge)
        start = low - blocks * spec.edge
        near = start >= spec.gap / 2 - _SNAP
        far = start + size <= spec.edge - spec.gap / 2 + _SNAP
        return cls(blocks.astype(np.int64), near & far)


def pixels_of(
    spec: SampleSpec, crs: str, split: int, rows: Intervals, cols: Intervals
) -> npt.NDArray[np.bool_]:
    """(row, column) where pixels are a split's alone: those of other splits are a buffer away.

    Of samples of `spec` whose scenes lie in `crs` and are cut into blocks of its grid.
    """
    space = number(f"crs {crs}")
    keys = mixed(0, spec.seed, _SPLIT, space, rows.blocks[:, None], cols.blocks[None, :])
    return np.asarray((choose(spec, keys) == split) & rows.inside[:, None] & cols.inside[None, :])


def number(text: str) -> int:
    """A text as 63 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def uniform(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Hashes as numbers above 0 and below 1."""
    return np.asarray(((keys >> np.uint64(12)) + 0.5) * 2.0**-52)


def check_scenes(scenes: Sequence[Scene], spec: SampleSpec) -> None:
    """`InputError` where blocks cannot keep scenes apart: neighbours on different grids."""
    if spec.split != "block":
        return
    placed: dict[str, list[Scene]] = defaultdict(list)
    for scene in scenes:
        if scene.crs is not None and not scene.group:
            placed[scene.crs].append(scene)
    for crs, members in placed.items():
        sizes = [abs(scene.transform[0]) for scene in members]
        if max(sizes) - min(sizes) > 1e-9 * max(sizes):
            raise InputError(
                f"scenes in {crs[:40]} have pixels of {min(sizes):g} and {max(sizes):g}, so they "
                "share no blocks; make samples of one pixel size at a time"
            )
    if len(placed) > 1:
        _check_apart([scene for members in placed.values() for scene in members], spec)


def _check_apart(scenes: Sequence[Scene], spec: SampleSpec) -> None:
    boxes = np.array([_footprint(scene, spec) for scene in scenes])
    tree = shapely.STRtree(boxes)
    for i, j in tree.query(boxes, predicate="intersects").T:
        if scenes[i].crs != scenes[j].crs:
            raise InputError(
                f"scenes {scenes[i].name} and {scenes[j].name} lie side by side in different CRSs, "
                "so no blocks keep their patches apart; reproject them to one"
            )


def _footprint(scene: Scene, spec: SampleSpec) -> shapely.Polygon:
    """Box in degrees, grown by half the buffer."""
    crs = resolve_crs(scene.crs or "")
    a, _, left, _, _, top = scene.transform[:6]
    height, width = scene.shape
    grow = a * spec.gap / 2
    bounds = (left - grow, top - height * a - grow, left + width * a + grow, top + grow)
    try:
        return shapely.box(*lonlat_box(bounds, crs))
    except AoiError:  # pixels of an image without a place on Earth: nobody's neighbour
        return shapely.Polygon()
