"""Nearest colours of a vocabulary, and what is summed over the pixels that share a colour.

Pixels are planar, (channel, pixel), whole numbers or floats. The squared distance to a colour is
the sum over channels of ((pixel - colour) * gain)². In float32 as |c|² - 2 x·c it only proposes:
where the two nearest are closer than its error, float64 decides by the distances themselves. So
the answer is that of float64, of equal ones the first, on any machine and for any grouping.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

NONE: Final = 255
"""The word, or segment, of a pixel that is not there."""
STRIP: Final = 1024
"""Pixels whose scaled channels and scores stay in the first cache."""
GROUP: Final = 4
"""Colours, and channels, that one pass over a strip takes."""
_ROUNDING: Final = 4 * 2.0**-24

FLOAT = npt.NDArray[np.float64]
FLOAT32 = npt.NDArray[np.float32]
BYTES = npt.NDArray[np.uint8]
COUNTS = npt.NDArray[np.int64]


class Palette(NamedTuple):
    """Colours ready to be searched."""

    colors: FLOAT
    """(colour, channel) in units of the pixels."""
    gains: FLOAT
    """(channel)"""
    offsets: FLOAT32
    """(channel) what is taken off pixels before they are scaled: whole numbers near their mean."""
    scales: FLOAT32
    """(channel) the gains."""
    weights: FLOAT32
    """(colour, channel), both up to a multiple of `GROUP`: -2 × scaled colours, else 0."""
    norms: FLOAT32
    """(colour) squared lengths of scaled colours, infinite beyond the last."""
    slack: FLOAT32
    """(1 + channel) how far two scores can be off: of all pixels, and per unit of a channel."""


@kernel
def palette(colors: FLOAT, gains: FLOAT) -> Palette:
    """Colours (colour, channel) and gains (channel), all finite, as `assign` wants them."""
    count, channels = colors.shape
    wide, deep = -(-count // GROUP) * GROUP, -(-channels // GROUP) * GROUP
    offsets = np.zeros(channels, np.float32)
    weights = np.zeros((wide, deep), np.float32)
    lengths = np.zeros(count, np.float64)
    slack = np.zeros(1 + channels, np.float32)
    unit = (channels + 4) * _ROUNDING
    for c in range(channels):
        total = 0.0
        for k in range(count):
            total += colors[k, c]
        offsets[c] = np.rint(total / count)
        longest = 0.0
        for k in range(count):
            scaled = (colors[k, c] - np.float64(offsets[c])) * gains[c]
            weights[k, c] = -2.0 * scaled
            lengths[k] += scaled * scaled
            longest = max(longest, abs(scaled))
        slack[1 + c] = 2.0 * longest * unit
    norms = np.full(wide, np.inf, np.float32)
    for k in range(count):
        norms[k] = lengths[k]
    slack[0] = lengths.max() * unit
    return Palette(colors, gains, offsets, gains.astype(np.float32), weights, norms, slack)


@kernel
def assign(
    start: int,
    stop: int,
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    colors: Palette,
    words: BYTES,
) -> None:
    """Numbers of the nearest colours of strips `start` … `stop` of pixels, 255 where not valid.

    `pixels` (channel, pixel), `valid` and `words` (pixel). At most 255 colours.
    """
    count = pixels.shape[1]
    deep = colors.weights.shape[1]
    scaled = np.zeros((deep, STRIP), np.float32)
    scores = np.empty((GROUP, STRIP), np.float32)
    best = np.empty(STRIP, np.float32)
    second = np.empty(STRIP, np.float32)
    found = np.empty(STRIP, np.int32)
    doubt = np.empty(STRIP, np.float32)
    for strip in range(start, stop):
        first = strip * STRIP
        size = min(STRIP, count - first)
        _scale(pixels, first, size, colors, scaled, doubt)
        best[:] = np.inf
        second[:] = np.inf
        found[:] = 0
        for k in range(0, colors.weights.shape[0], GROUP):
            if deep == GROUP:
                _search(scaled, colors.weights, colors.norms, k, best, second, found)
            else:
                _score(scaled, colors.weights, colors.norms, k, scores)
                _keep(scores, k, best, second, found)
        for p in range(size):
            if not valid[first + p]:
                words[first + p] = NONE
            elif second[p] - best[p] > doubt[p]:
                words[first + p] = found[p]
            else:
                words[first + p] = nearest(pixels, first + p, colors.colors, colors.gains)


@kernel
def nearest(pixels: npt.NDArray[Any], p: int, colors: FLOAT, gains: FLOAT) -> int:
    """The colour nearest to one pixel, of equal ones the first, by distances in float64."""
    closest, least = 0, np.inf
    for k in range(colors.shape[0]):
        distance = 0.0
        for c in range(colors.shape[1]):
            apart = (np.float64(pixels[c, p]) - colors[k, c]) * gains[c]
            distance += apart * apart
        if distance < least:
            closest, least = k, distance
    return closest


@kernel
def _scale(
    pixels: npt.NDArray[Any],
    first: int,
    size: int,
    colors: Palette,
    scaled: FLOAT32,
    doubt: FLOAT32,
) -> None:
    """Scaled channels of a strip, and how near its two best scores may not be."""
    doubt[:] = colors.slack[0]
    for c in range(pixels.shape[0]):
        offset, gain, share = colors.offsets[c], colors.scales[c], colors.slack[1 + c]
        line, row = scaled[c], pixels[c, first : first + size]
        for p in range(size):
            line[p] = (np.float32(row[p]) - offset) * gain
        for p in range(size):
            doubt[p] += abs(line[p]) * share


@kernel
def _search(
    scaled: FLOAT32,
    weights: FLOAT32,
    norms: FLOAT32,
    k: int,
    best: FLOAT32,
    second: FLOAT32,
    found: npt.NDArray[np.int32],
) -> None:
    """Hold four colours of four channels against the best so far, in one pass."""
    n0, n1, n2, n3 = norms[k], norms[k + 1], norms[k + 2], norms[k + 3]
    a0, a1, a2, a3 = weights[k, 0], weights[k, 1], weights[k, 2], weights[k, 3]
    b0, b1, b2, b3 = weights[k + 1, 0], weights[k + 1, 1], weights[k + 1, 2], weights[k + 1, 3]
    c0, c1, c2, c3 = weights[k + 2, 0], weights[k + 2, 1], weights[k + 2, 2], weights[k + 2, 3]
    d0, d1, d2, d3 = weights[k + 3, 0], weights[k + 3, 1], weights[k + 3, 2], weights[k + 3, 3]
    k0, k1, k2, k3 = np.int32(k), np.int32(k + 1), np.int32(k + 2), np.int32(k + 3)
    for p in range(STRIP):
        x0, x1, x2, x3 = scaled[0, p], scaled[1, p], scaled[2, p], scaled[3, p]
        low, next_, word = best[p], second[p], found[p]
        s = n0 + x0 * a0 + x1 * a1 + x2 * a2 + x3 * a3
        t = low if s < low else s
        next_ = t if t < next_ else next_
        word = k0 if s < low else word
        low = s if s < low else low
        s = n1 + x0 * b0 + x1 * b1 + x2 * b2 + x3 * b3
        t = low if s < low else s
        next_ = t if t < next_ else next_
        word = k1 if s < low else word
        low = s if s < low else low
        s = n2 + x0 * c0 + x1 * c1 + x2 * c2 + x3 * c3
        t = low if s < low else s
        next_ = t if t < next_ else next_
        word = k2 if s < low else word
        low = s if s < low else low
        s = n3 + x0 * d0 + x1 * d1 + x2 * d2 + x3 * d3
        t = low if s < low else s
        next_ = t if t < next_ else next_
        word = k3 if s < low else word
        low = s if s < low else low
        best[p], second[p], found[p] = low, next_, word


@kernel
def _score(scaled: FLOAT32, weights: FLOAT32, norms: FLOAT32, k: int, scores: FLOAT32) -> None:
    """Scores (4, pixel) of four colours, four channels at a time."""
    for j in range(GROUP):
        line, norm = scores[j], norms[k + j]
        line[:] = norm
        for c in range(0, scaled.shape[0], GROUP):
            w0, w1 = weights[k + j, c], weights[k + j, c + 1]
            w2, w3 = weights[k + j, c + 2], weights[k + j, c + 3]
            x0, x1, x2, x3 = scaled[c], scaled[c + 1], scaled[c + 2], scaled[c + 3]
            for p in range(STRIP):
                line[p] += x0[p] * w0 + x1[p] * w1 + x2[p] * w2 + x3[p] * w3


@kernel
def _keep(
    scores: FLOAT32, k: int, best: FLOAT32, second: FLOAT32, found: npt.NDArray[np.int32]
) -> None:
    for j in range(GROUP):
        line, number = scores[j], np.int32(k + j)
        for p in range(STRIP):
            s, low, next_, word = line[p], best[p], second[p], found[p]
            t = low if s < low else s
            second[p] = t if t < next_ else next_
            found[p] = number if s < low else word
            best[p] = s if s < low else low


@kernel
def add(pixels: npt.NDArray[Any], words: BYTES, counts: COUNTS, sums: COUNTS) -> None:
    """Add whole numbers (channel, pixel) to the counts (word) and sums (word, channel) of words."""
    for p in range(words.size):
        word = words[p]
        if word != NONE:
            counts[word] += 1
    for c in range(pixels.shape[0]):
        for p in range(words.size):
            word = words[p]
            if word != NONE:
                sums[word, c] += pixels[c, p]


@kernel
def histogram(words: BYTES, segments: BYTES, counts: npt.NDArray[np.int32]) -> None:
    """Add pixels to `counts` (segment, word); 255 is neither a word nor a segment."""
    for p in range(words.size):
        if words[p] != NONE and segments[p] != NONE:
            counts[segments[p], words[p]] += 1
