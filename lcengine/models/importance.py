"""Which features a pixel model lives on: what it loses when one of them is shuffled.

Permutation importance (Breiman 2001, Machine Learning 45) on a split that the model was not fitted
to: the fall of the macro F1 when the pixels get each other's values of a feature.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels.confusion import count_pairs
from lcengine.metrics import Accuracy
from lcengine.models.pixels import PixelPredictor
from lcengine.models.stream import PixelStream

if TYPE_CHECKING:
    from rich.table import Table

    from lcengine.samples.sampleset import SampleSet

FLOAT = npt.NDArray[np.float32]

COLOUR: Final = "#3b6ea5"
SHOWN: Final = 30
"""Features in a picture."""
BLOCK: Final = 2**16
"""Pixels that are predicted together."""


@dataclass(frozen=True)
class Importance:
    """Falls of the macro F1, most important feature first.

    `f1`: of the features as they are. `names`: features, or groups of them. `drops`: (name, repeat)
    float64. `split`, `pixels`: what it was measured on.
    """

    f1: float
    names: tuple[str, ...]
    drops: npt.NDArray[np.float64]
    split: str
    pixels: int

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean fall of each."""
        return np.asarray(self.drops.mean(axis=1))

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of the repeats' falls."""
        return np.asarray(self.drops.std(axis=1))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "split": self.split,
            "pixels": self.pixels,
            "macro_f1": self.f1,
            "features": [
                {"name": name, "drop": float(mean), "std": float(std)}
                for name, mean, std in zip(self.names, self.mean, self.std, strict=True)
            ],
        }

    def table(self) -> Table:
        """For the terminal."""
        from rich.table import Table  # noqa: PLC0415 (for terminals alone)

        out = Table(title=f"Fall of macro F1 ({self.f1:.3f}) on {self.split}, by feature")
        out.add_column("feature")
        for name in ("fall", "std"):
            out.add_column(name, justify="right")
        for name, mean, std in zip(self.names, self.mean, self.std, strict=True):
            out.add_row(name, f"{mean:.4f}", f"{std:.4f}")
        return out

    def picture(self, path: str | os.PathLike[str]) -> None:
        """Bars of the `SHOWN` most important features as a PNG."""
        from matplotlib.figure import Figure  # noqa: PLC0415 (for pictures alone)

        names = self.names[:SHOWN][::-1]
        mean, std = self.mean[:SHOWN][::-1], self.std[:SHOWN][::-1]
        figure = Figure(figsize=(7, 1.2 + 0.25 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.barh(names, mean, xerr=std, color=COLOUR, height=0.7)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel("fall of macro F1 when the feature is shuffled")
        axes.set_title(f"macro F1 {self.f1:.3f} on {self.pixels:,} {self.split} pixels", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=120, format="png")


def importance(
    predictor: PixelPredictor,
    samples: SampleSet,
    *,
    split: str = "val",
    repeats: int = 5,
    grouped: bool = True,
    seed: int = 0,
    memory: int = 2**29,
) -> Importance:
    """Permutation importance on the labelled pixels of a split, or a draw that fits into `memory`.

    Args:
        predictor: A model of the samples' inputs and legend.
        samples: Samples of which the model did not see the split.
        split: Which one.
        repeats: Shuffles per feature.
        grouped: Features of one index or band (`ndvi:p10`, `ndvi:p90`, `ndvi@2018-04`) are shuffled
            together: one by one each is stood in for by the others.
        seed: Decides the draw and the shuffles.
        memory: Bytes that features may take.

    Raises:
        InputError: The samples are not of the model's inputs or legend, or have no such pixel.
    """
    spec = predictor.spec
    if (samples.inputs, samples.legend) != (spec.inputs, spec.legend):
        raise InputError(
            f"{samples.path} has inputs {_bands(samples.inputs)} and legend {samples.legend.name}, "
            f"the model {_bands(spec.inputs)} and {spec.legend.name}; give samples cut from the "
            "same sources"
        )
    if repeats < 1:
        raise InputError(f"repeats is {repeats}, expected 1 or more")
    stream = PixelStream(
        samples, split, predictor.features, memory=memory, seed=seed, chosen=predictor.present
    )
    if not stream.counts[list(predictor.present)].sum():
        raise InputError(f"split {split!r} of {samples.path} has no labelled pixel; give another")
    drawn = stream.drawn(copies=2, alike=0)
    x = np.ascontiguousarray(drawn.x.T)
    whole = _macro_f1(predictor, x, drawn.y)
    groups = _groups(predictor.features.names, grouped)
    rng = np.random.default_rng(seed)
    drops = np.empty((len(groups), repeats))
    for number, rows in enumerate(groups.values()):
        for repeat in range(repeats):
            x[rows] = drawn.x.T[rows][:, rng.permutation(len(drawn.y))]
            drops[number, repeat] = whole - _macro_f1(predictor, x, drawn.y)
        x[rows] = drawn.x.T[rows]
    order = np.argsort(-drops.mean(axis=1), kind="stable")
    names = tuple(list(groups)[i] for i in order)
    return Importance(whole, names, drops[order], split, len(drawn.y))


def _macro_f1(predictor: PixelPredictor, x: FLOAT, y: npt.NDArray[np.uint8]) -> float:
    """Mean F1 of the classes that `y`, places among those present, has."""
    legend, present = predictor.spec.legend, np.array(predictor.present, np.uint8)
    counts = np.zeros((len(legend.classes), len(legend.classes) + 1), np.int64)
    for start in range(0, len(y), BLOCK):
        part = np.ascontiguousarray(x[:, start : start + BLOCK])
        found = present[predictor.estimator.proba(part).argmax(axis=0)]
        count_pairs(present[y[start : start + BLOCK]], found, counts)
    return Accuracy.of(counts, legend).macro["f1"]


def _groups(names: tuple[str, ...], grouped: bool) -> dict[str, list[int]]:
    """Rows of features by the name of their group."""
    out: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        out.setdefault(re.split("[:@]", name)[0] if grouped else name, []).append(row)
    return out


def _bands(inputs: Any) -> str:
    return "; ".join(f"{entry.name}: {', '.join(entry.bands)}" for entry in inputs)
