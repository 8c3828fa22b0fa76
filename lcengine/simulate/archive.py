"""Writing the simulated archive: all jobs of all sensors, then one catalogue."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcengine.errors import InputError
from lcengine.simulate import coarse, planet, scenes, sentinel1, truth
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.stac import COLLECTIONS, write_catalog
from lcengine.simulate.world import Job

if TYPE_CHECKING:
    from lcengine.engine import Client

_JOBS: dict[str, Callable[[SimulationOptions], list[Job]]] = {
    "s2": scenes.jobs,
    "s1": sentinel1.jobs,
    "planet": planet.jobs,
}
"""What writes each sensor of `options.SENSORS`."""
_MARKER = "simulation.json"
_FOLDERS = (*COLLECTIONS, "truth", "labels")


@dataclass(frozen=True)
class Simulation:
    """A written archive: `catalog.json`, a folder per collection and `truth/` below `path`."""

    path: Path
    options: SimulationOptions
    item_ids: tuple[str, ...]

    @property
    def catalog(self) -> Path:
        """The static STAC catalogue."""
        return self.path / "catalog.json"

    @property
    def truth(self) -> Path:
        """Folder of the truth.

        `<band>.tif`: int16 reflectance × 10000, nodata -32768, EPSG:32631, 10 m (20 m bands
        replicated): median over all overpasses of the ground without clouds or noise.
        `landcover.tif`: codes of `covers.CLASSES`, with names and colours.
        `cloud/<item id>.tif`: uint8 on the granule's 20 m grid, 0 clear, 1 thin cloud,
        2 thick cloud, 3 shadow, 255 not seen.
        """
        return self.path / "truth"

    @property
    def labels(self) -> Path:
        """Folder of the labels, where they were asked for: see `coarse` and `vectors`."""
        return self.path / "labels"


def simulate(
    path: str | os.PathLike[str],
    options: SimulationOptions | None = None,
    *,
    threads: int | None = None,
    client: Client | None = None,
    restart: bool = False,
) -> Simulation:
    """Write a simulated archive into the folder `path`.

    A previous simulation there is written anew; one of other options only with `restart`, and
    with it go its labels and all that lies in its folders. The jobs run on the workers of a Dask
    `client`, which must see `path` under the same name, or in `threads` of this process. Both
    change the time it takes, never the files. Raises InputError for a folder that holds anything
    else, or another simulation.
    """
    options = options or SimulationOptions()
    root = Path(path).resolve()
    _prepare(root, options, restart)
    blocks, assemblies = truth.jobs(options)
    first = [*(job for name in options.sensors for job in _JOBS[name](options)), *blocks]
    if options.labels:
        from lcengine.simulate import vectors  # noqa: PLC0415 - geopandas takes a second to import

        # Before the others: surveying a large world takes longest of all jobs.
        first = [vectors.VectorLabels(options), coarse.CoarseLabels(options), *first]
    items = _run_all(first, root, threads, client)
    _run_all(assemblies, root, threads, client)
    (root / "truth" / truth.PARTS).rmdir()
    order = list(COLLECTIONS)
    items.sort(key=lambda i: (order.index(i["collection"]), i["properties"]["datetime"], i["id"]))
    write_catalog(root, items)
    return Simulation(Path(path), options, tuple(str(item["id"]) for item in items))


def _run_all(
    jobs: Sequence[Job], root: Path, threads: int | None, client: Client | None
) -> list[dict[str, Any]]:
    """Run jobs of one phase; their items."""
    run = partial(_run, root=root)
    if client is not None:
        found = client.gather(client.map(run, jobs, pure=False))
    else:
        with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
            found = list(pool.map(run, jobs))
    return [item for items in found for item in items]


def _run(job: Job, root: Path) -> list[dict[str, Any]]:
    return job.run(root)


def _prepare(root: Path, options: SimulationOptions, restart: bool) -> None:
    """Make the folder empty but for the marker that says it belongs to a simulation."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: name a folder for the simulated archive")
    if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
        raise InputError(
            f"{root} is not empty and not a previous simulation: name a new or empty folder"
        )
    if not restart:
        _check_previous(root, options)
    for folder in _FOLDERS:
        if (root / folder).exists():
            shutil.rmtree(root / folder)
    (root / "catalog.json").unlink(missing_ok=True)
    for folder in ("cloud", truth.PARTS):
        (root / "truth" / folder).mkdir(parents=True)
    (root / _MARKER).write_text(json.dumps(asdict(options), indent=2) + "\n")


def _check_previous(root: Path, options: SimulationOptions) -> None:
    """`InputError` before another simulation is replaced that nobody gave up."""
    marker = root / _MARKER
    if not marker.is_file():
        return
    older, wanted = json.loads(marker.read_text()), json.loads(json.dumps(asdict(options)))
    changed = [key for key, value in wanted.items() if older.get(key) != value]
    if changed:
        differences = ", ".join(f"{k} was {older.get(k)}, now {wanted[k]}" for k in changed)
        raise InputError(
            f"{root} holds another simulation ({differences}); name another folder, or replace "
            "it, its labels and all that lies in its folders, with --restart"
        )
