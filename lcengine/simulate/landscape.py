"""The ground: a mosaic of fields, woods, water and settlements whose reflectance is known exactly.

Reflectance of a pixel is a linear mixture of its soil and its canopy, `soil + (canopy - soil) *
cover`, where the green cover follows a double logistic through the year (Zhang et al. 2003, Remote
Sensing of Environment 84) with dates and peak of the field's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lcengine.simulate.sentinel2 import BANDS, RESOLUTION
from lcengine.simulate.streams import Stream, generator, smooth_field

Spectrum = tuple[float, ...]

# Surface reflectance in the order of BANDS: blue green red, red edge 1-3, nir nir08, swir16 swir22.
_CROP: Spectrum = (0.025, 0.055, 0.025, 0.090, 0.340, 0.440, 0.470, 0.490, 0.220, 0.100)
_GRASS: Spectrum = (0.030, 0.065, 0.035, 0.100, 0.300, 0.370, 0.400, 0.420, 0.240, 0.120)
_TREES: Spectrum = (0.018, 0.038, 0.018, 0.060, 0.220, 0.280, 0.300, 0.320, 0.140, 0.065)
_SOIL: Spectrum = (0.060, 0.090, 0.125, 0.150, 0.170, 0.185, 0.205, 0.220, 0.285, 0.245)
_LITTER: Spectrum = (0.032, 0.048, 0.055, 0.075, 0.105, 0.120, 0.135, 0.150, 0.190, 0.130)
_WATER: Spectrum = (0.035, 0.042, 0.026, 0.022, 0.016, 0.014, 0.012, 0.011, 0.008, 0.006)
_PAVED: Spectrum = (0.110, 0.130, 0.145, 0.155, 0.170, 0.180, 0.195, 0.200, 0.215, 0.190)


@dataclass(frozen=True)
class CoverType:
    """One class of the legend: spectra of ground and canopy, and the course of green cover."""

    code: int
    name: str
    color: str
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


LEGEND: tuple[CoverType, ...] = (
    CoverType(1, "winter cereal", "#e8c35a", _SOIL, _CROP, 0.06, 0.93, (85, 10), (192, 6), 0.27),
    CoverType(2, "winter rapeseed", "#f2e34b", _SOIL, _CROP, 0.08, 0.90, (72, 10), (180, 7), 0.08),
    CoverType(3, "maize", "#d98a29", _SOIL, _CROP, 0.04, 0.92, (166, 8), (266, 7), 0.22),
    CoverType(4, "sugar beet", "#b05a9d", _SOIL, _CROP, 0.04, 0.94, (158, 9), (305, 8), 0.10),
    CoverType(5, "potato", "#8c6bb1", _SOIL, _CROP, 0.04, 0.90, (152, 8), (238, 7), 0.09),
    CoverType(6, "grassland", "#8fce6b", _SOIL, _GRASS, 0.45, 0.88, (78, 12), (330, 15), 0.20),
    CoverType(7, "forest", "#23703a", _LITTER, _TREES, 0.25, 0.96, (113, 7), (298, 9)),
    CoverType(8, "water", "#3b7dd8", _WATER, _WATER, 0.00, 0.00, (100, 10), (300, 10)),
    CoverType(9, "bare soil", "#c8b08b", _SOIL, _GRASS, 0.03, 0.08, (110, 20), (300, 20), 0.04),
    CoverType(10, "built-up", "#9a9a9a", _PAVED, _GRASS, 0.04, 0.12, (100, 15), (300, 15)),
)
NO_CLASS = 255
_GRASSLAND, _FOREST, _WATER_BODY, _BUILT = 6, 7, 8, 10
_MEADOW_CUTS = 3
_STRIP_ROWS = 256


@dataclass(frozen=True)
class Landscape:
    """The ground of a square mosaic; every array is (size, size) at 10 m unless said otherwise."""

    landcover: NDArray[np.uint8]
    """Class codes of LEGEND."""
    field: NDArray[np.int32]
    """Index of the field into the tables below."""
    texture: NDArray[np.float32]
    """Relative departure of green cover within a field."""
    shade: NDArray[np.float32]
    """Factor on the reflectance, close to 1."""
    ground: NDArray[np.float32]
    """(field, band) reflectance without green cover."""
    contrast: NDArray[np.float32]
    """(field, band) canopy minus ground reflectance."""
    season: NDArray[np.float32]
    """(field, 6): low, peak, rise day, rise days, fall day, fall days."""
    cuts: NDArray[np.float32]
    """(field, 3) days of year on which meadows are cut; beyond the year elsewhere."""

    @property
    def size(self) -> int:
        """Width and height in pixels of 10 m."""
        return int(self.landcover.shape[0])

    def field_cover(self, day: float) -> NDArray[np.float32]:
        """Green cover fraction (field,), float32, on a day of the year."""
        low, peak, rise, rise_days, fall, fall_days = self.season.T
        rising = 1.0 / (1.0 + np.exp((rise - day) / rise_days))
        falling = 1.0 / (1.0 + np.exp((day - fall) / fall_days))
        cover = low + (peak - low) * rising * falling
        age = day - self.cuts
        # A cut leaves 40 % of the cover; it grows back with a time constant of two weeks.
        kept = np.where(age >= 0, 1.0 - 0.6 * np.exp(-np.maximum(age, 0.0) / 14.0), 1.0)
        return np.asarray(cover * kept.min(axis=1), dtype=np.float32)

    def cover(self, day: float, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Green cover fraction (rows, size), float32, 10 m, on a day of the year."""
        cover = self.field_cover(day)[self.field[rows]]
        cover *= 1.0 + self.texture[rows]
        return np.clip(cover, 0.0, 1.0, out=cover)

    def surface(
        self, band: str, cover: NDArray[np.float32], rows: slice = slice(None)
    ) -> NDArray[np.int16]:
        """Noise-free surface reflectance × 10000, int16, at the band's own resolution.

        `cover` is `self.cover(day, rows)`; `rows` must start and stop at even rows because 20 m
        pixels are means of 2 × 2 pixels.
        """
        b = BANDS.index(band)
        field = self.field[rows]
        reflectance = self.contrast[:, b][field]
        reflectance *= cover
        reflectance += self.ground[:, b][field]
        reflectance *= self.shade[rows]
        if RESOLUTION[band] == 20:
            reflectance = block_mean(reflectance)
        reflectance *= 10000.0
        return np.rint(reflectance, out=reflectance).astype(np.int16)

    def visible_brightness(self) -> NDArray[np.float32]:
        """Mean blue, green and red reflectance of the uncovered ground, float32, at 20 m."""
        visible = self.ground[:, :3].mean(axis=1)[self.field] * self.shade
        return block_mean(visible)


def block_mean(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of 2 × 2 pixels, float32, half the rows and columns."""
    rows = array[0::2] + array[1::2]
    mean = rows[:, 0::2] + rows[:, 1::2]
    mean *= 0.25
    return mean


def make_landscape(size: int, seed: int) -> Landscape:
    """Draw the landscape of a mosaic of `size` × `size` pixels of 10 m."""
    rng = generator(seed, Stream.LANDSCAPE)
    holding, road, keys = _parcels(rng, size)
    natural = _natural_cover(rng, size)
    natural[road & (natural != _WATER_BODY)] = _BUILT
    blocks = _street_blocks(size)
    # Woods, ponds and built-up blocks are units of their own, drawn over the pattern of fields.
    keys = np.where(natural == _BUILT, blocks, np.where(natural > 0, holding, keys))
    keys += natural.astype(np.int64) << 56
    unique, inverse = np.unique(keys, return_inverse=True)
    field: NDArray[np.int32] = inverse.reshape(size, size).astype(np.int32)

    sown = [c for c in LEGEND if c.share > 0]
    shares = np.array([c.share for c in sown])
    crops = rng.choice([c.code for c in sown], size=unique.size, p=shares / shares.sum())
    code = np.where(unique >> 56 > 0, unique >> 56, crops).astype(np.uint8)
    texture = smooth_field(rng, size, scale=12.0) * np.float32(0.10)
    shade = 1.0 + np.float32(0.015) * rng.standard_normal((size, size), dtype=np.float32)
    return Landscape(
        landcover=code[field],
        field=field,
        texture=texture,
        shade=np.clip(shade, 0.93, 1.07),
        **_field_tables(rng, code),
    )


def _parcels(
    rng: np.random.Generator, size: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Holdings (Voronoi cells), the roads between them, and rectangular fields inside them."""
    spacing = float(np.clip(size / 5, 16, 90))
    n = int(np.ceil(size / spacing)) + 2
    corners = (np.indices((n, n)).reshape(2, -1).T - 0.5) * spacing
    seeds = corners + rng.uniform(-0.45, 0.45, corners.shape) * spacing
    angle = rng.uniform(0, np.pi, len(seeds))
    width, length = rng.uniform(7, 22, len(seeds)), rng.uniform(18, 50, len(seeds))
    tree = cKDTree(seeds)
    holding = np.empty((size, size), np.int64)
    road = np.empty((size, size), np.bool_)
    keys = np.empty((size, size), np.int64)
    for start in range(0, size, _STRIP_ROWS):
        rows = slice(start, min(size, start + _STRIP_ROWS))
        y, x = np.mgrid[rows, 0:size] + 0.5
        distance, nearest = tree.query(np.stack([y, x], axis=-1), k=2)
        h = nearest[..., 0]
        holding[rows] = h
        road[rows] = distance[..., 1] - distance[..., 0] < 1.2
        along = x * np.cos(angle[h]) + y * np.sin(angle[h])
        across = y * np.cos(angle[h]) - x * np.sin(angle[h])
        i = np.floor(across / width[h]).astype(np.int64) + (1 << 18)
        j = np.floor(along / length[h]).astype(np.int64) + (1 << 18)
        keys[rows] = (h << 38) | (i << 19) | j
    return holding, road, keys


def _natural_cover(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Codes of forest, water and built-up areas in fixed shares; 0 where fields remain."""
    natural = np.zeros((size, size), np.uint8)
    for code, share in ((_FOREST, 0.14), (_BUILT, 0.08), (_WATER_BODY, 0.03)):
        field = smooth_field(rng, size, scale=50.0, decay=3.0, smallest=64)
        natural[field > np.quantile(field, 1.0 - share)] = code
    return natural


def _street_blocks(size: int) -> NDArray[np.int64]:
    """Key of the 40 m × 30 m block that a pixel would belong to in a settlement."""
    y, x = np.mgrid[0:size, 0:size]
    return np.asarray((y // 3 << 19) | (x // 4), dtype=np.int64)


def _field_tables(
    rng: np.random.Generator, code: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Spectra and seasons of every field, each a little different from its class."""
    n = code.size
    index = code.astype(np.intp) - 1
    ground = np.array([c.ground for c in LEGEND])[index]
    canopy = np.array([c.canopy for c in LEGEND])[index]
    spread = np.where(code == _BUILT, 0.30, np.where(code == _WATER_BODY, 0.08, 0.13))
    ground = ground * np.clip(np.exp(spread * rng.standard_normal(n)), 0.6, 2.2)[:, None]
    canopy = canopy * np.clip(1 + 0.05 * rng.standard_normal(n), 0.85, 1.15)[:, None]
    canopy = np.where((code == _WATER_BODY)[:, None], ground, canopy)

    season = np.array([(c.low, c.peak, *c.rise, *c.fall) for c in LEGEND], dtype=float)[index]
    season[:, 1] *= np.clip(1 + 0.05 * rng.standard_normal(n), 0.85, 1.05)
    season[:, 2] += np.clip(6 * rng.standard_normal(n), -15, 15)
    season[:, 4] += np.clip(7 * rng.standard_normal(n), -15, 15)

    cuts = np.cumsum(rng.uniform(25, 60, (n, _MEADOW_CUTS)), axis=1) + 95
    never = rng.random((n, _MEADOW_CUTS)) < 0.35
    cuts[never | (code != _GRASSLAND)[:, None]] = 1000
    tables = {"ground": ground, "contrast": canopy - ground, "season": season, "cuts": cuts}
    return {name: np.asfortranarray(t, dtype=np.float32) for name, t in tables.items()}
