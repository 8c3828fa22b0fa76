"""Features of rasters in a notebook: lazily by chunk, equal to what predictors see."""

from __future__ import annotations

import datetime as dt
import tracemalloc

import dask.array as da
import made_products
import numpy as np
import pytest
import xarray as xr

import lcengine
from lcengine.errors import InputError
from lcengine.features import Features, features
from lcengine.grid import Grid
from lcengine.inputs import Input, Inputs, layers
from lcengine.locate import Window
from lcengine.periods import parse_periods

GRID = Grid.from_bounds(500_000, 5_600_000, 500_700, 5_600_500, "EPSG:32631", 10, tile=32)
TEXTS = ["ndvi:p10,p90,harmonic", "red", "swir16:std"]


@pytest.fixture(scope="module")
def months(tmp_path_factory):
    spring = (dt.datetime(2018, m, 1, tzinfo=dt.UTC) for m in (3, 7))
    periods = parse_periods("month", *spring)
    variables = made_products.bands(["red", "nir", "swir16"], (len(periods), *GRID.shape))
    return made_products.publish(
        tmp_path_factory.mktemp("p") / "months.zarr", GRID, variables, periods
    )


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    radar = made_products.bands(["vv", "vh"], GRID.shape, 5, scale=1e-2, units="dB")
    return made_products.publish(tmp_path_factory.mktemp("p") / "year.zarr", GRID, radar)


def seen_by_models(texts, **paths):
    inputs = Inputs(layers(paths), GRID)
    recipe = Features.parse(texts, inputs.inputs)
    return recipe, recipe.compute(inputs.read(Window(0, 0, *GRID.shape)))[:, 0]


def same(found, recipe, expected):
    assert list(found.data_vars) == list(recipe.names)
    found = found.compute()
    for name, layer in zip(recipe.names, expected, strict=True):
        assert found[name].dims == ("y", "x")
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name].values, layer)


@pytest.mark.parametrize("chunks", [{}, {"y": 17, "x": 23}, {"time": 1}])
def test_a_product_has_the_bits_that_models_see_lazily_for_any_chunks(months, chunks):
    recipe, expected = seen_by_models(TEXTS, s2=months)
    found = features(lcengine.open(months).chunk(chunks), TEXTS)
    assert isinstance(found["red@2018-03"].data, da.Array)
    assert "spatial_ref" in found.coords
    np.testing.assert_array_equal(found["x"].values, lcengine.open(months)["x"].values)
    same(found, recipe, expected)


def test_without_dask(months):
    recipe, expected = seen_by_models(TEXTS, s2=months)
    found = features(lcengine.open(months).load(), TEXTS)
    same(found, recipe, expected)


def test_several_products_by_name_and_a_stack_of_them(months, year):
    texts = ["s2.bands:median", "rvi", "vv"]
    recipe, expected = seen_by_models(texts, s2=months, s1=year)
    assert recipe.names[-2:] == ("s1.rvi", "s1.vv")
    opened = {"s2": lcengine.open(months), "s1": lcengine.open(year)}
    same(features(opened, texts), recipe, expected)
    stack = lcengine.stack(opened, GRID, chunks=40)
    same(features(stack, texts, sources=["s2", "s1"]), recipe, expected)


def cube(clear=None):
    """What `load` gives, with two items of the same time."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 9000, (5, 2, 9, 11)).astype(np.int16)
    names = ["red", "nir"]
    if clear is not None:
        values, names = np.concatenate([values, clear[:, None]], axis=1), [*names, "clear"]
    return xr.DataArray(
        da.from_array(values, chunks=(-1, -1, 4, 5)),
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array([f"2018-0{m}-05T10:30" for m in (4, 5, 5, 6, 7)], "M8[ns]"),
            "band": names,
            "y": np.arange(9.0)[::-1],
            "x": np.arange(11.0),
        },
        attrs={"scale_factor": 1e-4, "units": "1", "_FillValue": -32768},
        name="reflectance",
    )


def test_a_cube_counts_clear_observations_only():
    clear = (np.random.default_rng(1).random((5, 9, 11)) < 0.7).astype(np.int16)
    whole = cube(clear)
    found = features(whole, ["red:median,slope"])
    red = whole.sel(band="red").values * 1e-4
    red[clear == 0] = np.nan
    with np.errstate(all="ignore"):
        expected = np.nanmedian(red, axis=0)
    np.testing.assert_allclose(found["red:median"].values, expected, rtol=1e-6)
    assert np.isfinite(found["red:slope"].values).any()


def test_composites_of_a_cube_as_stored_integers():
    composites = lcengine.composite(cube(), period="month", outliers="none")
    assert composites["red"].dtype == np.int16
    found = features(composites, ["ndvi:max", "nir"])
    assert list(found)[1:] == [f"nir@2018-0{m}" for m in (4, 5, 6, 7)]
    red, nir = (composites[name].values.astype(np.float64) for name in ("red", "nir"))
    expected = ((nir - red) / (nir + red)).max(axis=0)
    np.testing.assert_allclose(found["ndvi:max"].values, expected, rtol=1e-4, atol=1e-6)


def test_what_is_refused(months, year):
    s2, s1 = lcengine.open(months), lcengine.open(year)
    for data, how, said in [
        ({"s2": s2, "s1": s1.isel(x=slice(1, None))}, {}, "has other x than 's2'"),
        (s2, {"sources": ["s2"]}, "the stack has no source 's2'"),
        (cube(), {"sources": ["s2"]}, "leave them out"),
        ({}, {}, "give rasters by name"),
        (xr.Dataset({"a": ("y", np.zeros(3))}), {}, "has no bands"),
        (s2.assign(vv=s1["vv"]), {}, "of several kinds"),
        (cube()[:, 0], {}, "expected a dataset, or a cube with bands"),
        (s2.isel(time=[0]).isel(time=0, drop=True), {"texts": ["red:mean"]}, "has no periods"),
    ]:
        with pytest.raises(InputError, match=said):
            features(data, **how)


def peak_of(function):
    """Bytes of the arrays that a call holds at most, its result among them."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_cube_is_not_blown_up(dtype):
    times = tuple(f"2018-{m:02}" for m in range(1, 13))
    bands = ("red", "nir", "swir16", "blue")
    entry = Input("s2", bands, dtype, -32768 if dtype == "int16" else None, times, 1e-4, "1")
    texts = ["ndvi:p10,p50,harmonic.amplitude1", "evi:std", "red:slope"]
    values = np.ones((1, *entry.lead, 512, 512), dtype)
    result = 6 * 4 * 512**2

    recipe = Features.parse(texts, [entry])
    extra = peak_of(lambda: recipe.compute({"s2": values})) - result
    # What is there, as bool, and strips; a copy as float64 were eight bytes per number.
    assert extra < values.size + 2**23

    layers = {
        band: (("time", "y", "x"), values[0, :, i], {"scale_factor": 1e-4, "_FillValue": -32768})
        for i, band in enumerate(bands)
    }
    raster = xr.Dataset(layers, {"period": ("time", list(times))})
    raster = raster.assign_coords(y=np.arange(512.0)[::-1], x=np.arange(512.0))
    extra = peak_of(lambda: features(raster, texts)) - result
    assert extra < values.nbytes + values.size + 2**23  # bands are put together once
