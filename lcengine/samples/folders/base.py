"""What all folder layouts share: their files by scene, checked headers, patches and labels."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lcengine.addresses import DRIVERS
from lcengine.errors import InputError
from lcengine.inputs import Arrays, Input
from lcengine.legends import Legend
from lcengine.locate import Window
from lcengine.samples.folders import pixels
from lcengine.samples.folders.pixels import Header
from lcengine.samples.source import LABEL, Scene

APART = 0.5
"""Pixels by which files of a scene may lie apart; beyond, they show different places."""


@dataclass(frozen=True, slots=True)
class Member:
    """The files of one scene: paths in the folder by input's name, and under `LABEL` the mask.

    `region`: what the layout says scenes have in common, such as one region of interest.
    """

    name: str
    files: Mapping[str, str]
    region: str = ""


class FolderSource(ABC):
    """A `Source` over the files of a folder.

    Opening one lists the folder. `scenes` reads the header of every file, once, and checks them;
    `labels` and `cut` open the files of their scene alone. The JSON holds the path, the options and
    a hash of the file names, so that a changed folder is noticed. It can be used by many threads.
    """

    kind: str = ""
    interval: tuple[str, str] | None = None

    def __init__(self, path: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
        self.path = Path(path).absolute()
        self.options = dict(options)

    @cached_property
    @abstractmethod
    def members(self) -> Sequence[Member]:
        """The files of every scene, in the order of `scenes`."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """The images of a patch, in order."""

    @property
    @abstractmethod
    def legend(self) -> Legend:
        """The classes; labels are its training indices, 255 = ignore."""

    @abstractmethod
    def check(self, role: str, path: Path, found: Header) -> None:
        """`InputError` where a file of that role is not as the layout has it."""

    @abstractmethod
    def pixels_of(
        self, given: Input, values: npt.NDArray[Any], nodata: float | None
    ) -> npt.NDArray[Any]:
        """Stored numbers of an image, (patch, band, y, x), as its `Input` describes them."""

    @abstractmethod
    def indices_of(self, values: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.uint8]:
        """Training indices (patch, y, x) of what a mask holds, (patch, band, y, x)."""

    def mask_bands(self) -> Sequence[int] | None:
        """Numbers of the bands of a mask that are read, None for all."""
        return None

    def groups(self, scenes: Sequence[Scene]) -> Sequence[str]:
        """The group of every scene."""
        return [""] * len(scenes)

    @cached_property
    def scenes(self) -> Sequence[Scene]:
        """All rasters; reads the header of every file (about a millisecond each)."""
        roles = (*(given.name for given in self.inputs), LABEL)
        paths = [self.path / member.files[role] for member in self.members for role in roles]
        found = pixels.headers(paths)
        scenes = []
        for number, member in enumerate(self.members):
            part = slice(number * len(roles), (number + 1) * len(roles))
            for role, path, one in zip(roles, paths[part], found[part], strict=True):
                self.check(role, path, one)
            scenes.append(_scene(member.name, paths[part], found[part]))
        return [
            Scene(one.name, one.shape, one.crs, one.transform, group)
            for one, group in zip(scenes, self.groups(scenes), strict=True)
        ]

    def labels(self, scene: int, window: Window) -> npt.NDArray[np.uint8]:
        """Training indices (y, x) of a window inside a scene; 255 = ignore."""
        found: npt.NDArray[np.uint8] = self._labels(scene, [window])[0]
        return found

    def cut(self, scene: int, windows: Sequence[Window]) -> Arrays:
        """Patches of equal size inside a scene, in the order of `windows`; one open per file."""
        out: Arrays = {}
        for given in self.inputs:
            path = self.path / self.members[scene].files[given.name]
            bands = range(1, len(given.bands) + 1)
            values, nodata = pixels.read(path, windows, bands)
            out[given.name] = self.pixels_of(given, values, nodata)
        out[LABEL] = self._labels(scene, windows)
        return out

    def _labels(self, scene: int, windows: Sequence[Window]) -> npt.NDArray[np.uint8]:
        path = self.path / self.members[scene].files[LABEL]
        values, nodata = pixels.read(path, windows, self.mask_bands())
        try:
            return self.indices_of(values, nodata)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """JSON values that make this source again, with its `kind`."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "options": self.options,
            "files": self._fingerprint(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; `InputError` where the folder has other files since."""
        source = cls(data["path"], **data["options"])
        if source._fingerprint() != data["files"]:
            raise InputError(
                f"{source.path} has not the files it had when this was planned; bring them back, "
                "or plan again"
            )
        return source

    def _fingerprint(self) -> str:
        names = hashlib.sha256()
        for member in self.members:
            names.update("\n".join((member.name, *member.files.values(), "")).encode())
        return names.hexdigest()


def listing(root: Path) -> list[str]:
    """Paths of all image files below a folder, sorted; `InputError` where there are none."""
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the folder that a data set was unpacked to")
    found = [
        (Path(folder) / name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in DRIVERS and not name.startswith(".")
    ]
    if not found:
        raise InputError(
            f"{root} holds no image ({', '.join(DRIVERS)}); give the folder that a data set was "
            "unpacked to"
        )
    return sorted(found)


def complete(
    root: Path,
    members: Sequence[Member],
    roles: Sequence[str],
    expected: Callable[[Member, str], str],
    skip_unpaired: bool,
) -> list[Member]:
    """The members with a file for every role.

    `expected`: where a missing file should be. Raises `InputError` for others, unless
    `skip_unpaired`, and where nothing is left.
    """
    whole = [one for one in members if all(role in one.files for role in roles)]
    if len(whole) == len(members) or (skip_unpaired and whole):
        return whole
    first = next(one for one in members if any(role not in one.files for role in roles))
    absent = next(role for role in roles if role not in first.files)
    what = "mask" if absent == LABEL else f"image {absent}"
    count = len(members) - len(whole)
    raise InputError(
        f"{root}: {count} of {len(members)} scenes are not complete; {first.name} has no {what}, "
        f"expected {expected(first, absent)}; complete the folder"
        + (", or leave them out with skip_unpaired" if whole else "")
    )


def _scene(name: str, paths: Sequence[Path], found: Sequence[Header]) -> Scene:
    """The place of a scene's files, which they must share; the first that is placed states it."""
    shape = found[0].shape
    placed = [one for one in found if one.crs is not None]
    for path, one in zip(paths, found, strict=True):
        if one.shape != shape:
            raise InputError(
                f"{path} has {one.shape[0]} x {one.shape[1]} pixels, {paths[0].name} has "
                f"{shape[0]} x {shape[1]}; the files of a scene must have one size"
            )
        if one.crs is not None and _apart(one, placed[0]):
            raise InputError(
                f"{path} lies elsewhere than the other files of {name} ({one.crs}, "
                f"{one.transform}, expected {placed[0].crs}, {placed[0].transform}); put it on "
                "their grid, e.g. with gdalwarp"
            )
    place = placed[0] if placed else found[0]
    return Scene(name, shape, place.crs, place.transform)


def _apart(one: Header, other: Header) -> bool:
    """Whether two images of a size show different places."""
    if one.crs != other.crs:
        return True
    pixel, edge = other.transform[0], max(other.shape)
    shift = max(abs(one.transform[i] - other.transform[i]) for i in (2, 5))
    return shift + abs(one.transform[0] - pixel) * edge > APART * pixel
