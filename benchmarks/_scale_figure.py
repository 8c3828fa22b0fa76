"""The figure of the scale model: hours against workers, and what holds the run up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _scale_model import THREADS, WORKERS, Area, Place, Results, bottleneck

COLOURS = {
    "network": "#2a78b8",
    "archive": "#b8932a",
    "cpu": "#c2571a",
    "tiles": "#8a4fa8",
    "driver": "#1b7f4d",
}
PARTS = ("network", "archive", "cpu", "driver")


def draw(results: Results, where: Sequence[Place], path: Path) -> None:
    """Write a PNG: a row per place, a column per area."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(len(where), 2, figsize=(8.2, 6.4), dpi=130, sharex=True)
    for row, place in zip(axes, where, strict=True):
        for axis, area in zip(row, results.areas, strict=True):
            _panel(axis, results, area, place)
            axis.set_title(f"{area.name}, {place.name}", fontsize=10)
        row[0].set_ylabel("hours", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(f"workers of {THREADS} threads", fontsize=9)
    handles = [
        Line2D([], [], color=colour, lw=1.2, marker="o", label=name)
        for name, colour in COLOURS.items()
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path)
    plt.close(figure)


def _panel(axis: Any, results: Results, area: Area, place: Place) -> None:
    counts = np.unique(np.geomspace(WORKERS[0], WORKERS[-1], 60).round().astype(int))
    found = [results.estimate(area, place, int(n)) for n in counts]
    for part in PARTS:
        hours = [one.seconds[part] / 3600 for one in found]
        axis.plot(counts, hours, color=COLOURS[part], lw=1.0, alpha=0.7)
    axis.plot(counts, [one.hours for one in found], color="#444444", lw=3.0, alpha=0.3)
    for workers in WORKERS:
        one = results.estimate(area, place, workers)
        axis.plot(workers, one.hours, "o", color=COLOURS[bottleneck(area, one, workers)], ms=7)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(WORKERS, [f"{n:,}" for n in WORKERS])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(alpha=0.25, lw=0.5)
    axis.tick_params(labelsize=8)
