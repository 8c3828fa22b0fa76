"""The figure of the quality benchmark: residual cloud against RMSE, one panel per table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _quality import Interval

COLOURS = {
    "scl": "#444444",
    "geomad": "#1b7f4d",
    "pacific": "#2a78b8",
    "worldcover": "#c2571a",
    "s2mosaic": "#8a4fa8",
}
PEERS = {"odc-stats gm-s2": ("D", "geomad"), "s2mosaic, first clear": ("s", "s2mosaic")}


@dataclass(frozen=True)
class Point:
    """A contender: a peer by name or a mask without (`screen` empty) or with a screen."""

    mask: str
    screen: str
    cloud: Interval
    rmse: Interval
    peer: str = ""


def draw(panels: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.9), dpi=130)
    for axis, (title, points) in zip(axes.flat, panels.items(), strict=True):
        _panel(axis, points)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("residual cloud (% of pixels)", fontsize=9)
    axes[0].set_ylabel("RMSE (reflectance × 10000)", fontsize=9)
    handles = _legend(panels)
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path)
    plt.close(figure)


def _panel(axis: Any, points: Sequence[Point]) -> None:
    """Arrows lead from no screen to the screen; thin bars are the 95 % intervals."""
    from matplotlib import ticker

    plain = {p.mask: p for p in points if not p.screen and not p.peer}
    for p in points:
        colour = COLOURS[p.mask]
        x, y = 100 * p.cloud.value, 1e4 * p.rmse.value
        spread = {
            "xerr": _sides(p.cloud, 100),
            "yerr": _sides(p.rmse, 1e4),
            "elinewidth": 0.6,
            "alpha": 0.35,
        }
        axis.errorbar(x, y, ecolor=colour, fmt="none", **spread)
        filled = colour if p.screen else "white"
        marker = PEERS[p.peer][0] if p.peer else "o"
        axis.plot(x, y, marker, mfc=filled, mec=colour, mew=1.4, ms=7, zorder=3)
        if p.screen:
            start = (100 * plain[p.mask].cloud.value, 1e4 * plain[p.mask].rmse.value)
            arrow = {"arrowstyle": "->", "color": colour, "lw": 1.2}
            axis.annotate("", xy=(x, y), xytext=start, arrowprops=arrow)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, lw=0.5)
    for scale, along in ((axis.set_xscale, axis.xaxis), (axis.set_yscale, axis.yaxis)):
        scale("log")
        along.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        along.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        along.set_minor_formatter(ticker.NullFormatter())


def _sides(interval: Interval, scale: float) -> list[list[float]]:
    """Lengths of the bar below and above; a percentile interval may leave the value out."""
    below, above = interval.value - interval.low, interval.high - interval.value
    return [[scale * max(below, 0.0)], [scale * max(above, 0.0)]]


def _legend(panels: Mapping[str, Sequence[Point]]) -> list[Any]:
    from matplotlib.lines import Line2D

    screens = {p.screen for points in panels.values() for p in points if p.screen}
    dot = {"marker": "o", "ls": "", "ms": 7}
    handles = [Line2D([], [], color=c, label=name, **dot) for name, c in COLOURS.items()]
    handles.append(Line2D([], [], mfc="white", mec="black", label="no screen", **dot))
    handles += [Line2D([], [], color="black", label=name, **dot) for name in sorted(screens)]
    for name, (marker, mask) in PEERS.items():
        look = {"marker": marker, "mfc": "white", "mec": COLOURS[mask], "ls": "", "ms": 7}
        handles.append(Line2D([], [], label=name, **look))
    return handles
