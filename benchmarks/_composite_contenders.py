"""The contenders, one per process: warmed once, then timed on demand.

Run as `python _composite_contenders.py JOB`, JOB being the JSON of `Job`. Every line on standard
input is an order `{"items": FILE, "out": FOLDER, "save": FILE or null}`, every answer on standard
output `{"seconds": S}`. The time runs from an items file on disk to the
finished result; imports, compiling and starting a cluster lie before the first order.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _measure import orders
from numpy.typing import NDArray

NODATA = -32768
CLOUD_CLASSES = (3, 8, 9, 10)
RIO = {
    # What odc.stac calls its cloud defaults; the floor reads with them too.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "10",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
}


@dataclass(frozen=True)
class Job:
    """What a process is to run. `mask`: `none`, `scl` (classes) or `geomad` (with morphology)."""

    contender: str
    schedule: str
    mask: str
    bands: tuple[str, ...]
    bounds: tuple[int, int, int, int]
    epsg: int
    chunk: int = 1024

    @property
    def shape(self) -> tuple[int, int]:
        left, bottom, right, top = self.bounds
        return (top - bottom) // 10, (right - left) // 10


Result = Callable[[], NDArray[np.int16]]
"""Fetches what a run computed, outside its time: (band, y, x) int16, nodata -32768."""
Runner = Callable[[Path, Path], Result]


@contextlib.contextmanager
def cluster(schedule: str) -> Iterator[Any]:
    """A client: one process with two threads, or two worker processes with one thread each."""
    from distributed import Client, LocalCluster

    from lcengine.cluster import connect

    if schedule == "workers":  # the product's own cluster, for every contender
        with connect("local:workers=2,threads=1") as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local) as client,
    ):
        yield client


@contextlib.contextmanager
def lcengine(job: Job) -> Iterator[Runner]:
    """Search the items file, plan, run, publish the Zarr product: everything but the imports."""
    from lcengine import CompositeSpec, Grid, plan_composite, run, search

    spec = CompositeSpec(bands=job.bands, mask=job.mask, outliers="none")

    def fetch(path: Path) -> NDArray[np.int16]:
        import zarr

        group: Any = zarr.open_group(path, mode="r")
        return np.stack([group[band][:] for band in job.bands])

    with cluster(job.schedule) as client:

        def run(items: Path, out: Path) -> Result:
            found = search(items, allow_hosts=["127.0.0.1"])
            grid = Grid.from_bounds(*job.bounds, f"EPSG:{job.epsg}", 10.0)
            product = run(plan_composite(found, grid, spec), out / "a.zarr", client=client)
            return partial(fetch, product)

        yield run


@contextlib.contextmanager
def dask_peer(job: Job, build: Callable[[Any, Job], Any], use_odc: bool) -> Iterator[Runner]:
    """Compute a lazy median into memory: no product is written.

    On the cluster the time ends when the median lies in the workers' memory.
    """
    import dask
    import pystac

    if job.schedule == "threads":
        if use_odc:
            import odc.stac

            odc.stac.configure_rio(cloud_defaults=True)

        def run_threads(items: Path, _: Path) -> Result:
            lazy = build(pystac.ItemCollection.from_file(str(items)), job)
            with dask.config.set(scheduler="threads", num_workers=2):
                done = lazy.compute()
            return lambda: as_int16(done, job)

        yield run_threads
        return
    with cluster(job.schedule) as client:
        if use_odc:
            import odc.stac

            odc.stac.configure_rio(cloud_defaults=True, client=client)

        def run_cluster(items: Path, _: Path) -> Result:
            from distributed import wait

            done = client.persist(build(pystac.ItemCollection.from_file(str(items)), job))
            if wait(done).not_done:
                raise RuntimeError("a peer's task did not finish")
            return lambda: as_int16(done.compute(), job)

        yield run_cluster


def odc_median(items: Any, job: Job) -> Any:
    """`odc.stac.load` and xarray's median of what is valid, and clear where there is a mask.

    `odc-uint16` takes the median of the files' numbers as they are, which is right only because
    this archive has no nodata.
    """
    import odc.stac
    from odc.geo.geobox import GeoBox

    left, bottom, right, top = job.bounds
    geobox = GeoBox.from_bbox((left, bottom, right, top), f"EPSG:{job.epsg}", resolution=10)
    bands = list(job.bands) if job.mask == "none" else [*job.bands, "scl"]
    chunks = {"x": job.chunk, "y": job.chunk}
    cube = odc.stac.load(items, bands=bands, geobox=geobox, chunks=chunks, resampling="nearest")
    data = cube[list(job.bands)]
    if job.mask != "none":
        data = data.where(clear(cube["scl"], job.mask) & (data != 0))
    elif job.contender == "odc":
        data = data.where(data != 0)
    return data.median("time")


def stackstac_median(items: Any, job: Job, **options: Any) -> Any:
    """`stackstac.stack` and xarray's median."""
    import stackstac

    cube = stackstac.stack(
        items,
        assets=list(job.bands),
        epsg=job.epsg,
        resolution=10,
        bounds=job.bounds,
        chunksize=job.chunk,
        rescale=False,
        **options,
    )
    return cube.median("time")


def clear(scl: Any, mask: str) -> Any:
    """Clear pixels of a scene classification at 10 m, lazily, with scikit-image as odc-stats does.

    `scl`: classes 0, 1 and the cloud classes are bad. `geomad`: class 0, and the cloud classes
    opened with a disk of 2 and dilated with a disk of 5.
    """
    if mask == "scl":
        return ~scl.isin([0, 1, *CLOUD_CLASSES])
    import dask.array

    grown = dask.array.map_overlap(
        _open_and_grow,
        scl.isin(CLOUD_CLASSES).data,
        depth={0: 0, 1: 9, 2: 9},
        boundary="none",
        dtype=bool,
    )
    return (scl != 0) & ~scl.copy(data=grown)


def _open_and_grow(cloud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import isotropic_dilation, isotropic_opening

    # The Euclidean distance gives the same disks as their footprints, many times faster.
    return np.stack([isotropic_dilation(isotropic_opening(day, 2), 5) for day in cloud])


def as_int16(data: Any, job: Job) -> NDArray[np.int16]:
    """A peer's median as lcengine writes it: halves to even, NaN to nodata."""
    if hasattr(data, "data_vars"):
        data = data[list(job.bands)].to_array("band")
    values = np.asarray(data.transpose("band", "y", "x").values)
    return np.where(np.isnan(values), NODATA, np.rint(np.nan_to_num(values))).astype(np.int16)


@contextlib.contextmanager
def floor(job: Job) -> Iterator[Runner]:
    """Decode every block of every file once with rasterio, on two threads, and keep nothing."""
    import rasterio

    bands = job.bands if job.mask == "none" else (*job.bands, "scl")

    def decode(href: str) -> None:
        with rasterio.Env(**RIO), rasterio.open(href) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(1, window=window)

    with ThreadPoolExecutor(2) as pool:

        def run(items: Path, _: Path) -> Result:
            features = json.loads(items.read_text())["features"]
            list(pool.map(decode, [f["assets"][band]["href"] for f in features for band in bands]))
            return lambda: np.zeros((0,), np.int16)

        yield run


def opened(job: Job) -> contextlib.AbstractContextManager[Runner]:
    """The contender that a job names."""
    if job.contender == "lcengine":
        return lcengine(job)
    if job.contender == "floor":
        return floor(job)
    if job.contender in ("odc", "odc-uint16"):
        return dask_peer(job, odc_median, use_odc=True)
    options: dict[str, Any] = {}
    if job.contender == "stackstac-uint16":
        options = {"dtype": np.dtype("uint16"), "fill_value": np.uint16(0)}
    return dask_peer(job, partial(stackstac_median, **options), use_odc=False)


def main() -> None:
    fields = json.loads(sys.argv[1])
    job = Job(**{**fields, "bands": tuple(fields["bands"]), "bounds": tuple(fields["bounds"])})
    with orders() as (answer, given), opened(job) as run:
        answer(ready=True)
        for order in given:
            out = Path(order["out"])
            out.mkdir(parents=True)
            start = time.perf_counter()
            result = run(Path(order["items"]), out)
            seconds = time.perf_counter() - start
            if order["save"]:
                np.save(order["save"], result())
            del result
            shutil.rmtree(out)
            answer(seconds=seconds)


if __name__ == "__main__":
    main()
