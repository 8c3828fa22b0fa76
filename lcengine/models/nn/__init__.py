"""Networks: from patches of stored numbers to probabilities, kept as arrays."""

from __future__ import annotations

import lcengine.train  # noqa: F401 (how torch's threads wait is said before torch is loaded)
