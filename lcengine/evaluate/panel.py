"""A part of a map to look at: image, reference, map, and the probability of each class."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lcengine import store
from lcengine.errors import InputError, LcengineError
from lcengine.evaluate.plan import DISAGREEMENT, EvaluatePlan
from lcengine.evaluate.task import compare
from lcengine.imagefile import is_image
from lcengine.inputs import Inputs, pinned
from lcengine.legends import IGNORE
from lcengine.locate import Window
from lcengine.predict.plan import SCALE
from lcengine.quicklook import classes, colour, shown

EDGE: Final = 512
"""Pixels of a panel's window, where no other is asked for."""
ACROSS: Final = 4
"""Pictures side by side."""
MOST: Final = 24
"""Classes whose probabilities are drawn: those with most pixels in the window."""

_WINDOW = re.compile(r"(\d+),(\d+)(?:,(\d+))?")

RGBA = npt.NDArray[np.uint8]


def window_of(plan: EvaluatePlan, text: str | None = None) -> Window:
    """`row,column[,edge]` of the map's pixels, or the middle; cut at the map's edge.

    `InputError` for what lies beside the map.
    """
    height, width = plan.grid.shape
    if text is None:
        top, left = (max(0, (size - EDGE) // 2) for size in (height, width))
        return Window(top, left, min(EDGE, height - top), min(EDGE, width - left))
    found = _WINDOW.fullmatch(text.replace(" ", ""))
    top, left, edge = (
        (int(part or EDGE) for part in found.groups()) if found else (height, width, 0)
    )
    if top >= height or left >= width or edge < 1:
        raise InputError(
            f"the window is {text!r}, expected row,column or row,column,edge inside of the map's "
            f"{height} x {width} pixels"
        )
    return Window(top, left, min(edge, height - top), min(edge, width - left))


def image_of(plan: EvaluatePlan) -> str | None:
    """The product that the map was made of, the first of several; None where none is there."""
    path = plan.mapped.path
    if is_image(path):
        return None
    for source in (store.provenance(path).get("sources") or {}).values():
        with suppress(LcengineError):
            store.provenance(source["path"])
            return str(source["path"])
    return None


@dataclass(frozen=True)
class _Picture:
    """One of a panel."""

    title: str
    pixels: npt.NDArray[Any]
    is_share: bool = False


def panel(plan: EvaluatePlan, window: Window, image: str | None = None) -> bytes:
    """A PNG of a window of a map, read alone; `image`: a product of any pixels, drawn beside.

    Red, green and blue are drawn where the product has them, else near infrared, red and green,
    else its first band, of the period with the most pixels there. Classes have the colours of the
    legend that is compared in; probabilities, where the map stores them, go from 0 to 1.
    """
    mapped, reference = (reader.indices(window) for reader in plan.readers)
    pictures = [] if image is None else [_image(plan, window, image)]
    legend = plan.legend
    attributes = legend.attributes()
    for title, indices in (("reference", reference), ("map", mapped)):
        pictures.append(_Picture(title, classes(legend.decode(indices), attributes)))
    pictures.append(
        _Picture("grey right, red wrong, blue not mapped", _differing(mapped, reference))
    )
    there = np.bincount(np.concatenate([mapped, reference], axis=None), minlength=IGNORE + 1)
    pictures += _probabilities(plan, window, there)
    present = [i for i in range(len(legend.classes)) if there[i]]
    patches = [Patch(color=legend.colours[i], label=legend.names[i]) for i in present]
    return _drawn(pictures, patches, _place(plan, window))


def _image(plan: EvaluatePlan, window: Window, path: str) -> _Picture:
    """The product's colours there, on the map's pixels."""
    names = [str(name) for name, values in store.stored(path).items() if "y" in values.dims]
    if not names:
        raise InputError(f"{path} is no raster; give the product that the map was made of")
    bands = shown(names)
    read = Inputs({"image": pinned(path, bands)}, plan.grid)
    values, (entry,) = read.read(window)["image"][0], read.inputs
    there = entry.valid(values)
    pixels = np.where(there, values, np.nan).astype(np.float32)
    period = ""
    if entry.times:
        most = int(there.sum(axis=(1, 2, 3)).argmax())
        pixels, period = pixels[most], f" {entry.times[most]}"
    return _Picture(f"{', '.join(bands)}{period}", colour(pixels))


def _differing(mapped: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> RGBA:
    """In the colours of the report's `disagreement`."""
    return classes(compare(reference, mapped), DISAGREEMENT.attributes())


def _probabilities(
    plan: EvaluatePlan, window: Window, there: npt.NDArray[np.int64]
) -> Iterator[_Picture]:
    """Of the map's own classes, the most frequent ones where there are many."""
    if not plan.proba:
        return
    source = plan.mapped.crosswalk.source
    codes = dict(plan.mapped.crosswalk.pairs)
    index = {code: i for i, code in enumerate(plan.legend.codes)}
    pixels = [there[index[to]] if (to := codes[code]) is not None else 0 for code in source.codes]
    most = sorted(np.argsort(pixels, kind="stable")[::-1][:MOST].tolist())
    data = store.stored(plan.mapped.path)
    rows = slice(window.y0, window.y0 + window.height)
    columns = slice(window.x0, window.x0 + window.width)
    for i in most:
        values = data[plan.proba[i]][rows, columns].values
        shares = np.where(values == 255, np.nan, values * np.float32(SCALE))
        yield _Picture(f"p({source.names[i]})", shares, is_share=True)


def _place(plan: EvaluatePlan, window: Window) -> str:
    size = plan.grid.resolution
    return (
        f"rows {window.y0}–{window.y0 + window.height - 1}, columns {window.x0}–"
        f"{window.x0 + window.width - 1}, pixels of {size:g}"
    )


def _drawn(pictures: list[_Picture], patches: list[Patch], title: str) -> bytes:
    """Pictures in rows, the key of classes below."""
    across = min(ACROSS, len(pictures))
    rows = math.ceil(len(pictures) / across)
    lines = math.ceil(len(patches) / across)
    height, width = pictures[0].pixels.shape[:2]
    each = min(max(3 * height / width, 0.6), 9) + 0.3
    figure = Figure(figsize=(3 * across, each * rows + 0.2 * lines + 0.5), dpi=150)
    figure.set_layout_engine("constrained")
    axes: list[Axes] = figure.subplots(rows, across, squeeze=False).ravel().tolist()
    for axis, picture in zip(axes, pictures, strict=False):
        axis.set_title(picture.title, fontsize=8)
        drawn = axis.imshow(  # colours do not heed the limits
            picture.pixels, interpolation="nearest", cmap="viridis", vmin=0, vmax=1
        )
        if picture.is_share and picture is pictures[-1]:
            figure.colorbar(drawn, ax=axes[-across:], shrink=0.8, label="probability")
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=8)
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=across, fontsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
