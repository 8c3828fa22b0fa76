"""The question a search asks: its normal form, its time interval and its filters on STAC items."""

from __future__ import annotations

import calendar
import datetime as dt
import hashlib
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from lcengine.addresses import is_url, redact, scrub
from lcengine.aoi import Aoi
from lcengine.errors import CatalogError, InputError
from lcengine.items import parse_datetime
from lcengine.sensors import collections_of

BBox = tuple[float, float, float, float]
Value = str | int | float
Condition = tuple[str, str, Value]
Interval = tuple[dt.datetime | None, dt.datetime | None]
Stac = Mapping[str, Any]

CLOUD_COVER = "eo:cloud_cover"
ORBIT_STATE = "sat:orbit_state"
ORBITS = ("ascending", "descending")
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([^\s=<>!]+)\s*(!=|<=|>=|=|<|>)\s*([^\s=<>!](?:.*\S)?)\s*")
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")


@dataclass(frozen=True, slots=True)
class Query:
    """What the user asked, normalised on construction and printable without its secrets.

    `bbox` is west, south, east, north in degrees; `datetime` the interval as given; `max_cloud` per
    cent; `orbit` the direction of flight, `ascending` or `descending`; `where` conditions on item
    properties or the `id`, all of which must hold. A property that an item lacks fails every
    condition, as it does in the query and filter extensions of STAC APIs.
    """

    source: str = field(repr=False)
    collections: tuple[str, ...] = ()
    bbox: BBox | None = None
    datetime: str | None = None
    max_cloud: float | None = None
    where: tuple[Condition, ...] = ()
    orbit: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "source", _normal_source(os.fspath(self.source)))
        named = (part for name in _listed(self.collections) for part in name.split(","))
        put(self, "collections", tuple(sorted({name.strip() for name in named})))
        if self.bbox is not None:
            put(self, "bbox", Aoi.from_bbox(self.bbox).bounds)
        parse_interval(self.datetime)
        if self.max_cloud is not None:
            put(self, "max_cloud", _percent(self.max_cloud))
        if self.orbit not in (None, *ORBITS):
            raise InputError(f"orbit is {self.orbit!r}, expected {' or '.join(ORBITS)}")
        given = _listed(self.where)
        parsed = (self.parse_where(c) if isinstance(c, str) else _checked(c) for c in given)
        put(self, "where", tuple(sorted(parsed, key=repr)))

    @classmethod
    def parse_where(cls, text: str) -> Condition:
        """`name=value` (or `!=`, `<`, `<=`, `>`, `>=`) as (name, operator, value).

        A value that is a number in its usual spelling becomes one; `05.11` stays text.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise InputError(
                f"condition {text!r} is not NAME OPERATOR VALUE with one of "
                f"{' '.join(OPERATORS)}; for example s2:mgrs_tile=31UDS"
            )
        name, sign, value = match.groups()
        return name, sign, _number(value)

    @property
    def is_remote(self) -> bool:
        """Whether the source is an address on the web rather than a local file."""
        return is_url(self.source)

    @property
    def shown(self) -> str:
        """The source without user name, password and values of the query string."""
        return redact(self.source)

    def to_json(self) -> dict[str, Any]:
        """JSON values that identify the request; equal for equal questions, free of secrets."""
        values: dict[str, Any] = {
            "source": self.shown if self.is_remote else os.path.abspath(self.source),
            "collections": list(self.collections),
            "bbox": None if self.bbox is None else list(self.bbox),
            "datetime": self.datetime,
            "max_cloud": self.max_cloud,
            "where": [list(condition) for condition in self.where],
            "orbit": self.orbit,
        }
        secret = urlsplit(self.source).query if self.is_remote else ""
        if secret:
            # Two addresses that differ only in their query string are different questions.
            values["source_digest"] = hashlib.sha256(secret.encode()).hexdigest()[:8]
        return values

    def __str__(self) -> str:
        parts = [self.shown]
        if self.collections:
            parts.append(f"collections {','.join(self.collections)}")
        if self.bbox is not None:
            parts.append(f"bbox {box_text(self.bbox)}")
        if self.datetime is not None:
            parts.append(f"datetime {self.datetime}")
        if self.max_cloud is not None:
            parts.append(f"max_cloud {self.max_cloud:g}")
        if self.orbit is not None:
            parts.append(f"orbit {self.orbit}")
        parts.extend(f"where {name}{sign}{value}" for name, sign, value in self.where)
        return ", ".join(parts)


def parse_interval(text: str | None) -> Interval:
    """A time interval as half-open UTC [start, end), None for an open side.

    Forms: `2018`, `2018-04`, `2018-04-01`, `a/b`, `../b`, `a/..` with a, b dates of these forms or
    RFC 3339 times. A date as the end includes all of that year, month or day; a time as the end is
    excluded. Raises `InputError` for anything else and for an empty interval.
    """
    if text is None:
        return None, None
    sides = [side.strip() for side in text.split("/")]
    if len(sides) > 2 or (len(sides) == 1 and not _DATE.fullmatch(sides[0])):
        raise _bad_interval(text, "is not an interval")
    start = None if sides[0] in ("", "..") else _moment(sides[0], text, upper=False)
    end = None if sides[-1] in ("", "..") else _moment(sides[-1], text, upper=True)
    if start is None and end is None:
        raise _bad_interval(text, "is open on both sides")
    if start is not None and end is not None and start >= end:
        raise _bad_interval(text, "ends before it starts")
    return start, end


def _moment(side: str, text: str, *, upper: bool) -> dt.datetime:
    match = _DATE.fullmatch(side)
    if match is None:
        if "T" not in side.upper():
            raise _bad_interval(text, f"has {side!r}, which is no date")
        return parse_datetime(side.upper())
    year, month, day = (None if part is None else int(part) for part in match.groups())
    try:
        first = dt.datetime(year or 0, month or 1, day or 1, tzinfo=dt.UTC)
        if not upper:
            return first
        days = 1 if day else calendar.monthrange(first.year, first.month)[1]
        if month is None:
            days = 366 if calendar.isleap(first.year) else 365
        return first + dt.timedelta(days=days)
    except (ValueError, OverflowError):
        raise _bad_interval(text, f"has {side!r}, which is no date") from None


def _bad_interval(text: str, why: str) -> InputError:
    return InputError(
        f"datetime {text!r} {why}; give for example 2018, 2018-04, 2018-04-01, "
        "2018-04-01/2018-09-30, 2018-04-01/.. or times such as 2018-04-01T10:30:00Z/.."
    )


def stages(query: Query) -> Iterator[tuple[str, Callable[[Stac], bool]]]:
    """(name, test of a STAC item) of every filter of a query, in the order of application."""
    if query.collections:
        wanted = {id_ for name in query.collections for id_ in collections_of(name)}
        yield "collections", lambda stac: stac.get("collection") in wanted
    if query.bbox is not None:
        bbox = query.bbox
        yield "bbox", lambda stac: intersects(item_bbox(stac), bbox)
    if query.datetime is not None:
        interval = parse_interval(query.datetime)
        yield "datetime", lambda stac: inside(item_time(stac), interval)
    if query.max_cloud is not None:
        limit: Condition = (CLOUD_COVER, "<=", query.max_cloud)
        yield "max_cloud", lambda stac: holds(stac, limit)
    if query.orbit is not None:
        flown: Condition = (ORBIT_STATE, "=", query.orbit)
        yield f"orbit {query.orbit}", lambda stac: holds(stac, flown)
    for condition in query.where:
        name, sign, value = condition
        yield f"where {name}{sign}{value}", partial(holds, condition=condition)


def holds(stac: Stac, condition: Condition) -> bool:
    """Whether an item's property, or its id, meets a condition; its own type decides how.

    A list equals each of its members.
    """
    name, sign, wanted = condition
    have = stac.get("id") if name == "id" else stac["properties"].get(name)
    if have is None:
        return False
    if isinstance(have, list):  # one of several, such as `instruments`
        return (str(wanted) in map(str, have)) == (sign != "!=") and sign in ("=", "!=")
    if isinstance(have, bool):
        return OPERATORS[sign](str(have).lower(), str(wanted).lower())
    if isinstance(have, int | float):
        try:
            return OPERATORS[sign](have, float(wanted))
        except ValueError:
            return sign == "!="
    return OPERATORS[sign](str(have), str(wanted))


def item_bbox(stac: Stac) -> BBox:
    """West, south, east, north of an item: its bbox without heights, else of its geometry."""
    box = stac.get("bbox")
    try:
        if box:
            values = [float(v) for v in box]
            west, south, east, north = values if len(values) == 4 else (*values[:2], *values[3:5])
            return west, south, east, north
        x, y = zip(*_positions(stac.get("geometry") or {}), strict=True)
    except (TypeError, ValueError):
        raise CatalogError(
            f"item {stac.get('id')} has neither a usable bbox nor a geometry; add one to the item"
        ) from None
    return min(x), min(y), max(x), max(y)


def _positions(geometry: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    for part in geometry.get("geometries") or ():
        yield from _positions(part)
    stack = [geometry.get("coordinates") or []]
    while stack:
        node = stack.pop()
        if node and isinstance(node[0], int | float):
            yield float(node[0]), float(node[1])
        else:
            stack.extend(node)


def item_time(stac: Stac) -> dt.datetime:
    """The moment an item was sensed, or began to be where it states only a range."""
    properties = stac["properties"]
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        return parse_datetime(str(text))
    except InputError:
        raise CatalogError(
            f"item {stac.get('id')} has datetime {text!r}, expected an RFC 3339 time; correct it"
        ) from None


def intersects(item: BBox, bbox: BBox) -> bool:
    """Whether two boxes meet; an item's west > east means that it crosses the antimeridian."""
    west, south, east, north = item
    if south > bbox[3] or north < bbox[1]:
        return False
    if west > east:
        return west <= bbox[2] or east >= bbox[0]
    return west <= bbox[2] and east >= bbox[0]


def inside(when: dt.datetime, interval: Interval) -> bool:
    """Whether a moment lies in a half-open interval."""
    start, end = interval
    return (start is None or when >= start) and (end is None or when < end)


def box_text(box: Sequence[float]) -> str:
    """A bbox as it is typed on the command line."""
    return ",".join(f"{value:.10g}" for value in box)


def _normal_source(source: str) -> str:
    text = source.strip()
    if not text:
        raise InputError("the catalogue is empty; give the address of a STAC API, or a file")
    if text.lower().startswith("file://"):
        return unquote(urlsplit(text).path)
    if not is_url(text) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise InputError(
            f"catalogue {scrub(text)} has scheme {text.split(':')[0]!r}; "
            "expected http, https or a local path"
        )
    if is_url(text) and not _hostname(text):
        raise InputError(f"catalogue {scrub(text)} names no host; give for example https://host/v1")
    return text if is_url(text) else os.path.expanduser(text)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _listed(value: Any) -> Iterable[Any]:
    """One string is one entry, not its letters."""
    return (value,) if isinstance(value, str) else value


def _percent(value: float) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 100):
        raise InputError(f"max_cloud is {value}, expected a percentage between 0 and 100")
    return number


def _checked(condition: Sequence[Any]) -> Condition:
    if len(condition) != 3 or condition[1] not in OPERATORS:
        raise InputError(
            f"condition {condition!r} is not (name, operator, value) with one of "
            f"{' '.join(OPERATORS)}"
        )
    name, sign, value = condition
    return str(name), str(sign), value


def _number(text: str) -> Value:
    """`text` as a number where printing that number gives `text` back, else as it is."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if repr(number) == text and math.isfinite(number):
            return number
    return text
