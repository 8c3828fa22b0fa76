"""Pictures of an evaluation: the confusion matrix, and reliability curves."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lcengine.metrics import Accuracy, Reliability

SHOWN = 24
"""Classes up to which every share is written into its cell."""
LARGEST = 20.0
"""Inches; a picture that grew with hundreds of classes would take gigabytes."""


def matrix(accuracy: Accuracy) -> bytes:
    """The confusion matrix as a PNG: what became of the pixels of each class of the reference.

    Rows are classes of the reference and add up to 100 %, columns those of the map. Classes that
    neither has are left out; of all, where neither has any.
    """
    there = np.flatnonzero(accuracy.reference + accuracy.mapped)
    used = there if there.size else np.arange(len(accuracy.legend.classes))
    counts = accuracy.counts[np.ix_(used, used)]
    rows = accuracy.reference[used]
    shares = 100 * counts / np.maximum(rows, 1)[:, None]
    names = [accuracy.legend.names[i] for i in used]
    size = min(max(4.0, 1.6 + 0.55 * len(used)), LARGEST)
    letters = min(8.0, 55 * size / len(used))
    figure = Figure(figsize=(size + 1.2, size), dpi=120, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(len(used)), names, rotation=45, ha="right", fontsize=letters)
    heads = [f"{name} ({n:,})" for name, n in zip(names, rows.tolist(), strict=True)]
    axis.set_yticks(range(len(used)), heads, fontsize=letters)
    axis.set_xlabel("map")
    axis.set_ylabel("reference (pixels)")
    overall = "" if np.isnan(accuracy.overall) else f": {100 * accuracy.overall:.1f} % agree"
    axis.set_title(f"{accuracy.pixels:,} pixels{overall}", fontsize=9)
    if len(used) <= SHOWN:
        for (row, col), share in np.ndenumerate(shares):
            if counts[row, col]:
                colour = "white" if share > 60 else "black"
                axis.text(col, row, _share(share), ha="center", va="center", color=colour, size=7)
    figure.colorbar(image, ax=axis, label="% of the reference's class", shrink=0.8)
    return _png(figure)


def reliability(curves: Mapping[str, Reliability]) -> bytes:
    """Reliability curves by name as a PNG: on the diagonal a probability means what it says."""
    figure = Figure(figsize=(5, 5.4), dpi=120, layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for name, curve in curves.items():
        label = name if np.isnan(curve.error) else f"{name} (ECE {curve.error:.3f})"
        axis.plot(curve.confidence, curve.accuracy, marker="o", markersize=3, label=label)
        edges = np.linspace(0, 1, len(curve.counts) + 1)
        below.stairs(curve.counts / max(1, curve.counts.sum()), edges)
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    below.set(xlabel="probability of the class", ylabel="pixels")
    if curves:
        axis.legend(fontsize=8)
    return _png(figure)


def _share(share: float) -> str:
    return f"{share:.0f}" if share >= 0.5 else "<1"


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
