"""The model of scale and the page that is made of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import _scale_model as model  # noqa: E402 - its folder is no package

RESULTS = ROOT / "docs" / "scale.json"
PLACES = (model.FAR, model.NEAR)


@pytest.fixture(scope="module")
def results():
    return model.Results.load(RESULTS)


def changed(results, section, **values):
    """The same results with other values in every row of a section."""
    sections = json.loads(json.dumps(results.sections))
    for row in sections[section]["rows"]:
        row.update(values)
    return model.Results(sections)


def test_the_page_is_that_of_the_results(results):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert page == model.page(results, PLACES), "run python benchmarks/scale.py model --write-docs"


def test_a_poor_second_worker_makes_everything_slower(results):
    poor = changed(changed(results, "workers", efficiency=0.5), "overhead", sum_ms=1.0)
    good = changed(changed(results, "workers", efficiency=1.2), "overhead", sum_ms=1.0)
    area = results.areas[0]
    slow, fast = (found.estimate(area, model.FAR, 10).seconds for found in (poor, good))
    for name in ("cpu", "network"):
        assert slow[name] == pytest.approx(2 * fast[name])  # 1.2 is noise and counts as 1
    assert slow["driver"] == fast["driver"]


def test_each_bottleneck_is_reached(results):
    country, continent = results.areas
    wide = replace(model.NEAR, bandwidth=1e12, latency=0.0, zone_rate=1e9)

    def first(found, area, place, workers):
        return model.bottleneck(area, found.estimate(area, place, workers), workers)

    assert first(results, country, model.FAR, 10) == "network"
    assert first(results, country, replace(model.FAR, zone_rate=10.0), 1000) == "archive"
    assert first(results, country, wide, 10) == "cpu"
    assert first(results, country, wide, 1000) == "tiles"
    slow = changed(results, "overhead", sum_ms=1000.0)
    assert first(slow, continent, wide, 1000) == "driver"
