"""The candidates: chosen on validation A, exported without a loss, and harmless on noise."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fraud_assets.training import candidates
from fraud_assets.training.candidates import Candidate, fit_calibration, fit_candidates
from fraud_core.errors import HoldoutError
from fraud_core.evaluation import metrics
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.models.bundle import make_bundle
from fraud_core.models.kinds import boosting
from fraud_core.models.kinds.boosting import Boosting
from fraud_core.models.kinds.kind import LOOK_EVERY, Examples
from fraud_core.models.manifest import Calibration, Lineage, Thresholds
from fraud_core.models.scorer import Scorer

FRAUD_RATE = 0.03
FEATURES = ("log_amount", "hour", "night", "age", "distance", "city_population")
SCIKIT_LEARN: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda model, X: model.decision_function(X),
    "forest": lambda model, X: model.predict_proba(X)[:, 1],
    "boosting": lambda model, X: model.decision_function(X),
}


def matrix(rng: np.random.Generator, rows: int) -> np.ndarray[Any, Any]:
    """Columns on grids as the features have them, so that many values lie on a split of the trees."""
    columns = [np.round(rng.normal(3, 1.5, rows), 9), rng.integers(0, 24, rows), rng.integers(0, 2, rows)]
    columns += [rng.integers(18, 95, rows), np.round(rng.lognormal(9, 2, rows)), rng.integers(20, 3_000_000, rows)]
    return np.column_stack(columns).astype(np.float64)


def side(seed: int, rows: int, *, shuffled: bool = False) -> Examples:
    rng = np.random.default_rng(seed)
    X = matrix(rng, rows)
    risk = 0.9 * X[:, 0] + 1.5 * X[:, 2] * (X[:, 1] < 6) + np.log1p(X[:, 4]) / 4 + rng.normal(0, 0.7, rows)
    y = risk > np.quantile(risk, 1 - FRAUD_RATE)
    return Examples(X, rng.permutation(y) if shuffled else y, np.ones(rows))


def fitted(training: Examples, validation: Examples, threads: int = 1) -> list[Candidate]:
    return fit_candidates(training, validation, seed=7, threads=threads, progress=lambda _: None)


@pytest.fixture(scope="module")
def best_first() -> list[Candidate]:
    return fitted(side(1, 6_000), side(2, 3_000))


def test_there_are_a_linear_model_a_forest_and_boosting_the_best_first(best_first: list[Candidate]) -> None:
    assert {candidate.kind for candidate in best_first} == {"linear", "forest", "boosting"}
    figures = [candidate.average_precision for candidate in best_first]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 10 * FRAUD_RATE


def test_a_candidate_is_judged_by_the_model_that_would_ship(best_first: list[Candidate]) -> None:
    validation = side(2, 3_000)
    for candidate in best_first:
        assert candidate.average_precision == metrics.average_precision(validation.y, candidate.margins(validation.X, 1))


@pytest.mark.parametrize("kind", ["linear", "forest", "boosting"])
def test_the_bundle_scores_as_scikit_learn_does_on_100_000_rows(best_first: list[Candidate], kind: str) -> None:
    candidate = next(candidate for candidate in best_first if candidate.kind == kind)
    calibration = Calibration(slope=0.8, intercept=-0.4)
    bundle = make_bundle(
        source="test",
        timezone="UTC",
        feature_version=catalogue.VERSION,
        kind=candidate.kind,
        model=candidate.exported,
        encoder=Encoder(columns=tuple(ColumnEncoding(feature=name, missing=0.0) for name in FEATURES)),
        calibration=calibration,
        thresholds=Thresholds(review=0.1, decline=0.9),
        lineage=Lineage(training_set="t", partitions=(), card_key_id="k", libraries={}),
    )
    rng = np.random.default_rng(9)
    X = np.vstack([matrix(rng, 70_000), np.repeat(side(1, 6_000).X, 5, axis=0)])  # also the rows the trees were cut on
    margins = SCIKIT_LEARN[kind](candidate.estimator, X)
    expected = 1 / (1 + np.exp(-(calibration.slope * margins + calibration.intercept)))
    assert len(X) == 100_000
    assert len(np.unique(expected)) > 1_000
    np.testing.assert_allclose(Scorer(bundle).score_matrix(X), expected, rtol=0, atol=1e-9)


def test_the_number_of_threads_changes_no_byte(best_first: list[Candidate]) -> None:
    again = fitted(side(1, 6_000), side(2, 3_000), threads=2)
    assert [(one.name, one.exported) for one in again] == [(one.name, one.exported) for one in best_first]


def test_boosting_keeps_the_number_of_trees_that_is_best_on_validation_a(best_first: list[Candidate]) -> None:
    training, validation = side(1, 6_000), side(2, 3_000)
    for candidate in best_first:
        if candidate.kind != "boosting":
            continue
        whole = boosting.BOOSTING[candidate.name.split(" (")[0]]
        model = candidate.estimator
        with candidates.fixed_threads(1):
            grown = type(model)(**model.get_params() | {"max_iter": whole.trees}).fit(training.X, training.y)
            stages = [margins.ravel() for margins in grown.staged_decision_function(validation.X)]
        looks = [metrics.average_precision(validation.y, margins) for margins in stages[9::LOOK_EVERY]]
        assert candidate.average_precision == pytest.approx(max(looks), abs=1e-12)
        assert model.n_iter_ == 10 * (1 + int(np.argmax(looks)))
        with candidates.fixed_threads(1):
            anew = type(model)(**model.get_params()).fit(training.X, training.y)
        assert Boosting().export(anew) == candidate.exported


def test_on_shuffled_labels_no_candidate_finds_anything() -> None:
    for candidate in fitted(side(1, 6_000, shuffled=True), side(2, 20_000, shuffled=True)):
        assert 0.7 * FRAUD_RATE < candidate.average_precision < 1.4 * FRAUD_RATE


def test_thinned_rows_with_weights_stand_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "BOOSTING", {})
    everything = side(1, 20_000)
    rng = np.random.default_rng(5)
    kept = everything.y | (rng.random(len(everything.y)) < 0.25)
    thinned = Examples(everything.X[kept], everything.y[kept], np.where(everything.y[kept], 1.0, 4.0))
    validation = side(2, 5_000)
    linear = [next(c for c in fitted(one, validation) if c.kind == "linear") for one in (everything, thinned)]
    predicted = [candidate.estimator.predict_proba(validation.X)[:, 1].mean() for candidate in linear]
    assert predicted[0] == pytest.approx(FRAUD_RATE, rel=0.15)
    assert predicted[1] == pytest.approx(predicted[0], rel=0.15)  # without weights it would be fourfold


def test_coefficients_hold_for_the_matrix_as_it_is(best_first: list[Candidate]) -> None:
    linear = next(candidate for candidate in best_first if candidate.kind == "linear")
    document = json.loads(linear.exported)
    X = side(1, 6_000).X
    np.testing.assert_allclose(document["means"], X.mean(axis=0))
    margins = X @ np.array(document["coefficients"]) + document["intercept"]
    np.testing.assert_allclose(margins, linear.estimator.decision_function(X), atol=1e-9)


def test_calibration_finds_the_map_behind_the_labels() -> None:
    rng = np.random.default_rng(3)
    margins = rng.normal(-2, 3, 200_000)
    labels = rng.random(len(margins)) < 1 / (1 + np.exp(-(0.6 * margins - 1.2)))
    found = fit_calibration(margins, labels)
    assert found.slope == pytest.approx(0.6, rel=0.02)
    assert found.intercept == pytest.approx(-1.2, rel=0.02)


@pytest.mark.parametrize("gap", [0.0, 0.1, 3.0])
def test_calibration_stays_finite_where_frauds_and_others_do_not_overlap(gap: float) -> None:
    margins = np.concatenate([np.linspace(-6, -1, 5_000), np.linspace(-1 + gap, 2 + gap, 41)[1:]])
    found = fit_calibration(margins, np.arange(len(margins)) >= 5_000)
    scores = 1 / (1 + np.exp(-(found.slope * margins + found.intercept)))
    assert 0 < found.slope < 100
    # Platt's targets add up to about as many frauds as there are.
    assert scores.sum() == pytest.approx(40 * 41 / 42 + 5_000 / 5_002, rel=5e-3)


def test_a_model_that_ranks_the_wrong_way_round_is_refused() -> None:
    margins = np.linspace(-3, 3, 1_000)
    with pytest.raises(HoldoutError, match="nothing was learned"):
        fit_calibration(margins, margins < -2.5)
