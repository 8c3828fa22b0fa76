"""Whether products are what a model was made for: every error names what is there and was expected.

Bands are read in the model's order, whatever the product's. What cannot be put right by name is an
error: a model answers for any numbers, and nothing in its map would show that they were wrong.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence

from lcengine import store
from lcengine.crs import crs_name
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.inputs import Input, Layer
from lcengine.models import ModelSpec

RESOLUTION = 0.01
"""Relative difference of pixel sizes up to which they count as the same."""

_YEAR = re.compile(r"(?<!\d)(\d{4})(?=-|/|$)")

Path = str | os.PathLike[str]


def check_model(spec: ModelSpec) -> None:
    """`InputError` for a model that this version cannot use on tiles."""
    if spec.stride is None and spec.margin != 0:
        raise InputError(
            f"the model looks {spec.margin or 'any number of'} pixels beyond its patches, expected "
            "0, or a stride: only patches that overlap can be seen with their surroundings"
        )


def named(sources: Path | Mapping[str, Path], spec: ModelSpec) -> dict[str, Path]:
    """Paths by the model's inputs, in its order."""
    names = [entry.name for entry in spec.inputs]
    if isinstance(sources, Mapping):
        given = dict(sources)
    elif len(names) == 1:
        given = {names[0]: sources}
    else:
        given = {}
    if set(given) != set(names):
        got = ", ".join(given) if given else f"one product without a name, {sources}"
        wanted = " ".join(f"{entry.name}=PRODUCT ({_seen(entry)})" for entry in spec.inputs)
        raise InputError(f"sources are {got}; the model expects {wanted}")
    return {name: given[name] for name in names}


def bands_of(
    paths: Mapping[str, Path], spec: ModelSpec, given: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Variables of each product that are the model's bands, in the model's order.

    `given`: where variables have other names than the model's bands.
    """
    unknown = sorted(set(given) - set(paths))
    if unknown:
        raise InputError(f"bands are given of {unknown}; the model's inputs are {', '.join(paths)}")
    out = {}
    for entry in spec.inputs:
        bands = tuple(given.get(entry.name, entry.bands))
        there = store.provenance(paths[entry.name])["variables"]
        moved = [a for a, b in zip(bands, entry.bands, strict=False) if a != b and a in entry.bands]
        if len(bands) != len(entry.bands) or moved:
            raise InputError(
                f"bands of {entry.name!r} are given as {', '.join(bands)}; the model expects "
                f"{', '.join(entry.bands)}, in this order; give one name for each"
            )
        lacking = [band for band in bands if band not in there]
        if lacking:
            raise InputError(
                f"{paths[entry.name]} lacks {', '.join(lacking)}: it has {', '.join(there)}, and "
                f"the model expects {', '.join(entry.bands)}; where they are called otherwise, "
                f"name them in the model's order: --bands {entry.name}=…"
            )
        out[entry.name] = bands
    return out


def check_inputs(
    spec: ModelSpec, found: Sequence[Input], layers: Mapping[str, Layer], grid: Grid
) -> None:
    """`InputError` where products or pixels differ from those that the model learned from."""
    for expected, got in zip(spec.inputs, found, strict=True):
        where = f"{layers[got.name].path} (input {got.name!r})"
        check_times(expected, got, where)
        _check_values(expected, got, where)
    check_size(spec, grid.resolution, crs_name(grid.crs))


def check_size(spec: ModelSpec, found: float, crs: str) -> None:
    """`InputError` where pixels are not as large as those that the model learned from."""
    size = spec.resolution
    if size is not None and not math.isclose(found, size, rel_tol=RESOLUTION):
        raise InputError(
            f"pixels are {found:g} wide ({crs}), and the model was trained on {size:g}; give "
            f"--like a product with pixels of {size:g}, or train on such pixels"
        )


def check_times(expected: Input, got: Input, where: str) -> None:
    """Periods must be the same ones of the year, of any year."""
    if _seasons(expected.times) != _seasons(got.times):
        raise InputError(
            f"{where} has periods {_listed(got.times)}; the model was trained on "
            f"{_listed(expected.times)}; composite the same periods of a year"
        )


def _check_values(expected: Input, got: Input, where: str) -> None:
    """What a stored number means: type, missing value, scale, and what was measured by what."""
    for what in ("dtype", "fill", "scale"):
        ours, theirs = getattr(expected, what), getattr(got, what)
        same = ours == theirs
        if what == "scale" and None not in (ours, theirs):
            same = math.isclose(ours, theirs, rel_tol=1e-9)
        if not same:
            raise InputError(
                f"{where} has {what} {theirs}; the model was trained on {what} {ours}; make the "
                "product as those for training were made"
            )
    for what in ("units", "sensor"):
        ours, theirs = getattr(expected, what), getattr(got, what)
        if None not in (ours, theirs) and ours != theirs:
            raise InputError(
                f"{where} has {what} {theirs}; the model was trained on {what} {ours}; give such a "
                "product, or train a model on this kind"
            )


def _seasons(times: Sequence[str]) -> list[str]:
    """Names of periods with years counted from the first: 2018-11, 2019-01 -> 0-11, 1-01."""
    years = [int(year) for name in times for year in _YEAR.findall(name)]
    if not years:
        return list(times)
    return [_YEAR.sub(lambda found: str(int(found[1]) - years[0]), name) for name in times]


def _listed(times: Sequence[str]) -> str:
    return ", ".join(times) if times else "none (no time axis)"


def _seen(entry: Input) -> str:
    return ", ".join(entry.bands)
