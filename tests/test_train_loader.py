"""Batches for a loop: from any batch on, shared by processes, and without labels of nothing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_stores import S1, S2, sample_arrays, write_samples

from lcengine import samples
from lcengine.errors import InputError
from lcengine.inputs import observed
from lcengine.samples.augment import Augment
from lcengine.samples.loader import Loader

PATCH = 8
VIEWS = {"plain": None, "turned": Augment(crop=6), "zoomed": Augment(crop=4, scale=(1.0, 1.5))}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    arrays = sample_arrays(32, PATCH)
    return samples.open(write_samples(tmp_path_factory.mktemp("loader") / "s.zarr", arrays))


def same(one, two):
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


@given(st.integers(0, 6), st.sampled_from(sorted(VIEWS)))
def test_an_epoch_can_begin_at_any_batch(found, start, views):
    loader = Loader(found, "train", 5, VIEWS[views], threads=1)
    whole = list(loader.epoch(3))
    rest = list(loader.epoch(3, start))
    assert len(rest) == max(0, len(loader) - start)
    for one, two in zip(rest, whole[start:], strict=True):
        same(one, two)


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("views", VIEWS)
def test_shares_together_are_what_one_process_gets(found, world, views):
    whole = list(Loader(found, "train", 5, VIEWS[views], observed=True).epoch(1))
    shares = [
        list(Loader(found, "train", 5, VIEWS[views], observed=True, share=(rank, world)).epoch(1))
        for rank in range(world)
    ]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        same({name: np.concatenate([part[name] for part in parts]) for name in batch}, batch)


@pytest.mark.parametrize("normalize", [True, False])
def test_labels_of_nothing_are_unknown(found, normalize):
    loader = Loader(found, "val", 4, normalize=normalize, observed=True)
    arrays = found.read(found.split("val"))
    seen = observed((S2, S1), arrays)
    expected = np.where(seen, arrays["label"], 255)
    assert (expected != arrays["label"]).any()
    batches = list(loader.epoch(0))
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches]), expected)
    plain = list(Loader(found, "val", 4, normalize=normalize).epoch(0))
    for name in ("s2", "s1"):
        for one, two in zip(batches, plain, strict=True):
            np.testing.assert_array_equal(one[name], two[name])


def test_views_hide_the_labels_that_they_move(found):
    how = {"augment": Augment(), "normalize": False, "seed": 5}
    hidden = next(Loader(found, "train", 8, observed=True, **how).epoch(0))
    shown = next(Loader(found, "train", 8, **how).epoch(0))
    gone = ~observed((S2, S1), {name: shown[name] for name in ("s2", "s1")})
    np.testing.assert_array_equal(hidden["label"], np.where(gone, 255, shown["label"]))


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_a_share_is_one_of_those_there_are(found, share):
    with pytest.raises(InputError, match="rank below world"):
        Loader(found, "train", 4, share=share)


def test_another_process_opens_the_samples_again(found):
    again = pickle.loads(pickle.dumps(found))
    assert again.path == found.path
    same(again.read([3, 1]), found.read([3, 1]))
