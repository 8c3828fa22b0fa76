"""Lattices of overlapping patches: every pixel's patches, the mirrored raster, sums of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_network import network

from lcengine.errors import InputError
from lcengine.grid import Tile
from lcengine.inputs import Input
from lcengine.kernels import merge
from lcengine.models.predictor import Execution
from lcengine.predict.lattice import PatchLattice, Tiling, mirrored, reads, reflected, seams, unlike

WINDOWS = ("hann", "pyramid", "mean", "centre")
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


@st.composite
def lattices(draw):
    patch = draw(st.integers(1, 40))
    return PatchLattice(patch, draw(st.integers(1, patch)), draw(st.sampled_from(WINDOWS)))


@st.composite
def tiles(draw):
    """A tile and the shape of its raster."""
    shape = draw(SHAPES)
    y0, x0 = (draw(st.integers(0, size - 1)) for size in shape)
    height, width = draw(st.integers(1, shape[0] - y0)), draw(st.integers(1, shape[1] - x0))
    return shape, Tile(0, 0, 0, y0, x0, height, width)


def starts(lattice, size):
    """As METHODS says."""
    count = -(-size // lattice.stride)
    return [k * lattice.stride - (lattice.patch - lattice.stride) // 2 for k in range(count)]


@given(lattices(), st.integers(1, 90))
def test_every_pixel_has_weight(lattice, size):
    total = np.zeros(size)
    for start in starts(lattice, size):
        for place, weight in enumerate(lattice.weights()):
            if 0 <= start + place < size:
                total[start + place] += weight
    assert (total > 0).all()


@given(lattices(), st.integers(1, 90), st.data())
def test_numbers_are_the_patches_with_a_say(lattice, size, data):
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    begin, end = lattice.support
    said = [
        k
        for k, first in enumerate(starts(lattice, size))
        if first + begin < stop and first + end > start
    ]
    assert list(lattice.numbers(start, stop, size)) == said
    assert [lattice.start(k) for k in said] == [starts(lattice, size)[k] for k in said]


@given(st.integers(1, 30), st.integers(-70, 20), st.integers(1, 90))
def test_the_mirrored_raster_is_numpys(size, start, count):
    before, after = max(-start, 0), max(start + count - size, 0)
    padded = np.pad(np.arange(size), (before, after), mode="reflect")
    expected = padded[start + before :][:count]
    np.testing.assert_array_equal(reflected(start, start + count, size), expected)


@given(lattices(), tiles(), st.integers(1, 4000))
@settings(max_examples=60)
def test_reads_show_every_patch_of_a_tile(lattice, part, pixels):
    """Whatever is read at once, patches come in the same order and show the mirrored raster."""
    shape, tile = part
    raster = np.arange(shape[0] * shape[1]).reshape(shape)
    far = 300
    padded = np.pad(raster, far, mode="reflect") if min(shape) > 1 else None
    found = []
    for read in reads(lattice, shape, tile, pixels):
        window = read.window
        rows, columns = window.y0 + window.height, window.x0 + window.width
        assert window.y0 >= 0
        assert window.x0 >= 0
        assert rows <= shape[0]
        assert columns <= shape[1]
        seen = mirrored(raster[window.y0 : rows, window.x0 : columns], read)
        for y, x in read.patches:
            top, left = y - read.y0, x - read.x0
            patch = seen[top : top + lattice.patch, left : left + lattice.patch]
            assert patch.shape == (lattice.patch, lattice.patch)
            if padded is not None:
                own = padded[far + y : far + y + lattice.patch, far + x : far + x + lattice.patch]
                np.testing.assert_array_equal(patch, own)
            found.append((y, x))
    down, over = (
        [s for s in starts(lattice, size) if s + a < stop and s + b > start]
        for size, start, stop, (a, b) in (
            (shape[0], tile.y0, tile.y0 + tile.height, lattice.support),
            (shape[1], tile.x0, tile.x0 + tile.width, lattice.support),
        )
    )
    assert found == [(y, x) for y in down for x in over]


@pytest.mark.parametrize("edge", [2, 5, 8, 256])
def test_weights_are_those_of_the_methods(edge):
    place = np.arange(edge)
    hann = np.sin(np.pi * (place + 0.5) / edge) ** 2
    pyramid = [min(i + 0.5, edge - i - 0.5) for i in place]
    for window, expected in (("hann", hann), ("pyramid", pyramid), ("mean", np.ones(edge))):
        found = PatchLattice(edge, 1, window).weights()
        np.testing.assert_array_equal(found, np.asarray(expected, np.float32))
    centre = PatchLattice(8, 4, "centre").weights()
    np.testing.assert_array_equal(centre, [0, 0, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(PatchLattice(5, 2, "centre").weights(), [0, 1, 1, 0, 0])


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 7), st.sampled_from(WINDOWS), st.data())
def test_merging_is_what_numpy_makes_of_it(classes, patch, shift, window, data):
    """Sums in float32, bit by bit; rows that are scrolled away do not change the others."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    lattice = PatchLattice(patch, data.draw(st.integers(1, patch)), window)
    weights = lattice.weights()
    height, width = patch + shift, patch + 2
    sums, total = np.zeros((classes, height, width), np.float32), np.zeros((height, width), "f4")
    expected, weight = sums.copy(), total.copy()
    for _ in range(3):
        proba = rng.random((classes, patch, patch), np.float32)
        top, left = (data.draw(st.integers(0, patch - 1)) for _ in range(2))
        h, w = (data.draw(st.integers(1, patch - start)) for start in (top, left))
        y, x = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
        merge.add(proba, weights, merge.Overlap(top, left, y, x, h, w), sums, total)
        outer = np.multiply.outer(weights, weights)[top : top + h, left : left + w]
        expected[:, y : y + h, x : x + w] += outer * proba[:, top : top + h, left : left + w]
        weight[y : y + h, x : x + w] += outer
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(total, weight)
    out = np.empty((classes, shift, width), np.float32)
    merge.means(sums, total, out)
    there = weight[:shift] > 0
    mean = np.divide(expected[:, :shift], weight[:shift], where=there, out=np.zeros_like(out))
    np.testing.assert_array_equal(out, mean)
    merge.scroll(sums, total, shift)
    np.testing.assert_array_equal(sums[:, :patch], expected[:, shift:])
    np.testing.assert_array_equal(total[:patch], weight[shift:])
    assert not sums[:, patch:].any()
    assert not total[patch:].any()
    merge.scroll(sums, total, height + 5)
    assert not sums.any()


# -------------------------------------------------------------------------------- what is asked for

BANDS = [Input("s2", ("red",), "int16", -1)]


def spec(**how):
    return network(BANDS, **how).spec


def test_a_models_own_lattice_and_another_one():
    own = spec(patch=64, stride=20, window="mean")
    assert Tiling().of(own) == (PatchLattice(64, 20, "mean"), Execution())
    how = Execution(batch=3)
    asked = Tiling(patch=100, window="pyramid", how=how)
    assert asked.of(own) == (PatchLattice(100, 50, "pyramid"), how)
    assert Tiling(stride=10).of(own)[0] == PatchLattice(64, 10, "mean")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Tiling(stride=65), "stride of 1 to 64"),
        (Tiling(window="box"), "expected one of hann"),
        (Tiling(exact=True, window="hann"), "leave one out"),
        (Tiling(stride=0), "stride of 1 to 64"),
        (Tiling(patch=-4), "patch is -4"),
        (Tiling(patch=0), "patch is 0"),
    ],
)
def test_lattices_that_cannot_be(asked, told):
    with pytest.raises(InputError, match=told):
        asked.of(spec(patch=64, stride=20))


def test_options_of_networks_are_refused_for_others():
    alone = spec(patch=1, stride=None)
    assert Tiling().of(alone) == (None, None)
    for asked in (Tiling(patch=5), Tiling(stride=0), Tiling(exact=True), Tiling(how=Execution())):
        with pytest.raises(InputError, match="judges single pixels; leave it out"):
            asked.of(alone)


@given(st.integers(1, 400), st.integers(0, 120), st.sampled_from([1, 2, 8, 16, 32]), st.booleans())
def test_an_exact_lattice_is_taken_or_another_one_named(patch, margin, step, own):
    """What an error proposes is accepted."""
    model = spec(patch=patch, stride=max(patch // 2, 1), margin=3, output_stride=step)
    model = type(model)(**{**vars(model), "margin": margin})
    asked = Tiling(patch=None if own else patch, exact=True)
    try:
        found, _ = asked.of(model)
    except InputError as error:
        words = str(error).split()
        edge, stride = (int(words[words.index(name) + 1]) for name in ("--patch", "--stride"))
        found, _ = Tiling(patch=edge, stride=stride, exact=True).of(model)
    assert found.window == "centre"
    assert found.stride % step == found.lead % step == 0
    assert found.lead >= margin


@pytest.mark.parametrize(
    ("how", "told"),
    [({"placed": True}, "where its patches lie"), ({"margin": None}, "on the whole patch")],
)
def test_what_no_lattice_makes_exact(how, told):
    model = type(spec())(**{**vars(spec()), **how})
    with pytest.raises(InputError, match=told):
        Tiling(exact=True).of(model)
    assert "where its patches lie" in seams(model, Tiling().of(model)[0])


def test_patches_that_are_all_border_are_told():
    assert "smaller than twice the 40" in seams(spec(margin=40), PatchLattice(64, 32, "hann"))
    assert seams(spec(margin=32), PatchLattice(64, 32, "hann")) is None


def test_patches_that_a_model_did_not_learn_from_are_told():
    """Unless it saw enough of the surroundings in training already."""
    wide = PatchLattice(128, 64, "hann")
    told = unlike(spec(margin=40), wide)
    assert "patches of 128 pixels are asked for" in told
    assert "those of 32" in told
    assert unlike(spec(margin=40), PatchLattice(32, 16, "hann")) is None
    assert unlike(spec(margin=16), wide) is None
    assert unlike(replace(spec(margin=16), margin=None), wide) is not None


@pytest.mark.parametrize("how", [{"batch": 0}, {"threads": -1}, {"precision": "half"}])
def test_executions_that_cannot_be(how):
    with pytest.raises(InputError, match="expected"):
        Execution(**how)
