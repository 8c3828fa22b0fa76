"""Vector files as labelled features: read, checked, repaired, and brought onto a grid.

Any format that GDAL reads (GeoPackage, GeoJSON, shapefile, FlatGeobuf, …), and GeoParquet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from lcengine.aoi import Bounds, bounds_text
from lcengine.crs import crs_name, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid

Invalid = Literal["repair", "error"]

_PARQUET = (".parquet", ".geoparquet", ".pq")
_LISTED = 12
_LONLAT = "EPSG:4326"
_TRUE_METRES = 0.01
"""Share by which the scale of a CRS may differ from 1 where buffers are made in it."""
_CHORD_DEGREES, _CHORD_METRES = 0.01, 1000.0
_LON, _LAT = 720.0, 90.0 + 1e-9
"""Degrees beyond which coordinates are none."""
_QUADRANT = 16
"""Segments of a quarter circle around a buffered corner: at most 0.12 % of the radius too short."""


def read_vectors(
    path: str | os.PathLike[str],
    layer: str | None = None,
    *,
    crs: int | str | None = None,
    where: str | None = None,
    encoding: str | None = None,
    invalid: Invalid = "repair",
) -> gpd.GeoDataFrame:
    """The features of one layer, two-dimensional and valid, in the file's CRS.

    `layer`: needed where the file has several. `crs`: what the coordinates are in, where the file
    does not say or says it wrong. `where`: condition in OGR's SQL, as `"crop = 'maize'"`.
    `encoding`: of the attributes of a shapefile without .cpg, as "cp1252". `invalid`: geometries
    that cross themselves are repaired (the area they enclose), or an error that names the first.
    Features without geometry are left out; `attrs` counts both as `repaired` and `empty`. The
    index is the feature's place in what was read. Raises `InputError` for what cannot be read, has
    no CRS, no such layer or no features.
    """
    name = f"{path} layer {layer}" if layer else f"{path}"
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; give a vector file, such as fields.gpkg")
    if str(path).lower().endswith(_PARQUET):
        frame = _read_parquet(path, layer, where)
    else:
        frame = _read_ogr(path, _layer(path, layer), where, encoding)
    if frame.empty:
        rule = f" where {where}" if where else ""
        raise InputError(f"{name} has no features{rule}; expected some, check the file and where=")
    if crs is not None:
        frame = frame.set_crs(resolve_crs(crs).to_wkt(), allow_override=True)
    return sound(frame.reset_index(drop=True), name, invalid)


def sound(frame: gpd.GeoDataFrame, name: str, invalid: Invalid = "repair") -> gpd.GeoDataFrame:
    """`frame` with valid, two-dimensional geometries only, and its index; see `read_vectors`."""
    if invalid not in ("repair", "error"):
        raise InputError(f"invalid is {invalid!r}, expected repair or error")
    if frame.crs is None:
        raise InputError(
            f"{name} states no CRS; say with --file-crs (crs=) what its coordinates are in, as "
            "EPSG:4326"
        )
    shapes: NDArray[Any] = shapely.force_2d(frame.geometry.to_numpy())
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    broken = present & ~shapely.is_valid(shapes)
    if invalid == "error" and broken.any():
        first = int(np.argmax(broken))
        raise InputError(
            f"{name} has {int(broken.sum())} invalid geometries, the first of feature {first}: "
            f"{shapely.is_valid_reason(shapes[first])}; repair them, or take invalid=repair"
        )
    # "structure" keeps what overlaps as area; the default would cut it out as holes.
    fixed = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    shapes[broken] = fixed
    present &= ~shapely.is_empty(shapes)
    if not present.any():
        raise InputError(f"{name} has no feature with a geometry; expected some")
    kept = frame.set_geometry(gpd.array.from_shapely(shapes, crs=frame.crs))[present]
    kept.attrs = {
        "name": name,
        "features": len(frame),
        "repaired": int((broken & present).sum()),
        "empty": int((~present).sum()),
    }
    return kept


def _layer(path: str | os.PathLike[str], layer: str | None) -> str:
    """The layer to read; `InputError` where that is not told or not there."""
    try:
        names = [str(row[0]) for row in pyogrio.list_layers(path)]
    except DataSourceError as error:
        raise InputError(
            f"{path} cannot be read as vectors ({error}); expected a GeoPackage, GeoJSON, "
            "shapefile or GeoParquet"
        ) from error
    listed = ", ".join(names[:_LISTED]) or "none"
    if layer is None and len(names) != 1:
        raise InputError(f"{path} has the layers {listed}; choose one with --layer (layer=)")
    if layer is not None and layer not in names:
        raise InputError(f"{path} has no layer {layer}; it has {listed}")
    return layer or names[0]


def _read_ogr(
    path: str | os.PathLike[str], layer: str, where: str | None, encoding: str | None
) -> gpd.GeoDataFrame:
    try:
        found = pyogrio.read_dataframe(path, layer=layer, where=where, encoding=encoding)
    except (DataSourceError, DataLayerError, ValueError, LookupError) as error:
        raise InputError(
            f"{path} layer {layer} cannot be read ({error}); check the file, where= and encoding="
        ) from error
    if not isinstance(found, gpd.GeoDataFrame):
        raise InputError(f"{path} layer {layer} is a table without geometry; choose another layer")
    return found


def _read_parquet(
    path: str | os.PathLike[str], layer: str | None, where: str | None
) -> gpd.GeoDataFrame:
    if layer is not None or where is not None:
        raise InputError(f"{path} is GeoParquet, which has no layers and no where=; leave them out")
    try:
        return gpd.read_parquet(path)
    except (ValueError, OSError, KeyError) as error:  # pyarrow's errors are these
        raise InputError(f"{path} is not GeoParquet ({error}); expected its specification") from (
            error
        )


def place(
    frame: gpd.GeoDataFrame, grid: Grid, *, buffer: float = 0.0, erode: float = 0.0
) -> gpd.GeoDataFrame:
    """Features on the grid: in its CRS, buffered or eroded by metres, in single parts.

    Edges are cut into pieces of a kilometre before they are projected, so that they stay where they
    were drawn. Distances are metres on the ground: buffers are made in the grid's CRS where that
    is in metres with a scale within 1 % of true, else in the UTM zone of each part. The index is
    that of `frame`, with one row for each part; features that do not meet the grid are left out,
    and so is what erosion leaves nothing of. `attrs` counts `outside` and `eroded`.

    Raises `InputError` where the whole layer lies apart from the grid (a wrong CRS), or has no
    coordinates in its CRS.
    """
    name = frame.attrs.get("name", "the layer")
    target = pyproj.CRS.from_user_input(grid.crs_wkt)
    source = pyproj.CRS.from_user_input(frame.crs)
    if source != target and (source.is_engineering or target.is_engineering):
        raise InputError(
            f"{name} is in {source.name} and the grid in {target.name}: pixels of an image have no "
            "place on Earth; draw the features on the image, or georeference it"
        )
    # Parts first: one feature may hold all fields of a class, in several zones.
    parts = frame.explode(index_parts=False).explode(index_parts=False)
    series = parts.geometry
    if not (buffer or erode):
        series = projected(series, target)
    elif _true_metres(grid):
        series = _shaped(projected(series, target), buffer, erode)
    else:
        series = _shaped_in_zones(series, target, buffer, erode)
    found = parts.set_geometry(series.array)[~series.is_empty.to_numpy()]
    bounds = shapely.bounds(found.geometry.to_numpy())
    met = _meets(bounds, grid.bounds, grid.resolution)
    if not met.any():
        _check_near(name, frame, bounds, grid)
    placed = found[met].explode(index_parts=False)
    left, here = found.index.nunique(), placed.index.nunique()
    placed.attrs = {**frame.attrs, "outside": left - here, "eroded": len(frame) - left}
    return placed


def _meets(bounds: NDArray[np.float64], box: Bounds, margin: float) -> NDArray[np.bool_]:
    """Which boxes (feature, 4) meet `box` grown by `margin`; boxes that are not finite do not."""
    left, bottom, right, top = box
    return np.asarray(
        np.isfinite(bounds).all(axis=1)
        & (bounds[:, 0] <= right + margin)
        & (bounds[:, 2] >= left - margin)
        & (bounds[:, 1] <= top + margin)
        & (bounds[:, 3] >= bottom - margin)
    )


def _check_near(
    name: str, frame: gpd.GeoDataFrame, bounds: NDArray[np.float64], grid: Grid
) -> None:
    """`InputError` where all features lie on one side of the grid, or nowhere."""
    finite = bounds[np.isfinite(bounds).all(axis=1)]
    if len(finite):
        low, high = finite[:, :2].min(axis=0), finite[:, 2:].max(axis=0)
        extent = np.array([[*low, *high]])
        if _meets(extent, grid.bounds, grid.resolution).any():
            return
        where = f"reaches {bounds_text((*low, *high))} there"
    else:
        where = "has no finite coordinates there" if len(bounds) else "is eroded to nothing"
    stated = frame.total_bounds
    raise InputError(
        f"{name} does not meet the grid: the grid is {bounds_text(grid.bounds)} in "
        f"{crs_name(grid.crs)} and the layer {where} (its own coordinates are "
        f"{bounds_text((stated[0], stated[1], stated[2], stated[3]))} in {frame.crs.name}); say "
        "with --file-crs (crs=) what they are in if that is wrong, or take another area"
    )


def projected(series: gpd.GeoSeries, target: pyproj.CRS) -> gpd.GeoSeries:
    """In another CRS, with edges so short that they stay straight."""
    source = pyproj.CRS.from_user_input(series.crs)
    if source == target:
        return series
    unit = source.axis_info[0].unit_conversion_factor
    chord = _CHORD_DEGREES if source.is_geographic else _CHORD_METRES / unit
    if source.is_geographic:
        # Metres that are called degrees would be cut into millions of pieces of nowhere.
        box = shapely.bounds(series.to_numpy())
        wild = ~(np.abs(box) <= [_LON, _LAT, _LON, _LAT]).all(axis=1)
        series = series.where(~wild, None)
    return series.segmentize(chord).to_crs(target)


def _true_metres(grid: Grid) -> bool:
    """Whether lengths in the grid's CRS are metres on the ground all over the grid."""
    crs = pyproj.CRS.from_user_input(grid.crs_wkt)
    if not crs.is_projected or any(a.unit_conversion_factor != 1 for a in crs.axis_info[:2]):
        return False
    left, bottom, right, top = grid.bounds
    x, y = np.meshgrid(np.linspace(left, right, 3), np.linspace(bottom, top, 3))
    projection = pyproj.Proj(crs)
    lon, lat = projection(x.ravel(), y.ravel(), inverse=True)
    factors = projection.get_factors(lon, lat)
    scales = np.concatenate([factors.tissot_semimajor, factors.tissot_semiminor])
    return bool(np.isfinite(scales).all() and (np.abs(scales - 1) <= _TRUE_METRES).all())


def _shaped(series: gpd.GeoSeries, buffer: float, erode: float) -> gpd.GeoSeries:
    """Buffered, and then the areas eroded; what has no finite coordinates stays as it is."""
    shapes = series.to_numpy().copy()
    finite = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    if buffer:
        shapes[finite] = shapely.buffer(shapes[finite], buffer, quad_segs=_QUADRANT)
    areal = finite & (shapely.get_dimensions(shapes) == 2)
    if erode:
        shapes[areal] = shapely.buffer(shapes[areal], -erode, quad_segs=_QUADRANT)
    return gpd.GeoSeries(shapes, index=series.index, crs=series.crs)


def _shaped_in_zones(
    series: gpd.GeoSeries, target: pyproj.CRS, buffer: float, erode: float
) -> gpd.GeoSeries:
    """`_shaped`, in the UTM zone (beyond 84° N and 80° S: UPS) of each part's middle.

    What has no longitude and latitude becomes None.
    """
    lonlat = projected(series, pyproj.CRS.from_user_input(_LONLAT))
    box = shapely.bounds(lonlat.to_numpy())
    lon, lat = (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2
    zone = np.clip(np.floor((np.nan_to_num(lon) + 180) / 6), 0, 59).astype(int) + 1
    code = np.where(lat < 0, 32700, 32600) + zone
    code = np.where(lat > 84, 32661, np.where(lat < -80, 32761, code))
    code[~(np.isfinite(box).all(axis=1) & (np.abs(lat) <= _LAT))] = 0
    shapes = np.full(len(series), None, dtype=object)
    for epsg in np.unique(code[code > 0]).tolist():
        own = code == epsg
        there = projected(series[own], pyproj.CRS.from_epsg(epsg))
        shapes[own] = projected(_shaped(there, buffer, erode), target).to_numpy()
    return gpd.GeoSeries(shapes, index=series.index, crs=target)
