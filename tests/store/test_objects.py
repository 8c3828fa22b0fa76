"""Object stores: the lease, create-only objects, and what is listed rather than asked for."""

from __future__ import annotations

import datetime as dt
import json
import time

import archives
import numpy as np
import obstore
import pytest
from places import backend_at
from staging import FACTS, expected, finish, stage, write

from lcengine import store
from lcengine.errors import InputError, StoreError
from lcengine.store import lease, objects

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def backend(tmp_path):
    return backend_at("s3", tmp_path)


class TestLease:
    """FAULTS 14."""

    def test_the_second_driver_is_told_who_and_until_when(self, backend):
        before = dt.datetime.now(dt.UTC)
        with backend.target.exclusive(), pytest.raises(StoreError) as caught:
            backend.target.exclusive().__enter__()
        said = str(caught.value)
        assert " process " in said
        until = dt.datetime.fromisoformat(said.partition(" until ")[2].partition(";")[0])
        assert 0 < (until - before).total_seconds() < lease.SECONDS + 5

    def test_an_expired_lease_is_taken_over_and_its_holder_stops(self, backend, monkeypatch):
        """A driver that was cut off comes back while another one works."""
        first = backend.target
        holding = first.exclusive()
        with monkeypatch.context() as patch:
            patch.setattr(lease, "SECONDS", 2.0)
            holding.__enter__()
            first.area.lease._stop.set()  # as a suspended process, it renews no more
            time.sleep(2.0)
        with pytest.raises(StoreError, match="could not be renewed in time"):
            stage(first)
        second = backend.target
        with second.exclusive():
            work = stage(second, a=1)
            for tile in range(4):
                write(work, tile)
            late = first.staging()
            with pytest.raises(StoreError, match="lost its lease"):
                late.publish(range(4), FACTS, {})
            with pytest.raises(StoreError, match="lost its lease"):
                stage(first, b=2)
            assert backend.target.published() is None
            found = second.find({"a": 1})
            assert len(list(found.done())) == 4
            finish(found, tiles=())
        holding.__exit__(None, None, None)
        assert store.verify(backend.output).ok

    def test_it_is_renewed_while_its_holder_lives(self, backend, monkeypatch):
        monkeypatch.setattr(lease, "SECONDS", 2.0)
        place = backend.target
        with place.exclusive():
            time.sleep(3.0)
            place.area.guard()
            with pytest.raises(StoreError, match="another run is writing"):
                backend.target.exclusive().__enter__()

    def test_a_lease_taken_by_another_is_noticed(self, backend, monkeypatch):
        monkeypatch.setattr(lease, "SECONDS", 4.0)
        place = backend.target
        with place.exclusive():
            work = stage(place)
            place.area.lease.until = 0.0
            work.accept(write(work, 0))  # nobody has taken it: a run goes on
            other = {"holder": "x", "token": "y", "until": time.time() + 60}
            obstore.put(place.area.store, lease.NAME, json.dumps(other).encode())
            assert archives.until(lambda: place.area.lease.lost, 10)
            with pytest.raises(StoreError, match="another run took it"):
                place.area.guard()
            with pytest.raises(StoreError, match="another run took it"):
                work.accept(write(work, 1))  # not only days later, at publishing
        held = json.loads(objects.get(place.area.store, lease.NAME))
        assert held == other  # not released by the one that lost it

    def test_of_two_that_take_over_one_wins(self, backend):
        first, second = backend.target, backend.target
        obstore.put(first.area.store, lease.NAME, b'{"holder": "x", "token": "y", "until": 0}')
        old = obstore.get(second.area.store, lease.NAME)
        with first.exclusive(), pytest.raises(obstore.exceptions.PreconditionError):
            obstore.put(second.area.store, lease.NAME, b"{}", mode={"e_tag": old.meta["e_tag"]})


class TestObjects:
    def test_nothing_is_visible_before_the_root(self, backend):
        """FAULTS 36: a bare reader finds no product, whatever lies there."""
        staging = stage(backend.target)
        for tile in range(4):
            write(staging, tile)
        assert "zarr.json" not in backend.files()
        assert len([key for key in backend.files() if "/c/" in key and key[:3] == "red"]) == 4
        finish(staging, tiles=())
        assert "zarr.json" in backend.files()

    def test_equal_bytes_are_left_and_others_replaced_while_the_work_counts(self, backend):
        """FAULTS 7."""
        place = backend.target
        staging = stage(place, a=1)
        write(staging, 0)
        product = objects.client(backend.output)
        before = obstore.head(product, "red/c/0/0")["last_modified"]
        write(staging, 0)
        assert obstore.head(product, "red/c/0/0")["last_modified"] == before
        backend.put("red/c/0/0", b"of a killed run")
        write(staging, 0)
        raw = staging.store()
        place.area.remove("staging.json")
        backend.put("red/c/0/1", b"of another run")
        with pytest.raises(StoreError, match="was written by another run"):
            objects.zarr.core.sync.sync(
                raw.set("red/c/0/1", objects.default_buffer_prototype().buffer.from_bytes(b"x"))
            )

    @pytest.mark.parametrize("harm", [None, b"", b"\0" * 99], ids=["absent", "empty", "garbage"])
    def test_a_tile_that_is_not_whole_is_done_again(self, backend, harm):
        """FAULTS 34."""
        staging = stage(backend.target, a=1)
        for tile in range(4):
            write(staging, tile)
        backend.put("red/c/1/0", harm)
        found = backend.target.find({"a": 1})
        assert {receipt["tile"] for receipt in found.done()} == {0, 1, 3}
        output = finish(found, tiles=[2])
        np.testing.assert_array_equal(store.stored(output)["red"], expected())
        assert store.verify(output).ok

    def test_shards_of_no_tile_are_removed_before_publishing(self, backend):
        staging = stage(backend.target, a=1)
        for tile in range(4):
            write(staging, tile)
        backend.put("red/c/7/7", b"late")
        finish(staging, tiles=())
        assert "red/c/7/7" not in backend.files()

    def test_many_markers_are_read_at_once(self, backend):
        """10,000 of them, one after the other, would take minutes."""
        staging = stage(backend.target)
        receipt = write(staging, 0)
        body = json.dumps({**receipt, "sizes": {}, "hashes": {}})
        for number in range(1, 70):
            staging.area.write(f"{staging.work}/tiles/{number}.json", body.encode())
        assert len(list(staging.done())) == 70
        assert len(staging.finished()) == 70
        staging.area.remove(staging.work)
        assert list(staging.done()) == []

    def test_a_missing_bucket_is_named_with_the_remedy(self):
        with pytest.raises(StoreError, match=r"s3://nowhere/out\.zarr cannot be used.*AWS_"):
            store.target("s3://nowhere/out.zarr").exclusive().__enter__()

    def test_a_path_that_lost_a_slash_is_understood(self, backend):
        assert store.target("s3:/products/x/out.zarr").output == "s3://products/x/out.zarr"
        with pytest.raises(InputError, match=r"s3://products/x/out\.zarr is not a Zarr v3 product"):
            store.open("s3:/products/x/out.zarr")
