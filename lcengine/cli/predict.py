"""`lcengine predict`: products and a model to a map of classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import takes
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    from lcengine.models.predictor import Execution
    from lcengine.predict.lattice import Tiling
    from lcengine.predict.plan import PredictPlan

Products = Annotated[
    list[str],
    typer.Argument(help="A product; by name where the model has several: s2=a.zarr s1=b.zarr."),
]
Model = Annotated[str, typer.Option("--model", help="Folder of a model of `lcengine train`.")]
Proba = Annotated[bool, typer.Option("--proba", help="Also the probability of every class.")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--bands",
        help="Variables that are the model's bands, in its order, where they have other names: "
        "s2=B02,B03,B04; repeatable.",
    ),
]
Uncertain = Annotated[
    str | None,
    typer.Option("--uncertainty", help="Also how sure it is: entropy, margin or both."),
]
Edge = Annotated[
    int | None,
    typer.Option("--patch", help="Networks: edge of patches, by default the model's own."),
]
Step = Annotated[
    int | None,
    typer.Option("--stride", help="Networks: steps between patches, by default half of --patch."),
]
Weighting = Annotated[
    str | None,
    typer.Option(
        "--window", help="Networks: weights where patches overlap: hann, pyramid, mean or centre."
    ),
]
Exact = Annotated[
    bool,
    typer.Option("--exact", help="Networks: the answers on the whole raster at once, or refuse."),
]
Batch = Annotated[
    int | None, typer.Option("--batch", help="Networks: patches computed together, 8 by default.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Networks: CPU threads of a batch, 2 by default.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="Networks: float32 (default) or bfloat16.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Networks: compiled once per process by torch.compile.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Networks: cpu, cuda (workers must offer a GPU), or auto (default): a GPU where a "
        "worker has one.",
    ),
]


def _plan(
    products: Products,
    model: Model,
    proba: Proba = False,
    uncertainty: Uncertain = None,
    like: options.Like = None,
    tile: options.TileSize = None,
    bands: Names = None,
    resampling: options.Resampling = None,
) -> Callable[..., PredictPlan]:
    """The options that say what is predicted of what."""
    from lcengine.predict.plan import plan_predict

    sources = _sources(products)
    first = sources if isinstance(sources, str) else next(iter(sources.values()))
    chosen, how = options.by_source(bands, resampling)
    return partial(
        plan_predict,
        sources,
        model,
        proba=proba,
        uncertainty=_scores(uncertainty),
        grid=options.grid(like or first, None, None, None, None, tile),
        bands=chosen,
        resampling=how,
    )


def _tiling(
    patch: Edge = None,
    stride: Step = None,
    window: Weighting = None,
    exact: Exact = False,
    batch: Batch = None,
    threads: Threads = None,
    precision: Precision = None,
    compile: Compile = False,
    device: Device = None,
) -> Tiling:
    """The options of networks."""
    from lcengine.predict.lattice import Tiling

    asked = {
        "batch": batch,
        "threads": threads,
        "precision": precision,
        "compile": compile or None,
        "device": device,
    }
    how = _execution({name: value for name, value in asked.items() if value is not None})
    return Tiling(patch, stride, cast("Any", window), exact, how)


def _execution(given: dict[str, Any]) -> Execution | None:
    from lcengine.models.predictor import Execution

    return Execution(**given) if given else None


def _scores(text: str | None) -> tuple[str, ...]:
    from lcengine.predict.plan import SCORES

    if text is None:
        return ()
    return tuple(SCORES) if text == "both" else (text,)


def _sources(products: list[str]) -> str | dict[str, str]:
    """Products by name, or the only one by its path; `./a=b.zarr` is a path."""
    from lcengine.errors import InputError

    named = [text for text in products if re.match(r"[A-Za-z]\w*=", text)]
    if not named and len(products) == 1:
        return products[0]
    if len(named) < len(products):
        raise InputError(
            f"products are {', '.join(products)}; expected one, or each as name=product by the "
            "names of the model's inputs"
        )
    return options.assigned(products, "a product")


@takes(_plan, _tiling, making)
def predict(
    planned: Callable[..., PredictPlan],
    tiling: Tiling,
    making: Making,
    *,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Predict a map of classes from products with a trained model. The same command resumes."""
    from lcengine import quicklook
    from lcengine.cli.product import summary
    from lcengine.predict.lattice import seams, unlike

    if picture is not None:
        quicklook.check_picture(picture)
    plan = planned(tiling=tiling)
    if plan.lattice is not None:
        for caution in (seams, unlike):
            if told := caution(plan.spec, plan.lattice):
                say(told)
    if plan.how is not None and plan.how.device == "cuda":
        making = making.on_gpus()
    # The model's hash stands for all that it says of itself; any device goes on with the work.
    request = {k: value for k, value in plan.to_json().items() if k not in ("spec", "device")}
    path = making.run(plan, request, json)
    if picture is not None:
        quicklook.draw(path, picture)
    emit(summary(path), json)
    said = f"look at {picture}" if picture else f"next: lcengine evaluate {path} --reference …"
    say(said)
