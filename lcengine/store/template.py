"""The template of a product: all metadata and coordinates of a Zarr v3 group, and no pixel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec

from lcengine.grid import Grid
from lcengine.legends import Legend
from lcengine.periods import Period
from lcengine.store.rows import AXIS, Layout, Rows

CHUNK = 512
"""Edge of a compressed chunk inside a shard; a shard is a tile, the unit of writing."""

SAMPLE_CHUNK = 2**14
"""Bytes of samples in a chunk at least: small ones share one, so that each can be compressed."""

CODEC = ZstdCodec(level=1, checksum=True)
"""Of all that is stored: flipped bits are noticed when it is read."""

PROVENANCE = "lcengine"
"""Root attribute: package, run_id, request, grid, variables, and at publishing the run's facts."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a product, with an explicit fill that no valid pixel has; None is NaN, or none.

    `legend`: of classes. `dims`, `shape`: the axes of one sample, in products of samples; variables
    share axes of one name, which must be equally long (so `band_s2` and `band_s1`, but `y`, `x`).
    """

    name: str
    dtype: str
    fill: int | None
    long_name: str
    scale: float | None = None
    units: str | None = None
    legend: Legend | None = None
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def missing(self) -> float:
        """The fill as a number; 0 of integers that have none."""
        if self.fill is None:
            return math.nan if np.dtype(self.dtype).kind == "f" else 0
        return self.fill

    def attributes(self) -> dict[str, Any]:
        """CF attributes."""
        out: dict[str, Any] = {"long_name": self.long_name}
        if not self.dims:
            out["grid_mapping"] = "spatial_ref"
        if self.legend is not None:
            out.update(self.legend.attributes())
        if self.fill is not None:
            out["_FillValue"] = self.fill
        if self.scale is not None:
            out["scale_factor"] = self.scale
            out["add_offset"] = 0.0
        if self.units is not None:
            out["units"] = self.units
        return out


def create_template(
    store: Store,
    layout: Layout,
    variables: Sequence[Variable],
    periods: Sequence[Period],
    provenance: Mapping[str, Any],
) -> None:
    """Create the group with all metadata and coordinates, and no pixel."""
    group = zarr.open_group(store, mode="w", zarr_format=3)
    group.attrs[PROVENANCE] = dict(provenance)
    if isinstance(layout, Rows):
        _samples(group, layout, variables)
    else:
        _raster(group, layout, variables, periods)


def _samples(group: zarr.Group, rows: Rows, variables: Sequence[Variable]) -> None:
    """One array per variable, (sample, …): a shard is a part."""
    for variable in variables:
        size = np.dtype(variable.dtype).itemsize * math.prod(variable.shape)
        # Divisors of the part only: shards are made of whole chunks.
        sizes = [n for n in range(1, rows.part + 1) if rows.part % n == 0]
        chunk = next((n for n in sizes if n * size >= SAMPLE_CHUNK), rows.part)
        group.create_array(
            variable.name,
            shape=(rows.count, *variable.shape),
            dtype=variable.dtype,
            chunks=(chunk, *variable.shape),
            shards=(rows.part, *variable.shape),
            fill_value=variable.missing,
            compressors=[CODEC],
            dimension_names=(AXIS, *variable.dims),
            attributes=variable.attributes(),
        )


def _raster(
    group: zarr.Group, grid: Grid, variables: Sequence[Variable], periods: Sequence[Period]
) -> None:
    """Coordinates and one array per variable, ([time,] y, x): a shard is a tile."""
    height, width = grid.shape
    transform = grid.transform
    group.attrs.update(
        {
            "Conventions": "CF-1.11",
            **({"proj:code": f"EPSG:{grid.epsg}"} if grid.epsg else {}),
            "proj:wkt2": grid.crs_wkt,
            "spatial:transform": list(transform)[:6],
            "spatial:shape": [height, width],
        }
    )
    _coordinate(group, "x", grid.x(np.arange(width)), "projection_x_coordinate")
    _coordinate(group, "y", grid.y(np.arange(height)), "projection_y_coordinate")
    mapping = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)
    t = transform
    mapping.attrs.update(
        {**grid.crs.proj.to_cf(), "GeoTransform": f"{t.c} {t.a} {t.b} {t.f} {t.d} {t.e}"}
    )
    mapping[...] = 0
    if periods:
        _time(group, periods)
    chunk = CHUNK if grid.tile % CHUNK == 0 else grid.tile
    times = (len(periods),) if periods else ()
    for variable in variables:
        group.create_array(
            variable.name,
            shape=(*times, height, width),
            dtype=variable.dtype,
            chunks=(*(1 for _ in times), chunk, chunk),
            shards=(*(1 for _ in times), grid.tile, grid.tile),
            fill_value=variable.missing,
            compressors=[CODEC],
            dimension_names=(*("time" for _ in times), "y", "x"),
            attributes=variable.attributes(),
        )


def _coordinate(group: zarr.Group, name: str, values: npt.NDArray[np.float64], cf: str) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="float64",
        chunks=values.shape,
        fill_value=float("nan"),
        compressors=[CODEC],
        dimension_names=(name,),
        attributes={"standard_name": cf, "axis": name.upper()},
    )
    array[:] = values


def _time(group: zarr.Group, periods: Sequence[Period]) -> None:
    """CF time: where the periods start, and their bounds; their names are an attribute."""
    epoch = np.datetime64("1970-01-01T00:00:00")
    bounds = np.array(
        [[p.start.replace(tzinfo=None), p.stop.replace(tzinfo=None)] for p in periods], "M8[us]"
    )
    seconds = (bounds - epoch) // np.timedelta64(1, "s")
    units = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    for name, values, dims in (
        ("time", seconds[:, 0], ("time",)),
        ("time_bnds", seconds, ("time", "bnds")),
    ):
        array = group.create_array(
            name,
            shape=values.shape,
            dtype="int64",
            chunks=values.shape,
            fill_value=np.iinfo(np.int64).min,
            compressors=[CODEC],
            dimension_names=dims,
        )
        array[...] = values
        array.attrs.update(units)
    group["time"].attrs.update(
        {
            "standard_name": "time",
            "axis": "T",
            "bounds": "time_bnds",
            "period_names": [period.name for period in periods],
        }
    )


def consolidate(store: Store) -> None:
    """Gather the metadata of all arrays in the root's, so that a reader needs one request."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component")
        zarr.consolidate_metadata(store)
