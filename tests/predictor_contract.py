"""What every model passes, whatever its kind.

A subclass of `PredictorContract` has a fixture `case`: (predictor, inputs, valid, truth), blocks of
which some pixels are not valid, and the legend indices (n, y, x), 255 = unknown, that the model
should mostly find. `forbidden`: libraries that predicting does without.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lcengine.errors import InputError
from lcengine.models import load, save
from lcengine.models.spec import ModelSpec

ALONE = """
import json, sys
import numpy as np
from lcengine import models
folder, data = sys.argv[1:]
given = dict(np.load(data))
valid, expected = given.pop("valid"), given.pop("expected")
found = models.load(folder).predict(given, valid)
np.testing.assert_array_equal(found, expected)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class PredictorContract:
    """The cases."""

    forbidden = frozenset({"sklearn", "torch", "xgboost", "lightgbm"})

    @pytest.fixture
    def found(self, case):
        predictor, inputs, valid, _ = case
        return predictor.predict(inputs, valid)

    @pytest.fixture
    def folder(self, case, tmp_path):
        save(case[0], tmp_path / "model")
        return tmp_path / "model"

    def test_its_description_survives_json(self, case):
        spec = case[0].spec
        again = ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec
        assert spec.inputs
        assert spec.kind

    def test_probabilities_add_up_to_1_and_are_0_without_a_pixel(self, case, found):
        predictor, _, valid, _ = case
        assert 0 < valid.sum() < valid.size
        assert found.dtype == np.float32
        assert found.shape == (len(valid), len(predictor.spec.legend.classes), *valid.shape[1:])
        assert (np.moveaxis(found, 1, -1)[~valid] == 0).all()
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(axis=1)[valid], 1, atol=1e-5)

    def test_classes_are_in_the_order_of_the_legend(self, case, found):
        truth = case[3]
        known = truth != 255
        assert (found.argmax(axis=1) == truth)[known].mean() > 0.7

    def test_a_block_without_a_valid_pixel_is_nothing(self, case):
        predictor, inputs, valid, _ = case
        assert not predictor.predict(inputs, np.zeros_like(valid)).any()

    def test_a_patch_has_the_same_bits_in_any_company(self, case, found):
        predictor, inputs, valid, _ = case
        for i in range(len(valid)):
            one = {name: values[i : i + 1] for name, values in inputs.items()}
            np.testing.assert_array_equal(
                predictor.predict(one, valid[i : i + 1]), found[i : i + 1]
            )
        turned = {name: values[::-1] for name, values in inputs.items()}
        np.testing.assert_array_equal(predictor.predict(turned, valid[::-1]), found[::-1])

    def test_a_pixel_has_the_same_bits_in_any_company(self, case, found):
        predictor, inputs, valid, _ = case
        if predictor.spec.patch > 1:
            pytest.skip("this model judges patches")
        for y, x in ((slice(0, 1), slice(None)), (slice(2, 9), slice(1, 4)), (slice(3, 4),) * 2):
            part = {name: values[..., y, x] for name, values in inputs.items()}
            np.testing.assert_array_equal(
                predictor.predict(part, valid[:, y, x]), found[:, :, y, x]
            )
        fewer = valid & (np.indices(valid.shape).sum(axis=0) % 3 == 0)
        np.testing.assert_array_equal(
            predictor.predict(inputs, fewer), np.where(fewer[:, None], found, 0)
        )

    def test_inputs_stay_as_they_are_and_threads_do_not_matter(self, case, found):
        predictor, inputs, valid, _ = case
        before = {name: values.copy() for name, values in inputs.items()}
        with ThreadPoolExecutor(4) as pool:
            for again in pool.map(lambda _: predictor.predict(inputs, valid), range(4)):
                np.testing.assert_array_equal(again, found)
        for name, values in inputs.items():
            np.testing.assert_array_equal(values, before[name])

    def test_a_folder_gives_the_same_model_again(self, case, folder, found, tmp_path):
        predictor, inputs, valid, _ = case
        again = load(folder)
        assert again.spec == predictor.spec
        np.testing.assert_array_equal(again.predict(inputs, valid), found)
        assert save(again, tmp_path / "copy").sha256 == save(predictor, tmp_path / "two").sha256

    def test_no_file_can_be_changed_or_lost(self, folder, tmp_path):
        for path in sorted(folder.iterdir()):
            if path.name == "model.json":
                continue
            copy = tmp_path / "tampered"
            shutil.copytree(folder, copy)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            (copy / path.name).write_bytes(content)
            with pytest.raises(InputError, match="SHA-256"):
                load(copy)
            (copy / path.name).unlink()
            with pytest.raises(InputError, match="cannot be read"):
                load(copy)
            shutil.rmtree(copy)

    def test_a_pickle_in_the_place_of_a_file_is_refused_and_not_executed(self, folder, tmp_path):
        target = tmp_path / "executed"
        bomb = pickle.dumps(Bomb(target))
        told = json.loads((folder / "model.json").read_text())
        own = told["properties"]
        for name in own["lcengine:files"]:
            copy = tmp_path / "malicious"
            shutil.copytree(folder, copy)
            (copy / name).write_bytes(bomb)
            files = {**own["lcengine:files"], name: hashlib.sha256(bomb).hexdigest()}
            other = {**told, "properties": {**own, "lcengine:files": files}}
            (copy / "model.json").write_text(json.dumps(other))
            with pytest.raises(InputError):
                load(copy)
            shutil.rmtree(copy)
        assert not target.exists()

    def test_it_predicts_without_what_trained_it(self, case, folder, found, tmp_path):
        _, inputs, valid, _ = case
        data = tmp_path / "data.npz"
        np.savez(data, **inputs, valid=valid, expected=found)
        done = subprocess.run(
            [sys.executable, "-c", ALONE, str(folder), str(data)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert not self.forbidden & set(json.loads(done.stdout.splitlines()[-1]))
