"""Columns that nothing can be learned from: which are dropped, and what is said of them."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from fraud_assets.training.columns import unlearnable
from tests.history_features import BY_NAME

AGE, DISTANCE, CITY, CATEGORY = (BY_NAME[name] for name in ("age", "distance", "city_population", "category"))
WINDOW, FLAG = BY_NAME["card_sum_1d"], replace(AGE, name="flag")
FEATURES = (AGE, DISTANCE, CITY, CATEGORY, WINDOW)
VARIED: dict[str, Any] = {
    "age": [20, 30, None, 40],
    "distance": [1, 2, 3, 4],
    "city_population": [7, 7, 8, 8],
    "category": ["a", "b", None, "a"],
    "card_sum_1d": [1.0, 2.5, 3.0, 4.0],
}


def dropped(**columns: Any) -> dict[str, str]:
    frame = pl.DataFrame(VARIED | columns, schema={feature.name: feature.dtype for feature in FEATURES})
    return unlearnable(frame, FEATURES)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, {}),
        ({"age": [5, 5, 5, 5]}, {"age": "constant among the training rows"}),
        ({"age": [5, None, 5, None]}, {"age": "constant among the training rows"}),  # a missing number becomes the median
        ({"age": [None] * 4}, {"age": "missing in every training row"}),
        ({"category": ["a"] * 4}, {"category": "constant among the training rows"}),
        ({"category": [None] * 4}, {"category": "missing in every training row"}),
        ({"category": ["a", None, None, "a"]}, {}),  # a missing name is a name of its own
        ({"distance": [7, 7, 8, 8]}, {"city_population": "the same as distance in every training row"}),
        ({"distance": [20, 30, None, 40]}, {"distance": "the same as age in every training row"}),
        ({"distance": [20, 30, 35, 40]}, {}),  # the same where both have a value is not the same
        ({"distance": [4, 3, 2, 1]}, {}),  # nor is the same in another order
        ({"card_sum_1d": [1.0, 2.0, 3.0, 4.0]}, {"card_sum_1d": "the same as distance in every training row"}),
    ],
)
def test_constant_missing_and_copied_columns_are_dropped_each_with_its_reason(
    columns: dict[str, Any], said: dict[str, str]
) -> None:
    assert dropped(**columns) == said


def test_of_two_that_are_the_same_that_of_the_payment_itself_stays_for_the_model_without_history() -> None:
    frame = pl.DataFrame({"card_sum_1d": [1.0, 2.0], "age": [1, 2]})
    assert unlearnable(frame, (WINDOW, AGE)) == {"card_sum_1d": "the same as age in every training row"}


def test_of_three_that_are_the_same_two_are_dropped() -> None:
    frame = pl.DataFrame({"age": [1, 2], "distance": [1, 2], "flag": [1, 2]})
    assert list(unlearnable(frame, (AGE, DISTANCE, FLAG))) == ["distance", "flag"]
