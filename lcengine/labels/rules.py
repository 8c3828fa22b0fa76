"""Which code, priority and shape the features of a layer get."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, TypeGuard

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from lcengine.errors import InputError
from lcengine.legends import Legend, folded
from lcengine.legends import named as made

IGNORED = "ignore"
"""As a class: features that are left out, as though they were not there."""
_WORDS = {"classes": "map", "value": "class"}
"""Members of a rule that files and the command line call otherwise."""
_SHOWN = 8
_CODES, _CLASSES = 65535, 255
"""Codes and classes that a legend can have."""
_INTEGER = re.compile("0|-?[1-9][0-9]*")

Class = int | str
"""A code, a class's name, or `IGNORED`."""


@dataclass(frozen=True)
class Rule:
    """How one layer becomes labels.

    `attribute`: the column that says the class; its values are codes (also as text), names of the
    legend's classes, whatever the case, or what `classes` maps to a code or name. Beside `classes`,
    names of the legend still count, but codes and numbers do not: they may be of another list.
    `value`: one class for all features instead. `other`: the class of values that mean none
    (default: an error that names them). `buffer`: grow by metres, which lines and points need to be
    as wide as they are. `erode`: metres that areas lose along their edges, where pixels are mixed.
    `all_touched`: label every pixel that a feature touches, not only those whose centre it covers.
    `priority`: the higher wins; a number, or a column of numbers, or the names or codes of classes
    from the highest to the lowest.
    """

    attribute: str | None = None
    classes: Mapping[str, Class] = field(default_factory=dict)
    value: Class | None = None
    other: Class | None = None
    buffer: float = 0.0
    erode: float = 0.0
    all_touched: bool = False
    priority: float | str | Sequence[Class] = 0

    def __post_init__(self) -> None:
        if (self.attribute is None) == (self.value is None):
            given = "both are given" if self.value is not None else "neither is given"
            raise InputError(
                "features get their class from a column (--attribute), or all of them one class "
                f"(--class, value=); {given}, expected one of the two"
            )
        if self.value is not None and (self.classes or self.other is not None):
            raise InputError("classes and other need an attribute; leave them out with one class")
        for name in ("value", "other"):
            object.__setattr__(self, name, _class(getattr(self, name)))
        mapped = {str(_plain(text)): _class(target) for text, target in self.classes.items()}
        object.__setattr__(self, "classes", mapped)
        for name in ("buffer", "erode"):
            metres = getattr(self, name)
            if not (_is_number(metres) and math.isfinite(metres) and metres >= 0):
                raise InputError(f"{name} is {metres!r}, expected metres, 0 or more")
        self._check_priority()

    def _check_priority(self) -> None:
        order = self.priority
        if isinstance(order, str) or (_is_number(order) and math.isfinite(order)):
            return
        if not isinstance(order, Sequence):
            raise InputError(
                f"priority is {order!r}, expected a number, a column of numbers, or a list of "
                "classes from the highest to the lowest"
            )
        object.__setattr__(self, "priority", tuple(_class(entry) for entry in order))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rule:
        """A rule of JSON or TOML values, `map` for classes and `class` for value.

        `InputError` for members that are none.
        """
        words = {_WORDS.get(entry.name, entry.name): entry.name for entry in fields(cls)}
        unknown = sorted(set(data) - set(words))
        if unknown:
            raise InputError(f"a rule has no {', '.join(unknown)}; it has {', '.join(words)}")
        mapped, touched = data.get("map", {}), data.get("all_touched", False)
        column = data.get("attribute", "")
        if not (isinstance(mapped, Mapping) and isinstance(touched, bool)) or not isinstance(
            column, str
        ):
            raise InputError(
                f"map is {mapped!r}, all_touched {touched!r} and attribute {column!r}; expected "
                "classes by value, true or false, and a column's name"
            )
        return cls(**{words[key]: value for key, value in data.items()})


def values_of(
    frame: gpd.GeoDataFrame, rule: Rule, legend: Legend | None = None
) -> list[Class | None]:
    """The class that each feature names: an integer, text, or None where it says nothing.

    What `rule.classes` does not map counts only as a name of `legend`.
    """
    if rule.value is not None:
        return [rule.value] * len(frame)
    assert rule.attribute is not None
    plain = [_plain(value) for value in _column(frame, rule.attribute, "attribute")]
    targets = {folded(text): target for text, target in rule.classes.items()}
    table = {value: _mapped(targets, value, legend) for value in dict.fromkeys(plain)}
    return [table[value] for value in plain]


def codes_of(frame: gpd.GeoDataFrame, rule: Rule, legend: Legend) -> npt.NDArray[np.int64]:
    """The code of each feature, -1 where it is to be left out.

    Raises `InputError` that names the values that are no class of the legend.
    """
    _warn_of_absent(frame, rule)
    found = values_of(frame, rule, legend)
    table = {value: _code(legend, value) for value in dict.fromkeys(found)}
    unknown = [value for value, code in table.items() if code is None]
    if unknown:
        if rule.other is None:
            _complain(frame, rule, legend, unknown, found)
        spare = _code(legend, rule.other)
        if spare is None:
            raise InputError(f"other is {rule.other!r}, which is no class of legend {legend.name}")
        table |= dict.fromkeys(unknown, spare)
    return np.array([table[value] for value in found], np.int64)


def priorities_of(
    frame: gpd.GeoDataFrame, rule: Rule, legend: Legend, codes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The priority of each feature, float64; the higher wins."""
    if isinstance(rule.priority, str):
        try:
            found = _column(frame, rule.priority, "priority").to_numpy(np.float64)
        except (TypeError, ValueError):
            found = np.array([np.nan])
        if not np.isfinite(found).all():
            raise InputError(
                f"column {rule.priority} of {_name(frame)} has what is no number; expected the "
                "priority of each feature"
            )
        return np.asarray(found)
    if isinstance(rule.priority, Sequence):
        order = [_code(legend, name) for name in rule.priority]
        wrong = [name for name, c in zip(rule.priority, order, strict=True) if c is None or c < 0]
        if wrong or len(set(order)) < len(order):
            raise InputError(
                f"priority {', '.join(map(str, rule.priority))} has what is no class of legend "
                f"{legend.name}, or a class twice; expected classes from the highest to the lowest"
            )
        rank = {code: len(order) - place for place, code in enumerate(order)}
        return np.array([rank.get(int(code), 0) for code in codes], np.float64)
    return np.full(len(frame), float(rule.priority))


def legend_of(name: str, layers: Iterable[tuple[gpd.GeoDataFrame, Rule]]) -> Legend:
    """A legend made from what layers name: integers are codes, other names get those that are left.

    Names that a rule maps to codes name these. Names are taken in the order of the layers, sorted
    within a layer.
    """
    given = list(layers)
    targets = ((t, text) for _, rule in given for text, t in rule.classes.items())
    codes: dict[int, str] = {}
    for target, text in targets:
        if isinstance(target, int):
            codes.setdefault(target, text)
    names: dict[str, str] = {}
    for frame, rule in given:
        named = {value for value in (*values_of(frame, rule), rule.other) if value is not None}
        for value in sorted(named - {IGNORED}, key=str):
            if isinstance(value, int):
                codes.setdefault(value, f"class {value}")
            else:
                names.setdefault(folded(value), value)
    strange = [str(code) for code in sorted(codes) if not 0 <= code < _CODES]
    if strange:
        raise InputError(
            f"{name} has the codes {', '.join(strange[:_SHOWN])}{', …' if strange[_SHOWN:] else ''}"
            f", expected 0 to {_CODES - 1}; map them to codes or names with --map (classes=)"
        )
    taken = {folded(text) for text in codes.values()}
    free = (code for code in range(1, _CODES) if code not in codes)
    others = [text for key, text in names.items() if key not in taken]
    codes |= dict(zip(free, others, strict=False))
    if not 1 <= len(codes) <= _CLASSES:
        raise InputError(
            f"{name} names {len(codes)} classes, expected 1 to {_CLASSES}; check the attribute, or "
            "give a legend"
        )
    return made(codes, name, "values of the features")


def _mapped(
    targets: Mapping[str, Class], value: Class | None, legend: Legend | None
) -> Class | None:
    if not targets or value is None:
        return value
    own = isinstance(value, str) and legend is not None and _code(legend, value) is not None
    return targets.get(folded(str(value)), value if own else None)


def _warn_of_absent(frame: gpd.GeoDataFrame, rule: Rule) -> None:
    """A misspelt value of a map would be silent where `other` says what all others are."""
    if rule.attribute is None or not rule.classes:
        return
    values = {folded(str(_plain(value))) for value in _column(frame, rule.attribute, "attribute")}
    absent = [text for text in rule.classes if folded(text) not in values]
    if absent:
        warnings.warn(
            f"{_name(frame)} has no {rule.attribute} {', '.join(absent[:_SHOWN])}, which the map "
            "names",
            stacklevel=2,
        )


def _code(legend: Legend, value: Class | None) -> int | None:
    """Code of a class by code or name, -1 to leave it out, None for none."""
    if value == IGNORED:
        return -1
    if value is not None:
        with suppress(InputError):
            return legend.find(value).code
    return None


def _complain(
    frame: gpd.GeoDataFrame,
    rule: Rule,
    legend: Legend,
    unknown: Sequence[Class | None],
    found: Sequence[Class | None],
) -> None:
    """`InputError` with the values that mean no class, as the file has them."""
    if rule.attribute is None:
        listed = str(rule.value)
        what = "the class"
    else:
        strange = set(unknown)
        raw = [_plain(v) for v in frame[rule.attribute]]
        values = dict.fromkeys(r for r, v in zip(raw, found, strict=True) if v in strange)
        listed = ", ".join("(nothing)" if v is None else str(v) for v in list(values)[:_SHOWN])
        listed += ", …" if len(values) > _SHOWN else ""
        what = f"{len(values)} values of {rule.attribute}"
    known = ", ".join(f"{e.code} {e.name}" for e in legend.entries[:_SHOWN])
    raise InputError(
        f"{_name(frame)}: {what} are no class of legend {legend.name}: {listed}; it has {known}"
        f"{', …' if len(legend.entries) > _SHOWN else ''}; map them with --map (classes=), or "
        "say what other values are with --other (a class or ignore)"
        + (", or leave those without a value out with --where" if None in unknown else "")
    )


def _column(frame: gpd.GeoDataFrame, column: str, what: str) -> Any:
    attributes = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column not in attributes:
        raise InputError(
            f"{_name(frame)} has no {what} {column}; it has {', '.join(attributes) or 'none'}"
        )
    return frame[column]


def _plain(value: Any) -> Class | None:
    """An attribute as integer or text, None for a missing one."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    if _is_number(value) and float(value).is_integer():
        return int(value)
    text = unicodedata.normalize("NFC", str(value)).strip()
    return int(text) if _INTEGER.fullmatch(text) else text or None


def _class(value: Any) -> Class | None:
    """A class as a rule has it; `InputError` for what is neither a code nor a name."""
    found = _plain(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    if found is None and value is not None:
        raise InputError(f"a class is {value!r}, expected a code, a name or {IGNORED}")
    return found


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _name(frame: gpd.GeoDataFrame) -> str:
    return str(frame.attrs.get("name", "the layer"))
