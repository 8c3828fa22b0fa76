"""The cube: items as one lazy `xarray.DataArray`, through stackstac with our reader."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
import stackstac
import xarray as xr

from lcengine import masks, reader
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.items import Access, Asset, GroupBy, Item, Items, check_items
from lcengine.kernels.methods import DISTANCE, FARTHEST
from lcengine.locate import Lattice, Locator, SourceGrid, Window
from lcengine.plan import ReadPlan, extent, plan_reads
from lcengine.sensors import sensor
from lcengine.sensors.base import QUANTITIES, Kind

CLEAR = "clear"
"""Name of the band that `mask=` adds: 1 where an observation is clear, else 0."""


def load(
    items: Items,
    grid: Grid,
    bands: Sequence[str],
    *,
    mask: str | None = None,
    groupby: GroupBy = "overpass",
    resampling: str = "nearest",
    chunks: int | None = None,
) -> xr.DataArray:
    """A lazy cube (time, band, y, x) on exactly `grid`.

    int16 reflectance * 10000, backscatter in dB * 100 or numbers, as `scale_factor` and `units`
    say, nodata -32768; the cube's name is the kind of its bands. x and y are pixel centres. `time`
    has one entry per item that reaches the grid, ordered by observation, with the coordinates `id`,
    `platform`, `observation` (items of one overpass share a number) and `began` (when that
    overpass did); the attribute `sensor` tells `composite` what it takes where nobody says it.
    Pixels outside the grid's polygon are nodata. `mask`: a preset of `lcengine.masks`, or `auto`
    for the sensor's own, which the command line takes; it adds the band `clear`, computed on the
    mask's native grid. With it, `bands` may name `cloud_distance`, metres to the next cloud or
    shadow (at most 3000), for the best available pixel. `chunks`: edge in pixels, by default the
    grid's tile. A file that cannot be read raises `ReadError` on computing.
    """
    check_items(items)
    if not len(items):
        raise InputError("there are no items to load; search first")
    if mask == "auto":
        mask = sensor(items[0].sensor).mask
    recipe = masks.preset(mask) if mask is not None else None
    if DISTANCE in bands and recipe is None:
        raise InputError(f"the band {DISTANCE!r} needs a mask; pass mask= as well")
    whole = plan_reads(
        items,
        grid,
        # A text is refused there.
        bands if isinstance(bands, str) else [band for band in bands if band != DISTANCE],
        mask=mask or "none",
        groupby=groupby,
        resampling=resampling,
        beyond=FARTHEST if DISTANCE in bands else 0.0,
    )
    plan = whole.reaching()
    if not len(plan.items):
        raise InputError(
            f"none of the {len(items)} items reaches the grid {grid.bounds} in {plan.lattice.crs}; "
            "search with the grid's own area"
        )
    names = [*bands, CLEAR] if recipe else list(bands)
    kind = _kind(items, [band for band in bands if band != DISTANCE])
    cube = _cut(_stack(plan, names, chunks or grid.tile), grid).rename(kind)
    began = dict(zip(whole.observation, whole.began, strict=True))
    cube = cube.assign_coords(began=("time", _times(began[n] for n in plan.observation)))
    if recipe is not None:
        cube = _resolve_clear(cube, recipe, plan.observation)
    cube.attrs.update(
        scale_factor=QUANTITIES[kind].scale,
        add_offset=0.0,
        _FillValue=int(reader.NODATA),
        units=QUANTITIES[kind].units,
    )
    sensors = {item.sensor for item in items}
    if len(sensors) == 1:
        cube.attrs["sensor"] = sensors.pop()
    return cube.rio.write_crs(grid.crs_wkt)  # type: ignore[no-any-return]


def _stack(plan: ReadPlan, names: list[str], chunks: int) -> xr.DataArray:
    grid = plan.grid
    raw = stackstac.stack(
        [_pseudo_item(plan, item, names) for item in plan.items],
        assets=names,
        epsg=_epsg(grid),
        resolution=grid.resolution,
        bounds=grid.bounds,
        snap_bounds=False,
        xy_coords="center",
        dtype=np.dtype("int16"),
        fill_value=np.int16(reader.NODATA),
        rescale=False,
        sortby_date=False,
        properties=False,
        band_coords=False,
        chunksize=(1, 1, chunks, chunks),
        errors_as_nodata=(),
        reader=Reader,
    )
    height, width = grid.shape
    return xr.DataArray(
        raw.data.rechunk((-1, -1, chunks, chunks)),
        dims=("time", "band", "y", "x"),
        coords={
            "time": _times(item.datetime for item in plan.items),
            "band": names,
            "y": grid.y(np.arange(height)),
            "x": grid.x(np.arange(width)),
            "id": ("time", [item.id for item in plan.items]),
            "platform": ("time", [item.platform for item in plan.items]),
            "observation": ("time", list(plan.observation)),
        },
    )


def _kind(items: Items, bands: Sequence[str]) -> Kind:
    """What the bands are; reflectance where only masks are asked for."""
    kinds = sorted({sensor(name).kind_of(bands) for name in {i.sensor for i in items} if bands})
    if len(kinds) > 1:
        raise InputError(
            f"the items are of several kinds ({', '.join(kinds)}), which have no scale in common; "
            "load them one sensor at a time"
        )
    return kinds[0] if kinds else "reflectance"


def _times(moments: Iterable[dt.datetime]) -> npt.NDArray[np.datetime64]:
    """UTC as xarray has it."""
    return np.array([moment.replace(tzinfo=None) for moment in moments], "M8[ns]")


def _epsg(grid: Grid) -> int:
    """What stackstac is told: it only compares codes, so any will do for a CRS without one."""
    return grid.epsg or 3857


def _pseudo_item(plan: ReadPlan, item: Item, names: list[str]) -> dict[str, Any]:
    """An item as stackstac wants it: its addresses carry the whole contract of an asset.

    stackstac only asks where an asset lies (to skip chunks); the reader knows the rest.
    """
    assets = {}
    for name in names:
        masking = name in (CLEAR, DISTANCE)
        found = plan.mask_assets(item) if masking else (item.asset(name),)
        y0, x0, y1, x1 = extent(SourceGrid.of(found[0]), plan.lattice)
        lat = plan.lattice
        west, east = lat.left + x0 * lat.dx, lat.left + x1 * lat.dx
        south, north = lat.top - y1 * lat.dy, lat.top - y0 * lat.dy
        address = {
            "assets": [asdict(asset) for asset in found],
            "access": asdict(plan.items.access),
            "mask": plan.mask if masking else None,
            "distance": name == DISTANCE,
            "resampling": plan.resampling,
            "lattice": asdict(plan.lattice),
        }
        assets[name] = {
            "href": json.dumps(address),
            "proj:epsg": _epsg(plan.grid),
            "proj:bbox": [west, south, east, north],
        }
    return {
        "id": item.id,
        "properties": {"datetime": item.datetime.isoformat()},
        "bbox": list(item.bbox),
        "assets": assets,
    }


class Reader:
    """stackstac's reader protocol on top of `lcengine.reader`: exact, tile-independent pixels.

    `url` is the JSON that `load` wrote, so a reader is self-contained and pickles as its address.
    """

    def __init__(self, *, url: str, **_: object) -> None:
        self.url = url
        address = json.loads(url)
        access = address["access"]
        self.assets = tuple(
            Asset(**{**a, "transform": tuple(a["transform"]), "shape": tuple(a["shape"])})
            for a in address["assets"]
        )
        self.access = Access(access["local"], tuple(access["hosts"]), access["signer"])
        self.lattice = Lattice(**address["lattice"])
        self.resampling: reader.Resampling = address["resampling"]
        self.recipe = masks.preset(address["mask"]) if address["mask"] else None
        self.distance = bool(address["distance"])

    def read(self, window: Any) -> npt.NDArray[np.int16]:
        """int16 (y, x) of a window: pixels, flags for `clear`, metres to clouds."""
        area = Window(
            int(window.row_off), int(window.col_off), int(window.height), int(window.width)
        )
        locator = Locator(self.lattice, area)
        out = np.empty((area.height, area.width), dtype=np.int16)
        if self.recipe is None:
            reader.read_band(self.assets[0], self.access, locator, out, self.resampling)
            return out
        beyond = FARTHEST if self.distance else 0.0
        found = masks.read_classes(
            self.recipe, self.assets, self.access, self.lattice, area, beyond
        )
        if self.distance:
            away = np.full(out.shape, FARTHEST, dtype=np.uint16)
            if found is not None:
                masks.place_distances(masks.distance_to_cloud(self.recipe, found), locator, away)
            out[...] = away
        else:
            flags = np.zeros(out.shape, dtype=np.uint8)
            if found is not None:
                masks.place_flags(self.recipe, found, locator, flags)
            out[...] = flags
        return out

    def close(self) -> None:
        """Nothing to close: datasets belong to the process-wide pool."""

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(url=state["url"])  # type: ignore[misc]


def _cut(cube: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Make pixels outside the grid's polygon nodata."""
    if grid.aoi is None:
        return cube

    def cut(block: npt.NDArray[np.int16], block_info: Any = None) -> npt.NDArray[np.int16]:
        (y0, y1), (x0, x1) = block_info[0]["array-location"][2:]
        inside = grid.inside(y0, x0, y1 - y0, x1 - x0)
        return block if inside is None else np.where(inside, block, reader.NODATA)

    return cube.copy(data=cube.data.map_blocks(cut, dtype=np.int16))


def _resolve_clear(
    cube: xr.DataArray, recipe: masks.MaskRecipe, observation: Sequence[int]
) -> xr.DataArray:
    """Turn the flags in the band `clear` into 0/1, chunk by chunk over the whole series."""
    position = cube.sizes["band"] - 1

    def resolve(block: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        flags = np.maximum(block[:, position], 0).astype(np.uint8)
        out = block.copy()
        out[:, position] = masks.resolve(recipe, flags, observation)
        return out

    return cube.copy(data=cube.data.map_blocks(resolve, dtype=np.int16))
