"""The fast interpreter of boosted trees: treelite's margins to the last bit, or nothing."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from fraud_core.models.kinds.bit_vectors import BitVectors
from fraud_core.units.arrays import Floats


def data(columns: int = 6, rows: int = 3_000) -> tuple[Floats, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(rows, columns)).round(2)
    X[:, 0] = rng.integers(0, 5, rows)
    return X, X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=rows) > 2


def boosted(**options: Any) -> Any:
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=0, **options).fit(*data())
    return treelite.sklearn.import_model(model)


def by_treelite(model: Any, X: Floats) -> Floats:
    margins: Floats = treelite.gtil.predict(model, X, nthread=1, pred_margin=True).reshape(-1)
    return margins


@pytest.mark.parametrize("leaves", [2, 15, 31, 64])
@pytest.mark.parametrize("trees", [1, 60])
def test_margins_are_treelites_to_the_last_bit(leaves: int, trees: int) -> None:
    model = boosted(max_iter=trees, max_leaf_nodes=leaves, min_samples_leaf=2)
    fast = BitVectors.of(model, 6)
    assert fast is not None
    X = np.vstack([data()[0], np.random.default_rng(1).normal(size=(333, 6)), np.full((1, 6), np.inf), np.full((1, 6), -np.inf)])
    assert fast.margins(X).tobytes() == by_treelite(model, X).tobytes()


def test_a_row_alone_has_the_bits_it_has_in_a_batch() -> None:
    fast = BitVectors.of(boosted(max_iter=30), 6)
    assert fast is not None
    X = data()[0][:200]
    assert [fast.margins(X[at : at + 1])[0] for at in range(200)] == fast.margins(X).tolist()
    assert fast.margins(X[:0]).shape == (0,)


def test_a_value_on_a_threshold_goes_left_as_in_training() -> None:
    model = boosted(max_iter=30)
    fast = BitVectors.of(model, 6)
    assert fast is not None
    on = np.zeros((1, 6))
    for column, thresholds in enumerate(fast.thresholds):
        for threshold in thresholds:
            for value in (threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)):
                on[0, column] = value
                assert fast.margins(on).tobytes() == by_treelite(model, on).tobytes()


def test_a_column_that_no_tree_looks_at_changes_nothing() -> None:
    X, y = data()
    X[:, 3] = 1.0
    fitted = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(X, y)
    model = treelite.sklearn.import_model(fitted)
    fast = BitVectors.of(model, 6)
    assert fast is not None
    assert fast.thresholds[3] == []
    assert fast.margins(X).tobytes() == by_treelite(model, X).tobytes()


def test_models_of_another_kind_are_left_to_treelite() -> None:
    X, y = data()
    large = boosted(max_iter=2, max_leaf_nodes=65, min_samples_leaf=1)
    categorical = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0], early_stopping=False).fit(X, y)
    forest = RandomForestClassifier(3, max_leaf_nodes=8, random_state=0).fit(X, y)
    assert BitVectors.of(large, 6) is None
    assert BitVectors.of(treelite.sklearn.import_model(categorical), 6) is None
    assert BitVectors.of(treelite.sklearn.import_model(forest), 6) is None


def test_an_interpreter_that_differs_in_one_bit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = boosted(max_iter=5)
    honest = BitVectors.margins
    monkeypatch.setattr(BitVectors, "margins", lambda self, X: np.nextafter(honest(self, X), np.inf))
    assert BitVectors.of(model, 6) is None
