"""The frozen plan of a label product: features ready to be burned, tile by tile."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

import lcengine
from lcengine.errors import InputError
from lcengine.grid import Grid, Tile
from lcengine.labels.burn import CONFLICTS, Burner, Conflict
from lcengine.labels.layers import Layer, prepare
from lcengine.legends import Legend
from lcengine.periods import Period
from lcengine.store import Variable, digest

FEATURES = "features.parquet"
_GROUP = 4096
"""Features that are read at once: neighbours, so that a tile needs few groups."""
_LEVEL = 16


@dataclass(frozen=True)
class LabelPlan:
    """Everything a tile of labels needs; the features lie beside the plan as GeoParquet.

    `table`: features on the grid along a Hilbert curve, with the box of each, so that a tile reads
    its neighbourhood alone. `report`: what was done to each layer. `tiles`: those that a feature
    reaches; the others stay unlabelled and are not written.
    """

    grid: Grid
    legend: Legend
    conflict: Conflict
    report: Mapping[str, Any]
    tiles: tuple[int, ...]
    table: bytes

    kind: ClassVar[str] = "labels"
    time_axis: ClassVar[tuple[Period, ...]] = ()

    @property
    def layout(self) -> Grid:
        """The product's grid."""
        return self.grid

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: features, grid, legend and package version."""
        return digest(self.to_json(), self.files())

    def variables(self) -> tuple[Variable, ...]:
        """`label`: codes of the legend."""
        found = self.legend
        return (Variable("label", str(found.dtype), found.nodata, found.title, legend=found),)

    def files(self) -> Mapping[str, bytes]:
        """The features."""
        return {FEATURES: self.table}

    def only(self, tiles: Sequence[int]) -> LabelPlan:
        """The plan of some of its tiles."""
        return replace(self, tiles=tuple(tiles))

    def burner(self, tile: Tile) -> Burner:
        """The features that reach into a tile."""
        bounds = shapely.bounds(_tile_boxes(self.grid, [tile]))[0]
        features = gpd.read_parquet(io.BytesIO(self.table), bbox=tuple(bounds.tolist()))
        return Burner(features, self.grid, self.legend, self.conflict)

    def to_json(self) -> dict[str, Any]:
        """The plan without its features, as JSON values."""
        return {
            "version": lcengine.__version__,
            "grid": self.grid.to_dict(),
            "legend": self.legend.to_json(),
            "conflict": self.conflict,
            "report": dict(self.report),
            "tiles": list(self.tiles),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], table: bytes) -> LabelPlan:
        """Inverse of `to_json` and `files`."""
        return cls(
            Grid.from_dict(data["grid"]),
            Legend.from_json(data["legend"]),
            data["conflict"],
            data["report"],
            tuple(data["tiles"]),
            table,
        )


def plan_labels(
    layers: Layer | Sequence[Layer],
    grid: Grid,
    *,
    legend: Legend | None = None,
    conflict: Conflict = "ignore",
) -> LabelPlan:
    """Freeze a label product: layers checked, coded, brought onto the grid and sorted by place.

    Arguments and errors as `rasterize`. Features are held in memory here, on workers only their
    compressed table and what one tile needs. `lcengine.jobs.run` carries it out.
    """
    if conflict not in CONFLICTS:
        raise InputError(f"conflict is {conflict!r}, expected one of {', '.join(CONFLICTS)}")
    given = [layers] if isinstance(layers, Layer) else layers
    features, found, report = prepare(given, grid, legend=legend)
    place = features.hilbert_distance(total_bounds=grid.bounds, level=_LEVEL)
    features = features.iloc[np.lexsort((features["order"], place))].reset_index(drop=True)
    table = io.BytesIO()
    features.to_parquet(
        table, index=False, compression="zstd", write_covering_bbox=True, row_group_size=_GROUP
    )
    tiles = _reached(shapely.bounds(features.geometry.to_numpy()), grid)
    if not tiles:
        raise InputError(
            "no feature meets the area of the grid, so there is nothing to label; check area and "
            "CRS"
        )
    return LabelPlan(grid, found, conflict, report, tiles, table.getvalue())


def _reached(bounds: npt.NDArray[np.float64], grid: Grid) -> tuple[int, ...]:
    """Tiles that a box (feature, 4) meets."""
    left, bottom, right, top = bounds.T
    tree = shapely.STRtree(np.asarray(shapely.box(left, bottom, right, top)))
    tiles = [tile for tile in grid.tiles() if grid.touches(tile)]
    met = np.unique(tree.query(_tile_boxes(grid, tiles))[0])
    return tuple(tiles[i].index for i in met.tolist())


def _tile_boxes(grid: Grid, tiles: Sequence[Tile]) -> npt.NDArray[Any]:
    """Tiles in the grid's CRS, two pixels larger on each side than they are."""
    margin = 2 * grid.resolution
    y0, x0, height, width = (
        np.array([getattr(tile, key) for tile in tiles], np.float64)
        for key in ("y0", "x0", "height", "width")
    )
    left = grid.transform.c + x0 * grid.resolution
    top = grid.transform.f - y0 * grid.resolution
    return np.asarray(
        shapely.box(
            left - margin,
            top - height * grid.resolution - margin,
            left + width * grid.resolution + margin,
            top + margin,
        )
    )
