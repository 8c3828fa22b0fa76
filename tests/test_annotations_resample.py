"""Maps of classes on other grids: votes of exact points, independent of chunks."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from lcengine.classmap import save_classes
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.coarse import maps
from lcengine.labels.coarse.maps import open_classes, resample
from lcengine.legends import Entry, Legend, legend

KNOWN = legend("worldcover")
EVERY = np.array([*KNOWN.codes, *KNOWN.ignored, KNOWN.nodata], np.uint8)
LEFT, TOP = 600_000.0, 5_600_000.0


def a_map(shape=(48, 60), size=10.0, crs="EPSG:32631", corner=(LEFT, TOP), seed=1):
    """Random codes, fill and nodata among them, in patches so that votes are not all ties."""
    rng = np.random.default_rng(seed)
    coarse = EVERY[rng.integers(0, len(EVERY), (-(-shape[0] // 3), -(-shape[1] // 3)))]
    codes = np.repeat(np.repeat(coarse, 3, 0), 3, 1)[: shape[0], : shape[1]]
    noise = rng.random(shape) < 0.3
    codes = np.where(noise, EVERY[rng.integers(0, len(EVERY), shape)], codes)
    y = corner[1] - (np.arange(shape[0]) + 0.5) * size
    x = corner[0] + (np.arange(shape[1]) + 0.5) * size
    coords = {"y": y, "x": x}
    attributes = {"_FillValue": KNOWN.nodata}
    found = xr.DataArray(codes.astype(np.uint8), dims=("y", "x"), coords=coords, attrs=attributes)
    return found.rio.write_crs(crs)


def a_grid(left, bottom, right, top, resolution, crs=32631):
    return Grid.from_bounds(left, bottom, right, top, crs, resolution, tile=64)


def counted(codes, grid, k):
    """Votes (class, y, x): plain NumPy over the k x k points of every pixel, through PROJ."""
    height, width = grid.shape
    a = grid.transform
    cols = (np.arange(width * k) + 0.5) / k
    rows = (np.arange(height * k) + 0.5) / k
    x, y = np.meshgrid(a.c + cols * a.a, a.f + rows * a.e)
    if codes.rio.crs != grid.crs_wkt:
        x, y = Transformer.from_crs(grid.crs_wkt, codes.rio.crs, always_xy=True).transform(x, y)
    size = float(codes.x[1] - codes.x[0])
    col = np.floor((x - (float(codes.x[0]) - size / 2)) / size).astype(int)
    row = np.floor(((float(codes.y[0]) + size / 2) - y) / size).astype(int)
    inside = (row >= 0) & (row < codes.sizes["y"]) & (col >= 0) & (col < codes.sizes["x"])
    seen = np.full(x.shape, KNOWN.nodata)
    seen[inside] = codes.values[row[inside], col[inside]]
    blocks = seen.reshape(height, k, width, k)
    return np.array([(blocks == code).sum(axis=(1, 3)) for code in KNOWN.codes])


def winner(votes):
    codes = np.array(KNOWN.codes, np.uint8)[votes.argmax(axis=0)]
    return np.where(votes.sum(axis=0) > 0, codes, KNOWN.nodata)


def shares(votes):
    total = votes.sum(axis=0)
    return np.where(total > 0, votes / np.maximum(total, 1), np.nan).astype(np.float32)


CASES = {
    # A grid of 30 m in a map of 10 m: the votes are the nine pixels.
    "nested": (a_map(), a_grid(LEFT, TOP - 480, LEFT + 600, TOP, 30.0), 3),
    "finer": (a_map(), a_grid(LEFT + 20, TOP - 200, LEFT + 300, TOP - 15, 5.0), 1),
    "shifted": (a_map(), a_grid(LEFT - 65, TOP - 500, LEFT + 200, TOP + 37, 27.0), 6),
    "other CRS": (a_map(), None, 6),
    "degrees": (
        a_map((60, 60), 0.0001, "EPSG:4326", (4.4120, 50.5450)),
        None,
        6,
    ),
}


def placed(name):
    """A case; a grid in another CRS is laid over the middle of its map."""
    codes, grid, k = CASES[name]
    if grid is None:
        crs, size = (3035, 25.0) if name == "other CRS" else (32631, 20.0)
        to = Transformer.from_crs(codes.rio.crs, crs, always_xy=True)
        x, y = to.transform(float(codes.x.mean()), float(codes.y.mean()))
        grid = a_grid(x - 200, y - 150, x + 200, y + 150, size, crs)
    return codes, grid, k


@pytest.mark.parametrize("name", CASES)
def test_majority_and_fractions_are_counts_of_points(name):
    codes, grid, k = placed(name)
    votes = counted(codes, grid, k)
    assert (votes.sum(axis=0) > 0).mean() > 0.2
    label = resample(codes, KNOWN, grid).label
    assert label.dtype == KNOWN.dtype
    assert np.array_equal(label.values, winner(votes))
    found = resample(codes, KNOWN, grid, "fractions").fraction
    assert found.dtype == np.float32
    assert found["name"].values.tolist() == list(KNOWN.names)
    assert np.array_equal(found.values, shares(votes), equal_nan=True)
    nearest = resample(codes, KNOWN, grid, "nearest").label
    assert np.array_equal(nearest.values, winner(counted(codes, grid, 1)))


@settings(max_examples=20)
@given(data=st.data())
def test_chunks_change_nothing(data):
    codes, grid, _ = placed(data.draw(st.sampled_from(sorted(CASES))))
    method = data.draw(st.sampled_from(["majority", "nearest", "fractions"]))
    chunks = data.draw(st.integers(3, 200))
    name = "fraction" if method == "fractions" else "label"
    whole = resample(codes, KNOWN, grid, method, chunks=1000)[name]
    cut = resample(codes.chunk(y=17, x=13), KNOWN, grid, method, chunks=chunks)[name]
    assert cut.chunks is not None
    assert np.array_equal(cut.values, whole.values, equal_nan=method == "fractions")


def test_a_large_pixel_is_counted_in_parts(monkeypatch):
    codes, grid, k = placed("nested")
    expected = winner(counted(codes, grid, k))
    monkeypatch.setattr("lcengine.labels.coarse.maps.POINTS", 20)
    assert np.array_equal(resample(codes, KNOWN, grid).label.values, expected)


@pytest.mark.parametrize("method", ["majority", "nearest", "fractions"])
def test_the_map_is_read_in_parts_of_bounded_size(method, monkeypatch):
    """A tile of coarse pixels lies over thousands of rows and columns of the map."""
    codes, grid, _ = placed("other CRS")
    job = maps.Votes.of(codes, KNOWN, grid, method)
    whole = maps.Window(0, 0, *grid.shape)
    expected = job.window(codes, whole)
    monkeypatch.setattr(maps, "AREA", 400)
    assert np.array_equal(job.window(codes, whole), expected, equal_nan=method == "fractions")
    parts = list(maps._parts(job, whole))
    assert len(parts) > 4
    assert max(area.height * area.width for _, area in parts) <= 400
    found = resample(codes, KNOWN, grid, method)
    values = found["fraction" if method == "fractions" else "label"].values
    assert np.array_equal(values, expected, equal_nan=method == "fractions")


def test_ties_go_to_the_first_class_and_nothing_is_nodata():
    codes = a_map((2, 4))
    one, two = KNOWN.codes[:2]
    ignored = KNOWN.ignored[0]
    codes[:] = [[two, one, ignored, KNOWN.nodata], [one, two, KNOWN.nodata, KNOWN.nodata]]
    grid = a_grid(LEFT, TOP - 20, LEFT + 40, TOP, 20.0)
    assert resample(codes, KNOWN, grid).label.values.tolist() == [[one, KNOWN.nodata]]


def test_coarse_maps_keep_their_squares():
    """500 m on 10 m: every fine pixel is the coarse one that holds it."""
    codes = a_map((4, 5), 500.0)
    grid = a_grid(LEFT, TOP - 2000, LEFT + 2500, TOP, 10.0)
    expected = np.repeat(np.repeat(codes.values, 50, 0), 50, 1)
    expected[np.isin(expected, KNOWN.ignored)] = KNOWN.nodata
    assert np.array_equal(resample(codes, KNOWN, grid).label.values, expected)


def test_a_raster_with_its_colour_table(tmp_path):
    codes = a_map()
    place = {"crs": "EPSG:32631", "transform": (10, 0, LEFT, 0, -10, TOP)}
    save_classes(tmp_path / "map.tif", codes.values, KNOWN, **place)
    found, known = open_classes(tmp_path / "map.tif")
    assert set(known.codes) == set(KNOWN.codes)
    grid = placed("nested")[1]
    expected = resample(codes, KNOWN, grid).label.values
    assert np.array_equal(resample(found, KNOWN, grid).label.values, expected)
    save_classes(tmp_path / "bare.tif", codes.values, KNOWN)
    with pytest.raises(InputError, match=r"bare\.tif states no CRS"):
        open_classes(tmp_path / "bare.tif")


def test_outside_of_the_polygon_is_nodata():
    codes, grid, _ = placed("nested")
    from odc.geo.geom import polygon

    triangle = polygon([(LEFT, TOP), (LEFT + 600, TOP), (LEFT, TOP - 480), (LEFT, TOP)], grid.crs)
    cut = Grid(grid.geobox, grid.tile, triangle)
    inside = cut.inside(0, 0, *cut.shape)
    whole, part = (
        resample(codes, KNOWN, grid).label.values,
        resample(codes, KNOWN, cut).label.values,
    )
    assert np.array_equal(part, np.where(inside, whole, KNOWN.nodata))
    assert np.isnan(resample(codes, KNOWN, cut, "fractions").fraction.values[:, ~inside]).all()


def test_what_cannot_be_resampled_is_named():
    codes, grid, _ = placed("nested")
    with pytest.raises(InputError, match="method 'mean' is unknown"):
        resample(codes, KNOWN, grid, "mean")
    with pytest.raises(InputError, match=r"the map is float64 with dimensions \('y', 'x'\)"):
        resample(codes.astype(float), KNOWN, grid)
    with pytest.raises(InputError, match="does not reach the grid"):
        resample(codes, KNOWN, a_grid(LEFT + 9000, TOP, LEFT + 9100, TOP + 100, 10.0))
    with pytest.raises(InputError, match="states no CRS"):
        resample(codes.drop_vars("spatial_ref"), KNOWN, grid)
    with pytest.raises(InputError, match="have a code that legend worldcover has not: 77"):
        resample(codes.where(codes != KNOWN.codes[0], 77), KNOWN, grid).compute()


def test_crop_types_of_flanders_at_sixty_metres(shared_data):
    """Codes that need uint16, nodata 0: 6 x 6 pixels vote."""
    path = shared_data / "flanders-2018" / "labels_ct.tif"
    known = Legend(
        "types",
        "types",
        tuple(Entry(c, f"type {c}", f"#{c:06x}") for c in (1200, 2130, 5100, 7900, 9120)),
        "labels_ct.tif",
    )
    codes, _ = open_classes(path, known)
    left, _, _, top = codes.rio.bounds()
    height, width = (size // 6 for size in codes.shape)
    grid = Grid.from_pixels(str(codes.rio.crs), (60, 0, left, 0, -60, top), (height, width))
    seen = codes.values[: height * 6, : width * 6].reshape(height, 6, width, 6)
    votes = np.array([(seen == code).sum(axis=(1, 3)) for code in known.codes])
    expected = np.array(known.codes, known.dtype)[votes.argmax(axis=0)]
    expected[votes.sum(axis=0) == 0] = known.nodata
    label = resample(codes, known, grid).label
    assert label.dtype == np.uint16
    assert np.array_equal(label.values, expected)
    found = resample(codes, known, grid, "fractions").fraction.values
    valid = votes.sum(axis=0) > 0
    assert np.allclose(found[:, valid].sum(axis=0), 1)
