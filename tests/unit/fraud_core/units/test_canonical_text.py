"""One value has one text, whatever type it comes in and whichever way it comes; one value and a column are read alike."""

import json
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_core.scoring.score import from_text, from_values
from fraud_core.transactions.transaction import EXAMPLE, Transaction
from fraud_core.units.canonical_text import canonical_text, canonical_texts, has_lost_digits, have_lost_digits

CARD = "4500000000000011"


def column(values: list[Any], dtype: pl.DataType) -> list[tuple[str | None, bool | None]]:
    """Text of each value of a column, and whether its digits are lost."""
    frame = pl.DataFrame({"value": pl.Series(values, dtype=dtype)})
    texts = frame.select(text=canonical_texts("value", dtype))
    return list(zip(texts["text"], texts.select(have_lost_digits(pl.col("text"))).to_series(), strict=True))


def single(value: Any) -> tuple[str | None, bool | None]:
    text = None if value is None else canonical_text(value)
    return text, None if text is None else has_lost_digits(text)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (CARD, pl.String()),
        (f" {CARD}\N{NO-BREAK SPACE}", pl.String()),
        (f"{CARD}.0", pl.String()),
        (int(CARD), pl.Int64()),
        (int(CARD), pl.UInt64()),
        (int(CARD), pl.Int128()),
        (float(CARD), pl.Float64()),
        (Decimal(f"{CARD}.00"), pl.Decimal(20, 2)),
    ],
)
def test_one_card_in_any_type_is_one_card(value: Any, dtype: pl.DataType) -> None:
    assert column([value], dtype) == [(CARD, False)]
    assert single(value) == (CARD, False)
    for transaction in (from_values({**EXAMPLE, "card": value}), from_text({**_text_of_example(), "card": str(value)})):
        assert transaction.card is not None
        assert transaction.card.get_secret_value() == CARD


def test_a_merchants_number_and_a_boolean_are_the_same_in_json_files_and_training() -> None:
    given_as_json = json.dumps({**EXAMPLE, "merchant": 4711, "category": True})
    transaction = Transaction.model_validate_json(given_as_json)
    assert (transaction.merchant, transaction.category) == ("4711", "true")
    assert from_text({**_text_of_example(), "merchant": "4711.0", "category": "True"}) == transaction
    assert column([4711.0, None], pl.Float64()) == [("4711", False), (None, None)]
    assert column([True, False, None], pl.Boolean()) == [("true", False), ("false", False), (None, None)]


@pytest.mark.parametrize("text", ["4.5E+15", "4.5e15", "1e+16", "-4.5E+15", "9007199254740993.0", "6011000990139424000.00"])
def test_digits_that_are_lost_are_told(text: str) -> None:
    assert column([text], pl.String()) == [(text, True)]
    assert single(text) == (text, True)


@pytest.mark.parametrize("text", ["7E11", "12e45678", "1e15", "5.5", "Fair.Price", "1+1", "0012", "9007199254740993"])
def test_names_with_digits_are_left_alone(text: str) -> None:
    assert column([text], pl.String()) == [(text, False)]


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), st.text("0123456789.eE+- tTrRuUeE", max_size=24))))
def test_a_column_of_text_is_read_as_each_of_its_values(values: list[str | None]) -> None:
    assert column(values, pl.String()) == [single(value) for value in values]


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60).map(float))))
def test_a_column_of_floats_is_read_as_each_of_its_values(values: list[float | None]) -> None:
    assert column(values, pl.Float64()) == [single(value) for value in values]


@given(st.lists(st.one_of(st.none(), st.decimals(-(10**18), 10**18, places=2))))
def test_a_column_of_decimals_is_read_as_each_of_its_values(values: list[Decimal | None]) -> None:
    assert column(values, pl.Decimal(38, 2)) == [single(value) for value in values]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))))
def test_a_column_of_whole_numbers_is_read_as_each_of_its_values(values: list[int | None]) -> None:
    assert column(values, pl.Int64()) == [single(value) for value in values]


def test_floats_of_32_bits_have_lost_digits_sooner() -> None:
    assert column([2.0**24 - 1, 2.0**24], pl.Float32()) == [("16777215", False), ("0.0E+0", True)]


def _text_of_example() -> dict[str, str]:
    return {name: str(value) for name, value in EXAMPLE.items()}
