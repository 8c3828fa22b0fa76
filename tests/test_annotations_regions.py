"""Labels that lie close together become boxes on the pixel lattice, in metres anywhere on Earth."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from shapely import Point, box

from lcengine.aoi import Aoi
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.clusters import cluster, lattice_around, regions, save_regions

GRID = Grid.from_bounds(600_000, 5_000_000, 640_000, 5_040_000, 32631, 10.0)
CORNER = np.array([610_000, 5_010_000])


def frame(outlines, crs="EPSG:32631", **columns):
    return gpd.GeoDataFrame(columns, geometry=list(outlines), crs=crs)


def fields(points, size=100.0, **columns):
    return frame((Point(*p).buffer(size / 2, cap_style="square") for p in points), **columns)


def components(near):
    """Numbers of the connected components, in the order of their first members: plain search."""
    found = np.full(len(near), -1)
    for start in range(len(near)):
        if found[start] < 0:
            queue, number = [start], found.max() + 1
            while queue:
                at = queue.pop()
                if found[at] < 0:
                    found[at] = number
                    queue += np.flatnonzero(near[at]).tolist()
    return found


places = st.lists(
    st.tuples(st.floats(0, 20_000), st.floats(0, 20_000)), min_size=1, max_size=25, unique=True
)


@given(points=places)
def test_clusters_are_what_is_linked_within_the_distance(points):
    points = np.array(points) + CORNER
    lonlat = gpd.GeoSeries(gpd.points_from_xy(*points.T), crs=32631).to_crs(4326)
    lon, lat = lonlat.x.to_numpy(), lonlat.y.to_numpy()
    i, j = np.indices((len(points), len(points)))
    apart = Geod(ellps="WGS84").inv(lon[i], lat[i], lon[j], lat[j])[2]
    if (np.abs(apart - 2000) < 0.01).any():
        return
    found = cluster(frame(lonlat, "EPSG:4326"))
    assert found.tolist() == components(apart <= 2000).tolist()
    assert found.tolist() == cluster(frame(gpd.points_from_xy(*points.T))).tolist()


@pytest.mark.parametrize("lat", [0.0, -35.0, 70.0])
def test_metres_are_metres_at_any_place(lat):
    """1.9 km and 2.1 km to the east, across the antimeridian."""
    geod = Geod(ellps="WGS84")
    for metres, expected in ((1990, [0, 0]), (2010, [0, 1])):
        lon, other, _ = geod.fwd(179.995, lat, 90, metres)
        assert lon < 0
        found = cluster(frame([Point(179.995, lat), Point(lon, other)], "EPSG:4326"))
        assert found.tolist() == expected


def test_lonely_labels_are_noise_where_a_core_needs_more():
    labels = fields([(610_000, 5_010_000), (610_500, 5_010_000), (630_000, 5_030_000)])
    assert cluster(labels).tolist() == [0, 0, 1]
    assert cluster(labels, least=2).tolist() == [0, 0, -1]
    labels.loc[1, "geometry"] = None
    assert cluster(labels).tolist() == [0, -1, 1]


def test_boxes_hold_their_labels_on_the_pixel_lattice():
    points = [(610_003, 5_010_007), (611_504, 5_011_001), (630_000, 5_030_000)]
    labels = fields(points, crop=["maize", "wheat", "maize"])
    labels.index = [11, 12, 13]
    found = regions(labels, GRID, column="crop")
    assert found["region"].tolist() == [1, 2]
    assert found["count"].tolist() == [2, 1]
    assert found["members"].tolist() == [[11, 12], [13]]
    assert found["classes"].tolist() == [["maize", "wheat"], ["maize"]]
    assert found["area"].to_numpy() == pytest.approx([20_000, 10_000], rel=2e-3)
    first, second = found.geometry
    assert first.bounds == (609_950, 5_009_950, 611_560, 5_011_060)
    assert (found["width"][0], found["height"][0]) == (161, 111)
    # A single field of 10 pixels becomes a patch of 64 around it.
    assert second.bounds == (630_000 - 320, 5_030_000 - 320, 630_000 + 320, 5_030_000 + 320)


@given(points=places, patch=st.integers(1, 300), margin=st.integers(0, 40))
def test_every_box_is_on_the_lattice_and_large_enough(points, patch, margin):
    labels = fields(np.array(points) + CORNER, size=37.0)
    found = regions(labels, GRID, patch=patch, margin=margin)
    assert sorted(i for members in found["members"] for i in members) == list(range(len(labels)))
    for row in found.itertuples():
        edges = np.array(row.geometry.bounds)
        assert (edges % 10 == 0).all()
        assert row.width == (edges[2] - edges[0]) / 10 >= patch
        assert row.height == (edges[3] - edges[1]) / 10 >= patch
        inside = labels.geometry.loc[row.members]
        assert inside.buffer(margin * 10 - 1e-3).within(row.geometry.buffer(1e-2)).all()


def test_regions_are_areas_of_interest(tmp_path):
    labels = fields([(610_003, 5_010_007), (622_000, 5_022_000), (622_900, 5_023_000)])
    found = regions(labels, GRID)
    written = save_regions(found, tmp_path / "rois")
    assert [path.name for path in written] == ["region_001.geojson", "region_002.geojson"]
    for path, outline in zip(written, found.geometry, strict=True):
        grid = Grid.from_aoi(Aoi.from_file(path), crs=32631, resolution=10)
        assert grid.bounds == outline.bounds
        assert grid.inside(0, 0, *grid.shape) is None
    (together,) = save_regions(found, tmp_path / "all.geojson")
    properties = [f["properties"] for f in json.loads(together.read_text())["features"]]
    assert [p["bounds"] for p in properties] == [list(o.bounds) for o in found.geometry]
    assert [p["members"] for p in properties] == [[0], [1, 2]]
    with pytest.raises(InputError, match="is no GeoJSON by its name"):
        save_regions(found, tmp_path / "a.shp")


def test_a_lattice_is_found_for_labels_alone():
    labels = fields([(610_003, 5_010_007), (622_000, 5_022_000)])
    for given_labels in (labels, labels.to_crs(4326)):
        grid = lattice_around(given_labels)
        assert grid.epsg == 32631
        left, bottom, right, top = grid.bounds
        assert shapely.box(left, bottom, right, top).covers(box(*labels.total_bounds))
    assert lattice_around(labels, crs=3035, resolution=20).resolution == 20
    far = frame([Point(1, 5), Point(9, 5)], "EPSG:4326")
    with pytest.raises(InputError, match=r"8\.0 degrees wide, wider than a UTM zone"):
        lattice_around(far)


def test_what_cannot_be_clustered_is_named():
    labels = fields([(610_000, 5_010_000)])
    with pytest.raises(InputError, match="have no CRS"):
        cluster(gpd.GeoDataFrame(geometry=list(labels.geometry)))
    with pytest.raises(InputError, match="no labels with a geometry"):
        cluster(frame([None]))
    with pytest.raises(InputError, match="are no neighbourhood"):
        cluster(labels, distance=0)
    with pytest.raises(InputError, match="have no attribute 'crop'; they have kind"):
        regions(labels.assign(kind=1), GRID, column="crop")
    with pytest.raises(InputError, match="patch 0 and margin 0"):
        regions(labels, GRID, patch=0)
