"""Landsat 4-9 Collection 2 Level-2 surface reflectance (30 m, pixel grid half a pixel off).

Read are the layouts of Earth Search and the Planetary Computer, whose asset keys are the common
names; the near infrared (`nir08` there) is called `nir` here, as methods know it. Reflectance is
DN * 2.75e-5 - 0.2, DN 0 is fill (USGS LSDS-1619, Landsat 8-9 Collection 2 Level 2 Science Product
Guide). Of a scene that was processed again, the newest processing counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lcengine.errors import InputError
from lcengine.items import Asset, Item
from lcengine.sensors.base import Band, Sensor, place_of, stated_scaling, stated_time

SCALE = 2.75e-5
OFFSET = -0.2
NODATA = 0.0
QA_FILL = 1.0
"""QA_PIXEL of a pixel outside the scene: the bit `fill` alone."""
RESOLUTION = 30.0
PROCESSED = re.compile(r"_\d{8}_(\d{8})_\d{2}_(?:RT|T[12])")

BANDS = (
    Band("coastal", ("coastal",), RESOLUTION),
    Band("blue", ("blue",), RESOLUTION),
    Band("green", ("green",), RESOLUTION),
    Band("red", ("red",), RESOLUTION),
    Band("nir", ("nir08", "nir"), RESOLUTION),
    Band("swir16", ("swir16",), RESOLUTION),
    Band("swir22", ("swir22",), RESOLUTION),
    Band("qa_pixel", ("qa_pixel",), RESOLUTION, "classes"),
)


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A Landsat Collection 2 Level-2 STAC item as an `Item`; TM and ETM+ have no `coastal`."""
    properties = stac["properties"]
    assets: dict[str, Asset] = {}
    for band in BANDS:
        key = next((key for key in band.keys if key in stac["assets"]), None)
        if key is not None:
            assets[band.name] = _asset(stac, key, band, offset)
    if not assets.keys() - {"qa_pixel"}:
        raise InputError(
            f"item {stac.get('id')} has no surface reflectance; its assets are "
            f"{', '.join(stac['assets'])}: take another item, or leave this one out"
        )
    path, row = (str(properties.get(f"landsat:wrs_{name}") or "") for name in ("path", "row"))
    when = stated_time(properties)
    return Item(
        id=str(stac["id"]),
        sensor=SENSOR.name,
        collection=str(stac.get("collection") or SENSOR.name),
        platform=str(properties.get("platform") or "landsat").lower(),
        datetime=when,
        bbox=tuple(float(v) for v in stac["bbox"]),  # type: ignore[arg-type]
        tile=f"{path}{row}" or f"{next(iter(assets.values())).transform}",
        sensing=when.strftime("%Y%m%d"),
        baseline=_baseline(stac),
        cloud_cover=properties.get("eo:cloud_cover"),
        assets=assets,
    )


def _asset(stac: Mapping[str, Any], key: str, band: Band, override: float | None) -> Asset:
    asset = stac["assets"][key]
    place = place_of(stac, asset)
    scale, offset, nodata = stated_scaling(asset)
    contract = "asset"
    if band.kind == "classes":
        scale, offset, contract = 1.0, 0.0, "categorical"
        nodata = QA_FILL if nodata is None else nodata
    else:
        if scale is None or offset is None:
            scale, offset, contract = SCALE, OFFSET, "Collection 2 Level-2"
        if override is not None:
            offset, contract = override, "override"
        nodata = NODATA if nodata is None else nodata
    return Asset(
        **place,
        nodata=nodata,
        scale=scale,
        offset=offset,
        contract=contract,
        unit="number" if band.kind == "classes" else "reflectance",
    )


def _baseline(stac: Mapping[str, Any]) -> str:
    """Collection number and day of processing, such as 02.20231017, as far as they are known."""
    properties = stac["properties"]
    number = str(properties.get("landsat:collection_number") or "02")
    made = str(properties.get("landsat:product_generated") or "")[:10].replace("-", "")
    if not made:
        hrefs = " ".join(str(asset.get("href")) for asset in stac["assets"].values())
        match = PROCESSED.search(f"{stac['id']} {hrefs}")
        made = match.group(1) if match else ""
    return f"{number}.{made}" if made else number


SENSOR = Sensor(
    name="landsat-c2-l2",
    title="Landsat Collection 2 Level-2 surface reflectance",
    collections=("landsat-c2-l2",),
    bands=BANDS,
    default_bands=("blue", "green", "red", "nir"),
    anchor=0.5,
    normalise=normalise,
    mask="qa_pixel",
    outliers="mad:3:bright",
)
