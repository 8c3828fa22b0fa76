"""Simulated PlanetScope: multi-band scenes, UDM2, and what lcengine makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from lcengine.catalog import search
from lcengine.composite import composite
from lcengine.cube import load
from lcengine.grid import Grid
from lcengine.items import Items
from lcengine.simulate import LEGEND, SimulationOptions, simulate
from lcengine.simulate.dove import BANDS4, BANDS8, UDM2
from lcengine.simulate.planet import COLLECTION, jobs, make_passes
from lcengine.simulate.world import world

OPTIONS = SimulationOptions(size=96, dates=1, seed=2, bands=("red",), sensors=("planet",))
CODE = {c.name: c.code for c in LEGEND}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("planet") / "sim", OPTIONS)


@pytest.fixture(scope="module")
def items(archive):
    return search(archive.catalog, [COLLECTION])


@pytest.fixture(scope="module")
def grid(items):
    transform, (height, width) = items[0].asset("red").transform, items[0].asset("red").shape
    left, top = transform[2], transform[5]
    return Grid.from_bounds(left, top - height * 3, left + width * 3, top, 32631, 3, 128)


def read(archive, item, name):
    with rasterio.open(archive.path / COLLECTION / item.id / f"{name}.tif") as file:
        return file.read()


def scene(index=0, **weather):
    """A job of the world with another sky."""
    job = next(j for j in jobs(OPTIONS) if j.acquisition.index == index)
    changed = replace(job.acquisition.weather, **weather)
    return replace(job, acquisition=replace(job.acquisition, weather=changed))


class TestScenes:
    def test_four_and_eight_bands_and_a_mask_of_eight(self, archive, items):
        assert 10 <= len(items) <= 16
        kinds = set()
        for item in items:
            stac = json.loads((archive.path / COLLECTION / item.id / f"{item.id}.json").read_text())
            for name, asset in stac["assets"].items():
                with rasterio.open(archive.path / COLLECTION / item.id / asset["href"]) as file:
                    assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                    assert file.count == len(asset["raster:bands"]) == len(asset["eo:bands"])
                    assert file.dtypes[0] == asset["raster:bands"][0]["data_type"]
                    assert file.nodata == asset["raster:bands"][0].get("nodata")
                    assert list(file.transform)[:6] == stac["properties"]["proj:transform"][:6]
                    assert file.transform.c % 3 == file.transform.f % 3 == 0
                    assert list(file.shape) == stac["properties"]["proj:shape"]
                kinds.add((name, file.count))
        assert kinds == {
            ("ortho_analytic_4b", 4),
            ("ortho_analytic_4b_sr", 4),
            ("ortho_analytic_8b_sr", 8),
            ("ortho_udm2", 8),
        }

    def test_items_are_those_of_the_sensor(self, items):
        assert {i.sensor for i in items} == {"planetscope"}
        assert {len([b for b in i.assets if not b.startswith("udm")]) for i in items} == {4, 8}
        assert {a.contract.split(",")[0] for i in items for a in i.assets.values()} == {
            "sr",
            "categorical",
        }

    def test_top_of_atmosphere_has_a_scale_per_band(self, archive, items):
        item = next(i for i in items if len(i.assets) == 12)
        stac = json.loads((archive.path / COLLECTION / item.id / f"{item.id}.json").read_text())
        scales = [b["scale"] for b in stac["assets"]["ortho_analytic_4b"]["raster:bands"]]
        assert len(set(scales)) == 4
        surface = read(archive, item, "ortho_analytic_4b_sr") * 1e-4
        above = read(archive, item, "ortho_analytic_4b") * np.array(scales)[:, None, None]
        clear = read(archive, item, "ortho_udm2")[0] == 1
        added = (above - surface)[:, clear].mean(axis=1)
        assert added[0] > 0.03
        assert added[0] > added[1] > added[2] > added[3]

    def test_nothing_is_seen_outside_the_strip(self, archive, items):
        partial = 0
        for item in items:
            mask = read(archive, item, "ortho_udm2")
            name = f"ortho_analytic_{4 if len(item.assets) == 12 else 8}b_sr"
            unseen = (mask[7] & 1) == 1
            np.testing.assert_array_equal((read(archive, item, name) == 0).all(axis=0), unseen)
            assert (mask[:7, unseen] == 0).all()
            partial += unseen.any()
        assert 0 < partial < len(items)

    @pytest.mark.parametrize("size", [500, 2400, 4000, 8000])
    def test_all_of_a_wide_world_is_seen(self, size):
        """Half a year leaves no place out, and no third of the world far behind the others."""
        options = SimulationOptions(size=size, sensors=("planet",))
        left, bottom, right, top = bounds = world(options).landscape.bounds
        x, y = np.linspace(left, right, 101), np.linspace(bottom, top, 101)
        times = sum(p.strip.seen(x, y).astype(int) for p in make_passes(options, bounds))
        assert times.min() > 0
        thirds = [part.mean() for part in np.array_split(times, 3, axis=1)]
        assert min(thirds) > 0.6 * max(thirds)


@pytest.fixture(scope="module")
def summer():
    """Reflectance by band and land cover of a cloudless summer scene of eight bands."""
    options = SimulationOptions(size=384, seed=1, sensors=("planet",))
    job = next(j for j in jobs(options) if j.time.month == 8 and j.acquisition.bands == BANDS8)
    patch = world(options).landscape.patch(job.bounds, 3)
    return {band: job.ground(band) for band in BANDS8}, patch.landcover


class TestSpectra:
    def test_ndvi(self, summer):
        bands, landcover = summer
        ndvi = (bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"])
        expected = {
            "sugar beet": (0.7, 0.95),
            "deciduous forest": (0.75, 0.95),
            "fallow": (0.1, 0.4),
            "water": (-1.0, 0.0),
            "built-up": (0.0, 0.35),
            "snow and ice": (-0.2, 0.1),
        }
        for name, (low, high) in expected.items():
            mean = ndvi[landcover == CODE[name]].mean()
            assert low < mean < high, (name, mean)

    def test_brightness(self, summer):
        bands, landcover = summer
        visible = np.mean([bands[b] for b in ("blue", "green", "red")], axis=0)
        mean = {name: visible[landcover == code].mean() for name, code in CODE.items()}
        assert mean["water"] < 0.05
        assert mean["deciduous forest"] < 0.05
        assert 0.06 < mean["fallow"] < 0.16
        assert 0.08 < mean["built-up"] < 0.25
        assert mean["snow and ice"] > 0.6

    def test_bands_follow_the_wavelength(self, summer):
        bands, landcover = summer
        soil = landcover == CODE["fallow"]
        means = [bands[b][soil].mean() for b in BANDS8]
        assert means == sorted(means)
        green = landcover == CODE["sugar beet"]
        mean = {b: bands[b][green].mean() for b in BANDS8}
        assert mean["green"] > mean["yellow"] > mean["red"] < mean["rededge1"] < mean["nir"]


class TestUdm2:
    def test_classes_exclude_each_other(self, archive, items):
        found = np.zeros(6)
        for item in items:
            mask = read(archive, item, "ortho_udm2")
            seen = (mask[7] & 1) == 0
            assert (mask[:6, seen].sum(axis=0) == 1).all()
            assert set(np.unique(mask[:6])) <= {0, 1}
            assert mask[6].max() <= 100
            found += mask[:6].sum(axis=(1, 2))
        assert (found > 0).all(), dict(zip(UDM2, found, strict=False))

    def test_cloud_is_found_and_clear_is_clear(self):
        job = scene(cloudy=0.4, hazy=0.0)
        sky = job.sky()
        mask = job.mask(sky, np.ones_like(sky.cloud, bool))
        assert (mask[UDM2.index("cloud")][sky.cloud > 0.75] == 1).mean() > 0.99
        nothing = (sky.cloud == 0) & (sky.haze == 0) & (sky.shadow == 0)
        snow = mask[UDM2.index("snow")] == 1
        assert (mask[UDM2.index("clear")][nothing & ~snow] == 1).mean() > 0.97

    def test_a_clear_sky_shows_the_ground(self):
        job = scene(cloudy=0.0, hazy=0.0)
        sky = job.sky()
        np.testing.assert_array_equal(sky.seen_through("red", job.ground("red")), job.ground("red"))

    def test_shadows_lie_where_the_sun_does_not(self):
        job = scene(cloudy=0.3, hazy=0.0, fall=(300.0, 600.0))
        sky = job.sky()
        moved = np.roll(sky.cloud, (-200, 100), axis=(0, 1))
        inner = (slice(0, -200), slice(100, None))
        np.testing.assert_allclose(sky.shadow[inner], moved[inner], atol=1e-4)

    def test_the_composite_takes_clear_pixels_only(self, archive, items, grid):
        """Count of clear observations and their median, against the files themselves."""
        cube = load(items, grid, ["red"], mask="udm2")
        product = composite(cube, outliers="none").compute()
        values = []
        for item in items:
            name = f"ortho_analytic_{4 if len(item.assets) == 12 else 8}b_sr"
            bands = BANDS4 if len(item.assets) == 12 else BANDS8
            dn = read(archive, item, name)[bands.index("red")].astype(float)
            mask = read(archive, item, "ortho_udm2")
            clear = (mask[0] == 1) & (mask[7] == 0)
            values.append(np.where(clear, dn, np.nan))
        stack = np.array(values)
        count = np.isfinite(stack).sum(axis=0)
        np.testing.assert_array_equal(product["count"].values, count)
        some = count > 0
        expected = np.rint(np.nanmedian(stack[:, some], axis=0))
        np.testing.assert_array_equal(product["red"].values[some], expected)

    def test_lost_lines_of_green_are_bit_3(self, archive, items):
        """Planet's UDM: bit 0 blackfill, 1 cloud, then a bit for every band, the first from 2."""
        lost = 0
        for item in items:
            count = 4 if len(item.assets) == 12 else 8
            green = BANDS4.index("green") if count == 4 else BANDS8.index("green")
            dn = read(archive, item, f"ortho_analytic_{count}b_sr")[green]
            unusable = read(archive, item, "ortho_udm2")[7]
            np.testing.assert_array_equal((unusable & 0xFE) != 0, (unusable & 8) != 0)
            assert (dn[unusable == 8] < 100).all()
            lost += (unusable == 8).any()
        assert lost > 0


def test_a_multi_band_item_composites_as_its_bands_split_apart(archive, items, grid, tmp_path):
    """One file of many bands against a file for each of them."""
    split = []
    items = items[::2]
    for item in items:
        assets = {}
        for band, asset in item.assets.items():
            with rasterio.open(asset.href.removeprefix("file://")) as source:
                profile = {**source.profile, "count": 1, "driver": "GTiff"}
                profile.pop("interleave", None)
                target = tmp_path / f"{item.id}_{band}.tif"
                with rasterio.open(target, "w", **profile) as out:
                    out.write(source.read(asset.band), 1)
            assets[band] = replace(asset, href=target.as_uri(), band=1)
        split.append(replace(item, assets=assets))
    apart = Items.of(split, items.access)
    bands = ["blue", "green", "red", "nir"]
    one, other = (
        composite(load(found, grid, bands, mask="udm2"), method="median").compute()
        for found in (items, apart)
    )
    assert set(one) == set(other) >= {*bands, "count"}
    for name in one:
        np.testing.assert_array_equal(one[name].values, other[name].values)
    assert (one["count"].values > 0).mean() > 0.8
    cubes = [load(found, grid, ["nir"]) for found in (items, apart)]
    top = [composite(c, method="percentile:75", outliers="none").compute() for c in cubes]
    np.testing.assert_array_equal(top[0]["nir"].values, top[1]["nir"].values)
