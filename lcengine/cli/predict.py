"""`lcengine predict`: products and a model to a map of classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import takes
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
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


def _plan(
    products: Products,
    model: Model,
    proba: Proba = False,
    uncertainty: Uncertain = None,
    like: options.Like = None,
    tile: options.TileSize = None,
    bands: Names = None,
    resampling: options.Resampling = None,
) -> PredictPlan:
    """The options that say what is predicted of what."""
    from lcengine.predict.plan import plan_predict

    sources = _sources(products)
    first = sources if isinstance(sources, str) else next(iter(sources.values()))
    chosen, how = options.by_source(bands, resampling)
    return plan_predict(
        sources,
        model,
        proba=proba,
        uncertainty=_scores(uncertainty),
        grid=options.grid(like or first, None, None, None, None, tile),
        bands=chosen,
        resampling=how,
    )


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


@takes(_plan, making)
def predict(
    plan: PredictPlan,
    making: Making,
    *,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Predict a map of classes from products with a trained model. The same command resumes."""
    from lcengine import quicklook
    from lcengine.cli.product import summary

    if picture is not None:
        quicklook.check_picture(picture)
    # The model's hash stands for all that it says of itself.
    request = {key: value for key, value in plan.to_json().items() if key != "spec"}
    path = making.run(lambda: plan, request, json)
    if picture is not None:
        quicklook.draw(path, picture)
    emit(summary(path), json)
    said = f"look at {picture}" if picture else f"next: lcengine evaluate {path} --reference …"
    say(said)
