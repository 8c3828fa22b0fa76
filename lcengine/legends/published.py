"""Legends of published label sets and maps other than MODIS and the CDL."""

from __future__ import annotations

from dataclasses import replace

from lcengine.legends.base import Entry, Legend, entries

DFC2020 = Legend(
    "dfc2020",
    "IEEE GRSS Data Fusion Contest 2020",
    entries("""
        0 ffffff Unlabelled
        1 009900 Forest
        2 c6b044 Shrubland
        3 fbff13 Savanna
        4 b6ff05 Grassland
        5 27ff87 Wetlands
        6 c24f44 Croplands
        7 a5a5a5 Urban/Built-up
        8 69fff8 Snow/Ice
        9 f9ffa4 Barren
        10 1c0dff Water
    """),
    "Robinson et al. 2021, Global land-cover mapping with weak supervision (IEEE JSTARS 14); "
    "Schmitt et al. 2020, IEEE GRSS Data Fusion Contest 2020 (simplified IGBP); colours: the "
    "contest's baseline",
    ignored=(0,),
)
"""The ten classes of simplified IGBP. Savanna (3) and snow (8) have no reference labels there."""


def _without_savanna() -> tuple[Entry, ...]:
    """DFC2020 without class 3, the following codes one less, as the contest's baseline has it."""
    kept = (entry for entry in DFC2020.entries if entry.code != 3)
    return tuple(replace(entry, code=code) for code, entry in enumerate(kept))


DFC2020_NO_SAVANNA = Legend(
    "dfc2020-no-savanna",
    "IEEE GRSS Data Fusion Contest 2020 without savanna",
    _without_savanna(),
    "as dfc2020; codes above 3 shifted by one",
    ignored=(0,),
)

WORLDCOVER = Legend(
    "worldcover",
    "ESA WorldCover 10 m (v100 2020, v200 2021)",
    entries("""
        0 000000 No data
        10 006400 Tree cover
        20 ffbb22 Shrubland
        30 ffff4c Grassland
        40 f096ff Cropland
        50 fa0000 Built-up
        60 b4b4b4 Bare / sparse vegetation
        70 f0f0f0 Snow and ice
        80 0064c8 Permanent water bodies
        90 0096a0 Herbaceous wetland
        95 00cf75 Mangroves
        100 fae6a0 Moss and lichen
    """),
    "ESA WorldCover Product User Manual v2.0 (Zanaga et al. 2022), legend and colour table",
    ignored=(0,),
)

EUCROPMAP = Legend(
    "eucropmap",
    "EUCROPMAP 2018 (JRC), crop types of the European Union at 10 m",
    entries("""
        0 000000 No data
        Arable land / Cereals:
        211 a57000 Common wheat
        212 896054 Durum wheat
        213 e2007c Barley
        214 aa007c Rye
        215 a05989 Oats
        216 ffd300 Maize
        217 00a8e2 Rice
        218 d69ebc Triticale
        219 d69ebc Other cereals
        Arable land / Root crops:
        221 dda50a Potatoes
        222 a800e2 Sugar beet
        223 00af49 Other root crops
        Arable land / Non-permanent industrial crops:
        230 00af49 Other non-permanent industrial crops
        231 ffff00 Sunflower
        232 d1ff00 Rapeseed and turnip rapeseed
        233 267000 Soya
        Arable land / Dry pulses:
        240 f2a377 Dry pulses
        Arable land / Fodder crops:
        250 e8bfff Fodder crops (cereals and leguminous)
        Arable land / Bare arable land:
        290 696969 Bare arable land
        Woodland and shrubland:
        300 93cc93 Woodland and shrubland (incl. permanent crops)
        Grasslands:
        500 e8ffbf Grasslands
    """),
    "d'Andrimont et al. 2021, From parcel to continental scale (Remote Sensing of Environment 266, "
    "112708); groups: LUCAS; colours: JRC/D5/EUCROPMAP/V1 in the Earth Engine data catalogue",
    ignored=(0,),
)
"""The 21 classes of 2018: 19 of arable land, woodland and shrubland, grasslands."""

DEEPGLOBE = Legend(
    "deepglobe",
    "DeepGlobe 2018 land cover classification (labels are RGB images)",
    entries("""
        0 000000 Unknown
        1 00ffff Urban land
        2 ffff00 Agriculture land
        3 ff00ff Rangeland
        4 00ff00 Forest land
        5 0000ff Water
        6 ffffff Barren land
    """),
    "Demir et al. 2018, DeepGlobe 2018: a challenge to parse the Earth through satellite images "
    "(CVPR workshops), which defines colours; codes here: its order, unknown 0",
    ignored=(0,),
)
"""Its masks are to be thresholded at 128 per channel: `from_rgb(mask, tolerance=127)`."""

CROP = Legend(
    "crop",
    "Crop / non-crop",
    entries("""
        0 b4b4b4 Non-crop
        1 f096ff Crop
    """),
    "binary; colours: ESA WorldCover's bare land and cropland",
)
