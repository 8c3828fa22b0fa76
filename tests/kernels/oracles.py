"""Slow and plain oracles of the compositing kernels, one pixel at a time."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np

NODATA = -32768


def observations(pixel, clear, groups):
    """First valid member of each group: list of band vectors, in order of the groups."""
    chosen = {}
    for item, group in enumerate(groups):
        if clear[item] and NODATA not in pixel[item] and group not in chosen:
            chosen[group] = [int(value) for value in pixel[item]]
    return list(chosen.values())


def exact_median(values):
    ordered = sorted(values)
    n = len(ordered)
    return Fraction(ordered[(n - 1) // 2] + ordered[n // 2], 2)


def mad_outliers(index, k, least):
    """True where 0.6745·|x − m| / MAD > k, in exact arithmetic; never of fewer than five."""
    if len(index) < 5:
        return [False] * len(index)
    middle = exact_median(index)
    distance = [abs(x - middle) for x in index]
    mad = max(exact_median(distance), Fraction(least))
    return [Fraction("0.6745") * d > Fraction(str(k)) * mad for d in distance]


def reduce(values, reducer):
    """One integer of a list of integers."""
    name, percent, rule = reducer
    column = np.array(values, dtype=np.float64)
    if name == "median":
        return int(np.rint(np.median(column)))
    if name == "mean":
        return round(Fraction(sum(values), len(values)))  # exact, half to even
    if rule == "linear":
        return int(np.rint(np.percentile(column, percent, method="linear")))
    share = Fraction(str(percent)) / 100
    return sorted(values)[floor((len(values) - 1) * share + Fraction(1, 2))]


def composite(values, clear, groups, reducer, screen, screen_bands, n_out):
    """What `lcengine.kernels.composite.composite` returns; screen = (k, floor) or None."""
    items, _, height, width = values.shape
    groups = range(items) if groups is None else groups
    out = np.full((n_out, height, width), NODATA, np.int16)
    count = np.zeros((height, width), np.uint16)
    outliers = np.zeros((height, width), np.uint16)
    for y, x in np.ndindex(height, width):
        valid = observations(values[:, :, y, x].tolist(), clear[:, y, x], groups)
        if screen is not None:
            index = [sum(bands[b] for b in screen_bands) for bands in valid]
            rejected = mad_outliers(index, *screen)
            valid = [bands for bands, bad in zip(valid, rejected, strict=True) if not bad]
            outliers[y, x] = sum(rejected)
        count[y, x] = len(valid)
        for band in range(n_out if valid else 0):
            out[band, y, x] = reduce([bands[band] for bands in valid], reducer)
    return out, count, outliers
