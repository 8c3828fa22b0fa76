"""Simulated Sentinel-1: plausible by class and season, speckled, and read by lcengine as it is."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import stats

from lcengine.catalog import search
from lcengine.composite import composite
from lcengine.cube import load
from lcengine.grid import Grid
from lcengine.simulate import LEGEND, SimulationOptions, simulate
from lcengine.simulate.backscatter import (
    LOOKS,
    PLAUSIBLE,
    SCATTERERS,
    sigma_nought,
    soil_moisture,
    speckle,
)
from lcengine.simulate.sentinel1 import ORBITS, Image, Pass, jobs, make_passes, unit_backscatter
from lcengine.simulate.world import world

OPTIONS = SimulationOptions(size=128, dates=1, seed=4, bands=("red",), sensors=("s1",))
NAMES = [c.name for c in LEGEND]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("radar") / "sim", OPTIONS)


def decibel(power):
    return 10 * np.log10(power)


def on(day, orbit=ORBITS[0], cycle=0):
    """A pass on a day of 2023."""
    time = dt.datetime(2023, 1, 1, 6, tzinfo=dt.UTC) + dt.timedelta(days=int(day) - 1)
    return Pass(orbit, time, cycle)


class TestPlausible:
    def test_every_class_scatters(self):
        assert set(SCATTERERS) == set(NAMES)

    def test_every_class_of_fields_has_a_range(self):
        sown = {c.name for c in LEGEND if c.share > 0}
        assert {r.name for r in PLAUSIBLE} >= sown

    @pytest.mark.parametrize("expected", PLAUSIBLE, ids=lambda r: f"{r.name} {r.days[0]}")
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_class_means_lie_in_their_ranges(self, expected, seed):
        options = SimulationOptions(size=512, seed=seed)
        code = next(c.code for c in LEGEND if c.name == expected.name)
        units = world(options).landscape.code == code
        days = np.linspace(*expected.days, 6)
        for polarisation, (low, high) in (("vv", expected.vv), ("vh", expected.vh)):
            passes = [on(day, ORBITS[i % 2], i) for i, day in enumerate(days)]
            means = [
                decibel(unit_backscatter(options, p)[polarisation][units].mean()) for p in passes
            ]
            # A single pass after rain may lie a little outside of what several years averaged.
            assert low <= np.mean(means) <= high, (polarisation, means)
            assert low - 2 <= min(means) <= max(means) <= high + 2, (polarisation, means)

    def test_ranges_of_flanders_are_those_of_the_real_data(self, shared_data):
        """The real monthly means by class lie in the ranges that cite them."""
        folder = shared_data / "flanders-2018"
        labels = {}
        for name in ("labels_lc", "labels_ct"):
            with rasterio.open(folder / f"{name}.tif") as file:
                labels[name] = file.read(1).reshape(32, 2, 32, 2)
        where = {
            "maize": (labels["labels_ct"] == 1200).all(axis=(1, 3)),
            "grassland": (labels["labels_lc"] == 13).all(axis=(1, 3)),
            "built-up": (labels["labels_lc"] == 60).all(axis=(1, 3)),
        }
        seen = defaultdict(list)
        for file in sorted((folder / "sentinel-1-grd").glob("*/*.json")):
            when = json.loads(file.read_text())["properties"]["datetime"]
            day = dt.date.fromisoformat(when[:10]).timetuple().tm_yday
            for polarisation in ("vv", "vh"):
                with rasterio.open(file.parent / f"{polarisation}.tif") as image:
                    values = image.read(1)
                for name, mask in where.items():
                    if (values[mask] != 0).all():
                        power = 10 ** (values[mask] / 1e5)
                        seen[name, polarisation].append((day, power.mean()))
        checked = 0
        for expected in PLAUSIBLE:
            if "Flanders" not in expected.source:
                continue
            for polarisation in ("vv", "vh"):
                days = expected.days
                means = [p for d, p in seen[expected.name, polarisation] if days[0] <= d <= days[1]]
                low, high = getattr(expected, polarisation)
                assert low <= decibel(np.mean(means)) <= high, (expected.name, polarisation)
                checked += 1
        assert checked >= 8

    def test_the_page_of_the_world_states_them(self):
        page = (Path(__file__).parent.parent / "docs" / "world.md").read_text()
        for r in PLAUSIBLE:
            vv, vh = (f"{low:g} to {high:g}".replace("-", "−") for low, high in (r.vv, r.vh))
            assert f"| {r.name} | {r.days[0]}–{r.days[1]} | {vv} | {vh} | {r.source} |" in page

    def test_wet_soil_is_brighter_where_no_canopy_hides_it(self):
        index = np.arange(len(NAMES))
        bare = np.zeros(len(NAMES), np.float32)
        dry, wet = (sigma_nought(NAMES, index, bare, m)["vv"] for m in (12.0, 32.0))
        gain = dict(zip(NAMES, decibel(wet / dry), strict=True))
        assert gain["maize"] == pytest.approx(5.0, abs=0.01)
        assert gain["water"] == gain["snow and ice"] == 0
        assert gain["evergreen forest"] < 1
        green = np.full(len(NAMES), 0.9, np.float32)
        dry, wet = (sigma_nought(NAMES, index, green, m)["vh"] for m in (12.0, 32.0))
        assert decibel(wet / dry)[NAMES.index("maize")] < 1

    def test_rapeseed_and_wheat_part_in_may(self):
        """What makes radar worth having: VH of rapeseed is far above that of cereals."""
        options = SimulationOptions(size=512, seed=0)
        code = world(options).landscape.code
        vh = unit_backscatter(options, on(140))["vh"]
        by_name = {c.name: decibel(vh[code == c.code].mean()) for c in LEGEND}
        assert by_name["winter rapeseed"] - by_name["winter wheat"] > 5

    def test_soil_dries_slowly_and_wets_at_once(self):
        days = [dt.date(2023, 1, 1) + dt.timedelta(days=n) for n in range(365)]
        moisture = np.array([soil_moisture(day, 3) for day in days])
        change = np.diff(moisture)
        assert 7 <= moisture.min() < 14
        assert 25 < moisture.max() <= 38
        assert change.min() > -3
        assert change.max() > 4
        assert moisture[:60].mean() > moisture[150:240].mean()

    @pytest.mark.parametrize("seed", range(5))
    def test_soil_does_not_know_of_new_year(self, seed):
        """It dries by a few percent in a day on any date, also from one year to the next."""
        for year in range(2019, 2025):
            before, after = dt.date(year, 12, 31), dt.date(year + 1, 1, 1)
            assert soil_moisture(after, seed) - soil_moisture(before, seed) > -2


class TestSpeckle:
    field = speckle((512, 512), np.random.default_rng(0))

    def test_is_gamma_with_the_looks_of_the_product(self):
        assert self.field.mean() == pytest.approx(1, abs=0.01)
        assert 1 / self.field.var() == pytest.approx(LOOKS, rel=0.03)
        apart = np.sort(self.field[::8, ::8].ravel())
        assert stats.kstest(apart, stats.gamma(LOOKS, scale=1 / LOOKS).cdf).pvalue > 0.001

    def test_neighbours_correlate_and_nothing_further(self):
        def correlation(lag):
            return np.corrcoef(self.field[:, :-lag].ravel(), self.field[:, lag:].ravel())[0, 1]

        assert 0.4 < correlation(1) < 0.75
        assert abs(correlation(6)) < 0.03


class TestPasses:
    def test_both_orbits_every_twelve_days(self):
        passes = make_passes(dt.date(2023, 1, 1), dt.date(2023, 12, 31), 7)
        assert [p.time for p in passes] == sorted(p.time for p in passes)
        for orbit in ORBITS:
            times = [p.time for p in passes if p.orbit == orbit]
            assert len(times) in (30, 31)
            assert set(np.diff(times)) == {dt.timedelta(days=12)}

    @pytest.mark.parametrize("days", [0, 1, 11, 12])
    def test_a_short_period_has_each_orbit(self, days):
        first = dt.date(2023, 5, 1)
        last = first + dt.timedelta(days=days)
        passes = make_passes(first, last, 0)
        assert {p.orbit.state for p in passes} == {"ascending", "descending"}
        assert all(first <= p.time.date() <= last for p in passes)

    def test_incidence_grows_away_from_the_satellite(self):
        x = np.array([-50_000.0, 0.0, 50_000.0])
        down, up = (orbit.angle(x, 0.0) for orbit in ORBITS)
        assert (np.diff(up) > 3).all()
        assert (np.diff(down) < -3).all()
        image = jobs(OPTIONS)[0]
        left, bottom, right, top = image.bounds
        narrow = Image(OPTIONS, on(150), 0, (left, bottom, right, top))
        assert narrow.expected()["vv"].shape == (128, 128)

    def test_the_side_matters_for_buildings_only(self):
        options = SimulationOptions(size=512, seed=0)
        code = world(options).landscape.code
        down, up = (decibel(unit_backscatter(options, on(150, o))["vv"]) for o in ORBITS)
        spread = {c.name: (up - down)[code == c.code].std() for c in LEGEND}
        assert spread.pop("built-up") > 1
        assert max(spread.values()) < 1e-4


class TestFiles:
    def test_are_cogs_of_power_on_even_10_m(self, archive):
        assert len(archive.item_ids) == len(make_passes(*OPTIONS.days(), OPTIONS.seed))
        for name in archive.item_ids[:3]:
            for polarisation in ("vv", "vh"):
                with rasterio.open(
                    archive.path / "sentinel-1-rtc" / name / f"{polarisation}.tif"
                ) as file:
                    assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                    assert (file.nodata, file.dtypes) == (-32768, ("float32",))
                    assert file.res == (10, 10)
                    assert file.transform.c % 10 == file.transform.f % 10 == 0
                    assert (file.read(1) > 0).all()

    def test_the_mean_of_a_season_is_the_expected_one(self):
        images = jobs(OPTIONS)
        drawn = np.mean([dict(image.draw())["vh"] for image in images], axis=0)
        expected = np.mean([image.expected()["vh"] for image in images], axis=0)
        error = decibel(drawn / expected)
        assert abs(np.median(error)) < 0.1
        assert np.std(error) == pytest.approx(4.34 / np.sqrt(LOOKS * len(images)), rel=0.25)

    def test_large_worlds_are_cut_without_gaps(self):
        options = SimulationOptions(size=2500, dates=1, sensors=("s1",))
        images = [j for j in jobs(options) if j.acquisition == jobs(options)[0].acquisition]
        area = sum((r - l) * (t - b) for l, b, r, t in (i.bounds for i in images))  # noqa: E741
        assert area == 25_000**2
        assert max(r - l for l, _, r, _ in (i.bounds for i in images)) <= 10_240  # noqa: E741
        assert len({image.item()["id"] for image in images}) == len(images) == 9


class TestReading:
    def test_items_are_those_of_the_sensor(self, archive):
        items = search(archive.catalog, ["sentinel-1-rtc"])
        assert sorted(i.id for i in items) == sorted(archive.item_ids)
        assert {i.orbit_state for i in items} == {"ascending", "descending"}
        assert {i.relative_orbit for i in items} == {37, 88}
        assert {a.unit for i in items for a in i.assets.values()} == {"power"}
        assert {i.crs for i in items} == {"EPSG:32631"}

    def test_monthly_means_equal_an_oracle_in_power(self, archive):
        items = search(archive.catalog, ["sentinel-1-rtc"])
        left, bottom, *_ = items[0].asset("vv").transform[2], 5_639_000
        grid = Grid.from_bounds(left, bottom, left + 300, bottom + 300, 32631, 10, 64)
        cube = load(items, grid, ["vv", "vh"])
        product = composite(cube, method="mean", outliers="none", period="month").compute()
        months = defaultdict(list)
        for item in items:
            file = archive.path / "sentinel-1-rtc" / item.id / "vv.tif"
            with rasterio.open(file) as image:
                row, col = image.index(left + 5, bottom + 295)
                power = image.read(1)[row : row + 30, col : col + 30].astype(float)
            canonical = np.rint(1000 * np.log10(power))
            months[item.datetime.month].append(10 ** (canonical / 1000))
        for number, month in enumerate(sorted(months)):
            expected = np.rint(1000 * np.log10(np.mean(months[month], axis=0)))
            np.testing.assert_array_equal(product["vv"][number].values, expected)
