"""Sentinel-2 over the simulated ground: one job per granule and overpass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcengine.simulate.clouds import UNSEEN, Classifier, Ground, Sky, make_classifier, make_sky
from lcengine.simulate.landscape import Patch, block_mean
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.rasters import write_cog
from lcengine.simulate.sentinel2 import (
    BANDS,
    COLLECTION,
    RESOLUTION,
    Granule,
    Overpass,
    encode,
    make_granules,
)
from lcengine.simulate.stac import sentinel2_item
from lcengine.simulate.streams import Stream, generator
from lcengine.simulate.world import Job, world

NOISE = 8.0
"""Standard deviation of the sensor noise in reflectance × 10000."""
_lock = Lock()


@dataclass(frozen=True)
class Scene(Job):
    """One granule of one overpass; both are numbers into those of the options."""

    overpass: int
    granule: int

    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write bands, SCL and true mask."""
        with _lock:  # or threads would rasterise the same ground at once
            below = _below(self.options, self.granule)
        overpass = world(self.options).overpasses[self.overpass]
        cover = below.patch.cover(overpass.day)
        sky = make_sky(self.options.size, overpass, self.options.seed).over(below.granule.block)
        item = self._write_masks(root, overpass, below, (sky, block_mean(cover)))
        for band in self.options.bands:
            image = sky.seen_through(band, below.patch.surface(band, cover))
            file = root / COLLECTION / item["id"] / f"{band}.tif"
            self._write_band(file, overpass, below.granule, image)
        return [item]

    def _write_masks(
        self,
        root: Path,
        overpass: Overpass,
        below: _Below,
        over: tuple[Sky, NDArray[np.float32]],
    ) -> dict[str, Any]:
        """Write SCL and true mask; the granule's STAC item."""
        granule, (sky, cover) = below.granule, over
        rng = generator(self.options.seed, Stream.CLASSIFICATION, self.overpass, self.granule)
        ground = Ground.of(below.patch, cover)
        scl = below.classifier.classify(sky, ground, rng, granule.block)
        seen = _seen(overpass, granule, 20)
        classes = np.where(seen, granule.sample(scl, 20), 0).astype(np.uint8)
        truth = np.where(seen, granule.sample(sky.truth(), 20), UNSEEN).astype(np.uint8)
        cloudy = float(np.isin(classes, (8, 9, 10)).sum() / max(seen.sum(), 1) * 100)
        nodata = float(100 - seen.mean() * 100)
        item = sentinel2_item(granule, overpass, self.options.bands, cloudy, nodata)
        folder = root / COLLECTION / item["id"]
        folder.mkdir(parents=True, exist_ok=True)
        write_cog(folder / "scl.tif", classes, granule.epsg, granule.bounds, 0)
        cloud = root / "truth" / "cloud" / f"{item['id']}.tif"
        write_cog(cloud, truth, granule.epsg, granule.bounds, UNSEEN)
        return item

    def _write_band(
        self, file: Path, overpass: Overpass, granule: Granule, image: NDArray[np.float32]
    ) -> None:
        """Cut the granule out of a band's image, add noise, encode and write it."""
        resolution = RESOLUTION[file.stem]
        key = (overpass.index, self.granule, BANDS.index(file.stem))
        rng = generator(self.options.seed, Stream.NOISE, *key)
        noise = rng.standard_normal(granule.shape(resolution), dtype=np.float32)
        noisy = granule.sample(image, resolution) + noise * np.float32(NOISE)
        dn = encode(noisy, _seen(overpass, granule, resolution), overpass.processing)
        write_cog(file, dn, granule.epsg, granule.bounds, 0)


@dataclass(frozen=True)
class _Below:
    """What all overpasses of a granule share."""

    granule: Granule
    patch: Patch
    classifier: Classifier


@lru_cache(maxsize=2)
def _below(options: SimulationOptions, number: int) -> _Below:
    seen = world(options)
    granule = make_granules(seen.mosaic, options.second_zone)[number]
    patch = seen.landscape.patch(seen.mosaic.box(granule.block))
    return _Below(granule, patch, make_classifier(options.size, options.seed))


def _seen(overpass: Overpass, granule: Granule, resolution: int) -> NDArray[np.bool_]:
    """True where the granule has data, at 10 or 20 m."""
    seen = granule.inside(resolution)
    if overpass.swath is None:
        return seen
    swath = overpass.swath.seen(granule.mosaic, granule.block)
    if resolution == 10:
        swath = np.repeat(np.repeat(swath, 2, axis=0), 2, axis=1)
    return np.logical_and(seen, granule.sample(swath, resolution))


def jobs(options: SimulationOptions) -> list[Job]:
    """All scenes, granule by granule, so that a process meets the same ground again.

    Of granules beyond the edge of a swath there are none, as in a real archive.
    """
    seen = world(options)
    return [
        Scene(options, overpass.index, number)
        for number, granule in enumerate(make_granules(seen.mosaic, options.second_zone))
        for overpass in seen.overpasses
        if overpass.swath is None or not granule.footprint(overpass.swath).is_empty
    ]
