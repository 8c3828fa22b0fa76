"""Quicklooks of masks and fields, before there is a product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lcengine.classmap import read_classes
from lcengine.errors import InputError
from lcengine.legends import Legend
from lcengine.quicklook import classes

SHOWN = 16
"""Masks on one sheet, the first ones by name."""
_EDGE = 400


def draw_masks(masks: Sequence[Path], picture: Path, legend: Legend) -> None:
    """Masks of codes or colours side by side in the colours of their legend, as a PNG."""
    shown = sorted(masks)[:SHOWN]
    across = math.ceil(math.sqrt(len(shown)))
    figure = Figure(figsize=(3 * across, 3.3 * math.ceil(len(shown) / across)), dpi=120)
    axes = figure.subplots(math.ceil(len(shown) / across), across, squeeze=False).ravel()
    attributes = legend.attributes()
    for axis, path in zip(axes, shown, strict=False):
        codes = read_classes(path, legend)
        step = max(1, -(-max(codes.shape) // _EDGE))
        axis.imshow(classes(codes[::step, ::step], attributes), interpolation="nearest")
        axis.set_title(path.name, fontsize=7)
    for axis in axes:
        axis.set_axis_off()
    _save(figure, picture)


def draw_fields(
    fields: gpd.GeoDataFrame,
    picture: Path,
    *,
    column: str | None = None,
    colours: Sequence[str] = (),
    boxes: gpd.GeoDataFrame | None = None,
) -> None:
    """Outlines of fields, coloured by a column, with boxes around regions, as a PNG.

    `colours`: of the sorted values of `column`; default those of matplotlib.
    """
    figure = Figure(figsize=(8, 8), dpi=120)
    axis = figure.subplots()
    shown = fields[~(fields.geometry.isna() | fields.geometry.is_empty)]
    if column is None:
        shown.plot(ax=axis, color="tab:green")
    else:
        values = shown[column].astype(str)
        chosen = ListedColormap(list(colours)) if colours else "tab20"
        legend = values.nunique() <= 20
        shown.plot(ax=axis, column=values, categorical=True, cmap=chosen, legend=legend)
    if boxes is not None:
        boxes.to_crs(shown.crs).boundary.plot(ax=axis, color="black", linewidth=0.8)
    axis.tick_params(labelsize=6)
    _save(figure, picture)


def _save(figure: Figure, picture: Path) -> None:
    try:
        figure.savefig(picture, format="png", bbox_inches="tight")
    except OSError as error:
        raise InputError(
            f"{picture} cannot be written: {error.strerror}; check the path"
        ) from error
