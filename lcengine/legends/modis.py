"""Legends of MODIS MCD12Q1, which SEN12MS takes its labels from.

Codes and names: Sulla-Menashe and Friedl, User Guide to Collection 6.1 MODIS Land Cover (MCD12Q1)
Product, tables 3 (IGBP), 8, 9 and 10 (LCCS 1 to 3). 255, unclassified, is nodata. The guide has no
colours; these are of the class tables of MODIS/061/MCD12Q1 in the Earth Engine data catalogue.

The groups of IGBP are the three kinds of land in its definition, those of LCCS follow the tens of
its codes.
"""

from __future__ import annotations

from lcengine.legends.base import Legend, entries

_GUIDE = "MCD12Q1 v6.1 user guide (Sulla-Menashe and Friedl), table {}; colours: Earth Engine"

IGBP = Legend(
    "igbp",
    "MODIS IGBP land cover (MCD12Q1 LC_Type1; SEN12MS labels, band 1)",
    entries("""
        Natural vegetation / Forests:
        1 05450a Evergreen Needleleaf Forests
        2 086a10 Evergreen Broadleaf Forests
        3 54a708 Deciduous Needleleaf Forests
        4 78d203 Deciduous Broadleaf Forests
        5 009900 Mixed Forests
        Natural vegetation / Shrublands:
        6 c6b044 Closed Shrublands
        7 dcd159 Open Shrublands
        Natural vegetation / Savannas:
        8 dade48 Woody Savannas
        9 fbff13 Savannas
        Natural vegetation / Grasslands:
        10 b6ff05 Grasslands
        Natural vegetation / Wetlands:
        11 27ff87 Permanent Wetlands
        Developed and mosaicked land / Croplands:
        12 c24f44 Croplands
        Developed and mosaicked land / Urban:
        13 a5a5a5 Urban and Built-up Lands
        Developed and mosaicked land / Croplands:
        14 ff6d4c Cropland/Natural Vegetation Mosaics
        Non-vegetated land / Snow and Ice:
        15 69fff8 Permanent Snow and Ice
        Non-vegetated land / Barren:
        16 f9ffa4 Barren
        Non-vegetated land / Water:
        17 1c0dff Water Bodies
    """),
    _GUIDE.format(3),
)

LCCS_LC = Legend(
    "lccs-lc",
    "MODIS FAO-LCCS1 land cover (MCD12Q1 LC_Prop1; SEN12MS labels, band 2)",
    entries("""
        Non-vegetated:
        1 f9ffa4 Barren
        2 69fff8 Permanent Snow and Ice
        3 1c0dff Water Bodies
        Forests / Dense Forests:
        11 05450a Evergreen Needleleaf Forests
        12 086a10 Evergreen Broadleaf Forests
        13 54a708 Deciduous Needleleaf Forests
        14 78d203 Deciduous Broadleaf Forests
        15 005a00 Mixed Broadleaf/Needleleaf Forests
        16 009900 Mixed Broadleaf Evergreen/Deciduous Forests
        Forests / Open Forests:
        21 006c00 Open Forests
        22 00d000 Sparse Forests
        Herbaceous:
        31 b6ff05 Dense Herbaceous
        32 98d604 Sparse Herbaceous
        Shrublands:
        41 dcd159 Dense Shrublands
        42 f1fb58 Shrubland/Grassland Mosaics
        43 fbee65 Sparse Shrublands
    """),
    _GUIDE.format(8),
)

LCCS_LU = Legend(
    "lccs-lu",
    "MODIS FAO-LCCS2 land use (MCD12Q1 LC_Prop2; SEN12MS labels, band 3)",
    entries("""
        Non-vegetated:
        1 f9ffa4 Barren
        2 69fff8 Permanent Snow and Ice
        3 1c0dff Water Bodies
        9 a5a5a5 Urban and Built-up Lands
        Forests:
        10 003f00 Dense Forests
        20 006c00 Open Forests
        25 e3ff77 Forest/Cropland Mosaics
        Herbaceous:
        30 b6ff05 Natural Herbaceous
        35 93ce04 Natural Herbaceous/Croplands Mosaics
        36 77a703 Herbaceous Croplands
        Shrublands:
        40 dcd159 Shrublands
    """),
    _GUIDE.format(9),
)

LCCS_SH = Legend(
    "lccs-sh",
    "MODIS FAO-LCCS3 surface hydrology (MCD12Q1 LC_Prop3; SEN12MS labels, band 4)",
    entries("""
        Non-vegetated:
        1 f9ffa4 Barren
        2 69fff8 Permanent Snow and Ice
        3 1c0dff Water Bodies
        Forests:
        10 003f00 Dense Forests
        20 006c00 Open Forests
        27 72834a Woody Wetlands
        Grasslands:
        30 b6ff05 Grasslands
        Shrublands:
        40 c6b044 Shrublands
        Wetlands and tundra:
        50 3aba73 Herbaceous Wetlands
        51 1e9db3 Tundra
    """),
    _GUIDE.format(10),
)

SEN12MS = (IGBP, LCCS_LC, LCCS_LU, LCCS_SH)
"""Legends of the four bands of a SEN12MS label image, in their order.

Schmitt, Hughes, Qiu and Zhu 2019: SEN12MS, a curated dataset of georeferenced multi-spectral
Sentinel-1/2 imagery for deep learning and data fusion. ISPRS Annals IV-2/W7.
"""
