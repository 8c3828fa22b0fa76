"""Gradient boosting by XGBoost (Chen & Guestrin 2016, KDD), trained on more pixels than fit.

Batches of pixels are binned by XGBoost and kept on disk. What grows with the pixels in memory are
their classes, weights, logits and gradients, whatever the features (`BESIDE`, `PER_CLASS`): as many
pixels are drawn as the memory has room for. Finding 256 bins takes some 3 MB per feature more,
whatever the pixels, measured with version 3.2. Predicting needs no XGBoost:
its trees are kept as arrays, beside its own file (`model.ubj`, for others). Probabilities are
within 1e-6 of its own, which it sums in float32.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from pydantic import Field

from lcengine.errors import InputError
from lcengine.models.boosting import TRAINED, Boosted
from lcengine.models.pixels import PixelOptions, pixel_kind
from lcengine.models.predictor import Files, State, Training
from lcengine.models.stream import Pixels, PixelStream
from lcengine.models.trees import Packing, Tree

FILE = "model.ubj"
BESIDE: Final = 24
"""Bytes of memory that XGBoost keeps of every training pixel,"""
PER_CLASS: Final = 16
"""and more of them for each class: 88 in all with four, as measured."""


class XGBoostOptions(PixelOptions):
    """How trees are boosted, see XGBoost's parameters.

    `rounds`: trees per class at most. `patience`: rounds without a lower loss on the validation
    split after which it ends; without such a split all rounds are done. `min_weight`: sum of
    hessians in a leaf at least. `rows`, `columns`: shares of pixels and features that a tree sees.
    `l2`: regularisation. `bins`: of a feature.
    """

    rounds: int = Field(200, ge=1)
    learning_rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    max_depth: int = Field(6, ge=1)
    min_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    rows: float = Field(1.0, gt=0, le=1)
    columns: float = Field(1.0, gt=0, le=1)
    l2: float = Field(1.0, ge=0, allow_inf_nan=False)
    bins: int = Field(256, ge=2)
    patience: int = Field(20, ge=1)


def of(booster: Any) -> Boosted:
    """A Booster of the objective `multi:softprob`."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    told = learner["learner_model_param"]
    classes = int(told["num_class"])
    if learner["objective"]["name"] != "multi:softprob":
        raise InputError(
            f"the booster's objective is {learner['objective']['name']}, expected multi:softprob"
        )
    model = learner["gradient_booster"]["model"]
    packing = Packing(int(told["num_feature"]))
    for tree in model["trees"]:
        packing.add(_tree(tree))
    # One number for all classes, or since version 3.1 a list of them.
    base = np.array(json.loads(told["base_score"]), np.float64)
    return Boosted(
        packing.done(),
        np.array(model["tree_info"], np.int64),
        np.array(np.broadcast_to(base, classes)),
        {FILE: bytes(booster.save_raw("ubj"))},
    )


def fit(
    pixels: Iterable[Pixels],
    validation: Iterable[Pixels] | None,
    classes: int,
    options: XGBoostOptions,
    training: Training,
) -> Boosted:
    """Trees of batches of pixels, which are gone through again and again.

    The same seed, batches and threads give the same trees. Raises `InputError` without XGBoost.
    """
    library = _library()
    with tempfile.TemporaryDirectory(prefix="lcengine-xgboost-") as cache:
        settings = {"max_bin": options.bins, "nthread": training.threads}
        data = library.ExtMemQuantileDMatrix(_batches(library, pixels, f"{cache}/t"), **settings)
        stops: dict[str, Any] = {}
        if validation is not None:
            held = library.ExtMemQuantileDMatrix(
                _batches(library, validation, f"{cache}/v"), ref=data, **settings
            )
            stop = library.callback.EarlyStopping(rounds=options.patience, save_best=True)
            stops = {"evals": [(held, "val")], "verbose_eval": False, "callbacks": [stop]}
        booster = library.train(
            _parameters(classes, options, training), data, options.rounds, **stops
        )
        found = of(booster)
        del data  # closes its files before the folder goes
        stops.clear()
    return found


def _parameters(classes: int, options: XGBoostOptions, training: Training) -> dict[str, Any]:
    return {
        "objective": "multi:softprob",
        "eval_metric": "mlogloss",
        "num_class": classes,
        "tree_method": "hist",
        "eta": options.learning_rate,
        "max_depth": options.max_depth,
        "min_child_weight": options.min_weight,
        "subsample": options.rows,
        "colsample_bytree": options.columns,
        "lambda": options.l2,
        "max_bin": options.bins,
        "seed": training.seed,
        "nthread": training.threads,
        "verbosity": 0,
    }


def _batches(library: Any, pixels: Iterable[Pixels], cache: str) -> Any:
    """XGBoost's iterator over batches."""

    class Batches(library.DataIter):  # type: ignore[misc]  # its base is known at run time
        """Batches that XGBoost asks for one by one, and from the first again after `reset`."""

        def __init__(self) -> None:
            self._left: Iterator[Pixels] = iter(())
            super().__init__(cache_prefix=cache)

        def reset(self) -> None:
            self._left = (batch for batch in pixels if len(batch.y))

        def next(self, input_data: Callable[..., None]) -> bool:
            batch = next(self._left, None)
            if batch is None:
                return False
            input_data(data=batch.x, label=batch.y, weight=batch.weight)
            return True

    return Batches()


def _tree(told: dict[str, Any]) -> Tree:
    left = np.array(told["left_children"], np.int64)
    conditions = np.array(told["split_conditions"], np.float32)
    leaf = left < 0
    # `x < t` goes left: the largest float32 below t.
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    return Tree(
        left,
        np.array(told["right_children"], np.int64),
        np.array(told["split_indices"], np.int64),
        np.where(leaf, 0, below),
        np.array(told["sum_hessian"], np.float64),
        conditions.astype(np.float64)[:, None],
    )


def _library() -> Any:
    try:
        import xgboost  # noqa: PLC0415 (an extra; predicting needs none)
    except ImportError as error:
        raise InputError(
            f"training XGBoost needs the library ({error}); pip install 'lcengine[xgboost]'"
        ) from error
    return xgboost


def _fit_pixels(pixels: PixelStream, options: XGBoostOptions, training: Training) -> Boosted:
    classes = len(pixels.present)
    row = BESIDE + PER_CLASS * classes
    other = pixels.other("val")
    if other is None:
        return fit(pixels.draw(row), None, classes, options, training)
    held = other.draw(row / (1 - TRAINED))
    return fit(pixels.draw(row / TRAINED), held, classes, options, training)


def _restore(arrays: State, files: Files) -> Boosted:
    if not files.get(FILE, b"").startswith(b"{"):
        raise InputError(f"the model's {FILE} is absent or no UBJSON; copy the model again")
    return Boosted.restore(arrays, files)


KIND = pixel_kind("xgboost", XGBoostOptions, _fit_pixels, _restore)
