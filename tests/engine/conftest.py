"""A cluster for the tests that do not hurt it."""

from __future__ import annotations

import pytest

from lcengine import engine


@pytest.fixture(scope="session")
def client():
    with engine.local_client(1, 2) as found:
        yield found
