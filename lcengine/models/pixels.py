"""Models that judge every pixel by itself: features of its bands, then an estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

import lcengine
from lcengine.errors import InputError
from lcengine.features import Features
from lcengine.legends import Legend
from lcengine.metrics import Reliability
from lcengine.models.calibration import Tempered, best_temperature, log_loss, restored, tempered
from lcengine.models.predictor import Files, Kind, State, Training, array
from lcengine.models.spec import ModelSpec
from lcengine.models.stream import PixelStream

if TYPE_CHECKING:
    from lcengine.samples.sampleset import SampleSet

FLOAT = npt.NDArray[np.float32]

_PRESENT = "classes"
"""Name of the array with the legend indices of an estimator's classes."""


class Estimator(Protocol):
    """Probabilities from features, on one thread, the same bits for a pixel in any company."""

    def proba(self, features: FLOAT) -> FLOAT:
        """(feature, pixel) float32, all finite -> (class, pixel) float32, adding up to 1.

        Its classes are those with training pixels, in the order of the legend.
        """
        ...

    def state(self) -> tuple[State, Files]:
        """What `Kind.restore` makes it of again."""
        ...


class PixelOptions(BaseModel):
    """What every pixel model takes.

    `features`: as `lcengine.features.Features` knows them, e.g. `ndvi:p10,p50,p90`; empty: bands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[str, ...] = ()


@dataclass(eq=False)
class PixelPredictor:
    """A `Predictor` of an estimator; classes without training pixels have probability 0.

    `present`: legend indices of the estimator's classes.
    """

    spec: ModelSpec
    features: Features
    estimator: Estimator
    present: tuple[int, ...]

    def predict(
        self, inputs: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[np.bool_]
    ) -> FLOAT:
        """Probabilities (n, class, y, x) of `Predictor`."""
        out = np.zeros((len(valid), len(self.spec.legend.classes), *valid.shape[1:]), np.float32)
        if valid.any():
            image = self.features.compute(inputs)
            rows = self.estimator.proba(gathered(image, valid))
            for index, values in zip(self.present, rows, strict=True):
                out[:, index][valid] = values
        return out

    def state(self) -> tuple[State, Files]:
        """Arrays of the estimator, and which classes it knows."""
        arrays, files = self.estimator.state()
        return {**arrays, _PRESENT: np.array(self.present, np.int64)}, files


def gathered(image: FLOAT, valid: npt.NDArray[np.bool_]) -> FLOAT:
    """The features (feature, pixel) of valid pixels of (feature, n, y, x)."""
    if valid.all():
        return np.ascontiguousarray(image.reshape(len(image), -1))
    out = np.empty((len(image), int(valid.sum())), np.float32)
    for values, row in zip(image, out, strict=True):
        row[:] = values[valid]
    return out


O = TypeVar("O", bound=PixelOptions)  # noqa: E741 (O for options)

Fit = Callable[[PixelStream, O, Training], Estimator]
"""How an estimator is made of labelled pixels: of `PixelStream.drawn` or of its batches."""
Restore = Callable[[State, Files], Estimator]
"""Inverse of `Estimator.state`; other arrays may be there."""


@dataclass(frozen=True)
class PixelKind(Kind):
    """A kind whose estimator can also judge what is no pixel, such as segments.

    `estimate`: how it is fitted; `restore_estimator`: inverse of `Estimator.state`.
    """

    estimate: Fit[Any]
    restore_estimator: Restore


def pixel_kind(name: str, options: type[O], fit: Fit[O], restore: Restore) -> PixelKind:
    """The `KIND` of an estimator."""

    def fitted(samples: SampleSet, chosen: O, training: Training) -> PixelPredictor:
        return fit_pixels(samples, chosen, training, name, fit)

    def read(spec: ModelSpec, arrays: State, files: Files) -> PixelPredictor:
        features = Features.parse(_texts(spec), spec.inputs)
        present = present_of(arrays, _PRESENT, len(spec.legend.classes))
        estimator = restored(restore(arrays, files), arrays)
        # It fits to its description: found out now, not by a worker.
        rows = estimator.proba(np.zeros((len(features.names), 1), np.float32))
        if len(rows) != len(present):
            raise InputError(
                f"the model's estimator has {len(rows)} classes, expected {len(present)}; copy the "
                "model again"
            )
        return PixelPredictor(spec, features, estimator, present)

    return PixelKind(options, fitted, read, fit, restore)


def fit_pixels(
    samples: SampleSet, options: O, training: Training, kind: str, fit: Fit[O]
) -> PixelPredictor:
    """A pixel model fitted to the labelled pixels of the training split.

    Raises `InputError` where fewer than two classes have any, or a feature is unknown.
    """
    features = Features.parse(options.features, samples.inputs)
    pixels = PixelStream(
        samples,
        "train",
        features,
        memory=training.memory,
        seed=training.seed,
        class_weight=training.class_weight,
        say=training.say,
    )
    check_classes(pixels.legend, pixels.present, "pixels", samples.path, training)
    check_calibration(pixels, samples.path, training)
    estimator = fit(pixels, options, training)
    if training.calibrate:
        estimator = calibrated(estimator, pixels, training)
    spec = ModelSpec(
        kind=kind,
        inputs=samples.inputs,
        legend=samples.legend,
        resolution=samples.facts.get("place", {}).get("resolution"),
        options=options.model_dump(mode="json"),
        training={**training_facts(samples, training), **_pixel_facts(pixels)},
    )
    return PixelPredictor(spec, features, estimator, pixels.present)


def calibrated(estimator: Estimator, pixels: PixelStream, training: Training) -> Estimator:
    """The estimator at the temperature that suits validation pixels; told in `notes`."""
    held_out = pixels.other("val")
    assert held_out is not None  # `check_calibration`
    drawn = held_out.drawn(beside=12 * len(pixels.present), alike=0)
    before = estimator.proba(np.ascontiguousarray(drawn.x.T))
    temperature = best_temperature(before, drawn.y)
    after = tempered(before, temperature)
    curves = [Reliability.of(shares, drawn.y) for shares in (before, after)]
    pixels.notes["calibration"] = {
        "temperature": temperature,
        "log_loss": [log_loss(shares, drawn.y) for shares in (before, after)],
        "reliability": [curve.to_json() for curve in curves],
    }
    training.say(
        f"temperature {temperature:.3f}: expected calibration error {curves[0].error:.4f} before, "
        f"{curves[1].error:.4f} after, on validation pixels"
    )
    return Tempered(estimator, temperature)


def check_classes(
    legend: Legend, present: Sequence[int], what: str, where: str, training: Training
) -> None:
    """`InputError` without two classes to tell apart; says which classes are absent.

    `what`: pixels or segments; `where` they are from.
    """
    there = [legend.names[index] for index in present]
    if len(there) < 2:
        raise InputError(
            f"labelled {what} of {where} are all of {there or 'no class'}, expected two classes at "
            "least; give labels of several classes"
        )
    absent = [name for name in legend.names if name not in there]
    if absent:
        training.say(f"no training {what} of {', '.join(absent)}: their probability is 0")


def check_calibration(pixels: PixelStream, where: str, training: Training) -> None:
    """`InputError`, before a long fit, where nothing is there to calibrate with."""
    if training.calibrate and pixels.other("val") is None:
        raise InputError(
            f"{where} has no validation pixels to calibrate with; cut samples with a split 'val', "
            "or leave calibrate out"
        )


def training_facts(samples: SampleSet, training: Training) -> dict[str, Any]:
    """Where a model comes from, for `ModelSpec.training`."""
    weight = training.class_weight
    return {
        "samples": samples.path,
        "run_id": samples.facts.get("run_id"),
        "place": samples.facts.get("place"),
        "periods": {entry.name: list(entry.times) for entry in samples.inputs if entry.times},
        "splits": samples.splits,
        "class_weight": weight if weight is None or isinstance(weight, str) else dict(weight),
        "memory": training.memory,
        "seed": training.seed,
        "package": lcengine.__version__,
        "libraries": _libraries(),
    }


def _libraries() -> dict[str, str]:
    """Versions of what may have fitted a model, where it is installed."""
    names = ("scikit-learn", "xgboost", "xgboost-cpu", "torch", "segmentation-models-pytorch")
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _pixel_facts(pixels: PixelStream) -> dict[str, Any]:
    counts = dict(zip(pixels.legend.names, map(int, pixels.counts), strict=True))
    return {"pixels": counts, **pixels.notes}


def _texts(spec: ModelSpec) -> list[str]:
    """Features as the options say; `InputError` for what are none."""
    found = spec.options.get("features", [])
    if not isinstance(found, list | tuple) or not all(isinstance(text, str) for text in found):
        raise InputError(f"the model's features are {found!r}, expected texts; copy it again")
    return list(found)


def present_of(arrays: State, name: str, classes: int) -> tuple[int, ...]:
    """The estimator's classes; `InputError` where they are not of the legend."""
    found = array(arrays, name, np.int64, 1).tolist()
    if not found or sorted(set(found)) != found or not 0 <= found[0] <= found[-1] < classes:
        raise InputError(
            f"the model's classes are {found}, expected numbers below {classes}, ascending; copy "
            "the model again"
        )
    return tuple(found)
