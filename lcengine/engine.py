"""Running tiles on a Dask cluster: one task per tile, a bounded window in flight, receipts back."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import dask
import distributed
from dask.system import CPU_COUNT
from distributed import Client

from lcengine.errors import RunError

__all__ = ["Client", "Progress", "Receipt", "TileFunction", "connect", "local_client", "run"]

TILES_PER_THREAD = 3
"""Tiles in flight per worker thread: enough that none waits for the driver."""
ROOM_SECONDS = 5.0
"""How often the window looks at how many workers there are: clusters grow and shrink."""
WORKER_TIMEOUT = 120.0

NANNY_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"

Receipt = dict[str, Any]
"""What a tile task returns: small JSON values, never pixels."""

TileFunction = Callable[[int], Receipt]

CONNECT_TIMEOUT = "10s"


@dataclass(slots=True)
class Progress:
    """Where a run stands; handed to the listener after every tile."""

    tiles: int
    done: int = 0
    resumed: int = 0
    pixels: int = 0
    failures: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def pixels_per_second(self) -> float:
        """Product pixels per second so far."""
        return self.pixels / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far, None before the first tile."""
        worked = self.done - self.resumed
        return self.seconds / worked * (self.tiles - self.done) if worked else None


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


def run(
    tiles: Sequence[int],
    function: TileFunction,
    client: Client,
    *,
    name: str = "tile",
    retries: int = 1,
    window: int | None = None,
    listener: Callable[[Receipt], None] | None = None,
) -> list[Receipt]:
    """Run `function(tile)` for every tile; returns the receipts in the order of completion.

    At most `window` tiles (default: three per worker thread) are known to the scheduler at a time,
    so neither it nor the driver grows with the job. A tile that fails is retried, then set aside
    while the others go on; at the end `RunError` lists what failed.
    """
    _await_workers(client)
    waiting = iter(tiles)
    futures = distributed.as_completed(loop=client.loop)
    # A scheduler remembers keys for a while: a second run must not be given the first one's errors.
    name = f"{name}-{uuid.uuid4().hex[:8]}"
    room = _Room(client, window)
    receipts: list[Receipt] = []
    failed: dict[int, BaseException] = {}
    numbers: dict[object, int] = {}

    def submit() -> None:
        for number in itertools.islice(waiting, max(0, room.size() - len(numbers))):
            future = client.submit(
                function, number, key=f"{name}-{number}", retries=retries, pure=False
            )
            numbers[future.key] = number
            futures.add(future)

    submit()
    for future in futures:
        number = numbers.pop(future.key)
        if future.status == "finished":
            receipt = future.result()
            receipts.append(receipt)
            if listener:
                listener(receipt)
        elif future.status == "error":
            failed[number] = future.exception()
        else:
            raise RunError(
                f"the Dask scheduler dropped tile {number} ({future.status}): it stopped or lost "
                "its connection; what is finished is kept, run the same command again"
            )
        future.release()
        submit()
    if failed:
        first = min(failed)
        raise RunError(
            f"{len(failed)} of {len(tiles)} tiles failed, the first: tile {first}: "
            f"{failed[first]}; what is finished is kept, run the same command again"
        )
    return receipts


class _Room:
    """How many tiles may be in flight: a fixed window, or one that follows the workers."""

    def __init__(self, client: Client, window: int | None) -> None:
        self.client = client
        self.window = window
        self.asked = -ROOM_SECONDS
        self.current = 1

    def size(self) -> int:
        if self.window is not None:
            return self.window
        now = time.monotonic()
        if now - self.asked >= ROOM_SECONDS:
            self.asked = now
            self.current = TILES_PER_THREAD * max(1, sum(self.client.nthreads().values()))
        return self.current


def _await_workers(client: Client) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_TIMEOUT)
    except TimeoutError as error:
        raise RunError(
            f"no worker joined the Dask scheduler within {WORKER_TIMEOUT:.0f} s; start one with "
            "`dask worker`"
        ) from error
