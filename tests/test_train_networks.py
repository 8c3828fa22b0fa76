"""Networks by recipe: from samples to a folder, resumed, calibrated, and refused where wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pixel_samples import store
from tiny_network import TinyOptions, fit

from lcengine import models, recipes
from lcengine.errors import InputError
from lcengine.models.nn.fit import normalisation, pixel_counts
from lcengine.recipes import run as running
from lcengine.recipes.assess import assess
from lcengine.train.data import Batches

TEXT = """
[samples]
path = "s.zarr"
[model]
kind = "unet"
depth = 1
channels = 8
[objective]
loss = { cross-entropy = 1, dice = 0.5 }
class_weight = "balanced"
calibrate = true
threads = 1
[training]
epochs = 2
batch = 4
checkpoint = 0
learning_rate = { head = 0.02, rest = 0.01 }
augment = { crop = 12 }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    store(folder / "s.zarr", 32)
    (folder / "net.toml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def made(world):
    said = []
    trained = recipes.train(recipes.read(world / "net.toml"), say=said.append)
    return trained, said


def test_the_folder_holds_all(world, made):
    trained, said = made
    names = {path.name for path in trained.folder.iterdir()}
    assert names >= {"model", "report.json", "training", "examples-val.png", "confusion-val.png"}
    assert {path.name for path in (trained.folder / "training").iterdir()} == {
        "curves.png",
        "log.csv",
    }
    told = json.loads((trained.folder / "report.json").read_text())["identity"]["recipe"]
    assert told["objective"]["loss"] == {"cross-entropy": 1, "dice": 0.5}
    assert told["training"]["learning_rate"] == {"head": 0.02, "rest": 0.01}
    assert any("no training pixels of class 3" in text for text in said)


def test_the_model_knows_how_it_was_trained(made):
    spec = models.load(made[0].model.path).spec
    assert (spec.patch, spec.stride, spec.window) == (12, 6, "hann")
    training = spec.training
    assert training["objective"]["loss"] == {"cross-entropy": 1, "dice": 0.5}
    assert training["epochs"] == 2
    assert training["kept"]["epoch"] in (1, 2)
    assert training["class_weight"] == "balanced"
    assert 0.05 <= training["calibration"]["temperature"] <= 20
    before, after = training["calibration"]["log_loss"]
    assert after <= before


def test_it_says_what_it_is_worth_as_it_predicts(world, made):
    predictor = models.load(made[0].model.path)
    found = running.samples.open(world / "s.zarr")
    accuracy, curve = assess(predictor, found, "val", threads=1)
    np.testing.assert_array_equal(accuracy.counts, made[0].accuracy["val"].counts)
    # The temperature changes no class, and the curve is after it.
    told = predictor.spec.training
    assert accuracy.macro["f1"] == pytest.approx(told["kept"]["val_f1"])
    assert curve.error == pytest.approx(
        told["calibration"]["reliability"][1]["expected_calibration_error"], abs=1e-6
    )


def test_the_same_recipe_goes_on_and_then_does_nothing(world, made, tmp_path):
    class StopError(Exception):
        pass

    def hear(told):
        if told.step == 9:
            raise StopError

    recipe = recipes.read(world / "net.toml")
    with pytest.raises(StopError):
        recipes.train(recipe, tmp_path / "out", recipes.Running(hear=hear))
    assert (tmp_path / "out" / "training" / "checkpoint.pt").is_file()
    other = recipes.read(world / "net.toml", ["training.clip=1.0"])
    with pytest.raises(InputError, match=r"net\.toml: .*of another training.*--restart"):
        recipes.train(other, tmp_path / "out")
    steps = []
    listen = recipes.Running(hear=lambda told: steps.append(told.step))
    again = recipes.train(recipe, tmp_path / "out", listen)
    assert steps[0] == 9
    assert again.model.sha256 == made[0].model.sha256  # its file tells no time
    arrays = [models.load(one.model.path).state()[0] for one in (again, made[0])]
    for name, values in arrays[0].items():
        np.testing.assert_array_equal(values, arrays[1][name])
    assert not (tmp_path / "out" / "training" / "checkpoint.pt").exists()
    steps.clear()
    recipes.train(recipe, tmp_path / "out", listen)
    assert not steps


def test_the_command_shows_epochs(world, run, tmp_path):
    code, out, err = run("train", world / "net.toml", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [one["epoch"] for one in told if one["measured"]] == [1, 2]
    assert {"loss", "val_loss", "val_f1"} <= told[-1]["facts"].keys()
    assert json.loads(out)["kind"] == "unet"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.epoch=3"], r"training\.epoch is unknown; did you mean epochs\?"),
        (["training.schedule=one-cycle", "training.warmup=0.1"], "warmup would change nothing"),
        (["training.momentum=0.5"], "momentum would change nothing"),
        (["training.keep=last", "training.patience=3"], "patience would change nothing"),
        (["training.epochs=0"], r"training\.epochs: .*greater"),
        (["objective.loss=jaccard"], r"objective\.loss"),
        (["objective.loss={bce=1,focal=1}"], "bce asks of each class by itself"),
        ([], r"objective\.loss is of networks"),
        (["training.batch=1", "training.devices=2"], "training.batch is 1 patches for 2 devices"),
        (["training.learning_rate={decoder=1}"], r"training\.learning_rate has decoder"),
        (["training.augment.crop=40"], "crop is 40"),
    ],
)
def test_a_wrong_recipe_is_one_line(world, tmp_path, settings, said):
    forest = TEXT.replace('kind = "unet"\ndepth = 1\nchannels = 8', 'kind = "forest"')
    file = world / "wrong.toml"
    file.write_text(TEXT if settings else forest)
    with pytest.raises(InputError, match=said) as caught:
        recipes.train(recipes.read(file, settings), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_weights_lie_beside_the_recipe(world):
    recipe = recipes.read(world / "net.toml", ["model.weights=net/model"])
    assert recipe.options.weights == str(world / "net" / "model")
    assert (
        recipes.read(world / "net.toml", ["model.weights=imagenet"]).options.weights == "imagenet"
    )


OTHER = """
[samples]
path = "other.zarr"
[model]
kind = "unet"
depth = 1
channels = 8
weights = "net/model"
[training]
epochs = 1
batch = 4
learning_rate = { head = 1e-3, rest = 1e-9 }
schedule = "constant"
warmup = 0
"""


def test_a_head_is_swapped_and_the_rest_goes_on(world, made, tmp_path):
    samples = store(world / "other.zarr", 8, seed=5)
    renamed = world / "other.zarr" / "zarr.json"
    renamed.write_text(renamed.read_text().replace('"class ', '"kind '))
    (world / "fine.toml").write_text(OTHER)
    said = []
    tuned = recipes.train(recipes.read(world / "fine.toml"), tmp_path / "fine", say=said.append)
    before, after = (models.load(one.model.path).state()[0] for one in (made[0], tuned))
    assert models.load(tuned.model.path).spec.legend.names[0] == "kind 1"
    moved = {
        name: float(np.abs(values - after[name]).max())
        for name, values in before.items()
        if name.startswith("network.") and "running" not in name and "tracked" not in name
    }
    head = {name for name in moved if name.startswith("network.head.")}
    assert head
    assert min(moved[name] for name in head) > 1e-3  # begun anew
    assert max(moved[name] for name in moved.keys() - head) < 1e-6
    assert any("net/model" in text for text in said)
    assert len(samples) == 8


def test_it_needs_two_classes_and_validation_samples_to_calibrate(tmp_path):
    samples = store(tmp_path / "s.zarr", 4)
    alone = samples.table.assign(split="train")
    with pytest.raises(InputError, match="no validation pixels to calibrate with"):
        fit(replaced(samples, alone), said={"calibrate": True})
    said = []
    found = fit(replaced(samples, alone), said={"say": said.append}, epochs=1)
    assert "no validation samples: the last weights are kept" in said
    assert found.spec.training["kept"]["epoch"] == 1
    with pytest.raises(InputError, match=r"training\.patience asks for .* validation samples"):
        fit(replaced(samples, alone), patience=2)
    none = alone.assign(pixels_2=0, pixels_4=0)
    with pytest.raises(InputError, match="of 1 classes, expected two"):
        fit(replaced(samples, none))


def replaced(samples, table):
    """The samples with another table."""
    from dataclasses import replace

    return replace(samples, table=table)


def test_sigmoids_are_calibrated_and_remembered(tmp_path):
    samples = store(tmp_path / "s.zarr", 32)
    found = fit(samples, said={"calibrate": True}, objective={"loss": "bce"}, epochs=2)
    assert found.spec.options["activation"] == "sigmoid"
    assert found.temperature == found.spec.training["calibration"]["temperature"]
    _, curve = assess(found, samples, "val", threads=1)
    told = found.spec.training["calibration"]["reliability"][1]
    assert curve.error == pytest.approx(told["expected_calibration_error"], abs=1e-6)


# ------------------------------------------------------------------------------------------- data


class Alone:
    """What `Batches` asks of Fabric, of one process."""

    world_size = 1

    def __init__(self):
        import torch

        self.device = torch.device("cpu")

    def to_device(self, batch):
        return batch


def test_patches_are_reflected_to_a_multiple_and_nothing_is_learned_there(tmp_path):
    samples = store(tmp_path / "s.zarr", 8)
    loader = samples.loader("val", 2, observed=True)
    plain = next(Batches(loader).epoch(Alone(), 0))
    wide = next(Batches(loader, 10).epoch(Alone(), 0))
    assert wide["image"].shape == (2, 3, 20, 20)
    assert (wide["label"][:, 16:] == 255).all()
    assert (wide["label"][:, :, 16:] == 255).all()
    assert (wide["label"][:, :16, :16] == plain["label"]).all()
    expected = np.pad(plain["image"].numpy(), [(0, 0)] * 2 + [(0, 4)] * 2, mode="reflect")
    np.testing.assert_array_equal(wide["image"].numpy(), expected)


def test_training_and_maps_see_the_same_numbers(tmp_path):
    samples = store(tmp_path / "s.zarr", 8)
    found = fit(samples, epochs=1, options=TinyOptions())
    batch = next(Batches(samples.loader("val", 2)).epoch(Alone(), 0))
    arrays = samples.read(batch["index"].numpy())
    image = found.image({"s2": arrays["s2"]}, 2)
    np.testing.assert_array_equal(image, batch["image"].numpy())
    means, _ = normalisation(samples)
    told = samples.statistics["s2"]
    np.testing.assert_allclose(means, [told[band]["mean"] for band in ("red", "nir", "swir16")])
    label = samples.read(samples.split("train"))["label"]
    np.testing.assert_array_equal(
        pixel_counts(samples), np.bincount(label[label != 255], minlength=4)
    )
