"""The sensor registry: one module per sensor, each with a module-level `SENSOR`.

A new sensor is a new module in this folder; nothing else needs to know its name.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from lcengine.errors import InputError
from lcengine.items import Item
from lcengine.sensors.base import Band, FileLayout, Sensor, no_offset

__all__ = [
    "Band",
    "FileLayout",
    "Sensor",
    "collections_of",
    "normalise",
    "recognise",
    "registry",
    "sensor",
]


@cache
def registry() -> Mapping[str, Sensor]:
    """All sensors by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base")
    found = (importlib.import_module(f"{__name__}.{name}").SENSOR for name in names)
    return {entry.name: entry for entry in found}


def sensor(name: str) -> Sensor:
    """The sensor of that name or collection id, or `InputError` with the names there are."""
    for entry in registry().values():
        if name == entry.name or name in entry.collections:
            return entry
    raise InputError(f"no sensor is called {name!r}; there are {', '.join(registry())}")


def collections_of(name: str) -> tuple[str, ...]:
    """The collection ids that a name stands for: itself, and those of the sensor called so.

    A collection that is called as its sensor means that collection alone.
    """
    entry = registry().get(name)
    return (name,) if entry is None or name in entry.collections else (name, *entry.collections)


def recognise(stac: Mapping[str, Any]) -> Sensor | None:
    """The sensor of a provider's item: by its collection, else by what the item looks like."""
    collection = stac.get("collection") or ""
    found = registry().values()
    for entry in found:
        if collection == entry.name or collection in entry.collections:
            return entry
    return next((e for e in found if e.recognises is not None and e.recognises(stac)), None)


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A provider's STAC item, or one written by `Items.save`, as an `Item`.

    The sensor is chosen by the item's collection, where no sensor knows that by the item itself.
    `offset` overrides the additive reflectance offset of every optical band. Raises `InputError`
    for an unknown collection and `ContractError` where the item does not say how its numbers become
    what they measure, or lies on no map grid.
    """
    if offset is not None and not math.isfinite(offset):
        raise InputError(f"offset is {offset}, expected a number such as 0 or -0.1")
    if "lcengine:sensor" in stac.get("properties", {}):
        return _saved(Item.from_stac(stac), offset)
    entry = recognise(stac)
    if entry is not None:
        return entry.normalise(stac, offset)
    known = ", ".join(name for entry in registry().values() for name in entry.collections)
    raise InputError(
        f"item {stac.get('id')} is of collection {stac.get('collection') or ''!r}, which no sensor "
        f"reads; expected one of {known}"
    )


def _saved(item: Item, offset: float | None) -> Item:
    """An item that was normalised before; only its reflectance offset can still be overridden."""
    optical = {band.name for band in sensor(item.sensor).bands if band.kind == "reflectance"}
    if offset is None:
        return item
    if not optical:
        no_offset({"id": item.id, "collection": item.collection}, offset)
    assets = {
        band: replace(asset, offset=offset, contract="override") if band in optical else asset
        for band, asset in item.assets.items()
    }
    return replace(item, assets=assets)
