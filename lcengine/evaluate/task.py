"""What a worker does for an evaluation: the pairs of classes of one tile, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine import engine, jobs
from lcengine.evaluate import proba
from lcengine.evaluate.plan import AGREE, DIFFER, DISAGREEMENT, UNMAPPED, EvaluatePlan
from lcengine.kernels.confusion import count_pairs
from lcengine.legends import IGNORE
from lcengine.locate import Window
from lcengine.metrics import Accuracy

ACCURACY = "accuracy.json"
CONFUSION = "confusion.png"
RELIABILITY = "reliability.png"

COMPLETE = 0.99
"""Share of the mapped pixels from which a reference is not called partial: edges have no labels."""


def load(data: Mapping[str, Any], _file: jobs.File) -> EvaluatePlan:
    """A frozen plan from its JSON."""
    return EvaluatePlan.from_json(data)


def compute(plan: EvaluatePlan, number: int, _attempt: int) -> tuple[jobs.Arrays, engine.Receipt]:
    """A tile and its receipt: `counts` has [row, column, pixels] of every pair that occurs.

    `scores`, where the map has probabilities: [stored greatest one, pixels, pixels that are right].
    """
    tile = plan.grid.tile_at(number)
    window = Window(tile.y0, tile.x0, tile.height, tile.width)
    mapped, reference = (reader.indices(window) for reader in plan.readers)
    counted = plan.counted(window)
    if counted is not None:
        for indices in (mapped, reference):
            indices[~counted] = IGNORE
    classes = len(plan.legend.classes)
    counts = np.zeros((classes, classes + 1), np.int64)
    count_pairs(reference.ravel(), mapped.ravel(), counts)
    receipt: dict[str, Any] = {
        "tile": number,
        "pixels": tile.height * tile.width,
        "counts": [[*pair, int(counts[tuple(pair)])] for pair in np.argwhere(counts).tolist()],
        "mapped": int((mapped != IGNORE).sum()),
        "spent": {"bytes_read": mapped.nbytes + reference.nbytes},
    }
    if plan.confidence is not None:
        by_score = proba.tally(plan.confidence.best(window), mapped, reference)
        scores = np.flatnonzero(by_score[0])
        receipt["scores"] = [[int(score), *by_score[:, score].tolist()] for score in scores]
    disagreement = compare(reference, mapped)
    wrong = (disagreement == DIFFER) | (disagreement == UNMAPPED)
    expected = plan.legend.decode(np.where(wrong, reference, np.uint8(IGNORE)))
    return {"disagreement": disagreement, "expected": expected}, receipt


def compare(
    reference: npt.NDArray[np.uint8], mapped: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Codes of `DISAGREEMENT` (y, x) from training indices; nodata without a reference."""
    out = np.where(reference == mapped, np.uint8(AGREE), np.uint8(DIFFER))
    out[mapped == IGNORE] = UNMAPPED
    out[reference == IGNORE] = DISAGREEMENT.nodata
    return out


def finish(plan: EvaluatePlan, receipts: jobs.Receipts) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Measures from the counts of all tiles; as JSON in full, and as a picture of the matrix."""
    from lcengine.evaluate.picture import matrix, reliability  # noqa: PLC0415 (not for workers)

    classes = len(plan.legend.classes)
    counts = np.zeros((classes, classes + 1), np.int64)
    scores = np.zeros((2, proba.STEPS + 1), np.int64)
    mapped = 0
    for receipt in receipts():
        for row, col, pixels in receipt["counts"]:
            counts[row, col] += pixels
        for score, *pixels_and_right in receipt.get("scores", ()):
            scores[:, score] += pixels_and_right
        mapped += receipt["mapped"]
    accuracy = Accuracy.of(counts, plan.legend)
    labelled = accuracy.pixels / mapped if mapped else None
    said: dict[str, Any] = {
        "map": plan.mapped.path,
        "reference": plan.reference.path,
        "samples": None if plan.split is None else plan.split.path,
        "split": None if plan.split is None else plan.split.split,
        "mapped": mapped,
        "labelled": labelled,
        "partial": labelled is not None and labelled < COMPLETE,
        "left_out": list(plan.left_out),
    }
    found = accuracy.to_json()
    sidecars = {CONFUSION: matrix(accuracy)}
    if plan.proba:
        curve = proba.reliability(scores)
        found["reliability"] = curve.to_json()
        said["expected_calibration_error"] = found["reliability"]["expected_calibration_error"]
        sidecars[RELIABILITY] = reliability({"map": curve})
    sidecars[ACCURACY] = json.dumps({**said, **found}, indent=1).encode()
    short = {key: found[key] for key in ("pixels", "overall_accuracy", "kappa", "macro")}
    return {**said, **short, "legend": plan.legend.to_json()}, sidecars


def warm_up(_plan: EvaluatePlan) -> None:
    """Compile the kernel."""
    nothing = np.zeros(0, np.uint8)
    count_pairs(nothing, nothing, np.zeros((1, 2), np.int64))


KIND = jobs.Kind(load, compute, finish, warm_up)
