"""Random deaths of workers, drivers and schedulers, and the same bytes at the end."""

from __future__ import annotations

import random
import sys

import archives
import pytest
from siege import Cluster, besiege, far_archive

from lcengine.store import verify

KILLS = 10


@pytest.mark.slow
def test_ten_deaths_change_no_byte(tmp_path):
    """FAULTS 1, 2, 3: nothing is wrong, missing or done twice."""
    quiet, output = tmp_path / "quiet.zarr", tmp_path / "out.zarr"
    rng = random.Random(20)
    with far_archive(tmp_path) as source, Cluster(tmp_path / "cluster") as cluster:
        command = [sys.executable, "-m", "lcengine", "composite", *source]
        command += ["--cluster", cluster.address]
        besiege([*command, "-o", str(quiet)], quiet, cluster, rng, kills=0)
        siege = besiege([*command, "-o", str(output)], output, cluster, rng, kills=KILLS)
    print(siege)
    assert siege.kills.total() == KILLS
    assert siege.redone == []
    assert verify(output).ok
    undisturbed = archives.arrays(quiet)
    for name, pixels in archives.arrays(output).items():
        assert pixels.tobytes() == undisturbed[name].tobytes()
