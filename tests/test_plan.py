"""Plans: what they say before a pixel is read is what a run then needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import archives
import kenya
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

import lcengine
from lcengine import masks, reader
from lcengine.addresses import LOCAL
from lcengine.catalog import Query, search
from lcengine.composite import (
    CompositePlan,
    CompositeRequest,
    CompositeSpec,
    plan_composite,
    planning,
    pricing,
)
from lcengine.composite.planning import read_threads
from lcengine.composite.tile import compute_tile
from lcengine.errors import InputError, MissingBandError, ReadError
from lcengine.grid import Grid
from lcengine.items import Access, Asset, Items
from lcengine.locate import SourceGrid, Window, window_bounds
from lcengine.periods import PeriodRule
from lcengine.plan import MEMORY_TARGET
from lcengine.price import Limits, Machines, Prices, Rates
from lcengine.sensors import FileLayout
from lcengine.simulate import FileServer, SimulationOptions, items_collection, simulate
from lcengine.traffic import traffic

BANDS = ("blue", "swir16")


def grid_of(size, tile, *, shift=0, crs="EPSG:32631", resolution=10.0):
    """The square of `archives.series`, or the part of it `shift` pixels inside."""
    x, y, metres = archives.LEFT, archives.TOP, size * 10
    bounds = (x + shift * 10, y - metres, x + metres, y - shift * 10)
    if crs != "EPSG:32631":
        bounds = Transformer.from_crs(32631, crs, always_xy=True).transform_bounds(*bounds)
    return Grid.from_bounds(*bounds, crs, resolution, tile)


def virtual(count, bands=("blue",), size=1024, bbox=(4.4, 50.4, 4.6, 50.6)):
    """Items whose files nobody opens."""
    transform = (10.0, 0.0, archives.LEFT, 0.0, -10.0, archives.TOP)
    asset = Asset("/none.tif", "EPSG:32631", transform, (size, size), 0.0, 1e-4, 0.0, "test")
    assets = dict.fromkeys((*bands, "scl"), asset)
    return Items(tuple(archives.item(n, assets, bbox=bbox) for n in range(count)))


def decoded(plan, block, itemsize):
    """Decoded bytes if all files are stored so."""
    return sum(traffic(plan.reads, lambda *_: FileLayout(block, itemsize)).decoded.values())


class TestNumbers:
    def test_every_one(self):
        plan = plan_composite(virtual(5, BANDS), grid_of(1024, 512), archives.spec(*BANDS))
        facts = plan.explain()
        assert json.loads(json.dumps(facts)) == facts
        expected = {
            "crs": "EPSG:32631",
            "resolution": 10.0,
            "shape": [1024, 1024],
            "tile": 512,
            "tiles": 4,
            "tasks": 4,
            "items": 5,
            "observations": 5,
            "items_per_tile": {"min": 5, "median": 5, "max": 5},
            "bands_read": list(BANDS),
            "output_bytes": 1024 * 1024 * (2 * 2 + 6),
        }
        assert {name: facts[name] for name in expected} == expected
        assert set(facts) == {*expected, "block", "memory_per_task"}

    def test_of_periods(self):
        """Five items, five days apart from 1 April on; the output has a slice for every dekad."""
        spec = archives.spec(*BANDS, period=PeriodRule.parse("dekad"), qa="full", min_clear=2)
        plan = plan_composite(virtual(5, BANDS), grid_of(1024, 512), spec)
        facts = plan.explain()
        assert json.loads(json.dumps(facts)) == facts
        assert facts["periods"] == ["2023-04-d1", "2023-04-d2", "2023-04-d3"]
        assert facts["output_bytes"] == 3 * 1024 * 1024 * (2 * 2 + 6 + 1)
        plain = plan_composite(virtual(5, BANDS), grid_of(1024, 512), archives.spec(*BANDS))
        less = plain.explain()
        more = facts["memory_per_task"] - less["memory_per_task"]
        assert more == 512 * 512 * (3 * 11 - 10)
        assert set(facts) == {*less, "periods"}
        again = CompositePlan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again.run_id == plan.run_id
        assert again.periods == plan.periods

    def test_of_the_distance_to_clouds(self):
        """Masks are read three kilometres around a tile, and their distances are kept."""
        items = virtual(5, ("blue", "red"))
        grid, recipe = grid_of(1024, 256), {"mask": "scl", "outliers": "none"}
        near, far = (
            plan_composite(items, grid, CompositeSpec(("blue", "red"), method=method, **recipe))
            for method in ("medoid", "bap")
        )
        assert far.reads.beyond == 3000
        assert far.reads.bands == near.reads.bands
        pixel = [decoded(plan, (1, 1), 1) for plan in (near, far)]
        # of the masks of 16 tiles, 300 pixels around each as far as the raster goes
        edges = [min(1024, 256 * n + 556) - max(0, 256 * n - 300) for n in range(4)]
        assert pixel[1] - pixel[0] == 5 * (sum(edges) ** 2 - 1024**2)
        needs = [plan.explain()["memory_per_task"] for plan in (near, far)]
        assert needs[1] - needs[0] > 5 * (856**2 * 3 - 256**2)

    def test_bands_of_the_screen_are_read_but_not_written(self):
        items = virtual(2, ("blue", "green", "red", "nir"))
        plan = plan_composite(items, grid_of(1024, 512), archives.spec("nir", outliers="mad:3"))
        assert plan.reads.bands == ("nir", "blue", "green", "red")
        assert plan.explain()["output_bytes"] == 1024 * 1024 * 8

    def test_decoded_bytes_on_the_source_grid_are_the_pixels(self):
        plan = plan_composite(virtual(3), grid_of(1024, 512), archives.spec("blue", mask="none"))
        whole = 3 * 1024 * 1024 * 2
        assert decoded(plan, (256, 256), 2) == whole
        assert decoded(plan, (512, 512), 2) == whole
        assert decoded(plan, (1024, 1024), 2) == 4 * whole  # by each tile
        assert decoded(plan, (1, 1024), 2) == 2 * whole

    def test_blocks_shrink_so_that_the_observations_fit(self):
        grid = grid_of(4096, 4096)
        spec = archives.spec("blue", mask="none")
        plans = [plan_composite(virtual(n, size=4096), grid, spec) for n in (1, 10, 100, 1000)]
        needs = [plan.explain()["memory_per_task"] for plan in plans]
        output, cache = 8 * 4096 * 4096, 64 * 2**20
        assert max(needs) <= MEMORY_TARGET + output + cache
        assert [plan.reads.block for plan in plans] == [4096, 4096, 1024, 256]

    def test_a_task_of_little_memory_takes_smaller_blocks(self):
        spec = archives.spec("blue", mask="none")
        plan = plan_composite(virtual(100, size=4096), grid_of(4096, 4096), spec)
        assert plan.reads.block == 1024

        def need(found):
            return found.reads.memory(found.output_bytes, read_threads())

        whole = need(plan)
        assert plan.fitting(None).reads.block == plan.fitting(whole).reads.block == 1024
        assert plan.fitting(whole - 1).reads.block == 512
        assert need(plan.fitting(whole - 1)) < whole
        assert plan.fitting(None, 1).reads.block == 512
        assert plan.fitting(whole - 1, 2).reads.block == 256
        assert plan.fitting(1).reads.block == 128  # too much all the same: it is tried
        assert plan.fitting(None, 20).reads.block == 128

    def test_blocks_grow_where_there_are_fewer_items(self):
        """In the memory that the busiest tile takes: a quarter of its items, twice the edge."""
        many, few, fewer = virtual(8), virtual(2), virtual(1)
        corner = {"transform": (10.0, 0.0, archives.LEFT, 0.0, -10.0, archives.TOP)}
        places = {0: many, 1: few, 2: fewer}
        items = []
        for column, own in places.items():
            left = archives.LEFT + column * 5120
            corner["transform"] = (10.0, 0.0, left, 0.0, -10.0, archives.TOP)
            for number, item in enumerate(own):
                asset = replace(item.asset("blue"), shape=(512, 512), **corner)
                named = {"id": f"{column}-{number}", "tile": str(column)}
                items.append(replace(item, assets={"blue": asset, "scl": asset}, **named))
        bounds = (archives.LEFT, archives.TOP - 5120, archives.LEFT + 3 * 5120, archives.TOP)
        grid = Grid.from_bounds(*bounds, "EPSG:32631", 10.0, 512)
        spec = archives.spec("blue", mask="none")
        reads = plan_composite(Items(tuple(items)), grid, spec, block=64).reads
        edges = [max(w.height for w in reads.blocks(tile)) for tile in grid.tiles()]
        assert [len(reads.items_of(n)) for n in range(3)] == [8, 2, 1]
        assert edges == [64, 128, 128]
        assert [reads.edge(n) for n in (8, 3, 2, 1, 0)] == [64, 64, 128, 128, 64]

    def test_a_coarse_product_of_fine_masks_needs_what_is_read(self):
        """Masks are read whole: 100 m pixels of a 10 m classification are a hundred bytes each."""
        grid = Grid.from_bounds(
            archives.LEFT, archives.TOP - 40_960, archives.LEFT + 40_960, archives.TOP,
            "EPSG:32631", 100.0, 416,
        )  # fmt: skip
        items = virtual(8, size=4096)
        with_mask = plan_composite(items, grid, archives.spec("blue"))
        assert with_mask.explain()["memory_per_task"] > 8 * 100 * 409 * 409


def slow_traffic(plan, layout, values=0, ranges=0):
    """(decoded bytes, values, requests), one window of one read at a time."""
    decoded, reads = 0, plan.reads
    for position, number in enumerate(reads.tiles):
        tile = plan.grid.tile_at(int(number))
        whole = [Window(tile.y0, tile.x0, tile.height, tile.width)]
        for i in reads.items_of(position):
            for band, is_mask in [(b, False) for b in reads.bands] + [("scl", True)]:
                source = SourceGrid.of(plan.items[int(i)].asset(band))
                margin = masks.margin(reads.recipe, source) if is_mask else 0
                opened = False
                for window in whole if is_mask else reads.blocks(tile):
                    area = window_bounds(reads.lattice, window, source, margin)
                    if area is None:
                        continue
                    (height, width), size = layout.block, layout.itemsize
                    rows = (area.y0 + area.height - 1) // height - area.y0 // height + 1
                    cols = (area.x0 + area.width - 1) // width - area.x0 // width + 1
                    decoded += rows * cols * height * width * size
                    values += 0 if is_mask else window.height * window.width
                    ranges, opened = ranges + rows, True
                ranges += opened
    return decoded, values, ranges


class TestTraffic:
    """Counting all windows at once finds what counting one after the other finds."""

    @pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:32632", "EPSG:4326"])
    @pytest.mark.parametrize("block", [(96, 160), (512, 512), (1, 1024)])
    def test_is_what_each_window_meets(self, crs, block):
        items = virtual(3, BANDS)
        coarse = replace(
            items[0].asset("scl"), shape=(512, 512),
            transform=(20.0, 0.0, archives.LEFT, 0.0, -20.0, archives.TOP),
        )  # fmt: skip
        odd = replace(items[2], assets={"blue": items[2].assets["blue"], "swir16": coarse,
                                        "scl": coarse})  # fmt: skip
        items = replace(items, items=(*items.items[:2], odd))
        resolution = 1e-4 if crs == "EPSG:4326" else 10.0
        grid = grid_of(1024, 208, shift=7, crs=crs, resolution=resolution)
        plan = plan_composite(items, grid, archives.spec(*BANDS, mask="worldcover"), block=80)
        layout = FileLayout(block, 2, 0.5)
        found = traffic(plan.reads, lambda *_: layout)
        got = (found.decoded[LOCAL], found.values, found.requests[LOCAL])
        exact = slow_traffic(plan, layout)
        if crs == "EPSG:32631":
            assert got == exact
        else:  # points along the borders stand for all of them
            np.testing.assert_allclose(got, exact, rtol=2e-3)
        assert found.stored[LOCAL] == got[0] // 2

    def test_is_told_by_host(self):
        items = virtual(2)
        addresses = ("https://a.example/blue.tif?sig=x", "s3://bucket/blue.tif")
        moved = tuple(
            replace(item, assets={**item.assets, "blue": replace(item.asset("blue"), href=href)})
            for item, href in zip(items, addresses, strict=True)
        )
        spec = archives.spec("blue", mask="none")
        plan = plan_composite(replace(items, items=moved), grid_of(1024, 512), spec)
        found = traffic(plan.reads, lambda *_: FileLayout((512, 512), 2, 0.25))
        assert found.decoded == {"a.example": 2 * 1024**2, "s3://bucket": 2 * 1024**2}
        assert found.stored == {"a.example": 1024**2 // 2, "s3://bucket": 1024**2 // 2}
        assert found.requests == {"a.example": 8, "s3://bucket": 8}
        assert found.values == 2 * 1024**2


class TestHeaders:
    def plan(self, folder, **profile):
        pixels = np.zeros((512, 512), np.uint16)
        pixels[:256] = np.random.default_rng(0).integers(0, 60_000, (256, 512))
        blue = archives.raster(folder / "blue.tif", pixels, **profile)
        items = Items((archives.item(0, {"blue": blue}),), Access(local=True))
        return plan_composite(items, grid_of(512, 512), archives.spec("blue", mask="none"))

    @pytest.mark.parametrize("compress", ["none", "deflate"])
    def test_what_is_stored_is_read_from_them(self, tmp_path, compress):
        plan = self.plan(tmp_path, compress=compress, blockxsize=128, blockysize=128)
        facts = pricing.explain(plan)
        assert facts["decoded_bytes"] == 2 * 512 * 512
        assert "assumed" not in facts
        file = (tmp_path / "blue.tif").stat().st_size
        # nine of the sixteen blocks were looked at: two rows of three are noise
        share = facts["stored_bytes"] / facts["decoded_bytes"]
        assert share == 1.0 if compress == "none" else 0.3 < share < 0.7
        assert facts["stored_bytes"] == pytest.approx(file, rel=0.4)
        assert facts["hosts"] == {
            LOCAL: {
                "decoded_bytes": facts["decoded_bytes"],
                "stored_bytes": facts["stored_bytes"],
                "requests": 5,
            }
        }

    def test_unreadable_ones_are_assumed_and_said(self, tmp_path):
        plan = self.plan(tmp_path)
        archives.html(tmp_path / "blue.tif")
        facts = pricing.explain(plan)
        typical = plan.sensor.layout("blue")
        assert facts["decoded_bytes"] == typical.block[0] * typical.block[1] * typical.itemsize
        assert facts["stored_bytes"] == round(facts["decoded_bytes"] * typical.stored)
        assert "blue: blocks of 1024 x 1024 x 2 bytes, 75% stored" in facts["assumed"]
        assert "blue.tif could not be read" in facts["assumed"]

    def test_a_host_that_fails_twice_is_left_alone(self, tmp_path, monkeypatch):
        opened = []

        def refuse(asset, _):
            opened.append(asset.href)
            raise ReadError(f"{asset.href} could not be opened: gone")

        monkeypatch.setattr(reader, "header", refuse)
        bands = ("blue", "green", "red", "nir")
        facts = pricing.explain(plan_composite(virtual(1, bands), grid_of(1024, 512),
                                               archives.spec(*bands)))  # fmt: skip
        assert len(opened) == 2
        assert facts["assumed"].startswith("typical files (blue, green, red, nir: ")


@pytest.mark.slow
def test_a_country(tmp_path):
    """Two months over two zones; none of the files exists."""
    document = tmp_path / "items.json"
    count = kenya.write_items(document, days=60)
    assert kenya.area_km2() == pytest.approx(kenya.AREA_KM2, rel=0.02)
    query = Query(str(document), ("sentinel-2-l2a",), None, str(kenya.YEAR))
    aoi = lcengine.Aoi.from_file(kenya.write_aoi(tmp_path / "kenya.geojson"))
    spec = CompositeSpec(("blue", "green", "red", "nir"))
    with pytest.raises(InputError, match="--crs"):
        CompositeRequest(query, spec, aoi).plan()
    plan = CompositeRequest(query, spec, aoi, crs="EPSG:32637", resolution=10.0).plan()
    machines = Machines(100, 8, bandwidth=100e6)
    priced = pricing.Pricing(lambda _: Rates(4.0, 8.0, 9.0), machines, Prices(0.05, 0.02), Limits())
    facts = pricing.explain(plan, priced)
    assert len(plan.items) == pytest.approx(count, rel=0.02)
    covered = facts["shape"][0] * facts["shape"][1] / 1e4  # km²
    assert covered > kenya.AREA_KM2
    assert facts["tiles"] == -(-facts["shape"][0] // 2048) * -(-facts["shape"][1] // 2048)
    assert facts["items_per_tile"]["min"] == 0  # beyond the border
    assert facts["hosts"].keys() == {"imagery.example"}
    # at least every pixel of the country, in every band, as often as it is seen
    assert facts["decoded_bytes"] > kenya.AREA_KM2 * 1e4 * 4 * 2 * 12
    assert 0 < facts["stored_bytes"] < facts["decoded_bytes"]
    assert facts["hours"] > 0
    assert facts["cost"] > 0.02 * facts["stored_bytes"] / 1e9
    text = json.dumps(plan.to_json())
    assert len(text) < 4000 * len(plan.items)
    again = CompositePlan.from_json(json.loads(text))
    assert again.run_id == plan.run_id
    for name in ("tiles", "starts", "index"):
        np.testing.assert_array_equal(getattr(again.reads, name), getattr(plan.reads, name))


class TestAssignment:
    def test_is_by_raster_extent_never_by_footprint(self):
        """A footprint may be wrong by tiles; the raster's grid is what is read."""
        items = virtual(1, size=512, bbox=(-10.0, 0.0, -9.0, 1.0))
        plan = plan_composite(items, grid_of(1024, 256), archives.spec("blue"))
        reached = [len(plan.reads.items_of(i)) for i in range(16)]
        assert reached == [1, 1, 0, 0, 1, 1, 0, 0, *[0] * 8]
        assert plan.explain()["items_per_tile"]["min"] == 0

    def far(self):
        """An item a quarter of the globe to the east, where zone 31 has no coordinates."""
        near = virtual(1, BANDS)[0]
        transform = (10.0, 0.0, archives.LEFT, 0.0, -10.0, 100_000.0)
        assets = {
            band: replace(asset, crs="EPSG:32646", transform=transform)
            for band, asset in near.assets.items()
        }
        box = (93.8, 0.8, 94.0, 1.0)
        return replace(near, id="far", tile="46NEG", bbox=box, assets=assets)

    def test_an_item_beyond_the_crs_is_in_no_tile(self):
        near = virtual(2)
        both = replace(near, items=(*near, self.far()))
        plan = plan_composite(both, grid_of(1024, 512), archives.spec("blue"))
        names = {plan.items[int(i)].id for i in plan.reads.index}
        assert names == {item.id for item in near}
        assert [len(plan.reads.items_of(i)) for i in range(4)] == [2, 2, 2, 2]
        assert len(plan.reads.reaching().items) == 2
        assert plan.explain()["items_per_tile"]["max"] == 2

    def test_a_cube_of_such_items_alone_is_refused(self):
        with pytest.raises(InputError, match=r"none of the 1 items reaches the grid .*EPSG:32631"):
            lcengine.load(Items((self.far(),)), grid_of(1024, 512), ["blue"])

    def test_a_union_of_items_must_fit_into_the_crs(self, tmp_path):
        near = virtual(1, BANDS)
        items = replace(near, items=(*near, self.far()), access=Access(local=True))
        items.save(tmp_path / "items.json")
        query = Query(str(tmp_path / "items.json"))
        request = CompositeRequest(query, archives.spec("blue"), crs="EPSG:32631")
        with pytest.raises(InputError, match=r"far .*EPSG:32646.*EPSG:32631.*--bbox"):
            request.plan()

    def test_more_observations_than_the_kernels_take_are_refused(self, monkeypatch):
        """Before anything is read, and only where one tile has them all."""
        monkeypatch.setattr(planning, "MAX_OBSERVATIONS", 3)
        grid, spec = grid_of(1024, 512), archives.spec("blue")
        assert len(plan_composite(virtual(3), grid, spec).items) == 3
        with pytest.raises(InputError, match=r"tile 0 has 4 observations, at most 3 fit; .*--date"):
            plan_composite(virtual(4), grid, spec)
        four = virtual(4)
        twin = replace(four[3], datetime=four[2].datetime)
        plan_composite(replace(four, items=(*four.items[:3], twin)), grid, spec)
        away = replace(four[3].asset("blue"), transform=(10.0, 0.0, 0.0, 0.0, -10.0, 5_600_000.0))
        elsewhere = replace(four[3], assets=dict.fromkeys(("blue", "scl"), away))
        plan_composite(replace(four, items=(*four.items[:3], elsewhere)), grid, spec)

    @pytest.mark.parametrize(
        ("period", "more", "fits"),
        [
            ("P10D", {}, True),  # two a period
            ("P10D", {"min_clear": 1}, False),  # and those of two neighbours on each side
            ("P10D", {"outliers": "tmask", "bands": ("blue", "green", "swir16")}, False),
            ("month", {}, False),
        ],
    )
    def test_observations_are_counted_where_they_meet(self, monkeypatch, period, more, fits):
        """In one period and what may help it out, or in a screen of the whole series."""
        monkeypatch.setattr(planning, "MAX_OBSERVATIONS", 3)
        options = {"period": PeriodRule.parse(period), **more}
        bands = options.pop("bands", ("blue",))
        spec = archives.spec(*bands, **options)
        items, grid = virtual(6, bands), grid_of(1024, 512)
        if fits:
            assert len(plan_composite(items, grid, spec).items) == 6
        else:
            with pytest.raises(InputError, match=r"tile 0 has \d observations, at most 3 fit"):
                plan_composite(items, grid, spec)

    def test_a_missing_band_names_the_item(self):
        items = virtual(2)
        bare = replace(items[1], assets={"scl": items[1].asset("scl")})
        with pytest.raises(MissingBandError, match="item item-01 has no band 'blue'; it has scl"):
            plan_composite(
                replace(items, items=(items[0], bare)), grid_of(1024, 512), archives.spec("blue")
            )

    @pytest.mark.parametrize("block", [0, 8, -1])
    def test_a_block_too_small_is_refused(self, block):
        with pytest.raises(InputError, match=f"block is {block} pixels, expected at least 16"):
            plan_composite(virtual(1), grid_of(1024, 512), archives.spec("blue"), block=block)

    def test_items_of_no_sensor_are_refused(self):
        with pytest.raises(InputError, match="0 sensors"):
            plan_composite(Items(()), grid_of(1024, 512), archives.spec("blue"))


@given(
    size=st.integers(16, 700),
    tile=st.sampled_from([16, 64, 208, 512]),
    block=st.integers(16, 600),
    shift=st.integers(0, 300),
)
def test_blocks_cut_a_tile_without_gap_or_overlap(size, tile, block, shift):
    metres = size * 10
    left, top = archives.LEFT + shift * 10, archives.TOP
    grid = Grid.from_bounds(left, top - metres, left + metres, top, "EPSG:32631", 10.0, tile)
    reads = plan_composite(virtual(1), grid, archives.spec("blue"), block=block).reads
    covered = np.zeros(grid.shape, int)
    for part in grid.tiles():
        for window in reads.blocks(part):
            assert 0 < window.height <= block
            assert 0 < window.width <= block
            covered[
                window.y0 : window.y0 + window.height, window.x0 : window.x0 + window.width
            ] += 1
            column = window.x0 + shift  # of the source
            assert window.x0 == part.x0 or column % block == 0
    assert (covered == 1).all()


def test_a_saved_plan_is_the_same_plan():
    plan = plan_composite(virtual(3, BANDS), grid_of(1000, 256), archives.spec(*BANDS), block=128)
    again = CompositePlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.run_id == plan.run_id
    assert again.reads.block == 128
    for name in ("tiles", "starts", "index"):
        np.testing.assert_array_equal(getattr(again.reads, name), getattr(plan.reads, name))


def test_the_identity_follows_what_matters():
    two = virtual(2)

    def run_id(items=two, **changes):
        return plan_composite(items, grid_of(1024, 512), archives.spec("blue", **changes)).run_id

    moved = replace(two[0].asset("blue"), offset=-0.1)
    other = replace(two[0], assets={**two[0].assets, "blue": moved})
    ids = {
        run_id(),
        run_id(method="mean"),
        run_id(mask="none"),
        run_id(virtual(3)),
        run_id(replace(two, items=(other, two[1]))),
    }
    assert len(ids) == 5
    assert run_id() == run_id()


def test_planning_reads_headers_only(tmp_path):
    """One per collection, band and shape; no pixel."""
    options = SimulationOptions(size=512, dates=3, bands=BANDS)
    world = simulate(tmp_path / "sim", options)
    smallest = min(path.stat().st_size for path in world.path.glob("*/*/blue.tif"))
    with FileServer(world.path) as server:
        document = tmp_path / "items.json"
        document.write_text(json.dumps(items_collection(world.path, server.url)))
        items = search(str(document), allow_hosts=["127.0.0.1"])
        grid = archives.request(world.catalog).plan().grid
        before = server.bytes_sent
        plan = plan_composite(items, grid, archives.spec(*BANDS))
        assert server.bytes_sent == before
        facts = pricing.explain(plan)
        kinds = {(band, i.asset(band).shape) for i in items for band in (*BANDS, "scl")}
        header = int(reader.GDAL_OPTIONS["GDAL_INGESTED_BYTES_AT_OPEN"])
        assert server.bytes_sent - before <= len(kinds) * header
    assert header < smallest / 2
    assert facts["decoded_bytes"] > 0


# ---------------------------------------------------------------- measured in a process of its own


class Peak(threading.Thread):
    """The largest resident set seen, in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.top = 0
        self.running = True

    def run(self):
        while self.running:
            self.top = max(self.top, resident())
            time.sleep(0.002)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


def measure(folder, case):
    """Print what a plan says of itself, and the bytes and memory that computing it takes."""
    options = {"outliers": "none", **case["spec"]}
    if "period" in options:
        options["period"] = PeriodRule.parse(options["period"])
    spec = CompositeSpec(tuple(case["bands"]), **options)
    small = archives.series(Path(folder) / "small", 3, spec.bands, 64, block=64)
    kind = {k: v for k, v in case["grid"].items() if k in ("crs", "resolution")}
    archives.in_process(plan_composite(small, grid_of(64, 64, **kind), spec))  # warm up
    items = archives.series(Path(folder) / "large", case["items"], spec.bands, 1024)
    plan = plan_composite(items, grid_of(1024, **case["grid"]), spec)
    facts = pricing.explain(plan)
    for item in items:
        for asset in item.assets.values():
            reader.header(asset, items.access)  # headers are no pixels
    peak, base, before = Peak(), resident(), bytes_read()
    peak.start()
    for number in plan.reads.tiles:
        compute_tile(plan, int(number))
    peak.running = False
    found = {
        "planned_bytes": facts["decoded_bytes"],
        "bytes": bytes_read() - before,
        "planned_memory": facts["memory_per_task"],
        "memory": peak.top - base,
    }
    sys.stdout.write(json.dumps(found))


FOUR = ["blue", "green", "red", "nir"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "case",
    [
        {"bands": FOUR, "spec": {"outliers": "mad:3"}, "grid": {"tile": 1024}},
        {"bands": FOUR, "spec": {"mask": "none"}, "grid": {"tile": 512, "shift": 100}},
        {"bands": FOUR, "spec": {"mask": "none"}, "grid": {"tile": 1280, "crs": "EPSG:32632"}},
        {"bands": FOUR, "spec": {"resampling": "bilinear"}, "grid": {"tile": 1024, "shift": 3}},
        {"bands": ["blue", "swir16"], "spec": {"mask": "scl"}, "grid": {"tile": 1024}},
        {
            "bands": FOUR,
            "spec": {"method": "median,percentile:10,percentile:90", "period": "dekad"},
            "grid": {"tile": 1024},
        },
        {
            "bands": FOUR,
            "spec": {"outliers": "despike,mad:3", "period": "month", "min_clear": 5},
            "grid": {"tile": 512},
        },
        {"bands": FOUR, "spec": {"method": "bap", "qa": "full"}, "grid": {"tile": 512}},
        # The first row of 60 m has its centre beyond the edge of a source block, its top not.
        {
            "bands": FOUR,
            "spec": {"mask": "none", "resampling": "average"},
            "grid": {"tile": 1024, "shift": 254, "resolution": 60.0},
        },
    ],
    ids=[
        *("masked", "misaligned", "other-zone", "bilinear", "20-m-band"),
        *("periods", "series", "best-pixel", "average"),
    ],
)
def test_a_plan_predicts_bytes_and_memory(tmp_path, case):
    """Decoded bytes: an upper bound within 25 %. Memory: within 1.5 times, both ways.

    The files are uncompressed and have nothing to skip, so what is read is what is decoded.
    """
    code = f"import test_plan; test_plan.measure({str(tmp_path)!r}, {dict(case, items=24)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bytes"] <= found["planned_bytes"] <= 1.25 * found["bytes"], found
    assert 1 / 1.5 < found["planned_memory"] / found["memory"] < 1.5, found
