"""Imagery in a bucket, read by GDAL with the user's keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import archives
import numpy as np
import obstore
import pytest
import rasterio.session
from obstore.store import S3Store
from places import BUCKET

from lcengine.errors import ReadError
from lcengine.items import Access, Items
from lcengine.locate import Window
from lcengine.reader import handles, header, read_raw

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]


@pytest.fixture
def gdal_s3(aws, monkeypatch):
    """What GDAL needs to know of a server that is not Amazon's."""
    monkeypatch.setenv("AWS_S3_ENDPOINT", aws["AWS_ENDPOINT_URL"].removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    yield
    handles.close()


def refuse(*_, **__):
    """Nobody asks boto3 for keys: that takes longer than a read, and was done for each."""
    raise AssertionError("boto3 was asked")


def uploaded(items):
    """The same items with their files in the bucket."""
    bucket = S3Store(BUCKET)
    moved = []
    for item in items.items:
        assets = {}
        for name, asset in item.assets.items():
            key = f"imagery/{Path(asset.href).name}"
            obstore.put(bucket, key, Path(asset.href))
            assets[name] = replace(asset, href=f"s3://{BUCKET}/{key}")
        moved.append(replace(item, assets=assets))
    return Items(tuple(moved), Access())


@pytest.mark.usefixtures("gdal_s3")
class TestImagery:
    def test_is_what_was_put_there(self, tmp_path, monkeypatch):
        local = archives.series(tmp_path / "items", 2, ("blue",), 64, block=32)
        remote = uploaded(local)
        monkeypatch.setattr(rasterio.session.AWSSession, "__init__", refuse)
        window = Window(0, 0, 64, 64)
        for here, there in zip(local.items, remote.items, strict=True):
            wanted = read_raw(here.assets["blue"], local.access, window)
            found = read_raw(there.assets["blue"], remote.access, window)
            np.testing.assert_array_equal(found, wanted)
            assert header(there.assets["blue"], remote.access).block == (32, 32)

    def test_what_is_not_there_is_named_without_the_key(self, tmp_path, monkeypatch):
        monkeypatch.setattr("lcengine.reader.BACKOFF", 0.01)
        items = archives.series(tmp_path / "items", 1, ("blue",), 64, block=32)
        asset = replace(items.items[0].assets["blue"], href=f"s3://{BUCKET}/nowhere.tif")
        with pytest.raises(
            ReadError, match=rf"s3://{BUCKET}/nowhere\.tif could not be read"
        ) as told:
            read_raw(asset, Access(), Window(0, 0, 8, 8))
        assert "secret" not in str(told.value)
