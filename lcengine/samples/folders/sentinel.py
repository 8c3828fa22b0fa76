"""What SEN12MS and DFC2020 share: patches of Sentinel-1, Sentinel-2 and labels by file name.

A file is called `ROIs<number>_<season>_<role>_<scene>_p<patch>.tif`, with role s1, s2, lc or dfc,
and its name says all: which folders it lies in differs between the archives of the data sets.
Sentinel-1: VV and VH in dB. Sentinel-2: 13 bands of top-of-atmosphere reflectance * 10000.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.kernels import convert
from lcengine.legends import Legend, crosswalk, crosswalks
from lcengine.samples.folders import near
from lcengine.samples.folders.base import FolderSource, Member, complete, listing
from lcengine.samples.folders.images import encoded
from lcengine.samples.folders.pixels import Header
from lcengine.samples.source import LABEL, Scene
from lcengine.sensors.base import QUANTITIES

S1_BANDS = ("vv", "vh")
S2_BANDS = (
    *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
    *("nir", "nir08", "nir09", "cirrus", "swir16", "swir22"),
)
"""B1 to B8, B8A, B9 to B12."""
UNLABELLED = 0
"""Code of no class in all label images: no scheme uses it."""

_NAME = re.compile(r"(ROIs\d+_[a-z]+)_(s1|s2|lc|dfc)_([^_]+)_p(\d+)\.tif")
_OPTICAL = convert.Scaling(1e-4, 0.0, None)


def _input(name: str, bands: tuple[str, ...], kind: Any) -> Input:
    quantity = QUANTITIES[kind]
    fill = int(convert.NODATA)
    return Input(name, bands, "int16", fill, scale=quantity.scale, units=quantity.units)


INPUTS: Mapping[str, Input] = {
    "s1": _input("s1", S1_BANDS, "backscatter"),
    "s2": _input("s2", S2_BANDS, "reflectance"),
}


class Triplets(FolderSource):
    """Patches of `inputs` (s1, s2) with the label images of one role, in one encoding.

    Scenes are patches. Their group is their region of interest, with all regions nearer than
    `buffer` metres: patches of a region overlap by half, so a split inside it would leak.

    Pixels are int16 as in products: reflectance * 10000, dB * 100, nodata -32768. A Sentinel-2
    pixel is missing where all its bands are 0, a backscatter where it is not finite.
    """

    label: str = ""
    """Role of the label images."""
    label_bands: tuple[int, ...] = ()
    """Numbers of bands that a label image may have."""
    seasons: re.Pattern[str]
    """Season folders of the data set, which name its files."""
    example: str = ""
    """Name of a file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        legend: Legend,
        inputs: Sequence[str],
        buffer: float,
        skip_unpaired: bool,
    ) -> None:
        strange = [name for name in inputs if name not in INPUTS]
        if strange or not inputs or len(set(inputs)) < len(inputs):
            raise InputError(f"inputs are {list(inputs)}, expected s1, s2 or both")
        if not buffer >= 0:
            raise InputError(f"buffer is {buffer}, expected metres from 0")
        options = {"legend": legend.name, "inputs": list(inputs), "buffer": buffer}
        super().__init__(path, {**options, "skip_unpaired": skip_unpaired})
        self._legend = legend
        self._inputs = tuple(INPUTS[name] for name in inputs)
        self._buffer = buffer
        self._skip = skip_unpaired

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The images of a patch, in order."""
        return self._inputs

    @property
    def legend(self) -> Legend:
        """The classes; labels are its training indices, 255 = ignore."""
        return self._legend

    @cached_property
    def members(self) -> Sequence[Member]:
        """The patches by season, scene and number."""
        roles = (*self.options["inputs"], self.label)
        found: dict[tuple[str, str, int], dict[str, str]] = {}
        for path in listing(self.path):
            name = _NAME.fullmatch(PurePosixPath(path).name)
            if not name or name[2] not in roles or not self.seasons.fullmatch(name[1]):
                continue
            role = LABEL if name[2] == self.label else name[2]
            files = found.setdefault((name[1], name[3], int(name[4])), {})
            if role in files:
                raise InputError(
                    f"{self.path} has {PurePosixPath(path).name} twice, {files[role]} and {path}; "
                    "move one away"
                )
            files[role] = path
        if not found:
            raise InputError(
                f"{self.path} holds no patch of {self.kind}, such as {self.example}; give the "
                "folder it was unpacked to"
            )
        members = [
            Member(f"{season}_{scene}_p{patch}", found[season, scene, patch], f"{season}_{scene}")
            for season, scene, patch in sorted(found)
        ]
        wanted = (*self.options["inputs"], LABEL)
        return complete(self.path, members, wanted, self._expected, self._skip)

    def check(self, role: str, path: Path, found: Header) -> None:
        """`InputError` where a file has another number of bands or another type."""
        counts = self.label_bands if role == LABEL else (len(INPUTS[role].bands),)
        if found.bands not in counts:
            raise InputError(
                f"{path} has {found.bands} bands, expected {' or '.join(map(str, counts))} for "
                f"{self.label if role == LABEL else role}; is this {self.kind}?"
            )
        if role == "s2" and np.dtype(found.dtype).kind not in "iu":
            raise InputError(
                f"{path} is {found.dtype}, expected integers (reflectance * 10000); take the "
                "images as published"
            )

    def groups(self, scenes: Sequence[Scene]) -> Sequence[str]:
        """Regions of interest, joined where they are near."""
        return near.joined([one.region for one in self.members], scenes, self._buffer)

    def pixels_of(
        self, given: Input, values: npt.NDArray[Any], nodata: float | None
    ) -> npt.NDArray[Any]:
        """Canonical int16 pixels."""
        out = np.empty(values.shape, np.int16)
        flat = (-1, max(values.shape[-1], 1))
        if given.name == "s2":
            empty = np.all(values == 0, axis=1, keepdims=True)
            convert.to_pixels(values.reshape(flat), _OPTICAL, out.reshape(flat))
            np.copyto(out, convert.NODATA, where=empty)
            return out
        scaling = convert.Scaling(1.0, 0.0, nodata, "decibel")
        convert.to_pixels(values.reshape(flat), scaling, out.reshape(flat))
        return out

    def indices_of(self, values: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.uint8]:
        """Training indices of the label image's classes, as the legend has them."""
        indices = encoded(self.published, values[:, 0], UNLABELLED)
        if self.published == self.legend:
            return indices
        return crosswalk(self.published.name, self.legend.name).translate_indices(indices)

    @property
    @abstractmethod
    def published(self) -> Legend:
        """The legend of the label images as they are published."""

    def _expected(self, member: Member, role: str) -> str:
        season, _, rest = member.region.rpartition("_")
        name = self.label if role == LABEL else role
        return f"{season}_{name}_{rest}_{member.name.rpartition('_')[2]}.tif"


def led_to(release: str, own: Sequence[Legend], name: str) -> Legend:
    """A legend of a release, or one that a crosswalk leads to from its first; else `InputError`."""
    known = [*own, *(walk.target for walk in crosswalks(own[0].name))]
    for legend in known:
        if legend.name == name:
            return legend
    listed = ", ".join(legend.name for legend in known)
    raise InputError(f"labels of {release} as {name!r}: expected one of {listed}")
