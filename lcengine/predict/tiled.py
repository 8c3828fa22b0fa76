"""A tile of a map whose patches overlap: cut, run through the network, merged.

Rows of patches are read one after the other, batches are filled across them, and rows of the tile
are painted as soon as no patch to come has a say on them. So a task holds one read, a few batches
and the sums of one row of patches, whatever the raster's size.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.inputs import Arrays, observed
from lcengine.kernels import merge
from lcengine.kernels.merge import Overlap
from lcengine.locate import Window
from lcengine.models.predictor import Execution, Network, Patches
from lcengine.predict.lattice import PatchLattice, Read, mirrored, reads
from lcengine.predict.maps import Answer, MapPlan, Maps

BYTES = 2**27
"""Of the pixels read at once, by the first attempt; a row of patches is read in any case."""

FLOAT = npt.NDArray[np.float32]


def paint(plan: MapPlan, tile: Tile, maps: Maps, attempt: int = 0) -> int:
    """Paint a tile with what a network says; returns the bytes read."""
    network = cast("Network", plan.predictor)
    assert plan.lattice is not None
    assert plan.how is not None
    cut = Cut(plan, tile, plan.lattice, plan.how, BYTES >> attempt)
    sums = Sums(plan, tile, cut, maps)
    for proba in network.run(cut.batches(), plan.how):
        sums.add(cut.places.popleft(), proba)
    sums.finish()
    return cut.bytes_read


class Cut:
    """Batches of a tile's patches, and what they show.

    `batches` may be consumed by another thread: `places` (parts of patches that have a say on the
    tile, by batch) and the rows of `valid` (tile's y, x) are there before the batch that has them.
    """

    def __init__(
        self, plan: MapPlan, tile: Tile, lattice: PatchLattice, how: Execution, most: int
    ) -> None:
        self.plan = plan
        self.tile = tile
        self.lattice = lattice
        self.how = how
        each = sum(math.prod(e.lead) * np.dtype(e.dtype).itemsize for e in plan.spec.inputs)
        self.pixels = max(most // each, 1)
        self.valid = np.zeros((tile.height, tile.width), np.bool_)
        self.places: deque[list[Overlap]] = deque()
        self.bytes_read = 0

    def batches(self) -> Iterator[Patches]:
        """Patches in their order on the raster, those without an observed pixel left out."""
        places: list[Overlap] = []
        arrays, valid = self._empty()
        for read in reads(self.lattice, self.plan.shape, self.tile, self.pixels):
            found, seen = self._read(read)
            for y, x in read.patches:
                part = self.part(y, x)
                top, left = y - read.y0, x - read.x0
                own = np.s_[top : top + self.lattice.patch, left : left + self.lattice.patch]
                if not self._asked(seen[own], part):
                    continue
                for name, values in arrays.items():
                    values[len(places)] = found[name][0][(..., *own)]
                valid[len(places)] = seen[own]
                places.append(part)
                if len(places) == self.how.batch:
                    self.places.append(places)
                    yield arrays, valid
                    places = []
                    arrays, valid = self._empty()
        if places:
            self.places.append(places)
            count = len(places)
            yield {name: values[:count] for name, values in arrays.items()}, valid[:count]

    def part(self, y: int, x: int) -> Overlap:
        """What of a patch has a say on the tile, and where."""
        begin, end = self.lattice.support
        tile = self.tile
        top, left = max(begin, tile.y0 - y), max(begin, tile.x0 - x)
        bottom = min(end, tile.y0 + tile.height - y)
        right = min(end, tile.x0 + tile.width - x)
        return Overlap(top, left, y + top - tile.y0, x + left - tile.x0, bottom - top, right - left)

    @staticmethod
    def _asked(seen: npt.NDArray[np.bool_], part: Overlap) -> bool:
        """Whether a patch has anything to say."""
        own = seen[part.top : part.top + part.height, part.left : part.left + part.width]
        return bool(own.any())

    def _empty(self) -> tuple[Arrays, npt.NDArray[np.bool_]]:
        """Room for a batch that nothing else holds."""
        count, patch = self.how.batch, self.lattice.patch
        inputs = self.plan.spec.inputs
        arrays = {e.name: np.empty((count, *e.lead, patch, patch), e.dtype) for e in inputs}
        return arrays, np.empty((count, patch, patch), np.bool_)

    def _read(self, read: Read) -> tuple[Arrays, npt.NDArray[np.bool_]]:
        """What patches see, (1, [time,] band, y, x), and where anything is observed."""
        found = self.plan.inputs.read(read.window)
        self.bytes_read += sum(values.nbytes for values in found.values())
        seen = mirrored(observed(self.plan.spec.inputs, found)[0], read)
        tile = self.tile
        top, bottom = max(tile.y0, read.y0), min(tile.y0 + tile.height, read.y0 + seen.shape[0])
        left = tile.x0 - read.x0
        self.valid[top - tile.y0 : bottom - tile.y0] = seen[
            top - read.y0 : bottom - read.y0, left : left + tile.width
        ]
        return {name: mirrored(values, read) for name, values in found.items()}, seen


class Sums:
    """Running sums of the rows of a tile that patches to come may still have a say on."""

    def __init__(self, plan: MapPlan, tile: Tile, cut: Cut, maps: Maps) -> None:
        self.plan = plan
        self.tile = tile
        self.valid = cut.valid
        self.maps = maps
        self.patch = cut.lattice.patch
        self.weights = cut.lattice.weights()
        begin, end = cut.lattice.support
        rows = min(end - begin, tile.height)
        self.sums = np.zeros((len(plan.spec.legend.classes), rows, tile.width), np.float32)
        self.total = np.zeros((rows, tile.width), np.float32)
        self.top = 0
        """Row of the tile that the sums begin with."""

    def add(self, places: list[Overlap], proba: FLOAT) -> None:
        """Add a batch of patches (n, class, patch, patch), in the raster's order."""
        expected = (len(places), len(self.sums), self.patch, self.patch)
        if proba.shape != expected or proba.dtype != np.float32:
            raise InputError(
                f"the model gave {proba.dtype} probabilities {proba.shape}, expected float32 "
                f"{expected} for its legend {self.plan.spec.legend.name}; train it anew"
            )
        for part, values in zip(places, proba, strict=True):
            self._settle(part.y)
            merge.add(
                np.ascontiguousarray(values),
                self.weights,
                part._replace(y=part.y - self.top),
                self.sums,
                self.total,
            )

    def finish(self) -> None:
        """Paint what is left."""
        self._settle(self.tile.height)

    def _settle(self, row: int) -> None:
        """Paint all rows above `row` of the tile: no patch to come has a say on them."""
        done = min(row - self.top, len(self.total), self.tile.height - self.top)
        if done > 0:
            out = np.empty((len(self.sums), done, self.tile.width), np.float32)
            merge.means(self.sums, self.total, out)
            window = Window(self.tile.y0 + self.top, self.tile.x0, done, self.tile.width)
            own = self.valid[self.top : self.top + done]
            self.maps.paint(Answer(window, out, own))
            merge.scroll(self.sums, self.total, row - self.top)
        self.top = max(self.top, row)
