"""Plain imagery: red, green and blue as numbers, from GeoTIFF, PNG or JPEG.

8-bit pixels are taken as they are. What 16-bit and other pixels mean differs from camera to camera,
so they need a scale that makes them numbers of -32767 … 32767 (the file's own, or `raster:scale` of
the item), with enough steps that nothing is lost; without one they are refused.

An item has one asset with all bands, in the order of its `bands`. An image without a place on Earth
has a CRS of its own, its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lcengine.errors import ContractError, MissingBandError
from lcengine.items import Asset, Item
from lcengine.sensors.base import (
    Band,
    Sensor,
    no_offset,
    place_of,
    stated_scaling,
    stated_time,
)

RGB = ("red", "green", "blue")
RANGES: Mapping[str, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "int16": (-(2**15), 2**15 - 1),
}
"""Numbers that a band can have, by type."""
STEPS = 255
"""Numbers that the range of a type must span: fewer would lose what 8 bits hold."""


def bands_of(names: Sequence[str]) -> tuple[Band, ...]:
    """Bands of numbers. Their resolution is each image's own; a metre stands for it."""
    return tuple(Band(name, (name,), 1.0, "number") for name in names)


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A STAC item of plain imagery as an `Item`; `ContractError` where numbers are a guess."""
    return item_of(stac, SENSOR, offset)


def item_of(stac: Mapping[str, Any], sensor: Sensor, offset: float | None) -> Item:
    """`normalise` for imagery with the bands of any such sensor."""
    no_offset(stac, offset)
    properties = stac["properties"]
    assets = stac["assets"]
    key = "image" if "image" in assets else next(iter(assets), "")
    asset = assets.get(key, {})
    stated = [str(band.get("name")) for band in asset.get("bands") or ()]
    missing = [name for name in sensor.band_names if name not in stated]
    if missing:
        raise MissingBandError(
            f"item {stac.get('id')} has no band {missing[0]!r} in its asset {key!r}; its `bands` "
            f"are {', '.join(stated) or 'not named'}"
        )
    when = stated_time(properties)
    return Item(
        id=str(stac["id"]),
        sensor=sensor.name,
        collection=str(stac.get("collection") or sensor.name),
        platform=str(properties.get("platform") or "image").lower(),
        datetime=when,
        bbox=tuple(float(v) for v in stac["bbox"]),  # type: ignore[arg-type]
        tile=str(stac["id"]),  # every image is a scene of its own
        sensing=when.isoformat(),
        baseline="",
        cloud_cover=properties.get("eo:cloud_cover"),
        assets={
            name: _asset(stac, asset, name, stated.index(name) + 1) for name in sensor.band_names
        },
    )


def _asset(stac: Mapping[str, Any], asset: Mapping[str, Any], name: str, number: int) -> Asset:
    place = place_of(stac, asset)
    # STAC 1.1: what all bands share may stand in the asset.
    dtype = str(asset["bands"][number - 1].get("data_type") or asset.get("data_type") or "")
    scale, offset, nodata = stated_scaling(asset, number)
    if dtype == "uint8":
        scale, offset, contract = 1.0, 0.0, "digital numbers"
    elif scale is None:
        raise ContractError(
            f"item {stac.get('id')} band {name} is {dtype or 'of no stated data_type'} without a "
            "scale, so its numbers can mean anything; state one (gdal_edit.py -scale in the file, "
            "raster:scale in STAC) or convert it to 8 bits"
        )
    else:
        offset, contract = offset or 0.0, "asset"
        _check_steps(stac, name, dtype, scale)
    return Asset(
        **place,
        nodata=nodata,
        scale=scale,
        offset=offset,
        contract=contract,
        band=number,
        unit="number",
    )


def _check_steps(stac: Mapping[str, Any], name: str, dtype: str, scale: float) -> None:
    low, high = RANGES.get(dtype, (0, 0))
    if dtype in RANGES and (high - low) * abs(scale) < STEPS:
        raise ContractError(
            f"item {stac.get('id')} band {name} has scale {scale:g}, which leaves "
            f"{int((high - low) * abs(scale)) + 1} whole numbers of {dtype}; plain imagery travels "
            "as whole numbers: state a scale that keeps at least 8 bits, such as 255 times that"
        )


SENSOR = Sensor(
    name="rgb",
    title="Plain imagery, red, green, blue",
    collections=("rgb",),
    bands=bands_of(RGB),
    default_bands=RGB,
    anchor=0.0,
    normalise=normalise,
)
