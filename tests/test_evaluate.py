"""Maps against references: counts of tiles are those of scikit-learn on the whole arrays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dask
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from distributed import Client, LocalCluster
from made_products import bands, labels, publish
from odc.geo.geom import Geometry
from PIL import Image
from pyproj import Transformer
from sklearn import metrics as sk

from lcengine import jobs, samples, store
from lcengine.aoi import LONLAT, Aoi
from lcengine.classmap import save_classes
from lcengine.errors import InputError
from lcengine.evaluate import picture, task
from lcengine.evaluate.legends import match
from lcengine.evaluate.plan import EvaluatePlan, plan_evaluation
from lcengine.evaluate.split import split_pixels
from lcengine.grid import Grid
from lcengine.legends import Entry, Legend, legend
from lcengine.locate import Window
from lcengine.metrics import Accuracy, Reliability

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
HEIGHT, WIDTH = 150, 130


def legend_of(*names, step=10, name="made"):
    entries = (Entry(step * (i + 1), n, f"#{i:02x}8000") for i, n in enumerate(names))
    return Legend(name, name, tuple(entries), "made up")


LEGEND = legend_of("tree", "crop", "grass", "water")


def grid_of(tile=64, height=HEIGHT, width=WIDTH, size=10.0, left=LEFT, top=TOP):
    bounds = left, top - height * size, left + width * size, top
    return Grid.from_bounds(*bounds, UTM, size, tile)


def coded(shape, own=LEGEND, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    found = rng.choice(np.array(own.codes), shape).astype(own.dtype)
    found[rng.random(shape) < missing] = own.nodata
    return found


def similar(codes, own=LEGEND, seed=1):
    """Two thirds as they are, the rest random."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(codes.shape) < 0.67, codes, coded(codes.shape, own, seed))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(map, reference) as arrays and as products on one grid."""
    folder = tmp_path_factory.mktemp("pair")
    truth = coded((HEIGHT, WIDTH))
    said = similar(truth)
    paths = [
        labels(folder / name, grid_of(), codes, LEGEND)
        for name, codes in (("map.zarr", said), ("truth.zarr", truth))
    ]
    return said, truth, *paths


def by_tiles(plan):
    """All tiles: arrays, facts and sidecars."""
    plan = EvaluatePlan.from_json(json.loads(json.dumps(plan.to_json())))
    out = {v.name: np.full(plan.grid.shape, v.fill, v.dtype) for v in plan.variables()}
    receipts = []
    for number in plan.tiles:
        arrays, receipt = task.compute(plan, number, 0)
        for name, values in arrays.items():
            out[name][plan.grid.tile_at(number).slices] = values
        receipts.append(json.loads(json.dumps(receipt)))
    facts, sidecars = task.finish(plan, lambda: iter(receipts[::-1]))
    return out, facts, Accuracy.from_json(json.loads(sidecars[task.ACCURACY]))


def oracle(said, truth, where=None, own=LEGEND):
    """Counts (K, K) and pixels of the reference that are not mapped (K)."""
    there = (truth != own.nodata) & (True if where is None else where)
    both = there & (said != own.nodata)
    counts = sk.confusion_matrix(truth[both], said[both], labels=own.codes)
    alone = truth[there & (said == own.nodata)]
    return counts, [(alone == code).sum() for code in own.codes]


def equal(accuracy, expected):
    np.testing.assert_array_equal(accuracy.counts, expected[0])
    np.testing.assert_array_equal(accuracy.missing, expected[1])


class TestTiles:
    """One grid, or another."""

    def test_counts_and_arrays(self, pair):
        said, truth, mapped, reference = pair
        out, facts, accuracy = by_tiles(plan_evaluation(mapped, reference))
        equal(accuracy, oracle(said, truth))
        expected = np.select([truth == 255, said == 255, said == truth], [255, 2, 0], 1)
        np.testing.assert_array_equal(out["disagreement"], expected)
        wrong = (truth != 255) & (said != truth)
        np.testing.assert_array_equal(out["expected"], np.where(wrong, truth, 255))
        both = (truth != 255) & (said != 255)
        assert facts["overall_accuracy"] == sk.accuracy_score(truth[both], said[both])
        assert facts["labelled"] == both.sum() / (said != 255).sum()
        assert facts["partial"]

    @pytest.mark.parametrize(("tile", "other"), [(48, 160), (160, 32), (128, 96)])
    def test_any_tiles_add_up_to_the_same(self, tile, other, pair, tmp_path):
        said, truth, *_ = pair
        mapped = labels(tmp_path / "map.zarr", grid_of(tile), said, LEGEND)
        reference = labels(tmp_path / "truth.zarr", grid_of(other), truth, LEGEND)
        _, _, accuracy = by_tiles(plan_evaluation(mapped, reference))
        equal(accuracy, oracle(said, truth))

    def test_a_shifted_reference_counts_where_both_are(self, pair, tmp_path):
        said, truth, mapped, _ = pair
        grid = grid_of(left=LEFT + 200, top=TOP - 300)
        shifted = labels(tmp_path / "shifted.zarr", grid, truth, LEGEND)
        expected = np.full_like(truth, 255)
        expected[30:, 20:] = truth[:-30, :-20]
        _, _, accuracy = by_tiles(plan_evaluation(mapped, shifted))
        equal(accuracy, oracle(said, expected))
        grid = grid_of(left=LEFT - 200, top=TOP + 300)
        shifted = labels(tmp_path / "back.zarr", grid, truth, LEGEND)
        expected = np.full_like(truth, 255)
        expected[:-30, :-20] = truth[30:, 20:]
        _, _, accuracy = by_tiles(plan_evaluation(mapped, shifted))
        equal(accuracy, oracle(said, expected))

    def test_a_coarser_image_is_taken_at_the_centres(self, pair, tmp_path):
        said, _, mapped, _ = pair
        coarse = coded((50, 44), seed=5)
        path = tmp_path / "coarse.tif"
        save_classes(path, coarse, LEGEND, crs=UTM, transform=(30, 0, LEFT, 0, -30, TOP))
        fine = np.kron(coarse, np.ones((3, 3), np.uint8))[:HEIGHT, :WIDTH]
        _, _, accuracy = by_tiles(plan_evaluation(mapped, path))
        equal(accuracy, oracle(said, fine))

    def test_images_on_both_sides(self, pair, tmp_path):
        said, truth, *_ = pair
        paths = []
        for name, codes in (("map.tif", said), ("truth.tif", truth)):
            paths.append(tmp_path / name)
            save_classes(paths[-1], codes, LEGEND, crs=UTM, transform=(10, 0, LEFT, 0, -10, TOP))
        _, _, accuracy = by_tiles(plan_evaluation(*paths))
        equal(accuracy, oracle(said, truth))

    @pytest.mark.parametrize("size", [10, 30])
    def test_a_tile_asks_no_scheduler_for_pixels_of_images(self, pair, tmp_path, size):
        def refuses(*_, **__):
            raise AssertionError("a task is no cluster")

        _, truth, mapped, _ = pair
        path = tmp_path / "truth.tif"
        save_classes(path, truth, LEGEND, crs=UTM, transform=(size, 0, LEFT, 0, -size, TOP))
        plan = plan_evaluation(mapped, path)
        with dask.config.set(scheduler=refuses):
            assert by_tiles(plan)[2].pixels

    def test_images_without_colours_take_the_legends_given(self, pair, tmp_path):
        said, truth, *_ = pair
        paths = []
        for name, codes in (("map.tif", said), ("truth.tif", truth)):
            paths.append(tmp_path / name)
            profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255}
            size = {"height": HEIGHT, "width": WIDTH, "transform": Affine(10, 0, LEFT, 0, -10, TOP)}
            with rasterio.open(paths[-1], "w", crs=UTM, **profile, **size) as file:
                file.write(codes, 1)
        with pytest.raises(InputError, match=r"map\.tif has no colour table; give its legend"):
            plan_evaluation(*paths, legend=LEGEND)
        plan = plan_evaluation(*paths, legend=LEGEND, map_legend=LEGEND)
        equal(by_tiles(plan)[2], oracle(said, truth))

    def test_inside_an_area_alone(self, pair):
        said, truth, mapped, reference = pair
        back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
        corners = [(LEFT, TOP), (LEFT + 900, TOP - 100), (LEFT + 300, TOP - 1200)]
        ring = shapely.Polygon([back.transform(*corner) for corner in corners])
        plan = plan_evaluation(mapped, reference, aoi=Aoi(Geometry(ring, LONLAT), is_box=False))
        x, y = np.meshgrid(grid_of().x(np.arange(WIDTH)), grid_of().y(np.arange(HEIGHT)))
        inside = shapely.intersects_xy(ring, *back.transform(x, y))
        out, _, accuracy = by_tiles(plan)
        equal(accuracy, oracle(said, truth, inside))
        assert (out["disagreement"][~inside] == 255).all()
        far = Aoi.from_bbox("10,50,11,51")
        with pytest.raises(InputError, match="meets no part"):
            plan_evaluation(mapped, reference, aoi=far)

    def test_a_reference_elsewhere_is_refused(self, pair, tmp_path):
        _, truth, mapped, _ = pair
        away = labels(tmp_path / "away.zarr", grid_of(left=LEFT + 50_000), truth, LEGEND)
        with pytest.raises(InputError, match="covers no part of the map"):
            plan_evaluation(mapped, away)

    def test_codes_without_a_class_are_named(self, pair, tmp_path):
        _, truth, mapped, _ = pair
        strange = truth.copy()
        strange[40, 50] = 77
        reference = labels(tmp_path / "strange.zarr", grid_of(), strange, LEGEND)
        with pytest.raises(InputError, match="1 pixels have a code that legend made has not: 77"):
            by_tiles(plan_evaluation(mapped, reference))

    def test_a_map_made_anew_is_noticed(self, pair, tmp_path):
        said, truth, mapped, _ = pair
        path = tmp_path / "truth.tif"
        save_classes(path, truth, LEGEND, crs=UTM, transform=(10, 0, LEFT, 0, -10, TOP))
        data = plan_evaluation(mapped, path).to_json()
        save_classes(path, said, LEGEND, crs=UTM, transform=(10, 0, LEFT, 0, -10, TOP))
        with pytest.raises(InputError, match="is not what it was"):
            _ = EvaluatePlan.from_json(data).readers

    def test_nothing_in_common_is_null(self, pair, tmp_path):
        said, _, mapped, _ = pair
        empty = labels(tmp_path / "empty.zarr", grid_of(), np.full_like(said, 255), LEGEND)
        out, facts, accuracy = by_tiles(plan_evaluation(mapped, empty))
        assert (out["disagreement"] == 255).all()
        assert (facts["overall_accuracy"], facts["labelled"], accuracy.pixels) == (None, 0, 0)


class TestLegends:
    """Classes of two legends as those of one."""

    def test_other_codes_and_case_of_the_same_names(self, pair, tmp_path):
        said, truth, mapped, _ = pair
        other = legend_of("WATER", "Crop", "tree", "Grass", step=7, name="other")
        to = {10: 21, 20: 14, 30: 28, 40: 7, 255: 255}
        codes = np.vectorize(to.get)(truth).astype(np.uint8)
        reference = labels(tmp_path / "other.zarr", grid_of(), codes, other)
        _, _, accuracy = by_tiles(plan_evaluation(mapped, reference))
        assert accuracy.legend == LEGEND
        equal(accuracy, oracle(said, truth))

    def test_the_larger_legend_is_compared_in(self):
        few = legend_of("crop", "tree", name="few")
        found = match(LEGEND, few)
        assert found.legend == LEGEND
        assert dict(found.reference.pairs) == {10: 20, 20: 10}
        found = match(few, LEGEND)
        assert found.legend == LEGEND
        assert dict(found.mapped.pairs) == {10: 20, 20: 10}

    def test_differing_legends_are_named_both(self):
        other = legend_of("forest", "crop", name="other")
        with pytest.raises(
            InputError, match=r"made \(tree, crop.*other \(forest, crop\).*like: forest"
        ):
            match(LEGEND, other)
        found = match(LEGEND, other, {"forest": "tree"})
        assert dict(found.reference.pairs) == {10: 10, 20: 20}
        found = match(LEGEND, legend_of("forest", "road", name="other"), {"forest": "tree"})
        assert dict(found.reference.pairs) == {10: 10, 20: None}

    def test_classes_of_the_map_merge_into_those_of_a_coarser_reference(self, pair, tmp_path):
        said, truth, mapped, _ = pair
        coarse = legend_of("green", "water", name="coarse")
        to = {10: 10, 20: 10, 30: 10, 40: 20, 255: 255}
        codes = np.vectorize(to.get)(truth).astype(np.uint8)
        reference = labels(tmp_path / "coarse.zarr", grid_of(), codes, coarse)
        given = {"tree": "green", "crop": "green", "grass": "green"}
        _, _, accuracy = by_tiles(plan_evaluation(mapped, reference, crosswalk=given))
        assert accuracy.legend == coarse
        merged = np.vectorize(to.get)(said).astype(np.uint8)
        known = (merged != 255) & (codes != 255)
        expected = [
            [int(((codes == a) & (merged == b) & known).sum()) for b in (10, 20)] for a in (10, 20)
        ]
        assert accuracy.counts.tolist() == expected

    def test_known_crosswalks_in_both_directions(self):
        igbp, dfc = legend("igbp"), legend("dfc2020")
        with pytest.raises(InputError, match="--crosswalk known"):
            match(dfc, igbp)
        found = match(dfc, igbp, "known")
        assert (found.legend, found.reference.source) == (dfc, igbp)
        found = match(igbp, dfc, "known")
        assert (found.legend, found.mapped.source) == (dfc, igbp)
        with pytest.raises(InputError, match="no crosswalk between"):
            match(LEGEND, igbp, "known")
        with pytest.raises(InputError, match="expected 'known'"):
            match(dfc, igbp, "igbp")

    def test_classes_left_out_are_no_reference(self, pair, tmp_path):
        said, truth, mapped, _ = pair
        other = legend_of("tree", "crop", "meadow", "sea", name="other")
        reference = labels(tmp_path / "other.zarr", grid_of(), truth, other)
        plan = plan_evaluation(mapped, reference, crosswalk={"meadow": "grass"})
        _, facts, accuracy = by_tiles(plan)
        equal(accuracy, oracle(said, truth, truth != 40))
        assert facts["left_out"] == ["sea"]


@pytest.fixture(scope="module")
def client():
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, Client(cluster) as found:  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def store_of_samples(pair, client, tmp_path_factory):
    """Samples of the reference in blocks of 48 pixels, patches 8 pixels apart."""
    folder = tmp_path_factory.mktemp("samples")
    image = publish(folder / "s2.zarr", grid_of(), bands(("red", "nir"), (HEIGHT, WIDTH)))
    spec = samples.SampleSpec(8, block=24, buffer=6, fractions=(0.5, 0.2, 0.3), seed=4)
    source = samples.open_stack({"s2": image}, pair[3])
    plan = samples.plan_samples(source, spec)
    return jobs.run(plan, folder / "samples.zarr", client=client), plan


class TestSplit:
    """The blocks of a split alone."""

    def test_pixels_are_apart_from_other_splits(self, pair, store_of_samples):
        said, truth, mapped, reference = pair
        path, plan = store_of_samples
        found = {name: split_pixels(path, name) for name in ("train", "val", "test")}
        whole = Window(0, 0, HEIGHT, WIDTH)
        masks = {name: blocks.inside(grid_of(), whole) for name, blocks in found.items()}
        table = plan.table.to_pandas()
        assert set(table["split"]) == set(masks)
        for name, mask in masks.items():
            for row, col, split in table[["row", "col", "split"]].itertuples(index=False):
                near = np.s_[max(row - 5, 0) : row + 13, max(col - 5, 0) : col + 13]
                if split == name:
                    assert mask[row : row + 8, col : col + 8].all()
                else:
                    assert not mask[near].any()
        plan = plan_evaluation(mapped, reference, split=found["test"])
        _, facts, accuracy = by_tiles(plan)
        equal(accuracy, oracle(said, truth, masks["test"]))
        assert facts["split"] == "test"
        assert 0.02 < masks["test"].mean() < 0.5

    def test_finer_pixels_lie_in_the_same_blocks(self, store_of_samples):
        path, _ = store_of_samples
        blocks = split_pixels(path, "test")
        own = blocks.inside(grid_of(), Window(0, 0, HEIGHT, WIDTH))
        fine = grid_of(height=2 * HEIGHT, width=2 * WIDTH, size=5.0)
        found = blocks.inside(fine, Window(0, 0, 2 * HEIGHT, 2 * WIDTH))
        np.testing.assert_array_equal(found, np.kron(own, np.ones((2, 2), bool)))
        part = blocks.inside(fine, Window(31, 17, 60, 80))
        np.testing.assert_array_equal(part, found[31:91, 17:97])

    def test_areas_less_what_training_gives_way_to(self, pair, client, tmp_path):
        said, truth, mapped, reference = pair
        image = publish(tmp_path / "s2.zarr", grid_of(), bands(("red",), (HEIGHT, WIDTH)))
        halves = [("train", 0, 70), ("test", 70, 130)]
        boxes = [shapely.box(LEFT + 10 * a, TOP - 1500, LEFT + 10 * b, TOP) for _, a, b in halves]
        names = {"split": [name for name, *_ in halves]}
        gpd.GeoDataFrame(names, geometry=boxes, crs=UTM).to_file(tmp_path / "areas.gpkg")
        drawn = samples.areas.read_areas(tmp_path / "areas.gpkg")
        spec = samples.SampleSpec(8, split="areas", areas=drawn, buffer=5)
        plan = samples.plan_samples(samples.open_stack({"s2": image}, reference), spec)
        path = jobs.run(plan, tmp_path / "samples.zarr", client=client)
        window = Window(0, 0, HEIGHT, WIDTH)
        test = split_pixels(path, "test")
        mask = test.inside(grid_of(), window)
        assert mask[:, 70:].all()
        assert not mask[:, :70].any()
        mask = split_pixels(path, "train").inside(grid_of(), window)
        assert mask[:, :65].all()
        assert not mask[:, 65:].any()
        _, facts, accuracy = by_tiles(plan_evaluation(mapped, reference, split=test))
        equal(accuracy, oracle(said, truth, np.arange(WIDTH) >= 70))
        assert (facts["split"], facts["samples"]) == ("test", path)
        # On workers, which read the plan from JSON.
        made = jobs.run(
            plan_evaluation(mapped, reference, split=test), tmp_path / "report.zarr", client=client
        )
        equal(
            Accuracy.from_json(json.loads(store.sidecar(made, task.ACCURACY))),
            oracle(said, truth, np.arange(WIDTH) >= 70),
        )
        # Of a map in another CRS: pixels by their centre.
        other = Grid.from_aoi(Aoi.from_bbox(grid_of().lonlat_bounds()), crs=32632, resolution=10.0)
        found = test.inside(other, Window(0, 0, *other.shape))
        x, y = np.meshgrid(other.x(np.arange(other.shape[1])), other.y(np.arange(other.shape[0])))
        x, y = Transformer.from_crs(32632, UTM, always_xy=True).transform(x, y)
        np.testing.assert_array_equal(found, shapely.intersects_xy(boxes[1], x, y))

    def test_the_request_is_the_same_from_any_folder(self, store_of_samples, monkeypatch):
        path = Path(store_of_samples[0])
        monkeypatch.chdir(path.parent)
        assert split_pixels(path.name, "test") == split_pixels(path, "test")

    def test_what_has_no_such_pixels_is_refused(self, pair, store_of_samples):
        path, _ = store_of_samples
        _, _, mapped, reference = pair
        with pytest.raises(InputError, match="no split 'other'"):
            split_pixels(path, "other")
        with pytest.raises(InputError, match="holds no samples"):
            split_pixels(reference, "test")
        blocks = split_pixels(path, "test")
        with pytest.raises(InputError, match="in the CRS of the samples"):
            plan_evaluation(mapped, reference, split=replace(blocks, crs="EPSG:32632"))


def test_through_the_engine(pair, client, tmp_path):
    said, truth, mapped, reference = pair
    plan = plan_evaluation(mapped, reference)
    output = jobs.run(plan, tmp_path / "report.zarr", client=client)
    found = store.stored(output)
    for name, values in by_tiles(plan)[0].items():
        np.testing.assert_array_equal(found[name], values)
    equal(Accuracy.from_json(json.loads(store.sidecar(output, task.ACCURACY))), oracle(said, truth))
    assert not store.verify(output).faults


@pytest.mark.slow
def test_the_command(pair, store_of_samples, run, tmp_path):
    said, truth, mapped, reference = pair
    output = tmp_path / "report.zarr"
    command = ["evaluate", mapped, "--reference", reference, "-o", output]
    command += ["--cluster", "local:workers=1,threads=1"]
    code, text, error = run(*command, "--picture", tmp_path / "where.png", "--json")
    assert code == 0, error
    facts = json.loads(text)
    equal(Accuracy.from_json(facts), oracle(said, truth))
    assert "are not mapped" in error
    assert "recall holds" in error
    stored = store.stored(output)
    expected = np.select([truth == 255, said == 255, said == truth], [255, 2, 0], 1)
    np.testing.assert_array_equal(stored["disagreement"], expected)
    assert store.legend_of(output) == LEGEND
    for picture_of in (tmp_path / "where.png", output / task.CONFUSION):
        assert len(np.unique(np.asarray(Image.open(picture_of)).reshape(-1, 4), axis=0)) > 3
    code, text, _ = run(*command)  # it is there already
    assert code == 0
    assert "macro mean" in text
    assert "overall accuracy" in text
    code, text, error = run(*command, "--panel", tmp_path / "panel.png")
    assert (code, "--panel-image PRODUCT draws one" in error) == (0, True)
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    code, text, _ = run("info", output)
    assert (code, "evaluate" in text) == (0, True)
    other = ["--samples", store_of_samples[0], "--restart", "--json"]
    code, text, _ = run(*command, *other)
    facts = json.loads(text)
    assert (code, facts["split"]) == (0, "test")
    assert 0 < facts["pixels"] < (truth != 255).sum() / 2


def test_commands_that_cannot_be(pair, run, tmp_path):
    _, truth, mapped, reference = pair
    other = labels(tmp_path / "other.zarr", grid_of(), truth, legend_of("a", "b", "c", "d"))
    output = ["-o", tmp_path / "report.zarr"]
    for arguments, message in [
        ([mapped, "--reference", tmp_path / "no.zarr"], "is not a Zarr v3 product"),
        ([mapped, "--reference", other], "classes of the reference without a like: a, b"),
        ([mapped, "--reference", other, "--crosswalk", "a"], "--crosswalk has 'a'"),
        ([mapped, "--reference", other, "--crosswalk", "e=tree"], "'e' is no class"),
        ([mapped, "--reference", reference, "--split", "val"], "give --samples"),
        ([mapped, "--reference", reference, "--panel-window", "1,2"], "are of --panel; give its"),
        (
            [
                mapped,
                "--reference",
                reference,
                "--panel",
                tmp_path / "p.png",
                "--panel-window",
                "x",
            ],
            "expected row,column or row,column,edge inside of the map's 150 x 130",
        ),
        ([mapped, "--reference", reference, "--picture", tmp_path / "no" / "a.png"], "create it"),
    ]:
        code, _, error = run("evaluate", *arguments, *output)
        assert code == 2
        assert message in error
    assert not (tmp_path / "report.zarr").exists()


def test_pictures_are_drawn_of_anything():
    rng = np.random.default_rng(0)
    many = Accuracy.of(rng.integers(0, 99, (17, 17)), legend("igbp"))
    for content in (
        picture.matrix(many),
        picture.matrix(Accuracy.of(np.zeros((4, 4), int), LEGEND)),
        picture.reliability({}),
        picture.reliability(
            {"forest": Reliability.of(rng.dirichlet([1, 1], 99).T, np.zeros(99, np.uint8))}
        ),
    ):
        assert content.startswith(b"\x89PNG")
