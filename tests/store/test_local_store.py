"""Local products: the link, the lock, the disk."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import archives
import numpy as np
import pytest
import xarray as xr
from staging import FACTS, GRID, VARIABLES, expected, finish, stage, write

import lcengine
from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.grid import Grid
from lcengine.store import LocalStaging, differences, target
from lcengine.store.area import Folder, write_atomic


@pytest.fixture
def place(tmp_path):
    return target(tmp_path / "out.zarr")


def versions(place):
    return [name for name in place.area.folders() if not name.endswith(".work")]


class TestTiles:
    def test_the_metadata_are_explicit(self, place):
        """FAULTS 29 and 33: fill values and a checksummed codec, in the files."""
        staging = stage(place)
        write(staging, 0)
        metadata = json.loads((staging.path / "red" / "zarr.json").read_text())
        assert metadata["fill_value"] == -32768
        assert metadata["attributes"]["_FillValue"] == -32768
        sharding = metadata["codecs"][0]["configuration"]["codecs"]
        assert {"name": "zstd", "configuration": {"level": 1, "checksum": True}} in sharding
        decoded = xr.open_zarr(staging.path, consolidated=False, chunks=None)
        assert np.isnan(decoded["red"].values).sum() == 48 * 40 - 32 * 32

    def test_all_nodata_tiles_are_written_whatever_other_threads_do(self, place):
        """A task that ends must not turn off what one still writing relies on."""
        staging = stage(place)
        inside, ended = [threading.Event(), threading.Event()], threading.Event()

        class Paced(dict):
            """Arrays that a task comes to once `before` is set, having said that it is inside."""

            def __init__(self, number, before):
                tile = GRID.tile_at(number)
                super().__init__(red=np.full((tile.height, tile.width), -32768, np.int16))
                self.number, self.before = number, before

            def items(self):
                inside[self.number].set()
                assert self.before.wait(30)
                return super().items()

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(staging.write, GRID.tile_at(0), Paced(0, before=inside[1]))
            assert inside[0].wait(30)
            second = pool.submit(staging.write, GRID.tile_at(1), Paced(1, before=ended))
            first.result(30)
            ended.set()
            second.result(30)
        for column in (0, 1):
            assert (staging.path / "red" / "c" / "0" / str(column)).stat().st_size > 0


class TestPublishing:
    def test_a_product_is_a_link_to_its_version(self, place):
        staging = stage(place)
        output = Path(finish(staging))
        assert output.is_symlink()
        assert output.resolve() == staging.path
        assert place.area.folders() == [staging.version]
        assert (output / "note").read_bytes() == b"x"
        assert store.place(output) == str(staging.path)

    def test_older_versions_are_swept(self, place):
        kept = []
        for value in range(4):
            staging = stage(place, value=value)
            finish(staging, value)
            kept = [*kept[-1:], staging.version]
            assert set(versions(place)) == set(kept)

    def test_a_bare_reader_may_see_the_new_pixels(self, place, tmp_path):
        """What the docstring of `open` says of readers that go by the path."""
        finish(stage(place), value=1)
        bare = xr.open_zarr(tmp_path / "out.zarr", mask_and_scale=False, chunks=None)
        pinned = lcengine.open(tmp_path / "out.zarr")
        finish(stage(place, again=True), value=2)
        np.testing.assert_array_equal(bare["red"], expected(2))
        np.testing.assert_array_equal(pinned["red"], expected(1) * np.float32(1e-4))

    def test_readers_in_a_loop_see_one_version_or_the_other(self, place, tmp_path):
        """FAULTS 36."""
        output = finish(stage(place), value=0)
        wanted = [store.stored(output)["red"].values]
        stop, seen = threading.Event(), set()

        def read():
            while not stop.is_set():
                found = store.stored(output)["red"].values
                values = {int(v) for v in np.unique(found // 1000)}
                assert len(values) == 1, "a mixture"
                seen.update(values)

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            # The pinned version stays for one more overwrite: a reader takes less than that.
            for value in range(1, 4):
                staging = stage(place, value=value)
                for tile in range(4):
                    write(staging, tile, value)
                assert archives.until(lambda v=value: v - 1 in seen)
                staging.publish(range(4), FACTS, {})
                assert archives.until(lambda v=value: v in seen)
            stop.set()
            for reader in readers:
                reader.result(30)
        assert seen == {0, 1, 2, 3}
        assert wanted[0].shape == GRID.shape


class TestPowerLoss:
    """FAULTS 34: markers are there, and what they speak of is not."""

    @pytest.mark.parametrize("harm", ["absent", "empty", "longer", "garbage", "marker"])
    def test_a_tile_that_is_not_whole_is_done_again(self, place, harm):
        staging = stage(place, a=1)
        for tile in range(4):
            write(staging, tile)
        shard = staging.path / "red" / "c" / "1" / "0"
        marker = place.area.path / staging.work / "tiles" / "2.json"
        {
            "absent": shard.unlink,
            "empty": lambda: shard.write_bytes(b""),
            "longer": lambda: shard.write_bytes(shard.read_bytes() + b"\0"),
            "garbage": lambda: shard.write_bytes(b"\0" * 99),
            "marker": lambda: marker.write_bytes(b"\0" * 100),
        }[harm]()
        found = target(place.output).find({"a": 1})
        assert {receipt["tile"] for receipt in found.done()} == {0, 1, 3}
        output = finish(found, tiles=[2])
        np.testing.assert_array_equal(store.stored(output)["red"], expected())

    def test_it_is_noticed_at_publishing_too(self, place):
        staging = stage(place, a=1)
        for tile in range(4):
            write(staging, tile)
        (staging.path / "red" / "c" / "1" / "0").write_bytes(b"")
        with pytest.raises(StoreError, match=r"1 of 4 tiles are not finished .*first: 2"):
            staging.publish(range(4), FACTS, {})
        assert not Path(place.output).exists()
        finish(staging, tiles=[2])

    def test_a_marker_that_cannot_be_read_does_not_count_at_publishing(self, place):
        """Or its tile would be taken for finished, and its shards for foreign ones."""
        staging = stage(place, a=1)
        for tile in range(4):
            write(staging, tile)
        staging.area.write(f"{staging.work}/tiles/2.json", b"")
        with pytest.raises(StoreError, match=r"1 of 4 tiles are not finished .*first: 2"):
            staging.publish(range(4), FACTS, {})
        output = finish(target(place.output).find({"a": 1}), tiles=[2])
        np.testing.assert_array_equal(store.stored(output)["red"], expected())

    def test_a_file_that_vanishes_meanwhile_is_no_matter(self, place, monkeypatch):
        """A worker of a killed driver still writes while the next driver looks around."""
        staging = stage(place, a=1)
        write(staging, 0)
        partial = staging.path / "red" / "c" / "0" / "1.0123.partial"
        sweep = LocalStaging.sweep

        def late(self):
            sweep(self)
            partial.write_bytes(b"half")

        def renamed(path, *arguments, real=os.stat, **options):
            if str(path) == str(partial):
                partial.unlink()
            return real(path, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStaging, "sweep", late)
            patch.setattr(os, "stat", renamed)
            found = target(place.output).find({"a": 1})
        assert {receipt["tile"] for receipt in found.done()} == {0}
        assert not partial.exists()

    def test_leftovers_of_killed_writers_are_swept(self, place):
        staging = stage(place, a=1)
        write(staging, 0)
        leftovers = [
            staging.path / "red" / "c" / "0" / "1.0123.partial",
            staging.path / ".note.1.part",
            place.area.path / staging.work / "tiles" / ".1.json.7.part",
        ]
        for path in leftovers:
            path.write_bytes(b"half")
        found = target(place.output).find({"a": 1})
        assert not any(path.exists() for path in leftovers)
        assert {receipt["tile"] for receipt in found.done()} == {0}
        for path in leftovers:
            path.write_bytes(b"half")
        output = finish(found, tiles=[1, 2, 3])
        assert not [name for name in archives.tree(output) if "part" in name]


class TestFullDisk:
    """FAULTS 10."""

    def test_a_full_disk_is_said_and_survived(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip("only root may mount a small disk")
        try:
            grid = Grid.from_bounds(0, 0, 10_240, 5120, "EPSG:32631", 10.0, 512)
            noise = np.random.default_rng(1).integers(0, 9999, (512, 512)).astype(np.int16)
            place = target(disk / "out.zarr")
            staging = place.create({"a": 1}, "run", {}, grid, VARIABLES[:1])
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * (1400 * 1024))
            staging.write(grid.tile_at(0), {"red": noise})
            staging.mark(0, {})
            with pytest.raises(StoreError, match=r"No space left.*free space there"):
                staging.write(grid.tile_at(1), {"red": noise})
            ballast.unlink()
            found = target(place.output).find({"a": 1})
            assert {receipt["tile"] for receipt in found.done()} == {0}
            found.write(grid.tile_at(1), {"red": noise})
            found.mark(1, {})
            assert store.verify(found.publish(range(2), FACTS, {})).ok
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_limit_on_files_is_said_and_survived(self, place):
        """As a quota: for users that may mount nothing."""
        staging = stage(place, a=1)
        write(staging, 0)
        code = (
            "import pickle, sys, resource; sys.path[:0] = sys.argv[2:]\n"
            "from staging import write\n"
            "staging = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
            "write(staging, 1)\n"
        )
        import pickle

        arguments = [pickle.dumps(staging).hex(), str(Path(__file__).parent)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert "StoreError: cannot write" in done.stderr
        assert "File too large; raise the limit" in done.stderr
        found = target(place.output).find({"a": 1})
        assert {receipt["tile"] for receipt in found.done()} == {0}
        finish(found, tiles=[1, 2, 3])
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200

    def test_a_read_only_store_is_said(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        staging = stage(target(disk / "out.zarr"), a=1)
        bound = subprocess.run(["mount", "--bind", disk, disk], capture_output=True, check=False)
        if bound.returncode:
            pytest.skip("only root may make a folder read-only for root")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", disk], check=True)
            with pytest.raises(StoreError, match=r"Read-only file system; make it writable"):
                write(staging, 0)
            with (
                pytest.raises(StoreError, match=r"Read-only file system; make it writable"),
                target(disk / "out.zarr").exclusive(),
            ):
                pass
        finally:
            subprocess.run(["umount", disk], check=True)
        finish(staging)


def test_two_writers_of_a_marker_are_not_in_each_others_way(tmp_path):
    """A tile and its twin, also on hosts where their processes have the same number."""
    path = tmp_path / "7.json"
    contents = [b"a" * 1000, b"b" * 3000]

    def write_often(content):
        for _ in range(100):
            write_atomic(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_often, contents))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_is_said(place, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("lcengine.store.area.fcntl.flock", flock)
    with pytest.raises(StoreError, match=r"cannot be locked: Function not.*flock"):
        place.exclusive().__enter__()


class TestPlaces:
    def test_the_folder_must_exist(self, tmp_path):
        with pytest.raises(StoreError, match="does not exist; create it first"):
            target(tmp_path / "nowhere" / "out.zarr")

    def test_a_link_of_somebody_else_is_left_alone(self, tmp_path):
        """To a large disk, say: publishing would silently replace it."""
        (tmp_path / "disk").mkdir()
        (tmp_path / "out.zarr").symlink_to("disk")
        with pytest.raises(StoreError, match="exists and is not a product"):
            target(tmp_path / "out.zarr")

    def test_opening_something_else_says_so(self, tmp_path):
        with pytest.raises(InputError, match=r"not a Zarr v3 product \(it has no zarr.json\)"):
            lcengine.open(tmp_path)

    @pytest.mark.parametrize(
        ("output", "said"),
        [
            ("gs://bucket/out.zarr", "unknown kind; expected a local path or s3://"),
            ("s3://bucket", "names no object; expected s3://bucket/folder/out.zarr"),
            ("s3://bucket/../out.zarr", "names no object"),
        ],
    )
    def test_other_addresses_are_refused(self, output, said):
        """FAULTS 42."""
        with pytest.raises(InputError, match=said):
            target(output)

    def test_other_kinds_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"store is 'hdf5', expected one of zarr, icechunk"):
            target(tmp_path / "out.zarr", "hdf5")

    @pytest.mark.parametrize(
        ("missing", "output", "kind"),
        [("obstore", "s3://bucket/out.zarr", None), ("icechunk", "out.zarr", "icechunk")],
    )
    def test_a_missing_library_is_named_with_the_remedy(self, tmp_path, missing, output, kind):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from lcengine.store import target\n"
            f"target({output!r}, {kind!r})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        extra = {"obstore": "object-store"}.get(missing, missing)
        assert f"needs {missing}" in done.stderr
        assert f"pip install 'lcengine[{extra}]'" in done.stderr


def test_markers_are_not_held_together(place):
    """A run of many tiles asks for them one by one."""
    staging = stage(place)
    receipt = write(staging, 0)
    marker = json.dumps({**receipt, "sizes": {}, "hashes": {}}).encode()
    for number in range(1, 50):
        place.area.write(f"{staging.work}/tiles/{number}.json", marker)
    reads = []

    class Counting(Folder):
        def read(self, name):
            reads.append(name)
            return super().read(name)

    staging.area = Counting(place.output)
    done = staging.done()
    assert reads == []
    next(done)
    assert len(reads) == 1


def test_differences():
    old = {"a": 1, "request": {"b": [1, 2], "c": {"d": 0}}, "e": None}
    assert differences(old, old) == []
    new = {"a": 1, "request": {"b": [1], "c": {"d": 1}}, "f": "x"}
    assert differences(new, old) == ["f: None -> 'x'", "b: [1, 2] -> [1]", "c.d: 0 -> 1"]
    (long,) = differences({"a": "x" * 500}, {"a": "y"})
    assert long.startswith("a: 'y' -> 'xxx")
    assert len(long) < 120
