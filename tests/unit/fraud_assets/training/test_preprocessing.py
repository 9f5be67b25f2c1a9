"""The encoder: what it learns, and from which rows."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from fraud_assets.training.preprocessing import fit_encoder
from fraud_assets.training.rows import Rows
from fraud_core.features.encoder import MISSING_CATEGORY, Encoder
from tests.history_features import BY_NAME

CATEGORY, AGE = BY_NAME["category"], BY_NAME["age"]


def rows(**columns: Any) -> Rows:
    frame = pl.DataFrame(columns)
    return Rows(frame, np.ones(len(frame)), np.zeros(len(frame), dtype=np.int64))


def of_category(names: list[str | None], labels: list[bool]) -> Encoder:
    return fit_encoder(rows(category=names, label=labels), [CATEGORY])


def test_a_category_becomes_a_share_of_frauds_drawn_towards_the_mean() -> None:
    labels = [True] * 10 + [False] * 90 + [True] * 50 + [False] * 50 + [True] * 2
    encoder = of_category(["a"] * 100 + ["b"] * 100 + ["rare"] * 2, labels)
    shares = encoder.columns[0].categories
    assert shares is not None
    mean = 62 / 202
    assert 0.10 < shares["a"] < mean
    assert mean < shares["b"] < 0.50
    assert encoder.columns[0].unseen == pytest.approx(mean)
    np.testing.assert_allclose([shares["a"], shares["b"]], [0.10, 0.50], atol=0.02)


def test_a_missing_category_is_a_category_of_its_own() -> None:
    encoder = of_category(["a", None] * 50, [False, True] * 50)
    shares = encoder.columns[0].categories
    assert shares is not None
    assert set(shares) == {"a", MISSING_CATEGORY}
    assert encoder.frame_matrix(pl.DataFrame({"category": [None, "a", "new"]})).ravel().tolist() == [
        shares[MISSING_CATEGORY],
        shares["a"],
        encoder.columns[0].unseen,
    ]


def test_a_missing_number_becomes_the_median() -> None:
    encoder = fit_encoder(rows(age=[20, 30, None, 90], label=[False, False, True, True]), [AGE])
    assert encoder.columns[0].missing == 30.0
    assert encoder.frame_matrix(pl.DataFrame({"age": [None, 55]})).ravel().tolist() == [30.0, 55.0]


def test_a_column_without_any_number_does_not_stop_the_fit() -> None:
    encoder = fit_encoder(rows(age=pl.Series([None, None], dtype=pl.Int64), label=[False, True]), [AGE])
    assert encoder.columns[0].missing == 0.0


def test_columns_keep_the_order_of_the_features() -> None:
    frame = {"age": [1, 2], "category": ["a", "b"], "label": [False, True]}
    assert fit_encoder(rows(**frame), [CATEGORY, AGE]).features == ("category", "age")
    assert fit_encoder(rows(**frame), [AGE, CATEGORY]).features == ("age", "category")


def test_training_and_serving_give_the_same_matrix() -> None:
    frame = pl.DataFrame({"age": [20, None, 40], "category": ["a", None, "unseen"], "label": [False, True, False]})
    encoder = fit_encoder(rows(**frame[:2].to_dict()), [AGE, CATEGORY])
    arrays = {"age": np.array([20.0, np.nan, 40.0]), "category": np.array(["a", None, "unseen"], dtype=object)}
    np.testing.assert_array_equal(encoder.frame_matrix(frame), encoder.matrix(arrays))
