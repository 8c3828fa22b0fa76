"""What networks promise beside their contract: the published patch CNN, holes, broken folders."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from network_contract import CLASSES, S1, S2, architecture, built, judged, patches, predictor
from torch import nn

from lcengine.errors import InputError
from lcengine.inputs import observed
from lcengine.models import kind
from lcengine.models.nn.predictor import restore

SMALL = {"depth": 1, "channels": 2}


def test_the_patch_cnn_judges_every_window_as_it_was_published():
    module = built("patch-cnn", {"channels": 6})
    published = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 4, CLASSES),
    )
    for values, own in zip(published.parameters(), module.parameters(), strict=True):
        values.data.copy_(own)
    image = torch.randn(2, 4, 6, 9, generator=torch.manual_seed(0))
    wide = np.pad(image.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)])
    with torch.inference_mode():
        found = module(image)
        for y, x in ((0, 0), (0, 8), (2, 3), (5, 4), (5, 8)):
            window = torch.from_numpy(wide[:, :, y : y + 5, x : x + 5].copy())
            torch.testing.assert_close(found[:, :, y, x], published(window))


def test_a_missing_number_is_the_mean_and_spoils_nothing():
    model = predictor("unet", SMALL, 16, (S2, S1))  # means are 500
    arrays, _ = patches((S2, S1), 1, 16, 16)
    arrays["s2"][arrays["s2"] == S2.fill] = 1
    arrays["s1"][np.isnan(arrays["s1"])] = 1
    arrays["s2"][0, 1, 4, 4] = arrays["s1"][0, 2, 0, 9, 9] = 500
    everywhere = np.ones((1, 16, 16), bool)
    expected = judged(model, arrays, everywhere)
    arrays["s2"][0, 1, 4, 4], arrays["s1"][0, 2, 0, 9, 9] = S2.fill, np.nan
    np.testing.assert_array_equal(judged(model, arrays, everywhere), expected)
    assert np.isfinite(expected).all()
    arrays["s2"][0, :, 4, 4], arrays["s1"][:, :, :, 4, 4] = S2.fill, np.nan
    valid = observed((S2, S1), arrays)
    assert not valid[0, 4, 4]
    found = judged(model, arrays, valid)
    assert (found[:, :, 4, 4] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1)[valid], 1, atol=1e-5)


WEIGHT = "network.head.weight"
BROKEN = {
    "without an array": (lambda a: a.pop(WEIGHT), "has 39 arrays of its network, expected 40"),
    "with one more": (lambda a: a.update({"network.more": a[WEIGHT]}), "first .* is 'more'"),
    "of another shape": (lambda a: a.update({WEIGHT: a[WEIGHT][:1]}), "head.weight' is"),
    "of another type": (lambda a: a.update({WEIGHT: a[WEIGHT].astype("f8")}), "float64"),
    "no number": (lambda a: a.update({WEIGHT: a[WEIGHT] * np.nan}), "is not finite"),
    "of fewer means": (
        lambda a: a.update({"normalisation.mean": a["normalisation.mean"][:2]}),
        "normalises 2 and 4 channels, expected 4",
    ),
    "of no temperature": (lambda a: a.update(temperature=np.zeros(1)), "temperature is"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_arrays_are_one_line(name):
    model = predictor("unet", SMALL, 16)
    arrays = dict(model.state()[0])
    change, said = BROKEN[name]
    change(arrays)
    with pytest.raises(InputError, match=said) as caught:
        restore(architecture("unet"), model.spec, arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", [{"stride": None}, {"output_stride": 1}])
def test_a_description_of_another_network_is_refused(told):
    model = predictor("unet", SMALL, 16, (S2,))
    arrays, _ = model.state()
    restore(architecture("unet"), model.spec, arrays)
    with pytest.raises(InputError, match="expected steps between its patches and 2"):
        restore(architecture("unet"), replace(model.spec, **told), arrays)


def test_without_torch_one_line_says_what_to_install(monkeypatch):
    spec = predictor("unet", SMALL, 16).spec
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r'kind \'unet\' need PyTorch.*"lcengine\[torch\]"'):
        kind("unet").restore(spec, {}, {})
