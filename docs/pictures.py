"""Draw docs/methods.jpg and docs/screens.jpg: every method and screen on the same tile.

    python docs/pictures.py

A simulated season, 24 overpasses from June to August; the mask is the plain scene classification,
whose errors follow published accuracies, so there is something left to see.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import lcengine
from lcengine.quicklook import colour
from lcengine.simulate import SimulationOptions, simulate

HERE = Path(__file__).parent
SIZE, WINDOW = 512, 200
BANDS = ["blue", "green", "red", "nir", "swir16", "cloud_distance"]
METHODS = (
    "median",
    "mean",
    "percentile:25",
    "geomedian",
    "medoid",
    "medoid:nearest",
    "max-ndvi",
    "index:hot",
    "bap",
    "first-clear",
)
SCREENS = ("none", "mad:3", "mad:3:bright", "despike", "tmask", "despike,mad:3")


def pixels(product: xr.Dataset) -> np.ndarray:
    """Red, green, blue reflectance of a corner, float32 with NaN."""
    stack = np.stack([product[name].values[:WINDOW, :WINDOW] for name in ("red", "green", "blue")])
    return np.where(stack == -32768, np.nan, stack.astype(np.float32))


def sheet(pictures: dict[str, np.ndarray], like: np.ndarray, path: Path, columns: int) -> None:
    """Write the pictures with one stretch, `columns` to a row."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.75 * rows), dpi=110)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, bands) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(colour(bands, like))
        axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.6)
    figure.savefig(path, pil_kwargs={"quality": 82})
    plt.close(figure)


def main() -> None:
    """Simulate, composite, draw."""
    with tempfile.TemporaryDirectory() as folder:
        world = simulate(
            Path(folder) / "world",
            SimulationOptions(size=SIZE, dates=24, seed=4, period="2023-06-01/2023-08-31"),
        )
        items = lcengine.search(str(world.catalog), ["sentinel-2-l2a"])
        grid = lcengine.Grid.from_aoi(
            lcengine.Aoi.from_bbox(items[0].bbox), crs=32631, resolution=10
        )
        cube = lcengine.load(items, grid, BANDS, mask="scl").compute()

    def made(method: str, outliers: str) -> np.ndarray:
        bands = ["blue", "green", "red", "nir"]
        made = lcengine.composite(cube, bands=bands, method=method, outliers=outliers)
        return pixels(made.compute())

    like = made("median", "mad:3")
    sheet({name: made(name, "none") for name in METHODS}, like, HERE / "methods.jpg", 5)
    sheet({name: made("mean", name) for name in SCREENS}, like, HERE / "screens.jpg", 6)


if __name__ == "__main__":
    main()
