"""How far a network sees, measured on the network itself.

NaN spreads through convolutions, pooling, interpolation, normalisation and activations to all that
depends on it, whatever the weights (0 · NaN is NaN too), so one column of NaN in a long strip shows
every pixel that depends on that column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

STRIPS: Final = (128, 512, 1024, 2048)
"""Lengths in pixels of the strips tried; what a network sees beyond is called unbounded."""
EQUAL: Final = 1e-9
"""By how much logits in float64 may differ, of the greatest, and still be called the same."""

_AXES: Final = (-1, -2)
"""Columns and rows: kernels need not be square."""


class Reach(NamedTuple):
    """`margin` in pixels, None where unbounded; `placed` as in `ModelSpec`."""

    margin: int | None
    placed: bool


def reach(build: Callable[[], nn.Module], channels: int, step: int, height: int = 0) -> Reach:
    """What a network's logits depend on, in evaluation mode.

    `build` makes it, for so many channels; `step`: its output stride. `height` of the strips: the
    least edge that it takes, by default `step`. A network that answers otherwise where its patch is
    moved by `step`, beside what it sees of the edges, is placed: how far it sees at one size says
    nothing of another, so its margin is None.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        module = build().eval()
        margin = _margin(module, channels, step, height or step)
        if margin is None:
            return Reach(None, True)
        module.double()
        if not all(_moves(module, channels, (height or step, step, margin), a) for a in _AXES):
            return Reach(None, True)
        return Reach(margin, False)


def _margin(module: nn.Module, channels: int, step: int, height: int) -> int | None:
    """How far a NaN gets at most, from any place within `step`."""
    for length in STRIPS:
        size = max(-(-length // step), 4) * step
        found = [_spread(module, channels, step, (height, size), axis) for axis in _AXES]
        known = [margin for margin in found if margin is not None]
        if len(known) == len(found):
            return max(known)
    return None


def _spread(
    module: nn.Module, channels: int, step: int, shape: tuple[int, int], axis: int
) -> int | None:
    """How far it gets along an axis; None where it may get beyond the strip."""
    height, size = shape
    middle = size // 2 // step * step
    furthest = 0
    for place in range(middle, middle + step):
        image = torch.zeros(1, channels, height, size)
        image[..., place] = torch.nan
        logits: Tensor = module(_along(image, axis))
        reached = _along(logits, axis).isnan().any(dim=1).any(dim=1)[0].nonzero()
        first, last = int(reached.min()), int(reached.max())
        if first < step or last >= size - step:
            return None
        furthest = max(furthest, place - first, last - place)
    return furthest


def _moves(module: nn.Module, channels: int, extent: tuple[int, int, int], axis: int) -> bool:
    """Whether logits stay the same where a strip moves along an axis by `step`."""
    height, step, margin = extent
    size = (-(-2 * margin // step) + 3) * step
    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, height, size, generator=random, dtype=torch.float64)
    whole = _along(module(_along(image, axis)), axis)
    moved = _along(module(_along(image[..., step:], axis)), axis)
    inside = slice(margin, size - step - margin)
    expected, found = whole[..., step:][..., inside], moved[..., inside]
    return bool((expected - found).abs().max() <= EQUAL * expected.abs().max())


def _along(image: Tensor, axis: int) -> Tensor:
    """A strip of columns, turned into one of rows where they are asked for."""
    return image if axis == -1 else image.mT.contiguous()
