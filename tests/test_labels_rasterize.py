"""Features become the pixels that GDAL's own rules give them, whatever the cells and tiles."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely import LineString, MultiPolygon, Point, Polygon

from lcengine import Grid
from lcengine.errors import InputError
from lcengine.labels.layers import Layer, prepare, rasterize
from lcengine.labels.rules import Rule
from lcengine.legends import Entry, Legend

LEFT, TOP, UTM = 500_000.0, 5_600_000.0, "EPSG:32631"


def grid_of(width, height, tile=512, resolution=10.0, crs=UTM, left=LEFT, top=TOP):
    bottom, right = top - height * resolution, left + width * resolution
    return Grid.from_bounds(left, bottom, right, top, crs, resolution, tile)


def star(rng, x, y, radius, corners, snap=None):
    """A polygon around a point, on a lattice of `snap` metres."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.3, 1, corners)
    xy = np.c_[x + reach * np.cos(angle), y + reach * np.sin(angle)]
    if snap:
        xy = np.round(xy / snap) * snap
    return shapely.make_valid(Polygon(xy), method="structure", keep_collapsed=False)


def stars(seed, count, grid, radii=(30, 100, 600), snap=None, corners=(3, 30), beyond=200):
    rng = np.random.default_rng(seed)
    left, bottom, right, top = grid.bounds
    found = [
        star(
            rng,
            rng.uniform(left - beyond, right + beyond),
            rng.uniform(bottom - beyond, top + beyond),
            rng.choice(radii),
            rng.integers(*corners),
            snap,
        )
        for _ in range(count)
    ]
    return [shape for shape in found if not shape.is_empty]


def frame_of(shapes, codes, crs=UTM, **columns):
    return gpd.GeoDataFrame({"code": codes, **columns}, geometry=shapes, crs=crs)


def gdal(shapes, codes, grid, *, touched=False, fill=255, dtype="uint8"):
    """One call for the whole grid, in coordinates."""
    return rasterio.features.rasterize(
        zip(shapes, codes, strict=True),
        out_shape=grid.shape,
        fill=fill,
        transform=from_origin(*grid.bounds[0::3], grid.resolution, grid.resolution),
        all_touched=touched,
        dtype=dtype,
    )


class TestOneShot:
    """Equal to GDAL's one call."""

    @pytest.mark.parametrize("touched", [False, True])
    def test_polygons(self, touched):
        grid = grid_of(1300, 1100)
        shapes = stars(1, 1500, grid)
        codes = np.arange(len(shapes)) % 5 + 1
        made = rasterize(
            frame_of(shapes, codes), grid, Rule("code", all_touched=touched), conflict="last"
        )
        expected = gdal(shapes, codes, grid, touched=touched)
        assert (expected != 255).mean() > 0.3
        np.testing.assert_array_equal(made["label"], expected)

    @pytest.mark.parametrize("touched", [False, True])
    def test_lines_and_points(self, touched):
        grid = grid_of(1100, 600)
        rng = np.random.default_rng(2)
        outlines = [s.exterior for s in stars(3, 200, grid, radii=(3000,)) if s.geom_type[0] == "P"]
        shapes = [LineString(ring.coords) for ring in outlines]
        left, bottom, right, top = grid.bounds
        shapes += list(shapely.points(rng.uniform([left, bottom], [right, top], (500, 2))))
        codes = np.arange(len(shapes)) % 3 + 1
        made = rasterize(
            frame_of(shapes, codes), grid, Rule("code", all_touched=touched), conflict="last"
        )
        np.testing.assert_array_equal(made["label"], gdal(shapes, codes, grid, touched=touched))

    @pytest.mark.parametrize("touched", [False, True])
    @pytest.mark.parametrize("snap", [10.0, 5.0, 1.0])
    def test_corners_on_edges_and_centres_of_pixels(self, snap, touched):
        """Where an outline runs through the very centre or corner of a pixel, rounding decides."""
        grid = grid_of(700, 700)
        shapes = stars(int(snap * 2), 300, grid, snap=snap)
        codes = np.ones(len(shapes), int)
        made = rasterize(frame_of(shapes, codes), grid, Rule("code", all_touched=touched))
        differ = np.argwhere(made["label"].values != gdal(shapes, codes, grid, touched=touched))
        assert len(differ) < 100
        outlines = shapely.union_all(shapely.boundary(shapes))
        shapely.prepare(outlines)
        for row, col in differ:
            x, y = LEFT + col * 10, TOP - row * 10
            corners = shapely.points([x, x + 10, x, x + 10, x + 5], [y, y, y - 10, y - 10, y - 5])
            inner = shapely.box(x + 1e-6, y - 10 + 1e-6, x + 10 - 1e-6, y - 1e-6)
            through = shapely.dwithin(outlines, corners, 1e-6).any()
            assert through or not shapely.intersects(outlines, inner)

    @pytest.mark.parametrize("touched", [False, True])
    def test_a_huge_outline_with_holes(self, touched):
        """What a cell cannot see of it is dropped before GDAL looks."""
        grid = grid_of(1600, 1600)
        rng = np.random.default_rng(5)
        middle = LEFT + 8000, TOP - 8000
        angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
        reach = 9500 + 1500 * np.sin(37 * angle) + rng.normal(0, 20, angle.size)
        shell = Polygon(np.c_[middle[0] + reach * np.cos(angle), middle[1] + reach * np.sin(angle)])
        holes = shapely.union_all(stars(6, 300, grid, radii=(100, 400)))
        shape = shapely.make_valid(shell, method="structure").difference(holes)
        line = LineString(shell.exterior.coords)
        frame = frame_of([shape, line], [1, 2])
        made = rasterize(frame, grid, Rule("code", all_touched=touched), conflict="last")
        parts = [*shape.geoms] if isinstance(shape, MultiPolygon) else [shape]
        expected = gdal([*parts, line], [1] * len(parts) + [2], grid, touched=touched)
        np.testing.assert_array_equal(made["label"], expected)

    def test_a_geographic_grid_and_features_in_another_crs(self):
        grid = grid_of(300, 300, resolution=1e-4, crs="EPSG:4326", left=3.0, top=50.5)
        shapes = stars(7, 100, grid, radii=(0.002,), beyond=0.001)
        codes = np.arange(len(shapes)) % 3
        frame = frame_of(shapes, codes, "EPSG:4326")
        moved = frame.to_crs("EPSG:3035")
        made = rasterize(moved, grid, Rule("code"), conflict="last")["label"].values
        expected = gdal(frame.geometry, codes, grid)
        # The way there and back through the other CRS rounds: 1e-9 of a degree.
        assert (made != expected).mean() < 1e-4


class TestTiles:
    """No pixel depends on tile, window or order."""

    @settings(max_examples=12)
    @given(
        tile=st.sampled_from([208, 320, 512, 1024]),
        touched=st.booleans(),
        conflict=st.sampled_from(["ignore", "last"]),
        seed=st.integers(0, 3),
    )
    def test_lazy_equals_eager(self, tile, touched, conflict, seed):
        whole = grid_of(600, 200, 512)
        tiled = grid_of(600, 200, tile)
        shapes = stars(seed, 40, whole)
        frame = frame_of(shapes, np.arange(len(shapes)) % 4)
        rule = Rule("code", all_touched=touched)
        eager = rasterize(frame, whole, rule, conflict=conflict)["label"].values
        lazy = rasterize(frame, tiled, rule, conflict=conflict, lazy=True)
        assert lazy["label"].chunks[1][0] == min(tile, 600)
        np.testing.assert_array_equal(lazy["label"].compute(scheduler="sync"), eager)

    def test_the_order_of_features_matters_to_the_last_rule_alone(self):
        grid = grid_of(400, 400)
        shapes = stars(8, 300, grid)
        frame = frame_of(shapes, np.arange(len(shapes)) % 4)
        turned = frame.iloc[::-1]
        one, other = (rasterize(f, grid, Rule("code"))["label"].values for f in (frame, turned))
        np.testing.assert_array_equal(one, other)
        last = [
            rasterize(f, grid, Rule("code"), conflict="last")["label"].values
            for f in (frame, turned)
        ]
        assert (last[0] != last[1]).any()

    def test_pixels_outside_the_aoi_are_unlabelled(self):
        square = grid_of(100, 100)
        triangle = Polygon([(LEFT, TOP), (LEFT + 1000, TOP), (LEFT, TOP - 1000)])
        described = square.to_dict() | {"aoi": triangle.wkt}
        frame = frame_of([shapely.box(LEFT, TOP - 1000, LEFT + 1000, TOP)], [3])
        made = rasterize(frame, Grid.from_dict(described), Rule("code"))
        x, y = np.meshgrid(made.x, made.y)
        inside = shapely.intersects_xy(triangle, x, y)
        np.testing.assert_array_equal(made["label"] == 3, inside)
        assert made.attrs["labelled"] == inside.sum()


class TestConflicts:
    """Equal priority and different classes over a pixel."""

    def oracle(self, shapes, codes, grid, touched):
        """A stack with one raster for each feature."""
        each = np.stack(
            [gdal([s], [c], grid, touched=touched) for s, c in zip(shapes, codes, strict=True)]
        )
        there = each != 255
        most = np.where(there, each, 0).max(axis=0)
        least = each.min(axis=0)
        clash = there.any(axis=0) & (most != least)
        return np.where(there.any(axis=0) & ~clash, most, 255), clash

    @settings(max_examples=20)
    @given(
        seed=st.integers(0, 50),
        classes=st.integers(1, 5),
        touched=st.booleans(),
        lines=st.booleans(),
    )
    def test_ignored_as_an_oracle_says(self, seed, classes, touched, lines):
        grid = grid_of(90, 70)
        shapes = stars(seed, 25, grid)
        if lines:
            shapes = [shapely.boundary(s) if i % 2 else s for i, s in enumerate(shapes)]
        codes = np.arange(len(shapes)) % classes + 1
        made = rasterize(frame_of(shapes, codes), grid, Rule("code", all_touched=touched))
        expected, clash = self.oracle(shapes, codes, grid, touched)
        np.testing.assert_array_equal(made["label"], expected)
        assert made.attrs["conflicts"] == clash.sum()

    def test_the_higher_priority_wins_and_decides_about_conflicts(self):
        grid = grid_of(60, 60)
        box = [shapely.box(LEFT + a, TOP - b, LEFT + b, TOP - a) for a, b in
               ((0, 400), (200, 600), (300, 350))]  # fmt: skip
        frame = frame_of(box, [1, 2, 3], rank=[1, 1, 5])
        made = rasterize(frame, grid, Rule("code", priority="rank"))["label"].values
        assert made[10, 10] == 1
        assert made[50, 50] == 2
        assert made[25, 25] == 255  # both of rank 1
        assert made[32, 32] == 3
        ordered = rasterize(frame, grid, Rule("code", priority=[2, 3]))["label"].values
        assert (ordered[25, 25], ordered[32, 32], ordered[10, 10]) == (2, 2, 1)

    def test_an_error_names_both_features(self):
        grid = grid_of(60, 60)
        box = [shapely.box(LEFT + a, TOP - 600, LEFT + b, TOP) for a, b in ((0, 400), (200, 600))]
        with pytest.raises(InputError, match=r"feature 0 of x .class 1. and feature 1 of x"):
            rasterize(Layer(frame_of(box, [1, 2]), Rule("code"), "x"), grid, conflict="error")
        rasterize(Layer(frame_of(box, [2, 2]), Rule("code"), "x"), grid, conflict="error")

    def test_a_wrong_rule_for_conflicts(self):
        frame = frame_of([Point(LEFT, TOP)], [1])
        with pytest.raises(InputError, match="conflict is 'first', expected one of ignore"):
            rasterize(frame, grid_of(10, 10), Rule("code"), conflict="first")


class TestDistances:
    """Buffers and erosion are metres on the ground in any CRS."""

    @pytest.mark.parametrize(
        ("crs", "resolution"),
        [
            (UTM, 1.0),
            ("EPSG:4326", 1e-5),
            ("EPSG:3857", 1.5),  # Mercator's metres are 0.64 of one at 50° N
            ("EPSG:2264", 3.0),  # US feet, far outside its area
        ],
    )
    def test_a_buffered_point_has_its_area(self, crs, resolution):
        lon, lat = (-79.0, 35.5) if crs == "EPSG:2264" else (3.2, 50.5)
        point = gpd.GeoDataFrame(geometry=[Point(lon, lat)], crs="EPSG:4326")
        x, y = point.to_crs(crs).geometry[0].coords[0]
        reach = 300 * resolution
        grid = Grid.from_bounds(x - reach, y - reach, x + reach, y + reach, crs, resolution, 512)
        rule = Rule(value=1, buffer=100)
        features, _, _ = prepare([Layer(point, rule)], grid)
        utm = features.to_crs(point.estimate_utm_crs())
        assert utm.area.sum() == pytest.approx(np.pi * 1e4, rel=0.01)
        made = rasterize(point, grid, rule)["label"].values
        pixels = (made == 1).sum()
        cell = shapely.area(features.geometry).sum() / resolution**2
        assert pixels == pytest.approx(cell, rel=0.02)

    def test_roads_as_wide_as_they_are(self):
        grid = grid_of(200, 50, resolution=1.0)
        road = LineString([(LEFT + 20, TOP - 25), (LEFT + 180, TOP - 25)])
        made = rasterize(frame_of([road], [1]), grid, Rule("code", buffer=6))["label"].values
        assert (made[:, 100] == 1).sum() == 12

    def test_fields_lose_their_edge(self):
        grid = grid_of(100, 100, resolution=1.0)
        field = shapely.box(LEFT + 10, TOP - 90, LEFT + 90, TOP - 10)
        sliver = shapely.box(LEFT + 92, TOP - 90, LEFT + 96, TOP - 10)
        made = rasterize(frame_of([field, sliver], [1, 2]), grid, Rule("code", erode=5))
        expected = np.full((100, 100), 255)
        expected[15:85, 15:85] = 1
        np.testing.assert_array_equal(made["label"], expected)
        assert made.attrs["layers"][0]["eroded"] == 1


def test_layers_in_one_raster():
    """Roads over buildings over crops, each by its own rule."""
    grid = grid_of(100, 100, resolution=1.0)
    crops = frame_of([shapely.box(LEFT, TOP - 100, LEFT + 100, TOP)], [7], crop=["maize"])
    houses = frame_of([shapely.box(LEFT + 20, TOP - 60, LEFT + 40, TOP - 40)], [0])
    roads = frame_of([LineString([(LEFT, TOP - 50), (LEFT + 100, TOP - 50)])], [0])
    layers = [
        Layer(crops, Rule("crop", erode=10), "crops"),
        Layer(houses, Rule(value="building", priority=1), "houses"),
        Layer(roads, Rule(value="road", buffer=2, priority=2), "roads"),
    ]
    made = rasterize(layers, grid)
    names = dict(zip(made.label.flag_values, made.label.flag_meanings.split(), strict=True)) | {
        255: ""
    }
    words = np.vectorize(names.get)(made["label"].values)
    assert (words[5, 50], words[30, 30]) == ("", "maize")
    assert (words[45, 30], words[50, 30], words[50, 5]) == ("building", "road", "road")
    assert made["label"].dtype == np.uint8
    assert made.rio.crs.to_epsg() == 32631
    assert [row["burned"] for row in made.attrs["layers"]] == [1, 1, 1]


def test_classes_that_a_style_calls_alike_are_counted_together():
    entries = (Entry(1, "crop", "#ff0000"), Entry(2, "crop", "#00ff00"))
    boxes = [shapely.box(LEFT + x, TOP - 100, LEFT + x + 100, TOP) for x in (0, 100)]
    found = Legend("two", "Two", entries, "tests")
    made = rasterize(frame_of(boxes, [1, 2]), grid_of(20, 10), Rule("code"), legend=found)
    assert (made.attrs["labelled"], made.attrs["classes"]) == (200, {"crop": 200})
