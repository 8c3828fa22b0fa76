"""What people do with an opened product: arithmetic, saving, looking at it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import lcengine
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec
from lcengine.composite.tile import compute_tile
from lcengine.errors import InputError
from lcengine.simulate import SimulationOptions, simulate
from lcengine.store import target


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open")
    return simulate(folder, SimulationOptions(size=128, dates=3, bands=("red", "nir")))


@pytest.fixture(scope="module")
def product(archive, tmp_path_factory):
    """A published product (four tiles), and its raw arrays."""
    output = tmp_path_factory.mktemp("product") / "out.zarr"
    query = Query(str(archive.catalog), ("sentinel-2-l2a",))
    plan = CompositeRequest(
        query, CompositeSpec(("nir", "red"), mask="scl", outliers="none"), tile=64
    ).plan()
    place = target(output)
    staging = place.create({}, plan.run_id, plan.to_json(), plan.grid, plan.variables())
    for number in map(int, plan.reads.tiles):
        staging.write(plan.grid.tile_at(number), compute_tile(plan, number).arrays)
        staging.mark(number, {})
    staging.publish([int(n) for n in plan.reads.tiles], {"items": 1, "failed_reads": 0}, {})
    return output


def test_values_are_reflectance_and_say_nothing_of_the_stored_integers(product):
    opened = lcengine.open(product)
    raw = xr.open_zarr(product.resolve(), mask_and_scale=False)["red"].values
    expected = np.where(raw == -32768, np.nan, raw.astype(np.float32) * np.float32(1e-4))
    np.testing.assert_array_equal(opened["red"].values, expected)
    assert opened["red"].dtype == np.float32
    assert list(opened.data_vars) == ["nir", "red", "count", "outliers", "lost"]
    stored = {"scale_factor", "add_offset", "_FillValue"}
    for name in opened.variables:
        assert not stored & {*opened[name].attrs, *opened[name].encoding}
    assert json.loads(opened.attrs["lcengine"])["items"] == 1
    assert opened.rio.crs.to_epsg() == 32631
    assert opened.x.attrs["standard_name"] == "projection_x_coordinate"


@pytest.mark.parametrize("kind", ["product", "ndvi"])
def test_what_is_saved_reads_back_the_same(product, tmp_path, kind):
    opened = lcengine.open(product)
    ndvi = ((opened.nir - opened.red) / (opened.nir + opened.red)).rename("ndvi")
    dataset = opened if kind == "product" else ndvi.to_dataset()
    copy = tmp_path / "copy.zarr"
    dataset.drop_vars("spatial_ref").to_zarr(copy, consolidated=False)
    xr.testing.assert_equal(
        xr.open_zarr(copy, consolidated=False).load(), dataset.drop_vars("spatial_ref").load()
    )


def test_a_moved_link_names_the_folder_that_is_gone(product, tmp_path):
    link = tmp_path / "moved.zarr"
    link.symlink_to(tmp_path / ".moved.zarr.lcengine" / "gone")
    with pytest.raises(InputError, match="hidden folder along"):
        lcengine.open(link)


def test_items_are_shown_filtered_and_asked_for(archive):
    items = lcengine.search(archive.catalog, ["sentinel-2-l2a"])
    assert repr(items).startswith("Items(6 of sentinel-2-l2a, 2023-")
    few = items.filter(lambda item: item.id == items[0].id)
    assert (len(few), few.access) == (1, items.access)
    grid = lcengine.Grid.from_bounds(700_000, 5_634_000, 700_100, 5_634_100, 32631, 10)
    with pytest.raises(InputError, match=r"items are a list, expected lcengine\.Items"):
        lcengine.load(list(items), grid, ["red"])
    with pytest.raises(InputError, match="expected a list of names"):
        lcengine.load(items, grid, "red")
    with pytest.raises(InputError, match=r"grid is a int, expected lcengine\.Grid"):
        lcengine.load(items, 7, ["red"])
