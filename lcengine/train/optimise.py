"""Optimisers: learning rates by layer, and how they change over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from lcengine.errors import InputError
from lcengine.train.options import Schedule

REST = "rest"
START, END = 1 / 25, 1e-4
"""Of one-cycle: shares of the greatest learning rate where it begins and ends, as fast.ai's."""
RISE = 0.3
"""Share of one-cycle's steps in which the learning rate rises."""


def optimiser(model: nn.Module, schedule: Schedule, head: str) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov's momentum.

    `head`: the prefix that the learning rate of "head" is for.
    """
    groups = parameter_groups(model, schedule, head)
    if schedule.optimizer == "sgd":
        momentum = schedule.momentum
        return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(groups)


def parameter_groups(model: nn.Module, schedule: Schedule, head: str) -> list[dict[str, object]]:
    """Parameters by learning rate, those that decay apart; the longest prefix decides.

    `InputError` for a prefix that no parameter has, and where some have none.
    """
    own = {"head": head}
    prefixes = {own.get(name, name).rstrip("."): name for name in schedule.learning_rate}
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        fitting = [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
        key = prefixes[max(fitting, key=len)] if fitting else REST
        found.setdefault((key, parameter.ndim > 1), []).append(parameter)
    used = {key for key, _ in found}
    unknown = [key for key in schedule.learning_rate if key not in used]
    if unknown or not used <= schedule.learning_rate.keys():
        there = ", ".join(dict(model.named_children()))
        raise InputError(
            f"training.learning_rate has {', '.join(schedule.learning_rate)}; expected {REST}, and "
            f"prefixes of parameters: head or some of {there}"
        )
    return [
        {
            "params": parameters,
            "lr": schedule.learning_rate[key],
            # A scale or an offset that shrinks would only lose what normalisation found.
            "weight_decay": schedule.weight_decay if decays else 0.0,
        }
        for (key, decays), parameters in found.items()
    ]


def factor(schedule: Schedule, steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at a step of `steps`, from 0."""
    last = max(1, steps - 1)

    def cosine(share: float, low: float) -> float:
        return low + (1 - low) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def at(step: int) -> float:
        if schedule.schedule == "one-cycle":  # Smith & Topin (2019)
            share = step / last
            if share < RISE:
                return cosine(1 - share / RISE, START)
            return cosine((share - RISE) / (1 - RISE), END)
        rising = schedule.warmup * steps
        if step < rising:
            return (step + 1) / (math.floor(rising) + 1)
        if schedule.schedule == "constant":
            return 1.0
        return cosine((step - rising) / max(1.0, steps - rising), 0.0)  # SGDR without restarts

    return at
