"""The sky: clouds, haze and shadows of an overpass, their truth, and a fallible classification.

Everything here lives on the mosaic's 20 m grid. Fields of the whole mosaic are (n, n) with n =
size / 2, and repeat themselves beyond 1024 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lcengine.simulate.covers import CODE
from lcengine.simulate.landscape import Patch
from lcengine.simulate.sentinel2 import BANDS, Block, Overpass
from lcengine.simulate.streams import MOST_NODES, Stream, generator, smooth_field, window

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# In the order of BANDS. Thick cloud is white and absorbs in the SWIR; haze is bluish and fades
# with wavelength; shadows keep more of the blue because the sky still lights them.
_CLOUD = (0.72, 0.70, 0.70, 0.71, 0.72, 0.73, 0.74, 0.74, 0.48, 0.38)
_HAZE = (0.46, 0.43, 0.42, 0.42, 0.42, 0.42, 0.42, 0.42, 0.24, 0.18)
_HAZE_STRENGTH = (1.00, 0.92, 0.84, 0.80, 0.77, 0.74, 0.71, 0.69, 0.45, 0.36)
_SHADOW_STRENGTH = (0.45, 0.52, 0.58, 0.60, 0.62, 0.63, 0.65, 0.65, 0.72, 0.74)

CLEAR, THIN, THICK, SHADOW, UNSEEN = 0, 1, 2, 3, 255
"""Codes of the true mask: thick ≥ 0.5 opacity, thin 0.05 to 0.5, shadow ≥ 0.15 elsewhere."""

_CLEAR_TO, _OVERCAST_FROM = 0.25, 0.86
_THICK_OPACITY, _THIN_OPACITY, _SHADOW_DEPTH = 0.5, 0.05, 0.15


@dataclass(frozen=True)
class Sky:
    """What stands between sun, ground and sensor, each 0 (nothing) to 1, float32, 20 m."""

    thick: Field
    """Opacity of water cloud."""
    thin: Field
    """Opacity of cirrus and haze in the blue."""
    shadow: Field
    """Depth of the shadow that thick cloud casts on the ground."""

    @property
    def opacity(self) -> Field:
        """Opacity of thick and thin cloud together."""
        return np.asarray(1.0 - (1.0 - self.thick) * (1.0 - self.thin), dtype=np.float32)

    def over(self, block: Block) -> Sky:
        """The sky over a part of the mosaic."""
        return Sky(*(window(f, *block) for f in (self.thick, self.thin, self.shadow)))

    def truth(self) -> NDArray[np.uint8]:
        """The true mask, uint8: CLEAR, THIN, THICK or SHADOW."""
        opacity = self.opacity
        mask = np.where(self.shadow >= _SHADOW_DEPTH, SHADOW, CLEAR).astype(np.uint8)
        mask[opacity >= _THIN_OPACITY] = THIN
        mask[opacity >= _THICK_OPACITY] = THICK
        return mask

    def seen_through(self, band: str, ground: NDArray[np.int16]) -> Field:
        """Reflectance × 10000 as the sensor sees it, float32, on the ground's grid (10 or 20 m)."""
        b = BANDS.index(band)
        haze = self.thin * np.float32(_HAZE_STRENGTH[b])
        through = (1.0 - haze) * (1.0 - self.thick)
        added = haze * (1.0 - self.thick) * np.float32(_HAZE[b] * 1e4)
        added += self.thick * np.float32(_CLOUD[b] * 1e4)
        through *= 1.0 - self.shadow * np.float32(_SHADOW_STRENGTH[b])
        if ground.shape != through.shape:
            through, added = _replicate(through), _replicate(added)
        return ground * through + added


def _replicate(array: Field) -> Field:
    return np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)


def make_sky(size: int, overpass: Overpass, seed: int) -> Sky:
    """Draw the sky of an overpass over a mosaic of `size` pixels of 10 m.

    A quarter of the overpasses are nearly clear, about one in seven fully overcast; the rest have
    broken cloud, half of them with cirrus or haze as well. Cloud height is one per overpass.
    """
    rng = generator(seed, Stream.SKY, overpass.index)
    n = min(size // 2, MOST_NODES)
    field = smooth_field(rng, n, scale=45.0, decay=2.6)
    rank = overpass.cloud_rank
    if rank > _OVERCAST_FROM:
        thick = 1.0 - np.exp(-np.maximum(3.5 + field, 1.5))
    else:
        broken = (rank - _CLEAR_TO) / (_OVERCAST_FROM - _CLEAR_TO)
        share = 0.02 * rank / _CLEAR_TO if broken <= 0 else 0.05 + 0.65 * broken
        thick = 1.0 - np.exp(-5.0 * np.maximum(field - np.quantile(field, 1.0 - share), 0.0))
    thin = np.zeros((n, n), np.float32)
    if rank > _CLEAR_TO and rng.random() < 0.5:
        veil = smooth_field(rng, n, scale=80.0, decay=3.0)
        threshold = np.quantile(veil, rng.uniform(0.1, 0.8))
        strength = rng.uniform(0.12, 0.5)
        thin = strength * (1.0 - np.exp(-1.5 * np.maximum(veil - threshold, 0.0)))
    return Sky(
        thick=thick.astype(np.float32),
        thin=thin.astype(np.float32),
        shadow=_cast_shadow(thick.astype(np.float32), overpass.sun, rng.uniform(600, 3500)),
    )


def _cast_shadow(thick: Field, sun: tuple[float, float], height: float) -> Field:
    """The cloud's opacity displaced away from the sun, with a penumbra of about 30 m.

    What leaves the mosaic on one side comes back on the other: it stands for clouds outside.
    """
    elevation, azimuth = np.radians(sun)
    distance = height / np.tan(elevation) / 20
    north, east = -distance * np.cos(azimuth), -distance * np.sin(azimuth)
    moved = np.roll(thick, (-round(float(north)), round(float(east))), axis=(0, 1))
    return np.asarray(gaussian_filter(moved, 1.2, mode="wrap"), dtype=np.float32)


@dataclass(frozen=True)
class Rate:
    """A published error rate of the Sen2Cor scene classification."""

    value: float
    source: str


_CLOUDSEN12 = (
    "Aybar et al. 2022, Scientific Data 9, 782: per-patch table of its evaluation (975 patches "
    "of 5 km, Sentinel-2 of 2018 to 2020), rows sen2cor, pooled over pixels, "
)
ACCURACY = {
    "thick cloud found": Rate(0.81, _CLOUDSEN12 + "patches with more than 75 % cloud (n 179)"),
    "thin cloud found": Rate(
        0.35,
        _CLOUDSEN12 + "0.38 in patches with up to 25 % cloud (n 212); 0.32 is what remains of "
        "the 0.68 of all cloud when thick cloud, 73 % of its labels, is found at 0.81",
    ),
    "shadow found": Rate(
        0.20,
        _CLOUDSEN12 + "class 3 (n 619; shares of shadow solved from its recalls and precisions)",
    ),
    "clear ground called cloud": Rate(
        0.08, _CLOUDSEN12 + "forest, shrubs, herbs, crops, wetland (n 545; 95 %: 0.06 to 0.10)"
    ),
    "built-up ground called cloud": Rate(0.11, _CLOUDSEN12 + "urban (n 38; 95 %: 0.05 to 0.20)"),
    "bright bare ground called cloud": Rate(
        0.23, _CLOUDSEN12 + "bare and sparse vegetation (n 85; 95 %: 0.16 to 0.31)"
    ),
    "clear ground called shadow": Rate(0.004, _CLOUDSEN12 + "class 3 (n 619)"),
}
"""What `Classifier` reproduces: shares of the pixels that truly are what is named first.

Patches without any cloud have no figures in that table, so false alarms are those of partly cloudy
scenes. Other validations pool all errors into one overall accuracy: 0.84 for Sen2Cor 2.5.5 against
32 scenes (Baetens et al. 2019, Remote Sensing 11, 433), 0.92 against expert polygons (Zekoll et
al. 2021, Remote Sensing 13, 137). CloudSEN12, whose patches hold more thin and broken cloud, gives
0.79 for cloud alone.
"""

# Probits at which the classifier finds cloud over opacity 0 (by ground), 0.5 and 1, in between
# linear; and shadow of depth 0 and 1. Those of opacity 0 are the quantiles of the rates above; the
# others were fitted to them on default simulations.
_CLEAR, _BUILT_UP, _BRIGHT_BARE = -1.41, -1.23, -0.74
_HALF_OPAQUE, _OPAQUE = 0.55, 0.95
_NO_SHADOW, _FULL_SHADOW = -2.65, -0.35
_BRIGHT, _BARE = 0.105, 0.2
"""Bright bare ground: visible reflectance above, green cover below."""
_SCENE = 0.5
"""Share of the errors' variance that a whole granule has in common; the rest comes in patches.

With it the quartiles of the share of cloud found are 0.73, 0.90, 0.97; in the table's patches with
more than 75 % cloud they are 0.74, 0.92, 1.00.
"""


@dataclass(frozen=True)
class Ground:
    """What a scene classification goes by, of a part of the mosaic at 20 m."""

    cover: Field
    """Green fraction."""
    bright_bare: Mask
    """Where bright soil or rock lies open: ground that is often taken for cloud."""
    water: Mask
    built: Mask
    snow: Mask

    @classmethod
    def of(cls, patch: Patch, cover: Field) -> Ground:
        """The ground of a patch of 10 m with `cover` at 20 m."""
        code = patch.landcover[::2, ::2]
        water, built, snow = (code == CODE[n] for n in ("water", "built-up", "snow and ice"))
        bare = (patch.visible_brightness > _BRIGHT) & (cover < _BARE)
        return cls(cover, bare & ~(water | built | snow), water, built, snow)


@dataclass(frozen=True)
class Classifier:
    """A scene classification that errs as often as the real one (Sen2Cor) does, see `ACCURACY`.

    A probit model: cloud of some opacity is found where a standard normal field exceeds the
    quantile of its chance to be missed. The field has a part in common for the granule, so some
    scenes go wrong as a whole, and patches of some 100 m; over bright ground half of its variance
    stays in place from date to date (Sen2Cor flags the same roofs again and again). So cloud is
    missed in blobs, thin cloud and cloud edges most.
    """

    noise: tuple[Field, Field]
    pattern: Field
    """The part of the error over bright ground that does not change with the date."""

    def classify(
        self, sky: Sky, ground: Ground, rng: np.random.Generator, block: Block | None = None
    ) -> NDArray[np.uint8]:
        """SCL codes 2 to 11, uint8, of a sky over some ground: a block, or all of the mosaic."""
        block = block or Block(0, 0, *self.pattern.shape)
        cloud, shadow = (self._error(field, rng, block) for field in self.noise)
        fixed = ground.bright_bare | ground.built
        cloud[fixed] = (cloud[fixed] + window(self.pattern, *block)[fixed]) * np.float32(
            np.sqrt(0.5)
        )
        clear = np.where(
            ground.bright_bare, _BRIGHT_BARE, np.where(ground.built, _BUILT_UP, _CLEAR)
        )
        cloud += _between(sky.opacity, clear.astype(np.float32))
        shadow += _NO_SHADOW + (_FULL_SHADOW - _NO_SHADOW) * sky.shadow

        scl = np.where(ground.cover > 0.33, 4, 5).astype(np.uint8)
        scl[ground.water] = 6
        doubt = cloud > -0.25
        scl[shadow > -0.25] = 2
        scl[doubt] = 7
        scl[ground.snow] = 11  # its own test comes before those of doubt
        scl[(shadow > 0) & ~doubt] = 3
        found = cloud > 0
        cirrus = (sky.thin > sky.thick) & (sky.thin >= _THIN_OPACITY)
        scl[found] = np.where(cirrus, 10, np.where(cloud > 0.75, 9, 8))[found]
        return scl

    @staticmethod
    def _error(field: Field, rng: np.random.Generator, block: Block) -> Field:
        """Standard normal error of a granule: its own level, and the field shifted at random."""
        level = rng.standard_normal() * np.sqrt(_SCENE)
        down, right = (int(n) for n in rng.integers(0, field.shape[0], 2))
        patches = window(field, block.row - down, block.col - right, *block[2:])
        patches *= np.float32(np.sqrt(1.0 - _SCENE))
        return np.asarray(patches + np.float32(level), dtype=np.float32)


def _between(opacity: Field, clear: Field) -> Field:
    """Probit of finding cloud, float32: piecewise linear through opacity 0, 0.5 and 1."""
    thin = clear + (_HALF_OPAQUE - clear) * (2.0 * opacity)
    thick = _HALF_OPAQUE + (_OPAQUE - _HALF_OPAQUE) * (2.0 * opacity - 1.0)
    return np.where(opacity < _THICK_OPACITY, thin, thick).astype(np.float32)


def make_classifier(size: int, seed: int) -> Classifier:
    """A classifier for a mosaic of `size` pixels of 10 m."""
    rng = generator(seed, Stream.CLASSIFICATION)
    n = min(size // 2, MOST_NODES)
    noise = (smooth_field(rng, n, scale=30.0, decay=2.4), smooth_field(rng, n, 30.0, decay=2.4))
    pattern = smooth_field(rng, n, scale=4.0, decay=2.0)
    return Classifier(noise, pattern)
