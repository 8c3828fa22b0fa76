"""What runs on a worker: one tile, and the report of what became of it.

Reports travel as events of the worker's own stream to the scheduler, ahead of Dask's word that the
task is over, and on to the driver. Nothing is gathered, so a worker that dies after a tile cannot
take its receipt along, and the driver spends no request per tile.

GDAL's options are set by the reader around each call, and Dask's nanny starts workers with one
BLAS and OpenMP thread (`distributed.nanny.pre-spawn-environ`): nothing is left to set here.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import get_worker

import lcengine
from lcengine.engine.policy import Receipt, TileFunction
from lcengine.errors import LcengineError, RunError

logger = logging.getLogger(__name__)

WARMED: deque[str] = deque(maxlen=16)
"""Runs for which this process is warm: a worker may serve many drivers."""
_WARMING = threading.Lock()
MEMORY_SHARE = 0.8
"""Of a worker's memory limit; above it Dask pauses the worker, at 0.95 its nanny ends it."""
PROCESS_MEMORY = 400 * 2**20
"""Bytes of a worker that holds all libraries and no pixel."""


class VersionError(RunError):
    """A worker whose lcengine is not the driver's: it cannot give the same bytes."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Job:
    """What all tiles of a run share; travels with every task."""

    run: str
    """First part of the run's keys."""
    topic: str
    version: str
    """The driver's lcengine."""
    function: TileFunction
    warm_up: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of one attempt."""

    receipt: Receipt | None = None
    error: str = ""
    permanent: bool = False
    """No other attempt will do better."""
    memory: bool = False
    """It did not fit."""
    version: bool = False
    """The worker, not the tile, is wrong."""


def execute(job: Job, tile: int, attempt: int) -> None:
    """The Dask task: one attempt of one tile."""
    try:
        if lcengine.__version__ != job.version:
            raise VersionError(
                f"worker {get_worker().address} has lcengine {lcengine.__version__}, the driver "
                f"{job.version}; give both the same version"
            )
        _warm(job)
        # As JSON text: msgpack would make tuples of lists, and large integers fail in it.
        receipt = json.dumps(job.function(tile, attempt))
    except Exception as error:
        _tell(job, tile, attempt, _describe(error))
        raise
    _tell(job, tile, attempt, {"receipt": receipt})


def task_memory() -> int | None:
    """Bytes that one task may take on the worker it runs on, None where nothing limits it."""
    try:
        worker = get_worker()
    except ValueError:
        return None
    limit = worker.memory_manager.memory_limit
    if not limit:
        return None
    return max(0, int((MEMORY_SHARE * limit - PROCESS_MEMORY) / worker.state.nthreads))


def _tell(job: Job, tile: int, attempt: int, report: dict[str, Any]) -> None:
    get_worker().log_event(job.topic, {"key": [job.run, tile, attempt], **report})


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, LcengineError) and text else f"{type(error).__name__}: {text}"


def _describe(error: Exception) -> dict[str, Any]:
    return {
        "error": _text(error),
        "permanent": isinstance(error, LcengineError) and error.permanent,
        "memory": isinstance(error, MemoryError),
        "version": isinstance(error, VersionError),
    }


def heard(message: dict[str, Any]) -> tuple[tuple[str, int, int], Report]:
    """The key and report of a worker's event."""
    run, tile, attempt = message["key"]
    if "receipt" in message:
        return (run, tile, attempt), Report(json.loads(message["receipt"]))
    fields = {name: message[name] for name in ("error", "permanent", "memory", "version")}
    return (run, tile, attempt), Report(**fields)


def _warm(job: Job) -> None:
    """Run the warm-up once in this process; the other threads wait for it.

    In the first task, so that it reaches workers that join later, and leaves nothing on the
    scheduler. A warm-up that fails is no reason to stop: the tile will say what is wrong.
    """
    if job.warm_up is None or job.run in WARMED:
        return
    with _WARMING:
        if job.run in WARMED:
            return
        try:
            job.warm_up()
        except Exception as error:
            address = get_worker().address
            logger.exception("warm-up failed on worker %s", address)
            warning = f"warm-up failed on worker {address}: {_text(error)}"
            get_worker().log_event(job.topic, {"run": job.run, "warning": warning})
        WARMED.append(job.run)
