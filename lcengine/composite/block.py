"""One block of pixels: whole-series screens, then the kernels per period, then the fall-back.

Both ways to a composite end here, the tile task and the cube in a notebook, so they agree.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.composite.spec import NO_DATE, NO_ITEM, CompositeSpec
from lcengine.kernels import NODATA
from lcengine.kernels.composite import Composite, composite
from lcengine.kernels.methods import BestPixel, Domain, Method
from lcengine.kernels.series import despike, tmask
from lcengine.periods import Period, neighbours

UINT8 = npt.NDArray[np.uint8]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Series:
    """The items of a block, in the order of their observations.

    groups: observation of each item. days: the observation's days since 1970-01-01 UTC.
    numbers: each item's number in the product's list of items.
    """

    groups: npt.NDArray[np.int64]
    days: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]

    def within(self, window: tuple[dt.datetime, dt.datetime]) -> slice:
        """The items whose observation began in [start, stop)."""
        first, last = np.searchsorted(self.days, [days_of(moment) for moment in window])
        return slice(int(first), int(last))


def days_of(moment: dt.datetime) -> float:
    """Days since 1970-01-01 UTC."""
    return (moment - EPOCH) / dt.timedelta(days=1)


@dataclass(frozen=True)
class Block:
    """Pixels of a block: `values` int16 (item, band, y, x), `clear` uint8 (item, y, x).

    `bands`: names of the bands, the output bands first. `domain`: where they are averaged.
    """

    values: npt.NDArray[np.int16]
    clear: UINT8
    series: Series
    bands: tuple[str, ...]
    domain: Domain = "linear"


def reduce_block(
    spec: CompositeSpec, periods: Sequence[Period], block: Block, observable: UINT8 | None = None
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """All variables of a block but `lost`, (y, x), period by period.

    `observable`: uint8 (y, x), pixels that masked observations may be restored in; None = all.
    """
    clear, rejected = _screen_series(spec, block, observable)
    block = replace(block, clear=clear)
    for number in range(len(periods)):
        yield _Period(spec, periods, number, block, rejected).variables()


def _screen_series(
    spec: CompositeSpec, block: Block, observable: UINT8 | None
) -> tuple[UINT8, UINT8 | None]:
    """The clear masks after the whole-series screens, and what these rejected (item, y, x)."""
    screens, series = spec.screens, block.series
    if not screens.whole_series or not len(block.clear):
        return block.clear, None
    valid = block.values[:, 0] != NODATA  # in all bands, as the composite wants its observations
    for band in range(1, block.values.shape[1]):
        valid &= block.values[:, band] != NODATA
    seen = (block.clear != 0) & valid
    clear = seen.astype(np.uint8)
    if screens.despike:
        if observable is not None:
            valid &= observable != 0
        blue = block.values[:, block.bands.index("blue")]
        options = screens.despike
        clear = despike(
            *(blue, clear, valid, series.groups, series.days),
            above=options.above,
            below=options.below,
        ).clear
    if screens.tmask:
        green, swir16 = (block.values[:, block.bands.index(b)] for b in ("green", "swir16"))
        found = tmask(
            green, swir16, clear, series.groups, series.days, multiple=screens.tmask.multiple
        )
        clear = found.clear
    return clear, (seen & (clear == 0)).astype(np.uint8)


class _Period:
    """One period of a block, widened where too little is clear."""

    def __init__(
        self,
        spec: CompositeSpec,
        periods: Sequence[Period],
        number: int,
        block: Block,
        rejected: UINT8 | None,
    ) -> None:
        self.spec, self.periods, self.number = spec, periods, number
        self.block, self.rejected = block, rejected
        period = periods[number]
        self.methods = tuple(at_period(method, period) for method in spec.methods)

    def variables(self) -> dict[str, npt.NDArray[Any]]:
        """The variables of this period, (y, x)."""
        found = self._composite(0, self.block.clear)
        level = np.zeros(found["count"].shape, np.uint8)
        best = found["count"].copy()
        for widened in range(1, self.spec.widest + 1):
            short = best < self.spec.min_clear
            if not short.any():
                break
            wider = self._composite(widened, self.block.clear & short.astype(np.uint8))
            take = short & (wider["count"] > best)
            for name, pixels in wider.items():
                found[name] = np.where(take, pixels, found[name])
            level[take] = widened
            best = found["count"]
        if self.spec.min_clear:
            found["widened"] = level
        return found

    def _composite(self, level: int, clear: UINT8) -> dict[str, npt.NDArray[Any]]:
        """The composite of the period, widened by `level` neighbours on each side."""
        window = neighbours(self.periods, self.number, level)
        items = self.block.series.within(window)
        out = composite(
            self.block.values[items],
            clear[items],
            self.block.series.groups[items],
            methods=self.methods,
            screen=self.spec.screens.mad,
            bands=self.block.bands,
            days=self.block.series.days[items],
            n_out=len(self.spec.bands),
            domain=self.block.domain,
        )
        found = self._named(out, items)
        if self.rejected is not None:
            found["outliers"] = found["outliers"] + self._rejected(items, clear)
        return found

    def _named(self, out: Composite, items: slice) -> dict[str, npt.NDArray[Any]]:
        spec = self.spec
        found: dict[str, npt.NDArray[Any]] = {"count": out.count, "outliers": out.outliers}
        for (name, _, _), pixels in zip(spec.layers(), out.values, strict=True):
            found[name] = pixels
        for (name, _, written), pixels in zip(spec.extras(), out.extras, strict=True):
            if written:
                found[name] = pixels
        if spec.qa == "full":
            series = self.block.series
            for suffix, chosen in zip(spec.choices(), out.chosen, strict=True):
                # The last entry is what stands for none, which is -1.
                numbers = np.append(series.numbers[items], NO_ITEM).astype(np.uint32)
                dates = np.append(np.floor(series.days[items]), NO_DATE).astype(np.uint16)
                found[f"item{suffix}"] = numbers[chosen]
                found[f"date{suffix}"] = dates[chosen]
        return found

    def _rejected(self, items: slice, clear: UINT8) -> npt.NDArray[np.uint16]:
        """Observations that whole-series screens rejected in the period."""
        assert self.rejected is not None
        count = np.zeros(clear.shape[1:], np.uint16)
        groups = self.block.series.groups[items]
        for observation in np.unique(groups):
            count += self.rejected[items][groups == observation].any(axis=0)
        return count


def at_period(method: Method, period: Period) -> Method:
    """A method with what it takes from its period: the best pixel's target day and year."""
    if not isinstance(method, BestPixel):
        return method
    middle = period.start + (period.stop - period.start) / 2
    target = method.target or middle.timetuple().tm_yday
    ahead = round((middle.timetuple().tm_yday - target) / 365.25)
    return replace(method, target=target, year=middle.year + ahead)
