"""The STAC side of the simulated archive: Sentinel-2 as on Earth Search, collections, catalogue."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from shapely.geometry import mapping

from lcengine.errors import InputError
from lcengine.simulate.sentinel2 import COLLECTION, MSI_NAME, RESOLUTION, Granule, Overpass

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
COLLECTIONS = {
    COLLECTION: "Simulated Sentinel-2 L2A surface reflectance with scene classification",
    "sentinel-1-rtc": "Simulated Sentinel-1 backscatter: gamma nought in linear power",
    "PSScene": "Simulated PlanetScope reflectance of four or eight bands with UDM2",
}
"""What each collection of the simulated world holds, by id."""
_GEOJSON = "application/geo+json"
_ITEM_LINKS = [
    {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
    {"rel": "parent", "href": "../collection.json", "type": "application/json"},
    {"rel": "collection", "href": "../collection.json", "type": "application/json"},
]
"""An item that names its collection must link to it."""
_EXTENSIONS = [
    # 1.2 is the version that has both proj:code and proj:epsg.
    "https://stac-extensions.github.io/projection/v1.2.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
]


def sentinel2_item(
    granule: Granule,
    overpass: Overpass,
    bands: tuple[str, ...],
    cloud_cover: float,
    nodata_share: float,
) -> dict[str, Any]:
    """The STAC 1.1 item of one granule, with hrefs relative to its own folder.

    `cloud_cover` and `nodata_share` are percentages.
    """
    satellite = f"S2{overpass.platform[-1].upper()}"
    geometry = granule.footprint(overpass.swath)
    time = overpass.time + timedelta(seconds=granule.delay)
    sun_elevation, sun_azimuth = overpass.sun
    baseline = overpass.processing.baseline
    start = overpass.time.strftime("%Y%m%dT%H%M%S")
    properties: dict[str, Any] = {
        "datetime": _timestamp(time),
        "platform": overpass.platform,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(cloud_cover, 4),
        "proj:epsg": granule.epsg,
        "proj:code": f"EPSG:{granule.epsg}",
        "proj:bbox": list(granule.bounds),
        "grid:code": f"MGRS-{granule.tile}",
        "view:sun_elevation": round(sun_elevation, 6),
        "view:sun_azimuth": round(sun_azimuth, 6),
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:datastrip_id": f"{satellite}_OPER_MSI_L2A_DS_SIMU_{start}_S{start}_N{baseline}",
        "s2:nodata_pixel_percentage": round(nodata_share, 4),
        "s2:sequence": "0",
    }
    if overpass.processing.offset_applied:
        properties["earthsearch:boa_offset_applied"] = True
    assets = {b: _band_asset(granule, b, overpass.processing.offset) for b in bands}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": f"{satellite}_{granule.tile}_{overpass.time:%Y%m%d}_0_L2A",
        "geometry": mapping(geometry),
        "bbox": [round(v, 7) for v in geometry.bounds],
        "properties": properties,
        "links": [],
        "assets": {**assets, "scl": _scl_asset(granule)},
        "collection": COLLECTION,
    }


def _timestamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _raster_asset(granule: Granule, name: str, resolution: int) -> dict[str, Any]:
    left, _, _, top = granule.bounds
    return {
        "href": f"./{name}.tif",
        "type": _COG,
        "gsd": resolution,
        "proj:shape": list(granule.shape(resolution)),
        "proj:transform": [resolution, 0, left, 0, -resolution, top],
    }


def _band_asset(granule: Granule, band: str, offset: float) -> dict[str, Any]:
    resolution = RESOLUTION[band]
    raster = {"nodata": 0, "data_type": "uint16", "spatial_resolution": resolution}
    return {
        **_raster_asset(granule, band, resolution),
        "title": f"{band} - {resolution}m",
        "eo:bands": [{"name": MSI_NAME[band], "common_name": band}],
        "raster:bands": [{**raster, "scale": 0.0001, "offset": offset}],
        "roles": ["data", "reflectance"],
    }


def _scl_asset(granule: Granule) -> dict[str, Any]:
    return {
        **_raster_asset(granule, "scl", 20),
        "title": "Scene classification map (SCL)",
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
        "roles": ["data"],
    }


def write_catalog(root: Path, items: list[dict[str, Any]]) -> None:
    """Write items, their collections and the catalogue as a self-contained STAC below `root`."""
    found = {name: [i for i in items if i["collection"] == name] for name in COLLECTIONS}
    names = [name for name, members in found.items() if members]
    for name in names:
        _write_collection(root, name, found[name])
    catalog = {
        "type": "Catalog",
        "id": "simulated-world",
        "stac_version": "1.1.0",
        "description": "Simulated satellite archive with known truth",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            *(
                {"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"}
                for name in names
            ),
        ],
    }
    _write_json(root / "catalog.json", catalog)


def _write_collection(root: Path, name: str, items: list[dict[str, Any]]) -> None:
    for item in items:
        linked = {**item, "links": _ITEM_LINKS}
        _write_json(root / name / item["id"] / f"{item['id']}.json", linked)
    west, south, east, north = zip(*(item["bbox"] for item in items), strict=True)
    times = sorted(item["properties"]["datetime"] for item in items)
    to_root = {"rel": "root", "href": "../catalog.json", "type": "application/json"}
    collection = {
        "type": "Collection",
        "id": name,
        "stac_version": "1.1.0",
        "description": COLLECTIONS[name],
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[min(west), min(south), max(east), max(north)]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            to_root,
            {**to_root, "rel": "parent"},
            *(
                {"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": _GEOJSON}
                for i in items
            ),
        ],
    }
    _write_json(root / name / "collection.json", collection)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n")


def items_collection(path: str | os.PathLike[str], base_url: str) -> dict[str, Any]:
    """The archive's items as one GeoJSON FeatureCollection, hrefs below `base_url`.

    `base_url` is the address or folder under which the files of the archive at `path` are reached,
    with or without a final slash. Links between files are left out, because a server writes its
    own. Raises InputError when `path` holds no simulated archive.
    """
    root = Path(path)
    files = [f for name in COLLECTIONS for f in sorted((root / name).glob("*/*.json"))]
    if not files or not (root / "catalog.json").is_file():
        raise InputError(f"{root} holds no finished simulation: write one with lcengine simulate")
    features = []
    for file in files:
        item = json.loads(file.read_text())
        folder = f"{base_url.rstrip('/')}/{item['collection']}/{item['id']}"
        for asset in item["assets"].values():
            asset["href"] = f"{folder}/{asset['href'].removeprefix('./')}"
        features.append({**item, "links": []})
    return {"type": "FeatureCollection", "features": features}
