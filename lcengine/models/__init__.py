"""Models: from stored bands to probabilities of classes, trained on samples, kept without code."""

from __future__ import annotations

from lcengine.models.files import ModelRef, identity, load, save
from lcengine.models.predictor import KINDS, Kind, Predictor, Training, kind
from lcengine.models.spec import ModelSpec

__all__ = [
    "KINDS",
    "Kind",
    "ModelRef",
    "ModelSpec",
    "Predictor",
    "Training",
    "identity",
    "kind",
    "load",
    "save",
]
