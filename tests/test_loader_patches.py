"""Samples straight from the shards: what zarr itself answers, and damage is named."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from sample_stores import S1, S2, sample_arrays, write_samples
from zarr.codecs import BytesCodec, ZstdCodec

from lcengine.errors import InputError, StoreError
from lcengine.store import patches as module
from lcengine.store.patches import ShardRows, ZarrRows, readers

COUNT = 21  # the last shard is not full


@pytest.fixture(scope="module", params=[1, 4])
def place(request, tmp_path_factory):
    arrays = sample_arrays(COUNT, 6)
    arrays["s2"][8:16] = S2.fill  # a shard that is not written
    arrays["s1"][5] = np.nan
    arrays["label"][0:4] = 255
    path = tmp_path_factory.mktemp("rows") / "samples.zarr"
    return write_samples(path, arrays, part=8, chunk=request.param), arrays


def read(reader, numbers):
    numbers = np.asarray(numbers, np.int64)
    out = np.full((len(numbers), *reader.shape[1:]), 77, reader.dtype)
    reader.read(numbers, out)
    return out


@given(numbers=st.lists(st.integers(0, COUNT - 1), max_size=40))
def test_equals_zarr(place, numbers):
    path, arrays = place
    group = zarr.open_group(path, mode="r")
    for name, reader in readers(path).items():
        assert isinstance(reader, ShardRows)
        expected = group[name].oindex[np.array(numbers, np.int64)] if numbers else arrays[name][:0]
        np.testing.assert_array_equal(read(reader, numbers), expected)
        np.testing.assert_array_equal(read(ZarrRows(group[name]), numbers), expected)


def test_absent_shards_and_chunks_are_fill(place):
    path, _ = place
    assert not (path / "s2/c/1/0/0/0").exists()
    assert (read(readers(path)["s2"], np.arange(8, 16)) == S2.fill).all()
    assert np.isnan(read(readers(path)["s1"], [5])).all()
    assert (read(readers(path)["label"], [3, 0]) == 255).all()


def test_what_a_store_is_read_with(tmp_path):
    arrays = sample_arrays(4, 6)
    path = write_samples(tmp_path / "samples.zarr", arrays, part=2)
    assert {type(reader) for reader in readers(path).values()} == {ShardRows}
    group = zarr.open_group(path)
    foreign = {"shards": None, "chunks": (1, 6, 6)}, {"shards": (4, 6, 6), "chunks": (1, 3, 6)}
    for layout in foreign:
        group.create_array(
            "label", shape=(4, 6, 6), dtype="u1", overwrite=True, fill_value=255, **layout
        )[...] = arrays["label"]
        assert isinstance(readers(path)["label"], ZarrRows)
        np.testing.assert_array_equal(read(readers(path)["label"], [3, 1]), arrays["label"][[3, 1]])


def test_other_codecs_are_left_to_zarr(tmp_path):
    path = write_samples(tmp_path / "samples.zarr", sample_arrays(2, 6), part=2)
    layout = {"shape": (2, 6, 6), "shards": (2, 6, 6), "chunks": (1, 6, 6), "dtype": "u2"}
    other = (
        {"compressors": ()},
        {"compressors": ZstdCodec(), "serializer": BytesCodec(endian="big")},
    )
    for codecs in other:
        array = zarr.open_group(path).create_array(
            "label", overwrite=True, fill_value=255, **layout, **codecs
        )
        array[...] = np.arange(72).reshape(2, 6, 6)
        assert isinstance(readers(path)["label"], ZarrRows)


def test_numbers_and_memory_are_checked(place):
    reader = readers(place[0])["label"]
    for number in (-1, COUNT):
        with pytest.raises(InputError, match=f"sample {number} is asked for, expected 0 to 20"):
            read(reader, [0, number])
    for out in (
        np.empty((2, 6, 6), "u1"),
        np.empty((1, 6, 6), "i2"),
        np.empty((1, 6, 12), "u1")[:, :, ::2],
    ):
        with pytest.raises(InputError, match="expected C-contiguous uint8"):
            reader.read(np.array([0]), out)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_damage_is_named(tmp_path):
    arrays = sample_arrays(8, 6)
    path = write_samples(tmp_path / "samples.zarr", arrays, (S2, S1), part=8)
    shard = path / "s2/c/0/0/0/0"
    whole = shard.read_bytes()
    flip(shard, 40)
    with pytest.raises(StoreError, match=r"s2/c/0/0/0/0 is damaged \(chunk 0: .*verify"):
        read(readers(path)["s2"], [0])
    np.testing.assert_array_equal(read(readers(path)["s2"], [7]), arrays["s2"][[7]])
    shard.write_bytes(whole)
    flip(shard, -10)
    with pytest.raises(StoreError, match="the checksum of its index is wrong"):
        read(readers(path)["s2"], [7])
    shard.write_bytes(whole[-20:])
    with pytest.raises(StoreError, match="it has 20 bytes, its index alone takes 132"):
        read(readers(path)["s2"], [7])
    shard.write_bytes(whole[100:])  # a whole index, chunks cut off
    with pytest.raises(StoreError, match="is damaged"):
        read(readers(path)["s2"], np.arange(8))


def test_a_version_that_is_swept_is_no_fill(tmp_path):
    path = write_samples(tmp_path / "samples.zarr", sample_arrays(8, 6))
    reader = readers(path)["s2"]
    path.rename(tmp_path / "moved.zarr")
    with pytest.raises(StoreError, match=r"is gone: .* open it again"):
        read(reader, [0])


def test_shards_and_chunks_kept_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 2)
    monkeypatch.setattr(module, "CACHE", 0)
    arrays = sample_arrays(40, 6)
    for chunk in (1, 2):
        path = write_samples(tmp_path / f"{chunk}.zarr", arrays, part=4, chunk=chunk)
        reader = readers(path)["s1"]
        order = np.random.default_rng(0).permutation(40)
        for _ in range(2):
            np.testing.assert_array_equal(read(reader, order), arrays["s1"][order])
        assert len(reader._shards) == 2
        assert len(reader._slots) == (0 if chunk == 1 else 4)


def test_each_chunk_of_a_window_is_decoded_once_by_many_threads(tmp_path, monkeypatch):
    decoded = []
    decode = module.Shard.decode

    def counted(self, chunk, out):
        decoded.append((self.path, chunk))
        return decode(self, chunk, out)

    monkeypatch.setattr(module.Shard, "decode", counted)
    arrays = sample_arrays(64, 6)
    reader = readers(write_samples(tmp_path / "s.zarr", arrays, part=32, chunk=4))["s2"]
    found = {}

    def work(seed):
        order = np.random.default_rng(seed).permutation(64)
        found[seed] = np.array_equal(read(reader, order), arrays["s2"][order])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(6), True)
    assert len(decoded) == len(set(decoded)) == 16
