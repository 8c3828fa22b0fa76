"""How well a map agrees with a reference, from the counts of every pair of classes."""

from __future__ import annotations
