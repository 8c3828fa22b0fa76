"""Binary morphology with disks and diamonds of any radius at a cost linear in the radius.

A horizontal pass writes each pixel's distance to the nearest set pixel of its row; a vertical pass
asks, for each row offset of the structuring element, whether that distance is within the
element's half-width there. Exact, and both passes vectorise. Beyond the array is neutral.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels._jit import kernel

MASK = npt.NDArray[np.uint8]
FAR = 255


def disk(radius: float) -> npt.NDArray[np.int16]:
    """Half-widths per row offset of the disk x² + y² <= radius² (as scikit-image's `disk`)."""
    reach = _reach(radius)
    widths = [math.isqrt(int(radius * radius) - dy * dy) for dy in range(-reach, reach + 1)]
    return np.array(widths, dtype=np.int16)


def diamond(radius: float) -> npt.NDArray[np.int16]:
    """Half-widths of the diamond |x| + |y| <= radius: `radius` dilations by the 3x3 cross."""
    reach = _reach(radius)
    return np.array([reach - abs(dy) for dy in range(-reach, reach + 1)], dtype=np.int16)


def dilate(mask: MASK, element: npt.NDArray[np.int16]) -> MASK:
    """Dilation of a 0/1 mask (y, x) by a symmetric element; outside the array counts as 0."""
    distance = np.empty(mask.shape, dtype=np.uint8)
    out = np.zeros(mask.shape, dtype=np.uint8)
    _row_distance(mask, distance)
    _combine(distance, element, out)
    return out


def erode(mask: MASK, element: npt.NDArray[np.int16]) -> MASK:
    """Erosion of a 0/1 mask (y, x) by a symmetric element; outside the array counts as 1."""
    inverse: MASK = (mask == 0).astype(np.uint8)
    grown = dilate(inverse, element)
    out: MASK = (grown == 0).astype(np.uint8)
    return out


def _reach(radius: float) -> int:
    if not 0 <= radius < FAR:
        raise InputError(f"radius is {radius} pixels, expected 0 to {FAR - 1}")
    return math.floor(radius)


@kernel
def _row_distance(mask: MASK, out: MASK) -> None:
    """Distance along the row to the nearest set pixel, capped at 255."""
    height, width = mask.shape
    for y in range(height):
        run = 255
        for x in range(width):
            run = 0 if mask[y, x] else min(run + 1, 255)
            out[y, x] = run
        run = 255
        for x in range(width - 1, -1, -1):
            run = 0 if mask[y, x] else min(run + 1, 255)
            out[y, x] = min(run, int(out[y, x]))


@kernel
def _combine(distance: MASK, element: npt.NDArray[np.int16], out: MASK) -> None:
    height, width = distance.shape
    reach = element.size // 2
    for y in range(height):
        for dy in range(-reach, reach + 1):
            if 0 <= y + dy < height:
                limit = np.uint8(element[dy + reach])
                for x in range(width):
                    out[y, x] |= np.uint8(distance[y + dy, x] <= limit)
