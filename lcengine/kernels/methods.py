"""Reducers and screens as values: what a user asks for, parsed and checked. No numba here.

A method says which bands it looks at by their common names, and what it yields: a layer per output
band in the cube's own type, float32 extras (MADs, score), and the item that it chose, where it
takes the spectrum of a real observation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from lcengine.errors import InputError

Domain = Literal["linear", "power"]
"""Where values are averaged: as they are, or int16 dB × 100 as the linear power behind them."""

DISTANCE: Final = "cloud_distance"
"""Name of the band that holds metres to the nearest cloud, for the best available pixel."""
FARTHEST: Final = 3000
"""Metres beyond which a cloud does not matter (Frantz et al. 2017)."""
YEAR: Final = 365
"""Days of a year as seasons count it; day 366 counts as day 1."""
SEASON_SIDE: Final = 90
"""Days before and after the target day at which the best available pixel's season ends."""
BRIGHTNESS: Final = ("blue", "green", "red")

DECIMALS: Final = 3  # of percentiles and of the screen's k
_MAX_K: Final = 1000.0
_MAX_FLOOR: Final = 32767
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Method:
    """What all reducers have in common.

    needs: bands it looks at, whatever is put out. extras: float32 layers beside the bands.
    chooses: whether it takes the whole spectrum of one real observation.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    chooses: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Suffix of its variables where a product holds several methods."""
        return re.sub(r"\W", "_", str(self))


@dataclass(frozen=True, slots=True)
class Median(Method):
    """Per band the middle value, or half-way between the two middle ones."""

    def __str__(self) -> str:
        return "median"


@dataclass(frozen=True, slots=True)
class Mean(Method):
    """Per band the mean."""

    def __str__(self) -> str:
        return "mean"


@dataclass(frozen=True, slots=True)
class Percentile(Method):
    """Per band a percentile.

    percent: 0..100, at most three decimals. rule: `linear` interpolates as `numpy.percentile`;
    `nearest` takes index floor((n − 1)·percent/100 + 0.5) of the ascending sort, a real value.
    """

    percent: float
    rule: Literal["linear", "nearest"] = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100 or round(self.percent, DECIMALS) != self.percent:
            raise InputError(
                f"got percentile {self.percent!r}, expected 0 to 100 with at most {DECIMALS} "
                "decimals"
            )
        if self.rule not in ("linear", "nearest"):
            raise InputError(f"got percentile rule {self.rule!r}, expected 'linear' or 'nearest'")

    def __str__(self) -> str:
        return f"percentile:{self.percent:g}{':nearest' if self.rule == 'nearest' else ''}"

    @property
    def label(self) -> str:
        """`p25`, `p2_5`, `p25_nearest`."""
        text = f"p{self.percent:g}".replace(".", "_")
        return f"{text}_nearest" if self.rule == "nearest" else text


@dataclass(frozen=True, slots=True)
class Geomedian(Method):
    """The spectrum with the least sum of distances to all (Roberts et al. 2017, TGRS 55(11)).

    eps: the iteration ends with a step shorter than this, in DN (reflectance × 10000).
    """

    eps: float = 0.1

    def __post_init__(self) -> None:
        if not 1e-6 <= self.eps <= 100:
            raise InputError(f"got geomedian eps {self.eps!r}, expected 0.000001 to 100 DN")

    def __str__(self) -> str:
        return "geomedian" if self.eps == 0.1 else f"geomedian:{self.eps:g}"


@dataclass(frozen=True, slots=True)
class Geomad(Geomedian):
    """The geomedian with three median absolute deviations (Roberts et al. 2018).

    smad: spectral (cosine) distance, emad: Euclidean in DN, bcmad: Bray-Curtis; all float32.
    """

    extras: ClassVar[tuple[str, ...]] = ("smad", "emad", "bcmad")

    def __str__(self) -> str:
        return "geomad" if self.eps == 0.1 else f"geomad:{self.eps:g}"


@dataclass(frozen=True, slots=True)
class Medoid(Method):
    """The observation with the least sum of distances to all others (Flood 2013).

    nearest: instead the one nearest to the median, which costs far less (S2Mosaic).
    """

    chooses: ClassVar[bool] = True
    nearest: bool = False

    def __str__(self) -> str:
        return "medoid:nearest" if self.nearest else "medoid"


INDICES: Final[dict[str, tuple[tuple[str, ...], float | None]]] = {
    "blue": (("blue",), 25.0),
    "hot": (("blue", "red"), 25.0),
    "ndvi": (("nir", "red"), None),
    "ndwi": (("nir", "swir16"), 100.0),
    "ratio": (("nir", "swir16", "blue"), 100.0),
}
"""Index → (bands, percentile) of eo-learn's composites; ndvi: greenest, over water the least."""


@dataclass(frozen=True, slots=True)
class ByIndex(Method):
    """The observation at a percentile of an index, nearest rank (eo-learn).

    blue; hot = blue − 0.5·red − 0.08; ndvi; ndwi = (nir − swir16)/(nir + swir16);
    ratio = max(nir, swir16)/blue. percent None: eo-learn's own choice for that index.
    """

    chooses: ClassVar[bool] = True
    index: str
    percent: float | None = None

    def __post_init__(self) -> None:
        if self.index not in INDICES:
            raise InputError(f"got index {self.index!r}, expected one of {', '.join(INDICES)}")
        if self.percent is not None:
            Percentile(self.percent)

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # differs per index
        """Bands of the index."""
        return INDICES[self.index][0]

    def __str__(self) -> str:
        own = "" if self.percent is None else f":{self.percent:g}"
        return f"index:{self.index}{own}"


@dataclass(frozen=True, slots=True)
class MaxNdvi(Method):
    """The greenest observation, the earliest of equals."""

    chooses: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("nir", "red")

    def __str__(self) -> str:
        return "max-ndvi"


@dataclass(frozen=True, slots=True)
class FirstClear(Method):
    """The earliest clear observation (last: the latest)."""

    chooses: ClassVar[bool] = True
    last: bool = False

    def __str__(self) -> str:
        return "last-clear" if self.last else "first-clear"


@dataclass(frozen=True, slots=True)
class BestPixel(Method):
    """The observation with the best score (Griffiths et al. 2013; Frantz et al. 2017, FORCE).

    Day of year (split Gaussian: 1 at `target`, 0.01 at `low` and `high`) and year, weight 1 each,
    distance to clouds 0.4, haze 0.3. target None: the middle of the period; low and high None:
    90 days before and after. Days of year 1..366; low may be greater than target, across the year.
    year: the wanted one; None: all years are alike.
    """

    chooses: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("blue", "red", DISTANCE)
    extras: ClassVar[tuple[str, ...]] = ("score",)
    target: int | None = None
    low: int | None = None
    high: int | None = None
    year: int | None = None

    def __post_init__(self) -> None:
        for day in (self.target, self.low, self.high):
            if day is not None and not 1 <= day <= 366:
                raise InputError(f"got day of year {day}, expected 1 to 366")
        if self.target is not None and self.low is not None and self.high is not None:
            season_sides(self.target, self.low, self.high)

    def __str__(self) -> str:
        if self.target is None:
            return "bap"
        if self.low is None:
            return f"bap:{self.target}"
        return f"bap:{self.low}-{self.target}-{self.high}"


@dataclass(frozen=True, slots=True)
class Count(Method):
    """No bands at all, only how many observations are clear."""

    def __str__(self) -> str:
        return "count"


def check_domain(method: Method, domain: Domain) -> None:
    """`InputError` for a method that has no meaning in a domain.

    Distances between spectra and optical indices are of reflectance; of backscatter they are not
    defined here.
    """
    known = (Median, Mean, Percentile, FirstClear, Count)
    if domain == "power" and not isinstance(method, known):
        raise InputError(
            f"method '{method}' looks at spectra of reflectance, and the bands are backscatter; "
            "choose median, mean, percentile:P, first-clear, last-clear or count"
        )


def season_sides(target: float, low: float, high: float) -> tuple[float, float]:
    """Days from low to target and from target to high, within a year of 365 days.

    Raises:
        InputError: they do not follow each other within a year.
    """
    before, after = (target - low) % YEAR, (high - target) % YEAR
    if not (before > 0 and after > 0 and before + after <= YEAR):
        raise InputError(
            f"got season low {low:g}, target {target:g}, high {high:g}, expected three different "
            "days of the year in this order"
        )
    return before, after


FORMS: Final = {
    "median": "robust all-rounder; per band",
    "mean": "least noise, but every missed cloud shows; screen outliers first",
    "percentile:P[:nearest]": "per band, e.g. 10 and 90 as features, 25 against haze",
    "geomedian[:EPS]": "median of whole spectra: keeps the ratios of bands; EPS in DN (0.1)",
    "geomad[:EPS]": "geomedian with three measures of variation (smad, emad, bcmad)",
    "medoid[:nearest]": "the most central real observation; nearest: to the median, cheaper",
    "max-ndvi": "the greenest real observation: peak of the season",
    "index:NAME[:P]": "real observation by blue, hot, ndvi, ndwi or ratio (eo-learn)",
    "bap[:DAY|LOW-DAY-HIGH]": "best real observation: near a day of year, far from clouds and haze",
    "first-clear": "the earliest real observation",
    "last-clear": "the latest real observation",
    "count": "how many clear observations there are, no bands",
}
"""Every method with what it is for."""


DEFAULT_SCREEN: Final = "mad:3:bright"
"""What `lcengine composite` screens with unless told otherwise; docs/compositing.md says why."""

SCREENS: Final = {
    "none": "trust the mask",
    "mad[:K][:bright|:dark][:bands]": "drop observations K robust deviations off the median",
    "despike[:ABOVE:BELOW]": "drop spikes of the whole series, restore masked points on its course",
    "tmask[:MULTIPLE]": "drop what a seasonal curve of the whole series does not explain",
}
"""Every outlier screen with what it does; several are joined by commas."""


def parse_method(text: str) -> Method:
    """Read one form of FORMS.

    Raises:
        InputError: anything else.
    """
    expected = f"method is {text!r}, expected one of {', '.join(FORMS)}"
    name, *rest = text.strip().split(":")
    plain: dict[str, Callable[[], Method]] = {
        "median": Median,
        "mean": Mean,
        "geomedian": Geomedian,
        "geomad": Geomad,
        "medoid": Medoid,
        "max-ndvi": MaxNdvi,
        "bap": BestPixel,
        "first-clear": FirstClear,
        "last-clear": lambda: FirstClear(last=True),
        "count": Count,
    }
    if not rest and name in plain:
        return plain[name]()
    if name == "percentile" and len(rest) in (1, 2):
        if rest[1:] not in ([], ["linear"], ["nearest"]):
            raise InputError(expected)
        return Percentile(
            _number(rest[0], expected), "nearest" if rest[1:] == ["nearest"] else "linear"
        )
    if name == "index" and len(rest) in (1, 2):
        return ByIndex(rest[0], _number(rest[1], expected) if rest[1:] else None)
    if name == "medoid" and rest == ["nearest"]:
        return Medoid(nearest=True)
    if name in ("geomedian", "geomad") and len(rest) == 1:
        return {"geomedian": Geomedian, "geomad": Geomad}[name](_decimal(rest[0], expected))
    days = re.fullmatch(r"(?:(\d+)-)?(\d+)(?:-(\d+))?", ":".join(rest))
    if name == "bap" and days and (days[1] is None) == (days[3] is None):
        low, target, high = (None if d is None else int(d) for d in days.groups())
        return BestPixel(target, low, high)
    raise InputError(expected)


def parse_methods(text: str) -> tuple[Method, ...]:
    """Read methods separated by commas, each once.

    Raises:
        InputError: an unknown method, or two whose variables would have the same name.
    """
    found = tuple(parse_method(part) for part in text.split(","))
    labels = [method.label for method in found]
    if len(set(labels)) != len(labels):
        raise InputError(f"method is {text!r}, expected each method once")
    return found


@dataclass(frozen=True, slots=True)
class MadScreen:
    """Reject observations far from the pixel's median: 0.6745·|x − m| / MAD > k.

    x is the sum of the screen's bands (visible brightness), m its median and MAD the median of
    |x − m|, not less than `floor` (DN of x; the default, 150 a band, lets bare soil come and go).
    per_band: each of the cube's output bands is judged by itself, and an observation that is an
    outlier in any of them is rejected. side: `both`, `bright` or `dark` of the median. k: 0..1000,
    at most three decimals.

    Raises:
        InputError: k, floor or side out of range.
    """

    k: float = 3.0
    floor: int = 450
    side: Literal["both", "bright", "dark"] = "both"
    per_band: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.k <= _MAX_K or round(self.k, DECIMALS) != self.k:
            raise InputError(
                f"got MAD screen k {self.k!r}, expected 0 to {_MAX_K:g} with at most "
                f"{DECIMALS} decimals"
            )
        if not 0 <= self.floor <= _MAX_FLOOR:
            raise InputError(f"got MAD floor {self.floor!r}, expected 0 to {_MAX_FLOOR}")
        if self.side not in ("both", "bright", "dark"):
            raise InputError(f"got side {self.side!r}, expected 'both', 'bright' or 'dark'")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it looks at, whatever is put out."""
        return () if self.per_band else BRIGHTNESS

    @classmethod
    def parse(cls, text: str) -> MadScreen:
        """Read `mad`, `mad:K`, then optionally `:bright` or `:dark`, and `:bands`.

        Raises:
            InputError: anything else.
        """
        expected = (
            f"got outlier screen {text!r}, expected 'mad[:K][:bright|:dark][:bands]' "
            f"with K from 0 to {_MAX_K:g}"
        )
        name, *rest = text.strip().split(":")
        if name != "mad":
            raise InputError(expected)
        k, side, per_band = 3.0, "both", False
        if rest and _NUMBER.fullmatch(rest[0]):
            k = _number(rest.pop(0), expected)
        if rest and rest[0] in ("bright", "dark"):
            side = rest.pop(0)
        if rest and rest[0] == "bands":
            per_band = bool(rest.pop(0))
        if rest:
            raise InputError(expected)
        return cls(k, side=side, per_band=per_band)  # type: ignore[arg-type]

    def __str__(self) -> str:
        side = "" if self.side == "both" else f":{self.side}"
        return f"mad:{self.k:g}{side}{':bands' if self.per_band else ''}"


def _number(text: str, expected: str) -> float:
    """A plain decimal with at most three decimals."""
    if _NUMBER.fullmatch(text) is None or len(text.partition(".")[2]) > DECIMALS:
        raise InputError(expected)
    return float(text)


def _decimal(text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(expected) from None
