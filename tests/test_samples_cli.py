"""`lcengine samples`: products and folders, the same command again, pictures, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_products import bands, labels, publish
from matplotlib.image import imread, imsave
from plain_source import LEGEND

from lcengine import store
from lcengine.classmap import save_classes
from lcengine.cluster import connect
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.legends import legend
from lcengine.samples.picture import FRAMES, GAP, draw

SIZES = ("--patch", 16, "--block", 48, "--buffer", 16, "--fractions", "0.5,0.25,0.25")


@pytest.fixture(scope="module")
def cluster():
    with connect("local:workers=1,threads=2") as client:
        yield ("--cluster", client.scheduler.address, "--retries", 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    grid = Grid.from_bounds(600_000, 5_597_440, 602_560, 5_600_000, "EPSG:32631", 10.0, 256)
    codes = np.full(grid.shape, 40, np.uint8)
    codes[:, 128:] = 10
    codes[::2, ::2] = 255
    publish(folder / "s2.zarr", grid, bands(("red", "green", "blue"), grid.shape))
    publish(folder / "s1.zarr", grid, bands(("vv", "vh"), grid.shape, scale=0.01, units="dB"))
    labels(folder / "labels.zarr", grid, codes, LEGEND)
    transform = tuple(grid.transform)[:6]
    save_classes(folder / "map.tif", codes, LEGEND, crs="EPSG:32631", transform=transform)
    return folder


def test_products(run, made, cluster, tmp_path):
    output, picture = tmp_path / "samples.zarr", tmp_path / "sheet.png"
    command = ("samples", f"s2={made / 's2.zarr'}", f"s1={made / 's1.zarr'}", *SIZES, *cluster)
    command += ("--labels", made / "labels.zarr", "-o", output, "--json")
    code, out, err = run(*command, "--picture", picture, "--bands", "s2=blue,red")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["inputs"] == {"s2": ["blue", "red"], "s1": ["vv", "vh"]}
    numbers = {name: split["samples"] for name, split in facts["splits"].items()}
    assert min(numbers.values()) > 0
    assert sum(numbers.values()) == store.stored(output).sizes["sample"]
    assert facts["splits"]["train"]["pixels"]["40"] > 0
    seen = [{c for c, n in split["pixels"].items() if n} for split in facts["splits"].values()]
    assert ("another --seed or smaller --block may help" in err) == any(
        one != set.union(*seen) for one in seen
    )
    sheet = (imread(picture)[..., :3] * 255).round().astype(int)
    seen = [(sheet == frame).all(axis=-1).any() for frame in FRAMES]
    assert seen == [True, True, True]

    place = store.place(output)
    code, out, _ = run(*command, "--bands", "s2=blue,red")
    assert (code, json.loads(out)["run_id"]) == (0, facts["run_id"])
    assert store.place(output) == place  # nothing was made again
    code, _, err = run(*command)
    assert code == 7
    assert "different request (source.layers.s2.bands" in err
    code, out, err = run("info", output, "--json")
    assert (code, json.loads(out)["kind"]) == (0, "samples")
    code, out, err = run("verify", output)
    assert code == 0, err


def test_a_class_map_for_people(run, made, cluster, tmp_path):
    command = ("samples", f"s2={made / 's2.zarr'}", *SIZES, *cluster, "--labels", made / "map.tif")
    command += ("--strategy", "balanced", "--samples", 40, "--resampling", "bilinear")
    code, out, err = run(*command, "-o", tmp_path / "out.zarr")
    assert code == 0, err
    assert "20 samples of" in out
    assert "crop" in out


def test_random_splits_have_no_blocks(run, made, cluster, tmp_path):
    command = ("samples", f"s2={made / 's2.zarr'}", *cluster, "--labels", made / "labels.zarr")
    output = tmp_path / "out.zarr"
    code, out, err = run(*command, "--patch", 64, "--split", "random", "-o", output)
    assert code == 0, err
    assert " samples, " in out
    assert "blocks" not in out
    assert store.provenance(output)["splits"]["train"]["blocks"] == 0


def test_a_folder(run, cluster, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        for part in ("images", "masks"):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 255, (70, 64, 3), dtype=np.uint8)
        imsave(tmp_path / "set" / "images" / f"{number:02}.png", image)
        codes = rng.choice(np.array(legend("crop").codes), (70, 64))
        save_png(tmp_path / "set" / "masks" / f"{number:02}.png", codes)
    command = ("samples", "--folder", "images", tmp_path / "set", "--set", "legend=crop")
    command += ("--patch", 32, "-o", tmp_path / "out.zarr", "--json", *cluster, "--seed", 1)
    code, out, err = run(*command, "--fractions", "0.5,0.5,0", "--picture", tmp_path / "a.png")
    assert code == 0, err
    splits = json.loads(out)["splits"]
    assert splits["train"]["samples"] + splits["val"]["samples"] == 12 * 4
    assert splits["train"]["samples"] == splits["train"]["blocks"] * 4  # images stay whole
    assert (tmp_path / "a.png").stat().st_size > 1000


def save_png(path, codes):
    from PIL import Image

    Image.fromarray(codes.astype(np.uint8)).save(path)


def test_a_picture_of_small_patches(run, made, cluster, tmp_path):
    output = tmp_path / "out.zarr"
    code, _, err = run(
        "samples", f"s2={made / 's2.zarr'}", "--labels", made / "labels.zarr", "--patch", 5,
        "--centre", "--stride", 7, "-o", output, *cluster,
    )  # fmt: skip
    assert code == 0, err
    draw(output, tmp_path / "sheet.png", patches=9)
    sheet = imread(tmp_path / "sheet.png")
    edge = 5 * (64 // 5)
    assert (sheet.shape[1] + GAP) % (edge + 3 * GAP) == 0
    assert (sheet.shape[0] + GAP) % (2 * edge + 4 * GAP) == 0
    with pytest.raises(InputError, match="holds no samples"):
        draw(made / "s2.zarr", tmp_path / "no.png")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("s2=a.zarr",), "need --labels"),
        (("a.zarr", "--labels", "b.zarr"), "a source is 'a.zarr', expected name=value"),
        (("s2=a.zarr", "--labels", "b.zarr", "--fractions", "0.5,0.5"), "three numbers"),
        (("s2=a.zarr", "--labels", "b.zarr", "--resampling", "a=b", "--resampling", "c"), "one"),
        (("d", "e", "--folder", "images"), "takes one folder"),
        (("d", "--folder", "images", "--labels", "e"), "takes one folder and --set, got d, --la"),
        (("s2=none.zarr", "--labels", "none.zarr"), "not a Zarr v3 product"),
    ],
)
def test_what_is_refused(run, tmp_path, arguments, text):
    code, out, err = run("samples", *arguments, "-o", tmp_path / "out.zarr")
    assert (code, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


def test_a_picture_without_a_folder_is_refused_at_once(run, made, tmp_path):
    code, _, err = run(
        "samples", f"s2={made / 's2.zarr'}", "--labels", made / "labels.zarr", *SIZES,
        "-o", tmp_path / "out.zarr", "--picture", tmp_path / "no" / "a.png",
    )  # fmt: skip
    assert (code, "does not exist" in err) == (2, True)
    assert not (tmp_path / "out.zarr").exists()
