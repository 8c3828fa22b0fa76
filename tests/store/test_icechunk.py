"""Icechunk repositories: tiles and done-list in one commit, versions that stay readable."""

from __future__ import annotations

import icechunk
import numpy as np
import pytest
import zarr
from places import backend_at
from staging import expected, finish, stage, write

from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.store import icechunk as backend_module


@pytest.fixture
def backend(tmp_path):
    return backend_at("icechunk", tmp_path)


def repository(backend):
    return icechunk.Repository.open(icechunk.local_filesystem_storage(backend.output))


def test_a_tile_and_its_receipt_are_one_commit(backend):
    """A driver that dies before a commit leaves neither."""
    staging = stage(backend.target, a=1)
    staging.accept(write(staging, 0))
    staging.flush()
    staging.accept(write(staging, 1))
    found = backend.target.find({"a": 1})
    assert {receipt["tile"] for receipt in found.done()} == {0}
    group = zarr.open_group(found.store(), mode="r")
    assert (group["red"][:32, 32:] == -32768).all()
    output = finish(found, tiles=(1, 2, 3))
    np.testing.assert_array_equal(store.stored(output)["red"], expected())


def test_many_tiles_are_one_commit(backend, monkeypatch):
    monkeypatch.setattr(backend_module, "BATCH", 3)
    staging = stage(backend.target, a=1)
    commits = []
    for tile in range(4):
        staging.accept(write(staging, tile))
        history = repository(backend).ancestry(branch=staging.version)
        commits.append([commit.message for commit in history][:-2])
    assert commits == [[], [], ["3 tiles"], ["3 tiles"]]
    staging.flush()
    assert len(list(staging.done())) == 4


def test_the_replaced_version_stays_readable_and_older_ones_go(backend):
    tags = []
    for value in (1, 2, 3):
        staging = stage(backend.target, value=value)
        finish(staging, value)
        tags.append(staging.version)
    repo = repository(backend)
    assert repo.list_tags() == set(tags[1:])
    assert repo.list_branches() == {"main"}
    for tag, value in zip(tags[1:], (2, 3), strict=True):
        group = zarr.open_group(repo.readonly_session(tag=tag).store, mode="r")
        np.testing.assert_array_equal(group["red"], expected(value))


def test_what_nobody_can_read_is_collected(backend):
    staging = stage(backend.target, value=1)
    finish(staging, 1)
    before = len([key for key in backend.files() if key.startswith("chunks/")])
    for value in range(2, 5):
        discarded = stage(backend.target, value=value)
        discarded.accept(write(discarded, 0))
        discarded.flush()
    finish(stage(backend.target, value=9), 9)
    after = len([key for key in backend.files() if key.startswith("chunks/")])
    assert after == 2 * before


def test_a_branch_moved_by_another_is_not_overwritten(backend):
    """Whoever publishes moves `main` from where it was, and from nowhere else."""
    finish(stage(backend.target, value=1), 1)
    repo = repository(backend)
    first = list(repo.ancestry(branch="main"))[-1].id
    with pytest.raises(icechunk.IcechunkError, match="conflict"):
        repo.reset_branch("main", first, from_snapshot_id=first)


def test_a_repository_without_a_product_says_so(backend):
    stage(backend.target)
    with pytest.raises(InputError, match="no published product yet"):
        store.open(backend.output)
    with pytest.raises(StoreError, match="exists and is not a product"):
        store.target(backend.output, "zarr")
