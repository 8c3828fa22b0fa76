"""Layers of features as one label raster on a grid.

rasterize(read_vectors("fields.gpkg"), grid, Rule("crop"))          a raster of crops
rasterize([Layer(fields, Rule("crop", erode=10)),                   roads over fields
           Layer(roads, Rule(value="road", buffer=6, priority=1))], grid)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
import xarray as xr

from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.burn import Burner, Conflict, Counts
from lcengine.labels.rules import Rule, codes_of, legend_of, priorities_of
from lcengine.labels.vectors import place, sound
from lcengine.legends import Legend

EAGER_PIXELS = 10**8
"""Largest raster that is computed at once, 100 MB of uint8."""


@dataclass(frozen=True)
class Layer:
    """Features and what becomes of them; `name` stands in messages."""

    frame: gpd.GeoDataFrame
    rule: Rule
    name: str = "layer"


def rasterize(
    layers: gpd.GeoDataFrame | Layer | Sequence[Layer],
    grid: Grid,
    rule: Rule | None = None,
    *,
    legend: Legend | None = None,
    conflict: Conflict = "ignore",
    lazy: bool = False,
) -> xr.Dataset:
    """Labels of vector features on a grid: a Dataset with `label` (y, x), codes in legend's dtype.

    `layers`: features with their `rule`, or several layers with a rule each. Where features meet,
    the higher priority wins; `conflict` says what happens between equal priorities of different
    classes: the pixel is left without a label (counted, if eager, in `conflicts`), an error
    names both, or the last burned wins (layers and features in their order). `legend`: default, one
    made of what the features name. `lazy`: computed by tile when asked for.

    Pixels are those of GDAL's rasteriser: centre in the area, lines by Bresenham, or all that are
    touched (`burn` tells the details). No pixel depends on the tile. Pixels without a label and
    those with their centre outside the grid's AOI have the legend's nodata. Raises `InputError`
    for features that cannot become labels; see `Rule`, `read_vectors` and `place`.
    """
    features, found, facts = prepare(_layers(layers, rule), grid, legend=legend)
    burner = Burner(features, grid, found, conflict)
    if lazy:
        values: Any = _by_tile(burner)
    else:
        if grid.shape[0] * grid.shape[1] > EAGER_PIXELS:
            raise InputError(
                f"the grid has {grid.shape[0]} × {grid.shape[1]} pixels, more than "
                f"{EAGER_PIXELS:.0e} at once; take lazy=True, or write a product with "
                "`lcengine labels rasterize`"
            )
        values, counts = burner.window(0, 0, *grid.shape)
        facts |= described(counts, found)
    return _dataset(values, grid, found, facts)


def prepare(
    layers: Sequence[Layer], grid: Grid, *, legend: Legend | None = None, name: str = "labels"
) -> tuple[gpd.GeoDataFrame, Legend, dict[str, Any]]:
    """Features ready for a `Burner`, the legend of their codes, and what was done to each layer."""
    checked = [_checked(layer) for layer in layers]
    found = legend or legend_of(name, [(layer.frame, layer.rule) for layer in checked])
    parts, report = [], []
    for layer in checked:
        frame, rule = layer.frame, layer.rule
        codes = codes_of(frame, rule, found)
        priority = priorities_of(frame, rule, found, codes)
        columns = {"code": codes, "priority": priority, "touched": rule.all_touched}
        ours = gpd.GeoDataFrame(
            {"feature": frame.index, **columns, "layer": layer.name},
            geometry=frame.geometry.to_numpy(),
            crs=frame.crs,
        )
        ours = ours[ours["code"] >= 0]
        ours.attrs = {**frame.attrs, "left_out": int((codes < 0).sum())}
        placed = place(ours, grid, buffer=rule.buffer, erode=rule.erode)
        report.append(
            {"name": layer.name, "burned": int(placed["feature"].nunique()), **_told(placed)}
        )
        parts.append(placed)
    features = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), geometry="geometry")
    if features.empty:
        raise InputError(
            "no feature meets the grid, so there is nothing to label; check area and CRS"
        )
    features = features.set_crs(grid.crs_wkt, allow_override=True)
    features["order"] = np.arange(len(features))
    features["priority"] = np.unique(features["priority"], return_inverse=True)[1]
    return features, found, {"layers": report}


def described(counts: Counts, legend: Legend) -> dict[str, Any]:
    """Pixels by class name, how many are labelled, and how many features disagree about."""
    pixels: Counter[str] = Counter()  # a style file may call two codes alike
    for entry in legend.entries:
        if entry.code in counts.pixels:
            pixels[entry.name] += counts.pixels[entry.code]
    return {"labelled": pixels.total(), "classes": dict(pixels), "conflicts": counts.conflicts}


def _layers(
    layers: gpd.GeoDataFrame | Layer | Sequence[Layer], rule: Rule | None
) -> Sequence[Layer]:
    if isinstance(layers, gpd.GeoDataFrame):
        if rule is None:
            raise InputError("features need a rule that says their class, as Rule('crop')")
        return [Layer(layers, rule, str(layers.attrs.get("name", "the layer")))]
    if rule is not None:
        raise InputError("a rule is given beside layers, which have their own; leave it out")
    found = [layers] if isinstance(layers, Layer) else list(layers)
    if not found:
        raise InputError("there are no layers, expected one or more")
    return found


def _checked(layer: Layer) -> Layer:
    frame = layer.frame
    if frame.empty:
        raise InputError(f"{layer.name} has no features, expected some")
    known = frame.attrs
    if not pd.api.types.is_integer_dtype(frame.index):
        frame = frame.reset_index(drop=True)
    # Also what was read soundly: its attributes stay with a frame that was changed since.
    frame = sound(frame, layer.name)
    if known.get("features", 0) - known.get("empty", 0) == len(frame):
        frame.attrs |= {key: known[key] + frame.attrs[key] for key in ("repaired", "empty")}
        frame.attrs["features"] = known["features"]
    return Layer(frame, layer.rule, layer.name)


def _told(frame: gpd.GeoDataFrame) -> dict[str, int]:
    counted = ("features", "repaired", "empty", "left_out", "outside", "eroded")
    return {key: int(frame.attrs[key]) for key in counted if frame.attrs.get(key) is not None}


def _by_tile(burner: Burner) -> da.Array:
    """The raster as a dask array with one chunk for each tile."""
    grid, dtype = burner.grid, burner.legend.dtype
    edges = [range(0, size, grid.tile) for size in grid.shape]
    chunks = tuple(
        tuple(min(grid.tile, size - start) for start in starts)
        for starts, size in zip(edges, grid.shape, strict=True)
    )

    def tile(block_info: Any = None) -> npt.NDArray[Any]:
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return burner.window(y0, x0, y1 - y0, x1 - x0)[0]

    made: da.Array = da.map_blocks(tile, chunks=chunks, dtype=dtype, meta=np.empty((0, 0), dtype))
    return made


def _dataset(values: Any, grid: Grid, legend: Legend, facts: dict[str, Any]) -> xr.Dataset:
    height, width = grid.shape
    coords = {"y": grid.y(np.arange(height)), "x": grid.x(np.arange(width))}
    label = xr.DataArray(values, dims=("y", "x"), coords=coords, attrs=legend.attributes())
    out: xr.Dataset = label.to_dataset(name="label").assign_attrs(facts)
    return out.rio.write_crs(grid.crs_wkt)  # type: ignore[no-any-return]
