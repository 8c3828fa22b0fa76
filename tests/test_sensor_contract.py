"""The contract of sensors, on every provider's layout (see `sensor_contract`)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import archives
import numpy as np
import pytest
import rasterio
from sensor_contract import Case, Layer, SensorContract
from test_sensor_items import EARTH_SEARCH, LANDSAT, PLANET, RTC, cdse_item

import lcengine
from lcengine.catalog import search
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.errors import ReadError
from lcengine.sensors import registry

DN = (1200, 9000)
SCL = (4, 9)
PLANETARY_COMPUTER = (
    "planetarycomputer.microsoft.com__sentinel-2-l2a__"
    "S2A_MSIL2A_20190101T000001_R116_T59VNF_20201007T214654.json"
)
COLORS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}


def sentinel2(keys, scl, **values):
    """Layers and masks of Sentinel-2 L2A by asset keys."""
    layers = {band: Layer(key, DN, **values) for band, key in keys.items()}
    return {"layers": layers, "masks": {"scl": Layer(scl, SCL, dtype="uint8")}}


def named(bands):
    """Bands whose asset keys are their names."""
    return {band: band for band in bands}


@pytest.fixture
def real(shared_data):
    def read(name, number=0):
        document = json.loads((shared_data / "stac-items" / name).read_text())
        return document[number] if isinstance(document, list) else document

    return read


class TestEarthSearch(SensorContract):
    @pytest.fixture
    def case(self, real):
        stac = real(EARTH_SEARCH + "sentinel-2-l2a__S2B_24MUA_20250731_0_L2A.json")
        # The trap: raster:bands states -0.1, which the property says has been applied.
        parts = sentinel2(named(COLORS), "scl")
        return Case("sentinel-2-l2a", stac, **parts, override={"offset": "0"})


class TestEarthSearchC1(SensorContract):
    @pytest.fixture
    def case(self, real):
        stac = real(EARTH_SEARCH + "sentinel-2-c1-l2a__S2B_T24MUA_20250731T130245_L2A.json")
        return Case("sentinel-2-l2a", stac, **sentinel2(named(COLORS), "scl"))


class TestPlanetaryComputer(SensorContract):
    @pytest.fixture
    def case(self, real):
        stac = real(PLANETARY_COMPUTER)
        assert stac["properties"]["s2:processing_baseline"] == "02.12"  # no offset
        return Case("sentinel-2-l2a", stac, **sentinel2(COLORS, "SCL", scale="0.0001"))


class TestCopernicusDataSpace(SensorContract):
    @pytest.fixture(params=["1.0.0", "1.1.0"])
    def case(self, request):
        keys = {band: f"{key}_10m" for band, key in COLORS.items()}
        return Case("sentinel-2-l2a", cdse_item(request.param), **sentinel2(keys, "SCL_20m"))


class TestL1C(SensorContract):
    @pytest.fixture
    def case(self):
        stac = copy.deepcopy(cdse_item("1.1.0"))
        stac["collection"] = "sentinel-2-l1c"
        keys = {band: f"{key}_10m" for band, key in COLORS.items()}
        return Case("sentinel-2-l1c", stac, sentinel2(keys, "")["layers"])


class TestLandsat(SensorContract):
    @pytest.fixture
    def case(self, real):
        keys = {"blue": "blue", "green": "green", "red": "red", "nir": "nir08"}
        layers = {band: Layer(key, (7300, 43600)) for band, key in keys.items()}
        masks = {"qa_pixel": Layer("qa_pixel", (21824, 22280))}
        return Case("landsat-c2-l2", real(LANDSAT), layers, masks)


class TestSentinel1Rtc(SensorContract):
    @pytest.fixture(params=[0, 3])
    def case(self, real, request):
        layers = {band: Layer(band, (1e-4, 1.5), dtype="float32") for band in ("vv", "vh")}
        return Case("sentinel-1-rtc", real(RTC, request.param), layers, unit="power")


class TestSentinel1Grd(SensorContract):
    @pytest.fixture
    def case(self, shared_data):
        folder = shared_data / "flanders-2018" / "sentinel-1-grd"
        stac = json.loads(min(folder.glob("S1_*/*.json")).read_text())
        layers = {band: Layer(band, (-280000, 30000), dtype="int32") for band in ("vv", "vh")}
        return Case("sentinel-1-grd", stac, layers, corner=(0, 0), unit="decibel")


def usable(key):
    """The eight bands of a UDM2 asset, of land and of cloud."""
    plain = dict.fromkeys(("snow", "shadow", "haze_light", "haze_heavy"), (0, 0))
    states = {"clear": (1, 0), **plain, "cloud": (0, 1), "confidence": (90, 70), "unusable": (0, 0)}
    return {
        f"udm_{name}": Layer(key, values, band, nodata=None, dtype="uint8")
        for band, (name, values) in enumerate(states.items(), 1)
    }


class TestPlanetTopOfAtmosphere(SensorContract):
    """Four bands, a scale of its own for each of them."""

    @pytest.fixture
    def case(self, real):
        scene = "20210129_075502_95_2223_3B_"
        layers = {
            band: Layer(f"{scene}AnalyticMS_clip_tif", (2000, 20000), number)
            for number, band in enumerate(("blue", "green", "red", "nir"), 1)
        }
        masks = usable(f"{scene}udm2_clip_tif")
        return Case("planetscope", real(PLANET), layers, masks, corner=(8, 8))

    def test_a_mask_file_of_the_wrong_shape_is_named(self, case, written):
        items, grid = search(written[0]), self.product(case)
        path = Path(items[0].asset("udm_clear").href)
        for bands, size, message in (
            (1, (95, 49), "has 1 bands, expected band 2"),
            (8, (95, 48), "has shape 95x48, its catalogue says 95x49"),
        ):
            with rasterio.open(path) as old:
                profile = old.profile | {"count": bands, "height": size[0], "width": size[1]}
            with rasterio.open(path, "w", **profile) as new:
                new.write(np.zeros((bands, *size), np.uint8))
            with pytest.raises(ReadError, match=message):
                lcengine.load(items, grid, ["red"], mask="udm2").compute()
            plan = plan_composite(items, grid, CompositeSpec(max_lost=0.5))
            _, failures = archives.in_process(plan)
            assert all(message in failure.error for failure in failures)
            assert len(failures) > 0


class TestPlanetSurfaceReflectance(SensorContract):
    """Eight bands in the layout of Planet's Data API."""

    @pytest.fixture
    def case(self, real):
        stac = real(PLANET)
        stac["assets"] = {
            "ortho_analytic_8b_sr": {
                "href": "x_3B_AnalyticMS_SR_8b.tif",
                "pl:asset_type": "ortho_analytic_8b_sr",
                "raster:bands": [{"nodata": 0, "data_type": "uint16"}] * 8,
            },
            "ortho_udm2": {"href": "x_3B_udm2.tif", "pl:asset_type": "ortho_udm2"},
        }
        layers = {
            band: Layer("ortho_analytic_8b_sr", (200, 9000), number, scale="0.0001")
            for band, number in (("blue", 2), ("green", 4), ("red", 6), ("nir", 8))
        }
        return Case("planetscope", stac, layers, usable("ortho_udm2"), corner=(8, 8))


class TestPlainImagery(SensorContract):
    """8-bit numbers, all bands in one image."""

    @pytest.fixture(params=["rgb", "rgbn"])
    def case(self, request):
        names = ("red", "green", "blue", "nir")[: len(request.param)]
        image = {
            "href": "image.tif",
            "data_type": "uint8",
            "nodata": 0,
            "bands": [{"name": name} for name in names],
            "proj:code": "EPSG:32737",
            "proj:transform": [0.5, 0, 250_000, 0, -0.5, 9_850_000],
            "proj:shape": [4000, 5000],
        }
        stac = {
            "type": "Feature",
            "id": "drone",
            "collection": request.param,
            "bbox": [36.0, -1.4, 36.1, -1.3],
            "properties": {},
            "assets": {"image": image},
        }
        layers = {
            name: Layer("image", (1, 255), number, dtype="uint8")
            for number, name in enumerate(names, 1)
        }
        return Case(request.param, stac, layers, unit="number")


def test_every_sensor_has_a_case():
    tested = {"sentinel-2-l2a", "sentinel-2-l1c", "landsat-c2-l2", "sentinel-1-rtc"}
    tested |= {"sentinel-1-grd", "planetscope", "rgb", "rgbn"}
    assert set(registry()) == tested


def test_the_docs_say_what_sensors_say():
    text = (Path(__file__).parent.parent / "docs" / "sensors.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for entry in registry().values():
        cells = [cell.strip() for cell in rows[entry.name].split("|")]
        assert cells[5:8] == [
            ", ".join(entry.default_bands),
            f"`{entry.mask}`",
            f"`{entry.outliers}`",
        ]
