"""Models as folders: `model.json` says what it is, safetensors hold what it has learned.

`model.json` is a STAC Item (see `lcengine.models.mlm`); what this package reads of it are its own
properties alone: spec, format, and the hash of every other file. Nothing that is read here can
execute code: JSON, safetensors, and files of other libraries that are data (XGBoost's UBJSON).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

import lcengine
from lcengine.errors import InputError
from lcengine.models.exchange import exchange
from lcengine.models.mlm import item
from lcengine.models.predictor import KINDS, Predictor, kind
from lcengine.models.spec import ModelSpec

SPEC = "model.json"
ARRAYS = "model.safetensors"
FORMAT = 2

OWN = "lcengine:"
"""Prefix of the item's properties that are this package's."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""A file of the folder itself."""

Read = Callable[[str], bytes]
"""The content of a model's file by name."""


@dataclass(frozen=True)
class ModelRef:
    """A model by its folder and `identity`: what plans hold, and workers load once."""

    path: str
    sha256: str

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> ModelRef:
        """The model that lies in a folder now."""
        return cls(os.path.abspath(folder), identity(folder))

    def load(self, read: Read | None = None) -> Predictor:
        """The model, from its folder or from wherever its files were taken along to.

        `InputError` where another one lies there since.
        """
        read = read or reader(self.path)
        found = hashlib.sha256(read(SPEC)).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"{self.path} holds another model than when this was planned ({self.sha256[:12]}, "
                f"now {found[:12]}); bring it back, or plan again with --restart"
            )
        return _restored(read, self.path)

    def check(self) -> ModelSpec:
        """What the model says of itself, once all its files are what they should be.

        Their hashes are taken, and nothing is built of them: no library that made the model is
        loaded. `InputError` as of `load`.
        """
        read = reader(self.path)
        spec = _spec(read, self.path)
        _contents(read, self.path)
        if spec.kind not in KINDS:
            kind(spec.kind)  # raises, and names those there are
        return spec


def save(predictor: Predictor, folder: str | os.PathLike[str]) -> ModelRef:
    """Write a model as a folder, or in the place of an older model; whole, or not at all.

    Raises `InputError` where something else lies there.
    """
    target = Path(folder).absolute()
    if target.exists() and not (target / SPEC).is_file():
        raise InputError(f"{target} exists and is no model; choose another folder")
    arrays, files = predictor.state()
    contents = {ARRAYS: safetensors.numpy.save(dict(arrays)), **files}
    own = {
        "format": FORMAT,
        "package": lcengine.__version__,
        "spec": predictor.spec.to_json(),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    properties = {OWN + name: value for name, value in own.items()}
    told = item(predictor.spec, arrays, contents, properties)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        for name, content in contents.items():
            (made / name).write_bytes(content)
        text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
        (made / SPEC).write_text(text, encoding="utf-8")
        _put(made, target)
    return ModelRef.of(target)


def _put(made: Path, target: Path) -> None:
    """Move a folder to its place; what was there is left where the new one was, or beside it.

    On Linux and macOS both folders change places at once, where the file system can (all common
    local ones; not NFS). Elsewhere there is a moment, between two renames, without either.
    """
    if not target.exists():
        made.rename(target)
    elif not exchange(made, target):
        target.rename(made.with_name("older"))
        made.rename(target)


def load(folder: str | os.PathLike[str]) -> Predictor:
    """The model in a folder.

    Raises `InputError` where there is none, a file is absent or not what `model.json` says, the
    model is of a kind or format that this version does not know, or a library is missing.
    """
    return _restored(reader(folder), os.fspath(folder))


def spec_of(folder: str | os.PathLike[str]) -> ModelSpec:
    """What a model says of itself, from `model.json` alone; `InputError` as of `load`."""
    return _spec(reader(folder), os.fspath(folder))


def _spec(read: Read, folder: str) -> ModelSpec:
    return ModelSpec.from_json(_told(read(SPEC), folder)["spec"])


def arrays_of(folder: str | os.PathLike[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of a model's arrays by name, from their header alone."""
    path = Path(folder) / ARRAYS
    try:
        with safetensors.safe_open(path, "np") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {n: (str(p.get_dtype()), tuple(p.get_shape())) for n, p in parts.items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}; copy the model again") from error


def _contents(read: Read, folder: str) -> dict[str, bytes]:
    """All files but `model.json`, each as it says."""
    return {
        name: _checked(read(name), f"{folder}/{name}", sha256)
        for name, sha256 in _told(read(SPEC), folder)["files"].items()
    }


def _restored(read: Read, folder: str) -> Predictor:
    """The model of files; messages call them by the folder that they come from."""
    spec = _spec(read, folder)
    contents = _contents(read, folder)
    try:
        arrays = safetensors.numpy.load(contents.pop(ARRAYS))
    except (KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder} has no readable {ARRAYS}: {error}; copy it again") from error
    return kind(spec.kind).restore(spec, arrays, contents)


def file_names(read: Read, folder: str) -> tuple[str, ...]:
    """Names of all files of a model, `model.json` the first."""
    return (SPEC, *_told(read(SPEC), folder)["files"])


def reader(folder: str | os.PathLike[str]) -> Read:
    """Reads files of a folder; `InputError` for what cannot be read."""

    def read(name: str) -> bytes:
        path = Path(folder) / name
        try:
            return path.read_bytes()
        except OSError as error:
            inside = path.parent / "model" / SPEC
            hint = f"did you mean {inside.parent}? " if inside.is_file() else ""
            raise InputError(
                f"{path} cannot be read: {error.strerror}; {hint}expected a model's folder, as "
                "`lcengine train` writes it"
            ) from error

    return read


def identity(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of `model.json`, which has those of all other files; `InputError` without one."""
    return hashlib.sha256(reader(folder)(SPEC)).hexdigest()


def _told(content: bytes, folder: str) -> dict[str, Any]:
    """This package's properties of an item, without their prefix."""
    try:
        item = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder}/{SPEC} is no JSON: {error}; copy the model again") from error
    told = item.get("properties") if isinstance(item, Mapping) else None
    if not isinstance(told, Mapping) or told.get(f"{OWN}format") != FORMAT:
        raise InputError(
            f"{folder}/{SPEC} is no model of format {FORMAT}; train it with this version, or use "
            "the version that wrote it"
        )
    names, spec = told.get(f"{OWN}files"), told.get(f"{OWN}spec")
    if not isinstance(spec, Mapping) or not isinstance(names, Mapping):
        raise InputError(f"{folder}/{SPEC} has no spec or names no files; copy the model again")
    # A file beside the folder would be another user's; the hash alone does not say so.
    if not all(_NAME.fullmatch(name) for name in names):
        raise InputError(f"{folder}/{SPEC} names files outside of its folder; do not trust it")
    package = told.get(f"{OWN}package")
    return {"spec": spec, "files": {k: str(v) for k, v in names.items()}, "package": package}


def _checked(content: bytes, path: str, expected: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the file that {SPEC} describes (SHA-256 {found[:12]}, expected "
            f"{expected[:12]}); copy the model again"
        )
    return content
