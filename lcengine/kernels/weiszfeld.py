"""Steps towards the geometric median of a block of pixels.

The fixed point of Weiszfeld's step, the mean of the spectra weighted by the reciprocals of their
distances, with the correction of Vardi & Zhang (2000, PNAS 97(4), 1423-1426) where the estimate
meets a spectrum. A step is combined with the last two (Anderson 1965, J. ACM 12(4), 547-560): the
derivative of Weiszfeld's step has trace 1, so few directions converge slowly, and two secants see
them. A combined step that increased the sum of distances is replaced by the plain one, which never
does.

A pixel's course depends on nothing but its own values: a converged pixel stands still while others
go on, and every loop over a block has one constant length. Differences from a centre near the
solution are computed with, so that float32 suffices.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

BLOCK: Final = 128  # pixels of a block: whole vectors, and its spectra stay in the second cache
GROUP: Final = 4  # observations that one loop works on
PAIR: Final = 2  # bands that one loop works on
CELL: Final = GROUP * PAIR * BLOCK  # values of a group's pair of bands

_STRETCH: Final = np.float32(0.5)  # the first step goes farther than Weiszfeld's by this part

_FARTHEST: Final = np.float32(1000)  # so many times farther a step goes at most
_ENOUGH: Final = np.float32(10)  # a step that goes so many times farther and is short has arrived

_ZERO: Final = np.float32(0)
_ONE: Final = np.float32(1)
_INF: Final = np.float32(np.inf)
_NAN: Final = np.float32(np.nan)
_TINY: Final = np.float32(1e-30)
_RIDGE: Final = np.float32(1 + 1e-5)  # tells two nearly parallel secants apart
_SLACK: Final = np.float32(1 + 2e-6)  # rounding in a sum of distances
_SHARP: Final = np.float32(1e-7)  # of the mean distance: smaller steps are rounding
_NEAR: Final = np.float32(32)  # times eps: a solution so near to a spectrum may be that spectrum,
_UNEVEN: Final = np.float32(1.5)  # if mean distance × mean weight is so much, else 1 to 1.4

# Rows of a block's state, as offsets.
N: Final = 0 * BLOCK  # valid observations
DONE: Final = 1 * BLOCK  # 1 = stands still
SNAP: Final = 2 * BLOCK  # 1 = stands on a spectrum that is the solution
CHECK: Final = 3 * BLOCK  # 1 = converged so near to a spectrum that it may be the solution
ASKED: Final = 4 * BLOCK  # 1 = is here because of that
BEST: Final = 5 * BLOCK  # squared distance and number of the nearest spectrum
INDEX: Final = 6 * BLOCK
_WEIGHT: Final = 7 * BLOCK  # sum of the weights
_SUM: Final = 8 * BLOCK  # sum of the distances
_MET: Final = 9 * BLOCK  # spectra at the estimate
BEFORE: Final = 10 * BLOCK  # sum of the distances before the step
_BACK: Final = 11 * BLOCK  # 1 = the step has failed
_LINKED: Final = 12 * BLOCK  # 1 = this residual and the last make a secant
_INVERSE: Final = 13 * BLOCK  # 1 / sum of the weights
_REACH: Final = 14 * BLOCK  # how much farther than Weiszfeld's a step goes without secants
_OF_R: Final = 15 * BLOCK  # how much of the residual and of the secants the step adds
_OF_U: Final = 16 * BLOCK
_OF_V: Final = 17 * BLOCK
_STEP: Final = 18 * BLOCK  # squared length of the step
_VV: Final = 19 * BLOCK  # inner products of the residual r, its differences u (new) and v (old),
_UU: Final = 20 * BLOCK  # and the targets' differences s (new) and t (old)
_UV: Final = 21 * BLOCK
_UR: Final = 22 * BLOCK
_VR: Final = 23 * BLOCK
_RR: Final = 24 * BLOCK
_SR: Final = 25 * BLOCK
_TR: Final = 26 * BLOCK
STATE_ROWS: Final = 27

# Rows of a pair of bands, two pixel rows each, as offsets.
ROW: Final = PAIR * BLOCK
Y: Final = 0 * ROW  # estimate
_TOTAL: Final = 1 * ROW  # weighted sum
_R: Final = 2 * ROW  # residual: Weiszfeld's step
_TARGET: Final = 3 * ROW  # where it leads
_DU: Final = 4 * ROW  # last difference of the residuals, and of the targets
_DS: Final = 5 * ROW
_DV: Final = 6 * ROW  # the differences before these
_DT: Final = 7 * ROW
RECORD: Final = 8 * ROW


class Block(NamedTuple):
    """A block's pixels; all float32 but `pixels`.

    x: spectra as differences from a centre, (group, band pair, observation, band, pixel), flat.
    clear: 1 where valid, (observation, pixel). q: squared distances, then weights, of a group.
    records: rows of every pair of bands. state: rows of the block.
    pixels: where in the strip the pixels are, int32.
    """

    x: Floats
    clear: Floats
    q: Floats
    records: Floats
    state: Floats
    pixels: Ints


@kernel
def squares(x: Floats, y: Floats, q: Floats) -> None:
    """Add the squared differences in two bands to the squared distances of a group."""
    for p in range(BLOCK):
        for i in range(GROUP):
            first = x[(2 * i) * BLOCK + p] - y[p]
            second = x[(2 * i + 1) * BLOCK + p] - y[BLOCK + p]
            q[i * BLOCK + p] += first * first + second * second


@kernel
def _weigh(clear: Floats, q: Floats, state: Floats) -> None:
    """Turn a group's squared distances into weights; a spectrum at the estimate has none."""
    for p in range(BLOCK):
        for i in range(GROUP):
            square, valid = q[i * BLOCK + p], clear[i * BLOCK + p]
            weight = valid / np.sqrt(square) if square > _ZERO else _ZERO
            q[i * BLOCK + p] = weight
            state[_WEIGHT + p] += weight
            state[_SUM + p] += weight * square
            state[_MET + p] += _ZERO if square > _ZERO else valid


@kernel
def _weighted(x: Floats, weight: Floats, total: Floats) -> None:
    """Add a group's weighted values in two bands."""
    for p in range(BLOCK):
        first, second = total[p], total[BLOCK + p]
        for i in range(GROUP):
            first += weight[i * BLOCK + p] * x[(2 * i) * BLOCK + p]
            second += weight[i * BLOCK + p] * x[(2 * i + 1) * BLOCK + p]
        total[p], total[BLOCK + p] = first, second


@kernel
def _evaluate(block: Block, groups: int) -> None:
    """Weighted sums, sums of weights and of distances, and spectra met, at the estimate."""
    state, q, size = block.state, block.q, block.records.size
    cells = size // RECORD * CELL
    state[_WEIGHT : _MET + BLOCK] = _ZERO
    for record in range(0, size, RECORD):
        block.records[record + _TOTAL : record + _TOTAL + ROW] = _ZERO
    for group in range(groups):
        q[:] = _ZERO
        cell = group * cells
        for record in range(0, size, RECORD):
            squares(block.x[cell : cell + CELL], block.records[record : record + ROW], q)
            cell += CELL
        clear = group * GROUP * BLOCK
        _weigh(block.clear[clear : clear + GROUP * BLOCK], q, state)
        cell = group * cells
        for record in range(0, size, RECORD):
            total = block.records[record + _TOTAL : record + _TOTAL + ROW]
            _weighted(block.x[cell : cell + CELL], q, total)
            cell += CELL


@kernel
def _prepare(state: Floats, begun: bool) -> None:
    for p in range(BLOCK):
        back = state[_SUM + p] > state[BEFORE + p] * _SLACK
        weight = state[_WEIGHT + p]
        state[_INVERSE + p] = _ONE / weight if weight > _ZERO else _ZERO
        state[_BACK + p] = _ONE if back else _ZERO
        linked = begun and not back and state[_MET + p] == _ZERO
        state[_LINKED + p] = _ONE if linked else _ZERO
        state[_VV + p] = state[_UU + p]
    state[_STEP : _STEP + BLOCK] = _ZERO
    state[_UU : _TR + BLOCK] = _ZERO


@kernel
def _residual(record: Floats, state: Floats) -> None:
    """Weiszfeld's step and the secant in two bands, and their part in the inner products."""
    for p in range(BLOCK):
        linked, back = state[_LINKED + p] > _ZERO, state[_BACK + p] > _ZERO
        for at in (p, BLOCK + p):
            reached = record[_TOTAL + at] * state[_INVERSE + p]
            r = reached - record[Y + at]
            v, u = record[_DU + at], r - record[_R + at] if linked else _ZERO
            t, s = record[_DS + at], reached - record[_TARGET + at] if linked else _ZERO
            record[_DV + at], record[_DU + at] = v, u
            record[_DT + at], record[_DS + at] = t, s
            record[_R + at] = record[_R + at] if back else r
            record[_TARGET + at] = record[_TARGET + at] if back else reached
            state[_RR + p] += r * r
            state[_UU + p] += u * u
            state[_UV + p] += u * v
            state[_UR + p] += u * r
            state[_VR + p] += v * r
            state[_SR + p] += s * r
            state[_TR + p] += t * r


@kernel
def _choose_step(state: Floats, stretch: np.float32) -> None:
    """How much of the residual and of the secants the step takes, beyond the target."""
    for p in range(BLOCK):
        met, pull = state[_MET + p], np.sqrt(state[_RR + p]) * state[_WEIGHT + p]
        solved = met > _ZERO and pull <= met * _SLACK and state[DONE + p] == _ZERO
        state[SNAP + p] = _ONE if solved else state[SNAP + p]
        state[DONE + p] = _ONE if solved else state[DONE + p]
        held = met / max(pull, _TINY)  # Vardi and Zhang's η / r
        uu = state[_UU + p] * _RIDGE + _TINY
        vv = state[_VV + p] * _RIDGE + _TINY
        slope = state[_UV + p] / uu
        v = (state[_VR + p] - slope * state[_UR + p]) / (vv - slope * state[_UV + p])
        u = (state[_UR + p] - v * state[_UV + p]) / uu
        back, linked = state[_BACK + p] > _ZERO, state[_LINKED + p] > _ZERO
        # Secants that lead away from where Weiszfeld's step leads are of no use but to say that the
        # residual grows on the way: a longer and longer step then.
        ahead = linked and state[_RR + p] > u * state[_SR + p] + v * state[_TR + p]
        reach = min(state[_REACH + p] * 2 + _ONE, _FARTHEST) if linked and not ahead else stretch
        state[_REACH + p] = reach if linked else _ZERO
        state[_OF_R + p] = _ZERO if back or ahead else (-held if met > _ZERO else reach)
        state[_OF_U + p] = -u if ahead else _ZERO
        state[_OF_V + p] = -v if ahead else _ZERO
        state[BEFORE + p] = _INF if back or met > _ZERO else state[_SUM + p]


@kernel
def _move(record: Floats, state: Floats) -> None:
    for p in range(BLOCK):
        for at in (p, BLOCK + p):
            y, to = record[Y + at], record[_TARGET + at] + state[_OF_R + p] * record[_R + at]
            to += state[_OF_U + p] * record[_DS + at] + state[_OF_V + p] * record[_DT + at]
            state[_STEP + p] += (to - y) * (to - y)
            record[Y + at] = y if state[DONE + p] > _ZERO else to


@kernel
def _settle(state: Floats, eps: np.float32, number: int) -> int:
    """Let converged pixels stand still; return nonzero if any pixel goes on."""
    going = np.int32(0)
    for p in range(BLOCK):
        limit = max(eps, _SHARP * state[_SUM + p] / max(state[N + p], _ONE))
        moved = max(state[_STEP + p], state[_RR + p])
        done = state[DONE + p] > _ZERO
        # Short steps tell that the solution is near, unless their residuals grow on the way.
        reach, linked = state[_REACH + p], state[_LINKED + p] > _ZERO
        sure = number > 1 and linked and (reach == _ZERO or reach > _ENOUGH)
        still = sure and moved < limit * limit and not done
        weight, n = state[_WEIGHT + p], state[N + p]
        uneven = weight * state[_SUM + p] > _UNEVEN * n * n
        beside = still and uneven and weight * eps * _NEAR > _ONE
        state[CHECK + p] = _ONE if beside else state[CHECK + p]
        state[DONE + p] = _ONE if still else state[DONE + p]
        going |= np.int32(0) if still or done else np.int32(1)
    return int(going)


@kernel
def _fall_back(record: Floats, state: Floats) -> None:
    """Plain steps for accelerated ones, where the pixel does not stand still."""
    for p in range(BLOCK):
        for at in (p, BLOCK + p):
            plain = state[DONE + p] == _ZERO and state[_MET + p] == _ZERO
            record[Y + at] = record[_TARGET + at] if plain else record[Y + at]


@kernel
def _go_home(y: Floats, state: Floats) -> None:
    """Back to the centre, if the sum of distances is less there than at the spectrum tried."""
    for p in range(BLOCK):
        home = state[_BACK + p] > _ZERO and state[DONE + p] == _ZERO
        y[p] = _ZERO if home else y[p]


@kernel
def iterate(block: Block, groups: int, first: int, steps: int, eps: np.float32) -> None:
    """Take steps until all pixels stand still, or so many; `first` is −1 for a trial, else 0."""
    state, records = block.state, block.records
    state[_UU : _UU + BLOCK] = _ZERO
    state[_REACH : _REACH + BLOCK] = _ZERO
    for at in range(0, records.size, RECORD):
        records[at + _DU : at + RECORD] = _ZERO
    for number in range(first, steps):
        _evaluate(block, groups)
        _prepare(state, number > 0)
        for at in range(0, records.size, RECORD):
            _residual(records[at : at + RECORD], state)
        _choose_step(state, _STRETCH if number == 0 else _ZERO)
        for at in range(0, records.size, RECORD):
            _move(records[at : at + RECORD], state)
        if number < 0:
            for at in range(0, records.size, RECORD):
                _go_home(records[at : at + BLOCK], state)
                _go_home(records[at + BLOCK : at + ROW], state)
        elif _settle(state, eps, number) == 0:
            return
    # Nobody would find out that an accelerated last step has failed.
    for at in range(0, records.size, RECORD):
        _fall_back(records[at : at + RECORD], state)
