"""What the canonical schema promises: one order, one type a column, and no personal column ever shown."""

from itertools import combinations

import polars as pl
import pytest

from fraud_core.features import catalogue
from fraud_core.fields import schema
from tests import history_features

NAMES = [column.name for column in schema.CANONICAL]


def test_what_tells_a_person_is_personal() -> None:
    assert {"card", "birth_date", "home_latitude", "home_longitude"} == schema.PERSONAL


@pytest.mark.parametrize("columns", [NAMES, NAMES[1:4], *combinations(schema.PERSONAL, 2)])
def test_no_personal_column_and_no_bucket_of_a_person_is_shown(columns: list[str]) -> None:
    shown = schema.shown_columns(schema.raw_schema(columns))
    assert not schema.PERSONAL & set(shown)
    assert "split_bucket" not in shown


def test_raw_has_its_columns_in_canonical_order_whatever_order_they_are_asked_in() -> None:
    assert list(schema.raw_schema(reversed(NAMES))) == [*NAMES, "split_bucket", *schema.PROVENANCE]


def test_raw_always_has_an_id_and_has_a_bucket_only_with_cards() -> None:
    bare = schema.raw_schema(["timestamp", "amount_cents", "label"])
    assert list(bare) == ["transaction_id", "timestamp", "amount_cents", "label", *schema.PROVENANCE]
    assert schema.raw_schema(["card"])["split_bucket"] == pl.Int16()


def test_money_is_whole_cents() -> None:
    assert [column.dtype for column in schema.CANONICAL if column.parser == "money"] == [pl.Int64()]


def test_every_feature_is_made_of_canonical_columns_and_of_no_id_or_label() -> None:
    needed = set().union(*(feature.needs for feature in history_features.FEATURES))
    assert needed <= set(NAMES)
    assert not needed & {"transaction_id", "label"}
    assert not set().union(*(feature.needs for feature in catalogue.PLAIN)) & {"card", "merchant"}
