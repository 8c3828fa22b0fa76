"""Folders of images with masks, of any names: a pattern for each tells which belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.classmap import coloured, find_legend, read_legend
from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.legends import IGNORE, Legend
from lcengine.samples.folders import pixels
from lcengine.samples.folders.base import FolderSource, Member, complete, listing
from lcengine.samples.folders.pixels import Header
from lcengine.samples.source import LABEL

IMAGE = "image"
COLOURS = ("red", "green", "blue")
NAMES: Mapping[int, tuple[str, ...]] = {1: ("grey",), 3: COLOURS, 4: (*COLOURS, "nir")}
"""Names of bands, by their number, where neither the file nor the user names them."""


class ImageFolder(FolderSource):
    """Images and masks of equal size, GeoTIFF, PNG or JPEG, with or without a CRS.

    `images`, `masks`: paths in the folder, where `{}` stands for what an image and its mask have in
    common (it may hold folders) and `*` for anything else: `images/{}.*` and `masks/{}_gt.png`, or
    `{}_sat.jpg` and `{}_mask.png` side by side. A mask has one band of codes (a palette is not
    looked at), or colours of the legend, exact or within `tolerance` (see `Legend.from_rgb`).
    `legend`: a legend, its name or file, or its JSON; by default the palette of the first mask.
    `bands`: names of the images' bands, by default as the files describe them and without alpha;
    naming all of them keeps one that is called alpha and is none, such as a near infrared.

    Images are stored as they are, nodata of integers as the fill and of floats as NaN. They are
    scenes without a group. `skip_unpaired` leaves out images without mask and masks without image,
    which otherwise are an `InputError`.
    """

    kind = "images"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        images: str = "images/{}.*",
        masks: str = "masks/{}.*",
        legend: str | Legend | Mapping[str, Any] | None = None,
        tolerance: int = 0,
        bands: Sequence[str] | None = None,
        skip_unpaired: bool = False,
    ) -> None:
        super().__init__(path, {"images": images, "masks": masks, "tolerance": tolerance})
        self._patterns = {IMAGE: images, LABEL: masks}
        self._skip = skip_unpaired
        self._tolerance = tolerance
        self._bands = None if bands is None else tuple(bands)
        self._legend = self._first_palette() if legend is None else _legend(legend)
        self.options |= {
            "legend": self._legend.to_json(),
            "bands": None if bands is None else list(bands),
            "skip_unpaired": skip_unpaired,
        }

    @cached_property
    def members(self) -> Sequence[Member]:
        """The pairs, in the order of what their names have in common."""
        pairs = self._pairs()
        found = [Member(key, pairs[key]) for key in sorted(pairs)]
        return complete(self.path, found, (IMAGE, LABEL), self._expected, self._skip)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The image, as the header of the first one describes it."""
        path = self.path / self.members[0].files[IMAGE]
        found = pixels.header(path)
        names = self._bands or found.names or NAMES.get(found.bands)
        names = names or tuple(f"b{number}" for number in range(1, found.bands + 1))
        if len(names) not in (found.bands, found.stored):
            raise InputError(
                f"{path} has {found.stored} bands, expected {len(names)} ({', '.join(names)}); "
                "name every band"
            )
        return (Input(IMAGE, names, found.dtype, _fill(path, found)),)

    @property
    def legend(self) -> Legend:
        """The classes; labels are its training indices, 255 = ignore."""
        return self._legend

    def check(self, role: str, path: Path, found: Header) -> None:
        """`InputError` where an image is not as the first one, or a mask is none."""
        if role == LABEL:
            if found.bands not in (1, 3) or (found.bands == 3 and found.dtype != "uint8"):
                raise InputError(
                    f"{path} has {found.bands} bands of {found.dtype}, expected a mask: one band "
                    "of codes or three of uint8 colours; check the pattern of masks"
                )
            return
        (given,) = self.inputs
        count = found.stored if len(given.bands) == found.stored else found.bands
        seen = (count, found.dtype, _fill(path, found))
        expected = (len(given.bands), given.dtype, given.fill)
        if seen != expected:
            raise InputError(
                f"{path} has {seen[0]} bands of {seen[1]} with nodata {seen[2]}, the first image "
                f"has {expected[0]} of {expected[1]} with nodata {expected[2]}; images of a folder "
                "must be alike"
            )

    def pixels_of(
        self, given: Input, values: npt.NDArray[Any], nodata: float | None
    ) -> npt.NDArray[Any]:
        """The image as it is stored; nodata of floats becomes NaN."""
        if values.dtype.kind == "f" and nodata is not None:
            values[values == values.dtype.type(nodata)] = np.nan
        return values

    def indices_of(self, values: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.uint8]:
        """Training indices of codes or colours, 255 where an alpha band is 0."""
        bands = np.moveaxis(values, 1, 0)
        if len(bands) > 2:
            return self.legend.encode(coloured(bands, self.legend, self._tolerance))
        if len(bands) == 1:
            return encoded(self.legend, bands[0], nodata)
        seen = bands[1] > 0
        indices = np.full(seen.shape, IGNORE, np.uint8)
        indices[seen] = encoded(self.legend, bands[0][seen], nodata)
        return indices

    def _pairs(self) -> dict[str, dict[str, str]]:
        """Files by role, by what their names have in common."""
        pairs: dict[str, dict[str, str]] = {}
        # A name that fits both patterns is of the one that says more.
        ordered = sorted(self._patterns, key=lambda role: -len(self._patterns[role]))
        shapes = {role: _shape(self._patterns[role]) for role in ordered}
        for name in listing(self.path):
            fits = ((role, shape.fullmatch(name)) for role, shape in shapes.items())
            role, fit = next(((r, m) for r, m in fits if m), (None, None))
            if role is None or fit is None:
                continue
            files = pairs.setdefault(fit[1], {})
            if role in files:
                raise InputError(
                    f"{self.path} has two files for {role} {fit[1]!r}, {files[role]} and {name}; "
                    "move one away, or give a pattern that fits one of them"
                )
            files[role] = name
        if not pairs:
            listed = " or ".join(self._patterns.values())
            raise InputError(f"{self.path} holds no file called {listed}; give the patterns")
        return pairs

    def _expected(self, member: Member, role: str) -> str:
        return self._patterns[role].replace("{}", member.name)

    def _first_palette(self) -> Legend:
        path = self.path / self.members[0].files[LABEL]
        try:
            return read_legend(path)
        except InputError as error:
            raise InputError(
                f"the masks of {self.path} come without a legend and {path.name} has no colour "
                "table; give a legend"
            ) from error


def encoded(
    legend: Legend, codes: npt.NDArray[Any], missing: float | None
) -> npt.NDArray[np.uint8]:
    """Training indices of codes as a file holds them, which may be whole numbers as floats."""
    values = codes
    if codes.dtype.kind == "f":
        gone = ~np.isfinite(codes)
        values = np.where(gone, legend.nodata, np.rint(np.where(gone, 0, codes))).astype(np.int64)
        if (values != codes)[~gone].any():
            raise InputError("codes have decimals, expected whole numbers; is this a mask?")
    skip = None if missing is None or not float(missing).is_integer() else int(missing)
    return legend.encode(legend.stored(values, skip))


def _legend(given: str | Legend | Mapping[str, Any]) -> Legend:
    if isinstance(given, Legend):
        return given
    return find_legend(given) if isinstance(given, str) else Legend.from_json(given)


def _fill(path: Path, found: Header) -> int | None:
    """Nodata of an image of integers; floats have NaN instead."""
    if found.nodata is None or np.dtype(found.dtype).kind == "f":
        return None
    if not float(found.nodata).is_integer():
        raise InputError(
            f"{path} is {found.dtype} and has nodata {found.nodata}, expected a whole number; "
            "correct it, e.g. with gdal_edit.py -a_nodata"
        )
    return int(found.nodata)


def _shape(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression whose group is what `{}` stands for."""
    if pattern.count("{}") != 1:
        raise InputError(
            f"pattern {pattern!r} must have one {{}} for what the names of an image and its mask "
            "have in common, such as images/{}.png"
        )
    before, after = ("[^/]*".join(map(re.escape, part.split("*"))) for part in pattern.split("{}"))
    return re.compile(f"{before}(.+){after}")
