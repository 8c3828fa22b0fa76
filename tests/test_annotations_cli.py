"""`lcengine labels via|colors|crops|regions|resample`, each with its picture."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image

from lcengine import store
from lcengine.classmap import read_classes, save_classes
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.coarse import task
from lcengine.labels.coarse.maps import open_classes
from lcengine.labels.coarse.maps import resample as resampled
from lcengine.labels.coarse.plan import plan_map
from lcengine.legends import legend

GLOBE = legend("deepglobe")


def colours_in(picture):
    """All colours of a picture."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {tuple(row) for row in np.unique(pixels, axis=0).tolist()}


def facts(run, *arguments):
    code, out, err = run("labels", *arguments, "--json")
    assert code == 0, err
    return json.loads(out.splitlines()[-1]), err


def test_via(run, tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    square = {"name": "rect", "x": 5, "y": 5, "width": 20, "height": 20}
    region = {"shape_attributes": square, "region_attributes": {"use": "water"}}
    document = {"a.png9": {"filename": "a.png", "regions": {"0": region}}}
    (tmp_path / "via.json").write_text(json.dumps(document))
    source = ("via", tmp_path / "via.json", "--images", tmp_path, "-o", tmp_path / "masks")
    picture = tmp_path / "via.png"
    found, err = facts(run, *source, "--attribute", "use", "--picture", picture)
    assert found == {"masks": 1, "regions": 1, "classes": {"water": 1}}
    assert "look at" in err
    assert picture.is_file()
    facts(run, *source, "--attribute", "use", "--map", "water=forest land",
          "--legend", "deepglobe", "--background", "6", "--format", "png")  # fmt: skip
    codes = read_classes(tmp_path / "masks" / "a.png", GLOBE)
    assert np.unique(codes).tolist() == sorted({GLOBE.find("forest land").code, 6})
    code, _, err = run("labels", *source, "--class", "1")
    assert (code, "give --legend" in err) == (2, True)
    code, _, err = run("labels", *source, "--attribute", "use", "--map", "water",
                       "--legend", "deepglobe")  # fmt: skip
    assert (code, "expected value=class" in err) == (2, True)


def test_colors(run, tmp_path):
    codes = np.resize(np.array(GLOBE.codes, np.uint8), (30, 40))
    Image.fromarray(GLOBE.to_rgb(codes)).save(tmp_path / "a.png")
    known = ("--legend", "deepglobe")
    picture = tmp_path / "look.png"
    found, _ = facts(run, "colors", tmp_path / "a.png", "-o", tmp_path / "a.tif", *known,
                     "--picture", picture)  # fmt: skip
    assert found["masks"] == 1
    assert {entry.rgb for entry in GLOBE.classes} <= colours_in(picture)
    facts(run, "colors", tmp_path / "a.tif", "-o", tmp_path / "b.png", *known, "--to", "colours",
          "--picture", picture)  # fmt: skip
    with Image.open(tmp_path / "b.png") as image:
        assert np.array_equal(np.asarray(image), GLOBE.to_rgb(codes))
    code, _, err = run("labels", "colors", tmp_path / "a.tif", "-o", tmp_path / "b.png", *known,
                       "--to", "colours", "--tolerance", "3")  # fmt: skip
    assert (code, "are for --to codes" in err) == (2, True)
    code, _, err = run("labels", "colors", tmp_path / "a.png", "-o", tmp_path / "c.tif", *known,
                       "--format", "png")  # fmt: skip
    assert (code, "--format is of folders" in err) == (2, True)


@pytest.fixture
def fields(tmp_path):
    """A folder of two crops and their table."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for i, crop in enumerate(("maize", "rye")):
        shapes = [shapely.box(5e5 + x, 5e6, 5e5 + x + 300, 5e6 + 300) for x in (0, 9000 * i + 500)]
        gpd.GeoDataFrame({"zone": ["n", "s"]}, geometry=shapes, crs=32631).to_file(
            folder / f"{crop}.shp"
        )
    (tmp_path / "dates.csv").write_text("crop,harvest\nmaize,2018-09-30\nrye,2018-07-15\n")
    return folder


def test_crops_and_regions(run, tmp_path, fields):
    out = tmp_path / "fields.gpkg"
    found, _ = facts(run, "crops", fields, "--table", tmp_path / "dates.csv", "-o", out,
                     "--region", "zone", "--periods", tmp_path / "periods",
                     "--picture", tmp_path / "crops.png")  # fmt: skip
    assert found["fields"] == 4
    assert found["crops"] == {"maize": 2, "rye": 2}
    assert found["times"] == dict.fromkeys("ns", "2017-12-15/2018-06-14")
    frame = gpd.read_file(out)
    assert sorted(frame["harvest"].astype(str)) == ["2018-07-15"] * 2 + ["2018-09-30"] * 2
    windows = json.loads((tmp_path / "periods" / "n.json").read_text())
    assert len(windows) == 6
    rois = tmp_path / "rois.geojson"
    found, _ = facts(run, "regions", out, "-o", rois, "--attribute", "crop",
                     "--picture", tmp_path / "regions.png")  # fmt: skip
    assert (found["regions"], found["labels"], found["without_region"]) == (2, 4, 0)
    classes = [f["properties"]["classes"] for f in json.loads(rois.read_text())["features"]]
    assert classes == [["maize", "rye"], ["rye"]]
    for name in ("crops.png", "regions.png"):
        assert len(colours_in(tmp_path / name)) > 10
    code, _, err = run("labels", "crops", fields, "--table", tmp_path / "dates.csv", "-o", out,
                       "--columns", "crop")  # fmt: skip
    assert (code, "expected three headings" in err) == (2, True)


def a_map(tmp_path):
    """A map of 10 m, and a raster of 40 m whose pixels are asked for."""
    known = legend("worldcover")
    rng = np.random.default_rng(0)
    codes = np.array(known.codes, np.uint8)[rng.integers(0, 4, (60, 80))]
    place = {"crs": "EPSG:32631", "transform": (10, 0, 600_000, 0, -10, 5_600_000)}
    save_classes(tmp_path / "map.tif", codes, known, **place)
    place["transform"] = (40, 0, 600_000, 0, -40, 5_600_000)
    save_classes(tmp_path / "like.tif", np.zeros((14, 20), np.uint8), GLOBE, **place)
    return tmp_path / "map.tif", Grid.from_pixels(place["crs"], place["transform"], (14, 20))


def test_resample(run, tmp_path):
    source, grid = a_map(tmp_path)
    out, picture = tmp_path / "out.zarr", tmp_path / "out.png"
    found, _ = facts(run, "resample", source, "-o", out, "--like", tmp_path / "like.tif",
                     "--picture", picture, "--cluster", "local:workers=1,threads=1")  # fmt: skip
    opened, its = open_classes(source)
    product = store.open(out)
    assert np.array_equal(product.label.values, resampled(opened, its, grid).label.values)
    with Image.open(picture) as drawn:
        assert np.asarray(drawn.convert("RGB")).shape[0] >= 14  # a key of the classes beside it
        assert drawn.size[0] > 20
    assert store.legend_of(out).codes == its.codes
    assert sum(found["pixels"].values()) == 14 * 20
    # A label product is a map itself.
    again, legend_again = open_classes(out)
    coarse = Grid.from_pixels("EPSG:32631", (80, 0, 600_000, 0, -80, 5_600_000), (7, 10))
    assert resampled(again, legend_again, coarse).label.shape == (7, 10)


def test_fractions_by_tile(tmp_path):
    source, grid = a_map(tmp_path)
    plan = plan_map(source, replace(grid, tile=16), method="fractions")
    again = task.load(json.loads(json.dumps(plan.to_json())), lambda name: b"")
    assert again.run_id == plan.run_id
    opened, its = open_classes(source)
    expected = resampled(opened, its, grid, "fractions").fraction.values
    names = [variable.name for variable in plan.variables()]
    assert names[0] == "fraction_10_tree_cover"
    for number in plan.tiles:
        arrays, receipt = task.compute(again, number, 1)
        tile = plan.grid.tile_at(number)
        assert receipt["pixels"] == tile.height * tile.width
        found = np.stack([arrays[name] for name in names])
        assert np.array_equal(found, expected[:, *tile.slices], equal_nan=True)
    assert task.finish(again, list)[0] == {"map": str(source), "method": "fractions"}


def test_a_map_that_changed_since_it_was_planned_is_refused(tmp_path):
    """Tiles of two maps in one product, otherwise."""
    source, grid = a_map(tmp_path)
    plan = plan_map(source, replace(grid, tile=16))
    again = task.load(json.loads(json.dumps(plan.to_json())), lambda name: b"")
    source.write_bytes(source.read_bytes() + b"0")
    with pytest.raises(InputError, match=r"map\.tif is not what it was when this was planned"):
        task.compute(again, plan.tiles[0], 1)
    source.unlink()
    again = task.load(plan.to_json(), lambda name: b"")
    with pytest.raises(InputError, match=r"map\.tif cannot be read: No such file"):
        task.compute(again, plan.tiles[0], 1)
