"""What to simulate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from lcengine.errors import InputError
from lcengine.simulate.sentinel2 import BANDS, Overpass, make_overpasses

SENSORS = ("s2", "s1", "planet")
"""The sensors of the simulated world."""
MOST_PIXELS = 40_000
"""400 km: a wider mosaic would leave the two UTM zones far behind."""


@dataclass(frozen=True)
class SimulationOptions:
    """What to simulate; equal options give identical files.

    `size`: width and height of the mosaic in 10 m pixels, even, from 64 to 40,000. `dates`:
    overpasses. `period`: first and last day as "YYYY-MM-DD/YYYY-MM-DD". `bands`: some of BANDS (SCL
    is always written). `second_zone`: the eastern granules in EPSG:32632. `sensors`: some of
    SENSORS. `labels`: also coarse and sparse labels. Raises InputError.
    """

    size: int = 1024
    dates: int = 24
    seed: int = 0
    period: str = "2023-04-01/2023-09-30"
    bands: tuple[str, ...] = BANDS
    second_zone: bool = False
    sensors: tuple[str, ...] = ("s2",)
    labels: bool = False

    def __post_init__(self) -> None:
        if not 64 <= self.size <= MOST_PIXELS or self.size % 2:
            raise InputError(
                f"size {self.size}: expected an even number of pixels from 64 to {MOST_PIXELS}"
            )
        if self.dates < 1:
            raise InputError(f"dates {self.dates}: expected at least 1 overpass")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: expected 0 or a positive number")
        unknown = [b for b in self.bands if b not in BANDS]
        if unknown or not self.bands or len(set(self.bands)) < len(self.bands):
            raise InputError(
                f"bands {','.join(self.bands) or '(none)'}: expected different names out of "
                f"{', '.join(BANDS)} (scl is always written)"
            )
        unknown = [s for s in self.sensors if s not in SENSORS]
        if unknown or not self.sensors or len(set(self.sensors)) < len(self.sensors):
            raise InputError(
                f"sensors {','.join(self.sensors) or '(none)'}: expected different names out of "
                f"{', '.join(SENSORS)}"
            )
        if self.second_zone and "s2" not in self.sensors:
            raise InputError("second_zone concerns granules of Sentinel-2: add s2 to the sensors")
        self.overpasses()

    def days(self) -> tuple[date, date]:
        """First and last day of the period."""
        try:
            first, last = (date.fromisoformat(part) for part in self.period.split("/"))
        except ValueError as error:
            raise InputError(
                f'period "{self.period}": expected two days like 2023-04-01/2023-09-30'
            ) from error
        if last < first:
            raise InputError(f'period "{self.period}" ends before it begins: swap the two days')
        return first, last

    def overpasses(self) -> tuple[Overpass, ...]:
        """The acquisitions, in order of time."""
        return make_overpasses(*self.days(), self.dates, self.seed)
