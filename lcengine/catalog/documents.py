"""Catalogue documents: static catalogues and items files, local or on the web."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from lcengine.addresses import DRIVERS, is_url, redact, scrub
from lcengine.catalog.query import item_bbox
from lcengine.errors import CatalogError, HrefError, InputError
from lcengine.items import uncollected

if TYPE_CHECKING:
    from lcengine.catalog.fetch import Fetcher

THREADS = 8
CATALOGUES = ("catalog.json", "collection.json")
"""What the catalogue in a folder is called."""
UNPLACED = "lcengine:unplaced"
"""Property of items of images without a place on Earth; their bbox is the world."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C: is a drive


@dataclass(frozen=True, slots=True)
class Feature:
    """A STAC item as it was found; `base` is what its relative addresses are relative to."""

    stac: dict[str, Any]
    base: str


def is_images(source: str) -> bool:
    """Whether a local source is a folder without a catalogue, an image, or a pattern of images."""
    path = Path(source)
    if path.is_file():
        return path.suffix.lower() in DRIVERS
    if path.is_dir():
        return not any((path / name).exists() for name in CATALOGUES)
    return glob.has_magic(source) and not path.exists()


class Documents:
    """Reads documents by address. `source` may be local; `hosts` are the private hosts allowed."""

    def __init__(self, source: str, hosts: Collection[str], seconds: float) -> None:
        self.source = source
        self._hosts = hosts
        self._seconds = seconds

    @cached_property
    def fetcher(self) -> Fetcher:
        """The way to the web, made (and pystac-client imported) when first needed."""
        from lcengine.catalog.fetch import Fetcher  # noqa: PLC0415

        return Fetcher(self.source, self._hosts, self._seconds)

    def root(self) -> tuple[str, str]:
        """(text, address) of the source; a folder stands for the catalogue in it."""
        if is_url(self.source):
            return self.fetcher.request(self.source), self.source
        path = Path(self.source)
        if path.is_dir():
            inner = [path / name for name in CATALOGUES]
            path = next((p for p in inner if p.exists()), path)
        try:
            return _decode(path.read_bytes(), str(path)), os.path.abspath(path)
        except OSError as error:
            raise InputError(
                f"cannot read catalogue {path}: {error.strerror}; "
                "give the address of a STAC API, a catalogue or an items file"
            ) from error

    def read(self, address: str) -> str:
        """Text of a linked document, or `CatalogError`."""
        if is_url(address):
            return self.fetcher.request(address)
        try:
            return _decode(Path(address).read_bytes(), address)
        except OSError as error:
            raise CatalogError(
                f"{redact(self.source)} links to {address}, which cannot be read: "
                f"{error.strerror}; mend the catalogue"
            ) from error


@dataclass(frozen=True, slots=True)
class Walk:
    """Addresses of the items below a static catalogue, by the collection they hang under."""

    items: tuple[tuple[str, str | None], ...]
    collections: tuple[str, ...]

    def features(self, documents: Documents) -> Iterator[Feature]:
        """The items themselves, in catalogue order; all of them or `CatalogError`."""
        addresses = [address for address, _ in self.items]
        remote = any(map(is_url, addresses))
        fetcher = documents.fetcher if remote else None  # made here, not by several threads
        with ThreadPoolExecutor(THREADS if remote else 1) as pool:
            texts: Iterable[str] = map(documents.read, addresses)
            if remote:
                texts = pool.map(documents.read, addresses)
            for text, (address, collection) in zip(texts, self.items, strict=True):
                for stac in features_of(parse(text, address), address):
                    if collection is not None and not stac.get("collection"):
                        stac["collection"] = collection
                    yield Feature(stac, address)
                if fetcher is not None:
                    fetcher.items += 1


def walk(
    root: Mapping[str, Any], address: str, documents: Documents, wanted: Collection[str]
) -> Walk:
    """Follow child links from a catalogue; a collection that is not wanted is not entered."""
    items: dict[str, str | None] = {}
    collections: list[str] = []
    seen = {address}
    queue: deque[tuple[Mapping[str, Any], str, str | None]] = deque([(root, address, None)])
    while queue:
        node, base, collection = queue.popleft()
        if node.get("type") == "Collection":
            collection = str(node.get("id"))
            collections.append(collection)
            if wanted and collection not in wanted:
                continue
        for link in node.get("links") or ():
            if link.get("rel") not in ("child", "item"):
                continue
            target = _follow(str(link.get("href")), base)
            if link["rel"] == "item":
                items.setdefault(target, collection)
            elif target not in seen:
                seen.add(target)
                queue.append((_catalogue(documents.read(target), target), target, collection))
    return Walk(tuple(items.items()), tuple(dict.fromkeys(collections)))


def parse(text: str, address: str) -> list[Any]:
    """The JSON documents of a text: one, the members of a list, or one per line (NDJSON).

    Decided by the content, whatever the file is called.
    """
    try:
        with uncollected():
            document = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [(n, x.strip("\x1e \t\r")) for n, x in enumerate(text.split("\n"), 1)]
        lines = [(n, line) for n, line in lines if line]
        if len(lines) < 2:
            raise CatalogError(f"{redact(address)} is not JSON: {error}") from None
        return [_line(line, number, address) for number, line in lines]
    return document if isinstance(document, list) else [document]


def features_of(documents: Sequence[Any], address: str) -> list[dict[str, Any]]:
    """The STAC items in parsed documents: FeatureCollections, Features or a mixture."""
    found: list[dict[str, Any]] = []
    for document in documents:
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "FeatureCollection":
            found.extend(document.get("features") or ())
        elif kind == "Feature":
            found.append(document)
        else:
            raise CatalogError(
                f"{redact(address)} holds {kind or type(document).__name__!r}, "
                "expected STAC items (Feature or FeatureCollection) or a STAC catalogue"
            )
    for stac in found:
        check_item(stac, address)
    return found


def check_item(stac: Any, address: str) -> None:
    """Raise `CatalogError` unless `stac` has the parts that everything here relies on."""
    if not (isinstance(stac, dict) and stac.get("type") == "Feature"):
        raise CatalogError(f"{redact(address)} holds something that is no STAC item")
    parts = {"id": str, "properties": dict, "assets": dict}
    wrong = [name for name, kind in parts.items() if not isinstance(stac.get(name), kind)]
    if not wrong and all(isinstance(asset, dict) for asset in stac["assets"].values()):
        return
    raise CatalogError(
        f"{redact(address)}: item {stac.get('id')} has no valid {', '.join(wrong or ['assets'])}; "
        "expected STAC items"
    )


def has_link(document: Mapping[str, Any], rel: str) -> bool:
    """Whether a STAC document has a link of that relation."""
    return any(link.get("rel") == rel for link in document.get("links") or ())


def is_landing_page(document: Mapping[str, Any]) -> bool:
    """Whether a catalogue is the root of an API that can search, not a static catalogue."""
    return any(
        link.get("rel") == "search" and "json" in str(link.get("type"))
        for link in document.get("links") or ()
    )


def prepared(feature: Feature, *, local: bool) -> dict[str, Any]:
    """The item with a 2-D bbox and absolute asset addresses.

    Relative addresses of an item from the web stay on the web. `local`: the source is a local file,
    so `file:` addresses will be allowed; an item on the web must not make use of that.
    """
    stac, base = feature.stac, feature.base
    assets: dict[str, Any] = {}
    for key, asset in stac["assets"].items():
        href = absolute(str(asset.get("href", "")), base)
        if local and is_url(base) and not is_url(href) and href.startswith(("/", "file:")):
            raise HrefError(
                f"item {stac['id']} of {redact(base)} names the local file {href}; "
                "only a local item may, so leave that item out"
            )
        assets[key] = {**asset, "href": href}
    return {**stac, "bbox": list(item_bbox(stac)), "assets": assets}


def absolute(href: str, base: str) -> str:
    """`href` as a URL or an absolute local path, seen from the document at `base`."""
    if not is_url(base):
        if href.lower().startswith("file:"):
            return unquote(urlsplit(href).path)
        if _SCHEME.match(href):
            return href
        return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(base)), href))
    if _SCHEME.match(href):
        return href
    parts = urlsplit(base)
    # User name and password stay with the source: they must not spread into items and plans.
    plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    try:
        return urljoin(plain, href)
    except ValueError:  # malformed; refused where somebody wants to open it
        return href


def _follow(href: str, base: str) -> str:
    target = absolute(href, base)
    if is_url(target) or (not is_url(base) and not _SCHEME.match(target)):
        return target
    raise CatalogError(
        f"{redact(base)} links to {scrub(href)}, which cannot be followed from there; "
        "expected a relative or http address"
    )


def _catalogue(text: str, address: str) -> Mapping[str, Any]:
    document = next(iter(parse(text, address)), None)
    if isinstance(document, dict) and document.get("type") in ("Catalog", "Collection"):
        return document
    raise CatalogError(f"{redact(address)} is linked as a child but is no Catalog or Collection")


def _line(line: str, number: int, address: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CatalogError(
            f"{redact(address)} line {number} is not JSON: {error}; expected JSON or NDJSON"
        ) from None


def _decode(data: bytes, address: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CatalogError(
            f"{address} is not text; expected STAC as JSON or NDJSON, or stac-geoparquet in a "
            "file called .parquet"
        ) from None
