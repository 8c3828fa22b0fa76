"""What a map's probabilities are worth, and a part of a map to look at."""

from __future__ import annotations

import datetime as dt
import io
import json

import numpy as np
import pytest
from made_products import bands, labels, publish
from PIL import Image

from lcengine import quicklook
from lcengine.errors import InputError
from lcengine.evaluate import proba, task
from lcengine.evaluate.panel import image_of, panel, window_of
from lcengine.evaluate.plan import EvaluatePlan, plan_evaluation
from lcengine.grid import Grid
from lcengine.legends import Entry, Legend
from lcengine.locate import Window
from lcengine.metrics import Reliability
from lcengine.periods import PeriodRule
from lcengine.predict.plan import probability_names
from lcengine.store import Variable

HEIGHT, WIDTH = 90, 120
LEGEND = Legend(
    "three",
    "Three classes",
    (Entry(1, "tree", "#006400"), Entry(4, "crop", "#f096ff"), Entry(9, "wet land", "#0064c8")),
    "made up",
)
COARSE = Legend("two", "Two", (Entry(1, "dry", "#aa5500"), Entry(2, "wet land", "#0064c8")), "made")


def grid_of(tile=32):
    left, top = 600_000, 5_600_000
    return Grid.from_bounds(
        left, top - HEIGHT * 10, left + WIDTH * 10, top, "EPSG:32631", 10.0, tile
    )


def written(path, stored, sources=None, tile=32, legend=LEGEND):
    """A predicted map of stored probabilities (class, y, x), 255 where nodata."""
    nodata = stored[0] == 255
    codes = np.array(legend.codes, np.uint8)[stored.argmax(axis=0)]
    codes[nodata] = legend.nodata
    variable = Variable("label", "uint8", legend.nodata, "class", legend=legend)
    layers = {variable: codes}
    for name, values in zip(probability_names(legend), stored, strict=True):
        layers[Variable(name, "uint8", 255, name, scale=0.004, units="1")] = values
    facts = {"legend": legend.to_json(), "sources": sources or {}, "kind": "predict"}
    return publish(path, grid_of(tile), layers, **facts)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(stored probabilities, truth as indices, map, reference, product)"""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([0.7, 0.7, 0.7], (HEIGHT, WIDTH))
    stored = np.rint(np.moveaxis(shares, -1, 0) * 250).astype(np.uint8)
    stored[:, rng.random((HEIGHT, WIDTH)) < 0.1] = 255
    cumulated = np.cumsum(shares, axis=-1)
    truth = (rng.random((HEIGHT, WIDTH, 1)) > cumulated).sum(axis=-1).clip(0, 2).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.3] = 255
    codes = np.where(truth == 255, 255, np.array([*LEGEND.codes, *[0] * 253])[truth])
    months = PeriodRule.parse("month")
    ends = dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 5, 30, tzinfo=dt.UTC)
    optical = bands(("red", "nir", "green"), (2, HEIGHT, WIDTH))
    for values in optical.values():
        values[0, 5:] = -32768  # little in the first month
    product = publish(folder / "s2.zarr", grid_of(), optical, months.periods(*ends))
    mapped = written(folder / "map.zarr", stored, {"s2": {"path": product}})
    reference = labels(folder / "truth.zarr", grid_of(), codes, LEGEND)
    return stored, truth, mapped, reference, product


def figures(plan):
    """Facts and sidecars of a report, its tiles in another order."""
    plan = EvaluatePlan.from_json(json.loads(json.dumps(plan.to_json())))
    receipts = [task.compute(plan, number, 0)[1] for number in plan.tiles]
    receipts = json.loads(json.dumps(receipts))
    return task.finish(plan, lambda: iter(receipts[::-1]))


class TestReliability:
    def test_it_is_that_of_the_stored_probabilities(self, pair):
        stored, truth, mapped, reference, _ = pair
        facts, sidecars = figures(plan_evaluation(mapped, reference))
        found = Reliability.from_json(json.loads(sidecars[task.ACCURACY])["reliability"])
        there = (stored[0] != 255) & (truth != 255)
        # Half a step below the border of a bin, whatever float64 makes of 0.004.
        shares = (stored[:, there].astype(np.float64) + 1e-9) / 250
        expected = Reliability.of(shares, truth[there])
        np.testing.assert_array_equal(found.counts, expected.counts)
        np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-6)
        np.testing.assert_allclose(found.accuracy, expected.accuracy, rtol=1e-6)
        assert facts["expected_calibration_error"] == pytest.approx(expected.error, abs=1e-6)
        assert expected.error < 0.05  # probabilities were drawn from
        assert sidecars[task.RELIABILITY].startswith(b"\x89PNG")

    @pytest.mark.parametrize("tile", [48, 128])
    def test_tiles_do_not_matter(self, tile, pair, tmp_path):
        stored, _, mapped, reference, _ = pair
        other = written(tmp_path / "map.zarr", stored, tile=tile)
        one, two = (
            figures(plan_evaluation(path, reference))[1][task.ACCURACY] for path in (mapped, other)
        )
        assert json.loads(one)["reliability"] == json.loads(two)["reliability"]

    def test_classes_that_become_one_have_no_curve(self, pair, tmp_path):
        _, _, mapped, reference, _ = pair
        plan = plan_evaluation(mapped, reference)
        assert plan.proba == tuple(probability_names(LEGEND))
        stored = pair[0]
        assert proba.stored_names(mapped, plan.mapped.crosswalk) == plan.proba
        merged = {"tree": "dry", "crop": "dry"}
        coarse = labels(tmp_path / "coarse.zarr", grid_of(), np.ones(stored[0].shape), COARSE)
        plan = plan_evaluation(mapped, coarse, crosswalk=merged)
        assert plan.proba == ()
        facts, sidecars = figures(plan)
        assert "expected_calibration_error" not in facts
        assert task.RELIABILITY not in sidecars

    def test_a_map_without_them_has_none(self, pair):
        _, _, _, reference, _ = pair
        plan = plan_evaluation(reference, reference)
        assert plan.proba == ()
        assert "reliability" not in json.loads(figures(plan)[1][task.ACCURACY])

    def test_pixels_by_score(self):
        best = np.array([[250, 0, 255, 100], [7, 7, 7, 7]], np.uint8)
        mapped = np.array([[0, 1, 255, 2], [0, 0, 255, 1]], np.uint8)
        truth = np.array([[0, 0, 0, 255], [0, 1, 1, 1]], np.uint8)
        found = proba.tally(best, mapped, truth)
        assert {v: found[:, v].tolist() for v in np.flatnonzero(found[0])} == {
            0: [1, 0],
            7: [3, 2],
            250: [1, 1],
        }


class TestPanel:
    def test_it_shows_image_reference_map_and_probabilities(self, pair):
        _, _, mapped, reference, product = pair
        plan = plan_evaluation(mapped, reference)
        assert image_of(plan) == product
        drawn = colours_of(panel(plan, Window(0, 0, HEIGHT, WIDTH), product))
        for entry in LEGEND.classes:
            assert drawn[entry.rgb] > 500
        assert drawn[(215, 25, 28)] > 100  # differ
        viridis = [(68, 1, 84), (253, 231, 36)]
        assert all(near(drawn, rgb) for rgb in viridis)

    def test_classes_that_are_not_there_are_in_no_key(self, pair, tmp_path):
        _, truth, *_ = pair
        one = labels(tmp_path / "one.zarr", grid_of(), np.full(truth.shape, 4), LEGEND)
        drawn = colours_of(panel(plan_evaluation(one, one), Window(0, 0, 40, 40)))
        assert (0x00, 0x64, 0x00) not in drawn
        assert drawn[(0xF0, 0x96, 0xFF)] > 1000

    def test_only_the_window_is_read(self, pair):
        _, _, mapped, reference, product = pair
        plan = plan_evaluation(mapped, reference)
        small = panel(plan, Window(70, 100, 5, 5), product)
        assert small.startswith(b"\x89PNG")

    def test_windows(self, pair):
        plan = plan_evaluation(pair[2], pair[3])
        assert window_of(plan) == (0, 0, HEIGHT, WIDTH)
        assert window_of(plan, "10,20,30") == (10, 20, 30, 30)
        assert window_of(plan, "80, 110") == (80, 110, 10, 10)
        for text in ("90,0", "0,120", "a", "1", "1,2,0", "-1,2"):
            with pytest.raises(InputError, match="expected row,column or row,column,edge inside"):
                window_of(plan, text)

    def test_a_map_that_does_not_say_what_it_is_of(self, pair):
        _, _, _, reference, _ = pair
        assert image_of(plan_evaluation(reference, reference)) is None

    def test_an_image_that_is_none(self, pair, tmp_path):
        _, _, mapped, reference, _ = pair
        with pytest.raises(InputError):
            panel(plan_evaluation(mapped, reference), Window(0, 0, 9, 9), str(tmp_path / "no.zarr"))


def colours_of(content):
    """Pixels of a picture by colour."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))


def near(drawn, rgb):
    return any(max(abs(a - b) for a, b in zip(rgb, other, strict=True)) < 3 for other in drawn)


class TestKey:
    """Beside the picture of a map."""

    def test_names_and_colours_of_what_is_there(self, pair, tmp_path):
        _, _, mapped, _, _ = pair
        shape = quicklook.draw(mapped, tmp_path / "q.png", bands=["label"])
        seen = np.asarray(Image.open(tmp_path / "q.png"))
        assert seen.shape == (*shape, 4)
        assert shape[0] == HEIGHT
        assert shape[1] > WIDTH + 40
        beside = seen[:, WIDTH:]
        for entry in LEGEND.classes:
            assert (beside == (*entry.rgb, 255)).all(axis=-1).sum() > 50
        assert (seen[:, :WIDTH, 3] == 0).any()  # nodata stays transparent

    def test_many_classes_are_the_most_frequent(self):
        entries = tuple(Entry(i, f"class {i}", f"#{i:02x}80ff") for i in range(60))
        legend = Legend("many", "Many", entries, "made up")
        codes = np.repeat(np.arange(60), np.arange(60) + 1).astype(np.uint8)[None]
        drawn = quicklook.key(codes, legend.attributes())
        found = {tuple(rgb) for rgb in drawn.reshape(-1, 4)[:, :3].tolist()}
        named = {i for i in range(60) if legend.entry(i).rgb in found}
        assert named == set(range(20, 60))

    def test_nothing_has_no_key(self):
        drawn = quicklook.key(np.full((3, 4), 255, np.uint8), LEGEND.attributes())
        assert drawn.shape == (0, 0, 4)
        assert quicklook.beside(np.ones((3, 4, 4), np.uint8), drawn).shape == (3, 4, 4)
