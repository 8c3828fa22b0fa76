"""What a user wants of samples: patches, how space is split, which of them are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lcengine.errors import InputError

SPLITS = ("train", "val", "test")
"""Names of the splits; a patch's number of its split is the place here."""
TRAIN = 0

FORMS = {
    "block": "cells of the CRS grid, patches a buffer apart (default)",
    "areas": "polygons that say train, val or test",
    "random": "every patch by itself: neighbours leak from one split into another",
}
"""What `split` takes."""

STRATEGIES = {
    "all": "every candidate (default)",
    "random": "`samples` of them, all alike",
    "balanced": "`samples` of them, those with rare classes more often",
    "density": "`samples` of them, those with more labelled pixels more often",
}
"""What `strategy` takes."""


@dataclass(frozen=True)
class Areas:
    """Where each split lies, as `lcengine.samples.areas` reads it from a file.

    `crs`: WKT. `polygons`: name of a split and its area as hexadecimal WKB, in that CRS.
    """

    crs: str
    polygons: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"crs": self.crs, "polygons": dict(self.polygons)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Areas:
        """Inverse of `to_json`."""
        return cls(data["crs"], tuple(data["polygons"].items()))


@dataclass(frozen=True)
class SampleSpec:
    """Which patches samples are made of.

    `patch`: edge in pixels. `stride`: pixels from one candidate to the next, by default the patch,
    with `centre` 1. `block`: edge of the cells that go into one split as a whole, in pixels, by
    default 4 patches or what the buffer needs. `buffer`: pixels between patches of different
    splits, by default the patch. `fractions`: shares of the blocks for train, val and test.
    `split`, `strategy`: see `FORMS` and `STRATEGIES`; `samples`: how many patches to draw, in
    all splits together. `min_labelled`: least share of a patch that is labelled; a patch without
    any label is never taken. `centre`: the patch's middle pixel, (patch // 2, patch // 2), is
    labelled. `seed` decides all that is drawn. `areas`: of split areas; splits without one are
    not made.
    """

    patch: int = 64
    stride: int | None = None
    block: int | None = None
    buffer: int | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    split: str = "block"
    strategy: str = "all"
    samples: int | None = None
    min_labelled: float = 0.0
    centre: bool = False
    seed: int = 0
    areas: Areas | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_draws()
        if self.split == "block" and self.edge - 2 * self.margin < self.patch:
            raise InputError(
                f"blocks of {self.edge} pixels less a buffer of {self.gap} leave no room for a "
                f"patch of {self.patch}; take a block of at least {self.patch + 2 * self.margin}"
            )

    def _check_sizes(self) -> None:
        for name in ("patch", "stride", "block"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected a positive number of pixels")
        if self.split == "random" and (self.block, self.buffer) != (None, None):
            raise InputError("split random knows no blocks; leave block and buffer out")
        if (self.split == "areas") != (self.areas is not None):
            raise InputError(
                f"split is {self.split} and {'no areas are' if self.areas is None else 'areas are'}"
                " given; give areas with split areas, and with no other"
            )
        if self.areas is not None and self.block is not None:
            raise InputError("split areas knows no blocks; leave block out")
        if self.buffer is not None and self.buffer < 0:
            raise InputError(f"buffer is {self.buffer}, expected 0 pixels or more")

    def _check_draws(self) -> None:
        for name, known in (("split", FORMS), ("strategy", STRATEGIES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        usable = all(math.isfinite(f) and f >= 0 for f in self.fractions)
        if len(self.fractions) != len(SPLITS) or not usable or abs(sum(self.fractions) - 1) > 1e-6:
            raise InputError(
                f"fractions are {self.fractions}, expected three shares for train, val and test "
                "that add up to 1, such as 0.7,0.15,0.15"
            )
        if self.fractions[TRAIN] == 0:
            raise InputError("the share of train is 0; expected some, such as 0.7,0.15,0.15")
        if not 0 <= self.min_labelled <= 1:
            raise InputError(f"min_labelled is {self.min_labelled}, expected a share from 0 to 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}, expected a whole number from 0 to 2**63 - 1")
        if (self.samples is None) != (self.strategy == "all"):
            raise InputError(
                f"strategy is {self.strategy} and samples is {self.samples}; give a number of "
                "samples with random, balanced or density, and none with all"
            )
        if self.samples is not None and self.samples < 1:
            raise InputError(f"samples is {self.samples}, expected at least 1")

    @property
    def step(self) -> int:
        """Pixels from one candidate to the next."""
        if self.stride is not None:
            return self.stride
        return 1 if self.centre else self.patch

    @property
    def gap(self) -> int:
        """Least pixels between patches of different splits; 0 where patches are split singly."""
        if self.split == "random":
            return 0
        return self.patch if self.buffer is None else self.buffer

    @property
    def margin(self) -> int:
        """Whole pixels that a block is shrunk by on every side."""
        return -(-self.gap // 2)

    @property
    def edge(self) -> int:
        """Edge of a block in pixels."""
        if self.block is not None:
            return self.block
        return max(4 * self.patch, self.patch + 2 * self.margin + 1)

    @property
    def parts(self) -> tuple[float, ...]:
        """Shares of train, val and test, of the splits that there are."""
        if self.areas is None:
            return self.fractions
        named = dict(self.areas.polygons)
        kept = [f if name in named else 0.0 for name, f in zip(SPLITS, self.fractions, strict=True)]
        return tuple(share / sum(kept) for share in kept)

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` gives an equal spec back."""
        found = {**asdict(self), "fractions": list(self.fractions)}
        del found["areas"]
        return found if self.areas is None else {**found, "areas": self.areas.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SampleSpec:
        """Inverse of `to_json`."""
        areas = Areas.from_json(data["areas"]) if "areas" in data else None
        return cls(**{**data, "fractions": tuple(data["fractions"]), "areas": areas})
