"""The folder of a model: a STAC Item that other programs can read, put in its place at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pystac
import pytest
from plain_model import LEGEND, Plain
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.validation import validate_dict

from lcengine import models
from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.models import ModelRef, ModelSpec, files
from lcengine.models.exchange import exchange
from lcengine.models.mlm import ARCHITECTURES

S2 = Input("s2", ("red", "nir"), "int16", -32768, ("2018-04", "2018-05"), 1e-4, "1", "sentinel2")
S1 = Input("s1", ("vv", "red"), "float32", None)
PLACE = {
    "crs": "EPSG:32631",
    "resolution": 10.0,
    "bounds": [2.9, 50.8, 3.1, 51.0],
    "interval": ["2018-04-01T00:00:00Z", "2018-06-01T00:00:00Z"],
}
MEANS = np.array([500, 3000, 600, 3200, -12.5, 0.25], np.float32)
GAINS = np.array([0.01, 0.002, 0.01, 0.002, 0.5, 0], np.float32)
NETWORK = {
    "network.stem.weight": np.ones((8, 6, 3, 3), np.float32),
    "network.norm.running_mean": np.zeros(8, np.float32),
    "network.norm.num_batches_tracked": np.zeros(1, np.int64),
    "normalisation.mean": MEANS,
    "normalisation.gain": GAINS,
}


@pytest.fixture(autouse=True)
def plain_kind(monkeypatch):
    monkeypatch.setitem(models.KINDS, "plain", "plain_model")


class Learned(Plain):
    """Says that it has these arrays."""

    def __init__(self, spec, arrays):
        super().__init__(spec, arrays.get("weights"))
        self.arrays = arrays

    def state(self):
        return self.arrays, {}


def network(**training):
    """What a network says of itself."""
    return ModelSpec(
        "encoder-unet",
        (S2, S1),
        LEGEND,
        10.0,
        patch=64,
        stride=32,
        margin=None,
        output_stride=32,
        options={"encoder": "resnet50", "weights": "imagenet", "patch": None},
        training={
            "place": PLACE,
            "seed": 3,
            "schedule": {"epochs": 20, "learning_rate": 1e-3},
            "libraries": {"torch": "2.6.1+cpu", "scikit-learn": "1.7.0"},
            **training,
        },
        metrics={"val": {"macro": {"f1": 0.8}}},
    )


def pixels(**training):
    spec = ModelSpec("plain", (S2,), LEGEND, 10.0, options={"features": ["ndvi:p10"]})
    weights = np.ones((len(LEGEND.classes), 4), np.float32)
    return Learned(replace(spec, training=training), {"weights": weights})


def item_of(predictor, folder):
    models.save(predictor, folder)
    return json.loads((folder / "model.json").read_text())


class TestItem:
    @pytest.fixture
    def item(self, tmp_path):
        return item_of(Learned(network(), NETWORK), tmp_path / "model")

    @pytest.mark.parametrize(
        "training", [{}, {"place": None}, {"place": {"bounds": None}}], ids=str
    )
    def test_it_is_a_stac_item(self, training, tmp_path):
        """By the schemas of STAC 1.1 that pystac has with it."""
        for predictor in (Learned(network(**training), NETWORK), pixels(**training)):
            item = item_of(predictor, tmp_path / predictor.spec.kind)
            assert item["stac_version"] == "1.1.0"
            validate_dict(item, extensions=[])
            assert pystac.Item.from_dict(item).to_dict(include_self_link=False) == item

    def test_pystac_reads_the_model(self, item):
        found = MLMExtension.ext(pystac.Item.from_dict(item))
        assert found.mlm_name == "lcengine encoder-unet three"
        assert found.architecture == "U-Net with an encoder: resnet50"
        assert found.tasks == ["semantic-segmentation"]
        assert (found.framework, found.framework_version) == ("PyTorch", "2.6.1+cpu")
        assert found.accelerator is None
        assert (found.pretrained, found.pretrained_source) == (True, "imagenet")
        assert found.total_parameters == 8 * 6 * 9 + 8
        assert found.memory_size == sum(values.nbytes for values in NETWORK.values())
        assert found.hyperparameters.to_dict() == {
            "encoder": "resnet50",
            "weights": "imagenet",
            "patch": None,
            "seed": 3,
            "schedule": {"epochs": 20, "learning_rate": 1e-3},
        }

    def test_inputs_have_their_bands_and_normalisation(self, item):
        first, second = MLMExtension.ext(pystac.Item.from_dict(item)).input
        assert first.bands == ["s2_red", "nir"]
        assert second.bands == ["vv", "s1_red"]
        names = [band["name"] for band in item["properties"]["bands"]]
        assert names == [*first.bands, *second.bands]
        assert first.input.shape == [-1, 2, 2, 64, 64]
        assert first.input.dim_order == ["batch", "time", "channel", "height", "width"]
        assert second.input.shape == [-1, 2, 64, 64]
        assert second.input.dim_order == ["batch", "channel", "height", "width"]
        scaled = [*first.properties["value_scaling"], *second.properties["value_scaling"]]
        for entry, mean, gain in zip(scaled, MEANS.tolist(), GAINS.tolist(), strict=True):
            if gain:
                assert entry["type"] == "z-score"
                assert entry["mean"] == mean
                assert entry["stddev"] == pytest.approx(1 / gain)
            else:
                assert entry == {"type": "offset", "value": mean}

    def test_the_output_has_the_classes_of_the_legend(self, item):
        (found,) = MLMExtension.ext(pystac.Item.from_dict(item)).output
        assert found.result.shape == [-1, 3, 64, 64]
        assert found.result.dim_order == ["batch", "class", "height", "width"]
        classes = [(c.value, c.name, c.title, c.color_hint) for c in found.classes]
        assert classes == [
            (10, "tree", "tree", "006400"),
            (40, "crop", "crop", "F096FF"),
            (300, "wet_land", "wet land", "0064C8"),
        ]

    def test_area_and_period_are_those_of_training(self, item):
        assert item["bbox"] == PLACE["bounds"]
        ring = item["geometry"]["coordinates"][0]
        assert [ring[0], ring[2]] == [[2.9, 50.8], [3.1, 51.0]]
        assert ring[0] == ring[-1]
        told = item["properties"]
        assert [told["start_datetime"], told["end_datetime"]] == PLACE["interval"]
        assert told["datetime"] is None

    def test_unknown_area_and_period_are_no_invention(self, tmp_path):
        item = item_of(pixels(), tmp_path / "model")
        assert item["geometry"] is None
        assert "bbox" not in item
        told = item["properties"]
        assert told["start_datetime"].startswith("1900")
        assert told["end_datetime"].startswith("9999")
        assert "mlm:framework_version" not in told
        assert told["mlm:input"][0]["input"]["data_type"] == "int16"
        assert told["mlm:input"][0]["pre_processing_function"]["expression"] == ["ndvi:p10"]

    def test_assets_are_the_files(self, item, tmp_path):
        (asset,) = pystac.Item.from_dict(item).assets.values()
        content = (tmp_path / "model" / asset.href).read_bytes()
        found = FileExtension.ext(asset)
        assert found.size == len(content)
        assert found.checksum == "1220" + hashlib.sha256(content).hexdigest()
        assert asset.roles == ["mlm:model"]
        assert asset.extra_fields["mlm:artifact_type"] == "safetensors"
        own = item["properties"]["lcengine:files"]
        assert own == {"model.safetensors": hashlib.sha256(content).hexdigest()}

    def test_every_kind_has_a_name_of_the_literature(self):
        assert ARCHITECTURES.keys() == models.KINDS.keys() - {"plain"}


class TestReading:
    def test_the_spec_alone_needs_no_arrays(self, tmp_path):
        spec = network()
        models.save(Learned(spec, NETWORK), tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        assert models.spec_of(tmp_path / "model") == spec

    def test_all_is_checked_without_building_anything(self, tmp_path):
        """In a process without the libraries that made it, of arrays that nobody could use."""
        folder = tmp_path / "model"
        models.save(Learned(network(), NETWORK), folder)
        code = (
            "import sys; "
            "sys.modules.update(dict.fromkeys(('torch', 'pystac', 'sklearn'))); "
            "from lcengine.models import ModelRef; "
            f"print(ModelRef.of({str(folder)!r}).check().kind)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == "encoder-unet\n"

    def test_a_changed_file_is_found_by_the_check(self, tmp_path):
        ref = models.save(pixels(), tmp_path / "model")
        path = tmp_path / "model" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(InputError, match=r"is not the file that model\.json describes"):
            ref.check()

    @pytest.mark.parametrize(
        "content",
        ["[]", "{}", '{"properties": []}', '{"properties": {"lcengine:format": 1}}', "3", '"a"'],
    )
    def test_another_items_json_is_refused(self, tmp_path, content):
        models.save(pixels(), tmp_path / "model")
        (tmp_path / "model" / "model.json").write_text(content)
        for read in (models.spec_of, models.load):
            with pytest.raises(InputError, match="is no model of format 2"):
                read(tmp_path / "model")


class TestReplacing:
    def test_folders_change_places(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "said").write_text(name)
        assert exchange(tmp_path / "one", tmp_path / "two")
        assert (tmp_path / "one" / "said").read_text() == "two"
        assert (tmp_path / "two" / "said").read_text() == "one"

    def test_what_cannot_be_swapped_stays(self, tmp_path):
        (tmp_path / "one").mkdir()
        assert not exchange(tmp_path / "one", tmp_path / "none")
        assert (tmp_path / "one").is_dir()

    def test_there_is_always_a_model(self, tmp_path):
        """Seen from beside, while another one is put there again and again."""
        folder = tmp_path / "model"
        known = {models.save(pixels(seed=seed), folder).sha256 for seed in range(2)}
        seen, stop = [], threading.Event()

        def look():
            while not stop.is_set():
                try:
                    seen.append(ModelRef.of(folder).sha256)
                except InputError as error:
                    seen.append(str(error))

        watcher = threading.Thread(target=look)
        watcher.start()
        for number in range(40):
            models.save(pixels(seed=number % 2), folder)
        stop.set()
        watcher.join()
        assert set(seen) == known
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]

    def test_without_a_swap_it_is_replaced_all_the_same(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "exchange", lambda _one, _other: False)
        models.save(pixels(seed=1), tmp_path / "model")
        models.save(pixels(seed=2), tmp_path / "model")
        assert models.spec_of(tmp_path / "model").training["seed"] == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
