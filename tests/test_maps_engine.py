"""Maps of forests and bags of colours of several products: one truth for any tiles and workers."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import distributed
import numpy as np
import pytest
from archives import until
from made_products import bands, labels, publish
from odc.geo.geom import Geometry
from plain_model import LEGEND
from shapely.geometry import Polygon

from lcengine import jobs, models, samples, store
from lcengine.engine import Policy
from lcengine.errors import StoreError
from lcengine.evaluate.plan import plan_evaluation
from lcengine.evaluate.task import ACCURACY
from lcengine.grid import Grid
from lcengine.predict import task
from lcengine.predict.plan import plan_predict

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
HEIGHT, WIDTH = 230, 250  # windows of 32 are cut at both edges
OPTIONS = {
    "forest": {"trees": 12, "features": ["red", "ndvi", "s1.vv"]},
    "bag-of-colors": {
        "colors": 16,
        "segments": 6,
        "bands": ["red", "nir", "vv"],
        "rounds": 4,
        "classifier": {"kind": "forest", "trees": 12},
    },
}


def grid_of(height=HEIGHT, width=WIDTH, tile=64, size=10.0):
    return Grid.from_bounds(
        LEFT, TOP - height * size, LEFT + width * size, TOP, UTM, size, tile=tile
    )


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as found:  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def made(client, tmp_path_factory):
    """Products of 10 and 20 m with gaps, their labels, and models of both by kind."""
    folder = tmp_path_factory.mktemp("maps")
    grid = grid_of()
    optical = bands(("red", "nir"), grid.shape)
    for values in optical.values():
        values[:70, 90:130] = -32768
    radar = bands(("vv",), (115, 125), seed=5, scale=0.01, units="dB")
    sources = {
        "s2": publish(folder / "s2.zarr", grid, optical),
        "s1": publish(folder / "s1.zarr", grid_of(115, 125, 64, 20.0), radar),
    }
    red, nir = optical.values()
    codes = np.array(LEGEND.codes)[np.where(nir > 6000, 2, red > 3000)]
    truth = labels(folder / "labels.zarr", grid, codes, LEGEND)
    spec = samples.SampleSpec(32, buffer=0, block=32, fractions=(0.6, 0.2, 0.2))
    plan = samples.plan_samples(samples.open_stack(sources, truth), spec)
    found = samples.open(jobs.run(plan, folder / "samples.zarr", client=client))
    paths = {}
    for name, options in OPTIONS.items():
        kind = models.kind(name)
        training = models.Training(threads=1)
        model = kind.fit(found, kind.options.model_validate(options), training)
        paths[name] = models.save(model, folder / name).path
    return sources, truth, paths


def whole(plan):
    """Label and probabilities, tile by tile in this process."""
    out = {v.name: np.full(plan.grid.shape, v.missing, v.dtype) for v in plan.variables()}
    for number in plan.tiles:
        for name, values in task.compute(plan, number, 0)[0].items():
            out[name][plan.grid.tile_at(number).slices] = values
    return out


def same(found, other):
    assert found.keys() == other.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_any_tiles(made, name):
    sources, _, paths = made
    maps = [
        whole(plan_predict(sources, paths[name], grid=grid_of(tile=tile), proba=True))
        for tile in (256, 48, 112)
    ]
    same(maps[1], maps[0])
    same(maps[2], maps[0])
    label = maps[0]["label"]
    assert (label[:70, 90:130] == LEGEND.nodata).all()
    assert len(np.unique(label)) > 2


@pytest.mark.parametrize("name", OPTIONS)
def test_any_tiles_of_a_polygon(made, name):
    """Outside of it nothing is predicted, nor does it take part in windows."""
    sources, _, paths = made
    corners = [(LEFT + 30, TOP - 40), (LEFT + 2300, TOP - 700), (LEFT + 400, TOP - 2200)]
    area = Geometry(Polygon(corners), UTM)
    maps = []
    for tile in (256, 48):
        grid = replace(grid_of(tile=tile), aoi=area)
        plan = plan_predict(sources, paths[name], grid=grid, uncertainty=["margin"])
        maps.append(whole(plan))
    same(maps[1], maps[0])
    inside = grid.inside(0, 0, HEIGHT, WIDTH)
    assert (maps[0]["label"] == LEGEND.nodata)[~inside].all()
    assert (maps[0]["label"] != LEGEND.nodata)[inside].mean() > 0.5


@pytest.mark.slow
def test_any_workers_and_a_killed_one(made, tmp_path):
    """Map and report of two processes, one of which dies by SIGKILL, are those of this one."""
    sources, truth, paths = made
    plans = {name: plan_predict(sources, path, proba=True) for name, path in paths.items()}
    expected = {name: whole(plan) for name, plan in plans.items()}
    policy = Policy(worker_timeout=30)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        for name, plan in plans.items():
            output = tmp_path / f"{name}.zarr"
            if name == "forest":
                jobs.run(plan, output, client=client, policy=policy)
            else:
                _killing(client, output, plan, policy)
            same({n: store.stored(output)[n].values for n in expected[name]}, expected[name])
            assert not store.verify(output).faults
        report = tmp_path / "report.zarr"
        compared = plan_evaluation(output, truth)
        _killing(client, report, compared, policy)
    mapped, codes = expected[name]["label"], store.stored(truth)["label"].values
    both = (mapped != LEGEND.nodata) & (codes != LEGEND.nodata)
    facts = store.provenance(report)
    assert facts["pixels"] == both.sum()
    assert facts["overall_accuracy"] == (mapped == codes)[both].mean()
    assert b'"kappa"' in store.sidecar(report, ACCURACY)


def _killing(client, output, plan, policy):
    """Run a plan; one worker is killed when some tiles are done, or when it ends."""
    victim = next(iter(client.run(os.getpid).values()))

    def kill():
        until(lambda: output.exists() or _done(output) >= 2, seconds=60)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        jobs.run(plan, output, client=client, policy=policy)
    finally:
        killer.join()
    client.wait_for_workers(2)


def _done(output):
    try:
        return jobs.status(output).get("done", 0)
    except StoreError:
        return 0
