"""The objective of labelled pixels: every step lowers the loss of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lcengine.errors import InputError
from lcengine.legends import IGNORE, Legend
from lcengine.metrics import Accuracy
from lcengine.train.data import Batches
from lcengine.train.losses import Loss, Sums
from lcengine.train.objective import Batch
from lcengine.train.optimise import factor, optimiser
from lcengine.train.options import Schedule


@dataclass(eq=False)
class Supervised:
    """An `Objective`. `steps`: of the whole training; `head`: prefix of the parameters of "head".

    `validation`: batches that each epoch is measured on; None: the last weights are kept.
    """

    loss: Loss
    legend: Legend
    schedule: Schedule
    steps: int
    validation: Batches | None
    head: str
    taken: int = field(default=0, init=False)
    """Steps taken."""
    best: dict[str, Any] = field(default_factory=dict, init=False)
    """Epoch, score and weights of the best epoch."""
    waited: int = field(default=0, init=False)
    """Epochs since the best."""

    @property
    def done(self) -> bool:
        """All steps are taken, or no better epoch came in time."""
        patience = self.schedule.patience
        return self.taken >= self.steps or (patience is not None and self.waited >= patience)

    def setup(self, fabric: Fabric, model: nn.Module) -> None:
        """Take the model to the device, and make the optimiser."""
        self._fabric, self._bare = fabric, model.to(memory_format=torch.channels_last)
        made = optimiser(self._bare, self.schedule, self.head)
        self._model, self._optimiser = fabric.setup(self._bare, made)
        self._rates = LambdaLR(made, factor(self.schedule, self.steps))
        self.loss.to(fabric.device)

    def step(self, batch: Batch) -> dict[str, float]:
        """One step on the loss of the whole batch, whatever processes share it."""
        if not self._bare.training:
            self._bare.train()
        rate = float(self._rates.get_last_lr()[0])
        loss = self.loss.value(
            self._added(self.loss.sums(self._model(batch["image"]), batch["label"]))
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {self.taken + 1}; give a lower learning_rate, or clip"
            )
        # Gradients are averaged over the processes, and this loss is of all their pixels.
        self._fabric.backward(loss * self._fabric.world_size)
        if self.schedule.clip is not None:
            self._fabric.clip_gradients(self._model, self._optimiser, max_norm=self.schedule.clip)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._rates.step()
        self.taken += 1
        return {"loss": value, "learning_rate": rate}

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        """Measure the validation split, and keep the weights where they are the best so far."""
        facts = {} if self.validation is None else self._measured(self.validation)
        value = score(facts, self.schedule.keep, epoch)
        if not self.best or value > self.best["score"]:
            weights = {
                name: values.detach().to("cpu", copy=True)
                for name, values in self._bare.state_dict().items()
            }
            self.best = {"epoch": epoch, "score": value, "weights": weights}
            self.waited = 0
        else:
            self.waited += 1
        return facts

    def weights(self) -> dict[str, Tensor]:
        """Those of the best epoch."""
        found: dict[str, Tensor] = self.best["weights"]
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""
        return {
            "model": self._bare.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "rates": self._rates.state_dict(),
            "taken": self.taken,
            "best": self.best,
            "waited": self.waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._bare.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.taken, self.best, self.waited = state["taken"], state["best"], state["waited"]
        self._rates.load_state_dict(dict(state["rates"]))

    def _added(self, sums: Sums) -> Sums:
        """Sums of all processes, with the gradient of one's own."""
        if self._fabric.world_size == 1:
            return sums
        out = {}
        for name, own in sums.items():
            every = self._fabric.all_reduce(own.detach().clone(), reduce_op="sum")
            assert isinstance(every, Tensor)
            # As they are where nothing is learned: all processes must see the same bits, and take
            # the same epoch for the best.
            out[name] = own + (every - own.detach()) if own.requires_grad else every
        return out

    @torch.no_grad()
    def _measured(self, validation: Batches) -> dict[str, float]:
        """Loss and measures of all labelled pixels of the validation split."""
        self._bare.eval()
        if self._fabric.world_size > 1:
            # Batch statistics are of each process; those of the first are kept, and measured.
            for values in self._bare.buffers():
                torch.distributed.broadcast(values, src=0)
        classes = len(self.legend.classes)
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=self._fabric.device)
        total: Sums = {}
        for batch in validation.epoch(self._fabric, 0):
            label = batch["label"]
            if len(label):
                with self._fabric.autocast():
                    logits = self._bare(batch["image"]).float()
            else:  # other processes have the few patches of the last batch
                logits = batch["image"].new_zeros((0, classes, *label.shape[1:]))
            for name, part in self.loss.sums(logits, label).items():
                total[name] = total.get(name, 0) + part.double()
            known = label != IGNORE
            pairs = label[known] * classes + logits.argmax(dim=1)[known]
            counts += torch.bincount(pairs, minlength=classes * classes)
        every = self._fabric.all_reduce(counts, reduce_op="sum")
        assert isinstance(every, Tensor)
        accuracy = Accuracy.of(every.cpu().numpy().reshape(classes, classes), self.legend)
        macro = accuracy.macro
        return {
            "val_loss": float(self.loss.value(self._added(total))),
            "val_f1": macro["f1"],
            "val_iou": macro["iou"],
            "val_accuracy": accuracy.overall,
        }


def score(row: Mapping[str, float], keep: str, epoch: int) -> float:
    """What is greater for better weights."""
    if keep == "last" or "val_loss" not in row:
        return float(epoch)
    value = -row["val_loss"] if keep == "loss" else row[f"val_{keep}"]
    return value if math.isfinite(value) else -math.inf


def kept(rows: Sequence[Mapping[str, float]], keep: str) -> Mapping[str, float]:
    """The row of the log whose weights are kept."""
    return max(enumerate(rows), key=lambda one: (score(one[1], keep, one[0]), -one[0]))[1]
