"""Crosswalks: from the classes of one legend to those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.legends.base import IGNORE, Codes, Entry, Legend


@dataclass(frozen=True)
class Crosswalk:
    """Every class of `source` as a class of `target`, or as none.

    `pairs`: (code of the source, code of the target or None), each class of the source once.
    """

    source: Legend
    target: Legend
    pairs: tuple[tuple[int, int | None], ...]
    reference: str

    def __post_init__(self) -> None:
        given = [code for code, _ in self.pairs]
        missing = sorted(set(self.source.codes) - set(given))
        extra = sorted(set(given) - set(self.source.codes))
        twice = sorted({code for code in given if given.count(code) > 1})
        if missing or extra or twice:
            raise InputError(
                f"crosswalk {self.source.name} → {self.target.name} lacks {missing}, knows no "
                f"{extra}, has {twice} more than once; expected each class of "
                f"{self.source.name} once"
            )
        strange = {to for _, to in self.pairs} - {None, *self.target.codes}
        if strange:
            raise InputError(
                f"crosswalk {self.source.name} → {self.target.name} leads to {strange}, which "
                f"are no classes of {self.target.name}"
            )

    @classmethod
    def of(
        cls,
        source: Legend,
        target: Legend,
        groups: Mapping[int | None, Sequence[int]],
        reference: str,
    ) -> Crosswalk:
        """From the codes of the source that become each code of the target (None: no class)."""
        pairs = tuple((code, to) for to, codes in groups.items() for code in codes)
        return cls(source, target, tuple(sorted(pairs, key=lambda pair: pair[0])), reference)

    @cached_property
    def matrix(self) -> npt.NDArray[np.uint8]:
        """(class of the source, class of the target), 1 where one becomes the other.

        Rows of classes that become none are 0. `probabilities @ matrix` sums those of the source,
        (…, K source), to (…, K target); what becomes none is lost from the sum.
        """
        out = np.zeros((len(self.source.codes), len(self.target.codes)), dtype=np.uint8)
        for code, to in self.pairs:
            if to is not None:
                out[self.source.codes.index(code), self.target.codes.index(to)] = 1
        return out

    def translate(self, codes: npt.ArrayLike) -> Codes:
        """Codes of the source (any integer type, any shape) as codes of the target.

        Ignored codes, nodata and classes that become none are nodata. `InputError` for codes the
        source does not have.
        """
        return self.target.decode(self.translate_indices(self.source.encode(codes)))

    def translate_indices(self, indices: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Training indices (uint8, 255 is no class) of the source as those of the target."""
        table = np.full(256, IGNORE, dtype=np.uint8)
        rows, columns = np.nonzero(self.matrix)
        table[rows] = columns
        return table[indices]

    def then(self, other: Crosswalk) -> Crosswalk:
        """This crosswalk, and `other` after it."""
        if other.source != self.target:
            raise InputError(
                f"crosswalk leads to {self.target.name}, the next one starts at "
                f"{other.source.name}; expected the same legend"
            )
        further: dict[int | None, int | None] = {None: None, **dict(other.pairs)}
        pairs = tuple((code, further[to]) for code, to in self.pairs)
        return Crosswalk(self.source, other.target, pairs, f"{self.reference}; {other.reference}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "source": self.source.name,
            "target": self.target.name,
            "pairs": [list(pair) for pair in self.pairs],
            "reference": self.reference,
        }


def grouped(legend: Legend, depth: int = 1) -> Crosswalk:
    """From a legend to its groups down to `depth` levels, numbered from 1 as they appear.

    A class whose groups end earlier goes to its deepest one, one without groups stands alone. A
    group has the colour of its first class.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}, expected 1 or more")
    paths = {e.code: e.groups[:depth] or (e.name,) for e in legend.classes}
    number = {path: i for i, path in enumerate(dict.fromkeys(paths.values()), start=1)}
    first = {path: next(e for e in legend.classes if paths[e.code] == path) for path in number}
    entries = tuple(
        Entry(code, path[-1], first[path].colour, path[:-1]) for path, code in number.items()
    )
    target = Legend(
        f"{legend.name}-{depth}", f"{legend.title}, groups", entries, f"groups of {legend.name}"
    )
    pairs = tuple((code, number[path]) for code, path in paths.items())
    return Crosswalk(legend, target, pairs, f"hierarchy of {legend.name}")
