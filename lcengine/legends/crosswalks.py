"""The crosswalks between the registered legends."""

from __future__ import annotations

from lcengine.legends.base import Legend
from lcengine.legends.cdl import CDL
from lcengine.legends.crosswalk import Crosswalk
from lcengine.legends.modis import IGBP
from lcengine.legends.published import (
    CROP,
    DEEPGLOBE,
    DFC2020,
    DFC2020_NO_SAVANNA,
    EUCROPMAP,
    WORLDCOVER,
)


def _to_crop(source: Legend, crops: tuple[int, ...], reference: str) -> Crosswalk:
    others = [code for code in source.codes if code not in crops]
    return Crosswalk.of(source, CROP, {0: others, 1: crops}, reference)


IGBP_TO_DFC2020 = Crosswalk.of(
    IGBP,
    DFC2020,
    {
        1: (1, 2, 3, 4, 5),
        2: (6, 7),
        3: (8, 9),
        4: (10,),
        5: (11,),
        6: (12, 14),
        7: (13,),
        8: (15,),
        9: (16,),
        10: (17,),
    },
    "simplified IGBP of the Data Fusion Contest 2020 (Schmitt et al. 2020)",
)

DFC2020_TO_NO_SAVANNA = Crosswalk.of(
    DFC2020,
    DFC2020_NO_SAVANNA,
    {
        None: (3,),
        1: (1,),
        2: (2,),
        3: (4,),
        4: (5,),
        5: (6,),
        6: (7,),
        7: (8,),
        8: (9,),
        9: (10,),
    },
    "the contest's baseline: savanna is no class, codes above it shift",
)

CROSSWALKS = (
    IGBP_TO_DFC2020,
    DFC2020_TO_NO_SAVANNA,
    IGBP_TO_DFC2020.then(DFC2020_TO_NO_SAVANNA),
    _to_crop(IGBP, (12, 14), "croplands and their mosaics with natural vegetation"),
    _to_crop(DFC2020, (6,), "croplands"),
    _to_crop(DFC2020_NO_SAVANNA, (5,), "croplands"),
    _to_crop(WORLDCOVER, (40,), "cropland, which is annual by WorldCover's definition"),
    _to_crop(
        EUCROPMAP,
        tuple(e.code for e in EUCROPMAP.classes if e.groups[0] == "Arable land"),
        "all arable land, bare included; permanent crops are in 300 and count as non-crop",
    ),
    _to_crop(
        CDL,
        tuple(e.code for e in CDL.classes if e.groups == ("Crops",)),
        "what the CDL's data dictionary lists as crops (1-60, 66-80, 195-255): hay, orchards and "
        "Christmas trees are, fallow (61), pasture and aquaculture are not",
    ),
    _to_crop(DEEPGLOBE, (2,), "agriculture land, which includes orchards and confined animals"),
)
