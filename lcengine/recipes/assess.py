"""How good a model is on samples that it has not seen: counts over all their pixels."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.inputs import observed
from lcengine.kernels.confusion import count_pairs
from lcengine.legends import IGNORE
from lcengine.metrics import Accuracy, Reliability
from lcengine.models.pixels import PixelPredictor
from lcengine.samples.source import LABEL

if TYPE_CHECKING:
    from lcengine.models import Predictor
    from lcengine.samples.sampleset import SampleSet

BATCH: Final = 2**26
"""Most bytes that a batch takes, whatever the memory."""
PATCHES: Final = 8
"""That a network predicts at once."""


def assess(
    predictor: Predictor, samples: SampleSet, split: str, *, memory: int = 2**31, threads: int = 2
) -> tuple[Accuracy, Reliability]:
    """Accuracy on the labelled pixels of a split, and what the probabilities are worth there.

    Pixels that overlapping patches share count once for each patch. `memory`: bytes that all
    batches together take, about. A network predicts whole patches, whatever its maps are made of.
    Raises `InputError` where there is no such split, or patches are not the windows that the model
    predicts at once.
    """
    spec = predictor.spec
    network = spec.stride is not None
    if not network and spec.patch not in (1, samples.patch):
        raise InputError(
            f"the model predicts windows of {spec.patch} pixels and {samples.path} has patches of "
            f"{samples.patch}; cut samples with patch = {spec.patch}"
        )
    members = samples.split(split)
    step = PATCHES if network else _step(predictor, samples, min(BATCH, memory // (2 * threads)))
    parts = [members[i : i + step] for i in range(0, len(members), step)]
    # A network has threads of its own.
    with ThreadPoolExecutor(
        1 if network else threads, thread_name_prefix="lcengine-assess"
    ) as pool:
        found = list(pool.map(lambda part: _part(predictor, samples, part), parts))
    accuracy, reliability = found[0]
    for counts, curve in found[1:]:
        accuracy, reliability = accuracy + counts, reliability + curve
    return accuracy, reliability


def _step(predictor: Predictor, samples: SampleSet, memory: int) -> int:
    """Patches that are predicted at once."""
    stored = sum(math.prod(entry.lead) * np.dtype(entry.dtype).itemsize for entry in samples.inputs)
    features = predictor.features.names if isinstance(predictor, PixelPredictor) else ()
    # Stored numbers thrice, features twice, probabilities thrice and as float64.
    pixel = 3 * stored + 8 * len(features) + 20 * len(predictor.spec.legend.classes) + 64
    return max(1, memory // (pixel * samples.patch**2))


def _part(
    predictor: Predictor, samples: SampleSet, part: npt.NDArray[np.int64]
) -> tuple[Accuracy, Reliability]:
    arrays = samples.read(part)
    label = arrays[LABEL]
    valid = observed(samples.inputs, arrays)
    proba = predictor.predict({entry.name: arrays[entry.name] for entry in samples.inputs}, valid)
    mapped = proba.argmax(axis=1).astype(np.uint8)
    mapped[~valid] = IGNORE
    classes = len(samples.legend.classes)
    counts = np.zeros((classes, classes + 1), np.int64)
    count_pairs(label.reshape(-1), mapped.reshape(-1), counts)
    known = valid & (label != IGNORE)
    curve = Reliability.of(np.moveaxis(proba, 1, 0)[:, known], label[known])
    return Accuracy.of(counts, samples.legend), curve
