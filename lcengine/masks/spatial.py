"""The steps of a mask that work on arrays: morphology of one scene, snow of a series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lcengine.kernels import morphology
from lcengine.masks.decode import CLOUD_CLASSES, MASK, NO_DATA, SNOW_CLASS
from lcengine.masks.recipes import Layer, MaskRecipe, Step

CLEAR, SNOW_MASKED, SNOW, NON_CLOUD = 1, 2, 4, 8
"""Flag bits: passes all rules but snow; is masked as snow; is snow; counts for the snow share."""


def replication(recipe: MaskRecipe, resolution: float) -> int:
    """Into how many pixels per axis a mask pixel is replicated to reach the recipe's pixel size."""
    return max(1, round(resolution / recipe.pixel)) if recipe.spread else 1


def flags(recipe: MaskRecipe, classes: MASK, resolution: float) -> MASK:
    """Flag bits of one scene.

    `classes`: uint8 (y, x) scene classification on its native grid of `resolution` metres.
    Returns uint8 (y * k, x * k), k = `replication(...)`. Beyond the array is neutral (true for
    erosion, false for dilation), so an array that ends inside the scene is exact only where it
    is `recipe.spread` metres away from that end.
    """
    work, scale = _fine(recipe, classes, resolution)
    valid = work != NO_DATA
    masked = ~valid
    for layer in recipe.layers:
        masked |= _apply(layer, work, scale) != 0
    out: MASK = np.where(masked, 0, CLEAR).astype(np.uint8)
    if recipe.snow_radius is not None:
        snow = work == SNOW_CLASS
        grown = _apply(Layer((SNOW_CLASS,), (Step("dilate", recipe.snow_radius),)), work, scale)
        cloudy = np.isin(work, CLOUD_CLASSES)
        out |= (grown != 0) * np.uint8(SNOW_MASKED)
        out |= snow * np.uint8(SNOW)
        out |= (valid & ~cloudy) * np.uint8(NON_CLOUD)
    return out


def cloud(recipe: MaskRecipe, classes: MASK, resolution: float) -> npt.NDArray[np.bool_]:
    """Where one scene is masked as cloud or shadow, bool (y, x) on the native grid.

    The recipe's layers, with their morphology, as far as they hold cloud and shadow classes;
    missing data, snow and other masked classes are no cloud. A native pixel is cloud where any
    of the pixels it was replicated into is. Exact where `flags` is.
    """
    work, scale = _fine(recipe, classes, resolution)
    found = np.zeros(work.shape, dtype=np.bool_)
    for layer in recipe.layers:
        cloudy = tuple(code for code in layer.classes if code in CLOUD_CLASSES)
        if cloudy:
            found |= _apply(Layer(cloudy, layer.steps), work, scale) != 0
    found &= work != NO_DATA
    k = work.shape[0] // classes.shape[0]
    blocks = found.reshape(classes.shape[0], k, classes.shape[1], k)
    return np.asarray(blocks.any(axis=(1, 3)))


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


def _fine(recipe: MaskRecipe, classes: MASK, resolution: float) -> tuple[MASK, float]:
    """(classes replicated towards the recipe's pixel, radius in those pixels of a radius of 1)."""
    k = replication(recipe, resolution)
    work = classes.repeat(k, axis=0).repeat(k, axis=1) if k > 1 else classes
    return work, recipe.pixel * k / resolution


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
