"""Search in STAC APIs, static catalogues and items files (FAULTS 15-17, 21, 27, 40, 44)."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import replace
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.addresses import redact, scrub
from lcengine.catalog import Query, api, fetch, parse_interval, search, search_query
from lcengine.catalog.query import holds, intersects, item_bbox
from lcengine.errors import (
    AoiError,
    CatalogError,
    ContractError,
    HrefError,
    InputError,
    NoItemsError,
)
from lcengine.items import Access, Items, observations

S2 = "sentinel-2-l2a"
START = dt.datetime(2018, 4, 1, 10, 50, tzinfo=dt.UTC)
BOX = (3.0, 50.0, 4.0, 51.0)
UTC = partial(dt.datetime, tzinfo=dt.UTC)


def make_item(n=0, *, id=None, collection=S2, bbox=BOX, href="./red.tif", **properties):
    """Item number n: five days after the one before; cloud cover n %."""
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    when = START + dt.timedelta(days=5 * n)
    raster = {
        "proj:shape": [64, 64],
        "proj:transform": [10, 0, 500000, 0, -10, 5700000],
        "raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": 0}],
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": id or f"S2_{n:03}",
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(bbox),
        "properties": {
            "datetime": when.isoformat().replace("+00:00", "Z"),
            "platform": "sentinel-2a",
            "grid:code": "MGRS-31UDS",
            "proj:epsg": 32631,
            "eo:cloud_cover": float(n),
            **properties,
        },
        "links": [],
        "assets": {"red": {"href": href, **raster}},
    }


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def collection_file(items, **extra):
    return {"type": "FeatureCollection", "features": items, **extra}


def static_catalogue(root, collections):
    """A self-contained catalogue: {collection id: items}; returns its root document."""
    children = []
    for name, items in collections.items():
        links = [{"rel": "root", "href": "../catalog.json"}]
        for stac in items:
            write_json(root / name / stac["id"] / f"{stac['id']}.json", stac)
            links.append({"rel": "item", "href": f"./{stac['id']}/{stac['id']}.json"})
        document = {"type": "Collection", "id": name, "links": links}
        write_json(root / name / "collection.json", document)
        children.append({"rel": "child", "href": f"./{name}/collection.json"})
    children.append({"rel": "root", "href": "./catalog.json"})
    return write_json(root / "catalog.json", {"type": "Catalog", "id": "c", "links": children})


def ids(items):
    return [item.id for item in items]


# ---------------------------------------------------------------------------------------- servers


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.005)


@pytest.fixture
def start_server():
    """Serve a handler class on loopback; gives the address."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve_folder(start_server):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    return lambda folder: start_server(partial(Quiet, directory=str(folder)))


class FakeApi:
    """A STAC API that misbehaves on demand.

    `faults`: for the n-th request of a path, a status, (status, headers), or a function that
    writes to the handler and returns None.
    """

    def __init__(self, items, page=3, conforms=(), matched=None, methods=("GET", "POST")):
        self.items, self.page, self.matched, self.methods = items, page, matched, methods
        self.conforms = ["https://api.stacspec.org/v1.0.0/item-search", *conforms]
        self.faults = {}
        self.requests = []
        self.next_link = None
        self.address = ""

    def reply(self, handler, method):
        size = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(size) or "{}")
        parts = urlsplit(handler.path)
        if method == "GET":
            body |= {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.requests.append((method, parts.path, body))
        count = sum(path == parts.path for _, path, _ in self.requests) - 1
        fault = self.faults.get(parts.path, {}).get(count)
        if callable(fault):
            fault(handler)
        elif fault is not None:
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            send(handler, {"detail": f"fault\n{status}"}, status, headers)
        elif parts.path == "/":
            send(handler, self.landing_page())
        elif parts.path == "/collections":
            names = sorted({i["collection"] for i in self.items})
            send(handler, {"collections": [{"id": n} for n in names], "links": []})
        else:
            send(handler, self.results(method, body))

    def landing_page(self):
        links = [
            {"rel": "self", "href": self.address + "/"},
            {"rel": "root", "href": self.address + "/"},
            {"rel": "data", "href": self.address + "/collections", "type": "application/json"},
        ]
        links += [
            {
                "rel": "search",
                "href": self.address + "/search",
                "type": "application/geo+json",
                "method": method,
            }
            for method in self.methods
        ]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "fake",
            "description": "fake",
            "conformsTo": self.conforms,
            "links": links,
        }

    def results(self, method, body):
        start = int(body.get("token", 0))
        page = collection_file(self.items[start : start + self.page], links=[])
        if self.matched is not None:
            page |= {"numberMatched": self.matched}
        if start + self.page < len(self.items):
            link = {"rel": "next", "href": f"{self.address}/search", "method": method}
            following = body | {"token": start + self.page}
            if method == "POST":
                link |= {"body": following}
            else:
                link["href"] += "?" + "&".join(f"{k}={v}" for k, v in following.items())
            page["links"].append(self.next_link or link)
        return page

    @property
    def searches(self):
        return [body for _, path, body in self.requests if path == "/search"]


def send(handler, value, status=200, headers=None):
    data = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for key, text in (headers or {}).items():
        handler.send_header(key, text)
    handler.end_headers()
    handler.wfile.write(data)


@pytest.fixture
def fake_api(start_server):
    def make(items, **options):
        fake = FakeApi(items, **options)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                fake.reply(self, "GET")

            def do_POST(self):
                fake.reply(self, "POST")

            def log_message(self, *args):
                pass

        fake.address = start_server(Handler)
        return fake

    return make


@pytest.fixture
def eight(fake_api):
    """Eight items in pages of three."""
    return fake_api([make_item(n) for n in range(8)])


# ----------------------------------------------------------------------------------- rustac serve


@pytest.fixture(scope="module")
def rustac(tmp_path_factory):
    """A real STAC API: 25 items, every fifth of them elsewhere."""
    binary = Path(sys.executable).parent / "rustac"
    if not binary.exists():
        pytest.skip("rustac is not installed: pip install 'lcengine[serve]'")
    far = (10.0, 40.0, 11.0, 41.0)
    items = [
        make_item(n, bbox=far if n % 5 == 0 else BOX, href=f"https://example.com/{n}.tif")
        for n in range(25)
    ]
    path = write_json(tmp_path_factory.mktemp("rustac") / "items.json", collection_file(items))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [binary, "serve", "--create-collections", "--addr", address, path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{address}/", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(10)


def test_rustac_every_item_over_several_pages(rustac, monkeypatch):
    monkeypatch.setattr(api, "PAGE", 4)
    items = search(rustac, S2)
    assert ids(items) == [f"S2_{n:03}" for n in range(25)]
    assert items.access == Access(local=False, hosts=("127.0.0.1",))
    assert items[3].asset("red").href == "https://example.com/3.tif"


def test_rustac_filters(rustac, monkeypatch):
    monkeypatch.setattr(api, "PAGE", 4)
    items = search(rustac, bbox=(3.2, 50.2, 3.4, 50.4), datetime="2018-04", max_cloud=3)
    assert ids(items) == ["S2_001", "S2_002", "S2_003"]
    elsewhere = search(rustac, S2, bbox=(10.5, 40.5, 12, 42), where=["eo:cloud_cover>9"])
    assert ids(elsewhere) == ["S2_010", "S2_015", "S2_020"]


def test_rustac_empty_and_unknown_collection(rustac):
    with pytest.raises(NoItemsError, match=r"no items in http://127.*bbox 20,0,21,1"):
        search(rustac, S2, bbox=(20, 0, 21, 1))
    with pytest.raises(NoItemsError, match="there is no sentinel-3: it has sentinel-2-l2a"):
        search(rustac, "sentinel-3")


def test_rustac_gives_the_same_items_as_the_file(rustac, tmp_path):
    over_http = search(rustac, S2)
    over_http.save(tmp_path / "items.json")
    assert search(tmp_path / "items.json") == over_http


# ------------------------------------------------------------------------------- misbehaving APIs


def test_api_pages_to_the_end_and_posts_what_it_was_asked(eight):
    items = search(eight.address, S2, bbox=BOX, datetime="2018-04-01/2018-04-30")
    assert ids(items) == [f"S2_{n:03}" for n in range(6)]
    first = eight.searches[0]
    assert first["collections"] == [S2]
    assert first["bbox"] == list(BOX)
    assert first["datetime"] == "2018-04-01T00:00:00Z/2018-05-01T00:00:00Z"
    assert "query" not in first
    assert "filter" not in first
    assert [body.get("token", 0) for body in eight.searches] == [0, 3, 6]
    assert {m for m, path, _ in eight.requests if path == "/search"} == {"POST"}


def test_api_with_get_only(fake_api):
    fake = fake_api([make_item(n) for n in range(8)], methods=("GET",))
    assert len(search(fake.address, S2, max_cloud=6)) == 7
    assert {m for m, _, _ in fake.requests} == {"GET"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_errors_are_retried(eight, status):
    eight.faults = {"/": {0: status}, "/search": {0: status, 1: status, 3: status}}
    assert len(search(eight.address, S2)) == 8


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_respected(eight, form):
    then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2.5)  # a date knows whole seconds only
    header = "1" if form == "seconds" else format_datetime(then, usegmt=True)
    eight.faults = {"/search": {0: (429, {"Retry-After": header})}}
    begin = time.monotonic()
    assert len(search(eight.address, S2)) == 8
    assert time.monotonic() - begin >= 1


def test_retry_after_beyond_the_deadline_gives_up_at_once(eight):
    eight.faults = {"/search": {1: (503, {"Retry-After": "3600"})}}
    with pytest.raises(CatalogError, match=r"within 20 s \(3 items had come; it asks to wait"):
        search(eight.address, S2, timeout=20)


@pytest.mark.parametrize("status", [503, 404])
def test_a_page_that_fails_for_good_leaves_no_partial_list(eight, status):
    eight.faults = {"/search": dict.fromkeys(range(1, 50), status)}
    with pytest.raises(CatalogError) as caught:
        search(eight.address, S2)
    text = str(caught.value)
    assert f"{eight.address}: page 2 is not usable after 3 items" in text
    assert f"answered {status}" in text
    assert "\n" not in text
    assert len(eight.searches) == 1 + (fetch.RETRIES + 1 if status == 503 else 1)


def test_connection_that_breaks_inside_an_answer_is_retried(eight):
    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b'{"type": ')
        handler.close_connection = True

    eight.faults = {"/search": {1: cut}}
    assert len(search(eight.address, S2)) == 8
    assert len(eight.searches) == 4


def stall(handler, done):
    done.wait(30)


def trickle(handler, done):
    """A byte now and then: no single read ever times out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not done.wait(0.02):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fault", [stall, trickle])
def test_total_deadline_holds_over_pages_retries_and_slow_answers(eight, fault):
    done = threading.Event()  # the server would go on for much longer than the test may take
    eight.faults = {"/search": dict.fromkeys(range(1, 50), partial(fault, done=done))}
    try:
        with pytest.raises(CatalogError, match=r"within 0\.6 s \(3 items had come\)"):
            search(eight.address, S2, timeout=0.6)
        assert len(eight.searches) == 2
    finally:
        done.set()


def test_next_link_that_leads_back_is_found(eight):
    eight.next_link = {
        "rel": "next",
        "href": f"{eight.address}/search",
        "method": "POST",
        "body": {"token": 3},
    }
    with pytest.raises(CatalogError, match=r"after 6 items: .*earlier page"):
        search(eight.address, S2)


@pytest.mark.timeout(30)
def test_empty_pages_that_lead_to_themselves_are_found(eight):
    link = {"rel": "next", "href": f"{eight.address}/search?token=8"}
    eight.results = lambda method, body: collection_file([], links=[link])
    with pytest.raises(CatalogError, match=r"page 2 .*after 0 items: .*earlier page"):
        search(eight.address, S2, timeout=20)


def test_pages_that_repeat_their_items_are_found(eight):
    count = iter(range(100))
    eight.results = lambda method, body: collection_file(
        eight.items,
        links=[{"rel": "next", "href": f"{eight.address}/search?page={next(count)}"}],
    )
    with pytest.raises(CatalogError, match=r"page 2 .*repeats items"):
        search(eight.address, S2)


def test_an_empty_page_is_not_the_last_one(eight):
    usual = eight.results

    def results(method, body):
        page = usual(method, body)
        return page | {"features": [] if body.get("token") == 3 else page["features"]}

    eight.results = results
    assert len(search(eight.address, S2)) == 5
    eight.matched = 8
    with pytest.raises(CatalogError, match="the server says that 8 items match"):
        search(eight.address, S2)


def test_number_matched_that_agrees_is_fine(fake_api):
    fake = fake_api([make_item(n) for n in range(8)], matched=8)
    assert len(search(fake.address, S2)) == 8


@pytest.mark.parametrize("missing", ["assets", "properties", "type"])
def test_api_item_without_its_parts_is_named(fake_api, missing):
    broken = make_item(1)
    del broken[missing]
    with pytest.raises(CatalogError, match=r"item S2_001 has no valid|is no STAC item"):
        search(fake_api([make_item(0), broken]).address, S2)


@pytest.mark.parametrize(
    "value", [[], {"type": "FeatureCollection"}, {"features": "none"}, {"features": [1]}]
)
def test_answer_that_is_no_listing_is_refused(eight, value):
    eight.faults = {"/search": {0: lambda handler: send(handler, value)}}
    with pytest.raises(CatalogError, match=r"page 1 .*not a STAC listing"):
        search(eight.address, S2)


def test_landing_page_that_is_not_valid_is_refused(eight):
    page = eight.landing_page()
    del page["id"]
    eight.landing_page = lambda: page
    with pytest.raises(CatalogError, match="is not the root of a STAC API"):
        search(eight.address, S2)


def test_landing_page_with_relative_links_and_no_conformance(eight):
    page = eight.landing_page()
    page["links"] = [
        {"rel": "search", "href": "./search", "type": "application/geo+json", "method": "POST"},
        {"rel": "data", "href": "./collections"},
    ]
    del page["conformsTo"]
    eight.landing_page = lambda: page
    assert len(search(eight.address + "/")) == 8


def test_html_instead_of_json_is_refused(eight):
    def html(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "6")
        handler.end_headers()
        handler.wfile.write(b"<html>")

    eight.faults = {"/": {0: html}}
    with pytest.raises(CatalogError, match="is not JSON"):
        search(eight.address, S2)


def test_query_extension_gets_the_conditions_it_cannot_misread(fake_api):
    items = [
        make_item(n, **{"s2:mgrs_tile": "31UDS", "s2:sequence": "0", "orbit": n}) for n in range(6)
    ]
    fake = fake_api(items, conforms=["https://api.stacspec.org/v1.0.0/item-search#query"])
    where = ["s2:mgrs_tile=31UDS", "s2:sequence=0", "orbit>=1", "platform!=sentinel-2b"]
    found = search(fake.address, S2, max_cloud=3, where=where)
    # the fake server filters nothing: all filters are applied here as well
    assert ids(found) == ["S2_001", "S2_002", "S2_003"]
    assert fake.searches[0]["query"] == {
        "eo:cloud_cover": {"lte": 3},
        "s2:mgrs_tile": {"eq": "31UDS"},
        "orbit": {"gte": 1},
        "platform": {"neq": "sentinel-2b"},
    }


def test_cql2_filter_where_only_that_is_offered(fake_api):
    fake = fake_api(
        [make_item(n) for n in range(6)],
        conforms=["https://api.stacspec.org/v1.0.0/item-search#filter"],
    )
    assert len(search(fake.address, S2, max_cloud=3, where=["platform!=x"])) == 4
    body = fake.searches[0]
    assert body["filter-lang"] == "cql2-json"
    assert body["filter"] == {
        "op": "and",
        "args": [
            {"op": "<>", "args": [{"property": "platform"}, "x"]},
            {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 3.0]},
        ],
    }


def test_api_with_several_collections_lists_them(fake_api):
    fake = fake_api([make_item(0), make_item(1, collection="aster-l1t")])
    with pytest.raises(InputError, match=r"2 collections: sentinel-2-l2a, aster-l1t; .*-c"):
        search(fake.address)
    assert ids(search(fake.address, S2)) == ["S2_000"]
    with pytest.raises(InputError, match="aster-l1t', which no sensor reads"):
        search(fake.address, "aster-l1t")


def test_relative_hrefs_of_an_api_stay_on_the_web(fake_api):
    item = make_item(0, href="/etc/red.tif")
    inner = make_item(1, href="./red.tif")
    inner["links"] = [{"rel": "self", "href": "https://example.com/items/1/1.json"}]
    fake = fake_api([item, inner])
    first, second = search(fake.address, S2)
    assert first.asset("red").href == f"{fake.address}/etc/red.tif"
    assert second.asset("red").href == "https://example.com/items/1/red.tif"


@pytest.mark.parametrize("where", ["next", "redirect"])
def test_private_hosts_are_not_requested_for_somebody_else(fake_api, monkeypatch, where):
    items = [make_item(n) for n in range(8)]
    inner, fake = fake_api(items), fake_api(items)
    # loopback under another name plays the private host
    target = inner.address.replace("127.0.0.1", "localhost") + "/search?token=3"
    if where == "next":
        fake.next_link = {"rel": "next", "href": target}
    else:
        fake.faults = {"/search": dict.fromkeys(range(9), (307, {"Location": target}))}
    with pytest.raises(HrefError, match="private host 'localhost'; allow it with --allow-host"):
        search(fake.address, S2)
    assert not inner.requests
    search(fake.address, S2, allow_hosts=["localhost"])
    assert inner.requests


def test_nobody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(CatalogError, match=rf"{address}.* failed 6 times, at last: Connection"):
        search(address, S2)


def test_secrets_of_the_address_appear_nowhere(fake_api, tmp_path):
    fake = fake_api([make_item(n) for n in range(8)])
    secret = fake.address.replace("//", "//user:pass@") + "/?token=abc123&x"
    items = search(secret, S2)
    items.save(tmp_path / "items.json")
    texts = [(tmp_path / "items.json").read_text(), repr(items)]
    query = Query(secret, (S2,), bbox=(20.0, 0.0, 21.0, 1.0))
    texts += [repr(query), str(query), json.dumps(query.to_json())]
    with pytest.raises(NoItemsError) as empty:
        search_query(query)
    fake.faults = {"/": dict.fromkeys(range(99), 503)}
    with pytest.raises(CatalogError) as failed:
        search(secret, S2)
    unreachable = "http://user:pass@127.0.0.1:9/?token=abc123"
    with pytest.raises(CatalogError) as refused:
        search(unreachable, S2)
    texts += [str(error.value) for error in (empty, failed, refused)]
    for text in texts:
        assert not re.search("user|pass|abc123", text), text
    assert refused.value.__cause__ is None


# ------------------------------------------------------------------------------ static catalogues


@pytest.fixture
def folder(tmp_path):
    """A catalogue of four Sentinel-2 items and one of a collection nobody reads."""
    root = tmp_path / "my catalogue"
    items = [make_item(n) for n in range(4)]
    static_catalogue(root, {S2: items, "aster-l1t": [make_item(9, collection="x")]})
    return root


def test_static_catalogue_local(folder):
    items = search(folder / "catalog.json", S2)
    assert ids(items) == ["S2_000", "S2_001", "S2_002", "S2_003"]
    assert items.access == Access(local=True)
    assert items[0].asset("red").href == str(folder / S2 / "S2_000" / "red.tif")
    assert search(folder, S2) == items
    assert search(f"file://{folder}/catalog.json", S2) == items
    assert search(folder / S2) == items  # collection.json
    assert search(folder, S2, datetime="2018-04-06/..", max_cloud=2) == items[1:3]


def test_a_time_as_the_end_is_excluded_and_a_date_is_not(folder):
    assert ids(search(folder, S2, datetime="../2018-04-06")) == ["S2_000", "S2_001"]
    assert ids(search(folder, S2, datetime="../2018-04-06T10:50:00Z")) == ["S2_000"]
    assert ids(search(folder, S2, datetime="2018-04-16T10:50:00Z/..")) == ["S2_003"]


def test_static_catalogue_by_a_relative_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    items = search("my catalogue/catalog.json", S2, allow_hosts=["files.local"])
    assert items[0].asset("red").href == str(folder / S2 / "S2_000" / "red.tif")
    assert items.access.hosts == ("files.local",)


def test_static_catalogue_over_http(folder, serve_folder):
    address = serve_folder(folder)
    items = search(f"{address}/catalog.json", S2)
    assert ids(items) == ["S2_000", "S2_001", "S2_002", "S2_003"]
    assert items.access == Access(local=False, hosts=("127.0.0.1",))
    assert items[0].asset("red").href == f"{address}/{S2}/S2_000/red.tif"


def test_several_collections_have_to_be_chosen(folder, serve_folder):
    for source in (folder, f"{serve_folder(folder)}/catalog.json"):
        with pytest.raises(InputError, match="sentinel-2-l2a, aster-l1t; choose with -c"):
            search(source)


def test_unwanted_collections_are_not_entered(folder):
    (folder / "aster-l1t" / "S2_009" / "S2_009.json").unlink()
    assert len(search(folder, S2)) == 4


def test_nested_catalogues_and_cycles(tmp_path):
    up = {"rel": "child", "href": "../catalog.json"}
    year = {
        "type": "Catalog",
        "id": "2018",
        "links": [{"rel": "item", "href": "a.json"}, {"rel": "item", "href": "a.json"}, up],
    }
    orphan = make_item(0)
    del orphan["collection"]  # said by the collection it hangs under
    write_json(tmp_path / "2018" / "a.json", orphan)
    write_json(tmp_path / "2018" / "catalog.json", year)
    links = [{"rel": "child", "href": "2018/catalog.json"}]
    write_json(tmp_path / "catalog.json", {"type": "Collection", "id": S2, "links": links})
    (item,) = search(tmp_path)
    assert item.collection == S2


@pytest.mark.parametrize("remote", [False, True])
def test_missing_item_leaves_no_partial_list(folder, serve_folder, remote):
    (folder / S2 / "S2_002" / "S2_002.json").unlink()
    source = f"{serve_folder(folder)}/catalog.json" if remote else folder
    with pytest.raises(CatalogError, match=r"S2_002/S2_002\.json"):
        search(source, S2)


@pytest.mark.parametrize("href", ["file:///etc/passwd", "s3://bucket/catalog.json"])
def test_links_of_a_web_catalogue_stay_on_the_web(tmp_path, serve_folder, href):
    links = [{"rel": "item", "href": href}]
    write_json(tmp_path / "catalog.json", {"type": "Catalog", "id": "c", "links": links})
    with pytest.raises(CatalogError, match=f"links to {href}, which cannot be followed"):
        search(f"{serve_folder(tmp_path)}/catalog.json")


def test_web_item_of_a_local_catalogue_names_no_local_file(tmp_path, serve_folder):
    web = tmp_path / "web"
    write_json(web / "a.json", make_item(0, href="file:///etc/passwd"))
    links = [{"rel": "item", "href": f"{serve_folder(web)}/a.json"}]
    write_json(tmp_path / "catalog.json", {"type": "Catalog", "id": "c", "links": links})
    with pytest.raises(HrefError, match="private host"):
        search(tmp_path)
    with pytest.raises(HrefError, match="names the local file"):
        search(tmp_path, allow_hosts=["127.0.0.1"])


def test_collection_of_an_api_is_no_catalogue(tmp_path):
    links = [{"rel": "items", "href": "https://example.com/collections/x/items"}]
    write_json(tmp_path / "x.json", {"type": "Collection", "id": "x", "links": links})
    with pytest.raises(CatalogError, match=r"one collection of an API; .*-c x"):
        search(tmp_path / "x.json")


def test_flanders(shared_data):
    source = shared_data / "flanders-2018" / "catalog.json"
    assert len(search(source, S2)) == 118
    season = search(source, S2, datetime="2018-04-01/2018-09-30", bbox=(3.02, 50.814, 3.5, 51))
    assert len(season) == 58
    assert {i.asset("red").offset for i in season} == {0.0}
    assert Path(season[0].asset("red").href).is_file()


def test_real_items_of_two_catalogues_in_one_file(shared_data, tmp_path):
    stac = [
        json.loads(path.read_text())
        for path in sorted((shared_data / "stac-items").glob("earth-search*sentinel-2*"))
    ]
    path = write_json(tmp_path / "pair.json", stac)
    (item,) = search(path, [S2, "sentinel-2-c1-l2a"])
    assert item.tile == "24MUA"


# ------------------------------------------------------------------------------------ items files


@pytest.fixture(params=["FeatureCollection", "list", "NDJSON", "text sequence", "BOM"])
def items_file(request, tmp_path):
    items = [make_item(n) for n in range(3)]
    lines = [json.dumps(item) for item in items]
    text = {
        "FeatureCollection": json.dumps(collection_file(items), indent=1),
        "list": json.dumps(items),
        "NDJSON": "\n".join([lines[0], "", *lines[1:]]) + "\r\n",
        "text sequence": "".join(f"\x1e{line}\n" for line in lines),
        "BOM": "\ufeff" + json.dumps(collection_file(items)),
    }[request.param]
    path = tmp_path / "items"  # told by its content, not by its suffix
    path.write_text(text)
    return path


def test_items_file_of_any_form(items_file, serve_folder):
    items = search(items_file)
    assert ids(items) == ["S2_000", "S2_001", "S2_002"]
    assert items.access == Access(local=True)
    assert items[0].asset("red").href == str(items_file.parent / "red.tif")
    address = serve_folder(items_file.parent)
    over_http = search(f"{address}/items")
    assert over_http.access == Access(local=False, hosts=("127.0.0.1",))
    assert over_http[0].asset("red").href == f"{address}/red.tif"


def test_single_feature_file(tmp_path):
    assert ids(search(write_json(tmp_path / "one.json", make_item(0)))) == ["S2_000"]


def test_addresses_of_a_local_file(tmp_path):
    hrefs = {
        "/data/a b.tif": "/data/a b.tif",
        "file:///data/a%20b.tif": "/data/a b.tif",
        "../c.tif": str(tmp_path.parent / "c.tif"),
        "s3://bucket/d.tif": "s3://bucket/d.tif",
        "https://example.com/e.tif?x=1": "https://example.com/e.tif?x=1",
    }
    items = [make_item(n, href=href) for n, href in enumerate(hrefs)]
    found = search(write_json(tmp_path / "items.json", items))
    assert [i.asset("red").href for i in found] == list(hrefs.values())


def test_saved_items_come_back_with_their_access(tmp_path, serve_folder):
    item = make_item(0)
    twin = make_item(0, id="S2_twin")
    write_json(tmp_path / "raw.json", [item, twin])
    local = search(tmp_path / "raw.json", allow_hosts=["files.local"])
    assert local.superseded == ("S2_twin",)
    local.save(tmp_path / "saved.json")
    assert search(tmp_path / "saved.json") == local

    address = serve_folder(tmp_path)
    remote = search(f"{address}/raw.json", signer="planetary_computer:sign_url")
    remote.save(tmp_path / "remote.json")
    again = search(tmp_path / "remote.json")
    assert again == remote
    assert not again.access.local  # what came from the web names no local file, saved or not


def test_saved_items_of_somebody_else_grant_nothing(tmp_path, serve_folder):
    items = search(write_json(tmp_path / "raw.json", [make_item(0)]))
    generous = Access(local=True, hosts=("169.254.169.254",), signer="os:system")
    replace(items, access=generous).save(tmp_path / "generous.json")
    over_http = search(f"{serve_folder(tmp_path)}/generous.json")
    assert over_http.access == Access(local=False, hosts=("127.0.0.1",))
    with pytest.raises(InputError, match=r"names the signing hook 'os:system'; .*--signer"):
        search(tmp_path / "generous.json")
    trusted = search(tmp_path / "generous.json", signer="my.module:sign")
    assert trusted.access.signer == "my.module:sign"


def test_saved_items_of_two_collections_need_no_choice(tmp_path):
    raw = [make_item(0), make_item(1, collection="sentinel-2-c1-l2a")]
    path = write_json(tmp_path / "raw.json", raw)
    with pytest.raises(InputError, match="2 collections"):
        search(path)
    search(path, [S2, "sentinel-2-c1-l2a"]).save(tmp_path / "saved.json")
    assert len(search(tmp_path / "saved.json")) == 2


def test_one_page_of_an_answer_is_no_items_file(tmp_path, serve_folder):
    page = collection_file([make_item(0)], links=[{"rel": "next", "href": "?page=2"}])
    write_json(tmp_path / "page.json", page)
    with pytest.raises(CatalogError, match="one page of several; give the root"):
        search(f"{serve_folder(tmp_path)}/page.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("hello", "is not JSON"),
        ('{"type": "Feature"}\nhello\n', "line 2 is not JSON"),
        ('{"type": "Point"}', "holds 'Point', expected STAC items"),
        ("[1]", "holds 'int', expected STAC items"),
        ('{"type": "Feature", "id": "a", "properties": {}}', "item a has no valid assets"),
        ('{"type": "FeatureCollection", "features": [1]}', "no STAC item"),
        ("\xff\xfe", "is not text"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CatalogError, match=message):
        search(path)


def test_missing_file_and_other_schemes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read catalogue .*none.*No such file"):
        search(tmp_path / "none")
    with pytest.raises(InputError, match="cannot read catalogue"):
        search(tmp_path)  # a folder without a catalogue
    with pytest.raises(InputError, match="scheme 's3'; expected http, https or a local path"):
        search("s3://bucket/catalog.json")
    for source in ("http://", "", "http://[::1"):
        with pytest.raises(InputError):
            search(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2]}, "S2_000 has neither a usable bbox nor a geometry"),
        ({"bbox": None, "geometry": None}, "S2_000 has neither a usable bbox nor a geometry"),
        ({"assets": {"red": {"href": "a.tif", "proj:shape": 5}}}, "S2_000"),
    ],
)
def test_broken_items_are_named(tmp_path, change, message):
    path = write_json(tmp_path / "items.json", [make_item(0) | change])
    with pytest.raises((CatalogError, ContractError), match=message):
        search(path)


def test_broken_datetime_is_named(tmp_path):
    path = write_json(tmp_path / "items.json", [make_item(0, datetime=None)])
    with pytest.raises(CatalogError, match="S2_000 has datetime None"):
        search(path, datetime="2018")


# ------------------------------------------------------------------------- duplicates, overpasses


def test_reprocessed_and_duplicate_items(tmp_path):
    strip = "S2A_OPER_MSI_L2A_DS_2APS_{}_S20180401T105031_N{}"
    items = [
        make_item(
            0,
            id=f"S2_{baseline}_{n}",
            **{
                "s2:processing_baseline": baseline,
                "s2:datastrip_id": strip.format(n, baseline),
                "datetime": f"2018-04-01T10:50:4{n}Z",
            },
        )
        for n, baseline in enumerate(["02.07", "05.00", "05.00"])
    ]
    found = search(write_json(tmp_path / "items.json", items))
    assert ids(found) == ["S2_05.00_1"]
    assert found.superseded == ("S2_02.07_0", "S2_05.00_2")


def test_overlapping_granules_are_one_observation(tmp_path):
    east = make_item(
        0, id="east", **{"grid:code": "MGRS-31UES", "datetime": "2018-04-01T10:50:14Z"}
    )
    found = search(write_json(tmp_path / "items.json", [make_item(0), east, make_item(1)]))
    _, index = observations(found, "overpass", "EPSG:32631")
    assert index == (0, 0, 1)


def test_contract_warning_once_for_a_search(tmp_path):
    flag = {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.00"}
    items = [make_item(n, **flag) for n in range(5)]
    for item in items:
        item["assets"]["green"] = item["assets"]["red"]
    path = write_json(tmp_path / "items.json", items)
    with pytest.warns(UserWarning, match="boa_offset_applied=false") as caught:
        search(path)
    (only,) = caught
    assert "S2_000" in str(only.message)
    assert "(5 items; this is the first)" in str(only.message)
    assert only.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(path, offset=0.0)


def test_offset_overrides_the_contract(tmp_path):
    path = write_json(tmp_path / "items.json", [make_item(0)])
    asset = search(path, offset=-0.1)[0].asset("red")
    assert (asset.offset, asset.contract) == (-0.1, "override")


# ---------------------------------------------------------------------------------- empty results


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"bbox": (50.1, 3.1, 50.2, 3.2)}, "4 items, 0 after bbox); did you swap lon/lat?"),
        ({"bbox": (20, 0, 21, 1)}, "0 after bbox); the items lie in 3,50,4,51"),
        (
            {"datetime": "2019", "bbox": BOX},
            "4 after bbox, 0 after datetime); the items date from 2018-04-01 to 2018-04-16",
        ),
        ({"max_cloud": 5, "where": ["eo:cloud_cover>7"]}, "0 after where eo:cloud_cover>7)"),
        ({"where": ["s2:tile=1"]}, "0 after where s2:tile=1); no item has s2:tile"),
        ({"where": ["platform=x"]}, "platform is sentinel-2a"),
        ({"collections": "landsat"}, "0 after collections); there is no landsat: it has sentinel"),
    ],
)
def test_empty_search_repeats_the_query_and_says_where_items_were_lost(tmp_path, question, message):
    path = write_json(tmp_path / "items.json", [make_item(n) for n in range(4)])
    with pytest.raises(NoItemsError) as caught:
        search(path, **question)
    text = str(caught.value)
    assert text.startswith(f"no items in {path}, ")
    assert message in text
    assert "\n" not in text
    assert caught.value.exit_code != 0


def test_cloud_hint_and_empty_file(tmp_path):
    path = write_json(tmp_path / "items.json", [make_item(n) for n in range(7, 9)])
    with pytest.raises(NoItemsError, match=r"max_cloud 5 .*the least cloud cover is 7 %"):
        search(path, max_cloud=5)
    with pytest.raises(NoItemsError, match=r"\(0 items\)"):
        search(write_json(tmp_path / "none.json", collection_file([])))


# ---------------------------------------------------------------------------------------- queries


def test_query_is_normal_whatever_the_spelling(tmp_path, monkeypatch):
    where = (("b", "=", 1), ("a", "<", 2.5))
    one = Query("x.json", ("b", "a"), [3, 50, 4, 51], "2018", 20, where)
    two = Query("x.json", ["a", "b", "a"], (3.0, 50.0, 4.0, 51.0), "2018", 20.0, ["a<2.5", "b=1"])
    assert one == two
    assert hash(one) == hash(two)
    assert one.to_json() == two.to_json()
    assert json.loads(json.dumps(one.to_json())) == one.to_json()
    assert Query("x.json", S2).collections == (S2,)


def test_query_identity_does_not_depend_on_the_folder_one_stands_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Query("x.json").to_json() == Query(str(tmp_path / "x.json")).to_json()
    url = "https://example.com/items?page={}"
    first, second = (Query(url.format(n)).to_json() for n in "12")
    assert first["source"] == second["source"] == "https://example.com/items?page=***"
    assert first != second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s2:mgrs_tile=31UDS", ("s2:mgrs_tile", "=", "31UDS")),
        (" a <= 20 ", ("a", "<=", 20)),
        ("a>=0.5", ("a", ">=", 0.5)),
        ("a!=b c", ("a", "!=", "b c")),
        ("baseline=05.11", ("baseline", "=", "05.11")),
        ("a=1e3", ("a", "=", "1e3")),
        ("a=nan", ("a", "=", "nan")),
        ("a=-1", ("a", "=", -1)),
    ],
)
def test_where(text, expected):
    parsed = Query.parse_where(text)
    assert parsed == expected
    assert type(parsed[2]) is type(expected[2])


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a==b", "a~b", "a b=c"])
def test_bad_where_is_refused(text):
    with pytest.raises(InputError, match="is not NAME OPERATOR VALUE"):
        Query.parse_where(text)


@pytest.mark.parametrize(
    ("have", "condition", "expected"),
    [
        (5, "x=5", True),
        ("5", "x=5", True),
        ("05", "x=5", False),
        ("05.11", "x=05.11", True),
        (5.11, "x=05.11", True),
        (5, "x!=a", True),
        (5, "x<a", False),
        (True, "x=true", True),
        (False, "x!=True", True),
        (None, "x!=5", False),
        ("b", "x>a", True),
        (10, "x>9", True),
        (["PS2", "PSB.SD"], "x=PSB.SD", True),
        (["PS2"], "x=PSB.SD", False),
        (["PS2"], "x!=PSB.SD", True),
        (["PS2", "PSB.SD"], "x!=PSB.SD", False),
        (["PS2"], "x>A", False),
    ],
)
def test_conditions_follow_the_type_of_the_property(have, condition, expected):
    assert holds({"properties": {"x": have}}, Query.parse_where(condition)) is expected


def test_collections_may_be_joined_by_commas():
    joined = Query("x.json", ("b, a", "c"))
    assert joined.collections == ("a", "b", "c")


def test_an_item_can_be_left_out_by_its_id():
    one = {"id": "S2A_1", "properties": {}}
    assert holds(one, Query.parse_where("id=S2A_1"))
    assert not holds(one, Query.parse_where("id!=S2A_1"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bbox": (4, 50, 3, 51)}, AoiError),
        ({"bbox": (float("nan"), 50, 4, 51)}, AoiError),
        ({"bbox": (3, 50, 4)}, AoiError),
        ({"bbox": (3, 95, 4, 96)}, AoiError),
        ({"datetime": "yesterday"}, InputError),
        ({"max_cloud": 101}, InputError),
        ({"max_cloud": float("nan")}, InputError),
        ({"where": [("a", "~", 1)]}, InputError),
        ({"signer": "rm -rf"}, InputError),
        ({"timeout": 0}, InputError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(arguments, error):
    with pytest.raises(error):
        search("https://example.invalid", S2, **arguments)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2018", UTC(2018, 1, 1), UTC(2019, 1, 1)),
        ("2016", UTC(2016, 1, 1), UTC(2017, 1, 1)),
        ("2018-02", UTC(2018, 2, 1), UTC(2018, 3, 1)),
        ("2018-12", UTC(2018, 12, 1), UTC(2019, 1, 1)),
        ("2018-04-01", UTC(2018, 4, 1), UTC(2018, 4, 2)),
        ("2018-04-01/2018-09-30", UTC(2018, 4, 1), UTC(2018, 10, 1)),
        ("2017-12/2018", UTC(2017, 12, 1), UTC(2019, 1, 1)),
        ("../2018-04-01", None, UTC(2018, 4, 2)),
        ("2018-04-01/..", UTC(2018, 4, 1), None),
        ("/2018", None, UTC(2019, 1, 1)),
        ("2018/", UTC(2018, 1, 1), None),
        ("2018-04-01T12:00:00Z/2018-04-02", UTC(2018, 4, 1, 12), UTC(2018, 4, 3)),
        ("2018-04-01/2018-04-01T12:00:00+02:00", UTC(2018, 4, 1), UTC(2018, 4, 1, 10)),
        (None, None, None),
    ],
)
def test_intervals(text, start, end):
    assert parse_interval(text) == (start, end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../..",
        "/",
        "soon",
        "2018-13",
        "2018-02-30",
        "2018/2017",
        "2018-04-02/2018-04-01",
        "2018-04-01T00:00:00Z/2018-04-01T00:00:00Z",
        "2018-04-01T00:00:00Z",
        "2018/2019/2020",
        "20180401",
        "0000",
        "2018-04-01Tnoon/..",
        "9999/9999",
    ],
)
def test_bad_intervals_are_refused(text):
    with pytest.raises(InputError):
        parse_interval(text)


@given(
    st.datetimes(dt.datetime(1972, 1, 1), dt.datetime(2100, 1, 1)).map(
        lambda t: t.replace(tzinfo=dt.UTC)
    )
)
def test_adjacent_periods_share_no_moment(moment):
    months = {f"{moment:%Y-%m}", f"{moment - dt.timedelta(days=31):%Y-%m}"}
    held = [
        month
        for month in sorted(months)
        if parse_interval(month)[0] <= moment < parse_interval(month)[1]
    ]
    assert held == [f"{moment:%Y-%m}"]


@pytest.mark.parametrize(
    ("item", "box", "expected"),
    [
        ((0, 0, 1, 1), (1, 1, 2, 2), True),
        ((0, 0, 1, 1), (1.1, 0, 2, 1), False),
        ((0, 0, 1, 1), (0, 1.1, 1, 2), False),
        ((179, 0, -179, 1), (179.5, 0, 180, 1), True),
        ((179, 0, -179, 1), (-180, 0, -179.5, 1), True),
        ((179, 0, -179, 1), (0, 0, 1, 1), False),
    ],
)
def test_boxes_meet(item, box, expected):
    assert intersects(item, box) is expected


def test_item_bbox_without_heights_or_from_geometry():
    assert item_bbox({"bbox": [1, 2, -9, 3, 4, 9]}) == (1, 2, 3, 4)
    line = {"type": "LineString", "coordinates": [[1, 5, 99], [3, 2, 99]]}
    assert item_bbox({"geometry": line}) == (1, 2, 3, 5)
    many = {"type": "GeometryCollection", "geometries": [line, {"coordinates": [0, 9]}]}
    assert item_bbox({"bbox": None, "geometry": many}) == (0, 2, 3, 9)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@example.com:8000/a?sas=xyz&b&c=#frag", "https://example.com:8000/a?sas=***&***&c=***"),
        ("https://example.com/v1", "https://example.com/v1"),
        ("/local/a?b=c", "/local/a?b=c"),
    ],
)  # fmt: skip
def test_redacted_addresses(url, shown):
    assert redact(url) == shown


def test_scrubbed_texts():
    text = (
        "Max retries with url: /a?token=secret&x=secret (Caused by\nhttp://u:secret@h/b?k=secret)"
    )
    assert "secret" not in scrub(text)
    assert "\n" not in scrub(text)


def test_planetary_computer_is_signed_by_itself(tmp_path, monkeypatch):
    def answer(self, href, *args, **kwargs):
        return json.dumps(make_item(0))

    monkeypatch.setattr(fetch.Fetcher, "request", answer)
    auto = "planetary_computer:sign_url"
    host = "planetarycomputer.microsoft.com"
    assert search(f"https://{host}/api/item.json").access == Access(False, (host,), auto)
    assert search(f"https://x.{host}/item.json").access.signer == auto
    assert search(f"https://{host}/item.json", signer="a.b:c").access.signer == "a.b:c"
    assert search(f"https://not{host}/item.json").access.signer is None


def test_local_search_needs_no_http_client(tmp_path):
    path = write_json(tmp_path / "items.json", [make_item(0)])
    code = (
        "import sys, lcengine.catalog as c; "
        f"c.search({str(path)!r}); "
        "sys.exit('pystac_client' in sys.modules or 'requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_search_returns_items(tmp_path):
    found = search(write_json(tmp_path / "items.json", [make_item(0)]))
    assert isinstance(found, Items)
