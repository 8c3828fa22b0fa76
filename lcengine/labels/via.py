"""Annotations of the VGG Image Annotator (VIA 1 and 2) as masks of class codes.

VIA stores whole pixels: x = 3 is the middle of the fourth column. A region covers the pixels whose
middle lies in it, and those that its outline passes: the line of pixels (Bresenham 1965) that
drawing programs paint. So a rectangle of width 2 covers three columns, an oblique edge belongs to
its region as much as an upright one does, and a sliver thinner than a pixel is not lost. Polygons
that cross themselves are filled by the even-odd rule.

Format: Dutta & Zisserman 2019, https://doi.org/10.1145/3343031.3350535; the angle `theta` of an
ellipse is in radians, from x towards y (down), as the canvas of a browser takes it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from lcengine.errors import InputError
from lcengine.imagefile import header
from lcengine.labels.colors import check_apart, make_folder, save_mask
from lcengine.legends import Legend, named
from lcengine.legends.base import Codes

BOOL = npt.NDArray[np.bool_]
FLOAT = npt.NDArray[np.float64]

_SHAPES: Mapping[str, tuple[str, ...]] = {
    "polygon": ("all_points_x", "all_points_y"),
    "polyline": ("all_points_x", "all_points_y"),
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "point": ("cx", "cy"),
}
_FARTHEST = 1e9
_EXPECTED = "expected a project or an export of the VGG Image Annotator"


@dataclass(frozen=True)
class Region:
    """One outline. `where`: for messages. `numbers`: of its shape, in pixels and radians."""

    where: str
    shape: str
    numbers: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Annotation:
    """The regions of one image, in the order in which they were drawn."""

    filename: str
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Drawing:
    """How regions become codes.

    `attribute`: the region attribute that names the class; `mapping`: its values → codes, else they
    are names or codes of the legend. Without an attribute every region is of class `code`.
    `background`: code of all other pixels, None for nodata. `priority`: classes that cover others,
    the highest first, by name or code; among equals the later region wins. `width`: of polylines,
    `radius`: of points, in pixels.
    """

    legend: Legend
    attribute: str | None = None
    mapping: Mapping[str, int] = field(default_factory=dict)
    code: int | None = None
    background: int | None = None
    priority: tuple[str | int, ...] = ()
    width: float = 1.0
    radius: float = 0.0

    def __post_init__(self) -> None:
        if (self.attribute is None) == (self.code is None):
            raise InputError(
                "regions get their class by an attribute or are all of one; give attribute or code"
            )
        fixed = [code for code in (self.code, self.background) if code is not None]
        for code in (*fixed, *self.mapping.values()):
            self.legend.entry(code)
        if not (self.width > 0 and self.radius >= 0):
            raise InputError(
                f"width {self.width} and radius {self.radius} are pixels; expected positive ones"
            )

    def code_of(self, region: Region) -> int:
        """Class code of a region; `InputError` without the attribute, or for an unknown value."""
        if self.attribute is None:
            assert self.code is not None  # __post_init__ asks for one of the two
            return self.code
        value = _value(region, self.attribute)
        if value in self.mapping:
            return self.mapping[value]
        if self.mapping:
            raise InputError(
                f"{region.where} has {self.attribute} {value!r}, which the mapping lacks; it has "
                f"{', '.join(self.mapping)}"
            )
        try:
            return self.legend.find(value).code
        except InputError as error:
            raise InputError(f"{region.where}: {error}; or give a mapping") from error

    def rank(self, code: int) -> int:
        """Place in the priority, 0 the highest; classes that are not named come last."""
        named = [p if isinstance(p, int) else self.legend.find(p).code for p in self.priority]
        return named.index(code) if code in named else len(named)


def read_via(path: str | os.PathLike[str]) -> tuple[Annotation, ...]:
    """The annotated images of a VIA 1 or 2 project or JSON export, by file name.

    Raises `InputError` for broken JSON, what is no VIA file, an unknown shape and bad numbers.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; {_EXPECTED}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); {_EXPECTED}") from error
    images = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    if not isinstance(images, dict) or not images:
        raise InputError(f"{path} has no annotated images; {_EXPECTED}")
    found: dict[str, Annotation] = {}
    for key, entry in images.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise InputError(f"{path}: image {key!r} has no filename; {_EXPECTED}")
        name = entry["filename"]
        if name in found:
            raise InputError(f"{path} has image {name} twice; join its regions in one")
        found[name] = Annotation(name, _regions(entry.get("regions"), f"{path}: {name}"))
    return tuple(found[name] for name in sorted(found))


def values(annotations: Sequence[Annotation], attribute: str) -> tuple[str, ...]:
    """The values that a region attribute has, sorted; `InputError` for a region without it."""
    every = (region for annotation in annotations for region in annotation.regions)
    return tuple(sorted({_value(region, attribute) for region in every}))


def legend_of(
    annotations: Sequence[Annotation], attribute: str, name: str = "annotations"
) -> Legend:
    """A legend of the values of a region attribute: codes 1 … K in their sorted order."""
    return named(dict(enumerate(values(annotations, attribute), 1)), name, "classes of the labels")


def draw(annotation: Annotation, shape: tuple[int, int], drawing: Drawing) -> Codes:
    """The mask (y, x) of an image of that (height, width): codes of the legend's dtype.

    Regions are cut at the edge of the image. `InputError` for one that lies wholly beyond it.
    """
    legend = drawing.legend
    fill = legend.nodata if drawing.background is None else drawing.background
    mask: Codes = np.full(shape, fill, legend.dtype)
    coded = [(drawing.code_of(region), region) for region in annotation.regions]
    for code, region in sorted(coded, key=lambda pair: -drawing.rank(pair[0])):
        rows, cols, inside = covered(region, shape, width=drawing.width, radius=drawing.radius)
        mask[rows, cols][inside] = code
    return mask


def write_masks(
    annotations: Sequence[Annotation],
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    drawing: Drawing,
    *,
    suffix: str = ".tif",
) -> list[Path]:
    """Write the mask of every annotated image of folder `images` into folder `output`.

    A mask is called as its image and lies on its grid, with its CRS where it has one. `suffix`:
    .tif or .png. Returns the files. `InputError` for an image that is absent, that its camera says
    to turn, or that a mask would be written over, before any is drawn.
    """
    places = [_image(Path(images), annotation.filename) for annotation in annotations]
    folder = Path(output)
    targets = [folder / f"{place.stem}{suffix}" for place in places]
    if len(set(targets)) < len(targets):
        twice = next(target.name for target in targets if targets.count(target) > 1)
        raise InputError(f"several annotated images would get the mask {twice}; rename them")
    check_apart(places, targets)
    shapes = [_shown(place) for place in places]
    make_folder(folder)
    for annotation, shape, place, target in zip(annotations, shapes, places, targets, strict=True):
        save_mask(target, draw(annotation, shape, drawing), drawing.legend, place)
    return targets


def covered(
    region: Region, shape: tuple[int, int], *, width: float = 1.0, radius: float = 0.0
) -> tuple[slice, slice, BOOL]:
    """Rows and columns of a region's part of an image, and which pixels of that are covered."""
    outline, reach = _outline(region, width, radius)
    left, top, right, bottom = outline.bounds
    y0, y1 = _within(top, bottom, reach, shape[0])
    x0, x1 = _within(left, right, reach, shape[1])
    if y0 >= y1 or x0 >= x1:
        raise InputError(
            f"{region.where} ({region.shape}) lies beyond its image of {shape[1]} × {shape[0]} "
            "pixels; check the size of the image"
        )
    x, y = np.arange(x0, x1, dtype=np.float64)[None], np.arange(y0, y1, dtype=np.float64)[:, None]
    inside = _inside(region, outline, reach, x, y)
    if region.shape in ("polygon", "rect"):
        _paint(shapely.get_coordinates(outline) - (x0, y0), inside)
    return slice(y0, y1), slice(x0, x1), inside


def _within(low: float, high: float, reach: float, size: int) -> tuple[int, int]:
    """First pixel, and the one after the last, that a region may cover along an axis."""
    low, high = max(low - reach, 0.0), min(high + reach, size - 1.0)
    return math.ceil(low - 0.5), math.floor(high + 0.5) + 1


def _paint(corners: FLOAT, inside: BOOL) -> None:
    """Set the line of pixels along a closed outline, (corner, x and y) in the pixels of `inside`.

    At every whole step along an edge's longer axis the nearest pixel, of two the greater one.
    """
    size = np.array(inside.shape[::-1])
    points = [corners]
    for start, end in pairwise(corners):
        axis = int(np.argmax(np.abs(end - start)))
        (low, first), (high, last) = sorted((pair[axis], pair[1 - axis]) for pair in (start, end))
        if low < high:
            steps = np.arange(max(math.ceil(low), 0), min(math.floor(high), size[axis] - 1) + 1)
            across = first + (steps - low) * (last - first) / (high - low)
            points.append(np.stack([steps, across][:: 1 - 2 * axis], axis=1))
    # Far away is beyond the image, too, and fits an integer.
    places = np.floor(np.clip(np.concatenate(points), -1.0, size) + 0.5).astype(np.int64)
    x, y = places[((places >= 0) & (places < size)).all(axis=1)].T
    inside[y, x] = True


def _outline(region: Region, width: float, radius: float) -> tuple[Any, float]:
    """Polygon, line or centre of a region, and how far its pixels lie from that at most."""
    n = region.numbers
    match region.shape:
        case "polygon":
            return shapely.Polygon(_points(region, 3)), 0.0
        case "polyline":
            return shapely.LineString(_points(region, 2)), width / 2
        case "rect":
            return shapely.box(n["x"], n["y"], n["x"] + n["width"], n["y"] + n["height"]), 0.0
        case "circle":
            return shapely.Point(n["cx"], n["cy"]), n["r"]
        case "ellipse":
            return shapely.Point(n["cx"], n["cy"]), max(n["rx"], n["ry"])
    # A point marks the pixel that it lies in.
    return shapely.Point(round(n["cx"]), round(n["cy"])), radius


def _inside(region: Region, outline: Any, reach: float, x: FLOAT, y: FLOAT) -> BOOL:
    """Which of the points x (1, n) and y (m, 1) a region covers."""
    n = region.numbers
    if region.shape == "ellipse":
        cos, sin = math.cos(n.get("theta", 0.0)), math.sin(n.get("theta", 0.0))
        return _touched(
            lambda dx, dy: (
                np.hypot((dx * cos + dy * sin) / n["rx"], (dy * cos - dx * sin) / n["ry"])
                <= 1 + 1e-12
            ),
            x - n["cx"],
            y - n["cy"],
        )
    if region.shape == "circle":
        return _touched(lambda dx, dy: np.hypot(dx, dy) <= reach + 1e-12, x - n["cx"], y - n["cy"])
    if region.shape == "point":
        return np.asarray((x - outline.x) ** 2 + (y - outline.y) ** 2 <= reach**2)
    shapely.prepare(outline)
    if region.shape == "polyline":
        return np.asarray(
            shapely.dwithin(outline, shapely.points(*np.broadcast_arrays(x, y)), reach)
        )
    return np.asarray(shapely.intersects_xy(outline, x, y))


def _touched(holds: Callable[[FLOAT, FLOAT], BOOL], dx: FLOAT, dy: FLOAT) -> BOOL:
    """Pixels at (dx, dy) of a round shape's centre whose middle, or line of pixels, it holds.

    The line has the pixels that the outline crosses within half a pixel along a row or column.
    """
    found = (np.floor(0.5 - dx) == 0) & (np.floor(0.5 - dy) == 0)  # however small it is
    for aside, down in ((0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)):
        found = found | holds(dx + aside, dy + down)
    return np.asarray(found)


def _points(region: Region, least: int) -> FLOAT:
    points = np.stack([region.numbers["all_points_x"], region.numbers["all_points_y"]], axis=1)
    if len(points) < least:
        raise InputError(
            f"{region.where} is a {region.shape} of {len(points)} points, expected {least} or more"
        )
    return points


def _regions(entry: Any, where: str) -> tuple[Region, ...]:
    """Regions of an image: a list, as VIA 2 has it, or a mapping by number, as VIA 1 has it."""
    if entry is None:
        return ()
    if isinstance(entry, dict):  # JSON keeps their order, but "10" may stand before "2"
        numbered = sorted(entry.items(), key=lambda item: (len(item[0]), item[0]))
        entry = [region for _, region in numbered]
    if not isinstance(entry, list):
        raise InputError(f"{where} has regions of {type(entry).__name__}; {_EXPECTED}")
    return tuple(_region(region, f"{where}, region {i}") for i, region in enumerate(entry))


def _region(entry: Any, where: str) -> Region:
    shape = entry.get("shape_attributes") if isinstance(entry, dict) else None
    if not isinstance(shape, dict):
        raise InputError(f"{where} has no shape_attributes; {_EXPECTED}")
    name = str(shape.get("name"))
    if name not in _SHAPES:
        raise InputError(f"{where} is a {name!r}, expected one of {', '.join(_SHAPES)}")
    optional = ("theta",) if name == "ellipse" and "theta" in shape else ()
    try:
        numbers = {key: _numbers(key, shape[key]) for key in (*_SHAPES[name], *optional)}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where} is a {name} with {shape} ({error!r}); expected numbers {_SHAPES[name]}"
        ) from error
    _check_size(numbers, f"{where} is a {name}")
    attributes = entry.get("region_attributes") or {}
    if not isinstance(attributes, dict):
        raise InputError(f"{where} has region_attributes {attributes!r}, expected names and values")
    return Region(where, name, numbers, attributes)


def _numbers(key: str, value: Any) -> float | tuple[float, ...]:
    """A number, or those of all points."""
    if key.startswith("all_") and not isinstance(value, list):
        raise TypeError(f"{key} is no list")
    numbers = tuple(float(member) for member in (value if key.startswith("all_") else [value]))
    if not all(abs(number) <= _FARTHEST for number in numbers):
        raise ValueError(f"{key} is beyond any image")
    return numbers if key.startswith("all_") else numbers[0]


def _check_size(numbers: Mapping[str, Any], what: str) -> None:
    if "all_points_x" in numbers:
        x, y = numbers["all_points_x"], numbers["all_points_y"]
        if len(x) != len(y):
            raise InputError(f"{what} of {len(x)} x and {len(y)} y; expected as many")
    negative = [key for key in ("width", "height", "r") if numbers.get(key, 0) < 0]
    flat = [key for key in ("rx", "ry") if numbers.get(key, 1) <= 0]
    if negative or flat:
        key = (negative + flat)[0]
        raise InputError(f"{what} with {key} {numbers[key]:g}, expected a positive one")


def _value(region: Region, attribute: str) -> str:
    """The text of an attribute; of a checkbox the one option that is ticked."""
    value = region.attributes.get(attribute)
    if isinstance(value, dict):
        ticked = [option for option, on in value.items() if on]
        if len(ticked) > 1:
            raise InputError(
                f"{region.where} has several {attribute}: {', '.join(ticked)}; expected one class"
            )
        value = ticked[0] if ticked else None
    if value is None or not str(value).strip():
        there = ", ".join(region.attributes) or "none"
        raise InputError(
            f"{region.where} has no attribute {attribute!r} (it has {there}); annotate it, or give "
            "all regions one class"
        )
    return str(value).strip()


def _shown(path: Path) -> tuple[int, int]:
    """Size of an image as a browser, and so VIA, shows it."""
    found = header(path)
    if found.turned:
        raise InputError(
            f"{path} is to be turned for showing (EXIF), as VIA did, but its pixels are not; turn "
            "them, e.g. with exiftran -a or mogrify -auto-orient"
        )
    return found.shape


def _image(folder: Path, filename: str) -> Path:
    """The file of an annotated image: below the folder as it is named, or by its name alone."""
    name = PureWindowsPath(filename)  # takes both kinds of separators
    for place in (folder / name.as_posix(), folder / name.name):
        if place.is_file():
            return place
    raise InputError(
        f"image {filename} of the annotations is not in {folder}; give the folder of the images"
    )
