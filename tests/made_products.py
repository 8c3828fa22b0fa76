"""Products of given arrays, without a run."""

from __future__ import annotations

import numpy as np

from lcengine.store import Variable, target


def publish(path, grid, layers, periods=(), **facts):
    """Write `{Variable: array}` on a grid as a product; returns its path as text."""
    place = target(path)
    with place.exclusive():
        name = facts.pop("run_id", f"run of {path.name}")
        staging = place.create({"made": name}, name, {"kind": "none"}, grid, list(layers), periods)
        for tile in grid.tiles():
            parts = {v.name: values[(..., *tile.slices)] for v, values in layers.items()}
            staging.write(tile, parts)
            staging.accept(staging.mark(tile.index, {"pixels": 1}))
        return staging.publish(range(grid.n_tiles), {"kind": "composite", **facts}, {})


def bands(names, shape, seed=0, dtype="int16", fill=-32768, **how):
    """Random layers for `publish`, a tenth of them missing."""
    rng = np.random.default_rng(seed)
    out = {}
    for name in names:
        values = rng.integers(-500, 9000, shape).astype(dtype)
        values[rng.random(shape) < 0.1] = fill
        out[Variable(name, dtype, fill, name, **({"scale": 1e-4, "units": "1"} | how))] = values
    return out


def labels(path, grid, codes, legend, **facts):
    """A label product."""
    variable = Variable("label", str(legend.dtype), legend.nodata, "class", legend=legend)
    layers = {variable: codes.astype(legend.dtype)}
    return publish(path, grid, layers, kind="labels", legend=legend.to_json(), **facts)
