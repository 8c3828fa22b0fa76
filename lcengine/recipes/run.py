"""From a recipe to a folder: samples, the model, and how good it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lcengine
from lcengine import engine, jobs, models, samples
from lcengine.classmap import find_legend
from lcengine.errors import InputError, StoreError
from lcengine.evaluate.picture import matrix, reliability
from lcengine.features import Features
from lcengine.inputs import Input
from lcengine.legends import Legend, legends
from lcengine.metrics import Accuracy, Reliability
from lcengine.models import ModelRef, Training
from lcengine.models.importance import importance
from lcengine.models.pixels import PixelOptions, PixelPredictor
from lcengine.recipes.assess import assess
from lcengine.recipes.examples import examples
from lcengine.recipes.schema import DataTable, Recipe
from lcengine.samples.sampleset import SampleSet
from lcengine.samples.source import Source
from lcengine.store import differences
from lcengine.train.progress import CHECKPOINT, Hear

SAMPLES, MODEL, REPORT = "samples.zarr", "model", "report.json"
TRAINING = "training"
"""Where networks keep their checkpoint, log and pictures."""
PICTURE = "confusion-{}.png"
EXAMPLES = "examples-{}.png"
RELIABILITY = "reliability.png"
IMPORTANCE = "importance.png"
HELD_OUT = ("val", "test")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    """How samples are cut, where they must be; see `jobs.run`. `hear`: see `Training`."""

    client: jobs.ClientSource | None = None
    policy: engine.Policy | None = None
    listener: jobs.Watcher | None = None
    restart: bool = False
    hear: Hear = lambda _: None


@dataclass(frozen=True)
class Trained:
    """What training made: `model`, and how good it is on the splits that it was not fitted to."""

    folder: Path
    samples: str
    model: ModelRef
    accuracy: Mapping[str, Accuracy]
    reliability: Mapping[str, Reliability]
    report: Mapping[str, Any]


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str] | None = None,
    running: Running | None = None,
    say: Say = lambda _: None,
) -> Trained:
    """Cut the samples of a recipe, fit its model, and say how good it is.

    Writes `samples.zarr`, the model in `model`, `report.json` and pictures (a confusion matrix of
    each split, patches with reference and prediction, reliability curves, importance of features)
    to `folder` (default: the recipe's); networks keep their log and learning curve in `training`.
    The same recipe goes on where it stopped, a network from its last checkpoint, and does nothing
    where all is there. `say` hears what a user should know.

    Raises `InputError` for what the recipe cannot mean, `StoreError` where the folder holds what
    another recipe made (unless `restart`), and what `jobs.run` raises.
    """
    how = running or Running()
    place = Path(folder or recipe.folder).absolute()
    before = None if how.restart else _finished(recipe, place)
    path = _cut(recipe, place, how)
    found = samples.open(path)
    identity = {"recipe": recipe.to_json(), "samples": found.facts["run_id"]}
    identity["package"] = lcengine.__version__
    if before is not None and before["identity"] == identity and _there(before, place):
        say(f"{place} holds what this recipe makes already")
        return _trained(before, place, path)
    _check(recipe, found.inputs, found.legend)
    held_out = [split for split in HELD_OUT if split in found.splits]
    if recipe.output.importance and not held_out:
        raise InputError(
            f"{recipe.file}: output.importance needs val or test samples, and there are none; "
            "make some, or leave it out"
        )
    if how.restart and (place / TRAINING).is_dir():
        shutil.rmtree(place / TRAINING)
    training = _training(recipe, place, say, how.hear)
    report = {"identity": identity, **_made(recipe, found, place, held_out, training)}
    _write(place / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
    (place / TRAINING / CHECKPOINT).unlink(missing_ok=True)
    return _trained(report, place, path)


def _finished(recipe: Recipe, place: Path) -> dict[str, Any] | None:
    """The report that lies there; `StoreError` where it is another recipe's."""
    try:
        report: dict[str, Any] = json.loads((place / REPORT).read_bytes())
        old = report["identity"]["recipe"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{place / REPORT} is no report of a training ({error!r}); choose another folder, or "
            "--restart"
        ) from error
    changed = differences(recipe.to_json(), old)
    if changed:
        raise StoreError(
            f"{place} holds what another recipe made ({'; '.join(changed)}); choose another folder "
            "with -o, or replace it with --restart"
        )
    return report


def _there(report: Mapping[str, Any], place: Path) -> bool:
    """Whether the model is the one of the report."""
    if not (place / MODEL).is_dir():
        return False
    return bool(models.identity(place / MODEL) == report["model"]["sha256"])


def _cut(recipe: Recipe, place: Path, how: Running) -> str:
    """The samples, cut where they must be."""
    spec = recipe.samples
    if isinstance(spec, str):
        return spec
    assert recipe.data is not None
    source = _source(recipe, recipe.data)
    _check(recipe, source.inputs, source.legend)
    place.mkdir(parents=True, exist_ok=True)

    def plan() -> samples.SamplePlan:
        return samples.plan_samples(source, spec)

    return jobs.run(
        plan,
        place / SAMPLES,
        client=how.client,
        request={"source": source.to_json(), "spec": spec.to_json()},
        restart=how.restart,
        policy=how.policy,
        listener=how.listener,
    )


def _check(recipe: Recipe, inputs: tuple[Input, ...], legend: Legend) -> None:
    """`InputError`, before anything is cut, for classes and features that the data have not."""
    weight = recipe.objective.class_weight
    key = "objective.class_weight"
    try:
        for name in weight if isinstance(weight, dict) else ():
            legend.find(name)
        key = "model.features"
        if isinstance(recipe.options, PixelOptions):
            Features.parse(recipe.options.features, inputs)
    except InputError as error:
        raise InputError(f"{recipe.file}: {key}: {error}") from error


def _source(recipe: Recipe, data: DataTable) -> Source:
    legend = data.legend
    if legend is not None and legend not in legends():
        legend = recipe.path(legend)
    sources = data.sources
    return samples.open_stack(
        {name: recipe.path(source.path) for name, source in sources.items()},
        recipe.path(data.labels),
        legend=None if legend is None else find_legend(legend),
        bands={name: source.bands for name, source in sources.items() if source.bands},
        resampling={name: source.resampling for name, source in sources.items()},
    )


def _made(
    recipe: Recipe, found: SampleSet, place: Path, held_out: list[str], training: Training
) -> dict[str, Any]:
    """Fit, measure and write the model and pictures; what the report says of them."""
    say = training.say
    say(f"fitting {recipe.kind} to {found.splits.get('train', 0):,} patches ...")
    try:
        predictor = models.kind(recipe.kind).fit(found, recipe.options, training)
    except InputError as error:
        raise InputError(f"{recipe.file}: {error}") from error
    objective = recipe.objective
    if held_out:
        say(f"measuring it on {' and '.join(held_out)} ...")
    measured = {
        split: assess(predictor, found, split, memory=objective.memory, threads=objective.threads)
        for split in held_out
    }
    predictor.spec = replace(
        predictor.spec, metrics={split: _brief(*both) for split, both in measured.items()}
    )
    ref = models.save(predictor, place / MODEL)
    report: dict[str, Any] = {
        "model": {"kind": recipe.kind, "sha256": ref.sha256},
        "samples": {"path": found.path, "splits": found.facts.get("splits", found.splits)},
        "accuracy": {split: accuracy.to_json() for split, (accuracy, _) in measured.items()},
        "reliability": {split: curve.to_json() for split, (_, curve) in measured.items()},
    }
    if recipe.output.importance:
        say(f"permuting features {recipe.output.importance} times ...")
        report["importance"] = _importance(recipe, predictor, found, held_out[0], place)
    for split, (accuracy, _) in measured.items():
        _write(place / PICTURE.format(split), matrix(accuracy))
        _write(place / EXAMPLES.format(split), examples(predictor, found, split))
    if measured:
        curves = {split: curve for split, (_, curve) in measured.items()}
        _write(place / RELIABILITY, reliability(curves))
    return report


def _training(recipe: Recipe, place: Path, say: Say, hear: Hear) -> Training:
    objective = recipe.objective
    return Training(
        class_weight=objective.class_weight,
        memory=objective.memory,
        calibrate=objective.calibrate,
        seed=objective.seed,
        threads=objective.threads,
        say=say,
        objective=recipe.aim,
        schedule=recipe.schedule,
        folder=None if recipe.schedule is None else place / TRAINING,
        hear=hear,
    )


def _importance(
    recipe: Recipe, predictor: models.Predictor, found: SampleSet, split: str, place: Path
) -> dict[str, Any]:
    """What each feature is worth, measured on the first split that was not fitted to."""
    assert isinstance(predictor, PixelPredictor)  # the recipe was checked
    told = importance(
        predictor,
        found,
        split=split,
        repeats=recipe.output.importance,
        seed=recipe.objective.seed,
        memory=recipe.objective.memory,
    )
    told.picture(place / IMPORTANCE)
    return told.to_json()


def _brief(accuracy: Accuracy, curve: Reliability) -> dict[str, Any]:
    """What the model itself says of a split."""
    told = accuracy.to_json()
    kept = ("pixels", "overall_accuracy", "kappa", "macro", "weighted")
    classes = {entry["name"]: {m: entry[m] for m in ("f1", "iou")} for entry in told["classes"]}
    error = curve.to_json()["expected_calibration_error"]
    out = {name: told[name] for name in kept}
    return {**out, "classes": classes, "expected_calibration_error": error}


def _trained(report: Mapping[str, Any], place: Path, path: str) -> Trained:
    return Trained(
        place,
        path,
        ModelRef(str(place / MODEL), report["model"]["sha256"]),
        {split: Accuracy.from_json(data) for split, data in report["accuracy"].items()},
        {split: Reliability.from_json(data) for split, data in report["reliability"].items()},
        report,
    )


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    os.replace(beside, path)
