"""`lcengine models`: kinds of models, trained ones below a folder, and all that one says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from plain_model import LEGEND, Plain
from typer.testing import CliRunner

from lcengine import models
from lcengine.cli import app
from lcengine.cli.models import input_line, measures, sight
from lcengine.inputs import Input
from lcengine.models import ModelSpec
from lcengine.models.mlm import described

S2 = Input("s2", ("red", "nir"), "int16", -32768, ("2018-04", "2018-05"), 1e-4, "1", "sentinel2")
S1 = Input("s1", ("vv",), "int16", -32768, (), 0.01, "dB")
MEASURED = {
    "pixels": 900,
    "overall_accuracy": 0.91,
    "macro": {"f1": 0.875, "iou": 0.75},
    "classes": {"tree": {"f1": 0.5, "iou": 0.4}},
    "expected_calibration_error": 0.02,
}


def spec(**facts):
    training = {
        "samples": "/data/samples.zarr",
        "run_id": "abc",
        "place": {"bounds": [2.9, 50.8, 3.1, 51.0], "interval": ["2018-04-01T00:00:00Z", "x"]},
        "package": "0.1.0",
        "libraries": {"torch": "2.6.1"},
    }
    known = {"resolution": 10.0, "training": training, "metrics": {"test": MEASURED}}
    return ModelSpec("plain", (S2, S1), LEGEND, **{**known, **facts})


class Learned(Plain):
    def state(self):
        return {"network.a": self.weights, "other": self.weights}, {}


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setitem(models.KINDS, "plain", "plain_model")


@pytest.fixture
def run():
    def invoke(*arguments):
        found = CliRunner().invoke(app, ["models", *map(str, arguments)])
        return found.exit_code, found.stdout, " ".join(found.stderr.split())

    return invoke


def saved(folder, **facts):
    return models.save(Learned(spec(**facts), np.ones((3, 4), np.float32)), folder)


def test_every_kind_is_listed_with_its_options(run, monkeypatch):
    known = {name: home for name, home in models.KINDS.items() if name != "plain"}
    monkeypatch.setattr("lcengine.models.KINDS", known)
    code, out, _ = run("list")
    assert code == 0
    assert len(out.splitlines()) == len(known)
    assert (
        "forest         Random Forest (scikit-learn), sees each pixel by itself; options features –"
        in out
    )
    _, out, _ = run("list", "--json")
    told = json.loads(out)
    assert told.keys() == known.keys()
    assert told["mlp"]["options"]["hidden"] == [64, 64]
    assert told["bag-of-colors"]["options"]["classifier"]["kind"] == "forest"


def test_models_below_a_folder(run, tmp_path):
    ref = saved(tmp_path / "a" / "model")
    saved(tmp_path / "b", metrics={})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "model.json").write_text("{}")
    (tmp_path / "map.zarr").mkdir()
    (tmp_path / "map.zarr" / "zarr.json").write_text("{}")
    saved(tmp_path / "map.zarr" / "model")  # inside of a product nobody looks
    code, out, _ = run("list", tmp_path)
    assert code == 0
    first, second, third = out.splitlines()
    assert first.startswith(ref.path)
    assert first.endswith("plain of s2 (red, nir) + s1 (vv) → 3 classes of three; test F1 0.875")
    assert second.endswith("3 classes of three")
    assert "cannot be read: " in third
    _, out, _ = run("list", tmp_path, "--json")
    assert json.loads(out)[ref.path]["macro_f1"] == {"test": 0.875}


def test_where_there_is_none(run, tmp_path):
    code, _, said = run("list", tmp_path)
    assert (code, "there is no model in" in said) == (2, True)
    code, _, said = run("list", tmp_path / "none")
    assert (code, "is no folder; give one" in said) == (2, True)
    code, _, said = run("info", tmp_path)
    assert (code, "model.json cannot be read" in said) == (2, True)


def test_all_that_a_model_says(run, tmp_path):
    ref = saved(tmp_path / "model", patch=64, stride=32, margin=44, output_stride=16)
    code, out, _ = run("info", ref.path)
    assert code == 0
    said = {head: tail.strip() for head, _, tail in (x.partition("  ") for x in out.splitlines())}
    assert "red, nir, 2 periods 2018-04 … 2018-05 (sentinel2 int16 scale 0.0001)" in said["takes"]
    assert "vv (int16 scale 0.01 dB)" in said["takes"]
    assert said["gives"] == "3 classes: Three classes"
    assert said["sees"].startswith("patches of 64 pixels, every 32, merged by hann")
    assert said["area"] == "W 2.900  S 50.800  E 3.100  N 51.000"
    assert said["parameters"] == "12"
    assert said["accuracy"] == "test right 0.910, F1 0.875, IoU 0.750, ECE 0.020"
    assert said["sha256"] == ref.sha256
    assert "    10  tree  F1 0.500" in out
    assert "    40  crop\n" in out
    _, out, _ = run("info", ref.path, "--json")
    told = json.loads(out)
    assert (told["sha256"], told["parameters"], told["margin"]) == (ref.sha256, 12, 44)


def test_a_model_that_was_changed_is_not_described(run, tmp_path):
    ref = saved(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    code, _, said = run("info", ref.path)
    assert (code, "is not the file that model.json describes" in said) == (2, True)


def test_how_far_models_see():
    plain = spec()
    assert sight(plain) == "each pixel by itself"
    assert sight(replace(plain, patch=256)) == "windows of 256 pixels, side by side"
    tiled = replace(plain, patch=64, stride=32)
    assert "depends on its whole patch" in sight(replace(tiled, margin=None))
    assert sight(replace(tiled, margin=10)).endswith("depends on 10 around it")
    assert sight(replace(tiled, margin=44)).endswith("around it; patches below 88 leave seams")
    assert "and on where the patch lies" in sight(replace(tiled, margin=44, placed=True))


def test_measures_that_nobody_took():
    assert measures({}) == measures("good") == measures({"macro": {"f1": None}}) == "–"
    assert input_line(S1) == "vv (int16 scale 0.01 dB)"


def test_it_needs_no_torch(tmp_path):
    """Nor scikit-learn, nor the kind that made the model."""
    ref = saved(tmp_path / "model")
    code = (
        "import sys; "
        "sys.modules.update(dict.fromkeys(('torch', 'sklearn', 'pystac'))); "
        "from lcengine.models import KINDS; KINDS['plain'] = 'nowhere'; "
        "from lcengine.cli import app; "
        f"app(['models', 'info', {ref.path!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ref.sha256 in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "patch-cnn"])
def test_networks_see_as_far_as_the_list_says(name):
    architecture = import_module(models.KINDS[name]).ARCHITECTURE
    margin = architecture.margin(architecture.options())
    assert described(name)[2].startswith(f"{margin} pixels around")


@pytest.mark.parametrize(
    ("training", "metrics"),
    [
        ({"place": "somewhere"}, {}),
        ({"place": {"bounds": ["a"], "interval": 3}}, {}),
        ({"place": {"bounds": [2, 50, "x", None], "interval": "1"}, "calibration": [1]}, {}),
        ({}, {"test": {"macro": [1], "classes": [2]}}),
        ({}, {"test": {"macro": {"f1": "good"}, "classes": {"tree": 3}}, "val": 5}),
    ],
    ids=str,
)
def test_facts_of_other_shapes_hide_no_model(run, tmp_path, training, metrics):
    """A folder may come from anywhere: what is not understood is not shown."""
    models.save(Learned(spec(), np.zeros((3, 5))), tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    item = json.loads(path.read_text())
    item["properties"]["lcengine:spec"] |= {"training": training, "metrics": metrics}
    path.write_text(json.dumps(item))
    for command in (("info", path.parent), ("info", path.parent, "--json"), ("list", tmp_path)):
        code, said, error = run(*command)
        assert (code, "plain" in said) == (0, True), error
