"""Spectral indices by common band names: one table of formulas with their sources.

Every index is a fraction of two weighted sums of bands, in reflectance; those of radar are of
backscatter in dB, or of the linear power behind it. A denominator of 0 gives 0, and values are
clipped to the index's range: beyond it lie only slightly negative reflectances and noise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

Sum = Mapping[str, float]
"""Weights by band; that of "1" is added as it is."""

ALTERNATIVES: Mapping[str, tuple[str, ...]] = {"nir": ("nir", "nir08")}
"""What stands for a band, in this order: Sentinel-2 has two in the near infrared."""


@dataclass(frozen=True)
class Index:
    """`over` / `under`, clipped to `limits`.

    `domain`: what the bands are turned into before: reflectance, backscatter in dB or its power.
    """

    name: str
    title: str
    over: Sum = field(hash=False)
    under: Sum = field(hash=False)
    limits: tuple[float, float]
    source: str
    domain: Literal["reflectance", "decibel", "power"] = "reflectance"

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of the bands it needs, in the order of the formula."""
        return tuple(name for name in dict.fromkeys([*self.over, *self.under]) if name != "1")

    @property
    def scaled(self) -> bool:
        """Whether its value changes with the scale of the bands."""
        return "1" in self.under or "1" in self.over

    def found(self, bands: Collection[str], suffix: str = "") -> tuple[str, ...] | None:
        """Which of an image's bands it takes, None where one is lacking.

        `suffix`: what their names end in, as those of composites by several methods do: `_p90`.
        """
        chosen = [
            next((n + suffix for n in ALTERNATIVES.get(band, (band,)) if n + suffix in bands), None)
            for band in self.bands
        ]
        names = tuple(name for name in chosen if name is not None)
        return names if len(names) == len(chosen) else None

    def formula(self) -> str:
        """The formula as people write it."""
        over, under = _written(self.over), _written(self.under)
        if under == "1":
            return over
        top = over if len(self.over) == 1 else f"({over})"
        return f"{top} / {under if len(self.under) == 1 else f'({under})'}"


def _written(terms: Sum) -> str:
    text = ""
    for band, weight in terms.items():
        sign = " − " if weight < 0 else " + "
        size = f"{abs(weight):g}"
        part = size if band == "1" else band if size == "1" else f"{size}·{band}"
        text += (sign if text else sign.strip(" +")) + part
    return text


def _difference(name: str, title: str, pair: tuple[str, str], source: str) -> Index:
    """The normalised difference of two bands."""
    one, other = pair
    return Index(name, title, {one: 1, other: -1}, {one: 1, other: 1}, (-1, 1), source)


_ALL = (
    _difference("ndvi", "vegetation", ("nir", "red"), "Rouse et al. 1974, NASA SP-351"),
    _difference(
        "gndvi", "vegetation, green", ("nir", "green"), "Gitelson et al. 1996, RSE 58(3), 289-298"
    ),
    _difference(
        "ndre", "vegetation, red edge", ("nir", "rededge1"), "Gitelson & Merzlyak 1994, JPPB 22"
    ),
    Index(
        "evi",
        "enhanced vegetation",
        {"nir": 2.5, "red": -2.5},
        {"nir": 1, "red": 6, "blue": -7.5, "1": 1},
        (-2, 2),
        "Huete et al. 2002, RSE 83, 195-213",
    ),
    Index(
        "evi2",
        "enhanced vegetation, two bands",
        {"nir": 2.5, "red": -2.5},
        {"nir": 1, "red": 2.4, "1": 1},
        (-2, 2),
        "Jiang et al. 2008, RSE 112(10), 3833-3845",
    ),
    Index(
        "savi",
        "soil-adjusted vegetation",
        {"nir": 1.5, "red": -1.5},
        {"nir": 1, "red": 1, "1": 0.5},
        (-2, 2),
        "Huete 1988, RSE 25(3), 295-309",
    ),
    Index(
        "osavi",
        "optimised soil-adjusted vegetation",
        {"nir": 1, "red": -1},
        {"nir": 1, "red": 1, "1": 0.16},
        (-2, 2),
        "Rondeaux et al. 1996, RSE 55(2), 95-107",
    ),
    Index(
        "vari",
        "vegetation, visible bands",
        {"green": 1, "red": -1},
        {"green": 1, "red": 1, "blue": -1},
        (-2, 2),
        "Gitelson et al. 2002, RSE 80(1), 76-87",
    ),
    Index(
        "cire",
        "chlorophyll, red edge",
        {"nir": 1, "rededge1": -1},
        {"rededge1": 1},
        (-1, 30),
        "Gitelson et al. 2003, J. Plant Physiol. 160(3), 271-282",
    ),
    Index(
        "cig",
        "chlorophyll, green",
        {"nir": 1, "green": -1},
        {"green": 1},
        (-1, 30),
        "Gitelson et al. 2003, J. Plant Physiol. 160(3), 271-282",
    ),
    Index(
        "psri",
        "plant senescence",
        {"red": 1, "blue": -1},
        {"rededge2": 1},
        (-2, 2),
        "Merzlyak et al. 1999, Physiol. Plant. 106(1), 135-141",
    ),
    _difference("ndyi", "yellowness", ("green", "blue"), "Sulik & Long 2016, RSE 184, 161-170"),
    _difference("ndwi", "open water", ("green", "nir"), "McFeeters 1996, IJRS 17(7), 1425-1432"),
    _difference("mndwi", "open water, modified", ("green", "swir16"), "Xu 2006, IJRS 27(14)"),
    Index(
        "awei",
        "water extraction, without shadows",
        {"green": 4, "swir16": -4, "nir": -0.25, "swir22": -2.75},
        {"1": 1},
        (-10, 10),
        "Feyisa et al. 2014, RSE 140, 23-35",
    ),
    _difference(
        "ndmi", "moisture of vegetation", ("nir", "swir16"), "Gao 1996, RSE 58(3), 257-266"
    ),
    _difference("ndbi", "built-up", ("swir16", "nir"), "Zha et al. 2003, IJRS 24(3), 583-594"),
    Index(
        "bsi",
        "bare soil",
        {"swir16": 1, "red": 1, "nir": -1, "blue": -1},
        {"swir16": 1, "red": 1, "nir": 1, "blue": 1},
        (-1, 1),
        "Rikimaru et al. 2002, Tropical Ecology 43(1), 39-47",
    ),
    _difference("nbr", "burn", ("nir", "swir22"), "Key & Benson 2006, USDA RMRS-GTR-164"),
    _difference(
        "ndti", "tillage", ("swir16", "swir22"), "van Deventer et al. 1997, PE&RS 63(1), 87-93"
    ),
    _difference("ndsi", "snow", ("green", "swir16"), "Hall et al. 1995, RSE 54(2), 127-140"),
    Index(
        "vv_vh",
        "ratio of polarisations in dB",
        {"vv": 1, "vh": -1},
        {"1": 1},
        (-50, 50),
        "Veloso et al. 2017, RSE 199, 415-426",
        "decibel",
    ),
    Index(
        "rvi",
        "radar vegetation, two polarisations",
        {"vh": 4},
        {"vv": 1, "vh": 1},
        (0, 4),
        "Trudel et al. 2012, Can. J. Remote Sensing 38(4)",
        "power",
    ),
    Index(
        "nrpb",
        "normalised ratio of polarisations",
        {"vh": 1, "vv": -1},
        {"vh": 1, "vv": 1},
        (-1, 1),
        "Filgueiras et al. 2019, Remote Sensing 11(12), 1441",
        "power",
    ),
)

INDICES: Mapping[str, Index] = {index.name: index for index in _ALL}
"""The indices by name."""
