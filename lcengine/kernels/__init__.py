"""Compiled pixel kernels: the one home of numba.

Kernels take int16 cubes (reflectance × 10000 or dB × 100, nodata −32768) and uint8 masks as they
are: no float copy of a cube is ever made.
"""

from __future__ import annotations

from typing import Final

NODATA: Final = -32768
"""int16 code of a missing pixel; valid values are −32767..32767."""
