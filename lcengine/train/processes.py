"""One training by several processes, each with a device of its own."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessRaisedException

from lcengine.errors import LcengineError
from lcengine.train.job import Job, Outcome

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

PORT = "MASTER_PORT"
FILE = "outcome.pt"

Run = Callable[[Fabric, Job], Outcome]


def together(fabric: Fabric, job: Job, run: Run) -> Outcome:
    """`run` of a job in every process of a strategy that spawns; what the first one came to.

    Raises what a process raised, if it is one of lcengine's errors.
    """
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    failed: list[LcengineError] = []
    ear = Thread(target=_listen, args=(queue, job, failed), daemon=True)
    ear.start()
    before = os.environ.get(PORT)
    with tempfile.TemporaryDirectory(prefix="lcengine-train-") as scratch:
        path = Path(scratch) / FILE
        try:
            fabric.launch(partial(_apart, replace(job, hear=queue.put), run, path, queue))
        except ProcessRaisedException:
            queue.put(None)
            ear.join()
            if failed:
                raise failed[0] from None
            raise
        finally:
            # The next training takes a port that is free then.
            os.environ.pop(PORT, None) if before is None else os.environ.update({PORT: before})
        queue.put(None)
        ear.join()
        return Outcome(**torch.load(path, weights_only=True))


def _listen(queue: SimpleQueue[Any], job: Job, failed: list[LcengineError]) -> None:
    """Passes on what processes tell, until None."""
    while (told := queue.get()) is not None:
        if isinstance(told, LcengineError):
            failed.append(told)
        else:
            job.hear(told)


def _apart(job: Job, run: Run, path: Path, queue: SimpleQueue[Any], fabric: Fabric) -> None:
    """One process."""
    try:
        # Memory that came from the parent is shared by all processes.
        outcome = run(fabric, replace(job, model=copy.deepcopy(job.model)))
        if fabric.global_rank == 0:
            torch.save(vars(outcome), path)
    except LcengineError as error:
        queue.put(error)
        raise
    finally:
        torch.distributed.destroy_process_group()
