"""What a run shows while it goes on: a live view, lines of a log, or JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from lcengine.cli.output import human_bytes, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from lcengine.engine import Progress
    from lcengine.train.progress import Hear
    from lcengine.train.progress import Progress as Training

LOG_SECONDS = 5.0
"""Seconds between two lines of a log."""

Listener = Callable[["Progress"], None]


@contextmanager
def progress(as_json: bool, price: float | None = None) -> Iterator[Listener]:
    """A listener for `jobs.run`; all it shows goes to stderr.

    `price`: of a core-hour, for the cost so far.
    """
    with _view(as_json) as show:

        def listen(state: Progress) -> None:
            state.price = price
            show(state)

        yield listen


@contextmanager
def _view(as_json: bool) -> Iterator[Listener]:
    from rich.console import Console

    console = Console(stderr=True)
    if as_json:
        yield _now_and_then(lambda state: typer.echo(json.dumps(state.to_json()), err=True))
        return
    if not console.is_terminal:
        yield _now_and_then(lambda state: say(line(state)))
        return
    with _bar(console, "tiles") as bar:
        task = bar.add_task("tiles", facts="")

        def listen(state: Progress) -> None:
            bar.start()
            facts = ", ".join([*_facts(state), *_left(state)])
            bar.update(task, total=state.tiles, completed=state.done, facts=facts)
            if state.done + state.failed >= state.tiles:
                bar.stop()  # another may be shown below it

        yield listen


@contextmanager
def _bar(console: Console, head: str) -> Iterator[Bar]:
    """A bar that its first use shows."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(head),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    bar = Bar(*columns, console=console)
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def training(as_json: bool) -> Iterator[Hear]:
    """A listener for `Training.hear`: a bar of steps, and a line for each epoch, on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield _spoken(as_json)
        return
    with _bar(console, "steps") as bar:
        task = bar.add_task("steps", facts="")

        def hear(state: Training) -> None:
            bar.start()
            if state.measured:
                bar.console.print(state.line, highlight=False)
            facts = f"epoch {state.epoch}/{state.epochs}"
            if state.left is not None:
                facts += f", {duration(state.left)} left"
            bar.update(task, total=state.steps, completed=state.step, facts=facts)
            if state.measured and state.step >= state.steps:
                bar.stop()

        yield hear


def _spoken(as_json: bool) -> Hear:
    """Says the first step, every epoch, and one step every few seconds between."""
    last = -LOG_SECONDS

    def hear(state: Training) -> None:
        nonlocal last
        if state.measured or state.seconds - last >= LOG_SECONDS:
            last = state.seconds
            left = "" if state.left is None else f", {duration(state.left)} left"
            if as_json:
                typer.echo(json.dumps(state.to_json()), err=True)
            else:
                say(state.line + left)

    return hear


def _now_and_then(show: Listener) -> Listener:
    """Shows the first and the last state, and one every few seconds between."""
    last = -LOG_SECONDS

    def listen(state: Progress) -> None:
        nonlocal last
        if state.seconds - last >= LOG_SECONDS or state.done + state.failed >= state.tiles:
            last = state.seconds
            show(state)

    return listen


def line(state: Progress) -> str:
    """The state of a run as a line of a log."""
    resumed = f" ({state.resumed} from an earlier run)" if state.resumed else ""
    facts = ", ".join([*_facts(state), *_left(state)])
    return f"tiles {state.done}/{state.tiles}{resumed}, {facts}"


def _left(state: Progress) -> list[str]:
    return [] if state.eta is None else [f"{duration(state.eta)} left"]


def _facts(state: Progress) -> list[str]:
    facts = [
        f"{state.pixels_per_second / 1e6:.2f} Mpx/s",
        f"{human_bytes(state.bytes_read)} decoded",
    ]
    if state.clear_fraction is not None:
        facts.append(f"{100 * state.clear_fraction:.1f} % clear")
    facts.append(f"{state.failures} failed reads")
    if state.failed or state.retried:
        facts.append(f"{state.failed} failed tiles, {state.retried} retried")
    if state.cost is not None:
        facts.append(f"cost {state.cost:.2f}")
    return facts


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
