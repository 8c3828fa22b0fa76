"""`lcengine sensors`: which imagery can be read, and what a composite of it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.output import emit

if TYPE_CHECKING:
    from lcengine.sensors import Sensor


def sensors(
    name: Annotated[
        str | None, typer.Argument(help="A sensor or collection id; all sensors without it.")
    ] = None,
    json: options.AsJson = False,
) -> None:
    """Say which sensors there are: collections, bands, masks and what a composite takes."""
    from lcengine.sensors import registry, sensor

    if name is not None:
        found = describe(sensor(name))
        if json:
            emit(found, json)
            return
        bands = found.pop("bands")
        emit(found, json)
        for band, facts in bands.items():
            typer.echo(f"  {band:<18} {_band(**facts)}")
    elif json:
        emit({entry.name: describe(entry) for entry in registry().values()}, json)
    else:
        emit({entry.name: _summary(entry) for entry in registry().values()}, json)


def describe(sensor: Sensor) -> dict[str, Any]:
    """A sensor as JSON values."""
    from lcengine import masks
    from lcengine.sensors.base import QUANTITIES

    quantity = QUANTITIES[sensor.kind_of(sensor.default_bands)]
    return {
        "name": sensor.name,
        "title": sensor.title,
        "collections": list(sensor.collections),
        "pixels": {"scale": quantity.scale, "units": quantity.units, "averaged": quantity.domain},
        "default_bands": list(sensor.default_bands),
        "mask": sensor.mask,
        "outliers": sensor.outliers,
        "masks": list(masks.applicable(sensor)),
        "bands": {
            band.name: {"kind": band.kind, "resolution": band.resolution, "keys": list(band.keys)}
            for band in sensor.bands
        },
    }


def _summary(sensor: Sensor) -> str:
    bands = ", ".join(sensor.default_bands)
    return f"{sensor.title} ({bands}); mask {sensor.mask}, outliers {sensor.outliers}"


def _band(kind: str, resolution: float, keys: list[str]) -> str:
    assets = f", asset {' or '.join(keys)}" if keys else ""
    return f"{kind}, {resolution:g} m{assets}"
