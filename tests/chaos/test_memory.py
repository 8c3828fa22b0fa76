"""A tile that does not fit into a worker is worked in smaller blocks, to the same bytes."""

from __future__ import annotations

import archives
import pytest

from lcengine import jobs
from lcengine.cluster import connect
from lcengine.composite import plan_composite
from lcengine.composite.planning import read_threads
from lcengine.grid import Grid

SIZE = 1024
LIMIT = 900 * 2**20


@pytest.mark.slow
def test_a_tile_larger_than_its_worker(tmp_path):
    items = archives.series(tmp_path / "s", 140, ("blue",), SIZE)
    right, bottom = archives.LEFT + 10 * SIZE, archives.TOP - 10 * SIZE
    grid = Grid.from_bounds(archives.LEFT, bottom, right, archives.TOP, "EPSG:32631", 10.0, SIZE)
    plan = plan_composite(items, grid, archives.spec("blue"))
    assert plan.reads.block >= SIZE
    assert plan.reads.memory(plan.output_bytes, read_threads()) > 0.8 * LIMIT
    seen = []
    with connect(f"local:workers=1,threads=1,memory={LIMIT}B") as client:
        output = jobs.run(plan, tmp_path / "out.zarr", client=client, listener=seen.append)
    assert seen[-1].retried == seen[-1].failed == 0
    expected, _ = archives.in_process(plan.fitting(None, 2))
    assert plan.fitting(None, 2).reads.block == SIZE // 4
    found = archives.arrays(output)
    for name, pixels in expected.items():
        assert found[name].tobytes() == pixels.tobytes()
