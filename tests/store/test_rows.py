"""Products of samples: every back end, as products of tiles."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import lcengine
from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.legends import legend
from lcengine.store import Part, Rows, Variable

ROWS = Rows(10, 4)
VARIABLES = (
    Variable(
        "s2", "int16", -32768, "Sentinel-2", scale=1e-4, units="1",
        dims=("time_s2", "band_s2", "y", "x"), shape=(2, 3, 5, 5),
    ),
    Variable("label", "uint8", 255, "classes", dims=("y", "x"), shape=(5, 5)),
    Variable("rgb", "uint8", None, "image", dims=("band_rgb", "row", "col"), shape=(3, 64, 64)),
)  # fmt: skip
FACTS = {"kind": "samples", "legend": legend("crop").to_json()}


def pixels(variable, part):
    rng = np.random.default_rng(part.index)
    shape = (part.stop - part.start, *variable.shape)
    return rng.integers(0, 250, shape).astype(variable.dtype)


def stage(place):
    return place.create({}, "run", {"plan": 1}, ROWS, VARIABLES, (), {"table": b"rows"})


def write(staging, number):
    part = ROWS.tile_at(number)
    staging.write(part, {v.name: pixels(v, part) for v in VARIABLES})
    return staging.mark(number, {})


def finish(staging, parts=range(3)):
    for number in parts:
        staging.accept(write(staging, number))
    return staging.publish(range(ROWS.n_tiles), FACTS, {})


def test_what_is_written_is_read(backend):
    staging = stage(backend.target)
    assert staging.file("table") == b"rows"
    output = finish(staging)
    opened = lcengine.open(output)
    assert opened["s2"].dims == ("sample", *VARIABLES[0].dims)
    assert opened["s2"].dtype == np.float32  # reflectance
    for variable in VARIABLES:
        expected = np.concatenate([pixels(variable, ROWS.tile_at(k)) for k in range(3)])
        np.testing.assert_array_equal(store.stored(output)[variable.name].values, expected)
    assert store.verify(output).ok
    assert store.legend_of(output) == legend("crop")
    with pytest.raises(InputError, match="holds samples, which have no grid"):
        store.grid_of(output)


def test_small_samples_share_a_chunk_and_large_ones_do_not(backend):
    group = zarr.open_group(stage(backend.target).store(), mode="r")
    assert group["label"].chunks == (4, 5, 5)
    assert group["label"].shards == (4, 5, 5)
    assert group["rgb"].chunks[0] * 3 * 64 * 64 <= 2 * 2**16
    assert group["label"].metadata.fill_value == 255
    assert "_FillValue" not in group["rgb"].attrs


def test_unfinished_work_goes_on(backend):
    staging = stage(backend.target)
    staging.accept(write(staging, 1))
    staging.flush()
    again = backend.target.find({})
    assert {marker["tile"] for marker in again.done()} == {1}
    with pytest.raises(StoreError, match="2 of 3 tiles are not finished"):
        again.publish(range(3), FACTS, {})
    assert store.verify(finish(again, [0, 2])).ok


@pytest.mark.parametrize("part", [Part(0, 0, 3), Part(0, 2, 6), Part(2, 8, 12), Part(0, 0, 8)])
def test_what_is_no_part_is_refused(backend, part):
    staging = stage(backend.target)
    arrays = {"label": np.zeros((part.stop - part.start, 5, 5), np.uint8)}
    with pytest.raises(StoreError, match="expected uint8 and one whole shard"):
        staging.write(part, arrays)


def test_a_changed_shard_is_found(tmp_path):
    output = finish(stage(store.target(tmp_path / "out.zarr")))
    folder = tmp_path / "out.zarr" / "s2" / "c"
    (folder / "0/0/0/0/0").write_bytes((folder / "1/0/0/0/0").read_bytes())
    (folder / "2/0/0/0/0").unlink()
    (folder / "7").mkdir()
    (folder / "7/0").write_bytes(b"x")
    found = {(fault.tile, fault.reason.split()[0]) for fault in store.verify(output).faults}
    assert {(0, "holds"), (2, "a")} <= found
    assert any(tile is None for tile, _ in found)


@pytest.mark.parametrize(("count", "part"), [(0, 4), (10, 0)])
def test_nothing_is_no_product(count, part):
    with pytest.raises(InputError, match="expected one or more of both"):
        Rows(count, part)
