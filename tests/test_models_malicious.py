"""Folders of models that somebody else wrote: refused with a message, whatever their hashes say."""

from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from pixel_samples import store

from lcengine import models
from lcengine.errors import InputError
from lcengine.models import Training
from lcengine.models.dense import Dense

ARRAYS = "model.safetensors"
HUGE = [4, *[2**62] * 4, 4]
"""Layers whose weights are four, counted in 64 bits."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of each way to keep arrays."""
    base = tmp_path_factory.mktemp("models")
    opened = store(base / "s.zarr", 8)
    options = {"forest": {"trees": 2, "max_depth": 3}, "logistic": {}, "boosting": {"rounds": 2}}
    for name, given in options.items():
        kind = models.kind(name)
        made = kind.fit(opened, kind.options(**given), Training(threads=1))
        models.save(made, base / name)
    return base


def altered(source, folder, spec=None, arrays=None, told=None):
    """A copy of a model with other values, and hashes that say that this is right."""
    item = json.loads((source / "model.json").read_text())
    own = item["properties"]
    values = safetensors.numpy.load_file(source / ARRAYS) | (arrays or {})
    content = safetensors.numpy.save({n: v for n, v in values.items() if v is not None})
    own["lcengine:files"][ARRAYS] = hashlib.sha256(content).hexdigest()
    for key, value in (spec or {}).items():
        found = own["lcengine:spec"]
        place = found["inputs"][0] if key.startswith("input.") else found
        place[key.removeprefix("input.")] = value
    folder.mkdir()
    (folder / ARRAYS).write_bytes(content)
    own |= {f"lcengine:{key}": copy.deepcopy(value) for key, value in (told or {}).items()}
    (folder / "model.json").write_text(json.dumps(item))
    return folder


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": []},
        {"inputs": []},
        {"resolution": "10"},
        {"resolution": -1},
        {"patch": 0},
        {"patch": True},
        {"margin": -1},
        {"options": None},
        {"options": {"features": 5}},
        {"options": {"features": [5]}},
        {"options": {"features": ["red", "nir"]}},
        {"training": []},
        {"metrics": "good"},
        {"input.dtype": "object"},
        {"input.dtype": "int17"},
        {"input.fill": "none"},
        {"input.fill": float("inf")},
        {"input.scale": "a"},
        {"input.name": 5},
        {"input.bands": [5]},
    ],
    ids=str,
)
def test_a_description_of_other_types_is_refused(folders, tmp_path, spec):
    with pytest.raises(InputError):
        models.load(altered(folders / "forest", tmp_path / "m", spec))


@pytest.mark.parametrize("name", ["../other", "..", "a\0b", "", ".hidden", "a/b", "a" * 5000])
def test_files_elsewhere_are_refused(folders, tmp_path, name):
    made = altered(folders / "forest", tmp_path / "m")
    told = json.loads((made / "model.json").read_text())
    told["properties"]["lcengine:files"][name] = "0" * 64
    (made / "model.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="outside of its folder; do not trust it"):
        models.load(made)


@pytest.mark.parametrize(
    "told", [{"spec": None}, {"files": None}, {"files": {}}, {"files": {ARRAYS: 5}}], ids=str
)
def test_a_table_of_contents_that_is_none_is_refused(folders, tmp_path, told):
    with pytest.raises(InputError):
        models.load(altered(folders / "forest", tmp_path / "m", told=told))


def test_json_without_end_is_refused(folders, tmp_path):
    made = altered(folders / "forest", tmp_path / "m")
    (made / "model.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InputError, match="is no JSON"):
        models.load(made)


@pytest.mark.parametrize(
    "classes", [[0, 1], [0, 1, 2, 3], [[0, 1, 3]], [0.5, 1, 3], [3, 1, 0], [0, 1, 9], []], ids=str
)
@pytest.mark.parametrize("kind", ["forest", "boosting", "logistic"])
def test_classes_that_the_arrays_have_not_are_refused(folders, tmp_path, kind, classes):
    with pytest.raises(InputError):
        models.load(altered(folders / kind, tmp_path / "m", arrays={"classes": np.array(classes)}))


@pytest.mark.parametrize("features", [0, -1, 2, 4, 2**31, 2**40])
@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_trees_of_other_features_are_refused(folders, tmp_path, kind, features):
    with pytest.raises(InputError):
        models.load(
            altered(folders / kind, tmp_path / "m", arrays={"features": np.array([features])})
        )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("forest", "values"), ("boosting", "base"), ("logistic", "flat"), ("logistic", "scaling")],
)
def test_arrays_that_are_not_finite_absent_or_of_another_type_are_refused(
    folders, tmp_path, kind, name
):
    right = safetensors.numpy.load_file(folders / kind / ARRAYS)[name]
    for number, wrong in enumerate((np.full_like(right, np.nan), None, right.astype(np.int32))):
        made = altered(folders / kind, tmp_path / f"m{number}", arrays={name: wrong})
        with pytest.raises(InputError, match=f"array '{name}'"):
            models.load(made)


def test_layers_that_overflow_are_no_layers():
    """The kernel would have written outside of its scratch."""
    sizes = np.array(HUGE, np.int64)
    wrapped = int((sizes[:-1] * sizes[1:] + sizes[1:]).sum())
    with pytest.raises(InputError, match="do not go with"):
        Dense(np.zeros((2, 4), np.float32), sizes, np.zeros(wrapped, np.float32))
