"""The product: staged tile by tile, published in one step, old or new but never in between."""

from __future__ import annotations

import json
import os
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import archives
import numpy as np
import pytest
import xarray as xr

import lcengine
from lcengine import engine, store
from lcengine.composite import plan_composite, run_composite
from lcengine.composite import run as driver
from lcengine.errors import InputError, RunError, StoreError
from lcengine.grid import Grid, Tile
from lcengine.store import Layout, Staging, Variable, differences, exclusive

VARIABLES = (
    Variable("red", "int16", -32768, "red", scale=1e-4, units="1"),
    Variable("count", "uint16", 65535, "observations"),
)
GRID = Grid.from_bounds(600_000, 5_599_520, 600_400, 5_600_000, "EPSG:32631", 10.0, 32)
"""48 rows and 40 columns: two by two tiles, three of them cropped."""


@pytest.fixture(scope="module")
def client():
    with engine.local_client(1, 2) as found:
        yield found


@pytest.fixture
def layout(tmp_path):
    layout = Layout.at(tmp_path / "out.zarr")
    layout.home.mkdir()
    return layout


def stage(layout, **request):
    return Staging.create(layout, request, "run", {"plan": 1}, GRID, VARIABLES)


def write(staging, tile, value=7):
    shape = (tile.height, tile.width)
    staging.write(
        tile, {"red": np.full(shape, value, np.int16), "count": np.full(shape, 1, np.uint16)}
    )
    staging.mark(tile.index, {"failures": []})


def finish(staging, value=7):
    for tile in GRID.tiles():
        write(staging, tile, value)
    return staging.publish(range(GRID.n_tiles), {"items": 0, "failed_reads": 0}, {"note": b"x"})


class TestTiles:
    def test_an_unwritten_tile_reads_as_fill(self, layout):
        """FAULTS 29: by explicit fill values, for everybody who opens the array."""
        staging = stage(layout)
        write(staging, GRID.tile_at(0))
        metadata = json.loads((staging.path / "red" / "zarr.json").read_text())
        assert metadata["fill_value"] == -32768
        assert metadata["attributes"]["_FillValue"] == -32768
        stored = archives.arrays(staging.path)
        inside = np.zeros(GRID.shape, bool)
        inside[:32, :32] = True
        np.testing.assert_array_equal(stored["red"], np.where(inside, 7, -32768))
        np.testing.assert_array_equal(stored["count"], np.where(inside, 1, 65535))
        decoded = xr.open_zarr(staging.path, consolidated=False, chunks=None)
        np.testing.assert_array_equal(np.isnan(decoded["red"].values), ~inside)
        np.testing.assert_array_equal(np.isnan(decoded["count"].values), ~inside)

    def test_an_all_nodata_tile_is_written(self, layout):
        """FAULTS 30: so that it differs from a missing one."""
        staging = stage(layout)
        tile = GRID.tile_at(3)
        write(staging, tile, value=-32768)
        assert (staging.path / "red" / "c" / "1" / "1").stat().st_size > 0
        assert not (staging.path / "red" / "c" / "0").exists()

    @pytest.mark.parametrize(
        ("tile", "shape"),
        [
            (GRID.tile_at(0), (32, 31)),
            (GRID.tile_at(3), (32, 32)),
            (Tile(0, 0, 0, 8, 0, 32, 32), (32, 32)),
            (Tile(0, 0, 0, 0, 0, 16, 32), (16, 32)),
            (Tile(9, 2, 0, 64, 0, 32, 32), (32, 32)),
        ],
        ids=["pixels", "uncropped", "misaligned", "part", "outside"],
    )
    def test_what_does_not_fill_a_tile_is_refused(self, layout, tile, shape):
        """FAULTS 31: before anything is written."""
        staging = stage(layout)
        with pytest.raises(StoreError, match=rf"tile {tile.index} of red is .*, expected "):
            staging.write(tile, {"red": np.zeros(shape, np.int16)})
        assert not (staging.path / "red" / "c").exists()

    def test_another_dtype_is_refused(self, layout):
        with pytest.raises(StoreError, match=r"red is float64.*expected int16"):
            stage(layout).write(GRID.tile_at(0), {"red": np.zeros((32, 32))})

    def test_the_hash_is_of_the_content(self, layout):
        staging = stage(layout)
        tile = GRID.tile_at(0)
        hashes = {
            staging.write(tile, {"red": np.full((32, 32), value, np.int16)}) for value in (1, 2, 1)
        }
        assert len(hashes) == 2

    def test_all_nodata_tiles_are_written_whatever_other_threads_do(self, layout):
        """A task that ends must not turn off what one still writing relies on."""
        staging = stage(layout)
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
    def test_an_unfinished_product_is_not_published(self, layout):
        staging = stage(layout)
        write(staging, GRID.tile_at(0))
        with pytest.raises(StoreError, match=r"3 of 4 tiles are not finished .*first: 1"):
            staging.publish(range(4), {}, {})
        assert not layout.output.exists()

    def test_a_product_is_a_link_to_its_version(self, layout):
        staging = stage(layout)
        output = finish(staging)
        assert output.is_symlink()
        assert output.resolve() == staging.path
        assert not staging.work.exists()
        assert not layout.staging_note.exists()
        assert (output / "note").read_bytes() == b"x"

    def test_the_metadata_are_consolidated_and_say_where_it_lies(self, layout):
        output = finish(stage(layout))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            product = lcengine.open(output)
        assert product["red"].dtype == np.float32
        assert product["count"].dtype == np.uint16
        assert product.rio.crs.to_epsg() == 32631
        assert product.rio.transform() == GRID.transform
        np.testing.assert_array_equal(product["x"], 600_000 + 10 * np.arange(40) + 5)
        np.testing.assert_array_equal(product["y"], 5_600_000 - 10 * np.arange(48) - 5)
        assert product["red"].values[0, 0] == np.float32(7e-4)

    def test_partial_files_of_killed_writers_are_swept(self, layout):
        staging = stage(layout)
        (staging.path / "red" / "c" / "0").mkdir(parents=True)
        (staging.path / "red" / "c" / "0" / "0.0123.partial").write_bytes(b"half")
        (staging.path / ".note.1.part").write_bytes(b"half")
        output = finish(staging)
        assert not [name for name in archives.tree(output) if "part" in name]

    def test_a_reader_keeps_its_version(self, layout):
        """FAULTS 36: old or new, never a mixture."""
        output = finish(stage(layout), value=1)
        old = lcengine.open(output)
        new = finish(stage(layout, again=True), value=2)
        assert set(old["red"].values.ravel()) == {np.float32(1e-4)}
        assert set(lcengine.open(new)["red"].values.ravel()) == {np.float32(2e-4)}

    def test_older_versions_are_swept(self, layout):
        for value in range(4):
            finish(stage(layout, value=value), value)
        versions = [path for path in layout.home.iterdir() if path.is_dir()]
        assert len(versions) == 2

    def test_a_bit_flip_is_detected(self, layout):
        """FAULTS 33: by the checksums of the codec and of the shard's index."""
        output = finish(stage(layout))
        shard = (output / "red" / "c" / "0" / "0").resolve()
        good = shard.read_bytes()
        for position in (len(good) // 3, len(good) - 12):
            bad = bytearray(good)
            bad[position] ^= 0x10
            shard.write_bytes(bad)
            with pytest.raises((RuntimeError, ValueError)):
                archives.arrays(output)
            with pytest.raises((RuntimeError, ValueError)):
                lcengine.open(output)["red"].values.sum()
        shard.write_bytes(good)
        assert archives.arrays(output)["red"][0, 0] == 7

    def test_killed_after_the_swap(self, layout, tmp_path):
        """The product is visible, its note not yet removed: neither rerun may harm it."""
        staging = stage(layout, a=1)
        for tile in GRID.tiles():
            write(staging, tile)
        shutil.copytree(staging.work, tmp_path / "work")
        shutil.copy(layout.staging_note, tmp_path / "note")
        output = staging.publish(range(4), {}, {})
        content = archives.tree(output)
        shutil.copytree(tmp_path / "work", staging.work)
        shutil.copy(tmp_path / "note", layout.staging_note)
        found = Staging.find(layout, {"a": 1})
        assert found == staging
        assert found.publish(range(4), {}, {}) == output
        assert archives.tree(output) == content
        shutil.copy(tmp_path / "note", layout.staging_note)
        fresh = stage(layout, b=2)  # --restart
        assert fresh.path != staging.path
        assert archives.tree(output) == content


class TestLayout:
    def test_anything_else_at_the_output_is_left_alone(self, tmp_path):
        (tmp_path / "out.zarr").mkdir()
        with pytest.raises(StoreError, match="not a product published by lcengine"):
            Layout.at(tmp_path / "out.zarr")

    def test_the_folder_must_exist(self, tmp_path):
        with pytest.raises(StoreError, match="does not exist; create it first"):
            Layout.at(tmp_path / "nowhere" / "out.zarr")

    def test_a_second_driver_is_refused(self, layout):
        """FAULTS 14."""
        with (
            exclusive(layout),
            pytest.raises(StoreError, match=r"another run is writing .*out\.zarr"),
            exclusive(layout),
        ):
            pass
        with exclusive(layout):
            pass

    def test_unfinished_work_is_found_by_the_output(self, layout):
        assert Staging.find(layout, {"a": 1}) is None
        staging = stage(layout, a=1)
        assert Staging.find(layout, {"a": 1}) == staging
        with pytest.raises(StoreError, match=r"a: 1 -> 2; b: None -> 3.*--restart"):
            Staging.find(layout, {"a": 2, "b": 3})

    def test_work_of_another_package_is_not_resumed(self, layout, monkeypatch):
        stage(layout, a=1)
        monkeypatch.setattr(lcengine, "__version__", "9.9.9")
        with pytest.raises(StoreError, match=r"package: .* -> '9\.9\.9'"):
            Staging.find(layout, {"a": 1})

    def test_opening_something_else_says_so(self, tmp_path):
        with pytest.raises(InputError, match=r"not a Zarr v3 product \(it has no zarr.json\)"):
            lcengine.open(tmp_path)


def test_differences():
    old = {"a": 1, "request": {"b": [1, 2], "c": {"d": 0}}, "e": None}
    assert differences(old, old) == []
    new = {"a": 1, "request": {"b": [1], "c": {"d": 1}}, "f": "x"}
    assert differences(new, old) == ["f: None -> 'x'", "b: [1, 2] -> [1]", "c.d: 0 -> 1"]


def named(name):
    return lambda path, *_: path.name == name


STEPS = {
    "the plan": (store, "_write_atomic", named("plan.json")),
    "the template": (store, "_template", lambda *_: True),
    "half of the template": (store, "_coordinate", lambda _group, name, *_: name == "y"),
    "the note": (store, "_write_atomic", named("staging.json")),
    "a tile": (store, "_check_fits", lambda _tile, name, *_: name == "count"),
    "a marker": (store, "_write_atomic", named("0.json")),
    "a sidecar": (store, "_write_atomic", named("failures.parquet")),
    "the consolidation": (store, "_consolidate", lambda *_: True),
    "the link": (Path, "symlink_to", lambda *_: True),
    "the swap": (os, "replace", lambda _, target: Path(target).name == "out.zarr"),
    "the note's removal": (Path, "unlink", named("staging.json")),
    "the work's removal": (shutil, "rmtree", lambda path: str(path).endswith(".work")),
}
"""What a run does to the disk, in its order."""
VISIBLE = ("the note's removal", "the work's removal")
"""Steps after the swap."""


class TestDying:
    """FAULTS 2 and 13: a run that dies at any step; the same command afterwards succeeds."""

    @pytest.fixture(scope="class")
    @classmethod
    def items(cls, tmp_path_factory):
        return archives.series(tmp_path_factory.mktemp("items") / "s", 2, ("blue",), 32, block=32)

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, items, tmp_path_factory):
        """The files of a product whose run did not die."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "_run_tiles", tiles_here)
            return archives.tree(command(items, tmp_path_factory.mktemp("good") / "out.zarr"))

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch):
        monkeypatch.setattr(driver, "_run_tiles", tiles_here)

    @pytest.mark.parametrize("older", [False, True], ids=["first", "restart"])
    @pytest.mark.parametrize("step", STEPS)
    def test_before(self, items, expected, tmp_path, monkeypatch, step, older):
        output = tmp_path / "out.zarr"
        before = None
        if older:
            before = archives.tree(command(items, output, "mean"))
            assert before != expected
        with monkeypatch.context() as patch:
            archives.dies(patch, *STEPS[step])
            with pytest.raises(OSError, match="No space left on device"):
                command(items, output, restart=older)
        shown = expected if step in VISIBLE else before
        version = output.resolve()
        seen = []

        def look():
            seen.append(archives.tree(output) if output.exists() else None)
            assert shown is None or lcengine.open(output)["blue"].notnull().all()

        def tiles_seen(*arguments):
            look()
            tiles_here(*arguments)

        look()
        monkeypatch.setattr(driver, "_run_tiles", tiles_seen)
        command(items, output, restart=older)
        assert all(tree == shown for tree in seen)
        assert archives.tree(output) == expected
        assert lcengine.open(output)["blue"].notnull().all()
        assert not Layout.at(output).staging_note.exists()
        assert len([p for p in Layout.at(output).home.iterdir() if p.is_dir()]) <= 2
        if step in VISIBLE and not older:
            assert output.resolve() == version

    @pytest.mark.parametrize("place", [".work", ""], ids=["work", "product"])
    def test_while_older_work_is_discarded(self, layout, monkeypatch, place):
        old = stage(layout, a=1)
        with monkeypatch.context() as patch:
            doomed = layout.home / f"{old.version}{place}"
            archives.dies(patch, shutil, "rmtree", lambda path: path == doomed)
            with pytest.raises(OSError, match="No space left on device"):
                stage(layout, b=2)
        output = finish(stage(layout, b=2))
        assert archives.arrays(output)["red"][0, 0] == 7
        assert [p.name for p in layout.home.iterdir() if p.is_dir()] == [output.resolve().name]


def command(items, output, method="median", **options):
    """A run over one tile, as the command line would ask for it."""
    grid = Grid.from_bounds(
        archives.LEFT, archives.TOP - 320, archives.LEFT + 320, archives.TOP,
        "EPSG:32631", 10.0, 32,
    )  # fmt: skip
    plan = plan_composite(items, grid, archives.spec("blue", method=method))
    return run_composite(plan, output, request={"method": method}, **options)


def tiles_here(plan, staging, _client, _listener):
    """The tiles of a run, computed in this process."""
    for number in plan.reads.tiles:
        if int(number) not in staging.done():
            driver.run_tile(str(staging.layout.output), staging.version, int(number))


class TestRuns:
    """The same promises through `run_composite`, with a cluster."""

    @pytest.fixture(scope="class")
    @classmethod
    def items(cls, tmp_path_factory):
        return archives.series(tmp_path_factory.mktemp("items") / "s", 3, ("blue",), 64, block=32)

    def plan(self, items, **changes):
        grid = Grid.from_bounds(
            archives.LEFT, archives.TOP - 640, archives.LEFT + 640, archives.TOP,
            "EPSG:32631", 10.0, 32,
        )  # fmt: skip
        return plan_composite(items, grid, archives.spec("blue", **changes))

    def test_the_arrays_are_those_of_the_tile_task(self, items, tmp_path, client):
        plan = self.plan(items)
        output = run_composite(plan, tmp_path / "out.zarr", client=client)
        expected, _ = archives.in_process(plan)
        stored = archives.arrays(output)
        assert set(stored) == set(expected)
        for name, pixels in expected.items():
            np.testing.assert_array_equal(stored[name], pixels)

    def test_a_published_request_is_not_run_again(self, items, tmp_path, client):
        output = run_composite(self.plan(items), tmp_path / "out.zarr", client=client)
        version = output.resolve()
        seen = []
        run_composite(self.plan(items), output, client=client, listener=seen.append)
        assert seen == []
        assert output.resolve() == version

    def test_a_changed_request_is_refused_with_the_difference(self, items, tmp_path, client):
        """FAULTS 35."""
        output = tmp_path / "out.zarr"

        def run(method, **options):
            plan = self.plan(items, method=method)
            return run_composite(plan, output, client=client, request={"method": method}, **options)

        run("median")
        with pytest.raises(StoreError, match=r"method: 'median' -> 'mean'.*--restart"):
            run("mean")
        content = archives.tree(output)
        assert archives.tree(run("mean", restart=True)) != content

    def test_a_failed_restart_leaves_the_old_product(self, items, tmp_path, client):
        """FAULTS 32."""
        output = run_composite(self.plan(items), tmp_path / "out.zarr", client=client)
        content = archives.tree(output)
        broken = replace(
            items,
            items=tuple(
                replace(i, assets={**i.assets, "blue": replace(i.asset("blue"), href="/nowhere")})
                for i in items
            ),
        )
        with pytest.raises(RunError, match="4 of 4 tiles failed"):
            run_composite(self.plan(broken), output, client=client, restart=True)
        assert archives.tree(output) == content
        assert lcengine.open(output)["blue"].notnull().all()
        run_composite(self.plan(items), output, client=client, restart=True)
        replaced = archives.tree(output)
        assert replaced == content

    def test_a_reader_during_the_run_sees_the_old_product(self, items, tmp_path, client):
        output = run_composite(self.plan(items), tmp_path / "out.zarr", client=client)
        content = archives.tree(output)
        seen = []
        run_composite(
            self.plan(items, method="mean"),
            output,
            client=client,
            restart=True,
            listener=lambda _: seen.append(archives.tree(output) == content),
        )
        assert len(seen) > 2
        assert all(seen)
        assert archives.tree(output) != content
