from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pystac
import pystac_client
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from shapely.geometry import Polygon, box, shape

from lcengine import store
from lcengine.classmap import read_legend
from lcengine.cluster import connect
from lcengine.errors import InputError, LcengineError
from lcengine.simulate import (
    FileServer,
    SimulationOptions,
    StacServer,
    demo,
    items_collection,
    serve,
    simulate,
)
from lcengine.simulate.clouds import ACCURACY, Ground, make_classifier, make_sky
from lcengine.simulate.covers import CODE
from lcengine.simulate.landscape import block_mean, make_landscape
from lcengine.simulate.scenes import jobs as scene_jobs
from lcengine.simulate.sentinel2 import Mosaic, make_granules
from lcengine.simulate.streams import Stream, generator

OPTIONS = SimulationOptions(size=256, dates=10, seed=5, bands=("blue", "red", "nir", "swir16"))
NOISE = 8.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("world") / "sim", OPTIONS)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def item_of(world, item_id):
    return json.loads((world.path / "sentinel-2-l2a" / item_id / f"{item_id}.json").read_text())


def asset(world, item_id, name):
    return read(world.path / "sentinel-2-l2a" / item_id / f"{name}.tif")


def reflectance(world, item_id, band):
    """Reflectance × 10000 as the contract of the catalogue says, NaN where there is no data."""
    item = item_of(world, item_id)
    offset = item["assets"][band]["raster:bands"][0]["offset"]
    if item["properties"].get("earthsearch:boa_offset_applied"):
        offset = 0.0
    dn = asset(world, item_id, band)
    return np.where(dn == 0, np.nan, dn + np.rint(offset * 10000))


def transform(outline, project):
    return Polygon(np.column_stack(project.transform(*np.array(outline.exterior.coords).T)))


def digest(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def pairs(world):
    """Overpass, western item id, eastern item id."""
    ids = world.item_ids
    return zip(world.options.overpasses(), ids[0::2], ids[1::2], strict=True)


class TestDeterminism:
    small = SimulationOptions(size=96, dates=4, seed=11, bands=("red", "nir08"))

    def test_same_files_whatever_the_threads(self, tmp_path):
        one = simulate(tmp_path / "one", self.small, threads=1)
        four = simulate(tmp_path / "four", self.small, threads=4)
        assert digest(one.path) == digest(four.path)

    @pytest.mark.slow
    def test_same_files_on_a_cluster(self, tmp_path):
        options = replace(self.small, size=600, dates=2, bands=("swir16",), second_zone=True)
        alone = simulate(tmp_path / "alone", options, threads=1)
        with connect("local:workers=2,threads=1") as client:
            spread = simulate(tmp_path / "spread", options, client=client)
        assert digest(spread.path) == digest(alone.path)
        assert spread.item_ids == alone.item_ids
        assert not (spread.truth / "parts").exists()
        landscape = make_landscape(options.size, options.seed)
        surfaces = [
            landscape.surface("swir16", landscape.cover(o.day)) for o in options.overpasses()
        ]
        expected = (
            np.rint(np.median(np.array(surfaces, dtype=float), axis=0)).repeat(2, 0).repeat(2, 1)
        )
        np.testing.assert_array_equal(read(spread.truth / "swir16.tif"), expected)
        np.testing.assert_array_equal(read(spread.truth / "landcover.tif"), landscape.landcover)

    def test_a_second_run_replaces_the_first(self, tmp_path):
        simulate(tmp_path / "a", replace(self.small, seed=12, dates=6))
        with pytest.raises(InputError, match=r"another simulation .*seed was 12, now"):
            simulate(tmp_path / "a", self.small)
        again = simulate(tmp_path / "a", self.small, restart=True)
        fresh = simulate(tmp_path / "b", self.small)
        assert digest(again.path) == digest(fresh.path)

    def test_the_seed_matters(self, tmp_path):
        one = simulate(tmp_path / "one", self.small)
        other = simulate(tmp_path / "other", replace(self.small, seed=12))
        assert (read(one.truth / "red.tif") != read(other.truth / "red.tif")).mean() > 0.5


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"size": 62}, "size 62"),
            ({"size": 65}, "even"),
            ({"dates": 0}, "at least 1"),
            ({"seed": -1}, "seed -1"),
            ({"bands": ("red", "b4")}, "red,b4"),
            ({"bands": ("red", "red")}, "different"),
            ({"bands": ()}, "none"),
            ({"sensors": ("s2", "s9")}, "s2,s9"),
            ({"sensors": ()}, "none"),
            ({"sensors": ("s2", "s2")}, "different"),
            ({"sensors": ("s1", "planet"), "second_zone": True}, "add s2"),
            ({"size": 40_002}, "from 64 to 40000"),
            ({"period": "2023-04"}, "two days"),
            ({"period": "2023-09-30/2023-04-01"}, "swap"),
            ({"period": "2023-04-01/2023-04-05", "dates": 6}, "do not fit"),
        ],
    )
    def test_unusable(self, change, words):
        with pytest.raises(InputError, match=words):
            SimulationOptions(**change)

    def test_refuses_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("do not delete")
        with pytest.raises(InputError, match="not empty"):
            simulate(tmp_path, OPTIONS)
        with pytest.raises(InputError, match="is a file"):
            simulate(tmp_path / "thesis.txt", OPTIONS)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    def test_one_date(self, tmp_path):
        options = SimulationOptions(size=64, dates=1, bands=("red",))
        assert len(simulate(tmp_path / "sim", options).item_ids) == 2


class TestImages:
    def test_all_kinds_of_processing_decode_to_the_same_reflectance(self, world):
        landscape = make_landscape(OPTIONS.size, OPTIONS.seed)
        granules = make_granules(Mosaic(OPTIONS.size), second_zone=False)
        kinds = set()
        for overpass, *ids in pairs(world):
            sky = make_sky(OPTIONS.size, overpass, OPTIONS.seed)
            cover = landscape.cover(overpass.day)
            kinds.add((overpass.processing.added, overpass.processing.offset))
            for band, resolution in (("red", 10), ("swir16", 20)):
                expected = sky.seen_through(band, landscape.surface(band, cover))
                for item_id, granule in zip(ids, granules, strict=True):
                    row, col, height, width = (n * 20 // resolution for n in granule.block)
                    part = expected[row : row + height, col : col + width]
                    error = reflectance(world, item_id, band) - granule.sample(part, resolution)
                    assert abs(np.nanmean(error)) < 0.5
                    assert np.nanmax(np.abs(error)) < 6 * NOISE + 1
        assert kinds == {(0, 0.0), (1000, -0.1), (0, -0.1)}

    def test_baselines_do_not_follow_the_date(self, world):
        baselines = [o.processing.baseline for o in OPTIONS.overpasses()]
        assert baselines != sorted(baselines)
        assert baselines != sorted(baselines, reverse=True)

    def test_granules_agree_where_they_overlap(self, world):
        for _, west, east in pairs(world):
            a, b = reflectance(world, west, "red"), reflectance(world, east, "red")
            left = item_of(world, west)["properties"]["proj:bbox"][2]
            width = (left - item_of(world, east)["properties"]["proj:bbox"][0]) // 10
            assert width == 24
            difference = a[:, -width:] - b[:, :width]
            np.testing.assert_array_equal(np.isnan(a[:, -width:]), np.isnan(b[:, :width]))
            assert 0 < np.nanstd(difference) < 1.6 * NOISE

    def test_files_are_cogs_on_even_20_m(self, world):
        for item_id in world.item_ids[:2]:
            for name in (*OPTIONS.bands, "scl"):
                with rasterio.open(
                    world.path / "sentinel-2-l2a" / item_id / f"{name}.tif"
                ) as dataset:
                    assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                    assert dataset.nodata == 0
                    assert dataset.dtypes == ("uint8" if name == "scl" else "uint16",)
                    assert dataset.res[0] == (10 if name in ("blue", "red", "nir") else 20)
                    assert dataset.transform.c % 20 == dataset.transform.f % 20 == 0

    def test_swath_edges(self, world):
        cut = 0
        for overpass, *ids in pairs(world):
            for item_id in ids:
                item = item_of(world, item_id)
                empty = asset(world, item_id, "scl") == 0
                np.testing.assert_array_equal(empty, asset(world, item_id, "swir16") == 0)
                replicated = empty.repeat(2, axis=0).repeat(2, axis=1)
                np.testing.assert_array_equal(replicated, asset(world, item_id, "red") == 0)
                assert not empty.all()
                assert empty.any() <= (overpass.swath is not None)
                cut += empty.any()
                share = item["properties"]["s2:nodata_pixel_percentage"]
                assert share == pytest.approx(empty.mean() * 100, abs=1e-3)
                project = Transformer.from_crs(4326, 32631, always_xy=True)
                seen = transform(shape(item["geometry"]), project)
                whole = box(*item["properties"]["proj:bbox"])
                assert 1 - seen.area / whole.area == pytest.approx(empty.mean(), abs=0.02)
        assert cut > 0


class TestSky:
    def test_some_dates_are_clear_and_some_overcast(self, world):
        cloudy = [item_of(world, i)["properties"]["eo:cloud_cover"] for i in world.item_ids]
        assert min(cloudy) < 5
        assert max(cloudy) > 95
        assert sum(20 < c < 80 for c in cloudy) >= 4

    def test_scene_classification_covers_the_same_ground(self, world):
        truth = np.concatenate(
            [read(world.truth / "cloud" / f"{i}.tif").ravel() for i in world.item_ids]
        )
        scl = np.concatenate([asset(world, i, "scl").ravel() for i in world.item_ids])
        np.testing.assert_array_equal(scl == 0, truth == 255)
        assert {0, *range(2, 12)} == set(np.unique(scl).tolist())

    def test_permanent_snow(self, world):
        """Class 11 where the sky is clear over snow and nowhere else."""
        code = read(world.truth / "landcover.tif")[::2, ::2]
        clear = snowy = 0
        for item_id in world.item_ids[0::2]:
            scl = asset(world, item_id, "scl")
            snow = code[:, : scl.shape[1]] == CODE["snow and ice"]
            assert not (scl[~snow] == 11).any()
            free = snow & (read(world.truth / "cloud" / f"{item_id}.tif") == 0)
            clear, snowy = clear + free.sum(), snowy + (scl[free] == 11).sum()
        assert clear > 100
        assert snowy > 0.7 * clear

    def test_shadows_lie_away_from_the_sun(self):
        overpass = OPTIONS.overpasses()[0]
        elevation, azimuth = overpass.sun
        assert 20 < elevation < 65
        assert 135 < azimuth < 180
        overpass = replace(overpass, cloud_rank=0.5)
        sky = make_sky(512, overpass, 1)
        spectrum = np.conj(np.fft.rfft2(sky.thick)) * np.fft.rfft2(sky.shadow)
        lag = np.fft.irfft2(spectrum, sky.thick.shape)
        rows, cols = (
            (np.array(np.unravel_index(lag.argmax(), lag.shape)) + 128) % 256 - 128
        ).tolist()
        away = np.degrees(np.arctan2(cols, -rows)) % 360
        assert away == pytest.approx(azimuth + 180, abs=4)

    def test_thick_cloud_hides_the_ground(self):
        sky = make_sky(128, replace(OPTIONS.overpasses()[0], cloud_rank=0.95), 1)
        dark = sky.seen_through("red", np.full((128, 128), 100, np.int16))
        bright = sky.seen_through("red", np.full((128, 128), 3000, np.int16))
        assert np.all(bright - dark < 0.25 * 2900)
        assert np.all(dark > 5000)


@pytest.fixture(scope="module")
def classified():
    """Opacity, true mask, SCL, bright bare ground and built-up ground of six default periods."""
    scenes = []
    for seed in range(6):
        options = SimulationOptions(size=512, seed=seed)
        landscape = make_landscape(options.size, seed)
        classifier = make_classifier(options.size, seed)
        for overpass in options.overpasses():
            sky = make_sky(options.size, overpass, seed)
            ground = Ground.of(landscape.whole, block_mean(landscape.cover(overpass.day)))
            for number in (0, 1):
                rng = generator(seed, Stream.CLASSIFICATION, overpass.index, number)
                scl = classifier.classify(sky, ground, rng)
                scenes.append((sky.opacity, sky.truth(), scl, ground.bright_bare, ground.built))
    return [np.array(part) for part in zip(*scenes, strict=True)]


class TestClassification:
    def test_errs_as_often_as_published(self, classified):
        _, truth, scl, bare, built = classified
        cloud = np.isin(scl, (8, 9, 10))
        clear = truth == 0
        shares = {
            "thick cloud found": cloud[truth == 2],
            "thin cloud found": cloud[truth == 1],
            "shadow found": scl[truth == 3] == 3,
            "clear ground called cloud": cloud[clear & ~bare & ~built],
            "built-up ground called cloud": cloud[clear & built],
            "bright bare ground called cloud": cloud[clear & bare],
            "clear ground called shadow": scl[clear] == 3,
        }
        assert shares.keys() == ACCURACY.keys()
        for name, share in shares.items():
            expected = ACCURACY[name].value
            assert share.mean() == pytest.approx(expected, abs=min(0.05, expected / 2)), name

    def test_the_fainter_the_cloud_the_more_is_missed(self, classified):
        opacity, _, scl, *_ = classified
        cloud = np.isin(scl, (8, 9, 10))
        edges = [0.05, 0.2, 0.35, 0.5, 0.75, 1.01]
        found = [cloud[(opacity >= low) & (opacity < high)].mean() for low, high in pairwise(edges)]
        assert found == sorted(found)
        assert found[0] < 0.25

    def test_cloud_is_missed_in_patches(self, classified):
        _, truth, scl, *_ = classified
        both = (truth[..., 1:] == 2) & (truth[..., :-1] == 2)
        missed = ~np.isin(scl, (8, 9, 10))
        assert missed[..., 1:][both & missed[..., :-1]].mean() > 0.85

    def test_some_bright_ground_is_called_cloud_again_and_again(self, classified):
        """More of the built-up pixels than of the others are lost in a quarter of clear scenes."""
        _, truth, scl, _, built = classified
        scenes = slice(0, 48)
        clear = truth[scenes] == 0
        called = (np.isin(scl[scenes], (8, 9, 10)) & clear).sum(axis=0)
        often = (called > 0.25 * clear.sum(axis=0)) & (clear.sum(axis=0) > 10)
        assert often[built[0]].mean() > 2 * often[~built[0]].mean()


class TestTruth:
    def test_is_the_median_of_the_noise_free_surface(self, world):
        landscape = make_landscape(OPTIONS.size, OPTIONS.seed)
        covers = [landscape.cover(o.day) for o in OPTIONS.overpasses()]
        for band in OPTIONS.bands:
            stack = [landscape.surface(band, c) for c in covers]
            expected = np.rint(np.median(np.array(stack, dtype=float), axis=0))
            if band == "swir16":
                expected = np.kron(expected, np.ones((2, 2)))
            np.testing.assert_array_equal(read(world.truth / f"{band}.tif"), expected)

    def test_is_on_the_mosaic_grid(self, world):
        with rasterio.open(world.truth / "swir16.tif") as dataset:
            assert dataset.crs.to_epsg() == 32631
            assert dataset.shape == (256, 256)
            assert dataset.res == (10, 10)
            assert dataset.nodata == -32768
            assert dataset.dtypes == ("int16",)
            bounds = dataset.bounds
        boxes = [item_of(world, i)["properties"]["proj:bbox"] for i in world.item_ids[:2]]
        assert (boxes[0][0], boxes[1][2]) == (bounds.left, bounds.right)

    def test_clear_observations_meet_it(self, world):
        """Masked by the true mask, the median of the observations is close to the truth."""
        stack = []
        for item_id in world.item_ids[0::2]:
            cloud = read(world.truth / "cloud" / f"{item_id}.tif")
            clear = (cloud == 0).repeat(2, axis=0).repeat(2, axis=1)
            stack.append(np.where(clear, reflectance(world, item_id, "nir"), np.nan))
        stack = np.array(stack)
        enough = (~np.isnan(stack)).sum(axis=0) >= 5
        error = np.nanmedian(stack[:, enough], axis=0)
        error -= read(world.truth / "nir.tif")[:, : enough.shape[1]][enough]
        assert enough.mean() > 0.1
        assert np.median(np.abs(error)) < 300

    def test_legend(self, world):
        codes = read(world.truth / "landcover.tif")
        legend = read_legend(world.truth / "landcover.tif")
        assert set(np.unique(codes).tolist()) <= set(legend.codes)
        assert legend.find("water").code == CODE["water"]


class TestSchedule:
    @given(seed=st.integers(0, 2**32), dates=st.integers(1, 183))
    def test_overpasses(self, seed, dates):
        overpasses = SimulationOptions(size=64, dates=dates, seed=seed).overpasses()
        times = [o.time for o in overpasses]
        assert times == sorted(times)
        assert len({t.date() for t in times}) == dates
        for time in times:
            assert timedelta(hours=10.5) <= (time - EPOCH) % timedelta(days=1)
            assert (time - EPOCH) % timedelta(days=1) < timedelta(hours=11)

    def test_every_five_days_by_turns(self):
        overpasses = SimulationOptions(dates=37).overpasses()
        days = np.diff([o.time.toordinal() for o in overpasses])
        assert set(days.tolist()) == {5}
        assert [o.platform[-1] for o in overpasses[:4]] == ["a", "b", "a", "b"]


class TestManyGranules:
    """A mosaic of 44 km: granules of at most some 20 km, the eastern ones in another zone."""

    mosaic = Mosaic(4400)

    @pytest.mark.parametrize("second_zone", [False, True])
    def test_they_cover_the_mosaic_and_overlap(self, second_zone):
        granules = make_granules(self.mosaic, second_zone)
        assert len(granules) == len({g.tile for g in granules}) == 9
        assert {g.epsg for g in granules} == {32631, *([32632] if second_zone else [])}
        left, bottom, right, top = self.mosaic.bounds
        x, y = np.random.default_rng(0).uniform((left, bottom), (right, top), (2000, 2)).T
        times = np.zeros(x.size, int)
        for g in granules:
            assert max(g.shape(10)) < 2400
            assert all(v % 20 == 0 for v in g.bounds)
            west, south, east, north = g.bounds
            gx, gy = Transformer.from_crs(32631, g.epsg, always_xy=True).transform(x, y)
            times += (gx >= west) & (gx <= east) & (gy >= south) & (gy <= north)
        assert times.min() == 1
        assert times.max() == 4
        assert 0.05 < (times > 1).mean() < 0.5

    def test_a_granule_beyond_the_swath_is_not_delivered(self):
        """Each scene has ground to show, and no overpass leaves out a granule that saw some."""
        options = SimulationOptions(size=10_000)
        granules = make_granules(Mosaic(options.size), options.second_zone)
        cut = [overpass for overpass in options.overpasses() if overpass.swath]
        scenes = {(job.overpass, job.granule) for job in scene_jobs(options)}
        missing = 0
        for overpass, (number, granule) in product(cut, enumerate(granules)):
            valid = overpass.swath.seen(granule.mosaic, granule.block)
            if (overpass.index, number) in scenes:
                assert valid.any()
                outline = granule.footprint(overpass.swath)
                assert outline.is_valid
                assert np.isfinite(outline.bounds).all()
            else:
                assert valid.sum() < 50
                missing += 1
        assert missing > 5
        assert len(scenes) == len(granules) * options.dates - missing

    def test_a_block_holds_all_that_its_granule_sees(self):
        for granule in make_granules(self.mosaic, second_zone=True)[::4]:
            row, col, height, width = granule.block
            assert max(height, width) < 1000
            index = np.indices((2200, 2200)).astype(np.int32)
            inside = granule.inside(20)
            rows, cols = (
                granule.sample(i[row : row + height, col : col + width].copy(), 20)[inside]
                for i in index
            )
            left, _, _, top = self.mosaic.bounds
            to_mosaic = Transformer.from_crs(granule.epsg, 32631, always_xy=True)
            v, u = np.nonzero(inside)
            x, y = to_mosaic.transform(
                granule.bounds[0] + (u + 0.5) * 20, granule.bounds[3] - (v + 0.5) * 20
            )
            np.testing.assert_array_equal(cols, np.floor((x - left) / 20))
            np.testing.assert_array_equal(rows, np.floor((top - y) / 20))

    @pytest.mark.slow
    def test_bounded_memory(self, tmp_path):
        """The last granule and the last block of truth of 400 km × 400 km, in less than 1 GB."""
        script = """if True:
            import sys
            from pathlib import Path
            from lcengine.simulate import SimulationOptions, archive, scenes, truth

            options = SimulationOptions(40_000, 2, bands=("red",), second_zone=True)
            root = Path(sys.argv[1])
            archive._prepare(root, options, restart=False)
            items = scenes.jobs(options)[-1].run(root)
            truth.jobs(options)[0][-1].run(root)
            # Not ru_maxrss, which begins with the size of the process that started this one.
            status = Path("/proc/self/status").read_text()
            print(items[0]["id"], status.split("VmHWM:")[1].split()[0])
        """
        command = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        name, peak = done.stdout.split()
        assert int(peak) < 1_000_000
        scene = read(tmp_path / "sentinel-2-l2a" / name / "red.tif")
        assert max(scene.shape) < 2500
        assert len(list((tmp_path / "truth" / "parts").glob("red_*.npy"))) == 1


class TestSecondZone:
    def test_pixels_are_the_nearest_of_the_same_ground(self, tmp_path):
        world = simulate(tmp_path / "sim", replace(OPTIONS, second_zone=True, dates=3))
        to_west = Transformer.from_crs(32632, 32631, always_xy=True)
        for _, west, east in pairs(world):
            properties = item_of(world, east)["properties"]
            assert properties["proj:code"] == "EPSG:32632"
            assert properties["proj:epsg"] == 32632
            for band, size in (("red", 10), ("swir16", 20)):
                a, b = reflectance(world, west, band), reflectance(world, east, band)
                box_a = item_of(world, west)["properties"]["proj:bbox"]
                rows, cols = np.indices(b.shape)
                x = properties["proj:bbox"][0] + (cols + 0.5) * size
                y = properties["proj:bbox"][3] - (rows + 0.5) * size
                x, y = to_west.transform(x, y)
                i = np.floor((box_a[3] - y) / size).astype(int)
                j = np.floor((x - box_a[0]) / size).astype(int)
                both = (i >= 0) & (i < a.shape[0]) & (j >= 0) & (j < a.shape[1])
                assert both.sum() > 100
                error = b[both] - a[i[both], j[both]]
                assert np.nanmax(np.abs(error)) < 9 * NOISE
            outside = asset(world, east, "scl") == 0
            assert outside.mean() > 0.01
            assert outside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
            project = Transformer.from_crs(4326, 32632, always_xy=True)
            seen = transform(shape(item_of(world, east)["geometry"]), project)
            share = seen.area / box(*properties["proj:bbox"]).area
            assert 1 - share == pytest.approx(outside.mean(), abs=0.02)


class TestCatalogue:
    def test_pystac_reads_it(self, world):
        catalog = pystac.Catalog.from_file(str(world.catalog))
        items = list(catalog.get_items(recursive=True))
        assert sorted(i.id for i in items) == sorted(world.item_ids)
        for item in items:
            assert item.collection_id == "sentinel-2-l2a"
            assert item.properties["proj:code"] == "EPSG:32631"
            assert item.properties["grid:code"] in ("MGRS-31UFS", "MGRS-31UGS")
            assert shape(item.geometry).bounds == pytest.approx(item.bbox)
            for part in item.get_assets().values():
                with rasterio.open(part.get_absolute_href()) as dataset:
                    assert list(dataset.shape) == part.extra_fields["proj:shape"]
                    assert list(dataset.transform)[:6] == part.extra_fields["proj:transform"]

    def test_granules_of_an_overpass_are_seconds_apart(self, world):
        for _, west, east in pairs(world):
            a, b = (item_of(world, i)["properties"] for i in (west, east))
            assert a["s2:datastrip_id"] == b["s2:datastrip_id"]
            assert a["platform"] == b["platform"]
            gap = datetime.fromisoformat(b["datetime"]) - datetime.fromisoformat(a["datetime"])
            assert 0 < gap.total_seconds() < 60

    def test_cloud_cover_is_that_of_the_classification(self, world):
        for item_id in world.item_ids:
            scl = asset(world, item_id, "scl")
            share = np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum() * 100
            properties = item_of(world, item_id)["properties"]
            assert properties["eo:cloud_cover"] == pytest.approx(share, abs=1e-3)

    def test_items_collection(self, world):
        collection = items_collection(world.path, "http://host/data/")
        assert len(collection["features"]) == len(world.item_ids)
        first = collection["features"][0]
        expected = f"http://host/data/sentinel-2-l2a/{first['id']}/red.tif"
        assert first["assets"]["red"]["href"] == expected
        assert first["links"] == []

    def test_items_collection_of_nothing(self, tmp_path):
        with pytest.raises(InputError, match="no finished simulation"):
            items_collection(tmp_path, "http://host")


@pytest.mark.slow
def test_demo(tmp_path):
    """Composites of both sensors on one grid, closer to the truth than what they are made of."""
    said = []
    figures = demo.run(tmp_path, size=256, dates=12, say=said.append)
    assert [line[:3] for line in said] == ["1/4", "2/4", "3/4", "4/4"]
    assert figures["covered_percent"] > 80
    assert figures["rmse_reflectance"] < 0.05
    assert figures["radar_rmse_db"] < 0.5 * figures["radar_rmse_db_of_one_pass"]
    optical, radar = (store.open(path) for path in figures["products"].split(", "))
    assert optical.sizes == radar.sizes
    np.testing.assert_array_equal(optical.x, radar.x)
    assert {"vv", "vh"} < set(radar.data_vars)
    assert Path(figures["picture"]).stat().st_size > 100_000


class TestFileServer:
    @pytest.fixture
    def served(self, tmp_path):
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "data.tif").write_bytes(bytes(range(100)))
        (tmp_path / "root" / "empty").write_bytes(b"")
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
        with FileServer(tmp_path / "root") as server:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
            yield server, connection
            connection.close()

    def ask(self, connection, path="/data.tif", byte_range=None, method="GET"):
        connection.request(method, path, headers={"Range": byte_range} if byte_range else {})
        response = connection.getresponse()
        return response, response.read()

    def test_whole_file_and_keep_alive(self, served):
        server, connection = served
        for _ in range(2):
            response, body = self.ask(connection)
            assert response.status == 200
            assert response.version == 11
            assert body == bytes(range(100))
            assert response.headers["Accept-Ranges"] == "bytes"
            assert response.headers["Content-Type"] == "image/tiff"
        assert server.bytes_sent == 200
        assert server.requests == 2

    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [
            ("bytes=0-9", 0, 10),
            ("bytes=90-", 90, 100),
            ("bytes=-5", 95, 100),
            ("bytes=95-400", 95, 100),
            ("bytes=-400", 0, 100),
            ("bytes=99-99", 99, 100),
        ],
    )
    def test_range(self, served, asked, start, stop):
        response, body = self.ask(served[1], byte_range=asked)
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/100"
        assert body == bytes(range(start, stop))

    @pytest.mark.parametrize("asked", ["bytes=100-", "bytes=400-500", "bytes=-0"])
    def test_unsatisfiable(self, served, asked):
        response, body = self.ask(served[1], byte_range=asked)
        assert response.status == 416
        assert response.headers["Content-Range"] == "bytes */100"
        assert body == b""

    @pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=-"])
    def test_ignored(self, served, asked):
        response, body = self.ask(served[1], byte_range=asked)
        assert response.status == 200
        assert len(body) == 100

    def test_head(self, served):
        response, body = self.ask(served[1], method="HEAD")
        assert response.status == 200
        assert response.headers["Content-Length"] == "100"
        assert body == b""
        assert served[0].bytes_sent == 0

    def test_empty_file(self, served):
        response, body = self.ask(served[1], "/empty")
        assert (response.status, body) == (200, b"")

    @pytest.mark.parametrize(
        "path",
        ["/absent.tif", "/../secret", "/%2e%2e/secret", "/link", "/", "/a%00b", "//etc/hostname"],
    )
    def test_not_found(self, served, path):
        response, body = self.ask(served[1], path)
        assert response.status == 404
        assert body == b""

    def test_gdal_reads_over_http(self, world):
        item_id = world.item_ids[0]
        with FileServer(world.path) as server:
            address = f"{server.url}/sentinel-2-l2a/{item_id}/red.tif"
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", no_proxy="127.0.0.1"):
                data = read(address)
            assert server.bytes_sent > 0
        np.testing.assert_array_equal(data, asset(world, item_id, "red"))

    def test_needs_a_folder_and_a_with(self, tmp_path):
        with pytest.raises(InputError, match="not a folder"):
            FileServer(tmp_path / "absent")
        with pytest.raises(LcengineError, match="with statement"):
            _ = FileServer(tmp_path).url


class TestStacServer:
    @pytest.fixture(autouse=True)
    def direct(self, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def test_search_by_box_and_time(self, world):
        items = items_collection(world.path, "http://127.0.0.1:9")
        west = [f for f in items["features"] if f["properties"]["grid:code"] == "MGRS-31UFS"]
        left, bottom, _, top = west[0]["bbox"]
        with StacServer(items) as server:
            client = pystac_client.Client.open(server.url)
            found = client.search(
                collections=["sentinel-2-l2a"],
                bbox=[left - 0.1, bottom, left + 0.0001, top],
                datetime="2023-04-01/2023-07-15",
            ).item_collection()
        expected = {
            f["id"]
            for f in west
            if f["properties"]["datetime"] < "2023-07-16"
            and box(left - 0.1, bottom, left + 0.0001, top).intersects(shape(f["geometry"]))
        }
        assert {i.id for i in found} == expected
        assert 0 < len(expected) < len(west)

    def test_from_a_file(self, world, tmp_path):
        file = tmp_path / "items.json"
        file.write_text(json.dumps(items_collection(world.path, str(world.path))))
        with StacServer(file) as server:
            client = pystac_client.Client.open(server.url)
            assert [c.id for c in client.get_collections()] == ["sentinel-2-l2a"]

    def test_items_that_it_cannot_load(self):
        server = StacServer({"type": "nonsense"})
        with pytest.raises(LcengineError, match="rustac serve"), server:
            pass

    def test_without_rustac(self, monkeypatch, tmp_path):
        monkeypatch.setattr(serve.sys, "executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LcengineError, match=r"pip install lcengine\[serve\]"):
            StacServer({}).__enter__()
