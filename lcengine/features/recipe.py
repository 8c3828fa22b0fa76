"""Features as people name them, and how a block of stored numbers becomes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.features.grammar import Term, Wanted, parse
from lcengine.features.temporal import Axis, Series
from lcengine.inputs import Input, observed
from lcengine.kernels import temporal

FLOAT = npt.NDArray[np.float32]

_STRIP = 2**17
"""float32 numbers of a strip of pixels: half a MiB, as a core's own cache holds it."""
_FEWEST, _MOST = 64, 16384


@dataclass(frozen=True)
class Features:
    """What a pixel model sees of its inputs.

    `texts`: features as asked for, e.g. `bands`, `ndvi`, `ndvi:p10,p90`, `red:harmonic`; empty:
    bands. See docs/features.md.
    """

    inputs: tuple[Input, ...]
    texts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str], inputs: Sequence[Input]) -> Features:
        """Features of inputs; `InputError` for what `grammar.parse` refuses."""
        parse(texts, inputs)
        return cls(tuple(inputs), tuple(texts))

    @cached_property
    def wanted(self) -> tuple[Wanted, ...]:
        """One by one, in order."""
        return parse(self.texts, self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each feature, in order; as texts they name the same features."""
        return tuple(one.name for one in self.wanted)

    def compute(self, inputs: Mapping[str, npt.NDArray[Any]]) -> FLOAT:
        """(feature, sample, y, x) float32 of stored numbers (sample, [time,] band, y, x).

        NaN where a pixel is not `observed`; everything else is finite. The bits of a pixel do not
        depend on what it is computed with. Besides the result it takes a byte per stored number.
        """
        seen = observed(self.inputs, inputs)
        samples, height, width = seen.shape
        flat = seen.reshape(samples, height * width)
        out = np.full((len(self.wanted), *flat.shape), np.nan, np.float32)
        for source in self._sources:
            values = inputs[source.input.name]
            shape = (samples, source.axis.days.size, len(source.input.bands), height * width)
            stored = np.ascontiguousarray(values).reshape(shape)
            for sample in np.flatnonzero(flat.any(axis=1)):
                source.compute(stored[sample], flat[sample], out[:, sample])
        return out.reshape(len(self.wanted), samples, height, width)

    @cached_property
    def _sources(self) -> tuple[_Source, ...]:
        found = []
        for i, entry in enumerate(self.inputs):
            own = [(at, one) for at, one in enumerate(self.wanted) if one.term.source == i]
            if own:
                found.append(_Source(entry, tuple(own), Axis.of(entry.times)))
        return tuple(found)


@dataclass(frozen=True)
class _Source:
    """The features of one input, with their places among all."""

    input: Input
    wanted: tuple[tuple[int, Wanted], ...]
    axis: Axis

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Those that any feature needs."""
        needed = {band for _, one in self.wanted for band in one.term.bands}
        return tuple(band for band in self.input.bands if band in needed)

    @cached_property
    def terms(self) -> tuple[tuple[Term, tuple[tuple[int, Wanted], ...]], ...]:
        """Features by what they are of: each series is made once."""
        found: dict[Term, list[tuple[int, Wanted]]] = {}
        for at, one in self.wanted:
            found.setdefault(one.term, []).append((at, one))
        return tuple((term, tuple(own)) for term, own in found.items())

    @cached_property
    def _missing(self) -> npt.NDArray[Any]:
        """The fill, of the input's type; nothing where there is none."""
        dtype = np.dtype(self.input.dtype)
        fills = [] if self.input.fill is None or dtype.kind == "f" else [self.input.fill]
        return np.array(fills, dtype)

    def compute(self, stored: npt.NDArray[Any], seen: npt.NDArray[np.bool_], out: FLOAT) -> None:
        """One sample (time, band, pixel) -> (feature, pixel), where `seen`."""
        times = self.axis.days.size
        most = min(max(_STRIP // (times * (len(self.bands) + 2)), _FEWEST), _MOST)
        for start in range(0, seen.size, most):
            there = seen[start : start + most]
            if not there.any():
                continue
            gone = None if there.all() else ~there
            strip = self._load(stored, start, there.size)
            for term, own in self.terms:
                series = self._series(term, strip, there)
                for at, one in own:
                    row = out[at, start : start + there.size]
                    series.take(one.reduction, row)
                    if gone is not None:
                        row[gone] = np.nan

    def _load(self, stored: npt.NDArray[Any], start: int, count: int) -> FLOAT:
        """The bands of a strip as float32 (band, time, pixel)."""
        strip = np.empty((len(self.bands), self.axis.days.size, count), np.float32)
        scale = np.float32(1 if self.input.scale is None else self.input.scale)
        for place, band in enumerate(self.bands):
            number = self.input.bands.index(band)
            temporal.load(stored, number, start, self._missing, scale, strip[place])
        return strip

    def _series(self, term: Term, strip: FLOAT, there: npt.NDArray[np.bool_]) -> Series:
        """A term's series, with at least one value where a pixel is `there`.

        Bands of an index may never be there at the same time: it is then that of filled bands.
        """
        if term.index is None:
            return Series(strip[self.bands.index(term.name)], self.axis)
        series = Series(self._index(term, strip), self.axis)
        lone = there & (series.seen == 0)
        if not lone.any():
            return series
        own = np.ascontiguousarray(strip[:, :, lone])
        filled = np.stack([Series(band, self.axis).filled for band in own])
        series.values[:, lone] = self._index(term, filled)
        return Series(series.values, self.axis)

    def _index(self, term: Term, strip: FLOAT) -> FLOAT:
        """An index of bands (band, time, pixel)."""
        index = term.index
        assert index is not None
        which = np.array([self.bands.index(band) for band in term.bands], np.int64)
        if index.domain == "power":
            powers = np.empty((which.size, *strip.shape[1:]), np.float32)
            for place, band in enumerate(which):
                temporal.to_power(strip[band], powers[place])
            strip, which = powers, np.arange(which.size)
        over, under = (
            np.array([part.get(name, 0) for name in ("1", *index.bands)], np.float32)
            for part in (index.over, index.under)
        )
        out = np.empty(strip.shape[1:], np.float32)
        limits = np.array(index.limits, np.float32)
        temporal.fraction(strip, which, over, under, limits, out)
        return out
