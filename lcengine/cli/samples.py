"""`lcengine samples`: patches of images and labels for training, split by space."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lcengine.cli import options
from lcengine.cli.making import Making, making
from lcengine.cli.options import takes
from lcengine.cli.output import emit, say

if TYPE_CHECKING:
    from lcengine.samples.source import Source
    from lcengine.samples.spec import SampleSpec

Sources = Annotated[
    list[str],
    typer.Argument(help="Products by name, e.g. s2=months.zarr s1=radar.zarr; or a folder."),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Label product, or GeoTIFF of classes; its pixels are taken."),
]
Folder = Annotated[
    str | None,
    typer.Option("--folder", help="Layout of a folder: deepglobe, sen12ms, dfc2020 or images."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Option of the layout, e.g. legend=dfc2020; repeatable."),
]
Patch = Annotated[int, typer.Option("--patch", help="Edge of a patch in pixels.")]
Stride = Annotated[
    int | None,
    typer.Option("--stride", help="Pixels from patch to patch (default: the patch)."),
]
Split = Annotated[
    str | None, typer.Option("--split", help="block (default), or random, which leaks.")
]
AreasFile = Annotated[
    Path | None,
    typer.Option("--areas", help="Polygons with a column split: train, val or test."),
]
Block = Annotated[
    int | None, typer.Option("--block", help="Edge of a block in pixels (default: 4 patches).")
]
Buffer = Annotated[
    int | None,
    typer.Option("--buffer", help="Pixels between patches of two splits (default: the patch)."),
]
Fractions = Annotated[str, typer.Option("--fractions", help="Shares of train,val,test.")]
Strategy = Annotated[str, typer.Option("--strategy", help="Which candidates to take; see below.")]
Number = Annotated[
    int | None, typer.Option("--samples", help="Patches to draw, of all splits together.")
]
MinLabelled = Annotated[
    float, typer.Option("--min-labelled", help="Least share of a patch that is labelled.")
]
Centre = Annotated[
    bool, typer.Option("--centre", help="Patches whose middle pixel is labelled, at every pixel.")
]
Seed = Annotated[int, typer.Option("--seed", help="Decides all that is drawn.")]


def _source(
    sources: Sources,
    labels: Labels = None,
    legend: options.LegendName = None,
    bands: options.Bands = None,
    resampling: options.Resampling = None,
    folder: Folder = None,
    layout_options: Set = None,
) -> Source:
    """The options that say what samples are cut from, as a source."""
    from lcengine.errors import InputError

    if folder is not None:
        strange = {
            "--labels": labels, "--legend": legend, "--bands": bands, "--resampling": resampling
        }  # fmt: skip
        given = [name for name, value in strange.items() if value]
        if given or len(sources) != 1:
            raise InputError(
                f"--folder takes one folder and --set, got {', '.join([*sources, *given])}"
            )
        from lcengine.samples.folders import open_folder

        chosen = {k: _value(v) for k, v in options.assigned(layout_options, "--set").items()}
        return open_folder(folder, sources[0], **chosen)
    if labels is None or layout_options:
        raise InputError(
            "products need --labels, and no --set; folders with labels of their own need --folder"
        )
    from lcengine.samples.stack_source import open_stack

    chosen, how = options.by_source(bands, resampling)
    return open_stack(
        options.assigned(sources, "a source"),
        labels,
        legend=options.legend(legend),
        bands=chosen,
        resampling=how,
    )


def _value(text: str) -> Any:
    """A number, true, false or a list as JSON writes them; anything else is text."""
    try:
        return jsonlib.loads(text)
    except ValueError:
        return text


def _spec(
    patch: Patch = 64,
    stride: Stride = None,
    split: Split = None,
    areas: AreasFile = None,
    block: Block = None,
    buffer: Buffer = None,
    fractions: Fractions = "0.7,0.15,0.15",
    strategy: Strategy = "all",
    samples: Number = None,
    min_labelled: MinLabelled = 0.0,
    centre: Centre = False,
    seed: Seed = 0,
) -> SampleSpec:
    """The options that say which patches are taken, as a recipe."""
    from lcengine.samples.spec import SampleSpec

    polygons = None
    if areas is not None:
        from lcengine.samples.areas import read_areas

        polygons = read_areas(areas)
    return SampleSpec(
        patch=patch,
        stride=stride,
        block=block,
        buffer=buffer,
        fractions=_shares(fractions),
        split=split or ("block" if areas is None else "areas"),
        areas=polygons,
        strategy=strategy,
        samples=samples,
        min_labelled=min_labelled,
        centre=centre,
        seed=seed,
    )


def _shares(text: str) -> tuple[float, float, float]:
    from lcengine.errors import InputError

    try:
        train, val, test = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"--fractions is {text!r}, expected three numbers for train, val and test, such as "
            "0.7,0.15,0.15"
        ) from None
    return train, val, test


@takes(_spec, _source, making)
def samples(
    spec: SampleSpec,
    source: Source,
    making: Making,
    *,
    picture: options.Picture = None,
    json: options.AsJson = False,
) -> None:
    """Cut patches of images and labels, split by space. The same command resumes."""
    from lcengine.quicklook import check_picture
    from lcengine.samples.picture import draw
    from lcengine.samples.plan import plan_samples
    from lcengine.store import provenance

    if picture is not None:
        check_picture(picture)
    request = {"source": source.to_json(), "spec": spec.to_json()}
    path = making.run(lambda: plan_samples(source, spec), request, json)
    facts = provenance(path)
    emit(_summary(path, facts, json), json)
    for name, number in facts["empty"].items():
        if number:
            say(f"{number} patches have no valid pixel of {name}")
    for name, absent in _lacking(facts):
        say(f"{name} has none of {', '.join(absent)}; another --seed or smaller --block may help")
    if picture is not None:
        draw(path, picture)
        say(f"wrote {picture}")


def _lacking(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Splits in which classes of the others are absent."""
    names = {str(e["code"]): e["name"] for e in facts["legend"]["entries"]}
    used = {name: split["pixels"] for name, split in facts["splits"].items() if split["samples"]}
    there = [code for code in names if any(pixels.get(code) for pixels in used.values())]
    absent = {n: [names[c] for c in there if not pixels.get(c)] for n, pixels in used.items()}
    return [(name, classes) for name, classes in absent.items() if classes]


def _summary(path: str, facts: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """What was made; for people the shares of classes instead of their pixels."""
    names = {str(e["code"]): e["name"] for e in facts["legend"]["entries"]}
    head = {
        "product": path,
        "patch": facts["patch"],
        "inputs": {entry["name"]: list(entry["bands"]) for entry in facts["inputs"]},
        "run_id": facts["run_id"],
    }
    if as_json:
        return {**head, "splits": facts["splits"], "empty": facts["empty"]}
    splits = {}
    for name, split in facts["splits"].items():
        total = max(sum(split["pixels"].values()), 1)
        pixels = sorted(split["pixels"].items(), key=lambda item: -item[1])
        shares = [f"{names[code]} {n / total:.1%}" for code, n in pixels if n]
        blocks = "" if facts["spec"]["split"] == "random" else f" of {split['blocks']} blocks"
        splits[name] = [f"{split['samples']} samples{blocks}", *shares]
    return {**head, **splits}


def choices() -> str:
    """What splits and strategies there are, for the end of the help."""
    from lcengine.samples.spec import FORMS, STRATEGIES

    lines = []
    for option, forms in (("--split", FORMS), ("--strategy", STRATEGIES)):
        lines.append(f"[bold]{option}[/bold]")
        lines += [f"  [cyan]{escape(form)}[/cyan]: {escape(text)}" for form, text in forms.items()]
    return "\n\n".join(lines)
