from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine.errors import InputError
from lcengine.kernels.methods import (
    FORMS,
    INDICES,
    BestPixel,
    ByIndex,
    Count,
    FirstClear,
    Geomad,
    Geomedian,
    MadScreen,
    MaxNdvi,
    Mean,
    Median,
    Medoid,
    Percentile,
    parse_method,
    parse_methods,
)

WORDS = [
    ("median", Median(), "median"),
    ("mean", Mean(), "mean"),
    ("percentile:25", Percentile(25.0), "p25"),
    ("percentile:2.5", Percentile(2.5), "p2_5"),
    ("percentile:100:nearest", Percentile(100.0, "nearest"), "p100_nearest"),
    ("geomedian", Geomedian(), "geomedian"),
    ("geomedian:0.01", Geomedian(0.01), "geomedian_0_01"),
    ("geomad", Geomad(), "geomad"),
    ("geomad:1", Geomad(1.0), "geomad_1"),
    ("medoid", Medoid(), "medoid"),
    ("medoid:nearest", Medoid(nearest=True), "medoid_nearest"),
    *((f"index:{name}", ByIndex(name), f"index_{name}") for name in INDICES),
    ("index:hot:12.5", ByIndex("hot", 12.5), "index_hot_12_5"),
    ("max-ndvi", MaxNdvi(), "max_ndvi"),
    ("bap", BestPixel(), "bap"),
    ("bap:182", BestPixel(182), "bap_182"),
    ("bap:120-182-240", BestPixel(182, 120, 240), "bap_120_182_240"),
    ("first-clear", FirstClear(), "first_clear"),
    ("last-clear", FirstClear(last=True), "last_clear"),
    ("count", Count(), "count"),
]


@pytest.mark.parametrize(("text", "method", "label"), WORDS)
def test_methods_are_read_and_written(text, method, label):
    assert parse_method(text) == method
    assert parse_method(f" {text} ") == method
    assert str(method) == text
    assert method.label == label
    assert hash(parse_method(str(method))) == hash(method)


def test_every_form_is_tried():
    tried = {type(method) for _, method, _ in WORDS}
    names = {re.split(r"[\[:]", form)[0] for form in FORMS}
    assert names <= {text.split(":")[0] for text, _, _ in WORDS}
    assert len(tried) == 11


@given(
    thousandths=st.integers(0, 100_000),
    rule=st.sampled_from(["linear", "nearest"]),
    eps=st.floats(1e-6, 100),
    days=st.lists(st.integers(1, 365), min_size=3, max_size=3, unique=True).map(sorted),
)
def test_what_is_written_is_read_as_the_same(thousandths, rule, eps, days):
    for method in (
        Percentile(thousandths / 1000, rule),
        ByIndex("blue", thousandths / 1000),
        Geomedian(float(f"{eps:g}")),
        BestPixel(days[1], days[0], days[2]),
    ):
        assert parse_method(str(method)) == method
    screen = MadScreen(thousandths / 1000, side="dark", per_band=rule == "linear")
    assert MadScreen.parse(str(screen)) == screen


@pytest.mark.parametrize(
    "text",
    [
        *("", "mode", "median:3", "percentile", "percentile:101", "percentile:-1", "percentile:"),
        *("percentile:nan", "percentile:1e1", "percentile:0.0001"),
        *("percentile:25:mean", "percentile:25:nearest:x"),
        *("geomedian:x", "geomedian:0", "geomad:nan", "geomad:0.1:2", "medoid:far"),
        *("index", "index:ndsi", "index:blue:101", "index:blue:25:1", "max-ndvi:1"),
        *("bap:0", "bap:367", "bap:1-2", "bap:1-2-3-4", "bap:x", "count:1", "first-clear:2"),
    ],
)
def test_bad_methods_are_named(text):
    with pytest.raises(InputError, match=r"(method is|got) .* expected "):
        parse_method(text)


def test_several_methods_have_names_of_their_own():
    methods = parse_methods("median, percentile:10,percentile:90 ,count")
    assert methods == (Median(), Percentile(10.0), Percentile(90.0), Count())
    for text in ("median,median", "percentile:10,percentile:10.0", "median,"):
        with pytest.raises(InputError, match="expected"):
            parse_methods(text)


@pytest.mark.parametrize(
    ("text", "screen"),
    [
        ("mad:3", MadScreen()),
        ("mad:2.5", MadScreen(2.5)),
        ("mad:3:bright", MadScreen(side="bright")),
        ("mad:0:dark:bands", MadScreen(0.0, side="dark", per_band=True)),
        ("mad:3:bands", MadScreen(per_band=True)),
    ],
)
def test_screens_are_read_and_written(text, screen):
    assert MadScreen.parse(text) == screen
    assert str(screen) == text
    assert MadScreen.parse(text.replace("mad:3", "mad")) == screen


@pytest.mark.parametrize(
    "text",
    [
        *("", "none", "zscore", "mad:", "mad:-1", "mad:2.5001", "mad:inf", "mad:1001"),
        *("mad:3:4", "mad:up", "mad:bands:bright", "mad:bright:dark", "mad:bands:bands"),
    ],
)
def test_bad_screens_are_named(text):
    with pytest.raises(InputError, match=r"got .* expected"):
        MadScreen.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MadScreen(-1.0),
        lambda: MadScreen(float("nan")),
        lambda: MadScreen(1e9),
        lambda: MadScreen(0.12345),
        lambda: MadScreen(floor=-1),
        lambda: MadScreen(floor=10**6),
        lambda: MadScreen(side="left"),
        lambda: Percentile(100.5),
        lambda: Percentile(float("nan")),
        lambda: Percentile(50.0, "lower"),
        lambda: Geomedian(0.0),
        lambda: Geomad(float("nan")),
        lambda: ByIndex("ndsi"),
        lambda: ByIndex("blue", 101.0),
        lambda: BestPixel(0),
        lambda: BestPixel(182, 90, 367),
        lambda: BestPixel(182, 200, 240),
    ],
)
def test_bad_values_are_named(make):
    with pytest.raises(InputError, match=r"got .* expected"):
        make()


def test_seasons_out_of_order_are_refused():
    for text in ("bap:200-100-250", "bap:100-100-100"):
        with pytest.raises(InputError, match="got season low"):
            parse_method(text)
