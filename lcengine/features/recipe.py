"""Features as people name them, and how a block of stored numbers becomes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.inputs import Input


@dataclass(frozen=True)
class Features:
    """What a pixel model sees of its inputs.

    `texts`: features as asked for, e.g. `bands`, `ndvi`, `ndvi:p10`, `red:harmonic`; empty: bands.
    """

    inputs: tuple[Input, ...]
    texts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str], inputs: Sequence[Input]) -> Features:
        """Features of inputs; `InputError` for names of nothing."""
        return cls(tuple(inputs), tuple(texts))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each feature, in order."""
        return tuple(band for entry in self.inputs for band in entry.bands)

    def compute(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """(feature, sample, y, x) float32 of stored numbers (sample, [time,] band, y, x).

        NaN where a pixel is not `observed`; everything else is finite. (To be replaced: bands of
        inputs without a time axis only.)
        """
        parts = []
        for entry in self.inputs:
            values = inputs[entry.name]
            scaled = values.astype(np.float32) * np.float32(entry.scale or 1)
            parts.append(np.moveaxis(np.where(entry.valid(values), scaled, np.nan), 1, 0))
        return np.concatenate(parts)
