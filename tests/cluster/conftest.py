"""Fixtures of the tests of clusters: an archive and its plan, certificates, a clean environment."""

from __future__ import annotations

import archives
import clusters
import pytest

from lcengine.simulate import SimulationOptions, simulate


@pytest.fixture(scope="session")
def plans(tmp_path_factory):
    """Nine tiles of a simulated archive, and real imagery where it is at hand."""
    options = SimulationOptions(size=96, dates=3, seed=8, bands=("blue", "swir16"))
    world = simulate(tmp_path_factory.mktemp("world") / "sim", options)
    simulated = archives.request(world.catalog, "blue", "swir16", tile=32).plan()
    return [simulated, *archives.real_plans()]


@pytest.fixture(scope="session")
def pem(tmp_path_factory):
    """Certificates of the cluster."""
    return clusters.certificates(tmp_path_factory.mktemp("pem") / "own")


@pytest.fixture(scope="session")
def alien(tmp_path_factory):
    """Certificates of somebody else's authority."""
    return clusters.certificates(tmp_path_factory.mktemp("pem") / "alien")


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch):
    for name in clusters.TLS_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def use(monkeypatch):
    """Put certificates into the environment: use(folder) or use(folder of ca, folder of client)."""

    def put(authority, own=None):
        own = own or authority
        files = (authority / "ca.pem", own / "client.pem", own / "client.key")
        for name, file in zip(clusters.TLS_VARIABLES, files, strict=True):
            monkeypatch.setenv(name, str(file))

    return put
