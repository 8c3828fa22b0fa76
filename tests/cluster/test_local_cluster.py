"""Clusters on this machine: as asked, on loopback only, closed whatever happens."""

from __future__ import annotations

import ipaddress
import os
import signal
import threading
import time
from multiprocessing import resource_tracker

import archives
import clusters
import distributed
import psutil
import pytest

from lcengine.cluster import connect, start
from lcengine.errors import RunError


def children():
    """Processes below this one."""
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def opened():
    """A local cluster of two workers: (its client, its processes and this one)."""
    with connect("local:workers=2,threads=3,memory=700MB") as client:
        yield client, {psutil.Process()} | children()


def listening():
    """Addresses that this process listens at."""
    found = psutil.Process().net_connections("inet")
    return {one.laddr for one in found if one.status == psutil.CONN_LISTEN}


class TestLocal:
    def test_is_as_asked(self, opened):
        workers = opened[0].scheduler_info(n_workers=-1)["workers"].values()
        assert [(w["nthreads"], w["memory_limit"]) for w in workers] == [(3, 700_000_000)] * 2
        assert len({w["pid"] if "pid" in w else w["id"] for w in workers}) == 2

    def test_listens_on_loopback_only(self, opened):
        """FAULTS 43."""
        ports = [
            connection.laddr
            for process in opened[1]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(ports) >= 4  # scheduler, its dashboard, two workers
        assert all(ipaddress.ip_address(port.ip).is_loopback for port in ports), ports

    def test_so_does_one_of_a_file_that_says_nothing_of_it(self, tmp_path):
        """dask's own default shows the dashboard to the network."""
        file = tmp_path / "cluster.yaml"
        file.write_text("cluster: distributed.LocalCluster\narguments: {n_workers: 0}\n")
        before = listening()
        with connect(file):
            ports = listening() - before
        assert len(ports) >= 2  # scheduler, its dashboard
        assert all(ipaddress.ip_address(port.ip).is_loopback for port in ports), ports

    def test_workers_ignore_ctrl_c(self, opened):
        """A terminal sends it to the whole group: the driver alone decides what happens."""
        client, _ = opened
        pids = client.run(os.getpid)
        for pid in pids.values():
            os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        assert client.run(os.getpid) == pids

    def test_workers_keep_the_tuning_of_their_allocator(self, opened):
        """Also after another cluster's nanny has left dask's threshold in this process."""
        found = opened[0].run(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
        assert set(found.values()) == {None}

    @pytest.mark.slow
    def test_composites_to_the_same_bytes(self, opened, plans, tmp_path):
        assert clusters.differing(opened[0], plans, tmp_path) == []


class TestFile:
    # It names the usual port of dashboards, which another cluster of this machine may have: Dask
    # warns, leaks the socket that it tried and takes another port.
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:Port 8787 is already in use")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_the_shipped_one_starts(self):
        with connect(clusters.DEPLOYMENTS / "local.yaml") as client:
            assert set(client.nthreads().values()) == {4}

    def test_a_threshold_left_behind_is_forgotten(self, monkeypatch, tmp_path):
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
        with connect("local:workers=1,threads=1") as client:
            found = client.run(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
        assert set(found.values()) == {None}

    def test_any_class_scales_and_waits(self, tmp_path):
        """An adaptive cluster has no worker before there is work: waiting asks for one."""
        file = tmp_path / "cluster.yaml"
        file.write_text(
            "cluster: distributed.LocalCluster\nwait: 60s\n"
            "arguments: {n_workers: 0, threads_per_worker: 2, host: 127.0.0.1,\n"
            "  dashboard_address: '127.0.0.1:0'}\n"
            "adapt: {minimum: 0, maximum: 1, interval: 200ms, wait_count: 1000}\n"
        )
        with connect(file) as client:
            assert list(client.nthreads().values()) == [2]
            environment = client.run(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
            assert set(environment.values()) == {None}
            for pid in client.run(os.getpid).values():
                os.kill(pid, signal.SIGINT)
            time.sleep(0.3)
            assert len(client.nthreads()) == 1

    def test_no_worker_comes(self, tmp_path):
        file = tmp_path / "cluster.yaml"
        file.write_text(
            "cluster: distributed.LocalCluster\nwait: 300ms\n"
            "arguments: {n_workers: 0, dashboard_address: '127.0.0.1:0'}\n"
        )
        with (
            pytest.raises(RunError, match=r"no worker of tcp://127.* within 0\.3 s"),
            connect(file),
        ):
            pass

    def test_a_cluster_that_does_not_start(self, tmp_path):
        file = tmp_path / "cluster.yaml"
        file.write_text(
            "cluster: distributed.LocalCluster\n"
            "arguments: {n_workers: 0, dashboard_address: '127.0.0.1:0', protocol: smoke}\n"
        )
        match = r"distributed\.LocalCluster of .*cluster\.yaml does not start: .*smoke"
        with pytest.raises(RunError, match=match), connect(file):
            pass


class TestClosing:
    """No worker outlives the block."""

    @pytest.fixture(autouse=True)
    def _helper(self):
        resource_tracker.ensure_running()  # multiprocessing's own process, which outlives clusters

    def test_after_an_error(self):
        before = children()
        family = set()

        def fail():
            family.update(children() - before)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), connect("local:workers=1,threads=1"):
            fail()
        assert family
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_while_it_starts_is_not_lost(self, monkeypatch, number):
        """Held back until the workers are there, then raised."""
        before = children()
        struck = []

        def strike():
            assert archives.until(lambda: children() - before)
            struck.append(children() - before)
            os.kill(os.getpid(), number)

        class Struck(distributed.LocalCluster):
            def __init__(self, **options):
                thread = threading.Thread(target=strike)
                thread.start()
                try:
                    super().__init__(**options)
                finally:
                    thread.join()  # the signal has been sent before the start is over

        monkeypatch.setattr(distributed, "LocalCluster", Struck)
        entered = []
        with handlers(), pytest.raises(KeyboardInterrupt):  # noqa: SIM117
            with connect("local:workers=1,threads=1"):
                entered.append(True)
        assert struck[0]
        assert entered == []
        _, alive = psutil.wait_procs(struck[0] | (children() - before), timeout=10)
        assert alive == []

    def test_a_second_interrupt_is_not_held(self):
        reached = []

        def strike_twice():
            signal.raise_signal(signal.SIGINT)
            reached.append("after the first")
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

        with handlers(), pytest.raises(KeyboardInterrupt), start._interrupts_held():
            strike_twice()
        assert reached == ["after the first"]


class handlers:  # noqa: N801
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, and do so again after the block."""

    def __enter__(self):
        self.before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_):
        found = {number: signal.getsignal(number) for number in self.before}
        for number, handler in self.before.items():
            signal.signal(number, handler)
        assert set(found.values()) == {interrupt}


def interrupt(_signal, _frame):
    raise KeyboardInterrupt
