"""Two processes train one network: what one does, resumed, given up, killed."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from tiny_network import TinyOptions, digest, fit, store

from lcengine.errors import InputError, RunError
from lcengine.recipes.assess import assess
from lcengine.train import checkpoint

pytestmark = pytest.mark.slow
HOW = {"devices": 2, "accelerator": "cpu", "epochs": 2, "checkpoint": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return store(
        tmp_path_factory.mktemp("processes") / "s.zarr", 36
    )  # the last batch has one validation patch


class StopError(Exception):
    """What interrupts a training."""


def test_two_processes_train_what_one_does(world, tmp_path):
    # Of batches of 8, each process has 4; without batch statistics and dropout all is shared.
    how = {"options": TinyOptions(norm=False, dropout=0), "batch": 8, "epochs": 3}
    objective = {"loss": {"cross-entropy": 1, "dice": 1}}
    heard = []
    said = {"folder": tmp_path, "hear": heard.append, "class_weight": "balanced"}
    both = fit(world, said=said, objective=objective, **{**HOW, **how})
    one = fit(world, said={"class_weight": "balanced"}, objective=objective, **how)
    for name, values in one.state()[0].items():
        np.testing.assert_allclose(both.state()[0][name], values, rtol=2e-4, atol=2e-5)
    assert heard[-1].step == 9
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4


def test_what_was_given_up_goes_on_with_the_same_bits(world, tmp_path):
    """By what hears it; with batch statistics, of which the first process's are kept."""

    def hear(told):
        if told.step == 7:
            raise StopError

    whole = fit(world, **HOW)
    with pytest.raises(StopError):
        fit(world, said={"folder": tmp_path, "hear": hear}, **HOW)
    assert (tmp_path / checkpoint.CHECKPOINT).is_file()
    heard = []
    again = fit(world, said={"folder": tmp_path, "hear": heard.append}, **HOW)
    assert heard[0].step > 7
    assert digest(again) == digest(whole)
    assert again.spec.training["kept"] == whole.spec.training["kept"]
    accuracy, _ = assess(again, world, "val", threads=1)
    assert again.spec.training["kept"]["val_f1"] == accuracy.macro["f1"]


def test_what_goes_wrong_in_a_process_is_one_line(world, tmp_path):
    with pytest.raises(InputError, match="the loss is"):
        fit(world, **HOW, optimizer="sgd", learning_rate={"rest": 1e30})

    def hear(told):
        if told.step == 2:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(RunError, match=r"a process of the training ended \(.*SIGKILL"):
        fit(world, said={"folder": tmp_path, "hear": hear}, **{**HOW, "epochs": 200})
    assert not multiprocessing.active_children()
