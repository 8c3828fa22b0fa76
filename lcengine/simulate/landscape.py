"""The ground: fields, woods, water, settlements and hills whose reflectance is known exactly.

`Landscape` answers for points, whatever the resolution; `Patch` is it rasterised in some bounds.

Reflectance of a point is a linear mixture of its soil and its canopy, `soil + (canopy - soil) *
cover`, where the green cover follows a double logistic through the year (Zhang et al. 2003, Remote
Sensing of Environment 84) with dates and peak of the unit's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from shapely import LineString, Polygon, transform

from lcengine.simulate.covers import CODE, LEGEND, CoverType
from lcengine.simulate.parcels import GARDEN, HOUSE, STREET, Metres, Pattern, Place, make_pattern
from lcengine.simulate.sentinel2 import BANDS, RESOLUTION, Mosaic
from lcengine.simulate.streams import MOST_NODES, Stream, generator, smooth_field

__all__ = ["LEGEND", "CoverType", "Grain", "Landscape", "Patch", "make_landscape"]

Value = TypeVar("Value", bound=np.generic)
Field = NDArray[np.float32]
Box = tuple[int, int, int, int]

_NATURAL = (
    "deciduous forest", "evergreen forest", "built-up", "wetland", "water",
    "savanna", "shrubland", "barren", "snow and ice",
)  # fmt: skip
"""What lies over the pattern of fields, later ones over earlier ones."""
_SHARES = {
    "wood": (("deciduous forest", 0.15),),
    "town": (("built-up", 0.08),),
    "wet": (("wetland", 0.05), ("water", 0.03)),
    "height": (
        ("savanna", 0.075),
        ("shrubland", 0.05),
        ("barren", 0.028),
        ("snow and ice", 0.013),
    ),
}
"""What lies where a field is among its highest values, and in which share of the mosaic."""
_SCALES = {"wood": 25.0, "town": 25.0, "wet": 25.0, "height": 50.0}
"""Nodes over which those fields vary."""
_KINDS = 256
"""How many different roofs, gardens and streets there are."""
_MEADOW_CUTS = 3
_LATTICE = 20.0
"""Metres between the nodes of the fields that natural cover follows."""
_GRAIN = 10.0
_POINTS = 1 << 15


@dataclass(frozen=True)
class Grain:
    """How points of a unit differ from its mean; float32 arrays of the points' shape."""

    texture: Field
    """Relative departure of green cover."""
    shade: Field
    """Factor on the reflectance, close to 1."""


@dataclass(frozen=True)
class Landscape:
    """The ground of a square mosaic.

    A unit is what has one spectrum and one season: a field, a wood, a kind of roof. Arrays of all
    units have the dimension `unit`; `units` and `raster` tell which unit lies where.
    """

    mosaic: Mosaic
    pattern: Pattern
    nature: dict[str, Field]
    """Smooth periodic fields by name of `_SHARES`, nodes every 20 m."""
    limits: dict[str, tuple[float, ...]]
    """Least value of a field for each of its classes."""
    grain_fields: tuple[Field, Field]
    """Texture and shade, periodic, nodes every 10 m."""
    code: NDArray[np.uint8]
    """(unit,) codes of LEGEND."""
    brightness: Field
    """(unit, 2) factors on the spectrum of ground and canopy."""
    season: Field
    """(unit, 6): low, peak, rise day, rise days, fall day, fall days."""
    cuts: Field
    """(unit, 3) days of year on which meadows are cut; beyond the year elsewhere."""

    @property
    def bounds(self) -> Box:
        """Left, bottom, right, top in metres of EPSG:32631."""
        return self.mosaic.bounds

    @property
    def size(self) -> int:
        """Width and height in pixels of 10 m."""
        return self.mosaic.size

    # --- where -----------------------------------------------------------------------------------

    def units(self, x: Metres, y: Metres) -> NDArray[np.int32]:
        """Unit under points of EPSG:32631 (float64 metres, broadcast), exact at any resolution."""
        return self._pointwise(self._units, np.int32, x, y)

    def _units(self, u: Metres, v: Metres) -> NDArray[np.int32]:
        place = self.pattern.place(u, v)
        natural = self._natural(u, v)
        fixed = np.isin(natural, [_NATURAL.index(n) + 1 for n in ("water", "snow and ice")])
        town = natural == _NATURAL.index("built-up") + 1
        unit = self.pattern.field(place) + np.int32(self._first_field)
        over = natural > 0
        unit[over] = self._wild((natural[over] - 1).astype(np.int32), place.holding[over])
        unit[town] = self._settled(Place(*(part[town] for part in place)))
        road = place.road & ~fixed
        unit[road] = STREET * _KINDS + place.holding[road] % _KINDS
        return unit

    def raster(self, bounds: Box, resolution: float) -> NDArray[np.int32]:
        """Units at the pixel centres of left, bottom, right, top; (row, column), north up."""
        return self.units(*_centres(bounds, resolution))

    def grain(self, x: Metres, y: Metres) -> Grain:
        """Texture and shade at points of EPSG:32631."""
        fields = (partial(_interpolate, nodes, _GRAIN) for nodes in self.grain_fields)
        return Grain(*(self._pointwise(field, np.float32, x, y) for field in fields))

    def patch(self, bounds: Box, resolution: float = 10.0) -> Patch:
        """The landscape rasterised in left, bottom, right, top."""
        x, y = _centres(bounds, resolution)
        return Patch(self, self.units(x, y), self.grain(x, y))

    def _pointwise(
        self,
        function: Callable[[Metres, Metres], NDArray[Value]],
        dtype: type[Value],
        x: Metres,
        y: Metres,
    ) -> NDArray[Value]:
        """A function of metres east and south of the upper left corner, of many points at a time.

        x and y are broadcast; a limited number at a time bounds the memory.
        """
        left, _, _, top = self.bounds
        x, y = np.broadcast_arrays(x, y)
        out = np.empty(x.size, dtype)
        for start in range(0, x.size, _POINTS):
            part = slice(start, start + _POINTS)
            out[part] = function(x.flat[part] - left, top - y.flat[part])
        return out.reshape(x.shape)

    def _natural(self, u: Metres, v: Metres) -> NDArray[np.uint8]:
        """One more than the index into _NATURAL, 0 where fields remain."""
        natural = np.zeros(u.shape, np.uint8)
        found = {name: _interpolate(f, _LATTICE, u, v) for name, f in self.nature.items()}
        for name, classes in _SHARES.items():
            for (cover, _), limit in zip(classes, self.limits[name], strict=True):
                natural[found[name] > limit] = _NATURAL.index(cover) + 1
        high = found["height"] > self.limits["needles"][0]
        natural[(natural == 1) & high] = 2
        return natural

    # Units are numbered: gardens, streets, roofs; natural covers by class and holding; fields.

    @property
    def _first_field(self) -> int:
        return 3 * _KINDS + len(_NATURAL) * self.pattern.holdings

    def _wild(self, natural: NDArray[np.int32], holding: NDArray[np.int32]) -> NDArray[np.int32]:
        return 3 * _KINDS + natural * np.int32(self.pattern.holdings) + holding

    def _settled(self, place: Place) -> NDArray[np.int32]:
        kind, key = self.pattern.plot(place)
        key[kind == STREET] = place.holding[kind == STREET]
        return kind.astype(np.int32) * _KINDS + (key >> np.uint32(1)).astype(np.int32) % _KINDS

    @cached_property
    def roads(self) -> list[LineString]:
        """Centre lines of the roads between holdings, 12 m wide, in EPSG:32631."""
        return self.roads_in(self.bounds)

    def roads_in(self, bounds: Box) -> list[LineString]:
        """The roads within bounds, cut at them."""
        return [self._placed(line) for line in self.pattern.roads(self._local_box(bounds))]

    @cached_property
    def seeds(self) -> Metres:
        """(holding, 2) x and y of the seeds within bounds, in EPSG:32631."""
        left, bottom, right, top = self.bounds
        seeds, _ = self.pattern.nearby((0, 0, right - left, top - bottom))
        return np.column_stack([left + seeds[:, 0], top - seeds[:, 1]])

    @cached_property
    def footprints(self) -> list[Polygon]:
        """Outlines of the buildings that stand whole in the landscape, in EPSG:32631."""
        return self.footprints_in(self.bounds)

    def footprints_in(self, bounds: Box) -> list[Polygon]:
        """The buildings that stand whole within bounds."""
        left, _, _, top = self.bounds
        area = self._local_box(bounds)
        found: list[Polygon] = []
        for seed, holding in zip(*self.pattern.nearby(area, 2 * self.pattern.spacing), strict=True):
            corners = self.pattern.houses(seed, int(holding))
            corners = np.stack([left + corners[..., 0], top - corners[..., 1]], axis=-1)
            found.extend(Polygon(c) for c in corners[self._stands(corners, bounds)])
        return found

    def _stands(self, corners: Metres, bounds: Box) -> NDArray[np.bool_]:
        """Whether middle and corners (n, 4, 2) of buildings are roof, and within bounds."""
        left, bottom, right, top = bounds
        x, y = corners[..., 0], corners[..., 1]
        within = (x > left) & (x < right) & (y > bottom) & (y < top)
        stands: NDArray[np.bool_] = np.asarray(within.all(axis=1))
        middle = corners.mean(axis=1, keepdims=True)
        # The middle first: it rules out most. Corners a hair inside, where rounding cannot matter.
        for points in (middle, corners + 1e-3 * (middle - corners)):
            unit = self.units(points[stands, :, 0], points[stands, :, 1])
            stands[stands] = (unit // _KINDS == HOUSE).all(axis=1)
        return stands

    def _local_box(self, bounds: Box) -> tuple[float, float, float, float]:
        """Bounds as least and greatest metres east and south of the upper left corner."""
        left, _, _, top = self.bounds
        return bounds[0] - left, top - bounds[3], bounds[2] - left, top - bounds[1]

    def _placed(self, line: LineString) -> LineString:
        left, _, _, top = self.bounds
        return transform(line, lambda uv: np.column_stack([left + uv[:, 0], top - uv[:, 1]]))

    # --- what ------------------------------------------------------------------------------------

    def green(self, day: float) -> Field:
        """Green cover fraction (unit,), float32, on a day of the year."""
        low, peak, rise, rise_days, fall, fall_days = self.season.T
        rising = 1.0 / (1.0 + np.exp((rise - day) / rise_days))
        falling = 1.0 / (1.0 + np.exp((day - fall) / fall_days))
        cover = low + (peak - low) * rising * falling
        age = day - self.cuts
        # A cut leaves 40 % of the cover; it grows back with a time constant of two weeks.
        kept = np.where(age >= 0, 1.0 - 0.6 * np.exp(-np.maximum(age, 0.0) / 14.0), 1.0)
        return np.asarray(cover * kept.min(axis=1), dtype=np.float32)

    def spectrum(self, band: str) -> tuple[Field, Field]:
        """Reflectance (unit,), float32, of the ground without green cover and of the canopy."""
        b = BANDS.index(band)
        kind = self.code.astype(np.intp) - 1
        ground = np.array([c.ground[b] for c in LEGEND], np.float32)[kind] * self.brightness[:, 0]
        canopy = np.array([c.canopy[b] for c in LEGEND], np.float32)[kind] * self.brightness[:, 1]
        return np.minimum(ground, 1.0), np.minimum(canopy, 1.0)

    def reflectance(
        self, band: str, units: NDArray[np.int32], day: float, grain: Grain | None = None
    ) -> Field:
        """Noise-free reflectance 0 to 1, float32, of a raster of units on a day of the year."""
        cover = self.green(day)[units]
        if grain is not None:
            cover = np.clip(cover * (1.0 + grain.texture), 0.0, 1.0)
        ground, canopy = self.spectrum(band)
        seen = (canopy - ground)[units] * cover + ground[units]
        return np.asarray(seen if grain is None else seen * grain.shade, dtype=np.float32)

    # --- the whole mosaic, for small ones --------------------------------------------------------

    @cached_property
    def whole(self) -> Patch:
        """The mosaic at 10 m."""
        return self.patch(self.bounds)

    @property
    def landcover(self) -> NDArray[np.uint8]:
        """Codes of LEGEND, (size, size)."""
        return self.whole.landcover

    @property
    def field(self) -> NDArray[np.int32]:
        """Units, (size, size)."""
        return self.whole.units

    def cover(self, day: float) -> Field:
        """`Patch.cover` of the whole mosaic."""
        return self.whole.cover(day)

    def surface(self, band: str, cover: Field) -> NDArray[np.int16]:
        """`Patch.surface` of the whole mosaic."""
        return self.whole.surface(band, cover)


@dataclass(frozen=True)
class Patch:
    """A landscape rasterised in some bounds, (row, column), north up."""

    landscape: Landscape
    units: NDArray[np.int32]
    grain: Grain

    @cached_property
    def landcover(self) -> NDArray[np.uint8]:
        """Codes of LEGEND."""
        return self.landscape.code[self.units]

    def cover(self, day: float) -> Field:
        """Green cover fraction, float32, on a day of the year."""
        cover = self.landscape.green(day)[self.units]
        cover *= 1.0 + self.grain.texture
        return np.clip(cover, 0.0, 1.0, out=cover)

    def surface(self, band: str, cover: Field) -> NDArray[np.int16]:
        """Noise-free surface reflectance × 10000, int16, at the band's own resolution.

        For a patch of 10 m: 20 m bands are means of 2 × 2 pixels. `cover` is `self.cover(day)`.
        """
        ground, canopy = self.landscape.spectrum(band)
        reflectance = (canopy - ground)[self.units]
        reflectance *= cover
        reflectance += ground[self.units]
        reflectance *= self.grain.shade
        if RESOLUTION[band] == 20:
            reflectance = block_mean(reflectance)
        reflectance *= 10000.0
        return np.asarray(np.rint(reflectance, out=reflectance), dtype=np.int16)

    @cached_property
    def visible_brightness(self) -> Field:
        """Mean blue, green and red reflectance of the uncovered ground, float32, at 20 m."""
        visible = np.mean([self.landscape.spectrum(b)[0] for b in BANDS[:3]], axis=0)
        return block_mean(visible[self.units] * self.grain.shade)


def block_mean(array: Field) -> Field:
    """Mean of 2 × 2 pixels, float32, half the rows and columns."""
    rows = array[0::2] + array[1::2]
    mean = rows[:, 0::2] + rows[:, 1::2]
    mean *= 0.25
    return mean


def _centres(bounds: Box, resolution: float) -> tuple[Metres, Metres]:
    left, bottom, right, top = bounds
    x = left + (np.arange(round((right - left) / resolution)) + 0.5) * resolution
    y = top - (np.arange(round((top - bottom) / resolution)) + 0.5) * resolution
    return np.asarray(x[None, :]), np.asarray(y[:, None])


def _interpolate(nodes: Field, spacing: float, u: Metres, v: Metres) -> Field:
    """A periodic field with nodes at the centres of its cells, bilinear, float32."""
    at = np.stack([v / spacing - 0.5, u / spacing - 0.5])
    return np.asarray(map_coordinates(nodes, at, order=1, mode="grid-wrap", output=np.float32))


def make_landscape(size: int, seed: int) -> Landscape:
    """Draw the landscape of a mosaic of `size` × `size` pixels of 10 m."""
    rng = generator(seed, Stream.LANDSCAPE)
    pattern = make_pattern(rng, size * 10.0)
    n = min(size // 2, MOST_NODES)
    nature = {
        name: smooth_field(rng, n, scale, decay=3.0, smallest=48, whole=True)
        for name, scale in _SCALES.items()
    }
    inside = (slice(0, n), slice(0, n))
    limits = {
        name: tuple(float(np.quantile(nature[name][inside], 1 - share)) for _, share in classes)
        for name, classes in _SHARES.items()
    }
    limits["needles"] = (float(np.quantile(nature["height"][inside], 0.6)),)
    m = min(size, MOST_NODES)
    texture = smooth_field(rng, m, scale=12.0, whole=True) * np.float32(0.10)
    shade = 1.0 + np.float32(0.015) * rng.standard_normal(texture.shape, dtype=np.float32)
    code = _codes(rng, pattern)
    return Landscape(
        mosaic=Mosaic(size),
        pattern=pattern,
        nature=nature,
        limits=limits,
        grain_fields=(texture, np.clip(shade, 0.93, 1.07)),
        code=code,
        **_unit_tables(rng, code),
    )


def _codes(rng: np.random.Generator, pattern: Pattern) -> NDArray[np.uint8]:
    """Class of every unit."""
    sown = [c for c in LEGEND if c.share > 0]
    shares = np.array([c.share for c in sown])
    crops = rng.choice([c.code for c in sown], size=pattern.fields, p=shares / shares.sum())
    wild = np.repeat([CODE[name] for name in _NATURAL], pattern.holdings)
    built = np.full(3 * _KINDS, CODE["built-up"])
    return np.concatenate([built, wild, crops]).astype(np.uint8)


def _unit_tables(rng: np.random.Generator, code: NDArray[np.uint8]) -> dict[str, Field]:
    """Brightness and seasons of every unit, each a little different from its class."""
    n = code.size
    index = code.astype(np.intp) - 1
    spread = np.array([c.spread for c in LEGEND])[index]
    brightness = np.column_stack(
        [
            np.clip(np.exp(spread * rng.standard_normal(n)), 0.6, 2.2),
            np.clip(1 + 0.05 * rng.standard_normal(n), 0.85, 1.15),
        ]
    )
    season = np.array([(c.low, c.peak, *c.rise, *c.fall) for c in LEGEND], dtype=float)[index]
    gardens = slice(GARDEN * _KINDS, (GARDEN + 1) * _KINDS)
    season[gardens, 0], season[gardens, 1] = 0.15, rng.uniform(0.2, 0.6, _KINDS)
    season[:, 1] *= np.clip(1 + 0.05 * rng.standard_normal(n), 0.85, 1.05)
    season[:, 2] += np.clip(6 * rng.standard_normal(n), -15, 15)
    season[:, 4] += np.clip(7 * rng.standard_normal(n), -15, 15)

    cuts = np.cumsum(rng.uniform(25, 60, (n, _MEADOW_CUTS)), axis=1) + 95
    never = rng.random((n, _MEADOW_CUTS)) < 0.35
    cuts[never | (code != CODE["grassland"])[:, None]] = 1000
    tables = {"brightness": brightness, "season": season, "cuts": cuts}
    return {name: np.asfortranarray(t, dtype=np.float32) for name, t in tables.items()}
