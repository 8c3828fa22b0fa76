"""Simulated labels: coarse IGBP cells, vectors, three labellers, and the picture of it all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import combinations

import geopandas as gpd
import matplotlib.image
import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
import shapely

from lcengine.cluster import connect
from lcengine.errors import InputError
from lcengine.simulate import LEGEND, SENSORS, SimulationOptions, gallery, simulate
from lcengine.simulate.coarse import CONFUSED, FILES, NODATA, CoarseLabels, confuse, igbp_of
from lcengine.simulate.vectors import FILE, LABELLERS, LAYERS, VectorLabels, called, field_around
from lcengine.simulate.world import world

OPTIONS = SimulationOptions(
    size=256, dates=2, seed=6, bands=("blue", "green", "red", "nir"),
    period="2023-05-01/2023-06-30", sensors=("s2", "s1", "planet"), labels=True,
)  # fmt: skip
LARGE = replace(OPTIONS, size=2000, sensors=("s2",))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("labels") / "sim", OPTIONS)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Labels of 20 km × 20 km, without imagery: (map, ideal map)."""
    root = tmp_path_factory.mktemp("large")
    CoarseLabels(LARGE).run(root)
    return [read(root / "labels" / name) for name in FILES]


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def layer(archive, name):
    return gpd.read_file(archive.labels / FILE, layer=name)


def mixture(**shares):
    """Fractions by IGBP class of covers named by their number, as `c12=0.5`."""
    fractions = np.zeros(18, np.float32)
    for name, share in shares.items():
        fractions[int(name[1:])] = share
    return fractions


class TestRules:
    """The IGBP definitions on mixtures whose class is known."""

    @pytest.mark.parametrize(
        ("fractions", "expected"),
        [
            (mixture(c12=1.0), 12),
            (mixture(c12=0.65, c4=0.35), 12),
            (mixture(c12=0.5, c10=0.5), 14),
            (mixture(c12=0.5, c4=0.5), 14),
            (mixture(c4=0.7, c12=0.3), 4),
            (mixture(c1=0.7, c12=0.3), 1),
            (mixture(c1=0.4, c4=0.4, c10=0.2), 5),
            (mixture(c4=0.4, c10=0.6), 8),
            (mixture(c4=0.15, c10=0.85), 9),
            (mixture(c10=0.95, c4=0.05), 10),
            (mixture(c13=0.35, c12=0.65), 13),
            (mixture(c17=0.7, c10=0.3), 17),
            (mixture(c11=0.4, c10=0.6), 11),
            (mixture(c16=0.9, c7=0.1), 16),
            (mixture(c7=0.7, c10=0.3), 7),
            (mixture(c15=1.0), 15),
        ],
    )
    def test_mixtures(self, fractions, expected):
        assert igbp_of(fractions[None, None])[0, 0] == expected

    def test_pure_covers_keep_their_class(self):
        for cover in LEGEND:
            pure = mixture(**{f"c{cover.igbp}": 1.0})
            assert igbp_of(pure[None])[0] == cover.igbp

    def test_confusions_are_as_frequent_as_stated(self):
        rng = np.random.default_rng(0)
        for code, mistakes in CONFUSED.items():
            classes = np.full((400, 400), code, np.uint8)
            out = confuse(classes, rng.random(classes.shape).astype(np.float32), seed=1)
            for other, share in mistakes:
                assert (out == other).mean() == pytest.approx(share, abs=0.006)
            kept = 1 - sum(share for _, share in mistakes)
            assert (out == code).mean() == pytest.approx(kept, abs=0.006)


class TestCoarse:
    def test_is_on_even_cells_and_unknown_outside(self, archive):
        with rasterio.open(archive.labels / FILES[0]) as file:
            assert file.res == (500, 500)
            assert file.crs.to_epsg() == 32631
            assert all(edge % 500 == 0 for edge in file.bounds)
            assert (file.nodata, file.dtypes) == (NODATA, ("uint8",))
            labels = file.read(1)
        known = labels[labels != NODATA]
        assert set(known.tolist()) <= set(range(1, 18))
        side = OPTIONS.size * 10 / 500
        assert known.size == pytest.approx(side**2, rel=0.25)

    def test_fractions_are_those_of_the_landscape(self):
        shares, bounds = CoarseLabels(OPTIONS).fractions()
        ground = world(OPTIONS).landscape
        igbp = {c.code: c.igbp for c in LEGEND}
        code = ground.landcover
        inside = shares.sum(axis=(0, 1)) * 500**2 / (OPTIONS.size * 10) ** 2
        for kind in sorted(set(igbp.values())):
            expected = np.isin(code, [c for c, i in igbp.items() if i == kind]).mean()
            assert inside[kind] == pytest.approx(expected, abs=0.03)
        assert (bounds[2] - bounds[0]) // 500 == shares.shape[1]

    def test_errs_as_often_as_the_product(self, large):
        """Sulla-Menashe et al. 2019: 73.6 % of the cells are right."""
        labels, ideal = large
        known = labels != NODATA
        assert known.sum() == 1600
        assert (labels == ideal)[known].mean() == pytest.approx(0.736, abs=0.06)

    def test_the_ideal_map_is_the_ground_under_its_cells(self, large):
        """Without error means without the shift of the other map too."""
        ground = world(LARGE).landscape
        igbp = np.array([0, *(c.igbp for c in LEGEND)])
        classes = igbp[ground.code[ground.raster(ground.bounds, 20)]].reshape(40, 25, 40, 25)
        shares = np.stack([(classes == c).mean(axis=(1, 3)) for c in range(18)], axis=-1)
        # All but cells exactly at a limit of a rule, where rounding decides.
        assert (large[1] == igbp_of(shares.astype(np.float32))).mean() > 0.99

    def test_confusions_come_in_patches(self):
        """A neighbour of a confused cell is confused more often than cells are."""
        mosaic = np.full((40, 40), 14, np.uint8)
        rank = CoarseLabels(LARGE).rank(mosaic.shape)
        wrong = confuse(mosaic, rank, LARGE.seed) != 14
        together = (wrong[:, 1:] & wrong[:, :-1]).mean()
        assert together > 1.5 * wrong.mean() ** 2

    def test_it_has_the_mixtures_of_the_legend(self, large):
        assert {10, 12, 13, 14} <= set(large[0].ravel().tolist())

    def test_villages_vanish(self, large):
        """Fewer cells are built-up than ground is."""
        ground = world(LARGE).landscape
        left, bottom, right, top = ground.bounds
        code = ground.code[ground.raster(ground.bounds, 100)]
        built = np.isin(code, [c.code for c in LEGEND if c.igbp == 13]).mean()
        assert (right - left, top - bottom) == (20_000, 20_000)
        assert 0 < (large[1] == 13).mean() < built


class TestVectors:
    def test_layers(self, archive):
        names = pyogrio.list_layers(archive.labels / FILE)[:, 0]
        assert set(names) == set(LAYERS)
        for name in LAYERS:
            frame = layer(archive, name)
            assert len(frame) > 5
            assert frame.crs.to_epsg() == 32631
            assert frame.geometry.is_valid.all()

    def test_fields_hold_their_crop_and_little_else(self, archive):
        landscape = world(OPTIONS).landscape
        names = {c.code: c.name for c in LEGEND if c.crop}
        inside, total = 0, 0
        for row in layer(archive, "crops").itertuples():
            assert names[row.code] == row.name
            assert "2023-05-01" <= row.surveyed <= "2023-06-30"
            left, bottom, right, top = row.geometry.bounds
            x, y = np.meshgrid(np.arange(left, right, 7), np.arange(bottom, top, 7))
            within = shapely.contains_xy(row.geometry, x, y)
            code = landscape.code[landscape.units(x[within], y[within])]
            inside += (code == row.code).sum()
            total += within.sum()
        assert inside / total > 0.99

    def test_every_point_of_a_field_gives_the_same_outline(self):
        landscape = world(OPTIONS).landscape
        row = VectorLabels(OPTIONS).crops().iloc[0]
        middle = row.geometry.representative_point()
        other = row.geometry.buffer(-8).exterior.interpolate(0.3, normalized=True)
        one, two = (field_around(landscape, p.x, p.y) for p in (middle, other))
        assert one.equals(two)
        assert one.equals(row.geometry)

    def test_roads_and_buildings_lie_on_what_they_are(self, archive):
        landscape = world(OPTIONS).landscape
        built = next(c.code for c in LEGEND if c.name == "built-up")
        for name, least in (("roads", 0.85), ("buildings", 0.95)):
            points = [g.interpolate(0.5, normalized=True) if name == "roads" else g.centroid
                      for g in layer(archive, name).geometry]  # fmt: skip
            x, y = np.array([(p.x, p.y) for p in points]).T
            assert (landscape.code[landscape.units(x, y)] == built).mean() > least

    def test_no_road_runs_through_water(self):
        """Along the whole of every line, but for what it was drawn beside its place."""
        options = replace(OPTIONS, size=500, seed=3)
        landscape = world(options).landscape
        wet = [c.code for c in LEGEND if c.name in ("water", "snow and ice")]
        roads = VectorLabels(options).roads().geometry
        points = [line.interpolate(d) for line in roads for d in np.arange(0, line.length, 5)]
        x, y = np.array([(p.x, p.y) for p in points]).T
        assert np.isin(landscape.code[landscape.units(x, y)], wet).mean() < 0.005

    def test_maps_miss_some(self, archive):
        landscape = world(OPTIONS).landscape
        assert 0.7 < len(layer(archive, "buildings")) / len(landscape.footprints) < 0.9
        assert 0.65 < len(layer(archive, "roads")) / len(landscape.roads) < 1

    def test_points_know_the_truth(self, archive):
        landscape = world(OPTIONS).landscape
        points = layer(archive, "points")
        code = landscape.code[landscape.units(points.geometry.x, points.geometry.y)]
        np.testing.assert_array_equal(points["code"], code)
        crops = [c.code for c in LEGEND if c.crop]
        np.testing.assert_array_equal(points["truth"], np.isin(code, crops))

    def test_a_wide_world_is_surveyed_in_its_middle(self):
        wide = VectorLabels(SimulationOptions(size=8000, labels=True))
        left, bottom, right, top = wide.area
        assert (right - left, top - bottom) == (20_000, 20_000)
        whole = world(wide.options).landscape.bounds
        assert left - whole[0] == whole[2] - right == 30_000


@pytest.fixture(scope="module")
def points():
    return VectorLabels(replace(OPTIONS, size=1800)).points()


class TestLabellers:
    def test_agreement(self, points):
        names = [labeller.name for labeller in LABELLERS]
        right = [(points[n] == points["truth"]).mean() for n in names]
        assert all(0.78 < share < 0.97 for share in right)
        assert right[0] > max(right[1:])
        for one, other in combinations(names, 2):
            assert 0.7 < (points[one] == points[other]).mean() < 0.92
        together = points[names].nunique(axis=1) == 1
        assert 0.6 < together.mean() < 0.85
        majority = points[names].sum(axis=1) >= 2
        assert (majority == points["truth"]).mean() > max(right) - 0.02

    def test_each_errs_in_an_own_way(self, points):
        crop = points["truth"] == 1
        missed = {n: (points[n][crop] == 0).mean() for n in "abc"}
        invented = {n: (points[n][~crop] == 1).mean() for n in "abc"}
        assert missed["b"] > 1.5 * missed["a"]
        assert invented["c"] > 1.5 * invented["b"]

    def test_borders_and_bare_fields_are_hard(self):
        rng = np.random.default_rng(0)
        truth = np.ones(20_000, bool)
        no = np.zeros(20_000, bool)
        b = LABELLERS[1]
        share = [(~called(b, truth, edge, bare, rng)).mean()
                 for edge, bare in ((no, no), (~no, no), (no, ~no))]  # fmt: skip
        assert share == pytest.approx([b.misses, b.misses + b.border, b.misses + b.bare], abs=0.01)


class TestDeterminism:
    def test_equal_options_give_equal_files(self, tmp_path):
        options = replace(OPTIONS, size=128)
        seen = []
        for n in range(2):
            for job in (VectorLabels(options), CoarseLabels(options)):
                job.run(tmp_path / str(n))
            folder = tmp_path / str(n) / "labels"
            seen.append({f.name: hashlib.sha256(f.read_bytes()).digest() for f in folder.iterdir()})
        assert seen[0] == seen[1]
        VectorLabels(replace(options, seed=7)).run(tmp_path / "other")
        other = (tmp_path / "other" / "labels" / FILE).read_bytes()
        assert hashlib.sha256(other).digest() != seen[0][FILE]

    @pytest.mark.slow
    def test_whatever_the_threads_and_workers(self, tmp_path):
        """Every file of every sensor and label, byte for byte."""
        options = replace(OPTIONS, size=64, dates=1, period="2023-06-01/2023-06-20")
        alone = simulate(tmp_path / "alone", options, threads=1)
        crowd = simulate(tmp_path / "crowd", options, threads=4)
        with connect("local:workers=2,threads=1") as client:
            spread = simulate(tmp_path / "spread", options, client=client)
        expected = digest(alone.path)
        assert len(expected) > 20
        assert digest(crowd.path) == expected
        assert digest(spread.path) == expected


def test_items_of_every_sensor_link_to_their_collection(archive):
    """STAC forbids an item to name a collection without a link to it."""
    catalog = pystac.Catalog.from_file(str(archive.catalog))
    items = list(catalog.get_items(recursive=True))
    assert sorted(i.id for i in items) == sorted(archive.item_ids)
    assert len({i.id for i in items}) == len(items)
    assert len({i.collection_id for i in items}) == 3
    for item in items:
        own = pystac.Item.from_file(item.get_self_href())
        assert own.get_collection().id == item.collection_id
        assert own.get_root().id == own.get_collection().get_root().id == "simulated-world"


class TestGallery:
    def test_has_a_panel_for_every_layer(self, archive, tmp_path):
        gallery.draw(archive, tmp_path / "world.png")
        picture = matplotlib.image.imread(tmp_path / "world.png")
        assert picture.shape[0] > 600
        assert picture.shape[1] > 900
        # Twelve panels with something in them: no quarter of a row is blank.
        rows = np.array_split(picture[: int(picture.shape[0] * 0.93)], 3)
        for row in rows:
            for panel in np.array_split(row, 4, axis=1):
                assert panel[..., :3].std() > 0.05

    def test_of_sentinel_2_alone(self, tmp_path):
        small = simulate(tmp_path / "sim", SimulationOptions(size=64, dates=1, bands=("red",)))
        gallery.draw(small, tmp_path / "small.jpg")
        assert (tmp_path / "small.jpg").stat().st_size > 5000

    def test_another_kind_of_file_is_named(self, archive, tmp_path):
        with pytest.raises(InputError, match=r"ends in '.gif', expected .png or .jpg"):
            gallery.draw(archive, tmp_path / "world.gif")

    def test_the_command_draws_it(self, run, tmp_path):
        code, out, _ = run(
            "simulate", tmp_path / "sim", "--size", 64, "--dates", 1, "--sensors", "s2, s1",
            "--picture", tmp_path / "new" / "world.png", "--json",
        )  # fmt: skip
        assert code == 0
        assert "world.png" in out
        assert (tmp_path / "new" / "world.png").stat().st_size > 5000

    def test_help_names_the_sensors(self, run):
        _, out, _ = run("simulate", "--help")
        assert all(name in out for name in SENSORS)

    def test_the_command_refuses_another_kind_before_it_begins(self, run, tmp_path):
        code, _, err = run("simulate", tmp_path / "sim", "--picture", tmp_path / "world.gif")
        assert code == 2
        assert "expected .png or .jpg" in err
        assert not (tmp_path / "sim").exists()
