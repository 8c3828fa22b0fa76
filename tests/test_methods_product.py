"""Every reducer and screen in a product: tiles, blocks, order, chunks and company change no bit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import archives
import dask
import distributed
import numpy as np
import oracle
import pyarrow.parquet as pq
import pytest
import rough
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rough import assemble, differing

import lcengine
from lcengine import jobs, reader
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.composite.spec import EXTRAS, NO_DATE, NO_ITEM
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.kernels.methods import FORMS, SCREENS
from lcengine.periods import PeriodRule

BANDS = ("red", "swir16", "green")
"""With what the methods look at, these are all bands that any screen does: one validity for all."""
METHODS = (
    "median",
    "mean",
    "percentile:10",
    "percentile:90:nearest",
    "geomedian",
    "geomad:0.5",
    "medoid",
    "medoid:nearest",
    "max-ndvi",
    "index:blue",
    "index:hot:40",
    "index:ndvi",
    "index:ndwi",
    "index:ratio:75",
    "bap",
    "bap:120",
    "bap:300-20-100",
    "first-clear",
    "last-clear",
    "count",
)
SCREENINGS = (
    "none",
    "mad:3",
    "mad:3:bright",
    "mad:3:dark:bands",
    "despike",
    "tmask",
    "despike,tmask,mad:3",
)
EVERYTHING = ",".join(METHODS)
BEGIN = np.datetime64("2023-01-05T10:30:00")
TIMES = [f"{BEGIN + np.timedelta64(17, 'D') * n}Z" for n in range(26)]


def test_every_form_is_tested():
    stems = {method.split(":")[0] for method in METHODS}
    assert {form.split(":")[0].split("[")[0] for form in FORMS} <= stems
    tried = {part.split(":")[0] for screens in SCREENINGS for part in screens.split(",")}
    assert {form.split("[")[0] for form in SCREENS} == tried


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Fifteen months of the rough archive in two zones: (items, raw items)."""
    root = tmp_path_factory.mktemp("long")
    passes = rough.series(TIMES)
    catalog = rough.write(root, seed=5, passes=passes, bands={**rough.BANDS, "nir": 10})
    return lcengine.search(str(catalog)), oracle.items_below(root)


def grid_at(epsg=32631, tile=128):
    """A grid over the overlap of the three granules, 47 by 61 pixels in their own zone."""
    box = (rough.LEFT + 190, rough.TOP - 490, rough.LEFT + 800, rough.TOP - 20)
    if epsg != 32631:
        box = Transformer.from_crs(32631, epsg, always_xy=True).transform_bounds(*box)
    return Grid.from_bounds(*box, epsg, 10, tile)


def spec(outliers="none", method=EVERYTHING, **changes):
    options = {"mask": "scl", "qa": "full", **changes}
    return CompositeSpec(options.pop("bands", BANDS), outliers=outliers, method=method, **options)


@pytest.fixture(scope="module")
def untiled(archive):
    """All methods after some screens, in one tile and one block: (plan, arrays), computed once."""

    @lru_cache
    def find(outliers, epsg=32631):
        plan = plan_composite(archive[0], grid_at(epsg), spec(outliers))
        return plan, assemble(plan)

    return find


@pytest.fixture(scope="module")
def cube(archive):
    """All bands of the archive and the distance to clouds, in memory.

    Nodata in one band is nodata in all: what a method alone does not look at counts as well.
    """
    bands = ["swir16", "nir", "cloud_distance", "red", "green", "blue"]
    with dask.config.set(scheduler="threads", num_workers=2):
        cube = lcengine.load(archive[0], grid_at(), bands, mask="scl").compute()
    whole = (cube.isel(band=slice(0, -1)) != oracle.NODATA).all("band")
    return xr.where(whole | (cube["band"] == "clear"), cube, np.int16(oracle.NODATA)).transpose(
        *cube.dims
    )


# ------------------------------------------------------------------------------- worth comparing


@pytest.mark.parametrize("outliers", SCREENINGS)
def test_the_answers_are_worth_comparing(untiled, outliers):
    """Holes, odd and even counts, outliers; and a screen is not another one."""
    _, arrays = untiled(outliers)
    assert len(np.unique(arrays["count"])) > 5
    assert arrays["count"].max() > 12
    assert arrays["outliers"].any() == (outliers != "none")
    plain = untiled("none")[1]
    assert (differing(arrays, plain) == {}) == (outliers == "none")
    for name in ("red_median", "red_geomedian", "red_bap", "item_medoid"):
        assert len(np.unique(arrays[name])) > 20, name


def test_despike_brings_masked_observations_back(untiled):
    seen, despiked = (untiled(outliers)[1] for outliers in ("none", "despike"))
    total = despiked["count"].astype(int) + despiked["outliers"]
    assert (total >= seen["count"]).all()
    assert (total > seen["count"]).any()


# ------------------------------------------------------------------------- what must change nothing


@pytest.mark.slow
@settings(max_examples=4)
@given(data=st.data())
def test_tiles_blocks_and_order_change_nothing(archive, untiled, tmp_path_factory, data):
    draw = data.draw
    outliers = draw(st.sampled_from(SCREENINGS))
    epsg = draw(st.sampled_from([32631, 32632]))
    file = tmp_path_factory.mktemp("shuffled") / "items.json"
    features = draw(st.permutations(archive[1]))
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tile, block = draw(st.sampled_from([32, 48, 64])), draw(st.integers(20, 64))
    grid = grid_at(epsg, tile)
    plan = plan_composite(lcengine.search(str(file)), grid, spec(outliers), block=block)
    want, arrays = untiled(outliers, epsg)
    assert [item.id for item in plan.items] == [item.id for item in want.items]
    assert differing(assemble(plan), arrays) == {}


@pytest.mark.parametrize("outliers", ["none", "mad:3:dark:bands", "despike,tmask,mad:3"])
def test_blocks_of_a_tile_change_nothing(archive, untiled, outliers):
    """A quick one of the property above."""
    plan = plan_composite(archive[0], grid_at(tile=48), spec(outliers), block=33)
    assert differing(assemble(plan), untiled(outliers)[1]) == {}


@pytest.mark.parametrize("outliers", SCREENINGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_alone_in_a_cube_is_the_method_in_company(untiled, cube, method, outliers):
    plan, arrays = untiled(outliers)
    alone = lcengine.composite(cube, bands=BANDS, method=method, outliers=outliers, qa="full")
    label = spec(method=method).asked[0].label
    choice = {"item", "date"} & set(alone)
    assert set(alone) - {"count", "outliers", *choice} == (
        set() if method == "count" else {*BANDS, *spec(method=method).methods[0].extras}
    )
    for name in alone:
        shared = name if name in arrays else f"{name}_{label}"
        found = alone[name].values
        if name == "item":
            found = numbers(found, cube["id"].values, plan)
        assert differing({name: found}, {name: arrays[shared]}) == {}


def numbers(chosen, ids, plan):
    """Positions in a cube as numbers of the items of a plan."""
    number = {item.id: n for n, item in enumerate(plan.items)}
    table = np.array([*(number[name] for name in ids), NO_ITEM], np.uint32)
    return table[np.minimum(chosen, len(ids))]


@pytest.mark.slow
@settings(max_examples=3)
@given(
    outliers=st.sampled_from(SCREENINGS),
    chunks=st.integers(32, 70),
    again=st.tuples(st.integers(17, 70), st.integers(17, 70)),
)
def test_chunks_of_a_cube_change_nothing(archive, untiled, outliers, chunks, again):
    plan, arrays = untiled(outliers)
    bands = ["red", "swir16", "nir", "green", "blue", "cloud_distance"]
    cube = lcengine.load(archive[0], grid_at(), bands, mask="scl", chunks=chunks)
    cube = cube.chunk(y=again[0], x=again[1])
    lazy = lcengine.composite(cube, bands=BANDS, method=EVERYTHING, outliers=outliers, qa="full")
    with dask.config.set(scheduler="threads", num_workers=2):
        found = lazy.compute()
    assert {*found, "lost"} == {*arrays}
    for name in arrays.keys() - {"lost"}:
        pixels = found[name].values
        if name.startswith("item"):
            pixels = numbers(pixels, cube["id"].values, plan)
        assert differing({name: pixels}, {name: arrays[name]}) == {}


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_of_a_rich_product(archive, tmp_path, workers):
    rich = spec(
        "despike,mad:2.5:bright",
        "median,percentile:10,geomedian,medoid,bap,max-ndvi,count",
        period=PeriodRule.parse("month"),
        min_clear=3,
    )
    want = assemble(plan_composite(archive[0], grid_at(32632), rich))
    plan = plan_composite(archive[0], grid_at(32632, 32), rich, block=24)
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=2,
            processes=workers > 1,
            host="127.0.0.1" if workers > 1 else None,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        path = jobs.run(plan, tmp_path / "out.zarr", client=client)
    found = archives.arrays(path)
    assert found.keys() == want.keys()
    assert differing(found, want) == {}
    assert {0, 1, 2} <= set(np.unique(want["widened"]))


# --------------------------------------------------------------------------------------- QA levels


FLOATS = dict.fromkeys(EXTRAS, ("float32", None))
STORED = {
    "count": ("uint16", 65535),
    "outliers": ("uint16", 65535),
    "lost": ("uint16", 65535),
    "widened": ("uint8", 255),
    "item": ("uint32", NO_ITEM),
    "date": ("uint16", NO_DATE),
    **FLOATS,
}
CHOOSING = "count outliers lost item date"


@pytest.mark.parametrize(
    ("method", "qa", "expected"),
    [
        ("median", "none", "red swir16"),
        ("median", "basic", "red swir16 count outliers lost"),
        ("median", "full", "red swir16 count outliers lost"),
        ("median,count", "none", "red swir16 count"),
        ("count", "none", "count"),
        ("count", "basic", "count outliers lost"),
        ("count", "full", "count outliers lost"),
        ("count,count", "basic", None),
        ("medoid", "basic", "red swir16 count outliers lost"),
        ("medoid", "full", f"red swir16 {CHOOSING}"),
        ("bap", "basic", "red swir16 count outliers lost"),
        ("bap", "full", f"red swir16 score {CHOOSING}"),
        ("geomedian", "none", "red swir16"),
        ("geomedian", "basic", "red swir16 count outliers lost"),
        ("geomedian", "full", "red swir16 smad emad bcmad count outliers lost"),
        ("geomad", "none", "red swir16 smad emad bcmad"),
        (
            "median,percentile:2.5,percentile:75:nearest",
            "none",
            "red_median swir16_median red_p2_5 swir16_p2_5 red_p75_nearest swir16_p75_nearest",
        ),
        (
            "geomedian,median",
            "full",
            "red_geomedian swir16_geomedian red_median swir16_median smad emad bcmad "
            "count outliers lost",
        ),
        (
            "geomedian,geomad:1,count",
            "full",
            "red_geomedian swir16_geomedian red_geomad_1 swir16_geomad_1 "
            "smad_geomedian emad_geomedian bcmad_geomedian smad_geomad_1 emad_geomad_1 "
            "bcmad_geomad_1 count outliers lost",
        ),
        (
            "bap,bap:100-182-250,medoid:nearest",
            "full",
            "red_bap swir16_bap red_bap_100_182_250 swir16_bap_100_182_250 red_medoid_nearest "
            "swir16_medoid_nearest score_bap score_bap_100_182_250 count outliers lost "
            "item_bap date_bap item_bap_100_182_250 date_bap_100_182_250 item_medoid_nearest "
            "date_medoid_nearest",
        ),
    ],
)
def test_a_product_has_exactly_these_variables(archive, method, qa, expected):
    if expected is None:
        with pytest.raises(InputError, match="expected each method once"):
            spec(method=method, qa=qa)
        return
    two = spec(bands=("red", "swir16"), method=method, qa=qa)
    plan = plan_composite(archive[0], grid_at(), two)
    variables = {v.name: (v.dtype, v.fill) for v in plan.variables()}
    wanted = {
        name: STORED.get(name.split("_")[0], ("int16", oracle.NODATA)) for name in expected.split()
    }
    assert list(variables.items()) == list(wanted.items())
    arrays = assemble(plan)
    assert {name: pixels.dtype.name for name, pixels in arrays.items()} == {
        name: dtype for name, (dtype, _) in wanted.items()
    }


def test_only_counts(archive, untiled):
    found = assemble(plan_composite(archive[0], grid_at(), spec(method="count", qa="basic")))
    raw = oracle.observe(archive[1], oracle.Product.of(grid_at()), BANDS, mask="scl")
    assert differing(found, {"count": raw.valid.sum(axis=0).astype(np.uint16)}) == {}
    assert not found["outliers"].any()


def test_where_nothing_is_seen_everything_is_missing(untiled):
    """The hole that no item has: class 0 all over one corner does not occur, so cut it out."""
    plan, arrays = untiled("mad:3")
    none = arrays["count"] == 0
    if not none.any():
        narrow = plan_composite(plan.items[:3], plan.grid, spec("mad:3"))
        arrays = assemble(narrow)
        none = arrays["count"] == 0
    assert 0 < none.mean() < 1
    for variable in plan.variables():
        pixels = arrays[variable.name]
        if variable.name in ("count", "outliers", "lost"):
            continue
        missing = np.isnan(pixels) if variable.fill is None else pixels == variable.fill
        assert missing[none].all(), variable.name
        if "_index_" not in variable.name:  # which is not known of every observation
            assert not missing[~none].any(), variable.name


def test_scores_are_between_zero_and_one(untiled):
    for outliers in SCREENINGS:
        arrays = untiled(outliers)[1]
        scores = np.array([arrays[n] for n in arrays if n.startswith("score")])
        assert scores.dtype == np.float32
        known = scores[np.isfinite(scores)]
        assert known.min() >= 0
        assert known.max() <= 1
        assert len(np.unique(known)) > 100


@pytest.mark.parametrize("outliers", ["mad:3", "despike,tmask,mad:3"])
@pytest.mark.parametrize("epsg", [32631, 32632])
def test_the_chosen_item_has_the_pixels(archive, untiled, epsg, outliers):
    """`item` and `date` point at the raster whose values were put out."""
    plan, arrays = untiled(outliers, epsg)
    raw = {item["id"]: item for item in archive[1]}
    product = oracle.Product.of(grid_at(epsg))
    groups = oracle.overpasses(oracle.newest(archive[1]), epsg)
    began = {i["id"]: min(map(oracle.when, group)) for group in groups for i in group}
    choosing = [name.removeprefix("item_") for name in arrays if name.startswith("item")]
    assert len(choosing) == 13
    sampled = {}
    for label in choosing:
        chosen = arrays[f"item_{label}"]
        for number in np.unique(chosen[chosen != NO_ITEM]):
            item = raw[plan.items[int(number)].id]
            here = chosen == number
            day = (began[item["id"]].date() - oracle.dt.date(1970, 1, 1)).days
            assert (arrays[f"date_{label}"][here] == day).all()
            for band in BANDS:
                key = item["id"], band
                if key not in sampled:
                    sampled[key] = oracle.nearest(
                        oracle.reflectance(item, band), product, oracle.NODATA
                    )
                assert (arrays[f"{band}_{label}"][here] == sampled[key][here]).all()


def test_chosen_items_are_numbered_in_the_list_of_items(archive, tmp_path):
    plan = plan_composite(archive[0], grid_at(tile=64), spec(method="first-clear"))
    path = Path(run_in_process(plan, tmp_path / "out.zarr"))
    rows = pq.read_table(path / "items.parquet").to_pylist()
    ids = {row["number"]: row["item"] for row in rows}
    assert len(ids) == len(plan.items)
    assert ids == {n: item.id for n, item in enumerate(plan.items)}
    days = {row["number"]: row["datetime"].date() for row in rows}
    found = archives.arrays(path)
    for number in np.unique(found["item"]):
        if number != NO_ITEM:
            date = np.unique(found["date"][found["item"] == number])
            assert date == (days[number] - oracle.dt.date(1970, 1, 1)).days
    opened = lcengine.open(path)
    assert opened["date"].dtype == np.uint16
    decoded = xr.open_zarr(path.resolve(), consolidated=True)
    assert decoded["date"].dtype.kind == "M"
    seen = found["date"] != NO_DATE
    assert (decoded["date"].values[seen].astype("M8[D]").astype(int) == found["date"][seen]).all()
    assert np.isnat(decoded["date"].values[~seen]).all()


def run_in_process(plan, output):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        return jobs.run(plan, output, client=client)


# ------------------------------------------------------------------------------- damaged sources


@pytest.mark.parametrize("outliers", ["none", "despike,tmask,mad:3"])
@pytest.mark.parametrize("band", ["red", "scl"])
def test_a_failed_read_is_never_chosen(tmp_path, monkeypatch, outliers, band):
    """And the composite is what it were had the catalogue never had the item."""
    monkeypatch.setattr(reader, "BACKOFF", 0.0)
    passes = rough.series(TIMES[:14])
    catalog = rough.write(tmp_path, seed=6, passes=passes, bands={**rough.BANDS, "nir": 10})
    items = lcengine.search(str(catalog))
    method = "medoid,bap,first-clear,last-clear,max-ndvi"
    grid, recipe = grid_at(tile=64), spec(outliers, method, max_lost=1.0)
    whole = assemble(plan_composite(items, grid, recipe))
    # the item that the medoid takes most often where it can choose among several
    chosen = whole["item_medoid"][(whole["item_medoid"] != NO_ITEM) & (whole["count"] > 2)]
    number = int(np.bincount(chosen).argmax())
    assert (whole["item_medoid"] == number).any()
    plan = plan_composite(items, grid, recipe)
    victim = plan.items[number].id
    archives.truncate(archives.asset_file(catalog, victim, band))
    found, failures = archives.in_process(plan)
    assert {(f.item, f.band) for f in failures} == {(victim, band)}
    fewer = archives.without(plan, victim)
    want = assemble(fewer)
    left = [n for n, item in enumerate(plan.items) if item.id != victim]
    renumbered = np.array([*left, NO_ITEM], np.uint32)
    for name, pixels in want.items():
        if name.startswith("item"):
            want[name] = renumbered[np.minimum(pixels, len(left))]
            assert not (found[name] == number).any()
    assert found["lost"].any()
    del want["lost"]
    assert differing(found, want) == {}


# ---------------------------------------------------------------------------------- cloud distance


@pytest.mark.parametrize(("epsg", "mask"), [(32631, "worldcover"), (32632, "scl")])
def test_distances_to_clouds_are_those_of_a_cube(archive, monkeypatch, epsg, mask):
    """What tile tasks hand to the best available pixel, whatever the tile."""
    from lcengine.composite import tile as tasks

    plan = plan_composite(archive[0], grid_at(epsg), spec(method="bap", mask=mask))
    with dask.config.set(scheduler="threads", num_workers=2):
        cube = lcengine.load(archive[0], grid_at(epsg, 32), ["cloud_distance"], mask=mask)
        cube = cube.compute()
    want = dict(zip(cube["id"].values, cube.values[:, 0], strict=True))
    assert len(np.unique(cube.values[:, 0])) > 20
    real = tasks.reduce_block
    seen = []

    def spy(recipe, periods, block, observable=None):
        seen.append(replace(block, values=block.values.copy()))  # the memory is used again
        return real(recipe, periods, block, observable)

    monkeypatch.setattr(tasks, "reduce_block", spy)
    for tile, size in ((48, 33), (128, 500)):
        plan = plan_composite(
            archive[0], grid_at(epsg, tile), spec(method="bap", mask=mask), block=size
        )
        for number in plan.reads.tiles:
            tile_here = plan.grid.tile_at(int(number))
            seen.clear()
            tasks.compute_tile(plan, int(number))
            for window, block in zip(plan.reads.blocks(tile_here), seen, strict=True):
                assert block.bands[-1] == "cloud_distance"
                for n, item in enumerate(block.series.numbers):
                    rows = slice(window.y0, window.y0 + window.height)
                    cols = slice(window.x0, window.x0 + window.width)
                    there = want[plan.items[int(item)].id][rows, cols]
                    use = block.clear[n] != 0
                    assert (block.values[n, -1][use] == there[use]).all()


def test_best_pixels_need_a_mask(archive, cube):
    with pytest.raises(InputError, match=r"'bap' looks at the distance to clouds.*mask is 'none'"):
        spec(method="median,bap", mask="none")
    with pytest.raises(InputError, match="'cloud_distance' needs a mask; pass mask="):
        lcengine.load(archive[0], grid_at(), ["red", "cloud_distance"])
    with pytest.raises(InputError, match="the cube has no band 'cloud_distance'"):
        lcengine.composite(cube.sel(band=["red", "blue"]), outliers="none", method="bap")
