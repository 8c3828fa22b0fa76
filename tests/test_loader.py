"""Batches: what they hold, that they follow from the seed alone, and that no thread is left."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_stores import LEGEND, S1, S2, sample_arrays, sample_table, write_samples

from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.inputs import Input
from lcengine.samples import sampleset
from lcengine.samples.augment import Augment
from lcengine.samples.loader import Loader, mixed

COUNT, PATCH = 50, 8


@pytest.fixture(scope="module", params=[1, 4])
def made(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "samples.zarr"
    arrays = sample_arrays(COUNT, PATCH)
    return sampleset.open(write_samples(path, arrays, chunk=request.param)), arrays


def threads_left():
    """Of loaders; the process keeps those of composites."""
    ours = ("lcengine-loader", "lcengine-samples")
    return [t.name for t in threading.enumerate() if t.name.startswith(ours)]


def normalised(entry, values, statistics):
    """An independent reading of the rule, float64."""
    found = statistics[entry.name]
    mean = np.array([found[band]["mean"] for band in entry.bands])[:, None, None]
    std = np.array([found[band]["std"] for band in entry.bands])[:, None, None]
    missing = ~np.isfinite(values) | (values == entry.fill)
    return np.where(missing, 0.0, (values.astype(np.float64) - mean) / std)


# ------------------------------------------------------------------------------------ the samples


def test_what_a_set_knows(made):
    found, _ = made
    assert len(found) == COUNT
    assert found.patch == PATCH
    assert found.inputs == (S2, S1)
    assert found.names == ("s2", "s1", "label")
    assert found.legend == LEGEND
    assert found.splits == {"train": 38, "val": 12}
    np.testing.assert_array_equal(found.split("val"), np.arange(3, COUNT, 4))
    with pytest.raises(InputError, match=r"has no split 'test'; it has train \(38\), val \(12\)"):
        found.split("test")


@given(numbers=st.lists(st.integers(0, COUNT - 1), max_size=20), threads=st.integers(1, 3))
def test_read_by_number(made, numbers, threads):
    found, arrays = made
    read = found.read(numbers, threads)
    assert list(read) == ["s2", "s1", "label"]
    for name, values in read.items():
        assert values.dtype == arrays[name].dtype
        np.testing.assert_array_equal(values, arrays[name][np.array(numbers, np.int64)])
    assert not threads_left()


@pytest.mark.parametrize(("kind", "reader"), [("zarr", "ShardRows"), ("icechunk", "ZarrRows")])
def test_a_product_of_the_store(tmp_path, kind, reader):
    """What the tile engine writes, and not only what these tests do."""
    if kind == "icechunk":
        pytest.importorskip("icechunk")
    arrays = sample_arrays(21, PATCH)
    kinds = {"s2": ("int16", S2.fill), "s1": ("float32", None), "label": ("uint8", 255)}
    variables = [
        store.Variable(
            name, dtype, fill, name, dims=tuple(f"{name}_{i}" for i in range(n)), shape=shape
        )
        for name, (dtype, fill) in kinds.items()
        for shape in [arrays[name].shape[1:]]
        for n in [len(shape)]
    ]
    rows = store.Rows(21, 8)
    place = store.target(tmp_path / "samples.zarr", kind)
    with place.exclusive():
        staging = place.create({}, "0" * 16, {}, rows, variables)
        for number in range(rows.n_tiles):
            part = rows.tile_at(number)
            staging.write(part, {name: v[part.start : part.stop] for name, v in arrays.items()})
            staging.accept(staging.mark(number, {"tile": number}))
        made = write_samples(tmp_path / "facts.zarr", arrays)  # for its sidecars and facts
        sidecars = {n: (made / n).read_bytes() for n in (sampleset.TABLE, sampleset.STATISTICS)}
        facts = {name: store.provenance(made)[name] for name in ("inputs", "legend")}
        staging.publish(range(rows.n_tiles), facts, sidecars)
    found = sampleset.open(tmp_path / "samples.zarr")
    assert {type(rows).__name__ for rows in found.rows.values()} == {reader}
    assert found.rows["s2"].chunk == 8
    assert len(list(found.loader("train", 4))) == 4
    order = np.random.default_rng(0).permutation(21)
    for name, values in found.read(order).items():
        np.testing.assert_array_equal(values, arrays[name][order])


# -------------------------------------------------------------------------------------- a batch


def test_batches_hold_normalised_inputs_and_labels(made):
    found, arrays = made
    seen = []
    for batch in found.loader("train", 7):
        assert list(batch) == ["s2", "s1", "label", "index"]
        index = batch["index"]
        assert index.dtype == np.int64
        for entry in found.inputs:
            values = batch[entry.name]
            assert values.dtype == np.float32
            assert values.flags.c_contiguous
            expected = normalised(entry, arrays[entry.name][index], found.statistics)
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(batch["label"], arrays["label"][index])
        seen += index.tolist()
    assert sorted(seen) == found.split("train").tolist()
    assert seen != sorted(seen)


def test_stored_numbers(made):
    found, arrays = made
    for batch in found.loader("val", 5, normalize=False):
        for name in ("s2", "s1", "label"):
            assert batch[name].dtype == arrays[name].dtype
            np.testing.assert_array_equal(batch[name], arrays[name][batch["index"]])


def test_other_splits_come_in_order(made):
    found, _ = made
    batches = [batch["index"] for batch in found.loader("val", 5)]
    assert [len(b) for b in batches] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(batches), found.split("val"))
    short = found.loader("val", 5, drop_last=True)
    assert [len(b["index"]) for b in short] == [5, 5]
    assert len(short) == 2
    assert len(found.loader("val", 5)) == 3
    shuffled = np.concatenate([b["index"] for b in found.loader("val", 5, shuffle=True)])
    assert sorted(shuffled) == found.split("val").tolist() != shuffled.tolist()


def test_batches_belong_to_who_gets_them(made):
    found, _ = made
    batches = list(found.loader("train", 10))
    for name in batches[0]:
        for one, other in pairwise(batches):
            assert not np.shares_memory(one[name], other[name])
            assert one[name].flags.writeable


# --------------------------------------------------------------------------------- determinism


ALL = Augment(crop=5, scale=(0.8, 1.6), times=3)


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a[name], b[name], equal_nan=name in ("s1", "s2"))
        for a, b in zip(one, other, strict=True)
        for name in a
    )


def test_same_seed_same_batches_whatever_the_threads(made):
    found, _ = made
    options = {"augment": ALL, "weights": "balanced", "seed": 3}
    one = list(found.loader("train", 6, threads=1, prefetch=1, **options).epoch(2))
    other = list(found.loader("train", 6, threads=5, prefetch=9, **options).epoch(2))
    assert len(one) == 19
    assert same(one, other)
    assert not same(one, list(found.loader("train", 6, **options).epoch(1)))
    assert not same(one, list(found.loader("train", 6, **{**options, "seed": 4}).epoch(2)))


def test_iterating_goes_on_with_the_next_epoch(made):
    found, _ = made
    loader = found.loader("train", 6)
    for number in range(3):
        assert same(list(loader), list(loader.epoch(number)))


@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 300),
    chunk=st.integers(1, 20),
    window=st.integers(1, 5),
)
def test_mixing_keeps_chunks_near(seed, count, chunk, window):
    draws = np.arange(count)
    order = mixed(draws, chunk, window, np.random.default_rng(seed))
    assert sorted(order) == draws.tolist()
    begun = []  # chunks in the order in which they are needed first
    for place in order // chunk:
        if place not in begun:
            begun.append(place)
    for place in begun:  # between its first and its last sample, a window of chunks at most
        where = np.flatnonzero(order // chunk == place)
        assert len(set(order[where[0] : where[-1] + 1] // chunk)) <= window


# -------------------------------------------------------------------------------------- weights


def test_weights_are_followed(made):
    found, _ = made
    members = found.split("train")
    weights = np.zeros(len(members))
    weights[[2, 9]] = 1.0, 3.0
    loader = found.loader("train", 100, weights=weights, augment=Augment(times=100))
    drawn = loader.order(0)
    assert len(drawn) == 100 * len(members)
    assert set(drawn) == {members[2], members[9]}
    assert abs(np.mean(drawn == members[9]) - 0.75) < 0.03


def test_balanced_weights_give_each_class_its_part(tmp_path):
    arrays = sample_arrays(400, 5)
    rng = np.random.default_rng(1)
    arrays["label"] = np.full((400, 5, 5), 255, np.uint8)
    kind = rng.choice(4, 400, p=[0.85, 0.1, 0.04, 0.01])
    arrays["label"][:, 2, 2] = kind
    arrays["label"][0] = 255
    table = sample_table(arrays, ("train",))
    found = sampleset.open(write_samples(tmp_path / "s.zarr", arrays, chunk=8, table=table))
    drawn = found.loader("train", 9, weights="balanced", augment=Augment(times=50)).order(0)
    shares = np.bincount(kind[drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    assert 0 not in drawn


def test_bad_options_are_named(made):
    found, _ = made
    bad = [
        ({"batch": 0}, "batch is 0, expected 1 or more"),
        ({"threads": 0}, "threads is 0"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"split": "all"}, "no split 'all'"),
        ({"weights": [1.0, 2.0]}, r"weights have shape \(2,\), expected \(38,\)"),
        ({"weights": "balance"}, "weights is 'balance', expected 'balanced'"),
        ({"seed": -1}, "seed is -1"),
        ({"weights": np.zeros(38)}, "not all 0"),
        ({"weights": np.full(38, np.nan)}, "a finite number"),
        ({"split": "val", "augment": Augment()}, r"split 'val' would be augmented.*anywhere"),
        ({"augment": Augment(crop=9)}, "crop is 9, expected 1 to 8"),
        (
            {"augment": Augment(scale=(0.5, 1))},
            "shows 16 px, and patches have 8; crop to at most 4",
        ),
    ]
    for options, message in bad:
        with pytest.raises(InputError, match=message):
            Loader(found, **{"split": "train", "batch": 4, **options})
    with pytest.raises(InputError, match="finite"):
        Augment(scale=(1.0, float("inf")))


@pytest.mark.parametrize("wrong", [np.ones(COUNT, np.bool_), [1.5]])
def test_samples_are_asked_for_by_number(made, wrong):
    """A mask is not the samples 0 and 1."""
    with pytest.raises(InputError, match="expected whole numbers"):
        made[0].read(wrong)


def test_a_band_without_statistics(tmp_path):
    arrays = sample_arrays(8, 5)
    arrays["s2"][:, 1] = S2.fill
    arrays["s2"][:, 2] = 12
    found = sampleset.open(write_samples(tmp_path / "s.zarr", arrays))
    with pytest.raises(InputError, match="band nir of s2 has no valid pixel in training patches"):
        found.loader("train", 4)
    assert len(list(found.loader("train", 4, normalize=False))) == 2
    arrays["s2"][:, 1] = 7
    found = sampleset.open(write_samples(tmp_path / "t.zarr", arrays))
    batch = next(iter(found.loader("train", 4)))
    assert (batch["s2"][:, 1:] == 0).all()  # nothing varies


def test_no_samples(tmp_path):
    import zarr

    path = write_samples(tmp_path / "s.zarr", sample_arrays(4, 5))
    group = zarr.open_group(path)
    facts = group.attrs["lcengine"]
    del facts["inputs"]
    group.attrs["lcengine"] = facts
    with pytest.raises(InputError, match="holds no samples; `lcengine samples`"):
        sampleset.open(path)


# ---------------------------------------------------------------------------------- endings


def test_no_thread_is_left(made):
    found, _ = made
    for _ in found.loader("train", 4):
        pass
    assert not threads_left()
    for _ in found.loader("train", 4):
        assert threads_left()
        break
    assert not threads_left()
    batches = found.loader("train", 4).epoch(0)
    next(batches)
    batches.close()
    assert not threads_left()
    batches = found.loader("train", 4).epoch(0)
    next(batches)
    with pytest.raises(KeyboardInterrupt):
        batches.throw(KeyboardInterrupt())
    assert not threads_left()


def test_errors_of_a_thread_surface(tmp_path):
    arrays = sample_arrays(16, PATCH)
    path = write_samples(tmp_path / "s.zarr", arrays, part=16)
    shard = path / "s2/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        list(sampleset.open(path).loader("train", 4))
    assert not threads_left()


def test_prefetch_is_bounded(made, monkeypatch):
    found, _ = made
    begun = []
    make = Loader._make
    monkeypatch.setattr(Loader, "_make", lambda self, *a: (begun.append(a[2]), make(self, *a))[1])
    batches = found.loader("train", 2, prefetch=3).epoch(0)
    for got in range(1, 10):
        next(batches)
        assert len(begun) <= got + 3
    batches.close()


# -------------------------------------------------------------------------------- augmentation


def eight(patch):
    """The positions of a square patch (…, y, x)."""
    turned = [np.rot90(patch, k, axes=(-2, -1)) for k in range(4)]
    return [*turned, *(t[..., ::-1] for t in turned)]


def position(batch, arrays, i):
    """Which of the eight positions a sample of a batch is in, by its label and all inputs."""
    number = batch["index"][i]
    fits = [
        all(
            np.array_equal(batch[n][i], eight(arrays[n][number])[k], equal_nan=n == "s1")
            for n in arrays
        )
        for k in range(8)
    ]
    assert sum(fits) == 1
    return fits.index(True)


@pytest.mark.parametrize(
    ("flips", "rotations", "expected"),
    [(True, True, set(range(8))), (False, True, {0, 1, 2, 3}), (True, False, {0, 2, 4, 6})],
)
def test_turns_are_the_same_for_inputs_and_labels(made, flips, rotations, expected):
    found, arrays = made
    augment = Augment(flips=flips, rotations=rotations, times=3)
    seen = set()
    for batch in found.loader("train", 9, augment=augment, normalize=False):
        seen |= {position(batch, arrays, i) for i in range(len(batch["index"]))}
    assert seen == expected


def test_turned_batches_are_normalised(made):
    found, _ = made
    plain = list(found.loader("train", 9, augment=Augment(), normalize=False))
    for raw, batch in zip(plain, found.loader("train", 9, augment=Augment()), strict=True):
        np.testing.assert_array_equal(raw["label"], batch["label"])
        for entry in found.inputs:
            expected = normalised(entry, raw[entry.name], found.statistics)
            np.testing.assert_allclose(batch[entry.name], expected, rtol=0, atol=1e-5)


@given(crop=st.integers(1, PATCH), seed=st.integers(0, 50))
def test_crops_are_parts_of_the_patch(made, crop, seed):
    found, arrays = made
    augment = Augment(flips=False, rotations=False, crop=crop)
    for batch in found.loader("train", 19, augment=augment, normalize=False, seed=seed):
        assert batch["s1"].shape[-2:] == (crop, crop)
        for i, number in enumerate(batch["index"]):
            whole = arrays["s2"][number]
            parts = np.lib.stride_tricks.sliding_window_view(whole, (crop, crop), axis=(1, 2))
            equal = (parts == batch["s2"][i][:, None, None]).all(axis=(0, 3, 4))
            y, x = np.argwhere(equal)[0]
            label = arrays["label"][number][y : y + crop, x : x + crop]
            if equal.sum() == 1:
                np.testing.assert_array_equal(batch["label"][i], label)


def test_times_shows_every_patch_so_often(made):
    found, _ = made
    loader = found.loader("train", 10, augment=Augment(times=15))
    assert len(loader) == 57
    drawn = np.concatenate([batch["index"] for batch in loader])
    numbers, often = np.unique(drawn, return_counts=True)
    assert (often == 15).all()
    np.testing.assert_array_equal(numbers, found.split("train"))


def interpolated(plane, r, c, valid):
    """Bilinear over the valid neighbours of one continuous coordinate, in plain Python."""
    height, width = plane.shape
    if not valid[min(int(r), height - 1), min(int(c), width - 1)]:
        return None
    total = weights = 0.0
    for row in (int(np.floor(r - 0.5)), int(np.floor(r - 0.5)) + 1):
        for col in (int(np.floor(c - 0.5)), int(np.floor(c - 0.5)) + 1):
            weight = (1 - abs(r - 0.5 - row)) * (1 - abs(c - 0.5 - col))
            y, x = min(max(row, 0), height - 1), min(max(col, 0), width - 1)
            if valid[y, x]:
                total += weight * plane[y, x]
                weights += weight
    return total / weights


@pytest.mark.parametrize("normalize", [False, True])
def test_scaling_interpolates_images_and_picks_labels(made, normalize):
    found, arrays = made
    augment = Augment(flips=False, rotations=False, crop=6, scale=(0.9, 2.0))
    draws = found.loader("train", 40, augment=augment).order(0)
    views = augment.views(PATCH, 38, np.random.default_rng([0, 0, 0]))
    assert 0.5 <= views.steps.min() < views.steps.max() <= 1 / 0.9
    (batch,) = found.loader("train", 40, augment=augment, normalize=normalize)
    np.testing.assert_array_equal(batch["index"], draws)
    for i in range(0, 38, 4):
        for y in range(0, 6, 2):
            r = views.tops[i] + (y + 0.5) * views.steps[i]
            for x in range(6):
                c = views.lefts[i] + (x + 0.5) * views.steps[i]
                assert 0 <= min(r, c) <= max(r, c) <= PATCH
                label = arrays["label"][draws[i]][int(r), int(c)]
                assert batch["label"][i, y, x] == label
                for entry, at in ((S2, (1,)), (S1, (1, 0))):
                    plane = arrays[entry.name][draws[i]][at]
                    valid = np.isfinite(plane) & (plane != entry.fill)
                    value = interpolated(plane.astype(float), r, c, valid)
                    got = batch[entry.name][(i, *at, y, x)]
                    facts = found.statistics[entry.name][entry.bands[at[-1]]]
                    if normalize:
                        wanted = 0 if value is None else (value - facts["mean"]) / facts["std"]
                    elif entry is S2:
                        wanted = S2.fill if value is None else np.rint(value)
                    else:
                        wanted = np.nan if value is None else value
                    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.0, 2.0)])
def test_integers_without_a_fill(tmp_path, scale):
    """Such as the pixels of an aerial picture: 0 is black, and not missing."""
    rgb = Input("image", ("red", "green", "blue"), "uint8", None)
    arrays = sample_arrays(12, PATCH, (rgb,))
    arrays["image"][:6] = 0
    path = write_samples(tmp_path / "s.zarr", arrays, (rgb,))
    found = sampleset.open(path)
    augment = Augment(scale=scale)
    raw = list(found.loader("train", 12, augment=augment, normalize=False))
    black = raw[0]["index"] < 6
    assert raw[0]["image"].dtype == np.uint8
    assert (raw[0]["image"][black] == 0).all()
    (batch,) = found.loader("train", 12, augment=augment)
    expected = normalised(rgb, raw[0]["image"][black], found.statistics)
    np.testing.assert_allclose(batch["image"][black], expected, rtol=0, atol=1e-5)
    assert (batch["image"][black] < 0).all()


def test_augmentation_never_crosses_splits(tmp_path):
    """Each patch is made of numbers of its own: what a split shows is made of its patches alone."""
    one = Input("id", ("number",), "int16", -1)
    arrays = {"id": np.empty((40, 1, 6, 6), np.int16), "label": np.zeros((40, 6, 6), np.uint8)}
    arrays["id"][:] = np.arange(40)[:, None, None, None]
    table = pd.DataFrame(sample_table(arrays, ("train", "val", "test", "train")))
    found = sampleset.open(write_samples(tmp_path / "s.zarr", arrays, (one,), chunk=4, table=table))
    augment = Augment(crop=5, scale=(0.9, 2.0), times=5, anywhere=True)
    for split in ("train", "val", "test"):
        shown = set()
        for batch in found.loader(split, 7, augment=augment, normalize=False, shuffle=True):
            np.testing.assert_array_equal(
                batch["id"], np.broadcast_to(batch["index"][:, None, None, None], batch["id"].shape)
            )
            shown |= set(np.unique(batch["id"]).tolist())
        assert shown == set(found.split(split).tolist())


def test_an_interpreter_ends_in_the_middle_of_an_epoch(tmp_path):
    path = write_samples(tmp_path / "s.zarr", sample_arrays(8, 5))
    code = (
        "import sys; from lcengine import samples; "
        "batches = samples.open(sys.argv[1]).loader('train', 2).epoch(0); next(batches)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
