"""Colour-coded masks and class codes, both ways; legends from tables of names and colours."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl

from lcengine.addresses import DRIVERS
from lcengine.classmap import read_classes, read_legend, save_classes, save_png
from lcengine.errors import InputError
from lcengine.imagefile import header
from lcengine.legends import Entry, Legend, load_style
from lcengine.legends import legends as published
from lcengine.legends.base import Codes

_STYLES = (".qml", ".txt", ".clr")
_TABLES = (".csv", ".json", ".toml")
_EXPECTED = (
    "the name of a legend, a table (.csv, .json, .toml) of code, name and colour, a style "
    "(.qml, .txt, .clr) or a raster with a colour table"
)


def find_legend(text: str | os.PathLike[str]) -> Legend:
    """The legend of that name, or of that file; `InputError` where there is neither.

    A table has columns (keys of its rows) `name`, `code` and `colour` (or `color`) as #rrggbb, or
    `r`, `g`, `b`; a JSON or TOML file holds the rows in a list, or in a list called `classes`.
    Without codes the rows count from 0. A row with a true `ignored` is no class.
    """
    known = published().get(os.fspath(text))
    if known is not None:
        return known
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix in _STYLES:
        return load_style(path)
    if suffix in DRIVERS:
        return read_legend(path)
    if suffix not in _TABLES:
        raise InputError(
            f"no legend is called {os.fspath(text)!r}; there are {', '.join(published())}; "
            f"expected {_EXPECTED}"
        )
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} has no classes; expected rows of code, name and colour")
    found = [_entry(row, number, path) for number, row in enumerate(rows)]
    ignored = tuple(entry.code for entry, is_class in found if not is_class)
    return Legend(path.stem, path.stem, tuple(entry for entry, _ in found), path.name, ignored)


def named_classes(names: Sequence[str], name: str) -> Legend:
    """A legend of classes 1 … K in the order of `names`, in colours that are easy to tell."""
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    entries = []
    for i, title in enumerate(names):
        # Beyond twenty classes the colours repeat, a little darker each time, so that they differ.
        shade = 0.85 ** (i // 20)
        rgb = bytes(round(255 * shade * channel) for channel in colours[(i * 2 + i // 10) % 20])
        entries.append(Entry(i + 1, title, f"#{rgb.hex()}"))
    return Legend(name, name, tuple(entries), "classes of the labels")


def to_codes(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    legend: Legend,
    *,
    tolerance: int = 0,
    unknown: Literal["error", "ignore"] = "error",
    suffix: str = ".tif",
) -> list[Path]:
    """Masks of colours as masks of codes: a file, or the images of a folder into a folder.

    `tolerance`, `unknown`: as in `Legend.from_rgb`. `suffix`, for folders: .tif (keeps the place on
    Earth, and has the legend's nodata and names) or .png. Returns the files written. Raises
    `InputError` that names the file for colours the legend does not have.
    """
    pairs = _pairs(Path(source), Path(output), suffix)
    for path, target in pairs:
        with _naming(path):
            codes = read_classes(path, legend, tolerance=tolerance, unknown=unknown)
        save_mask(target, codes, legend, like=path)
    return [target for _, target in pairs]


def to_colours(
    source: str | os.PathLike[str], output: str | os.PathLike[str], legend: Legend
) -> list[Path]:
    """Masks of codes as PNGs of the legend's colours: a file, or a folder into a folder.

    Nodata is transparent, so `to_codes` gives the codes back. Returns the files written. Raises
    `InputError` that names the file for codes the legend does not have.
    """
    pairs = _pairs(Path(source), Path(output), ".png")
    for path, target in pairs:
        with _naming(path):
            codes = read_classes(path, legend)
        save_png(target, codes, legend, colours=True)
    return [target for _, target in pairs]


def save_mask(
    path: Path, codes: Codes, legend: Legend, like: str | os.PathLike[str] | None = None
) -> None:
    """Codes (y, x) as a GeoTIFF with the place on Earth of the image `like`, or as a PNG."""
    if path.suffix.lower() == ".png":
        save_png(path, codes, legend)
        return
    if like is None:
        save_classes(path, codes, legend)
        return
    place = header(like)
    save_classes(path, codes, legend, crs=place.crs, transform=place.transform)


def _pairs(source: Path, output: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Which file becomes which; the folder of the output is made."""
    if not source.exists():
        raise InputError(f"{source} does not exist; give a mask or a folder of masks")
    if not source.is_dir():
        return [(source, output)]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in DRIVERS)
    if not found:
        raise InputError(f"folder {source} has no images; expected {', '.join(DRIVERS)}")
    targets: dict[Path, Path] = {}
    for path in found:
        target = output / f"{path.stem}{suffix}"
        if target in targets:
            raise InputError(
                f"{path} and {targets[target]} would both become {target.name}; rename one"
            )
        targets[target] = path
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the folder of the masks themselves; give another one")
    output.mkdir(parents=True, exist_ok=True)
    return [(path, target) for target, path in targets.items()]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors about pixels say of which file."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from error


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a table of classes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected {_EXPECTED}") from error
    if path.suffix.lower() == ".csv":
        return list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:
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
        code = int(cells.get("code", number))
        name = str(cells["name"]).strip()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: class {number + 1} is {dict(row)} ({error!r}); expected name, code and "
            "colour as #rrggbb, or r, g and b from 0 to 255"
        ) from error
    ignored = str(cells.get("ignored", "")).strip().lower() in ("true", "1", "yes")
    return Entry(code, name, f"#{str(colour).strip().lstrip('#').lower()}"), not ignored
