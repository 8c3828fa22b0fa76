"""A cluster for the tests that do not hurt it."""

from __future__ import annotations

import pytest

from lcengine.cluster import connect


@pytest.fixture(scope="session")
def client():
    with connect("local:workers=1,threads=2") as found:
        yield found
