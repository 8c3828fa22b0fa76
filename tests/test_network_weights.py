"""First weights of networks: what other libraries have saved, and models of our own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from network_contract import S2, architecture, predictor
from sample_stores import LEGEND

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.legends import Entry, Legend
from lcengine.models import ModelSpec, save
from lcengine.models.nn.weights import RGB, Channel, adapted, start

BGRN = Input("s2", ("blue", "green", "red", "nir"), "int16", -32768)


def begun(kind, inputs=(BGRN,), legend=LEGEND, **said):
    """A network with the weights that options say, what was said, and what it was before."""
    found = architecture(kind)
    options = found.options(**said)
    spec = ModelSpec(kind, inputs, legend)
    torch.manual_seed(1)
    seen = sum(len(entry.bands) for entry in inputs)
    module = found.build(options, seen, len(legend.classes))
    before = {name: values.clone() for name, values in module.state_dict().items()}
    heard = []
    start(module, found, options, spec, heard.append)
    return module.state_dict(), heard, before


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(state, path)
    return path, state


def test_channels_take_the_weights_of_their_band_and_others_the_mean():
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    after = [Channel("s2", "", band) for band in ("nir", "blue", "green", "red")]
    found = adapted(weight, RGB, after)
    assert found.flatten().tolist() == pytest.approx([3 * 0.75, 6 * 0.75, 2 * 0.75, 0.75])


def test_equal_channels_stay_and_another_order_is_put_in_order():
    weight = torch.randn(4, 3, 3, 3, generator=torch.manual_seed(0))
    assert torch.equal(adapted(weight, RGB, RGB), weight)
    assert torch.equal(adapted(weight, RGB, RGB[::-1]), weight.flip(1))


def test_times_take_their_own_weights_first():
    weight = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    before = [Channel("s2", time, "red") for time in ("may", "june")]
    found = adapted(weight, before, [Channel("s2", time, "red") for time in ("june", "july")])
    assert found.flatten().tolist() == [3.0, 2.0]


def test_torchvisions_resnet_goes_into_an_encoder(resnet):
    path, state = resnet
    found, heard, before = begun("encoder-unet", encoder="resnet18", weights=str(path))
    rgb = state["conv1.weight"]
    expected = torch.stack([rgb[:, 2], rgb[:, 1], rgb[:, 0], rgb.mean(dim=1)], dim=1) * 0.75
    torch.testing.assert_close(found["encoder.conv1.weight"], expected)
    for name, values in state.items():
        if not name.startswith(("fc.", "conv1.")):
            assert torch.equal(found[f"encoder.{name}"], values)
    for name in before:
        if not name.startswith("encoder."):
            assert torch.equal(found[name], before[name])
    assert "120 of 182" in heard[0]
    assert "nir as the mean" in heard[0]


@pytest.mark.parametrize(
    ("nest", "suffix"), [("state_dict", ".pth"), ("model", ".pt"), (None, ".safetensors")]
)
def test_files_of_training_scripts_are_read(resnet, tmp_path, nest, suffix):
    state = {f"module.{name}": values for name, values in resnet[1].items()}
    path = tmp_path / f"weights{suffix}"
    if nest:
        torch.save({nest: state, "epoch": 3}, path)
    else:
        safetensors.torch.save_file(state, path)
    found, _, _ = begun("encoder-unet", encoder="resnet18", weights=str(path))
    assert torch.equal(found["encoder.layer4.1.conv2.weight"], resnet[1]["layer4.1.conv2.weight"])


def test_timms_names_are_found(resnet, tmp_path):
    path = tmp_path / "timm.safetensors"
    safetensors.torch.save_file(resnet[1], path)
    found, _, _ = begun("encoder-unet", encoder="tu-resnet18", weights=str(path))
    assert torch.equal(found["encoder.model.bn1.weight"], resnet[1]["bn1.weight"])
    assert torch.equal(
        found["encoder.model.layer1.0.conv1.weight"], resnet[1]["layer1.0.conv1.weight"]
    )


def test_what_does_not_fit_is_listed(resnet):
    with pytest.raises(InputError, match=r"does not fit kind 'encoder-unet': .* and \d+ more"):
        begun("encoder-unet", encoder="resnet50", weights=str(resnet[0]))
    with pytest.raises(InputError, match="does not fit kind 'unet'"):
        begun("unet", weights=str(resnet[0]))


def test_weights_that_are_no_numbers_are_refused(resnet, tmp_path):
    broken = {**resnet[1], "bn1.weight": torch.full((64,), torch.nan)}
    path = tmp_path / "broken.pth"
    torch.save(broken, path)
    with pytest.raises(InputError, match=r"bn1\.weight"):
        begun("encoder-unet", encoder="resnet18", weights=str(path))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    path, target = tmp_path / "weights.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Bomb(str(target)), protocol=2))
    with pytest.raises(InputError, match="cannot be read"):
        begun("unet", weights=str(path))
    torch.save({"a": Bomb(str(target))}, path)
    with pytest.raises(InputError, match="cannot be read"):
        begun("unet", weights=str(path))
    assert not target.exists()


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="are not there; expected 'imagenet'"):
        begun("unet", weights=str(tmp_path / "none.pth"))
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds no state dict"):
        begun("unet", weights=str(path))
    with pytest.raises(InputError, match="has none; use a kind with one"):
        begun("unet", weights="imagenet")


def test_imagenet_without_a_network_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="cannot be had") as caught:
        begun("encoder-unet", encoder="resnet18", weights="imagenet")
    assert "\n" not in str(caught.value)


class TestTransfer:
    """From a model of four classes and four bands."""

    SAID = {"depth": 1, "channels": 4}  # noqa: RUF012 (never changed)

    @pytest.fixture
    def model(self, tmp_path):
        found = predictor("unet", self.SAID, 16, (S2,))
        save(found, tmp_path / "model")
        return found, tmp_path / "model"

    def test_of_the_same_classes_and_bands_all_is_taken(self, model):
        found, heard, _ = begun("unet", (S2,), weights=str(model[1]), **self.SAID)
        for name, values in model[0].module.state_dict().items():
            assert torch.equal(found[name], values)
        assert "at random" not in heard[0]

    def test_other_classes_get_a_new_head(self, model):
        for names in (("a", "b"), ("a", "b", "c", "d")):
            entries = tuple(Entry(i, name, "#000000") for i, name in enumerate(names))
            other = Legend("other", "Other", entries, "made up")
            found, heard, before = begun("unet", (S2,), other, weights=str(model[1]), **self.SAID)
            for name, values in model[0].module.state_dict().items():
                expected = before[name] if name.startswith("head.") else values
                assert torch.equal(found[name], expected)
            assert "at random: head" in heard[0]

    def test_other_bands_get_a_first_layer_of_their_own(self, model):
        one = Input("s2", ("nir", "swir16"), "int16", -32768)
        found, _, _ = begun("unet", (one,), weights=str(model[1]), **self.SAID)
        old = model[0].module.state_dict()["down.0.0.weight"]
        expected = torch.stack([old[:, 3], old.mean(dim=1)], dim=1) * 2
        torch.testing.assert_close(found["down.0.0.weight"], expected)
        np.testing.assert_array_equal(
            found["down.0.3.weight"], model[0].module.down[0][3].weight.detach()
        )

    def test_another_architecture_is_refused(self, model):
        with pytest.raises(InputError, match="does not fit kind"):
            begun("unet", (S2,), weights=str(model[1]), depth=2, channels=4)
