"""Where a map may be held against a reference so that no training pixel is among them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
from odc.geo.geom import Geometry

from lcengine import samples
from lcengine.crs import crs_name, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.inputs import address
from lcengine.labels.vectors import projected
from lcengine.locate import Window
from lcengine.plan import product_lattice
from lcengine.samples import areas
from lcengine.samples.blocks import Intervals, pixels_of
from lcengine.samples.spec import SPLITS, SampleSpec

_PLACED = re.compile(r"-?\d+/-?\d+")


@dataclass(frozen=True)
class SplitPixels:
    """The pixels of one split of a store of samples, at least the buffer away from other splits'.

    Those that lie wholly in its blocks shrunk by half the buffer; where samples are split by areas,
    those with their centre in an area of the split, and not too near to those that training gives
    way to. `run_id`: of the store. `crs`, `resolution`: of the pixels that blocks are counted in.
    """

    path: str
    run_id: str
    spec: SampleSpec
    crs: str
    resolution: float
    split: str

    def inside(self, grid: Grid, window: Window) -> npt.NDArray[np.bool_]:
        """(y, x) which pixels of a window they are."""
        if self.spec.areas is not None:
            area = replace(grid, aoi=_area(self, product_lattice(grid).crs))
            found = area.inside(*window)
            return np.ones((window.height, window.width), np.bool_) if found is None else found
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
        if self.spec.areas is None and found != self.crs:
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
    def from_json(cls, data: Mapping[str, Any]) -> SplitPixels:
        """Inverse of `to_json`."""
        return cls(**{**data, "spec": SampleSpec.from_json(data["spec"])})


@lru_cache(maxsize=4)
def _area(pixels: SplitPixels, crs: str) -> Geometry:
    """Of a split by areas, in the CRS of a map."""
    found = areas.area_of(pixels.spec, pixels.split, pixels.crs, pixels.resolution)
    series = gpd.GeoSeries([found], crs=pixels.crs)
    return Geometry(projected(series, pyproj.CRS.from_user_input(crs)).iloc[0], crs)


def split_pixels(path: str | os.PathLike[str], split: str) -> SplitPixels:
    """The pixels of a split; `InputError` for samples that are split neither by blocks nor areas.

    Blocks are those of one CRS: scenes without one, and groups of scenes, have none.
    """
    found = samples.open(path)
    found.split(split)  # names the splits there are
    spec = SampleSpec.from_json(found.facts["spec"])
    place = found.facts["place"]
    blocks = found.table["block"].unique()
    placed = spec.areas is not None or all(_PLACED.fullmatch(str(block)) for block in blocks)
    if spec.split == "random" or not placed or not (place["crs"] and place["resolution"]):
        raise InputError(
            f"{path} is split by {spec.split}, and not by areas or blocks of the grid of one CRS, "
            "so no pixels are those of a split alone; make samples with --split block or areas, or "
            "give --aoi"
        )
    run_id = found.facts["run_id"]
    return SplitPixels(address(path), run_id, spec, place["crs"], place["resolution"], split)
