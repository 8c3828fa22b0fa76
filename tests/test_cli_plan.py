"""`lcengine plan`: hours, prices and limits, and the limits of `lcengine composite`."""

from __future__ import annotations

import json
import re
import signal
import sys
import warnings

import pytest
from fault_server import FaultServer, status

from lcengine import cli, reader
from lcengine.cli.pricing import parse_bytes
from lcengine.composite import calibration, pricing
from lcengine.errors import InputError
from lcengine.simulate import SimulationOptions, items_collection, simulate

OPTIONS = ("-c", "sentinel-2-l2a", "--bands", "blue,swir16", "--mask", "scl", "--outliers", "none")
RATES = {"decode": 3600.0, "kernel": 0.0, "write": 0.0, "driver": 0.0, "latency": 0.0}
"""An hour of a core for a decoded GB, and nothing else."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=4, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


@pytest.fixture
def run(world, monkeypatch, capsys):
    """`lcengine COMMAND CATALOG OPTIONS …`: (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def command(name, *arguments, source=world.catalog):
        line = ["lcengine", name, source, *OPTIONS, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    yield command
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rates(tmp_path):
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(RATES))
    return path


class TestHours:
    def test_of_a_cluster_at_known_rates(self, run, rates):
        code, out, err = run("plan", "--rates", rates, "--tile", 32, "--json",
                             "--workers", 2, "--threads", 2)  # fmt: skip
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert facts["machines"] == {"workers": 2, "threads": 2}
        assert facts["rates"] == {**RATES, "measured": "", "cores": 0}
        # nine tiles on four cores: three rounds
        hours = facts["decoded_bytes"] / 1e9 / 9 * 3
        assert facts["hours"] == pytest.approx(hours)
        assert facts["core_hours"] == pytest.approx(4 * hours)
        assert facts["bottleneck"] == "cpu"
        assert facts["seconds"] == {
            "cpu": pytest.approx(hours * 3600),
            "network": 0.0,
            "driver": 0.0,
        }
        assert "cost" not in facts

    def test_are_not_asked_for(self, run, monkeypatch):
        monkeypatch.setattr(calibration, "calibrate", None)  # nobody may call it
        code, out, err = run("plan", "--json")
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert not {"hours", "cost", "rates"} & facts.keys()
        assert facts["stored_bytes"] > 0

    def test_of_this_machine_are_kept_for_the_next_plan(self, run, tmp_path):
        kept = tmp_path / "mine.json"
        code, out, _ = run("plan", "--rates", kept, "--json", "--workers", 3)
        assert code == 0
        facts = json.loads(out)
        assert json.loads(kept.read_text()) == facts["rates"]
        assert facts["rates"]["decode"] > 0
        assert facts["machines"]["workers"] == 3
        again = json.loads(run("plan", "--rates", kept, "--json", "--workers", 3)[1])
        assert again == facts

    def test_for_people(self, run, rates):
        _, out, _ = run("plan", "--rates", rates, "--price-core-hour", 0.05, "--bandwidth", "1MB")
        lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
        assert lines["bottleneck"] == "cpu"
        assert float(lines["hours"]) > 0
        assert float(lines["cost"]) > 0
        assert re.fullmatch(
            r"local files decoded bytes [\d.]+ MiB  stored bytes [\d.]+ KiB  requests \d+",
            lines["hosts"],
        )
        assert "bandwidth 1e+06" in lines["machines"]


class TestHeaders:
    """They make the numbers better; a plan does without."""

    def test_of_a_server_in_trouble_are_soon_given_up(self, run, world, tmp_path):
        with FaultServer(world.path) as server:
            server.fault("tif", status(503))
            source = tmp_path / "items.json"
            source.write_text(json.dumps(items_collection(world.path, server.url)))
            code, out, err = run("plan", "--json", "--allow-host", "127.0.0.1", source=source)
            asked = len(server.seen("tif"))
        assert (code, err) == (0, "")
        assert json.loads(out)["assumed"].startswith("typical files (")
        assert asked == pricing.PATIENCE * reader.HEADER_ATTEMPTS
        assert reader.HEADER_PATIENCE < reader.PATIENCE / 10

    def test_of_no_file_are_needed_where_nothing_reaches_the_area(self, run):
        """A box around an item in degrees is larger than its raster."""
        corner = "5.83565,50.8770,5.83568,50.8771"
        code, out, err = run("plan", "--bbox", corner, "--workers", 2)
        assert (code, out) == (3, "")
        assert "items found in " in err
        assert "has pixels in the area" in err


class TestPrices:
    def test_of_core_hours(self, run, rates):
        facts = json.loads(run("plan", "--rates", rates, "--price-core-hour", 2.5, "--json")[1])
        assert facts["cost"] == pytest.approx(2.5 * facts["core_hours"])

    def test_of_gigabytes_of_other_hosts(self, run, rates, world, tmp_path):
        """The files do not exist: what is assumed of them is said with the cost."""
        document = items_collection(world.path, "https://imagery.example/sim")
        source = tmp_path / "items.json"
        source.write_text(json.dumps(document))
        code, out, err = run("plan", "--rates", rates, "--price-gb", 3, "--json", source=source)
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert facts["hosts"].keys() == {"imagery.example"}
        gb = facts["stored_bytes"] / 1e9
        assert facts["cost"] == pytest.approx(3 * gb)
        assert facts["assumed"].startswith("typical files (blue, swir16: blocks of 1024 x 1024 x 2")
        assert "imagery.example" in facts["assumed"]
        local = json.loads(run("plan", "--rates", rates, "--price-gb", 3, "--json")[1])
        assert local["cost"] == 0


class TestLimits:
    """Both commands refuse before anything is read or staged."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--max-bytes", "1kB"), r"read up to [\d.]+ kB, more than --max-bytes 1 kB; take a"),
            (
                ("--max-cost", 1e-9, "--price-core-hour", 1),
                r"cost up to [\d.e-]+, more than --max-cost 1e-09; take a smaller area",
            ),
            (
                ("--max-cost", 1),
                "--max-cost 1 needs a price; state --price-core-hour or --pri",
            ),
            (("--max-bytes", "1e400"), "--max-bytes is '1e400', expected bytes such as 500GB"),
            (("--max-bytes", "much"), "--max-bytes is 'much', expected bytes such as 500GB"),
            (("--max-cost", "-1"), "--max-cost is -1.0, expected a number >= 0"),
            (("--price-gb", "nan"), "price per GB is nan, expected a number >= 0"),
        ],
    )
    def test_are_kept(self, run, rates, tmp_path, options, message):
        folder = tmp_path / "products"
        folder.mkdir()
        for name, more in (("plan", ()), ("composite", ("-o", folder / "out.zarr"))):
            code, out, err = run(name, "--rates", rates, *options, *more)
            assert (code, out) == (2, "")
            assert re.search(message, err), err
            assert err.count("\n") == 1
        left = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        assert left == []

    @pytest.mark.slow
    def test_within_them_all_goes_on(self, run, rates, tmp_path):
        generous = ("--max-bytes", "1GiB", "--max-cost", 10, "--price-core-hour", 1)
        assert run("plan", "--rates", rates, *generous)[0] == 0
        output = tmp_path / "out.zarr"
        assert run("composite", "--rates", rates, *generous, "-o", output)[0] == 0
        assert output.exists()

    def test_of_bytes_alone_needs_no_calibration(self, run, monkeypatch):
        monkeypatch.setattr(calibration, "calibrate", None)
        assert run("plan", "--max-bytes", "1TB")[0] == 0
        assert run("plan", "--max-bytes", 1)[0] == 2


@pytest.mark.parametrize(
    "options",
    [("--workers", 0), ("--threads", 0), ("--bandwidth", "0MB"), ("--bandwidth", "fast")],
)
def test_a_cluster_that_cannot_be_is_refused(run, rates, options):
    code, out, err = run("plan", "--rates", rates, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("1.5kB", 1500),
        ("2 MiB", 2 * 2**20),
        ("1e12", 1e12),
        ("3TB", 3e12),
        ("1PiB", 2**50),
    ],
)
def test_bytes_with_units(text, count):
    assert parse_bytes(text, "--x") == count


@pytest.mark.parametrize("text", ["", "GB", "1XB", "1..2GB", "-1", "1gb"])
def test_other_bytes_are_refused(text):
    with pytest.raises(InputError, match="--x is"):
        parse_bytes(text, "--x")
