"""What a sensor is to lcengine, and the STAC reading that all sensors share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, Protocol, TypedDict

from lcengine.errors import ContractError, InputError
from lcengine.items import Item, Unit, parse_datetime


class Normaliser(Protocol):
    """Turns a provider's STAC item into ours."""

    def __call__(self, stac: Mapping[str, Any], offset: float | None) -> Item:
        """`offset` overrides the additive reflectance offset of every optical band."""
        ...


Kind = Literal["reflectance", "backscatter", "number", "classes", "score"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """How a kind of band travels as int16: the stored integer times `scale` is in `units`.

    `domain`: where values are averaged and interpolated; `power` is the linear power behind dB.
    `floor`: least median absolute deviation that a screen takes for noise, in stored integers.
    """

    scale: float
    units: str
    floor: int
    domain: Literal["linear", "power"] = "linear"


QUANTITIES: Mapping[Kind, Quantity] = {
    "reflectance": Quantity(1e-4, "1", 450),
    "backscatter": Quantity(1e-2, "dB", 100, "power"),
    "number": Quantity(1.0, "1", 1),
}
"""The kinds of bands that products are made of.

Floors: of reflectance 150 for each visible band; of backscatter the radiometric accuracy of
Sentinel-1, 1 dB (Torres et al. 2012, Remote Sensing of Environment 120); of numbers one step.
"""


UNITS: Mapping[Kind, tuple[Unit, ...]] = {
    "reflectance": ("reflectance",),
    "backscatter": ("power", "decibel"),
    "number": ("number",),
}
"""What assets of these kinds of bands may be in."""


@dataclass(frozen=True, slots=True)
class Band:
    """A canonical band: the asset keys it is known by, and its native resolution in metres.

    There are no keys where bands share a file.

    `kind`: products are made of `reflectance`, `backscatter` and `number` (see `QUANTITIES`);
    `classes` (codes, bits) and `score` (a quantity such as a cloud probability) are what masks
    decode.
    """

    name: str
    keys: tuple[str, ...]
    resolution: float
    kind: Kind = "reflectance"


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How a file stores a band: (height, width) of its blocks, bytes per pixel once decoded.

    `stored`: bytes in the file per decoded byte, None where the header does not tell.
    """

    block: tuple[int, int]
    itemsize: int
    stored: float | None = None


TYPICAL: Mapping[str, FileLayout] = {
    "reflectance": FileLayout((1024, 1024), 2, 0.75),
    "backscatter": FileLayout((512, 512), 4, 0.85),
    "number": FileLayout((512, 512), 1, 0.6),
    "classes": FileLayout((1024, 1024), 1, 0.15),
    "score": FileLayout((1024, 1024), 1, 0.5),
}
"""Files as public archives of cloud-optimised GeoTIFFs have them, by kind of band."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """One registry entry.

    `anchor` is the offset of the native pixel grid in pixels (0: edges at multiples of the
    resolution). `mask` and `outliers` are the preset and the screens that a composite takes where
    nobody names others. `recognises`: whether an item of no known collection is of this sensor.
    """

    name: str
    title: str
    collections: tuple[str, ...]
    bands: tuple[Band, ...]
    default_bands: tuple[str, ...]
    anchor: float
    normalise: Normaliser
    mask: str = "none"
    outliers: str = "none"
    recognises: Callable[[Mapping[str, Any]], bool] | None = None

    @property
    def band_names(self) -> tuple[str, ...]:
        """Canonical names of all bands, those of masks included."""
        return tuple(band.name for band in self.bands)

    def band(self, name: str) -> Band:
        """The band of that canonical name, or `InputError`."""
        for band in self.bands:
            if band.name == name:
                return band
        raise InputError(
            f"sensor {self.name} has no band {name!r}; it has {', '.join(self.band_names)}"
        )

    def kind_of(self, bands: Sequence[str]) -> Kind:
        """The kind that bands of pixels share; `InputError` for mask bands and mixed kinds."""
        kinds = {band: self.band(band).kind for band in bands}
        for band, kind in kinds.items():
            if kind not in QUANTITIES:
                raise InputError(f"band {band!r} serves masks and cannot be composited")
        if len(set(kinds.values())) > 1:
            listed = ", ".join(f"{band} is {kind}" for band, kind in kinds.items())
            raise InputError(
                f"the bands are of several kinds ({listed}), which have no scale in common; "
                "take them one kind at a time"
            )
        return next(iter(kinds.values()))

    def layout(self, band: str) -> FileLayout:
        """How files of a band are typically stored."""
        return TYPICAL[self.band(band).kind]


def asset_crs(stac: Mapping[str, Any], asset: Mapping[str, Any]) -> str:
    """CRS of an asset as `EPSG:n` or WKT, from the projection extension in any of its versions."""
    for holder in (asset, stac.get("properties", {})):
        if holder.get("proj:code"):
            return str(holder["proj:code"])
        if holder.get("proj:epsg"):
            return f"EPSG:{int(holder['proj:epsg'])}"
        if holder.get("proj:wkt2"):
            return str(holder["proj:wkt2"])
    raise ContractError(
        f"item {stac.get('id')} states no CRS (proj:code, proj:epsg or proj:wkt2); "
        "add one to the item or leave the item out"
    )


def asset_raster(
    stac: Mapping[str, Any], asset: Mapping[str, Any]
) -> tuple[tuple[float, float, float, float, float, float], tuple[int, int]]:
    """(transform, (height, width)) of an asset from `proj:transform` and `proj:shape`."""
    properties = stac.get("properties", {})
    transform = asset.get("proj:transform") or properties.get("proj:transform")
    shape = asset.get("proj:shape") or properties.get("proj:shape")
    if not transform or not shape:
        raise ContractError(
            f"item {stac.get('id')} has an asset without proj:transform and proj:shape "
            f"({asset.get('href', '?')}); its pixel grid is unknown: add them to the item"
        )
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    if b or d or a <= 0 or e >= 0:
        raise ContractError(
            f"item {stac.get('id')} has a rotated or flipped raster {list(transform)}; "
            "expected a north-up transform"
        )
    height, width = int(shape[0]), int(shape[1])
    if not all(map(isfinite, (a, c, e, f))) or height < 1 or width < 1:
        raise ContractError(
            f"item {stac.get('id')} has {height} by {width} pixels at {list(transform)}; "
            "expected at least one pixel and finite numbers: correct the item or leave it out"
        )
    return (a, b, c, d, e, f), (height, width)


class Place(TypedDict):
    """Where an asset's pixels are: the part of an `Asset` that all sensors read alike."""

    href: str
    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]


def place_of(stac: Mapping[str, Any], asset: Mapping[str, Any]) -> Place:
    """Address and grid of an asset; `ContractError` where the item does not state them."""
    transform, shape = asset_raster(stac, asset)
    crs = asset_crs(stac, asset)
    return {"href": str(asset["href"]), "crs": crs, "transform": transform, "shape": shape}


def stated_scaling(
    asset: Mapping[str, Any], band: int = 1
) -> tuple[float | None, float | None, float | None]:
    """(scale, offset, nodata) of a band, from 1, as the asset states them, None where it is silent.

    Reads `raster:bands` (raster extension 1), `raster:scale`/`raster:offset` with `nodata`
    (raster extension 2, STAC 1.1), and `bands` of STAC 1.1, in this order. `ContractError` for a
    scale of 0 and for what is not finite: every pixel would be the same.
    """
    old_style, new_style = (_entry(asset.get(name), band) for name in ("raster:bands", "bands"))
    found: list[float | None] = []
    for old, new in (("scale", "raster:scale"), ("offset", "raster:offset"), ("nodata", "nodata")):
        values = (old_style.get(old), asset.get(new), new_style.get(new))
        value = next((v for v in values if v is not None), None)
        found.append(None if value is None else float(value))
    scale, offset, nodata = found
    if scale == 0 or not all(isfinite(v) for v in (scale, offset) if v is not None):
        raise ContractError(
            f"asset {asset.get('href', '?')} states scale {scale} and offset {offset} of its band "
            f"{band}, which make no quantity of its numbers; correct the item or leave it out"
        )
    return scale, offset, nodata


def stated_time(properties: Mapping[str, Any]) -> dt.datetime:
    """The moment of an item in UTC, the first one where it states a range (`datetime` null)."""
    text = properties.get("datetime") or properties.get("start_datetime")
    return parse_datetime(str(text))


def stated_orbit(properties: Mapping[str, Any]) -> tuple[str, int | None]:
    """(direction, relative number) of the orbit: `ascending`, `descending` or empty; maybe None."""
    number = properties.get("sat:relative_orbit")
    state = str(properties.get("sat:orbit_state") or "").lower()
    return state, None if number is None else int(number)


def no_offset(stac: Mapping[str, Any], offset: float | None) -> None:
    """`InputError` where a reflectance offset is given for what is no reflectance."""
    if offset is not None:
        raise InputError(
            f"offset is {offset:g}, and item {stac.get('id')} of {stac.get('collection')!r} has no "
            "reflectance; leave --offset out (offset= in Python)"
        )


def _entry(entries: Any, band: int) -> Mapping[str, Any]:
    return entries[band - 1] if entries and len(entries) >= band else {}
