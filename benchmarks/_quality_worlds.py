"""What composites are measured against: a simulated season and real clear dates.

`World` is a simulated season held in memory: the surface of every date is known, so the reference
of a reducer is what it makes of those surfaces when nothing covers them. `Stack.read` and
`held_out` serve real dates: an observation that is beyond doubt clear is kept from the composite
of its month, which then has to predict it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from lcengine.simulate import BANDS, SimulationOptions
from lcengine.simulate.clouds import CLEAR, Ground, make_classifier, make_sky
from lcengine.simulate.landscape import block_mean, make_landscape
from lcengine.simulate.scenes import NOISE
from lcengine.simulate.sentinel2 import Mosaic, Overpass
from lcengine.simulate.streams import Stream, generator

NODATA = -32768
CLOUD_CLASSES = (3, 8, 9, 10)
CLEAR_CLASSES = (4, 5, 6)
_NO_CLOUD = 0.005
_DARK_BLUE = 500

Value = TypeVar("Value", bound=np.generic)
Pixels = NDArray[np.int16]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Stack:
    """What a contender sees, in order of time."""

    bands: tuple[str, ...]
    dates: NDArray[np.datetime64]
    """(n,) datetime64[D]."""
    pixels: Pixels
    """(n, band, y, x) reflectance × 10000, NODATA where not seen: every pixel of 10 m, or the upper
    left one of each 2 × 2."""
    scl: NDArray[np.uint8]
    """(n, v, u) scene classification at 20 m, 0 where not seen."""

    @classmethod
    def read(cls, folder: Path, bands: Sequence[str]) -> Stack:
        """All items of a collection of static STAC items on one small grid, SCL at half of it.

        Bands of 20 m are replicated to 10 m.
        """
        items = sorted(p for p in folder.iterdir() if p.is_dir())
        files = [json.loads((p / f"{p.name}.json").read_text()) for p in items]
        days = [str(f["properties"]["datetime"])[:10] for f in files]
        scl = np.array([_read(p / "scl.tif") for p in items])
        fine = (2 * scl.shape[1], 2 * scl.shape[2])
        raw = np.array([[onto(_read(p / f"{b}.tif"), fine) for b in bands] for p in items])
        pixels = np.where(raw == 0, NODATA, np.minimum(raw, 32767)).astype(np.int16)
        order = np.argsort(days, kind="stable")
        dates = np.array(days, dtype="datetime64[D]")
        return cls(tuple(bands), dates[order], pixels[order], scl[order])

    def take(self, index: NDArray[np.integer] | Mask) -> Stack:
        """The observations at an index or mask (n,)."""
        return replace(
            self, dates=self.dates[index], pixels=self.pixels[index], scl=self.scl[index]
        )

    def band(self, name: str) -> int:
        return self.bands.index(name)


def _read(file: Path) -> NDArray[np.integer]:
    with rasterio.open(file) as dataset:
        values: NDArray[np.integer] = dataset.read(1)
    return values


def onto(mask: NDArray[Value], shape: Sequence[int]) -> NDArray[Value]:
    """A finer or coarser raster on the grid (y, x) that `shape` ends with: nearest pixels."""
    of, to = mask.shape[-1], shape[-1]
    if of > to:
        return mask[..., :: of // to, :: of // to]
    return mask.repeat(to // of, axis=-2).repeat(to // of, axis=-1)


# --- simulated truth ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A simulated season over one square, and what lies under its clouds."""

    seen: Stack
    """Clouds, noise, swath edges and the fallible SCL."""
    surface: Pixels
    """(n, band, y, x) the same dates without cloud, shadow, noise or swath edge."""
    truth: NDArray[np.uint8]
    """(n, v, u) true mask at 20 m: 0 clear, 1 thin, 2 thick cloud, 3 shadow."""

    def cloudless(self) -> Stack:
        """The surface as a stack whose SCL is clear everywhere: for references.

        The reference of a contender is its reducer *without* screen on this stack, so that what
        a screen does to clean series counts as error.
        """
        return replace(self.seen, pixels=self.surface, scl=np.full_like(self.seen.scl, 4))

    def true_mask(self) -> Stack:
        """What was seen with an SCL that never errs: 4 where truly clear, 9 elsewhere.

        Here nothing is left to find: a screen's RMSE over that of no screen is the harm it does.
        """
        scl = np.where(self.truth == CLEAR, 4, 9).astype(np.uint8)
        scl[self.seen.scl == 0] = 0
        return replace(self.seen, scl=scl)

    def clear_only(self) -> Stack:
        """The surface under an SCL that never errs: all that a perfect mask could have used.

        Against its median the sampling of the season by real clouds cancels; what is left of an
        error comes from the mask and the screen.
        """
        unseen = self.seen.pixels == NODATA
        return replace(self.true_mask(), pixels=np.where(unseen, NODATA, self.surface))


def make_world(options: SimulationOptions) -> World:
    """The dates of a simulation as one mosaic; SCL and noise are those of its western granule.

    Pixels are the upper left ones of each 2 × 2: composites work pixel by pixel, and neighbours
    tell little new.
    """
    landscape = make_landscape(options.size, options.seed)
    classifier = make_classifier(options.size, options.seed)
    overpasses = options.overpasses()
    shape = (len(overpasses), len(options.bands), options.size // 2, options.size // 2)
    seen, surface = np.empty(shape, np.int16), np.empty(shape, np.int16)
    scl, truth = [], []
    for i, overpass in enumerate(overpasses):
        cover = landscape.cover(overpass.day)
        sky = make_sky(options.size, overpass, options.seed)
        rng = generator(options.seed, Stream.CLASSIFICATION, overpass.index, 0)
        inside = _inside(options, overpass)
        ground = Ground.of(landscape.whole, block_mean(cover))
        scl.append(np.where(inside, classifier.classify(sky, ground, rng), 0))
        truth.append(sky.truth())
        for b, band in enumerate(options.bands):
            bare = landscape.surface(band, cover)
            noise = generator(options.seed, Stream.NOISE, overpass.index, 0, BANDS.index(band))
            image = sky.seen_through(band, bare) + np.float32(NOISE) * noise.standard_normal(
                bare.shape, dtype=np.float32
            )
            surface[i, b] = onto(bare, shape)
            seen[i, b] = onto(np.rint(np.clip(image, -32767, 32767)), shape)
        seen[i][:, ~inside] = NODATA
    dates = np.array([o.time.date() for o in overpasses], dtype="datetime64[D]")
    stack = Stack(options.bands, dates, seen, np.array(scl, dtype=np.uint8))
    return World(stack, surface, np.array(truth))


def _inside(options: SimulationOptions, overpass: Overpass) -> Mask:
    if overpass.swath is None:
        return np.ones((options.size // 2,) * 2, np.bool_)
    return overpass.swath.seen(Mosaic(options.size))


# --- real truth --------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """One clear date of a series, and the series without it."""

    date: np.datetime64
    series: Stack
    observation: Pixels
    """(band, y, x)."""
    where: Mask
    """(y, x) True where the observation is beyond doubt clear."""


def held_out(
    stack: Stack, *, per_month: int = 3, seed: int = 0, distance: float = 200.0
) -> list[HeldOut]:
    """Clear dates to predict, at most `per_month` drawn by `seed` from each calendar month.

    A date qualifies when no more than 0.5 % of its SCL is cloud or shadow and the darkest tenth of
    its blue is below 0.05 (brighter dark objects mean haze, Chavez 1988). Of it the pixels of
    classes 4, 5 and 6 count that are more than `distance` metres from every cloud or shadow pixel.
    Months with a single such date are left out: nothing could predict it. The choice looks at each
    date alone, never at a composite. Needs blue.
    """
    rng = np.random.default_rng(seed)
    cloudy = np.isin(stack.scl, CLOUD_CLASSES).mean(axis=(1, 2))
    dark = np.percentile(stack.pixels[:, stack.band("blue")], 10, axis=(1, 2))
    qualified = (cloudy <= _NO_CLOUD) & (dark < _DARK_BLUE)
    months = stack.dates.astype("datetime64[M]")
    cases = []
    for month in np.unique(months):
        inside = months == month
        candidates = np.flatnonzero(inside & qualified)
        if candidates.size < 2:
            continue
        chosen = rng.choice(candidates, min(per_month, candidates.size), replace=False)
        for i in np.sort(chosen):
            scl = stack.scl[i]
            sure = np.isin(scl, CLEAR_CLASSES) & (_distance_to_cloud(scl) > distance)
            where = onto(sure, stack.pixels.shape) & (stack.pixels[i] != NODATA).all(axis=0)
            if where.any():
                others = stack.take(np.arange(stack.dates.size) != i)
                cases.append(HeldOut(stack.dates[i], others, stack.pixels[i], where))
    return cases


def _distance_to_cloud(scl: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Metres to the nearest cloud or shadow pixel of 20 m, infinite where there is none."""
    cloud = np.isin(scl, CLOUD_CLASSES)
    if not cloud.any():
        return np.full(scl.shape, np.inf)
    distance: NDArray[np.float64] = distance_transform_edt(~cloud, sampling=20.0)
    return distance


def observations(cases: Sequence[HeldOut]) -> tuple[Pixels, Mask]:
    """What is to be predicted, (case, band, y, x), and where it counts, (case, y, x)."""
    return np.array([c.observation for c in cases]), np.array([c.where for c in cases])
