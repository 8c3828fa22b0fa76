"""The pipelines of networks run as they are, on tiny data and for a few steps."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcengine.legends import legend
from lcengine.samples import SampleSpec

PIPELINES = Path(__file__).parents[1] / "pipelines"
TINY = ["training.epochs=1", "training.steps=2", "training.batch=2", "training.precision=float32"]


def script(name):
    found = importlib.util.spec_from_file_location(f"{name}_run", PIPELINES / name / "run.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_deepglobe(tmp_path):
    """Images of seven colours, with masks of the same."""
    rng = np.random.default_rng(0)
    globe = legend("deepglobe")
    folder = tmp_path / "globe" / "train"
    folder.mkdir(parents=True)
    colours = np.array([entry.rgb for entry in globe.entries], np.uint8)
    for number in range(12):
        codes = rng.integers(0, len(colours), (6, 6)).repeat(12, 0).repeat(12, 1)
        Image.fromarray(colours[codes]).save(folder / f"{number}_mask.png")
        noisy = np.clip(colours[codes] * 0.8 + rng.normal(20, 9, (72, 72, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number}_sat.jpg", quality=95)
    run = script("deepglobe")
    assert (run.PATCH, run.STRIDE) == (612, 306)
    found = run.run(
        tmp_path / "globe",
        tmp_path / "out",
        ("unet",),
        SampleSpec(36, stride=18, buffer=0),
        [*TINY, "model.patch=36", "model.stride=18", "model.channels=4", "model.depth=2"],
    )
    assert found["unet"].pixels > 0
    names = found["unet"].legend.names
    assert len(names) == 6
    assert "unknown" not in names
    told = json.loads((tmp_path / "out" / "unet" / "report.json").read_text())
    assert told["accuracy"]["test"]["pixels"] == found["unet"].pixels


@pytest.mark.slow
def test_planet(tmp_path):
    run = script("planet")
    settings = [*TINY, "samples.patch=52", "samples.stride=20", "model.stride=20"]
    settings += ["samples.buffer=0", "model.channels=8"]
    world = replace(run.WORLD, size=128)
    found = run.run(tmp_path, world=world, settings=settings)
    assert found.keys() == set(run.KINDS)
    for accuracy in found.values():
        assert accuracy.pixels > 0
        assert set(accuracy.legend.names) == {"crop", "other"}
