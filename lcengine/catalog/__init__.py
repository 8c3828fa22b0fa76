"""Search: from a question to frozen `Items`.

A source is the root of a STAC API, a static catalogue or an items file (JSON, NDJSON, or what
`Items.save` wrote), local or on the web, or a local table (stac-geoparquet) or folder of images. A
search gives every item or raises: never a partial list.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lcengine import geoparquet
from lcengine.catalog.documents import (
    UNPLACED,
    Documents,
    Feature,
    features_of,
    has_link,
    is_images,
    is_landing_page,
    parse,
    prepared,
    walk,
)
from lcengine.catalog.query import (
    CLOUD_COVER,
    ORBIT_STATE,
    Condition,
    Query,
    box_text,
    intersects,
    item_bbox,
    item_time,
    parse_interval,
    stages,
)
from lcengine.errors import CatalogError, InputError, NoItemsError
from lcengine.items import Access, Item, Items, uncollected
from lcengine.sensors import collections_of, normalise, recognise, registry

__all__ = ["Query", "Search", "parse_interval", "search", "search_query"]

TIMEOUT = 300.0
"""Seconds that a whole search may take, all pages and retries included."""
PLANETARY_COMPUTER = "planetarycomputer.microsoft.com"
PLANETARY_COMPUTER_SIGNER = "planetary_computer:sign_url"
_SIGNER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def search(  # noqa: PLR0913 (the parts of a question, then the way to ask it)
    source: str | os.PathLike[str],
    collections: Sequence[str] = (),
    *,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    max_cloud: float | None = None,
    where: Sequence[str | Condition] = (),
    orbit: str | None = None,
    offset: float | None = None,
    signer: str | None = None,
    allow_hosts: Sequence[str] = (),
    timeout: float = TIMEOUT,
) -> Items:
    """All items of a source that meet every condition, sorted, one per acquisition.

    Args:
        source: Root URL of a STAC API, or URL or path of a static catalogue or an items file.
        collections: Collection ids or names of sensors; may be left out where the source holds
            only one.
        bbox: West, south, east, north in degrees; items whose bbox meets it.
        datetime: See `parse_interval`.
        max_cloud: Greatest `eo:cloud_cover` in per cent.
        where: Conditions on item properties, such as `s2:mgrs_tile=31UDS`.
        orbit: Direction of flight, `ascending` or `descending`.
        offset: Additive reflectance offset of every optical band, against what the items say.
        signer: Import path `module:function` of a hook `href -> signed href` for reading; the
            Planetary Computer's is taken by itself.
        allow_hosts: Private hosts that the catalogue may point to.
        timeout: Seconds for the whole search.

    Raises:
        InputError: An argument is wrong, the source is missing, or no sensor reads its items.
        NoItemsError: Nothing was found; says which condition left none.
        CatalogError: The source could not be read to its end.
        ContractError: An item does not say how its numbers become reflectance.
    """
    query = Query(
        os.fspath(source),
        tuple(collections) if not isinstance(collections, str) else (collections,),
        bbox,  # type: ignore[arg-type]  # Query normalises what follows
        datetime,
        max_cloud,
        where,  # type: ignore[arg-type]
        orbit,
    )
    return search_query(
        query, offset=offset, signer=signer, allow_hosts=allow_hosts, timeout=timeout
    )


def search_query(
    query: Query,
    *,
    offset: float | None = None,
    signer: str | None = None,
    allow_hosts: Sequence[str] = (),
    timeout: float = TIMEOUT,
) -> Items:
    """`search` for a question that is already in its normal form."""
    asked = Search(query, offset=offset, signer=signer, allow_hosts=allow_hosts, timeout=timeout)
    return asked.items(query.bbox)


class Search:
    """A question for one area after another: files are read, and items normalised, only once."""

    def __init__(
        self,
        query: Query,
        *,
        offset: float | None = None,
        signer: str | None = None,
        allow_hosts: Sequence[str] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}, expected a positive number of seconds")
        if signer is not None and not _SIGNER.fullmatch(signer):
            raise InputError(f"signer is {signer!r}, expected an import path module:function")
        own = [(urlsplit(query.source).hostname or "").lower()] if query.is_remote else []
        self._hosts = tuple(dict.fromkeys([*own, *(host.lower() for host in allow_hosts)]))
        self._query, self._offset, self._signer, self._timeout = query, offset, signer, timeout
        self._found: _Found | None = None
        self._known: dict[int, Item] = {}

    def items(self, bbox: tuple[float, float, float, float] | None) -> Items:
        """The items of an area, all of them for None; raises as `search`, which has a timeout."""
        query = replace(self._query, bbox=bbox)
        found = self._found
        if found is None:
            found = _find(query, Documents(query.source, self._hosts, self._timeout))
            self._found = None if found.of_area else found
        chosen = _select(query, found)
        access, superseded = _access(query, found, self._hosts, self._signer)
        result = Items.of(self._normalised(chosen), access)
        return replace(result, superseded=tuple(sorted({*result.superseded, *superseded})))

    def _normalised(self, features: Sequence[Feature]) -> list[Item]:
        """Features as items; their identity is that of the objects while `_found` holds them."""
        if self._found is None:
            self._known = {}
        local = not self._query.is_remote
        new = [feature for feature in features if id(feature) not in self._known]
        items = _normalise((prepared(feature, local=local) for feature in new), self._offset)
        self._known.update(zip(map(id, new), items, strict=True))
        return [self._known[id(feature)] for feature in features]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a source holds. `saved`: the head of a file by `Items.save`.

    `of_area`: it is what an API gave for the area of the query alone.
    """

    features: Sequence[Feature]
    collections: tuple[str, ...]
    saved: Mapping[str, Any] | None = None
    of_area: bool = False


def _find(query: Query, documents: Documents) -> _Found:
    if geoparquet.is_table(urlsplit(query.source).path if query.is_remote else query.source):
        return _find_in_table(query)
    if not query.is_remote and is_images(query.source):
        # rasterio is imported only where images have to say themselves what they are.
        from lcengine.catalog.folder import image_features  # noqa: PLC0415

        features = image_features(query.source, query.collections)
        return _Found(features, query.collections)
    text, address = documents.root()
    parsed = parse(text, address)
    first = parsed[0] if parsed and isinstance(parsed[0], dict) else {}
    if first.get("type") in ("Catalog", "Collection"):
        if query.is_remote and is_landing_page(first):
            return _find_in_api(query, first, documents)
        return _find_in_catalogue(query, first, address, documents)
    if query.is_remote and has_link(first, "next"):
        raise CatalogError(
            f"{query.shown} is one page of several; give the root of the API and -c COLLECTION"
        )
    features = _named(query, [Feature(stac, address) for stac in features_of(parsed, address)])
    saved = first.get("lcengine")
    if isinstance(saved, Mapping):
        return _Found(features, _names(features), saved)
    _check_one_collection(query, _names(features))
    return _Found(features, _names(features))


def _find_in_table(query: Query) -> _Found:
    if query.is_remote:
        raise InputError(
            f"{query.shown} is a table on the web, and tables are read from local files; "
            "download it first"
        )
    address = os.path.abspath(query.source)
    stacs, saved = geoparquet.read(Path(address))
    features = _named(query, [Feature(stac, address) for stac in features_of(stacs, address)])
    if saved is None:
        _check_one_collection(query, _names(features))
    return _Found(features, _names(features), saved)


def _find_in_catalogue(
    query: Query, root: Mapping[str, Any], address: str, documents: Documents
) -> _Found:
    tree = walk(root, address, documents, _wanted(query))
    if not tree.items and has_link(root, "items"):
        raise CatalogError(
            f"{query.shown} is one collection of an API; give the root of the API and "
            f"-c {root.get('id')}"
        )
    _check_one_collection(query, [name for _, name in tree.items if name])
    features = _named(query, list(tree.features(documents)))
    _check_one_collection(query, _names(features))
    return _Found(features, tuple(dict.fromkeys((*tree.collections, *_names(features)))))


def _find_in_api(query: Query, root: Mapping[str, Any], documents: Documents) -> _Found:
    # pystac-client is imported only where an API is searched.
    from lcengine.catalog.api import collection_ids, search_api  # noqa: PLC0415

    wanted = _wanted(query)
    if not wanted:
        wanted = tuple(collection_ids(root, query.source, documents.fetcher))
        _check_one_collection(query, wanted)
    features = [Feature(*pair) for pair in search_api(query, documents.fetcher, wanted)]
    names = _names(features)
    if not features and query.collections:
        with suppress(CatalogError):  # only for the hint in the error that follows
            names = tuple(collection_ids(root, query.source, documents.fetcher))
    return _Found(features, names, of_area=True)


def _wanted(query: Query) -> tuple[str, ...]:
    """Ids of the collections that are asked for."""
    return tuple(id_ for name in query.collections for id_ in collections_of(name))


def _named(query: Query, features: list[Feature]) -> list[Feature]:
    """Items that name no collection get their sensor's, or the only one that is asked for."""
    asked = query.collections[0] if len(query.collections) == 1 else None
    for feature in features:
        if not feature.stac.get("collection"):
            entry = recognise(feature.stac)
            name = asked if entry is None else entry.name
            if name is not None:
                feature.stac["collection"] = name
    return features


def _names(features: Iterable[Feature]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(feature.stac.get("collection")) for feature in features))


def _check_one_collection(query: Query, names: Iterable[str]) -> None:
    """Items of different collections are mixed only where the user names them."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) > 1 and not query.collections:
        raise InputError(
            f"{query.shown} holds {len(distinct)} collections: {_listed(distinct)}; "
            "choose with -c COLLECTION"
        )


def _listed(names: Sequence[str], most: int = 12) -> str:
    """Names, those that a sensor reads first, not more than fit a message."""
    known = {name for entry in registry().values() for name in entry.collections}
    ordered = sorted(names, key=lambda name: (name not in known, name))
    return ", ".join(ordered[:most]) + (", …" if len(ordered) > most else "")


def _select(query: Query, found: _Found) -> list[Feature]:
    """The items that pass every filter, or `NoItemsError` that tells where they were lost."""
    left = list(found.features)
    unplaced = [f.stac["id"] for f in left if f.stac["properties"].get(UNPLACED)]
    if query.bbox is not None and unplaced:
        raise InputError(
            f"{query.shown} has {len(unplaced)} images without a CRS, such as {unplaced[0]}, which "
            "no area in degrees meets; leave the area out, or georeference them"
        )
    trail = [f"{len(left)} items"]
    hint = ""
    for name, test in stages(query):
        kept = [feature for feature in left if test(feature.stac)]
        trail.append(f"{len(kept)} after {name}")
        if left and not kept:
            hint = _hint(query, name, [feature.stac for feature in left])
            left = kept
            break
        left = kept
    if left:
        return left
    missing = [
        name for name in query.collections if not {*collections_of(name)} & {*found.collections}
    ]
    if missing and found.collections:
        hint = f"; there is no {', '.join(missing)}: it has {_listed(found.collections)}"
    raise NoItemsError(f"no items in {query} ({', '.join(trail)}){hint}")


def _hint(query: Query, stage: str, lost: Sequence[Mapping[str, Any]]) -> str:
    """What the items that a filter removed are like, so that the user can correct it."""
    if stage == "bbox" and query.bbox is not None:
        swapped = (query.bbox[1], query.bbox[0], query.bbox[3], query.bbox[2])
        boxes = [item_bbox(stac) for stac in lost]
        if any(intersects(box, swapped) for box in boxes):
            return "; did you swap lon/lat? bbox is west,south,east,north"
        wests, souths, easts, norths = zip(*boxes, strict=True)
        around = (min(wests), min(souths), max(easts), max(norths))
        return f"; the items lie in {box_text(around)}"
    if stage == "datetime":
        times = [item_time(stac) for stac in lost]
        return f"; the items date from {min(times):%Y-%m-%d} to {max(times):%Y-%m-%d}"
    if stage == "max_cloud":
        covers = [stac["properties"].get(CLOUD_COVER) for stac in lost]
        known = [cover for cover in covers if cover is not None]
        nothing = f"; no item has {CLOUD_COVER}: leave --max-cloud out"
        return f"; the least cloud cover is {min(known):g} %" if known else nothing
    if stage.startswith("orbit "):
        states = {str(stac["properties"].get(ORBIT_STATE)) for stac in lost} - {"None"}
        nothing = f"; no item has {ORBIT_STATE}: leave --orbit out"
        return f"; they are {', '.join(sorted(states))}" if states else nothing
    if stage.startswith("where "):
        name = next(c[0] for c in query.where if stage.startswith(f"where {c[0]}{c[1]}"))
        values = {str(stac["properties"].get(name)) for stac in lost} - {"None"}
        return f"; {name} is {', '.join(sorted(values)[:5])}" if values else f"; no item has {name}"
    return ""


def _access(
    query: Query, found: _Found, hosts: tuple[str, ...], signer: str | None
) -> tuple[Access, tuple[str, ...]]:
    """(what the reader may open, ids that the saved items had superseded).

    A saved file restores what its search was allowed, and never more: it may come from somebody
    else, so on the web its head counts for nothing, and an unknown signing hook is not imported.
    """
    if signer is None and _is_below(urlsplit(query.source).hostname, PLANETARY_COMPUTER):
        signer = PLANETARY_COMPUTER_SIGNER
    if query.is_remote or found.saved is None:
        return Access(not query.is_remote, hosts, signer), ()
    saved = found.saved
    hook = saved.get("signer")
    if signer is None and hook is not None:
        if hook != PLANETARY_COMPUTER_SIGNER:
            raise InputError(
                f"items file {query.shown} names the signing hook {hook!r}; "
                f"if you trust it, pass --signer {hook}"
            )
        signer = hook
    both = dict.fromkeys([*hosts, *map(str, saved.get("hosts") or ())])
    access = Access(saved.get("local") is True, tuple(both), signer)
    return access, tuple(map(str, saved.get("superseded") or ()))


def _is_below(host: str | None, domain: str) -> bool:
    return host is not None and (host == domain or host.endswith(f".{domain}"))


def _normalise(stacs: Iterable[Mapping[str, Any]], offset: float | None) -> list[Item]:
    """Normalised items; each kind of warning once for all of them."""
    items: list[Item] = []
    with warnings.catch_warnings(record=True) as caught, uncollected():
        warnings.simplefilter("always")
        for stac in stacs:
            try:
                items.append(normalise(stac, offset))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise CatalogError(
                    f"item {stac.get('id')} is not a valid item of collection "
                    f"{stac.get('collection')!r} ({type(error).__name__}: {error})"
                ) from error
    kinds: dict[Any, dict[str, type[Warning]]] = {}
    for entry in caught:
        kind = (entry.category, entry.filename, entry.lineno)
        kinds.setdefault(kind, {})[str(entry.message)] = entry.category
    for messages in kinds.values():
        example, category = next(iter(messages.items()))
        more = f" ({len(messages)} items; this is the first)" if len(messages) > 1 else ""
        warnings.warn(example + more, category, stacklevel=6)
    return items
