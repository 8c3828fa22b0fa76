"""What patches are cut from: one stack of products, or a folder of images with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcengine.inputs import Arrays, Input
from lcengine.legends import Legend
from lcengine.locate import Window

LABEL = "label"
"""Name of the labels among the arrays of patches: uint8 (sample, y, x)."""

TABLE = "samples.parquet"
"""The table of samples, beside the plan and beside the arrays."""
PIXELS = "pixels_{}"
"""Its columns with pixels per class, by code."""
STATISTICS = "statistics.json"
"""Beside the arrays: `{input: {band: {count, mean, std, min, max}}}` of the training patches."""


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

    @property
    def interval(self) -> tuple[str, str] | None:
        """First and last moment of the imagery (RFC 3339, UTC), where known."""
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
