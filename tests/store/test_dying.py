"""FAULTS 2 and 13: a driver that dies at any step; the same command afterwards succeeds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import archives
import icechunk
import numpy as np
import obstore
import pytest
from places import KINDS, backend_at
from staging import FACTS, expected, stage, write

import lcengine
from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.store import staged, template, tiles
from lcengine.store.area import Folder
from lcengine.store.bucket import BucketStaging
from lcengine.store.icechunk import IcechunkStaging
from lcengine.store.local import LocalStaging
from lcengine.store.objects import Prefix


def drive(backend, value, restart=False):
    """What a driver does, its tiles computed here."""
    place = backend.target
    with place.exclusive():
        if restart:
            place.replaceable()
        elif place.published() is not None and place.unfinished() is None:
            return backend.output
        staging = None if restart else place.find({"value": value})
        if staging is None:
            staging = stage(place, value=value)
        done = {marker["tile"] for marker in staging.done()}
        for tile in {*range(4)} - done:
            staging.accept(write(staging, tile, value))
            staging.flush()
        return staging.publish(range(4), FACTS, {"note": b"x"})


def named(end):
    return lambda _, name, *__: name.endswith(end)


def always(*_):
    return True


def shared(kind, area):
    """Steps of every back end, in their order."""
    return {
        "the plan": (area, "write", named("plan.json")),
        "the room": (kind, "begin", always),
        "the template": (staged, "create_template", always),
        "half of the template": (template, "_coordinate", lambda _, name, *__: name == "y"),
        "its settling": (kind, "settle", always),
        "the note": (area, "write", named(staged.NOTE)),
        "a tile": (tiles, "check_fits", lambda _, name, *__: name == "count"),
        "the table": (staged, "tile_table", always),
        "a sidecar": (kind, "put_sidecar", lambda _, __, name, *___: name == "note"),
        "the note's removal": (area, "remove", named(staged.NOTE)),
        "the work's removal": (area, "remove", named(".work")),
    }


def by_name(end):
    return lambda path, *_: str(path).endswith(end)


LOCAL = {
    **shared(LocalStaging, Folder),
    "a marker": (Folder, "write", named("0.json")),
    "the consolidation": (staged, "consolidate", always),
    "the link": (Path, "symlink_to", always),
    "the swap": (os, "replace", lambda _, target: Path(target).name == "out.zarr"),
    "the removal of the work's files": (shutil, "rmtree", by_name(".work")),
}
S3 = {
    **shared(BucketStaging, Prefix),
    "a marker": (Prefix, "write", named("0.json")),
    "the consolidation": (staged, "consolidate", always),
    "the root": (obstore, "put", lambda _, key, *__: key == "zarr.json"),
}
ICECHUNK = {
    **shared(IcechunkStaging, Folder),
    "a commit": (icechunk.Session, "commit", lambda _, text, *__: text == "1 tiles"),
    "the tag": (icechunk.Repository, "create_tag", always),
    "the move": (icechunk.Repository, "reset_branch", always),
    "the branch's removal": (icechunk.Repository, "delete_branch", always),
    "the collection": (icechunk.Repository, "garbage_collect", always),
}
ICECHUNK_S3 = {name: ICECHUNK[name] for name in ("a commit", "the move")}
CASES = [
    (kind, step, older)
    for kind, steps in zip(KINDS, (LOCAL, S3, ICECHUNK, ICECHUNK_S3), strict=True)
    for step in steps
    for older in ((False,) if kind == "s3" else (False, True))
]
VISIBLE = {
    "the note's removal",
    "the work's removal",
    "the removal of the work's files",
    "the branch's removal",
    "the collection",
}
"""Steps after the product became visible."""


@pytest.mark.usefixtures("environment")
class TestDying:
    @pytest.fixture(scope="class")
    @classmethod
    def undisturbed(cls, tmp_path_factory):
        """The files of a product whose run did not die."""
        backend = backend_at("local", tmp_path_factory.mktemp("good"))
        drive(backend, 2)
        return backend.files()

    @pytest.mark.parametrize(("kind", "step", "older"), CASES)
    def test_before(self, undisturbed, tmp_path, monkeypatch, kind, step, older):
        backend = backend_at(kind, tmp_path)
        if older:
            drive(backend, 1)
        steps = dict(zip(KINDS, (LOCAL, S3, ICECHUNK, ICECHUNK_S3), strict=True))[kind]
        with monkeypatch.context() as patch:
            archives.dies(patch, *steps[step])
            with pytest.raises((OSError, StoreError), match="No space left on device"):
                drive(backend, 2, restart=older)
        if step in VISIBLE:
            np.testing.assert_array_equal(store.stored(backend.output)["red"], expected(2))
        elif older:
            np.testing.assert_array_equal(store.stored(backend.output)["red"], expected(1))
        else:
            with pytest.raises(InputError):
                lcengine.open(backend.output)
        drive(backend, 2, restart=older and backend.target.unfinished() is None)
        np.testing.assert_array_equal(store.stored(backend.output)["red"], expected(2))
        if backend.kind is None:
            assert backend.files() == undisturbed
        assert store.verify(backend.output).ok
        place = backend.target
        assert place.unfinished() is None
        if step not in VISIBLE:
            assert not [name for name in place.area.folders() if name.endswith(".work")]

    @pytest.mark.parametrize("part", [".work", ""], ids=["work", "product"])
    def test_while_older_work_is_discarded(self, tmp_path, monkeypatch, part):
        place = backend_at("local", tmp_path).target
        old = stage(place, a=1)
        with monkeypatch.context() as patch:
            doomed = place.area.path / f"{old.version}{part}"
            archives.dies(patch, shutil, "rmtree", lambda path: path == doomed)
            with pytest.raises(StoreError, match="No space left on device"):
                stage(place, b=2)
        backend = backend_at("local", tmp_path)
        drive(backend, 2)
        np.testing.assert_array_equal(store.stored(backend.output)["red"], expected(2))
        assert place.area.folders() == [Path(backend.output).resolve().name]
