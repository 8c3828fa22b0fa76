"""Legends of land-cover maps, crosswalks between them, and their colour tables.

legend("worldcover").encode(codes)                     training indices 0 … K-1, 255 = ignore
crosswalk("worldcover", "crop").translate(codes)       codes of another legend
save_style(legend("cdl"), "cdl.qml")                   a style for QGIS
"""

from __future__ import annotations

from collections.abc import Mapping

from lcengine.errors import InputError
from lcengine.legends.base import IGNORE, Entry, Legend, folded
from lcengine.legends.cdl import CDL
from lcengine.legends.crosswalk import Crosswalk, grouped
from lcengine.legends.crosswalks import CROSSWALKS
from lcengine.legends.modis import IGBP, LCCS_LC, LCCS_LU, LCCS_SH, SEN12MS
from lcengine.legends.published import (
    CROP,
    DEEPGLOBE,
    DFC2020,
    DFC2020_NO_SAVANNA,
    EUCROPMAP,
    WORLDCOVER,
)
from lcengine.legends.styles import STYLES, load_style, save_style
from lcengine.legends.tables import TABLES, load_table, named

__all__ = [
    "IGNORE",
    "SEN12MS",
    "STYLES",
    "TABLES",
    "Crosswalk",
    "Entry",
    "Legend",
    "crosswalk",
    "crosswalks",
    "folded",
    "grouped",
    "legend",
    "legends",
    "load_style",
    "load_table",
    "named",
    "save_style",
]

_LEGENDS = (
    IGBP,
    LCCS_LC,
    LCCS_LU,
    LCCS_SH,
    DFC2020,
    DFC2020_NO_SAVANNA,
    EUCROPMAP,
    WORLDCOVER,
    DEEPGLOBE,
    CDL,
    CROP,
)


def legends() -> Mapping[str, Legend]:
    """All legends by name."""
    return {entry.name: entry for entry in _LEGENDS}


def legend(name: str) -> Legend:
    """The legend of that name, or `InputError` with the names there are."""
    try:
        return legends()[name]
    except KeyError:
        raise InputError(
            f"no legend is called {name!r}; there are {', '.join(legends())}"
        ) from None


def crosswalks(source: str | None = None) -> tuple[Crosswalk, ...]:
    """All crosswalks, or those from one legend."""
    return tuple(c for c in CROSSWALKS if source is None or c.source.name == source)


def crosswalk(source: str, target: str) -> Crosswalk:
    """The crosswalk between two legends by name, or `InputError` with those there are."""
    for known in crosswalks(legend(source).name):
        if known.target.name == legend(target).name:
            return known
    there = ", ".join(f"{c.source.name} → {c.target.name}" for c in CROSSWALKS)
    raise InputError(f"there is no crosswalk {source} → {target}; there are {there}")
