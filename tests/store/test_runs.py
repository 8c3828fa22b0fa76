"""The store's promises through `jobs.run`, with a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import archives
import numpy as np
import pytest
import xarray as xr
from places import KINDS, backend_at

import lcengine
from lcengine import engine, jobs, store
from lcengine.catalog import Query
from lcengine.cluster import connect
from lcengine.composite import CompositeRequest, plan_composite
from lcengine.errors import RunError, StoreError
from lcengine.grid import Grid
from lcengine.simulate import SimulationOptions, simulate


@pytest.fixture(scope="module")
def client():
    with connect("local:workers=1,threads=2") as found:
        yield found


def plan_of(items, **changes):
    grid = Grid.from_bounds(
        archives.LEFT, archives.TOP - 640, archives.LEFT + 640, archives.TOP,
        "EPSG:32631", 10.0, 32,
    )  # fmt: skip
    return plan_composite(items, grid, archives.spec("blue", **changes))


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return archives.series(tmp_path_factory.mktemp("items") / "s", 3, ("blue",), 64, block=32)


def everywhere(plan, client, tmp_path_factory):
    """{place: the product of a plan there}."""
    made = {}
    for name in KINDS:
        made[name] = backend_at(name, tmp_path_factory.mktemp(name))
        jobs.run(plan, made[name].output, client=client, store=made[name].kind)
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
class TestEverywhere:
    """One composite in all four places, made by the processes of one cluster."""

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, environment):
        with connect("local:workers=1,threads=2") as found:
            yield found

    @pytest.fixture(scope="class")
    @classmethod
    def products(cls, items, client, tmp_path_factory):
        return everywhere(plan_of(items), client, tmp_path_factory)

    @pytest.mark.parametrize("name", KINDS[1:])
    def test_the_arrays_are_the_same(self, products, name):
        local, other = products["local"].output, products[name].output
        wanted, found = store.stored(local), store.stored(other)
        assert list(found.data_vars) == list(wanted.data_vars)
        for variable in wanted.data_vars:
            assert found[variable].dtype == wanted[variable].dtype
            np.testing.assert_array_equal(found[variable].values, wanted[variable].values)
        for sidecar in ("items.parquet", "failures.parquet", "tiles.parquet"):
            assert store.sidecar(other, sidecar) == store.sidecar(local, sidecar)
        assert store.verify(other).ok
        xr.testing.assert_identical(lcengine.open(other), lcengine.open(local))

    def test_real_imagery_too(self, client, tmp_path_factory):
        plans = archives.real_plans()
        if not plans:
            pytest.skip("real data absent (set LCENGINE_SHARED to have them)")
        made = everywhere(plans[0], client, tmp_path_factory)
        wanted, _ = archives.in_process(plans[0])
        for place in made.values():
            found = store.stored(place.output)
            for name, pixels in wanted.items():
                assert found[name].values.tobytes() == pixels.tobytes()

    @pytest.mark.parametrize("name", KINDS)
    def test_a_published_request_is_not_run_again(self, products, items, client, name):
        place = products[name]
        before = place.files()
        seen = []
        jobs.run(
            plan_of(items), place.output, client=client, listener=seen.append, store=place.kind
        )
        assert seen == []
        assert place.files() == before

    def test_objects_are_not_overwritten(self, products, items, client):
        place = products["s3"]
        before = place.files()
        with pytest.raises(StoreError, match=r"not overwritten.*--store icechunk"):
            jobs.run(plan_of(items), place.output, client=client, restart=True)
        assert place.files() == before


class TestRuns:
    """The same promises through `jobs.run`, with a cluster."""

    def test_the_arrays_are_those_of_the_tile_task(self, items, tmp_path, client):
        plan = plan_of(items)
        output = jobs.run(plan, tmp_path / "out.zarr", client=client)
        expected, _ = archives.in_process(plan)
        stored = archives.arrays(output)
        assert set(stored) == set(expected)
        for name, pixels in expected.items():
            np.testing.assert_array_equal(stored[name], pixels)

    def test_a_published_request_is_not_run_again(self, items, tmp_path, client):
        output = Path(jobs.run(plan_of(items), tmp_path / "out.zarr", client=client))
        version = output.resolve()
        seen = []
        jobs.run(plan_of(items), output, client=client, listener=seen.append)
        assert seen == []
        assert output.resolve() == version

    def test_the_tables_do_not_depend_on_the_blocks(self, tmp_path):
        """A smaller worker, or another attempt, takes smaller blocks, which read less."""
        options = SimulationOptions(size=512, dates=3, seed=4, bands=("blue", "swir16"))
        catalog = simulate(tmp_path / "sim", options).catalog
        spec = archives.spec("blue", mask="scl")
        plan = CompositeRequest(Query(str(catalog)), spec, tile=512, block=512).plan()
        receipts, tables = [], set()
        for attempt in range(3):
            place = store.target(tmp_path / f"{attempt}.zarr")
            staging = jobs.stage(place, {}, plan)
            receipts.append(jobs.run_tile(staging, 0, attempt))
            output = staging.publish([0], {}, {})
            tables.add(store.sidecar(output, "tiles.parquet"))
        assert len({receipt["spent"]["bytes_read"] for receipt in receipts}) > 1
        assert len(tables) == 1

    def test_what_failed_before_comes_last(self, items, tmp_path, client, monkeypatch):
        plan = plan_of(items)
        place = store.target(tmp_path / "out.zarr")
        staging = jobs.stage(place, {}, plan)
        staging.fail(0, {"error": "no such file", "attempts": 3, "quarantined": False})
        order = []
        accept = store.LocalStaging.accept
        monkeypatch.setattr(
            store.LocalStaging,
            "accept",
            lambda self, receipt: (order.append(receipt["tile"]), accept(self, receipt)),
        )
        jobs.run(plan, place.output, client=client, request={}, policy=engine.Policy(window=1))
        assert order == [1, 2, 3, 0]

    def test_a_changed_request_is_refused_with_the_difference(self, items, tmp_path, client):
        """FAULTS 35."""
        output = tmp_path / "out.zarr"

        def run(method, **options):
            plan = plan_of(items, method=method)
            return jobs.run(plan, output, client=client, request={"method": method}, **options)

        run("median")
        with pytest.raises(StoreError, match=r"method: 'median' -> 'mean'.*--restart"):
            run("mean")
        content = archives.tree(output)
        assert archives.tree(run("mean", restart=True)) != content

    def test_a_failed_restart_leaves_the_old_product(self, items, tmp_path, client):
        """FAULTS 32."""
        output = jobs.run(plan_of(items), tmp_path / "out.zarr", client=client)
        content = archives.tree(output)
        broken = replace(
            items,
            items=tuple(
                replace(i, assets={**i.assets, "blue": replace(i.asset("blue"), href="/nowhere")})
                for i in items
            ),
        )
        with pytest.raises(RunError, match="4 of 4 tiles failed"):
            jobs.run(plan_of(broken), output, client=client, restart=True)
        assert archives.tree(output) == content
        assert lcengine.open(output)["blue"].notnull().all()
        jobs.run(plan_of(items), output, client=client, restart=True)
        replaced = archives.tree(output)
        assert replaced == content

    def test_a_reader_during_the_run_sees_the_old_product(self, items, tmp_path, client):
        output = jobs.run(plan_of(items), tmp_path / "out.zarr", client=client)
        content = archives.tree(output)
        seen = []
        jobs.run(
            plan_of(items, method="mean"),
            output,
            client=client,
            restart=True,
            listener=lambda _: seen.append(archives.tree(output) == content),
        )
        assert len(seen) > 2
        assert all(seen)
        assert archives.tree(output) != content
