"""Geometric median, and the median absolute deviations about it, of one strip of pixels.

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

_BLOCK: Final = 64  # pixels of a block: whole vectors, and the spectra stay in the first cache
_GROUP: Final = 4  # observations that one loop works on
_PAIR: Final = 2  # bands that one loop works on
_CELL: Final = _GROUP * _PAIR * _BLOCK  # values of a group's pair of bands
_LINE: Final = 16  # float32 values in a cache line

_FIRST_STEPS: Final = 8  # before the pixels that are left are gathered
_LATER_STEPS: Final = 16  # before they are gathered again
_STRETCH: Final = np.float32(0.5)  # the first step goes farther than Weiszfeld's by this part

_ZERO: Final = np.float32(0)
_ONE: Final = np.float32(1)
_INF: Final = np.float32(np.inf)
_NAN: Final = np.float32(np.nan)
_TINY: Final = np.float32(1e-30)
_RIDGE: Final = np.float32(1 + 1e-5)  # tells two nearly parallel secants apart
_SLACK: Final = np.float32(1 + 2e-6)  # rounding in a sum of distances
_SHARP: Final = np.float32(3e-7)  # of the mean distance: smaller steps are rounding
_NEAR: Final = np.float32(4)  # times eps: a solution so near to a spectrum may be that spectrum

# Rows of a block's state, as offsets.
_N: Final = 0 * _BLOCK  # valid observations
_WEIGHT: Final = 1 * _BLOCK  # sum of the weights
_SUM: Final = 2 * _BLOCK  # sum of the distances
_MET: Final = 3 * _BLOCK  # spectra at the estimate
_DONE: Final = 4 * _BLOCK  # 1 = stands still
_SNAP: Final = 5 * _BLOCK  # 1 = stands on a spectrum that is the solution
_CHECK: Final = 6 * _BLOCK  # 1 = converged so near to a spectrum that it may be the solution
_BEFORE: Final = 7 * _BLOCK  # sum of the distances before the step
_BACK: Final = 8 * _BLOCK  # 1 = the step has failed
_LINKED: Final = 9 * _BLOCK  # 1 = this residual and the last make a secant
_INVERSE: Final = 10 * _BLOCK  # 1 / sum of the weights
_RR: Final = 11 * _BLOCK  # inner products of the residual r, the new secant u and the old one v
_UU: Final = 12 * _BLOCK
_VV: Final = 13 * _BLOCK
_UV: Final = 14 * _BLOCK
_UR: Final = 15 * _BLOCK
_VR: Final = 16 * _BLOCK
_OF_R: Final = 17 * _BLOCK  # how much of them the step takes
_OF_U: Final = 18 * _BLOCK
_OF_V: Final = 19 * _BLOCK
_STEP: Final = 20 * _BLOCK  # squared length of the step
_BEST: Final = 21 * _BLOCK  # squared distance and number of the nearest spectrum
_INDEX: Final = 22 * _BLOCK
_ASKED: Final = 23 * _BLOCK  # 1 = was left because of `_CHECK`
_STATE_ROWS: Final = 24


class _Block(NamedTuple):
    """State of a block's pixels; all float32 but `pixels`.

    x: spectra as differences from `centre`, (group, band pair, observation, band, pixel), flat.
    clear: 1 where valid, (observation, pixel). q: distances, then weights, of a group.
    y: estimate, r: residual (Weiszfeld's step), target: estimate + step, total: weighted sums;
    (band, pixel), as are the secants, the last two differences of r (`du`) and target (`dt`).
    state: rows named above. pixels: where in the strip the pixels are, int32.
    """

    x: Floats
    clear: Floats
    q: Floats
    centre: Floats
    y: Floats
    r: Floats
    target: Floats
    total: Floats
    du: Floats
    dt: Floats
    state: Floats
    pixels: Ints


def geomedian_work(bands: int, observations: int, width: int) -> int:
    """Number of float32 values that `geomedian` needs as scratch for a strip of `width` pixels."""
    groups, pairs = -(-observations // _GROUP), -(-bands // _PAIR)
    block = groups * pairs * _CELL + groups * _GROUP * _BLOCK
    rows = 9 * pairs * _PAIR + _GROUP + _STATE_ROWS + 1
    return block + rows * _BLOCK + 2 * width + _LINE


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
    state, q, two = block.state, block.q, _PAIR * _BLOCK
    pairs = block.y.size // two
    block.total[:] = _ZERO
    state[_WEIGHT : _MET + _BLOCK] = _ZERO
    for group in range(groups):
        cell = group * pairs * _CELL
        q[:] = _ZERO
        for pair in range(pairs):
            at = cell + pair * _CELL
            _squares(block.x[at : at + _CELL], block.y[pair * two : (pair + 1) * two], q)
        _weigh(block.clear[group * _GROUP * _BLOCK : (group + 1) * _GROUP * _BLOCK], q, state)
        for pair in range(pairs):
            at = cell + pair * _CELL
            _weighted(block.x[at : at + _CELL], q, block.total[pair * two : (pair + 1) * two])


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
    state[_UU : _UU + _BLOCK] = _ZERO
    state[_RR : _RR + _BLOCK] = _ZERO
    state[_UV : _VR + _BLOCK] = _ZERO
    state[_STEP : _STEP + _BLOCK] = _ZERO


@kernel
def _residual(  # noqa: PLR0913 - one band's rows
    total: Floats,
    y: Floats,
    r: Floats,
    target: Floats,
    du: Floats,
    dt: Floats,
    dv: Floats,
    state: Floats,
) -> None:
    """One band's Weiszfeld step and secant, and their part in the inner products."""
    for p in range(_BLOCK):
        linked, back = state[_LINKED + p] > _ZERO, state[_BACK + p] > _ZERO
        reached = total[p] * state[_INVERSE + p]
        here = reached - y[p]
        u = here - r[p] if linked else _ZERO
        du[p] = u
        dt[p] = reached - target[p] if linked else _ZERO
        r[p] = r[p] if back else here
        target[p] = target[p] if back else reached
        state[_RR + p] += here * here
        state[_UU + p] += u * u
        state[_UV + p] += u * dv[p]
        state[_UR + p] += u * here
        state[_VR + p] += dv[p] * here


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
        back, plain = state[_BACK + p] > _ZERO, state[_LINKED + p] == _ZERO
        state[_OF_R + p] = _ZERO if back else (-held if met > _ZERO else stretch)
        state[_OF_U + p] = _ZERO if plain else -u
        state[_OF_V + p] = _ZERO if plain else -v
        state[_BEFORE + p] = _INF if back or met > _ZERO else state[_SUM + p]


@kernel
def _move(y: Floats, r: Floats, target: Floats, dt: Floats, dw: Floats, state: Floats) -> None:
    for p in range(_BLOCK):
        to = target[p] + state[_OF_R + p] * r[p]
        to += state[_OF_U + p] * dt[p] + state[_OF_V + p] * dw[p]
        state[_STEP + p] += (to - y[p]) * (to - y[p])
        y[p] = y[p] if state[_DONE + p] > _ZERO else to


@kernel
def _settle(state: Floats, eps: np.float32) -> int:
    """Let converged pixels stand still; return nonzero if any pixel goes on."""
    going = np.int32(0)
    for p in range(_BLOCK):
        limit = max(eps, _SHARP * state[_SUM + p] / max(state[_N + p], _ONE))
        moved = max(state[_STEP + p], state[_RR + p])
        done = state[_DONE + p] > _ZERO
        still = moved < limit * limit and state[_LINKED + p] > _ZERO and not done
        beside = still and state[_WEIGHT + p] * eps * _NEAR > _ONE
        state[_CHECK + p] = _ONE if beside else state[_CHECK + p]
        state[_DONE + p] = _ONE if still else state[_DONE + p]
        going |= np.int32(0) if still or done else np.int32(1)
    return int(going)


@kernel
def _step(block: _Block, number: int, last: bool, stretch: np.float32, eps: np.float32) -> int:
    """One step of every pixel after `_evaluate`; return nonzero if any pixel goes on."""
    state, size = block.state, block.y.size
    new, old = (number % 2) * size, (1 - number % 2) * size
    _prepare(state, number > 0)
    for at in range(0, size, _BLOCK):
        to = at + _BLOCK
        _residual(
            block.total[at:to],
            block.y[at:to],
            block.r[at:to],
            block.target[at:to],
            block.du[new + at : new + to],
            block.dt[new + at : new + to],
            block.du[old + at : old + to],
            state,
        )
    _choose_step(state, stretch)
    for at in range(0, size, _BLOCK):
        to = at + _BLOCK
        _move(
            block.y[at:to],
            block.r[at:to],
            block.target[at:to],
            block.dt[new + at : new + to],
            block.dt[old + at : old + to],
            state,
        )
    going = _settle(state, eps)
    if last and going:  # no later step would take an accelerated one back
        for at in range(0, size, _BLOCK):
            _fall_back(block.y[at : at + _BLOCK], block.target[at : at + _BLOCK], state)
    return going


@kernel
def _fall_back(y: Floats, target: Floats, state: Floats) -> None:
    for p in range(_BLOCK):
        plain = state[_DONE + p] == _ZERO and state[_MET + p] == _ZERO
        y[p] = target[p] if plain else y[p]


@kernel
def _iterate(block: _Block, groups: int, steps: int, eps: np.float32) -> None:
    state = block.state
    state[_UU : _UU + _BLOCK] = _ZERO
    state[_BEFORE : _BEFORE + _BLOCK] = _INF
    block.du[:] = _ZERO
    block.dt[:] = _ZERO
    for number in range(steps):
        _evaluate(block, groups)
        stretch = _STRETCH if number == 0 else _ZERO
        if _step(block, number, number == steps - 1, stretch, eps) == 0:
            break


@kernel
def _start(block: _Block, tally: NDArray[np.int16], n: int) -> None:
    """State of the first n pixels of a block from their numbers of valid observations."""
    state = block.state
    for p in range(_BLOCK):
        valid = np.float32(tally[block.pixels[p]])
        state[_N + p] = valid
        # Up to two spectra, the mean is the solution.
        state[_DONE + p] = _ONE if valid <= 2 or p >= n else _ZERO
    state[_SNAP : _CHECK + _BLOCK] = _ZERO
    block.y[:] = _ZERO


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
def _load_band(values: NDArray[Any], clear: Floats, x: Floats, total: Floats) -> None:
    for p in range(values.size):
        value = np.float32(values[p]) if clear[p] > _ZERO else _ZERO
        x[p] = value
        total[p] += value


@kernel
def _subtract(x: Floats, centre: Floats) -> None:
    for p in range(_BLOCK):
        x[p] -= centre[p]


@kernel
def _cell(block: _Block, slot: int, band: int) -> Floats:
    """The row of an observation's band in `x`."""
    pairs = block.y.size // (_PAIR * _BLOCK)
    cell = (slot // _GROUP) * pairs + band // _PAIR
    at = cell * _CELL + ((slot % _GROUP) * _PAIR + band % _PAIR) * _BLOCK
    return block.x[at : at + _BLOCK]


@kernel
def _centre(block: _Block, bands: int, slots: int) -> int:
    """Turn values into differences from the centre; return the number of groups."""
    for slot in range(slots):
        for band in range(bands):
            _subtract(
                _cell(block, slot, band), block.centre[band * _BLOCK : (band + 1) * _BLOCK]
            )
    groups = -(-slots // _GROUP)
    block.clear[slots * _BLOCK : groups * _GROUP * _BLOCK] = _ZERO
    return groups


@kernel
def _load(
    raw: NDArray[Any], take: NDArray[np.int16], tally: NDArray[np.int16], start: int, block: _Block
) -> int:
    """Load the block from pixel `start` on, about its means; return the number of groups.

    Observations without a valid pixel in the block are left out.
    """
    bands, observations, width = raw.shape
    n, slots = min(_BLOCK, width - start), 0
    for p in range(_BLOCK):
        block.pixels[p] = min(start + p, width - 1)
    _start(block, tally, n)
    block.centre[:] = _ZERO
    for i in range(observations):
        clear = block.clear[slots * _BLOCK : (slots + 1) * _BLOCK]
        if _load_clear(take[i, start : start + n], clear):
            for band in range(bands):
                total = block.centre[band * _BLOCK : (band + 1) * _BLOCK]
                _load_band(
                    raw[band, i, start : start + n], clear, _cell(block, slots, band), total
                )
            slots += 1
    for at in range(0, block.centre.size, _BLOCK):
        for p in range(_BLOCK):
            block.centre[at + p] /= max(block.state[_N + p], _ONE)
    return _centre(block, bands, slots)


@kernel
def _pick(values: NDArray[Any], pixels: Ints, out: Floats) -> None:
    for p in range(_BLOCK):
        out[p] = np.float32(values[pixels[p]])


@kernel
def _hide(x: Floats, clear: Floats) -> None:
    for p in range(_BLOCK):
        x[p] = x[p] if clear[p] != _ZERO else _ZERO


@kernel
def _gather(
    raw: NDArray[Any], take: NDArray[np.int16], tally: NDArray[np.int16], n: int, block: _Block, centre: Floats
) -> int:
    """Load the n pixels that `block.pixels` names, about their estimates; as `_load`."""
    bands, observations, _ = raw.shape
    block.pixels[n:] = block.pixels[n - 1]
    _start(block, tally, n)
    for band in range(bands):
        _pick(centre[band], block.pixels, block.centre[band * _BLOCK : (band + 1) * _BLOCK])
    for i in range(observations):
        clear = block.clear[i * _BLOCK : (i + 1) * _BLOCK]
        _pick(take[i], block.pixels, clear)
        for p in range(_BLOCK):
            clear[p] = -clear[p]
        for band in range(bands):
            row = _cell(block, i, band)
            _pick(raw[band, i], block.pixels, row)
            _hide(row, clear)
    return _centre(block, bands, observations)


@kernel
def _closest(q: Floats, clear: Floats, first: np.float32, state: Floats) -> None:
    for p in range(_BLOCK):
        for i in range(_GROUP):
            square = q[i * _BLOCK + p]
            closer = clear[i * _BLOCK + p] > _ZERO and square < state[_BEST + p]
            state[_BEST + p] = square if closer else state[_BEST + p]
            state[_INDEX + p] = first + np.float32(i) if closer else state[_INDEX + p]


@kernel
def _find_nearest(block: _Block, groups: int) -> None:
    """Number of the spectrum nearest to the centre."""
    state, q = block.state, block.q
    pairs = block.y.size // (_PAIR * _BLOCK)
    state[_BEST : _BEST + _BLOCK] = _INF
    state[_INDEX : _INDEX + _BLOCK] = _ZERO
    for group in range(groups):
        q[:] = _ZERO
        for pair in range(pairs):
            at, row = (group * pairs + pair) * _CELL, pair * _PAIR * _BLOCK
            _squares(block.x[at : at + _CELL], block.y[row : row + _PAIR * _BLOCK], q)
        at = group * _GROUP * _BLOCK
        _closest(q, block.clear[at : at + _GROUP * _BLOCK], np.float32(group * _GROUP), state)


@kernel
def _try_nearest(block: _Block, groups: int, tried: Ints) -> None:
    """Let pixels stand still whose nearest spectrum is the solution.

    A pixel that has converged before is left a step away from its nearest
    spectrum, where it may have been held; if that spectrum has been tried before, it stands still.
    """
    state, size, bands = block.state, block.y.size, block.centre.size // _BLOCK
    _find_nearest(block, groups)
    for p in range(_BLOCK):
        nearest = int(state[_INDEX + p])
        if nearest == tried[block.pixels[p]]:
            state[_DONE + p] = max(state[_DONE + p], state[_ASKED + p])
        elif state[_DONE + p] == _ZERO:
            for band in range(bands):
                block.y[band * _BLOCK + p] = _cell(block, nearest, band)[p]
            tried[block.pixels[p]] = nearest
    _iterate(block, groups, 1, _ZERO)
    for at in range(0, size, _BLOCK):
        for p in range(_BLOCK):
            stays = state[_DONE + p] + state[_ASKED + p] > _ZERO
            block.y[at + p] = block.y[at + p] if stays else _ZERO


@kernel
def _snap(raw: NDArray[Any], take: NDArray[np.int16], block: _Block, p: int, centre: Floats) -> None:
    """Write the spectrum at which the estimate stands, to the last bit."""
    bands, observations, _ = raw.shape
    pixel = block.pixels[p]
    for i in range(observations):
        same = take[i, pixel] != NONE
        for band in range(bands):
            at = band * _BLOCK + p
            same = same and np.float32(raw[band, i, pixel]) - block.centre[at] == block.y[at]
        if same:
            for band in range(bands):
                centre[band, pixel] = raw[band, i, pixel]
            return


@kernel
def _store(
    raw: NDArray[Any],
    take: NDArray[np.int16],
    block: _Block,
    n: int,
    centre: Floats,
    left: Ints,
    count: int,
) -> int:
    """Write a block's first n pixels; list those that are left after `left[:count]`."""
    state = block.state
    for band in range(centre.shape[0]):
        row = centre[band]
        for p in range(n):
            at = band * _BLOCK + p
            row[block.pixels[p]] = block.centre[at] + block.y[at] if state[_N + p] > _ZERO else _NAN
    for p in range(n):
        if state[_SNAP + p] > _ZERO:
            _snap(raw, take, block, p, centre)
        elif state[_DONE + p] == _ZERO:
            left[count] = block.pixels[p]
            count += 1
        elif state[_CHECK + p] > _ZERO:
            left[count] = ~block.pixels[p]
            count += 1
    return count


@kernel
def _block(work: Floats, bands: int, observations: int) -> _Block:
    """Cut the scratch up, from a cache line's start on."""
    groups, pairs = -(-observations // _GROUP), -(-bands // _PAIR)
    at = -(np.int64(work.ctypes.data) // 4) % _LINE
    size, rows = groups * pairs * _CELL, pairs * _PAIR * _BLOCK
    x = work[at : at + size]
    at += size
    clear = work[at : at + groups * _GROUP * _BLOCK]
    at += clear.size
    q = work[at : at + _GROUP * _BLOCK]
    at += q.size
    state = work[at : at + _STATE_ROWS * _BLOCK]
    at += state.size
    pixels = work[at : at + _BLOCK].view(np.int32)
    at += _BLOCK
    x[:] = _ZERO
    return _Block(
        x,
        clear,
        q,
        work[at : at + bands * _BLOCK],
        work[at + rows : at + 2 * rows],
        work[at + 2 * rows : at + 3 * rows],
        work[at + 3 * rows : at + 4 * rows],
        work[at + 4 * rows : at + 5 * rows],
        work[at + 5 * rows : at + 7 * rows],
        work[at + 7 * rows : at + 9 * rows],
        state,
        pixels,
    )


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
    raw, take, tally = borrow(raw), borrow(take), borrow(tally)
    work, centre = borrow(work), borrow(centre)
    bands, observations, width = raw.shape
    block = _block(work, bands, observations)
    left = work[work.size - 2 * width : work.size - width].view(np.int32)
    tried = work[work.size - width :].view(np.int32)
    tried[:] = -1
    eps = np.float32(eps)
    count = 0
    for start in range(0, width, _BLOCK):
        groups = _load(raw, take, tally, start, block)
        _iterate(block, groups, min(_FIRST_STEPS, maxiter), eps)
        count = _store(raw, take, block, min(_BLOCK, width - start), centre, left, count)
    spent = _FIRST_STEPS
    while count > 0 and spent < maxiter:
        kept = 0
        for start in range(0, count, _BLOCK):
            n = min(_BLOCK, count - start)
            for p in range(n):
                listed = left[start + p]
                block.pixels[p] = listed if listed >= 0 else ~listed
                block.state[_ASKED + p] = _ZERO if listed >= 0 else _ONE
            block.state[_ASKED + n : _ASKED + _BLOCK] = _ZERO
            groups = _gather(raw, take, tally, n, block, centre)
            _try_nearest(block, groups, tried)
            _iterate(block, groups, min(_LATER_STEPS, maxiter - spent), eps)
            kept = _store(raw, take, block, n, centre, left, kept)
        count = kept
        spent += _LATER_STEPS
