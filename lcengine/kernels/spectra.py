"""Stage of the geomedian: a strip's solution, rounded, and how far the spectra lie from it."""

from __future__ import annotations

from typing import Final

import numpy as np

from lcengine.kernels import geomedian as kernels
from lcengine.kernels._jit import kernel
from lcengine.kernels.reducers import rounded
from lcengine.kernels.scratch import Job, Output, Scratch

MAX_STEPS: Final = 1000


@kernel
def _solve(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """The geomedian of `job.bands`, which come first in the cube, into the head of `s.floats`."""
    bands, width, nodata = job.bands.size, s.tally.size, s.limits[2]
    centre = s.floats[: bands * width].reshape((bands, width))
    work, eps = s.floats[bands * width :], np.float32(job.numbers[0])
    kernels.geomedian(s.raw[:bands], s.take, s.tally, eps, MAX_STEPS, work, centre)
    for band in range(bands):
        row, target = centre[band], out.values[job.layer + band, at : at + n]
        for p in range(n):
            value = row[p] if s.tally[p] > 0 else np.float32(0)
            target[p] = rounded(value, nodata) if s.tally[p] > 0 else nodata


@kernel
def reduce_geomedian(job: Job, s: Scratch, out: Output, at: int, n: int) -> None:
    """Stage: the geomedian. job.numbers: eps in stored units."""
    _solve(job, s, out, at, n)
