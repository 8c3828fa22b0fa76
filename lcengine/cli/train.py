"""`lcengine train`: from a recipe to a model, with what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.making import Restart
from lcengine.cli.output import emit, say
from lcengine.cli.progress import progress, training

if TYPE_CHECKING:
    from lcengine.recipes.run import Trained

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (TOML); see docs/train.md.")]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to write (default: what the recipe says)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value, e.g. model.trees=50; repeatable."),
]

BEST = 6
"""Features whose importance is printed; the report has all."""


def train(
    recipe: RecipeFile,
    output: Folder = None,
    settings: Set = None,
    cluster: options.Cluster = "local",
    retries: options.Retries = 2,
    patience: options.Patience = 3600.0,
    worker_timeout: options.WorkerTimeout = 120.0,
    restart: Restart = False,
    json: options.AsJson = False,
) -> None:
    """Cut samples, fit a model, say how good it is. The same command resumes."""
    from lcengine.engine import Policy
    from lcengine.recipes import Running, read
    from lcengine.recipes import train as made

    found = read(recipe, settings or ())
    policy = Policy(retries=retries, patience=patience, worker_timeout=worker_timeout)
    client = options.connector(cluster)
    with options.terminable(), progress(json, None) as listener, training(json) as hear:
        running = Running(client, policy, listener, restart, hear)
        trained = made(found, output, running, say)
    sources = {} if found.data is None else found.data.sources
    products = {name: found.path(source.path) for name, source in sources.items()}
    _show(trained, products, json)


def _show(trained: Trained, products: dict[str, str], as_json: bool) -> None:
    from shlex import quote

    from rich.console import Console

    from lcengine import samples

    names = [entry.name for entry in samples.open(trained.samples).inputs]
    sources = " ".join(f"{name}={quote(products.get(name, 'PRODUCT'))}" for name in names)
    command = f"lcengine predict {sources} --model {quote(trained.model.path)} -o map.zarr"
    head: dict[str, Any] = {
        "model": trained.model.path,
        "kind": trained.report["model"]["kind"],
        "samples": trained.samples,
        "sha256": trained.model.sha256,
    }
    if as_json:
        emit({**head, "accuracy": dict(trained.report["accuracy"]), "next": command}, True)
        return
    emit(head, False)
    console = Console()
    for split, accuracy in trained.accuracy.items():
        console.print(accuracy.table(f"{split}: {accuracy.summary}"))
    if not trained.accuracy:
        say("there are no val or test samples, so nothing is said of the model's accuracy")
    tail: dict[str, Any] = {"report": str(trained.folder / "report.json"), "next": command}
    if found := trained.report.get("importance"):
        best = sorted(found["features"], key=lambda one: -one["drop"])[:BEST]
        falls = {one["name"]: one["drop"] for one in best}
        tail = {f"fall of F1 without ({found['split']})": falls, **tail}
    emit(tail, False)
