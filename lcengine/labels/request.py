"""What a user asks of a label raster: files, a rule for each, and the legend.

A file of rules is TOML, with one `[[layer]]` for each source:

    legend = "labels.qml"              # a name or a style file; default: made of the values
    conflict = "ignore"                # or "error", "last"

    [[layer]]
    file = "labels.gpkg"               # relative to this file
    layer = "crops"
    attribute = "name"
    map = { "winter wheat" = "wheat" } # where values are no names of the legend
    other = "ignore"
    erode = 5                          # metres

    [[layer]]
    file = "labels.gpkg"
    layer = "roads"
    class = "road"
    buffer = 6                         # metres
    priority = 1
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcengine.classmap import find_legend
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.burn import CONFLICTS, Conflict
from lcengine.labels.layers import Layer
from lcengine.labels.plan import LabelPlan, plan_labels
from lcengine.labels.rules import Rule
from lcengine.labels.vectors import Invalid, read_vectors
from lcengine.legends import legends

_TOP = ("legend", "conflict", "priority", "layer")
_TEXTS = ("file", "layer", "where", "encoding")
_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")
"""What says something of the features; beside it may lie the product itself."""
_CHUNK = 2**20


@dataclass(frozen=True)
class VectorFile:
    """One layer of a vector file and its rule; see `read_vectors`."""

    file: Path
    rule: Rule
    layer: str | None = None
    crs: str | None = None
    where: str | None = None
    encoding: str | None = None
    invalid: Invalid = "repair"

    @property
    def name(self) -> str:
        """As messages and provenance call it."""
        return f"{self.file.name}:{self.layer}" if self.layer else self.file.name

    def read(self) -> Layer:
        """Its features; errors as `read_vectors`."""
        frame = read_vectors(
            self.file,
            self.layer,
            crs=self.crs,
            where=self.where,
            encoding=self.encoding,
            invalid=self.invalid,
        )
        return Layer(frame, self.rule, self.name)

    def to_json(self) -> dict[str, Any]:
        """Identity of the layer, with the hash of what the file holds now."""
        return {**asdict(self), "file": str(self.file), "sha256": _digest(self.file)}


@dataclass(frozen=True)
class LabelRequest:
    """Layers, grid and legend (name or file; None: made of what the layers name)."""

    layers: tuple[VectorFile, ...]
    grid: Grid
    legend: str | None = None
    conflict: Conflict = "ignore"

    def plan(self) -> LabelPlan:
        """Read the files and freeze the plan. Raises what these raise."""
        found = None if self.legend is None else find_legend(self.legend)
        layers = [layer.read() for layer in self.layers]
        return plan_labels(layers, self.grid, legend=found, conflict=self.conflict)

    def to_json(self) -> dict[str, Any]:
        """Identity of the request: an equal one resumes, a different one is refused."""
        legend = None if self.legend is None else find_legend(self.legend).to_json()
        return {
            "layers": [layer.to_json() for layer in self.layers],
            "grid": self.grid.to_dict(),
            "legend": legend,
            "conflict": self.conflict,
        }


def read_rules(path: str | Path, grid: Grid) -> LabelRequest:
    """A file of rules as a request on a grid; `InputError` names what is wrong in it."""
    source = Path(path)
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a TOML file") from error
    except ValueError as error:
        raise InputError(f"{path} is no TOML ({error}); see lcengine.labels.request") from error
    _check_members(path, data)
    legend = data.get("legend")
    if legend is not None and legend not in legends():
        legend = str(source.parent / legend)
    common = {"priority": data["priority"]} if "priority" in data else {}
    layers = tuple(
        _layer(source, number, common | table) for number, table in enumerate(data["layer"])
    )
    return LabelRequest(layers, grid, legend, data.get("conflict", "ignore"))


def _check_members(path: str | Path, data: Mapping[str, Any]) -> None:
    """`InputError` for what a file of rules cannot hold."""
    tables, legend = data.get("layer"), data.get("legend", "")
    unknown = sorted(set(data) - set(_TOP))
    if unknown:
        wrong = f"unknown {', '.join(unknown)}"
    elif not tables or not isinstance(tables, list) or not isinstance(tables[0], dict):
        wrong = "no [[layer]]"
    elif not isinstance(legend, str):
        wrong = f"legend {legend!r}, which is neither a name nor a file"
    elif data.get("conflict", "ignore") not in CONFLICTS:
        wrong = f"conflict {data['conflict']!r}, which is none of {', '.join(CONFLICTS)}"
    else:
        return
    raise InputError(f"{path} has {wrong}; it takes {', '.join(_TOP)}, one [[layer]] or more")


def _layer(source: Path, number: int, table: Mapping[str, Any]) -> VectorFile:
    own = ("file", "layer", "crs", "where", "encoding", "invalid")
    taken = {key: table[key] for key in own if key in table}
    rule = {key: value for key, value in table.items() if key not in own}
    try:
        if not taken.get("file"):
            raise InputError("it has no file; expected the vector file of the layer")
        for key in set(_TEXTS) & set(taken):
            if not isinstance(taken[key], str):
                raise InputError(f"{key} is {taken[key]!r}, expected text")
        taken["file"] = source.parent / taken["file"]
        return VectorFile(**taken, rule=Rule.from_json(rule))
    except InputError as error:
        raise InputError(f"{source}, layer {number + 1}: {error}") from None


def _digest(path: Path) -> str:
    """SHA-256 of a file, with those that belong to a shapefile, or of a folder's files."""
    files: Sequence[Path] = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix.lower() == ".shp":
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        own = [f for f in beside if f.stem == path.stem and f.suffix.lower() in _SHAPEFILE]
        files = sorted(own) or files
    found = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    found.update(chunk)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}; check the path") from error
    return found.hexdigest()
