"""What partitions promise: every instant lies in exactly one of them, by the local calendar, whatever the clocks do."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_core.errors import PartitionError
from fraud_core.sources.partitions import Cadence, first_day, key_expression, key_of, key_range, next_key, preceding_keys, window

# Among them zones whose clocks change at midnight, and one that left out a day.
ZONES = ("UTC", "Europe/Zurich", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Pacific/Apia")
DAYS = st.dates(date(1990, 1, 1), date(2035, 12, 31))
CADENCES = st.sampled_from(list(Cadence))


@given(DAYS, CADENCES)
def test_a_day_lies_between_the_first_day_of_its_key_and_that_of_the_next(day: date, cadence: Cadence) -> None:
    key = key_of(day, cadence)
    assert first_day(key, cadence) <= day < first_day(next_key(key, cadence), cadence)


@settings(deadline=None)  # a busy machine must not fail it
@given(DAYS, CADENCES)
def test_keys_sort_like_time_and_a_range_leaves_none_out(day: date, cadence: Cadence) -> None:
    first, last = key_of(day, cadence), key_of(day + timedelta(days=800), cadence)
    keys = key_range(first, last, cadence)
    assert (keys[0], keys[-1]) == (first, last)
    assert keys == sorted(set(keys))
    assert set(keys) == {key_of(day + timedelta(days=offset), cadence) for offset in range(801)}


def test_a_range_that_ends_before_it_begins_is_empty() -> None:
    assert key_range("2024-02", "2024-01", Cadence.MONTHLY) == []


@settings(max_examples=100)
@given(st.sampled_from(ZONES), CADENCES, st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)), min_size=1))  # noqa: DTZ001
def test_every_instant_lies_in_the_window_of_its_key_which_is_that_of_its_local_day(
    zone_name: str, cadence: Cadence, times: list[datetime]
) -> None:
    zone, instants = ZoneInfo(zone_name), [time.replace(tzinfo=UTC) for time in times]
    frame = pl.DataFrame({"t": pl.Series(instants, dtype=pl.Datetime("us", "UTC"))})
    keys = frame.select(key_expression(pl.col("t"), cadence, zone)).to_series().to_list()
    assert keys == [key_of(instant.astimezone(zone).date(), cadence) for instant in instants]
    for key, instant in zip(keys, instants, strict=True):
        start, end = window(key, cadence, zone)
        assert start <= instant < end


@pytest.mark.parametrize("zone", ZONES)
def test_daily_windows_follow_each_other_without_gap_or_overlap(zone: str) -> None:
    windows = [window(key, Cadence.DAILY, ZoneInfo(zone)) for key in key_range("2011-12-01", "2012-12-31", Cadence.DAILY)]
    assert all(end == start for (_, end), (start, _) in pairwise(windows))
    hours = {(end - start) // timedelta(hours=1) for start, end in windows}
    assert hours <= {0, 23, 24, 25}


def test_a_day_of_changed_clocks_has_23_or_25_hours() -> None:
    zurich = ZoneInfo("Europe/Zurich")
    lengths = [end - start for start, end in (window(day, Cadence.DAILY, zurich) for day in ("2024-03-31", "2024-10-27"))]
    assert lengths == [timedelta(hours=23), timedelta(hours=25)]


@given(DAYS, CADENCES, st.integers(0, 120))
def test_the_preceding_partitions_hold_every_day_that_is_looked_back_upon_and_no_other(
    day: date, cadence: Cadence, days: int
) -> None:
    key = key_of(day, cadence)
    start = first_day(key, cadence)
    needed = {key_of(start - timedelta(days=back), cadence) for back in range(1, days + 1)}
    assert preceding_keys(key, days, cadence, "0000") == sorted(needed)


def test_nothing_precedes_the_first_partition() -> None:
    assert preceding_keys("2024-01", 60, Cadence.MONTHLY, "2024-01") == []
    assert preceding_keys("2024-02", 60, Cadence.MONTHLY, "2024-01") == ["2024-01"]


@pytest.mark.parametrize(
    ("key", "cadence"),
    [
        ("2024-1", Cadence.MONTHLY),
        ("2024-13", Cadence.MONTHLY),
        ("2024-01-01", Cadence.MONTHLY),
        ("2024", Cadence.MONTHLY),
        ("24", Cadence.YEARLY),
        ("2024-02-30", Cadence.DAILY),
        ("yesterday", Cadence.DAILY),
        ("", Cadence.YEARLY),
    ],
)
def test_what_is_no_key_is_refused_with_how_keys_look(key: str, cadence: Cadence) -> None:
    with pytest.raises(PartitionError, match=f"'{key}' is not"):
        first_day(key, cadence)


def test_a_week_is_named_by_its_monday() -> None:
    assert key_of(date(2024, 1, 7), Cadence.WEEKLY) == "2024-01-01"
    with pytest.raises(PartitionError, match="use '2024-01-01'"):
        first_day("2024-01-03", Cadence.WEEKLY)
