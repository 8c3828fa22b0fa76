"""What can be taken of a series of a strip of pixels, each computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lcengine.features.dates import middles
from lcengine.features.grammar import Reduction
from lcengine.kernels import seasonal, temporal
from lcengine.kernels.networks import selection_network

FLOAT = npt.NDArray[np.float32]
DOUBLE = npt.NDArray[np.float64]

YEAR = 365.25
"""Days of the year of harmonic fits and slopes."""


@dataclass(frozen=True)
class Axis:
    """The periods of an input: `days`, the middle of each, and the tables that follow from them."""

    days: DOUBLE

    @classmethod
    def of(cls, names: Sequence[str]) -> Axis:
        """The axis of named periods; without dates they lie a day apart."""
        found = middles(names)
        return cls(np.arange(max(len(names), 1), dtype=np.float64) if found is None else found)

    @cached_property
    def sorting(self) -> npt.NDArray[np.uint16]:
        """Comparators that sort a series."""
        return selection_network(self.days.size, tuple(range(self.days.size)))

    def basis(self, order: int) -> DOUBLE:
        """(time, coefficient): 1, cosine and sine of each harmonic of the year."""
        rows = []
        for day in self.days.tolist():
            angles = [2 * math.pi * k * day / YEAR for k in range(1, order + 1)]
            rows.append([1.0, *(wave(a) for a in angles for wave in (math.cos, math.sin))])
        return np.array(rows, np.float64)


@dataclass
class Series:
    """Values (time, pixel) float32 of a strip, NaN where there are none."""

    values: FLOAT
    axis: Axis
    fits: dict[int, FLOAT] = field(default_factory=dict)

    @cached_property
    def seen(self) -> npt.NDArray[np.int64]:
        """How many values a pixel has."""
        out = np.empty(self.values.shape[1], np.int64)
        temporal.count(self.values, out)
        return out

    @cached_property
    def filled(self) -> FLOAT:
        """Without gaps."""
        out = np.empty_like(self.values)
        temporal.fill_gaps(self.values, self.axis.days, out)
        return out

    @cached_property
    def _mean(self) -> DOUBLE:
        out = np.empty(self.seen.size)
        temporal.mean(self.values, self.seen, out)
        return out

    @cached_property
    def _ranked(self) -> FLOAT:
        out = np.empty_like(self.values)
        temporal.rank(self.values, self.axis.sorting, out)
        return out

    def _quantile(self, share: float) -> FLOAT:
        out = np.empty(self.seen.size, np.float32)
        temporal.quantile(self._ranked, self.seen, share, out)
        return out

    def _harmonic(self, order: int) -> FLOAT:
        """(part, pixel) in the order of `grammar.parts_of`."""
        if order not in self.fits:
            basis, n = self.axis.basis(order), self.seen.size
            found, rmse = np.empty((2 * order + 1, n)), np.empty(n)
            seasonal.fit(self.values, basis, self.seen, found, rmse)
            out = np.empty((4 * order + 2, n), np.float32)
            out[: 2 * order + 1], out[-1] = found, rmse
            for k in range(1, order + 1):
                amplitude, phase = out[2 * order + k], out[3 * order + k]
                seasonal.polar(found[2 * k - 1], found[2 * k], YEAR / k, amplitude, phase)
            self.fits[order] = out
        return self.fits[order]

    def take(self, reduction: Reduction, out: FLOAT) -> None:
        """Write one feature (pixel,)."""
        kind = reduction.kind
        if kind == "value":
            out[:] = self.values[0]
        elif kind == "period":
            out[:] = self.filled[int(reduction.number)]
        elif kind == "mean":
            out[:] = self._mean
        elif kind == "std":
            temporal.deviation(self.values, self.seen, self._mean, out)
        elif kind == "slope":
            years = self.axis.days / YEAR
            temporal.slope(self.values, self.seen, years, self._mean, out)
        elif kind in ("first", "last"):
            temporal.first(self.values, kind == "last", out)
        elif kind == "harmonic":
            out[:] = self._harmonic(reduction.order)[int(reduction.number)]
        elif kind == "range":
            np.subtract(self._quantile(1.0), self._quantile(0.0), out=out)
        else:
            shares = {"min": 0.0, "max": 1.0, "median": 0.5}
            out[:] = self._quantile(shares.get(kind, reduction.number / 100))
