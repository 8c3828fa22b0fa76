"""Compositing periods: rules tile time, lists are the user's own, everything is UTC."""

from __future__ import annotations

import calendar
import datetime as dt
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcengine import periods
from lcengine.errors import InputError
from lcengine.periods import Period, PeriodRule, neighbours, parse_periods, select

TILING = (
    "year",
    "season",
    "month",
    "dekad",
    "P1D",
    "P16D",
    "P366D",
    "01-01/12-31",
    "10-01/09-30",
    "02-29/02-28",
    "03-01/02-29",
)
RULES = (*TILING, "10-01/06-30", "04-15/08-31", "02-29/03-31")

moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2110, 1, 1), timezones=st.just(dt.UTC))
spans = st.tuples(moments, st.timedeltas(dt.timedelta(0), dt.timedelta(days=900))).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def of_year(rule, year):
    """The periods that meet a calendar year."""
    return parse_periods(rule, utc(year, 1, 1), utc(year, 12, 31, 23, 59))


def names(found):
    return [p.name for p in found]


def days(found):
    return [(p.stop - p.start).days for p in found]


def custom(tmp_path, entries, text=None):
    file = tmp_path / "custom.json"
    file.write_text(json.dumps(entries) if text is None else text)
    return str(file)


class TestTiling:
    @given(st.sampled_from(TILING), spans)
    def test_no_gap_no_overlap_and_no_more_than_asked(self, rule, span):
        first, last = span
        found = parse_periods(rule, first, last)
        assert found[0].start <= first < found[0].stop
        assert found[-1].start <= last < found[-1].stop
        for earlier, later in pairwise(found):
            assert earlier.stop == later.start
        assert len(set(names(found))) == len(found)

    @given(st.sampled_from(TILING), moments)
    def test_every_instant_is_in_exactly_one(self, rule, moment):
        (found,) = parse_periods(rule, moment, moment)
        assert found.start <= moment < found.stop
        assert parse_periods(rule, found.start, found.start) == (found,)
        assert found not in parse_periods(rule, found.stop, found.stop)

    @given(st.sampled_from(RULES), spans, spans)
    def test_a_period_does_not_depend_on_the_interval_asked_for(self, rule, one, other):
        """Neighbouring products cut time at the same instants."""
        try:
            known = {p.name: p for p in parse_periods(rule, *one)}
            again = {p.name: p for p in parse_periods(rule, *other)}
        except InputError:
            return  # windows of the year leave gaps
        for name in known.keys() & again.keys():
            assert known[name] == again[name]

    @given(st.sampled_from(RULES), spans)
    def test_days_are_whole_utc_days(self, rule, span):
        try:
            found = parse_periods(rule, *span)
        except InputError:
            return
        for period in found:
            for side in (period.start, period.stop):
                assert side.tzinfo is dt.UTC
                assert side.time() == dt.time(0)

    @given(st.integers(1970, 2100), st.integers(1, 366))
    def test_every_n_days_from_new_year(self, year, count):
        found = of_year(f"P{count}D", year)
        length = 365 + calendar.isleap(year)
        assert days(found) == [min(count, length - day) for day in range(0, length, count)]
        assert found[0].start == utc(year, 1, 1)

    @given(st.integers(1970, 2100))
    def test_dekads_of_a_year(self, year):
        last = [calendar.monthrange(year, month)[1] - 20 for month in range(1, 13)]
        assert days(of_year("dekad", year)) == [n for end in last for n in (10, 10, end)]


class TestNames:
    def test_of_every_rule(self):
        assert names(of_year("year", 2018)) == ["2018"]
        assert names(of_year("month", 2018)) == [f"2018-{month:02}" for month in range(1, 13)]
        assert names(of_year("dekad", 2018))[9:12] == ["2018-04-d1", "2018-04-d2", "2018-04-d3"]
        assert names(of_year("P16D", 2018))[:2] == ["2018-01-01", "2018-01-17"]
        assert names(of_year("P16D", 2018))[-1] == "2018-12-19"

    def test_winter_is_of_the_year_of_january(self):
        found = of_year("season", 2018)
        assert names(found) == ["2018-DJF", "2018-MAM", "2018-JJA", "2018-SON", "2019-DJF"]
        assert (found[0].start, found[0].stop) == (utc(2017, 12, 1), utc(2018, 3, 1))
        assert (found[3].start, found[3].stop) == (utc(2018, 9, 1), utc(2018, 12, 1))

    def test_a_growing_season_crosses_the_year(self):
        found = of_year("10-01/06-30", 2018)
        assert names(found) == ["2017-10-01/2018-06-30", "2018-10-01/2019-06-30"]
        assert (found[0].start, found[0].stop) == (utc(2017, 10, 1), utc(2018, 7, 1))

    def test_a_window_inside_the_year(self):
        (found,) = of_year("04-15/08-31", 2018)
        assert found == Period("2018-04-15/2018-08-31", utc(2018, 4, 15), utc(2018, 9, 1))


class TestLeapYears:
    def test_29_february(self):
        assert days(of_year("season", 2020))[0] == 91
        assert days(of_year("month", 2020))[1] == 29
        assert days(of_year("dekad", 2020))[5] == 9
        assert days(of_year("P16D", 2020))[-1] == 14
        assert days(of_year("P16D", 2019))[-1] == 13
        assert days(of_year("P366D", 2020)) == [366]

    def test_a_window_that_begins_or_ends_on_it(self):
        assert of_year("02-29/03-31", 2019)[0].start == utc(2019, 3, 1)
        assert of_year("02-29/03-31", 2020)[0].start == utc(2020, 2, 29)
        assert of_year("01-15/02-29", 2019)[0].stop == utc(2019, 3, 1)
        assert of_year("01-15/02-29", 2020)[0].stop == utc(2020, 3, 1)
        assert of_year("02-29/02-29", 2020)[0].stop == utc(2020, 3, 1)
        with pytest.raises(InputError, match="no period of 02-29/02-29 meets 2019-01-01"):
            of_year("02-29/02-29", 2019)


class TestInterval:
    def test_both_moments_are_included(self):
        month = parse_periods("month", utc(2018, 4, 30, 23, 59), utc(2018, 6, 1))
        assert names(month) == ["2018-04", "2018-05", "2018-06"]

    def test_other_zones_are_utc(self):
        brussels = dt.timezone(dt.timedelta(hours=2))
        when = dt.datetime(2018, 5, 1, 1, 30, tzinfo=brussels)
        assert names(parse_periods("month", when, when)) == ["2018-04"]

    @pytest.mark.parametrize(
        ("first", "last"),
        [
            (dt.datetime(2018, 1, 1), utc(2018, 2, 1)),
            (utc(2018, 1, 1), dt.datetime(2018, 2, 1)),
            (utc(2018, 2, 1), utc(2018, 1, 1)),
        ],
    )
    def test_naive_and_reversed_are_refused(self, first, last):
        with pytest.raises(InputError, match="not two ascending times with a time zone"):
            parse_periods("month", first, last)

    def test_an_interval_between_the_windows(self):
        with pytest.raises(InputError, match="no period of 10-01/06-30 meets 2018-07-02 to"):
            parse_periods("10-01/06-30", utc(2018, 7, 2), utc(2018, 9, 1))

    @pytest.mark.parametrize("year", [1, 9999])
    def test_the_ends_of_the_calendar_do_not_crash(self, year):
        with pytest.raises(InputError, match="no period of season"):
            parse_periods("season", utc(year, 4, 1), utc(year, 4, 2))


class TestRules:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("P0D", "has 0 days, expected P1D to P366D"),
            ("P400D", "has 400 days"),
            ("13-01/02-01", "13-01, which is no month-day"),
            ("10-01/06-31", "06-31, which is no month-day"),
            ("weekly", "no rule and no readable file; expected year, season"),
            ("", "no rule and no readable file"),
            ("p16d", "no rule and no readable file"),
        ],
    )
    def test_what_is_no_rule(self, text, says):
        with pytest.raises(InputError, match=says):
            PeriodRule.parse(text)

    @pytest.mark.parametrize("text", RULES)
    def test_round_trip(self, text):
        rule = PeriodRule.parse(text)
        assert rule.to_json() == text
        assert PeriodRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule

    def test_a_saved_rule_opens_no_file(self, tmp_path):
        path = custom(tmp_path, [{"start": "2018-01-01", "end": "2018-01-31"}])
        with pytest.raises(InputError, match="is no rule"):
            PeriodRule.from_json(path)

    @given(st.sampled_from(RULES), spans)
    def test_frozen_periods_round_trip(self, text, span):
        try:
            found = parse_periods(text, *span)
        except InputError:
            return
        assert periods.from_json(json.loads(json.dumps(periods.to_json(found)))) == found


class TestCustom:
    def test_dates_times_gaps_and_overlaps(self, tmp_path):
        path = custom(
            tmp_path,
            [
                {"name": "late", "start": "2018-06-01", "end": "2018-07-15"},
                {"start": "2018-04-01", "end": "2018-05-15"},
                {"start": "2018-05-01T12:00:00+02:00", "end": "2018-05-20T00:00:00Z"},
                {"name": "local", "start": "2018-05-02", "end": "2018-05-03T06:30"},
            ],
        )
        found = of_year(path, 2018)
        assert found == (
            Period("2018-04-01/2018-05-15", utc(2018, 4, 1), utc(2018, 5, 16)),
            Period(
                "2018-05-01T10:00:00Z/2018-05-20T00:00:00Z", utc(2018, 5, 1, 10), utc(2018, 5, 20)
            ),
            Period("local", utc(2018, 5, 2), utc(2018, 5, 3, 6, 30)),
            Period("late", utc(2018, 6, 1), utc(2018, 7, 16)),
        )

    def test_a_date_as_the_end_includes_its_day(self, tmp_path):
        for end in ("2018-02-28", "20180228"):
            path = custom(tmp_path, [{"start": "2018-02-01", "end": end}])
            assert of_year(path, 2018)[0].stop == utc(2018, 3, 1)
        path = custom(tmp_path, [{"start": "2018-02-01", "end": "2018-02-28T00:00:00Z"}])
        assert of_year(path, 2018)[0].stop == utc(2018, 2, 28)

    def test_only_those_that_meet_the_interval(self, tmp_path):
        entries = [{"start": f"{year}-01-01", "end": f"{year}-12-31"} for year in (2017, 2018)]
        assert len(of_year(custom(tmp_path, entries), 2018)) == 1
        with pytest.raises(InputError, match="no period of the list meets 2020-01-01"):
            of_year(custom(tmp_path, entries), 2020)

    def test_the_content_is_the_identity(self, tmp_path):
        entries = [
            {"name": "b", "start": "2018-02-01", "end": "2018-02-28"},
            {"name": "a", "start": "2018-01-01", "end": "2018-01-31"},
        ]
        one = PeriodRule.parse(custom(tmp_path, entries))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        other = PeriodRule.parse(custom(elsewhere, entries[::-1]))
        assert one == other
        assert one.to_json() == [
            {"name": "a", "start": "2018-01-01T00:00:00Z", "end": "2018-02-01T00:00:00Z"},
            {"name": "b", "start": "2018-02-01T00:00:00Z", "end": "2018-03-01T00:00:00Z"},
        ]
        assert PeriodRule.from_json(json.loads(json.dumps(one.to_json()))) == one
        entries[0]["end"] = "2018-02-27"
        assert PeriodRule.parse(custom(tmp_path, entries)).to_json() != one.to_json()

    @pytest.mark.parametrize(
        ("entries", "says"),
        [
            ([], "is not a list of periods"),
            ({"start": "2018-01-01", "end": "2018-01-31"}, "is not a list of periods"),
            (["2018"], r'entry 1 is "2018", expected \{"start"'),
            ([{"start": "2018-01-01"}], "entry 1 is "),
            ([{"start": "2018-01-01", "end": "2018-01-31", "stop": 1}], "entry 1 is "),
            ([{"start": "2018-01-01", "end": 2018}], "entry 1: end is 2018, expected an ISO 8601"),
            ([{"start": None, "end": "2018-01-31"}], "entry 1: start is None"),
            ([{"start": "2018-01-01", "end": "2018-02-30"}], "entry 1: end is '2018-02-30'"),
            ([{"start": "2018-01-01", "end": "9999-12-31"}], "entry 1: end is '9999-12-31'"),
            ([{"start": "2018-02-01", "end": "2018-01-01"}], "entry 1: period .* not after its"),
            ([{"name": " ", "start": "2018-01-01", "end": "2018-01-31"}], "name is ' ', expected"),
            ([{"name": 7, "start": "2018-01-01", "end": "2018-01-31"}], "name is 7, expected"),
            (
                [
                    {"name": "a", "start": "2018-01-01", "end": "2018-01-31"},
                    {"name": "b", "start": "2018-01-01", "end": "2018-01-31"},
                    {"name": "a", "start": "2018-02-01", "end": "2018-02-28"},
                ],
                "entry 3 has the name 'a' of entry 1",
            ),
        ],
    )
    def test_errors_name_the_file_and_the_entry(self, tmp_path, entries, says):
        with pytest.raises(InputError, match=rf"custom\.json.*{says}"):
            PeriodRule.parse(custom(tmp_path, entries))

    def test_what_is_not_json(self, tmp_path):
        with pytest.raises(InputError, match=r"custom\.json is not JSON"):
            PeriodRule.parse(custom(tmp_path, None, text="[{"))
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"binary\.json is not JSON"):
            PeriodRule.parse(str(tmp_path / "binary.json"))


class TestPeriod:
    def test_is_utc_and_not_empty(self):
        with pytest.raises(InputError, match="expected times in UTC"):
            Period("a", dt.datetime(2018, 1, 1), utc(2018, 1, 2))
        with pytest.raises(InputError, match="expected times in UTC"):
            Period(
                "a",
                utc(2018, 1, 1),
                dt.datetime(2018, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            )
        with pytest.raises(InputError, match="not after its start"):
            Period("a", utc(2018, 1, 1), utc(2018, 1, 1))


class TestWidening:
    def test_by_periods_on_both_sides_as_far_as_there_are(self):
        months = of_year("month", 2018)
        for level, (start, stop) in enumerate(
            [(utc(2018, 5, 1), utc(2018, 6, 1)), (utc(2018, 4, 1), utc(2018, 7, 1))]
        ):
            assert neighbours(months, 4, level) == (start, stop)
        assert neighbours(months, 0, 2) == (utc(2018, 1, 1), utc(2018, 4, 1))
        assert neighbours(months, 11, 2) == (utc(2018, 10, 1), utc(2019, 1, 1))
        assert neighbours(months[:1], 0, 2) == (utc(2018, 1, 1), utc(2018, 2, 1))

    def test_a_period_inside_another_does_not_narrow_it(self):
        outer = Period("outer", utc(2018, 1, 1), utc(2018, 12, 1))
        inner = Period("inner", utc(2018, 2, 1), utc(2018, 3, 1))
        assert neighbours((outer, inner), 1, 1) == (utc(2018, 1, 1), utc(2018, 12, 1))

    @given(st.sampled_from(RULES), spans, st.integers(0, 2))
    def test_each_level_holds_the_one_before(self, rule, span, level):
        try:
            found = parse_periods(rule, *span)
        except InputError:
            return
        for i in range(min(len(found), 5)):
            start, stop = neighbours(found, i, level)
            wider = neighbours(found, i, level + 1)
            assert wider[0] <= start <= found[i].start
            assert found[i].stop <= stop <= wider[1]


class TestSelect:
    @given(
        st.sampled_from(RULES), spans, st.lists(moments, max_size=20).map(sorted), st.integers(0, 2)
    )
    def test_as_a_plain_filter_says(self, rule, span, times, level):
        try:
            found = parse_periods(rule, *span)[:20]
        except InputError:
            return
        ranges = select(found, times, level)
        assert len(ranges) == len(found)
        for i, (start, stop) in enumerate(ranges):
            after, before = neighbours(found, i, level)
            assert times[start:stop] == [t for t in times if after <= t < before]

    @given(st.sampled_from(TILING), st.lists(moments, min_size=1, max_size=20).map(sorted))
    def test_tiling_periods_share_out_the_observations(self, rule, times):
        times = [t for t in times if t - times[0] < dt.timedelta(days=3000)]
        ranges = select(parse_periods(rule, times[0], times[-1]), times)
        assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(times)))

    def test_the_start_is_in_and_the_stop_is_not(self):
        months = of_year("month", 2018)[:2]
        times = [utc(2018, 1, 1), utc(2018, 2, 1), utc(2018, 3, 1)]
        assert select(months, times) == ((0, 1), (1, 2))
        assert select(months, []) == ((0, 0), (0, 0))

    def test_unsorted_times_are_refused(self):
        with pytest.raises(InputError, match="do not ascend"):
            select(of_year("year", 2018), [utc(2018, 2, 1), utc(2018, 1, 1)])
