"""Maps of classes: products and a model to a product, tile by tile."""

from __future__ import annotations

from lcengine.predict.plan import PredictPlan, plan_predict

__all__ = ["PredictPlan", "plan_predict"]
