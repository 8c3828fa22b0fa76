"""Real fields of Flanders on the whole way: items, composite, samples, batches."""

from __future__ import annotations

import distributed
import numpy as np
import pytest
import rasterio

import lcengine
from lcengine import samples, store
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.grid import Grid
from lcengine.legends import Entry, Legend
from lcengine.periods import PeriodRule

CLASSES = Legend(
    "cover",
    "Land cover of WorldCereal",
    (
        Entry(11, "temporary crops", "#e6c800"),
        Entry(13, "grassland", "#4ca64c"),
        Entry(60, "built-up", "#c81919"),
        Entry(99, "other", "#8c8c8c"),
    ),
    "made up",
)
PATCH, BUFFER = 5, 3


@pytest.fixture(scope="module")
def season(flanders, tmp_path_factory):
    """Two monthly medians on the labels' grid, and samples of them: (composite, samples)."""
    folder = tmp_path_factory.mktemp("flanders")
    with rasterio.open(flanders / "labels_lc.tif") as file:
        grid = Grid.from_bounds(*file.bounds, file.crs.to_epsg(), 10, tile=64)
    items = lcengine.search(
        str(flanders / "catalog.json"), ["sentinel-2-l2a"], datetime="2018-05-01/2018-06-30"
    )
    spec = CompositeSpec(
        ("red", "nir", "swir16"), period=PeriodRule.parse("month"), outliers="none"
    )
    sizes = samples.SampleSpec(PATCH, stride=2, block=16, buffer=BUFFER, seed=1)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        months = lcengine.run(
            plan_composite(items, grid, spec), folder / "months.zarr", client=client
        )
        source = samples.open_stack(
            {"s2": months}, flanders / "labels_lc.tif", legend=CLASSES, bands={"s2": ["nir", "red"]}
        )
        plan = samples.plan_samples(source, sizes)
        return months, lcengine.run(plan, folder / "samples.zarr", client=client)


@pytest.fixture(scope="module")
def found(season):
    return samples.open(season[1])


def test_patches_are_those_of_the_month_and_of_the_map(flanders, season, found):
    with rasterio.open(flanders / "labels_lc.tif") as file:
        codes = file.read(1)
        corners = [file.index(*place) for place in found.table[["x", "y"]].to_numpy()]
    indices = np.searchsorted(CLASSES.codes, codes)
    months = store.stored(season[0])
    pixels = np.stack([months[band].values for band in ("nir", "red")], axis=1)
    assert found.inputs[0].times == ("2018-05", "2018-06")
    read = found.read(np.arange(len(found)))
    for i, (row, col) in enumerate(corners):
        where = np.s_[..., row - 2 : row + 3, col - 2 : col + 3]
        np.testing.assert_array_equal(read["s2"][i], pixels[where])
        np.testing.assert_array_equal(read["label"][i], indices[where])
    assert set(np.unique(read["label"])) == {0, 1, 2, 3}
    # Crops and grass are green in May and June: the bands are not each other's.
    nir, red = read["s2"][:, :, 0].astype(float), read["s2"][:, :, 1].astype(float)
    assert nir[nir > 0].mean() > 2 * red[red > 0].mean()


def test_splits_are_the_buffer_apart(found):
    assert set(found.splits) == {"train", "val", "test"}
    rows, cols = (found.table[name].to_numpy() for name in ("row", "col"))
    splits = found.table["split"].to_numpy()
    gaps = [np.abs(at[:, None] - at[None]) - PATCH for at in (rows, cols)]
    other = splits[:, None] != splits[None]
    assert np.maximum(*gaps)[other].min() >= BUFFER


def test_batches_are_normalised_by_the_training_patches(found):
    train, val = (found.read(found.split(name))["s2"] for name in ("train", "val"))
    fill = found.inputs[0].fill
    batches = list(found.loader("train", 16, augment=samples.Augment()))
    seen = np.concatenate([batch["s2"] for batch in batches])
    assert sum(len(batch["index"]) for batch in batches) == found.splits["train"]
    for band, name in enumerate(("nir", "red")):
        own = train[:, :, band][train[:, :, band] != fill].astype(np.float64)
        facts = found.statistics["s2"][name]
        assert facts["count"] == own.size
        np.testing.assert_allclose((facts["mean"], facts["std"]), (own.mean(), own.std()))
        assert val[:, :, band].mean() != pytest.approx(own.mean(), rel=1e-3)
        layer = seen[:, :, band].astype(np.float64)
        share = own.size / layer.size  # missing pixels are 0
        assert layer.mean() == pytest.approx(0, abs=1e-4)
        assert np.square(layer).mean() == pytest.approx(share, abs=1e-4)
