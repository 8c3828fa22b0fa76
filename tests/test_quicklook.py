"""Pictures: the right size, nodata transparent, one stretch that shows something."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from PIL import Image

from lcengine import quicklook
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.periods import PeriodRule
from lcengine.store import Variable, target

HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """red, green, blue, nir of a ramp from west to east; the northern rows are nodata."""
    place = target(tmp_path_factory.mktemp("product") / "out.zarr")
    grid = Grid.from_bounds(
        600_000, 5_600_000 - HEIGHT * 10, 600_000 + WIDTH * 10, 5_600_000, "EPSG:32631", 10.0, 64
    )
    bands = ("blue", "green", "red", "nir")
    variables = [Variable(b, "int16", -32768, b, scale=1e-4, units="1") for b in bands]
    variables.append(Variable("count", "uint16", 65535, "count"))
    staging = place.create({}, "run", {}, grid, variables)
    ramp = np.tile(np.arange(WIDTH) * 50, (HEIGHT, 1))
    arrays = {b: (ramp + 200 * i).astype(np.int16) for i, b in enumerate(bands)}
    for pixels in arrays.values():
        pixels[:10] = -32768
    arrays["count"] = np.full((HEIGHT, WIDTH), 3, np.uint16)
    staging.write(grid.tile_at(0), arrays)
    staging.mark(0, {"failures": []})
    return staging.publish([0], {"items": 0, "failed_reads": 0}, {})


@pytest.fixture(scope="module")
def monthly(tmp_path_factory):
    """Ramps of two months; `red_p10` and so on only in June. Float extras hold NaN."""
    place = target(tmp_path_factory.mktemp("monthly") / "out.zarr")
    grid = Grid.from_bounds(0, 0, WIDTH * 10, HEIGHT * 10, "EPSG:32631", 10.0, 64)
    bands = [f"{b}_{m}" for m in ("median", "p10") for b in ("blue", "green", "red")]
    variables = [Variable(b, "int16", -32768, b, scale=1e-4, units="1") for b in bands]
    variables.append(Variable("score", "float32", None, "score"))
    moments = [dt.datetime(2023, month, 1, tzinfo=dt.UTC) for month in (5, 7)]
    periods = PeriodRule.parse("month").periods(moments[0], moments[0] + dt.timedelta(40))
    staging = place.create({}, "run", {}, grid, variables, periods)
    ramp = np.tile(np.arange(WIDTH) * 50, (2, HEIGHT, 1)).astype(np.int16)
    ramp[0, :10], ramp[1, 20:] = -32768, -32768
    arrays = dict.fromkeys(bands, ramp)
    arrays["red_p10"] = np.where(ramp == -32768, ramp, 9000)
    arrays["score"] = np.where(ramp == -32768, np.nan, ramp / 5000).astype(np.float32)
    staging.write(grid.tile_at(0), arrays)
    staging.mark(0, {"failures": []})
    return staging.publish([0], {"items": 0, "failed_reads": 0}, {})


def picture(product, path, **options):
    shape = quicklook.draw(product, path, **options)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "RGBA"
        assert (image.height, image.width) == shape
        return np.asarray(image)


def test_colour_by_default(product, tmp_path):
    seen = picture(product, tmp_path / "q.png")
    assert seen.shape == (HEIGHT, WIDTH, 4)
    assert set(seen[:10, :, 3].ravel()) == {0}
    assert set(seen[10:, :, 3].ravel()) == {255}
    red = seen[20, :, 0].astype(int)
    assert (np.diff(red) >= 0).all()
    assert red.min() < 30
    assert red.max() == 255
    # red is the brightest of the three everywhere: a common stretch keeps it so
    assert (seen[10:, 10:50, 0] > seen[10:, 10:50, 2]).all()


def test_one_band_is_grey(product, tmp_path):
    seen = picture(product, tmp_path / "q.png", bands=["nir"])
    np.testing.assert_array_equal(seen[..., 0], seen[..., 1])
    np.testing.assert_array_equal(seen[..., 0], seen[..., 2])
    assert len(np.unique(seen[20, :, 0])) > 30


def test_large_products_are_thinned(product, tmp_path):
    assert picture(product, tmp_path / "q.png", size=20).shape == (10, 16, 4)
    assert picture(product, tmp_path / "q.png", size=1).shape == (1, 1, 4)


def test_all_nodata_is_transparent():
    assert not quicklook.colour(np.full((3, 4, 5), np.nan, np.float32)).any()


def test_a_constant_is_drawn():
    seen = quicklook.colour(np.full((1, 4, 5), 0.25, np.float32))
    assert set(seen[..., 3].ravel()) == {255}


def test_a_picture_can_borrow_the_stretch_of_another():
    dark = np.linspace(0, 0.1, 20, dtype=np.float32).reshape(1, 4, 5)
    bright = dark + 1
    assert (quicklook.colour(bright, like=dark)[..., 0] == 255).all()


class TestPeriods:
    """Products with a time axis and with several methods."""

    def test_one_is_drawn(self, monthly, tmp_path):
        for time, rows in (("2023-05", slice(10, None)), ("2023-06", slice(0, 20))):
            seen = picture(monthly, tmp_path / "q.png", time=time)
            assert seen.shape == (HEIGHT, WIDTH, 4)
            assert set(seen[rows, :, 3].ravel()) == {255}
            assert (seen[..., 3] == 255).sum() == WIDTH * (30 if time == "2023-05" else 20)
            # by default the colours of the first method, whose red is no plane
            np.testing.assert_array_equal(seen[..., 0], seen[..., 2])

    def test_bands_of_a_method_by_name(self, monthly, tmp_path):
        names = ["red_p10", "green_p10", "blue_p10"]
        seen = picture(monthly, tmp_path / "q.png", time="2023-05", bands=names)
        assert set(seen[10:, :, 0].ravel()) == {255}

    def test_floats_without_a_scale(self, monthly, tmp_path):
        seen = picture(monthly, tmp_path / "q.png", time="2023-05", bands=["score"])
        assert set(seen[:10, :, 3].ravel()) == {0}
        assert len(np.unique(seen[20, :, 0])) > 30

    def test_which_one_must_be_said(self, monthly, product, tmp_path):
        with pytest.raises(InputError, match=r"has 2 periods; .*--time: 2023-05, 2023-06"):
            quicklook.draw(monthly, tmp_path / "q.png")
        with pytest.raises(InputError, match=r"no period '2023'; .*--time: 2023-05, 2023-06"):
            quicklook.draw(monthly, tmp_path / "q.png", time="2023")
        with pytest.raises(InputError, match="'2023-05' is asked for, and the product has no"):
            quicklook.draw(product, tmp_path / "q.png", time="2023-05")


@pytest.mark.parametrize("bands", [["swir16"], ["red", "green"], ["red", "green", "x"]])
def test_wrong_bands_are_refused(product, tmp_path, bands):
    with pytest.raises(InputError, match=f"bands are {', '.join(bands)}; expected one or three of"):
        quicklook.draw(product, tmp_path / "q.png", bands=bands)


def test_a_size_below_one_is_refused(product, tmp_path):
    with pytest.raises(InputError, match="size is 0, expected at least 1 pixel"):
        quicklook.draw(product, tmp_path / "q.png", size=0)
