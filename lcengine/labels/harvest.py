"""Fields of one crop per file or folder, and a table of harvest dates: classes and time windows."""

from __future__ import annotations

import calendar
import csv
import datetime as dt
import json
import math
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import openpyxl
import pandas as pd
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from lcengine.errors import InputError
from lcengine.labels.colors import make_folder
from lcengine.labels.vectors import read_vectors
from lcengine.legends import Legend, folded, named
from lcengine.legends.tables import delimiter
from lcengine.periods import Period, from_json, to_json

WINDOWS, BEFORE = 6, 1
"""Monthly windows, the last of which ends a month before the harvest (CropMapping)."""

_SUFFIXES = (".shp", ".gpkg", ".geojson", ".parquet")
_YEARS = range(1972, 2100)  # since the first Landsat


@dataclass(frozen=True)
class Table:
    """How the table of harvest dates is laid out.

    `sheet`: of a workbook, None for its first one. `region`, `crop`, `harvest`: headings of its
    columns; the one of regions may be absent where it is not given. `date`: how dates are written
    as text, as in `strptime` (%d.%m.%Y), None for ISO 8601.
    """

    sheet: str | None = None
    region: str = "region"
    crop: str = "crop"
    harvest: str = "harvest"
    date: str | None = None


@dataclass(frozen=True)
class Harvest:
    """A row of the table; `where` for messages."""

    region: str
    crop: str
    date: dt.date
    where: str


@dataclass(frozen=True)
class Crops:
    """Fields (`crop`, `code`, `region`, `harvest` as ISO date, `source`) and their classes."""

    fields: gpd.GeoDataFrame
    legend: Legend

    def windows(self, *, count: int = WINDOWS, before: int = BEFORE) -> dict[str, list[Period]]:
        """Time windows by region: those of `windows` before its earliest harvest.

        So every window ends at least `before` months before any harvest of the region.
        """
        earliest = self.fields.groupby("region")["harvest"].min()
        return {
            str(region): windows(dt.date.fromisoformat(day), count=count, before=before)
            for region, day in earliest.items()
        }


def windows(harvest: dt.date, *, count: int = WINDOWS, before: int = BEFORE) -> list[Period]:
    """`count` windows of a month each, the last of which ends `before` months before a harvest.

    A harvest on 15 August gives 15 January to 14 February and so on to 15 June to 14 July. Where a
    month has no such day its last one stands for it. `lcengine.periods.to_json` makes them a file
    for `--period`.
    """
    if count < 1 or before < 0:
        raise InputError(f"{count} windows {before} months before; expected 1 and 0 or more")
    days = [_months_before(harvest, months) for months in range(before + count, before - 1, -1)]
    ends = [day - dt.timedelta(days=1) for day in days]
    pairs = zip(days[:-1], ends[1:], strict=True)
    return list(from_json([{"start": str(start), "end": str(end)} for start, end in pairs]))


def read_crops(
    folder: str | os.PathLike[str],
    table: str | os.PathLike[str],
    *,
    layout: Table | None = None,
    region: str | None = None,
    legend: Legend | None = None,
    mapping: Mapping[str, int] | None = None,
    encoding: str | None = None,
) -> Crops:
    """The fields of `folder` with the harvest dates of a table (.xlsx or .csv).

    `<crop>.shp` holds fields of that crop, and so do all files in `<crop>/`; .gpkg, .geojson and
    .parquet are read too. Names of crops are compared without regard to case, to the form of
    accents and to `_` for a space. `region`: the attribute of the fields that says their region; a
    field without one gets the only row of its crop. `legend`, `mapping` (crop → code): the classes;
    by default a legend of the crops, 1 … K by name. `encoding`: of shapefiles without a .cpg.

    Raises `InputError` naming file, or sheet, row and column, for a crop without a row, two rows of
    one crop and region, a missing sheet or column, what is no date, and fields without a CRS.
    """
    rows = read_harvests(table, layout or Table())
    parts = [_part(name, path, region, encoding) for name, path in _files(Path(folder))]
    crs = parts[0].crs if all(part.crs == parts[0].crs for part in parts) else "EPSG:4326"
    fields = pd.concat([part.to_crs(crs) for part in parts], ignore_index=True)
    fields["crop"] = _alike(fields["crop"])
    chosen = _chosen(fields, rows, table)
    # The table's spelling where it has one, so that a region's harvests are compared as one.
    fields["region"] = _alike([row.region for row in chosen], [row.region for row in rows])
    fields["harvest"] = [row.date.isoformat() for row in chosen]
    names = sorted(set(fields["crop"]))
    found = legend or named(dict(enumerate(names, 1)), "crops", "classes of the labels")
    codes = {name: _code(name, found, mapping) for name in names}
    fields["code"] = fields["crop"].map(codes)
    columns = ["crop", "code", "region", "harvest", "source", "geometry"]
    return Crops(gpd.GeoDataFrame(fields[columns], geometry="geometry", crs=crs), found)


def read_harvests(path: str | os.PathLike[str], layout: Table) -> list[Harvest]:
    """The rows of a table of harvest dates; errors as in `read_crops`."""
    source = Path(path)
    is_csv = source.suffix.lower() == ".csv"
    if is_csv and layout.sheet is not None:
        raise InputError(f"{source} is a CSV table without sheets, but sheet is {layout.sheet!r}")
    cells = _csv_cells(source) if is_csv else _excel_cells(source, layout.sheet)
    head: dict[str, int] = {}
    found: list[Harvest] = []
    for place, row in cells:
        texts = [_text(cell) for cell in row]
        if not any(texts):
            continue
        if not head:
            head = _head(texts, layout, place)
            continue
        found.append(_harvest(row, head, layout, place))
    if not found:
        raise InputError(f"{source} has no harvests; expected a heading and a row for each crop")
    return found


def save_fields(crops: Crops, path: str | os.PathLike[str]) -> None:
    """Write the fields as GeoPackage, GeoJSON or GeoParquet, by the suffix."""
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise InputError(f"folder {target.absolute().parent} does not exist; create it")
    match target.suffix.lower():
        case ".parquet":
            crops.fields.to_parquet(target)
        case ".gpkg":
            target.unlink(missing_ok=True)
            crops.fields.to_file(target, layer="fields", driver="GPKG", engine="pyogrio")
        case ".geojson":
            crops.fields.to_file(target, driver="GeoJSON", engine="pyogrio")
        case _:
            raise InputError(f"{target} is no file of fields; give .gpkg, .geojson or .parquet")


def save_windows(
    spans: Mapping[str, Sequence[Period]], folder: str | os.PathLike[str]
) -> dict[str, Path]:
    """Write the windows of each region as a file for `--period`: by region, or `all.json`."""
    place = Path(folder)
    make_folder(place)
    written: dict[str, Path] = {}
    for region, periods in spans.items():
        name = re.sub(r"[^\w-]+", "_", region) or "all"
        path = place / f"{name}.json"
        if path in written.values():
            raise InputError(f"two regions would have the windows {path}; rename one")
        path.write_text(json.dumps(to_json(periods)), encoding="utf-8")
        written[region] = path
    return written


def _alike(names: Iterable[str], preferred: Sequence[str] = ()) -> list[str]:
    """Names that are compared as equal in one spelling: the preferred one, or the first sorted."""
    names = list(names)
    known: dict[str, str] = {}
    for name in (*preferred, *sorted(set(names))):
        known.setdefault(fold(name), name)
    return [known[fold(name)] for name in names]


def fold(name: str) -> str:
    """A name as names are compared: composed accents, no case, `_` as a space, single spaces."""
    text = folded(name).replace("_", " ")
    return " ".join(text.split())


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Crop and file of all fields, sorted."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one with a file or folder for each crop")
    found = []
    for path in sorted(folder.iterdir()):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        name = path.name if path.is_dir() else path.stem
        crop = unicodedata.normalize("NFC", name)
        # Names with a dot are what file managers leave beside the files, such as ._maize.shp.
        files = [file for file in inside if not file.name.startswith(".")]
        found += [(crop, file) for file in files if file.suffix.lower() in _SUFFIXES]
    if not found:
        raise InputError(f"folder {folder} has no fields; expected <crop>{'|'.join(_SUFFIXES)}")
    return found


def _part(crop: str, path: Path, region: str | None, encoding: str | None) -> gpd.GeoDataFrame:
    """Geometry, crop, region and source of a file."""
    frame = read_vectors(path, encoding=encoding)
    if region is not None and region not in frame.columns:
        there = ", ".join(str(c) for c in frame.columns if c != frame.geometry.name)
        raise InputError(f"{path} has no attribute {region!r}; it has {there or 'none'}")
    stated = [""] * len(frame) if region is None else [_text(value) for value in frame[region]]
    columns = {"crop": crop, "region": stated, "source": path.name}
    return gpd.GeoDataFrame(columns, geometry=list(frame.geometry), crs=frame.crs)


def _chosen(
    fields: gpd.GeoDataFrame, rows: Sequence[Harvest], table: str | os.PathLike[str]
) -> list[Harvest]:
    """The row of each field."""
    by_crop: dict[str, dict[str, Harvest]] = {}
    for entry in rows:
        regions = by_crop.setdefault(fold(entry.crop), {})
        before = regions.setdefault(fold(entry.region), entry)
        if before is not entry:
            raise InputError(f"{entry.where} is of the same crop and region as {before.where}")
    found: dict[tuple[str, str], Harvest] = {}
    row: Harvest | None
    for crop, region in sorted(set(zip(fields["crop"], fields["region"], strict=True))):
        known = by_crop.get(fold(crop))
        if known is None:
            raise InputError(
                f"crop {crop!r} has no row in {table}; it has "
                f"{', '.join(sorted({entry.crop for entry in rows}))}"
            )
        if region == "" and len(known) > 1:
            raise InputError(
                f"crop {crop!r} has {len(known)} rows in {table}, one for each region; say which "
                "attribute of the fields is their region"
            )
        # A row without a region is for all regions that have none of their own.
        row = next(iter(known.values())) if not region else known.get(fold(region), known.get(""))
        if row is None:
            raise InputError(f"crop {crop!r} of region {region!r} has no row in {table}")
        found[crop, region] = row if row.region else replace(row, region=region)
    return [found[pair] for pair in zip(fields["crop"], fields["region"], strict=True)]


def _code(crop: str, legend: Legend, mapping: Mapping[str, int] | None) -> int:
    if mapping is not None:
        folded = {fold(name): code for name, code in mapping.items()}
        if fold(crop) not in folded:
            raise InputError(f"crop {crop!r} is not in the mapping; it has {', '.join(mapping)}")
        return legend.entry(folded[fold(crop)]).code
    folded = {fold(entry.name): entry.code for entry in legend.entries}
    return folded[fold(crop)] if fold(crop) in folded else legend.find(crop).code


def _excel_cells(path: Path, sheet: str | None) -> Iterator[tuple[str, Sequence[Any]]]:
    """`file, sheet, row n` and the values of each row."""
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (OSError, InvalidFileException, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}); expected .xlsx or .csv"
        ) from error
    try:
        names = [page.title for page in book.worksheets]  # charts have no rows
        if sheet is not None and sheet not in names:
            raise InputError(f"{path} has no sheet {sheet!r}; it has {', '.join(names)}")
        chosen = sheet or names[0]
        for number, row in enumerate(book[chosen].iter_rows(values_only=True), start=1):
            yield f"{path}, sheet {chosen}, row {number}", row
    finally:
        book.close()


def _csv_cells(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected CSV in UTF-8") from error
    lines = text.splitlines()
    reader = csv.reader(lines, delimiter=delimiter(lines), skipinitialspace=True)
    for row in reader:
        yield f"{path}, row {reader.line_num}", row


def _head(texts: Sequence[str], layout: Table, place: str) -> dict[str, int]:
    """Column of each heading that is asked for."""
    columns = {fold(text): i for i, text in reversed(list(enumerate(texts))) if text}
    asked = (layout.region,) if layout.region != Table.region else ()
    for name in (*asked, layout.crop, layout.harvest):
        if fold(name) not in columns:
            raise InputError(
                f"{place} has no column {name!r}; its headings are {', '.join(filter(None, texts))}"
            )
    wanted = {"region": layout.region, "crop": layout.crop, "harvest": layout.harvest}
    return {key: columns[fold(name)] for key, name in wanted.items() if fold(name) in columns}


def _harvest(row: Sequence[Any], head: Mapping[str, int], layout: Table, place: str) -> Harvest:
    def cell(key: str) -> Any:
        return row[head[key]] if key in head and head[key] < len(row) else None

    crop = _text(cell("crop"))
    if not crop:
        raise InputError(f"{_cell(place, head['crop'])} is empty, expected the name of a crop")
    date = _date(cell("harvest"), layout.date, _cell(place, head["harvest"]))
    return Harvest(_text(cell("region")), crop, date, place)


def _date(value: Any, form: str | None, where: str) -> dt.date:
    """The day that a cell says; `InputError` for what is none, or in no year with satellites."""
    expected = form or "a date such as 2018-08-15"
    try:
        if isinstance(value, dt.datetime):
            day = value.date()
        elif isinstance(value, dt.date):
            day = value
        elif not isinstance(value, str):
            raise ValueError(f"it is {'empty' if value is None else 'a number'}")
        elif form is not None:
            day = dt.datetime.strptime(value.strip(), form).date()
        else:
            day = dt.date.fromisoformat(value.strip())
    except ValueError as error:
        raise InputError(f"{where} is {value!r} ({error}), expected {expected}") from error
    if day.year not in _YEARS:
        raise InputError(
            f"{where} is {day}, expected a year from {_YEARS.start} to {_YEARS.stop - 1}"
        )
    return day


def _cell(place: str, column: int) -> str:
    return f"{place}, column {get_column_letter(column + 1)}"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return " ".join(str(int(value) if whole else value).split())


def _months_before(day: dt.date, months: int) -> dt.date:
    """The same day of an earlier month, or that month's last one."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return dt.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
