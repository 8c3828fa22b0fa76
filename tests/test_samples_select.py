"""Which patches are candidates and which are drawn, and their statistics, against plain NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_source import Plain, scene

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.samples import select
from lcengine.samples.select import candidates, draw, shares
from lcengine.samples.spec import SampleSpec
from lcengine.samples.statistics import Moments, statistics, sums


def sparse(shape, share, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape, dtype=np.uint8)
    return np.where(rng.random(shape) < share, labels, np.uint8(255))


# ----------------------------------------------------------------------------------- candidates


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("least", [0.0, 0.04, 0.2])
@pytest.mark.parametrize("patch", [1, 4, 5])
def test_candidates_are_the_patches_with_labels(patch, least, centre):
    labels = sparse((70, 60), 0.1)
    spec = SampleSpec(patch, 2, min_labelled=least, centre=centre, split="random")
    found = candidates(Plain(scene(70, 60), labels=[labels]), spec)
    expected = {}
    for y in range(0, 70 - patch + 1, 2):
        for x in range(0, 60 - patch + 1, 2):
            part = labels[y : y + patch, x : x + patch]
            middle = part[patch // 2, patch // 2]
            known = (part != 255).sum()
            if known and known >= least * patch**2 and (not centre or middle != 255):
                expected[y, x] = (*np.bincount(part[part != 255], minlength=3), middle)
    rows = zip(found.row, found.col, strict=True)
    got = {
        place: (*counts, middle)
        for place, counts, middle in zip(rows, found.counts, found.centre, strict=True)
    }
    assert got == expected
    np.testing.assert_array_equal(found.labelled, found.counts.sum(axis=1))


def test_centred_patches_step_by_pixel():
    labels = np.full((64, 64), 255, np.uint8)
    labels[30:33, 20] = [0, 1, 2]
    spec = SampleSpec(5, centre=True, split="random", fractions=(1.0, 0.0, 0.0))
    found = candidates(Plain(scene(64, 64), labels=[labels]), spec)
    places = sorted(zip(found.row, found.col, found.centre, strict=True))
    assert places == [(28, 18, 0), (29, 18, 1), (30, 18, 2)]


def test_order_is_by_scene_and_block():
    found = candidates(Plain(scene(200, 200), scene(120, 120, top=300, name="b")), SampleSpec(8, 4))
    blocks = np.column_stack([found.scene, found.block])
    changes = (np.diff(blocks, axis=0) != 0).any(axis=1)
    assert changes.sum() + 1 == len(np.unique(blocks, axis=0))  # a block lies in one piece
    assert (np.diff(found.scene) >= 0).all()
    assert (np.diff(found.key.astype(object))[~changes] > 0).all()
    for side in (2, 4):  # four neighbours in a square follow each other
        squares = np.column_stack([found.scene, found.block // side])
        steps = (np.diff(squares, axis=0) != 0).any(axis=1).sum()
        assert steps + 1 == len(np.unique(squares, axis=0))
    inside = found.block[0] == found.block
    first = inside.all(axis=1) & (found.scene == 0)
    assert (np.diff(found.row[first]) < 0).any()  # not in the order of the raster


def test_nothing_to_take():
    labels = np.full((64, 64), 255, np.uint8)
    with pytest.raises(InputError, match="no patch of 8 pixels in blocks of 32"):
        candidates(Plain(scene(64, 64), labels=[labels]), SampleSpec(8))
    with pytest.raises(InputError, match="scenes of 64 x 64"):
        candidates(Plain(scene(64, 64)), SampleSpec(100, split="random"))


@pytest.mark.parametrize("panel", [64, 2048])
def test_too_many_for_memory(panel, monkeypatch):
    """Their bytes count, since each holds a number per class."""
    source = Plain(scene(300, 300))
    spec = SampleSpec(5, 1, split="random")
    monkeypatch.setattr(select, "PANEL", panel)
    number = len(candidates(source, spec))
    monkeypatch.setattr(select, "MEMORY", 12 * number - 1)
    with pytest.raises(
        InputError, match="too many to hold in memory with 3 classes; take a larger"
    ):
        candidates(source, spec)


# ------------------------------------------------------------------------------------------ draw


def drawn(spec, shape=(600, 600), labels=None):
    found = candidates(Plain(scene(*shape), labels=None if labels is None else [labels]), spec)
    return found, draw(found, spec)


def test_all_of_them():
    found, taken = drawn(SampleSpec(8))
    np.testing.assert_array_equal(taken.key, found.key)


@pytest.mark.parametrize("strategy", ["random", "balanced", "density"])
def test_numbers_and_order(strategy):
    spec = SampleSpec(8, strategy=strategy, samples=200)
    found, taken = drawn(spec)
    assert np.bincount(taken.split).tolist() == [140, 30, 30]
    mixed = found.take(np.random.default_rng(0).permutation(len(found)))
    again = draw(mixed, spec)
    assert set(again.key.tolist()) == set(taken.key.tolist())
    np.testing.assert_array_equal(taken.ordered().key, taken.key)
    other = draw(candidates(Plain(scene(600, 600)), spec), spec)
    np.testing.assert_array_equal(other.key, taken.key)


def test_another_seed_draws_others():
    taken = [
        {*zip(t.row.tolist(), t.col.tolist(), strict=True)}
        for t in (
            drawn(SampleSpec(8, strategy="random", samples=200, seed=seed))[1] for seed in (1, 2)
        )
    ]
    assert len(taken[0] & taken[1]) < 100


def test_balance():
    """A class of one patch in fifty makes up a third of the training patches, not of the others."""
    rng = np.random.default_rng(4)
    kinds = rng.choice(np.array([0, 1, 2], np.uint8), (250, 250), p=[0.78, 0.2, 0.02])
    labels = np.kron(kinds, np.ones((4, 4), np.uint8))
    spec = SampleSpec(4, strategy="balanced", samples=1000, buffer=0, fractions=(0.5, 0.5, 0))
    found, taken = drawn(spec, labels.shape, labels)
    share = [
        taken.counts[taken.split == s].sum(axis=0) / (taken.split == s).sum() / 16 for s in (0, 1)
    ]
    np.testing.assert_allclose(share[0], 1 / 3, atol=0.07)
    np.testing.assert_allclose(share[1], [0.78, 0.2, 0.02], atol=0.05)
    one = draw(found, replace(spec, samples=len(found) * 9))
    assert len(one) == len(found)


def test_balance_of_middle_pixels():
    labels = np.zeros((300, 300), np.uint8)
    labels[:, ::30] = 1
    spec = SampleSpec(5, strategy="balanced", samples=400, centre=True)
    _, taken = drawn(spec, labels.shape, labels)
    train = taken.split == 0
    np.testing.assert_allclose(np.bincount(taken.centre[train]) / train.sum(), 0.5, atol=0.08)


def test_density():
    labels = np.full((600, 600), 255, np.uint8)
    labels[::8] = 0  # one pixel row of a patch …
    labels[:, 300:] = 0  # … or all of them
    spec = SampleSpec(8, strategy="density", samples=300)
    found, taken = drawn(spec, labels.shape, labels)
    share = [(t.labelled[t.split == 0] == 64).mean() for t in (found, taken)]
    assert 0.35 < share[0] < 0.65
    assert share[1] > 0.8


def test_an_empty_split_is_named():
    with pytest.raises(
        InputError, match="is empty: there are 9 candidates in 1 block; take a block below 32 or"
    ):
        drawn(SampleSpec(8), (32, 32))
    with pytest.raises(InputError, match="; take a smaller patch or buffer or another seed"):
        drawn(SampleSpec(8, block=16), (16, 16))
    with pytest.raises(InputError, match="split val gets none of 1 samples"):
        drawn(SampleSpec(8, strategy="random", samples=1))
    spec = SampleSpec(8, fractions=(1.0, 0.0, 0.0))
    assert len(drawn(spec, (32, 32))[1]) == 9


@given(st.integers(1, 1000), st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any))
def test_shares_add_up(samples, parts):
    exact = np.array(parts) / sum(parts) * samples
    got = shares(samples, [part / sum(parts) for part in parts])
    assert sum(got) == samples
    assert (np.abs(got - exact) < 1 + 1e-6).all()


# ------------------------------------------------------------------------------------ statistics

INPUTS = (
    Input("s2", ("red", "nir"), "int16", -32768, ("a", "b")),
    Input("s1", ("vv",), "float32", None),
    Input("rgb", ("r", "g", "b"), "uint8", None),
    Input("wide", ("w",), "int32", -1),
)


def patches(number, seed=0):
    rng = np.random.default_rng(seed)
    s2 = rng.integers(-500, 9000, (number, 2, 2, 6, 6)).astype(np.int16)
    s2[rng.random(s2.shape) < 0.2] = -32768
    s1 = rng.normal(-12, 4, (number, 1, 6, 6)).astype(np.float32)
    s1[rng.random(s1.shape) < 0.2] = np.nan
    wide = rng.integers(-1, 2**31 - 1, (number, 1, 6, 6)).astype(np.int32)
    rgb = rng.integers(0, 256, (number, 3, 6, 6)).astype(np.uint8)
    return {"s2": s2, "s1": s1, "rgb": rgb, "wide": wide}


def merged(arrays, cuts):
    ends = [0, *cuts, len(arrays["s2"])]
    parts = [
        sums(INPUTS, {name: values[a:b] for name, values in arrays.items()})
        for a, b in pairwise(ends)
    ]
    return statistics(INPUTS, json.loads(json.dumps(parts)))


def test_statistics_are_those_of_the_valid_pixels():
    arrays = patches(7)
    got = merged(arrays, [])
    for entry in INPUTS:
        for i, band in enumerate(entry.bands):
            values = arrays[entry.name][..., i, :, :].astype(np.float64)
            missing = np.nan if entry.fill is None else entry.fill
            values = values[np.isfinite(values) & (values != missing)]
            found = got[entry.name][band]
            assert found["count"] == values.size
            assert (found["min"], found["max"]) == (values.min(), values.max())
            np.testing.assert_allclose(found["mean"], values.mean(), rtol=1e-12)
            np.testing.assert_allclose(found["std"], values.std(), rtol=1e-9)


@given(st.lists(st.integers(0, 9), max_size=3).map(sorted))
def test_statistics_do_not_depend_on_the_parts(cuts):
    arrays = patches(9, seed=3)
    assert merged(arrays, cuts) == merged(arrays, [])


def test_a_band_without_pixels():
    arrays = {name: values[:2].copy() for name, values in patches(2).items()}
    arrays["s2"][..., 1, :, :] = -32768
    assert merged(arrays, [])["s2"]["nir"] == {
        "count": 0, "mean": None, "std": None, "min": None, "max": None,
    }  # fmt: skip
    assert Moments.from_json(Moments().to_json()) == Moments()
