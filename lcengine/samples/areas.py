"""Splits by areas that a user has drawn: polygons that say train, val or test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from lcengine.errors import InputError
from lcengine.labels.vectors import projected, read_vectors
from lcengine.samples.source import Scene
from lcengine.samples.spec import SPLITS, Areas, SampleSpec

OUTSIDE = 255
"""Split of a patch that lies in no area, or too near to another split's."""
COLUMN = "split"
"""The attribute of a polygon that names its split."""
_TOLERANCE = 0.01
"""Of a pixel: a border this close to the edge of a patch lies on it. Coordinates in degrees are
often rounded to seven digits, a centimetre."""
_BATCH = 2**16
"""Patches that are looked at at once: each is a geometry of its own."""
_OVERLAP = 1e-3
"""Share of the smaller of two areas that may lie in both: borders drawn twice, and rounding."""


def read_areas(path: str | os.PathLike[str], layer: str | None = None) -> Areas:
    """The areas of a vector file, whose polygons name their split in a column `split`.

    Raises `InputError` for what `read_vectors` refuses, where the column is absent or says anything
    but train, val and test, where a feature is no polygon, no area is for training, or areas of two
    splits overlap.
    """
    frame = read_vectors(path, layer)
    if COLUMN not in frame.columns:
        there = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise InputError(
            f"{path} has no column {COLUMN!r} (it has {there or 'none'}); give every polygon one "
            f"that says {', '.join(SPLITS)}"
        )
    said = sorted({str(value) for value in frame[COLUMN]} - set(SPLITS))
    if said:
        raise InputError(f"{path} says {COLUMN} = {', '.join(said)}; expected {', '.join(SPLITS)}")
    if not frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        raise InputError(f"{path} has lines or points; expected polygons alone")
    shapes = {
        name: shapely.union_all(frame.geometry.to_numpy()[(frame[COLUMN] == name).to_numpy()])
        for name in SPLITS
        if (frame[COLUMN] == name).any()
    }
    if SPLITS[0] not in shapes:
        raise InputError(f"{path} has no area for {SPLITS[0]}; expected one at least")
    _check_apart(path, shapes)
    crs = pyproj.CRS.from_user_input(frame.crs).to_wkt()
    polygons = {name: str(shapely.to_wkb(shape, hex=True)) for name, shape in shapes.items()}
    return Areas(crs, tuple(polygons.items()))


def _check_apart(path: str | os.PathLike[str], shapes: Mapping[str, Any]) -> None:
    names = list(shapes)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            both = shapely.intersection(shapes[name], shapes[other]).area
            if both > _OVERLAP * min(shapes[name].area, shapes[other].area):
                raise InputError(
                    f"{path} has areas for {name} and {other} that overlap; draw them apart"
                )


def splits(
    spec: SampleSpec, scene: Scene, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """(n) split of the patches whose upper-left pixels are given, or `OUTSIDE`.

    A patch is in a split where it lies wholly in its area, and at least the buffer away from the
    areas of the splits that come after its own in `SPLITS`: training gives way to validation, and
    both to test. So patches of two splits are the buffer apart, and every patch inside a test area
    is a test patch. `InputError` for a scene without a CRS.
    """
    assert spec.areas is not None
    if scene.crs is None:
        raise InputError(
            f"scene {scene.name} has no CRS, so no area lies in it; georeference it, or take split "
            "block, which gives such scenes to a split as a whole"
        )
    shapes = _placed(spec.areas, scene.crs)
    out = np.full(len(rows), OUTSIDE, np.uint8)
    size, _, left, _, _, top = scene.transform[:6]
    slack, edge = _TOLERANCE * size, spec.patch * size
    for first in range(0, len(rows), _BATCH):
        part = slice(first, first + _BATCH)
        x, y = left + cols[part] * size, top - rows[part] * size
        boxes = shapely.box(x + slack, y - edge + slack, x + edge - slack, y - slack)
        out[part] = _splits(shapes, boxes, spec.gap * size)
    return out


def _splits(
    shapes: Mapping[str, Any], boxes: npt.NDArray[Any], gap: float
) -> npt.NDArray[np.uint8]:
    out = np.full(len(boxes), OUTSIDE, np.uint8)
    for number, name in enumerate(SPLITS):
        if name not in shapes:
            continue
        inside = np.asarray(shapely.covers(shapes[name], boxes))
        for later in SPLITS[number + 1 :]:
            if gap and later in shapes:
                inside &= ~shapely.dwithin(shapes[later], boxes, gap)
        out[inside] = number
    return out


def area_of(spec: SampleSpec, split: str, crs: str, size: float) -> BaseGeometry:
    """Where every pixel is at least the buffer away from the patches of all other splits.

    The area of a split less what lies too near to those that come after it in `SPLITS`, empty where
    the split has none; in `crs`, that of the scenes, whose pixels are of `size`.
    """
    assert spec.areas is not None
    shapes = _placed(spec.areas, crs)
    found: BaseGeometry = shapes.get(split, shapely.Polygon())
    for later in SPLITS[SPLITS.index(split) + 1 :]:
        if later in shapes:
            found = found.difference(shapes[later].buffer(spec.gap * size))
    return found


@lru_cache(maxsize=8)
def _placed(areas: Areas, crs: str) -> dict[str, Any]:
    """The areas in a CRS, prepared; those of one split as one geometry."""
    names = [name for name, _ in areas.polygons]
    series = gpd.GeoSeries(shapely.from_wkb([text for _, text in areas.polygons]), crs=areas.crs)
    shapes = projected(series, pyproj.CRS.from_user_input(crs)).to_numpy()
    shapely.prepare(shapes)
    return dict(zip(names, shapes, strict=True))
