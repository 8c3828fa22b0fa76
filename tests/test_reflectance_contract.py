"""The reflectance contract of Sentinel-2 L2A, per asset, on real and on minimal items."""

from __future__ import annotations

import copy
import json
import warnings

import pytest

from lcengine.errors import ContractError, InputError
from lcengine.items import Items
from lcengine.sensors import normalise, registry, sensor
from lcengine.sensors.base import QUANTITIES

EARTH_SEARCH = "earth-search.aws.element84.com__"
TRAP_PAIR = (
    EARTH_SEARCH + "sentinel-2-l2a__S2B_24MUA_20250731_0_L2A.json",
    EARTH_SEARCH + "sentinel-2-c1-l2a__S2B_T24MUA_20250731T130245_L2A.json",
)
PLANETARY_COMPUTER = (
    "planetarycomputer.microsoft.com__sentinel-2-l2a__"
    "S2A_MSIL2A_20190101T000001_R116_T59VNF_20201007T214654.json"
)
OPTICAL = [b.name for b in sensor("sentinel-2-l2a").bands if b.kind == "reflectance"]


def stac_item(key="red", baseline=None, properties=None, **asset):
    stated = {"s2:processing_baseline": baseline} if baseline is not None else {}
    return {
        "type": "Feature",
        "id": "S2_test",
        "collection": "sentinel-2-l2a",
        "bbox": [3.0, 50.0, 4.0, 51.0],
        "properties": {
            "datetime": "2018-06-01T10:50:00Z",
            "platform": "Sentinel-2A",
            "proj:epsg": 32631,
            **stated,
            **(properties or {}),
        },
        "assets": {
            key: {
                "href": "https://example.com/B04.tif",
                "proj:shape": [64, 64],
                "proj:transform": [10, 0, 500000, 0, -10, 5700000],
                **asset,
            }
        },
    }


def raster_bands(**values):
    return {"raster:bands": [{"nodata": 0, "data_type": "uint16", **values}]}


@pytest.fixture
def real(shared_data):
    def read(name):
        return json.loads((shared_data / "stac-items" / name).read_text())

    return read


def offsets(item):
    return {name: asset.offset for name, asset in item.assets.items() if name in OPTICAL}


def test_trap_pair_applied_flag_beats_the_stated_offset(real):
    applied, explicit = (normalise(real(name)) for name in TRAP_PAIR)
    assert set(offsets(applied)) == set(OPTICAL)
    assert set(offsets(applied).values()) == {0.0}
    assert {applied.asset(b).contract for b in OPTICAL} == {"earthsearch:boa_offset_applied"}
    assert set(offsets(explicit).values()) == {-0.1}
    assert {explicit.asset(b).contract for b in OPTICAL} == {"asset"}
    assert {applied.asset(b).scale for b in OPTICAL} == {1e-4}


def test_trap_pair_is_one_scene(real):
    items = Items.of(normalise(real(name)) for name in TRAP_PAIR)
    assert len(items) == 1
    assert len(items.superseded) == 1
    assert items[0].tile == "24MUA"
    assert items[0].sensing == "20250731T130245"


@pytest.mark.parametrize("name", [*TRAP_PAIR, PLANETARY_COMPUTER])
def test_mask_band_is_categorical_in_every_layout(real, name):
    scl = normalise(real(name)).asset("scl")
    assert (scl.scale, scl.offset, scl.nodata, scl.contract) == (1.0, 0.0, 0.0, "categorical")


@pytest.mark.parametrize("name", [*TRAP_PAIR, PLANETARY_COMPUTER])
def test_real_items_have_all_bands_at_their_resolution(real, name):
    item = normalise(real(name))
    assert {*OPTICAL, "scl"} <= set(item.assets) <= {*OPTICAL, "scl", "cloud_probability"}
    for band in (b for b in sensor("sentinel-2-l2a").bands if b.name in (*OPTICAL, "scl")):
        asset = item.asset(band.name)
        assert asset.transform[0] == band.resolution
        assert asset.shape == (int(109800 / band.resolution),) * 2
        assert asset.crs.startswith("EPSG:32")
        assert asset.nodata == 0
        assert asset.href.startswith("https://")


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.12", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.09", -0.1), ("05.11", -0.1)],
)
def test_planetary_computer_offset_follows_the_baseline(real, baseline, offset):
    stac = real(PLANETARY_COMPUTER)
    stac["properties"]["s2:processing_baseline"] = baseline
    item = normalise(stac)
    assert set(offsets(item).values()) == {offset}
    assert item.asset("red").contract == f"baseline {baseline}"
    # 2019 and still -0.1 for a reprocessed scene: the date never decides
    assert item.datetime.year == 2019


@pytest.mark.parametrize(
    ("spelled", "baseline", "offset"),
    [("N0212", "02.12", 0.0), ("0511", "05.11", -0.1), ("5.11", "05.11", -0.1)],
)
def test_spellings_of_the_baseline(spelled, baseline, offset):
    for name in ("s2:processing_baseline", "processing:version"):
        item = normalise(stac_item(properties={name: spelled}))
        assert (item.baseline, item.asset("red").offset) == (baseline, offset)


def test_flag_false_with_new_baseline_warns_and_follows_the_asset():
    flag = {"earthsearch:boa_offset_applied": False}
    stac = stac_item(baseline="05.00", properties=flag, **raster_bands(scale=1e-4, offset=-0.1))
    with pytest.warns(UserWarning, match="S2_test .*boa_offset_applied=false.*--offset 0"):
        asset = normalise(stac).asset("red")
    assert (asset.offset, asset.contract) == (-0.1, "asset")


def test_flag_false_with_old_baseline_is_silent():
    flag = {"earthsearch:boa_offset_applied": False}
    stac = stac_item(baseline="02.12", properties=flag, **raster_bands(scale=1e-4, offset=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert normalise(stac).asset("red").offset == 0.0


def test_applied_flag_does_not_cover_jp2_assets(real):
    flag = {"earthsearch:boa_offset_applied": True}
    stac = stac_item("red-jp2", "05.11", flag, **raster_bands(scale=1e-4, offset=-0.1))
    assert normalise(stac).asset("red").offset == -0.1
    silent = stac_item("red-jp2", "05.11", flag)
    assert normalise(silent).asset("red").contract == "baseline 05.11"
    assert normalise(silent).asset("red").offset == -0.1


def test_applied_flag_and_jp2_on_the_real_item(real):
    stac = real(TRAP_PAIR[0])
    del stac["assets"]["red"]  # only red-jp2 is left
    item = normalise(stac)
    assert item.asset("red").href.endswith("B04.jp2")
    assert item.asset("red").offset == -0.1
    assert item.asset("green").offset == 0.0


@pytest.mark.parametrize(
    ("asset", "scale", "offset"),
    [
        (raster_bands(scale=1e-4, offset=-0.1), 1e-4, -0.1),
        (raster_bands(scale=2e-5, offset=0), 2e-5, 0.0),
        ({"raster:scale": 1e-4, "raster:offset": -0.1}, 1e-4, -0.1),
        ({"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}]}, 1e-4, -0.1),
    ],
)
def test_stated_offset_beats_the_baseline(asset, scale, offset):
    red = normalise(stac_item(baseline="03.00" if offset else "05.11", **asset)).asset("red")
    assert (red.scale, red.offset, red.contract) == (scale, offset, "asset")


def test_scale_alone_leaves_the_offset_to_the_baseline():
    red = normalise(stac_item(baseline="04.00", **raster_bands(scale=1e-4))).asset("red")
    assert (red.offset, red.contract) == (-0.1, "baseline 04.00")


@pytest.mark.parametrize("baseline", [None, "", "unknown"])
def test_no_information_is_a_named_error_with_the_remedy(baseline):
    with pytest.raises(ContractError, match=r"S2_test asset red .*--offset 0 or --offset -0\.1"):
        normalise(stac_item(baseline=baseline))


def test_override_beats_everything_but_the_mask_band(real):
    assert normalise(stac_item(), offset=-0.1).asset("red").contract == "override"
    for name in (*TRAP_PAIR, PLANETARY_COMPUTER):
        item = normalise(real(name), offset=-0.05)
        assert set(offsets(item).values()) == {-0.05}
        assert item.asset("scl").offset == 0.0


def test_saved_items_keep_their_contract_and_can_be_overridden(real):
    item = normalise(real(TRAP_PAIR[0]))
    saved = item.to_stac()
    assert normalise(saved) == item
    changed = normalise(saved, offset=-0.1)
    assert set(offsets(changed).values()) == {-0.1}
    assert changed.asset("red").contract == "override"
    assert changed.asset("scl") == item.asset("scl")
    assert (changed.scene, changed.baseline) == (item.scene, item.baseline)


def test_saved_item_of_an_unknown_sensor_is_refused(real):
    saved = normalise(real(TRAP_PAIR[0])).to_stac()
    saved["properties"]["lcengine:sensor"] = "balloon"
    with pytest.raises(InputError, match="no sensor is called 'balloon'"):
        normalise(saved)


@pytest.mark.parametrize("place", ["asset", "properties"])
@pytest.mark.parametrize(
    "stated", [{"proj:epsg": 32632}, {"proj:code": "EPSG:32632"}, {"proj:wkt2": "EPSG:32632"}]
)
def test_crs_in_any_version_of_the_projection_extension(place, stated):
    stac = stac_item(baseline="05.11")
    del stac["properties"]["proj:epsg"]
    target = stac["assets"]["red"] if place == "asset" else stac["properties"]
    target.update(stated)
    assert normalise(stac).crs == "EPSG:32632"


def test_missing_crs_and_grid_are_named():
    stac = stac_item(baseline="05.11")
    del stac["properties"]["proj:epsg"]
    with pytest.raises(ContractError, match="S2_test states no CRS"):
        normalise(stac)
    for key in ("proj:shape", "proj:transform"):
        stac = stac_item(baseline="05.11")
        del stac["assets"]["red"][key]
        with pytest.raises(ContractError, match="without proj:transform and proj:shape"):
            normalise(stac)


def test_rotated_raster_is_refused():
    stac = stac_item(baseline="05.11", **{"proj:transform": [10, 1, 0, 0, -10, 0]})
    with pytest.raises(ContractError, match="rotated or flipped"):
        normalise(stac)


def test_unknown_collection_names_the_known_ones(real):
    stac = copy.deepcopy(stac_item(baseline="05.11"))
    stac["collection"] = "landsat-c2-l9"
    with pytest.raises(InputError, match=r"'landsat-c2-l9', which no sensor reads.*sentinel-2-l2a"):
        normalise(stac)


def test_item_without_any_band_says_what_it_has():
    with pytest.raises(InputError, match="no Sentinel-2 band; its assets are thumbnail"):
        normalise(stac_item("thumbnail"))


def test_registry_finds_a_sensor_by_name_and_collection():
    assert sensor("sentinel-2-c1-l2a") is sensor("sentinel-2-l2a")
    for entry in registry().values():
        assert all(entry.band(band).kind in QUANTITIES for band in entry.default_bands)
    with pytest.raises(InputError, match="no band 'purple'; it has coastal"):
        sensor("sentinel-2-l2a").band("purple")
