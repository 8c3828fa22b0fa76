"""Items: order, duplicates, overpasses, files (FAULTS 17, 28)."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.errors import InputError, MissingBandError
from lcengine.items import (
    Access,
    Asset,
    Item,
    Items,
    observations,
    parse_datetime,
)

NOON = dt.datetime(2018, 6, 1, 10, 50, tzinfo=dt.UTC)


def make_asset(href="/a.tif", crs="EPSG:32631", **changes):
    fields = {
        "href": href,
        "crs": crs,
        "transform": (10.0, 0.0, 500000.0, 0.0, -10.0, 5700000.0),
        "shape": (64, 32),
        "nodata": 0.0,
        "scale": 1e-4,
        "offset": -0.1,
        "contract": "asset",
    }
    return Asset(**fields | changes)


def make_item(id="a", *, minutes=0.0, crs="EPSG:32631", bands=("red",), **changes):
    when = NOON + dt.timedelta(minutes=minutes)
    fields = {
        "id": id,
        "sensor": "sentinel-2-l2a",
        "collection": "sentinel-2-l2a",
        "platform": "sentinel-2a",
        "datetime": when,
        "bbox": (3.0, 50.0, 4.0, 51.0),
        "tile": "31UDS",
        "sensing": when.strftime("%Y%m%dT%H%M%S"),
        "baseline": "05.11",
        "cloud_cover": 12.5,
        "assets": {band: make_asset(f"/{id}/{band}.tif", crs) for band in bands},
    }
    return Item(**fields | changes)


assets = st.builds(
    make_asset,
    href=st.text(min_size=1, max_size=8),
    crs=st.sampled_from(["EPSG:32631", "EPSG:32632"]),
    nodata=st.none() | st.floats(-1e4, 1e4),
    scale=st.floats(1e-6, 1.0),
    offset=st.floats(-1.0, 1.0),
    band=st.integers(1, 8),
)
items = st.builds(
    make_item,
    st.sampled_from("abcd"),
    minutes=st.integers(0, 60) | st.floats(0, 3000),
    collection=st.sampled_from(["sentinel-2-l2a", "sentinel-2-c1-l2a"]),
    platform=st.sampled_from(["sentinel-2a", "sentinel-2b"]),
    tile=st.sampled_from(["31UDS", "31UES"]),
    sensing=st.sampled_from(["20180601T105000", "20180601T110000"]),
    baseline=st.sampled_from(["", "02.09", "05.09", "05.11"]),
    cloud_cover=st.none() | st.floats(0, 100),
    assets=st.dictionaries(st.sampled_from(["red", "nir", "scl"]), assets, min_size=1),
)
shuffled = st.lists(items, max_size=8).flatmap(
    lambda found: st.tuples(st.just(found), st.permutations(found))
)


@given(shuffled)
def test_items_do_not_depend_on_input_order(pair):
    first, second = map(Items.of, pair)
    assert first == second
    assert [i.datetime for i in first] == sorted(i.datetime for i in first)
    assert len({i.scene for i in first}) == len(first)


@given(shuffled, st.sampled_from(["overpass", "solar_day", "none"]))
def test_observations_do_not_depend_on_input_order(pair, groupby):
    first, second = (observations(found, groupby, "EPSG:32631") for found in pair)
    assert first == second
    ordered, index = first
    assert list(index) == sorted(index)
    starts = {}
    for item, i in zip(ordered, index, strict=True):
        starts[i] = min(starts.get(i, item.datetime), item.datetime)
    assert list(starts) == list(range(len(starts)))
    assert list(starts.values()) == sorted(starts.values())


@given(st.lists(items, max_size=6), st.booleans(), st.none() | st.just("package.module:sign"))
def test_save_and_load_give_the_same_items(tmp_path_factory, found, local, signer):
    path = tmp_path_factory.mktemp("items") / "items.json"
    saved = Items.of(found, Access(local, ("127.0.0.1",), signer))
    saved.save(path)
    assert Items.load(path) == saved


def test_saved_file_is_a_stac_feature_collection(tmp_path):
    path = tmp_path / "items.json"
    Items.of([make_item(bands=("red", "scl"))]).save(path)
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    (feature,) = collection["features"]
    assert feature["stac_version"] == "1.1.0"
    assert feature["properties"]["datetime"] == "2018-06-01T10:50:00Z"
    assert feature["assets"]["red"]["raster:offset"] == -0.1
    assert feature["geometry"]["coordinates"][0][0] == [3.0, 50.0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lcengine": {"format": 99}}', "\xff"])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"other\.json is not an items file"):
        Items.load(path)
    with pytest.raises(InputError, match=r"none\.json is not an items file"):
        Items.load(tmp_path / "none.json")


def test_reprocessed_items_newest_baseline_wins_and_is_recorded():
    old = make_item("old", baseline="05.09", sensing="s")
    new = make_item("new", baseline="05.11", sensing="s", minutes=1)
    unknown = make_item("unknown", baseline="", sensing="s")
    result = Items.of([unknown, new, old])
    assert [i.id for i in result] == ["new"]
    assert result.superseded == ("old", "unknown")


def test_equal_duplicates_keep_the_least_id():
    pair = [make_item("b", sensing="s"), make_item("a", sensing="s")]
    assert Items.of(pair).items[0].id == "a"
    assert Items.of(pair).superseded == ("b",)
    assert Items.of([pair[0], pair[0]]).superseded == ()


def test_other_tiles_and_platforms_are_no_duplicates():
    found = [
        make_item("a", sensing="s"),
        make_item("b", sensing="s", tile="31UES"),
        make_item("c", sensing="s", platform="sentinel-2b"),
    ]
    assert len(Items.of(found)) == 3


def test_overlapping_granules_of_one_overpass_are_one_observation():
    found = [
        make_item("west", tile="31UDS"),
        make_item("east", tile="32ULB", crs="EPSG:32632", minutes=0.2),
        make_item("next", tile="31UDS", minutes=3 * 24 * 60),
        make_item("other", tile="31UDS", platform="sentinel-2b", minutes=5),
    ]
    ordered, index = observations(found, "overpass", "EPSG:32632")
    assert [(i.id, n) for i, n in zip(ordered, index, strict=True)] == [
        ("east", 0),  # the product's own CRS comes first
        ("west", 0),
        ("other", 1),
        ("next", 2),
    ]
    _, alone = observations(found, "none", "EPSG:32632")
    assert alone == (0, 1, 2, 3)


def test_first_member_is_of_the_newest_baseline():
    found = [
        make_item("a", tile="1", baseline=""),
        make_item("b", tile="2", baseline="05.09"),
        make_item("c", tile="3", baseline="05.11"),
        make_item("d", tile="4", baseline="05.11"),
    ]
    ordered, index = observations(found, "overpass", "EPSG:32631")
    assert "".join(i.id for i in ordered) == "cdba"
    assert index == (0, 0, 0, 0)


def test_gap_of_twenty_minutes_starts_a_new_overpass():
    for minutes, expected in ((19.9, (0, 0)), (20, (0, 1))):
        found = [make_item("a"), make_item("b", minutes=minutes)]
        assert observations(found, "overpass", "")[1] == expected


def test_solar_day_follows_longitude_also_across_180_degrees():
    # 23:30 and 00:30 UTC are one day at 180 degrees east, where noon is at 0:00 UTC.
    late = NOON.replace(hour=23, minute=30)
    pair = [
        make_item("a", datetime=late, bbox=(178.0, 0, -179.0, 1)),
        make_item("b", datetime=late + dt.timedelta(hours=1), bbox=(178.0, 0, -179.0, 1)),
    ]
    assert observations(pair, "solar_day", "")[1] == (0, 0)
    at_greenwich = [make_item(i.id, datetime=i.datetime, bbox=(-1, 50, 1, 51)) for i in pair]
    assert observations(at_greenwich, "solar_day", "")[1] == (0, 1)


def test_unknown_groupby_is_refused():
    with pytest.raises(InputError, match="overpass, solar_day, none"):
        observations([make_item()], "week", "EPSG:32631")  # type: ignore[arg-type]


def test_missing_band_names_item_band_and_what_exists():
    item = make_item("S2_x", bands=("red", "nir"))
    assert item.asset("red").href == "/S2_x/red.tif"
    with pytest.raises(MissingBandError, match=r"S2_x has no band 'swir16'; it has nir, red"):
        item.asset("swir16")


def test_epsgs_leave_out_what_has_no_code():
    wkt = 'PROJCRS["a local one"]'
    found = [make_item("a"), make_item("b", minutes=40, crs="EPSG:32632"), make_item("c", crs=wkt)]
    assert sorted(Items(tuple(found)).epsgs) == [32631, 32632]


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2018-06-01T10:00:00Z", 10), ("2018-06-01T10:00:00", 10), ("2018-06-01T12:00:00+02:00", 10)],
)
def test_times_are_utc(text, hour):
    assert parse_datetime(text) == dt.datetime(2018, 6, 1, hour, tzinfo=dt.UTC)


def test_bad_time_is_refused():
    with pytest.raises(InputError, match="'yesterday' is not ISO 8601"):
        parse_datetime("yesterday")


def test_items_are_a_sequence(tmp_path: Path):
    found = Items.of([make_item("a"), make_item("b", minutes=60)])
    assert len(found) == 2
    assert [i.id for i in found[:1]] == ["a"]
    assert replace(found, access=Access(local=True))[:1].access.local


# ----------------------------------------------------------------------------------- tables


class TestTable:
    @given(st.lists(assets, min_size=1, max_size=4), st.sampled_from([None, 51]), st.booleans())
    def test_a_table_holds_what_a_file_holds(self, tmp_path_factory, assets, orbit, local):
        made = [
            make_item(
                str(n),
                minutes=30 * n,
                assets={"red": asset, **({"scl": asset} if n % 2 else {})},
                relative_orbit=orbit,
                orbit_state="ascending" if n else "",
                cloud_cover=None if n == 1 else 3.5,
            )
            for n, asset in enumerate(assets)
        ]
        items = Items.of(made, Access(local, ("host",), "module:hook"))
        path = tmp_path_factory.mktemp("table") / "items.parquet"
        items.save(path)
        assert Items.load(path) == items

    def test_a_table_needs_an_item(self, tmp_path):
        with pytest.raises(InputError, match=r"no items to write .*save them as \.json"):
            Items(()).save(tmp_path / "items.parquet")

    @pytest.mark.parametrize("content", [None, b"PAR1 not really", b"{}"])
    def test_what_is_no_table_is_named(self, tmp_path, content):
        path = tmp_path / "items.parquet"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"items\.parquet is no stac-geoparquet"):
            Items.load(path)

    def test_a_table_of_somebody_else_is_not_ours(self, tmp_path):
        from stac_geoparquet import arrow

        table = arrow.parse_stac_items_to_arrow([make_item().to_stac()])
        arrow.to_parquet(table, tmp_path / "items.parquet")
        with pytest.raises(InputError, match="is not an items file of lcengine"):
            Items.load(tmp_path / "items.parquet")
