"""Comparator networks that put chosen ranks of n values into their places.

A network is a table of wire pairs. Its course does not depend on the data, so one table serves all
pixels of a strip at once and every comparator is a SIMD minimum and maximum. Batcher's odd-even
merge sort in the form that holds for any n (Knuth, The Art of Computer Programming vol. 3, 2nd ed.,
5.2.2, Algorithm M); the comparators that no wanted rank depends on are then dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def _batcher(n: int) -> Iterator[tuple[int, int]]:
    """Comparators of Batcher's odd-even merge sort of n wires, in order (Algorithm M)."""
    top = 1 << max((n - 1).bit_length() - 1, 0)
    p = top
    while p and n > 1:
        q, r, d = top, 0, p
        while True:
            for i in range(n - d):
                if i & p == r:
                    yield i, i + d
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


def _needed(pairs: list[tuple[int, int]], ranks: Iterable[int]) -> list[tuple[int, int]]:
    """Keep the comparators whose result reaches one of `ranks`, walking backwards."""
    live = set(ranks)
    kept = []
    for low, high in reversed(pairs):
        if low in live or high in live:
            live |= {low, high}
            kept.append((low, high))
    kept.reverse()
    return kept


@lru_cache(maxsize=64)
def selection_network(n: int, ranks: tuple[int, ...]) -> NDArray[np.uint16]:
    """Comparators after which wire r holds the r-th smallest of n values, for every r in `ranks`.

    Other wires hold anything. Read-only (m, 2) table of (lower, higher) wires: a comparator leaves
    the minimum on the first and the maximum on the second.
    """
    pairs = _needed(list(_batcher(n)), ranks)
    table = np.array(pairs, dtype=np.uint16).reshape(-1, 2)
    table.setflags(write=False)
    return table
