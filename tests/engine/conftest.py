"""A cluster for the tests that do not hurt it."""

from __future__ import annotations

import pytest

from lcengine.cluster import connect


@pytest.fixture(scope="module")  # longer, and what other modules compute would be sent to it
def client():
    with connect("local:workers=1,threads=2") as found:
        yield found
