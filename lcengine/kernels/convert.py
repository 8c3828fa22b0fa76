"""Digital numbers to int16 reflectance * 10000, exactly, in one pass."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import lcm

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
    ±32767 are clipped, negatives are kept. Integers of up to 16 bits are converted in integer
    arithmetic on scale and offset as the decimals they were written as; other types in float64.
    `out` may be `dn` viewed as int16.
    """
    gain, bias = _decimal(scale) * UNITS, _decimal(offset) * UNITS
    missing = _integer(nodata)
    whole = gain.denominator == bias.denominator == 1
    if dn.dtype == np.uint16 and whole and abs(gain) < 2**14 and abs(bias) < 2**20:
        if missing is None or not 0 <= missing <= SATURATED:
            missing = -1
        bits = out.view(np.uint16)
        if not np.shares_memory(bits, dn):
            bits[...] = dn
        _from_uint16(bits, np.int32(int(gain)), np.int32(int(bias)), np.int32(missing))
    elif dn.dtype.kind in "iu" and dn.dtype.itemsize <= 2:
        table = _table(dn.dtype.str, gain, bias, missing)
        # The bits of a negative number are the place it has in the table.
        out[...] = table[dn.view(f"u{dn.dtype.itemsize}")]
    else:
        out[...] = _any_dtype(dn, float(gain), float(bias), nodata)


def _decimal(number: float) -> Fraction:
    """The decimal that a catalogue wrote, of which the float is the nearest binary fraction."""
    return Fraction(repr(float(number)))


def _integer(nodata: float | None) -> int | None:
    """A nodata value that an integer can have, else None."""
    return int(nodata) if nodata is not None and float(nodata).is_integer() else None


@lru_cache(maxsize=64)
def _table(dtype: str, gain: Fraction, bias: Fraction, missing: int | None) -> INT16:
    """Result for every value of a small integer dtype, at the place of its unsigned bits."""
    kind = np.dtype(dtype)
    values = np.arange(2 ** (8 * kind.itemsize)).astype(f"u{kind.itemsize}").view(kind)
    unit = lcm(gain.denominator, bias.denominator)
    slope, start = int(gain * unit), int(bias * unit)
    table = np.empty(values.size, dtype=np.int16)
    for place, value in enumerate(values.tolist()):
        result, rest = divmod(value * slope + start, unit)
        result += 2 * rest > unit or (2 * rest == unit and result % 2 == 1)
        table[place] = min(max(result, -LIMIT), LIMIT)
    if missing is not None:
        table[values == missing] = NODATA
    if kind == np.uint16:
        table[SATURATED] = NODATA
    return table


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
    """Floats and wide integers, in float64."""
    values = np.asarray(dn, dtype=np.float64)
    valid = np.isfinite(values)
    if nodata is not None:
        # A catalogue writes the decimal of a number that the file holds in its own precision.
        with np.errstate(over="ignore"):
            held = np.float64(np.float32(nodata)) if dn.dtype == np.float32 else nodata
        valid &= values != held
    scaled = np.rint(np.where(valid, values, 0.0) * gain + bias)
    return np.where(valid, np.clip(scaled, -LIMIT, LIMIT), np.float64(NODATA)).astype(np.int16)
