"""Vocabularies and histograms of rasters, whatever the chunks, tasks and workers."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from made_products import bands, publish
from sample_stores import sample_arrays, write_samples

import lcengine
from lcengine import inputs, store
from lcengine.errors import InputError
from lcengine.features import Division, Vocabulary, bag_of_colors, clusters
from lcengine.features.vocabulary import chosen, raw_planes
from lcengine.features.windows import Images, windows_of
from lcengine.grid import Grid
from lcengine.inputs import Input
from lcengine.locate import Window
from lcengine.models.bag import BagOfColors
from lcengine.predict import task
from lcengine.predict.plan import plan_predict
from lcengine.samples import sampleset

RGBN = ("red", "green", "blue", "nir")
HEIGHT, WIDTH = 280, 300


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def product(path, tile):
    left, top = 600_000.0, 5_600_000.0
    box = left, top - 10 * HEIGHT, left + 10 * WIDTH, top
    grid = Grid.from_bounds(*box, 32631, 10.0, tile)
    return publish(path, grid, bands(RGBN, (HEIGHT, WIDTH)))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    return [product(folder / f"{tile}.zarr", tile) for tile in (64, 128)]


def fitted(source, **options):
    return Vocabulary.fit(source, **({"colors": 12, "rounds": 2, "batch": 2000} | options))


def same(found, other):
    return all(
        np.array_equal(getattr(found, name), getattr(other, name))
        for name in ("colors", "gains", "steps")
    )


@pytest.fixture(scope="module")
def vocabulary(paths):
    return fitted(paths[0])


class TestVocabulary:
    def test_tiles_and_tasks_change_nothing(self, paths, vocabulary, monkeypatch):
        assert same(fitted(paths[1]), vocabulary)
        assert same(fitted({"image": paths[0]}), vocabulary)
        monkeypatch.setattr(clusters, "PER_TASK", 1)
        assert same(fitted(paths[0]), vocabulary)
        with dask.config.set(scheduler="synchronous"):
            assert same(fitted(paths[0]), vocabulary)
        assert not same(fitted(paths[0], seed=1), vocabulary)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_change_nothing(self, paths, vocabulary, workers):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
        )
        with cluster, Client(cluster), dask.config.set(scheduler="distributed"):
            assert same(fitted(paths[1]), vocabulary)

    def test_a_dataset_of_stored_numbers_gives_that_of_its_product(self, paths, vocabulary):
        raw = store.stored(paths[0])[list(RGBN)]
        found = fitted(raw.chunk({"y": 100, "x": 77}))
        assert same(found, vocabulary)
        cube = raw.to_dataarray("band").assign_attrs(_FillValue=-32768)
        assert same(fitted(cube), vocabulary)

    def test_of_all_pixels_a_round_is_a_step_of_lloyd(self):
        images = np.random.default_rng(0).integers(0, 3000, (3, 4, 20, 20)).astype(np.int16)
        images[0, 1, :5] = -32768
        entry = Input("image", RGBN, "int16", -32768)
        source = Images((entry,), {"image": images}, RGBN)
        first, _ = clusters._begun(source, 9, (0, -1, 10**6))
        pixels = np.moveaxis(images, 1, -1).reshape(-1, 4)
        pixels = pixels[(pixels != -32768).all(axis=1)].astype(np.float64)
        assert np.allclose(first.gains, 1 / pixels.std(axis=0), rtol=1e-12)
        centres, seen = first.colors, np.zeros(9)
        for rounds in (1, 2):
            apart = np.square((pixels[:, None] - centres) * first.gains).sum(axis=2)
            words = apart.argmin(axis=1)
            counts = np.bincount(words, minlength=9)
            sums = np.stack([np.bincount(words, v, minlength=9) for v in pixels.T], axis=1)
            centres = (centres * seen[:, None] + sums) / (seen + counts)[:, None]
            seen = seen + counts
            found = fitted(source, colors=9, rounds=rounds, batch=10**6)
            assert np.allclose(found.colors, centres, rtol=1e-12)

    def test_samples_with_periods_and_floats(self, tmp_path):
        arrays = sample_arrays(12, 16)
        samples = sampleset.open(write_samples(tmp_path / "samples.zarr", arrays))
        found = fitted(samples, bands=("nir", "red", "s1.vv"), colors=8)
        assert found.channels == ("s2.nir", "s2.red", "s1.vv@2024-01", "s1.vv@2024-02")
        assert found.steps[:2].tolist() == [1, 1]
        mean = (found.colors * found.steps).mean(axis=0)
        assert np.allclose(mean, [100, 100, -12, -12], rtol=0.5)
        assert same(
            fitted(str(tmp_path / "samples.zarr"), bands=("nir", "red", "vv"), colors=8), found
        )

    def test_gaps_are_filled_with_the_period_before_else_the_first_after(self):
        entry = Input("s1", ("vv",), "int16", -1, times=("a", "b", "c", "d"))
        series = np.array([[-1, 5, -1, 7], [4, -1, -1, -1], [-1, -1, -1, 3], [1, 2, 3, 4]])
        values = series.astype(np.int16).T[None, :, None, None, :]
        filled = raw_planes((entry,), {"s1": values})[:, 0, 0].T
        assert filled.tolist() == [[5, 5, 5, 7], [4, 4, 4, 4], [3, 3, 3, 3], [1, 2, 3, 4]]

    @pytest.mark.parametrize(
        ("wanted", "said"),
        [
            (("blu",), "in 0 of the sources"),
            (("red", "red"), "given twice"),
            (("nir",), "in 2 of the sources"),
        ],
    )
    def test_bands_that_cannot_be(self, wanted, said):
        known = (Input("a", RGBN, "int16", -1), Input("b", ("nir",), "int16", -1))
        assert chosen(known, ("b.nir", "red"))[0].bands == ("nir",)
        with pytest.raises(InputError, match=said):
            chosen(known, wanted)

    def test_sources_that_cannot_be(self, paths):
        with pytest.raises(InputError, match="fitted to a int"):
            windows_of(3, ())
        empty = Images((Input("i", RGBN, "int16", 0),), {"i": np.zeros((1, 4, 8, 8), "i2")}, ())
        with pytest.raises(InputError, match="no valid pixel"):
            Vocabulary.fit(empty)
        none = Images((Input("i", RGBN, "int16", 0),), {"i": np.zeros((0, 4, 8, 8), "i2")}, ())
        with pytest.raises(InputError, match="no windows"):
            Vocabulary.fit(none)
        with pytest.raises(InputError, match="bands are 'red', expected a list"):
            Vocabulary.fit(paths[0], bands="red")

    def test_a_raster_that_is_mostly_empty_has_colours(self):
        """Of 2000 windows the first 64 by hash need not have a pixel."""
        rng = np.random.default_rng(0)
        pixels = rng.integers(1, 3000, (2000, 4, 4, 4)).astype(np.int16)
        full = rng.choice(2000, 40, replace=False)
        pixels[np.setdiff1d(np.arange(2000), full)] = 0
        given = (Input("i", RGBN, "int16", 0),)
        found = fitted(Images(given, {"i": pixels}, ()), batch=500)
        assert found.colors.shape == (12, 4)
        _, places = clusters._begun(Images(given, {"i": pixels}, ()), 12, (0, -1, 500))
        assert len(places) > 5
        assert set(places) <= set(full)


class TestHistograms:
    def expected(self, path, vocabulary, window, division):
        """Window by window, from the product's files."""
        raw = store.stored(path)
        image = np.stack([raw[band].values for band in RGBN])
        valid = (image != -32768).all(axis=0)
        out = np.full((len(vocabulary.colors), HEIGHT, WIDTH), np.nan, np.float32)
        for y in range(0, HEIGHT, window):
            for x in range(0, WIDTH, window):
                part = (..., slice(y, y + window), slice(x, x + window))
                bag = vocabulary.bag(image[part], valid[part], division)
                for segment, counts in enumerate(bag.counts):
                    shares = (counts / max(counts.sum(), 1)).astype(np.float32)
                    out[part][:, bag.segments == segment] = shares[:, None]
        return out

    @pytest.mark.parametrize("chunks", [50, 64, 128, 300])
    def test_are_those_of_windows_whatever_the_chunks(self, paths, vocabulary, chunks):
        division = Division(7, seed=2)
        data = lcengine.open(paths[0]).chunk({"y": chunks, "x": chunks})
        found = bag_of_colors(data, vocabulary, window=64, division=division)
        assert found.dims == ("color", "y", "x")
        assert found.dtype == np.float32
        assert dask.is_dask_collection(found)
        wanted = self.expected(paths[0], vocabulary, 64, division)
        assert np.array_equal(found.values, wanted, equal_nan=True)
        part = found.isel(y=slice(100, 150), x=slice(10, 40))
        assert np.array_equal(part.values, wanted[:, 100:150, 10:40], equal_nan=True)

    def test_stored_numbers_give_the_same(self, paths, vocabulary):
        raw = store.stored(paths[1])[list(RGBN)]
        decoded = bag_of_colors(lcengine.open(paths[1]), vocabulary)
        assert np.array_equal(bag_of_colors(raw, vocabulary), decoded, equal_nan=True)
        sums = decoded.sum("color", skipna=False).values
        assert np.allclose(sums[np.isfinite(sums)], 1, atol=1e-5)
        assert 0.3 < np.isnan(sums).mean() < 0.4
        known = fitted(raw)  # of stored numbers, and used on decoded ones
        found = bag_of_colors(lcengine.open(paths[1]), known)
        assert np.array_equal(found, bag_of_colors(raw, known), equal_nan=True)
        bare = xr.Dataset({band: raw[band].assign_attrs(scale_factor=None) for band in RGBN})
        with pytest.raises(InputError, match="without a known scale; give the same stored"):
            bag_of_colors(lcengine.open(paths[1]), fitted(bare))

    def test_series_are_channels(self):
        rng = np.random.default_rng(0)
        values = rng.integers(0, 3000, (3, 60, 70)).astype(np.int16)
        values[1][rng.random((60, 70)) < 0.3] = -32768
        data = xr.Dataset({"red": (("time", "y", "x"), values, {"_FillValue": -32768})})
        data = data.assign_coords(time=["a", "b", "c"])
        known = fitted(data, bands=("red",))
        assert known.channels == ("cube.red@a", "cube.red@b", "cube.red@c")
        found = bag_of_colors(data, known, window=32)
        assert np.isfinite(found.values).all()
        with pytest.raises(InputError, match="has 2 periods"):
            bag_of_colors(data.isel(time=slice(2)), known)

    def test_what_does_not_fit(self, paths, vocabulary):
        data = store.stored(paths[0])
        with pytest.raises(InputError, match="band 'nir'"):
            bag_of_colors(data[["red", "green", "blue"]], vocabulary)
        with pytest.raises(InputError, match="int32 values"):
            bag_of_colors(data[list(RGBN)].astype("int32"), vocabulary)
        with pytest.raises(InputError, match="dimension band"):
            bag_of_colors(data["red"], vocabulary)
        with pytest.raises(InputError, match="window is 0"):
            bag_of_colors(data, vocabulary, window=0)
        with pytest.raises(InputError, match="rounds is -1"):
            Division(rounds=-1)


def test_words_of_a_product_on_all_cpus_are_those_of_one_thread(paths, vocabulary):
    source = inputs.Inputs(inputs.layers({"image": paths[0]}), store.grid_of(paths[0]))
    arrays = source.read(Window(0, 0, HEIGHT, WIDTH))
    planes = vocabulary.planes(arrays)
    valid = np.ones(planes.shape[1:], bool)
    found = vocabulary.words(planes, valid, threaded=True)
    assert np.array_equal(found, vocabulary.words(planes, valid))


def test_a_predicted_map_is_that_of_windows_whatever_the_tiles(paths, tmp_path):
    """Windows of 100 pixels, tiles of 64 and 128: both read windows that they share."""
    source = inputs.Inputs(inputs.layers({"image": paths[0]}), store.grid_of(paths[0]))
    image = source.read(Window(0, 0, HEIGHT, WIDTH))["image"]
    labels = (image[:, 0] > 4000).astype(np.uint8)
    classifier = {"kind": "forest", "trees": 10}
    bag = BagOfColors(12, 6, classifier, window=100, image=source.inputs[0])
    proba = bag.fit(image, labels).predict_proba(image)[0]
    spec, folder = bag.predictor.spec, bag.save(tmp_path / "model").path
    assert np.array_equal(BagOfColors.load(folder).predict_proba(image)[0], proba)
    valid = (image != -32768).all(axis=1)[0]
    wanted = np.where(valid, np.array(spec.legend.codes)[proba.argmax(axis=0)], spec.legend.nodata)
    for path in paths:
        plan = plan_predict({"image": path}, folder)
        found = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number in plan.tiles:
            made, _ = task.compute(plan, number, 0)
            found[plan.grid.tile_at(number).slices] = made["label"]
        assert np.array_equal(found, wanted)
