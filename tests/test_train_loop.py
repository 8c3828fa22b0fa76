"""The loop: it learns, it repeats itself bit by bit, whatever interrupts it."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import TinyOptions, digest, fit, store

from lcengine.errors import InputError
from lcengine.recipes.assess import assess
from lcengine.train import checkpoint
from lcengine.train.optimise import factor, parameter_groups
from lcengine.train.options import Schedule

STEPS = 18  # 3 epochs of 6
KILLED = """
import os, signal, sys
from pathlib import Path
from lcengine import samples
from tiny_network import fit

def hear(told):
    if told.step == 9:
        os.kill(os.getpid(), signal.SIGKILL)

fit(samples.open(sys.argv[1]), said={"folder": Path(sys.argv[2]), "hear": hear}, checkpoint=0)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return store(tmp_path_factory.mktemp("loop") / "s.zarr", 32)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A training without interruption: its predictor and folder."""
    folder = tmp_path_factory.mktemp("whole")
    return fit(world, said={"folder": folder}), folder


def rows(folder):
    with (folder / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class StopError(Exception):
    """What interrupts a training."""


def stopping(step, measured=False):
    def hear(told):
        if told.step == step and told.measured == measured:
            raise StopError

    return hear


def test_it_learns(world, whole):
    accuracy, _ = assess(whole[0], world, "val", threads=1)
    assert accuracy.overall > 0.8  # classes are a noise's width apart; by chance 0.5
    told = rows(whole[1])
    assert [int(row["epoch"]) for row in told] == [1, 2, 3]
    assert float(told[-1]["loss"]) < float(told[0]["loss"])
    assert {"checkpoint.pt", "curves.png", "log.csv"} == {p.name for p in whole[1].iterdir()}


def test_measures_are_of_the_kept_weights_and_of_global_counts(world, whole):
    predictor = whole[0]
    kept = predictor.spec.training["kept"]
    accuracy, _ = assess(predictor, world, "val", threads=1)
    assert kept["val_f1"] == accuracy.macro["f1"]
    assert kept["val_iou"] == accuracy.macro["iou"]
    assert kept["val_f1"] == max(float(row["val_f1"]) for row in rows(whole[1]))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(world, whole):
    before = torch.get_rng_state(), torch.get_num_threads()
    assert digest(fit(world)) == digest(whole[0])
    assert digest(fit(world, said={"seed": 4})) != digest(whole[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("step", "measured", "minutes"),
    [(9, False, 0), (9, False, 10), (12, True, 10), (STEPS, True, 0)],
    ids=["within", "since the epoch began", "at an epoch's end", "at the end"],
)
def test_what_was_interrupted_ends_with_the_same_bits(
    world, whole, tmp_path, step, measured, minutes
):
    said = {"folder": tmp_path, "hear": stopping(step, measured)}
    with pytest.raises(StopError):
        fit(world, said=said, checkpoint=minutes)
    again = fit(world, said={"folder": tmp_path}, checkpoint=minutes)
    assert digest(again) == digest(whole[0])
    assert rows(tmp_path) == rows(whole[1])


def test_a_finished_training_is_read_and_not_repeated(world, whole, tmp_path):
    fit(world, said={"folder": tmp_path})
    heard = []
    again = fit(world, said={"folder": tmp_path, "hear": heard.append})
    assert not heard
    assert digest(again) == digest(whole[0])


@pytest.mark.slow
def test_a_killed_process_is_resumed_with_the_same_bits(world, whole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, world.path, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL
    found, _ = checkpoint.load(tmp_path, _identity(tmp_path))
    assert (found.epoch, found.batch) == (1, 2)  # of 6 steps each; the ninth was not kept
    steps = []
    said = {"folder": tmp_path, "hear": lambda told: steps.append(told.step)}
    again = fit(world, said=said, checkpoint=0)
    assert min(steps) == 9
    assert digest(again) == digest(whole[0])
    assert rows(tmp_path) == rows(whole[1])


def _identity(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["identity"]


def test_the_checkpoint_of_another_training_is_refused(world, tmp_path):
    with pytest.raises(StopError):
        fit(world, said={"folder": tmp_path, "hear": stopping(2)}, checkpoint=0)
    with pytest.raises(InputError, match=r"of another training.*--restart"):
        fit(world, said={"folder": tmp_path}, clip=1.0)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"is no checkpoint.*--restart"):
        fit(world, said={"folder": tmp_path})


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_checkpoint_cannot_execute_code(world, tmp_path):
    target = tmp_path / "executed"
    for content in (pickle.dumps(Bomb(target), protocol=2), None):
        if content is None:
            torch.save({"place": Bomb(target)}, tmp_path / "checkpoint.pt")
        else:
            (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(InputError, match="is no checkpoint"):
            fit(world, said={"folder": tmp_path})
    assert not target.exists()


def test_training_ends_where_nothing_gets_better(world):
    # A learning rate too small to change any answer: no epoch is better than the first.
    found = fit(world, epochs=9, learning_rate={"rest": 1e-12}, patience=2, schedule="constant",
                options=TinyOptions(norm=False))  # fmt: skip
    assert found.spec.training["epochs"] == 3
    assert found.spec.training["kept"]["epoch"] == 1


@pytest.mark.parametrize(("keep", "best"), [("loss", min), ("iou", max), ("last", None)])
def test_what_is_kept_is_chosen(world, tmp_path, keep, best):
    found = fit(world, said={"folder": tmp_path}, keep=keep, learning_rate={"rest": 0.3})
    told = rows(tmp_path)
    kept = found.spec.training["kept"]
    if best is None:
        assert kept["epoch"] == 3
    else:
        assert kept[f"val_{keep}"] == best(float(row[f"val_{keep}"]) for row in told)


def test_steps_are_a_budget(world, tmp_path):
    found = fit(world, said={"folder": tmp_path}, steps=8)
    assert [int(row["step"]) for row in rows(tmp_path)] == [6, 8]
    assert found.spec.training["epochs"] == 2


def test_a_loss_that_is_no_number_is_one_line(world):
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+; give a lower"):
        fit(world, optimizer="sgd", learning_rate={"rest": 1e30}, schedule="constant")


def test_gradients_are_clipped(world):
    plain = fit(world, steps=1, optimizer="sgd", schedule="constant", weight_decay=0)
    clipped = fit(world, steps=1, optimizer="sgd", schedule="constant", weight_decay=0, clip=1e-9)
    start = fit(world, steps=1, optimizer="sgd", schedule="constant", weight_decay=0, clip=1e-30)
    name = "network.1.weight"
    values = [p.state()[0][name] for p in (plain, clipped, start)]
    assert np.abs(values[0] - values[2]).max() > 1e-4
    assert np.abs(values[1] - values[2]).max() < 1e-9


def test_bfloat16_learns_too(world, whole):
    found = fit(world, precision="bfloat16")
    accuracy, _ = assess(found, world, "val", threads=1)
    assert accuracy.overall > 0.75
    assert digest(found) != digest(whole[0])
    assert all(v.dtype != np.float16 for v in found.state()[0].values())


def test_tensorboard_hears_every_step_once(world, tmp_path):
    with pytest.raises(StopError):
        fit(world, said={"folder": tmp_path, "hear": stopping(9)}, checkpoint=0, tensorboard=True)
    fit(world, said={"folder": tmp_path}, checkpoint=0, tensorboard=True)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


# --------------------------------------------------------------------------------- learning rates


def module():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "encoder": torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)),
            "encoder2": torch.nn.Conv2d(2, 2, 1),
            "head": torch.nn.Conv2d(2, 3, 1),
        }
    )


def test_layers_have_their_learning_rates_and_scales_do_not_decay():
    schedule = Schedule(learning_rate={"head": 1e-2, "rest": 1e-3, "encoder": 1e-4, "encoder.1": 1})
    made = module()
    found = {}
    for group in parameter_groups(made, schedule, "head."):
        for parameter in group["params"]:
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    told = {name: found[id(parameter)] for name, parameter in made.named_parameters()}
    assert told == {
        "encoder.0.weight": (1e-4, 1e-2),
        "encoder.0.bias": (1e-4, 0),
        "encoder.1.weight": (1, 0),
        "encoder.1.bias": (1, 0),
        "encoder2.weight": (1e-3, 1e-2),
        "encoder2.bias": (1e-3, 0),
        "head.weight": (1e-2, 1e-2),
        "head.bias": (1e-2, 0),
    }


@pytest.mark.parametrize("rates", [{"encoder": 1e-3}, {"rest": 1e-3, "decoder": 1e-3}])
def test_layers_that_are_not_there_or_left_out_are_refused(rates):
    with pytest.raises(InputError, match=r"learning_rate has .*encoder, encoder2, head"):
        parameter_groups(module(), Schedule(learning_rate=rates), "head.")


@pytest.mark.parametrize("name", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_learning_rate_rises_once_and_falls(name, steps):
    rise = {} if name == "one-cycle" else {"warmup": 0.1}
    at = factor(Schedule(schedule=name, **rise), steps)
    values = np.array([at(step) for step in range(steps)])
    assert (values > 0).all()
    assert values.max() <= 1
    top = int(values.argmax())
    assert (np.diff(values[: top + 1]) >= 0).all()
    assert (np.diff(values[top:]) <= 0).all()
    if steps == 100:
        assert values.max() > 0.99
        assert values[0] < 0.2
        assert values[-1] == 1 if name == "constant" else values[-1] < 0.01
