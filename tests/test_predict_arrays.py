"""`lcengine.predict`: lazily the arrays that a run would store, whatever the chunks."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import xarray as xr
from made_products import bands, publish
from plain_model import LEGEND, plain
from plain_network import network

import lcengine
from lcengine import models, store
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.inputs import Inputs, layers
from lcengine.models import KINDS
from lcengine.periods import PeriodRule
from lcengine.predict import Tiling, array, plan_predict, task

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
SHAPE = 70, 90
GRID = Grid.from_bounds(
    LEFT, TOP - 10 * SHAPE[0], LEFT + 10 * SHAPE[1], TOP, UTM, 10.0, tile=32
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def kinds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "plain", "plain_model")
        patch.setitem(KINDS, "plain-network", "plain_network")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Monthly bands, a date of radar, and models of pixels, windows and overlapping patches."""
    folder = tmp_path_factory.mktemp("arrays")
    ends = dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 5, 31, tzinfo=dt.UTC)
    months = PeriodRule.parse("month").periods(*ends)
    sources = {
        "s2": publish(folder / "s2.zarr", GRID, bands(("red", "nir"), (2, *SHAPE)), months),
        "s1": publish(
            folder / "s1.zarr", GRID, bands(("vv",), SHAPE, seed=5, scale=0.01, units="dB")
        ),
    }
    seen = Inputs(layers(sources), GRID).inputs
    kinds = {
        "pixels": plain(seen),
        "windows": plain(seen, patch=24),
        "patches": network(seen, patch=24, stride=16, margin=1),
    }
    return sources, {name: models.save(m, folder / name).path for name, m in kinds.items()}


def stored(plan):
    """What a run would store."""
    out = {v.name: np.full(SHAPE, v.missing, v.dtype) for v in plan.variables()}
    for number in plan.tiles:
        for name, values in task.compute(plan, number, 0)[0].items():
            out[name][plan.grid.tile_at(number).slices] = values
    return out


@pytest.mark.parametrize("kind", ["pixels", "windows", "patches"])
@pytest.mark.parametrize("opened", [lcengine.open, store.stored])
def test_it_is_what_a_run_stores(made, kind, opened):
    sources, paths = made
    expected = stored(plan_predict(sources, paths[kind], proba=True, uncertainty=["margin"]))
    rasters = {name: opened(path) for name, path in sources.items()}
    found = lcengine.predict(rasters, paths[kind], proba=True, uncertainty=["margin"], tile=40)
    assert list(found) == list(expected)
    assert all(dask.is_dask_collection(values.data) for values in found.values())
    assert found["label"].chunks == ((40, 30), (40, 40, 10))
    for name, values in found.compute(scheduler="threads").items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype
    np.testing.assert_array_equal(found["x"], rasters["s2"]["x"])
    assert found["label"].attrs["_FillValue"] == LEGEND.nodata


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 90}, {"y": 70, "x": 11}, {"y": 33, "x": 33}])
def test_any_chunks_and_tiles(made, chunks):
    sources, paths = made
    tiling = Tiling(stride=7, window="pyramid")
    rasters = {name: lcengine.open(path).chunk(chunks) for name, path in sources.items()}
    maps = [
        lcengine.predict(rasters, paths["patches"], tiling=tiling, tile=tile)["label"].values
        for tile in (1000, 16, 45)
    ]
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])
    expected = stored(plan_predict(sources, paths["patches"], tiling=tiling))
    np.testing.assert_array_equal(maps[0], expected["label"])


def test_bands_along_a_dimension_in_any_order(made, tmp_path):
    sources, _ = made
    entry = Inputs(layers({"s1": sources["s1"]}), GRID).inputs[0]
    two = type(entry)(**{**vars(entry), "bands": ("vv", "vh")})
    path = models.save(network([two], patch=24, stride=16, margin=1), tmp_path / "two").path
    rng = np.random.default_rng(0)
    values = rng.integers(-900, 900, (2, *SHAPE)).astype(np.int16)
    plainly = xr.DataArray(values, dims=("band", "y", "x"))
    named = xr.DataArray(values[::-1], dims=("band", "y", "x"), coords={"band": ["vh", "vv"]})
    one, other = (lcengine.predict(raster, path)["label"] for raster in (plainly, named))
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) > 1
    with pytest.raises(InputError, match="int64, and the model was trained on int16"):
        lcengine.predict(plainly.astype("i8"), path)
    with pytest.raises(InputError, match=r"expected \('band', 'y', 'x'\)"):
        lcengine.predict(plainly[0], path)
    with pytest.raises(InputError, match=r"has \(1,\)"):
        lcengine.predict(plainly[:1], path)


def test_what_does_not_fit_is_said(made):
    sources, paths = made
    rasters = {name: lcengine.open(path) for name, path in sources.items()}
    with pytest.raises(InputError, match="the model expects s2, s1"):
        lcengine.predict(rasters["s2"], paths["pixels"])
    with pytest.raises(InputError, match="lacks nir"):
        lcengine.predict({**rasters, "s2": rasters["s2"].drop_vars("nir")}, paths["pixels"])
    with pytest.raises(InputError, match="differ in y"):
        lcengine.predict({**rasters, "s1": rasters["s1"][{"y": slice(1, None)}]}, paths["pixels"])
    half = {name: raster[{"x": slice(None, None, 2)}] for name, raster in rasters.items()}
    with pytest.raises(InputError, match="20 wide"):
        lcengine.predict(half, paths["pixels"])
    with pytest.raises(InputError, match="judges single pixels"):
        lcengine.predict(rasters, paths["pixels"], tiling=Tiling(exact=True))


def test_threads_of_a_worker_share_one_model(made):
    ref, start = models.ModelRef.of(made[1]["patches"]), threading.Barrier(4)
    array._load.cache_clear()

    def load(_):
        start.wait()
        return array._loaded(ref)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load, range(4)))
    assert all(one is found[0] for one in found)
