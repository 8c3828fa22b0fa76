"""Quality of composites: what each mask, screen and method leaves of the clouds, and what it costs.

Simulated: years of 73 dates over 5 km squares whose surface is known on every date, seen through
clouds, haze and shadows by a scene classification (SCL) that errs as often as published for
Sen2Cor. Composites per month, 61 days, 92 days and half a year; the truth is the median of the
surface of all dates (of the methods: what the same method makes of the surface where and when it
was clear). Statistics are over the pixels that all contenders of a table cover. Over half a year
RMSE is mostly the season, of which clouds leave a sample.

- *residual cloud*: pixels whose blue is more than 0.03 too bright; *residual shadow*: whose near
  infrared is more than a fifth (and 0.02) too dark without brighter red;
- *harm*: the screen under a mask that never errs, where there is nothing to find: RMSE over that
  of no screen.

Real: `flanders-2018`, Sentinel-2 L2A over 640 m of Flanders. From each month up to three
strictly clear dates are held out in turn; the month's other dates must predict them. Errors hold
what changed within the month, too.

Intervals are 95 % of a block bootstrap; against the baseline of a table both are resampled alike.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _quality as quality
import numpy as np
from _quality import Interval, Pixels, Tally
from _quality_contenders import DEFAULT, PEERS, SCL_MEDIAN, Bench, Recipe, cut
from _quality_figure import Point, draw
from _quality_worlds import Mask, Stack, World, held_out, make_world, observations

from lcengine.simulate import SimulationOptions

BANDS = ("blue", "green", "red", "nir", "swir16")
REAL = Path(__file__).parents[2] / "shared" / "data" / "flanders-2018" / "sentinel-2-l2a"
RULES = {"month": "month", "61 days": "P61D", "92 days": "P92D", "half a year": "P183D"}
FIGURE_RULES = ("month", "61 days", "92 days")
DATES, YEAR = 73, "2023-01-01/2023-12-31"
BLOCK = {"simulated": 64, "real": 16}
"""Pixels of a block's side: of 20 m when simulated, of 10 m when real."""

MASKS = ("scl", "geomad", "pacific", "worldcover", "s2mosaic")
CHOSEN = "mad:3:bright/450"
SCREENS = (
    "none",
    "mad:3/50",
    "mad:3:bright/50",
    "mad:3:bands/50",
    "mad:2.5:bright/450",
    CHOSEN,
    "mad:3:bright/900",
    "mad:4:bright/450",
    "mad:5:bright/450",
    "mad:3/450",
    "mad:3:bands/450",
    "despike",
    "despike:3:0",
    "tmask",
    f"despike:3:0,{CHOSEN}",
    f"tmask,{CHOSEN}",
)
METHODS = (
    "median",
    "mean",
    "percentile:25",
    "percentile:40",
    "geomedian",
    "medoid",
    "medoid:nearest",
    "max-ndvi",
    "index:blue",
    "index:hot",
    "bap",
    "first-clear",
)
GRID_SCREENS = ("none", "mad:3/50", CHOSEN, "mad:3:bands/450", "despike:3:0", "tmask")
GRID_RULE = "92 days"
OURS = "lcengine's default"
STATISTICS = {
    "rmse": "RMSE",
    "bias": "bias",
    "p95": "95th percentile of the absolute error",
    "residual_cloud": "residual cloud (%)",
    "residual_shadow": "residual shadow (%)",
}


@dataclass
class Scores:
    """Tallies of the contenders of one table, world by world."""

    tallies: dict[str, list[Tally]] = field(default_factory=dict)
    covered: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        composites: Mapping[str, Pixels],
        truths: Mapping[str, Pixels],
        block: int,
        where: Mask | None = None,
    ) -> None:
        """Tally the contenders of one world where all of them and their truths have values."""
        shared = quality.common(where, *composites.values(), *truths.values())
        for name, composite in composites.items():
            truth = truths[name]
            own = quality.common(where, truth)
            share = quality.common(own, composite).sum() / max(own.sum(), 1)
            self.covered.setdefault(name, []).append(float(share))
            tally = quality.tally(composite, truth, BANDS, where=shared, block=block)
            self.tallies.setdefault(name, []).append(tally)

    def merged(self, name: str) -> Tally:
        return quality.merge(self.tallies[name])


class Report:
    """Markdown on stdout, and every figure of it for a file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def table(self, title: str, scores: Scores, baseline: str, harm: Scores | None = None) -> None:
        """A row per contender; the last columns compare it with the baseline."""
        head = ["", "covered", "RMSE", "bias", "95th pct.", "cloud %", "shadow %"]
        head += ["ΔRMSE", "Δ95th pct.", "Δcloud", *(["harm"] if harm else [])]
        print(f"\n### {title}\n\n| {' | '.join(head)} |")
        print(f"|---|{'---:|' * (len(head) - 1)}")
        base = scores.merged(baseline)
        for name in scores.tallies:
            tally = scores.merged(name)
            own = quality.intervals(tally)
            change = quality.paired(tally, base, relative=True)
            cells = [
                f"{np.mean(scores.covered[name]):.1%}",
                *(f"{1e4 * own[key].value:.0f}" for key in ("rmse", "bias", "p95")),
                *(f"{100 * own[key].value:.2f}" for key in ("residual_cloud", "residual_shadow")),
            ]
            for key in ("rmse", "p95", "residual_cloud"):
                cells.append("" if name == baseline else percent(change[key]))
            row = {"table": title, "contender": name, "covered": np.mean(scores.covered[name])}
            row |= {key: asdict(own[key]) for key in STATISTICS}
            row |= {f"change_{key}": asdict(change[key]) for key in STATISTICS}
            if harm:
                spoilt = quality.paired(harm.merged(name), harm.merged(baseline), relative=True)
                cells.append("" if name == baseline else percent(spoilt["rmse"]))
                row["harm"] = asdict(spoilt["rmse"])
            self.rows.append(row)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)

    def matrix(self, title: str, scores: Scores, statistic: str) -> None:
        """Methods down, screens across."""
        scale, digits = (100, 2) if statistic.startswith("residual") else (1e4, 0)
        print(f"\n### {title}\n\n| | {' | '.join(GRID_SCREENS)} |")
        print(f"|---|{'---:|' * len(GRID_SCREENS)}")
        for method in METHODS:
            cells = []
            for screen in GRID_SCREENS:
                name = f"{method} | {screen}"
                value = float(quality.summarise(scores.merged(name))[statistic][0])
                self.rows.append({"table": title, "contender": name, statistic: value})
                cells.append(f"{scale * value:.{digits}f}")
            print(f"| {method} | {' | '.join(cells)} |", flush=True)


def percent(change: Interval) -> str:
    low, high = 100 * change.low, 100 * change.high
    return f"{100 * change.value:+.1f} % ({low:+.1f} to {high:+.1f})"


# --- simulated ---------------------------------------------------------------------------------


class Square:
    """A simulated square and its composites, worked out once each."""

    def __init__(self, world: World, rule: str) -> None:
        periods = cut(world.seen, rule)
        self.seen = Bench(world.seen, periods)
        self.perfect = Bench(world.true_mask(), periods)
        self._ground = Bench(world.cloudless(), periods)
        self._clear_ground = Bench(world.clear_only(), periods)
        self._truths: dict[str, Pixels] = {}

    @property
    def truth(self) -> Pixels:
        """The median of the surface of all dates."""
        return self._truth(self._ground, "median")

    def own_truth(self, method: str) -> Pixels:
        """What a method makes of the surface where and when it was truly clear.

        Methods that take a real observation are not blamed for the date that clouds left them.
        """
        return self._truth(self._clear_ground, method)

    def _truth(self, bench: Bench, method: str) -> Pixels:
        key = f"{id(bench)} {method}"
        if key not in self._truths:
            self._truths[key] = bench.composites(Recipe(method=method))
        return self._truths[key]


def simulated(seeds: Iterable[int], size: int, report: Report) -> dict[str, Scores]:
    """All tables of the simulated world; the scores of masks and peers, by rule, for the figure."""
    screens = {rule: Scores() for rule in RULES}
    harm = {rule: Scores() for rule in RULES}
    contenders = {rule: Scores() for rule in RULES}
    grid = Scores()
    for seed in seeds:
        world = make_world(SimulationOptions(size, DATES, seed, YEAR, BANDS))
        for name, rule in RULES.items():
            square = Square(world, rule)
            score_screens(square, screens[name], harm[name])
            score(square, masks_and_peers(), contenders[name])
            if name == GRID_RULE:
                score_grid(square, grid)
            progress(f"seed {seed}: {name}")
    for rule in RULES:
        report.table(
            f"Simulated, {rule}: screens on the plain SCL median", screens[rule], "none", harm[rule]
        )
    for rule in RULES:
        title = f"Simulated, {rule}: masks, and what peers do"
        report.table(title, contenders[rule], "SCL median")
    for key, title in STATISTICS.items():
        report.matrix(f"Simulated, {GRID_RULE}, mask {DEFAULT.mask}: {title}", grid, key)
    return contenders


def score_screens(square: Square, seen: Scores, harm: Scores) -> None:
    """Every screen on the SCL median, and under the perfect mask."""
    recipes = {screen: Recipe(screens=screen) for screen in SCREENS}
    score(square, recipes, seen)
    spoilt = {name: square.perfect.composites(recipe) for name, recipe in recipes.items()}
    harm.add(spoilt, dict.fromkeys(spoilt, square.truth), BLOCK["simulated"])


def score(square: Square, recipes: Mapping[str, Recipe], scores: Scores) -> None:
    composites = {name: square.seen.composites(recipe) for name, recipe in recipes.items()}
    scores.add(composites, dict.fromkeys(composites, square.truth), BLOCK["simulated"])


def score_grid(square: Square, scores: Scores) -> None:
    """Every method × screen under the default mask, each against its own truth."""
    composites, truths = {}, {}
    for method in METHODS:
        for screen in GRID_SCREENS:
            name = f"{method} | {screen}"
            composites[name] = square.seen.composites(Recipe(DEFAULT.mask, screen, method))
            truths[name] = square.own_truth(method)
    scores.add(composites, truths, BLOCK["simulated"])


def masks_and_peers() -> dict[str, Recipe]:
    """The peers, lcengine's default, and every mask without and with the chosen screen."""
    recipes = {**PEERS, OURS: DEFAULT}
    for mask in MASKS:
        for screen in ("none", CHOSEN):
            recipe = Recipe(mask, screen)
            if recipe != SCL_MEDIAN:
                recipes[f"{mask}, {screen}"] = recipe
    return recipes


# --- real --------------------------------------------------------------------------------------


def real(folder: Path, report: Report, quick: bool) -> Scores:
    """The tables of the real dates; the scores of masks and peers for the figure."""
    stack = Stack.read(folder, BANDS)
    cases = held_out(stack)[:: 5 if quick else 1]
    benches = []
    for case in cases:
        day = dt.date.fromisoformat(str(case.date))
        months = cut(case.series, "month")
        own = [month for month in months if month.start.date() <= day < month.stop.date()]
        benches.append(Bench(case.series, own))
    expected, where = observations(cases)

    def predict(recipes: Mapping[str, Recipe]) -> Scores:
        composites = {
            name: np.concatenate([bench.composites(recipe) for bench in benches])
            for name, recipe in recipes.items()
        }
        scores = Scores()
        scores.add(composites, dict.fromkeys(composites, expected), BLOCK["real"], where)
        return scores

    contenders = predict(masks_and_peers())
    days = f"{len(cases)} held-out dates"
    report.table(f"Real, month: masks, and what peers do; {days}", contenders, "SCL median")
    for mask in dict.fromkeys(("scl", DEFAULT.mask)):
        screens = predict({s: Recipe(mask, s) for s in SCREENS})
        report.table(f"Real, month: screens, mask {mask}, median; {days}", screens, "none")
    progress("real: screens")
    methods = predict({m: Recipe(DEFAULT.mask, CHOSEN, m) for m in METHODS})
    report.table(f"Real, month: methods, mask {DEFAULT.mask}, {CHOSEN}", methods, "median")
    return contenders


# --- script ------------------------------------------------------------------------------------


def points(scores: Scores) -> list[Point]:
    """What the figure shows of a table: each mask without and with the screen, and peers."""
    found = []
    for name, recipe in masks_and_peers().items():
        if name == OURS:
            continue
        own = quality.intervals(scores.merged(name))
        screen = "" if recipe.screens == "none" else recipe.screens
        peer = name if name in PEERS and recipe != SCL_MEDIAN else ""
        found.append(Point(recipe.mask, screen, own["residual_cloud"], own["rmse"], peer))
    return found


def progress(text: str) -> None:
    print(f"{time.process_time():6.0f} s CPU  {text}", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=4, help="simulated squares")
    parser.add_argument("--size", type=int, default=512, help="their side in pixels of 10 m")
    parser.add_argument("--real", type=Path, default=REAL, help="collection flanders-2018")
    parser.add_argument("--figure", type=Path, help="write this PNG")
    parser.add_argument("--json", type=Path, help="write every figure with its interval")
    parser.add_argument("--quick", action="store_true", help="one small square, few held-out dates")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    report, panels = Report(), {}
    seeds, size = (1, 256) if options.quick else (options.seeds, options.size)
    print("Errors in reflectance × 10000; lcengine's default is", f"{DEFAULT}.")
    print("A number after a slash is the least deviation of the MAD screen.")
    contenders = simulated(range(seeds), size, report)
    for rule in FIGURE_RULES:
        panels[f"simulated, {rule}"] = points(contenders[rule])
    if options.real.is_dir():
        panels["real, month"] = points(real(options.real, report, options.quick))
    else:
        print(f"\nReal dates are left out: {options.real} is no folder.")
    if options.json:
        options.json.write_text(json.dumps(report.rows, indent=1))
    if options.figure:
        draw(panels, options.figure)


if __name__ == "__main__":
    main()
