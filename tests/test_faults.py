"""Bad input: what is unreadable, wrong or hostile is recorded or refused, never silent nodata."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import archives
import numpy as np
import pyarrow.parquet as pq
import pytest

from lcengine import jobs, masks, reader
from lcengine.catalog import search
from lcengine.cluster import connect
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.errors import (
    ContractError,
    HrefError,
    MissingBandError,
    NoItemsError,
    ReadError,
    RunError,
)
from lcengine.items import Access, Items
from lcengine.periods import PeriodRule
from lcengine.simulate import FileServer, SimulationOptions, items_collection, simulate

NODATA = -32768
BANDS = ("blue", "swir16")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=4, bands=BANDS)
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


@pytest.fixture(scope="module")
def client():
    with connect("local:workers=1,threads=2") as found:
        yield found


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Retries without their pauses."""
    monkeypatch.setattr(reader, "BACKOFF", 0.0)


@pytest.fixture(scope="module")
def victim(world):
    """Id of an item that has many clear pixels, but is not in every tile."""
    plan = archives.request(world.catalog).plan()
    tiles = np.bincount(plan.reads.index)
    counts = {
        item.id: int(archives.in_process(only(plan, item.id))[0]["count"].sum())
        for item, reached in zip(plan.items, tiles, strict=True)
        if reached < len(plan.reads.tiles)
    }
    return max(sorted(counts), key=lambda name: counts[name])


def only(plan, item_id):
    return archives.without(plan, *(i.id for i in plan.items if i.id != item_id))


def reach(plan, item_id):
    """Pixels of the product that lie in an item's raster."""
    asset = next(i for i in plan.items if i.id == item_id).asset("blue")
    x, y = plan.grid.x(np.arange(plan.grid.shape[1])), plan.grid.y(np.arange(plan.grid.shape[0]))
    a, _, left, _, e, top = asset.transform
    inside_x = (x > left) & (x < left + a * asset.shape[1])
    inside_y = (y < top) & (y > top + e * asset.shape[0])
    return inside_y[:, None] & inside_x[None, :]


def companions(plan, item_id):
    """Pixels that the other granules of an item's overpass show clear."""
    number = dict(zip((i.id for i in plan.items), plan.reads.observation, strict=True))
    others = {n for n in number if number[n] == number[item_id]} - {item_id}
    if not others:
        return np.zeros(plan.grid.shape, bool)
    return archives.in_process(archives.without(plan, *(number.keys() - others)))[0]["count"] > 0


def assert_lost(plan, item_id, band, reached):
    """The item's observations are gone, named in the ledger and the rest stays.

    They count in `lost` where the item's pixels were `reached` and its overpass shows no others.
    """
    found, failures = archives.in_process(plan)
    tiles = {f.tile for f in failures}
    assert {(f.item, f.band) for f in failures} == {(item_id, band)}
    assert len(failures) == len(tiles)
    assert tiles <= {int(n) for n in plan.reads.tiles}
    expected, _ = archives.in_process(archives.without(plan, item_id))
    for name in (*plan.spec.bands, "count", "outliers"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    lost = reached.astype(bool) & ~companions(plan, item_id)
    np.testing.assert_array_equal(found["lost"], lost)
    assert lost.any()


class TestUnreadable:
    """FAULTS 22: truncated, corrupt, zero-byte, HTML, missing; also a VRT in disguise (40)."""

    @pytest.mark.parametrize("damage", archives.DAMAGE)
    @pytest.mark.parametrize("band", ["blue", "scl"])
    def test_a_local_file(self, world, tmp_path, victim, damage, band):
        catalog = archives.copied(world, tmp_path / "sim")
        plan = archives.request(catalog, max_lost=1.0).plan()
        one = only(plan, victim)
        lost = archives.in_process(one)[0]["count"] if band == "blue" else reach(plan, victim)
        archives.DAMAGE[damage](archives.asset_file(catalog, victim, band))
        assert_lost(plan, victim, band, lost)

    @pytest.mark.parametrize("damage", ["truncate", "corrupt", "empty", "html", "vrt", "missing"])
    def test_over_http(self, world, tmp_path, victim, damage):
        catalog = archives.copied(world, tmp_path / "sim")
        lost = archives.in_process(only(archives.request(catalog).plan(), victim))[0]["count"]
        archives.DAMAGE[damage](archives.asset_file(catalog, victim, "blue"))
        with FileServer(catalog.parent) as server:
            source = f"{server.url}/catalog.json"
            query = archives.request(source).query
            items = search(query.source, query.collections)
            grid = archives.request(catalog).plan().grid
            plan = plan_composite(items, grid, archives.spec(max_lost=1.0))
            assert_lost(plan, victim, "blue", lost)

    def test_without_a_mask_only_the_raster_counts_as_lost(self, world, tmp_path, victim):
        catalog = archives.copied(world, tmp_path / "sim")
        plan = archives.request(catalog, mask="none", max_lost=1.0).plan()
        archives.empty(archives.asset_file(catalog, victim, "swir16"))
        assert_lost(plan, victim, "swir16", reach(plan, victim))

    def test_outside_the_aoi_nothing_is_lost(self, world, tmp_path, victim):
        from lcengine.aoi import Aoi

        catalog = archives.copied(world, tmp_path / "sim")
        west, south, east, north = search(str(catalog))[0].bbox
        corner = [[west, south], [east, south], [west, north], [west, south]]
        area = tmp_path / "aoi.geojson"
        area.write_text(json.dumps({"type": "Polygon", "coordinates": [corner]}))
        request = replace(archives.request(catalog, max_lost=1.0), aoi=Aoi.from_file(area))
        plan = request.plan()
        archives.missing(archives.asset_file(catalog, victim, "scl"))
        found, _ = archives.in_process(plan)
        inside = plan.grid.inside(0, 0, *plan.grid.shape)
        assert found["lost"][inside].any()
        assert not found["lost"][~inside].any()

    def test_the_product_has_the_ledger(self, world, tmp_path, victim, client):
        catalog = archives.copied(world, tmp_path / "sim")
        archives.corrupt(archives.asset_file(catalog, victim, "blue"))
        archives.missing(archives.asset_file(catalog, victim, "scl"))
        plan = archives.request(catalog, max_lost=0.4).plan()
        product = Path(jobs.run(plan, tmp_path / "out.zarr", client=client))
        ledger = pq.read_table(product / "failures.parquet").to_pylist()
        assert set(ledger[0]) == {"tile", "item", "band", "href", "error", "attempts"}
        assert {row["href"].rpartition("/")[2] for row in ledger} == {"scl.tif"}
        assert {row["attempts"] for row in ledger} == {1}
        assert {(row["item"], row["band"]) for row in ledger} == {(victim, "scl")}
        assert "scl.tif" in ledger[0]["error"]
        provenance = json.loads((product / "zarr.json").read_text())["attributes"]["lcengine"]
        assert provenance["failed_reads"] == len(ledger)
        assert archives.arrays(product)["lost"].any()

    def test_above_max_lost_the_run_fails_and_resumes(self, world, tmp_path, victim, client):
        catalog = archives.copied(world, tmp_path / "sim")
        undisturbed = jobs.run(
            archives.request(catalog, max_lost=0.0).plan(), tmp_path / "good.zarr", client=client
        )
        broken = archives.asset_file(catalog, victim, "blue")
        content = broken.read_bytes()
        archives.truncate(broken)
        plan = archives.request(catalog, max_lost=0.0).plan()
        output = tmp_path / "out.zarr"
        with pytest.raises(RunError, match=rf"--max-lost 0\.0.*{victim} blue: .*run the same com"):
            jobs.run(plan, output, client=client)
        assert not output.exists()
        finished = len(list((tmp_path / ".out.zarr.lcengine").glob("*.work/tiles/*.json")))
        assert 0 < finished < len(plan.reads.tiles)
        broken.write_bytes(content)
        resumed = []
        jobs.run(plan, output, client=client, listener=lambda p: resumed.append(p.resumed))
        assert set(resumed) == {finished}
        assert archives.tree(output) == archives.tree(undisturbed)


class TestNames:
    """FAULTS 42: what a catalogue or a list of periods calls things never becomes a path."""

    def test_none_leaves_the_folder_of_the_product(self, world, tmp_path, client):
        items = search(str(world.catalog))
        named = tuple(replace(i, id=f"../../../../{i.id}", tile="../../x") for i in items)
        document = tmp_path / "periods.json"
        stop = {"start": "2023-01-01", "end": "2023-12-31"}
        document.write_text(json.dumps([{"name": "../../../../evil", **stop}]))
        grid = archives.request(world.catalog).plan().grid
        spec = archives.spec(period=PeriodRule.parse(str(document)), max_lost=1.0)
        plan = plan_composite(replace(items, items=named), grid, spec)
        inner = tmp_path / "a" / "b" / "c" / "d"
        inner.mkdir(parents=True)
        jobs.run(plan, inner / "out.zarr", client=client)
        assert sorted(path.name for path in inner.iterdir()) == [".out.zarr.lcengine", "out.zarr"]
        outside = [p for p in tmp_path.rglob("*") if p.is_file() and inner not in p.parents]
        assert outside == [document]


class TestLostObservations:
    """`lost` counts overpasses: what another granule shows clear there is not lost."""

    def plan(self, folder, *broken):
        """Two granules of one overpass: `a` clear everywhere, `b` cloudy in its right half."""
        clear = np.full((16, 16), 4, np.uint8)
        cloudy = clear.copy()
        cloudy[:, 8:] = 9
        found = []
        for name, classes, value in (("a", clear, 1000), ("b", cloudy, 2000)):
            assets = {
                "blue": archives.raster(
                    folder / f"{name}-blue.tif", np.full((32, 32), value, np.uint16)
                ),
                "scl": archives.raster(folder / f"{name}-scl.tif", classes, 20.0),
            }
            later = dt.timedelta(seconds=10 * len(found))
            item = archives.item(0, assets, id=name, tile=f"31UE{name.upper()}")
            found.append(replace(item, datetime=item.datetime + later))
        for name in broken:
            archives.missing(folder / f"{name}.tif")
        grid = archives.square(320, 32)
        items = Items(tuple(found), Access(local=True))
        plan = plan_composite(items, grid, archives.spec("blue", max_lost=1.0))
        assert len(set(plan.reads.observation)) == 1
        return plan

    @pytest.mark.parametrize(
        ("broken", "lost", "blue"),
        [
            ((), (0, 0), (1000, 1000)),
            (("a-blue",), (0, 1), (2000, NODATA)),
            (("a-scl",), (0, 1), (2000, NODATA)),
            (("b-blue",), (0, 0), (1000, 1000)),
            (("b-scl",), (0, 0), (1000, 1000)),
            (("a-blue", "b-blue"), (1, 1), (NODATA, NODATA)),
            (("a-scl", "b-scl"), (1, 1), (NODATA, NODATA)),
            (("a-scl", "b-blue"), (1, 1), (NODATA, NODATA)),
        ],
        ids=lambda value: "+".join(value) if value and isinstance(value[0], str) else None,
    )
    def test_of_an_overpass(self, tmp_path, broken, lost, blue):
        found, failures = archives.in_process(self.plan(tmp_path, *broken))
        assert {f"{f.item}-{f.band}" for f in failures} == set(broken)
        left = np.arange(32)[None, :] < 16
        both = (32, 32)
        np.testing.assert_array_equal(found["lost"], np.broadcast_to(np.where(left, *lost), both))
        np.testing.assert_array_equal(found["blue"], np.broadcast_to(np.where(left, *blue), both))
        np.testing.assert_array_equal(found["count"], found["blue"] != NODATA)


class TestUnexpected:
    """No read outlives the block whose memory it writes to, whatever another one raises."""

    @pytest.mark.parametrize(
        ("module", "name", "bands"),
        [(masks, "read_classes", 1), (reader, "read_band", 2)],
        ids=["masks", "bands"],
    )
    def test_errors_come_out_after_all_reads(self, world, monkeypatch, module, name, bands):
        plan = archives.request(world.catalog, tile=96, max_lost=1.0).plan()
        real = getattr(module, name)
        turns = itertools.count()
        ended = []

        def slow(*arguments):
            turn = next(turns)
            if turn == 0:
                raise ZeroDivisionError("a mistake of ours")
            time.sleep(0.1)
            found = real(*arguments)
            ended.append(turn)
            return found

        monkeypatch.setattr(module, name, slow)
        with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
            archives.in_process(plan)
        assert len(ended) == next(turns) - 1 > bands

    def test_a_failed_read_is_recorded_after_all_reads(self, world, monkeypatch):
        """The ledger has it; the others have arrived whole."""
        plan = archives.request(world.catalog, tile=96, max_lost=1.0).plan()
        victim = next(i.id for i in plan.items)
        expected, _ = archives.in_process(archives.without(plan, victim))
        real = reader.read_band

        def slow(asset, *arguments):
            if f"/{victim}/" in asset.href:
                raise ReadError(f"{asset.href} is gone")
            time.sleep(0.02)
            return real(asset, *arguments)

        monkeypatch.setattr(reader, "read_band", slow)
        found, failures = archives.in_process(plan)
        assert {f.item for f in failures} == {victim}
        for band in BANDS:
            np.testing.assert_array_equal(found[band], expected[band])


class TestWrongCatalogue:
    """FAULTS 23: what the catalogue says of a file's grid must be what the file says."""

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("proj:transform", [10, 0, 699_510, 0, -10, 5_640_000], "has transform"),
            ("proj:shape", [96, 64], "has shape"),
            ("proj:code", "EPSG:25831", "has CRS EPSG:32631, its catalogue says EPSG:25831"),
        ],
    )
    def test_a_wrong_grid_goes_to_the_ledger(self, world, tmp_path, field, value, message):
        catalog = archives.copied(world, tmp_path / "sim")
        victim = world.item_ids[0]
        document = archives.asset_file(catalog, victim, victim).with_suffix(".json")
        stac = json.loads(document.read_text())
        assert stac["assets"]["blue"].get(field) != value
        stac["assets"]["blue"][field] = value
        document.write_text(json.dumps(stac))
        request = replace(archives.request(catalog, mask="none", max_lost=1.0), crs="EPSG:32631")
        _, failures = archives.in_process(request.plan())
        assert {(f.item, f.band) for f in failures} == {(victim, "blue")}
        assert all(message in f.error for f in failures)

    def test_no_crs_is_a_named_error(self, world, tmp_path):
        catalog = archives.copied(world, tmp_path / "sim")
        victim = world.item_ids[0]
        document = archives.asset_file(catalog, victim, victim).with_suffix(".json")
        stac = json.loads(document.read_text())
        del stac["properties"]["proj:code"], stac["properties"]["proj:epsg"]
        document.write_text(json.dumps(stac))
        with pytest.raises(ContractError, match=rf"{victim} states no CRS .*proj:code"):
            archives.request(catalog).plan()

    def test_items_of_different_kinds_mix(self, tmp_path):
        """CRS, resolution, dtype, nodata, scale and offset are each item's own."""
        n = 64
        digital = np.full((n, n), 2000, np.uint16)
        digital[:, : n // 2] = 0
        floating = np.full((n // 2, n // 2), 0.3, np.float32)
        floating[: n // 4] = np.nan
        signed = np.full((2 * n, 2 * n), -40, np.int16)
        x, y = _in_zone_32()
        assets = [
            replace(archives.raster(tmp_path / "a.tif", digital), offset=-0.1),
            replace(archives.raster(tmp_path / "b.tif", floating, 20.0), nodata=None, scale=1.0),
            replace(
                archives.raster(
                    tmp_path / "c.tif", signed, epsg=32632, corner=(x - 300.0, y + 300.0)
                ),
                nodata=-9999.0,
                scale=0.001,
                offset=0.5,
            ),
        ]
        items = Items(
            tuple(archives.item(i, {"blue": asset}) for i, asset in enumerate(assets)),
            Access(local=True),
        )
        grid = archives.square(640, 64)
        plan = plan_composite(
            items, grid, CompositeSpec(("blue",), mask="none", method="mean", outliers="none")
        )
        found, failures = archives.in_process(plan)
        assert failures == []
        digital_there = np.arange(n)[None, :] >= n // 2
        floating_there = np.arange(n)[:, None] >= n // 2
        total = 1000 * digital_there + 3000 * floating_there + 4600
        count = 1 + digital_there.astype(int) + floating_there
        np.testing.assert_array_equal(found["count"], count)
        np.testing.assert_array_equal(found["blue"], np.rint(total / count))


def _in_zone_32():
    from pyproj import Transformer

    to_zone = Transformer.from_crs(archives.EPSG, 32632, always_xy=True)
    x, y = to_zone.transform(archives.LEFT, archives.TOP)
    return float(round(x / 10) * 10), float(round(y / 10) * 10)


class TestImpossibleValues:
    """FAULTS 24 and 25: NaN, infinities and saturation are masked; nothing clear is nodata."""

    def plan(self, folder, pixels, **contract):
        asset = replace(archives.raster(folder / "a.tif", pixels), **contract)
        items = Items((archives.item(0, {"blue": asset}),), Access(local=True))
        edge = 10.0 * len(pixels)
        grid = archives.square(edge, 16)
        return plan_composite(items, grid, CompositeSpec(("blue",), mask="none", outliers="none"))

    @pytest.mark.parametrize(
        ("dtype", "special", "contract"),
        [
            (np.float32, (np.nan, np.inf, -np.inf), {"nodata": None, "scale": 1.0}),
            (np.float64, (np.nan, -9999.0), {"nodata": -9999.0, "scale": 1.0}),
            (np.uint16, (0, 65535), {"nodata": 0.0}),
            (np.uint16, (0, 65535), {"nodata": 0.0, "scale": 1 / 3e4}),
        ],
    )
    def test_are_masked(self, tmp_path, dtype, special, contract):
        good = 1234 if np.issubdtype(dtype, np.integer) else 0.1234
        pixels = np.full((16, 16), good, dtype)
        pixels[0, : len(special)] = special
        found, _ = archives.in_process(self.plan(tmp_path, pixels, **contract))
        masked = np.zeros((16, 16), bool)
        masked[0, : len(special)] = True
        np.testing.assert_array_equal(found["blue"] == NODATA, masked)
        np.testing.assert_array_equal(found["count"], np.where(masked, 0, 1))
        value = int(np.rint(good * contract.get("scale", 1e-4) * 1e4))
        assert set(found["blue"][~masked]) == {value}

    def test_nothing_clear_is_nodata_with_count_0(self, tmp_path):
        items = archives.series(tmp_path / "s", 2, ("blue",), 32, block=16)
        clouds = archives.raster(tmp_path / "scl.tif", np.full((16, 16), 9, np.uint8), 20.0)
        items = replace(
            items,
            items=tuple(replace(i, assets={**i.assets, "scl": clouds}) for i in items),
        )
        grid = archives.square(320, 16)
        found, failures = archives.in_process(plan_composite(items, grid, archives.spec("blue")))
        assert failures == []
        assert set(found["blue"].ravel()) == {NODATA}
        assert {set(found[n].ravel()).pop() for n in ("count", "outliers", "lost")} == {0}


class TestNothingToDo:
    def test_an_empty_search_says_what_was_asked(self, world):
        """FAULTS 27."""
        request = archives.request(world.catalog)
        query = replace(request.query, datetime="2019-01-01/2019-02-01")
        with pytest.raises(NoItemsError, match="2019-01-01") as caught:
            replace(request, query=query).plan()
        assert caught.value.exit_code == 3

    def test_a_missing_band_is_named_with_its_item_and_what_exists(self, world):
        """FAULTS 28."""
        with pytest.raises(MissingBandError) as caught:
            archives.request(world.catalog, "blue", "nir").plan()
        message = str(caught.value)
        assert "'nir'" in message
        assert any(name in message for name in world.item_ids)
        assert "blue" in message
        assert "swir16" in message


FOREIGN = Access()
LOCAL = Access(local=True)
REFUSED = [
    # private and link-local hosts that somebody else's catalogue names
    ("http://169.254.169.254/latest/meta-data/x.tif", FOREIGN),
    ("https://127.0.0.1/x.tif", FOREIGN),
    ("http://localhost:8080/x.tif", FOREIGN),
    ("http://LOCALHOST/x.tif", FOREIGN),
    ("http://10.0.0.7/x.tif", FOREIGN),
    ("http://192.168.1.1/x.tif", FOREIGN),
    ("http://100.64.0.1/x.tif", FOREIGN),
    ("http://0.0.0.0/x.tif", FOREIGN),
    ("http://[::1]/x.tif", FOREIGN),
    ("http://[fe80::1]/x.tif", FOREIGN),
    ("http://[::ffff:127.0.0.1]/x.tif", FOREIGN),
    ("http://2130706433/x.tif", FOREIGN),
    ("http://0x7f.1/x.tif", FOREIGN),
    ("http://good.example@127.0.0.1/x.tif", FOREIGN),
    ("http:///x.tif", FOREIGN),
    ("http://169.254.169.254/x.tif", LOCAL),
    ("http://127.0.0.1/x.tif", replace(LOCAL, hosts=("localhost",))),
    # files of this machine, named from afar
    ("file:///etc/passwd", FOREIGN),
    ("file:/etc/passwd", FOREIGN),
    ("/etc/passwd", FOREIGN),
    ("data/x.tif", FOREIGN),
    # GDAL's own ways to other places
    ("/vsicurl/http://127.0.0.1/x.tif", FOREIGN),
    ("/vsicurl/http://127.0.0.1/x.tif", LOCAL),
    ("/vsicurl?url=http%3A%2F%2F127.0.0.1%2Fx.tif", LOCAL),
    ("/vsizip//data/a.zip/x.tif", LOCAL),
    ("/vsimem/x.tif", LOCAL),
    ("/vsistdin/", LOCAL),
    ("/data/../vsicurl/http://127.0.0.1/x.tif", LOCAL),
    ("file:///data/../vsicurl/http://127.0.0.1/x.tif", LOCAL),
    ("file:///%76sicurl/http://127.0.0.1/x.tif", LOCAL),
    ("vrt:///data/x.tif", LOCAL),
    ("zip+file:///data/a.zip!x.tif", LOCAL),
    ("GTIFF_DIR:2:/data/x.tif", FOREIGN),
    ("ftp://example.org/x.tif", FOREIGN),
    ("s3://bucket/x.tif?endpoint=127.0.0.1", FOREIGN),
    ("gs://bucket/x.tif?a=b", FOREIGN),
    # what could end a line or an argument
    ("https://example.org/x .tif", FOREIGN),
    ("https://example.org/x.tif\nHost: 127.0.0.1", FOREIGN),
    ("https://example.org/x.tif\r", FOREIGN),
    ("/data/x\n.tif", LOCAL),
    ("https://example.org/\tx.tif", FOREIGN),
]


class TestHostileAddress:
    """FAULTS 40: what a catalogue may make this machine open."""

    @pytest.mark.parametrize(("href", "access"), REFUSED)
    def test_is_refused(self, href, access):
        with pytest.raises(HrefError) as caught:
            reader.gdal_path(href, access)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("href", "access"),
        [
            ("https://example.org/x .tif?sig=secret", FOREIGN),
            ("https://example.org/x.tif?sig=secret\nHost: 127.0.0.1", FOREIGN),
            ("https://[example.org/x.tif?sig=secret", FOREIGN),
            ("http://name:secret@127.0.0.1/x.tif", FOREIGN),
            ("http://127.0.0.1/x.tif?sig=secret", FOREIGN),
            ("ftp://name:secret@example.org/x.tif?sig=secret", FOREIGN),
            ("s3://bucket/x.tif?sig=secret", FOREIGN),
            ("gs://bucket/x.tif?secret", FOREIGN),
            ("file:///data/x.tif?sig=secret", FOREIGN),
            ("/vsicurl/https://example.org/x.tif?sig=secret", FOREIGN),
            ("/vsicurl/https://example.org/x.tif?sig=secret", LOCAL),
        ],
    )
    def test_a_token_is_not_shown(self, href, access):
        with pytest.raises(HrefError) as caught:
            reader.gdal_path(href, access)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("href", "access", "path"),
        [
            ("https://8.8.8.8/a/x.tif?sig=1&b", FOREIGN, "/vsicurl/https://8.8.8.8/a/x.tif?sig=1&b"),
            ("http://10.0.0.7:9000/x.tif", Access(hosts=("10.0.0.7",)),
             "/vsicurl/http://10.0.0.7:9000/x.tif"),
            ("s3://bucket/a/x.tif", FOREIGN, "/vsis3/bucket/a/x.tif"),
            ("gs://bucket/a/x.tif", FOREIGN, "/vsigs/bucket/a/x.tif"),
            ("/data/x.tif", LOCAL, "/data/x.tif"),
            ("/data/../data/x.tif", LOCAL, "/data/x.tif"),
            ("file:///data/x.tif", LOCAL, "/data/x.tif"),
            ("file:///data/my%20scenes/x.tif", LOCAL, "/data/my scenes/x.tif"),
        ],
    )  # fmt: skip
    def test_others_are_opened(self, href, access, path):
        assert reader.gdal_path(href, access) == path

    @pytest.mark.parametrize("href", ["http://169.254.169.254/x.tif", "/vsicurl/http://a/x.tif"])
    def test_in_a_run_goes_to_the_ledger(self, world, href):
        items, victim = archives.items_with(world.catalog, "blue", href)
        grid = archives.request(world.catalog).plan().grid
        plan = plan_composite(items, grid, archives.spec(mask="none", max_lost=1.0))
        _, failures = archives.in_process(plan)
        assert {(f.item, f.band) for f in failures} == {(victim, "blue")}
        assert all(href in f.error or "169.254.169.254" in f.error for f in failures)

    def test_a_local_items_file_may_name_a_private_host_only_if_allowed(self, world, tmp_path):
        grid = archives.request(world.catalog).plan().grid
        with FileServer(world.path) as server:
            document = tmp_path / "items.json"
            document.write_text(json.dumps(items_collection(world.path, server.url)))
            spec = archives.spec(mask="none", max_lost=1.0)
            refused = plan_composite(search(str(document)), grid, spec)
            _, failures = archives.in_process(refused)
            assert len({f.item for f in failures}) == len(world.item_ids)
            assert "--allow-host 127.0.0.1" in failures[0].error
            assert server.requests == 0
            allowed = search(str(document), allow_hosts=["127.0.0.1"])
            found, failures = archives.in_process(plan_composite(allowed, grid, spec))
        assert failures == []
        expected, _ = archives.in_process(archives.request(world.catalog, mask="none").plan())
        np.testing.assert_array_equal(found["blue"], expected["blue"])

    def test_a_remote_catalogue_may_name_its_own_host_but_no_file(self, world, tmp_path):
        document = items_collection(world.path, str(world.path))
        served = tmp_path / "served"
        served.mkdir()
        (served / "items.json").write_text(json.dumps(document))
        assert Path(document["features"][0]["assets"]["blue"]["href"]).is_file()
        with FileServer(served) as server:
            items = search(f"{server.url}/items.json")
            assert items.access == Access(hosts=("127.0.0.1",))
            for asset in (a for i in items for a in i.assets.values()):
                with pytest.raises(HrefError, match="file:"):
                    reader.gdal_path(f"file://{world.path}/x.tif", items.access)
                path = reader.gdal_path(asset.href, items.access)
                assert path.startswith(f"/vsicurl/{server.url}/")
