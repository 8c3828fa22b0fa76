"""Networks of torch: batches, memory, precision, and maps that are the same for any tiles."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from killed import killed  # noqa: E402
from made_products import bands, publish  # noqa: E402
from plain_model import LEGEND  # noqa: E402
from torch import nn  # noqa: E402

from lcengine import models, store  # noqa: E402
from lcengine.cluster.target import parse  # noqa: E402
from lcengine.errors import InputError  # noqa: E402
from lcengine.grid import Grid  # noqa: E402
from lcengine.inputs import Input, Inputs, layers, observed  # noqa: E402
from lcengine.locate import Window  # noqa: E402
from lcengine.models.nn import encoders  # noqa: E402
from lcengine.models.nn.encoders import EncoderUNetOptions  # noqa: E402
from lcengine.models.nn.predictor import NetworkPredictor  # noqa: E402
from lcengine.models.nn.run import ahead  # noqa: E402
from lcengine.models.nn.unet import ARCHITECTURE, UNetOptions  # noqa: E402
from lcengine.models.predictor import Execution  # noqa: E402
from lcengine.models.spec import ModelSpec  # noqa: E402
from lcengine.predict import task  # noqa: E402
from lcengine.predict.lattice import Tiling  # noqa: E402
from lcengine.predict.plan import plan_predict  # noqa: E402

BANDS = Input("s2", ("red", "nir"), "int16", -32768, scale=1e-4, units="1")
OPTIONS = UNetOptions(depth=2, channels=4)
MEANS, GAINS = np.full(2, 4000, np.float32), np.full(2, 1 / 2500, np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unet(patch=32, stride=16, seed=0, inputs=(BANDS,), **more):
    """A U-Net with weights and statistics of batches at random."""
    torch.manual_seed(seed)
    module = ARCHITECTURE.build(OPTIONS, 2, len(LEGEND.classes))
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 2, 16, 16))
    spec = ModelSpec(
        "unet",
        tuple(inputs),
        LEGEND,
        10.0,
        patch,
        stride,
        margin=ARCHITECTURE.margin(OPTIONS),
        output_stride=ARCHITECTURE.output_stride(OPTIONS),
        options={**OPTIONS.model_dump(mode="json"), "activation": "softmax"},
        **more,
    )
    return NetworkPredictor(spec, module, MEANS, GAINS)


def unet_with(module):
    found = unet()
    found.module = module.eval()
    return found


def patches(count, edge=32, seed=0):
    """(inputs, valid) with gaps."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9000, (count, 2, edge, edge)).astype(np.int16)
    values[rng.random(values.shape) < 0.1] = -32768
    return {"s2": values}, observed([BANDS], {"s2": values})


def cut(given, size):
    inputs, valid = given
    for start in range(0, len(valid), size):
        part = slice(start, start + size)
        yield {name: values[part] for name, values in inputs.items()}, valid[part]


HOW = Execution(batch=4, threads=1, device="cpu")


def test_it_is_the_modules_answer():
    """Normalised, missing numbers 0, softmax, 0 where nothing is observed."""
    model, given = unet(), patches(6)
    found = np.concatenate(list(model.run(cut(given, 4), HOW)))
    values = given[0]["s2"]
    image = np.where(values == -32768, 0, (values - MEANS[0]) * GAINS[0]).astype(np.float32)
    with torch.no_grad():
        logits = model.module(torch.from_numpy(image)).double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = np.where(given[1][:, None], powers / powers.sum(axis=1, keepdims=True), 0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_any_place_of_any_batch_has_the_same_bits():
    model, given = unet(), patches(7)
    first = np.concatenate(list(model.run(cut(given, 4), HOW)))
    for size in (1, 3):
        again = np.concatenate(list(model.run(cut(given, size), HOW)))
        np.testing.assert_array_equal(again, first)


def test_a_folder_that_asks_for_a_huge_network_takes_no_memory(tmp_path):
    """Its weights would be 100 GB; its file has a few kB."""
    path = Path(models.save(unet(), tmp_path / "unet").path) / "model.json"
    item = json.loads(path.read_text())
    told = item["properties"]["lcengine:spec"]
    told["options"] |= {"depth": 6, "channels": 256}
    told["output_stride"] = 64
    path.write_text(json.dumps(item))
    with pytest.raises(InputError, match="copy it again"):
        models.load(path.parent)


def test_a_models_own_weights_stay_as_they_are():
    """Also in another precision: what is saved afterwards is what was trained."""
    model, given = unet(), patches(4)
    before = {name: values.copy() for name, values in model.state()[0].items()}
    threads = torch.get_num_threads()
    exact = next(model.run(cut(given, 4), HOW))
    half = next(model.run(cut(given, 4), Execution(4, 1, "bfloat16", device="cpu")))
    assert torch.get_num_threads() == threads
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1
    np.testing.assert_array_equal(next(model.run(cut(given, 4), HOW)), exact)
    for name, values in model.state()[0].items():
        np.testing.assert_array_equal(values, before[name])
        assert values.dtype == before[name].dtype


class Greedy(nn.Module):
    """Takes `most` patches at a time."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner = inner
        self.most = most
        self.sizes = []

    def forward(self, image):
        self.sizes.append(len(image))
        if len(image) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(image)

    def __deepcopy__(self, memo):
        return self


def test_where_memory_is_short_batches_are_halved(caplog):
    model, given = unet(), patches(11)
    how = Execution(batch=7, threads=1, device="cpu")
    expected = np.concatenate(list(model.run(cut(given, 7), how)))
    greedy = Greedy(model.module, 2)
    short = unet_with(greedy)
    with caplog.at_level(logging.WARNING):
        found = np.concatenate(list(short.run(cut(given, 7), how)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # 7, filled up, then 4, then 2: 4 parts of the first batch, 2 of the second, all of one shape.
    assert greedy.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert "batches of 2 from now on" in caplog.text


def test_a_patch_too_large_is_said():
    model = unet_with(Greedy(unet().module, 0))
    with pytest.raises(InputError, match="smaller --patch"):
        next(model.run(cut(patches(3), 3), HOW))


def test_a_gpu_that_is_not_there_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="finds no GPU"):
        next(unet().run(cut(patches(1), 1), Execution(device="cuda")))


def test_batches_are_made_ahead_and_no_thread_is_left():
    made = []
    found = ahead(itertools.count(), lambda n: made.append(n) or n)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    found.close()
    assert 3 <= len(made) <= 6
    assert not [t for t in threading.enumerate() if t.name.startswith("lcengine-batches")]
    assert list(ahead([], str)) == []


def test_what_fails_ahead_is_raised():
    def broken():
        yield from cut(patches(4), 4)
        raise InputError("no more")

    found = unet().run(broken(), HOW)
    next(found)
    with pytest.raises(InputError, match="no more"):
        next(found)
    assert not [t for t in threading.enumerate() if t.name.startswith("lcengine-batches")]


@pytest.mark.slow
def test_compiled():
    given = patches(6)
    model = unet_with(nn.Conv2d(2, 3, 3, padding=1))  # compiling a U-Net takes a minute
    expected = np.concatenate(list(model.run(cut(given, 4), HOW)))
    how = Execution(4, 1, compile=True, device="cpu")
    found = np.concatenate(list(model.run(cut(given, 4), how)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_said():
    from torch._inductor import config

    model = unet_with(nn.Conv2d(2, 3, 3, padding=1))
    lacking = config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    with lacking, pytest.raises(InputError, match=r"compiler.* leave --compile out") as caught:
        next(model.run(cut(patches(2), 2), Execution(2, 1, compile=True, device="cpu")))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------- maps

LEFT, TOP, UTM = 600_000, 5_600_000, "EPSG:32631"
SHAPE = 90, 110


def grid_of(tile):
    height, width = SHAPE
    return Grid.from_bounds(LEFT, TOP - height * 10, LEFT + width * 10, TOP, UTM, 10.0, tile=tile)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A product with gaps, and a U-Net of it."""
    folder = tmp_path_factory.mktemp("networks")
    optical = bands(("red", "nir"), SHAPE)
    for values in optical.values():
        values[20:60, 50:90] = -32768
    source = publish(folder / "s2.zarr", grid_of(64), optical)
    seen = Inputs(layers({"s2": source}), grid_of(64)).inputs
    return source, models.save(unet(inputs=seen), folder / "unet").path


def whole(plan):
    out = {v.name: np.full(SHAPE, v.missing, v.dtype) for v in plan.variables()}
    for number in plan.tiles:
        for name, values in task.compute(plan, number, 0)[0].items():
            out[name][plan.grid.tile_at(number).slices] = values
    return out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_any_tiles(made, precision):
    how = Execution(batch=3, threads=1, precision=precision, device="cpu")
    maps = [
        whole(
            plan_predict(*made, grid=grid_of(tile), proba=True, tiling=Tiling(stride=12, how=how))
        )
        for tile in (128, 48, 32)
    ]
    for other in maps[1:]:
        for name, values in maps[0].items():
            np.testing.assert_array_equal(other[name], values)
    assert len(np.unique(maps[0]["label"])) > 2


@pytest.fixture(scope="module")
def encoder(made):
    """A U-Net with a residual encoder, and answers that are far from all alike."""
    options = EncoderUNetOptions(encoder="resnet18", depth=3, decoder=(32, 16, 8))
    torch.manual_seed(0)
    module = encoders.build(options, 2, len(LEGEND.classes)).train()
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(4, 2, 64, 64))
        module.segmentation_head[0].weight *= 8
    spec = replace(
        models.spec_of(made[1]),
        kind="encoder-unet",
        margin=71,  # measuring it takes longer than the test, which shows that it is enough
        output_stride=8,
        options={**options.model_dump(mode="json"), "activation": "softmax"},
    )
    predictor = NetworkPredictor(spec, module, MEANS, GAINS)
    return models.save(predictor, Path(made[1]).with_name("encoder")).path


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_any_tiles_of_an_encoder(made, encoder, precision):
    """Two threads: which of them has a patch's rows depends on its place in the batch."""
    how = Execution(batch=3, threads=2, precision=precision, device="cpu")
    asked = {"proba": True, "tiling": Tiling(64, 40, how=how)}
    maps = [whole(plan_predict(made[0], encoder, grid=grid_of(t), **asked)) for t in (128, 48)]
    for name, values in maps[0].items():
        np.testing.assert_array_equal(maps[1][name], values)


def test_exact_maps_are_the_whole_raster(made):
    plan = exact_plan(made[0], made[1], 64, 16)
    assert_exact(plan, 24)


@pytest.mark.slow
def test_exact_maps_of_an_encoder_are_the_whole_raster(made, encoder):
    assert_exact(exact_plan(made[0], encoder, 192, 48), 72)


def exact_plan(source, path, patch, stride):
    how = Execution(batch=3, threads=1, device="cpu")
    tiling = Tiling(patch, stride, exact=True, how=how)
    return plan_predict(source, path, proba=True, grid=grid_of(48), tiling=tiling)


def assert_exact(plan, border):
    """METHODS.md: within 1e-5, classes equal where the top two differ by more than 1e-4."""
    found = whole(plan)
    assert border >= plan.spec.margin
    raster = plan.inputs.read(Window(0, 0, *SHAPE))["s2"]
    wide = np.pad(raster, [(0, 0)] * 2 + [(border, border)] * 2, mode="reflect")
    valid = observed(plan.spec.inputs, {"s2": wide})
    inner = np.s_[..., border:-border, border:-border]
    proba = plan.predictor.predict({"s2": wide}, valid)[0][inner]
    valid = valid[0][inner]
    ranked = np.sort(proba, axis=0)
    clear = valid & (ranked[-1] - ranked[-2] > 1e-4)
    assert clear.mean() > 0.5
    assert len(np.unique(proba.argmax(axis=0)[clear])) > 1
    codes = np.array(plan.legend.codes)
    np.testing.assert_array_equal(found["label"][clear], codes[proba.argmax(axis=0)][clear])
    shares = found["probability_10_tree"][valid]
    assert np.abs(shares - 250 * proba[0][valid].astype(float)).max() <= 0.5 + 250e-5


def test_one_missing_pixel_is_nodata_alone(made):
    source, path = made
    plan = plan_predict(source, path, grid=grid_of(128))
    raster = plan.inputs.read(Window(0, 0, *SHAPE))
    valid = observed(plan.spec.inputs, raster)[0]
    label = whole(plan)["label"]
    np.testing.assert_array_equal(label != LEGEND.nodata, valid)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_spoils_no_other(missing):
    """In a float image: the pixel is nodata, others see 0 there after normalisation."""
    floats = Input("s2", ("red", "nir"), "float32", None)
    model = unet(inputs=(floats,))
    values = np.random.default_rng(0).normal(4000, 2000, (1, 2, 32, 32)).astype(np.float32)
    mean, values[0, 0, 10, 10] = values.copy(), missing
    mean[0, 0, 10, 10] = MEANS[0]
    valid = observed([floats], {"s2": values})
    found, expected = (
        next(model.run([({"s2": given}, valid)], HOW))[0] for given in (values, mean)
    )
    assert np.argwhere(~valid).tolist() == [[0, 10, 10]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found.sum(axis=0), valid[0], atol=1e-5)


@pytest.mark.slow
def test_the_command(made, run, tmp_path):
    """Options of networks are part of the request; other devices and tiles go on with the map."""
    source, path = made
    output = tmp_path / "map.zarr"
    command = ["predict", source, "--model", path, "-o", output, "--json", "--cluster"]
    command += ["local:workers=1,threads=2", "--patch", "40", "--window", "mean", "--batch", "3"]
    code, _, said = run(*command)
    assert code == 0, said
    assert "smaller than twice the 23" in said
    how = Execution(batch=3)
    plan = plan_predict(source, path, tiling=Tiling(patch=40, window="mean", how=how))
    np.testing.assert_array_equal(store.stored(output)["label"], whole(plan)["label"])
    assert store.provenance(output)["lattice"] == {"patch": 40, "stride": 20, "window": "mean"}
    assert run(*command, "--device", "cpu")[0] == 0
    code, _, said = run(*command, "--threads", "1")
    assert (code, "different request" in said, "threads" in said) == (7, True, True)


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(made, run, tmp_path):
    """SIGKILL of the driver and its workers halfway; the same command ends with the same bytes."""
    source, path = made
    output = tmp_path / "map.zarr"
    command = ["predict", source, "--model", path, "-o", output, "--tile", "16", "--proba"]
    command += ["--patch", "64", "--stride", "6", "--threads", "1", "--device", "cpu"]
    command = [*map(str, command), "--cluster", "local:workers=1,threads=2"]
    before = killed(command, output)
    assert 4 <= before["done"] < before["tiles"] == 42
    code, _, said = run(*command)
    assert code == 0, said
    tiling = Tiling(64, 6, how=Execution(threads=1, device="cpu"))
    expected = whole(plan_predict(*made, grid=grid_of(128), proba=True, tiling=tiling))
    for name, values in expected.items():
        np.testing.assert_array_equal(store.stored(output)[name], values)


def test_the_commands_refusals(made, run, tmp_path):
    source, path = made
    command = ["predict", source, "--model", path, "-o", tmp_path / "map.zarr"]
    for more, told in (
        (["--exact", "--stride", "15"], "--patch"),
        (["--exact", "--window", "hann"], "leave one out"),
        (["--stride", "33"], "stride of 1 to 32"),
        (["--precision", "half"], "float32, bfloat16"),
        (["--batch", "0"], "expected 1 or more"),
    ):
        code, _, said = run(*command, *more)
        assert (code, told in said) == (2, True), said
        assert "Traceback" not in said


@pytest.mark.slow
def test_tiles_for_a_gpu_go_to_workers_that_offer_one(made, run, tmp_path):
    """`local` then offers this machine's; where PyTorch finds none there, the error says so, and
    another device goes on with the work."""
    if torch.cuda.is_available():
        pytest.skip("there is one")
    source, path = made
    command = ["predict", source, "--model", path, "-o", tmp_path / "map.zarr", "--retries", "0"]
    code, _, said = run(*command, "--device", "cuda")
    assert code != 0
    assert "PyTorch finds no GPU here" in said
    command += ["--cluster", "local:workers=1,threads=1"]
    code, _, said = run("retry", tmp_path / "map.zarr", *command[-2:], "--worker-timeout", "1")
    assert (code, "no worker offered GPU=1" in said) == (8, True), said
    code, _, said = run(*command, "--device", "cpu")
    assert code == 0, said
    assert store.provenance(tmp_path / "map.zarr")["device"] == "cpu"


def test_local_clusters_with_gpus():
    one, four = parse("local:gpus=1,threads=3"), parse("local:gpus=4,threads=2")
    assert one.cluster == "distributed.LocalCluster"
    assert one.arguments["resources"] == {"GPU": 3}
    assert (four.cluster, four.arguments["n_workers"]) == ("dask_cuda.LocalCUDACluster", 4)
    assert "resources" not in parse("local").arguments
    with pytest.raises(InputError, match="2 gpus to 3 workers"):
        parse("local:gpus=2,workers=3")
