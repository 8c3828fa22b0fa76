"""A small archive that is as unpleasant as a real one: random values, every class, two UTM zones.

Unlike the simulated world it means nothing: it has saturated, missing and negative pixels, snow
that stays, granules that overlap in one zone and across zones, overpasses of two satellites minutes
apart, a scene processed twice, and every way of stating the offset.
"""

from __future__ import annotations

import datetime as dt
import json

import archives
import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.transform import from_origin
from scipy import ndimage

LEFT, TOP = 700_000, 5_640_000
"""A corner near 5.85 E, 50.9 N, where UTM zones 31 and 32 meet."""
BANDS = {"blue": 10, "green": 10, "red": 10, "swir16": 20}
SIZE = 96
"""Edge of a granule in 10 m pixels."""

# time, platform, baseline, offset stated by the asset (None: silent), offset applied to the files
PASSES = (
    ("2023-05-01T10:30:00Z", "sentinel-2a", "05.09", -0.1, None),
    ("2023-05-01T10:40:00Z", "sentinel-2b", "05.09", -0.1, None),
    ("2023-05-06T10:30:00Z", "sentinel-2a", "02.12", 0, None),
    ("2023-05-11T10:30:00Z", "sentinel-2a", "05.11", -0.1, True),
    ("2023-05-16T10:30:00Z", "sentinel-2b", "04.00", None, None),
    ("2023-05-21T10:30:00Z", "sentinel-2b", "03.01", None, None),
    ("2023-05-26T10:30:00Z", "sentinel-2a", "05.09", -0.1, None),
)


def blobs(rng, shape, coarse=4):
    """uint8 classes 0..11 in patches, class 0 rare."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), coarse, mode="wrap")
    rank = field.ravel().argsort().argsort().reshape(shape) / field.size
    order = np.array([0, 4, 8, 3, 5, 4, 9, 10, 11, 5, 4, 2, 1, 7, 6, 5, 4])
    return order[(rank * len(order)).astype(int)].astype(np.uint8)


def granules():
    """(tile, EPSG, left, top) of three granules around one corner, on the 20 m lattice."""
    x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(LEFT + 300, TOP - 100)
    return (
        ("31UFS", 32631, LEFT, TOP),
        ("31UGS", 32631, LEFT + 560, TOP - 140),
        ("32UKB", 32632, round(x / 20) * 20, round(y / 20) * 20),
    )


def series(times):
    """Passes at these times (`2023-05-01T10:30:00Z`), in all the variety of `PASSES`."""
    return tuple((time, *PASSES[n % len(PASSES)][1:]) for n, time in enumerate(times))


def write(root, seed=0, passes=PASSES, bands=BANDS):
    """Write the archive below `root` as a static catalogue; its `catalog.json`.

    The three granules of a pass are five seconds apart.
    """
    rng = np.random.default_rng(seed)
    links = []
    for number, acquisition in enumerate(passes):
        for place, granule in enumerate(granules()):
            item = _item(rng, root, acquisition, granule, (number, place), bands)
            links.append(f"./{item['id']}/{item['id']}.json")
    again = list(passes[2])
    again[2:4] = "05.10", -0.1  # the same acquisition, reprocessed
    item = _item(rng, root, again, granules()[0], (len(passes), 0), bands)
    links.append(f"./{item['id']}/{item['id']}.json")
    collection = {
        "type": "Collection",
        "id": "sentinel-2-l2a",
        "stac_version": "1.0.0",
        "description": "rough",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[5.8, 50.8, 5.9, 50.9]]},
            "temporal": {"interval": [[passes[0][0], passes[-1][0]]]},
        },
        "links": [{"rel": "item", "href": href, "type": "application/geo+json"} for href in links],
    }
    (root / "sentinel-2-l2a" / "collection.json").write_text(json.dumps(collection))
    catalog = {
        "type": "Catalog",
        "id": "rough",
        "stac_version": "1.0.0",
        "description": "rough",
        "links": [{"rel": "child", "href": "./sentinel-2-l2a/collection.json"}],
    }
    (root / "catalog.json").write_text(json.dumps(catalog))
    return root / "catalog.json"


def _item(rng, root, acquisition, granule, number, bands):
    time, platform, baseline, offset, applied = acquisition
    tile, epsg, left, top = granule
    began = dt.datetime.fromisoformat(time.replace("Z", "+00:00"))
    time = (began + dt.timedelta(seconds=5 * number[1])).isoformat().replace("+00:00", "Z")
    item_id = f"{platform}_{tile}_{number[0]}"
    folder = root / "sentinel-2-l2a" / item_id
    folder.mkdir(parents=True)
    assets = {}
    for band, resolution in bands.items():
        n = SIZE * 10 // resolution
        assets[band] = _asset(folder, band, _digital_numbers(rng, n), granule, resolution)
        raster = {"nodata": 0, "scale": 0.0001}
        if offset is not None:
            raster["offset"] = offset
        assets[band]["raster:bands"] = [raster]
    classes = blobs(rng, (SIZE // 2, SIZE // 2))
    y, x = (np.arange(0, 960, 20) + v for v in (TOP - top, left - LEFT))
    if epsg == 32631:  # ground that is nearly always white
        classes[np.ix_((y % 500) < 160, (x % 500) < 200)] = 11 if rng.random() < 0.95 else 4
    assets["scl"] = _asset(folder, "scl", classes, granule, 20)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    box = to_degrees.transform_bounds(left, top - SIZE * 10, left + SIZE * 10, top)
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    strip = acquisition[0].translate(str.maketrans("", "", "-:Z"))
    properties = {
        "datetime": time,
        "platform": platform,
        "proj:epsg": epsg,
        "grid:code": f"MGRS-{tile}",
        "s2:processing_baseline": baseline,
        "s2:datastrip_id": f"S2_OPER_MSI_L2A_DS_TEST_{strip}_S{strip}_N{baseline}",
    }
    if applied is not None:
        properties["earthsearch:boa_offset_applied"] = applied
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": properties,
        "links": [],
        "assets": assets,
    }
    (folder / f"{item_id}.json").write_text(json.dumps(item))
    return item


def _digital_numbers(rng, n):
    dn = rng.integers(1, 3000, (n, n)) + rng.integers(0, 2000)
    special = rng.random((n, n))
    for threshold, value in ((0.004, 65535), (0.008, 65534), (0.012, 1), (0.03, 0)):
        dn[special < threshold] = value
        special[special < threshold] = 1
    return dn.astype(np.uint16)


def _asset(folder, name, pixels, granule, resolution):
    _, epsg, left, top = granule
    height, width = pixels.shape
    with rasterio.open(
        folder / f"{name}.tif",
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=pixels.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(left, top, resolution, resolution),
        tiled=True,
        blockxsize=32,
        blockysize=32,
        compress="deflate",
    ) as dataset:
        dataset.write(pixels, 1)
    return {
        "href": f"./{name}.tif",
        "type": "image/tiff; application=geotiff",
        "proj:shape": [height, width],
        "proj:transform": [resolution, 0, left, 0, -resolution, top],
    }


def assemble(plan):
    """A product's variables from its tiles, computed one after the other in this process."""
    arrays, failures = archives.in_process(plan)
    assert not failures
    return arrays


def differing(got, want):
    """How many pixels differ, by variable of `want`; dtypes and shapes must agree, NaN is NaN."""
    different = {}
    for name, pixels in want.items():
        found = np.asarray(got[name])
        assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape), name
        if not np.array_equal(found, pixels, equal_nan=pixels.dtype.kind == "f"):
            different[name] = int((found != pixels).sum())
    return different
