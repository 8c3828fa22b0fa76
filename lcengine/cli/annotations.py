"""`lcengine labels via|colors|crops|regions|resample`: what people drew, and maps, as labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import pairs, takes
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    from lcengine.legends import Legend

Mapping = Annotated[
    str | None, typer.Option("--map", help="Values to codes or names: 'maize=1,Weizen=2'.")
]
Format = Annotated[Literal["tif", "png"], typer.Option("--format", help="Kind of masks.")]


def via(
    annotations: Annotated[Path, typer.Argument(help="VIA project or export (JSON).")],
    images: Annotated[Path, typer.Option("--images", help="Folder of the annotated images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write masks into.")],
    attribute: Annotated[
        str | None, typer.Option("--attribute", help="Region attribute that names the class.")
    ] = None,
    one_class: Annotated[
        str | None, typer.Option("--class", help="One class for all regions, name or code.")
    ] = None,
    legend: options.LegendName = None,
    mapping: Mapping = None,
    background: Annotated[
        str | None,
        typer.Option("--background", help="Class of all other pixels (default: unlabelled)."),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option("--priority", help="Classes from the highest: 'road,field' (default: later)."),
    ] = None,
    width: Annotated[float, typer.Option("--width", help="Pixels across a polyline.")] = 1.0,
    radius: Annotated[float, typer.Option("--radius", help="Pixels around a point.")] = 0.0,
    suffix: Format = "tif",
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Annotations of the VGG Image Annotator as a mask of class codes for each image."""
    from lcengine.errors import InputError
    from lcengine.labels import via as drawing
    from lcengine.labels.picture import draw_masks

    found = drawing.read_via(annotations)
    known = options.legend(legend)
    if known is None:
        if attribute is None and one_class is None:
            raise InputError("regions get their class by --attribute or are all of one --class")
        if attribute is None or mapping is not None:
            raise InputError("--class and --map are of a legend; give --legend")
        known = drawing.legend_of(found, attribute)
    rule = drawing.Drawing(
        known,
        attribute=attribute,
        mapping=_codes(mapping, known),
        code=None if one_class is None else known.find(one_class).code,
        background=None if background is None else known.find(background).code,
        priority=tuple(p.strip() for p in priority.split(",")) if priority else (),
        width=width,
        radius=radius,
    )
    masks = drawing.write_masks(found, images, output, rule, suffix=f".{suffix}")
    if picture is not None:
        draw_masks(masks, picture, known)
    regions = sum(len(annotation.regions) for annotation in found)
    emit({"masks": len(masks), "regions": regions, "classes": _coded(known)}, json)
    _next(picture, f"masks are in {output}")


def colors(
    source: Annotated[Path, typer.Argument(help="A mask, or a folder of masks.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File, or folder, to write.")],
    legend: Annotated[
        str,
        typer.Option(
            "--legend", help="A legend's name, a table (.csv, .json, .toml), .qml, .clr or .tif."
        ),
    ],
    to: Annotated[
        Literal["codes", "colours"], typer.Option("--to", help="What masks become.")
    ] = "codes",
    tolerance: Annotated[
        int,
        typer.Option("--tolerance", help="Greatest difference of a channel: 127 for lossy masks."),
    ] = 0,
    unknown: Annotated[
        Literal["error", "ignore"], typer.Option("--unknown", help="Colours of no class.")
    ] = "error",
    suffix: Annotated[
        Literal["tif", "png"] | None,
        typer.Option("--format", help="Kind of masks of a folder (default: tif)."),
    ] = None,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Masks of colours as class codes, or class codes as colours."""
    from lcengine.classmap import find_legend
    from lcengine.errors import InputError
    from lcengine.labels.colors import to_codes, to_colours
    from lcengine.labels.picture import draw_masks

    known = find_legend(legend)
    if to == "colours":
        if tolerance or unknown != "error" or suffix is not None:
            raise InputError("--tolerance, --unknown and --format are for --to codes; leave it out")
        masks = to_colours(source, output, known)
    else:
        if suffix is not None and not source.is_dir():
            raise InputError(f"--format is of folders; {output} is written as its name says")
        kind = f".{suffix or 'tif'}"
        masks = to_codes(source, output, known, tolerance=tolerance, unknown=unknown, suffix=kind)
    if picture is not None:
        draw_masks(masks, picture, known)
    emit({"masks": len(masks), "legend": known.name, "classes": _coded(known)}, json)
    _next(picture, f"wrote {output}")


def crops(
    folder: Annotated[Path, typer.Argument(help="A file <crop>.shp or folder <crop>/ each.")],
    table: Annotated[Path, typer.Option("--table", help="Harvest dates: .xlsx or .csv.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Fields to write: .gpkg.")],
    sheet: Annotated[str | None, typer.Option("--sheet", help="Sheet of the workbook.")] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="Headings of region, crop and harvest date.")
    ] = "region,crop,harvest",
    date: Annotated[
        str | None, typer.Option("--date", help="How dates are written as text: %d.%m.%Y.")
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="Attribute of the fields with their region.")
    ] = None,
    legend: options.LegendName = None,
    mapping: Mapping = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of a shapefile's attributes, e.g. cp1252.")
    ] = None,
    periods: Annotated[
        Path | None,
        typer.Option("--periods", help="Folder for the time windows of each region (JSON)."),
    ] = None,
    windows: Annotated[int, typer.Option("--windows", help="Windows of a month each.")] = 6,
    before: Annotated[
        int, typer.Option("--before", help="Months between the last window and the harvest.")
    ] = 1,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Fields by crop and a table of harvest dates as one file, and time windows by region."""
    from lcengine.errors import InputError
    from lcengine.labels.harvest import Table, read_crops, save_fields, save_windows
    from lcengine.labels.picture import draw_fields

    headings = [heading.strip() for heading in columns.split(",")]
    if len(headings) != 3:
        raise InputError(f"--columns is {columns!r}, expected three headings: region,crop,harvest")
    known = options.legend(legend)
    if known is None and mapping is not None:
        raise InputError("--map names classes of a legend; give --legend")
    found = read_crops(
        folder,
        table,
        layout=Table(sheet, headings[0], headings[1], headings[2], date),
        region=region,
        legend=known,
        mapping=None if known is None or mapping is None else _codes(mapping, known),
        encoding=encoding,
    )
    spans = found.windows(count=windows, before=before)
    save_fields(found, output)
    if periods is not None:
        save_windows(spans, periods)
    if picture is not None:
        draw_fields(found.fields, picture, column="crop")
    counts = found.fields["crop"].value_counts().sort_index()
    times = {
        name or "all": f"{w[0].start:%Y-%m-%d}/{w[-1].name.rpartition('/')[2]}"
        for name, w in spans.items()
    }
    facts = {"fields": len(found.fields), "crops": {str(k): int(n) for k, n in counts.items()}}
    emit({**facts, "classes": _coded(found.legend), "times": times}, json)
    how = "crop" if legend is None else f"code --legend {legend}"
    _next(picture, f"next: lcengine labels rasterize {output} --attribute {how} --like …")


def regions(
    labels: Annotated[Path, typer.Argument(help="A vector file of labels.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="GeoJSON, or a folder for a file each.")
    ],
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of the file.")] = None,
    file_crs: Annotated[
        str | None,
        typer.Option("--file-crs", help="CRS of the file's coordinates, if it says none or wrong."),
    ] = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", help="Column with the class, to list them.")
    ] = None,
    distance: Annotated[
        float, typer.Option("--distance", help="Metres between neighbours of a region.")
    ] = 2000.0,
    least: Annotated[
        int, typer.Option("--least", help="Labels within the distance that make a region.")
    ] = 1,
    patch: Annotated[int, typer.Option("--patch", help="Smallest edge in pixels.")] = 64,
    margin: Annotated[int, typer.Option("--margin", help="Pixels around the labels.")] = 0,
    like: options.Like = None,
    crs: options.Crs = None,
    resolution: options.Resolution = None,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Cluster labels into regions of interest: boxes on the pixel grid, to be used as --aoi."""
    from lcengine.errors import InputError
    from lcengine.labels import clusters
    from lcengine.labels.picture import draw_fields
    from lcengine.labels.vectors import read_vectors

    frame = read_vectors(labels, layer, crs=file_crs)
    if like is not None and (crs is not None or resolution is not None):
        raise InputError("--like says which pixels; leave out --crs and --resolution")
    if like is not None:
        grid = options.grid(like, None, None, None, None, None)
    else:
        grid = clusters.lattice_around(frame, crs=crs, resolution=resolution or 10.0)
    found = clusters.regions(
        frame, grid, distance=distance, least=least, patch=patch, margin=margin, column=attribute
    )
    files = clusters.save_regions(found, output)
    if picture is not None:
        draw_fields(frame, picture, column=attribute, boxes=found)
    facts: dict[str, Any] = {
        "regions": len(found),
        "labels": int(found["count"].sum()),
        "without_region": len(frame) - int(found["count"].sum()),
        "km2_labelled": float(found["area"].sum() / 1e6),
        "pixels": int((found["height"] * found["width"]).sum()),
    }
    emit(facts, json)
    _next(picture, f"next: lcengine composite … --aoi {files[0]}")


@takes(options.grid, making)
def resample(
    grid: Any,
    making: Making,
    source: Annotated[str, typer.Argument(help="A map of classes: GeoTIFF or label product.")],
    method: Annotated[
        Literal["majority", "nearest", "fractions"],
        typer.Option("--method", help="Class of most points, at the centre, or shares of all."),
    ] = "majority",
    legend: options.LegendName = None,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """A map of classes on another grid, as a product of labels or of fractions."""
    from lcengine import quicklook
    from lcengine.cli.product import summary
    from lcengine.labels.coarse.plan import plan_map

    if picture is not None:
        quicklook.check_picture(picture)
    known = options.legend(legend)
    plan = plan_map(source, grid, legend=known, method=method)
    path = making.run(lambda: plan, plan.to_json(), json)
    if picture is not None:
        quicklook.draw(path, picture)
    emit(summary(path), json)
    _next(picture, f"next: lcengine quicklook {making.output} -o {Path(making.output).stem}.png")


def _next(picture: Path | None, otherwise: str) -> None:
    say(otherwise if picture is None else f"look at {picture}")


def _codes(text: str | None, legend: Legend) -> dict[str, int]:
    """Codes by value, of classes by name or code."""
    return {value: legend.find(name).code for value, name in pairs(text, "--map").items()}


def _coded(legend: Legend) -> dict[str, int]:
    return {entry.name: entry.code for entry in legend.classes}
