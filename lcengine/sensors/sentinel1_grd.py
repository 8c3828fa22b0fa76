"""Sentinel-1 GRD on a map grid: calibrated backscatter in dB, unless the item says linear power.

GRD products as ESA delivers them (Earth Search, the Copernicus Data Space and others list their
measurement files) are refused: they lie in the geometry of the radar, placed by ground control
points, and their numbers are amplitudes before calibration. An item's transform is then only that
of its bounding box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcengine.errors import ContractError
from lcengine.items import Item
from lcengine.sensors import sentinel1_rtc
from lcengine.sensors.base import Sensor

NODATA = 0.0
MEASUREMENT = "/measurement/"
"""Folder of the images in a product as ESA delivers it (SAFE)."""


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A map-projected Sentinel-1 GRD item as an `Item`; `ContractError` in radar geometry."""
    reason = _radar_geometry(stac)
    if reason:
        raise ContractError(
            f"item {stac.get('id')} is in radar geometry ({reason}): its pixels are on no map "
            "grid; take the collection sentinel-1-rtc, or calibrate and terrain-correct it first"
        )
    return sentinel1_rtc.item_of(stac, SENSOR, offset, unit="decibel", nodata=NODATA)


def _radar_geometry(stac: Mapping[str, Any]) -> str:
    """Why an item is in radar geometry; empty where nothing says so."""
    properties = stac["properties"]
    for band in SENSOR.bands:
        asset = next((stac["assets"][k] for k in band.keys if k in stac["assets"]), None)
        if asset is None:
            continue
        grid = {
            name: asset.get(name) or properties.get(name)
            for name in ("proj:transform", "proj:shape")
        }
        if MEASUREMENT in str(asset.get("href")):
            return f"asset {band.name} is a measurement file of a GRD product"
        missing = [name for name, value in grid.items() if not value]
        if missing:
            return f"asset {band.name} has no {missing[0]}"
        a, b, _, d, e = (float(v) for v in grid["proj:transform"][:5])
        if b or d or a <= 0 or e >= 0:
            return f"asset {band.name} is not north-up"
        if properties.get("s1:shape") and sorted(properties["s1:shape"]) == sorted(
            grid["proj:shape"]
        ):
            return f"asset {band.name} has the shape of the GRD product"
    return ""


SENSOR = Sensor(
    name="sentinel-1-grd",
    title="Sentinel-1 GRD backscatter",
    collections=("sentinel-1-grd",),
    bands=sentinel1_rtc.bands(20.0),
    default_bands=("vv", "vh"),
    anchor=0.0,
    normalise=normalise,
)
