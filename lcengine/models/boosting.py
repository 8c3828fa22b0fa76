"""Gradient boosting over histograms, by scikit-learn, kept and predicted as arrays.

Friedman (2001), Annals of Statistics 29, as LightGBM does it (Ke et al. 2017, NeurIPS).
Probabilities are within 1e-6 of scikit-learn's `predict_proba`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lcengine.errors import InputError
from lcengine.models.pixels import PixelOptions, pixel_kind
from lcengine.models.predictor import Files, State, Training, array
from lcengine.models.stream import Pixels, PixelStream
from lcengine.models.trees import DOUBLE, FLOAT, PLACES, Packing, Tree, Trees

COPIES: Final = 3.5
"""Of the features: as they are, as float64, and binned."""
TRAINED: Final = 0.8
"""Share of the memory for training pixels, where others tell when to end."""


class BoostingOptions(PixelOptions):
    """How trees are boosted.

    `rounds`: trees per class at most. `patience`: rounds without a lower loss on the validation
    split after which it ends; without such a split all rounds are done. `min_leaf`: training pixels
    in a leaf at least. `l2`: regularisation.
    """

    rounds: int = Field(200, ge=1)
    learning_rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    max_leaves: int = Field(31, ge=2)
    max_depth: int | None = Field(None, ge=1)
    min_leaf: int = Field(20, ge=1)
    l2: float = Field(0.0, ge=0, allow_inf_nan=False)
    patience: int = Field(20, ge=1)


@dataclass(frozen=True, eq=False)
class Boosted:
    """An `Estimator` of trees whose leaves add up to the logits of classes.

    `group`: (tree,) int64, the class each tree is of. `base`: (class,) what its sum begins with.
    `files`: the same model as its own library reads it.
    """

    trees: Trees
    group: PLACES
    base: DOUBLE
    files: Files = field(default_factory=dict)

    def proba(self, features: FLOAT) -> FLOAT:
        """(class, pixel) of (feature, pixel)."""
        return self.trees.softmax(features, self.group, self.base)

    def state(self) -> tuple[State, Files]:
        """The trees, which class each is of, and the files."""
        return {**self.trees.state(), "group": self.group, "base": self.base}, self.files

    @classmethod
    def restore(cls, arrays: State, files: Files) -> Boosted:
        """Inverse of `state`; `InputError` for arrays that lead out of themselves."""
        trees = Trees.restore(arrays)
        group, base = array(arrays, "group", np.int64, 1), array(arrays, "base", np.float64, 1)
        known = ((group >= 0) & (group < len(base))).all()
        if len(group) != len(trees.starts) - 1 or trees.values.shape[1] != 1 or not known:
            raise InputError("the model's trees are of no classes; copy the model again")
        return cls(trees, group, base, files)

    @classmethod
    def of(cls, fitted: Any) -> Boosted:
        """A fitted HistGradientBoostingClassifier of scikit-learn, without categories."""
        packing = Packing(fitted.n_features_in_)
        for trees in fitted._predictors:
            for tree in trees:
                packing.add(_tree(tree.nodes))
        base = fitted._baseline_prediction.reshape(-1)
        if len(base) == 1:  # the logit of the second of two classes
            base = np.array([0.0, base[0]])
            group = np.ones(len(fitted._predictors), np.int64)
        else:
            group = np.tile(np.arange(len(base)), len(fitted._predictors))
        return cls(packing.done(), group, base.astype(np.float64))


def fit(
    pixels: Pixels, validation: Pixels | None, options: BoostingOptions, training: Training
) -> Boosted:
    """Trees of pixels whose classes 0 … K−1 all occur."""
    # Predicting needs no scikit-learn.
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    model = HistGradientBoostingClassifier(
        max_iter=options.rounds,
        learning_rate=options.learning_rate,
        max_leaf_nodes=options.max_leaves,
        max_depth=options.max_depth,
        min_samples_leaf=options.min_leaf,
        l2_regularization=options.l2,
        early_stopping=validation is not None,
        n_iter_no_change=options.patience,
        random_state=training.seed,
    )
    held = {}
    if validation is not None:
        held = {
            "X_val": validation.x,
            "y_val": validation.y,
            "sample_weight_val": validation.weight,
        }
    with threadpool_limits(training.threads):
        model.fit(pixels.x, pixels.y, sample_weight=pixels.weight, **held)
    return Boosted.of(model)


def _tree(nodes: npt.NDArray[Any]) -> Tree:
    leaf = nodes["is_leaf"] != 0
    return Tree(
        np.where(leaf, -1, nodes["left"].astype(np.int64)),
        np.where(leaf, -1, nodes["right"].astype(np.int64)),
        nodes["feature_idx"].astype(np.int64),
        np.where(leaf, 0, nodes["num_threshold"]),
        nodes["count"].astype(np.float64),
        nodes["value"][:, None],
    )


def _fit_pixels(pixels: PixelStream, options: BoostingOptions, training: Training) -> Boosted:
    # Bytes per class: logits, gradients, hessians, and what the loss keeps beside them.
    cost = {"copies": COPIES, "beside": 48.0 * len(pixels.present) + 32}
    other = pixels.other("val")
    if other is None:
        return fit(pixels.drawn(**cost), None, options, training)
    drawn = pixels.drawn(**{name: value / TRAINED for name, value in cost.items()})
    held = other.drawn(**{name: value / (1 - TRAINED) for name, value in cost.items()})
    return fit(drawn, held, options, training)


KIND = pixel_kind("boosting", BoostingOptions, _fit_pixels, Boosted.restore)
