"""The legend of the simulated ground: spectra and seasons of eight crops and ten natural classes.

Spectra are round values of surface reflectance typical of each cover; what the tests hold them
against (NDVI, NDSI, brightness) has its sources there.
"""

from __future__ import annotations

from dataclasses import dataclass

from lcengine.legends import Entry, Legend

Spectrum = tuple[float, ...]

# Surface reflectance in the order of BANDS: blue green red, red edge 1-3, nir nir08, swir16 swir22.
_CROP: Spectrum = (0.025, 0.055, 0.025, 0.090, 0.340, 0.440, 0.470, 0.490, 0.220, 0.100)
_GRASS: Spectrum = (0.030, 0.065, 0.035, 0.100, 0.300, 0.370, 0.400, 0.420, 0.240, 0.120)
_BROADLEAF: Spectrum = (0.018, 0.038, 0.018, 0.060, 0.220, 0.280, 0.300, 0.320, 0.140, 0.065)
_NEEDLES: Spectrum = (0.015, 0.030, 0.018, 0.045, 0.150, 0.190, 0.210, 0.220, 0.095, 0.045)
_SHRUBS: Spectrum = (0.028, 0.050, 0.035, 0.085, 0.200, 0.240, 0.260, 0.275, 0.190, 0.100)
_REEDS: Spectrum = (0.030, 0.055, 0.035, 0.090, 0.240, 0.300, 0.325, 0.340, 0.160, 0.075)
_SOIL: Spectrum = (0.060, 0.090, 0.125, 0.150, 0.170, 0.185, 0.205, 0.220, 0.285, 0.245)
_LITTER: Spectrum = (0.032, 0.048, 0.055, 0.075, 0.105, 0.120, 0.135, 0.150, 0.190, 0.130)
_DRY_GRASS: Spectrum = (0.055, 0.085, 0.110, 0.140, 0.190, 0.210, 0.235, 0.255, 0.310, 0.220)
_MUD: Spectrum = (0.030, 0.045, 0.042, 0.050, 0.060, 0.065, 0.070, 0.072, 0.045, 0.030)
_ROCK: Spectrum = (0.130, 0.175, 0.220, 0.230, 0.237, 0.245, 0.255, 0.262, 0.340, 0.300)
_SNOW: Spectrum = (0.820, 0.810, 0.790, 0.780, 0.760, 0.740, 0.720, 0.700, 0.080, 0.060)
_WATER: Spectrum = (0.035, 0.042, 0.026, 0.022, 0.016, 0.014, 0.012, 0.011, 0.008, 0.006)
_PAVED: Spectrum = (0.110, 0.130, 0.145, 0.155, 0.170, 0.180, 0.195, 0.200, 0.215, 0.190)


@dataclass(frozen=True)
class CoverType:
    """One class of the legend: spectra of ground and canopy, and the course of green cover."""

    code: int
    name: str
    color: str
    dfc2020: int
    """Class of the DFC2020 legend, 1 to 10."""
    igbp: int
    """Class of the IGBP legend, 1 to 17."""
    ground: Spectrum
    canopy: Spectrum
    low: float
    peak: float
    rise: tuple[float, float]
    """Day of year of the steepest greening, and its time constant in days."""
    fall: tuple[float, float]
    """Day of year of ripening, harvest or leaf fall, and its time constant in days."""
    share: float = 0.0
    """Share among the fields; 0 for what is not sown on fields."""
    spread: float = 0.13
    """Standard deviation of the logarithm of a unit's brightness."""

    @property
    def crop(self) -> bool:
        """True for the eight temporary crops, false for all else (bare fallow too)."""
        return self.code <= _CROPS


_CROPS = 8
LEGEND: tuple[CoverType, ...] = (
    CoverType(
        1, "winter wheat", "#e8c35a", 6, 12, _SOIL, _CROP, 0.06, 0.93, (85, 10), (192, 6), 0.20
    ),
    CoverType(
        2, "winter barley", "#cfae3a", 6, 12, _SOIL, _CROP, 0.08, 0.91, (78, 10), (172, 6), 0.07
    ),
    CoverType(
        3, "winter rapeseed", "#f2e34b", 6, 12, _SOIL, _CROP, 0.08, 0.90, (72, 10), (180, 7), 0.08
    ),
    CoverType(4, "maize", "#d98a29", 6, 12, _SOIL, _CROP, 0.04, 0.92, (166, 8), (266, 7), 0.20),
    CoverType(
        5, "sugar beet", "#b05a9d", 6, 12, _SOIL, _CROP, 0.04, 0.94, (158, 9), (305, 8), 0.09
    ),
    CoverType(6, "potato", "#8c6bb1", 6, 12, _SOIL, _CROP, 0.04, 0.90, (152, 8), (238, 7), 0.08),
    CoverType(7, "sunflower", "#f5a623", 6, 12, _SOIL, _CROP, 0.04, 0.82, (156, 8), (232, 9), 0.03),
    CoverType(8, "soya", "#6f9a3e", 6, 12, _SOIL, _CROP, 0.04, 0.93, (172, 8), (250, 7), 0.03),
    CoverType(
        9, "grassland", "#8fce6b", 4, 10, _SOIL, _GRASS, 0.45, 0.88, (78, 12), (330, 15), 0.19
    ),
    CoverType(
        10, "fallow", "#c8b08b", 6, 12, _SOIL, _GRASS, 0.03, 0.08, (110, 20), (300, 20), 0.03
    ),
    CoverType(
        11, "deciduous forest", "#2f8a4a", 1, 4, _LITTER, _BROADLEAF, 0.25, 0.96, (113, 7), (298, 9)
    ),
    CoverType(
        12, "evergreen forest", "#14532d", 1, 1, _LITTER, _NEEDLES, 0.82, 0.95, (120, 20), (300, 20)
    ),
    CoverType(
        13, "shrubland", "#a3a847", 2, 7, _DRY_GRASS, _SHRUBS, 0.40, 0.62, (115, 15), (285, 20)
    ),
    CoverType(14, "savanna", "#d6cf7a", 3, 9, _DRY_GRASS, _GRASS, 0.20, 0.68, (95, 12), (190, 15)),
    CoverType(15, "wetland", "#4fb3a5", 5, 11, _MUD, _REEDS, 0.25, 0.75, (125, 12), (290, 14)),
    CoverType(
        16,
        "built-up",
        "#9a9a9a",
        7,
        13,
        _PAVED,
        _GRASS,
        0.03,
        0.06,
        (100, 15),
        (300, 15),
        0.0,
        0.30,
    ),
    CoverType(17, "barren", "#b9a58f", 9, 16, _ROCK, _GRASS, 0.01, 0.03, (110, 20), (290, 20)),
    CoverType(
        18,
        "snow and ice",
        "#e8f4ff",
        8,
        15,
        _SNOW,
        _SNOW,
        0.00,
        0.00,
        (100, 10),
        (300, 10),
        0.0,
        0.04,
    ),
    CoverType(
        19, "water", "#3b7dd8", 10, 17, _WATER, _WATER, 0.00, 0.00, (100, 10), (300, 10), 0.0, 0.08
    ),
)
CLASSES = Legend(
    "simulated",
    "Cover of the simulated ground",
    tuple(Entry(c.code, c.name, c.color) for c in LEGEND),
    "lcengine.simulate",
)
CODE = {c.name: c.code for c in LEGEND}
"""Code of each class by name."""
