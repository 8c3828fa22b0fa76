"""SEN12MS and DFC2020 in the layouts they are published in."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import Affine
from source_contract import SourceContract

from lcengine.errors import InputError
from lcengine.imagefile import unplaced
from lcengine.legends import IGNORE, SEN12MS, legend
from lcengine.locate import Window
from lcengine.samples.folders import near, open_folder
from lcengine.samples.source import Scene

SIZE = 16
UTM = "EPSG:32632"
CANONICAL = (
    *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
    *("nir", "nir08", "nir09", "cirrus", "swir16", "swir22"),
)
IGBP_TO_DFC = [0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 6, 8, 9, 10]  # the contest's own table


def values_of(role, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    if role == "s1":
        return rng.normal(-12, 5, (2, size, size))
    if role == "s2":
        bands = np.arange(1, 14, dtype=np.uint16)[:, None, None]
        return rng.integers(1, 4000, (13, size, size)).astype(np.uint16) + bands * 1000
    if role == "lc":
        rows = [rng.choice(one.codes, (size, size)) for one in SEN12MS]
        return np.stack(rows).astype(np.uint16)
    return rng.integers(0, 11, (1, size, size)).astype(np.int32)


def write(path, values, place=None, crs=UTM, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands}
    if place is not None:
        profile |= {"crs": crs, "transform": place}
    profile |= {"dtype": values.dtype, "nodata": nodata}
    with unplaced(), rasterio.open(path, "w", **profile) as file:
        file.write(values)


def patch(root, season, scene, number, *, left=5e5, top=5e6, roles=("s1", "s2", "lc"), **options):
    """One patch in folders as the data sets have them; what was written, by role."""
    crs, place = options.get("crs", UTM), None
    size = options.get("size", SIZE)
    if crs:
        place = Affine(10, 0, left, 0, -10, top)
    written = {}
    for role in roles:
        folder = options.get("folder", f"{role}_{scene}").format(role=role)
        name = f"{season}_{role}_{scene}_p{number}.tif"
        written[role] = values_of(role, number, size)
        write(root / season / folder / name, written[role], place, crs)
    return written


class TestSen12MSContract(SourceContract):
    @pytest.fixture(params=["igbp", "lccs-sh", "crop"])
    def source(self, tmp_path, request):
        for number in (30, 4):
            patch(tmp_path, "ROIs1158_spring", 1, number, left=5e5 + 80 * number)
        patch(tmp_path, "ROIs2017_winter", 106, 7, left=7e5)
        return open_folder("sen12ms", tmp_path, legend=request.param)


class TestDfc2020Contract(SourceContract):
    @pytest.fixture(params=["contest", "public"])
    def source(self, tmp_path, request):
        roles = ("s1", "s2", "lc", "dfc")
        if request.param == "contest":
            for number in (0, 1):
                options = {"folder": "{role}_validation", "crs": None, "roles": roles}
                patch(tmp_path, "ROIs0000_validation", 0, number, **options)
            patch(tmp_path, "ROIs0000_test", 0, 0, crs=None, roles=roles)
        else:
            patch(tmp_path, "ROIs0000_winter", "MexicoCity", 440, roles=roles)
            patch(tmp_path, "ROIs0000_autumn", "Mumbai", 741, left=8e5, roles=roles)
        return open_folder("dfc2020", tmp_path)


def test_sen12ms_pixels_bands_and_labels(tmp_path):
    written = patch(tmp_path, "ROIs1158_spring", 1, 30, size=256)
    source = open_folder("sen12ms", tmp_path)
    (scene,) = source.scenes
    assert (scene.name, scene.group) == ("ROIs1158_spring_1_p30", "ROIs1158_spring_1")
    assert (scene.shape, scene.crs, scene.transform) == ((256, 256), UTM, (10, 0, 5e5, 0, -10, 5e6))
    radar, optical = source.inputs
    assert (radar.name, radar.bands, radar.dtype, radar.fill) == (
        "s1",
        ("vv", "vh"),
        "int16",
        -32768,
    )
    assert (radar.scale, radar.units) == (0.01, "dB")
    assert (optical.name, optical.bands) == ("s2", CANONICAL)
    assert (optical.dtype, optical.fill, optical.scale) == ("int16", -32768, 1e-4)
    window = Window(100, 37, 64, 64)
    part = (slice(None), slice(100, 164), slice(37, 101))
    arrays = source.cut(0, [window])
    np.testing.assert_array_equal(arrays["s2"][0], written["s2"][part])
    np.testing.assert_array_equal(arrays["s1"][0], np.rint(written["s1"][part] * 100))
    np.testing.assert_array_equal(arrays["label"][0], written["lc"][part][0] - 1)


def test_missing_pixels_of_sentinel(tmp_path):
    patch(tmp_path, "ROIs1158_spring", 1, 30)
    place = Affine(10, 0, 5e5, 0, -10, 5e6)
    optical, radar = values_of("s2"), values_of("s1")
    optical[:, 0, 0] = 0
    optical[10, 0, 1] = 0  # cirrus, whose faintest light is a 0
    optical[3, 0, 2] = 65535
    radar[:, 1, 0] = np.nan
    radar[0, 1, 1] = -np.inf
    folder = tmp_path / "ROIs1158_spring"
    write(folder / "s2_1" / "ROIs1158_spring_s2_1_p30.tif", optical, place)
    write(folder / "s1_1" / "ROIs1158_spring_s1_1_p30.tif", radar.astype(np.float32), place)
    arrays = open_folder("sen12ms", tmp_path).cut(0, [Window(0, 0, 3, 3)])
    missing = arrays["s2"][0] == -32768
    assert missing[:, 0, 0].all()
    assert arrays["s2"][0, 10, 0, 1] == 0
    assert missing.sum() == 13 + 1
    assert missing[3, 0, 2]
    gone = arrays["s1"][0] == -32768
    assert gone[:, 1, 0].all()
    assert gone[0, 1, 1]
    assert gone.sum() == 3


@pytest.mark.parametrize("number", range(4))
def test_sen12ms_schemes_are_bands_of_the_label_image(tmp_path, number):
    written = patch(tmp_path, "ROIs1158_spring", 1, 30)
    scheme = SEN12MS[number]
    source = open_folder("sen12ms", tmp_path, legend=scheme.name)
    assert source.legend == scheme
    found = source.labels(0, Window(0, 0, SIZE, SIZE))
    np.testing.assert_array_equal(np.array(scheme.codes)[found], written["lc"][number])


def test_sen12ms_labels_as_the_contest_has_them(tmp_path):
    written = patch(tmp_path, "ROIs1158_spring", 1, 30)
    source = open_folder("sen12ms", tmp_path, legend="dfc2020")
    found = source.labels(0, Window(0, 0, SIZE, SIZE))
    np.testing.assert_array_equal(found + 1, np.array(IGBP_TO_DFC)[written["lc"][0]])
    with pytest.raises(InputError, match="SEN12MS as 'worldcover': expected one of igbp, lccs-lc"):
        open_folder("sen12ms", tmp_path, legend="worldcover")


def test_unlabelled_pixels_are_ignored_and_unknown_codes_named(tmp_path):
    patch(tmp_path, "ROIs1158_spring", 1, 30)
    codes = values_of("lc")
    codes[0, 0, 0] = 0
    path = tmp_path / "ROIs1158_spring" / "lc_1" / "ROIs1158_spring_lc_1_p30.tif"
    write(path, codes, Affine(10, 0, 5e5, 0, -10, 5e6))
    source = open_folder("sen12ms", tmp_path)
    found = source.labels(0, Window(0, 0, SIZE, SIZE))
    assert (found == IGNORE).sum() == 1
    codes[0, 0, 1] = 18
    write(path, codes, Affine(10, 0, 5e5, 0, -10, 5e6))
    with pytest.raises(InputError, match=r"lc_1_p30\.tif: 1 pixels have a code .* 18;"):
        source.labels(0, Window(0, 0, SIZE, SIZE))
    assert (source.labels(0, Window(1, 0, 4, 4)) != IGNORE).all()


@pytest.mark.parametrize(
    ("labels", "name"), [("dfc", "dfc2020"), ("dfc", "dfc2020-no-savanna"), ("lc", "dfc2020")]
)
def test_dfc2020_labels(tmp_path, labels, name):
    roles = ("s1", "s2", "lc", "dfc")
    written = patch(tmp_path, "ROIs0000_winter", "MexicoCity", 440, roles=roles)
    source = open_folder("dfc2020", tmp_path, labels=labels, legend=name)
    assert source.legend == legend(name)
    found = source.labels(0, Window(0, 0, SIZE, SIZE)).astype(int)
    codes = written["dfc"][0] if labels == "dfc" else np.array(IGBP_TO_DFC)[written["lc"][0]]
    if name == "dfc2020":
        expected = np.where(codes == 0, IGNORE, codes - 1)
    else:  # classes above savanna move down by one
        expected = np.where((codes == 0) | (codes == 3), IGNORE, codes - 1 - (codes > 3))
    np.testing.assert_array_equal(found, expected)


def test_dfc2020_without_a_place_keeps_validation_and_test_apart(tmp_path):
    roles = ("s1", "s2", "dfc")
    for number in range(3):
        patch(tmp_path, "ROIs0000_validation", 0, number, crs=None, roles=roles)
        patch(tmp_path, "ROIs0000_test", 0, number, crs="EPSG:4326", left=0, roles=roles)
        for role in roles:  # a CRS beside GDAL's transform of no place
            path = tmp_path / "ROIs0000_test" / f"{role}_0"
            name = f"ROIs0000_test_{role}_0_p{number}.tif"
            write(path / name, values_of(role), Affine.identity(), "EPSG:4326")
    source = open_folder("dfc2020", tmp_path)
    assert {scene.crs for scene in source.scenes} == {None}
    groups = {scene.name: scene.group for scene in source.scenes}
    assert groups["ROIs0000_test_0_p2"] == "ROIs0000_test_0"
    assert groups["ROIs0000_validation_0_p0"] == "ROIs0000_validation_0"
    assert len(set(groups.values())) == 2


def test_data_sets_side_by_side_are_told_apart(tmp_path):
    patch(tmp_path, "ROIs1158_spring", 1, 30)
    patch(tmp_path, "ROIs0000_test", 0, 0, roles=("s1", "s2", "lc", "dfc"))
    cloudy = tmp_path / "ROIs1158_spring" / "s2_cloudy_1"
    write(cloudy / "ROIs1158_spring_s2_cloudy_1_p30.tif", values_of("s2"))
    (sen12ms,) = open_folder("sen12ms", tmp_path).scenes
    (contest,) = open_folder("dfc2020", tmp_path).scenes
    assert sen12ms.name == "ROIs1158_spring_1_p30"
    assert contest.name == "ROIs0000_test_0_p0"


def test_scenes_are_in_the_order_of_their_numbers_wherever_they_lie(tmp_path):
    for number in (2, 100, 30):
        patch(tmp_path, "ROIs1158_spring", 1, number, folder="all")
    names = [scene.name for scene in open_folder("sen12ms", tmp_path).scenes]
    assert names == [f"ROIs1158_spring_1_p{number}" for number in (2, 30, 100)]


def test_a_part_of_the_inputs(tmp_path):
    patch(tmp_path, "ROIs1158_spring", 1, 30, roles=("s2", "lc"))
    with pytest.raises(InputError, match=r"p30 has no image s1, expected ROIs1158_spring_s1_1_p30"):
        open_folder("sen12ms", tmp_path)
    source = open_folder("sen12ms", tmp_path, inputs=["s2"])
    assert list(source.cut(0, [Window(0, 0, 4, 4)])) == ["s2", "label"]
    for wrong in (["s3"], [], ["s2", "s2"]):
        with pytest.raises(InputError, match="expected s1, s2 or both"):
            open_folder("sen12ms", tmp_path, inputs=wrong)


def test_patches_must_be_complete(tmp_path):
    patch(tmp_path, "ROIs0000_winter", "MexicoCity", 1, roles=("s1", "s2", "dfc"))
    patch(tmp_path, "ROIs0000_winter", "MexicoCity", 2, roles=("s1", "s2"))
    message = r"1 of 2 .*MexicoCity_p2 has no mask, expected ROIs0000_winter_dfc_MexicoCity_p2\.tif"
    with pytest.raises(InputError, match=message):
        open_folder("dfc2020", tmp_path)
    assert len(open_folder("dfc2020", tmp_path, skip_unpaired=True).scenes) == 1


@pytest.mark.parametrize(
    ("role", "values", "place", "message"),
    [
        ("s2", np.ones((10, SIZE, SIZE), np.uint16), None, "10 bands, expected 13 for s2"),
        ("s1", np.ones((1, SIZE, SIZE)), None, "1 bands, expected 2 for s1"),
        ("lc", np.ones((1, SIZE, SIZE), np.uint8), None, "1 bands, expected 4 for lc"),
        ("s2", np.ones((13, SIZE, SIZE), np.float32), None, "is float32, expected integers"),
        ("s1", np.ones((2, SIZE, 9)), None, f"{SIZE} x 9 pixels, .*_p30.tif has|{SIZE} x {SIZE}"),
        ("lc", values_of("lc"), Affine(10, 0, 5e5, 0, -10, 5e6 + 10), "lies elsewhere"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, role, values, place, message):
    patch(tmp_path, "ROIs1158_spring", 1, 30)
    name = f"ROIs1158_spring_{role}_1_p30.tif"
    path = tmp_path / "ROIs1158_spring" / f"{role}_1" / name
    write(path, values, place or Affine(10, 0, 5e5, 0, -10, 5e6))
    with pytest.raises(InputError, match=message):
        _ = open_folder("sen12ms", tmp_path).scenes


def test_bad_folders_and_options_are_named(tmp_path):
    write(tmp_path / "a.tif", values_of("s1"))
    with pytest.raises(InputError, match="no patch of sen12ms, such as ROIs1158_spring/s2_1"):
        open_folder("sen12ms", tmp_path)
    with pytest.raises(InputError, match="no patch of dfc2020, such as ROIs0000_test/s2_0"):
        open_folder("dfc2020", tmp_path)
    with pytest.raises(InputError, match="labels are 'osm', expected dfc or lc"):
        open_folder("dfc2020", tmp_path, labels="osm")
    with pytest.raises(InputError, match="buffer is -1"):
        open_folder("sen12ms", tmp_path, buffer=-1)
    with pytest.raises(InputError, match="DFC2020 as 'igbp': expected one of dfc2020"):
        open_folder("dfc2020", tmp_path, legend="igbp")
    patch(tmp_path, "ROIs1158_spring", 1, 30)
    patch(tmp_path / "copy", "ROIs1158_spring", 1, 30)
    with pytest.raises(InputError, match=r"ROIs1158_spring_\w+_1_p30\.tif twice"):
        open_folder("sen12ms", tmp_path)


def test_regions_nearer_than_the_buffer_are_one_group(tmp_path):
    edge = SIZE * 10
    patch(tmp_path, "ROIs1158_spring", 1, 1, left=5e5)
    patch(tmp_path, "ROIs1868_summer", 9, 1, left=5e5 + edge + 500)
    patch(tmp_path, "ROIs1970_fall", 5, 1, left=5e5 + 2 * edge + 1000)
    patch(tmp_path, "ROIs2017_winter", 3, 1, left=5e5 + 3 * edge + 4000)

    def groups(**options):
        return [scene.group for scene in open_folder("sen12ms", tmp_path, **options).scenes]

    assert groups(buffer=600) == [*["ROIs1158_spring_1"] * 3, "ROIs2017_winter_3"]
    assert len(set(groups(buffer=400))) == 4
    assert len(set(groups())) == 2
    assert len(set(groups(buffer=4000))) == 1


def test_groups_reach_over_the_edge_of_a_zone(tmp_path):
    # Easting 750 km of zone 32 at 45 degrees north lies beyond its edge, in zone 33.
    x, y = Transformer.from_crs(UTM, "EPSG:32633", always_xy=True).transform(7.5e5, 5e6)
    patch(tmp_path, "ROIs1158_spring", 1, 1, left=7.5e5)
    patch(tmp_path, "ROIs1868_summer", 2, 1, left=x + 500, top=y, crs="EPSG:32633")
    found = open_folder("sen12ms", tmp_path, buffer=600).scenes
    assert {scene.group for scene in found} == {"ROIs1158_spring_1"}


def place(lon, lat, size=256):
    """A scene of that many 10 m pixels with its upper left corner there, in its UTM zone."""
    zone = int((lon + 180) // 6) % 60 + 1
    crs = f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    return Scene("", (size, size), crs, (10.0, 0.0, float(x), 0.0, -10.0, float(y)))


def outline(scene):
    """Longitude and latitude of points along the outline."""
    t = np.linspace(0, 2560, 33)
    x = np.concatenate([t, t, 0 * t, 0 * t + 2560]) + scene.transform[2]
    y = scene.transform[5] - np.concatenate([0 * t, 0 * t + 2560, t, t])
    return Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True).transform(x, y)


@given(
    lon=st.sampled_from([-179.999, 0.01, 5.99, 100.0, 179.98]),
    lat=st.floats(-75, 75),
    bearing=st.floats(0, 360),
    distance=st.floats(100, 12_000),
    buffer=st.floats(50, 6_000),
)
def test_closer_than_the_buffer_always_means_one_group(lon, lat, bearing, distance, buffer):
    far_lon, far_lat, _ = Geod(ellps="WGS84").fwd(lon, lat, bearing, distance)
    scenes = [place(lon, lat), place(far_lon, far_lat)]
    groups = near.joined(["b", "a"], scenes, buffer)
    (lon0, lat0), (lon1, lat1) = map(outline, scenes)
    pairs = np.broadcast_arrays(lon0[:, None], lat0[:, None], lon1[None], lat1[None])
    apart = Geod(ellps="WGS84").inv(*(np.ascontiguousarray(p) for p in pairs))[2].min()
    if apart <= buffer:
        assert groups == ["a", "a"]
    elif apart > 2 * buffer + 2000:  # boxes around tilted patches reach farther, but not this far
        assert groups == ["b", "a"]


def test_scenes_without_a_place_stay_with_their_region():
    nowhere = Scene("", (9, 9), None, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    assert near.joined(["b", "a", "b"], [nowhere] * 3, 1e6) == ["b", "a", "b"]
    here = place(5, 45)
    assert near.joined(["b", "a", "c"], [nowhere, here, here], 100) == ["b", "a", "a"]
