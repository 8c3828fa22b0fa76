"""The price model against numbers worked out by hand, and a calibration of this machine."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import archives
import numpy as np
import pytest

from lcengine import reader
from lcengine.addresses import LOCAL
from lcengine.composite import calibration, plan_composite, pricing
from lcengine.composite.calibration import calibrate
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.items import Access, Items
from lcengine.periods import PeriodRule
from lcengine.price import Estimate, Limits, Machines, Prices, Rates, Work, estimate

WORK = Work(
    tiles=100,
    items=50,
    decoded=2_000 * 10**9,
    stored={"a.example": 600 * 10**9, "b.example": 400 * 10**9, LOCAL: 77 * 10**9},
    values=10**12,
    output=30 * 10**9,
    requests=360_000,
)
RATES = Rates(decode=5.0, kernel=10.0, write=20.0, driver=0.005, latency=0.1)
CORE_SECONDS = 2_000 * 5 + 10**12 * 10e-9 + 30 * 20  # 10,000 + 10,000 + 600


class TestEstimate:
    def test_one_core(self):
        found = estimate(WORK, RATES, Machines(1, 1, reads=4))
        assert found.seconds == {"cpu": CORE_SECONDS, "network": 9000.0, "driver": 0.5}
        assert found.bottleneck == "cpu"
        assert found.hours == found.core_hours == CORE_SECONDS / 3600
        assert found.cost is None
        assert found.transferred == 10**12

    def test_cores_share_tiles_not_their_parts(self):
        """100 tiles on 40 cores take three rounds."""
        found = estimate(WORK, RATES, Machines(10, 4))
        assert found.seconds["cpu"] == pytest.approx(CORE_SECONDS / 100 * 3)
        assert found.core_hours == pytest.approx(40 * CORE_SECONDS / 100 * 3 / 3600)

    def test_more_cores_than_tiles_do_not_help(self):
        few, many = (estimate(WORK, RATES, Machines(n, 1, reads=1)) for n in (100, 1000))
        assert few.seconds == many.seconds
        assert many.core_hours == pytest.approx(10 * few.core_hours)

    def test_a_narrow_network_is_the_bottleneck(self):
        """10**12 bytes at 10 MB/s into each of ten workers: ten thousand seconds."""
        found = estimate(WORK, RATES, Machines(10, 4, bandwidth=10e6))
        assert found.seconds["network"] == pytest.approx(10_000)
        assert found.bottleneck == "network"
        assert found.hours == pytest.approx(10_000 / 3600)

    def test_waiting_counts_where_bytes_are_few(self):
        """360,000 requests of 0.1 s, 16 in flight in each of ten workers."""
        found = estimate(WORK, RATES, Machines(10, 4, bandwidth=1e12))
        assert found.seconds["network"] == pytest.approx(36_000 / 16 / 10)

    def test_an_archive_answers_no_faster_to_more_workers(self):
        """360,000 requests at 30 per second: 12,000 seconds."""
        few, many = (estimate(WORK, RATES, Machines(n, 4, archive=30.0)) for n in (10, 100))
        assert few.seconds["archive"] == many.seconds["archive"] == 12_000
        assert many.bottleneck == "archive"
        assert many.hours == pytest.approx(12_000 / 3600)

    def test_a_slow_driver_is_the_bottleneck(self):
        work = replace(WORK, tiles=10**6)
        found = estimate(work, RATES, Machines(1000, 8))
        assert found.bottleneck == "driver"
        assert found.hours == pytest.approx(5000 / 3600)

    @pytest.mark.parametrize(
        ("prices", "cost"),
        [
            (Prices(core_hour=0.36), 0.36 * CORE_SECONDS / 3600),
            (Prices(gb=0.02), 20.0),  # local files are free
            (Prices(core_hour=0.36, gb=0.02), 0.36 * CORE_SECONDS / 3600 + 20.0),
            (Prices(core_hour=0.0), 0.0),
        ],
    )
    def test_cost(self, prices, cost):
        assert estimate(WORK, RATES, Machines(1, 1), prices).cost == pytest.approx(cost)

    def test_local_files_need_no_network(self):
        work = replace(WORK, stored={LOCAL: 10**15}, requests=0)
        found = estimate(work, RATES, Machines(1, 1, bandwidth=1.0), Prices(gb=1.0))
        assert found.seconds["network"] == 0
        assert found.cost == 0

    def test_nothing_to_do(self):
        nothing = Work(0, 0, 0, {}, 0, 0, 0)
        assert estimate(nothing, RATES, Machines(2, 2, bandwidth=1e6)).hours == 0

    def test_a_continent_is_so_many_countries(self):
        whole = WORK.scaled(51.5)
        assert whole.tiles == 5150
        assert whole.stored["a.example"] == 51.5 * 600e9
        one, more = (estimate(w, RATES, Machines(1, 1)) for w in (WORK, whole))
        assert more.hours == pytest.approx(51.5 * one.hours)
        assert WORK.scaled(0.001).tiles == 1


class TestLimits:
    def test_within(self):
        Limits().check_bytes(WORK)
        Limits(bytes=1_077 * 10**9).check_bytes(WORK)
        Limits(cost=2.0).check_cost(Estimate(1, 1, 2.0, 0, "cpu"))

    def test_too_many_bytes(self):
        with pytest.raises(InputError, match=r"up to 1\.077 TB, more than --max-bytes 5 MB; take"):
            Limits(bytes=5 * 10**6).check_bytes(WORK)

    def test_too_dear(self):
        with pytest.raises(InputError, match=r"cost up to 2\.5, more than --max-cost 2; take a sm"):
            Limits(cost=2.0).check_cost(Estimate(1, 1, 2.5, 0, "cpu"))

    def test_without_a_price(self):
        with pytest.raises(InputError, match="--max-cost 2 needs a price; state --price-core-hour"):
            Limits(cost=2.0).check_cost(Estimate(1, 1, None, 0, "cpu"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Machines(0, 1), "workers is 0, expected 1 or more"),
        (lambda: Machines(1, 0), "threads is 0, expected 1 or more"),
        (lambda: Machines(1, 1, 0.0), "bandwidth is 0.0, expected a number > 0"),
        (lambda: Prices(core_hour=-1.0), "price per core-hour is -1.0, expected a number >= 0"),
        (lambda: Prices(gb=math.nan), "price per GB is nan"),
        (lambda: Limits(cost=-1.0), "--max-cost is -1.0"),
        (lambda: Rates(decode=math.inf, kernel=1, write=1), "rate decode is inf"),
        (lambda: Rates(decode=1, kernel="fast", write=1), "rate kernel is 'fast'"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


class TestRates:
    def test_round_trip(self, tmp_path):
        rates = replace(RATES, measured="2026-01-31", cores=8)
        rates.save(tmp_path / "rates.json")
        assert Rates.load(tmp_path / "rates.json") == rates

    def test_the_first_three_suffice(self, tmp_path):
        (tmp_path / "rates.json").write_text('{"decode": 1, "kernel": 2, "write": 3}')
        assert Rates.load(tmp_path / "rates.json") == Rates(1, 2, 3)

    @pytest.mark.parametrize("text", ["", "[1]", "{}", '{"decode": 1, "speed": 2}', None])
    def test_anything_else_is_refused(self, tmp_path, text):
        path = tmp_path / "rates.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError, match=r"rates\.json holds no rates .*decode, kernel and wr"):
            Rates.load(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Items of one square, five days apart."""
    return archives.series(tmp_path_factory.mktemp("price"), 6, ("blue", "swir16"), 256, block=64)


class TestCalibration:
    def plan(self, items, *bands, crs="EPSG:32631", **changes):
        size = 256 * 10
        left, top = archives.LEFT, archives.TOP
        if crs != "EPSG:32631":
            left, top = 176_000.0, 5_608_000.0
        grid = Grid.from_bounds(left, top - size, left + size, top, crs, 10.0, 256)
        return plan_composite(items, grid, archives.spec(*bands, **changes))

    @pytest.mark.parametrize(
        ("crs", "changes"),
        [
            ("EPSG:32631", {}),
            ("EPSG:32632", {"resampling": "bilinear"}),
            ("EPSG:32631", {"mask": "none", "period": PeriodRule.parse("P10D"), "min_clear": 2}),
            ("EPSG:32631", {"method": "geomedian,percentile:10", "qa": "full"}),
        ],
        ids=["plain", "other-zone", "periods", "methods"],
    )
    def test_measures_a_plan_of_its_own_kind(self, world, monkeypatch, crs, changes):
        monkeypatch.setattr(calibration, "VALUES", 1e5)  # the small tile
        made = []
        compute = calibration.compute_tile

        def watched(plan, number):
            made.append((plan, compute(plan, number)))
            return made[-1][1]

        monkeypatch.setattr(calibration, "compute_tile", watched)
        plan = self.plan(world, "blue", "swir16", crs=crs, **changes)
        rates = calibrate(plan)
        assert 0 < rates.decode < 100
        assert 0 <= rates.kernel < 10_000
        assert 0 < rates.write < 10_000
        assert len(rates.measured) == 10
        assert rates.cores >= 1
        own, result = made[-1]
        assert own.spec == plan.spec
        assert own.periods == plan.periods
        assert len(own.items) == len(plan.items)
        assert (own.items[0].crs == own.reads.lattice.crs) == (crs == "EPSG:32631")
        assert own.reads.lattice.dx == 10
        assert result.failures == []
        if plan.spec.period is None:
            assert (result.arrays["count"] > 0).mean() > 0.9
            assert (result.arrays["count"] < len(plan.items)).any() == (plan.reads.mask != "none")

    @pytest.mark.parametrize(("unit", "scale"), [("power", 1.0), ("decibel", 1e-4)])
    def test_backscatter_is_calibrated_on_backscatter(self, tmp_path, monkeypatch, unit, scale):
        """Not on one number everywhere, which has no power to be averaged."""
        monkeypatch.setattr(calibration, "VALUES", 1e5)
        world = archives.series(tmp_path, 6, ("blue",), 256, block=64)
        radar = {"sensor": "sentinel-1-rtc", "collection": "sentinel-1-rtc"}
        items = [
            replace(
                item,
                assets={"vv": replace(item.assets["blue"], unit=unit, scale=scale, offset=0.0)},
                **radar,
            )
            for item in world
        ]
        made = []
        compute = calibration.compute_tile

        def watched(plan, number):
            made.append(compute(plan, number))
            return made[-1]

        monkeypatch.setattr(calibration, "compute_tile", watched)
        changes = {"mask": "none", "outliers": "none", "method": "mean"}
        calibrate(self.plan(Items(tuple(items), world.access), "vv", **changes))
        pixels = made[-1].arrays["vv"]
        assert -3000 < pixels.min() < np.median(pixels) < pixels.max() < 0
        assert len(np.unique(pixels)) > 300

    def test_leaves_nothing_behind(self, world, monkeypatch, tmp_path):
        monkeypatch.setattr(calibration, "VALUES", 1e5)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        calibrate(self.plan(world, "blue"))
        assert list(tmp_path.iterdir()) == []

    def test_its_rasters_are_what_they_say(self, tmp_path):
        kinds = {
            "reflectance": np.uint16,
            "classes": np.uint8,
            "power": np.float32,
            "decibel": np.float32,
            "number": np.uint8,
        }
        for kind, dtype in kinds.items():
            pixels = calibration._scene(kind, 300, 1)
            path = tmp_path / f"{kind}.tif"
            calibration._write_tiff(path, pixels, 20.0)
            asset = replace(
                archives.raster(tmp_path / "other.tif", pixels, 20.0),
                href=str(path),
                transform=(20.0, 0.0, calibration.LEFT, 0.0, -20.0, calibration.TOP),
            )
            access = Access(local=True)
            raw = reader.read_raw(asset, access, reader.Window(0, 0, 300, 300))
            assert raw.dtype == dtype
            np.testing.assert_array_equal(raw, pixels)
            layout = reader.header(asset, access)
            assert layout.block == (calibration.BLOCK, calibration.BLOCK)
            assert 0.01 < layout.stored < 0.9

    def test_a_plan_takes_so_many_seconds(self, world):
        plan = self.plan(world, "blue", "swir16")
        work = pricing.survey(plan).work
        seconds = pricing.predicted_seconds(plan, RATES, Machines(1, 1))
        assert work.requests == work.transferred == 0
        assert seconds == pytest.approx(
            work.decoded * 5e-9 + work.values * 10e-9 + work.output * 20e-9
        )
        assert json.loads(json.dumps(pricing.explain(plan)))["kernel_values"] == work.values
