"""Plain imagery with a near-infrared band; everything else is as for `rgb`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcengine.items import Item
from lcengine.sensors import rgb
from lcengine.sensors.base import Sensor

RGBN = (*rgb.RGB, "nir")


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A STAC item of plain imagery as an `Item`; `ContractError` where numbers are a guess."""
    return rgb.item_of(stac, SENSOR, offset)


SENSOR = Sensor(
    name="rgbn",
    title="Plain imagery, red, green, blue, near infrared",
    collections=("rgbn",),
    bands=rgb.bands_of(RGBN),
    default_bands=RGBN,
    anchor=0.0,
    normalise=normalise,
)
