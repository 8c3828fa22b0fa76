"""Samples for training: patches of images and labels, split by space, stored and loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the same names for type checkers and editors
    from lcengine.samples.augment import Augment as Augment
    from lcengine.samples.folders import open_folder as open_folder
    from lcengine.samples.loader import Loader as Loader
    from lcengine.samples.plan import SamplePlan as SamplePlan
    from lcengine.samples.plan import plan_samples as plan_samples
    from lcengine.samples.sampleset import SampleSet as SampleSet
    from lcengine.samples.sampleset import open as open
    from lcengine.samples.spec import SampleSpec as SampleSpec
    from lcengine.samples.stack_source import open_stack as open_stack

_HOMES: Final = {
    "Augment": "lcengine.samples.augment",
    "Loader": "lcengine.samples.loader",
    "SamplePlan": "lcengine.samples.plan",
    "SampleSet": "lcengine.samples.sampleset",
    "SampleSpec": "lcengine.samples.spec",
    "open": "lcengine.samples.sampleset",
    "open_folder": "lcengine.samples.folders",
    "open_stack": "lcengine.samples.stack_source",
    "plan_samples": "lcengine.samples.plan",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use: planning needs no kernels."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
