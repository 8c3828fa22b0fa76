"""Mask bands other than the SCL: decoding, several bands at once, s2cloudless, cloud distance."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import archives
import numpy as np
import oracle
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rough import blobs

import lcengine
from lcengine import masks
from lcengine.errors import ContractError, InputError, MissingBandError
from lcengine.grid import Grid
from lcengine.items import Access, Items
from lcengine.locate import Lattice, Locator, SourceGrid, Window, window_bounds
from lcengine.masks import cloudless, place
from lcengine.plan import plan_reads
from lcengine.sensors import FileLayout, normalise, registry, sensor
from lcengine.traffic import traffic

LEFT, TOP = archives.LEFT, archives.TOP
LOCAL = Access(local=True)
L1C = "sentinel-2-l1c"


def band(values, **changes):
    return masks.RawBand(np.atleast_2d(values), **changes)


def classes_of(name, *bands):
    recipe = masks.preset(name)
    assert len(bands) == len(recipe.bands)
    return recipe.decode(bands)


def clear_of(name, *bands):
    recipe = masks.preset(name)
    flags = masks.flags(recipe, classes_of(name, *bands), recipe.pixel)
    return masks.resolve(recipe, flags[None], (0,))[0]


def flags_at(recipe, assets, product, window):
    """Flag bits of one item on a product window, through files."""
    out = np.zeros((window.height, window.width), np.uint8)
    found = masks.read_classes(recipe, assets, LOCAL, product, window)
    if found is not None:
        masks.place_flags(recipe, found, Locator(product, window), out)
    return out


class TestNames:
    @pytest.mark.parametrize("form", masks.NAMES)
    def test_every_form_is_a_mask(self, form):
        name = form.replace("PERCENT", "20").replace("SCORE", "0.5")
        recipe = masks.preset(name)
        assert name == "none" or recipe.name == name  # noqa: PLR1714

    @pytest.mark.parametrize("recipe", masks.PRESETS.values(), ids=lambda r: r.name)
    def test_every_recipe_says_where_from_and_what_for(self, recipe):
        for line in (recipe.source, recipe.purpose):
            assert 10 < len(line) <= 90
            assert "\n" not in line

    def test_a_number_is_the_limit(self):
        default, strict = masks.preset("cldprb"), masks.preset("cldprb:20")
        assert (default.decode.limit, strict.decode.limit) == (40, 20)
        assert masks.preset("csplus").decode.limit == 0.60
        assert masks.preset("csplus:0.5").decode.limit == 0.5
        assert strict.bands == default.bands == ("cloud_probability",)

    @pytest.mark.parametrize("name", ["scl:3", "s2cloudless:0.3", "cldprp:40", ":40"])
    def test_what_takes_no_number_is_unknown(self, name):
        with pytest.raises(InputError, match=f"no mask is called '{name}'.*cldprb:PERCENT"):
            masks.preset(name)

    @pytest.mark.parametrize("name", ["cldprb:", "cldprb:many", "cldprb:101", "csplus:nan", "cs:2"])
    def test_a_limit_must_be_possible(self, name):
        with pytest.raises(InputError, match=f"mask '{name}' has the limit .* expected 0 to 1"):
            masks.preset(name)


class TestDecoding:
    def test_qa_pixel_over_all_its_values(self):
        qa = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        clear = clear_of("qa_pixel", band(qa))
        bits = (qa[..., None] >> np.arange(16)) & 1
        assert np.array_equal(clear, bits[..., :5].sum(axis=-1) == 0)
        classes = classes_of("qa_pixel", band(qa))
        assert np.array_equal(classes == 0, bits[..., 0] == 1)
        assert not clear_of("qa_pixel", band(np.full((2, 2), 21824, np.uint16), nodata=21824)).any()

    @pytest.mark.parametrize(
        ("value", "code"),
        [(21824, 4), (21952, 6), (22280, 9), (23888, 3), (30048, 11), (54596, 10), (1, 0)],
    )
    def test_qa_pixel_values_that_occur(self, value, code):
        """Clear land, clear water, cloud, shadow, snow, cirrus and fill as USGS lists them."""
        assert classes_of("qa_pixel", band(np.uint16(value)))[0, 0] == code

    def test_udm2_is_clear_where_clear_and_usable(self):
        rng = np.random.default_rng(1)
        kind = rng.integers(0, 4, (30, 30))  # clear, snow, cloud, nothing known
        unusable = rng.choice(np.array([0, 0, 0, 1, 2, 16], np.uint8), (30, 30))
        clear, snow = ((kind == k).astype(np.uint8) for k in (0, 1))
        bands = band(clear), band(snow), band(unusable)
        assert np.array_equal(clear_of("udm2", *bands), (clear == 1) & (unusable == 0))
        classes = classes_of("udm2", *bands)
        assert np.array_equal(classes == 0, (unusable & 1) == 1)
        away = (unusable == 0) & (kind >= 2)
        assert np.array_equal(np.isin(classes, masks.CLOUD_CLASSES) & (unusable == 0), away)

    def test_udm_is_clear_where_no_bit_is_set(self):
        bits = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert np.array_equal(clear_of("udm", band(bits)), bits == 0)
        classes = classes_of("udm", band(bits))
        assert np.array_equal(classes == 0, bits % 2 == 1)
        assert np.array_equal(np.isin(classes, masks.CLOUD_CLASSES), bits % 4 == 2)

    @pytest.mark.parametrize(
        ("values", "scale"),
        [
            (np.array([0, 59, 60, 61, 100], np.uint8), 0.01),
            (np.array([0, 5999, 6000, 6001, 10000], np.uint16), 1e-4),
            (np.array([0, 0.5999, 0.6, 0.6001, 1], np.float32), 1.0),
            (np.array([0, 0.5999, 0.6, 0.6001, 1], np.float64), 1.0),
        ],
    )
    def test_cloud_score_in_any_encoding(self, values, scale):
        scores = band(values, scale=scale)
        assert clear_of("csplus", scores).tolist() == [[0, 0, 1, 1, 1]]
        assert clear_of("csplus:0.65", scores).tolist() == [[0, 0, 0, 0, 1]]
        assert clear_of("cs:0", scores).all()

    @pytest.mark.parametrize("percent", range(101))
    def test_every_percent_as_a_limit_is_included(self, percent):
        hundredths = np.arange(101, dtype=np.uint8)
        clear = clear_of(f"csplus:{percent / 100}", band(hundredths, scale=0.01))
        assert np.array_equal(clear[0], hundredths >= percent)
        clear = clear_of(f"cldprb:{percent}", band(hundredths))
        assert np.array_equal(clear[0], hundredths <= percent)

    def test_missing_scores_are_invalid(self):
        score = np.array([0.9, np.nan, -9999, 0.1], np.float32)
        classes = classes_of("csplus", band(score, nodata=-9999.0))
        assert classes.tolist() == [[4, 0, 0, 9]]
        assert classes_of("cldprb", band(np.array([3, 255], np.uint8), nodata=255.0)).tolist() == [
            [4, 0]
        ]

    def test_a_score_of_another_scale_is_refused(self):
        with pytest.raises(ContractError, match=r"up to 87, expected at most 1; .*raster:scale"):
            classes_of("csplus", band(np.array([3, 87], np.uint8)))
        with pytest.raises(ContractError, match="up to 4000, expected at most 100"):
            classes_of("cldprb", band(np.array([4000], np.uint16)))


class TestSensors:
    def stac(self, *keys, collection=L1C, baseline="05.11", **changes):
        sizes = {"B01": 60, "B09": 60, "B10": 60, "cirrus": 60, "coastal": 60}
        assets = {}
        for key in keys:
            size = sizes.get(key, 10)
            assets[key] = {
                "href": f"https://example.com/{key}.jp2",
                "proj:shape": [109800 // size] * 2,
                "proj:transform": [size, 0, 499980, 0, -size, 5700000],
            }
        properties = {
            "datetime": "2021-06-01T10:50:00Z",
            "platform": "Sentinel-2A",
            "proj:epsg": 32631,
            "s2:processing_baseline": baseline,
        }
        return {
            "id": "scene",
            "collection": collection,
            "bbox": [3.0, 50.0, 4.0, 51.0],
            "properties": properties,
            "assets": {key: {**asset, **changes} for key, asset in assets.items()},
        }

    def test_l1c_in_both_layouts(self):
        by_number = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09"]
        by_number += ["B10", "B11", "B12"]
        names = [b.name for b in sensor(L1C).bands if b.kind == "reflectance"]
        assert len(names) == 13
        for keys in (by_number, names):
            item = normalise(self.stac(*keys))
            assert item.sensor == L1C
            assert set(item.assets) == set(names)
            assert {a.offset for a in item.assets.values()} == {-0.1}
        assert normalise(self.stac("B02", baseline="03.01")).asset("blue").offset == 0.0
        stated = self.stac("B02", **{"raster:bands": [{"scale": 1e-4, "offset": 0, "nodata": 0}]})
        assert normalise(stated).asset("blue").contract == "asset"
        assert normalise(self.stac("B10"), offset=0.0).asset("cirrus").contract == "override"

    def test_each_sensor_names_the_masks_that_work(self):
        own = ("none", "cldprb", "csplus", "cs")
        assert masks.applicable(sensor(L1C)) == (*own, "s2cloudless")
        everything = ("none", "geomad", "pacific", "worldcover", "s2mosaic", "scl", *own[1:])
        assert masks.applicable(sensor("sentinel-2-l2a")) == everything
        with pytest.raises(InputError, match=r"'worldcover' needs the band 'scl', which .*-l1c.*"):
            masks.check_sensor(masks.preset("worldcover"), sensor(L1C))
        with pytest.raises(InputError, match="its masks are none, geomad"):
            masks.check_sensor(masks.preset("s2cloudless"), sensor("sentinel-2-l2a"))
        for entry in registry().values():
            masks.check_sensor(None, entry)

    @pytest.mark.parametrize("key", ["cloud", "CLD_20m", "MSK_CLDPRB", "CLDPRB"])
    def test_zero_is_no_missing_cloud_probability(self, key):
        stac = self.stac(key, collection="sentinel-2-l2a", **{"raster:bands": [{"nodata": 0}]})
        asset = normalise(stac).asset("cloud_probability")
        assert (asset.nodata, asset.scale, asset.offset) == (None, 1.0, 0.0)
        assert normalise(normalise(stac).to_stac(), offset=-0.1).asset("cloud_probability") == asset

    def test_fractions_become_percent_and_scores_keep_their_scale(self):
        stated = {"raster:bands": [{"scale": 1e-4, "nodata": 65535}]}
        item = normalise(self.stac("cloud", "cs_cdf", collection="sentinel-2-l2a", **stated))
        assert item.asset("cloud_probability").scale == pytest.approx(0.01)
        assert item.asset("cs_cdf").scale == 1e-4
        assert item.asset("cs_cdf").nodata == 65535

    def test_a_score_without_a_grid_does_not_cost_the_item(self):
        stac = self.stac("blue", "cloud", collection="sentinel-2-l2a")
        del stac["assets"]["cloud"]["proj:transform"]
        item = normalise(stac)
        assert set(item.assets) == {"blue"}
        with pytest.raises(MissingBandError, match="no band 'cloud_probability'"):
            item.asset("cloud_probability")


PRODUCT = Lattice("EPSG:32631", LEFT - 20, TOP + 30, 10.0, 10.0)
WHOLE = Window(0, 0, 70, 80)


def everywhere(recipe, classes, size, window=WHOLE):
    """Flags of a whole scene, by the nearest pixel of a product window."""
    flags = masks.flags(recipe, classes, size)
    finer = flags.shape[0] // classes.shape[0]
    raster = oracle.Raster(flags, 32631, LEFT, TOP, size / finer)
    left, top = PRODUCT.left + window.x0 * 10, PRODUCT.top - window.y0 * 10
    return oracle.nearest(raster, oracle.Product(32631, left, top, 10, *window[2:]), 0)


class TestFiles:
    def test_qa_pixel(self, tmp_path):
        rng = np.random.default_rng(2)
        qa = rng.choice(np.array([1, 21824, 22280, 23888, 54596, 30048], np.uint16), (20, 20))
        asset = replace(archives.raster(tmp_path / "qa.tif", qa, 30.0), nodata=1.0)
        recipe = masks.preset("qa_pixel")
        expected = everywhere(recipe, recipe.decode([band(qa)]), 30.0)
        assert np.array_equal(flags_at(recipe, [asset], PRODUCT, WHOLE), expected)
        assert (expected & masks.CLEAR).any()

    def test_udm2_is_three_bands_of_one_file(self, tmp_path):
        rng = np.random.default_rng(3)
        layers = rng.integers(0, 2, (8, 100, 120)).astype(np.uint8)
        layers[7] *= rng.integers(0, 4, (100, 120)).astype(np.uint8)
        path = tmp_path / "udm2.tif"
        profile = {"count": 8, "dtype": "uint8", "height": 100, "width": 120, "crs": "EPSG:32631"}
        with rasterio.open(
            path, "w", driver="GTiff", transform=from_origin(LEFT, TOP, 3, 3), **profile
        ) as dataset:
            dataset.write(layers)
        transform = (3.0, 0.0, LEFT, 0.0, -3.0, TOP)
        one = lcengine.items.Asset(
            str(path), "EPSG:32631", transform, (100, 120), None, 1.0, 0.0, "test"
        )
        assets = [replace(one, band=number) for number in (1, 2, 8)]
        recipe = masks.preset("udm2")
        clear = ((layers[0] == 1) & (layers[1] == 0) & (layers[7] == 0)).astype(np.uint8)
        raster = oracle.Raster(clear, 32631, LEFT, TOP, 3.0)
        product = oracle.Product(32631, PRODUCT.left, PRODUCT.top, 10, *WHOLE[2:])
        found = flags_at(recipe, assets, PRODUCT, WHOLE) & masks.CLEAR
        assert np.array_equal(found, oracle.nearest(raster, product, 0))
        assert found.any()

    def test_scores(self, tmp_path):
        rng = np.random.default_rng(4)
        percent = rng.integers(0, 101, (35, 40)).astype(np.uint8)
        asset = archives.raster(tmp_path / "cld.tif", percent, 20.0)
        asset = replace(asset, nodata=None, scale=1.0)
        found = flags_at(masks.preset("cldprb:30"), [asset], PRODUCT, WHOLE)
        raster = oracle.Raster((percent <= 30).astype(np.uint8), 32631, LEFT, TOP, 20.0)
        product = oracle.Product(32631, PRODUCT.left, PRODUCT.top, 10, *WHOLE[2:])
        assert np.array_equal(found, oracle.nearest(raster, product, 0))

    def test_finer_bands_are_averaged_on_the_grid_of_the_first(self):
        rng = np.random.default_rng(5)
        values = rng.integers(0, 5, (12, 18)).astype(np.uint16)
        asset = lcengine.items.Asset("x", "EPSG:32631", (0.0,) * 6, (0, 0), 0.0, 0.5, 2.0, "test")
        found = place._band(values, asset, 3)
        for y in range(4):
            for x in range(6):
                part = values[3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
                whole = (part != 0).all()
                assert found.valid[y, x] == whole
                if whole:
                    assert found.quantity[y, x] == np.float32(part.mean() * 0.5 + 2)
        assert found.valid.any()
        assert not found.valid.all()


# -------------------------------------------------------------------------------- s2cloudless


class Stub:
    """A model that is cheap and looks at the first and the last band."""

    def predict(self, pixels, num_threads):
        assert num_threads == 1
        return np.clip(pixels[:, 0] + pixels[:, -1] - 0.2, 0, 1).astype(np.float64)


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(cloudless, "_model", Stub)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found("json" if name == "s2cloudless" else name)
    )


def l1c_scene(folder, seed, shape=(26, 30), cloudy=0.42):
    """A small L1C item at 60, 20 and 10 m with a missing corner.

    Nearly half of its pixels are cloud at random, so the mean is near the threshold everywhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cloud = rng.random(shape) < cloudy
    assets = {}
    for entry in sensor(L1C).bands:
        if entry.kind == "reflectance":
            k = int(60 // entry.resolution)
            bright = np.kron(cloud * 9000, np.ones((k, k)))
            pixels = (bright + rng.integers(500, 1500, bright.shape)).astype(np.uint16)
            pixels[: 5 * k, : 3 * k + k // 2] = 0
            path = folder / f"{entry.name}.tif"
            assets[entry.name] = archives.raster(path, pixels, entry.resolution)
    return archives.item(seed, assets, sensor=L1C, collection=L1C)


def l1c_classes(item):
    """Classes of the whole scene by plain NumPy, before the dilation."""
    valid, reflectance = True, []
    for name in cloudless.BANDS:
        asset = item.asset(name)
        pixels = oracle.read(asset.href).pixels.astype(float)
        k = int(60 // asset.transform[0])
        parts = pixels.reshape(pixels.shape[0] // k, k, -1, k)
        valid = valid & (parts > 0).all(axis=(1, 3))
        reflectance.append(parts.mean(axis=(1, 3)) * asset.scale + asset.offset)
    pixels = np.where(valid, reflectance, 0).astype(np.float32)
    probability = cloudless.s2cloudless_probability(pixels)
    smooth = cloudless.smoothed(np.where(valid, probability, np.float32(0)))
    return np.where(valid, np.where(smooth > 0.4, 9, 4), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two L1C items and the classes of the stub in them."""
    root = tmp_path_factory.mktemp("l1c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloudless, "_model", Stub)
        items = [l1c_scene(root / str(n), n) for n in (20, 21)]
        return [(item, l1c_classes(item)) for item in items]


class TestCloudless:
    def test_smoothing_is_the_mean_over_a_disk(self):
        probability = np.random.default_rng(6).random((17, 23)).astype(np.float32)
        y, x = np.mgrid[-4:5, -4:5]
        disk = y**2 + x**2 <= 16
        assert disk.sum() == 49
        mirrored = np.pad(probability, 4, mode="symmetric")
        found = cloudless.smoothed(probability)
        for row in range(17):
            for col in range(23):
                mean = mirrored[row : row + 9, col : col + 9][disk].mean(dtype=np.float64)
                assert found[row, col] == pytest.approx(mean, rel=1e-6)

    def test_masks_equal_the_package_bit_by_bit(self):
        package = pytest.importorskip("s2cloudless")
        theirs = package.S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)
        rng = np.random.default_rng(7)
        for shape in ((64, 80), (61, 83), (7, 9), (3, 5)):
            y, x = np.mgrid[: shape[0], : shape[1]]
            cases = [
                rng.random(shape),
                rng.integers(0, 2, shape),
                rng.integers(0, 6, shape) / 5,  # sums that meet the threshold exactly
                rng.integers(0, 11, shape) / 10,
                rng.random(shape) < 0.4,
                np.full(shape, 0.4),
                0.4 + (x - shape[1] / 2) * 1e-7,
                (x + y) % 2,
                np.hypot(x - 20, y - 30) < 9,
                x // 4 % 5 < 2,
                (x * shape[0] + y) / y.size,
            ]
            for case in cases:
                probability = case.astype(np.float32)
                expected = theirs.get_mask_from_prob(probability[None])[0]
                assert np.array_equal(masks.s2cloudless_mask(probability), expected)

    def test_probabilities_equal_the_package(self):
        package = pytest.importorskip("s2cloudless")
        pixels = np.random.default_rng(8).uniform(-0.02, 1.1, (10, 9, 11)).astype(np.float32)
        theirs = package.S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)
        expected = theirs.get_cloud_probability_maps(pixels.transpose(1, 2, 0)[None])[0]
        found = masks.s2cloudless_probability(pixels)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
        assert theirs.get_cloud_probability_maps(np.zeros((1, 1, 1, 10)))[0, 0, 0] < 0.001
        with pytest.raises(InputError, match="got 9 bands, expected the 10"):
            masks.s2cloudless_probability(pixels[1:])

    def test_a_scene_is_masked_as_by_the_package(self, tmp_path):
        package = pytest.importorskip("s2cloudless")
        item = l1c_scene(tmp_path, 9)
        recipe = masks.preset("s2cloudless")
        product = Lattice("EPSG:32631", LEFT, TOP, 60.0, 60.0)
        assets = [item.asset(name) for name in recipe.bands]
        flags = flags_at(recipe, assets, product, Window(0, 0, 26, 30))
        theirs = package.S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)
        pixels, valid = [], True
        for asset in assets:
            dn = oracle.read(asset.href).pixels.astype(float)
            parts = dn.reshape(26, dn.shape[0] // 26, 30, -1)
            pixels.append(parts.mean(axis=(1, 3)) * 1e-4)
            valid = valid & (parts > 0).all(axis=(1, 3))
        bands = np.where(valid, pixels, 0).astype(np.float32).transpose(1, 2, 0)
        cloud = theirs.get_cloud_masks(bands[None])[0]
        away = cloudless.morphology.dilate((~valid).astype(np.uint8), cloudless.morphology.disk(6))
        assert np.array_equal(flags[away == 0], 1 - cloud[away == 0])
        assert not flags[~valid].any()

    @settings(max_examples=60)
    @given(
        scene=st.integers(0, 1),
        window=st.tuples(st.integers(-40, 150), st.integers(-40, 150), *map(st.just, (40, 50))),
    )
    def test_a_window_has_the_flags_of_the_whole_scene(self, scenes, scene, window):
        item, classes = scenes[scene]
        recipe = masks.preset("s2cloudless")
        expected = everywhere(recipe, classes, 60.0, Window(*window))
        assets = [item.asset(name) for name in recipe.bands]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cloudless, "_model", Stub)
            found = flags_at(recipe, assets, PRODUCT, Window(*window))
        assert np.array_equal(found, expected)

    def test_halo_is_mean_plus_dilation(self):
        recipe = masks.preset("s2cloudless")
        assert (recipe.reach, recipe.spread) == (360, 120)
        source = SourceGrid(Lattice("EPSG:32631", LEFT, TOP, 60.0, 60.0), (10, 10))
        assert masks.margin(recipe, source) == 6

    def test_grids_must_nest(self, tmp_path):
        item = l1c_scene(tmp_path, 10)
        recipe = masks.preset("s2cloudless")
        assets = [item.asset(name) for name in recipe.bands]
        shifted = replace(assets[1], transform=(10.0, 0.0, LEFT + 10, 0.0, -10.0, TOP))
        with pytest.raises(ContractError, match="bands on nested grids, but blue has"):
            masks.factors(recipe, [assets[0], shifted, *assets[2:]])
        coarse = replace(assets[0], transform=(120.0, 0.0, LEFT, 0.0, -120.0, TOP))
        with pytest.raises(ContractError, match="works on pixels of 60 m, but coastal has 120 m"):
            masks.factors(recipe, [coarse, *assets[1:]])
        assert masks.factors(recipe, assets) == (1, 6, 6, 3, 6, 3, 1, 1, 3, 3)

    def test_without_the_package_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        cloudless._model.cache_clear()
        with pytest.raises(InputError, match=r"pip install 'lcengine\[s2cloudless\]'"):
            masks.check_sensor(masks.preset("s2cloudless"), sensor(L1C))
        with pytest.raises(InputError, match=r"pip install 'lcengine\[s2cloudless\]'"):
            masks.s2cloudless_probability(np.zeros((10, 2, 2), np.float32))


class TestPlans:
    def grid(self):
        return Grid.from_bounds(LEFT, TOP - 1500, LEFT + 1700, TOP, 32631, 10, 64)

    def test_a_plan_reads_all_mask_bands(self, tmp_path, stub):
        items = Items((l1c_scene(tmp_path, 11),), LOCAL)
        plan = plan_reads(items, self.grid(), ["blue", "green"], mask="s2cloudless")
        assert plan.mask_bands == cloudless.BANDS
        assert [a.href for a in plan.mask_assets(items[0])] == [
            items[0].asset(name).href for name in cloudless.BANDS
        ]
        plain = plan_reads(items, self.grid(), ["blue", "green"])
        assert plain.mask_bands == plain.mask_assets(items[0]) == ()

        totals = [traffic(p, lambda *_: FileLayout((64, 64), 2)).decoded for p in (plan, plain)]
        assert sum(totals[0].values()) > sum(totals[1].values())
        assert plan.memory(8, 4) > plain.memory(8, 4)

    def test_a_plan_refuses_what_the_sensor_lacks(self, tmp_path, stub):
        items = Items((l1c_scene(tmp_path, 12),), LOCAL)
        with pytest.raises(InputError, match=r"'worldcover' needs the band 'scl'.*s2cloudless"):
            plan_reads(items, self.grid(), ["blue"], mask="worldcover")
        scene = items[0]
        bad = replace(scene.asset("red"), transform=(10.0, 0.0, LEFT + 5, 0.0, -10.0, TOP))
        moved = replace(scene, assets={**scene.assets, "red": bad})
        with pytest.raises(ContractError, match="nested grids, but red has"):
            plan_reads(Items((moved,), LOCAL), self.grid(), ["blue"], mask="s2cloudless")

    def test_the_cube_has_the_mask(self, tmp_path, stub):
        items = Items(tuple(l1c_scene(tmp_path / str(n), n) for n in (13, 14)), LOCAL)
        cube = lcengine.load(items, self.grid(), ["blue"], mask="s2cloudless", chunks=48)
        clear = cube.sel(band="clear").to_numpy()
        recipe = masks.preset("s2cloudless")
        for n, item in enumerate(items):
            flags = masks.flags(recipe, l1c_classes(item), 60.0)
            raster = oracle.Raster(flags, 32631, LEFT, TOP, 60.0)
            expected = oracle.nearest(raster, oracle.Product.of(self.grid()), 0) & 1
            assert np.array_equal(clear[n], expected)
        assert 0.1 < clear.mean() < 0.9


# ----------------------------------------------------------------------------- cloud distance


SCENE = SourceGrid(Lattice("EPSG:32631", LEFT, TOP, 20.0, 20.0), (50, 60))


def brute(cloud, cap, size=20.0):
    """Distance of every pixel to every cloud pixel, the least of them."""
    rows, cols = np.nonzero(cloud)
    out = np.full(cloud.shape, cap)
    for y in range(cloud.shape[0]):
        for x in range(cloud.shape[1]):
            if rows.size:
                least = np.hypot(rows - y, cols - x).min() * size
                out[y, x] = min(cap, np.rint(least))
    return out


class TestDistance:
    @pytest.mark.parametrize("preset", ["scl", "geomad", "worldcover", "s2mosaic", "cldprb"])
    def test_equals_the_distance_to_every_cloud_pixel(self, preset):
        scl = blobs(np.random.default_rng(15), SCENE.shape, 2.0)
        scl[:10, :10] = 0
        scl[30:, 40:] = 11
        factor = 1
        cloud = np.isin(scl, (3, 8, 9, 10))
        if preset == "geomad":
            factor = 2
            fine = np.kron(cloud, np.ones((2, 2), bool))
            opened = oracle.dilate(oracle.erode(fine, oracle.disk(2)), oracle.disk(2))
            cloud = oracle.dilate(opened, oracle.disk(5))
        elif preset == "worldcover":
            cloud = oracle.dilate(oracle.erode(cloud, oracle.disk(3)), oracle.disk(13))
        cloud &= np.kron(scl, np.ones((factor, factor), int)) != 0
        cloud = cloud.reshape(50, factor, 60, factor).any(axis=(1, 3))
        classes = masks.Classes(scl, Window(0, 0, *SCENE.shape), SCENE)
        found = masks.distance_to_cloud(masks.preset(preset), classes, cap=300)
        assert found.values.dtype == np.uint16
        assert np.array_equal(found.values, brute(cloud, 300))

    def test_without_cloud_all_is_far_away(self):
        classes = masks.Classes(np.full((5, 6), 11, np.uint8), Window(0, 0, 5, 6), SCENE)
        assert (masks.distance_to_cloud(masks.preset("scl"), classes).values == 3000).all()

    @pytest.mark.parametrize("preset", ["scl", "geomad", "worldcover"])
    @settings(max_examples=40)
    @given(data=st.data())
    def test_a_window_has_the_distances_of_the_whole_scene(self, preset, data):
        draw = data.draw
        recipe, cap = masks.preset(preset), draw(st.sampled_from([100, 200, 200, 400, 3000]))
        scl = np.full(SCENE.shape, 4, np.uint8)
        for _ in range(draw(st.integers(0, 2))):
            y, x = draw(st.integers(0, 49)), draw(st.integers(0, 59))
            scl[y : y + 8, x : x + 8] = 9
        epsg, left, top, size = draw(
            st.sampled_from(
                [
                    (32631, LEFT - 200, TOP + 100, 10.0),
                    (32631, LEFT + 7, TOP + 3, 20.0),
                    (32632, 174_800, 5_609_100, 10.0),
                ]
            )
        )
        product = Lattice(f"EPSG:{epsg}", left, top, size, size)
        window = Window(*(draw(st.integers(-20, 90)) for _ in "yx"), 24, 36)
        whole = masks.Classes(scl, Window(0, 0, *SCENE.shape), SCENE)
        everything = masks.distance_to_cloud(recipe, whole, cap)
        expected = oracle.nearest(
            oracle.Raster(everything.values, 32631, LEFT, TOP, 20.0),
            oracle.Product(epsg, left + window.x0 * size, top - window.y0 * size, size, 24, 36),
            cap,
        )
        area = window_bounds(product, window, SCENE, masks.margin(recipe, SCENE, beyond=cap))
        if area is None:
            assert (expected == cap).all()
            return
        part = scl[area.y0 : area.y0 + area.height, area.x0 : area.x0 + area.width]
        found = masks.distance_to_cloud(recipe, masks.Classes(part, area, SCENE), cap)
        out = np.zeros((24, 36), np.uint16)
        for y in (0, 8):
            block = Window(window.y0 + y, window.x0, 8 if y == 0 else 16, 36)
            place_of = np.zeros((block.height, 36), np.uint16)
            masks.place_distances(found, Locator(product, block), place_of)
            out[y : y + block.height] = place_of
        assert np.array_equal(out, expected)

    def test_the_halo_holds_every_cloud_that_counts(self):
        """One cloud pixel anywhere in the scene, seen from a window in its middle."""
        recipe, cap = masks.preset("scl"), 190
        product = Lattice("EPSG:32631", LEFT, TOP, 20.0, 20.0)
        window = Window(22, 27, 4, 5)
        area = window_bounds(product, window, SCENE, masks.margin(recipe, SCENE, beyond=cap))
        rows, cols = np.mgrid[22:26, 27:32]
        for y in range(50):
            for x in range(60):
                scl = np.full(SCENE.shape, 4, np.uint8)
                scl[y, x] = 9
                part = scl[area.y0 : area.y0 + area.height, area.x0 : area.x0 + area.width]
                found = masks.distance_to_cloud(recipe, masks.Classes(part, area, SCENE), cap)
                out = np.zeros((4, 5), np.uint16)
                masks.place_distances(found, Locator(product, window), out)
                away = np.rint(20 * np.hypot(rows - y, cols - x))
                assert np.array_equal(out, np.minimum(away, cap))

    def test_classes_are_read_as_far_as_asked(self, tmp_path):
        scl = np.full(SCENE.shape, 4, np.uint8)
        asset = archives.raster(tmp_path / "scl.tif", scl, 20.0)
        window = Window(40, 40, 10, 10)
        product = Lattice("EPSG:32631", LEFT, TOP, 10.0, 10.0)
        near = masks.read_classes(masks.preset("scl"), [asset], LOCAL, product, window)
        far = masks.read_classes(masks.preset("scl"), [asset], LOCAL, product, window, beyond=200)
        assert near.area == (20, 20, 5, 5)
        assert far.area == (10, 10, 25, 25)
