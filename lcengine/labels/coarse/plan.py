"""A map of classes on a product's grid, as a product that the tile engine makes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

import lcengine
from lcengine import store
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.imagefile import is_image
from lcengine.labels.coarse.maps import Method, Votes, open_classes
from lcengine.legends import Legend
from lcengine.periods import Period
from lcengine.store import Variable, digest


@dataclass(frozen=True)
class MapPlan:
    """A map that workers open themselves, so its path must be theirs too.

    `version`: what lay there when it was planned: the run of a product, or size and time of a file.
    """

    path: str
    version: str
    legend: Legend
    grid: Grid
    method: Method
    tiles: tuple[int, ...]

    kind: ClassVar[str] = "labels.coarse"
    time_axis: ClassVar[tuple[Period, ...]] = ()

    @property
    def layout(self) -> Grid:
        """The product's grid."""
        return self.grid

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: map, grid, legend, method and package version."""
        return digest(self.to_json())

    def variables(self) -> tuple[Variable, ...]:
        """`label`, or a `fraction_<class>` for each class: float32, NaN where there is nothing."""
        legend = self.legend
        if self.method != "fractions":
            label = Variable("label", str(legend.dtype), legend.nodata, legend.title, legend=legend)
            return (label,)
        return tuple(
            Variable(name, "float32", None, f"share of {entry.name}")
            for name, entry in zip(fraction_names(legend), legend.classes, strict=True)
        )

    def files(self) -> Mapping[str, bytes]:
        """None: the map stays where it is."""
        return {}

    def only(self, tiles: Sequence[int]) -> MapPlan:
        """The plan of some of its tiles."""
        return replace(self, tiles=tuple(tiles))

    @cached_property
    def opened(self) -> tuple[xr.DataArray, Votes]:
        """The map, and how pixels are made of it; `InputError` where it is another one since."""
        if version_of(self.path) != self.version:
            raise InputError(
                f"{self.path} is not what it was when this was planned ({self.version}); bring it "
                "back, or plan again with --restart"
            )
        codes, _ = open_classes(self.path, self.legend)
        return codes, Votes.of(codes, self.legend, self.grid, self.method)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "package": lcengine.__version__,
            "path": self.path,
            "version": self.version,
            "legend": self.legend.to_json(),
            "grid": self.grid.to_dict(),
            "method": self.method,
            "tiles": list(self.tiles),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MapPlan:
        """Inverse of `to_json`."""
        return cls(
            data["path"],
            data["version"],
            Legend.from_json(data["legend"]),
            Grid.from_dict(data["grid"]),
            data["method"],
            tuple(data["tiles"]),
        )


def plan_map(
    path: str | os.PathLike[str],
    grid: Grid,
    *,
    legend: Legend | None = None,
    method: Method = "majority",
) -> MapPlan:
    """Freeze a map on another grid for `lcengine.jobs.run`; arguments and errors as `resample`."""
    _, found = open_classes(path, legend)
    where = os.fspath(path)
    if Path(where).exists():
        where = str(Path(where).absolute())
    tiles = tuple(tile.index for tile in grid.tiles() if grid.touches(tile))
    plan = MapPlan(where, version_of(where), found, grid, method, tiles)
    _ = plan.opened  # refuses what cannot be resampled before anything runs
    return plan


def fraction_names(legend: Legend) -> list[str]:
    """Names of the variables of shares, in the order of the classes."""
    words = (re.sub(r"\W+", "_", name.casefold()).strip("_") for name in legend.names)
    return [f"fraction_{code}_{w}" for code, w in zip(legend.codes, words, strict=True)]


def version_of(path: str) -> str:
    """What lies there now: the run of a product, or size and time of a file."""
    if not is_image(path):
        return str(store.provenance(path)["run_id"])
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    return f"{status.st_size} bytes of {status.st_mtime_ns}"
