"""Folders of plain images as catalogues: one item per GeoTIFF, PNG or JPEG.

Nothing but the files' headers is read. Bands are those that the file calls red, green, blue and
nir, else its first ones in that order. The time is that of the TIFF tag, else a date in the file's
name (2018-04-01 or 20180401), else 1970-01-01.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcengine.addresses import DRIVERS
from lcengine.catalog.documents import UNPLACED, Feature
from lcengine.crs import lonlat_box, pixel_crs, resolve_crs
from lcengine.errors import ContractError, InputError
from lcengine.imagefile import Header, header
from lcengine.items import parse_datetime

COLLECTIONS = ("rgb", "rgbn")
EPOCH = "1970-01-01T00:00:00Z"

# Years of photographs: cameras without a clock write 0000, and most numbers are no dates.
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_TAG = re.compile(r"((?:19|20)\d{2}):(\d{2}):(\d{2}) (\d{2}:\d{2}:\d{2})")
_NAMES = ("red", "green", "blue", "nir")


def image_features(source: str, collections: Sequence[str]) -> list[Feature]:
    """Items of the images in a folder (not in those below), of a pattern or one file; by name.

    `InputError` where there is none, or unless the only collection is `rgb` or `rgbn`.
    """
    pattern = source
    if not glob.has_magic(source) or Path(source).exists():
        inside = "*" if Path(source).is_dir() else ""
        pattern = os.path.join(glob.escape(source), inside).rstrip(os.sep)
    found = sorted(p for p in glob.glob(pattern) if Path(p).suffix.lower() in DRIVERS)
    if not found:
        raise InputError(
            f"cannot read catalogue {source}: it has neither catalog.json nor images "
            f"({', '.join(DRIVERS)}); give the address of a STAC API, a catalogue or an items file"
        )
    if len(collections) != 1 or collections[0] not in COLLECTIONS:
        raise InputError(
            f"{source} holds {len(found)} images and no catalogue; say what they are: -c rgb or "
            "-c rgbn (collections=['rgb'] in Python)"
        )
    paths = [Path(os.path.abspath(path)) for path in found]
    return [
        Feature(_stac(path, name, collections[0]), str(path))
        for path, name in zip(paths, _ids(paths), strict=True)
    ]


def _ids(paths: Sequence[Path]) -> list[str]:
    """Names of the files; where two folders have the same one, paths below what they share."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def _stac(path: Path, name: str, collection: str) -> dict[str, Any]:
    found = header(path)
    placed = found.crs is not None
    crs = found.crs or pixel_crs(name)
    bbox: tuple[float, ...] = (-180.0, -90.0, 180.0, 90.0)
    if placed:
        a, b, left, d, e, top = found.transform
        if b or d or a <= 0 or e != -a:
            raise ContractError(
                f"{path} has the transform {found.transform}, expected north-up square pixels; "
                "rectify it, e.g. with gdalwarp"
            )
        height, width = found.shape
        bounds = (left, top + height * e, left + width * a, top)
        bbox = lonlat_box(bounds, resolve_crs(crs))
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": collection,
        "bbox": list(bbox),
        "properties": {"datetime": _time(path, found), UNPLACED: not placed},
        "assets": {
            "image": {
                "href": str(path),
                "proj:wkt2": resolve_crs(crs).to_wkt() if not placed else None,
                "proj:code": crs if placed else None,
                "proj:transform": list(found.transform),
                "proj:shape": list(found.shape),
                "bands": _bands(path, found, collection),
            }
        },
    }


def _bands(path: Path, found: Header, collection: str) -> list[dict[str, Any]]:
    """Bands of the file in its order, named."""
    count = {"rgb": 3, "rgbn": 4}[collection]
    usable = [i for i, colour in enumerate(found.colours) if colour != "alpha"]
    if len(usable) < count:
        # Writers of four bytes a pixel call the fourth alpha unless told otherwise.
        remedy = (
            "if the last band is no alpha, gdal_edit.py -colorinterp_4 undefined says so, else "
        )
        raise ContractError(
            f"{path} has {len(usable)} bands beside alpha ({', '.join(found.colours)}), expected "
            f"{count} for {collection}; {remedy if len(found.colours) == count else ''}leave it "
            "out or choose another collection"
        )
    named = {i: c for i, c in enumerate(found.colours) if c in ("red", "green", "blue")}
    if sorted(named.values()) != ["blue", "green", "red"]:
        named = dict(zip(usable, _NAMES, strict=False))
    rest = [i for i in usable if i not in named]
    infrared = [i for i in rest if found.colours[i] == "nir"]
    # A band that the file calls red edge or short wave is no stand-in.
    infrared += [i for i in rest if found.colours[i] in ("undefined", "gray")]
    if "nir" not in named.values() and infrared:
        named[infrared[0]] = "nir"
    return [
        {
            "name": named.get(i, found.colours[i]),
            "data_type": dtype,
            "nodata": found.nodata,
            **_scaling(found, i),
        }
        for i, dtype in enumerate(found.dtypes)
    ]


def _scaling(found: Header, band: int) -> dict[str, float]:
    """The file's own scale and offset; GDAL gives 1 and 0 where there are none."""
    scale, offset = found.scales[band], found.offsets[band]
    return {} if (scale, offset) == (1, 0) else {"raster:scale": scale, "raster:offset": offset}


def _time(path: Path, found: Header) -> str:
    tag, date = _TAG.fullmatch(found.time), _DATE.search(path.stem)
    stated = ["{}-{}-{}T{}Z".format(*tag.groups())] if tag else []
    stated += ["{}-{}-{}T00:00:00Z".format(*date.groups())] if date else []
    for text in stated:
        with suppress(InputError):  # the 31st of February is a number, too
            parse_datetime(text)
            return text
    return EPOCH
