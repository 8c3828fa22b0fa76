"""Sentinel-2 L1C (top-of-atmosphere reflectance): the bands of L2A and the cirrus band B10.

Its reflectance contract is that of L2A (see `sentinel2`): the offset of -0.1 came to both levels
with processing baseline 04.00 (RADIO_ADD_OFFSET here). There is no scene classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcengine.items import Item
from lcengine.sensors import sentinel2
from lcengine.sensors.base import Band, Sensor

BANDS = (*sentinel2.OPTICAL, Band("cirrus", ("cirrus", "B10", "B10_60m"), 60.0))
SCORES = tuple(band for band in sentinel2.MASKS if band.kind == "score")


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A Sentinel-2 L1C STAC item as an `Item`; `ContractError` where reflectance is a guess."""
    return sentinel2.item_of(stac, SENSOR.name, SENSOR.bands, offset)


SENSOR = Sensor(
    name="sentinel-2-l1c",
    title="Sentinel-2 L1C top-of-atmosphere reflectance",
    collections=("sentinel-2-l1c",),
    bands=(*BANDS, *SCORES),
    default_bands=("blue", "green", "red", "nir"),
    anchor=0.0,
    normalise=normalise,
)
