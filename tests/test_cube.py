"""The lazy cube: exact grid and coordinates, pixels of the reader, composites of the engine."""

from __future__ import annotations

import pickle

import cloudpickle
import dask
import numpy as np
import oracle
import pytest
import rough
from hypothesis import given, settings
from hypothesis import strategies as st
from rough import assemble, differing

import lcengine
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.cube import Reader
from lcengine.errors import InputError, MissingBandError, ReadError
from lcengine.grid import Grid

LEFT, TOP = rough.LEFT, rough.TOP
BANDS = ["red", "swir16", "blue", "green"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(items, raw items) of the rough archive."""
    root = tmp_path_factory.mktemp("cube")
    catalog = rough.write(root, seed=9)
    return lcengine.search(str(catalog)), oracle.items_below(root)


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def grid_at(epsg=32631, tile=64):
    if epsg == 32631:
        return Grid.from_bounds(LEFT - 30, TOP - 700, LEFT + 900, TOP + 50, epsg, 10, tile)
    return Grid.from_bounds(277_830, 5_640_130, 278_800, 5_640_950, epsg, 10, tile)


def test_a_cube_lies_exactly_on_its_grid(archive):
    items, _ = archive
    grid = grid_at()
    cube = lcengine.load(items, grid, BANDS, mask="worldcover")
    assert cube.dims == ("time", "band", "y", "x")
    assert cube.dtype == np.int16
    assert cube.shape == (21, 5, *grid.shape) == (21, 5, 75, 93)
    assert cube["band"].values.tolist() == [*BANDS, "clear"]
    assert np.array_equal(cube["x"], LEFT - 25 + 10 * np.arange(93))
    assert np.array_equal(cube["y"], TOP + 45 - 10 * np.arange(75))
    assert cube.rio.crs.to_epsg() == 32631
    assert tuple(cube.rio.transform())[:6] == (10, 0, LEFT - 30, 0, -10, TOP + 50)
    assert cube.attrs["_FillValue"] == -32768
    assert cube.attrs["scale_factor"] == 1e-4
    assert cube.chunks[0] == (21,)
    assert cube.chunks[2:] == ((64, 11), (64, 29))


def test_time_is_the_sensing_time_and_observations_ascend(archive):
    items, raw = archive
    cube = lcengine.load(items, grid_at(), ["red"])
    groups = oracle.overpasses(oracle.newest(raw), 32631)
    groups.sort(key=lambda group: min(map(oracle.when, group)))
    expected = [(number, item["id"]) for number, group in enumerate(groups) for item in group]
    assert list(zip(cube.observation.values, cube.id.values, strict=True)) == expected
    times = {item["id"]: oracle.when(item).replace(tzinfo=None) for item in raw}
    stated = [np.datetime64(times[name], "ns") for name in cube.id.values]
    assert cube["time"].values.tolist() == np.array(stated).tolist()


@pytest.mark.parametrize("epsg", [32631, 32632])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_pixels_equal_the_oracle(archive, epsg, resampling):
    items, raw = archive
    grid = grid_at(epsg)
    cube = lcengine.load(items, grid, ["red", "swir16"], resampling=resampling).compute()
    by_id = {item["id"]: item for item in raw}
    product = oracle.Product.of(grid)
    assert (cube != oracle.NODATA).mean() > 0.1
    for n, name in enumerate(cube.id.values[:9]):
        for b, band in enumerate(("red", "swir16")):
            want = oracle.sample(oracle.reflectance(by_id[name], band), product, resampling)
            assert np.array_equal(cube[n, b], want), (name, band)


@pytest.mark.parametrize("mask", ["worldcover", "geomad", "s2mosaic"])
def test_clear_equals_the_oracle(archive, mask):
    items, raw = archive
    grid = grid_at(32632)
    clear = lcengine.load(items, grid, ["red"], mask=mask).sel(band="clear").compute()
    groups = oracle.overpasses(oracle.newest(raw), 32632)
    want = oracle.clear_masks(groups, oracle.Product.of(grid), mask)
    order = [item["id"] for group in groups for item in group]
    for name, pixels in zip(order, want, strict=True):
        assert np.array_equal(clear.values[clear.id == name][0], pixels), name


@pytest.fixture(scope="module")
def product(archive):
    """The engine's composite of the grid, in one tile."""
    spec = CompositeSpec(tuple(BANDS), mask="worldcover", outliers="mad:2")
    want = assemble(plan_composite(archive[0], grid_at(tile=512), spec))
    del want["lost"]
    return want


@settings(max_examples=3)
@given(chunks=st.integers(33, 120), seed=st.integers(0, 99))
def test_chunks_and_order_change_nothing(archive, product, chunks, seed):
    items, _ = archive
    shuffled = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    again = lcengine.Items.of(shuffled, items.access)
    cube = lcengine.load(again, grid_at(), BANDS, mask="worldcover", chunks=chunks)
    got = lcengine.composite(cube, outliers="mad:2").compute()
    assert differing(got, product) == {}
    rechunked = lcengine.composite(cube.chunk(y=chunks + 5, x=31), outliers="mad:2").compute()
    assert differing(rechunked, product) == {}


def test_a_cube_in_memory_composites_alike(archive, product):
    cube = lcengine.load(archive[0], grid_at(), BANDS, mask="worldcover").compute()
    got = lcengine.composite(cube, outliers="mad:2").compute()
    assert differing(got, product) == {}
    assert got["count"].attrs["_FillValue"] == 65535
    assert got["red"].attrs["_FillValue"] == -32768
    assert got.rio.crs.to_epsg() == 32631


def test_bands_that_are_not_asked_for_change_nothing(archive):
    """A pixel that another band of the cube misses still counts."""
    items, _ = archive
    cube = lcengine.load(items, grid_at(), BANDS, mask="scl")
    got = lcengine.composite(
        cube, bands=("swir16",), method="percentile:25", outliers="none"
    ).compute()
    spec = CompositeSpec(("swir16",), mask="scl", method="percentile:25", outliers="none")
    want = assemble(plan_composite(items, grid_at(), spec))
    assert list(got) == ["swir16", "count", "outliers"]
    del want["lost"]
    assert differing(got, want) == {}


def test_without_a_mask_every_valid_pixel_is_clear(archive):
    items, _ = archive
    got = lcengine.composite(lcengine.load(items, grid_at(), ["red"]), outliers="none").compute()
    want = assemble(
        plan_composite(items, grid_at(), CompositeSpec(("red",), mask="none", outliers="none"))
    )
    del want["lost"]
    assert differing(got, want) == {}


def test_groupby_none_takes_every_item_for_itself(archive):
    items, _ = archive
    cube = lcengine.load(items, grid_at(), ["red"], groupby="none")
    assert cube.observation.values.tolist() == list(range(21))
    got = lcengine.composite(cube, outliers="none").compute()
    spec = CompositeSpec(("red",), mask="none", groupby="none", outliers="none")
    want = assemble(plan_composite(items, grid_at(), spec))
    del want["lost"]
    assert differing(got, want) == {}
    assert got["count"].max() > len(rough.PASSES), "overlapping granules are not merged"


def test_a_reader_travels_by_its_address(archive):
    cube = lcengine.load(archive[0], grid_at(), ["red"], mask="geomad")
    again = cloudpickle.loads(cloudpickle.dumps(cube))
    assert np.array_equal(again, cube)


def test_a_reader_pickles(archive):
    import json
    from dataclasses import asdict

    from lcengine.plan import product_lattice
    from lcengine.reader import Access

    address = {
        "assets": [asdict(archive[0][0].asset("red"))],
        "access": asdict(Access(local=True)),
        "mask": None,
        "distance": False,
        "resampling": "nearest",
        "lattice": asdict(product_lattice(grid_at())),
    }
    reader = Reader(url=json.dumps(address))
    again = pickle.loads(pickle.dumps(reader))
    assert again.assets == reader.assets == (archive[0][0].asset("red"),)
    assert again.lattice == reader.lattice
    reader.close()


def test_errors_are_named(archive, tmp_path):
    items, _ = archive
    with pytest.raises(InputError, match="no items to load"):
        lcengine.load(lcengine.Items(()), grid_at(), ["red"])
    with pytest.raises(MissingBandError, match="has no band 'nir'"):
        lcengine.load(items, grid_at(), ["nir"])
    cube = lcengine.load(items, grid_at(), ["red"])
    with pytest.raises(InputError, match="the cube has no band 'blue'; it has red"):
        lcengine.composite(cube, outliers="mad:3")
    with pytest.raises(InputError, match="does not ascend"):
        lcengine.composite(cube[::-1], outliers="none")


def test_a_file_that_cannot_be_read_raises_on_computing(tmp_path):
    items = lcengine.search(str(rough.write(tmp_path)))
    (tmp_path / "sentinel-2-l2a" / items[0].id / "red.tif").write_bytes(b"")
    cube = lcengine.load(items, grid_at(), ["red"])
    with pytest.raises(ReadError, match=r"red\.tif could not be read"):
        cube.compute()
