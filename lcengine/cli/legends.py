"""`lcengine legends`: the classes of land-cover maps, and their colour tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    from lcengine.legends import Crosswalk, Legend


def legends(
    name: Annotated[
        str | None, typer.Argument(help="A legend, e.g. worldcover (default: list them all).")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Another legend: show what each class becomes.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write its colours: .qml or .txt for QGIS, or .clr."),
    ] = None,
    json: options.AsJson = False,
) -> None:
    """List legends, show the classes of one, or what they become in another."""
    from lcengine.errors import InputError
    from lcengine.legends import crosswalk, legend, save_style
    from lcengine.legends import legends as registry

    if name is None:
        if to is not None or output is not None:
            raise InputError("--to and --output need a legend; name one, e.g. worldcover")
        emit({known.name: _summary(known, json) for known in registry().values()}, json)
        return
    chosen = legend(name)
    if output is not None:
        save_style(chosen, output)
        say(f"wrote {output}")
    if to is not None:
        _show_crosswalk(crosswalk(name, to), json)
    elif json:
        emit(_described(chosen), json)
    else:
        _show(chosen)


def _summary(legend: Legend, as_json: bool) -> Any:
    if as_json:
        return {"title": legend.title, "classes": len(legend.codes), "dtype": str(legend.dtype)}
    return f"{len(legend.codes):>3} classes  {legend.title}"


def _described(legend: Legend) -> dict[str, Any]:
    from lcengine.legends import crosswalks

    return {
        "name": legend.name,
        "title": legend.title,
        "source": legend.source,
        "dtype": str(legend.dtype),
        "nodata": legend.nodata,
        "ignored": list(legend.ignored),
        "classes": [
            {"code": e.code, "name": e.name, "colour": e.colour, "groups": list(e.groups)}
            for e in legend.entries
        ],
        "crosswalks": [c.target.name for c in crosswalks(legend.name)],
    }


def _show(legend: Legend) -> None:
    """Title, a line for each code with its colour, and where that is from."""
    from lcengine.legends import crosswalks

    typer.echo(f"{legend.title}: {legend.dtype}, nodata {legend.nodata}")
    for entry in legend.entries:
        mark = "  (ignored)" if entry.code in legend.ignored else ""
        typer.secho("  ", bg=entry.rgb, nl=False)
        typer.echo(f" {entry.code:>5}  {entry.colour}  {entry.name}{mark}")
    typer.echo(f"source: {legend.source}")
    further = [known.target.name for known in crosswalks(legend.name)]
    if further:
        typer.echo(f"crosswalks to: {', '.join(further)}")


def _show_crosswalk(known: Crosswalk, as_json: bool) -> None:
    if as_json:
        emit(known.to_json(), as_json)
        return
    for code, target in known.pairs:
        found = "no class" if target is None else f"{target} {known.target.entry(target).name}"
        typer.echo(f"{code:>5} {known.source.entry(code).name} → {found}")
    typer.echo(f"source: {known.reference}")
