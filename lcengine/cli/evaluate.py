"""`lcengine evaluate`: how well a map of classes agrees with a reference."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import pairs, takes
from lcengine.cli.output import say

if TYPE_CHECKING:
    from lcengine.evaluate.plan import EvaluatePlan
    from lcengine.metrics import Accuracy

Map = Annotated[str, typer.Argument(help="A map of classes: a product, or a GeoTIFF of codes.")]
Reference = Annotated[
    str,
    typer.Option("--reference", help="What is true: a label product, or a GeoTIFF of codes."),
]
LegendName = Annotated[
    str | None,
    typer.Option(
        "--legend", help="Classes of a GeoTIFF reference: a name, a style, a table, a raster."
    ),
]
MapLegend = Annotated[
    str | None, typer.Option("--map-legend", help="Classes of a GeoTIFF map, likewise.")
]
CrosswalkText = Annotated[
    str | None,
    typer.Option(
        "--crosswalk",
        help="Where legends differ: known, or classes of the finer one as those of the other: "
        "'maize=crop,wheat=crop'.",
    ),
]
Samples = Annotated[
    str | None,
    typer.Option("--samples", help="Compare the pixels of a split of these samples alone."),
]
Split = Annotated[
    Literal["train", "val", "test"] | None,
    typer.Option("--split", help="Which split of --samples (default: test)."),
]
AoiFile = Annotated[
    Path | None, typer.Option("--aoi", help="GeoJSON polygon; compare inside of it alone.")
]

PanelFile = Annotated[
    Path | None,
    typer.Option(
        "--panel", help="Draw image, reference, map and probabilities of a window into this PNG."
    ),
]
PanelWindow = Annotated[
    str | None,
    typer.Option(
        "--panel-window", help="Its pixels of the map: row,column[,edge] (default: the middle 512)."
    ),
]
PanelImage = Annotated[
    str | None,
    typer.Option("--panel-image", help="The product to draw (default: what the map is of)."),
]


def _plan(
    mapped: Map,
    reference: Reference,
    legend: LegendName = None,
    map_legend: MapLegend = None,
    crosswalk: CrosswalkText = None,
    samples: Samples = None,
    split: Split = None,
    aoi: AoiFile = None,
) -> EvaluatePlan:
    """The options that say what is compared, and where."""
    from lcengine.errors import InputError
    from lcengine.evaluate.legends import KNOWN
    from lcengine.evaluate.plan import plan_evaluation
    from lcengine.evaluate.split import split_pixels

    if split is not None and samples is None:
        raise InputError(f"--split {split} is of samples; give --samples")
    return plan_evaluation(
        mapped,
        reference,
        legend=options.legend(legend),
        map_legend=options.legend(map_legend),
        crosswalk=crosswalk if crosswalk in (None, KNOWN) else pairs(crosswalk, "--crosswalk"),
        split=None if samples is None else split_pixels(samples, split or "test"),
        aoi=options.area(None, aoi),
    )


@takes(_plan, making)
def evaluate(
    plan: EvaluatePlan,
    making: Making,
    *,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw where they differ into this PNG.")
    ] = None,
    panel: PanelFile = None,
    panel_window: PanelWindow = None,
    panel_image: PanelImage = None,
    json: options.AsJson = False,
) -> None:
    """Hold a map of classes against a reference, pixel by pixel: accuracy, and where they differ.

    Beside the arrays of the report lie accuracy.json and confusion.png.
    """
    from lcengine import quicklook, store
    from lcengine.evaluate.task import ACCURACY
    from lcengine.metrics import Accuracy

    for file in (picture, panel):
        if file is not None:
            quicklook.check_picture(file)
    draw = _panel(plan, panel, panel_window, panel_image)
    path = making.run(lambda: plan, plan.to_json(), json)
    facts = jsonlib.loads(store.sidecar(path, ACCURACY))
    if json:
        typer.echo(jsonlib.dumps({"report": path, **facts}))
    else:
        _show(Accuracy.from_json(facts))
    for line in remarks(facts):
        say(line)
    if panel is not None:
        panel.write_bytes(draw())
        say(f"look at {panel}")
    if picture is not None:
        quicklook.draw(path, picture)
        say(f"look at {picture}")
    elif panel is None:
        say(f"next: lcengine quicklook {making.output} -o {Path(making.output).stem}.png")


def _panel(
    plan: EvaluatePlan, panel: Path | None, window: str | None, image: str | None
) -> Callable[[], bytes]:
    """What draws the panel; what cannot be drawn is an error before the tiles are compared."""
    from lcengine import store
    from lcengine.errors import InputError

    if panel is None:
        if window is not None or image is not None:
            raise InputError("--panel-window and --panel-image are of --panel; give its PNG")
        return lambda: b""
    from lcengine.evaluate import panel as drawing

    place = drawing.window_of(plan, window)
    source = image or drawing.image_of(plan)
    if source is None:
        say("what the map was made of is not there; --panel-image PRODUCT draws one beside it")
    else:
        store.provenance(source)
    return lambda: drawing.panel(plan, place, source)


def _show(accuracy: Accuracy) -> None:
    """Measures for people, on stdout."""
    from rich.console import Console

    console = Console()
    console.print(accuracy.table())
    console.print(accuracy.summary, highlight=False)


def remarks(facts: dict[str, Any]) -> list[str]:
    """What must be known to read the figures, a line each."""
    lines = []
    if not facts["pixels"]:
        lines.append("there is no pixel with a class in both, so there is no figure")
    elif facts["partial"]:
        lines.append(
            f"the reference has a class for {facts['labelled']:.1%} of the mapped pixels: figures "
            "are of those alone, so recall holds, and precision and IoU say nothing of the others"
        )
    missing = sum(facts["missing"])
    if missing:
        lines.append(f"{missing:,} pixels of the reference are not mapped; no figure counts them")
    if facts["absent"]:
        absent = ", ".join(facts["absent"])
        lines.append(f"the reference has none of {absent}: they are in no mean")
    if (error := facts.get("expected_calibration_error")) is not None:
        lines.append(f"expected calibration error of the map's probabilities: {error:.4f}")
    if facts["left_out"]:
        lines.append(f"classes of the reference left out: {', '.join(facts['left_out'])}")
    return lines
