"""Exported rasters: the stored numbers bit for bit, cloud optimised, whole or not there."""

from __future__ import annotations

import datetime as dt
import json
import resource
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.enums import ColorInterp

from lcengine import cli, export
from lcengine.errors import InputError, StoreError
from lcengine.grid import Grid
from lcengine.periods import parse_periods
from lcengine.store import Variable, target

BANDS = ("blue", "green", "red", "nir")
SCALED = tuple(Variable(b, "int16", -32768, b, scale=1e-4, units="1") for b in BANDS)
COUNT = Variable("count", "uint16", 65535, "observations")
RNG = np.random.default_rng(3)


def grid(height, width, tile):
    return Grid.from_bounds(
        600_000, 5_600_000 - height * 10, 600_000 + width * 10, 5_600_000, 32631, 10.0, tile
    )


def publish(folder, where, arrays, variables, periods=()):
    """A product of whole arrays, and the arrays."""
    place = target(folder / "out.zarr")
    staging = place.create({}, "run-1", {}, where, variables, periods)
    for tile in where.tiles():
        staging.write(tile, {name: a[(..., *tile.slices)] for name, a in arrays.items()})
        staging.mark(tile.index, {"failures": []})
    facts = {"items": 0, "failed_reads": 0}
    return staging.publish(range(where.n_tiles), facts, {}), arrays


def reflectance(shape):
    pixels = RNG.integers(-500, 12_000, shape).astype(np.int16)
    pixels[..., :7, :] = -32768
    return pixels


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """1300 x 1100 pixels in tiles of 512: one overview would not do."""
    where = grid(1300, 1100, 512)
    arrays = {b: reflectance(where.shape) for b in BANDS}
    arrays["count"] = RNG.integers(0, 30, where.shape).astype(np.uint16)
    return publish(tmp_path_factory.mktemp("flat"), where, arrays, (*SCALED, COUNT))


@pytest.fixture(scope="module")
def monthly(tmp_path_factory):
    """Three months of red and nir, in tiles that the raster's blocks do not fit."""
    months = parse_periods(
        "month", dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 6, 1, tzinfo=dt.UTC)
    )
    where = grid(100, 130, 48)
    arrays = {b: reflectance((3, *where.shape)) for b in ("red", "nir")}
    arrays["count"] = RNG.integers(0, 30, (3, *where.shape)).astype(np.uint16)
    variables = (SCALED[2], SCALED[3], COUNT)
    return publish(tmp_path_factory.mktemp("deep"), where, arrays, variables, months)


@pytest.fixture
def classes(tmp_path):
    """A land-cover map as CF writes one: codes, names and colours."""

    def make(**changes):
        path = tmp_path / "classes.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=3)
        group.attrs.update(
            {
                "proj:code": "EPSG:32631",
                "proj:wkt2": grid(1, 1, 16).crs_wkt,
                "spatial:transform": [10.0, 0.0, 600_000.0, 0.0, -10.0, 5_600_000.0],
                "lcengine": {"variables": ["map"], "package": "1", "run_id": "run-1"},
            }
        )
        codes = np.repeat(np.array([10, 20, 20, 255], np.uint8), 300)
        pixels = np.tile(codes, (600, 1))
        attributes = {
            "_FillValue": 255,
            "flag_values": [10, 20, 80],
            "flag_meanings": "tree_cover shrubland water",
            "flag_colors": "#006400 #ffbb22 #0064C8",
            **changes,
        }
        array = group.create_array(
            "map",
            shape=pixels.shape,
            dtype="uint8",
            chunks=(512, 512),
            fill_value=255,
            dimension_names=("y", "x"),
            attributes={k: v for k, v in attributes.items() if v is not None},
        )
        array[:] = pixels
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(path)
        return path, pixels

    return make


def is_cloud_optimised(path):
    """By GDAL's word, and by the header that lies before the first directory."""
    with rasterio.open(path) as file:
        said = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        blocks = set(file.block_shapes)
    ghost = path.read_bytes()[:300]
    return (
        said == "COG"
        and blocks == {(export.BLOCK, export.BLOCK)}
        and b"LAYOUT=IFDS_BEFORE_DATA" in ghost
        and b"BLOCK_ORDER=ROW_MAJOR" in ghost
    )


def left_over(output):
    """Everything beside the output, which hides the product's own folder."""
    return sorted(p.name for p in output.parent.iterdir() if p != output)


class TestBands:
    @pytest.mark.parametrize("compress", ["deflate", "zstd"])
    def test_pixels_and_what_they_mean(self, product, tmp_path, compress):
        path, arrays = product
        output = tmp_path / "out.tif"
        assert export.export(path, output, compress=compress) == BANDS
        assert is_cloud_optimised(output)
        with rasterio.open(output) as file:
            for band, name in enumerate(BANDS, start=1):
                np.testing.assert_array_equal(file.read(band), arrays[name])
            assert file.dtypes == ("int16",) * 4
            assert file.descriptions == BANDS
            assert file.scales == (1e-4,) * 4
            assert file.offsets == (0.0,) * 4
            assert file.nodata == -32768
            assert file.crs == rasterio.CRS.from_epsg(32631)
            assert file.transform == rasterio.Affine(10, 0, 600_000, 0, -10, 5_600_000)
            assert file.compression.value == compress.upper()
            assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
            assert file.tags()["run_id"] == "run-1"
            assert file.tags()["TIFFTAG_SOFTWARE"].startswith("lcengine ")
        assert left_over(output) == []

    def test_viewers_show_red_as_red(self, product, tmp_path):
        export.export(product[0], tmp_path / "out.tif")
        with rasterio.open(tmp_path / "out.tif") as file:
            assert [c.name for c in file.colorinterp] == ["blue", "green", "red", "undefined"]

    def test_overviews_are_means_of_the_valid_pixels(self, product, tmp_path):
        path, arrays = product
        export.export(path, tmp_path / "out.tif", bands=["nir"])
        with rasterio.open(tmp_path / "out.tif") as file:
            assert file.overviews(1) == [2, 4]
            assert file.colorinterp == (ColorInterp.gray,)
        with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
            half = file.read(1)
            assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        quads = arrays["nir"].astype(float).reshape(650, 2, 550, 2)
        quads[quads == -32768] = np.nan
        known = np.isfinite(quads).any(axis=(1, 3))
        means = np.nanmean(quads[3:], axis=(1, 3))
        np.testing.assert_array_equal(half == -32768, ~known)
        assert np.abs(half[3:] - means).max() <= 0.5

    def test_qa_by_name_and_nearest(self, product, tmp_path):
        path, arrays = product
        assert export.export(path, tmp_path / "out.tif", bands=["count"]) == ("count",)
        with rasterio.open(tmp_path / "out.tif") as file:
            np.testing.assert_array_equal(file.read(1), arrays["count"])
            assert (file.nodata, file.scales, file.dtypes) == (65535, (1.0,), ("uint16",))
        with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
            half = file.read(1)
        quads = arrays["count"].reshape(650, 2, 550, 2)
        assert (half[:, None, :, None] == quads).any(axis=(1, 3)).all()

    def test_the_order_is_the_users(self, product, tmp_path):
        path, arrays = product
        order = ["red", "green", "blue"]
        assert export.export(path, tmp_path / "out.tif", bands=order) == tuple(order)
        with rasterio.open(tmp_path / "out.tif") as file:
            np.testing.assert_array_equal(file.read(), np.stack([arrays[b] for b in order]))
            assert [c.name for c in file.colorinterp] == order

    def test_an_older_raster_is_replaced(self, product, tmp_path):
        output = tmp_path / "out.tif"
        output.write_bytes(b"old")
        export.export(product[0], output, bands=["red"])
        assert is_cloud_optimised(output)

    def test_floats_keep_nan_as_nodata(self, tmp_path):
        where = grid(600, 40, 48)
        values = RNG.normal(size=where.shape).astype(np.float32)
        values[:5] = np.nan
        variables = (Variable("emad", "float32", None, "EMAD"),)
        path, _ = publish(tmp_path, where, {"emad": values}, variables)
        export.export(path, tmp_path / "out.tif")
        with rasterio.open(tmp_path / "out.tif") as file:
            np.testing.assert_array_equal(file.read(1), values)
            assert np.isnan(file.nodata)
            assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
            half = file.read(1)
        means = np.nanmean(values[4:].reshape(298, 2, 20, 2), axis=(1, 3))
        np.testing.assert_allclose(half[2:], means, rtol=1e-5, atol=1e-6)


class TestPeriods:
    def test_all_of_them_by_default(self, monthly, tmp_path):
        path, arrays = monthly
        names = export.export(path, tmp_path / "out.tif")
        months = ("2018-04", "2018-05", "2018-06")
        assert names == tuple(f"{b}_{month}" for month in months for b in ("red", "nir"))
        with rasterio.open(tmp_path / "out.tif") as file:
            assert file.descriptions == names
            for band, name in enumerate(names, start=1):
                variable, month = name.split("_")
                expected = arrays[variable][months.index(month)]
                np.testing.assert_array_equal(file.read(band), expected)
                assert file.tags(band)["period"] == month

    @pytest.mark.parametrize("which", ["2018-05", "1", 1])
    def test_one_by_name_or_number(self, monthly, tmp_path, which):
        path, arrays = monthly
        assert export.export(path, tmp_path / "out.tif", time=which) == ("red", "nir")
        with rasterio.open(tmp_path / "out.tif") as file:
            np.testing.assert_array_equal(file.read(2), arrays["nir"][1])
            assert file.tags(1)["period"] == "2018-05"

    @pytest.mark.parametrize("which", ["2018-07", "3", -1])
    def test_another_is_refused_with_the_list(self, monthly, tmp_path, which):
        says = f"time is {which!r}, expected 0 to 2 or a period: 2018-04, 2018-05, 2018-06"
        with pytest.raises(InputError, match=says):
            export.export(monthly[0], tmp_path / "out.tif", time=which)

    def test_a_product_without_periods_has_none_to_choose(self, product, tmp_path):
        with pytest.raises(InputError, match="none of the bands has periods"):
            export.export(product[0], tmp_path / "out.tif", time="2018-04")


class TestClasses:
    def test_have_a_colour_table_and_names(self, classes, tmp_path):
        path, pixels = classes()
        output = tmp_path / "map.tif"
        assert export.export(path, output) == ("map",)
        assert is_cloud_optimised(output)
        with rasterio.open(output) as file:
            np.testing.assert_array_equal(file.read(1), pixels)
            table = file.colormap(1)
            assert {code: table[code] for code in (10, 20, 80)} == {
                10: (0x00, 0x64, 0x00, 255),
                20: (0xFF, 0xBB, 0x22, 255),
                80: (0x00, 0x64, 0xC8, 255),
            }
            assert file.colorinterp == (ColorInterp.palette,)
            assert file.nodata == 255
            assert file.tags(1)["flag_values"] == "10 20 80"
            assert file.tags(1)["flag_meanings"] == "tree_cover shrubland water"
            assert "PREDICTOR" not in file.tags(ns="IMAGE_STRUCTURE")

    def test_overviews_have_no_other_classes(self, classes, tmp_path):
        path, pixels = classes()
        export.export(path, tmp_path / "map.tif")
        with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
            np.testing.assert_array_equal(file.read(1), pixels[::2, ::2])
            assert file.colormap(1)[20] == (0xFF, 0xBB, 0x22, 255)

    def test_without_colours_they_are_codes(self, classes, tmp_path):
        path, pixels = classes(flag_colors=None)
        export.export(path, tmp_path / "map.tif")
        with rasterio.open(tmp_path / "map.tif") as file:
            np.testing.assert_array_equal(file.read(1), pixels)
            assert file.colorinterp == (ColorInterp.gray,)

    @pytest.mark.parametrize(
        "changes",
        [{"flag_colors": "#006400 #ffbb22"}, {"flag_colors": "#006400 #fb2 #0064c8"}],
        ids=["too few", "too short"],
    )
    def test_bad_colours_are_refused(self, classes, tmp_path, changes):
        with pytest.raises(InputError, match="expected one #rrggbb for each of its 3 flag_values"):
            export.export(classes(**changes)[0], tmp_path / "map.tif")
        assert not (tmp_path / "map.tif").exists()


class TestRefusals:
    def test_bands_of_different_types(self, product, tmp_path):
        says = r"different dtypes \(red int16, count uint16\); export them to separate files"
        with pytest.raises(InputError, match=says):
            export.export(product[0], tmp_path / "out.tif", bands=["red", "count"])
        assert left_over(tmp_path / "out.tif") == []

    def test_bands_of_different_nodata(self, tmp_path):
        where = grid(20, 20, 32)
        variables = (Variable("a", "uint8", 0, "a"), Variable("b", "uint8", 255, "b"))
        arrays = {name: np.ones(where.shape, np.uint8) for name in "ab"}
        path, _ = publish(tmp_path, where, arrays, variables)
        with pytest.raises(InputError, match=r"different nodata values \(a 0, b 255\)"):
            export.export(path, tmp_path / "out.tif")

    @pytest.mark.parametrize("bands", [["swir16"], ["red", "x"], []])
    def test_unknown_bands(self, product, tmp_path, bands):
        with pytest.raises(InputError, match="expected some of blue, green, red, nir, count"):
            export.export(product[0], tmp_path / "out.tif", bands=bands)

    def test_names_of_no_raster(self, product, tmp_path):
        for name in ("out.zarr", "out", "folder.tif"):
            (tmp_path / "folder.tif").mkdir(exist_ok=True)
            with pytest.raises(InputError, match=r"expected the name of a file such as out\.tif"):
                export.export(product[0], tmp_path / name)
        with pytest.raises(InputError, match="does not exist; create it first"):
            export.export(product[0], tmp_path / "absent" / "out.tif")

    def test_what_is_no_product_or_compression(self, product, tmp_path):
        with pytest.raises(InputError, match="is not a Zarr v3 product"):
            export.export(tmp_path, tmp_path / "out.tif")
        with pytest.raises(InputError, match="compress is 'lzw', expected one of deflate, zstd"):
            export.export(product[0], tmp_path / "out.tif", compress="lzw")


@contextmanager
def files_up_to(size):
    """Files may not grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFaults:
    @pytest.mark.parametrize("stage", ["pixels", "overviews", "copy"])
    def test_a_full_disk(self, product, tmp_path, monkeypatch, stage):
        output = tmp_path / "out.tif"
        output.write_bytes(b"old")
        blocks = len(BANDS) * 3 * 3 * 2 * export.BLOCK**2
        size = {"pixels": blocks // 2, "overviews": blocks + blocks // 20, "copy": blocks // 4}
        patched = rasterio.shutil if stage == "copy" else export
        name = "copy" if stage == "copy" else "_write_plain"
        original = getattr(patched, name)

        def short_of_space(*args, **options):
            with files_up_to(size[stage]):
                return original(*args, **options)

        monkeypatch.setattr(patched, name, short_of_space)
        with pytest.raises(StoreError, match=r"out\.tif could not be written \("):
            export.export(product[0], output)
        assert output.read_bytes() == b"old"
        assert left_over(output) == []

    def test_a_kill_leaves_the_old_raster_and_the_next_run_cleans_up(self, product, tmp_path):
        output = tmp_path / "out.tif"
        output.write_bytes(b"old")
        code = (
            "import sys, time, rasterio.shutil; from lcengine.export import export\n"
            "rasterio.shutil.copy = lambda *a, **k: (print('here', flush=True), time.sleep(60))\n"
            "export(sys.argv[1], sys.argv[2])"
        )
        arguments = [sys.executable, "-c", code, product[0], output]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline() == "here\n"
            with pytest.raises(StoreError, match=r"another export is writing .*out\.tif"):
                export.export(product[0], output, bands=["red"])
            running.send_signal(signal.SIGKILL)
        assert output.read_bytes() == b"old"
        assert left_over(output) == [".out.tif.part"]
        export.export(product[0], output, bands=["red"])
        assert is_cloud_optimised(output)
        assert left_over(output) == []


MEMORY = """
import resource, sys
import lcengine.export as export, lcengine.store as store
store.open(sys.argv[1])["red"][:8, :8].values
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
export.export(sys.argv[1], sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_product(tmp_path):
    """Two bands, of 8 and then 128 MiB each: the pixels alone would take 240 MiB more."""
    peaks = []
    for edge in (2048, 8192):
        folder = tmp_path / str(edge)
        folder.mkdir()
        where = grid(edge, edge, 2048)
        pixels = reflectance((2048, 2048))
        variables = SCALED[2:]
        place = target(folder / "out.zarr")
        staging = place.create({}, "run", {}, where, variables)
        for tile in where.tiles():
            staging.write(tile, {v.name: pixels for v in variables})
            staging.mark(tile.index, {"failures": []})
        path = staging.publish(range(where.n_tiles), {"items": 0, "failed_reads": 0}, {})
        arguments = [sys.executable, "-c", MEMORY, path, folder / "out.tif"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert max(peaks) < 256 * 2**20
    assert peaks[1] - peaks[0] < 128 * 2**20


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch, capsys):
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

        def command(*arguments):
            monkeypatch.setattr(sys, "argv", ["lcengine", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            said = capsys.readouterr()
            return stop.value.code or 0, said.out, said.err

        return command

    def test_writes_and_reports(self, run, monthly, tmp_path):
        output = tmp_path / "out.tif"
        code, out, err = run(
            "export", monthly[0], output, "--bands", "nir, red", "--time", "2018-06", "--json",
            "--compress", "zstd",
        )  # fmt: skip
        assert code == 0, err
        size = output.stat().st_size
        assert json.loads(out) == {"raster": str(output), "bands": ["nir", "red"], "bytes": size}

    def test_errors_are_one_line(self, run, monthly, tmp_path):
        code, out, err = run("export", monthly[0], tmp_path / "out.tif", "--time", "2019")
        assert (code, out) == (InputError.exit_code, "")
        assert err.startswith("error: time is '2019', expected 0 to 2 or a period: 2018-04")
        assert len(err.splitlines()) == 1
        code, _, err = run("export", monthly[0], tmp_path / "out.tif", "--compress", "lzw")
        assert (code, err) == (2, "error: compress is 'lzw', expected one of deflate, zstd\n")
