"""Splits by drawn areas: patches lie wholly inside, and those of two splits the buffer apart."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from plain_source import Plain, scene

from lcengine.errors import InputError
from lcengine.samples import SampleSpec, areas, plan_samples, select
from lcengine.samples.plan import SamplePlan
from lcengine.samples.spec import SPLITS, Areas

SIZE = 10.0
CRS = "EPSG:32631"


def drawn(path, *boxes, crs=CRS, column="split"):
    """A file of boxes (split, row, column, height, width) in pixels of `plain_source.scene`."""
    shapes = [shapely.box(c * SIZE, -(r + h) * SIZE, (c + w) * SIZE, -r * SIZE)
              for _, r, c, h, w in boxes]  # fmt: skip
    frame = gpd.GeoDataFrame({column: [b[0] for b in boxes]}, geometry=shapes, crs=CRS)
    frame.to_crs(crs).to_file(path)
    return path


def chosen(spec, source):
    """{split: {(row, column)}} of all candidates."""
    found = select.candidates(source, spec)
    out = {name: set() for name in SPLITS}
    for split, row, col in zip(found.split, found.row, found.col, strict=True):
        out[SPLITS[split]].add((int(row), int(col)))
    return out


def full(height, width):
    """A source with labels everywhere."""
    return Plain(scene(height, width), labels=[np.zeros((height, width), np.uint8)])


def test_halves_meet_at_a_border(tmp_path):
    file = drawn(tmp_path / "a.gpkg", ("train", 0, 0, 32, 64), ("test", 32, 0, 32, 64))
    spec = SampleSpec(8, split="areas", areas=areas.read_areas(file), buffer=0)
    found = chosen(spec, full(64, 64))
    assert found["train"] == {(r, c) for r in range(0, 32, 8) for c in range(0, 64, 8)}
    assert found["test"] == {(r, c) for r in range(32, 64, 8) for c in range(0, 64, 8)}
    # Training gives way: all test patches stay.
    apart = chosen(SampleSpec(8, split="areas", areas=spec.areas, buffer=3), full(64, 64))
    assert apart["test"] == found["test"]
    assert apart["train"] == {(r, c) for r, c in found["train"] if r + 8 + 3 <= 32}


def test_degrees_with_seven_digits_mean_the_same_pixels(tmp_path):
    boxes = ("train", 8, 8, 24, 48), ("val", 40, 8, 16, 48)
    exact = areas.read_areas(drawn(tmp_path / "a.gpkg", *boxes))
    degrees = areas.read_areas(drawn(tmp_path / "a.geojson", *boxes, crs="EPSG:4326"))
    found = [
        chosen(SampleSpec(8, split="areas", areas=each, buffer=8), full(64, 64))
        for each in (exact, degrees)
    ]
    assert found[0] == found[1]
    assert found[0]["train"] == {(r, c) for r in (8, 16, 24) for c in range(8, 56, 8)}


BOX = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(6, 24), st.integers(6, 24))


@given(boxes=st.tuples(BOX, BOX, BOX), patch=st.integers(1, 6), gap=st.integers(0, 9))
def test_patches_lie_inside_and_a_buffer_apart(boxes, patch, gap):
    shapes = {}
    for name, (row, col, height, width) in zip(SPLITS, boxes, strict=True):
        shape = shapely.box(col, -(row + height), col + width, -row)
        for other in shapes.values():
            shape = shapely.difference(shape, other)
        shapes[name] = shape
    scaled = {n: shapely.transform(s, lambda p: p * SIZE) for n, s in shapes.items() if s.area}
    kept = Areas(CRS, tuple((n, shapely.to_wkb(s, hex=True)) for n, s in scaled.items()))
    spec = SampleSpec(patch, split="areas", areas=kept, stride=3, buffer=gap)
    rows, cols = (v.ravel() for v in np.mgrid[0 : 64 - patch + 1 : 3, 0 : 64 - patch + 1 : 3])
    found = areas.splits(spec, scene(64, 64), rows, cols)
    patches = shapely.box(cols, -(rows + patch), cols + patch, -rows)
    for number, name in enumerate(SPLITS):
        own = patches[found == number]
        if name in shapes:
            assert shapely.covers(shapely.buffer(shapes[name], 1e-9), own).all()
        for later in SPLITS[number + 1 :]:
            others = patches[found == SPLITS.index(later)]
            if len(own) and len(others):
                gaps = shapely.distance(own[:, None], others[None])
                assert gaps.min() >= gap - 0.03
    if "test" in scaled:  # nothing is lost that could be tested
        inside = shapely.covers(shapes["test"], patches)
        np.testing.assert_array_equal(found[inside], 2)


def test_the_plan_keeps_the_areas(tmp_path):
    file = drawn(tmp_path / "a.gpkg", ("train", 0, 0, 32, 64), ("test", 32, 0, 32, 64))
    spec = SampleSpec(8, split="areas", areas=areas.read_areas(file))
    assert SampleSpec.from_json(spec.to_json()) == spec
    plan = plan_samples(full(64, 64), spec)
    assert set(plan.splits()) == set(SPLITS)
    assert plan.splits()["val"]["samples"] == 0
    assert isinstance(plan, SamplePlan)
    assert plan.splits()["test"]["samples"] == 32
    drew = SampleSpec(8, split="areas", areas=spec.areas, strategy="random", samples=20)
    shared = plan_samples(full(64, 64), drew).splits()
    assert (shared["train"]["samples"], shared["test"]["samples"]) == (16, 4)  # 0.7 and 0.15


@pytest.mark.parametrize(
    ("boxes", "column", "said"),
    [
        ([("train", 0, 0, 8, 8)], "part", "no column 'split' (it has part)"),
        ([("train", 0, 0, 8, 8), ("Test", 8, 0, 8, 8)], "split", "split = Test"),
        ([("test", 0, 0, 8, 8)], "split", "no area for train"),
        ([("train", 0, 0, 8, 8), ("val", 4, 0, 8, 8)], "split", "train and val that overlap"),
    ],
)
def test_files_that_say_no_split(tmp_path, boxes, column, said):
    with pytest.raises(InputError) as caught:
        areas.read_areas(drawn(tmp_path / "a.gpkg", *boxes, column=column))
    assert said in str(caught.value)


def test_what_areas_cannot_split(tmp_path):
    found = areas.read_areas(drawn(tmp_path / "a.gpkg", ("train", 0, 0, 8, 8)))
    with pytest.raises(InputError, match="split is block and areas are given"):
        SampleSpec(8, areas=found)
    with pytest.raises(InputError, match="split is areas and no areas are given"):
        SampleSpec(8, split="areas")
    with pytest.raises(InputError, match="no blocks"):
        SampleSpec(8, split="areas", areas=found, block=64)
    nowhere = Plain(scene(16, 16, crs=None), labels=[np.zeros((16, 16), np.uint8)])
    with pytest.raises(InputError, match="no CRS"):
        select.candidates(nowhere, SampleSpec(8, split="areas", areas=found))
    small = SampleSpec(12, split="areas", areas=found)
    with pytest.raises(InputError, match="inside an area"):
        select.candidates(full(16, 16), small)
