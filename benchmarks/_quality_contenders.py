"""What is compared: masks, screens and reducers of lcengine, and what peers do by default."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from _quality_worlds import NODATA, Mask, Pixels, Stack, onto
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from lcengine import masks
from lcengine.composite.block import at_period
from lcengine.composite.spec import CompositeSpec, Screens
from lcengine.kernels.composite import composite
from lcengine.kernels.methods import DISTANCE, FARTHEST, BestPixel, FirstClear, parse_method
from lcengine.kernels.series import despike, tmask
from lcengine.periods import Period, PeriodRule
from lcengine.sensors import sensor

SCL_PIXEL = 20.0
Clear = NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """A mask preset, screens, a method, as the command line names them.

    The least deviation of the MAD screen may follow a slash: `mad:3:bright/450`. clearest: order
    the observations by the share of their scene that is clear, instead of by time.
    """

    mask: str = "scl"
    screens: str = "none"
    method: str = "median"
    clearest: bool = False

    def parsed(self) -> Screens:
        """The screens as values."""
        text, _, floor = self.screens.partition("/")
        found = Screens.parse(text)
        if floor and found.mad:
            found = replace(found, mad=replace(found.mad, floor=int(floor)))
        return found

    def __str__(self) -> str:
        return f"{self.mask} | {self.screens} | {self.method}"


_SPEC = CompositeSpec(bands=("blue",)).resolved(sensor("sentinel-2-l2a"))
DEFAULT = Recipe(_SPEC.mask, _SPEC.outliers, _SPEC.method)
SCL_MEDIAN = Recipe()
PEERS = {
    "SCL median": SCL_MEDIAN,
    "odc-stats gm-s2": Recipe("geomad", "none", "geomedian"),
    "s2mosaic, first clear": Recipe("s2mosaic", "none", "first-clear", clearest=True),
}
"""odc-stats gm-s2: SCL opened and dilated, geomedian. s2mosaic: the clearest scenes on top."""


class Bench:
    """Composites of one stack; masks and whole-series screens are worked out once."""

    def __init__(self, stack: Stack, periods: Sequence[Period]) -> None:
        self.stack, self.periods = stack, periods
        self.days = stack.dates.astype("datetime64[D]").astype(np.float64)
        self._clear: dict[tuple[str, Screens], Clear] = {}

    def composites(self, recipe: Recipe) -> Pixels:
        """The recipe's composite of every period, (period, band, y, x)."""
        clear = self.clear(recipe.mask, replace(recipe.parsed(), mad=None))
        return np.stack([self._period(period, recipe, clear) for period in self.periods])

    def clear(self, mask: str, screens: Screens) -> Clear:
        """Clear masks (n, y, x) after the whole-series screens."""
        key = (mask, screens)
        if key not in self._clear:
            self._clear[key] = self._screened(mask, screens)
        return self._clear[key]

    def _screened(self, mask: str, screens: Screens) -> Clear:
        if screens == Screens():
            return self._masked(mask)
        pixels = self.stack.pixels
        valid = (pixels != NODATA).all(axis=1)
        clear = self.clear(mask, Screens()) * valid
        if spikes := screens.despike:
            blue = pixels[:, self.stack.band("blue")]
            options = {"above": spikes.above, "below": spikes.below}
            clear = despike(blue, clear, valid, None, self.days, **options).clear
        if season := screens.tmask:
            bands = (pixels[:, self.stack.band(name)] for name in ("green", "swir16"))
            clear = tmask(*bands, clear, None, self.days, multiple=season.multiple).clear
        return clear

    def _masked(self, mask: str) -> Clear:
        recipe = masks.preset(mask)
        assert recipe is not None
        flags = np.stack([masks.flags(recipe, scl, SCL_PIXEL) for scl in self.stack.scl])
        clear = masks.resolve(recipe, flags, range(len(flags)))
        return np.ascontiguousarray(onto(clear, self.stack.pixels.shape))

    def _period(self, period: Period, recipe: Recipe, clear: Clear) -> Pixels:
        """The composite of one period, (band, y, x)."""
        inside = within(self.stack, period)
        method = at_period(parse_method(recipe.method), period)
        pixels, clear, bands = self.stack.pixels[inside], clear[inside], self.stack.bands
        if not len(pixels):
            return np.full(pixels.shape[1:], NODATA, np.int16)
        if isinstance(method, BestPixel):
            away = self._distances(recipe.mask, inside)
            pixels, bands = np.concatenate([pixels, away[:, None]], axis=1), (*bands, DISTANCE)
        if recipe.clearest:
            assert isinstance(method, FirstClear)
            order = np.argsort(-clear.mean(axis=(1, 2)), kind="stable")
            pixels, clear = pixels[order], clear[order]
        return composite(
            pixels,
            clear,
            methods=(method,),
            screen=recipe.parsed().mad,
            bands=bands,
            days=self.days[inside],
            n_out=len(self.stack.bands),
        ).values

    def _distances(self, mask: str, inside: Mask) -> NDArray[np.int16]:
        """Metres to the nearest cloud or shadow, capped, of some dates (n, y, x)."""
        recipe = masks.preset(mask)
        assert recipe is not None
        scenes = self.stack.scl[inside]
        away = np.full(scenes.shape, FARTHEST, np.int16)
        for i, scl in enumerate(scenes):
            cloud = masks.cloud(recipe, scl, SCL_PIXEL)
            if cloud.any():
                metres = distance_transform_edt(~cloud) * SCL_PIXEL
                away[i] = np.minimum(np.rint(metres), FARTHEST)
        return onto(away, self.stack.pixels.shape)


def cut(stack: Stack, rule: str) -> tuple[Period, ...]:
    """The periods of a rule that hold dates of a stack."""
    first, last = (dt.datetime.combine(stack.dates[i].item(), dt.time(), dt.UTC) for i in (0, -1))
    periods = PeriodRule.parse(rule).periods(first, last)
    return tuple(period for period in periods if within(stack, period).any())


def within(stack: Stack, period: Period) -> Mask:
    """The dates (n,) of a stack that lie in a period."""
    start, stop = (np.datetime64(moment.date()) for moment in (period.start, period.stop))
    return np.asarray((stack.dates >= start) & (stack.dates < stop))
