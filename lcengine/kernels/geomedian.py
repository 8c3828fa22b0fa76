"""The geometric median of every pixel of a strip.

The geometric median (Roberts, Mueller & McIntyre 2017, IEEE TGRS 55(11), 6254-6264) minimises the
sum of the distances to a pixel's spectra. Pixels are worked in blocks by the steps of
`kernels.weiszfeld`. After some steps the pixels that are left are gathered into new blocks, where
the spectrum nearest to the estimate is tried first: if it satisfies Vardi & Zhang's condition it is
the solution, which steps approach ever more slowly.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lcengine.kernels._jit import borrow, kernel
from lcengine.kernels.scratch import NONE
from lcengine.kernels.weiszfeld import (
    ASKED,
    BEFORE,
    BEST,
    BLOCK,
    CELL,
    CHECK,
    DONE,
    GROUP,
    INDEX,
    PAIR,
    RECORD,
    ROW,
    SNAP,
    STATE_ROWS,
    Block,
    N,
    Y,
    iterate,
    squares,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_LINE: Final = 16  # float32 values in a cache line
_STEPS: Final = 8  # until the pixels that are left are gathered

_ZERO: Final = np.float32(0)
_ONE: Final = np.float32(1)
_INF: Final = np.float32(np.inf)


def geomedian_work(bands: int, observations: int, width: int) -> int:
    """Number of float32 values that `geomedian` needs as scratch for a strip of `width` pixels."""
    groups, pairs = -(-observations // GROUP), -(-bands // PAIR)
    spectra = groups * pairs * CELL + groups * GROUP * BLOCK
    rows = GROUP + STATE_ROWS + 1
    return spectra + pairs * RECORD + rows * BLOCK + 2 * width + _LINE


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
def _start(block: Block, tally: NDArray[np.int16], n: int) -> None:
    """State of the first n pixels of a block: at rest on the centre."""
    state, records = block.state, block.records
    for p in range(BLOCK):
        valid = np.float32(tally[block.pixels[p]])
        state[N + p] = valid
        # Up to two spectra, their mean is the solution.
        state[DONE + p] = _ONE if valid <= 2 or p >= n else _ZERO
    state[SNAP : CHECK + BLOCK] = _ZERO
    state[BEFORE : BEFORE + BLOCK] = _INF
    for at in range(0, records.size, RECORD):
        records[at + Y : at + Y + ROW] = _ZERO


@kernel
def _row(block: Block, slot: int, band: int) -> Floats:
    """The row of an observation's band in `x`."""
    cell = (slot // GROUP) * (block.records.size // RECORD) + band // PAIR
    at = cell * CELL + ((slot % GROUP) * PAIR + band % PAIR) * BLOCK
    return block.x[at : at + BLOCK]


@kernel
def _load_clear(take: NDArray[np.int16], clear: Floats) -> int:
    found = NONE
    for p in range(take.size):
        found |= take[p]
        clear[p] = _ONE if take[p] != NONE else _ZERO
    for p in range(take.size, BLOCK):
        clear[p] = _ZERO
    return int(found)


@kernel
def _load_band(values: NDArray[Any], centre: Floats, clear: Floats, x: Floats) -> None:
    for p in range(values.size):
        x[p] = np.float32(values[p]) - centre[p] if clear[p] > _ZERO else _ZERO


@kernel
def _close(block: Block, slots: int) -> int:
    """Empty the last group's free slots; return the number of groups."""
    groups = -(-slots // GROUP)
    block.clear[slots * BLOCK : groups * GROUP * BLOCK] = _ZERO
    return groups


@kernel
def _load(
    raw: NDArray[Any], take: NDArray[np.int16], start: int, centre: Floats, block: Block
) -> int:
    """Load the block from pixel `start` on, about its centres; return the number of groups.

    Observations without a valid pixel in the block are left out.
    """
    bands, observations, width = raw.shape
    stop, slots = min(start + BLOCK, width), int(np.int64(0))
    for i in range(observations):
        clear = block.clear[slots * BLOCK : (slots + 1) * BLOCK]
        if _load_clear(take[i, start:stop], clear):
            for band in range(bands):
                values, about = raw[band, i, start:stop], centre[band, start:stop]
                _load_band(values, about, clear, _row(block, slots, band))
            slots += 1
    return _close(block, slots)


@kernel
def _pick_clear(take: NDArray[np.int16], pixels: Ints, clear: Floats) -> None:
    for p in range(BLOCK):
        clear[p] = np.float32(-take[pixels[p]])


@kernel
def _pick_band(
    values: NDArray[Any], pixels: Ints, centre: Floats, clear: Floats, x: Floats
) -> None:
    for p in range(BLOCK):
        x[p] = np.float32(values[pixels[p]])
    for p in range(BLOCK):
        x[p] = x[p] - centre[p] if clear[p] > _ZERO else _ZERO


@kernel
def _gather(raw: NDArray[Any], take: NDArray[np.int16], centre: Floats, block: Block) -> int:
    """Load the pixels that `block.pixels` names, about their centres; as `_load`."""
    bands, observations, _ = raw.shape
    about = block.q[:BLOCK]
    for i in range(observations):
        _pick_clear(take[i], block.pixels, block.clear[i * BLOCK : (i + 1) * BLOCK])
    for band in range(bands):
        for p in range(BLOCK):
            about[p] = centre[band, block.pixels[p]]
        for i in range(observations):
            clear = block.clear[i * BLOCK : (i + 1) * BLOCK]
            _pick_band(raw[band, i], block.pixels, about, clear, _row(block, i, band))
    return _close(block, observations)


@kernel
def _closest(q: Floats, clear: Floats, first: np.float32, state: Floats) -> None:
    """Keep the nearest spectrum, and add up the distances."""
    for p in range(BLOCK):
        for i in range(GROUP):
            square, valid = q[i * BLOCK + p], clear[i * BLOCK + p]
            state[BEFORE + p] += valid * np.sqrt(square)
            closer = valid > _ZERO and square < state[BEST + p]
            state[BEST + p] = square if closer else state[BEST + p]
            state[INDEX + p] = first + np.float32(i) if closer else state[INDEX + p]


@kernel
def _find_nearest(block: Block, groups: int) -> None:
    """The nearest spectrum to the centre, where the estimate is, and the sum of distances."""
    state, q, cell = block.state, block.q, 0
    state[BEFORE : BEFORE + BLOCK] = _ZERO
    state[BEST : BEST + BLOCK] = _INF
    state[INDEX : INDEX + BLOCK] = _ZERO
    for group in range(groups):
        q[:] = _ZERO
        for record in range(0, block.records.size, RECORD):
            squares(block.x[cell : cell + CELL], block.records[record : record + ROW], q)
            cell += CELL
        clear = block.clear[group * GROUP * BLOCK : (group + 1) * GROUP * BLOCK]
        _closest(q, clear, np.float32(group * GROUP), state)


@kernel
def _try_nearest(block: Block, groups: int, bands: int, tried: Ints) -> None:
    """Move the estimates to the nearest spectra, to try whether they are the solution.

    None is tried twice running. A pixel that is left only because it has converged beside one that
    was tried stands still.
    """
    state = block.state
    _find_nearest(block, groups)
    for p in range(BLOCK):
        nearest, pixel = int(state[INDEX + p]), block.pixels[p]
        if nearest == tried[pixel]:
            state[DONE + p] = max(state[DONE + p], state[ASKED + p])
        elif state[DONE + p] == _ZERO:
            tried[pixel] = nearest
            for band in range(bands):
                at = band // PAIR * RECORD + Y + band % PAIR * BLOCK
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
def _store(block: Block, n: int, centre: Floats) -> None:
    """Write the first n pixels' estimates over their centres."""
    for band in range(centre.shape[0]):
        row, at = centre[band], band // PAIR * RECORD + Y + band % PAIR * BLOCK
        y = block.records[at : at + BLOCK]
        for p in range(n):
            row[block.pixels[p]] += y[p]


@kernel
def _finish(
    raw: NDArray[Any], take: NDArray[np.int16], block: Block, n: int, centre: Floats
) -> None:
    """Write the first n pixels' results."""
    _store(block, n, centre)
    for p in range(n):
        if block.state[SNAP + p] > _ZERO:
            _snap(raw, take, block.pixels[p], centre)


@kernel
def _list_left(block: Block, n: int, left: Ints, count: int) -> int:
    """List the pixels that go on after `left[:count]`, as ~pixel where only to be checked."""
    state = block.state
    for p in range(n):
        if state[DONE + p] == _ZERO:
            left[count] = block.pixels[p]
            count += 1
        elif state[CHECK + p] > _ZERO:
            left[count] = ~block.pixels[p]
            count += 1
    return count


@kernel
def _read_list(left: Ints, block: Block) -> None:
    """Make the listed pixels those of the block, the last one as often as room is left."""
    for p in range(BLOCK):
        listed = left[min(p, left.size - 1)]
        block.pixels[p] = listed if listed >= 0 else ~listed
        block.state[ASKED + p] = _ZERO if listed >= 0 else _ONE


@kernel
def _aligned(work: Floats) -> int:
    """First value that starts a cache line; vectors that straddle two lines take twice as long."""
    return int(-(np.int64(work.ctypes.data) // 4) % _LINE)


@kernel
def _cut(work: Floats, bands: int, observations: int) -> Block:
    """The scratch as a block, from a cache line's start on."""
    groups, pairs = -(-observations // GROUP), -(-bands // PAIR)
    at = _aligned(work)
    x = work[at : at + groups * pairs * CELL]
    at += x.size
    clear = work[at : at + groups * GROUP * BLOCK]
    at += clear.size
    q = work[at : at + GROUP * BLOCK]
    at += q.size
    records = work[at : at + pairs * RECORD]
    at += records.size
    state = work[at : at + STATE_ROWS * BLOCK]
    at += state.size
    pixels = work[at : at + BLOCK].view(np.int32)
    x[:] = _ZERO  # what no valid observation fills must be finite
    records[:] = _ZERO
    return Block(x, clear, q, records, state, pixels)


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
    for start in range(0, width, BLOCK):
        n = min(BLOCK, width - start)
        for p in range(BLOCK):
            block.pixels[p] = min(start + p, width - 1)
        _start(block, tally, n)
        groups = _load(raw, take, start, centre, block)
        iterate(block, groups, zero, min(_STEPS, maxiter), eps)
        _finish(raw, take, block, n, centre)
        count = _list_left(block, n, left, count)
    spent = _STEPS
    while count > 0 and spent < maxiter:
        kept = zero
        for start in range(0, count, BLOCK):
            n = min(BLOCK, count - start)
            _read_list(left[start : start + n], block)
            _start(block, tally, n)
            groups = _gather(raw, take, centre, block)
            _try_nearest(block, groups, bands, tried)
            iterate(block, groups, zero - 1, min(_STEPS, maxiter - spent), eps)
            _finish(raw, take, block, n, centre)
            kept = _list_left(block, n, left, kept)
        count = kept
        spent += _STEPS
