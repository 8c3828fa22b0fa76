"""What a worker does for samples: cut the patches of a part, and sum up those for training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import engine, jobs
from lcengine.errors import InputError
from lcengine.inputs import Arrays, Input
from lcengine.kernels.counts import class_counts
from lcengine.samples.plan import SamplePlan
from lcengine.samples.source import LABEL, STATISTICS, TABLE
from lcengine.samples.statistics import Sums, statistics, sums


def load(data: Mapping[str, Any], file: jobs.File) -> SamplePlan:
    """A frozen plan with its table."""
    return SamplePlan.from_json(data, file(TABLE))


def compute(plan: SamplePlan, number: int, _attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """The patches of a part and its receipt.

    `InputError` where the labels are not those of the plan any more.
    """
    arrays = _cut(plan, number)
    planned = plan.counts(number)
    changed = int((_counts(arrays[LABEL], planned.shape[1]) != planned).any(axis=1).sum())
    if changed:
        raise InputError(
            f"{changed} of {len(planned)} patches have other labels than when the samples were "
            "planned; begin again with --restart"
        )
    training = plan.training(number)
    inputs = plan.source.inputs
    kept = {entry.name: arrays[entry.name][training] for entry in inputs}
    receipt = {
        "tile": number,
        "pixels": int(arrays[LABEL].size),
        "statistics": sums(inputs, kept),
        "empty": {entry.name: _empty(entry, arrays[entry.name]) for entry in inputs},
        "spent": {"bytes_read": sum(values.nbytes for values in arrays.values())},
    }
    return arrays, receipt


def _counts(labels: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.uint32]:
    """(n, K) pixels of each class in (n, y, x) labels."""
    number, edge = labels.shape[:2]
    out = np.zeros((number, classes), np.uint32)
    tops = np.arange(number, dtype=np.int64) * edge
    class_counts(labels.reshape(-1, edge), tops, np.zeros_like(tops), edge, out)
    return out


def _empty(entry: Input, values: npt.NDArray[Any]) -> int:
    """How many patches have no valid pixel."""
    return sum(not entry.valid(patch).any() for patch in values)


def _cut(plan: SamplePlan, number: int) -> Arrays:
    """The patches of a part, as the table orders them."""
    pieces = [plan.source.cut(scene, windows) for scene, windows in plan.windows(number)]
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def finish(plan: SamplePlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is said of the samples, their table, and the statistics of training patches."""
    inputs = plan.source.inputs
    empty = Counter({entry.name: 0 for entry in inputs})

    def parts() -> Iterator[Sums]:
        for receipt in receipts():
            empty.update(receipt["empty"])
            yield receipt["statistics"]

    found = statistics(inputs, parts())
    facts = {**plan.facts(), "empty": dict(empty)}
    return facts, {**plan.files(), STATISTICS: json.dumps(found, indent=1).encode()}


KIND = jobs.Kind(load, compute, finish)
