"""From a recipe to a folder: samples, model, report; the same recipe does nothing again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import distributed
import numpy as np
import pytest
import sklearn.metrics
from made_products import bands, labels, publish

from lcengine import models, recipes, samples
from lcengine.errors import InputError, StoreError
from lcengine.grid import Grid
from lcengine.inputs import observed
from lcengine.legends import Entry, Legend
from lcengine.recipes.assess import assess

EDGE = 96
LEGEND = Legend(
    "cover",
    "Cover",
    (Entry(3, "crop", "#e6c800"), Entry(5, "grass", "#4ca64c"), Entry(8, "water", "#0000ff")),
    "made up",
)
TEXT = """
[data]
sources = { s2 = "bands.zarr" }
labels = "labels.zarr"
[samples]
patch = 8
block = 16
buffer = 0
[model]
kind = "logistic"
[objective]
seed = 1
"""


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a product whose red tells the class, labels of it and a recipe."""
    folder = tmp_path_factory.mktemp("world")
    grid = Grid.from_bounds(0, 0, EDGE * 10, EDGE * 10, 32631, 10, tile=64)
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, (EDGE // 4, EDGE // 4)).repeat(4, 0).repeat(4, 1)
    layers = bands(("red", "nir"), (EDGE, EDGE))
    for variable, values in layers.items():
        if variable.name == "red":
            there = values != -32768
            noise = rng.normal(0, 250, values.shape)
            values[there] = (1000 + 1000 * truth + noise)[there].astype(np.int16)
    publish(folder / "bands.zarr", grid, layers)
    codes = np.array(LEGEND.codes)[truth]
    codes[rng.random(codes.shape) < 0.2] = LEGEND.nodata
    labels(folder / "labels.zarr", grid, codes, LEGEND)
    (folder / "recipe.toml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def trained(world, client):
    recipe = recipes.read(world / "recipe.toml")
    return recipes.train(recipe, running=recipes.Running(client))


def test_the_folder_holds_all(world, trained):
    assert trained.folder == world / "recipe"
    names = {path.name for path in trained.folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "samples.zarr",
        "model",
        "report.json",
        "confusion-val.png",
        "confusion-test.png",
        "examples-val.png",
        "examples-test.png",
        "reliability.png",
    }
    told = json.loads((trained.folder / "report.json").read_text())
    assert told["model"] == {"kind": "logistic", "sha256": trained.model.sha256}
    assert set(told["accuracy"]) == set(told["reliability"]) == {"val", "test"}
    spec = models.load(trained.folder / "model").spec
    assert spec.metrics["test"]["macro"]["f1"] == trained.accuracy["test"].macro["f1"]
    assert trained.accuracy["test"].overall > 0.85  # noise of a quarter of a class's distance


def test_accuracy_is_that_of_scikit_learn(trained):
    found = samples.open(trained.samples)
    predictor = models.load(trained.folder / "model")
    arrays = found.read(found.split("test"))
    valid = observed(found.inputs, arrays)
    proba = predictor.predict({"s2": arrays["s2"]}, valid)
    known = valid & (arrays["label"] != 255)
    truth, mapped = arrays["label"][known], proba.argmax(axis=1)[known]
    accuracy = trained.accuracy["test"]
    np.testing.assert_array_equal(
        accuracy.counts, sklearn.metrics.confusion_matrix(truth, mapped, labels=[0, 1, 2])
    )
    lost = ~valid & (arrays["label"] != 255)
    np.testing.assert_array_equal(accuracy.missing, np.bincount(arrays["label"][lost], minlength=3))
    curve = trained.reliability["test"]
    assert curve.counts.sum() == known.sum()
    best = proba.max(axis=1)[known]
    np.testing.assert_allclose(np.nansum(curve.confidence * curve.counts), best.sum(), rtol=1e-6)


def test_accuracy_knows_no_batches(trained):
    found = samples.open(trained.samples)
    predictor = models.load(trained.folder / "model")
    one, _ = assess(predictor, found, "val", memory=1, threads=1)
    np.testing.assert_array_equal(one.counts, trained.accuracy["val"].counts)


def test_the_same_recipe_does_nothing(world, trained, client):
    before = {path: path.stat().st_mtime_ns for path in (trained.folder / "model").iterdir()}
    said = []
    again = recipes.train(
        recipes.read(world / "recipe.toml"), running=recipes.Running(client), say=said.append
    )
    assert again.model == trained.model
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert any("already" in text for text in said)


def test_a_lost_model_is_made_again(world, client, tmp_path):
    recipe = recipes.read(world / "recipe.toml")
    first = recipes.train(recipe, tmp_path / "a", recipes.Running(client))
    shutil.rmtree(tmp_path / "a" / "model")
    assert recipes.train(recipe, tmp_path / "a", recipes.Running(client)).model == first.model


def test_another_recipe_is_refused(world, client, tmp_path):
    running = recipes.Running(client)
    recipes.train(recipes.read(world / "recipe.toml"), tmp_path / "a", running)
    other = recipes.read(world / "recipe.toml", ["model.c=0.5"])
    with pytest.raises(StoreError, match=r"model\.c: 1\.0 -> 0\.5"):
        recipes.train(other, tmp_path / "a", running)
    made = recipes.train(other, tmp_path / "a", recipes.Running(client, restart=True))
    assert models.load(made.model.path).spec.options["c"] == 0.5


def test_samples_that_are_there_are_taken(world, trained, tmp_path):
    file = tmp_path / "second.toml"
    file.write_text(f'[samples]\npath = "{trained.samples}"\n[model]\nkind = "forest"\ntrees = 5\n')
    made = recipes.train(recipes.read(file, ["output.importance=2"]))
    assert not (made.folder / "samples.zarr").exists()
    worth = {entry["name"]: entry["drop"] for entry in made.report["importance"]["features"]}
    assert worth["red"] > 0.3  # it tells the class
    assert worth["nir"] < 0.1
    assert (made.folder / "importance.png").exists()
    assert made.accuracy["test"].pixels == trained.accuracy["test"].pixels
    assert made.accuracy["test"].overall > 0.8


def test_a_bag_of_colors_is_trained_and_measured(trained, tmp_path):
    file = tmp_path / "bag.toml"
    kind = 'kind = "bag-of-colors"\nbands = ["red", "nir"]\ncolors = 8\nsegments = 4\nrounds = 5\n'
    kind += 'classifier = { kind = "forest", trees = 5 }\n'
    file.write_text(f'[samples]\npath = "{trained.samples}"\n[model]\n{kind}')
    made = recipes.train(recipes.read(file))
    assert made.accuracy["test"].pixels == trained.accuracy["test"].pixels
    assert made.accuracy["test"].overall > 0.6
    with pytest.raises(InputError, match=r"output\.importance is of features of pixels"):
        recipes.read(file, ["output.importance=2"])


def test_what_a_model_cannot_do_names_the_recipe(world, trained, tmp_path):
    file = tmp_path / "wrong.toml"
    head = f'[samples]\npath = "{trained.samples}"\n[model]\nkind = "forest"\ntrees = 2\n'
    file.write_text(head + 'features = ["ndwi"]\n')
    with pytest.raises(InputError, match=r"wrong\.toml: .*ndwi"):
        recipes.train(recipes.read(file))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("objective.class_weight.maize=2", r"recipe\.toml: objective\.class_weight: .*maize"),
        ('model.features=["ndwi"]', r"recipe\.toml: model\.features: .*ndwi"),
    ],
)
def test_classes_and_features_are_known_before_samples_are_cut(world, tmp_path, setting, said):
    recipe = recipes.read(world / "recipe.toml", [setting])
    with pytest.raises(InputError, match=said):
        recipes.train(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_needs_held_out_samples_says_so_before_the_fit(world, client, tmp_path):
    settings = ["samples.fractions=[1,0,0]", "model.kind=forest", "model.trees=1_000_000_000"]
    running = recipes.Running(client)
    for setting, said in (
        ("output.importance=1", r"output\.importance needs val or test samples"),
        ("objective.calibrate=true", "no validation pixels to calibrate with"),
    ):
        recipe = recipes.read(world / "recipe.toml", [*settings, setting])
        with pytest.raises(InputError, match=said):
            recipes.train(recipe, tmp_path / "alone", running)


def test_the_command(world, trained, run, tmp_path):
    file = tmp_path / "third.toml"
    file.write_text(f'[samples]\npath = "{trained.samples}"\n[model]\nkind = "forest"\n')
    code, out, err = run("train", file, "-o", tmp_path / "made", "--set", "model.trees=3")
    assert code == 0, err
    assert "crop" in out
    assert "lcengine predict s2=PRODUCT --model" in out
    code, out, _ = run("train", file, "-o", tmp_path / "made", "--set", "model.trees=3", "--json")
    assert json.loads(out)["accuracy"]["test"]["pixels"] == trained.accuracy["test"].pixels
    code, _, err = run("train", file, "--set", "model.tree=3")
    assert code == 2
    assert "did you mean trees?" in err


@pytest.mark.slow
def test_crops_and_grass_of_flanders_gain_by_a_season(flanders, tmp_path):
    path = Path(__file__).parents[1] / "pipelines" / "cropland" / "run.py"
    described = importlib.util.spec_from_file_location("cropland", path)
    pipeline = importlib.util.module_from_spec(described)
    described.loader.exec_module(pipeline)
    found = pipeline.run(flanders, tmp_path / "out", ("mlp",))
    season, date = found["mlp"], found["mlp, one date"]
    assert season.pixels == date.pixels == 64 * 64
    gain = season.measures["f1"] - date.measures["f1"]
    assert (gain[:2] >= 0.05).all()  # crops, grassland
