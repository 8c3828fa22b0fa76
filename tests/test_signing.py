"""Signing hooks, against a server that turns unsigned and expired addresses away."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import archives
import numpy as np
import pytest

import lcengine
from lcengine import reader
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, pricing
from lcengine.composite.tile import compute_tile
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.items import Access, Items
from lcengine.sensors import normalise
from lcengine.signing import sign
from lcengine.simulate import SimulationOptions, items_collection, serve, simulate

HOOK = """
tokens = ["expired", "good"]
calls = []

def sign(href):
    calls.append(href)
    return f"{href}?sig={tokens[0] if len(calls) == 1 else tokens[1]}"
"""


REFUSING = """
import requests

def sign(href):
    if {victim!r} in href:
        raise {error}
    return href + "?sig=good"
"""
REFUSALS = (
    "requests.ConnectionError('the signing service is away')",
    "requests.HTTPError('429 Client Error: for url: https://sas.example/token?key=secret')",
    "requests.exceptions.JSONDecodeError('Expecting value', 'too many requests', 0)",
)
"""What `requests` raises inside a hook; the last one is a ValueError, too."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    return simulate(folder, SimulationOptions(size=64, dates=2, bands=("red",)))


@pytest.fixture
def guarded(archive):
    """The archive over HTTP for those who show the token; `asked` has the queries it got."""

    class Guarded(serve._Handler):
        def _answer(self, send_body):
            query = parse_qs(urlsplit(self.path).query)
            self.server.asked.append(query)
            if query.get("sig") != ["good"]:
                self._empty(HTTPStatus.FORBIDDEN)
                return
            super()._answer(send_body)

    class Server(ThreadingHTTPServer):
        root = archive.path.resolve()
        connections: set = set()  # noqa: RUF012
        asked: list = []  # noqa: RUF012

        def count(self, **_):
            pass

    with Server(("127.0.0.1", 0), Guarded) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that makes a hook of source code; its import path."""

    def write(code):
        name = f"hook_{re.sub(r'[^a-zA-Z0-9]', '_', tmp_path.name)}"
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        return f"{name}:sign"

    return write


@pytest.fixture
def hook(written):
    return written(HOOK)


def plan_of(archive, base, access, **changes):
    items = Items.of([normalise(f) for f in items_collection(archive.path, base)["features"]])
    grid = Grid.from_bounds(*_bounds(items), 32631, 10)
    spec = lcengine.CompositeSpec(("red",), mask="none", outliers="none", **changes)
    return lcengine.plan_composite(replace(items, access=access), grid, spec)


def _bounds(items):
    a, _, c, _, e, f = items[0].assets["red"].transform
    height, width = items[0].assets["red"].shape
    return c, f + e * height, c + a * width, f


def test_addresses_are_signed_in_the_task_and_anew_after_a_refusal(archive, guarded, hook):
    url = f"http://127.0.0.1:{guarded.server_address[1]}"
    signed = plan_of(archive, url, Access(hosts=("127.0.0.1",), signer=hook))
    got = compute_tile(signed, 0)
    assert got.failures == []
    assert ["expired"] in [query.get("sig") for query in guarded.asked]
    local = plan_of(archive, str(archive.path), Access(local=True))
    np.testing.assert_array_equal(got.arrays["red"], compute_tile(local, 0).arrays["red"])
    assert "good" not in json.dumps(signed.to_json())


@pytest.mark.parametrize("error", REFUSALS, ids=["away", "429", "no-json"])
def test_what_a_hook_raises_goes_to_the_ledger(archive, guarded, written, monkeypatch, error):
    monkeypatch.setattr(reader, "BACKOFF", 0.0)
    url = f"http://127.0.0.1:{guarded.server_address[1]}"
    victim = archive.item_ids[0]
    access = Access(
        hosts=("127.0.0.1",), signer=written(REFUSING.format(victim=victim, error=error))
    )
    plan = plan_of(archive, url, access, max_lost=1.0)
    got = compute_tile(plan, 0)
    assert {(f.item, f.band) for f in got.failures} == {(victim, "red")}
    assert "red.tif could not be read: " in got.failures[0].error
    assert got.failures[0].attempts == reader.ATTEMPTS
    assert "secret" not in got.failures[0].error
    local = plan_of(archive, str(archive.path), Access(local=True), max_lost=1.0)
    rest = archives.without(local, victim)
    np.testing.assert_array_equal(got.arrays["red"], compute_tile(rest, 0).arrays["red"])
    assert got.arrays["lost"].any()
    assumed = pricing.explain(archives.without(plan, *archive.item_ids[1:]))["assumed"]
    assert "red.tif could not be read" in assumed
    assert "secret" not in assumed


def test_a_hook_that_cannot_be_imported_is_named():
    with pytest.raises(InputError, match=r"signing hook 'nowhere:sign'.*module:function"):
        sign("https://example.com/a.tif", "nowhere:sign")


def test_the_planetary_computers_hook_is_found():
    url = "https://example.com/a.tif"
    assert sign(url, "planetary_computer:sign_url") == url  # not one of its storage accounts


def test_a_remote_catalogue_without_an_area_is_refused_without_its_secrets():
    query = Query("https://me:secret@example.com/v1?key=secret", ("sentinel-2-l2a",))
    request = CompositeRequest(query, lcengine.CompositeSpec(("red",), outliers="none"))
    with pytest.raises(InputError, match="not a local catalogue and no area") as caught:
        request.plan()
    assert "secret" not in str(caught.value)
