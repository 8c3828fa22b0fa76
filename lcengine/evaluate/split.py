"""Where a map may be held against a reference so that no training pixel is among them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import samples
from lcengine.crs import crs_name, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.locate import Window
from lcengine.plan import product_lattice
from lcengine.samples.blocks import Intervals, pixels_of
from lcengine.samples.spec import SPLITS, SampleSpec

_PLACED = re.compile(r"-?\d+/-?\d+")


@dataclass(frozen=True)
class SplitBlocks:
    """The blocks of one split of a store of samples, each shrunk by half the buffer.

    `run_id`: of the store. `crs`, `resolution`: of the pixels that blocks are counted in.
    """

    path: str
    run_id: str
    spec: SampleSpec
    crs: str
    resolution: float
    split: str

    def inside(self, grid: Grid, window: Window) -> npt.NDArray[np.bool_]:
        """(y, x) the pixels of a window that lie wholly in these blocks."""
        size = grid.resolution / self.resolution
        left, top = grid.transform.c / self.resolution, -grid.transform.f / self.resolution
        rows = top + (window.y0 + np.arange(window.height, dtype=np.float64)) * size
        cols = left + (window.x0 + np.arange(window.width, dtype=np.float64)) * size
        return pixels_of(
            self.spec,
            self.crs,
            SPLITS.index(self.split),
            Intervals.of(self.spec, rows, size),
            Intervals.of(self.spec, cols, size),
        )

    def check(self, grid: Grid) -> None:
        """`InputError` where a map has another CRS, in which blocks are no rectangles."""
        found = product_lattice(grid).crs
        if found != self.crs:
            raise InputError(
                f"the map is in {crs_name(grid.crs)}, the blocks of {self.path} in "
                f"{crs_name(resolve_crs(self.crs))}; evaluate a map in the CRS of the samples"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "path": self.path,
            "run_id": self.run_id,
            "spec": self.spec.to_json(),
            "crs": self.crs,
            "resolution": self.resolution,
            "split": self.split,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitBlocks:
        """Inverse of `to_json`."""
        return cls(**{**data, "spec": SampleSpec.from_json(data["spec"])})


def split_blocks(path: str | os.PathLike[str], split: str) -> SplitBlocks:
    """The blocks of a split; `InputError` for samples that are not split by blocks of a CRS."""
    found = samples.open(path)
    found.split(split)  # names the splits there are
    spec = SampleSpec.from_json(found.facts["spec"])
    place = found.facts["place"]
    placed = all(_PLACED.fullmatch(str(block)) for block in found.table["block"].unique())
    if spec.split != "block" or not placed or not (place["crs"] and place["resolution"]):
        raise InputError(
            f"{path} is split by {spec.split}, and not by blocks of the grid of one CRS, so no "
            "area is that of a split alone; make samples with --split block, or give --aoi"
        )
    run_id = found.facts["run_id"]
    return SplitBlocks(str(path), run_id, spec, place["crs"], place["resolution"], split)
