"""Signing hooks, against a server that turns unsigned and expired addresses away."""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import lcengine
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
def hook(tmp_path, monkeypatch):
    name = f"hook_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:sign"


def plan_of(archive, base, access):
    items = Items.of([normalise(f) for f in items_collection(archive.path, base)["features"]])
    grid = Grid.from_bounds(*_bounds(items), 32631, 10)
    spec = lcengine.CompositeSpec(("red",), mask="none")
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


def test_a_hook_that_cannot_be_imported_is_named():
    with pytest.raises(InputError, match=r"signing hook 'nowhere:sign'.*module:function"):
        sign("https://example.com/a.tif", "nowhere:sign")


def test_the_planetary_computers_hook_is_found():
    url = "https://example.com/a.tif"
    assert sign(url, "planetary_computer:sign_url") == url  # not one of its storage accounts
