"""Recipes in TOML: data, samples, model and objective, from files to a trained model."""

from __future__ import annotations

from lcengine.recipes.run import Running, Trained, train
from lcengine.recipes.schema import Recipe, read

__all__ = ["Recipe", "Running", "Trained", "read", "train"]
