"""A year of Sentinel-2 over Kenya: what the composite takes, and how fast this machine makes it."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import kenya

from lcengine.aoi import Aoi
from lcengine.catalog import Query
from lcengine.composite import CompositeRequest, CompositeSpec, plan_composite
from lcengine.composite.calibration import calibrate
from lcengine.composite.pricing import survey

BANDS = ("blue", "green", "red", "nir")


def measure() -> dict[str, Any]:
    """Area, work and rates as JSON values; nothing is fetched, files are the sensor's typical."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kenya.write_items(folder / "items.json")
        kenya.write_aoi(folder / "kenya.geojson")
        query = Query(str(folder / "items.json"), ("sentinel-2-l2a",), None, str(kenya.YEAR))
        aoi = Aoi.from_file(folder / "kenya.geojson")
        request = CompositeRequest(
            query, CompositeSpec(BANDS), aoi, crs="EPSG:32637", resolution=10.0
        )
        items, grid = request.items_and_grid()
        plan = plan_composite(items, grid, request.spec)
        return {
            "km2": kenya.AREA_KM2,
            "work": asdict(survey(plan).work),
            "rates": asdict(calibrate(plan)),
        }
