"""Whether workers and scheduler run what the driver runs: FAULTS "different package versions"."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from distributed import Client
from distributed.versions import get_versions

import lcengine

PACKAGES = ("numba", "zarr")
"""Looked at beside what Dask looks at itself (python, numpy, dask, distributed, msgpack, …)."""

OWN = "lcengine:__version__"

EXACT = ("lcengine",)
"""Another version may give other bytes."""
MINOR = ("python",)
"""Functions pickled by another minor version do not load."""
MAJOR = ("cloudpickle", "dask", "distributed", "msgpack")
"""Another major version may not understand the messages."""
WARNED = ("cloudpickle", "dask", "distributed", "msgpack", "numba", "numpy", "python", "zarr")

Versions = Mapping[str, str | None]


def own() -> dict[str, str]:
    """The driver's versions."""
    found = {name: metadata.version(name) for name in WARNED if name != "python"}
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {**found, "python": python, "lcengine": lcengine.__version__}


async def ask_worker(client: Client, worker: str) -> Versions:
    """Versions of a worker; {} if it does not answer."""

    async def ask(function: Callable[..., Any], *arguments: object) -> Any:
        answers = await client.run(function, *arguments, workers=[worker], on_error="return")
        return answers.get(worker)

    answer = await ask(get_versions, PACKAGES)
    if not isinstance(answer, dict):
        return {}
    # By reference to the standard library: this runs also where there is no lcengine. Not by its
    # metadata, which a checkout on the path does not have.
    version = await ask(pkgutil.resolve_name, OWN)
    return {**_packages(answer), "lcengine": version if isinstance(version, str) else None}


async def ask_scheduler(client: Client) -> Versions:
    """Versions of the scheduler."""
    # It only carries tasks, so it needs no numba and no zarr.
    answer = _packages(await client.run_on_scheduler(get_versions))
    try:
        return {**answer, "lcengine": await client.run_on_scheduler(pkgutil.resolve_name, OWN)}
    except (ImportError, AttributeError):
        return {**answer, "lcengine": None}


def _packages(answer: Mapping[str, Any]) -> Versions:
    packages = dict(answer["packages"])
    packages["python"] = ".".join(str(packages["python"]).split(".")[:3])
    return packages


@dataclass(frozen=True, slots=True)
class Difference:
    """A package that one process has in another version than the driver."""

    name: str
    found: str | None
    """None where it is missing."""
    mine: str

    @property
    def works(self) -> bool:
        """Whether tiles can run there all the same."""
        if self.found is None or self.name in EXACT:
            return False
        parts = 2 if self.name in MINOR else 1 if self.name in MAJOR else 0
        return self.mine.split(".")[:parts] == self.found.split(".")[:parts]

    def told(self, holder: str) -> str:
        """In words."""
        has = f"{self.name} {self.found}" if self.found else f"no {self.name}"
        return f"{holder} has {has}, the driver {self.mine}"


def compare(mine: Mapping[str, str], found: Versions) -> list[Difference]:
    """What differs, among the packages that `found` tells of."""
    return [
        Difference(name, found[name], mine[name])
        for name in (*EXACT, *WARNED)
        if name in found and found[name] != mine[name]
    ]
