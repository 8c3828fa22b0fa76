"""The area of interest: a validated box or polygon in longitude and latitude (WGS 84).

Whatever cannot be what the user meant (inverted, swapped, empty, across the antimeridian) is
refused by name before anything is searched or allocated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from odc.geo.crs import CRS
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

from lcengine.errors import AoiError, InputError

__all__ = ["LONLAT", "Aoi", "Bounds", "bounds_of", "bounds_text", "polygonal", "repair"]

Bounds = tuple[float, float, float, float]
"""West, south, east, north, or left, bottom, right, top."""

LONLAT = CRS("EPSG:4326")
_CRS84_NAMES = {"CRS84", "OGC:CRS84", "OGC:1.3:CRS84", "EPSG:4326", "4326"}


@dataclass(frozen=True, slots=True)
class Aoi:
    """A validated area of interest.

    `geometry`: polygon or multipolygon, EPSG:4326, longitude/latitude. `is_box`: it came from
    `--bbox`, which asks for an extent, so no pixel inside that extent is masked.
    """

    geometry: Geometry
    is_box: bool

    @classmethod
    def from_bbox(cls, bbox: Sequence[float] | str) -> Aoi:
        """Box `west,south,east,north` in degrees; raises `AoiError` where it is not one."""
        west, south, east, north = bounds = _parse_bbox(bbox)
        _check_lonlat(bounds, f"bbox {bounds_text(bounds)}", "did you mean --bbox {}?")
        _check_order(bounds)
        return cls(Geometry(shapely.box(west, south, east, north), LONLAT), is_box=True)

    @classmethod
    def from_file(cls, path: str | Path) -> Aoi:
        """Union of the polygons of a GeoJSON file (RFC 7946; points and lines are ignored).

        Self-intersections are repaired. Raises `InputError` for an unreadable file and `AoiError`
        for one without a usable polygon.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read AOI file {path}: {error.strerror}; give a GeoJSON file"
            ) from error
        try:
            document = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise AoiError(
                f"AOI file {path} is not JSON ({error}); give a GeoJSON file in lon/lat"
            ) from error
        found = list(_geojson_polygons(document, str(path)))
        if not found:
            raise AoiError(
                f"AOI file {path} has no polygon; give a GeoJSON Polygon or MultiPolygon, "
                "or use --bbox"
            )
        # Range before repair: repairing nonsense coordinates would hide what is wrong with them.
        bounds = bounds_of(shapely.GeometryCollection(found))
        _check_lonlat(bounds, f"AOI file {path}", "swap the coordinates to lon,lat")
        if bounds[2] - bounds[0] > 180:
            raise AoiError(
                f"AOI file {path} spans {bounds[2] - bounds[0]:.6g} degrees of longitude, so it "
                "crosses the antimeridian; split it at longitude 180 and run each side by itself, "
                "or use --bbox for an area that is really that wide"
            )
        union = polygonal(shapely.union_all([repair(polygon) for polygon in found]))
        if union is None:
            raise AoiError(
                f"AOI file {path} has zero area; give a polygon with at least three corners that "
                "are not on one line"
            )
        return cls(Geometry(union, LONLAT), is_box=False)

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in degrees."""
        return bounds_of(self.geometry.geom)


def _parse_bbox(bbox: Sequence[float] | str) -> Bounds:
    parts: Sequence[Any] = bbox.split(",") if isinstance(bbox, str) else list(bbox)
    shown = bbox if isinstance(bbox, str) else ",".join(map(str, parts))
    remedy = "give west,south,east,north in degrees"
    if len(parts) != 4:
        raise AoiError(f"bbox {shown!r} has {len(parts)} values, expected 4; {remedy}")
    try:
        west, south, east, north = map(float, parts)
    except (TypeError, ValueError) as error:
        raise AoiError(f"bbox {shown!r} is not four numbers; {remedy}") from error
    if not all(map(math.isfinite, (west, south, east, north))):
        raise AoiError(f"bbox {shown!r} has a NaN or infinite value; {remedy}")
    return west, south, east, north


def _check_lonlat(bounds: Bounds, what: str, swap_remedy: str) -> None:
    """Refuse coordinates that are not lon/lat degrees; `{}` in the remedy takes the swapped box."""
    a, b, c, d = bounds
    swapped = (b, a, d, c)
    if max(abs(b), abs(d)) > 90 and _in_range(swapped) and b < d and a < c:
        raise AoiError(f"{what} looks like lat,lon; {swap_remedy.format(bounds_text(swapped))}")
    if not _in_range(bounds):
        raise AoiError(
            f"{what} reaches {bounds_text(bounds)}, outside longitude [-180, 180], "
            "latitude [-90, 90]; give degrees, longitudes beyond 180 minus 360, "
            "an area across the antimeridian in two"
        )


def _check_order(bounds: Bounds) -> None:
    west, south, east, north = bounds
    if south == north or west == east:
        raise AoiError(
            f"bbox {bounds_text(bounds)} has zero area; give west < east and south < north"
        )
    if south > north:
        raise AoiError(
            f"bbox {bounds_text(bounds)} is inverted: south {south:g} > north {north:g}; "
            "give west,south,east,north"
        )
    if west > east and east + 360 - west < 180:
        halves = [(west, south, 180.0, north), (-180.0, south, east, north)]
        runs = " and ".join(f"--bbox {bounds_text(half)}" for half in halves if half[0] < half[2])
        raise AoiError(f"bbox {bounds_text(bounds)} crosses the antimeridian; run {runs}")
    if west > east:
        raise AoiError(
            f"bbox {bounds_text(bounds)} is inverted: west {west:g} > east {east:g}; "
            "give west,south,east,north"
        )


def _in_range(bounds: Bounds) -> bool:
    west, south, east, north = bounds
    return max(abs(west), abs(east)) <= 180 and max(abs(south), abs(north)) <= 90


def _geojson_polygons(node: Any, path: str) -> Iterator[BaseGeometry]:
    """Polygons and multipolygons at or below a GeoJSON object, 2-D, not yet validated."""
    if node is None:  # RFC 7946 allows a feature without geometry
        return
    if not isinstance(node, dict):
        raise AoiError(
            f"AOI file {path} is not GeoJSON: found {type(node).__name__}, expected an object with "
            "a type; give a Polygon, Feature or FeatureCollection"
        )
    _check_geojson_crs(node, path)
    match node.get("type"):
        case "FeatureCollection" | "GeometryCollection" as kind:
            members = node.get("features" if kind == "FeatureCollection" else "geometries")
            for member in members if isinstance(members, list) else []:
                yield from _geojson_polygons(member, path)
        case "Feature":
            yield from _geojson_polygons(node.get("geometry"), path)
        case "Polygon" | "MultiPolygon" as kind:
            bare = json.dumps({"type": kind, "coordinates": node.get("coordinates")})
            try:
                polygon = shapely.force_2d(shapely.from_geojson(bare))
            except shapely.errors.GEOSException as error:
                raise AoiError(
                    f"AOI file {path} has a malformed {kind} ({error}); give rings of lon,lat pairs"
                ) from error
            if not polygon.is_empty:
                yield polygon


def _check_geojson_crs(node: Mapping[str, Any], path: str) -> None:
    if "crs" not in node:
        return
    member = node["crs"]
    properties = member.get("properties") if isinstance(member, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else member
    short = str(name).upper().removeprefix("URN:OGC:DEF:CRS:").replace("::", ":")
    if short not in _CRS84_NAMES:
        raise AoiError(
            f"AOI file {path} states CRS {name}, expected lon/lat (RFC 7946, OGC:CRS84); reproject "
            "it, for example ogr2ogr -t_srs EPSG:4326 -lco RFC7946=YES aoi.geojson FILE"
        )


def repair(geometry: BaseGeometry) -> BaseGeometry:
    """A valid geometry that covers the same area."""
    # "structure" keeps overlapping parts as area; the default would cut them out as holes.
    return shapely.make_valid(geometry, method="structure", keep_collapsed=False)


def polygonal(geometry: BaseGeometry) -> BaseGeometry | None:
    """The areal parts of a valid geometry, or None where it has none."""
    parts = [
        part
        for part in shapely.get_parts(shapely.get_parts([geometry]))
        if part.geom_type == "Polygon" and part.area > 0
    ]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def bounds_of(geometry: BaseGeometry) -> Bounds:
    """Left, bottom, right, top as floats."""
    left, bottom, right, top = map(float, geometry.bounds)
    return left, bottom, right, top


def bounds_text(bounds: Bounds) -> str:
    """Bounds as they are typed on the command line."""
    return ",".join(f"{value:.10g}" for value in bounds)
