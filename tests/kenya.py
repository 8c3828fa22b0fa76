"""A country for planning: Kenya's outline by hand, and a year of Sentinel-2 items over it.

The items are laid out as Earth Search lays out `sentinel-2-l2a`; nobody opens their files. The
squares are those of the military grid (MGRS), 100 km in their UTM zone, whose rasters of 109.8 km
overlap by 9.8 km; every square is seen every five days from each orbit that reaches it.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import shapely
from pyproj import Transformer

AREA_KM2 = 582_000
"""Kenya's area; the outline's is within two per cent of it."""

# Longitude and latitude to a twentieth of a degree, the lakes and the sea left out.
OUTLINE = (
    (33.9, 0.1), (34.2, 0.5), (34.7, 1.2), (35.0, 1.9), (34.6, 3.05), (34.4, 3.7), (34.0, 4.25),
    (34.6, 4.85), (35.3, 4.95), (35.8, 5.3), (35.85, 4.75), (36.15, 4.45), (36.9, 4.45),
    (38.1, 3.6), (38.9, 3.5), (39.55, 3.4), (39.85, 3.85), (40.75, 4.25), (41.15, 3.95),
    (41.85, 3.95), (41.0, 2.8), (41.0, -0.85), (41.55, -1.65), (40.9, -2.1), (40.25, -2.6),
    (40.1, -3.3), (39.6, -4.35), (39.2, -4.7), (37.75, -3.7), (37.7, -3.1), (34.05, -1.05),
    (33.9, -0.95),
)  # fmt: skip
ZONES = (36, 37)
SQUARE, RASTER = 100_000, 109_800
YEAR = 2023
REPEAT = 10
"""Days until a satellite is back on an orbit; its twin flies it half of that later."""
SPACING, SWATH, LEAN = 2.517, 2.6, 0.22
"""Degrees of longitude from orbit to orbit at the equator and across a swath; per degree north."""

BANDS = {
    "coastal": ("B01", 60), "blue": ("B02", 10), "green": ("B03", 10), "red": ("B04", 10),
    "rededge1": ("B05", 20), "rededge2": ("B06", 20), "rededge3": ("B07", 20), "nir": ("B08", 10),
    "nir08": ("B8A", 20), "nir09": ("B09", 60), "swir16": ("B11", 20), "swir22": ("B12", 20),
}  # fmt: skip
HOST = "https://imagery.example/sentinel-s2-l2a-cogs"


def polygon():
    """The outline."""
    return shapely.Polygon(OUTLINE)


def area_km2():
    """Its area in an equal-area projection."""
    return _projected(polygon(), 4326, 6933).area / 1e6


def write_aoi(path):
    """The outline as GeoJSON."""
    Path(path).write_text(json.dumps(shapely.geometry.mapping(polygon())))
    return path


def write_items(path, days=365):
    """The items of a year's first days as one FeatureCollection; how many there are."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for item in items(days):
            file.write(",\n" if count else "\n")
            json.dump(item, file)
            count += 1
        file.write("\n]}\n")
    return count


def items(days=365):
    """The items of a year's first days, overpass by overpass."""
    reached = [(orbit, own) for orbit, own in _orbits()]
    first = dt.datetime(YEAR, 1, 1, 7, 45, tzinfo=dt.UTC)
    for day in range(days):
        for orbit, own in reached:
            for half, letter in enumerate("ab"):
                if (day + 3 * orbit + half * REPEAT // 2) % REPEAT:
                    continue
                for number, (square, seen) in enumerate(own):
                    when = first + dt.timedelta(days=day, seconds=14 * number)
                    yield _item(square, seen, f"sentinel-2{letter}", when, orbit)


def squares():
    """(tile, EPSG code, left, top) of the rasters that the outline meets."""
    outline, found = polygon(), []
    for zone in ZONES:
        stripe = shapely.box(6 * zone - 186, -9, 6 * zone - 180, 9)
        for east in range(1, 9):
            for north in range(-6, 7):
                south = north < 0
                epsg = (32700 if south else 32600) + zone
                northing = SQUARE * north + (10_000_000 if south else 0)
                square = shapely.box(
                    *np.array([east, 0, east + 1, 0]) * SQUARE + [0, northing, 0, northing + SQUARE]
                )
                if not _projected(square, epsg, 4326).intersection(stripe & outline).area:
                    continue
                left = SQUARE * east // 60 * 60
                top = -(-(northing + SQUARE) // 60) * 60
                column = "ABCDEFGHJKLMNPQRSTUVWXYZ"[(zone - 1) % 3 * 8 + east - 1]
                row = "ABCDEFGHJKLMNPQRSTUV"[(northing // SQUARE + 5 * (zone % 2 == 0)) % 20]
                found.append((f"{zone}{'M' if south else 'N'}{column}{row}", epsg, left, top))
    return found


def _orbits():
    """(orbit, [(square, its seen part in degrees)]) of the orbits that reach a square."""
    rasters = []
    for square in squares():
        _, epsg, left, top = square
        box = shapely.box(left, top - RASTER, left + RASTER, top)
        rasters.append((square, _projected(box, epsg, 4326)))
    for orbit in range(12, 18):
        middle = orbit * SPACING
        swath = shapely.Polygon(
            [
                (middle + side * SWATH / 2 + LEAN * lat, lat)
                for side, lat in ((-1, -9), (1, -9), (1, 9), (-1, 9))
            ]
        )
        own = [(square, seen & swath) for square, seen in rasters if seen.intersects(swath)]
        if own:
            yield orbit, sorted(own, key=lambda pair: -pair[1].centroid.y)


def _item(square, seen, platform, when, orbit):
    """One item with its image files and their JPEG 2000 twins."""
    tile, epsg, left, top = square
    satellite = f"S2{platform[-1].upper()}"
    name = f"{satellite}_{tile}_{when:%Y%m%d}_0_L2A"
    start = f"{when:%Y%m%d}T074501"
    folder = f"{HOST}/{tile[:2]}/{tile[2]}/{tile[3:]}/{when.year}/{when.month}/{name}"
    product = f"s3://sentinel-s2-l2a/tiles/{tile[:2]}/{tile[2]}/{tile[3:]}/{when:%Y/%m/%d}/0"
    assets = {}
    for band, (key, resolution) in {**BANDS, "scl": ("SCL", 20)}.items():
        asset = _asset(band, key, resolution, left, top)
        assets[band] = {"href": f"{folder}/{key}.tif", "type": "image/tiff", **asset}
        jp2 = f"{product}/R{resolution}m/{key}.jp2"
        assets[f"{band}-jp2"] = {"href": jp2, "type": "image/jp2", **asset}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(seen),
        "bbox": [round(v, 6) for v in seen.bounds],
        "properties": {
            "datetime": when.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "created": when.strftime("%Y-%m-%dT23:59:59.000Z"),
            "platform": platform,
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": float((7 * when.toordinal() + sum(map(ord, tile))) % 100),
            "proj:epsg": epsg,
            "grid:code": f"MGRS-{tile}",
            "mgrs:utm_zone": int(tile[:2]),
            "mgrs:latitude_band": tile[2],
            "mgrs:grid_square": tile[3:],
            "s2:processing_baseline": "05.09",
            "s2:datastrip_id": f"{satellite}_OPER_MSI_L2A_DS_2BPS_{start}_S{start}_N05.09",
            "sat:relative_orbit": orbit,
            "earthsearch:boa_offset_applied": True,
        },
        "links": [{"rel": "self", "href": f"https://api.example/v1/items/{name}"}],
        "assets": assets,
    }


def _asset(band, key, resolution, left, top):
    pixels = RASTER // resolution
    raster = {"nodata": 0, "spatial_resolution": resolution}
    if band != "scl":
        raster = {**raster, "data_type": "uint16", "bits_per_sample": 15}
        raster = {**raster, "scale": 0.0001, "offset": -0.1}
    return {
        "title": f"{band} - {resolution}m",
        "eo:bands": [{"name": key, "common_name": band, "description": band}],
        "gsd": resolution,
        "proj:shape": [pixels, pixels],
        "proj:transform": [resolution, 0, left, 0, -resolution, top],
        "raster:bands": [raster],
        "roles": ["data", "reflectance"],
    }


def _projected(shape, source, target):
    """A geometry with its vertices projected, long edges cut first."""
    step = 0.1 if source == 4326 else 10_000
    transformer = Transformer.from_crs(source, target, always_xy=True)
    dense = shapely.segmentize(shape, step)
    return shapely.transform(dense, lambda c: np.column_stack(transformer.transform(*c.T)))
