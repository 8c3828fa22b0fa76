"""PlanetScope scenes (PSScene, 3 m): all bands in one file, and their usable data masks.

Read are ortho scenes of four bands (blue, green, red, nir) and of eight (coastal, blue, green1,
green, yellow, red, rededge1, nir), in the layouts of Planet's order deliveries and of its Data API.
Surface reflectance (`analytic_sr`, DN * 1e-4) is taken before top-of-atmosphere (`analytic`, one
scale per band, which the item must state: it differs from scene to scene); `Asset.contract` says
`sr` or `toa`.

UDM2 has eight bands: clear, snow, shadow, light haze, heavy haze, cloud, confidence, unusable; the
older UDM only the last. Both lie on the image's grid (Planet, PlanetScope Product Specification).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lcengine.errors import ContractError, InputError
from lcengine.items import Asset, Item
from lcengine.sensors.base import (
    Band,
    Sensor,
    place_of,
    stated_orbit,
    stated_scaling,
    stated_time,
)

ITEM_TYPE = "PSScene"
SCALE = 1e-4
RADIANCE_SCALE = 0.01
"""Of DN to radiance in every `analytic` image (radiometricScaleFactor of its XML)."""
NODATA = 0.0
RESOLUTION = 3.0
ORDER: Mapping[int, tuple[str, ...]] = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green1", "green", "yellow", "red", "rededge1", "nir"),
}
"""Bands of a file by how many it has."""
MASKS: Mapping[int, tuple[str, ...]] = {
    1: ("udm_unusable",),
    8: (
        "udm_clear",
        "udm_snow",
        "udm_shadow",
        "udm_haze_light",
        "udm_haze_heavy",
        "udm_cloud",
        "udm_confidence",
        "udm_unusable",
    ),
}
"""Bands of a usable data mask by how many it has."""

_SR = re.compile(r"(^|_)sr(_|$)")
_RADIANCE = re.compile(r"\bsr\b|steradian|radiance", re.IGNORECASE)
"""Units of radiance are per steradian (sr); reflectance has none."""
_CERTAIN = ("blue", "red", "nir")
"""Common names that one band of a file alone can have."""
_COUNT = re.compile(r"(^|_)([48])b(_|$)")

BANDS = (
    *(Band(name, (), RESOLUTION) for name in ORDER[8]),
    *(
        Band(name, (), RESOLUTION, "score" if name == "udm_confidence" else "classes")
        for name in MASKS[8]
    ),
)


def recognises(stac: Mapping[str, Any]) -> bool:
    """Whether an item is a PlanetScope scene: by its type, else by the names of its assets."""
    kind = stac.get("properties", {}).get("pl:item_type")
    if kind is not None:
        return bool(kind == ITEM_TYPE)
    return any(re.search(r"_3B_Analytic|ortho_analytic_", key) for key in stac.get("assets", {}))


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A PlanetScope STAC item as an `Item`; `ContractError` where reflectance is a guess."""
    properties = stac["properties"]
    image = _image(stac)
    assets = dict(_bands(stac, image, offset))
    grid = next(iter(assets.values()))
    assets.update(_masks(stac, grid))
    state, relative = stated_orbit(properties)
    when = stated_time(properties)
    return Item(
        id=str(stac["id"]),
        sensor=SENSOR.name,
        collection=str(stac.get("collection") or SENSOR.name),
        platform=str(properties.get("platform") or "planetscope").lower(),
        datetime=when,
        bbox=tuple(float(v) for v in stac["bbox"]),  # type: ignore[arg-type]
        # Deliveries clip one scene to several areas.
        tile=f"{properties.get('pl:strip_id', '')} {grid.transform} {grid.shape}".strip(),
        sensing=when.strftime("%Y%m%dT%H%M%S.%f"),
        baseline=str(properties.get("processing:version") or ""),
        cloud_cover=properties.get("eo:cloud_cover"),
        assets=assets,
        orbit_state=state,
        relative_orbit=relative,
    )


def _rasters(stac: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, name in lower case) of the assets that are rasters on the ground."""
    for key, asset in stac["assets"].items():
        name = f"{asset.get('pl:asset_type') or ''}_{key}".lower()
        kind = str(asset.get("type") or "")
        plain = str(asset.get("href", "")).lower().partition("?")[0]
        if ("tiff" in kind or plain.endswith((".tif", ".tiff"))) and "basic_" not in name:
            yield key, name


def _image(stac: Mapping[str, Any]) -> str:
    """Key of the image: surface reflectance before top-of-atmosphere, eight bands before four."""
    found = {key: name for key, name in _rasters(stac) if "analytic" in name and "udm" not in name}
    if not found:
        raise InputError(
            f"item {stac.get('id')} has no ortho analytic image; its assets are "
            f"{', '.join(stac['assets'])}: order analytic_sr_udm2"
        )
    return max(found, key=lambda key: (_is_sr(found[key]), _count(stac, key, found[key]), key))


def _is_sr(name: str) -> bool:
    return _SR.search(name) is not None


def _entries(asset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What an asset says of its bands, in the first of the three places."""
    for name in ("raster:bands", "bands", "eo:bands"):
        if asset.get(name):
            return asset[name]  # type: ignore[no-any-return]
    return ()


def _count(stac: Mapping[str, Any], key: str, name: str) -> int:
    """How many bands an image has: as stated, else as it is called, else four."""
    stated = len(_entries(stac["assets"][key]))
    match = _COUNT.search(name)
    return stated or (int(match.group(2)) if match else 4)


def _bands(
    stac: Mapping[str, Any], key: str, override: float | None
) -> Iterator[tuple[str, Asset]]:
    asset = stac["assets"][key]
    name = f"{asset.get('pl:asset_type') or ''}_{key}".lower()
    count = _count(stac, key, name)
    if count not in ORDER:
        raise ContractError(
            f"item {stac.get('id')} asset {key} has {count} bands, expected 4 or 8; "
            "order analytic_sr_udm2 or analytic_8b_sr_udm2"
        )
    _check_entries(stac, key, count)
    place = place_of(stac, asset)
    level = "sr" if _is_sr(name) else "toa"
    for number, band in enumerate(ORDER[count], 1):
        scale, offset, nodata = stated_scaling(asset, number)
        contract = f"{level}, asset"
        if scale is None and level == "toa":
            raise ContractError(
                f"item {stac.get('id')} asset {key} states no scale of its band {number} ({band}); "
                "put the reflectanceCoefficient of the scene's XML into raster:bands, or take "
                "analytic_sr"
            )
        if scale is None:
            scale, contract = SCALE, f"{level}, default"
        if override is not None:
            offset, contract = override, f"{level}, override"
        yield (
            band,
            Asset(
                **place,
                nodata=NODATA if nodata is None else nodata,
                scale=scale,
                offset=offset or 0.0,
                contract=contract,
                band=number,
            ),
        )


def _check_entries(stac: Mapping[str, Any], key: str, count: int) -> None:
    """`ContractError` where an image says that it holds radiance, or its bands in another order."""
    asset = stac["assets"][key]
    for place in ("raster:bands", "bands", "eo:bands"):
        entries = asset.get(place) or ()
        for entry, band in zip(entries, ORDER[count], strict=False):
            unit = str(entry.get("unit") or asset.get("unit") or "")
            if _RADIANCE.search(unit) or entry.get("scale") == RADIANCE_SCALE:
                raise ContractError(
                    f"item {stac.get('id')} asset {key} is radiance ({unit or RADIANCE_SCALE}); "
                    "state the reflectanceCoefficient of the scene's XML as the scale, without a "
                    "unit, or take analytic_sr"
                )
            stated = entry.get("common_name") or entry.get("eo:common_name")
            if len(entries) == count and stated in _CERTAIN and stated != band:
                raise ContractError(
                    f"item {stac.get('id')} asset {key} says {stated} of its band {band}; expected "
                    f"the order of PlanetScope, {', '.join(ORDER[count])}"
                )


def _masks(stac: Mapping[str, Any], image: Asset) -> Iterator[tuple[str, Asset]]:
    """The bands of the usable data mask, UDM2 before UDM; none where there is no mask."""
    found = {key: name for key, name in _rasters(stac) if "udm" in name}
    if not found:
        return
    key = max(found, key=lambda key: ("udm2" in found[key], key))
    asset = stac["assets"][key]
    count = len(_entries(asset)) or (8 if "udm2" in found[key] else 1)
    if count not in MASKS:
        raise ContractError(
            f"item {stac.get('id')} asset {key} has {count} bands, expected the 8 of UDM2 or the "
            "1 of UDM; leave the asset out"
        )
    place = place_of(stac, asset)
    transform, shape = place["transform"], place["shape"]
    if (transform, shape) != (image.transform, image.shape):
        raise ContractError(
            f"item {stac.get('id')} asset {key} has {shape} pixels at {transform}, expected the "
            f"image's {image.shape} at {image.transform}; leave the asset or the item out"
        )
    for number, band in enumerate(MASKS[count], 1):
        yield (
            band,
            Asset(
                **place,
                nodata=None,  # 0 is a value of every band, whatever the item says
                scale=1.0,
                offset=0.0,
                contract="categorical",
                band=number,
                unit="number",
            ),
        )


SENSOR = Sensor(
    name="planetscope",
    title="PlanetScope reflectance",
    collections=(ITEM_TYPE, "psscene"),
    bands=BANDS,
    default_bands=ORDER[4],
    anchor=0.0,
    normalise=normalise,
    mask="udm2",
    outliers="mad:3:bright",
    recognises=recognises,
)
