"""Search of a STAC API through pystac-client."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pystac import STACError
from pystac_client import Client

from lcengine.addresses import is_url
from lcengine.catalog.documents import absolute, check_item
from lcengine.catalog.fetch import Fetcher
from lcengine.catalog.query import (
    CLOUD_COVER,
    ORBIT_STATE,
    Condition,
    Interval,
    Query,
    parse_interval,
)
from lcengine.errors import CatalogError

PAGE = 100
"""Items per page; some servers refuse answers of more than a few megabytes."""
_QUERY_NAMES = {"=": "eq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_CQL2_NAMES = {"!=": "<>"}


def search_api(
    query: Query, fetcher: Fetcher, collections: tuple[str, ...]
) -> list[tuple[dict[str, Any], str]]:
    """All items that the API gives for a query, each with the address its links are relative to.

    `collections`: those to search, never empty. The server gets every filter that it can take
    without changing the result; callers apply all of them again. Raises `CatalogError`.
    """
    try:
        client = Client.from_file(query.source, stac_io=fetcher)
    except (STACError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"{query.shown} is not the root of a STAC API ({type(error).__name__}: {error}); "
            "check the address"
        ) from None
    if not client.conforms_to("ITEM_SEARCH"):
        client.add_conforms_to("ITEM_SEARCH")
    methods = {
        str(link.extra_fields.get("method", "GET")).upper()
        for link in client.links
        if link.rel == "search"
    }
    method = "POST" if "POST" in methods else "GET"
    search = client.search(
        method=method,
        collections=list(collections),
        bbox=query.bbox,
        datetime=_server_interval(parse_interval(query.datetime)),
        limit=PAGE,
        **(_property_filter(client, query) if method == "POST" else {}),
    )
    found: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    # Not search.pages_as_dicts(): it takes an empty page for the last one.
    for page in fetcher.get_pages(search.url, search.method, search.get_parameters()):
        for stac in page.get("features") or ():
            check_item(stac, query.source)
            base = _self_link(stac) or query.source
            found.setdefault((str(stac.get("collection")), str(stac.get("id"))), (stac, base))
    return list(found.values())


def collection_ids(root: Mapping[str, Any], address: str, fetcher: Fetcher) -> list[str]:
    """Ids of the collections that an API offers."""
    hrefs = [link.get("href") for link in root.get("links") or () if link.get("rel") == "data"]
    url = absolute(str(hrefs[0]), address) if hrefs else f"{address.rstrip('/')}/collections"
    found: list[str] = []
    for page in fetcher.get_pages(url):
        if "collections" not in page:
            raise CatalogError(f"{fetcher.source} does not list its collections; name one with -c")
        found.extend(str(collection.get("id")) for collection in page["collections"])
    return found


def _self_link(stac: Mapping[str, Any]) -> str | None:
    for link in stac.get("links") or ():
        if link.get("rel") == "self" and is_url(str(link.get("href"))):
            return str(link["href"])
    return None


def _server_interval(interval: Interval) -> str | None:
    """The closed RFC 3339 interval of the API; the end of ours is cut off afterwards."""
    if interval == (None, None):
        return None
    return "/".join(".." if t is None else _rfc3339(t) for t in interval)


def _rfc3339(when: dt.datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


def _property_filter(client: Client, query: Query) -> dict[str, Any]:
    """Arguments for the server's query extension, else its CQL2 filter, else none."""
    conditions = [condition for condition in query.where if _is_unambiguous(condition)]
    if query.max_cloud is not None:
        conditions.append((CLOUD_COVER, "<=", query.max_cloud))
    if query.orbit is not None:
        conditions.append((ORBIT_STATE, "=", query.orbit))
    if not conditions:
        return {}
    if client.conforms_to("QUERY"):
        merged: dict[str, dict[str, Any]] = {}
        for name, sign, value in conditions:
            # A repeated operator on one property would overwrite the first; it runs here instead.
            merged.setdefault(name, {}).setdefault(_QUERY_NAMES[sign], value)
        return {"query": merged}
    if client.conforms_to("FILTER"):
        args = [
            {"op": _CQL2_NAMES.get(sign, sign), "args": [{"property": name}, value]}
            for name, sign, value in conditions
        ]
        return {"filter": {"op": "and", "args": args} if len(args) > 1 else args[0]}
    return {}


def _is_unambiguous(condition: Condition) -> bool:
    """Whether a server compares as we do whatever type the property has there.

    `s2:sequence=0` is text in one catalogue and a number in another: only here is the type known.
    """
    name, sign, value = condition
    if name in ("id", "instruments"):  # no property, and a list, which servers compare as a whole
        return False
    if isinstance(value, str):
        spelled = value.lower()
        return sign in ("=", "!=") and spelled not in ("true", "false") and not _numeric(spelled)
    return sign not in ("=", "!=")


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
