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
    """FAULTS 1, 2, 3: nothing is wrong, missing or done twice.

    A quick machine finishes a product before all ten were dealt; the next one gets the rest.
    """
    quiet = tmp_path / "quiet.zarr"
    rng = random.Random(20)
    dealt = 0
    with far_archive(tmp_path) as source, Cluster(tmp_path / "cluster") as cluster:
        command = [sys.executable, "-m", "lcengine", "composite", *source]
        command += ["--cluster", cluster.address]
        besiege([*command, "-o", str(quiet)], quiet, cluster, rng, kills=0)
        undisturbed = archives.arrays(quiet)
        for number in range(KILLS):
            output = tmp_path / f"{number}.zarr"
            driver = [*command, "-o", str(output)]
            siege = besiege(driver, output, cluster, rng, kills=KILLS - dealt, pause=(0.2, 1.5))
            assert siege.redone == []
            assert verify(output).ok
            for name, pixels in archives.arrays(output).items():
                assert pixels.tobytes() == undisturbed[name].tobytes()
            dealt += siege.kills.total()
            if dealt == KILLS:
                break
    assert dealt == KILLS
