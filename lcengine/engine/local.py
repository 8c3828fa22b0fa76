"""The local cluster and a running scheduler; on its way to `lcengine.cluster`."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
import distributed
from dask.system import CPU_COUNT
from distributed import Client

from lcengine.errors import RunError

NANNY_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
CONNECT_TIMEOUT = "10s"


@contextmanager
def local_client(workers: int | None = None, threads: int | None = None) -> Iterator[Client]:
    """A client of a LocalCluster on loopback: worker processes with a few threads each.

    By default one process per four CPUs: kernels and reads release the GIL.
    """
    workers = workers or max(1, CPU_COUNT // 4)
    threads = threads or max(1, CPU_COUNT // workers)
    environment = dict(dask.config.get(NANNY_ENVIRONMENT))
    # dask's threshold turns off glibc's own tuning: every source block that GDAL decodes would be
    # mapped, faulted in page by page and given back.
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    settings = {"distributed.worker.daemon": True, NANNY_ENVIRONMENT: environment}
    with dask.config.set(settings), ExitStack() as stack:
        with _interrupts_held():
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                preload=[__name__],
            )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        yield client


def dask_setup(_worker: object) -> None:
    """Preload of a local worker: a terminal sends Ctrl-C to it too, but only the driver acts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is left: half a cluster could not be closed."""
    held: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda got, _frame: held.append(got))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for got in held:
            signal.raise_signal(got)


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """A client of a running scheduler, for example `tcp://127.0.0.1:8786`."""
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        yield client
