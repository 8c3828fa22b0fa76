"""Legends: codes, crosswalks, RGB, indices and colour tables, against plain Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from lcengine.classmap import read_classes, read_legend, save_classes
from lcengine.errors import InputError
from lcengine.legends import (
    IGNORE,
    SEN12MS,
    Crosswalk,
    Entry,
    Legend,
    crosswalk,
    crosswalks,
    grouped,
    legend,
    legends,
    load_style,
    save_style,
)

NAMES = tuple(legends())
UNIQUE = [
    name
    for name in NAMES
    if len({e.colour for e in legend(name).entries}) == len(legend(name).entries)
]


# ------------------------------------------------------------------------ what is published


@pytest.mark.parametrize(
    ("name", "count", "dtype", "some"),
    [
        ("igbp", 17, "uint8", {1: "Evergreen Needleleaf Forests", 17: "Water Bodies"}),
        ("lccs-lc", 16, "uint8", {16: "Mixed Broadleaf Evergreen/Deciduous Forests"}),
        ("lccs-lu", 11, "uint8", {36: "Herbaceous Croplands"}),
        ("lccs-sh", 10, "uint8", {27: "Woody Wetlands", 51: "Tundra"}),
        ("dfc2020", 10, "uint8", {6: "Croplands", 10: "Water"}),
        ("dfc2020-no-savanna", 9, "uint8", {3: "Grassland", 9: "Water"}),
        ("eucropmap", 21, "uint16", {211: "Common wheat", 290: "Bare arable land"}),
        ("worldcover", 11, "uint8", {40: "Cropland", 95: "Mangroves"}),
        ("deepglobe", 6, "uint8", {1: "Urban land", 6: "Barren land"}),
        ("cdl", 133, "uint8", {1: "Corn", 5: "Soybeans", 176: "Grassland/Pasture"}),
        ("crop", 2, "uint8", {0: "Non-crop", 1: "Crop"}),
    ],
)
def test_a_legend_has_the_published_classes(name, count, dtype, some):
    found = legend(name)
    assert len(found.codes) == count
    assert found.dtype == dtype
    assert found.nodata == {"uint8": 255, "uint16": 65535}[dtype]
    assert {code: found.entry(code).name for code in some} == some


def test_the_bands_of_sen12ms_are_four_schemes():
    assert [scheme.name for scheme in SEN12MS] == ["igbp", "lccs-lc", "lccs-lu", "lccs-sh"]


def test_igbp_becomes_dfc2020_by_the_published_table():
    # Position: IGBP code, 0 unused; as the contest simplified it.
    published = [0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 6, 8, 9, 10]
    codes = np.arange(1, 18)
    assert crosswalk("igbp", "dfc2020").translate(codes).tolist() == published[1:]
    shifted = [255 if to == 3 else to - (to > 3) for to in published[1:]]
    assert crosswalk("igbp", "dfc2020-no-savanna").translate(codes).tolist() == shifted


def test_deepglobe_masks_are_thresholded_at_128():
    pixels = np.array([[0, 128, 255], [130, 127, 200], [127, 1, 2], [255, 255, 128]], np.uint8)
    codes = legend("deepglobe").from_rgb(pixels, tolerance=127)
    assert codes.tolist() == [1, 3, 0, 6]
    with pytest.raises(InputError, match=r"1 colours are not of legend deepglobe: #ff0000"):
        legend("deepglobe").from_rgb(np.array([[255, 0, 0]], np.uint8), tolerance=127)


# ---------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", NAMES)
class TestEveryLegend:
    def test_indices_are_positions_and_come_back(self, name):
        known = legend(name)
        codes = np.array([*known.codes, *known.ignored, known.nodata]).astype(known.dtype)
        expected = [*range(len(known.codes)), *[IGNORE] * (len(known.ignored) + 1)]
        indices = known.encode(codes)
        assert indices.dtype == np.uint8
        assert indices.tolist() == expected
        back = known.decode(indices)
        assert back.dtype == known.dtype
        gone = [known.nodata] * (len(known.ignored) + 1)
        assert back.tolist() == [*known.codes, *gone]

    @pytest.mark.parametrize("dtype", ["int16", "int64", "uint32"])
    def test_the_integer_type_does_not_matter(self, name, dtype):
        known = legend(name)
        codes = np.array(known.codes, dtype=dtype).reshape(1, -1)
        assert np.array_equal(known.encode(codes), known.encode(codes.astype(known.dtype)))
        assert known.stored(codes).dtype == known.dtype

    @pytest.mark.parametrize("strange", [-1, 199, 70000])
    def test_unknown_codes_are_named(self, name, strange):
        codes = np.array([legend(name).codes[0], strange], dtype=np.int32)
        for use in (legend(name).encode, legend(name).stored, legend(name).to_rgb):
            with pytest.raises(InputError, match=rf"1 pixels have a code .* has not: {strange};"):
                use(codes)

    def test_floats_are_refused(self, name):
        with pytest.raises(InputError, match="expected integers"):
            legend(name).encode(np.array([1.0]))

    def test_the_nodata_of_a_source_becomes_ours(self, name):
        known = legend(name)
        codes = np.array([known.codes[0], -9999])
        assert known.stored(codes, missing=-9999).tolist() == [known.codes[0], known.nodata]

    def test_colours_are_the_entries(self, name):
        known = legend(name)
        rgb = known.to_rgb(np.array([*(e.code for e in known.entries), known.nodata]))
        expected = [[int(e.colour[i : i + 2], 16) for i in (1, 3, 5)] for e in known.entries]
        assert rgb.tolist() == [*expected, [0, 0, 0]]

    def test_groups_partition_the_classes(self, name):
        merged = grouped(legend(name))
        assert merged.matrix.sum() == len(legend(name).codes)
        assert (merged.matrix.sum(axis=0) > 0).all()

    @pytest.mark.parametrize("suffix", [".qml", ".txt"])
    def test_a_style_of_qgis_comes_back_whole(self, name, suffix, tmp_path):
        known = legend(name)
        save_style(known, tmp_path / f"style{suffix}")
        back = load_style(tmp_path / f"style{suffix}", name)
        assert [(e.code, e.name, e.colour) for e in back.entries] == [
            (e.code, e.name, e.colour) for e in known.entries
        ]
        assert back.ignored == known.ignored
        assert back.name == name

    def test_a_clr_keeps_codes_and_colours(self, name, tmp_path):
        save_style(legend(name), tmp_path / "map.clr")
        back = load_style(tmp_path / "map.clr")
        assert {e.code: e.rgb for e in back.entries} == {
            e.code: e.rgb for e in legend(name).entries
        }

    def test_a_class_map_comes_back(self, name, tmp_path):
        known = legend(name)
        codes = np.resize(np.array([*known.codes, *known.ignored, known.nodata]), (20, 30))
        transform = (10, 0, 600_000, 0, -10, 5_600_000)
        save_classes(tmp_path / "m.tif", codes, known, crs="EPSG:32631", transform=transform)
        assert np.array_equal(read_classes(tmp_path / "m.tif", known), codes)
        with rasterio.open(tmp_path / "m.tif") as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert tuple(file.transform)[:6] == transform
            assert file.nodata == known.nodata
        if known.dtype == np.uint8:
            back = read_legend(tmp_path / "m.tif")
            assert back.codes == known.codes
            assert back.colours == known.colours


@pytest.mark.parametrize("name", UNIQUE)
@given(data=st.data())
def test_rgb_is_undone(name, data):
    known = legend(name)
    drawn = data.draw(st.lists(st.sampled_from([e.code for e in known.entries]), min_size=1))
    codes = np.array(drawn, dtype=known.dtype).reshape(1, -1)
    assert np.array_equal(known.from_rgb(known.to_rgb(codes)), codes)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(UNIQUE)))
def test_shared_colours_tell_no_codes(name):
    with pytest.raises(InputError, match="share colours"):
        legend(name).from_rgb(np.zeros((1, 3), np.uint8))


# --------------------------------------------------------------------------------- crosswalks


@pytest.mark.parametrize("known", crosswalks(), ids=lambda c: f"{c.source.name}-{c.target.name}")
@given(data=st.data())
def test_a_crosswalk_is_its_pairs(known, data):
    source, table = known.source, dict(known.pairs)
    anything = [*source.codes, *source.ignored, source.nodata]
    codes = data.draw(st.lists(st.sampled_from(anything), min_size=1))
    expected = [known.target.nodata if table.get(code) is None else table[code] for code in codes]
    found = known.translate(np.array(codes, dtype=source.dtype))
    assert found.dtype == known.target.dtype
    assert found.tolist() == expected
    sums = known.matrix.sum(axis=1)
    assert sums.tolist() == [table[code] is not None for code in source.codes]


def test_a_crosswalk_that_forgets_a_class_is_refused():
    dfc, crop = legend("dfc2020"), legend("crop")
    with pytest.raises(InputError, match=r"lacks \[10\], knows no \[11\], has \[6\] more than"):
        Crosswalk.of(dfc, crop, {0: (1, 2, 3, 4, 5, 6, 7, 8, 9, 11), 1: (6,)}, "")
    with pytest.raises(InputError, match=r"leads to \{7\}"):
        Crosswalk.of(dfc, crop, {0: (1, 2, 3, 4, 5, 7, 8, 9, 10), 7: (6,)}, "")


def test_crosswalks_chain():
    by_hand = crosswalk("igbp", "dfc2020").then(crosswalk("dfc2020", "crop"))
    assert by_hand.pairs == crosswalk("igbp", "crop").pairs
    with pytest.raises(InputError, match="leads to dfc2020, the next one starts at igbp"):
        crosswalk("igbp", "dfc2020").then(crosswalk("igbp", "crop"))


def test_groups_of_the_crop_map():
    arable = grouped(legend("eucropmap"))
    assert arable.target.names == ("Arable land", "Woodland and shrubland", "Grasslands")
    kinds = grouped(legend("eucropmap"), 2)
    assert kinds.target.names[:2] == ("Cereals", "Root crops")
    assert kinds.translate(np.array([211, 221, 0, 65535], np.uint16)).tolist() == [1, 2, 255, 255]


def test_crops_of_the_cdl_are_those_of_its_dictionary():
    to_crop = crosswalk("cdl", "crop")
    codes = np.array([1, 24, 36, 61, 62, 70, 92, 176, 195, 254, 0, 81], np.uint8)
    assert to_crop.translate(codes).tolist() == [1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 255, 255]


def test_real_labels_of_the_cdl_are_in_the_legend(shared_data):
    codes = read_classes(shared_data / "northdakota-landsat8" / "labels_cdl.tif", legend("cdl"))
    crops = crosswalk("cdl", "crop").translate(codes)
    assert np.isin(crops[np.isin(codes, (1, 5, 23))], 1).all()
    assert np.isin(crops[np.isin(codes, (111, 121, 176, 195))], 0).all()


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("entries", "ignored", "message"),
    [
        ((Entry(1, "a", "#000000"), Entry(1, "b", "#ffffff")), (), "expected distinct ones"),
        ((Entry(65535, "a", "#000000"),), (), "from 0 to 65534"),
        ((Entry(1, "a", "red"),), (), r"colours \['red'\]"),
        ((Entry(1, "a", "#000000"),), (2,), r"ignored codes \(2,\)"),
        ((Entry(1, "a", "#000000"),), (1,), "has 0 classes"),
        (tuple(Entry(i, "a", "#000000") for i in range(256)), (), "has 256 classes"),
    ],
)
def test_a_legend_that_cannot_be_is_refused(entries, ignored, message):
    with pytest.raises(InputError, match=message):
        Legend("x", "x", entries, "", ignored)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no legend is called 'corine'; there are igbp"):
        legend("corine")
    with pytest.raises(InputError, match="there is no crosswalk crop → igbp"):
        crosswalk("crop", "igbp")
    with pytest.raises(InputError, match=r"expected a \.qml"):
        save_style(legend("crop"), tmp_path / "a.sld")
    (tmp_path / "a.qml").write_text("<qgis><pipe/></qgis>")
    with pytest.raises(InputError, match="has no paletted entries"):
        load_style(tmp_path / "a.qml")
    (tmp_path / "b.qml").write_text("<qgis>")
    with pytest.raises(InputError, match="is not a colour table"):
        load_style(tmp_path / "b.qml")
    (tmp_path / "a.txt").write_text("1,2,3\n")
    with pytest.raises(InputError, match="is not a colour table"):
        load_style(tmp_path / "a.txt")
    with pytest.raises(InputError, match="cannot be read"):
        load_style(tmp_path / "none.clr")
    with pytest.raises(InputError, match="is no file"):
        read_legend(tmp_path / "none.tif")


@pytest.mark.parametrize("value", ["inf", "1.5", "nan"])
def test_a_colour_map_of_ranges_is_no_legend(tmp_path, value):
    (tmp_path / "a.txt").write_text(
        f"INTERPOLATION:DISCRETE\n1,255,0,0,255,a\n{value},0,0,0,255,b\n"
    )
    with pytest.raises(InputError, match=rf"is not a colour table \(.*{value}.* no code"):
        load_style(tmp_path / "a.txt")


def test_what_cannot_be_written_is_named(tmp_path):
    known, codes = legend("crop"), np.ones((4, 4), np.uint8)
    with pytest.raises(InputError, match=r"a\.qml cannot be written: No such file"):
        save_style(known, tmp_path / "none" / "a.qml")
    with pytest.raises(InputError, match=r"a\.tif cannot be written: No such file"):
        save_classes(tmp_path / "none" / "a.tif", codes, known)
    with pytest.raises(InputError, match=r"a\.png is no GeoTIFF by its name"):
        save_classes(tmp_path / "a.png", codes, known)
    assert list(tmp_path.iterdir()) == []


def test_rasters_that_are_no_class_maps_are_refused(tmp_path):
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    profile = {"driver": "GTiff", "width": 4, "height": 4, "crs": "EPSG:32631"}
    with rasterio.open(
        tmp_path / "two.tif", "w", count=2, dtype="uint8", transform=transform, **profile
    ) as file:
        file.write(np.ones((2, 4, 4), np.uint8))
    with pytest.raises(InputError, match="has 2 bands of uint8"):
        read_classes(tmp_path / "two.tif", legend("crop"))
    with pytest.raises(InputError, match="has no colour table"):
        read_legend(tmp_path / "two.tif")
    (tmp_path / "bad.tif").write_text("no raster")
    with pytest.raises(InputError, match="cannot be read or written as a class map"):
        read_classes(tmp_path / "bad.tif", legend("crop"))
    with pytest.raises(InputError, match=r"codes have shape \(3,\)"):
        save_classes(tmp_path / "c.tif", np.ones(3, np.uint8), legend("crop"))


def test_a_png_of_colours_is_read(tmp_path):
    codes = np.resize(np.arange(7, dtype=np.uint8), (8, 9))
    rgb = np.moveaxis(legend("deepglobe").to_rgb(codes), -1, 0)
    transform = rasterio.Affine(2, 0, 0, 0, -2, 0)
    with rasterio.open(
        tmp_path / "mask.png",
        "w",
        driver="PNG",
        width=9,
        height=8,
        count=3,
        dtype="uint8",
        transform=transform,
    ) as file:
        file.write(rgb)
    assert np.array_equal(read_classes(tmp_path / "mask.png", legend("deepglobe")), codes)


# ------------------------------------------------------------------------------ command line


def test_the_command_lists_shows_and_writes(run, tmp_path):
    code, out, _ = run("legends")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(NAMES)
    code, out, _ = run("legends", "worldcover")
    assert code == 0
    assert "40  #f096ff  Cropland" in out
    assert "(ignored)" in out
    code, out, _ = run("legends", "worldcover", "--json")
    found = json.loads(out)
    assert [c["code"] for c in found["classes"]][:2] == [0, 10]
    assert found["crosswalks"] == ["crop"]
    code, out, _ = run("legends", "igbp", "--to", "dfc2020-no-savanna")
    assert "Savannas → no class" in out
    code, out, _ = run("legends", "igbp", "--to", "crop", "--json")
    assert [14, 1] in json.loads(out)["pairs"]
    code, _, said = run("legends", "cdl", "-o", tmp_path / "cdl.qml")
    assert code == 0
    assert "wrote" in said
    assert load_style(tmp_path / "cdl.qml").codes == legend("cdl").codes


def test_the_command_names_what_is_wrong(run):
    code, _, said = run("legends", "corine")
    assert code == InputError.exit_code
    assert "no legend is called 'corine'" in said
    code, _, said = run("legends", "--to", "crop")
    assert code == InputError.exit_code
    assert "need a legend" in said
