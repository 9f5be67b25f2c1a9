"""Card numbers are recognised however they are written, one value or a column, and never printed."""

import uuid

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_core.signing.card_numbers import MASK, holding_card_numbers, holds_card_number, printable

CARD = "4111111111111111"
AS_ON_A_CARD = [
    "order_4111111111111111",
    "pan=4111111111111111;",
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "card 378282246310005.",
    "3782 822463 10005",
    "4111\N{NO-BREAK SPACE}1111\N{NO-BREAK SPACE}1111\N{NO-BREAK SPACE}1111",
    "".join(chr(ord(digit) + 0xFEE0) for digit in CARD),  # full width
    "12345678 4111111111111111 87654321",
]
OTHERWISE = [
    "4111.1111.1111.1111",
    "4111/1111/1111/1111",
    "4111 - 1111 - 1111 - 1111",
    "4,111,111,111,111,111",
    "41111111 11111111",
    "PAN4111111111111111",
    "a4111111111111111",
    "4111111111111111USD",
    "12345678411111111111111187654321",
]
NONE = [
    "4111111111111112",
    "2da90c7d74bd46a0caf3777415b3ebd3",
    "123e4567-e89b-12d3-a456-426614174000",
    "0000000000000000",
    "+1 555 0100",
    "CVS/PHARMACY #08912 2025550123",
    "",
]


@pytest.mark.parametrize("text", [*AS_ON_A_CARD, *OTHERWISE])
def test_card_numbers_are_recognised_and_not_printed(text: str) -> None:
    assert holds_card_number(text)
    assert printable(text) == MASK


@pytest.mark.parametrize("text", NONE)
def test_other_numbers_are_not_taken_for_cards(text: str) -> None:
    assert not holds_card_number(text)
    assert printable(text) == text


@pytest.mark.parametrize("text", AS_ON_A_CARD)
def test_in_an_id_a_number_that_stands_by_itself_is_one(text: str) -> None:
    assert holds_card_number(text, alone=True)


@given(number=st.integers(0, 2**128 - 1))
def test_no_hash_and_no_uuid_is_taken_for_a_card(number: int) -> None:
    made = uuid.UUID(int=number)
    assert made.hex.isdecimal() or not holds_card_number(made.hex)
    assert not holds_card_number(str(made))


@given(
    texts=st.lists(
        st.text("0123456789 .-/aZ\N{NO-BREAK SPACE}\N{FULLWIDTH DIGIT FOUR}", max_size=24) | st.sampled_from(AS_ON_A_CARD)
    )
)
def test_a_column_is_judged_as_each_of_its_values(texts: list[str]) -> None:
    frame = pl.DataFrame({"text": [*texts, None]}, schema={"text": pl.String})
    for alone in (False, True):
        expected = [*(holds_card_number(text, alone=alone) for text in texts), None]
        assert frame.select(holding_card_numbers(pl.col("text"), alone=alone)).to_series().to_list() == expected
