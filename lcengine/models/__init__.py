"""Models: from stored bands to probabilities of classes, trained on samples, kept without code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcengine.models.files import ModelRef, identity, load, save, spec_of
from lcengine.models.predictor import KINDS, Kind, Predictor, Training, kind
from lcengine.models.spec import ModelSpec

if TYPE_CHECKING:
    from lcengine.models.bag import BagOfColors as BagOfColors

__all__ = [
    "KINDS",
    "BagOfColors",
    "Kind",
    "ModelRef",
    "ModelSpec",
    "Predictor",
    "Training",
    "identity",
    "kind",
    "load",
    "save",
    "spec_of",
]


def __getattr__(name: str) -> object:
    """`BagOfColors`, which predicting does without, on first use."""
    if name != "BagOfColors":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lcengine.models.bag import BagOfColors  # noqa: PLC0415 (see above)

    return BagOfColors


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
