"""Colour tables as files: QGIS styles and colour maps.

Three formats, told by the suffix: `.qml` (a QGIS style with a paletted renderer), `.txt` (the
colour map that QGIS exports: value,red,green,blue,alpha,label) and `.clr` (value red green blue,
as GDAL and ESRI have it, without names). Entries that are no class are transparent.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from lcengine.errors import InputError
from lcengine.legends.base import Entry, Legend

_HEAD = "# QGIS Generated Color Map Export File"
STYLES = (".qml", ".txt", ".clr")
_FORMATS = "a .qml style, a .txt colour map of QGIS or a .clr colour map"

Row = tuple[Entry, bool]
"""An entry, and whether it is ignored."""


def save_style(legend: Legend, path: str | os.PathLike[str]) -> None:
    """Write a legend as a colour table; `InputError` for another suffix than those above."""
    write = {".qml": _qml, ".txt": _txt, ".clr": _clr}.get(Path(path).suffix.lower())
    if write is None:
        raise InputError(f"{path} is no colour table; expected {_FORMATS}")
    try:
        Path(path).write_text(write(legend), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; check the path") from error


def load_style(path: str | os.PathLike[str], name: str | None = None) -> Legend:
    """Read a colour table as a legend, called as the file unless `name` is given.

    Transparent entries are ignored codes; an entry without a label is called `class n`. Raises
    `InputError` for what is no colour table.
    """
    source = Path(path)
    read = {".qml": _from_qml, ".txt": _from_txt, ".clr": _from_clr}.get(source.suffix.lower())
    if read is None:
        raise InputError(f"{path} is no colour table; expected {_FORMATS}")
    try:
        rows = read(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except (ValueError, KeyError, ET.ParseError) as error:
        raise InputError(f"{path} is not a colour table ({error}); expected {_FORMATS}") from error
    if not rows:
        raise InputError(f"{path} has no paletted entries; expected {_FORMATS}")
    ignored = tuple(entry.code for entry, clear in rows if clear)
    title = name or source.stem
    return Legend(title, title, tuple(entry for entry, _ in rows), source.name, ignored)


def _qml(legend: Legend) -> str:
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        type="paletted",
        band="1",
        opacity="1",
        alphaBand="-1",
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for code, (*_, alpha) in legend.colormap().items():
        entry = legend.entry(code)
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(code),
            color=entry.colour,
            alpha=str(alpha),
            label=entry.name,
        )
    ET.indent(root)
    doctype = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return doctype + ET.tostring(root, encoding="unicode") + "\n"


def _txt(legend: Legend) -> str:
    rows = [
        f"{code},{r},{g},{b},{alpha},{legend.entry(code).name}"
        for code, (r, g, b, alpha) in legend.colormap().items()
    ]
    return "\n".join([_HEAD, "INTERPOLATION:EXACT", *rows]) + "\n"


def _clr(legend: Legend) -> str:
    return "".join(f"{code} {r} {g} {b}\n" for code, (r, g, b, _) in legend.colormap().items())


def _row(code: str, colour: str, alpha: str, label: str) -> Row:
    if not float(code).is_integer():  # a boundary of ranges of numbers, the last one inf
        raise ValueError(f"its value {code} is no code")
    number = int(float(code))
    return Entry(number, label.strip() or f"class {number}", colour.lower()), int(alpha) == 0


def _from_qml(text: str) -> list[Row]:
    return [
        _row(e.attrib["value"], e.attrib["color"], e.get("alpha", "255"), e.get("label", ""))
        for e in ET.fromstring(text).iter("paletteEntry")
    ]


def _from_txt(text: str) -> list[Row]:
    rows = []
    for line in _lines(text):
        if line.startswith("INTERPOLATION:"):
            continue
        code, red, green, blue, alpha, label = line.split(",", 5)
        rows.append(_row(code, _hex(red, green, blue), alpha, label))
    return rows


def _from_clr(text: str) -> list[Row]:
    rows = []
    for line in _lines(text):
        code, red, green, blue, *alpha = line.split()
        rows.append(_row(code, _hex(red, green, blue), alpha[0] if alpha else "255", ""))
    return rows


def _lines(text: str) -> list[str]:
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _hex(*channels: str) -> str:
    return "#" + bytes(map(int, channels)).hex()
