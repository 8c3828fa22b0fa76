"""Features of bands: indices, statistics and harmonics over time, bags of colours."""

from __future__ import annotations

from lcengine.features.cube import features
from lcengine.features.indices import INDICES
from lcengine.features.recipe import Features

__all__ = ["INDICES", "Features", "features"]
