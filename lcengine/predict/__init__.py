"""Maps of classes: products and a model to a product, tile by tile."""

from __future__ import annotations

from lcengine.predict.array import predict
from lcengine.predict.lattice import Tiling
from lcengine.predict.plan import PredictPlan, plan_predict

__all__ = ["PredictPlan", "Tiling", "plan_predict", "predict"]
