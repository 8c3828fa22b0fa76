"""How well a map agrees with a reference, from the counts of every pair of classes.

Measures come from counts over the whole map, never from means over its parts: counts of tiles,
folds or workers are added first. Terms and sources: producer's and user's accuracy are recall and
precision of a class (Congalton 1991, Remote Sensing of Environment 37, 35-46), kappa is Cohen's
(1960), the expected calibration error that of Guo et al. (2017, ICML).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.legends import Legend

if TYPE_CHECKING:
    from rich.table import Table

COUNTS = npt.NDArray[np.int64]
FLOAT = npt.NDArray[np.float64]

MEASURES = ("recall", "precision", "f1", "iou")
"""Of each class. Recall is producer's accuracy, precision user's accuracy."""

BINS = 15
"""Of confidence, as in Guo et al. (2017)."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What a map has right, by class and in all.

    `counts`: int64 (K, K), rows of the reference, columns of the map. `missing`: int64 (K), pixels
    of the reference's classes where the map has nodata; no measure counts them.

    A measure of a class is NaN where it divides by nothing: recall of a class that the reference
    has not, precision of one that the map has not, F1 and IoU of one that neither has.
    """

    legend: Legend
    counts: COUNTS
    missing: COUNTS

    @classmethod
    def of(cls, counts: npt.ArrayLike, legend: Legend) -> Accuracy:
        """From whole numbers (K, K), or (K, K + 1) with a last column where the map has nodata."""
        found = np.asarray(counts)
        classes = len(legend.classes)
        whole = found.dtype.kind in "iu" and found.min(initial=0) >= 0
        if not whole or found.shape not in ((classes, classes), (classes, classes + 1)):
            raise InputError(
                f"counts are {found.dtype} of shape {found.shape}, expected numbers of pixels "
                f"({classes}, {classes} or {classes + 1}) for the classes of legend {legend.name}"
            )
        pairs = found.astype(np.int64)
        missing = pairs[:, classes] if pairs.shape[1] > classes else np.zeros(classes, np.int64)
        return cls(legend, pairs[:, :classes], missing)

    def __add__(self, other: Accuracy) -> Accuracy:
        """Both together, e.g. the folds of a cross-validation; `InputError` for other classes."""
        if other.legend != self.legend:
            raise InputError(
                f"accuracies are of legends {self.legend.name} and {other.legend.name}; only "
                "those of one legend can be added"
            )
        return Accuracy(self.legend, self.counts + other.counts, self.missing + other.missing)

    @property
    def reference(self) -> COUNTS:
        """(K) pixels of each class in the reference where the map has a class: the support."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def mapped(self) -> COUNTS:
        """(K) pixels of each class in the map where the reference has a class."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def pixels(self) -> int:
        """Pixels where both have a class."""
        return int(self.counts.sum())

    @cached_property
    def measures(self) -> dict[str, FLOAT]:
        """Each of `MEASURES` by class (K)."""
        right = np.diagonal(self.counts)
        either = self.reference + self.mapped
        return {
            "recall": _ratio(right, self.reference),
            "precision": _ratio(right, self.mapped),
            "f1": _ratio(2 * right, either),
            "iou": _ratio(right, either - right),
        }

    @property
    def overall(self) -> float:
        """Share of the pixels that are right; NaN without any."""
        return float(_ratio(np.trace(self.counts), np.int64(self.pixels)))

    @property
    def kappa(self) -> float:
        """Cohen's; NaN where chance alone agrees everywhere."""
        total = self.pixels
        chance = float(self.reference.astype(np.float64) @ self.mapped.astype(np.float64))
        share = chance / total**2 if total else np.nan
        return float("nan") if not share < 1 else (self.overall - share) / (1 - share)

    @property
    def summary(self) -> str:
        """Overall accuracy, kappa and the number of pixels, on one line."""
        agree = "–" if np.isnan(self.overall) else f"{100 * self.overall:.1f} %"
        beyond = "–" if np.isnan(self.kappa) else f"{self.kappa:.3f}"
        return f"overall accuracy {agree}, kappa {beyond}, {self.pixels:,} pixels"

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that the reference has not: no mean counts them."""
        return tuple(
            name for name, n in zip(self.legend.names, self.reference, strict=True) if not n
        )

    @property
    def macro(self) -> dict[str, float]:
        """Mean of each measure over the classes of the reference, all alike.

        A class that the map never has counts with a precision of 0.
        """
        return self._means((self.reference > 0).astype(np.float64))

    @property
    def weighted(self) -> dict[str, float]:
        """Mean of each measure over the classes, by their pixels in the reference."""
        return self._means(self.reference.astype(np.float64))

    def _means(self, weights: FLOAT) -> dict[str, float]:
        total = weights.sum()
        return {
            name: float(np.nan_to_num(values) @ weights / total) if total else float("nan")
            for name, values in self.measures.items()
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values, null for NaN; `from_json` makes equal counts of it again."""
        classes = [
            {
                "code": entry.code,
                "name": entry.name,
                "reference": int(self.reference[i]),
                "mapped": int(self.mapped[i]),
                **{name: _json(values[i]) for name, values in self.measures.items()},
            }
            for i, entry in enumerate(self.legend.classes)
        ]
        return {
            "pixels": self.pixels,
            "overall_accuracy": _json(self.overall),
            "kappa": _json(self.kappa),
            "macro": {name: _json(value) for name, value in self.macro.items()},
            "weighted": {name: _json(value) for name, value in self.weighted.items()},
            "classes": classes,
            "absent": list(self.absent),
            "counts": self.counts.tolist(),
            "missing": self.missing.tolist(),
            "legend": self.legend.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accuracy:
        """Inverse of `to_json`; `InputError` for what is no accuracy."""
        try:
            legend = Legend.from_json(data["legend"])
            pairs = np.column_stack([np.asarray(data["counts"]), np.asarray(data["missing"])])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no accuracy ({error!r}); expected legend, counts and missing"
            ) from error
        return cls.of(pairs, legend)

    def table(self, title: str | None = None) -> Table:
        """Pixels, measures in percent and their means by class, for a console of Rich."""
        from rich import box  # noqa: PLC0415 (for the eyes of people alone)
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("class")
        for head in ("reference", "map", "producer's", "user's", "F1", "IoU"):
            table.add_column(head, justify="right")
        for i, name in enumerate(self.legend.names):
            values = [_percent(self.measures[m][i]) for m in MEASURES]
            table.add_row(name, f"{self.reference[i]:,}", f"{self.mapped[i]:,}", *values)
        table.add_section()
        for name, means in (("macro mean", self.macro), ("weighted", self.weighted)):
            table.add_row(name, "", "", *(_percent(means[m]) for m in MEASURES))
        return table


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the most probable class is right, by the probability that it is given.

    Bins of equal width from 0 to 1. `counts`: int64 (bin) pixels. `confidence`: float64 (bin) their
    mean probability. `accuracy`: float64 (bin) share of them that is right. Both are NaN where a
    bin is empty.
    """

    counts: COUNTS
    confidence: FLOAT
    accuracy: FLOAT

    @classmethod
    def of(
        cls, probabilities: npt.NDArray[Any], indices: npt.NDArray[np.uint8], bins: int = BINS
    ) -> Reliability:
        """Of probabilities (class, pixel) and training indices (pixel), 255 = left out.

        NaN probabilities are left out too.
        """
        given = np.asarray(probabilities, np.float64)
        truth = np.asarray(indices)
        if given.ndim != 2 or truth.shape != given.shape[1:] or bins < 1:
            raise InputError(
                f"probabilities have shape {given.shape}, indices {truth.shape}, bins {bins}; "
                "expected (class, pixel), (pixel) and 1 or more"
            )
        known = (truth < len(given)) & np.isfinite(given).all(axis=0)
        given, truth = given[:, known], truth[known]
        best, right = given.max(axis=0, initial=0.0), given.argmax(axis=0) == truth
        place = np.minimum((best * bins).astype(np.int64), bins - 1)
        counts = np.bincount(place, minlength=bins)
        return cls(
            counts.astype(np.int64),
            _ratio(np.bincount(place, best, bins), counts),
            _ratio(np.bincount(place, right, bins), counts),
        )

    def __add__(self, other: Reliability) -> Reliability:
        """Both together; `InputError` for curves of other bins."""
        if len(other.counts) != len(self.counts):
            raise InputError(
                f"reliabilities have {len(self.counts)} and {len(other.counts)} bins; only those "
                "of the same bins can be added"
            )
        counts = self.counts + other.counts
        sums = [
            np.nan_to_num(getattr(self, name)) * self.counts
            + np.nan_to_num(getattr(other, name)) * other.counts
            for name in ("confidence", "accuracy")
        ]
        return Reliability(counts, _ratio(sums[0], counts), _ratio(sums[1], counts))

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of both, by pixels; NaN without any."""
        gaps = np.abs(np.nan_to_num(self.confidence) - np.nan_to_num(self.accuracy))
        return float(_ratio(gaps @ self.counts, self.counts.sum()))

    def to_json(self) -> dict[str, Any]:
        """JSON values, null for NaN; `from_json` makes an equal one of it again."""
        return {
            "expected_calibration_error": _json(self.error),
            "counts": self.counts.tolist(),
            "confidence": [_json(value) for value in self.confidence],
            "accuracy": [_json(value) for value in self.accuracy],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reliability:
        """Inverse of `to_json`."""
        return cls(
            np.array(data["counts"], np.int64),
            np.array(data["confidence"], np.float64),  # None becomes NaN
            np.array(data["accuracy"], np.float64),
        )


def _ratio(part: Any, whole: Any) -> FLOAT:
    """NaN where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"
