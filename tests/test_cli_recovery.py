"""`lcengine status`, `retry` and `verify` after real damage, and what runs say of themselves."""

from __future__ import annotations

import json
import re
import shutil

import archives
import numpy as np
import pytest

from lcengine import jobs, store
from lcengine.cluster import connect
from lcengine.simulate import SimulationOptions, simulate

TILES = 9
OPTIONS = ("-c", "sentinel-2-l2a", "--bands", "blue,swir16", "--tile", 32, "--max-lost", 0)
OPTIONS += ("--mask", "scl", "--outliers", "none")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    options = SimulationOptions(size=96, dates=3, seed=4, bands=("blue", "swir16"))
    return simulate(tmp_path_factory.mktemp("world") / "sim", options)


@pytest.fixture(scope="module")
def cluster():
    with connect("local:workers=1,threads=2") as client:
        yield ("--cluster", client.scheduler.address, "--retries", 0)


@pytest.fixture
def half(run, world, cluster, tmp_path):
    """A run that ended with failed tiles: (catalogue, output, how to repair the archive)."""
    catalog = archives.copied(world, tmp_path / "sim")
    # A granule that does not reach all tiles.
    victim = archives.asset_file(catalog, world.item_ids[0], "swir16")
    whole = victim.read_bytes()
    archives.truncate(victim)
    output = tmp_path / "out.zarr"
    code, out, err = run("composite", catalog, *OPTIONS, *cluster, "-o", output)
    assert (code, out) == (8, "")
    last = err.splitlines()[-1]
    assert re.match(
        r"error: \d of 9 tiles failed, the first: tile \d: 1 of \d items could not", last
    )
    return catalog, output, lambda: victim.write_bytes(whole)


def facts_of(run, output):
    code, out, err = run("status", output, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def progress_of(err):
    """The JSON lines of a run; what else it says are hints."""
    lines = err.splitlines()
    assert lines.pop().startswith("next: lcengine ")
    return [json.loads(line) for line in lines]


def one_line(err):
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    return err


def expected(catalog):
    plan = archives.request(catalog, tile=32, max_lost=0.0).plan()
    return archives.in_process(plan)[0]


def same(output, pixels):
    found = archives.arrays(output)
    assert found.keys() == pixels.keys()
    for name in pixels:
        np.testing.assert_array_equal(found[name], pixels[name])


class TestFailedTiles:
    def test_are_listed_with_reasons(self, run, half, world):
        _, output, _ = half
        facts = facts_of(run, output)
        assert (facts["state"], facts["published"], facts["tiles"]) == ("unfinished", None, TILES)
        assert 0 < facts["failed"] < TILES
        assert facts["done"] == TILES - facts["failed"]
        assert facts["remaining"] == 0
        assert len(facts["failed_tiles"]) == facts["failed"]
        for row in facts["failed_tiles"]:
            assert f"{world.item_ids[0]} swir16: " in row["error"]
            assert (row["attempts"], row["quarantined"]) == (1, False)
        code, out, err = run("status", output)
        assert code == 0
        assert re.search(rf"^failed +{facts['failed']}$", out, re.MULTILINE)
        listed = re.findall(r"^  tile (\d) \(1 attempt\): 1 of \d items", out, re.MULTILINE)
        assert list(map(int, listed)) == [row["tile"] for row in facts["failed_tiles"]]
        assert err == f"next: lcengine retry {output}\n"

    def test_are_made_good_by_retry(self, run, half, cluster):
        catalog, output, repair = half
        before = facts_of(run, output)
        code, out, err = run("retry", output, *cluster)
        assert (code, out) == (8, "")
        assert f"error: {before['failed']} of {before['failed']} tiles failed" in err
        assert facts_of(run, output) == before
        repair()
        code, out, err = run("retry", output, *cluster, "--json")
        assert code == 0, err
        assert out == run("info", output, "--json")[1]
        first, *_, last = progress_of(err)
        assert (first["done"], first["resumed"]) == (before["done"], before["done"])
        assert (last["done"], last["resumed"], last["failed"]) == (TILES, before["done"], 0)
        assert last["pixels"] == before["failed"] * 32 * 32
        assert last["eta"] == 0
        assert 0 < last["clear_fraction"] <= 1
        same(output, expected(catalog))
        facts = facts_of(run, output)
        assert (facts["state"], facts["tiles"], facts["done"]) == ("published", TILES, TILES)
        assert (facts["failed"], facts["failed_reads"], facts["failed_tiles"]) == (0, 0, [])
        code, out, err = run("retry", output, *cluster)
        assert (code, out) == (7, "")
        assert "has no unfinished work; it is complete" in one_line(err)

    def test_are_made_good_by_the_same_command(self, run, half, cluster):
        catalog, output, repair = half
        repair()
        assert run("composite", catalog, *OPTIONS, *cluster, "-o", output)[0] == 0
        same(output, expected(catalog))

    def test_limits_hold_for_what_is_left(self, run, half, cluster):
        """What is done costs nothing more, and a run that goes on is not exempt."""
        catalog, output, repair = half
        before = facts_of(run, output)
        command = ("composite", catalog, *OPTIONS, *cluster, "-o", output, "--max-bytes")
        code, out, err = run(*command, 1)
        assert (code, out) == (2, "")
        assert "more than --max-bytes 1 B" in one_line(err)
        assert facts_of(run, output) == before
        repair()
        whole = json.loads(run("plan", catalog, *OPTIONS, "--json")[1])["stored_bytes"]
        code, _, err = run(*command, whole - 1)
        assert code == 0, err

    def test_while_another_driver_works(self, run, half, cluster):
        _, output, _ = half
        before = facts_of(run, output)
        with store.target(output).exclusive():
            assert facts_of(run, output) == before
            code, out, err = run("retry", output, *cluster)
        assert (code, out) == (7, "")
        assert "another run is writing" in one_line(err)

    @pytest.mark.parametrize("command", ["verify", "info"])
    def test_an_unfinished_product_is_not_looked_at(self, run, half, command):
        code, out, err = run(command, half[1])
        assert (code, out) == (2, "")
        assert f"is not finished; `lcengine status {half[1]}` says" in one_line(err)


@pytest.mark.parametrize(("command", "code"), [("status", 7), ("retry", 7), ("verify", 2)])
@pytest.mark.parametrize("place", ["out.zarr", "no/such/out.zarr"])
def test_where_nothing_is(run, tmp_path, command, code, place):
    """Said in a line; and a slip of the path leaves nothing behind."""
    found, out, err = run(command, tmp_path / place)
    assert (found, out) == (code, "")
    assert str(tmp_path) in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole(world, cluster, tmp_path_factory):
    """A product of nine tiles."""

    output = tmp_path_factory.mktemp("whole") / "out.zarr"
    plan = archives.request(world.catalog, tile=32).plan()
    with connect(cluster[1]) as client:
        jobs.run(plan, output, client=client)
    return output


class TestVerify:
    def test_a_whole_product(self, run, whole):
        code, out, err = run("verify", whole, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out) == {"product": str(whole.resolve()), "tiles": TILES, "faults": []}
        assert re.search(r"^damaged +0$", run("verify", whole)[1], re.MULTILINE)

    def test_a_copy_is_a_product_too(self, run, whole, tmp_path):
        copy = tmp_path / "copy.zarr"
        shutil.copytree(whole.resolve(), copy)
        assert run("verify", copy)[0] == 0
        facts = facts_of(run, copy)
        assert (facts["state"], facts["done"]) == ("published", TILES)
        assert {**facts, "output": str(whole)} == facts_of(run, whole)

    @pytest.mark.parametrize("offset", [0, 200, -1])
    def test_a_flipped_bit_is_found(self, run, whole, tmp_path, offset):
        copy = tmp_path / "copy.zarr"
        shutil.copytree(whole.resolve(), copy)
        shard = copy / "blue" / "c" / "1" / "2"
        content = bytearray(shard.read_bytes())
        content[offset] ^= 0x10
        shard.write_bytes(content)
        code, out, err = run("verify", copy, "--json")
        assert code == 7
        assert "1 of 9 tiles" in one_line(err)
        assert "--restart" in err
        (fault,) = json.loads(out)["faults"]
        assert (fault["tile"], fault["variable"]) == (5, "blue")
        code, out, _ = run("verify", copy)
        assert code == 7
        assert re.search(r"^damaged +1$", out, re.MULTILINE)
        assert re.search(r"^  tile 5, blue: ", out, re.MULTILINE)

    def test_something_else_is_none(self, run, tmp_path):
        code, out, err = run("verify", tmp_path)
        assert (code, out) == (2, "")
        assert "is not a Zarr v3 product" in one_line(err)


class TestProgress:
    def test_periods_that_borrow_are_not_clearer_than_clear(self, run, world, cluster, tmp_path):
        """Observations that several periods use are also counted for each of them."""
        options = ("--period", "month", "--min-clear", 3, "-o", tmp_path / "out.zarr", "--json")
        code, out, err = run("composite", world.catalog, *OPTIONS, *cluster, *options)
        assert code == 0, err
        assert len(json.loads(out)["periods"]) == 3
        last = progress_of(err)[-1]
        assert last["done"] == TILES
        assert 0 < last["clear_fraction"] <= 1
        assert last["cost"] is None

    def test_a_price_makes_a_cost(self, run, world, cluster, tmp_path):
        options = ("--price-core-hour", 3600, "-o", tmp_path / "out.zarr", "--json")
        code, _, err = run("composite", world.catalog, *OPTIONS, *cluster, *options)
        assert code == 0, err
        first, *_, last = progress_of(err)
        assert first["cost"] == 0
        # two threads, a coin per second of each
        assert 0 < last["cost"] <= 2 * last["seconds"]
