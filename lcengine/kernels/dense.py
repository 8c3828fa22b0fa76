"""Dense networks and softmax, pixel by pixel: sums in float32 in a fixed order.

A library's product of matrices picks its order of adding by the size of the batch; here a pixel has
the same bits in any company. SIMD goes across pixels: arrays are (channel, pixel).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel
from lcengine.kernels.scores import exp32

FLOAT = npt.NDArray[np.float32]

BLOCK: Final = 128
"""Pixels that go through all layers together: 64 channels of them stay in the first cache."""

_LEAST: Final = np.float32(-87.0)
"""Least logarithm of a share, where `exp32` ends: 1.6e-38."""
_SQRT2: Final = 1.4142135623730951
_LN2: Final = 0.6931471805599453
_FRACTION: Final = np.int64(2**52 - 1)
_EXPONENT_0: Final = np.int64(1023 << 52)


@kernel
def network(
    x: FLOAT, scaling: FLOAT, sizes: npt.NDArray[np.int64], flat: FLOAT, out: FLOAT
) -> None:
    """Class probabilities (class, pixel) of features (feature, pixel), all finite.

    Features become (x - scaling[0]) * scaling[1]; then come dense layers of `sizes` channels
    (features first, classes last), rectified but for the last; then softmax. `flat`: of each layer
    the weights (to, from) in C order, then its biases.
    """
    rows = max(sizes.max(), 2)
    before = np.empty((rows, BLOCK), np.float32)
    after = np.empty((rows, BLOCK), np.float32)
    for start in range(0, x.shape[1], BLOCK):
        count = min(BLOCK, x.shape[1] - start)
        for channel in range(sizes[0]):
            mean, gain = scaling[0, channel], scaling[1, channel]
            for p in range(count):
                before[channel, p] = (x[channel, start + p] - mean) * gain
        place = 0
        for layer in range(len(sizes) - 1):
            width, height = sizes[layer], sizes[layer + 1]
            biases = place + width * height
            for to in range(height):
                weights = flat[place + to * width : place + (to + 1) * width]
                _weigh(before, weights, flat[biases + to], after[to, :count])
                if layer < len(sizes) - 2:
                    _rectify(after[to, :count])
            place = biases + height
            before, after = after, before
        _softmax(before[: sizes[-1], :count], after[0, :count], out[:, start : start + count])


@kernel
def _weigh(values: FLOAT, weights: FLOAT, bias: np.float32, out: FLOAT) -> None:
    """Bias + the sum of channels by weight (pixel), channel after channel.

    Eight channels at a time: a sum is loaded and stored once for eight products.
    """
    for p in range(out.size):
        out[p] = bias
    whole = len(weights) // 8 * 8
    for k in range(0, whole, 8):
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w4, w5, w6, w7 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
        for p in range(out.size):
            total = out[p] + w0 * values[k, p]
            total += w1 * values[k + 1, p]
            total += w2 * values[k + 2, p]
            total += w3 * values[k + 3, p]
            total += w4 * values[k + 4, p]
            total += w5 * values[k + 5, p]
            total += w6 * values[k + 6, p]
            out[p] = total + w7 * values[k + 7, p]
    for k in range(whole, len(weights)):
        weight = weights[k]
        for p in range(out.size):
            out[p] += weight * values[k, p]


@kernel
def _rectify(values: FLOAT) -> None:
    zero = np.float32(0.0)
    for p in range(values.size):
        values[p] = values[p] if values[p] > zero else zero


@kernel
def _softmax(logits: FLOAT, scratch: FLOAT, out: FLOAT) -> None:
    """Shares (class, pixel) of logits, which may be -inf but for one; logits are written over."""
    for p in range(scratch.size):
        scratch[p] = logits[0, p]
    for c in range(1, logits.shape[0]):
        for p in range(scratch.size):
            value = logits[c, p]
            scratch[p] = value if value > scratch[p] else scratch[p]
    for c in range(logits.shape[0]):
        for p in range(scratch.size):
            value = logits[c, p] - scratch[p]
            share = exp32(value if value > _LEAST else _LEAST)
            logits[c, p] = share if value > _LEAST else np.float32(0.0)
    for p in range(scratch.size):
        scratch[p] = logits[0, p]
    for c in range(1, logits.shape[0]):
        for p in range(scratch.size):
            scratch[p] += logits[c, p]
    for c in range(logits.shape[0]):
        for p in range(scratch.size):
            out[c, p] = logits[c, p] / scratch[p]


@kernel
def temper(shares: FLOAT, temperature: float, out: FLOAT) -> None:
    """Shares (class, pixel) to the power 1 / temperature, adding up to 1 again.

    That is softmax(logits / temperature). The first largest class stays so: one before it that
    rounding made as large is made smaller by one unit in the last place.
    """
    inverse = 1.0 / temperature
    logits = np.empty((shares.shape[0], BLOCK), np.float32)
    scratch = np.empty(BLOCK, np.float32)
    for start in range(0, shares.shape[1], BLOCK):
        count = min(BLOCK, shares.shape[1] - start)
        for c in range(shares.shape[0]):
            for p in range(count):
                share = np.float64(shares[c, start + p])
                log = np.float32(_log(share) * inverse)
                logits[c, p] = log if share > 0.0 else np.float32(-np.inf)
        _softmax(logits[:, :count], scratch[:count], out[:, start : start + count])
        for p in range(start, start + count):
            _keep_first(shares[:, p], out[:, p])


@kernel
def _keep_first(before: FLOAT, after: FLOAT) -> None:
    first = 0
    for c in range(1, before.size):
        if before[c] > before[first]:
            first = c
    for c in range(before.size):
        if c < first and after[c] >= after[first]:
            after[c] = np.nextafter(after[first], np.float32(0.0))
        elif c > first and after[c] > after[first]:
            after[c] = after[first]


@kernel
def _log(x: float) -> float:
    """Natural logarithm of a positive float64 that is no subnormal, within 1e-9.

    ln m = 2·artanh((m - 1) / (m + 1)) of the mantissa in √½ … √2 by its series: plain arithmetic,
    so the same bits with SIMD and without.
    """
    bits = np.float64(x).view(np.int64)
    exponent = np.float64((bits >> np.int64(52)) - np.int64(1023))
    mantissa = np.int64((bits & _FRACTION) | _EXPONENT_0).view(np.float64)
    above = mantissa > _SQRT2
    mantissa = mantissa * 0.5 if above else mantissa
    exponent = exponent + 1.0 if above else exponent
    s = (mantissa - 1.0) / (mantissa + 1.0)
    q = s * s
    series = 1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11)))))
    return exponent * _LN2 + 2.0 * s * series
