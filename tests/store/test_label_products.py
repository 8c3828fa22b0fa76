"""Label products in every place: begun, failed, gone on with, verified, drawn and exported."""

from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from lcengine import Grid, export, jobs, quicklook, store
from lcengine.cluster import connect
from lcengine.errors import RunError
from lcengine.labels.layers import Layer, rasterize
from lcengine.labels.plan import plan_labels
from lcengine.labels.rules import Rule

LEFT, TOP, UTM = 500_000.0, 5_600_000.0, "EPSG:32631"


@pytest.fixture(scope="class")
def client(environment):
    with connect("local:workers=1,threads=1") as found:
        yield found


@pytest.mark.slow
class TestLabels:
    def test_from_a_failed_tile_to_a_picture(self, backend, client, tmp_path):
        shapes = [shapely.box(LEFT + x, TOP - 400, LEFT + x + 500, TOP) for x in (0, 3000, 3200)]
        fields = gpd.GeoDataFrame({"crop": ["rye", "oats", "rye"]}, geometry=shapes, crs=UTM)
        grid = Grid.from_bounds(LEFT, TOP - 1600, LEFT + 4800, TOP, UTM, 10.0, 160)
        plan = plan_labels(Layer(fields, Rule("crop")), grid, conflict="error")
        with pytest.raises(RunError, match="overlap at"):
            jobs.run(plan, backend.output, client=client, store=backend.kind)
        told = jobs.status(backend.output)
        assert (told["state"], told["done"], told["failed"]) == ("unfinished", 2, 1)
        with pytest.raises(RunError, match="overlap at"):
            jobs.resume(backend.output, client=client)
        lenient = replace(plan, conflict="ignore")
        jobs.run(lenient, backend.output, client=client, store=backend.kind, restart=True)
        assert jobs.status(backend.output)["state"] == "published"
        assert not store.verify(backend.output).faults
        made = rasterize(fields, grid, Rule("crop"))
        np.testing.assert_array_equal(store.stored(backend.output)["label"], made["label"])
        assert store.provenance(backend.output)["conflicts"] == 30 * 40
        assert store.legend_of(backend.output) == plan.legend
        quicklook.draw(backend.output, tmp_path / "l.png")
        export.export(backend.output, tmp_path / "l.tif")
        with rasterio.open(tmp_path / "l.tif") as file:
            np.testing.assert_array_equal(file.read(1), made["label"])
            assert file.colormap(1)[1][:3] == plan.legend.entry(1).rgb
