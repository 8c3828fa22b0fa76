"""Sentinel-2 L2A (surface reflectance) as the catalogues lay it out, and what L1C shares with it.

Read are the layouts of Earth Search (`red`), the Planetary Computer (`B04`) and the Copernicus
Data Space (`B04_10m`, JPEG 2000, STAC 1.0 and 1.1), each band at its native resolution.

Reflectance contract, in this order (per asset, recorded in `Asset.contract`):

1. the catalogue says that the offset has been applied to the COGs
   (`earthsearch:boa_offset_applied: true`; it does not cover the `*-jp2` assets);
2. the asset states its offset (`raster:bands`, or `raster:offset` of STAC 1.1);
3. the processing baseline: from 04.00 on, DN = 10000 * reflectance + 1000
   (S2 MSI ESL, Sentinel-2 L2A product format, PSD 14.9), below it no offset.

Never the acquisition date: reprocessed scenes of any date carry the new baseline.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
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

SCALE = 1e-4
OFFSET_BASELINE = (4, 0)
OFFSET = -0.1
NODATA = 0.0
PERCENT = 100.0
TILE = 109_800.0
"""Edge of an MGRS tile in metres."""
BASELINE = re.compile(r"N?(\d{1,2})[._]?(\d{2})")
SENSING = re.compile(r"_S(\d{8}T\d{6})_")

OPTICAL = tuple(
    Band(name, (name, key, f"{key}_{resolution:.0f}m"), resolution)
    for name, key, resolution in (
        ("coastal", "B01", 60.0),
        ("blue", "B02", 10.0),
        ("green", "B03", 10.0),
        ("red", "B04", 10.0),
        ("rededge1", "B05", 20.0),
        ("rededge2", "B06", 20.0),
        ("rededge3", "B07", 20.0),
        ("nir", "B08", 10.0),
        ("nir08", "B8A", 20.0),
        ("nir09", "B09", 60.0),
        ("swir16", "B11", 20.0),
        ("swir22", "B12", 20.0),
    )
)
MASKS = (
    Band("scl", ("scl", "SCL", "SCL_20m"), 20.0, "classes"),
    Band(
        "cloud_probability",
        ("cloud_probability", "cloud", "CLD_20m", "MSK_CLDPRB", "MSK_CLDPRB_20m", "CLDPRB"),
        20.0,
        "score",
    ),
    Band("cs", ("cs",), 10.0, "score"),
    Band("cs_cdf", ("cs_cdf",), 10.0, "score"),
)
BANDS = (*OPTICAL, *MASKS)


def normalise(stac: Mapping[str, Any], offset: float | None = None) -> Item:
    """A Sentinel-2 L2A STAC item as an `Item`; `ContractError` where reflectance is a guess."""
    return item_of(stac, SENSOR.name, BANDS, offset)


def item_of(
    stac: Mapping[str, Any], sensor: str, bands: Sequence[Band], offset: float | None
) -> Item:
    """A STAC item of a Sentinel-2 collection as an `Item` of those bands, as far as it has them."""
    properties = stac["properties"]
    baseline = _baseline(properties)
    assets: dict[str, Asset] = {}
    for band in bands:
        for key in (*band.keys, *(f"{key}-jp2" for key in band.keys)):
            if key in stac["assets"] and (band.kind != "score" or _has_grid(stac, key)):
                assets[band.name] = _asset(stac, band, key, baseline, offset)
                break
    if not assets:
        raise InputError(
            f"item {stac.get('id')} has no Sentinel-2 band; its assets are "
            f"{', '.join(stac['assets'])}"
        )
    tile = _tile(properties)
    state, relative = stated_orbit(properties)
    return Item(
        id=str(stac["id"]),
        sensor=sensor,
        collection=str(stac.get("collection", "")),
        platform=str(properties.get("platform") or "sentinel-2").lower(),
        datetime=stated_time(properties),
        bbox=tuple(float(v) for v in stac["bbox"]),  # type: ignore[arg-type]
        tile=_place(tile, next(iter(assets.values()))),
        sensing=_sensing(properties),
        baseline=baseline,
        cloud_cover=properties.get("eo:cloud_cover"),
        assets=assets,
        orbit_state=state,
        relative_orbit=relative,
    )


def _has_grid(stac: Mapping[str, Any], key: str) -> bool:
    """Whether an asset states its grid; scores that do not are as good as absent."""
    holders = (stac["assets"][key], stac["properties"])
    return all(any(h.get(name) for h in holders) for name in ("proj:shape", "proj:transform"))


def _asset(
    stac: Mapping[str, Any], band: Band, key: str, baseline: str, override: float | None
) -> Asset:
    asset = stac["assets"][key]
    place = place_of(stac, asset)
    _, _, nodata = stated_scaling(asset)
    if band.kind == "reflectance":
        scale, offset, contract = _reflectance(stac, key, baseline, override)
        nodata = NODATA if nodata is None else nodata
    elif band.kind == "classes":
        scale, offset, contract = 1.0, 0.0, "categorical"
        nodata = NODATA if nodata is None else nodata
    else:
        scale, offset, contract = _score(asset, band)
        if nodata == 0:
            # Catalogues state it for cloud probabilities, whose 0 is the surest clear sky; and a
            # Cloud Score+ of 0 is masked either way.
            nodata = None
    return Asset(
        **place,
        nodata=nodata,
        scale=scale,
        offset=offset,
        contract=contract,
        unit="reflectance" if band.kind == "reflectance" else "number",
    )


def _reflectance(
    stac: Mapping[str, Any], key: str, baseline: str, override: float | None
) -> tuple[float, float, str]:
    """(scale, offset, source) of an optical asset by the contract in the module's docstring."""
    scale, stated, _ = stated_scaling(stac["assets"][key])
    scale = SCALE if scale is None else scale
    if override is not None:
        return scale, override, "override"
    applied = stac["properties"].get("earthsearch:boa_offset_applied")
    if applied is True and not key.endswith("-jp2"):
        return scale, 0.0, "earthsearch:boa_offset_applied"
    number = tuple(int(p) for p in re.findall(r"\d+", baseline))
    if applied is False and number >= OFFSET_BASELINE:
        _warn_doubtful(stac, baseline)
    if stated is not None:
        return scale, stated, "asset"
    if number:
        value = OFFSET if number >= OFFSET_BASELINE else 0.0
        return scale, value, f"baseline {baseline}"
    raise ContractError(
        f"item {stac['id']} asset {key} states no reflectance offset and no processing baseline; "
        "state it with --offset 0 or --offset -0.1 (offset= in Python)"
    )


def _score(asset: Mapping[str, Any], band: Band) -> tuple[float, float, str]:
    """(scale, offset, source) of a score: a cloud probability in percent, Cloud Score+ 0…1."""
    scale, offset, _ = stated_scaling(asset)
    if scale is None:
        return 1.0, 0.0, "default"
    # What has a scale below 1 is meant as a fraction.
    unit = PERCENT if band.name == "cloud_probability" and scale < 1 else 1.0
    return scale * unit, (offset or 0.0) * unit, "asset"


def _warn_doubtful(stac: Mapping[str, Any], baseline: str) -> None:
    warnings.warn(
        f"item {stac['id']} (baseline {baseline}) says earthsearch:boa_offset_applied=false, "
        "which is sometimes wrong; if its reflectance is 0.1 too low, pass --offset 0",
        UserWarning,
        stacklevel=2,
    )


def _place(tile: str, asset: Asset) -> str:
    """The tile where an asset is all of it, else with its grid: archives cut tiles into chips."""
    edge = asset.shape[0] * asset.transform[0]
    return tile if tile and edge == TILE else f"{tile} {asset.transform} {asset.shape}".strip()


def _tile(properties: Mapping[str, Any]) -> str:
    """MGRS tile such as 31UDS, or an empty string."""
    if properties.get("grid:code"):
        return str(properties["grid:code"]).removeprefix("MGRS-")
    if properties.get("s2:mgrs_tile"):
        return str(properties["s2:mgrs_tile"])
    keys = ("mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square")
    return "".join(str(properties.get(key, "")) for key in keys)


def _baseline(properties: Mapping[str, Any]) -> str:
    """Processing baseline as 05.11, also where it is written N0511 or 0511; empty if unknown."""
    text = str(
        properties.get("s2:processing_baseline") or properties.get("processing:version") or ""
    )
    match = BASELINE.fullmatch(text)
    return f"{int(match.group(1)):02}.{match.group(2)}" if match else text


def _sensing(properties: Mapping[str, Any]) -> str:
    """Sensing start of the datastrip, the same for every reprocessing, else the item's second."""
    strips = (properties.get(name, "") for name in ("s2:datastrip_id", "eopf:datastrip_id"))
    match = SENSING.search(" ".join(map(str, strips)))
    if match:
        return match.group(1)
    return stated_time(properties).strftime("%Y%m%dT%H%M%S")


SENSOR = Sensor(
    name="sentinel-2-l2a",
    title="Sentinel-2 L2A surface reflectance",
    collections=("sentinel-2-l2a", "sentinel-2-c1-l2a"),
    bands=BANDS,
    default_bands=("blue", "green", "red", "nir"),
    anchor=0.0,
    normalise=normalise,
    mask="worldcover",
    outliers="mad:3:bright",
)
