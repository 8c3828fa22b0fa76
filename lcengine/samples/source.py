"""What patches are cut from: one stack of products, or a folder of images with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcengine.legends import Legend
from lcengine.locate import Window

LABEL = "label"
"""Name of the labels among the arrays of a patch."""

TABLE = "samples.parquet"
"""The table of samples, beside the plan and beside the arrays."""
PIXELS = "pixels_{}"
"""Its columns with pixels per class, by code."""
STATISTICS = "statistics.json"
"""Beside the arrays: `{input: {band: {count, mean, std, min, max}}}` of the training patches."""

Arrays = dict[str, npt.NDArray[Any]]
"""Patches by input, (sample, [time,] band, y, x), and under `LABEL` uint8 (sample, y, x)."""


@dataclass(frozen=True)
class Input:
    """One image that a model sees, e.g. the bands of Sentinel-2.

    `fill`: its missing value, None for NaN or where none is known. `times`: names of its periods,
    empty where it has no time axis. `scale`, `units`: what a stored number is, where known.
    """

    name: str
    bands: tuple[str, ...]
    dtype: str
    fill: int | None
    times: tuple[str, ...] = ()
    scale: float | None = None
    units: str | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape before (y, x): ([time,] band)."""
        return (*((len(self.times),) if self.times else ()), len(self.bands))

    def valid(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where stored numbers are not missing."""
        if values.dtype.kind == "f":
            return np.asarray(np.isfinite(values))
        return np.ones(values.shape, np.bool_) if self.fill is None else values != self.fill


@dataclass(frozen=True)
class Scene:
    """One raster of a source, north up, with square pixels.

    `crs`: None without a place on Earth; `transform`: (a, b, c, d, e, f) as rasterio has it.
    `group`: scenes of a group go into one split as a whole; where it is empty, a scene with a CRS
    is cut into blocks of the CRS grid, and one without is a block of its own.
    """

    name: str
    shape: tuple[int, int]
    crs: str | None
    transform: tuple[float, ...]
    group: str = ""


class Source(Protocol):
    """Images with labels. Small: it is rebuilt from its JSON on every worker."""

    kind: str
    """Which class `to_json` is of."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The images of a patch, in order."""
        ...

    @property
    def legend(self) -> Legend:
        """The classes; labels are its training indices, 255 = ignore."""
        ...

    @property
    def scenes(self) -> Sequence[Scene]:
        """All rasters, in an order that follows from their names alone."""
        ...

    def labels(self, scene: int, window: Window) -> npt.NDArray[np.uint8]:
        """Training indices (y, x) of a window inside a scene; 255 = ignore."""
        ...

    def cut(self, scene: int, windows: Sequence[Window]) -> Arrays:
        """Patches of equal size inside a scene, in the order of `windows`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON values that make this source again, with its `kind`."""
        ...

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Inverse of `to_json`."""
        ...
