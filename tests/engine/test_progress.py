"""Where a run stands."""

from __future__ import annotations

import json
import time

import pytest

from lcengine.engine import Progress


def test_pace_and_time_left():
    progress = Progress(tiles=10, done=4, resumed=2, failed=1, pixels=600)
    progress.started = time.monotonic() - 6
    assert progress.pixels_per_second == pytest.approx(100, rel=0.1)
    assert progress.eta == pytest.approx(15, rel=0.1)


def test_before_the_first_tile():
    progress = Progress(tiles=10, done=2, resumed=2)
    assert progress.eta is progress.clear_fraction is progress.cost is None


def test_cost_follows_a_cluster_that_grows_and_shrinks():
    progress = Progress(tiles=10, price=0.05)
    assert progress.cost == 0
    for seconds, workers, threads in [(0.2, 1, 3600), (0.1, 3, 7200), (0.1, 0, 0)]:
        progress.staff(workers, threads)
        time.sleep(seconds)
    assert progress.cost == pytest.approx(0.05 * (0.2 + 0.2), rel=0.3)


def test_json():
    progress = Progress(tiles=4, done=2, clear=30, observations=60, retried=1, price=0.1)
    progress.staff(2, 8)
    found = json.loads(json.dumps(progress.to_json()))
    assert found["tiles"] == 4
    assert found["clear_fraction"] == 0.5
    assert (found["workers"], found["threads"], found["retried"]) == (2, 8, 1)
    assert found["cost"] >= 0
    assert found["eta"] >= 0
