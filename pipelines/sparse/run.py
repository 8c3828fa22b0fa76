"""Land cover of the simulated world from sparse labels: networks beside classifiers of pixels.

    python pipelines/sparse/run.py OUT

Simulates a world of 6.4 km. Two scenes of it, one of PlanetScope (3 m) and one of Sentinel-2 with
Sentinel-1 (10 m): in the west discs around random points, as many of each class, are labelled, no
more than 5 % of the pixels; in the east the map is held against the truth of every pixel, none of
which is seen in training. `OUT/results.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import distributed
import numpy as np
import rasterio
import shapely

import lcengine
from lcengine import recipes, simulate
from lcengine.classmap import save_classes
from lcengine.composite import CompositeSpec, plan_composite
from lcengine.evaluate.plan import plan_evaluation
from lcengine.grid import Grid
from lcengine.legends import legend
from lcengine.metrics import Accuracy
from lcengine.predict import plan_predict
from lcengine.simulate.world import world
from lcengine.store import sidecar

HERE = Path(__file__).parent
WORLD = simulate.SimulationOptions(
    size=640, dates=10, seed=5, period="2023-05-01/2023-07-31", sensors=("s2", "s1", "planet")
)
NONE = 255
MOST = 0.05
"""Share of the western pixels that is labelled at most."""


@dataclass(frozen=True)
class Scene:
    """What is mapped: pixels of `metres` along a side, `height` of them, twice as many or so wide.

    `train`, `val`: rows in the west, left of column `west`; the columns from `east` test. `radius`
    of labelled discs, in pixels. `composites`: product, collection, bands and method.
    """

    metres: int
    shape: tuple[int, int]
    west: int
    east: int
    train: tuple[int, int]
    val: tuple[int, int]
    radius: int
    composites: tuple[tuple[str, str, tuple[str, ...], str], ...]
    models: tuple[str, ...]


S2_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
SCENES = {
    "planet": Scene(
        3, (1000, 2000), 1000, 1040, (296, 1000), (0, 256), 7,
        (("planet", "PSScene", ("blue", "green", "red", "nir"), "median"),),
        ("forest", "mlp", "deeplab-head"),
    ),
    "s2s1": Scene(
        10, (640, 640), 320, 340, (0, 480), (500, 640), 3,
        (
            ("s2", "sentinel-2-l2a", S2_BANDS, "median"),
            ("s1", "sentinel-1-rtc", ("vv", "vh"), "mean"),
        ),
        ("forest", "mlp", "unet"),
    ),
}  # fmt: skip


def prepare(out: Path, client: distributed.Client) -> None:
    """Composites of both scenes, their labels, truth and areas."""
    catalog = out / "world" / "catalog.json"
    if not catalog.exists():  # written last; simulating again would write it anew
        simulate.simulate(out / "world", WORLD)
    landscape = world(WORLD).landscape
    left, _, _, top = landscape.bounds
    for name, scene in SCENES.items():
        height, width = scene.shape
        x, y = (-(-left // scene.metres) * scene.metres, top // scene.metres * scene.metres)
        bounds = (x, y - height * scene.metres, x + width * scene.metres, y)
        grid = Grid.from_bounds(*bounds, 32631, scene.metres, tile=512)
        for product, collection, bands, method in scene.composites:
            items = lcengine.search(str(catalog), [collection])
            spec = CompositeSpec(bands, method=method, qa="none")
            plan = plan_composite(items, grid, spec)
            lcengine.run(plan, out / f"{product}.zarr", client=client)
        truth = in_classes(landscape.patch(bounds, scene.metres).landcover)
        east = np.arange(width) >= scene.east
        place = {"crs": "EPSG:32631", "transform": (scene.metres, 0, x, 0, -scene.metres, y)}
        labels = np.where(east, truth, sparse(truth, scene))
        write(out / f"{name}-labels.tif", labels, **place)
        write(out / f"{name}-truth.tif", np.where(east, truth, np.uint8(NONE)), **place)
        (out / f"{name}.geojson").write_text(json.dumps(areas(scene, x, y)))


def in_classes(covers: np.ndarray) -> np.ndarray:
    """Covers of the world as classes of DFC2020."""
    codes = np.full(256, NONE, np.uint8)
    for cover in simulate.LEGEND:
        codes[cover.code] = cover.dfc2020
    return codes[covers]


def sparse(truth: np.ndarray, scene: Scene) -> np.ndarray:
    """Discs in the west around random points, as many of each class; of each only that class."""
    rng = np.random.default_rng(WORLD.seed)
    out = np.full(truth.shape, NONE, np.uint8)
    r = scene.radius
    most = MOST * truth.shape[0] * scene.west
    disc = np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) <= r
    inner = truth[r:-r, r : scene.west - r]
    places = [np.argwhere(inner == code) + r for code in np.unique(inner)]
    while (out != NONE).sum() + disc.sum() <= most:
        row, col = rng.choice(places[rng.integers(len(places))])
        window = np.s_[row - r : row + r + 1, col - r : col + r + 1]
        same = disc & (truth[window] == truth[row, col])
        out[window][same] = truth[row, col]
    return out


def write(path: Path, codes: np.ndarray, crs: str, transform: tuple[float, ...]) -> None:
    """A raster of classes."""
    save_classes(path, codes, legend("dfc2020"), crs=crs, transform=transform)


def areas(scene: Scene, left: int, top: int) -> dict[str, object]:
    """Where samples are for training and for validation, as GeoJSON."""
    features = []
    for split in ("train", "val"):
        start, stop = (top - row * scene.metres for row in getattr(scene, split))
        box = shapely.box(left, stop, left + scene.west * scene.metres, start)
        shape = shapely.geometry.mapping(box)
        features.append({"type": "Feature", "properties": {"split": split}, "geometry": shape})
    name = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    return {"type": "FeatureCollection", "crs": name, "features": features}


def measured(scene: str, model: str, out: Path, client: distributed.Client) -> dict[str, object]:
    """Train a recipe, map its scene, and compare the map with the truth of the east."""
    recipe = recipes.read(out / f"{scene}-{model}.toml")
    folder = out / f"{scene}-{model}"
    started = time.process_time()
    made = recipes.train(recipe, folder, recipes.Running(client), say=print)
    minutes = (time.process_time() - started) / 60
    cost = folder / "cost.json"
    if not cost.exists():  # another run finds the model there
        cost.write_text(json.dumps({"minutes": minutes}))
    sources = {name: str(out / f"{name}.zarr") for name, *_ in SCENES[scene].composites}
    plan = plan_predict(sources, made.model.path)
    mapped = lcengine.run(plan, folder / "map.zarr", client=client)
    compared = plan_evaluation(mapped, out / f"{scene}-truth.tif", legend=plan.legend)
    report = lcengine.run(compared, folder / "report.zarr", client=client, restart=True)
    accuracy = json.loads(sidecar(report, "accuracy.json"))
    return {**json.loads(cost.read_text()), "accuracy": accuracy}


def table(found: dict[str, dict[str, object]]) -> str:
    """IoU of every class, their mean, macro F1 and overall accuracy in percent; minutes of CPU."""
    told = {name: Accuracy.from_json(facts["accuracy"]) for name, facts in found.items()}
    first = next(iter(told.values()))
    there = [i for i, pixels in enumerate(first.reference) if pixels]
    lines = [f"| IoU | {' | '.join(told)} |", "|---" * (len(told) + 1) + "|"]
    for i in there:
        cells = [f"{100 * accuracy.measures['iou'][i]:.1f}" for accuracy in told.values()]
        lines.append(f"| {first.legend.names[i]} | {' | '.join(cells)} |")
    for title, of in (
        ("mean IoU", lambda a: a.macro["iou"]),
        ("macro F1", lambda a: a.macro["f1"]),
        ("overall", lambda a: a.overall),
    ):
        lines.append(f"| {title} | {' | '.join(f'{100 * of(a):.1f}' for a in told.values())} |")
    minutes = " | ".join(f"{facts['minutes']:.1f}" for facts in found.values())
    return "\n".join([*lines, f"| CPU minutes | {minutes} |"])


def run(out: Path, scenes: tuple[str, ...] = tuple(SCENES)) -> dict[str, dict[str, object]]:
    """Everything; figures by scene and model."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for file in HERE.glob("*.toml"):
        shutil.copy(file, out)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        prepare(out, client)
        return {
            scene: {model: measured(scene, model, out, client) for model in SCENES[scene].models}
            for scene in scenes
        }


def labelled(out: Path, scene: str) -> float:
    """Share of the western pixels that have a label."""
    with rasterio.open(out / f"{scene}-labels.tif") as file:
        return float((file.read(1)[:, : SCENES[scene].west] != NONE).mean())


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", nargs="+", choices=tuple(SCENES), default=tuple(SCENES))
    given = parser.parse_args()
    found = run(given.out, tuple(given.scenes))
    for scene, figures in found.items():
        print(f"\n{scene}: {labelled(given.out, scene):.1%} of the western pixels are labelled\n")
        print(table(figures))
    (given.out / "results.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
