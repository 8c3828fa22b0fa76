"""Small archives for the tests of a run: simulated or by hand, damaged on purpose, and compared."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import zarr
from rasterio.transform import from_origin

from lcengine.catalog import Query, search
from lcengine.composite import CompositeRequest, CompositeSpec
from lcengine.composite.tile import compute_tile
from lcengine.grid import Grid
from lcengine.items import Access, Asset, Item, Items

EPSG = 32631
LEFT, TOP = 600_000.0, 5_600_000.0
COLLECTION = "sentinel-2-l2a"


# ------------------------------------------------------------------------------------- requests


def real_plans():
    """[the season of real imagery in 16 tiles], or [] where the data are absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LCENGINE_SHARED", beside)) / "flanders-2018"
    if not folder.is_dir():
        return []
    query = Query(str(folder / "catalog.json"), (COLLECTION,), datetime="2018-04-01/2018-09-30")
    bands = ("blue", "green", "red", "nir", "swir16")
    recipe = CompositeSpec(bands, mask="worldcover", outliers="mad:3")
    return [CompositeRequest(query, recipe, tile=16).plan()]


def spec(*bands, **changes):
    """A recipe with a plain mask and no screen: its effect on one item depends on no other."""
    return CompositeSpec(
        bands or ("blue", "swir16"), **{"mask": "scl", "outliers": "none", **changes}
    )


def request(source, *bands, tile=64, allow_hosts=(), **changes):
    """A request over all of a local catalogue."""
    query = Query(str(source), (COLLECTION,))
    return CompositeRequest(query, spec(*bands, **changes), tile=tile, allow_hosts=allow_hosts)


def in_process(plan):
    """Every tile of a plan computed here: ({variable: whole array}, [ledger rows]).

    Arrays are (y, x), or (period, y, x) where the plan has periods.
    """
    shape = (*(len(plan.time_axis),) * bool(plan.time_axis), *plan.grid.shape)
    arrays = {v.name: np.full(shape, v.missing, v.dtype) for v in plan.variables()}
    failures = []
    for number in plan.reads.tiles:
        tile = plan.grid.tile_at(int(number))
        result = compute_tile(plan, int(number))
        failures += result.failures
        assert result.arrays.keys() == arrays.keys()
        for name, pixels in result.arrays.items():
            arrays[name][(..., *tile.slices)] = pixels
    return arrays, failures


def without(plan, *ids):
    """The same plan, had the catalogue never had these items."""
    from lcengine.composite import plan_composite

    kept = tuple(item for item in plan.items if item.id not in ids)
    items = replace(plan.items, items=kept)
    return plan_composite(items, plan.grid, plan.spec, interval=plan.interval)


def arrays(product):
    """The stored numbers of a product's rasters, (y, x) or (period, y, x)."""
    group = zarr.open_group(product, mode="r")
    names = group.attrs["lcengine"]["variables"]
    return {name: group[name][...] for name in names}


def tree(folder):
    """SHA-256 of every file below a folder, by relative path."""
    root = Path(folder).resolve()
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def until(condition, seconds=60.0):
    """Wait until `condition()` is true; False where it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def dies(monkeypatch, owner, name, when):
    """The first call of `owner.name` for which `when(*arguments)` finds the disk full."""
    real = getattr(owner, name)
    died = []

    def step(*arguments, **options):
        if not died and when(*arguments):
            died.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, step)


# --------------------------------------------------------------------------------------- damage


def asset_file(catalog, item, band):
    """File of a band of an item of a simulated archive."""
    return Path(catalog).parent / COLLECTION / item / f"{band}.tif"


def truncate(path):
    """What a broken download leaves: the header and half of the pixels."""
    os.truncate(path, path.stat().st_size // 2)


def corrupt(path):
    """Flipped bytes at the head of the first block's deflate stream.

    Flips further in are not all noticed: libtiff takes a stream that decodes to more than the
    block holds, whatever its checksum.
    """
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[start : start + 16] = bytes(byte ^ 0xFF for byte in data[start : start + 16])
    path.write_bytes(data)


def empty(path):
    """A zero-byte file."""
    path.write_bytes(b"")


def html(path):
    """The error page of a portal, served with status 200."""
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>\n" * 50)


def vrt(path, target="/etc/hostname"):
    """A VRT that calls itself a GeoTIFF and reads another file."""
    source = f"<SimpleSource><SourceFilename>{target}</SourceFilename></SimpleSource>"
    path.write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1">'
        f"{source}</VRTRasterBand></VRTDataset>"
    )


def missing(path):
    """No file at all."""
    path.unlink()


DAMAGE = {f.__name__: f for f in (truncate, corrupt, empty, html, vrt, missing)}


def copied(world, folder):
    """A copy of a simulated archive that a test may damage; its catalogue."""
    shutil.copytree(world.path, folder)
    return Path(folder) / "catalog.json"


def items_with(catalog, band, href):
    """The items of an archive, but one, whose band lies at `href`; (items, that item's id)."""
    items = search(str(catalog))
    first = items[0]
    asset = replace(first.assets[band], href=href)
    changed = replace(first, assets={**first.assets, band: asset})
    return replace(items, items=(changed, *items[1:])), first.id


# -------------------------------------------------------------------------------- hand-made items


def raster(path, pixels, resolution=10.0, *, epsg=EPSG, corner=(LEFT, TOP), **profile):
    """Write a tiled GeoTIFF; the `Asset` of it, with scale 1e-4 and offset 0."""
    height, width = pixels.shape
    left, top = corner
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, **profile}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=pixels.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(left, top, resolution, resolution),
        **options,
    ) as dataset:
        dataset.write(pixels, 1)
    transform = (float(resolution), 0.0, left, 0.0, -float(resolution), top)
    return Asset(str(path), f"EPSG:{epsg}", transform, (height, width), 0.0, 1e-4, 0.0, "test")


def square(edge, tile):
    """A product grid of `edge` metres at the corner of hand-made rasters."""
    return Grid.from_bounds(LEFT, TOP - edge, LEFT + edge, TOP, f"EPSG:{EPSG}", 10.0, tile)


def item(number, assets, **changes):
    """An item of its own overpass."""
    when = dt.datetime(2023, 4, 1, 10, 30, tzinfo=dt.UTC) + dt.timedelta(days=5 * number)
    values = {
        "id": f"item-{number:02}",
        "sensor": COLLECTION,
        "collection": COLLECTION,
        "platform": "sentinel-2a",
        "datetime": when,
        "bbox": (4.4, 50.4, 4.6, 50.6),
        "tile": "31UES",
        "sensing": str(number),
        "baseline": "05.09",
        "cloud_cover": 0.0,
        "assets": assets,
    }
    return Item(**{**values, **changes})


def series(folder, count, bands, size, *, block=256):
    """`count` cloudless items of uncompressed rasters, each file under a name of its own.

    The files of one band are hard links, so that a long series costs the disk one date.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    write = partial(raster, blockxsize=block, blockysize=block, nodata=0)
    models = {}
    for band in bands:
        edge, resolution = (size // 2, 20.0) if band == "swir16" else (size, 10.0)
        pixels = rng.integers(1, 9000, (edge, edge)).astype(np.uint16)
        models[band] = write(folder / f"{band}.tif", pixels, resolution)
    classes = np.full((size // 2, size // 2), 4, np.uint8)
    models["scl"] = write(folder / "scl.tif", classes, 20.0)
    items = []
    for number in range(count):
        assets = {}
        for band, model in models.items():
            own = folder / f"{band}-{number}.tif"
            os.link(model.href, own)
            assets[band] = replace(model, href=str(own))
        items.append(item(number, assets))
    return Items(tuple(items), Access(local=True))
