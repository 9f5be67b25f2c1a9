"""What parsing promises: nothing is coerced in silence; what does not fit is refused, with line, column, reason and mask."""

# ruff: noqa: DTZ001 - the wall clocks of these tests have no zone

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_core.fields import schema
from fraud_core.intake.files import LINE, LONGEST_CELL
from fraud_core.intake.parsing import PARTITION, Parsed, masked, parse, split_bucket
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from fraud_core.sources.source import Source
from fraud_core.units.canonical_text import LOST_DIGITS
from tests.unit.fraud_core.intake.shop import CARD, CARD_KEY, COLUMNS, ROW, Intake, parsed, read

ZONES = ("Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Asia/Kathmandu")


def source(columns: Mapping[str, Any] = COLUMNS, **changes: Any) -> Source:
    declared = {
        "name": "shop",
        "paths": ["a.csv"],
        "timezone": "Europe/Zurich",
        "cadence": "monthly",
        "first": "1900-01",
        "label_delay_days": 7,
        "columns": columns,
    }
    return Source.model_validate(declared | changes)


def parse_rows(rows: list[dict[str, Any]], declared: Source | None = None, key: Key = CARD_KEY, **types: Any) -> Parsed:
    """Rows, as a file would give them, in the types given; text where none is."""
    chunk = pl.DataFrame([ROW | row for row in rows], schema={name: types.get(name, pl.String()) for name in ROW})
    chunk = chunk.with_row_index(LINE, offset=1).with_columns(pl.col(LINE).cast(pl.UInt32))
    return parse(chunk, "a.csv", declared or source(), key)


def one(row: dict[str, Any], declared: Source | None = None, **types: Any) -> dict[str, Any]:
    """The canonical row of a row that is kept."""
    result = parse_rows([row], declared, **types)
    assert result.refused.is_empty(), result.refused.row(0, named=True)
    return result.rows.row(0, named=True)


def refusal(row: dict[str, Any], declared: Source | None = None, **types: Any) -> dict[str, Any]:
    """The quarantine record of a row that is refused."""
    result = parse_rows([row], declared, **types)
    assert result.rows.is_empty(), result.rows.row(0, named=True)
    return result.refused.row(0, named=True)


# ---- what is kept


def test_a_row_becomes_canonical_with_its_provenance() -> None:
    row = one({})
    assert {name: value for name, value in row.items() if name not in {"card", "split_bucket"}} == {
        "transaction_id": "t1",
        "timestamp": datetime(2024, 3, 5, 9, 20, 30, tzinfo=UTC),
        "amount_cents": 1234,
        "label": False,
        "merchant": "Corner shop",
        "category": "grocery",
        "birth_date": date(1980, 2, 29),
        "home_latitude": 47.37,
        "home_longitude": 8.54,
        "merchant_latitude": 47.4,
        "merchant_longitude": 8.6,
        "city_population": 400_000,
        "source_file": "a.csv",
        "source_line": 1,
        PARTITION: "2024-03",
    }


def test_rows_have_the_schema_of_raw_whatever_the_types_of_the_source() -> None:
    wanted = {**schema.raw_schema(source().columns.canonical), PARTITION: pl.String()}
    typed = {"sum": 12.34, "people": 5, "lat": 1.0, "when": datetime(2024, 3, 5), "born": date(1980, 1, 1), "pan": 4}
    types = {
        "sum": pl.Float64,
        "people": pl.Int32,
        "lat": pl.Float32,
        "when": pl.Datetime("ms"),
        "born": pl.Date,
        "pan": pl.Int64,
    }
    assert dict(parse_rows([{}]).rows.schema) == wanted
    assert dict(parse_rows([typed], **types).rows.schema) == wanted
    assert dict(parse_rows([]).rows.schema) == wanted


def test_rows_refused_and_kept_together_are_all_rows() -> None:
    result = parse_rows([{"sum": value} for value in ("1", "x", "2", "-1", "3")])
    assert result.rows["source_line"].to_list() == [1, 3, 5]
    assert result.refused["source_line"].to_list() == [2, 4]
    assert result.refused.schema == {**schema.QUARANTINE_SCHEMA, PARTITION: pl.String()}


@pytest.mark.parametrize("column", ["shop", "kind", "born", "lat", "long", "shop_lat", "shop_long", "people"])
def test_an_optional_value_may_be_missing(column: str) -> None:
    canonical = next(
        name for name in source().columns.canonical if getattr(source().columns.declared(name), "column", "") == column
    )
    assert one({column: "  "})[canonical] is None


def test_a_source_may_do_without_labels() -> None:
    result = parse_rows([{}], source({name: value for name, value in COLUMNS.items() if name != "label"}))
    assert "label" not in result.rows.columns
    assert (len(result.rows), result.repaired) == (1, 0)


def test_hashed_cards_stay_as_they_are_and_a_card_number_is_none() -> None:
    declared = source({**COLUMNS, "card": {"columns": ["pan"], "hashed": True}})
    hashed = hashed_card(CARD, CARD_KEY)
    assert one({"pan": hashed}, declared)["card"] == hashed
    refused = refusal({"pan": CARD}, declared)
    assert (refused["column"], refused["reason"], refused["value"]) == ("card", "is not a keyed hash of a card", "(hidden)")


def test_declared_characters_are_stripped_and_spaces_always() -> None:
    assert one({"shop": ' "Stokes, "Christiansen" and Sipes" '})["merchant"] == 'Stokes, "Christiansen" and Sipes'


# ---- amounts


@settings(deadline=None, max_examples=30)  # a parse each
@given(st.integers(0, 10**11), st.sampled_from(["", "+", "0", "00"]), st.sampled_from(["", "0", "000"]))
def test_amounts_in_text_are_exact_to_the_cent(cents: int, before: str, after: str) -> None:
    text = f"{before}{cents // 100}.{cents % 100:02d}{after}"
    assert one({"sum": text})["amount_cents"] == cents == int(Decimal(text) * 100)


@pytest.mark.parametrize(("text", "cents"), [("12", 1200), ("12.5", 1250), (" 12.34 ", 1234), ("0", 0), ("-0.00", 0)])
def test_amounts_may_have_no_or_one_decimal(text: str, cents: int) -> None:
    assert one({"sum": text})["amount_cents"] == cents


@settings(deadline=None, max_examples=30)  # a parse each
@given(st.integers(0, 10**11))
def test_amounts_in_floats_are_exact_to_the_cent(cents: int) -> None:
    assert one({"sum": cents / 100}, sum=pl.Float64())["amount_cents"] == cents


@settings(deadline=None, max_examples=30)  # a parse each
@given(st.integers(0, 8_388_000))
def test_amounts_in_32_bit_floats_are_exact_as_far_as_these_tell_cents_apart(cents: int) -> None:
    assert one({"sum": cents / 100}, sum=pl.Float32())["amount_cents"] == cents


@pytest.mark.parametrize("amount", [1_234_567.89, 0.125, 14.375])
def test_amounts_that_32_bit_floats_cannot_tell_are_refused(amount: float) -> None:
    assert refusal({"sum": amount}, sum=pl.Float32())["reason"] == "is not an amount with at most two decimals"


def test_amounts_may_be_decimals_or_whole_numbers() -> None:
    assert one({"sum": Decimal("12.3400")}, sum=pl.Decimal(18, 4))["amount_cents"] == 1234
    assert one({"sum": 12}, sum=pl.Int16())["amount_cents"] == 1200


def test_a_currency_sign_can_be_stripped() -> None:
    declared = source(COLUMNS | {"amount": {"column": "sum", "strip": "$ "}})
    assert one({"sum": "$ 12.34"}, declared)["amount_cents"] == 1234


# ---- refusals

MISSING = "is missing"
NO_AMOUNT = "is not an amount with at most two decimals"
NO_LABEL = "is neither 'F' nor 'L'"
NO_TIME = "does not have the declared format (%Y-%m-%d %H:%M:%S)"
NO_BIRTH = "does not have the declared format (%d.%m.%Y)"
NO_NUMBER = "is not a finite number"
NO_COUNT = "is not a whole number"
CARD_NUMBER = "holds what looks like a card number"
CONTROL = "holds control characters"


@pytest.mark.parametrize(
    ("given_row", "column", "reason", "value"),
    [
        ({"id": " "}, "transaction_id", MISSING, "(empty)"),
        ({"when": ""}, "timestamp", MISSING, "(empty)"),
        ({"when": "2024-13-01 00:00:00"}, "timestamp", NO_TIME, "9999-99-99 99:99:99"),
        ({"when": "05-03-2024 00:00:00"}, "timestamp", NO_TIME, "99-99-9999 99:99:99"),
        ({"when": "2024-03-05"}, "timestamp", NO_TIME, "9999-99-99"),
        ({"when": "2024-02-30 10:00:00"}, "timestamp", NO_TIME, "9999-99-99 99:99:99"),
        (
            {"when": "2024-03-31 02:30:00"},
            "timestamp",
            "does not exist in Europe/Zurich (clocks were put forward)",
            "9999-99-99 99:99:99",
        ),
        ({"sum": ""}, "amount_cents", MISSING, "(empty)"),
        ({"sum": "12,50"}, "amount_cents", NO_AMOUNT, "99,99"),
        ({"sum": "1.005"}, "amount_cents", NO_AMOUNT, "9.999"),
        ({"sum": "1e3"}, "amount_cents", NO_AMOUNT, "9x9"),
        ({"sum": "NaN"}, "amount_cents", NO_AMOUNT, "xxx"),
        ({"sum": "١٢"}, "amount_cents", NO_AMOUNT, "99"),
        ({"sum": "1234567890123456"}, "amount_cents", NO_AMOUNT, "9999999999999999"),
        ({"sum": "-3.00"}, "amount_cents", "is out of bounds (0 to 1e+11 cents)", "-9.99"),
        ({"sum": "1000000000.01"}, "amount_cents", "is out of bounds (0 to 1e+11 cents)", "9999999999.99"),
        ({"outcome": "fraud"}, "label", NO_LABEL, "xxxxx"),
        ({"outcome": "l"}, "label", NO_LABEL, "x"),
        ({"outcome": "X!"}, "label", NO_LABEL, "x!"),
        ({"pan": ""}, "card", MISSING, "(hidden)"),
        ({"born": "1980-02-29"}, "birth_date", NO_BIRTH, "(hidden)"),
        ({"born": "29.02.1981"}, "birth_date", NO_BIRTH, "(hidden)"),
        ({"born": "31.12.1899"}, "birth_date", "lies before 1900 or after the transaction", "(hidden)"),
        ({"born": "06.03.2024"}, "birth_date", "lies before 1900 or after the transaction", "(hidden)"),
        ({"lat": "90.1"}, "home_latitude", "is out of bounds (-90 to 90)", "(hidden)"),
        ({"long": "x"}, "home_longitude", NO_NUMBER, "(hidden)"),
        ({"shop_lat": "-91"}, "merchant_latitude", "is out of bounds (-90 to 90)", "-99"),
        ({"shop_lat": "nan"}, "merchant_latitude", NO_NUMBER, "xxx"),
        ({"shop_long": "inf"}, "merchant_longitude", NO_NUMBER, "xxx"),
        ({"shop_long": "8,6"}, "merchant_longitude", NO_NUMBER, "9,9"),
        ({"people": "1.5"}, "city_population", NO_COUNT, "9.9"),
        ({"people": "-1"}, "city_population", "is out of bounds (0 to 1e+09)", "-9"),
        ({"people": "many"}, "city_population", NO_COUNT, "xxxx"),
        ({"id": "4111 1111 1111 1111"}, "transaction_id", CARD_NUMBER, "9999 9999 9999 9999"),
        ({"shop": "Visa/4111.1111.1111.1111"}, "merchant", CARD_NUMBER, "xxxx/9999.9999.9999.9999"),
        ({"kind": CARD}, "category", CARD_NUMBER, "9999999999999999"),
        ({"kind": "a\x00b"}, "category", CONTROL, "x\x00x"),
        ({"shop": "x" * 201}, "merchant", "is longer than 200 characters", "x" * 40),
        ({"shop": "4.5E+15"}, "merchant", LOST_DIGITS, "9.9x+99"),
        ({"pan": "4.5E+15"}, "card", LOST_DIGITS, "(hidden)"),
        ({"pan": "4992346398065154184.0"}, "card", LOST_DIGITS, "(hidden)"),
    ],
)
def test_a_row_is_refused_with_its_column_reason_and_mask(
    given_row: dict[str, str], column: str, reason: str, value: str
) -> None:
    found = refusal(given_row)
    assert (found["source_file"], found["source_line"]) == ("a.csv", 1)
    assert (found["column"], found["reason"], found["value"]) == (column, reason, value)


def test_in_a_text_that_is_too_long_for_a_name_nothing_is_looked_for(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    render_case: list[str] = []
    monkeypatch.setattr(
        "fraud_core.signing.card_numbers.holds_card_number", lambda text, *, alone: render_case.append(text) or False
    )
    path = intake.rows(
        {"id": "1 " * 50_000, "shop": "1 2" * 50_000, "pan": "3" * 50_000}, {"shop": "4" * 50_000}, {"pan": "5" * 65}
    )
    chunk = read(path, intake.source())
    result = parse(chunk, path.name, intake.source(), CARD_KEY)
    assert max(map(len, render_case)) <= 201
    assert max(map(len, chunk["shop"])) <= LONGEST_CELL + 1
    assert result.refused["reason"].to_list() == [f"is longer than {most} characters" for most in (128, 200, 64)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("column", "reason"), [("shop_lat", NO_NUMBER), ("people", NO_COUNT), ("sum", NO_AMOUNT)])
def test_a_float_that_is_no_number_is_refused_wherever_it_stands(value: float, column: str, reason: str) -> None:
    assert refusal({column: value}, **{column: pl.Float64()})["reason"] == reason


def test_a_typed_value_may_be_missing_only_where_a_text_may() -> None:
    types = {"when": pl.Datetime("us"), "sum": pl.Float64(), "pan": pl.Int64(), "id": pl.Int64()}
    for column, dtype in types.items():
        found = refusal({column: None}, **{column: dtype})
        assert (found["reason"], found["value"]) == (MISSING, "(hidden)" if column == "pan" else "(empty)")
    assert one({"people": None}, people=pl.Float64())["city_population"] is None
    assert one({"shop_lat": None}, shop_lat=pl.Float64())["merchant_latitude"] is None
    assert one({"born": None}, born=pl.Date())["birth_date"] is None


def test_the_first_problem_in_canonical_order_is_told_and_counted_once() -> None:
    result = parse_rows([{"people": "x", "sum": "x", "pan": ""}])
    assert result.refused["column"].to_list() == ["amount_cents"]


@given(st.text(max_size=60))
def test_a_mask_tells_no_letter_and_no_digit(text: str) -> None:
    shown = pl.select(masked(pl.lit(text))).item()
    assert len(shown) <= 40
    assert all(character in "x9" or not character.isalnum() for character in shown)


def test_no_personal_value_is_in_the_quarantine_whatever_is_wrong_with_the_row() -> None:
    secrets = {"pan": CARD, "born": "29.02.1980", "lat": "47.37123", "long": "8.54123"}
    rows = [secrets | {"sum": "x"}, secrets | {"lat": "99.37123"}, secrets | {"born": "29-02-1980"}, secrets | {"when": CARD}]
    told = parse_rows(rows).refused.write_csv()
    assert not any(secret in told for secret in (CARD, "1980", "37123", "54123"))


@pytest.mark.parametrize("when", ["", "x", "2024-03-31 02:30:00", "1899-12-31 23:59:59", "2030-01-01 00:00:00"])
def test_a_refused_row_without_a_usable_time_has_no_partition(when: str) -> None:
    assert refusal({"when": when}, source(last="2024-12"))[PARTITION] is None


def test_a_refused_row_with_a_usable_time_keeps_its_partition() -> None:
    assert refusal({"sum": "x"})[PARTITION] == "2024-03"


@pytest.mark.parametrize(
    ("when", "inside"),
    [
        ("2023-12-31 23:59:59", False),
        ("2024-01-01 00:00:00", True),
        ("2024-02-29 23:59:59", True),
        ("2024-03-01 00:00:00", False),
        ("0024-01-01 00:00:00", False),
        ("-2024-01-01 00:00:00", False),
    ],
)
def test_only_rows_within_the_sources_partitions_are_kept(when: str, inside: bool) -> None:
    result = parse_rows([{"when": when}], source(first="2024-01", last="2024-02"))
    assert len(result.rows) == inside
    if not inside:
        assert result.refused["reason"][0] == "lies outside the source's partitions, from 2024-01 to 2024-02"


def test_an_open_source_has_no_last_partition() -> None:
    assert one({"when": "2199-01-01 00:00:00"}, source(first="2024-01"))[PARTITION] == "2199-01"
    assert refusal({"when": "2023-12-31 00:00:00"}, source(first="2024-01"))["reason"].endswith("from 2024-01 on")


# ---- labels


@pytest.mark.parametrize(("text", "label"), [("F", True), ("L", False), (" F ", True), ('F!"2024-01-01"', True), ("L!x", False)])
def test_labels_are_read_as_declared_and_repaired_by_the_stated_rule(text: str, label: bool) -> None:
    assert one({"outcome": text})["label"] is label


def test_repairs_are_counted_apart_and_only_in_rows_that_are_kept() -> None:
    rows = [{"outcome": "F!1"}, {"outcome": "L!2"}, {"outcome": "F"}, {"outcome": "F!3", "sum": "x"}, {"outcome": "X!"}]
    assert parse_rows(rows).repaired == 2


def test_without_a_rule_nothing_is_repaired() -> None:
    declared = source(COLUMNS | {"label": {"column": "outcome", "fraud": "F", "legitimate": "L"}})
    result = parse_rows([{"outcome": "F!"}, {"outcome": "F"}], declared)
    assert (result.repaired, len(result.rows), len(result.refused)) == (0, 1, 1)


@pytest.mark.parametrize(("dtype", "fraud"), [(pl.Boolean(), True), (pl.Int64(), 1), (pl.Float64(), 1.0), (pl.UInt8(), 1)])
def test_typed_labels_are_read_as_1_and_0(dtype: pl.DataType, fraud: Any) -> None:
    declared = source(COLUMNS | {"label": "outcome"})
    assert one({"outcome": fraud}, declared, outcome=dtype)["label"] is True
    assert one({"outcome": type(fraud)(0)}, declared, outcome=dtype)["label"] is False


# ---- times


def instants(times: list[str], zone: str, formats: tuple[str, ...] = ("%Y-%m-%d %H:%M:%S",)) -> list[datetime | None]:
    declared = source(COLUMNS | {"timestamp": {"column": "when", "formats": formats}}, timezone=zone)
    result = parse_rows([{"when": text, "born": ""} for text in times], declared)
    found = dict(zip(result.rows["source_line"], result.rows["timestamp"], strict=True))
    return [found.get(line) for line in range(1, len(times) + 1)]


def expected(local: datetime, zone: str) -> datetime | None:
    """The instant by zoneinfo: the first of two, none where the clock was put forward over it."""
    instant = local.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)
    return instant if instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local else None


@settings(max_examples=60)
@given(
    st.sampled_from(ZONES),
    st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2036, 1, 1)), min_size=1, max_size=30),
)
def test_local_times_become_the_instants_that_zoneinfo_gives(zone: str, times: list[datetime]) -> None:
    times = [time.replace(microsecond=0) for time in times]
    assert instants([str(time) for time in times], zone) == [expected(time, zone) for time in times]


@pytest.mark.parametrize("zone", ZONES)
def test_around_every_change_of_the_clock_the_first_is_taken_and_what_does_not_exist_is_refused(zone: str) -> None:
    hours = [datetime(2019, 1, 1, 0, 15) + timedelta(minutes=30 * step) for step in range(2 * 24 * 365)]
    found = instants([str(hour) for hour in hours], zone)
    wanted = [expected(hour, zone) for hour in hours]
    assert found == wanted
    if zone != "Asia/Kathmandu":
        assert None in wanted


def test_typed_times_without_a_zone_are_local_and_those_with_one_are_instants() -> None:
    summer = datetime(2024, 7, 1, 12)
    assert one({"when": summer}, when=pl.Datetime("ns"))["timestamp"] == datetime(2024, 7, 1, 10, tzinfo=UTC)
    tokyo = summer.replace(tzinfo=ZoneInfo("Asia/Tokyo"))
    assert one({"when": tokyo}, when=pl.Datetime("ms", "Asia/Tokyo"))["timestamp"] == datetime(2024, 7, 1, 3, tzinfo=UTC)
    assert one({"when": date(2024, 7, 1)}, when=pl.Date())["timestamp"] == datetime(2024, 6, 30, 22, tzinfo=UTC)
    gap = refusal({"when": datetime(2024, 3, 31, 2, 30)}, when=pl.Datetime("us"))
    assert gap["reason"] == "does not exist in Europe/Zurich (clocks were put forward)"


@pytest.mark.parametrize("declared", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%dT%H:%M:%S%#z", "%+"])
def test_a_time_with_an_offset_is_an_instant_whatever_the_sources_zone(declared: str) -> None:
    for zone in ("UTC", "America/New_York"):
        assert instants(["2024-07-01T12:00:00+02:00"], zone, (declared,)) == [datetime(2024, 7, 1, 10, tzinfo=UTC)]


def test_seconds_since_1970_are_instants_whatever_the_sources_zone() -> None:
    declared = source(COLUMNS | {"timestamp": {"column": "when", "formats": ["%s"]}}, timezone="America/New_York")
    assert one({"when": 1_577_836_800}, declared, when=pl.Int64())["timestamp"] == datetime(2020, 1, 1, tzinfo=UTC)
    assert instants(["1577836800"], "America/New_York", ("%s",)) == [datetime(2020, 1, 1, tzinfo=UTC)]


def test_fractions_of_a_second_are_kept() -> None:
    found = instants(["2024-01-01 00:00:00.25", "2024-01-01 00:00:00"], "UTC", ("%Y-%m-%d %H:%M:%S%.f",))
    assert found == [datetime(2024, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)]


def test_a_value_that_two_declared_formats_read_differently_is_refused() -> None:
    formats = ("%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M", "%Y-%m-%d %H:%M")
    found = instants(
        ["13-01-2024 10:00", "01-13-2024 10:00", "04-01-2024 10:00", "04-04-2024 10:00", "2024-01-13 10:00"], "UTC", formats
    )
    january = datetime(2024, 1, 13, 10, tzinfo=UTC)
    assert found == [january, january, None, datetime(2024, 4, 4, 10, tzinfo=UTC), january]
    declared = source(COLUMNS | {"birth_date": {"column": "born", "formats": ["%d-%m-%Y", "%m-%d-%Y"]}})
    assert one({"born": "13-01-1980"}, declared)["birth_date"] == date(1980, 1, 13)
    assert refusal({"born": "04-01-1980"}, declared)["reason"] == "means different times by the declared formats"


def test_a_text_without_declared_format_is_refused_not_guessed() -> None:
    declared = source(COLUMNS | {"timestamp": "when"})
    assert refusal({}, declared)["reason"] == "does not have the declared format (none declared)"


def test_a_row_lies_in_the_partition_of_its_local_day() -> None:
    row = one({"when": "2024-03-01 00:30:00"})
    assert (row["timestamp"], row[PARTITION]) == (datetime(2024, 2, 29, 23, 30, tzinfo=UTC), "2024-03")


def test_birth_dates_may_be_typed_with_or_without_a_time() -> None:
    born = date(1980, 2, 29)
    assert one({"born": born}, born=pl.Date())["birth_date"] == born
    assert one({"born": datetime(1980, 2, 29)}, born=pl.Datetime("us"))["birth_date"] == born
    midnight = datetime(1980, 2, 29, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert one({"born": midnight}, born=pl.Datetime("us", "Asia/Tokyo"))["birth_date"] == born


# ---- cards and ids


def test_a_card_is_kept_only_as_its_keyed_hash() -> None:
    row = one({})
    assert row["card"] == hashed_card(CARD, CARD_KEY)
    assert CARD not in str(row)
    assert len(row["card"]) == 32


def test_split_buckets_and_content_are_the_same_under_every_key_and_hashes_differ() -> None:
    rows = [{"id": str(n), "pan": str(4 * 10**15 + n)} for n in range(500)]
    mine, other = parse_rows(rows, key=CARD_KEY), parse_rows(rows, key=Key(b"o" * 32))
    assert mine.rows["split_bucket"].equals(other.rows["split_bucket"])
    assert mine.digest("2024-03") == other.digest("2024-03")
    assert mine.rows["card"].n_unique() == 500
    assert set(mine.rows["card"]).isdisjoint(other.rows["card"])


def test_buckets_are_spread_evenly_over_cardholders() -> None:
    buckets = [split_bucket(str(4 * 10**15 + n)) for n in range(20_000)]
    assert (min(buckets), max(buckets)) == (0, schema.SPLIT_BUCKETS - 1)
    assert 0.23 < sum(bucket < 250 for bucket in buckets) / len(buckets) < 0.27


@pytest.mark.parametrize(
    "changed", [{"sum": "12.35"}, {"pan": "4111111111111112"}, {"outcome": "F"}, {"kind": ""}, {"lat": "47.38"}]
)
def test_the_content_hash_tells_any_change_of_a_value(changed: dict[str, str]) -> None:
    assert parse_rows([{}, changed]).digest("2024-03") != parse_rows([{}, {}]).digest("2024-03")


def test_the_same_card_as_text_and_as_number_is_the_same_cardholder() -> None:
    assert one({"pan": int(CARD)}, pan=pl.Int64())["card"] == one({"pan": f" {CARD} "})["card"]
    assert one({"pan": float(CARD)}, pan=pl.Float64())["card"] == one({})["card"]


@pytest.mark.parametrize(("dtype", "card"), [(pl.Float64(), 4_992_346_398_065_154_184.0), (pl.Float32(), 41_111_111.0)])
def test_cards_that_lost_digits_in_floats_are_refused_and_no_other_cards(dtype: pl.DataType, card: float) -> None:
    found = refusal({"pan": card}, pan=dtype)
    assert (found["column"], found["reason"], found["value"]) == ("card", LOST_DIGITS, "(hidden)")


def test_numbers_of_a_declared_length_are_no_card_numbers() -> None:
    acquirer = "411111111111111118"  # valid by Luhn
    declared = source(COLUMNS | {"merchant": {"column": "shop", "digits": 18}})
    assert refusal({"shop": acquirer})["reason"] == CARD_NUMBER
    assert one({"shop": acquirer}, declared)["merchant"] == one({"shop": int(acquirer)}, declared, shop=pl.Int64())["merchant"]
    assert refusal({"shop": CARD}, declared)["reason"] == CARD_NUMBER


def test_a_row_ahead_of_the_moment_of_landing_is_refused_and_makes_no_partition(intake: Intake) -> None:
    path = intake.rows({}, {"when": "2034-03-05 10:20:30"}, {"when": "9999-12-31 23:59:59"})
    landed = intake.land(intake.source(last="open"))
    assert landed.partitions() == ["2024-03"]
    refused = pl.read_parquet(intake.store.local_path(landed.refused("_undated")[0].key))
    assert refused["reason"].to_list() == ["lies more than 5 minutes ahead of the moment of landing"] * 2
    now = datetime(2024, 3, 5, 9, 15, 30, tzinfo=UTC)  # Zurich is an hour ahead
    for moment, kept in ((now, 1), (now - timedelta(seconds=1), 0)):
        assert len(parse(read(path, intake.source()).head(1), "a.csv", intake.source(), CARD_KEY, moment).rows) == kept


@pytest.mark.parametrize("dtype", [pl.Datetime("ms", "UTC"), pl.Datetime("us"), pl.Datetime("ns"), pl.Date()])
def test_a_typed_time_beyond_the_calendar_is_refused_and_nothing_else(dtype: pl.DataType) -> None:
    now = datetime(2024, 6, 1, tzinfo=UTC)
    for least in (False, True):
        wild = pl.Series("when", [(-1 if least else 1) * (2**31 - 1 if dtype == pl.Date() else 2**63 - 2), 0]).cast(
            pl.Int32 if dtype == pl.Date() else pl.Int64
        )
        chunk = (
            pl.DataFrame([ROW, ROW | {"id": "t2"}]).with_columns(wild.cast(dtype), born=pl.lit("")).with_row_index(LINE, offset=1)
        )
        result = parse(chunk.with_columns(pl.col(LINE).cast(pl.UInt32)), "a.csv", source(), CARD_KEY, now)
        assert (result.rows["transaction_id"].to_list(), result.refused["column"].to_list()) == (["t2"], ["timestamp"])


def test_a_payment_whose_label_is_not_known_yet_waits_for_it() -> None:
    assert one({"outcome": " "})["label"] is None
    assert one({"outcome": None}, outcome=pl.Int8())["label"] is None


def test_columns_together_may_identify_a_cardholder() -> None:
    declared = source(COLUMNS | {"card": ["born", "people"]})
    first = one({"pan": "x"}, declared)["card"]
    assert one({"pan": "y"}, declared)["card"] == first
    assert one({"people": "400001"}, declared)["card"] != first
    assert refusal({"people": ""}, declared)["column"] == "card"


def test_the_parts_of_an_identity_do_not_run_together() -> None:
    declared = source(COLUMNS | {"card": ["shop", "kind"]})
    assert one({"shop": "ab", "kind": "c"}, declared)["card"] != one({"shop": "a", "kind": "bc"}, declared)["card"]


WITHOUT_ID = {name: value for name, value in COLUMNS.items() if name != "transaction_id"}


def test_an_id_made_of_content_is_the_same_for_the_same_row_and_another_for_any_other() -> None:
    declared = source(WITHOUT_ID)
    rows = [{}, {"id": "t2"}, {"outcome": "F"}, {"sum": "12.35"}, {"pan": "5"}, {"kind": ""}, {"shop": "", "kind": "Corner shop"}]
    ids = parse_rows(rows, declared).rows["transaction_id"].to_list()
    assert ids[0] == ids[1] == ids[2]  # the label is what becomes known later, and no part of the id
    assert len(set(ids)) == len(ids) - 2


def test_an_id_made_of_content_cannot_be_computed_without_the_key() -> None:
    declared = source(WITHOUT_ID)
    assert (
        parse_rows([{}], declared).rows["transaction_id"][0]
        != parse_rows([{}], declared, Key(b"o" * 32)).rows["transaction_id"][0]
    )


def test_a_source_without_cards_has_no_card_and_no_bucket() -> None:
    columns = {name: COLUMNS[name] for name in ("timestamp", "amount", "label")}
    row = one({}, source(columns))
    assert set(row) == {"transaction_id", "timestamp", "amount_cents", "label", "source_file", "source_line", PARTITION}


def test_the_lines_of_a_csv_file_are_those_of_its_editor(intake: Intake) -> None:
    path: Path = intake.rows({"outcome": "L!two\nlines"}, {"sum": "x"}, {"shop": "a\nb\nc", "sum": "y"})
    result = parsed(path, intake.source(line_breaks=True))
    assert result.rows["source_line"].to_list() == [3]
    assert result.refused["source_line"].to_list() == [4, 7]


@pytest.mark.parametrize(
    ("given", "read"), [("333497.0", 333497), ("333497.", 333497), ("333497.00", 333497), ("333497.5", None)]
)
def test_a_whole_number_may_have_a_decimal_point_and_zeros(intake: Intake, given: str, read: int | None) -> None:
    result = parsed(intake.rows({"people": given}), intake.source())
    assert result.rows["city_population"].to_list() == ([] if read is None else [read])


@pytest.mark.parametrize(("fraud", "legitimate"), [("true", "false"), ("True", "False"), (True, False), ("1", "0"), (1, 0)])
def test_a_boolean_label_may_be_declared_by_its_words(intake: Intake, fraud: object, legitimate: object) -> None:
    rows = pl.DataFrame([ROW | {"id": "a"}, ROW | {"id": "b"}]).with_columns(outcome=pl.Series([True, False]))
    rows.write_parquet(intake.folder / "a.parquet")
    label = {"column": "outcome", "fraud": fraud, "legitimate": legitimate}
    result = parsed(intake.folder / "a.parquet", intake.source(columns=COLUMNS | {"label": label}))
    assert result.rows["label"].to_list() == [True, False]


def test_two_digits_of_a_year_of_birth_are_refused_where_they_are_declared(intake: Intake) -> None:
    with pytest.raises(ValueError, match="two digits do not tell"):
        intake.source(columns=COLUMNS | {"birth_date": {"column": "born", "formats": ["%d.%m.%y"]}})
