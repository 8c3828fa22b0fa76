"""Coordinate reference systems: resolving, choosing, and moving areas between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from lcengine.aoi import LONLAT, Bounds, bounds_text
from lcengine.errors import AoiError, InputError

_ZONE_DEGREES = 6.0
_UTM_NORTH, _UTM_SOUTH = 84.0, -80.0
# A 0.01 degree chord departs from the projected curve by centimetres.
_DENSIFY_DEGREES, _DENSIFY_PARTS = 0.01, 64
_EDGE_PARTS = 1024


def resolve_crs(crs: int | str) -> CRS:
    """Named CRS with its EPSG code where that is exact; `InputError` for no usable CRS.

    Usable are projected and geographic ones, and engineering ones (pixels of an image).
    """
    spec = int(crs) if isinstance(crs, str) and crs.strip().isdecimal() else crs
    try:
        found = CRS(spec)
    except CRSError as error:
        raise InputError(
            f"CRS {crs!r} is unknown; give an EPSG code such as EPSG:32631, or WKT"
        ) from error
    if not (found.projected or found.geographic or found.proj.is_engineering):
        raise InputError(f"CRS {crs!r} is neither projected nor geographic; give one that is")
    epsg = exact_epsg(found)
    return found if epsg is None else CRS(f"EPSG:{epsg}")


def pixel_crs(name: str) -> str:
    """WKT of the pixels of one image that has no place on Earth: right and up from a corner.

    An engineering CRS (ISO 19111) of its own for each name, so that no two images, and no image
    and a map, are taken for neighbours: PROJ knows no way between them.
    """
    unit = 'LENGTHUNIT["pixel",1]'
    axes = f'AXIS["x",east,ORDER[1],{unit}],AXIS["y",north,ORDER[2],{unit}]'
    title = name.replace('"', "'")
    wkt = f'ENGCRS["pixels of {title}",EDATUM["image"],CS[Cartesian,2],{axes}]'
    return str(CRS(wkt).to_wkt())


def is_pixel_crs(crs: str) -> bool:
    """Whether a CRS is that of an image without a place on Earth."""
    return crs.startswith("ENGCRS")


def auto_crs(aoi_bounds: Bounds, item_epsgs: Sequence[int]) -> int:
    """EPSG code for `--crs auto`: the items' most frequent one, the smallest code of a tie.

    `aoi_bounds`: west, south, east, north in degrees. Raises `AoiError` where the area is wider
    than one UTM zone, `InputError` where no item states a CRS.
    """
    width = aoi_bounds[2] - aoi_bounds[0]
    if width > _ZONE_DEGREES + 1e-9:
        raise AoiError(
            f"AOI is {width:.6g} degrees wide, --crs auto serves up to one UTM zone "
            f"({_ZONE_DEGREES:g} degrees); give an explicit --crs, such as EPSG:3035 for Europe"
        )
    counts = Counter(item_epsgs)
    if not counts:
        raise InputError(
            "--crs auto takes the items' most frequent CRS but no item states one "
            "(proj:code, proj:epsg); give an explicit --crs"
        )
    return int(min(counts, key=lambda code: (-counts[code], code)))


def utm_of(bounds: Bounds) -> str:
    """The UTM zone (WGS 84) of the middle of an area, as `EPSG:…`; bounds in degrees."""
    west, south, east, north = bounds
    return f"EPSG:{CRS.utm((west + east) / 2, (south + north) / 2).to_epsg()}"


def check_utm_latitude(bounds: Bounds, crs: CRS) -> None:
    """`AoiError` where lon/lat bounds leave the latitudes that UTM is defined for."""
    if crs.proj.utm_zone and (bounds[3] > _UTM_NORTH or bounds[1] < _UTM_SOUTH):
        polar = "EPSG:3413" if bounds[3] > _UTM_NORTH else "EPSG:3031"
        raise AoiError(
            f"AOI {bounds_text(bounds)} reaches towards the pole beyond UTM's 80S to 84N "
            f"({crs_name(crs)}); give an explicit polar --crs, such as {polar}"
        )


def exact_epsg(crs: CRS) -> int | None:
    """EPSG code only where that definition is equal: PROJ also offers near matches."""
    code: int | None = crs.epsg
    return code if code is not None and CRS(f"EPSG:{code}").proj == crs.proj else None


def crs_name(crs: CRS) -> str:
    """`EPSG:n` where that is exact, else the name the CRS carries."""
    epsg = exact_epsg(crs)
    return str(crs.proj.name) if epsg is None else f"EPSG:{epsg}"


def densify(lonlat: BaseGeometry) -> BaseGeometry:
    """Straight lon/lat edges in pieces so short that they stay straight when projected."""
    west, south, east, north = lonlat.bounds
    span = max(east - west, north - south)
    return shapely.segmentize(lonlat, min(_DENSIFY_DEGREES, span / _DENSIFY_PARTS))


def project(geometry: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry:
    """Every vertex of a geometry in another CRS (x, y order)."""
    if source == target:
        return geometry
    _check_placed(source)
    _check_placed(target)
    convert = source.transformer_to_crs(target)

    def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(convert(xy[:, 0], xy[:, 1]), axis=1)

    return shapely.transform(geometry, move)


def _check_placed(crs: CRS) -> None:
    if crs.proj.is_engineering:
        raise AoiError(
            f"{crs.proj.name} have no place on Earth, so no area in degrees meets them; take the "
            "image on its own grid, or georeference it"
        )


def lonlat_box(bounds: Bounds, crs: CRS) -> Bounds:
    """A lon/lat box that holds bounds: all longitudes across the antimeridian or at a pole."""
    left, bottom, right, top = bounds
    if crs == LONLAT:
        return max(left, -180.0), max(bottom, -90.0), min(right, 180.0), min(top, 90.0)
    _check_placed(crs)
    t = np.linspace(0.0, 1.0, _EDGE_PARTS + 1)
    x, y = left + t * (right - left), bottom + t * (top - bottom)
    ones = np.ones_like(t)
    ring_x = np.concatenate([x, right * ones, x[::-1], left * ones])
    ring_y = np.concatenate([bottom * ones, y, top * ones, y[::-1]])
    lon, lat = crs.transformer_to_crs(LONLAT)(ring_x, ring_y)
    finite = np.isfinite(lon) & np.isfinite(lat)
    if not finite.any():
        raise AoiError(
            f"extent {bounds_text(bounds)} has no finite longitude/latitude in {crs_name(crs)}; "
            "choose a --crs whose projection covers the area"
        )
    if not finite.all():  # corners beyond the world's outline, as global projections have them
        return -180.0, -90.0, 180.0, 90.0
    west, east = float(lon.min()), float(lon.max())
    south, north = float(lat.min()), float(lat.max())
    if np.abs(np.diff(lon)).max() > 180:  # the outline jumps from one side of 180 to the other
        west, east = -180.0, 180.0
    if not crs.geographic:
        pole_x, pole_y = LONLAT.transformer_to_crs(crs)(np.zeros(2), np.array([-90.0, 90.0]))
        held = (pole_x >= left) & (pole_x <= right) & (pole_y >= bottom) & (pole_y <= top)
        if held.any():
            west, east = -180.0, 180.0
            south, north = (-90.0 if held[0] else south), (90.0 if held[1] else north)
    return west, south, east, north
