"""Area of interest, lattice, tiles and AOI mask of `lcengine.grid`, against independent oracles."""

from __future__ import annotations

import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from lcengine.aoi import Aoi
from lcengine.crs import auto_crs
from lcengine.errors import AoiError, InputError
from lcengine.grid import MAX_PIXELS, Grid, Tile, auto_tile

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FLANDERS = (3.30, 51.00, 3.34, 51.03)


def write(path: Path, document: object) -> Path:
    file = path / "aoi.geojson"
    file.write_text(json.dumps(document))
    return file


def polygon(*corners: tuple[float, float]) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


TRIANGLE = polygon((3.30, 51.00), (3.34, 51.00), (3.31, 51.03))


@st.composite
def boxes(draw, max_size=0.2):
    """west, south, east, north in and around UTM zones 31 and 32."""
    west = draw(st.floats(0.5, 11))
    south = draw(st.floats(-60, 70))
    size = st.floats(0.001, max_size)
    return west, south, west + draw(size), south + draw(size)


@st.composite
def star_grids(draw):
    """Grids with a star-shaped polygon, sometimes with a hole, corners often on pixel centres."""
    n = draw(st.integers(3, 9))
    snap = draw(st.sampled_from([0.5, 1e-6]))
    angles = np.sort(draw(st.lists(st.floats(0, 6.28), min_size=n, max_size=n, unique=True)))
    radii = np.array(draw(st.lists(st.floats(5, 150), min_size=n, max_size=n)))
    xy = np.stack([150 + radii * np.cos(angles), 150 + radii * np.sin(angles)], axis=1)
    shape = shapely.make_valid(shapely.Polygon(np.round(xy / snap) * snap))
    if draw(st.booleans()):
        shape = shapely.difference(shape, shapely.box(140.5, 120.5, 190.5, 150.5))
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
    assume(parts)
    resolution = draw(st.sampled_from([1.0, 10.0, 0.3]))
    world = shapely.transform(shapely.MultiPolygon(parts), lambda c: c * resolution + [5e5, 5.6e6])
    left, bottom, right, top = world.bounds
    grid = Grid.from_bounds(left, bottom, right, top, 32631, resolution, tile=64)
    return Grid(grid.geobox, 64, Geometry(world, grid.crs))


# --- lattice --------------------------------------------------------------------------------


@quick
@given(
    boxes(),
    st.sampled_from([(32631, 10.0), (32632, 20.0), (3035, 100.0), (3857, 9.6), (4326, 1e-3)]),
    st.sampled_from([0.0, 0.5]),
)
def test_extent_contains_the_aoi_and_is_minimal(bbox, crs_resolution, anchor):
    crs, resolution = crs_resolution
    assume(crs != 3035 or bbox[1] > 20)
    grid = Grid.from_aoi(Aoi.from_bbox(bbox), crs=crs, resolution=resolution, anchor=anchor)
    west, south, east, north = bbox
    t = np.linspace(0, 1, 1501)
    lon = np.concatenate([west + t * (east - west)] * 2 + [west + 0 * t, east + 0 * t])
    lat = np.concatenate([south + 0 * t, north + 0 * t] + [south + t * (north - south)] * 2)
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    left, bottom, right, top = grid.bounds
    gaps = np.array([x.min() - left, right - x.max(), y.min() - bottom, top - y.max()])
    assert (gaps / resolution >= -0.01).all()  # contains, but for the sagitta of the densified edge
    assert (gaps / resolution < 1.01).all()  # and no pixel more
    edges = np.array([left, right, bottom, top]) / resolution - anchor
    np.testing.assert_allclose(edges, np.rint(edges), atol=1e-6)
    assert grid.aoi is None
    assert grid.resolution == resolution
    assert grid.epsg == crs


@quick
@given(
    st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(1, 500),
    st.integers(1, 500), st.sampled_from([10.0, 30.0, 0.1, 1 / 3]), st.sampled_from([0.0, 0.5]),
    st.lists(st.floats(-4e-7, 4e-7), min_size=4, max_size=4),
)  # fmt: skip
def test_aligned_bounds_do_not_grow_by_float_noise(col, row, w, h, resolution, anchor, noise):
    exact = np.array([col, row, col + w, row + h]) + anchor
    left, bottom, right, top = ((exact + noise) * resolution).tolist()
    grid = Grid.from_bounds(left, bottom, right, top, 32631, resolution, anchor=anchor)
    assert grid.shape == (h, w)
    np.testing.assert_allclose(np.array(grid.bounds) / resolution, exact, rtol=0, atol=1e-8)


@quick
@given(boxes(), boxes(), st.sampled_from([0.0, 0.5]))
def test_products_of_two_aois_share_the_lattice(one, two, anchor):
    grids = [
        Grid.from_aoi(Aoi.from_bbox(b), crs=32631, resolution=30, anchor=anchor) for b in (one, two)
    ]
    shift_x = (grids[1].bounds[0] - grids[0].bounds[0]) / 30
    shift_y = (grids[0].bounds[3] - grids[1].bounds[3]) / 30
    assert shift_x == round(shift_x)
    assert shift_y == round(shift_y)
    cols, rows = np.arange(-3, 50), np.arange(7, 90)
    assert np.array_equal(grids[1].x(cols), grids[0].x(cols + round(shift_x)))
    assert np.array_equal(grids[1].y(rows), grids[0].y(rows + round(shift_y)))


def test_anchor_is_the_sensors_pixel_edge():
    aoi = Aoi.from_bbox(FLANDERS)
    assert Grid.from_aoi(aoi, crs=32631, resolution=30).bounds[0] % 30 == 0
    landsat = Grid.from_aoi(aoi, crs=32631, resolution=30, anchor=0.5)
    assert [value % 30 for value in landsat.bounds] == [15] * 4


def test_aoi_of_another_utm_zone():
    grid = Grid.from_aoi(Aoi.from_bbox((3.0, 50.0, 3.1, 50.1)), crs="EPSG:32632", resolution=10)
    x, y = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(3.05, 50.05)
    left, bottom, right, top = grid.bounds
    assert left < x < right < 166_000  # west of zone 32 itself
    assert bottom < y < top
    w, s, e, n = grid.lonlat_bounds()
    assert w <= 3.0 and s <= 50.0 and e >= 3.1 and n >= 50.1  # noqa: PT018


def test_pixel_centres_are_counted_from_the_products_origin():
    grid = Grid.from_bounds(0.3, 0.2, 9.9, 9.7, 32631, 0.1)
    cols = np.arange(-5, 200)
    assert grid.x(cols).dtype == np.float64
    for start in (0, 7, 64):  # a window's values are those of the whole row, to the bit
        assert np.array_equal(grid.x(np.arange(start, start + 20)), grid.x(cols)[5:][start:][:20])
    a = grid.transform
    assert grid.x([0, 3]).tolist() == [a.c + 0.5 * 0.1, a.c + 3.5 * 0.1]
    assert grid.y([0, 3]).tolist() == [a.f - 0.5 * 0.1, a.f - 3.5 * 0.1]


# --- tiles ----------------------------------------------------------------------------------


@quick
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([16, 32, 48, 256]))
def test_tiles_partition_the_product(height, width, size):
    grid = Grid.from_bounds(0, 0, width, height, 32631, 1, tile=size)
    seen = np.zeros(grid.shape, int)
    tiles = list(grid.tiles())
    for index, tile in enumerate(tiles):
        seen[tile.slices] += 1
        assert tile == grid.tile_at(index)
        assert (tile.index, tile.y0, tile.x0) == (index, tile.row * size, tile.col * size)
    assert (seen == 1).all()
    assert len(tiles) == grid.n_tiles == grid.tile_rows * grid.tile_cols
    for index in (-1, grid.n_tiles):
        with pytest.raises(IndexError):
            grid.tile_at(index)


def test_padded_tile_hangs_over_the_edge():
    assert Tile(3, 0, 3, 0, 48, 16, 10).pad(4) == Tile(3, 0, 3, -4, 44, 24, 18)


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((100, 90), 112), ((512, 512), 512), ((1, 1), 16), ((2048, 2048), 1024),
        ((4095, 4095), 1024), ((4096, 4096), 1024), ((8192, 8192), 2048), ((10**5, 10**5), 2048),
        ((500, 40000), 1024), ((10, 511), 512), ((10, 400), 400),
    ],
)  # fmt: skip
def test_auto_tile(shape, tile):
    assert auto_tile(shape) == tile


@quick
@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_auto_tile_is_usable_and_aims_at_sixteen_tiles(height, width):
    tile = auto_tile((height, width))
    assert tile % 16 == 0
    assert 16 <= tile <= 2048
    if tile > 1024:
        assert height * width / tile**2 >= 16
        assert tile == 2048 or height * width / (2 * tile) ** 2 < 16


@pytest.mark.parametrize("tile", [0, -16, 100])
def test_tile_must_be_a_multiple_of_16(tile):
    with pytest.raises(InputError, match="positive multiple of 16"):
        Grid.from_bounds(0, 0, 10, 10, 32631, 1, tile=tile)


# --- AOI mask -------------------------------------------------------------------------------


def brute_force(grid: Grid) -> np.ndarray:
    """Every pixel centre on its own: Point objects and the unprepared predicate."""
    height, width = grid.shape
    a = grid.transform
    x = a.c + (np.arange(width) + 0.5) * a.a
    y = a.f - (np.arange(height) + 0.5) * a.a
    return shapely.intersects(grid.aoi.geom, shapely.points(*np.meshgrid(x, y)))


@quick
@given(star_grids(), st.data())
def test_inside_is_the_brute_force_test_in_any_window(grid, data):
    height, width = grid.shape
    truth = np.zeros((height + 140, width + 140), bool)  # nothing is inside beyond the product
    truth[70:-70, 70:-70] = brute_force(grid)
    windows = [(t.y0, t.x0, t.height, t.width) for t in grid.tiles()]
    for _ in range(4):
        y0 = data.draw(st.integers(-70, height + 60))
        x0 = data.draw(st.integers(-70, width + 60))
        h = data.draw(st.integers(1, height + 70 - y0))
        w = data.draw(st.integers(1, width + 70 - x0))
        windows.append((y0, x0, h, w))
    for y0, x0, h, w in [(0, 0, height, width), *windows]:
        mask = grid.inside(y0, x0, h, w)
        expected = truth[y0 + 70 : y0 + 70 + h, x0 + 70 : x0 + 70 + w]
        assert (mask is None) == expected.all()
        assert np.array_equal(np.ones((h, w), bool) if mask is None else mask, expected)
        if expected.any():
            assert grid.touches(Tile(0, 0, 0, y0, x0, h, w))


def test_centre_on_the_boundary_is_inside():
    square = shapely.box(500_005, 5_600_005, 500_025, 5_600_025)
    grid = Grid.from_bounds(500_000, 5_600_000, 500_040, 5_600_040, 32631, 10)
    grid = Grid(grid.geobox, grid.tile, Geometry(square, grid.crs))
    expected = np.zeros((4, 4), bool)
    expected[1:, :3] = True
    assert np.array_equal(grid.inside(0, 0, 4, 4), expected)
    assert grid.inside(1, 0, 3, 3) is None


def test_tiles_away_from_the_aoi_are_not_touched(tmp_path):
    grid = Grid.from_aoi(
        Aoi.from_file(write(tmp_path, TRIANGLE)), crs=32631, resolution=10, tile=64
    )
    touched = [grid.touches(tile) for tile in grid.tiles()]
    inside = [np.any(grid.inside(t.y0, t.x0, t.height, t.width)) for t in grid.tiles()]
    assert 0 < sum(touched) < grid.n_tiles
    assert all(t or not i for t, i in zip(touched, inside, strict=True))
    box = Grid.from_aoi(Aoi.from_bbox(FLANDERS), crs=32631, resolution=10, tile=64)
    assert all(map(box.touches, box.tiles()))
    assert box.inside(-5, -5, 900, 900) is None


def test_inside_from_many_threads(tmp_path):
    grid = Grid.from_aoi(
        Aoi.from_file(write(tmp_path, TRIANGLE)), crs=32631, resolution=10, tile=64
    )
    truth = brute_force(grid)
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda t: (t, grid.inside(*t[3:])), grid.tiles()))
    for tile, mask in masks:
        found = np.ones((tile.height, tile.width), bool) if mask is None else mask
        assert np.array_equal(found, truth[tile.slices])


# --- longitude and latitude of the extent ---------------------------------------------------


@quick
@given(boxes(), st.sampled_from([32631, 32632, 3857, 4326]), st.sampled_from([0.0, 3000.0]))
def test_lonlat_bounds_hold_the_extent_and_its_halo(bbox, crs, halo):
    resolution = 1e-3 if crs == 4326 else 50
    grid = Grid.from_aoi(Aoi.from_bbox(bbox), crs=crs, resolution=resolution)
    w, s, e, n = grid.lonlat_bounds(halo)
    assert w <= bbox[0] + 1e-7 and s <= bbox[1] + 1e-7  # noqa: PT018
    assert e >= bbox[2] - 1e-7 and n >= bbox[3] - 1e-7  # noqa: PT018
    if halo and crs != 3857:  # ground metres on the ellipsoid; web Mercator's are shorter
        geod = pyproj.Geod(ellps="WGS84")
        assert geod.inv(bbox[0], bbox[1], bbox[0], s)[2] >= 0.99 * halo
        assert geod.inv(bbox[0], bbox[3], w, bbox[3])[2] >= 0.99 * halo
    assert (w, s, e, n) != grid.lonlat_bounds(halo + 1000)


def test_lonlat_bounds_at_the_pole_the_antimeridian_and_the_rim_of_the_world():
    pole = Grid.from_bounds(-1e6, -1e6, 1e6, 1e6, 3413, 1000)
    w, s, e, n = pole.lonlat_bounds()
    assert (w, e, n) == (-180, 180, 90)
    assert 76 < s < 80
    aleutians = Grid.from_aoi(Aoi.from_bbox((-180, 51, -179.9, 51.1)), crs=32601, resolution=10)
    w, s, e, n = aleutians.lonlat_bounds(3000)
    assert (w, e) == (-180, 180)
    assert 50.9 < s < 51 < n < 51.2
    world = Grid.from_bounds(-1.7e7, -8.3e6, 1.7e7, 8.3e6, 8857, 10_000)  # Equal Earth
    w, s, e, n = world.lonlat_bounds()
    assert (w, e) == (-180, 180)
    assert -84 < s < -82
    disc = Grid.from_bounds(-8e6, -9e6, 1.6e7, 1.5e7, 3035, 10_000)  # its corners are off the globe
    assert disc.lonlat_bounds() == (-180, -90, 180, 90)
    with pytest.raises(AoiError, match=r"no finite longitude/latitude in EPSG:3035"):
        Grid.from_bounds(1e9, 1e9, 1e9 + 10, 1e9 + 10, 3035, 10).lonlat_bounds()


# --- serialisation --------------------------------------------------------------------------


@quick
@given(star_grids())
def test_dict_round_trip_is_exact(grid):
    again = Grid.from_dict(json.loads(json.dumps(grid.to_dict())))
    assert again == grid
    assert again.to_dict() == grid.to_dict()
    assert hash(again) == hash(grid)
    assert pickle.loads(pickle.dumps(grid)) == grid


@pytest.mark.parametrize("crs", ["+proj=laea +lat_0=10 +lon_0=5 +datum=WGS84 +units=m", "3035"])
def test_round_trip_of_other_crs(crs):
    grid = Grid.from_aoi(Aoi.from_bbox((4, 40, 4.1, 40.1)), crs=crs, resolution=1 / 3)
    again = Grid.from_dict(json.loads(json.dumps(grid.to_dict())))
    assert again == grid
    assert again.crs_wkt == grid.crs_wkt
    assert again.bounds == grid.bounds
    assert grid.epsg == (3035 if crs == "3035" else None)


def test_crs_given_as_code_name_or_definition_is_one_grid():
    aoi = Aoi.from_bbox(FLANDERS)
    spellings = [32631, "32631", "epsg:32631", "+proj=utm +zone=31 +datum=WGS84",
                 pyproj.CRS(32631).to_wkt()]  # fmt: skip
    grids = [Grid.from_aoi(aoi, crs=crs, resolution=10) for crs in spellings]
    assert all(grid == grids[0] and grid.to_dict()["crs"] == "EPSG:32631" for grid in grids)


def test_grid_refuses_what_is_not_north_up_or_mixes_crs():
    square = Grid.from_bounds(0, 0, 10, 10, 32631, 1)
    for transform in (
        Affine(1, 0, 0, 0, 1, 0),
        Affine(1, 0, 0, 0, -2, 0),
        Affine(1, 1, 0, 0, -1, 0),
    ):
        with pytest.raises(InputError, match="not north-up with square pixels"):
            Grid(GeoBox((4, 4), transform, CRS(32631)), 16)
    with pytest.raises(InputError, match="same stated CRS"):
        Grid(square.geobox, 16, Geometry(shapely.box(0, 0, 1, 1), "EPSG:4326"))
    with pytest.raises(InputError, match="same stated CRS"):
        Grid(GeoBox((4, 4), Affine(1, 0, 0, 0, -1, 0), None), 16)


# --- bounding boxes -------------------------------------------------------------------------


def test_bbox_as_text_or_numbers():
    aoi = Aoi.from_bbox("3.30, 51.00,3.34,51.03")
    assert aoi == Aoi.from_bbox(FLANDERS)
    assert aoi.bounds == FLANDERS
    assert aoi.is_box


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ("1,2,3", r"has 3 values, expected 4"),
        ((1, 2, 3, 4, 5, 6), r"has 6 values, expected 4"),
        ("", r"has 1 values, expected 4"),
        ("a,2,3,4", r"is not four numbers"),
        ((1, None, 3, 4), r"is not four numbers"),
        ("nan,2,3,4", r"NaN or infinite"),
        ((1, 2, math.inf, 4), r"NaN or infinite"),
        ((3, 52, 4, 51), r"inverted: south 52 > north 51"),
        ((4, 51, 3, 52), r"inverted: west 4 > east 3"),
        ((3, 51, 3, 52), r"zero area"),
        ((3, 51, 4, 51), r"zero area"),
        ("170,-20,-170,-10",
         r"crosses the antimeridian; run --bbox 170,-20,180,-10 and --bbox -180,-20,-170,-10$"),
        ("180,-20,-170,-10", r"antimeridian; run --bbox -180,-20,-170,-10$"),
        ("170,-20,-180,-10", r"antimeridian; run --bbox 170,-20,180,-10$"),
        ("-30,120,-29,121",
         r"looks like lat,lon; did you mean --bbox 120,-30,121,-29\?$"),
        ((170, 10, 190, 20), r"outside longitude \[-180, 180\], latitude \[-90, 90\]"),
        ((100, 80, 110, 95), r"outside longitude"),
        ((500000, 5600000, 510000, 5610000), r"outside longitude"),
    ],
)  # fmt: skip
def test_bbox_errors(bbox, message):
    with pytest.raises(AoiError, match=message) as caught:
        Aoi.from_bbox(bbox)
    assert "\n" not in str(caught.value)


@quick
@given(st.lists(st.floats() | st.floats(-200, 200), min_size=4, max_size=4))
@example([-180.0, -90.0, 180.0, 90.0])
@example([5e-324, 0.0, 1.0, 1.0])
def test_any_four_numbers_are_a_valid_box_or_a_named_error(values):
    try:
        aoi = Aoi.from_bbox(values)
    except AoiError:
        return
    west, south, east, north = aoi.bounds
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    try:
        grid = Grid.from_aoi(aoi, crs=32631, resolution=1000)
    except AoiError:
        return
    assert np.prod(grid.shape) <= MAX_PIXELS


# --- fitting the AOI to a CRS and a resolution ----------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resolution": 0}, InputError, "must be a positive number"),
        ({"resolution": -10}, InputError, "must be a positive number"),
        ({"resolution": math.nan}, InputError, "must be a positive number"),
        ({"resolution": math.inf}, InputError, "must be a positive number"),
        ({"resolution": 1e-3}, AoiError, r"pixels, more than 1e\+12"),
        ({"resolution": 1e-300}, AoiError, r"needs inf pixels"),
        ({"resolution": 10, "crs": 4326}, InputError, "is in degrees for EPSG:4326"),
        ({"crs": "EPSG:999999"}, InputError, "'EPSG:999999' is unknown"),
        ({"crs": "nonsense"}, InputError, "'nonsense' is unknown"),
        ({"crs": 0}, InputError, "0 is unknown"),
        ({"crs": 4978}, InputError, "neither projected nor geographic"),
        ({"anchor": 1.0}, InputError, r"pixel fraction in \[0, 1\)"),
        ({"tile": 500}, InputError, "multiple of 16"),
    ],
)
def test_grid_errors(options, error, message):
    with pytest.raises(error, match=message):
        Grid.from_aoi(Aoi.from_bbox((3, 50, 4, 51)), **{"crs": 32631, "resolution": 10, **options})


def test_absurdly_large_and_too_fine_are_refused_before_allocation():
    world = Aoi.from_bbox((-180, -85, 180, 85))
    with pytest.raises(AoiError, match="more than"):
        Grid.from_aoi(world, crs=3857, resolution=1)
    with pytest.raises(InputError, match="too fine"):
        Grid.from_bounds(5e6, 5e6, 5e6 + 1e-3, 5e6 + 1e-3, 32631, 1e-6)


@pytest.mark.parametrize(
    ("bbox", "crs", "polar"),
    [((10, 80, 11, 85), 32632, 3413), ((10, -85, 11, -79), 32732, 3031)],
)
def test_poles_need_a_polar_crs(bbox, crs, polar):
    with pytest.raises(AoiError, match=f"polar --crs, such as EPSG:{polar}"):
        Grid.from_aoi(Aoi.from_bbox(bbox), crs=crs, resolution=100)
    grid = Grid.from_aoi(Aoi.from_bbox(bbox), crs=polar, resolution=100)
    assert grid.epsg == polar


def test_pole_cap_in_polar_crs():
    grid = Grid.from_aoi(Aoi.from_bbox((-180, 84, 180, 90)), crs=3413, resolution=1000)
    left, bottom, right, top = grid.bounds
    assert (left, bottom) == (-right, -top)
    assert 650_000 < right < 660_000


def test_aoi_outside_the_projection():
    with pytest.raises(AoiError, match=r"AOI 98,-1,100,1 has no finite coordinates in EPSG:32632"):
        Grid.from_aoi(Aoi.from_bbox((98, -1, 100, 1)), crs=32632, resolution=100)


@pytest.mark.parametrize(
    "bounds", [(1, 0, 1, 5), (2, 0, 1, 5), (0, 5, 1, 0), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)]
)
def test_projected_bounds_must_be_ordered_and_finite(bounds):
    with pytest.raises(AoiError, match="give left,bottom,right,top"):
        Grid.from_bounds(*bounds, 32631, 10)


def test_auto_crs():
    assert auto_crs(FLANDERS, [32632, 32631, 32631]) == 32631
    assert auto_crs(FLANDERS, [32632, 32631, 32631, 32632]) == 32631
    assert auto_crs((0, 50, 6, 51), np.array([32631])) == 32631
    with pytest.raises(AoiError, match=r"6.5 degrees wide.* explicit --crs"):
        auto_crs((0, 50, 6.5, 51), [32631])
    with pytest.raises(InputError, match=r"no item states one.* explicit --crs"):
        auto_crs(FLANDERS, [])


# --- GeoJSON --------------------------------------------------------------------------------


def test_geojson_forms_are_one_aoi(tmp_path):
    feature = {"type": "Feature", "properties": None, "geometry": TRIANGLE}
    point = {"type": "Point", "coordinates": [0, 0]}
    forms = [
        TRIANGLE,
        feature,
        {"type": "FeatureCollection", "features": [feature, {**feature, "geometry": None}]},
        {"type": "GeometryCollection", "geometries": [point, TRIANGLE]},
        {"type": "MultiPolygon", "coordinates": [TRIANGLE["coordinates"]]},
        polygon((3.30, 51.00, 9.0), (3.34, 51.00, 9.0), (3.31, 51.03, 9.0)),
    ]
    for crs in ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326"):
        forms.append({**TRIANGLE, "crs": {"type": "name", "properties": {"name": crs}}})
    expected = shapely.Polygon([(3.30, 51.00), (3.34, 51.00), (3.31, 51.03)])
    for form in forms:
        aoi = Aoi.from_file(write(tmp_path, form))
        assert not aoi.is_box
        assert aoi.geometry.geom.equals(expected)
        assert not aoi.geometry.geom.has_z
    file = tmp_path / "bom.geojson"
    file.write_text(json.dumps(TRIANGLE), encoding="utf-8-sig")
    assert Aoi.from_file(str(file)).geometry.geom.equals(expected)


def test_geojson_union_of_overlapping_parts_and_repair(tmp_path):
    one = polygon((3, 50), (4, 50), (4, 51), (3, 51))
    two = polygon((3.5, 50), (4.5, 50), (4.5, 51), (3.5, 51))
    overlapping = {"type": "MultiPolygon", "coordinates": [one["coordinates"], two["coordinates"]]}
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in (one, two)]
    for form in (overlapping, {"type": "FeatureCollection", "features": features}):
        geometry = Aoi.from_file(write(tmp_path, form)).geometry.geom
        assert geometry.equals(shapely.box(3, 50, 4.5, 51))
    bow_tie = Aoi.from_file(write(tmp_path, polygon((3, 50), (4, 51), (4, 50), (3, 51))))
    assert bow_tie.geometry.is_valid
    assert bow_tie.geometry.area == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "Point", "coordinates": [3, 51]}, "has no polygon"),
        ({"type": "LineString", "coordinates": [[3, 51], [4, 52]]}, "has no polygon"),
        ({"type": "FeatureCollection", "features": []}, "has no polygon"),
        ({"type": "FeatureCollection"}, "has no polygon"),
        ({"type": "Feature", "geometry": None}, "has no polygon"),
        ({"type": "Polygon", "coordinates": []}, "has no polygon"),
        ({}, "has no polygon"),
        ([1, 2], "is not GeoJSON: found list"),
        ({"type": "FeatureCollection", "features": [7]}, "is not GeoJSON: found int"),
        ({"type": "Polygon"}, "malformed Polygon"),
        ({"type": "Polygon", "coordinates": [[[3, 51], [4, 51], [4, 52]]]}, "malformed Polygon"),
        ({"type": "Polygon", "coordinates": [[["a", 51], [4, 51]]]}, "malformed Polygon"),
        (polygon((3, math.nan), (4, 51), (4, 52)), "malformed Polygon"),
        (polygon((3, 51), (4, 51), (5, 51)), "has zero area"),
        (polygon((179, 10), (-179, 10), (-179, 11), (179, 11)), "crosses the antimeridian; split"),
        (polygon((-30, 120), (-29, 120), (-29, 121)), "looks like lat,lon; swap the coordinates"),
        (polygon((5e5, 5e6), (6e5, 5e6), (6e5, 6e6)), "outside longitude"),
        ({**TRIANGLE, "crs": {"type": "name", "properties": {"name": "EPSG:32631"}}},
         "states CRS EPSG:32631, expected lon/lat"),
        ({**TRIANGLE, "crs": None}, "states CRS None"),
        ({**TRIANGLE, "crs": {"type": "link", "properties": {"href": "x"}}}, "states CRS None"),
    ],
)  # fmt: skip
def test_geojson_errors(tmp_path, document, message):
    with pytest.raises(AoiError, match=message):
        Aoi.from_file(write(tmp_path, document))


def test_files_that_are_no_geojson(tmp_path):
    file = tmp_path / "aoi.shp"
    for content in (b"\xff\x00", b"{", b"", b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(AoiError, match="is not JSON"):
            Aoi.from_file(file)
    with pytest.raises(InputError, match="cannot read AOI file"):
        Aoi.from_file(tmp_path / "missing.geojson")


def test_polygon_is_carried_into_the_product_crs(tmp_path):
    grid = Grid.from_aoi(Aoi.from_file(write(tmp_path, TRIANGLE)), crs=32631, resolution=10)
    assert grid.aoi is not None
    assert grid.aoi.crs == grid.crs
    height, width = grid.shape
    cols, rows = np.meshgrid(np.arange(width), np.arange(height))
    back = pyproj.Transformer.from_crs(32631, 4326, always_xy=True)
    lon, lat = back.transform(grid.x(cols), grid.y(rows))
    triangle = shapely.Polygon(TRIANGLE["coordinates"][0])
    expected = shapely.contains_xy(triangle, lon, lat)
    near = shapely.distance(triangle.exterior, shapely.points(lon, lat)) < 1e-6
    assert ((grid.inside(0, 0, height, width) == expected) | near).all()
    assert expected.any()
