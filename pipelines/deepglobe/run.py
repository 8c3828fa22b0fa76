"""DeepGlobe land cover: two U-Nets on patches of 612 pixels, with the dice loss.

    python pipelines/deepglobe/run.py DEEPGLOBE OUT

DEEPGLOBE: the published folder, with `train/<id>_sat.jpg` and `train/<id>_mask.png`. Whole images
are for training, validation or testing. Prints mean IoU of the six known classes on test images
(`OUT/results.json`); pixels of class "unknown" count nowhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import distributed

from lcengine import jobs, recipes
from lcengine.metrics import Accuracy
from lcengine.samples import SampleSpec, plan_samples
from lcengine.samples.folders import open_folder

HERE = Path(__file__).parent
KINDS = ("unet", "resnet50-unet")
PATCH, STRIDE = 612, 306


def cut(source: Path, out: Path, spec: SampleSpec, client: distributed.Client) -> None:
    """`samples.zarr`: overlapping patches of all images that have masks."""
    plan = plan_samples(open_folder("deepglobe", source), spec)
    jobs.run(plan, out / "samples.zarr", client=client)


def run(
    source: Path,
    out: Path,
    kinds: Sequence[str] = KINDS,
    spec: SampleSpec | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Accuracy]:
    """Everything; accuracies on the test images by kind of model."""
    out.mkdir(parents=True, exist_ok=True)
    for file in HERE.glob("*.toml"):
        shutil.copy(file, out)
    found = {}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        cut(source, out, spec or SampleSpec(PATCH, stride=STRIDE, buffer=0), client)
        for kind in kinds:
            recipe = recipes.read(out / f"{kind}.toml", settings)
            made = recipes.train(recipe, running=recipes.Running(client), say=print)
            found[kind] = made.accuracy["test"]
    told = {name: accuracy.to_json() for name, accuracy in found.items()}
    (out / "results.json").write_text(json.dumps(told, indent=1))
    return found


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deepglobe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which models")
    parser.add_argument(
        "--set", action="append", default=[], help="of the recipes: training.epochs=5"
    )
    given = parser.parse_args()
    found = run(given.deepglobe, given.out, tuple(given.kinds), settings=given.set)
    print("| | mean IoU | macro F1 | overall |")
    print("|---|---|---|---|")
    for name, accuracy in found.items():
        values = accuracy.macro["iou"], accuracy.macro["f1"], accuracy.overall
        print(f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")


if __name__ == "__main__":
    main()
