"""What the encoder promises: the same matrix out of arrays, of stored rows and of one row; nothing missing comes through."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fraud_core.features.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder

ENCODER = Encoder(
    columns=(
        ColumnEncoding(feature="distance", missing=7.5),
        ColumnEncoding(feature="category", categories={"food": 0.1, "fuel": 0.2, MISSING_CATEGORY: 0.3}, unseen=0.9),
        ColumnEncoding(feature="age", missing=40.0),
    )
)
ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(0, 1e7),
        st.sampled_from([None, "food", "fuel", "never seen", "", MISSING_CATEGORY]),
        st.none() | st.integers(0, 120),
    ),
    min_size=1,
    max_size=30,
)


def arrays(rows: list[tuple[float | None, str | None, int | None]]) -> dict[str, np.ndarray]:
    distance, category, age = zip(*rows, strict=True)
    return {
        "age": np.array([np.nan if value is None else value for value in age], dtype=np.float64),
        "category": np.array(category, dtype=object),
        "distance": np.array([np.nan if value is None else value for value in distance]),
    }


def test_columns_come_in_the_order_of_the_encoder_whatever_the_order_of_the_features() -> None:
    assert ENCODER.features == ("distance", "category", "age")
    assert ENCODER.matrix(arrays([(1.0, "food", 50)])).tolist() == [[1.0, 0.1, 50.0]]


def test_missing_numbers_and_categories_and_unseen_names_get_their_numbers() -> None:
    assert ENCODER.matrix(arrays([(None, None, None), (2.0, "never seen", 3)])).tolist() == [[7.5, 0.3, 40.0], [2.0, 0.9, 3.0]]


def test_a_missing_category_that_training_never_missed_counts_as_unseen() -> None:
    encoder = Encoder(columns=(ColumnEncoding(feature="category", categories={"food": 0.1}, unseen=0.9),))
    assert encoder.matrix({"category": np.array([None, "food"], dtype=object)}).tolist() == [[0.9], [0.1]]
    assert encoder.frame_matrix(pl.DataFrame({"category": [None, "food"]})).tolist() == [[0.9], [0.1]]


def test_without_any_category_seen_all_are_unseen() -> None:
    encoder = Encoder(columns=(ColumnEncoding(feature="category", categories={}, unseen=0.9),))
    assert encoder.matrix({"category": np.array(["food"], dtype=object)}).tolist() == [[0.9]]
    assert encoder.frame_matrix(pl.DataFrame({"category": ["food"]})).tolist() == [[0.9]]


@given(ROWS)
def test_stored_rows_arrays_and_single_rows_give_the_same_bits(rows: list[tuple[float | None, str | None, int | None]]) -> None:
    matrix = ENCODER.matrix(arrays(rows))
    stored = pl.DataFrame(rows, schema={"distance": pl.Float64, "category": pl.String, "age": pl.Int64}, orient="row")
    assert ENCODER.frame_matrix(stored).tobytes() == matrix.tobytes()
    assert np.concatenate([ENCODER.matrix(arrays([row])) for row in rows]).tobytes() == matrix.tobytes()
    assert np.isfinite(matrix).all()


def test_no_rows_make_an_empty_matrix_of_the_right_width() -> None:
    nothing = pl.DataFrame(schema={"distance": pl.Int64, "category": pl.String, "age": pl.Int64})
    assert ENCODER.frame_matrix(nothing).shape == (0, 3)


def test_an_encoder_comes_back_from_json_with_the_same_bits() -> None:
    encoder = Encoder(columns=(ColumnEncoding(feature="age", missing=0.1 + 0.2), *ENCODER.columns[:2]))
    assert Encoder.model_validate_json(encoder.model_dump_json()) == encoder


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"missing": 1.0, "unseen": 0.5},
        {"categories": {"a": 1.0}},
        {"unseen": 0.5},
        {"missing": 1.0, "categories": {"a": 1.0}, "unseen": 0.5},
        {"missing": 1.0, "scale": 2.0},
        {"missing": 1.0, "rare": 10},
    ],
)
def test_a_column_that_is_neither_number_nor_category_is_refused(declared: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ColumnEncoding(feature="x", **declared)
