"""Masks between rasters and products: reading the bands of an item, placing flags and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import reader
from lcengine.errors import ContractError
from lcengine.items import Access, Asset
from lcengine.locate import Lattice, Locator, SourceGrid, Window, window_bounds
from lcengine.masks import spatial
from lcengine.masks.decode import MASK, RawBand
from lcengine.masks.recipes import MaskRecipe

UINT16 = npt.NDArray[np.uint16]
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class Classes:
    """The mask of one item: uint8 classes of the window `area` of its native raster.

    `decoded`: the bytes that were read for it.
    """

    values: MASK
    area: Window
    source: SourceGrid
    decoded: int = 0


@dataclass(frozen=True, slots=True)
class Distances:
    """Metres to the next cloud or shadow, uint16 (y, x), of the window `area` of a mask raster."""

    values: UINT16
    cap: int
    area: Window
    source: SourceGrid


def margin(recipe: MaskRecipe | None, source: SourceGrid, beyond: float = 0.0) -> int:
    """Halo of a recipe, and `beyond` metres around it, in pixels of a mask raster."""
    reach = (recipe.reach if recipe else 0.0) + beyond
    return int(np.ceil(reach / metres(source.lattice)))


def metres(lattice: Lattice) -> float:
    """Pixel size in metres; degrees count as at the equator."""
    return lattice.dx * METRES_PER_DEGREE if lattice.crs == "EPSG:4326" else lattice.dx


def factors(recipe: MaskRecipe, assets: Sequence[Asset]) -> tuple[int, ...]:
    """Pixels of each mask band per pixel of the first one's grid, along each axis.

    Raises `ContractError` where the grids do not nest, or are not the recipe's where that matters.
    """
    first, *others = (SourceGrid.of(asset) for asset in assets)
    size = metres(first.lattice)
    if recipe.blur and abs(size - recipe.pixel) > 1e-6 * recipe.pixel:
        raise ContractError(
            f"mask {recipe.name!r} works on pixels of {recipe.pixel:g} m, but {recipe.bands[0]} "
            f"has {size:g} m; take another mask"
        )
    found = [1]
    for band, other in zip(recipe.bands[1:], others, strict=True):
        factor = max(1, round(first.lattice.dx / other.lattice.dx))
        if other != first.refined(factor):
            raise ContractError(
                f"mask {recipe.name!r} needs bands on nested grids, but {band} has {other.shape} "
                f"pixels of {other.lattice.dx:g} and {recipe.bands[0]} {first.shape} of "
                f"{first.lattice.dx:g}; leave the item out or take another mask"
            )
        found.append(factor)
    return tuple(found)


def mask_windows(
    recipe: MaskRecipe,
    assets: Sequence[Asset],
    product: Lattice,
    window: Window,
    beyond: float = 0.0,
) -> tuple[Window, ...]:
    """What to read of each mask band (`assets` in the recipe's order) under a product window.

    The window, the recipe's halo and `beyond` metres on the grid of the first band, and the very
    same area of the others; empty where the raster ends before. Raises `ContractError` where the
    bands' grids do not nest.
    """
    finer = factors(recipe, assets)
    source = SourceGrid.of(assets[0])
    area = window_bounds(product, window, source, margin(recipe, source, beyond))
    if area is None:
        return ()
    return tuple(Window(*(n * k for n in area)) for k in finer)


def read_classes(
    recipe: MaskRecipe,
    assets: Sequence[Asset],
    access: Access,
    product: Lattice,
    window: Window,
    beyond: float = 0.0,
) -> Classes | None:
    """Read and decode the mask bands of one item under a product window and its halo.

    `assets`: the item's assets of `recipe.bands`. `beyond`: metres around the window in which
    classes are needed too. None where the raster ends before. Raises `ReadError`, and
    `ContractError` where the bands are not what the recipe takes.
    """
    areas = mask_windows(recipe, assets, product, window, beyond)
    if not areas:
        return None
    bands = []
    decoded = 0
    for asset, area in zip(assets, areas, strict=True):
        raw = reader.read_raw(asset, access, area)
        decoded += int(raw.nbytes)
        bands.append(_band(raw, asset, area.width // areas[0].width))
    classes = np.ascontiguousarray(recipe.decode(bands))
    return Classes(classes, areas[0], SourceGrid.of(assets[0]), decoded)


def place_flags(recipe: MaskRecipe, classes: Classes, locator: Locator, out: MASK) -> None:
    """Write the flag bits of one item onto the locator's window (uint8, 0 outside the raster).

    Works on the part of `classes` that can matter there, on the mask's native grid.
    """
    source = classes.source
    footing = locator.footing(source.lattice)
    resolution = metres(source.lattice)
    area = footing.bounds(source.shape, int(np.ceil(recipe.spread / resolution)))
    if area is None:
        return
    part = np.ascontiguousarray(_cut(classes.values, classes.area, area))
    k = spatial.replication(recipe, resolution)
    fine = locator.footing(source.refined(k).lattice) if k > 1 else footing
    where = Window(*(n * k for n in area))
    reader.resample(spatial.flags(recipe, part, resolution), fine, where, out)


def distance_to_cloud(recipe: MaskRecipe, classes: Classes, cap: int = 3000) -> Distances:
    """Distance of the mask's pixels to the nearest one that is masked as cloud or shadow.

    Exact Euclidean distance between pixel centres on the native grid in metres, rounded half to
    even and capped; 0 in the cloud itself. There is no cloud outside the scene. Exact under a
    product window that `classes` were read for with `beyond=cap`, whatever the window.
    """
    from scipy import ndimage  # noqa: PLC0415 - needed by few reducers

    resolution = metres(classes.source.lattice)
    cloudy = spatial.cloud(recipe, classes.values, resolution)
    values: UINT16 = np.full(cloudy.shape, cap, dtype=np.uint16)
    if cloudy.any():
        away = ndimage.distance_transform_edt(~cloudy) * resolution
        values[...] = np.minimum(np.rint(away), cap)
    return Distances(values, cap, classes.area, classes.source)


def place_distances(distances: Distances, locator: Locator, out: UINT16) -> None:
    """Write distances onto the locator's window (uint16 metres, the cap outside the raster)."""
    source = distances.source
    footing = locator.footing(source.lattice)
    area = footing.bounds(source.shape)
    if area is None:
        out[...] = distances.cap
        return
    # Outside the raster the gather writes 0, which is nearness 0.
    nearness = distances.cap - _cut(distances.values, distances.area, area)
    reader.resample(nearness, footing, area, out)
    np.subtract(distances.cap, out, out=out)


def _band(raw: npt.NDArray[Any], asset: Asset, factor: int) -> RawBand:
    """A band on the mask's grid: finer ones averaged, missing (NaN) where any part is missing."""
    band = RawBand(raw, asset.nodata, asset.scale, asset.offset)
    if factor == 1:
        return band
    height, width = raw.shape
    blocks = (height // factor, factor, width // factor, factor)
    # A sum of integers is exact, so the mean does not depend on the order of summation.
    kind = np.int64 if raw.dtype.kind in "iu" else np.float64
    mean = raw.reshape(blocks).sum(axis=(1, 3), dtype=kind) / factor**2
    mean[~band.valid.reshape(blocks).all(axis=(1, 3))] = np.nan
    return RawBand(mean, None, asset.scale, asset.offset)


def _cut(values: npt.NDArray[Any], area: Window, part: Window) -> npt.NDArray[Any]:
    """The window `part` of values that lie on the window `area` of the same raster."""
    y, x = part.y0 - area.y0, part.x0 - area.x0
    return values[y : y + part.height, x : x + part.width]
