"""What a transaction may look like, and what is refused."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fraud_core.scoring.score import from_values
from fraud_core.transactions.refusals import wrong_fields
from fraud_core.transactions.transaction import EXAMPLE, Transaction, _name_again, amount_of, reading


def refused(**changes: Any) -> dict[str, str]:
    """The wrong fields of the example with these changes."""
    try:
        Transaction.model_validate_json(json.dumps({**EXAMPLE, **changes}))
    except ValidationError as error:
        return {problem.field: problem.reason for problem in wrong_fields(error)}
    return {}


def test_the_example_is_a_transaction() -> None:
    transaction = Transaction.model_validate(EXAMPLE)
    assert transaction.amount_cents == 286
    assert transaction.timestamp == datetime(2020, 6, 21, 12, 14, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"timestamp": "2020-06-21T12:14:25"}, "timestamp", "no offset"),
        ({"timestamp": 1592741665}, "timestamp", "ISO 8601"),
        ({"timestamp": "1592741665"}, "timestamp", "ISO 8601"),
        ({"timestamp": "2020-02-30T12:00:00Z"}, "timestamp", "ISO 8601"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp", "before 1970"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp", "before 1970"),
        ({"timestamp": "9999-12-31T23:59:59-14:00"}, "timestamp", "ahead"),
        ({"timestamp": None}, "timestamp", "ISO 8601"),
        ({"amount": 12.345}, "amount", "two decimals"),
        ({"amount": "12.345"}, "amount", "two decimals"),
        ({"amount": "1e3"}, "amount", "two decimals"),
        ({"amount": "١٢"}, "amount", "two decimals"),
        ({"amount": True}, "amount", "two decimals"),
        ({"amount": -0.01}, "amount", "out of bounds"),
        ({"amount": 10**9 + 1}, "amount", "out of bounds"),
        ({"amount": float("nan")}, "amount", "finite"),
        ({"birth_date": "2021-01-01"}, "birth_date", "after the transaction"),
        ({"birth_date": "1899-12-31"}, "birth_date", "before 1900"),
        ({"birth_date": "1980-02-30"}, "birth_date", "not a day"),
        ({"birth_date": "19800101"}, "birth_date", "not a day"),
        ({"home_latitude": 90.01}, "home_latitude", "at most 90"),
        ({"home_longitude": -180.01}, "home_longitude", "at least -180"),
        ({"merchant_latitude": float("inf")}, "merchant_latitude", "finite"),
        ({"merchant_longitude": "10"}, "merchant_longitude", "must be a number"),
        ({"merchant_longitude": True}, "merchant_longitude", "must be a number"),
        ({"city_population": -1}, "city_population", "at least 0"),
        ({"city_population": 1.5}, "city_population", "whole number"),
        ({"merchant": "4111 1111 1111 1111"}, "merchant", "card number"),
        ({"transaction_id": "4111111111111111"}, "transaction_id", "card number"),
        ({"transaction_id": "x-378282246310005"}, "transaction_id", "card number"),
        ({"transaction_id": " "}, "transaction_id", "empty"),
        ({"transaction_id": "a\u0000b"}, "transaction_id", "control"),
        ({"card": ""}, "card", "1 to 64"),
        ({"card": "x" * 65}, "card", "longer than 64"),
        ({"merchant": "PAN4111111111111111"}, "merchant", "card number"),
        ({"card": True}, "card", "or a whole number"),
        ({"card": "4.5E+15"}, "card", "lost digits"),
        ({"card": 4.5e18}, "card", "lost digits"),
        ({"merchant": "4.5E+15"}, "merchant", "lost digits"),
        ({"merchant": ["x"]}, "merchant", "text or a whole number"),
        ({"timestamp": "2020-06-21T12:14:25\u0000Z"}, "timestamp", "ISO 8601"),
        ({"timestamp": "2020-06-21\U0001f60012:14:25Z"}, "timestamp", "ISO 8601"),
        ({"timestamp": "2020-06-21T12:14:25+٠٢:00"}, "timestamp", "ISO 8601"),
        ({"timestamp": "2020-W25-7T12:14:25Z"}, "timestamp", "ISO 8601"),
        ({"label": 1}, "label", "not a known field"),
        ({"amount_cents": 286}, "amount_cents", "not a known field"),
    ],
)
def test_a_wrong_field_is_named_with_its_reason(changes: dict[str, Any], field: str, reason: str) -> None:
    problems = refused(**changes)
    assert list(problems) == [field]
    assert reason in problems[field]


def test_every_wrong_field_is_named_at_once() -> None:
    problems = refused(timestamp="yesterday", amount="much", home_latitude=200, unknown=1)
    assert set(problems) == {"timestamp", "amount", "home_latitude", "unknown"}


def test_a_time_up_to_five_minutes_ahead_is_taken() -> None:
    now = datetime.now(UTC)
    assert refused(timestamp=(now + timedelta(minutes=4)).isoformat()) == {}
    assert "timestamp" in refused(timestamp=(now + timedelta(minutes=6)).isoformat())


@pytest.mark.parametrize("name", ["transaction_id", "card", "merchant", "category", "birth_date", "city_population"])
def test_what_is_optional_may_be_null_or_left_out(name: str) -> None:
    assert refused(**{name: None}) == {}
    Transaction.model_validate({key: value for key, value in EXAMPLE.items() if key != name})


def test_a_number_of_a_length_that_the_source_declares_is_no_card_number() -> None:
    acquirer = "411111111111111118"
    assert "card number" in refused(merchant=acquirer)["merchant"]
    context = reading({"merchant": (18,)})
    assert from_values({**EXAMPLE, "merchant": int(acquirer)}, context=context).merchant == acquirer
    for field, text in (("merchant", "4111111111111111"), ("category", acquirer)):
        with pytest.raises(ValidationError, match="card number"):
            from_values({**EXAMPLE, field: text}, context=context)


def test_merchants_are_remembered_as_read_and_what_is_refused_is_not() -> None:
    _name_again.cache_clear()
    for _ in range(2):
        assert Transaction.model_validate({**EXAMPLE, "merchant": " Kirlin\u3000", "category": "7.0"}).merchant == "Kirlin"
        assert "card number" in refused(merchant="4111 1111 1111 1111", category="7.0")["merchant"]
    assert Transaction.model_validate({**EXAMPLE, "merchant": 1, "category": True}).category == "true"  # 1 == True, yet not here
    assert _name_again.cache_info().currsize == 2


def test_empty_text_is_a_missing_value_as_at_training() -> None:
    assert Transaction.model_validate({**EXAMPLE, "category": "  ", "merchant": ""}).category is None


def test_a_name_the_caller_made_up_is_not_repeated_where_it_could_hold_anything() -> None:
    assert list(refused(**{"4111111111111111": 1})) == ["(a name that is not repeated here)"]
    assert list(refused(**{"born 1968-03-19": 1})) == ["(a name that is not repeated here)"]


def test_a_problem_never_holds_the_value() -> None:
    secret = "secret-4111111111111111"
    for name in EXAMPLE:
        assert secret not in json.dumps(refused(**{name: secret}))
        assert secret not in json.dumps(refused(**{name: [secret]}))


def test_a_card_is_never_printed() -> None:
    transaction = Transaction.model_validate({**EXAMPLE, "card": 4111111111111111})
    assert "4111" not in f"{transaction!r} {transaction.model_dump()}"
    assert transaction.card is not None
    assert transaction.card.get_secret_value() == "4111111111111111"


@given(cents=st.integers(0, 10**11))
def test_an_amount_becomes_its_cents_exactly_however_it_is_written(cents: int) -> None:
    text = f"{cents // 100}.{cents % 100:02d}"
    assert amount_of(text) == amount_of(float(text)) == amount_of(Decimal(text)) == cents
    assert amount_of(json.loads(text)) == cents


@given(amount=st.floats(0, 10**9))
def test_a_binary_amount_is_taken_or_refused_as_the_intake_does(amount: float) -> None:
    hundredfold = pl.select(pl.lit(amount) * 100.0).item()
    taken = abs(hundredfold - round(hundredfold)) < 1e-6 * (1 + abs(hundredfold) * 1e-7)
    try:
        assert amount_of(amount) == round(hundredfold)
    except Exception:
        assert not taken
    else:
        assert taken
