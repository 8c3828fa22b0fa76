"""The product: a sharded Zarr v3 group whose tiles are staged, and published in one step.

Beside `out.zarr` lies `.out.zarr.lcengine/` with the versions of the product and the staging area.
A tile is done when its marker (written last, with the content hash) exists; a finished staging
area is published by swapping the symbolic link `out.zarr`. A killed run loses nothing: the next
one finds the staging area by the output path and goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

import lcengine
from lcengine.errors import InputError, StoreError
from lcengine.grid import Grid, Tile
from lcengine.periods import Period

CHUNK = 512
"""Edge of a compressed chunk inside a shard; a shard is a tile, the unit of writing."""

LEVEL = 1

PARTIAL = ("*.partial", ".*.part")
"""Files that a killed writer leaves: zarr's and ours."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a product, with an explicit fill that no valid pixel has; None is NaN."""

    name: str
    dtype: str
    fill: int | None
    long_name: str
    scale: float | None = None
    units: str | None = None

    @property
    def missing(self) -> float:
        """The fill as a number."""
        return math.nan if self.fill is None else self.fill

    def attributes(self) -> dict[str, Any]:
        """CF attributes."""
        out: dict[str, Any] = {"long_name": self.long_name, "grid_mapping": "spatial_ref"}
        if self.fill is not None:
            out["_FillValue"] = self.fill
        if self.scale is not None:
            out["scale_factor"] = self.scale
            out["add_offset"] = 0.0
        if self.units is not None:
            out["units"] = self.units
        return out


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a product at `output` lie."""

    output: Path

    @classmethod
    def at(cls, output: str | os.PathLike[str]) -> Layout:
        """The layout of an output path; `StoreError` where something else lies there."""
        path = Path(os.path.abspath(output))
        if path.exists() and not path.is_symlink():
            raise StoreError(
                f"{path} exists and is not a product published by lcengine; "
                "choose another output or remove it"
            )
        if not path.parent.is_dir():
            raise StoreError(f"folder {path.parent} does not exist; create it first")
        return cls(path)

    @property
    def home(self) -> Path:
        """Hidden folder with all versions, the lock and the staging area."""
        return self.output.parent / f".{self.output.name}.lcengine"

    @property
    def staging_note(self) -> Path:
        """File that names the request being worked on; its presence means unfinished work."""
        return self.home / "staging.json"

    def fresh_version(self, run_id: str) -> str:
        """A folder name that no version ever had.

        The visible version is never touched, half a staging area that a kill left behind is in
        nobody's way, and a task of a discarded run cannot write into the next one.
        """
        return f"{run_id}-{uuid.uuid4().hex[:8]}"

    def published_request(self) -> dict[str, Any] | None:
        """The request of the product now visible at the output, None where there is none."""
        if not self.output.exists():
            return None
        group = zarr.open_group(self.output, mode="r")
        found = group.attrs.get("lcengine")
        return dict(found["request"]) if isinstance(found, Mapping) else {}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Staging:
    """An unfinished product: write tiles, mark them, publish."""

    layout: Layout
    version: str

    @property
    def path(self) -> Path:
        """The staged Zarr group, later published where it lies."""
        return self.layout.home / self.version

    @property
    def work(self) -> Path:
        """Plan and markers."""
        return self.layout.home / f"{self.version}.work"

    @property
    def plan_file(self) -> Path:
        """The frozen plan."""
        return self.work / "plan.json"

    @classmethod
    def create(
        cls,
        layout: Layout,
        request: Mapping[str, Any],
        run_id: str,
        plan: Mapping[str, Any],
        grid: Grid,
        variables: Sequence[Variable],
        periods: Sequence[Period] = (),
    ) -> Staging:
        """Lay out a fresh staging area; the note that makes it count is written last.

        Variables are (y, x), or (time, y, x) where `periods` are given.
        """
        if layout.staging_note.exists():
            cls(layout, _read_note(layout)["version"]).discard()
        staging = cls(layout, layout.fresh_version(run_id))
        (staging.work / "tiles").mkdir(parents=True)
        _write_atomic(staging.plan_file, json.dumps(plan).encode())
        provenance = {
            "package": lcengine.__version__,
            "run_id": run_id,
            "request": dict(request),
            "grid": grid.to_dict(),
            "variables": [variable.name for variable in variables],
        }
        _template(staging.path, grid, variables, periods, provenance)
        note = {
            "version": staging.version,
            "package": lcengine.__version__,
            "request": dict(request),
        }
        _write_atomic(layout.staging_note, json.dumps(note, indent=1).encode())
        return staging

    @classmethod
    def find(cls, layout: Layout, request: Mapping[str, Any]) -> Staging | None:
        """Unfinished work at this output; `StoreError` with the difference if it is another's."""
        if not layout.staging_note.exists():
            return None
        note = _read_note(layout)
        wanted = {"package": lcengine.__version__, "request": dict(request)}
        changed = differences(wanted, {key: note[key] for key in wanted})
        if changed:
            raise StoreError(
                f"{layout.output} has unfinished work of a different request "
                f"({'; '.join(changed)}); repeat that request, or discard it with --restart"
            )
        return cls(layout, str(note["version"]))

    def discard(self) -> None:
        """Remove this staging area, but not what a killed driver had already made visible."""
        self.layout.staging_note.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        if self.layout.output.resolve() != self.path.resolve():
            shutil.rmtree(self.path, ignore_errors=True)

    def done(self) -> dict[int, dict[str, Any]]:
        """Markers of the finished tiles by tile index."""
        found = {}
        for marker in (self.work / "tiles").glob("*.json"):
            found[int(marker.stem)] = json.loads(marker.read_text())
        return found

    def write(self, tile: Tile, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Write a tile's arrays, read them back, and return their content hash.

        Raises `StoreError` when an array is not one whole tile or does not read back equal.
        """
        group = zarr.open_group(self.path, mode="r+")
        content = hashlib.sha256()
        for name, pixels in arrays.items():
            found = group[name]
            assert isinstance(found, zarr.Array)
            # Per array: zarr's global setting would be shared by the tasks of all threads.
            array = found.with_config({"write_empty_chunks": True})
            _check_fits(tile, name, pixels, array)
            where = (..., *tile.slices)
            array[where] = pixels
            nan = pixels.dtype.kind == "f"
            if not np.array_equal(np.asarray(array[where]), pixels, equal_nan=nan):
                raise StoreError(
                    f"tile {tile.index} of {name} does not read back as written; "
                    f"check the disk under {self.path}"
                )
            content.update(np.ascontiguousarray(pixels).data)
        return content.hexdigest()

    def mark(self, tile: int, receipt: Mapping[str, Any]) -> None:
        """Declare a tile done; the last thing a tile task does."""
        _write_atomic(self.work / "tiles" / f"{tile}.json", json.dumps(dict(receipt)).encode())

    def publish(
        self, tiles: Sequence[int], facts: Mapping[str, Any], sidecars: Mapping[str, bytes]
    ) -> Path:
        """Check that every tile is marked, consolidate, and swap the product into view.

        `facts` join the provenance attribute, `sidecars` are files laid beside the arrays.
        """
        missing = sorted(set(tiles) - set(self.done()))
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(tiles)} tiles are not finished (the first: {missing[0]}); "
                "run the same command again"
            )
        for pattern in PARTIAL:
            for leftover in self.path.rglob(pattern):
                leftover.unlink(missing_ok=True)
        for name, content in sidecars.items():
            _write_atomic(self.path / name, content)
        group = zarr.open_group(self.path, mode="r+")
        group.attrs["lcengine"] = {**group.attrs["lcengine"], **facts}  # type: ignore[dict-item]
        _consolidate(self.path)
        link = self.layout.home / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(self.layout.home.name) / self.version)
        previous = self.layout.output.resolve() if self.layout.output.is_symlink() else None
        os.replace(link, self.layout.output)
        self.layout.staging_note.unlink()
        shutil.rmtree(self.work)
        self._sweep({self.path.resolve(), previous})
        return self.layout.output

    def _sweep(self, keep: set[Path | None]) -> None:
        """Remove versions older than the one just replaced, which a reader may still hold."""
        for entry in self.layout.home.iterdir():
            if entry.is_dir() and entry.resolve() not in keep:
                shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Only one driver works on an output; `StoreError` for the second."""
    layout.home.mkdir(exist_ok=True)
    with (layout.home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another run is writing {layout.output}; wait for it or stop it first"
            ) from None
        yield


def _check_fits(tile: Tile, name: str, pixels: npt.NDArray[Any], array: zarr.Array[Any]) -> None:
    """`StoreError` unless the pixels are one whole shard: two tasks must never share one."""
    edge = (array.shards or array.chunks)[-1]
    *times, height, width = array.shape
    y0, x0 = tile.row * edge, tile.col * edge
    whole = (y0, x0, *times, min(edge, height - y0), min(edge, width - x0))
    if (tile.y0, tile.x0, *pixels.shape) != whole or pixels.dtype != array.dtype:
        raise StoreError(
            f"tile {tile.index} of {name} is {pixels.dtype} (y, x, *shape) "
            f"{(tile.y0, tile.x0, *pixels.shape)}, expected {array.dtype} {whole}"
        )


def differences(new: Any, old: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as `key: old -> new`."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        found: list[str] = []
        for key in sorted({*new, *old}):
            name = key if path in ("", "request") else f"{path}.{key}"
            found += differences(new.get(key), old.get(key), name)
        return found
    return [] if new == old else [f"{path}: {old!r} -> {new!r}"]


def open(path: str | os.PathLike[str]) -> xr.Dataset:
    """A product for people: float32 reflectance with NaN, QA as integers, lazily from Zarr.

    dims (y, x), or (time, y, x) with `time` where each period starts, the coordinate `period` with
    its name and `time_bnds` with both ends; x and y are pixel centres in the product's CRS. The
    real folder behind the link is opened, so a reader keeps its version while a new one is
    published.
    """
    real = Path(path).resolve()
    if Path(path).is_symlink() and not real.exists():
        raise InputError(
            f"{path} links to {real}, which is gone; move the hidden folder along with the link"
        )
    if not (real / "zarr.json").exists():
        raise InputError(f"{path} is not a Zarr v3 product (it has no zarr.json)")
    if "lcengine" not in json.loads((real / "zarr.json").read_text()).get("attributes", {}):
        raise InputError(f"{path} is Zarr v3 but not made by lcengine; open it with xarray")
    raw: xr.Dataset = xr.open_zarr(
        real,
        consolidated=True,
        mask_and_scale=False,
        decode_times=False,
        chunks={},
        decode_coords="all",
    )
    provenance = raw.attrs["lcengine"]
    names = list(provenance["variables"])
    out = raw[names].assign({name: _decode(raw[name].variable) for name in names})
    if "time" in raw.dims:
        out = _with_times(out, raw)
    # What the files look like is of no use to a copy, which has chunks and fills of its own.
    return out.assign_attrs(lcengine=json.dumps(provenance)).drop_encoding()


def pick(dataset: xr.Dataset, period: str | None) -> xr.Dataset:
    """One period of a product by name, (y, x); `InputError` names the periods there are."""
    names = [str(name) for name in dataset["period"].values] if "period" in dataset.coords else []
    if not names:
        if period is not None:
            raise InputError(f"period {period!r} is asked for, and the product has no periods")
        return dataset
    if period is None and len(names) == 1:
        return dataset.isel(time=0)
    if period not in names:
        asked = f"has no period {period!r}" if period else f"has {len(names)} periods"
        raise InputError(f"the product {asked}; choose one with --time: {', '.join(names)}")
    return dataset.isel(time=names.index(period))


def _with_times(out: xr.Dataset, raw: xr.Dataset) -> xr.Dataset:
    """Times as datetime64 (UTC), the periods' names as a coordinate."""
    names = raw["time"].attrs["period_names"]
    attributes = {"standard_name": "time", "axis": "T", "bounds": "time_bnds"}
    start, bounds = (raw[n].values.astype("M8[s]").astype("M8[ns]") for n in ("time", "time_bnds"))
    return out.assign_coords(
        time=("time", start, attributes),
        time_bnds=(("time", "bnds"), bounds),
        period=("time", np.array(names, dtype=object)),
    )


def _decode(variable: xr.Variable) -> xr.Variable:
    """Floats with NaN from scaled integers, without the attributes that describe the integers."""
    attributes = dict(variable.attrs)
    fill = attributes.pop("_FillValue", None)
    scale = attributes.pop("scale_factor", None)
    attributes.pop("add_offset", None)
    out = variable.drop_encoding()
    if scale is not None:

        def to_float(pixels: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
            values = pixels.astype(np.float32) * np.float32(scale)
            values[pixels == fill] = np.nan
            return values

        out = xr.apply_ufunc(to_float, out, dask="parallelized", output_dtypes=[np.float32])
    out.attrs = attributes
    return out


def _template(
    path: Path,
    grid: Grid,
    variables: Sequence[Variable],
    periods: Sequence[Period],
    provenance: Mapping[str, Any],
) -> None:
    """Create the group with all metadata and coordinates, and no pixel."""
    height, width = grid.shape
    transform = grid.transform
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(
        {
            "Conventions": "CF-1.11",
            **({"proj:code": f"EPSG:{grid.epsg}"} if grid.epsg else {}),
            "proj:wkt2": grid.crs_wkt,
            "spatial:transform": list(transform)[:6],
            "spatial:shape": [height, width],
            "lcengine": dict(provenance),
        }
    )
    _coordinate(group, "x", grid.x(np.arange(width)), "projection_x_coordinate")
    _coordinate(group, "y", grid.y(np.arange(height)), "projection_y_coordinate")
    mapping = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)
    t = transform
    mapping.attrs.update(
        {**grid.crs.proj.to_cf(), "GeoTransform": f"{t.c} {t.a} {t.b} {t.f} {t.d} {t.e}"}
    )
    mapping[...] = 0
    if periods:
        _time(group, periods)
    chunk = CHUNK if grid.tile % CHUNK == 0 else grid.tile
    times = (len(periods),) if periods else ()
    for variable in variables:
        group.create_array(
            variable.name,
            shape=(*times, height, width),
            dtype=variable.dtype,
            chunks=(*(1 for _ in times), chunk, chunk),
            shards=(*(1 for _ in times), grid.tile, grid.tile),
            fill_value=variable.missing,
            compressors=[ZstdCodec(level=LEVEL, checksum=True)],
            dimension_names=(*("time" for _ in times), "y", "x"),
            attributes=variable.attributes(),
        )


def _coordinate(group: zarr.Group, name: str, values: npt.NDArray[np.float64], cf: str) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="float64",
        chunks=values.shape,
        fill_value=float("nan"),
        dimension_names=(name,),
        attributes={"standard_name": cf, "axis": name.upper()},
    )
    array[:] = values


def _time(group: zarr.Group, periods: Sequence[Period]) -> None:
    """CF time: where the periods start, and their bounds; their names are an attribute."""
    epoch = np.datetime64("1970-01-01T00:00:00")
    bounds = np.array(
        [[p.start.replace(tzinfo=None), p.stop.replace(tzinfo=None)] for p in periods], "M8[us]"
    )
    seconds = (bounds - epoch) // np.timedelta64(1, "s")
    units = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    for name, values, dims in (
        ("time", seconds[:, 0], ("time",)),
        ("time_bnds", seconds, ("time", "bnds")),
    ):
        array = group.create_array(
            name,
            shape=values.shape,
            dtype="int64",
            chunks=values.shape,
            fill_value=np.iinfo(np.int64).min,
            dimension_names=dims,
        )
        array[...] = values
        array.attrs.update(units)
    group["time"].attrs.update(
        {
            "standard_name": "time",
            "axis": "T",
            "bounds": "time_bnds",
            "period_names": [period.name for period in periods],
        }
    )


def _consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component")
        zarr.consolidate_metadata(path)


def _read_note(layout: Layout) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(layout.staging_note.read_text())
    return note


def _write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power loss."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
