"""Cloud-free composites: the recipe, its plan, the tile task, the cube path and the run."""

from __future__ import annotations

from lcengine.composite.cube import composite
from lcengine.composite.planning import CompositePlan, plan_composite
from lcengine.composite.request import CompositeRequest
from lcengine.composite.spec import CompositeSpec

__all__ = [
    "CompositePlan",
    "CompositeRequest",
    "CompositeSpec",
    "composite",
    "plan_composite",
]
