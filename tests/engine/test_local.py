"""The local cluster; on its way to the tests of `lcengine.cluster`."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import resource_tracker

import clusters
import distributed
import psutil
import pytest

from lcengine import engine
from lcengine.engine import local
from lcengine.errors import RunError


def test_no_scheduler_at_the_address(monkeypatch):
    monkeypatch.setattr(local, "CONNECT_TIMEOUT", "0.3s")
    address = "tcp://127.0.0.1:1"
    with pytest.raises(RunError, match="no Dask scheduler answers"), engine.connect(address):
        pass


def test_workers_ignore_ctrl_c(client):
    """A terminal sends it to the whole group: the driver alone decides what happens."""
    pids = client.run(os.getpid)
    for pid in pids.values():
        os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert client.run(os.getpid) == pids


def children():
    """Processes below this one."""
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_cluster_starts_is_not_lost(monkeypatch, number):
    """Held back until the workers are there, then raised; no process is left."""
    resource_tracker.ensure_running()  # multiprocessing's own process, which outlives clusters
    before = children()
    struck = []
    start = distributed.LocalCluster

    def strike():
        assert clusters.until(lambda: children() - before)
        struck.append(children() - before)
        os.kill(os.getpid(), number)

    def starting(**options):
        thread = threading.Thread(target=strike)
        thread.start()
        try:
            return start(**options)
        finally:
            thread.join()  # the signal has been sent before the start is over

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed, "LocalCluster", starting)
    restored = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    entered = []
    try:
        with pytest.raises(KeyboardInterrupt), engine.local_client(1, 1):
            entered.append(True)
        assert signal.getsignal(number) is interrupt
    finally:
        for held, handler in restored.items():
            signal.signal(held, handler)
    assert len(struck) == 1
    assert struck[0]
    assert entered == []
    _, alive = psutil.wait_procs(struck[0] | (children() - before), timeout=10)
    assert alive == []
