"""The statistics, truths and contenders of benchmarks/composite_quality.py."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from lcengine.simulate import SimulationOptions

NODATA = -32768
BANDS = ("blue", "green", "red", "nir", "swir16")


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def quality(benchmarks):
    return importlib.import_module("_quality")


@pytest.fixture(scope="module")
def worlds(benchmarks):
    return importlib.import_module("_quality_worlds")


@pytest.fixture(scope="module")
def contenders(benchmarks):
    return importlib.import_module("_quality_contenders")


@pytest.fixture(scope="module")
def world(worlds):
    return worlds.make_world(SimulationOptions(64, 24, 3, "2023-01-01/2023-12-31", BANDS))


def pair(seed, cases=2):
    """A composite and its truth with gaps and a few large errors."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(100, 4000, (cases, 5, 20, 24)).astype(np.int16)
    composite = truth + np.rint(rng.standard_t(2, truth.shape) * 200).astype(np.int16)
    composite[rng.random(truth.shape) < 0.02] = NODATA
    return composite, truth


def test_statistics_equal_their_formulas(quality):
    composite, truth = pair(0)
    where = np.random.default_rng(1).random((2, 20, 24)) < 0.8
    got = quality.summarise(quality.tally(composite, truth, BANDS, where=where, block=7))
    good = where & (composite != NODATA).all(axis=1)
    error = (composite.astype(float) - truth)[np.broadcast_to(good[:, None], truth.shape)] / 1e4
    error = error.reshape(-1)
    assert got["rmse"][0] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert got["bias"][0] == pytest.approx(error.mean())
    assert got["p95"][0] == pytest.approx(np.percentile(abs(error), 95), abs=2e-4)
    assert got["covered"][0] == pytest.approx(good.sum() / where.sum())
    blue, red, nir = (composite[:, b].astype(int) - truth[:, b] for b in (0, 2, 3))
    cloud = (blue > 300) & good
    shadow = (nir < -200) & (nir < -0.2 * truth[:, 3]) & (red <= 0) & good
    assert got["residual_cloud"][0] == pytest.approx(cloud.sum() / good.sum())
    assert got["residual_shadow"][0] == pytest.approx(shadow.sum() / good.sum())


def test_merged_tallies_are_one_tally_of_all_cases(quality):
    composite, truth = pair(2, cases=4)
    whole = quality.tally(composite, truth, BANDS, block=8)
    parts = [quality.tally(composite[i : i + 2], truth[i : i + 2], BANDS, block=8) for i in (0, 2)]
    merged = quality.merge(parts)
    assert merged.case.tolist() == whole.case.tolist()
    for name, value in quality.summarise(whole).items():
        assert quality.summarise(merged)[name] == pytest.approx(value)


def test_replicates_draw_as_many_blocks_as_there_are(quality):
    case = np.repeat([0, 1, 2], 6)
    weights = quality.resample(case, 50, seed=0)
    assert (weights.sum(axis=1) == case.size).all()
    assert (weights.reshape(50, 3, 6).sum(axis=2) % 6 == 0).all()


def test_a_contender_does_not_differ_from_itself(quality):
    composite, truth = pair(3)
    tally = quality.tally(composite, truth, BANDS, block=8)
    for relative in (False, True):
        change = quality.paired(tally, tally, relative=relative, repeats=20)["rmse"]
        assert (change.value, change.low, change.high) == (0, 0, 0)
    worse = quality.tally(np.where(composite == NODATA, NODATA, composite + 500), truth, BANDS)
    better = quality.tally(composite, truth, BANDS)
    change = quality.paired(worse, better, relative=True, repeats=100)["rmse"]
    assert 0 < change.low <= change.value <= change.high


def test_pairs_need_the_same_pixels(quality):
    composite, truth = pair(4)
    other = quality.tally(composite, truth, BANDS, where=np.arange(24) < 12)
    with pytest.raises(ValueError, match="same `where`"):
        quality.paired(quality.tally(composite, truth, BANDS), other)


def test_rasters_are_brought_onto_finer_and_coarser_grids(worlds):
    fine = np.arange(16).reshape(4, 4)
    assert worlds.onto(fine, (9, 2, 2)).tolist() == [[0, 2], [8, 10]]
    assert worlds.onto(worlds.onto(fine, (2, 2)), (4, 4))[1].tolist() == [0, 0, 2, 2]
    assert (worlds.onto(fine, (4, 4)) == fine).all()


def test_what_a_perfect_mask_leaves_is_the_surface_and_noise(world, worlds):
    clear = worlds.onto(world.true_mask().scl == 4, world.surface.shape)
    seen, surface = world.seen.pixels, world.surface
    kept = np.broadcast_to(clear[:, None], seen.shape) & (seen != NODATA)
    difference = (seen.astype(int) - surface)[kept]
    assert kept.any()
    assert np.abs(np.median(difference)) < 10  # thin cloud below 0.05 counts as clear
    only = world.clear_only()
    assert (only.pixels[kept] == surface[kept]).all()
    assert (only.pixels == NODATA).sum() == (seen == NODATA).sum()


def test_a_composite_is_the_median_of_what_the_mask_leaves(world, worlds, contenders):
    stack = world.seen
    (period, *_) = contenders.cut(stack, "P92D")
    got = contenders.Bench(stack, [period]).composites(contenders.Recipe("scl"))[0]
    inside = contenders.within(stack, period)
    bad = worlds.onto(np.isin(stack.scl[inside], (0, 1, 3, 8, 9, 10)), got.shape)
    pixels = np.ma.masked_array(
        stack.pixels[inside], np.broadcast_to(bad[:, None], stack.pixels[inside].shape)
    )
    expected = np.rint(np.ma.median(pixels, axis=0).filled(NODATA)).astype(int)
    assert (got == expected).all()


def test_the_clearest_scene_lies_on_top(world, worlds, contenders):
    recipe = contenders.PEERS["s2mosaic, first clear"]
    (period, *_) = contenders.cut(world.seen, "P92D")
    bench = contenders.Bench(world.seen, [period])
    got = bench.composites(recipe)[0]
    inside = contenders.within(world.seen, period)
    clear = bench.clear("s2mosaic", contenders.Screens())[inside]
    top = int(clear.mean(axis=(1, 2)).argmax())
    where = clear[top] != 0
    assert where.any()
    assert (got[:, where] == world.seen.pixels[inside][top][:, where]).all()


def test_a_floor_follows_the_slash(contenders):
    screens = contenders.Recipe(screens="despike:3:0,mad:2.5:bright/450").parsed()
    assert (screens.mad.k, screens.mad.side, screens.mad.floor) == (2.5, "bright", 450)
    assert screens.despike.below == 0


def test_a_held_out_date_is_in_no_series(shared_data, worlds):
    folder = shared_data / "flanders-2018" / "sentinel-2-l2a"
    stack = worlds.Stack.read(folder, BANDS)
    cases = worlds.held_out(stack, per_month=1)
    assert len(cases) > 5
    for case in cases:
        assert case.series.dates.size == stack.dates.size - 1
        same_month = case.series.dates.astype("M8[M]") == case.date.astype("M8[M]")
        assert same_month.any()
        assert not any((pixels == case.observation).all() for pixels in case.series.pixels)
        assert case.where.any()
        assert (case.observation[:, case.where] != NODATA).all()
