"""The named mask recipes: what they read, what they mask, where they come from."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from lcengine.errors import InputError, MissingBandError
from lcengine.items import Item
from lcengine.masks import cloudless, decode
from lcengine.masks.decode import CLOUD_CLASSES, DEFECTIVE, NO_DATA, SNOW_CLASS
from lcengine.sensors import Sensor


@dataclass(frozen=True, slots=True)
class Step:
    """One morphological operation; `radius` is in the recipe's pixels."""

    operation: Literal["erode", "dilate"]
    radius: int
    element: Literal["disk", "diamond"] = "disk"


@dataclass(frozen=True, slots=True)
class Layer:
    """Classes that are masked together after the same morphology."""

    classes: tuple[int, ...]
    steps: tuple[Step, ...] = ()

    @property
    def reach(self) -> int:
        """How far a pixel can influence another: the sum of the radii."""
        return sum(step.radius for step in self.steps)


@dataclass(frozen=True, slots=True)
class MaskRecipe:
    """A published cloud mask: layers of classes that are masked, on pixels of `pixel` metres.

    `bands`: canonical bands that `decode` turns into classes, on the grid of the first; `blur`: how
    many pixels around one `decode` looks at. Class 0 is always invalid and never cloud.
    `snow_radius`: snow is masked dilated by that radius, but kept where it makes up more than
    `snow_share` of the non-cloud observations of a pixel. `extra`: optional package it needs.
    """

    name: str
    pixel: float
    layers: tuple[Layer, ...]
    snow_radius: int | None = None
    snow_share: tuple[int, int] = (9, 10)
    bands: tuple[str, ...] = ("scl",)
    decode: decode.Decoder = decode.scene_classes
    blur: int = 0
    extra: str = ""
    purpose: str = ""
    source: str = ""

    @property
    def spread(self) -> float:
        """Metres within which the flags of a pixel depend on the classes around it."""
        radii = [layer.reach for layer in self.layers] + [self.snow_radius or 0]
        return max(radii) * self.pixel

    @property
    def reach(self) -> float:
        """Halo in metres within which the flags of a pixel depend on the bands around it."""
        return self.spread + self.blur * self.pixel


CLOUDS = (Layer(CLOUD_CLASSES),)


def _opened_and_grown(opening: int, dilation: int) -> tuple[Step, ...]:
    return (Step("erode", opening), Step("dilate", opening), Step("dilate", dilation))


PRESETS = {
    recipe.name: recipe
    for recipe in (
        MaskRecipe(
            "geomad",
            10.0,
            (Layer(CLOUD_CLASSES, _opened_and_grown(2, 5)),),
            purpose="SCL with specks dropped and a narrow buffer",
            source="Digital Earth Africa, odc-stats gm-s2: opening 2, dilation 5",
        ),
        MaskRecipe(
            "pacific",
            10.0,
            (Layer((1, *CLOUD_CLASSES), (Step("erode", 3), Step("dilate", 6))),),
            purpose="SCL for small islands, bright beaches kept",
            source="Digital Earth Pacific: erosion 3, dilation 6",
        ),
        MaskRecipe(
            "worldcover",
            20.0,
            (Layer((1,)), Layer(CLOUD_CLASSES, (Step("erode", 3), Step("dilate", 13)))),
            snow_radius=3,
            purpose="SCL with a wide buffer, passing snow masked",
            source="ESA WorldCover (VITO, satio): erosion 3, dilation 13, persistent snow kept",
        ),
        MaskRecipe(
            "s2mosaic",
            20.0,
            (
                Layer((1, 2, 3, 7, 8, 9, 10)),
                Layer((NO_DATA,), (Step("dilate", 4, "diamond"),)),
            ),
            purpose="SCL without morphology, also dark and unclassified pixels masked",
            source="S2Mosaic: classes as they are, nodata grown by four 3x3 crosses",
        ),
        MaskRecipe(
            "scl",
            20.0,
            (Layer((1, *CLOUD_CLASSES)),),
            purpose="SCL as it is",
            source="plain SCL classes",
        ),
        MaskRecipe(
            "qa_pixel",
            30.0,
            CLOUDS,
            bands=("qa_pixel",),
            decode=decode.qa_pixel,
            purpose="Landsat: fill, cloud, its dilation, cirrus and shadow masked, snow kept",
            source="Landsat Collection 2 QA_PIXEL bits 0-4, as in the USGS/Earth Engine examples",
        ),
        MaskRecipe(
            "udm2",
            3.0,
            (Layer((DEFECTIVE, SNOW_CLASS, *CLOUD_CLASSES)),),
            bands=("udm_clear", "udm_snow", "udm_unusable"),
            decode=decode.udm2,
            purpose="PlanetScope: clear and usable pixels only",
            source="Planet UDM2: band 1 (clear) is 1 and band 8 (unusable) is 0",
        ),
        MaskRecipe(
            "udm",
            3.0,
            (Layer((DEFECTIVE, *CLOUD_CLASSES)),),
            bands=("udm_unusable",),
            decode=decode.udm,
            purpose="PlanetScope: usable pixels by the old mask, which misses many clouds",
            source="Planet UDM: no bit is set",
        ),
        MaskRecipe(
            "cldprb",
            20.0,
            CLOUDS,
            bands=("cloud_probability",),
            decode=decode.Threshold(40.0, 100.0, clear_above=False),
            purpose="cloud probability of at most 40 %; no shadows",
            source="Sentinel-2 L2A MSK_CLDPRB (Sen2Cor), or any probability band in percent",
        ),
        MaskRecipe(
            "csplus",
            10.0,
            CLOUDS,
            bands=("cs_cdf",),
            decode=decode.Threshold(0.60, 1.0, clear_above=True),
            purpose="Cloud Score+ (cs_cdf) of at least 0.60: clouds, haze and shadows",
            source="Pasquarella et al. 2023, Cloud Score+: 0.50-0.65 works, 0.60 balances",
        ),
        MaskRecipe(
            "cs",
            10.0,
            CLOUDS,
            bands=("cs",),
            decode=decode.Threshold(0.60, 1.0, clear_above=True),
            purpose="Cloud Score+ (cs) of at least 0.60, more sensitive to haze than csplus",
            source="Pasquarella et al. 2023, Cloud Score+",
        ),
        MaskRecipe(
            "s2cloudless",
            cloudless.PIXEL,
            (Layer(CLOUD_CLASSES, (Step("dilate", cloudless.DILATION),)),),
            bands=cloudless.BANDS,
            decode=cloudless.decode,
            blur=cloudless.AVERAGE,
            extra="s2cloudless",
            purpose="clouds of Sentinel-2 L1C from ten bands at 60 m; no shadows",
            source="s2cloudless 1.7, its masks: disk 4 mean > 0.4, dilation 2",
        ),
    )
}

NAMES = ("none", *PRESETS, "cldprb:PERCENT", "csplus:SCORE", "cs:SCORE")
"""Every form a mask name can take; capitals stand for a number."""


@lru_cache(maxsize=64)
def preset(name: str) -> MaskRecipe | None:
    """The recipe of that name, None for `none`; `InputError` names the ones there are.

    `none`; `worldcover`, `geomad`, `pacific`, `s2mosaic`, `scl` (Sentinel-2 SCL); `s2cloudless`
    (Sentinel-2 L1C); `cldprb[:PERCENT]` (cloud probability, default 40); `csplus[:SCORE]` and
    `cs[:SCORE]` (Cloud Score+, default 0.60); `qa_pixel` (Landsat); `udm2` and
    `udm` (PlanetScope).
    """
    if name == "none":
        return None
    family, colon, number = name.partition(":")
    recipe = PRESETS.get(family)
    if recipe is not None and not colon:
        return recipe
    if recipe is not None and isinstance(recipe.decode, decode.Threshold):
        limit = _limit(name, number, recipe.decode.largest)
        return replace(recipe, name=name, decode=replace(recipe.decode, limit=limit))
    raise InputError(f"no mask is called {name!r}; expected one of {', '.join(NAMES)}")


def applicable(sensor: Sensor) -> tuple[str, ...]:
    """Names of the presets whose bands a sensor has, `none` first."""
    names = set(sensor.band_names)
    return ("none", *(name for name, recipe in PRESETS.items() if names >= set(recipe.bands)))


def check_sensor(recipe: MaskRecipe | None, sensor: Sensor) -> None:
    """`InputError` where a recipe cannot work: the sensor lacks a band, or an extra is missing."""
    if recipe is None:
        return
    missing = [band for band in recipe.bands if band not in sensor.band_names]
    if missing:
        raise InputError(
            f"mask {recipe.name!r} needs the band {missing[0]!r}, which {sensor.name} does not "
            f"have; its masks are {', '.join(applicable(sensor))}"
        )
    if recipe.extra and importlib.util.find_spec(recipe.extra) is None:
        raise InputError(
            f"mask {recipe.name!r} needs the package {recipe.extra!r}, which is not installed; "
            f"install it with pip install 'lcengine[{recipe.extra}]'"
        )


def check_item(recipe: MaskRecipe, item: Item) -> None:
    """`MissingBandError` where an item lacks a band of a recipe that its sensor has."""
    missing = [band for band in recipe.bands if band not in item.assets]
    if missing:
        fit = ("none", *(n for n, r in PRESETS.items() if item.assets.keys() >= set(r.bands)))
        raise MissingBandError(
            f"item {item.id} has no band {missing[0]!r}, which mask {recipe.name!r} needs; "
            f"leave it out (--where 'id!={item.id}', items.filter in Python), or take a mask that "
            f"it has the bands of: {', '.join(fit)}"
        )


def _limit(name: str, text: str, largest: float) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit <= largest:
        raise InputError(f"mask {name!r} has the limit {text!r}, expected 0 to {largest:g}")
    return limit
