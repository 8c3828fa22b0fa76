"""Options that several commands share, and how they become a request."""

from __future__ import annotations

import builtins
import inspect
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from lcengine.aoi import Aoi
    from lcengine.catalog import Query
    from lcengine.grid import Grid
    from lcengine.legends import Legend

Source = Annotated[
    str,
    typer.Argument(
        help="A STAC API (URL), a static catalogue (catalog.json), an items file (JSON, NDJSON, "
        "stac-geoparquet) or a folder of images (with -c rgb or rgbn)."
    ),
]
Collections = Annotated[
    list[str] | None,
    typer.Option(
        "--collection",
        "-c",
        help="Collection id or sensor, e.g. sentinel-2-l2a; several with commas.",
    ),
]
Datetime = Annotated[
    str | None,
    typer.Option(
        "--datetime", help="2018-04-01/2018-09-30 (both days included), 2018-04, ../2018-04-01."
    ),
]
Bbox = Annotated[
    str | None, typer.Option("--bbox", help="west,south,east,north in degrees (WGS 84).")
]
AoiFile = Annotated[
    Path | None,
    typer.Option("--aoi", help="GeoJSON polygon; pixels with their centre outside are nodata."),
]
MaxCloud = Annotated[
    float | None, typer.Option("--max-cloud", help="Largest eo:cloud_cover in percent.")
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Property filter, e.g. 's2:mgrs_tile=31UDS'; repeatable."),
]
Orbit = Annotated[
    str | None, typer.Option("--orbit", help="Direction of flight: ascending or descending.")
]
Offset = Annotated[
    float | None,
    typer.Option(
        "--offset",
        help="Additive reflectance offset that overrides the catalogue's statement: 0 or -0.1.",
    ),
]
Signer = Annotated[
    str | None,
    typer.Option("--signer", help="Hook module:function that signs addresses inside the tasks."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="Private host that assets may lie on; repeatable."),
]
Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="Where tiles are computed: local, local:workers=2,threads=4,memory=8GiB, "
        "tcp://host:8786, tls://host:8786 or a YAML file (see cluster/).",
    ),
]
Store = Annotated[
    str | None,
    typer.Option("--store", help="icechunk for a versioned repository (default: plain Zarr)."),
]
Retries = Annotated[int, typer.Option("--retries", help="Further attempts of a tile that failed.")]
Patience = Annotated[
    float,
    typer.Option("--patience", help="Seconds without a finished tile before the run gives up."),
]
WorkerTimeout = Annotated[
    float,
    typer.Option("--worker-timeout", help="Seconds without any worker before the run gives up."),
]
Like = Annotated[
    str | None,
    typer.Option("--like", help="Take the pixels of this product, GeoTIFF, PNG or JPEG."),
]
Crs = Annotated[
    str | None, typer.Option("--crs", help="CRS of the pixels, e.g. EPSG:32631 (default: UTM).")
]
Resolution = Annotated[
    float | None, typer.Option("--resolution", help="Pixel size in units of the CRS.")
]
TileSize = Annotated[
    int | None, typer.Option("--tile", help="Tile edge in pixels, a multiple of 16.")
]
LegendName = Annotated[
    str | None,
    typer.Option(
        "--legend",
        help="A legend's name, a style (.qml, .txt, .clr), a table (.csv, .json, .toml) or a "
        "raster with a colour table (default: that of the input, or one made of its values).",
    ),
]
Bands = Annotated[
    list[str] | None,
    typer.Option("--bands", help="Bands of a source, e.g. s2=blue,green,red; repeatable (all)."),
]
Resampling = Annotated[
    list[str] | None,
    typer.Option("--resampling", help="nearest, bilinear or average, or s1=average; repeatable."),
]
Picture = Annotated[Path | None, typer.Option("--picture", help="Also draw it into this PNG.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]


def connector(target: str) -> Callable[[], AbstractContextManager[Any]]:
    """Opens the cluster when called; a target that is none is refused at once."""
    from lcengine.cluster import connect
    from lcengine.cluster.target import parse

    parse(target)
    return lambda: connect(target)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what runs is finished, and the same command resumes."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def takes(*builds: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `builds`; the command gets what each makes of its own first.

    Typer reads options off a signature, so this writes the signatures into one.
    """
    shared = [_parameters(build) for build in builds]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = _parameters(command)[len(builds) :]

        def run(**given: Any) -> None:
            made = [
                build(**{p.name: given.pop(p.name) for p in parameters})
                for build, parameters in zip(builds, shared, strict=True)
            ]
            command(*made, **given)

        every = [p for parameters in (*shared, own) for p in parameters]
        merged = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {p.name: p.annotation for p in merged}
        run.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        return run

    return decorate


class _Names(dict[str, Any]):
    """Names of a module; those that only type checkers import are Any."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters with their annotations evaluated."""
    names = _Names(vars(inspect.getmodule(function)))
    hints = get_type_hints(function, globalns={}, localns=names, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return [p.replace(annotation=hints.get(p.name, Any)) for p in parameters]


def area(bbox: str | None, aoi: Path | None) -> Aoi | None:
    """The area of interest, from one of the two options."""
    from lcengine.aoi import Aoi
    from lcengine.errors import AoiError

    if bbox is not None and aoi is not None:
        raise AoiError("both --bbox and --aoi are given; expected one of them")
    if bbox is not None:
        return Aoi.from_bbox(bbox)
    return Aoi.from_file(aoi) if aoi is not None else None


def grid(
    like: Like = None,
    bbox: Bbox = None,
    aoi: AoiFile = None,
    crs: Crs = None,
    resolution: Resolution = None,
    tile: TileSize = None,
) -> Grid:
    """The pixels of a product to make: those of another, or an area with CRS and pixel size."""
    from lcengine.crs import utm_of
    from lcengine.errors import InputError
    from lcengine.grid import Grid

    where = area(bbox, aoi)
    if like is not None:
        if where is not None or crs is not None or resolution is not None:
            raise InputError(
                "--like says which pixels; leave out --bbox, --aoi, --crs and --resolution"
            )
        return _grid_like(like, tile)
    if where is None or resolution is None:
        raise InputError(
            "nothing says which pixels; give --like PRODUCT, or --bbox or --aoi with --resolution"
        )
    return Grid.from_aoi(where, crs=crs or utm_of(where.bounds), resolution=resolution, tile=tile)


def _grid_like(path: str, tile: int | None) -> Grid:
    """The grid of a product, or the pixels of a local image."""
    from dataclasses import replace

    from lcengine import store
    from lcengine.crs import pixel_crs
    from lcengine.grid import Grid
    from lcengine.imagefile import header, is_image

    if is_image(path):
        found = header(path)
        crs = found.crs or pixel_crs(Path(path).name)
        return Grid.from_pixels(crs, found.transform, found.shape, tile)
    own = store.grid_of(path)
    return own if tile is None else replace(own, tile=tile)


def legend(name: str | None) -> Legend | None:
    """The legend of that name or file, None where none is named."""
    from lcengine.classmap import find_legend

    return None if name is None else find_legend(name)


def pairs(text: str | None, option: str) -> dict[str, str]:
    """`value=class` pairs with commas, from the last `=` of each; `InputError` for what is none."""
    from lcengine.errors import InputError

    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, (text or "").split(","))):
        value, _, target = (word.strip() for word in part.rpartition("="))
        if not (value and target) or value in found:
            raise InputError(
                f"{option} has {part!r}, expected value=class with each value once, as in "
                "maize=1,Weizen=2"
            )
        found[value] = target
    return found


def assigned(texts: list[str] | None, what: str) -> dict[str, str]:
    """Options `name=value`, each name once; `InputError` for what is none."""
    from lcengine.errors import InputError

    out: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not (sign and name and value) or name in out:
            raise InputError(f"{what} is {text!r}, expected name=value with each name once")
        out[name] = value
    return out


def by_source(
    bands: list[str] | None, resampling: list[str] | None
) -> tuple[dict[str, list[str]], str | dict[str, str]]:
    """Bands of sources, and one resampling for all or that of sources, from their options."""
    from lcengine.errors import InputError

    named = [text for text in resampling or () if "=" in text]
    common = [text for text in resampling or () if "=" not in text]
    if common and (named or len(common) > 1):
        raise InputError(f"--resampling is {resampling}, expected one for all, or name=method")
    chosen = {
        name: [part.strip() for part in text.split(",")]
        for name, text in assigned(bands, "--bands").items()
    }
    if common:
        return chosen, common[0]
    return chosen, assigned(named, "--resampling") or "nearest"


def query_of(
    source: str,
    collections: list[str] | None,
    datetime: str | None,
    max_cloud: float | None,
    where: list[str] | None,
    orbit: str | None = None,
) -> Query:
    """The catalogue query without an area."""
    from lcengine.catalog import Query

    return Query(
        source=source,
        collections=tuple(collections or ()),
        datetime=datetime,
        max_cloud=max_cloud,
        where=tuple(Query.parse_where(text) for text in where or ()),
        orbit=orbit,
    )
