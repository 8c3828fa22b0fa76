"""What a composite is: the recipe as the user states it, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lcengine import masks
from lcengine.errors import InputError
from lcengine.items import GroupBy
from lcengine.kernels.composite import MadScreen, Reducer
from lcengine.reader import check_resampling
from lcengine.sensors import Sensor

QA_FILL = 65535
"""uint16 fill of the QA variables: an unwritten pixel never looks like a count of zero."""


@dataclass(frozen=True, slots=True)
class CompositeSpec:
    """The recipe of a composite.

    `bands`: canonical names, in output order. `mask`: a preset of `lcengine.masks` or `none`.
    `outliers`: `none` or `mad:K`. `method`: `median`, `mean`, `percentile:P[:nearest]`.
    `groupby`: what counts as one observation. `max_lost`: share of a tile's items that may be
    unreadable before the tile fails instead of losing observations.
    """

    bands: tuple[str, ...]
    mask: str = "worldcover"
    outliers: str = "none"
    method: str = "median"
    groupby: GroupBy = "overpass"
    resampling: str = "nearest"
    max_lost: float = 0.2

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise InputError(f"bands are {list(self.bands)}, expected at least one, each once")
        if not 0 <= self.max_lost <= 1:
            raise InputError(f"max_lost is {self.max_lost}, expected a share between 0 and 1")
        masks.preset(self.mask)
        check_resampling(self.resampling)
        _ = self.reducer, self.screen

    @property
    def reducer(self) -> Reducer:
        """The parsed method."""
        return Reducer.parse(self.method)

    @property
    def screen(self) -> MadScreen | None:
        """The parsed outlier screen."""
        return MadScreen.parse(self.outliers)

    def read_bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Bands to read: the requested ones, then those that only the screen looks at."""
        for band in self.bands:
            if sensor.band(band).name == sensor.mask_band:
                raise InputError(f"band {band!r} is a classification and cannot be composited")
        extra = sensor.brightness if self.screen else ()
        return tuple(dict.fromkeys((*self.bands, *extra)))

    def screen_index(self, sensor: Sensor) -> tuple[int, ...]:
        """Positions in `read_bands` whose sum is the screen's brightness index."""
        if self.screen is None:
            return ()
        order = self.read_bands(sensor)
        return tuple(order.index(band) for band in sensor.brightness)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompositeSpec:
        """Inverse of `to_json`."""
        return cls(**{**data, "bands": tuple(data["bands"])})
