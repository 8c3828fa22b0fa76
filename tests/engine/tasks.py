"""Tile functions of the tests, importable by workers in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil


def plain(tile, attempt):
    return {"tile": tile, "attempt": attempt, "pid": os.getpid()}


def slow(seconds, tile, attempt):
    time.sleep(seconds)
    return plain(tile, attempt)


def traced(folder, seconds, tile, attempt):
    """Leaves a file per attempt, so that attempts can be counted whoever dies."""
    Path(folder, f"{tile}.{attempt}.{os.getpid()}").touch()
    return slow(seconds, tile, attempt)


def attempts(folder):
    """How often each tile was begun."""
    counts = {}
    for path in Path(folder).iterdir():
        tile = int(path.name.split(".")[0])
        counts[tile] = counts.get(tile, 0) + 1
    return counts


def fate(folder, fates, tile, attempt):
    """Whatever `fates[tile]` says for this attempt, in letters: f fail, k kill, m memory.

    The last letter in capitals holds for all further attempts; without one the tile succeeds.
    """
    Path(folder, f"{tile}.{attempt}.{os.getpid()}").touch()
    own = fates.get(tile, "")
    letter = own[min(attempt, len(own) - 1)] if own else ""
    if attempt >= len(own) and not letter.isupper():
        letter = ""
    time.sleep(0.02)
    match letter.lower():
        case "f":
            raise OSError(f"tile {tile} failed")
        case "m":
            raise MemoryError(f"tile {tile} does not fit")
        case "k":
            # Dask's nanny gives a worker up for good that dies while it starts.
            time.sleep(max(0.0, 1.5 - (time.time() - psutil.Process().create_time())))
            os.kill(os.getpid(), signal.SIGKILL)
    return plain(tile, attempt)


def hog(hungry, fits, tile, attempt):
    """Takes far more memory than a worker has, until attempt `fits`."""
    if tile == hungry and attempt < fits:
        hoard = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            hoard.append(b"x" * 2**24)
            time.sleep(0.005)
    time.sleep(0.05)
    return plain(tile, attempt)
