"""Samples for training: patches of images and labels, split by space, stored and loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the same names for type checkers and editors
    from lcengine.samples.augment import Augment as Augment
    from lcengine.samples.loader import Loader as Loader
    from lcengine.samples.sampleset import SampleSet as SampleSet
    from lcengine.samples.sampleset import open as open

_HOMES: Final = {
    "Augment": "lcengine.samples.augment",
    "Loader": "lcengine.samples.loader",
    "SampleSet": "lcengine.samples.sampleset",
    "open": "lcengine.samples.sampleset",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use: planning needs no kernels."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
