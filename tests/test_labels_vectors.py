"""Vector files and rules: what is read, what becomes of it, and what is refused by name."""

from __future__ import annotations

import tracemalloc

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from shapely import LineString, Point, Polygon

from lcengine import Grid
from lcengine.errors import InputError
from lcengine.labels.layers import Layer, prepare, rasterize
from lcengine.labels.plan import plan_labels
from lcengine.labels.request import LabelRequest, VectorFile, read_rules
from lcengine.labels.rules import Rule, codes_of, legend_of, priorities_of
from lcengine.labels.vectors import place, read_vectors
from lcengine.legends import Entry, Legend, save_style

LEFT, TOP, UTM = 500_000.0, 5_600_000.0, "EPSG:32631"
CROPS = Legend(
    "crops",
    "Crops",
    (Entry(0, "nothing", "#000000"), Entry(1, "Maize", "#ffff00"), Entry(300, "rye", "#00ff00")),
    "tests",
    (0,),
)


def square(x, y, size=100):
    return shapely.box(LEFT + x, TOP - y - size, LEFT + x + size, TOP - y)


def fields(names=("maize", "rye"), **columns):
    shapes = [square(200 * i, 0) for i in range(len(names))]
    return gpd.GeoDataFrame({"crop": list(names), **columns}, geometry=shapes, crs=UTM)


@pytest.fixture
def grid():
    return Grid.from_bounds(LEFT, TOP - 1000, LEFT + 1000, TOP, UTM, 10.0, 512)


class TestFormats:
    """Files of any format give the same features."""

    @pytest.mark.parametrize(
        "name", ["f.gpkg", "f.geojson", "f.shp", "f.fgb", "f.parquet", "f.geoparquet"]
    )
    def test_features_and_names_that_are_not_ascii(self, tmp_path, name):
        frame = fields(["blé tendre", "пшеница"])
        path = tmp_path / name
        if "parquet" in name:
            frame.to_parquet(path)
        else:
            frame.to_file(path, engine="pyogrio")
        found = read_vectors(path)
        found = found.sort_values("crop", ignore_index=True)  # FlatGeobuf sorts by place
        assert found["crop"].tolist() == ["blé tendre", "пшеница"]
        assert found.crs.to_epsg() == 32631
        assert shapely.equals(found.geometry.to_numpy(), frame.geometry.to_numpy()).all()
        assert {k: found.attrs[k] for k in ("features", "repaired", "empty")} == {
            "features": 2,
            "repaired": 0,
            "empty": 0,
        }

    def test_a_shapefile_without_cpg_has_its_encoding_said(self, tmp_path):
        path = tmp_path / "f.shp"
        fields(["пшеница", "rye"]).to_file(path, engine="pyogrio", encoding="cp1251")
        path.with_suffix(".cpg").unlink()
        assert read_vectors(path, encoding="cp1251")["crop"][0] == "пшеница"
        with pytest.raises(InputError, match=r"cannot be read .*encoding"):
            read_vectors(path, encoding="klingon")

    def test_layers_and_conditions(self, tmp_path):
        path = tmp_path / "f.gpkg"
        fields().to_file(path, layer="a", engine="pyogrio")
        fields(["oats"]).to_file(path, layer="b", engine="pyogrio")
        assert len(read_vectors(path, "b")) == 1
        assert read_vectors(path, "a", where="crop = 'rye'")["crop"].tolist() == ["rye"]
        with pytest.raises(InputError, match="has the layers a, b; choose one with --layer"):
            read_vectors(path)
        with pytest.raises(InputError, match="has no layer c; it has a, b"):
            read_vectors(path, "c")
        with pytest.raises(InputError, match="has no features where crop = 'hops'"):
            read_vectors(path, "a", where="crop = 'hops'")
        with pytest.raises(InputError, match="cannot be read"):
            read_vectors(path, "a", where="crop ==== 1")

    def test_an_empty_file(self, tmp_path):
        path = tmp_path / "f.gpkg"
        fields()[:0].to_file(path, engine="pyogrio", geometry_type="Polygon")
        with pytest.raises(InputError, match=r"f\.gpkg has no features; expected some"):
            read_vectors(path)

    def test_a_table_without_geometry(self, tmp_path):
        path = tmp_path / "f.gpkg"
        pyogrio.write_dataframe(fields().drop(columns="geometry"), path, driver="GPKG")
        with pytest.raises(InputError, match="is a table without geometry"):
            read_vectors(path)

    def test_what_is_no_vector_file(self, tmp_path):
        path = tmp_path / "f.gpkg"
        path.write_text("no")
        with pytest.raises(InputError, match="cannot be read as vectors"):
            read_vectors(path)
        path.rename(tmp_path / "f.parquet")
        with pytest.raises(InputError, match="is not GeoParquet"):
            read_vectors(tmp_path / "f.parquet")
        with pytest.raises(InputError, match="does not exist"):
            read_vectors(path)

    def test_no_crs(self, tmp_path):
        path = tmp_path / "f.shp"
        frame = fields()
        frame.to_file(path, engine="pyogrio")
        path.with_suffix(".prj").unlink()
        with pytest.raises(InputError, match="states no CRS; say with --file-crs"):
            read_vectors(path)
        assert read_vectors(path, crs=UTM).crs.to_epsg() == 32631


class TestGeometries:
    """Repaired, or named."""

    bow = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])

    def frame(self, *shapes):
        return gpd.GeoDataFrame({"crop": ["rye"] * len(shapes)}, geometry=list(shapes), crs=UTM)

    def test_self_intersections_are_repaired_and_counted(self, tmp_path):
        path = tmp_path / "f.gpkg"
        self.frame(self.bow, square(0, 0), None, Polygon()).to_file(path, engine="pyogrio")
        found = read_vectors(path)
        assert shapely.is_valid(found.geometry.to_numpy()).all()
        assert found.geometry.iloc[0].area == 2
        assert found.index.tolist() == [0, 1]
        assert (found.attrs["repaired"], found.attrs["empty"]) == (1, 2)

    def test_or_an_error_names_the_first(self, tmp_path):
        path = tmp_path / "f.gpkg"
        self.frame(square(0, 0), self.bow).to_file(path, engine="pyogrio")
        with pytest.raises(InputError, match="1 invalid geometries, the first of feature 1: Self"):
            read_vectors(path, invalid="error")

    def test_what_was_changed_after_reading_is_checked_again(self, grid, tmp_path):
        path = tmp_path / "f.gpkg"
        self.frame(None, square(0, 0), square(200, 0), square(400, 0)).to_file(path)
        read = read_vectors(path)
        _, _, report = prepare([Layer(read, Rule("crop"), "f")], grid)
        told = report["layers"][0]
        assert (told["features"], told["empty"], told["repaired"]) == (4, 1, 0)
        bow = Polygon([(LEFT + x, TOP - y) for x, y in ((0, 0), (200, 200), (200, 0), (0, 200))])
        changed = read.set_geometry([bow, None, square(400, 0)])
        features, _, report = prepare([Layer(changed, Rule("crop"), "f")], grid)
        told = report["layers"][0]
        assert (told["features"], told["empty"], told["repaired"]) == (3, 1, 1)
        assert features["feature"].tolist() == [1, 1, 3]

    def test_any_index_will_do(self, grid):
        shapes = [square(0, 0), square(200, 0)]
        named = self.frame(*shapes).set_index(pd.Index(["a", "b"]))
        twice = self.frame(*shapes).set_index(pd.Index([7, 7]))
        layers = [Layer(named, Rule("crop")), Layer(twice, Rule("crop"))]
        plan = plan_labels(layers, grid)
        assert plan.report["layers"][0]["burned"] == 2

    def test_nothing_but_empty_geometries(self, tmp_path):
        path = tmp_path / "f.geojson"
        path.write_text(
            '{"type": "FeatureCollection", "features": '
            '[{"type": "Feature", "geometry": null, "properties": {"a": 1}}]}'
        )
        with pytest.raises(InputError, match="geometry"):
            read_vectors(path, crs=UTM)

    def test_heights_are_dropped_and_collections_are_taken_apart(self, grid):
        line = LineString([(LEFT, TOP - 500, 3), (LEFT + 1000, TOP - 500, 4)])
        mixed = shapely.GeometryCollection([line, shapely.MultiPolygon([square(0, 0)])])
        made = rasterize(self.frame(mixed), grid, Rule(value=1))["label"].values
        assert (made[:10, :10] == 1).all()
        assert (made[50] == 1).sum() + (made[49] == 1).sum() == 100


class TestPlace:
    """Features on the grid, or a word about their CRS."""

    def test_a_wrong_crs_is_told_from_a_layer_that_has_nothing_here(self, grid):
        frame = fields().set_crs("EPSG:4326", allow_override=True)
        with pytest.raises(InputError, match=r"does not meet the grid.*--file-crs"):
            place(frame, grid)
        with pytest.raises(InputError, match="does not meet the grid"):
            place(fields().to_crs("EPSG:3035").set_crs("EPSG:3857", allow_override=True), grid)
        # Around the grid, though not in it: as sparse labels are.
        around = fields().set_geometry([square(-500, 0), square(5000, 0)])
        assert place(around, grid).empty
        with pytest.raises(InputError, match="no feature meets the grid"):
            rasterize(around, grid, Rule("crop"))

    @pytest.mark.parametrize("buffer", [0.0, 5.0])
    def test_metres_that_are_called_degrees_are_told_at_once(self, grid, buffer):
        """Edges of 100 degrees are not cut into kilometres first."""
        wide = square(0, 0, 1e6)
        frame = fields(["a"]).set_geometry([wide]).set_crs("EPSG:4326", allow_override=True)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"finite.*--file-crs"):
            place(frame, grid, buffer=buffer)
        assert tracemalloc.get_traced_memory()[1] < 1e7
        tracemalloc.stop()

    def test_parts_of_a_feature_are_buffered_where_they_are(self):
        """One feature may hold all fields of a class, on both sides of the world."""
        grid = Grid.from_bounds(3.0, 50.0, 3.1, 50.1, "EPSG:4326", 0.001, 512)
        here, there = shapely.box(3.02, 50.02, 3.04, 50.04), shapely.box(150, -30, 151, -29)
        alone = gpd.GeoDataFrame(geometry=[here], crs="EPSG:4326")
        both = gpd.GeoDataFrame(geometry=[shapely.MultiPolygon([here, there])], crs="EPSG:4326")
        one, other = (place(f, grid, buffer=200).geometry.iloc[0] for f in (alone, both))
        assert shapely.equals_exact(one, other, 1e-9)

    def test_erosion_leaves_the_lines_of_a_collection(self, grid):
        line = LineString([(LEFT, TOP - 505), (LEFT + 1000, TOP - 505)])
        frame = gpd.GeoDataFrame(
            geometry=[shapely.GeometryCollection([square(0, 0), line]), square(500, 0, 8)], crs=UTM
        )
        placed = place(frame, grid, erode=5)
        assert sorted(placed.geom_type) == ["LineString", "Polygon"]
        assert placed.attrs["eroded"] == 1

    @pytest.mark.parametrize("buffer", [0.0, 200.0])
    def test_one_feature_without_a_place_does_not_stop_the_others(self, buffer):
        grid = Grid.from_bounds(3.0, 50.0, 3.1, 50.1, "EPSG:4326", 0.001, 512)
        shapes = [shapely.box(3.02, 50.02, 3.04, 50.04), Point(500_000, 5_000_000)]
        placed = place(gpd.GeoDataFrame(geometry=shapes, crs="EPSG:4326"), grid, buffer=buffer)
        assert (placed.index.tolist(), placed.attrs["outside"]) == ([0], 1)

    def test_features_elsewhere_are_left_out_and_counted(self, grid):
        frame = fields(["a", "b"]).set_geometry([square(0, 0), square(10_000, 0)])
        placed = place(frame, grid)
        assert placed.index.tolist() == [0]
        assert placed.attrs["outside"] == 1

    def test_features_beyond_a_projection_are_left_out(self):
        """Mercator has no pole."""
        grid = Grid.from_bounds(0, 0, 1e6, 1e6, "EPSG:3857", 1e4, 512)
        shapes = [shapely.box(1, 1, 5, 5), Point(0, 90)]
        frame = gpd.GeoDataFrame(geometry=shapes, crs="EPSG:4326")
        for buffer in (0.0, 1000.0):
            placed = place(frame, grid, buffer=buffer)
            assert (placed.index.tolist(), placed.attrs["outside"]) == ([0], 1)

    def test_no_features_are_left(self, grid, tmp_path):
        path = tmp_path / "f.gpkg"
        fields().to_file(path, engine="pyogrio")
        with pytest.raises(InputError, match="x has no features, expected some"):
            rasterize(Layer(read_vectors(path)[:0], Rule("crop"), "x"), grid)
        with pytest.raises(InputError, match="invalid is 'drop', expected repair or error"):
            read_vectors(path, invalid="drop")

    def test_long_edges_stay_where_they_were_drawn(self):
        """A parallel is straight in degrees and bent in a projection."""
        grid = Grid.from_bounds(3e6, 2e6, 6e6, 4.5e6, "EPSG:3035", 5000.0, 512)
        box = gpd.GeoDataFrame(geometry=[shapely.box(0, 50, 20, 55)], crs="EPSG:4326")
        made = rasterize(box, grid, Rule(value=1))["label"]
        x, y = np.meshgrid(made.x, made.y)
        back = gpd.GeoSeries(shapely.points(x.ravel(), y.ravel()), crs="EPSG:3035").to_crs(4326)
        inside = (back.x > 0) & (back.x < 20) & (back.y > 50) & (back.y < 55)
        np.testing.assert_array_equal(made.values.ravel() == 1, inside)

    def test_pixels_of_an_image_have_no_place(self):
        from lcengine.crs import pixel_crs

        grid = Grid.from_bounds(0, -100, 100, 0, pixel_crs("a.png"), 1.0, 512)
        with pytest.raises(InputError, match="no place on Earth"):
            place(fields(), grid)
        drawn = gpd.GeoDataFrame(geometry=[shapely.box(10, -20, 20, -10)], crs=grid.crs_wkt)
        assert (rasterize(drawn, grid, Rule(value=1))["label"] == 1).sum() == 100


class TestRules:
    """Values become codes."""

    def codes(self, values, rule, found=CROPS):
        frame = gpd.GeoDataFrame({"crop": values}, geometry=[Point(0, 0)] * len(values), crs=UTM)
        return codes_of(frame, rule, found).tolist()

    def test_names_codes_and_numbers_of_any_type(self):
        rule = Rule("crop")
        assert self.codes(["maize", "RYE", " Maize"], rule) == [1, 300, 1]
        assert self.codes([1, 300], rule) == [1, 300]
        assert self.codes([1.0, 300.0], rule) == [1, 300]
        assert self.codes(["1", "300"], rule) == [1, 300]

    def test_mappings(self):
        rule = Rule("crop", {"Mais": "maize", "Roggen": 300, "Wald": "ignore"})
        assert self.codes(["Mais", "Roggen", "Wald"], rule) == [1, 300, -1]
        assert self.codes([7, 8], Rule("crop", {7: 1, "8": "rye"})) == [1, 300]
        assert self.codes([7.0, " Mais"], Rule("crop", {7.0: 1, " Mais": "300"})) == [1, 300]

    def test_mapped_values_are_found_whatever_their_case_and_warned_of_where_they_are_not(self):
        rule = Rule("crop", {"mais": 1, "Quinoa": 300}, other="ignore")
        with pytest.warns(UserWarning, match="has no crop Quinoa, which the map names"):
            assert self.codes(["MAIS", "Wald"], rule) == [1, -1]

    def test_names_of_the_legend_need_no_mapping_and_codes_do(self):
        rule = Rule("crop", {"Roggen": 300}, other="ignore")
        assert self.codes(["Roggen", "MAIZE", "oats"], rule) == [300, 1, -1]
        assert self.codes(["7", 1], Rule("crop", {7: 300}, other="ignore")) == [300, -1]

    def test_empty_text_says_nothing(self):
        """Shapefiles have no other way to."""
        assert self.codes(["", "  ", "rye"], Rule("crop", other="ignore")) == [-1, -1, 300]
        assert legend_of("l", [(fields(["", "rye"]), Rule("crop"))]).names == ("rye",)

    def test_unknown_values_are_named(self):
        with pytest.raises(InputError, match=r"3 values of crop .*crops: oats, 7, \(nothing\); it"):
            self.codes(["maize", "oats", 7, None], Rule("crop"))
        with pytest.raises(InputError, match=r"1 values of crop .*: hops"):
            self.codes(["maize", "hops"], Rule("crop", {"maize": 1}))
        assert self.codes(["oats", None, "rye"], Rule("crop", other="ignore")) == [-1, -1, 300]
        assert self.codes(["oats", "rye"], Rule("crop", other=0)) == [0, 300]
        with pytest.raises(InputError, match="other is 'corn', which is no class"):
            self.codes(["oats"], Rule("crop", other="corn"))
        with pytest.raises(InputError, match="the class are no class of legend crops: corn"):
            self.codes(["oats"], Rule(value="corn"))

    def test_an_attribute_that_is_not_there(self, grid):
        with pytest.raises(InputError, match="fields has no attribute kind; it has crop"):
            rasterize(Layer(fields(), Rule("kind"), "fields"), grid)
        with pytest.raises(InputError, match="has no priority rank; it has crop"):
            rasterize(fields(), grid, Rule("crop", priority="rank"))

    def test_priorities(self):
        frame = fields(["maize", "rye"], rank=[2.5, -1])
        codes = np.array([1, 300])
        assert priorities_of(frame, Rule("crop", priority="rank"), CROPS, codes).tolist() == [
            2.5,
            -1,
        ]
        found = priorities_of(frame, Rule("crop", priority=["rye", "maize"]), CROPS, codes)
        assert found[1] > found[0] > 0
        with pytest.raises(InputError, match="has what is no number"):
            priorities_of(frame, Rule("crop", priority="crop"), CROPS, codes)
        with pytest.raises(InputError, match="no class of legend crops, or a class twice"):
            priorities_of(frame, Rule("crop", priority=["rye", "hops"]), CROPS, codes)

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({}, "neither is given"),
            ({"attribute": "a", "value": 1}, "both are given"),
            ({"value": 1, "other": 2}, "classes and other need an attribute"),
            ({"value": 1, "buffer": -1}, "buffer is -1, expected metres"),
            ({"value": 1, "erode": float("nan")}, "erode is nan"),
            ({"value": 1, "buffer": "6 m"}, "buffer is '6 m'"),
            ({"value": True}, "a class is True, expected a code, a name or ignore"),
            ({"value": 1.5}, "a class is 1.5"),
            ({"value": " "}, "a class is ' '"),
            ({"attribute": "a", "other": [1]}, r"a class is \[1\]"),
            ({"attribute": "a", "classes": {"b": 1.5}}, "a class is 1.5"),
            ({"value": 1, "priority": {}}, "priority is {}, expected a number"),
            ({"value": 1, "priority": float("nan")}, "priority is nan"),
            ({"value": 1, "priority": [1.5]}, "a class is 1.5"),
        ],
    )
    def test_rules_that_cannot_be(self, members, message):
        with pytest.raises(InputError, match=message):
            Rule(**members)

    def test_rules_of_files(self):
        data = {"attribute": "crop", "map": {"a": 1}, "all_touched": True}
        assert Rule.from_json(data) == Rule("crop", {"a": 1}, all_touched=True)
        for member, message in [
            ({"colour": 1}, "a rule has no colour; it has attribute, map, class, other"),
            ({"map": "a=1"}, "map is 'a=1'"),
            ({"attribute": 5}, "attribute 5; expected"),
            ({"all_touched": "no"}, "all_touched 'no'"),
        ]:
            with pytest.raises(InputError, match=message):
                Rule.from_json(data | member)


class TestMadeLegends:
    """A legend of what the features name."""

    def test_names_get_codes_and_integers_are_codes(self):
        frame = fields(["rye", "maize"], number=[7, 3])
        found = legend_of("labels", [(frame, Rule("crop")), (frame, Rule("number"))])
        assert dict(zip(found.codes, found.names, strict=True)) == {
            1: "maize",
            2: "rye",
            3: "class 3",
            7: "class 7",
        }
        assert len(set(found.colours)) == 4

    def test_mapped_names(self):
        frame = fields(["Mais", "Roggen"])
        rule = Rule("crop", {"Mais": 1200, "Roggen": "rye"})
        found = legend_of("labels", [(frame, rule), (frame, Rule(value="road"))])
        assert dict(zip(found.names, found.codes, strict=True)) == {
            "Mais": 1200, "rye": 1, "road": 2,
        }  # fmt: skip
        assert found.dtype == np.uint16
        assert codes_of(frame, rule, found).tolist() == [1200, 1]

    def test_integers_as_text_are_codes(self):
        """Shapefiles and spreadsheets hold codes as text."""
        frame, numbers = fields(["1", "10", "2"]), fields([2, 10, 1])
        found = legend_of("labels", [(frame, Rule("crop")), (numbers, Rule("crop"))])
        assert found.codes == (1, 2, 10)
        assert codes_of(frame, Rule("crop"), found).tolist() == [1, 10, 2]
        assert codes_of(numbers, Rule("crop"), found).tolist() == [2, 10, 1]

    def test_a_name_is_one_class_however_it_is_written(self):
        frame = fields(["Maize", "maize ", "bl\u00e9", "ble\u0301"])
        found = legend_of("labels", [(frame, Rule("crop"))])
        assert codes_of(frame, Rule("crop"), found).tolist() == [1, 1, 2, 2]
        assert len(found.codes) == 2
        later = Rule("crop", {"Maize": 7})
        found = legend_of("labels", [(frame, Rule("crop")), (frame, later)])
        assert found.names.count("Maize") == 1
        assert codes_of(frame, Rule("crop"), found).tolist()[0] == 7

    @pytest.mark.parametrize("code", [-1, 3301010101])
    def test_codes_beyond_what_a_raster_holds(self, code):
        with pytest.raises(InputError, match=f"has the codes {code}, .*map them"):
            legend_of("labels", [(fields([code, 1]), Rule("crop"))])

    def test_names_in_any_alphabet_have_a_word_each(self):
        found = legend_of("labels", [(fields(["пшеница", "blé tendre"]), Rule("crop"))])
        assert found.attributes()["flag_meanings"] == "blé_tendre пшеница"

    def test_too_many(self):
        frame = gpd.GeoDataFrame(
            {"id": [f"field {i}" for i in range(300)]}, geometry=[Point(0, 0)] * 300, crs=UTM
        )
        with pytest.raises(InputError, match="names 300 classes, expected 1 to 255"):
            legend_of("labels", [(frame, Rule("id"))])


class TestFileOfRules:
    """TOML with one table for each layer."""

    def write(self, tmp_path, text):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return path

    def test_layers_their_order_and_the_legend(self, tmp_path, grid):
        fields().to_file(tmp_path / "f.gpkg", layer="crops", engine="pyogrio")
        roads = gpd.GeoDataFrame(
            geometry=[LineString([(LEFT, TOP - 50), (LEFT + 1000, TOP - 50)])], crs=UTM
        )
        roads.to_crs(4326).to_file(tmp_path / "r.geojson", engine="pyogrio")
        save_style(CROPS, tmp_path / "crops.qml")
        path = self.write(
            tmp_path,
            """
            legend = "crops.qml"
            priority = ["rye", "maize"]
            [[layer]]
            file = "f.gpkg"
            layer = "crops"
            attribute = "crop"
            map = { maize = 1, rye = "ignore" }
            [[layer]]
            file = "r.geojson"
            class = "rye"
            buffer = 10
            """,
        )
        request = read_rules(path, grid)
        plan = request.plan()
        assert plan.legend.codes == (1, 300)
        tile = grid.tile_at(0)
        codes, counts = plan.burner(tile).window(0, 0, 100, 100)
        assert (codes[2, 2], codes[5, 2], codes[2, 22]) == (1, 300, 65535)
        assert counts.conflicts == 0
        assert request.to_json() == read_rules(path, grid).to_json()

    def test_a_changed_file_is_another_request(self, tmp_path, grid):
        path = tmp_path / "f.shp"
        fields().to_file(path, engine="pyogrio")
        request = LabelRequest((VectorFile(path, Rule("crop")),), grid)
        before = request.to_json()
        fields(["oats", "rye"]).to_file(path, engine="pyogrio")
        assert request.to_json() != before

    def test_what_a_run_lays_beside_a_shapefile_is_not_of_it(self, tmp_path, grid):
        path = tmp_path / "f [2020].SHP"
        fields().to_file(path, engine="pyogrio", driver="ESRI Shapefile")
        request = LabelRequest((VectorFile(path, Rule("crop")),), grid)
        before = request.to_json()
        (tmp_path / "f [2020].zarr").mkdir()
        (tmp_path / "f [2020].png").write_bytes(b"picture")
        assert request.to_json() == before
        path.with_suffix(".dbf").write_bytes(b"other")
        assert request.to_json() != before

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x", "is no TOML"),
            ("", r"has no \[\[layer\]\]"),
            ("[[layers]]", "has unknown layers"),
            ("[[layer]]\nclass = 1", "layer 1: it has no file"),
            ("layer = ['a.shp']", r"has no \[\[layer\]\]"),
            ("legend = 5\n[[layer]]\nfile = 'a.shp'\nclass = 1", "legend 5, which is neither"),
            ("conflict = 'first'\n[[layer]]\nfile = 'a.shp'", "conflict 'first', which is none of"),
            ("[[layer]]\nfile = ''\nclass = 1", "layer 1: it has no file"),
            ("[[layer]]\nfile = 5\nclass = 1", "layer 1: file is 5, expected text"),
            (
                "[[layer]]\nfile = 'a.shp'\nclass = 1\nwhere = 5",
                "layer 1: where is 5, expected text",
            ),
            ("[[layer]]\nfile = 'a.shp'\nclass = true", "layer 1: a class is True"),
            ("[[layer]]\nfile = 'a.shp'\ncolour = 1", "layer 1: a rule has no colour"),
            ("[[layer]]\nfile = 'a.shp'\nclass = 1\nbuffer = '6'", "layer 1: buffer is '6'"),
        ],
    )
    def test_files_that_cannot_be(self, tmp_path, grid, text, message):
        with pytest.raises(InputError, match=message):
            read_rules(self.write(tmp_path, text), grid)


def test_counts_say_what_became_of_a_layer(grid):
    frame = fields(["maize", "rye", "oats", "maize"]).set_geometry(
        [TestGeometries.bow, square(0, 0), square(0, 200), square(9000, 0)]
    )
    layer = Layer(frame, Rule("crop", other="ignore", erode=1), "f")
    _, _, facts = prepare([layer], grid, legend=CROPS)
    assert facts["layers"] == [
        {
            "name": "f", "burned": 1, "features": 4, "repaired": 1, "empty": 0, "left_out": 1,
            "outside": 1, "eroded": 1,
        }
    ]  # fmt: skip
