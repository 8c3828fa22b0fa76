"""Regions of scenes that lie so near each other that a split must keep them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import STRtree, box

from lcengine.locate import transformer
from lcengine.samples.source import Scene

BUFFER = 2560.0
"""Metres that stay between regions of different splits: a patch of 256 pixels of 10 m."""
DEGREE = 110_000.0
"""Metres of the shortest degree of latitude, rounded down, so that boxes are never too small."""
STEEPEST = 89.0
"""Latitude beyond which a metre is no longer expressed as degrees of longitude."""

FLOAT = npt.NDArray[np.float64]


def joined(regions: Sequence[str], scenes: Sequence[Scene], buffer: float) -> list[str]:
    """The group of every scene: its region, with all regions nearer than `buffer` metres.

    A group is called after its first region. Nearness is that of boxes along the parallels and
    meridians around the scenes' corners, so regions closer than `buffer` always share a group, and
    some that are a little farther do, too. Scenes without a place stay with their region alone.
    """
    names = sorted(set(regions))
    number = {name: i for i, name in enumerate(names)}
    member = np.array([number[name] for name in regions], dtype=np.int64)
    boxes, owner = _boxes(scenes, member, buffer)
    first, second = STRtree(boxes).query(boxes, predicate="intersects")
    rows, columns = owner[first], owner[second]
    near = coo_array((np.ones(rows.size, np.bool_), (rows, columns)), (len(names), len(names)))
    _, component = connected_components(near, directed=False)
    called: dict[int, str] = {}
    for name, part in zip(names, component.tolist(), strict=True):
        called.setdefault(part, name)
    return [called[int(component[i])] for i in member]


def _boxes(
    scenes: Sequence[Scene], member: npt.NDArray[np.int64], buffer: float
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Boxes in degrees, half a buffer wider than the placed scenes, and whose they are.

    A box across the antimeridian is there twice, on both sides of the map.
    """
    by_crs: dict[str, list[int]] = defaultdict(list)
    for i, scene in enumerate(scenes):
        if scene.crs is not None:
            by_crs[scene.crs].append(i)
    made, owner = [], []
    for crs, indices in by_crs.items():
        lon, lat = _corners(crs, [scenes[i] for i in indices])
        middle = lon[:, :1]
        lon = middle + (lon - middle + 180.0) % 360.0 - 180.0
        up = buffer / 2 / DEGREE
        steep = np.minimum(np.abs(lat).max(axis=1) + up, STEEPEST)
        side = up / np.cos(np.radians(steep))
        west, east = lon.min(axis=1) - side, lon.max(axis=1) + side
        south, north = lat.min(axis=1) - up, lat.max(axis=1) + up
        for shift in (-360.0, 0.0, 360.0):
            seen = (east + shift >= -180.0) & (west + shift <= 180.0)
            made.append(box(west + shift, south, east + shift, north)[seen])
            owner.append(member[indices][seen])
    if not made:
        return np.empty(0, np.object_), np.empty(0, np.int64)
    return np.concatenate(made), np.concatenate(owner)


def _corners(crs: str, scenes: Sequence[Scene]) -> tuple[FLOAT, FLOAT]:
    """Longitude and latitude (scene, corner)."""
    places = np.array([[one.transform[0], one.transform[2], one.transform[5]] for one in scenes])
    sizes = np.array([one.shape for one in scenes], dtype=np.float64)
    pixel, left, top = places.T
    right, bottom = left + pixel * sizes[:, 1], top - pixel * sizes[:, 0]
    x = np.stack([left, right, left, right], axis=1)
    y = np.stack([top, top, bottom, bottom], axis=1)
    lon, lat = transformer(crs, "EPSG:4326").transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)
