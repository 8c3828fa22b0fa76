"""`lcengine export`: a product for GDAL and QGIS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcengine.cli import options
from lcengine.cli.output import emit, say
from lcengine.cli.product import Product


def export(
    product: Product,
    output: Annotated[Path, typer.Argument(help="GeoTIFF to write, e.g. out.tif.")],
    bands: Annotated[
        str | None,
        typer.Option(
            "--bands", help="Comma-separated variables, also QA (default: classes, else all bands)."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="One period: its name or its number from 0 (default: all)."),
    ] = None,
    compress: Annotated[
        str, typer.Option("--compress", help="deflate (read everywhere) or zstd.")
    ] = "deflate",
    json: options.AsJson = False,
) -> None:
    """Write a product as a Cloud Optimized GeoTIFF, which QGIS and GDAL read."""
    from lcengine.export import check_compression, export

    names = tuple(b.strip() for b in bands.split(",")) if bands else None
    written = export(product, output, bands=names, time=time, compress=check_compression(compress))
    emit({"raster": str(output), "bands": written, "bytes": output.stat().st_size}, json)
    say(f"open {output} in QGIS, or look at it with gdalinfo")
