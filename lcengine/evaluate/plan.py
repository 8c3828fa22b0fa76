"""A map beside a reference, as a product that the tile engine makes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from odc.geo.geom import Geometry

import lcengine
from lcengine.aoi import LONLAT, Aoi, polygonal, repair
from lcengine.crs import densify, project
from lcengine.errors import InputError
from lcengine.evaluate.legends import match
from lcengine.evaluate.proba import Confidence, stored_names
from lcengine.evaluate.raster import ClassRaster, ClassReader, grid_of
from lcengine.evaluate.split import SplitPixels
from lcengine.grid import Grid
from lcengine.inputs import address
from lcengine.labels.coarse.maps import open_classes
from lcengine.labels.coarse.plan import version_of
from lcengine.legends import Entry, Legend
from lcengine.locate import Window
from lcengine.periods import Period
from lcengine.store import Variable, digest

AGREE: Final = 0
DIFFER: Final = 1
UNMAPPED: Final = 2

DISAGREEMENT = Legend(
    "disagreement",
    "Map against reference",
    (
        Entry(AGREE, "agree", "#d9d9d9"),
        Entry(DIFFER, "differ", "#d7191c"),
        Entry(UNMAPPED, "not mapped", "#2b83ba"),
    ),
    "lcengine evaluate",
)


@dataclass(frozen=True)
class EvaluatePlan:
    """A map and a reference that workers open themselves, so their paths must be theirs too.

    `grid`: of the map, with the polygon outside of which nothing counts. `split`: outside of
    whose pixels nothing counts either. `proba`: variables of the map with the probability of each
    of its classes, if it has them.
    """

    mapped: ClassRaster
    reference: ClassRaster
    grid: Grid
    split: SplitPixels | None
    proba: tuple[str, ...]
    tiles: tuple[int, ...]

    kind: ClassVar[str] = "evaluate"
    time_axis: ClassVar[tuple[Period, ...]] = ()

    @property
    def legend(self) -> Legend:
        """The classes that are compared."""
        return self.mapped.crosswalk.target

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the reference's classes that are none of `legend`."""
        crosswalk = self.reference.crosswalk
        none = {code for code, to in crosswalk.pairs if to is None}
        return tuple(entry.name for entry in crosswalk.source.classes if entry.code in none)

    @property
    def layout(self) -> Grid:
        """The product's grid."""
        return self.grid

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: both rasters, where they are compared, package version."""
        return digest(self.to_json())

    def variables(self) -> tuple[Variable, ...]:
        """`disagreement`, and what the reference says where the map does not."""
        own, legend = DISAGREEMENT, self.legend
        text = "class of the reference where the map has another or none"
        return (
            Variable("disagreement", str(own.dtype), own.nodata, own.title, legend=own),
            Variable("expected", str(legend.dtype), legend.nodata, text, legend=legend),
        )

    def files(self) -> Mapping[str, bytes]:
        """None: both stay where they are."""
        return {}

    def only(self, tiles: Sequence[int]) -> EvaluatePlan:
        """The plan of some of its tiles."""
        return replace(self, tiles=tuple(tiles))

    @cached_property
    def readers(self) -> tuple[ClassReader, ClassReader]:
        """The map and the reference; `InputError` where one is another since."""
        return ClassReader(self.mapped, self.grid), ClassReader(self.reference, self.grid)

    @cached_property
    def confidence(self) -> Confidence | None:
        """The map's probabilities, if it has them."""
        return Confidence(self.mapped.path, self.proba) if self.proba else None

    def counted(self, window: Window) -> npt.NDArray[np.bool_] | None:
        """Where pixels count at all; None: everywhere."""
        masks = [self.grid.inside(*window)]
        if self.split is not None:
            masks.append(self.split.inside(self.grid, window))
        there = [mask for mask in masks if mask is not None]
        return np.asarray(np.logical_and.reduce(there)) if there else None

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "package": lcengine.__version__,
            "legend": self.legend.to_json(),
            "mapped": self.mapped.to_json(),
            "reference": self.reference.to_json(),
            "grid": self.grid.to_dict(),
            "split": None if self.split is None else self.split.to_json(),
            "proba": list(self.proba),
            "tiles": list(self.tiles),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvaluatePlan:
        """Inverse of `to_json`."""
        legend = Legend.from_json(data["legend"])
        split = data["split"]
        return cls(
            ClassRaster.from_json(data["mapped"], legend),
            ClassRaster.from_json(data["reference"], legend),
            Grid.from_dict(data["grid"]),
            None if split is None else SplitPixels.from_json(split),
            tuple(data["proba"]),
            tuple(data["tiles"]),
        )


def plan_evaluation(
    mapped: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    legend: Legend | None = None,
    map_legend: Legend | None = None,
    crosswalk: str | Mapping[str, str] | None = None,
    split: SplitPixels | None = None,
    aoi: Aoi | None = None,
) -> EvaluatePlan:
    """Freeze the comparison of a map with a reference for `lcengine.jobs.run`.

    Args:
        mapped: A product with a variable `label`, or a GeoTIFF of codes; its pixels are compared.
        reference: Likewise; of another grid the pixel nearest to each centre is taken.
        legend: Classes of a reference that is a GeoTIFF, by default its own colour table.
        map_legend: Likewise of the map.
        crosswalk: See `lcengine.evaluate.legends.match`.
        split: Compare the pixels of a split of samples alone, see `split.split_pixels`.
        aoi: Compare inside of it alone.

    Raises:
        InputError: A path is no map of classes, legends have no like classes, or the reference,
            the area or the samples do not lie where the map does.
    """
    grid = _within(grid_of(mapped), aoi)
    _, own = open_classes(mapped, map_legend)
    _, other = open_classes(reference, legend)
    matched = match(own, other, crosswalk)
    if split is not None:
        split.check(grid)
    tiles = tuple(tile.index for tile in grid.tiles() if grid.touches(tile))
    if not tiles:
        raise InputError(f"the area meets no part of {os.fspath(mapped)}; give one inside the map")
    plan = EvaluatePlan(
        ClassRaster(address(mapped), version_of(address(mapped)), matched.mapped),
        ClassRaster(address(reference), version_of(address(reference)), matched.reference),
        grid,
        split,
        stored_names(address(mapped), matched.mapped),
        tiles,
    )
    _ = plan.readers  # refuses what cannot be compared before anything runs
    return plan


def _within(grid: Grid, aoi: Aoi | None) -> Grid:
    """The grid, with what its own polygon and the area have in common."""
    if aoi is None:
        return grid
    polygon = project(densify(aoi.geometry.geom), LONLAT, grid.crs)
    if grid.aoi is not None:
        polygon = repair(polygon).intersection(grid.aoi.geom)
    found = polygonal(repair(polygon))
    if found is None:
        raise InputError("the area and the polygon of the map have nothing in common; give another")
    return replace(grid, aoi=Geometry(found, grid.crs))
