"""Maps of networks: tiles by the engine are patches of the whole mirrored raster, merged."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import distributed
import numpy as np
import pytest
from archives import until
from made_products import bands, publish
from odc.geo.geom import Geometry
from plain_model import plain
from plain_network import network
from shapely.geometry import Polygon

from lcengine import jobs, models, store
from lcengine.engine import Policy
from lcengine.errors import InputError, StoreError
from lcengine.grid import Grid
from lcengine.inputs import Inputs, layers, observed
from lcengine.locate import Window
from lcengine.models import KINDS
from lcengine.models.predictor import Execution
from lcengine.predict import task, tiled
from lcengine.predict.lattice import Tiling
from lcengine.predict.plan import plan_predict

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
HEIGHT, WIDTH = 100, 116
WINDOWS = ("hann", "pyramid", "mean", "centre")


def grid_of(height=HEIGHT, width=WIDTH, tile=64, size=10.0):
    return Grid.from_bounds(
        LEFT, TOP - height * size, LEFT + width * size, TOP, UTM, size, tile=tile
    )


@pytest.fixture(scope="module", autouse=True)
def kinds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "plain", "plain_model")
        patch.setitem(KINDS, "plain-network", "plain_network")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two products with gaps, and the folder they lie in."""
    folder = tmp_path_factory.mktemp("tiled")
    grid = grid_of()
    optical = bands(("red", "nir"), grid.shape)
    for values in optical.values():
        values[10:70, 40:100] = -32768  # more than a patch
    radar = bands(("vv",), (HEIGHT // 2, WIDTH // 2), seed=5, scale=0.01, units="dB")
    sources = {
        "s2": publish(folder / "s2.zarr", grid, optical),
        "s1": publish(folder / "s1.zarr", grid_of(HEIGHT // 2, WIDTH // 2, 64, 20.0), radar),
    }
    return folder, sources


@pytest.fixture(scope="module")
def model(made):
    folder, sources = made
    seen = Inputs(layers(sources), grid_of()).inputs
    return models.save(network(seen, margin=2), folder / "network").path


def whole(plan, order=None):
    """All variables, tile by tile in this process, and the predicted pixels of receipts."""
    out = {v.name: np.full(plan.grid.shape, v.missing, v.dtype) for v in plan.variables()}
    predicted = 0
    for number in order or plan.tiles:
        arrays, receipt = task.compute(plan, number, 0)
        predicted += receipt["predicted"]
        for name, values in arrays.items():
            out[name][plan.grid.tile_at(number).slices] = values
    return out, predicted


def expected(plan):
    """Label and probabilities of the whole raster by NumPy: METHODS.md, "Tiled inference"."""
    height, width = plan.grid.shape
    raster = Inputs(plan.layers, plan.grid).read(Window(0, 0, height, width))
    valid = observed(plan.spec.inputs, raster)
    patch, stride, window = plan.lattice.patch, plan.lattice.stride, plan.lattice.window
    far, lead = 4 * patch, (patch - stride) // 2
    mirrored = {
        name: np.pad(values, [(0, 0)] * (values.ndim - 2) + [(far, far)] * 2, mode="reflect")
        for name, values in raster.items()
    }
    seen = np.pad(valid, [(0, 0)] + [(far, far)] * 2, mode="reflect")
    place = np.arange(patch) + 0.5
    line = {
        "hann": np.sin(np.pi * place / patch) ** 2,
        "pyramid": np.minimum(place, patch - place),
        "mean": np.ones(patch),
        "centre": (lead < place) & (place < lead + stride),
    }[window].astype(np.float32)
    weights = np.multiply.outer(line, line)
    count = len(plan.legend.classes)
    sums = np.zeros((count, height + 2 * far, width + 2 * far), np.float32)
    total = np.zeros(sums.shape[1:], np.float32)
    for y in range(far - lead, far - lead + height, stride):
        for x in range(far - lead, far - lead + width, stride):
            cut = np.s_[..., y : y + patch, x : x + patch]
            if seen[cut].any():
                part = {name: values[cut].copy() for name, values in mirrored.items()}
                sums[cut] += weights * plan.predictor.predict(part, seen[cut].copy())[0]
                total[cut] += weights
    inner = np.s_[..., far : far + height, far : far + width]
    with np.errstate(invalid="ignore"):
        proba = sums[inner] / total[inner]
    codes = np.array(plan.legend.codes, plan.legend.dtype)
    label = np.where(valid[0], codes[proba.argmax(axis=0)], plan.legend.nodata)
    shares = np.where(valid, np.rint(250 * proba.astype(np.float64)), 255).astype(np.uint8)
    return label, shares, valid[0]


def same(found, other):
    assert found.keys() == other.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize(
    ("patch", "stride", "window"),
    [*((32, 20, w) for w in WINDOWS), (25, 10, "hann"), (16, 16, "mean"), (40, 9, "centre")],
)
def test_a_map_is_its_patches_merged(made, model, patch, stride, window):
    sources = made[1]
    tiling = Tiling(patch, stride, window, how=Execution(batch=5))
    plan = plan_predict(sources, model, proba=True, tiling=tiling)
    found, predicted = whole(plan)
    label, shares, valid = expected(plan)
    np.testing.assert_array_equal(found["label"], label)
    for values, share in zip(list(found.values())[1:], shares, strict=True):
        np.testing.assert_array_equal(values, share)
    assert predicted == valid.sum()
    assert len(np.unique(label)) == 4


def test_any_tiles_order_and_reads(made, model, monkeypatch):
    sources = made[1]
    scores = {"proba": True, "uncertainty": ["entropy", "margin"]}
    plans = [plan_predict(sources, model, grid=grid_of(tile=t), **scores) for t in (256, 48, 112)]
    first = whole(plans[0])
    for plan in plans[1:]:
        found, predicted = whole(plan, plan.tiles[::-1])
        same(found, first[0])
        assert predicted == first[1]
    monkeypatch.setattr(tiled, "BYTES", 1)
    same(whole(plans[0])[0], first[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (17, 5), (33, 64)])
def test_small_rasters_are_mirrored_over_and_over(made, model, shape):
    grid = grid_of(*shape, tile=16)
    plan = plan_predict(made[1], model, proba=True, grid=grid)
    found, _ = whole(plan)
    label, shares, valid = expected(plan)
    assert valid.any()
    np.testing.assert_array_equal(found["label"], label)
    np.testing.assert_array_equal(found["probability_10_tree"], shares[0])


def test_polygons_and_what_is_missing(made, model):
    """A gap or a pixel outside the area is nodata itself, and nothing around it."""
    sources = made[1]
    corners = [(LEFT + 30, TOP - 40), (LEFT + 900, TOP - 500), (LEFT + 400, TOP - 900)]
    area = Geometry(Polygon(corners), UTM)
    maps = []
    for tile in (256, 48):
        grid = replace(grid_of(tile=tile), aoi=area)
        plan = plan_predict(sources, model, grid=grid)
        maps.append(whole(plan)[0])
    same(maps[1], maps[0])
    _, _, valid = expected(plan)
    np.testing.assert_array_equal(maps[0]["label"] != plan.legend.nodata, valid)
    assert 0 < valid.mean() < 0.5


def test_patches_without_a_pixel_are_not_run_and_batches_are_full(made, model, monkeypatch):
    """Batches go across rows of patches and reads; only the last of a tile is smaller."""
    monkeypatch.setattr(tiled, "BYTES", 1)
    tiling = Tiling(16, 16, "mean", how=Execution(batch=7))
    plan = plan_predict(made[1], model, grid=grid_of(tile=256), tiling=tiling)
    task.compute(plan, 0, 0)
    valid = expected(replace(plan))[2]
    starts = [(y, x) for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 16)]
    asked = sum(valid[y : y + 16, x : x + 16].any() for y, x in starts)
    assert 14 < asked < len(starts)
    assert sum(plan.predictor.batches) == asked
    assert set(plan.predictor.batches[:-1]) == {7}


@pytest.mark.parametrize("lead", [16, 24])
def test_exact_maps_are_the_whole_raster(made, lead):
    """Cut by the margin or more, answers are those of the whole mirrored raster."""
    folder, sources = made
    seen = Inputs(layers(sources), grid_of()).inputs
    path = models.save(
        network(seen, patch=64, stride=32, margin=5, output_stride=8), folder / f"exact{lead}"
    ).path
    tiling = Tiling(64, 64 - 2 * lead, exact=True)
    plan = plan_predict(sources, path, proba=True, tiling=tiling)
    found, _ = whole(plan)
    raster = plan.inputs.read(Window(0, 0, HEIGHT, WIDTH))
    border = [(8, 8)] * 2
    wide = {
        name: np.pad(values, [(0, 0)] * (values.ndim - 2) + border, mode="reflect")
        for name, values in raster.items()
    }
    valid = observed(plan.spec.inputs, wide)
    proba = plan.predictor.predict(wide, valid)[0, :, 8:-8, 8:-8]
    valid = valid[0, 8:-8, 8:-8]
    ranked = np.sort(proba, axis=0)
    clear = valid & (ranked[-1] - ranked[-2] > 1e-4)
    codes = np.array(plan.legend.codes)
    np.testing.assert_array_equal(found["label"][clear], codes[proba.argmax(axis=0)][clear])
    step = found["probability_40_crop"][valid].astype(float)
    assert np.abs(step - 250 * proba[1][valid]).max() <= 0.5 + 250 * 1e-5
    with pytest.raises(InputError, match="is exact"):
        plan_predict(sources, path, tiling=Tiling(64, 63, exact=True))


# ------------------------------------------------------------------------------------- the plan


def test_lattice_and_execution_are_a_maps_identity(made, model):
    sources = made[1]
    plan = plan_predict(sources, model)
    assert (plan.lattice.patch, plan.lattice.stride, plan.lattice.window) == (32, 20, "hann")
    others = [
        Tiling(patch=64),
        Tiling(stride=8),
        Tiling(window="mean"),
        *(
            Tiling(how=Execution(**{name: value}))
            for name, value in {
                "batch": 3,
                "threads": 1,
                "precision": "bfloat16",
                "compile": True,
            }.items()
        ),
    ]
    ids = {plan_predict(sources, model, tiling=other).run_id for other in others}
    assert len(ids | {plan.run_id}) == len(others) + 1
    on_gpu = plan_predict(sources, model, tiling=Tiling(how=Execution(device="cuda")))
    assert on_gpu.run_id == plan.run_id
    again = type(on_gpu).from_json(on_gpu.to_json(), lambda name: on_gpu.files()[name])
    assert again == on_gpu
    assert again.how.device == "cuda"


def test_networks_alone_have_lattices(made):
    folder, sources = made
    seen = Inputs(layers(sources), grid_of()).inputs
    path = models.save(plain(seen), folder / "pixels").path
    assert plan_predict(sources, path).lattice is None
    with pytest.raises(InputError, match="it is for networks"):
        plan_predict(sources, path, tiling=Tiling(patch=64))


def test_answers_of_another_shape_are_refused(made, model, monkeypatch):
    plan = plan_predict(made[1], model)
    monkeypatch.setattr(plan.predictor, "weights", plan.predictor.weights[:2])
    with pytest.raises(InputError, match="expected float32"):
        task.compute(plan, 0, 0)


# ------------------------------------------------------------------------------------- the engine


@pytest.mark.slow
def test_any_workers_and_a_killed_one(made, model, tmp_path):
    """The map of two processes, one of which dies by SIGKILL, is that of this one."""
    plan = plan_predict(made[1], model, proba=True, grid=grid_of(tile=48))
    found = whole(plan)[0]
    output = tmp_path / "map.zarr"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        client.run(_register)
        _killing(client, output, plan)
    same({n: store.stored(output)[n].values for n in found}, found)
    facts = store.provenance(output)
    assert facts["lattice"] == {"patch": 32, "stride": 20, "window": "hann"}
    assert facts["execution"]["batch"] == 8


def _register():
    KINDS["plain-network"] = "plain_network"


def _killing(client, output, plan):
    """Run a plan; one worker is killed when some tiles are done."""
    victim = next(iter(client.run(os.getpid).values()))

    def done():
        try:
            return jobs.status(output).get("done", 0)
        except StoreError:
            return 0

    def kill():
        until(lambda: output.exists() or done() >= 2, seconds=60)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        jobs.run(plan, output, client=client, policy=Policy(worker_timeout=30))
    finally:
        killer.join()
