"""The simulated ground: one landscape at every resolution, its shares, vectors and spectra."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from lcengine.simulate.covers import CODE, LEGEND
from lcengine.simulate.landscape import make_landscape
from lcengine.simulate.sentinel2 import BANDS

CROPS = [c.code for c in LEGEND if c.crop]


@pytest.fixture(scope="module")
def landscape():
    return make_landscape(384, 3)


def centres(bounds, resolution):
    left, bottom, right, top = bounds
    x = np.arange(left + resolution / 2, right, resolution)
    y = np.arange(top - resolution / 2, bottom, -resolution)
    return np.meshgrid(x, y)


class TestResolution:
    @settings(max_examples=25, deadline=None)
    @given(
        col=st.integers(0, 370),
        row=st.integers(0, 370),
        width=st.integers(1, 14),
        height=st.integers(1, 14),
        parts=st.sampled_from([1, 2, 5, 10]),
    )
    def test_any_window_of_any_resolution_shows_the_same_ground(
        self, landscape, col, row, width, height, parts
    ):
        """Pixels whose centres coincide are equal, whatever was asked for around them."""
        left, _, _, top = landscape.bounds
        x0, y0 = left + col * 10, top - row * 10
        bounds = (x0, y0 - height * 10, x0 + width * 10, y0)
        got = landscape.raster(bounds, 10 / parts)
        assert got.shape == (height * parts, width * parts)
        np.testing.assert_array_equal(got, landscape.units(*centres(bounds, 10 / parts)))
        if parts % 2:
            middle = got[parts // 2 :: parts, parts // 2 :: parts]
            expected = landscape.field[row : row + height, col : col + width]
            np.testing.assert_array_equal(middle, expected)

    def test_points_are_independent_of_each_other(self, landscape):
        rng = np.random.default_rng(0)
        left, bottom, right, top = landscape.bounds
        x, y = rng.uniform(left, right, 300), rng.uniform(bottom, top, 300)
        together = landscape.units(x, y)
        one_by_one = [
            int(landscape.units(np.array(a), np.array(b))) for a, b in zip(x, y, strict=True)
        ]
        assert together.tolist() == one_by_one

    def test_the_seed_and_nothing_else(self):
        one, same, other = (make_landscape(64, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.field, same.field)
        np.testing.assert_array_equal(one.green(150), same.green(150))
        assert (one.landcover != other.landcover).mean() > 0.5

    def test_a_large_landscape_keeps_small_tables(self):
        small, large, larger = (make_landscape(n, 1) for n in (2048, 16_000, 40_000))
        assert large.code.size > small.code.size
        assert larger.code.size < 1.3 * large.code.size
        left, _, _, top = larger.bounds
        corner = larger.patch((left + 390_000, top - 399_000, left + 392_000, top - 397_000))
        assert len(np.unique(corner.landcover)) > 6


class TestCover:
    @pytest.mark.parametrize("size", [64, 256, 1024])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_all_classes_everywhere(self, size, seed):
        code = make_landscape(size, seed).landcover
        dfc = np.array([0, *(c.dfc2020 for c in LEGEND)])[code]
        shares = {k: (dfc == k).mean() for k in range(1, 11)}
        assert min(shares.values()) > 0.004
        assert 0.4 < shares[6] < 0.75
        assert sum(shares[k] for k in (2, 3, 5, 8, 9)) < 0.16
        if size > 64:
            assert set(CROPS) <= set(np.unique(code).tolist())

    def test_legend(self):
        assert [c.code for c in LEGEND] == list(range(1, len(LEGEND) + 1))
        assert {c.dfc2020 for c in LEGEND} == set(range(1, 11))
        assert len(CROPS) == 8
        assert {(c.dfc2020, c.igbp) for c in LEGEND if c.crop} == {(6, 12)}
        assert len({c.color for c in LEGEND}) == len({c.name for c in LEGEND}) == len(LEGEND)


@pytest.fixture(scope="module")
def dense(landscape):
    left, bottom, right, top = landscape.bounds
    x, y = np.random.default_rng(1).uniform((left, bottom), (right, top), (40_000, 2)).T
    return x, y, landscape.units(x, y)


class TestVectors:
    def test_roads_are_where_the_raster_has_them(self, landscape, dense):
        x, y, unit = dense
        roads = shapely.union_all(landscape.roads)
        distance = shapely.distance(shapely.points(x, y), roads)
        wild = np.isin(landscape.code[unit], [CODE["water"], CODE["snow and ice"]])
        street = (unit >= 256) & (unit < 512)
        near = (distance < 6) & ~wild
        assert near.sum() > 200
        assert street[near].mean() > 0.99  # where three roads meet, two of them decide
        outside = (distance > 6) & (landscape.code[unit] != CODE["built-up"])
        assert not street[outside].any()
        stray = street & (distance > 6) & ~settled(landscape, x, y)
        assert stray.mean() < 1e-3

    def test_fields_belong_to_the_nearest_seed(self, landscape, dense):
        x, y, _ = dense
        left, _, _, top = landscape.bounds
        place = landscape.pattern.place(x - left, top - y)
        seeds, holding = landscape.pattern.nearby((0, 0, 3840, 3840), 1200)
        nearest = np.hypot(
            (x - left)[:2000, None] - seeds[:, 0], (top - y)[:2000, None] - seeds[:, 1]
        ).argmin(axis=1)
        np.testing.assert_array_equal(place.holding[:2000], holding[nearest])

    def test_buildings_are_where_the_raster_has_them(self, landscape):
        houses = landscape.footprints
        areas = np.array([p.area for p in houses])
        assert len(houses) > 100
        assert (areas > 71).all()
        assert (areas < 361).all()
        tree = shapely.STRtree(houses)
        assert (tree.query(houses, predicate="overlaps").size) == 0
        for house in houses[::40]:
            bounds = [round(v) for v in house.buffer(3).bounds]
            px, py = centres(bounds, 0.5)
            inside = shapely.contains_xy(house.buffer(-0.01), px, py)
            around = shapely.contains_xy(house.buffer(1).difference(house.buffer(0.01)), px, py)
            unit = landscape.units(px, py)
            assert (unit[inside] // 256 == 2).all()
            assert len(np.unique(unit[inside])) == 1
            assert not (unit[around] // 256 == 2).any()

    def test_streets_and_gardens_lie_between(self, landscape):
        unit = landscape.field
        kinds = np.bincount(unit[unit < 768] // 256, minlength=3) / (unit < 768).sum()
        assert (kinds > 0.05).all()


def settled(landscape, x, y):
    """Where roads aside a settlement would be."""
    left, _, _, top = landscape.bounds
    natural = landscape._natural(x - left, top - y)
    return natural == 3


class TestSeasons:
    def test_reflectance_is_the_mixture(self, landscape):
        """Soil and canopy by the green cover of a double logistic, shaded: in float64."""
        grain, unit = landscape.whole.grain, landscape.field
        low, peak, rise, rise_days, fall, fall_days = landscape.season.astype(float).T
        for day in (40, 160, 230):
            green = low + (peak - low) / (1 + np.exp((rise - day) / rise_days)) / (
                1 + np.exp((day - fall) / fall_days)
            )
            uncut = (landscape.cuts > day).all(axis=1)
            np.testing.assert_allclose(landscape.green(day)[uncut], green[uncut], atol=1e-5)
            assert (landscape.green(day) <= green + 1e-5).all()
            for band in ("red", "nir"):
                b = BANDS.index(band)
                kind = landscape.code - 1
                ground, canopy = (
                    np.array([getattr(c, part)[b] for c in LEGEND])[kind]
                    * landscape.brightness[:, i]
                    for i, part in enumerate(("ground", "canopy"))
                )
                ground, canopy = np.minimum(ground, 1), np.minimum(canopy, 1)
                cover = np.clip(landscape.green(day)[unit] * (1 + grain.texture), 0, 1)
                expected = (ground[unit] * (1 - cover) + canopy[unit] * cover) * grain.shade
                got = landscape.reflectance(band, unit, day, grain)
                np.testing.assert_allclose(got, expected, atol=1e-5)
                surface = landscape.surface(band, landscape.cover(day))
                assert np.abs(surface - expected * 1e4).max() < 0.6

    def test_meadows_are_cut_and_grow_back(self, landscape):
        grass = landscape.code == CODE["grassland"]
        cut = landscape.cuts[grass, 0]
        some = (cut > 130) & (cut < 180)
        before = np.array([landscape.green(d)[grass] for d in range(100, 300)])
        index = np.flatnonzero(some)
        day = np.ceil(cut[index]).astype(int) - 100
        dropped = before[day + 1, index] / before[day - 1, index]
        assert np.median(dropped) < 0.5
        assert (before[day + 40, index] > before[day + 1, index]).mean() > 0.6


def seen(name, day, landscape):
    """Median reflectance of a class by band on a day, per pixel of the mosaic."""
    where = landscape.landcover == CODE[name]
    unit = landscape.field[where]
    return {b: float(np.median(landscape.reflectance(b, unit, day))) for b in BANDS}


def index(values, a, b):
    return (values[a] - values[b]) / (values[a] + values[b])


@pytest.fixture(scope="module")
def ndvi(landscape):
    def ndvi(month, name):
        return index(seen(name, month * 30.4 - 15, landscape), "nir", "red")

    return ndvi


class TestSpectra:
    """Every class in the range that is published for its kind, on a day in the middle of a month.

    NDVI: USGS, "NDVI, the Foundation for Remote Sensing Phenology": barren rock, sand and snow up
    to 0.1, sparse vegetation such as shrubs, grassland or ripening crops 0.2 to 0.5, dense
    vegetation 0.6 to 0.9. Bare soils: 0.2 on average over 2906 spectra, many to 0.35 (Montandon and
    Small 2008, Remote Sensing of Environment 112). Evergreen needleleaf forest keeps 0.6 and more
    through the winter, deciduous forest falls below 0.65.
    """

    @pytest.mark.parametrize(
        ("name", "green", "bare"),
        [
            ("winter wheat", 5, 8),
            ("winter barley", 5, 8),
            ("winter rapeseed", 5, 8),
            ("maize", 8, 4),
            ("sugar beet", 8, 4),
            ("potato", 7, 4),
            ("sunflower", 7, 4),
            ("soya", 8, 4),
        ],
    )
    def test_crops(self, ndvi, name, green, bare):
        assert 0.7 < ndvi(green, name) < 0.95
        assert 0.1 < ndvi(bare, name) < 0.4

    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [
            ("grassland", 0.5, 0.9),
            ("fallow", 0.15, 0.45),
            ("evergreen forest", 0.6, 0.9),
            ("deciduous forest", 0.4, 0.9),
            ("shrubland", 0.4, 0.75),
            ("savanna", 0.35, 0.75),
            ("wetland", 0.3, 0.85),
            ("built-up", 0.1, 0.4),
            ("barren", 0.0, 0.12),
            ("snow and ice", -0.2, 0.1),
            ("water", -1.0, 0.0),
        ],
    )
    def test_the_rest_of_the_year(self, ndvi, name, low, high):
        assert all(low < ndvi(month, name) < high for month in range(3, 11))

    def test_seasons(self, ndvi):
        assert ndvi(2, "deciduous forest") < 0.65
        assert ndvi(7, "deciduous forest") > 0.8
        assert ndvi(5, "savanna") > ndvi(8, "savanna") + 0.15
        assert ndvi(7, "wetland") > ndvi(2, "wetland") + 0.15

    def test_brightness(self, landscape):
        """Snow in the range of Wiscombe and Warren 1980, J. Atmos. Sci. 37: bright to 0.9 µm, dark
        at 1.6 µm; NDSI above 0.4 with near infrared above 0.11 is snow (Hall et al. 1995, Remote
        Sensing of Environment 54). Water is brighter in the green than in the near infrared
        (McFeeters 1996, International Journal of Remote Sensing 17); woods are the darkest
        vegetation in the visible; rock and soil rise from blue to 1.6 µm.
        """
        snow, water, wood, rock, maize = (
            seen(name, 105, landscape)
            for name in ("snow and ice", "water", "evergreen forest", "barren", "maize")
        )
        assert index(snow, "green", "swir16") > 0.7
        assert all(0.6 < snow[b] < 0.95 for b in BANDS[:8])
        assert snow["swir16"] < 0.2
        assert index(water, "green", "nir") > 0.3
        assert max(water.values()) < 0.06
        assert wood["red"] < 0.03
        assert 0.12 < wood["nir"] < 0.3
        for ground in (rock, maize):
            values = [ground[b] for b in ("blue", "green", "red", "nir", "swir16")]
            assert values == sorted(values)
        assert 0.15 < rock["red"] < 0.35
        assert 0.08 < maize["red"] < 0.2
        for c in LEGEND:
            values = seen(c.name, 200, landscape)
            assert 0 < min(values.values()) < max(values.values()) < 0.95
