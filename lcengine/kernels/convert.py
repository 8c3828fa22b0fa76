"""Digital numbers to the int16 pixels that travel, exactly, in one pass.

These are reflectance * 10000, backscatter in dB * 100, or numbers as they are; nodata is -32768.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lcengine.kernels import power
from lcengine.kernels._jit import kernel

NODATA = np.int16(-32768)
LIMIT = 32767
SATURATED = 65535
STEPS: Final = {"reflectance": 10_000, "decibel": 100, "number": 1}
"""Stored integers per unit of what `DN * scale + offset` is; power is stored as its logarithm."""
LOGARITHMIC: Final = frozenset({"power", "decibel"})
"""What is stored as decibels and interpolated as power."""

_EXACT: Final = 10**7
"""Largest common denominator of scale and offset with which float64 is exact for 32-bit DN."""

INT16 = npt.NDArray[np.int16]
FLOAT = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scaling:
    """What digital numbers mean: `DN * scale + offset` is a quantity in `unit`."""

    scale: float
    offset: float
    nodata: float | None
    unit: Literal["reflectance", "power", "decibel", "number"] = "reflectance"

    @property
    def logarithmic(self) -> bool:
        """Whether the stored pixels are decibels, which are interpolated as powers."""
        return self.unit in LOGARITHMIC


def to_pixels(dn: npt.NDArray[np.generic], scaling: Scaling, out: INT16) -> None:
    """Write `rint(quantity * steps)` into `out` (int16, nodata -32768), see `STEPS`.

    Power p becomes `rint(1000 * log10(p))`; 0 and negative power is nodata. `nodata`, NaN,
    infinities and a saturated uint16 (65535) of reflectance become nodata; results beyond ±32767
    are clipped, negatives are kept. Integers of up to 16 bits are converted in integer arithmetic
    on scale and offset as the decimals they were written as; other types in float64.
    `out` may be `dn` viewed as int16.
    """
    if scaling.unit == "power":
        to_decibels(to_power(dn, scaling), out)
        return
    steps, missing = STEPS[scaling.unit], _integer(scaling.nodata)
    gain, bias = _decimal(scaling.scale) * steps, _decimal(scaling.offset) * steps
    saturated = SATURATED if scaling.unit == "reflectance" else -1
    whole = gain.denominator == bias.denominator == 1
    if dn.dtype == np.uint16 and whole and abs(gain) < 2**14 and abs(bias) < 2**20:
        if missing is None or not 0 <= missing <= SATURATED:
            missing = -1
        bits = out.view(np.uint16)
        if not np.shares_memory(bits, dn):
            bits[...] = dn
        whole_numbers = (int(gain), int(bias), missing, saturated)
        _from_uint16(bits, *map(np.int32, whole_numbers))
    elif dn.dtype.kind in "iu" and dn.dtype.itemsize <= 2:
        table = _table(dn.dtype.str, gain, bias, missing, saturated)
        # The bits of a negative number are the place it has in the table.
        out[...] = table[dn.view(f"u{dn.dtype.itemsize}")]
    else:
        _any_dtype(dn, gain, bias, scaling.nodata, out)


def to_power(dn: npt.NDArray[np.generic], scaling: Scaling) -> FLOAT:
    """Linear power, float64 (y, x), of backscatter; 0 stands for nodata."""
    out = np.empty(dn.shape, np.float64)
    convert = power.power_of_power if scaling.unit == "power" else power.power_of_decibels
    missing = math.nan if scaling.nodata is None else _held(scaling.nodata, dn.dtype)
    convert(dn, float(scaling.scale), float(scaling.offset), missing, out)
    return out


def to_decibels(values: FLOAT, out: INT16) -> None:
    """Linear power, 0 for nodata, as int16 dB * 100."""
    power.to_decibels(values, out)


def _decimal(number: float) -> Fraction:
    """The decimal that a catalogue wrote, of which the float is the nearest binary fraction."""
    return Fraction(repr(float(number)))


def _integer(nodata: float | None) -> int | None:
    """A nodata value that an integer can have, else None."""
    return int(nodata) if nodata is not None and float(nodata).is_integer() else None


@lru_cache(maxsize=64)
def _table(
    dtype: str, gain: Fraction, bias: Fraction, missing: int | None, saturated: int
) -> INT16:
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
        table[values == saturated] = NODATA
    return table


@kernel
def _from_uint16(
    bits: npt.NDArray[np.uint16],
    gain: np.int32,
    bias: np.int32,
    missing: np.int32,
    saturated: np.int32,
) -> None:
    # In place: one array cannot alias itself, so the loop vectorises without an overlap check.
    for y in range(bits.shape[0]):
        for x in range(bits.shape[1]):
            raw = np.int32(bits[y, x])
            value = np.int32(raw * gain + bias)
            value = min(max(value, np.int32(-32767)), np.int32(32767))
            if (raw == missing) | (raw == saturated):
                value = np.int32(-32768)
            bits[y, x] = np.uint16(value & np.int32(65535))


def _any_dtype(
    dn: npt.NDArray[np.generic], gain: Fraction, bias: Fraction, nodata: float | None, out: INT16
) -> None:
    """Floats and wide integers, in float64."""
    unit = lcm(gain.denominator, bias.denominator)
    if unit > _EXACT:  # no decimals that anybody wrote
        slope, start, unit = float(gain), float(bias), 1
    else:  # one division rounds, so that halves are halves
        slope, start = float(gain * unit), float(bias * unit)
    missing = math.nan if nodata is None else _held(nodata, dn.dtype)
    _from_any(dn, slope, start, float(unit), missing, out)


@kernel
def _from_any(
    dn: npt.NDArray[np.generic], slope: float, start: float, unit: float, missing: float, out: INT16
) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            raw = np.float64(dn[y, x])
            value = np.rint((raw * slope + start) / unit)
            bounded = min(max(value, -32767.0), 32767.0)
            out[y, x] = np.int16(bounded) if np.isfinite(raw) and raw != missing else NODATA


def _held(nodata: float, dtype: np.dtype[np.generic]) -> float:
    """A nodata value as a file of that type holds it: a catalogue writes its decimal."""
    with np.errstate(over="ignore"):
        return float(np.float32(nodata)) if dtype == np.float32 else float(nodata)
