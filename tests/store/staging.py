"""A tiny product of four tiles, for the tests of the store."""

from __future__ import annotations

import numpy as np
import zarr

from lcengine.grid import Grid
from lcengine.store import Variable

VARIABLES = (
    Variable("red", "int16", -32768, "red", scale=1e-4, units="1"),
    Variable("count", "uint16", 65535, "observations"),
)
GRID = Grid.from_bounds(600_000, 5_599_520, 600_400, 5_600_000, "EPSG:32631", 10.0, 32)
"""48 rows and 40 columns: two by two tiles, three of them cropped."""
FACTS = {"items": 0, "failed_reads": 0}


def stage(place, **request):
    """Fresh work."""
    return place.create(request, "run", {"plan": 1}, GRID, VARIABLES)


def arrays(tile, value=7):
    """Noise around a value, so that no back end finds it small enough to treat it specially."""
    shape = (tile.height, tile.width)
    noise = np.random.default_rng(tile.index).integers(0, 1000, shape)
    return {"red": (noise + 1000 * value).astype(np.int16), "count": np.full(shape, 1, np.uint16)}


def write(staging, number, value=7):
    """What a tile task does; the receipt that goes to the driver."""
    tile = GRID.tile_at(number)
    staging.write(tile, arrays(tile, value))
    return staging.mark(number, {"pixels": tile.height * tile.width, "failures": []})


def finish(staging, value=7, tiles=range(4)):
    """Write tiles and publish."""
    for number in tiles:
        staging.accept(write(staging, number, value))
    return staging.publish(range(GRID.n_tiles), FACTS, {"note": b"x"})


def expected(value=7):
    """What the finished product holds."""
    whole = np.zeros(GRID.shape, np.int16)
    for tile in GRID.tiles():
        whole[tile.slices] = arrays(tile, value)["red"]
    return whole


def staged(staging):
    """The numbers of unfinished work."""
    group = zarr.open_group(staging.store(), mode="r")
    return {variable.name: group[variable.name][...] for variable in VARIABLES}
