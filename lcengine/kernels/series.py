"""Outlier screens over a whole time series: despike and Tmask.

Both run before compositing and change the clear mask only. Despike is the noise screen of FORCE
(Frantz 2019, Remote Sensing 11(9), 1124), whose noise is that of Vermote et al. 2009 (TGRS 47(6)).
Tmask is that of Zhu & Woodcock 2014 (RSE 152) in the form that CCDC and pyccd have given it.
`despike` and `tmask` say what differs from those programs, and why.

Every pixel is computed from its own series alone: items that are clear nowhere in it change no bit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lcengine.errors import InputError
from lcengine.kernels._jit import address_of
from lcengine.kernels.harmonic import MIN_TMASK, STAGES, Fit, Model, P, tmask_blocks
from lcengine.kernels.spikes import WIDE, Spikes, despike_blocks, screen_spikes
from lcengine.kernels.stack import (
    Screened,
    mask_of,
    missing_of,
    observations_of,
    screened,
    spread,
    stack_of,
    unchanged,
)

_DECIMALS: Final = 3
_MAX_RATIO: Final = 1000.0
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


def _check(name: str, ratio: float, least: float, most: float) -> None:
    if not least <= ratio <= most or round(ratio, _DECIMALS) != ratio:
        raise InputError(
            f"got {name} {ratio!r}, expected {least:g} to {most:g} with at most "
            f"{_DECIMALS} decimals"
        )


def _ratios(text: str, name: str, count: int, expected: str) -> list[float]:
    """The numbers of `name` or `name:number:…`: none or `count` of them."""
    head, *rest = text.strip().split(":")
    plain = all(_NUMBER.fullmatch(part) for part in rest)
    if head != name or len(rest) not in (0, count) or not plain:
        raise InputError(f"got outlier screen {text!r}, expected {expected}")
    return [float(part) for part in rest]


@dataclass(frozen=True, slots=True)
class Despike:
    """Options of `despike`, in multiples of the series' noise; at most three decimals.

    above: 1..1000, larger residuals are rejected (the largest is never below the noise itself).
    below: 0..above, masked observations with smaller residuals are restored; 0 restores none.

    Raises:
        InputError: a number out of range.
    """

    above: float = 3.0
    below: float = 1.0

    def __post_init__(self) -> None:
        _check("despike above", self.above, 1, _MAX_RATIO)
        _check("despike below", self.below, 0, self.above)

    @classmethod
    def parse(cls, text: str) -> Despike:
        """Read `despike` or `despike:ABOVE:BELOW`.

        Raises:
            InputError: anything else.
        """
        return cls(*_ratios(text, "despike", 2, "'despike' or 'despike:ABOVE:BELOW'"))

    def __str__(self) -> str:
        return f"despike:{self.above:g}:{self.below:g}"


@dataclass(frozen=True, slots=True)
class Tmask:
    """Options of `tmask`: residuals of more than `multiple` × the variogram are rejected.

    multiple: 0..1000, at most three decimals.

    Raises:
        InputError: multiple out of range.
    """

    multiple: float = 4.89

    def __post_init__(self) -> None:
        _check("tmask multiple", self.multiple, 0, _MAX_RATIO)

    @classmethod
    def parse(cls, text: str) -> Tmask:
        """Read `tmask` or `tmask:MULTIPLE`.

        Raises:
            InputError: anything else.
        """
        return cls(*_ratios(text, "tmask", 1, "'tmask' or 'tmask:MULTIPLE'"))

    def __str__(self) -> str:
        return f"tmask:{self.multiple:g}"


def despike(  # noqa: PLR0913 - the options are the recipe
    values: NDArray[Any],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    valid: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None,
    days: ArrayLike,
    *,
    above: float = 3.0,
    below: float = 1.0,
    parallel: bool = False,
) -> Screened:
    """Reject spikes of a series and restore masked observations that lie on its course.

    Items of one group are one observation: at each pixel the first clear one, or where none is
    clear the first that has data. A clear observation's residual is its distance, to either side
    (clouds are bright, shadows dark), from the line through the clear observations next to it in
    time. Noise is the root of the mean squared residual. While the largest residual (the earliest
    of equal ones) exceeds above × noise, that observation is rejected and all is computed anew.
    Then every masked observation whose residual against the line between the remaining neighbours
    is below `below` × noise is restored; rejected ones never are.

    The first and last clear observations have no residual. As in FORCE, such an end is rejected in
    place of its neighbour, where this has the largest residual but agrees better than the end with
    the observation on its other side. Nothing is restored beyond the ends. Fewer than four clear
    observations (two residuals) change nothing; and as none of n residuals exceeds √n × noise,
    rejection at 3 needs at least twelve.

    Other than FORCE: slopes are not rounded to whole units per day; between neighbours of one time
    lies their mean (FORCE: half their difference); what is restored is no neighbour to what comes
    later, so the direction of time does not matter.

    Args:
        values: (N, H, W), the band of the shortest wavelength: int16 with nodata −32768, uint16
            with nodata 0, or float32, where what is not finite is nodata.
        clear: (N, H, W) uint8 or bool, nonzero = clear.
        valid: (N, H, W) uint8 or bool, nonzero = has data, clear or not. Where there is none
            `clear` is ignored and kept.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        days: (N,) or one per observation, non-decreasing; a group has that of its first item.
        above: reject above this multiple of the noise, 1..1000.
        below: restore below this multiple of the noise, 0..above.
        parallel: use every CPU. The result is the same.

    Returns:
        The new mask and the numbers of rejected and restored observations. All items of a rejected
        observation are masked; the item that stands for a restored one becomes clear.

    Raises:
        InputError: dtypes, shapes, groups, days or options do not fit, or more than 1024
            observations.
    """
    options = Despike(above, below)
    first, when = observations_of(values, groups, days)
    masks = mask_of(clear, values, "clear"), mask_of(valid, values, "valid")
    out = unchanged(masks[0])
    stacks = (stack_of(values), stack_of(masks[0]), stack_of(masks[1]))
    missing, limits = np.float32(missing_of(values)), (float(options.above), float(options.below))
    screen = address_of(screen_spikes, when, limits, Spikes.empty(1), out, 0)

    def run(start: int, stop: int) -> None:
        rows = Spikes.empty(when.size)
        despike_blocks(start, stop, stacks, first, missing, screen, when, limits, rows, out)

    spread(run, WIDE, out, parallel)
    return screened(out, values)


def tmask(
    green: NDArray[Any],
    swir16: NDArray[Any],
    clear: NDArray[np.uint8] | NDArray[np.bool_],
    groups: NDArray[np.integer[Any]] | None,
    days: ArrayLike,
    *,
    multiple: float = 4.89,
    parallel: bool = False,
) -> Screened:
    """Reject observations far from a robust harmonic model of the pixel's series.

    Items of one group are one observation: at each pixel the first clear one with data in both
    bands. A band's model is 1, cos and sin of the annual cycle (365.25 days), cos and sin of one
    cycle over all ⌈years⌉ of the pixel's clear series; up to one year the two cycles are the same
    and the model has one. It is fitted by iteratively reweighted least squares in float64: an
    ordinary and four weighted fits with bisquare weights, c = 4.685, of the residuals divided by
    σ·√(1 − min(h, 0.9999)); h is the leverage, and σ the median of the absolute values of such
    residuals but the rank − 1 smallest, over 0.6745. An observation is rejected if in either band
    |residual| exceeds multiple × variogram, the median of the absolute differences between
    successive clear observations.

    Fewer than 12 clear observations, or a variogram of 0 in either band, reject nothing.

    As in pyccd residuals count to both sides; CCDC's own Tmask rejects bright green and dark SWIR
    only. Other than pyccd: the model has a constant, as CCDC's, without which cycles cannot fit a
    series of several years; σ leaves out rank − 1 residuals, as CCDC's, not always four; columns
    that depend on others are left out (pyccd: least norm, the same curve); σ is at least 1e-6 ×
    variogram, so that exact fits have weights; no test of convergence (pyccd's looks at one sign).
    The medians are of float32.

    Args:
        green: (N, H, W) int16 with nodata −32768, uint16 with nodata 0, or float32, where what is
            not finite is nodata.
        swir16: as `green`, of the same dtype: the band at 1.6 µm.
        clear: (N, H, W) uint8 or bool, nonzero = clear. Ignored and kept where a band has no data.
        groups: (N,) non-decreasing observation index; None = every item is an observation.
        days: (N,) or one per observation, non-decreasing; a group has that of its first item.
        multiple: reject above this multiple of the variogram, 0..1000.
        parallel: use every CPU. The result is the same.

    Returns:
        The new mask, in which all items of a rejected observation are masked, the number of
        rejected observations, and zeros.

    Raises:
        InputError: dtypes, shapes, groups, days or multiple do not fit, or more than 1024
            observations.
    """
    options = Tmask(multiple)
    first, when = observations_of(green, groups, days)
    if swir16.dtype != green.dtype or swir16.shape != green.shape:
        raise InputError(
            f"got swir16 {swir16.dtype} of shape {swir16.shape}, expected that of green, "
            f"{green.dtype} of shape {green.shape}"
        )
    mask = mask_of(clear, green, "clear")
    out = unchanged(mask)
    if when.size >= MIN_TMASK:
        stacks = (stack_of(green), stack_of(swir16), stack_of(mask))
        model = Model.of(when, float(options.multiple))
        stages = np.array([address_of(fit, model, Fit.empty(2), 0) for fit in STAGES], np.int64)

        def run(start: int, stop: int) -> None:
            s = Fit.empty(when.size)
            tmask_blocks(start, stop, stacks, first, missing_of(green), stages, model, s, out)

        spread(run, P, out, parallel)
    return screened(out, green)
