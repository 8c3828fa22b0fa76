"""Items of every provider as they really are: what the JSON says is what the reader is told."""

from __future__ import annotations

import asyncio
import copy
import json

import pyarrow.parquet as pq
import pytest
from stac_geoparquet import arrow

from lcengine.catalog import Query, search
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.errors import ContractError, InputError, NoItemsError
from lcengine.grid import Grid
from lcengine.items import Item, Items
from lcengine.sensors import collections_of, normalise, recognise, sensor

EARTH_SEARCH = "earth-search.aws.element84.com__"
LANDSAT = EARTH_SEARCH + "landsat-c2-l2__LC08_L2SP_033032_20231008_02_T1.json"
GRD = (
    EARTH_SEARCH
    + "sentinel-1-grd__S1A_IW_GRDH_1SSH_20250731T135608_20250731T135637_060328_077F7E.json"
)
RTC = "sentinel-1-rtc-pc.json"
PLANET = "psscene.json"
S2 = "sentinel-2-l2a__S2B_24MUA_20250731_0_L2A.json"


@pytest.fixture
def real(shared_data):
    def read(name, number=0):
        document = json.loads((shared_data / "stac-items" / name).read_text())
        return document[number] if isinstance(document, list) else document

    return read


def grid_of(stac, asset):
    """(CRS, transform, shape) of an asset as the JSON has them."""
    holders = (asset, stac["properties"])
    crs, transform, shape = (
        next(h[name] for h in holders if h.get(name))
        for name in ("proj:epsg", "proj:transform", "proj:shape")
    )
    return f"EPSG:{crs}", tuple(map(float, transform[:6])), tuple(shape)


def grid(asset):
    return asset.crs, asset.transform, asset.shape


def without(stac, *path):
    """A copy that lacks one entry."""
    changed = copy.deepcopy(stac)
    *parents, last = path
    node = changed
    for name in parents:
        node = node[name]
    del node[last]
    return changed


def with_properties(stac, **values):
    changed = copy.deepcopy(stac)
    changed["properties"].update(values)
    return changed


class TestLandsat:
    def test_is_what_the_json_says(self, real):
        stac = real(LANDSAT)
        item = normalise(stac)
        keys = {name: "nir08" if name == "nir" else name for name in item.assets}
        assert set(item.assets) == {band.name for band in sensor("landsat-c2-l2").bands}
        for name, asset in item.assets.items():
            source = stac["assets"][keys[name]]
            band = source["raster:bands"][0]
            assert asset.href == source["href"]
            assert grid(asset) == grid_of(stac, source)
            assert asset.nodata == band["nodata"]
            if name != "qa_pixel":
                assert (asset.scale, asset.offset) == (band["scale"], band["offset"])
                assert (asset.scale, asset.offset) == (2.75e-5, -0.2)
                assert (asset.contract, asset.unit) == ("asset", "reflectance")
        qa = item.asset("qa_pixel")
        assert (qa.scale, qa.offset, qa.nodata) == (1.0, 0.0, 1.0)
        assert (item.tile, item.platform) == ("033032", "landsat-8")
        assert item.cloud_cover == stac["properties"]["eo:cloud_cover"]

    def test_its_grid_is_half_a_pixel_off(self, real):
        asset = normalise(real(LANDSAT)).asset("red")
        dx, _, left, _, dy, top = asset.transform
        anchor = sensor("landsat-c2-l2").anchor
        assert (left / dx) % 1 == (top / dy) % 1 == anchor == 0.5

    def test_the_newest_processing_counts(self, real):
        old = normalise(real(LANDSAT))
        stac = with_properties(real(LANDSAT), **{"landsat:product_generated": "2024-02-03T00:00Z"})
        stac["id"] = "again"
        new = normalise(stac)
        assert (old.baseline, new.baseline) == ("02.20231017", "02.20240203")
        items = Items.of([new, old])
        assert ([i.id for i in items], items.superseded) == (["again"], (old.id,))

    def test_processing_is_told_by_the_names_of_files_too(self, real):
        assert normalise(
            without(real(LANDSAT), "properties", "landsat:product_generated")
        ).baseline == ("02.20231017")

    def test_what_is_not_stated_is_the_collection_s(self, real):
        red = normalise(without(real(LANDSAT), "assets", "red", "raster:bands")).asset("red")
        assert (red.scale, red.offset, red.nodata) == (2.75e-5, -0.2, 0.0)
        assert red.contract == "Collection 2 Level-2"

    def test_override(self, real):
        item = normalise(real(LANDSAT), offset=-0.1)
        assert (item.asset("red").offset, item.asset("red").contract) == (-0.1, "override")
        assert item.asset("qa_pixel").offset == 0.0

    def test_no_reflectance_is_named(self, real):
        stac = real(LANDSAT)
        stac["assets"] = {"qa_pixel": stac["assets"]["qa_pixel"]}
        with pytest.raises(InputError, match=r"no surface reflectance; its assets are qa_pixel"):
            normalise(stac)


class TestSentinel1:
    @pytest.mark.parametrize("number", range(4))
    def test_rtc_is_what_the_json_says(self, real, number):
        stac = real(RTC, number)
        item = normalise(stac)
        assert set(item.assets) == {"vv", "vh"}
        for name, asset in item.assets.items():
            source = stac["assets"][name]
            assert asset.href == source["href"]
            assert grid(asset) == grid_of(stac, source)
            assert asset.nodata == source["raster:bands"][0]["nodata"] == -32768
            assert (asset.scale, asset.offset, asset.unit) == (1.0, 0.0, "power")
        properties = stac["properties"]
        assert item.orbit_state == properties["sat:orbit_state"] == "descending"
        assert item.relative_orbit == properties["sat:relative_orbit"]
        assert item.sensing == stac["id"].split("_")[4]
        assert (item.platform, item.cloud_cover) == ("sentinel-1a", None)

    def test_slices_of_one_pass_are_different_scenes_of_one_observation(self, real):
        items = Items.of(normalise(real(RTC, number)) for number in range(4))
        assert len(items) == 4
        again = normalise(real(RTC, 0) | {"id": real(RTC, 0)["id"] + "_again"})
        assert len(Items.of([*items, again])) == 4

    @pytest.mark.parametrize(
        "name", ["S1_31UDS", "S1A_IW_{}_20230601T055810_20230601T055835_31UDS"]
    )
    def test_tiles_cut_from_one_slice_are_all_kept(self, shared_data, name):
        # No grid:code: the tiles share platform, orbit and second, and nothing but pixels differs.
        folder = shared_data / "flanders-2018" / "sentinel-1-grd"
        stac = json.loads(min(folder.glob("S1_*/*.json")).read_text())
        stac = with_properties(stac, **{"sat:relative_orbit": 88}) | {"id": name.format("GRDH")}
        east = copy.deepcopy(stac) | {"id": name.format("GRDN")}
        for asset in east["assets"].values():
            asset["proj:transform"][2] += 100_000
        items = Items.of([normalise(stac), normalise(east)])
        assert (len(items), items.superseded) == (2, ())
        newer = with_properties(stac, **{"processing:version": "004.00"}) | {
            "id": f"{stac['id']}_2"
        }
        kept = Items.of([*items, normalise(newer)])
        assert (len(kept), kept.superseded) == (2, (stac["id"],))

    def test_grd_on_a_map_grid_is_what_the_json_says(self, shared_data):
        folder = shared_data / "flanders-2018" / "sentinel-1-grd"
        paths = sorted(folder.glob("S1_*/*.json"))
        assert len(paths) == 159
        states = set()
        for path in paths:
            stac = json.loads(path.read_text())
            item = normalise(stac)
            assert set(item.assets) == {p.lower() for p in stac["properties"]["sar:polarizations"]}
            for name, asset in item.assets.items():
                source = stac["assets"][name]
                band = source["raster:bands"][0]
                assert grid(asset) == grid_of(stac, source)
                assert (asset.nodata, asset.scale) == (band["nodata"], band["scale"])
                assert (asset.offset, asset.unit) == (band["offset"], "decibel")
            assert item.orbit_state == stac["properties"]["sat:orbit_state"]
            states.add(item.orbit_state)
        assert states == {"ascending"}  # both tracks are seen in the evening

    def test_a_stated_unit_counts(self, real):
        stac = real(RTC)
        stac["assets"]["vv"]["raster:bands"][0]["unit"] = "dB"
        item = normalise(stac)
        assert (item.asset("vv").unit, item.asset("vh").unit) == ("decibel", "power")
        stac["assets"]["vh"]["raster:bands"][0]["unit"] = "furlong"
        with pytest.raises(ContractError, match=r"asset vh is in 'furlong', expected dB or linear"):
            normalise(stac)

    def test_radar_geometry_is_refused_by_name(self, real):
        with pytest.raises(
            ContractError, match=r"S1A_IW_GRDH.*radar geometry .*; take .*sentinel-1-rtc"
        ):
            normalise(real(GRD))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"proj:transform": [0.0, 10, 0, 10, 0, 0]}, "not north-up"),
            ({"proj:transform": None}, "no proj:transform"),
            ({"proj:shape": None}, "no proj:shape"),
            ({"s1:shape": [19623, 25386]}, "shape of the GRD product"),
        ],
    )
    def test_radar_geometry_of_a_copied_file_too(self, real, change, reason):
        stac = without(with_properties(real(GRD), **change), "properties", "sat:orbit_state")
        stac["assets"]["hh"]["href"] = "copied/iw-hh.tiff"
        with pytest.raises(ContractError, match=rf"radar geometry \(asset hh .*{reason}"):
            normalise(stac)

    def test_backscatter_has_no_reflectance_offset(self, real):
        item = normalise(real(RTC))
        for stac in (real(RTC), item.to_stac()):
            with pytest.raises(InputError, match=r"offset is 0, .* has no reflectance"):
                normalise(stac, offset=0.0)

    def test_no_polarisation_is_named(self, real):
        with pytest.raises(InputError, match="no polarisation vv, vh, hh, hv; its assets are"):
            normalise(without(without(real(RTC), "assets", "vv"), "assets", "vh"))

    def test_orbit_survives_saving(self, real, tmp_path):
        items = Items.of(normalise(real(RTC, number)) for number in range(4))
        items.save(tmp_path / "items.json")
        assert Items.load(tmp_path / "items.json") == items
        plain = items[0].to_stac()
        assert plain["properties"]["sat:relative_orbit"] == items[0].relative_orbit


class TestPlanetScope:
    IMAGE = "20210129_075502_95_2223_3B_AnalyticMS_clip_tif"
    UDM = "20210129_075502_95_2223_3B_udm2_clip_tif"

    def test_is_what_the_json_says(self, real):
        stac = real(PLANET)
        item = normalise(stac)
        image = stac["assets"][self.IMAGE]
        for number, stated in enumerate(image["eo:bands"], 1):
            asset = item.asset(stated["common_name"])
            band = image["raster:bands"][number - 1]
            assert (asset.band, asset.href) == (number, image["href"])
            assert grid(asset) == grid_of(stac, image)
            assert (asset.scale, asset.offset, asset.nodata) == (band["scale"], 0.0, band["nodata"])
            assert (asset.contract, asset.unit) == ("toa, asset", "reflectance")
        assert (item.sensor, item.platform) == ("planetscope", "2223")

    def test_udm2_is_eight_bands_of_one_file(self, real):
        stac = real(PLANET)
        item = normalise(stac)
        words = ("clear", "snow", "shadow", "light haze", "heavy haze", "cloud", "", "unusable")
        names = [band.name for band in sensor("planetscope").bands if band.name.startswith("udm_")]
        for number, (name, word) in enumerate(zip(names, words, strict=True), 1):
            said = stac["assets"][self.UDM]["eo:bands"][number - 1]["description"]
            assert said.lower().startswith(word)
            asset = item.asset(name)
            assert (asset.band, asset.nodata) == (number, None)
            assert asset.href == stac["assets"][self.UDM]["href"]
            assert grid(asset) == grid(item.asset("red"))

    def test_is_recognised_without_a_collection(self, real):
        stac = real(PLANET)
        assert "collection" not in stac
        assert normalise(stac).collection == "planetscope"
        assert recognise(without(stac, "properties", "pl:item_type")) is sensor("planetscope")
        assert recognise(with_properties(stac, **{"pl:item_type": "SkySatScene"})) is None
        assert normalise(stac | {"collection": "1f2e-order"}).collection == "1f2e-order"

    def test_surface_reflectance_comes_first(self, real):
        stac = real(PLANET)
        better = copy.deepcopy(stac["assets"][self.IMAGE])
        better["href"] = "./x_3B_AnalyticMS_SR_8b_clip.tif"
        better["pl:asset_type"] = "ortho_analytic_8b_sr"
        better["raster:bands"] = [{"nodata": 0, "data_type": "uint16"}] * 8
        stac["assets"]["ortho_analytic_8b_sr"] = better
        item = normalise(stac)
        order = ["coastal", "blue", "green1", "green", "yellow", "red", "rededge1", "nir"]
        assert [b for b in item.assets if not b.startswith("udm")] == order
        for number, name in enumerate(order, 1):
            asset = item.asset(name)
            assert (asset.band, asset.scale, asset.contract) == (number, 1e-4, "sr, default")

    def test_top_of_atmosphere_without_scale_is_a_guess(self, real):
        with pytest.raises(ContractError, match=r"states no scale of its band 1 \(blue\).*XML"):
            normalise(without(real(PLANET), "assets", self.IMAGE, "raster:bands"))

    @pytest.mark.parametrize(
        "entry",
        [{"unit": "W/(m² sr μm)", "scale": 2e-5}, {"unit": "W⋅sr−1⋅m−2⋅nm−1"}, {"scale": 0.01}],
    )
    def test_radiance_is_refused(self, real, entry):
        stac = real(PLANET)
        for band in stac["assets"][self.IMAGE]["raster:bands"]:
            band.update(entry)
        with pytest.raises(ContractError, match=r"is radiance .*reflectanceCoefficient"):
            normalise(stac)

    @pytest.mark.parametrize("key", ["eo:bands", "bands"])
    def test_another_order_of_bands_is_refused(self, real, key):
        stac = real(PLANET)
        image = stac["assets"][self.IMAGE]
        image[key] = image.pop("eo:bands")[::-1]
        with pytest.raises(ContractError, match=r"says nir of its band blue; .* blue, green, red"):
            normalise(stac)

    def test_levels_are_not_mixed(self, real):
        top = real(PLANET)
        surface = copy.deepcopy(top) | {"id": "surface"}
        surface["assets"]["ortho_analytic_4b_sr"] = surface["assets"].pop(self.IMAGE)
        surface["properties"]["datetime"] = "2021-02-01T08:00:00Z"
        items = Items.of([normalise(top), normalise(surface)])
        grid = Grid.from_asset(items[0].asset("red"))
        with pytest.raises(ContractError, match=r"levels \(toa as 2021.*, sr as surface\)"):
            plan_composite(items, grid, CompositeSpec())
        one = items.filter(lambda item: item.asset("red").contract.startswith("sr"))
        assert len(plan_composite(one, grid, CompositeSpec()).items) == 1

    def test_three_bands_are_refused(self, real):
        stac = real(PLANET)
        del stac["assets"][self.IMAGE]["raster:bands"][3]
        with pytest.raises(ContractError, match="has 3 bands, expected 4 or 8"):
            normalise(stac)

    def test_legacy_udm_is_one_band(self, real):
        stac = real(PLANET)
        mask = stac["assets"].pop(self.UDM)
        mask["raster:bands"] = mask["raster:bands"][:1]
        del mask["eo:bands"]
        stac["assets"]["x_3B_AnalyticMS_DN_udm_clip_tif"] = mask
        item = normalise(stac)
        assert [b for b in item.assets if b.startswith("udm")] == ["udm_unusable"]
        assert item.asset("udm_unusable").band == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"raster:bands": [{}] * 5}, "has 5 bands, expected the 8 of UDM2 or the 1 of UDM"),
            ({"proj:shape": [95, 48]}, r"has \(95, 48\) pixels at .*expected the image's \(95, 49"),
        ],
    )
    def test_a_mask_of_the_wrong_shape_is_named(self, real, change, message):
        stac = real(PLANET)
        stac["assets"][self.UDM].update(change)
        with pytest.raises(ContractError, match=message):
            normalise(stac)

    def test_override_keeps_the_level(self, real):
        asset = normalise(real(PLANET), offset=0.01).asset("nir")
        assert (asset.offset, asset.contract) == (0.01, "toa, override")

    def test_no_image_is_named(self, real):
        with pytest.raises(InputError, match="no ortho analytic image; its assets are"):
            normalise(without(real(PLANET), "assets", self.IMAGE))


NATIVE = {"coastal": 60, "nir08": 20, "swir16": 20, "scl": 20}
NATIVE |= dict.fromkeys(("blue", "green", "red", "nir"), 10)
CDSE_KEYS = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "nir": "B08",
    "nir08": "B8A",
    "swir16": "B11",
    "scl": "SCL",
}


def cdse_item(version):
    """A small item in the layout of the Copernicus Data Space: every band at 20 m as well."""
    assets = {}
    for name, key in CDSE_KEYS.items():
        for resolution in sorted({NATIVE[name], 60, 20}):
            size = 109800 // resolution
            asset = {
                "href": f"s3://eodata/Sentinel-2/T31UFS_{key}_{resolution}m.jp2",
                "type": "image/jp2",
                "proj:shape": [size, size],
                "proj:transform": [resolution, 0, 600000, 0, -resolution, 5700000],
            }
            stated = {"scale": 1e-4, "offset": -0.1} if name != "scl" else {}
            if version == "1.0.0":
                asset |= {"raster:bands": [{"nodata": 0, "data_type": "uint16", **stated}]}
            else:
                asset |= {"bands": [{"name": key}], "nodata": 0, "data_type": "uint16"}
                asset |= {f"raster:{k}": v for k, v in stated.items()}
            assets[f"{key}_{resolution}m"] = asset
    crs = {"proj:epsg": 32631} if version == "1.0.0" else {"proj:code": "EPSG:32631"}
    return {
        "type": "Feature",
        "stac_version": version,
        "id": "S2A_MSIL2A_20240501T105031_N0510_R051_T31UFS_20240501T150000",
        "collection": "sentinel-2-l2a",
        "bbox": [4.4, 50.4, 6.0, 51.5],
        "properties": {
            "datetime": "2024-05-01T10:50:31.024000Z",
            "platform": "sentinel-2a",
            "processing:version": "05.10",
            "eopf:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20240501T150000_S20240501T105351_N05.10",
            "grid:code": "MGRS-31UFS",
            "eo:cloud_cover": 12.5,
            "sat:orbit_state": "descending",
            "sat:relative_orbit": 51,
            **crs,
        },
        "assets": assets,
    }


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_sentinel2_of_the_copernicus_data_space(version):
    stac = cdse_item(version)
    item = normalise(stac)
    assert set(item.assets) == set(CDSE_KEYS)
    for name, asset in item.assets.items():
        source = stac["assets"][f"{CDSE_KEYS[name]}_{NATIVE[name]}m"]
        assert asset.href == source["href"]
        assert grid(asset) == (
            "EPSG:32631",
            tuple(map(float, source["proj:transform"])),
            tuple(source["proj:shape"]),
        )
        values = (1.0, 0.0, "categorical") if name == "scl" else (1e-4, -0.1, "asset")
        assert (asset.scale, asset.offset, asset.contract) == values
        assert asset.nodata == 0.0
    assert (item.tile, item.baseline, item.sensing) == ("31UFS", "05.10", "20240501T105351")
    assert (item.orbit_state, item.relative_orbit) == ("descending", 51)
    assert Item.from_stac(item.to_stac()) == item


def test_chips_cut_from_one_tile_are_all_kept(shared_data):
    folder = shared_data / "flanders-2018" / "sentinel-2-l2a"
    chip = json.loads(min(folder.glob("S2_*/*.json")).read_text())
    east = copy.deepcopy(chip) | {"id": "east"}
    for asset in east["assets"].values():
        asset["proj:transform"][2] += 640
    again = with_properties(chip, **{"processing:version": "05.11"}) | {"id": "again"}
    items = Items.of(map(normalise, (chip, east, again)))
    assert ({item.id for item in items}, items.superseded) == ({"again", "east"}, (chip["id"],))


def test_names_of_sensors_stand_for_their_collections():
    assert collections_of("planetscope") == ("planetscope", "PSScene", "psscene")
    # A collection's own id means that collection alone.
    assert collections_of("sentinel-2-l2a") == ("sentinel-2-l2a",)
    assert collections_of("sentinel-2-c1-l2a") == ("sentinel-2-c1-l2a",)
    assert collections_of("of-nobody") == ("of-nobody",)


@pytest.mark.parametrize("name", [LANDSAT, RTC, PLANET])
@pytest.mark.parametrize("entry", ["proj:transform", "proj:epsg"])
def test_an_item_without_georeferencing_is_named(real, name, entry):
    stac = without(real(name), "properties", entry)
    with pytest.raises(ContractError, match=rf"item {stac['id']} .*(CRS|proj:transform)"):
        normalise(stac)


@pytest.mark.parametrize("name", [LANDSAT, RTC, PLANET, EARTH_SEARCH + S2])
def test_a_range_of_time_is_a_time(real, name):
    # STAC: `datetime` may be null where start_datetime and end_datetime are stated.
    when = real(name)["properties"]["datetime"]
    expected = normalise(real(name)).datetime
    stac = with_properties(real(name), datetime=None, start_datetime=when, end_datetime=when)
    assert normalise(stac).datetime == expected
    assert normalise(without(stac, "properties", "datetime")).datetime == expected


@pytest.mark.parametrize("scale", [0, "nan", float("inf")])
def test_a_scale_that_says_nothing_is_refused(real, scale):
    for name in (LANDSAT, RTC, PLANET):
        stac = real(name)
        for asset in stac["assets"].values():
            for band in asset.get("raster:bands") or ():
                band.update(scale=scale, offset=0)
        with pytest.raises(ContractError, match=r"states scale (0|nan|inf).* and offset 0"):
            normalise(stac)


@pytest.mark.parametrize(
    "grid",
    [
        {"proj:shape": [0, 0]},
        {"proj:shape": [-1, 5]},
        {"proj:transform": [float("nan"), 0, 0, 0, -30, 0]},
        {"proj:transform": [30, 0, float("inf"), 0, -30, 0]},
    ],
)
def test_a_grid_of_nothing_is_refused(real, grid):
    stac = real(LANDSAT)
    for asset in stac["assets"].values():
        asset.update(grid)
    with pytest.raises(ContractError, match=r"LC08_.* pixels at .*; expected at least one pixel"):
        normalise(stac)


class TestSearch:
    """Items files without collections, and sensors by name."""

    def file(self, tmp_path, *stacs):
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": list(stacs)}))
        return path

    @pytest.mark.parametrize("collections", [(), ("planetscope",)])
    def test_a_scene_that_names_no_collection_is_found(self, real, tmp_path, collections):
        (item,) = search(self.file(tmp_path, real(PLANET)), collections)
        assert (item.sensor, item.collection) == ("planetscope", "planetscope")
        assert item.asset("red").href.startswith(str(tmp_path))

    def test_a_sensor_s_name_finds_its_collections_alone(self, real, tmp_path):
        planet = real(PLANET) | {"collection": "PSScene"}
        path = self.file(tmp_path, planet, real(LANDSAT), real(RTC))
        assert [i.sensor for i in search(path, ["planetscope"])] == ["planetscope"]
        assert [i.sensor for i in search(path, ["sentinel-1-rtc"])] == ["sentinel-1-rtc"]
        with pytest.raises(InputError, match="holds 3 collections"):
            search(path)
        with pytest.raises(NoItemsError, match="there is no sentinel-1-grd"):
            search(path, ["sentinel-1-grd"])

    def test_what_nobody_recognises_is_what_the_user_says(self, real, tmp_path):
        path = self.file(tmp_path, without(real(LANDSAT), "collection"))
        (item,) = search(path, ["landsat-c2-l2"])
        assert item.sensor == "landsat-c2-l2"
        with pytest.raises(InputError, match="which no sensor reads; expected one of"):
            search(path)

    def test_items_in_radar_geometry_end_the_search(self, real, tmp_path):
        with pytest.raises(ContractError, match="is in radar geometry"):
            search(self.file(tmp_path, real(GRD)))

    @pytest.mark.parametrize("number", [0, 2])
    def test_a_search_saves_tables_that_can_be_searched(self, run, real, tmp_path, number):
        source = self.file(tmp_path, *(real(RTC, n) for n in range(4)))
        table = tmp_path / "items.parquet"
        code, out, err = run("search", source, "-o", table, "--json")
        assert code == 0, err
        assert json.loads(out)["contracts"] == {"power (power, default)": 4}
        assert search(table) == search(source) == Items.load(table)
        day = real(RTC, number)["properties"]["datetime"]
        (one,) = search(table, where=[f"datetime={day}"])
        assert one.id == real(RTC, number)["id"]

    def test_tables_of_other_libraries(self, real, tmp_path):
        for stacs in ([real(RTC, n) for n in range(4)], [real(LANDSAT)], [real(PLANET)]):
            path = tmp_path / "theirs.parquet"
            arrow.to_parquet(arrow.parse_stac_items_to_arrow(stacs), path)
            assert search(path) == search(self.file(tmp_path, *stacs))

    def test_tables_of_rustac(self, real, tmp_path):
        rustac = pytest.importorskip("rustac")
        stacs = [real(RTC, n) for n in range(4)]
        path = tmp_path / "theirs.parquet"

        async def write():
            await rustac.write(str(path), stacs)

        asyncio.run(write())
        # Its times have milliseconds.
        found, wanted = search(path), search(self.file(tmp_path, *stacs))
        assert [i.assets for i in found] == [i.assets for i in wanted]
        seconds = [
            (a.datetime - b.datetime).total_seconds() for a, b in zip(found, wanted, strict=True)
        ]
        assert max(map(abs, seconds)) < 1e-3

    def test_a_strange_head_of_a_table_is_named(self, real, tmp_path):
        path = tmp_path / "items.parquet"
        Items.of([normalise(real(PLANET))]).save(path)
        table = pq.read_table(path)
        metadata = {**table.schema.metadata, b"lcengine": b"[]"}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(InputError, match="metadata lcengine is no object"):
            search(path, ["planetscope"])

    def test_tables_on_the_web_are_refused(self):
        with pytest.raises(InputError, match="tables are read from local files; download it"):
            search("https://example.com/items.parquet?token=x")


class TestOrbit:
    @pytest.fixture
    def both(self, real, tmp_path):
        stacs = [real(RTC, n) for n in range(4)]
        stacs[1]["properties"]["sat:orbit_state"] = "ascending"
        del stacs[3]["properties"]["sat:orbit_state"]
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": stacs}))
        return path

    def test_a_search_by_direction(self, run, both, tmp_path):
        for orbit, count in (("ascending", 1), ("descending", 2)):
            items = search(both, orbit=orbit)
            assert len(items) == count
            assert {item.orbit_state for item in items} == {orbit}
            saved = tmp_path / f"{orbit}.json"
            assert run("search", both, "--orbit", orbit, "-o", saved)[0] == 0
            assert Items.load(saved) == search(saved, orbit=orbit) == items

    def test_the_question_knows_it(self, both):
        query = Query(str(both), orbit="ascending")
        assert query.to_json()["orbit"] == "ascending"
        assert str(query).endswith("orbit ascending")

    def test_no_other_word(self, run, both):
        code, _, err = run("search", both, "--orbit", "up")
        assert (code, "orbit is 'up', expected ascending or descending" in err) == (2, True)

    def test_none_of_them_says_what_there_is(self, both, tmp_path):
        search(both, orbit="descending").save(tmp_path / "some.json")
        with pytest.raises(NoItemsError, match=r"0 after orbit ascending\); they are descending"):
            search(tmp_path / "some.json", orbit="ascending")
