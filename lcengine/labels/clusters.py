"""Regions of interest: labels that lie close together, as boxes on a product's pixel lattice."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.crs import CRS

from lcengine.aoi import LONLAT
from lcengine.crs import project, resolve_crs
from lcengine.errors import InputError
from lcengine.grid import Grid

DISTANCE = 2000.0
"""Metres between the centroids of labels of one region (METHODS: the mission's own clusters)."""
PATCH = 64
"""Pixels along the shortest side of a region: one patch of the crop networks."""

_SNAP = 1e-6
_EQUAL_AREA = "EPSG:6933"
_INWARDS = 0.25
# WGS 84
_AXIS, _ECCENTRICITY2 = 6_378_137.0, 6.694379990141316e-3


def cluster(
    labels: gpd.GeoDataFrame, *, distance: float = DISTANCE, least: int = 1
) -> npt.NDArray[np.int64]:
    """The cluster of each label, from 0 in the order of the labels; -1 where there is none.

    DBSCAN (Ester et al. 1996) of the centroids: `distance` in metres, `least` labels (itself
    counted) within it make a core. Distances are those of geocentric coordinates on the ellipsoid,
    so they are metres in any CRS, at any place, and across zones and the antimeridian. Labels
    without a geometry, and with `least` above 1 those that are alone, are in no cluster. Memory
    grows with the neighbours within the distance: 1.5 GB for 100,000 labels on 1,000 km².
    Raises `InputError` for labels without a CRS or without any geometry.
    """
    from sklearn.cluster import DBSCAN  # noqa: PLC0415 (a second, which no other label needs)

    if labels.crs is None:
        raise InputError("the labels have no CRS; give it, e.g. labels.set_crs('EPSG:4326')")
    if not (math.isfinite(distance) and distance > 0) or least < 1:
        raise InputError(
            f"distance {distance:g} m and least {least} are no neighbourhood; expected positive"
        )
    outlines = np.asarray(labels.geometry.values)
    there = ~(shapely.is_missing(outlines) | shapely.is_empty(outlines))
    if not there.any():
        raise InputError("there are no labels with a geometry; nothing can be clustered")
    found = np.full(len(outlines), -1, np.int64)
    search = DBSCAN(eps=distance, min_samples=least, algorithm="kd_tree")
    found[there] = search.fit_predict(_geocentric(shapely.centroid(outlines[there]), labels.crs))
    return found


def regions(
    labels: gpd.GeoDataFrame,
    grid: Grid,
    *,
    distance: float = DISTANCE,
    least: int = 1,
    patch: int = PATCH,
    margin: int = 0,
    column: str | None = None,
) -> gpd.GeoDataFrame:
    """The clusters of labels as boxes along the pixel edges of `grid`, in its CRS.

    A box holds its labels, is snapped outwards to the pixels, grown by `margin` pixels on every
    side, and is at least `patch` pixels high and wide, in equal parts on both sides. Boxes may
    reach beyond the grid, and boxes of different regions may overlap. Columns: `region` (1, 2, …),
    `count` of labels, their `area` in square metres, `height` and `width` in pixels, `members` (the
    labels' index values) and, where a `column` is named, the `classes` in it. `distance`, `least`
    and errors as in `cluster`.
    """
    if patch < 1 or margin < 0:
        raise InputError(f"patch {patch} and margin {margin} are pixels; expected 1 and 0 or more")
    if column is not None and column not in labels.columns:
        raise InputError(
            f"the labels have no attribute {column!r}; they have "
            f"{', '.join(str(c) for c in labels.columns if c != labels.geometry.name)}"
        )
    number = cluster(labels, distance=distance, least=least)
    places = [np.flatnonzero(number == i) for i in range(number.max() + 1)]
    source = resolve_crs(labels.crs.to_wkt())
    outlines = np.asarray(labels.geometry.values)
    areas = np.asarray(labels.geometry.to_crs(_EQUAL_AREA).area)
    rows: list[dict[str, Any]] = []
    boxes = []
    for i, members in enumerate(places):
        around = project(shapely.GeometryCollection(list(outlines[members])), source, grid.crs)
        x0, y0, width, height = _pixels(around.bounds, grid, patch, margin)
        boxes.append(_box(grid, x0, y0, width, height))
        row = {
            "region": i + 1,
            "count": len(members),
            "area": float(np.nansum(areas[members])),
            "height": height,
            "width": width,
            "members": labels.index[members].tolist(),
        }
        if column is not None:
            row["classes"] = sorted({str(value) for value in labels[column].iloc[members]})
        rows.append(row)
    return gpd.GeoDataFrame(rows, geometry=boxes, crs=grid.crs_wkt)


def lattice_around(
    labels: gpd.GeoDataFrame, *, crs: int | str | None = None, resolution: float = 10.0
) -> Grid:
    """A grid over labels, for `regions` before there is a product.

    `crs`: default the UTM zone of their middle; `InputError` where they are wider than a zone.
    """
    if labels.crs is None:
        raise InputError("the labels have no CRS; give it, e.g. labels.set_crs('EPSG:4326')")
    west, south, east, north = labels.to_crs(LONLAT.to_wkt()).total_bounds
    if not np.isfinite([west, south, east, north]).all():
        raise InputError("there are no labels with a geometry; nothing can be clustered")
    if crs is None:
        if east - west > 6:
            raise InputError(
                f"the labels are {east - west:.1f} degrees wide, wider than a UTM zone; give a CRS"
            )
        zone = int(((west + east) / 2 + 180) // 6) % 60 + 1
        crs = (32600 if north + south >= 0 else 32700) + zone
    target = resolve_crs(crs)
    left, bottom, right, top = labels.to_crs(target.to_wkt()).total_bounds
    half = resolution / 2
    return Grid.from_bounds(
        left - half, bottom - half, right + half, top + half, crs, resolution, tile=1024
    )


def save_regions(found: gpd.GeoDataFrame, path: str | os.PathLike[str]) -> list[Path]:
    """Write regions as GeoJSON: a file, or where `path` has no suffix a file each in that folder.

    They are areas of interest (`--aoi`): polygons in longitude and latitude a quarter of a pixel
    inside the boxes, so that a grid of the same lattice is exactly the box. The other columns, the
    CRS and the bounds of the box in it are properties. Returns the files.
    """
    crs = resolve_crs(found.crs.to_wkt())
    features = [_feature(row, crs) for row in found.to_dict("records")]
    target = Path(path)
    parts = {target: features}
    if target.suffix == "":
        digits = max(3, len(str(len(features))))
        parts = {target / f"region_{i + 1:0{digits}}.geojson": [f] for i, f in enumerate(features)}
    elif target.suffix.lower() not in (".geojson", ".json"):
        raise InputError(f"{target} is no GeoJSON by its name; give regions.geojson, or a folder")
    try:
        for name, members in parts.items():
            name.parent.mkdir(parents=True, exist_ok=True)
            document = {"type": "FeatureCollection", "features": members}
            name.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}; check the path") from error
    return list(parts)


def _geocentric(points: Any, crs: Any) -> npt.NDArray[np.float64]:
    """Earth-centred x, y, z (n, 3) in metres of points on the ellipsoid."""
    lonlat = project(shapely.MultiPoint(points), resolve_crs(crs.to_wkt()), LONLAT)
    lon, lat = np.radians(shapely.get_coordinates(lonlat)).T
    if not np.isfinite(lon + lat).all():
        raise InputError("labels lie where their CRS is not defined; check the CRS they state")
    normal = _AXIS / np.sqrt(1 - _ECCENTRICITY2 * np.sin(lat) ** 2)
    flat = normal * np.cos(lat)
    height = (1 - _ECCENTRICITY2) * normal * np.sin(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), height], axis=1)


def _pixels(
    bounds: tuple[float, ...], grid: Grid, patch: int, margin: int
) -> tuple[int, int, int, int]:
    """First column and row, width and height in pixels of a region's box."""
    left, bottom, right, top = bounds
    origin, size = grid.transform, grid.resolution
    columns = _span((left - origin.c) / size, (right - origin.c) / size, patch, margin)
    rows = _span((origin.f - top) / size, (origin.f - bottom) / size, patch, margin)
    return columns[0], rows[0], columns[1], rows[1]


def _span(low: float, high: float, patch: int, margin: int) -> tuple[int, int]:
    """First pixel and number of pixels along one axis."""
    first = math.floor(low + _SNAP) - margin
    count = max(math.ceil(high - _SNAP) + margin - first, 1)
    return first - max(patch - count, 0) // 2, max(count, patch)


def _box(grid: Grid, x0: int, y0: int, width: int, height: int) -> shapely.Polygon:
    a = grid.transform
    edges = (a.c + x0 * a.a, a.f + (y0 + height) * a.e, a.c + (x0 + width) * a.a, a.f + y0 * a.e)
    return shapely.box(*edges)


def _feature(row: dict[str, Any], crs: CRS) -> dict[str, Any]:
    box = row.pop("geometry")
    left, bottom, right, top = box.bounds
    inset = _INWARDS * (right - left) / row["width"]
    small = shapely.box(left + inset, bottom + inset, right - inset, top - inset)
    # Edges that are straight in the CRS are curves in longitude and latitude.
    lonlat = project(shapely.segmentize(small, small.length / 256), crs, LONLAT)
    properties = {**row, "crs": str(crs), "bounds": [left, bottom, right, top]}
    geometry = json.loads(shapely.to_geojson(lonlat))
    return {"type": "Feature", "properties": properties, "geometry": geometry}
