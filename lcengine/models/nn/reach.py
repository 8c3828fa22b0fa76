"""How far a network sees, measured on the network itself.

NaN spreads through convolutions, pooling, interpolation, normalisation and activations to all that
depends on it, whatever the weights (0 · NaN is NaN too), so one column of NaN in a long strip shows
every pixel that depends on that column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

STRIPS: Final = (256, 1024, 4096)
"""Lengths in pixels of the strips tried; what a network sees beyond is called unbounded."""
HEIGHTS: Final = (1, 2, 4, 8)
"""Heights of the strips tried, in output strides: some networks take no less."""
EQUAL: Final = 1e-9
"""By how much logits in float64 may differ, of the greatest, and still be called the same."""


class Reach(NamedTuple):
    """`margin` in pixels, None where unbounded; `placed` as in `ModelSpec`."""

    margin: int | None
    placed: bool


UNBOUNDED: Final = Reach(None, True)


def reach(build: Callable[[], nn.Module], channels: int, step: int) -> Reach:
    """What a network's logits depend on, in evaluation mode.

    `build` makes it, for so many channels; `step`: its output stride. A network that answers
    otherwise where its patch is moved by `step`, beside what it sees of the edges, is placed: how
    far it sees at one size says nothing of another, so its margin is None.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().eval()
    with torch.inference_mode():
        height = _height(module, channels, step)
        along = _Strip(module, channels, step, height, STRIPS[0], across=False)
        strips = along, replace(along, across=True)
        tried = [strip.long_enough() for strip in strips]
        margin = max(0 if strip is None else strip.margin() for strip in tried)
        module.double()
        bounded = None not in tried and all(strip.moves(margin) for strip in strips)
    return Reach(margin, False) if bounded else UNBOUNDED


def _height(module: nn.Module, channels: int, step: int) -> int:
    """The least height of a strip that a network takes."""
    for height in (step * times for times in HEIGHTS[:-1]):
        try:
            module(torch.zeros(1, channels, height, STRIPS[0]))
        except RuntimeError:  # a kernel is larger than what is left of the image
            continue
        return height
    return step * HEIGHTS[-1]


@dataclass(frozen=True)
class _Strip:
    """Images of `height` × `size` pixels; `across`: turned, so that they are long in y."""

    module: nn.Module
    channels: int
    step: int
    height: int
    size: int
    across: bool

    def long_enough(self) -> _Strip | None:
        """A strip that a NaN in its middle does not fill, whatever its place within `step`."""
        for length in STRIPS:
            size = max(-(-length // self.step), 4) * self.step
            tried = replace(self, size=size)
            first, last = tried.spread(tried.middle)
            if first >= self.step and last < size - self.step:
                furthest = max(tried.middle - first, last - tried.middle)
                return replace(self, size=2 * (-(-furthest // self.step) + 3) * self.step)
        return None

    @property
    def middle(self) -> int:
        """A multiple of `step`."""
        return self.size // 2 // self.step * self.step

    def margin(self) -> int:
        """How far a NaN gets at most, from any place within `step`.

        First and last pixel that it gets to move on with its place, never back: where two places
        share one, so do all between.
        """
        begin, end = self.middle, self.middle + self.step - 1
        ends = {place: self.spread(place) for place in (begin, end)}
        waiting = [(begin, end)]
        while waiting:
            low, high = waiting.pop()
            if high - low > 1 and ends[low] != ends[high]:
                between = (low + high) // 2
                ends[between] = self.spread(between)
                waiting += [(low, between), (between, high)]
        return max(max(place - first, last - place) for place, (first, last) in ends.items())

    def spread(self, place: int) -> tuple[int, int]:
        """First and last pixel that depend on one."""
        image = torch.zeros(1, self.channels, self.height, self.size)
        image[..., place] = torch.nan
        reached = self.logits(image).isnan()[0].any(dim=0).any(dim=0).nonzero()
        return int(reached.min()), int(reached.max())

    def moves(self, margin: int) -> bool:
        """Whether logits stay the same where the image moves by `step`, away from its ends."""
        size = (-(-2 * margin // self.step) + 3) * self.step
        random = torch.Generator().manual_seed(0)
        shape = 1, self.channels, self.height, size
        image = torch.randn(shape, generator=random, dtype=torch.float64)
        inside = slice(margin, size - self.step - margin)
        expected = self.logits(image)[..., self.step :][..., inside]
        found = self.logits(image[..., self.step :])[..., inside]
        return bool((expected - found).abs().max() <= EQUAL * expected.abs().max())

    def logits(self, image: Tensor) -> Tensor:
        """Of an image whose columns are the strip's."""
        if not self.across:
            found: Tensor = self.module(image)
            return found
        found = self.module(image.mT.contiguous())
        return found.mT
