"""What a composite is: the recipe as the user states it, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from lcengine import masks
from lcengine.errors import InputError
from lcengine.items import GroupBy
from lcengine.kernels import NODATA
from lcengine.kernels.methods import (
    DISTANCE,
    SCREENS,
    Count,
    Geomad,
    Geomedian,
    MadScreen,
    Method,
    check_domain,
    parse_methods,
)
from lcengine.kernels.series import Despike, Tmask
from lcengine.periods import PeriodRule
from lcengine.reader import check_resampling
from lcengine.sensors import Sensor
from lcengine.sensors.base import QUANTITIES, Quantity
from lcengine.store import Variable

QA_FILL: Final = 65535
"""uint16 fill of the QA variables: an unwritten pixel never looks like a count of zero."""
NO_DATE: Final = 65535
"""uint16 fill of dates, days since 1970-01-01."""
NO_ITEM: Final = 2**32 - 1
"""uint32 fill of item numbers."""
NO_LEVEL: Final = 255

AUTO: Final = "auto"
"""Bands, mask or screens of the sensor, whatever it is."""

WIDEST: Final = 2
"""Neighbouring periods on each side that may help out."""

Qa = Literal["none", "basic", "full"]


@dataclass(frozen=True, slots=True)
class Screens:
    """Outlier screens in the order they run: over the whole series, then within each period."""

    despike: Despike | None = None
    tmask: Tmask | None = None
    mad: MadScreen | None = None

    @classmethod
    def parse(cls, text: str) -> Screens:
        """Read `none` or screens of SCREENS, joined by commas, each at most once."""
        found: dict[str, Any] = {}
        parsers = {"despike": Despike.parse, "tmask": Tmask.parse, "mad": MadScreen.parse}
        for part in text.split(",") if text.strip() != "none" else ():
            name = part.strip().partition(":")[0]
            if name not in parsers or name in found:
                raise InputError(
                    f"outlier screens are {text!r}, expected 'none' or some of "
                    f"{', '.join(list(SCREENS)[1:])} joined by commas, each once"
                )
            found[name] = parsers[name](part)
        return cls(**found)

    @property
    def whole_series(self) -> bool:
        """Whether what they reject in one period depends on the others."""
        return self.despike is not None or self.tmask is not None

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands they look at, whatever is put out."""
        bands: list[str] = []
        bands += ("blue",) if self.despike else ()
        bands += ("green", "swir16") if self.tmask else ()
        bands += self.mad.needs if self.mad else ()
        return tuple(dict.fromkeys(bands))


@dataclass(frozen=True, slots=True)
class CompositeSpec:
    """The recipe of a composite.

    `bands`: canonical names, in output order. `mask`: a preset of `lcengine.masks` or `none`.
    `outliers`: `none`, or screens such as `mad:3` or `despike,mad:3`. Each of the three may be
    `auto` (the bands: `("auto",)`), which a plan replaces by what the sensor says. `method`: one or
    several reducers such as `median` or `median,percentile:10,percentile:90`. `period`: how time is
    cut (`month`, `season`, `P16D` …; see `lcengine.periods`), None for one composite of everything.
    `min_clear`: pixels with fewer observations in their period take those of the neighbouring
    periods as well, at most two on each side. `qa`: `none`, `basic` (count, outliers, lost,
    widened) or `full` (also chosen item and date, score, MADs). `groupby`: what counts as one
    observation. `max_lost`: share of a tile's items that may be unreadable before the tile fails
    instead of losing observations.
    """

    bands: tuple[str, ...] = (AUTO,)
    mask: str = AUTO
    outliers: str = AUTO
    method: str = "median"
    period: PeriodRule | None = None
    min_clear: int = 0
    qa: Qa = "basic"
    groupby: GroupBy = "overpass"
    resampling: str = "nearest"
    max_lost: float = 0.2

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise InputError(f"bands are {list(self.bands)}, expected at least one, each once")
        if AUTO in self.bands and len(self.bands) > 1:
            raise InputError(f"bands are {list(self.bands)}, expected auto alone or names of bands")
        if not 0 <= self.max_lost <= 1:
            raise InputError(f"max_lost is {self.max_lost}, expected a share between 0 and 1")
        check_qa(self.qa)
        if self.min_clear < 0:
            raise InputError(f"min_clear is {self.min_clear}, expected 0 or more observations")
        if self.min_clear and self.period is None:
            raise InputError(
                f"min_clear is {self.min_clear}, and there is no period whose neighbours could "
                "help out; state one with --period, such as month"
            )
        if self.mask != AUTO:
            masks.preset(self.mask)
        if self.outliers != AUTO:
            Screens.parse(self.outliers)
        check_resampling(self.resampling)
        if self.scores_distance and self.mask == "none":
            raise InputError(
                "method 'bap' looks at the distance to clouds, and the mask is 'none'; "
                "choose a mask such as worldcover"
            )

    def resolved(self, sensor: Sensor) -> CompositeSpec:
        """The recipe with what the sensor says in the place of `auto`."""
        return replace(
            self,
            bands=sensor.default_bands if self.bands == (AUTO,) else self.bands,
            mask=sensor.mask if self.mask == AUTO else self.mask,
            outliers=sensor.outliers if self.outliers == AUTO else self.outliers,
        )

    @property
    def scores_distance(self) -> bool:
        """Whether a method looks at the distance to clouds."""
        return any(DISTANCE in method.needs for method in self.methods)

    @property
    def asked(self) -> tuple[Method, ...]:
        """The methods as they are asked for; their labels name the variables."""
        return parse_methods(self.method)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods as they are run: with full QA a geomedian tells its deviations too."""
        full = self.qa == "full"
        return tuple(
            Geomad(method.eps) if full and type(method) is Geomedian else method
            for method in self.asked
        )

    @property
    def screens(self) -> Screens:
        """The parsed outlier screens."""
        return Screens.parse(self.outliers)

    @property
    def widest(self) -> int:
        """Neighbouring periods on each side that may help out."""
        return WIDEST if self.min_clear else 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands that methods and screens look at, the distance to clouds among them."""
        bands = [band for method in self.methods for band in method.needs]
        return tuple(dict.fromkeys((*bands, *self.screens.needs)))

    def quantity(self, sensor: Sensor) -> Quantity:
        """What the bands are: `InputError` where they are of several kinds."""
        return QUANTITIES[sensor.kind_of(self.bands)]

    def read_bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Bands to read: the requested ones, then those that only methods and screens look at."""
        domain = self.quantity(sensor).domain
        for method in self.methods:
            check_domain(method, domain)
        extra = [band for band in self.needs if band != DISTANCE]
        for band in extra:
            if band not in sensor.band_names:
                why = f"the screens {self.outliers!r} look at; take --outliers none or mad:3:bands"
                if band not in self.screens.needs:
                    why = f"the method {self.method!r} looks at; take another, such as median"
                raise InputError(f"sensor {sensor.name} has no band {band!r}, which {why}")
        return tuple(dict.fromkeys((*self.bands, *extra)))

    def layers(self) -> list[tuple[str, str, Method]]:
        """(variable, band, method) of every composited band, in the kernels' order."""
        methods = [method for method in self.asked if not isinstance(method, Count)]
        several = len(methods) > 1
        return [
            (f"{band}_{method.label}" if several else band, band, method)
            for method in methods
            for band in self.bands
        ]

    def extras(self) -> list[tuple[str, str, bool]]:
        """(variable, extra, whether it is written) of every extra, in the kernels' order."""
        found = [
            (asked.label, method, extra)
            for asked, method in zip(self.asked, self.methods, strict=True)
            for extra in method.extras
        ]
        names = [extra for _, _, extra in found]
        return [
            (
                extra if names.count(extra) == 1 else f"{extra}_{label}",
                extra,
                isinstance(method, Geomad) or self.qa == "full",
            )
            for label, method, extra in found
        ]

    def choices(self) -> list[str]:
        """Suffixes of the variables `date` and `item`, one per method that chooses an item."""
        choosing = [method for method in self.asked if method.chooses]
        return [f"_{method.label}" if len(choosing) > 1 else "" for method in choosing]

    def variables(self, title: str, quantity: Quantity) -> tuple[Variable, ...]:
        """The product's variables in writing order; `title`: of the sensor."""
        scale, units = quantity.scale, quantity.units
        out = [
            Variable(
                name,
                "int16",
                NODATA,
                f"{band} {title}".strip() + f", {method}",
                scale=scale,
                units=units,
            )
            for name, band, method in self.layers()
        ]
        out += [
            Variable(name, "float32", None, EXTRAS[extra])
            for name, extra, written in self.extras()
            if written
        ]
        counted = any(isinstance(method, Count) for method in self.methods)
        if self.qa != "none" or counted:
            out.append(Variable("count", "uint16", QA_FILL, "observations in the composite"))
        if self.qa != "none":
            out += [
                Variable("outliers", "uint16", QA_FILL, "clear observations that screens rejected"),
                Variable("lost", "uint16", QA_FILL, "observations that could not be read"),
            ]
            if self.min_clear:
                text = "neighbouring periods on each side that helped out"
                out.append(Variable("widened", "uint8", NO_LEVEL, text))
        for suffix in self.choices() if self.qa == "full" else ():
            days = "days since 1970-01-01"
            out += [
                Variable(
                    f"item{suffix}",
                    "uint32",
                    NO_ITEM,
                    "`number` in items.parquet",
                ),
                Variable(f"date{suffix}", "uint16", NO_DATE, "day of the observation", units=days),
            ]
        return tuple(out)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        period = self.period.to_json() if self.period else None
        return {**asdict(self), "bands": list(self.bands), "period": period}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompositeSpec:
        """Inverse of `to_json`."""
        period = PeriodRule.from_json(data["period"]) if data["period"] is not None else None
        return cls(**{**data, "bands": tuple(data["bands"]), "period": period})


def check_qa(name: str) -> Qa:
    """`name` if it is a level of QA, else `InputError`."""
    for known in get_args(Qa):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"qa is {name!r}, expected one of {', '.join(get_args(Qa))}")


EXTRAS: Final = {
    "smad": "median cosine distance from the geomedian",
    "emad": "median Euclidean distance from the geomedian, in steps of the bands",
    "bcmad": "median Bray-Curtis distance from the geomedian",
    "score": "score of the chosen observation, 0 to 1",
}
"""float32 layers beside the bands, and what they are."""
