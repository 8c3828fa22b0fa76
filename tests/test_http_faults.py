"""Archives over HTTP that misbehave: reads that end as if nothing had been, or in the ledger.

FAULTS 19-22, 40, 41, 44. What a run survives is compared with the undisturbed one.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate

import archives
import fault_server as faults
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from lcengine import jobs, reader
from lcengine.addresses import check_host
from lcengine.aoi import Aoi
from lcengine.cluster import connect
from lcengine.composite import plan_composite
from lcengine.composite.tile import compute_tile
from lcengine.errors import HrefError, InputError, ReadError, RunError
from lcengine.items import Access, Items
from lcengine.locate import Window
from lcengine.sensors import normalise
from lcengine.simulate import SimulationOptions, items_collection, simulate

BANDS = ("blue", "swir16")
HEADER = 3
"""Requests before the first block of a file: ours, then GDAL's HEAD and its read of the header."""

HOOK = """
import urllib.request

def sign(href):
    with urllib.request.urlopen({url!r} + "/token") as answer:
        return f"{{href}}?sig={{answer.read().decode()}}"
"""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=256, dates=2, seed=4, bands=BANDS)
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


@pytest.fixture(scope="module")
def undisturbed(world):
    """The plan of the archive's own files and what comes of it."""
    plan = archives.request(world.catalog, tile=256, max_lost=1.0).plan()
    arrays, failures = archives.in_process(plan)
    assert failures == []
    return plan, arrays


@pytest.fixture(scope="module")
def victim(undisturbed):
    """Id of the item that has most clear pixels."""
    plan, _ = undisturbed
    counts = {
        item.id: int(archives.in_process(_only(plan, item.id))[0]["count"].sum())
        for item in plan.items
    }
    return max(sorted(counts), key=lambda name: counts[name])


def _only(plan, item_id):
    return archives.without(plan, *(i.id for i in plan.items if i.id != item_id))


@pytest.fixture
def server(world):
    with faults.FaultServer(world.path) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Short pauses and timeouts."""
    monkeypatch.setattr(reader, "BACKOFF", 0.01)
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("GDAL_HTTP_CONNECTTIMEOUT", "1")
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")


@pytest.fixture
def hook(server, tmp_path, monkeypatch):
    """A signing hook that asks the server for a new token each time."""
    name = f"hook_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HOOK.format(url=server.url))
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:sign"


LOOPBACK = Access(hosts=("127.0.0.1",))


def over(world, server, undisturbed, access=LOOPBACK, **options):
    """The same plan over HTTP."""
    plan, _ = undisturbed
    features = items_collection(world.path, server.url)["features"]
    items = Items.of([normalise(feature) for feature in features], access)
    return plan_composite(items, plan.grid, plan.spec, **options)


@pytest.fixture
def remote(world, server, undisturbed):
    return over(world, server, undisturbed)


def assert_same(plan, undisturbed):
    found, failures = archives.in_process(plan)
    assert failures == []
    for name, pixels in undisturbed[1].items():
        np.testing.assert_array_equal(found[name], pixels, err_msg=name)


def assert_lost(plan, undisturbed, victim, band="blue"):
    """The observations of the victim are gone and all else stays; its rows of the ledger."""
    found, failures = archives.in_process(plan)
    assert {(f.item, f.band) for f in failures} == {(victim, band)}
    assert {f.href.rpartition("/")[2] for f in failures} == {f"{band}.tif"}
    expected, _ = archives.in_process(archives.without(undisturbed[0], victim))
    for name in (*BANDS, "count", "outliers"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["lost"].any()
    return failures


class TestBusy:
    """FAULTS 19: 429 and 5xx are retried with pauses, past GDAL's memory of failures."""

    @pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
    @pytest.mark.parametrize("after", [0, 1, 2, HEADER], ids=["first", "head", "header", "block"])
    def test_is_retried(self, server, remote, undisturbed, victim, code, after):
        server.fault(f"{victim}/blue", faults.status(code), times=3, after=after)
        assert_same(remote, undisturbed)
        assert len(server.seen(f"{victim}/blue")) > HEADER + 3

    @pytest.mark.parametrize("band", ["blue", "scl"])
    def test_for_ever_ends_in_the_ledger(self, server, remote, undisturbed, victim, band):
        server.fault(f"{victim}/{band}", faults.status(503))
        (row,) = assert_lost(remote, undisturbed, victim, band)
        assert row.attempts == reader.ATTEMPTS == len(server.seen(f"{victim}/{band}"))
        assert row.error.endswith(f"{band}.tif could not be read: HTTP response code: 503")

    def test_pauses_grow(self, server, remote, victim, monkeypatch):
        monkeypatch.setattr(reader, "BACKOFF", 0.1)
        server.fault(f"{victim}/blue", faults.status(503))
        archives.in_process(remote)
        moments = [seen.time for seen in server.seen(f"{victim}/blue")]
        pauses = np.diff(moments)
        assert len(pauses) == reader.ATTEMPTS - 1
        for number, pause in enumerate(pauses):
            assert pause >= 0.1 * 2**number * 0.5

    @pytest.mark.parametrize(
        "header", ["1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
    )
    def test_the_server_says_when_to_return(self, server, remote, undisturbed, victim, header):
        busy = faults.status(429, retry_after=header)
        server.fault(f"{victim}/blue", busy, times=1)
        assert_same(remote, undisturbed)
        first, second = server.seen(f"{victim}/blue")[:2]
        assert second.time - first.time >= 0.95

    def test_too_late_is_not_waited_for(self, server, remote, undisturbed, victim):
        server.fault(f"{victim}/blue", faults.status(503, retry_after="3600"))
        (row,) = assert_lost(remote, undisturbed, victim)
        assert row.attempts == 1

    def test_what_failed_in_a_block_is_not_tried_in_the_next(
        self, world, server, undisturbed, victim
    ):
        plan = over(world, server, undisturbed, block=64)
        tile = plan.grid.tile_at(0)
        assert len(list(plan.reads.blocks(tile))) > 4
        server.fault(f"{victim}/blue", faults.status(503))
        result = compute_tile(plan, 0)
        assert len(server.seen(f"{victim}/blue")) == reader.ATTEMPTS
        assert [(f.item, f.band) for f in result.failures] == [(victim, "blue")]
        alone = archives.in_process(_only(undisturbed[0], victim))[0]["count"] > 0
        lost = result.arrays["lost"] > 0
        assert (lost.sum(axis=1) > 0).sum() > 64, "in more than one row of blocks"
        assert not (lost & ~alone).any()


class TestDenied:
    """FAULTS 20: signed in the task, signed anew after a refusal; missing is missing."""

    @pytest.mark.parametrize("uses", [1, 2, HEADER], ids=["head", "header", "block"])
    def test_a_signature_that_expires_on_the_way(
        self, world, server, hook, undisturbed, victim, uses
    ):
        access = Access(hosts=("127.0.0.1",), signer=hook)
        plan = over(world, server, undisturbed, access)
        server.guard(1000)
        asked = f"{victim}/blue"

        def expired(handler, send_body):
            if len({seen.query for seen in server.seen(asked)}) > 1:
                handler.usual(send_body)
            else:
                faults.status(403)(handler, send_body)

        server.fault(asked, expired, after=uses)
        assert_same(plan, undisturbed)
        assert len({seen.query for seen in server.seen(asked)}) == 2, "signed once more"

    def test_every_token_lives_for_a_few_requests_only(self, world, server, hook, undisturbed):
        plan = over(world, server, undisturbed, Access(hosts=("127.0.0.1",), signer=hook))
        server.guard(HEADER + 2)
        assert_same(plan, undisturbed)
        assert all(seen.query for seen in server.seen(r"\.tif"))

    @pytest.mark.parametrize("signed", [True, False])
    def test_twice_denied_is_meant(self, world, server, hook, undisturbed, victim, signed):
        access = Access(hosts=("127.0.0.1",), signer=hook if signed else None)
        plan = over(world, server, undisturbed, access)
        server.fault(f"{victim}/blue", faults.status(403))
        (row,) = assert_lost(plan, undisturbed, victim)
        assert row.attempts == 2
        assert len({seen.query for seen in server.seen(f"{victim}/blue")}) == 1 + signed
        assert "403" in row.error

    def test_a_missing_file_is_asked_for_once(self, server, remote, undisturbed, victim):
        server.fault(f"{victim}/blue", faults.status(404))
        (row,) = assert_lost(remote, undisturbed, victim)
        assert row.attempts == 1 == len(server.seen(f"{victim}/blue"))
        assert row.error.endswith("blue.tif could not be read: HTTP response code: 404")

    @pytest.mark.parametrize("after", [1, 2, HEADER], ids=["head", "header", "block"])
    def test_missing_for_gdal_alone_is_looked_for_again(
        self, server, remote, undisturbed, victim, after
    ):
        """It remembers what was missing for the life of the process."""
        server.fault(f"{victim}/blue", faults.status(404), times=1, after=after)
        assert_same(remote, undisturbed)


class TestSilence:
    """FAULTS 21: whoever stalls is left; a second attempt may find them awake."""

    @pytest.mark.parametrize("after", [0, 1, 2, HEADER], ids=["first", "head", "header", "block"])
    @pytest.mark.parametrize(
        "fault", [faults.stall, faults.stall_in_body, faults.drip, faults.drip_headers]
    )
    def test_is_left(self, server, remote, undisturbed, victim, fault, after):
        server.fault(f"{victim}/blue", fault, times=1, after=after)
        assert_same(remote, undisturbed)

    @pytest.mark.parametrize("fault", [faults.stall, faults.drip, faults.drip_headers])
    def test_for_ever_ends_in_the_ledger(
        self, server, remote, undisturbed, victim, fault, monkeypatch
    ):
        monkeypatch.setattr(reader, "ATTEMPTS", 2)
        server.fault(f"{victim}/blue", fault)
        (row,) = assert_lost(remote, undisturbed, victim)
        assert row.attempts == 2

    @pytest.mark.parametrize("name", ["GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_LOW_SPEED_TIME"])
    def test_limits_that_the_environment_turns_off(self, remote, monkeypatch, name):
        """0 is GDAL's way to say so; a word is a slip that is named."""
        asset = remote.items[0].asset("blue")
        monkeypatch.setenv(name, "0")
        assert reader.header(asset, LOOPBACK).itemsize == 2
        reader.handles.close()
        monkeypatch.setenv(name, "soon")
        with pytest.raises(InputError, match=f"{name} is 'soon' in the environment"):
            reader.header(asset, LOOPBACK)

    def test_patience_ends(self, server, remote, undisturbed, victim, monkeypatch):
        monkeypatch.setattr(reader, "PATIENCE", 0.5)
        server.fault(f"{victim}/blue", faults.stall)
        (row,) = assert_lost(remote, undisturbed, victim)
        assert row.attempts == 1


class TestBroken:
    """FAULTS 22: what is no image is never taken for one."""

    @pytest.mark.parametrize("after", [0, 1, HEADER], ids=["first", "head", "block"])
    @pytest.mark.parametrize("fault", [faults.PAGE, faults.cut, faults.reset])
    def test_for_a_moment(self, server, remote, undisturbed, victim, fault, after):
        server.fault(f"{victim}/blue", fault, times=2, after=after)
        assert_same(remote, undisturbed)

    @pytest.mark.parametrize("fault", [faults.PAGE, faults.cut, faults.reset])
    @pytest.mark.parametrize("band", ["blue", "scl"])
    def test_for_ever(self, server, remote, undisturbed, victim, fault, band):
        server.fault(f"{victim}/{band}", fault)
        (row,) = assert_lost(remote, undisturbed, victim, band)
        assert row.attempts == reader.ATTEMPTS

    @pytest.mark.parametrize("times", [1, None])
    def test_flipped_bytes(self, world, server, remote, undisturbed, victim, times):
        """In the head of the deflate stream, where decoders notice each of them."""
        with rasterio.open(archives.asset_file(world.catalog, victim, "blue")) as dataset:
            start = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        fault = faults.flipped(*range(start, start + 16))
        server.fault(f"{victim}/blue", fault, times=times and HEADER + 1)
        if times:
            assert_same(remote, undisturbed)
        else:
            assert_lost(remote, undisturbed, victim)

    def test_errors_do_not_depend_on_luck(self, world, undisturbed, victim, monkeypatch):
        monkeypatch.setattr(reader, "ATTEMPTS", 1)
        for fault in (faults.stall, faults.stall_in_body, faults.reset, faults.cut):
            texts = set()
            for _ in range(2):
                with faults.FaultServer(world.path) as server:
                    server.fault(f"{victim}/blue", fault)
                    _, rows = archives.in_process(over(world, server, undisturbed))
                # one attempt: on a busy machine others may be late, too
                found = {(row.item, row.band): row.error for row in rows}
                texts.add(found[victim, "blue"].replace(server.url, ""))
            assert len(texts) == 1, texts
            assert "http" not in texts.pop()


class TestRedirects:
    """FAULTS 40: nobody's redirect leads into the user's own network."""

    @pytest.fixture
    def inner(self, world):
        """The private host: loopback under another name."""
        with faults.FaultServer(world.path) as running:
            running.name = running.url.replace("127.0.0.1", "localhost")
            yield running

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_to_a_private_host(self, server, inner, remote, undisturbed, victim, code):
        server.fault(f"{victim}/blue", faults.redirect(inner.name + "{path}", code))
        (row,) = assert_lost(remote, undisturbed, victim)
        assert "private host 'localhost'; allow it with --allow-host localhost" in row.error
        assert row.attempts == 1 == len(server.seen(f"{victim}/blue"))
        assert inner.log == []

    def test_to_an_allowed_one(self, world, server, inner, undisturbed, victim):
        plan = over(world, server, undisturbed, Access(hosts=("127.0.0.1", "localhost")))
        server.fault(f"{victim}/blue", faults.redirect(inner.name + "{path}"))
        assert_same(plan, undisturbed)
        assert len(server.seen(f"{victim}/blue")) == 1, "GDAL reads where the file is"
        assert inner.seen(f"{victim}/blue")

    def test_a_busy_host_behind_one_is_retried(self, world, server, inner, undisturbed, victim):
        plan = over(world, server, undisturbed, Access(hosts=("127.0.0.1", "localhost")))
        server.fault(f"{victim}/blue", faults.redirect(inner.name + "{path}"))
        inner.fault(f"{victim}/blue", faults.status(503), times=2, after=1)
        assert_same(plan, undisturbed)

    def test_relative_and_in_circles(self, server, remote, undisturbed, victim):
        server.fault(f"{victim}/blue", faults.redirect("./../swir16/../" + victim + "/blue.tif"))
        (row,) = assert_lost(remote, undisturbed, victim)
        assert "more than 5 redirects" in row.error

    @pytest.mark.parametrize(
        "location",
        ["file:///etc/passwd", "ftp://127.0.0.1/x.tif", "gopher://127.0.0.1/", "s3://b/"],
    )
    def test_to_what_is_no_website(self, server, remote, undisturbed, victim, location):
        server.fault(f"{victim}/blue", faults.redirect(location))
        (row,) = assert_lost(remote, undisturbed, victim)
        assert "expected an http address" in row.error

    def test_a_name_of_a_private_address(self):
        """What counts is where a name leads, not how it is spelled."""
        with pytest.raises(HrefError, match="private host 'localhost'"):
            check_host("localhost", ())
        own = socket.gethostname()
        try:
            private = own != "localhost" and bool(socket.getaddrinfo(own, None))
        except OSError:
            private = False
        if private:
            with pytest.raises(HrefError, match="private host"):
                check_host(own, ())


class TestBomb:
    """FAULTS 41: refused before GDAL decodes a block."""

    @pytest.mark.parametrize(
        "shape",
        [
            {"width": 2**17, "height": 2**17, "blockxsize": 2**14, "blockysize": 2**14},
            {"width": 2**20, "height": 2**20},
            {"count": 300, "width": 4096, "height": 4096, "interleave": "pixel"},
        ],
        ids=["block", "raster", "bands"],
    )
    def test_is_refused_before_it_goes_off(self, tmp_path, shape):
        options = {"count": 1, "blockxsize": 1024, "blockysize": 1024, **shape}
        path = tmp_path / "bomb.tif"
        transform = rasterio.transform.from_origin(archives.LEFT, archives.TOP, 10, 10)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype="uint16",
            crs="EPSG:32631",
            transform=transform,
            tiled=True,
            sparse_ok=True,
            compress="deflate",
            bigtiff="yes",
            **options,
        ):
            pass
        asset = archives.raster(tmp_path / "small.tif", np.ones((64, 64), np.uint16))
        asset = replace(asset, href=str(path), shape=(options["height"], options["width"]))
        with pytest.raises(ReadError, match=r"bomb\.tif has .* leave the item out"):
            reader.read_raw(asset, Access(local=True), Window(0, 0, 8, 8))
        with pytest.raises(ReadError, match=r"bomb\.tif has .* leave the item out"):
            reader.header(asset, Access(local=True))


class TestCatalogueChanges:
    """FAULTS 18: an interrupted run goes on with its frozen plan."""

    @pytest.mark.slow
    def test_a_resumed_run_does_not_search_again(self, world, server, victim, tmp_path):
        with connect("local:workers=1,threads=2") as client:
            whole = archives.request(f"{server.url}/catalog.json", tile=128, max_lost=0.0)
            local = archives.request(world.catalog, tile=128).plan()
            request = replace(whole, aoi=Aoi.from_bbox(local.grid.lonlat_bounds()))

            def run(output):
                return jobs.run(request.plan, output, client=client, request=request.to_json())

            server.fault(f"{victim}/scl", faults.status(404))
            with pytest.raises(RunError, match="could not be read"):
                run(tmp_path / "out.zarr")
            server.rules.clear()
            # by now the catalogue is another one: none at all
            server.fault(r"\.json$", faults.status(404))
            before = len(server.seen(r"\.json$"))
            product = run(tmp_path / "out.zarr")
            assert len(server.seen(r"\.json$")) == before
            server.rules.clear()
            undisturbed = run(tmp_path / "good.zarr")
        assert archives.tree(product) == archives.tree(undisturbed)


class TestCounting:
    def test_bytes_that_were_decoded(self, tmp_path):
        items = archives.series(tmp_path / "s", 3, ("blue", "swir16"), 64, block=64)
        plan = plan_composite(items, archives.square(640, 64), archives.spec(max_lost=1.0))
        each = {"blue": 64 * 64 * 2, "swir16": 32 * 32 * 2, "scl": 32 * 32}
        assert compute_tile(plan, 0).bytes_read == 3 * sum(each.values())
        (tmp_path / "s" / "swir16-1.tif").unlink()
        assert compute_tile(plan, 0).bytes_read == 3 * sum(each.values()) - each["swir16"]


class TestSecrets:
    """FAULTS 44: what a signature is good for, nobody reads in a log."""

    def test_in_the_logs_of_this_process(
        self, world, server, hook, undisturbed, victim, caplog, monkeypatch
    ):
        monkeypatch.setattr(reader, "ATTEMPTS", 2)
        plan = over(world, server, undisturbed, Access(hosts=("127.0.0.1",), signer=hook))
        server.guard(1000)
        for number, fault in enumerate((faults.PAGE, faults.cut, faults.status(503))):
            server.fault(f"{world.item_ids[number]}/blue", fault)
        server.fault(f"{world.item_ids[3]}/scl", faults.status(503), after=1)
        with caplog.at_level(logging.DEBUG), rasterio.Env(CPL_DEBUG=True):
            _, failures = archives.in_process(plan)
        assert len(failures) == 4
        assert len(server.tokens) > 4
        texts = {}
        for record in caplog.records:
            texts[record.name] = texts.get(record.name, "") + record.getMessage() + "\n"
        assert "s3cr3t" in texts.pop("lcengine.simulate.serve"), "the server's own notes"
        assert "blue.tif?sig=***" in texts["rasterio._env"]
        assert "blue.tif?sig=***" in texts["urllib3.connectionpool"]
        assert [name for name, text in texts.items() if "s3cr3t" in text] == []
        assert "s3cr3t" not in str(failures)

    @pytest.mark.slow
    @pytest.mark.timeout(200)
    def test_in_anything_that_a_run_leaves(self, world, server, hook, victim, tmp_path):
        """Products, plans, markers, ledger, messages: of a run that fails and one that ends."""
        document = items_collection(world.path, server.url)
        (tmp_path / "items.json").write_text(json.dumps(document))
        server.guard(1000)
        command = ["-m", "lcengine", "composite", "items.json", "-c", archives.COLLECTION]
        command += ["--bands", ",".join(BANDS), "--mask", "scl", "--outliers", "none"]
        command += ["--signer", hook, "--allow-host", "127.0.0.1", "-o", "out.zarr"]
        heard = []
        environment = {
            **os.environ,
            "CPL_DEBUG": "ON",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        denied, page = faults.status(403), faults.PAGE
        for fault, most, code in ((denied, ["0", "--debug"], 1), (page, ["1"], 0)):
            server.rules.clear()
            server.fault(f"{victim}/blue", fault)
            server.fault(f"{victim}/scl", faults.status(503), times=2)
            done = subprocess.run(
                [sys.executable, *command, "--restart", "--max-lost", *most],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == code, done.stderr
            heard += [done.stdout, done.stderr]
        assert not [text for text in heard if "s3cr3t" in text]
        ledger = pq.read_table(tmp_path / "out.zarr" / "failures.parquet").to_pylist()
        assert {(row["item"], row["band"]) for row in ledger} == {(victim, "blue")}
        assert "s3cr3t" not in str(ledger)
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(left) > 20
        assert [path for path in left if b"s3cr3t" in path.read_bytes()] == []
