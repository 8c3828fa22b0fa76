"""One training by several processes, each with a device of its own."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from lcengine.errors import LcengineError, RunError
from lcengine.train.job import Job, Outcome
from lcengine.train.progress import Progress

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

PORT = "MASTER_PORT"
FILE = "outcome.pt"

Run = Callable[[Fabric, Job], Outcome]


def together(fabric: Fabric, job: Job, run: Run) -> Outcome:
    """`run` of a job in every process of a strategy that spawns; what the first one came to.

    Raises what a process raised, if it is one of lcengine's errors, and what `job.hear` raised,
    which ends the training; `RunError` where a process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    line = _Line(spawn.SimpleQueue(), spawn.Event())
    failed: list[LcengineError] = []
    before = os.environ.get(PORT)
    with ExitStack() as stack:
        path = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lcengine-train-"))) / FILE
        )
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="lcengine-ear"))
        ear = pool.submit(_listen, line, job, failed)
        try:
            fabric.launch(partial(_apart, replace(job, hear=line.tell), run, path, line))
        except ProcessException as error:
            line.end()
            ear.result()
            if failed:
                raise failed[0] from None
            if isinstance(error, ProcessExitedException):
                raise RunError(
                    f"a process of the training ended ({error}), perhaps for lack of memory; the "
                    "same training goes on from its last checkpoint"
                ) from error
            raise
        finally:
            line.end()
            # The next training takes a port that is free then.
            os.environ.pop(PORT, None) if before is None else os.environ.update({PORT: before})
        ear.result()
        return Outcome(**torch.load(path, weights_only=True))


@dataclass(frozen=True)
class _Line:
    """From the processes to who started them; `ended`: nobody listens any more."""

    queue: SimpleQueue[Any]
    ended: Event

    def tell(self, told: Progress) -> None:
        """Called in a process; its training ends where nobody listens."""
        if self.ended.is_set():
            raise InterruptedError("the training was given up")
        self.queue.put(told)

    def end(self) -> None:
        """Called by who listens."""
        self.ended.set()
        self.queue.put(None)


def _listen(line: _Line, job: Job, failed: list[LcengineError]) -> None:
    """Passes on what processes tell, until None."""
    told: Any = ()
    try:
        while (told := line.queue.get()) is not None:
            if isinstance(told, LcengineError):
                failed.append(told)
            else:
                job.hear(told)
    finally:
        # Where `hear` raised: processes end, and do not wait for ever to tell.
        line.ended.set()
        while told is not None:
            told = line.queue.get()


def _apart(job: Job, run: Run, path: Path, line: _Line, fabric: Fabric) -> None:
    """One process."""
    try:
        # Memory that came from the parent is shared by all processes.
        outcome = run(fabric, replace(job, model=copy.deepcopy(job.model)))
        if fabric.global_rank == 0:
            torch.save(vars(outcome), path)
    except LcengineError as error:
        line.queue.put(error)
        raise
    finally:
        torch.distributed.destroy_process_group()
