"""The geometric median of every pixel of a strip.

The geometric median (Roberts, Mueller & McIntyre 2017, IEEE TGRS 55(11), 6254-6264) minimises the
sum of the distances to a pixel's spectra. It is the fixed point of Weiszfeld's step, the mean of
the spectra weighted by the reciprocals of their distances, with the correction of Vardi & Zhang
(2000, PNAS 97(4), 1423-1426) where the estimate meets a spectrum. What is done to get there soon:

- A step is combined with the last two (Anderson 1965, J. ACM 12(4), 547-560). The derivative of
  Weiszfeld's step has trace 1, so few directions converge slowly, and two secants see them. A
  combined step that increased the sum of distances is replaced by the plain one, which never does.
- Pixels are worked in blocks. After some steps the pixels that are left are gathered into new
  blocks, where the spectrum nearest to the estimate is tried first: if it satisfies Vardi & Zhang's
  condition it is the solution, which steps approach ever more slowly.

A pixel's course depends on nothing but its own values: a converged pixel stands still while others
go on, and every loop over a block has one constant length. Differences from a centre near the
solution are computed with, so that float32 suffices.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, kernel
from lcengine.kernels.scratch import NONE

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_BLOCK: Final = 128  # pixels of a block: whole vectors, and its spectra stay in the second cache
_GROUP: Final = 4  # observations that one loop works on
_PAIR: Final = 2  # bands that one loop works on
_CELL: Final = _GROUP * _PAIR * _BLOCK  # values of a group's pair of bands
_LINE: Final = 16  # float32 values in a cache line

_STEPS: Final = 8  # until the pixels that are left are gathered
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
_N: Final = 0 * _BLOCK  # valid observations
_DONE: Final = 1 * _BLOCK  # 1 = stands still
_SNAP: Final = 2 * _BLOCK  # 1 = stands on a spectrum that is the solution
_CHECK: Final = 3 * _BLOCK  # 1 = converged so near to a spectrum that it may be the solution
_ASKED: Final = 4 * _BLOCK  # 1 = is here because of that
_BEST: Final = 5 * _BLOCK  # squared distance and number of the nearest spectrum
_INDEX: Final = 6 * _BLOCK
_WEIGHT: Final = 7 * _BLOCK  # sum of the weights
_SUM: Final = 8 * _BLOCK  # sum of the distances
_MET: Final = 9 * _BLOCK  # spectra at the estimate
_BEFORE: Final = 10 * _BLOCK  # sum of the distances before the step
_BACK: Final = 11 * _BLOCK  # 1 = the step has failed
_LINKED: Final = 12 * _BLOCK  # 1 = this residual and the last make a secant
_INVERSE: Final = 13 * _BLOCK  # 1 / sum of the weights
_REACH: Final = 14 * _BLOCK  # how much farther than Weiszfeld's a step goes without secants
_OF_R: Final = 15 * _BLOCK  # how much of the residual and of the secants the step adds
_OF_U: Final = 16 * _BLOCK
_OF_V: Final = 17 * _BLOCK
_STEP: Final = 18 * _BLOCK  # squared length of the step
_VV: Final = 19 * _BLOCK  # inner products of the residual r, its differences u (new) and v (old),
_UU: Final = 20 * _BLOCK  # and the targets' differences s (new) and t (old)
_UV: Final = 21 * _BLOCK
_UR: Final = 22 * _BLOCK
_VR: Final = 23 * _BLOCK
_RR: Final = 24 * _BLOCK
_SR: Final = 25 * _BLOCK
_TR: Final = 26 * _BLOCK
_STATE_ROWS: Final = 27

# Rows of a pair of bands, two pixel rows each, as offsets.
_ROW: Final = _PAIR * _BLOCK
_Y: Final = 0 * _ROW  # estimate
_TOTAL: Final = 1 * _ROW  # weighted sum
_R: Final = 2 * _ROW  # residual: Weiszfeld's step
_TARGET: Final = 3 * _ROW  # where it leads
_DU: Final = 4 * _ROW  # last difference of the residuals, and of the targets
_DS: Final = 5 * _ROW
_DV: Final = 6 * _ROW  # the differences before these
_DT: Final = 7 * _ROW
_RECORD: Final = 8 * _ROW


class _Block(NamedTuple):
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


def geomedian_work(bands: int, observations: int, width: int) -> int:
    """Number of float32 values that `geomedian` needs as scratch for a strip of `width` pixels."""
    groups, pairs = -(-observations // _GROUP), -(-bands // _PAIR)
    spectra = groups * pairs * _CELL + groups * _GROUP * _BLOCK
    rows = _GROUP + _STATE_ROWS + 1
    return spectra + pairs * _RECORD + rows * _BLOCK + 2 * width + _LINE


@kernel
def _squares(x: Floats, y: Floats, q: Floats) -> None:
    """Add the squared differences in two bands to the squared distances of a group."""
    for p in range(_BLOCK):
        for i in range(_GROUP):
            first = x[(2 * i) * _BLOCK + p] - y[p]
            second = x[(2 * i + 1) * _BLOCK + p] - y[_BLOCK + p]
            q[i * _BLOCK + p] += first * first + second * second


@kernel
def _weigh(clear: Floats, q: Floats, state: Floats) -> None:
    """Turn a group's squared distances into weights; a spectrum at the estimate has none."""
    for p in range(_BLOCK):
        for i in range(_GROUP):
            square, valid = q[i * _BLOCK + p], clear[i * _BLOCK + p]
            weight = valid / np.sqrt(square) if square > _ZERO else _ZERO
            q[i * _BLOCK + p] = weight
            state[_WEIGHT + p] += weight
            state[_SUM + p] += weight * square
            state[_MET + p] += _ZERO if square > _ZERO else valid


@kernel
def _weighted(x: Floats, weight: Floats, total: Floats) -> None:
    """Add a group's weighted values in two bands."""
    for p in range(_BLOCK):
        first, second = total[p], total[_BLOCK + p]
        for i in range(_GROUP):
            first += weight[i * _BLOCK + p] * x[(2 * i) * _BLOCK + p]
            second += weight[i * _BLOCK + p] * x[(2 * i + 1) * _BLOCK + p]
        total[p], total[_BLOCK + p] = first, second


@kernel
def _evaluate(block: _Block, groups: int) -> None:
    """Weighted sums, sums of weights and of distances, and spectra met, at the estimate."""
    state, q, size = block.state, block.q, block.records.size
    cells = size // _RECORD * _CELL
    state[_WEIGHT : _MET + _BLOCK] = _ZERO
    for record in range(0, size, _RECORD):
        block.records[record + _TOTAL : record + _TOTAL + _ROW] = _ZERO
    for group in range(groups):
        q[:] = _ZERO
        cell = group * cells
        for record in range(0, size, _RECORD):
            _squares(block.x[cell : cell + _CELL], block.records[record : record + _ROW], q)
            cell += _CELL
        clear = group * _GROUP * _BLOCK
        _weigh(block.clear[clear : clear + _GROUP * _BLOCK], q, state)
        cell = group * cells
        for record in range(0, size, _RECORD):
            total = block.records[record + _TOTAL : record + _TOTAL + _ROW]
            _weighted(block.x[cell : cell + _CELL], q, total)
            cell += _CELL


@kernel
def _prepare(state: Floats, begun: bool) -> None:
    for p in range(_BLOCK):
        back = state[_SUM + p] > state[_BEFORE + p] * _SLACK
        weight = state[_WEIGHT + p]
        state[_INVERSE + p] = _ONE / weight if weight > _ZERO else _ZERO
        state[_BACK + p] = _ONE if back else _ZERO
        linked = begun and not back and state[_MET + p] == _ZERO
        state[_LINKED + p] = _ONE if linked else _ZERO
        state[_VV + p] = state[_UU + p]
    state[_STEP : _STEP + _BLOCK] = _ZERO
    state[_UU : _TR + _BLOCK] = _ZERO


@kernel
def _residual(record: Floats, state: Floats) -> None:
    """Weiszfeld's step and the secant in two bands, and their part in the inner products."""
    for p in range(_BLOCK):
        linked, back = state[_LINKED + p] > _ZERO, state[_BACK + p] > _ZERO
        for at in (p, _BLOCK + p):
            reached = record[_TOTAL + at] * state[_INVERSE + p]
            r = reached - record[_Y + at]
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
    for p in range(_BLOCK):
        met, pull = state[_MET + p], np.sqrt(state[_RR + p]) * state[_WEIGHT + p]
        solved = met > _ZERO and pull <= met * _SLACK and state[_DONE + p] == _ZERO
        state[_SNAP + p] = _ONE if solved else state[_SNAP + p]
        state[_DONE + p] = _ONE if solved else state[_DONE + p]
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
        state[_BEFORE + p] = _INF if back or met > _ZERO else state[_SUM + p]


@kernel
def _move(record: Floats, state: Floats) -> None:
    for p in range(_BLOCK):
        for at in (p, _BLOCK + p):
            y, to = record[_Y + at], record[_TARGET + at] + state[_OF_R + p] * record[_R + at]
            to += state[_OF_U + p] * record[_DS + at] + state[_OF_V + p] * record[_DT + at]
            state[_STEP + p] += (to - y) * (to - y)
            record[_Y + at] = y if state[_DONE + p] > _ZERO else to


@kernel
def _settle(state: Floats, eps: np.float32, number: int) -> int:
    """Let converged pixels stand still; return nonzero if any pixel goes on."""
    going = np.int32(0)
    for p in range(_BLOCK):
        limit = max(eps, _SHARP * state[_SUM + p] / max(state[_N + p], _ONE))
        moved = max(state[_STEP + p], state[_RR + p])
        done = state[_DONE + p] > _ZERO
        # Short steps tell that the solution is near, unless their residuals grow on the way.
        reach, linked = state[_REACH + p], state[_LINKED + p] > _ZERO
        sure = number > 1 and linked and (reach == _ZERO or reach > _ENOUGH)
        still = sure and moved < limit * limit and not done
        weight, n = state[_WEIGHT + p], state[_N + p]
        uneven = weight * state[_SUM + p] > _UNEVEN * n * n
        beside = still and uneven and weight * eps * _NEAR > _ONE
        state[_CHECK + p] = _ONE if beside else state[_CHECK + p]
        state[_DONE + p] = _ONE if still else state[_DONE + p]
        going |= np.int32(0) if still or done else np.int32(1)
    return int(going)


@kernel
def _fall_back(record: Floats, state: Floats) -> None:
    """Plain steps for accelerated ones, where the pixel does not stand still."""
    for p in range(_BLOCK):
        for at in (p, _BLOCK + p):
            plain = state[_DONE + p] == _ZERO and state[_MET + p] == _ZERO
            record[_Y + at] = record[_TARGET + at] if plain else record[_Y + at]


@kernel
def _go_home(y: Floats, state: Floats) -> None:
    """Back to the centre, if the sum of distances is less there than at the spectrum tried."""
    for p in range(_BLOCK):
        home = state[_BACK + p] > _ZERO and state[_DONE + p] == _ZERO
        y[p] = _ZERO if home else y[p]


@kernel
def _iterate(block: _Block, groups: int, first: int, steps: int, eps: np.float32) -> None:
    """Take steps until all pixels stand still, or so many; `first` is −1 for a trial, else 0."""
    state, records = block.state, block.records
    state[_UU : _UU + _BLOCK] = _ZERO
    state[_REACH : _REACH + _BLOCK] = _ZERO
    for at in range(0, records.size, _RECORD):
        records[at + _DU : at + _RECORD] = _ZERO
    for number in range(first, steps):
        _evaluate(block, groups)
        _prepare(state, number > 0)
        for at in range(0, records.size, _RECORD):
            _residual(records[at : at + _RECORD], state)
        _choose_step(state, _STRETCH if number == 0 else _ZERO)
        for at in range(0, records.size, _RECORD):
            _move(records[at : at + _RECORD], state)
        if number < 0:
            for at in range(0, records.size, _RECORD):
                _go_home(records[at : at + _BLOCK], state)
                _go_home(records[at + _BLOCK : at + _ROW], state)
        elif _settle(state, eps, number) == 0:
            return
    # Nobody would find out that an accelerated last step has failed.
    for at in range(0, records.size, _RECORD):
        _fall_back(records[at : at + _RECORD], state)


@kernel
def _add_valid(values: NDArray[Any], mask: NDArray[np.int16], total: Floats) -> None:
    for p in range(total.size):
        total[p] += np.float32(values[p]) if mask[p] != NONE else _ZERO


@kernel
def _means(
    raw: NDArray[Any], take: NDArray[np.int16], tally: NDArray[np.int16], mean: Floats
) -> None:
    """Mean spectra, NaN where there are none."""
    for band in range(raw.shape[0]):
        row = mean[band]
        row[:] = _ZERO
        for i in range(raw.shape[1]):
            _add_valid(raw[band, i], take[i], row)
        for p in range(tally.size):
            row[p] /= np.float32(tally[p])


@kernel
def _start(block: _Block, tally: NDArray[np.int16], n: int) -> None:
    """State of the first n pixels of a block: at rest on the centre."""
    state, records = block.state, block.records
    for p in range(_BLOCK):
        valid = np.float32(tally[block.pixels[p]])
        state[_N + p] = valid
        # Up to two spectra, their mean is the solution.
        state[_DONE + p] = _ONE if valid <= 2 or p >= n else _ZERO
    state[_SNAP : _CHECK + _BLOCK] = _ZERO
    state[_BEFORE : _BEFORE + _BLOCK] = _INF
    for at in range(0, records.size, _RECORD):
        records[at + _Y : at + _Y + _ROW] = _ZERO


@kernel
def _row(block: _Block, slot: int, band: int) -> Floats:
    """The row of an observation's band in `x`."""
    cell = (slot // _GROUP) * (block.records.size // _RECORD) + band // _PAIR
    at = cell * _CELL + ((slot % _GROUP) * _PAIR + band % _PAIR) * _BLOCK
    return block.x[at : at + _BLOCK]


@kernel
def _load_clear(take: NDArray[np.int16], clear: Floats) -> int:
    found = NONE
    for p in range(take.size):
        found |= take[p]
        clear[p] = _ONE if take[p] != NONE else _ZERO
    for p in range(take.size, _BLOCK):
        clear[p] = _ZERO
    return int(found)


@kernel
def _load_band(values: NDArray[Any], centre: Floats, clear: Floats, x: Floats) -> None:
    for p in range(values.size):
        x[p] = np.float32(values[p]) - centre[p] if clear[p] > _ZERO else _ZERO


@kernel
def _close(block: _Block, slots: int) -> int:
    """Empty the last group's free slots; return the number of groups."""
    groups = -(-slots // _GROUP)
    block.clear[slots * _BLOCK : groups * _GROUP * _BLOCK] = _ZERO
    return groups


@kernel
def _load(
    raw: NDArray[Any], take: NDArray[np.int16], start: int, centre: Floats, block: _Block
) -> int:
    """Load the block from pixel `start` on, about its centres; return the number of groups.

    Observations without a valid pixel in the block are left out.
    """
    bands, observations, width = raw.shape
    stop, slots = min(start + _BLOCK, width), int(np.int64(0))
    for i in range(observations):
        clear = block.clear[slots * _BLOCK : (slots + 1) * _BLOCK]
        if _load_clear(take[i, start:stop], clear):
            for band in range(bands):
                values, about = raw[band, i, start:stop], centre[band, start:stop]
                _load_band(values, about, clear, _row(block, slots, band))
            slots += 1
    return _close(block, slots)


@kernel
def _pick_clear(take: NDArray[np.int16], pixels: Ints, clear: Floats) -> None:
    for p in range(_BLOCK):
        clear[p] = np.float32(-take[pixels[p]])


@kernel
def _pick_band(
    values: NDArray[Any], pixels: Ints, centre: Floats, clear: Floats, x: Floats
) -> None:
    for p in range(_BLOCK):
        x[p] = np.float32(values[pixels[p]])
    for p in range(_BLOCK):
        x[p] = x[p] - centre[p] if clear[p] > _ZERO else _ZERO


@kernel
def _gather(raw: NDArray[Any], take: NDArray[np.int16], centre: Floats, block: _Block) -> int:
    """Load the pixels that `block.pixels` names, about their centres; as `_load`."""
    bands, observations, _ = raw.shape
    about = block.q[:_BLOCK]
    for i in range(observations):
        _pick_clear(take[i], block.pixels, block.clear[i * _BLOCK : (i + 1) * _BLOCK])
    for band in range(bands):
        for p in range(_BLOCK):
            about[p] = centre[band, block.pixels[p]]
        for i in range(observations):
            clear = block.clear[i * _BLOCK : (i + 1) * _BLOCK]
            _pick_band(raw[band, i], block.pixels, about, clear, _row(block, i, band))
    return _close(block, observations)


@kernel
def _closest(q: Floats, clear: Floats, first: np.float32, state: Floats) -> None:
    """Keep the nearest spectrum, and add up the distances."""
    for p in range(_BLOCK):
        for i in range(_GROUP):
            square, valid = q[i * _BLOCK + p], clear[i * _BLOCK + p]
            state[_BEFORE + p] += valid * np.sqrt(square)
            closer = valid > _ZERO and square < state[_BEST + p]
            state[_BEST + p] = square if closer else state[_BEST + p]
            state[_INDEX + p] = first + np.float32(i) if closer else state[_INDEX + p]


@kernel
def _find_nearest(block: _Block, groups: int) -> None:
    """The nearest spectrum to the centre, where the estimate is, and the sum of distances."""
    state, q, cell = block.state, block.q, 0
    state[_BEFORE : _BEFORE + _BLOCK] = _ZERO
    state[_BEST : _BEST + _BLOCK] = _INF
    state[_INDEX : _INDEX + _BLOCK] = _ZERO
    for group in range(groups):
        q[:] = _ZERO
        for record in range(0, block.records.size, _RECORD):
            _squares(block.x[cell : cell + _CELL], block.records[record : record + _ROW], q)
            cell += _CELL
        clear = block.clear[group * _GROUP * _BLOCK : (group + 1) * _GROUP * _BLOCK]
        _closest(q, clear, np.float32(group * _GROUP), state)


@kernel
def _try_nearest(block: _Block, groups: int, bands: int, tried: Ints) -> None:
    """Move the estimates to the nearest spectra, to try whether they are the solution.

    None is tried twice running. A pixel that is left only because it has converged beside one that
    was tried stands still.
    """
    state = block.state
    _find_nearest(block, groups)
    for p in range(_BLOCK):
        nearest, pixel = int(state[_INDEX + p]), block.pixels[p]
        if nearest == tried[pixel]:
            state[_DONE + p] = max(state[_DONE + p], state[_ASKED + p])
        elif state[_DONE + p] == _ZERO:
            tried[pixel] = nearest
            for band in range(bands):
                at = band // _PAIR * _RECORD + _Y + band % _PAIR * _BLOCK
                block.records[at + p] = _row(block, nearest, band)[p]


@kernel
def _snap(raw: NDArray[Any], take: NDArray[np.int16], pixel: int, centre: Floats) -> None:
    """Replace an estimate by the valid spectrum that it stands on but for rounding."""
    bands, observations, _ = raw.shape
    nearest, best = 0, _INF
    for i in range(observations):
        square = _ZERO
        for band in range(bands):
            square += (np.float32(raw[band, i, pixel]) - centre[band, pixel]) ** 2
        if take[i, pixel] != NONE and square < best:
            nearest, best = i, square
    for band in range(bands):
        centre[band, pixel] = raw[band, nearest, pixel]


@kernel
def _store(block: _Block, n: int, centre: Floats) -> None:
    """Write the first n pixels' estimates over their centres."""
    for band in range(centre.shape[0]):
        row, at = centre[band], band // _PAIR * _RECORD + _Y + band % _PAIR * _BLOCK
        y = block.records[at : at + _BLOCK]
        for p in range(n):
            row[block.pixels[p]] += y[p]


@kernel
def _finish(
    raw: NDArray[Any], take: NDArray[np.int16], block: _Block, n: int, centre: Floats
) -> None:
    """Write the first n pixels' results."""
    _store(block, n, centre)
    for p in range(n):
        if block.state[_SNAP + p] > _ZERO:
            _snap(raw, take, block.pixels[p], centre)


@kernel
def _list_left(block: _Block, n: int, left: Ints, count: int) -> int:
    """List the pixels that go on after `left[:count]`, as ~pixel where only to be checked."""
    state = block.state
    for p in range(n):
        if state[_DONE + p] == _ZERO:
            left[count] = block.pixels[p]
            count += 1
        elif state[_CHECK + p] > _ZERO:
            left[count] = ~block.pixels[p]
            count += 1
    return count


@kernel
def _read_list(left: Ints, block: _Block) -> None:
    """Make the listed pixels those of the block, the last one as often as room is left."""
    for p in range(_BLOCK):
        listed = left[min(p, left.size - 1)]
        block.pixels[p] = listed if listed >= 0 else ~listed
        block.state[_ASKED + p] = _ZERO if listed >= 0 else _ONE


@kernel
def _aligned(work: Floats) -> int:
    """First value that starts a cache line; vectors that straddle two lines take twice as long."""
    return int(-(np.int64(work.ctypes.data) // 4) % _LINE)


@kernel
def _cut(work: Floats, bands: int, observations: int) -> _Block:
    """The scratch as a block, from a cache line's start on."""
    groups, pairs = -(-observations // _GROUP), -(-bands // _PAIR)
    at = _aligned(work)
    x = work[at : at + groups * pairs * _CELL]
    at += x.size
    clear = work[at : at + groups * _GROUP * _BLOCK]
    at += clear.size
    q = work[at : at + _GROUP * _BLOCK]
    at += q.size
    records = work[at : at + pairs * _RECORD]
    at += records.size
    state = work[at : at + _STATE_ROWS * _BLOCK]
    at += state.size
    pixels = work[at : at + _BLOCK].view(np.int32)
    x[:] = _ZERO  # what no valid observation fills must be finite
    records[:] = _ZERO
    return _Block(x, clear, q, records, state, pixels)


@kernel
def geomedian(
    raw: NDArray[Any],
    take: NDArray[np.int16],
    tally: NDArray[np.int16],
    eps: np.float32,
    maxiter: int,
    work: Floats,
    centre: Floats,
) -> None:
    """Geometric median of the valid spectra of every pixel of a strip.

    Converged to a step shorter than `eps`; float32 bounds what a small `eps` can reach (about 1e-7
    of the mean distance, more where the spectra lie almost on a line). No valid observation: NaN.
    One: it. Two: their mean. A solution that is an observed spectrum is exactly that spectrum.

    Args:
        raw: (band, observation, pixel) int16 or float32; anything where not valid.
        take: (observation, pixel) int16, 0 = not valid, else −1.
        tally: (pixel,) int16, number of valid observations.
        eps: in units of `raw`.
        maxiter: most steps of a pixel, beside one for each trial of a spectrum.
        work: float32 scratch, at least `geomedian_work(...)` values.
        centre: (band, pixel) float32, written, in stored units: add the origin for true numbers.
    """
    raw, take, tally = borrow(raw), borrow(take), borrow(tally)
    work, centre = borrow(work), borrow(centre)
    bands, observations, width = raw.shape
    block = _cut(work, bands, observations)
    left = work[work.size - 2 * width : work.size - width].view(np.int32)
    tried = work[work.size - width :].view(np.int32)
    tried[:] = -1
    eps = np.float32(eps)
    _means(raw, take, tally, centre)
    zero = int(np.int64(0))  # for a literal, the callees would be compiled once more
    count = zero
    for start in range(0, width, _BLOCK):
        n = min(_BLOCK, width - start)
        for p in range(_BLOCK):
            block.pixels[p] = min(start + p, width - 1)
        _start(block, tally, n)
        groups = _load(raw, take, start, centre, block)
        _iterate(block, groups, zero, min(_STEPS, maxiter), eps)
        _finish(raw, take, block, n, centre)
        count = _list_left(block, n, left, count)
    spent = _STEPS
    while count > 0 and spent < maxiter:
        kept = zero
        for start in range(0, count, _BLOCK):
            n = min(_BLOCK, count - start)
            _read_list(left[start : start + n], block)
            _start(block, tally, n)
            groups = _gather(raw, take, centre, block)
            _try_nearest(block, groups, bands, tried)
            _iterate(block, groups, zero - 1, min(_STEPS, maxiter - spent), eps)
            _finish(raw, take, block, n, centre)
            kept = _list_left(block, n, left, kept)
        count = kept
        spent += _STEPS
