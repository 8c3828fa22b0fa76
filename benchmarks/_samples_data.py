"""The data of samples.py: one scene with labels, as a sample store, a Zarr cube and GeoTIFFs."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from rasterio.transform import from_origin
from zarr.codecs import ZstdCodec

from lcengine import store
from lcengine.inputs import Input
from lcengine.legends import legend

BANDS = tuple(f"band {i}" for i in range(10))
S2 = Input("s2", BANDS, "int16", -32768)
LEGEND = legend("worldcover")
PIXEL = 10.0
LEFT, TOP = 600_000.0, 5_600_000.0
CHUNK = 256


def scene(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields with a spectrum each, noise and clouds: int16 (band, y, x) and labels (y, x)."""
    rng = np.random.default_rng(0)
    fields = rng.integers(0, 6, (edge // 16, edge // 16)).astype(np.uint8)
    label = np.kron(fields, np.ones((16, 16), np.uint8))
    spectra = rng.integers(200, 4000, (6, len(BANDS))).astype(np.int16)
    pixels = np.moveaxis(spectra[label], 2, 0).copy()
    pixels += rng.normal(0, 60, pixels.shape).astype(np.int16)
    cloudy = np.kron(rng.random((edge // 64, edge // 64)) < 0.05, np.ones((64, 64), bool))
    pixels[:, cloudy] = S2.fill
    label[np.kron(rng.random((edge // 16, edge // 16)) < 0.3, np.ones((16, 16), bool))] = 255
    return pixels, label


def cut(pixels: np.ndarray, label: np.ndarray, patch: int) -> dict[str, np.ndarray]:
    """All patches, by rows of them: (sample, band, y, x) and (sample, y, x)."""
    n = label.shape[0] // patch
    s2 = pixels.reshape(len(BANDS), n, patch, n, patch).transpose(1, 3, 0, 2, 4)
    y = label.reshape(n, patch, n, patch).transpose(0, 2, 1, 3)
    return {"s2": s2.reshape(n * n, len(BANDS), patch, patch), "label": y.reshape(-1, patch, patch)}


def moments(patches: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each band's valid numbers."""
    out = {}
    for i, band in enumerate(BANDS):
        values = patches[:, i][patches[:, i] != S2.fill]
        out[band] = {"mean": float(values.mean()), "std": float(values.std())}
    return out


def write_store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The product that `lcengine samples` makes, all of it for training."""
    count, _, patch, _ = arrays["s2"].shape
    edge = (patch, patch)
    rows = store.Rows(count, 512)
    variables = [
        store.Variable("s2", "int16", S2.fill, "s2", dims=("band", "y", "x"), shape=(10, *edge)),
        store.Variable("label", "uint8", 255, "label", dims=("y", "x"), shape=edge),
    ]
    table = pd.DataFrame({"sample": np.arange(count), "split": "train"})
    for i, code in enumerate(LEGEND.codes):
        table[f"pixels_{code}"] = (arrays["label"] == i).sum(axis=(1, 2))
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    place = store.target(path)
    with place.exclusive():
        staging = place.create({}, "0" * 16, {}, rows, variables)
        for number in range(rows.n_tiles):
            part = rows.tile_at(number)
            staging.write(
                part,
                {n: np.ascontiguousarray(a[part.start : part.stop]) for n, a in arrays.items()},
            )
            staging.accept(staging.mark(number, {"tile": number}))
        found = {"s2": moments(arrays["s2"])}
        staging.publish(
            range(rows.n_tiles),
            {"inputs": [asdict(S2)], "legend": LEGEND.to_json()},
            {"samples.parquet": buffer.getvalue(), "statistics.json": json.dumps(found).encode()},
        )


def write_cube(path: Path, pixels: np.ndarray, label: np.ndarray) -> None:
    """A plain Zarr cube with chunks of `CHUNK` pixels and all bands, the same codec."""
    codec = ZstdCodec(level=1, checksum=True)
    cube = xr.Dataset({"s2": (("band", "y", "x"), pixels), "label": (("y", "x"), label)})
    chunks = {"s2": (len(BANDS), CHUNK, CHUNK), "label": (CHUNK, CHUNK)}
    cube.to_zarr(
        path,
        zarr_format=3,
        consolidated=False,
        encoding={name: {"chunks": c, "compressors": (codec,)} for name, c in chunks.items()},
    )


def write_tiffs(folder: Path, pixels: np.ndarray, label: np.ndarray) -> None:
    """Tiled GeoTIFFs, pixels of all bands together, the same codec."""
    for name, values, nodata in (("image", pixels, S2.fill), ("mask", label[None], 255)):
        (folder / name).mkdir()
        profile = {
            "driver": "GTiff",
            "crs": "EPSG:32631",
            "transform": from_origin(LEFT, TOP, PIXEL, PIXEL),
            "width": values.shape[2],
            "height": values.shape[1],
            "count": len(values),
            "dtype": values.dtype,
            "nodata": nodata,
            "tiled": True,
            "blockxsize": CHUNK,
            "blockysize": CHUNK,
            "interleave": "pixel",
            "compress": "zstd",
            "zstd_level": 1,
        }
        with rasterio.open(folder / name / "scene.tif", "w", **profile) as file:
            file.write(values)


def write(folder: Path, edge: int, patch: int) -> dict[str, np.ndarray]:
    """All of it below a folder; returns the patches, in memory."""
    pixels, label = scene(edge)
    arrays = {name: np.ascontiguousarray(a) for name, a in cut(pixels, label, patch).items()}
    write_store(folder / "samples.zarr", arrays)
    write_cube(folder / "cube.zarr", pixels, label)
    write_tiffs(folder, pixels, label)
    return arrays


def opened(folder: Path) -> xr.Dataset:
    """The cube, read on access."""
    return xr.open_zarr(folder / "cube.zarr", consolidated=False, chunks=None, mask_and_scale=False)


def array(folder: Path, name: str) -> zarr.Array:
    """An array of the sample store through zarr."""
    found = zarr.open_group(folder / "samples.zarr", mode="r")[name]
    assert isinstance(found, zarr.Array)
    return found
