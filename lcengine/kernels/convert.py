"""Digital numbers to int16 reflectance * 10000, exactly, in one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lcengine.kernels._jit import kernel

NODATA = np.int16(-32768)
LIMIT = 32767
SATURATED = 65535
UNITS = 10000
"""Stored integers per unit of reflectance."""

INT16 = npt.NDArray[np.int16]


def to_reflectance(
    dn: npt.NDArray[np.generic], scale: float, offset: float, nodata: float | None, out: INT16
) -> None:
    """Write `rint((dn * scale + offset) * 10000)` into `out` (int16, nodata -32768).

    `nodata`, NaN, infinities and a saturated uint16 (65535) become nodata; results beyond
    ±32767 are clipped, negatives are kept. Integer arithmetic where scale and offset are whole
    in units of 1/10000, float64 otherwise. `out` may be `dn` viewed as int16.
    """
    gain, bias = scale * UNITS, offset * UNITS
    whole = abs(gain - round(gain)) < 1e-9 and abs(bias - round(bias)) < 1e-6
    if dn.dtype == np.uint16 and whole and abs(gain) < 2**14 and abs(bias) < 2**20:
        missing = -1 if nodata is None or not 0 <= nodata <= SATURATED else int(nodata)
        bits = out.view(np.uint16)
        if not np.shares_memory(bits, dn):
            bits[...] = dn
        _from_uint16(bits, np.int32(round(gain)), np.int32(round(bias)), np.int32(missing))
        return
    out[...] = _any_dtype(dn, gain, bias, nodata)


@kernel
def _from_uint16(
    bits: npt.NDArray[np.uint16], gain: np.int32, bias: np.int32, missing: np.int32
) -> None:
    # In place: one array cannot alias itself, so the loop vectorises without an overlap check.
    for y in range(bits.shape[0]):
        for x in range(bits.shape[1]):
            raw = np.int32(bits[y, x])
            value = np.int32(raw * gain + bias)
            value = min(max(value, np.int32(-32767)), np.int32(32767))
            if raw == missing or raw == np.int32(65535):
                value = np.int32(-32768)
            bits[y, x] = np.uint16(value & np.int32(65535))


def _any_dtype(
    dn: npt.NDArray[np.generic], gain: float, bias: float, nodata: float | None
) -> INT16:
    """The rarely used dtypes, in float64 (exact for every integer a raster can hold to 2**53)."""
    values = np.asarray(dn, dtype=np.float64)
    valid = np.isfinite(values)
    if nodata is not None and np.isfinite(nodata):
        valid &= values != nodata
    if dn.dtype == np.uint16:
        valid &= values != SATURATED
    scaled = np.rint(np.where(valid, values, 0.0) * gain + bias)
    return np.where(valid, np.clip(scaled, -LIMIT, LIMIT), np.float64(NODATA)).astype(np.int16)
