"""A recipe: data, samples, model, objective and output, from one TOML file.

    [data]
    labels = "labels.zarr"                 # a label product, or a GeoTIFF of classes
    legend = "cover.toml"                  # of a GeoTIFF without colours
    [data.sources]
    s2 = "months.zarr"
    s1 = { path = "radar.zarr", bands = ["vv"], resampling = "average" }

    [samples]                              # fields of SampleSpec; or path = "samples.zarr"
    patch = 64
    areas = "halves.gpkg"

    [model]
    kind = "forest"                        # the others are options of the kind
    trees = 200

    [objective]
    class_weight = "balanced"

    [training]                             # of networks; see docs/train.md
    epochs = 50

    [output]
    folder = "forest"

Paths are relative to the recipe.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from lcengine import models
from lcengine.errors import InputError
from lcengine.models.nn.architecture import NetworkOptions
from lcengine.models.pixels import PixelKind
from lcengine.reader import Resampling
from lcengine.samples.spec import SampleSpec
from lcengine.train.options import LossName, Schedule, SupervisedOptions

LEAST_MEMORY = 2**24
"""Bytes below which no batch of samples can be told to fit."""
IMAGENET = "imagenet"
"""Weights of a network that are no path."""
_SHOWN = 60
"""Characters of a value in a message."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceTable(_Table):
    """One product: `bands` (default: all with a scale), `resampling` onto the labels' grid."""

    path: str
    bands: tuple[str, ...] = ()
    resampling: Resampling = "nearest"


def _source(given: Any) -> Any:
    if isinstance(given, str):
        return {"path": given}
    if isinstance(given, dict) and isinstance(given.get("bands"), list):
        return {**given, "bands": tuple(given["bands"])}  # strict, and no JSON any more
    return given


class DataTable(_Table):
    """What samples are cut from: products by name, labels, and a legend where these have none."""

    sources: dict[str, Annotated[SourceTable, BeforeValidator(_source)]] = Field(min_length=1)
    labels: str
    legend: str | None = None


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ObjectiveTable(_Table):
    """How the model is fitted; see `lcengine.models.Training`.

    `loss` and `label_smoothing` are of networks; see `lcengine.train.options.SupervisedOptions`.
    """

    kind: Literal["supervised"] = "supervised"
    loss: LossName | dict[LossName, Weight] | None = None
    label_smoothing: float | None = None
    class_weight: Literal["balanced"] | dict[str, Weight] | None = None
    calibrate: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    memory: ByteSize = Field(default=ByteSize(2 * 2**30), ge=LEAST_MEMORY)
    threads: int = Field(default=2, ge=1)


class OutputTable(_Table):
    """What is written: `folder`, by default the recipe's name without suffix.

    `importance`: how often each feature is permuted to see what it is worth, 0: never.
    """

    folder: str | None = None
    importance: int = Field(default=0, ge=0)


class _Tables(_Table):
    data: DataTable | None = None
    samples: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any]
    objective: ObjectiveTable = ObjectiveTable()
    training: dict[str, Any] | None = None
    output: OutputTable = OutputTable()


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read and found sound.

    `samples`: which samples to cut from `data`, or the path of a store that is there. `kind` and
    `options` are of the model. `file`: where it was read from. `aim` and `schedule` are of networks
    alone: `Training.objective` and `Training.schedule`.
    """

    file: Path
    data: DataTable | None
    samples: SampleSpec | str
    kind: str
    options: BaseModel
    objective: ObjectiveTable
    output: OutputTable
    aim: SupervisedOptions | None = None
    schedule: Schedule | None = None

    def path(self, text: str) -> str:
        """A path of the recipe, absolute; addresses as they are."""
        return _beside(self.file, text)

    @property
    def folder(self) -> Path:
        """Where its results go."""
        return Path(self.path(self.output.folder or self.file.stem))

    def to_json(self) -> dict[str, Any]:
        """What decides the result, in JSON values."""
        spec = self.samples
        beside = {"threads", "loss", "label_smoothing"}
        objective = self.objective.model_dump(mode="json", exclude=beside)
        told = {
            "data": None if self.data is None else self.data.model_dump(mode="json"),
            "samples": spec.to_json() if isinstance(spec, SampleSpec) else {"path": spec},
            "model": {"kind": self.kind, **self.options.model_dump(mode="json")},
            "objective": objective,
            "output": self.output.model_dump(mode="json", exclude={"folder"}),
        }
        if self.aim is not None:
            told["objective"] = {**objective, **self.aim.model_dump(mode="json")}
        if self.schedule is not None:
            told["training"] = self.schedule.identity()
        return told


def _beside(file: Path, text: str) -> str:
    return text if "://" in text else os.path.abspath(file.parent / text)


def read(path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file.

    `settings`: values that replace those of the file, `key=value` with dots in the key and a value
    as TOML has it, or text: `model.trees=50`. Raises `InputError`, which names the keys that are
    wrong.
    """
    file = Path(path)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a recipe") from error
    except ValueError as error:
        raise InputError(f"{path} is no TOML ({error}); see docs/train.md") from error
    for setting in settings:
        _set(tables, setting)
    found = _validated(_Tables, tables, file)
    kind, options = _model(found.model, file)
    if found.output.importance and not isinstance(models.kind(kind), PixelKind):
        raise InputError(
            f"{file}: output.importance is of features of pixels, and {kind} has none; leave it out"
        )
    samples = _samples(found, file)
    recipe = Recipe(file, found.data, samples, kind, options, found.objective, found.output)
    return replace(recipe, **_trained(found, kind, file))


def _set(tables: dict[str, Any], setting: str) -> None:
    key, sign, text = setting.partition("=")
    *parents, name = key.strip().split(".")
    if not (sign and name and all(parents)) or not parents:
        raise InputError(f"--set is {setting!r}, expected table.key=value, as model.trees=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {setting!r}: {parent} is no table")
    table[name] = value


def _model(table: Mapping[str, Any], file: Path) -> tuple[str, BaseModel]:
    options = dict(table)
    name = options.pop("kind", None)
    if not isinstance(name, str) or name not in models.KINDS:
        said = "is missing" if name is None else f"is {name!r}"
        raise InputError(f"{file}: model.kind {said}{_near(name, models.KINDS)}")
    chosen = _validated(models.kind(name).options, options, file, "model")
    if isinstance(chosen, NetworkOptions) and chosen.weights not in (None, IMAGENET):
        chosen = chosen.model_copy(update={"weights": _beside(file, chosen.weights)})
    return name, chosen


def _trained(found: _Tables, kind: str, file: Path) -> dict[str, Any]:
    """What is said of training networks; `InputError` for other models."""
    schedule = models.kind(kind).schedule
    own = found.objective.model_dump(mode="json", include={"loss", "label_smoothing"})
    given = {key: value for key, value in own.items() if value is not None}
    if schedule is None:
        said = [*(f"objective.{key}" for key in given), *(["training"] if found.training else [])]
        if said:
            raise InputError(f"{file}: {said[0]} is of networks, and {kind} is none; leave it out")
        return {}
    return {
        "aim": _validated(SupervisedOptions, given, file, "objective"),
        "schedule": _validated(schedule, found.training or {}, file, "training"),
    }


def _samples(found: _Tables, file: Path) -> SampleSpec | str:
    table = dict(found.samples)
    if "path" in table:
        text = table["path"]
        if len(table) > 1 or found.data is not None or not isinstance(text, str):
            raise InputError(
                f"{file}: samples.path is {text!r}; expected the path of samples that are there, "
                "without [data] and all else in [samples], which have no say then"
            )
        return _beside(file, text)
    if found.data is None:
        raise InputError(f"{file}: there is neither [data] nor samples.path; give one of them")
    known = [field.name for field in fields(SampleSpec)]
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InputError(f"{file}: {_unknown(('samples', unknown[0]), known)}")
    areas: dict[str, Any] = {}
    if "areas" in table:
        from lcengine.samples.areas import read_areas  # noqa: PLC0415 (others need no vectors)

        areas["areas"] = read_areas(_beside(file, str(table.pop("areas"))))
        areas["split"] = table.pop("split", "areas")
    try:
        spec = TypeAdapter(SampleSpec).validate_json(_json(table), strict=True)
        return replace(spec, **areas)
    except ValidationError as error:
        raise InputError(f"{file}: {_explained(error, ('samples',), known)}") from None
    except InputError as error:
        raise InputError(f"{file}: samples: {error}") from None


T = TypeVar("T", bound=BaseModel)


def _validated(model: type[T], data: Mapping[str, Any], file: Path, *parents: str) -> T:
    try:
        return model.model_validate_json(_json(data), strict=True)
    except ValidationError as error:
        known = [] if not parents else [*model.model_fields]
        raise InputError(f"{file}: {_explained(error, parents, known)}") from None


def _json(data: Mapping[str, Any]) -> str:
    """Values of TOML for strict validation, which takes an array for a tuple of JSON alone."""
    return json.dumps(dict(data), default=str)


def _explained(error: ValidationError, parents: tuple[str, ...], known: Sequence[str]) -> str:
    """What is wrong, key by key, on one line."""
    said: dict[str, str] = {}
    for entry in error.errors(include_url=False):
        place = (*parents, *_keys(entry["loc"]))
        if entry["type"] == "extra_forbidden":
            said.setdefault(".".join(place), _unknown(place, known or _members(place)))
        else:
            text = entry["msg"].removeprefix("Value error, ")
            text = text[:1].lower() + text[1:]
            given = "" if entry["type"] == "missing" else f" (got {_short(entry['input'])})"
            said.setdefault(".".join(place), f"{'.'.join(place)}: {text}{given}")
    return "; ".join(said.values())


_TAGS = re.compile(r"int|float|str|bool|dict|.*\[.*")


def _keys(loc: Sequence[int | str]) -> list[str]:
    """The keys of a place; pydantic also names there which member of a union it tried."""
    return [str(key) for key in loc if not _TAGS.fullmatch(str(key))]


_TABLES: dict[str, type[BaseModel]] = {
    "data": DataTable,
    "objective": ObjectiveTable,
    "training": Schedule,
    "output": OutputTable,
}


def _members(place: Sequence[str]) -> list[str]:
    """The keys that a table knows, by the place of one that it does not."""
    table: Any = _Tables
    for key in place[:-1]:
        table = _TABLES.get(key, SourceTable)
    return list(table.model_fields)


def _unknown(place: Sequence[str], known: Sequence[str]) -> str:
    return f"{'.'.join(place)} is unknown{_near(place[-1], known)}"


def _near(given: Any, known: Iterable[str]) -> str:
    """The name that was meant, or all there are."""
    names = list(known)
    close = difflib.get_close_matches(str(given), names, 1)
    return f"; did you mean {close[0]}?" if close else f", expected one of {', '.join(names)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]} …"
