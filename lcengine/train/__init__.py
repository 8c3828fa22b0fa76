"""Training of networks: one loop for every objective."""

from __future__ import annotations

import os

# Read by OpenMP when torch is loaded. By default its threads spin while they wait for each other,
# and where others want the processors too they spin instead of working: a small training took six
# times the processor time. Waiting changes no bit.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
