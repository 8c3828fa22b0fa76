"""Composites against an independent oracle, and their independence of everything that is no input.

The pixels of a product depend on the bytes read and on the recipe: not on tiles, blocks, the order
of items, the way they are served, nor on who computes them.
"""

from __future__ import annotations

import json
import subprocess
import sys

import archives
import distributed
import numpy as np
import oracle
import pytest
import rasterio
import rough
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rough import assemble, differing

import lcengine
from lcengine import jobs
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec, plan_composite
from lcengine.composite import request as requests
from lcengine.grid import Grid
from lcengine.items import Access, Items
from lcengine.simulate import (
    FileServer,
    SimulationOptions,
    StacServer,
    items_collection,
    simulate,
)

LEFT, TOP = rough.LEFT, rough.TOP

# ------------------------------------------------------------------------------ real data, Flanders

SEASON = "2018-04-01/2018-09-30"
BANDS = ("blue", "green", "red", "nir", "swir16")
FIELD = oracle.Product(32631, 501_360.0, 5_629_680.0, 10.0, 64, 64)


@pytest.fixture(scope="module")
def season(flanders):
    """The raw items of the growing season."""
    found = oracle.between(oracle.items_below(flanders), *SEASON.split("/"))
    found = [item for item in found if item["collection"] == "sentinel-2-l2a"]
    assert len(found) == 58
    return found


@pytest.fixture(scope="module")
def answer(season):
    """What the acceptance command must write."""
    return oracle.composite(season, FIELD, BANDS, mask="worldcover", mad=3)


def field_grid(tile=64):
    right, bottom = FIELD.left + 640, FIELD.top - 640
    return Grid.from_bounds(FIELD.left, bottom, right, FIELD.top, 32631, 10, tile)


def field_items(source, datetime=SEASON):
    return lcengine.search(str(source), ["sentinel-2-l2a"], datetime=datetime)


@pytest.mark.slow
def test_the_command_equals_the_oracle(flanders, answer, tmp_path):
    output = tmp_path / "out.zarr"
    command = [sys.executable, "-m", "lcengine", "composite", str(flanders / "catalog.json")]
    command += ["-c", "sentinel-2-l2a", "--datetime", SEASON, "--bands", ",".join(BANDS)]
    command += ["--mask", "worldcover", "--outliers", "mad:3", "--method", "median"]
    ended = subprocess.run(
        [*command, "-o", str(output)], capture_output=True, text=True, check=False, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    product = xr.open_zarr(output, mask_and_scale=False, consolidated=True)
    assert differing(product, answer) == {}
    assert product.sizes == {"y": 64, "x": 64}
    assert np.array_equal(product.x, FIELD.left + 5 + 10 * np.arange(64))
    assert np.array_equal(product.y, FIELD.top - 5 - 10 * np.arange(64))
    assert not product["lost"].any()


def test_the_answer_is_worth_comparing(answer):
    """Holes, outliers, even and odd counts all occur in the real series."""
    assert len(np.unique(answer["count"])) > 5
    assert answer["count"].max() > 8
    assert answer["outliers"].any()
    assert len(np.unique(answer["swir16"])) > 500


@pytest.mark.parametrize(
    ("mask", "method", "outliers"),
    [
        ("worldcover", "median", "mad:3"),
        ("geomad", "median", "mad:2.5"),
        ("pacific", "median", "none"),
        ("s2mosaic", "median", "mad:3"),
        ("none", "median", "mad:3"),
        ("scl", "mean", "mad:3"),
        ("worldcover", "percentile:25", "mad:3"),
        ("worldcover", "percentile:75:nearest", "none"),
        ("geomad", "percentile:75:nearest", "mad:3"),
    ],
)
def test_recipes_on_real_data_equal_the_oracle(flanders, season, mask, method, outliers):
    bands = ("nir", "swir16", "blue")
    spec = CompositeSpec(bands, mask=mask, method=method, outliers=outliers)
    got = assemble(plan_composite(field_items(flanders / "catalog.json"), field_grid(), spec))
    mad = outliers.removeprefix("mad:") if outliers != "none" else None
    want = oracle.composite(season, FIELD, bands, mask=mask, mad=mad, method=method)
    assert differing(got, want) == {}


def test_items_behind_http_and_a_stac_api_give_the_same_bytes(flanders, answer):
    spec = CompositeSpec(BANDS, mask="worldcover", outliers="mad:3")
    with FileServer(flanders) as files, StacServer(items_collection(flanders, files.url)) as api:
        items = field_items(api.url)
        assert len(items) == 58
        assert all(item.asset("red").href.startswith(files.url) for item in items)
        got = assemble(plan_composite(items, field_grid(), spec))
        cube = lcengine.load(items, field_grid(32), ["red"], mask="worldcover").compute()
    assert differing(got, answer) == {}
    local = field_items(flanders / "catalog.json")
    again = lcengine.load(local, field_grid(64), ["red"], mask="worldcover")
    assert np.array_equal(cube, again)


def test_a_cube_composites_to_the_same_bytes(flanders, answer):
    items = field_items(flanders / "catalog.json")
    cube = lcengine.load(items, field_grid(), list(BANDS), mask="worldcover")
    product = lcengine.composite(cube, outliers="mad:3").compute()
    assert differing(product, answer) == {}


def test_summer_ndvi_tells_fields_from_buildings(flanders):
    """Labels: 11 temporary crops, 13 grassland, 60 built-up."""
    spec = CompositeSpec(("red", "nir"), mask="worldcover", outliers="mad:3")
    items = field_items(flanders / "catalog.json", "2018-06-01/2018-08-31")
    got = assemble(plan_composite(items, field_grid(), spec))
    red, nir = got["red"].astype(float), got["nir"].astype(float)
    with rasterio.open(flanders / "labels_lc.tif") as dataset:
        labels = dataset.read(1)
    seen = got["count"] > 0
    assert seen.mean() > 0.99
    ndvi = (nir - red) / (nir + red)
    crops, grass, built = (np.median(ndvi[(labels == code) & seen]) for code in (11, 13, 60))
    assert grass > built + 0.15, (grass, crops, built)
    assert crops > built + 0.15, (grass, crops, built)


# ---------------------------------------------------------------------- archives made for the tests


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """The rough archive: (catalogue, raw items)."""
    root = tmp_path_factory.mktemp("rough")
    return rough.write(root), oracle.items_below(root)


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A simulated archive in two zones: (catalogue, raw items)."""
    root = tmp_path_factory.mktemp("simulated") / "world"
    bands = ("blue", "green", "red", "swir16")
    options = SimulationOptions(size=128, dates=8, seed=3, bands=bands, second_zone=True)
    return simulate(root, options).catalog, oracle.items_below(root)


def grid_at(epsg=32631, resolution=10, tile=512, edge=1300, shift=0.0):
    """A grid over the corner where the archives lie, `edge` metres wide and not quite square."""
    box = (LEFT - 60, TOP - edge + 100, LEFT + edge, TOP + 40)
    if epsg != 32631:
        box = Transformer.from_crs(32631, epsg, always_xy=True).transform_bounds(*box)
    return Grid.from_bounds(*box, epsg, resolution, tile, anchor=shift)


GRIDS = {
    "native": grid_at(),
    "coarser": grid_at(resolution=20),
    "shifted": grid_at(shift=0.3),
    "other-zone": grid_at(32632),
    "laea": grid_at(3035, 25),
}


@pytest.mark.parametrize("archive", ["hard", "soft"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_two_zones_equal_the_oracle(archive, grid, resampling, request):
    catalog, raw = request.getfixturevalue(archive)
    spec = CompositeSpec(
        ("swir16", "red"), mask="worldcover", outliers="mad:3", resampling=resampling
    )
    got = assemble(plan_composite(lcengine.search(str(catalog)), GRIDS[grid], spec))
    product = oracle.Product.of(GRIDS[grid])
    want = oracle.composite(
        raw, product, ("swir16", "red"), mask="worldcover", mad=3, resampling=resampling
    )
    assert want["count"].max() >= 3
    assert differing(got, want) == {}


@pytest.mark.parametrize("mask", ["geomad", "pacific", "s2mosaic", "scl", "none"])
def test_masks_in_two_zones_equal_the_oracle(hard, mask):
    catalog, raw = hard
    spec = CompositeSpec(("red", "swir16"), mask=mask, method="mean", outliers="none")
    for name in ("native", "laea"):
        got = assemble(plan_composite(lcengine.search(str(catalog)), GRIDS[name], spec))
        product = oracle.Product.of(GRIDS[name])
        want = oracle.composite(raw, product, ("red", "swir16"), mask=mask, method="mean")
        assert differing(got, want) == {}, name


def test_bands_of_the_screen_count_for_validity(hard):
    """A pixel that only the screen's bands miss is no observation."""
    catalog, raw = hard
    items = lcengine.search(str(catalog))
    counts = {}
    for outliers in ("none", "mad:1000"):  # a screen that rejects nothing
        spec = CompositeSpec(("swir16",), mask="none", outliers=outliers)
        got = assemble(plan_composite(items, GRIDS["native"], spec))
        mad = 1000 if outliers != "none" else None
        want = oracle.composite(raw, oracle.Product.of(GRIDS["native"]), ("swir16",), mad=mad)
        assert differing(got, want) == {}
        counts[outliers] = got["count"].sum()
    assert counts["mad:1000"] < counts["none"]


def test_the_newest_processing_of_a_scene_wins(hard):
    catalog, _ = hard
    items = lcengine.search(str(catalog))
    assert items.superseded == ("sentinel-2a_31UFS_2",)
    assert len(items) == len(rough.PASSES) * 3


def test_satellites_minutes_apart_are_two_observations(hard):
    """And the three granules of each are one."""
    plan = plan_composite(
        lcengine.search(str(hard[0])),
        GRIDS["native"],
        CompositeSpec(("red",), mask="none", outliers="none"),
    )
    assert len(set(plan.reads.observation)) == len(rough.PASSES)
    got = assemble(plan)
    assert got["count"].max() == len(rough.PASSES)


# --------------------------------------------------------------------------------- what is no input


@pytest.fixture(scope="module")
def untiled(hard, soft):
    """Whole products in one tile and one block, computed once per recipe and grid."""
    made = {}

    def find(archive, name, spec):
        if (archive, name, spec) not in made:
            items = lcengine.search(str({"hard": hard, "soft": soft}[archive][0]))
            made[archive, name, spec] = assemble(plan_composite(items, GRIDS[name], spec))
        return made[archive, name, spec]

    return find


def retiled(grid, tile):
    return Grid(grid.geobox, tile, grid.aoi)


@pytest.mark.slow
@settings(max_examples=10)
@given(data=st.data())
def test_tiles_blocks_and_order_change_nothing(hard, soft, untiled, tmp_path_factory, data):
    """Overlapping granules, two zones, every resampling, a recipe with all its parts."""
    draw = data.draw
    archive = draw(st.sampled_from(["hard", "soft"]))
    name = draw(st.sampled_from(["native", "shifted", "other-zone", "laea"]))
    resampling = draw(st.sampled_from(["nearest", "bilinear", "average"]))
    mask = draw(st.sampled_from(["worldcover", "geomad", "s2mosaic"]))
    spec = CompositeSpec(("red", "swir16"), mask=mask, outliers="mad:2", resampling=resampling)
    want = untiled(archive, name, spec)
    raw = {"hard": hard, "soft": soft}[archive][1]
    file = tmp_path_factory.mktemp("shuffled") / "items.json"
    features = draw(st.permutations(raw))
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tile = draw(st.sampled_from([16, 32, 48, 80, 112]))
    block = draw(st.sampled_from([16, 17, 33, 64, 500]))
    grid = retiled(GRIDS[name], tile)
    plan = plan_composite(lcengine.search(str(file)), grid, spec, block=block)
    assert len(plan.reads.tiles) == grid.n_tiles
    assert differing(assemble(plan), want) == {}


@pytest.mark.parametrize("tile", [16, 48, 64])
def test_a_tile_size_of_each_kind_changes_nothing(hard, untiled, tile):
    """A quick one of the property above."""
    spec = CompositeSpec(("red", "swir16"), mask="worldcover", outliers="mad:2")
    grid = retiled(GRIDS["native"], tile)
    plan = plan_composite(lcengine.search(str(hard[0])), grid, spec, block=32)
    assert differing(assemble(plan), untiled("hard", "native", spec)) == {}


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("processes", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_threads_and_processes_change_nothing(hard, untiled, tmp_path, workers, processes):
    spec = CompositeSpec(("red", "swir16"), mask="worldcover", outliers="mad:2")
    grid = retiled(GRIDS["other-zone"], 48)
    plan = plan_composite(lcengine.search(str(hard[0])), grid, spec, block=32)
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=2,
            processes=processes,
            host="127.0.0.1" if processes else None,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        path = jobs.run(plan, tmp_path / "out.zarr", client=client)
    product = xr.open_zarr(path, mask_and_scale=False, consolidated=True).load()
    want = untiled("hard", "other-zone", spec)
    assert differing(product, want) == {}
    for name, pixels in want.items():
        assert product[name].values.tobytes() == pixels.tobytes()


# --------------------------------------------------------------------------------- area of interest


@pytest.fixture(scope="module")
def polygon(tmp_path_factory):
    """A slanted area over the archives: (file, its vertices in EPSG:32631)."""
    corners = [(100, -300), (400, -80), (700, -500), (330, -430), (300, -640)]
    # No pixel centre lies on an edge.
    corners = [(LEFT + x + 1.3, TOP + y - 0.7) for x, y in corners]
    ring = Transformer.from_crs(32631, 4326, always_xy=True).itransform([*corners, corners[0]])
    file = tmp_path_factory.mktemp("aoi") / "aoi.geojson"
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [list(map(list, ring))]}))
    return file, np.array(corners)


def even_odd(corners, x, y):
    """Which points lie in a polygon, by counting the edges to their right."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


@pytest.mark.parametrize("tile", [16, 32, 512])
def test_outside_the_polygon_is_nodata_with_a_count_of_zero(hard, polygon, tile):
    """Also in tiles that the polygon does not touch at all, whatever the tile size."""
    catalog, raw = hard
    aoi = lcengine.Aoi.from_file(polygon[0])
    grid = Grid.from_aoi(aoi, crs=32631, resolution=10, tile=tile)
    spec = CompositeSpec(("red",), mask="scl", outliers="mad:3")
    got = assemble(plan_composite(lcengine.search(str(catalog)), grid, spec))
    product = oracle.Product.of(grid)
    inside = even_odd(polygon[1], *product.points())
    want = oracle.composite(raw, product, ("red",), mask="scl", mad=3, inside=inside)
    assert differing(got, want) == {}
    outside = ~inside
    assert 0.2 < outside.mean() < 0.8
    assert (got["red"][outside] == oracle.NODATA).all()
    for name in ("count", "outliers", "lost"):
        assert not got[name][outside].any()


def test_a_polygon_in_a_cube_is_the_same_polygon(hard, polygon):
    items = lcengine.search(str(hard[0]))
    aoi = lcengine.Aoi.from_file(polygon[0])
    grid = Grid.from_aoi(aoi, crs=32631, resolution=10, tile=32)
    spec = CompositeSpec(("red",), mask="scl", outliers="mad:3")
    want = assemble(plan_composite(items, grid, spec))
    cube = lcengine.load(items, grid, ["red", "green", "blue"], mask="scl")
    got = lcengine.composite(cube, bands=("red",), outliers="mad:3").compute()
    assert differing(got, {name: want[name] for name in ("red", "count", "outliers")}) == {}


# ------------------------------------------------------------------------------ the antimeridian


@pytest.fixture
def fiji(tmp_path):
    """An item of zone 60 south, whose raster has longitude 180 in its middle: (items, corner)."""
    x, y = Transformer.from_crs(4326, 32760, always_xy=True).transform(180.0, -17.0025)
    corner = (round(x / 10) * 10.0 - 320, round(y / 10) * 10.0 + 320)
    pixels = np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64)
    asset = archives.raster(tmp_path / "red.tif", pixels, epsg=32760, corner=corner)
    item = archives.item(0, {"red": asset}, bbox=(179.99, -17.01, -179.99, -16.99), tile="60KYF")
    return Items((item,), Access(local=True)), corner


@pytest.mark.parametrize("west", [179.995, -180.0])
def test_an_item_across_the_antimeridian_is_on_both_sides(fiji, west):
    items, (left, top) = fiji
    grid = Grid.from_bounds(west, -17.005, west + 0.005, -17.0, 4326, 0.0001, 16)
    spec = CompositeSpec(("red",), mask="none", outliers="none")
    got, failures = archives.in_process(plan_composite(items, grid, spec))
    assert failures == []
    lon, lat = np.meshgrid(grid.x(np.arange(grid.shape[1])), grid.y(np.arange(grid.shape[0])))
    x, y = Transformer.from_crs(4326, 32760, always_xy=True).transform(lon, lat)
    row = np.floor((top - y) / 10).astype(int)
    column = np.floor((x - left) / 10).astype(int)
    there = (row >= 0) & (row < 64) & (column >= 0) & (column < 64)
    assert 0.3 < there.mean() < 1
    expected = np.where(there, row * 64 + column + 1, oracle.NODATA)
    np.testing.assert_array_equal(got["red"], expected)
    np.testing.assert_array_equal(got["count"], there)


def test_an_area_at_the_antimeridian_does_not_search_the_globe(fiji, monkeypatch):
    items, _ = fiji
    asked = []

    def answer(_, bbox):
        asked.append(bbox)
        return items

    monkeypatch.setattr(requests.Search, "items", answer)
    spec = CompositeSpec(("red",), mask="worldcover", outliers="none")
    aoi = lcengine.Aoi.from_bbox("179.5,-17.5,180,-17")
    request = CompositeRequest(Query("items.json"), spec, aoi)
    _, grid = request.items_and_grid()
    assert grid.epsg == 32760
    assert grid.lonlat_bounds()[0::2] == (-180.0, 180.0)  # why it might
    assert asked
    for west, south, east, north in asked:
        assert 179 < west < 179.5
        assert south < -17.5
        assert east == 180
        assert north > -17
