"""One `connect(target)`: a Dask client of this machine, a running scheduler or a cluster class.

`FORMS` says what a target may be. distributed is loaded by `connect`, not by the import.
"""

from __future__ import annotations

from lcengine.cluster.start import connect
from lcengine.cluster.target import FORMS

__all__ = ["FORMS", "connect"]
