"""FAULTS 11: workers and schedulers that run other versions than the driver."""

from __future__ import annotations

import threading

import clusters
import distributed
import pytest
import tasks

import lcengine
from lcengine import engine
from lcengine.engine import Outcome, Policy, versions
from lcengine.errors import RunError

QUICK = Policy(backoff=0.05, patience=60, worker_timeout=30)
OTHER = "import lcengine; lcengine.__version__ = '0.0.1'"


@pytest.fixture
def other(tmp_path):
    """A path that gives the Python that starts with it another lcengine."""
    (tmp_path / "sitecustomize.py").write_text(OTHER)
    return tmp_path


@pytest.fixture
def bare():
    with clusters.bare() as found:
        yield found


class TestRefused:
    def test_a_worker(self, bare, other):
        client, cluster = bare
        address = cluster.scheduler_address
        with clusters.workers(address), clusters.workers(address, shim=other):
            client.wait_for_workers(2, timeout=30)
            wanted = rf"worker tcp\S+ has lcengine 0.0.1, the driver {lcengine.__version__}; give"
            with pytest.raises(RunError, match=wanted):
                engine.run(range(9), tasks.plain, client, policy=QUICK)
        assert clusters.is_clean(cluster)

    def test_a_worker_without_lcengine(self, bare, tmp_path):
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['lcengine'] = None")
        client, cluster = bare
        with clusters.workers(cluster.scheduler_address, shim=tmp_path):
            client.wait_for_workers(1, timeout=30)
            with pytest.raises(RunError, match=r"worker tcp\S+ has no lcengine, the driver"):
                engine.run(range(9), tasks.plain, client, policy=QUICK)

    def test_a_worker_that_comes_late(self, bare, other):
        """Its versions are asked for, or its first tile tells: no receipt of it is accepted."""
        client, cluster = bare
        address = cluster.scheduler_address
        with clusters.workers(address, 1, 1) as (first,):
            client.wait_for_workers(1, timeout=30)
            late = clusters.workers(address, 1, 4, shim=other)
            timer = threading.Timer(0.3, late.__enter__)
            timer.start()
            heard = []
            try:
                with pytest.raises(RunError, match=r"worker tcp\S+ has lcengine 0.0.1, the driver"):
                    engine.run(
                        range(10_000),
                        tasks.plain,
                        client,
                        policy=QUICK,
                        listener=engine.Listener(heard.append),
                    )
            finally:
                timer.join()
                late.__exit__(None, None, None)
            assert {receipt["pid"] for receipt in heard} == {first.pid}
        assert clusters.is_clean(cluster)

    def test_the_scheduler(self, other, tmp_path):
        with (
            clusters.scheduler(tmp_path, shim=other) as (_, address),
            clusters.workers(address),
            distributed.Client(address) as client,
            pytest.raises(RunError, match=r"the scheduler has lcengine 0\.0\.1, the driver"),
        ):
            engine.run(range(9), tasks.plain, client, policy=QUICK)


class TestWarned:
    def test_of_a_package_that_may_work_once(self, bare, tmp_path):
        info = tmp_path / "zarr-2.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 2.0.0\n")
        client, cluster = bare
        with clusters.workers(cluster.scheduler_address, 2, shim=tmp_path):
            client.wait_for_workers(2, timeout=30)
            with pytest.warns(RuntimeWarning, match=r"worker tcp\S+ has zarr 2\.0\.0, the") as told:
                assert engine.run(range(9), tasks.plain, client, policy=QUICK) == Outcome(9)
        assert len(told) == 1


MINE = {
    "lcengine": "0.4.0",
    "python": "3.11.7",
    "distributed": "2026.8.0",
    "msgpack": "1.1.0",
    "numpy": "2.1.0",
    "numba": "0.61.0",
}


class TestRules:
    @pytest.mark.parametrize(
        ("name", "found", "works"),
        [
            ("lcengine", "0.4.1", False),
            ("lcengine", None, False),
            ("python", "3.11.9", True),
            ("python", "3.12.7", False),
            ("distributed", "2026.9.1", True),
            ("distributed", "2025.8.0", False),
            ("msgpack", "2.0", False),
            ("numpy", "1.26.4", True),
            ("numba", None, False),
        ],
    )
    def test_one_difference(self, name, found, works):
        (difference,) = versions.compare(MINE, {**MINE, name: found})
        assert (difference.name, difference.works) == (name, works)
        assert name in difference.told("worker a")

    def test_none(self):
        assert versions.compare(MINE, MINE) == []

    def test_what_a_scheduler_does_not_tell_is_no_difference(self):
        assert versions.compare(MINE, {"python": "3.11.7"}) == []

    def test_the_driver_has_all_it_compares(self):
        assert set(versions.own()) == {*versions.EXACT, *versions.WARNED}
