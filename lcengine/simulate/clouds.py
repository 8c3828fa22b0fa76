"""The sky: clouds, haze and shadows of an overpass, their truth, and a fallible classification.

Everything here lives on the mosaic's 20 m grid, (size / 2, size / 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lcengine.simulate.sentinel2 import BANDS, Overpass
from lcengine.simulate.streams import Stream, generator, smooth_field

Field = NDArray[np.float32]

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
    n = size // 2
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
class Classifier:
    """A scene classification with the kinds of error that the real one (Sen2Cor) makes.

    It misses thin cloud and faint or dark shadow, and takes some bright ground for cloud.
    """

    noise: tuple[Field, Field]
    brightness: Field
    """Visible reflectance of the uncovered ground."""
    water: NDArray[np.bool_]
    built: NDArray[np.bool_]

    def classify(self, sky: Sky, cover: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
        """SCL codes 2 to 10, uint8, of a sky over ground with `cover` (green fraction)."""
        a, b = (np.roll(f, tuple(rng.integers(0, f.shape[0], 2)), (0, 1)) for f in self.noise)
        scl = np.where(cover > 0.33, 4, 5).astype(np.uint8)
        scl[self.built & (b > 1.3)] = 7
        scl[self.water] = 6
        bright = (self.brightness > 0.105) & (cover < 0.2) & (a > 1.5)
        scl[bright] = np.where(a > 2.2, 9, 8)[bright]

        shadow = sky.shadow + 0.15 * b > 0.38
        scl[shadow] = np.where(a > 1.0, 2, 3)[shadow]
        score = sky.opacity + 0.07 * a
        scl[(score > 0.12) & (b > 0.6)] = 7
        cloud = score > 0.17
        kind = np.where(score > 0.75, 9, np.where((sky.thin > sky.thick) & (score < 0.6), 10, 8))
        scl[cloud] = kind[cloud]
        return scl


def make_classifier(
    brightness: Field, water: NDArray[np.bool_], built: NDArray[np.bool_], seed: int
) -> Classifier:
    """A classifier for a mosaic; all arrays at 20 m."""
    rng = generator(seed, Stream.CLASSIFICATION)
    n = brightness.shape[0]
    noise = (smooth_field(rng, n, scale=10.0, decay=2.0), smooth_field(rng, n, 10.0, decay=2.0))
    return Classifier(noise, brightness, water, built)
