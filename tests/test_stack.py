"""Aligned stacks: every pixel against whole-raster NumPy, whatever the chunks."""

from __future__ import annotations

import cloudpickle
import dask
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry
from pyproj import Transformer

import lcengine
from lcengine.errors import InputError
from lcengine.grid import Grid

LEFT, TOP = 600_000.0, 5_600_000.0
NODATA = -32768
MONTHS = ("2018-04", "2018-05", "2018-06", "2018-07")


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


# ------------------------------------------------------------------------------------- sources


def months(names):
    start = np.array([np.datetime64(f"{name}-01", "ns") for name in names])
    stop = np.array([(np.datetime64(n, "M") + 1).astype("M8[ns]") for n in names])
    return {
        "time": ("time", start),
        "time_bnds": (("time", "bnds"), np.stack([start, stop], axis=1)),
        "period": ("time", np.array(names, dtype=object)),
    }


def source(values, *, left=LEFT, top=TOP, size=10.0, epsg=32631, names=None, **attributes):
    """A dataset with one variable `v`, as `composite(cube)` gives it."""
    height, width = values.shape[-2:]
    dims = ("time", "y", "x")[-values.ndim :]
    out = xr.Dataset({"v": (dims, values, attributes)})
    out = out.assign_coords(
        x=left + (np.arange(width) + 0.5) * size, y=top - (np.arange(height) + 0.5) * size
    )
    if names is not None:
        out = out.assign_coords(months(names))
    return out.rio.write_crs(epsg)


def noise(shape, seed=0, dtype=np.int16, missing=0.2):
    rng = np.random.default_rng(seed)
    values = rng.integers(-2500, 4000, shape).astype(dtype)
    fill = np.nan if np.dtype(dtype).kind == "f" else NODATA
    return np.where(rng.random(shape) < missing, fill, values).astype(dtype)


def grid_of(left=LEFT, top=TOP, height=40, width=48, size=10.0, epsg=32631, tile=16):
    return Grid.from_bounds(left, top - height * size, left + width * size, top, epsg, size, tile)


# -------------------------------------------------------------------------------------- oracle


def places(dataset, grid, epsg, parts=1):
    """Continuous (row, column) in the source of the parts x parts pieces of all pixels."""
    t, (height, width) = grid.transform, grid.shape
    x = t.c + (np.arange(width * parts) + 0.5) / parts * t.a
    y = t.f - (np.arange(height * parts) + 0.5) / parts * t.a
    x, y = np.meshgrid(x, y)
    if epsg != grid.epsg:
        move = Transformer.from_crs(grid.epsg, epsg, always_xy=True)
        x, y = move.transform(x, y)
    sx, sy = dataset.x.values, dataset.y.values
    size = sx[1] - sx[0]
    return (sy[0] + size / 2 - y) / size, (x - sx[0] + size / 2) / size


def at(values, rows, cols):
    """Values of the pixels that hold the places, NaN beyond the raster and where missing."""
    r, c = np.floor(rows).astype(int), np.floor(cols).astype(int)
    height, width = values.shape
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    found = values[np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)].astype(float)
    return np.where(inside & (found != NODATA), found, np.nan)


def expected(dataset, grid, how, epsg=32631, decibels=False):
    """One layer of a source on a grid, float64 with NaN, unrounded."""
    values = dataset["v"].values
    size = dataset.x.values[1] - dataset.x.values[0]
    parts = int(np.ceil(grid.resolution / size - 1e-9)) if how == "average" else 1
    rows, cols = places(dataset, grid, epsg, parts)
    forth = (lambda v: 10 ** (v / 1000)) if decibels else (lambda v: v)
    back = (lambda v: 1000 * np.log10(v)) if decibels else (lambda v: v)
    if how == "nearest" or parts == 1 != how == "average":
        return at(values, rows, cols)
    if how == "average":
        fine = forth(at(values, rows, cols))
        blocks = fine.reshape(grid.shape[0], parts, grid.shape[1], parts)
        count = np.isfinite(blocks).sum(axis=(1, 3))
        with np.errstate(invalid="ignore"):
            return back(np.nansum(blocks, axis=(1, 3)) / count)
    total, weights = np.zeros(rows.shape), np.zeros(rows.shape)
    for down in (-0.5, 0.5):
        for right in (-0.5, 0.5):
            near = forth(at(values, rows + down, cols + right))
            r, c = np.floor(rows - 0.5), np.floor(cols - 0.5)
            dr, dc = rows - 0.5 - r, cols - 0.5 - c
            weight = (dr if down > 0 else 1 - dr) * (dc if right > 0 else 1 - dc)
            total += np.where(np.isfinite(near), weight * near, 0)
            weights += np.where(np.isfinite(near), weight, 0)
    with np.errstate(invalid="ignore"):
        mean = back(total / weights)
    return np.where(np.isfinite(at(values, rows, cols)), mean, np.nan)


def stored(layer):
    """float64 with NaN as int16."""
    return np.where(np.isfinite(layer), np.rint(layer), NODATA).astype(np.int16)


# --------------------------------------------------------------------------------------- pixels

SCALED = {"scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": NODATA, "units": "1"}
DECIBELS = {"scale_factor": 1e-2, "add_offset": 0.0, "_FillValue": NODATA, "units": "dB"}


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("size", [10.0, 20.0, 4.0, 3.0])
@pytest.mark.parametrize("attributes", [SCALED, DECIBELS], ids=["reflectance", "backscatter"])
def test_pixels_equal_the_oracle(how, size, attributes):
    one = source(noise((150, 150)), left=LEFT + 35, top=TOP + 15, size=size, **attributes)
    grid = grid_of()
    found = lcengine.stack({"s": one}, grid, resampling=how)["s_v"]
    layer = expected(one, grid, how, decibels=attributes is DECIBELS)
    assert found.dtype == np.int16
    assert np.isnan(layer).any()
    assert np.isfinite(layer).any()
    assert np.array_equal(found.values, stored(layer))
    assert found.attrs == attributes


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("size", [10.0, 4.0])
def test_another_utm_zone_is_reprojected_exactly(how, size):
    one = source(noise((300, 300)), left=177_500, top=5_607_000, size=size, epsg=32632, **SCALED)
    grid = grid_of(left=600_000, top=5_600_000)
    x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(600_240, 5_599_800)
    left = round((x - 150 * size) / size) * size
    top = round((y + 150 * size) / size) * size
    one = source(one["v"].values, left=left, top=top, size=size, epsg=32632, **SCALED)
    found = lcengine.stack({"s": one}, grid, resampling=how)["s_v"].values
    assert np.array_equal(found, stored(expected(one, grid, how, 32632)))
    assert (found != NODATA).mean() > 0.5


@settings(max_examples=16)
@given(
    chunks=st.tuples(st.integers(7, 60), st.integers(7, 60)),
    own=st.integers(7, 90),
    how=st.sampled_from(["nearest", "bilinear", "average"]),
    epsg=st.sampled_from([32631, 32632]),
)
def test_no_pixel_depends_on_chunks(chunks, own, how, epsg):
    x, y = LEFT - 100, TOP + 100
    if epsg == 32632:
        x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(x, y)
    one = source(noise((2, 80, 90)), left=x, top=y, size=7.0, epsg=epsg, names=MONTHS[:2], **SCALED)
    cut = one.chunk(y=own, x=own + 3, time=1)
    grid = grid_of()
    first, second = (
        lcengine.stack({"s": data}, grid, resampling=how, chunks=size)["s_v"].values
        for data, size in ((one, chunks[0]), (cut, chunks[1]))
    )
    assert np.array_equal(first, second)
    assert (first != NODATA).any()


def test_floats_counts_and_classes_keep_their_types():
    values = noise((30, 30), dtype=np.float32)
    one = source(values, size=20.0).assign(
        count=(("y", "x"), np.arange(900, dtype=np.uint16).reshape(30, 30)),
        kind=(("y", "x"), np.arange(900).astype(np.uint8).reshape(30, 30), {"_FillValue": 0}),
    )
    grid = grid_of(left=LEFT - 100, size=10.0)
    found = lcengine.stack({"s": one}, grid, resampling="bilinear")
    assert {n: str(v.dtype) for n, v in found.data_vars.items()} == {
        "s_v": "float32",
        "s_count": "uint16",
        "s_kind": "uint8",
    }
    layer = expected(one, grid, "bilinear")
    assert np.array_equal(found["s_v"].values, layer.astype(np.float32), equal_nan=True)
    assert found["s_count"].attrs["_FillValue"] == 65535
    assert (found["s_count"].values[:, :10] == 65535).all()
    assert (found["s_kind"].values[:, :10] == 0).all()
    nearest = lcengine.stack({"s": one}, grid)["s_count"].values
    assert np.array_equal(found["s_count"].values, nearest)


def test_pixels_outside_the_polygon_are_missing():
    whole = grid_of()
    left, bottom, right, top = whole.bounds
    triangle = shapely.Polygon([(left, bottom), (right, bottom), (left, top)])
    grid = Grid(whole.geobox, 16, Geometry(triangle, whole.crs))
    one = source(noise((60, 60), missing=0.0), **SCALED)
    found = lcengine.stack({"s": one}, grid, chunks=13)["s_v"].values
    inside = grid.inside(0, 0, *grid.shape)
    assert inside is not None
    assert np.array_equal(found != NODATA, inside)


# ---------------------------------------------------------------------------------------- axes


def test_a_stack_lies_exactly_on_its_grid():
    grid = grid_of()
    found = lcengine.stack({"a": source(noise((60, 60)), **SCALED)}, grid)
    assert found["a_v"].dims == ("y", "x")
    assert found["a_v"].shape == grid.shape
    assert np.array_equal(found.x, LEFT + 5 + 10 * np.arange(48))
    assert np.array_equal(found.y, TOP - 5 - 10 * np.arange(40))
    assert found.rio.crs.to_epsg() == 32631
    assert tuple(found.rio.transform())[:6] == (10, 0, LEFT, 0, -10, TOP)
    assert found["a_v"].chunks == ((16, 16, 8), (16, 16, 16))
    again = cloudpickle.loads(cloudpickle.dumps(found))
    assert np.array_equal(again["a_v"], found["a_v"])


def test_periods_are_joined_by_their_labels():
    optical = source(noise((2, 60, 60), 1), names=("2018-04", "2018-06"), **SCALED)
    radar = source(
        noise((3, 30, 30), 2), size=20.0, names=("2018-05", "2018-06", "2018-07"), **DECIBELS
    )
    fixed = source(noise((60, 60), 3), **SCALED)
    grid = grid_of()
    found = lcengine.stack({"s2": optical, "s1": radar, "dem": fixed}, grid)
    assert found["period"].values.tolist() == list(MONTHS)
    assert np.array_equal(found["time"], months(MONTHS)["time"][1])
    assert np.array_equal(found["time_bnds"], months(MONTHS)["time_bnds"][1])
    assert found["dem_v"].dims == ("y", "x")
    for i, name in enumerate(MONTHS):
        for variable, data in (("s2_v", optical), ("s1_v", radar)):
            layer = found[variable].isel(time=i).values
            own = data["period"].values.tolist()
            if name not in own:
                assert (layer == NODATA).all()
                continue
            one = data.isel(time=own.index(name))
            assert np.array_equal(layer, stored(expected(one, grid, "nearest")))


def test_missing_periods_of_floats_are_nan():
    a = source(noise((1, 60, 60), dtype=np.float32), names=("2018-04",))
    b = source(noise((1, 60, 60), dtype=np.float32), names=("2018-05",))
    found = lcengine.stack({"a": a, "b": b}, grid_of())
    assert np.isnan(found["a_v"].isel(time=1)).all()
    assert np.isfinite(found["a_v"].isel(time=0)).any()


def test_native_sources_keep_their_pixels():
    planet = source(noise((400, 400)), left=LEFT - 61, top=TOP + 32, size=3.0, **SCALED)
    coarse = source(noise((60, 60), 2), **SCALED)
    grid = grid_of()
    found = lcengine.stack({"p": planet, "s2": coarse}, grid, native=["p"])
    assert found["p_v"].dims == ("y_p", "x_p")
    rows = slice(*np.searchsorted(-planet.y.values, [-TOP - 3 + 1.5, -(TOP - 400) + 1.5]))
    cols = slice(*np.searchsorted(planet.x.values, [LEFT - 1.5, LEFT + 480 + 1.5]))
    assert np.array_equal(found["x_p"], planet.x.values[cols])
    assert np.array_equal(found["p_v"], planet["v"].values[rows, cols])
    left, right = found["x_p"].values[0] - 1.5, found["x_p"].values[-1] + 1.5
    bottom, top = found["y_p"].values[-1] - 1.5, found["y_p"].values[0] + 1.5
    assert LEFT - 3 < left <= LEFT
    assert LEFT + 480 <= right < LEFT + 483
    assert TOP - 403 < bottom <= TOP - 400
    assert TOP <= top < TOP + 3
    assert found["s2_v"].shape == grid.shape


def test_native_sources_of_another_crs_get_pixels_of_their_size():
    x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(LEFT, TOP)
    one = source(noise((120, 120)), left=x - 300, top=y + 300, size=20.0, epsg=32632, **SCALED)
    found = lcengine.stack({"s": one}, grid_of(left=LEFT + 10), native=("s",))
    assert (found["x_s"].values[0] - 10, found["y_s"].values[0] + 10) == (LEFT, TOP)
    assert found["s_v"].shape == (20, 25)
    fine = Grid.from_bounds(LEFT, TOP - 400, LEFT + 500, TOP, 32631, 20.0, 16)
    assert np.array_equal(found["s_v"], stored(expected(one, fine, "nearest", 32632)))


def test_cubes_keep_their_own_dates():
    values = noise((3, 2, 60, 60))
    base = source(values[:, 0], **SCALED)
    cube = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(["2018-04-01", "2018-04-01", "2018-05-03"], "M8[ns]"),
            "band": ["red", "clear"],
            "y": base.y,
            "x": base.x,
            "id": ("time", ["a", "b", "c"]),
        },
        attrs=SCALED,
    ).rio.write_crs(32631)
    monthly = source(noise((1, 60, 60)), names=("2018-04",), **SCALED)
    found = lcengine.stack({"raw": cube, "m": monthly}, grid_of())
    assert found["raw_red"].dims == ("time_raw", "y", "x")
    assert found["raw_id"].values.tolist() == ["a", "b", "c"]
    assert np.array_equal(found["time_raw"], cube["time"])
    assert found["raw_clear"].attrs == {"_FillValue": NODATA}
    assert found["m_v"].dims == ("time", "y", "x")
    assert np.array_equal(found["raw_clear"].values, values[:, 1, :40, :48])


def test_a_sequence_gets_names():
    parts = [source(noise((60, 60), i), **SCALED) for i in range(2)]
    parts[0].attrs["lcengine"] = '{"request": {"collections": ["sentinel-2-l2a"]}}'
    found = lcengine.stack(parts, grid_of())
    assert list(found.data_vars) == ["sentinel_2_l2a_v", "s1_v"]
    # A catalogue of one collection needs no -c; the product says its sensor all the same.
    parts[1].attrs["lcengine"] = '{"sensor": "sentinel-1-grd", "request": {"collections": []}}'
    found = lcengine.stack(parts, grid_of())
    assert list(found.data_vars) == ["sentinel_2_l2a_v", "sentinel_1_grd_v"]
    parts[0].attrs = {"sensor": "landsat-c2-l2"}
    assert next(iter(lcengine.stack(parts, grid_of()).data_vars)) == "landsat_c2_l2_v"
    with pytest.raises(InputError, match="source 's1' is a int"):
        lcengine.stack([parts[0], 1], grid_of())


# ---------------------------------------------------------------------------------- bad input


def test_bad_stacks_are_named():
    grid, good = grid_of(), source(noise((60, 60)), **SCALED)
    bare = good.drop_vars("spatial_ref")
    uneven = good.isel(x=[0, 1, 3])
    flipped = good.isel(y=slice(None, None, -1))
    away = source(noise((60, 60)), left=LEFT + 90_000, **SCALED)
    monthly = source(noise((1, 60, 60)), names=("2018-04",), **SCALED)
    other = monthly.assign_coords(time_bnds=monthly.time_bnds + np.timedelta64(1, "D"))
    cases = [
        ({"a": bare}, {}, r"source 'a' states no CRS; .*write_crs"),
        ({"a": uneven}, {}, "irregular coordinates x"),
        ({"a": flipped}, {}, "y descending"),
        ({"a": away}, {}, "covers 690000,5599400,690600,5600000 in EPSG:32631, no part of"),
        ({"a": good}, {"native": ["b"]}, r"native is \['b'\], expected .*: a"),
        ({"a": good}, {"native": "a"}, "expected a list"),
        ({"a": good}, {"resampling": "cubic"}, "resampling is 'cubic'"),
        ({"a": good}, {"resampling": {"b": "nearest"}}, r"resampling names \['b'\]"),
        ({"a": good}, {"chunks": 0}, "chunks is 0"),
        ({}, {}, "there are no sources"),
        (good, {}, "one dataset, expected several"),
        ({"a-b": good}, {}, "letters, digits and _"),
        ({"a": 3}, {}, "is a int, expected what"),
        ({"a": good["v"]}, {}, "expected a dataset, or a cube"),
        ({"a": good.drop_vars("v")}, {}, "has no raster"),
        ({"a": monthly, "b": other}, {}, "period '2018-04' is .* composite both by one rule"),
        ({"a": monthly.drop_vars("time_bnds")}, {}, "without time_bnds"),
        ({"a": monthly.isel(time=[0, 0])}, {}, "has a period twice"),
        ({"a_b": good.rename(v="c"), "a": good.rename(v="b_c")}, {}, r"two sources give \['a_b_c'"),
        ({"a": good.astype(bool)}, {}, "is bool, expected integers"),
    ]
    for sources, options, message in cases:
        with pytest.raises(InputError, match=message):
            lcengine.stack(sources, grid, **options)


def test_other_units_cannot_be_native_or_averaged():
    degrees = source(noise((60, 60)), left=4.4, top=50.56, size=1e-3, epsg=4326, **SCALED)
    grid = grid_of()
    assert (lcengine.stack({"a": degrees}, grid)["a_v"].values != NODATA).any()
    with pytest.raises(InputError, match="other units"):
        lcengine.stack({"a": degrees}, grid, native=["a"])
    with pytest.raises(InputError, match="average resampling"):
        lcengine.stack({"a": degrees}, grid, resampling="average")


# ------------------------------------------------------------------------------------ real data


def test_a_year_of_both_sentinels_on_one_grid(shared_data):
    catalogue = str(shared_data / "flanders-2018" / "catalog.json")
    year = "2018-01-01/2018-12-31"
    radar = lcengine.search(catalogue, collections=["sentinel-1-grd"], datetime=year)
    optical = lcengine.search(catalogue, collections=["sentinel-2-l2a"], datetime=year)
    grid = Grid.from_asset(optical[0].asset("red"))
    coarse = Grid.from_asset(radar[0].asset("vv"))
    clear = lcengine.load(optical, grid, ["red"], mask="worldcover")
    s2 = lcengine.composite(clear, outliers="none", period="month")
    bands = lcengine.load(radar, coarse, ["vv", "vh"])
    s1 = lcengine.composite(bands, outliers="none", period="month")
    found = lcengine.stack({"s2": s2, "s1": s1}, grid, chunks=24).compute()
    assert found["s1_vv"].attrs["units"] == "dB"
    assert found.sizes == {"time": 11, "y": 64, "x": 64, "bnds": 2}
    assert np.array_equal(found["s2_red"], s2["red"])
    for band in ("vv", "vh"):
        for i, label in enumerate(found["period"].values):
            months = [item for item in radar if item.datetime.isoformat().startswith(label)]
            layers = [rasterio.open(item.asset(band).href).read(1) for item in months]
            decibels = np.sort(np.rint(np.stack(layers) / 100), axis=0)  # int32 dB x 10000
            n = len(decibels)
            pair = 10 ** (decibels[[(n - 1) // 2, n // 2]] / 1000)
            median = np.rint(1000 * np.log10(pair.mean(axis=0)))
            expected = np.repeat(np.repeat(median, 2, axis=0), 2, axis=1)
            assert np.array_equal(found[f"s1_{band}"].isel(time=i), expected)
