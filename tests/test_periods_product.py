"""Products of several periods, against a plain re-implementation day by day."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from functools import lru_cache

import archives
import dask
import distributed
import numpy as np
import oracle
import pytest
import rough
import xarray as xr
from odc.geo.geom import Geometry
from rough import assemble, differing
from shapely.affinity import translate

import lcengine
from lcengine import jobs, reader
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec, plan_composite
from lcengine.composite import task as running
from lcengine.errors import InputError, RunError, StoreError
from lcengine.grid import Grid
from lcengine.kernels.methods import DISTANCE
from lcengine.kernels.series import despike, tmask
from lcengine.periods import PeriodRule

BANDS = ("red", "swir16")
NODATA = -32768

# The granules of a pass are 5 s apart: what begins shortly before midnight ends after it.
TIMES = (
    "2022-11-30T23:59:55Z",
    "2022-12-10T10:30:00Z",
    "2022-12-20T10:30:00Z",
    "2022-12-31T23:59:50Z",
    "2023-01-01T00:00:00Z",
    "2023-01-11T00:00:00Z",
    "2023-01-16T23:59:59Z",
    "2023-01-17T00:30:00Z",
    "2023-02-05T10:30:00Z",
    "2023-02-28T23:59:59Z",
    "2023-04-01T00:00:00Z",
    "2023-04-21T10:30:00Z",
    "2023-05-02T10:30:00Z",
    "2023-05-12T10:30:00Z",
    "2023-05-22T10:30:00Z",
    "2023-06-30T23:59:50Z",
    "2023-07-01T00:00:00Z",
    "2023-09-30T23:59:55Z",
    "2023-10-01T00:00:00Z",
    "2023-11-20T10:30:00Z",
    "2023-12-05T10:30:00Z",
    "2024-01-10T10:30:00Z",
    "2024-02-29T12:00:00Z",
)
LISTED = [
    {"name": "late", "start": "2023-09-30", "end": "2023-12-05T10:30:00Z"},
    {"name": "frost", "start": "2022-12-20", "end": "2023-01-10"},
    {"start": "2022-12-31T23:59:51Z", "end": "2023-01-16T23:59:59Z"},
    {"start": "2023-03-01", "end": "2023-03-31"},
]
RULES = ("month", "season", "dekad", "P16D", "year", "10-01/06-30")
INTERVAL = (dt.datetime(2022, 10, 15, tzinfo=dt.UTC), dt.datetime(2024, 3, 31, tzinfo=dt.UTC))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(catalogue, items, raw items)."""
    root = tmp_path_factory.mktemp("dated")
    catalog = rough.write(root, seed=8, passes=rough.series(TIMES))
    return catalog, lcengine.search(str(catalog)), oracle.items_below(root)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A file of periods."""
    file = tmp_path_factory.mktemp("periods") / "custom.json"
    file.write_text(json.dumps(LISTED))
    return file


def grid_at(tile=64, shift=190):
    """32 by 40 pixels; with a shift of 1000 the first granule of a pass does not reach them."""
    left, top = rough.LEFT + shift, rough.TOP - 150
    return Grid.from_bounds(left, top - 320, left + 400, top, 32631, 10, tile)


def spec(period, **changes):
    rule = PeriodRule.parse(str(period)) if period else None
    return CompositeSpec(BANDS, **{"mask": "scl", "outliers": "none", "period": rule, **changes})


@pytest.fixture(scope="module")
def observed(archive):
    """The observations of all passes, by the oracle."""

    @lru_cache
    def find(mask="scl", shift=190, bands=BANDS):
        return oracle.observe(archive[2], oracle.Product.of(grid_at(shift=shift)), bands, mask=mask)

    return find


# ------------------------------------------------------------------------------------ the oracle


def label(day, rule):
    """The period that a day belongs to, None in a gap."""
    year, month = day.year, day.month
    if rule == "year":
        return f"{year}"
    if rule == "month":
        return f"{year}-{month:02}"
    if rule == "season":
        names = ("DJF", "DJF", "MAM", "MAM", "MAM", "JJA", "JJA", "JJA", "SON", "SON", "SON", "DJF")
        return f"{year + (month == 12)}-{names[month - 1]}"
    if rule == "dekad":
        return f"{year}-{month:02}-d{1 + (day.day > 10) + (day.day > 20)}"
    if rule == "P16D":
        into = (day - dt.date(year, 1, 1)).days
        return (dt.date(year, 1, 1) + dt.timedelta(days=into // 16 * 16)).isoformat()
    assert rule == "10-01/06-30"
    if 7 <= month <= 9:
        return None
    first = year if month >= 10 else year - 1
    return f"{first}-10-01/{first + 1}-06-30"


def midnight(day):
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def spans(rule, first=INTERVAL[0], last=INTERVAL[1]):
    """(name, start, stop) of the periods that meet the interval, day by day."""
    found = {}
    for n in range(4 * 365):
        day = dt.date(2021, 6, 1) + dt.timedelta(days=n)
        name = label(day, rule)
        start, _ = found.get(name, (midnight(day), None))
        found[name] = start, midnight(day + dt.timedelta(days=1))
    found.pop(None, None)
    return [(n, a, b) for n, (a, b) in found.items() if a <= last and b > first]


def listed_spans():
    """What `LISTED` means, written out and sorted."""

    def at(text):
        return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)

    return [
        ("frost", at("2022-12-20T00:00:00"), at("2023-01-11T00:00:00")),
        (
            "2022-12-31T23:59:51Z/2023-01-16T23:59:59Z",
            at("2022-12-31T23:59:51"),
            at("2023-01-16T23:59:59"),
        ),
        ("2023-03-01/2023-03-31", at("2023-03-01T00:00:00"), at("2023-04-01T00:00:00")),
        ("late", at("2023-09-30T00:00:00"), at("2023-12-05T10:30:00")),
    ]


def expected(seen, periods, *, min_clear=0, **options):
    """All periods of the oracle, {variable: (period, y, x)}; `widened` with a `min_clear`."""
    began = seen.began()

    def within(start, stop):
        chosen = [n for n, moment in enumerate(began) if start <= moment < stop]
        return oracle.summarise(seen.only(chosen), BANDS, **options)

    parts = []
    for i in range(len(periods)):
        part = within(*periods[i][1:])
        part["widened"] = np.zeros(part["count"].shape, np.uint8)
        for level in (1, 2) if min_clear else ():
            around = periods[max(0, i - level) : i + level + 1]
            wider = within(min(p[1] for p in around), max(p[2] for p in around))
            wider["widened"] = np.full(part["count"].shape, level, np.uint8)
            more = (part["count"] < min_clear) & (wider["count"] > part["count"])
            part = {name: np.where(more, wider[name], part[name]) for name in part}
        parts.append(part)
    names = [name for name in parts[0] if min_clear or name != "widened"]
    return {name: np.stack([part[name] for part in parts]) for name in names}


# ------------------------------------------------------------------------------ products of a rule


@pytest.mark.parametrize("rule", RULES)
def test_a_product_equals_the_oracle(archive, observed, rule):
    plan = plan_composite(archive[1], grid_at(), spec(rule), interval=INTERVAL)
    periods = spans(rule)
    assert [(p.name, p.start, p.stop) for p in plan.time_axis] == periods
    got = assemble(plan)
    want = expected(observed(), periods)
    assert differing(got, want) == {}
    assert not got["lost"].any()
    used = got["count"].any(axis=(1, 2))
    assert used.any()
    assert used.all() == (rule in ("year", "10-01/06-30"))
    assert (got["red"][~used] == oracle.NODATA).all()


def test_a_list_equals_the_oracle(archive, observed, listed):
    """Overlaps, gaps, times as edges, in the order of their starts."""
    plan = plan_composite(archive[1], grid_at(), spec(listed), interval=INTERVAL)
    periods = listed_spans()
    assert [(p.name, p.start, p.stop) for p in plan.time_axis] == periods
    got = assemble(plan)
    assert differing(got, expected(observed(), periods)) == {}
    assert got["count"].any(axis=(1, 2)).tolist() == [True, True, False, True]


@pytest.mark.parametrize("rule", ["month", "dekad", "10-01/06-30", "list"])
@pytest.mark.parametrize("min_clear", [1, 2, 4])
def test_pixels_with_too_little_borrow_from_the_neighbours(
    archive, observed, listed, rule, min_clear
):
    period, periods = (listed, listed_spans()) if rule == "list" else (rule, spans(rule))
    recipe = spec(period, min_clear=min_clear, outliers="mad:2", method="percentile:40")
    got = assemble(plan_composite(archive[1], grid_at(), recipe, interval=INTERVAL))
    seen = observed(bands=(*BANDS, "blue", "green"))
    want = expected(seen, periods, min_clear=min_clear, mad=2, method="percentile:40")
    assert differing(got, want) == {}
    levels = {0, 1, 2} if rule != "10-01/06-30" else {0, 1}
    assert set(np.unique(got["widened"])) <= levels
    if rule in ("month", "dekad") and min_clear > 1:
        assert set(np.unique(got["widened"])) == levels


@pytest.mark.parametrize("outliers", ["despike:2:0.5", "tmask:2", "despike:2:1,tmask:2,mad:2"])
@pytest.mark.parametrize("period", ["month", None])
def test_whole_series_come_before_their_periods(archive, outliers, period):
    """Screens of the series see all that is valid; the others what is left, period by period."""
    bands = ("red", "swir16", "green", "blue")
    recipe = replace(spec(period, outliers=outliers), bands=bands)
    got = assemble(plan_composite(archive[1], grid_at(), recipe, interval=INTERVAL))
    product = oracle.Product.of(grid_at())
    groups = oracle.overpasses(oracle.newest(archive[2]), 32631)
    groups.sort(key=lambda group: min(map(oracle.when, group)))
    members = [(g, item) for g, group in enumerate(groups) for item in group]
    values = np.array(
        [
            [oracle.nearest(oracle.reflectance(i, b), product, oracle.NODATA) for b in bands]
            for _, i in members
        ]
    )
    stored = values.astype(np.int16)
    began = [min(map(oracle.when, groups[g])).timestamp() / 86400 for g, _ in members]
    order = np.array([g for g, _ in members]), np.array(began)
    valid = (values != oracle.NODATA).all(axis=1)
    seen = oracle.clear_masks(groups, product, "scl") & valid
    clear = seen
    if "despike" in outliers:
        below = float(outliers.split(",")[0].split(":")[2])
        clear = despike(stored[:, 3], clear, valid, *order, above=2, below=below).clear
    if "tmask" in outliers:
        clear = tmask(stored[:, 2], stored[:, 1], clear, *order, multiple=2).clear
    clear = clear != 0
    assert (seen & ~clear).any()
    assert (clear & ~seen).any() == ("despike" in outliers)
    left = oracle.Observed(*oracle.first_clear(values, clear & valid, groups), bands, groups)
    gone = np.array([(seen & ~clear)[order[0] == g].any(axis=0) for g in range(len(groups))])
    parts = []
    for _, start, stop in spans(period) if period else [("all", *INTERVAL)]:
        chosen = [n for n, moment in enumerate(left.began()) if start <= moment < stop]
        part = oracle.summarise(left.only(chosen), bands, mad=2 if "mad" in outliers else None)
        part["outliers"] += gone[chosen].sum(axis=0).astype(np.uint16)
        parts.append(part)
    want = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    assert differing(got, want if period else {k: v[0] for k, v in want.items()}) == {}


def test_tiles_and_blocks_of_periods_change_nothing(archive):
    recipe = spec("month", min_clear=3, outliers="despike,mad:2", method="median,first-clear,bap")
    want = assemble(plan_composite(archive[1], grid_at(), recipe))
    plan = plan_composite(archive[1], grid_at(tile=16), recipe, block=21)
    assert differing(assemble(plan), want) == {}


def test_several_methods_of_a_period_are_each_by_itself(archive):
    several = spec("season", method="mean,percentile:75", min_clear=2)
    got = assemble(plan_composite(archive[1], grid_at(), several))
    for method, suffix in (("mean", "mean"), ("percentile:75", "p75")):
        alone = assemble(
            plan_composite(archive[1], grid_at(), spec("season", method=method, min_clear=2))
        )
        for band in BANDS:
            alone[f"{band}_{suffix}"] = alone.pop(band)
        assert differing(got, alone) == {}


# --------------------------------------------------------------------------------------- the edges


def test_midnight_belongs_to_the_day_that_begins(archive):
    """An item at exactly midnight, alone in its catalogue."""
    first = archive[1].filter(lambda item: item.datetime == midnight(dt.date(2023, 1, 11)))
    assert len(first) == 1
    plan = plan_composite(first, grid_at(), spec("dekad"), interval=INTERVAL)
    counts = assemble(plan)["count"].any(axis=(1, 2))
    names = [p.name for p, seen in zip(plan.time_axis, counts, strict=True) if seen]
    assert names == ["2023-01-d2"]


@pytest.mark.parametrize("shift", [190, 1000])
@pytest.mark.parametrize("rule", ["month", "10-01/06-30"])
def test_an_overpass_belongs_to_the_period_of_its_start(archive, observed, rule, shift):
    """Also where its first granule, the one before midnight, is not in the picture.

    The pass of 30 September begins in no period, and none of it is in the one of October.
    """
    plan = plan_composite(archive[1], grid_at(shift=shift), spec(rule), interval=INTERVAL)
    got = assemble(plan)
    want = expected(observed(shift=shift), spans(rule))
    assert differing(got, want) == {}
    cube = lcengine.load(archive[1], grid_at(shift=shift), list(BANDS), mask="scl")
    if shift == 1000:
        assert not {"31UFS"} & {name.split("_")[1] for name in cube["id"].values}
        apart = cube["time"].dt.day != cube["began"].dt.day
        assert apart.any()
    found = composited(cube, period=rule, interval=INTERVAL)
    assert differing(found, want) == {}


def test_an_observation_is_not_torn_apart_by_the_selection_of_items(archive):
    plan = plan_composite(archive[1], grid_at(), spec("10-01/06-30"), interval=INTERVAL)
    days = {item.datetime.date() for item in plan.items}
    assert dt.date(2023, 9, 30) not in days
    in_october = [item for item in plan.items if item.datetime.date() == dt.date(2023, 10, 1)]
    assert {item.platform for item in in_october} == {"sentinel-2b"}
    assert dt.date(2023, 7, 1) in days  # the end of what began on 30 June
    assert len(plan.items) < len(archive[1])


def test_snow_that_stays_is_known_from_the_whole_series(archive, observed):
    """How often a pixel is white is asked of all items, not only of those in a period."""
    rule, may = "05-01/05-31", midnight(dt.date(2023, 5, 1))
    plan = plan_composite(archive[1], grid_at(), spec(rule, mask="worldcover"), interval=INTERVAL)
    want = expected(observed("worldcover"), [(rule, may, may + dt.timedelta(days=31))])
    assert differing(assemble(plan), want) == {}
    cube = lcengine.load(archive[1], grid_at(), list(BANDS), mask="worldcover")
    assert differing(composited(cube, period=rule, interval=INTERVAL), want) == {}
    alone = archive[1].filter(lambda item: item.datetime.month == 5)
    less = assemble(plan_composite(alone, grid_at(), spec(rule, mask="worldcover")))
    assert differing(less, want) != {}


def test_items_outside_the_interval_count_where_there_are_no_periods(archive):
    """An API may answer with items that only touch the interval that was asked for."""
    narrow = (INTERVAL[0], dt.datetime(2023, 5, 5, tzinfo=dt.UTC))
    got = assemble(plan_composite(archive[1], grid_at(), spec(None), interval=narrow))
    want = assemble(plan_composite(archive[1], grid_at(), spec(None)))
    assert differing(got, want) == {}


def test_periods_without_any_item_are_an_error(archive):
    interval = dt.datetime(2023, 3, 5, tzinfo=dt.UTC), dt.datetime(2023, 3, 20, tzinfo=dt.UTC)
    with pytest.raises(InputError, match=r"none of the \d+ items lies in one of the 1 periods"):
        plan_composite(archive[1], grid_at(), spec("month"), interval=interval)


# ------------------------------------------------------------------------------------------- cubes


def composited(cube, **options):
    with dask.config.set(scheduler="threads", num_workers=2):
        return lcengine.composite(cube, bands=BANDS, **{"outliers": "none", **options}).compute()


@pytest.mark.parametrize("rule", ["month", "P16D", "list"])
def test_a_cube_has_the_same_periods(archive, listed, rule):
    period = str(listed) if rule == "list" else rule
    options = {"outliers": "mad:2", "min_clear": 2, "method": "median,last-clear"}
    plan = plan_composite(archive[1], grid_at(), spec(period, **options), interval=INTERVAL)
    want = assemble(plan)
    del want["lost"]
    bands = [*BANDS, "blue", "green"]
    cube = lcengine.load(archive[1], grid_at(), bands, mask="scl", chunks=24)
    found = composited(cube, period=period, interval=INTERVAL, **options)
    assert differing(found, want) == {}
    assert found["red_median"].dims == ("time", "y", "x")
    assert found["period"].values.tolist() == [p.name for p in plan.time_axis]
    starts = [np.datetime64(p.start.replace(tzinfo=None), "ns") for p in plan.time_axis]
    stops = [np.datetime64(p.stop.replace(tzinfo=None), "ns") for p in plan.time_axis]
    assert found["time"].values.tolist() == np.array(starts).tolist()
    assert found["time_bnds"].values.tolist() == np.stack([starts, stops], axis=1).tolist()
    eager = composited(cube.compute(), period=period, interval=INTERVAL, **options)
    xr.testing.assert_identical(eager, found)


@pytest.mark.parametrize("groupby", ["solar_day", "none"])
def test_a_cube_has_the_same_observations_in_its_periods(archive, groupby):
    options = {"outliers": "despike:2:1", "min_clear": 2}
    recipe = spec("month", groupby=groupby, **options)
    want = assemble(plan_composite(archive[1], grid_at(), recipe, interval=INTERVAL))
    other = assemble(plan_composite(archive[1], grid_at(), spec("month", **options)))
    assert not np.array_equal(want["count"].sum(axis=0), other["count"].sum(axis=0))
    del want["lost"]
    bands = [*BANDS, "blue", "green"]
    cube = lcengine.load(archive[1], grid_at(), bands, mask="scl", groupby=groupby)
    found = composited(cube, period="month", interval=INTERVAL, **options)
    assert differing(found, want) == {}


def test_nothing_is_restored_outside_the_polygon(archive):
    """Despike may bring back what a mask hid, never what the area excludes."""
    whole = grid_at()
    extent = whole.geobox.extent
    part = extent.geom.intersection(translate(extent.geom, 153, 74))
    grid = Grid(whole.geobox, whole.tile, Geometry(part, extent.crs))
    recipe = spec("month", outliers="despike:2:1")
    got = assemble(plan_composite(archive[1], grid, recipe, interval=INTERVAL))
    want = assemble(plan_composite(archive[1], whole, recipe, interval=INTERVAL))
    inside = grid.inside(0, 0, *grid.shape)
    assert 0.1 < inside.mean() < 0.9
    for name, pixels in got.items():
        empty = NODATA if name in BANDS else 0
        assert np.array_equal(pixels, np.where(inside, want[name], empty)), name
    plain = assemble(plan_composite(archive[1], whole, spec("month"), interval=INTERVAL))
    assert (want["count"] > plain["count"])[:, ~inside].any()


def test_a_cube_covers_its_own_time_by_default(archive):
    cube = lcengine.load(archive[1], grid_at(), list(BANDS), mask="scl")
    found = composited(cube.isel(time=slice(9, 24)), period="month")
    first, last = cube["time"].values[[9, 23]].astype("M8[M]").astype(str)
    assert found["period"].values[[0, -1]].tolist() == [first, last]


def test_a_cube_out_of_order_is_refused(archive):
    cube = lcengine.load(archive[1], grid_at(), list(BANDS), mask="scl")
    bare = cube.drop_vars(["observation", "began"])
    with pytest.raises(InputError, match="do not ascend in time; sort them"):
        lcengine.composite(bare[::-1], outliers="none", period="month")


def test_the_best_pixel_is_wanted_in_the_middle_of_its_period(archive):
    plan = plan_composite(archive[1], grid_at(), spec("month", method="bap", qa="full"))
    got = assemble(plan)
    bands = [*BANDS, "blue", DISTANCE]
    cube = lcengine.load(archive[1], grid_at(), bands, mask="scl").compute()
    began = cube["began"].values.astype("M8[M]").astype(str)
    days = {"2022-12": 350, "2023-01": 16, "2023-02": 46, "2023-05": 136, "2024-02": 46}
    for name, day in days.items():
        i = [period.name for period in plan.time_axis].index(name)
        period = plan.time_axis[i]
        alone = composited(
            cube.isel(time=began == name),
            method=f"bap:{day}",
            qa="full",
            interval=(period.start, period.stop - dt.timedelta(seconds=1)),
        )
        part = {key: got[key][i] for key in (*BANDS, "score", "date", "count")}
        assert differing(alone, part) == {}, name


# ------------------------------------------------------------------------------------ in the store


def request(source, period, *, datetime="2022-12/2023-05", **changes):
    query = Query(str(source), (archives.COLLECTION,), datetime=datetime)
    recipe = spec(period, **{"max_lost": 1.0, **changes})
    return CompositeRequest(query, recipe, crs="EPSG:32631", resolution=40, tile=16)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def product(archive, client, tmp_path_factory):
    """A monthly product of December to May, with an empty March: (request, path)."""
    asked = request(archive[0], "month", min_clear=2)
    output = tmp_path_factory.mktemp("product") / "out.zarr"
    jobs.run(asked.plan, output, client=client, request=asked.to_json())
    return asked, output


MONTHS = ["2022-12", "2023-01", "2023-02", "2023-03", "2023-04", "2023-05"]


def test_the_time_of_the_store_is_cf(product):
    _, path = product
    found = xr.open_zarr(path.resolve(), consolidated=True)
    assert found["red"].dims == ("time", "y", "x")
    assert found["time"].dtype.kind == "M"
    starts = np.array(MONTHS, "M8[M]")
    assert (found["time"].values == starts).all()
    assert (found["time_bnds"].values == np.stack([starts, starts + 1], axis=1)).all()
    assert found["time"].encoding["units"] == "seconds since 1970-01-01"
    assert found["time"].attrs["standard_name"] == "time"
    assert found["time"].attrs["bounds"] == "time_bnds"
    assert found["time"].attrs["period_names"] == MONTHS


def test_an_opened_product_has_periods(product):
    asked, path = product
    opened = lcengine.open(path)
    assert opened["period"].values.tolist() == MONTHS
    assert (opened["time"].values == np.array(MONTHS, "M8[M]")).all()
    assert opened["time_bnds"].shape == (6, 2)
    assert list(opened) == ["red", "swir16", "count", "outliers", "lost", "widened"]
    may = opened.set_xindex("period").sel(period="2023-05")
    want, _ = archives.in_process(asked.plan())
    assert differing(archives.arrays(path), want) == {}
    assert (may["count"].values == want["count"][5]).all()
    assert opened["red"].chunks[0] == (1,) * 6
    # March has no item of its own, and borrows from February and April.
    assert want["widened"][3].any()
    assert (want["widened"][3] > 0).sum() == (want["count"][3] > 0).sum()


def test_a_product_that_is_saved_reads_back_the_same(product, tmp_path):
    opened = lcengine.open(product[1]).drop_vars("spatial_ref")
    copy = tmp_path / "copy.zarr"
    opened.to_zarr(copy, consolidated=False)
    again = xr.open_zarr(copy, consolidated=False).load()
    xr.testing.assert_equal(again.drop_vars("period"), opened.load().drop_vars("period"))
    assert again["period"].values.tolist() == MONTHS


def test_an_interrupted_run_resumes(archive, product, client, tmp_path, monkeypatch):
    asked, path = product
    real, computed = running.compute_tile, []

    def fails(plan, number):
        if number == 1:
            raise RunError("no power")
        return real(plan, number)

    def counts(plan, number):
        computed.append(number)
        return real(plan, number)

    output = tmp_path / "out.zarr"
    monkeypatch.setattr(running, "compute_tile", fails)
    with pytest.raises(RunError, match="no power"):
        jobs.run(asked.plan, output, client=client, request=asked.to_json())
    assert not output.exists()
    monkeypatch.setattr(running, "compute_tile", counts)
    jobs.run(asked.plan, output, client=client, request=asked.to_json())
    assert computed == [1]
    assert differing(archives.arrays(output), archives.arrays(path)) == {}


class TestListedPeriods:
    """What a file lists is part of the request, where it lies is not."""

    def asked(self, archive, folder, entries):
        folder.mkdir()
        file = folder / "custom.json"
        file.write_text(json.dumps(entries))
        return request(archive[0], file, datetime=None)

    def test_unfinished_work_follows_the_content(self, archive, client, tmp_path, monkeypatch):
        def fails(plan, number):
            raise RunError("no power")

        output = tmp_path / "out.zarr"
        asked = self.asked(archive, tmp_path / "a", LISTED)
        with monkeypatch.context() as patched:
            patched.setattr(running, "compute_tile", fails)
            with pytest.raises(RunError, match="no power"):
                jobs.run(asked.plan, output, client=client, request=asked.to_json())
        other = self.asked(archive, tmp_path / "b", [*LISTED[:3], {**LISTED[3], "name": "x"}])
        with pytest.raises(StoreError, match=r"different request \(period: .*--restart"):
            jobs.run(other.plan, output, client=client, request=other.to_json())
        (tmp_path / "a" / "custom.json").unlink()
        same = self.asked(archive, tmp_path / "c", LISTED[::-1])
        jobs.run(self.unplanned, output, client=client, request=same.to_json())
        want, _ = archives.in_process(same.plan())
        assert differing(archives.arrays(output), want) == {}
        assert lcengine.open(output)["period"].values.tolist() == [p[0] for p in listed_spans()]
        jobs.run(self.unplanned, output, client=client, request=asked.to_json())
        with pytest.raises(StoreError, match=r"different request \(period: .*--restart"):
            jobs.run(self.unplanned, output, client=client, request=other.to_json())

    def unplanned(self):
        raise AssertionError("an equal request plans nothing anew")

    def test_order_and_path_are_not_the_content(self, archive, tmp_path):
        one = self.asked(archive, tmp_path / "a", LISTED).to_json()
        assert one == self.asked(archive, tmp_path / "b", LISTED[::-1]).to_json()
        assert str(tmp_path) not in json.dumps(one["period"])
        less = self.asked(archive, tmp_path / "c", LISTED[1:]).to_json()
        assert less != one


# ------------------------------------------------------------------------------- damaged sources


@pytest.mark.parametrize("damage", ["truncate", "html", "missing"])
@pytest.mark.parametrize("band", ["red", "scl"])
def test_losses_are_counted_in_their_period(tmp_path, monkeypatch, damage, band):
    monkeypatch.setattr(reader, "BACKOFF", 0.0)
    catalog = rough.write(tmp_path, seed=3, passes=rough.series(TIMES[7:15]))
    items = lcengine.search(str(catalog))
    recipe = spec("month", min_clear=2, max_lost=1.0)
    plan = plan_composite(items, grid_at(), recipe)
    victim = next(i.id for i in items if i.datetime.month == 4 and i.datetime.day == 21)
    archives.DAMAGE[damage](archives.asset_file(catalog, victim, band))
    found, failures = archives.in_process(plan)
    assert {(f.item, f.band) for f in failures} == {(victim, band)}
    names = [period.name for period in plan.time_axis]
    assert names == ["2023-01", "2023-02", "2023-03", "2023-04", "2023-05"]
    assert found["lost"].any(axis=(1, 2)).tolist() == [False, False, False, True, False]
    want = assemble(archives.without(plan, victim))
    del want["lost"]
    assert differing(found, want) == {}


# ------------------------------------------------------------------------------- what once failed


def test_a_cube_without_the_first_item_keeps_its_observation(archive):
    cube = lcengine.load(archive[1], grid_at(), list(BANDS), mask="scl").compute()
    groups = cube["observation"].values
    later = int(np.flatnonzero(np.diff(groups) == 0)[0]) + 1  # a second item of an observation
    cut = cube.isel(time=slice(later, None))
    first = cut["began"].values.min()
    assert first < cut["time"].values.min()
    alone = composited(cut.isel(time=slice(0, 1)))["count"].values
    assert alone.max() == 1


def test_one_variable_of_a_cube(archive):
    cube = lcengine.load(archive[1], grid_at(), list(BANDS), mask="scl")
    for period in (None, "month"):
        got = lcengine.composite(
            cube, bands=BANDS[:1], qa="none", outliers="none", period=period
        ).compute()
        assert list(got.data_vars) == [BANDS[0]]


def test_a_float_cube_is_refused(archive):
    cube = lcengine.load(archive[1], grid_at(), list(BANDS))
    with pytest.raises(InputError, match="float32, expected int16"):
        lcengine.composite(cube.astype(np.float32), outliers="none")


def test_a_season_across_the_year_is_one_season():
    from lcengine.composite.block import at_period
    from lcengine.kernels.composite import composite as kernel
    from lcengine.kernels.methods import BestPixel

    (winter,) = PeriodRule.parse("season").periods(*(dt.datetime(2018, 1, 1, tzinfo=dt.UTC),) * 2)
    method = at_period(BestPixel(target=15), winter)
    december, february = (
        (dt.date(*day) - dt.date(1970, 1, 1)).days for day in ((2017, 12, 31), (2018, 2, 24))
    )
    values = np.full((2, 3, 1, 1), 500, np.int16)
    got = kernel(
        values,
        np.ones((2, 1, 1), np.uint8),
        methods=(method,),
        bands=("blue", "red", "cloud_distance"),
        days=np.array([december, february], float),
    )
    assert got.chosen.item() == 0  # 15 days off, not 40


def test_too_many_periods_for_a_tile_are_refused(archive, monkeypatch):
    from lcengine.composite import planning

    monkeypatch.setattr(planning, "MAX_OUTPUT", 10_000)
    with pytest.raises(InputError, match=r"takes .* GiB of results; take --tile \d+ or fewer"):
        plan_composite(archive[1], grid_at(), spec("month"))
