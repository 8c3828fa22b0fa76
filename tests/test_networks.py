"""Every architecture keeps `NetworkContract`."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from network_contract import S2, NetworkContract, architecture, patches
from sample_stores import LEGEND

from lcengine.errors import InputError
from lcengine.models import ModelSpec
from lcengine.models.nn.predictor import restore
from lcengine.models.predictor import Execution


class TestUNet(NetworkContract):
    KIND = "unet"
    OPTIONS = MappingProxyType({"depth": 2, "channels": 4})


class TestPlainUNet(NetworkContract):
    KIND = "unet"
    OPTIONS = MappingProxyType({"depth": 3, "channels": 4, "norm": "none"})


class TestGroupUNet(NetworkContract):
    KIND = "unet"
    OPTIONS = MappingProxyType({"depth": 1, "channels": 8, "norm": "group"})
    BOUNDED = False


class TestEncoderUNet(NetworkContract):
    KIND = "encoder-unet"
    OPTIONS = MappingProxyType({"encoder": "resnet18", "depth": 3, "decoder": (16, 8, 8)})


class TestTimmUNet(NetworkContract):
    KIND = "encoder-unet"
    OPTIONS = MappingProxyType({"encoder": "tu-resnet18", "depth": 3, "decoder": (16, 8, 8)})


class TestSqueezedUNet(NetworkContract):
    """Squeeze and excitation is of the whole image."""

    KIND = "encoder-unet"
    OPTIONS = MappingProxyType({"encoder": "efficientnet-b0", "depth": 3, "decoder": (16, 8, 8)})
    PATCH = 32
    BOUNDED = False

    @pytest.mark.parametrize("batch", [1, 3, 10])
    def test_its_place_in_a_batch_of_any_size_changes_no_bit(self, batch):
        model, how = self.predictor(), Execution(batch=batch, threads=1, device="cpu")
        arrays, valid = patches((S2,), batch, self.PATCH, self.PATCH)
        (found,) = model.run([(arrays, valid)], how)
        (turned,) = model.run(
            [({"s2": np.roll(arrays["s2"], 1, axis=0)}, np.roll(valid, 1, 0))], how
        )
        np.testing.assert_array_equal(np.roll(turned, -1, axis=0), found)


class TestDeepLabV3(NetworkContract):
    KIND = "deeplabv3"
    OPTIONS = MappingProxyType({"encoder": "mobilenet_v2", "channels": 16})
    BOUNDED = False


class TestDeepLabV3Plus(NetworkContract):
    KIND = "deeplabv3plus"
    OPTIONS = MappingProxyType({"encoder": "mobilenet_v2", "channels": 16, "rates": (2, 4, 6)})
    BOUNDED = False


class TestDeepLabHead(NetworkContract):
    KIND = "deeplab-head"
    OPTIONS = MappingProxyType({"channels": 8, "rates": (2, 5)})
    BOUNDED = False


class TestBoundedDeepLabHead(NetworkContract):
    KIND = "deeplab-head"
    OPTIONS = MappingProxyType({"channels": 8, "rates": (2, 5), "pooling": False})


class TestPatchCNN(NetworkContract):
    KIND = "patch-cnn"
    OPTIONS = MappingProxyType({"channels": 8})


@pytest.mark.slow
class TestResNet50UNet(NetworkContract):
    KIND = "encoder-unet"
    OPTIONS = MappingProxyType({"decoder": (16, 8, 8, 8, 8)})
    PATCH = 64


@pytest.mark.slow
class TestInceptionV3UNet(NetworkContract):
    """Its stem has no padding, and features are resized to fit."""

    KIND = "encoder-unet"
    OPTIONS = MappingProxyType({"encoder": "tu-inception_v3", "decoder": (16, 8, 8, 8, 8)})
    PATCH = 128
    BOUNDED = False


@pytest.mark.parametrize("kind", ["encoder-unet", "deeplabv3"])
@pytest.mark.parametrize("encoder", ["tu-hf-hub:some/model", "tu-local-dir:/tmp", "../resnet18"])
def test_a_models_file_cannot_name_an_address(kind, encoder):
    spec = ModelSpec(kind, (S2,), LEGEND, options={"encoder": encoder, "activation": "softmax"})
    with pytest.raises(
        InputError, match=r"option \('encoder',\) is not known \(String should match"
    ):
        restore(architecture(kind), spec, {})


@pytest.mark.parametrize(
    ("kind", "encoder", "said"),
    [
        ("encoder-unet", "tu-nothing", "Unknown model"),
        ("encoder-unet", "tu-swin_tiny_patch4_window7_224", "doesn't match model"),
        ("deeplabv3", "tu-swin_tiny_patch4_window7_224", "unexpected keyword"),
    ],
)
def test_encoders_that_cannot_be_used_are_one_line(kind, encoder, said):
    found = architecture(kind)
    options = found.options(encoder=encoder)
    # Both are asked in a fit: the margin first, which runs the network.
    fails = found.margin if kind == "encoder-unet" else lambda said: found.build(said, 4, 2)
    with pytest.raises(InputError, match=f"cannot be used .*{said}"):
        fails(options)
