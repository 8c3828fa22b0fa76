"""Whether workers and scheduler run what the driver runs: FAULTS "different package versions"."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from distributed import Client
from distributed.versions import get_versions

import lcengine

ON_WORKERS = ("lcengine", "numba", "zarr")
"""Looked at beside what Dask looks at itself (python, numpy, dask, distributed, msgpack, …)."""
ON_SCHEDULER = ("lcengine",)
"""A scheduler only carries tasks: it need not load numba."""

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


async def ask_workers(client: Client, workers: list[str]) -> dict[str, Versions]:
    """Versions by worker; one that cannot answer is left out."""
    # Dask's own function, by reference: it runs also where there is no lcengine at all.
    answers: dict[str, Any] = await client.run(
        get_versions, packages=list(ON_WORKERS), workers=workers, on_error="return"
    )
    return {
        address: _packages(answer)
        for address, answer in answers.items()
        if isinstance(answer, dict)
    }


async def ask_scheduler(client: Client) -> dict[str, Versions]:
    """Versions of the scheduler, under its name in messages."""
    answer = await client.run_on_scheduler(get_versions, packages=list(ON_SCHEDULER))
    return {"the scheduler": _packages(answer)}


def _packages(answer: Mapping[str, Any]) -> Versions:
    packages = dict(answer["packages"])
    packages["python"] = ".".join(str(packages["python"]).split(".")[:3])
    return packages


def compare(mine: Mapping[str, str], found: Mapping[str, Versions]) -> tuple[list[str], list[str]]:
    """(what cannot work, what may differ): a phrase per package and version, naming a holder."""
    refused: dict[tuple[str, str], list[str]] = {}
    warned: dict[tuple[str, str], list[str]] = {}
    for holder, versions in found.items():
        for name in (*EXACT, *WARNED):
            if name not in versions or versions[name] == mine[name]:
                continue
            version = versions[name]
            kind = refused if not _works(name, mine[name], version) else warned
            kind.setdefault((name, version or "none"), []).append(holder)
    return _phrases(mine, refused), _phrases(mine, warned)


def _works(name: str, mine: str, found: str | None) -> bool:
    if name in EXACT:
        return mine == found
    parts = 2 if name in MINOR else 1 if name in MAJOR else 0
    return found is not None and mine.split(".")[:parts] == found.split(".")[:parts]


def _phrases(mine: Mapping[str, str], found: Mapping[tuple[str, str], list[str]]) -> list[str]:
    phrases = []
    for (name, version), holders in sorted(found.items()):
        others = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        phrases.append(f"{holders[0]}{others}: {name} {version}, the driver has {mine[name]}")
    return phrases
