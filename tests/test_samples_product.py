"""Samples cut from products by the engine: every patch against `lcengine.stack`, and the rest."""

from __future__ import annotations

import datetime as dt
import io
import json

import dask
import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest
import rioxarray  # noqa: F401 - gives xarray objects `.rio`
from made_products import bands, labels, publish
from plain_source import LEGEND
from source_contract import SourceContract

import lcengine
from lcengine import jobs, store
from lcengine.classmap import save_classes
from lcengine.errors import InputError, RunError, StoreError
from lcengine.grid import Grid
from lcengine.locate import Window
from lcengine.periods import PeriodRule
from lcengine.samples import task
from lcengine.samples.plan import SamplePlan, plan_samples, source_of
from lcengine.samples.spec import SampleSpec
from lcengine.samples.stack_source import open_stack
from lcengine.store import Variable

LEFT, TOP = 600_000, 5_600_000
SPEC = SampleSpec(16, buffer=8, block=48, fractions=(0.6, 0.2, 0.2), seed=3)


def grid_of(left=LEFT, top=TOP, height=320, width=300, size=10.0, crs="EPSG:32631", tile=128):
    return Grid.from_bounds(
        left, top - height * size, left + width * size, top, crs, size, tile=tile
    )


def codes(shape, seed=0):
    """A quarter of the ground labelled, in patches of 20 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([10, 40, 80, 255], np.uint8), (16, 15), p=[0.1, 0.1, 0.05, 0.75])
    return np.kron(coarse, np.ones((20, 20), np.uint8))[: shape[0], : shape[1]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Monthly Sentinel-2, yearly radar of another zone and pixel size, and labels."""
    folder = tmp_path_factory.mktemp("products")
    here, wide = grid_of(), grid_of(LEFT - 200, TOP + 100, 350, 340)
    ends = dt.datetime(2018, 4, 1, tzinfo=dt.UTC), dt.datetime(2018, 6, 30, tzinfo=dt.UTC)
    periods = PeriodRule.parse("month").periods(*ends)
    optical = bands(("red", "green", "blue"), (3, *wide.shape))
    optical[Variable("count", "uint16", 65535, "observations")] = np.ones(
        (3, *wide.shape), np.uint16
    )
    for values in optical.values():
        values[:, 150:200] = np.iinfo(values.dtype).min  # a gap in all months
    radar = grid_of(174_800, 5_609_200, 160, 150, 20.0, "EPSG:32632")
    backscatter = bands(("vv", "vh"), radar.shape, seed=5, scale=0.01, units="dB")
    return {
        "s2": publish(folder / "s2.zarr", wide, optical, periods),
        "s1": publish(folder / "s1.zarr", radar, backscatter),
        "labels": labels(folder / "labels.zarr", here, codes(here.shape), LEGEND),
        "grid": here,
        "folder": folder,
    }


@pytest.fixture(scope="module")
def source(made):
    resampling = {"s1": "bilinear"}
    return open_stack({n: made[n] for n in ("s2", "s1")}, made["labels"], resampling=resampling)


@pytest.fixture(scope="module")
def stacked(made):
    """The whole stack in memory, by name (…, y, x)."""
    sources = {n: store.stored(made[n]).rio.write_crs(c) for n, c in (("s2", 32631), ("s1", 32632))}
    with dask.config.set(scheduler="threads", num_workers=2):
        whole = lcengine.stack(sources, made["grid"], resampling={"s1": "bilinear"}).compute()
    optical = np.stack([whole[f"s2_{band}"].values for band in ("red", "green", "blue")], axis=1)
    return {"s2": optical, "s1": np.stack([whole[f"s1_{band}"].values for band in ("vv", "vh")])}


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as found, distributed.Client(found) as opened:  # fmt: skip
        yield opened


@pytest.fixture(scope="module")
def plan(source):
    return plan_samples(source, SPEC)


@pytest.fixture(scope="module")
def product(plan, made, client):
    return jobs.run(plan, made["folder"] / "samples.zarr", client=client)


# ---------------------------------------------------------------------------------------- source


class TestStack(SourceContract):
    """The fixture `source`."""


def test_what_a_model_is_told(source):
    s2, s1 = source.inputs
    assert (s2.name, s2.bands, s2.times) == (
        "s2", ("red", "green", "blue"), ("2018-04", "2018-05", "2018-06"),
    )  # fmt: skip
    assert (s2.dtype, s2.fill, s2.scale, s2.units) == ("int16", -32768, 1e-4, "1")
    assert (s1.bands, s1.times, s1.units, s1.lead) == (("vv", "vh"), (), "dB", (2,))
    assert source.legend == LEGEND
    (scene,) = source.scenes
    assert (scene.shape, scene.crs) == ((320, 300), "EPSG:32631")


def test_patches_are_those_of_the_stack(source, stacked, made):
    rng = np.random.default_rng(1)
    corners = zip(rng.integers(0, 304, 30), rng.integers(0, 284, 30), strict=True)
    windows = [Window(int(y), int(x), 16, 16) for y, x in corners]
    cut = source.cut(0, windows)
    expected = LEGEND.encode(codes(made["grid"].shape))
    for i, (y, x, height, width) in enumerate(windows):
        where = np.s_[..., y : y + height, x : x + width]
        np.testing.assert_array_equal(cut["s2"][i], stacked["s2"][where])
        np.testing.assert_array_equal(cut["s1"][i], stacked["s1"][where])
        np.testing.assert_array_equal(cut["label"][i], expected[where])
    assert (cut["s1"] != -32768).any()


def test_a_source_survives_json(source):
    data = json.loads(json.dumps(source.to_json()))
    again = source_of(data)
    assert again.to_json() == data
    window = [Window(3, 5, 8, 8)]
    for name, values in again.cut(0, window).items():
        np.testing.assert_array_equal(values, source.cut(0, window)[name])


def test_a_class_map_as_labels(made, source, tmp_path):
    here, values = made["grid"], codes(made["grid"].shape)
    transform = tuple(here.transform)[:6]
    path = tmp_path / "map.tif"
    save_classes(path, values, LEGEND, crs="EPSG:32631", transform=transform)
    other = open_stack({"s2": made["s2"]}, path, bands={"s2": ["blue"]})
    assert other.legend.codes == LEGEND.codes
    assert other.inputs[0].bands == ("blue",)
    window = Window(30, 40, 50, 60)
    np.testing.assert_array_equal(other.labels(0, window), source.labels(0, window))
    given = open_stack({"s2": made["s2"]}, path, legend=LEGEND)
    assert given.legend == LEGEND
    again = source_of(json.loads(json.dumps(given.to_json())))
    np.testing.assert_array_equal(again.labels(0, window), source.labels(0, window))


def test_what_cannot_be_a_source(made, tmp_path):
    s2, own = made["s2"], made["labels"]
    with pytest.raises(InputError, match="at least one"):
        open_stack({}, own)
    with pytest.raises(InputError, match="not 'label'"):
        open_stack({"label": s2}, own)
    with pytest.raises(InputError, match="gives bands nir"):
        open_stack({"s2": s2}, own, bands={"s2": ["nir"]})
    with pytest.raises(InputError, match="several kinds"):
        open_stack({"s2": s2}, own, bands={"s2": ["red", "count"]})
    with pytest.raises(InputError, match="name \\['s3'\\]"):
        open_stack({"s2": s2}, own, bands={"s3": ["red"]})
    with pytest.raises(InputError, match="states no legend"):
        open_stack({"s2": s2}, s2)
    with pytest.raises(InputError, match="legend of its own"):
        open_stack({"s2": s2}, own, legend=LEGEND)
    with pytest.raises(InputError, match="not a Zarr v3 product"):
        open_stack({"s2": tmp_path / "no.zarr"}, own)
    far = grid_of(LEFT + 90_000, height=64, width=64, tile=64)
    away = publish(tmp_path / "far.zarr", far, bands(("red",), far.shape))
    with pytest.raises(InputError, match="no part of the pixels"):
        open_stack({"s2": away}, own)
    bare = tmp_path / "bare.tif"
    save_classes(bare, codes((64, 64)), LEGEND)
    with pytest.raises(InputError, match="has no CRS"):
        open_stack({"s2": s2}, bare)


def test_a_product_made_anew_is_noticed(tmp_path):
    here = grid_of(height=64, width=64, tile=64)
    own = labels(tmp_path / "labels.zarr", here, codes(here.shape), LEGEND)
    path = publish(tmp_path / "s2.zarr", here, bands(("red",), here.shape), run_id="one")
    data = open_stack({"s2": path}, own).to_json()
    publish(tmp_path / "s2.zarr", here, bands(("red",), here.shape, 1), run_id="two")
    with pytest.raises(InputError, match=r"made anew .*one, now two"):
        source_of(data).inputs  # noqa: B018


# ------------------------------------------------------------------------------------------ plan


def test_the_plan_survives_its_files(plan):
    data, files = json.loads(json.dumps(plan.to_json())), plan.files()
    again = SamplePlan.from_json(data, files["samples.parquet"])
    assert again.run_id == plan.run_id
    assert again.table.equals(plan.table)
    assert again.layout == plan.layout
    assert again.variables() == plan.variables()


def test_the_table(plan, made):
    rows = plan.table.to_pylist()
    indices = LEGEND.encode(codes(made["grid"].shape))
    assert [row["sample"] for row in rows] == list(range(len(rows)))
    for row in rows:
        part = indices[row["row"] : row["row"] + 16, row["col"] : row["col"] + 16]
        counts = [(part == i).sum() for i in range(3)]
        assert [row["pixels_10"], row["pixels_40"], row["pixels_80"]] == counts
        assert row["labelled"] == sum(counts) > 0
        assert row["centre"] == part[8, 8]
        assert row["x"] == LEFT + (row["col"] + 8) * 10
        assert row["y"] == TOP - (row["row"] + 8) * 10
        block = (-TOP // 10 + row["row"]) // 48, (LEFT // 10 + row["col"]) // 48
        assert row["block"] == "/".join(map(str, block))


def test_parts_are_bounded(plan):
    one = 16 * 16 * (9 * 2 + 2 * 2 + 1)
    assert plan.layout.part * one <= 64 * 2**20
    assert plan.tiles == range(-(-plan.table.num_rows // plan.layout.part))
    assert plan.only([1]).tiles == (1,)


# --------------------------------------------------------------------------------------- product


def test_the_product_holds_the_patches_of_the_table(product, plan, stacked, made):
    found = store.stored(product)
    table = pq.read_table(io.BytesIO(store.sidecar(product, "samples.parquet")))
    assert table.equals(plan.table)
    assert found["s2"].dims == ("sample", "time_s2", "band_s2", "y", "x")
    assert found["s1"].dims == ("sample", "band_s1", "y", "x")
    assert found["label"].attrs["flag_values"] == [0, 1, 2]
    indices = LEGEND.encode(codes(made["grid"].shape))
    values = {name: found[name].values for name in ("s2", "s1", "label")}
    for i, row in enumerate(table.to_pylist()):
        where = np.s_[..., row["row"] : row["row"] + 16, row["col"] : row["col"] + 16]
        np.testing.assert_array_equal(values["s2"][i], stacked["s2"][where])
        np.testing.assert_array_equal(values["s1"][i], stacked["s1"][where])
        np.testing.assert_array_equal(values["label"][i], indices[where])


def test_statistics_are_of_training_patches_alone(product):
    found = store.stored(product)
    table = pq.read_table(io.BytesIO(store.sidecar(product, "samples.parquet")))
    train = np.array(table["split"].to_pylist()) == "train"
    assert 0 < train.sum() < len(train)
    saved = json.loads(store.sidecar(product, "statistics.json"))
    for name, names in (("s2", ("red", "green", "blue")), ("s1", ("vv", "vh"))):
        for i, band in enumerate(names):
            values = found[name].values[..., i, :, :]
            own = values[train][values[train] != -32768].astype(np.float64)
            got = saved[name][band]
            assert got["count"] == own.size
            np.testing.assert_allclose(got["mean"], own.mean(), rtol=1e-12)
            np.testing.assert_allclose(got["std"], own.std(), rtol=1e-12)
            assert (got["min"], got["max"]) == (own.min(), own.max())
            every = values[values != -32768].astype(np.float64)
            assert abs(every.mean() - got["mean"]) > 1e-3


def test_facts(product, plan):
    facts = store.provenance(product)
    assert (facts["kind"], facts["patch"]) == ("samples", 16)
    assert facts["place"]["interval"] == ["2018-04-01T00:00:00Z", "2018-07-01T00:00:00Z"]
    assert SampleSpec.from_json(facts["spec"]) == SPEC
    assert [entry["name"] for entry in facts["inputs"]] == ["s2", "s1"]
    assert store.legend_of(product) == LEGEND
    splits = plan.table["split"].to_pylist()
    for name in ("train", "val", "test"):
        assert facts["splits"][name]["samples"] == splits.count(name)
    values = store.stored(product)["s2"].values
    assert facts["empty"]["s2"] == (values == -32768).all(axis=(1, 2, 3, 4)).sum() > 0
    pixels = sum(part["pixels"]["80"] for part in facts["splits"].values())
    assert pixels == sum(plan.table["pixels_80"].to_pylist())


def test_the_size_of_parts_does_not_matter(plan, made, client, product, monkeypatch):
    monkeypatch.setattr("lcengine.samples.plan.TASKS", 3)
    monkeypatch.setattr("lcengine.samples.plan.LEAST", 1)
    again = plan_samples(plan.source, SPEC)
    assert again.layout != plan.layout
    assert again.run_id == plan.run_id
    other = jobs.run(again, made["folder"] / "other.zarr", client=client)
    one, two = store.stored(product), store.stored(other)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, two[name].values)
    for name in ("samples.parquet", "statistics.json"):
        assert store.sidecar(product, name) == store.sidecar(other, name)


def test_an_interrupted_run_goes_on(plan, made, client, product, monkeypatch):
    """All parts but the last are there; the rest is what a whole run makes."""
    monkeypatch.setattr("lcengine.samples.plan.TASKS", 5)
    monkeypatch.setattr("lcengine.samples.plan.LEAST", 1)
    plan = plan_samples(plan.source, SPEC)
    assert len(plan.tiles) > 3
    output = made["folder"] / "resumed.zarr"
    request = {"run_id": plan.run_id}
    place = store.target(output)
    with place.exclusive():
        staging = jobs.stage(place, request, plan)
        for number in list(plan.tiles)[:-1]:
            staging.accept(jobs.run_tile(staging, number))
        staging.flush()
    assert jobs.status(output)["remaining"] == 1
    jobs.resume(output, client=client)
    one, two = store.stored(product), store.stored(output)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, two[name].values)
    assert store.sidecar(product, "statistics.json") == store.sidecar(output, "statistics.json")
    with pytest.raises(StoreError, match="different request"):
        jobs.run(plan, output, client=client, request={"run_id": "another"})


@pytest.mark.parametrize("other", [255, 10])
def test_labels_that_change_under_a_plan(tmp_path, other):
    here = grid_of(height=96, width=96, tile=96)
    path = tmp_path / "map.tif"
    place = {"crs": "EPSG:32631", "transform": tuple(here.transform)[:6]}
    save_classes(path, np.full(here.shape, 40, np.uint8), LEGEND, **place)
    image = publish(tmp_path / "s2.zarr", here, bands(("red",), here.shape))
    spec = SampleSpec(8, split="random")
    plan = plan_samples(open_stack({"s2": image}, path, legend=LEGEND), spec)
    changed = np.full(here.shape, 40, np.uint8)
    changed[50, 50] = other
    save_classes(path, changed, LEGEND, **place)
    parts = [number for number in plan.tiles if not _unchanged(plan, number)]
    assert len(parts) == 1


def test_a_loader_gets_what_was_cut(product, plan, source):
    from lcengine import samples

    found = samples.open(product)
    assert found.inputs == source.inputs
    assert found.legend == LEGEND
    assert {type(reader).__name__ for reader in found.rows.values()} == {"ShardRows"}
    (cuts,) = [source.cut(scene, windows) for scene, windows in plan.windows(0)]
    for name, values in found.read(np.arange(plan.layout.tile_at(0).stop)).items():
        np.testing.assert_array_equal(values, cuts[name])
    train = found.loader("train", 8, weights="balanced", augment=samples.Augment())
    for batch in train:
        assert (found.table["split"].iloc[batch["index"]] == "train").all()
        assert np.isfinite(batch["s2"]).all()
    whole = [batch["s2"] for batch in found.loader("train", 8)]
    stored = [batch["s2"] for batch in found.loader("train", 8, normalize=False)]
    values, valid = np.concatenate(whole), np.concatenate(stored) != -32768
    for band in range(3):
        seen = values[:, :, band][valid[:, :, band]].astype(np.float64)
        np.testing.assert_allclose((seen.mean(), seen.std()), (0, 1), atol=1e-4)
    assert (values[~valid] == 0).all()


def _unchanged(plan, number):
    try:
        task.compute(plan, number, 0)
    except InputError as error:
        return "other labels than when" not in str(error)
    return True


def test_a_part_that_cannot_be_cut_is_named(plan, tmp_path, client):
    """A source that is gone: the run fails with the error of the part, and keeps what is done."""
    here = grid_of(height=96, width=96, tile=96)
    own = labels(tmp_path / "labels.zarr", here, np.full(here.shape, 40), LEGEND)
    image = publish(tmp_path / "s2.zarr", here, bands(("red",), here.shape))
    made = plan_samples(open_stack({"s2": image}, own), SampleSpec(8, split="random"))
    publish(tmp_path / "s2.zarr", here, bands(("red",), here.shape, 1), run_id="two")
    with pytest.raises((InputError, RunError), match="made anew"):
        jobs.run(made, tmp_path / "samples.zarr", client=client)
