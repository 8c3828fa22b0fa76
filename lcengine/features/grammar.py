"""What a text of a feature means: which bands or index of which input, and what over time.

bands | * | BAND | INDEX | INDEX_METHOD | SOURCE.bands | SOURCE.BAND | SOURCE.INDEX
… : STATISTIC[,STATISTIC…]     over the periods
… @ PERIOD                     of one period
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcengine.errors import InputError
from lcengine.features.dates import middles
from lcengine.features.indices import INDICES, Index
from lcengine.inputs import Input
from lcengine.kernels.seasonal import SPARE

STATISTICS = ("mean", "median", "std", "min", "max", "range", "first", "last", "slope")
"""Statistics over time besides percentiles (`p10`) and harmonic fits."""

_EXPECTED = f"{', '.join(STATISTICS)}, a percentile such as p10, or harmonic, harmonic[2], …"
_ALL = ("bands", "*")
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_HARMONIC = re.compile(r"harmonic(?:\[(\d)\])?(?:\.(\w+))?")


@dataclass(frozen=True)
class Term:
    """A band, or an index of bands, of the input of that number."""

    source: int
    name: str
    bands: tuple[str, ...]
    index: Index | None = None


@dataclass(frozen=True)
class Reduction:
    """What is taken of a term's series.

    `kind`: `value` (there is no time), `period` (at place `number`), a statistic, `percentile`
    (`number`), or `harmonic` (of `order` pairs, its part `number`). `text`: as people write it.
    """

    kind: str
    text: str = ""
    number: float = 0.0
    order: int = 0


@dataclass(frozen=True)
class Wanted:
    """One feature."""

    name: str
    term: Term
    reduction: Reduction


def parse(texts: Sequence[str], inputs: Sequence[Input]) -> tuple[Wanted, ...]:
    """All features of texts, in order; without any text, all bands.

    Raises:
        InputError: A name is of nothing, or ambiguous; a statistic is unknown, or wants a time
            axis, dates or more periods than there are; a feature is named twice.
    """
    if isinstance(texts, str):
        raise InputError(f"features are {texts!r}, expected a list such as ['bands', 'ndvi:p50']")
    found = [one for text in texts or ("bands",) for one in _features(text, inputs)]
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"features {', '.join(twice)} are asked for twice; leave out one of each")
    return tuple(found)


def _features(text: str, inputs: Sequence[Input]) -> list[Wanted]:
    head, at, period = (part.strip() for part in text.partition("@"))
    tail = ""
    if not at:
        head, _, tail = (part.strip() for part in text.partition(":"))
    out = []
    for term in _terms(head, text, inputs):
        entry = inputs[term.source]
        if at:
            reductions = [_period(period, text, entry)]
        elif ":" in text:
            reductions = [r for part in tail.split(",") for r in _statistic(part, text, entry)]
        elif entry.times:
            reductions = [Reduction("period", f"@{t}", i) for i, t in enumerate(entry.times)]
        else:
            reductions = [Reduction("value")]
        prefix = f"{entry.name}." if len(inputs) > 1 else ""
        out += [Wanted(f"{prefix}{term.name}{r.text}", term, r) for r in reductions]
    return out


def _terms(head: str, text: str, inputs: Sequence[Input]) -> list[Term]:
    """What stands before the statistics."""
    source, dot, name = head.rpartition(".")
    known = [entry.name for entry in inputs]
    if dot and source not in known:
        raise InputError(f"feature {text!r} is of source {source!r}; sources: {', '.join(known)}")
    places = [known.index(source)] if dot else list(range(len(inputs)))
    if name in _ALL:
        return [Term(i, band, (band,)) for i in places for band in inputs[i].bands]
    found = [Term(i, name, (name,)) for i in places if name in inputs[i].bands]
    if not found:
        stem = _stem(name.lower())
        if stem in INDICES:
            found = _indices(INDICES[stem], name[len(stem) :], text, places, inputs)
    if len(found) > 1:
        choices = ", ".join(f"{known[term.source]}.{name}" for term in found)
        raise InputError(f"feature {text!r} is of several sources; say one of {choices}")
    if not found:
        bands = dict.fromkeys(band for i in places for band in inputs[i].bands)
        near = difflib.get_close_matches(name, [*bands, *INDICES], 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"feature {text!r} names no band and no index; {hint}bands: {', '.join(bands)}; "
            f"indices: {', '.join(INDICES)}"
        )
    return found


def _stem(name: str) -> str:
    """The index that a name begins with: `ndvi` of `ndvi_p90`; the name where there is none."""
    stems = [stem for stem in INDICES if name == stem or name.startswith(f"{stem}_")]
    return max(stems, key=len, default=name)


def _indices(
    index: Index, suffix: str, text: str, places: Sequence[int], inputs: Sequence[Input]
) -> list[Term]:
    """The index of each input that has its bands; `InputError` where none has."""
    found = []
    for i in places:
        bands = index.found(inputs[i].bands, suffix)
        if bands is not None:
            _check_units(index, text, inputs[i])
            found.append(Term(i, f"{index.name}{suffix}", bands, index))
    if not found:
        have = "; ".join(f"{inputs[i].name} has {', '.join(inputs[i].bands)}" for i in places)
        needed = ", ".join(f"{band}{suffix}" for band in index.bands)
        others = list(dict.fromkeys(v for i in places for v in _variants(index, inputs[i].bands)))
        remedy = f"take {' or '.join(others)}" if others else "take another index, or other sources"
        raise InputError(f"feature {text!r} needs bands {needed} of one source; {have}: {remedy}")
    return found


def _variants(index: Index, bands: Sequence[str]) -> list[str]:
    """The index by the suffixes that bands of several methods have: `ndvi_p10`, `ndvi_p90`."""
    suffixes = dict.fromkeys(band[band.find("_") :] for band in bands if "_" in band)
    return [f"{index.name}{s}" for s in suffixes if index.found(bands, s) is not None]


def _check_units(index: Index, text: str, entry: Input) -> None:
    if index.domain != "reflectance":
        if entry.units != "dB":
            raise InputError(
                f"feature {text!r} is of backscatter in dB, and {entry.name} states units "
                f"{entry.units!r}; convert it to dB and say so"
            )
    elif index.scaled and entry.scale is None and not entry.dtype.startswith("float"):
        raise InputError(
            f"feature {text!r} is of reflectance, and {entry.name} holds {entry.dtype} without a "
            "scale; take an index that needs none, such as ndvi"
        )


def _period(period: str, text: str, entry: Input) -> Reduction:
    if period not in entry.times:
        have = ", ".join(entry.times) or "none"
        raise InputError(f"feature {text!r} asks for a period of {entry.name}, which has {have}")
    return Reduction("period", f"@{period}", entry.times.index(period))


def _statistic(part: str, text: str, entry: Input) -> list[Reduction]:
    part = part.strip()
    if not entry.times:
        others = "" if "." in text else ", or name a source that has, as in s2.ndvi:p50"
        raise InputError(
            f"feature {text!r} is a statistic over time, and {entry.name} has no periods; leave "
            f"out ':{part}'{others}"
        )
    if match := _HARMONIC.fullmatch(part):
        return _harmonic(int(match[1] or 1), match[2], text, entry)
    if match := _PERCENTILE.fullmatch(part):
        if float(match[1]) > 100:
            raise InputError(f"feature {text!r} has percentile {match[1]}, expected 0 to 100")
        return [Reduction("percentile", f":{part}", float(match[1]))]
    if part not in STATISTICS:
        near = difflib.get_close_matches(part, [*STATISTICS, "harmonic"], 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"feature {text!r} has no statistic {part!r}; {hint}expected {_EXPECTED}")
    if part == "slope":
        _check_dates(text, entry)
    return [Reduction(part, f":{part}")]


def parts_of(order: int) -> tuple[str, ...]:
    """What a harmonic fit of `order` pairs gives, in order."""
    pairs = range(1, order + 1)
    names = [f"{name}{k}" for k in pairs for name in ("cos", "sin")]
    names += [f"{name}{k}" for name in ("amplitude", "phase") for k in pairs]
    return ("offset", *names, "rmse")


def _harmonic(order: int, part: str | None, text: str, entry: Input) -> list[Reduction]:
    least = 2 * order + SPARE
    if order < 1 or len(entry.times) < least:
        most = (len(entry.times) - SPARE) // 2
        remedy = f"take harmonic[{most}] or lower" if most > 0 else "take statistics instead"
        raise InputError(
            f"feature {text!r} fits {order} annual pairs, which need {least} periods or "
            f"more, and {entry.name} has {len(entry.times)}; {remedy}"
            if order
            else f"feature {text!r} fits no pair, expected harmonic[1] or more"
        )
    _check_dates(text, entry)
    names = parts_of(order)
    if part is not None and part not in names:
        raise InputError(f"feature {text!r} has no part {part!r}; it has {', '.join(names)}")
    stem = "harmonic" if order == 1 else f"harmonic[{order}]"
    return [
        Reduction("harmonic", f":{stem}.{name}", number, order)
        for number, name in enumerate(names)
        if part in (None, name)
    ]


def _check_dates(text: str, entry: Input) -> None:
    if middles(entry.times) is None:
        raise InputError(
            f"feature {text!r} needs dates, and the periods of {entry.name} are called "
            f"{', '.join(entry.times[:3])}, …; take statistics that need none"
        )
