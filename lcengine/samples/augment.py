"""Augmentation: other views of the same patch, drawn anew in every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lcengine.errors import InputError
from lcengine.kernels.patches import FLIPS, ROTATIONS, Views


@dataclass(frozen=True)
class Augment:
    """Which views of a patch a model is shown; each is drawn evenly from all that are allowed.

    `flips`: mirrored, along either axis or both. `rotations`: by multiples of 90°; with `flips` all
    eight positions of a square. `crop`: edge in pixels of a part anywhere in the patch, by default
    the whole patch. `scale`: least and greatest magnification, drawn evenly in its logarithm;
    images are interpolated bilinearly, labels by nearest neighbour. What is shown always lies in
    the patch, so a magnification below crop / patch is refused. `times`: views of every patch in
    an epoch. `anywhere`: allows other splits than the one for training (test-time augmentation).
    """

    flips: bool = True
    rotations: bool = True
    crop: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    times: int = 1
    anywhere: bool = False

    def __post_init__(self) -> None:
        if self.times < 1:
            raise InputError(f"times is {self.times}, expected 1 or more views of every patch")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise InputError(f"scale is {self.scale}, expected (least, greatest), above 0, finite")

    @property
    def scales(self) -> bool:
        """Whether pixels are interpolated."""
        return self.scale != (1.0, 1.0)

    def size(self, patch: int) -> int:
        """Edge of a view of a patch; `InputError` where it would not lie in the patch."""
        size = patch if self.crop is None else self.crop
        if not 1 <= size <= patch:
            raise InputError(f"crop is {size}, expected 1 to {patch}, the edge of the patches")
        if size / self.scale[0] > patch:
            raise InputError(
                f"a view of {size} px magnified {self.scale[0]:g} times shows "
                f"{size / self.scale[0]:g} px, and patches have {patch}; crop to at most "
                f"{int(self.scale[0] * patch)} px, or magnify {size / patch:g} times at least"
            )
        return size

    def views(self, patch: int, count: int, rng: np.random.Generator) -> Views:
        """`count` views of patches with an edge of `patch` pixels."""
        size = self.size(patch)
        both = tuple(range(8)) if self.rotations else FLIPS
        turns = both if self.flips else ROTATIONS if self.rotations else (0,)
        low, high = np.log(self.scale)
        steps = np.exp(-rng.uniform(low, high, count)) if self.scales else np.ones(count)
        room = np.maximum(patch - size * steps, 0.0)
        corners = rng.random((2, count))
        # Whole pixels are moved by whole pixels.
        tops, lefts = corners * room if self.scales else np.floor(corners * (room + 1))
        return Views(rng.choice(np.array(turns, np.uint8), count), tops, lefts, steps)


PLAIN = Augment(flips=False, rotations=False, anywhere=True)
"""Patches as they are."""
