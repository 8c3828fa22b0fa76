"""Plain imagery: folders of GeoTIFF, PNG and JPEG as cubes and composites, placed or not."""

from __future__ import annotations

import json
import warnings

import dask
import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

import lcengine
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.composite.tile import compute_tile
from lcengine.errors import AoiError, ContractError, InputError, MissingBandError
from lcengine.grid import Grid
from lcengine.items import Items
from lcengine.sensors import normalise

LEFT, TOP = 600_000.0, 5_600_000.0
RGB = ["red", "green", "blue"]


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def pixels(count=3, height=40, width=50, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 250, (count, height, width)).astype(dtype)


def write(path, values, *, placed=True, scale=None, tags=None, **profile):
    count, height, width = values.shape
    driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    where = {"crs": "EPSG:32631", "transform": from_origin(LEFT, TOP, 2, 2)} if placed else {}
    if driver == "JPEG":
        profile["quality"] = 95
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=count, height=height, width=width,
            dtype=values.dtype, **where, **profile,
        ) as file:  # fmt: skip
            file.write(values)
            if scale is not None:
                file.scales = [scale] * count
            if tags:
                file.update_tags(**tags)
    return path


def in_process(plan):
    """Every tile of a plan, put together."""
    out = {v.name: np.full(plan.grid.shape, v.missing, v.dtype) for v in plan.variables()}
    for number in plan.reads.tiles:
        result = compute_tile(plan, int(number))
        assert not result.failures
        for name, values in result.arrays.items():
            out[name][plan.grid.tile_at(int(number)).slices] = values
    return out


# ------------------------------------------------------------------------------------ with CRS


def test_a_folder_of_geotiffs_is_searched_and_loaded(tmp_path):
    first, second = pixels(seed=1), pixels(seed=2)
    write(tmp_path / "b_2018-04-01.tif", first, nodata=0)
    write(tmp_path / "a_20180501.tif", second, tags={"TIFFTAG_DATETIME": "2018:06:02 10:30:00"})
    (tmp_path / "notes.txt").write_text("no image")
    items = lcengine.search(tmp_path, collections=["rgb"])
    assert [item.id for item in items] == ["b_2018-04-01.tif", "a_20180501.tif"]
    assert [item.datetime.isoformat() for item in items] == [
        "2018-04-01T00:00:00+00:00",
        "2018-06-02T10:30:00+00:00",
    ]
    asset = items[0].asset("green")
    assert (asset.crs, asset.band, asset.unit, asset.nodata) == ("EPSG:32631", 2, "number", 0)
    assert asset.transform == (2, 0, LEFT, 0, -2, TOP)
    corners = Transformer.from_crs(32631, 4326, always_xy=True).transform(
        [LEFT, LEFT + 100], [TOP - 80, TOP]
    )
    west, south, east, north = items[0].bbox
    assert (west, east) == pytest.approx(corners[0], abs=1e-4)
    assert (south, north) == pytest.approx(corners[1], abs=1e-4)
    cube = lcengine.load(items, Grid.from_asset(asset), RGB)
    assert cube.dtype == np.int16
    assert cube.attrs["scale_factor"] == 1
    expected = np.where(first == 0, -32768, first.astype(np.int16))
    assert np.array_equal(cube.isel(time=0), expected)
    assert np.array_equal(cube.isel(time=1), second)


def test_a_composite_of_a_folder_equals_numpy(tmp_path):
    layers = [pixels(seed=i) for i in range(3)]
    for i, values in enumerate(layers):
        write(tmp_path / f"2018-04-0{i + 1}.tif", values)
    items = lcengine.search(tmp_path, collections=["rgb"])
    grid = Grid.from_asset(items[0].asset("red"), tile=32)
    spec = CompositeSpec(tuple(RGB), mask="none", outliers="none")
    found = in_process(plan_composite(items, grid, spec))
    expected = np.median(np.stack(layers), axis=0)
    for i, name in enumerate(RGB):
        assert np.array_equal(found[name], expected[i])
    cube = lcengine.composite(lcengine.load(items, grid, RGB), outliers="none")
    assert np.array_equal(cube["green"], found["green"])


def test_the_command_line_searches_a_folder(run, tmp_path):
    write(tmp_path / "2018-04-01.tif", pixels(4), photometric="MINISBLACK")
    code, out, _ = run("search", tmp_path, "-c", "rgbn", "--json")
    assert code == 0
    assert json.loads(out)["bands"] == ["blue", "green", "nir", "red"]


@pytest.mark.slow
def test_a_folder_becomes_a_product_and_a_stack(run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    values = pixels(4)
    write(images / "2018-04-01.tif", values, photometric="MINISBLACK")
    product = tmp_path / "out.zarr"
    code, _, said = run(
        "composite", images, "-o", product, "-c", "rgbn", "--mask", "none", "--outliers", "none",
        "--cluster", "local:workers=1,threads=1", "--bands", "red,nir",
    )  # fmt: skip
    assert code == 0, said
    opened = lcengine.open(product)
    assert np.array_equal(opened["nir"], values[3])
    grid = Grid.from_bounds(LEFT + 8, TOP - 60, LEFT + 68, TOP, 32631, 4, 16)
    stacked = lcengine.stack([opened], grid, resampling="average")
    assert list(stacked.data_vars)[:2] == ["rgbn_red", "rgbn_nir"]
    window = values[3, :30, 4:34].reshape(15, 2, 15, 2)
    assert np.array_equal(stacked["rgbn_nir"], window.mean(axis=(1, 3), dtype=np.float32))


def test_a_pattern_leaves_masks_out(tmp_path):
    for name in ("1_sat.jpg", "2_sat.jpg", "1_mask.png"):
        write(tmp_path / name, pixels(), placed=False)
    items = lcengine.search(tmp_path / "*_sat.jpg", collections=["rgb"])
    assert [item.id for item in items] == ["1_sat.jpg", "2_sat.jpg"]


def test_a_crs_needs_no_code(tmp_path):
    crs = "+proj=laea +lat_0=50.5 +lon_0=4.4 +datum=WGS84 +units=m"
    values = pixels()
    path = write(tmp_path / "a.tif", values)
    with rasterio.open(path, "r+") as file:
        file.crs = crs
    items = lcengine.search(tmp_path, collections=["rgb"])
    grid = Grid.from_asset(items[0].asset("red"), tile=16)
    assert grid.epsg is None
    assert np.array_equal(lcengine.load(items, grid, RGB)[0], values)


def test_colours_are_found_wherever_they_are(tmp_path):
    values = pixels(4)
    path = write(tmp_path / "a.tif", values, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        names = ("undefined", "blue", "green", "red")
        file.colorinterp = [rasterio.enums.ColorInterp[name] for name in names]
    item = lcengine.search(tmp_path, collections=["rgbn"])[0]
    assert {name: asset.band for name, asset in item.assets.items()} == {
        "red": 4,
        "green": 3,
        "blue": 2,
        "nir": 1,
    }


# --------------------------------------------------------------------------------- without CRS


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_image_without_crs_is_its_own_grid(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", pixels(), placed=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            expected = file.read()
    items = lcengine.search(tmp_path, collections=["rgb"])
    asset = items[0].asset("red")
    assert asset.transform == (1, 0, 0, 0, -1, 0)
    assert f"pixels of x{suffix}" in asset.crs
    assert items.epsgs == []
    grid = Grid.from_asset(asset, tile=16)
    assert grid.bounds == (0, -40, 50, 0)
    assert Grid.from_dict(grid.to_dict()) == grid
    cube = lcengine.load(items, grid, RGB)
    assert np.array_equal(cube[0], expected)
    assert np.array_equal(cube.x, np.arange(50) + 0.5)
    spec = CompositeSpec(tuple(RGB), mask="none", outliers="none")
    found = in_process(plan_composite(items, grid, spec))
    assert np.array_equal(np.stack([found[name] for name in RGB]), expected)
    stacked = lcengine.stack({"a": lcengine.composite(cube, outliers="none")}, grid)
    assert np.array_equal(stacked["a_green"], expected[1])
    items.save(tmp_path / "items.json")
    assert Items.load(tmp_path / "items.json") == items


@pytest.mark.slow
def test_one_image_without_crs_becomes_a_product(run, tmp_path):
    values = pixels()
    images = tmp_path / "images"
    images.mkdir()
    write(images / "x.png", values, placed=False)
    product = tmp_path / "out.zarr"
    code, _, said = run(
        "composite", images, "-o", product, "-c", "rgb", "--mask", "none", "--outliers", "none",
        "--cluster", "local:workers=1,threads=1",
    )  # fmt: skip
    assert code == 0, said
    opened = lcengine.open(product)
    assert np.array_equal(opened["blue"], values[2])
    code, _, said = run("export", product, tmp_path / "out.tif")
    assert code == 0, said


def test_one_file_is_a_folder_of_one(tmp_path):
    for name in ("x.png", "y.png", "odd[1].png"):
        write(tmp_path / name, pixels(), placed=False)
    for name in ("x.png", "odd[1].png"):
        found = lcengine.search(tmp_path / name, collections=["rgb"])
        assert [item.id for item in found] == [name]


def test_images_without_crs_are_not_mixed(run, tmp_path):
    write(tmp_path / "a.png", pixels(), placed=False)
    write(tmp_path / "b.png", pixels(), placed=False)
    items = lcengine.search(tmp_path, collections=["rgb"])
    grid = Grid.from_asset(items[0].asset("red"))
    with pytest.raises(InputError, match=r"no way from pixels of b\.png to pixels of a\.png"):
        lcengine.load(items, grid, RGB)
    with pytest.raises(InputError, match=r"no way from .* georeference"):
        lcengine.load(items[:1], Grid.from_bounds(LEFT, TOP - 80, LEFT + 100, TOP, 32631, 2), RGB)
    code, _, said = run("plan", tmp_path, "-c", "rgb", "--mask", "none", "--outliers", "none")
    assert code == InputError.exit_code
    assert "2 images without a CRS among its 2, which share no grid" in said


def test_a_geographic_request_of_images_without_crs_is_refused(tmp_path):
    write(tmp_path / "a.png", pixels(), placed=False)
    with pytest.raises(InputError, match=r"1 images without a CRS, such as a\.png, which no area"):
        lcengine.search(tmp_path, collections=["rgb"], bbox=(4, 50, 5, 51))
    item = lcengine.search(tmp_path, collections=["rgb"])[0]
    area = lcengine.Aoi.from_bbox((4, 50, 5, 51))
    with pytest.raises(AoiError, match="have no place on Earth"):
        Grid.from_aoi(area, crs=item.crs, resolution=1)
    with pytest.raises(AoiError, match="have no place on Earth"):
        Grid.from_asset(item.asset("red")).lonlat_bounds()


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_pixels_need_a_stated_scale(tmp_path, dtype):
    write(tmp_path / "a.tif", pixels(dtype=dtype))
    with pytest.raises(ContractError, match=f"band red is {dtype} without a scale"):
        lcengine.search(tmp_path, collections=["rgb"])
    write(tmp_path / "a.tif", pixels(dtype=dtype), scale=0.5)
    items = lcengine.search(tmp_path, collections=["rgb"])
    cube = lcengine.load(items, Grid.from_asset(items[0].asset("red")), RGB)
    assert np.array_equal(cube[0], np.rint(pixels() * 0.5))


def test_a_scale_that_leaves_nothing_is_refused(tmp_path):
    write(tmp_path / "a.tif", pixels(dtype=np.uint16), scale=1e-4)
    with pytest.raises(ContractError, match="leaves 7 whole numbers of uint16"):
        lcengine.search(tmp_path, collections=["rgb"])


def test_images_of_one_name_in_several_folders_are_all_kept(tmp_path):
    for folder in ("east", "west"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "image.png", pixels(seed=len(folder)), placed=False)
    items = lcengine.search(tmp_path / "*" / "image.png", collections=["rgb"])
    assert [item.id for item in items] == ["east/image.png", "west/image.png"]
    assert items.superseded == ()
    assert len({item.crs for item in items}) == 2  # pixels of two images are no neighbours


@pytest.mark.parametrize("name", ["a#1.png", "a?b.png", "a%20b.png", "a b.png", "ä.JPG"])
def test_names_of_files_are_just_names(tmp_path, name):
    plain = write(tmp_path / f"plain{name[-4:].lower()}", pixels(), placed=False)
    plain.rename(tmp_path / name)
    items = lcengine.search(tmp_path, collections=["rgb"])
    cube = lcengine.load(items, Grid.from_asset(items[0].asset("red")), ["red"])
    assert np.abs(cube.values[0, 0].astype(int) - pixels()[0]).mean() < 60


def test_a_link_is_the_file_it_is_called(tmp_path):
    # Stores of files by their content link x.png to a file called by its digest.
    (tmp_path / "store").mkdir()
    write(tmp_path / "store" / "plain.png", pixels(), placed=False)
    (tmp_path / "store" / "plain.png").rename(tmp_path / "store" / "0a1b2c")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").symlink_to(tmp_path / "store" / "0a1b2c")
    items = lcengine.search(tmp_path / "images", collections=["rgb"])
    cube = lcengine.load(items, Grid.from_asset(items[0].asset("red")), ["red"])
    assert np.array_equal(cube.values[0, 0], pixels()[0])


@pytest.mark.parametrize(
    ("name", "tag", "day"),
    [
        ("a.tif", "0000:00:00 00:00:00", "1970-01-01"),
        ("a.tif", "0001:01:01 00:00:00", "1970-01-01"),
        ("a_20180401.tif", "0000:00:00 00:00:00", "2018-04-01"),
        ("20180231.tif", "", "1970-01-01"),
        ("10471231.tif", "", "1970-01-01"),
        ("20180401.tif", "2017:05:06 10:00:00", "2017-05-06"),
    ],
)
def test_what_is_no_date_is_none(tmp_path, name, tag, day):
    write(tmp_path / name, pixels(), tags={"TIFFTAG_DATETIME": tag} if tag else None)
    (item,) = lcengine.search(tmp_path, collections=["rgb"])
    assert f"{item.datetime:%Y-%m-%d}" == day


def test_a_fourth_band_that_a_writer_called_alpha(tmp_path):
    write(tmp_path / "a.tif", pixels(4))
    with pytest.raises(ContractError, match=r"beside alpha .*gdal_edit.py -colorinterp_4 undefine"):
        lcengine.search(tmp_path, collections=["rgbn"])
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = (*file.colorinterp[:3], ColorInterp.undefined)
    (item,) = lcengine.search(tmp_path, collections=["rgbn"])
    assert item.asset("nir").band == 4


def test_the_near_infrared_is_what_the_file_calls_so(tmp_path):
    red, green, blue = ColorInterp.red, ColorInterp.green, ColorInterp.blue
    write(tmp_path / "a.tif", pixels(5))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = (red, green, blue, ColorInterp.rededge, ColorInterp.nir)
    (item,) = lcengine.search(tmp_path, collections=["rgbn"])
    assert {name: asset.band for name, asset in item.assets.items()}["nir"] == 5
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = (red, green, blue, ColorInterp.rededge, ColorInterp.swir)
    with pytest.raises(MissingBandError, match="has no band 'nir'"):
        lcengine.search(tmp_path, collections=["rgbn"])


def test_wrong_folders_and_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"neither catalog\.json nor images"):
        lcengine.search(tmp_path, collections=["rgb"])
    write(tmp_path / "a.tif", pixels())
    for wrong in ([], ["sentinel-2-l2a"], ["rgb", "rgbn"]):
        with pytest.raises(InputError, match="holds 1 images and no catalogue; say what they are"):
            lcengine.search(tmp_path, collections=wrong)
    with pytest.raises(ContractError, match=r"has 3 bands beside alpha .* expected 4 for rgbn"):
        lcengine.search(tmp_path, collections=["rgbn"])
    with pytest.raises(InputError, match="no reflectance"):
        lcengine.search(tmp_path, collections=["rgb"], offset=-0.1)
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(InputError, match=r"b\.png cannot be read as an image"):
        lcengine.search(tmp_path, collections=["rgb"])


def test_rasters_off_a_grid_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", pixels())
    with rasterio.open(path, "r+") as file:
        file.transform = rasterio.Affine(2, 1, LEFT, 1, -2, TOP)
    with pytest.raises(ContractError, match="expected north-up square pixels"):
        lcengine.search(tmp_path, collections=["rgb"])
    points = [rasterio.control.GroundControlPoint(r, c, c * 2.0, -r * 2.0)
              for r, c in ((0, 0), (0, 9), (9, 0))]  # fmt: skip
    path = tmp_path / "a.tif"
    path.unlink()
    write(path, pixels(), placed=False, gcps=points, crs="EPSG:32631")
    with pytest.raises(ContractError, match="ground control points and no grid"):
        lcengine.search(tmp_path, collections=["rgb"])


def test_an_item_without_named_bands_is_refused():
    item = {
        "id": "x",
        "collection": "rgb",
        "bbox": [0, 0, 1, 1],
        "properties": {"datetime": "2018-04-01T00:00:00Z"},
        "assets": {"image": {"href": "x.tif", "bands": [{"name": "red"}]}},
    }
    with pytest.raises(MissingBandError, match="has no band 'green' in its asset 'image'"):
        normalise(item)
