"""Colours of a vocabulary: what pixels see, which colour each is, how often each occurs.

A bag of colours (Wengert, Douze & Jégou 2011, ACM Multimedia) describes a region by how often
each colour of a vocabulary occurs in it, wherever. Here the regions are segments: pixels of a
window that k-means puts together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.inputs import Arrays, Input
from lcengine.kernels._jit import run_threaded
from lcengine.kernels.division import divide
from lcengine.kernels.words import STRIP, Palette, assign, histogram, palette

if TYPE_CHECKING:
    from lcengine.features.windows import Windows

BANDS: Final = ("red", "green", "blue", "nir")
"""The bands of a vocabulary, unless told otherwise."""
COLORS: Final = 80
SEGMENTS: Final = 20
WINDOW: Final = 256
LEAST: Final = 20
"""Valid pixels with fewer of which a window is one segment."""
ROUNDS: Final = 20
"""Of Lloyd's algorithm, at most, to divide a window."""
MOST: Final = 255
"""Colours, or segments, whose numbers fit into a byte beside the one of no pixel."""
_FINE: Final = 1024
"""Whole numbers per standard deviation that floats are rounded to."""

PLANES = npt.NDArray[Any]
BYTES = npt.NDArray[np.uint8]
VALID = npt.NDArray[np.bool_]
FLOAT = npt.NDArray[np.float64]


class Bag(NamedTuple):
    """A window in segments. `segments` (y, x) uint8, 255 = no pixel; `counts` (segment, colour)."""

    segments: BYTES
    counts: npt.NDArray[np.int32]

    @property
    def histograms(self) -> npt.NDArray[np.float32]:
        """Shares of the colours (segment, colour), adding up to 1, or 0 without pixels."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(self.counts / np.maximum(totals, 1), np.float32)


@dataclass(frozen=True)
class Division:
    """How a window is divided: k-means of its pixels, at most `rounds` of them.

    Fewer than `LEAST` valid pixels, or than segments, are one segment.
    """

    segments: int = SEGMENTS
    rounds: int = ROUNDS
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count("segments", self.segments, 1)
        if self.rounds < 0:
            raise InputError(f"rounds is {self.rounds}, expected 0 or more")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Colours among pixels of `inputs`, all bands of all periods a channel each.

    `colors` (colour, channel) float64 and `steps` (channel): a pixel's whole number is its stored
    number, of floats (and integers of over 16 bits) the multiple of the step nearest to it.
    `gains` (channel): 1 / standard deviation of whole numbers; the distance between a pixel and a
    colour is that of whole numbers × gains.
    """

    inputs: tuple[Input, ...]
    colors: FLOAT
    gains: FLOAT
    steps: FLOAT

    def __post_init__(self) -> None:
        # The kernels trust them.
        channels = sum(math.prod(entry.lead) for entry in self.inputs)
        arrays = self.colors, self.gains, self.steps
        shapes = [(len(self.colors), channels), (channels,), (channels,)]
        good = all(
            values.dtype == np.float64 and values.shape == shape and np.isfinite(values).all()
            for values, shape in zip(arrays, shapes, strict=True)
        )
        if not good or not 1 <= len(self.colors) <= MOST or (self.steps <= 0).any():
            found = ", ".join(f"{values.dtype} {values.shape}" for values in arrays)
            raise InputError(
                f"colours, gains and steps are {found}, expected finite float64 "
                f"(1 to {MOST}, {channels}), ({channels},) and ({channels},) above 0; copy the "
                "model again, or fit a vocabulary"
            )

    @classmethod
    def fit(
        cls,
        source: Any,
        *,
        colors: int = COLORS,
        bands: Sequence[str] = (),
        rounds: int = 100,
        batch: int = 16384,
        seed: int = 0,
    ) -> Vocabulary:
        """Mini-batch k-means (Sculley 2010, WWW) of pixels that a hash of their place draws.

        What is drawn, and every bit of the result, follows from the pixels and the seed alone:
        tasks give whole sums, whatever their number, order and workers. Tasks run on dask: on the
        cluster that is connected to, else on threads.

        Args:
            source: A store of samples (its training patches) or a product, as a path or opened, or
                several products by name; a dataset; or `lcengine.features.windows.images`.
            colors: At most 255.
            bands: Names of bands, or `source.band`; by default red, green, blue, nir.
            rounds: Batches, each of new pixels.
            batch: Pixels of a batch, about.
            seed: Decides what is drawn.

        Raises:
            InputError: A band is unknown or of several sources, or there is no valid pixel.
        """
        from lcengine.features.clusters import fit  # noqa: PLC0415 (predicting does without dask)
        from lcengine.features.windows import windows_of  # noqa: PLC0415

        _check_count("colors", colors, 2)
        windows: Windows = windows_of(source, bands)
        return fit(windows, colors, (rounds, batch, seed))

    @property
    def channels(self) -> tuple[str, ...]:
        """A name for each channel, e.g. `s2.red` or `s2.red@2018-04`."""
        return tuple(channel_names(self.inputs))

    def to_json(self) -> dict[str, Any]:
        """What is not an array, as JSON values."""
        return {"inputs": [entry.to_json() for entry in self.inputs]}

    @property
    def palette(self) -> Palette:
        """The colours ready to be searched."""
        return palette(self.colors, self.gains)

    def planes(self, arrays: Mapping[str, PLANES]) -> PLANES:
        """Whole numbers (channel, n, y, x) of stored numbers (n, [time,] band, y, x)."""
        return whole(raw_planes(self.inputs, arrays), self.steps)

    def words(self, planes: PLANES, valid: VALID, *, threaded: bool = False) -> BYTES:
        """The nearest colour of each pixel, 255 where it is not valid: `valid`'s shape.

        `planes` (channel, …) whole numbers. Nearest in float64, of equal ones the first. `threaded`
        takes all CPUs; tasks do not.
        """
        pixels = planes.reshape(len(planes), -1)
        there = np.ascontiguousarray(valid).reshape(-1)
        out = np.empty(there.size, np.uint8)
        strips = -(-there.size // STRIP)
        if threaded:
            run_threaded(assign, strips, pixels, there, self.palette, out)
        else:
            assign(0, strips, pixels, there, self.palette, out)
        return out.reshape(valid.shape)

    def bag(self, planes: PLANES, valid: VALID, division: Division) -> Bag:
        """One window (channel, y, x), with `valid` (y, x), in segments."""
        pixels = np.ascontiguousarray(planes.reshape(len(planes), -1))
        there = np.ascontiguousarray(valid).reshape(-1)
        segments = np.empty(there.size, np.uint8)
        wanted = (division.segments, LEAST, division.rounds, division.seed)
        count = divide(pixels, there, self.gains, wanted, segments)
        counts = np.zeros((count, len(self.colors)), np.int32)
        histogram(self.words(pixels, there), segments, counts)
        return Bag(segments.reshape(valid.shape), counts)

    def bags(self, arrays: Mapping[str, PLANES], valid: VALID, division: Division) -> Iterator[Bag]:
        """The windows of a block, one after the other: stored numbers and `valid` (n, y, x)."""
        for i in range(len(valid)):
            part = {name: values[i : i + 1] for name, values in arrays.items()}
            yield self.bag(self.planes(part)[:, 0], valid[i], division)


def chosen(inputs: Sequence[Input], bands: Sequence[str]) -> tuple[Input, ...]:
    """Inputs with those bands alone, in the order asked for; `InputError` for what is not there."""
    if isinstance(bands, str):
        raise InputError(f"bands are {bands!r}, expected a list such as ['red', 'nir']")
    wanted: dict[str, list[str]] = {}
    for text in bands or BANDS:
        name, _, band = text.rpartition(".")
        owners = [entry for entry in inputs if band in entry.bands and name in ("", entry.name)]
        if len(owners) != 1 or band in wanted.get(owners[0].name, ()):
            there = ", ".join(f"{entry.name}.{one}" for entry in inputs for one in entry.bands)
            found = "given twice" if len(owners) == 1 else f"in {len(owners)} of the sources"
            raise InputError(f"band {text!r} is {found}; choose bands of {there}")
        wanted.setdefault(owners[0].name, []).append(band)
    by_name = {entry.name: entry for entry in inputs}
    return tuple(replace(by_name[name], bands=tuple(own)) for name, own in wanted.items())


def picked(
    inputs: Sequence[Input], wanted: Sequence[Input], arrays: Mapping[str, PLANES]
) -> Arrays:
    """Arrays of `inputs` with the bands of `wanted` alone."""
    by_name = {entry.name: entry for entry in inputs}
    out: Arrays = {}
    for entry in wanted:
        there = by_name[entry.name].bands
        out[entry.name] = arrays[entry.name]
        if there != entry.bands:
            out[entry.name] = out[entry.name][..., [there.index(b) for b in entry.bands], :, :]
    return out


def channel_names(inputs: Sequence[Input]) -> Iterator[str]:
    """A name for each channel of `raw_planes`."""
    for entry in inputs:
        for time in entry.times or ("",):
            for band in entry.bands:
                yield f"{entry.name}.{band}{'@' if time else ''}{time}"


def raw_planes(inputs: Sequence[Input], arrays: Mapping[str, PLANES]) -> PLANES:
    """Stored numbers (channel, n, y, x), gaps in time filled.

    A missing period of a band is that of the last period before that has it, else of the first
    after.
    """
    parts = []
    for entry in inputs:
        values = arrays[entry.name]
        if values.shape[1:-2] != entry.lead:
            raise InputError(
                f"input {entry.name!r} has shape {values.shape}, expected (n, "
                f"{', '.join(map(str, entry.lead))}, y, x) of bands {', '.join(entry.bands)}"
            )
        if entry.times:
            values = _filled(entry, values)
        count, height, width = len(values), *values.shape[-2:]
        parts.append(np.moveaxis(values.reshape(count, -1, height, width), 1, 0))
    return np.concatenate(parts)


def _filled(entry: Input, values: PLANES) -> PLANES:
    there = entry.valid(values)
    if there.all():
        return values
    out = values.copy()
    periods = range(1, out.shape[1])
    for t, near in [(t, t - 1) for t in periods] + [(t - 1, t) for t in reversed(periods)]:
        gap = ~there[:, t] & there[:, near]
        out[:, t][gap] = out[:, near][gap]
        there[:, t] |= gap
    return out


def whole(planes: PLANES, steps: FLOAT) -> PLANES:
    """Whole numbers of stored ones (channel, …); 0 where a float is not finite."""
    if planes.dtype.kind in "iu" and planes.dtype.itemsize <= 2:
        return planes
    out = np.empty(planes.shape, np.int32)
    for values, step, to in zip(planes, steps, out, strict=True):
        numbers = np.rint(values / step)
        to[...] = np.nan_to_num(numbers, posinf=0, neginf=0).clip(-(2**23), 2**23)
    return out


def step_of(values: FLOAT, dtype: np.dtype[Any]) -> float:
    """What a channel's whole numbers are multiples of: 1 of small integers."""
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return 1.0
    return float(values.std() / _FINE) or 1.0


def _check_count(name: str, count: int, least: int) -> None:
    if not least <= count <= MOST:
        raise InputError(f"{name} is {count}, expected {least} to {MOST}")
