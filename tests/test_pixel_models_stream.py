"""Labelled pixels of samples, held against a plain loop over the arrays that were written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_stores import CLASSES, LEGEND, S2, sample_arrays, write_samples

from lcengine import samples
from lcengine.errors import InputError
from lcengine.features import Features
from lcengine.models.stream import PixelStream, class_weights, quotas

PATCH = 12


@pytest.fixture(scope="module")
def arrays():
    out = sample_arrays(40, PATCH, (S2,), seed=3)
    out["label"][out["label"] == 2] = 255  # a class without pixels
    rare = out["label"] == 3
    out["label"][rare & (np.random.default_rng(0).random(rare.shape) < 0.98)] = 0
    return out


@pytest.fixture(scope="module")
def opened(arrays, tmp_path_factory):
    return samples.open(write_samples(tmp_path_factory.mktemp("s") / "s.zarr", arrays, (S2,)))


def stream(opened, split="train", **options):
    return PixelStream(opened, split, Features.parse((), opened.inputs), **options)


def plain(arrays, split):
    """All labelled pixels that are observed: features, legend index."""
    x, y = [], []
    for sample in range(len(arrays["label"])):
        if (("train", "train", "train", "val")[sample % 4]) != split:
            continue
        for i in range(PATCH):
            for j in range(PATCH):
                values = arrays["s2"][sample, :, i, j]
                if arrays["label"][sample, i, j] != 255 and (values != S2.fill).all():
                    x.append(values)
                    y.append(arrays["label"][sample, i, j])
    return np.array(x, np.float32), np.array(y)


@pytest.mark.parametrize("memory", [1, 2**15, 2**30])
def test_it_gives_every_labelled_pixel_in_order_whatever_the_memory(opened, arrays, memory):
    found = stream(opened, memory=memory)
    x, y = plain(arrays, "train")
    assert found.present == (0, 1, 3)
    assert found.counts.tolist() == np.bincount(y, minlength=CLASSES).tolist()
    for _ in range(2):
        batches = list(found)
        np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), x)
        labels = np.array(found.present)[np.concatenate([b.y for b in batches])]
        np.testing.assert_array_equal(labels, y)
    assert batches[0].x.flags.c_contiguous
    assert len(batches) == (30 if memory < 2**29 else 1)


def test_windows_are_all_pixels_once_each_epoch_in_another_order(opened, arrays):
    found = stream(opened, memory=2**15)
    epochs = [np.concatenate([w.x for w in found.windows(epoch)]) for epoch in (0, 1, 0)]
    whole = plain(arrays, "train")[0]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(whole, axis=0))
        assert len(epoch) == len(whole)
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(epochs[0], epochs[2])


def test_without_a_limit_all_pixels_are_drawn(opened, arrays):
    said = []
    drawn = stream(opened, say=said.append).drawn()
    np.testing.assert_array_equal(drawn.x, plain(arrays, "train")[0])
    assert set(drawn.weight) == {1.0}
    assert said == []


def test_a_draw_fits_keeps_rare_classes_weighs_as_all_and_depends_on_no_part(opened, arrays):
    said = []
    found = stream(opened, memory=20_000, say=said.append)
    drawn = found.drawn(copies=1)
    x, y = plain(arrays, "train")
    assert drawn.x.nbytes + drawn.y.nbytes + drawn.weight.nbytes < 20_000
    assert len(drawn.y) > 0.8 * 20_000 / 36
    counts = np.bincount(y)[list(found.present)]
    took = np.bincount(drawn.y)
    assert took[2] == counts[2] < took[1]
    assert said[0].startswith(f"{counts.sum():,} labelled train pixels, {took.sum():,} drawn")
    assert f"class 4 {took[2]:,} of {took[2]:,}" in said[0]
    assert found.notes["drawn"] == dict(
        zip(("class 1", "class 2", "class 4"), took.tolist(), strict=True)
    )
    weight = np.bincount(drawn.y, drawn.weight)
    np.testing.assert_allclose(weight / weight.sum(), counts / counts.sum(), rtol=1e-5)
    assert np.isclose(drawn.weight.mean(), 1)
    whole = {tuple(row) for row in x}
    assert all(tuple(row) in whole for row in drawn.x)
    other = stream(opened, memory=20_000, seed=1).drawn(copies=1)
    assert not np.array_equal(other.x[:50], drawn.x[:50])


def test_the_draw_is_the_same_whatever_the_parts(opened, monkeypatch):
    from lcengine.models import stream as module

    one = stream(opened, memory=50_000)
    assert len(one.parts) > 4
    drawn = one.drawn()
    monkeypatch.setattr(PixelStream, "parts", property(lambda self: [self._members]))
    again = module.PixelStream(opened, "train", one.features, 50_000)
    assert len(again.parts) == 1
    for a, b in zip(drawn, again.drawn(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_split_has_the_classes_of_the_first(opened, arrays):
    found = stream(opened, class_weight="balanced").other("val")
    assert found.present == (0, 1, 3)
    _, y = plain(arrays, "val")
    np.testing.assert_array_equal(np.array(found.present)[np.concatenate([b.y for b in found])], y)
    assert {float(w) for b in found for w in b.weight} == {1.0}
    assert stream(opened).other("test") is None
    with pytest.raises(InputError, match="no split 'test'"):
        stream(opened, "test")


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    st.integers(8, 10**6),
)
def test_quotas_use_what_there_is(counts, cap):
    counts = np.array(counts, np.int64)
    found = quotas(counts, cap)
    assert (found >= 1).all()
    assert (found <= counts).all()
    assert found[found > 1].sum() <= cap
    assert found.sum() < cap + len(counts)
    assert found.sum() >= min(cap, counts.sum()) - 2 * len(counts)
    # A class with more pixels is never drawn less.
    order = np.argsort(counts)
    assert (np.diff(found[order]) >= 0).all()


def test_class_weights_by_scikit_learn_and_by_name():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 3], [50, 30, 7])
    counts = np.array([50, 30, 7])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=y)
    np.testing.assert_allclose(class_weights("balanced", LEGEND, (0, 1, 3), counts), expected)
    named = class_weights({"class 4": 3, "class 3": 2}, LEGEND, (0, 1, 3), counts)
    assert named.tolist() == [1, 1, 3]
    for wrong in ({"water": 1}, {"class 1": 0}, {"class 1": float("nan")}, "even"):
        with pytest.raises(InputError, match="class"):
            class_weights(wrong, LEGEND, (0, 1), counts[:2])
