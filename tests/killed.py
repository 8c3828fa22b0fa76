"""A command whose driver and workers are killed while it works."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import psutil
from archives import until

from lcengine import jobs
from lcengine.errors import StoreError


def killed(command, output, done=4, seconds=120):
    """Run `lcengine …` and kill it (SIGKILL) after some tiles; how far it had come."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "lcengine", *command], stderr=subprocess.DEVNULL
    )

    def finished():
        with suppress(StoreError):
            return jobs.status(output).get("done", 0)
        return 0

    try:
        assert until(lambda: finished() >= done, seconds=seconds)
    finally:
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    return jobs.status(output)
