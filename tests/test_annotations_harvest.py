"""Fields by crop and a table of harvest dates: codes, time windows, and what is wrong with them."""

from __future__ import annotations

import datetime as dt
import unicodedata
from itertools import pairwise

import geopandas as gpd
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, box

from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.labels.harvest import Table, read_crops, read_harvests, windows
from lcengine.labels.layers import Layer, rasterize
from lcengine.labels.rules import Rule
from lcengine.legends import legend
from lcengine.periods import PeriodRule, to_json

ROWS = [
    ("region", "crop", "harvest"),
    ("north", "Café robusta", dt.datetime(2020, 11, 30)),
    ("south", "Café robusta", dt.date(2020, 9, 15)),
    (None, "Winter wheat", "2020-07-10"),
    ("south", "mañoc", dt.date(2020, 12, 1)),
]


@pytest.fixture
def folder(tmp_path):
    """Three crops: a folder of two shapefiles, a shapefile, a GeoPackage in another CRS."""
    root = tmp_path / "fields"
    coffee = root / unicodedata.normalize("NFD", "Café robusta")
    coffee.mkdir(parents=True)

    def write(path, regions, crs="EPSG:32631", **options):
        outlines = [box(i * 100, 0, i * 100 + 50, 50) for i in range(len(regions))]
        gpd.GeoDataFrame({"région": regions}, geometry=outlines, crs=crs).to_file(path, **options)

    write(coffee / "a.shp", ["north", "south"], encoding="UTF-8")
    write(coffee / "b.shp", ["South"], encoding="UTF-8")
    write(root / "winter_wheat.shp", ["north", "east"], encoding="UTF-8")
    write(root / "Mañoc.gpkg", ["south"], crs="EPSG:32632")
    (root / "readme.txt").write_text("no fields")
    return root


@pytest.fixture
def table(tmp_path):
    def write(rows=ROWS, sheet="dates"):
        book = openpyxl.Workbook()
        book.active.title = "notes"
        page = book.create_sheet(sheet)
        for row in rows:
            page.append(row)
        book.save(tmp_path / "harvest.xlsx")
        return tmp_path / "harvest.xlsx"

    return write


DATES = Table(sheet="dates")


def test_fields_get_code_region_and_harvest(folder, table):
    crops = read_crops(folder, table(), layout=DATES, region="région")
    fields = crops.fields
    assert crops.legend.names == ("Café robusta", "Mañoc", "winter_wheat")
    assert fields.crs.to_epsg() == 4326  # the files differ
    found = set(zip(fields["crop"], fields["region"], fields["harvest"], strict=True))
    assert found == {
        ("Café robusta", "north", "2020-11-30"),
        ("Café robusta", "south", "2020-09-15"),
        ("winter_wheat", "north", "2020-07-10"),
        ("winter_wheat", "east", "2020-07-10"),
        ("Mañoc", "south", "2020-12-01"),
    }
    assert len(fields) == 6
    assert set(zip(fields["crop"], fields["code"], strict=True)) == {
        ("Café robusta", 1),
        ("Mañoc", 2),
        ("winter_wheat", 3),
    }
    # Every region's windows end a month before its first harvest.
    spans = {name: (p[0].start.date(), p[-1].stop.date()) for name, p in crops.windows().items()}
    assert spans == {
        "north": (dt.date(2019, 12, 10), dt.date(2020, 6, 10)),
        "east": (dt.date(2019, 12, 10), dt.date(2020, 6, 10)),
        "south": (dt.date(2020, 2, 15), dt.date(2020, 8, 15)),
    }


def test_fields_become_a_label_raster(folder, table):
    crops = read_crops(folder, table(), layout=DATES, region="région")
    fields = crops.fields[crops.fields["source"] == "a.shp"]
    grid = Grid.from_bounds(0, 0, 200, 60, 32631, 10.0)
    layer = Layer(fields, Rule(attribute="code"), "crops")
    found = rasterize(layer, grid, legend=crops.legend).label.values
    assert (found == 1).sum() == 2 * 25
    assert (found == crops.legend.nodata).sum() == found.size - 50


def test_a_crop_with_one_row_needs_no_region(folder, table):
    rows = [ROWS[0][1:], *(row[1:] for row in ROWS[2:])]
    crops = read_crops(folder, table(rows), layout=DATES)
    assert set(crops.fields["region"]) == {""}
    assert list(crops.windows()) == [""]
    with pytest.raises(InputError, match=r"'Café robusta' has 2 rows in .* one for each region"):
        read_crops(folder, table(), layout=DATES)


def test_classes_of_a_legend_or_a_mapping(folder, table):
    mapping = {"café ROBUSTA": 1, "Mañoc": 1, "winter wheat": 0}
    crop = legend("crop")
    codes = {1: crop.codes[1], 0: crop.codes[0]}
    mapping = {name: codes[code] for name, code in mapping.items()}
    crops = read_crops(folder, table(), layout=DATES, region="région", legend=crop, mapping=mapping)
    assert set(zip(crops.fields["crop"], crops.fields["code"], strict=True)) == {
        ("Café robusta", codes[1]),
        ("Mañoc", codes[1]),
        ("winter_wheat", codes[0]),
    }
    with pytest.raises(InputError, match="'Café robusta' is no class of legend crop"):
        read_crops(folder, table(), layout=DATES, region="région", legend=crop)


@given(day=st.dates(dt.date(1990, 1, 1), dt.date(2060, 1, 1)), count=st.integers(1, 12),
       before=st.integers(0, 6))  # fmt: skip
def test_windows_join_and_end_before_the_harvest(day, count, before):
    found = windows(day, count=count, before=before)
    assert len(found) == count
    assert all(a.stop == b.start for a, b in pairwise(found))
    last = found[-1].stop.date()
    months = (day.year - last.year) * 12 + day.month - last.month
    assert months == before
    assert last.day == day.day or (last + dt.timedelta(days=1)).day == 1
    assert all(28 <= (p.stop - p.start).days <= 31 for p in found)
    assert PeriodRule.from_json(to_json(found)).listed == tuple(found)


def test_csv_tables_with_other_headings_and_dates(tmp_path):
    path = tmp_path / "harvest.csv"
    path.write_text("Kultur;Ernte\nWeizen;15.08.2018\n\nRüben;1.10.2018\n", encoding="utf-8-sig")
    layout = Table(crop="kultur", harvest="Ernte", date="%d.%m.%Y")
    found = read_harvests(path, layout)
    assert [(row.crop, row.date) for row in found] == [
        ("Weizen", dt.date(2018, 8, 15)),
        ("Rüben", dt.date(2018, 10, 1)),
    ]
    with pytest.raises(InputError, match=r"harvest\.csv, row 2, column B is '15\.08\.2018'"):
        read_harvests(path, Table(crop="kultur", harvest="Ernte"))
    with pytest.raises(InputError, match="is a CSV table without sheets"):
        read_harvests(path, DATES)


WRONG_ROWS = {
    r"sheet dates, row 2, column C is 'soon' \(": ("north", "rice", "soon"),
    r"row 2, column C is 43500 \(it is a number\), expected a date": ("north", "rice", 43500),
    r"row 2, column C is None \(it is empty\)": ("north", "rice", None),
    r"row 2, column C is '31/02/2020'": ("north", "rice", "31/02/2020"),
    r"row 2, column C is 2202-07-01, expected a year": ("north", "rice", "2202-07-01"),
    r"row 2, column B is empty, expected the name of a crop": ("north", "", "2020-07-01"),
}


@pytest.mark.parametrize("message", WRONG_ROWS)
def test_wrong_rows_are_named_with_sheet_row_and_column(message, table):
    with pytest.raises(InputError, match=message):
        read_harvests(table([ROWS[0], WRONG_ROWS[message]]), DATES)


def test_wrong_tables_are_named(table, tmp_path, folder):
    with pytest.raises(InputError, match="has no sheet 'Dates'; it has notes, dates"):
        read_harvests(table(), Table(sheet="Dates"))
    with pytest.raises(InputError, match=r"row 1 has no column 'ernte'; its headings are region"):
        read_harvests(table(), Table(sheet="dates", harvest="ernte"))
    with pytest.raises(InputError, match=r"has no harvests"):
        read_harvests(table(ROWS[:1]), DATES)
    with pytest.raises(InputError, match=r"row 6 is of the same crop and region as .* row 2"):
        read_crops(
            folder,
            table([*ROWS, ("North", "café robusta", "2020-01-01")]),
            layout=DATES,
            region="région",
        )
    with pytest.raises(InputError, match=r"crop 'winter_wheat' has no row in .*; it has Café"):
        read_crops(folder, table([*ROWS[:3], ROWS[4]]), layout=DATES, region="région")
    with pytest.raises(InputError, match=r"'Café robusta' of region 'South' has no row"):
        read_crops(folder, table([*ROWS[:2], *ROWS[3:]]), layout=DATES, region="région")
    (tmp_path / "a.xlsx").write_text("no workbook")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_harvests(tmp_path / "a.xlsx", DATES)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_harvests(tmp_path / "none.xlsx", DATES)


def test_wrong_folders_are_named(table, tmp_path, folder):
    with pytest.raises(InputError, match="is no folder"):
        read_crops(tmp_path / "none", table(), layout=DATES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no fields; expected <crop>"):
        read_crops(tmp_path / "empty", table(), layout=DATES)
    with pytest.raises(InputError, match="has no attribute 'zone'; it has région"):
        read_crops(folder, table(), layout=DATES, region="zone")
    (folder / "winter_wheat.prj").unlink()
    with pytest.raises(InputError, match=r"winter_wheat\.shp states no CRS"):
        read_crops(folder, table(), layout=DATES, region="région")
    (folder / "winter_wheat.shp").write_text("broken")
    with pytest.raises(InputError, match=r"winter_wheat\.shp.* cannot be read"):
        read_crops(folder, table(), layout=DATES, region="région")
    gpd.GeoDataFrame({"a": [1]}, geometry=[Point(0, 0)], crs=32631).iloc[:0].to_file(
        tmp_path / "empty" / "rice.gpkg"
    )
    with pytest.raises(InputError, match=r"rice\.gpkg has no features"):
        read_crops(tmp_path / "empty", table(), layout=DATES)


def fields_at(path, x, **columns):
    frame = gpd.GeoDataFrame(columns, geometry=[box(x, 0, x + 50, 50)], crs="EPSG:32631")
    frame.to_file(path)


def test_one_region_in_several_spellings_has_one_earliest_harvest(tmp_path, table):
    """A row of all regions takes the fields' spelling, the other one the table's."""
    root = tmp_path / "f"
    root.mkdir()
    fields_at(root / "maize.gpkg", 0, region=["north"])
    fields_at(root / "rye.gpkg", 100, region=["NORTH"])
    rows = [ROWS[0], ("North", "maize", dt.date(2020, 9, 1)), (None, "rye", dt.date(2020, 6, 1))]
    spans = read_crops(root, table(rows), layout=DATES, region="region").windows()
    assert list(spans) == ["North"]
    assert spans["North"][-1].name.endswith("2020-04-30")


def test_one_crop_in_several_spellings_is_one_class(tmp_path, table):
    root = tmp_path / "f"
    (root / "Winter wheat").mkdir(parents=True)
    fields_at(root / "Winter wheat" / "a.shp", 0, id=[1])
    fields_at(root / "winter_wheat.shp", 100, id=[2])
    (root / "._winter_wheat.shp").write_bytes(b"\0\5\x16\7")  # what macOS leaves in archives
    rows = [ROWS[0][1:], ("winter wheat", dt.date(2020, 7, 10))]
    crops = read_crops(root, table(rows), layout=DATES)
    assert crops.legend.names == ("Winter wheat",)
    assert crops.fields["code"].tolist() == [1, 1]


def test_a_heading_of_regions_that_was_given_must_be_there(table):
    layout = Table(sheet="dates", region="distrct")
    with pytest.raises(InputError, match="row 1 has no column 'distrct'; its headings are region"):
        read_harvests(table(), layout)
