"""Items: what a catalogue offers, normalised to one frozen form whatever the provider's layout."""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, overload

from lcengine import geoparquet
from lcengine.errors import InputError, MissingBandError

GroupBy = Literal["overpass", "solar_day", "none"]

Unit = Literal["reflectance", "power", "decibel", "number"]
"""What `DN * scale + offset` of an asset is: reflectance, radar backscatter (linear power, or dB of
it), or just a number (the digital numbers of plain imagery, codes, scores)."""

OVERPASS_GAP = dt.timedelta(minutes=20)
"""Items of one platform closer than this belong to one overpass (a datatake lasts ~15 minutes)."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Asset:
    """One band of one item: where it is, its pixel grid and how its numbers become physical.

    `DN * scale + offset` is a quantity in `unit`; `contract` says which statement of the catalogue
    that came from. `shape` is (height, width), `transform` the six affine coefficients
    (a, b, c, d, e, f), `band` the file's band, from 1.
    """

    href: str
    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]
    nodata: float | None
    scale: float
    offset: float
    contract: str
    band: int = 1
    unit: Unit = "reflectance"


@dataclass(frozen=True, slots=True)
class Item:
    """One scene of one sensor; `assets` is keyed by canonical band name, `datetime` is UTC.

    `orbit_state`: `ascending`, `descending`, or empty where the catalogue does not tell.
    """

    id: str
    sensor: str
    collection: str
    platform: str
    datetime: dt.datetime
    bbox: tuple[float, float, float, float]
    tile: str
    sensing: str
    baseline: str
    cloud_cover: float | None
    assets: Mapping[str, Asset] = field(hash=False)
    orbit_state: str = ""
    relative_orbit: int | None = None

    @property
    def baseline_number(self) -> tuple[int, ...]:
        """Processing baseline as numbers, so that 05.11 is newer than 05.09; empty when unknown."""
        parts = self.baseline.split(".")
        return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()

    @property
    def scene(self) -> tuple[str, str, str, str]:
        """Identity of the acquisition, the same for every reprocessing of it."""
        return (self.sensor, self.platform, self.tile, self.sensing)

    @property
    def crs(self) -> str:
        """CRS of the item's assets (they share one in every supported sensor)."""
        return next(iter(self.assets.values())).crs

    def asset(self, band: str) -> Asset:
        """The asset of a canonical band, or `MissingBandError`."""
        try:
            return self.assets[band]
        except KeyError:
            raise MissingBandError(
                f"item {self.id} has no band {band!r}; it has {', '.join(sorted(self.assets))}"
            ) from None

    def to_stac(self) -> dict[str, Any]:
        """A valid STAC 1.1 item whose scale and offset are the resolved ones."""
        west, south, east, north = self.bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [
                "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
                "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
            ],
            "id": self.id,
            "collection": self.collection,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": list(self.bbox),
            "properties": {
                "datetime": self.datetime.isoformat().replace("+00:00", "Z"),
                "platform": self.platform,
                "eo:cloud_cover": self.cloud_cover,
                "processing:version": self.baseline,
                "lcengine:sensor": self.sensor,
                "lcengine:tile": self.tile,
                "lcengine:sensing": self.sensing,
                **({"sat:orbit_state": self.orbit_state} if self.orbit_state else {}),
                **(
                    {}
                    if self.relative_orbit is None
                    else {"sat:relative_orbit": self.relative_orbit}
                ),
            },
            "links": [],
            "assets": {name: _asset_to_stac(asset) for name, asset in self.assets.items()},
        }

    @classmethod
    def from_stac(cls, stac: Mapping[str, Any]) -> Item:
        """Read back what `to_stac` wrote (marked by `lcengine:sensor`)."""
        properties = stac["properties"]
        return cls(
            id=stac["id"],
            sensor=properties["lcengine:sensor"],
            collection=stac["collection"],
            platform=properties["platform"],
            datetime=parse_datetime(properties["datetime"]),
            bbox=tuple(stac["bbox"]),
            tile=properties["lcengine:tile"],
            sensing=properties["lcengine:sensing"],
            baseline=properties["processing:version"],
            cloud_cover=properties.get("eo:cloud_cover"),
            assets={name: _asset_from_stac(asset) for name, asset in stac["assets"].items()},
            orbit_state=properties.get("sat:orbit_state", ""),
            relative_orbit=properties.get("sat:relative_orbit"),
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What the reader may open for these items, and how.

    `local`: `file:` addresses are allowed (the catalogue itself is a local file). `hosts`: private
    hosts that are allowed (the catalogue's own, and those the user named). `signer`: import path
    `module:function` of a hook `href -> signed href` that is called inside the task.
    """

    local: bool = False
    hosts: tuple[str, ...] = ()
    signer: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Items(Sequence[Item]):
    """Frozen, sorted, de-duplicated items. `superseded` lists the ids that lost to a newer one."""

    items: tuple[Item, ...]
    access: Access = Access()
    superseded: tuple[str, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item], access: Access | None = None) -> Items:
        """Sort by time; keep one item per acquisition: the newest baseline, then the least id."""
        best: dict[tuple[str, ...], Item] = {}
        dropped: list[str] = []
        for item in sorted(items, key=_identity):
            held = best.get(item.scene)
            if held is None or item.baseline_number > held.baseline_number:
                best[item.scene] = item
            if held is not None and held.id != item.id:
                dropped.append(held.id if best[item.scene] is item else item.id)
        ordered = sorted(
            best.values(), key=lambda i: (i.datetime, i.platform, i.tile, *_identity(i))
        )
        return cls(tuple(ordered), access or Access(), tuple(sorted(set(dropped))))

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Items: ...
    def __getitem__(self, index: int | slice) -> Item | Items:
        """An item, or a slice as `Items` under the same access rules."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __repr__(self) -> str:
        if not self.items:
            return "Items(none)"
        first, last = self.items[0].datetime.date(), self.items[-1].datetime.date()
        crs = ", ".join(sorted({item.crs for item in self.items}))
        return f"Items({len(self.items)} of {self.items[0].sensor}, {first} … {last}, {crs})"

    def filter(self, keep: Callable[[Item], bool]) -> Items:
        """The items for which `keep(item)` holds, under the same access rules."""
        return replace(self, items=tuple(item for item in self.items if keep(item)))

    @property
    def epsgs(self) -> list[int]:
        """EPSG codes of the items' CRSs, one per item (items without a code are left out)."""
        codes = (item.crs.partition("EPSG:") for item in self.items)
        return [int(code) for before, _, code in codes if not before and code.isdecimal()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a STAC FeatureCollection that `Items.load` and any STAC reader understand.

        A `path` that ends in .parquet becomes stac-geoparquet.
        """
        if geoparquet.is_table(os.fspath(path)):
            geoparquet.write([item.to_stac() for item in self.items], self._head(), Path(path))
            return
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Items:
        """Read what `save` wrote; `InputError` for anything else."""
        try:
            if geoparquet.is_table(os.fspath(path)):
                features, head = geoparquet.read(Path(path))
                return cls.from_json({"lcengine": head, "features": features})
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not an items file of lcengine ({type(error).__name__}: {error}); "
                "write one with `lcengine search … -o items.json`"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The FeatureCollection of `save` as plain JSON values."""
        return {
            "type": "FeatureCollection",
            "lcengine": self._head(),
            "features": [item.to_stac() for item in self.items],
        }

    def _head(self) -> dict[str, Any]:
        """What is to be known beside the items."""
        return {
            "format": FORMAT,
            "local": self.access.local,
            "hosts": list(self.access.hosts),
            "signer": self.access.signer,
            "superseded": list(self.superseded),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Items:
        """Inverse of `to_json`."""
        head = data["lcengine"]
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}, expected {FORMAT}")
        return cls(
            tuple(Item.from_stac(feature) for feature in data["features"]),
            Access(head["local"], tuple(head["hosts"]), head["signer"]),
            tuple(head["superseded"]),
        )


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: it would walk millions of new values that are no garbage.

    Ten thousand items take a third of the time without.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def observations(
    items: Sequence[Item], groupby: GroupBy, crs: str
) -> tuple[tuple[Item, ...], tuple[int, ...]]:
    """Order items by observation and say which observation each belongs to.

    Observations ascend in time; inside one, the member that a pixel takes first comes first: the
    product's own CRS, then the newest baseline, then the id. Returns (items, observation index).
    """
    if groupby not in get_args(GroupBy):
        raise InputError(f"groupby is {groupby!r}, expected one of {', '.join(get_args(GroupBy))}")
    keys = _group_keys(items, check_groupby(groupby))
    start: dict[Any, dt.datetime] = {}
    for item, key in zip(items, keys, strict=True):
        start[key] = min(start.get(key, item.datetime), item.datetime)

    def rank(pair: tuple[Item, Any]) -> tuple[Any, ...]:
        item, key = pair
        newest_first = tuple(-number for number in item.baseline_number) or (1,)
        return (start[key], str(key), item.crs != crs, newest_first, *_identity(item))

    ordered = sorted(zip(items, keys, strict=True), key=rank)
    index = {key: i for i, key in enumerate(dict.fromkeys(key for _, key in ordered))}
    return tuple(item for item, _ in ordered), tuple(index[key] for _, key in ordered)


def _identity(item: Item) -> tuple[str, ...]:
    """A total order: ids are unique in a collection only, and mirrors share even the collection."""
    hrefs = (item.assets[band].href for band in sorted(item.assets))
    return (item.id, item.collection, item.baseline, *hrefs)


def check_items(items: object) -> None:
    """`InputError` for anything but `Items`, which alone know how their assets may be read."""
    if not isinstance(items, Items):
        raise InputError(
            f"items are a {type(items).__name__}, expected lcengine.Items; "
            "select some with items[:5] or items.filter(lambda item: …)"
        )


def check_groupby(name: str) -> GroupBy:
    """`name` if it is a grouping, else `InputError`."""
    for known in get_args(GroupBy):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"groupby is {name!r}, expected one of {', '.join(get_args(GroupBy))}")


def _group_keys(items: Sequence[Item], groupby: GroupBy) -> list[Any]:
    if groupby == "none":
        return [(item.platform, item.datetime.isoformat(), item.id) for item in items]
    if groupby == "solar_day":
        return [(item.platform, _solar_day(item)) for item in items]
    keys: dict[int, Any] = {}
    last: dict[str, tuple[dt.datetime, str]] = {}
    for i in sorted(range(len(items)), key=lambda i: (items[i].datetime, items[i].id)):
        item = items[i]
        when, key = last.get(item.platform, (None, ""))
        if when is None or item.datetime - when >= OVERPASS_GAP:
            key = item.datetime.isoformat()
        last[item.platform] = (item.datetime, key)
        keys[i] = (item.platform, key)
    return [keys[i] for i in range(len(items))]


def _solar_day(item: Item) -> str:
    west, _, east, _ = item.bbox
    longitude = (west + east + (360 if west > east else 0)) / 2  # west > east: across 180 degrees
    return (item.datetime + dt.timedelta(hours=longitude / 15)).date().isoformat()


def parse_datetime(text: str) -> dt.datetime:
    """An RFC 3339 time as aware UTC; a time without zone is taken as UTC, as STAC says."""
    try:
        when = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise InputError(
            f"datetime {text!r} is not ISO 8601; expected for example 2018-04-01T10:30:00Z"
        ) from None
    return when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)


def _asset_to_stac(asset: Asset) -> dict[str, Any]:
    return {
        "href": asset.href,
        "roles": ["data"],
        "proj:code": asset.crs,
        "proj:transform": list(asset.transform),
        "proj:shape": list(asset.shape),
        "nodata": asset.nodata,
        "raster:scale": asset.scale,
        "raster:offset": asset.offset,
        "lcengine:band": asset.band,
        "lcengine:contract": asset.contract,
        "lcengine:unit": asset.unit,
    }


def _asset_from_stac(stac: Mapping[str, Any]) -> Asset:
    return Asset(
        href=stac["href"],
        crs=stac["proj:code"],
        transform=tuple(stac["proj:transform"]),
        shape=tuple(stac["proj:shape"]),
        nodata=stac.get("nodata"),
        scale=stac["raster:scale"],
        offset=stac["raster:offset"],
        contract=stac["lcengine:contract"],
        band=stac["lcengine:band"],
        unit=stac.get("lcengine:unit", "reflectance"),
    )
