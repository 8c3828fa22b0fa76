"""Writing the simulated archive: options, images, truth, catalogue."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from lcengine.errors import InputError
from lcengine.simulate.clouds import UNSEEN, Classifier, Sky, make_classifier, make_sky
from lcengine.simulate.landscape import LEGEND, NO_CLASS, Landscape, block_mean, make_landscape
from lcengine.simulate.sentinel2 import (
    BANDS,
    EPSG,
    RESOLUTION,
    Granule,
    Mosaic,
    Overpass,
    encode,
    make_granules,
    make_overpasses,
)
from lcengine.simulate.stac import COLLECTION, item_dict, write_catalog
from lcengine.simulate.streams import Stream, generator

TRUTH_NODATA = -32768
NOISE = 8.0
"""Standard deviation of the sensor noise in reflectance × 10000."""
_MARKER = "simulation.json"
_TRUTH_ROWS = 128


@dataclass(frozen=True)
class Simulation:
    """A written archive: `catalog.json`, `sentinel-2-l2a/`, `truth/` below `path`."""

    path: Path
    options: SimulationOptions
    item_ids: tuple[str, ...]

    @property
    def catalog(self) -> Path:
        """The static STAC catalogue."""
        return self.path / "catalog.json"

    @property
    def truth(self) -> Path:
        """Folder of the truth.

        `<band>.tif`: int16 reflectance × 10000, nodata -32768, EPSG:32631, 10 m (20 m bands
        replicated): median over all overpasses of the ground without clouds or noise.
        `landcover.tif`: uint8 codes of `landcover.json`. `cloud/<item id>.tif`: uint8 on the
        granule's 20 m grid, 0 clear, 1 thin cloud, 2 thick cloud, 3 shadow, 255 not seen.
        """
        return self.path / "truth"


@dataclass(frozen=True)
class _World:
    """All that the images are drawn from."""

    root: Path
    options: SimulationOptions
    mosaic: Mosaic
    granules: tuple[Granule, ...]
    landscape: Landscape
    classifier: Classifier


def simulate(
    path: str | os.PathLike[str],
    options: SimulationOptions | None = None,
    *,
    threads: int | None = None,
) -> Simulation:
    """Write a simulated archive into the folder `path`, replacing a previous simulation there.

    `threads` changes the time it takes, never the files. Raises InputError for a folder that
    holds anything else.
    """
    options = options or SimulationOptions()
    root = Path(path)
    _prepare(root, options)
    mosaic = Mosaic(options.size)
    landscape = make_landscape(options.size, options.seed)
    code = landscape.landcover[::2, ::2]
    world = _World(
        root=root,
        options=options,
        mosaic=mosaic,
        granules=make_granules(mosaic, options.second_zone),
        landscape=landscape,
        classifier=make_classifier(
            landscape.visible_brightness(), code == 8, code == 10, options.seed
        ),
    )
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        rendered = pool.map(lambda overpass: _write_overpass(world, overpass), options.overpasses())
        items = [item for pair in rendered for item in pair]
        _write_truth(world, pool)
    write_catalog(root, items)
    return Simulation(root, options, tuple(str(item["id"]) for item in items))


def _prepare(root: Path, options: SimulationOptions) -> None:
    """Make the folder empty but for the marker that says it belongs to a simulation."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: name a folder for the simulated archive")
    if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
        raise InputError(
            f"{root} is not empty and not a previous simulation: name a new or empty folder"
        )
    for folder in (COLLECTION, "truth"):
        if (root / folder).exists():
            shutil.rmtree(root / folder)
    (root / "catalog.json").unlink(missing_ok=True)
    (root / "truth" / "cloud").mkdir(parents=True)
    (root / _MARKER).write_text(json.dumps(asdict(options), indent=2) + "\n")


def _write_overpass(world: _World, overpass: Overpass) -> list[dict[str, Any]]:
    """Write both granules of an overpass; the STAC items."""
    seed = world.options.seed
    cover = world.landscape.cover(overpass.day)
    sky = make_sky(world.options.size, overpass, seed)
    items = []
    for number, granule in enumerate(world.granules):
        rng = generator(seed, Stream.CLASSIFICATION, overpass.index, number)
        scl = world.classifier.classify(sky, block_mean(cover), rng)
        items.append(_write_masks(world, overpass, granule, sky, scl))
    for band in world.options.bands:
        image = sky.seen_through(band, world.landscape.surface(band, cover))
        for number, granule in enumerate(world.granules):
            file = world.root / COLLECTION / items[number]["id"] / f"{band}.tif"
            _write_band(world, overpass, (number, granule), image, file)
    return items


def _seen(
    world: _World, overpass: Overpass, granule: Granule, resolution: int
) -> NDArray[np.bool_]:
    """True where the granule has data, at 10 or 20 m."""
    seen = granule.inside(resolution)
    if overpass.swath is None:
        return seen
    swath = overpass.swath.seen(world.mosaic)
    if resolution == 10:
        swath = np.repeat(np.repeat(swath, 2, axis=0), 2, axis=1)
    return np.logical_and(seen, granule.sample(swath, resolution))


def _write_masks(
    world: _World, overpass: Overpass, granule: Granule, sky: Sky, scl: NDArray[np.uint8]
) -> dict[str, Any]:
    """Write SCL and true mask of one granule; the granule's STAC item."""
    seen = _seen(world, overpass, granule, 20)
    classes = np.where(seen, granule.sample(scl, 20), 0).astype(np.uint8)
    truth = np.where(seen, granule.sample(sky.truth(), 20), UNSEEN).astype(np.uint8)
    cloudy = float(np.isin(classes, (8, 9, 10)).sum() / seen.sum() * 100)
    item = item_dict(granule, overpass, world.options.bands, cloudy, float(100 - seen.mean() * 100))
    folder = world.root / COLLECTION / item["id"]
    folder.mkdir(parents=True)
    _write_cog(folder / "scl.tif", classes, granule.epsg, granule.bounds, 0)
    cloud = world.root / "truth" / "cloud" / f"{item['id']}.tif"
    _write_cog(cloud, truth, granule.epsg, granule.bounds, UNSEEN)
    return item


def _write_band(
    world: _World,
    overpass: Overpass,
    numbered: tuple[int, Granule],
    image: NDArray[np.float32],
    file: Path,
) -> None:
    """Cut one granule out of a band's mosaic, add noise, encode and write it."""
    number, granule = numbered
    resolution = RESOLUTION[file.stem]
    key = (overpass.index, number, BANDS.index(file.stem))
    rng = generator(world.options.seed, Stream.NOISE, *key)
    noise = rng.standard_normal(granule.shape(resolution), dtype=np.float32)
    noisy = granule.sample(image, resolution) + noise * np.float32(NOISE)
    dn = encode(noisy, _seen(world, overpass, granule, resolution), overpass.processing)
    _write_cog(file, dn, granule.epsg, granule.bounds, 0)


def _write_truth(world: _World, pool: ThreadPoolExecutor) -> None:
    """Write the cloud-free medians and the land cover."""
    size, folder = world.options.size, world.root / "truth"
    days = [overpass.day for overpass in world.options.overpasses()]
    truth = {b: np.empty((size, size), np.int16) for b in world.options.bands}

    def fill(start: int) -> None:
        rows = slice(start, min(size, start + _TRUTH_ROWS))
        covers = [world.landscape.cover(day, rows) for day in days]
        for band, median in truth.items():
            surfaces = (world.landscape.surface(band, c, rows) for c in covers)
            median[rows] = _median(surfaces, RESOLUTION[band] // 10)

    list(pool.map(fill, range(0, size, _TRUTH_ROWS)))
    for band, median in truth.items():
        _write_cog(folder / f"{band}.tif", median, EPSG, world.mosaic.bounds, TRUTH_NODATA)
    landcover = world.landscape.landcover
    _write_cog(folder / "landcover.tif", landcover, EPSG, world.mosaic.bounds, NO_CLASS)
    legend = {str(c.code): {"name": c.name, "color": c.color} for c in LEGEND}
    (folder / "landcover.json").write_text(json.dumps(legend, indent=2) + "\n")


def _median(surfaces: Iterable[NDArray[np.int16]], replicate: int) -> NDArray[np.int16]:
    """Median over the dates, rounded half to even, int16, each pixel repeated `replicate` times."""
    median = np.rint(np.median(np.stack(list(surfaces)), axis=0)).astype(np.int16)
    return np.repeat(np.repeat(median, replicate, axis=0), replicate, axis=1)


def _write_cog(
    file: Path,
    array: NDArray[Any],
    epsg: int,
    bounds: tuple[int, int, int, int],
    nodata: int,
) -> None:
    """Write a single-band cloud-optimised GeoTIFF; overviews only where a reader would use them."""
    height, width = array.shape
    left, bottom, right, top = bounds
    with rasterio.open(
        file,
        "w",
        driver="COG",
        height=height,
        width=width,
        count=1,
        dtype=array.dtype,
        nodata=nodata,
        crs=f"EPSG:{epsg}",
        transform=from_origin(left, top, (right - left) / width, (top - bottom) / height),
        compress="DEFLATE",
        level=1,
        num_threads=2,
        predictor="YES" if array.dtype.itemsize > 1 else "NO",
        blocksize=512,
        overviews="NONE" if max(height, width) <= 2048 else "AUTO",
    ) as dataset:
        dataset.write(array, 1)
