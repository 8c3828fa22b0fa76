"""Planning a country: Kenya, a year of Sentinel-2 at 10 m, on this machine.

    python benchmarks/kenya_plan.py [--crs EPSG:32637]

Prints what `lcengine plan` says, its seconds and peak memory, each step of planning by itself, and
what a worker does with the saved plan before its first tile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import kenya  # noqa: E402

COMMAND = ("--workers", "100", "--threads", "8", "--bandwidth", "100MB")
PRICES = ("--price-core-hour", "0.05", "--price-gb", "0.02")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crs", default="EPSG:32637")
    parser.add_argument("--steps", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        steps(Path(options.steps), options.crs)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = kenya.write_items(folder / "items.json")
        kenya.write_aoi(folder / "kenya.geojson")
        size = (folder / "items.json").stat().st_size
        print(f"{kenya.area_km2():,.0f} km², {count:,} items, {size / 1e6:.0f} MB of JSON\n")
        print("## lcengine plan\n")
        command = ["lcengine", "plan", folder / "items.json", "-c", "sentinel-2-l2a"]
        command += ["--aoi", folder / "kenya.geojson", "--datetime", str(kenya.YEAR)]
        command += ["--crs", options.crs, "--resolution", "10", *COMMAND, *PRICES]
        whole = timed([sys.executable, "-m", *map(str, command)])
        print(f"\n{whole:.1f} s, {peak():.2f} GiB at most\n\n## Steps\n")
        timed([sys.executable, __file__, "--steps", name, "--crs", options.crs])


def timed(command):
    """Seconds of a process whose output is shown."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT)
    return time.perf_counter() - start


def peak():
    """Largest resident set of a finished child in GiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def steps(folder, crs):
    """Print seconds of each step."""
    from lcengine.aoi import Aoi
    from lcengine.catalog import Query
    from lcengine.composite import CompositePlan, CompositeRequest, CompositeSpec, plan_composite
    from lcengine.traffic import traffic

    query = Query(str(folder / "items.json"), ("sentinel-2-l2a",), None, str(kenya.YEAR))
    aoi = Aoi.from_file(folder / "kenya.geojson")
    spec = CompositeSpec(("blue", "green", "red", "nir"))
    request = CompositeRequest(query, spec, aoi, crs=crs, resolution=10.0)
    items, grid = step("items and grid", request.items_and_grid)
    plan = step("tiles to items", lambda: plan_composite(items, grid, spec))
    step("bytes and values", lambda: traffic(plan.reads, lambda b, _: plan.sensor.layout(b)))
    step("identity of the run", lambda: plan.run_id)
    text = step("plan as JSON", lambda: json.dumps(plan.to_json()))
    saved = folder / "plan.json"
    saved.write_text(text)
    step(
        f"in every worker: {len(text) / 1e6:.0f} MB of JSON to a plan",
        lambda: CompositePlan.from_json(json.loads(saved.read_text())),
    )


def step(name, work):
    """The result of a step, its seconds printed."""
    start = time.perf_counter()
    result = work()
    print(f"{time.perf_counter() - start:6.2f} s  {name}")
    return result


if __name__ == "__main__":
    main()
