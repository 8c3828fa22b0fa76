"""Random SIGKILLs over composites until enough were dealt, and what became of the products.

    python benchmarks/chaos.py [--kills 200] [--seed 20] [--per-product 10]

One cluster (a scheduler, two workers under nannies) and a driver from the command line, each a
process of its own. Workers, driver and scheduler are killed at random moments; what is gone is
started again, the driver with the same command. Every finished product is held against an
undisturbed one: each number, each tile's hash, each tile's row in `tiles.parquet`; and no tile that
was done may be written again. Ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "chaos")]

import archives  # noqa: E402 - its folder is no package
from siege import Cluster, besiege, far_archive  # noqa: E402

from lcengine.grid import Grid  # noqa: E402
from lcengine.store import sidecar, stored, verify  # noqa: E402
from lcengine.store.tiles import tile_rows  # noqa: E402

KINDS = ("worker", "driver", "scheduler")
FAULTS = ("wrong", "missing", "duplicated", "redone", "unverified")


@dataclass
class Toll:
    """Deaths, and what they did to the products."""

    kills: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    products: int = 0
    tiles: int = 0
    drivers: int = 0


@dataclass
class Undisturbed:
    """The product of a run that nobody disturbs."""

    path: Path

    def __post_init__(self):
        self.arrays = archives.arrays(self.path)
        self.tiles = set(rows_per_tile(self.path))
        self.grid = Grid.from_dict(stored(self.path).attrs["lcengine"]["grid"])
        assert verify(self.path).ok

    def faults(self, output, redone):
        """How many tiles of another product are not as they should be, by kind."""
        rows = rows_per_tile(output)
        found = archives.arrays(output)
        assert found.keys() == self.arrays.keys()
        return Counter(
            wrong=sum(not self.same(found, tile) for tile in self.tiles),
            missing=len(self.tiles - rows.keys()),
            duplicated=sum(count > 1 for count in rows.values()) + len(rows.keys() - self.tiles),
            redone=len(redone),
            unverified=len(verify(output).faults),
        )

    def same(self, arrays, tile):
        where = (..., *self.grid.tile_at(tile).slices)
        return all(
            arrays[name][where].tobytes() == own[where].tobytes()
            for name, own in self.arrays.items()
        )


def rows_per_tile(product):
    """{tile: its rows in tiles.parquet}."""
    return Counter(row["tile"] for row in tile_rows(sidecar(product, "tiles.parquet")))


def campaign(folder, kills, per_product, seed):
    """Composites under siege until `kills` were dealt."""
    rng, toll = random.Random(seed), Toll()
    with far_archive(folder) as source, Cluster(folder / "cluster") as cluster:
        command = [sys.executable, "-m", "lcengine", "composite", *source]
        command += ["--cluster", cluster.address, "-o"]
        besiege([*command, str(folder / "quiet.zarr")], folder / "quiet.zarr", cluster, rng, 0)
        quiet = Undisturbed(folder / "quiet.zarr")
        while toll.kills.total() < kills:
            output = folder / f"out-{toll.products}.zarr"
            most = min(per_product, kills - toll.kills.total())
            began = time.perf_counter()
            siege = besiege([*command, str(output)], output, cluster, rng, most)
            faults = quiet.faults(output, siege.redone)
            toll.products += 1
            toll.tiles += len(quiet.tiles)
            toll.drivers += siege.drivers
            toll.kills += siege.kills
            toll.faults += faults
            say(toll, siege, faults, time.perf_counter() - began)
            output.unlink()  # the link to the version that is visible
            shutil.rmtree(folder / f".{output.name}.lcengine")
    return toll


def say(toll, siege, faults, seconds):
    """A line on stderr per product."""
    deaths = ", ".join(f"{count} {kind}" for kind, count in siege.kills.items()) or "none"
    bad = ", ".join(f"{count} {kind}" for kind, count in (+faults).items()) or "as undisturbed"
    print(
        f"product {toll.products}: {seconds:.0f} s, {siege.drivers} drivers, deaths: {deaths}; "
        f"{bad}; {toll.kills.total()} deaths so far",
        file=sys.stderr,
        flush=True,
    )


def table(toll):
    """The end of it, as Markdown."""
    rows = [(f"SIGKILLs of {kind}s", toll.kills[kind]) for kind in KINDS]
    rows += [
        ("SIGKILLs", toll.kills.total()),
        ("products", toll.products),
        ("tiles", toll.tiles),
        ("drivers started", toll.drivers),
        *((f"tiles {kind}", toll.faults[kind]) for kind in FAULTS[:-1]),
        ("faults found by `verify`", toll.faults["unverified"]),
    ]
    lines = ["| what | count |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in rows)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20, help="which process dies when")
    parser.add_argument("--per-product", type=int, default=10, help="kills per composite, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toll = campaign(Path(folder), options.kills, options.per_product, options.seed)
    print(table(toll))
    if toll.faults.total():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
