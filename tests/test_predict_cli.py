"""`lcengine predict` with workers in processes of their own, also when its driver is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from killed import killed
from made_products import bands, publish
from plain_model import plain, register

from lcengine import models, store
from lcengine.grid import Grid
from lcengine.inputs import Inputs, layers
from lcengine.models import KINDS
from lcengine.predict import task
from lcengine.predict.plan import plan_predict

HERE = Path(__file__).parent
GRID = Grid.from_bounds(600_000, 5_596_800, 603_200, 5_600_000, "EPSG:32631", 10.0, tile=64)


@pytest.fixture
def plain_kind(monkeypatch, tmp_path):
    """The kind of the model, here and in all processes that are started."""
    shim = tmp_path / "shim"
    shim.mkdir()
    path = [str(register(shim)), str(HERE), str(HERE.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setitem(KINDS, "plain", "plain_model")


@pytest.fixture
def product(tmp_path):
    return publish(tmp_path / "s2.zarr", GRID, bands(("red", "nir"), GRID.shape), sensor="made")


def model_of(product, folder, **options):
    found = Inputs(layers({"s2": product}), GRID).inputs
    return models.save(plain(found, **options), folder).path


def labels_of(product, model):
    """The map, tile by tile in this process."""
    plan = plan_predict(product, model)
    out = np.empty(GRID.shape, np.uint16)
    for number in plan.tiles:
        out[GRID.tile_at(number).slices] = task.compute(plan, number, 0)[0]["label"]
    return out


@pytest.mark.slow
def test_the_command(plain_kind, product, run, tmp_path):
    model, output = model_of(product, tmp_path / "model"), tmp_path / "map.zarr"
    command = ["predict", product, "--model", model, "-o", output, "--cluster"]
    command += ["local:workers=1,threads=2", "--json"]
    more = ["--proba", "--uncertainty", "both", "--picture", tmp_path / "map.png"]
    code, said, _ = run(*command, *more)
    assert code == 0
    facts = json.loads(said)
    variables = ["label", "probability_10_tree", "probability_40_crop", "probability_300_wet_land"]
    assert facts["variables"] == [*variables, "entropy", "margin"]
    assert (tmp_path / "map.png").stat().st_size > 1000
    np.testing.assert_array_equal(store.stored(output)["label"], labels_of(product, model))
    code, said, _ = run("info", output)
    assert "kind plain" in said
    assert "model_spec" not in said
    code, _, error = run(*command)
    assert (code, "different request" in error, "proba" in error) == (7, True, True)
    code, said, _ = run("verify", output)
    assert code == 0


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(plain_kind, product, run, tmp_path):
    """Two workers and SIGKILL halfway; the same command ends with the bytes of one process."""
    model, output = model_of(product, tmp_path / "model", delay=0.1), tmp_path / "map.zarr"
    command = ["predict", f"s2={product}", "--model", model, "-o", output, "--cluster"]
    command = [*map(str, command), "local:workers=2,threads=1"]
    before = killed(command, output)
    assert 4 <= before["done"] < before["tiles"] == 25
    code, _, said = run(*command)
    assert code == 0, said
    np.testing.assert_array_equal(store.stored(output)["label"], labels_of(product, model))


def test_commands_that_cannot_be(plain_kind, product, run, tmp_path):
    model, output = model_of(product, tmp_path / "model"), ["-o", tmp_path / "map.zarr"]
    for options, message in [
        ([product, "--model", tmp_path / "m"], "m/model.json cannot be read"),
        ([product, product, "--model", model], "expected one, or each as name=product"),
        ([f"s1={product}", "--model", model], "sources are s1; the model expects s2=PRODUCT"),
        ([tmp_path / "no.zarr", "--model", model], "no.zarr is not a Zarr v3 product"),
        ([product, "--model", model, "--uncertainty", "all"], "expected some of entropy, margin"),
        ([product, "--model", model, "--bands", "s2=nir,red"], "the model expects red, nir, in"),
        ([product, "--model", model, "--picture", tmp_path / "no" / "a.png"], "create it"),
    ]:
        code, said, error = run("predict", *options, *output)
        assert (code, said) == (2, "")
        assert message in error
