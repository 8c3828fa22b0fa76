"""Sentinel-1 RTC: terrain-corrected backscatter (gamma nought) as the Planetary Computer has it.

Files hold linear power as float32, nodata -32768, on a UTM grid of 10 m (edges at multiples of
10 m). Here also lies what the two Sentinel-1 sensors share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcengine.errors import ContractError, InputError
from lcengine.items import Asset, Item, Unit, parse_datetime
from lcengine.sensors.base import (
    Band,
    Sensor,
    no_offset,
    place_of,
    stated_orbit,
    stated_scaling,
    stated_time,
)

NODATA = -32768.0
SLICE = re.compile(r"_(\d{8}T\d{6})_\d{8}T\d{6}_")
"""Begin and end of the slice in the name of a product."""
UNITS: Mapping[str, Unit] = {
    "db": "decibel",
    "decibel": "decibel",
    "power": "power",
    "linear": "power",
    "linear power": "power",
}
"""What catalogues call the two forms of backscatter."""

POLARISATIONS = ("vv", "vh", "hh", "hv")


def bands(resolution: float) -> tuple[Band, ...]:
    """The four polarisations on a pixel grid of that resolution."""
    return tuple(Band(n, (n, n.upper()), resolution, "backscatter") for n in POLARISATIONS)


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A Sentinel-1 RTC STAC item as an `Item`; `ContractError` for an unknown unit or grid."""
    return item_of(stac, SENSOR, offset, unit="power", nodata=NODATA)


def item_of(
    stac: Mapping[str, Any],
    sensor: Sensor,
    offset: float | None,
    *,
    unit: Unit,
    nodata: float,
) -> Item:
    """A Sentinel-1 item on a map grid as an `Item` of the polarisations it has.

    `unit` and `nodata` hold where the catalogue is silent. `tile` is the relative orbit and the
    grid: archives cut one slice into tiles, and only a slice processed again has the same pixels.
    """
    no_offset(stac, offset)
    properties = stac["properties"]
    assets: dict[str, Asset] = {}
    for band in sensor.bands:
        key = next((key for key in band.keys if key in stac["assets"]), None)
        if key is not None:
            assets[band.name] = _asset(stac, key, unit, nodata)
    if not assets:
        raise InputError(
            f"item {stac.get('id')} has no polarisation {', '.join(POLARISATIONS)}; its assets are "
            f"{', '.join(stac['assets'])}"
        )
    state, relative = stated_orbit(properties)
    code = str(properties.get("grid:code") or "")
    return Item(
        id=str(stac["id"]),
        sensor=sensor.name,
        collection=str(stac.get("collection") or sensor.name),
        platform=str(properties.get("platform") or "sentinel-1").lower(),
        datetime=stated_time(properties),
        bbox=tuple(float(v) for v in stac["bbox"]),  # type: ignore[arg-type]
        tile=code.removeprefix("MGRS-") or _tile(relative, assets.values()),
        sensing=_sensing(stac),
        baseline=str(properties.get("processing:version") or ""),
        cloud_cover=None,
        assets=assets,
        orbit_state=state,
        relative_orbit=relative,
    )


def _asset(stac: Mapping[str, Any], key: str, unit: Unit, missing: float) -> Asset:
    asset = stac["assets"][key]
    place = place_of(stac, asset)
    scale, offset, nodata = stated_scaling(asset)
    stated = _unit(stac, key)
    scaled = "asset" if scale is not None else "default"
    return Asset(
        **place,
        nodata=missing if nodata is None else nodata,
        scale=1.0 if scale is None else scale,
        offset=offset or 0.0,
        contract=f"{stated or unit}, {scaled}",
        unit=stated or unit,
    )


def _unit(stac: Mapping[str, Any], key: str) -> Unit | None:
    """What the catalogue says that the numbers are, None where it does not."""
    asset = stac["assets"][key]
    holders: Sequence[Mapping[str, Any]] = (
        asset,
        *(asset.get("raster:bands") or ())[:1],
        *(asset.get("bands") or ())[:1],
    )
    text = next((str(h["unit"]) for h in holders if h.get("unit")), None)
    if text is None:
        return None
    unit = UNITS.get(text.strip().lower())
    if unit is None:
        raise ContractError(
            f"item {stac.get('id')} asset {key} is in {text!r}, expected dB or linear power; "
            "correct its unit or leave the item out"
        )
    return unit


def _tile(relative: int | None, assets: Iterable[Asset]) -> str:
    grid = next(iter(assets))
    orbit = "" if relative is None else f"R{relative:03} "
    return f"{orbit}{grid.crs} {grid.transform} {grid.shape}"


def _sensing(stac: Mapping[str, Any]) -> str:
    """Begin of the slice, the same for every reprocessing, else the item's second."""
    match = SLICE.search(str(stac["id"]))
    if match:
        return match.group(1)
    properties = stac["properties"]
    text = properties.get("start_datetime") or properties["datetime"]
    return parse_datetime(str(text)).strftime("%Y%m%dT%H%M%S")


SENSOR = Sensor(
    name="sentinel-1-rtc",
    title="Sentinel-1 RTC gamma nought",
    collections=("sentinel-1-rtc",),
    bands=bands(10.0),
    default_bands=("vv", "vh"),
    anchor=0.0,
    normalise=normalise,
)
