"""The training loop: data, steps, checkpoints and logs, whatever the objective."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from lcengine.train import checkpoint
from lcengine.train.checkpoint import Place
from lcengine.train.job import Job, Outcome
from lcengine.train.log import Log
from lcengine.train.objective import Objective
from lcengine.train.processes import together
from lcengine.train.progress import Progress

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def train(job: Job) -> Outcome:
    """Train, or go on from the checkpoint in the folder.

    On the same machine, with the same versions and threads, a training that was interrupted ends
    with the same bits as one that was not. Raises what the objective raises.
    """
    schedule = job.schedule
    several = schedule.devices > 1
    fabric = Fabric(
        accelerator=schedule.accelerator,
        devices=schedule.devices,
        strategy="ddp_spawn" if several else "auto",
        precision=PRECISIONS[schedule.precision],  # type: ignore[arg-type]
        # One machine: what a scheduler's variables say is of other programs.
        plugins=[LightningEnvironment()],
    )
    if job.folder:
        job.folder.mkdir(parents=True, exist_ok=True)
    return together(fabric, job, _run) if several else _run(fabric, job)


def _run(fabric: Fabric, job: Job) -> Outcome:
    """The loop itself, in each process."""
    with _settings(job.threads, fabric.device.type):
        objective = job.objective
        objective.setup(fabric, job.model)
        found = checkpoint.load(job.folder, job.identity) if job.folder else None
        place = Place()
        if found:
            place, state = found
            objective.load_state_dict(state)
        first = fabric.global_rank == 0
        log = Log(job.folder if first else None, job.schedule.tensorboard, _step(job, place))
        keeper = _Keeper(job, place, objective) if first else None
        try:
            # An epoch that was cut off after its last step has its end before it.
            while place.epoch < job.epochs and (place.batch or not objective.done):
                _epoch(fabric, job, place, log, keeper)
        finally:
            log.close()
        return Outcome(objective.weights(), place.rows)


def _step(job: Job, place: Place) -> int:
    return place.epoch * len(job.batches) + place.batch


class _Keeper:
    """Writes checkpoints when it is time, and tells how far the training is."""

    def __init__(self, job: Job, place: Place, objective: Objective) -> None:
        self.job, self.place, self.objective = job, place, objective
        self.began = time.monotonic() - place.seconds
        self.kept = time.monotonic()

    def tell(self, facts: dict[str, float], measured: bool = False) -> None:
        place, job = self.place, self.job
        place.seconds = time.monotonic() - self.began
        epoch = place.epoch + (not measured)
        step = min(_step(job, place), job.steps)
        told = Progress(epoch, job.epochs, step, job.steps, place.seconds, measured, facts)
        job.hear(told)

    def keep(self, now: bool) -> None:
        late = time.monotonic() - self.kept >= 60 * self.job.schedule.checkpoint
        if self.job.folder and (now or late):
            state = self.objective.state_dict()
            checkpoint.save(self.job.folder, self.job.identity, self.place, state)
            self.kept = time.monotonic()


def _epoch(fabric: Fabric, job: Job, place: Place, log: Log, keeper: _Keeper | None) -> None:
    """The rest of an epoch, and what is measured at its end."""
    objective = job.objective
    with closing(job.batches.epoch(fabric, place.epoch, place.batch)) as batches:
        for batch in batches:
            if objective.done:
                break
            # Nothing random to keep in a checkpoint: each step begins from its own seed.
            torch.manual_seed(_seed(job.seed, place.epoch, place.batch, fabric.global_rank))
            facts = objective.step(batch)
            place.batch += 1
            place.sums = {name: place.sums.get(name, 0.0) + value for name, value in facts.items()}
            log.step(facts, _step(job, place))
            if keeper:
                keeper.tell(facts)
                keeper.keep(now=False)
    means = {name: total / place.batch for name, total in place.sums.items()}
    measured = objective.on_epoch_end(place.epoch)
    row = {"epoch": place.epoch + 1, "step": _step(job, place), **means, **measured}
    place.epoch, place.batch, place.sums = place.epoch + 1, 0, {}
    if keeper:
        keeper.tell({**means, **measured}, measured=True)
        place.rows.append({**row, "seconds": round(place.seconds, 3)})
        log.epoch(place.rows)
        keeper.keep(now=True)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


@contextmanager
def _settings(threads: int, device: str) -> Iterator[None]:
    """Operations that give the same bits again, on so many threads; as before afterwards."""
    # cuBLAS does so with a workspace of its own, and reads this when first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    state = torch.get_rng_state()
    torch.set_num_threads(threads)
    # On GPUs some interpolations have no such operation; they warn.
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warns)
        torch.set_rng_state(state)
