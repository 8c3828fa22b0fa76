"""`auto`: bands, mask and screens that the sensor says, in the plan and never in the request."""

from __future__ import annotations

import json
from dataclasses import replace

import archives
import numpy as np
import pytest

import lcengine
from lcengine.aoi import Aoi
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec, plan_composite
from lcengine.composite.planning import CompositePlan
from lcengine.errors import InputError, MissingBandError
from lcengine.items import Access, Items
from lcengine.sensors import registry, sensor

BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Seven dates of noise, one of them of a cloud that no mask has."""
    folder, rng = tmp_path_factory.mktemp("auto"), np.random.default_rng(3)
    made = []
    for number in range(7):
        light = 4000 * (number == 4)
        assets = {
            band: archives.raster(
                folder / f"{band}-{number}.tif",
                (rng.normal(800 + light, 60, (64, 64)) + 1).astype(np.uint16),
            )
            for band in BANDS
        }
        classes = np.full((32, 32), 4, np.uint8)
        assets["scl"] = archives.raster(folder / f"scl-{number}.tif", classes, 20.0)
        made.append(archives.item(number, assets))
    return Items(tuple(made), Access(local=True))


def test_a_plan_names_what_the_sensor_takes(items):
    plan = plan_composite(items, archives.square(640, 64), CompositeSpec())
    stated = CompositeSpec(BANDS, mask="worldcover", outliers="mad:3:bright")
    assert plan.spec == stated
    assert plan.run_id == plan_composite(items, archives.square(640, 64), stated).run_id
    assert CompositePlan.from_json(plan.to_json()).spec == stated


def test_each_of_the_three_by_itself(items):
    spec = CompositeSpec(("red",), mask="scl")
    found = plan_composite(items, archives.square(640, 64), spec).spec
    assert found == replace(spec, outliers="mad:3:bright")
    spec = CompositeSpec(outliers="none")
    found = plan_composite(items, archives.square(640, 64), spec).spec
    assert found == CompositeSpec(BANDS, mask="worldcover", outliers="none")


@pytest.mark.parametrize("area", [False, True])
def test_a_request_keeps_what_the_user_said(items, tmp_path, area):
    items.save(tmp_path / "items.json")
    query = Query(str(tmp_path / "items.json"))
    aoi = lcengine.Aoi.from_bbox((4.45, 50.45, 4.55, 50.55)) if area else None
    asked, stated = (
        CompositeRequest(query, spec, aoi=aoi, tile=64)
        for spec in (CompositeSpec(), CompositeSpec(BANDS, "worldcover", "mad:3:bright"))
    )
    said = asked.to_json()
    assert (said["bands"], said["mask"], said["outliers"]) == (["auto"], "auto", "auto")
    assert asked.items_and_grid()[1] == stated.items_and_grid()[1]
    if not area:
        assert asked.plan().to_json() == stated.plan().to_json()


def test_the_command_line_says_auto(run, items, tmp_path):
    items.save(tmp_path / "items.json")
    output = tmp_path / "out.zarr"
    code, _, err = run("composite", tmp_path / "items.json", "--tile", 64, "-o", output)
    assert code == 0, err
    product = lcengine.open(output)
    assert [name for name in product.data_vars if name in BANDS] == list(BANDS)
    facts = json.loads(run("info", output, "--json")[1])
    assert facts["sensor"] == "sentinel-2-l2a"
    assert (facts["recipe"]["mask"], facts["recipe"]["outliers"]) == ("worldcover", "mad:3:bright")
    provenance = json.loads(product.attrs["lcengine"])
    assert provenance["recipe"]["bands"] == list(BANDS)
    assert provenance["request"]["bands"] == ["auto"]
    stated = tmp_path / "stated.zarr"
    options = ("--mask", "worldcover", "--outliers", "mad:3:bright", "--bands", ",".join(BANDS))
    run("composite", tmp_path / "items.json", "--tile", 64, "-o", stated, *options)
    assert archives.arrays(output).keys() == archives.arrays(stated).keys()
    for name, pixels in archives.arrays(stated).items():
        assert np.array_equal(archives.arrays(output)[name], pixels)


def test_a_cube_takes_the_screens_of_its_sensor(items):
    cube = lcengine.load(items, archives.square(640, 64), list(BANDS), mask="worldcover")
    assert cube.attrs["sensor"] == "sentinel-2-l2a"
    auto, stated, bare = (
        lcengine.composite(cube, **outliers)
        for outliers in ({}, {"outliers": "mad:3:bright"}, {"outliers": "none"})
    )
    for name in (*BANDS, "outliers"):
        assert np.array_equal(auto[name], stated[name])
    assert int(auto["outliers"].sum()) > int(bare["outliers"].sum()) == 0


def test_mistakes_show_before_a_sensor_is_known():
    with pytest.raises(InputError, match="no mask is called 'fog'"):
        CompositeSpec(mask="fog")
    with pytest.raises(InputError, match="outlier screens are 'fog'"):
        CompositeSpec(outliers="fog")
    with pytest.raises(InputError, match="method 'bap' looks at the distance to clouds"):
        CompositeSpec(method="bap").resolved(sensor("sentinel-2-l1c"))


def test_an_item_without_the_mask_s_band_names_those_that_fit(items):
    first = items[0]
    bare = replace(first, assets={k: v for k, v in first.assets.items() if k != "scl"})
    some = Items((bare, *items[1:]), Access(local=True))
    with pytest.raises(MissingBandError, match=r"no band 'scl', which mask 'worldcover' .*: none$"):
        plan_composite(some, archives.square(640, 64), CompositeSpec())
    with pytest.raises(MissingBandError, match="no band 'scl', which mask 'scl'"):
        lcengine.load(some, archives.square(640, 64), ["red"], mask="scl")


def test_several_sensors_are_named_whatever_is_auto(shared_data):
    source = str(shared_data / "flanders-2018" / "catalog.json")
    query = Query(source, ("sentinel-1-grd", "sentinel-2-l2a"), datetime="2018-04")
    for area in (None, Aoi.from_bbox((3.02, 50.81, 3.03, 50.82))):
        with pytest.raises(InputError, match=r"of 2 sensors \(sentinel-1-grd, sentinel-2-l2a\)"):
            CompositeRequest(query, CompositeSpec(), aoi=area).plan()


def test_auto_stands_alone():
    with pytest.raises(InputError, match=r"\['auto', 'red'\], expected auto alone"):
        CompositeSpec(bands=("auto", "red"))


def test_what_sensors_say_can_be_done():
    for entry in registry().values():
        spec = CompositeSpec().resolved(entry)
        assert spec.bands == entry.default_bands
        assert spec.read_bands(entry)
        plain = CompositeSpec(spec.bands)
        assert (spec.mask, spec.outliers) == (entry.mask, entry.outliers)
        assert plain.mask == plain.outliers == "auto"


def test_a_cube_takes_the_mask_of_the_command_line(items):
    grid = archives.square(640, 64)
    automatic = lcengine.load(items, grid, BANDS, mask="auto")
    stated = lcengine.load(items, grid, BANDS, mask="worldcover")
    np.testing.assert_array_equal(automatic, stated)
