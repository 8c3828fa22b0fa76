"""`lcengine models`: which kinds of models there are, and what a trained one says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.output import emit

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from lcengine.inputs import Input
    from lcengine.models import ModelSpec

app = typer.Typer(no_args_is_help=True, help="Models: the kinds there are, and trained ones.")

Folder = Annotated[Path | None, typer.Argument(help="List the trained models below this folder.")]
Model = Annotated[Path, typer.Argument(help="Folder of a model of `lcengine train`.")]

DEPTH = 4
"""Folders below the one given in which models are looked for."""


@app.command("list")
def list_(folder: Folder = None, json: options.AsJson = False) -> None:
    """List the kinds of models with their options, or the trained models below a folder."""
    from lcengine.errors import InputError

    if folder is None:
        found = dict(_kinds())
        _print(found, json, _line)
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one, or none for the kinds of models")
    trained = {str(path): _brief(path) for path in _models(folder)}
    if not trained and not json:
        raise InputError(f"there is no model in {folder}, nor {DEPTH} folders below it")
    _print(trained, json, _sentence)


def _print(
    found: Mapping[str, Any], as_json: bool, line: Callable[[Mapping[str, Any]], str]
) -> None:
    """All as JSON, or a line of each, its name as it is."""
    if as_json:
        emit(found, as_json)
        return
    width = max(map(len, found))
    for name, facts in found.items():
        typer.echo(f"{name:<{width}}  {line(facts)}")


def _kinds() -> Iterator[tuple[str, dict[str, Any]]]:
    from lcengine.models import KINDS, kind
    from lcengine.models.mlm import described

    for name in KINDS:
        title, framework, sees = described(name)
        fields = kind(name).options.model_fields
        defaults = {key: _default(field) for key, field in fields.items()}
        yield name, {"title": title, "framework": framework, "sees": sees, "options": defaults}


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _line(facts: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key} {_short(value)}" for key, value in facts["options"].items())
    return f"{facts['title']} ({facts['framework']}), sees {facts['sees']}; options {given}"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(_short, value)) or "–"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_short(part)}" for key, part in value.items())
    return "–" if value is None else str(value)


def _models(folder: Path) -> Iterator[Path]:
    """Folders with a `model.json`, by name; a product or a model is not looked into."""
    from lcengine.models.files import SPEC

    def below(place: Path, depth: int) -> Iterator[Path]:
        with suppress(PermissionError):  # another user's
            if (place / SPEC).is_file():
                yield place
            elif depth and not place.name.startswith(".") and not (place / "zarr.json").exists():
                for inner in sorted(path for path in place.iterdir() if path.is_dir()):
                    yield from below(inner, depth - 1)

    return below(folder, DEPTH)


def _brief(path: Path) -> dict[str, Any]:
    """A line of a model; of one that cannot be read, why."""
    from lcengine.errors import InputError
    from lcengine.models import spec_of

    try:
        spec = spec_of(path)
    except InputError as error:
        return {"error": str(error)}
    measured = {split: _f1(found) for split, found in spec.metrics.items()}
    return {
        "kind": spec.kind,
        "inputs": {entry.name: list(entry.bands) for entry in spec.inputs},
        "classes": len(spec.legend.classes),
        "legend": spec.legend.name,
        "resolution": spec.resolution,
        "macro_f1": measured,
    }


def _table(facts: Any, name: str) -> Mapping[str, Any]:
    """A table inside of another; an empty one where a file says anything else."""
    found = facts.get(name) if isinstance(facts, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _f1(measured: Any) -> float | None:
    found = _table(measured, "macro").get("f1")
    return found if isinstance(found, float) else None


def _sentence(facts: Mapping[str, Any]) -> str:
    if "error" in facts:
        return f"cannot be read: {facts['error']}"
    sees = " + ".join(f"{name} ({', '.join(bands)})" for name, bands in facts["inputs"].items())
    known = facts["macro_f1"].items()
    good = ", ".join(f"{split} F1 {f1:.3f}" for split, f1 in known if f1 is not None)
    said = f"{facts['kind']} of {sees} → {facts['classes']} classes of {facts['legend']}"
    return f"{said}; {good}" if good else said


@app.command()
def info(model: Model, json: options.AsJson = False) -> None:
    """Say what a model takes and gives, how it sees, where it comes from and how good it is."""
    from lcengine.models import ModelRef
    from lcengine.models.files import arrays_of
    from lcengine.models.mlm import parameters

    ref = ModelRef.of(model)
    spec = ref.check()
    weights = parameters({name: shape for name, (_, shape) in arrays_of(model).items()})
    size = sum(path.stat().st_size for path in model.iterdir())
    if json:
        facts = {"model": ref.path, "sha256": ref.sha256, "bytes": size, "parameters": weights}
        emit({**facts, **spec.to_json()}, json)
        return
    facts = {**_facts(spec), "parameters": weights, "bytes": size, "sha256": ref.sha256}
    emit({key: value for key, value in facts.items() if value not in (None, "", {})}, json)
    measured: Any = next(
        (spec.metrics[split] for split in ("test", "val") if split in spec.metrics), {}
    )
    for entry in spec.legend.classes:
        typer.secho("  ", bg=entry.rgb, nl=False)
        typer.echo(f" {entry.code:>5}  {entry.name}{_f1_of(measured, entry.name)}")


def _facts(spec: ModelSpec) -> dict[str, Any]:
    """What people read, in the order in which they ask."""
    from lcengine.models.mlm import described, period

    title, framework, _ = described(spec.kind)
    told = spec.training
    place = _table(told, "place")
    edges, interval = _listed(place.get("bounds"), 4), _listed(place.get("interval"), 2)
    return {
        "kind": f"{spec.kind}: {title}, {framework}",
        "takes": {entry.name: input_line(entry) for entry in spec.inputs},
        "gives": f"{len(spec.legend.classes)} classes: {spec.legend.title}",
        "pixels": None if spec.resolution is None else f"{spec.resolution:g} wide",
        "sees": sight(spec),
        "options": {key: _short(value) for key, value in spec.options.items()},
        "area": edges and "W {}  S {}  E {}  N {}".format(*edges),
        "imagery": interval and " to ".join(period(spec)),
        "samples": told.get("samples"),
        "run_id": told.get("run_id"),
        "patches": told.get("splits"),
        "temperature": _table(told, "calibration").get("temperature"),
        "accuracy": {split: measures(found) for split, found in spec.metrics.items()},
        "package": told.get("package"),
        "libraries": told.get("libraries"),
    }


def _listed(values: Any, count: int) -> list[str] | None:
    """So many values as people read them; None where a file says anything else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    return [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]


def input_line(entry: Input) -> str:
    """Bands and periods of an input, and what its numbers are."""
    times = (
        f", {len(entry.times)} periods {entry.times[0]} … {entry.times[-1]}" if entry.times else ""
    )
    facts = (entry.sensor, entry.dtype, None if entry.scale is None else f"scale {entry.scale:g}")
    units = None if entry.units in (None, "1") else entry.units
    said = " ".join(str(fact) for fact in (*facts, units) if fact)
    return f"{', '.join(entry.bands)}{times} ({said})"


def sight(spec: ModelSpec) -> str:
    """How far a model sees, and how its patches become a map."""
    if spec.patch == 1:
        return "each pixel by itself"
    if spec.stride is None:
        return f"windows of {spec.patch} pixels, side by side"
    laid = f"patches of {spec.patch} pixels, every {spec.stride}, merged by {spec.window}"
    if spec.margin is None:
        return f"{laid}; a pixel depends on its whole patch"
    least = 2 * spec.margin
    seams = " and on where the patch lies" if spec.placed else ""
    exact = "" if spec.placed or spec.patch > least else f"; patches below {least} leave seams"
    return f"{laid}; a pixel depends on {spec.margin} around it{seams}{exact}"


def measures(found: Any) -> str:
    """Overall accuracy, macro F1 and IoU of a split, and what probabilities are worth."""
    if not isinstance(found, Mapping):
        return "–"
    macro = _table(found, "macro")
    said = {
        "right": found.get("overall_accuracy"),
        "F1": macro.get("f1"),
        "IoU": macro.get("iou"),
        "ECE": found.get("expected_calibration_error"),
    }
    known = [f"{name} {value:.3f}" for name, value in said.items() if isinstance(value, float)]
    return ", ".join(known) or "–"


def _f1_of(found: Any, name: str) -> str:
    f1 = _table(_table(found, "classes"), name).get("f1")
    return f"  F1 {f1:.3f}" if isinstance(f1, float) else ""
