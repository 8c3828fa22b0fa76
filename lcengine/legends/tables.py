"""Legends of one's own: from a table of codes, names and colours, or from names alone."""

from __future__ import annotations

import colorsys
import csv
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcengine.errors import InputError
from lcengine.legends.base import Entry, Legend

TABLES = (".csv", ".json", ".toml")
_EXPECTED = "a .csv, .json or .toml with name, code and colour of each class"
_GOLDEN = 0.6180339887498949


def named(names: Mapping[int, str], name: str, source: str) -> Legend:
    """A legend of names by code, in colours that are easy to tell: hues a golden angle apart."""
    entries = tuple(Entry(code, names[code], _colour(i)) for i, code in enumerate(sorted(names)))
    return Legend(name, name, entries, source)


def load_table(path: str | os.PathLike[str]) -> Legend:
    """The legend of a table; `InputError` for what is none.

    Columns (keys of its rows) are `name`, `code` and `colour` (or `color`) as #rrggbb, or `r`, `g`,
    `b`; a JSON or TOML file holds the rows in a list, or in a list called `classes`. Without codes
    the rows count from 0. A row with a true `ignored` is no class.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} has no classes; expected rows of code, name and colour")
    found = [_entry(row, number, path) for number, row in enumerate(rows)]
    ignored = tuple(entry.code for entry, is_class in found if not is_class)
    return Legend(path.stem, path.stem, tuple(entry for entry, _ in found), path.name, ignored)


def delimiter(lines: Sequence[str]) -> str:
    """What stands between the cells of a CSV table: a comma, or a semicolon as Excel writes it."""
    first = lines[0] if lines else ""
    return ";" if first.count(";") > first.count(",") else ","


def _colour(place: int) -> str:
    lightness = (0.45, 0.6, 0.35)[place % 3]
    rgb = colorsys.hls_to_rgb(place * _GOLDEN % 1.0, lightness, 0.7)
    return "#" + bytes(round(255 * channel) for channel in rgb).hex()


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a table of classes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected {_EXPECTED}") from error
    if path.suffix.lower() == ".csv":
        lines = text.splitlines()
        return list(csv.DictReader(lines, delimiter=delimiter(lines), skipinitialspace=True))
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not {path.suffix[1:].upper()} ({error}); expected {_EXPECTED}"
        ) from error
    rows = data.get("classes") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} has no list of classes, each with code, name and colour")
    return rows


def _entry(row: Mapping[Any, Any], number: int, path: Path) -> tuple[Entry, bool]:
    """The class of a row, and whether it is one."""
    cells = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    try:
        colour = cells.get("colour", cells.get("color"))
        if colour is None:
            colour = "#" + bytes(int(cells[channel]) for channel in "rgb").hex()
        code = int(str(cells.get("code", number)))  # no decimals, no true
        name = str(cells["name"] or "").strip()
        if not name:
            raise ValueError("it has no name")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: class {number + 1} is {dict(row)} ({error!r}); expected name, code and "
            "colour as #rrggbb, or r, g and b from 0 to 255"
        ) from error
    ignored = str(cells.get("ignored", "")).strip().lower() in ("true", "1", "yes")
    return Entry(code, name, f"#{str(colour).strip().lstrip('#').lower()}"), not ignored
