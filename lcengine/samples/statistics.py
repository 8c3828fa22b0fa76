"""Statistics per band of training patches: exact sums that merge in any order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.inputs import Input

Sums = dict[str, list[dict[str, Any]]]
"""Of each input, per band: `Moments` as JSON values."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, sum and sum of squares of valid stored numbers, the least and the greatest.

    Sums are exact: of integers as such, of floats as of the float64 sums of single patches. So
    they do not depend on how patches are put together.
    """

    count: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    low: float = math.inf
    high: float = -math.inf

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def summary(self) -> dict[str, float | int | None]:
        """Count, mean, standard deviation (of the population), min, max; None without pixels."""
        if not self.count:
            return {"count": 0, **dict.fromkeys(("mean", "std", "min", "max"))}
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, Fraction(0))
        return {
            "count": self.count,
            "mean": float(mean),
            "std": math.sqrt(variance),
            "min": self.low,
            "max": self.high,
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values; sums are texts, since they may exceed 64 bits."""
        empty = not self.count
        return {
            "count": self.count,
            "total": str(self.total),
            "squares": str(self.squares),
            "low": None if empty else self.low,
            "high": None if empty else self.high,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Moments:
        """Inverse of `to_json`."""
        if not data["count"]:
            return cls()
        sums = Fraction(data["total"]), Fraction(data["squares"])
        return cls(data["count"], *sums, data["low"], data["high"])


def sums(inputs: Sequence[Input], arrays: Mapping[str, npt.NDArray[Any]]) -> Sums:
    """Sums of patches, (sample, [time,] band, y, x) of each input; all times of a band together."""
    return {
        entry.name: [
            _band(entry, arrays[entry.name][..., number, :, :]).to_json()
            for number in range(len(entry.bands))
        ]
        for entry in inputs
    }


def _band(entry: Input, values: npt.NDArray[Any]) -> Moments:
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        return _counted(entry, values)
    out = Moments()
    for patch in values:
        out += _summed(entry, patch)
    return out


def _counted(entry: Input, values: npt.NDArray[Any]) -> Moments:
    """From how often each number occurs."""
    lowest = int(np.iinfo(values.dtype).min)
    often = np.bincount(values.ravel().astype(np.intp) - lowest)
    numbers = np.arange(often.size, dtype=np.int64) + lowest
    kept = (often > 0) & entry.valid(numbers)
    numbers, often = numbers[kept], often[kept]
    if not numbers.size:
        return Moments()
    return Moments(
        int(often.sum()),
        Fraction(int(often @ numbers)),
        Fraction(int(often @ numbers**2)),
        int(numbers[0]),
        int(numbers[-1]),
    )


def _summed(entry: Input, patch: npt.NDArray[Any]) -> Moments:
    numbers = patch[entry.valid(patch)].astype(np.float64)
    if not numbers.size:
        return Moments()
    return Moments(
        numbers.size,
        Fraction(float(numbers.sum())),
        Fraction(float(np.square(numbers).sum())),
        float(numbers.min()),
        float(numbers.max()),
    )


def statistics(inputs: Sequence[Input], parts: Iterable[Sums]) -> dict[str, Any]:
    """`{input: {band: {count, mean, std, min, max}}}` of stored numbers, from the sums of parts."""
    out = {entry.name: [Moments()] * len(entry.bands) for entry in inputs}
    for part in parts:
        for name, bands in part.items():
            out[name] = [
                old + Moments.from_json(new) for old, new in zip(out[name], bands, strict=True)
            ]
    return {
        entry.name: {
            band: moments.summary
            for band, moments in zip(entry.bands, out[entry.name], strict=True)
        }
        for entry in inputs
    }
