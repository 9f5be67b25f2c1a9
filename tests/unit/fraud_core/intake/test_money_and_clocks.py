"""What money and clocks promise: amounts of any currency to the cent, refunds apart, times as they are, hours no seconds."""

# ruff: noqa: DTZ001 - moments of these tests are in UTC

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.fields import schema
from fraud_core.fields.declaration import Amounts
from fraud_core.intake.landing import land
from fraud_core.intake.parsing import Parsed, parse
from fraud_core.intake.values.clocks import wrong_unit
from fraud_core.sources.amounts import NO_RATE, amount_columns, amount_of, refusal, unknown_currency
from fraud_core.sources.columns import TimeColumn
from fraud_core.sources.money import rates_in
from fraud_core.sources.source import Source, load_source
from fraud_core.storage.directory import DirectoryStore
from fraud_core.units.currency import DECIMALS, in_base
from tests.unit.fraud_core.intake.shop import CARD_KEY, read

HEAD = """
name = "shop"
paths = ["pay.csv"]
timezone = "Europe/Zurich"
cadence = "monthly"
first = "1970-01"
label_delay_days = 7
"""
TIME = 'timestamp = { column = "when", formats = ["%Y-%m-%d %H:%M:%S"] }\n'
WHEN = "2024-03-05 00:30:00"  # in UTC it is still the fourth


def load(folder: Path, columns: str, head: str = "", **cells: list[str]) -> Source:
    length = max(map(len, cells.values()), default=1)
    frame = {"when": [WHEN] * length, "sum": ["1"] * length} | cells
    pl.DataFrame(frame).write_csv(folder / "pay.csv")
    (folder / "shop.toml").write_text(HEAD + head + "[columns]\n" + columns)
    return load_source(folder / "shop.toml")


def parsed(folder: Path, source: Source) -> Parsed:
    return parse(read(folder / "pay.csv", source), "pay.csv", source, CARD_KEY)


def money(folder: Path, sums: list[str], amount: str, head: str = "", **cells: list[str]) -> tuple[list[int], list[str], Parsed]:
    result = parsed(folder, load(folder, TIME + f"amount = {amount}\n", head, sum=sums, **cells))
    return result.rows["amount_cents"].to_list(), result.refused["reason"].to_list(), result


# ---- decimals, refunds


@pytest.mark.parametrize(
    ("currency", "amount", "sums", "cents", "refused"),
    [
        ("USD", '"sum"', ["12.34", "12.345"], [1234], ["is not an amount with at most two decimals"]),
        ("JPY", '"sum"', ["1200", "1200.0", "1200.5"], [120_000, 120_000], ["is not an amount in JPY, which has no decimals"]),
        ("KWD", '"sum"', ["1.230", "1.234"], [123], ["is not an amount with at most two decimals; hundredths are kept: declare"]),
        ("KWD", '{ column = "sum", decimals = "round" }', ["1.230", "1.234", "1.235"], [123, 123, 124], []),
        ("EUR", '{ column = "sum", decimals = "round" }', ["0.1", "68.4521", "x", "inf"], [10, 6845], ["is not an amount"] * 2),
    ],
)
def test_amounts_are_hundredths_of_their_currency_whatever_decimals_it_has(
    tmp_path: Path, currency: str, amount: str, sums: list[str], cents: list[int], refused: list[str]
) -> None:
    found, reasons, result = money(tmp_path, sums, amount, f'currency = "{currency}"\n')
    assert found == cents
    assert [reason[: len(told)] for reason, told in zip(reasons, refused, strict=True)] == refused
    assert result.rounded == (sum(1 for one in sums if one in {"1.234", "1.235", "68.4521"}) if "round" in amount else 0)


@pytest.mark.parametrize(
    ("negative", "cents", "refunds"),
    [("refuse", [1200], None), ("refund", [1200, 350], [False, True]), ("keep", [1200, -350], None)],
)
def test_a_negative_amount_is_refused_a_refund_or_kept(tmp_path: Path, negative: str, cents: list[int], refunds: Any) -> None:
    amount = f'{{ column = "sum", negative = "{negative}", strip = "$" }}'
    found, reasons, result = money(tmp_path, ["$12", "$-3.50"], amount)
    assert found == cents
    assert reasons == (["is out of bounds (0 to 1e+11 cents)"] if negative == "refuse" else [])
    assert (result.rows["refund"].to_list() if refunds else "refund" not in result.rows.columns) == (refunds or True)


# ---- several currencies

RATES = "date,currency,rate\n2024-03-05,USD,0.925\n2024-03-05,JPY,0.0061\n2024-03-05,KWD,2.99\n"
MANY = 'currency = { column = "cur", base = "EUR", rates = "rates.csv" }\n'


def test_several_currencies_become_one_by_the_rate_of_their_local_day(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    sums = ["10", "10", "1000", "1.234", "1", "1", "10.005", "0.5", "-1"]
    currencies = ["EUR", "USD", "JPY", "KWD", "CHF", "", "USD", "JPY", "USD"]
    amount = '{ column = "sum", negative = "refund" }'
    cents, reasons, result = money(tmp_path, sums, amount, MANY, cur=currencies)
    assert cents == [1000, 925, 610, 369, 93]
    assert result.rows["refund"].to_list() == [False] * 4 + [True]
    unknown = "is in a currency without rates; there are EUR, JPY, KWD, USD"
    assert reasons == [unknown, unknown, *["is not an amount with the decimals of its currency"] * 2]
    cents, reasons, _ = money(tmp_path, ["1"], '"sum"', MANY, cur=["USD"], when=["2024-03-06 00:30:00"])
    assert (cents, reasons) == ([], ["has no rate of its currency for its day"])
    assert in_base(1000, 0.925) == 925


@pytest.mark.parametrize(
    ("fields", "name", "learns"),
    [
        ("", "currency", False),
        ('[fields.currency]\ncolumn = "cur"\nkind = "category"\n', "currency", True),
        ('[fields.cur]\nkind = "category"\nmissing = ["-"]\n', "cur", True),
    ],
)
def test_the_currency_is_a_field_too(tmp_path: Path, fields: str, name: str, learns: bool) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    load(tmp_path, TIME + 'amount = "sum"\n' + fields, MANY, cur=["USD", "-"])
    source = load_source(tmp_path / "shop.toml")
    assert (source.declared.amounts.by, source.declared.own[name].is_learned) == (name, learns)
    assert source.declared.own[name].required  # by the API, for no amount can be read without it
    assert Source.model_validate(source.model_dump(mode="json")) == source
    result = parsed(tmp_path, source)
    assert result.rows.select(name, "amount_cents").rows() == [("USD", 93)]
    assert result.refused["reason"].to_list() == ["is in a currency without rates; there are EUR, JPY, KWD, USD"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            '[fields.currency]\ncolumn = "sum"\nkind = "category"\n',
            r"fields\.currency: is read from another column than currency",
        ),
        ('[fields.cur]\nkind = "id"\npersonal = true\n', r"fields\.cur: says in which currency .* not personal"),
        ('[fields.cur]\nkind = "number"\n', r'fields\.cur: says in which currency .* kind = "category"'),
    ],
)
def test_a_field_that_cannot_be_the_currency_is_an_error(tmp_path: Path, fields: str, says: str) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    with pytest.raises(SourceError, match=says):
        load(tmp_path, TIME + 'amount = "sum"\n' + fields, MANY, cur=["USD"])


CODES = ("EUR", "USD", "JPY", "KWD", "CHF", None)
WRITTEN = ("10", "-10", "1200.5", "1.234", "1.2345", "0.005", "1e3", "-0", " 7.10 ", "x", "", "69.470000000000006", "1000000000")
NUMBERS = (10.0, -10.25, 1200.5, 1.234, 2.675, 0.1 + 0.2, 1e15, float("inf"), 7, -3, 0)


@pytest.mark.parametrize("decimals", ["exact", "round"])
@pytest.mark.parametrize("negative", ["refuse", "refund", "keep"])
@pytest.mark.parametrize(("base", "by"), [("", ""), ("USD", ""), ("JPY", ""), ("KWD", ""), ("EUR", "currency")])
def test_one_amount_is_read_as_a_column_of_them(tmp_path: Path, base: str, by: str, negative: Any, decimals: Any) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    rates, amounts = rates_in(str(tmp_path / "rates.csv")), Amounts(base=base, by=by, negative=negative, decimals=decimals)
    days = (date(2024, 3, 5), date(2024, 3, 6))
    for some, dtype in ((WRITTEN, pl.String()), (NUMBERS, pl.Float64())):
        asked = [(value, code, day) for value in some for code in CODES for day in days]
        frame = pl.DataFrame(asked, {"told": dtype, "code": pl.String(), "day": pl.Date()}, orient="row")
        read = amount_columns(pl.col("told"), dtype, amounts, pl.col("code"), pl.col("day"), rates)
        columns = frame.select(cents=read.cents, known=read.known, is_amount=read.is_amount, is_refund=read.is_refund).iter_rows(
            named=True
        )
        for (value, code, day), row in zip(asked, columns, strict=True):
            alone = amount_of(value, amounts, code, day, rates)
            if not row["known"]:
                assert alone == unknown_currency(base, rates.currencies)
            elif not row["is_amount"]:
                assert alone == refusal(amounts), (value, code)
            elif row["cents"] is None:
                assert alone == NO_RATE
            else:
                assert alone == (row["cents"], row["is_refund"]), (value, code)


def test_other_rates_make_files_be_read_anew_and_wrong_ones_are_errors_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    source = load(tmp_path, TIME + 'amount = "sum"\n', MANY, cur=["EUR"])
    before = source.parse_fingerprint()
    (tmp_path / "rates.csv").write_text(RATES + "2024-03-06,USD,0.93\n")
    assert source.parse_fingerprint() != before
    for line, says in (
        ("2024-03-05,USD,0.9", "another rate"),
        ("5.3.2024,USD,1", "a day, a cur"),
        ("2024-03-05,XXX,1", "no curr"),
    ):
        (tmp_path / "rates.csv").write_text(RATES + line + "\n")
        with pytest.raises(SourceError, match=f"line 5: .*{says}"):
            source.parse_fingerprint()
    (tmp_path / "rates.csv").unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        source.parse_fingerprint()


def test_the_table_of_currencies_is_that_of_iso_4217() -> None:
    assert {code: DECIMALS[code] for code in ("EUR", "USD", "CHF", "JPY", "KRW", "ISK", "KWD", "BHD", "TND")} == {
        "EUR": 2, "USD": 2, "CHF": 2, "JPY": 0, "KRW": 0, "ISK": 0, "KWD": 3, "BHD": 3, "TND": 3,
    }  # fmt: skip
    assert all(len(code) == 3 and code.isupper() for code in DECIMALS)


# ---- times


@pytest.mark.parametrize(
    ("declared", "cells", "wanted"),
    [
        ('{ columns = ["y", "m", "d", "t"], formats = ["%Y %m %d %H:%M"] }',
         {"y": ["2002"], "m": ["9"], "d": ["1"], "t": ["6:21"]}, datetime(2002, 9, 1, 4, 21)),
        ('{ columns = ["y", "t"], formats = ["%d.%m.%Y/%H:%M"], separator = "/" }',
         {"y": ["01.09.2002"], "t": ["06:21"]}, datetime(2002, 9, 1, 4, 21)),
        ('{ column = "t", formats = ["%s"] }', {"t": ["1378000000"]}, datetime(2013, 9, 1, 1, 46, 40)),
        ('{ column = "t", origin = "1970-01-01T00:00:00Z", unit = "ms" }', {"t": ["1378000000123"]},
         datetime(2013, 9, 1, 1, 46, 40, 123_000)),
        ('{ column = "t", origin = 2013-09-01T00:00:00, unit = "s" }', {"t": ["73479.0"]}, datetime(2013, 9, 1, 18, 24, 39)),
        ('{ column = "t", origin = 2013-09-01T00:00:00+00:00, unit = "h" }', {"t": ["1.5"]}, datetime(2013, 9, 1, 1, 30)),
        ('{ column = "t", origin = 2013-09-01T00:00:00Z, unit = "d" }', {"t": ["-1"]}, datetime(2013, 8, 31)),
    ],
)  # fmt: skip
def test_times_are_read_from_several_columns_and_from_clocks_that_count(
    tmp_path: Path, declared: str, cells: dict[str, list[str]], wanted: datetime
) -> None:
    source = load(tmp_path, f'timestamp = {declared}\namount = "sum"\n', **cells)
    text = read(tmp_path / "pay.csv", source)
    for dtype in (pl.String, pl.Float64, pl.Int64):
        try:
            typed = text.with_columns(pl.col("t").cast(dtype))
        except pl.exceptions.InvalidOperationError:  # a clock's text is no number
            continue
        result = parse(typed, "pay.csv", source, CARD_KEY)
        assert result.rows["timestamp"].to_list() == [wanted.replace(tzinfo=UTC)], result.refused
    assert result.rows.schema["timestamp"] == schema.UTC_MICROSECONDS


def test_a_part_that_is_missing_and_a_count_that_is_none_are_refused(tmp_path: Path) -> None:
    parts = 'timestamp = { columns = ["y", "t"], formats = ["%Y %j"] }\n'.replace("%j", "%m %d")
    source = load(tmp_path, parts + 'amount = "sum"\n', y=["2002", "2002"], t=["9 1", ""])
    assert parsed(tmp_path, source).refused["reason"].to_list() == ["is missing"]
    clock = 'timestamp = { column = "t", origin = 2013-09-01T00:00:00, unit = "s" }\n'
    source = load(tmp_path, clock + 'amount = "sum"\n', t=["x", "1e300", ""])
    assert parsed(tmp_path, source).refused["reason"].to_list() == ["is not a number of seconds"] * 2 + ["is missing"]


@pytest.mark.parametrize(
    ("clock", "says"),
    [
        ('origin = 2024-01-01T00:00:00, unit = "s"', 'read as seconds, and so all 2,000 rows lie within 94 seconds.*unit = "h"'),
        ('formats = ["%s"]', "read as seconds since 1970, and all 2,000 rows lie before 1980"),
    ],
)
def test_hours_read_as_seconds_are_an_error_that_says_so(tmp_path: Path, clock: str, says: str) -> None:
    steps, sums = [str(1 + n % 95) for n in range(2_000)], [str(n) for n in range(2_000)]
    columns = f'timestamp = {{ column = "step", {clock} }}\namount = "sum"\n'
    source = load(tmp_path, columns, step=steps, sum=sums)
    with pytest.raises(SourceError, match=says):
        land(source, DirectoryStore(tmp_path / "store"), CARD_KEY, None)
    source = load(tmp_path, columns.replace(clock, 'origin = 2024-01-01T00:00:00, unit = "h"'), step=steps, sum=sums)
    assert land(source, DirectoryStore(tmp_path / "store"), CARD_KEY, None).kept == 2_000


def test_seconds_that_are_some_are_none() -> None:
    clock = TimeColumn(column="Time", origin=datetime(2013, 9, 1, tzinfo=UTC), unit="s")
    begin = datetime(2013, 9, 1, tzinfo=UTC)
    assert wrong_unit(clock, begin, begin.replace(day=2), 284_807) is None  # two days of the ULB set
    assert wrong_unit(clock, begin, begin.replace(minute=50), 3_000) is None
    assert wrong_unit(clock, begin, begin.replace(minute=1), 50) is None


# ---- cards of several columns


def test_a_card_of_which_parts_are_missing_is_refused_or_kept(tmp_path: Path) -> None:
    cells = {"a": ["1", "1", "1", ""], "b": ["2", "", "", ""], "sum": ["1", "2", "3", "4"]}
    for partial, kept in (("refuse", 1), ("keep", 3)):
        card = f'card = {{ columns = ["a", "b"], partial = "{partial}" }}\n'
        result = parsed(tmp_path, load(tmp_path, TIME + 'amount = "sum"\n' + card, **cells))
        assert len(result.rows) == kept
        assert set(result.refused["reason"]) == {"is missing"}
    assert result.rows["card"].n_unique() == 2
