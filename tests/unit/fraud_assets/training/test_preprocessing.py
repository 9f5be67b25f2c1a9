"""The encoder: what it learns, and from which rows."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import TargetEncoder

from fraud_assets.training.preprocessing import FEW_NAMES, MOST_NAMES, RARE, fit_encoder, training_matrix
from fraud_assets.training.rows import Rows
from fraud_core.errors import FeatureError
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


# ---- categories of many names


def payments(names: Any, labels: Any, cards: Any = None, seed: int = 1) -> Rows:
    """One payment an hour, of cards drawn by themselves where none are given."""
    n = len(labels)
    drawn = np.random.default_rng(seed).integers(0, n // 4, n) if cards is None else np.asarray(cards)
    hours = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2026, 1, 1), "1h", time_zone="UTC", eager=True)
    stamps = pl.concat([hours] * (1 + n // len(hours)))[:n]
    return rows(category=pl.Series(names), label=labels, card=pl.Series(drawn).cast(pl.String), timestamp=stamps)


def noise(names: int, n: int = 6_000) -> Rows:
    """Names that have nothing to do with fraud."""
    rng = np.random.default_rng(names)
    return payments(pl.Series(rng.integers(0, names, n)).cast(pl.String), rng.random(n) < 0.05)


def learned_from(given: Rows, encoder: Encoder | None = None, seed: int = 20) -> np.ndarray:
    every = np.ones(len(given.frame), dtype=bool)
    return training_matrix(given, every, encoder or fit_encoder(given, [CATEGORY]), seed)[:, 0]


def test_few_names_are_learned_as_ever_to_the_bit() -> None:
    given, rng = noise(FEW_NAMES), np.random.default_rng(0)
    names = given.frame["category"].to_numpy().reshape(-1, 1)
    known = TargetEncoder(target_type="binary", smooth="auto").fit(names, given.labels)
    expected = dict(zip(map(str, known.categories_[0]), map(float, known.encodings_[0]), strict=True))
    encoder = fit_encoder(given, [CATEGORY])
    assert encoder.columns[0].categories == expected
    assert "rare" not in encoder.model_dump_json()
    assert learned_from(given).tobytes() == encoder.frame_matrix(given.frame).tobytes()
    ages = [None if missing else int(age) for age, missing in zip(rng.integers(0, 99, 500), rng.random(500) < 0.3, strict=True)]
    fitted = fit_encoder(rows(age=ages, label=[True, False] * 250), [AGE]).columns[0].missing
    numbers = np.array([[np.nan if age is None else age] for age in ages])
    assert fitted == SimpleImputer(strategy="median").fit(numbers).statistics_[0]


def test_what_a_model_learns_of_many_names_does_not_tell_a_rows_own_label() -> None:
    given = noise(600)
    encoder = fit_encoder(given, [CATEGORY])
    told = np.corrcoef(encoder.frame_matrix(given.frame)[:, 0], given.labels)[0, 1]
    out_of_fold = np.corrcoef(learned_from(given, encoder), given.labels)[0, 1]
    assert told > 0.2  # names that tell nothing seem to
    assert abs(out_of_fold) < told / 3


def test_a_card_does_not_tell_its_own_labels_by_a_name_that_it_alone_uses() -> None:
    given = noise(200)
    ours = np.arange(len(given.frame)) < 40
    frame = given.frame.with_columns(
        category=pl.when(pl.Series(ours)).then(pl.lit("ours")).otherwise("category"),
        label=pl.Series(ours) | pl.col("label"),
        card=pl.when(pl.Series(ours)).then(pl.lit("the thief's")).otherwise("card"),
    )
    burst = Rows(frame, given.weights, given.partition)
    encoder = fit_encoder(burst, [CATEGORY])
    column = encoder.columns[0]
    assert column.categories is not None
    assert column.unseen is not None
    assert column.categories["ours"] > 5 * column.unseen  # what serving shall know
    np.testing.assert_allclose(learned_from(burst, encoder)[ours], column.unseen)  # and training did not


def test_a_rare_name_is_pooled_with_those_never_seen_at_the_mean_share() -> None:
    given = noise(200)
    names = given.frame["category"].to_list()
    names[:RARE], names[RARE : 2 * RARE - 1] = ["often enough"] * RARE, ["rare"] * (RARE - 1)
    given = payments(names, given.labels)
    encoder = fit_encoder(given, [CATEGORY])
    column = encoder.columns[0]
    assert column.rare == RARE
    assert column.unseen == pytest.approx(given.labels.mean())
    assert column.categories is not None
    assert "often enough" in column.categories
    assert "rare" not in column.categories
    asked = pl.DataFrame({"category": ["rare", "never seen"]})
    assert encoder.frame_matrix(asked).ravel().tolist() == [column.unseen] * 2
    assert (learned_from(given, encoder)[RARE : 2 * RARE - 1] == column.unseen).all()
    assert Encoder.model_validate_json(encoder.model_dump_json()) == encoder


def test_a_name_of_frauds_is_learned_though_there_are_thousands_of_names() -> None:
    rng, n = np.random.default_rng(3), 20_000
    label = rng.random(n) < 0.03
    names = np.where(label & (rng.random(n) < 0.5), rng.integers(0, 20, n), rng.integers(0, 3_000, n))
    given = payments(pl.Series(names).cast(pl.String), label)
    share = learned_from(given)
    assert share[label].mean() > 3 * share[~label].mean()


def test_folds_are_the_same_under_another_card_key_and_others_under_another_seed() -> None:
    given = noise(300)
    other = Rows(given.frame.with_columns("another key " + pl.col("card")), given.weights, given.partition)
    assert learned_from(given).tobytes() == learned_from(other).tobytes()
    assert learned_from(given).tobytes() != learned_from(given, seed=21).tobytes()
    without = Rows(given.frame.drop("card"), given.weights, given.partition)  # then days lie in one fold
    assert abs(np.corrcoef(learned_from(without), given.labels)[0, 1]) < 0.07


@pytest.mark.parametrize(("names", "n"), [(5_000, 6_000), (MOST_NAMES + 1, 3 * MOST_NAMES)])
def test_a_category_that_is_an_id_is_refused_with_what_to_declare(names: int, n: int) -> None:
    given = payments((pl.int_range(n, eager=True) % names).cast(pl.String), np.arange(n) % 20 == 0)
    with pytest.raises(FeatureError, match=r"category is a category with .* names .*declare it as an id: kind = \"id\""):
        fit_encoder(given, [CATEGORY])


def test_an_encoder_of_100_000_names_stays_small() -> None:
    rng, n = np.random.default_rng(4), 3 * MOST_NAMES
    names = np.concatenate([np.arange(MOST_NAMES), (rng.pareto(1.0, n - MOST_NAMES) * 30).astype(np.int64) % MOST_NAMES])
    given = payments("a shop of the name " + pl.Series(names).cast(pl.String), rng.random(n) < 0.01, rng.integers(0, 5_000, n))
    encoder = fit_encoder(given, [CATEGORY])
    assert len(encoder.columns[0].categories or {}) < n / RARE
    assert len(encoder.model_dump_json()) < 2_000_000
