"""FAULTS 2 and 13: a run that dies at any step; the same command afterwards succeeds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import archives
import pytest

import lcengine
from lcengine import store
from lcengine.composite import plan_composite, run_composite
from lcengine.composite import run as driver
from lcengine.grid import Grid


def command(items, output, method="median", **options):
    """A run over one tile, as the command line would ask for it."""
    grid = Grid.from_bounds(
        archives.LEFT, archives.TOP - 320, archives.LEFT + 320, archives.TOP,
        "EPSG:32631", 10.0, 32,
    )  # fmt: skip
    plan = plan_composite(items, grid, archives.spec("blue", method=method))
    return run_composite(plan, output, request={"method": method}, **options)


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
