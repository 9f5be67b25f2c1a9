"""What the simple model's scores promise: a partition is scored by the others' labels, and its own change nothing in it."""

import numpy as np
import polars as pl
import pytest

from fraud_assets.training.simple_score import cross_fitted
from fraud_core.evaluation.metrics import roc_auc
from tests.history_features import BY_NAME

FEATURES = (BY_NAME["log_amount"], BY_NAME["category"])


def part(seed: int, rows: int = 1_500) -> pl.DataFrame:
    """Frauds have large amounts, and a category of their own now and then."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(rows) < 0.05
    category = np.where(fraud & (rng.random(rows) < 0.5), "wire", rng.choice(["food", "fuel"], rows))
    amounts = pl.Series(rng.normal(fraud * 2.0)).set(pl.Series(rng.random(rows) < 0.01), None)
    return pl.DataFrame({"log_amount": amounts, "category": category, "label": fraud})


@pytest.fixture(scope="module")
def parts() -> dict[str, pl.DataFrame]:
    return {f"2024-{month:02d}": part(month) for month in range(1, 7)}


def test_a_partition_is_scored_by_what_the_others_teach(parts: dict[str, pl.DataFrame]) -> None:
    scores = cross_fitted(list(parts), parts.__getitem__, FEATURES)
    assert set(scores) == set(parts)
    assert all(roc_auc(parts[name]["label"].to_numpy(), scores[name]) > 0.85 for name in parts)
    turned = parts | {"2024-02": parts["2024-02"].with_columns(~pl.col("label"))}
    again = cross_fitted(list(turned), turned.__getitem__, FEATURES, left_out=["2024-02"])
    assert roc_auc(turned["2024-02"]["label"].to_numpy(), again["2024-02"]) < 0.15


def test_from_too_few_frauds_nothing_is_learned(parts: dict[str, pl.DataFrame]) -> None:
    few = {name: frame.head(100) for name, frame in parts.items()}
    assert cross_fitted(list(few), few.__getitem__, FEATURES) == {}
    assert cross_fitted(["2024-01"], parts.__getitem__, FEATURES) == {}
    assert cross_fitted(list(parts), parts.__getitem__, FEATURES, left_out=list(parts)) == {}


def test_a_column_without_any_value_stops_nothing(parts: dict[str, pl.DataFrame]) -> None:
    empty = {name: frame.with_columns(age=pl.lit(None, pl.Int64)) for name, frame in parts.items()}
    with_it = cross_fitted(list(empty), empty.__getitem__, (*FEATURES, BY_NAME["age"]))
    without = cross_fitted(list(parts), parts.__getitem__, FEATURES)
    assert all(np.array_equal(with_it[name], without[name]) for name in parts)
