"""Training of networks from samples: what a recipe says becomes a job of the loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lcengine.errors import InputError
from lcengine.models.nn.architecture import Architecture, NetworkOptions, channels, described
from lcengine.models.nn.calibrate import calibrate
from lcengine.models.nn.predictor import NetworkPredictor
from lcengine.models.nn.weights import start
from lcengine.models.pixels import training_facts
from lcengine.models.predictor import Training
from lcengine.models.spec import ModelSpec
from lcengine.models.stream import class_weights
from lcengine.samples.augment import Augment
from lcengine.samples.loader import TRAIN, Loader, scaling
from lcengine.samples.sampleset import SampleSet
from lcengine.samples.source import PIXELS
from lcengine.train.data import Batches
from lcengine.train.job import Job
from lcengine.train.loop import train
from lcengine.train.losses import Loss
from lcengine.train.options import Schedule, SupervisedOptions
from lcengine.train.progress import CHECKPOINT, finite
from lcengine.train.supervised import Supervised, kept

VAL = "val"


def fit(
    samples: SampleSet,
    options: NetworkOptions,
    training: Training,
    name: str,
    architecture: Architecture,
) -> NetworkPredictor:
    """A network trained on the labelled pixels of the training split; see `Training`.

    Raises `InputError` where fewer than two classes have any, for options that do not go together,
    and where the loss is no number.
    """
    aim, schedule = _chosen(training)
    counts = pixel_counts(samples)
    _check(samples, counts, training)
    _check_edge(schedule.augment.crop or samples.patch, architecture.output_stride(options), name)
    if options.patch is None and schedule.augment.crop:
        options = options.model_copy(update={"patch": schedule.augment.crop})
    spec = described(name, architecture, options, samples, aim.activation)
    module = _first(architecture, options, spec, training.seed)
    start(module, architecture, options, spec, training.say)
    job = _job(samples, spec, module, architecture.head, training)
    if job.folder and (job.folder / CHECKPOINT).exists():
        training.say(f"going on from the checkpoint in {job.folder}")
    outcome = train(job)
    best = kept(outcome.rows, schedule.keep)
    training.say(f"the weights of epoch {best['epoch']:g} of {len(outcome.rows)} are kept")
    module.to("cpu").load_state_dict(outcome.weights)
    facts = {
        **training_facts(samples, training),
        "pixels": dict(zip(spec.legend.names, counts.tolist(), strict=True)),
        "objective": aim.model_dump(mode="json"),
        "schedule": schedule.identity(),
        "parameters": sum(values.numel() for values in module.parameters()),
        "epochs": len(outcome.rows),
        "kept": _facts(best),
    }
    predictor = NetworkPredictor(spec, module, *normalisation(samples))
    if training.calibrate:
        facts["calibration"] = calibrate(predictor, samples, VAL, training)
    predictor.spec = replace(spec, training=facts)
    return predictor


def _facts(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row of the log without its time: the same training makes the same model file."""
    return finite({name: value for name, value in row.items() if name != "seconds"})


def _check(samples: SampleSet, counts: npt.NDArray[np.int64], training: Training) -> None:
    """`InputError`, before a long training, for samples that cannot teach it."""
    names = [name for name, count in zip(samples.legend.names, counts, strict=True) if not count]
    if len(counts) - len(names) < 2:
        raise InputError(
            f"labelled pixels of {samples.path} are of {len(counts) - len(names)} classes, "
            "expected two at least; give labels of several classes"
        )
    if names:
        training.say(f"no training pixels of {', '.join(names)}: it learns that there are none")
    if training.calibrate and VAL not in samples.splits:
        raise InputError(
            f"{samples.path} has no validation pixels to calibrate with; cut samples with a split "
            f"{VAL!r}, or leave calibrate out"
        )


def _check_edge(edge: int, step: int, name: str) -> None:
    """`InputError` where the deepest layers would see nothing but a patch's reflection."""
    if edge < step:
        raise InputError(
            f"patches of {edge} pixels are smaller than the output stride of this {name}, {step}: "
            "its deepest layers would see next to nothing; cut larger patches, or give it less "
            "depth"
        )


def _chosen(training: Training) -> tuple[SupervisedOptions, Schedule]:
    """What the recipe says, or defaults."""
    aim, schedule = training.objective or SupervisedOptions(), training.schedule or Schedule()
    if not (isinstance(aim, SupervisedOptions) and isinstance(schedule, Schedule)):
        raise InputError(
            f"training has {type(aim).__name__} and {type(schedule).__name__}, expected "
            "SupervisedOptions and Schedule of lcengine.train.options"
        )
    return aim, schedule


def pixel_counts(samples: SampleSet) -> npt.NDArray[np.int64]:
    """Labelled pixels of each class (class,) in training patches, as often as these show them."""
    columns = [PIXELS.format(code) for code in samples.legend.codes]
    table = samples.table[columns].to_numpy(np.int64)
    return np.asarray(table[samples.split(TRAIN)].sum(axis=0))


def normalisation(samples: SampleSet) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Means and gains (channel,) of all that a network sees, as the loader has them."""
    found = [scaling(samples, entry) for entry in samples.inputs]
    means, gains = (np.concatenate(values) for values in zip(*found, strict=True))
    return means, gains


def _first(
    architecture: Architecture, options: NetworkOptions, spec: ModelSpec, seed: int
) -> nn.Module:
    """The network before training; nobody's generator is moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(options, channels(spec.inputs), len(spec.legend.classes))


def _job(
    samples: SampleSet, spec: ModelSpec, module: nn.Module, head: str, training: Training
) -> Job:
    aim, schedule = _chosen(training)
    loader = _loader(samples, schedule, training)
    steps = min(schedule.steps or schedule.epochs * len(loader), 2**31)
    epochs = -(-steps // len(loader)) if schedule.steps else schedule.epochs
    validation = None
    if VAL in samples.splits:
        batch = min(schedule.batch, samples.splits[VAL])
        later = Loader(samples, VAL, batch, threads=training.threads, observed=True)
        validation = Batches(later, spec.output_stride)
    elif schedule.patience is not None:
        raise InputError(
            "training.patience asks for epochs that are better on validation samples, and there "
            "are none; make some, or leave it out"
        )
    else:
        training.say("no validation samples: the last weights are kept")
    objective = Supervised(
        Loss(aim, _weights(samples, training)),
        samples.legend,
        schedule,
        steps,
        validation,
        head,
    )
    return Job(
        module,
        objective,
        Batches(loader, spec.output_stride),
        schedule,
        epochs,
        steps,
        training.seed,
        training.threads,
        training.folder,
        _identity(samples, spec, module, training),
        training.hear,
    )


def _loader(samples: SampleSet, schedule: Schedule, training: Training) -> Loader:
    members = samples.splits.get(TRAIN, 0) * schedule.augment.times
    batch = max(1, min(schedule.batch, members))
    if batch < schedule.devices:
        raise InputError(
            f"training.batch is {batch} patches for {schedule.devices} devices; expected one for "
            "each at least"
        )
    return Loader(
        samples,
        TRAIN,
        batch,
        Augment(**schedule.augment.model_dump()),
        weights="balanced" if schedule.balanced else None,
        seed=training.seed,
        drop_last=True,
        threads=training.threads,
        observed=True,
    )


def _weights(samples: SampleSet, training: Training) -> torch.Tensor:
    """What a pixel of each class (class,) counts in the loss; 1 where no pixel is."""
    counts = pixel_counts(samples)
    present = np.flatnonzero(counts)
    found = class_weights(training.class_weight, samples.legend, present.tolist(), counts[present])
    out = np.ones(len(counts))
    out[present] = found
    return torch.from_numpy(out.astype(np.float32))


def _identity(samples: SampleSet, spec: ModelSpec, module: nn.Module, training: Training) -> str:
    """All that decides the result, as a text."""
    aim, schedule = _chosen(training)
    begun = hashlib.sha256()
    for values in module.state_dict().values():
        begun.update(values.numpy().tobytes())
    told: Mapping[str, Any] = {
        "run_id": samples.facts.get("run_id"),
        "spec": spec.to_json(),
        "weights": begun.hexdigest(),
        "class_weights": _weights(samples, training).tolist(),
        "objective": aim.model_dump(mode="json"),
        "schedule": schedule.identity(),
        "seed": training.seed,
        "threads": training.threads,
    }
    return json.dumps(told, sort_keys=True)
