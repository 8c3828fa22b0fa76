"""Sample stores in the product's layout, written with zarr alone."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import ZstdCodec

from lcengine.inputs import Input
from lcengine.legends import Entry, Legend

CLASSES = 4
LEGEND = Legend(
    "four",
    "Four classes",
    tuple(Entry(i + 1, f"class {i + 1}", f"#{i:02x}0000") for i in range(CLASSES)),
    "made up",
)
S2 = Input("s2", ("red", "nir", "swir16"), "int16", -32768)
S1 = Input("s1", ("vv",), "float32", None, times=("2024-01", "2024-02"))


def sample_arrays(count, patch, inputs=(S2, S1), seed=0):
    """Random patches with missing pixels; band 0 of s2 and the labels tell the sample."""
    rng = np.random.default_rng(seed)
    out = {}
    for entry in inputs:
        shape = (count, *entry.lead, patch, patch)
        if np.dtype(entry.dtype).kind == "f":
            values = rng.normal(-12, 3, shape).astype(entry.dtype)
            values[rng.random(shape) < 0.1] = np.nan
        else:
            values = rng.integers(0, 200, shape).astype(entry.dtype)
            if entry.fill is not None:
                values[rng.random(shape) < 0.1] = entry.fill
        out[entry.name] = values
    label = rng.integers(0, CLASSES, (count, patch, patch)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = 255
    out["label"] = label
    return out


def sample_table(arrays, splits=("train", "train", "train", "val")):
    label = arrays["label"]
    counts = np.stack([(label == i).sum(axis=(1, 2)) for i in range(CLASSES)], axis=1)
    table = pd.DataFrame({"sample": np.arange(len(label))})
    table["split"] = [splits[i % len(splits)] for i in range(len(label))]
    table["labelled"] = counts.sum(axis=1)
    for i in range(CLASSES):
        table[f"pixels_{LEGEND.codes[i]}"] = counts[:, i]
    return table


def sample_statistics(arrays, table, inputs):
    train = (table["split"] == "train").to_numpy()
    out = {}
    for entry in inputs:
        out[entry.name] = {}
        for number, band in enumerate(entry.bands):
            values = arrays[entry.name][train][..., number, :, :].astype(np.float64)
            values = values[np.isfinite(values) & (values != entry.fill)]
            names = ("mean", "std", "min", "max")
            found = (
                [float(getattr(values, name)()) for name in names] if values.size else [None] * 4
            )
            out[entry.name][band] = {"count": values.size, **dict(zip(names, found, strict=True))}
    return out


def write_samples(path, arrays, inputs=(S2, S1), *, part=8, chunk=1, table=None):
    """A store of `arrays`; samples whose values are all fill lie in no chunk."""
    table = sample_table(arrays) if table is None else table
    group = zarr.open_group(path, mode="w", zarr_format=3)
    fills = {e.name: np.nan if e.fill is None and e.dtype[0] == "f" else e.fill for e in inputs}
    for name, values in arrays.items():
        rest = values.shape[1:]
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            shards=(part, *rest),
            chunks=(chunk, *rest),
            fill_value=fills.get(name, 255),
            compressors=[ZstdCodec(level=1, checksum=True)],
        )
        array[...] = values
    group.attrs["lcengine"] = {
        "package": "0",
        "run_id": "made up",
        "variables": list(arrays),
        "inputs": [asdict(entry) for entry in inputs],
        "legend": LEGEND.to_json(),
        "patch": arrays["label"].shape[-1],
    }
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    (path / "samples.parquet").write_bytes(buffer.getvalue())
    facts = sample_statistics(arrays, table, inputs)
    (path / "statistics.json").write_text(json.dumps(facts))
    return path
