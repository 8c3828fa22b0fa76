"""Clear-sky masks: named recipes that turn a scene classification into clear pixels.

A recipe works on the mask band's native grid, before any resampling, in two steps: `flags` looks at
one scene and is purely spatial; `resolve` turns the flags of a whole series into clear masks,
because the snow rule asks how often a pixel is snowy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lcengine import reader
from lcengine.errors import InputError
from lcengine.items import Access, Asset
from lcengine.kernels import morphology
from lcengine.locate import Lattice, Locator, SourceGrid, Window, window_bounds

MASK = npt.NDArray[np.uint8]

CLEAR, SNOW_MASKED, SNOW, NON_CLOUD = 1, 2, 4, 8
"""Flag bits: passes all rules but snow; is masked as snow; is snow; counts for the snow share."""

NO_DATA = 0
SNOW_CLASS = 11
CLOUD_CLASSES = (3, 8, 9, 10)


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
    """A published cloud mask: layers that are masked, on pixels of `pixel` metres.

    Class 0 is always invalid and never cloud. `snow_radius`: snow is masked dilated by that radius,
    but kept where it makes up more than `snow_share` of the non-cloud observations of a pixel.
    """

    name: str
    pixel: float
    layers: tuple[Layer, ...]
    snow_radius: int | None = None
    snow_share: tuple[int, int] = (9, 10)
    source: str = ""

    @property
    def reach(self) -> float:
        """Halo in metres within which a mask pixel depends on its neighbours."""
        radii = [layer.reach for layer in self.layers] + [self.snow_radius or 0]
        return max(radii) * self.pixel


def _opened_and_grown(opening: int, dilation: int) -> tuple[Step, ...]:
    return (Step("erode", opening), Step("dilate", opening), Step("dilate", dilation))


PRESETS = {
    recipe.name: recipe
    for recipe in (
        MaskRecipe(
            "geomad",
            10.0,
            (Layer(CLOUD_CLASSES, _opened_and_grown(2, 5)),),
            source="Digital Earth Africa, odc-stats gm-s2: opening 2, dilation 5",
        ),
        MaskRecipe(
            "pacific",
            10.0,
            (Layer((1, *CLOUD_CLASSES), (Step("erode", 3), Step("dilate", 6))),),
            source="Digital Earth Pacific: erosion 3, dilation 6",
        ),
        MaskRecipe(
            "worldcover",
            20.0,
            (Layer((1,)), Layer(CLOUD_CLASSES, (Step("erode", 3), Step("dilate", 13)))),
            snow_radius=3,
            source="ESA WorldCover (VITO, satio): erosion 3, dilation 13, persistent snow kept",
        ),
        MaskRecipe(
            "s2mosaic",
            20.0,
            (
                Layer((1, 2, 3, 7, 8, 9, 10)),
                Layer((NO_DATA,), (Step("dilate", 4, "diamond"),)),
            ),
            source="S2Mosaic: classes as they are, nodata grown by four 3x3 crosses",
        ),
        MaskRecipe("scl", 20.0, (Layer((1, *CLOUD_CLASSES)),), source="plain SCL classes"),
    )
}
NAMES = ("none", *PRESETS)


def preset(name: str) -> MaskRecipe | None:
    """The recipe of that name, None for `none`; `InputError` names the ones there are."""
    if name == "none":
        return None
    if name not in PRESETS:
        raise InputError(f"no mask is called {name!r}; expected one of {', '.join(NAMES)}")
    return PRESETS[name]


def replication(recipe: MaskRecipe, resolution: float) -> int:
    """Into how many pixels per axis a mask pixel is replicated to reach the recipe's pixel size."""
    return max(1, round(resolution / recipe.pixel))


def flags(recipe: MaskRecipe, classes: MASK, resolution: float) -> MASK:
    """Flag bits of one scene.

    `classes`: uint8 (y, x) scene classification on its native grid of `resolution` metres.
    Returns uint8 (y * k, x * k), k = `replication(...)`. Beyond the array is neutral (true for
    erosion, false for dilation), so an array that ends inside the scene is exact only where it
    is `recipe.reach` metres away from that end.
    """
    k = replication(recipe, resolution)
    work = classes.repeat(k, axis=0).repeat(k, axis=1) if k > 1 else classes
    scale = recipe.pixel * k / resolution
    valid = work != NO_DATA
    masked = ~valid
    for layer in recipe.layers:
        masked |= _apply(layer, work, scale) != 0
    out: MASK = np.where(masked, 0, CLEAR).astype(np.uint8)
    if recipe.snow_radius is not None:
        snow = work == SNOW_CLASS
        grown = _apply(Layer((SNOW_CLASS,), (Step("dilate", recipe.snow_radius),)), work, scale)
        cloud = np.isin(work, CLOUD_CLASSES)
        out |= (grown != 0) * np.uint8(SNOW_MASKED)
        out |= snow * np.uint8(SNOW)
        out |= (valid & ~cloud) * np.uint8(NON_CLOUD)
    return out


def resolve(recipe: MaskRecipe, stack: MASK, observation: Sequence[int]) -> MASK:
    """Clear masks of a series, uint8 0/1 (item, y, x).

    `stack`: flag bits (item, y, x); `observation`: index of the overpass of each item, so that
    overlapping granules count once in the snow share.
    """
    clear = stack & np.uint8(CLEAR)
    if recipe.snow_radius is None:
        return clear
    snowy = stack & np.uint8(SNOW_MASKED)
    if not snowy.any():
        return clear
    persistent = _persistent_snow(recipe, stack, observation)
    kept: MASK = ((snowy == 0) | persistent).astype(np.uint8)
    return clear & kept


@dataclass(frozen=True, slots=True)
class Classes:
    """The mask band of one item: uint8 classes of the window `area` of its native raster."""

    values: MASK
    area: Window
    source: SourceGrid


def margin(recipe: MaskRecipe | None, source: SourceGrid) -> int:
    """Halo of a recipe in pixels of a mask raster."""
    reach = recipe.reach if recipe else 0.0
    return int(np.ceil(reach / metres(source.lattice)))


def metres(lattice: Lattice) -> float:
    """Pixel size in metres; degrees count as at the equator."""
    return lattice.dx * 111_320.0 if lattice.crs == "EPSG:4326" else lattice.dx


def read_classes(
    recipe: MaskRecipe, asset: Asset, access: Access, product: Lattice, window: Window
) -> Classes | None:
    """Read the mask band under a product window and its halo, None where the raster ends before."""
    source = SourceGrid.of(asset)
    area = window_bounds(product, window, source, margin(recipe, source))
    if area is None:
        return None
    raw = reader.read_raw(asset, access, area)
    return Classes(np.ascontiguousarray(raw, dtype=np.uint8), area, source)


def place_flags(recipe: MaskRecipe, classes: Classes, locator: Locator, out: MASK) -> None:
    """Write the flag bits of one item onto the locator's window (uint8, 0 outside the raster).

    Works on the part of `classes` that can matter there, on the mask's native grid.
    """
    source = classes.source
    footing = locator.footing(source.lattice)
    area = footing.bounds(source.shape, margin(recipe, source))
    if area is None:
        return
    y, x = area.y0 - classes.area.y0, area.x0 - classes.area.x0
    part = np.ascontiguousarray(classes.values[y : y + area.height, x : x + area.width])
    resolution = metres(source.lattice)
    k = replication(recipe, resolution)
    fine = locator.footing(source.refined(k).lattice) if k > 1 else footing
    where = Window(area.y0 * k, area.x0 * k, area.height * k, area.width * k)
    reader.resample(flags(recipe, part, resolution), fine, where, out)


def _persistent_snow(
    recipe: MaskRecipe, stack: MASK, observation: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Pixels whose snow observations exceed `snow_share` of their non-cloud observations."""
    snow = np.zeros(stack.shape[1:], dtype=np.int32)
    seen = np.zeros_like(snow)
    index = np.asarray(observation)
    for number in np.unique(index):
        members = stack[index == number]
        first = members[0]
        for member in members[1:]:
            first = np.where(first & NON_CLOUD, first, member)
        snow += (first & SNOW) != 0
        seen += (first & NON_CLOUD) != 0
    numerator, denominator = recipe.snow_share
    return denominator * snow > numerator * seen


def _apply(layer: Layer, classes: MASK, scale: float) -> MASK:
    mask: MASK = np.isin(classes, layer.classes).astype(np.uint8)
    for step in layer.steps:
        shape = morphology.disk if step.element == "disk" else morphology.diamond
        operation = morphology.erode if step.operation == "erode" else morphology.dilate
        mask = operation(mask, shape(step.radius * scale))
    return mask
