"""When periods are: the middle of each, from its name."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.items import parse_datetime
from lcengine.periods import DAY, Period, PeriodRule, from_json

_RULES = ("year", "season", "month", "dekad")
_YEAR = re.compile(r"(\d{4})(-.+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LONGEST = 366


def middles(names: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Days to the middle of each period, from 1 January (UTC) of the year of the earliest one.

    Names are those of `lcengine.periods`, or ISO times, which are moments. None where one of them
    states no date.
    """
    steps = _steps(names)
    moments = [_middle(name, steps) for name in names]
    known = [moment for moment in moments if moment is not None]
    if not known or len(known) < len(moments):
        return None
    origin = dt.datetime(min(known).year, 1, 1, tzinfo=dt.UTC)
    return np.array([(moment - origin) / DAY for moment in known], np.float64)


def _middle(name: str, steps: int) -> dt.datetime | None:
    try:
        if "/" in name:
            start, _, end = name.partition("/")
            return _centre(from_json([{"start": start, "end": end}])[0])
        if _is_date(name):
            day = parse_datetime(name)
            cut = PeriodRule(f"P{steps}D").periods(day, day)[0]
            return _centre(cut) if cut.name == name else day + steps * DAY / 2
        if "T" in name:
            return parse_datetime(name)
    except InputError:
        return None
    match = _YEAR.fullmatch(name)
    return _calendar(int(match[1])).get(name) if match else None


def _steps(names: Sequence[str]) -> int:
    """Days of the periods that are named by their first day: the commonest distance."""
    starts = [parse_datetime(name) for name in names if _is_date(name)]
    found = Counter((late - early).days for early, late in pairwise(starts) if late > early)
    return min(found.most_common(1)[0][0], _LONGEST) if found else 1


def _is_date(name: str) -> bool:
    try:
        return _DATE.fullmatch(name) is not None and bool(dt.date.fromisoformat(name))
    except ValueError:
        return False


def _centre(period: Period) -> dt.datetime:
    return period.start + (period.stop - period.start) / 2


@lru_cache(maxsize=64)
def _calendar(year: int) -> dict[str, dt.datetime]:
    """Middles of a year's periods of all rules of the calendar, by name."""
    if not dt.MINYEAR < year < dt.MAXYEAR:
        return {}
    first = dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    last = dt.datetime(year, 12, 31, tzinfo=dt.UTC)
    return {p.name: _centre(p) for rule in _RULES for p in PeriodRule(rule).periods(first, last)}
