"""The reader: any window, grid and dtype to int16 reflectance, or a named error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine

from lcengine import reader
from lcengine.errors import HrefError, InputError, ReadError
from lcengine.items import Access, Asset
from lcengine.locate import Lattice, Locator, SourceGrid, Window

LEFT, TOP, SIZE = 500_000.0, 5_600_000.0, 10.0
HEIGHT, WIDTH = 70, 90
LOCAL = Access(local=True)
PRODUCT = Lattice("EPSG:32631", LEFT, TOP, SIZE, SIZE)
NODATA = -32768


def write(path, pixels, driver="GTiff", epsg=32631, resolution=SIZE, **options):
    """A file and the asset that describes it; `pixels` (y, x) or (band, y, x)."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    profile = {
        "driver": driver,
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": f"EPSG:{epsg}",
        "transform": Affine(resolution, 0, LEFT, 0, -resolution, TOP),
    }
    with rasterio.open(path, "w", **profile, **options) as dataset:
        dataset.write(bands)
    return Asset(
        href=str(path),
        crs=f"EPSG:{epsg}",
        transform=(resolution, 0.0, LEFT, 0.0, -resolution, TOP),
        shape=bands.shape[1:],
        nodata=0.0,
        scale=1e-4,
        offset=-0.1,
        contract="test",
    )


def read(asset, window, product=PRODUCT, resampling="nearest"):
    out = np.full((window.height, window.width), 12345, np.int16)
    reader.read_band(asset, LOCAL, Locator(product, window), out, resampling)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def scene(folder):
    """A tiled uint16 file with gaps, saturation and dark pixels, and what it should read as."""
    rng = np.random.default_rng(0)
    dn = rng.integers(1, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
    dn[rng.random(dn.shape) < 0.1] = 0
    dn[3, 4], dn[60, 80], dn[5, 5] = 65535, 60_000, 1
    asset = write(folder / "scene.tif", dn, tiled=True, blockxsize=32, blockysize=16)
    values = np.clip(dn.astype(int) - 1000, -32767, 32767)
    values[(dn == 0) | (dn == 65535)] = NODATA
    return asset, oracle.Raster(values, 32631, LEFT, TOP, SIZE)


def expected(raster, window, product, resampling):
    return oracle.sample(raster, grid_of(window, product), resampling)


def grid_of(window, product):
    return oracle.Product(
        int(product.crs.removeprefix("EPSG:")),
        product.left + window.x0 * product.dx,
        product.top - window.y0 * product.dy,
        product.dx,
        window.height,
        window.width,
    )


windows = st.builds(
    Window,
    st.integers(-20, HEIGHT + 10),
    st.integers(-20, WIDTH + 10),
    st.integers(1, 50),
    st.integers(1, 50),
)


@settings(max_examples=60)
@given(window=windows)
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_aligned_windows(scene, window, resampling):
    """Inside, across every edge and beyond: a plain cut of the file, nodata around it."""
    asset, raster = scene
    padded = np.pad(raster.pixels, 100, constant_values=NODATA)
    y, x = window.y0 + 100, window.x0 + 100
    cut = padded[y : y + window.height, x : x + window.width]
    assert np.array_equal(read(asset, window, resampling=resampling), cut)


@settings(max_examples=60)
@given(
    window=windows,
    shift=st.tuples(*[st.sampled_from([0.0, 5.0, 3.7, -12.1])] * 2),
    resolution=st.sampled_from([10.0, 5.0, 20.0, 15.0, 7.3]),
    epsg=st.sampled_from([32631, 32630, 3035]),
    resampling=st.sampled_from(["nearest", "bilinear", "average"]),
)
def test_windows_off_the_grid(scene, window, shift, resolution, epsg, resampling):
    asset, raster = scene
    corner = {32631: (LEFT, TOP), 32630: (924_900, 5_617_280), 3035: (3_825_680, 3_072_560)}[epsg]
    product = Lattice(f"EPSG:{epsg}", corner[0] + shift[0], corner[1] + shift[1], *[resolution] * 2)
    want = expected(raster, window, product, resampling)
    assert np.array_equal(read(asset, window, product, resampling), want)


@pytest.mark.parametrize("epsg", [32631, 32630, 3035])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_a_pixel_does_not_depend_on_its_window(scene, epsg, resampling):
    asset, _ = scene
    corner = {32631: (LEFT - 3, TOP + 4), 32630: (924_900, 5_617_280), 3035: (3_825_680, 3_072_560)}
    product = Lattice(f"EPSG:{epsg}", *corner[epsg], 12.0, 12.0)
    whole = read(asset, Window(0, 0, 60, 80), product, resampling)
    assert (whole != NODATA).mean() > 0.2, "the window must lie on the scene"
    for y in range(0, 60, 7):
        for x in range(0, 80, 13):
            part = read(asset, Window(y, x, min(7, 60 - y), min(13, 80 - x)), product, resampling)
            assert np.array_equal(part, whole[y : y + 7, x : x + 13])


# ------------------------------------------------------------------------------------ backscatter


@pytest.fixture(scope="module", params=["power", "decibel"])
def backscatter(folder, request):
    """A file of radar backscatter with gaps, and its linear power."""
    rng = np.random.default_rng(5)
    power = 10 ** rng.uniform(-3, 0.5, (HEIGHT, WIDTH))
    gaps = rng.random(power.shape) < 0.1
    if request.param == "power":
        stored = np.where(gaps, -32768, power).astype(np.float32)
        stored[0, :3] = np.nan, 0, -0.001
        power, scale, nodata = stored.astype(float), 1.0, -32768.0
    else:
        stored = np.rint(np.log10(power) * 1e5).astype(np.int32)
        stored[stored % 100 == 50] += 1  # halves are the kernels' tests
        stored[gaps] = 0
        power, scale, nodata = 10 ** (stored * 1e-4 / 10), 1e-4, 0.0
    power[gaps | ~(power > 0)] = 0
    asset = write(folder / f"{request.param}.tif", stored, tiled=True, blockxsize=32, blockysize=16)
    asset = replace(asset, scale=scale, offset=0.0, nodata=nodata, unit=request.param)
    return asset, oracle.Raster(power, 32631, LEFT, TOP, SIZE)


@settings(max_examples=60)
@given(
    window=windows,
    shift=st.tuples(*[st.sampled_from([0.0, 5.0, 3.7, -12.1])] * 2),
    resolution=st.sampled_from([10.0, 5.0, 20.0, 15.0, 7.3]),
    epsg=st.sampled_from([32631, 32630, 3035]),
    resampling=st.sampled_from(["nearest", "bilinear", "average"]),
)
def test_backscatter_is_resampled_as_power(
    backscatter, window, shift, resolution, epsg, resampling
):
    asset, raster = backscatter
    corner = {32631: (LEFT, TOP), 32630: (924_900, 5_617_280), 3035: (3_825_680, 3_072_560)}[epsg]
    product = Lattice(f"EPSG:{epsg}", corner[0] + shift[0], corner[1] + shift[1], *[resolution] * 2)
    want = oracle.sample_power(raster, grid_of(window, product), resampling)
    assert np.array_equal(read(asset, window, product, resampling), want)


@pytest.mark.parametrize("resampling", ["bilinear", "average"])
def test_backscatter_does_not_depend_on_its_window(backscatter, resampling):
    asset, _ = backscatter
    product = Lattice("EPSG:32631", LEFT - 3, TOP + 4, 12.0, 12.0)
    whole = read(asset, Window(0, 0, 60, 80), product, resampling)
    assert (whole != NODATA).mean() > 0.5, "the window must lie on the scene"
    for y in range(0, 60, 7):
        for x in range(0, 80, 13):
            part = read(asset, Window(y, x, min(7, 60 - y), min(13, 80 - x)), product, resampling)
            assert np.array_equal(part, whole[y : y + 7, x : x + 13])


def test_the_mean_of_powers_is_not_that_of_decibels(folder):
    """0 and -10 dB: 10·log10(0.55) = -2.596 dB, not -5."""
    asset = write(folder / "checks.tif", np.tile([[1.0, 0.1], [0.1, 1.0]], (4, 4)).astype("f4"))
    asset = replace(asset, scale=1.0, offset=0.0, nodata=None, unit="power")
    coarse = replace(PRODUCT, dx=20.0, dy=20.0)
    assert (read(asset, Window(0, 0, 4, 4), coarse, "average") == -260).all()
    between = replace(PRODUCT, left=LEFT + 5, top=TOP - 5)
    assert (read(asset, Window(0, 0, 7, 7), between, "bilinear") == -260).all()
    assert read(asset, Window(0, 0, 1, 2)).tolist() == [[0, -1000]]


# ----------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_every_dtype_reads(folder, dtype, resampling):
    values = np.random.default_rng(2).integers(1, 250, (20, 24))
    asset = write(folder / f"{dtype}-{resampling}.tif", values.astype(dtype))
    asset = replace(asset, scale=1e-3, offset=0.0)
    got = read(asset, Window(-2, -3, 30, 30), resampling=resampling)
    assert np.array_equal(got[2:22, 3:27], values * 10)
    assert (got != NODATA).sum() == values.size


def test_not_a_number_and_infinity_are_nodata(folder):
    values = np.full((4, 5), 0.25, np.float32)
    values[0] = np.nan, np.inf, -np.inf, -9999, 0
    asset = write(folder / "float.tif", values)
    asset = replace(asset, scale=1.0, offset=0.0, nodata=-9999.0)
    got = read(asset, Window(0, 0, 4, 5))
    assert got[0].tolist() == [NODATA] * 4 + [0]
    assert (got[1:] == 2500).all()


def test_landsat_scaling_is_exact(folder):
    """Scale 2.75e-5 and offset -0.2: 11/40 of a DN minus 2000, ties to even."""
    dn = np.arange(1, 65535, dtype=np.uint16).reshape(-1, 2)
    asset = write(folder / "landsat.tif", dn)
    asset = replace(asset, scale=2.75e-5, offset=-0.2)
    got = read(asset, Window(0, 0, *dn.shape))
    want = oracle.half_even(11 * dn.astype(np.int64) - 80_000, 40)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("aligned", [True, False])
def test_saturated_missing_dark_and_bright(folder, aligned):
    dn = np.array([[65535, 65534, 0, 1], [999, 1000, 40_000, 33_767]], np.uint16)
    asset = write(folder / f"edges-{aligned}.tif", dn)
    product = PRODUCT if aligned else replace(PRODUCT, left=LEFT - 2.0, top=TOP + 2.0)
    got = read(asset, Window(0, 0, 2, 4), product)
    assert got.tolist() == [[NODATA, 32767, NODATA, -999], [-1, 0, 32767, 32767]]
    silent = read(replace(asset, nodata=None), Window(0, 0, 2, 4), product)
    assert silent.tolist() == [[NODATA, 32767, -1000, -999], [-1, 0, 32767, 32767]]


def test_band_of_a_multi_band_file(folder):
    values = np.random.default_rng(3).integers(1001, 5000, (4, 12, 9)).astype(np.uint16)
    asset = write(folder / "planet.tif", values, interleave="pixel")
    for band in (1, 3, 4):
        got = read(replace(asset, band=band), Window(0, 0, 12, 9))
        assert np.array_equal(got, values[band - 1].astype(int) - 1000)
    with pytest.raises(ReadError, match="has 4 bands, expected band 5"):
        read(replace(asset, band=5), Window(0, 0, 12, 9))


def test_jpeg_2000(folder):
    if not _writes_jp2(folder):
        pytest.skip("this GDAL cannot write JPEG 2000")
    dn = np.random.default_rng(4).integers(1, 9000, (80, 70)).astype(np.uint16)
    asset = write(folder / "s2.jp2", dn, driver="JP2OpenJPEG", quality=100, reversible="yes")
    got = read(asset, Window(-5, 10, 40, 80))
    assert np.array_equal(got[5:, :60], dn[:35, 10:].astype(int) - 1000)
    assert (got[:5] == NODATA).all()
    assert (got[:, 60:] == NODATA).all()


def _writes_jp2(folder):
    try:
        write(folder / "probe.jp2", np.ones((8, 8), np.uint16), driver="JP2OpenJPEG")
    except rasterio.errors.RasterioError:
        return False
    return True


# ----------------------------------------------------------------- files that are not as described


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (HEIGHT, WIDTH + 1)}, "has shape 70x90, its catalogue says 70x91"),
        ({"transform": (10.0, 0.0, LEFT + 10, 0.0, -10.0, TOP)}, "has transform"),
        ({"transform": (20.0, 0.0, LEFT, 0.0, -20.0, TOP)}, "has transform"),
        ({"crs": "EPSG:32632"}, "has CRS EPSG:32631, its catalogue says EPSG:32632"),
        ({"band": 2}, "has 1 bands, expected band 2"),
    ],
)
def test_a_file_unlike_its_catalogue_is_an_error(scene, change, message):
    asset = replace(scene[0], **change)
    product = replace(PRODUCT, crs=asset.crs)
    with pytest.raises(ReadError, match=message):
        read(asset, Window(0, 0, 10, 10), product)


def test_a_file_without_crs_is_an_error(folder):
    asset = write(folder / "bare.tif", np.ones((8, 8), np.uint16))
    with rasterio.open(asset.href, "r+") as dataset:
        dataset.crs = rasterio.CRS()
    with pytest.raises(ReadError, match="has CRS None, its catalogue says EPSG:32631"):
        read(asset, Window(0, 0, 4, 4))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.tif", b""),
        ("page.tif", b"<html><body>404 Not Found</body></html>"),
        ("disguise.tif", b"<VRTDataset rasterXSize='8' rasterYSize='8'></VRTDataset>"),
    ],
)
def test_what_is_no_tiff_is_an_error(folder, scene, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ReadError, match=name):
        read(replace(scene[0], href=str(folder / name)), Window(0, 0, 4, 4))


def test_a_truncated_file_is_an_error(folder, scene):
    whole = (folder / "scene.tif").read_bytes()
    (folder / "short.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match=r"short\.tif"):
        read(replace(scene[0], href=str(folder / "short.tif")), Window(0, 0, HEIGHT, WIDTH))


def test_a_missing_file_is_an_error(folder, scene):
    with pytest.raises(ReadError, match=r"gone\.tif could not be read: ") as caught:
        read(replace(scene[0], href=str(folder / "gone.tif")), Window(0, 0, 4, 4))
    assert caught.value.attempts == 1
    assert caught.value.href == str(folder / "gone.tif")


def test_a_remote_catalogue_cannot_name_local_files(scene):
    with pytest.raises(HrefError, match="local file named by a remote catalogue"):
        reader.gdal_path(scene[0].href, Access())


def test_a_rewritten_file_is_read_anew(folder):
    for value in (2000, 3000):
        pixels = np.full((8 + value // 1000, 8), value, np.uint16)
        asset = write(folder / "rewritten.tif", pixels)
        assert (read(asset, Window(0, 0, 8, 8)) == value - 1000).all()


# ----------------------------------------------------------------------------------------- others


def test_no_file_is_opened_where_none_is_needed(scene):
    far = replace(scene[0], href="/nowhere/at/all.tif")
    assert (read(far, Window(500, 500, 8, 8)) == NODATA).all()


def test_average_needs_one_kind_of_units():
    source = SourceGrid(Lattice("EPSG:4326", 3.0, 50.0, 1e-4, 1e-4), (9, 9))
    with pytest.raises(InputError, match="units differ"):
        reader.oversampling(PRODUCT, source)
    with pytest.raises(InputError, match="resampling is 'cubic'"):
        reader.check_resampling("cubic")


def test_handles_are_bounded(scene):
    pool = reader.Handles(limit=2)
    opened = []
    for _ in range(2):
        with (
            pool.borrow(scene[0], LOCAL) as a,
            pool.borrow(scene[0], LOCAL) as b,
            pool.borrow(scene[0], LOCAL) as c,
        ):
            opened += [a, b, c]
            assert len({id(a), id(b), id(c)}) == 3, "a dataset is lent to one user at a time"
    distinct = {id(dataset): dataset for dataset in opened}.values()
    assert len(distinct) == 4, "two were kept for the second round"
    assert [dataset.closed for dataset in distinct].count(False) == 2
