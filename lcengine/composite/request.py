"""A composite as a user asks for it: source, area, recipe. It becomes a plan by searching."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from lcengine.aoi import Aoi
from lcengine.catalog import Query, Search, parse_interval
from lcengine.composite.planning import CompositePlan, plan_composite, sensor_of
from lcengine.composite.spec import AUTO, CompositeSpec
from lcengine.crs import auto_crs, is_pixel_crs
from lcengine.errors import InputError, NoItemsError
from lcengine.grid import Grid
from lcengine.items import Item, Items
from lcengine.kernels.methods import FARTHEST
from lcengine.locate import SourceGrid
from lcengine.masks import preset
from lcengine.plan import extent, product_lattice
from lcengine.sensors import registry

METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class CompositeRequest:
    """What to composite, where from and onto which pixels.

    `query`: source and filters (its bbox is set by the area). `aoi`: None means the union of the
    items, for local catalogues. `crs`: `auto` is the most frequent item CRS. `resolution`: pixel
    size in units of the CRS, by default the finest of the bands. `offset`, `signer`,
    `allow_hosts`: see `lcengine.search`.
    """

    query: Query
    spec: CompositeSpec
    aoi: Aoi | None = None
    crs: str = "auto"
    resolution: float | None = None
    tile: int | None = None
    block: int | None = None
    offset: float | None = None
    signer: str | None = None
    allow_hosts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Identity of the request: an equal one resumes, a different one is refused."""
        return {
            **self.query.to_json(),
            "aoi": None if self.aoi is None else self.aoi.geometry.wkt,
            "crs": self.crs,
            "resolution": self.resolution,
            "tile": self.tile,
            "offset": self.offset,
            "signer": self.signer,
            "allow_hosts": list(self.allow_hosts),
            **self.spec.to_json(),
        }

    def plan(self) -> CompositePlan:
        """Search, settle the grid and freeze the plan. Raises what these raise."""
        items, grid = self.items_and_grid()
        start, end = parse_interval(self.query.datetime)
        times = [item.datetime for item in items]
        last = end - dt.timedelta(microseconds=1) if end else max(times)
        plan = plan_composite(
            items, grid, self.spec, block=self.block, interval=(start or min(times), last)
        )
        if not len(plan.reads.index):  # their boxes in degrees are larger than their rasters
            raise NoItemsError(
                f"none of the {len(items)} items found in {self.query} has pixels in the area; "
                "take a larger or another one"
            )
        return plan

    def items_and_grid(self) -> tuple[Items, Grid]:
        """The items and the grid of the product, whose extent may exceed the AOI's box."""
        search = Search(
            self.query, offset=self.offset, signer=self.signer, allow_hosts=self.allow_hosts
        )
        if self.aoi is None:
            return self._union(search)
        searched = _grown(self.aoi.bounds, _halo(self.spec))
        items = search.items(searched)
        found = sensor_of(items)
        spec = self.spec.resolved(found)
        code = self.crs
        if code == "auto":
            code = f"EPSG:{auto_crs(self.aoi.bounds, items.epsgs)}"
        grid = Grid.from_aoi(
            self.aoi,
            crs=code,
            resolution=self.resolution or _finest(spec, items),
            tile=self.tile,
            anchor=found.anchor,
        )
        wanted = _same_side(searched, grid.lonlat_bounds(_halo(spec)))
        if not _holds(searched, wanted):
            items = search.items(wanted)
        return items, grid

    def _union(self, search: Search) -> tuple[Items, Grid]:
        """Grid over all items; for a whole public archive that would be the globe."""
        if self.query.is_remote:
            raise InputError(
                f"{self.query.shown} is not a local catalogue and no area is given; "
                "state one with --bbox west,south,east,north or --aoi file.geojson"
            )
        items = search.items(None)
        found = sensor_of(items)
        spec = self.spec.resolved(found)
        code = self.crs
        unplaced = sorted({item.crs for item in items if is_pixel_crs(item.crs)})
        if code == "auto" and unplaced:
            if len({item.crs for item in items}) > 1:
                raise InputError(
                    f"{self.query.shown} has {len(unplaced)} images without a CRS among its "
                    f"{len(items)}, which share no grid; take one at a time, or georeference them"
                )
            code = unplaced[0]
        elif code == "auto":
            code = f"EPSG:{auto_crs(_union_bounds(items), items.epsgs)}"
        anchor = found.anchor
        resolution = self.resolution or _finest(spec, items)
        probe = Grid.from_bounds(0.0, 0.0, resolution, resolution, code, resolution, 16, anchor)
        lattice = product_lattice(probe)
        sources = {SourceGrid.of(item.asset(spec.bands[0])): item for item in items}
        boxes = [_placed(item, extent(source, lattice), code) for source, item in sources.items()]
        left = lattice.left + min(box[1] for box in boxes) * lattice.dx
        right = lattice.left + max(box[3] for box in boxes) * lattice.dx
        top = lattice.top - min(box[0] for box in boxes) * lattice.dy
        bottom = lattice.top - max(box[2] for box in boxes) * lattice.dy
        grid = Grid.from_bounds(left, bottom, right, top, code, resolution, self.tile, anchor)
        return items, grid


def _finest(spec: CompositeSpec, items: Items) -> float:
    """Finest pixel size of the bands."""
    return min(float(items[0].asset(band).transform[0]) for band in spec.bands)


def _halo(spec: CompositeSpec) -> float:
    """Metres around the area that masks look at; the most of all sensors before one is known."""
    auto = (entry.mask for entry in registry().values())
    names = auto if spec.mask == AUTO else (spec.mask,)
    beyond = FARTHEST if spec.scores_distance else 0.0
    return max(recipe.reach + beyond if recipe else 0.0 for recipe in map(preset, names))


def _grown(
    box: tuple[float, float, float, float], metres: float
) -> tuple[float, float, float, float]:
    """A lon/lat box grown by metres on every side, kept on the globe."""
    west, south, east, north = box
    dy = metres / METRES_PER_DEGREE
    dx = dy / max(0.01, math.cos(math.radians(max(abs(south), abs(north)))))
    return (max(west - dx, -180), max(south - dy, -90), min(east + dx, 180), min(north + dy, 90))


def _same_side(
    searched: tuple[float, float, float, float], wanted: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """`wanted`, or its part on the AOI's side where it meets the antimeridian.

    An extent that touches 180° has a box around the whole globe; searching that would fetch all
    items of a latitude.
    """
    if wanted[2] - wanted[0] < 350:
        return wanted
    return (searched[0], wanted[1], searched[2], wanted[3])


def _holds(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[2] >= inner[2]
        and outer[3] >= inner[3]
    )


def _placed(item: Item, box: tuple[int, int, int, int], code: str) -> tuple[int, int, int, int]:
    """`box`, the extent of an item in the product's CRS; `InputError` where it has none."""
    if box[0] == box[2]:
        raise InputError(
            f"item {item.id} in {item.crs} lies where {code} has no coordinates; "
            "state an area with --bbox or --aoi, or another --crs"
        )
    return box


def _union_bounds(items: Items) -> tuple[float, float, float, float]:
    boxes = [item.bbox for item in items]
    return (
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    )
