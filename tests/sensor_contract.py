"""What every sensor passes: its item's JSON → Items → cube → mask → composite.

A subclass of `SensorContract` states its `case`: a STAC item as a provider gives it and what is in
its files. The files are written here, on the item's own grid, and expected pixels are computed from
the JSON's own scale and offset in exact fractions.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
from dataclasses import dataclass, field
from fractions import Fraction

import archives
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import lcengine
from lcengine.catalog import search
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.grid import Grid
from lcengine.items import Items
from lcengine.sensors import sensor
from lcengine.sensors.base import QUANTITIES

NODATA = -32768
SIZE = 32
DATES = 3
CLOUDY, HOLED = 1, 2
"""The date that is all cloud to the mask, and the one whose left half was never seen."""


@dataclass(frozen=True)
class Layer:
    """Where the JSON has a band: asset key, band of the file; what it is where the JSON is silent.

    `values`: (least, most) stored value of pixels; of a mask: (of land, of cloud).
    """

    key: str
    values: tuple[float, float]
    band: int = 1
    scale: str = "1"
    offset: str = "0"
    nodata: float | None = 0
    dtype: str = "uint16"


@dataclass(frozen=True)
class Case:
    """One provider's layout of one sensor.

    `layers`: default bands of the sensor by canonical name; `masks`: the bands of its mask.
    `corner`: (row, column) of the pixels of the default bands that are written. `override`: scale
    or offset that counts although the JSON states another.
    """

    sensor: str
    stac: dict
    layers: dict[str, Layer]
    masks: dict[str, Layer] = field(default_factory=dict)
    corner: tuple[int, int] = (1024, 2048)
    unit: str = "reflectance"
    override: dict[str, str] = field(default_factory=dict)

    def stated(self, layer):
        """(scale, offset, nodata) as the JSON states them, numbers as texts."""
        asset = self.stac["assets"][layer.key]
        entries = asset.get("raster:bands") or asset.get("bands") or []
        entry = entries[layer.band - 1] if entries else {}
        found = []
        for name, default in (("scale", layer.scale), ("offset", layer.offset), ("nodata", None)):
            places = (entry.get(name), asset.get(f"raster:{name}"), asset.get(name))
            value = next((v for v in places if v is not None), None)
            found.append(default if value is None else str(value))
        scale, offset, nodata = found
        nodata = layer.nodata if nodata is None else float(nodata)
        return self.override.get("scale", scale), self.override.get("offset", offset), nodata

    def grid(self, key):
        """(CRS, transform, shape) of an asset as the JSON states them."""
        holders = (self.stac["assets"][key], self.stac["properties"])

        def of(*names):
            return next(h[name] for h in holders for name in names if h.get(name))

        crs = str(of("proj:code", "proj:epsg")).removeprefix("EPSG:")
        transform = tuple(map(float, of("proj:transform")[:6]))
        return f"EPSG:{crs}", transform, tuple(of("proj:shape"))


class SensorContract:
    """The tests; `case` is a fixture of the subclass."""

    @pytest.fixture
    def written(self, case, tmp_path):
        """(items file, {(date, band): stored values}) of three dates."""
        rng = np.random.default_rng(5)
        values = {}
        stacs = []
        for date in range(DATES):
            stac = redated(case.stac, date)
            stored = {}
            for name, layer in (case.layers | case.masks).items():
                pixels = self.pixels(case, name, layer, date, rng)
                stored.setdefault(layer.key, []).append((layer, pixels))
                values[date, name] = pixels
            for key, layers in stored.items():
                path = tmp_path / f"{date}-{len(stacs)}-{key}.tif"
                self.write(case, key, layers, path)
                stac["assets"][key]["href"] = path.name
            stacs.append(stac)
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": stacs}))
        return path, values

    def pixels(self, case, name, layer, date, rng):
        """Stored values of one band of one date in the window."""
        if name in case.masks:
            land, cloud = layer.values
            size = round(SIZE * self.spacing(case) / case.grid(layer.key)[1][0])
            return np.full((size, size), cloud if date == CLOUDY else land).astype(layer.dtype)
        pixels = rng.uniform(*layer.values, (SIZE, SIZE)).astype(layer.dtype)
        if date == HOLED:
            pixels[:, : SIZE // 2] = case.stated(layer)[2]
        return pixels

    def spacing(self, case):
        """Pixel size of the default bands."""
        return case.grid(next(iter(case.layers.values())).key)[1][0]

    def write(self, case, key, layers, path):
        """A file of an asset: as large as stated, sparse but for the window."""
        crs, transform, (height, width) = case.grid(key)
        ratio = self.spacing(case) / transform[0]
        row, column = (round(n * ratio) for n in case.corner)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=max(layer.band for layer, _ in layers),
            dtype=layers[0][1].dtype,
            crs=crs,
            transform=Affine(*transform),
            tiled=True,
            blockxsize=256,
            blockysize=256,
            sparse_ok=True,
        ) as dataset:
            for layer, pixels in layers:
                size = pixels.shape[0]
                window = rasterio.windows.Window(column, row, size, size)
                dataset.write(pixels, layer.band, window=window)

    def product(self, case):
        """The grid of exactly the window."""
        crs, (dx, _, left, _, dy, top), _ = case.grid(next(iter(case.layers.values())).key)
        row, column = case.corner
        west, north = left + column * dx, top + row * dy
        anchor = sensor(case.sensor).anchor
        bounds = (west, north - SIZE * dx, west + SIZE * dx, north)
        grid = Grid.from_bounds(*bounds, crs, dx, 16, anchor)
        assert grid.shape == (SIZE, SIZE)
        assert grid.bounds == bounds
        return grid

    def canonical(self, case, layer, stored):
        """int16 pixels of stored values, in exact fractions."""
        scale, offset, nodata = case.stated(layer)
        scale, offset = Fraction(scale), Fraction(offset)
        out = np.full(stored.shape, NODATA, np.int16)
        for place, value in np.ndenumerate(stored):
            if value == nodata:
                continue
            quantity = Fraction(float(value)) * scale + offset
            if case.unit == "power":
                out[place] = round(1000 * float(np.log10(float(quantity))))
            else:
                factor = {"decibel": 100, "reflectance": 10000, "number": 1}[case.unit]
                out[place] = round(quantity * factor)
        return out

    def median(self, case, pixels, clear):
        """Per pixel the median of at most three dates, in linear power where it is dB."""
        _, height, width = pixels.shape
        out = np.full((height, width), NODATA, np.int16)
        for y, x in np.ndindex(height, width):
            kept = sorted(int(v) for v in pixels[clear[:, y, x], y, x] if v != NODATA)
            if not kept:
                continue
            low, high = kept[(len(kept) - 1) // 2], kept[len(kept) // 2]
            if case.unit in ("power", "decibel") and low != high:
                mean = (10 ** (low / 1000) + 10 ** (high / 1000)) / 2
                out[y, x] = round(1000 * float(np.log10(mean)))
            else:
                out[y, x] = round(Fraction(low + high, 2))
        return out

    def expected(self, case, values):
        """({band: (date, y, x) pixels}, (date, y, x) clear)."""
        pixels = {
            name: np.stack(
                [self.canonical(case, layer, values[date, name]) for date in range(DATES)]
            )
            for name, layer in case.layers.items()
        }
        clear = np.ones((DATES, SIZE, SIZE), bool)
        clear[CLOUDY] = not case.masks
        return pixels, clear

    # ------------------------------------------------------------------------------ the tests

    def test_the_case_is_of_the_defaults(self, case):
        found = sensor(case.sensor)
        assert tuple(case.layers) == found.default_bands
        recipe = lcengine.masks.preset(found.mask)
        assert set(case.masks) >= set(recipe.bands if recipe else ())

    def test_items_are_what_the_json_says(self, case, written):
        items = search(written[0])
        assert len(items) == DATES
        for item in items:
            assert (item.sensor, item.collection) == (
                case.sensor,
                case.stac.get("collection", case.sensor),
            )
            for name, layer in (case.layers | case.masks).items():
                asset = item.asset(name)
                assert (asset.crs, asset.transform, asset.shape) == case.grid(layer.key)
                assert asset.band == layer.band
                if name in case.layers:
                    scale, offset, nodata = case.stated(layer)
                    assert (asset.scale, asset.offset) == (float(scale), float(offset))
                    assert (asset.nodata, asset.unit) == (nodata, case.unit)

    @pytest.mark.parametrize("name", ["items.json", "items.parquet"])
    def test_items_survive_saving(self, written, tmp_path, name):
        items = search(written[0])
        items.save(tmp_path / name)
        assert Items.load(tmp_path / name) == items
        assert search(tmp_path / name) == items

    def test_cube_and_mask(self, case, written):
        items, found = search(written[0]), sensor(case.sensor)
        pixels, clear = self.expected(case, written[1])
        cube = lcengine.load(
            items, self.product(case), list(found.default_bands), mask=found.mask
        ).compute()
        quantity = QUANTITIES[found.kind_of(found.default_bands)]
        assert (cube.attrs["scale_factor"], cube.attrs["units"]) == (quantity.scale, quantity.units)
        for name, wanted in pixels.items():
            assert np.array_equal(cube.sel(band=name), wanted), name
        if case.masks:
            assert np.array_equal(cube.sel(band="clear") == 1, clear)

    def test_composite(self, case, written):
        items, found = search(written[0]), sensor(case.sensor)
        grid = self.product(case)
        pixels, clear = self.expected(case, written[1])
        plan = plan_composite(items, grid, CompositeSpec())
        assert (plan.spec.mask, plan.spec.outliers) == (found.mask, found.outliers)
        arrays, failures = archives.in_process(plan)
        assert failures == []
        for name, wanted in pixels.items():
            assert np.array_equal(arrays[name], self.median(case, wanted, clear)), name
        valid = np.logical_and.reduce([wanted != NODATA for wanted in pixels.values()])
        assert np.array_equal(arrays["count"], (valid & clear).sum(axis=0))
        cube = lcengine.load(items, grid, list(found.default_bands), mask=found.mask)
        eager = lcengine.composite(cube).compute()
        for name in (*pixels, "count"):
            assert np.array_equal(eager[name], arrays[name]), name


def redated(stac, number):
    """A copy that is another acquisition, some days later."""
    changed = copy.deepcopy(stac)
    properties = changed["properties"]
    when = dt.datetime(2024, 6, 1, 10, 50, tzinfo=dt.UTC) + dt.timedelta(days=12 * number)
    properties["datetime"] = when.isoformat()
    for name in ("start_datetime", "end_datetime", "s2:datastrip_id", "eopf:datastrip_id"):
        properties.pop(name, None)
    changed["id"] = f"date-{number}"
    return changed
