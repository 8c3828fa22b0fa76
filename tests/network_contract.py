"""What every architecture of networks keeps, whatever its weights.

A subclass of `NetworkContract` has `KIND`, a name of `lcengine.models.KINDS`, and `OPTIONS` of a
small one; `PATCH`, an edge in pixels that it takes; `BOUNDED`, whether it declares a margin.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from importlib import import_module
from types import MappingProxyType

import numpy as np
import pytest
import torch
from sample_stores import LEGEND
from torch.nn.modules.batchnorm import _BatchNorm

from lcengine.inputs import Input, observed
from lcengine.models import KINDS, ModelSpec, load, save
from lcengine.models.nn.architecture import channels
from lcengine.models.nn.predictor import NetworkPredictor
from lcengine.models.predictor import Execution

CLASSES = len(LEGEND.classes)
S2 = Input("s2", ("red", "green", "blue", "nir"), "int16", -32768)
S1 = Input("s1", ("vv", "vh"), "float32", None, times=("a", "b", "c"))
SETS = ((Input("pan", ("grey",), "uint16", 0),), (S2,), (S2, S1))
"""Inputs of 1, 4 and 10 channels."""


@cache
def architecture(kind):
    module = import_module(KINDS[kind])
    return module.ARCHITECTURES[kind] if hasattr(module, "ARCHITECTURES") else module.ARCHITECTURE


def built(kind, said, seen=4):
    """A network at random, whose normalisation has statistics of its own."""
    return copy.deepcopy(_built(kind, json.dumps(dict(said)), seen))


@cache
def _built(kind, options, seen):
    """Built once: drawing millions of weights takes longer than most cases."""
    said = json.loads(options)
    found = architecture(kind)
    generator = torch.manual_seed(0)
    module = found.build(found.options(**said), seen, CLASSES)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            # Some libraries begin with 0, which shuts whole branches.
            torch.nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
    return module.eval()


def predictor(kind, said, patch, inputs=(S2,)):
    found = architecture(kind)
    options = found.options(**said)
    spec = ModelSpec(
        kind,
        inputs,
        LEGEND,
        10.0,
        patch,
        max(patch // 2, 1),
        margin=found.margin(options),
        output_stride=found.output_stride(options),
        placed=found.placed(options),
        options={**options.model_dump(mode="json"), "activation": "softmax"},
    )
    seen = channels(inputs)
    means, gains = np.full(seen, 500, np.float32), np.full(seen, 1 / 500, np.float32)
    return NetworkPredictor(spec, built(kind, said, seen), means, gains)


def patches(inputs, count, height, width, seed=0):
    """Stored numbers with holes, and where there is anything."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for entry in inputs:
        values = rng.uniform(1, 1000, (count, *entry.lead, height, width)).astype(entry.dtype)
        values[rng.random(values.shape) < 0.02] = np.nan if entry.fill is None else entry.fill
        arrays[entry.name] = values
    return arrays, observed(inputs, arrays)


def judged(model, arrays, valid):
    """Probabilities of at most eight patches."""
    (found,) = model.run([(arrays, valid)], Execution(batch=8, threads=1))
    return found


class NetworkContract:
    """The cases."""

    KIND = ""
    OPTIONS = MappingProxyType({})
    PATCH = 16
    BOUNDED = True

    @pytest.fixture(autouse=True)
    def _quiet(self):
        torch.set_num_threads(1)

    @property
    def found(self):
        chosen = architecture(self.KIND)
        options = chosen.options(**self.OPTIONS)
        return chosen.margin(options), chosen.output_stride(options), chosen.placed(options)

    def predictor(self, inputs=(S2,)):
        return predictor(self.KIND, self.OPTIONS, self.PATCH, inputs)

    def logits(self, module, image, across=False):
        """Of an image that is long in x; `across`: turned on the way."""
        with torch.inference_mode():
            return module(image.mT.contiguous()).mT if across else module(image)

    def strip(self, module, size, seed=0):
        """The least high image of so many columns, float64."""
        step = self.found[1]
        random = torch.Generator().manual_seed(seed)
        height = step if self.BOUNDED else -(-self.PATCH // step) * step
        return torch.randn(1, 4, height, size, dtype=torch.float64, generator=random)

    @pytest.mark.parametrize("inputs", SETS, ids=lambda inputs: str(channels(inputs)))
    def test_it_takes_any_bands_and_odd_sizes(self, inputs):
        model = self.predictor(inputs)
        edge = self.PATCH
        for height, width in ((edge, edge), (edge - 1, edge - 7), (edge - 13, edge)):
            arrays, valid = patches(inputs, 2, height, width)
            valid[0, 0, 0] = False
            found = judged(model, arrays, valid)
            assert found.shape == (2, CLASSES, height, width)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found.sum(axis=1)[valid], 1, atol=1e-5)
            assert (np.moveaxis(found, 1, -1)[~valid] == 0).all()

    def test_every_parameter_learns(self):
        torch.manual_seed(0)
        module = built(self.KIND, self.OPTIONS).train()
        step = self.found[1]
        edge = -(-self.PATCH // step) * step
        module(torch.randn(2, 4, edge, edge)).square().mean().backward()
        learning = {n: v for n, v in module.named_parameters() if v.requires_grad}
        for name, values in learning.items():
            assert values.grad is not None, name
            assert torch.isfinite(values.grad).all(), name
        moved = [bool(values.grad.any()) for values in learning.values()]
        # Biases before a normalisation, and channels that ReLU has shut, may have exactly none.
        assert np.mean(moved) > 0.9

    def test_a_folder_gives_the_same_model_again(self, tmp_path):
        model = self.predictor()
        arrays, valid = patches((S2,), 2, self.PATCH, self.PATCH)
        first = save(model, tmp_path / "model")
        again = load(tmp_path / "model")
        assert (
            again.spec
            == model.spec
            == ModelSpec.from_json(json.loads(json.dumps(model.spec.to_json())))
        )
        np.testing.assert_array_equal(judged(again, arrays, valid), judged(model, arrays, valid))
        assert save(again, tmp_path / "again").sha256 == first.sha256
        ours, theirs = model.module.state_dict(), again.module.state_dict()
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            assert values.dtype == theirs[name].dtype
            assert torch.equal(values, theirs[name])

    def test_a_patch_has_the_same_bits_in_any_company(self):
        model = self.predictor()
        arrays, valid = patches((S2,), 3, self.PATCH, self.PATCH)
        found = judged(model, arrays, valid)
        np.testing.assert_array_equal(judged(model, arrays, valid), found)
        np.testing.assert_array_equal(
            judged(model, {"s2": arrays["s2"][::-1]}, valid[::-1]), found[::-1]
        )
        np.testing.assert_array_equal(
            judged(model, {"s2": arrays["s2"][1:2]}, valid[1:2]), found[1:2]
        )

    def test_it_says_whether_it_is_bounded(self):
        margin, _, placed = self.found
        assert (margin is not None) == self.BOUNDED
        assert placed == (not self.BOUNDED)

    @pytest.mark.parametrize("across", [False, True])
    def test_a_pixel_outside_the_margin_changes_nothing_inside(self, across):
        margin, step, _ = self.found
        if margin is None:
            pytest.skip("no margin is declared")
        module = built(self.KIND, self.OPTIONS).double()
        size = 2 * (-(-margin // step) + 2) * step
        image = self.strip(module, size)
        before = self.logits(module, image, across)
        for place in (size // 2, size // 2 + step - 1):
            other = image.clone()
            other[..., place] += 1e3
            found = self.logits(module, other, across)
            outside = (torch.arange(size) - place).abs() > margin
            assert torch.equal(found[..., outside], before[..., outside])
            assert not torch.equal(found, before)

    @pytest.mark.parametrize("across", [False, True])
    def test_the_margin_is_no_larger_than_it_must_be(self, across):
        """By gradients, of positive weights so that none are cancelled.

        Pooling passes the greatest on: of a ramp, that is at the same end of every window.
        """
        margin, step, _ = self.found
        if margin is None:
            pytest.skip("no margin is declared")
        module = built(self.KIND, self.OPTIONS).double()
        with torch.no_grad():
            for values in [*module.parameters(), *module.buffers()]:
                values.abs_()
            for part in module.modules():
                if isinstance(part, _BatchNorm):
                    part.running_mean.zero_()
        size = 2 * (-(-margin // step) + 2) * step
        ramp = torch.linspace(1, 2, size, dtype=torch.float64)
        reached = []
        for row in (ramp, ramp.flip(0)):
            image = (torch.zeros_like(self.strip(module, size)) + row).requires_grad_()
            found = module(image.mT).mT if across else module(image)
            for place in size // 2 + self.phases(step):
                (slope,) = torch.autograd.grad(found[..., place].sum(), image, retain_graph=True)
                columns = slope[0].ne(0).any(dim=0).any(dim=0).nonzero()
                reached += [place - int(columns.min()), int(columns.max()) - place]
        assert max(reached) == margin

    @staticmethod
    def phases(step):
        """Places within the output stride; of a large one those at its ends and its middle."""
        middle = step // 2
        few = np.array([0, 1, middle - 1, middle, step - 2, step - 1])
        return np.arange(step) if step <= 16 else few

    @pytest.mark.parametrize("across", [False, True])
    def test_placed_means_that_answers_depend_on_where_the_patch_lies(self, across):
        margin, step, placed = self.found
        module = built(self.KIND, self.OPTIONS).double()
        length = 8 * step if margin is None else 2 * (-(-margin // step) + 2) * step
        size = max(length, 2 * self.PATCH)
        image = self.strip(module, size)
        whole = self.logits(module, image, across)[..., step:]
        moved = self.logits(module, image[..., step:], across)
        inside = slice(margin or size // 2, (size - step - margin) if margin else size // 2 + 1)
        away = (whole[..., inside] - moved[..., inside]).abs().max() / whole.abs().max()
        assert (away > 1e-9) == placed
