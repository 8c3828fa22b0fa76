"""Label products: tiles by the engine are the raster that one call makes."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import lcengine
from lcengine import Grid, jobs, store
from lcengine.cluster import connect
from lcengine.errors import InputError, RunError
from lcengine.labels import task
from lcengine.labels.layers import Layer, rasterize
from lcengine.labels.plan import FEATURES, LabelPlan, plan_labels
from lcengine.labels.rules import Rule

LEFT, TOP, UTM = 500_000.0, 5_600_000.0, "EPSG:32631"


def grid_of(width, height, tile):
    right, bottom = LEFT + 10 * width, TOP - 10 * height
    return Grid.from_bounds(LEFT, bottom, right, TOP, UTM, 10.0, tile)


def parcels(side, count, seed=0):
    """`count`² quadrilaterals over `side` metres with eight classes; neighbours share no edge.

    Their common edges are bent each in an own way, so that they overlap and leave gaps.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: count + 1, : count + 1].astype(float)
    corner = np.stack([x, y], axis=-1) + rng.uniform(-0.3, 0.3, (count + 1, count + 1, 2))
    ring = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], axis=2)
    ring = ring.reshape(-1, 4, 2)
    middle = (ring + np.roll(ring, -1, axis=1)) / 2 + rng.normal(0, 0.03, ring.shape)
    outline = np.stack([ring, middle], axis=2).reshape(-1, 8, 2) * (side / count)
    shapes = shapely.polygons(outline * [1, -1] + [LEFT, TOP])
    return gpd.GeoDataFrame({"code": rng.integers(1, 9, len(shapes))}, geometry=shapes, crs=UTM)


def by_tiles(plan, order=None):
    """All tiles of a plan in one raster, and the facts about them."""
    whole = np.full(plan.grid.shape, plan.legend.nodata, plan.legend.dtype)
    receipts = []
    for number in order if order is not None else plan.tiles:
        arrays, receipt = task.compute(plan, number, 0)
        whole[plan.grid.tile_at(number).slices] = arrays["label"]
        receipts.append(json.loads(json.dumps(receipt)))
    return whole, task.finish(plan, lambda: iter(receipts))[0]


class TestPlan:
    """A frozen plan and its tiles."""

    @settings(max_examples=8)
    @given(
        tile=st.sampled_from([208, 256, 400]),
        conflict=st.sampled_from(["ignore", "last"]),
        touched=st.booleans(),
        turned=st.booleans(),
    )
    def test_tiles_are_the_one_raster(self, tile, conflict, touched, turned):
        frame = parcels(7000, 15)
        rule = Rule("code", all_touched=touched)
        eager = rasterize(frame, grid_of(640, 560, 512), rule, conflict=conflict)
        plan = plan_labels(Layer(frame, rule, "x"), grid_of(640, 560, tile), conflict=conflict)
        order = plan.tiles[::-1] if turned else plan.tiles
        made, facts = by_tiles(plan, order)
        np.testing.assert_array_equal(made, eager["label"])
        for key in ("labelled", "classes", "conflicts"):
            assert facts[key] == eager.attrs[key]
        assert facts["layers"][0]["burned"] == eager.attrs["layers"][0]["burned"] < 225

    def test_tiles_without_features_are_left_out(self):
        frame = parcels(1000, 5)
        plan = plan_labels(Layer(frame, Rule("code")), grid_of(1000, 1000, 160))
        assert plan.tiles == (0,)
        line = shapely.LineString([(LEFT + 50, TOP - 9000), (LEFT + 9000, TOP - 9000)])
        row = gpd.GeoDataFrame(geometry=[line], crs=UTM)
        plan = plan_labels(Layer(row, Rule(value="road", buffer=5)), grid_of(1000, 1000, 160))
        assert plan.tiles == tuple(range(35, 41))

    def test_features_outside_the_aoi_alone_are_an_error(self):
        square = grid_of(100, 100, 16)
        corner = shapely.box(LEFT, TOP - 100, LEFT + 100, TOP)
        grid = Grid.from_dict(square.to_dict() | {"aoi": corner.wkt})
        away = gpd.GeoDataFrame(
            geometry=[shapely.box(LEFT + 700, TOP - 800, LEFT + 800, TOP - 700)], crs=UTM
        )
        with pytest.raises(InputError, match="no feature meets the area"):
            plan_labels(Layer(away, Rule(value=1)), grid)

    def test_json_and_files_bring_it_back(self):
        plan = plan_labels(Layer(parcels(2000, 10), Rule("code")), grid_of(300, 300, 128))
        data = json.loads(json.dumps(plan.to_json()))
        again = LabelPlan.from_json(data, plan.files()[FEATURES])
        assert again == plan
        assert again.run_id == plan.run_id
        np.testing.assert_array_equal(by_tiles(again)[0], by_tiles(plan)[0])
        other = plan_labels(Layer(parcels(2000, 10, seed=1), Rule("code")), plan.grid)
        assert other.run_id != plan.run_id

    def test_a_tile_takes_its_neighbourhood_alone(self):
        frame = parcels(20_000, 130)
        plan = plan_labels(Layer(frame, Rule("code")), grid_of(2000, 2000, 256))
        middle = plan.grid.tile_at(plan.grid.tile_cols * 3 + 3)
        own = shapely.box(
            LEFT + middle.x0 * 10, TOP - middle.y0 * 10 - 2560,
            LEFT + middle.x0 * 10 + 2560, TOP - middle.y0 * 10,
        )  # fmt: skip
        near = shapely.dwithin(frame.geometry.to_numpy(), own, 100).sum()
        assert shapely.intersects(frame.geometry.to_numpy(), own).sum() <= len(
            plan.burner(middle).shapes
        )
        assert len(plan.burner(middle).shapes) <= near

    def test_a_wrong_rule_for_conflicts_is_refused_before_anything_runs(self):
        with pytest.raises(InputError, match="conflict is 'first'"):
            plan_labels(Layer(parcels(100, 1), Rule("code")), grid_of(10, 10, 16), conflict="first")


@pytest.mark.slow
def test_a_thousand_square_kilometres_of_a_hundred_thousand_polygons():
    """By tiles what GDAL makes in one call; a tile holds a sixteenth of the features and a rim."""
    frame = parcels(31_630, 317)
    grid = grid_of(3163, 3163, 1024)
    plan = plan_labels(Layer(frame, Rule("code")), grid, conflict="last")
    made, facts = by_tiles(plan)
    expected = rasterio.features.rasterize(
        zip(frame.geometry, frame["code"], strict=True),
        out_shape=grid.shape,
        fill=plan.legend.nodata,
        transform=from_origin(LEFT, TOP, 10, 10),
        dtype="uint8",
    )
    np.testing.assert_array_equal(made, expected)
    assert facts["labelled"] > 0.9 * made.size
    most = max(len(plan.burner(grid.tile_at(number)).shapes) for number in plan.tiles)
    assert most < 0.12 * len(frame)


@pytest.mark.slow
class TestProduct:
    """Through the engine, and the command."""

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls):
        with connect("local:workers=1,threads=2") as found:
            yield found

    @pytest.fixture
    def plan(self):
        return plan_labels(
            Layer(parcels(5000, 30), Rule("code"), "parcels"), grid_of(600, 600, 256)
        )

    def test_the_product_is_the_raster(self, plan, client, tmp_path):
        output = jobs.run(plan, tmp_path / "labels.zarr", client=client)
        made = lcengine.open(output)
        eager = rasterize(parcels(5000, 30), plan.grid, Rule("code"))
        np.testing.assert_array_equal(store.stored(output)["label"], eager["label"])
        assert made["label"].attrs["flag_values"] == list(plan.legend.codes)
        assert store.legend_of(output) == plan.legend
        assert store.grid_of(output) == plan.grid
        facts = store.provenance(output)
        assert facts["conflicts"] == eager.attrs["conflicts"] > 0
        assert facts["classes"] == eager.attrs["classes"]
        assert not store.verify(output).faults

    def test_features_that_disagree_can_be_an_error(self, plan, client, tmp_path):
        strict = replace(plan, conflict="error")
        with pytest.raises(RunError, match=r"feature \d+ of parcels .* overlap at"):
            jobs.run(strict, tmp_path / "labels.zarr", client=client)

    def test_the_command(self, plan, run, tmp_path):
        vectors, output = tmp_path / "p.gpkg", tmp_path / "labels.zarr"
        parcels(5000, 30).to_file(vectors, engine="pyogrio")
        box = ",".join(map(str, plan.grid.lonlat_bounds()))
        command = ["labels", "rasterize", vectors, "-o", output, "--cluster"]
        command += ["local:workers=1,threads=1", "--picture", tmp_path / "labels.png", "--json"]
        where = ["--bbox", box, "--crs", UTM, "--resolution", "10"]
        code, said, _ = run(*command, *where, "--attribute", "code", "--erode", "5")
        assert code == 0
        facts = json.loads(said)
        assert facts["kind"] == "labels"
        assert facts["labelled"] == sum(facts["classes"].values()) > 0
        assert (tmp_path / "labels.png").stat().st_size > 1000
        code, said, _ = run("info", output)
        assert "name p.gpkg  burned 900  features 900" in said
        code, _, error = run(*command, *where, "--attribute", "code")
        assert (code, "different request" in error) == (7, True)
        code, _, error = run(*command, *where, "--attribute", "crop", "--restart")
        assert (code, "has no attribute crop; it has code" in error) == (2, True)


@pytest.mark.parametrize(
    ("said", "file", "chosen"),
    [
        (None, "last", "last"),
        ("ignore", "last", "ignore"),
        ("error", "", "error"),
        (None, "", "ignore"),
    ],
)
def test_the_command_line_overrules_the_file_of_rules(tmp_path, said, file, chosen):
    from lcengine.cli.labels import _request

    path = tmp_path / "rules.toml"
    head = f"conflict = '{file}'\n" if file else ""
    path.write_text(f"{head}[[layer]]\nfile = 'f.gpkg'\nclass = 1")
    found = _request(None, path, grid_of(10, 10, 16), {}, {}, None, said)
    assert found.conflict == chosen


def test_commands_that_cannot_be(run, tmp_path):
    output = ["-o", tmp_path / "labels.zarr"]
    area = ["--bbox", "3,50,3.01,50.01", "--resolution", "10"]
    for options, message in [
        ([*area], "expected one vector file, or --rules"),
        ([tmp_path / "f.gpkg", "--attribute", "crop"], "nothing says which pixels"),
        ([tmp_path / "f.gpkg", *area, "--attribute", "crop"], "f.gpkg"),
        ([tmp_path / "f.gpkg", *area], "neither is given"),
        ([tmp_path / "f.gpkg", *area, "--attribute", "a", "--map", "b"], "--map has 'b', expected"),
        (["--rules", tmp_path / "r.toml", *area, "--buffer", "3"], "leave --buffer out"),
        ([tmp_path / "f.gpkg", *area, "--picture", tmp_path / "no" / "a.png"], "create it"),
        (["--rules", tmp_path / "r.toml", *area, "--invalid", "repair"], "leave --invalid out"),
        (["--rules", tmp_path / "r.toml", *area], "r.toml cannot be read"),
    ]:
        code, said, error = run("labels", "rasterize", *options, *output)
        assert (code, said) == (2, "")
        assert message in error
