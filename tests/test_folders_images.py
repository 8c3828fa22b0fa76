"""Folders of images with masks, and DeepGlobe's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from source_contract import SourceContract

from lcengine.classmap import save_classes
from lcengine.errors import InputError
from lcengine.imagefile import unplaced
from lcengine.legends import IGNORE, Entry, Legend, legend, save_style
from lcengine.locate import Window
from lcengine.samples import folders
from lcengine.samples.folders import open_folder, pixels

DEEPGLOBE = {  # Demir et al. 2018, table of colours, in the order of lcengine's indices
    "urban": (0, 255, 255),
    "agriculture": (255, 255, 0),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
    "unknown": (0, 0, 0),
}
WALL = Legend(
    "wall",
    "wall",
    (Entry(0, "none", "#000000"), Entry(7, "roof", "#ff0000"), Entry(9, "road", "#0000ff")),
    "made up",
    ignored=(0,),
)
UTM = "EPSG:32631"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def tiff(path, values, crs=None, transform=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    place = {"crs": crs, "transform": transform} if crs else {}
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands}
    names = options.pop("names", ())
    profile |= {"dtype": values.dtype, **place, **options}
    with unplaced(), rasterio.open(path, "w", **profile) as file:
        file.write(values)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)


def deepglobe(root, edge, ids=(119, 606), folder="train"):
    """Pairs in the published layout; classes (id → edge x edge, 0 … 6)."""
    colours = np.array(list(DEEPGLOBE.values()), np.uint8)
    classes = {}
    for i in ids:
        classes[i] = np.random.default_rng(i).integers(0, 7, (edge, edge))
        # Without subsampled colours, which decoders of JPEG interpolate in their own ways.
        picture(root / folder / f"{i}_sat.jpg", noise(edge, edge, 3, seed=i), subsampling=0)
        picture(root / folder / f"{i}_mask.png", colours[classes[i]])
    return classes


class TestDeepGlobeContract(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        deepglobe(tmp_path, 40)
        return open_folder("deepglobe", tmp_path)


class TestImageContract(SourceContract):
    """GeoTIFF images in UTM with PNG masks of codes."""

    @pytest.fixture(params=["GTiff", "tiled", "PNG"])
    def source(self, tmp_path, request):
        for i, edge in enumerate((37, 64)):
            name = f"fields/{i}"
            if request.param == "PNG":
                picture(tmp_path / "images" / f"{name}.png", noise(edge, edge, 3, seed=i))
            else:
                options = {"tiled": True, "blockxsize": 16, "blockysize": 16}
                values = noise(4, edge, edge, seed=i).astype(np.uint16) * 9
                place = Affine(2, 0, 6e5 + 500 * i, 0, -2, 5e6)
                path = tmp_path / "images" / f"{name}.tif"
                tiff(path, values, UTM, place, **(options if request.param == "tiled" else {}))
            codes = np.random.default_rng(i).choice([0, 7, 9], (edge, edge)).astype(np.uint8)
            picture(tmp_path / "masks" / f"{name}.png", codes)
        return open_folder("images", tmp_path, legend=WALL)


@pytest.mark.parametrize("mask", ["colours", "codes"])
def test_transparent_pixels_of_masks_are_ignored(tmp_path, mask):
    """Their colour or code is that of a class: of masks in colours as lcengine writes them."""
    known = replace(WALL, ignored=())
    picture(tmp_path / "images" / "a.png", noise(2, 3, 3))
    codes = np.array([[7, 9, 0], [0, 7, 0]], np.uint8)
    clear = np.array([[0, 0, 1], [0, 0, 1]], bool)
    bands = [known.to_rgb(codes), codes[..., None]][mask == "codes"]
    alpha = np.where(clear, 0, 255).astype(np.uint8)[..., None]
    picture(tmp_path / "masks" / "a.png", np.concatenate([bands, alpha], axis=-1))
    found = open_folder("images", tmp_path, legend=known).labels(0, Window(0, 0, 2, 3))
    np.testing.assert_array_equal(found, np.where(clear, IGNORE, known.encode(codes)))


@pytest.mark.parametrize(("where", "edge"), [("root", 2448), ("train", 100)])
def test_deepglobe_in_its_published_size_colours_and_folders(tmp_path, where, edge):
    classes = deepglobe(tmp_path, edge, ids=(119,))
    picture(tmp_path / "valid" / "4_sat.jpg", noise(8, 8, 3))
    picture(tmp_path / "test" / "5_sat.jpg", noise(8, 8, 3))
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\n")
    (tmp_path / "train" / "._119_sat.jpg").write_bytes(b"a file of macOS")
    source = open_folder("deepglobe", tmp_path if where == "root" else tmp_path / "train")
    (scene,) = source.scenes
    assert scene.name == ("train/119" if where == "root" else "119")
    assert (scene.shape, scene.crs, scene.group) == ((edge, edge), None, "")
    assert source.legend == legend("deepglobe")
    size = edge // 4
    windows = [Window(y, x, size, size) for y in (0, 3 * size) for x in (size, 0)]
    arrays = source.cut(0, windows)
    truth = np.where(classes[119] == 6, IGNORE, classes[119])
    shown = np.asarray(Image.open(tmp_path / "train" / "119_sat.jpg"))
    for patch, label, (y, x, _, _) in zip(arrays["image"], arrays["label"], windows, strict=True):
        np.testing.assert_array_equal(label, truth[y : y + size, x : x + size])
        apart = patch.astype(int) - np.moveaxis(shown, -1, 0)[:, y : y + size, x : x + size]
        assert np.abs(apart).max() <= 2
    (given,) = source.inputs
    assert (given.bands, given.dtype, given.fill) == (("red", "green", "blue"), "uint8", None)


def test_deepglobe_masks_are_thresholded_at_128(tmp_path):
    classes = deepglobe(tmp_path, 64, ids=(1,))
    colours = np.array(list(DEEPGLOBE.values()))[classes[1]]
    rng = np.random.default_rng(3)
    smeared = np.where(
        colours == 255, rng.integers(128, 256, colours.shape), rng.integers(0, 128, colours.shape)
    )
    picture(tmp_path / "train" / "1_mask.png", smeared.astype(np.uint8))
    source = open_folder("deepglobe", tmp_path)
    truth = np.where(classes[1] == 6, IGNORE, classes[1])
    np.testing.assert_array_equal(source.labels(0, Window(0, 0, 64, 64)), truth)


def test_deepglobe_pairs_must_be_complete_where_there_are_masks(tmp_path):
    deepglobe(tmp_path, 8, ids=(1, 2, 3))
    (tmp_path / "train" / "2_mask.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 .* train/2 has no mask, expected train/2_mask"):
        open_folder("deepglobe", tmp_path)
    source = open_folder("deepglobe", tmp_path, skip_unpaired=True)
    assert [scene.name for scene in source.scenes] == ["train/1", "train/3"]
    picture(tmp_path / "train" / "2_mask.png", noise(8, 8, 3))
    (tmp_path / "train" / "3_sat.jpg").unlink()
    with pytest.raises(InputError, match=r"train/3 has no image .*train/3_sat\.jpg"):
        open_folder("deepglobe", tmp_path)


def test_deepglobe_without_any_mask_says_so(tmp_path):
    picture(tmp_path / "valid" / "4_sat.jpg", noise(8, 8, 3))
    with pytest.raises(InputError, match=r"valid/4 has no mask, expected valid/4_mask\.png"):
        open_folder("deepglobe", tmp_path)


@pytest.mark.parametrize(
    ("images", "masks", "files"),
    [
        ("images/{}.*", "masks/{}.*", ("images/a/1.v2.jpg", "masks/a/1.v2.png")),
        ("{}_sat.jpg", "{}_mask.png", ("a/1_sat.jpg", "a/1_mask.png")),
        ("{}.png", "{}_gt.png", ("1.png", "1_gt.png")),
        ("{}_rgb.png", "{}.png", ("1_rgb.png", "1.png")),
        ("*/images/{}.png", "*/labels/{}.png", ("x/images/1.png", "y/labels/1.png")),
        ("({})+.png", "gt/({}).png", ("(1)+.png", "gt/(1).png")),
    ],
    ids=["default", "suffix", "longer mask", "longer image", "star", "special"],
)
def test_patterns_pair_any_names(tmp_path, images, masks, files):
    picture(tmp_path / files[0], noise(6, 6, 3))
    picture(tmp_path / files[1], np.full((6, 6), 9, np.uint8))
    source = open_folder("images", tmp_path, images=images, masks=masks, legend=WALL)
    (scene,) = source.scenes
    assert "1" in scene.name
    arrays = source.cut(0, [Window(0, 0, 6, 6)])
    assert (arrays["label"] == 1).all()
    assert arrays["image"].shape == (1, 3, 6, 6)


def test_masks_of_colours_exact_and_with_tolerance(tmp_path):
    codes = np.random.default_rng(1).choice([0, 7, 9], (9, 9)).astype(np.uint8)
    picture(tmp_path / "images" / "a.png", noise(9, 9, 3))
    picture(tmp_path / "masks" / "a.png", WALL.to_rgb(codes))
    truth = np.select([codes == 7, codes == 9], [0, 1], IGNORE)
    whole = Window(0, 0, 9, 9)
    source = open_folder("images", tmp_path, legend=WALL)
    np.testing.assert_array_equal(source.labels(0, whole), truth)
    smeared = np.clip(WALL.to_rgb(codes).astype(int) + 3, 0, 255).astype(np.uint8)
    picture(tmp_path / "masks" / "a.png", smeared)
    with pytest.raises(InputError, match=r"masks/a\.png: .*not of legend wall: #03"):
        open_folder("images", tmp_path, legend=WALL).labels(0, whole)
    save_style(WALL, tmp_path / "wall.qml")
    near = open_folder("images", tmp_path, legend=str(tmp_path / "wall.qml"), tolerance=3)
    np.testing.assert_array_equal(near.labels(0, whole), truth)


def test_alpha_is_no_band(tmp_path):
    rgba = noise(9, 9, 4)
    picture(tmp_path / "images" / "a.png", rgba)
    mask = np.dstack([WALL.to_rgb(np.full((9, 9), 7)), np.full((9, 9), 200, np.uint8)])
    picture(tmp_path / "masks" / "a.png", mask)
    source = open_folder("images", tmp_path, legend=WALL)
    assert source.inputs[0].bands == ("red", "green", "blue")
    arrays = source.cut(0, [Window(0, 0, 9, 9)])
    np.testing.assert_array_equal(arrays["image"][0], np.moveaxis(rgba[..., :3], -1, 0))
    assert (arrays["label"] == 0).all()
    names = ["red", "green", "blue", "nir"]
    whole = open_folder("images", tmp_path, legend=WALL, bands=names)
    assert len(whole.scenes) == 1
    found = whole.cut(0, [Window(0, 0, 9, 9)])["image"][0]
    np.testing.assert_array_equal(found, np.moveaxis(rgba, -1, 0))


def test_the_legend_is_that_of_the_colour_table(tmp_path):
    codes = np.array([[3, 7], [9, 255]], np.uint8)
    entries = (Entry(3, "none", "#808080"), *WALL.classes)
    tiff(tmp_path / "images" / "a.tif", noise(3, 2, 2))
    (tmp_path / "masks").mkdir()
    grey = replace(WALL, entries=entries, ignored=(3,))
    save_classes(tmp_path / "masks" / "a.tif", codes, grey)
    source = open_folder("images", tmp_path)
    assert source.legend.codes == (7, 9)
    found = source.labels(0, Window(0, 0, 2, 2))
    np.testing.assert_array_equal(found, [[IGNORE, 0], [1, IGNORE]])
    picture(tmp_path / "masks" / "a.png", codes)
    (tmp_path / "masks" / "a.tif").unlink()
    with pytest.raises(InputError, match="no colour table; give a legend"):
        open_folder("images", tmp_path)


def test_floats_nodata_and_names_of_bands(tmp_path):
    values = np.random.default_rng(2).normal(size=(2, 5, 5)).astype(np.float32)
    values[:, 1, 2] = -9999
    tiff(tmp_path / "a.tif", values, nodata=-9999, names=("vv", "vh"))
    codes = np.full((1, 5, 5), 7, np.float32)
    codes[0, 0, 0] = np.nan
    tiff(tmp_path / "a_gt.tif", codes)
    options = {"images": "{}.tif", "masks": "{}_gt.tif", "legend": WALL}
    source = open_folder("images", tmp_path, **options)
    (given,) = source.inputs
    assert (given.bands, given.dtype, given.fill) == (("vv", "vh"), "float32", None)
    arrays = source.cut(0, [Window(0, 0, 5, 5)])
    expected = np.where(values == -9999, np.nan, values)
    np.testing.assert_array_equal(arrays["image"][0], expected)
    assert not given.valid(arrays["image"])[0, :, 1, 2].any()
    assert arrays["label"][0, 0, 0] == IGNORE
    assert (arrays["label"][0, 1:] == 0).all()
    renamed = open_folder("images", tmp_path, **options, bands=["a", "b"])
    assert renamed.inputs[0].bands == ("a", "b")
    with pytest.raises(InputError, match="2 bands, expected 3"):
        _ = open_folder("images", tmp_path, **options, bands=["a", "b", "c"]).inputs
    tiff(tmp_path / "a_gt.tif", codes + 0.5)
    with pytest.raises(InputError, match=r"a_gt\.tif: codes have decimals"):
        open_folder("images", tmp_path, **options).labels(0, Window(0, 0, 5, 5))


def test_nodata_of_integers_is_the_fill(tmp_path):
    tiff(tmp_path / "images" / "a.tif", noise(1, 4, 4), UTM, Affine(1, 0, 9, 0, -1, 9), nodata=0)
    tiff(tmp_path / "masks" / "a.tif", np.full((1, 4, 4), 3, np.uint8), nodata=3)
    source = open_folder("images", tmp_path, legend=WALL)
    assert (source.inputs[0].fill, source.inputs[0].bands) == (0, ("grey",))
    assert (source.labels(0, Window(0, 0, 4, 4)) == IGNORE).all()
    assert (source.scenes[0].crs, source.scenes[0].transform) == (UTM, (1, 0, 9, 0, -1, 9))


def test_a_crs_without_a_transform_is_no_place(tmp_path):
    tiff(tmp_path / "images" / "a.tif", noise(1, 4, 4), "EPSG:4326", Affine.identity())
    picture(tmp_path / "masks" / "a.png", np.full((4, 4), 7, np.uint8))
    assert open_folder("images", tmp_path, legend=WALL).scenes[0].crs is None


def fields(root, **changed):
    """Two placed pairs, with keywords of `tiff` for the last image or mask changed."""
    for i in (1, 2):
        for role in ("images", "masks"):
            case = {"values": np.full((1, 6, 6), 7, np.uint8), "crs": UTM}
            case["transform"] = Affine(10, 0, 5e5 + 1000 * i, 0, -10, 5e6)
            if i == 2:
                case |= changed.get(role, {})
            tiff(root / role / f"{i}.tif", **case)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"masks": {"values": np.full((1, 6, 5), 7, np.uint8)}}, r"masks/2\.tif has 6 x 5 .*6 x 6"),
        (
            {"masks": {"values": np.full((2, 6, 6), 7, np.uint8)}},
            "2 bands of uint8, expected a mask",
        ),
        (
            {"masks": {"values": np.full((3, 6, 6), 7, np.int16)}},
            "3 bands of int16, expected a mask",
        ),
        ({"masks": {"crs": "EPSG:32632"}}, r"masks/2\.tif lies elsewhere .*EPSG:32632"),
        ({"masks": {"transform": Affine(10, 0, 502006, 0, -10, 5e6)}}, "lies elsewhere"),
        ({"images": {"values": np.full((3, 6, 6), 7, np.uint8)}}, r"images/2\.tif has 3 bands"),
        ({"images": {"values": np.full((1, 6, 6), 7, np.int16)}}, r"images/2\.tif has .*int16"),
        ({"images": {"nodata": 5}}, r"images/2\.tif has .*nodata 5"),
        ({"images": {"transform": Affine(10, 0, 0, 0, -9, 0)}}, "expected north up and square"),
        ({"images": {"transform": Affine(10, 1, 0, 1, -10, 0)}}, "gdalwarp -tr 10 10"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, changed, message):
    fields(tmp_path)
    assert len(open_folder("images", tmp_path, legend=WALL).scenes) == 2
    fields(tmp_path, **changed)
    with pytest.raises(InputError, match=message):
        _ = open_folder("images", tmp_path, legend=WALL).scenes


def test_a_mask_within_half_a_pixel_is_in_place(tmp_path):
    fields(tmp_path, masks={"transform": Affine(10, 0, 502004, 0, -10, 5e6)})
    assert len(open_folder("images", tmp_path, legend=WALL).scenes) == 2


def test_pairs_must_be_complete(tmp_path):
    fields(tmp_path)
    (tmp_path / "masks" / "1.tif").unlink()
    with pytest.raises(InputError, match=r"1 of 2 .*1 has no mask, expected masks/1\.\*"):
        open_folder("images", tmp_path, legend=WALL)
    kept = open_folder("images", tmp_path, legend=WALL, skip_unpaired=True)
    assert [scene.name for scene in kept.scenes] == ["2"]
    (tmp_path / "images" / "2.tif").unlink()
    with pytest.raises(InputError, match="2 of 2"):
        open_folder("images", tmp_path, legend=WALL, skip_unpaired=True)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        open_folder("images", tmp_path / "none", legend=WALL)
    with pytest.raises(InputError, match="holds no image"):
        open_folder("images", tmp_path, legend=WALL)
    picture(tmp_path / "a.png", noise(4, 4, 3))
    with pytest.raises(InputError, match=r"no file called images/\{\}\.\* or masks"):
        open_folder("images", tmp_path, legend=WALL)
    with pytest.raises(InputError, match=r"must have one \{\}"):
        open_folder("images", tmp_path, images="*.png", legend=WALL)
    picture(tmp_path / "images" / "a.png", noise(4, 4, 3))
    picture(tmp_path / "images" / "a.jpg", noise(4, 4, 3))
    with pytest.raises(InputError, match=r"two files for image 'a', images/a\.jpg and images/a\."):
        open_folder("images", tmp_path, legend=WALL)
    with pytest.raises(InputError, match="no layout is called 'coco'; there are deepglobe"):
        open_folder("coco", tmp_path)
    with pytest.raises(InputError, match="deepglobe has no option 'legend'; it has skip_unpaired"):
        open_folder("deepglobe", tmp_path, legend="igbp")
    with pytest.raises(InputError, match="no legend is called"):
        open_folder("images", tmp_path, legend="none")


def test_a_changed_folder_is_noticed(tmp_path):
    deepglobe(tmp_path, 8)
    data = open_folder("deepglobe", tmp_path).to_json()
    assert set(folders.LAYOUTS) == {"deepglobe", "sen12ms", "dfc2020", "images"}
    folders.LAYOUTS[data["kind"]].from_json(data)
    deepglobe(tmp_path, 8, ids=(7,))
    with pytest.raises(InputError, match="not the files it had"):
        folders.LAYOUTS[data["kind"]].from_json(data)


def test_a_file_that_is_no_image_is_named(tmp_path):
    deepglobe(tmp_path, 8)
    (tmp_path / "train" / "119_sat.jpg").write_bytes(b"not found")
    source = open_folder("deepglobe", tmp_path)
    with pytest.raises(InputError, match=r"119_sat\.jpg cannot be read as an image"):
        _ = source.scenes
    deepglobe(tmp_path, 8)
    (tmp_path / "train" / "606_mask.png").unlink()
    with pytest.raises(InputError, match=r"606_mask\.png cannot be read as an image"):
        source.cut(1, [Window(0, 0, 4, 4)])


def test_no_windows_are_no_patches(tmp_path):
    deepglobe(tmp_path, 8)
    arrays = open_folder("deepglobe", tmp_path).cut(0, [])
    assert {name: len(found) for name, found in arrays.items()} == {"image": 0, "label": 0}


def test_headers_come_in_the_order_of_their_files(tmp_path):
    paths = []
    for i in range(20):
        paths.append(tmp_path / f"{i}.tif")
        tiff(paths[-1], noise(1, 3 + i, 4))
    assert [found.shape[0] for found in pixels.headers(paths)] == list(range(3, 23))
