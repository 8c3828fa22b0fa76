"""The benchmark's archive: one granule, many dates, as a real archive lays it out.

Cloud-optimised GeoTIFFs (uint16, 512 px tiles, deflate level 6, predictor 2) of a
simulated landscape under simulated skies, SCL at 20 m, and a FeatureCollection of STAC items in the
layout of Earth Search. The offset is already applied and no pixel is nodata, so every contender
computes the median of the same numbers.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import from_origin

from lcengine.simulate.clouds import Ground, make_classifier, make_sky
from lcengine.simulate.landscape import block_mean, make_landscape
from lcengine.simulate.sentinel2 import Overpass, make_overpasses

BANDS = ("blue", "green", "red", "nir")
EPSG = 32631
LEFT, TOP = 600_000, 5_700_000
BLOCK = 512
NOISE = 10.0
"""Standard deviation of the noise (DN): files compress about 1.5×, as real 10 m bands do."""
SEED = 7
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@dataclass(frozen=True)
class Archive:
    """A written archive: `items.json` names its files below a base address."""

    root: Path
    size: int
    dates: int

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, bottom, right, top in metres."""
        return LEFT, TOP - self.size * 10, LEFT + self.size * 10, TOP

    @property
    def images(self) -> Path:
        return self.root / "images"

    def bytes_on_disk(self, bands: tuple[str, ...] = BANDS) -> int:
        return sum(f.stat().st_size for b in bands for f in self.images.glob(f"*/{b}.tif"))

    def bytes_decoded(self) -> int:
        return self.dates * len(BANDS) * self.size**2 * 2

    def place(self, name: str, base: str) -> Path:
        """An items file whose assets lie below `base/name`, an alias of the images.

        A run under an alias of its own finds no cache that knows its files: neither open handles
        nor decoded blocks nor downloaded bytes are left from the run before.
        """
        (self.root / name).symlink_to(self.images.name)
        items = json.loads((self.root / "items.json").read_text())
        for item in items["features"]:
            for asset in item["assets"].values():
                asset["href"] = f"{base}/{name}/{asset['href']}"
        file = self.root / f"{name}.json"
        file.write_text(json.dumps(items))
        return file

    def displace(self, name: str) -> None:
        (self.root / name).unlink()
        (self.root / f"{name}.json").unlink()


def make_archive(root: Path, size: int, dates: int) -> Archive:
    """Write the archive into `root`, or take the one that is already there."""
    archive = Archive(root.resolve(), size, dates)
    marker = archive.root / "archive.json"
    wanted = {**asdict(archive), "root": "", "noise": NOISE, "version": 2}
    if marker.exists():
        if json.loads(marker.read_text()) != wanted:
            raise SystemExit(f"{root} holds an archive of another size; name another folder")
        return archive
    archive.images.mkdir(parents=True, exist_ok=True)
    landscape = make_landscape(size, SEED)
    classifier = make_classifier(size, SEED)
    overpasses = make_overpasses(date(2023, 4, 1), date(2023, 9, 30), dates, SEED)

    def render(overpass: Overpass) -> dict[str, Any]:
        rng = np.random.default_rng((SEED, overpass.index))
        sky = make_sky(size, overpass, SEED)
        cover = landscape.cover(overpass.day)
        item = _item(archive, overpass)
        folder = archive.images / item["id"]
        folder.mkdir(exist_ok=True)
        ground = Ground.of(landscape.whole, block_mean(cover))
        _write(folder / "scl.tif", classifier.classify(sky, ground, rng), 20)
        for band in BANDS:
            seen = sky.seen_through(band, landscape.surface(band, cover))
            noisy = seen + np.float32(NOISE) * rng.standard_normal(seen.shape, dtype=np.float32)
            _write(folder / f"{band}.tif", np.clip(np.rint(noisy), 1, 20000).astype(np.uint16), 10)
        return item

    with ThreadPoolExecutor(2) as pool:
        features = list(pool.map(render, overpasses))
    (archive.root / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    marker.write_text(json.dumps(wanted))
    return archive


def _write(file: Path, pixels: NDArray[Any], resolution: int) -> None:
    with rasterio.open(
        file,
        "w",
        driver="COG",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype,
        nodata=0,
        crs=f"EPSG:{EPSG}",
        transform=from_origin(LEFT, TOP, resolution, resolution),
        compress="DEFLATE",
        level=6,
        predictor="YES" if pixels.dtype.itemsize > 1 else "NO",
        blocksize=BLOCK,
        overviews="NONE",
    ) as dataset:
        dataset.write(pixels, 1)


def _item(archive: Archive, overpass: Overpass) -> dict[str, Any]:
    left, bottom, right, top = archive.bounds
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    satellite = f"S2{overpass.platform[-1].upper()}"
    name = f"{satellite}_31UFS_{overpass.time:%Y%m%d}_0_L2A"
    assets = {band: _asset(archive, f"{name}/{band}", 10, "uint16") for band in BANDS}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": overpass.time.isoformat().replace("+00:00", "Z"),
            "platform": overpass.platform,
            "proj:epsg": EPSG,
            "grid:code": "MGRS-31UFS",
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
        },
        "links": [],
        "assets": {**assets, "scl": _asset(archive, f"{name}/scl", 20, "uint8")},
    }


def _asset(archive: Archive, path: str, resolution: int, dtype: str) -> dict[str, Any]:
    edge = archive.size * 10 // resolution
    raster = {"nodata": 0, "data_type": dtype, "spatial_resolution": resolution}
    if dtype == "uint16":
        raster |= {"scale": 0.0001, "offset": 0.0}
    name = Path(path).name
    return {
        "href": f"{path}.tif",
        "type": _COG,
        "eo:bands": [{"name": name, "common_name": name}] if name != "scl" else [],
        "proj:shape": [edge, edge],
        "proj:transform": [resolution, 0, LEFT, 0, -resolution, TOP],
        "raster:bands": [raster],
        "roles": ["data"],
    }
