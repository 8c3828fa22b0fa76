"""Cloud-mask presets against explicit footprints, and their independence of windows."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rough import blobs

from lcengine import masks
from lcengine.errors import InputError
from lcengine.locate import Lattice, Locator, SourceGrid, Window, window_bounds

PRESETS = sorted(name for name, recipe in masks.PRESETS.items() if recipe.bands == ("scl",))
SCENE = SourceGrid(Lattice("EPSG:32631", 600_000, 5_600_000, 20.0, 20.0), (60, 70))
"""A 20 m scene."""


def series(seed, count=6, shape=SCENE.shape):
    rng = np.random.default_rng(seed)
    stack = np.array([blobs(rng, shape, coarse) for coarse in rng.uniform(0.7, 5, count)])
    stack[:, 10:20, 5:40] = np.where(rng.random((count, 1, 1)) < 0.95, 11, stack[:, 10:20, 5:40])
    return stack


def clear_by_oracle(preset, stack, groups):
    scenes = [oracle.classify(preset, scl) for scl in stack]
    masked, snow, grown, seen = (
        np.array([getattr(scene, name) for scene in scenes])
        for name in ("masked", "snow", "grown_snow", "non_cloud")
    )
    return ~masked & (~grown | oracle.persistent_snow(snow, seen, groups))


def clear_by_preset(preset, stack, observation):
    recipe = masks.preset(preset)
    flags = np.array([masks.flags(recipe, scl, 20.0) for scl in stack])
    return masks.resolve(recipe, flags, observation)


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_presets_equal_explicit_footprints(preset, seed):
    stack = series(seed)
    clear = clear_by_preset(preset, stack, (0, 0, 1, 2, 2, 3))
    expected = clear_by_oracle(preset, stack, [[0, 1], [2], [3, 4], [5]])
    assert clear.dtype == np.uint8
    assert np.array_equal(clear, expected)


@pytest.mark.parametrize(
    ("preset", "reach"),
    [("geomad", 90), ("pacific", 90), ("worldcover", 320), ("s2mosaic", 80), ("scl", 0)],
)
def test_reach_is_the_sum_of_the_radii(preset, reach):
    assert masks.preset(preset).reach == reach
    assert masks.margin(masks.preset(preset), SCENE) == -(-reach // 20)


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=10)
@given(data=st.data())
def test_a_window_has_the_flags_of_the_whole_scene(preset, data):
    """Halo exact at tile and block edges, on and off the grid, also beyond the scene."""
    draw = data.draw
    recipe = masks.preset(preset)
    scl = series(draw(st.integers(0, 2**32)), count=1)[0]
    epsg, left, top, size = draw(
        st.sampled_from(
            [
                (32631, 600_000 - 200, 5_600_000 + 100, 10.0),
                (32631, 600_000 + 7, 5_600_000 + 3, 10.0),
                (32631, 600_000 - 40, 5_600_000, 20.0),
                (32632, 174_800, 5_609_100, 10.0),
            ]
        )
    )
    product = Lattice(f"EPSG:{epsg}", left, top, size, size)
    tile = Window(*(draw(st.integers(-30, 120)) for _ in "yx"), 48, 40)
    whole = oracle.Raster(scl, 32631, 600_000, 5_600_000, 20.0)
    flags = masks.flags(recipe, scl, 20.0)
    fine = whole.finer(flags.shape[0] // scl.shape[0])
    expected = oracle.nearest(
        oracle.Raster(flags, 32631, fine.left, fine.top, fine.dx),
        oracle.Product(epsg, left + tile.x0 * size, top - tile.y0 * size, size, 48, 40),
        0,
    )
    area = window_bounds(product, tile, SCENE, masks.margin(recipe, SCENE))
    if area is None:
        assert not expected.any()
        return
    part = scl[area.y0 : area.y0 + area.height, area.x0 : area.x0 + area.width]
    classes = masks.Classes(part, area, SCENE)
    out = np.zeros((48, 40), np.uint8)
    edge = draw(st.sampled_from([8, 16, 48]))
    for y in range(0, 48, edge):
        for x in range(0, 40, edge):
            block = Window(tile.y0 + y, tile.x0 + x, min(edge, 48 - y), min(edge, 40 - x))
            place = out[y : y + block.height, x : x + block.width]
            found = np.zeros(place.shape, np.uint8)
            masks.place_flags(recipe, classes, Locator(product, block), found)
            place[...] = found
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_border_of_the_scene_is_neutral(preset):
    """Cloud reaches the border undiminished, and a clear scene stays clear up to it."""
    cloudy, sunny = np.full((30, 30), 9, np.uint8), np.full((30, 30), 4, np.uint8)
    assert not clear_by_preset(preset, cloudy[None], (0,)).any()
    assert clear_by_preset(preset, sunny[None], (0,)).all()
    corner = sunny.copy()
    corner[:5, :5] = 8
    clear = clear_by_preset(preset, corner[None], (0,))[0]
    k = clear.shape[0] // 30
    assert not clear[: 5 * k, : 5 * k].any(), "a cloud at the border must not be eroded away"
    assert clear[-1, -1]


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "s2mosaic"])
def test_class_0_is_invalid_and_never_cloud(preset):
    scl = np.full((30, 30), 4, np.uint8)
    scl[:, :12] = 0
    clear = clear_by_preset(preset, scl[None], (0,))[0]
    k = clear.shape[0] // 30
    assert not clear[:, : 12 * k].any()
    assert clear[:, 12 * k :].all(), "nodata must not be grown"


def test_class_0_beside_cloud_neither_feeds_nor_stops_it():
    """A thin cloud is eroded away even where missing data lie beside it."""
    scl = np.full((30, 30), 4, np.uint8)
    scl[:, :12] = 0
    scl[:, 12:14] = 9
    assert clear_by_preset("worldcover", scl[None], (0,))[0, :, 14:].all()


def test_s2mosaic_grows_nodata_by_four_crosses():
    scl = np.full((20, 20), 4, np.uint8)
    scl[10, 10] = 0
    y, x = np.mgrid[:20, :20]
    clear = clear_by_preset("s2mosaic", scl[None], (0,))[0]
    assert np.array_equal(clear == 0, abs(y - 10) + abs(x - 10) <= 4)


def test_persistent_snow_needs_more_than_nine_tenths():
    def clear(snowy, others, cloudy=0):
        stack = np.full((snowy + others + cloudy, 9, 9), 4, np.uint8)
        stack[:snowy, 4, 4] = 11
        stack[snowy + others :] = 9
        return clear_by_preset("worldcover", stack, range(len(stack)))[:, 4, 4]

    assert clear(9, 1).tolist() == [0] * 9 + [1]  # exactly 0.9 is not more: the snow is masked
    assert clear(10, 1).all()
    assert clear(10, 1, cloudy=5).tolist() == [1] * 11 + [0] * 5
    assert clear(9, 1, cloudy=5)[:9].tolist() == [0] * 9
    assert clear(1, 0).all()


def test_overlapping_granules_count_once_in_the_snow_share():
    """Nine snowy overpasses of two granules each against one without: 0.9, not 18/19."""
    stack = np.full((19, 5, 5), 11, np.uint8)
    stack[-1] = 4
    observation = [i // 2 for i in range(18)] + [9]
    assert clear_by_preset("worldcover", stack, observation)[:, 2, 2].tolist() == [0] * 18 + [1]
    assert clear_by_preset("worldcover", stack, range(19)).all()


def test_names():
    assert masks.preset("none") is None
    assert {"none", *PRESETS} <= set(masks.NAMES)
    with pytest.raises(InputError, match="no mask is called 'sl2'; expected one of none, geomad"):
        masks.preset("sl2")
