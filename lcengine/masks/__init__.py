"""Clear-sky masks: named recipes that turn mask bands into clear pixels.

A recipe works on the native grid of its (first) band, before any resampling, in three steps:
`read_classes` reads the bands of one item and decodes them to scene classes; `flags` looks at one
scene and is purely spatial; `resolve` turns the flags of a whole series into clear masks, because
the snow rule asks how often a pixel is snowy. `distance_to_cloud` serves the reducers that score
observations by it.

`decode` holds what raw values mean, `cloudless` the cloud detector, `recipes` the presets,
`spatial` the two steps on arrays, `place` reading and placing.
"""

from __future__ import annotations

from lcengine.masks.cloudless import s2cloudless_mask, s2cloudless_probability
from lcengine.masks.decode import CLOUD_CLASSES, NO_DATA, SNOW_CLASS, RawBand
from lcengine.masks.place import (
    Classes,
    Distances,
    distance_to_cloud,
    factors,
    margin,
    mask_windows,
    metres,
    place_distances,
    place_flags,
    read_classes,
)
from lcengine.masks.recipes import (
    NAMES,
    PRESETS,
    Layer,
    MaskRecipe,
    Step,
    applicable,
    check_item,
    check_sensor,
    preset,
)
from lcengine.masks.spatial import (
    CLEAR,
    NON_CLOUD,
    SNOW,
    SNOW_MASKED,
    cloud,
    flags,
    replication,
    resolve,
)

__all__ = [
    "CLEAR",
    "CLOUD_CLASSES",
    "NAMES",
    "NON_CLOUD",
    "NO_DATA",
    "PRESETS",
    "SNOW",
    "SNOW_CLASS",
    "SNOW_MASKED",
    "Classes",
    "Distances",
    "Layer",
    "MaskRecipe",
    "RawBand",
    "Step",
    "applicable",
    "check_item",
    "check_sensor",
    "cloud",
    "distance_to_cloud",
    "factors",
    "flags",
    "margin",
    "mask_windows",
    "metres",
    "place_distances",
    "place_flags",
    "preset",
    "read_classes",
    "replication",
    "resolve",
    "s2cloudless_mask",
    "s2cloudless_probability",
]
