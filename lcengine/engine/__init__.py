"""Running tiles on a Dask cluster: a bounded window in flight, receipts back, and no hang.

`run` is the loop; `Policy` says how it deals with trouble. A tile is one Dask task. The engine does
not know what a tile computes: it is given a function of (tile, attempt) that returns a receipt.
"""

from __future__ import annotations

from distributed import Client

from lcengine.engine.policy import (
    Listener,
    Outcome,
    Policy,
    Receipt,
    TileFailure,
    TileFunction,
)
from lcengine.engine.progress import Progress
from lcengine.engine.run import run
from lcengine.engine.worker import task_memory

__all__ = [
    "Client",
    "Listener",
    "Outcome",
    "Policy",
    "Progress",
    "Receipt",
    "TileFailure",
    "TileFunction",
    "run",
    "task_memory",
]
