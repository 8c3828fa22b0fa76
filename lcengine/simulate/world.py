"""The simulated world as its sensors share it, and the jobs that write it.

A job is a small value that any process can run: it carries options and numbers, and draws the rest
from `world`, which every process makes for itself once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lcengine.simulate.landscape import Landscape, make_landscape
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.sentinel2 import Mosaic, Overpass


@dataclass(frozen=True)
class World:
    """What all sensors look at."""

    options: SimulationOptions
    landscape: Landscape
    overpasses: tuple[Overpass, ...]
    """Those of Sentinel-2."""

    @property
    def mosaic(self) -> Mosaic:
        """The simulated square."""
        return self.landscape.mosaic


@lru_cache(maxsize=2)
def world(options: SimulationOptions) -> World:
    """The world of some options; made once per process."""
    landscape = make_landscape(options.size, options.seed)
    return World(options, landscape, options.overpasses())


@dataclass(frozen=True)
class Job(ABC):
    """One piece of an archive, written by `run` in any process and in any order.

    A sensor of the world is a module with `jobs(options) -> list[Job]`.
    """

    options: SimulationOptions

    @abstractmethod
    def run(self, root: Path) -> list[dict[str, Any]]:
        """Write the files below `root`; the STAC items of what was written."""
