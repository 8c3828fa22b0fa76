"""Compositing periods: named half-open UTC intervals, made by a rule or listed by the user.

| rule | periods | names |
|---|---|---|
| `year` | calendar years | `2018` |
| `season` | December to February (DJF, of January's year), MAM, JJA, SON | `2018-DJF` |
| `month` | calendar months | `2018-04` |
| `dekad` | days 1-10, 11-20, 21-end of each month | `2018-04-d1` |
| `P16D` (any `PnD`) | n days, anchored at 1 January, the year's last one cut | `2018-01-17` |
| `10-01/06-30` | these days of every year, both included | `2017-10-01/2018-06-30` |
| a JSON file | a list of {"name" (optional), "start", "end"} | as given, else first/last day |

Rules but the last two tile time: every instant lies in exactly one period.
"""

from __future__ import annotations

import calendar
import datetime as dt
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from lcengine.errors import InputError
from lcengine.items import parse_datetime

DAY = dt.timedelta(days=1)

SEASONS = (("DJF", 12), ("MAM", 3), ("JJA", 6), ("SON", 9))

EXPECTED = (
    "year, season, month, dekad, PnD such as P16D, days of each year such as 10-01/06-30, "
    "or a JSON file that lists periods"
)

_DAYS = re.compile(r"P(\d{1,3})D")
_WINDOW = re.compile(r"(\d\d)-(\d\d)/(\d\d)-(\d\d)")

Rule = Callable[[int], Iterator["Period"]]
"""year -> its periods, ascending; they start or end in that year."""


@dataclass(frozen=True, slots=True)
class Period:
    """The interval [start, stop) in UTC, under a name that is unique in its list."""

    name: str
    start: dt.datetime
    stop: dt.datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != dt.timedelta(0) or self.stop.utcoffset() != dt.timedelta(0):
            raise InputError(
                f"period {self.name!r} is {self.start} to {self.stop}, expected times in UTC"
            )
        if self.start >= self.stop:
            raise InputError(
                f"period {self.name!r} ends at {self.stop:%Y-%m-%dT%H:%M:%SZ}, not after its start "
                f"{self.start:%Y-%m-%dT%H:%M:%SZ}; swap or widen them"
            )


@dataclass(frozen=True, slots=True)
class PeriodRule:
    """How time is cut: a rule's `text`, or the `listed` periods of a user (then text is empty).

    What a file listed is part of the value, and so of a request's identity; its path is not.
    """

    text: str
    listed: tuple[Period, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PeriodRule:
        """The rule of a text, or of the JSON file that it names; `InputError` for neither."""
        if _rule(text) is not None:
            return cls(text)
        try:
            entries = json.loads(Path(text).read_text(encoding="utf-8"))
        except OSError:
            raise InputError(
                f"period {text!r} is no rule and no readable file; expected {EXPECTED}"
            ) from None
        except ValueError as error:
            raise InputError(
                f"{text} is not JSON ({error}); expected a list such as "
                '[{"start": "2018-04-01", "end": "2018-05-15"}]'
            ) from None
        return cls("", from_json(entries, text))

    def periods(self, first: dt.datetime, last: dt.datetime) -> tuple[Period, ...]:
        """The periods that hold some of the moments first … last (both included), by start.

        `InputError` where there is none, or where the moments are not aware and in order.
        """
        if first.tzinfo is None or last.tzinfo is None or first > last:
            raise InputError(f"{first} to {last} are not two ascending times with a time zone")
        first, last = first.astimezone(dt.UTC), last.astimezone(dt.UTC)
        rule = _rule(self.text)
        candidates: Iterator[Period] | Sequence[Period] = self.listed
        if rule is not None:
            # A period of a year may begin in the year before or end in the one after.
            years = range(max(first.year - 1, 2), min(last.year + 2, dt.MAXYEAR))
            candidates = (period for year in years for period in rule(year))
        found = tuple(p for p in candidates if p.start <= last and p.stop > first)
        if not found:
            raise InputError(
                f"no period of {self.text or 'the list'} meets {first:%Y-%m-%d} to "
                f"{last:%Y-%m-%d}; choose other periods or another time"
            )
        return found

    def to_json(self) -> str | list[dict[str, str]]:
        """Identity of the rule: its text, or the listed periods."""
        return to_json(self.listed) if self.listed else self.text

    @classmethod
    def from_json(cls, data: str | list[Any]) -> PeriodRule:
        """Inverse of `to_json`; it opens no file."""
        if not isinstance(data, str):
            return cls("", from_json(data))
        if _rule(data) is None:
            raise InputError(f"period {data!r} is no rule; expected {EXPECTED}")
        return cls(data)


def parse_periods(text: str, first: dt.datetime, last: dt.datetime) -> tuple[Period, ...]:
    """The periods of rule or file `text` that meet the moments first … last (both included).

    Ascending by start. `InputError` for an unknown rule, a bad file and where no period meets.
    """
    return PeriodRule.parse(text).periods(first, last)


def to_json(periods: Sequence[Period]) -> list[dict[str, str]]:
    """Plain JSON values; they are also the content of a valid file of periods."""
    return [
        {"name": p.name, "start": _iso_time(p.start), "end": _iso_time(p.stop)} for p in periods
    ]


def from_json(entries: Any, origin: str = "list of periods") -> tuple[Period, ...]:
    """Periods of a list of {"name" (optional), "start", "end"}, ascending by start.

    `start`, `end`: ISO 8601 dates or times, UTC where they state no zone. A date as the end
    includes that day, a time as the end is excluded. Periods may overlap and leave gaps.
    `InputError` names the origin and the entry.
    """
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'{origin} is not a list of periods such as [{{"start": "2018-04-01", '
            '"end": "2018-05-15"}]'
        )
    seen: dict[str, int] = {}
    periods = []
    for number, entry in enumerate(entries, start=1):
        where = f"{origin}: entry {number}"
        period = _entry(entry, where)
        if period.name in seen:
            raise InputError(
                f"{where} has the name {period.name!r} of entry {seen[period.name]}; "
                "names must be unique"
            )
        seen[period.name] = number
        periods.append(period)
    return tuple(sorted(periods, key=lambda p: (p.start, p.stop, p.name)))


def neighbours(periods: Sequence[Period], i: int, level: int) -> tuple[dt.datetime, dt.datetime]:
    """Period i widened by `level` periods of the list on each side, as one interval [start, stop).

    At the ends of the list it is widened on one side only. What lies in gaps between the periods
    is inside.
    """
    around = periods[max(0, i - level) : i + level + 1]
    return around[0].start, max(period.stop for period in around)


def select(
    periods: Sequence[Period], times: Sequence[dt.datetime], level: int = 0
) -> tuple[tuple[int, int], ...]:
    """Per period, widened as in `neighbours`, the index range [start, stop) into `times`.

    `times`: aware and ascending, the moments of the observations. Empty ranges have start = stop.
    """
    if any(later < earlier for earlier, later in pairwise(times)):
        raise InputError("the times of the observations do not ascend; sort them")
    intervals = (neighbours(periods, i, level) for i in range(len(periods)))
    return tuple((bisect_left(times, start), bisect_left(times, stop)) for start, stop in intervals)


def _rule(text: str) -> Rule | None:
    """The regular rule of a text, None where it is something else (a path)."""
    if text in _CALENDAR:
        return _CALENDAR[text]
    if match := _DAYS.fullmatch(text):
        count = int(match[1])
        if not 1 <= count <= 366:
            raise InputError(f"period {text} has {count} days, expected P1D to P366D")
        return partial(_every, count=count)
    if match := _WINDOW.fullmatch(text):
        month, day, last_month, last_day = map(int, match.groups())
        for m, d in ((month, day), (last_month, last_day)):
            if not (1 <= m <= 12 and 1 <= d <= calendar.monthrange(2000, m)[1]):
                raise InputError(
                    f"period {text} has {m:02}-{d:02}, which is no month-day; "
                    "expected for example 10-01/06-30"
                )
        return partial(_window, first=(month, day), last=(last_month, last_day))
    return None


def _year(year: int) -> Iterator[Period]:
    yield Period(str(year), _utc(year), _utc(year + 1))


def _seasons(year: int) -> Iterator[Period]:
    for name, month in SEASONS:
        start = _utc(year - 1 if month == 12 else year, month)
        yield Period(f"{year}-{name}", start, _utc(year, month % 12 + 3))


def _months(year: int) -> Iterator[Period]:
    for month in range(1, 13):
        yield Period(f"{year}-{month:02}", _utc(year, month), _month_end(year, month))


def _dekads(year: int) -> Iterator[Period]:
    for month in range(1, 13):
        cuts = [_utc(year, month, day) for day in (1, 11, 21)]
        for number, (start, stop) in enumerate(pairwise([*cuts, _month_end(year, month)]), start=1):
            yield Period(f"{year}-{month:02}-d{number}", start, stop)


def _every(year: int, count: int) -> Iterator[Period]:
    start, end = _utc(year), _utc(year + 1)
    while start < end:
        stop = min(start + count * DAY, end)
        yield Period(start.date().isoformat(), start, stop)
        start = stop


def _window(year: int, first: tuple[int, int], last: tuple[int, int]) -> Iterator[Period]:
    """The window that begins in a year. 29 February is 1 March as a first day of a common year."""
    start = _utc(year, first[0]) + (first[1] - 1) * DAY
    end_year = year + (last < first)
    days = calendar.monthrange(end_year, last[0])[1]
    stop = _utc(end_year, last[0]) + min(last[1], days) * DAY
    if start < stop:  # 02-29/02-29 is no day of a common year
        yield Period(_span(start, stop), start, stop)


_CALENDAR: dict[str, Rule] = {
    "year": _year,
    "season": _seasons,
    "month": _months,
    "dekad": _dekads,
}


def _utc(year: int, month: int = 1, day: int = 1) -> dt.datetime:
    return dt.datetime(year, month, day, tzinfo=dt.UTC)


def _month_end(year: int, month: int) -> dt.datetime:
    return _utc(year, month) + calendar.monthrange(year, month)[1] * DAY


def _entry(entry: Any, where: str) -> Period:
    """One period of a list."""
    if not isinstance(entry, Mapping) or not {"start", "end"} <= set(entry) <= {
        "name",
        "start",
        "end",
    }:
        raise InputError(
            f'{where} is {json.dumps(entry)}, expected {{"start": …, "end": …}} and, if you like, '
            '"name"'
        )
    start = _moment(entry["start"], f"{where}: start")
    stop = _moment(entry["end"], f"{where}: end", last=True)
    name = entry.get("name")
    if name is not None and not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise InputError(f"{where}: name is {name!r}, expected a text")
    try:
        return Period(_span(start, stop) if name is None else name, start, stop)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _moment(text: Any, where: str, *, last: bool = False) -> dt.datetime:
    """A date or time as UTC; a date that ends a period stands for the end of its day."""
    try:
        when = parse_datetime(text)
        return when + DAY if last and _is_date(text) else when
    except (InputError, AttributeError, OverflowError):
        raise InputError(
            f"{where} is {text!r}, expected an ISO 8601 date or time such as 2018-04-01"
        ) from None


def _is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


def _span(start: dt.datetime, stop: dt.datetime) -> str:
    """`first day/last day` of whole days, else the two times."""
    if start.time() == stop.time() == dt.time(0):
        return f"{start.date().isoformat()}/{(stop - DAY).date().isoformat()}"
    return f"{_iso_time(start)}/{_iso_time(stop)}"


def _iso_time(when: dt.datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
