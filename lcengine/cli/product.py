"""`lcengine info` and `lcengine quicklook`: looking at a product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    import xarray as xr

Product = Annotated[str, typer.Argument(help="A product: out.zarr or s3://bucket/out.zarr.")]


RECIPE = ("mask", "outliers", "method", "period", "min_clear")
"""What of a recipe makes a product what it is."""


def summary(path: Path | str) -> dict[str, Any]:
    """What a product is, from its metadata alone."""
    import json

    import lcengine
    from lcengine import store
    from lcengine.sensors.base import QUANTITIES

    product = lcengine.open(path)
    provenance = json.loads(product.attrs["lcengine"])
    if provenance.get("kind", "composite") != "composite":
        return _described(path, product, provenance)
    request = provenance["request"]
    recipe = provenance.get("recipe", request)
    known = {quantity.units for quantity in QUANTITIES.values()}
    units = {str(name): variable.attrs.get("units") for name, variable in product.items()}
    bands = {name: unit for name, unit in units.items() if unit in known}
    periods = product["period"].values.tolist() if "period" in product.coords else []
    return {
        "product": str(path),
        "files": store.place(path),
        "bands": list(bands),
        "units": next(iter(bands.values()), None),
        "qa": [str(name) for name in product.data_vars if name not in bands],
        **({"periods": periods} if periods else {}),
        "shape": [product.sizes["y"], product.sizes["x"]],
        "crs": product.attrs.get("proj:code", product.attrs["proj:wkt2"]),
        "resolution": product.attrs["spatial:transform"][0],
        "sensor": provenance.get("sensor"),
        "recipe": {k: recipe[k] for k in RECIPE if recipe.get(k) is not None},
        "source": request.get("source"),
        "datetime": request.get("datetime"),
        "items": provenance["items"],
        "failed_reads": provenance["failed_reads"],
        "run_id": provenance["run_id"],
        "package": provenance["package"],
    }


def _described(path: Path | str, product: xr.Dataset, provenance: dict[str, Any]) -> dict[str, Any]:
    """What a product other than a composite is."""
    from lcengine import store

    legend = provenance.get("legend") or {}
    place: dict[str, Any]
    if "spatial:transform" in product.attrs:
        place = {
            "shape": [product.sizes["y"], product.sizes["x"]],
            "crs": product.attrs.get("proj:code", product.attrs["proj:wkt2"]),
            "resolution": product.attrs["spatial:transform"][0],
        }
    else:
        place = {"samples": product.sizes["sample"]}
    internal = {"package", "run_id", "request", "grid", "variables", "kind", "legend", "model_spec"}
    return {
        "product": str(path),
        "files": store.place(path),
        "kind": provenance["kind"],
        "variables": [str(name) for name in product.data_vars],
        **place,
        "classes": [entry["name"] for entry in legend.get("entries", ())],
        **{name: fact for name, fact in provenance.items() if name not in internal},
        "run_id": provenance["run_id"],
        "package": provenance["package"],
    }


def info(product: Product, json: options.AsJson = False) -> None:
    """Say what a product holds, how it was made and from what."""
    emit(summary(product), json)


def quicklook(
    product: Product,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")],
    bands: Annotated[
        str | None,
        typer.Option("--bands", help="One for grey, three for colour (default: red,green,blue)."),
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="Which period, for a product with several.")
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Longest edge of the picture.")] = 1024,
    json: options.AsJson = False,
) -> None:
    """Draw a product as a PNG: 2-98 % stretch, nodata transparent."""
    from lcengine.quicklook import draw

    names = tuple(b.strip() for b in bands.split(",")) if bands else None
    shape = draw(product, output, bands=names, time=time, size=size)
    emit({"picture": str(output), "shape": list(shape)}, json)
    say(f"look at {output}")
