"""What features promise: the same bits for a column and for one row, local calendars, values that plain Python agrees with."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_core.features import catalogue
from fraud_core.features.catalogue import STANDARD_PLAN, compute, feature_frame, inputs_of
from fraud_core.features.feature import Feature
from fraud_core.units.arrays import Array
from fraud_core.units.time import DAY_US, utc_offset_us
from tests.history_features import BY_NAME, FEATURES

UTC_ZONE = ZoneInfo("UTC")
ZONES = (
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Antarctica/Troll",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COORDINATES = ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude")


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def inputs(count: int = 1, **given_arrays: Any) -> dict[str, Array]:
    """Canonical arrays of one ordinary transaction, repeated; some of them given."""
    ordinary: dict[str, Array] = {
        "timestamp": np.full(count, microseconds(datetime(2024, 3, 5, 10, tzinfo=UTC))),
        "amount_cents": np.full(count, 1_234),
        "birth_date": np.full(count, np.datetime64("1980-02-29")),
        "home_latitude": np.full(count, 47.37),
        "home_longitude": np.full(count, 8.54),
        "merchant_latitude": np.full(count, 47.4),
        "merchant_longitude": np.full(count, 8.6),
        "city_population": np.full(count, 400_000.0),
        "category": np.full(count, "grocery", dtype=object),
    }
    return ordinary | given_arrays


def one(name: str, zone: str = "UTC", **values: Any) -> Any:
    """A feature of one transaction."""
    arrays = {key: np.array([value]) for key, value in values.items()}
    return compute([BY_NAME[name]], inputs(**arrays), ZoneInfo(zone))[name][0]


# ---- the same bits for a column and for one row


def random_inputs(count: int, seed: int = 20) -> dict[str, Array]:
    rng = np.random.default_rng(seed)

    def holey(values: Array, missing: Any) -> Array:
        values[rng.random(count) < 0.02] = missing
        return values

    arrays: dict[str, Array] = {
        "timestamp": rng.integers(
            microseconds(datetime(1990, 1, 1, tzinfo=UTC)), microseconds(datetime(2035, 1, 1, tzinfo=UTC)), count
        ),
        "amount_cents": np.round(100 * rng.lognormal(3.5, 2.5, count)).astype(np.int64),
        "birth_date": holey(
            np.datetime64("1925-01-01") + rng.integers(0, 30_000, count).astype("timedelta64[D]"), np.datetime64("NaT")
        ),
        "city_population": holey(rng.integers(1, 10_000_000, count).astype(np.float64), np.nan),
        "category": holey(rng.choice(np.array(["food", "fuel", "net"], dtype=object), count), None),
    }
    for name in COORDINATES:
        arrays[name] = holey(rng.uniform(-90, 90, count) * (1 if "latitude" in name else 2), np.nan)
    for name in STANDARD_PLAN.names:
        if name.startswith("last timestamp"):
            arrays[name] = holey(arrays["timestamp"] - rng.integers(1, 30 * DAY_US, count).astype(np.float64), np.nan)
        elif "itude of" in name:
            arrays[name] = holey(rng.uniform(-90, 90, count) * (1 if "latitude" in name else 2), np.nan)
        elif name.startswith("seen"):
            arrays[name] = holey(rng.integers(0, 2, count).astype(np.float64), np.nan)
        else:
            arrays[name] = rng.integers(0, 100_000 if "cents" in name else 20, count).astype(np.float64)
    return arrays


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe"])
def test_twenty_thousand_rows_one_by_one_equal_the_column_bit_for_bit(zone: str) -> None:
    arrays = random_inputs(10_000)
    column = compute(FEATURES, arrays, ZoneInfo(zone))
    rows = [compute(FEATURES, {k: v[n : n + 1] for k, v in arrays.items()}, ZoneInfo(zone)) for n in range(10_000)]
    for feature in FEATURES:
        single = np.concatenate([row[feature.name] for row in rows])
        if feature.is_category:
            assert single.tolist() == column[feature.name].tolist()
        else:
            assert single.tobytes() == column[feature.name].tobytes(), feature.name


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**11),
            *[st.floats(-90, 90)] * 2,
            *[st.floats(-180, 180)] * 2,
            st.datetimes(datetime(1970, 1, 1), datetime(2037, 1, 1)),  # noqa: DTZ001
            st.dates(date(1900, 1, 1), date(2037, 1, 1)),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(ZONES[:6]),
)
def test_any_rows_at_any_place_in_a_column_have_the_bits_they_have_alone(rows: list[tuple[Any, ...]], zone: str) -> None:
    amount, home_lat, shop_lat, home_long, shop_long, when, born = zip(*rows, strict=True)
    arrays = inputs(
        len(rows),
        amount_cents=np.array(amount),
        home_latitude=np.array(home_lat),
        merchant_latitude=np.array(shop_lat),
        home_longitude=np.array(home_long),
        merchant_longitude=np.array(shop_long),
        timestamp=np.array([microseconds(moment.replace(tzinfo=UTC)) for moment in when]),
        birth_date=np.array(born, dtype="datetime64[D]"),
    )
    column = compute(catalogue.PLAIN, arrays, ZoneInfo(zone))
    strided = compute(catalogue.PLAIN, {k: np.repeat(v, 3)[::3] for k, v in arrays.items()}, ZoneInfo(zone))
    for n in range(len(rows)):
        alone = compute(catalogue.PLAIN, {k: v[n : n + 1].copy() for k, v in arrays.items()}, ZoneInfo(zone))
        for feature in catalogue.PLAIN:
            assert alone[feature.name].tobytes() == column[feature.name][n : n + 1].tobytes()
    for feature in catalogue.PLAIN:
        assert strided[feature.name].tolist() == column[feature.name].tolist()


def test_a_frame_of_raw_gives_the_values_of_its_rows_in_the_stored_types() -> None:
    arrays = random_inputs(2_000)
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(arrays["timestamp"]).cast(pl.Datetime("us", "UTC")),
            "amount_cents": arrays["amount_cents"],
            "birth_date": pl.Series(arrays["birth_date"]),
            **{name: pl.Series(arrays[name]).fill_nan(None) for name in COORDINATES},
            "city_population": pl.Series(arrays["city_population"]).fill_nan(None).cast(pl.Int64),
            "category": pl.Series(arrays["category"].tolist(), dtype=pl.String),
            **{name: arrays[name] for name in STANDARD_PLAN.names},
        }
    )
    zone = ZoneInfo("America/New_York")
    stored = feature_frame(frame, FEATURES, zone)
    assert dict(stored.schema) == {feature.name: feature.dtype for feature in FEATURES}
    wanted = compute(FEATURES, arrays, zone)
    for feature in FEATURES:
        if feature.is_category:
            assert stored[feature.name].to_list() == wanted[feature.name].tolist()
        else:
            found = stored[feature.name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            np.testing.assert_array_equal(found, wanted[feature.name])


def test_a_row_that_comes_later_changes_no_feature_of_an_earlier_one() -> None:
    arrays = random_inputs(500)
    before = compute(FEATURES, {k: v[:400] for k, v in arrays.items()}, UTC_ZONE)
    after = compute(FEATURES, arrays, UTC_ZONE)
    for feature in FEATURES:
        kept = after[feature.name][:400]
        if feature.is_category:
            assert before[feature.name].tolist() == kept.tolist()
        else:
            assert before[feature.name].tobytes() == kept.tobytes()


def test_no_rows_have_no_features_and_no_error() -> None:
    frame = pl.DataFrame(
        schema={
            "timestamp": pl.Datetime("us", "UTC"),
            "amount_cents": pl.Int64,
            "birth_date": pl.Date,
            "category": pl.String,
            "city_population": pl.Int64,
            **dict.fromkeys([*COORDINATES, *STANDARD_PLAN.names], pl.Float64),
        }
    )
    stored = feature_frame(frame, FEATURES, ZoneInfo("Europe/Zurich"))
    assert stored.schema == pl.Schema({feature.name: feature.dtype for feature in FEATURES})
    assert len(stored) == 0


# ---- the calendar is local


@settings(max_examples=300)
@given(st.sampled_from(ZONES[:6]), st.datetimes(datetime(1970, 1, 1), datetime(2037, 12, 1)))  # noqa: DTZ001
def test_hour_weekday_and_night_are_those_of_zoneinfo(zone: str, moment: datetime) -> None:
    instant = moment.replace(tzinfo=UTC)
    local = instant.astimezone(ZoneInfo(zone))
    arrays = inputs(timestamp=np.array([microseconds(instant)]))
    found = compute([BY_NAME[name] for name in ("hour", "weekday", "night")], arrays, ZoneInfo(zone))
    wanted = {"hour": local.hour, "weekday": local.weekday(), "night": float(local.hour >= 22 or local.hour < 6)}
    assert {name: values[0] for name, values in found.items()} == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_the_offset_is_that_of_zoneinfo_in_every_hour_of_years_with_odd_changes(zone: str) -> None:
    """2010: Cairo changed four times; 2011: Apia left out a day; 2019: Casablanca's clocks moved for Ramadan."""
    for year in (2010, 2011, 2019, 2022):
        begin = datetime(year, 1, 1, tzinfo=UTC)
        moments = [begin + timedelta(hours=hour) for hour in range(24 * 365)]
        found = utc_offset_us(np.array([microseconds(moment) for moment in moments]), ZoneInfo(zone))
        wanted = [moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in moments]
        assert found.tolist() == [offset // timedelta(microseconds=1) for offset in wanted if offset is not None]


def test_the_clock_changes_at_the_very_microsecond() -> None:
    change = microseconds(datetime(2024, 3, 31, 1, tzinfo=UTC))
    found = utc_offset_us(np.array([change - 1, change]), ZoneInfo("Europe/Zurich"))
    assert (found / 3_600_000_000).tolist() == [1, 2]


@pytest.mark.parametrize("moment", [datetime(1850, 1, 1, tzinfo=UTC), datetime(2150, 7, 1, tzinfo=UTC)])
def test_instants_outside_of_the_table_still_have_an_hour(moment: datetime) -> None:
    assert 0 <= one("hour", "Europe/Zurich", timestamp=microseconds(moment)) <= 23


@pytest.mark.parametrize(
    ("local", "night"), [("21:59:59", 0), ("22:00:00", 1), ("23:59:59", 1), ("00:00:00", 1), ("05:59:59", 1), ("06:00:00", 0)]
)
def test_night_is_from_22_to_6_by_the_local_clock(local: str, night: int) -> None:
    zone = "America/New_York"
    moment = datetime.fromisoformat(f"2024-07-10T{local}").replace(tzinfo=ZoneInfo(zone))
    assert one("night", zone, timestamp=microseconds(moment.astimezone(UTC))) == night


# ---- age


def completed_years(born: date, today: date) -> int:
    """By the calendar: whoever is born on 29 February has the birthday on 1 March in other years."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


@settings(max_examples=300, deadline=None)  # the first one of a zone makes its table of transitions
@given(
    st.dates(date(1900, 1, 1), date(2020, 1, 1)) | st.sampled_from([date(year, 2, 29) for year in range(1904, 2020, 4)]),
    st.datetimes(datetime(2020, 1, 1), datetime(2036, 1, 1)),  # noqa: DTZ001
    st.sampled_from(ZONES[:6]),
)
def test_age_is_in_completed_years_on_the_local_day(born: date, moment: datetime, zone: str) -> None:
    instant = moment.replace(tzinfo=UTC)
    found = one("age", zone, birth_date=np.datetime64(born), timestamp=microseconds(instant))
    assert found == completed_years(born, instant.astimezone(ZoneInfo(zone)).date())


@pytest.mark.parametrize(
    ("born", "today", "age"),
    [
        ("2004-02-29", "2023-02-28", 18),
        ("2004-02-29", "2023-03-01", 19),
        ("2004-02-29", "2024-02-28", 19),
        ("2004-02-29", "2024-02-29", 20),
        ("1980-12-31", "2020-12-30", 39),
        ("1980-12-31", "2020-12-31", 40),
        ("1969-12-31", "1970-01-01", 0),
        ("1900-01-01", "2024-01-01", 124),
    ],
)
def test_birthdays_come_on_their_day(born: str, today: str, age: int) -> None:
    moment = datetime.fromisoformat(f"{today}T12:00:00+00:00")
    assert one("age", birth_date=np.datetime64(born), timestamp=microseconds(moment)) == age


def test_the_birthday_begins_at_local_midnight() -> None:
    midnight = datetime(2024, 3, 5, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
    ages = [
        one("age", "America/New_York", birth_date=np.datetime64("1980-03-05"), timestamp=microseconds(midnight) + shift)
        for shift in (-1, 0)
    ]
    assert ages == [43, 44]


# ---- distance


def great_circle(home_lat: float, home_long: float, lat: float, long: float) -> float:
    """By the angle between the two unit vectors, in metres: another formula than the haversine."""

    def vector(latitude: float, longitude: float) -> tuple[float, float, float]:
        phi, theta = math.radians(latitude), math.radians(longitude)
        return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)

    a, b = vector(home_lat, home_long), vector(lat, long)
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return 6_371_008.8 * math.atan2(math.hypot(*cross), sum(x * y for x, y in zip(a, b, strict=True)))


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_distance_is_the_great_circle_in_whole_metres(home_lat: float, home_long: float, lat: float, long: float) -> None:
    found = one("distance", home_latitude=home_lat, home_longitude=home_long, merchant_latitude=lat, merchant_longitude=long)
    assert found == math.floor(found)
    assert found == pytest.approx(great_circle(home_lat, home_long, lat, long), abs=1.01)


@pytest.mark.parametrize(
    ("places", "metres"),
    [
        ((0, 0, 0, 0), 0),
        ((90, 0, -90, 0), math.pi * 6_371_008.8),
        ((0, 0, 0, 180), math.pi * 6_371_008.8),
        ((0, -180, 0, 180), 0),
        ((0, 179.5, 0, -179.5), math.radians(1) * 6_371_008.8),
        ((48.8566, 2.3522, 51.5074, -0.1278), 343_560),  # Paris to London
    ],
)
def test_distances_that_are_known(places: tuple[float, ...], metres: float) -> None:
    assert one("distance", **dict(zip(COORDINATES, map(float, places), strict=True))) == pytest.approx(metres, abs=50)


# ---- amount, and what is missing


@given(st.integers(0, 10**11))
def test_the_logarithm_of_an_amount_lies_on_its_grid(cents: int) -> None:
    found = one("log_amount", amount_cents=cents)
    assert found == round(found * 1e9) / 1e9
    assert found == pytest.approx(math.log1p(cents / 100), abs=1e-9)


@pytest.mark.parametrize(
    ("feature", "missing"),
    [
        ("age", {"birth_date": np.datetime64("NaT", "D")}),
        ("city_population", {"city_population": np.nan}),
        *[("distance", {name: np.nan}) for name in COORDINATES],
    ],
)
def test_a_missing_value_makes_a_missing_feature(feature: str, missing: dict[str, Any]) -> None:
    assert np.isnan(one(feature, **missing))


def test_a_missing_category_stays_missing() -> None:
    arrays = inputs(category=np.array([None], dtype=object))
    assert compute([BY_NAME["category"]], arrays, UTC_ZONE)["category"].tolist() == [None]


# ---- which features there are


def test_a_source_without_a_column_does_without_the_features_that_need_it() -> None:
    bare = catalogue.STANDARD.available({"timestamp", "amount_cents", "label"})
    assert [feature.name for feature in bare] == ["log_amount", "hour", "weekday", "night"]
    everything = {"timestamp", "amount_cents", "birth_date", "category", "city_population", *COORDINATES}
    assert catalogue.STANDARD.available(everything, history_days=30) == catalogue.PLAIN
    assert catalogue.STANDARD.available(everything | {"card", "merchant"}, history_days=30) == FEATURES
    assert catalogue.STANDARD.available(everything | {"card", "merchant"}) == catalogue.PLAIN
    of_merchants = catalogue.STANDARD.available(everything | {"merchant"}, history_days=30)[len(catalogue.PLAIN) :]
    assert {tally.of for feature in of_merchants for tally in feature.tallies} == {("merchant",)}
    assert "distance" not in {feature.name for feature in catalogue.STANDARD.available(everything - {"home_longitude"})}


def test_no_feature_speaks_of_a_longer_window_than_the_source_looks_back() -> None:
    columns = {"timestamp", "amount_cents", "card", "merchant"}
    names = {feature.name for feature in catalogue.STANDARD.available(columns, history_days=7)}
    assert {"card_count_7d", "merchant_count_7d", "seconds_since_last"} <= names
    assert not {name for name in names if "30d" in name or name == "amount_over_mean"}


def test_an_excluded_feature_is_left_out() -> None:
    names = [feature.name for feature in catalogue.STANDARD.available({"timestamp", "amount_cents"}, {"weekday"})]
    assert names == ["log_amount", "hour", "night"]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_asks_for_no_column_that_it_did_not_declare(feature: Feature) -> None:
    asked: set[str] = set()

    class Watched(dict[str, Array]):
        def __getitem__(self, name: str) -> Array:
            asked.add(name)
            return super().__getitem__(name)

    arrays = random_inputs(3)
    offset: Callable[[Array, ZoneInfo], Array] = utc_offset_us
    feature.compute(Watched(arrays, local_us=arrays["timestamp"] + offset(arrays["timestamp"], UTC_ZONE)))
    columns = {"timestamp" if name == "local_us" else name for name in asked}
    assert columns & set(STANDARD_PLAN.names) == {tally.name for tally in feature.tallies}
    assert columns - {tally.name for tally in feature.tallies} == (feature.reads if feature.is_history else feature.needs)


def test_only_the_needed_columns_are_taken_out_of_a_frame() -> None:
    frame = pl.DataFrame(
        {"timestamp": pl.Series([0]).cast(pl.Datetime("us", "UTC")), "amount_cents": [1], "card": ["x"], "label": [True]}
    )
    assert set(inputs_of(frame, [BY_NAME["log_amount"]])) == {"timestamp", "amount_cents"}
