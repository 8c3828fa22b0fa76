"""Outlier screens of the compositing kernel.

The MAD screen is the robust z-score of Leys et al. 2013, J. Exp. Soc. Psychol. 49(4), 764-766, in
integers: twice the median and four times the MAD are whole numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import kernel
from lcengine.kernels.reducers import add_masked, fill_missing, sort
from lcengine.kernels.scratch import NONE, Plan, Ranks, Scratch

_LOWEST: Final = np.int32(-(2**31))
_HIGHEST: Final = np.int32(2**31 - 1)
_MIN_SCREENED: Final = 5  # fewer valid observations reject nothing


@kernel
def _widen(judged: NDArray[np.int32], fill: NDArray[np.int16], out: NDArray[np.int32]) -> None:
    for p in range(out.size):
        extreme = _LOWEST if fill[p] < 0 else _HIGHEST
        out[p] = judged[p] if fill[p] == 0 else extreme


@kernel
def _middles(centre: Ranks, s: Scratch, out: NDArray[np.int32]) -> None:
    """Twice the median of `judged` per pixel."""
    for observation in range(s.wide.shape[0]):
        _widen(s.judged[observation], s.fill[observation], s.wide[observation])
    sort(s.wide, centre.pairs)
    low, high = s.wide[centre.lower], s.wide[centre.upper]
    for p in range(out.size):
        out[p] = low[p] + (high[p] if s.tally[p] & 1 == 0 else low[p])


@kernel
def _twice_distance(judged: NDArray[np.int32], twice: NDArray[np.int32]) -> None:
    for p in range(judged.size):
        above = np.int32(judged[p] + judged[p] - twice[p])
        below = np.int32(-above)
        judged[p] = above if above > below else below


@kernel
def _limit(limit: NDArray[np.int32], tally: NDArray[np.int16], k: int, floor: int) -> None:
    """Turn 4 × MAD into the largest 2 × |x − m| that is kept."""
    for p in range(limit.size):
        # 0.6745·|x − m| / MAD > k is 1349·(2·|x − m|) > (1000·k)·(4·MAD). Exact: below 2**53.
        bound = np.floor(np.float64(k) * np.float64(max(limit[p], floor)) / 1349.0)
        kept = np.int32(min(bound, np.float64(_HIGHEST)))
        limit[p] = kept if tally[p] >= _MIN_SCREENED else _HIGHEST


@kernel
def _reject(
    judged: NDArray[np.int32],
    limit: NDArray[np.int32],
    mask: NDArray[np.int16],
    tally: NDArray[np.int16],
) -> None:
    for p in range(mask.size):
        rejected = mask[p] if judged[p] > limit[p] else NONE
        tally[p] += rejected
        mask[p] ^= rejected


@kernel
def screen_mad(plan: Plan, s: Scratch) -> None:
    """Drop outliers from `take` and from `tally`."""
    first, twice, limit, tally = plan.first, s.twice, s.limit, s.tally
    s.spare[:] = tally
    fill_missing(first, s.take, plan.centre.lows, s.spare, s.fill)
    for observation in range(first.size - 1):
        judged = s.judged[observation]
        judged[:] = 0
        for i in range(first[observation], first[observation + 1]):
            for band in plan.screen_bands:
                add_masked(s.raw[band, i], s.take[i], judged)
    _middles(plan.centre, s, twice)
    for observation in range(first.size - 1):
        _twice_distance(s.judged[observation], twice)
    _middles(plan.centre, s, limit)
    _limit(limit, tally, plan.k, plan.floor)
    for observation in range(first.size - 1):
        for i in range(first[observation], first[observation + 1]):
            _reject(s.judged[observation], limit, s.take[i], tally)
