"""What the raw values of mask bands mean, as classes of one vocabulary: that of the Sentinel-2 SCL.

0 no data, 1 defective, 2 dark, 3 cloud shadow, 4 and 5 land, 6 water, 7 unclassified, 8 and 9
cloud, 10 thin cirrus, 11 snow (Sentinel-2 L2A product definition, PSD 14.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lcengine.errors import ContractError

MASK = npt.NDArray[np.uint8]
BOOL = npt.NDArray[np.bool_]

NO_DATA = 0
DEFECTIVE = 1
SHADOW = 3
LAND = 4
WATER = 6
DILATED_CLOUD = 8
CLOUD = 9
CIRRUS = 10
SNOW_CLASS = 11
CLOUD_CLASSES = (SHADOW, DILATED_CLOUD, CLOUD, CIRRUS)

QA_PIXEL_BITS = (
    (7, WATER),
    (5, SNOW_CLASS),
    (4, SHADOW),
    (2, CIRRUS),
    (1, DILATED_CLOUD),
    (3, CLOUD),
    (0, NO_DATA),
)
"""(bit, class) of Landsat Collection 2 QA_PIXEL; of several set bits the last one counts."""


@dataclass(frozen=True, slots=True)
class RawBand:
    """Stored values (y, x) of a mask band on the mask's grid, NaN or `nodata` where missing.

    `value * scale + offset` is the quantity: reflectance, percent, score, or the code itself.
    """

    values: npt.NDArray[Any]
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def valid(self) -> BOOL:
        """Where the band has a value."""
        found = np.ones(self.values.shape, dtype=np.bool_)
        if self.values.dtype.kind == "f":
            found &= np.isfinite(self.values)
        if self.nodata is not None:
            found &= self.values != self.nodata
        return found

    @property
    def quantity(self) -> npt.NDArray[np.float32]:
        """The values in their unit, computed in float64 and rounded to float32."""
        return (self.values * np.float64(self.scale) + self.offset).astype(np.float32)


class Decoder(Protocol):
    """Turns the bands of a recipe, in its order, into uint8 classes (y, x)."""

    def __call__(self, bands: Sequence[RawBand]) -> MASK:
        """All bands lie on one grid; pixels that miss a band are class 0."""
        ...


def scene_classes(bands: Sequence[RawBand]) -> MASK:
    """The Sentinel-2 SCL as it is."""
    return np.ascontiguousarray(bands[0].values, dtype=np.uint8)


def qa_pixel(bands: Sequence[RawBand]) -> MASK:
    """Landsat Collection 2 QA_PIXEL (USGS LSDS-1619, table 6-3)."""
    qa, missing = bands[0].values, ~bands[0].valid
    classes: MASK = np.full(qa.shape, LAND, dtype=np.uint8)
    for bit, code in QA_PIXEL_BITS:
        classes[(qa & (1 << bit)) != 0] = code
    classes[missing] = NO_DATA
    return classes


def udm2(bands: Sequence[RawBand]) -> MASK:
    """PlanetScope UDM2: bands clear (1), snow (2) and unusable (8) of its eight.

    What is neither clear nor snow is haze, cloud or shadow. Bit 0 of `unusable` is blackfill,
    its other bits missing or suspect data (Planet, UDM2 product specification).
    """
    clear, snow, unusable = (band.values for band in bands)
    classes: MASK = np.full(clear.shape, CLOUD, dtype=np.uint8)
    classes[clear == 1] = LAND
    classes[snow == 1] = SNOW_CLASS
    classes[(unusable != 0) & (classes != CLOUD)] = DEFECTIVE
    classes[(unusable & 1) != 0] = NO_DATA
    for band in bands:
        classes[~band.valid] = NO_DATA
    return classes


def udm(bands: Sequence[RawBand]) -> MASK:
    """PlanetScope UDM, also band 8 (unusable) of UDM2: 0 is a usable pixel.

    Bit 0 is blackfill, bit 1 cloud, the others missing or suspect data of single bands (Planet,
    UDM product specification).
    """
    unusable = bands[0].values
    classes: MASK = np.full(unusable.shape, LAND, dtype=np.uint8)
    classes[unusable != 0] = DEFECTIVE
    classes[(unusable & 2) != 0] = CLOUD
    classes[(unusable & 1) != 0] = NO_DATA
    classes[~bands[0].valid] = NO_DATA
    return classes


@dataclass(frozen=True, slots=True)
class Threshold:
    """Clear where a score is on the right side of `limit`, the limit itself included.

    `largest` is what the band can hold: a larger value means that its scale is not the stated one.
    """

    limit: float
    largest: float
    clear_above: bool

    def __call__(self, bands: Sequence[RawBand]) -> MASK:
        """Classes land, cloud and no data."""
        (band,) = bands
        score, valid = band.quantity, band.valid
        # Compared in float32, in which the limit is what the same number of a raster is.
        clear = score >= np.float32(self.limit) if self.clear_above else score <= self.limit
        top = np.max(score, where=valid, initial=0.0)
        if top > self.largest:
            raise ContractError(
                f"a mask band has values up to {top:g}, expected at most {self.largest:g}; "
                "state its raster:scale in the item"
            )
        return np.where(valid, np.where(clear, LAND, CLOUD), NO_DATA).astype(np.uint8)
