"""The pattern of the ground: holdings, roads between them, fields and plots inside them.

Everything is a function of a point, so the same ground can be looked at in any resolution.
Holdings are the Voronoi cells of a jittered lattice; a road runs along every border. Inside a
holding, fields are rectangles of one orientation and, where there is a settlement, so are streets,
plots and buildings. Coordinates here are metres east and south of the landscape's upper left
corner. Beyond `period` metres the pattern repeats itself, which bounds its tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Voronoi
from shapely import LineString, MultiLineString, box

from lcengine.hashing import mixed

Metres = NDArray[np.float64]
Bounds = tuple[float, float, float, float]
_Seed = tuple[Metres, Metres, NDArray[np.int32]]

ROAD = 12.0
"""Width of a road in metres."""
_STREET = 8.0
_PLOT = (30.0, 32.0)
"""Metres along and across."""
_BLOCK = (_STREET + 5 * _PLOT[0], _STREET + 2 * _PLOT[1])
_HOUSE = ((9.0, 20.0), (8.0, 18.0))
"""Least and greatest metres of a building along and across."""
_EMPTY_PLOTS = 0.15
_MOST_HOLDINGS = 64
_JITTER = 0.45
GARDEN, STREET, HOUSE = 0, 1, 2
"""What a point of a settlement lies on."""


class Place(NamedTuple):
    """Where points lie in the pattern; all arrays have the points' shape."""

    holding: NDArray[np.int32]
    along: Metres
    """Metres from the holding's seed in the direction of its fields."""
    across: Metres
    road: NDArray[np.bool_]


@dataclass(frozen=True)
class Pattern:
    """Holdings on a lattice of `side` × `side`, repeating beyond `side` × `spacing` metres."""

    side: int
    spacing: float
    offset: Metres
    """(2, holding) metres of each seed east and south of its cell's corner."""
    angle: Metres
    """(holding,) direction of the fields in radians."""
    width: Metres
    """(holding,) metres across a field."""
    length: Metres
    """(holding,) metres along a field."""
    salt: int
    """What the hashes of plots start from."""

    @property
    def period(self) -> float:
        """Metres after which the pattern repeats."""
        return self.side * self.spacing

    @property
    def holdings(self) -> int:
        """How many holdings there are before the pattern repeats."""
        return self.side**2

    @property
    def _reach(self) -> float:
        """Metres from a seed that its holding can extend to."""
        return float(np.sqrt(2) * (0.5 + _JITTER) * self.spacing)

    @cached_property
    def _slots(self) -> NDArray[np.int32]:
        """(holding, 2) numbers of fields across and along that may reach into the holding."""
        half = np.ceil(self._reach / np.column_stack([self.width, self.length]))
        return (2 * half).astype(np.int32)

    @cached_property
    def _first(self) -> NDArray[np.int32]:
        """(holding + 1,) index of each holding's first field, and the number of all."""
        return np.concatenate([[0], np.cumsum(self._slots.prod(axis=1))]).astype(np.int32)

    @property
    def fields(self) -> int:
        """How many fields are numbered; not all of them lie inside their holding."""
        return int(self._first[-1])

    def place(self, u: Metres, v: Metres) -> Place:
        """Holding, position in it and whether on a road, for points in metres east and south."""
        own, other = self._nearest(u, v)
        gap = np.hypot(other[0] - own[0], other[1] - own[1])
        to_border = (other[0] ** 2 + other[1] ** 2 - own[0] ** 2 - own[1] ** 2) / (2 * gap)
        holding = own[2]
        cosine, sine = np.cos(self.angle)[holding], np.sin(self.angle)[holding]
        return Place(
            holding,
            -own[0] * cosine - own[1] * sine,
            own[0] * sine - own[1] * cosine,
            to_border < ROAD / 2,
        )

    def _nearest(self, u: Metres, v: Metres) -> tuple[_Seed, _Seed]:
        """The nearest and the second nearest seed of points.

        They are among those of the 5 × 5 cells around: no more than √((0.5 + 0.95)² + 0.95²) = 1.73
        cells away, while the seeds of all other cells are further than 2.05.
        """
        cells = [np.floor(part / self.spacing).astype(np.int32) for part in (u, v)]
        first, second = (np.full(u.shape, np.inf) for _ in range(2))
        which, runner_up = (np.zeros(u.shape, np.int8) for _ in range(2))
        for number in range(25):
            du, dv, _ = self._seed(cells, u, v, np.int8(number))
            distance = du * du + dv * dv
            closer, close = distance < first, distance < second
            runner_up = np.where(closer, which, np.where(close, np.int8(number), runner_up))
            second = np.where(closer, first, np.minimum(second, distance))
            which = np.where(closer, np.int8(number), which)
            first = np.minimum(first, distance)
        return self._seed(cells, u, v, which), self._seed(cells, u, v, runner_up)

    def _seed(
        self,
        cells: list[NDArray[np.int32]],
        u: Metres,
        v: Metres,
        number: NDArray[np.int8] | np.int8,
    ) -> _Seed:
        """The seed in one of 5 × 5 cells around points: metres east and south of them, holding."""
        i, j = cells[0] + (number // 5 - 2), cells[1] + (number % 5 - 2)
        holding = i % self.side * self.side + j % self.side
        return (
            i * self.spacing + self.offset[0][holding] - u,
            j * self.spacing + self.offset[1][holding] - v,
            holding,
        )

    def field(self, place: Place) -> NDArray[np.int32]:
        """Index of the field under each place."""
        h = place.holding
        slots = self._slots[h]
        i = np.floor(place.across / self.width[h]).astype(np.int32) + slots[..., 0] // 2
        j = np.floor(place.along / self.length[h]).astype(np.int32) + slots[..., 1] // 2
        return np.asarray(self._first[h] + i * slots[..., 1] + j, dtype=np.int32)

    def plot(self, place: Place) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """GARDEN, STREET or HOUSE under each place of a settlement, and its plot's hash."""
        cell = [np.floor(part / block) for part, block in zip(place[1:3], _BLOCK, strict=True)]
        inside = [
            part - c * block - _STREET
            for part, c, block in zip(place[1:3], cell, _BLOCK, strict=True)
        ]
        number = [np.floor(part / plot) for part, plot in zip(inside, _PLOT, strict=True)]
        key = _hash(self.salt, place.holding, *cell, *number)
        kind = np.full(key.shape, GARDEN, np.uint8)
        houses = [
            np.abs(part - (n + 0.5) * plot) <= size / 2
            for part, n, plot, size in zip(inside, number, _PLOT, _house(key), strict=True)
        ]
        kind[houses[0] & houses[1] & ~_empty(key)] = HOUSE
        kind[(inside[0] < 0) | (inside[1] < 0)] = STREET
        return kind, key

    # --- vectors ---------------------------------------------------------------------------------

    def nearby(self, bounds: Bounds, margin: float = 0.0) -> tuple[Metres, NDArray[np.int32]]:
        """Seeds (n, 2) within metres east0, south0, east1, south1 and a margin; their holdings."""
        first = np.floor((np.array(bounds[:2]) - margin) / self.period).astype(int)
        last = np.floor((np.array(bounds[2:]) + margin) / self.period).astype(int)
        corners = np.indices((self.side, self.side)).reshape(2, -1) * self.spacing
        own = (corners + self.offset).T
        tiles = [
            (own + np.array([i, j]) * self.period)
            for j in range(first[1], last[1] + 1)
            for i in range(first[0], last[0] + 1)
        ]
        seeds = np.concatenate(tiles)
        holding = np.tile(np.arange(self.holdings, dtype=np.int32), len(tiles))
        low, high = np.array(bounds[:2]) - margin, np.array(bounds[2:]) + margin
        inside = ((seeds >= low) & (seeds <= high)).all(axis=1)
        return seeds[inside], holding[inside]

    def roads(self, bounds: Bounds) -> list[LineString]:
        """Centre lines of the roads, cut to bounds, in metres east and south."""
        seeds, _ = self.nearby(bounds, 4 * self.spacing)
        diagram = Voronoi(seeds)
        area = box(*bounds)
        lines: list[LineString] = []
        for a, b in diagram.ridge_vertices:
            if a < 0 or b < 0:
                continue
            line = LineString(diagram.vertices[[a, b]]).intersection(area)
            parts = line.geoms if isinstance(line, MultiLineString) else [line]
            lines.extend(p for p in parts if isinstance(p, LineString) and p.length > 0)
        return lines

    def houses(self, seed: Metres, holding: int) -> Metres:
        """Corners (n, 4, 2) of the buildings of a holding, were it all settlement."""
        count = [int(np.ceil(self._reach / block)) for block in _BLOCK]
        blocks = [np.arange(-n, n, dtype=float) for n in count]
        axes = (*blocks, np.arange(5.0), np.arange(2.0))
        cell_a, cell_b, a, b = (g.ravel() for g in np.meshgrid(*axes, indexing="ij"))
        key = _hash(self.salt, np.full(a.shape, holding, np.int32), cell_a, cell_b, a, b)
        middle = [
            c * block + _STREET + (n + 0.5) * plot
            for c, n, block, plot in zip((cell_a, cell_b), (a, b), _BLOCK, _PLOT, strict=True)
        ]
        size = _house(key)
        keep = ~_empty(key) & (np.hypot(*middle) < self._reach)
        corner = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
        along = middle[0][keep, None] + corner[:, 0] * size[0][keep, None]
        across = middle[1][keep, None] + corner[:, 1] * size[1][keep, None]
        cosine, sine = np.cos(self.angle[holding]), np.sin(self.angle[holding])
        u = seed[0] + along * cosine - across * sine
        v = seed[1] + along * sine + across * cosine
        return np.stack([u, v], axis=-1)


def make_pattern(rng: np.random.Generator, metres: float) -> Pattern:
    """Draw the pattern of a landscape of a width in metres."""
    spacing = float(np.clip(metres / 5, 160, 900))
    side = min(int(np.ceil(metres / spacing)) + 2, _MOST_HOLDINGS)
    n = side**2
    return Pattern(
        side=side,
        spacing=spacing,
        offset=(0.5 + rng.uniform(-_JITTER, _JITTER, (2, n))) * spacing,
        angle=rng.uniform(0, np.pi, n),
        width=rng.uniform(70, 220, n),
        length=rng.uniform(180, 500, n),
        salt=int(rng.integers(1 << 62)),
    )


def _hash(salt: int, *parts: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """A well-mixed number of whole numbers."""
    return (mixed(salt, *parts) >> np.uint64(32)).astype(np.uint32)


def _share(key: NDArray[np.uint32], shift: int) -> Metres:
    """Eight bits of a hash as a number from 0 to 1."""
    return np.asarray((key >> np.uint32(shift) & np.uint32(255)) / 255.0)


def _house(key: NDArray[np.uint32]) -> list[Metres]:
    """Metres of a plot's building along and across."""
    return [low + (high - low) * _share(key, 8 * n) for n, (low, high) in enumerate(_HOUSE)]


def _empty(key: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Plots without a building."""
    return np.asarray(_share(key, 16) < _EMPTY_PLOTS)
