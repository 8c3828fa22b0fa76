"""Features of bands: indices, statistics and harmonics over time, bags of colours."""

from __future__ import annotations

from lcengine.features.colors import bag_of_colors
from lcengine.features.cube import features
from lcengine.features.indices import INDICES
from lcengine.features.recipe import Features
from lcengine.features.vocabulary import Division, Vocabulary

__all__ = ["INDICES", "Division", "Features", "Vocabulary", "bag_of_colors", "features"]
