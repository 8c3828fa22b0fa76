"""Masks of colours and of codes become each other; legends come from tables."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lcengine.classmap import find_legend, read_classes, save_classes, save_png
from lcengine.errors import InputError
from lcengine.labels import colors
from lcengine.legends import legend, named, save_style

GLOBE = legend("deepglobe")
EVERY = [*(entry.code for entry in GLOBE.entries), GLOBE.nodata]


def picture(path, codes, noise=0):
    rgb = GLOBE.to_rgb(codes).astype(int)
    rgb += np.where(rgb > 127, -noise, noise)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


@given(codes=hnp.arrays(np.uint8, (5, 7), elements=st.sampled_from(EVERY)))
def test_colours_round_trip(codes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    save_classes(folder / "a.tif", codes, GLOBE)
    (painted,) = colors.to_colours(folder / "a.tif", folder / "a.png", GLOBE)
    (back,) = colors.to_codes(painted, folder / "b.tif", GLOBE)
    assert np.array_equal(read_classes(back, GLOBE), codes)


@pytest.mark.parametrize("name", ["deepglobe", "eucropmap"])
def test_a_png_of_codes_comes_back(name, tmp_path):
    known = legend(name)
    codes = np.resize(np.array([*known.codes, known.nodata], known.dtype), (9, 11))
    save_png(tmp_path / "a.png", codes, known)
    assert np.array_equal(read_classes(tmp_path / "a.png", known), codes)
    if known.dtype == np.uint8:
        seen = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))[..., :3]
        valid = codes != known.nodata
        assert np.array_equal(seen[valid], known.to_rgb(codes)[valid])


def test_a_folder_keeps_places_and_names(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    codes = np.resize(np.array(GLOBE.codes, np.uint8), (6, 8))
    picture(masks / "1_mask.png", codes)
    picture(masks / "2_mask.png", codes, noise=40)
    transform = rasterio.Affine(2, 0, 400_000, 0, -2, 90_000)
    with rasterio.open(
        masks / "3.tif", "w", driver="GTiff", width=8, height=6, count=3, dtype="uint8",
        crs="EPSG:32637", transform=transform,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(GLOBE.to_rgb(codes), -1, 0))
    with pytest.raises(InputError, match=r"2_mask\.png: \d colours are not of legend deepglobe"):
        colors.to_codes(masks, tmp_path / "codes", GLOBE)
    written = colors.to_codes(masks, tmp_path / "codes", GLOBE, tolerance=127)
    assert [path.name for path in written] == ["1_mask.tif", "2_mask.tif", "3.tif"]
    assert all(np.array_equal(read_classes(path, GLOBE), codes) for path in written)
    with rasterio.open(written[2]) as file:
        assert file.crs.to_epsg() == 32637
        assert file.transform == transform


def test_unknown_colours_are_named_or_ignored(tmp_path):
    codes = np.full((4, 4), GLOBE.codes[0], np.uint8)
    picture(tmp_path / "a.png", codes)
    image = np.asarray(Image.open(tmp_path / "a.png")).copy()
    image[0, 0] = 17, 18, 19
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="#111213; give a tolerance"):
        colors.to_codes(tmp_path / "a.png", tmp_path / "b.tif", GLOBE)
    for tolerance in (-1, 256):
        with pytest.raises(InputError, match=f"tolerance is {tolerance}, expected 0"):
            colors.to_codes(tmp_path / "a.png", tmp_path / "b.tif", GLOBE, tolerance=tolerance)
    colors.to_codes(tmp_path / "a.png", tmp_path / "b.tif", GLOBE, unknown="ignore")
    codes[0, 0] = GLOBE.nodata
    assert np.array_equal(read_classes(tmp_path / "b.tif", GLOBE), codes)


def test_a_palette_of_another_order_is_read_by_its_colours(tmp_path):
    """Drawing programs number colours as they come; blue and yellow here are 0 and 1."""
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 255, 255, 255, 0, 17, 18, 19])
    image.putdata([0, 1, 1])
    image.save(tmp_path / "a.png")
    colors.to_codes(tmp_path / "a.png", tmp_path / "b.tif", GLOBE)
    found = read_classes(tmp_path / "b.tif", GLOBE)
    assert [GLOBE.entry(code).colour for code in found[0]] == ["#0000ff", "#ffff00", "#ffff00"]
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: 1 colours .*#111213"):
        colors.to_codes(tmp_path / "a.png", tmp_path / "b.tif", GLOBE)


def test_masks_of_codes_pass_with_their_own_palette_or_without_one(tmp_path):
    codes = np.resize(np.array(EVERY, np.uint8), (6, 8))
    save_png(tmp_path / "a.png", codes, GLOBE)
    Image.fromarray(codes).save(tmp_path / "grey.png")
    for name in ("a.png", "grey.png"):
        colors.to_codes(tmp_path / name, tmp_path / "b.tif", GLOBE)
        assert np.array_equal(read_classes(tmp_path / "b.tif", GLOBE), codes)


TABLES = {
    "csv": "name,code,colour\nwater,3, #0000FF\nfield,7,ffff00\nunknown,0,#000000\n",
    "CSV": "name;code;colour\nwater;3;#0000FF\nfield;7;ffff00\nunknown;0;#000000\n",
    "json": '[{"name": "water", "code": 3, "color": "#0000ff"}, '
    '{"name": "field", "code": 7, "r": 255, "g": 255, "b": 0}, '
    '{"name": "unknown", "code": 0, "colour": "#000000", "ignored": true}]',
    "toml": '[[classes]]\nname = "water"\ncode = 3\ncolour = "#0000ff"\n'
    '[[classes]]\nname = "field"\ncode = 7\ncolour = "#ffff00"\n'
    '[[classes]]\nname = "unknown"\ncode = 0\ncolour = "#000000"\nignored = true\n',
}


@pytest.mark.parametrize("suffix", TABLES)
def test_legends_come_from_tables(suffix, tmp_path):
    path = tmp_path / f"classes.{suffix}"
    path.write_text(TABLES[suffix], encoding="utf-8")
    found = find_legend(path)
    assert found.name == "classes"
    assert found.codes[:2] == (3, 7)
    assert found.colours[:2] == ("#0000ff", "#ffff00")
    assert found.ignored == (() if suffix.lower() == "csv" else (0,))


def test_the_table_of_deepglobe_is_read(tmp_path):
    path = tmp_path / "class_dict.csv"
    rows = [f"{e.name}, {', '.join(map(str, e.rgb))}" for e in GLOBE.entries]
    path.write_text("name, r, g, b\n" + "\n".join(rows))
    found = find_legend(path)
    assert found.codes == tuple(range(len(rows)))
    assert found.colours == tuple(e.colour for e in GLOBE.entries)


def test_legends_come_from_names_styles_and_rasters(tmp_path):
    save_style(GLOBE, tmp_path / "a.qml")
    save_classes(tmp_path / "a.tif", np.ones((4, 4), np.uint8), GLOBE)
    assert find_legend("deepglobe") is GLOBE
    assert find_legend(tmp_path / "a.qml").colours == GLOBE.colours
    assert find_legend(tmp_path / "a.tif").codes == GLOBE.codes


def test_names_of_any_script_stay_with_their_codes(tmp_path):
    made = named({1: "小麦", 2: "maize", 3: "Ölsaaten", 4: "?!"}, "many", "a test")
    assert len(made.attributes()["flag_meanings"].split()) == 4
    save_classes(tmp_path / "a.tif", np.ones((4, 4), np.uint8), made)
    found = find_legend(tmp_path / "a.tif")
    assert found.codes == (1, 2, 3, 4)
    assert found.names == ("小麦", "maize", "ölsaaten", "class 4")


def test_tags_that_do_not_name_every_code_are_an_error(tmp_path):
    save_classes(tmp_path / "a.tif", np.ones((4, 4), np.uint8), GLOBE)
    for values, message in (("1b, 2b", "2 flag_values and 3 flag_m"), ("1b, 2b, 3b", None)):
        with rasterio.open(tmp_path / "a.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.update_tags(1, flag_values=values, flag_meanings="x y z")
        if message is None:
            assert find_legend(tmp_path / "a.tif").names == ("x", "y", "z")
        else:
            with pytest.raises(InputError, match=message):
                find_legend(tmp_path / "a.tif")


def test_made_legends_have_colours_of_their_own():
    made = named({i + 1: f"class {i}" for i in range(200)}, "many", "a test")
    assert made.codes == tuple(range(1, 201))
    assert len(set(made.colours)) == 200


WRONG = {
    "no_such": (None, "no legend is called"),
    "a.csv": ("code,name\n1,water\n", r"class 1 is .*expected name, code and colour"),
    "b.csv": ("code,name,colour\n", "has no classes"),
    "c.json": ("{", "is not JSON"),
    "d.toml": ("classes = 3", "has no list of classes"),
    "e.csv": ("code,name,colour\none,water,#00ff00\n", "class 1 is"),
    "g.json": ('[{"name": "w", "code": 1.7, "colour": "#0000ff"}]', r"class 1 is .*1\.7"),
    "h.csv": ("name,code,colour\n,3,#0000ff\n", "class 1 is .*it has no name"),
    "i.json": ("[" * 100_000, "is not JSON"),
    "f.csv": (None, r"f\.csv cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_named(name, tmp_path):
    content, message = WRONG[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        find_legend(tmp_path / name)


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        colors.to_codes(tmp_path / "none", tmp_path / "out", GLOBE)
    with pytest.raises(InputError, match="has no images"):
        colors.to_codes(tmp_path, tmp_path / "out", GLOBE)
    for name in ("a.png", "a.jpg"):
        picture(tmp_path / name, np.ones((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"would both become a\.tif"):
        colors.to_codes(tmp_path, tmp_path / "out", GLOBE)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match="is the folder of the masks themselves"):
        colors.to_colours(tmp_path, tmp_path, GLOBE)
    with pytest.raises(InputError, match="is no PNG by its name"):
        colors.to_colours(tmp_path / "a.png", tmp_path / "b.tif", GLOBE)
    with pytest.raises(InputError, match=r"a\.png would be written over"):
        colors.to_colours(tmp_path / "a.png", tmp_path / "a.png", GLOBE)
    with pytest.raises(InputError, match=r"a\.png cannot be made: File exists; give another"):
        colors.to_codes(tmp_path, tmp_path / "a.png", GLOBE)


def test_a_folder_is_converted_whole_or_not_at_all(tmp_path):
    codes = np.full((5, 5), GLOBE.codes[0], np.uint8)
    (tmp_path / "masks").mkdir()
    save_png(tmp_path / "masks" / "a.png", codes, GLOBE, colours=True)
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match=r"b\.png: .*#010203"):
        colors.to_codes(tmp_path / "masks", tmp_path / "codes", GLOBE)
    assert list((tmp_path / "codes").iterdir()) == []
