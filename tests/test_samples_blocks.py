"""No leakage: patches of different splits lie a buffer apart, whatever the sizes and the place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plain_source import Plain, scene

from lcengine.errors import InputError
from lcengine.hashing import mixed
from lcengine.samples import select
from lcengine.samples.blocks import choose, lattice
from lcengine.samples.select import candidates
from lcengine.samples.spec import SampleSpec

HALVES = {"fractions": (0.4, 0.3, 0.3)}


@st.composite
def specs(draw):
    patch = draw(st.integers(1, 9))
    buffer = draw(st.one_of(st.none(), st.integers(0, 12)))
    stride = draw(st.one_of(st.none(), st.integers(1, 11)))
    needed = patch + 2 * -(-(patch if buffer is None else buffer) // 2)
    block = draw(st.one_of(st.none(), st.integers(needed, needed + 20)))
    seed = draw(st.integers(0, 2**40))
    return SampleSpec(patch, stride, block, buffer, seed=seed, **HALVES)


places = st.tuples(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(-(10**6), 10**6),
    st.integers(-(10**6), 10**6),
    st.sampled_from([0.0, 0.5, 0.25]),
)


def everywhere(shape):
    return [np.zeros(shape, np.uint8)]


def found_in(place, spec, **how):
    height, width, top, left, part = place
    where = scene(height, width, top=top + part, left=left + part, **how)
    return candidates(Plain(where, labels=everywhere((height, width))), spec)


def apart(a, b, patch):
    """Pixels between two patches, along the axis on which they lie further apart."""
    return max(abs(int(a[0]) - int(b[0])), abs(int(a[1]) - int(b[1]))) - patch


@given(specs(), places)
def test_patches_of_different_splits_are_a_buffer_apart(spec, place):
    try:
        found = found_in(place, spec)
    except InputError:  # the place is too small for a patch in a shrunken block
        assume(False)
    corners = np.stack([found.row, found.col], axis=1).astype(np.int64)
    for i in range(len(found)):
        gaps = np.abs(corners - corners[i]).max(axis=1) - spec.patch
        assert (gaps[found.split != found.split[i]] >= spec.gap).all()
    inside = (corners >= 0) & (corners + spec.patch <= np.array(place[:2]))
    assert inside.all()


def test_all_three_splits_meet_at_the_buffer():
    """The test above would pass on an empty set: here there are many, and some just far enough."""
    found = found_in((300, 300, 0, 0, 0.0), SampleSpec(4, 1, 12, 4, **HALVES))
    corners = np.stack([found.row, found.col], axis=1).astype(np.int64)
    assert np.bincount(found.split, minlength=3).min() > 500
    first = corners[found.split == 0]
    others = corners[found.split > 0]
    nearest = min(
        np.abs(others - corner).max(axis=1).min() for corner in first[:: len(first) // 50]
    )
    assert nearest - 4 == 4


@given(specs(), places, st.integers(0, 40), st.integers(0, 40))
def test_overlapping_products_split_alike(spec, place, down, right):
    """A patch that both products hold is a candidate of both, in the same split."""
    height, width, top, left, part = place
    one = lattice(scene(height, width, top=top + part, left=left + part), spec)
    two = lattice(scene(70, 70, top=top + part + down, left=left + part + right, name="b"), spec)
    seen = [_by_place(found, spec) for found in (one, two)]
    for (y, x), split in seen[0].items():
        inside = top + down <= y and left + right <= x
        if inside and y + spec.patch <= top + down + 70 and x + spec.patch <= left + right + 70:
            assert seen[1][y, x] == split


def _by_place(found, spec):
    i, j = np.meshgrid(np.arange(found.rows.starts.size), np.arange(found.cols.starts.size))
    i, j = i.ravel(), j.ravel()
    rows = found.rows.starts[i] + found.rows.whole
    cols = found.cols.starts[j] + found.cols.whole
    return dict(zip(zip(rows, cols, strict=True), found.splits(spec, i, j), strict=True))


def test_decimals_of_degrees_do_not_move_blocks():
    size = 0.0001
    spec = SampleSpec(8, **HALVES)
    for left in (360_000, 360_123, -123_457):
        found = lattice(scene(100, 100, top=left, left=left, size=size, crs="EPSG:4326"), spec).cols
        assert found.whole == left
        exact = lattice(scene(100, 100, top=left, left=left, size=1.0), spec).cols
        np.testing.assert_array_equal(found.starts, exact.starts)


def test_default_is_four_patches_with_a_patch_between():
    spec = SampleSpec(64)
    found = lattice(scene(1024, 1024), spec)
    assert (spec.edge, spec.gap) == (256, 64)
    np.testing.assert_array_equal(found.rows.starts[:4], [32, 96, 160, 288])
    np.testing.assert_array_equal(found.rows.blocks[:4], [0, 0, 0, 1])


def test_shares_of_blocks():
    spec = SampleSpec(5)
    keys = mixed(0, np.arange(100_000))
    share = np.bincount(choose(spec, keys), minlength=3) / 100_000
    np.testing.assert_allclose(share, [0.7, 0.15, 0.15], atol=0.005)
    none = SampleSpec(5, fractions=(0.8, 0.2, 0.0))
    assert choose(none, np.array([2**64 - 1], np.uint64)) == 1


def test_a_group_goes_into_one_split_as_a_whole():
    spec = SampleSpec(8, **HALVES)
    names = [f"s{i}" for i in range(40)]
    scenes = [scene(64, 64, left=64 * i, name=n, group=f"g{i // 4}") for i, n in enumerate(names)]
    found = candidates(Plain(*scenes), spec)
    splits = [set(found.split[found.scene // 4 == group]) for group in range(10)]
    assert all(len(members) == 1 for members in splits)
    assert len(set.union(*splits)) == 3
    assert len(found) == 40 * 64  # every patch of a scene: no buffer inside of a group


def test_an_image_without_a_place_is_a_block():
    spec = SampleSpec(8, **HALVES)
    images = [scene(32, 40, name=f"i{n}", crs=None) for n in range(40)]
    found = candidates(Plain(*images), spec)
    assert all(len(set(found.split[found.scene == n])) == 1 for n in range(40))
    assert len(found) == 40 * 20


def test_random_splits_leak():
    spec = SampleSpec(8, split="random", **HALVES)
    found = candidates(Plain(scene(160, 160), labels=everywhere((160, 160))), spec)
    assert len(found) == 400
    assert spec.gap == 0
    assert np.bincount(found.split).min() > 80
    touching = [
        (i, j)
        for i in range(100)
        for j in range(100)
        if found.split[i] != found.split[j]
        and apart((found.row[i], found.col[i]), (found.row[j], found.col[j]), 8) == 0
    ]
    assert touching


def test_scenes_that_blocks_cannot_keep_apart():
    spec = SampleSpec(8)
    sizes = Plain(scene(64, 64), scene(64, 64, size=20.0, name="b"))
    with pytest.raises(InputError, match="pixels of 10 and 20"):
        candidates(sizes, spec)
    # The same ground in two UTM zones: 3 and 9 degrees east meet at 6.
    east = scene(64, 64, left=70_000, top=-560_000, name="east")
    west = scene(64, 64, left=27_500, top=-560_000, name="west", crs="EPSG:32632")
    far = scene(64, 64, left=50_000, top=-560_000, name="far", crs="EPSG:32632")
    with pytest.raises(InputError, match="east and west lie side by side"):
        candidates(Plain(_long(east), _long(west)), spec)
    assert len(candidates(Plain(east, far), spec)) > 0


def _long(where):
    return scene(
        64, 4000, left=where.transform[2] / 10, top=-where.transform[5] / 10, name=where.name,
        crs=where.crs,
    )  # fmt: skip


def test_panels_do_not_matter(monkeypatch):
    source = Plain(scene(300, 200, top=7, left=-3), scene(90, 90, top=900, name="b"))
    spec = SampleSpec(6, 2, **HALVES)
    whole = candidates(source, spec)
    monkeypatch.setattr(select, "PANEL", 37)
    parts = candidates(source, spec)
    for name in ("scene", "row", "col", "split", "key", "counts", "centre", "block"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"patch": 0}, "patch is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"buffer": -1}, "buffer is -1"),
        ({"block": 80}, "at least 128"),
        ({"fractions": (0.7, 0.2, 0.2)}, "add up to 1"),
        ({"fractions": (0.5, 0.5)}, "expected three shares"),
        ({"fractions": (0.0, 0.5, 0.5)}, "share of train is 0"),
        ({"split": "random", "buffer": 8}, "leave block and buffer out"),
        ({"split": "kfold"}, "one of block, areas, random"),
        ({"strategy": "best"}, "one of all, random"),
        ({"strategy": "random"}, "give a number of samples"),
        ({"samples": 5}, "give a number of samples"),
        ({"min_labelled": 2}, "share from 0 to 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, r"from 0 to 2\*\*63 - 1"),
        ({"strategy": "random", "samples": 0}, "at least 1"),
    ],
)
def test_a_recipe_that_cannot_be(wrong, text):
    with pytest.raises(InputError, match=text):
        SampleSpec(**wrong)


@given(specs())
def test_a_recipe_survives_json(spec):
    assert SampleSpec.from_json(spec.to_json()) == spec
