"""What every back end promises, each by the same tests."""

from __future__ import annotations

import io
import json
import pickle
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from places import SECRET, backend_at
from staging import FACTS, GRID, VARIABLES, arrays, expected, finish, stage, staged, write

import lcengine
from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.grid import Tile
from lcengine.store import Staging, Target


def test_the_parts_keep_to_the_protocol(backend):
    place = backend.target
    assert isinstance(place, Target)
    assert isinstance(stage(place), Staging)


class TestTiles:
    def test_an_unwritten_tile_reads_as_fill(self, backend):
        """FAULTS 29: by explicit fill values, for everybody who opens the array."""
        staging = stage(backend.target)
        staging.accept(write(staging, 0))
        staging.flush()
        group = zarr.open_group(staging.store(), mode="r")
        assert group["red"].metadata.fill_value == -32768
        assert group["red"].attrs["_FillValue"] == -32768
        stored = staged(staging)
        inside = np.zeros(GRID.shape, bool)
        inside[:32, :32] = True
        np.testing.assert_array_equal(stored["red"], np.where(inside, expected(), -32768))
        np.testing.assert_array_equal(stored["count"], np.where(inside, 1, 65535))

    def test_an_all_nodata_tile_is_written(self, backend):
        """FAULTS 30: so that it differs from a missing one."""
        place = backend.target
        staging = stage(place)
        tile = GRID.tile_at(3)
        nothing = {v.name: np.full((tile.height, tile.width), v.fill, v.dtype) for v in VARIABLES}
        staging.write(tile, nothing)
        staging.accept(staging.mark(3, {"failures": []}))
        output = finish(staging, tiles=range(3))
        assert store.verify(output).ok
        assert "red/c/1/1" in store.product.locate(output).shards("red")
        assert (store.stored(output)["red"].values[tile.slices] == -32768).all()

    def test_what_does_not_fill_a_tile_is_refused(self, backend):
        """FAULTS 31: before anything is written."""
        staging = stage(backend.target)
        for tile, shape in (
            (GRID.tile_at(0), (32, 31)),
            (GRID.tile_at(3), (32, 32)),
            (Tile(0, 0, 0, 8, 0, 32, 32), (32, 32)),
            (Tile(0, 0, 0, 0, 0, 16, 32), (16, 32)),
            (Tile(9, 2, 0, 64, 0, 32, 32), (32, 32)),
        ):
            with pytest.raises(StoreError, match=rf"tile {tile.index} of red is .*, expected "):
                staging.write(tile, {"red": np.zeros(shape, np.int16)})
        with pytest.raises(StoreError, match=r"red is float64.*expected int16"):
            staging.write(GRID.tile_at(0), {"red": np.zeros((32, 32))})
        assert (staged(staging)["red"] == -32768).all()
        assert list(staging.done()) == []

    def test_the_hash_is_of_the_content(self, backend):
        staging = stage(backend.target)
        tile = GRID.tile_at(0)
        seen = [staging.write(tile, arrays(tile, value)) for value in (1, 2, 1)]
        assert seen[0] == seen[2] != seen[1]
        receipt = staging.mark(0, {"failures": [], "clear": 3})
        assert (receipt["tile"], receipt["sha256"], receipt["clear"]) == (0, seen[0], 3)


class TestPublishing:
    def test_an_unfinished_product_is_invisible(self, backend):
        place = backend.target
        staging = stage(place)
        staging.accept(write(staging, 0))
        with pytest.raises(StoreError, match=r"3 of 4 tiles are not finished .*first: 1"):
            staging.publish(range(4), FACTS, {})
        assert backend.target.published() is None
        with pytest.raises(InputError):
            lcengine.open(backend.output)

    def test_a_published_product_reads_back(self, backend):
        place = backend.target
        with place.exclusive():
            output = finish(stage(place, a=1))
        assert output == backend.output
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            product = lcengine.open(output)
        assert product["red"].dtype == np.float32
        assert product["count"].dtype == np.uint16
        assert product.rio.crs.to_epsg() == 32631
        assert product.rio.transform() == GRID.transform
        np.testing.assert_array_equal(product["x"], 600_000 + 10 * np.arange(40) + 5)
        np.testing.assert_array_equal(product["y"], 5_600_000 - 10 * np.arange(48) - 5)
        np.testing.assert_array_equal(product["red"], expected() * np.float32(1e-4))
        np.testing.assert_array_equal(store.stored(output)["red"], expected())
        assert json.loads(product.attrs["lcengine"])["items"] == 0
        found = backend.target
        assert found.published()["request"] == {"a": 1}
        assert found.unfinished() is None
        assert found.staging() is None
        assert store.sidecar(output, "note") == b"x"
        with pytest.raises(InputError, match=r"has no nothing\.txt"):
            store.sidecar(output, "nothing.txt")

    def test_the_receipts_are_a_table(self, backend):
        output = finish(stage(backend.target))
        table = pq.read_table(io.BytesIO(store.sidecar(output, "tiles.parquet"))).to_pylist()
        assert [row["tile"] for row in table] == [0, 1, 2, 3]
        assert [row["pixels"] for row in table] == [1024, 256, 512, 128]
        assert {row["failures"] for row in table} == {0}
        assert set(table[0]) == {
            "tile", "pixels", "failures", "sha256", "sha256_red", "sha256_count",
        }  # fmt: skip

    def test_a_reader_keeps_its_version(self, backend):
        """FAULTS 36: old or new, never a mixture."""
        output = finish(stage(backend.target), value=1)
        if backend.name == "s3":
            with pytest.raises(StoreError, match=r"not overwritten.*--store icechunk"):
                stage(backend.target, again=True)
            assert store.verify(output).ok
            return
        old = lcengine.open(output)
        staging = stage(backend.target, again=True)
        for number in range(4):
            staging.accept(write(staging, number, 2))
            now = lcengine.open(output)["red"]
            np.testing.assert_array_equal(now, expected(1) * np.float32(1e-4))
        staging.publish(range(4), FACTS, {})
        np.testing.assert_array_equal(old["red"], expected(1) * np.float32(1e-4))
        np.testing.assert_array_equal(lcengine.open(output)["red"], expected(2) * np.float32(1e-4))

    def test_no_secret_is_kept(self, backend):
        """FAULTS 44: credentials stay in the environment."""
        staging = stage(backend.target)
        receipt = write(staging, 0)
        assert SECRET.encode() not in pickle.dumps(staging)
        assert SECRET.encode() not in pickle.dumps(receipt)
        staging.accept(receipt)
        output = finish(staging, tiles=range(1, 4))
        assert SECRET.encode() not in pickle.dumps(lcengine.open(output))
        assert backend.files()
        assert not [key for key, content in backend.files().items() if SECRET.encode() in content]


class TestResuming:
    def test_work_is_found_by_the_output(self, backend):
        assert backend.target.find({"a": 1}) is None
        staging = stage(backend.target, a=1)
        found = backend.target.find({"a": 1})
        assert found == staging
        assert found.plan() == {"plan": 1}
        assert backend.target.unfinished()["request"] == {"a": 1}

    def test_work_of_another_request_or_package_is_refused(self, backend, monkeypatch):
        """FAULTS 35: with the difference."""
        stage(backend.target, a=1)
        with pytest.raises(StoreError, match=r"a: 1 -> 2; b: None -> 3.*--restart"):
            backend.target.find({"a": 2, "b": 3})
        monkeypatch.setattr(lcengine, "__version__", "9.9.9")
        with pytest.raises(StoreError, match=r"package: .* -> '9\.9\.9'"):
            backend.target.find({"a": 1})

    def test_what_is_done_is_not_done_again(self, backend):
        """FAULTS 2."""
        staging = pickle.loads(pickle.dumps(stage(backend.target, a=1)))
        receipts = [write(staging, number) for number in (0, 2)]
        driver = backend.target.staging()
        for receipt in receipts:
            driver.accept(receipt)
        driver.flush()
        found = backend.target.find({"a": 1})
        markers = {marker["tile"]: marker for marker in found.done()}
        assert set(markers) == {0, 2}
        assert markers[2]["sha256"] == receipts[1]["sha256"]
        output = finish(found, tiles=(1, 3))
        np.testing.assert_array_equal(store.stored(output)["red"], expected())
        assert store.verify(output).ok

    def test_failed_tiles_are_noted_until_they_succeed(self, backend):
        staging = stage(backend.target, a=1)
        for tile in (3, 1):
            staging.fail(tile, {"error": "poison", "attempts": 3, "quarantined": True})
        assert list(backend.target.staging().failed()) == [1, 3]
        staging.accept(write(staging, 1))
        staging.flush()
        failure = {"error": "poison", "attempts": 3, "quarantined": True, "tile": 3}
        assert backend.target.staging().failed() == {3: failure}

    def test_a_restart_leaves_nothing_of_the_old_work(self, backend):
        """FAULTS 7: not even what its last worker writes late."""
        old = stage(backend.target, a=1)
        old.accept(write(old, 0, 1))
        old.flush()
        new = stage(backend.target, b=2)
        assert list(new.done()) == []
        assert (staged(new)["red"] == -32768).all()

        def zombie(number):
            worker = pickle.loads(pickle.dumps(old))
            with pytest.raises(StoreError, match="discarded or published"):
                write(worker, number, 1)

        zombie(0)
        new.accept(write(new, 0, 2))
        zombie(0)
        zombie(3)
        output = finish(new, 2, tiles=range(1, 4))
        zombie(1)
        np.testing.assert_array_equal(store.stored(output)["red"], expected(2))
        assert store.verify(output).ok

    def test_a_tile_done_twice_is_done_once(self, backend):
        """FAULTS 7: the twin of a retried task."""
        staging = stage(backend.target, a=1)
        twin = pickle.loads(pickle.dumps(staging))
        first, second = write(staging, 0), write(twin, 0)
        assert first["sha256"] == second["sha256"]
        staging.accept(second)
        staging.accept(first)
        output = finish(staging, tiles=range(1, 4))
        assert store.verify(output) == store.Verification(store.place(output), 4, ())

    def test_a_second_driver_is_refused(self, backend):
        """FAULTS 14."""
        with (
            backend.target.exclusive(),
            pytest.raises(StoreError, match=r"another run is writing .*out\.zarr"),
            backend.target.exclusive(),
        ):
            pass
        with backend.target.exclusive():
            pass

    def test_anything_else_at_the_output_is_left_alone(self, backend):
        if backend.remote:
            backend.put("important/data", b"x")
        else:
            (backend.folder / "out.zarr").mkdir()
        if backend.name == "icechunk-s3":
            pytest.skip("a repository may lie beside other objects")
        for _ in range(2):  # the first refusal must not look like work of ours to the second
            with pytest.raises(StoreError, match=r"exists and is not|holds other objects"):
                stage(backend.target)
        if backend.remote:
            assert backend.files() == {"important/data": b"x"}


def test_another_kind_does_not_touch_a_product(backend):
    """Nor what is unfinished, nor the note of a killed run."""
    finish(stage(backend.target, a=1))
    if backend.name != "s3":
        stage(backend.target, a=2)
    before = backend.files()
    other = "zarr" if backend.kind else "icechunk"
    with pytest.raises(StoreError, match=r"exists and is not|clean prefixes"):
        stage(store.target(backend.output, other), a=3)
    assert backend.files() == before
    assert store.verify(backend.output).ok


class TestVerifying:
    """What `verify` finds in a published product."""

    def test_a_bit_flip_is_detected(self, backend):
        """FAULTS 33: by the checksums of the codec and of the shard's index."""
        output = finish(stage(backend.target))
        (backend.folder / "local").mkdir()
        local = backend_at("local", backend.folder / "local")
        finish(stage(local.target))
        reds = {content for key, content in local.files().items() if "red/c/" in key}
        chunks = {key: content for key, content in backend.files().items() if content in reds}
        assert len(chunks) >= 3  # the same bytes everywhere; Icechunk inlines the smallest
        for key, good in chunks.items():
            for position in (len(good) // 3, len(good) - 12):
                bad = bytearray(good)
                bad[position] ^= 0x10
                backend.put(key, bytes(bad))
                found = store.verify(output)
                assert len(found.faults) == 1
                assert not found.ok
                if backend.kind is None:
                    with pytest.raises((RuntimeError, ValueError)):
                        lcengine.open(output)["red"].values.sum()
            backend.put(key, good)
        assert store.verify(output).ok

    def test_other_missing_and_foreign_shards_are_named(self, backend):
        if backend.kind:
            pytest.skip("chunks of a repository have no names of their own")
        output = finish(stage(backend.target))
        files = backend.files()
        backend.put("count/c/1/1", None)
        backend.put("count/c/0/5", files["count/c/0/0"])
        (backend.folder / "other").mkdir()
        other = backend_at(backend.name, backend.folder / "other")
        finish(stage(other.target), 3)
        backend.put("red/c/1/0", other.files()["red/c/1/0"])
        assert {(f.tile, f.variable, f.reason) for f in store.verify(output).faults} == {
            (3, "count", "a shard is missing"),
            (None, "count", "count/c/0/5 belongs to no tile"),
            (2, "red", "holds other pixels than were written"),
        }
