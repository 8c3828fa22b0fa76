"""The command line: stable exit codes, one-line errors, JSON for machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings

import archives
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
from PIL import Image

import lcengine
from lcengine import catalog, cli, errors, jobs
from lcengine.cluster import connect
from lcengine.periods import PeriodRule
from lcengine.simulate import FileServer, SimulationOptions, items_collection, simulate

OPTIONS = ("-c", "sentinel-2-l2a", "--bands", "blue,swir16")
OPTIONS += ("--mask", "scl", "--outliers", "none")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=4, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


@pytest.fixture(scope="module")
def cluster():
    with connect("local:workers=1,threads=2") as client:
        yield client.scheduler.address


@pytest.fixture(scope="module")
def product(world, cluster, tmp_path_factory):
    """A product, made through the command line."""
    output = tmp_path_factory.mktemp("product") / "out.zarr"
    command = [sys.executable, "-m", "lcengine", "composite", world.catalog, *OPTIONS]
    command += ["-o", output, "--cluster", cluster, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture(scope="module")
def monthly(world, cluster, tmp_path_factory):
    """A product with a time axis: (path, what the command said)."""
    output = tmp_path_factory.mktemp("monthly") / "out.zarr"
    command = [sys.executable, "-m", "lcengine", "composite", world.catalog, *OPTIONS]
    command += ["--method", "median,percentile:10", "--period", "month", "--min-clear", "2"]
    command += ["--qa", "full", "-o", output, "--cluster", cluster, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout)


def one_line(err):
    """The message of an error that is one line and no traceback."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


class TestExitCodes:
    """Scripts depend on them."""

    def test_of_every_error(self):
        codes = {
            name: kind.exit_code
            for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, errors.LcengineError)
        }
        assert codes == {
            "LcengineError": 1,
            "InputError": 2,
            "AoiError": 2,
            "MissingBandError": 2,
            "NoItemsError": 3,
            "CatalogError": 4,
            "ContractError": 5,
            "AssetError": 1,
            "HrefError": 5,
            "ReadError": 6,
            "StoreError": 7,
            "RunError": 8,
        }
        assert cli.INTERRUPTED == 130

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--mask", "fog"), 2, "no mask is called 'fog'; expected one of"),
            (("--method", "best"), 2, "method is 'best', expected one of median, mean, "),
            (("--method", "median,median"), 2, "expected each method once"),
            (("--method", "bap"), 2, "has no band 'red'"),
            (("--outliers", "fog"), 2, "expected 'none' or some of mad[:K][:bright|:dark][:bands]"),
            (("--outliers", "mad,mad:2"), 2, "joined by commas, each once"),
            (("--outliers", "despike:1"), 2, "expected 'despike' or 'despike:ABOVE:BELOW'"),
            (("--period", "weekly"), 2, "expected year, season, month, dekad, PnD such as P16D"),
            (("--period", "P0D"), 2, "expected P1D to P366D"),
            (("--period", "custom.json"), 2, "is no rule and no readable file"),
            (("--min-clear", "3"), 2, "state one with --period, such as month"),
            (("--qa", "all"), 2, "qa is 'all', expected one of none, basic, full"),
            (("--max-lost", "2"), 2, "max_lost is 2"),
            (("--bands", "blue,nir"), 2, "has no band 'nir'; it has blue"),
            (("--bands", "blue,purple"), 2, "no band 'purple'"),
            (("--bbox", "5,51,4,50"), 2, "bbox"),
            (("--tile", "100"), 2, "multiple of 16"),
            (("--offset", "nan"), 2, "offset is nan, expected a number"),
            (("--offset", "inf"), 2, "offset is inf, expected a number"),
            (("--datetime", "2001-01"), 3, "2001-01"),
            (("-c", "landsat"), 3, "landsat"),
            (("--where", "platform=sentinel-9z"), 3, "sentinel-9z"),
        ],
    )
    def test_of_a_wrong_request(self, run, world, tmp_path, options, code, message):
        arguments = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
        arguments.update(dict([options]))
        flat = [part for pair in arguments.items() for part in pair]
        for command in (["plan"], ["composite", "-o", tmp_path / "out.zarr"]):
            found, out, err = run(*command, world.catalog, *flat)
            assert (found, out) == (code, "")
            assert message in one_line(err)

    def test_of_a_catalogue_that_cannot_be_read(self, run, tmp_path):
        assert run("search", tmp_path / "absent.json")[0] == 2
        broken = tmp_path / "broken.json"
        broken.write_text('{"type": "Catalog", ')
        code, _, err = run("search", broken)
        assert code == 4
        assert "broken.json" in one_line(err)

    def test_of_an_item_without_contract(self, run, world, tmp_path):
        document = items_collection(world.path, str(world.path))
        del document["features"][0]["assets"]["blue"]["proj:transform"]
        (tmp_path / "items.json").write_text(json.dumps(document))
        code, _, err = run("plan", tmp_path / "items.json", *OPTIONS)
        assert code == 5
        assert "proj:transform" in one_line(err)

    @pytest.mark.parametrize("code", ["EPSG:999999", "EPSG:x", "nonsense"])
    def test_of_an_item_with_a_bogus_crs(self, run, world, tmp_path, code):
        document = items_collection(world.path, str(world.path))
        del document["features"][0]["properties"]["proj:epsg"]
        document["features"][0]["properties"]["proj:code"] = code
        (tmp_path / "items.json").write_text(json.dumps(document))
        found, out, err = run("plan", tmp_path / "items.json", *OPTIONS)
        assert (found, out) == (2, "")
        assert f"CRS {code} " in one_line(err)
        assert "correct proj:code of the item" in err

    def test_of_a_cluster_that_is_none(self, run, world, tmp_path):
        output = tmp_path / "out.zarr"
        arguments = ["composite", world.catalog, *OPTIONS, "-o", output]
        code, out, err = run(*arguments, "--cluster", "local:cores=2")
        assert (code, out) == (2, "")
        assert "expected workers=…, threads=…, memory=…" in one_line(err)
        assert list(tmp_path.iterdir()) == []

    def test_of_an_address_that_is_refused(self, run, world, tmp_path):
        document = items_collection(world.path, "http://169.254.169.254")
        (tmp_path / "items.json").write_text(json.dumps(document))
        code, _, err = run("plan", tmp_path / "items.json", *OPTIONS)
        assert code == 5
        assert "--allow-host 169.254.169.254" in one_line(err)

    def test_of_an_output_in_the_way(self, run, world, tmp_path):
        (tmp_path / "out.zarr").mkdir()
        code, _, err = run("composite", world.catalog, *OPTIONS, "-o", tmp_path / "out.zarr")
        assert code == 7
        assert "choose another output" in one_line(err)

    def test_of_failed_tiles(self, run, world, tmp_path, cluster):
        catalog = archives.copied(world, tmp_path / "sim")
        for path in catalog.parent.glob("*/*/swir16.tif"):
            archives.empty(path)
        output = tmp_path / "out.zarr"
        code, out, err = run("composite", catalog, *OPTIONS, "-o", output, "--cluster", cluster)
        assert (code, out) == (8, "")
        last = err.splitlines()[-1]
        assert last.startswith("error: 1 of 1 tiles failed, the first: tile 0: ")
        assert "--max-lost 0.2" in last
        assert not output.exists()

    def test_of_a_file_that_cannot_be_written(self, run, world, product, tmp_path):
        code, _, err = run("search", world.catalog, "-o", tmp_path / "no" / "items.json")
        assert code == 1
        assert re.match(r"error: .*no/.*: No such file or directory", one_line(err))
        code, _, err = run("quicklook", product[0], "-o", tmp_path / "no" / "q.png")
        assert code == 2
        assert re.match(r"error: folder .*no does not exist; create it", one_line(err))

    def test_of_wrong_usage(self, run):
        assert run("composite")[0] == 2
        assert run("nonsense")[0] == 2
        assert run("plan", "x", "--nonsense")[0] == 2


class TestErrors:
    @pytest.mark.parametrize("place", [0, 4])
    def test_debug_anywhere_shows_the_traceback(self, world, place):
        arguments = ["plan", str(world.catalog), "--mask", "fog"]
        arguments.insert(place, "--debug")
        done = subprocess.run(
            [sys.executable, "-m", "lcengine", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode != 0
        assert "Traceback (most recent call last)" in done.stderr
        assert "lcengine.errors.InputError: no mask is called 'fog'" in done.stderr

    def test_what_nobody_expected_is_one_line(self, run, world, monkeypatch):
        def fail(*_, **__):
            raise ZeroDivisionError("a mistake\nof ours")

        monkeypatch.setattr(catalog, "search_query", fail)
        code, out, err = run("search", world.catalog)
        assert (code, out) == (1, "")
        assert one_line(err) == (
            "error: unexpected ZeroDivisionError: a mistake of ours; --debug shows where"
        )
        monkeypatch.setattr(sys, "argv", ["lcengine", "search", str(world.catalog), "--debug"])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(ZeroDivisionError):
            cli.main()

    def test_ctrl_c_speaks_of_tiles_only_where_there_are_some(
        self, run, world, tmp_path, monkeypatch
    ):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(catalog, "search_query", interrupt)
        assert run("search", world.catalog) == (130, "", "error: interrupted\n")
        monkeypatch.setattr(jobs, "run", interrupt)
        code, out, err = run("composite", world.catalog, *OPTIONS, "-o", tmp_path / "out.zarr")
        assert (code, out) == (130, "")
        assert one_line(err).endswith(
            "what is finished is kept, run the same command again to resume"
        )

    def test_warnings_are_one_line(self, run, world, tmp_path):
        document = items_collection(world.path, str(world.path))
        for feature in document["features"]:
            feature["properties"]["earthsearch:boa_offset_applied"] = False
            feature["properties"]["s2:processing_baseline"] = "05.09"
        (tmp_path / "items.json").write_text(json.dumps(document))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code, out, err = run("search", tmp_path / "items.json", "--json")
        assert code == 0
        assert json.loads(out)["items"] == len(world.item_ids)
        assert err.startswith("warning: item ")
        assert len(err.splitlines()) == 1


class TestHelp:
    def test_of_a_composite_names_all_choices(self, run, monkeypatch):
        """Those of the library, and none that it does not have."""
        from lcengine import masks
        from lcengine.cli.composite import MASKS, choices
        from lcengine.kernels.methods import FORMS, SCREENS

        def bare(forms):
            return {form.split(":")[0].split("[")[0] for form in forms}

        assert bare(", ".join(MASKS).split(", ")) == bare(masks.NAMES)
        assert {form for form in MASKS if ":" in form} == {
            "cldprb[:PERCENT]",
            "csplus[:SCORE], cs[:SCORE]",
        }
        monkeypatch.setenv("COLUMNS", "200")
        code, out, _ = run("composite", "--help")
        assert code == 0
        options = {"--mask": MASKS, "--outliers": SCREENS, "--method": FORMS}
        for option, forms in options.items():
            listed = out[out.rindex(f" {option} ") :]
            for form, text in forms.items():
                assert f"{form}: {text}" in listed
        assert choices().count("[cyan]") == sum(map(len, options.values()))

    def test_names_every_command(self, run):
        code, out, _ = run("--help")
        assert code == 0
        commands = "sensors search plan composite info quicklook simulate demo"
        for command in commands.split():
            assert command in out
            code, text, _ = run(command, "--help")
            assert code == 0
            assert "--json" in text

    def test_sensors(self, run):
        code, out, _ = run("sensors", "--json")
        assert code == 0
        found = json.loads(out)
        assert found["sentinel-1-rtc"]["pixels"] == {
            "scale": 0.01,
            "units": "dB",
            "averaged": "power",
        }
        _, out, _ = run("sensors")
        for name, facts in found.items():
            assert f"mask {facts['mask']}" in next(x for x in out.splitlines() if name in x)
            code, text, _ = run("sensors", name)
            assert code == 0
            assert all(f"  {band} " in text for band in facts["bands"])
            assert json.loads(run("sensors", name, "--json")[1]) == facts
        assert "asset nir08 or nir" in run("sensors", "landsat-c2-l2")[1]
        code, _, err = run("sensors", "balloon")
        assert code == 2
        assert "no sensor is called 'balloon'; there are" in one_line(err)

    def test_version(self, run):
        assert run("--version")[:2] == (0, f"lcengine {lcengine.__version__}\n")


class TestSearch:
    def test_says_what_there_is(self, run, world):
        code, out, err = run("search", world.catalog, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["items"] == len(world.item_ids)
        assert found["overpasses"] == 3
        assert found["crs"] == ["EPSG:32631"]
        assert found["bands"] == ["blue", "scl", "swir16"]
        assert found["written"] is None

    def test_for_people(self, run, world):
        _, out, _ = run("search", world.catalog)
        assert re.search(r"^items +6$", out, re.MULTILINE)
        assert re.search(r"^crs +EPSG:32631$", out, re.MULTILINE)

    def test_saved_items_make_the_same_product(self, run, world, product, tmp_path, cluster):
        items, output = tmp_path / "items.json", tmp_path / "out.zarr"
        code, out, _ = run("search", world.catalog, "-o", items, "--json")
        assert code == 0
        assert json.loads(out)["written"] == str(items)
        code, _, err = run(
            "composite", items, *OPTIONS, "-o", output, "--cluster", cluster, "--json"
        )
        assert code == 0, err
        expected = archives.arrays(product[0])
        for name, pixels in archives.arrays(output).items():
            np.testing.assert_array_equal(pixels, expected[name])


class TestPlan:
    def test_json(self, run, world):
        code, out, err = run("plan", world.catalog, *OPTIONS, "--tile", 32, "--json")
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert list(facts) == [
            *("crs", "resolution", "shape", "tile", "block", "tiles", "tasks", "items"),
            *("observations", "items_per_tile", "bands_read", "output_bytes", "memory_per_task"),
            *("decoded_bytes", "stored_bytes", "hosts", "kernel_values"),
        ]
        assert facts["tasks"] == facts["tiles"] == 9
        assert facts["shape"] == [96, 96]
        assert facts["decoded_bytes"] > 0

    def test_for_people(self, run, world):
        _, out, _ = run("plan", world.catalog, *OPTIONS)
        assert re.search(r"^memory per task +\d+(\.\d)? [KM]iB$", out, re.MULTILINE)
        assert re.search(r"^items per tile +min \d+  median .* max \d+$", out, re.MULTILINE)

    def test_writes_nothing(self, run, world, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert run("plan", world.catalog, *OPTIONS)[0] == 0
        assert list(tmp_path.iterdir()) == []


class TestComposite:
    def test_json_and_progress(self, product):
        output, done = product
        facts = json.loads(done.stdout)
        assert facts["product"] == str(output)
        assert facts["bands"] == ["blue", "swir16"]
        assert facts["qa"] == ["count", "outliers", "lost"]
        assert facts["items"] == 6
        assert facts["failed_reads"] == 0
        lines = done.stderr.splitlines()
        first, last = (json.loads(line) for line in lines[:2])
        assert (first["tiles"], first["done"], last["done"]) == (1, 0, 1)
        assert last["pixels"] == 96 * 96
        assert last["bytes_read"] > 96 * 96 * 2
        assert 0 < last["clear_fraction"] < 1
        assert (last["workers"], last["threads"]) == (1, 2)
        assert lines[-1].startswith("next: lcengine quicklook")
        assert len(lines) == 3

    def test_equals_the_tile_task(self, product, world):
        expected, _ = archives.in_process(archives.request(world.catalog).plan())
        stored = archives.arrays(product[0])
        for name, pixels in expected.items():
            np.testing.assert_array_equal(stored[name], pixels)

    def test_again_does_nothing(self, run, world, product):
        output = product[0]
        version, content = output.resolve(), archives.tree(output)
        code, out, err = run("composite", world.catalog, *OPTIONS, "-o", output, "--json")
        assert code == 0
        assert json.loads(out)["files"] == str(version)
        assert "tiles" not in err
        assert output.resolve() == version
        assert archives.tree(output) == content

    def test_another_request_is_refused_with_the_difference(self, run, world, product):
        code, out, err = run(
            "composite", world.catalog, *OPTIONS, "--method", "mean", "-o", product[0]
        )
        assert (code, out) == (7, "")
        assert "method: 'median' -> 'mean'" in one_line(err)
        assert "--restart" in err

    def test_over_http_with_an_allowed_host(self, run, world, product, tmp_path, cluster):
        output = tmp_path / "out.zarr"
        with FileServer(world.path) as server:
            (tmp_path / "items.json").write_text(
                json.dumps(items_collection(world.path, server.url))
            )
            arguments = ["composite", tmp_path / "items.json", *OPTIONS, "-o", output]
            arguments += ["--cluster", cluster]
            code, _, err = run(*arguments)
            assert code == 8
            assert "allow it with --allow-host 127.0.0.1" in err
            code, _, err = run(*arguments, "--allow-host", "127.0.0.1", "--restart")
            assert code == 0, err
        expected = archives.arrays(product[0])
        for name, pixels in archives.arrays(output).items():
            np.testing.assert_array_equal(pixels, expected[name])

    def test_a_token_in_an_address_stays_there(self, run, world, tmp_path, cluster):
        """Neither a product nor a message shows it, whether reads fail or not."""
        sim = archives.copied(world, tmp_path / "sim")
        victim = world.item_ids[0]
        archives.missing(archives.asset_file(sim, victim, "blue"))
        output, heard = tmp_path / "out.zarr", []
        with FileServer(sim.parent) as server:
            document = items_collection(world.path, server.url)
            for feature in document["features"]:
                for asset in feature["assets"].values():
                    asset["href"] += "?sig=secret"
            (tmp_path / "items.json").write_text(json.dumps(document))
            arguments = [tmp_path / "items.json", *OPTIONS, "--allow-host", "127.0.0.1"]
            command = ["composite", *arguments, "-o", output, "--cluster", cluster]
            for more, expected in ((("--max-lost", 0), 8), (("--max-lost", 1, "--restart"), 0)):
                code, out, err = run(*command, *more)
                assert code == expected, err
                heard += [out, err]
            for path in sim.parent.glob("*/*/blue.tif"):
                path.unlink()
            code, out, err = run("plan", *arguments)
            assert code == 0
            assert "blue.tif?sig=*** could not be read" in out
            heard += [out, err]
        assert not [text for text in heard if "secret" in text]
        assert "blue.tif?sig=*** could not be read" in heard[1]
        ledger = pq.read_table(output / "failures.parquet").to_pylist()
        assert {(row["item"], row["band"]) for row in ledger} == {(victim, "blue")}
        assert "secret" not in str(ledger)
        items = pq.read_table(output / "items.parquet").to_pylist()
        assert all(row["href"].endswith(".tif?sig=***") for row in items)
        assert "secret" not in str(items)
        for path in output.parent.rglob("*"):
            if path.is_file() and path.name != "items.json":
                assert b"secret" not in path.read_bytes(), path

    @pytest.mark.slow
    def test_a_cluster_of_its_own(self, world, product, tmp_path):
        """As a user runs it: worker processes, an AOI, no leftovers."""
        output = tmp_path / "out.zarr"
        command = [sys.executable, "-W", "error", "-m", "lcengine", "composite"]
        command += [world.catalog, *OPTIONS, "--tile", "32", "-o", output]
        done = subprocess.run(
            [*map(str, command), "--cluster", "local:workers=2,threads=1"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        unexpected = [
            line for line in done.stderr.splitlines() if not line.startswith(("tiles ", "next: "))
        ]
        assert unexpected == []
        expected = archives.arrays(product[0])
        for name, pixels in archives.arrays(output).items():
            np.testing.assert_array_equal(pixels, expected[name])


class TestPeriods:
    """A product with a time axis, from the command to the picture and the raster."""

    def test_info(self, run, monthly):
        output, facts = monthly
        assert facts["bands"] == ["blue_median", "swir16_median", "blue_p10", "swir16_p10"]
        assert facts["qa"] == ["count", "outliers", "lost", "widened"]
        assert facts["periods"] == ["2023-07", "2023-08", "2023-09"]
        assert facts["shape"] == [96, 96]
        assert facts["recipe"] == {
            "mask": "scl",
            "outliers": "none",
            "method": "median,percentile:10",
            "period": "month",
            "min_clear": 2,
        }
        assert run("info", output, "--json")[:2] == (0, json.dumps(facts) + "\n")
        assert re.search(r"^periods +2023-07, 2023-08, 2023-09$", run("info", output)[1], re.M)

    def test_pixels_are_those_of_the_tile_task(self, world, monthly):
        rule = PeriodRule.parse("month")
        options = {"method": "median,percentile:10", "period": rule, "min_clear": 2, "qa": "full"}
        expected, _ = archives.in_process(archives.request(world.catalog, **options).plan())
        stored = archives.arrays(monthly[0])
        assert stored.keys() == expected.keys()
        for name, pixels in expected.items():
            assert pixels.shape == (3, 96, 96)
            np.testing.assert_array_equal(stored[name], pixels)

    def test_plan(self, run, world):
        options = ("--period", "month", "--datetime", "2023-05/2023-10", "--json")
        code, out, err = run("plan", world.catalog, *OPTIONS, *options)
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert facts["periods"] == [f"2023-{month:02}" for month in range(5, 11)]
        assert facts["output_bytes"] == 6 * 96 * 96 * (2 * 2 + 6)

    def test_quicklook(self, run, monthly, tmp_path):
        output, picture = monthly[0], tmp_path / "q.png"
        code, out, err = run("quicklook", output, "-o", picture, "--bands", "swir16_p10")
        assert (code, out) == (2, "")
        assert one_line(err) == (
            "error: the product has 3 periods; choose one with --time: 2023-07, 2023-08, 2023-09"
        )
        code, _, err = run("quicklook", output, "-o", picture, "--time", "2023-10")
        assert code == 2
        assert "has no period '2023-10'; choose one with --time: 2023-07" in one_line(err)
        options = ("--bands", "swir16_p10", "--time", "2023-08")
        assert run("quicklook", output, "-o", picture, *options)[0] == 0
        with Image.open(picture) as image:
            shown = np.asarray(image)
        nodata = archives.arrays(output)["swir16_p10"][1] == -32768
        np.testing.assert_array_equal(shown[..., 3] == 0, nodata)

    def test_export(self, run, monthly, tmp_path):
        output, raster = monthly[0], tmp_path / "out.tif"
        options = ("--bands", "swir16_p10,blue_median", "--time", "2023-09", "--json")
        code, out, err = run("export", output, raster, *options)
        assert code == 0, err
        assert json.loads(out)["bands"] == ["swir16_p10", "blue_median"]
        stored = archives.arrays(output)
        with rasterio.open(raster) as file:
            np.testing.assert_array_equal(file.read(1), stored["swir16_p10"][2])
            np.testing.assert_array_equal(file.read(2), stored["blue_median"][2])
            assert file.tags(1)["period"] == "2023-09"
        assert run("export", output, raster)[0] == 0
        with rasterio.open(raster) as file:
            assert file.descriptions[0] == "blue_median_2023-07"
            assert file.count == 3 * 4

    def test_a_product_of_one_period_needs_no_choice(self, run, world, cluster, tmp_path):
        output, picture = tmp_path / "out.zarr", tmp_path / "q.png"
        options = ("--period", "year", "--method", "count", "--cluster", cluster)
        code, _, err = run("composite", world.catalog, *OPTIONS, *options, "-o", output)
        assert code == 0, err
        assert archives.arrays(output)["count"].shape == (1, 96, 96)
        code, out, _ = run("quicklook", output, "-o", picture, "--json")
        assert code == 0
        assert json.loads(out)["shape"] == [96, 96]

    def test_another_period_is_another_request(self, run, world, monthly):
        arguments = ("--method", "median,percentile:10", "--min-clear", 2, "--qa", "full")
        arguments += ("--period", "season", "-o", monthly[0])
        code, out, err = run("composite", world.catalog, *OPTIONS, *arguments)
        assert (code, out) == (7, "")
        assert "period: 'month' -> 'season'" in one_line(err)


class TestProduct:
    def test_info(self, run, product):
        code, out, err = run("info", product[0], "--json")
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert facts["crs"] == "EPSG:32631"
        assert facts["resolution"] == 10
        assert facts["shape"] == [96, 96]
        plain = {"mask": "scl", "outliers": "none", "method": "median", "min_clear": 0}
        assert facts["recipe"] == plain
        assert run("info", product[0])[1].startswith("product")

    def test_info_of_something_else(self, run, tmp_path):
        code, _, err = run("info", tmp_path)
        assert code == 2
        assert "not a Zarr v3 product" in one_line(err)
        xr.Dataset({"red": ("x", [1, 2])}).to_zarr(
            tmp_path / "other.zarr", zarr_format=3, consolidated=False
        )
        code, _, err = run("info", tmp_path / "other.zarr")
        assert code == 2
        assert "not made by lcengine" in one_line(err)

    def test_quicklook(self, run, product, tmp_path):
        picture = tmp_path / "q.png"
        code, out, err = run(
            "quicklook", product[0], "-o", picture, "--bands", "swir16", "--size", 48, "--json"
        )
        assert code == 0
        assert json.loads(out) == {"picture": str(picture), "shape": [48, 48]}
        assert str(picture) in err
        with Image.open(picture) as image:
            assert image.size == (48, 48)
            shown = np.asarray(image)
        nodata = archives.arrays(product[0])["swir16"][::2, ::2] == -32768
        np.testing.assert_array_equal(shown[..., 3] == 0, nodata)
        assert shown[..., 0].max() > 200


def test_simulate(run, tmp_path):
    folder = tmp_path / "sim"
    code, out, err = run("simulate", folder, "--size", 64, "--dates", 1, "--json")
    assert code == 0
    found = json.loads(out)
    assert found == {
        "catalog": str(folder / "catalog.json"),
        "truth": str(folder / "truth"),
        "items": 2,
    }
    assert "next: lcengine composite" in err
    assert run("simulate", tmp_path, "--size", 64)[0] == 2
    assert run("simulate", folder, "--size", 65)[0] == 2


def test_simulate_does_not_replace_another_world(run, tmp_path):
    folder = tmp_path / "sim"
    asked = ("simulate", folder, "--size", 64, "--dates", 1)
    assert run(*asked)[0] == 0
    assert run(*asked)[0] == 0
    (folder / "truth" / "mine.txt").touch()
    code, _, said = run(*asked, "--seed", 1)
    assert code == 2
    assert "holds another simulation (seed was 0, now 1)" in said
    assert "--restart" in said
    assert (folder / "truth" / "mine.txt").exists()
    assert run(*asked, "--seed", 1, "--restart")[0] == 0
    assert json.loads((folder / "simulation.json").read_text())["seed"] == 1
