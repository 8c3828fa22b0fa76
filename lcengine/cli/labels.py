"""`lcengine labels`: vector features as label rasters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcengine.cli import options
from lcengine.cli.annotations import colors, crops, regions, resample, via
from lcengine.cli.making import Making, making
from lcengine.cli.options import pairs, takes
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    from lcengine.grid import Grid
    from lcengine.labels.request import LabelRequest

app = typer.Typer(no_args_is_help=True, help="Labels: vectors, annotations and masks as rasters.")

Vectors = Annotated[
    Path | None,
    typer.Argument(help="A vector file: GeoPackage, GeoJSON, shapefile, GeoParquet, …"),
]
Rules = Annotated[
    Path | None,
    typer.Option("--rules", help="Several layers: a TOML file (docs/labels.md)."),
]
LayerName = Annotated[str | None, typer.Option("--layer", help="Layer of the file.")]
FileCrs = Annotated[
    str | None,
    typer.Option("--file-crs", help="CRS of the file's coordinates, if it says none or a wrong."),
]
Where = Annotated[str | None, typer.Option("--where", help='Which features, in SQL: "area > 500".')]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Of a shapefile's attributes, e.g. cp1252.")
]
Invalid = Annotated[
    Literal["repair", "error"] | None,
    typer.Option("--invalid", help="What becomes of broken geometries (default: repair)."),
]
Attribute = Annotated[
    str | None, typer.Option("--attribute", help="Column with the class: a code or a name.")
]
Mapping = Annotated[
    str | None, typer.Option("--map", help="Values to classes: 'maize=1200,fallow=ignore'.")
]
OneClass = Annotated[
    str | None, typer.Option("--class", help="One class for all features, instead of a column.")
]
Other = Annotated[
    str | None, typer.Option("--other", help="Class of other values, or ignore (default: error).")
]
Buffer = Annotated[float, typer.Option("--buffer", help="Metres that features grow by.")]
Erode = Annotated[float, typer.Option("--erode", help="Metres that areas lose at their edges.")]
AllTouched = Annotated[
    bool, typer.Option("--all-touched", help="Also pixels whose centre is not covered.")
]
Priority = Annotated[
    str | None,
    typer.Option(
        "--priority", help="A column of numbers, or classes from the highest: 'road,maize'."
    ),
]
Conflict = Annotated[
    Literal["ignore", "error", "last"] | None,
    typer.Option(
        "--conflict", help="Pixels of equal priority and different classes (default: ignore)."
    ),
]


def _rule(
    attribute: Attribute = None,
    mapping: Mapping = None,
    one_class: OneClass = None,
    other: Other = None,
    buffer: Buffer = 0.0,
    erode: Erode = 0.0,
    all_touched: AllTouched = False,
    priority: Priority = None,
) -> dict[str, Any]:
    """The members of a rule that were given."""
    given = {
        "attribute": attribute,
        "class": one_class,
        "other": other,
        "map": pairs(mapping, "--map") or None,
        "buffer": buffer or None,
        "erode": erode or None,
        "all_touched": all_touched or None,
        "priority": priority,
    }
    return {key: value for key, value in given.items() if value is not None}


def _source(
    layer: LayerName = None,
    file_crs: FileCrs = None,
    where: Where = None,
    encoding: Encoding = None,
    invalid: Invalid = None,
) -> dict[str, Any]:
    """How the one file is read."""
    given = {
        "layer": layer,
        "crs": file_crs,
        "where": where,
        "encoding": encoding,
        "invalid": invalid,
    }
    return {key: value for key, value in given.items() if value is not None}


@app.command("rasterize")
@takes(options.grid, _source, _rule, making)
def rasterize(
    grid: Any,
    source: dict[str, Any],
    rule: dict[str, Any],
    making: Making,
    *,
    vectors: Vectors = None,
    rules: Rules = None,
    legend: options.LegendName = None,
    conflict: Conflict = None,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Make a label raster of vector features: one class per pixel, unlabelled where there is none.

    Pixels are those whose centre a feature covers (lines: Bresenham), as GDAL does it.
    """
    from lcengine.cli.product import summary
    from lcengine.quicklook import check_picture, draw

    if picture is not None:
        check_picture(picture)
    request = _request(vectors, rules, grid, source, rule, legend, conflict)
    path = making.run(request.plan, request.to_json(), json)
    if picture is not None:
        draw(path, picture)
    emit({**summary(path), **({"picture": str(picture)} if picture else {})}, json)
    draws = f"next: lcengine quicklook {making.output} -o {Path(making.output).stem}.png"
    say(f"look at {picture}" if picture else draws)


def _request(
    vectors: Path | None,
    rules: Path | None,
    grid: Grid,
    source: dict[str, Any],
    rule: dict[str, Any],
    legend: str | None,
    conflict: Literal["ignore", "error", "last"] | None,
) -> LabelRequest:
    """One file with options, or a file of rules without."""
    from dataclasses import replace

    from lcengine.errors import InputError
    from lcengine.labels.request import LabelRequest, VectorFile, read_rules
    from lcengine.labels.rules import Rule

    if (vectors is None) == (rules is None):
        raise InputError("expected one vector file, or --rules with several layers")
    if rules is not None:
        if source or rule:
            raise InputError(f"--rules says how layers are read; leave {_given(source, rule)} out")
        found = read_rules(rules, grid)
        return replace(found, conflict=conflict or found.conflict, legend=legend or found.legend)
    assert vectors is not None
    if isinstance(rule.get("priority"), str) and "," in rule["priority"]:
        rule = {**rule, "priority": _names(rule["priority"])}
    return LabelRequest(
        (VectorFile(vectors, Rule.from_json(rule), **source),), grid, legend, conflict or "ignore"
    )


def _given(source: dict[str, Any], rule: dict[str, Any]) -> str:
    names = ("file-crs" if key == "crs" else key.replace("_", "-") for key in (*source, *rule))
    return ", ".join(f"--{name}" for name in names)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


for _command in (via, colors, crops, regions, resample):
    app.command()(_command)
