"""Distributed raster engine for land-cover mapping.

`import lcengine` loads nothing heavy: each public name is imported from its home on first use
(PEP 562), so the command line answers at once and a Dask worker pays only for what its task needs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the same names for type checkers and editors
    from lcengine.aoi import Aoi as Aoi
    from lcengine.catalog import search as search
    from lcengine.composite import CompositeSpec as CompositeSpec
    from lcengine.composite import composite as composite
    from lcengine.composite import plan_composite as plan_composite
    from lcengine.cube import load as load
    from lcengine.grid import Grid as Grid
    from lcengine.items import Asset as Asset
    from lcengine.items import Item as Item
    from lcengine.items import Items as Items
    from lcengine.jobs import run as run
    from lcengine.legends import Legend as Legend
    from lcengine.legends import crosswalk as crosswalk
    from lcengine.legends import legend as legend
    from lcengine.predict import predict as predict
    from lcengine.stack import stack as stack
    from lcengine.store import open as open

__version__ = "0.1.0"

_HOMES: Final = {
    "Aoi": "lcengine.aoi",
    "Asset": "lcengine.items",
    "CompositeSpec": "lcengine.composite",
    "Grid": "lcengine.grid",
    "Item": "lcengine.items",
    "Items": "lcengine.items",
    "Legend": "lcengine.legends",
    "composite": "lcengine.composite",
    "crosswalk": "lcengine.legends",
    "legend": "lcengine.legends",
    "load": "lcengine.cube",
    "open": "lcengine.store",
    "plan_composite": "lcengine.composite",
    "predict": "lcengine.predict",
    "run": "lcengine.jobs",
    "search": "lcengine.catalog",
    "stack": "lcengine.stack",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use.

    Raises:
        AttributeError: `name` is not public.
    """
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `lcengine.composite` a function, whatever was imported before.

    Importing a submodule binds it on its package, which would hide the public function of the same
    name. The modules stay reachable by `from lcengine.composite import …`.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
