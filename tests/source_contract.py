"""What every source of samples passes: shapes, types, order, labels and the way through JSON.

A subclass of `SourceContract` has a fixture `source`.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lcengine.errors import InputError
from lcengine.legends import IGNORE
from lcengine.locate import Window
from lcengine.samples.source import LABEL


def windows_of(scene, size, count=5):
    """Windows all over a scene, corners first, in an order that is none of the file's."""
    height, width = scene.shape
    corners = [(0, 0), (height - size, width - size), (0, width - size), (height - size, 0)]
    rng = np.random.default_rng(5)
    more = zip(
        rng.integers(0, height - size + 1, count),
        rng.integers(0, width - size + 1, count),
        strict=True,
    )
    return [Window(int(y), int(x), size, size) for y, x in (*corners, *more)]


class SourceContract:
    """The cases; `size`: edge of the patches that are cut."""

    size = 5

    @pytest.fixture
    def places(self, source):
        return [(i, windows_of(scene, self.size)) for i, scene in enumerate(source.scenes)]

    def test_scenes_have_unique_names_in_a_fixed_order(self, source):
        names = [scene.name for scene in source.scenes]
        assert names
        assert len(set(names)) == len(names)
        assert names == [scene.name for scene in type(source).from_json(source.to_json()).scenes]

    def test_places_are_north_up_with_square_pixels_or_none(self, source):
        for scene in source.scenes:
            a, b, _, d, e, _ = scene.transform
            assert (b, d) == (0, 0)
            assert a == pytest.approx(-e)
            assert a > 0
            if scene.crs is None:
                assert scene.transform == (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)

    def test_patches_have_the_shape_and_type_of_their_input(self, source, places):
        for scene, windows in places:
            arrays = source.cut(scene, windows)
            assert list(arrays) == [*(given.name for given in source.inputs), LABEL]
            edge = (self.size, self.size)
            for given in source.inputs:
                found = arrays[given.name]
                assert found.shape == (len(windows), *given.lead, *edge)
                assert found.dtype == np.dtype(given.dtype)
                assert len(given.bands) == len(set(given.bands))
            assert arrays[LABEL].shape == (len(windows), *edge)
            assert arrays[LABEL].dtype == np.uint8

    def test_labels_are_training_indices_or_ignored(self, source):
        known = {*range(len(source.legend.classes)), IGNORE}
        seen = set()
        for i, scene in enumerate(source.scenes):
            found = source.labels(i, Window(0, 0, *scene.shape))
            assert found.shape == scene.shape
            assert found.dtype == np.uint8
            seen |= set(np.unique(found).tolist())
        assert seen <= known
        assert seen - {IGNORE}

    def test_patches_are_parts_of_the_whole_scene_in_the_order_of_their_windows(
        self, source, places
    ):
        for scene, windows in places:
            height, width = source.scenes[scene].shape
            whole = source.cut(scene, [Window(0, 0, height, width)])
            labels = source.labels(scene, Window(0, 0, height, width))
            np.testing.assert_array_equal(whole[LABEL][0], labels)
            for name, found in source.cut(scene, windows).items():
                for patch, (y0, x0, h, w) in zip(found, windows, strict=True):
                    part = whole[name][0][..., y0 : y0 + h, x0 : x0 + w]
                    np.testing.assert_array_equal(patch, part)

    def test_patches_are_the_same_in_any_company(self, source, places):
        for scene, windows in places:
            together = source.cut(scene, windows)
            backwards = source.cut(scene, windows[::-1])
            for i, window in enumerate(windows):
                alone = source.cut(scene, [window])
                for name, patches in together.items():
                    np.testing.assert_array_equal(patches[i], alone[name][0])
                    np.testing.assert_array_equal(patches[i], backwards[name][-1 - i])
            for window in windows[:2]:
                np.testing.assert_array_equal(
                    source.labels(scene, window), source.cut(scene, [window])[LABEL][0]
                )

    def test_threads_see_the_same(self, source, places):
        scene, windows = places[0]
        expected = source.cut(scene, windows)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: source.cut(scene, windows), range(8)))
        for arrays in found:
            for name, patches in expected.items():
                np.testing.assert_array_equal(arrays[name], patches)

    def test_json_makes_the_same_source(self, source, places):
        data = json.loads(json.dumps(source.to_json()))
        assert data["kind"] == source.kind
        again = type(source).from_json(data)
        assert again.inputs == source.inputs
        assert again.legend == source.legend
        assert list(again.scenes) == list(source.scenes)
        assert again.to_json() == source.to_json()
        scene, windows = places[-1]
        for name, patches in source.cut(scene, windows).items():
            np.testing.assert_array_equal(again.cut(scene, windows)[name], patches)

    def test_a_window_beyond_the_scene_is_named(self, source):
        height, width = source.scenes[0].shape
        with pytest.raises(InputError, match=f"{height} x {width}"):
            source.cut(0, [Window(0, width - self.size + 1, self.size, self.size)])
        with pytest.raises(InputError, match=f"{height} x {width}"):
            source.labels(0, Window(-1, 0, self.size, self.size))
