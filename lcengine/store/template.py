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
from lcengine.periods import Period

CHUNK = 512
"""Edge of a compressed chunk inside a shard; a shard is a tile, the unit of writing."""

CODEC = ZstdCodec(level=1, checksum=True)
"""Of all that is stored: flipped bits are noticed when it is read."""

PROVENANCE = "lcengine"
"""Root attribute: package, run_id, request, grid, variables, and at publishing the run's facts."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a product, with an explicit fill that no valid pixel has; None is NaN."""

    name: str
    dtype: str
    fill: int | None
    long_name: str
    scale: float | None = None
    units: str | None = None

    @property
    def missing(self) -> float:
        """The fill as a number."""
        return math.nan if self.fill is None else self.fill

    def attributes(self) -> dict[str, Any]:
        """CF attributes."""
        out: dict[str, Any] = {"long_name": self.long_name, "grid_mapping": "spatial_ref"}
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
    grid: Grid,
    variables: Sequence[Variable],
    periods: Sequence[Period],
    provenance: Mapping[str, Any],
) -> None:
    """Create the group with all metadata and coordinates, and no pixel."""
    height, width = grid.shape
    transform = grid.transform
    group = zarr.open_group(store, mode="w", zarr_format=3)
    group.attrs.update(
        {
            "Conventions": "CF-1.11",
            **({"proj:code": f"EPSG:{grid.epsg}"} if grid.epsg else {}),
            "proj:wkt2": grid.crs_wkt,
            "spatial:transform": list(transform)[:6],
            "spatial:shape": [height, width],
            PROVENANCE: dict(provenance),
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
