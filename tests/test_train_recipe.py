"""Recipes are read strictly: what is wrong is named by its key, on one line."""

from __future__ import annotations

import subprocess
import sys

import geopandas as gpd
import pytest
import shapely

from lcengine import recipes
from lcengine.errors import InputError
from lcengine.samples import SampleSpec

WHOLE = """
[data]
labels = "labels.zarr"
[data.sources]
s2 = "months.zarr"
s1 = { path = "/far/radar.zarr", bands = ["vv"], resampling = "average" }
[samples]
patch = 32
fractions = [0.5, 0.25, 0.25]
[model]
kind = "logistic"
features = ["bands"]
c = 0.5
[objective]
class_weight = { crop = 2.0 }
memory = "512MiB"
seed = 7
[output]
folder = "out"
"""


def written(tmp_path, text=WHOLE):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return file


def test_a_whole_recipe(tmp_path):
    found = recipes.read(written(tmp_path))
    assert found.samples == SampleSpec(32, fractions=(0.5, 0.25, 0.25))
    assert (found.kind, found.options.c, found.options.features) == ("logistic", 0.5, ("bands",))
    assert (found.objective.memory, found.objective.seed) == (512 * 2**20, 7)
    assert found.objective.class_weight == {"crop": 2.0}
    assert found.data.sources["s1"].bands == ("vv",)
    # Paths are relative to the recipe, whatever the working directory.
    assert found.path(found.data.sources["s2"].path) == str(tmp_path / "months.zarr")
    assert found.path(found.data.sources["s1"].path) == "/far/radar.zarr"
    assert found.path("s3://bucket/a.zarr") == "s3://bucket/a.zarr"
    assert found.folder == tmp_path / "out"


def test_what_decides_is_the_same_for_equal_recipes(tmp_path):
    found = recipes.read(written(tmp_path))
    assert recipes.read(written(tmp_path)).to_json() == found.to_json()
    quicker = recipes.read(written(tmp_path), ["objective.threads=1", "output.folder=b"])
    assert quicker.to_json() == found.to_json()
    assert recipes.read(written(tmp_path), ["model.c=2"]).to_json() != found.to_json()


def test_settings_replace_values(tmp_path):
    settings = ["model.kind=forest", "model.trees=5", "samples.seed=3", 'data.labels="b.tif"']
    text = WHOLE.replace("c = 0.5", "")
    found = recipes.read(written(tmp_path, text), [*settings, "data.legend=cover.csv"])
    assert (found.kind, found.options.trees, found.samples.seed) == ("forest", 5, 3)
    assert (found.data.labels, found.data.legend) == ("b.tif", "cover.csv")
    for wrong in ("trees=5", "model.trees", "model.kind.x=3"):
        with pytest.raises(InputError, match="--set"):
            recipes.read(written(tmp_path, text), [wrong])


def test_samples_that_are_there(tmp_path):
    text = '[samples]\npath = "old.zarr"\n[model]\nkind = "forest"\n'
    assert recipes.read(written(tmp_path, text)).samples == str(tmp_path / "old.zarr")
    with pytest.raises(InputError, match=r"samples\.path is 'old\.zarr'; expected"):
        recipes.read(written(tmp_path, text), ["samples.patch=3"])
    with pytest.raises(InputError, match=r"neither \[data\] nor samples\.path"):
        recipes.read(written(tmp_path, '[model]\nkind = "forest"\n'))


def test_areas_are_read_with_the_recipe(tmp_path):
    shapes = [shapely.box(0, 0, 9, 9), shapely.box(20, 0, 29, 9)]
    frame = gpd.GeoDataFrame({"split": ["train", "test"]}, geometry=shapes, crs="EPSG:32631")
    frame.to_file(tmp_path / "halves.gpkg")
    text = WHOLE.replace("patch = 32", 'patch = 32\nareas = "halves.gpkg"')
    found = recipes.read(written(tmp_path, text)).samples
    assert found.split == "areas"
    assert [name for name, _ in found.areas.polygons] == ["train", "test"]


WRONG = [
    (("patch = 32", "patch = 0"), ["samples: patch is 0"]),
    (
        ("patch = 32", "patch = 'a'"),
        ["samples.patch: input should be a valid", "(got 'a')"],
    ),
    (("patch = 32", "patch = '32'"), ["samples.patch: input should be a valid int", "(got '32')"]),
    (("c = 0.5", "c = '0.5'"), ["model.c: input should be a valid number (got '0.5')"]),
    (("patch = 32", "pach = 32"), ["samples.pach is unknown; did you mean patch?"]),
    (("c = 0.5", "c = -1"), ["model.c: input should be greater than 0 (got -1)"]),
    (("c = 0.5", "iteratons = 5"), ["model.iteratons is unknown; did you mean iterations?"]),
    (('"logistic"', '"logstic"'), ["model.kind is 'logstic'; did you mean logistic?"]),
    (('kind = "logistic"', ""), ["model.kind is missing, expected one of forest"]),
    (("seed = 7", "sed = 7"), ["objective.sed is unknown; did you mean seed?"]),
    (("512MiB", "lots"), ["objective.memory: ", "(got 'lots')"]),
    (("512MiB", "1MiB"), ["objective.memory: input should be greater than or equal to"]),
    (("crop = 2.0", "crop = 0"), ["objective.class_weight.crop: ", "greater than 0"]),
    (('labels = "labels.zarr"', ""), ["data.labels: field required"]),
    (('"average"', '"cubic"'), ["data.sources.s1.resampling: ", "(got 'cubic')"]),
    (("bands = [", "band = ["), ["data.sources.s1.band is unknown; did you mean bands?"]),
    (("[output]", "[outpt]"), ["outpt is unknown; did you mean output?"]),
    (("[data]", "[data"), ["is no TOML"]),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_what_is_wrong_is_named(tmp_path, change, said):
    file = written(tmp_path, WHOLE.replace(*change, 1))
    with pytest.raises(InputError) as caught:
        recipes.read(file)
    message = str(caught.value)
    assert "recipe.toml" in message
    assert "\n" not in message
    for part in said:
        assert part in message


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        recipes.read(tmp_path / "no.toml")


NETWORK = """
import sys
from lcengine import recipes
found = recipes.read(sys.argv[1])
assert found.schedule.learning_rate == {"rest": 0.01}
assert found.aim.loss == {"dice": 1.0}
assert not {"torch", "lightning_fabric"} & sys.modules.keys()
"""


def test_recipes_of_networks_are_read_without_torch(tmp_path):
    text = '[samples]\npath = "s.zarr"\n[model]\nkind = "unet"\n[objective]\nloss = "dice"\n'
    (tmp_path / "net.toml").write_text(text + "[training]\nlearning_rate = 0.01\n")
    command = [sys.executable, "-c", NETWORK, str(tmp_path / "net.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
