"""Bag of colours: windows in segments, the colours of each as a histogram, a class for each.

Wengert, Douze & Jégou (2011), ACM Multimedia, for regions; here a segment is what k-means puts
together in a window, its class that of most of its labelled pixels, and what is predicted for it is
painted onto its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lcengine.errors import InputError
from lcengine.features.vocabulary import (
    COLORS,
    MOST,
    SEGMENTS,
    Division,
    Vocabulary,
    chosen,
    picked,
)
from lcengine.inputs import observed
from lcengine.models.calibration import restored
from lcengine.models.pixels import (
    Estimator,
    PixelKind,
    calibrated,
    check_calibration,
    check_classes,
    present_of,
    training_facts,
)
from lcengine.models.predictor import Files, Kind, State, Training, kind
from lcengine.models.segments import Block, Segments, collected
from lcengine.models.spec import ModelSpec
from lcengine.models.stream import PixelStream
from lcengine.samples.source import LABEL

if TYPE_CHECKING:
    from lcengine.samples.sampleset import SampleSet

NAME: Final = "bag-of-colors"
TRAIN, VAL = "train", "val"
_BYTES: Final = 2**26
"""Of the windows that are read at once."""
_COLORS, _GAINS, _STEPS, _PRESENT = (
    "vocabulary.colors",
    "vocabulary.gains",
    "vocabulary.steps",
    "segments.classes",
)

RANDOM_FOREST: Final[Mapping[str, Any]] = {"kind": "forest", "trees": 1000}
"""The classifier of the original."""

FLOAT = npt.NDArray[np.float32]


class ColorOptions(BaseModel):
    """How a bag of colours is made.

    `colors` of the vocabulary, from `bands` (default red, green, blue, nir) in so many `rounds`;
    `segments` of a window. `classifier`: a pixel model's kind and options, for segments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    colors: int = Field(default=COLORS, ge=2, le=MOST)
    segments: int = Field(default=SEGMENTS, ge=1, le=MOST)
    bands: tuple[str, ...] = ()
    rounds: int = Field(default=100, ge=1)
    classifier: Mapping[str, Any] = Field(default_factory=lambda: dict(RANDOM_FOREST))

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> ColorOptions:
        """Options of a mapping; `InputError` names those that cannot be."""
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise InputError(f"a bag of colours cannot have {'; '.join(wrong)}") from error

    @field_validator("classifier")
    @classmethod
    def _known(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            classifier(value)
        except InputError as error:
            raise ValueError(str(error)) from error
        return value


def classifier(chosen: Mapping[str, Any]) -> tuple[PixelKind, Any]:
    """The kind of a classifier of segments, and its options, checked."""
    options = dict(chosen)
    name = str(options.pop("kind", ""))
    found = kind(name) if name != NAME else None
    if not isinstance(found, PixelKind):
        raise InputError(
            f"classifier has kind {name!r}, expected a model of pixels, such as 'forest'"
        )
    if options.get("features"):
        raise InputError("classifier has features, but segments have colours; leave them out")
    return found, found.options.model_validate(options)


@dataclass(eq=False)
class ColorPredictor:
    """A `Predictor` of segments of windows; classes without training segments have probability 0.

    `present`: legend indices of the estimator's classes.
    """

    spec: ModelSpec
    vocabulary: Vocabulary
    division: Division
    estimator: Estimator
    present: tuple[int, ...]

    def predict(
        self, inputs: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[np.bool_]
    ) -> FLOAT:
        """Probabilities (n, class, y, x) of `Predictor`."""
        out = np.zeros((len(valid), len(self.spec.legend.classes), *valid.shape[1:]), np.float32)
        arrays = picked(self.spec.inputs, self.vocabulary.inputs, inputs)
        bags = list(self.vocabulary.bags(arrays, valid, self.division))
        rows = [bag.histograms for bag in bags]
        if not sum(map(len, rows)):
            return out
        answers = self.estimator.proba(np.ascontiguousarray(np.concatenate(rows).T))
        first = 0
        for number, bag in enumerate(bags):
            # What is no segment takes the last column.
            colours = np.zeros((len(self.spec.legend.classes), 256), np.float32)
            count = len(bag.counts)
            colours[list(self.present), :count] = answers[:, first : first + count]
            out[number] = colours[:, bag.segments]
            first += count
        return out

    def state(self) -> tuple[State, Files]:
        """The vocabulary and the estimator."""
        arrays, files = self.estimator.state()
        own = {
            _COLORS: self.vocabulary.colors,
            _GAINS: self.vocabulary.gains,
            _STEPS: self.vocabulary.steps,
            _PRESENT: np.array(self.present, np.int64),
        }
        return {**arrays, **own}, files


def fit(samples: SampleSet, options: ColorOptions, training: Training) -> ColorPredictor:
    """A bag of colours of the training split; patches are the windows.

    Patches are read twice, in batches; kept are the histograms of their segments. `InputError`
    where a band is unknown, or fewer than two classes have segments.
    """
    vocabulary = Vocabulary.fit(
        samples,
        colors=options.colors,
        bands=options.bands,
        rounds=options.rounds,
        seed=training.seed,
    )
    division = Division(options.segments, seed=training.seed)

    def segments(split: str) -> Segments:
        blocks = _patches(samples, vocabulary, split)
        return collected(blocks, vocabulary, division, samples.legend, training)

    later = segments(VAL) if VAL in samples.splits else None
    spec = ModelSpec(
        kind=NAME,
        inputs=samples.inputs,
        legend=samples.legend,
        resolution=samples.facts.get("place", {}).get("resolution"),
        patch=samples.patch,
        options=options.model_dump(mode="json"),
        training=training_facts(samples, training),
    )
    return learned(spec, vocabulary, division, segments(TRAIN), later)


def learned(
    spec: ModelSpec,
    vocabulary: Vocabulary,
    division: Division,
    segments: Segments,
    later: Segments | None,
) -> ColorPredictor:
    """The predictor of labelled segments; `later`: those of the validation split."""
    training = segments.training
    where = str(spec.training.get("samples", "the images"))
    check_classes(segments.legend, segments.present, "segments", where, segments.training)
    found, options = classifier(spec.options["classifier"])
    stream = Segments(segments.x, segments.labels, segments.legend, training, later=later)
    pixels = cast("PixelStream", stream)
    check_calibration(pixels, where, training)
    estimator = found.estimate(pixels, options, training)
    if training.calibrate:
        estimator = calibrated(estimator, pixels, training)
    if said := segments.notes.get("said"):
        training.say(said)
    counts = dict(zip(spec.legend.names, map(int, segments.counts), strict=True))
    facts = {**spec.training, "segments": counts, **stream.notes}
    return ColorPredictor(
        replace(spec, training=facts), vocabulary, division, estimator, stream.present
    )


def _patches(samples: SampleSet, vocabulary: Vocabulary, split: str) -> Iterator[Block]:
    members = samples.split(split)
    size = sum(int(np.prod(rows.shape[1:])) * rows.dtype.itemsize for rows in samples.rows.values())
    step = max(1, _BYTES // size)
    for i in range(0, len(members), step):
        arrays = samples.read(members[i : i + step])
        valid = observed(samples.inputs, arrays)
        seen = picked(samples.inputs, vocabulary.inputs, arrays)
        yield Block(members[i : i + step], seen, valid, arrays[LABEL])


def _options(spec: ModelSpec) -> ColorOptions:
    """How a model was made; `InputError` where its spec does not say it."""
    if type(spec.training.get("seed")) is not int or spec.patch < 1:
        raise InputError(
            f"the model has seed {spec.training.get('seed')!r} and windows of {spec.patch}, "
            "expected whole numbers; copy the model again"
        )
    return ColorOptions.checked(spec.options)


def _restore(spec: ModelSpec, arrays: State, files: Files) -> ColorPredictor:
    own = (_COLORS, _GAINS, _STEPS)
    absent = [name for name in own if name not in arrays]
    if absent:
        raise InputError(f"the model's arrays have no {', '.join(absent)}; copy the model again")
    options = _options(spec)
    found, _ = classifier(options.classifier)
    seen = chosen(spec.inputs, options.bands)
    vocabulary = Vocabulary(seen, *(np.ascontiguousarray(arrays[name]) for name in own))
    division = Division(options.segments, seed=spec.training["seed"])
    present = present_of(arrays, _PRESENT, len(spec.legend.classes))
    estimator = restored(found.restore_estimator(arrays, files), arrays)
    answer = estimator.proba(np.zeros((len(vocabulary.colors), 1), np.float32))
    if len(answer) != len(present):
        raise InputError(
            f"the model's classifier knows {len(answer)} classes, the model {len(present)}; copy "
            "the model again"
        )
    return ColorPredictor(spec, vocabulary, division, estimator, present)


KIND = Kind(ColorOptions, fit, _restore)
