"""How the classes of a map and of a reference become those of one legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lcengine.errors import InputError
from lcengine.legends import Crosswalk, Legend, crosswalks, folded

KNOWN: Final = "known"
"""Asks for the registered crosswalk between both legends."""


@dataclass(frozen=True)
class Match:
    """A map's and a reference's classes, each as classes of `legend` (or as none)."""

    mapped: Crosswalk
    reference: Crosswalk

    @property
    def legend(self) -> Legend:
        """The classes that are compared."""
        return self.mapped.target


def match(
    mapped: Legend, reference: Legend, crosswalk: str | Mapping[str, str] | None = None
) -> Match:
    """Two legends as one.

    Without a crosswalk classes are the same where their names are, whatever their codes and the
    case; all of one legend must be in the other, which is the one compared in. `crosswalk`:
    "known", the registered one in either direction, or classes of the one legend as classes of the
    other, by name or code, in either direction (the reference's as the map's, where both would do);
    those it does not mention go by name, and without one they are left out.

    Raises `InputError`, which names both, where classes remain without a like.
    """
    if mapped.classes == reference.classes:
        return Match(_same(mapped), _renamed(reference, mapped))
    if crosswalk is None:
        return _by_name(mapped, reference)
    if isinstance(crosswalk, str):
        return _known(mapped, reference, crosswalk)
    if not _has(reference, crosswalk) and _has(mapped, crosswalk):
        return Match(_given(mapped, reference, crosswalk), _same(reference))
    return Match(_same(mapped), _given(reference, mapped, crosswalk))


def _has(legend: Legend, names: Iterable[str]) -> bool:
    """Whether a legend has all these classes."""
    try:
        return all(legend.find(name) for name in names)
    except InputError:
        return False


def _given(source: Legend, target: Legend, pairs: Mapping[str, str]) -> Crosswalk:
    """Classes as a user says, the others by name."""
    given = {source.find(name).code: target.find(to).code for name, to in pairs.items()}
    codes = {folded(entry.name): entry.code for entry in target.classes}
    every = ((e.code, given.get(e.code, codes.get(folded(e.name)))) for e in source.classes)
    return Crosswalk(source, target, tuple(every), "as given")


def _same(legend: Legend) -> Crosswalk:
    return Crosswalk(legend, legend, tuple((c, c) for c in legend.codes), "the same legend")


def _renamed(source: Legend, target: Legend) -> Crosswalk:
    """By names, which are all there."""
    if source.classes == target.classes:
        return Crosswalk(source, target, tuple((c, c) for c in source.codes), "the same classes")
    codes = {folded(entry.name): entry.code for entry in target.classes}
    pairs = tuple((entry.code, codes[folded(entry.name)]) for entry in source.classes)
    return Crosswalk(source, target, pairs, "classes of the same names")


def _by_name(mapped: Legend, reference: Legend) -> Match:
    lacks, spare = _without(reference, mapped), _without(mapped, reference)
    if not lacks:
        return Match(_same(mapped), _renamed(reference, mapped))
    if not spare:
        return Match(_renamed(mapped, reference), _same(reference))
    known = _registered(reference, mapped) or _registered(mapped, reference)
    remedy = f"--crosswalk {KNOWN}, or classes" if known else "--crosswalk with classes"
    raise InputError(
        f"the map has legend {_described(mapped)}, the reference {_described(reference)}; classes "
        f"of the reference without a like: {_listed(lacks)}; give {remedy} of one as those of the "
        f"other, such as 'maize=cropland,wheat=cropland'"
    )


def _without(one: Legend, other: Legend) -> list[str]:
    """Names of the one that the other has not."""
    there = {folded(name) for name in other.names}
    return [name for name in one.names if folded(name) not in there]


def _known(mapped: Legend, reference: Legend, wish: str) -> Match:
    if wish != KNOWN:
        raise InputError(f"crosswalk is {wish!r}, expected {KNOWN!r} or reference=map pairs")
    there = _registered(reference, mapped)
    if there is not None:
        return Match(_same(mapped), there)
    back = _registered(mapped, reference)
    if back is not None:
        return Match(back, _same(reference))
    known = ", ".join(f"{c.source.name} → {c.target.name}" for c in crosswalks())
    raise InputError(
        f"there is no crosswalk between legend {_described(reference)} of the reference and "
        f"{_described(mapped)} of the map; there are {known}; give pairs of classes instead"
    )


def _registered(source: Legend, target: Legend) -> Crosswalk | None:
    """The crosswalk between these very classes."""
    for entry in crosswalks():
        if (entry.source.classes, entry.target.classes) == (source.classes, target.classes):
            return entry
    return None


def _described(legend: Legend) -> str:
    return f"{legend.name} ({_listed(list(legend.names))})"


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 12 else [*names[:12], "…"])
