"""Reading products: open, choose a period, sidecars; wherever and however they are stored."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore

from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.legends import Legend
from lcengine.store.protocol import bucket_of, require
from lcengine.store.rows import layout_of
from lcengine.store.staged import NOTE
from lcengine.store.template import PROVENANCE


@dataclass(frozen=True, slots=True)
class Found:
    """One version of a product: what is published later does not change it."""

    store: Store
    place: str
    """Where it lies: the folder behind the link, or the address."""
    consolidated: bool

    def group(self) -> zarr.Group:
        """The product, read-only."""
        return zarr.open_group(self.store, mode="r")

    def provenance(self) -> dict[str, Any]:
        """Its provenance attribute."""
        found: Any = self.group().attrs.asdict()[PROVENANCE]
        return dict(found)

    def shards(self, name: str) -> list[str]:
        """Keys of all objects below a variable's `c/`."""

        async def collect() -> list[str]:
            keys = self.store.list_prefix(f"{name}/")
            return [key async for key in keys if key.startswith(f"{name}/c/")]

        return sync(collect())

    def raw(
        self, chunks: dict[str, int] | None, decode_coords: Literal["all"] | bool = True
    ) -> xr.Dataset:
        """Stored numbers as they are."""
        out: xr.Dataset = xr.open_zarr(
            self.store,
            consolidated=self.consolidated,
            mask_and_scale=False,
            decode_times=False,
            chunks=chunks,
            decode_coords=decode_coords,
        )
        return out


def locate(path: str | os.PathLike[str]) -> Found:
    """The version that is visible now; `InputError` for what is no product."""
    found = _locate_object(path) if bucket_of(path) else _locate_file(path)
    if PROVENANCE not in found.group().attrs:
        raise InputError(f"{path} is Zarr v3 but not made by lcengine; open it with xarray")
    return found


def is_repository(path: str | os.PathLike[str]) -> bool:
    """Whether an Icechunk repository lies at a path or address."""
    bucket = bucket_of(path)
    if bucket is None:
        return (Path(path) / "refs").is_dir() and (Path(path) / "snapshots").is_dir()
    from lcengine.store import objects  # noqa: PLC0415 (an extra)

    address = f"s3://{bucket[0]}/{bucket[1]}"
    with objects.named_errors(address):
        return next(objects.keys_of(objects.client(address), ("refs",)), None) is not None


def _locate_file(path: str | os.PathLike[str]) -> Found:
    real = Path(path).resolve()
    if Path(path).is_symlink() and not real.exists():
        raise InputError(
            f"{path} links to {real}, which is gone; move the hidden folder along with the link"
        )
    if (real / "zarr.json").exists():
        return Found(LocalStore(real, read_only=True), str(real), consolidated=True)
    if is_repository(real):
        return _locate_snapshot(str(real))
    raise _absent(path, (real.parent / f".{real.name}.lcengine" / NOTE).exists())


def _absent(path: str | os.PathLike[str], begun: bool) -> InputError:
    if begun:
        return InputError(
            f"{path} is not finished; `lcengine status {path}` says how far it is, and "
            f"`lcengine retry {path}` goes on"
        )
    if bucket_of(path) is None and not Path(path).exists():
        return InputError(f"{path} is not a Zarr v3 product (it does not exist); check the path")
    return InputError(f"{path} is not a Zarr v3 product (it has no zarr.json)")


def _locate_object(path: str | os.PathLike[str]) -> Found:
    from lcengine.store import objects  # noqa: PLC0415 (an extra)

    bucket, key = bucket_of(path) or ("", "")
    address = f"s3://{bucket}/{key}"
    client = objects.client(address)
    with objects.named_errors(address):
        if objects.attributes(client) is not None:
            store = zarr.storage.ObjectStore(client, read_only=True)
            return Found(store, address, consolidated=True)
    if is_repository(address):
        return _locate_snapshot(address)
    with objects.named_errors(address):
        begun = objects.get(objects.client(address, ".{}.lcengine"), NOTE) is not None
    raise _absent(address, begun)


def _locate_snapshot(address: str) -> Found:
    require("icechunk", "icechunk")
    from lcengine.store import icechunk  # noqa: PLC0415 (an extra)

    store = icechunk.read_store(address)
    if store is None:
        raise InputError(f"{address} is an Icechunk repository with no published product yet")
    return Found(store, address, consolidated=False)


def grid_of(path: str | os.PathLike[str]) -> Grid:
    """The grid of a product; `InputError` for what is none, or has none."""
    layout = layout_of(locate(path).provenance())
    if not isinstance(layout, Grid):
        raise InputError(f"{path} holds samples, which have no grid; give a raster product")
    return layout


def legend_of(path: str | os.PathLike[str]) -> Legend:
    """The legend of a product of classes; `InputError` for any other."""
    found = locate(path).provenance().get("legend")
    if found is None:
        raise InputError(
            f"{path} states no legend, so it holds no classes; make one with `lcengine labels`"
        )
    return Legend.from_json(found)


def sidecar(path: str | os.PathLike[str], name: str) -> bytes:
    """A file laid beside the arrays, e.g. `items.parquet`; `InputError` where there is none."""
    content = read_sidecar(locate(path), name)
    if content is None:
        raise InputError(f"{path} has no {name}")
    return content


def read_sidecar(found: Found, name: str) -> bytes | None:
    """A sidecar of a version, None where there is none."""
    if isinstance(found.store, LocalStore):
        try:
            return (Path(found.place) / name).read_bytes()
        except FileNotFoundError:
            return None
    if found.consolidated:
        from lcengine.store import objects  # noqa: PLC0415 (an extra)

        return objects.get(objects.client(found.place), name)
    array = found.group().get(f"sidecars/{name}")
    return np.asarray(array[:]).tobytes() if isinstance(array, zarr.Array) else None


def stored(path: str | os.PathLike[str]) -> xr.Dataset:
    """The variables of a product as their stored integers, read on access, with all attributes."""
    raw = locate(path).raw(chunks=None)
    return raw[list(raw.attrs[PROVENANCE]["variables"])]


def open(path: str | os.PathLike[str]) -> xr.Dataset:
    """A product for people: float32 with NaN, QA as integers, lazily from Zarr.

    Bands are reflectance, or backscatter where their `units` are dB.

    `path`: a local path or `s3://bucket/key`; an Icechunk repository is recognised. dims (y, x),
    or (time, y, x) with `time` where each period starts, the coordinate `period` with its name and
    `time_bnds` with both ends; x and y are pixel centres in the product's CRS.

    The version that is visible now is pinned: the folder behind the link, or the snapshot. Pixels
    read later are of that version while a new one is published, and until a second one is, when
    the pinned one is swept. `xarray.open_zarr(path)` on a local path does not pin: it follows the
    link at every read, so after an overwrite it may put metadata and pixels of the old version
    together with pixels of the new one. Objects are never overwritten; a bare reader of them sees
    no product before it is complete.
    """
    raw = locate(path).raw(chunks={}, decode_coords="all")
    provenance = raw.attrs[PROVENANCE]
    names = list(provenance["variables"])
    out = raw[names].assign({name: _decode(raw[name].variable) for name in names})
    if "time_bnds" in raw.variables:
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


def _to_float(pixels: npt.NDArray[np.int16], scale: float, fill: int) -> npt.NDArray[np.float32]:
    values = pixels.astype(np.float32) * np.float32(scale)
    values[pixels == fill] = np.nan
    return values


def _decode(variable: xr.Variable) -> xr.Variable:
    """Floats with NaN from scaled integers, without the attributes that describe the integers."""
    attributes = dict(variable.attrs)
    fill = attributes.pop("_FillValue", None)
    scale = attributes.pop("scale_factor", None)
    attributes.pop("add_offset", None)
    out = variable.drop_encoding()
    if scale is not None:
        decode = partial(_to_float, scale=scale, fill=fill)
        out = xr.apply_ufunc(decode, out, dask="parallelized", output_dtypes=[np.float32])
    out.attrs = attributes
    return out
