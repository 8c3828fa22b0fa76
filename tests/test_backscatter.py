"""Sentinel-1 through plan, tile task, cube and product: dB x 100, averaged as linear power."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import replace

import archives
import dask
import numpy as np
import oracle
import pytest
import rasterio
from archives import LEFT, TOP, in_process
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lcengine
from lcengine import export, jobs
from lcengine.composite import CompositeSpec, plan_composite, task
from lcengine.composite.block import reduce_block
from lcengine.composite.tile import compute_tile
from lcengine.errors import ContractError, InputError, MissingBandError
from lcengine.grid import Grid
from lcengine.items import Access, Items
from lcengine.periods import PeriodRule
from lcengine.sensors import Band, sensor
from lcengine.store import Variable, target

NODATA = -32768
BANDS = ("vv", "vh")
YEAR = "2018-01-01/2018-10-31"
METHODS = "median,mean,percentile:10,percentile:75:nearest,first-clear,count"


def spec(*bands, **changes):
    options = {"mask": "none", "outliers": "none", **changes}
    return CompositeSpec(bands or BANDS, **options)


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def as_one(plan):
    arrays, failures = in_process(plan)
    assert not failures
    return arrays


# ------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def flanders(shared_data):
    return shared_data / "flanders-2018"


@pytest.fixture(scope="module")
def year(flanders):
    """The Sentinel-1 items of ten months."""
    catalog = str(flanders / "catalog.json")
    return lcengine.search(catalog, collections=["sentinel-1-grd"], datetime=YEAR)


@pytest.fixture(scope="module")
def passes(flanders):
    """{band: [(month, file)]} of the same, from the JSON alone, one per pass of the satellite."""
    found = []
    for file in sorted((flanders / "sentinel-1-grd").glob("*/*.json")):
        item = json.loads(file.read_text())
        when = item["properties"]["datetime"]
        if "2018-01-01" <= when[:10] <= "2018-10-31":
            found.append((when, {b: file.parent / item["assets"][b]["href"] for b in BANDS}))
    found.sort(key=lambda pair: pair[0])
    times = [dt.datetime.fromisoformat(when.replace("Z", "+00:00")) for when, _ in found]
    assert all(b - a > dt.timedelta(minutes=20) for a, b in itertools.pairwise(times))
    return [(when[:7], files) for when, files in found]


def stored(path):
    """A band as its file has it, int32 dB x 10000, and where it lies."""
    with rasterio.open(path) as file:
        t = file.transform
        return file.read(1), (file.crs.to_epsg(), t.c, t.f, t.a)


def cubes_of(passes, product, resampling):
    """(months, float64 dB x 100 (pass, band, y, x)): what is read, by plain NumPy."""
    out = np.empty((len(passes), 2, product.height, product.width))
    for number, (_, files) in enumerate(passes):
        for band, name in enumerate(BANDS):
            dn, where = stored(files[name])
            if resampling == "nearest":
                decibels = oracle.half_even(dn.astype(np.int64), 100)
                raster = oracle.Raster(np.where(dn == 0, NODATA, decibels), *where)
                out[number, band] = oracle.nearest(raster, product, NODATA)
            else:
                power = np.where(dn == 0, 0.0, 10 ** (dn * 1e-4 / 10))
                raster = oracle.Raster(power, *where)
                out[number, band] = oracle.sample_power(raster, product, resampling)
    return np.array([month for month, _ in passes]), out


def monthly(months, cube, reduce=np.nanmedian):
    """{month: dB x 100 (band, y, x)} of linear power, and the number of observations."""
    found, counts = {}, {}
    valid = (cube != NODATA).all(axis=1)
    power = np.where(valid[:, None], 10 ** (cube / 1000), np.nan)
    for month in np.unique(months):
        own = power[months == month]
        counts[month] = valid[months == month].sum(axis=0)
        assert counts[month].min() > 0, "the oracle wants something everywhere"
        found[month] = np.rint(1000 * np.log10(reduce(own, axis=0)))
    return found, counts


@pytest.mark.parametrize(
    ("resolution", "resampling"),
    [(20, "nearest"), (10, "nearest"), (10, "bilinear"), (40, "average")],
)
def test_monthly_medians_of_flanders_are_those_of_power(year, passes, resolution, resampling):
    box = (501_360, 5_629_040, 502_000, 5_629_680)
    grid = Grid.from_bounds(*box, 32631, resolution, 16)
    rule = PeriodRule.parse("month")
    plan = plan_composite(year, grid, spec(period=rule, resampling=resampling))
    arrays = as_one(plan)
    product = oracle.Product.of(grid)
    months, cube = cubes_of(passes, product, resampling)
    expected, counts = monthly(months, cube)
    assert [period.name for period in plan.periods] == list(expected)
    assert len(expected) == 10
    for number, month in enumerate(expected):
        for band, name in enumerate(BANDS):
            np.testing.assert_array_equal(arrays[name][number], expected[month][band])
        np.testing.assert_array_equal(arrays["count"][number], counts[month])
    medians = [np.rint(np.nanmedian(cube[months == month], axis=0)) for month in expected]
    if resampling == "nearest":
        away = np.abs(np.stack(medians) - np.stack(list(expected.values())))
        assert away.max() > 20, "decibels would have given something else"


def test_monthly_means_of_flanders_are_those_of_power(year, passes):
    grid = Grid.from_bounds(501_360, 5_629_040, 502_000, 5_629_680, 32631, 20, 32)
    arrays = as_one(plan_composite(year, grid, spec(period=PeriodRule("month"), method="mean")))
    expected, _ = monthly(*cubes_of(passes, oracle.Product.of(grid), "nearest"), np.nanmean)
    for number, month in enumerate(expected):
        for band, name in enumerate(BANDS):
            np.testing.assert_array_equal(arrays[name][number], expected[month][band])


def test_the_cube_of_flanders_is_the_tile_task(year):
    grid = Grid.from_bounds(501_360, 5_629_040, 502_000, 5_629_680, 32631, 10, 32)
    cube = lcengine.load(year, grid, BANDS, resampling="bilinear")
    assert (cube.name, cube.attrs["units"], cube.attrs["scale_factor"]) == (
        "backscatter",
        "dB",
        0.01,
    )
    rule = PeriodRule.parse("month")
    found = lcengine.composite(cube, period="month", outliers="none").compute()
    plan = plan_composite(year, grid, spec(period=rule, resampling="bilinear"))
    for name, pixels in as_one(plan).items():
        if name != "lost":
            np.testing.assert_array_equal(found[name].values, pixels)
    assert found["vv"].attrs["units"] == "dB"
    assert found["vv"].attrs["scale_factor"] == 0.01


# ---------------------------------------------------------------------------------- made by hand


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Ten passes of float32 power at 10 m, in slices of one overpass, half of them in zone 32."""
    folder = tmp_path_factory.mktemp("rtc")
    rng = np.random.default_rng(11)
    level = 10 ** rng.uniform(-2.2, -0.3, (2, 96, 96))
    items = []
    for number in range(10):
        speckle = rng.gamma(4.4, 1 / 4.4, (2, 96, 96))
        power = (level * speckle).astype(np.float32)
        power[rng.random(power.shape) < 0.05] = -32768
        power[rng.random(power.shape) < 0.01] = 0
        for part, rows in enumerate((slice(0, 60), slice(40, 96))):
            assets = {}
            foreign = number % 2
            corner = (LEFT, TOP - 10 * rows.start)
            if foreign:
                corner = (174_890.0, 5_609_070.0 - 10 * rows.start)
            for band, pixels in zip(BANDS, power, strict=True):
                path = folder / f"{number}-{part}-{band}.tif"
                epsg = 32632 if foreign else 32631
                made = archives.raster(path, pixels[rows], epsg=epsg, corner=corner)
                assets[band] = replace(made, nodata=-32768.0, scale=1.0, unit="power")
            when = dt.datetime(2023, 4, 1, 17, 30, tzinfo=dt.UTC) + dt.timedelta(days=6 * number)
            items.append(
                archives.item(
                    10 * number + part,
                    assets,
                    sensor="sentinel-1-rtc",
                    collection="sentinel-1-rtc",
                    platform="sentinel-1a",
                    datetime=when + dt.timedelta(seconds=25 * part),
                )
            )
    return Items(tuple(items), Access(local=True))


def grid_at(tile=128, resolution=10.0):
    return Grid.from_bounds(LEFT + 50, TOP - 900, LEFT + 850, TOP - 20, 32631, resolution, tile)


@pytest.fixture(scope="module")
def whole(archive):
    """All methods in one tile and one block, by resampling."""
    return {
        resampling: as_one(
            plan_composite(archive, grid_at(), spec(method=METHODS, resampling=resampling))
        )
        for resampling in ("nearest", "bilinear", "average")
    }


def test_the_archive_is_worth_testing_with(whole):
    assert (whole["nearest"]["count"] > 0).mean() > 0.95
    assert len(np.unique(whole["nearest"]["count"])) > 5
    assert not np.array_equal(whole["nearest"]["vv_median"], whole["bilinear"]["vv_median"])


@settings(max_examples=5)
@given(
    tile=st.sampled_from([16, 32, 48, 80, 96]),
    block=st.sampled_from([16, 24, 40, 64]),
    resampling=st.sampled_from(["nearest", "bilinear", "average"]),
)
def test_tiles_and_blocks_change_nothing(archive, whole, tile, block, resampling):
    recipe = spec(method=METHODS, resampling=resampling)
    plan = plan_composite(archive, grid_at(tile), recipe, block=block)
    for name, pixels in as_one(plan).items():
        np.testing.assert_array_equal(pixels, whole[resampling][name], err_msg=name)


@settings(max_examples=6)
@given(
    chunks=st.sampled_from([16, 33, 70, 128]),
    resampling=st.sampled_from(["nearest", "bilinear", "average"]),
)
def test_chunks_of_a_cube_change_nothing(archive, whole, chunks, resampling):
    cube = lcengine.load(archive, grid_at(), BANDS, resampling=resampling, chunks=chunks)
    found = lcengine.composite(cube, method=METHODS, outliers="none").compute()
    for name in set(found.data_vars) - {"lost"}:
        np.testing.assert_array_equal(found[name], whole[resampling][name], err_msg=name)


def test_what_a_cube_is_survives_arithmetic(archive, whole):
    cube = lcengine.load(archive, grid_at(), BANDS).compute()
    bare = (cube + np.int16(0)).drop_attrs()
    for other in (bare, cube.rename(None)):
        found = lcengine.composite(other, outliers="none")
        np.testing.assert_array_equal(found["vv"], whole["nearest"]["vv_median"])
        assert found["vv"].attrs["units"] == "dB"
    with pytest.raises(InputError, match=r"in steps of 0.5 'dB', expected those of load"):
        lcengine.composite(cube.assign_attrs(scale_factor=0.5), outliers="none")


def test_a_screen_judges_decibels(archive):
    plain, screened = (
        as_one(plan_composite(archive, grid_at(), spec("vv", outliers=outliers)))
        for outliers in ("none", "mad:1:bright:bands")
    )
    assert screened["outliers"].sum() > 0
    both = screened["count"] + screened["outliers"]
    np.testing.assert_array_equal(both, plain["count"])
    assert (screened["vv"] <= plain["vv"]).all(), "what is bright was dropped"


def test_plain_numbers_are_described_as_numbers(archive):
    """By their name where the step was lost; no deviation is one of reflectance."""
    cube = lcengine.load(archive, grid_at(16), BANDS).isel(y=slice(4), x=slice(4)).compute()
    numbers = cube.rename("number").drop_attrs().assign_attrs(units="1")
    found = lcengine.composite(numbers, method="geomedian", outliers="none", qa="full")
    assert found["vv"].attrs["scale_factor"] == 1
    assert "of the bands" in found["emad"].attrs["long_name"]
    assert not any("reflectance" in v.attrs["long_name"] for v in found.data_vars.values())
    assert lcengine.composite(numbers.rename(None), outliers="none")["vv"].scale_factor == 1e-4


@pytest.mark.parametrize(("above", "rejected"), [(1200, 1), (300, 0)])
def test_a_screen_of_polarisations_drops_a_ship(archive, above, rejected):
    """12 dB above speckle, not 3: with the floor of reflectance, 450, it would take 20 dB."""
    cube = lcengine.load(archive, grid_at(16), BANDS).isel(y=slice(4), x=slice(4)).compute()
    observation = cube["observation"].values
    levels = -2000 + 10 * (observation % 5) + above * (observation == 3)
    cube = cube.copy(data=np.zeros_like(cube) + levels.reshape(-1, 1, 1, 1).astype(np.int16))
    found = lcengine.composite(cube, outliers="mad:3:bands")
    assert np.unique(found["outliers"]).tolist() == [rejected]


def test_a_screen_of_plain_numbers_has_no_floor_of_reflectance(archive):
    """A cloud in 8 bits: 450 of 255 would let everything pass."""
    cube = lcengine.load(archive, grid_at(16), BANDS).isel(y=slice(4), x=slice(4)).compute()
    observation = cube["observation"].values
    levels = 60 + observation % 5 + 150 * (observation == 3)
    cube = cube.copy(data=np.zeros_like(cube) + levels.reshape(-1, 1, 1, 1).astype(np.int16))
    numbers = cube.rename("number").assign_attrs(units="1", scale_factor=1.0)
    found = lcengine.composite(numbers, outliers="mad:3:bands")
    assert np.unique(found["outliers"]).tolist() == [1]


def test_a_worker_warms_up_on_what_it_will_do(archive, tmp_path, monkeypatch):
    """Kernels of decibels, or every worker compiles them in its first tile."""
    plan = plan_composite(archive, grid_at(), spec())
    staging = jobs.stage(target(tmp_path / "out.zarr"), {}, plan)
    made = []

    def watched(spec, periods, block, observable):
        made.append(block)
        return reduce_block(spec, periods, block, observable)

    monkeypatch.setattr(task, "reduce_block", watched)
    jobs.warm_up(staging)
    assert [block.quantity for block in made] == [plan.quantity]


def test_memory_counts_the_powers_of_reads_in_flight(archive):
    """12 bytes per pixel and read: the file's float32 and the float64 power."""
    same_zone = tuple(item for item in archive if item.crs == "EPSG:32631")
    optical = tuple(
        replace(item, assets={b: replace(a, unit="reflectance") for b, a in item.assets.items()})
        for item in same_zone
    )
    radar = plan_composite(Items(same_zone, archive.access), grid_at(), spec()).reads
    plain = replace(radar, items=Items(optical, archive.access))
    height, width = grid_at().shape
    more = radar.memory(10, 4) - plain.memory(10, 4)
    assert more == 4 * 12 * height * width


# --------------------------------------------------------------------------------------- product


@pytest.fixture(scope="module")
def product(archive, tmp_path_factory):
    """A published product of two months."""
    rule = PeriodRule.parse("month")
    plan = plan_composite(archive, grid_at(48), spec(period=rule))
    folder = tmp_path_factory.mktemp("product") / "out.zarr"
    place = target(folder)
    staging = place.create(
        plan.spec.to_json(), plan.run_id, plan.to_json(), plan.grid, plan.variables(), plan.periods
    )
    for number in map(int, plan.reads.tiles):
        staging.write(plan.grid.tile_at(number), compute_tile(plan, number).arrays)
        staging.mark(number, {})
    staging.publish([int(n) for n in plan.reads.tiles], {"items": 20, "failed_reads": 0}, {})
    return folder, plan


def test_a_product_opens_as_decibels(product):
    path, plan = product
    arrays, opened = as_one(plan), lcengine.open(path)
    for band in BANDS:
        raw = arrays[band]
        want = np.where(raw == NODATA, np.nan, raw.astype(np.float32) * np.float32(0.01))
        np.testing.assert_array_equal(opened[band].values, want)
        assert opened[band].attrs["units"] == "dB"
    assert -30 < float(opened["vv"].mean()) < 0
    assert opened["count"].dtype == np.uint16


def test_a_product_is_described_drawn_and_exported(run, product, tmp_path):
    path, plan = product
    code, out, err = run("info", path, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["bands"] == list(BANDS)
    assert facts["units"] == "dB"
    assert facts["qa"] == ["count", "outliers", "lost"]
    picture, raster = tmp_path / "out.png", tmp_path / "out.tif"
    assert run("quicklook", path, "-o", picture, "--time", "2023-04")[0] == 0
    shades = np.asarray(Image.open(picture))
    assert shades.shape == (88, 80, 4)
    assert len(np.unique(shades[..., 0])) > 50
    assert run("export", path, raster, "--time", "2023-04")[0] == 0
    with rasterio.open(raster) as file:
        assert file.descriptions == BANDS
        assert file.scales == (0.01, 0.01)
        assert file.units == ("dB", "dB")
        assert file.nodata == NODATA
        np.testing.assert_array_equal(file.read(1), as_one(plan)["vv"][0])


def test_overviews_of_decibels_are_no_averages(tmp_path):
    """GDAL would average the decibels, not the power."""
    grid = Grid.from_bounds(0, 0, 10_240, 10_240, 32631, 10, 512)
    folder = tmp_path / "out.zarr"
    place = target(folder)
    variable = Variable("vv", "int16", NODATA, "vv", scale=0.01, units="dB")
    staging = place.create({}, "run", {}, grid, [variable])
    pixels = np.where(np.indices((512, 512)).sum(0) % 2, -2000, -1000).astype(np.int16)
    for tile in grid.tiles():
        staging.write(tile, {"vv": pixels})
        staging.mark(tile.index, {})
    staging.publish(range(grid.n_tiles), {"items": 0, "failed_reads": 0}, {})
    export.export(folder, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
        assert set(np.unique(file.read(1))) <= {-2000, -1000}


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("method", ["geomedian", "geomad", "medoid", "medoid:nearest", "max-ndvi"])
def test_spectral_methods_are_refused(archive, method):
    message = f"method '{method}' looks at spectra of reflectance, and the bands are backscatter"
    with pytest.raises(InputError, match=message):
        plan_composite(archive, grid_at(), spec(method=method))
    cube = lcengine.load(archive, grid_at(), BANDS)
    with pytest.raises(InputError, match=message):
        lcengine.composite(cube, method=method, outliers="none")


@pytest.mark.parametrize("outliers", ["mad:3", "despike", "tmask"])
def test_optical_screens_name_the_band_and_the_way_out(archive, outliers):
    message = (
        "sensor sentinel-1-rtc has no band '(blue|green)', which the screens "
        f"'{outliers}' look at; take --outliers none or mad:3:bands"
    )
    with pytest.raises(InputError, match=message):
        plan_composite(archive, grid_at(), spec(outliers=outliers))
    cube = lcengine.load(archive, grid_at(), BANDS)
    with pytest.raises(InputError, match=r"the cube has no band '(blue|green)'"):
        lcengine.composite(cube, outliers=outliers)


def test_optical_methods_name_the_band_and_the_way_out():
    bands = (Band("red", ("red",), 10.0), Band("nir", ("nir",), 10.0))
    two = replace(sensor("sentinel-2-l2a"), bands=bands)
    message = "has no band 'swir16', which the method 'index:ndwi' looks at; take another"
    with pytest.raises(InputError, match=message):
        spec("red", method="index:ndwi").read_bands(two)


@pytest.mark.parametrize("unit", ["reflectance", "number", "dB"])
def test_what_is_no_backscatter_is_refused_before_it_is_read(archive, unit):
    """Power read as reflectance would be 500 for 0.05, and pass for 5 dB."""
    items = tuple(
        replace(item, assets={b: replace(a, unit=unit) for b, a in item.assets.items()})
        for item in archive
    )
    strange = Items(items, archive.access)
    message = rf"item \S+ band 'vv' is in {unit!r}, and its sensor's band is backscatter; expected"
    with pytest.raises(ContractError, match=message):
        plan_composite(strange, grid_at(), spec())
    with pytest.raises(ContractError, match=message):
        lcengine.load(strange, grid_at(), BANDS)


def test_a_polarisation_that_is_not_there_is_named(archive):
    with pytest.raises(MissingBandError, match="has no band 'hh'; it has vh, vv"):
        plan_composite(archive, grid_at(), spec("vv", "hh"))


def test_bands_of_masks_are_no_pixels(tmp_path):
    items = archives.series(tmp_path / "s2", 2, ["blue"], 64)
    with pytest.raises(InputError, match="band 'scl' serves masks"):
        lcengine.load(items, archives.square(640, 64), ["blue", "scl"])


def test_kinds_are_not_mixed():
    kinds = {"vv": "backscatter", "vh": "backscatter", "red": "reflectance", "scl": "classes"}
    bands = tuple(Band(name, (name,), 10.0, kind) for name, kind in kinds.items())
    both = replace(sensor("sentinel-1-rtc"), bands=bands)
    assert spec("vv", "vh").quantity(both).units == "dB"
    assert spec("red").quantity(both).scale == 1e-4
    with pytest.raises(InputError, match=r"\(vv is backscatter, red is reflectance\)"):
        spec("vv", "red").read_bands(both)
    with pytest.raises(InputError, match="band 'scl' serves masks"):
        spec("vv", "scl").read_bands(both)
