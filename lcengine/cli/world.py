"""`lcengine simulate` and `lcengine demo`: an archive with known truth, and the main job on it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from lcengine.cli import options
from lcengine.cli.output import emit, say


def simulate(
    folder: Annotated[Path, typer.Argument(help="Folder to write (new, or an older simulation).")],
    size: Annotated[int, typer.Option("--size", help="Width and height in 10 m pixels.")] = 1024,
    dates: Annotated[int, typer.Option("--dates", help="Overpasses of Sentinel-2.")] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same files.")] = 0,
    period: Annotated[
        str, typer.Option("--period", help="First and last day.")
    ] = "2023-04-01/2023-09-30",
    second_zone: Annotated[
        bool,
        typer.Option("--second-zone", help="Eastern granules of Sentinel-2 in the next UTM zone."),
    ] = False,
    sensors: Annotated[
        str, typer.Option("--sensors", help="Some of s2, s1, planet; comma-separated.")
    ] = "s2",
    labels: Annotated[
        bool, typer.Option("--labels", help="Also coarse, vector and point labels.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="Write on a Dask cluster that sees the folder, named as for composite "
            "(default: threads of this process).",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw every layer into this PNG or JPEG.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace an older simulation of other options.")
    ] = False,
    json: options.AsJson = False,
) -> None:
    """Write a simulated archive of one landscape: COGs, a STAC catalogue and the truth."""
    from lcengine.simulate import SimulationOptions, gallery
    from lcengine.simulate import simulate as write
    from lcengine.simulate.stac import COLLECTIONS

    asked = SimulationOptions(
        size=size,
        dates=dates,
        seed=seed,
        period=period,
        second_zone=second_zone,
        sensors=tuple(name.strip() for name in sensors.split(",")),
        labels=labels,
    )
    if picture is not None:
        gallery.check_name(picture)
    say(f"simulating {sensors} over {size} x {size} pixels of 10 m into {folder} ...")
    opened = options.connector(cluster)() if cluster else nullcontext()
    with opened as client:
        world = write(folder, asked, client=client, restart=restart)
    if picture is not None:
        gallery.draw(world, picture)
    emit(
        {
            "catalog": str(world.catalog),
            "truth": str(world.truth),
            "items": len(world.item_ids),
            **({"labels": str(world.labels)} if labels else {}),
            **({} if picture is None else {"picture": str(picture)}),
        },
        json,
    )
    collection = next(name for name in COLLECTIONS if (folder / name).is_dir())
    say(f"next: lcengine composite {world.catalog} -c {collection} -o composite.zarr")


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for everything the demo writes.")] = Path(
        "demo"
    ),
    size: Annotated[int, typer.Option("--size", help="Width and height in 10 m pixels.")] = 1024,
    dates: Annotated[int, typer.Option("--dates", help="Number of overpasses.")] = 24,
    json: options.AsJson = False,
) -> None:
    """Simulate, serve as a STAC API, composite on a Dask cluster, compare with the truth."""
    from lcengine.simulate.demo import run

    emit(run(folder, size=size, dates=dates, say=say), json)
    activate = "" if os.environ.get("VIRTUAL_ENV") else "  source .venv/bin/activate\n"
    say(
        "errors are in units of reflectance (0 to 1) and dB; what remains is mostly crops that "
        "changed between the few clear dates, and speckle\n"
        f"look at {folder}/comparison.png, then try:\n{activate}"
        f"  lcengine info {folder}/composite.zarr\n"
        f"  lcengine quicklook {folder}/composite.zarr --bands nir,red,green -o infrared.png\n"
        f"  lcengine quicklook {folder}/radar.zarr --bands vh -o radar.png\n"
        f"  lcengine plan {folder}/archive/catalog.json -c sentinel-2-l2a\n"
        f"  lcengine composite {folder}/archive/catalog.json -c sentinel-2-l2a "
        f"--mask geomad --outliers mad:3 -o {folder}/screened.zarr"
    )
