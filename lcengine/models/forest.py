"""Random forests: grown by scikit-learn, kept and predicted as arrays.

Breiman (2001), Machine Learning 45; extremely randomised trees: Geurts, Ernst & Wehenkel (2006),
Machine Learning 63. Probabilities are those of scikit-learn's `predict_proba` on one thread,
rounded to float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lcengine.models.pixels import PixelOptions, pixel_kind
from lcengine.models.predictor import Files, State, Training
from lcengine.models.stream import PixelStream
from lcengine.models.trees import FLOAT, Packing, Tree, Trees

GROWN: Final = 350
"""Bytes that a node of a growing tree takes: scikit-learn's arrays, doubled when they are full."""
PACKED: Final = 16
"""Bytes of a packed node, twice: when all trees are put together."""


Number = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]


class ForestOptions(PixelOptions):
    """How a forest grows.

    `splits`: best of every threshold over bootstrap samples (a random forest), or best of random
    thresholds over all samples (extra-trees). `min_leaf`: training pixels in a leaf at least.
    `max_features`: features that a split may choose from: a share, a number, or a rule.
    """

    trees: int = Field(200, ge=1)
    splits: Literal["best", "random"] = "best"
    max_depth: int | None = Field(None, ge=1)
    min_leaf: int = Field(1, ge=1)
    max_features: Literal["sqrt", "log2"] | Number | Share = "sqrt"


@dataclass(frozen=True, eq=False)
class Forest:
    """An `Estimator` of trees whose leaves hold shares of classes."""

    trees: Trees

    def proba(self, features: FLOAT) -> FLOAT:
        """(class, pixel) of (feature, pixel)."""
        return self.trees.votes(features)

    def state(self) -> tuple[State, Files]:
        """The trees."""
        return self.trees.state(), {}

    @classmethod
    def of(cls, fitted: Any) -> Forest:
        """A fitted RandomForestClassifier or ExtraTreesClassifier of scikit-learn."""
        packing = Packing(fitted.n_features_in_)
        for tree in fitted.estimators_:
            packing.add(_tree(tree.tree_))
        return cls(packing.done())


def fit(
    x: FLOAT,
    y: npt.NDArray[np.uint8],
    weight: FLOAT | None,
    options: ForestOptions,
    training: Training,
) -> Forest:
    """A forest of rows `x` (pixel, feature) of classes `y` 0 … K−1, all of which occur.

    The trees are those of one scikit-learn forest of that seed; they grow a few at a time and are
    packed, because scikit-learn's own take ten times the memory.
    """
    from sklearn.ensemble import (  # noqa: PLC0415 (predicting needs no scikit-learn)
        ExtraTreesClassifier,
        RandomForestClassifier,
    )

    make = RandomForestClassifier if options.splits == "best" else ExtraTreesClassifier
    forest = make(
        max_depth=options.max_depth,
        min_samples_leaf=options.min_leaf,
        max_features=options.max_features,
        random_state=training.seed,
        n_jobs=training.threads,
        warm_start=True,
    )
    if weight is not None and (weight == weight[0]).all():
        weight = (
            None  # scikit-learn draws by weights, which are other samples even if all are alike
        )
    packing = Packing(x.shape[1])
    for done in range(0, options.trees, training.threads):
        stop = min(done + training.threads, options.trees)
        forest.set_params(n_estimators=stop)
        if done:  # a warm start counts the trees that it has, and looks at none of them
            forest.estimators_ = [None] * done
        forest.fit(x, y, sample_weight=weight)
        for tree in forest.estimators_[done:]:
            packing.add(_tree(tree.tree_))
    return Forest(packing.done())


def beside(options: ForestOptions, threads: int) -> float:
    """Bytes that trees take per training pixel at most, beside the features.

    A tree has two nodes for every leaf; bootstrap samples hold 63 % of the pixels.
    """
    nodes = 2 * (0.64 if options.splits == "best" else 1.0) / options.min_leaf
    samples = 40 * threads  # their numbers, order, values of a feature and weights
    return nodes * (PACKED * options.trees + GROWN * threads) + samples


def _tree(tree: Any) -> Tree:
    return Tree(
        np.ascontiguousarray(tree.children_left, np.int64),
        np.ascontiguousarray(tree.children_right, np.int64),
        np.ascontiguousarray(tree.feature, np.int64),
        np.ascontiguousarray(tree.threshold, np.float64),
        np.ascontiguousarray(tree.weighted_n_node_samples, np.float64),
        tree.value[:, 0, :],
    )


def _fit_pixels(pixels: PixelStream, options: ForestOptions, training: Training) -> Forest:
    x, y, weight = pixels.drawn(copies=1, beside=beside(options, training.threads))
    return fit(x, y, weight, options, training)


def _restore(arrays: State, files: Files) -> Forest:
    return Forest(Trees.restore(arrays))


KIND = pixel_kind("forest", ForestOptions, _fit_pixels, _restore)
