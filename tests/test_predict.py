"""Predicted maps: tiles by the engine are what the model says of the whole raster."""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import distributed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_products import bands, labels, publish
from plain_model import LEGEND, plain

import lcengine
from lcengine import jobs, models, samples, store
from lcengine.errors import InputError, RunError, StoreError
from lcengine.grid import Grid, Tile
from lcengine.inputs import Input, Inputs, layers, observed
from lcengine.kernels import decide
from lcengine.locate import Window
from lcengine.models import KINDS, ModelSpec
from lcengine.periods import PeriodRule
from lcengine.predict import task
from lcengine.predict import windows as cutting
from lcengine.predict.plan import PredictPlan, plan_predict
from lcengine.samples.plan import plan_samples
from lcengine.samples.spec import SampleSpec
from lcengine.samples.stack_source import open_stack

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
NAMES = ("blue", "green", "red", "nir")


def grid_of(height=330, width=290, tile=128, size=10.0):
    return Grid.from_bounds(
        LEFT, TOP - height * size, LEFT + width * size, TOP, UTM, size, tile=tile
    )


@pytest.fixture(scope="module", autouse=True)
def kinds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "plain", "plain_model")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Monthly bands with gaps, and a single date of radar with larger pixels."""
    folder = tmp_path_factory.mktemp("products")
    grid = grid_of()
    ends = dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 5, 31, tzinfo=dt.UTC)
    months = PeriodRule.parse("month").periods(*ends)
    optical = bands(NAMES, (2, *grid.shape))
    for values in optical.values():
        values[:, 100:140, 60:] = -32768
        values[:, :128, 128:256] = -32768  # a whole tile of 128
    radar = bands(("vv", "vh"), (170, 150), seed=5, scale=0.01, units="dB")
    return {
        "folder": folder,
        "s2": publish(folder / "s2.zarr", grid, optical, months, sensor="sentinel-2-l2a"),
        "s1": publish(folder / "s1.zarr", grid_of(170, 150, 128, 20.0), radar),
    }


@pytest.fixture(scope="module")
def inputs(made):
    """What a model is told of both products."""
    found = Inputs(layers({name: made[name] for name in ("s2", "s1")}), grid_of()).inputs
    return {entry.name: entry for entry in found}


@pytest.fixture(scope="module")
def model(made, inputs):
    """A folder with a model of the optical product."""
    return models.save(plain([inputs["s2"]]), made["folder"] / "model").path


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as found, distributed.Client(found) as opened:  # fmt: skip
        yield opened


def expected(plan):
    """Label, probabilities (class, y, x) and validity of the whole raster, by NumPy."""
    height, width = plan.grid.shape
    whole = Inputs(plan.layers, plan.grid).read(Window(0, 0, height, width))
    valid = observed(plan.spec.inputs, whole)
    edge = plan.spec.patch if plan.spec.patch > 1 else max(height, width)
    proba = np.zeros((len(plan.legend.classes), height, width), np.float32)
    for y in range(0, height, edge):
        for x in range(0, width, edge):
            cut = np.s_[..., y : y + edge, x : x + edge]
            if valid[cut].any():
                part = {name: values[cut].copy() for name, values in whole.items()}
                proba[cut] = plan.predictor.predict(part, valid[cut].copy())[0]
    codes = np.array(plan.legend.codes, plan.legend.dtype)
    label = np.where(valid[0], codes[proba.argmax(axis=0)], plan.legend.nodata)
    return label, proba, valid[0]


def by_tiles(plan, order=None):
    """All variables of a plan, tile by tile, and the facts of them."""
    whole = {v.name: np.full(plan.grid.shape, v.missing, v.dtype) for v in plan.variables()}
    receipts = []
    for number in order or plan.tiles:
        made, receipt = task.compute(plan, number, 0)
        for name, values in made.items():
            whole[name][plan.grid.tile_at(number).slices] = values
        receipts.append(json.loads(json.dumps(receipt)))
    return whole, task.finish(plan, lambda: iter(receipts))[0]


# --------------------------------------------------------------------------------------- kernels

PROBABILITIES = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 0.1, 0.3, 0.7, 1e-7]),
)


@given(PROBABILITIES, st.integers(0, 99))
def test_classes_and_scores_are_what_numpy_makes_of_them(raw, seed):
    raw[0] += np.where(raw.sum(axis=0) == 0, np.float32(1), 0)
    proba = (raw / raw.sum(axis=0)).astype(np.float32)
    valid = np.random.default_rng(seed).random(proba.shape[1:]) < 0.8
    exact = proba.astype(np.float64)
    ranked = -np.sort(-exact, axis=0)
    ranked = ranked if len(ranked) > 1 else np.concatenate([ranked, 0 * ranked])
    logs = np.log2(np.where(exact > 0, exact, 1))
    entropy = -(exact * logs).sum(axis=0) / (math.log2(len(proba)) if len(proba) > 1 else 1)
    for kernel, answer in [
        (decide.classes, proba.argmax(axis=0)),
        (decide.margin, np.rint(250 * (ranked[0] - ranked[1]))),
        (lambda p, v, out: decide.shares(p[0], v, out), np.rint(250 * exact[0])),
    ]:
        out = np.empty(valid.shape, np.uint8)
        assert not kernel(proba, valid, out)
        np.testing.assert_array_equal(out, np.where(valid, answer, 255))
    out = np.empty(valid.shape, np.uint8)
    decide.entropy(proba, valid, out)
    assert (out[~valid] == 255).all()
    assert (np.abs(out[valid] - np.clip(250 * entropy, 0, 250)[valid]) < 0.5 + 1e-9).all()


def test_entropies_between_two_steps_are_rounded_to_even():
    proba = np.array([0.5, 0.25, 0.25, 0], np.float32).reshape(4, 1, 1)  # 0.75 · 250 = 187.5
    out = np.empty((1, 1), np.uint8)
    decide.entropy(proba, np.ones((1, 1), np.bool_), out)
    assert out == 188


@given(st.floats(1e-30, 1.0))
def test_logarithms(value):
    assert decide.log2(value) == pytest.approx(math.log2(value), rel=1e-14, abs=3e-16)


@pytest.mark.parametrize("power", [0, 1, 8, -1, -2, -24, -100])
def test_logarithms_of_powers_of_two_are_exact(power):
    assert decide.log2(2.0**power) == power


def test_probabilities_that_do_not_add_up_are_counted():
    proba = np.array([[0.5, 0.5, np.nan, 0.4], [0.5, 0.6, 0.5, 0]], np.float32)[:, None]
    valid = np.array([[True, True, True, False]])
    assert decide.classes(proba, valid, np.empty((1, 4), np.uint8)) == 2


# --------------------------------------------------------------------------------------- windows


@given(
    patch=st.sampled_from([1, 7, 16, 64, 256]),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    tile=st.sampled_from([16, 48, 128, 320]),
    block=st.sampled_from([16, 50, 512]),
)
@settings(max_examples=60)
def test_windows_cover_every_tile_once_and_are_those_of_the_raster(patch, shape, tile, block):
    spec = ModelSpec("plain", (Input("a", ("x",), "uint8", 0),), LEGEND, patch=patch)
    grid = grid_of(*shape, tile)
    lattice = set()
    with pytest.MonkeyPatch.context() as change:
        change.setattr(cutting, "BLOCK", block)
        for part in grid.tiles():
            met = np.zeros((part.height, part.width), int)
            for read in cutting.reads(spec, grid.shape, part):
                for window in cutting.windows(spec, read):
                    shared = cutting.common(window, part)
                    assert shared is not None
                    met[cutting.inside(shared, part)] += 1
                    lattice.add(window)
            assert (met == 1).all()
    if patch > 1:
        assert lattice == {
            Window(y, x, min(patch, shape[0] - y), min(patch, shape[1] - x))
            for y in range(0, shape[0], patch)
            for x in range(0, shape[1], patch)
        }


def test_what_is_read_at_once_is_bounded():
    many = Input("a", tuple(f"b{i}" for i in range(100)), "float32", None, ("2018-01", "2018-02"))
    spec = ModelSpec("plain", (many,), LEGEND)
    assert cutting.edge(spec) == 256  # two hundred layers of four bytes
    assert cutting.edge(replace(spec, patch=256)) == 256
    few = Input("a", ("red",), "uint8", 0)
    assert cutting.edge(replace(spec, inputs=(few,))) == 512
    assert cutting.edge(replace(spec, inputs=(few,), patch=100)) == 500
    at_once = cutting.windows(spec, Window(0, 0, 512, 300))
    assert {(w.height, w.width) for w in at_once} == {(218, 300), (76, 300)}
    assert cutting.common(Window(0, 0, 5, 5), Tile(0, 0, 0, 5, 0, 9, 9)) is None


# ------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("patch", [1, 60])
@pytest.mark.parametrize("tile", [128, 256])
def test_tiles_are_the_one_raster(made, inputs, tmp_path, patch, tile, monkeypatch):
    monkeypatch.setattr(cutting, "BLOCK", 100)
    folder = models.save(plain([inputs["s2"], inputs["s1"]], patch), tmp_path / "model").path
    sources = {"s1": made["s1"], "s2": made["s2"]}
    plan = plan_predict(
        sources, folder, proba=True, uncertainty=["margin", "entropy"], grid=grid_of(tile=tile)
    )
    label, proba, valid = expected(plan)
    whole, facts = by_tiles(plan, plan.tiles[::-1])
    assert whole["label"].dtype == np.uint16
    assert 0.5 < valid.mean() < 0.95
    np.testing.assert_array_equal(whole["label"], label)
    assert (whole["label"] == 65535)[~valid].all()
    exact = proba.astype(np.float64)
    names = ["probability_10_tree", "probability_40_crop", "probability_300_wet_land"]
    assert list(whole) == ["label", *names, "entropy", "margin"]
    for name, values in zip(names, exact, strict=True):
        np.testing.assert_array_equal(whole[name], np.where(valid, np.rint(250 * values), 255))
    ranked = np.sort(exact, axis=0)
    margin = np.rint(250 * (ranked[-1] - ranked[-2]))
    np.testing.assert_array_equal(whole["margin"], np.where(valid, margin, 255))
    counts = dict(zip(*np.unique(label[valid], return_counts=True), strict=True))
    assert facts["pixels"] == {e.name: counts.get(e.code, 0) for e in LEGEND.classes}


def test_chunks_of_the_product_do_not_matter(made, model, tmp_path):
    """Nor does whether its tiles begin where those of the map do."""
    data = store.stored(made["s2"])
    periods = PeriodRule.parse("month").periods(
        dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 5, 31, tzinfo=dt.UTC)
    )
    same = {
        store.Variable(name, "int16", -32768, name, 1e-4, "1"): data[name].values for name in NAMES
    }
    other = publish(tmp_path / "s2.zarr", grid_of(tile=80), same, periods)
    plans = plan_predict(made["s2"], model), plan_predict(other, model)
    found = [by_tiles(plan)[0]["label"] for plan in plans]
    assert len(plans[1].tiles) > len(plans[0].tiles)
    np.testing.assert_array_equal(*found)


def test_the_area_of_interest_and_tiles_without_pixels(made, model):
    square = grid_of()
    left, _, _, top = square.bounds
    aoi = f"POLYGON (({left} {top}, {left + 900} {top}, {left} {top - 1500}, {left} {top}))"
    grid = Grid.from_dict(square.to_dict() | {"aoi": aoi})
    plan = plan_predict(made["s2"], model, grid=grid)
    assert plan.tiles == (0, 3)
    label, _, valid = expected(plan)
    whole, _ = by_tiles(plan)
    np.testing.assert_array_equal(whole["label"], label)
    assert valid.any()
    assert not valid[149, 5]
    _, receipt = task.compute(plan_predict(made["s2"], model), 1, 0)
    assert (receipt["predicted"], receipt["codes"]) == (0, {})


def test_a_plan_comes_back_from_json_and_files(made, model):
    plan = plan_predict(made["s2"], model, proba=True)
    files = plan.files()
    again = PredictPlan.from_json(json.loads(json.dumps(plan.to_json())), files.__getitem__)
    assert again == plan
    assert again.run_id == plan.run_id
    for made_here, made_there in zip(
        task.compute(plan, 0, 0)[0].values(), task.compute(again, 0, 0)[0].values(), strict=True
    ):
        np.testing.assert_array_equal(made_here, made_there)
    files["model-model.safetensors"] = files["model-model.safetensors"][:-1] + b"\1"
    with pytest.raises(InputError, match=r"is not the file that model\.json describes"):
        _ = PredictPlan.from_json(plan.to_json(), files.__getitem__).predictor


def test_a_model_that_breaks_its_promise_is_an_error(made, model, monkeypatch):
    plan = plan_predict(made["s2"], model)
    usual = plan.predictor.predict
    monkeypatch.setattr(plan.predictor, "predict", lambda *a: usual(*a) * np.float32(1.1))
    with pytest.raises(InputError, match="do not add up to 1"):
        task.compute(plan, 0, 0)
    monkeypatch.setattr(plan.predictor, "predict", lambda *a: usual(*a)[:, :2])
    with pytest.raises(InputError, match=r"\(2, 128, 128\), expected \(3, 128, 128\)"):
        task.compute(plan, 0, 0)


# ---------------------------------------------------------------------------------------- product


class TestProduct:
    """Through the engine."""

    def test_the_product_is_the_raster(self, made, model, client, tmp_path):
        plan = plan_predict(made["s2"], model, proba=True, uncertainty=["entropy"])
        output = jobs.run(plan, tmp_path / "map.zarr", client=client)
        label, proba, valid = expected(plan)
        np.testing.assert_array_equal(store.stored(output)["label"], label)
        assert store.legend_of(output) == LEGEND
        facts = store.provenance(output)
        assert facts["model"] == {"kind": "plain", "path": model, "sha256": plan.model.sha256}
        assert ModelSpec.from_json(facts["model_spec"]) == plan.spec
        assert sum(facts["pixels"].values()) == valid.sum()
        opened = lcengine.open(output)
        tree = opened["probability_10_tree"].values
        assert np.nanmax(np.abs(tree - np.where(valid, proba[0], np.nan))) < 0.00201
        np.testing.assert_array_equal(np.isnan(tree), ~valid)
        assert opened["label"].attrs["flag_values"] == [10, 40, 300]
        assert not store.verify(output).faults

    def test_the_same_bytes_for_any_tiles(self, made, model, client, tmp_path):
        found = []
        for tile in (128, 256):
            plan = plan_predict(made["s2"], model, proba=True, grid=grid_of(tile=tile))
            output = jobs.run(plan, tmp_path / f"{tile}.zarr", client=client)
            found.append(store.stored(output).load())
        assert found[0].equals(found[1])

    def test_unfinished_work_goes_on_without_the_folder_of_the_model(
        self, made, model, client, tmp_path, monkeypatch
    ):
        folder = shutil.copytree(model, tmp_path / "model")
        plan = plan_predict(made["s2"], folder)
        usual = Inputs.read

        def fails_below(self, window):
            if window.y0 >= 256:
                raise InputError("no such luck")
            return usual(self, window)

        monkeypatch.setattr(Inputs, "read", fails_below)
        with pytest.raises(RunError, match="no such luck"):
            jobs.run(plan, tmp_path / "map.zarr", client=client)
        monkeypatch.undo()
        assert jobs.status(tmp_path / "map.zarr")["done"] == 6
        shutil.rmtree(folder)
        jobs.load.cache_clear()
        output = jobs.resume(tmp_path / "map.zarr", client=client)
        np.testing.assert_array_equal(
            store.stored(output)["label"], expected(plan_predict(made["s2"], model))[0]
        )

    def test_another_model_in_the_same_folder_is_another_request(
        self, made, inputs, client, tmp_path
    ):
        folder = models.save(plain([inputs["s2"]]), tmp_path / "model").path
        plan = plan_predict(made["s2"], folder)
        output = jobs.run(plan, tmp_path / "map.zarr", client=client, request=plan.to_json())
        models.save(plain([inputs["s2"]], seed=1), tmp_path / "model")
        again = plan_predict(made["s2"], folder)
        assert again.run_id != plan.run_id
        with pytest.raises(StoreError, match=r"model\.sha256"):
            jobs.run(again, output, client=client, request=again.to_json())
        with pytest.raises(InputError, match="holds another model than when this was planned"):
            plan.model.load()


# ----------------------------------------------------------------------------------------- checks


class TestChecks:
    """What a model was not made for is refused before anything runs, naming both."""

    @pytest.fixture
    def fits(self, made, inputs, tmp_path):
        """Plans with a model that learned from other inputs."""

        def build(sources=None, grid=None, size=10.0, **change):
            taken = replace(inputs["s2"], **change)
            folder = models.save(plain([taken], resolution=size), tmp_path / "other").path
            return plan_predict(sources or made["s2"], folder, grid=grid)

        return build

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bands": ("blue", "swir16")}, "lacks swir16: it has blue, green, red, nir, and the"),
            ({"dtype": "uint16"}, "dtype int16; the model was trained on dtype uint16"),
            ({"fill": 0}, "fill -32768; the model was trained on fill 0"),
            ({"scale": 2.75e-05}, "scale 0.0001; the model was trained on scale 2.75e-05"),
            ({"scale": None}, "scale 0.0001; the model was trained on scale None"),
            ({"units": "dB"}, "units 1; the model was trained on units dB"),
            ({"sensor": "landsat"}, "sensor sentinel-2-l2a; the model was trained on sensor lan"),
            ({"times": ()}, "periods 2018-04, 2018-05; the model was trained on none"),
            ({"times": ("2017-04",)}, "periods 2018-04, 2018-05; the model was trained on 2017-0"),
            ({"times": ("2017-05", "2017-06")}, "trained on 2017-05, 2017-06; composite the same"),
            ({"size": 20.0}, r"pixels are 10 wide \(EPSG:32631\), and the model was trained on 20"),
            ({"name": "s3", "sources": {"s2": "x.zarr"}}, "are s2; the model expects s3=PRODUCT"),
        ],
    )  # fmt: skip
    def test_differences_are_named(self, fits, change, message):
        with pytest.raises(InputError, match=message):
            fits(**change)

    @pytest.mark.parametrize(
        "change",
        [
            {"times": ("2021-04", "2021-05")},
            {"sensor": None},
            {"units": None},
            {"size": 10.05},
            {"size": None},
            {"name": "s3"},
        ],
    )
    def test_what_means_the_same_is_taken(self, fits, change):
        assert fits(**change).tiles

    def test_years_are_counted_from_the_first(self):
        from lcengine.predict.check import _seasons

        assert _seasons(["2017-11", "2018-02"]) == _seasons(["2020-11", "2021-02"])
        assert _seasons(["2017-11", "2018-02"]) != _seasons(["2020-11", "2020-12"])
        assert _seasons(["2017-10-01/2018-06-30"]) == _seasons(["2020-10-01/2021-06-30"])
        assert _seasons(["2017"]) == _seasons(["2019"])
        assert _seasons(["dry", "wet"]) != _seasons(["wet", "dry"])

    def test_bands_are_read_in_the_models_order(self, made, inputs, model, tmp_path):
        turned = replace(inputs["s2"], bands=NAMES[::-1])
        usual, other = plain([inputs["s2"]]), plain([turned])
        weights = usual.weights.reshape(3, 2, 4)[..., ::-1].reshape(3, 8)
        other.weights = np.ascontiguousarray(weights)
        folder = models.save(other, tmp_path / "model").path
        ours, theirs = (plan_predict(made["s2"], path) for path in (folder, model))
        read = [plan.inputs.read(Window(0, 0, 50, 50))["s2"] for plan in (ours, theirs)]
        np.testing.assert_array_equal(read[0], read[1][:, :, ::-1])

    def test_bands_with_other_names(self, made, inputs, model, tmp_path):
        codes = ("B02", "B03", "B04", "B08")
        taken = replace(inputs["s2"], bands=codes)
        folder = models.save(plain([taken]), tmp_path / "model").path
        with pytest.raises(InputError, match="lacks B02, B03, B04, B08: it has blue, green"):
            plan_predict(made["s2"], folder)
        plan = plan_predict(made["s2"], folder, bands={"s2": NAMES})
        np.testing.assert_array_equal(
            by_tiles(plan)[0]["label"], by_tiles(plan_predict(made["s2"], model))[0]["label"]
        )
        for given_bands in (NAMES[::-1], NAMES[:3]):
            with pytest.raises(
                InputError, match="the model expects blue, green, red, nir, in this"
            ):
                plan_predict(made["s2"], model, bands={"s2": given_bands})
        with pytest.raises(InputError, match=r"bands are given of \['s1'\]"):
            plan_predict(made["s2"], model, bands={"s1": NAMES})

    def test_what_else_cannot_be(self, made, inputs, model, tmp_path):
        with pytest.raises(
            InputError, match=r"uncertainty is \['sure'\], expected some of entropy"
        ):
            plan_predict(made["s2"], model, uncertainty=["sure"])
        with pytest.raises(InputError, match=r"model\.json cannot be read: No such file"):
            plan_predict(made["s2"], tmp_path / "none")
        two = models.save(plain([inputs["s2"], inputs["s1"]]), tmp_path / "two").path
        with pytest.raises(InputError, match=r"one product without a name, .*s2\.zarr; the model"):
            plan_predict(made["s2"], two)
        far = plain([inputs["s2"]])
        far.spec = replace(far.spec, margin=None)
        folder = models.save(far, tmp_path / "far").path
        with pytest.raises(InputError, match="any number of pixels beyond its patches, expected 0"):
            plan_predict(made["s2"], folder)


class TestTrained:
    """From samples of a product to a map of it, with a kind that scikit-learn fits."""

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, made, client, tmp_path_factory):
        """(product, labels as indices, folder of the model)"""
        folder = tmp_path_factory.mktemp("trained")
        grid = grid_of(256, 256)
        layers = bands(("red", "nir"), grid.shape)
        product = publish(folder / "s2.zarr", grid, layers)
        red, nir = layers.values()
        truth = np.where(nir > 6000, 2, (red > 3000).astype(np.uint8)).astype(np.uint8)
        codes = np.array(LEGEND.codes, np.uint16)[truth]
        labelled = labels(folder / "labels.zarr", grid, codes, LEGEND)
        spec = SampleSpec(16, buffer=0, block=32, fractions=(0.6, 0.2, 0.2))
        plan = plan_samples(open_stack({"s2": product}, labelled), spec)
        found = samples.open(jobs.run(plan, folder / "samples.zarr", client=client))
        kind = models.kind("logistic")
        model = kind.fit(found, kind.options(), models.Training())
        return product, truth, models.save(model, folder / "model").path

    def test_its_map_is_that_of_the_labels(self, trained):
        product, truth, folder = trained
        plan = plan_predict(product, folder)
        assert plan.spec.resolution == 10
        label = by_tiles(plan)[0]["label"]
        seen = label != 65535
        assert 0.75 < seen.mean() < 0.85
        assert (LEGEND.encode(label)[seen] == truth[seen]).mean() > 0.9
        np.testing.assert_array_equal(label, expected(plan)[0])

    def test_predicting_needs_no_library_of_training(self, trained):
        """In a process that has none of them."""
        product, _, folder = trained
        code = (
            "import sys; "
            "sys.modules.update(dict.fromkeys(('torch', 'sklearn', 'xgboost', 'lightgbm'))); "
            "from lcengine.predict import plan, task; "
            f"found = plan.plan_predict({str(product)!r}, {folder!r}); "
            "print(task.compute(found, 0, 0)[1]['predicted'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) > 0
