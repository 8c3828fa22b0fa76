"""Where a training is, in a file from which it goes on bit by bit.

Read with `weights_only`: what a file holds can be tensors, numbers, texts and their containers, and
never code.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lcengine.errors import InputError
from lcengine.train.progress import CHECKPOINT


@dataclass
class Place:
    """What the loop itself must know to go on.

    `batch`: steps of the epoch that are taken. `sums`: what these logged, added. `rows`: the log of
    the epochs before. `seconds` so far.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def save(folder: Path, identity: str, place: Place, objective: Mapping[str, Any]) -> None:
    """Write a checkpoint in the place of the last one; whole, or not at all."""
    content = {"identity": identity, "place": vars(place), "objective": dict(objective)}
    beside = folder / f".{CHECKPOINT}"
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, folder / CHECKPOINT)


def load(folder: Path, identity: str) -> tuple[Place, dict[str, Any]] | None:
    """The place and the objective's state of a folder's checkpoint; None without one.

    `InputError` for what is no checkpoint, and for that of another training.
    """
    path = folder / CHECKPOINT
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        place, objective, made_by = Place(**found["place"]), found["objective"], found["identity"]
    except FileNotFoundError:
        return None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no checkpoint ({type(error).__name__}); remove it, or --restart"
        ) from error
    if made_by != identity:
        raise InputError(
            f"{path} is of another training; choose another folder, or replace it with --restart"
        )
    return place, objective
