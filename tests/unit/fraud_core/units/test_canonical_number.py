"""A row is the same row at the intake and in file scoring, whatever types carry it; one value and a column are read alike."""

import io
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fraud_core.errors import SourceError
from fraud_core.fields import schema
from fraud_core.scoring.file_parsing import PROBLEM, pieces
from fraud_core.scoring.score import from_values
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.sources.source import Source
from fraud_core.units.canonical_number import cents, cents_of, number_of, numbers, whole_of, wholes, with_points
from tests.unit.fraud_core.intake.shop import CARD, CARD_KEY, parsed

REFUSED = "refused"
NAMES = {column.name: "amount" if column.name == "amount_cents" else column.name for column in schema.CANONICAL}
SCORED = [name for name in NAMES if name != "label"]  # a file is scored as if nothing were known of its outcome
ROW: dict[str, Any] = {
    "transaction_id": "t1",
    "timestamp": "2024-03-05T10:20:30Z",
    "amount": "12.34",
    "card": CARD,
    "merchant": "Corner shop",
    "category": "grocery",
    "birth_date": "1980-02-29",
    "home_latitude": "47.37",
    "home_longitude": "8.54",
    "merchant_latitude": "47.4",
    "merchant_longitude": "8.6",
    "city_population": "400000",
}
SOURCE = Source.model_validate(
    {
        "name": "alike",
        "paths": ["a.parquet"],
        "cadence": "yearly",
        "first": "1970",
        "label_delay_days": 7,
        "columns": {NAMES[name]: NAMES[name] for name in SCORED}
        | {"timestamp": {"column": "timestamp", "formats": ["%Y-%m-%dT%H:%M:%S%#z"]}}
        | {"birth_date": {"column": "birth_date", "formats": ["%Y-%m-%d"]}},
    }
)
TEXTS = ["12", "12.5", " 12.34 ", "+3", "-1", "-0", "007", ".5", "5.", "1e1", "1_0", "1 0", "x", "nan", "inf", "12.345", "١٢"]
TEXTS += ["69.470000000000006", "69.4699999999999989", "12.99999999", "0.999999999", "12.0000001", "333497.0", "1" * 40, "true"]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.1, 12.34, 14.375, 47.37, -179.99, 1e-5, 83886.07, 83886.08, 90000.0, 333497.0, 1234567.89]
FLOATS += [69.470000000000006, 16777215.0, 16777216.0, 4111111111111112.0, 2.0**53, 1e10, 1e300, math.nan, math.inf]
WHOLE = [0, 1, -1, 47, 4711, 333497, 10**9, 10**9 + 1, 10**11, 2**53 + 1, 2**62]
MOMENTS = [datetime(2024, 3, 5, 10, 20, 30, 123456, tzinfo=UTC), datetime(1990, 1, 1, tzinfo=UTC)]
CARRIERS: dict[str, pa.Array] = {
    "text": pa.array(TEXTS),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "large text": pa.array(TEXTS, pa.large_string()),
    "float64": pa.array(FLOATS),
    "float32": pa.array(np.array(FLOATS, dtype=np.float64).clip(-3e38, 3e38), pa.float32()),
    "float16": pa.array(np.array([1.0, 12.34], dtype=np.float16)),
    "int64": pa.array(WHOLE, pa.int64()),
    "uint64": pa.array([one for one in WHOLE if one >= 0] + [2**64 - 1], pa.uint64()),
    "int8": pa.array([0, 1, -1, 127], pa.int8()),
    "boolean": pa.array([True, False]),
    "decimal(20,2)": pa.array([Decimal(one) for one in ("0.00", "12.34", "-1.00", "47.00", "333497.00")], pa.decimal128(20, 2)),
    "decimal(38,4)": pa.array([Decimal(one) for one in ("12.3400", "12.3450", "10.0000")], pa.decimal128(38, 4)),
    "decimal(20,0)": pa.array([Decimal(47), Decimal("4111111111111112"), Decimal(10**19)], pa.decimal128(20, 0)),
    "decimal256": pa.array([Decimal("1.00")], pa.decimal256(76, 2)),
    "date": pa.array([date(1980, 2, 29), date(1899, 12, 31)]),
    "time in UTC": pa.array(MOMENTS, pa.timestamp("us", "UTC")),
    "time in a zone": pa.array(MOMENTS, pa.timestamp("ms", "Europe/Zurich"), safe=False),
    "binary": pa.array([b"12"], pa.binary()),
}


def at_the_intake(path: Path, rows: int) -> list[Any]:
    """Each row by its canonical columns, or the column that it is refused for."""
    try:
        read = parsed(path, SOURCE)
    except SourceError:
        return [REFUSED] * rows
    found: dict[int, Any] = dict.fromkeys(read.refused["source_line"], REFUSED)
    found |= {row["source_line"]: {name: row[name] for name in SCORED} for row in read.rows.iter_rows(named=True)}
    return [found[line] for line in range(1, rows + 1)]


def in_file_scoring(content: bytes, rows: int) -> list[Any]:
    told = list(pieces(io.BytesIO(content), "parquet"))
    if told[-1].state == "failed":
        return [REFUSED] * rows
    return [scored(row) for piece in told for _, row in piece.rows]


def scored(row: dict[str, Any]) -> Any:
    if PROBLEM in row:
        return REFUSED
    try:
        transaction = from_values(row)
    except ValidationError:
        return REFUSED
    values = {name: getattr(transaction, name) for name in SCORED}
    return values | {"card": transaction.card and hashed_card(transaction.card.get_secret_value(), CARD_KEY)}


def written(path: Path, column: str, values: pa.Array) -> bytes:
    """A Parquet file of ordinary rows whose column has these values."""
    columns = {name: pa.array([value] * len(values)) for name, value in ROW.items()}
    columns |= {"transaction_id": pa.array([f"t{at}" for at in range(len(values))]), column: values}
    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("column", SCORED)
def test_a_row_is_the_same_at_the_intake_and_in_file_scoring_whatever_type_carries_it(
    column: str, carrier: str, tmp_path: Path
) -> None:
    values = CARRIERS[carrier]
    content = written(tmp_path / "a.parquet", NAMES[column], values)
    here, there = at_the_intake(tmp_path / "a.parquet", len(values)), in_file_scoring(content, len(values))
    assert [
        (value, *read) for value, *read in zip(values, here, there, strict=True) if not _is_alike(column, value.as_py(), *read)
    ] == []


def _is_alike(column: str, value: Any, here: Any, there: Any) -> bool:
    if column in {"card", "transaction_id"} and isinstance(value, float) and not math.isfinite(value):
        return bool(here == REFUSED)  # what is declared must be there; in a scored file it may be missing
    if column == "timestamp" and type(value) is date:
        return bool(there == REFUSED)  # a source declares whose midnight that is
    return bool(here == there)


AMOUNTS: dict[str, Any] = {
    "text": lambda amount: (str(amount), pl.String()),
    "decimal": lambda amount: (amount, pl.Decimal(38, 4)),
    "float64": lambda amount: (float(amount), pl.Float64()),
    "float32": lambda amount: (float(np.float32(amount)), pl.Float32()),
}


@pytest.mark.parametrize("carrier", AMOUNTS)
@settings(deadline=None)
@given(amounts=st.lists(st.decimals(-1, 2_000_000_000, places=2) | st.decimals(0, 100_000, places=4), max_size=20))
def test_an_amount_has_the_same_cents_or_none_in_a_column_and_by_itself(carrier: str, amounts: Sequence[Decimal]) -> None:
    typed = [AMOUNTS[carrier](amount) for amount in amounts]
    frame = pl.DataFrame({"amount": pl.Series([value for value, _ in typed], dtype=AMOUNTS[carrier](Decimal(1))[1])})
    alone = [cents_of(value, single=carrier == "float32") for value, _ in typed]
    assert frame.select(cents(pl.col("amount"), frame.schema["amount"])).to_series().to_list() == alone
    exact = [int(amount * 100) if amount * 100 == int(amount * 100) else None for amount in amounts]
    if carrier == "float32":  # it may have lost what a cent is, and then it is refused
        assert all(read in (None, meant) for read, meant in zip(alone, exact, strict=True) if meant is not None)
    else:
        assert alone == exact


@given(st.lists(st.text(max_size=6) | st.text("0123456789.eE+-_ ,", max_size=24), max_size=20))
@settings(deadline=None)
def test_text_is_the_same_number_or_none_in_a_column_and_by_itself(texts: list[str]) -> None:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String()})
    for column, single in ((cents, cents_of), (numbers, number_of), (wholes, whole_of)):
        assert frame.select(column(pl.col("text"), pl.String())).to_series().to_list() == [single(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "decimal", "thousands", "read"),
    [
        ("1.234.567,89", ",", ".", 123456789),
        ("12,5", ",", ".", 1250),
        ("12.50", ",", ".", None),  # by the declaration it is neither: it is not guessed at
        ("1.23", ",", ".", None),
        ("12.34", ",", "", None),
        ("1234,56", ",", ".", 123456),
        ("-1\u202f234,56", ",", " ", -123456),
        ("1,234.56", ".", ",", 123456),
        ("1,23.56", ".", ",", None),
        ("1\N{RIGHT SINGLE QUOTATION MARK}234.56", ".", "'", 123456),
        ("1,234", ".", "", None),
    ],
)
def test_numbers_in_text_are_read_as_the_source_declares_and_no_other_way(
    text: str, decimal: str, thousands: str, read: int | None
) -> None:
    plain = with_points(pl.col("text"), decimal, thousands)
    assert pl.DataFrame({"text": [text]}).select(cents(plain, pl.String())).item() == read
