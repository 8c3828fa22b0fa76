"""Labels: vectors, annotations, masks and coarse maps as class rasters on a product's grid."""

from __future__ import annotations

from lcengine.labels.clusters import regions
from lcengine.labels.coarse.maps import resample
from lcengine.labels.layers import Layer, rasterize
from lcengine.labels.plan import LabelPlan, plan_labels
from lcengine.labels.rules import Rule
from lcengine.labels.vectors import read_vectors

__all__ = [
    "LabelPlan",
    "Layer",
    "Rule",
    "plan_labels",
    "rasterize",
    "read_vectors",
    "regions",
    "resample",
]
