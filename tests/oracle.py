"""An independent oracle of a composite: raw STAC items and whole rasters in, plain NumPy out.

Nothing here is shared with the package: files are read with rasterio, coordinates come from pyproj,
morphology from SciPy with explicit footprints, and every rounding is done in integers.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from pyproj import Transformer
from scipy import ndimage

NODATA = -32768
BRIGHTNESS = ("blue", "green", "red")


@dataclass(frozen=True)
class Product:
    """A north-up pixel grid."""

    epsg: int
    left: float
    top: float
    resolution: float
    height: int
    width: int

    @classmethod
    def of(cls, grid):
        """The same pixels as a `lcengine.Grid`."""
        t = grid.transform
        return cls(grid.epsg, t.c, t.f, t.a, *grid.shape)

    def points(self, parts=1):
        """x and y, 2-D, of the centres of each pixel's parts x parts pieces."""
        cols = (np.arange(self.width * parts) + 0.5) / parts
        rows = (np.arange(self.height * parts) + 0.5) / parts
        return np.meshgrid(self.left + cols * self.resolution, self.top - rows * self.resolution)


# ------------------------------------------------------------------------------------- catalogue


def items_below(folder):
    """The item documents of a static catalogue, their addresses made absolute paths."""
    found = []
    for file in sorted(Path(folder).glob("*/*/*.json")):
        item = json.loads(file.read_text())
        for asset in item.get("assets", {}).values():
            asset["href"] = str((file.parent / asset["href"]).resolve())
        found.append(item)
    return found


def between(items, first, last):
    """Items whose day (UTC) lies in first..last, both included, as `YYYY-MM-DD`."""
    return [i for i in items if first <= i["properties"]["datetime"][:10] <= last]


def when(item):
    return dt.datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00"))


def baseline(item):
    text = item["properties"].get("s2:processing_baseline", "")
    return tuple(int(part) for part in text.split(".")) if text else ()


def newest(items):
    """One item per platform, tile and sensing time: the newest baseline, then the least id."""
    best = {}
    for item in sorted(items, key=lambda i: i["id"]):
        properties = item["properties"]
        strip = re.search(r"_S(\d{8}T\d{6})_", properties.get("s2:datastrip_id", ""))
        sensed = strip.group(1) if strip else when(item).strftime("%Y%m%dT%H%M%S")
        scene = (properties["platform"], properties["grid:code"], sensed)
        if scene not in best or baseline(item) > baseline(best[scene]):
            best[scene] = item
    return list(best.values())


def overpasses(items, epsg):
    """Lists of items that are one observation each, in the order a pixel takes them."""
    groups = []
    for platform in sorted({i["properties"]["platform"] for i in items}):
        own = sorted((i for i in items if i["properties"]["platform"] == platform), key=when)
        for k, item in enumerate(own):
            if k == 0 or when(item) - when(own[k - 1]) >= dt.timedelta(minutes=20):
                groups.append([])
            groups[-1].append(item)

    def rank(item):
        foreign = item["properties"]["proj:epsg"] != epsg
        return foreign, [-part for part in baseline(item)] or [1], item["id"]

    return [sorted(group, key=rank) for group in groups]


def offset_of(item, band):
    """Additive offset of an asset in DN, by the catalogue's statements in their order."""
    if item["properties"].get("earthsearch:boa_offset_applied") is True:
        return 0
    raster = item["assets"][band].get("raster:bands", [{}])[0]
    if "offset" in raster:
        return int(Fraction(str(raster["offset"])) * 10000)
    return -1000 if baseline(item) >= (4, 0) else 0


# --------------------------------------------------------------------------------------- rasters


@dataclass(frozen=True)
class Raster:
    """A whole raster with its own georeference."""

    pixels: np.ndarray
    epsg: int
    left: float
    top: float
    dx: float

    def finer(self, factor):
        return Raster(
            np.kron(self.pixels, np.ones((factor, factor), self.pixels.dtype)),
            self.epsg,
            self.left,
            self.top,
            self.dx / factor,
        )

    def coordinates(self, product, parts=1):
        """Continuous (rows, columns) of the product's points, exactly inverted."""
        x, y = product.points(parts)
        if product.epsg != self.epsg:
            x, y = transformer(product.epsg, self.epsg).transform(x, y)
        return (self.top - y) / self.dx, (x - self.left) / self.dx


@lru_cache
def transformer(source, target):
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=1024)
def read(href):
    with rasterio.open(href) as dataset:
        t = dataset.transform
        return Raster(dataset.read(1), dataset.crs.to_epsg(), t.c, t.f, t.a)


def reflectance(item, band):
    """A band as int64 reflectance x 10000: 0 and 65535 are nodata, the rest clipped to int16."""
    raw = read(item["assets"][band]["href"])
    dn = raw.pixels.astype(np.int64)
    values = np.clip(dn + offset_of(item, band), -32767, 32767)
    values[(dn == 0) | (dn == 65535)] = NODATA
    return Raster(values, raw.epsg, raw.left, raw.top, raw.dx)


def nearest(raster, product, fill, parts=1):
    """The pixel that holds each point; its lower and right edge belong to the next."""
    rows, cols = (np.floor(c).astype(np.int64) for c in raster.coordinates(product, parts))
    height, width = raster.pixels.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    found = raster.pixels[np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)]
    return np.where(inside, found, fill)


def averaged(raster, product, fill):
    """Sum and number of the valid ones of k x k nearest samples, k source pixels to one."""
    k = max(1, -(-round(product.resolution * 1000) // round(raster.dx * 1000)))
    samples = nearest(raster, product, fill, parts=k)
    samples = samples.reshape(product.height, k, product.width, k).swapaxes(1, 2)
    samples = samples.reshape(product.height, product.width, k * k)
    valid = samples != fill
    return np.where(valid, samples, 0).sum(axis=-1), valid.sum(axis=-1)


def average(raster, product):
    """Mean of the valid samples, rounded half to even."""
    total, count = averaged(raster, product, NODATA)
    return np.where(count > 0, half_even(total, np.maximum(count, 1)), NODATA)


def bilinear(raster, product):
    """Weighted mean of the four pixels around, rounded half to even."""
    mean = interpolated(raster, product, NODATA)
    return np.rint(mean).astype(np.int64)


def interpolated(raster, product, fill):
    """Weighted mean of the valid ones of the four pixels around; fill where the holder is."""
    rows, cols = raster.coordinates(product)
    padded = np.pad(raster.pixels, 2, constant_values=fill)
    height, width = raster.pixels.shape
    rows, cols = np.clip(rows, -1.5, height + 1.25), np.clip(cols, -1.5, width + 1.25)
    holder = padded[np.floor(rows).astype(int) + 2, np.floor(cols).astype(int) + 2]
    top, left = np.floor(rows - 0.5).astype(int), np.floor(cols - 0.5).astype(int)
    down, right = rows - 0.5 - top, cols - 0.5 - left
    total, weights = np.zeros(rows.shape), np.zeros(rows.shape)
    for i, by_row in enumerate((1 - down, down)):
        for j, by_col in enumerate((1 - right, right)):
            value = padded[np.clip(top + i + 2, 0, None), np.clip(left + j + 2, 0, None)]
            weight = np.where(value == fill, 0.0, by_row * by_col)
            total += weight * value
            weights += weight
    with np.errstate(invalid="ignore"):
        mean = total / weights
    return np.where(holder == fill, fill, mean)


def sample_power(raster, product, resampling):
    """dB x 100 of linear power (float64, 0 where there is none), resampled as power."""
    if resampling == "bilinear":
        power = interpolated(raster, product, 0.0)
    elif resampling == "average":
        total, count = averaged(raster, product, 0.0)
        power = total / np.maximum(count, 1)
    else:
        power = nearest(raster, product, 0.0)
    known = power > 0
    return np.where(known, np.rint(1000 * np.log10(np.where(known, power, 1.0))), NODATA)


def sample(raster, product, resampling):
    if resampling == "bilinear":
        return bilinear(raster, product)
    if resampling == "average":
        return average(raster, product)
    return nearest(raster, product, NODATA)


# ----------------------------------------------------------------------------------------- masks


def disk(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def dilate(mask, footprint, times=1):
    return ndimage.binary_dilation(mask, footprint, iterations=times, border_value=0)


def erode(mask, footprint):
    return ndimage.binary_erosion(mask, footprint, border_value=1)


@dataclass(frozen=True)
class Scene:
    """What a preset says about one scene, on pixels `factor` times finer than its SCL."""

    factor: int
    masked: np.ndarray
    snow: np.ndarray
    grown_snow: np.ndarray
    non_cloud: np.ndarray


def classify(preset, scl):
    """A preset applied to a 20 m scene classification, before anything is resampled."""
    factor = 2 if preset in ("geomad", "pacific") else 1
    scl = np.kron(scl, np.ones((factor, factor), scl.dtype))
    cloud = np.isin(scl, (3, 8, 9, 10))
    never = np.zeros(scl.shape, bool)
    snow = grown = never
    if preset == "geomad":
        opened = dilate(erode(cloud, disk(2)), disk(2))
        masked = dilate(opened, disk(5))
    elif preset == "pacific":
        masked = dilate(erode(cloud | (scl == 1), disk(3)), disk(6))
    elif preset == "worldcover":
        masked = dilate(erode(cloud, disk(3)), disk(13)) | (scl == 1)
        snow = scl == 11
        grown = dilate(snow, disk(3))
    elif preset == "s2mosaic":
        masked = np.isin(scl, (1, 2, 3, 7, 8, 9, 10)) | dilate(scl == 0, CROSS, times=4)
    elif preset == "scl":
        masked = cloud | (scl == 1)
    else:
        raise ValueError(preset)
    return Scene(factor, masked | (scl == 0), snow, grown, (scl != 0) & ~cloud)


def persistent_snow(snow, non_cloud, groups):
    """Where snow is more than 0.9 of the non-cloud observations; (item, y, x) bool arrays."""
    snowy = np.zeros(snow.shape[1:], np.int64)
    seen = np.zeros(snow.shape[1:], np.int64)
    for group in groups:
        taken = np.zeros(seen.shape, bool)
        for i in group:
            take = non_cloud[i] & ~taken
            snowy += take & snow[i]
            taken |= take
        seen += taken
    return 10 * snowy > 9 * seen


def clear_masks(groups, product, preset):
    """Clear pixels (item, y, x) on the product, items in the order of the groups."""
    members = [item for group in groups for item in group]
    if preset == "none":
        return np.ones((len(members), product.height, product.width), bool)
    placed = {name: [] for name in ("masked", "snow", "grown_snow", "non_cloud")}
    for item in members:
        scl = read(item["assets"]["scl"]["href"])
        scene = classify(preset, scl.pixels)
        fine = scl.finer(scene.factor)
        for name, layers in placed.items():
            layer = Raster(getattr(scene, name), fine.epsg, fine.left, fine.top, fine.dx)
            layers.append(nearest(layer, product, name == "masked"))
    stack = {name: np.array(layers) for name, layers in placed.items()}
    keep = persistent_snow(stack["snow"], stack["non_cloud"], numbered(groups))
    return ~stack["masked"] & (~stack["grown_snow"] | keep)


def numbered(groups):
    """The groups with each member replaced by its place in the flat order."""
    count = iter(range(sum(map(len, groups))))
    return [[next(count) for _ in group] for group in groups]


# ------------------------------------------------------------------------------------- reduction


def half_even(numerator, denominator):
    """Integer nearest to numerator / denominator (> 0), ties to even."""
    quotient, rest = np.divmod(numerator, denominator)
    up = (2 * rest > denominator) | ((2 * rest == denominator) & (quotient % 2 == 1))
    return quotient + up


def ordered(values, valid):
    """Ascending along axis 0 with the valid values first, and how many they are."""
    return np.sort(np.where(valid, values, 2**40), axis=0), valid.sum(axis=0)


def at(ranked, index):
    return np.take_along_axis(ranked, np.clip(index, 0, len(ranked) - 1)[None], axis=0)[0]


def twice_median(values, valid):
    ranked, n = ordered(values, valid)
    return at(ranked, (n - 1) // 2) + at(ranked, n // 2)


def mad_outliers(index, valid, k):
    """Where 0.6745 |x - median| / max(MAD, 450) > k among at least five observations, exactly."""
    distance = np.abs(2 * index - twice_median(index, valid))  # 2 |x - m|
    spread = np.maximum(twice_median(distance, valid), 4 * 450)  # 4 MAD
    k = Fraction(str(k))
    beyond = 6745 * 2 * distance * k.denominator > 10000 * spread * k.numerator
    return valid & beyond & (valid.sum(axis=0) >= 5)


def reduce(values, valid, method):
    """One band's observations (time, y, x) to one int64 image; nodata where there is none."""
    ranked, n = ordered(values, valid)
    name, *rest = method.split(":")
    if name == "mean":
        result = half_even(np.where(valid, values, 0).sum(axis=0), np.maximum(n, 1))
    elif name == "median":
        result = half_even(twice_median(values, valid), np.full(n.shape, 2))
    else:
        percent = Fraction(rest[0])
        top, bottom = percent.numerator, 100 * percent.denominator
        place = np.maximum(n - 1, 0) * top
        if rest[1:] == ["nearest"]:
            result = at(ranked, (2 * place + bottom) // (2 * bottom))
        else:
            low, part = np.divmod(place, bottom)
            a, b = at(ranked, low), at(ranked, np.minimum(low + 1, np.maximum(n - 1, 0)))
            result = half_even(a * (bottom - part) + b * part, np.full(n.shape, bottom))
    return np.where(n > 0, result, NODATA)


def first_clear(values, valid, groups):
    """Observations (group, band, y, x) and where they are: the first valid member of each group."""
    shape = (len(groups), *values.shape[1:])
    taken = np.full(shape, NODATA, values.dtype)
    found = np.zeros((len(groups), *valid.shape[1:]), bool)
    for g, group in enumerate(numbered(groups)):
        for i in group:
            take = valid[i] & ~found[g]
            taken[g] = np.where(take, values[i], taken[g])
            found[g] |= take
    return taken, found


@dataclass(frozen=True)
class Observed:
    """Observations: values int64 (observation, band, y, x), valid bool (observation, y, x)."""

    values: np.ndarray
    valid: np.ndarray
    bands: list
    groups: list  # of raw items, by observation

    def began(self):
        """When each observation began."""
        return [min(map(when, group)) for group in self.groups]

    def only(self, chosen):
        """Some of the observations, by position."""
        chosen = np.array(chosen, int)
        groups = [self.groups[g] for g in chosen]
        return Observed(self.values[chosen], self.valid[chosen], self.bands, groups)

    def band(self, name):
        return self.values[:, self.bands.index(name)]


def observe(items, product, bands, *, mask="none", resampling="nearest", inside=None):
    """The observations of STAC items in order of time, valid where all `bands` are."""
    groups = sorted(overpasses(newest(items), product.epsg), key=lambda g: min(map(when, g)))
    members = [item for group in groups for item in group]
    values = np.array(
        [
            [sample(reflectance(item, band), product, resampling) for band in bands]
            for item in members
        ]
    )
    valid = clear_masks(groups, product, mask) & (values != NODATA).all(axis=1)
    if inside is not None:
        valid &= inside
    return Observed(*first_clear(values, valid, groups), list(bands), groups)


def summarise(observed, bands, *, mad=None, method="median"):
    """Screen and reduce observations: int16 bands, uint16 `count` and `outliers`, all (y, x)."""
    valid = observed.valid
    outliers = np.zeros(valid.shape, bool)
    if mad is not None and len(valid):
        brightness = sum(observed.band(band) for band in BRIGHTNESS)
        outliers = mad_outliers(brightness, valid, mad)
    kept = valid & ~outliers
    result = {}
    for band in bands:
        empty = np.full(valid.shape[1:], NODATA)
        image = reduce(observed.band(band), kept, method) if len(valid) else empty
        result[band] = image.astype(np.int16)
    result["count"] = kept.sum(axis=0).astype(np.uint16)
    result["outliers"] = outliers.sum(axis=0).astype(np.uint16)
    return result


def composite(
    items,
    product,
    bands,
    *,
    mask="none",
    mad=None,
    method="median",
    resampling="nearest",
    inside=None,
):
    """The composite of STAC items: int16 bands, uint16 `count` and `outliers`, all (y, x).

    `mad`: k of the outlier screen on blue + green + red. `inside`: pixels of the area of interest.
    """
    read_bands = list(dict.fromkeys([*bands, *(BRIGHTNESS if mad is not None else ())]))
    options = {"mask": mask, "resampling": resampling, "inside": inside}
    observed = observe(items, product, read_bands, **options)
    return summarise(observed, bands, mad=mad, method=method)
