"""Colour-coded masks and class codes, both ways."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from lcengine.addresses import DRIVERS
from lcengine.classmap import read_classes, save_classes, save_png
from lcengine.errors import InputError
from lcengine.imagefile import header
from lcengine.legends import Legend
from lcengine.legends.base import Codes


def to_codes(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    legend: Legend,
    *,
    tolerance: int = 0,
    unknown: Literal["error", "ignore"] = "error",
    suffix: str = ".tif",
) -> list[Path]:
    """Masks of colours as masks of codes: a file, or the images of a folder into a folder.

    `tolerance`, `unknown`: as in `Legend.from_rgb`. A palette that is not the legend's own is one
    of colours. `suffix`, for folders: .tif (keeps the place on Earth, and has the legend's nodata
    and names) or .png. Returns the files written. Raises `InputError` that names the file for
    colours the legend does not have; nothing is left of the others then.
    """
    pairs = _pairs(Path(source), Path(output), suffix)

    def read(path: Path) -> Codes:
        return read_classes(path, legend, tolerance=tolerance, unknown=unknown, palette="colours")

    return _converted(pairs, read, lambda t, codes, path: save_mask(t, codes, legend, like=path))


def to_colours(
    source: str | os.PathLike[str], output: str | os.PathLike[str], legend: Legend
) -> list[Path]:
    """Masks of codes as PNGs of the legend's colours: a file, or a folder into a folder.

    Nodata is transparent, so `to_codes` gives the codes back. Returns the files written. Raises
    `InputError` that names the file for codes the legend does not have.
    """
    pairs = _pairs(Path(source), Path(output), ".png")
    return _converted(
        pairs,
        lambda path: read_classes(path, legend),
        lambda target, codes, _: save_png(target, codes, legend, colours=True),
    )


def _converted(
    pairs: list[tuple[Path, Path]],
    read: Callable[[Path], Codes],
    save: Callable[[Path, Codes, Path], None],
) -> list[Path]:
    """Convert all files, or none: a part of them would pass for the whole."""
    folder = pairs[0][1].absolute().parent
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist; create it")
    with TemporaryDirectory(dir=folder, prefix=".") as scratch:
        for path, target in pairs:
            with _naming(path):
                codes = read(path)
            save(Path(scratch, target.name), codes, path)
        for _, target in pairs:
            os.replace(Path(scratch, target.name), target)
    return [target for _, target in pairs]


def save_mask(
    path: Path, codes: Codes, legend: Legend, like: str | os.PathLike[str] | None = None
) -> None:
    """Codes (y, x) as a GeoTIFF with the place on Earth of the image `like`, or as a PNG."""
    if path.suffix.lower() == ".png":
        save_png(path, codes, legend)
        return
    if like is None:
        save_classes(path, codes, legend)
        return
    place = header(like)
    save_classes(path, codes, legend, crs=place.crs, transform=place.transform)


def _pairs(source: Path, output: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Which file becomes which; the folder of the output is made."""
    if not source.exists():
        raise InputError(f"{source} does not exist; give a mask or a folder of masks")
    if not source.is_dir():
        check_apart([source], [output])
        return [(source, output)]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in DRIVERS)
    if not found:
        raise InputError(f"folder {source} has no images; expected {', '.join(DRIVERS)}")
    targets: dict[Path, Path] = {}
    for path in found:
        target = output / f"{path.stem}{suffix}"
        if target in targets:
            raise InputError(
                f"{path} and {targets[target]} would both become {target.name}; rename one"
            )
        targets[target] = path
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the folder of the masks themselves; give another one")
    make_folder(output)
    check_apart(found, list(targets))
    return [(path, target) for target, path in targets.items()]


def make_folder(folder: Path) -> None:
    """Make a folder to write into; `InputError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"folder {folder} cannot be made: {error.strerror}; give another one"
        ) from error


def check_apart(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """`InputError` where a mask would be written over a file that it is made from."""
    kept = {path.resolve() for path in sources}
    for target in targets:
        if target.resolve() in kept:
            raise InputError(f"{target} would be written over; give another place for the masks")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors about pixels say of which file."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from error
